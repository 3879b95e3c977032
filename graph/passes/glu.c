/*
 * Recognising gated linear units: y = act(x W + b) * (x V + c) becomes one GLU node over the two projections' results. Needs types,
 * and activations as one node (activate.c).
 *
 * Anchored on the product. Both sides have to come from projections of the same value: that is what tells a gated unit from any other
 * product. Which side is the gate is told by the activation; without one (bilinear) the first operand is.
 * Source: Dauphin et al. 2017; Shazeer, GLU Variants Improve Transformer, 2020.
 */
#include <string.h>

#include "graph/why.h"

/* ---- The unit ---- */

static bool is_ms(const struct node *n, const char *name)
{
	return n->op->domain && !strcmp(n->op->domain, "com.microsoft") && !strcmp(n->op->name, name);
}

/* A constant, a narrow one widened, or those of chosen experts. */
static bool is_weight(const struct graph *g, value_id v)
{
	for (int steps = 0; steps < 6 && !value_const(g, v); steps++) {
		const struct node *n = value_node(g, v);

		if (!n || !(node_is(n, "Gather") || node_is(n, "GatherND") || node_is(n, "Transpose") || node_is(n, "Cast") || node_is(n, "DequantizeLinear")))
			return false;
		v = n->in[0];
	}
	return value_const(g, v) != NULL;
}

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

/*
 * What v is a projection of: x when v comes from MatMul, Gemm or Einsum of x and a constant (or Conv), through bias, layout and halving; else 0.
 * *projection: that node, or the one where it is none; NULL at an input or constant.
 */
static value_id projected(const struct graph *g, value_id v, const struct node **projection)
{
	static const char *const through[] = { "Reshape", "Transpose", "Split", "Slice", "Squeeze", "Unsqueeze", "Identity", "Gather", NULL };

	for (int steps = 0; steps < 12; steps++) {
		const struct node *n = value_node(g, v);
		const char *const *t = through;

		*projection = n;
		if (n && is_ms(n, "MatMulNBits"))
			return n->in[0];
		if (!n || n->op->domain)
			return 0;
		if (node_is(n, "MatMulInteger") && value_const(g, n->in[1])) {
			const struct node *whole = value_from(g, n->in[0], "DynamicQuantizeLinear");

			return whole ? whole->in[0] : n->in[0];
		}
		if (node_is(n, "Mul") || node_is(n, "Cast")) { /* integers back to numbers, with the scales of both sides */
			const struct node *cast = value_from(g, n->in[0], "Cast");

			if (node_is(n, "Cast") ? !value_from(g, n->in[0], "MatMulInteger") : !cast || !value_from(g, cast->in[0], "MatMulInteger"))
				return 0;
			v = n->in[0];
			continue;
		}
		if (node_is(n, "MatMul") || (node_is(n, "Einsum") && n->nin == 2 && sums_over(node_attr(n, "equation")->s)))
			return is_weight(g, n->in[1]) ? n->in[0] : is_weight(g, n->in[0]) ? n->in[1] : 0;
		if (node_is(n, "Gemm") || node_is(n, "Conv"))
			return is_weight(g, n->in[1]) ? n->in[0] : 0;
		if (node_is(n, "Add")) {
			int bias = value_const(g, n->in[0]) ? 0 : 1;

			if (!value_const(g, n->in[bias]))
				return 0;
			v = n->in[1 - bias];
			continue;
		}
		while (*t && !node_is(n, *t))
			t++;
		if (!*t)
			return 0;
		v = n->in[0];
	}
	return 0;
}

/* Before the layout steps in front of a projection. */
static value_id source(const struct graph *g, value_id x)
{
	const struct node *n;

	while ((n = value_node(g, x)) != NULL && (node_is(n, "Reshape") || node_is(n, "Transpose") || node_is(n, "Flatten") || node_is(n, "Unsqueeze")))
		x = n->in[0];
	return x;
}

/* The activation of v and what it acts on; "identity" of v itself when there is none. */
static const char *activation(const struct graph *g, value_id v, value_id *gate, double *alpha)
{
	const struct node *n = value_node(g, v);
	double c;

	*gate = v;
	*alpha = 1;
	if (n && (is_ms(n, "Gelu") || (is_ms(n, "FastGelu") && (n->nin < 2 || !n->in[1])))) {
		*gate = n->in[0];
		return is_ms(n, "Gelu") ? "gelu" : "gelu_tanh";
	}
	if (n && is_ms(n, "QuickGelu")) {
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

/* act(gate) at input i of product n, and value beside it, can be one unit. */
static bool is_unit(const struct view *w, const struct node *n, int i, value_id gate, value_id value)
{
	const struct graph *g = w->g;
	bool bilinear = gate == n->in[i];
	value_id from_gate, from_value;
	const struct node *a, *b;

	if (!bilinear && value_uses(w, n->in[i]) != 1)
		return why_not(w, WHY_GLU_ACTIVATION_USED, other_user(w, n->in[i], n), n->in[i], 2);
	if (!shape_equal(&g->value[gate].type.shape, &g->value[value].type.shape))
		return !bilinear && why_not(w, WHY_GLU_HALVES_DIFFER, value_node(g, value), value, 3);
	from_gate = projected(g, gate, &a);
	if (!from_gate)
		return !bilinear && not_projected(w, gate, a, true);
	from_value = projected(g, value, &b);
	if (!from_value)
		return !bilinear && not_projected(w, value, b, false);
	return source(g, from_gate) == source(g, from_value) || (!bilinear && why_not(w, WHY_GLU_SOURCES_DIFFER, b, value, 6));
}

static enum linnet_code glu_product(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct op *row = op_newest("linnet", "GLU");

	(void)e;
	for (int i = 0; i < 2; i++) {
		value_id gate, value = n->in[1 - i], ignored;
		double alpha, unused;
		const char *act = activation(g, n->in[i], &gate, &alpha);
		struct attr attr[] = { attr_string("activation", act), attr_float("alpha", alpha), { .name = NULL } };
		bool bilinear = !strcmp(act, "identity");

		if (gate == value)
			continue;
		if (w->why && (value_const(g, value) || made_of(g, n->in[i], value, 5) || made_of(g, value, n->in[i], 5)))
			return LINNET_OK; /* an activation of one value, or a scaled one */
		if (bilinear && other_activation(g, gate))
			why_not(w, WHY_GLU_ACTIVATION, other_activation(g, gate), gate, 0);
		if (strcmp(activation(g, value, &ignored, &unused), "identity") || (!bilinear && other_activation(g, value))) {
			bool same = shape_equal(&g->value[gate].type.shape, &g->value[value].type.shape);

			if (!bilinear)
				why_not(w, same ? WHY_GLU_BOTH_ACTIVATED : WHY_GLU_HALVES_DIFFER, value_node(g, value), value, 1);
			continue;
		}
		if ((bilinear && i) || !is_unit(w, n, i, gate, value))
			continue;
		patch_replace(p, n->out[0], patch_op(p, row, *n->name ? n->name : "glu", PATCH_IN(gate, value), 1, attr));
		return LINNET_OK;
	}
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "glu/product", .doc = "an activated projection times another projection of the same value becomes GLU", .anchor = "Mul",
	  .apply = glu_product, .differs = 1e-12 },
};

const struct pass glu_pass = { .name = "glu", .doc = "Recognise gated linear units", .kind = PASS_EXACT, PASS_RULES(rules) };
