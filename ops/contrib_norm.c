/*
 * Operators of com.microsoft that onnxruntime makes of activations, normalizations and embeddings: reference kernels, then rows.
 */
#include <math.h>
#include <string.h>

#include "ops/contrib.h"
#include "ops/norm.h"

/* ---- Activations ---- */

static double gelu_of(double x) { return 0.5 * x * erfc(-x * 0.70710678118654752440); }

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
	struct shape s = in_shape(c, 0), scale = in_shape(c, 1), both;
	enum dtype stash;
	int axis;

	TRY(stash_type(c, FLOATS, &stash));
	TRY(broadcast(c->dims, &s, &scale, &both, c->e));
	c->out[0].shape = s;
	if (s.rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, 1, 0, s.rank));
	for (int i = 0; i < s.rank && scale.rank >= 0; i++)
		TRY(length_join(c, "lengths of X and of the scale with it", s.d[i], both.d[i], NULL));
	TRY(axis_check(int_attr(c, "axis"), s.rank, &axis, c->e));
	for (int i = axis; i < s.rank; i++)
		s.d[i] = 1;
	set_shape(c, 1, s);
	return LINNET_OK;
}

/* input: [.., S, D]  skip: the same, of batch length 1 or without it; the rest are vectors of D. mean, inv_std_var: [.., S, 1]
 * the sum: [.., S, D] */
static enum linnet_code shape_skip_norm(struct shape_call *c)
{
	struct shape s = in_shape(c, 0), skip = in_shape(c, 1), both;

	TRY(broadcast(c->dims, &s, &skip, &both, c->e));
	set_shape(c, 0, s);
	set_shape(c, 3, s);
	if (s.rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, 0, 2, 3));
	for (int i = 0; i < s.rank && skip.rank >= 0; i++)
		TRY(length_join(c, "lengths of the input and of the skip with it", s.d[i], both.d[i], NULL));
	for (int i = 1; i < 3 && skip.rank >= i; i++)
		TRY(length_join(c, "last lengths of the input and the skip", s.d[s.rank - i], skip.d[skip.rank - i], NULL));
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

/* Rows of n: the normalised ones times gamma, plus beta (NULL: 1 and 0), both n long; the means and inverse deviations. y is changed. */
static void put_norm(double *y, int64_t rows, int64_t n, bool centred, double epsilon, const double *gamma, const double *beta,
                     struct tensor *out, struct tensor *mean, struct tensor *inverse)
{
	for (int64_t i = 0; i < rows; i++) {
		double m, r, *row = y + i * n;

		normalize(row, row, 1, n, centred, epsilon, &m, &r);
		for (int64_t k = 0; k < n && out; k++)
			tensor_put(out, i * n + k, row[k] * gamma[k] + (beta ? beta[k] : 0));
		if (mean)
			tensor_put(mean, i, m);
		if (inverse)
			tensor_put(inverse, i, r);
	}
}

static enum linnet_code simplified_norm(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t axis = attr_get(c->op, c->attr, "axis")->i, n = 1;
	double *y, *scale, r;

	TRY(spread(c, 0, 0, &y));
	TRY(spread(c, 1, 1, &scale));
	for (int i = (int)(axis < 0 ? axis + x->rank : axis); i < x->rank; i++)
		n *= x->d[i];
	for (int64_t i = 0; n && i < x->n / n; i++) {
		normalize(y + i * n, y + i * n, 1, n, false, attr_get(c->op, c->attr, "epsilon")->f, NULL, &r);
		for (int64_t k = i * n; k < (i + 1) * n && c->out[0]; k++)
			tensor_put(c->out[0], k, y[k] * scale[k]);
		if (out_tensor(c, 1))
			tensor_put(c->out[1], i, r);
	}
	return LINNET_OK;
}

/* The normalization of input + skip + bias, and that sum. */
static enum linnet_code skip_norm(struct kernel_call *c, bool simplified)
{
	const struct tensor *x = c->in[0];
	int64_t n = x->d[x->rank - 1];
	const double *gamma, *beta = NULL, *bias;
	double *y, *skip;

