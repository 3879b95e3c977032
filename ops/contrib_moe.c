/*
 * Mixtures of experts of com.microsoft: shape functions, reference kernels, then rows.
 *
 * Letters: T tokens, E experts, H width of tokens, I width inside, F I rows of the first layer (F 2 when a gate is fused), P numbers a byte.
 */
#include <math.h>
#include <string.h>

#include "ops/contrib.h"
#include "ops/quant.h"

/* ---- Gates ---- */

/* gate / (1 + exp(-alpha gate)) (line + beta), both parts within the limit: the first from above, before or after its activation. */
static double swiglu_of(double gate, double line, double alpha, double beta, double limit, bool after)
{
	double g = after ? gate : smaller(gate, limit), y = g / (1 + exp(-alpha * g));

	return (after ? smaller(y, limit) : y) * (larger(smaller(line, limit), -limit) + beta);
}

/* gate, up, output: [..., I]; without up gate is [..., 2 I], that of up behind its own. */
static enum linnet_code shape_swiglu(struct shape_call *c)
{
	struct shape s = in_shape(c, 0);
	const struct shape up = in_shape(c, 1);

	if (in_given(c, 1)) {
		c->out[0].shape = s.rank < 0 ? up : s;
		if (s.rank >= 0 && up.rank >= 0)
			TRY(rank_check(c, 1, s.rank, s.rank));
		for (int i = 0; i < s.rank && up.rank >= 0; i++)
			TRY(length_join(c, "lengths of gate and up", s.d[i], up.d[i], NULL));
		return LINNET_OK;
	}
	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (s.rank > 0)
		TRY(parts(c, "the width of both halves", s.d[s.rank - 1], 2, &s.d[s.rank - 1]));
	c->out[0].shape = s;
	return LINNET_OK;
}

static enum linnet_code swiglu(struct kernel_call *c)
{
	const struct tensor *gate = c->in[0], *up = in_tensor(c, 1);
	double alpha = attr_get(c->op, c->attr, "activation_alpha")->f, beta = attr_get(c->op, c->attr, "activation_beta")->f;
	double limit = attr_get(c->op, c->attr, "limit")->f;
	bool rounds = attr_get(c->op, c->attr, "round_activation")->i != 0;
	int64_t half = up ? 0 : c->out[0]->d[c->out[0]->rank - 1];

	limit = limit > 0 ? limit : INFINITY;
	for (int64_t i = 0; i < c->out[0]->n; i++) {
		int64_t at = up ? i : i / half * 2 * half + i % half;
		double line = tensor_get(up ? up : gate, at + half), g = tensor_get(gate, at);

		if (rounds) /* the activation alone, as its own node would store it */
			tensor_put(c->out[0], i, swiglu_of(g, 0, alpha, 1, limit, false));
		tensor_put(c->out[0], i, rounds ? tensor_get(c->out[0], i) * (larger(smaller(line, limit), -limit) + beta)
		                                : swiglu_of(g, line, alpha, beta, limit, false));
	}
	return LINNET_OK;
}

/* ---- Mixtures ---- */

/* Inputs of each layer of the experts, 0 for one the operator does not have, and the attribute of its bits. */
struct layer_inputs {
	int w, scale, bias, zero;
	const char *bits;
};

static const struct layer_inputs plain_at[3] = { { 2, 0, 3, 0, NULL }, { 4, 0, 5, 0, NULL }, { 6, 0, 7, 0, NULL } };

static const struct layer_inputs layer_at[3] = {
	{ 2, 3, 4, 11, "fc1_expert_weight_bits" },
	{ 5, 6, 7, 12, "fc2_expert_weight_bits" },
	{ 8, 9, 10, 13, "fc3_expert_weight_bits" },
};

static int64_t layer_bits(const struct op *op, const struct attr *attr, int layer)
{
	const struct attr *own = attr_get(op, attr, layer_at[layer].bits);

	return (attr_given(own) ? own : attr_get(op, attr, "expert_weight_bits"))->i;
}

static bool is_word(const struct attr *a, const char *word)
{
	return a->s.n == strlen(word) && !memcmp(a->s.p, word, a->s.n);
}

