/*
 * Attention and rotary embedding of com.microsoft, as onnxruntime writes them when it fuses: shape functions, reference kernels,
 * then rows.
 *
 * Letters: B batch, S query length, L key length, P past length, T = P + L, N heads, H head width, D = N H.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/attention.h"
#include "ops/contrib.h"
#include "ops/fast/fast.h"

/* ---- Rotary embedding ---- */

/* input: [B, S, D] or [B, N, S, H]; output alike. position_ids: [B, S] or one number. Caches: [positions, half]. */
static enum linnet_code shape_rotary(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0), ids = in_shape(c, 1), cosine = in_shape(c, 2), sine = in_shape(c, 3);
	int64_t heads = int_attr(c, "num_heads"), some = int_attr(c, "rotary_embedding_dim");
	dim width = DIM_NONE;

	TRY(rank_check(c, 0, 3, 4));
	TRY(rank_check(c, 1, 0, 2));
	TRY(rank_check(c, 2, 2, 2));
	TRY(rank_check(c, 3, 2, 2));
	if (some && !heads)
		return fail(c->e, LINNET_EATTR, "rotary_embedding_dim comes with num_heads");
	if (x.rank == 4)
		width = x.d[3];
	else if (x.rank == 3 && heads)
		TRY(parts(c, "the width of the input", x.d[2], heads, &width));
	if (dim_is_int(width) && (some > width || width % 2))
		return fail(c->e, LINNET_ESHAPE, "heads of %lld numbers cannot be turned in pairs", (long long)width);
	if (cosine.rank == 2 && sine.rank == 2) {
		TRY(length_join(c, "numbers of positions of the caches", cosine.d[0], sine.d[0], NULL));
		TRY(length_join(c, "widths of the caches", cosine.d[1], sine.d[1], NULL));
	}
	if (cosine.rank == 2 && some)
		TRY(length_join(c, "pairs to turn and angles", some / 2, cosine.d[1], NULL));
	else if (cosine.rank == 2 && width != DIM_NONE)
		TRY(length_join(c, "pairs to turn and angles", dim_div(c->dims, width, 2), cosine.d[1], NULL));
	if (ids.rank == 1 && dim_is_int(ids.d[0]) && ids.d[0] != 1)
		return fail(c->e, LINNET_ESHAPE, "input \"position_ids\" of rank 1 has %lld elements; expected 1", (long long)ids.d[0]);
	if (ids.rank == 2 && x.rank >= 0) {
		TRY(length_join(c, "batch lengths of the input and position_ids", x.d[0], ids.d[0], NULL));
		TRY(length_join(c, "lengths of the input and position_ids", x.d[x.rank == 4 ? 2 : 1], ids.d[1], NULL));
	}
	return shape_same(c);
}

/* Angles of positions: cos_cache and sin_cache, [positions, half]. */
struct angles {
	const double *cosine, *sine;
	int64_t positions, half;
	bool interleaved;
};

static enum linnet_code angles_of(struct kernel_call *c, int cosine, int sine, const char *interleaved, struct angles *out)
{
	*out = (struct angles){ .positions = c->in[cosine]->d[0], .half = c->in[cosine]->d[1],
		.interleaved = attr_get(c->op, c->attr, interleaved)->i != 0 };
	TRY(kernel_doubles(c, cosine, &out->cosine));
	return kernel_doubles(c, sine, &out->sine);
}

/* The first pairs of x turned by the angles of position p. */
static enum linnet_code turn_at(const struct angles *a, int64_t p, double *x, struct linnet_error *e)
{
	if (p < 0 || p >= a->positions)
		return fail(e, LINNET_EVALUE, "position %lld is not in [0, %lld]", (long long)p, (long long)(a->positions - 1));
	turn(x, x, a->cosine + p * a->half, a->sine + p * a->half, a->half, a->interleaved);
	return LINNET_OK;
}

static enum linnet_code rotary(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *ids = c->in[1];
	bool split = x->rank == 4;
	int64_t heads = attr_get(c->op, c->attr, "num_heads")->i, last = x->d[x->rank - 1], s = x->d[split ? 2 : 1], width, n;
	struct linnet_error *e = c->e;
	struct angles a;
	double *y;

	TRY(angles_of(c, 2, 3, "interleaved", &a));
	width = split ? last : heads ? last / heads : 2 * a.half;
	n = split ? x->d[1] : width ? last / width : 0;
	if (!split && n * width != last)
		return fail(e, LINNET_ESHAPE, "caches turn %lld numbers of each head; rows of %lld do not make such heads",
		            (long long)width, (long long)last);
	TRY_NEW(y, c->scratch, width);
	for (int64_t row = 0; row < x->d[0] * n * s; row++) {
		/* rows are [B, N, S] or [B, S, N] */
		int64_t b = row / (n * s), t = split ? row % s : row / n % s;

		for (int64_t i = 0; i < width; i++)
			y[i] = tensor_get(x, row * width + i);
		TRY(turn_at(&a, ids->rank < 2 ? tensor_get_int(ids, 0) + t : tensor_get_int(ids, b * s + t), y, e));
		for (int64_t i = 0; i < width; i++)
			tensor_put(c->out[0], row * width + i, y[i]);
	}
	return LINNET_OK;
}

/* emb: [B, S, H]  q, q_rot, k, k_rot: [B, N, S, H] */
static enum linnet_code shape_gemma_rotary(struct shape_call *c)
{
	const struct shape emb = in_shape(c, 0);

	TRY(rank_check(c, 0, 3, 3));
	for (int i = 1; i < 5; i++) {
		const struct shape x = in_shape(c, i);

		TRY(rank_check(c, i, 4, 4));
		if (emb.rank == 3 && x.rank == 4) {
			TRY(length_join(c, "batch lengths", emb.d[0], x.d[0], NULL));
			TRY(length_join(c, "sequence lengths", emb.d[1], x.d[2], NULL));
			TRY(length_join(c, "head widths", emb.d[2], x.d[3], NULL));
		}
		set_shape(c, (i - 1) / 2, i % 2 ? x : c->out[(i - 1) / 2].shape);
		if (i % 2 == 0 && x.rank == 4 && in_shape(c, i - 1).rank == 4)
			TRY(length_join(c, "numbers of heads", in_shape(c, i - 1).d[1], x.d[1], NULL));
	}
	return LINNET_OK;
}

/* q cos(emb) + q_rot sin(emb), and the same of k, the angles repeated for every head. */
static enum linnet_code gemma_rotary(struct kernel_call *c)
{
	const struct tensor *emb = c->in[0];

	for (int o = 0; o < 2; o++) {
		const struct tensor *x = c->in[1 + 2 * o], *turned = c->in[2 + 2 * o];
		int64_t rows = emb->d[1] * emb->d[2];

		for (int64_t i = 0; c->out[o] && i < x->n; i++) {
			double angle = tensor_get(emb, i / (rows * x->d[1]) * rows + i % rows);

			tensor_put(c->out[o], i, tensor_get(x, i) * cos(angle) + tensor_get(turned, i) * sin(angle));
		}
	}
	return LINNET_OK;
}

/* ---- Masks and biases of attention ---- */

/* Input i, bias: a vector of that length. */
static enum linnet_code check_vector(struct shape_call *c, int i, dim length)
{
	const struct shape s = in_shape(c, i);

	TRY(rank_check(c, i, 1, 1));
	if (s.rank == 1 && in_given(c, i))
		TRY(length_join(c, "lengths of the bias, expected and found,", length, s.d[0], NULL));
	return LINNET_OK;
}

/* Input i, attention_bias: [B or 1, N or 1, S, T] */
static enum linnet_code check_bias(struct shape_call *c, int i, const struct shape *scores)
{
	const struct shape s = in_shape(c, i);

	TRY(rank_check(c, i, 4, 4));
	for (int k = 0; k < 4 && s.rank == 4; k++)
		if (k > 1 || s.d[k] != 1)
			TRY(length_join(c, "lengths of the scores and of attention_bias", scores->d[k], s.d[k], NULL));
	return LINNET_OK;
}

/* Input i, a mask: [B], [3 B + 2], [B, T] or [B, S, T]; more: or [2 B], [B, 1, M, M] with M >= T, or [.., 1], which says nothing. */
static enum linnet_code check_mask(struct shape_call *c, int i, const struct shape *scores, bool more)
{
	const struct shape s = in_shape(c, i);
	dim b = scores->d[0], total = scores->d[3];

	TRY(rank_check(c, i, 1, more ? 4 : 3));
	if (s.rank < 1)
		return LINNET_OK;
	if (s.rank == 1) {
		if (dim_is_int(b) && dim_is_int(s.d[0]) && s.d[0] != b && s.d[0] != 3 * b + 2 && !(more && s.d[0] == 2 * b))
			return fail(c->e, LINNET_ESHAPE, "a mask of %lld elements for a batch of %lld", (long long)s.d[0], (long long)b);
		return LINNET_OK;
	}
	if (s.rank == 2 && s.d[1] == 1 && more)
		return LINNET_OK;
	TRY(length_join(c, "batch lengths of the mask and the input", s.d[0], b, NULL));
	if (s.rank == 4) {
		TRY(length_join(c, "lengths of the mask", s.d[2], s.d[3], NULL));
		if (dim_is_int(s.d[3]) && dim_is_int(total) && s.d[3] < total)
			return fail(c->e, LINNET_ESHAPE, "the mask has length %lld for %lld keys", (long long)s.d[3], (long long)total);
		return length_join(c, "heads of the mask, expected and found,", 1, s.d[1], NULL);
	}
	if (s.rank == 3)
		TRY(length_join(c, "lengths of the mask and the queries", s.d[1], scores->d[2], NULL));
	return length_join(c, "lengths of the mask and the keys", s.d[s.rank - 1], total, NULL);
}

/* What is added to a score: the filter where the mask hides, and the bias. */
struct masking {
	bool causal;
	int64_t past, queries, batch; /* keys before the queries; S; B */
	double filter;
	const struct tensor *mask;   /* may be NULL */
	const struct tensor *bias;   /* [B or 1, N or 1, S, T], may be NULL */
	int64_t stride[4];
};

static void masking_set(struct masking *m, const struct kernel_call *c, const struct tensor *mask, const struct tensor *bias,
                        const struct attend *a)
{
	*m = (struct masking){ .causal = attr_get(c->op, c->attr, "unidirectional")->i != 0, .past = a->past_k.t,
		.queries = a->q.t, .batch = a->q.batch,
		.filter = attr_get(c->op, c->attr, "mask_filter_value")->f, .mask = mask, .bias = bias };
	if (bias)
		broadcast_strides(bias, 4, m->stride);
}

/*
 * Whether the mask shows key j: as a vector it says where keys end, or ends and starts, or (3 B + 2 numbers) lengths first;
 * else it is 1 there. A mask of rank 4 is [B, 1, M, M], of which the rows and columns of this call are used.
 */
static bool shown(const struct masking *m, int64_t b, int64_t i, int64_t j)
{
	const struct tensor *t = m->mask;

	switch (t->rank) {
	case 1:
		return j < tensor_get_int(t, b) && (t->n != 2 * m->batch || j >= tensor_get_int(t, m->batch + b));
	case 2:
		return tensor_get_int(t, b * t->d[1] + j) > 0;
	case 3:
		return tensor_get_int(t, (b * t->d[1] + i) * t->d[2] + j) > 0;
	default:
		return tensor_get_int(t, (b * t->d[2] + m->past + i) * t->d[3] + j) > 0;
	}
}

