/*
 * Saying the same more plainly, so that patterns stay few: no identities, no steps that cancel. Needs types. Every rule gives the
 * same bits, but that x + 0 makes -0 positive.
 */
#include <math.h>
#include <string.h>

#include "graph/pass.h"

/* v is filled with one number: numbers for each of a row may be parameters that start alike. */
static bool is_one_number(const struct graph *g, value_id v)
{
	const struct node *n;

	while ((n = value_node(g, v)) && (node_is(n, "Expand") || node_is(n, "Reshape")))
		v = n->in[0];
	return n ? node_is(n, "ConstantOfShape") : g->value[v].type.shape.rank == 0 || dtype_class(g->value[v].type.dt) != CLASS_FLOAT;
}

/* Operand i is a 0 that is added or taken away, or a 1 that multiplies, divides or is the exponent. */
static bool is_neutral(const struct graph *g, const struct node *n, uint32_t i)
{
	bool sum = node_is(n, "Add") || node_is(n, "Sub"), product = node_is(n, "Mul") || node_is(n, "Div");
	double c;

	return (sum || product || node_is(n, "Pow")) && (is_one_number(g, n->in[i]) || (product && i)) && (i || node_is(n, "Add") || node_is(n, "Mul")) &&
	       value_filled(g, n->in[i], &c) && c == (sum ? 0 : 1);
}

/* Operand i of Max or Min is an infinity that no number is beyond. */
static bool is_bound(const struct graph *g, const struct node *n, uint32_t i)
{
	bool most = node_is(n, "Max");
	double c;

	return (most || node_is(n, "Min")) && value_scalar(g, n->in[i], &c) && c == (most ? -INFINITY : INFINITY);
}

/* The input that a node whose output is of the same type gives on, by what its constants say. */
static value_id passed_on(const struct graph *g, const struct node *n)
{
	static const char *const views[] = { "Reshape", "Expand", "Squeeze", "Unsqueeze", "Flatten", "Tile", NULL };
	double c;

	for (int i = 0; views[i]; i++)
		if (node_is(n, views[i]))
			return n->in[0];
	if (node_is(n, "Split"))
		return n->nout == 1 ? n->in[0] : 0;
	if (node_is(n, "Slice")) /* equal lengths: whole unless it steps backwards */
		return n->nin < 5 || !n->in[4] || (value_scalar(g, n->in[4], &c) && c == 1) ? n->in[0] : 0;
	if (node_is(n, "Pad"))
		return n->nin > 1 && value_scalar(g, n->in[1], &c) && c == 0 ? n->in[0] : 0;
	for (uint32_t i = 0; n->nin == 2 && i < 2; i++)
		if (is_neutral(g, n, i) || is_bound(g, n, i))
			return n->in[1 - i];
	return 0;
}

value_id node_copies(const struct view *w, const struct node *n)
{
	const struct graph *g = w->g;
	const struct type *in, *out;
	value_id v;
	double c;

	if (!n->known || n->op->domain || !n->nout || !n->out[0] || !n->nin || !n->in[0])
		return 0;
	in = &g->value[n->in[0]].type;
	out = &g->value[n->out[0]].type;
	if (node_is(n, "Identity"))
		return n->in[0];
	if (node_is(n, "Dropout")) {
		bool training = n->nin > 2 && n->in[2] && !(value_scalar(g, n->in[2], &c) && c == 0);

		return !training && (n->nout < 2 || !n->out[1] || !value_uses(w, n->out[1])) ? n->in[0] : 0;
	}
	if (node_is(n, "Cast"))
		return in->dt == out->dt && in->dt != DT_UNDEFINED ? n->in[0] : 0;
	if (node_is(n, "Concat") || node_is(n, "Sum") || node_is(n, "Mean") || node_is(n, "Max") || node_is(n, "Min"))
		if (n->nin == 1)
			return n->in[0];
	v = passed_on(g, n);
	in = &g->value[v].type;
	return v && in->dt == out->dt && shape_equal(&in->shape, &out->shape) ? v : 0;
}

