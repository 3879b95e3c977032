/*
 * Softmax attention in float32, in tiles.
 *
 * For a block of queries the keys pass in tiles, with the running maximum and sum of each row (Milakov and Gimelshein 2018; Rabe and
 * Staats 2021), so no L x S matrix is in memory. It spends its time in small matrix products; arithmetic bounds them.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "ops/base/thread.h"
#include "ops/blas.h"
#include "ops/fast/dot.h"
#include "ops/fast/fast.h"
#include "ops/fast/tile.h"
#include "ops/fast/vmath.h"

VARRAY(exp)
VARRAY(tanh)

enum { QUERIES = 64, KEYS = 256, FEW = 8 };

/* Rows of one operand by batch, head and position, of [B, H, T, W] or [B, T, H W]; strides in floats. */
struct rows {
	const float *x;
	int64_t h, t, width;
	int64_t by_batch, by_head, by_time;
};

static struct rows rows_of(const struct tensor *t, int64_t heads)
{
	if (t->rank == 4)
		return (struct rows){ t->data, t->d[1], t->d[2], t->d[3], t->d[1] * t->d[2] * t->d[3], t->d[2] * t->d[3], t->d[3] };
	return (struct rows){ t->data, heads, t->d[1], t->d[2] / heads, t->d[1] * t->d[2], t->d[2] / heads, t->d[2] };
}

struct softmax_job {
	struct rows q, k, v, y;
	const struct tensor *mask;
	const int64_t *keys, *offset; /* by sample; NULL: all keys, behind `past` */
	int64_t mask_stride[4], mask_keys;
	int64_t R;            /* query heads a key head */
	int64_t blocks;       /* of queries a head; 0: so few queries that all of a key head are one piece */
	int64_t past;         /* keys before the queries */
	int64_t left, right;  /* window; -1: unbounded */
	float scale, softcap;
	bool causal;
};

/* Query i of sample b stands at i + offset among the keys, of which there are `keys`. */
static int64_t keys_of(const struct softmax_job *j, int64_t b) { return j->keys ? j->keys[b] : j->k.t; }
static int64_t offset_of(const struct softmax_job *j, int64_t b) { return j->offset ? j->offset[b] : j->past; }

/* t = tanh(s / cap), s = cap t */
static void cap_scores(const struct softmax_job *j, float *s, float *t, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		t[i] = s[i] / j->softcap;
	v_tanh(t, t, n);
	for (int64_t i = 0; i < n; i++)
		s[i] = t[i] * j->softcap;
}

/* Scores of one tile of a head, masked: of n queries from i0 on and w keys from j0 on, which are `by_query` and `by_key` apart. */
static void mask_tile(const struct softmax_job *j, float *s, int64_t by_query, int64_t by_key, int64_t b, int64_t h, int64_t i0, int64_t n, int64_t j0,
                      int64_t w)
{
	const int64_t *st = j->mask_stride, offset = offset_of(j, b), keys = keys_of(j, b);

	for (int64_t r = 0; r < n && j->mask; r++) {
		int64_t base = b * st[0] + h * st[1] + (i0 + r) * st[2] + j0, to = j->mask_keys - j0 < w ? j->mask_keys - j0 : w;

		if (j->mask->dt == DT_BOOL) {
			const uint8_t *m = (const uint8_t *)j->mask->data + base;

			for (int64_t c = 0; c < to; c++)
				if (!m[c])
					s[r * by_query + c * by_key] = -INFINITY;
		} else {
			const float *m = (const float *)j->mask->data + base;

			for (int64_t c = 0; c < to; c++)
				s[r * by_query + c * by_key] = m[c] == -INFINITY ? -INFINITY : s[r * by_query + c * by_key] + m[c];
		}
		for (int64_t c = to > 0 ? to : 0; c < w; c++) /* a mask that ends early */
			s[r * by_query + c * by_key] = -INFINITY;
	}
	for (int64_t r = 0; r < n; r++) {
		int64_t p = i0 + r + offset, first = j->left >= 0 ? p - j->left : 0, last = keys - 1;

		if (j->causal && p < last)
			last = p;
		if (j->right >= 0 && p + j->right < last)
			last = p + j->right;
		for (int64_t c = 0; c < w && j0 + c < first; c++)
			s[r * by_query + c * by_key] = -INFINITY;
		for (int64_t c = last - j0 + 1 > 0 ? last - j0 + 1 : 0; c < w; c++)
			s[r * by_query + c * by_key] = -INFINITY;
	}
}

/* Running softmax of some rows: largest score so far, sum of weights, weighted sum of values (rows ldy apart). */
struct running {
	float *top, *sum, *y;
	int64_t ldy, width;
};

static void start_rows(const struct running *a, int64_t n)
{
	for (int64_t r = 0; r < n; r++) {
		a->top[r] = -INFINITY;
		a->sum[r] = 0;
		memset(a->y + r * a->ldy, 0, (size_t)a->width * sizeof *a->y);
	}
}

/* Take masked scores s [n, w] of rows from `from` on into them: s becomes weights relative to the new maxima, y and sum are brought to these. */
static void absorb(float *s, int64_t n, int64_t w, const struct running *a, int64_t from)
{
	for (int64_t r = 0; r < n; r++) {
		float *row = s + r * w, old = a->top[from + r], m = old, part[16] = { 0 }, add = 0, keep, *y = a->y + (from + r) * a->ldy;
		int64_t c = 0;

		for (int64_t i = 0; i < w; i++)
			m = row[i] > m ? row[i] : m;
		if (m == -INFINITY) { /* nothing seen so far; NaN alone stays */
			for (int64_t i = 0; i < w; i++)
				row[i] = row[i] == row[i] ? 0 : row[i];
			m = 0;
		} else {
			for (int64_t i = 0; i < w; i++)
				row[i] -= m;
			v_exp(row, row, w);
			a->top[from + r] = m;
		}
		for (; c + 16 <= w; c += 16)
			for (int l = 0; l < 16; l++)
				part[l] += row[c + l];
		for (int l = 0; l < 16; l++)
			add += part[l];
		for (; c < w; c++)
			add += row[c];
		keep = old == -INFINITY ? 0 : expf(old - m);
		a->sum[from + r] = a->sum[from + r] * keep + add;
		if (keep != 1)
			for (int64_t i = 0; i < a->width; i++)
				y[i] *= keep;
	}
}

static void finish_rows(const struct running *a, int64_t n)
{
	for (int64_t r = 0; r < n; r++) {
		float f = a->sum[r] > 0 ? 1 / a->sum[r] : a->sum[r] == 0 ? 0 : NAN;

		for (int64_t i = 0; i < a->width; i++)
			a->y[r * a->ldy + i] *= f;
	}
}

/* The keys that queries [i0, i0 + n) of sample b may see; none when *end <= *begin. */
static void key_range(const struct softmax_job *j, int64_t b, int64_t i0, int64_t n, int64_t *begin, int64_t *end)
{
	int64_t offset = offset_of(j, b);

	*begin = 0;
	*end = keys_of(j, b);
	if (j->causal && i0 + n + offset < *end)
		*end = i0 + n + offset;
	if (j->right >= 0 && i0 + n + offset + j->right < *end)
		*end = i0 + n + offset + j->right;
	if (j->left >= 0 && i0 + offset - j->left > 0)
		*begin = i0 + offset - j->left;
}

