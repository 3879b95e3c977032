/*
 * Recognising rotary embedding with halves: y = x cos + rotate(x) sin, rotate(x) = [-x2, x1] for x = [x1, x2]. Needs types. Leaves
 * RotaryEmbedding, whose tables are half as wide.
 *
 * Source: Su et al., RoFormer, 2021, section 3.4.2; the half-split pairing of GPT-NeoX and Llama.
 */
#include <string.h>

#include "graph/pass.h"

/* v is x[..., from..to) with constant bounds over the last axis: x. */
static value_id sliced(const struct graph *g, value_id v, int64_t from, int64_t to)
{
	const struct node *n = value_from(g, v, "Slice");
	const struct shape *s;
	int64_t a, b, axis, step = 1;
	int count;

	if (!n || n->nin < 4)
		return 0;
	s = &g->value[n->in[0]].type.shape;
	if (s->rank < 1 || !value_ints(g, n->in[1], &a, 1, &count) || !value_ints(g, n->in[2], &b, 1, &count) ||
	    !value_ints(g, n->in[3], &axis, 1, &count) || (n->nin > 4 && n->in[4] && !value_ints(g, n->in[4], &step, 1, &count)))
		return 0;
	if ((axis != -1 && axis != s->rank - 1) || step != 1 || !dim_is_int(s->d[s->rank - 1]))
		return 0;
	a = a < 0 ? a + s->d[s->rank - 1] : a;
	b = b < 0 ? b + s->d[s->rank - 1] : b > s->d[s->rank - 1] ? s->d[s->rank - 1] : b;
	return a == from && b == to ? n->in[0] : 0;
}

/* x when v is [-x2, x1] of it. */
static value_id unrotated(const struct graph *g, value_id v)
{
	const struct node *concat = value_from(g, v, "Concat"), *neg, *split;
	const struct shape *s = &g->value[v].type.shape;
	int64_t width, axis;
	value_id x;

	if (!concat || concat->nin != 2 || s->rank < 1 || !dim_is_int(s->d[s->rank - 1]))
		return 0;
	axis = node_attr(concat, "axis")->i;
	neg = value_from(g, concat->in[0], "Neg");
	width = s->d[s->rank - 1];
	if ((axis != -1 && axis != s->rank - 1) || !neg || width % 2)
		return 0;
	split = value_from(g, neg->in[0], "Split");
	if (split && split->nout == 2 && split->out[1] == neg->in[0] && split->out[0] == concat->in[1] &&
	    (node_attr(split, "axis")->i == -1 || node_attr(split, "axis")->i == s->rank - 1) &&
	    g->value[split->out[0]].type.shape.d[s->rank - 1] == width / 2)
		return split->in[0];
	x = sliced(g, neg->in[0], width / 2, width);
	return x && sliced(g, concat->in[1], 0, width / 2) == x ? x : 0;
}

/* The two halves of v's last axis are equal: by its values, or because it comes elementwise from Concat(f, f). */
static bool halves_equal(const struct graph *g, value_id v)
{
	static const char *const elementwise[] = { "Cos", "Sin", "Cast", "Identity", "Unsqueeze", "Mul", "Transpose", "Gather", "Reshape", NULL };

	for (int steps = 0; steps < 12; steps++) {
		const struct tensor *t = value_const(g, v);
		const struct node *n = value_node(g, v);
		const char *const *op = elementwise;
		int rank = g->value[v].type.shape.rank;
		double c;

		if (t && t->rank && t->d[t->rank - 1] % 2 == 0) {
			int64_t width = t->d[t->rank - 1];

			for (int64_t i = 0; i < t->n; i++)
				if (i % width < width / 2 && tensor_get(t, i) != tensor_get(t, i + width / 2))
					return false;
			return true;
		}
		if (!n || rank < 1)
			return false;
		if (node_is(n, "Concat"))
			return n->nin == 2 && n->in[0] == n->in[1] && (node_attr(n, "axis")->i == -1 || node_attr(n, "axis")->i == rank - 1);
		while (*op && !node_is(n, *op))
			op++;
		if (!*op || g->value[n->in[0]].type.shape.rank < 1)
			return false;
		if (g->value[n->in[0]].type.shape.d[g->value[n->in[0]].type.shape.rank - 1] != g->value[v].type.shape.d[rank - 1])
			return false; /* the last axis is no longer the same one */
		if (node_is(n, "Mul") && !value_scalar(g, n->in[1], &c))
			return false;
		if (node_is(n, "Transpose"))
			return false;
		v = n->in[0];
	}
	return false;
}

