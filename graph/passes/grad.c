/*
 * Gradients as graphs. Nodes are visited against their order; each adds, by its row's `grad` block, what the gradients of its outputs
 * say of its inputs. What reaches a value on several ways is summed. Graphs inside If, Loop and Scan become graphs that compute
 * the same step again and then its gradient; the states that a step began with are kept by the forward run.
 */
#include "graph/grad.h"

#include <string.h>

#include "graph/pass.h"

enum { MAX_ROUNDS = 16 }; /* bodies of bodies */

/* The way back through one graph. */
struct backward {
	struct graph *g;
	struct arena *s;
	struct linnet_error *e;
	uint32_t nvalue;   /* before gradients were added */
	bool *need;        /* by value: depends on what is asked for */
	bool *reach;       /* by value: what has a gradient depends on it */
	value_id *grad;    /* by value: its gradient so far, or 0 */
	node_id *order;
	uint32_t norder;
};

static enum linnet_code go_back(struct backward *b);

static bool is_real(const struct graph *g, value_id v)
{
	return v && g->value[v].type.kind == KIND_TENSOR && dtype_in(g->value[v].type.dt, FLOATS);
}

/* ---- Adding nodes ---- */

/* A node of ai.onnx operator `op` with one output. attr: ended by a NULL name, or NULL. */
static enum linnet_code emit(struct graph *g, const char *op, const value_id *in, uint32_t nin, const struct attr *attr, value_id *out,
                             struct linnet_error *e)
{
	const char *name = graph_fresh_name(g, arena_fmt(g->arena, "grad/%s", op));
	uint32_t nattr = 0;
	node_id id;

	while (attr && attr[nattr].name)
		nattr++;
	if (!name)
		return fail_mem(e);
	TRY(graph_add_node(g, op_newest(NULL, op), name, in, nin, NULL, 1, attr, nattr, &id, e));
	g->node[id].from = "grad";
	*out = g->node[id].out[0];
	return graph_infer_node(g, id, e);
}

static enum linnet_code ints(struct graph *g, const int64_t *x, int n, value_id *out, struct linnet_error *e)
{
	int64_t length = n;
	struct tensor *t;

	TRY(tensor_new(g->arena, DT_INT64, 1, &length, &t, e));
	for (int i = 0; i < n; i++)
		tensor_put_int(t, i, x[i]);
	*out = graph_add_const(g, t, "grad/axes");
	return *out ? LINNET_OK : fail_mem(e);
}

/* A tensor as `like`, all elements `x`. */
static enum linnet_code filled(struct graph *g, value_id like, double x, value_id *out, struct linnet_error *e)
{
	struct attr attr[2] = { { .name = "value", .kind = ATTR_TENSOR } };
	struct tensor *t;
	value_id shape;

	TRY(tensor_new(g->arena, g->value[like].type.dt, 1, (int64_t[]){ 1 }, &t, e));
	tensor_put(t, 0, x);
	attr[0].t = t;
	TRY(emit(g, "Shape", &like, 1, NULL, &shape, e));
	return emit(g, "ConstantOfShape", &shape, 1, attr, out, e);
}

/* ---- Sums over what was broadcast ---- */

/* The gradient d of x seen through a broadcast, where lengths are known only when it runs. */
static enum linnet_code fit_late(struct graph *g, value_id *d, value_id x, struct linnet_error *e)
{
	const struct attr keep[] = { { .name = "keepdims", .kind = ATTR_INT, .i = 1 },
		                     { .name = "noop_with_empty_axes", .kind = ATTR_INT, .i = 1 }, { .name = NULL } };
	const struct attr exact[] = { { .name = "allowzero", .kind = ATTR_INT, .i = 1 }, { .name = NULL } };
	value_id sx, sd, full, nd, nx, pad, flat, differs, where, axes, zero, ones;

	TRY(emit(g, "Shape", &x, 1, NULL, &sx, e));
	TRY(emit(g, "Shape", d, 1, NULL, &sd, e));
	TRY(emit(g, "Shape", &sd, 1, NULL, &nd, e)); /* ranks */
	TRY(emit(g, "Shape", &sx, 1, NULL, &nx, e));
	TRY(emit(g, "Sub", (value_id[]){ nd, nx }, 2, NULL, &pad, e));
	TRY(ints(g, &(int64_t){ 1 }, 1, &ones, e));
	TRY(emit(g, "Expand", (value_id[]){ ones, pad }, 2, NULL, &ones, e));
	TRY(emit(g, "Concat", (value_id[]){ ones, sx }, 2, (struct attr[]){ { .name = "axis", .kind = ATTR_INT }, { .name = NULL } }, &full, e));
	TRY(emit(g, "Equal", (value_id[]){ full, sd }, 2, NULL, &differs, e));
	TRY(emit(g, "Not", &differs, 1, NULL, &differs, e));
	TRY(emit(g, "NonZero", &differs, 1, NULL, &where, e));
	TRY(ints(g, &(int64_t){ 0 }, 1, &zero, e));
	TRY(emit(g, "Squeeze", (value_id[]){ where, zero }, 2, NULL, &axes, e));
	TRY(emit(g, "ReduceSum", (value_id[]){ *d, axes }, 2, keep, &flat, e));
	return emit(g, "Reshape", (value_id[]){ flat, sx }, 2, exact, d, e);
}

/* *d, the gradient of x as something broadcasts it, summed to the shape of x; repeated where it has length 1 and x has not. */
static enum linnet_code fit(struct graph *g, value_id *d, value_id x, struct linnet_error *e)
{
	const struct shape a = g->value[*d].type.shape, b = g->value[x].type.shape;
	const struct attr exact[] = { { .name = "allowzero", .kind = ATTR_INT, .i = 1 }, { .name = NULL } };
	const struct attr drop[] = { { .name = "keepdims", .kind = ATTR_INT, .i = 0 }, { .name = NULL } };
	int64_t axes[MAX_RANK];
	int n = 0, more = a.rank - b.rank;
	bool late = a.rank < 0 || b.rank < 0, few = false;
	value_id which, shape;

	if (a.rank >= 0 && more < 0) { /* of one element */
		TRY(emit(g, "Shape", &x, 1, NULL, &shape, e));
		return emit(g, "Reshape", (value_id[]){ *d, shape }, 2, exact, d, e);
	}

	for (int i = 0; !late && i < a.rank; i++) {
		dim p = a.d[i], q = i < more ? 1 : b.d[i - more];

		if (i < more || (q == 1 && p != 1))
			axes[n++] = i;
		else
			late = p != q && !dim_is_int(q) && p != 1;
		few |= p == 1 && q != 1;
	}
	if (late)
		return fit_late(g, d, x, e);
	if (more) { /* all leading axes are among them */
		TRY(ints(g, axes, more, &which, e));
		TRY(emit(g, "ReduceSum", (value_id[]){ *d, which }, 2, drop, d, e));
	}
	for (int i = more; i < n; i++)
		axes[i] -= more;
	if (n > more) {
		TRY(ints(g, axes + more, n - more, &which, e));
		TRY(emit(g, "ReduceSum", (value_id[]){ *d, which }, 2, NULL, d, e));
	}
	if (!few)
		return LINNET_OK;
	TRY(emit(g, "Shape", &x, 1, NULL, &shape, e));
	return emit(g, "Expand", (value_id[]){ *d, shape }, 2, NULL, d, e);
}

