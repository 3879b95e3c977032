/* The text form: what it parses to, that printing and parsing are inverse, and what its errors say. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "graph/onnx.pb-c.h"
#include "graph/text.h"

static struct linnet_model *parsed(const char *text)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[800];

	assert_non_null(m);
	if (text_parse(m, text, strlen(text), &e))
		fail_msg("%s\nin\n%s", linnet_error_line(&e, line, sizeof line), text);
	return m;
}

/* Texts that are printed as they stand. */
static void printed_texts_stand(void **state)
{
	static const char *const texts[] = {
		"<\n  ir_version: 8,\n  producer_name: \"pytest\",\n  opset_import: [\"\" : 18, \"local\" : 1],\n"
		"  metadata_props: [\"a\": \"b\", \"c\": \"\\\"d\\\\\"]\n>\n"
		"main (float[N,128] x, int64 n) => (float[N,\"N + 1\",?] y, float[] z)\n"
		"<\n  float[2] w = {1, 2.5},\n  float[N,128] h\n>\n"
		"{\n"
		"  [first] h = Relu (x)\n"
		"  \"y/1\", \"\" = com.microsoft.Gelu <alpha = 1.0, axes = [1, 2], s = \"text\", e: ints = []> (h, \"\", w)\n"
		"  = \"my-domain\".f:one <a: float = @b, g = [1.0, -2e-07]> ()\n"
		"}\n",
		"<\n  ir_version: 8\n>\n"
		"g () => (seq(float[2]) a, map(int64, seq(string)) b, optional(bfloat16[]) c, sparse_tensor(double[3]) d, opaque(x,y) e)\n"
		"{\n"
		"  y = If (c) <then_branch = then () => (float \"seq\")\n"
		"    <\n      float b = {nan}\n    >\n"
		"    {\n      \"seq\" = Neg (b)\n    }, else_branch = inner () => (z)\n"
		"    {\n    }>\n"
		"  z = Constant <value = float16[3] = {1.5, -inf, 6e-08}, type = seq(int8[2])> ()\n"
		"}\n"
		"\n"
		"<\n  doc_string: \"doubles\",\n  opset_import: [\"\" : 17],\n  domain: \"local\"\n>\n"
		"f <n, alpha = 1.0> (x, y) => (z)\n"
		"{\n  z = Mul <to: int = @n> (x, y)\n}\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct linnet_model *m = parsed(texts[i]);
		struct linnet_error e = { 0 };
		char *out;

		assert_int_equal(text_print(m, m->arena, &out, &e), LINNET_OK);
		assert_string_equal(out, texts[i]);
		model_free(m);
	}
}

static void errors_say_where(void **state)
{
	static const struct { const char *text, *message; } cases[] = {
		{ "", "line 1, column 1: expected the name of a graph, found the end" },
		{ "g (float x) = (y) {}", "line 1, column 13: expected '=>' after the inputs, found '='" },
		{ "g () => (float y)\n{ y = Add (x }", "line 2, column 14: expected ')' after the inputs of a node, found '}'" },
		{ "g () => () { y = A <a = 1, b = [1, \"x\"]> () }", "line 1, column 36: the values of a list are of one kind" },
		{ "g () => () <float[2] w = {1}> {}", "line 1, column 26: 1 elements; the tensor's lengths say 2" },
		{ "g () => () <int8[1] w = {200}> {}", "line 1, column 26: 200 is not in [-128, 127]" },
		{ "g () => () <float[1] w = {1e60}> {}", "line 1, column 27: 1e60 is too large for float" },
		{ "g (float[\"N] x) => () {}", "line 1, column 10: the string that starts here has no closing '\"'" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_error e = { 0 };
		struct linnet_model *m = model_new(NULL, &e);

		assert_int_equal(text_parse(m, cases[i].text, strlen(cases[i].text), &e), LINNET_EFORMAT);
		assert_string_equal(e.message, cases[i].message);
		assert_null(m->proto);
		model_free(m);
	}
}

static bool has_axes(void *ctx, const char *name, const char *word)
{
	return *(bool *)ctx && !strcmp(name, "axes") && (!word || !strcmp(word, "all"));
}

static const struct op row = {
	.name = "Old", .in = IN({ "data" }, { "rest" }), .out = OUT({ "reduced" }), .attr = ATTRS({ .name = "axes" }, { .name = "keepdims" }),
};

static void blocks_are_chosen(void **state)
{
	struct arena *a = arena_new();
	struct linnet_error e = { 0 };
	Onnx__FunctionProto *f;

	(void)state;
	for (int given = 0; given < 2; given++) {
		bool yes = given;

		assert_int_equal(text_parse_block("?axes { c = Constant <value_ints: ints = @axes> ()\n reduced = Sum (data, c) }\n"
		                                  "{ reduced = Neg (data) }", &row, has_axes, &yes, a, &f, &e), LINNET_OK);
		assert_int_equal(f->n_node, given ? 2 : 1);
		assert_string_equal(f->node[0]->op_type, given ? "Constant" : "Neg");
		if (given)
			assert_string_equal(f->node[0]->attribute[0]->ref_attr_name, "axes");
		assert_int_equal(text_parse_block("?axes=one { } ?axes=all { a = A () } { b = B () }", &row, has_axes, &yes, a, &f, &e), LINNET_OK);
		assert_string_equal(f->node[0]->op_type, given ? "A" : "B");
		assert_int_equal(f->n_input, 2);
		assert_string_equal(f->input[1], "rest");
		assert_string_equal(f->output[0], "reduced");
		assert_string_equal(f->attribute[1], "keepdims");
	}
	assert_int_equal(text_parse_block("{ } x", &row, NULL, NULL, a, &f, &e), LINNET_EFORMAT);
	assert_string_equal(e.message, "line 1, column 5: expected the end, found \"x\"");
	arena_free(a);
}

static void rules_are_graphs(void **state)
{
	struct arena *a = arena_new();
	struct linnet_error e = { 0 };
	Onnx__GraphProto *g;

	(void)state;
	assert_int_equal(text_parse_graph("(float[B,H] q, k) => (y) { y = MatMul (q, k) }", a, &g, &e), LINNET_OK);
	assert_int_equal(g->n_input, 2);
	assert_string_equal(g->input[0]->type->tensor_type->shape->dim[1]->dim_param, "H");
	assert_null(g->input[1]->type);
	assert_int_equal(text_parse_graph("{ y = Neg (x) }", a, &g, &e), LINNET_OK);
	assert_int_equal(g->n_node, 1);
	arena_free(a);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(printed_texts_stand),
		cmocka_unit_test(errors_say_where),
		cmocka_unit_test(blocks_are_chosen),
		cmocka_unit_test(rules_are_graphs),
	};

	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
