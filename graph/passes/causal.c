/*
 * Recognising causal convolutions of each channel by itself: Conv over places up to the own one, where zeros are put in front (and what they make
 * too much at either end is cut off), or the last places of a state whose successor is the end of the same values. They become CausalConvWithState,
 * with silu where Swish follows.
 */
#include <string.h>

#include "graph/pass.h"
#include "graph/why.h"

static const struct type *typed(const struct graph *g, value_id v) { return &g->value[v].type; }

/* Slice n takes `length` elements from `start` on, of axis 2 of three. */
static bool slices(const struct graph *g, const struct node *n, int64_t start, dim length)
{
	int64_t at, axis, step = 1;
	int count;

	return node_is(n, "Slice") && n->nin > 3 && value_ints(g, n->in[1], &at, 1, &count) && count == 1 && at == start &&
	       value_ints(g, n->in[3], &axis, 1, &count) && count == 1 && (axis == 2 || axis == -1) &&
	       (n->nin < 5 || !n->in[4] || (value_ints(g, n->in[4], &step, 1, &count) && count == 1 && step == 1)) &&
	       g->value[n->out[0]].type.shape.rank == 3 && g->value[n->out[0]].type.shape.d[2] == length;
}

/* Pad puts so many zeros in front of axis 2 of three, and nothing else. */
static bool pads_front(const struct graph *g, const struct node *n, int64_t history)
{
	int64_t pads[6];
	int count;

	if (!pads_zeros(g, n) || !value_ints(g, n->in[1], pads, 6, &count) || count != 6)
		return false;
	for (int i = 0; i < 6; i++)
		if (pads[i] != (i == 2 ? history : 0))
			return false;
	return true;
}

/* Every channel by itself, each place and those before it. */
struct causal_conv {
	value_id x, past, y; /* past 0: zeros */
	value_id padded;     /* past and x, where there is such a value */
	int64_t history;
};

static bool read_conv(const struct view *w, const struct node *n, struct causal_conv *c)
{
	const struct graph *g = w->g;
	const struct shape *k = &typed(g, n->in[1])->shape, *x = &typed(g, n->in[0])->shape;
	const struct attr *pads = node_attr(n, "pads"), *strides = node_attr(n, "strides"), *dilations = node_attr(n, "dilations");
	struct text mode = node_attr(n, "auto_pad")->s;
	const struct node *from = value_node(g, n->in[0]), *cut;
	bool padded = pads->kind == ATTR_INTS && pads->n == 2;
	int64_t before = padded ? pads->ints[0] : 0, after = padded ? pads->ints[1] : 0, dilation = dilations->n ? dilations->ints[0] : 1, extra;

	if (x->rank != 3 || k->rank != 3 || !dim_is_int(k->d[0]) || k->d[1] != 1 || !dim_is_int(k->d[2]) || k->d[2] < 2 || node_attr(n, "group")->i != k->d[0] ||
	    x->d[1] != k->d[0] || (strides->n && (strides->n != 1 || strides->ints[0] != 1)) ||
	    dilations->n > 1 || mode.n != 6 || memcmp(mode.p, "NOTSET", 6) != 0 ||
	    !dtype_in(typed(g, n->in[0])->dt, SET(FLOAT) | SET(FLOAT16) | SET(BFLOAT16)))
		return false;
	*c = (struct causal_conv){ .x = n->in[0], .y = n->out[0], .history = (k->d[2] - 1) * dilation };
	if (from && pads_front(g, from, c->history)) {
		c->padded = n->in[0];
		c->x = from->in[0];
	} else if (from && node_is(from, "Concat") && from->nin == 2 && (node_attr(from, "axis")->i == 2 || node_attr(from, "axis")->i == -1) &&
	           typed(g, from->in[0])->shape.d[2] == c->history) {
		c->padded = n->in[0];
		c->past = from->in[0];
		c->x = from->in[1];
	}
	extra = before - (c->padded ? 0 : c->history); /* places in front of the first */
	if (extra < 0 || after < 0)
		return false;
	if (!extra && !after)
		return dilation == 1 || why_not(w, WHY_CONV_DILATED, n, n->out[0], 1);
	cut = value_user(w, n->out[0], NULL);
	if (!cut || !slices(g, cut, extra, typed(g, c->x)->shape.d[2]))
		return false;
	c->y = cut->out[0];
	return dilation == 1 || why_not(w, WHY_CONV_DILATED, n, n->out[0], 1);
}

/* The end of what was filtered becomes the state to go on from. */
static enum linnet_code convolution(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	struct causal_conv c;
	const struct node *gate;
	struct attr attr[2] = { { .name = NULL } };
	value_id y;

	(void)e;
	if (!read_conv(w, n, &c))
		return LINNET_OK;
	gate = value_user(w, c.y, NULL);
	if (gate && node_is(gate, "Swish") && node_attr(gate, "alpha")->f == 1) {
		attr[0] = attr_string("activation", "silu");
		attr[1].name = NULL;
		c.y = gate->out[0];
	}
	y = patch_node(p, "CausalConvWithState", *n->name ? n->name : "conv", PATCH_IN(c.x, n->in[1], n->nin > 2 ? n->in[2] : 0, c.past), 2, attr);
	patch_replace(p, c.y, y);
	for (uint32_t i = w->uses.begin[c.padded]; c.padded && i < w->uses.end[c.padded]; i++) {
		const struct node *user = w->uses.use[i].node ? &g->node[w->uses.use[i].node] : NULL;

		if (user && !w->uses.use[i].index && slices(g, user, -c.history, c.history)) {
			patch_replace(p, user->out[0], y + 1);
			break;
		}
	}
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "causal/conv", .doc = "a convolution of each channel over places up to its own, padded or behind a state, becomes CausalConvWithState", .anchor = "Conv",
	  .apply = convolution, .differs = 1e-5 },
};

const struct pass causal_pass = { .name = "causal", .doc = "Recognise causal convolutions", .kind = PASS_EXACT, .makes = "CausalConvWithState", PASS_RULES(rules) };
