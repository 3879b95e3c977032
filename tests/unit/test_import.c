/*
 * Import and export: cases of tests/import/cases.txt, re-import gives the same graph, trees that the text form cannot write,
 * lack of memory.
 */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/proto.h"
#include "ops/base/str.h"
#include "tests/unit/same.h"

static const char cases_path[] = "tests/import/cases.txt";

/* ---- Cases ---- */

/* One expectation: "-- N" with a text, "! words", "! N words". */
struct expect {
	bool error;
	int opset; /* 0: the import */
	const char *text;
};

struct case_ {
	const char *title, *model;
	struct expect expect[8];
	int n;
};

struct cases {
	struct arena *a;
	const char *head; /* what comes before the first case */
	struct case_ *c;
	int n;
};

static char *read_all(struct arena *a, const char *path)
{
	FILE *f = fopen(path, "rb");
	char buf[4096];
	struct str s;
	size_t n;

	assert_non_null(f);
	str_init(&s, a);
	while ((n = fread(buf, 1, sizeof buf, f)))
		str_addn(&s, buf, n);
	fclose(f);
	return str_done(&s);
}

/* Lines of *p until one that starts with any of the given words or the end. */
static char *take_text(struct arena *a, char **p)
{
	char *begin = *p, *at = *p;

	while (*at && strncmp(at, "-- ", 3) && strncmp(at, "! ", 2) && strncmp(at, "## ", 3)) {
		at += strcspn(at, "\n");
		at += *at == '\n';
	}
	*p = at;
	while (at > begin && at[-1] == '\n')
		at--;
	return arena_strn(a, begin, (size_t)(at - begin));
}

static char *take_line(struct arena *a, char **p)
{
	size_t n = strcspn(*p, "\n");
	char *s = arena_strn(a, *p, n);

	*p += n + ((*p)[n] == '\n');
	return s;
}

static struct expect take_expect(struct arena *a, char **p)
{
	struct expect x = { .error = **p == '!' };
	char *line;

	*p += x.error ? 2 : 3;
	line = take_line(a, p);
	x.opset = (int)strtol(line, &line, 10);
	x.text = x.error ? line + (*line == ' ') : take_text(a, p);
	return x;
}

static struct cases read_cases(void)
{
	struct cases s = { .a = arena_new() };
	char *p = read_all(s.a, cases_path);

	s.c = NEW(s.a, 200, struct case_);
	s.head = take_text(s.a, &p);
	while (*p) {
		struct case_ *c = &s.c[s.n++];

		assert_true(s.n < 200 && !strncmp(p, "## ", 3));
		p += 3;
		c->title = take_line(s.a, &p);
		c->model = take_text(s.a, &p);
		while (*p == '-' || *p == '!') {
			assert_true(c->n < 8);
			c->expect[c->n++] = take_expect(s.a, &p);
		}
		take_text(s.a, &p);
	}
	return s;
}

static struct linnet_model *parsed(const char *text, const char *title)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[800];

	if (!m || text_parse(m, text, strlen(text), &e))
		fail_msg("%s: %s", title, linnet_error_line(&e, line, sizeof line));
	return m;
}

/* What happens where x expects something: a text, or an error. */
static struct expect outcome(struct arena *a, const struct case_ *c, const struct expect *x)
{
	struct linnet_model *m = parsed(c->model, c->title);
	struct linnet_error e = { 0 };
	struct expect got = { 0 };
	char line[800], *text;

	if (graph_import(m, &e)) {
		got.error = true;
	} else {
		got.opset = x->opset;
		got.error = graph_export(m, x->opset, &e) || text_print(m, a, &text, &e);
	}
	if (got.error)
		text = linnet_error_line(&e, line, sizeof line);
	got.text = arena_str(a, text);
	while (*got.text && got.text[strlen(got.text) - 1] == '\n')
		((char *)(uintptr_t)got.text)[strlen(got.text) - 1] = '\0';
	model_free(m);
	return got;
}

static void cases_come_out(void **state)
{
	struct cases s = read_cases();

	(void)state;
	assert_true(s.n > 30);
	for (int i = 0; i < s.n; i++)
		for (int k = 0; k < s.c[i].n; k++) {
			const struct expect *x = &s.c[i].expect[k];
			struct expect got = outcome(s.a, &s.c[i], x);

			if (got.error != x->error || got.opset != x->opset || strcmp(got.text, x->text))
				fail_msg("%s, %d:\n%s\nwas expected, found:\n%s", s.c[i].title, x->opset, x->text, got.text);
		}
	arena_free(s.a);
}

