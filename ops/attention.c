/* Attention and what prepares its operands: Attention, RotaryEmbedding, FlexAttention. Reference kernels, then rows. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/attention.h"
#include "ops/body.h"
#include "ops/fast/fast.h"
#include "ops/op.h"

/* ---- Attention ---- */

/* Positions of Attention's inputs, outputs and attributes. */
enum { IN_Q, IN_K, IN_V, IN_MASK, IN_PAST_KEY, IN_PAST_VALUE, IN_LENGTHS };
enum { OUT_Y, OUT_PRESENT_KEY, OUT_PRESENT_VALUE, OUT_SCORES };
enum { IS_CAUSAL, KV_NUM_HEADS, LEFT_WINDOW, SCORES_MODE, Q_NUM_HEADS, RIGHT_WINDOW, SCALE, SOFTCAP, SOFTMAX_PRECISION };

/* Q, K or V as [B, H, T, D], given so or as [B, T, H D]. */
static enum linnet_code split_heads(struct shape_call *c, int i, int heads_attr, struct shape *out)
{
	const struct shape *s = &c->in[i]->shape;
	const struct attr *heads = &c->attr[heads_attr];
	const char *name = op_in(c->op, i)->name;
	dim left;

	*out = (struct shape){ .rank = 4, .d = { DIM_NONE, DIM_NONE, DIM_NONE, DIM_NONE } };
	TRY(rank_check(c, i, 3, 4));
	if (s->rank == 4) {
		*out = *s;
		if (attr_given(heads))
			TRY(length_join(c, "numbers of heads of the attribute and the input", heads->i, s->d[1], NULL));
	} else if (s->rank == 3) {
		if (!attr_given(heads))
			return fail(c->e, LINNET_EATTR, "input \"%s\" has rank 3; attribute \"%s\" must say its number of heads", name,
			            c->op->attr[heads_attr].name);
		left = dim_mod(c->dims, s->d[2], heads->i);
		if (dim_is_int(left) && left != 0)
			return fail(c->e, LINNET_ESHAPE, "input \"%s\" of width %lld does not make %lld heads", name, (long long)s->d[2],
			            (long long)heads->i);
		out->d[0] = s->d[0];
		out->d[1] = heads->i;
		out->d[2] = s->d[1];
		out->d[3] = dim_div(c->dims, s->d[2], heads->i);
	} else if (attr_given(heads)) {
		out->d[1] = heads->i;
	}
	return LINNET_OK;
}

static bool call_has(const struct shape_call *c, int i) { return i < c->nin && c->in[i]; }

/* The mask is [..., S], broadcast to [B, H, L, S] but for its last axis, which may be shorter than S. */
static enum linnet_code check_mask(struct shape_call *c, const struct shape *scores)
{
	struct shape m, s = *scores, both;
	dim last;

	if (!call_has(c, IN_MASK) || c->in[IN_MASK]->shape.rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, IN_MASK, 1, 4));
	m = c->in[IN_MASK]->shape;
	last = m.d[--m.rank];
	s.rank = 3;
	TRY(broadcast(c->dims, &s, &m, &both, c->e));
	for (int i = 0; i < 3; i++)
		if (dim_is_int(s.d[i]) && dim_is_int(both.d[i]) && s.d[i] != both.d[i])
			return fail(c->e, LINNET_ESHAPE, "input \"attn_mask\" has length %lld where the scores have %lld",
			            (long long)both.d[i], (long long)s.d[i]);
	if (dim_is_int(last) && dim_is_int(scores->d[3]) && last > scores->d[3])
		return fail(c->e, LINNET_ESHAPE, "input \"attn_mask\" has length %lld for %lld keys", (long long)last,
		            (long long)scores->d[3]);
	return LINNET_OK;
}

/* q: [B, H, L, D]  k: [B, Hkv, S, D]  v: [B, Hkv, S, E]: equal lengths are made so, the number of batches in q. */
static enum linnet_code join_heads(struct shape_call *c, struct shape *q, struct shape *k, struct shape *v)
{
	dim left;

	TRY(length_join(c, "batch lengths of Q and K", q->d[0], k->d[0], &k->d[0]));
	TRY(length_join(c, "batch lengths of K and V", k->d[0], v->d[0], &q->d[0]));
	TRY(length_join(c, "head widths of Q and K", q->d[3], k->d[3], &k->d[3]));
	TRY(length_join(c, "numbers of heads of K and V", k->d[1], v->d[1], &k->d[1]));
	TRY(length_join(c, "lengths of K and V", k->d[2], v->d[2], &k->d[2]));
	left = k->d[1] == 0 ? q->d[1] : dim_mod(c->dims, q->d[1], k->d[1]);
	if (dim_is_int(left) && left != 0)
		return fail(c->e, LINNET_ESHAPE, "%lld heads of Q do not share %lld heads of K evenly", (long long)q->d[1],
		            (long long)k->d[1]);
	return LINNET_OK;
}

/* softmax_precision, where it is given, is an element type of floats. */
static enum linnet_code check_precision(const struct shape_call *c, const struct attr *precision)
{
	if (attr_given(precision) && (precision->i <= 0 || precision->i >= DT_COUNT ||
	                              !dtype_in((enum dtype)precision->i, FLOATS)))
		return fail(c->e, LINNET_EATTR, "softmax_precision is %lld; expected a floating-point type", (long long)precision->i);
	return LINNET_OK;
}

/*
 * Q: [B, H, L, D]  K: [B, Hkv, S, D]  V: [B, Hkv, S, E], or [B, L, H D] and so on; H a multiple of Hkv.
 * past_key: [B, Hkv, P, D]  past_value: [B, Hkv, P, E]  nonpad_kv_seqlen: [B]
 * Y: [B, H, L, E] or [B, L, H E]  present: [B, Hkv, P + S, ...]  qk_matmul_output: [B, H, L, P + S]
 */
static enum linnet_code shape_attention(struct shape_call *c)
{
	struct shape q, k, v, past, *y = &c->out[OUT_Y].shape;
	dim total;

	TRY(check_precision(c, &c->attr[SOFTMAX_PRECISION]));
	if (call_has(c, IN_PAST_KEY) != call_has(c, IN_PAST_VALUE))
		return fail(c->e, LINNET_EMODEL, "past_key and past_value come together");
	if (call_has(c, IN_LENGTHS) && call_has(c, IN_PAST_KEY))
		return fail(c->e, LINNET_EMODEL, "nonpad_kv_seqlen cannot be combined with past_key");
	TRY(split_heads(c, IN_Q, Q_NUM_HEADS, &q));
	TRY(split_heads(c, IN_K, KV_NUM_HEADS, &k));
	TRY(split_heads(c, IN_V, KV_NUM_HEADS, &v));
	TRY(join_heads(c, &q, &k, &v));
	total = k.d[2];
	if (call_has(c, IN_PAST_KEY)) {
		TRY(rank_check(c, IN_PAST_KEY, 4, 4));
		TRY(rank_check(c, IN_PAST_VALUE, 4, 4));
		past = c->in[IN_PAST_KEY]->shape.rank < 0 ? c->in[IN_PAST_VALUE]->shape : c->in[IN_PAST_KEY]->shape;
		if (past.rank == 4) {
			TRY(length_join(c, "batch lengths of K and past_key", k.d[0], past.d[0], &q.d[0]));
			TRY(length_join(c, "numbers of heads of K and past_key", k.d[1], past.d[1], &k.d[1]));
		}
		if (c->in[IN_PAST_KEY]->shape.rank == 4)
			TRY(length_join(c, "head widths of K and past_key", k.d[3], past.d[3], &k.d[3]));
		if (c->in[IN_PAST_VALUE]->shape.rank == 4 && past.rank == 4) {
			TRY(length_join(c, "batch lengths of V and past_value", v.d[0], c->in[IN_PAST_VALUE]->shape.d[0], NULL));
			TRY(length_join(c, "numbers of heads of V and past_value", v.d[1], c->in[IN_PAST_VALUE]->shape.d[1], NULL));
			TRY(length_join(c, "head widths of V and past_value", v.d[3], c->in[IN_PAST_VALUE]->shape.d[3], &v.d[3]));
			TRY(length_join(c, "lengths of past_key and past_value", past.d[2], c->in[IN_PAST_VALUE]->shape.d[2],
			                &past.d[2]));
		}
		total = dim_add(c->dims, past.rank == 4 ? past.d[2] : DIM_NONE, total);
	}
	if (call_has(c, IN_LENGTHS)) {
		TRY(rank_check(c, IN_LENGTHS, 1, 1));
		if (c->in[IN_LENGTHS]->shape.rank == 1)
			TRY(length_join(c, "batch lengths of Q and nonpad_kv_seqlen", q.d[0], c->in[IN_LENGTHS]->shape.d[0], &q.d[0]));
	}
	TRY(check_mask(c, &(struct shape){ .rank = 4, .d = { q.d[0], q.d[1], q.d[2], total } }));
	if (c->in[IN_Q]->shape.rank == 4)
		*y = (struct shape){ .rank = 4, .d = { q.d[0], q.d[1], q.d[2], v.d[3] } };
	else if (c->in[IN_Q]->shape.rank == 3)
		*y = (struct shape){ .rank = 3, .d = { q.d[0], q.d[2], dim_mul(c->dims, q.d[1], v.d[3]) } };
	if (c->nout > OUT_PRESENT_KEY)
		c->out[OUT_PRESENT_KEY].shape = (struct shape){ .rank = 4, .d = { q.d[0], k.d[1], total, k.d[3] } };
	if (c->nout > OUT_PRESENT_VALUE)
		c->out[OUT_PRESENT_VALUE].shape = (struct shape){ .rank = 4, .d = { q.d[0], k.d[1], total, v.d[3] } };
	if (c->nout > OUT_SCORES)
		c->out[OUT_SCORES].shape = (struct shape){ .rank = 4, .d = { q.d[0], q.d[1], q.d[2], total } };
	return LINNET_OK;
}