/* Keys behind a causal query get the lowest float, which leaves them no weight. The last query sees all: keys beyond it are there only
 * when they are not its own tokens, and onnxruntime masks none for it. */
static double masked(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
	const struct masking *m = rule;
	double v = 0;

	if (m->causal && i + 1 < m->queries && j > m->past + i)
		return -(double)FLT_MAX;
	if (m->mask && !shown(m, b, i, j))
		v += m->filter;
	if (m->bias)
		v += tensor_get(m->bias, b * m->stride[0] + h * m->stride[1] + i * m->stride[2] + j * m->stride[3]);
	return v;
}

static double scale_of(const struct kernel_call *c, int64_t width)
{
	const struct attr *scale = attr_get(c->op, c->attr, "scale");

	return attr_given(scale) && scale->f != 0 ? scale->f : 1 / sqrt((double)width);
}

/* The same numbers with a bias (may be NULL) of every head, as [B, N, T, H]. */
static enum linnet_code with_bias(struct arena *scratch, const double *bias, struct heads *s, struct linnet_error *e)
{
	int64_t n = 0;
	double *x;

	TRY_NEW(x, scratch, s->batch * s->h * s->t * s->width);
	for (int64_t b = 0; b < s->batch; b++)
		for (int64_t h = 0; h < s->h; h++)
			for (int64_t t = 0; t < s->t; t++)
				for (int64_t d = 0; d < s->width; d++)
					x[n++] = heads_row(s, b, h, t)[d] + (bias ? bias[h * s->width + d] : 0);
	*s = heads_split(x, s->batch, s->h, s->t, s->width);
	return LINNET_OK;
}

/* A past [B, N, P, H] in doubles; `used` is null or has the number of rows that are in use. */
static enum linnet_code past_of(const struct kernel_call *c, const double *x, const int64_t *d, const struct tensor *used,
                                struct heads *out)
{
	int64_t n = used ? tensor_get_int(used, 0) : d[2];

	if (n < 0 || n > d[2])
		return fail(c->e, LINNET_EVALUE, "past_sequence_length is %lld; expected 0 to %lld", (long long)n, (long long)d[2]);
	*out = heads_split(x, d[0], d[1], d[2], d[3]);
	out->t = n;
	return LINNET_OK;
}

/* Past and present must fit a buffer that they share. */
static enum linnet_code check_room(const struct kernel_call *c, const struct heads *past, int64_t length, int64_t rows)
{
	if (past->t + length > rows)
		return fail(c->e, LINNET_EVALUE, "%lld keys do not fit a buffer of %lld", (long long)(past->t + length), (long long)rows);
	return LINNET_OK;
}

/* ---- Attention ---- */

/* The widths of keys and of values that input 1, weights: [D_in, D + D + D_v], makes; sizes: qkv_hidden_sizes, NULL or empty: thirds. */
static enum linnet_code projected_widths(struct shape_call *c, const struct attr *sizes, dim *key_width, dim *width)
{
	const struct shape x = in_shape(c, 0), w = in_shape(c, 1);
	dim head;

	TRY(rank_check(c, 1, 2, 2));
	if (sizes && sizes->n) {
		if (sizes->n != 3 || sizes->ints[0] != sizes->ints[1])
			return fail(c->e, LINNET_EATTR, "qkv_hidden_sizes are three, of which the first two are equal");
		*key_width = sizes->ints[1];
		*width = sizes->ints[2];
		if (w.rank == 2)
			TRY(length_join(c, "widths of the weights and of qkv_hidden_sizes", w.d[1], 2 * *key_width + *width, NULL));
	} else if (w.rank == 2) {
		TRY(parts(c, "the width of the weights", w.d[1], 3, width));
		*key_width = *width;
	}
	TRY(parts(c, "the width of keys", *key_width, int_attr(c, "num_heads"), &head));
	TRY(parts(c, "the width of values", *width, int_attr(c, "num_heads"), &head));
	if (w.rank == 2 && x.rank >= 0)
		TRY(length_join(c, "inner lengths", x.d[x.rank - 1], w.d[0], NULL));
	return w.rank == 2 ? check_vector(c, 2, w.d[1]) : LINNET_OK;
}

enum linnet_code packed_attention(struct shape_call *c, int past_at, const struct attr *sizes)
{
	const struct shape x = in_shape(c, 0), past = in_shape(c, past_at);
	dim width = DIM_NONE, key_width = DIM_NONE, head, total, seen;
	int64_t heads = int_attr(c, "num_heads");

	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, past_at, 5, 5));
	TRY(projected_widths(c, sizes, &key_width, &width));
	head = dim_div(c->dims, key_width, heads);
	if (x.rank < 0)
		return LINNET_OK;
	set_shape(c, 0, shape3(x.d[0], x.d[1], width));
	total = !in_given(c, past_at) ? x.d[1] : past.rank < 0 ? DIM_NONE : dim_add(c->dims, past.d[3], x.d[1]);
	seen = total;
	if (past.rank == 5) {
		TRY(length_join(c, "parts of the past, expected and found,", 2, past.d[0], NULL));
		TRY(length_join(c, "batch lengths of the input and the past", x.d[0], past.d[1], NULL));
		TRY(length_join(c, "numbers of heads of the attribute and the past", heads, past.d[2], NULL));
		TRY(length_join(c, "head widths of the weights and the past", head, past.d[4], &head));
		TRY(length_join(c, "widths of keys and values, which the past has in one,", key_width, width, NULL));
	}
	if (int_attr(c, "past_present_share_buffer")) {
		const struct type *used = in_given(c, 6) ? c->in[6] : NULL;

		if (in_given(c, past_at) && past_at == 4 && !used)
			return fail(c->e, LINNET_EMODEL, "a shared buffer comes with past_sequence_length");
		total = past.rank < 0 ? DIM_NONE : past.d[3];
		seen = past_at != 4 || !used ? DIM_NONE : dim_add(c->dims, type_element(used, 0), x.d[1]);
	}
	if (past_at == 4) {
		const struct shape scores = shape4(x.d[0], heads, x.d[1], seen);

		TRY(check_mask(c, 3, &scores, true));
		TRY(check_bias(c, 5, &scores));
	}
	if (c->nout > 1 && c->wanted[1])
		TRY(length_join(c, "widths of keys and values, which present has in one,", key_width, width, NULL));
	if (c->nout > 1)
		c->out[1].shape = (struct shape){ .rank = 5, .d = { 2, x.d[0], heads, total, head } };
	return LINNET_OK;
}

static enum linnet_code shape_attention(struct shape_call *c)
{
	return packed_attention(c, 4, attr_get(c->op, c->attr, "qkv_hidden_sizes"));
}

/* x w + bias. x: [..., K]  w: [K, n] */
static enum linnet_code project(struct kernel_call *c, const double **out)
{
	int64_t k = c->in[1]->d[0], n = c->in[1]->d[1], rows = 1;
	struct linnet_error *e = c->e;
	const double *x, *w, *bias;
	double *y;

	for (int i = 0; i < c->in[0]->rank - 1; i++)
		rows *= c->in[0]->d[i];
	TRY(kernel_doubles(c, 0, &x));
	TRY(kernel_doubles(c, 1, &w));
	TRY(kernel_doubles(c, 2, &bias));
	TRY_NEW(y, c->scratch, rows * n);
	for (int64_t r = 0; r < rows; r++)
		for (int64_t j = 0; j < n; j++) {
			y[r * n + j] = bias ? bias[j] : 0;
			for (int64_t i = 0; i < k; i++)
				y[r * n + j] += x[r * k + i] * w[i * n + j];
		}
	*out = y;
	return LINNET_OK;
}

/* Every head of s: [B, N, T, H] turned: pair k of the first 2 n numbers by place / 10000^(k / n), at places from `first` on. */
static void turn_places(double *x, const struct heads *s, int64_t n, int64_t first)
{
	for (int64_t row = 0; row < s->batch * s->h * s->t; row++)
		for (int64_t k = 0; k < n; k++) {
			double angle = (double)(first + row % s->t) * pow(10000, -(double)k / (double)n);
			double *u = x + row * s->width + k, *v = u + n, was = *u;

			*u = was * cos(angle) - *v * sin(angle);
			*v = was * sin(angle) + *v * cos(angle);
		}
}

enum linnet_code attend_packed(struct kernel_call *c, const double *qkv, int64_t value_width, const struct tensor *mask,
                               int past_at, const struct tensor *bias, const struct tensor *used)
{
	int64_t n = attr_get(c->op, c->attr, "num_heads")->i, batch = c->in[0]->d[0], s = c->in[0]->d[1], row = c->in[1]->d[1];
	int64_t d = (row - value_width) / 2, turned = attr_get(c->op, c->attr, "rotary_embedding_dim")->i;
	const struct tensor *past = in_tensor(c, past_at);
	struct tensor *present = out_tensor(c, 1);
	struct linnet_error *e = c->e;
	struct attend a = { .bias = masked, .y = c->out[0] };
	struct masking rule;
	const double *x;

	a.q = heads_packed(qkv, batch, s, n, d / n, row);
	a.k = heads_packed(qkv + d, batch, s, n, d / n, row);
	a.v = heads_packed(qkv + 2 * d, batch, s, n, value_width / n, row);
	if (past) {
		TRY(kernel_doubles(c, past_at, &x));
		TRY(past_of(c, x, past->d + 1, used, &a.past_k));
		TRY(past_of(c, x + past->n / 2, past->d + 1, used, &a.past_v));
	}
	if (attr_get(c->op, c->attr, "do_rotary")->i) {
		struct heads *side[] = { &a.q, &a.k };

		for (int i = 0; i < 2; i++) {
			TRY(with_bias(c->scratch, NULL, side[i], e));
			turn_places((double *)side[i]->x, side[i], (turned ? turned : d / n) / 2, a.past_k.t);
		}
	}
	a.scale = scale_of(c, a.q.width);
	masking_set(&rule, c, mask && mask->rank == 2 && mask->d[1] == 1 ? NULL : mask, bias, &a);
	a.rule = &rule;
	if (present) {
		TRY(check_room(c, &a.past_k, s, present->d[3]));
		heads_put(present, 0, present->d[3], &a.past_k, &a.k);
		heads_put(present, present->n / 2, present->d[3], &a.past_v, &a.v);
	}
	return attend(&a, c->scratch, e);
}

static enum linnet_code attention(struct kernel_call *c)
{
	const struct attr *sizes = attr_get(c->op, c->attr, "qkv_hidden_sizes");
	bool shared = attr_get(c->op, c->attr, "past_present_share_buffer")->i != 0;
	const double *qkv;

	TRY(project(c, &qkv));
	return attend_packed(c, qkv, sizes->n ? sizes->ints[2] : c->in[1]->d[1] / 3, in_tensor(c, 3), 4, in_tensor(c, 5),
	                     shared ? in_tensor(c, 6) : NULL);
}

/* ---- MultiHeadAttention ---- */

/* Operands of attention given one by one or packed: numbers of inputs, -1 for one the operator does not have. */
struct operands {
	int bias, mask, attention_bias, past_key, past_value, used, beams;
	bool shared; /* present is the buffer that past is */
};

/* The lengths of a call with those operands. */
struct lengths {
	dim batch, s, length, head, value_head, total;
	bool given; /* the keys and values are complete, [B, N, L, H], without biases */
};

