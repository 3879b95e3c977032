/*
 * Fuzz target: bytes as a model file. What loads is written, read again and written again: same bytes, and the same graph or the
 * same complaint from both. What loads is printed, and its text parsed and printed again: same text. What is understood is exported,
 * and that is understood as well. Whatever fails says so in one line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"
#include "tests/unit/same.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);  \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static void check_error(enum linnet_code code, const struct linnet_error *e)
{
	CHECK(code == e->code);
	CHECK(code != LINNET_EINTERNAL);
	CHECK(!code == !*e->message);
	for (const char *p = e->message; *p; p++)
		CHECK((unsigned char)*p >= ' ');
}

static struct linnet_model *new_model(void)
{
	const struct linnet_limits limits = { .max_nodes = 2000, .max_elements = 1 << 16, .max_bytes = 1 << 20 };
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(&limits, &e);

	CHECK(m);
	return m;
}

static enum linnet_code understand(struct linnet_model *m, struct linnet_error *e)
{
	enum linnet_code code = graph_import(m, e);

	if (!code)
		code = graph_infer(m->graph, e);
	if (!code)
		code = graph_verify(m->graph, e);
	check_error(code, e);
	return code;
}

/* The bytes of m, from its own arena; NULL when it refers to files. */
static void *save(struct linnet_model *m, size_t *n)
{
	struct linnet_error e = { 0 };
	void *data;
	enum linnet_code code = proto_save_memory(m, m->arena, &data, n, &e);

	check_error(code, &e);
	return code ? NULL : data;
}

static bool same(const struct graph *a, const struct graph *b, struct arena *scratch)
{
	const char *difference = graph_difference(a, b, scratch);

	if (difference)
		fprintf(stderr, "%s\n", difference);
	return !difference;
}

/* Both are the same model, from different files. */
static enum linnet_code compare(struct linnet_model *a, struct linnet_model *b)
{
	struct linnet_error ea = { 0 }, eb = { 0 };

	understand(a, &ea);
	understand(b, &eb);
	CHECK(ea.code == eb.code && !strcmp(ea.message, eb.message) && !strcmp(ea.node, eb.node));
	CHECK(ea.code || same(a->graph, b->graph, a->arena));
	return ea.code;
}

/* An exported graph can be read again and has the same interface. */
static void export(struct linnet_model *m)
{
	struct linnet_model *again = new_model();
	const struct graph *before = m->graph;
	struct linnet_error e = { 0 };
	enum linnet_code code = graph_export(m, 0, &e);
	void *data;
	size_t n;

	check_error(code, &e);
	if (!code && (data = save(m, &n))) {
		CHECK(!proto_load_memory(again, data, n, &e));
		CHECK(!understand(again, &e));
		CHECK(before->nin == again->graph->nin && before->nout == again->graph->nout);
	}
	model_free(again);
}

static void check_text(struct linnet_model *m)
{
	struct linnet_model *again = new_model();
	struct linnet_error e = { 0 };
	char *first, *second;
	enum linnet_code code = text_print(m, m->arena, &first, &e);

	check_error(code, &e);
	if (!code) {
		CHECK(!text_parse(again, first, strlen(first), &e));
		CHECK(!text_print(again, again->arena, &second, &e));
		CHECK(!strcmp(first, second));
	}
	model_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct linnet_model *m = new_model(), *again = new_model();
	struct linnet_error e = { 0 };
	enum linnet_code code = proto_load_memory(m, data, n, &e);
	size_t n1, n2;
	void *first, *second;

	check_error(code, &e);
	if (!code)
		check_text(m);
	first = code ? NULL : save(m, &n1);
	if (first) {
		CHECK(!proto_load_memory(again, first, n1, &e));
		second = save(again, &n2);
		CHECK(second && n1 == n2 && !memcmp(first, second, n1));
		if (!compare(m, again))
			export(m);
	} else if (!code) {
		understand(m, &e);
	}
	model_free(again);
	model_free(m);
	return 0;
}