/* d is a gradient of v, in addition to what is already known. */
static enum linnet_code add_grad(struct backward *b, value_id v, value_id d)
{
	struct graph *g = b->g;

	if (!d || !v || !b->need[v])
		return LINNET_OK;
	if (g->value[d].type.dt != g->value[v].type.dt) {
		const struct attr to[] = { { .name = "to", .kind = ATTR_INT, .i = g->value[v].type.dt }, { .name = NULL } };

		TRY(emit(g, "Cast", &d, 1, to, &d, b->e));
	}
	TRY(fit(g, &d, v, b->e));
	if (b->grad[v])
		TRY(emit(g, "Add", (value_id[]){ b->grad[v], d }, 2, NULL, &d, b->e));
	b->grad[v] = d;
	return LINNET_OK;
}

/* ---- What matters ---- */

static bool is_control(const struct node *n) { return n->known && n->op->flags & OP_CONTROL; }

/* Whether a gradient may pass from outputs to input i. */
static bool passes_input(const struct graph *g, const struct node *n, uint32_t i)
{
	const struct op_io *io = i < n->nin - n->ncapture ? op_in(n->op, (int)i) : NULL;

	if (!n->in[i] || (!is_real(g, n->in[i]) && g->value[n->in[i]].type.kind == KIND_TENSOR))
		return false;
	return !n->known || !io || io->flow != FLOW_NONE || is_control(n);
}

static enum linnet_code analyse(struct backward *b)
{
	struct graph *g = b->g;
	struct linnet_error *e = b->e;
	bool *need = NEW(b->s, g->nvalue, bool), *reach = NEW(b->s, g->nvalue, bool);

	if (!need || !reach)
		return fail_mem(e);
	memcpy(need, b->need, b->nvalue * sizeof *need);
	memcpy(reach, b->reach, b->nvalue * sizeof *reach);
	TRY(graph_order(g, b->s, &b->order, &b->norder, e));
	for (uint32_t k = 0; k < b->norder; k++) {
		const struct node *n = &g->node[b->order[k]];
		bool some = false;

		for (uint32_t i = 0; i < n->nin; i++)
			some |= passes_input(g, n, i) && need[n->in[i]];
		for (uint32_t i = 0; some && i < n->nout; i++)
			need[n->out[i]] |= is_real(g, n->out[i]) || (n->out[i] && g->value[n->out[i]].type.kind != KIND_TENSOR);
	}
	for (uint32_t k = b->norder; k-- > 0;) {
		const struct node *n = &g->node[b->order[k]];
		bool some = false;

		for (uint32_t i = 0; i < n->nout; i++)
			some |= n->out[i] && reach[n->out[i]] && need[n->out[i]];
		for (uint32_t i = 0; some && i < n->nin; i++)
			reach[n->in[i]] |= passes_input(g, n, i) && need[n->in[i]];
	}
	need[0] = reach[0] = false;
	b->need = need;
	b->reach = reach;
	b->nvalue = g->nvalue;
	return LINNET_OK;
}

/* A gradient has to go through the node. */
static bool on_way(const struct backward *b, const struct node *n)
{
	bool in = false, out = false;

	for (uint32_t i = 0; i < n->nin; i++)
		in |= passes_input(b->g, n, i) && b->need[n->in[i]];
	for (uint32_t i = 0; i < n->nout; i++)
		out |= n->out[i] && b->reach[n->out[i]] && b->need[n->out[i]];
	return in && out;
}

/* ---- Blocks of rows ---- */

/* The row of a node's gradient: see op.h at `grad`. Lists of names, one entry for each of the node's inputs and outputs. */
struct grad_row {
	struct op op;
	struct op_io *in, *out;
	value_id *args, *made;
	bool *wanted;
	uint32_t nin, nout;
};

static const char *io_name(const struct op *op, bool out, uint32_t i, const char *prefix, struct arena *a)
{
	const struct op_io *list = out ? op->out : op->in;
	uint32_t n = 0;

	while (list[n + 1].name && n < i)
		n++;
	if (list[n].flags & VARIADIC)
		return arena_fmt(a, "%s%s_%u", prefix, list[n].name, (unsigned)(i - n));
	return arena_fmt(a, "%s%s", prefix, list[n].name);
}

/* Declared inputs beyond those given are formals too, so that a block may ask for them. */
static uint32_t declared(const struct op_io *io, uint32_t n)
{
	uint32_t count = 0;

	while (io[count].name && !(io[count].flags & VARIADIC))
		count++;
	return n > count ? n : count;
}

static enum linnet_code grad_row(struct backward *b, const struct node *n, struct grad_row *r)
{
	struct linnet_error *e = b->e;
	const struct op *op = n->op;
	uint32_t nin = declared(op->in, n->nin), nout = declared(op->out, n->nout), k = 0;

	r->nin = nin + 2 * nout;
	r->nout = nin;
	TRY_NEW(r->in, b->s, r->nin + 1);
	TRY_NEW(r->out, b->s, r->nout + 1);
	TRY_NEW(r->args, b->s, r->nin);
	TRY_NEW(r->made, b->s, r->nout);
	TRY_NEW(r->wanted, b->s, r->nout);
	for (uint32_t i = 0; i < nin; i++, k++) {
		r->in[k].name = io_name(op, false, i, "", b->s);
		r->out[i].name = io_name(op, false, i, "d_", b->s);
		r->args[k] = i < n->nin ? n->in[i] : 0;
		r->wanted[i] = i < n->nin && passes_input(b->g, n, i) && b->need[n->in[i]];
	}
	for (uint32_t i = 0; i < nout; i++, k++) {
		r->in[k].name = io_name(op, true, i, "", b->s);
		r->args[k] = i < n->nout ? n->out[i] : 0;
	}
	for (uint32_t i = 0; i < nout; i++, k++) {
		r->in[k].name = io_name(op, true, i, "d_", b->s);
		r->args[k] = i < n->nout && n->out[i] ? b->grad[n->out[i]] : 0;
	}
	for (uint32_t i = 0; i < r->nin; i++)
		if (!r->in[i].name || (i < nin && !r->out[i].name))
			return fail_mem(e);
	r->op = *op;
	r->op.in = r->in;
	r->op.out = r->out;
	return LINNET_OK;
}

/* The text of a node's gradient, NULL when it has none of its own. with_grad: by output. */
static enum linnet_code grad_text(const struct backward *b, const struct node *n, const bool *with_grad, const char **text)
{
	struct shape_call c = { .op = n->op, .attr = n->attr, .dims = b->g->dims, .arena = b->s, .wanted = with_grad, .e = b->e };
	struct linnet_error *e = b->e;
	const struct type **in;