/*
 * query: [B, S, D], with keys and values: [B, S, D + D + D_v] or [B, S, N, 3, H]
 * key:   [B, L, D], with the value: [B, L, N, 2, H], or [B, N, L, H]     value: [B, L, D_v] or [B, N, L, H_v]
 */
static enum linnet_code find_lengths(struct shape_call *c, const struct operands *o, struct lengths *l)
{
	const struct shape q = in_shape(c, 0), k = in_shape(c, 1), v = in_shape(c, 2), past = in_shape(c, o->past_key);
	const struct shape past_value = in_shape(c, o->past_value), beams = in_shape(c, o->beams);
	int64_t n = int_attr(c, "num_heads");
	dim width;

	*l = (struct lengths){ DIM_NONE, DIM_NONE, DIM_NONE, DIM_NONE, DIM_NONE, DIM_NONE, false };
	TRY(rank_check(c, 0, 3, 5));
	TRY(rank_check(c, 1, 3, 5));
	TRY(rank_check(c, 2, 3, 4));
	TRY(rank_check(c, o->past_key, 4, 4));
	TRY(rank_check(c, o->past_value, 4, 4));
	TRY(scalar_check(c, o->used));
	if (in_given(c, o->past_key) != in_given(c, o->past_value))
		return fail(c->e, LINNET_EMODEL, "past_key and past_value come together");
	if (q.rank < 0 || (in_given(c, 1) && k.rank < 0) || (in_given(c, 2) && v.rank < 0))
		return LINNET_OK;
	if (q.rank == 4)
		return fail(c->e, LINNET_ESHAPE, "input \"query\" has rank 4; expected 3 or 5");
	l->batch = q.d[0];
	l->s = q.d[1];
	if (in_given(c, 1) && k.rank != 5 && !in_given(c, 2))
		return fail(c->e, LINNET_EMODEL, "key comes with value, unless both are packed in it");
	if (q.rank == 5) {
		if (in_given(c, 1))
			return fail(c->e, LINNET_EMODEL, "a query of rank 5 has keys and values in it");
		TRY(length_join(c, "numbers of heads of the attribute and the query", n, q.d[2], NULL));
		TRY(length_join(c, "parts of the query, expected and found,", 3, q.d[3], NULL));
		l->head = l->value_head = q.d[4];
		l->length = l->s;
	} else if (!in_given(c, 1)) {
		TRY(parts(c, "the width of the packed query", q.d[2], 3, &width));
		TRY(parts(c, "the width of queries", width, n, &l->head));
		l->value_head = l->head;
		l->length = l->s;
	} else {
		TRY(parts(c, "the width of queries", q.d[2], n, &l->head));
		TRY(length_join(c, "batch lengths of query and key", q.d[0], k.d[0], &l->batch));
	}
	if (in_given(c, 1) && k.rank == 5) {
		TRY(length_join(c, "numbers of heads of the attribute and the key", n, k.d[2], NULL));
		TRY(length_join(c, "parts of the key, expected and found,", 2, k.d[3], NULL));
		TRY(length_join(c, "head widths of query and key", l->head, k.d[4], &l->head));
		l->length = k.d[1];
		l->value_head = k.d[4];
	} else if (in_given(c, 1)) {
		if (k.rank != v.rank)
			return fail(c->e, LINNET_ESHAPE, "key has rank %d, value %d", k.rank, v.rank);
		l->given = k.rank == 4;
		l->length = k.d[l->given ? 2 : 1];
		TRY(length_join(c, "batch lengths of key and value", k.d[0], v.d[0], NULL));
		TRY(length_join(c, "lengths of key and value", l->length, v.d[l->given ? 2 : 1], &l->length));
		if (l->given) {
			TRY(length_join(c, "numbers of heads of the attribute and the key", n, k.d[1], NULL));
			TRY(length_join(c, "numbers of heads of the attribute and the value", n, v.d[1], NULL));
			TRY(length_join(c, "head widths of query and key", l->head, k.d[3], &l->head));
			l->value_head = v.d[3];
		} else {
			TRY(length_join(c, "widths of query and key", q.d[2], k.d[2], NULL));
			TRY(parts(c, "the width of values", v.d[2], n, &l->value_head));
		}
	}
	l->total = l->length;
	if (in_given(c, o->past_key))
		l->total = past.rank < 0 ? DIM_NONE : dim_add(c->dims, past.d[2], l->length);
	if (past.rank == 4) {
		TRY(length_join(c, "batch lengths of query and past_key", l->batch, past.d[0], &l->batch));
		TRY(length_join(c, "numbers of heads of the attribute and past_key", n, past.d[1], NULL));
		TRY(length_join(c, "head widths of query and past_key", l->head, past.d[3], &l->head));
	}
	if (past_value.rank == 4) {
		TRY(length_join(c, "batch lengths of query and past_value", l->batch, past_value.d[0], &l->batch));
		TRY(length_join(c, "numbers of heads of the attribute and past_value", n, past_value.d[1], NULL));
		TRY(length_join(c, "head widths of value and past_value", l->value_head, past_value.d[3], &l->value_head));
		if (past.rank == 4)
			TRY(length_join(c, "lengths of past_key and past_value", past.d[2], past_value.d[2], NULL));
	}
	TRY(rank_check(c, o->beams, 3, 3));
	if (beams.rank == 3) {
		if (beams.d[1] == 0)
			return fail(c->e, LINNET_ESHAPE, "input \"%s\" has no beams", op_in(c->op, o->beams)->name);
		TRY(length_join(c, "batch lengths of the query and cache_indirection", l->batch, dim_mul(c->dims, beams.d[0], beams.d[1]), NULL));
	}
	return LINNET_OK;
}

/* output: [B, S, D_v]  present_key, present_value: [B, N, T, H]  qk: [B, N, S, T] */
static enum linnet_code shape_operands(struct shape_call *c, const struct operands *o)
{
	const struct shape past = in_shape(c, o->past_key);
	int64_t n = int_attr(c, "num_heads");
	struct shape scores;
	struct lengths l;
	dim rows;

	TRY(find_lengths(c, o, &l));
	rows = l.total;
	if (o->shared && in_given(c, o->past_key)) {
		rows = past.rank < 0 ? DIM_NONE : past.d[2];
		l.total = in_given(c, o->used) ? dim_add(c->dims, type_element(c->in[o->used], 0), l.length) : DIM_NONE;
	}
	if (c->nout > 3 && c->out[3].dt == DT_UNDEFINED)
		c->out[3].dt = c->in[0]->dt;
	if (l.s == DIM_NONE && l.batch == DIM_NONE && in_shape(c, 0).rank < 0)
		return LINNET_OK;
	scores = shape4(l.batch, n, l.s, l.total);
	TRY(check_mask(c, o->mask, &scores, false));
	TRY(check_bias(c, o->attention_bias, &scores));
	TRY(check_vector(c, o->bias, dim_mul(c->dims, dim_add(c->dims, dim_mul(c->dims, l.head, 2), l.value_head), n)));
	set_shape(c, 0, shape3(l.batch, l.s, dim_mul(c->dims, l.value_head, n)));
	set_shape(c, 1, shape4(l.batch, n, rows, l.head));
	set_shape(c, 2, shape4(l.batch, n, rows, l.value_head));
	set_shape(c, 3, scores);
	return LINNET_OK;
}

static struct operands multi_head_operands(bool shared)
{
	return (struct operands){ .bias = 3, .mask = 4, .attention_bias = 5, .past_key = 6, .past_value = 7, .used = 8, .beams = 9,
		.shared = shared };
}

static enum linnet_code shape_multi_head(struct shape_call *c)
{
	const struct operands o = multi_head_operands(in_given(c, 8));

	return shape_operands(c, &o);
}

/* Queries, keys and values of the call, with biases; keys and values that are complete have none. */
static enum linnet_code read_operands(struct kernel_call *c, const struct operands *o, struct attend *a)
{
	const struct tensor *qt = c->in[0], *kt = in_tensor(c, 1), *vt = in_tensor(c, 2);
	int64_t n = attr_get(c->op, c->attr, "num_heads")->i, batch = qt->d[0], s = qt->d[1], h;
	const double *q, *k, *v, *bias;

	TRY(kernel_doubles(c, 0, &q));
	TRY(kernel_doubles(c, 1, &k));
	TRY(kernel_doubles(c, 2, &v));
	TRY(kernel_doubles(c, o->bias, &bias));
	if (qt->rank == 5) {
		struct heads *side[] = { &a->q, &a->k, &a->v };

		h = qt->d[4];
		for (int i = 0; i < 3; i++) {
			*side[i] = heads_packed(q + i * h, batch, s, n, h, 3 * n * h);
			side[i]->by_head = 3 * h;
		}
	} else if (!kt) {
		h = qt->d[2] / 3 / n;
		a->q = heads_packed(q, batch, s, n, h, 3 * n * h);
		a->k = heads_packed(q + n * h, batch, s, n, h, 3 * n * h);
		a->v = heads_packed(q + 2 * n * h, batch, s, n, h, 3 * n * h);
	} else {
		h = qt->d[2] / n;
		a->q = heads_packed(q, batch, s, n, h, n * h);
		if (kt->rank == 5) {
			a->k = heads_packed(k, batch, kt->d[1], n, h, 2 * n * h);
			a->v = heads_packed(k + h, batch, kt->d[1], n, h, 2 * n * h);
			a->k.by_head = a->v.by_head = 2 * h;
		} else if (kt->rank == 4) {
			a->k = heads_split(k, batch, n, kt->d[2], h);
			a->v = heads_split(v, batch, n, vt->d[2], vt->d[3]);
		} else {
			a->k = heads_packed(k, batch, kt->d[1], n, h, n * h);
			a->v = heads_packed(v, batch, vt->d[1], n, vt->d[2] / n, vt->d[2]);
		}
	}
	TRY(with_bias(c->scratch, bias, &a->q, c->e));
	if (kt && kt->rank == 4)
		return LINNET_OK;
	TRY(with_bias(c->scratch, bias ? bias + n * h : NULL, &a->k, c->e));
	return with_bias(c->scratch, bias ? bias + 2 * n * h : NULL, &a->v, c->e);
}

/* Row t of batch b of the past becomes that of the beam that token t came from; beams: [B / W, W, rows], W of them side by side. */
static enum linnet_code follow_beams(const struct kernel_call *c, const struct tensor *beams, struct heads *past)
{
	struct linnet_error *e = c->e;
	struct heads s = *past;
	int64_t n = 0, width = beams->d[1];
	double *x;

	TRY_NEW(x, c->scratch, s.batch * s.h * s.t * s.width);
	for (int64_t b = 0; b < s.batch; b++)
		for (int64_t h = 0; h < s.h; h++)
			for (int64_t t = 0; t < s.t; t++) {
				int64_t from = t < beams->d[2] ? tensor_get_int(beams, b * beams->d[2] + t) : b % width;

				if (from < 0 || from >= width)
					return fail(e, LINNET_EVALUE, "beam %lld is not in [0, %lld]", (long long)from, (long long)(width - 1));
				for (int64_t d = 0; d < s.width; d++)
					x[n++] = heads_row(&s, b / width * width + from, h, t)[d];
			}
	*past = heads_split(x, s.batch, s.h, s.t, s.width);
	return LINNET_OK;
}

