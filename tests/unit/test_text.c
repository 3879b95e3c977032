/*
 * The text form. Cases are in tests/text; what needs code is here: blocks and rules of our tables, single tensors, locales, lack of
 * memory.
 *
 * A case file holds cases of
 *
 *	## title
 *	text of a model                 prints as it stands when nothing follows
 *	---- printed                    else: how it prints; `plain`, `brief` and a number (of elements) are options
 *	text of a model
 *	---- error                      or what is wrong with it
 *	line 1, column 1: expected ...
 *
 * `test_text --update` writes what is found into the files.
 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/proto.h"
#include "graph/text.h"
#include "ops/base/str.h"

#define FOLDER "tests/text"

static bool update;

/* ---- Case files ---- */

/* One section of a case: from its line to the next section, case or end. */
struct section {
	const char *words; /* behind the dashes; NULL: the text itself */
	size_t nwords;
	const char *text;
	size_t n;
};

static bool starts(const char *p, const char *word)
{
	return !strncmp(p, word, strlen(word));
}

static const char *next_line(const char *p)
{
	p += strcspn(p, "\n");
	return *p ? p + 1 : p;
}

static const char *read_section(const char *p, struct section *s)
{
	*s = (struct section){ .words = NULL };
	if (starts(p, "---- ")) {
		s->words = p + 5;
		s->nwords = strcspn(s->words, "\n");
		p = next_line(p);
	}
	s->text = p;
	while (*p && !starts(p, "---- ") && !starts(p, "## "))
		p = next_line(p);
	s->n = (size_t)(p - s->text);
	while (s->n > 1 && s->text[s->n - 2] == '\n') /* blank lines between cases */
		s->n--;
	return p;
}

static bool has_word(const struct section *s, const char *word)
{
	for (size_t i = 0; i + strlen(word) <= s->nwords; i++)
		if (!memcmp(s->words + i, word, strlen(word)))
			return true;
	return false;
}

/* What the section should be, as it is found: a text, or the error and a line end. */
static const char *found(const struct section *text, const struct section *s, struct arena *a)
{
	struct text_opt opt = { .plain = has_word(s, "plain"), .brief = has_word(s, "brief") };
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char *out = NULL;

	assert_non_null(m);
	for (size_t i = 0; i < s->nwords; i++)
		if (s->words[i] >= '0' && s->words[i] <= '9') {
			opt.max_elements = strtol(s->words + i, NULL, 10);
			break;
		}
	if (!text_parse(m, text->text, text->n, &e))
		text_print_model(m, &opt, a, &out, &e);
	if (e.code)
		out = arena_fmt(a, "%s\n", e.message);
	assert_non_null(out);
	model_free(m);
	return out;
}

static int run_case(const char *path, const char *title, const char **at, struct str *now)
{
	struct arena *a = arena_new();
	struct section text, s;
	int failed = 0;
	bool first = true;

	assert_non_null(a);
	*at = read_section(*at, &text);
	str_addn(now, text.text, text.n);
	do {
		const char *is;

		if (starts(*at, "---- "))
			*at = read_section(*at, &s);
		else
			s = text;
		is = found(&text, &s, a);
		if (!first || s.words) {
			str_add(now, "---- ");
			str_addn(now, s.words, s.nwords);
			str_add(now, "\n");
			str_add(now, is);
		}
		if (strlen(is) != s.n || memcmp(is, s.text, s.n)) {
			print_error("%s: %.*s: %.*s\nis\n%sexpected\n%.*s\n", path, (int)strcspn(title, "\n"), title, (int)s.nwords,
			            s.words ? s.words : "", is, (int)s.n, s.text);
			failed++;
		}
		first = false;
	} while (starts(*at, "---- "));
	arena_free(a);
	return failed;
}

static char *read_file(const char *path, struct arena *a)
{
	FILE *f = fopen(path, "rb");
	char *text;
	long n;

	assert_non_null(f);
	assert_int_equal(fseek(f, 0, SEEK_END), 0);
	n = ftell(f);
	rewind(f);
	text = arena_get(a, (size_t)n + 1, 1);
	assert_non_null(text);
	assert_int_equal(fread(text, 1, (size_t)n, f), n);
	fclose(f);
	return text;
}

static int run_file(const char *path)
{
	struct arena *a = arena_new();
	const char *p;
	struct str now;
	int failed = 0, cases = 0;

	assert_non_null(a);
	p = read_file(path, a);
	str_init(&now, a);
	while (*p) {
		const char *title = p, *next = next_line(p);

		str_addn(&now, title, (size_t)(next - title));
		p = next;
		if (!starts(title, "## "))
			continue;
		cases++;
		failed += run_case(path, title + 3, &p, &now);
		str_add(&now, *p ? "\n" : "");
	}
	if (update && failed) {
		FILE *f = fopen(path, "wb");

		assert_non_null(f);
		assert_int_equal(fputs(str_done(&now), f) >= 0, 1);
		assert_int_equal(fclose(f), 0);
	}
	arena_free(a);
	assert_true(cases > 0);
	return failed;
}

static void cases_hold(void **state)
{
	DIR *dir = opendir(FOLDER);
	const struct dirent *entry;
	int failed = 0, files = 0;

	(void)state;
	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		char path[400];
		size_t n = strlen(entry->d_name);

		if (n < 4 || strcmp(entry->d_name + n - 4, ".txt"))
			continue;
		snprintf(path, sizeof path, FOLDER "/%s", entry->d_name);
		failed += run_file(path);
		files++;
	}
	closedir(dir);
	assert_true(files > 0);
	assert_int_equal(update ? 0 : failed, 0);
}

/* ---- Blocks and rules ---- */

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

/* ---- Tensors ---- */