	TRY(spread(c, 0, 0, &y));
	TRY(spread(c, 1, 0, &skip));
	TRY(kernel_doubles(c, 2, &gamma));
	if (!simplified)
		TRY(kernel_doubles(c, 3, &beta));
	TRY(kernel_doubles(c, simplified ? 3 : 4, &bias));
	for (int64_t i = 0; i < x->n; i++) {
		y[i] += skip[i] + (bias ? bias[i % n] : 0);
		if (out_tensor(c, 3))
			tensor_put(c->out[3], i, y[i]);
	}
	put_norm(y, n ? x->n / n : 0, n, !simplified, attr_get(c->op, c->attr, "epsilon")->f, gamma, beta, c->out[0], out_tensor(c, 1),
	         out_tensor(c, 2));
	return LINNET_OK;
}

static enum linnet_code skip_layer_norm(struct kernel_call *c) { return skip_norm(c, false); }
static enum linnet_code skip_simplified_norm(struct kernel_call *c) { return skip_norm(c, true); }

/* ---- Embeddings ---- */

/* Positions of EmbedLayerNormalization's inputs; of its quantised form up to the mask. */
enum { EMBED_WORDS, EMBED_SEGMENTS, EMBED_WORD, EMBED_POSITION, EMBED_SEGMENT, EMBED_GAMMA, EMBED_BETA, EMBED_MASK, EMBED_PLACES };

/*
 * input_ids, segment_ids, mask: [B, S]  position_ids: [B or 1, S]  word_embedding: [words, D], and so on  gamma, beta: [D]
 * output, embedding_sum: [B, S, D]  mask_index: [B]
 */
enum linnet_code shape_embed(struct shape_call *c)
{
	const struct shape ids = in_shape(c, EMBED_WORDS);
	bool places = !strcmp(op_in(c->op, c->nin > EMBED_PLACES ? EMBED_PLACES : 0)->name, "position_ids");
	dim b = DIM_NONE, s = DIM_NONE, d = DIM_NONE;

	TRY(rank_check(c, EMBED_WORDS, 2, 2));
	if (ids.rank == 2) {
		b = ids.d[0];
		s = ids.d[1];
	}
	for (int i = EMBED_WORD; i <= EMBED_BETA; i++) {
		const struct shape t = in_shape(c, i);

		TRY(rank_check(c, i, i < EMBED_GAMMA ? 2 : 1, i < EMBED_GAMMA ? 2 : 1));
		if (t.rank > 0)
			TRY(length_join(c, "widths of embeddings and weights", d, t.d[t.rank - 1], &d));
	}
	for (int i = EMBED_SEGMENTS; i <= (places ? EMBED_PLACES : EMBED_MASK); i++) {
		const struct shape t = in_shape(c, i);

		if (i > EMBED_SEGMENTS && i < EMBED_MASK)
			continue;
		TRY(rank_check(c, i, 2, 2));
		if (t.rank != 2)
			continue;
		if (i != EMBED_PLACES || t.d[0] != 1)
			TRY(length_join(c, "batch lengths", b, t.d[0], NULL));
		TRY(length_join(c, "sequence lengths", s, t.d[1], NULL));
	}
	if (in_given(c, EMBED_SEGMENTS) && !in_given(c, EMBED_SEGMENT))
		return fail(c->e, LINNET_EMODEL, "segment_ids come with segment_embedding");
	set_shape(c, 0, shape3(b, s, d));
	set_shape(c, 1, (struct shape){ .rank = 1, .d = { b } });
	set_shape(c, 2, c->out[0].shape);
	return LINNET_OK;
}

