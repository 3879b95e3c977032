/*
 * Operators of com.microsoft that onnxruntime makes of activations, normalizations and embeddings: reference kernels, then rows.
 */
#include <math.h>

#include "ops/contrib.h"

/* ---- Activations ---- */

static double gelu_of(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }
static double gelu_tanh_of(double x) { return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))); }

static enum linnet_code gelu(struct kernel_call *c) { return map_unary(c, gelu_of); }

/* C = gelu(A + B), B: [D], A: [..., D]; f is exact or by a tanh. B may be left out. */
static enum linnet_code biased(struct kernel_call *c, double (*f)(double))
{
	const struct tensor *x = c->in[0], *bias = c->nin > 1 ? c->in[1] : NULL;

	for (int64_t i = 0; i < x->n; i++)
		tensor_put(c->out[0], i, f(tensor_get(x, i) + (bias ? tensor_get(bias, i % bias->n) : 0)));
	return LINNET_OK;
}

static enum linnet_code bias_gelu(struct kernel_call *c) { return biased(c, gelu_of); }
static enum linnet_code fast_gelu(struct kernel_call *c) { return biased(c, gelu_tanh_of); }

static enum linnet_code quick_gelu(struct kernel_call *c)
{
	double alpha = attr_get(c->op, c->attr, "alpha")->f;

	for (int64_t i = 0; i < c->in[0]->n; i++) {
		double x = tensor_get(c->in[0], i);

		tensor_put(c->out[0], i, x / (1 + exp(-alpha * x)));
	}
	return LINNET_OK;
}

/* As the first input; the other, a vector, is as long as its last axis. */
static enum linnet_code shape_biased(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0), bias = in_shape(c, 1);

	c->out[0].shape = x;
	if (!in_given(c, 1))
		return LINNET_OK;
	TRY(rank_check(c, 1, 1, 1));
	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (x.rank > 0 && bias.rank == 1)
		return length_join(c, "lengths of the last axis and of the bias", x.d[x.rank - 1], bias.d[0], NULL);
	return LINNET_OK;
}

/* ---- Normalizations ---- */

/* X: [..., D...] from `axis` on; output Y, 1 / root mean square with length 1 there. */
static enum linnet_code shape_simplified_norm(struct shape_call *c)
{
	struct shape s = in_shape(c, 0);
	int axis;

	c->out[0].shape = s;
	if (s.rank < 0)
		return LINNET_OK;
	TRY(axis_check(int_attr(c, "axis"), s.rank, &axis, c->e));
	for (int i = axis; i < s.rank; i++)
		s.d[i] = 1;
	set_shape(c, 1, s);
	return LINNET_OK;
}

/* input: [..., D]  skip broadcasts to it, the rest are vectors of D. mean, inv_std_var: [..., 1]  the sum: [..., D] */
static enum linnet_code shape_skip_norm(struct shape_call *c)
{
	struct shape s = in_shape(c, 0), skip = in_shape(c, 1), both;

	TRY(broadcast(c->dims, &s, &skip, &both, c->e));
	set_shape(c, 0, s);
	set_shape(c, 3, s);
	if (s.rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, 0, 1, MAX_RANK));
	for (int i = 2; i < c->nin; i++) {
		const struct shape v = in_shape(c, i);

		TRY(rank_check(c, i, 1, 1));
		if (v.rank == 1)
			TRY(length_join(c, "lengths of the last axis and of the weights", s.d[s.rank - 1], v.d[0], NULL));
	}
	s.d[s.rank - 1] = 1;
	set_shape(c, 1, s);
	set_shape(c, 2, s);
	return LINNET_OK;
}

static double at(const struct tensor *t, int64_t i) { return t ? tensor_get(t, i % t->n) : 0; }

static void put(struct tensor *t, int64_t i, double v)
{
	if (t)
		tensor_put(t, i, v);
}


