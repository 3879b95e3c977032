/*
 * Recognising layer and RMS normalisation over the last axis, however their arithmetic is spelled:
 *
 *   RMSNormalization    y = x / sqrt(mean(x^2) + epsilon) * scale
 *   LayerNormalization  y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias
 *
 * Anchored on the mean of squares. Needs types.
 */
#include <math.h>
#include <string.h>

#include "graph/pass.h"

/* A ReduceMean over the last axis that keeps it. */
static bool is_row_mean(const struct graph *g, const struct node *n)
{
	int rank = g->value[n->in[0]].type.shape.rank, count;
	int64_t axis;

	return node_is(n, "ReduceMean") && node_attr(n, "keepdims")->i && rank > 0 && n->nin > 1 && n->in[1] &&
	       value_ints(g, n->in[1], &axis, 1, &count) && count == 1 && (axis == -1 || axis == rank - 1);
}

/* z when v is z^2. */
static value_id square_root_of(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);
	double two;

	if (n && node_is(n, "Pow") && value_scalar(g, n->in[1], &two) && two == 2)
		return n->in[0];
	return n && node_is(n, "Mul") && n->in[0] == n->in[1] ? n->in[0] : 0;
}

/* x when v is x - mean(x). */
static value_id uncentred(const struct graph *g, value_id v)
{
	const struct node *sub = value_from(g, v, "Sub"), *mean;

	if (!sub)
		return 0;
	mean = value_node(g, sub->in[1]);
	return mean && is_row_mean(g, mean) && mean->in[0] == sub->in[0] ? sub->in[0] : 0;
}

/* The value z / sqrt(a), where `a` has one user; 0 when that is not what happens to it. */
static value_id normalised(const struct view *w, value_id a, value_id z)
{
	const struct graph *g = w->g;
	uint32_t i;
	const struct node *n = value_user(w, a, &i);
	double c;

	if (!n)
		return 0;
	if (node_is(n, "Pow") && i == 0 && value_scalar(g, n->in[1], &c) && c == -0.5) {
		n = value_user(w, n->out[0], &i);
	} else {
		if (!node_is(n, "Sqrt") && !(node_is(n, "Pow") && i == 0 && value_scalar(g, n->in[1], &c) && c == 0.5))
			return 0;
		n = value_user(w, n->out[0], &i);
		if (n && node_is(n, "Div") && i == 1 && n->in[0] == z)
			return n->out[0];
		if (!n || !(node_is(n, "Reciprocal") || (node_is(n, "Div") && i == 1 && value_scalar(g, n->in[0], &c) && c == 1)))
			return 0;
		n = value_user(w, n->out[0], &i);
	}
	return n && node_is(n, "Mul") && n->in[1 - i] == z ? n->out[0] : 0;
}

/* v [D], the same for every row: what may scale or shift a normalised value [..., D]. */
static bool is_row(const struct graph *g, value_id v, dim width)
{
	const struct shape *s = &g->value[v].type.shape;

	return s->rank == 1 && s->d[0] == width;
}

/* The other operand when v's only user is `op` with a row of that width. */
static const struct node *row_op(const struct view *w, value_id v, const char *op, dim width, value_id *row)
{
	uint32_t i;
	const struct node *n = value_user(w, v, &i);

	if (!n || !node_is(n, op) || !is_row(w->g, n->in[1 - i], width))
		return NULL;
	*row = n->in[1 - i];
	return n;
}

static value_id ones(struct patch *p, enum dtype dt, int64_t width, struct linnet_error *e)
{
	struct tensor *t;

	p->code = p->code ? p->code : tensor_new(p->arena, dt, 1, &width, &t, e);
	for (int64_t i = 0; !p->code && i < width; i++)
		tensor_put(t, i, 1);
	return p->code ? 0 : patch_const(p, t, "ones");
}

static enum linnet_code norm_mean(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	value_id z, x, y, scale = 0, bias = 0, in[3];
	const struct node *add, *mul, *cast, *shift = NULL;
	const struct shape *s;
	uint32_t i;
	double eps;
	struct attr attr[4];
	int na = 0;
	dim width;
	enum dtype inner, outer;

	if (!is_row_mean(g, n) || !(z = square_root_of(g, n->in[0])))
		return LINNET_OK;
	add = value_user(w, n->out[0], &i);
	if (add && node_is(add, "Add")) {
		if (!value_scalar(g, add->in[1 - i], &eps) || !(eps >= 0))
			return LINNET_OK;
		y = normalised(w, add->out[0], z);
	} else { /* an optimiser dropped an epsilon too small to count */
		eps = 0;
		y = normalised(w, n->out[0], z);
	}
	s = &g->value[z].type.shape;
	if (!y || s->rank < 1 || !dim_is_int(s->d[s->rank - 1]))
		return LINNET_OK;
	width = s->d[s->rank - 1];
	x = uncentred(g, z);
	inner = outer = g->value[z].type.dt;
	/* half-precision models compute in float between casts; the norms do so themselves */
	cast = value_user(w, y, &i);
	if (cast && node_is(cast, "Cast") && value_from(g, x ? x : z, "Cast") &&
	    g->value[value_from(g, x ? x : z, "Cast")->in[0]].type.dt == g->value[cast->out[0]].type.dt && inner == DT_FLOAT) {
		y = cast->out[0];
		outer = g->value[y].type.dt;
		z = value_from(g, x ? x : z, "Cast")->in[0];
		x = x ? z : 0;
	}
	mul = row_op(w, y, "Mul", width, &scale);
	if (mul)
		shift = x ? row_op(w, mul->out[0], "Add", width, &bias) : NULL;
	attr[na++] = attr_int("axis", -1);
	attr[na++] = attr_float("epsilon", eps);
	if (inner != DT_FLOAT)
		attr[na++] = attr_int("stash_type", inner == DT_DOUBLE ? DT_DOUBLE : DT_FLOAT);
	attr[na] = (struct attr){ .name = NULL };
	in[0] = x ? x : z;
	in[1] = mul ? scale : ones(p, outer, width, e);
	in[2] = bias;
	patch_replace(p, shift ? shift->out[0] : mul ? mul->out[0] : y,
	              patch_node(p, x ? "LayerNormalization" : "RMSNormalization", *n->name ? n->name : "norm", in, bias ? 3 : 2, 1, attr));
	return LINNET_OK;
}