	*text = n->known ? n->op->grad : NULL;
	if (*text || !n->known || !n->op->write_grad)
		return LINNET_OK;
	c.nin = (int)n->nin;
	c.nout = (int)n->nout;
	TRY_NEW(in, b->s, n->nin);
	TRY_NEW(c.out, b->s, n->nout);
	for (uint32_t i = 0; i < n->nin; i++)
		in[i] = n->in[i] ? &b->g->value[n->in[i]].type : NULL;
	for (uint32_t i = 0; i < n->nout; i++)
		c.out[i] = b->g->value[n->out[i]].type;
	c.in = in;
	return n->op->write_grad(&c, text);
}

static enum linnet_code through_block(struct backward *b, const struct node *n)
{
	struct linnet_error *e = b->e;
	struct grad_row r = { .nin = 0 };
	const struct node copy = *n; /* the array of nodes may move */
	bool *with_grad;
	const char *text;

	TRY_NEW(with_grad, b->s, copy.nout);
	for (uint32_t i = 0; i < copy.nout; i++)
		with_grad[i] = copy.out[i] && b->grad[copy.out[i]];
	TRY(grad_text(b, &copy, with_grad, &text));
	if (!text)
		return fail(e, LINNET_EUNSUPPORTED, "the operator has no gradient");
	TRY(grad_row(b, &copy, &r));
	struct block_call c = { .op = &r.op, .attr = copy.attr, .nattr = copy.nattr, .in = r.args, .nin = r.nin, .wanted = r.wanted };
	c.out = r.made;
	c.nout = r.nout;
	c.name = arena_fmt(b->g->arena, "grad/%s", node_label(b->g, &copy));
	for (uint32_t i = copy.nout; i-- > 0;)
		if (with_grad[i])
			c.real = b->g->value[copy.out[i]].type.dt;
	TRY(graph_add_block(b->g, text, &c, e));
	for (uint32_t i = 0; i < copy.nin; i++) {
		if (r.wanted[i] && !r.made[i])
			return fail(e, LINNET_EUNSUPPORTED, "the operator has no gradient with respect to input %u, %s", i, r.in[i].name);
		TRY(add_grad(b, copy.in[i], r.made[i]));
	}
	return LINNET_OK;
}

/* ---- Bodies in place of nodes ---- */

/* Whether the node's gradient comes from its row or from this file; if not, from its body. */
static enum linnet_code has_own(struct backward *b, const struct node *n, bool *own)
{
	struct linnet_error *e = b->e;
	bool *with_grad;
	const char *text;

	*own = is_control(n);
	if (*own || !n->known)
		return LINNET_OK;
	TRY_NEW(with_grad, b->s, n->nout);
	for (uint32_t i = 0; i < n->nout; i++)
		with_grad[i] = n->out[i] && b->reach[n->out[i]] && b->need[n->out[i]];
	TRY(grad_text(b, n, with_grad, &text));
	*own = text;
	return LINNET_OK;
}

/* Room for outputs that the node leaves out at the end. */
static enum linnet_code complete_outputs(struct backward *b, node_id id, uint32_t nout)
{
	struct node *n = &b->g->node[id];
	struct linnet_error *e = b->e;
	value_id *list;

	TRY_NEW(list, b->g->arena, nout);
	memcpy(list, n->out, n->nout * sizeof *list);
	n->out = list;
	n->nout = nout;
	return LINNET_OK;
}

/* Outputs that the node leaves out and its gradient needs. */
static enum linnet_code add_outputs(struct backward *b, node_id id)
{
	struct linnet_error *e = b->e;
	struct node *n = &b->g->node[id];
	uint32_t nout = declared(n->op->out, n->nout);

	for (uint32_t i = 0; i < nout; i++) {
		const struct op_io *io = op_out(n->op, (int)i);
		value_id v;

		if ((i < n->nout && n->out[i]) || !io || !(io->flags & FOR_GRAD))
			continue;
		TRY(complete_outputs(b, id, i >= n->nout ? i + 1 : n->nout));
		n = &b->g->node[id];
		v = graph_add_value(b->g, VALUE_NODE, NULL, arena_fmt(b->s, "%s/%s", node_label(b->g, n), io->name));
		if (!v)
			return fail_mem(e);
		n->out[i] = v;
		b->g->value[v].producer = id;
		b->g->value[v].index = i;
		TRY(graph_infer_node(b->g, id, e));
	}
	return LINNET_OK;
}

static enum linnet_code expand(struct backward *b, node_id id)
{
	node_id from = b->g->nnode;
	struct linnet_error *e = b->e;

	TRY(graph_expand(b->g, id, e));
	for (node_id i = from; i < b->g->nnode; i++)
		TRY(graph_infer_node(b->g, i, e));
	return LINNET_OK;
}

static enum linnet_code prepare(struct backward *b)
{
	struct linnet_error *e = b->e;
	bool again = true;

	for (int round = 0; again; round++) {
		again = false;
		TRY(analyse(b));
		for (uint32_t k = 0; k < b->norder; k++) {
			const struct node *n = &b->g->node[b->order[k]];
			const char *name = node_label(b->g, n), *op = n->op->name;
			bool own;

			if (!on_way(b, n))
				continue;
			TRY(err_node(e, has_own(b, n, &own), name, op));
			if (own) {
				TRY(add_outputs(b, b->order[k]));
				continue;
			}
			if (!n->known || !op_has_body(n->op) || round == MAX_ROUNDS)
				return err_node(e, fail(e, LINNET_EUNSUPPORTED, "the operator has no gradient"), name, op);
			TRY(err_node(e, expand(b, b->order[k]), name, op));
			again = true;
		}
	}
	return analyse(b); /* outputs were added */
}

/* ---- Graphs inside ---- */

/* The inputs of a subgraph become these; the last ncapture are captures. */
static enum linnet_code set_inputs(struct graph *g, const value_id *in, uint32_t n, uint32_t ncapture, struct linnet_error *e)
{
	g->in = NULL;
	g->nin = 0;
	for (uint32_t i = 0; i < n; i++) {
		size_t room = 1;

		while (room < n)
			room *= 2;
		if (!i)
			TRY_NEW(g->in, g->arena, room);
		g->in[i] = in[i];
		g->value[in[i]].kind = VALUE_INPUT;
		g->value[in[i]].index = i;
	}
	g->nin = n;
	g->ncapture = ncapture;
	return LINNET_OK;
}

/* A step of a subgraph and its way back. Lists go by the subgraph's inputs (captures too) and outputs. */
struct step {
	struct backward back;
	struct graph *g;        /* a copy of the subgraph, with gradients; its inputs and outputs are for the caller to set */
	value_id *in, *out;     /* of the subgraph */
	value_id *d_out;        /* new formals: gradients of the outputs, 0 where there is none */
	value_id *d_in;         /* gradients of the inputs, 0 where there is none */
	uint32_t nin, nout;
	bool *used;             /* by value, once step_live() has looked: what the outputs depend on */
};

