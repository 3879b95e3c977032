/* Inference: types of values as texts, from models as texts. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "graph/text.h"
#include "ops/base/str.h"

static struct linnet_model *imported(const char *text)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[800];

	assert_non_null(m);
	if (text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s\nin\n%s", linnet_error_line(&e, line, sizeof line), text);
	return m;
}

static struct linnet_model *inferred(const char *text)
{
	struct linnet_model *m = imported(text);
	struct linnet_error e = { 0 };
	char line[800];

	if (graph_infer(m->graph, &e) || graph_verify(m->graph, &e))
		fail_msg("%s\nin\n%s", linnet_error_line(&e, line, sizeof line), text);
	return m;
}

/* "float[batch,seq]", and what is known of the elements: "int64[2] {batch, 4}". */
static const char *described(struct linnet_model *m, const struct type *t)
{
	const char *shape = shape_str(m->dims, &t->shape, m->arena);
	int64_t n = t->value ? t->value->n : t->sym ? (t->shape.rank ? t->shape.d[0] : 1) : 0;
	struct str s;

	str_init(&s, m->arena);
	str_addf(&s, "%s%s", dtype_name(t->dt), shape ? shape : "");
	for (int64_t i = 0; i < n && n <= 8; i++) {
		str_add(&s, i ? ", " : " {");
		if (t->value && dtype_class(t->dt) == CLASS_FLOAT)
			str_addf(&s, "%g", tensor_get(t->value, i));
		else
			str_add(&s, dim_str(m->dims, t->value ? tensor_get_int(t->value, i) : t->sym[i], m->arena));
	}
	str_add(&s, n && n <= 8 ? "}" : "");
	return str_done(&s);
}

static value_id find(const struct graph *g, const char *name)
{
	for (value_id v = 1; v < g->nvalue; v++)
		if (!strcmp(g->value[v].name, name))
			return v;
	fail_msg("no value is named %s", name);
	return 0;
}

enum { MAX_EXPECT = 10 };

