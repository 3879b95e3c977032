/*
 * A graph in another precision: constants, inputs and the nodes between them change their element type. A node that does not take it,
 * or whose results would be lost in it, keeps its own between Cast nodes; two such nodes in a row speak directly to each other.
 */
#include <math.h>
#include <string.h>

#include "graph/rewrite.h"

/* One graph of the model. */
struct retype {
	const struct precision *p;
	struct graph *g;
	struct arena *s;
	enum dtype *dt;            /* by value: its type before */
	const struct tensor **was; /* a constant as it was */
	value_id *raw;             /* the value as it was before it was cast, or cast back; 0: none yet */
	value_id *by;              /* what nodes read in its stead; 0: itself */
	const char **keep;         /* by node: why it stays as it is */
	uint32_t nvalue, nnode;    /* of these; later ones are Casts */
};

static bool changes(const struct retype *r, enum dtype dt) { return dt != DT_UNDEFINED && dtype_in(dt, r->p->from); }

/* name NULL: nothing to be told of. */
static void note(const struct retype *r, const char *name, const char *op, const char *why)
{
	if (r->p->note && name)
		r->p->note(r->p->ctx, name, op, why);
}

/* ---- Constants ---- */

static enum linnet_code convert(const struct retype *r, const struct tensor *t, const char *name, const struct tensor **out,
                                struct linnet_error *e)
{
	bool half = r->p->to == DT_FLOAT16, clipped = false, lifted = false;
	struct tensor *x;

	TRY(tensor_new(r->g->arena, r->p->to, t->rank, t->d, &x, e));
	for (int64_t i = 0; i < t->n; i++) {
		double v = tensor_get(t, i);

		/* as converters do: what is finite stays finite and what is not 0 stays so */
		if (half && isfinite(v) && fabs(v) > 65504) {
			v = copysign(65504, v);
			clipped = true;
		} else if (half && t->n == 1 && v != 0 && fabs(v) < 0x1p-24) {
			v = copysign(0x1p-24, v);
			lifted = true;
		}
		tensor_put(x, i, v);
	}
	if (clipped)
		note(r, name, "", "values beyond 65504 become 65504, the largest float16");
	if (lifted)
		note(r, name, "", "it becomes 2^-24, the smallest float16 above 0");
	*out = x;
	return LINNET_OK;
}

/* ---- What is lost in 16 bits ---- */

static const char *const squares = "squares and their sums leave float16's range";
static const char *const growth = "its results leave float16's range";
static const char *const angles = "angles need more digits than 16 bits hold";

/* Operators that only move, join or scale angles on their way. */
static const char *const carriers[] = { "Mul", "MatMul", "Einsum", "Concat", "Transpose", "Reshape", "Unsqueeze", "Expand", "Add", "Cast", "Gather",
	                                "Slice", "Squeeze" };

static bool is_carrier(const struct node *n)
{
	for (size_t i = 0; i < sizeof carriers / sizeof *carriers; i++)
		if (node_is(n, carriers[i]))
			return true;
	return false;
}

static const char *producer_keeps(const struct retype *r, value_id v)
{
	const struct value *x = &r->g->value[v];

	return v && x->kind == VALUE_NODE && x->producer < r->nnode ? r->keep[x->producer] : NULL;
}

/* Forwards: powers, sums of squares and what is made of them until a root or a logarithm is taken. */
static const char *overflows(const struct retype *r, const struct node *n)
{
	bool square = node_is(n, "Mul") && n->in[0] == n->in[1];

	if (r->p->to != DT_FLOAT16)
		return NULL;
	if (square || node_is(n, "Pow") || node_is(n, "ReduceSumSquare") || node_is(n, "ReduceL2"))
		return squares;
	if (node_is(n, "CumSum") || node_is(n, "Exp") || node_is(n, "ReduceLogSumExp") || node_is(n, "ReduceProd"))
		return growth;
	if ((node_is(n, "ReduceMean") || node_is(n, "ReduceSum") || node_is(n, "Sqrt") || node_is(n, "Add") || node_is(n, "Max") || node_is(n, "Clip") || node_is(n, "Log")) &&
	    (producer_keeps(r, n->in[0]) == squares || (n->nin > 1 && producer_keeps(r, n->in[1]) == squares)))
		return squares;
	if ((node_is(n, "Div") || node_is(n, "Log") || node_is(n, "ReduceSum")) &&
	    (producer_keeps(r, n->in[0]) == growth || (n->nin > 1 && producer_keeps(r, n->in[1]) == growth)))
		return growth;
	return NULL;
}