/* with_grad: by output; need: by input. */
static enum linnet_code step_make(struct backward *b, const struct graph *sub, const bool *need, const bool *with_grad, struct step *t)
{
	struct linnet_error *e = b->e;

	TRY(graph_copy(sub, b->g->arena, &t->g, e));
	t->g->outer = b->g;
	t->nin = sub->nin;
	t->nout = sub->nout;
	TRY_NEW(t->in, b->s, t->nin);
	TRY_NEW(t->out, b->s, t->nout);
	TRY_NEW(t->d_in, b->s, t->nin);
	TRY_NEW(t->d_out, b->s, t->nout);
	if (t->nin)
		memcpy(t->in, t->g->in, t->nin * sizeof *t->in);
	if (t->nout)
		memcpy(t->out, t->g->out, t->nout * sizeof *t->out);
	t->back = (struct backward){ .g = t->g, .s = b->s, .e = e };
	for (uint32_t i = 0; i < t->nout; i++) {
		if (!with_grad[i])
			continue;
		t->d_out[i] = graph_add_value(t->g, VALUE_INPUT, NULL, arena_fmt(b->s, "grad/%s", t->g->value[t->out[i]].name));
		if (!t->d_out[i])
			return fail_mem(e);
		t->g->value[t->d_out[i]].type = t->g->value[t->out[i]].type;
		t->g->value[t->d_out[i]].type.value = NULL;
		t->g->value[t->d_out[i]].type.sym = NULL;
	}
	t->back.nvalue = t->g->nvalue;
	TRY_NEW(t->back.need, b->s, t->g->nvalue);
	TRY_NEW(t->back.reach, b->s, t->g->nvalue);
	for (uint32_t i = 0; i < t->nin; i++)
		t->back.need[t->in[i]] = need[i];
	for (uint32_t i = 0; i < t->nout; i++)
		t->back.reach[t->out[i]] |= with_grad[i];
	TRY(prepare(&t->back));
	TRY_NEW(t->back.grad, b->s, t->back.nvalue);
	for (uint32_t i = 0; i < t->nout; i++)
		if (with_grad[i]) {
			t->back.need[t->out[i]] |= is_real(t->g, t->out[i]);
			TRY(add_grad(&t->back, t->out[i], t->d_out[i]));
		}
	TRY(go_back(&t->back));
	for (uint32_t i = 0; i < t->nin; i++)
		t->d_in[i] = need[i] ? t->back.grad[t->in[i]] : 0;
	t->g->nout = 0;
	t->g->out = NULL;
	return LINNET_OK;
}

static enum linnet_code step_output(struct step *t, value_id v, struct linnet_error *e)
{
	if (t->g->value[v].kind != VALUE_NODE)
		TRY(emit(t->g, "Identity", &v, 1, NULL, &v, e));
	return graph_add_output(t->g, v) ? fail_mem(e) : LINNET_OK;
}

static enum linnet_code step_live(struct step *t, struct backward *b)
{
	struct linnet_error *e = b->e;
	node_id *order;
	uint32_t n;

	TRY_NEW(t->used, b->s, t->g->nvalue);
	for (uint32_t i = 0; i < t->g->nout; i++)
		t->used[t->g->out[i]] = true;
	TRY(graph_order(t->g, b->s, &order, &n, e));
	while (n-- > 0) {
		const struct node *x = &t->g->node[order[n]];
		bool some = false;

		for (uint32_t i = 0; i < x->nout; i++)
			some |= x->out[i] && t->used[x->out[i]];
		for (uint32_t i = 0; some && i < x->nin; i++)
			t->used[x->in[i]] = true;
	}
	return LINNET_OK;
}

/* Lists of what a new node takes. */
struct list {
	value_id *v;
	uint32_t n;
};

static void put(struct list *l, value_id v) { l->v[l->n++] = v; }

static enum linnet_code add_control(struct backward *b, const char *op, const struct list *in, uint32_t ncapture, uint32_t nout,
                                    const struct attr *attr, uint32_t nattr, node_id *id)
{
	struct linnet_error *e = b->e;
	const char *name = graph_fresh_name(b->g, arena_fmt(b->s, "grad/%s", op));

	if (!name)
		return fail_mem(e);
	TRY(graph_add_node(b->g, op_newest(NULL, op), name, in->v, in->n, NULL, nout, attr, nattr, id, e));
	b->g->node[*id].from = "grad";
	b->g->node[*id].ncapture = ncapture;
	return graph_infer_node(b->g, *id, e);
}

/* ---- If ---- */

/* A branch that computes the gradients of outer values `of`. */
static enum linnet_code branch_back(struct backward *b, const struct node *n, const struct graph *sub, uint32_t first, const struct list *of,
                                    struct list *captures, struct graph **out)
{
	struct linnet_error *e = b->e;
	struct step t = { .g = NULL };
	struct list in = { .n = 0 };
	bool *need, *with_grad;
	uint32_t ncapture = sub->ncapture;

	TRY_NEW(need, b->s, sub->nin);
	TRY_NEW(with_grad, b->s, sub->nout);
	TRY_NEW(in.v, b->s, sub->nin + sub->nout + of->n);
	for (uint32_t i = 0; i < sub->nin; i++)
		need[i] = b->need[n->in[first + i]] && is_real(b->g, n->in[first + i]);
	for (uint32_t i = 0; i < n->nout; i++)
		with_grad[i] = n->out[i] && b->grad[n->out[i]];
	TRY(step_make(b, sub, need, with_grad, &t));
	for (uint32_t i = 0; i < t.nin; i++) {
		put(&in, t.in[i]);
		put(captures, n->in[first + i]);
	}
	for (uint32_t i = 0; i < n->nout; i++)
		if (with_grad[i]) {
			put(&in, t.d_out[i]);
			put(captures, b->grad[n->out[i]]);
			ncapture++;
		}
	for (uint32_t k = 0; k < of->n; k++) {
		value_id d = 0, like = 0;

		for (uint32_t i = 0; i < t.nin; i++)
			if (n->in[first + i] == of->v[k]) {
				d = t.d_in[i];
				like = t.in[i];
			}
		if (!d && !like) {
			like = graph_add_value(t.g, VALUE_INPUT, NULL, "grad/like");
			if (!like)
				return fail_mem(e);
			t.g->value[like].type = b->g->value[of->v[k]].type;
			put(&in, like);
			put(captures, of->v[k]);
			ncapture++;
		}
		if (!d)
			TRY(filled(t.g, like, 0, &d, e));
		TRY(step_output(&t, d, e));
	}
	*out = t.g;
	return set_inputs(t.g, in.v, in.n, ncapture, e);
}

static enum linnet_code through_if(struct backward *b, const struct node *node)
{
	const struct node n = *node;
	struct linnet_error *e = b->e;
	struct attr attr[2] = { { .name = "then_branch", .kind = ATTR_GRAPH }, { .name = "else_branch", .kind = ATTR_GRAPH } };
	struct list of = { .n = 0 }, in = { .n = 0 };
	node_id id;