static const struct {
	const char *text;
	const char *expect[MAX_EXPECT][2];
} cases[] = {
	/* shapes travel through the arithmetic exporters write */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq, 64] x) => (y) <int64 i0 = {0}, int64 i1 = {1}, int64[1] a = {0}, int64[2] hd = {4, 16}>\n"
	  "{ s = Shape (x)\n b = Gather (s, i0)\n t = Gather (s, i1)\n b1 = Unsqueeze (b, a)\n t1 = Unsqueeze (t, a)\n"
	  "  h = Concat <axis = 0> (b1, t1, hd)\n r = Reshape (x, h)\n y = Transpose <perm = [0, 2, 1, 3]> (r) }",
	  { { "s", "int64[3] {batch, seq, 64}" }, { "b", "int64[] {batch}" }, { "h", "int64[4] {batch, seq, 4, 16}" },
	    { "r", "float[batch,seq,4,16]" }, { "y", "float[batch,4,seq,16]" } } },
	/* -1 by exact division; 0 copies */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq, 64] x, float[b2, \"8*h\", \"8*w\", 3] im) => (y) <int64[4] a = {0, -1, 4, 16}, int64[2] f = {-1, 64},\n"
	  "  int64[4] win = {-1, 8, 8, 3}>\n"
	  "{ r = Reshape (x, a)\n y = Reshape (x, f)\n z = Reshape (im, win) }",
	  { { "r", "float[batch,seq,4,16]" }, { "y", "float[batch*seq,64]" }, { "z", "float[b2*h*w,8,8,3]" } } },
	/* arithmetic on lengths, comparisons that hold for every length, and choices by them */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq, 64] x) => (y) <int64 one = {1}, int64[1] two = {2}, int64[3] minus = {-1, -1, -1}>\n"
	  "{ s = Shape (x)\n a = Add (s, one)\n b = Sub (one, s)\n k = Mul (s, two)\n d = Div (s, two)\n m = Mod (k, two)\n"
	  "  p = ReduceProd <keepdims = 0> (s)\n q = Equal (s, minus)\n c = Cast <to = 6> (q)\n y = Where (q, one, s) }",
	  { { "a", "int64[3] {batch + 1, seq + 1, 65}" }, { "b", "int64[3] {1 - batch, 1 - seq, -63}" },
	    { "k", "int64[3] {2*batch, 2*seq, 128}" }, { "d", "int64[3] {batch//2, seq//2, 32}" }, { "m", "int64[3] {0, 0, 0}" },
	    { "p", "int64[] {64*batch*seq}" }, { "q", "bool[3] {0, 0, 0}" }, { "c", "int32[3] {0, 0, 0}" },
	    { "y", "int64[3] {batch, seq, 64}" } } },
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq] x) => (y) <int64 one = {1}, int64 low = {0}, int64 three = {3}>\n"
	  "{ s = Shape (x)\n a = Add (s, one)\n n = Neg (a)\n l = Less (n, low)\n g = Greater (s, three)\n e = GreaterOrEqual (a, s)\n o = Or (l, e)\n"
	  "  b = Not (o)\n h = Mod <fmod = 1> (s, three)\n x2 = Xor (b, e)\n t = Max (s, low)\n d = Div (n, three)\n y = Clip (a, one) }",
	  { { "n", "int64[2] {-batch - 1, -seq - 1}" }, { "l", "bool[2] {1, 1}" }, { "g", "bool[2]" }, { "e", "bool[2] {1, 1}" },
	    { "b", "bool[2] {0, 0}" }, { "t", "int64[2] {batch, seq}" }, { "h", "int64[2] {batch - 3*(batch//3), seq - 3*(seq//3)}" },
	    { "x2", "bool[2] {1, 1}" }, { "y", "int64[2] {batch + 1, seq + 1}" } } },
	/* constants are evaluated */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[2, 3] x) => (y) <int64[2] p = {3, 2}>\n"
	  "{ s = Shape (x)\n c = Concat <axis = 0> (p, s)\n y = ConstantOfShape <value = int64[1] {7}> (p)\n t = Transpose (y) }",
	  { { "s", "int64[2] {2, 3}" }, { "c", "int64[4] {3, 2, 2, 3}" }, { "t", "int64[2,3] {7, 7, 7, 7, 7, 7}" } } },
	/* what inference cannot know comes from the file, else it is a symbol of the value's own */
	{ "<ir_version: 8, opset_import: [\"\": 18, \"x.y\": 1]>\n"
	  "g (float[n] x, int64[2] s) => (y) <float[n, 5] a>\n"
	  "{ a = x.y.Something (x)\n b = x.y.Something (a)\n y = Reshape (x, s)\n z = Reshape (x, s) }",
	  { { "a", "float[n,5]" }, { "b", "undefined[?]" }, { "y", "float[y_d0,y_d1]" }, { "z", "float[z_d0,z_d1]" } } },
};

static void types_of_values(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_model *m = inferred(cases[i].text);

		/* a second run finds the same */
		for (int run = 0; run < 2; run++) {
			struct linnet_error e = { 0 };

			for (int k = 0; k < MAX_EXPECT && cases[i].expect[k][0]; k++) {
				const char *name = cases[i].expect[k][0], *want = cases[i].expect[k][1];
				const char *found = described(m, &m->graph->value[find(m->graph, name)].type);

				if (!found || strcmp(found, want))
					fail_msg("%s is %s, not %s, in\n%s", name, found, want, cases[i].text);
			}
			assert_int_equal(graph_infer(m->graph, &e), LINNET_OK);
		}
		model_free(m);
	}
}

static void errors_name_the_node(void **state)
{
	static const struct { const char *text, *line; } wrong[] = {
		{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
		  "g (float[n, 5] x, float[4, n] w) => (y) { [first] h = MatMul (x, w)\n y = Relu (h) }",
		  "node \"first\" (MatMul): inner lengths differ: 5 and 4" },
		{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
		  "g (float[n] x) => (y) { y = Concat <axis = 1> (x, x) }",
		  "node \"y\" (Concat): axis 1 is not in [-1, 0]" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct linnet_error e = { 0 };
		struct linnet_model *m = model_new(NULL, &e);
		char line[800];

		assert_int_equal(text_parse(m, wrong[i].text, strlen(wrong[i].text), &e), LINNET_OK);
		assert_true(graph_import(m, &e) != LINNET_OK); /* infers */
		assert_string_equal(linnet_error_line(&e, line, sizeof line), wrong[i].line);
		model_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(types_of_values),
		cmocka_unit_test(errors_name_the_node),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