static enum linnet_code attend_operands(struct kernel_call *c, const struct operands *o, int stage)
{
	const struct tensor *past[] = { in_tensor(c, o->past_key), in_tensor(c, o->past_value) }, *beams = in_tensor(c, o->beams);
	struct attend a = { .bias = masked, .y = c->out[0], .scores = out_tensor(c, 3), .stage = stage };
	struct heads *side[] = { &a.past_k, &a.past_v }, *now[] = { &a.k, &a.v };
	struct masking rule;

	TRY(read_operands(c, o, &a));
	for (int i = 0; i < 2; i++) {
		struct tensor *present = out_tensor(c, 1 + i);
		const double *x;

		if (past[i]) {
			TRY(kernel_doubles(c, i ? o->past_value : o->past_key, &x));
			TRY(past_of(c, x, past[i]->d, o->shared ? in_tensor(c, o->used) : NULL, side[i]));
		}
		if (present) {
			TRY(check_room(c, side[i], now[i]->t, present->d[2]));
			heads_put(present, 0, present->d[2], side[i], now[i]);
		}
		if (past[i] && beams)
			TRY(follow_beams(c, beams, side[i]));
	}
	a.scale = scale_of(c, a.q.width);
	masking_set(&rule, c, in_tensor(c, o->mask), in_tensor(c, o->attention_bias), &a);
	a.rule = &rule;
	return attend(&a, c->scratch, c->e);
}

static enum linnet_code multi_head(struct kernel_call *c)
{
	const struct operands o = multi_head_operands(in_tensor(c, 8) != NULL);

	return attend_operands(c, &o, SCORES_BIASED);
}

/* ---- DecoderMaskedMultiHeadAttention ---- */

static struct operands decoder_operands(const struct op *op, const struct attr *attr)
{
	return (struct operands){ .bias = 10, .mask = 3, .attention_bias = 4, .past_key = 5, .past_value = 6, .used = 7, .beams = 9,
		.shared = attr_get(op, attr, "past_present_share_buffer")->i != 0 };
}

static enum linnet_code shape_decoder_masked(struct shape_call *c)
{
	const struct operands o = decoder_operands(c->op, c->attr);
	const struct shape q = in_shape(c, 0);

	if (q.rank == 3)
		TRY(length_join(c, "numbers of queries, expected and found,", 1, q.d[1], NULL));
	if (o.shared && in_given(c, o.past_key) && !in_given(c, o.used))
		return fail(c->e, LINNET_EMODEL, "a shared buffer comes with past_sequence_length");
	return shape_operands(c, &o);
}

static enum linnet_code decoder_masked(struct kernel_call *c)
{
	const struct operands o = decoder_operands(c->op, c->attr);

	return attend_operands(c, &o, SCORES_BIASED);
}

/* ---- GroupQueryAttention ---- */

/* Positions of inputs. */
enum {
	GQ_QUERY, GQ_KEY, GQ_VALUE, GQ_PAST_KEY, GQ_PAST_VALUE, GQ_LAST, GQ_TOTAL, GQ_COS, GQ_SIN, GQ_POSITIONS, GQ_BIAS, GQ_SINK,
	GQ_K_SCALE, GQ_V_SCALE, GQ_Q_NORM, GQ_K_NORM, GQ_QUERIES,
};

/* Whether a cache of this type holds codes, and two of them a byte. */
static bool cache_coded(enum dtype dt) { return dt == DT_INT8 || dt == DT_UINT8 || dt == DT_FLOAT8E4M3FN; }
static bool cache_halved(enum dtype dt) { return dt == DT_UINT8; }

/* How a cache of codes is scaled: by one number or one a channel, [1, N_kv, 1, H]. */
static enum linnet_code check_codes(struct shape_call *c, int i, int scale, const char *kind)
{
	const struct text s = attr_get(c->op, c->attr, kind)->s;
	bool none = s.n == 4;
	enum dtype dt = in_given(c, i) ? c->in[i]->dt : DT_UNDEFINED;
	int64_t bits = int_attr(c, "kv_cache_bit_width");

	if (dt == DT_UNDEFINED)
		return LINNET_OK;
	if (cache_coded(dt) == none)
		return fail(c->e, LINNET_EATTR, "%s is %.*s; the cache is of %s", kind, (int)s.n, s.p, dtype_name(dt));
	if (!none && !in_given(c, scale))
		return fail(c->e, LINNET_EMODEL, "a quantised cache comes with k_scale and v_scale");
	if (!none && bits && bits != (cache_halved(dt) ? 4 : 8))
		return fail(c->e, LINNET_EATTR, "kv_cache_bit_width is %lld; the cache is of %s", (long long)bits, dtype_name(dt));
	return LINNET_OK;
}

/* Input i, scales of the cache: one, or one for every channel of a head. */
static enum linnet_code check_scales(struct shape_call *c, int i, dim heads, dim width)
{
	const struct shape s = in_shape(c, i);
	const dim most[] = { 1, heads, 1, width };

	TRY(rank_check(c, i, 0, 4));
	for (int k = 0; k < s.rank; k++)
		if (s.d[k] != 1)
			TRY(length_join(c, "lengths of the cache and its scales", most[4 - s.rank + k], s.d[k], NULL));
	return LINNET_OK;
}

/*
 * query: [B, S, N H], or with key and value: [B, S, (N + 2 N_kv) H]  key, value: [B, L, N_kv H]
 * past_key, past_value: [B, N_kv, M, H], half as wide when codes have 4 bits
 * output: [B, S, N H]  present_key, present_value: [B, N_kv, the larger of M and total_sequence_length, H], as long as the past when
 * it is a window  output_qk: [B, N, S, total_sequence_length]
 */
static enum linnet_code shape_group_query(struct shape_call *c)
{
	const struct shape q = in_shape(c, GQ_QUERY), k = in_shape(c, GQ_KEY), past = in_shape(c, GQ_PAST_KEY);
	const struct shape cosine = in_shape(c, GQ_COS), ids = in_shape(c, GQ_POSITIONS), last = in_shape(c, GQ_LAST);
	int64_t n = int_attr(c, "num_heads"), nkv = int_attr(c, "kv_num_heads"), window = int_attr(c, "local_window_size");
	bool rotary = int_attr(c, "do_rotary") != 0, sliding = int_attr(c, "sliding_window_cache") != 0;
	dim head, width, total, rows, length, batch;

	if (n % nkv)
		return fail(c->e, LINNET_EATTR, "%lld query heads do not share %lld key heads evenly", (long long)n, (long long)nkv);
	if (window == 0 || window < -1 || (window > 0 && !int_attr(c, "causal")))
		return fail(c->e, LINNET_EATTR, "local_window_size is %lld; expected -1, or a positive number with causal",
		            (long long)window);
	if (rotary != in_given(c, GQ_COS) && rotary)
		return fail(c->e, LINNET_EMODEL, "do_rotary comes with cos_cache and sin_cache");
	if (in_given(c, GQ_KEY) != in_given(c, GQ_VALUE) || in_given(c, GQ_PAST_KEY) != in_given(c, GQ_PAST_VALUE) ||
	    in_given(c, GQ_COS) != in_given(c, GQ_SIN) || in_given(c, GQ_Q_NORM) != in_given(c, GQ_K_NORM))
		return fail(c->e, LINNET_EMODEL, "key and value, past_key and past_value, cos_cache and sin_cache, q_norm_weight and "
		            "k_norm_weight come together");
	if (sliding && (window < 1 || !in_given(c, GQ_PAST_KEY)))
		return fail(c->e, LINNET_EMODEL, "sliding_window_cache comes with local_window_size and a past");
	if (in_given(c, GQ_QUERIES) && (!in_given(c, GQ_PAST_KEY) || !int_attr(c, "causal")))
		return fail(c->e, LINNET_EMODEL, "query_seqlens comes with a past and causal");
	TRY(rank_check(c, GQ_QUERY, 3, 3));
	TRY(rank_check(c, GQ_KEY, 3, 3));
	TRY(rank_check(c, GQ_VALUE, 3, 3));
	TRY(rank_check(c, GQ_PAST_KEY, 4, 4));
	TRY(rank_check(c, GQ_PAST_VALUE, 4, 4));
	TRY(rank_check(c, GQ_COS, 2, 2));
	TRY(rank_check(c, GQ_SIN, 2, 2));
	TRY(rank_check(c, GQ_POSITIONS, 2, 2));
	TRY(rank_check(c, GQ_LAST, 1, 2)); /* [B] and, as exporters have it, [B, 1] */
	TRY(scalar_check(c, GQ_TOTAL));
	TRY(check_codes(c, GQ_PAST_KEY, GQ_K_SCALE, "k_quant_type"));
	TRY(check_codes(c, GQ_PAST_VALUE, GQ_V_SCALE, "v_quant_type"));
	for (int i = 1; i < 3 && i < c->nout; i++)
		if (c->out[i].dt == DT_UNDEFINED)
			c->out[i].dt = c->in[GQ_QUERY]->dt;
	if (q.rank < 0)
		return LINNET_OK;
	batch = q.d[0];
	length = q.d[1];
	TRY(parts(c, "the width of queries", q.d[2], in_given(c, GQ_KEY) ? n : n + 2 * nkv, &head));
	width = dim_mul(c->dims, head, nkv);
	for (int i = GQ_KEY; i <= GQ_VALUE; i++) {
		const struct shape s = in_shape(c, i);

		if (s.rank != 3)
			continue;
		TRY(length_join(c, "batch lengths of the query and of keys and values", batch, s.d[0], &batch));
		TRY(length_join(c, "lengths of key and value", k.rank == 3 ? k.d[1] : DIM_NONE, s.d[1], &length));
		TRY(length_join(c, "widths of keys and values, expected and found,", width, s.d[2], NULL));
		if (dim_is_int(length) && length && dim_is_int(q.d[1]) && q.d[1] != length)
			return fail(c->e, LINNET_ESHAPE, "lengths of query and key differ: %lld and %lld", (long long)q.d[1],
			            (long long)length);
	}
	for (int i = GQ_PAST_KEY; i <= GQ_PAST_VALUE; i++) {
		const struct shape s = in_shape(c, i);

		if (s.rank != 4)
			continue;
		TRY(length_join(c, "batch lengths of query and past", batch, s.d[0], &batch));
		TRY(length_join(c, "numbers of heads of the attribute and the past", nkv, s.d[1], NULL));
		TRY(length_join(c, "lengths of past_key and past_value", past.rank == 4 ? past.d[2] : DIM_NONE, s.d[2], NULL));
		TRY(length_join(c, "head widths, expected and found,",
		                cache_halved(c->in[i]->dt) ? dim_div(c->dims, head, 2) : head, s.d[3], NULL));
	}
	if (rotary && cosine.rank == 2 && dim_is_int(cosine.d[1]) && dim_is_int(head) && 2 * cosine.d[1] > head)
		return fail(c->e, LINNET_ESHAPE, "%lld pairs to turn in heads of %lld", (long long)cosine.d[1], (long long)head);
	for (int i = 0; i < 2 && cosine.rank == 2 && in_shape(c, GQ_SIN).rank == 2; i++)
		TRY(length_join(c, "lengths of cos_cache and sin_cache", cosine.d[i], in_shape(c, GQ_SIN).d[i], NULL));
	if (ids.rank == 2) {
		TRY(length_join(c, "batch lengths of the query and position_ids", batch, ids.d[0], NULL));
		TRY(length_join(c, "lengths of the query and position_ids", q.d[1], ids.d[1], NULL));
	}
	if (last.rank > 0)
		TRY(length_join(c, "batch lengths of the query and seqlens_k", batch, last.rank == 2 ? dim_mul(c->dims, last.d[0], last.d[1]) : last.d[0], NULL));
	TRY(check_scales(c, GQ_K_SCALE, nkv, head));
	TRY(check_scales(c, GQ_V_SCALE, nkv, head));
	if (in_shape(c, GQ_SINK).rank >= 0)
		TRY(check_vector(c, GQ_SINK, n));
	if (in_shape(c, GQ_QUERIES).rank >= 0)
		TRY(check_vector(c, GQ_QUERIES, batch));
	for (int i = GQ_Q_NORM; i <= GQ_K_NORM; i++)
		if (in_shape(c, i).rank >= 0)
			TRY(check_vector(c, i, head));
	total = type_element(c->in[GQ_TOTAL], 0);
	if (dim_is_int(total) && dim_is_int(length) && !sliding && !in_given(c, GQ_QUERIES) &&
	    (in_given(c, GQ_PAST_KEY) ? past.rank == 4 && dim_is_int(past.d[2]) && total > past.d[2] + length : total != length))
		return fail(c->e, LINNET_EVALUE, "total_sequence_length is %lld; the past and %lld new keys are %lld", (long long)total,
		            (long long)length, (long long)(in_given(c, GQ_PAST_KEY) ? past.d[2] + length : length));
	if (dim_is_int(total) && total < 0)
		return fail(c->e, LINNET_EVALUE, "total_sequence_length is %lld", (long long)total);
	TRY(check_bias(c, GQ_BIAS, &(struct shape){ .rank = 4, .d = { batch, n, q.d[1], total } }));
	rows = total;
	if (in_given(c, GQ_PAST_KEY))
		rows = past.rank < 0 ? DIM_NONE : sliding ? past.d[2] : dim_max(c->dims, past.d[2], total);
	set_shape(c, 0, shape3(batch, q.d[1], dim_mul(c->dims, head, n)));
	for (int i = 1; i < 3; i++) {
		const struct shape s = in_shape(c, GQ_PAST_KEY + i - 1);

		set_shape(c, i, shape4(batch, nkv, rows, s.rank == 4 ? s.d[3] : head));
	}
	set_shape(c, 3, shape4(batch, n, q.d[1], total));
	return LINNET_OK;
}