static bool fused_gate(const struct op *op, const struct attr *attr)
{
	const struct attr *type = attr_get(op, attr, "activation_type");

	return (is_word(type, "swiglu") || is_word(type, "geglu")) && attr_get(op, attr, "swiglu_fusion")->i;
}

/* An input of the given lengths. */
static enum linnet_code lengths_check(struct shape_call *c, int i, int rank, const dim *d)
{
	const struct shape s = in_shape(c, i);

	TRY(rank_check(c, i, rank, rank));
	for (int k = 0; k < rank && s.rank == rank; k++)
		if (dim_is_int(s.d[k]) && dim_is_int(d[k]) && s.d[k] != d[k])
			return fail(c->e, LINNET_ESHAPE, "input \"%s\" has length %lld along axis %d; expected %lld", op_in(c->op, i)->name,
			            (long long)s.d[k], k, (long long)d[k]);
	return LINNET_OK;
}

/*
 * w: [E, rows, columns / P]  scale: [E, rows] or in blocks [E, rows, J]  bias: [E, rows]
 * zero points: [E, rows / P] or in blocks [E, rows, ceil(J / P)]
 */
static enum linnet_code layer_check(struct shape_call *c, int layer, dim experts, dim rows_count, dim columns)
{
	int64_t bits = layer_bits(c->op, c->attr, layer), block = int_attr(c, "block_size"), per;
	dim blocks;

	TRY(quant_bits_check(c, bits));
	per = 8 / bits;
	TRY(lengths_check(c, layer_at[layer].w, 3, (dim[]){ experts, rows_count, dim_div(c->dims, columns, per) }));
	if (block && dim_is_int(columns) && columns % block)
		return fail(c->e, LINNET_ESHAPE, "rows of %lld do not make blocks of %lld", (long long)columns, (long long)block);
	blocks = block ? dim_div(c->dims, columns, block) : DIM_NONE;
	if (block) {
		TRY(lengths_check(c, layer_at[layer].scale, 3, (dim[]){ experts, rows_count, blocks }));
		TRY(lengths_check(c, layer_at[layer].zero, 3, (dim[]){ experts, rows_count, dim_ceil_div(c->dims, blocks, per) }));
	} else {
		TRY(lengths_check(c, layer_at[layer].scale, 2, (dim[]){ experts, rows_count }));
		TRY(lengths_check(c, layer_at[layer].zero, 2, (dim[]){ experts, dim_ceil_div(c->dims, rows_count, per) }));
	}
	return lengths_check(c, layer_at[layer].bias, 2, (dim[]){ experts, rows_count });
}

/* input, output: [..., H]  router_probs, router_weights: [T, E]  weights by expert and layer: [F I, H], [H, I], [I, H] */
static enum linnet_code shape_qmoe(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0), router = in_shape(c, 1), first = in_shape(c, 2);
	int64_t block = int_attr(c, "block_size"), k = int_attr(c, "k");
	dim tokens, width, experts, inside;

	if (!is_word(attr_get(c->op, c->attr, "quant_type"), "int"))
		return fail(c->e, LINNET_EUNSUPPORTED, "quant_type other than \"int\"");
	if (int_attr(c, "weights_prepacked") > 0)
		return fail(c->e, LINNET_EUNSUPPORTED, "weights in a provider's own layout (weights_prepacked 1)");
	if (int_attr(c, "swiglu_limit_after_activation"))
		return fail(c->e, LINNET_EUNSUPPORTED, "swiglu_limit_after_activation");
	if (block)
		TRY(quant_block_check(c, block));
	for (int i = 0; i < 3; i++)
		if (in_given(c, layer_at[i].w) != in_given(c, layer_at[i].scale))
			return fail(c->e, LINNET_EMODEL, "\"%s\" and \"%s\" go together", op_in(c->op, layer_at[i].w)->name,
			            op_in(c->op, layer_at[i].scale)->name);
	if (is_word(attr_get(c->op, c->attr, "activation_type"), "swiglu") && in_given(c, 8) == (int_attr(c, "swiglu_fusion") != 0))
		return fail(c->e, LINNET_EMODEL, "SwiGLU takes its two parts from fc1 when swiglu_fusion is 1 or 2, else from fc1 and fc3");
	c->out[0].shape = x;
	TRY(rank_check(c, 0, 2, 3));
	TRY(rank_check(c, 1, 2, 2));
	TRY(rank_check(c, 2, 3, 3));
	if (x.rank < 0)
		return LINNET_OK;
	tokens = shape_count(c->dims, &x, 0, x.rank - 1);
	width = x.d[x.rank - 1];
	experts = router.rank == 2 ? router.d[1] : DIM_NONE;
	inside = first.rank == 3 ? first.d[1] : DIM_NONE;
	if (dim_is_int(experts) && k > experts)
		return fail(c->e, LINNET_EATTR, "attribute \"k\" is %lld; there are %lld experts", (long long)k, (long long)experts);
	TRY(lengths_check(c, 1, 2, (dim[]){ tokens, experts }));
	TRY(lengths_check(c, 14, 2, (dim[]){ tokens, experts }));
	TRY(layer_check(c, 0, experts, inside, width));
	if (fused_gate(c->op, c->attr))
		TRY(parts(c, "the number of fc1's rows", inside, 2, &inside));
	TRY(layer_check(c, 1, experts, width, inside));
	return layer_check(c, 2, experts, inside, width);
}