struct heads heads_split(const double *x, int64_t batch, int64_t h, int64_t t, int64_t width)
{
	return (struct heads){ x, batch, h, t, width, .by_batch = h * t * width, .by_head = t * width, .by_time = width };
}

struct heads heads_packed(const double *x, int64_t batch, int64_t t, int64_t h, int64_t width, int64_t step)
{
	return (struct heads){ x, batch, h, t, width, .by_batch = t * step, .by_head = width, .by_time = step };
}

/* Input i, [B, H, T, D] or [B, T, H D]. */
static enum linnet_code heads_of(struct kernel_call *c, int i, int64_t h, struct heads *out)
{
	const struct tensor *t = i < c->nin ? c->in[i] : NULL;
	const double *x;

	*out = (struct heads){ .x = NULL };
	if (!t)
		return LINNET_OK;
	TRY(kernel_doubles(c, i, &x));
	*out = t->rank == 4 ? heads_split(x, t->d[0], t->d[1], t->d[2], t->d[3])
	                    : heads_packed(x, t->d[0], t->d[1], h, t->d[2] / h, t->d[2]);
	return LINNET_OK;
}

void heads_put(struct tensor *out, int64_t at, int64_t rows, const struct heads *past, const struct heads *now)
{
	for (int64_t b = 0; out && b < now->batch; b++)
		for (int64_t h = 0; h < now->h; h++)
			for (int64_t t = 0; t < rows; t++) {
				const double *x = t < past->t + now->t ? heads_cached(past, now, b, h, t) : heads_row(past, b, h, t);

				for (int64_t i = 0; i < now->width; i++)
					tensor_put(out, at++, x[i]);
			}
}

static enum linnet_code check_lengths(const struct kernel_call *c, int64_t keys)
{
	const struct tensor *t = c->nin > IN_LENGTHS ? c->in[IN_LENGTHS] : NULL;

	for (int64_t b = 0; t && b < t->n; b++)
		if (tensor_get_int(t, b) < 0 || tensor_get_int(t, b) > keys)
			return fail(c->e, LINNET_EVALUE, "nonpad_kv_seqlen has %lld; expected 0 to %lld", (long long)tensor_get_int(t, b),
			            (long long)keys);
	return LINNET_OK;
}

/* What is added to a score: 0 or minus infinity by position, and the mask. */
struct bias {
	bool causal;
	int64_t left, right;        /* -1: no bound */
	const struct tensor *lengths; /* keys a sample has, NULL: all */
	const struct tensor *mask;
	int64_t stride[4];          /* of the mask, 0 where it broadcasts */
	int64_t past, queries;
};

static void bias_read(const struct kernel_call *c, struct bias *s, int64_t past, int64_t queries)
{
	*s = (struct bias){ .causal = c->attr[IS_CAUSAL].i != 0, .left = c->attr[LEFT_WINDOW].i, .right = c->attr[RIGHT_WINDOW].i,
		.lengths = c->nin > IN_LENGTHS ? c->in[IN_LENGTHS] : NULL, .mask = c->nin > IN_MASK ? c->in[IN_MASK] : NULL,
		.past = past, .queries = queries };
	if (s->mask) {
		broadcast_strides(s->mask, 4, s->stride);
		s->stride[3] = 1; /* a last axis that is too short is not broadcast */
	}
}

static int64_t mask_at(const struct bias *s, int64_t b, int64_t h, int64_t i, int64_t j)
{
	return b * s->stride[0] + h * s->stride[1] + i * s->stride[2] + j;
}

/*
 * Query i stands at p = offset + i, with offset the number of keys before the queries. Key j is seen when j <= p (causal),
 * p - left <= j <= p + right (windows), j < nonpad_kv_seqlen, and as the mask says, which ends with "not seen".
 */
static double bias_at(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j)
{
	const struct bias *s = rule;
	int64_t length = s->lengths ? tensor_get_int(s->lengths, b) : INT64_MAX;
	int64_t p = i + (s->lengths ? length - s->queries : s->past), at;

	if ((s->causal && j > p) || (s->left >= 0 && j < p - s->left) || (s->right >= 0 && j > p + s->right) || j >= length)
		return -INFINITY;
	if (!s->mask)
		return 0;
	if (j >= s->mask->d[s->mask->rank - 1])
		return -INFINITY;
	at = mask_at(s, b, h, i, j);
	if (s->mask->dt == DT_BOOL)
		return tensor_get_int(s->mask, at) ? 0 : -INFINITY;
	return tensor_get(s->mask, at);
}

/* p = softmax(s) over n scores of which those with bias minus infinity have no part, and a sink unless it is NULL; zeros when there
 * is none. */
static void softmax(double *s, const double *bias, int64_t n, const double *sink)
{
	double max = sink ? *sink : -INFINITY, sum;

	for (int64_t j = 0; j < n; j++)
		if (bias[j] != -INFINITY && !(s[j] <= max))
			max = s[j];
	sum = sink && max != -INFINITY ? exp(*sink - max) : 0;
	for (int64_t j = 0; j < n; j++) {
		s[j] = bias[j] == -INFINITY || max == -INFINITY ? 0 : exp(s[j] - max);
		sum += s[j];
	}
	for (int64_t j = 0; j < n && sum != 0; j++)
		s[j] /= sum;
}

/* s: [S], the weights of query i; bias: [S], working memory; slope: [S], what the cap multiplies gradients of scores by, or NULL. */
static void weigh(const struct attend *a, int64_t b, int64_t h, int64_t i, double *s, double *bias, double *slope)
{
	const struct heads *q = &a->q, *k = &a->k;
	int64_t total = a->past_k.t + k->t, group = q->h / k->h, at = ((b * q->h + h) * q->t + i) * total;
	const double *qi = heads_row(q, b, h, i);

	for (int64_t j = 0; j < total; j++) {
		const double *kj = heads_cached(&a->past_k, k, b, h / group, j);
		double bent;

		s[j] = 0;
		for (int64_t d = 0; d < q->width; d++)
			s[j] += qi[d] * kj[d];
		s[j] *= a->scale;
		if (a->scores && a->stage == SCORES_SCALED)
			tensor_put(a->scores, at + j, s[j]);
		bent = a->cap > 0 ? tanh(s[j] / a->cap) : 0;
		if (a->cap > 0)
			s[j] = a->cap * bent;
		if (slope)
			slope[j] = 1 - bent * bent;
		if (a->scores && a->stage == SCORES_CAPPED)
			tensor_put(a->scores, at + j, s[j]);
		bias[j] = a->bias(a->rule, b, h, i, j);
		s[j] += bias[j];
		if (a->scores && a->stage == SCORES_BIASED)
			tensor_put(a->scores, at + j, s[j]);
	}
	softmax(s, bias, total, a->sink ? a->sink + h : NULL);
	for (int64_t j = 0; a->scores && a->stage == SCORES_WEIGHTS && j < total; j++)
		tensor_put(a->scores, at + j, s[j]);
}

enum linnet_code attend(const struct attend *a, struct arena *scratch, struct linnet_error *e)
{
	const struct heads *q = &a->q, *k = &a->k, *v = &a->v;
	int64_t total = a->past_k.t + k->t, group = k->h ? q->h / k->h : 1;
	double *s, *bias, *sum;

