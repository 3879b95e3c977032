/* Computing a part of a graph in double precision. */
#include "graph/probe.h"

#include <string.h>

#include "graph/pass.h"

#include "ops/kernel.h"

enum { MAX_STEPS = 4096, MAX_DEPTH = 4 };
static const int64_t max_elements = 1 << 23; /* of one value */
static const double max_work = 2e8;           /* products and sums of a run */

static dim length_of_symbol(void *ctx, const char *name)
{
	const struct probe *p = ctx;

	return p->tokens && !strcmp(name, p->tokens) ? p->length : 2;
}

dim probe_length(const struct probe *p, dim d)
{
	return dim_is_int(d) ? d : dim_eval(p->g->dims, d, length_of_symbol, (void *)(uintptr_t)p);
}

static bool whole_shape(const struct probe *p, value_id v, int64_t *d)
{
	const struct shape *s = &p->g->value[v].type.shape;

	for (int i = 0; i < s->rank; i++) {
		d[i] = probe_length(p, s->d[i]);
		if (!dim_is_int(d[i]) || d[i] < 0)
			return false;
	}
	return s->rank >= 0;
}

bool probe_shape(const struct probe *p, value_id v, int64_t *d)
{
	if (!whole_shape(p, v, d))
		return false;
	for (int i = 0; i < p->g->value[v].type.shape.rank; i++)
		d[i] = narrow_cut(p->narrow, v, i) ? narrow_cut(p->narrow, v, i) : d[i];
	return true;
}

static bool small(const struct probe *p, value_id v)
{
	int64_t d[MAX_RANK], n = 1;
	int rank = p->g->value[v].type.shape.rank;

	if (!probe_shape(p, v, d))
		return true; /* found out by computing it */
	for (int i = 0; i < rank; i++)
		n = d[i] && n > max_elements / d[i] ? max_elements + 1 : n * d[i];
	return n <= max_elements;
}

/* Numbers as doubles. */
static enum linnet_code number_of(const struct tensor *t, struct arena *a, const struct tensor **out, struct linnet_error *e)
{
	struct tensor *x;

	*out = t;
	if (t->dt == DT_DOUBLE)
		return LINNET_OK;
	TRY(tensor_new(a, DT_DOUBLE, t->rank, t->d, &x, e));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(x, i, tensor_get(t, i));
	*out = x;
	return LINNET_OK;
}

static enum linnet_code as_double(const struct tensor *t, struct arena *a, const struct tensor **out, struct linnet_error *e)
{
	if (t->kind == KIND_TENSOR && dtype_class(t->dt) == CLASS_FLOAT)
		return number_of(t, a, out, e);
	*out = t;
	return LINNET_OK;
}

static enum linnet_code run_part(struct probe *p, int depth, bool *can, struct linnet_error *e);

/* Slice i of t along an axis, without it. */
static enum linnet_code slice(const struct tensor *t, int axis, int64_t at, struct arena *a, const struct tensor **out, struct linnet_error *e)
{
	int64_t d[MAX_RANK], outer = 1, inner = 1;
	struct tensor *x;
	int rank = 0;

	for (int i = 0; i < t->rank; i++) {
		if (i == axis)
			continue;
		d[rank++] = t->d[i];
		*(i < axis ? &outer : &inner) *= t->d[i];
	}
	TRY(tensor_new(a, t->dt, rank, d, &x, e));
	for (int64_t i = 0; i < outer; i++)
		for (int64_t j = 0; j < inner; j++)
			element_copy(x, i * inner + j, t, (i * t->d[axis] + at) * inner + j);
	*out = x;
	return LINNET_OK;
}

/* n parts of one shape along a new axis; NULL where they are not. */
static enum linnet_code stack(const struct tensor *const *part, int64_t n, int axis, struct arena *a, const struct tensor **out, struct linnet_error *e)
{
	int64_t d[MAX_RANK], outer = 1, inner = 1;
	struct tensor *x;