	TRY_NEW(of.v, b->s, n.nin);
	for (uint32_t i = 1; i < n.nin; i++) {
		bool known = false;

		for (uint32_t k = 0; k < of.n; k++)
			known |= of.v[k] == n.in[i];
		if (!known && b->need[n.in[i]] && is_real(b->g, n.in[i]))
			put(&of, n.in[i]);
	}
	TRY_NEW(in.v, b->s, 1 + n.nin + 2 * (n.nout + of.n));
	put(&in, n.in[0]);
	for (uint32_t k = 0, first = 1; k < n.nattr; k++) {
		struct graph *made;

		TRY(branch_back(b, &n, n.attr[k].g, first, &of, &in, &made));
		attr[!!strcmp(n.attr[k].name, "then_branch")].g = made;
		first += n.attr[k].g->ncapture;
	}
	if (strcmp(n.op->attr[0].name, "then_branch"))
		return fail(e, LINNET_EINTERNAL, "captures are not in the order of attributes");
	TRY(add_control(b, "If", &in, in.n - 1, of.n, attr, 2, &id));
	for (uint32_t k = 0; k < of.n; k++)
		TRY(add_grad(b, of.v[k], b->g->node[id].out[k]));
	return LINNET_OK;
}

/* ---- Scan and Loop ---- */

/* Both as one: `nlead` formals before the states, and outputs before theirs (Loop's number and condition); then states, then scanned ones. */
struct turns {
	uint32_t in_lead, out_lead, nstate, nscan_in, nscan_out, ncapture;
	value_id *in;     /* of the node: initial states, scanned inputs, captures */
	const struct attr *in_axes, *in_ways, *out_axes, *out_ways; /* of Scan */
};

static int64_t member(const struct attr *a, uint32_t i) { return a && a->kind == ATTR_INTS && i < a->n ? a->ints[i] : 0; }

/* The node's subgraph gives out one more value of each step, stacked; *out: the stack. */
static enum linnet_code keep(struct backward *b, node_id id, struct graph *sub, value_id v, value_id *out)
{
	struct linnet_error *e = b->e;
	struct node *n;
	value_id copy, *list;

	TRY(emit(sub, "Identity", &v, 1, NULL, &copy, e));
	if (graph_add_output(sub, copy))
		return fail_mem(e);
	*out = graph_add_value(b->g, VALUE_NODE, NULL, arena_fmt(b->s, "grad/%s", sub->value[v].name));
	if (!*out)
		return fail_mem(e);
	n = &b->g->node[id];
	TRY_NEW(list, b->g->arena, n->nout + 1);
	memcpy(list, n->out, n->nout * sizeof *list);
	b->g->value[*out].producer = id;
	b->g->value[*out].index = n->nout;
	list[n->nout++] = *out;
	n->out = list;
	for (uint32_t i = 0; i < n->nattr; i++) {
		struct attr *a = &n->attr[i];
		int64_t *grown;

		if ((strcmp(a->name, "scan_output_axes") && strcmp(a->name, "scan_output_directions")) || a->kind != ATTR_INTS)
			continue;
		TRY_NEW(grown, b->g->arena, a->n + 1);
		memcpy(grown, a->ints, a->n * sizeof *grown);
		a->ints = grown;
		a->n++;
	}
	return LINNET_OK;
}

static enum linnet_code through_turns(struct backward *b, node_id id, struct graph *sub, const struct turns *w)
{
	struct linnet_error *e = b->e;
	uint32_t nformal = sub->nin - sub->ncapture, ns = w->nstate, total;
	struct list formal = { .n = 0 }, arg = { .n = 0 };
	int64_t *in_axes, *in_ways, *out_axes, *out_ways;
	uint32_t nin = 0, nout = 0, nstate = 0;
	bool *need, *with_grad;
	value_id *acc, *to, *final;
	struct step t = { .g = NULL };
	node_id made;

	TRY(complete_outputs(b, id, ns + w->nscan_out));
	total = sub->nin * 3 + sub->nout * 2 + 4;
	TRY_NEW(need, b->s, sub->nin);
	TRY_NEW(with_grad, b->s, sub->nout);
	TRY_NEW(formal.v, b->s, total);
	TRY_NEW(arg.v, b->s, total);
	TRY_NEW(acc, b->s, sub->nin);
	TRY_NEW(to, b->s, total);
	TRY_NEW(final, b->s, ns + 1);
	TRY_NEW(in_axes, b->s, total);
	TRY_NEW(in_ways, b->s, total);
	TRY_NEW(out_axes, b->s, total);
	TRY_NEW(out_ways, b->s, total);
	for (uint32_t i = 0; i < sub->nin; i++) {
		bool state = i >= w->in_lead && i < w->in_lead + ns;

		if (i >= w->in_lead)
			need[i] = is_real(b->g, w->in[i - w->in_lead]) && (state || b->need[w->in[i - w->in_lead]]);
	}
	for (uint32_t i = 0; i < ns + w->nscan_out; i++) {
		value_id v = b->g->node[id].out[i];

		with_grad[w->out_lead + i] = i < ns ? need[w->in_lead + i] : v && b->grad[v];
	}
	TRY(step_make(b, sub, need, with_grad, &t));

	/* States: gradients of the carried values, and sums for what is captured. */
	for (uint32_t i = 0; i < ns; i++) {
		value_id v = b->g->node[id].out[i], d;

		if (!with_grad[w->out_lead + i])
			continue;
		final[i] = v ? b->grad[v] : 0;
		if (!final[i])
			TRY(filled(b->g, w->in[i], 0, &final[i], e));
		d = t.d_in[w->in_lead + i];
		if (!d)
			TRY(filled(t.g, t.in[w->in_lead + i], 0, &d, e));
		put(&formal, t.d_out[w->out_lead + i]);
		put(&arg, final[i]);
		to[nstate++] = w->in[i];
		TRY(step_output(&t, d, e));
	}
	for (uint32_t i = nformal; i < t.nin; i++) {
		value_id v = w->in[i - w->in_lead], sum, start;

		if (!t.d_in[i])
			continue;
		acc[i] = graph_add_value(t.g, VALUE_INPUT, NULL, "grad/sum");
		if (!acc[i])
			return fail_mem(e);
		t.g->value[acc[i]].type = t.g->value[t.d_in[i]].type;
		t.g->value[acc[i]].type.value = NULL;
		t.g->value[acc[i]].type.sym = NULL;
		TRY(emit(t.g, "Add", (value_id[]){ acc[i], t.d_in[i] }, 2, NULL, &sum, e));
		TRY(filled(b->g, v, 0, &start, e));
		put(&formal, acc[i]);
		put(&arg, start);
		to[nstate++] = v;
		TRY(step_output(&t, sum, e));
	}
	nout = nstate;
	for (uint32_t i = w->in_lead + ns; i < nformal; i++) {
		uint32_t k = i - w->in_lead - ns;

		if (!t.d_in[i])
			continue;
		to[nout] = w->in[i - w->in_lead];
		out_axes[nout - nstate] = member(w->in_axes, k);
		out_ways[nout - nstate] = !member(w->in_ways, k);
		nout++;
		TRY(step_output(&t, t.d_in[i], e));
	}
	if (!nout)
		return LINNET_OK;