/* Row `row` of a table of `rows`, added to y. */
static enum linnet_code add_row(const struct kernel_call *c, const char *name, const double *table, int64_t rows, int64_t row,
                                int64_t width, double *y)
{
	if (row < 0 || row >= rows)
		return fail(c->e, LINNET_EVALUE, "%s %lld is not in [0, %lld]", name, (long long)row, (long long)(rows - 1));
	for (int64_t d = 0; d < width; d++)
		y[d] += table[row * width + d];
	return LINNET_OK;
}

enum linnet_code embed(struct kernel_call *c, const double *const *table, const struct tensor *places)
{
	const struct tensor *ids = c->in[EMBED_WORDS], *segments = c->in[EMBED_SEGMENTS], *mask = in_tensor(c, EMBED_MASK);
	int64_t s = ids->d[1], d = c->in[EMBED_WORD]->d[1];
	struct linnet_error *e = c->e;
	double *y;

	TRY_NEW(y, c->scratch, ids->n * d);
	for (int64_t i = 0; i < ids->n; i++) {
		int64_t place = !places ? i % s : tensor_get_int(places, places->d[0] == 1 ? i % s : i);

		TRY(add_row(c, "word", table[EMBED_WORD], c->in[EMBED_WORD]->d[0], tensor_get_int(ids, i), d, y + i * d));
		TRY(add_row(c, "position", table[EMBED_POSITION], c->in[EMBED_POSITION]->d[0], place, d, y + i * d));
		if (table[EMBED_SEGMENT])
			TRY(add_row(c, "segment", table[EMBED_SEGMENT], c->in[EMBED_SEGMENT]->d[0],
			            segments ? tensor_get_int(segments, i) : 0, d, y + i * d));
	}
	for (int64_t i = 0; out_tensor(c, 2) && i < c->out[2]->n; i++)
		tensor_put(c->out[2], i, y[i]);
	for (int64_t b = 0; out_tensor(c, 1) && b < ids->d[0]; b++) {
		int64_t n = 0;

		for (int64_t t = 0; mask && t < s; t++)
			n += tensor_get_int(mask, b * s + t) == 1;
		tensor_put_int(c->out[1], b, n);
	}
	put_norm(y, ids->n, d, true, attr_get(c->op, c->attr, "epsilon")->f, table[EMBED_GAMMA], table[EMBED_BETA], c->out[0], NULL, NULL);
	return LINNET_OK;
}

static enum linnet_code embed_layer_norm(struct kernel_call *c)
{
	const double *table[EMBED_MASK];

	for (int i = EMBED_WORD; i < EMBED_MASK; i++)
		TRY(kernel_doubles(c, i, &table[i]));
	return embed(c, table, in_tensor(c, EMBED_PLACES));
}

/* ---- Images ---- */

/*
 * X: [N, H, W, C], or [N, C, H, W] when channels are not last  gamma, beta: [C]
 * SkipGroupNorm's skip: as X, [N, 1, 1, C] or [N, C]  bias: [C]  S: as X
 */
static enum linnet_code shape_group_norm(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0), skip = in_shape(c, 3);
	int64_t groups = int_attr(c, "groups");
	bool last = int_attr(c, "channels_last") != 0;
	dim channels = DIM_NONE, left;

	TRY(rank_check(c, 0, 4, 4));
	set_shape(c, 0, x);
	set_shape(c, 1, x);
	if (x.rank == 4)
		channels = x.d[last ? 3 : 1];
	for (int i = 1; i < 5; i += i == 2 ? 2 : 1) {
		const struct shape v = in_shape(c, i);

		TRY(rank_check(c, i, 1, 1));
		if (v.rank == 1)
			TRY(length_join(c, "numbers of channels", channels, v.d[0], &channels));
	}
	if (in_given(c, 3) && skip.rank >= 0) {
		if (skip.rank != 2 && skip.rank != 4)
			return fail(c->e, LINNET_ESHAPE, "input \"skip\" has rank %d; expected 2 or 4", skip.rank);
		for (int i = 0; i < skip.rank && x.rank == 4; i++) {
			int axis = skip.rank == 4 ? i : i == 0 ? 0 : last ? 3 : 1;

			if (skip.rank == 2 || axis == 0 || axis == (last ? 3 : 1) || skip.d[last ? 1 : 2] != 1 || skip.d[last ? 2 : 3] != 1)
				TRY(length_join(c, "lengths of X and skip", x.d[axis], skip.d[i], NULL));
		}
	}
	left = dim_mod(c->dims, channels, groups);
	if (dim_is_int(left) && left != 0)
		return fail(c->e, LINNET_ESHAPE, "%lld channels do not make %lld groups", (long long)channels, (long long)groups);
	return LINNET_OK;
}