/* input, output: [.., H]  router_probs: [T, E]  weights by expert and layer: [F I, H], [H, I], [I, H], biases: [F I], [H], [I] */
static enum linnet_code shape_moe(struct shape_call *c)
{
	const struct attr *type = attr_get(c->op, c->attr, "activation_type");
	const struct shape x = in_shape(c, 0), router = in_shape(c, 1), first = in_shape(c, 2);
	bool third = in_given(c, 6), fused = fused_gate(c->op, c->attr), gated = is_word(type, "swiglu") || is_word(type, "geglu");
	dim tokens, width, experts, inside;

	if (gated && third == fused)
		return fail(c->e, LINNET_EMODEL, "a gate takes its two parts from fc1 when swiglu_fusion is 1 or 2, else from fc1 and fc3");
	if (is_word(type, "geglu") && !fused)
		return fail(c->e, LINNET_EATTR, "geglu comes with swiglu_fusion 1 or 2");
	c->out[0].shape = x;
	TRY(rank_check(c, 0, 2, 3));
	TRY(rank_check(c, 1, 2, 2));
	TRY(rank_check(c, 2, 3, 3));
	if (x.rank < 0)
		return LINNET_OK;
	tokens = shape_count(c->dims, &x, 0, x.rank - 1);
	width = x.d[x.rank - 1];
	experts = router.rank == 2 ? router.d[1] : DIM_NONE;
	inside = first.rank == 3 ? first.d[1] : DIM_NONE;
	if (dim_is_int(experts) && int_attr(c, "k") > experts)
		return fail(c->e, LINNET_EATTR, "attribute \"k\" is %lld; there are %lld experts", (long long)int_attr(c, "k"),
		            (long long)experts);
	TRY(lengths_check(c, 1, 2, (dim[]){ tokens, experts }));
	TRY(lengths_check(c, 2, 3, (dim[]){ experts, inside, width }));
	TRY(lengths_check(c, 3, 2, (dim[]){ experts, inside }));
	if (fused)
		TRY(parts(c, "the number of fc1's rows", inside, 2, &inside));
	TRY(lengths_check(c, 4, 3, (dim[]){ experts, width, inside }));
	TRY(lengths_check(c, 5, 2, (dim[]){ experts, width }));
	TRY(lengths_check(c, 6, 3, (dim[]){ experts, inside, width }));
	return lengths_check(c, 7, 2, (dim[]){ experts, inside });
}

/* One layer of all experts; w holds the weights of one, [rows, columns]. */
struct layer {
	const struct tensor *quantised, *scale, *bias, *zero;
	int64_t bits, block, rows, columns; /* bits 0: the weights are numbers */
	double *w;
};

