/*
 * Recognising gated linear units: y = act(x W + b) * (x V + c) becomes one GLU node over the two projections' results. Needs types,
 * and activations as one node (activate.c).
 *
 * Anchored on the product. Both sides have to come from projections of the same value: that is what tells a gated unit from any other
 * product. Which side is the gate is told by the activation; without one (bilinear) the first operand is.
 * Source: Dauphin et al. 2017; Shazeer, GLU Variants Improve Transformer, 2020.
 */
#include <string.h>

#include "graph/recognise.h"
#include "graph/why.h"

/* ---- The unit ---- */

/* An Einsum of two operands that sums over an axis of both. */
static bool sums_over(struct text equation)
{
	const char *end = equation.p + equation.n, *comma = memchr(equation.p, ',', equation.n), *arrow = memchr(equation.p, '-', equation.n);

	if (!comma || !arrow || comma > arrow)
		return false;
	for (const char *s = equation.p; s < comma; s++)
		if (*s != ' ' && *s != '.' && memchr(comma, *s, (size_t)(arrow - comma)) && !memchr(arrow, *s, (size_t)(end - arrow)))
			return true;
	return false;
}

/* The value that n, a projection, takes a weight to; 0: n only scales it, or does more than project. */
static value_id projected_by(const struct graph *g, const struct node *n)
{
	bool first = node_is(n, "MatMul") && value_is_weight(g, n->in[0]);

	if (part_kind(g, n) || attr_given(node_attr(n, "activation")) || (node_is(n, "Einsum") && !(n->nin == 2 && sums_over(node_attr(n, "equation")->s))))
		return 0;
	return n->in[first || (node_is(n, "Einsum") && value_is_weight(g, n->in[0]))];
}

/* Scales, of weights or of a value that was quantised on the way. */
static bool is_scale(const struct graph *g, value_id v, int depth)
{
	const struct node *n = value_node(g, v);

	if (value_is_weight(g, v))
		return true;
	if (!n || !depth || n->op->domain)
		return n && n->op->domain && node_is_ms(n, "DynamicQuantizeLinear");
	if (node_is(n, "DynamicQuantizeLinear"))
		return v != n->out[0];
	return node_is(n, "Mul") ? is_scale(g, n->in[0], depth - 1) && is_scale(g, n->in[1], depth - 1)
	                         : (node_is(n, "Cast") || node_is(n, "Unsqueeze") || node_is(n, "Reshape")) && is_scale(g, n->in[0], depth - 1);
}

enum { MAX_STEPS = 16, MAX_LEVELS = 4 };
enum { SUMS = 1, NORMS = 2 }; /* what projections may lie behind */

/* The values that v is a projection of: in front of the last one, of the one before that, and so on. */
struct sources {
	value_id v[MAX_LEVELS], way[MAX_STEPS];
	int n, nway;            /* way: from v to the last projection */
	const struct node *end; /* where no projection was found; NULL: at an input or constant */
};

static void sources_of(const struct graph *g, value_id v, unsigned behind, struct sources *s);

/* Sums of projections of one value, as weights with low-rank ones beside them. */
static value_id common_source(const struct graph *g, const struct node *sum, unsigned behind)
{
	struct sources a, b;

	if (!(behind & SUMS))
		return 0;
	sources_of(g, sum->in[0], behind & ~(unsigned)SUMS, &a);
	sources_of(g, sum->in[1], behind & ~(unsigned)SUMS, &b);
	for (int i = 0; i < a.n; i++)
		for (int k = 0; k < b.n; k++)
			if (a.v[i] == b.v[k])
				return a.v[i];
	return 0;
}

/* What v is a projection of, through scales, bias, layout, halving and changes of type; 0: of nothing, and in s where that shows. */
static value_id projected(const struct graph *g, value_id v, unsigned behind, struct sources *s)
{
	static const char *const through[] = { "Reshape", "Transpose", "Split", "Slice", "Squeeze", "Unsqueeze", "Identity", "Gather", "Cast", "QuantizeLinear", "DequantizeLinear",
		                               "Neg", "Flatten", "BatchNormalization", NULL };

	for (int steps = 0; steps < MAX_STEPS; steps++) {
		const struct node *n = value_node(g, v);

		if (!s->n) {
			s->end = n;
			s->way[s->nway++] = v;
		}
		if (!n || !n->nin)
			return 0;
		if (is_projection(g, n))
			return projected_by(g, n);
		if (n->op->domain)
			return 0;
		if (node_among(n, through) || (behind & NORMS && node_norm(g, n) >= 0)) {
			v = n->in[0];
		} else if (node_is(n, "Add") || node_is(n, "Sub")) {
			int bias = value_is_weight(g, n->in[0]) ? 0 : 1;

			if (!value_is_weight(g, n->in[bias]))
				return common_source(g, n, behind);
			v = n->in[1 - bias];
		} else if (node_is(n, "Mul") || (node_is(n, "Div") && value_is_weight(g, n->in[1]))) {
			int scale = is_scale(g, n->in[0], 4) ? 0 : 1;

			if (!is_scale(g, n->in[scale], 4))
				return 0;
			v = n->in[1 - scale];
		} else {
			return 0;
		}
	}
	return 0;
}