/* A block of queries of one head: products through BLAS. */
static void many_queries(const struct softmax_job *j, int64_t b, int64_t h, int64_t i0)
{
	int64_t n = j->q.t - i0 < QUERIES ? j->q.t - i0 : QUERIES, begin, end;
	const float *q = j->q.x + b * j->q.by_batch + h * j->q.by_head + i0 * j->q.by_time;
	const float *k = j->k.x + b * j->k.by_batch + h / j->R * j->k.by_head, *v = j->v.x + b * j->v.by_batch + h / j->R * j->v.by_head;
	float s[QUERIES * KEYS], top[QUERIES], sum[QUERIES];
	const struct running a = { .top = top, .sum = sum, .ldy = j->y.by_time, .width = j->v.width,
	                           .y = (float *)(uintptr_t)j->y.x + b * j->y.by_batch + h * j->y.by_head + i0 * j->y.by_time };

	start_rows(&a, n);
	key_range(j, b, i0, n, &begin, &end);
	for (int64_t j0 = begin; j0 < end; j0 += KEYS) {
		int64_t w = end - j0 < KEYS ? end - j0 : KEYS;

		blas_sgemm(false, true, n, w, j->q.width, j->scale, q, j->q.by_time, k + j0 * j->k.by_time, j->k.by_time, 0, s, w);
		if (j->softcap > 0)
			cap_scores(j, s, s, n * w);
		mask_tile(j, s, w, 1, b, h, i0, n, j0, w);
		absorb(s, n, w, &a, 0);
		blas_sgemm(false, false, n, j->v.width, w, 1, s, w, v + j0 * j->v.by_time, j->v.by_time, 1, a.y, a.ldy);
	}
	finish_rows(&a, n);
}

/*
 * All queries of all heads of one key head, FEW at most: the keys and values, which are the memory there is to read, are read once.
 * Memory bounds it.
 */
static void few_queries(const struct softmax_job *j, int64_t b, int64_t g)
{
	int64_t L = j->q.t, n = j->R * L, begin, end;
	const float *q = j->q.x + b * j->q.by_batch + g * j->R * j->q.by_head;
	const float *k = j->k.x + b * j->k.by_batch + g * j->k.by_head, *v = j->v.x + b * j->v.by_batch + g * j->v.by_head;
	float *y = (float *)(uintptr_t)j->y.x + b * j->y.by_batch + g * j->R * j->y.by_head;
	float s[FEW * KEYS], top[FEW], sum[FEW];

	key_range(j, b, 0, L, &begin, &end);
	for (int64_t r = 0; r < j->R; r++)
		start_rows(&(struct running){ top + r * L, sum + r * L, y + r * j->y.by_head, j->y.by_time, j->v.width }, L);
	for (int64_t j0 = begin; j0 < end; j0 += KEYS) {
		int64_t w = end - j0 < KEYS ? end - j0 : KEYS;

		for (int64_t c = 0; c < w; c++)
			for (int64_t r = 0; r < n; r++)
				s[r * w + c] = j->scale * dot(q + r / L * j->q.by_head + r % L * j->q.by_time, k + (j0 + c) * j->k.by_time, j->q.width);
		if (j->softcap > 0)
			cap_scores(j, s, s, n * w);
		for (int64_t r = 0; r < j->R; r++) {
			const struct running a = { top + r * L, sum + r * L, y + r * j->y.by_head, j->y.by_time, j->v.width };

			mask_tile(j, s + r * L * w, w, 1, b, g * j->R + r, 0, L, j0, w);
			absorb(s + r * L * w, L, w, &a, 0);
		}
		for (int64_t c = 0; c < w; c++)
			for (int64_t r = 0; r < n; r++) {
				float *restrict to = y + r / L * j->y.by_head + r % L * j->y.by_time, p = s[r * w + c];
				const float *restrict from = v + (j0 + c) * j->v.by_time;

				for (int64_t i = 0; i < j->v.width; i++)
					to[i] += p * from[i];
			}
	}
	for (int64_t r = 0; r < j->R; r++)
		finish_rows(&(struct running){ top + r * L, sum + r * L, y + r * j->y.by_head, j->y.by_time, j->v.width }, L);
}

static void softmax_piece(void *ctx, int64_t piece)
{
	const struct softmax_job *j = ctx;

	if (j->blocks)
		many_queries(j, piece / j->blocks / j->q.h, piece / j->blocks % j->q.h, piece % j->blocks * QUERIES);
	else
		few_queries(j, piece / j->k.h, piece % j->k.h);
}

/* ---- Keys and values with those of the past in front ---- */

struct cache_job {
	struct rows past, now;
	float *out; /* [B, H, P + S, W] */
};

static void cache_piece(void *ctx, int64_t piece)
{
	const struct cache_job *j = ctx;
	int64_t b = piece / j->now.h, h = piece % j->now.h, width = j->now.width;
	float *to = j->out + piece * (j->past.t + j->now.t) * width;
	const float *now = j->now.x + b * j->now.by_batch + h * j->now.by_head;

	if (j->past.t)
		memcpy(to, j->past.x + b * j->past.by_batch + h * j->past.by_head, (size_t)(j->past.t * width) * sizeof *to);
	for (int64_t t = 0; t < j->now.t; t++)
		memcpy(to + (j->past.t + t) * width, now + t * j->now.by_time, (size_t)width * sizeof *to);
}

/* All keys or all values: `now` itself when there is no past and no output for them, else in the output or scratch memory. */
static enum linnet_code all_rows(struct kernel_call *c, int past, int out, int64_t batch, struct rows *now)
{
	struct linnet_error *e = c->e;
	const struct tensor *before = past < c->nin ? c->in[past] : NULL;
	struct cache_job j = { .now = *now, .out = out < c->nout && c->out[out] ? c->out[out]->data : NULL };

	if (before)
		j.past = rows_of(before, now->h);
	if (!before && !j.out)
		return LINNET_OK;
	if (!j.out)
		TRY_NEW(j.out, c->scratch, batch * now->h * (j.past.t + now->t) * now->width);
	parallel_for(batch * now->h * (j.past.t + now->t) * now->width < 1 << 16 ? 1 : c->threads, batch * now->h, cache_piece, &j);
	now->x = j.out;
	now->t += j.past.t;
	now->by_time = now->width;
	now->by_head = now->t * now->width;
	now->by_batch = now->h * now->by_head;
	return LINNET_OK;
}

/* Floats, no scores wanted. */
static bool attention_ok(const struct kernel_call *c)
{
	const struct tensor *q = c->in[0], *mask = c->nin > 3 ? c->in[3] : NULL;
	int64_t precision = attr_get(c->op, c->attr, "softmax_precision")->i;

	for (int i = 0; i < c->nin && i < 6; i++)
		if (i != 3 && c->in[i] && (c->in[i]->dt != DT_FLOAT || (i < 3 && c->in[i]->rank != q->rank)))
			return false;
	return (c->nout < 4 || !c->out[3]) && c->out[0] && (!precision || precision == DT_FLOAT) &&
	       (!mask || ((mask->dt == DT_FLOAT || mask->dt == DT_BOOL) && mask->rank > 0));
}

/* What follows from heads and mask. */
static void complete(struct softmax_job *j)
{
	j->R = j->q.h / j->k.h;
	if (j->mask) {
		broadcast_strides(j->mask, 4, j->mask_stride);
		j->mask_keys = j->mask->d[j->mask->rank - 1];
	}
}

static enum linnet_code run_softmax(struct kernel_call *c, struct softmax_job *j, int64_t batch)
{
	complete(j);
	j->blocks = j->R * j->q.t <= FEW ? 0 : (j->q.t + QUERIES - 1) / QUERIES;
	parallel_for(j->k.t * j->q.t * j->q.h * j->q.width < 1 << 14 ? 1 : c->threads, batch * (j->blocks ? j->q.h * j->blocks : j->k.h),
	             softmax_piece, j);
	return LINNET_OK;
}