	TRY_NEW(s, scratch, total);
	TRY_NEW(bias, scratch, total);
	TRY_NEW(sum, scratch, v->width);
	for (int64_t b = 0; b < q->batch; b++)
		for (int64_t h = 0; h < q->h; h++)
			for (int64_t i = 0; i < q->t; i++) {
				int64_t at = a->split ? (b * q->h + h) * q->t + i : (b * q->t + i) * q->h + h;

				weigh(a, b, h, i, s, bias, NULL);
				memset(sum, 0, (size_t)v->width * sizeof *sum);
				for (int64_t j = 0; j < total; j++)
					for (int64_t d = 0; d < v->width && s[j] != 0; d++)
						sum[d] += s[j] * heads_cached(&a->past_v, v, b, h / group, j)[d];
				for (int64_t d = 0; a->y && d < v->width; d++)
					tensor_put(a->y, at * v->width + d, sum[d]);
			}
	return LINNET_OK;
}

/* What Attention's inputs and attributes say, also of its gradient's; a->rule is *rule. */
static enum linnet_code read_attention(struct kernel_call *c, struct attend *a, struct bias *rule)
{
	*a = (struct attend){ .cap = c->attr[SOFTCAP].f, .bias = bias_at, .rule = rule };
	TRY(heads_of(c, IN_Q, c->attr[Q_NUM_HEADS].i, &a->q));
	TRY(heads_of(c, IN_K, c->attr[KV_NUM_HEADS].i, &a->k));
	TRY(heads_of(c, IN_V, c->attr[KV_NUM_HEADS].i, &a->v));
	TRY(heads_of(c, IN_PAST_KEY, 0, &a->past_k));
	TRY(heads_of(c, IN_PAST_VALUE, 0, &a->past_v));
	a->scale = attr_given(&c->attr[SCALE]) ? c->attr[SCALE].f : 1 / sqrt((double)a->q.width);
	TRY(check_lengths(c, a->past_k.t + a->k.t));
	bias_read(c, rule, a->past_k.t, a->q.t);
	return LINNET_OK;
}

static enum linnet_code attention(struct kernel_call *c)
{
	struct bias rule;
	struct attend a;

	TRY(read_attention(c, &a, &rule));
	a.y = c->out[OUT_Y];
	a.split = c->in[IN_Q]->rank == 4;
	a.scores = c->nout > OUT_SCORES ? c->out[OUT_SCORES] : NULL;
	a.stage = (int)c->attr[SCORES_MODE].i;
	heads_put(c->nout > OUT_PRESENT_KEY ? c->out[OUT_PRESENT_KEY] : NULL, 0, a.past_k.t + a.k.t, &a.past_k, &a.k);
	heads_put(c->nout > OUT_PRESENT_VALUE ? c->out[OUT_PRESENT_VALUE] : NULL, 0, a.past_v.t + a.v.t, &a.past_v, &a.v);
	return attend(&a, c->scratch, c->e);
}

/* ---- Attention in other operators ---- */

/* What the body is written for. */
struct plan {
	struct shape q, k, v; /* split into heads */
	dim past, total;
	bool causal, packed;
	int64_t left, right;
	enum dtype dt, dt_v;
	const struct type *mask; /* NULL: none */
	bool has_past, has_lengths;
	bool back; /* outputs are gradients */
};

static enum linnet_code plan_attention(struct shape_call *c, struct plan *p)
{
	*p = (struct plan){ .causal = c->attr[IS_CAUSAL].i != 0, .left = c->attr[LEFT_WINDOW].i, .right = c->attr[RIGHT_WINDOW].i,
		.dt = c->in[IN_Q]->dt, .dt_v = c->in[IN_V]->dt, .has_past = call_has(c, IN_PAST_KEY),
		.has_lengths = call_has(c, IN_LENGTHS) };
	for (int i = IN_Q; i <= IN_V; i++)
		if (c->in[i]->shape.rank < 0 || c->in[i]->dt == DT_UNDEFINED)
			return fail(c->e, LINNET_EUNSUPPORTED, "the rank and type of input \"%s\" must be known to write attention in other "
			            "operators", op_in(c->op, i)->name);
	TRY(split_heads(c, IN_Q, Q_NUM_HEADS, &p->q));
	TRY(split_heads(c, IN_K, KV_NUM_HEADS, &p->k));
	TRY(split_heads(c, IN_V, KV_NUM_HEADS, &p->v));
	p->packed = c->in[IN_Q]->shape.rank == 3;
	if (p->has_past)
		p->past = c->in[IN_PAST_KEY]->shape.rank == 4 ? c->in[IN_PAST_KEY]->shape.d[2] : DIM_NONE;
	p->total = dim_add(c->dims, p->past, p->k.d[2]);
	p->mask = call_has(c, IN_MASK) ? c->in[IN_MASK] : NULL;
	if (p->mask && (p->mask->shape.rank < 0 || p->mask->dt == DT_UNDEFINED))
		return fail(c->e, LINNET_EUNSUPPORTED, "the rank and type of input \"attn_mask\" must be known to write attention in other "
		            "operators");
	return LINNET_OK;
}

/* name: [B, H, T, D] of input `in`. */
static void write_heads(struct body *b, const char *name, const char *in, int rank, const struct shape *s)
{
	if (rank == 4) {
		str_addf(&b->s, "%s = Identity (%s)\n", name, in);
		return;
	}
	str_addf(&b->s, "%s_split = Constant <value = int64[4] {0, 0, %lld, -1}> ()\n", name, (long long)s->d[1]);
	str_addf(&b->s, "%s_apart = Reshape (%s, %s_split)\n", name, in, name);
	str_addf(&b->s, "%s = Transpose <perm = [0, 2, 1, 3]> (%s_apart)\n", name, name);
}

/* name: x with every head repeated until there are as many as query heads. */
static void write_groups(struct body *b, const char *name, const char *x, const struct plan *p)
{
	if (p->q.d[1] == p->k.d[1]) {
		str_addf(&b->s, "%s = Identity (%s)\n", name, x);
		return;
	}
	str_addf(&b->s, "%s_five = Unsqueeze (%s, two)\n"
	         "%s_times = Concat <axis = 0> (one, one, group, one, one)\n"
	         "%s_more = Expand (%s_five, %s_times)\n"
	         "%s_shape = Shape (%s)\n"
	         "%s_width = Gather (%s_shape, three)\n"
	         "%s_four = Concat <axis = 0> (zero, heads, rest, %s_width)\n"
	         "%s = Reshape (%s_more, %s_four)\n",
	         name, x, name, name, name, name, name, x, name, name, name, name, name, name, name);
}

/* keys, values: the past and the present; as outputs where they are wanted; k, v: for all query heads, in the type of Q. */
static void write_cache(struct body *b, const struct plan *p)
{
	static const struct {
		const char *past, *now, *cache, *out;
	} side[] = {
		{ "past_key", "k0", "keys", "present_key" },
		{ "past_value", "v0", "values", "present_value" },
	};

	for (int i = 0; i < 2; i++) {
		if (p->has_past)
			str_addf(&b->s, "%s = Concat <axis = 2> (%s, %s)\n", side[i].cache, side[i].past, side[i].now);
		else
			str_addf(&b->s, "%s = Identity (%s)\n", side[i].cache, side[i].now);
		if (!p->back && b->c->nout > OUT_PRESENT_KEY + i && b->c->wanted[OUT_PRESENT_KEY + i])
			str_addf(&b->s, "%s = Identity (%s)\n", side[i].out, side[i].cache);
	}
	if (p->q.d[1] != p->k.d[1]) {
		body_length(b, "heads", p->q.d[1], "q0", 1);
		body_length(b, "kv_heads", p->k.d[1], "k0", 1);
		str_add(&b->s, "group = Div (heads, kv_heads)\n");
	}
	write_groups(b, "k", "keys", p);
	write_groups(b, "v_typed", "values", p);
	body_cast(b, "v", "v_typed", p->dt_v, p->dt);
}

/* q: Q times the scale */
static void write_scale(struct body *b, const struct plan *p)
{
	const struct attr *scale = &b->c->attr[SCALE];

	if (attr_given(scale)) {
		body_float(b, "scale", p->dt, scale->f);
	} else if (dim_is_int(p->q.d[3])) {
		body_float(b, "scale", p->dt, 1 / sqrt((double)p->q.d[3]));
	} else {
		body_length(b, "width", p->q.d[3], "q0", 3);
		str_addf(&b->s, "width_float = Cast <to = %d> (width)\n", (int)p->dt);
		str_add(&b->s, "width_root = Sqrt (width_float)\nscale = Reciprocal (width_root)\n");
	}
	str_add(&b->s, "q = Mul (q0, scale)\n");
}

