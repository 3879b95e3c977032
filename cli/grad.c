/* linnet grad: write the graph that computes gradients. */
#include <fnmatch.h>
#include <string.h>

#include "cli/model.h"
#include "graph/grad.h"
#include "graph/pass.h"

struct grad_cli {
	const char *of, *output;
	struct opt_list wrt;
	bool as_written, external;
	int64_t opset;
};

static value_id find(const struct graph *g, const char *name)
{
	for (value_id v = 1; v < g->nvalue; v++)
		if (!strcmp(g->value[v].name, name))
			return v;
	return 0;
}

/* The only output when the user names none. */
static enum linnet_code find_of(const struct graph *g, const char *name, value_id *of, struct linnet_error *e)
{
	if (!name && g->nout != 1)
		return fail(e, LINNET_EMODEL, "the model has %u outputs; --of tells which one to take the gradient of", g->nout);
	*of = name ? find(g, name) : g->out[0];
	return *of ? LINNET_OK : fail(e, LINNET_EMODEL, "there is no value \"%s\"", name);
}

/* Float inputs and constants of these names, each once. */
static enum linnet_code find_wrt(const struct graph *g, const struct opt_list *names, struct arena *a, value_id **wrt, uint32_t *n,
                                 struct linnet_error *e)
{
	TRY_NEW(*wrt, a, g->nvalue);
	*n = 0;
	for (int i = 0; i < names->n; i++) {
		bool found = false;

		for (value_id v = 1; v < g->nvalue; v++) {
			const struct value *x = &g->value[v];
			bool exact = !strcmp(names->v[i], x->name), twice = false;

			if (!dtype_in(x->type.dt, FLOATS) || x->type.kind != KIND_TENSOR)
				continue;
			if (!exact && (x->kind == VALUE_NODE || fnmatch(names->v[i], x->name, 0)))
				continue;
			found = true;
			for (uint32_t k = 0; k < *n; k++)
				twice |= (*wrt)[k] == v;
			if (!twice)
				(*wrt)[(*n)++] = v;
		}
		if (!found)
			return fail(e, LINNET_EMODEL, "no input or constant of floats is named \"%s\"", names->v[i]);
	}
	return LINNET_OK;
}

static enum linnet_code exact_passes(struct graph *g, struct linnet_error *e)
{
	return pass_run_all(g, NULL, e);
}

/* Names to values again, after passes renumbered them. */
static enum linnet_code add_gradients(struct graph *g, const struct grad_cli *o, struct arena *a, uint32_t *count, struct linnet_error *e)
{
	value_id of, *wrt, *out;
	const char **name;
	uint32_t n;

	TRY(find_of(g, o->of, &of, e));
	TRY(find_wrt(g, &o->wrt, a, &wrt, &n, e));
	TRY_NEW(name, a, n);
	TRY_NEW(out, a, n);
	for (uint32_t i = 0; i < n; i++) {
		name[i] = g->value[wrt[i]].name;
		if (g->value[wrt[i]].kind == VALUE_CONST && graph_free_const(g, wrt[i]))
			return fail_mem(e);
	}
	TRY(graph_infer(g, e));
	if (!o->as_written) {
		const char *target = g->value[of].name;

		TRY(exact_passes(g, e));
		of = find(g, target);
		for (uint32_t i = 0; i < n; i++)
			wrt[i] = find(g, name[i]);
		if (!of)
			return fail(e, LINNET_EMODEL, "\"%s\" is gone after the exact passes; give --as-written", target);
	}
	for (uint32_t i = 0; i < n; i++)
		if (!wrt[i])
			return fail(e, LINNET_EMODEL, "\"%s\" is gone after the exact passes; give --as-written", name[i]);
	TRY(graph_grad(g, of, wrt, n, out, e));
	*count = 0;
	for (uint32_t i = 0; i < n; i++) {
		value_id v;

		if (!out[i]) {
			note("%s does not depend on %s", g->value[of].name, name[i]);
			continue;
		}
		v = graph_add_value(g, VALUE_NODE, NULL, arena_fmt(g->arena, "grad:%s", name[i]));
		if (!v)
			return fail_mem(e);
		TRY(graph_add_node(g, op_newest(NULL, "Identity"), NULL, &out[i], 1, &v, 1, NULL, 0, NULL, e));
		g->value[v].type = g->value[out[i]].type;
		if (graph_add_output(g, v))
			return fail_mem(e);
		++*count;
	}
	TRY(graph_compact(g, a, e));
	TRY(graph_infer(g, e));
	return exact_passes(g, e);
}

static int grad_run(void *opt, int argc, char **argv)
{
	const struct grad_cli *o = opt;
	struct linnet_error e = { 0 };
	struct linnet_model *m;
	struct arena *a;
	uint32_t count = 0;
	enum linnet_code code;
	int status;

	(void)argc;
	if (!o->output || !o->wrt.n || o->opset < 0 || o->opset > OPSET_NEWEST) {
		fprintf(stderr, "linnet: grad needs --wrt NAME and -o FILE; see linnet grad --help\n");
		return EXIT_USAGE;
	}
	status = open_model(argv[0], &m);
	if (status)
		return status;
	a = arena_new();
	code = a ? add_gradients(m->graph, o, a, &count, &e) : fail_mem(&e);
	if (code) {
		err_file(&e, code, argv[0]);
		status = report_error(&e);
	} else {
		status = save_model(m, o->opset ? (int)o->opset : OPSET_NEWEST, o->external, argv[0], o->output);
	}
	if (status) {
		/* it was told */
	} else if (globals.json) {
		json_line(json_pack("{s:s, s:i, s:i}", "file", o->output, "gradients", (int)count, "nodes", (int)m->graph->nnode - 1), "grad");
	} else if (!globals.quiet) {
		printf("%s  %u gradients, %u nodes\n", o->output, count, m->graph->nnode - 1);
	}
	if (!status && !count)
		status = EXIT_NO;
	arena_free(a);
	model_free(m);
	return status;
}

const struct command grad_command = {
	.name = "grad",
	.summary = "Write the graph that computes gradients",
	.operands = "MODEL --wrt NAME -o FILE",
	.details =
		"Adds to the model the nodes that compute the gradient of one of its values (of the sum of its elements) with respect to inputs and\n"
		"weights, as outputs named grad:NAME. Weights asked for become inputs with a default. All nodes are standard operators, so that the\n"
		"result runs wherever its opset does, and has gradients itself. Exit status 1: the value depends on none of the names.",
	.examples = "linnet grad model.onnx --of loss --wrt 'W*' -o gradient.onnx\n"
	            "linnet grad gradient.onnx --of grad:x --wrt x -o second.onnx",
	.opt = (const struct opt[]){
		{ "of", 0, OPT_STRING, OPT(struct grad_cli, of), "NAME", "the value to differentiate, the model's output by default", NULL },
		{ "wrt", 'w', OPT_LIST, OPT(struct grad_cli, wrt), "PATTERN", "inputs and weights, as names or with * and ?", NULL },
		{ "output", 'o', OPT_STRING, OPT(struct grad_cli, output), "FILE", "where to write the result", NULL },
		{ "as-written", 0, OPT_FLAG, OPT(struct grad_cli, as_written), NULL, "without the exact passes before", NULL },
		{ "opset", 0, OPT_INT, OPT(struct grad_cli, opset), "N", "opset of the result, the newest by default", NULL },
		{ "external", 0, OPT_FLAG, OPT(struct grad_cli, external), NULL, "weights in a file of their own", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = 1,
	.size = sizeof(struct grad_cli),
	.run = grad_run,
};