/* What inputs and attributes of Attention say; present_key: the output that all keys are, those of values behind it, or none. */
static enum linnet_code read_attention(struct kernel_call *c, int present_key, struct softmax_job *j)
{
	const struct attr *scale = attr_get(c->op, c->attr, "scale");
	const struct tensor *lengths = c->nin > 6 ? c->in[6] : NULL;
	int64_t batch = c->in[0]->d[0], *keys, *offset;
	struct linnet_error *e = c->e;

	*j = (struct softmax_job){ .q = rows_of(c->in[0], attr_get(c->op, c->attr, "q_num_heads")->i),
		                   .k = rows_of(c->in[1], attr_get(c->op, c->attr, "kv_num_heads")->i),
		                   .v = rows_of(c->in[2], attr_get(c->op, c->attr, "kv_num_heads")->i),
		                   .mask = c->nin > 3 ? c->in[3] : NULL,
		                   .left = attr_get(c->op, c->attr, "left_window_size")->i,
		                   .right = attr_get(c->op, c->attr, "right_window_size")->i,
		                   .softcap = (float)attr_get(c->op, c->attr, "softcap")->f,
		                   .causal = attr_get(c->op, c->attr, "is_causal")->i != 0 };
	j->past = c->nin > 4 && c->in[4] ? c->in[4]->d[2] : 0;
	j->scale = attr_given(scale) ? (float)scale->f : 1 / sqrtf((float)j->q.width);
	TRY(all_rows(c, 4, present_key, batch, &j->k));
	TRY(all_rows(c, 5, present_key + 1, batch, &j->v));
	if (lengths) {
		TRY_NEW(keys, c->scratch, batch);
		TRY_NEW(offset, c->scratch, batch);
		for (int64_t b = 0; b < batch; b++) {
			keys[b] = tensor_get_int(lengths, b);
			offset[b] = keys[b] - j->q.t;
			if (keys[b] < 0 || keys[b] > j->k.t)
				return fail(e, LINNET_EVALUE, "nonpad_kv_seqlen has %lld; expected 0 to %lld", (long long)keys[b], (long long)j->k.t);
		}
		j->keys = keys;
		j->offset = offset;
	}
	return LINNET_OK;
}

static enum linnet_code attention_run(struct kernel_call *c)
{
	struct softmax_job j;

	TRY(read_attention(c, 1, &j));
	j.y = rows_of(c->out[0], j.q.h);
	return c->out[0]->n ? run_softmax(c, &j, c->in[0]->d[0]) : LINNET_OK;
}

const struct fast FAST_KERNEL(attention) = { .name = "attention/tiled", .ok = attention_ok, .run = attention_run };

/* ---- The gradient of Attention ---- */

/*
 * A piece is some blocks of queries of one key head. Scores lie with a row for each key and a column for each query of the block: keys and
 * values are read where they are, maxima and sums of a query go over rows, and all products are of tile.h. Of a block, with P the weights [S, n]:
 *	P = exp(K Q^T - top);  dP = V dY^T;  f = 1 / sum P;  d = f sum P dP        (sums over keys)
 *	dV += f P dY;  dS = f P (dP - d);  dK += dS Q;  dQ^T += K^T dS
 * P and dP are kept for KEPT keys; where a block sees more, they are made twice. Nothing is as large as L x S, and a window costs what it shows.
 * Arithmetic bounds it.
 * Source: Dao, FlashAttention-2, 2023, section 3.1.2, which splits keys where this keeps them.
 */
enum { AG_MASK = 3, AG_PAST_KEY, AG_PAST_VALUE, AG_DY = 7, AG_DPRESENT_KEY, AG_DPRESENT_VALUE };
enum { KEPT = 1024, BACK_KEYS = 64, ENOUGH = 32 /* pieces */ };

struct grad_job {
	struct softmax_job f;           /* y: d_Y */
	struct rows dq;
	float *to[3];                   /* d_Q, d_K, d_V; NULL: not wanted */
	float *past[2], *dmask;
	struct rows now[2];             /* d_K, d_V as they lie */
	const float *present[2];        /* NULL, or gradients [B, Hkv, P + S, ..] to begin with */
	int64_t batch, n, nu, blocks;   /* queries a block, the same filled up, blocks a head */
	int64_t splits, per;            /* pieces a key head, blocks a piece */
	int64_t Dp, Ep, kept, reach;    /* widths filled up; keys kept of P; keys of a piece at most */
	int64_t free[3];                /* batches, key heads, splits whose pieces may run beside each other */
	float *sums;                    /* of pieces, where there are several a key head: [B, Hkv, splits, reach, Dp + Ep] */
	float *work;
	int64_t room;
	_Atomic int64_t next;
};

/* Working memory of a thread. */
struct back {
	const struct grad_job *j;
	float *Q, *Qt, *dY, *dYt, *dQt; /* [n, Dp], [D, nu], [n, Ep], [E, nu], [D, nu] */
	float *P, *dP, *bent;           /* [kept, nu] */
	float *top, *sum, *dot, *f;     /* [nu] */
	float *sums;                    /* [reach, Dp + Ep]: dK, then dV */
	int64_t b, h, lo;               /* sums begin with key lo */
};

static int64_t tile_up(int64_t n) { return (n + TILE_ROUND - 1) / TILE_ROUND * TILE_ROUND; }

/* x [n, up] = f rows, zeros behind; xt [width, nu] the same turned. */
static void load_block(const struct back *w, const struct rows *r, int64_t i0, int64_t n, int64_t up, float f, float *x, float *xt)
{
	const float *from = r->x + w->b * r->by_batch + w->h * r->by_head + i0 * r->by_time;

	memset(x, 0, (size_t)(w->j->n * up) * sizeof *x);
	for (int64_t i = 0; i < n; i++)
		for (int64_t d = 0; d < r->width; d++)
			x[i * up + d] = f * from[i * r->by_time + d];
	tile_turn(w->j->n, r->width, x, up, xt, w->j->nu);
}

/* P and dP of keys [j0, j0 + m). */
static void scores_back(const struct back *w, int64_t i0, int64_t n, int64_t j0, int64_t m)
{
	const struct grad_job *g = w->j;
	const struct softmax_job *j = &g->f;
	const float *k = j->k.x + w->b * j->k.by_batch + w->h / j->R * j->k.by_head + j0 * j->k.by_time;
	const float *v = j->v.x + w->b * j->v.by_batch + w->h / j->R * j->v.by_head + j0 * j->v.by_time;

	tile_product(m, g->nu, j->q.width, k, j->k.by_time, w->Qt, g->nu, w->P, g->nu);
	tile_product(m, g->nu, j->v.width, v, j->v.by_time, w->dYt, g->nu, w->dP, g->nu);
	if (j->softcap > 0)
		cap_scores(j, w->P, w->bent, m * g->nu);
	mask_tile(j, w->P, 1, g->nu, w->b, w->h, i0, n, j0, m);
}

/* P = exp(P - top), for queries nothing of which has been seen zeros */
static void weights_back(const struct back *w, int64_t m)
{
	int64_t nu = w->j->nu;

	for (int64_t l = 0; l < m; l++) {
		float *restrict p = w->P + l * nu;

		for (int64_t c = 0; c < nu; c++)
			p[c] -= w->top[c] == -INFINITY ? 0 : w->top[c];
		v_exp(p, p, nu);
	}
}