	*out = NULL;
	if (!n || part[0]->rank >= MAX_RANK || axis > part[0]->rank)
		return LINNET_OK;
	for (int i = 0; i < part[0]->rank; i++) {
		d[i < axis ? i : i + 1] = part[0]->d[i];
		*(i < axis ? &outer : &inner) *= part[0]->d[i];
	}
	d[axis] = n;
	TRY(tensor_new(a, part[0]->dt, part[0]->rank + 1, d, &x, e));
	for (int64_t k = 0; k < n; k++) {
		if (part[k]->n != part[0]->n || part[k]->dt != part[0]->dt)
			return LINNET_OK;
		for (int64_t i = 0; i < outer; i++)
			for (int64_t j = 0; j < inner; j++)
				element_copy(x, (i * n + k) * inner + j, part[k], i * inner + j);
	}
	*out = x;
	return LINNET_OK;
}

/* ---- Loop and Scan: both carry states; a loop counts and asks, a scan hands out slices and has no condition ---- */

static int axis_attr(const struct node *n, const char *name, uint32_t i, int rank)
{
	const struct attr *a = node_attr(n, name);
	int64_t x = a && i < a->n ? a->ints[i] : 0;

	return (int)(x < 0 ? x + rank : x);
}

static bool backwards(const struct node *n, const char *name, uint32_t i)
{
	const struct attr *a = node_attr(n, name);

	return a && i < a->n && a->ints[i];
}

struct control {
	const struct node *n;
	const struct tensor *const *in;
	bool loop;
	uint32_t nstate, nscan, nout; /* nout: stacked outputs */
	int64_t steps;
	const struct tensor **state, ***part;
};

static enum linnet_code begin(struct probe *p, struct probe *inner, struct control *c, bool *can, struct linnet_error *e)
{
	const struct node *n = c->n;
	const struct graph *body = node_attr(n, "body")->g;
	uint32_t formal = n->nin - n->ncapture, lead = c->loop ? 2 : 0, held = c->loop ? 1 : 0;
	node_id *order;

	*can = false;
	c->nscan = c->loop ? 0 : (uint32_t)node_attr(n, "num_scan_inputs")->i;
	if (!body || formal < c->nscan + lead || body->nout < held || body->nin < n->nin)
		return LINNET_OK;
	c->nstate = formal - lead - c->nscan;
	if (body->nout < held + c->nstate)
		return LINNET_OK;
	c->nout = body->nout - held - c->nstate;
	c->steps = -1;
	if (c->loop && n->in[0])
		c->steps = tensor_get_int(c->in[0], 0);
	for (uint32_t i = 0; i < c->nscan; i++) {
		const struct tensor *t = c->in[c->nstate + i];
		int axis = axis_attr(n, "scan_input_axes", i, t->rank);

		if (axis < 0 || axis >= t->rank || (i && t->d[axis] != c->steps))
			return LINNET_OK;
		c->steps = t->d[axis];
	}
	if (c->steps < 0 || c->steps > MAX_STEPS)
		return LINNET_OK;
	*inner = (struct probe){ .g = body, .a = p->a, .tokens = p->tokens, .length = p->length, .narrow = p->narrow ? p->narrow->inner[n - p->g->node] : NULL };
	TRY(graph_order(body, p->a, &order, &inner->norder, e));
	inner->order = order;
	TRY_NEW(inner->value, p->a, body->nvalue);
	TRY_NEW(c->state, p->a, c->nstate + 1);
	TRY_NEW(c->part, p->a, c->nout + 1);
	for (uint32_t k = 0; k < c->nout; k++)
		TRY_NEW(c->part[k], p->a, (size_t)c->steps + 1);
	for (uint32_t i = 0; i < c->nstate; i++)
		c->state[i] = c->in[lead + i];
	*can = true;
	return LINNET_OK;
}

