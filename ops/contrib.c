/*
 * Operators of com.microsoft, as onnxruntime writes them when it fuses: shape functions, reference kernels of the simple
 * ones, then rows.
 *
 * Letters: B batch, S query length, L key length, P past length, T = P + L, N heads, H head width, D = N H.
 */
#include <math.h>
#include <string.h>

#include "ops/kernel.h"

#define HALF_FLOATS (SET(FLOAT) | HALVES)

static int64_t int_attr(const struct shape_call *c, const char *name) { return attr_get(c->op, c->attr, name)->i; }

/* The shape of input i; of rank -1 where it is left out. */
static struct shape in_shape(const struct shape_call *c, int i)
{
	return i < c->nin && c->in[i] ? c->in[i]->shape : shape_unknown();
}

static bool in_given(const struct shape_call *c, int i) { return i < c->nin && c->in[i]; }

static struct shape shape3(dim a, dim b, dim c) { return (struct shape){ .rank = 3, .d = { a, b, c } }; }
static struct shape shape4(dim a, dim b, dim c, dim d) { return (struct shape){ .rank = 4, .d = { a, b, c, d } }; }

static void set_shape(struct shape_call *c, int i, struct shape s)
{
	if (i < c->nout)
		c->out[i].shape = s;
}

/* d / n, which must be whole where it is a number. */
static enum linnet_code parts(struct shape_call *c, const char *what, dim d, int64_t n, dim *out)
{
	if (dim_is_int(d) && d % n)
		return fail(c->e, LINNET_ESHAPE, "%s is %lld, not a multiple of %lld", what, (long long)d, (long long)n);
	*out = dim_div(c->dims, d, n);
	return LINNET_OK;
}

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

static struct tensor *out(const struct kernel_call *c, int i) { return i < c->nout ? c->out[i] : NULL; }
static const struct tensor *in(const struct kernel_call *c, int i) { return i < c->nin ? c->in[i] : NULL; }

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
	normalize(d, n ? x->n / n : 0, n, true, attr_get(c->op, c->attr, "epsilon")->f, c->in[1], NULL, c->out[0], NULL, out(c, 1));
	return LINNET_OK;
}

/* The normalization of input + skip + bias, and that sum. */
static enum linnet_code skip_norm(struct kernel_call *c, bool simplified)
{
	const struct tensor *x = c->in[0], *bias = in(c, simplified ? 3 : 4);
	struct linnet_error *e = c->e;
	struct tensor *sum = out(c, 3);
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
	normalize(d, n ? x->n / n : 0, n, simplified, attr_get(c->op, c->attr, "epsilon")->f, c->in[2], simplified ? NULL : in(c, 3),
	          c->out[0], out(c, 1), out(c, 2));
	return LINNET_OK;
}

static enum linnet_code skip_layer_norm(struct kernel_call *c) { return skip_norm(c, false); }
static enum linnet_code skip_simplified_norm(struct kernel_call *c) { return skip_norm(c, true); }

/* input_ids: [B, S]  word_embedding: [words, D]  output, embedding_sum: [B, S, D]  mask_index: [B] */
static enum linnet_code shape_embed(struct shape_call *c)
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

/* ---- Matrix products ---- */

/* Axes of a FusedMatMul operand in the order of MatMul's: batch: the first axis goes behind the batch, then the last two change places. */
static void matmul_order(int rank, bool batch, bool transpose, int p[MAX_RANK])
{
	for (int i = 0; i < rank; i++)
		p[i] = batch && rank > 2 && i < rank - 1 ? (i + 1) % (rank - 1) : i;
	if (transpose && rank > 1) {
		int last = p[rank - 1];

		p[rank - 1] = p[rank - 2];
		p[rank - 2] = last;
	}
}

static const char *const fused_attr[2][2] = { { "transBatchA", "transA" }, { "transBatchB", "transB" } };

static enum linnet_code shape_fused_matmul(struct shape_call *c)
{
	struct type operand[2];
	struct shape_call inner = *c;

	for (int i = 0; i < 2; i++) {
		int p[MAX_RANK];

		operand[i] = *c->in[i];
		if (operand[i].shape.rank < 0)
			continue;
		matmul_order(operand[i].shape.rank, int_attr(c, fused_attr[i][0]), int_attr(c, fused_attr[i][1]), p);
		for (int k = 0; k < operand[i].shape.rank; k++)
			operand[i].shape.d[k] = c->in[i]->shape.d[p[k]];
	}
	inner.op = op_newest(NULL, "MatMul");
	inner.in = (const struct type *[]){ &operand[0], &operand[1] };
	return inner.op->shape(&inner);
}