/* The next condition under which a key is hidden. */
static void write_hidden(struct body *b, int *n, const char *condition)
{
	str_addf(&b->s, "hide%d = %s\n", *n, condition);
	if (*n)
		str_addf(&b->s, "hidden%d = Or (hidden%d, hide%d)\n", *n, *n - 1, *n);
	else
		str_add(&b->s, "hidden0 = Identity (hide0)\n");
	++*n;
}

/* The mask as long as there are keys: short and of unknown length it is continued with minus infinity. */
static void write_mask(struct body *b, const struct plan *p, int *nhidden, bool *added)
{
	int r = p->mask->shape.rank;
	bool full = r && p->mask->shape.d[r - 1] == p->total && p->total != DIM_NONE;

	if (p->mask->dt == DT_BOOL && full) {
		write_hidden(b, nhidden, "Not (attn_mask)");
		return;
	}
	if (p->mask->dt == DT_BOOL)
		str_add(&b->s, "mask_short = Where (attn_mask, none, infinite)\n");
	else
		body_cast(b, "mask_short", "attn_mask", p->mask->dt, p->dt);
	if (full) {
		str_add(&b->s, "mask = Identity (mask_short)\n");
	} else {
		body_length(b, "mask_length", p->mask->shape.d[r - 1], "attn_mask", r - 1);
		body_length(b, "key_length", p->total, "keys", 2);
		str_addf(&b->s, "mask_missing = Sub (key_length, mask_length)\n"
		         "mask_before = Constant <value = int64[%d] {0", 2 * r - 1);
		for (int i = 1; i < 2 * r - 1; i++)
			str_add(&b->s, ", 0");
		str_add(&b->s, "}> ()\n"
		        "mask_pads = Concat <axis = 0> (mask_before, mask_missing)\n"
		        "mask = Pad (mask_short, mask_pads, infinite)\n");
	}
	*added = true;
}

/* p: [L, 1] or [B, 1, L, 1], the place of every query; j: [S], that of every key; the conditions on both. */
static void write_places(struct body *b, const struct plan *p, int *nhidden)
{
	if (!p->causal && p->left < 0 && p->right < 0 && !p->has_lengths)
		return;
	body_length(b, "queries", p->q.d[2], "q0", 2);
	body_length(b, "all", p->total, "keys", 2);
	str_add(&b->s, "from = Constant <value = int64 {0}> ()\n"
	        "step = Constant <value = int64 {1}> ()\n"
	        "queries_end = Squeeze (queries, zero)\n"
	        "i = Range (from, queries_end, step)\n"
	        "i2 = Unsqueeze (i, one)\n"
	        "all_end = Squeeze (all, zero)\n"
	        "j = Range (from, all_end, step)\n");
	if (p->has_lengths) {
		str_add(&b->s, "apart = Constant <value = int64[3] {1, 2, 3}> ()\n"
		        "n4 = Unsqueeze (nonpad_kv_seqlen, apart)\n"
		        "offset = Sub (n4, queries)\n"
		        "last = Sub (n4, one)\n"
		        "p = Add (i2, offset)\n");
		write_hidden(b, nhidden, "Less (last, j)");
	} else if (p->has_past) {
		body_length(b, "past", p->past, "past_key", 2);
		str_add(&b->s, "p = Add (i2, past)\n");
	} else {
		str_add(&b->s, "p = Identity (i2)\n");
	}
	if (p->causal)
		write_hidden(b, nhidden, "Less (p, j)");
	if (p->left >= 0) {
		body_ints(b, "left", 1, &p->left);
		str_add(&b->s, "first = Sub (p, left)\n");
		write_hidden(b, nhidden, "Less (j, first)");
	}
	if (p->right >= 0) {
		body_ints(b, "right", 1, &p->right);
		str_add(&b->s, "furthest = Add (p, right)\n");
		write_hidden(b, nhidden, "Less (furthest, j)");
	}
}

/* Whether a query might see no key at all: a causal one sees at least the first, and one in a window the key at its place. */
static bool may_see_nothing(const struct plan *p)
{
	if (p->mask || p->has_lengths)
		return true;
	return (p->left >= 0 || p->right >= 0) && p->q.d[2] != p->k.d[2];
}

/* The scores are an output at one of four stages; name is the value at this one. */
static void write_scores(struct body *b, const struct plan *p, int64_t mode, const char *name)
{
	if (!p->back && b->c->nout > OUT_SCORES && b->c->wanted[OUT_SCORES] && b->c->attr[SCORES_MODE].i == mode)
		str_addf(&b->s, "qk_matmul_output = Identity (%s)\n", name);
}

/* q, k, v: [B, H, .., ..], q times the scale; w: [B, H, L, S], the weights; `bent`, where there is a cap, the tanh of the scores over it. */
static enum linnet_code write_weights(struct shape_call *c, struct body *b, struct plan *p, bool back)
{
	const struct attr *precision = &c->attr[SOFTMAX_PRECISION];
	double cap = c->attr[SOFTCAP].f;
	int nhidden = 0;
	bool added = false;
	enum dtype soft;

	TRY(plan_attention(c, p));
	p->back = back;
	body_begin(b, c);
	for (int64_t i = 0; i < 4; i++)
		body_ints(b, (const char *const[]){ "zero", "one", "two", "three" }[i], 1, &i);
	body_ints(b, "rest", 1, &(int64_t){ -1 });
	body_float(b, "none", p->dt, 0);
	body_float(b, "infinite", p->dt, -INFINITY);
	write_heads(b, "q0", "Q", c->in[IN_Q]->shape.rank, &p->q);
	write_heads(b, "k0", "K", c->in[IN_K]->shape.rank, &p->k);
	write_heads(b, "v0", "V", c->in[IN_V]->shape.rank, &p->v);
	write_cache(b, p);
	write_scale(b, p);
	str_add(&b->s, "kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
	        "s0 = MatMul (q, kt)\n");
	write_scores(b, p, 0, "s0");
	if (cap > 0) {
		body_float(b, "cap", p->dt, cap);
		str_add(&b->s, "s_capped = Div (s0, cap)\nbent = Tanh (s_capped)\ns1 = Mul (bent, cap)\n");
	} else {
		str_add(&b->s, "s1 = Identity (s0)\n");
	}
	write_scores(b, p, 1, "s1");
	write_places(b, p, &nhidden);
	if (p->mask)
		write_mask(b, p, &nhidden, &added);
	str_addf(&b->s, added ? "s2 = Add (s1, mask)\n" : "s2 = Identity (s1)\n");
	if (nhidden)
		str_addf(&b->s, "s = Where (hidden%d, infinite, s2)\n", nhidden - 1);
	else
		str_add(&b->s, "s = Identity (s2)\n");
	write_scores(b, p, 2, "s");
	soft = attr_given(precision) ? (enum dtype)precision->i : p->dt;
	if (may_see_nothing(p)) /* the softmax of nothing is no number, and would not be one in gradients either */
		str_add(&b->s, "s_max = ReduceMax (s, rest)\n"
		        "unseeing = Equal (s_max, infinite)\n"
		        "s_some = Where (unseeing, none, s)\n");
	else
		str_add(&b->s, "s_some = Identity (s)\n");
	body_cast(b, "s_soft", "s_some", p->dt, soft);
	str_add(&b->s, "w_soft = Softmax <axis = -1> (s_soft)\n");
	body_cast(b, "w_typed", "w_soft", soft, p->dt);
	str_add(&b->s, may_see_nothing(p) ? "w = Where (unseeing, none, w_typed)\n" : "w = Identity (w_typed)\n");
	write_scores(b, p, 3, "w");
	return LINNET_OK;
}

static enum linnet_code write_attention(struct shape_call *c, const char **text)
{
	struct plan p;
	struct body b;

	TRY(write_weights(c, &b, &p, false));
	if (p.packed)
		str_add(&b.s, "y4 = MatMul (w, v)\n"
		        "y_apart = Transpose <perm = [0, 2, 1, 3]> (y4)\n"
		        "y_shape = Constant <value = int64[3] {0, 0, -1}> ()\n"
		        "Y = Reshape (y_apart, y_shape)\n");
	else
		str_add(&b.s, "Y = MatMul (w, v)\n");
	return body_end(&b, text);
}

/* ---- The gradient of Attention ---- */

/*
 * Of each query, with P the weights of its keys, and dY the gradient of its row:
 *	dV_j += P_j dY;  dP_j = dY . V_j;  dS_j = P_j (dP_j - sum over j of P_j dP_j);  d mask_j += dS_j
 *	dS_j *= 1 - tanh^2 of the cap;  dQ += scale dS_j K_j;  dK_j += scale dS_j Q
 * Inputs are Attention's, then the gradients of its first outputs.
 */