/* A number as a tensor of that type keeps it. */
static double kept(enum dtype dt, double v)
{
	unsigned char bytes[16];

	dtype_put(dt, bytes, 0, v);
	return dtype_get(dt, bytes, 0);
}

/* One side of the cache: numbers, or codes that scales make numbers: [1], or what broadcasts to [B, N_kv, M, H]. */
struct cache {
	enum dtype dt;
	const struct tensor *scale; /* of codes, else NULL */
	int64_t stride[4];
};

static struct cache cache_of(const struct kernel_call *c, int past, int scale)
{
	struct cache s = { .dt = in_tensor(c, past) ? in_tensor(c, past)->dt : c->in[GQ_QUERY]->dt };

	if (!cache_coded(s.dt))
		return s;
	s.scale = c->in[scale];
	broadcast_strides(s.scale, 4, s.stride);
	return s;
}

static double cache_scale(const struct cache *s, int64_t b, int64_t h, int64_t t, int64_t d)
{
	return s->scale ? tensor_get(s->scale, b * s->stride[0] + h * s->stride[1] + t * s->stride[2] + d * s->stride[3]) : 1;
}

/* The code of a number, and the number as it comes back. 4-bit codes are -8 to 7. */
static double cache_code(const struct cache *s, double v, double scale)
{
	double bound = s->dt == DT_INT8 ? 128 : s->dt == DT_UINT8 ? 8 : 448;

	if (!s->scale)
		return kept(s->dt, v);
	v = scale != 0 ? v / scale : 0;
	if (s->dt == DT_FLOAT8E4M3FN)
		return kept(s->dt, fmax(-bound, fmin(bound, v)));
	return fmax(-bound, fmin(bound - 1, nearbyint(v)));
}

/* Code d of a row of `width` that begins at element `at` of the past; the even ones of two in a byte are the low halves, and 8 more. */
static double past_code(const struct tensor *past, int64_t at, int64_t d)
{
	int64_t byte;

	if (!cache_halved(past->dt))
		return tensor_get(past, at + d);
	byte = tensor_get_int(past, at + d / 2);
	return (double)((d % 2 ? byte >> 4 : byte & 15) - 8);
}

static void put_codes(const struct cache *s, struct tensor *present, int64_t at, const double *code, int64_t width)
{
	for (int64_t d = 0; d < width; d++)
		if (!cache_halved(s->dt))
			tensor_put(present, at + d, code[d]);
		else if (d % 2)
			tensor_put_int(present, at + d / 2, ((int64_t)code[d] + 8) << 4 | ((int64_t)code[d - 1] + 8));
}

/* How a batch entry stands: `before` tokens were cached, of which the last `resident` are in the past's first rows; `fresh` ones come
 * from this call, whose `queries` first rows are tokens and end at the last one. */
struct entry {
	int64_t before, resident, fresh, queries;
};

/* Of t tokens so far, those that stay in a window cache of that capacity: it is emptied by `capacity - window + 1` at a time. */
static int64_t staying(int64_t t, int64_t capacity, int64_t window)
{
	int64_t g = capacity - window + 1;

	return t <= capacity ? t : t - g * ((t - capacity + g - 1) / g);
}

struct group_query {
	int64_t batch, s, length, n, nkv, width; /* length of new keys */
	int64_t total, window;                   /* window 0: none */
	bool causal, sliding, ragged;            /* ragged: query_seqlens is given */
	const struct tensor *bias;
	int64_t stride[4];
	struct entry *entry; /* by batch */
};

/* Entries by seqlens_k and query_seqlens. */
static enum linnet_code read_entries(struct kernel_call *c, struct group_query *g)
{
	const struct tensor *last = c->in[GQ_LAST], *queries = in_tensor(c, GQ_QUERIES), *past = in_tensor(c, GQ_PAST_KEY);
	int64_t rows = past ? past->d[2] : 0;
	struct linnet_error *e = c->e;

	if (g->sliding && rows < g->window)
		return fail(e, LINNET_ESHAPE, "a cache of %lld rows does not hold a window of %lld", (long long)rows, (long long)g->window);
	TRY_NEW(g->entry, c->scratch, g->batch);
	for (int64_t b = 0; b < g->batch; b++) {
		struct entry *n = &g->entry[b];
		int64_t t = tensor_get_int(last, b) + 1;

		if (t < (queries ? 1 : 0) || t > g->total)
			return fail(e, LINNET_EVALUE, "seqlens_k is %lld; expected less than total_sequence_length, %lld", (long long)(t - 1),
			            (long long)g->total);
		n->queries = g->s < t ? g->s : t;
		if (queries) {
			n->queries = tensor_get_int(queries, b);
			if (n->queries < 0 || n->queries > g->s || n->queries > t)
				return fail(e, LINNET_EVALUE, "query_seqlens is %lld; expected 0 to %lld", (long long)n->queries,
				            (long long)(g->s < t ? g->s : t));
		}
		n->fresh = g->length < n->queries ? g->length : n->queries;
		n->before = t - n->fresh;
		n->resident = g->sliding ? staying(n->before, rows, g->window) : n->before;
		if (n->resident > rows)
			return fail(e, LINNET_EVALUE, "%lld keys of the past are in a cache of %lld", (long long)n->resident, (long long)rows);
	}
	return LINNET_OK;
}

/*
 * Query i stands at the position of its token, keys at theirs; seen are those up to the query's (causal), at most window - 1 before it.
 * Rows without a token see nothing where query_seqlens says so, else what the last ones do.
 */
static double group_query_bias(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
	const struct group_query *g = rule;
	const struct entry *n = &g->entry[b];
	int64_t end = n->before + n->fresh, key = n->before - n->resident + j, at = end - n->queries + i;

	if (j >= n->resident + n->fresh || (g->causal && key > at) || (g->window && key <= at - g->window) ||
	    (g->ragged && i >= n->queries))
		return -INFINITY;
	return g->bias ? tensor_get(g->bias, b * g->stride[0] + h * g->stride[1] + i * g->stride[2] + key * g->stride[3]) : 0;
}

/* Numbers of one head divided by the root of their mean square, times weights. */
static void norm_head(double *x, int64_t n, const double *weight, double epsilon)
{
	double sum = 0;

	for (int64_t d = 0; d < n; d++)
		sum += x[d] * x[d];
	for (int64_t d = 0; d < n; d++)
		x[d] *= weight[d] / sqrt(sum / (double)n + epsilon);
}

static double norm_epsilon(const struct kernel_call *c, const char *own)
{
	const struct attr *a = attr_get(c->op, c->attr, own);

	return attr_given(a) ? a->f : attr_get(c->op, c->attr, "qk_norm_epsilon")->f;
}

/* Queries or new keys prepared: normalised and turned. In the first call position_ids has one position, that of the first token. */
static enum linnet_code place_heads(struct kernel_call *c, const struct group_query *g, const struct angles *angles, int norm,
                                    double epsilon, struct heads *s)
{
	const struct tensor *ids = in_tensor(c, GQ_POSITIONS);
	const double *weight;

	TRY(with_bias(c->scratch, NULL, s, c->e));
	TRY(kernel_doubles(c, norm, &weight));
	for (int64_t row = 0; row < s->batch * s->h * s->t; row++) {
		int64_t b = row / (s->h * s->t), t = row % s->t;
		const struct entry *n = &g->entry[b];
		double *x = (double *)s->x + row * s->width;
		int64_t at = n->before + n->fresh - n->queries + t;

		if (weight)
			norm_head(x, s->width, weight, epsilon);
		if (ids && ids->n)
			at = g->total == g->s && !g->ragged ? tensor_get_int(ids, 0) + t : tensor_get_int(ids, b * ids->d[1] + t);
		if (angles->half && t < n->queries)
			TRY(turn_at(angles, at, x, c->e));
	}
	return LINNET_OK;
}

/* The keys or values that are seen, as the cache gives them back, in `rows` rows; present: what stays of them. */
static enum linnet_code run_cache(struct kernel_call *c, const struct group_query *g, int past_at, int scale_at, struct tensor *present,
                                  int64_t rows, struct heads *now)
{
	const struct tensor *past = in_tensor(c, past_at);
	struct cache s = cache_of(c, past_at, scale_at);
	int64_t w = now->width, in_row = cache_halved(s.dt) ? w / 2 : w;
	struct linnet_error *e = c->e;
	double *x, *code;

	TRY_NEW(x, c->scratch, g->batch * g->nkv * rows * w);
	TRY_NEW(code, c->scratch, w);
	for (int64_t i = 0; present && i < present->n; i++)
		element_zero(present, i);
	for (int64_t b = 0; b < g->batch; b++)
		for (int64_t h = 0; h < g->nkv; h++)
			for (int64_t t = 0; t < g->entry[b].resident + g->entry[b].fresh; t++) {
				const struct entry *n = &g->entry[b];
				int64_t all = n->resident + n->fresh, stay = all, to = (b * g->nkv + h) * rows + t;

				if (g->sliding)
					stay = staying(n->before + n->fresh, past->d[2], g->window);
				for (int64_t d = 0; d < w; d++) {
					double scale = cache_scale(&s, b, h, t, d);

					if (t < n->resident)
						code[d] = past_code(past, ((b * g->nkv + h) * past->d[2] + t) * in_row, d);
					else
						code[d] = cache_code(&s, heads_row(now, b, h, t - n->resident)[d], scale);
					x[to * w + d] = code[d] * scale;
				}
				if (present && t >= all - stay)
					put_codes(&s, present, ((b * g->nkv + h) * present->d[2] + t - (all - stay)) * in_row, code, w);
			}
	*now = heads_split(x, g->batch, g->nkv, rows, w);
	return LINNET_OK;
}

