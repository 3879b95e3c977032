/* The invariants of graph.h, in code. */
#include <string.h>

#include "graph/graph.h"

/* ---- Nodes ---- */

static enum linnet_code verify_arity(const struct op_io *io, bool variadic, int declared, const value_id *v, int n,
                                     const char *what, struct linnet_error *e)
{
	if (n > declared && !variadic)
		return fail(e, LINNET_EMODEL, "%d %ss; at most %d are declared", n, what, declared);
	/* single members of a variadic one may be left out */
	for (int i = 0; i < declared; i++)
		if (!(io[i].flags & OPTIONAL) && (i >= n || (!v[i] && !(io[i].flags & VARIADIC))))
			return fail(e, LINNET_EMODEL, "%s \"%s\" is left out but is not optional", what, io[i].name);
	return LINNET_OK;
}

static enum linnet_code verify_attributes(const struct node *n, struct linnet_error *e)
{
	if (n->nattr != (uint32_t)op_nattr(n->op))
		return fail(e, LINNET_EINTERNAL, "%u attributes; the row has %d", n->nattr, op_nattr(n->op));
	for (uint32_t i = 0; i < n->nattr; i++) {
		const struct op_attr *row = &n->op->attr[i];
		const struct attr *a = &n->attr[i];

		if (!a->name || strcmp(a->name, row->name))
			return fail(e, LINNET_EINTERNAL, "attribute %u is \"%s\"; the row has \"%s\"", i, a->name ? a->name : "", row->name);
		if (a->kind == ATTR_NONE && row->flags & REQUIRED)
			return fail(e, LINNET_EATTR, "attribute \"%s\" is required", row->name);
		if (a->kind != ATTR_NONE && a->kind != row->kind)
			return fail(e, LINNET_EATTR, "attribute \"%s\" has the wrong kind", row->name);
	}
	return LINNET_OK;
}

/* Element types as the row's sets and type variables say. */
static enum linnet_code verify_types(const struct graph *g, const struct node *n, struct linnet_error *e)
{
	enum dtype bound[NTVAR] = { DT_UNDEFINED };
	uint32_t nin = n->nin - n->ncapture;

	for (uint32_t i = 0; i < nin + n->nout; i++) {
		bool in = i < nin;
		const struct op_io *io = in ? op_in(n->op, (int)i) : op_out(n->op, (int)(i - nin));
		value_id v = in ? n->in[i] : n->out[i - nin];
		const struct type *t = &g->value[v].type;

		if (!v || t->dt == DT_UNDEFINED)
			continue;
		if (t->kind != KIND_SPARSE && !kind_in(t->kind, io_kinds(io))) {
			char found[64];

			return fail(e, LINNET_ETYPE, "%s \"%s\" is %s, which %s does not admit", in ? "input" : "output", io->name,
			            kind_str(t, found, sizeof found), n->op->name);
		}
		if (!dtype_in(t->dt, n->op->types[io->type]))
			return fail(e, LINNET_ETYPE, "%s \"%s\" has element type %s, which %s does not admit", in ? "input" : "output",
			            io->name, dtype_name(t->dt), n->op->name);
		if (io->flags & HETERO)
			continue;
		if (bound[io->type] == DT_UNDEFINED)
			bound[io->type] = t->dt;
		else if (bound[io->type] != t->dt)
			return fail(e, LINNET_ETYPE, "%s \"%s\" has element type %s; %s was expected", in ? "input" : "output", io->name,
			            dtype_name(t->dt), dtype_name(bound[io->type]));
	}
	return LINNET_OK;
}

static enum linnet_code verify_row(const struct graph *g, const struct node *n, struct linnet_error *e)
{
	bool more_in, more_out;
	int nin = op_nin(n->op, &more_in), nout = op_nout(n->op, &more_out);

	if (op_is_old(n->op))
		return fail(e, LINNET_EINTERNAL, "the row since opset %d is not current", n->op->since);
	TRY(verify_arity(n->op->in, more_in, nin, n->in, (int)(n->nin - n->ncapture), "input", e));
	TRY(verify_arity(n->op->out, more_out, nout, n->out, (int)n->nout, "output", e));
	TRY(verify_attributes(n, e));
	return verify_types(g, n, e);
}

/* What a subgraph captures is what its node passes. `from` is the first of the node's inputs that are for it. */
static enum linnet_code verify_captures(const struct graph *g, const struct node *n, uint32_t from, const struct graph *sub,
                                        struct linnet_error *e)
{
	for (uint32_t k = 0; k < sub->ncapture; k++) {
		value_id v = n->in[from + k], in = sub->in[sub->nin - sub->ncapture + k];
		enum dtype a = g->value[v].type.dt, b = in < sub->nvalue ? sub->value[in].type.dt : DT_UNDEFINED;

		if (!v)
			return fail(e, LINNET_EINTERNAL, "capture %u is left out", k);
		if (a != b && a != DT_UNDEFINED && b != DT_UNDEFINED)
			return fail(e, LINNET_ETYPE, "\"%s\" is captured as %s; it is %s", g->value[v].name, dtype_name(b), dtype_name(a));
	}
	return LINNET_OK;
}

static enum linnet_code verify_subgraphs(const struct graph *g, const struct node *n, struct linnet_error *e)
{
	uint32_t from = n->nin - n->ncapture;

	for (uint32_t i = 0; i < n->nattr; i++) {
		const struct graph *sub = n->attr[i].g;

		if (n->attr[i].kind != ATTR_GRAPH)
			continue;
		if (!sub || sub->outer != g || sub->ncapture > sub->nin || sub->ncapture > n->nin - from)
			return fail(e, LINNET_EINTERNAL, "subgraph \"%s\" does not belong here", n->attr[i].name);
		TRY(verify_captures(g, n, from, sub, e));
		from += sub->ncapture;
		TRY(graph_verify(sub, e));
	}
	if (from != n->nin)
		return fail(e, LINNET_EINTERNAL, "%u captures; the subgraphs have %u", n->ncapture, from - (n->nin - n->ncapture));
	return LINNET_OK;
}