enum { IN_DY = IN_LENGTHS + 1, IN_DPRESENT_KEY, IN_DPRESENT_VALUE };
enum { NGRAD = IN_LENGTHS }; /* the gradient of input i is output i */

static enum linnet_code shape_attention_grad(struct shape_call *c)
{
	struct type forward[OUT_SCORES] = { 0 };
	struct shape_call f = *c;

	f.nin = c->nin < IN_DY ? c->nin : IN_DY;
	f.out = forward;
	f.nout = OUT_SCORES;
	TRY(shape_attention(&f));
	for (int i = 0; i < OUT_SCORES; i++)
		TRY(shape_check(c, IN_DY + i, &forward[i].shape));
	for (int i = 0; i < c->nout; i++) {
		bool has = call_has(c, i);

		if (has && dtype_in(c->in[i]->dt, FLOATS))
			c->out[i] = (struct type){ .dt = c->in[i]->dt, .shape = c->in[i]->shape };
		else if (c->wanted[i] && (!has || c->in[i]->dt != DT_UNDEFINED))
			return fail(c->e, LINNET_EMODEL, "output \"%s\" is the gradient of an input that is %s", op_out(c->op, i)->name,
			            has ? "not of floats" : "not there");
	}
	return LINNET_OK;
}

/* Sums, in the order of their tensors. */
struct sums {
	double *x[NGRAD]; /* NULL: not wanted */
};

/* Where row t of all keys, or values, has its sum: those of the past come first. */
static double *row_sum(const struct sums *g, int past, int now, const struct heads *before, const struct heads *after, int64_t b, int64_t h,
                       int64_t t)
{
	const struct heads *r = t < before->t ? before : after;
	double *x = g->x[t < before->t ? past : now];

	return x ? x + (heads_row(r, b, h, t < before->t ? t : t - before->t) - r->x) : NULL;
}

static void add_row(double *to, double f, const double *x, int64_t n)
{
	for (int64_t d = 0; d < n && to; d++)
		to[d] += f * x[d];
}

/* Query i of a head. p, bias, slope, dp: [S], working memory. */
static void query_back(const struct attend *a, const struct sums *g, const double *dy, int64_t b, int64_t h, int64_t i, double *const work[4])
{
	const struct heads *q = &a->q, *k = &a->k, *v = &a->v;
	double *p = work[0], *bias = work[1], *slope = work[2], *dp = work[3], all = 0;
	const double *qi = heads_row(q, b, h, i);
	const struct bias *rule = a->rule;
	int64_t total = a->past_k.t + k->t, kh = h / (q->h / k->h);

	weigh(a, b, h, i, p, bias, slope);
	for (int64_t j = 0; j < total; j++) {
		const double *vj = heads_cached(&a->past_v, v, b, kh, j);

		dp[j] = 0;
		for (int64_t d = 0; d < v->width && p[j] != 0; d++)
			dp[j] += dy[d] * vj[d];
		all += p[j] * dp[j];
	}
	for (int64_t j = 0; j < total; j++) {
		double ds = p[j] * (dp[j] - all);

		if (p[j] == 0)
			continue;
		if (g->x[IN_MASK])
			g->x[IN_MASK][mask_at(rule, b, h, i, j)] += ds;
		ds *= a->scale * slope[j];
		add_row(g->x[IN_Q] ? g->x[IN_Q] + (qi - q->x) : NULL, ds, heads_cached(&a->past_k, k, b, kh, j), q->width);
		add_row(row_sum(g, IN_PAST_KEY, IN_K, &a->past_k, k, b, kh, j), ds, qi, q->width);
		add_row(row_sum(g, IN_PAST_VALUE, IN_V, &a->past_v, v, b, kh, j), p[j], dy, v->width);
	}
}

/* The sums of keys, or values, begin with the gradient of what the cache became: [B, Hkv, P + S, D]. */
static enum linnet_code begin_sums(struct kernel_call *c, int i, const struct sums *g, int past, int now, const struct heads *before,
                                   const struct heads *after)
{
	const double *x;

	TRY(kernel_doubles(c, i, &x));
	for (int64_t b = 0; x && b < after->batch; b++)
		for (int64_t h = 0; h < after->h; h++)
			for (int64_t t = 0; t < before->t + after->t; t++, x += after->width)
				add_row(row_sum(g, past, now, before, after, b, h, t), 1, x, after->width);
	return LINNET_OK;
}

static enum linnet_code attention_grad(struct kernel_call *c)
{
	struct linnet_error *e = c->e;
	struct sums g = { .x = { NULL } };
	struct heads dy;
	struct bias rule;
	struct attend a;
	double *work[4];

	TRY(read_attention(c, &a, &rule));
	for (int i = 0; i < c->nout; i++)
		if (c->out[i])
			TRY_NEW(g.x[i], c->scratch, c->out[i]->n);
	for (size_t i = 0; i < sizeof work / sizeof *work; i++)
		TRY_NEW(work[i], c->scratch, a.past_k.t + a.k.t);
	TRY(heads_of(c, IN_DY, a.q.h, &dy));
	TRY(begin_sums(c, IN_DPRESENT_KEY, &g, IN_PAST_KEY, IN_K, &a.past_k, &a.k));
	TRY(begin_sums(c, IN_DPRESENT_VALUE, &g, IN_PAST_VALUE, IN_V, &a.past_v, &a.v));
	for (int64_t b = 0; dy.x && b < a.q.batch; b++)
		for (int64_t h = 0; h < a.q.h; h++)
			for (int64_t i = 0; i < a.q.t; i++)
				query_back(&a, &g, heads_row(&dy, b, h, i), b, h, i, work);
	for (int i = 0; i < c->nout; i++)
		for (int64_t k = 0; g.x[i] && k < c->out[i]->n; k++)
			tensor_put(c->out[i], k, g.x[i][k]);
	return LINNET_OK;
}

/* name: the sum of `from`, [B, H, S, ..], over the query heads that share a head, in the type it has as an input; `width` is its last length. */
static void write_shared(struct body *b, const struct plan *p, const char *name, const char *from, const char *width, enum dtype dt)
{
	if (p->q.d[1] == p->k.d[1])
		str_addf(&b->s, "%s_sum = Identity (%s)\n", name, from);
	else
		str_addf(&b->s, "%s_apart = Concat <axis = 0> (zero, kv_heads, group, rest, %s)\n"
		         "%s_five = Reshape (%s, %s_apart)\n"
		         "%s_sum = ReduceSum <keepdims = 0> (%s_five, two)\n", name, width, name, from, name, name, name);
	if (p->dt == dt)
		str_addf(&b->s, "%s_add = Identity (%s_sum)\n", name, name);
	else
		str_addf(&b->s, "%s_add = Cast <to = %d> (%s_sum)\n", name, (int)dt, name);
}

static bool wants(const struct body *b, int i) { return i < b->c->nout && b->c->wanted[i]; }

/* The gradient of input i, whose heads are `from`. */
static void write_packed(struct body *b, int i, const char *from)
{
	const char *in = op_in(b->c->op, i)->name;

	if (!wants(b, i))
		return;
	if (b->c->in[i]->shape.rank == 3)
		str_addf(&b->s, "%s_across = Transpose <perm = [0, 2, 1, 3]> (%s)\n"
		         "%s_lengths = Shape (%s)\n"
		         "d_%s = Reshape <allowzero = 1> (%s_across, %s_lengths)\n", in, from, in, in, in, in, in);
	else
		str_addf(&b->s, "d_%s = Identity (%s)\n", in, from);
}

/* Of keys, or values, `x`_add: what the cache became is added, and the past cut off. */
static void write_parts(struct body *b, const struct plan *p, const char *x, int now, int past, int present)
{
	char part[32];

	if (call_has(b->c, present))
		str_addf(&b->s, "%s_all = Add (%s_add, %s)\n", x, x, op_in(b->c->op, present)->name);
	else
		str_addf(&b->s, "%s_all = Identity (%s_add)\n", x, x);
	if (p->has_past && wants(b, past))
		str_addf(&b->s, "d_%s = Slice (%s_all, zero, past_length, two)\n", op_in(b->c->op, past)->name, x);
	str_addf(&b->s, p->has_past ? "%s_now = Slice (%s_all, past_length, far, two)\n" : "%s_now = Identity (%s_all)\n", x, x);
	snprintf(part, sizeof part, "%s_now", x);
	write_packed(b, now, part);
}

/* d_attn_mask: the sum of ds0: [B, H, L, S] over what the mask is repeated along, as far as it goes. */
static enum linnet_code write_mask_back(struct body *b, const struct plan *p)
{
	const struct shape *m = &p->mask->shape;
	const dim scores[4] = { p->q.d[0], p->q.d[1], p->q.d[2], p->total };
	int64_t axes[4];
	int n = 0;