/* Before what only lays out, scales or quantises in front of a projection. */
static value_id source(const struct graph *g, value_id x)
{
	static const char *const through[] = { "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", NULL };
	const struct node *n;

	while ((n = value_node(g, x)) != NULL) {
		if (!node_among(n, through) && !(node_is(n, "Mul") && value_is_weight(g, n->in[1])))
			break;
		x = n->in[0];
	}
	return x;
}

static void sources_of(const struct graph *g, value_id v, unsigned behind, struct sources *s)
{
	*s = (struct sources){ .n = 0 };
	while (s->n < MAX_LEVELS && (v = projected(g, v, behind, s)) != 0)
		s->v[s->n++] = v = source(g, v);
}

/* b, or what it is of the same projection, is what a is made of. */
static bool made_of_value(const struct graph *g, const struct sources *a, const struct sources *b)
{
	for (int i = 0; i < a->n; i++)
		for (int k = 0; k < b->nway; k++)
			if (a->v[i] == b->way[k] || a->v[i] == source(g, b->way[k]))
				return true;
	for (int i = 0; i < a->nway; i++)
		if (a->way[i] == b->way[0])
			return true;
	return false;
}

/* Both are projections of one value. */
static bool share_source(const struct graph *g, const struct sources *a, const struct sources *b, bool bilinear)
{
	if (bilinear) /* whose product says little, unless it is of the same */
		return a->v[0] == b->v[0];
	for (int i = 0; i < a->n; i++)
		for (int k = 0; k < b->n; k++)
			if (a->v[i] == b->v[k])
				return !made_of_value(g, a, b) && !made_of_value(g, b, a);
	return false;
}

/* The activation of v and what it acts on, *bias added where that is one; "identity" of v itself when there is none. */
static const char *activation(const struct graph *g, value_id v, value_id *gate, value_id *bias, double *alpha)
{
	const struct node *n = value_node(g, v);
	double c;

	*gate = v;
	*alpha = 1;
	*bias = 0;
	if (n && (node_is_ms(n, "Gelu") || node_is_ms(n, "BiasGelu") || node_is_ms(n, "FastGelu"))) {
		*gate = n->in[0];
		*bias = n->nin > 1 ? n->in[1] : 0;
		return node_is_ms(n, "FastGelu") ? "gelu_tanh" : "gelu";
	}
	if (n && node_is_ms(n, "QuickGelu")) {
		*gate = n->in[0];
		*alpha = node_attr(n, "alpha")->f;
		return "swish";
	}
	if (!n || n->op->domain)
		return "identity";
	if (node_is(n, "Max"))
		for (int i = 0; n->nin == 2 && i < 2; i++)
			if (value_scalar(g, n->in[i], &c) && c == 0) {
				*gate = n->in[1 - i];
				return "relu";
			}
	if (node_is(n, "Clip") && n->nin > 1 && n->in[1] && value_scalar(g, n->in[1], &c) && c == 0 && (n->nin < 3 || !n->in[2])) {
		*gate = n->in[0];
		return "relu";
	}
	if (!(node_is(n, "Sigmoid") || node_is(n, "Relu") || node_is(n, "Gelu") || node_is(n, "Swish")))
		return "identity";
	*gate = n->in[0];
	if (node_is(n, "Sigmoid"))
		return "sigmoid";
	if (node_is(n, "Relu"))
		return "relu";
	if (node_is(n, "Gelu"))
		return node_attr(n, "approximate")->s.n == 4 && !memcmp(node_attr(n, "approximate")->s.p, "tanh", 4) ? "gelu_tanh" : "gelu";
	*alpha = node_attr(n, "alpha")->f;
	return "swish";
}

/* An activation that no unit here has, or NULL. */
static const struct node *other_activation(const struct graph *g, value_id v)
{
	static const char *const names[] = { "Tanh", "HardSigmoid", "HardSwish", "Elu", "Celu", "Selu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Mish",
		                             "Softplus", "Softsign", NULL };
	const struct node *n = value_node(g, v);

	for (const char *const *s = names; n && *s; s++)
		if (node_is(n, *s))
			return n;
	return NULL;
}

/* v is made of root, without a projection in between: their product is an activation of one value. */
static bool made_of(const struct graph *g, value_id v, value_id root, int depth)
{
	const struct node *n = value_node(g, v);

	if (v == root)
		return true;
	if (!n || !depth || node_is(n, "MatMul") || node_is(n, "Gemm") || node_is(n, "Conv"))
		return false;
	for (uint32_t i = 0; i < n->nin; i++)
		if (n->in[i] && made_of(g, n->in[i], root, depth - 1))
			return true;
	return false;
}