/* Backwards from sines and cosines: what computes nothing but their angles. */
static void keep_angles(struct retype *r, const node_id *order, uint32_t n, const struct uses *u)
{
	for (uint32_t i = n; i-- > 0;) {
		const struct node *x = &r->g->node[order[i]];
		value_id v = x->nout ? x->out[0] : 0;
		bool all = is_carrier(x) && v && uses_of(u, v);

		for (uint32_t k = 0; all && k < uses_of(u, v); k++) {
			const struct use *use = &u->use[u->begin[v] + k];

			all = use->node && r->keep[use->node] == angles;
		}
		if (all || node_is(x, "Sin") || node_is(x, "Cos"))
			r->keep[order[i]] = angles;
	}
}

static bool touches(const struct retype *r, const struct node *n)
{
	for (uint32_t i = 0; i < n->nin - n->ncapture; i++)
		if (n->in[i] && changes(r, r->g->value[n->in[i]].type.dt))
			return true;
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i] && changes(r, r->g->value[n->out[i]].type.dt))
			return true;
	return false;
}

static void keep_accurate(struct retype *r, const node_id *order, uint32_t n, const struct uses *u)
{
	if (r->p->faithful || (r->p->to != DT_FLOAT16 && r->p->to != DT_BFLOAT16))
		return;
	for (uint32_t i = 0; i < n; i++)
		if (touches(r, &r->g->node[order[i]]))
			r->keep[order[i]] = overflows(r, &r->g->node[order[i]]);
	keep_angles(r, order, n, u);
}

/* ---- Nodes ---- */

/* A Cast of v to dt; its output takes the id `out` when that is not 0. */
static enum linnet_code add_cast(struct retype *r, value_id v, enum dtype dt, value_id out, value_id *made, struct linnet_error *e)
{
	struct attr to = { .name = "to", .kind = ATTR_INT, .given = true, .i = dt };
	node_id id;

	TRY(graph_add_node(r->g, op_newest(NULL, "Cast"), graph_fresh_name(r->g, "cast"), &v, 1, out ? &out : NULL, 1, &to, 1, &id, e));
	TRY(graph_infer_node(r->g, id, e));
	*made = r->g->node[id].out[0];
	return LINNET_OK;
}

/* The input of a node that stays as it is. */
static enum linnet_code as_before(struct retype *r, value_id v, enum dtype dt, value_id *out, struct linnet_error *e)
{
	*out = v;
	if (!v || v >= r->nvalue || !changes(r, dt))
		return LINNET_OK;
	if (!r->raw[v] && r->was[v]) {
		r->raw[v] = graph_add_const(r->g, r->was[v], r->g->value[v].name);
		if (!r->raw[v])
			return fail_mem(e);
	}
	if (!r->raw[v])
		TRY(add_cast(r, r->by[v] ? r->by[v] : v, dt, 0, &r->raw[v], e));
	*out = r->raw[v];
	return LINNET_OK;
}

/* Whether the operator takes the node's types at the opset. */
static bool admitted(const struct retype *r, const struct node *n)
{
	int opset = r->p->opset ? r->p->opset : OPSET_NEWEST;

	for (uint32_t i = 0; !n->op->domain && i < n->nin - n->ncapture + n->nout; i++) {
		bool out = i >= n->nin - n->ncapture;
		uint32_t k = out ? i - (n->nin - n->ncapture) : i;
		value_id v = out ? n->out[k] : n->in[k];

		if (v && r->g->value[v].type.dt == r->p->to && op_type_since(n->op, out, (int)k, r->p->to, opset))
			return false;
	}
	return true;
}