/* w = (q - zero point) scale, of a row or of a block in it; without zero points half the range. */
static void layer_weights(struct layer *l, int64_t expert)
{
	if (!l->bits) {
		for (int64_t i = 0; i < l->rows * l->columns; i++)
			l->w[i] = tensor_get(l->quantised, expert * l->rows * l->columns + i);
		return;
	}
	int64_t per = 8 / l->bits, blocks = l->block ? l->columns / l->block : 1, zero_row = (blocks + per - 1) / per * per;
	int64_t zero_expert = (l->rows + per - 1) / per * per;

	for (int64_t i = 0; i < l->rows; i++)
		for (int64_t k = 0; k < l->columns; k++) {
			int64_t row = expert * l->rows + i, b = l->block ? k / l->block : 0, z = (int64_t)1 << (l->bits - 1);

			if (l->zero)
				z = quant_unpack(l->zero, l->block ? row * zero_row + b : expert * zero_expert + i, l->bits);
			l->w[i * l->columns + k] = (double)(quant_unpack(l->quantised, row * l->columns + k, l->bits) - z) *
			                           tensor_get(l->scale, row * blocks + b);
		}
}

/* y = W x + bias */
static void layer_apply(const struct layer *l, int64_t expert, const double *x, double *y)
{
	for (int64_t i = 0; i < l->rows; i++) {
		y[i] = l->bias ? tensor_get(l->bias, expert * l->rows + i) : 0;
		for (int64_t k = 0; k < l->columns; k++)
			y[i] += l->w[i * l->columns + k] * x[k];
	}
}

/*
 * The k experts with the largest router_probs, earlier ones first where these are equal, and their shares: the softmax of these alone or
 * (all) of all, or their router_weights, as they are or divided by their sum.
 */
static void route(const struct kernel_call *c, int64_t token, int64_t experts, const struct tensor *weights, bool all, double *share)
{
	const struct tensor *probs = c->in[1];
	int64_t k = attr_get(c->op, c->attr, "k")->i;
	bool normalize = (!weights && !all) || attr_get(c->op, c->attr, "normalize_routing_weights")->i;
	double most = 0, sum = 0, whole = 0;

	for (int64_t n = 0; n < k; n++) {
		int64_t best = -1;

		for (int64_t i = 0; i < experts; i++)
			if (isnan(share[i]) && (best < 0 || tensor_get(probs, token * experts + i) > tensor_get(probs, token * experts + best)))
				best = i;
		if (n == 0)
			most = tensor_get(probs, token * experts + best);
		share[best] = weights ? tensor_get(weights, token * experts + best) : exp(tensor_get(probs, token * experts + best) - most);
		sum += share[best];
	}
	for (int64_t i = 0; i < experts; i++)
		whole += exp(tensor_get(probs, token * experts + i) - most);
	for (int64_t i = 0; i < experts; i++)
		share[i] = isnan(share[i]) ? 0 : normalize ? share[i] / sum : all ? share[i] / whole : share[i];
}

/* What is between the layers: h of n, from the first layer's output f and, when there is a third, its output g. */
static void between(const struct kernel_call *c, const double *f, const double *g, int64_t n, double *h)
{
	const struct attr *type = attr_get(c->op, c->attr, "activation_type"), *limit = attr_get(c->op, c->attr, "swiglu_limit");
	double alpha = attr_get(c->op, c->attr, "activation_alpha")->f, beta = attr_get(c->op, c->attr, "activation_beta")->f;
	double most = attr_given(limit) ? limit->f : INFINITY;
	bool after = attr_get(c->op, c->attr, "swiglu_limit_after_activation")->i != 0;
	int64_t fusion = attr_get(c->op, c->attr, "swiglu_fusion")->i;

	for (int64_t i = 0; i < n; i++) {
		double x = f[i];

		if (is_word(type, "swiglu") || is_word(type, "geglu")) {
			double gate = fusion == 1 ? f[2 * i] : x, line = fusion == 1 ? f[2 * i + 1] : fusion ? f[n + i] : g[i];

			h[i] = type->s.p[0] == 'g' ? gelu_tanh_of(gate) * line : swiglu_of(gate, line, alpha, beta, most, after);
			continue;
		}
		if (is_word(type, "relu"))
			x = larger(x, 0);
		else if (is_word(type, "relu2"))
			x = larger(x, 0) * larger(x, 0);
		else if (is_word(type, "silu"))
			x = x / (1 + exp(-x));
		else if (is_word(type, "gelu"))
			x = gelu_tanh_of(x);
		h[i] = g ? x * g[i] : x;
	}
}