/*
 * Rows of n: y = (x - m) r gamma + beta with r = 1 / sqrt(mean of (x - m)^2 + epsilon), and m the mean or, simplified, 0.
 * mean and inverse (may be NULL) receive m and r.
 */
static void normalize(const double *x, int64_t rows, int64_t n, bool simplified, double eps, const struct tensor *gamma,
                      const struct tensor *beta, struct tensor *y, struct tensor *mean, struct tensor *inverse)
{
	for (int64_t i = 0; i < rows; i++, x += n) {
		double m = 0, var = 0, r;

		for (int64_t k = 0; k < n && !simplified; k++)
			m += x[k];
		m /= (double)n;
		for (int64_t k = 0; k < n; k++)
			var += (x[k] - m) * (x[k] - m);
		r = 1 / sqrt(var / (double)n + eps);
		for (int64_t k = 0; k < n; k++)
			tensor_put(y, i * n + k, (x[k] - m) * r * at(gamma, k) + at(beta, k));
		put(mean, i, m);
		put(inverse, i, r);
	}
}

static enum linnet_code simplified_norm(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t axis = attr_get(c->op, c->attr, "axis")->i, n = 1;
	const double *d;

	TRY(kernel_doubles(c, 0, &d));
	for (int i = (int)(axis < 0 ? axis + x->rank : axis); i < x->rank; i++)
		n *= x->d[i];
	normalize(d, n ? x->n / n : 0, n, true, attr_get(c->op, c->attr, "epsilon")->f, c->in[1], NULL, c->out[0], NULL, out_tensor(c, 1));
	return LINNET_OK;
}

/* The normalization of input + skip + bias, and that sum. */
static enum linnet_code skip_norm(struct kernel_call *c, bool simplified)
{
	const struct tensor *x = c->in[0], *bias = in_tensor(c, simplified ? 3 : 4);
	struct linnet_error *e = c->e;
	struct tensor *sum = out_tensor(c, 3);
	int64_t n = x->d[x->rank - 1], stride[MAX_RANK], index[MAX_RANK] = { 0 }, i = 0;
	double *d;

	TRY_NEW(d, c->scratch, x->n);
	broadcast_strides(c->in[1], x->rank, stride);
	if (x->n) {
		do {
			int64_t k = 0;

			for (int j = 0; j < x->rank; j++)
				k += index[j] * stride[j];
			d[i] = tensor_get(x, i) + tensor_get(c->in[1], k) + at(bias, i % n);
			put(sum, i, d[i]);
			i++;
		} while (next_position(x->rank, x->d, index));
	}
	normalize(d, n ? x->n / n : 0, n, simplified, attr_get(c->op, c->attr, "epsilon")->f, c->in[2], simplified ? NULL : in_tensor(c, 3),
	          c->out[0], out_tensor(c, 1), out_tensor(c, 2));
	return LINNET_OK;
}

static enum linnet_code skip_layer_norm(struct kernel_call *c) { return skip_norm(c, false); }
static enum linnet_code skip_simplified_norm(struct kernel_call *c) { return skip_norm(c, true); }

/* input_ids: [B, S]  word_embedding: [words, D]  output, embedding_sum: [B, S, D]  mask_index: [B] */
enum linnet_code shape_embed(struct shape_call *c)
{
	const struct shape ids = in_shape(c, 0), words = in_shape(c, 2);
	dim b, s;

	TRY(rank_check(c, 0, 2, 2));
	TRY(rank_check(c, 2, 2, 2));
	b = ids.rank == 2 ? ids.d[0] : DIM_NONE;
	s = ids.rank == 2 ? ids.d[1] : DIM_NONE;
	set_shape(c, 0, shape3(b, s, words.rank == 2 ? words.d[1] : DIM_NONE));
	set_shape(c, 1, (struct shape){ .rank = 1, .d = { b } });
	set_shape(c, 2, c->out[0].shape);
	return LINNET_OK;
}

/* ---- Rows ---- */