/* Y = alpha op(A) op(B) */
static enum linnet_code fused_matmul(struct kernel_call *c)
{
	double alpha = attr_get(c->op, c->attr, "alpha")->f;
	struct kernel_call inner = *c;
	struct tensor *operand[2], *y;

	for (int i = 0; i < 2; i++) {
		const struct tensor *t = c->in[i];
		int64_t d[MAX_RANK], from[MAX_RANK], to[MAX_RANK], s[MAX_RANK];
		int p[MAX_RANK];

		matmul_order(t->rank, attr_get(c->op, c->attr, fused_attr[i][0])->i, attr_get(c->op, c->attr, fused_attr[i][1])->i, p);
		strides(t->rank, t->d, s);
		for (int k = 0; k < t->rank; k++) {
			d[k] = t->d[p[k]];
			from[k] = s[p[k]];
		}
		TRY(tensor_new(c->scratch, t->dt, t->rank, d, &operand[i], c->e));
		strides(t->rank, d, to);
		copy_box(operand[i], 0, to, t, 0, from, t->rank, d);
	}
	TRY(tensor_new(c->scratch, DT_DOUBLE, c->out[0]->rank, c->out[0]->d, &y, c->e));
	inner.op = op_newest(NULL, "MatMul");
	inner.in = (const struct tensor *[]){ operand[0], operand[1] };
	inner.out = &y;
	TRY(inner.op->kernel(&inner));
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(c->out[0], i, alpha * tensor_get(y, i));
	return LINNET_OK;
}

/* A: [..., K]  Y: [..., N] */
static enum linnet_code shape_matmul_nbits(struct shape_call *c)
{
	struct shape s = in_shape(c, 0);

	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (s.rank < 1)
		return LINNET_OK;
	TRY(length_join(c, "inner lengths", s.d[s.rank - 1], int_attr(c, "K"), NULL));
	s.d[s.rank - 1] = int_attr(c, "N");
	c->out[0].shape = s;
	return LINNET_OK;
}

/* ---- Rotary embedding ---- */

/* input: [B, S, D] or [B, N, S, H]; output alike. */
static enum linnet_code shape_rotary(struct shape_call *c)
{
	TRY(rank_check(c, 0, 3, 4));
	TRY(rank_check(c, 1, 1, 2));
	TRY(rank_check(c, 2, 2, 2));
	TRY(rank_check(c, 3, 2, 2));
	return shape_same(c);
}

/*
 * Pairs of the first 2 half numbers of every head, (i, i + half) or interleaved (2i, 2i + 1), turned by the angle of their position:
 * cos_cache, sin_cache: [positions, half]. position_ids: [B, S], or one number, the position of the first.
 */
static enum linnet_code rotary(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *ids = c->in[1], *cosine = c->in[2], *sine = c->in[3];
	bool interleaved = attr_get(c->op, c->attr, "interleaved")->i != 0, split = x->rank == 4;
	int64_t heads = attr_get(c->op, c->attr, "num_heads")->i, half = cosine->d[1];
	int64_t last = x->d[x->rank - 1], s = x->d[split ? 2 : 1], width, n;

	if (attr_get(c->op, c->attr, "is_packed_batching")->i || attr_get(c->op, c->attr, "scale")->f != 1)
		return fail(c->e, LINNET_EUNSUPPORTED, "packed batching and scale");
	width = split ? last : attr_get(c->op, c->attr, "rotary_embedding_dim")->i && heads ? last / heads : 2 * half;
	n = split ? x->d[1] : width ? last / width : 0;
	if (2 * half > width || (!split && n * width != last) || sine->d[1] != half || sine->d[0] != cosine->d[0])
		return fail(c->e, LINNET_ESHAPE, "caches turn %lld numbers of each head; rows of %lld have heads of %lld", (long long)(2 * half),
		            (long long)last, (long long)width);
	if (ids->n != 1 && ids->n != x->d[0] * s)
		return fail(c->e, LINNET_ESHAPE, "%lld position_ids for %lld positions", (long long)ids->n, (long long)(x->d[0] * s));
	for (int64_t row = 0; row < x->d[0] * n * s; row++) {
		/* rows are [B, N, S] or [B, S, N] */
		int64_t b = row / (n * s), t = split ? row % s : row / n % s, base = row * width;
		int64_t place = ids->n == 1 ? tensor_get_int(ids, 0) + t : tensor_get_int(ids, b * s + t);

		if (place < 0 || place >= cosine->d[0])
			return fail(c->e, LINNET_EVALUE, "position %lld is not in [0, %lld]", (long long)place, (long long)(cosine->d[0] - 1));
		for (int64_t i = 0; i < half; i++) {
			int64_t p = base + (interleaved ? 2 * i : i), q = base + (interleaved ? 2 * i + 1 : i + half);
			double u = tensor_get(x, p), v = tensor_get(x, q);
			double co = tensor_get(cosine, place * half + i), si = tensor_get(sine, place * half + i);

			tensor_put(c->out[0], p, u * co - v * si);
			tensor_put(c->out[0], q, u * si + v * co);
		}
		for (int64_t i = base + 2 * half; i < base + width; i++)
			element_copy(c->out[0], i, x, i);
	}
	return LINNET_OK;
}