static enum linnet_code verify_node(const struct graph *g, node_id id, struct linnet_error *e)
{
	const struct node *n = &g->node[id];

	if (n->ncapture > n->nin)
		return fail(e, LINNET_EINTERNAL, "%u captures; the node has %u inputs", n->ncapture, n->nin);
	for (uint32_t i = 0; i < n->nin; i++) {
		const struct value *v = n->in[i] < g->nvalue ? &g->value[n->in[i]] : NULL;

		if (!v)
			return fail(e, LINNET_EINTERNAL, "input %u is value %u of %u", i, n->in[i], g->nvalue);
		if (n->in[i] && v->kind == VALUE_NODE && (!v->producer || v->producer >= g->nnode || g->node[v->producer].dead))
			return fail(e, LINNET_EINTERNAL, "input \"%s\" has no producer", v->name);
	}
	for (uint32_t i = 0; i < n->nout; i++) {
		const struct value *v = n->out[i] < g->nvalue ? &g->value[n->out[i]] : NULL;

		if (!v)
			return fail(e, LINNET_EINTERNAL, "output %u is value %u of %u", i, n->out[i], g->nvalue);
		if (n->out[i] && (v->kind != VALUE_NODE || v->producer != id || v->index != i))
			return fail(e, LINNET_EINTERNAL, "output \"%s\" does not know its producer", v->name);
	}
	if (n->known)
		TRY(verify_row(g, n, e));
	return verify_subgraphs(g, n, e);
}

/* ---- Values ---- */

static enum linnet_code verify_value(const struct graph *g, value_id id, struct linnet_error *e)
{
	const struct value *v = &g->value[id];
	const struct tensor *t = v->type.value;

	if (!v->name)
		return fail(e, LINNET_EINTERNAL, "value %u has no name", id);
	if (v->type.shape.rank < -1 || v->type.shape.rank > MAX_RANK)
		return fail(e, LINNET_EINTERNAL, "value \"%s\" has rank %d", v->name, v->type.shape.rank);
	if (v->kind == VALUE_CONST && !t)
		return fail(e, LINNET_EINTERNAL, "constant \"%s\" has no contents", v->name);
	if (v->kind == VALUE_INPUT && (v->index >= g->nin || g->in[v->index] != id))
		return fail(e, LINNET_EINTERNAL, "\"%s\" is not the graph input it says", v->name);
	if (v->kind == VALUE_NODE && v->producer && (v->producer >= g->nnode || v->index >= g->node[v->producer].nout))
		return fail(e, LINNET_EINTERNAL, "\"%s\" is not the output it says", v->name);
	if (t && (t->dt != v->type.dt || t->rank != v->type.shape.rank))
		return fail(e, LINNET_EINTERNAL, "contents of \"%s\" are of another type", v->name);
	for (int i = 0; t && i < t->rank; i++)
		if (t->d[i] != v->type.shape.d[i])
			return fail(e, LINNET_EINTERNAL, "contents of \"%s\" are of another shape", v->name);
	return LINNET_OK;
}

/* A name is one value's, in the graph and against those around it; a capture has the name of what it captures. */
static enum linnet_code verify_names(const struct graph *g, struct arena *scratch, struct linnet_error *e)
{
	struct map seen;

	map_init(&seen, scratch);
	for (value_id v = 1; v < g->nvalue; v++) {
		const struct value *x = &g->value[v];
		bool captured = x->kind == VALUE_INPUT && x->index >= g->nin - g->ncapture;

		if (map_get(&seen, x->name, NULL) || (!captured && g->outer && graph_name_used(g->outer, x->name)))
			return fail(e, LINNET_EINTERNAL, "two values are named \"%s\"", x->name);
		if (map_put(&seen, x->name, v))
			return fail_mem(e);
	}
	return LINNET_OK;
}

static enum linnet_code verify(const struct graph *g, struct arena *scratch, struct linnet_error *e)
{
	node_id *order;
	uint32_t n;

	if (g->ncapture > g->nin)
		return fail(e, LINNET_EINTERNAL, "%u captures; the graph has %u inputs", g->ncapture, g->nin);
	for (uint32_t i = 0; i < g->nin; i++)
		if (!g->in[i] || g->in[i] >= g->nvalue || g->value[g->in[i]].kind != VALUE_INPUT || g->value[g->in[i]].index != i)
			return fail(e, LINNET_EINTERNAL, "graph input %u is no input", i);
	for (value_id v = 1; v < g->nvalue; v++)
		TRY(verify_value(g, v, e));
	for (uint32_t i = 0; i < g->nout; i++) {
		const struct value *v = g->out[i] && g->out[i] < g->nvalue ? &g->value[g->out[i]] : NULL;

		if (!v || (v->kind == VALUE_NODE && (!v->producer || g->node[v->producer].dead)))
			return fail(e, LINNET_EINTERNAL, "graph output %u has no producer", i);
	}
	TRY(verify_names(g, scratch, e));
	for (node_id i = 1; i < g->nnode; i++)
		if (!g->node[i].dead)
			TRY(err_node(e, verify_node(g, i, e), g->node[i].name, g->node[i].op->name));
	return graph_order(g, scratch, &order, &n, e);
}

enum linnet_code graph_verify(const struct graph *g, struct linnet_error *e)
{
	struct arena *scratch = arena_new();
	enum linnet_code code = scratch ? verify(g, scratch, e) : fail_mem(e);

	arena_free(scratch);
	return code;
}