#define SIMPLIFIED_NORM(...)                                                                       \
	{                                                                                          \
		__VA_ARGS__, .name = "SimplifiedLayerNormalization", .since = 1,                   \
		.doc = "RMSNormalization, as onnxruntime writes it.",                              \
		.in = IN({ "X", T, FLOW_SMOOTH }, { "scale", T1, FLOW_LINEAR }),                   \
		.out = OUT({ "Y", T1 }, { "inv_std_var", T2, .flags = OPTIONAL }),                 \
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = -1 }, EPSILON(1e-5),        \
		              { .name = "stash_type", .kind = ATTR_INT, .i = 1 }),                 \
		.types = { [T] = FLOATS, [T1] = FLOATS, [T2] = SET(FLOAT) },                       \
		.agree = AGREE_ROUND,                                                              \
		.shape = shape_simplified_norm,                                                    \
		.kernel = simplified_norm,                                                         \
		.body = "{ Y = RMSNormalization <axis: int = @axis, epsilon: float = @epsilon, stash_type: int = @stash_type> (X, scale)\n" \
		        "  shape = Shape (X)\n"                                                    \
		        "  flat = Flatten <axis: int = @axis> (X)\n"                               \
		        "  x2 = Cast <to = 1> (flat)\n"                                            \
		        "  one = Constant <value_ints = [1]> ()\n"                                 \
		        "  xx = Mul (x2, x2)\n"                                                    \
		        "  mean = ReduceMean (xx, one)\n"                                          \
		        "  eps = Constant <value_float: float = @epsilon> ()\n"                    \
		        "  meaneps = Add (mean, eps)\n"                                            \
		        "  rms = Sqrt (meaneps)\n"                                                 \
		        "  inv2 = Reciprocal (rms)\n"                                              \
		        "  zero = Constant <value_ints = [0]> ()\n"                                \
		        "  axis = Constant <value_int: int = @axis> ()\n"                          \
		        "  axis1 = Reshape (axis, one)\n"                                          \
		        "  before = Slice (shape, zero, axis1)\n"                                  \
		        "  rank = Shape (shape)\n"                                                 \
		        "  from = Slice (shape, axis1, rank)\n"                                    \
		        "  count = Shape (from)\n"                                                 \
		        "  ones = Expand (one, count)\n"                                           \
		        "  reduced = Concat <axis = 0> (before, ones)\n"                           \
		        "  inv_std_var = Reshape <allowzero = 1> (inv2, reduced) }",               \
		.fuzz = { .shapes = FUZZ_CUSTOM },                                                 \
	}