/* Take m keys into top, sum and dot; P becomes weights. */
static void absorb_back(const struct back *w, int64_t m)
{
	int64_t nu = w->j->nu;
	float *restrict top = w->top, *restrict sum = w->sum, *restrict dot = w->dot, *restrict old = w->f;

	memcpy(old, top, (size_t)nu * sizeof *old);
	for (int64_t l = 0; l < m; l++)
		for (int64_t c = 0; c < nu; c++)
			top[c] = w->P[l * nu + c] > top[c] ? w->P[l * nu + c] : top[c];
	for (int64_t c = 0; c < nu; c++)
		old[c] = old[c] == -INFINITY ? -INFINITY : old[c] - top[c];
	v_exp(old, old, nu);
	for (int64_t c = 0; c < nu; c++) {
		sum[c] *= old[c];
		dot[c] *= old[c];
	}
	weights_back(w, m);
	for (int64_t l = 0; l < m; l++)
		for (int64_t c = 0; c < nu; c++) {
			sum[c] += w->P[l * nu + c];
			dot[c] += w->P[l * nu + c] * w->dP[l * nu + c];
		}
}

/* From the weights of keys [j0, j0 + m) to the sums. */
static void keys_back(const struct back *w, int64_t i0, int64_t n, int64_t j0, int64_t m)
{
	const struct grad_job *g = w->j;
	const struct softmax_job *j = &g->f;
	const int64_t *st = j->mask_stride;
	const float *k = j->k.x + w->b * j->k.by_batch + w->h / j->R * j->k.by_head + j0 * j->k.by_time, one = 1;
	int64_t nu = g->nu;

	for (int64_t l0 = 0; l0 < m; l0 += BACK_KEYS) {
		int64_t rows = m - l0 < BACK_KEYS ? m - l0 : BACK_KEYS, at = j0 + l0 - w->lo;
		float *restrict p = w->P + l0 * nu, *restrict dp = w->dP + l0 * nu;

		for (int64_t l = 0; l < rows; l++)
			for (int64_t c = 0; c < nu; c++) {
				p[l * nu + c] *= w->f[c];
				dp[l * nu + c] = p[l * nu + c] * (dp[l * nu + c] - w->dot[c]);
			}
		for (int64_t c = 0; c < n && g->dmask; c++)
			for (int64_t l = 0; l < rows && j0 + l0 + l < j->mask_keys; l++)
				g->dmask[w->b * st[0] + w->h * st[1] + (i0 + c) * st[2] + j0 + l0 + l] += dp[l * nu + c];
		for (int64_t i = 0; i < rows * nu && j->softcap > 0; i++)
			dp[i] *= 1 - w->bent[l0 * nu + i] * w->bent[l0 * nu + i];
		if (g->to[1] || g->past[0])
			tile_more(rows, g->Dp, n, dp, nu, w->Q, g->Dp, w->sums + at * g->Dp, g->Dp);
		if (g->to[2] || g->past[1])
			tile_more(rows, g->Ep, n, p, nu, w->dY, g->Ep, w->sums + g->reach * g->Dp + at * g->Ep, g->Ep);
		if (g->to[0])
			tile_add(j->q.width, nu, rows, k + l0 * j->k.by_time, j->k.by_time, dp, nu, &one, 0, w->dQt, nu, w->dQt, nu);
	}
}

static void block_back(const struct back *w, int64_t block)
{
	const struct grad_job *g = w->j;
	const struct softmax_job *j = &g->f;
	int64_t i0 = block * g->n, n = j->q.t - i0 < g->n ? j->q.t - i0 : g->n, begin, end;
	float *to = g->to[0] ? g->to[0] + w->b * g->dq.by_batch + w->h * g->dq.by_head + i0 * g->dq.by_time : NULL;

	load_block(w, &j->q, i0, n, g->Dp, j->scale, w->Q, w->Qt);
	load_block(w, &j->y, i0, n, g->Ep, 1, w->dY, w->dYt);
	memset(w->dQt, 0, (size_t)(j->q.width * g->nu) * sizeof *w->dQt);
	memset(w->sum, 0, (size_t)g->nu * sizeof *w->sum);
	memset(w->dot, 0, (size_t)g->nu * sizeof *w->dot);
	for (int64_t c = 0; c < g->nu; c++)
		w->top[c] = -INFINITY;
	key_range(j, w->b, i0, n, &begin, &end);
	for (int64_t j0 = begin; j0 < end; j0 += g->kept) {
		int64_t m = end - j0 < g->kept ? end - j0 : g->kept;

		scores_back(w, i0, n, j0, m);
		absorb_back(w, m);
	}
	for (int64_t c = 0; c < g->nu; c++) {
		w->f[c] = w->sum[c] == 0 ? 0 : 1 / w->sum[c];
		w->dot[c] *= w->f[c];
	}
	for (int64_t j0 = begin; j0 < end; j0 += g->kept) {
		int64_t m = end - j0 < g->kept ? end - j0 : g->kept;

		if (end - begin > g->kept) {
			scores_back(w, i0, n, j0, m);
			weights_back(w, m);
		}
		keys_back(w, i0, n, j0, m);
	}
	for (int64_t i = 0; i < n && to; i++)
		for (int64_t d = 0; d < j->q.width; d++)
			to[i * g->dq.by_time + d] = j->scale * w->dQt[d * g->nu + i];
}

/* The keys that the blocks of a piece see. */
static void reach_of(const struct grad_job *g, int64_t b, int64_t split, int64_t *lo, int64_t *hi)
{
	int64_t first = split * g->per * g->n, last = (split + 1) * g->per * g->n;

	if (last > g->f.q.t)
		last = g->f.q.t;
	key_range(&g->f, b, first, last - first, lo, hi);
	if (*hi < *lo)
		*hi = *lo;
}

/* d_K and d_V of a key head: the pieces' sums, in their order, behind what the cache's gradient says. */
static void put_keys(const struct grad_job *g, int64_t b, int64_t h, const float *sums)
{
	const struct softmax_job *j = &g->f;
	const int64_t width[2] = { j->q.width, j->v.width }, up[2] = { g->Dp, g->Ep };

	for (int i = 0; i < 2; i++)
		for (int64_t t = 0; t < j->k.t; t++) {
			const struct rows *r = &g->now[i];
			const float *first = g->present[i] ? g->present[i] + ((b * j->k.h + h) * j->k.t + t) * width[i] : NULL;
			float *restrict to = t < j->past ? g->past[i] ? g->past[i] + ((b * j->k.h + h) * j->past + t) * width[i] : NULL
			                     : g->to[1 + i] ? g->to[1 + i] + b * r->by_batch + h * r->by_head + (t - j->past) * r->by_time : NULL;

			for (int64_t d = 0; d < width[i] && to; d++)
				to[d] = first ? first[d] : 0;
			for (int64_t split = 0; split < g->splits && to; split++) {
				const float *x = sums + split * g->reach * (g->Dp + g->Ep) + (i ? g->reach * g->Dp : 0);
				int64_t lo, hi;

				reach_of(g, b, split, &lo, &hi);
				for (int64_t d = 0; d < width[i] && lo <= t && t < hi; d++)
					to[d] += x[(t - lo) * up[i] + d];
			}
		}
}