/* A normalised value without scale whose users are products with rows: each is a norm of its own. */
static enum linnet_code norm_rows(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *s = &g->value[n->out[0]].type.shape;
	bool layer = node_is(n, "LayerNormalization");
	uint32_t first = w->uses.begin[n->out[0]], last = w->uses.end[n->out[0]];
	struct attr attr[8];
	uint32_t na = 0;
	double one;
	dim width;

	(void)e;
	if (last - first < 2 || s->rank < 1 || (n->nin > 2 && n->in[2]) || (n->nout > 1 && n->out[1]) ||
	    !value_scalar(g, n->in[1], &one) || one != 1 || (node_attr(n, "axis")->i != -1 && node_attr(n, "axis")->i != s->rank - 1))
		return LINNET_OK;
	width = s->d[s->rank - 1];
	for (uint32_t i = first; i < last; i++) {
		const struct use *u = &w->uses.use[i];

		if (!u->node || !node_is(&g->node[u->node], "Mul") || !is_row(g, g->node[u->node].in[1 - u->index], width))
			return LINNET_OK;
	}
	for (uint32_t i = 0; i < n->nattr && na < 7; i++)
		if (n->attr[i].given)
			attr[na++] = n->attr[i];
	attr[na] = (struct attr){ .name = NULL };
	for (uint32_t i = first; i < last; i++) {
		const struct use *u = &w->uses.use[i];
		const struct node *mul = &g->node[u->node], *shift;
		value_id bias = 0, in[3];

		shift = layer ? row_op(w, mul->out[0], "Add", width, &bias) : NULL;
		in[0] = n->in[0], in[1] = mul->in[1 - u->index], in[2] = bias;
		patch_replace(p, shift ? shift->out[0] : mul->out[0], patch_node(p, n->op->name, *n->name ? n->name : "norm", in, bias ? 3 : 2, 1, attr));
	}
	return LINNET_OK;
}

/* What the sum is divided by is the length summed over. */
static bool is_mean(const struct match *m)
{
	const struct shape *x = &match_type(m, "x")->shape;
	int axis = (int)match_param(m, "axis");

	return axis >= 0 && axis < x->rank && dim_is_int(x->d[axis]) && x->d[axis] > 0 && (double)x->d[axis] == match_param(m, "length");
}

static const struct rule rules[] = {
	{ .name = "norm/sum", .doc = "a sum over its length becomes ReduceMean", .anchor = "Div",
	  .from = "(float[] x) => (y) <int64[1] axes = {@axis}, float n = {@length}> { s = ReduceSum (x, axes)  y = Div (s, n) }",
	  .to = "<int64[1] axes = {@axis}> { y = ReduceMean (x, axes) }", .guard = is_mean, .differs = 1e-14 },
	{ .name = "norm/sum-flat", .doc = "the same without the axis", .anchor = "Div",
	  .from = "(float[] x) => (y) <int64[1] axes = {@axis}, float n = {@length}>\n"
	          "{ s = ReduceSum <keepdims = 0> (x, axes)  y = Div (s, n) }",
	  .to = "<int64[1] axes = {@axis}> { y = ReduceMean <keepdims = 0> (x, axes) }", .guard = is_mean, .differs = 1e-14 },
	{ .name = "norm/mean", .doc = "rows divided by the root of their mean square become RMSNormalization or LayerNormalization", .anchor = "ReduceMean",
	  .apply = norm_mean, .differs = 1e-12 },
	{ .name = "norm/rows", .doc = "one norm without scale that several rows scale becomes a norm for each", .anchor = "LayerNormalization", .apply = norm_rows, .differs = 1e-12 },
	{ .name = "norm/rows-rms", .doc = "the same for RMSNormalization", .anchor = "RMSNormalization", .apply = norm_rows, .differs = 1e-12 },
};

const struct pass norm_pass = { .name = "norm", .doc = "Recognise layer and RMS normalisation", .kind = PASS_EXACT, PASS_RULES(rules) };