static enum linnet_code tidy_identity(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	value_id v = node_copies(w, n);

	(void)e;
	if (!v)
		return LINNET_OK;
	if (value_is_output(w, n->out[0]) && (w->g->value[v].kind != VALUE_NODE || value_is_output(w, v)))
		return LINNET_OK; /* what gives an output its name stays */
	patch_replace(p, n->out[0], v);
	return LINNET_OK;
}

/* The permutation a Transpose of that rank makes. */
static bool perm_of(const struct node *n, int rank, int64_t *perm)
{
	const struct attr *a = node_attr(n, "perm");

	if (rank < 0 || (a->kind == ATTR_INTS && a->n != (size_t)rank))
		return false;
	for (int i = 0; i < rank; i++) {
		perm[i] = a->kind == ATTR_INTS ? a->ints[i] : rank - 1 - i;
		if (perm[i] < 0 || perm[i] >= rank)
			return false;
	}
	return true;
}

static enum linnet_code tidy_transpose(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	int rank = g->value[n->in[0]].type.shape.rank;
	const struct node *before = value_from(g, n->in[0], "Transpose");
	int64_t outer[MAX_RANK], inner[MAX_RANK], both[MAX_RANK] = { 0 };
	struct attr attr[] = { attr_ints("perm", both, 0), { .name = NULL } };
	bool same = true;

	(void)e;
	if (!perm_of(n, rank, outer))
		return LINNET_OK;
	for (int i = 0; i < rank; i++)
		inner[i] = i;
	if (before && !perm_of(before, rank, inner))
		return LINNET_OK;
	for (int i = 0; i < rank; i++) {
		both[i] = inner[outer[i]];
		same = same && both[i] == i;
	}
	attr[0].n = (size_t)rank;
	if (same && !value_is_output(w, n->out[0]))
		patch_replace(p, n->out[0], before ? before->in[0] : n->in[0]);
	else if (before && !same)
		patch_replace(p, n->out[0], patch_node(p, "Transpose", n->name, PATCH_IN(before->in[0]), 1, attr));
	return LINNET_OK;
}

/* Which axes of the longer shape, of that rank, Unsqueeze makes or Squeeze drops. */
static bool unit_axes(const struct graph *g, const struct node *n, int rank, bool *unit)
{
	int64_t axes[MAX_RANK];
	int count;

	if (rank < 0 || rank > MAX_RANK || n->nin < 2 || !n->in[1] || !value_ints(g, n->in[1], axes, MAX_RANK, &count))
		return false;
	memset(unit, 0, MAX_RANK * sizeof *unit);
	for (int i = 0; i < count; i++) {
		int64_t a = axes[i] < 0 ? axes[i] + rank : axes[i];

		if (a < 0 || a >= rank)
			return false;
		unit[a] = true;
	}
	return true;
}

/* Axes of length 1 are made behind a Transpose: what it turns is then the axes that have a length, and often nothing. */
static enum linnet_code tidy_turned_unit(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *before = value_from(g, n->in[0], "Unsqueeze");
	int rank = g->value[n->in[0]].type.shape.rank, kept = 0, made = 0;
	int64_t perm[MAX_RANK], turn[MAX_RANK] = { 0 }, axes[MAX_RANK], place[MAX_RANK];
	struct attr attr[] = { attr_ints("perm", turn, 0), { .name = NULL } };
	bool unit[MAX_RANK];
	value_id v;

	(void)e;
	if (!before || !perm_of(n, rank, perm) || !unit_axes(g, before, rank, unit))
		return LINNET_OK;
	for (int i = 0, k = 0; i < rank; i++)
		place[i] = unit[i] ? -1 : k++;
	for (int i = 0; i < rank; i++)
		if (unit[perm[i]])
			axes[made++] = i;
		else
			turn[kept++] = place[perm[i]];
	attr[0].n = (size_t)kept;
	v = before->in[0];
	for (int i = 0; i < kept; i++)
		if (turn[i] != i) {
			v = patch_node(p, "Transpose", n->name, PATCH_IN(before->in[0]), 1, attr);
			break;
		}
	patch_replace(p, n->out[0], patch_node(p, "Unsqueeze", before->name, PATCH_IN(v, patch_ints(p, axes, made, "axes")), 1, NULL));
	return LINNET_OK;
}