/* Each token through its experts, the sum by their shares. at: inputs of the layers; weights: router_weights, or NULL. */
static enum linnet_code mixture(struct kernel_call *c, const struct layer_inputs *at, const struct tensor *weights)
{
	bool plain = !at->bits;
	int64_t width = c->in[0]->d[c->in[0]->rank - 1], experts = c->in[1]->d[1], tokens = c->in[1]->d[0];
	int64_t inside = c->in[2]->d[1] / (fused_gate(c->op, c->attr) ? 2 : 1), n = in_tensor(c, at[2].w) ? 3 : 2;
	int64_t size[3][2] = { { c->in[2]->d[1], width }, { width, inside }, { inside, width } };
	struct linnet_error *e = c->e;
	double *share, *y, *out, *f, *g, *h;
	struct layer layer[3];
	const double *x;

	for (int i = 0; i < n; i++) {
		layer[i] = (struct layer){ c->in[at[i].w], plain ? NULL : c->in[at[i].scale], in_tensor(c, at[i].bias),
			                   plain ? NULL : in_tensor(c, at[i].zero), plain ? 0 : layer_bits(c->op, c->attr, i),
			                   plain ? 0 : attr_get(c->op, c->attr, "block_size")->i, size[i][0], size[i][1], NULL };
		TRY_NEW(layer[i].w, c->scratch, size[i][0] * size[i][1]);
	}
	TRY(kernel_doubles(c, 0, &x));
	TRY_NEW(share, c->scratch, tokens * experts);
	TRY_NEW(out, c->scratch, tokens * width);
	TRY_NEW(y, c->scratch, width);
	TRY_NEW(f, c->scratch, size[0][0]);
	TRY_NEW(g, c->scratch, inside);
	TRY_NEW(h, c->scratch, inside);
	for (int64_t i = 0; i < tokens * experts; i++)
		share[i] = NAN;
	for (int64_t t = 0; t < tokens; t++)
		route(c, t, experts, weights, plain, share + t * experts);
	for (int64_t i = 0; i < experts; i++) {
		bool ready = false;

		for (int64_t t = 0; t < tokens; t++) {
			if (share[t * experts + i] == 0)
				continue;
			for (int k = 0; k < n && !ready; k++)
				layer_weights(&layer[k], i);
			ready = true;
			layer_apply(&layer[0], i, x + t * width, f);
			if (n > 2)
				layer_apply(&layer[2], i, x + t * width, g);
			between(c, f, n > 2 ? g : NULL, inside, h);
			layer_apply(&layer[1], i, h, y);
			for (int64_t k = 0; k < width; k++)
				out[t * width + k] += share[t * experts + i] * y[k];
		}
	}
	for (int64_t i = 0; i < tokens * width; i++)
		tensor_put(c->out[0], i, out[i]);
	return LINNET_OK;
}

static enum linnet_code qmoe(struct kernel_call *c) { return mixture(c, layer_at, in_tensor(c, 14)); }
static enum linnet_code moe(struct kernel_call *c) { return mixture(c, plain_at, NULL); }

/* ---- Rows ---- */

#define MAYBE(title, type) { title, type, FLOW_NONE, OPTIONAL }
#define BITS(title) { .name = title, .kind = ATTR_INT, .flags = OPTIONAL }

#define MIXTURE                                                                                    \
	{ .name = "activation_alpha", .kind = ATTR_FLOAT, .f = 1 }, { .name = "activation_beta", .kind = ATTR_FLOAT }, \
	{ .name = "k", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }, FLAG("normalize_routing_weights"), \
	{ .name = "swiglu_fusion", .kind = ATTR_INT, .lo = 0, .hi = 2 },                           \
	{ .name = "swiglu_limit", .kind = ATTR_FLOAT, .flags = OPTIONAL }, FLAG("swiglu_limit_after_activation"), \
	FLAG("use_sparse_mixer")