	for (int i = 0; i < 3; i++) {
		dim d = i + m->rank < 4 ? 1 : m->d[i + m->rank - 4];

		if (d == 1)
			axes[n++] = i;
		else if (!dim_is_int(d) && d != scores[i])
			return fail(b->c->e, LINNET_EUNSUPPORTED, "the lengths of input \"attn_mask\" must be known to write its gradient in other operators");
	}
	body_length(b, "mask_end", m->d[m->rank - 1], "attn_mask", m->rank - 1);
	str_add(&b->s, "mask_seen = Slice (ds0, zero, mask_end, three)\n"
	        "mask_lengths = Shape (attn_mask)\n");
	if (n) {
		body_ints(b, "mask_axes", n, axes);
		str_add(&b->s, "mask_sum = ReduceSum (mask_seen, mask_axes)\n");
	} else {
		str_add(&b->s, "mask_sum = Identity (mask_seen)\n");
	}
	str_add(&b->s, "mask_back = Reshape <allowzero = 1> (mask_sum, mask_lengths)\n");
	body_cast(b, "d_attn_mask", "mask_back", p->dt, p->mask->dt);
	return LINNET_OK;
}

static enum linnet_code write_attention_grad(struct shape_call *c, const char **text)
{
	struct plan p;
	struct body b;

	TRY(write_weights(c, &b, &p, true));
	if (call_has(c, IN_DY))
		write_heads(&b, "dy", "d_Y", c->in[IN_Q]->shape.rank, &p.q);
	else
		str_add(&b.s, "y = MatMul (w, v)\ny_lengths = Shape (y)\ndy = Expand (none, y_lengths)\n");
	str_add(&b.s, "vt = Transpose <perm = [0, 1, 3, 2]> (v)\n"
	        "dp = MatMul (dy, vt)\n"
	        "shares = Mul (w, dp)\n"
	        "share = ReduceSum (shares, rest)\n"
	        "over = Sub (dp, share)\n"
	        "ds0 = Mul (w, over)\n");
	if (p.mask && wants(&b, IN_MASK))
		TRY(write_mask_back(&b, &p));
	if (c->attr[SOFTCAP].f > 0) {
		body_float(&b, "unit", p.dt, 1);
		str_add(&b.s, "bent_square = Mul (bent, bent)\nslope = Sub (unit, bent_square)\nds = Mul (ds0, slope)\n");
	} else {
		str_add(&b.s, "ds = Identity (ds0)\n");
	}
	str_add(&b.s, "dq_scores = MatMul (ds, k)\ndq = Mul (dq_scores, scale)\n");
	write_packed(&b, IN_Q, "dq");
	str_add(&b.s, "dst = Transpose <perm = [0, 1, 3, 2]> (ds)\n"
	        "dk_heads = MatMul (dst, q)\n"
	        "wt = Transpose <perm = [0, 1, 3, 2]> (w)\n"
	        "dv_heads = MatMul (wt, dy)\n");
	write_shared(&b, &p, "dk", "dk_heads", "k_width", p.dt);
	write_shared(&b, &p, "dv", "dv_heads", "v_typed_width", p.dt_v);
	if (p.has_past) {
		body_length(&b, "past_length", p.past, "past_key", 2);
		body_ints(&b, "far", 1, &(int64_t){ INT64_MAX });
	}
	write_parts(&b, &p, "dk", IN_K, IN_PAST_KEY, IN_DPRESENT_KEY);
	write_parts(&b, &p, "dv", IN_V, IN_PAST_VALUE, IN_DPRESENT_VALUE);
	return body_end(&b, text);
}

/* One AttentionGrad, unless the scores have a gradient of their own. */
static enum linnet_code grad_attention(struct shape_call *c, const char **text)
{
	struct body b;

	if (c->nout > OUT_SCORES && c->wanted[OUT_SCORES])
		return LINNET_OK;
	body_begin(&b, c);
	for (int i = 0; i < c->nin && i < NGRAD; i++) /* the gradients of inputs that are there */
		str_addf(&b.s, "%s%s%s", i ? ", " : "", c->in[i] && dtype_in(c->in[i]->dt, FLOATS) ? "d_" : "",
		         c->in[i] && dtype_in(c->in[i]->dt, FLOATS) ? op_in(c->op, i)->name : "");
	str_addf(&b.s, " = linnet.AttentionGrad <is_causal = %lld, left_window_size = %lld, right_window_size = %lld, softcap = %#.9g",
	         (long long)c->attr[IS_CAUSAL].i, (long long)c->attr[LEFT_WINDOW].i, (long long)c->attr[RIGHT_WINDOW].i, c->attr[SOFTCAP].f);
	for (int i = 0; i < op_nattr(c->op); i++)
		if (c->op->attr[i].flags & OPTIONAL && attr_given(&c->attr[i])) {
			if (c->attr[i].kind == ATTR_FLOAT)
				str_addf(&b.s, ", %s = %#.9g", c->op->attr[i].name, c->attr[i].f);
			else
				str_addf(&b.s, ", %s = %lld", c->op->attr[i].name, (long long)c->attr[i].i);
		}
	str_add(&b.s, "> (Q, K, V, attn_mask, past_key, past_value, nonpad_kv_seqlen, d_Y, d_present_key, d_present_value)\n");
	return body_end(&b, text);
}

/* ---- RotaryEmbedding ---- */

enum { ROPE_X, ROPE_COS, ROPE_SIN, ROPE_POSITIONS };
enum { ROPE_INTERLEAVED, ROPE_NUM_HEADS, ROPE_DIM };

/* X: [B, H, L, D] or [B, L, H D]; with position_ids: [B, L] the caches are [N, R / 2], else [B or 1, L, R / 2]; R <= D.
 * A batch of 1 is what torch exports; the reference evaluator broadcasts it. */
static enum linnet_code shape_rotary(struct shape_call *c)
{
	struct shape x, ids = { .rank = 2, .d = { DIM_NONE, DIM_NONE } };
	bool by_id = call_has(c, ROPE_POSITIONS);
	dim width = c->attr[ROPE_DIM].i;

	c->out[0].shape = c->in[ROPE_X]->shape;
	TRY(split_heads(c, ROPE_X, ROPE_NUM_HEADS, &x));
	if (width == 0)
		width = x.d[3];
	if (dim_is_int(width) && dim_is_int(x.d[3]) && width > x.d[3])
		return fail(c->e, LINNET_EATTR, "rotary_embedding_dim is %lld; heads are %lld wide", (long long)width,
		            (long long)x.d[3]);
	if (dim_is_int(width) && width % 2)
		return fail(c->e, LINNET_ESHAPE, "%lld numbers do not make pairs to rotate", (long long)width);
	if (by_id) {
		TRY(rank_check(c, ROPE_POSITIONS, 2, 2));
		if (c->in[ROPE_POSITIONS]->shape.rank == 2)
			ids = c->in[ROPE_POSITIONS]->shape;
		TRY(length_join(c, "batch lengths of X and position_ids", x.d[0], ids.d[0], NULL));
		TRY(length_join(c, "lengths of X and position_ids", x.d[2], ids.d[1], NULL));
	}
	for (int i = ROPE_COS; i <= ROPE_SIN; i++) {
		const struct shape *s = &c->in[i]->shape;

		TRY(rank_check(c, i, by_id ? 2 : 3, by_id ? 2 : 3));
		if (s->rank < 0)
			continue;
		TRY(length_join(c, "pairs to rotate and angles", dim_div(c->dims, width, 2), s->d[s->rank - 1], NULL));
		if (!by_id) {
			if (s->d[0] != 1)
				TRY(length_join(c, "batch lengths of X and the angles", x.d[0], s->d[0], NULL));
			TRY(length_join(c, "lengths of X and the angles", x.d[2], s->d[1], NULL));
		} else if (c->in[ROPE_SIN]->shape.rank == 2) {
			TRY(length_join(c, "lengths of the caches", s->d[0], c->in[ROPE_SIN]->shape.d[0], NULL));
		}
	}
	return LINNET_OK;
}

void turn(double *y, const double *x, const double *cosine, const double *sine, int64_t n, bool interleaved)
{
	for (int64_t k = 0; k < n; k++) {
		int64_t i = interleaved ? 2 * k : k, j = interleaved ? i + 1 : i + n;
		double u = x[i], v = x[j];

		y[i] = u * cosine[k] - v * sine[k];
		y[j] = u * sine[k] + v * cosine[k];
	}
}