/* All lengths that shape v asks for are known, as numbers or by name, and none copies that of the input. */
static bool copies_no_length(const struct graph *g, value_id v, int rank)
{
	const struct type *t = &g->value[v].type;
	int64_t to[MAX_RANK];
	int n;

	if (rank < 0 || t->shape.rank != 1)
		return false;
	if (value_ints(g, v, to, MAX_RANK, &n)) {
		for (int i = 0; i < n; i++)
			if (to[i] == 0)
				return false;
		return true;
	}
	for (int i = 0; i < rank; i++)
		if (!t->sym || t->sym[i] == 0 || t->sym[i] == DIM_NONE)
			return false;
	return true;
}

/*
 * Reshape of a Reshape (or of another view): only the last shape matters, unless it copies lengths by 0. Shapes of lengths that are known by name
 * only leave Reshapes as they are, since what lies between tells heads.
 */
static enum linnet_code tidy_reshape(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct node *before = value_node(w->g, n->in[0]);
	struct attr attr[] = { attr_int("allowzero", node_attr(n, "allowzero")->i), { .name = NULL } };
	bool unit = before && (node_is(before, "Squeeze") || node_is(before, "Unsqueeze"));
	int64_t to[MAX_RANK];
	int count;

	(void)e;
	if (before && node_is(before, "Reshape") && !value_is_output(w, n->out[0]) &&
	    shape_equal(&w->g->value[before->in[0]].type.shape, &w->g->value[n->out[0]].type.shape)) {
		patch_replace(p, n->out[0], before->in[0]); /* back to what it was */
		return LINNET_OK;
	}
	if (!before || !(unit || node_is(before, "Reshape") || node_is(before, "Flatten")) || (!unit && !value_ints(w->g, n->in[1], to, MAX_RANK, &count)) ||
	    !copies_no_length(w->g, n->in[1], w->g->value[n->out[0]].type.shape.rank))
		return LINNET_OK;
	patch_replace(p, n->out[0], patch_node(p, "Reshape", n->name, PATCH_IN(before->in[0], n->in[1]), 1, attr));
	return LINNET_OK;
}

/* Shape y is x but that one axis is 1 long: which; -1 when it is not so. */
static int shrunk_axis(const struct shape *x, const struct shape *y)
{
	int axis = -1;

	if (x->rank != y->rank)
		return -1;
	for (int i = 0; i < x->rank; i++) {
		if (x->d[i] == y->d[i])
			continue;
		if (y->d[i] != 1 || axis >= 0)
			return -1;
		axis = i;
	}
	return axis;
}

/* An axis that is reduced away and put back with length 1, by Reshape or Unsqueeze, is kept. */
static enum linnet_code tidy_kept_axis(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	static const char *const names[] = { "ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceSumSquare", "ReduceL2", "ReduceL1", "ReduceLogSumExp", "ReduceProd", NULL };
	const struct graph *g = w->g;
	const struct node *reduce = value_node(g, n->in[0]);
	const char *const *name = names;
	int64_t axis;
	int count, rank, back;

	(void)e;
	while (reduce && *name && !node_is(reduce, *name))
		name++;
	if (!reduce || !*name || node_attr(reduce, "keepdims")->i || value_uses(w, n->in[0]) != 1 || reduce->nin < 2 || !reduce->in[1] ||
	    !value_ints(g, reduce->in[1], &axis, 1, &count) || count != 1)
		return LINNET_OK;
	rank = g->value[reduce->in[0]].type.shape.rank;
	axis = axis < 0 ? axis + rank : axis;
	back = shrunk_axis(&g->value[reduce->in[0]].type.shape, &g->value[n->out[0]].type.shape);
	if (axis != back)
		return LINNET_OK;
	patch_replace(p, n->out[0], patch_node(p, *name, *reduce->name ? reduce->name : n->name, PATCH_IN(reduce->in[0], reduce->in[1]), 1,
	                                       (struct attr[]){ attr_int("keepdims", 1), { .name = NULL } }));
	return LINNET_OK;
}