static void piece_back(struct back *w, int64_t b, int64_t g, int64_t split)
{
	const struct grad_job *j = w->j;
	float *own = w->sums;
	int64_t hi;

	w->b = b;
	reach_of(j, b, split, &w->lo, &hi);
	if (j->splits > 1)
		w->sums = j->sums + ((b * j->f.k.h + g) * j->splits + split) * j->reach * (j->Dp + j->Ep);
	memset(w->sums, 0, (size_t)((hi - w->lo) * j->Dp) * sizeof *w->sums);
	memset(w->sums + j->reach * j->Dp, 0, (size_t)((hi - w->lo) * j->Ep) * sizeof *w->sums);
	for (w->h = g * j->f.R; w->h < (g + 1) * j->f.R; w->h++)
		for (int64_t block = split * j->per; block < (split + 1) * j->per && block < j->blocks; block++)
			block_back(w, block);
	if (j->splits == 1)
		put_keys(j, b, g, w->sums);
	w->sums = own;
}

/* Pieces that add to the same gradients of a mask one after the other, others beside each other. */
static void thread_back(void *ctx, int64_t thread)
{
	struct grad_job *g = ctx;
	const int64_t all[3] = { g->batch, g->f.k.h, g->splits };
	struct back w = { .j = g };
	int64_t used = 0;
	struct {
		float **to;
		int64_t n;
	} part[] = { { &w.Q, g->n * g->Dp }, { &w.Qt, g->f.q.width * g->nu }, { &w.dY, g->n * g->Ep }, { &w.dYt, g->f.v.width * g->nu },
		     { &w.dQt, g->f.q.width * g->nu }, { &w.P, g->kept * g->nu }, { &w.dP, g->kept * g->nu },
		     { &w.bent, g->f.softcap > 0 ? g->kept * g->nu : 0 }, { &w.top, g->nu }, { &w.sum, g->nu }, { &w.dot, g->nu }, { &w.f, g->nu },
		     { &w.sums, g->splits > 1 ? 0 : g->reach * (g->Dp + g->Ep) } };

	for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
		*part[i].to = g->work ? g->work + thread * g->room + used : NULL;
		used += tile_up(part[i].n);
	}
	if (!g->work) { /* only asked how much there is */
		g->room = used;
		return;
	}
	for (int64_t k; (k = atomic_fetch_add(&g->next, 1)) < g->free[0] * g->free[1] * g->free[2];) {
		int64_t at[3] = { k / g->free[2] / g->free[1], k / g->free[2] % g->free[1], k % g->free[2] }, end[3];

		for (int i = 0; i < 3; i++)
			end[i] = g->free[i] == all[i] ? at[i] + 1 : all[i];
		for (int64_t b = at[0]; b < end[0]; b++)
			for (int64_t h = at[1]; h < end[1]; h++)
				for (int64_t split = at[2]; split < end[2]; split++)
					piece_back(&w, b, h, split);
	}
}

static void add_pieces(void *ctx, int64_t head)
{
	const struct grad_job *g = ctx;

	put_keys(g, head / g->f.k.h, head % g->f.k.h, g->sums + head * g->splits * g->reach * (g->Dp + g->Ep));
}

/* Blocks of queries as wide as a window makes worth while; pieces enough for some threads, of four blocks at least. */
static void cut_back(struct grad_job *g)
{
	const struct softmax_job *j = &g->f;
	int64_t span = j->left >= 0 && (j->causal || j->right >= 0) ? j->left + 1 + (j->causal ? 0 : j->right) : INT64_MAX, pieces, lo, hi;

	g->n = span < 32 ? 16 : span < 64 ? 32 : QUERIES;
	g->nu = g->n;
	g->blocks = (j->q.t + g->n - 1) / g->n;
	for (int i = 0; i < 2; i++)
		g->free[i] = g->dmask && !j->mask_stride[i] ? 1 : i ? j->k.h : g->batch;
	pieces = g->free[0] * g->free[1];
	g->splits = pieces < ENOUGH ? (ENOUGH + pieces - 1) / pieces : 1;
	if (g->splits > g->blocks * g->n / (4 * QUERIES))
		g->splits = g->blocks * g->n / (4 * QUERIES);
	g->splits = g->splits > 1 ? g->splits : 1;
	g->per = (g->blocks + g->splits - 1) / g->splits;
	g->splits = (g->blocks + g->per - 1) / g->per;
	g->free[2] = g->dmask && !j->mask_stride[2] ? 1 : g->splits;
	for (int64_t b = 0; b < g->batch; b++)
		for (int64_t split = 0; split < g->splits; split++) {
			reach_of(g, b, split, &lo, &hi);
			if (hi - lo > g->reach)
				g->reach = hi - lo;
		}
	g->kept = g->reach < KEPT ? g->reach : KEPT;
}

static const struct tensor *input(const struct kernel_call *c, int i) { return i < c->nin ? c->in[i] : NULL; }

static bool wanted(const struct kernel_call *c, int i) { return i < c->nout && c->out[i]; }

static float *output(const struct kernel_call *c, int i) { return wanted(c, i) ? c->out[i]->data : NULL; }

/* Floats; something to sum. */
static bool attention_grad_ok(const struct kernel_call *c)
{
	const struct tensor *q = c->in[0], *mask = input(c, AG_MASK);
	int64_t precision = attr_get(c->op, c->attr, "softmax_precision")->i;

	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && i != AG_MASK && i != 6 && (c->in[i]->dt != DT_FLOAT || (i < 3 && c->in[i]->rank != q->rank)))
			return false;
	for (int i = 0; i < 3; i++)
		if (!c->in[i]->n)
			return false;
	return input(c, AG_DY) && (!precision || precision == DT_FLOAT) &&
	       (!mask || ((mask->dt == DT_FLOAT || mask->dt == DT_BOOL) && mask->rank > 0));
}

static enum linnet_code attention_grad_run(struct kernel_call *c)
{
	struct grad_job g = { .batch = c->in[0]->d[0], .dmask = output(c, AG_MASK) };
	struct linnet_error *e = c->e;
	int64_t threads;