static enum linnet_code step(struct probe *p, struct probe *inner, struct control *c, int64_t t, int depth, bool *can, struct linnet_error *e)
{
	const struct graph *body = inner->g;
	const struct node *n = c->n;
	uint32_t lead = c->loop ? 2 : 0, held = c->loop ? 1 : 0;

	memset(inner->value, 0, body->nvalue * sizeof *inner->value);
	for (uint32_t i = 0; i < c->nstate; i++)
		inner->value[body->in[lead + i]] = c->state[i];
	for (uint32_t i = 0; i < n->ncapture; i++)
		inner->value[body->in[body->nin - n->ncapture + i]] = c->in[n->nin - n->ncapture + i];
	for (uint32_t i = 0; i < c->nscan; i++) {
		const struct tensor *x = c->in[c->nstate + i];

		TRY(slice(x, axis_attr(n, "scan_input_axes", i, x->rank), backwards(n, "scan_input_directions", i) ? c->steps - 1 - t : t, p->a,
		          &inner->value[body->in[c->nstate + i]], e));
	}
	if (c->loop) {
		struct tensor *x;

		TRY(tensor_new(p->a, DT_INT64, 0, NULL, &x, e));
		tensor_put_int(x, 0, t);
		inner->value[body->in[0]] = x;
		TRY(tensor_new(p->a, DT_BOOL, 0, NULL, &x, e));
		tensor_put_int(x, 0, 1);
		inner->value[body->in[1]] = x;
	}
	inner->work = p->work;
	TRY(run_part(inner, depth + 1, can, e));
	p->work = inner->work;
	for (uint32_t i = 0; i < body->nout && *can; i++)
		*can = inner->value[body->out[i]] != NULL;
	if (!*can)
		return LINNET_OK;
	if (c->loop && !tensor_get_int(inner->value[body->out[0]], 0) && t + 1 < c->steps)
		*can = false; /* ends early */
	for (uint32_t i = 0; i < c->nstate; i++)
		c->state[i] = inner->value[body->out[held + i]];
	for (uint32_t k = 0; k < c->nout; k++)
		c->part[k][t] = inner->value[body->out[held + c->nstate + k]];
	return LINNET_OK;
}

static enum linnet_code run_control(struct probe *p, const struct node *n, const struct tensor *const *in, int depth, bool *can, struct linnet_error *e)
{
	struct control c = { .n = n, .in = in, .loop = node_is(n, "Loop") };
	struct probe inner;

	if (depth == MAX_DEPTH) {
		*can = false;
		return LINNET_OK;
	}
	TRY(begin(p, &inner, &c, can, e));
	for (int64_t t = 0; t < c.steps && *can; t++)
		TRY(step(p, &inner, &c, t, depth, can, e));
	for (uint32_t i = 0; i < n->nout && *can; i++) {
		uint32_t k = i - c.nstate;
		int rank;

		if (!n->out[i])
			continue;
		if (i < c.nstate) {
			p->value[n->out[i]] = c.state[i];
			continue;
		}
		rank = c.steps ? c.part[k][0]->rank + 1 : 0;
		for (int64_t t = 0; backwards(n, "scan_output_directions", k) && t < c.steps / 2; t++) {
			const struct tensor *x = c.part[k][t];

			c.part[k][t] = c.part[k][c.steps - 1 - t];
			c.part[k][c.steps - 1 - t] = x;
		}
		TRY(stack(c.part[k], c.steps, c.loop ? 0 : axis_attr(n, "scan_output_axes", k, rank), p->a, &p->value[n->out[i]], e));
		*can = p->value[n->out[i]] != NULL;
	}
	return LINNET_OK;
}

/* ---- Other nodes ---- */

/* A tensor without data, for what reads lengths only: they are the whole ones. */
static enum linnet_code header(struct probe *p, value_id v, const struct tensor **out, struct linnet_error *e)
{
	const struct type *t = &p->g->value[v].type;
	struct tensor *x;
	int64_t d[MAX_RANK];
	bool short_one = false;