/* The first R numbers of every head turn by the angles of their position. The rest of the head stays. */
static enum linnet_code rotary(struct kernel_call *c)
{
	const struct tensor *ids = c->nin > ROPE_POSITIONS ? c->in[ROPE_POSITIONS] : NULL;
	bool interleaved = c->attr[ROPE_INTERLEAVED].i != 0;
	int64_t positions = c->in[ROPE_COS]->d[0], half;
	const double *cosine, *sine;
	struct linnet_error *e = c->e;
	struct heads x;
	double *y;

	TRY(heads_of(c, ROPE_X, c->attr[ROPE_NUM_HEADS].i, &x));
	TRY(kernel_doubles(c, ROPE_COS, &cosine));
	TRY(kernel_doubles(c, ROPE_SIN, &sine));
	half = (c->attr[ROPE_DIM].i ? c->attr[ROPE_DIM].i : x.width) / 2;
	TRY_NEW(y, c->scratch, x.width);
	if (!x.width) /* of any number of heads */
		return LINNET_OK;
	for (int64_t b = 0; b < x.batch; b++)
		for (int64_t t = 0; t < x.t; t++) {
			int64_t p = ids ? tensor_get_int(ids, b * x.t + t) : t;
			int64_t at_cos = ids || c->in[ROPE_COS]->d[0] == 1 ? p : b * x.t + t;
			int64_t at_sin = ids || c->in[ROPE_SIN]->d[0] == 1 ? p : b * x.t + t;

			if (ids && (p < 0 || p >= positions))
				return fail(c->e, LINNET_EVALUE, "position %lld is not in [0, %lld)", (long long)p, (long long)positions);
			for (int64_t h = 0; h < x.h; h++) {
				const double *from = heads_row(&x, b, h, t);

				memcpy(y, from, (size_t)x.width * sizeof *y);
				turn(y, from, cosine + at_cos * half, sine + at_sin * half, half, interleaved);
				for (int64_t i = 0; i < x.width; i++)
					tensor_put(c->out[0], from - x.x + i, y[i]);
			}
		}
	return LINNET_OK;
}

/* The parts of the heads that turn, x and y, and the rest, cut off along the last axis. */
static enum linnet_code write_rotary(struct shape_call *c, const char **text)
{
	bool interleaved = c->attr[ROPE_INTERLEAVED].i != 0, by_id = call_has(c, ROPE_POSITIONS);
	int rank = c->in[ROPE_X]->shape.rank;
	dim width = c->attr[ROPE_DIM].i;
	struct shape x;
	struct body b;

	if (rank < 0)
		return fail(c->e, LINNET_EUNSUPPORTED, "the rank of input \"X\" must be known to write it in other operators");
	TRY(split_heads(c, ROPE_X, ROPE_NUM_HEADS, &x));
	body_begin(&b, c);
	body_ints(&b, "zero", 1, &(int64_t){ 0 });
	body_ints(&b, "one", 1, &(int64_t){ 1 });
	body_ints(&b, "two", 1, &(int64_t){ 2 });
	body_ints(&b, "last", 1, &(int64_t){ -1 });
	body_ints(&b, "end", 1, &(int64_t){ INT64_MAX });
	body_ints(&b, "heads", 1, &(int64_t){ rank == 3 ? 2 : 1 }); /* the axis of heads */
	if (rank == 3)
		str_addf(&b.s, "split = Constant <value = int64[4] {0, 0, %lld, -1}> ()\nx0 = Reshape (X, split)\n", (long long)x.d[1]);
	else
		str_add(&b.s, "x0 = Identity (X)\n");
	if (width || dim_is_int(x.d[3]))
		body_ints(&b, "width", 1, &(int64_t){ width ? width : x.d[3] });
	else
		body_length(&b, "width", DIM_NONE, "x0", 3);
	for (int i = 0; i < 2; i++) {
		const char *name = i ? "sin" : "cos";

		str_addf(&b.s, by_id ? "%s0 = Gather (%s_cache, position_ids)\n" : "%s0 = Identity (%s_cache)\n", name, name);
		str_addf(&b.s, "%s = Unsqueeze (%s0, heads)\n", name, name);
	}
	str_add(&b.s, interleaved ? "x = Slice (x0, zero, width, last, two)\n"
	                            "y = Slice (x0, one, width, last, two)\n"
	                          : "half = Div (width, two)\n"
	                            "x = Slice (x0, zero, half, last)\n"
	                            "y = Slice (x0, half, width, last)\n");
	str_add(&b.s, "xc = Mul (x, cos)\n"
	        "ys = Mul (y, sin)\n"
	        "u = Sub (xc, ys)\n"
	        "xs = Mul (x, sin)\n"
	        "yc = Mul (y, cos)\n"
	        "v = Add (xs, yc)\n");
	if (interleaved)
		str_add(&b.s, "u5 = Unsqueeze (u, last)\n"
		        "v5 = Unsqueeze (v, last)\n"
		        "uv = Concat <axis = -1> (u5, v5)\n"
		        "same = Constant <value = int64[3] {0, 0, 0}> ()\n"
		        "pairs = Concat <axis = 0> (same, width)\n"
		        "turned = Reshape (uv, pairs)\n");
	else
		str_add(&b.s, "turned = Concat <axis = -1> (u, v)\n");
	if (width && width != x.d[3])
		str_add(&b.s, "still = Slice (x0, width, end, last)\n"
		        "y0 = Concat <axis = -1> (turned, still)\n");
	else
		str_add(&b.s, "y0 = Identity (turned)\n");
	str_add(&b.s, rank == 3 ? "shape = Shape (X)\nY = Reshape (y0, shape)\n" : "Y = Identity (y0)\n");
	return body_end(&b, text);
}

/* ---- FlexAttention ---- */

enum { FLEX_PROB_MOD, FLEX_SCALE, FLEX_SCORE_MOD, FLEX_PRECISION };

/* Q: [B, H, L, D]  K: [B, Hkv, S, D]  V: [B, Hkv, S, E]  Y: [B, H, L, E] */
static enum linnet_code shape_flex(struct shape_call *c)
{
	struct shape s[3];

	TRY(check_precision(c, &c->attr[FLEX_PRECISION]));
	for (int i = 0; i < 3; i++) {
		TRY(rank_check(c, i, 4, 4));
		s[i] = c->in[i]->shape;
		if (s[i].rank < 0)
			s[i] = (struct shape){ .rank = 4, .d = { DIM_NONE, DIM_NONE, DIM_NONE, DIM_NONE } };
	}
	TRY(join_heads(c, &s[IN_Q], &s[IN_K], &s[IN_V]));
	c->out[0].shape = (struct shape){ .rank = 4, .d = { s[IN_Q].d[0], s[IN_Q].d[1], s[IN_Q].d[2], s[IN_V].d[3] } };
	return LINNET_OK;
}

/* x: [B, H, S, width] = x0: [B, Hkv, S, width] with each head as often as the heads of Q take it. */
static void flex_repeat(struct body *b, char x)
{
	static const char nodes[] = "x_5 = Unsqueeze (x0, two)\n"
	                            "x_shape = Shape (x0)\n"
	                            "x_batch, x_heads, x_length, x_width = Split <num_outputs = 4> (x_shape)\n"
	                            "x_wide = Concat <axis = 0> (x_batch, kv_heads, times, x_length, x_width)\n"
	                            "x_all = Expand (x_5, x_wide)\n"
	                            "x_to = Concat <axis = 0> (x_batch, heads, x_length, x_width)\n"
	                            "x = Reshape <allowzero = 1> (x_all, x_to)\n";
	char text[sizeof nodes];

	for (size_t i = 0; i < sizeof nodes; i++) /* an x that is not within a word */
		text[i] = nodes[i] == 'x' && (!i || strchr("\n (", nodes[i - 1])) ? x : nodes[i];
	str_add(&b->s, text);
}

/* y = mod (x), a graph attribute; a scan over one slice applies it. */
static void flex_apply(struct body *b, const char *y, const char *mod, const char *x)
{
	str_addf(&b->s,
	         "%s_one = Unsqueeze (%s, zero)\n"
	         "%s_out = Scan <num_scan_inputs = 1, body: graph = @%s> (%s_one)\n"
	         "%s = Squeeze (%s_out, zero)\n", y, x, y, mod, y, y, y);
}

/*
 * Y = prob_mod (softmax (score_mod (scale Q K^T))) V. Between the products elements are of softmax_precision: float unless they are
 * doubles. The products of Q and K are made in the wider of that and their own type.
 */
