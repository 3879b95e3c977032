/*
 * Saying the same more plainly, so that patterns stay few: no identities, no steps that cancel. Needs types. Every rule gives the
 * same bits.
 */
#include <string.h>

#include "graph/pass.h"

bool node_copies(const struct view *w, const struct node *n)
{
	const struct graph *g = w->g;
	const struct type *in, *out;
	double c;

	if (!n->known || n->op->domain || !n->nout || !n->out[0] || !n->nin || !n->in[0])
		return false;
	in = &g->value[n->in[0]].type;
	out = &g->value[n->out[0]].type;
	if (node_is(n, "Identity"))
		return true;
	if (node_is(n, "Dropout")) {
		bool training = n->nin > 2 && n->in[2] && !(value_scalar(g, n->in[2], &c) && c == 0);

		return !training && (n->nout < 2 || !n->out[1] || !value_uses(w, n->out[1]));
	}
	if (node_is(n, "Cast"))
		return in->dt == out->dt && in->dt != DT_UNDEFINED;
	if (node_is(n, "Concat"))
		return n->nin == 1;
	if (in->dt != out->dt || !shape_equal(&in->shape, &out->shape))
		return false;
	if (node_is(n, "Reshape") || node_is(n, "Expand") || node_is(n, "Squeeze") || node_is(n, "Unsqueeze") || node_is(n, "Flatten"))
		return true;
	if (node_is(n, "Slice") && n->nin > 4 && n->in[4]) /* equal lengths: whole unless it steps backwards */
		return value_scalar(g, n->in[4], &c) && c == 1;
	if (node_is(n, "Slice"))
		return true;
	if (node_is(n, "Add") || node_is(n, "Sub"))
		return value_scalar(g, n->in[1], &c) && c == 0 && dtype_class(in->dt) != CLASS_FLOAT;
	if (node_is(n, "Mul") || node_is(n, "Div"))
		return value_scalar(g, n->in[1], &c) && c == 1;
	return false;
}

static enum linnet_code tidy_identity(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	(void)e;
	if (!node_copies(w, n))
		return LINNET_OK;
	if (value_is_output(w, n->out[0]) && (w->g->value[n->in[0]].kind != VALUE_NODE || value_is_output(w, n->in[0])))
		return LINNET_OK; /* what gives an output its name stays */
	patch_replace(p, n->out[0], n->in[0]);
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

/* Reshape of a Reshape (or of another view): only the last shape matters, unless it copies lengths by 0. */
static enum linnet_code tidy_reshape(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct node *before = value_node(w->g, n->in[0]);
	int64_t to[MAX_RANK];
	struct attr attr[] = { attr_int("allowzero", node_attr(n, "allowzero")->i), { .name = NULL } };
	int rank;

	(void)e;
	if (!before || !(node_is(before, "Reshape") || node_is(before, "Squeeze") || node_is(before, "Unsqueeze") || node_is(before, "Flatten")) ||
	    !value_ints(w->g, n->in[1], to, MAX_RANK, &rank))
		return LINNET_OK;
	for (int i = 0; i < rank; i++)
		if (to[i] == 0)
			return LINNET_OK;
	patch_replace(p, n->out[0], patch_node(p, "Reshape", n->name, PATCH_IN(before->in[0], n->in[1]), 1, attr));
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

/* The graph input and axis of which d is the length. */
static bool input_of_length(const struct graph *g, dim d, value_id *input, int *axis)
{
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct type *t = &g->value[g->in[i]].type;

		for (*axis = 0; t->kind == KIND_TENSOR && *axis < t->shape.rank; ++*axis)
			if (t->shape.d[*axis] == d) {
				*input = g->in[i];
				return true;
			}
	}
	return false;
}

/* v is a length read off a graph input: Shape of one axis, or Gather of Shape where Shape of one axis would not be shorter. */
static bool is_input_length(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);
	int opset = graph_main(g)->opset;

	if (n && node_is(n, "Gather") && (!g->value[v].type.shape.rank || (opset && opset < 15)))
		n = value_node(g, n->in[0]);
	return n && node_is(n, "Shape") && g->value[n->in[0]].kind == VALUE_INPUT;
}

/*
 * A number that is one symbolic length of a graph input is read off that input. Exporters read lengths off whatever value is at hand, attention's
 * scores among them, which would keep it alive.
 */
static enum linnet_code tidy_length(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct type *t = n->nout == 1 && n->out[0] ? &g->value[n->out[0]].type : NULL;
	value_id input, v;
	int axis;

	(void)e;
	if (g->outer || !t || !t->sym || t->value || t->dt != DT_INT64 || t->shape.rank > 1 || (t->shape.rank == 1 && t->shape.d[0] != 1) ||
	    !dim_is_expr(t->sym[0]) || !n->known || n->op->domain)
		return LINNET_OK;
	if (!(node_is(n, "Gather") || node_is(n, "Slice") || node_is(n, "Shape") || node_is(n, "Squeeze") || node_is(n, "Unsqueeze")) ||
	    is_input_length(g, n->out[0]) || (node_is(n, "Squeeze") && is_input_length(g, n->in[0])) ||
	    !input_of_length(g, t->sym[0], &input, &axis))
		return LINNET_OK;
	v = patch_lengths(p, input, axis, axis + 1, "length");
	if (t->shape.rank == 0)
		v = patch_node(p, "Squeeze", "length", PATCH_IN(v, patch_ints(p, (int64_t[]){ 0 }, 1, "axis")), 1, NULL);
	patch_replace(p, n->out[0], v);
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "tidy/length", .doc = "lengths of the graph's inputs are read off the inputs", .apply = tidy_length },
	{ .name = "tidy/identity", .doc = "nodes that change nothing are dropped", .apply = tidy_identity },
	{ .name = "tidy/transpose", .doc = "transposes in a row become one or none", .anchor = "Transpose", .apply = tidy_transpose },
	{ .name = "tidy/reshape", .doc = "reshapes in a row become one", .anchor = "Reshape", .apply = tidy_reshape },
	{ .name = "tidy/squeeze", .doc = "a squeeze that undoes an unsqueeze is dropped", .anchor = "Squeeze", .apply = tidy_squeeze },
	{ .name = "tidy/scan", .doc = "a scan over a single slice is its body", .anchor = "Scan", .apply = tidy_scan },
	{ .name = "tidy/where", .doc = "a choice that is known is made", .anchor = "Where", .apply = tidy_where },
};

const struct pass tidy_pass = { .name = "tidy", .doc = "Drop what changes nothing", .kind = PASS_EXACT, PASS_RULES(rules) };