static enum linnet_code group_query(struct kernel_call *c)
{
	const struct tensor *qt = c->in[GQ_QUERY], *kt = in_tensor(c, GQ_KEY), *sink = in_tensor(c, GQ_SINK);
	int64_t mode = attr_get(c->op, c->attr, "qk_output")->i, step, rows;
	struct group_query g = { .batch = qt->d[0], .s = qt->d[1], .length = kt ? kt->d[1] : qt->d[1],
		.n = attr_get(c->op, c->attr, "num_heads")->i, .nkv = attr_get(c->op, c->attr, "kv_num_heads")->i,
		.total = tensor_get_int(c->in[GQ_TOTAL], 0), .window = attr_get(c->op, c->attr, "local_window_size")->i,
		.causal = attr_get(c->op, c->attr, "causal")->i != 0,
		.sliding = attr_get(c->op, c->attr, "sliding_window_cache")->i != 0, .ragged = in_tensor(c, GQ_QUERIES) != NULL,
		.bias = in_tensor(c, GQ_BIAS) };
	struct attend a = { .bias = group_query_bias, .rule = &g, .cap = attr_get(c->op, c->attr, "softcap")->f, .y = c->out[0],
		.scores = mode ? out_tensor(c, 3) : NULL, .stage = mode == 2 ? SCORES_WEIGHTS : SCORES_BIASED };
	struct angles angles = { .half = 0 };
	const double *q, *k, *v;
	struct linnet_error *e = c->e;
	double *zero;

	g.window = g.window > 0 ? g.window : 0;
	g.width = kt ? qt->d[2] / g.n : qt->d[2] / (g.n + 2 * g.nkv);
	if (g.bias)
		broadcast_strides(g.bias, 4, g.stride);
	TRY(read_entries(c, &g));
	TRY(kernel_doubles(c, GQ_QUERY, &q));
	TRY(kernel_doubles(c, GQ_KEY, &k));
	TRY(kernel_doubles(c, GQ_VALUE, &v));
	step = qt->d[2];
	a.q = heads_packed(q, g.batch, g.s, g.n, g.width, step);
	if (kt) {
		step = kt->d[2];
	} else {
		k = q + g.n * g.width;
		v = k + g.nkv * g.width;
	}
	a.k = heads_packed(k, g.batch, g.length, g.nkv, g.width, step);
	a.v = heads_packed(v, g.batch, g.length, g.nkv, g.width, step);
	if (attr_get(c->op, c->attr, "do_rotary")->i)
		TRY(angles_of(c, GQ_COS, GQ_SIN, "rotary_interleaved", &angles));
	TRY(place_heads(c, &g, &angles, GQ_Q_NORM, norm_epsilon(c, "q_norm_epsilon"), &a.q));
	TRY(place_heads(c, &g, &angles, GQ_K_NORM, norm_epsilon(c, "k_norm_epsilon"), &a.k));
	rows = g.total;
	for (int64_t b = 0; b < g.batch && g.sliding; b++)
		rows = larger_int(b ? rows : 0, g.entry[b].resident + g.entry[b].fresh);
	TRY(run_cache(c, &g, GQ_PAST_KEY, GQ_K_SCALE, out_tensor(c, 1), rows, &a.k));
	TRY(run_cache(c, &g, GQ_PAST_VALUE, GQ_V_SCALE, out_tensor(c, 2), rows, &a.v));
	a.scale = scale_of(c, g.width);
	TRY(kernel_doubles(c, GQ_SINK, &a.sink));
	if (!sink && attr_get(c->op, c->attr, "smooth_softmax")->i > 0) {
		TRY_NEW(zero, c->scratch, g.n);
		a.sink = zero;
	}
	if (g.sliding && a.scores)
		return fail(e, LINNET_EUNSUPPORTED, "output_qk of a window cache");
	TRY(attend(&a, c->scratch, e));
	for (int64_t i = 0; a.scores && i < a.scores->n; i++) { /* what is hidden is 0 at both stages */
		int64_t r = i / g.total;

		if (group_query_bias(&g, r / g.s / g.n, r / g.s % g.n, r % g.s, i % g.total) == -INFINITY)
			tensor_put(a.scores, i, 0);
	}
	for (int64_t i = 0; !mode && out_tensor(c, 3) && i < c->out[3]->n; i++)
		tensor_put(c->out[3], i, 0);
	return LINNET_OK;
}

/* ---- Sequences without padding ---- */

/*
 * token_offset: [B, S], the places of tokens in [B, S], then those of padding.
 * cumulative_sequence_length: [B + 1], tokens before each sequence, and all.
 */

/* Places of tokens must be in the padded whole, tokens of sequences in the packed one. */
static enum linnet_code check_offsets(const struct kernel_call *c, const struct tensor *offset, int64_t tokens)
{
	if (tokens > offset->n)
		return fail(c->e, LINNET_ESHAPE, "%lld tokens in %lld places", (long long)tokens, (long long)offset->n);
	for (int64_t i = 0; i < tokens; i++)
		if (tensor_get_int(offset, i) < 0 || tensor_get_int(offset, i) >= offset->n)
			return fail(c->e, LINNET_EVALUE, "token_offset has %lld; expected 0 to %lld", (long long)tensor_get_int(offset, i),
			            (long long)(offset->n - 1));
	return LINNET_OK;
}

/* A token sees those of its sequence; the bias is by sequence and places in it. */
struct packed_rule {
	const int64_t *sequence, *place; /* by token */
	const struct tensor *bias;
	int64_t stride[4];
};

static double packed_bias(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
	const struct packed_rule *p = rule;

	(void)b;
	if (p->sequence[i] != p->sequence[j])
		return -INFINITY;
	return p->bias ? tensor_get(p->bias, p->sequence[i] * p->stride[0] + h * p->stride[1] + p->place[i] * p->stride[2] +
	                            p->place[j] * p->stride[3])
	               : 0;
}

static enum linnet_code attend_tokens(struct kernel_call *c, struct attend *a, const struct tensor *cumulated, const struct tensor *bias)
{
	struct packed_rule rule = { .bias = bias };
	int64_t tokens = a->q.t, b = 0, *sequence, *place;
	struct linnet_error *e = c->e;

	if (bias)
		broadcast_strides(bias, 4, rule.stride);
	TRY_NEW(sequence, c->scratch, tokens);
	TRY_NEW(place, c->scratch, tokens);
	for (int64_t k = 0; k + 1 < cumulated->n; k++)
		if (tensor_get_int(cumulated, k) > tensor_get_int(cumulated, k + 1))
			return fail(e, LINNET_EVALUE, "cumulative_sequence_length decreases");
	if (!cumulated->n || tensor_get_int(cumulated, 0) != 0 || tensor_get_int(cumulated, cumulated->n - 1) != tokens)
		return fail(e, LINNET_EVALUE, "cumulative_sequence_length does not go from 0 to %lld, the tokens", (long long)tokens);
	for (int64_t i = 0; i < tokens; i++) {
		while (tensor_get_int(cumulated, b + 1) <= i)
			b++;
		sequence[i] = b;
		place[i] = i - tensor_get_int(cumulated, b);
		if (bias && place[i] >= bias->d[2])
			return fail(e, LINNET_EVALUE, "sequence %lld is longer than %lld", (long long)b, (long long)bias->d[2]);
	}
	rule.sequence = sequence;
	rule.place = place;
	a->rule = &rule;
	a->bias = packed_bias;
	a->y = c->out[0];
	a->scale = scale_of(c, a->q.width);
	return attend(a, c->scratch, e);
}

/* offset: input i, [B, S]; cumulated: the next, [B + 1]; bias: the one after it, [B or 1, N or 1, S, S] */
static enum linnet_code check_packing(struct shape_call *c, int i)
{
	const struct shape offset = in_shape(c, i), cumulated = in_shape(c, i + 1);

	TRY(rank_check(c, i, 2, 2));
	TRY(rank_check(c, i + 1, 1, 1));
	if (offset.rank < 0)
		return LINNET_OK;
	if (cumulated.rank == 1)
		TRY(length_join(c, "sequences and their cumulated lengths but one", offset.d[0], dim_sub(c->dims, cumulated.d[0], 1), NULL));
	return check_bias(c, i + 2, &(struct shape){ .rank = 4,
		.d = { offset.d[0], int_attr(c, "num_heads"), offset.d[1], offset.d[1] } });
}

/* input: [tokens, D_in]  weights: [D_in, D + D + D_v]  output: [tokens, D_v] */
static enum linnet_code shape_packed_attention(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0);
	dim width = DIM_NONE, key_width = DIM_NONE;

	TRY(rank_check(c, 0, 2, 2));
	TRY(projected_widths(c, attr_get(c->op, c->attr, "qkv_hidden_sizes"), &key_width, &width));
	c->out[0].shape = (struct shape){ .rank = 2, .d = { x.rank == 2 ? x.d[0] : DIM_NONE, width } };
	return check_packing(c, 3);
}

static enum linnet_code packed_attention_kernel(struct kernel_call *c)
{
	const struct attr *sizes = attr_get(c->op, c->attr, "qkv_hidden_sizes");
	int64_t n = attr_get(c->op, c->attr, "num_heads")->i, tokens = c->in[0]->d[0], row = c->in[1]->d[1];
	int64_t dv = sizes->n ? sizes->ints[2] : row / 3, d = (row - dv) / 2;
	struct attend a = { .cap = 0 };
	const double *x;

	TRY(project(c, &x));
	a.q = heads_packed(x, 1, tokens, n, d / n, row);
	a.k = heads_packed(x + d, 1, tokens, n, d / n, row);
	a.v = heads_packed(x + 2 * d, 1, tokens, n, dv / n, row);
	return attend_tokens(c, &a, c->in[4], in_tensor(c, 5));
}

/* query: [tokens, D], or with keys and values [tokens, N, 3, H]  key: [tokens, D]  value, output: [tokens, D_v] */
static enum linnet_code shape_packed_multi_head(struct shape_call *c)
{
	const struct shape q = in_shape(c, 0), k = in_shape(c, 1), v = in_shape(c, 2);
	int64_t n = int_attr(c, "num_heads");
	dim tokens = DIM_NONE, head = DIM_NONE, value_head = DIM_NONE;