/* ---- Attention ---- */

/*
 * input: [B, S, D_in]  weights: [D_in, D + D + D_v]  output: [B, S, D_v]
 * past, present: [2, B, N, P or T, H]; of one size when they share a buffer. `past` is the index of that input.
 */
static enum linnet_code packed_attention(struct shape_call *c, int past_at, const struct attr *sizes)
{
	const struct shape x = in_shape(c, 0), w = in_shape(c, 1), past = in_shape(c, past_at);
	dim width = DIM_NONE, key_width = DIM_NONE, head = DIM_NONE, total;
	int64_t heads = int_attr(c, "num_heads");

	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, 1, 2, 2));
	TRY(rank_check(c, past_at, 5, 5));
	if (sizes && sizes->n == 3) {
		key_width = sizes->ints[1];
		width = sizes->ints[2];
	} else if (w.rank == 2) {
		TRY(parts(c, "the width of the weights", w.d[1], 3, &width));
		key_width = width;
	}
	if (x.rank < 0)
		return LINNET_OK;
	if (w.rank == 2)
		TRY(length_join(c, "inner lengths", x.d[2], w.d[0], NULL));
	set_shape(c, 0, shape3(x.d[0], x.d[1], width));
	if (c->nout < 2)
		return LINNET_OK;
	TRY(parts(c, "the width of keys", key_width, heads, &head));
	total = !in_given(c, past_at) ? x.d[1] : past.rank < 0 ? DIM_NONE : dim_add(c->dims, past.d[3], x.d[1]);
	if (int_attr(c, "past_present_share_buffer"))
		total = past.rank < 0 ? DIM_NONE : past.d[3];
	c->out[1].shape = (struct shape){ .rank = 5, .d = { 2, x.d[0], heads, total, head } };
	return LINNET_OK;
}

static enum linnet_code shape_attention(struct shape_call *c)
{
	return packed_attention(c, 4, attr_get(c->op, c->attr, "qkv_hidden_sizes"));
}

static enum linnet_code shape_qattention(struct shape_call *c) { return packed_attention(c, 8, NULL); }

/*
 * query: [B, S, D], or all three packed: [B, S, N, 3, H]
 * key:   [B, L, D], with the value: [B, L, N, 2, H], or [B, N, L, H]     value: [B, L, D_v] or [B, N, L, H_v]
 * output: [B, S, D_v]  present_key, present_value: [B, N, T, H]  qk: [B, N, S, T]
 */
static enum linnet_code shape_multi_head(struct shape_call *c)
{
	const struct shape q = in_shape(c, 0), k = in_shape(c, 1), v = in_shape(c, 2), past = in_shape(c, 6);
	dim b, s, length = DIM_NONE, head = DIM_NONE, value_head = DIM_NONE, total;
	int64_t n = int_attr(c, "num_heads");