/* An Unsqueeze, and a Reshape behind it that leaves lengths in their order and moves those of 1 alone: one Unsqueeze. */
static enum linnet_code tidy_moved_unit(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *before = value_from(g, n->in[0], "Unsqueeze");
	const struct shape *x = before ? &g->value[before->in[0]].type.shape : NULL, *y = &g->value[n->out[0]].type.shape;
	int64_t axes[MAX_RANK];
	int made = 0, at = 0;

	(void)e;
	if (!x || x->rank < 1 || y->rank <= x->rank)
		return LINNET_OK;
	for (int i = 0; i < y->rank; i++) {
		if (at < x->rank && y->d[i] == x->d[at])
			at++;
		else if (y->d[i] == 1)
			axes[made++] = i;
		else
			return LINNET_OK;
	}
	if (at == x->rank)
		patch_replace(p, n->out[0], patch_node(p, "Unsqueeze", before->name, PATCH_IN(before->in[0], patch_ints(p, axes, made, "axes")), 1, NULL));
	return LINNET_OK;
}

/* A Squeeze of a Reshape that nothing else uses is a Reshape without those lengths. */
static enum linnet_code tidy_reshaped_unit(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *before = value_from(g, n->in[0], "Reshape");
	int rank = g->value[n->in[0]].type.shape.rank, kept = 0, count;
	int64_t to[MAX_RANK], keep[MAX_RANK];
	bool unit[MAX_RANK], known;
	value_id lengths;

	(void)e;
	if (!before || value_uses(w, n->in[0]) != 1 || !unit_axes(g, n, rank, unit) || !copies_no_length(g, before->in[1], rank))
		return LINNET_OK;
	known = value_ints(g, before->in[1], to, MAX_RANK, &count);
	for (int i = 0; i < rank; i++) {
		if (unit[i] && known && to[i] != 1)
			return LINNET_OK;
		if (!unit[i])
			keep[kept++] = known ? to[i] : i;
	}
	lengths = patch_ints(p, keep, kept, known ? "shape" : "axes");
	if (!known)
		lengths = patch_node(p, "Gather", "shape", PATCH_IN(before->in[1], lengths), 1, (struct attr[]){ attr_int("axis", 0), { .name = NULL } });
	patch_replace(p, n->out[0], patch_node(p, "Reshape", before->name, PATCH_IN(before->in[0], lengths), 1, NULL));
	return LINNET_OK;
}

/* Where with a constant condition that is the same everywhere. */
static enum linnet_code tidy_where(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	value_id taken;
	double c;

	(void)e;
	if (!value_scalar(w->g, n->in[0], &c))
		return LINNET_OK;
	taken = n->in[c != 0 ? 1 : 2];
	if (shape_equal(&w->g->value[taken].type.shape, &w->g->value[n->out[0]].type.shape) && !value_is_output(w, n->out[0]))
		patch_replace(p, n->out[0], taken);
	return LINNET_OK;
}

/* CastLike of a value of known type is Cast, or nothing. */
static enum linnet_code tidy_cast_like(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	enum dtype from = w->g->value[n->in[0]].type.dt, to = w->g->value[n->in[1]].type.dt;

	(void)e;
	if (!dtype_in(from, FLOATS | INTS) || !dtype_in(to, FLOATS | INTS) || value_is_output(w, n->out[0]))
		return LINNET_OK;
	patch_replace(p, n->out[0], from == to ? n->in[0] : patch_node(p, "Cast", n->name, PATCH_IN(n->in[0]), 1, (struct attr[]){ attr_int("to", to), { .name = NULL } }));
	return LINNET_OK;
}

static enum linnet_code tidy_squeeze(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct node *before = value_from(w->g, n->in[0], "Unsqueeze");

	(void)e;
	if (before && shape_equal(&w->g->value[before->in[0]].type.shape, &w->g->value[n->out[0]].type.shape) &&
	    !value_is_output(w, n->out[0]))
		patch_replace(p, n->out[0], before->in[0]);
	return LINNET_OK;
}

/* Nodes that mean the same outside of the graph they are in. */
static bool movable(const struct node *n)
{
	if (!n->known || n->ncapture || n->op->flags & OP_CONTROL || n->op->agree == AGREE_RANDOM)
		return false;
	for (uint32_t i = 0; i < n->nattr; i++)
		if (n->attr[i].kind == ATTR_GRAPH)
			return false;
	return true;
}