static struct tensor *tensor_of(struct linnet_model *m, const char *text, bool values)
{
	struct linnet_error e = { 0 };
	Onnx__TensorProto *p;
	struct tensor *t = NULL;

	if (text_parse_tensor(text, strlen(text), values, m->arena, &p, &e) || proto_tensor(m, p, &t, &e))
		fail_msg("%s: %s", text, e.message);
	return t;
}

static void tensors_have_their_values(void **state)
{
	static const struct { const char *text; bool values; double last; } cases[] = {
		{ "float[2] {1, -2.5e-3}", false, -0.0025f },
		{ "float16[1] {15360}", false, 1 },
		{ "float16[1] {3}", true, 3 },
		{ "float16[1] {1.5}", false, 1.5 },
		{ "bfloat16[1] {16256}", false, 1 },
		{ "float8e4m3fn[1] {-448.0}", false, -448 },
		{ "float8e5m2[1] {60}", false, 1 },
		{ "float4e2m1[3] {0.5, 6.0, -1.5}", false, -1.5 },
		{ "float4e2m1[3] {1, 2, 15}", false, -6 },
		{ "float6e3m2[1] {28.0}", false, 28 },
		{ "int4[3] {7, -8, -1}", false, -1 },
		{ "uint2[5] {0, 1, 2, 3, 2}", false, 2 },
		{ "bool[2] {true, false}", false, 0 },
		{ "uint64[1] {18446744073709551615}", false, 18446744073709551616.0 },
		{ "int64[1] {-9223372036854775808}", false, -9223372036854775808.0 },
	};
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct tensor *t = tensor_of(m, cases[i].text, cases[i].values);

		if (tensor_get(t, t->n - 1) != cases[i].last)
			fail_msg("%s ends with %.17g", cases[i].text, tensor_get(t, t->n - 1));
	}
	model_free(m);
}

/* Bits, as text, are the same bits: all of the narrow types, drawn ones of the wide ones. */
static void floats_survive(void **state)
{
	struct linnet_error e = { 0 };
	uint32_t seed = 1;

	(void)state;
	for (int dt = 1; dt < DT_COUNT; dt++) {
		struct linnet_model *m, *again;
		unsigned bits = dtype_bits((enum dtype)dt);
		int64_t n = bits <= 8 ? 1 << bits : bits == 16 ? 1 << 16 : 3000;
		struct tensor *t, *back;
		Onnx__GraphProto g = ONNX__GRAPH_PROTO__INIT;
		Onnx__ModelProto model = ONNX__MODEL_PROTO__INIT;
		Onnx__TensorProto *p;
		char *text;

		if (dtype_class((enum dtype)dt) != CLASS_FLOAT && dtype_class((enum dtype)dt) != CLASS_COMPLEX)
			continue;
		m = model_new(NULL, &e);
		again = model_new(NULL, &e);
		assert_true(m && again);
		assert_int_equal(tensor_new(m->arena, (enum dtype)dt, 1, &n, &t, &e), LINNET_OK);
		for (size_t i = 0; i < t->bytes; i++) {
			seed = seed * 1664525 + 1013904223;
			((uint8_t *)t->data)[i] = (uint8_t)(bits == 4 ? i * 0x22 + 0x10 : bits <= 8 ? i : bits == 16 ? i / 2 >> (i % 2 * 8) : seed >> 24);
		}
		assert_int_equal(proto_from_tensor(m->arena, t, "t", &p, &e), LINNET_OK);
		g.name = (char[]){ "g" };
		g.n_initializer = 1;
		g.initializer = &p;
		model.graph = &g;
		m->proto = &model;
		assert_int_equal(text_print(m, m->arena, &text, &e), LINNET_OK);
		assert_int_equal(text_parse(again, text, strlen(text), &e), LINNET_OK);
		assert_int_equal(proto_tensor(again, proto_model(again)->graph->initializer[0], &back, &e), LINNET_OK);
		assert_true(tensor_same(t, back));
		m->proto = NULL;
		model_free(again);
		model_free(m);
	}
}

/* A program that set a locale with decimal commas, if the machine has one, changes nothing. */
static void locales_do_not_matter(void **state)
{
	static const char *const names[] = { "de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR" };
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	const char *set = NULL;
	struct tensor *t;

	(void)state;
	for (size_t i = 0; !set && i < sizeof names / sizeof *names; i++)
		set = setlocale(LC_ALL, names[i]);
	t = tensor_of(m, "float {1.5}", false);
	setlocale(LC_ALL, "C");
	assert_true(tensor_get(t, 0) == 1.5);
	model_free(m);
}

/* ---- Lack of memory ---- */

static void memory_may_run_out(void **state)
{
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	const char *text = read_file("corpus/text/notes.txt", a);
	bool done = false;

	(void)state;
	for (uint64_t n = 1; !done; n++) {
		struct linnet_model *m = model_new(NULL, &e);
		enum linnet_code code;
		char *out;

		assert_non_null(m);
		err_clear(&e);
		mem_fail_at(n);
		code = text_parse(m, text, strlen(text), &e);
		if (!code)
			code = text_print(m, m->arena, &out, &e);
		mem_fail_at(0);
		assert_true(code == LINNET_OK || code == LINNET_EMEM);
		done = !code;
		model_free(m);
	}
	arena_free(a);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(cases_hold),
		cmocka_unit_test(blocks_are_chosen),
		cmocka_unit_test(rules_are_graphs),
		cmocka_unit_test(tensors_have_their_values),
		cmocka_unit_test(floats_survive),
		cmocka_unit_test(locales_do_not_matter),
		cmocka_unit_test(memory_may_run_out),
	};

	update = argc > 1 && !strcmp(argv[1], "--update");
	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
