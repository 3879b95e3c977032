/*
 * Why not: for each code a graph that gives it, and the same with the one fault repaired (tests/why.txt, which describes the form);
 * what is said of the models that must not be recognised; what became of nodes.
 */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/why.h"

#define HEADER "<ir_version: 10, opset_import: [\"\": 28, \"com.microsoft\": 1]>\n"

static void explain(struct linnet_model *m, enum linnet_code code, const char *where, struct arena *a, struct findings *f)
{
	struct linnet_error e = { 0 };
	char line[900];

	if (code || graph_import(m, &e) || why_graph(m->graph, a, f, &e) || graph_verify(f->graph, &e))
		fail_msg("%s: %s", where, linnet_error_line(&e, line, sizeof line));
}

static struct linnet_model *explain_text(const char *text, const char *where, struct arena *a, struct findings *f)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	const char *whole = arena_fmt(a, HEADER "%s", text);
	enum linnet_code code = text_parse(m, whole, strlen(whole), &e);

	if (code)
		fail_msg("%s: %s", where, e.message);
	explain(m, code, where, a, f);
	return m;
}

static struct linnet_model *explain_file(const char *path, struct arena *a, struct findings *f)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);

	explain(m, proto_load(m, path, &e), path, a, f);
	return m;
}

/* ---- Codes ---- */

/* "node code witness" of all findings. */
static char *words(const struct findings *f, const char *between, struct arena *a)
{
	char *s = arena_fmt(a, "%s", "");

	for (int i = 0; i < f->n; i++)
		s = arena_fmt(a, "%s%s%s %s %s%s", s, i ? between : "", f->list[i].node, why_rows[f->list[i].code].code, *f->list[i].witness_op ? "" : "$",
		              f->list[i].witness);
	return s;
}