/* The attributes that say an element type, or hold a tensor of one, in the new precision. */
static enum linnet_code convert_attrs(struct retype *r, struct node *n, struct linnet_error *e)
{
	static const char *const names[] = { "to", "dtype", "output_dtype", "output_datatype" };
	struct tensor *zero;

	n->attr = arena_dup(r->g->arena, n->attr, n->nattr * sizeof *n->attr);
	if (!n->attr)
		return fail_mem(e);
	for (uint32_t i = 0; i < n->nattr; i++) {
		struct attr *a = &n->attr[i];

		for (size_t k = 0; k < sizeof names / sizeof *names; k++)
			if (a->kind == ATTR_INT && !strcmp(a->name, names[k]) && a->i > 0 && a->i < 32 && changes(r, (enum dtype)a->i)) {
				a->i = r->p->to;
				a->given = true;
			}
		if (a->kind == ATTR_TENSOR && changes(r, a->t->dt)) {
			TRY(convert(r, a->t, node_label(r->g, n), &a->t, e));
			a->origin = NULL;
		} else if (a->kind == ATTR_NONE && node_is(n, "ConstantOfShape") && dtype_in(DT_FLOAT, r->p->from)) {
			TRY(tensor_new(r->g->arena, r->p->to, 1, (int64_t[]){ 1 }, &zero, e));
			*a = (struct attr){ .name = a->name, .kind = ATTR_TENSOR, .given = true, .t = zero };
		}
	}
	return LINNET_OK;
}

/* Try the node in the new precision; *why stays NULL when it takes it. */
static enum linnet_code try_node(struct retype *r, node_id id, const enum dtype *out, const char **why, struct linnet_error *e)
{
	struct linnet_error told = { 0 };
	struct node *n = &r->g->node[id], before = *n;
	value_id *in;
	enum linnet_code code;

	TRY_NEW(in, r->g->arena, n->nin);
	for (uint32_t i = 0; i < n->nin; i++)
		in[i] = n->in[i] < r->nvalue && r->by[n->in[i]] ? r->by[n->in[i]] : n->in[i];
	n->in = in;
	TRY(convert_attrs(r, n, e));
	code = graph_infer_node(r->g, id, &told);
	n = &r->g->node[id];
	if (code == LINNET_EMEM)
		return fail_mem(e);
	*why = code ? "the operator does not take it" : NULL;
	for (uint32_t i = 0; !code && i < n->nout; i++)
		if (n->out[i] && r->g->value[n->out[i]].type.dt != (changes(r, out[i]) ? r->p->to : out[i]))
			*why = "its results would not be of that type";
	if (!*why && !admitted(r, n))
		*why = "the operator does not take it at this opset";
	if (*why)
		*n = before;
	return LINNET_OK;
}

/* The node as it was, between Casts. */
static enum linnet_code keep_node(struct retype *r, node_id id, const enum dtype *in_dt, const enum dtype *out_dt, struct linnet_error *e)
{
	struct graph *g = r->g;
	uint32_t nin = g->node[id].nin, nout = g->node[id].nout;
	value_id *in, *out, *own;