	TRY(read_attention(c, c->nout, &g.f));
	g.f.y = rows_of(c->in[AG_DY], g.f.q.h);
	g.dq = rows_of(c->in[0], g.f.q.h);
	for (int i = 0; i < 3; i++)
		g.to[i] = output(c, i);
	for (int i = 0; i < 2; i++) {
		g.now[i] = rows_of(c->in[1 + i], g.f.k.h);
		g.past[i] = output(c, AG_PAST_KEY + i);
		g.present[i] = input(c, AG_DPRESENT_KEY + i) ? c->in[AG_DPRESENT_KEY + i]->data : NULL;
	}
	if (g.dmask)
		memset(g.dmask, 0, c->out[AG_MASK]->bytes);
	complete(&g.f);
	cut_back(&g);
	g.Dp = tile_up(g.f.q.width);
	g.Ep = tile_up(g.f.v.width);
	thread_back(&g, 0);
	threads = c->threads;
	if (threads > g.free[0] * g.free[1] * g.free[2])
		threads = g.free[0] * g.free[1] * g.free[2];
	if (threads < 1 || g.f.k.t * g.f.q.t * g.f.q.h * g.f.q.width < 1 << 14)
		threads = 1;
	if (g.splits > 1)
		TRY_NEW(g.sums, c->scratch, g.batch * g.f.k.h * g.splits * g.reach * (g.Dp + g.Ep));
	TRY_NEW(g.work, c->scratch, threads * g.room);
	parallel_for((int)threads, threads, thread_back, &g);
	if (g.splits > 1)
		parallel_for((int)threads, g.batch * g.f.k.h, add_pieces, &g);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(attention_grad) = { .name = "attention_grad/tiled", .ok = attention_grad_ok, .run = attention_grad_run };

/* ---- com.microsoft.GroupQueryAttention on a cache of floats ---- */

enum { GQ_QUERY, GQ_KEY, GQ_VALUE, GQ_PAST_KEY, GQ_PAST_VALUE, GQ_LAST, GQ_TOTAL, GQ_COS, GQ_SIN, GQ_POSITIONS, GQ_BIAS, GQ_SINK };

static float scale_of(const struct kernel_call *c, int64_t width)
{
	const struct attr *scale = attr_get(c->op, c->attr, "scale");

	return attr_given(scale) && scale->f != 0 ? (float)scale->f : 1 / sqrtf((float)width);
}

/* Rows that are turned on their way: row t of sample b by the angles of place[b rows + t], where that is not negative. */
struct turning {
	const float *cosine, *sine; /* [positions, half] */
	const int64_t *place;
	int64_t rows, half;
	bool interleaved;
};

static void turn_row(const struct turning *a, int64_t b, int64_t t, const float *restrict x, int64_t width, float *restrict y)
{
	int64_t place = a->half ? a->place[b * a->rows + t] : -1, n = a->half;
	const float *cosine = a->cosine + place * n, *sine = a->sine + place * n;

	if (place < 0) {
		memcpy(y, x, (size_t)width * sizeof *y);
		return;
	}
	if (a->interleaved)
		for (int64_t i = 0; i < n; i++) {
			y[2 * i] = x[2 * i] * cosine[i] - x[2 * i + 1] * sine[i];
			y[2 * i + 1] = x[2 * i] * sine[i] + x[2 * i + 1] * cosine[i];
		}
	else
		for (int64_t i = 0; i < n; i++) {
			y[i] = x[i] * cosine[i] - x[i + n] * sine[i];
			y[i + n] = x[i] * sine[i] + x[i + n] * cosine[i];
		}
	memcpy(y + 2 * n, x + 2 * n, (size_t)(width - 2 * n) * sizeof *y);
}

struct place_job {
	struct rows now;
	const struct tensor *past;
	const struct turning *turn; /* NULL: as they are */
	float *to;                  /* [B, H, rows, W] */
	int64_t rows;
	const int64_t *before, *fresh; /* by sample: rows of the past, of `now`; NULL: none, all */
};

/* One head of one sample: its past, its new rows, zeros behind them. */
static void place_piece(void *ctx, int64_t piece)
{
	const struct place_job *j = ctx;
	int64_t b = piece / j->now.h, h = piece % j->now.h, w = j->now.width, before = j->before ? j->before[b] : 0;
	int64_t fresh = j->fresh ? j->fresh[b] : j->now.t;
	const float *now = j->now.x + b * j->now.by_batch + h * j->now.by_head;
	float *to = j->to + piece * j->rows * w;

	if (before)
		memcpy(to, (const float *)j->past->data + piece * j->past->d[2] * w, (size_t)(before * w) * sizeof *to);
	for (int64_t t = 0; t < fresh; t++)
		if (j->turn)
			turn_row(j->turn, b, t, now + t * j->now.by_time, w, to + (before + t) * w);
		else
			memcpy(to + (before + t) * w, now + t * j->now.by_time, (size_t)w * sizeof *to);
	memset(to + (before + fresh) * w, 0, (size_t)((j->rows - before - fresh) * w) * sizeof *to);
}

/* `now` becomes what is placed, in `to` or, when that is NULL, in scratch memory. */
static enum linnet_code place(struct kernel_call *c, struct place_job *j, int64_t batch, struct rows *now)
{
	struct linnet_error *e = c->e;

	j->now = *now;
	if (!j->to)
		TRY_NEW(j->to, c->scratch, batch * now->h * j->rows * now->width);
	parallel_for(batch * now->h * j->rows * now->width < 1 << 16 ? 1 : c->threads, batch * now->h, place_piece, j);
	*now = (struct rows){ j->to, now->h, j->rows, now->width, now->h * j->rows * now->width, j->rows * now->width, now->width };
	return LINNET_OK;
}

/* Floats, no window cache, no lengths of queries, no sinks, no norms, no scores wanted. */
static bool group_query_ok(const struct kernel_call *c)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && (i > GQ_BIAS || (i != GQ_LAST && i != GQ_TOTAL && i != GQ_POSITIONS && c->in[i]->dt != DT_FLOAT)))
			return false;
	return c->out[0] && !wanted(c, 3) && !attr_get(c->op, c->attr, "sliding_window_cache")->i &&
	       attr_get(c->op, c->attr, "smooth_softmax")->i <= 0;
}

/* How samples stand: of keys[b] keys, offset[b] come before the first query, before[b] are cached. False: not as they should. */
static bool group_query_lengths(const struct kernel_call *c, int64_t length, int64_t total, int64_t *keys, int64_t *offset, int64_t *before,
                                int64_t *fresh)
{
	int64_t batch = c->in[GQ_QUERY]->d[0], s = c->in[GQ_QUERY]->d[1], room = input(c, GQ_PAST_KEY) ? c->in[GQ_PAST_KEY]->d[2] : 0;

	if (c->in[GQ_LAST]->n != batch)
		return false;
	for (int64_t b = 0; b < batch; b++) {
		int64_t t = tensor_get_int(c->in[GQ_LAST], b) + 1, queries = s < t ? s : t;

		if (t < 0 || t > total)
			return false;
		keys[b] = t;
		offset[b] = t - queries;
		fresh[b] = length < queries ? length : queries;
		before[b] = t - fresh[b];
		if (before[b] > room)
			return false;
	}
	return true;
}

/* Places of all tokens, -1 of those behind the last; false when one has no angles. In the first call position_ids has one, the first's. */
static bool group_query_places(const struct kernel_call *c, int64_t total, const int64_t *offset, const int64_t *keys, int64_t *at)
{
	const struct tensor *ids = input(c, GQ_POSITIONS);
	int64_t batch = c->in[GQ_QUERY]->d[0], s = c->in[GQ_QUERY]->d[1], positions = c->in[GQ_COS]->d[0];

	for (int64_t b = 0; b < batch; b++)
		for (int64_t t = 0; t < s; t++) {
			int64_t place = offset[b] + t;

			if (ids && ids->n)
				place = total == s ? tensor_get_int(ids, 0) + t : tensor_get_int(ids, b * ids->d[1] + t);
			if (offset[b] + t >= keys[b])
				place = -1;
			else if (place < 0 || place >= positions)
				return false;
			at[b * s + t] = place;
		}
	return true;
}

static enum linnet_code group_query_run(struct kernel_call *c)
{
	const struct tensor *q = c->in[GQ_QUERY], *k = input(c, GQ_KEY), *bias = input(c, GQ_BIAS);
	int64_t n = attr_get(c->op, c->attr, "num_heads")->i, nkv = attr_get(c->op, c->attr, "kv_num_heads")->i, batch = q->d[0], s = q->d[1];
	int64_t total = tensor_get_int(c->in[GQ_TOTAL], 0), window = attr_get(c->op, c->attr, "local_window_size")->i;
	int64_t width = k ? q->d[2] / n : q->d[2] / (n + 2 * nkv), length = k ? k->d[1] : s, step = k ? k->d[2] : q->d[2];
	int64_t *keys, *offset, *before, *fresh, *at;
	struct softmax_job j = { .mask = bias, .left = window > 0 ? window - 1 : -1, .right = -1,
	                         .softcap = (float)attr_get(c->op, c->attr, "softcap")->f, .scale = scale_of(c, width),
	                         .causal = attr_get(c->op, c->attr, "causal")->i != 0 };
	struct turning turn = { .rows = s };
	struct place_job side[2];
	struct linnet_error *e = c->e;