static int update(void)
{
	struct cases s = read_cases();
	FILE *f = fopen(cases_path, "wb");

	if (!f)
		return 1;
	fprintf(f, "%s\n", s.head);
	for (int i = 0; i < s.n; i++) {
		fprintf(f, "\n## %s\n%s\n", s.c[i].title, s.c[i].model);
		for (int k = 0; k < s.c[i].n; k++) {
			struct expect got = outcome(s.a, &s.c[i], &s.c[i].expect[k]);

			if (!got.error)
				fprintf(f, "-- %d\n%s\n", got.opset, got.text);
			else if (got.opset)
				fprintf(f, "! %d %s\n", got.opset, got.text);
			else
				fprintf(f, "! %s\n", got.text);
		}
	}
	arena_free(s.a);
	return fclose(f);
}

/* An exported graph is imported as the same graph. */
static void reimport_gives_the_same(void **state)
{
	struct cases s = read_cases();

	(void)state;
	for (int i = 0; i < s.n; i++) {
		struct linnet_model *m = parsed(s.c[i].model, s.c[i].title);
		struct linnet_error e = { 0 };
		const struct graph *before;
		char line[800];
		const char *d;

		if (!graph_import(m, &e)) {
			before = m->graph;
			if (graph_export(m, OPSET_NEWEST, &e) && e.code == LINNET_EUNSUPPORTED) {
				err_clear(&e);
				if (graph_export(m, 0, &e) == LINNET_EUNSUPPORTED) { /* as its case says */
					model_free(m);
					continue;
				}
			}
			if (e.code || graph_import(m, &e))
				fail_msg("%s: %s", s.c[i].title, linnet_error_line(&e, line, sizeof line));
			d = graph_difference(before, m->graph, s.a);
			if (d)
				fail_msg("%s: %s", s.c[i].title, d);
		}
		model_free(m);
	}
	arena_free(s.a);
}

/* The n-th allocation fails, for every n: an ordinary error, nothing leaked. */
static void memory_may_run_out(void **state)
{
	struct cases s = read_cases();

	(void)state;
	for (int i = 0; i < s.n; i++) {
		int opset = s.c[i].n && !s.c[i].expect[0].error ? s.c[i].expect[s.c[i].n - 1].opset : 0;
		bool done = !opset;

		for (uint64_t n = 1; !done; n += 1 + n / 64) {
			struct linnet_model *m = parsed(s.c[i].model, s.c[i].title);
			struct linnet_error e = { 0 };
			enum linnet_code code;

			mem_fail_at(n);
			code = graph_import(m, &e);
			if (!code)
				code = graph_export(m, opset, &e);
			done = mem_requests() < n;
			mem_fail_at(0);
			if (code != LINNET_EMEM && !done)
				fail_msg("%s: request %d failed unseen: %s", s.c[i].title, (int)n, e.message);
			model_free(m);
		}
	}
	arena_free(s.a);
}

/* ---- Trees ---- */

static const char *imported_line(struct linnet_model *m, char line[800])
{
	struct linnet_error e = { 0 };

	return graph_import(m, &e) ? linnet_error_line(&e, line, 800) : "";
}

static void initializers_and_inputs(void **state)
{
	static const struct { int64_t ir; uint32_t nin; bool has_default; } cases[] = { { 3, 1, false }, { 4, 2, true } };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct linnet_model *m = parsed("<ir_version: 8, opset_import: [\"\" : 9]>\n"
		                                "g (float[n] x, float[1] k = {2.0}) => (float[n] y) { y = Mul (x, k) }", "default");
		struct linnet_error e = { 0 };
		value_id k = 0;
		char line[800];

		proto_model(m)->ir_version = cases[i].ir;
		assert_string_equal(imported_line(m, line), "");
		assert_int_equal(m->graph->nin, cases[i].nin);
		for (value_id v = 1; v < m->graph->nvalue; v++)
			if (!strcmp(m->graph->value[v].name, "k"))
				k = v;
		assert_true(k);
		assert_int_equal(m->graph->value[k].kind, cases[i].has_default ? VALUE_INPUT : VALUE_CONST);
		assert_true(m->graph->value[k].has_default == cases[i].has_default);
		assert_int_equal(graph_export(m, 0, &e), LINNET_OK);
		assert_int_equal(proto_model(m)->ir_version, 4);
		assert_int_equal(proto_model(m)->graph->n_input, cases[i].nin);
		assert_int_equal(proto_model(m)->graph->n_initializer, 1);
		model_free(m);
	}
}