/* Whether a Scan carries nothing, and cuts along the first axes, which are 1 long. */
static bool is_single_slice(const struct graph *g, const struct node *n, const struct graph *body)
{
	uint32_t nin = n->nin - n->ncapture;

	if (!body || node_attr(n, "num_scan_inputs")->i != nin || body->nin != n->nin || body->nout < n->nout ||
	    attr_given(node_attr(n, "scan_input_axes")) || attr_given(node_attr(n, "scan_output_axes")))
		return false;
	for (uint32_t i = 0; i < nin; i++) {
		const struct shape *s = &g->value[n->in[i]].type.shape;

		if (s->rank < 1 || s->d[0] != 1)
			return false;
	}
	for (node_id i = 1; i < body->nnode; i++)
		if (!body->node[i].dead && !movable(&body->node[i]))
			return false;
	return true;
}

/* A scan over a single slice is its body, as FlexAttention's graphs are. */
static enum linnet_code tidy_scan(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *body = node_attr(n, "body")->g;
	uint32_t nin = n->nin - n->ncapture, norder;
	value_id *to, zero; /* of the body's values: those they become */
	node_id *order;

	if (!is_single_slice(w->g, n, body))
		return LINNET_OK;
	TRY(graph_order(body, w->scratch, &order, &norder, e));
	TRY_NEW(to, w->scratch, body->nvalue);
	zero = patch_ints(p, (int64_t[]){ 0 }, 1, "axis");
	for (uint32_t i = 0; i < body->nin; i++)
		to[body->in[i]] = i < nin ? patch_node(p, "Squeeze", "slice", PATCH_IN(n->in[i], zero), 1, NULL) : n->in[i];
	for (value_id v = 1; v < body->nvalue; v++)
		if (body->value[v].kind == VALUE_CONST)
			to[v] = patch_const(p, body->value[v].type.value, body->value[v].name);
	for (uint32_t i = 0; i < norder; i++) {
		const struct node *x = &body->node[order[i]];
		uint32_t nattr = 0;
		struct attr *attr;
		value_id *in, first;

		TRY_NEW(in, w->scratch, x->nin);
		TRY_NEW(attr, w->scratch, x->nattr + 1);
		for (uint32_t k = 0; k < x->nin; k++)
			in[k] = x->in[k] ? to[x->in[k]] : 0;
		for (uint32_t k = 0; k < x->nattr; k++)
			if (x->attr[k].given)
				attr[nattr++] = x->attr[k];
		first = patch_op(p, x->op, node_label(body, x), in, x->nin, x->nout, attr);
		for (uint32_t k = 0; k < x->nout; k++)
			if (x->out[k])
				to[x->out[k]] = first + k;
	}
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i])
			patch_replace(p, n->out[i], patch_node(p, "Unsqueeze", "slices", PATCH_IN(to[body->out[i]], zero), 1, NULL));
	return LINNET_OK;
}

/* The axis of v, or -1, of which d is the length. */
static int axis_of_length(const struct graph *g, value_id v, dim d)
{
	const struct type *t = &g->value[v].type;

	for (int i = 0; t->kind == KIND_TENSOR && i < t->shape.rank; i++)
		if (t->shape.d[i] == d)
			return i;
	return -1;
}

enum { MAX_CARRIERS = 4096 };

/* The value that n reads lengths off: it is Shape, or picks from Shape. 0: none. */
static value_id value_measured(const struct graph *g, const struct node *n)
{
	for (int steps = 0; n && steps < 4 && !node_is(n, "Shape"); steps++)
		n = node_is(n, "Gather") || node_is(n, "Slice") || node_is(n, "Squeeze") || node_is(n, "Unsqueeze") ? value_node(g, n->in[0]) : NULL;
	return n && node_is(n, "Shape") ? n->in[0] : 0;
}