static enum linnet_code write_flex(struct shape_call *c, const char **text)
{
	const struct attr *scale = &c->attr[FLEX_SCALE], *precision = &c->attr[FLEX_PRECISION];
	enum dtype own = c->in[IN_Q]->dt, soft, wide;
	const struct shape *q = &c->in[IN_Q]->shape, *k = &c->in[IN_K]->shape;
	dim width = q->rank == 4 ? q->d[3] : DIM_NONE;
	bool grouped = q->rank < 0 || k->rank < 0 || q->d[1] == DIM_NONE || q->d[1] != k->d[1];
	struct body b;

	if (own == DT_UNDEFINED)
		return fail(c->e, LINNET_EUNSUPPORTED, "the element type of input \"Q\" must be known");
	soft = attr_given(precision) ? (enum dtype)precision->i : own == DT_DOUBLE ? DT_DOUBLE : DT_FLOAT;
	wide = dtype_bits(soft) < dtype_bits(own) ? own : soft;
	body_begin(&b, c);
	body_ints(&b, "zero", 1, &(int64_t){ 0 });
	body_cast(&b, "q", "Q", own, wide);
	body_cast(&b, "k0", "K", own, wide);
	body_cast(&b, "v0", "V", own, soft);
	if (grouped) {
		body_ints(&b, "two", 1, &(int64_t){ 2 });
		body_length(&b, "heads", q->rank == 4 ? q->d[1] : DIM_NONE, "Q", 1);
		body_length(&b, "kv_heads", k->rank == 4 ? k->d[1] : DIM_NONE, "K", 1);
		str_add(&b.s, "times = Div (heads, kv_heads)\n");
		flex_repeat(&b, 'k');
		flex_repeat(&b, 'v');
	} else {
		str_add(&b.s, "k = Identity (k0)\nv = Identity (v0)\n");
	}
	if (attr_given(scale) || dim_is_int(width)) {
		body_float(&b, "scale", wide, attr_given(scale) ? scale->f : 1 / sqrt((double)width));
	} else {
		body_length(&b, "width", DIM_NONE, "Q", 3);
		str_addf(&b.s, "width_real = Cast <to = %d> (width)\nroot = Sqrt (width_real)\nscale = Reciprocal (root)\n", (int)wide);
	}
	str_add(&b.s, "kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
	        "products = MatMul (q, kt)\n"
	        "scaled = Mul (products, scale)\n");
	body_cast(&b, "scores", "scaled", wide, soft);
	if (attr_given(&c->attr[FLEX_SCORE_MOD]))
		flex_apply(&b, "modified", "score_mod", "scores");
	str_addf(&b.s, "probs = Softmax <axis = -1> (%s)\n", attr_given(&c->attr[FLEX_SCORE_MOD]) ? "modified" : "scores");
	if (attr_given(&c->attr[FLEX_PROB_MOD]))
		flex_apply(&b, "weights", "prob_mod", "probs");
	str_addf(&b.s, "y = MatMul (%s, v)\n", attr_given(&c->attr[FLEX_PROB_MOD]) ? "weights" : "probs");
	body_cast(&b, "Y", "y", soft, own);
	return body_end(&b, text);
}

#define HEADS(title) { .name = title, .kind = ATTR_INT, .flags = OPTIONAL, .lo = 1, .hi = INT32_MAX }
#define WINDOW(title, version) { .name = title, .kind = ATTR_INT, .since = version, .i = -1, .lo = -1, .hi = INT32_MAX }

#define ATTENTION_ATTRIBUTES(windows)                                                              \
	ATTRS([IS_CAUSAL] = { .name = "is_causal", .kind = ATTR_INT }, [KV_NUM_HEADS] = HEADS("kv_num_heads"), \
	      [LEFT_WINDOW] = WINDOW("left_window_size", windows),                                 \
	      [SCORES_MODE] = { .name = "qk_matmul_output_mode", .kind = ATTR_INT, .lo = 0, .hi = 3 }, \
	      [Q_NUM_HEADS] = HEADS("q_num_heads"), [RIGHT_WINDOW] = WINDOW("right_window_size", windows), \
	      [SCALE] = { .name = "scale", .kind = ATTR_FLOAT, .flags = OPTIONAL },                \
	      [SOFTCAP] = { .name = "softcap", .kind = ATTR_FLOAT, .lo = 0, .hi = INFINITY },      \
	      [SOFTMAX_PRECISION] = { .name = "softmax_precision", .kind = ATTR_INT, .flags = OPTIONAL })

static const struct op rows[] = {
	{
		.name = "Attention", .since = 23,
		.doc = "Values averaged with the softmax of scaled products of queries and keys, under masks, windows and a cache.",
		.in = IN({ "Q", T1, FLOW_SMOOTH }, { "K", T1, FLOW_SMOOTH }, { "V", T2, FLOW_LINEAR },
		         { "attn_mask", T3, FLOW_SMOOTH, OPTIONAL }, { "past_key", T1, FLOW_SMOOTH, OPTIONAL },
		         { "past_value", T2, FLOW_LINEAR, OPTIONAL }, { "nonpad_kv_seqlen", T4, FLOW_NONE, OPTIONAL, .since = 24 }),
		.out = OUT({ "Y", T1 }, { "present_key", T1, .flags = OPTIONAL }, { "present_value", T2, .flags = OPTIONAL },
		           { "qk_matmul_output", T1, .flags = OPTIONAL }),
		.attr = ATTENTION_ATTRIBUTES(25),
		.types = { [T1] = FLOATS, [T2] = FLOATS, [T3] = NUMBERS | SET(BOOL), [T4] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_attention,
		.kernel = attention,
		.write_body = write_attention,
		.write_grad = grad_attention,
		.fast = FAST(&fast_attention),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.domain = "linnet", .name = "AttentionGrad", .since = 1,
		.doc = "The gradients of Attention's inputs, from its inputs and the gradients of its outputs but the scores.",
		.in = IN({ "Q", T1, FLOW_SMOOTH }, { "K", T1, FLOW_SMOOTH }, { "V", T2, FLOW_SMOOTH },
		         { "attn_mask", T3, FLOW_SMOOTH, OPTIONAL }, { "past_key", T1, FLOW_SMOOTH, OPTIONAL },
		         { "past_value", T2, FLOW_SMOOTH, OPTIONAL }, { "nonpad_kv_seqlen", T4, FLOW_NONE, OPTIONAL },
		         { "d_Y", T1, FLOW_LINEAR, OPTIONAL }, { "d_present_key", T1, FLOW_LINEAR, OPTIONAL },
		         { "d_present_value", T2, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "d_Q", T1, .flags = OPTIONAL }, { "d_K", T1, .flags = OPTIONAL }, { "d_V", T2, .flags = OPTIONAL },
		           { "d_attn_mask", T3, .flags = OPTIONAL }, { "d_past_key", T1, .flags = OPTIONAL },
		           { "d_past_value", T2, .flags = OPTIONAL }),
		.attr = ATTENTION_ATTRIBUTES(0),
		.types = { [T1] = FLOATS, [T2] = FLOATS, [T3] = NUMBERS | SET(BOOL), [T4] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_attention_grad,
		.kernel = attention_grad,
		.write_body = write_attention_grad,
		.fast = FAST(&fast_attention_grad),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "RotaryEmbedding", .since = 23,
		.doc = "Pairs of numbers of every head turned by angles of their position.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "cos_cache", T, FLOW_LINEAR }, { "sin_cache", T, FLOW_LINEAR },
		         { "position_ids", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS([ROPE_INTERLEAVED] = { .name = "interleaved", .kind = ATTR_INT }, [ROPE_NUM_HEADS] = HEADS("num_heads"),
		              [ROPE_DIM] = { .name = "rotary_embedding_dim", .kind = ATTR_INT, .lo = 0, .hi = INT32_MAX }),
		.types = { [T] = SET(FLOAT) | HALVES, [T1] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_rotary,
		.kernel = rotary,
		.write_body = write_rotary,
		.fast = FAST(&fast_rotary),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.domain = "ai.onnx.preview", .name = "FlexAttention", .since = 1,
		.doc = "Attention whose scores and whose probabilities pass through graphs.",
		.in = IN({ "Q", T1, FLOW_SMOOTH }, { "K", T1, FLOW_SMOOTH }, { "V", T1, FLOW_LINEAR }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS([FLEX_PROB_MOD] = { .name = "prob_mod", .kind = ATTR_GRAPH },
		              [FLEX_SCALE] = { .name = "scale", .kind = ATTR_FLOAT, .flags = OPTIONAL },
		              [FLEX_SCORE_MOD] = { .name = "score_mod", .kind = ATTR_GRAPH },
		              [FLEX_PRECISION] = { .name = "softmax_precision", .kind = ATTR_INT, .flags = OPTIONAL }),
		.types = { [T1] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_flex,
		.write_lower = write_flex,
	},
};

const struct op_family attention_ops = FAMILY("attention", rows);