static const struct op rows[] = {
	{
		MS, .name = "Gelu",
		.doc = "The number times the normal distribution there.",
		.in = IN({ "X", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_same,
		.kernel = gelu,
		.body = "{ Y = Gelu (X) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		MS, .name = "BiasGelu",
		.doc = "Gelu of A + B, B a vector along the last axis.",
		.in = IN({ "A", T, FLOW_SMOOTH }, { "B", T, FLOW_SMOOTH }),
		.out = OUT({ "C", T }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_biased,
		.kernel = bias_gelu,
		.body = "{ s = Add (A, B)\n"
		        "  C = Gelu (s) }",
		.fuzz = { FUZZ_CUSTOM, -4, 4 },
	},
	{
		MS, .name = "FastGelu",
		.doc = "Gelu by a tanh, of X + bias.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_biased,
		.kernel = fast_gelu,
		.body = "?bias\n"
		        "{ s = Add (X, bias)\n"
		        "  Y = Gelu <approximate = \"tanh\"> (s) }\n"
		        "{ Y = Gelu <approximate = \"tanh\"> (X) }",
		.fuzz = { FUZZ_CUSTOM, -4, 4 },
	},
	{
		MS, .name = "QuickGelu",
		.doc = "The number times the logistic function of alpha times it.",
		.in = IN({ "X", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 1.702 }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_same,
		.kernel = quick_gelu,
		.body = "{ a = Constant <value_float: float = @alpha> ()\n"
		        "  at = CastLike (a, X)\n"
		        "  ax = Mul (at, X)\n"
		        "  s = Sigmoid (ax)\n"
		        "  Y = Mul (X, s) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	SIMPLIFIED_NORM(.domain = NULL),
	SIMPLIFIED_NORM(.domain = "com.microsoft"),
	{
		MS, .name = "SkipLayerNormalization",
		.doc = "LayerNormalization of input + skip + bias along the last axis, and that sum.",
		.in = IN({ "input", T, FLOW_SMOOTH }, { "skip", T, FLOW_SMOOTH }, { "gamma", T, FLOW_LINEAR },
		         { "beta", T, FLOW_LINEAR, OPTIONAL }, { "bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "output", T }, { "mean", T1, .flags = OPTIONAL }, { "inv_std_var", T1, .flags = OPTIONAL },
		           { "input_skip_bias_sum", T, .flags = OPTIONAL }),
		.attr = ATTRS(EPSILON(1e-12)),
		.types = { [T] = HALF_FLOATS, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_skip_norm,
		.kernel = skip_layer_norm,
		.body = "?bias\n"
		        "{ s = Add (input, skip)\n"
		        "  input_skip_bias_sum = Add (s, bias)\n"
		        "  output, mean, inv_std_var = LayerNormalization <epsilon: float = @epsilon>\n"
		        "                              (input_skip_bias_sum, gamma, beta) }\n"
		        "{ input_skip_bias_sum = Add (input, skip)\n"
		        "  output, mean, inv_std_var = LayerNormalization <epsilon: float = @epsilon>\n"
		        "                              (input_skip_bias_sum, gamma, beta) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "SkipSimplifiedLayerNormalization",
		.doc = "RMSNormalization of input + skip + bias along the last axis, and that sum.",
		.in = IN({ "input", T, FLOW_SMOOTH }, { "skip", T, FLOW_SMOOTH }, { "gamma", T, FLOW_LINEAR },
		         { "bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "output", T }, { "mean", T1, .flags = OPTIONAL }, { "inv_std_var", T1, .flags = OPTIONAL },
		           { "input_skip_bias_sum", T, .flags = OPTIONAL }),
		.attr = ATTRS(EPSILON(1e-12)),
		.types = { [T] = HALF_FLOATS, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_skip_norm,
		.kernel = skip_simplified_norm,
		.body = "?bias\n"
		        "{ s = Add (input, skip)\n"
		        "  input_skip_bias_sum = Add (s, bias)\n"
		        "  output, inv_std_var = SimplifiedLayerNormalization <epsilon: float = @epsilon> (input_skip_bias_sum, gamma) }\n"
		        "{ input_skip_bias_sum = Add (input, skip)\n"
		        "  output, inv_std_var = SimplifiedLayerNormalization <epsilon: float = @epsilon> (input_skip_bias_sum, gamma) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "EmbedLayerNormalization",
		.doc = "LayerNormalization of the sum of word, position and segment embeddings.",
		.in = IN({ "input_ids", T1, FLOW_NONE }, { "segment_ids", T1, FLOW_NONE, OPTIONAL },
		         { "word_embedding", T, FLOW_SMOOTH }, { "position_embedding", T, FLOW_SMOOTH },
		         { "segment_embedding", T, FLOW_SMOOTH, OPTIONAL }, { "gamma", T, FLOW_LINEAR }, { "beta", T, FLOW_LINEAR },
		         { "mask", T1, FLOW_NONE, OPTIONAL }, { "position_ids", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "mask_index", T1, .flags = OPTIONAL }, { "embedding_sum", T, .flags = OPTIONAL }),
		.attr = ATTRS(EPSILON(1e-12), COUNT("mask_index_type")),
		.types = { [T] = SET(FLOAT) | SET(FLOAT16), [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_embed,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_norm_ops = FAMILY("contrib_norm", rows);