/* The value that is d long along an axis and which others have that length from: a graph input, or the first on the way to what n measures; 0: none. */
static value_id first_of_length(const struct graph *g, const struct node *n, dim d)
{
	enum { MAX_BETWEEN = 6 }; /* nodes in a row without the length, as where something is joined and cut off again */
	value_id v, from;

	for (uint32_t i = 0; i < g->nin; i++)
		if (axis_of_length(g, g->in[i], d) >= 0)
			return g->in[i];
	v = from = value_measured(g, n);
	if (!v || axis_of_length(g, v, d) < 0)
		return 0;
	for (int steps = 0; from && steps < MAX_CARRIERS; steps++) {
		v = from;
		n = value_node(g, v);
		from = 0;
		for (int between = 0; n && n->known && !from && between <= MAX_BETWEEN; between++, n = n->nin && n->in[0] ? value_node(g, n->in[0]) : NULL)
			for (uint32_t i = 0; !from && i < n->nin; i++)
				from = n->in[i] && axis_of_length(g, n->in[i], d) >= 0 ? n->in[i] : 0;
	}
	return v;
}

/* v is a length read off x: Shape of one axis, or Gather of Shape where Shape of one axis would not be shorter. */
static bool is_length_of(const struct graph *g, value_id v, value_id x)
{
	const struct node *n = value_node(g, v);
	int opset = graph_main(g)->opset;

	if (n && node_is(n, "Gather") && (!g->value[v].type.shape.rank || (opset && opset < 15)))
		n = value_node(g, n->in[0]);
	return n && node_is(n, "Shape") && n->in[0] == x;
}

/*
 * A number that is one symbolic length is read off the graph input, or the first value, that has it. Exporters read lengths off whatever value is at
 * hand, attention's scores among them, which would keep it alive.
 */
static enum linnet_code tidy_length(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct type *t = n->nout == 1 && n->out[0] ? &g->value[n->out[0]].type : NULL;
	value_id from, v;
	int axis;

	(void)e;
	if (g->outer || !t || !t->sym || t->value || t->dt != DT_INT64 || t->shape.rank > 1 || (t->shape.rank == 1 && t->shape.d[0] != 1) ||
	    !dim_is_expr(t->sym[0]) || !n->known || n->op->domain)
		return LINNET_OK;
	if (!(node_is(n, "Gather") || node_is(n, "Slice") || node_is(n, "Shape") || node_is(n, "Squeeze") || node_is(n, "Unsqueeze")))
		return LINNET_OK;
	from = first_of_length(g, n, t->sym[0]);
	if (!from || is_length_of(g, n->out[0], from) || (node_is(n, "Squeeze") && is_length_of(g, n->in[0], from)))
		return LINNET_OK;
	axis = axis_of_length(g, from, t->sym[0]);
	v = patch_lengths(p, from, axis, axis + 1, "length");
	if (t->shape.rank == 0)
		v = patch_node(p, "Squeeze", "length", PATCH_IN(v, patch_ints(p, (int64_t[]){ 0 }, 1, "axis")), 1, NULL);
	patch_replace(p, n->out[0], v);
	return LINNET_OK;
}

/* GatherND by one number each picks along the first axis. */
static enum linnet_code tidy_gather(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct shape *s = &w->g->value[n->in[1]].type.shape;
	value_id v;

	(void)e;
	if (node_attr(n, "batch_dims")->i || s->rank < 1 || s->d[s->rank - 1] != 1)
		return LINNET_OK;
	v = patch_node(p, "Squeeze", "places", PATCH_IN(n->in[1], patch_ints(p, (int64_t[]){ s->rank - 1 }, 1, "axis")), 1, NULL);
	patch_replace(p, n->out[0], patch_node(p, "Gather", *n->name ? n->name : "picked", PATCH_IN(n->in[0], v), 1, (struct attr[]){ attr_int("axis", 0), { .name = NULL } }));
	return LINNET_OK;
}

/* A Slice that takes the first `end` of an axis, and what it makes of what it is computed of. */
struct ends {
	const struct view *w;
	struct patch *p;
	const struct node *n;
	int axis, undone; /* undone: Pads that made it longer in the first place */
	dim end;
	bool fits;
};

static bool read_ends(struct ends *c)
{
	const struct graph *g = c->w->g;
	const struct node *n = c->n;
	int rank = g->value[n->in[0]].type.shape.rank;
	dim axis = n->nin > 3 && n->in[3] ? value_length(g, n->in[3]) : 0;

	if (rank < 1 || value_length(g, n->in[1]) != 0 || !dim_is_int(axis) || (n->nin > 4 && n->in[4] && value_length(g, n->in[4]) != 1))
		return false;
	c->axis = (int)(axis < 0 ? axis + rank : axis);
	c->end = value_length(g, n->in[2]);
	return c->end != DIM_NONE && c->axis >= 0 && c->axis < rank;
}