	TRY(rank_check(c, 0, 2, 4));
	TRY(rank_check(c, 1, 2, 2));
	TRY(rank_check(c, 2, 2, 2));
	if (in_given(c, 1) != in_given(c, 2))
		return fail(c->e, LINNET_EMODEL, "key and value come together");
	if (q.rank >= 0 && q.rank != (in_given(c, 1) ? 2 : 4))
		return fail(c->e, LINNET_ESHAPE, "input \"query\" has rank %d; expected 2 with key and value, 4 without", q.rank);
	if (q.rank >= 0)
		tokens = q.d[0];
	if (q.rank == 4) {
		TRY(length_join(c, "numbers of heads of the attribute and the query", n, q.d[1], NULL));
		TRY(length_join(c, "parts of the query, expected and found,", 3, q.d[2], NULL));
		head = value_head = q.d[3];
	} else if (q.rank == 2) {
		TRY(parts(c, "the width of queries", q.d[1], n, &head));
	}
	if (k.rank == 2 && q.rank == 2) {
		TRY(length_join(c, "tokens of query and key", tokens, k.d[0], &tokens));
		TRY(length_join(c, "widths of query and key", q.d[1], k.d[1], NULL));
	}
	if (v.rank == 2) {
		TRY(length_join(c, "tokens of query and value", tokens, v.d[0], &tokens));
		TRY(parts(c, "the width of values", v.d[1], n, &value_head));
	}
	TRY(check_vector(c, 3, dim_mul(c->dims, dim_add(c->dims, dim_mul(c->dims, head, 2), value_head), n)));
	c->out[0].shape = (struct shape){ .rank = 2, .d = { tokens, dim_mul(c->dims, value_head, n) } };
	return check_packing(c, 4);
}

static enum linnet_code packed_multi_head(struct kernel_call *c)
{
	const struct tensor *qt = c->in[0], *vt = in_tensor(c, 2);
	int64_t n = attr_get(c->op, c->attr, "num_heads")->i, tokens = qt->d[0], h = vt ? qt->d[1] / n : qt->d[3];
	const double *q, *k, *v, *bias;
	struct attend a = { .cap = 0 };

	TRY(kernel_doubles(c, 0, &q));
	TRY(kernel_doubles(c, 1, &k));
	TRY(kernel_doubles(c, 2, &v));
	TRY(kernel_doubles(c, 3, &bias));
	if (vt) {
		a.q = heads_packed(q, 1, tokens, n, h, n * h);
		a.k = heads_packed(k, 1, tokens, n, h, n * h);
		a.v = heads_packed(v, 1, tokens, n, vt->d[1] / n, vt->d[1]);
	} else {
		a.q = heads_packed(q, 1, tokens, n, h, 3 * n * h);
		a.k = heads_packed(q + h, 1, tokens, n, h, 3 * n * h);
		a.v = heads_packed(q + 2 * h, 1, tokens, n, h, 3 * n * h);
		a.q.by_head = a.k.by_head = a.v.by_head = 3 * h;
	}
	TRY(with_bias(c->scratch, bias, &a.q, c->e));
	TRY(with_bias(c->scratch, bias ? bias + n * h : NULL, &a.k, c->e));
	TRY(with_bias(c->scratch, bias ? bias + 2 * n * h : NULL, &a.v, c->e));
	return attend_tokens(c, &a, c->in[5], in_tensor(c, 6));
}

/* input: [B, S, D]  sequence_token_count: [B]  output: [tokens, D]  token_offset: [B, S]  cumulated_seq_len: [B + 1]  max_seq_len: [1] */
static enum linnet_code shape_remove_padding(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0), counts = in_shape(c, 1);
	const struct tensor *count = c->in[1]->value;
	dim batch = DIM_NONE, s = DIM_NONE, tokens = 0;

	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, 1, 1, 1));
	if (x.rank == 3) {
		batch = x.d[0];
		s = x.d[1];
	}
	if (counts.rank == 1)
		TRY(length_join(c, "batch lengths of the input and the counts", batch, counts.d[0], &batch));
	for (int64_t b = 0; count && b < count->n; b++) {
		int64_t n = tensor_get_int(count, b);

		if (n < 0 || (dim_is_int(s) && n > s))
			return fail(c->e, LINNET_EVALUE, "a sequence has %lld tokens; expected 0 to %lld", (long long)n,
			            (long long)(dim_is_int(s) ? s : INT32_MAX));
		tokens += n;
	}
	set_shape(c, 0, (struct shape){ .rank = 2, .d = { count ? tokens : DIM_NONE, x.rank == 3 ? x.d[2] : DIM_NONE } });
	set_shape(c, 1, (struct shape){ .rank = 2, .d = { batch, s } });
	set_shape(c, 2, (struct shape){ .rank = 1, .d = { dim_add(c->dims, batch, 1) } });
	set_shape(c, 3, (struct shape){ .rank = 1, .d = { 1 } });
	return LINNET_OK;
}

static enum linnet_code remove_padding(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *count = c->in[1];
	int64_t s = x->d[1], d = x->d[2], at = 0, longest = 0;

	for (int padding = 0; padding < 2; padding++)
		for (int64_t b = 0; b < x->d[0]; b++) {
			int64_t n = tensor_get_int(count, b);

			if (!padding && out_tensor(c, 2))
				tensor_put_int(c->out[2], b, at);
			longest = larger_int(longest, n);
			for (int64_t t = padding ? n : 0; t < (padding ? s : n); t++, at++) {
				if (out_tensor(c, 1))
					tensor_put_int(c->out[1], at, b * s + t);
				for (int64_t i = 0; !padding && c->out[0] && i < d; i++)
					element_copy(c->out[0], at * d + i, x, (b * s + t) * d + i);
			}
			if (!padding && out_tensor(c, 2) && b + 1 == x->d[0])
				tensor_put_int(c->out[2], b + 1, at);
		}
	if (out_tensor(c, 2) && !x->d[0])
		tensor_put_int(c->out[2], 0, 0);
	if (out_tensor(c, 3))
		tensor_put_int(c->out[3], 0, longest);
	return LINNET_OK;
}

/* input: [tokens, D]  token_offset: [B, S]  output: [B, S, D], zeros where there is padding */
static enum linnet_code shape_restore_padding(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0), offset = in_shape(c, 1);

	TRY(rank_check(c, 0, 2, 2));
	TRY(rank_check(c, 1, 2, 2));
	c->out[0].shape = shape3(offset.rank == 2 ? offset.d[0] : DIM_NONE, offset.rank == 2 ? offset.d[1] : DIM_NONE,
	                         x.rank == 2 ? x.d[1] : DIM_NONE);
	return LINNET_OK;
}

static enum linnet_code restore_padding(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *offset = c->in[1];
	int64_t d = x->d[1];

	TRY(check_offsets(c, offset, x->d[0]));
	for (int64_t i = 0; i < c->out[0]->n; i++)
		element_zero(c->out[0], i);
	for (int64_t t = 0; t < x->d[0]; t++)
		for (int64_t i = 0; i < d; i++)
			element_copy(c->out[0], tensor_get_int(offset, t) * d + i, x, t * d + i);
	return LINNET_OK;
}

/* ---- Biases by relative position ---- */

/* bias_table: [buckets, N] in column-major order  output: [1, N, query_length, key_length] */
static enum linnet_code shape_relative_bias(struct shape_call *c)
{
	const struct shape table = in_shape(c, 0);

	TRY(rank_check(c, 0, 2, 2));
	TRY(scalar_check(c, 1));
	TRY(scalar_check(c, 2));
	c->out[0].shape = shape4(1, table.rank == 2 ? table.d[1] : DIM_NONE, type_element(c->in[1], 0), type_element(c->in[2], 0));
	return LINNET_OK;
}

/*
 * The bucket of key j seen from query i, by d = i - j: small distances have their own, larger ones share, at logarithmic widths, up to
 * max_distance and beyond. In both directions the later keys have the second half, else they all are at distance 0.
 * Source: Raffel et al., Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, section 2.1.
 */
static int64_t bucket_of(int64_t d, int64_t buckets, int64_t max_distance, bool both)
{
	int64_t first = 0, exact, far;

	if (both) {
		buckets /= 2;
		first = d < 0 ? buckets : 0;
		d = d < 0 ? -d : d;
	}
	d = d < 0 ? 0 : d;
	exact = buckets / 2;
	if (d < exact || d == 0)
		return first + d;
	far = max_distance <= exact || exact == 0 ? buckets - 1
	      : exact + (int64_t)fmin((double)buckets, log((double)d / (double)exact) / log((double)max_distance / (double)exact) *
	                                               (double)(buckets - exact));
	return first + smaller_int(far, buckets - 1);
}

static enum linnet_code relative_bias(struct kernel_call *c)
{
	int64_t buckets = c->in[0]->d[0], heads = c->in[0]->d[1], queries = c->out[0]->d[2], keys = c->out[0]->d[3], at = 0;
	int64_t distance = attr_get(c->op, c->attr, "max_distance")->i;
	bool both = attr_get(c->op, c->attr, "is_bidirectional")->i != 0;

	if (buckets < (both ? 2 : 1))
		return fail(c->e, LINNET_ESHAPE, "bias_table has %lld buckets", (long long)buckets);
	for (int64_t h = 0; h < heads; h++)
		for (int64_t i = 0; i < queries; i++)
			for (int64_t j = 0; j < keys; j++)
				element_copy(c->out[0], at++, c->in[0], h * buckets + bucket_of(i - j, buckets, distance, both));
	return LINNET_OK;
}

/*
 * query_layer: [B, S, N H], or without padding [tokens, N H]  query_bias: [N H]  rel_pos: [1, N, S, S]  weight: [H, D]  bias: [D]
 * eco_a: [1, N, 1, 1]  token_offset: [B, S]  output: [B, N, S, S]
 */
static enum linnet_code shape_gated_bias(struct shape_call *c)
{
	const struct shape q = in_shape(c, 0), rel = in_shape(c, 2), w = in_shape(c, 3), eco = in_shape(c, 5), offset = in_shape(c, 6);
	int64_t n = int_attr(c, "num_heads");
	bool packed = in_given(c, 6);
	dim batch = DIM_NONE, s = DIM_NONE, head = DIM_NONE, half;

	TRY(rank_check(c, 0, packed ? 2 : 3, packed ? 2 : 3));
	TRY(rank_check(c, 2, 4, 4));
	TRY(rank_check(c, 3, 2, 2));
	TRY(rank_check(c, 6, 2, 2));
	if (q.rank >= 0) {
		TRY(parts(c, "the width of queries", q.d[q.rank - 1], n, &head));
		TRY(check_vector(c, 1, q.d[q.rank - 1]));
	}
	if (packed && offset.rank == 2) {
		batch = offset.d[0];
		s = offset.d[1];
	} else if (!packed && q.rank == 3) {
		batch = q.d[0];
		s = q.d[1];
	}
	if (w.rank == 2) {
		TRY(length_join(c, "widths of heads and of the weight", head, w.d[0], NULL));
		TRY(parts(c, "the width of the weight", w.d[1], 2, &half));
		TRY(check_vector(c, 4, w.d[1]));
	}
	if (rel.rank == 4) {
		TRY(length_join(c, "batch length of rel_pos, expected and found,", 1, rel.d[0], NULL));
		TRY(length_join(c, "numbers of heads of the attribute and rel_pos", n, rel.d[1], NULL));
		TRY(length_join(c, "lengths of the queries and rel_pos", s, rel.d[2], &s));
		TRY(length_join(c, "lengths of rel_pos", s, rel.d[3], &s));
	}
	if (eco.rank >= 0)
		TRY(length_join(c, "elements of eco_a, expected and found,", n, shape_count(c->dims, &eco, 0, eco.rank), NULL));
	c->out[0].shape = shape4(batch, n, s, s);
	return LINNET_OK;
}

/*
 * With x the query of a head and its bias, u and r the logistic functions of the sums of the first and second half of
 * x weight + bias: output = (u (r eco_a - 1) + 2) rel_pos. Padding has the query 0.
 */