	TRY_NEW(in, g->arena, nin);
	TRY_NEW(out, g->arena, nout);
	TRY_NEW(own, r->s, nout);
	for (uint32_t i = 0; i < nin; i++)
		TRY(as_before(r, g->node[id].in[i], in_dt[i], &in[i], e));
	for (uint32_t i = 0; i < nout; i++) {
		value_id v = own[i] = out[i] = g->node[id].out[i];

		if (!v || !changes(r, out_dt[i]))
			continue;
		if (g->value[v].type.kind != KIND_TENSOR)
			return fail(e, LINNET_EUNSUPPORTED, "output \"%s\" is no tensor, and the operator does not take %s", g->value[v].name,
			            dtype_name(r->p->to));
		out[i] = graph_add_value(g, VALUE_NODE, NULL, g->value[v].name);
		if (!out[i])
			return fail_mem(e);
		g->value[out[i]].producer = id;
		g->value[out[i]].index = i;
	}
	g->node[id].in = in;
	g->node[id].out = out;
	TRY(graph_infer_node(g, id, e));
	for (uint32_t i = 0; i < nout; i++) {
		value_id made;

		if (own[i] == out[i])
			continue;
		r->raw[own[i]] = out[i];
		g->value[own[i]].producer = 0;
		TRY(add_cast(r, out[i], r->p->to, own[i], &made, e));
	}
	return LINNET_OK;
}

static enum linnet_code retype_graph(const struct precision *p, struct graph *g, struct linnet_error *e);

static enum linnet_code do_node(struct retype *r, node_id id, struct linnet_error *e)
{
	struct graph *g = r->g;
	struct node *n = &g->node[id];
	const char *why = r->keep[id];
	enum dtype *in, *out;

	TRY_NEW(in, r->s, n->nin);
	TRY_NEW(out, r->s, n->nout);
	for (uint32_t i = 0; i < n->nin; i++)
		in[i] = r->dt[n->in[i]];
	for (uint32_t i = 0; i < n->nout; i++)
		out[i] = r->dt[n->out[i]];
	for (uint32_t i = 0; i < n->nattr; i++)
		if (n->attr[i].kind == ATTR_GRAPH) {
			TRY(retype_graph(r->p, n->attr[i].g, e));
			why = NULL;
		}
	if (!why)
		TRY(try_node(r, id, out, &why, e));
	if (!why)
		return LINNET_OK;
	n = &g->node[id];
	if (!n->known)
		why = "the operator is unknown";
	note(r, node_label(g, n), n->op->name, why);
	return keep_node(r, id, in, out, e);
}

/* ---- Graphs ---- */

/* Only nodes that stay as they are read v, and they read it as it was. */
static bool stays(const struct retype *r, value_id v, const struct uses *u)
{
	uint32_t n = uses_of(u, v);

	for (uint32_t i = u->begin[v]; i < u->end[v]; i++)
		if (!u->use[i].node || !r->keep[u->use[i].node])
			return false;
	return n != 0;
}

static enum linnet_code do_constants(struct retype *r, const struct uses *u, struct linnet_error *e)
{
	for (value_id v = 1; v < r->nvalue; v++) {
		struct value *x = &r->g->value[v];

		if (x->has_default && changes(r, x->dflt->dt) && (!r->p->keep_io || r->g->outer))
			TRY(convert(r, x->dflt, x->name, &x->dflt, e));
		if (x->kind != VALUE_CONST || !changes(r, x->type.dt))
			continue;
		r->was[v] = x->type.value;
		TRY(convert(r, x->type.value, stays(r, v, u) ? NULL : x->name, &x->type.value, e));
		x->type.dt = r->p->to;
		x->origin = NULL;
	}
	return LINNET_OK;
}

static enum linnet_code do_inputs(struct retype *r, struct linnet_error *e)
{
	struct graph *g = r->g;

	for (uint32_t i = 0; i < g->nin; i++) {
		value_id v = g->in[i];

		if (!changes(r, g->value[v].type.dt))
			continue;
		if (!r->p->keep_io || g->outer) {
			g->value[v].type.dt = r->p->to;
			g->value[v].type.value = NULL;
			continue;
		}
		r->raw[v] = v;
		if (g->value[v].type.kind == KIND_TENSOR)
			TRY(add_cast(r, v, r->p->to, 0, &r->by[v], e));
	}
	return LINNET_OK;
}

/* Outputs that keep their type: the node computes another value, which is cast. */
static enum linnet_code do_outputs(struct retype *r, const enum dtype *was, struct linnet_error *e)
{
	struct graph *g = r->g;