/* Why a value that should be a projection is none. n: where it stops. */
static bool not_projected(const struct view *w, value_id v, const struct node *n, bool gate)
{
	bool limited = n && (node_is(n, "Clip") || node_is(n, "Min") || node_is(n, "Max"));

	return why_not(w, limited ? WHY_GLU_LIMITS : gate ? WHY_GLU_GATE_NOT_PROJECTED : WHY_GLU_VALUE_NOT_PROJECTED, n, v, gate ? 4 : 5);
}

/* active, act(gate), and value, whose product is n, can be one unit. */
static bool is_unit(const struct view *w, const struct node *n, value_id active, value_id gate, value_id value)
{
	const struct graph *g = w->g;
	bool bilinear = gate == active;
	struct sources from_gate, from_value;

	if (!bilinear && value_uses(w, active) != 1)
		return why_not(w, WHY_GLU_ACTIVATION_USED, other_user(w, active, n), active, 2);
	if (!shape_equal(&g->value[gate].type.shape, &g->value[value].type.shape))
		return !bilinear && why_not(w, WHY_GLU_HALVES_DIFFER, value_node(g, value), value, 3);
	sources_of(g, gate, bilinear ? 0 : SUMS | NORMS, &from_gate);
	if (!from_gate.n)
		return !bilinear && not_projected(w, gate, from_gate.end, true);
	sources_of(g, value, bilinear ? 0 : SUMS | NORMS, &from_value);
	if (!from_value.n)
		return !bilinear && not_projected(w, value, from_value.end, false);
	return share_source(g, &from_gate, &from_value, bilinear) || (!bilinear && why_not(w, WHY_GLU_SOURCES_DIFFER, from_value.end, value, 6));
}

/* v before it is multiplied by numbers, *c: by which. */
static value_id unscaled(const struct view *w, value_id v, double *c)
{
	for (int steps = 0; steps < MAX_STEPS; steps++) {
		const struct node *n = value_uses(w, v) == 1 ? value_node(w->g, v) : NULL;
		bool first;
		double k;

		if (!n || !(node_is(n, "Mul") || node_is(n, "Div")))
			break;
		first = node_is(n, "Mul") && value_scalar(w->g, n->in[0], &k);
		if ((!first && !value_scalar(w->g, n->in[1], &k)) || k == 0 || !shape_equal(&w->g->value[n->in[first]].type.shape, &w->g->value[v].type.shape))
			break;
		*c *= node_is(n, "Mul") ? k : 1 / k;
		v = n->in[first];
	}
	return v;
}

static enum linnet_code glu_product(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct op *row = op_newest("linnet", "GLU");
	value_id in[2];
	double scale = 1;

	(void)e;
	for (int i = 0; i < 2; i++)
		in[i] = unscaled(w, n->in[i], &scale);
	for (int i = 0; i < 2; i++) {
		value_id gate, value = in[1 - i], bias, ignored, v;
		double alpha, unused;
		const char *act = activation(g, in[i], &gate, &bias, &alpha);
		struct attr attr[] = { attr_string("activation", act), attr_float("alpha", alpha), { .name = NULL } };
		bool bilinear = !strcmp(act, "identity");

		if (gate == value)
			continue;
		if (w->why && (value_const(g, value) || made_of(g, in[i], value, 5) || made_of(g, value, in[i], 5)))
			return LINNET_OK; /* an activation of one value, or a scaled one */
		if (bilinear && other_activation(g, gate))
			why_not(w, WHY_GLU_ACTIVATION, other_activation(g, gate), gate, 0);
		if (strcmp(activation(g, value, &ignored, &ignored, &unused), "identity") || (!bilinear && other_activation(g, value))) {
			bool same = shape_equal(&g->value[gate].type.shape, &g->value[value].type.shape);

			if (!bilinear)
				why_not(w, same ? WHY_GLU_BOTH_ACTIVATED : WHY_GLU_HALVES_DIFFER, value_node(g, value), value, 1);
			continue;
		}
		if ((bilinear && i) || !is_unit(w, n, in[i], gate, value))
			continue;
		gate = bias ? patch_node(p, "Add", "biased", PATCH_IN(gate, bias), 1, NULL) : gate;
		v = patch_op(p, row, *n->name ? n->name : "glu", PATCH_IN(gate, value), 1, attr);
		patch_replace(p, n->out[0], scale == 1 ? v : patch_node(p, "Mul", "scaled", PATCH_IN(v, patch_float(p, g->value[n->out[0]].type.dt, scale, "scale")), 1, NULL));
		return LINNET_OK;
	}
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "glu/product", .doc = "an activated projection times another projection of the same value becomes GLU", .anchor = "Mul",
	  .apply = glu_product, .differs = 1e-12 },
};

const struct pass glu_pass = { .name = "glu", .doc = "Recognise gated linear units", .kind = PASS_EXACT, PASS_RULES(rules) };