/* Of X, with the skip and the bias: numbers of a group of channels normalised, times gamma plus beta, and x / (1 + exp(-x)) of it. */
static enum linnet_code group_norm(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *skip = in_tensor(c, 3);
	bool last = attr_get(c->op, c->attr, "channels_last")->i != 0, silu = attr_get(c->op, c->attr, "activation")->i != 0;
	int64_t groups = attr_get(c->op, c->attr, "groups")->i, channels = x->d[last ? 3 : 1], area = x->d[last ? 1 : 2] * x->d[last ? 2 : 3];
	const double *gamma, *beta, *bias;
	struct linnet_error *e = c->e;
	int64_t *from; /* element of X for each of [N, C, H W] */
	double *y;

	TRY(kernel_doubles(c, 1, &gamma));
	TRY(kernel_doubles(c, 2, &beta));
	TRY(kernel_doubles(c, 4, &bias));
	TRY_NEW(y, c->scratch, x->n);
	TRY_NEW(from, c->scratch, x->n);
	for (int64_t i = 0; i < x->n; i++) {
		int64_t n = i / (channels * area), ch = i / area % channels, p = i % area;

		from[i] = last ? (n * area + p) * channels + ch : i;
		y[i] = tensor_get(x, from[i]) + (bias ? bias[ch] : 0);
		if (skip)
			y[i] += tensor_get(skip, skip->n == x->n ? from[i] : n * channels + ch);
		if (out_tensor(c, 1))
			tensor_put(c->out[1], from[i], y[i]);
	}
	if (x->n)
		normalize(y, y, x->d[0] * groups, channels / groups * area, true, attr_get(c->op, c->attr, "epsilon")->f, NULL, NULL);
	for (int64_t i = 0; i < x->n; i++) {
		int64_t ch = i / area % channels;
		double v = y[i] * gamma[ch] + beta[ch];

		tensor_put(c->out[0], from[i], silu ? v / (1 + exp(-v)) : v);
	}
	return LINNET_OK;
}

/* X, skip: [N, S, C]  bias: [C] */
static enum linnet_code shape_bias_add(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0), bias = in_shape(c, 1), skip = in_shape(c, 2);

	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, 1, 1, 1));
	TRY(rank_check(c, 2, 3, 3));
	c->out[0].shape = x.rank == 3 ? x : skip;
	for (int i = 0; i < 3 && x.rank == 3 && skip.rank == 3; i++)
		TRY(length_join(c, "lengths of X and skip", x.d[i], skip.d[i], NULL));
	if (x.rank == 3 && bias.rank == 1)
		TRY(length_join(c, "lengths of the last axis and of the bias", x.d[2], bias.d[0], NULL));
	return LINNET_OK;
}

static enum linnet_code bias_add(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *bias = c->in[1];

	for (int64_t i = 0; i < x->n; i++)
		tensor_put(c->out[0], i, tensor_get(x, i) + tensor_get(bias, i % bias->n) + tensor_get(c->in[2], i));
	return LINNET_OK;
}

/* X: [N, S, D]  bias: [D]  Y: [N, S, D / 2] */
static enum linnet_code shape_bias_split(struct shape_call *c)
{
	struct shape x = in_shape(c, 0);

	TRY(rank_check(c, 0, 3, 3));
	TRY(shape_biased(c));
	if (x.rank == 3)
		TRY(parts(c, "the width of X", x.d[2], 2, &x.d[2]));
	c->out[0].shape = x;
	return LINNET_OK;
}