/* cos or sin [b, 1, L, D] as RotaryEmbedding's table [B, L, D / 2]; `x` [B, H, L, D] gives the batch. 0 when it does not fit. */
static value_id table(struct patch *p, value_id v, value_id x)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	const struct graph *g = p->g;
	const struct shape *s = &g->value[v].type.shape, *xs = &g->value[x].type.shape;
	value_id half;
	bool lead = s->rank == 4;

	half = patch_node(p, "Slice", "half",
	                  PATCH_IN(v, patch_ints(p, (int64_t[]){ 0 }, 1, "from"), patch_ints(p, (int64_t[]){ xs->d[3] / 2 }, 1, "to"),
	                           patch_ints(p, (int64_t[]){ -1 }, 1, "axis")),
	                  1, NULL);
	if (lead)
		half = patch_node(p, "Squeeze", "table", PATCH_IN(half, patch_ints(p, (int64_t[]){ 1 }, 1, "axis")), 1, NULL);
	if (lead ? s->d[0] == xs->d[0] : s->rank == 3 && s->d[0] == xs->d[0])
		return half;
	if (s->rank == 2)
		half = patch_node(p, "Unsqueeze", "table", PATCH_IN(half, patch_ints(p, (int64_t[]){ 0 }, 1, "axis")), 1, NULL);
	return patch_node(p, "Expand", "table",
	                  PATCH_IN(half, patch_node(p, "Concat", "shape",
	                                            PATCH_IN(patch_lengths(p, x, 0, 1, "shape"), patch_lengths(p, half, 1, INT64_MAX, "shape")),
	                                            1, axis0)),
	                  1, NULL);
}

static bool table_fits(const struct graph *g, value_id v, const struct shape *x)
{
	const struct shape *s = &g->value[v].type.shape;

	if (s->rank < 2 || s->rank > 4 || s->rank == 3 || (s->rank == 4 && s->d[1] != 1))
		return false;
	if (s->d[s->rank - 1] != x->d[3] || s->d[s->rank - 2] != x->d[2] || (s->rank == 4 && s->d[0] != 1 && s->d[0] != x->d[0]))
		return false;
	return halves_equal(g, v);
}

bool rope_find(const struct graph *g, value_id v, struct rope *r)
{
	const struct node *n = value_node(g, v);

	*r = (struct rope){ .node = n && node_is(n, "RotaryEmbedding") ? n : NULL };
	if (r->node)
		r->x = n->in[0];
	for (int i = 0; n && node_is(n, "Add") && !r->x && i < 2; i++) {
		const struct node *plain = value_from(g, n->in[i], "Mul"), *turned = value_from(g, n->in[1 - i], "Mul");

		for (int j = 0; plain && turned && !r->x && j < 4; j++)
			if (unrotated(g, turned->in[j >> 1]) == plain->in[j & 1])
				*r = (struct rope){ .x = plain->in[j & 1], .cos = plain->in[1 - (j & 1)], .sin = turned->in[1 - (j >> 1)] };
	}
	return r->x != 0;
}

static enum linnet_code rope_halves(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;

	(void)e;
	for (int i = 0; i < 2; i++) {
		const struct node *plain = value_from(g, n->in[i], "Mul"), *turned = value_from(g, n->in[1 - i], "Mul");

		for (int j = 0; plain && turned && j < 4; j++) {
			value_id x = plain->in[j & 1], cos = plain->in[1 - (j & 1)], r = turned->in[j >> 1], sin = turned->in[1 - (j >> 1)];
			const struct shape *s = &g->value[x].type.shape;

			if (s->rank != 4 || unrotated(g, r) != x || !dtype_in(g->value[x].type.dt, SET(FLOAT) | HALVES) ||
			    g->value[cos].type.dt != g->value[x].type.dt || !table_fits(g, cos, s) || !table_fits(g, sin, s))
				continue;
			patch_replace(p, n->out[0],
			              patch_node(p, "RotaryEmbedding", *n->name ? n->name : "rope", PATCH_IN(x, table(p, cos, x), table(p, sin, x)), 1, NULL));
			return LINNET_OK;
		}
	}
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "rope/halves", .doc = "x cos + [-x2, x1] sin becomes RotaryEmbedding", .anchor = "Add", .apply = rope_halves, .differs = 1e-6 },
};

const struct pass rope_pass = { .name = "rope", .doc = "Recognise rotary embedding", .kind = PASS_EXACT, .makes = "RotaryEmbedding", PASS_RULES(rules) };