	TRY_NEW(keys, c->scratch, batch);
	TRY_NEW(offset, c->scratch, batch);
	TRY_NEW(before, c->scratch, batch);
	TRY_NEW(fresh, c->scratch, batch);
	TRY_NEW(at, c->scratch, batch * s);
	if (!group_query_lengths(c, length, total, keys, offset, before, fresh))
		return c->op->kernel(c); /* which says so */
	if (attr_get(c->op, c->attr, "do_rotary")->i) {
		if (!group_query_places(c, total, offset, keys, at))
			return c->op->kernel(c);
		turn = (struct turning){ c->in[GQ_COS]->data, c->in[GQ_SIN]->data, at, s, c->in[GQ_COS]->d[1],
			                 attr_get(c->op, c->attr, "rotary_interleaved")->i != 0 };
	}
	j.keys = keys;
	j.offset = offset;
	j.q = (struct rows){ q->data, n, s, width, s * q->d[2], width, q->d[2] };
	j.k = (struct rows){ k ? k->data : j.q.x + n * width, nkv, length, width, length * step, width, step };
	j.v = j.k;
	j.v.x = k ? c->in[GQ_VALUE]->data : j.k.x + nkv * width;
	for (int i = 0; i < 2; i++) {
		side[i] = (struct place_job){ .past = input(c, GQ_PAST_KEY + i), .turn = !i && turn.half ? &turn : NULL, .rows = total, .before = before,
			                      .fresh = fresh };
		if (wanted(c, 1 + i)) {
			side[i].to = c->out[1 + i]->data;
			side[i].rows = c->out[1 + i]->d[2];
		}
		TRY(place(c, &side[i], batch, i ? &j.v : &j.k));
	}
	if (turn.half)
		TRY(place(c, &(struct place_job){ .turn = &turn, .rows = s }, batch, &j.q));
	j.y = rows_of(c->out[0], n);
	if (!c->out[0]->n)
		return LINNET_OK;
	return run_softmax(c, &j, batch);
}

const struct fast FAST_KERNEL(group_query) = { .name = "attention/tiled", .ok = group_query_ok, .run = group_query_run };

/* ---- com.microsoft.MultiHeadAttention, Attention, QAttention ---- */

enum { MH_BIAS = 3, MH_MASK, MH_SCORE_BIAS, MH_PAST_KEY, MH_PAST_VALUE, MH_USED, MH_BEAMS };
enum { AT_WEIGHTS = 1, AT_BIAS, AT_MASK, AT_PAST, AT_SCORE_BIAS, AT_USED };
enum { QA_WEIGHTS = 1, QA_BIAS, QA_SCALE, QA_WEIGHT_SCALE, QA_MASK, QA_ZERO, QA_WEIGHT_ZERO, QA_PAST };

/* Where keys begin and end, [B] or [2 B] or [3 B + 2], or 1 where they are, [B, T] or [B, S, T]; not beside a bias of scores. */
static bool mask_ok(const struct kernel_call *c, const struct tensor *mask, const struct tensor *bias, int64_t queries, int64_t keys)
{
	bool causal = attr_get(c->op, c->attr, "unidirectional")->i != 0;

	if (mask && (bias || mask->dt != DT_INT32 || mask->rank < 1 || mask->rank > 3))
		return false;
	/* minus infinity from a bias and the lowest float of a causal mask are not the same when nothing else is seen */
	return !causal || (!bias && queries == keys);
}

/* The same as what is added to scores, [B, 1, S or 1, T]. Where a query sees hidden keys alone nothing is: what all have in common cancels,
 * and would take digits from the scores. */
static enum linnet_code mask_numbers(struct kernel_call *c, const struct softmax_job *j, const struct tensor *mask, int64_t batch,
                                     const struct tensor **out)
{
	float filter = (float)attr_get(c->op, c->attr, "mask_filter_value")->f, *x;
	int64_t keys = j->k.t, rows = j->causal || mask->rank == 3 ? j->q.t : 1;
	const int32_t *m = mask->data;
	struct tensor *t;

	TRY(tensor_new(c->scratch, DT_FLOAT, 4, (int64_t[]){ batch, 1, rows, keys }, &t, c->e));
	x = t->data;
	for (int64_t i = 0; i < batch * rows; i++, x += keys) {
		int64_t b = i / rows, seen = j->causal ? j->past + i % rows + 1 : keys;
		const int32_t *row = m + (mask->rank == 3 ? i : b) * keys;
		bool any = false;

		for (int64_t k = 0; k < keys; k++) {
			bool shown = mask->rank > 1 ? row[k] > 0 : k < m[b] && (mask->n != 2 * batch || k >= m[batch + b]);

			any |= shown && k < seen;
			x[k] = shown ? 0 : filter;
		}
		if (!any)
			memset(x, 0, (size_t)keys * sizeof *x);
	}
	*out = t;
	return LINNET_OK;
}

/* bias: [H W] is added to all rows, which are then in scratch memory. */
static enum linnet_code add_bias(struct kernel_call *c, const float *bias, int64_t batch, struct rows *r)
{
	struct linnet_error *e = c->e;
	float *x, *to;

	TRY_NEW(x, c->scratch, batch * r->t * r->h * r->width);
	to = x;
	for (int64_t i = 0; i < batch * r->t; i++)
		for (int64_t h = 0; h < r->h; h++, to += r->width) {
			const float *from = r->x + i / r->t * r->by_batch + h * r->by_head + i % r->t * r->by_time;

			for (int64_t l = 0; l < r->width; l++)
				to[l] = from[l] + bias[h * r->width + l];
		}
	*r = (struct rows){ x, r->h, r->t, r->width, r->t * r->h * r->width, r->width, r->h * r->width };
	return LINNET_OK;
}

/* Queries, new keys and values are there; past and present where all_rows() has them. */
static enum linnet_code attend_heads(struct kernel_call *c, struct softmax_job *j, const struct tensor *mask, const struct tensor *bias,
                                     int64_t batch, int past, int present)
{
	j->past = past < c->nin && c->in[past] ? c->in[past]->d[2] : 0;
	j->left = j->right = -1;
	j->scale = scale_of(c, j->q.width);
	j->causal = attr_get(c->op, c->attr, "unidirectional")->i != 0;
	TRY(all_rows(c, past, present, batch, &j->k));
	TRY(all_rows(c, past + 1, present + 1, batch, &j->v));
	j->mask = bias;
	if (mask)
		TRY(mask_numbers(c, j, mask, batch, &j->mask));
	j->y = rows_of(c->out[0], j->q.h);
	return c->out[0]->n ? run_softmax(c, j, batch) : LINNET_OK;
}

/* Operands one by one, of rank 3, or keys and values of rank 4. */
static bool multi_head_ok(const struct kernel_call *c)
{
	const struct tensor *q = c->in[0], *k = input(c, 1), *v = input(c, 2), *mask = input(c, MH_MASK), *past = input(c, MH_PAST_KEY);
	int64_t length;

	if (!k || !v || q->rank != 3 || k->rank > 4 || k->rank != v->rank || input(c, MH_USED) || input(c, MH_BEAMS) || wanted(c, 3))
		return false;
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && i != MH_MASK && c->in[i]->dt != DT_FLOAT)
			return false;
	length = k->d[k->rank == 4 ? 2 : 1];
	if (mask && mask->rank > 1 && mask->d[mask->rank - 1] != length + (past ? past->d[2] : 0))
		return false;
	return c->out[0] && mask_ok(c, mask, input(c, MH_SCORE_BIAS), q->d[1], length);
}