static char *replaced(const char *text, const char *from, const char *to, const char *where, struct arena *a)
{
	const char *at = strstr(text, from);

	if (!at || strstr(at + 1, from))
		fail_msg("%s: \"%s\" is not there once", where, from);
	return arena_fmt(a, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

struct script {
	char *line[64];
	int n;
};

/* A case: its graph, the answer, the repair. Returns whether both answers are as written. */
static bool check_case(const struct script *s, struct arena *a)
{
	const char *code = s->line[0] + 3, *node, *witness;
	char *text = arena_fmt(a, "%s", ""), *found, *want;
	struct linnet_model *m;
	struct findings f;
	int i = 1;
	bool right;

	for (; i < s->n && strncmp(s->line[i], "=> ", 3); i++)
		text = arena_fmt(a, "%s%s\n", text, s->line[i]);
	assert_true(i < s->n);
	node = strtok(s->line[i] + 3, " ");
	witness = strtok(NULL, " ");
	want = arena_fmt(a, "%s %s %s", node, code, witness);
	m = explain_text(text, code, a, &f);
	found = words(&f, "\n", a);
	model_free(m);
	right = !strcmp(found, want);
	if (!right)
		print_error("%s: found\n%s\nexpected %s\n", code, found, want);
	for (i++; i + 1 < s->n && s->line[i][0] == '-'; i += 2) {
		assert_int_equal(s->line[i + 1][0], '+');
		text = replaced(text, s->line[i] + 2, s->line[i + 1] + 2, code, a);
	}
	m = explain_text(text, code, a, &f);
	found = words(&f, "\n", a);
	model_free(m);
	if (i < s->n ? !strncmp(found, s->line[i] + 3, strlen(s->line[i] + 3)) : !f.n && f.recognised[0] + f.recognised[1] + f.recognised[2] == 1)
		return right;
	print_error("%s, repaired: found %d of attention, %d gated units, and\n%s\n", code, f.recognised[0], f.recognised[1], found);
	return false;
}

static void codes_say_what_failed(void **state)
{
	struct arena *a = arena_new();
	FILE *file = fopen("tests/why.txt", "r");
	struct script s = { .n = 0 };
	bool seen[WHY_COUNT] = { true }, more = true;
	char line[400];
	int wrong = 0;

	(void)state;
	assert_non_null(file);
	while (more) {
		more = fgets(line, sizeof line, file) != NULL;
		if (s.n && (!more || !strncmp(line, "## ", 3))) {
			for (int i = 1; i < WHY_COUNT; i++)
				seen[i] = seen[i] || !strcmp(why_rows[i].code, s.line[0] + 3);
			wrong += !check_case(&s, a);
			s.n = 0;
		}
		line[strcspn(line, "\n")] = '\0';
		if (more && *line && (s.n || !strncmp(line, "## ", 3)))
			s.line[s.n++] = arena_fmt(a, "%s", line);
		assert_true(s.n < 64);
	}
	fclose(file);
	for (int i = 1; i < WHY_COUNT; i++)
		if (!seen[i])
			fail_msg("%s has no case", why_rows[i].code);
	arena_free(a);
	assert_int_equal(wrong, 0);
}

/* ---- Models ---- */

/* What corpus/models/why.txt has for a model; "" when it is not there. */
static const char *line_of(const char *name, const char *text, struct arena *a)
{
	const char *key = arena_fmt(a, "\n%s: ", name), *at = strstr(text, key);

	return at ? arena_fmt(a, "%.*s", (int)strcspn(at + strlen(key), "\n"), at + strlen(key)) : "";
}

static void models_say_what_they_should(void **state)
{
	static char text[1 << 15];
	struct arena *a = arena_new();
	FILE *file = fopen("corpus/models/why.txt", "r"), *truth = fopen("corpus/models/truth.txt", "r");
	char line[1000];
	int wrong = 0, models = 0;

	(void)state;
	assert_true(file && truth);
	assert_true(fread(text, 1, sizeof text - 1, file) < sizeof text - 1);
	while (fgets(line, sizeof line, truth)) {
		struct findings f;
		struct linnet_model *m;
		char *end = strchr(line, ':'), *found;
		int stays = 0;

		if (*line == '#')
			continue;
		*end = '\0';
		for (const char *s = end + 1; (s = strstr(s, " stays")) != NULL; s++)
			stays++;
		m = explain_file(arena_fmt(a, "corpus/models/%s/model.onnx", line), a, &f);
		found = words(&f, "; ", a);
		for (int i = 0; i < f.n; i++)
			stays -= f.list[i].described && f.list[i].code != WHY_SOFTMAX_PLUS && f.list[i].code != WHY_ATTENTION_BATCH;
		if (strcmp(found, line_of(line, text, a)) != 0)
			print_error("%s: found %s\n", line, found), wrong++;
		if (stays > 0)
			print_error("%s: attention stays, and nothing says why\n", line), wrong++;
		model_free(m);
		models++;
	}
	fclose(file);
	fclose(truth);
	arena_free(a);
	assert_true(models > 40);
	assert_int_equal(wrong, 0);
}

/* ---- Nodes ---- */

static const char attention[] = "g (float[B,L,8] x, bool c) => (float[B,L,8] y, float[B,L,8] r, int64[3,n] o)\n"
				"<int64[2] n = {8, 8}, int64[4] heads = {0, 0, 2, 4}, int64[3] back = {0, 0, 8}, float half = {0.5}, int64 one = {1}>\n"
				"{\n  w = ConstantOfShape <value = float[1] {1}> (n)\n  u = ConstantOfShape <value = float[1] {2}> (n)\n"
				"  [query] q = MatMul (x, w)\n  k = MatMul (x, u)\n  same = Identity (q)\n"
				"  a = Reshape (same, heads)\n  b = Reshape (k, heads)\n  e = Transpose <perm = [0, 2, 1, 3]> (a)\n"
				"  f = Transpose <perm = [0, 2, 3, 1]> (b)\n  h = Transpose <perm = [0, 2, 1, 3]> (b)\n"
				"  s = MatMul (e, f)\n  t = Mul (s, half)\n  [normal] p = Softmax (t)\n  z = MatMul (p, h)\n"
				"  i = Transpose <perm = [0, 2, 1, 3]> (z)\n  y = Reshape (i, back)\n"
				"  [gate] j = Sigmoid (q)\n  [odd] r = Mul (j, x)\n  o = NonZero (r)\n}";

static void nodes_are_told(void **state)
{
	static const struct {
		const char *name;
		enum fate fate;
		const char *into; /* operator it became or feeds */
		const char *code;
	} cases[] = {
		{ "s", FATE_PART, "Attention", NULL },      { "t", FATE_PART, "Attention", NULL },   { "normal", FATE_PART, "Attention", NULL },
		{ "p", FATE_PART, "Attention", NULL },      { "query", FATE_NEAR, NULL, "glu.value-not-projected" },
		{ "k", FATE_KEPT, "Attention", NULL },      { "w", FATE_CONSTANT, NULL, NULL },      { "same", FATE_LEFT_OUT, NULL, NULL },
		{ "gate", FATE_NEAR, NULL, "glu.value-not-projected" }, { "odd", FATE_NEAR, NULL, "glu.value-not-projected" },
		{ "x", FATE_INPUT, NULL, NULL },            { "half", FATE_CONSTANT, NULL, NULL },   { "nothing", FATE_UNKNOWN, NULL, NULL },
		{ "y", FATE_KEPT, NULL, NULL },
	};
	struct arena *a = arena_new();
	struct linnet_error e = { 0 };
	struct findings f;
	struct linnet_model *m = explain_text(attention, "nodes", a, &f);
	int wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct node_fate n;
		const char *code;

		assert_int_equal(why_node(&f, cases[i].name, a, &n, &e), LINNET_OK);
		code = n.finding >= 0 ? why_rows[f.list[n.finding].code].code : NULL;
		if (n.fate == cases[i].fate && !strcmp(code ? code : "", cases[i].code ? cases[i].code : "") &&
		    (n.fate == FATE_NEAR || !strcmp(n.into ? n.into_op : "", cases[i].into ? cases[i].into : "")))
			continue;
		print_error("%s: fate %d, %s, %s\n", cases[i].name, (int)n.fate, n.into ? n.into_op : "-", code ? code : "-");
		wrong++;
	}
	model_free(m);
	arena_free(a);
	assert_int_equal(wrong, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(codes_say_what_failed),
		cmocka_unit_test(models_say_what_they_should),
		cmocka_unit_test(nodes_are_told),
	};

	return cmocka_run_group_tests_name("why", tests, NULL, NULL);
}