/* With x = X + bias: the first half of a row times the Gelu of the second. */
static enum linnet_code bias_split_gelu(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *bias = c->in[1];
	int64_t half = c->out[0]->d[2];

	for (int64_t i = 0; i < c->out[0]->n; i++) {
		int64_t at = i / half * 2 * half + i % half;

		tensor_put(c->out[0], i, (tensor_get(x, at) + tensor_get(bias, i % half)) *
		                         gelu_of(tensor_get(x, at + half) + tensor_get(bias, i % half + half)));
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define GROUP_ATTRIBUTES                                                                           \
	{ .name = "activation", .kind = ATTR_INT, .flags = REQUIRED, .lo = 0, .hi = 1 },           \
	{ .name = "channels_last", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }, EPSILON(1e-5), HEADS("groups")

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
		.doc = "LayerNormalization of the sum of word, position and segment embeddings. mask_index counts the ones of the mask: that is where "
		       "its first 0 is, as documented, where none is between ones.",
		.in = IN({ "input_ids", T1, FLOW_NONE }, { "segment_ids", T1, FLOW_NONE, OPTIONAL },
		         { "word_embedding", T, FLOW_SMOOTH }, { "position_embedding", T, FLOW_SMOOTH },
		         { "segment_embedding", T, FLOW_SMOOTH, OPTIONAL }, { "gamma", T, FLOW_LINEAR }, { "beta", T, FLOW_LINEAR },
		         { "mask", T1, FLOW_NONE, OPTIONAL }, { "position_ids", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "mask_index", T1, .flags = OPTIONAL }, { "embedding_sum", T, .flags = OPTIONAL }),
		.attr = ATTRS(EPSILON(1e-12), COUNT("mask_index_type")),
		.types = { [T] = SINGLE_HALF, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_embed,
		.kernel = embed_layer_norm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "GroupNorm",
		.doc = "Groups of channels of an image normalised together. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "gamma", T1, FLOW_LINEAR }, { "beta", T1, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(GROUP_ATTRIBUTES),
		.types = { [T] = SINGLE_HALF, [T1] = SINGLE_HALF },
		.agree = AGREE_ROUND,
		.shape = shape_group_norm,
		.kernel = group_norm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "SkipGroupNorm",
		.doc = "GroupNorm of X + skip + bias, and that sum. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "gamma", T1, FLOW_LINEAR }, { "beta", T1, FLOW_LINEAR }, { "skip", T, FLOW_SMOOTH },
		         { "bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "Y", T }, { "S", T, .flags = OPTIONAL }),
		.attr = ATTRS(GROUP_ATTRIBUTES),
		.types = { [T] = SINGLE_HALF, [T1] = SINGLE_HALF },
		.agree = AGREE_ROUND,
		.shape = shape_group_norm,
		.kernel = group_norm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "BiasAdd",
		.doc = "X + bias + skip, the bias along the last axis. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "bias", T, FLOW_LINEAR }, { "skip", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.types = { [T] = SINGLE_HALF },
		.agree = AGREE_ROUND,
		.shape = shape_bias_add,
		.kernel = bias_add,
		.body = "{ s = Add (X, bias)\n"
		        "  Y = Add (s, skip) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "BiasSplitGelu",
		.doc = "Of X + bias, the first half of every row times the Gelu of the second. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T }),
		.types = { [T] = SINGLE_HALF },
		.agree = AGREE_ROUND,
		.shape = shape_bias_split,
		.kernel = bias_split_gelu,
		.body = "{ s = Add (X, bias)\n"
		        "  left, right = Split <axis = -1, num_outputs = 2> (s)\n"
		        "  g = Gelu (right)\n"
		        "  Y = Mul (left, g) }",
		.fuzz = { FUZZ_CUSTOM, -4, 4 },
	},
};

const struct op_family contrib_norm_ops = FAMILY("contrib_norm", rows);
