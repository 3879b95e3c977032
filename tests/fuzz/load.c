/*
 * Fuzz target: bytes as a model file. What loads is written, read again and written again: same bytes, and the same graph or the
 * same complaint from both. Whatever fails says so in one line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"

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

/* Both are the same model, from different files. */
static void compare(struct linnet_model *a, struct linnet_model *b)
{
	struct linnet_error ea = { 0 }, eb = { 0 };

	understand(a, &ea);
	understand(b, &eb);
	CHECK(ea.code == eb.code && !strcmp(ea.message, eb.message) && !strcmp(ea.node, eb.node));
	if (!ea.code)
		CHECK(a->graph->nnode == b->graph->nnode && a->graph->nvalue == b->graph->nvalue);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct linnet_model *m = new_model(), *again = new_model();
	struct linnet_error e = { 0 };
	enum linnet_code code = proto_load_memory(m, data, n, &e);
	size_t n1, n2;
	void *first, *second;

	check_error(code, &e);
	first = code ? NULL : save(m, &n1);
	if (first) {
		CHECK(!proto_load_memory(again, first, n1, &e));
		second = save(again, &n2);
		CHECK(second && n1 == n2 && !memcmp(first, second, n1));
		compare(m, again);
	} else if (!code) {
		understand(m, &e);
	}
	model_free(again);
	model_free(m);
	return 0;
}
