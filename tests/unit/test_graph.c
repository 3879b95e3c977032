/* The graph's own operations: copy, compact, replace, expand. Expected graphs are texts. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "graph/text.h"
#include "tests/unit/same.h"

static struct linnet_model *imported(const char *body)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[800];
	const char *text = arena_fmt(m->arena, "<ir_version: 8, opset_import: [\"\" : 21]>\n%s", body);

	if (text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s\nin\n%s", linnet_error_line(&e, line, sizeof line), text);
	return m;
}

/* The model's graph is the one of `body`. */
static void assert_graph(struct linnet_model *m, const char *body)
{
	struct linnet_model *want = imported(body);
	struct linnet_error e = { 0 };
	char line[800];
	const char *d;

	if (graph_infer(m->graph, &e) || graph_verify(m->graph, &e))
		fail_msg("%s\nbefore\n%s", linnet_error_line(&e, line, sizeof line), body);
	d = graph_difference(m->graph, want->graph, m->arena);
	if (d)
		fail_msg("%s\nunlike\n%s", d, body);
	model_free(want);
}

static value_id find(const struct graph *g, const char *name)
{
	uint32_t v;

	if (!map_get(&g->names, name, &v))
		fail_msg("no value is named %s", name);
	return v;
}

static void compact(struct graph *g)
{
	struct linnet_error e = { 0 };
	struct arena *scratch = arena_new();

	assert_int_equal(graph_compact(g, scratch, &e), LINNET_OK);
	arena_free(scratch);
}

static const char with_branches[] =
	"g (bool c, float[n] x, float[n] u) => (float[n] y)\n"
	"{ a = Neg (x)\n"
	"  b = Exp (u)\n"
	"  unused = Relu (b)\n"
	"  y = If (c) <then_branch = t () => (r) { r = Add (a, x)\n"
	"    dead = Add (b, b) }, else_branch = e () => (r) { r = Identity (x) }> }";

static void copies_are_equal_and_apart(void **state)
{
	struct linnet_model *m = imported(with_branches);
	struct linnet_error e = { 0 };
	struct graph *copy;

	(void)state;
	assert_int_equal(graph_copy(m->graph, m->arena, &copy, &e), LINNET_OK);
	assert_null(graph_difference(m->graph, copy, m->arena));
	compact(copy);
	for (int i = 0; i < 5; i++)
		assert_true(graph_add_input(copy, NULL, NULL) != 0);
	assert_graph(m, with_branches);
	model_free(m);
}

static void compact_drops_what_is_unused(void **state)
{
	static const struct { const char *before, *after; } cases[] = {
		{ with_branches, "g (bool c, float[n] x, float[n] u) => (float[n] y)\n"
		                 "{ a = Neg (x)\n"
		                 "  y = If (c) <then_branch = t () => (r) { r = Add (a, x) }, else_branch = e () => (r) { r = Identity (x) }> }" },
		{ "g (float[n] x) => (float[n] y) <float[1] k = {1}> { y = Neg (x) }", "g (float[n] x) => (float[n] y) { y = Neg (x) }" },
		{ "g (float[n,4] x, float[4] s) => (float[n,4] y) { y, mean, inv = LayerNormalization (x, s) }",
		  "g (float[n,4] x, float[4] s) => (float[n,4] y) { y = LayerNormalization (x, s) }" },
		{ "g (float[n] x) => (float[n] y) { y = Neg (b)\n b = Exp (x) }",
		  "g (float[n] x) => (float[n] y) { b = Exp (x)\n y = Neg (b) }" },
		{ "g (float[n] x) => (x) { }", "g (float[n] x) => (x) { }" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_model *m = imported(cases[i].before);

		compact(m->graph);
		assert_graph(m, cases[i].after);
		compact(m->graph);
		assert_graph(m, cases[i].after);
		model_free(m);
	}
}

/* `old` is replaced by `by`; what is left without use is dropped. */
static void outputs_keep_their_names(void **state)
{
	static const struct { const char *before, *old, *by, *after; } cases[] = {
		{ "g (float[n] x) => (float[n] y) { a = Neg (x)\n b = Exp (a)\n y = Relu (b) }", "b", "a",
		  "g (float[n] x) => (float[n] y) { a = Neg (x)\n y = Relu (a) }" },
		{ "g (float[n] x) => (float[n] y) { a = Neg (x)\n y = Relu (a) }", "y", "a",
		  "g (float[n] x) => (float[n] y) { y = Neg (x) }" },
		{ "g (float[n] x) => (float[n] y) { y = Relu (x) }", "y", "x",
		  "g (float[n] x) => (float[n] y) { y = Identity (x) }" },
		{ "g (float[n] x) => (float[n] y, float[n] z) { y = Relu (x)\n z = Relu (x) }", "z", "y",
		  "g (float[n] x) => (float[n] y, float[n] z) { y = Relu (x)\n z = Identity (y) }" },
		{ "g (bool c, float[n] x) => (float[n] y)\n"
		  "{ a = Neg (x)\n b = Neg (x)\n"
		  "  y = If (c) <then_branch = t () => (r) { r = Exp (b) }, else_branch = e () => (r) { r = Exp (a) }> }", "b", "a",
		  "g (bool c, float[n] x) => (float[n] y)\n"
		  "{ a = Neg (x)\n"
		  "  y = If (c) <then_branch = t () => (r) { r = Exp (a) }, else_branch = e () => (r) { r = Exp (a) }> }" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_model *m = imported(cases[i].before), *again;
		struct linnet_error e = { 0 };
		struct uses u;

		assert_int_equal(graph_uses(m->graph, m->arena, &u, &e), LINNET_OK);
		assert_int_equal(graph_replace(m->graph, &u, find(m->graph, cases[i].old), find(m->graph, cases[i].by), &e), LINNET_OK);
		compact(m->graph);
		/* names of captures follow when the graph is written and read again */
		assert_int_equal(graph_export(m, 0, &e) || graph_import(m, &e), LINNET_OK);
		assert_graph(m, cases[i].after);
		again = imported(cases[i].after);
		assert_string_equal(m->graph->value[m->graph->out[0]].name, again->graph->value[again->graph->out[0]].name);
		model_free(again);
		model_free(m);
	}
}

static void nodes_are_expanded(void **state)
{
	struct linnet_model *m = imported("g (float[n] x) => (float[n] y) { a = Neg (x)\n [s] y = Softsign (a) }");
	struct linnet_error e = { 0 };
	value_id y = find(m->graph, "y");
	node_id n = m->graph->value[y].producer;

	(void)state;
	assert_int_equal(graph_expand(m->graph, n, &e), LINNET_OK);
	assert_true(m->graph->node[n].dead);
	assert_true(m->graph->value[y].producer > n);
	assert_int_equal(graph_infer(m->graph, &e), LINNET_OK);
	assert_int_equal(graph_verify(m->graph, &e), LINNET_OK);
	assert_int_equal(find(m->graph, "y"), y);
	for (node_id i = n + 1; i < m->graph->nnode; i++)
		assert_int_equal(strncmp(m->graph->node[i].name, "s", 1), 0);
	model_free(m);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies_are_equal_and_apart),
		cmocka_unit_test(compact_drops_what_is_unused),
		cmocka_unit_test(outputs_keep_their_names),
		cmocka_unit_test(nodes_are_expanded),
	};

	return cmocka_run_group_tests_name("graph", tests, NULL, NULL);
}