static enum linnet_code multi_head_run(struct kernel_call *c)
{
	int64_t n = attr_get(c->op, c->attr, "num_heads")->i, batch = c->in[0]->d[0];
	struct softmax_job j = { .q = rows_of(c->in[0], n), .k = rows_of(c->in[1], n), .v = rows_of(c->in[2], n) };
	const float *bias = input(c, MH_BIAS) ? input(c, MH_BIAS)->data : NULL;

	if (bias) {
		TRY(add_bias(c, bias, batch, &j.q));
		if (c->in[1]->rank == 3) {
			TRY(add_bias(c, bias + n * j.q.width, batch, &j.k));
			TRY(add_bias(c, bias + 2 * n * j.q.width, batch, &j.v));
		}
	}
	return attend_heads(c, &j, input(c, MH_MASK), input(c, MH_SCORE_BIAS), batch, MH_PAST_KEY, 1);
}

const struct fast FAST_KERNEL(multi_head) = { .name = "attention/tiled", .ok = multi_head_ok, .run = multi_head_run };

extern const struct fast FAST_KERNEL(matmul);
extern const struct fast FAST_KERNEL(integer_matmul);

/* What attention on projected rows admits; queries are as many as keys. */
static bool packed_ok(const struct kernel_call *c, const struct tensor *mask, const struct tensor *past, const struct tensor *bias)
{
	int64_t length = c->in[0]->d[1];

	if (attr_get(c->op, c->attr, "do_rotary")->i || (past && past->dt != DT_FLOAT) || (wanted(c, 1) && c->out[1]->dt != DT_FLOAT))
		return false;
	if (mask && mask->rank > 1 && mask->d[mask->rank - 1] != length + (past ? past->d[3] : 0))
		return false;
	return c->out[0] && c->in[0]->rank == 3 && mask_ok(c, mask, bias, length, length);
}

/* Rows qkv: [B, S, D + D + D_v]; past and present: [2, B, N, P or T, H] */
static enum linnet_code attend_packed(struct kernel_call *c, const struct tensor *qkv, int64_t value_width, const struct tensor *mask,
                                      const struct tensor *past, const struct tensor *bias)
{
	int64_t n = attr_get(c->op, c->attr, "num_heads")->i, batch = qkv->d[0], s = qkv->d[1], row = qkv->d[2], d = (row - value_width) / 2;
	const struct tensor *in[2] = { NULL, NULL };
	struct tensor side[4], *out[3] = { c->out[0], NULL, NULL };
	struct softmax_job j = { .q = { qkv->data, n, s, d / n, s * row, d / n, row } };
	struct kernel_call inner = *c;

	j.k = j.v = j.q;
	j.k.x += d;
	j.v.x += 2 * d;
	j.v.width = j.v.by_head = value_width / n;
	for (int i = 0; i < 4; i++) {
		const struct tensor *both = i < 2 ? past : wanted(c, 1) ? c->out[1] : NULL;

		if (!both)
			continue;
		side[i] = *both;
		side[i].rank = 4;
		side[i].n = both->n / 2;
		side[i].bytes = both->bytes / 2;
		memmove(side[i].d, both->d + 1, 4 * sizeof *both->d);
		if (i % 2)
			side[i].data = (float *)both->data + both->n / 2;
		if (i < 2)
			in[i] = &side[i];
		else
			out[i - 1] = &side[i];
	}
	inner.nin = 2;
	inner.in = in;
	inner.nout = 3;
	inner.out = out;
	return attend_heads(&inner, &j, mask, bias, batch, 0, 1);
}

/* A mask of one column says nothing. */
static const struct tensor *telling(const struct tensor *mask) { return mask && mask->rank == 2 && mask->d[1] == 1 ? NULL : mask; }

static bool packed_attention_ok(const struct kernel_call *c)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && i != AT_MASK && c->in[i]->dt != DT_FLOAT)
			return false;
	return !input(c, AT_USED) && !attr_get(c->op, c->attr, "past_present_share_buffer")->i &&
	       packed_ok(c, telling(input(c, AT_MASK)), input(c, AT_PAST), input(c, AT_SCORE_BIAS));
}

static enum linnet_code packed_attention_run(struct kernel_call *c)
{
	const struct attr *sizes = attr_get(c->op, c->attr, "qkv_hidden_sizes");
	const struct tensor *x = c->in[0], *w = c->in[AT_WEIGHTS], *bias = input(c, AT_BIAS);
	struct kernel_call inner = *c;
	struct tensor *qkv;

	TRY(tensor_new(c->scratch, DT_FLOAT, 3, (int64_t[]){ x->d[0], x->d[1], w->d[1] }, &qkv, c->e));
	inner.nin = 2;
	inner.nout = 1;
	inner.out = &qkv;
	TRY(FAST_KERNEL(matmul).run(&inner));
	for (int64_t r = 0; bias && r < qkv->n / (w->d[1] ? w->d[1] : 1); r++)
		for (int64_t l = 0; l < w->d[1]; l++)
			((float *)qkv->data)[r * w->d[1] + l] += ((const float *)bias->data)[l];
	return attend_packed(c, qkv, sizes->n ? sizes->ints[2] : w->d[1] / 3, telling(input(c, AT_MASK)), input(c, AT_PAST),
	                     input(c, AT_SCORE_BIAS));
}

const struct fast FAST_KERNEL(packed_attention) = { .name = "attention/tiled", .ok = packed_attention_ok, .run = packed_attention_run };

/* The projection as MatMulIntegerToFloat. */
static void quantised_projection(const struct kernel_call *c, struct kernel_call *inner, const struct tensor *in[7], struct tensor **out)
{
	static const int from[7] = { 0, QA_WEIGHTS, QA_SCALE, QA_WEIGHT_SCALE, QA_ZERO, QA_WEIGHT_ZERO, QA_BIAS };

	*inner = *c;
	for (int i = 0; i < 7; i++)
		in[i] = input(c, from[i]);
	inner->op = op_newest("com.microsoft", "MatMulIntegerToFloat");
	inner->nin = 7;
	inner->in = in;
	inner->nout = 1;
	inner->out = out;
}

static bool quantised_attention_ok(const struct kernel_call *c)
{
	const struct tensor *in[7], *x = c->in[0], *w = c->in[QA_WEIGHTS];
	struct tensor qkv = { .dt = DT_FLOAT, .rank = 3 }, *out = &qkv;
	struct kernel_call inner;

	quantised_projection(c, &inner, in, &out);
	return x->rank == 3 && w->rank == 2 && x->n && w->n && FAST_KERNEL(integer_matmul).ok(&inner) &&
	       packed_ok(c, telling(input(c, QA_MASK)), input(c, QA_PAST), NULL);
}

static enum linnet_code quantised_attention_run(struct kernel_call *c)
{
	const struct tensor *in[7], *x = c->in[0], *w = c->in[QA_WEIGHTS];
	struct kernel_call inner;
	struct tensor *qkv;

	TRY(tensor_new(c->scratch, DT_FLOAT, 3, (int64_t[]){ x->d[0], x->d[1], w->d[1] }, &qkv, c->e));
	quantised_projection(c, &inner, in, &qkv);
	inner.prepared = NULL;
	TRY(FAST_KERNEL(integer_matmul).run(&inner));
	return attend_packed(c, qkv, w->d[1] / 3, telling(input(c, QA_MASK)), input(c, QA_PAST), NULL);
}

const struct fast FAST_KERNEL(quantised_attention) = { .name = "attention/tiled", .ok = quantised_attention_ok,
	                                               .run = quantised_attention_run };