	for (int k = 0; k < t->shape.rank; k++)
		short_one = short_one || narrow_cut(p->narrow, v, k);
	if ((p->value[v] && !short_one) || t->dt == DT_UNDEFINED || (!p->value[v] && !whole_shape(p, v, d))) {
		*out = p->value[v];
		return LINNET_OK;
	}
	for (int k = 0; p->value[v] && k < t->shape.rank; k++)
		d[k] = narrow_cut(p->narrow, v, k) ? narrow_whole(p->narrow, v, k) : p->value[v]->d[k];
	TRY_NEW(x, p->a, 1);
	x->dt = t->dt;
	x->rank = t->shape.rank;
	memcpy(x->d, d, sizeof d);
	*out = tensor_size(x->dt, x->rank, x->d, 0, &x->n, &x->bytes, NULL) ? NULL : x;
	return LINNET_OK;
}

/* About how many operations a node takes. */
static double work_of(const struct probe *p, const struct node *n)
{
	const struct tensor *a = n->nin > 0 && n->in[0] ? p->value[n->in[0]] : NULL, *b = n->nin > 1 && n->in[1] ? p->value[n->in[1]] : NULL;

	if (!a)
		return 1;
	if (b && (node_is(n, "MatMul") || node_is(n, "Einsum")) && b->rank > 1)
		return (double)a->n * (double)(node_is(n, "MatMul") ? b->d[b->rank - 1] : b->n / (b->d[0] ? b->d[0] : 1)) + (double)b->n;
	return (double)a->n + (b ? (double)b->n : 0);
}

enum linnet_code probe_node(const struct graph *g, const struct node *n, const struct tensor *const *in, struct arena *a, const struct tensor **value, bool *can,
                            struct linnet_error *e)
{
	struct linnet_error quiet = { 0 };
	struct tensor **out;
	bool *wanted;
	enum linnet_code code;

	*can = true;
	if ((node_is(n, "Cast") || node_is(n, "CastLike")) && dtype_in(g->value[n->out[0]].type.dt, FLOATS))
		return number_of(in[0], a, &value[0], e);
	*can = n->known && n->op->kernel && !(n->op->flags & OP_CONTROL) && n->op->agree != AGREE_RANDOM;
	if (!*can)
		return LINNET_OK;
	TRY_NEW(out, a, n->nout);
	TRY_NEW(wanted, a, n->nout);
	for (uint32_t i = 0; i < n->nout; i++)
		wanted[i] = n->out[i] != 0;
	code = op_eval(n->op, n->attr, (int)n->nin, in, (int)n->nout, wanted, a, out, &quiet);
	if (code == LINNET_EMEM)
		return fail_mem(e);
	*can = !code;
	for (uint32_t i = 0; i < n->nout && !code; i++)
		if (wanted[i])
			TRY(as_double(out[i], a, &value[i], e));
	return LINNET_OK;
}

/* The first d[k] of each axis. */
static enum linnet_code first_of(const struct tensor *t, const int64_t *d, struct arena *a, const struct tensor **out, struct linnet_error *e)
{
	struct tensor *x;

	TRY(tensor_new(a, t->dt, t->rank, d, &x, e));
	for (int64_t i = 0; i < x->n; i++) {
		int64_t rest = i, at = 0, stride = 1;

		for (int k = t->rank - 1; k >= 0; stride *= t->d[k--]) {
			at += rest % d[k] * stride;
			rest /= d[k];
		}
		element_copy(x, i, t, at);
	}
	*out = x;
	return LINNET_OK;
}

/* Inputs that come whole, as the others are: cut short. The operand of a Reshape, Expand or Tile tells what there is. */
static enum linnet_code narrowed(struct probe *p, const struct node *n, const struct tensor **in, struct linnet_error *e)
{
	static const char *const told[] = { "Reshape", "Expand", "Tile", NULL };
	node_id id = (node_id)(n - p->g->node);