	/* Scanned inputs: what the step began with, from the last one to the first. */
	TRY(step_live(&t, b));
	for (uint32_t i = 0; i < nformal; i++) {
		bool scanned = i >= w->in_lead + ns;
		value_id kept;

		if (i == 1 && w->in_lead == 2) { /* every step that was made had the condition */
			struct tensor *yes;

			TRY(tensor_new(t.g->arena, DT_BOOL, 0, NULL, &yes, e));
			tensor_put_int(yes, 0, 1);
			t.g->value[t.in[i]].kind = VALUE_CONST;
			t.g->value[t.in[i]].type = (struct type){ .dt = DT_BOOL, .shape = shape_of(yes), .value = yes };
			continue;
		}
		if (!t.used[t.in[i]] && !(i == 0 && w->in_lead == 2))
			continue;
		if (scanned)
			kept = w->in[i - w->in_lead];
		else
			TRY(keep(b, id, sub, sub->in[i], &kept));
		in_axes[nin] = scanned ? member(w->in_axes, i - w->in_lead - ns) : 0;
		in_ways[nin++] = scanned ? !member(w->in_ways, i - w->in_lead - ns) : 1;
		put(&formal, t.in[i]);
		put(&arg, kept);
	}
	for (uint32_t k = 0; k < w->nscan_out; k++) {
		if (!t.d_out[w->out_lead + ns + k])
			continue;
		in_axes[nin] = member(w->out_axes, k);
		in_ways[nin++] = !member(w->out_ways, k);
		put(&formal, t.d_out[w->out_lead + ns + k]);
		put(&arg, b->grad[b->g->node[id].out[ns + k]]);
	}
	if (!nin) { /* nothing tells how many steps there were but the first of the scanned inputs */
		value_id count = graph_add_value(t.g, VALUE_INPUT, NULL, "grad/count");

		if (!count)
			return fail_mem(e);
		t.g->value[count].type = t.g->value[t.in[w->in_lead + ns]].type;
		in_axes[nin] = member(w->in_axes, 0);
		in_ways[nin++] = 0;
		put(&formal, count);
		put(&arg, w->in[ns]);
	}
	TRY(graph_infer_node(b->g, id, e));
	for (uint32_t i = nformal; i < t.nin; i++) {
		put(&formal, t.in[i]);
		put(&arg, w->in[i - w->in_lead]);
	}
	TRY(set_inputs(t.g, formal.v, formal.n, sub->ncapture, e));
	struct attr attr[6] = { { .name = "body", .kind = ATTR_GRAPH, .g = t.g }, { .name = "num_scan_inputs", .kind = ATTR_INT, .i = nin } };
	uint32_t nattr = 4;

	attr[2] = attr_ints("scan_input_axes", in_axes, nin);
	attr[3] = attr_ints("scan_input_directions", in_ways, nin);
	if (nout > nstate) {
		attr[nattr++] = attr_ints("scan_output_axes", out_axes, nout - nstate);
		attr[nattr++] = attr_ints("scan_output_directions", out_ways, nout - nstate);
	}
	for (uint32_t i = 2; i < nattr; i++) {
		attr[i].ints = arena_dup(b->g->arena, attr[i].ints, attr[i].n * sizeof *attr[i].ints);
		if (!attr[i].ints)
			return fail_mem(e);
	}
	TRY(add_control(b, "Scan", &arg, sub->ncapture, nout, attr, nattr, &made));
	for (uint32_t i = 0; i < nout; i++)
		TRY(add_grad(b, to[i], b->g->node[made].out[i]));
	return LINNET_OK;
}

static enum linnet_code through_scan(struct backward *b, node_id id)
{
	const struct node n = b->g->node[id];
	struct graph *sub = node_attr(&n, "body")->g;
	struct turns w = { .in = n.in, .ncapture = n.ncapture, .nscan_in = (uint32_t)node_attr(&n, "num_scan_inputs")->i };

	w.nstate = n.nin - n.ncapture - w.nscan_in;
	w.nscan_out = sub->nout - w.nstate;
	w.in_axes = node_attr(&n, "scan_input_axes");
	w.in_ways = node_attr(&n, "scan_input_directions");
	w.out_axes = node_attr(&n, "scan_output_axes");
	w.out_ways = node_attr(&n, "scan_output_directions");
	return through_turns(b, id, sub, &w);
}

static enum linnet_code through_loop(struct backward *b, node_id id)
{
	const struct node n = b->g->node[id];
	struct graph *sub = node_attr(&n, "body")->g;
	struct turns w = { .in_lead = 2, .out_lead = 1, .in = n.in + 2, .ncapture = n.ncapture };

	if (n.nin < 2)
		return fail(b->e, LINNET_EINTERNAL, "a Loop without its first inputs");
	w.nstate = n.nin - n.ncapture - 2;
	w.nscan_out = sub->nout - 1 - w.nstate;
	for (uint32_t i = 0; i < w.nstate; i++)
		if (b->g->value[w.in[i]].type.kind != KIND_TENSOR)
			return fail(b->e, LINNET_EUNSUPPORTED, "the gradient of a loop that carries no tensors alone");
	return through_turns(b, id, sub, &w);
}

/* ---- All nodes ---- */

static enum linnet_code through_node(struct backward *b, node_id id)
{
	const struct node *n = &b->g->node[id];

	if (node_is(n, "If"))
		return through_if(b, n);
	if (node_is(n, "Scan"))
		return through_scan(b, id);
	if (node_is(n, "Loop"))
		return through_loop(b, id);
	return through_block(b, n);
}

static enum linnet_code go_back(struct backward *b)
{
	for (uint32_t k = b->norder; k-- > 0;) {
		node_id id = b->order[k];
		const struct node *n = &b->g->node[id];
		const char *name = node_label(b->g, n), *op = n->op->name;
		bool some = false;

		for (uint32_t i = 0; i < n->nout; i++)
			some |= n->out[i] && b->grad[n->out[i]];
		if (some && on_way(b, n))
			TRY(err_node(b->e, through_node(b, id), name, op));
	}
	return LINNET_OK;
}

/* ---- The whole graph ---- */

static enum linnet_code grad_all(struct backward *b, value_id of, const value_id *wrt, uint32_t n, value_id *out)
{
	struct linnet_error *e = b->e;
	bool freed = false;
	value_id one;