static enum linnet_code gated_bias(struct kernel_call *c)
{
	const struct tensor *offset = in_tensor(c, 6), *y = c->out[0];
	int64_t batch = y->d[0], n = y->d[1], s = y->d[2], h = c->in[3]->d[0], wide = c->in[3]->d[1];
	int64_t tokens = offset ? c->in[0]->d[0] : batch * s;
	const double *q, *query_bias, *rel, *w, *bias, *eco;
	struct linnet_error *e = c->e;
	int64_t *token;

	TRY(kernel_doubles(c, 0, &q));
	TRY(kernel_doubles(c, 1, &query_bias));
	TRY(kernel_doubles(c, 2, &rel));
	TRY(kernel_doubles(c, 3, &w));
	TRY(kernel_doubles(c, 4, &bias));
	TRY(kernel_doubles(c, 5, &eco));
	TRY_NEW(token, c->scratch, batch * s); /* of each place; -1 where there is padding */
	for (int64_t i = 0; i < batch * s; i++)
		token[i] = offset ? -1 : i;
	if (offset) {
		TRY(check_offsets(c, offset, tokens));
		for (int64_t i = 0; i < tokens; i++)
			token[tensor_get_int(offset, i)] = i;
	}
	for (int64_t row = 0; row < batch * n * s; row++) {
		int64_t b = row / (n * s), head = row / s % n, t = row % s, from = token[b * s + t];
		double gate[2] = { 0, 0 };

		for (int64_t k = 0; k < wide; k++) {
			double sum = bias[k];

			for (int64_t d = 0; d < h; d++)
				sum += ((from < 0 ? 0 : q[(from * n + head) * h + d]) + query_bias[head * h + d]) * w[d * wide + k];
			gate[k / (wide / 2)] += sum;
		}
		for (int k = 0; k < 2; k++)
			gate[k] = 1 / (1 + exp(-gate[k]));
		for (int64_t j = 0; j < s; j++)
			tensor_put(c->out[0], row * s + j, (gate[0] * (gate[1] * eco[head] - 1) + 2) * rel[(head * s + t) * s + j]);
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define HIDDEN_SIZES { .name = "qkv_hidden_sizes", .kind = ATTR_INTS, .s = "", .lo = 1, .hi = INT32_MAX }

static const struct op rows[] = {
	{
		MS, .name = "RotaryEmbedding",
		.doc = "Pairs of numbers of every head turned by angles that grow with the position. Of the attributes onnxruntime documents, scale and "
		       "is_packed_batching change nothing.",
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
		.doc = "Softmax attention with the projections of queries, keys and values. Turning, a shared buffer and masks of rank 4 are by "
		       "documentation: onnxruntime has them on GPUs alone.",
		.in = IN({ "input", T, FLOW_SMOOTH }, { "weights", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH, OPTIONAL },
		         { "mask_index", T1, FLOW_NONE, OPTIONAL }, { "past", T, FLOW_SMOOTH, OPTIONAL },
		         { "attention_bias", T, FLOW_SMOOTH, OPTIONAL }, { "past_sequence_length", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "present", T, .flags = OPTIONAL }),
		.attr = ATTRS(FLAG("do_rotary"), MASK_VALUE, HEADS("num_heads"), FLAG("past_present_share_buffer"),
		              HIDDEN_SIZES,
		              COUNT("rotary_embedding_dim"), SCALE, FLAG("unidirectional")),
		.types = { [T] = HALF_FLOATS, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.flags = OP_VALUES,
		.shape = shape_attention,
		.kernel = attention,
		.fast = FAST(&fast_packed_attention),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MultiHeadAttention",
		.doc = "Softmax attention of projected queries, keys and values. Packed ones are by documentation. Where causal queries meet more "
		       "keys than their own and the past, the last one sees them all, as in onnxruntime on CPUs.",
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
		.flags = OP_VALUES,
		.shape = shape_multi_head,
		.kernel = multi_head,
		.fast = FAST(&fast_multi_head),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "GroupQueryAttention",
		.doc = "Causal softmax attention with groups of query heads sharing keys and values, and a cache, which may be quantised or as "
		       "long as a window. Normalising queries and keys, and caches of float8, are by documentation.",
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
		              { .name = "k_quant_type", .kind = ATTR_STRING, .s = "NONE", .oneof = "NONE|PER_TENSOR|PER_CHANNEL" }, COUNT("kv_cache_bit_width"),
		              HEADS("kv_num_heads"), { .name = "local_window_size", .kind = ATTR_INT, .i = -1, .lo = -1, .hi = INT32_MAX }, HEADS("num_heads"),
		              { .name = "q_norm_epsilon", .kind = ATTR_FLOAT, .flags = OPTIONAL },
		              { .name = "qk_norm_epsilon", .kind = ATTR_FLOAT, .f = 1e-6 }, { .name = "qk_output", .kind = ATTR_INT, .lo = 0, .hi = 2 }, FLAG("rotary_interleaved"),
		              SCALE, FLAG("sliding_window_cache"), { .name = "smooth_softmax", .kind = ATTR_INT, .i = -1 },
		              { .name = "softcap", .kind = ATTR_FLOAT }, { .name = "v_quant_type", .kind = ATTR_STRING, .s = "NONE", .oneof = "NONE|PER_TENSOR|PER_CHANNEL" }),
		.types = { [T] = HALF_FLOATS, [T1] = HALF_FLOATS | SET(FLOAT8E4M3FN) | SET(INT8) | SET(UINT8), [T2] = SET(INT32),
		           [T3] = SET(INT64), [T4] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.flags = OP_VALUES,
		.shape = shape_group_query,
		.kernel = group_query,
		.fast = FAST(&fast_group_query),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "DecoderMaskedMultiHeadAttention",
		.doc = "MultiHeadAttention of one query, with a cache that may follow the beams of a search. Packed queries and a past that is not a "
		       "shared buffer are by documentation.",
		.in = IN({ "query", T, FLOW_SMOOTH }, { "key", T, FLOW_SMOOTH, OPTIONAL }, { "value", T, FLOW_LINEAR, OPTIONAL },
		         { "mask_index", T1, FLOW_NONE, OPTIONAL }, { "attention_bias", T, FLOW_SMOOTH, OPTIONAL },
		         { "past_key", T, FLOW_SMOOTH, OPTIONAL }, { "past_value", T, FLOW_LINEAR, OPTIONAL },
		         { "past_sequence_length", T1, FLOW_NONE, OPTIONAL }, { "beam_width", T1, FLOW_NONE, OPTIONAL },
		         { "cache_indirection", T1, FLOW_NONE, OPTIONAL }, { "bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "output", T }, { "present_key", T, .flags = OPTIONAL }, { "present_value", T, .flags = OPTIONAL },
		           { "qk", T2, .flags = OPTIONAL }),
		.attr = ATTRS(MASK_VALUE, HEADS("num_heads"), FLAG("output_qk"), FLAG("past_present_share_buffer"), SCALE),
		.types = { [T] = SINGLE_HALF, [T1] = SET(INT32), [T2] = SINGLE_HALF },
		.agree = AGREE_ROUND,
		.flags = OP_VALUES,
		.shape = shape_decoder_masked,
		.kernel = decoder_masked,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "PackedAttention",
		.doc = "Attention of sequences one behind the other, without padding. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "input", T, FLOW_SMOOTH }, { "weights", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH },
		         { "token_offset", T1, FLOW_NONE }, { "cumulative_sequence_length", T1, FLOW_NONE },
		         { "attention_bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(HEADS("num_heads"), HIDDEN_SIZES, SCALE),
		.types = { [T] = SINGLE_HALF, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_packed_attention,
		.kernel = packed_attention_kernel,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "PackedMultiHeadAttention",
		.doc = "MultiHeadAttention of sequences one behind the other, without padding. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "query", T, FLOW_SMOOTH }, { "key", T, FLOW_SMOOTH, OPTIONAL }, { "value", T, FLOW_LINEAR, OPTIONAL },
		         { "bias", T, FLOW_SMOOTH, OPTIONAL }, { "token_offset", T1, FLOW_NONE },
		         { "cumulative_sequence_length", T1, FLOW_NONE }, { "attention_bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(MASK_VALUE, HEADS("num_heads"), SCALE),
		.types = { [T] = SINGLE_HALF, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_packed_multi_head,
		.kernel = packed_multi_head,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "RemovePadding",
		.doc = "The tokens of padded sequences one behind the other, and where they were. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "sequence_token_count", T1, FLOW_NONE }),
		.out = OUT({ "output", T }, { "token_offset", T1 }, { "cumulated_seq_len", T1 }, { "max_seq_len", T1 }),
		.types = { [T] = SINGLE_HALF, [T1] = SET(INT32) },
		.agree = AGREE_BITS,
		.flags = OP_VALUES,
		.shape = shape_remove_padding,
		.kernel = remove_padding,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "RestorePadding",
		.doc = "Tokens back in their places, zeros between them. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "token_offset", T1, FLOW_NONE }),
		.out = OUT({ "output", T }),
		.types = { [T] = SINGLE_HALF, [T1] = SET(INT32) },
		.agree = AGREE_BITS,
		.shape = shape_restore_padding,
		.kernel = restore_padding,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "RelativePositionBias",
		.doc = "T5's bias of scores by the distance of query and key. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "bias_table", T, FLOW_LINEAR }, { "query_length", T1, FLOW_NONE }, { "key_length", T1, FLOW_NONE }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(FLAG("is_bidirectional"), HEADS("max_distance")),
		.types = { [T] = SINGLE_HALF, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_relative_bias,
		.kernel = relative_bias,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "GatedRelativePositionBias",
		.doc = "WavLM's bias of scores by distance, gated by the query. By documentation: onnxruntime has it on GPUs alone.",
		.in = IN({ "query_layer", T, FLOW_SMOOTH }, { "query_bias", T, FLOW_SMOOTH }, { "rel_pos", T, FLOW_LINEAR },
		         { "weight", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH }, { "eco_a", T, FLOW_LINEAR },
		         { "token_offset", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(HEADS("num_heads")),
		.types = { [T] = SINGLE_HALF, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_gated_bias,
		.kernel = gated_bias,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "GemmaRotaryEmbedding",
		.doc = "Queries and keys turned by angles given as such, with their halves changed over beforehand. By documentation: onnxruntime "
		       "has it on GPUs alone.",
		.in = IN({ "emb", T1, FLOW_SMOOTH }, { "q", T, FLOW_LINEAR }, { "q_rot", T, FLOW_LINEAR }, { "k", T, FLOW_LINEAR },
		         { "k_rot", T, FLOW_LINEAR }),
		.out = OUT({ "output1", T }, { "output2", T }),
		.types = { [T] = SET(FLOAT16), [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_gemma_rotary,
		.kernel = gemma_rotary,
		.body = "{ s = Sin (emb)\n"
		        "  sh = Cast <to = 10> (s)\n"
		        "  c = Cos (emb)\n"
		        "  ch = Cast <to = 10> (c)\n"
		        "  one = Constant <value_ints = [1]> ()\n"
		        "  sin = Unsqueeze (sh, one)\n"
		        "  cos = Unsqueeze (ch, one)\n"
		        "  qc = Mul (q, cos)\n"
		        "  qs = Mul (q_rot, sin)\n"
		        "  output1 = Add (qc, qs)\n"
		        "  kc = Mul (k, cos)\n"
		        "  ks = Mul (k_rot, sin)\n"
		        "  output2 = Add (kc, ks) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_attention_ops = FAMILY("contrib_attention", rows);