	if (q.rank < 0 || (in_given(c, 1) && k.rank < 0) || (in_given(c, 2) && v.rank < 0))
		return LINNET_OK;
	TRY(rank_check(c, 0, 3, 5));
	b = q.d[0];
	s = q.d[1];
	if (q.rank == 5)
		head = q.d[4];
	else
		TRY(parts(c, "the width of queries", q.d[2], n, &head));
	if (!in_given(c, 1)) {
		length = s;
		value_head = head;
	} else if (k.rank == 5) {
		length = k.d[1];
		value_head = k.d[4];
	} else {
		TRY(rank_check(c, 1, 3, 4));
		length = k.rank == 4 ? k.d[2] : k.d[1];
		if (v.rank == 4)
			value_head = v.d[3];
		else if (v.rank == 3)
			TRY(parts(c, "the width of values", v.d[2], n, &value_head));
		else
			return fail(c->e, LINNET_ESHAPE, "input \"value\" has rank %d; expected 3 or 4", v.rank);
	}
	total = !in_given(c, 6) ? length : past.rank == 4 ? dim_add(c->dims, past.d[2], length) : DIM_NONE;
	/* with past_sequence_length, present is the buffer that past is */
	if (in_given(c, 6) && in_given(c, 8))
		total = past.rank == 4 ? past.d[2] : DIM_NONE;
	set_shape(c, 0, shape3(b, s, dim_mul(c->dims, value_head, n)));
	set_shape(c, 1, shape4(b, n, total, head));
	set_shape(c, 2, shape4(b, n, total, value_head));
	set_shape(c, 3, shape4(b, n, s, total));
	return LINNET_OK;
}

/*
 * query: [B, S, N H], or with key and value: [B, S, (N + 2 N_kv) H]  key, value: [B, L, N_kv H]
 * output: [B, S, N H]  present_key, present_value: [B, N_kv, T, H], T the longer of the past buffer and total_sequence_length
 */
static enum linnet_code shape_group_query(struct shape_call *c)
{
	const struct shape q = in_shape(c, 0), past = in_shape(c, 3);
	int64_t n = int_attr(c, "num_heads"), nkv = int_attr(c, "kv_num_heads");
	dim head, total;

	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, 3, 4, 4));
	if (q.rank < 0)
		return LINNET_OK;
	TRY(parts(c, "the width of queries", q.d[2], in_given(c, 1) ? n : n + 2 * nkv, &head));
	total = type_element(c->in[6], 0);
	if (in_given(c, 3))
		total = past.rank < 0 ? DIM_NONE : dim_max(c->dims, past.d[2], total);
	set_shape(c, 0, shape3(q.d[0], q.d[1], dim_mul(c->dims, head, n)));
	/* a quantised cache may be packed: its width is that of the past */
	if (past.rank == 4)
		head = past.d[3];
	set_shape(c, 1, shape4(q.d[0], nkv, total, head));
	set_shape(c, 2, shape4(q.d[0], nkv, total, head));
	set_shape(c, 3, shape4(q.d[0], n, q.d[1], total));
	return LINNET_OK;
}

/* ---- Rows ---- */