	for (uint32_t i = 0; i < n; i++) {
		if (b->g->value[wrt[i]].kind != VALUE_CONST)
			continue;
		freed = true;
		if (graph_free_const(b->g, wrt[i]))
			return fail_mem(e);
	}
	if (freed)
		TRY(graph_infer(b->g, e));
	if (!is_real(b->g, of))
		return fail(e, LINNET_ETYPE, "\"%s\" has no gradient: it is no tensor of floats", b->g->value[of].name);
	b->nvalue = b->g->nvalue;
	TRY_NEW(b->need, b->s, b->nvalue);
	TRY_NEW(b->reach, b->s, b->nvalue);
	for (uint32_t i = 0; i < n; i++) {
		if (!is_real(b->g, wrt[i]))
			return fail(e, LINNET_ETYPE, "there is no gradient with respect to \"%s\": it is no tensor of floats", b->g->value[wrt[i]].name);
		b->need[wrt[i]] = true;
	}
	b->reach[of] = true;
	TRY(prepare(b));
	TRY_NEW(b->grad, b->s, b->nvalue);
	if (b->need[of]) {
		TRY(filled(b->g, of, 1, &one, e));
		b->grad[of] = one;
	}
	TRY(go_back(b));
	for (uint32_t i = 0; i < n; i++)
		out[i] = b->grad[wrt[i]];
	return LINNET_OK;
}

enum linnet_code graph_grad(struct graph *g, value_id of, const value_id *wrt, uint32_t n, value_id *out, struct linnet_error *e)
{
	struct backward b = { .g = g, .s = arena_new(), .e = e };
	enum linnet_code code = b.s ? grad_all(&b, of, wrt, n, out) : fail_mem(e);

	arena_free(b.s);
	return code;
}

/* ---- Gradient nodes ---- */

static enum linnet_code find_named(const struct graph *g, struct text name, value_id *v, struct linnet_error *e)
{
	for (*v = 1; *v < g->nvalue; ++*v)
		if (strlen(g->value[*v].name) == name.n && !memcmp(g->value[*v].name, name.p, name.n))
			return LINNET_OK;
	return fail(e, LINNET_EMODEL, "there is no value \"%.*s\"", (int)name.n, name.p);
}

/* The node once more, on other inputs. */
static enum linnet_code repeat(struct graph *g, node_id id, value_id *by, struct arena *s, struct linnet_error *e)
{
	const struct node n = g->node[id];
	const char *name = graph_fresh_name(g, node_label(g, &n));
	struct attr *attr;
	uint32_t nattr = 0;
	value_id *in;
	node_id made;

	if (!name)
		return fail_mem(e);
	TRY_NEW(in, s, n.nin);
	TRY_NEW(attr, s, n.nattr);
	for (uint32_t i = 0; i < n.nin; i++)
		in[i] = by[n.in[i]] ? by[n.in[i]] : n.in[i];
	for (uint32_t i = 0; i < n.nattr; i++) {
		if (!n.attr[i].given)
			continue;
		attr[nattr] = n.attr[i];
		if (attr[nattr].kind == ATTR_GRAPH) {
			TRY(graph_copy(n.attr[i].g, g->arena, &attr[nattr].g, e));
			attr[nattr].g->outer = g;
		}
		nattr++;
	}
	TRY(graph_add_node(g, n.op, name, in, n.nin, NULL, n.nout, attr, nattr, &made, e));
	g->node[made].known = n.known;
	g->node[made].ncapture = n.ncapture;
	for (uint32_t i = 0; i < n.nout; i++)
		if (n.out[i])
			by[n.out[i]] = g->node[made].out[i];
	return graph_infer_node(g, made, e);
}

/* Everything that y depends on and that depends on a value with a substitute gets one. */
static enum linnet_code substitute(struct graph *g, value_id y, value_id *by, struct arena *s, struct linnet_error *e)
{
	bool *reach;
	node_id *order;
	uint32_t n;

	TRY_NEW(reach, s, g->nvalue);
	TRY(graph_order(g, s, &order, &n, e));
	reach[y] = true;
	for (uint32_t k = n; k-- > 0;) {
		const struct node *x = &g->node[order[k]];
		bool some = false;

		for (uint32_t i = 0; i < x->nout; i++)
			some |= x->out[i] && reach[x->out[i]] && !by[x->out[i]];
		for (uint32_t i = 0; some && i < x->nin; i++)
			reach[x->in[i]] = true;
	}
	for (uint32_t k = 0; k < n; k++) {
		const struct node *x = &g->node[order[k]];
		bool out = false, in = false;

		for (uint32_t i = 0; i < x->nout; i++)
			out |= x->out[i] && reach[x->out[i]] && !by[x->out[i]];
		for (uint32_t i = 0; i < x->nin; i++)
			in |= by[x->in[i]] != 0;
		if (out && in)
			TRY(repeat(g, order[k], by, s, e));
	}
	return LINNET_OK;
}

static enum linnet_code grad_node(struct graph *g, node_id id, struct arena *s, struct linnet_error *e)
{
	const struct node n = g->node[id];
	const struct attr *xs = node_attr(&n, "xs"), *zs = node_attr(&n, "zs"), *y = node_attr(&n, "y");
	uint32_t nx = (uint32_t)xs->n, nz = attr_given(zs) ? (uint32_t)zs->n : 0, room = g->nvalue;
	value_id *by, *wrt, *grad, target;

	if (n.nin != nx + nz || n.nout > nx)
		return fail(e, LINNET_EMODEL, "%u inputs and %u outputs given; %u values are named in xs and %u in zs", n.nin, n.nout, nx, nz);
	TRY_NEW(by, s, room + n.nin);
	TRY_NEW(wrt, s, nx);
	TRY_NEW(grad, s, nx);
	for (uint32_t i = 0; i < n.nin; i++) {
		value_id v;

		TRY(find_named(g, i < nx ? xs->strings[i] : zs->strings[i - nx], &v, e));
		if (v >= room)
			return fail(e, LINNET_EMODEL, "\"%s\" is named twice", g->value[v].name);
		TRY(emit(g, "Identity", &n.in[i], 1, NULL, &by[v], e));
		if (i < nx)
			wrt[i] = by[v];
	}
	TRY(find_named(g, y->s, &target, e));
	{
		value_id *more;

		TRY_NEW(more, s, g->nvalue);
		memcpy(more, by, room * sizeof *more);
		by = more;
	}
	TRY(substitute(g, target, by, s, e));
	if (by[target])
		TRY(graph_grad(g, by[target], wrt, nx, grad, e));
	for (uint32_t i = 0; i < n.nout; i++) {
		if (!n.out[i])
			continue;
		if (!grad[i])
			TRY(filled(g, wrt[i], 0, &grad[i], e));
		TRY(graph_add_node(g, op_newest(NULL, "Identity"), graph_fresh_name(g, node_label(g, &n)), &grad[i], 1, &n.out[i], 1, NULL, 0, NULL, e));
	}
	g->node[id].dead = true;
	return LINNET_OK;
}

enum linnet_code graph_grad_nodes(struct graph *g, bool *changed, struct linnet_error *e)
{
	bool again = true;