/* Attributes of IR version 1 have no type; writers of proto3 leave out zeros. */
static void attributes_as_files_have_them(void **state)
{
	static const char text[] = "<ir_version: 8, opset_import: [\"\" : 18]>\n"
	                           "g (float[n,m] x) => (y) { y = Softmax <axis = 1> (x) }";
	static const struct { bool type, value; int set; const char *line; } cases[] = {
		{ true, true, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT, "" },
		{ false, true, 0, "" },
		{ true, false, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT, "" },
		{ true, true, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED, "" },
		{ false, false, 0, "" },
		{ true, true, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT,
		  "node \"y\" (Softmax): attribute \"axis\" says FLOAT but holds INT" },
		{ true, false, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPHS, "node \"y\" (Softmax): attribute \"axis\" is a list of graphs" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_model *m = parsed(text, "attribute");
		Onnx__AttributeProto *a = proto_model(m)->graph->node[0]->attribute[0];
		char line[800];

		a->has_type = cases[i].type;
		a->type = (Onnx__AttributeProto__AttributeType)cases[i].set;
		a->has_i = cases[i].value;
		a->i = cases[i].value ? 1 : 0;
		assert_string_equal(imported_line(m, line), cases[i].line);
		if (!*cases[i].line)
			assert_int_equal(m->graph->node[1].attr[0].i, a->i);
		model_free(m);
	}
}

/* Bodies within bodies: the limit on nesting, and the one on nodes when each function calls the next one twice. */
static void nesting_is_bounded(void **state)
{
	static const struct { int levels; int64_t max_nodes; int max_depth; const char *line; } cases[] = {
		{ 30, 1000, 0, "the model has more than 1000 nodes" },
		{ 12, 0, 10, "subgraphs and functions are nested deeper than 10" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_limits l = { .size = sizeof l, .max_nodes = cases[i].max_nodes, .max_depth = cases[i].max_depth };
		struct linnet_error e = { 0 };
		struct linnet_model *m = model_new(&l, &e);
		struct str s;

		str_init(&s, m->arena);
		str_add(&s, "<ir_version: 8, opset_import: [\"\" : 18, \"l\" : 1]> g (float[n] x) => (y) { y = l.f0 (x) }\n");
		for (int k = 0; k < cases[i].levels; k++)
			str_addf(&s, "<domain: \"l\", opset_import: [\"\" : 18, \"l\" : 1]> f%d (a) => (c) { b = l.f%d (a)\n c = l.f%d (b) }\n", k,
			         k + 1, k + 1);
		str_addf(&s, "<domain: \"l\", opset_import: [\"\" : 18]> f%d (a) => (c) { c = Neg (a) }\n", cases[i].levels);
		assert_int_equal(text_parse(m, str_done(&s), s.n, &e), LINNET_OK);
		assert_int_equal(graph_import(m, &e), LINNET_ELIMIT);
		assert_string_equal(e.message, cases[i].line);
		model_free(m);
	}
}

/* A long chain, names in the worst order for anything that searches. */
static void many_nodes(void **state)
{
	enum { N = 50000 };
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	struct str s;
	char line[800];

	(void)state;
	str_init(&s, m->arena);
	str_add(&s, "<ir_version: 8, opset_import: [\"\" : 18]> g (float[n] v0) => (v50000) {\n");
	for (int i = N; i > 0; i--)
		str_addf(&s, "v%d = Neg (v%d)\n", i, i - 1);
	str_add(&s, "}\n");
	assert_int_equal(text_parse(m, str_done(&s), s.n, &e), LINNET_OK);
	assert_string_equal(imported_line(m, line), "");
	assert_int_equal(m->graph->nnode, N + 1);
	assert_int_equal(graph_export(m, 0, &e), LINNET_OK);
	assert_string_equal(proto_model(m)->graph->node[0]->input[0], "v0");
	model_free(m);
}

/* What the graph does not interpret is carried from tree to tree. */
static void rest_is_kept(void **state)
{
	struct linnet_model *m = parsed("<ir_version: 8, opset_import: [\"\" : 18], producer_name: \"p\", metadata_props: [\"a\": \"b\"]>\n"
	                                "g (float[n] x) => (float[n] y) <float[1] w = {1.0}> { y = Mul (x, w) }", "rest");
	Onnx__GraphProto *g = proto_model(m)->graph;
	struct linnet_error e = { 0 };
	char line[800], doc[] = "words";
	ProtobufCMessageUnknownField unknown = { .tag = 1000 };

	(void)state;
	g->doc_string = g->node[0]->doc_string = g->input[0]->doc_string = g->output[0]->doc_string = doc;
	g->initializer[0]->doc_string = doc;
	g->node[0]->base.n_unknown_fields = 1;
	g->node[0]->base.unknown_fields = &unknown;
	assert_string_equal(imported_line(m, line), "");
	assert_int_equal(graph_export(m, 0, &e), LINNET_OK);
	assert_ptr_not_equal(proto_model(m)->graph, g);
	g = proto_model(m)->graph;
	assert_string_equal(g->doc_string, doc);
	assert_string_equal(g->node[0]->doc_string, doc);
	assert_string_equal(g->input[0]->doc_string, doc);
	assert_string_equal(g->output[0]->doc_string, doc);
	assert_string_equal(g->initializer[0]->doc_string, doc);
	assert_int_equal(g->node[0]->base.unknown_fields[0].tag, 1000);
	assert_string_equal(proto_model(m)->producer_name, "p");
	assert_string_equal(proto_model(m)->metadata_props[0]->value, "b");
	model_free(m);
}

/* A sparse initializer and a Constant's sparse value are dense in the graph. */
static void sparse_becomes_dense(void **state)
{
	static const float want[6] = { 0, 2, 0, 0, 0, 3 };
	float values[2] = { 2, 3 };
	int64_t indices[2] = { 1, 5 }, n = 2, dims[2] = { 2, 3 };
	Onnx__TensorProto v = ONNX__TENSOR_PROTO__INIT, i = ONNX__TENSOR_PROTO__INIT;
	Onnx__SparseTensorProto sparse = ONNX__SPARSE_TENSOR_PROTO__INIT, *list[1] = { &sparse };
	char name[] = "w";

	(void)state;
	v.name = name;
	v.has_data_type = i.has_data_type = 1;
	v.data_type = DT_FLOAT;
	i.data_type = DT_INT64;
	v.n_dims = i.n_dims = 1;
	v.dims = i.dims = &n;
	v.n_float_data = i.n_int64_data = 2;
	v.float_data = values;
	i.int64_data = indices;
	sparse.values = &v;
	sparse.indices = &i;
	sparse.n_dims = 2;
	sparse.dims = dims;
	for (int constant = 0; constant < 2; constant++) {
		struct linnet_model *m = parsed(constant ? "<ir_version: 8, opset_import: [\"\" : 18]>\n"
		                                           "g () => (y) { w = Constant <value_int = 1> ()\n y = Neg (w) }"
		                                         : "<ir_version: 8, opset_import: [\"\" : 18]>\n"
		                                           "g () => (y) { y = Neg (w) }", "sparse");
		Onnx__GraphProto *g = proto_model(m)->graph;
		const struct tensor *t;
		char line[800], attribute[] = "sparse_value";
		uint32_t id;

		if (constant) {
			Onnx__AttributeProto *a = g->node[0]->attribute[0];

			a->name = attribute;
			a->has_i = 0;
			a->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSOR;
			a->sparse_tensor = &sparse;
		} else {
			g->n_sparse_initializer = 1;
			g->sparse_initializer = list;
		}
		assert_string_equal(imported_line(m, line), "");
		assert_true(map_get(&m->graph->names, "w", &id));
		assert_int_equal(m->graph->value[id].kind, VALUE_CONST);
		t = m->graph->value[id].type.value;
		assert_int_equal(t->rank, 2);
		assert_memory_equal(t->data, want, sizeof want);
		model_free(m);
	}
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(cases_come_out),          cmocka_unit_test(reimport_gives_the_same),
		cmocka_unit_test(memory_may_run_out),      cmocka_unit_test(initializers_and_inputs),
		cmocka_unit_test(nesting_is_bounded),      cmocka_unit_test(attributes_as_files_have_them),
		cmocka_unit_test(many_nodes),              cmocka_unit_test(rest_is_kept),
		cmocka_unit_test(sparse_becomes_dense),
	};

	if (argc > 1 && !strcmp(argv[1], "--update"))
		return update();
	return cmocka_run_group_tests_name("import", tests, NULL, NULL);
}