	for (uint32_t i = 0; i < n->nin && p->narrow->fixed[id]; i++) {
		int64_t d[MAX_RANK];
		bool any = false;

		for (int k = 0; in[i] && k < in[i]->rank; k++) {
			int64_t cut = narrow_fixed(p->narrow, id, i, k);

			any = any || cut;
			d[k] = cut ? cut : in[i]->d[k];
		}
		if (any)
			TRY(first_of(in[i], d, p->a, &in[i], e));
	}
	for (int k = 0; node_among(n, told) && k < p->g->value[n->out[0]].type.shape.rank; k++) {
		int64_t cut = narrow_cut(p->narrow, n->out[0], k), j = k - (p->g->value[n->out[0]].type.shape.rank - in[1]->n);
		struct tensor *lengths;

		if (!cut || j < 0 || j >= in[1]->n || (node_is(n, "Tile") && tensor_get_int(in[1], j) == 1))
			continue;
		TRY(tensor_dup(p->a, in[1], &lengths, e));
		tensor_put_int(lengths, j, cut);
		in[1] = lengths;
	}
	return LINNET_OK;
}

static enum linnet_code run_node(struct probe *p, const struct node *n, int depth, bool *can, struct linnet_error *e)
{
	const struct tensor **in, **out;

	TRY_NEW(in, p->a, n->nin);
	TRY_NEW(out, p->a, n->nout);
	for (uint32_t i = 0; i < n->nin && *can; i++) {
		if (!n->in[i])
			continue;
		if (!p->value[n->in[i]] && value_const(p->g, n->in[i]))
			TRY(as_double(value_const(p->g, n->in[i]), p->a, &p->value[n->in[i]], e));
		if (n->op->flags & OP_SHAPE_ONLY)
			TRY(header(p, n->in[i], &in[i], e));
		else
			in[i] = p->value[n->in[i]];
		*can = in[i] != NULL || (i == 1 && node_is(n, "CastLike"));
	}
	if (*can && p->narrow)
		TRY(narrowed(p, n, in, e));
	if (*can && (node_is(n, "Loop") || node_is(n, "Scan")))
		return run_control(p, n, in, depth, can, e);
	for (uint32_t i = 0; i < n->nout; i++)
		*can = *can && (!n->out[i] || small(p, n->out[i]));
	if (*can)
		p->work += work_of(p, n);
	*can = *can && p->work <= max_work;
	if (!*can)
		return LINNET_OK;
	TRY(probe_node(p->g, n, in, p->a, out, can, e));
	for (uint32_t i = 0; i < n->nout && *can; i++)
		if (n->out[i] && !p->value[n->out[i]]) /* it may be given */
			p->value[n->out[i]] = out[i];
	return LINNET_OK;
}

static enum linnet_code run_part(struct probe *p, int depth, bool *can, struct linnet_error *e)
{
	*can = true;
	for (uint32_t i = 0; i < p->norder && *can; i++) {
		const struct node *n = &p->g->node[p->order[i]];
		bool done = true;

		for (uint32_t k = 0; k < n->nout; k++)
			done = done && (!n->out[k] || p->value[n->out[k]]);
		if (!done)
			TRY(run_node(p, n, depth, can, e));
	}
	for (uint32_t i = 0; depth && i < p->g->nout; i++) /* a body may hand on a constant */
		if (!p->value[p->g->out[i]] && value_const(p->g, p->g->out[i]))
			TRY(as_double(p->g->value[p->g->out[i]].type.value, p->a, &p->value[p->g->out[i]], e));
	return LINNET_OK;
}

enum linnet_code probe_run(struct probe *p, bool *can, struct linnet_error *e)
{
	return run_part(p, 0, can, e);
}