	*changed = false;
	while (again) { /* the first in order, as later ones may differentiate its result */
		struct arena *s = arena_new();
		enum linnet_code code;
		node_id *order;
		uint32_t n = 0;

		if (!s)
			return fail_mem(e);
		again = false;
		code = graph_order(g, s, &order, &n, e);
		for (uint32_t k = 0; !code && !again && k < n; k++) {
			const struct node *x = &g->node[order[k]];

			if (!x->known || !x->op->domain || strcmp(x->op->domain, "ai.onnx.preview.training") || strcmp(x->op->name, "Gradient"))
				continue;
			const char *name = node_label(g, x);

			code = err_node(e, grad_node(g, order[k], s, e), name, "Gradient");
			again = *changed = true;
			if (!code)
				code = graph_infer(g, e);
		}
		arena_free(s);
		TRY(code);
	}
	return LINNET_OK;
}

/* ---- Computing again ---- */

struct segments {
	struct graph *g;
	struct arena *s;
	struct linnet_error *e;
	node_id *forward;    /* in order */
	uint32_t n;
	uint32_t *at;        /* by node: place in `forward` from 1 on, 0 for the others */
	uint32_t *last;      /* by value: place of the last forward node that reads it */
	bool *kept;          /* by value */
	value_id *by;        /* by value: its second computation */
};

/* Bytes of a value, with a guess at lengths that are not known. */
static double bytes_of(const struct graph *g, value_id v)
{
	const struct type *t = &g->value[v].type;
	double n = dtype_bits(t->dt) / 8.0;

	for (int i = 0; i < t->shape.rank; i++)
		n *= dim_is_int(t->shape.d[i]) ? (double)t->shape.d[i] : 64;
	return n;
}

static enum linnet_code find_forward(struct segments *x, value_id loss)
{
	struct linnet_error *e = x->e;
	struct graph *g = x->g;
	bool *reach;
	node_id *order;
	uint32_t n;

	TRY_NEW(reach, x->s, g->nvalue);
	TRY_NEW(x->at, x->s, g->nnode);
	TRY_NEW(x->last, x->s, g->nvalue);
	TRY_NEW(x->kept, x->s, g->nvalue);
	TRY_NEW(x->by, x->s, g->nvalue);
	TRY(graph_order(g, x->s, &order, &n, e));
	TRY_NEW(x->forward, x->s, n);
	reach[loss] = true;
	for (uint32_t k = n; k-- > 0;) {
		const struct node *node = &g->node[order[k]];
		bool some = false;

		for (uint32_t i = 0; i < node->nout; i++)
			some |= node->out[i] && reach[node->out[i]];
		for (uint32_t i = 0; some && i < node->nin; i++)
			reach[node->in[i]] = true;
		x->at[order[k]] = some;
	}
	for (uint32_t k = 0; k < n; k++) {
		const struct node *node = &g->node[order[k]];

		if (!x->at[order[k]])
			continue;
		x->forward[x->n++] = order[k];
		x->at[order[k]] = x->n;
		for (uint32_t i = 0; i < node->nin; i++)
			x->last[node->in[i]] = x->n;
	}
	return LINNET_OK;
}

/* Place of the value's node in the forward order; 0 for inputs, constants and what comes later. */
static uint32_t place(const struct segments *x, value_id v)
{
	const struct value *value = &x->g->value[v];

	return v && value->kind == VALUE_NODE ? x->at[value->producer] : 0;
}

/* What a cut behind place `cut` keeps. */
static double crossing(const struct segments *x, uint32_t cut, bool keep)
{
	double bytes = 0;

	for (uint32_t k = 0; k < cut; k++) {
		const struct node *node = &x->g->node[x->forward[k]];

		for (uint32_t i = 0; i < node->nout; i++)
			if (node->out[i] && x->last[node->out[i]] > cut) {
				bytes += bytes_of(x->g, node->out[i]);
				x->kept[node->out[i]] |= keep;
			}
	}
	return bytes;
}

/* Cuts near equal distances, where least crosses; what is not worth computing again, or would come out different, is kept. */
static void cut(struct segments *x, int segments)
{
	uint32_t reach = x->n / (uint32_t)(3 * segments), last = 0;

	for (int k = 1; k < segments; k++) {
		uint32_t middle = (uint32_t)((uint64_t)x->n * (uint64_t)k / (uint64_t)segments), best = middle;
		double least = -1;

		for (uint32_t c = middle > reach ? middle - reach : 1; c <= middle + reach && c < x->n; c++) {
			double bytes = crossing(x, c, false);

			if (least < 0 || bytes < least) {
				least = bytes;
				best = c;
			}
		}
		crossing(x, best, true);
		last = best > last ? best : last;
	}
	for (uint32_t k = 0; k < x->n; k++) {
		const struct node *node = &x->g->node[x->forward[k]];
		bool random = !node->known || node->op->agree == AGREE_RANDOM || node_is(node, "Dropout") || node->ncapture;

		for (uint32_t i = 0; i < node->nout; i++)
			if (node->out[i] && (k + 1 > last || random || !is_real(x->g, node->out[i])))
				x->kept[node->out[i]] = true;
	}
}

/* The value's node once more, and before it those it needs. */
static enum linnet_code again(struct segments *x, value_id v)
{
	struct linnet_error *e = x->e;
	value_id *stack;
	uint32_t n = 0;

	TRY_NEW(stack, x->s, x->n + 1);
	stack[n++] = v;
	while (n) {
		const struct node *node = &x->g->node[x->g->value[stack[n - 1]].producer];
		bool ready = true;

		if (x->by[stack[n - 1]]) {
			n--;
			continue;
		}
		for (uint32_t i = 0; i < node->nin && ready; i++) {
			value_id in = node->in[i];

			if (!place(x, in) || x->kept[in] || x->by[in])
				continue;
			ready = false;
			if (n > x->n)
				return fail(e, LINNET_EINTERNAL, "more nodes to compute again than there are");
			stack[n++] = in;
		}
		if (ready)
			TRY(repeat(x->g, x->g->value[stack[--n]].producer, x->by, x->s, e));
	}
	return LINNET_OK;
}

static enum linnet_code recompute(struct segments *x, value_id loss, int segments)
{
	node_id end = x->g->nnode;

	TRY(find_forward(x, loss));
	if (segments < 2 || x->n < 2 * (uint32_t)segments)
		return LINNET_OK;
	cut(x, segments);
	for (uint32_t i = 0; i < x->g->nout; i++)
		x->kept[x->g->out[i]] = true;
	for (node_id id = 1; id < end; id++) {
		if (x->g->node[id].dead || x->at[id])
			continue;
		for (uint32_t i = 0; i < x->g->node[id].nin; i++) {
			value_id v = x->g->node[id].in[i];

			if (!place(x, v) || x->kept[v])
				continue;
			TRY(again(x, v));
			x->g->node[id].in[i] = x->by[v];
		}
	}
	return LINNET_OK;
}

enum linnet_code graph_recompute(struct graph *g, value_id loss, int segments, struct linnet_error *e)
{
	struct segments x = { .g = g, .s = arena_new(), .e = e };
	enum linnet_code code = x.s ? recompute(&x, loss, segments) : fail_mem(e);

	arena_free(x.s);
	return code;
}