	for (uint32_t i = 0; i < g->nout; i++) {
		value_id v = g->out[i], made, other;

		if (!changes(r, was[i]) || g->value[v].type.dt != r->p->to || g->value[v].kind != VALUE_NODE || g->value[v].type.kind != KIND_TENSOR)
			continue;
		other = graph_add_value(g, VALUE_NODE, NULL, g->value[v].name);
		if (!other)
			return fail_mem(e);
		g->value[other].type = g->value[v].type;
		g->value[other].producer = g->value[v].producer;
		g->value[other].index = g->value[v].index;
		g->node[g->value[v].producer].out[g->value[v].index] = other;
		for (node_id id = 1; id < g->nnode; id++)
			for (uint32_t k = 0; !g->node[id].dead && k < g->node[id].nin; k++)
				if (g->node[id].in[k] == v)
					g->node[id].in[k] = other;
		g->value[v].producer = 0;
		if (v < r->nvalue && r->raw[v]) /* never cast at all */
			TRY(graph_add_node(g, op_newest(NULL, "Identity"), NULL, &r->raw[v], 1, &v, 1, NULL, 0, NULL, e));
		else
			TRY(add_cast(r, other, was[i], v, &made, e));
	}
	return LINNET_OK;
}

static enum linnet_code retype_nodes(struct retype *r, struct linnet_error *e)
{
	struct graph *g = r->g;
	enum dtype *out;
	const void **said;
	node_id *order;
	uint32_t n;
	struct uses u;

	r->nvalue = g->nvalue;
	r->nnode = g->nnode;
	TRY_NEW(r->dt, r->s, g->nvalue);
	TRY_NEW(r->was, r->s, g->nvalue);
	TRY_NEW(r->raw, r->s, g->nvalue);
	TRY_NEW(r->by, r->s, g->nvalue);
	TRY_NEW(r->keep, r->s, g->nnode);
	TRY_NEW(out, r->s, g->nout);
	TRY_NEW(said, r->s, g->nout);
	TRY(graph_order(g, r->s, &order, &n, e));
	TRY(graph_uses(g, r->s, &u, e));
	for (uint32_t i = 0; i < g->nout; i++)
		out[i] = g->value[g->out[i]].type.dt;
	for (value_id v = 1; v < g->nvalue; v++)
		r->dt[v] = g->value[v].type.dt;
	for (uint32_t i = 0; i < g->nout; i++)
		said[i] = g->value[g->out[i]].origin;
	for (value_id v = 1; v < g->nvalue; v++) /* what the file said of types does not hold any more */
		if (g->value[v].kind == VALUE_NODE && changes(r, g->value[v].type.dt))
			g->value[v].origin = NULL;
	for (uint32_t i = 0; i < g->nout; i++) /* but for the lengths of outputs */
		if (g->value[g->out[i]].type.kind == KIND_TENSOR)
			g->value[g->out[i]].origin = said[i];
	keep_accurate(r, order, n, &u);
	TRY(do_constants(r, &u, e));
	TRY(do_inputs(r, e));
	for (uint32_t i = 0; i < n; i++) {
		const struct node *x = &g->node[order[i]];

		TRY(err_node(e, do_node(r, order[i], e), node_label(g, x), x->op->name));
	}
	return r->p->keep_io && !g->outer ? do_outputs(r, out, e) : LINNET_OK;
}

static enum linnet_code retype_graph(const struct precision *p, struct graph *g, struct linnet_error *e)
{
	struct retype r = { .p = p, .g = g, .s = arena_new() };
	enum linnet_code code = r.s ? retype_nodes(&r, e) : fail_mem(e);

	if (!code && !g->outer)
		code = graph_compact(g, r.s, e);
	arena_free(r.s);
	return code;
}

enum linnet_code graph_precision(struct graph *g, const struct precision *p, struct linnet_error *e)
{
	TRY(retype_graph(p, g, e));
	return graph_infer(g, e);
}