/* n makes an axis longer at its end, and nothing else. */
static bool pads_end(const struct graph *g, const struct node *n, int axis)
{
	const struct tensor *t = value_const(g, n->in[1]);
	const dim *sym = g->value[n->in[1]].type.sym;
	int rank = g->value[n->in[0]].type.shape.rank;

	if ((n->nin > 3 && n->in[3]) || rank < 0 || (t && t->n != 2 * rank) || (!t && (!sym || g->value[n->in[1]].type.shape.d[0] != 2 * rank)))
		return false;
	for (int i = 0; i < 2 * rank; i++) {
		dim x = t ? tensor_get_int(t, i) : sym[i];

		if (i == axis + rank ? x == DIM_NONE || !dim_ge(g->dims, x, 0) : x != 0)
			return false;
	}
	return true;
}

static value_id cut_end(struct ends *c, value_id v, int depth)
{
	static const char *const pointwise[] = { "Add", "Sub", "Mul", "Div", "Neg", NULL };
	const struct graph *g = c->w->g;
	const struct shape *s = &g->value[v].type.shape;
	const struct node *n = value_node(g, v);
	int rank = g->value[c->n->in[0]].type.shape.rank, axis = c->axis - (rank - s->rank);
	value_id in[5] = { v };
	uint32_t index;

	if (s->rank < 0 || (axis >= 0 && s->d[axis] == DIM_NONE)) {
		c->fits = false;
		return v;
	}
	if (axis < 0 || s->d[axis] == 1)
		return v;
	if (n && node_is(n, "Pad") && pads_end(g, n, axis) && g->value[n->in[0]].type.shape.d[axis] == c->end) {
		c->undone++;
		return n->in[0];
	}
	for (const char *const *name = pointwise; n && depth && value_user(c->w, v, &index) && *name; name++)
		if (node_is(n, *name)) {
			for (uint32_t i = 0; i < n->nin; i++)
				in[i] = cut_end(c, n->in[i], depth - 1);
			return patch_node(c->p, *name, node_label(g, n), in, n->nin, 1, NULL);
		}
	c->fits = c->fits && s->rank == rank;
	for (uint32_t i = 1; i < c->n->nin && i < 5; i++)
		in[i] = c->n->in[i];
	return patch_node(c->p, "Slice", node_label(g, c->n), in, c->n->nin, 1, NULL);
}

/* What was padded to whole chunks, and computed with element by element, is not padded when the padding is cut off again. */
static enum linnet_code tidy_padding(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	struct ends c = { .w = w, .p = p, .n = n, .fits = true };
	const struct node *sum = value_node(w->g, n->in[0]);
	value_id v;

	(void)e;
	if (!sum || !read_ends(&c))
		return LINNET_OK;
	v = cut_end(&c, n->in[0], 4);
	if (c.fits && c.undone)
		patch_replace(p, n->out[0], v);
	return LINNET_OK;
}

enum { MAX_MOVES = 6, MAX_LIST = 64 };

/* Elements of a list of lengths that are moved through matrices of them, as pads in pairs are: which they are, of the list. NULL: n does not do that. */
static enum linnet_code moved_elements(const struct view *w, const struct node *n, struct arena *a, value_id *list, const struct tensor **places, struct linnet_error *e)
{
	static const char *const moves[] = { "Reshape", "Slice", "Transpose", "Unsqueeze", "Squeeze", "Flatten", NULL };
	const struct graph *g = w->g;
	const struct node *chain[MAX_MOVES];
	const struct shape *s;
	struct tensor *t;
	int count = 0;