static const struct op rows[] = {
	{
		MS, .name = "SwiGLU",
		.doc = "A gate times its sigmoid, times a line plus beta, both within a limit when that is positive. By documentation: onnxruntime "
		       "has it on GPUs alone.",
		.in = IN({ "gate", T, FLOW_SMOOTH }, { "up", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "activation_alpha", .kind = ATTR_FLOAT, .f = 1 }, { .name = "activation_beta", .kind = ATTR_FLOAT },
		              { .name = "limit", .kind = ATTR_FLOAT }, { .name = "round_activation", .kind = ATTR_INT }),
		.types = { [T] = HALF_FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_swiglu,
		.kernel = swiglu,
		.fuzz = { FUZZ_CUSTOM, -4, 4 },
	},
	{
		MS, .name = "MoE",
		.doc = "A mixture of experts: each token goes through k of them, by the softmax over all. As in onnxruntime on CPUs use_sparse_mixer is "
		       "not heeded and Gelu is by a tanh; fc3, gates that are not interleaved, relu2, geglu and limits after the activation, which "
		       "it has on GPUs alone, are by documentation.",
		.in = IN({ "input", T, FLOW_SMOOTH }, { "router_probs", T, FLOW_NONE }, { "fc1_experts_weights", T, FLOW_SMOOTH },
		         { "fc1_experts_bias", T, FLOW_SMOOTH, OPTIONAL }, { "fc2_experts_weights", T, FLOW_LINEAR },
		         { "fc2_experts_bias", T, FLOW_LINEAR, OPTIONAL }, { "fc3_experts_weights", T, FLOW_SMOOTH, OPTIONAL },
		         { "fc3_experts_bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "activation_type", .kind = ATTR_STRING, .s = "relu",
		                .oneof = "relu|relu2|gelu|silu|swiglu|geglu|identity" }, MIXTURE),
		.types = { [T] = HALF_FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_moe,
		.kernel = moe,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QMoE",
		.doc = "A mixture of experts with weights of a few bits: each token goes through k of them. In full precision whatever "
		       "accuracy_level says. As in onnxruntime, shares are the softmax over the chosen whatever normalize_routing_weights says, but "
		       "for given router_weights, and use_sparse_mixer is not heeded; fc3 and unfused SwiGLU, which its CPU provider lacks, are by "
		       "the documentation.",
		.in = IN({ "input", T, FLOW_NONE }, { "router_probs", T, FLOW_NONE }, { "fc1_experts_weights", T1, FLOW_NONE }, MAYBE("fc1_scales", T2),
		         MAYBE("fc1_experts_bias", T), { "fc2_experts_weights", T1, FLOW_NONE }, MAYBE("fc2_scales", T2), MAYBE("fc2_experts_bias", T),
		         MAYBE("fc3_experts_weights", T1), MAYBE("fc3_scales", T2), MAYBE("fc3_experts_bias", T), MAYBE("fc1_zero_points", T1),
		         MAYBE("fc2_zero_points", T1), MAYBE("fc3_zero_points", T1), MAYBE("router_weights", T), MAYBE("fc1_global_scale", T4),
		         MAYBE("fc2_global_scale", T4), MAYBE("fc1_act_scale", T4), MAYBE("fc2_act_scale", T4), MAYBE("fc1_act_block_scale", T2),
		         MAYBE("fc2_act_block_scale", T2)),
		.out = OUT({ "output", T }),
		.attr = ATTRS(COUNT("accuracy_level"),
		              { .name = "activation_type", .kind = ATTR_STRING, .s = "relu", .oneof = "relu|gelu|silu|swiglu|identity" },
		              COUNT("block_size"), { .name = "expert_weight_bits", .kind = ATTR_INT, .i = 4 }, BITS("fc1_expert_weight_bits"),
		              BITS("fc2_expert_weight_bits"), BITS("fc3_expert_weight_bits"),
		              { .name = "quant_type", .kind = ATTR_STRING, .s = "int", .oneof = "int|fp4|nvfp4|fp8|wfp4afp8" },
		              { .name = "weights_prepacked", .kind = ATTR_INT, .i = -1, .lo = -1, .hi = 1 }, MIXTURE),
		.types = { [T] = HALF_FLOATS, [T1] = SET(UINT8) | SET(FLOAT8E4M3FN), [T2] = HALF_FLOATS | SET(FLOAT8E8M0) | SET(FLOAT8E4M3FN),
		           [T4] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_qmoe,
		.kernel = qmoe,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_moe_ops = FAMILY("contrib_moe", rows);