#define MS .domain = "com.microsoft", .since = 1
#define HEADS(title) { .name = title, .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }
#define FLAG(title) { .name = title, .kind = ATTR_INT, .lo = 0, .hi = 1 }
#define COUNT(title) { .name = title, .kind = ATTR_INT, .lo = 0, .hi = INT32_MAX }
#define EPSILON(value) { .name = "epsilon", .kind = ATTR_FLOAT, .f = (value) }
#define SCALE { .name = "scale", .kind = ATTR_FLOAT, .flags = OPTIONAL }
#define MASK_VALUE { .name = "mask_filter_value", .kind = ATTR_FLOAT, .f = -10000 }

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
	{
		MS, .name = "QEmbedLayerNormalization",
		.doc = "EmbedLayerNormalization of quantised embeddings.",
		.in = IN({ "input_ids", T1, FLOW_NONE }, { "segment_ids", T1, FLOW_NONE, OPTIONAL },
		         { "word_embedding_quant", T2, FLOW_NONE }, { "position_embedding_quant", T2, FLOW_NONE },
		         { "segment_embedding", T2, FLOW_NONE, OPTIONAL }, { "gamma_quant", T2, FLOW_NONE }, { "beta_quant", T2, FLOW_NONE },
		         { "mask", T1, FLOW_NONE, OPTIONAL }, { "word_embedding_scale", T, FLOW_NONE },
		         { "position_embedding_scale", T, FLOW_NONE }, { "segment_embedding_scale", T, FLOW_NONE, OPTIONAL },
		         { "gamma_scale", T, FLOW_NONE }, { "beta_scale", T, FLOW_NONE }, { "word_embedding_zero_point", T2, FLOW_NONE },
		         { "position_embedding_zero_point", T2, FLOW_NONE }, { "segment_embedding_zero_point", T2, FLOW_NONE, OPTIONAL },
		         { "gamma_zero_point", T2, FLOW_NONE }, { "beta_zero_point", T2, FLOW_NONE }),
		.out = OUT({ "layernorm_out", T }, { "mask_index_out", T1 }),
		.attr = ATTRS(EPSILON(1e-12)),
		.types = { [T] = SET(FLOAT), [T1] = SET(INT32), [T2] = SET(INT8) | SET(UINT8) },
		.agree = AGREE_ROUND,
		.shape = shape_embed,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "FusedMatMul",
		.doc = "MatMul of operands whose axes change places first, times alpha.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }, FLAG("transA"), FLAG("transB"), FLAG("transBatchA"),
		              FLAG("transBatchB")),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_fused_matmul,
		.kernel = fused_matmul,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MatMulNBits",
		.doc = "MatMul with a matrix of integers of a few bits, scaled in blocks.",
		.in = IN({ "A", T1, FLOW_LINEAR }, { "B", T2, FLOW_NONE }, { "scales", T1, FLOW_NONE },
		         { "zero_points", T3, FLOW_NONE, OPTIONAL }, { "g_idx", T4, FLOW_NONE, OPTIONAL },
		         { "bias", T1, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(HEADS("K"), HEADS("N"), { .name = "accuracy_level", .kind = ATTR_INT },
		              { .name = "bits", .kind = ATTR_INT, .i = 4, .lo = 2, .hi = 8 },
		              { .name = "block_size", .kind = ATTR_INT, .flags = REQUIRED, .lo = 16, .hi = INT32_MAX },
		              FLAG("weight_prepacked")),
		.types = { [T1] = HALF_FLOATS, [T2] = SET(UINT8), [T3] = HALF_FLOATS | SET(UINT8), [T4] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_matmul_nbits,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "RotaryEmbedding",
		.doc = "Pairs of numbers of every head turned by angles that grow with the position.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "position_ids", T1, FLOW_NONE }, { "cos_cache", T, FLOW_LINEAR },
		         { "sin_cache", T, FLOW_LINEAR }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(FLAG("interleaved"), FLAG("is_packed_batching"), COUNT("num_heads"), COUNT("rotary_embedding_dim"),
		              { .name = "scale", .kind = ATTR_FLOAT, .f = 1 }),
		.types = { [T] = HALF_FLOATS, [T1] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_rotary,
		.kernel = rotary,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Attention",
		.doc = "Softmax attention with the projections of queries, keys and values.",
		.in = IN({ "input", T, FLOW_SMOOTH }, { "weights", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH, OPTIONAL },
		         { "mask_index", T1, FLOW_NONE, OPTIONAL }, { "past", T, FLOW_SMOOTH, OPTIONAL },
		         { "attention_bias", T, FLOW_SMOOTH, OPTIONAL }, { "past_sequence_length", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "present", T, .flags = OPTIONAL }),
		.attr = ATTRS(FLAG("do_rotary"), MASK_VALUE, HEADS("num_heads"), FLAG("past_present_share_buffer"),
		              { .name = "qkv_hidden_sizes", .kind = ATTR_INTS, .s = "", .lo = 1, .hi = INT32_MAX },
		              COUNT("rotary_embedding_dim"), SCALE, FLAG("unidirectional")),
		.types = { [T] = HALF_FLOATS, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_attention,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QAttention",
		.doc = "Attention on quantised input and weights.",
		.in = IN({ "input", T1, FLOW_NONE }, { "weight", T2, FLOW_NONE }, { "bias", T3, FLOW_NONE }, { "input_scale", T3, FLOW_NONE },
		         { "weight_scale", T3, FLOW_NONE }, { "mask_index", T4, FLOW_NONE, OPTIONAL },
		         { "input_zero_point", T1, FLOW_NONE, OPTIONAL }, { "weight_zero_point", T2, FLOW_NONE, OPTIONAL },
		         { "past", T3, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T3 }, { "present", T3, .flags = OPTIONAL }),
		.attr = ATTRS(FLAG("do_rotary"), MASK_VALUE, HEADS("num_heads"), FLAG("past_present_share_buffer"), SCALE,
		              FLAG("unidirectional")),
		.types = { [T1] = SET(INT8) | SET(UINT8), [T2] = SET(INT8) | SET(UINT8), [T3] = SET(FLOAT) | SET(FLOAT16),
		           [T4] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_qattention,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MultiHeadAttention",
		.doc = "Softmax attention of projected queries, keys and values.",
		.in = IN({ "query", T, FLOW_SMOOTH }, { "key", T, FLOW_SMOOTH, OPTIONAL }, { "value", T, FLOW_LINEAR, OPTIONAL },
		         { "bias", T, FLOW_SMOOTH, OPTIONAL }, { "key_padding_mask", T1, FLOW_NONE, OPTIONAL },
		         { "attention_bias", T, FLOW_SMOOTH, OPTIONAL }, { "past_key", T, FLOW_SMOOTH, OPTIONAL },
		         { "past_value", T, FLOW_LINEAR, OPTIONAL }, { "past_sequence_length", T1, FLOW_NONE, OPTIONAL },
		         { "cache_indirection", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "present_key", T, .flags = OPTIONAL }, { "present_value", T, .flags = OPTIONAL },
		           { "qk", T2, .flags = OPTIONAL }),
		.attr = ATTRS(MASK_VALUE, HEADS("num_heads"), SCALE, FLAG("unidirectional")),
		.types = { [T] = HALF_FLOATS, [T1] = SET(INT32), [T2] = HALF_FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_multi_head,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "GroupQueryAttention",
		.doc = "Causal softmax attention with groups of query heads sharing keys and values, and a cache.",
		.in = IN({ "query", T, FLOW_SMOOTH }, { "key", T, FLOW_SMOOTH, OPTIONAL }, { "value", T, FLOW_LINEAR, OPTIONAL },
		         { "past_key", T1, FLOW_SMOOTH, OPTIONAL }, { "past_value", T1, FLOW_LINEAR, OPTIONAL },
		         { "seqlens_k", T2, FLOW_NONE }, { "total_sequence_length", T2, FLOW_NONE },
		         { "cos_cache", T, FLOW_SMOOTH, OPTIONAL }, { "sin_cache", T, FLOW_SMOOTH, OPTIONAL },
		         { "position_ids", T3, FLOW_NONE, OPTIONAL }, { "attention_bias", T, FLOW_SMOOTH, OPTIONAL },
		         { "head_sink", T, FLOW_SMOOTH, OPTIONAL }, { "k_scale", T4, FLOW_NONE, OPTIONAL },
		         { "v_scale", T4, FLOW_NONE, OPTIONAL }, { "q_norm_weight", T, FLOW_SMOOTH, OPTIONAL },
		         { "k_norm_weight", T, FLOW_SMOOTH, OPTIONAL }, { "query_seqlens", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "present_key", T1, .flags = OPTIONAL }, { "present_value", T1, .flags = OPTIONAL },
		           { "output_qk", T, .flags = OPTIONAL }),
		.attr = ATTRS({ .name = "causal", .kind = ATTR_INT, .i = 1, .hi = 1 }, FLAG("do_rotary"),
		              { .name = "k_norm_epsilon", .kind = ATTR_FLOAT, .flags = OPTIONAL },
		              { .name = "k_quant_type", .kind = ATTR_STRING, .s = "NONE" }, COUNT("kv_cache_bit_width"),
		              HEADS("kv_num_heads"), { .name = "local_window_size", .kind = ATTR_INT, .i = -1 }, HEADS("num_heads"),
		              { .name = "q_norm_epsilon", .kind = ATTR_FLOAT, .flags = OPTIONAL },
		              { .name = "qk_norm_epsilon", .kind = ATTR_FLOAT, .f = 1e-6 }, COUNT("qk_output"), FLAG("rotary_interleaved"),
		              SCALE, FLAG("sliding_window_cache"), { .name = "smooth_softmax", .kind = ATTR_INT, .i = -1 },
		              { .name = "softcap", .kind = ATTR_FLOAT }, { .name = "v_quant_type", .kind = ATTR_STRING, .s = "NONE" }),
		.types = { [T] = HALF_FLOATS, [T1] = HALF_FLOATS | SET(FLOAT8E4M3FN) | SET(INT8) | SET(UINT8), [T2] = SET(INT32),
		           [T3] = SET(INT64), [T4] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_group_query,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_ops = FAMILY("contrib", rows);