	*places = NULL;
	do {
		const char *const *name = moves;

		while (n && *name && !node_is(n, *name))
			name++;
		if (!n || !*name || count == MAX_MOVES)
			return LINNET_OK;
		chain[count++] = n;
		*list = n->in[0];
		s = &g->value[*list].type.shape;
		n = value_node(g, *list);
	} while (s->rank != 1);
	if (count < 3 || !dim_is_int(s->d[0]) || s->d[0] < 1 || s->d[0] > MAX_LIST)
		return LINNET_OK;
	TRY(tensor_new(a, DT_INT64, 1, s->d, &t, e));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put_int(t, i, i);
	while (count--) {
		const struct tensor *in[8] = { t };
		struct linnet_error quiet = { 0 };
		bool wanted = true;

		for (uint32_t i = 1; i < chain[count]->nin; i++)
			if (i == 8 || (chain[count]->in[i] && !(in[i] = value_const(g, chain[count]->in[i]))))
				return LINNET_OK;
		if (op_eval(chain[count]->op, chain[count]->attr, (int)chain[count]->nin, in, 1, &wanted, a, &t, &quiet))
			return quiet.code == LINNET_EMEM ? fail_mem(e) : LINNET_OK;
	}
	*places = t;
	return LINNET_OK;
}

/* The same elements are picked at once, which tells what they are. */
static enum linnet_code tidy_moved(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct type *t = &w->g->value[n->out[0]].type;
	const struct tensor *places;
	value_id list;

	if (t->dt != DT_INT64 || t->shape.rank != 1 || t->value)
		return LINNET_OK;
	TRY(moved_elements(w, n, p->arena, &list, &places, e));
	if (places)
		patch_replace(p, n->out[0], patch_node(p, "Gather", *n->name ? n->name : "picked", PATCH_IN(list, patch_const(p, places, "places")), 1,
		                                       (struct attr[]){ attr_int("axis", 0), { .name = NULL } }));
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "tidy/length", .doc = "lengths are read off the graph's inputs, or the first value that has them", .apply = tidy_length },
	{ .name = "tidy/identity", .doc = "nodes that change nothing are dropped", .first = true, .apply = tidy_identity },
	{ .name = "tidy/transpose", .doc = "transposes in a row become one or none", .anchor = "Transpose", .apply = tidy_transpose },
	{ .name = "tidy/turned-unit", .doc = "axes of length 1 are made behind a transpose", .anchor = "Transpose", .apply = tidy_turned_unit },
	{ .name = "tidy/reshape", .doc = "reshapes in a row become one", .anchor = "Reshape", .apply = tidy_reshape },
	{ .name = "tidy/kept-axis", .doc = "an axis that is reduced away and put back by a reshape is kept", .anchor = "Reshape", .apply = tidy_kept_axis },
	{ .name = "tidy/kept-axis-unit", .doc = "the same by an unsqueeze", .anchor = "Unsqueeze", .apply = tidy_kept_axis },
	{ .name = "tidy/moved-unit", .doc = "a reshape that moves axes of length 1 which were made in front of it is left out", .anchor = "Reshape", .apply = tidy_moved_unit },
	{ .name = "tidy/reshaped-unit", .doc = "a reshape is without the axes of length 1 that are dropped behind it", .anchor = "Squeeze", .apply = tidy_reshaped_unit },
	{ .name = "tidy/cast-like", .doc = "a cast to the type of another value is one to that type", .anchor = "CastLike", .apply = tidy_cast_like },
	{ .name = "tidy/squeeze", .doc = "a squeeze that undoes an unsqueeze is dropped", .anchor = "Squeeze", .apply = tidy_squeeze },
	{ .name = "tidy/gather", .doc = "GatherND along the first axis alone becomes Gather", .anchor = "GatherND", .apply = tidy_gather },
	{ .name = "tidy/moved", .doc = "elements of a list of lengths that are moved through a matrix of them are picked from the list", .anchor = "Reshape", .apply = tidy_moved },
	{ .name = "tidy/scan", .doc = "a scan over a single slice is its body", .anchor = "Scan", .apply = tidy_scan },
	{ .name = "tidy/padding", .doc = "what is padded at its end, computed with element by element and cut off again is not padded", .anchor = "Slice", .apply = tidy_padding },
	{ .name = "tidy/where", .doc = "a choice that is known is made", .anchor = "Where", .apply = tidy_where },
};

const struct pass tidy_pass = { .name = "tidy", .doc = "Drop what changes nothing", .kind = PASS_EXACT, PASS_RULES(rules) };
