/*
 * Softmax attention and linear attention in float32, in tiles.
 *
 * Softmax: for a block of queries the keys pass in tiles, with the running maximum and sum of each row (Milakov and Gimelshein 2018; Rabe and
 * Staats 2021), so no L x S matrix is in memory. Linear: chunks of tokens with the state between them; linear in the length. Both spend their
 * time in small matrix products; arithmetic bounds them.
 */
#include <math.h>
#include <string.h>

#include "ops/base/thread.h"
#include "ops/blas.h"
#include "ops/fast/fast.h"
#include "ops/fast/vmath.h"

VARRAY(exp)
VARRAY(tanh)

enum { QUERIES = 64, KEYS = 256, WIDEST = 512 };

struct softmax_job {
	const float *q, *k, *v;
	const struct tensor *mask;
	int64_t mask_stride[4];
	float *y;
	int64_t H, G, L, S, D, E; /* heads, key heads, queries, keys, widths */
	int64_t blocks;           /* of queries a head */
	int64_t offset;           /* query i sees keys up to i + offset when causal */
	int64_t left, right;      /* window; -1: unbounded */
	float scale, softcap;
	bool causal;
};

/* Scores of one tile, masked. s [n, w], rows from query i0, columns from key j0. */
static void mask_tile(const struct softmax_job *j, float *s, int64_t b, int64_t h, int64_t i0, int64_t n, int64_t j0, int64_t w)
{
	const int64_t *st = j->mask_stride;

	if (j->softcap > 0) {
		for (int64_t i = 0; i < n * w; i++)
			s[i] /= j->softcap;
		v_tanh(s, s, n * w);
		for (int64_t i = 0; i < n * w; i++)
			s[i] *= j->softcap;
	}
	for (int64_t r = 0; r < n && j->mask; r++) {
		int64_t base = b * st[0] + h * st[1] + (i0 + r) * st[2] + j0 * st[3];

		if (j->mask->dt == DT_BOOL) {
			const uint8_t *m = (const uint8_t *)j->mask->data + base;

			for (int64_t c = 0; c < w; c++)
				if (!m[c * st[3]])
					s[r * w + c] = -INFINITY;
		} else {
			const float *m = (const float *)j->mask->data + base;

			for (int64_t c = 0; c < w; c++)
				s[r * w + c] += m[c * st[3]];
		}
	}
	for (int64_t r = 0; r < n; r++) {
		int64_t p = i0 + r + j->offset, first = j->left >= 0 ? p - j->left : 0, last = j->S - 1;

		if (j->causal && p < last)
			last = p;
		if (j->right >= 0 && p + j->right < last)
			last = p + j->right;
		for (int64_t c = 0; c < w && j0 + c < first; c++)
			s[r * w + c] = -INFINITY;
		for (int64_t c = last - j0 + 1 > 0 ? last - j0 + 1 : 0; c < w; c++)
			s[r * w + c] = -INFINITY;
	}
}

/* Take a masked tile into the rows: s becomes weights relative to the new maxima, y and sum are brought to them. */
static void absorb(float *s, int64_t n, int64_t w, float *top, float *sum, float *y, int64_t E)
{
	for (int64_t r = 0; r < n; r++) {
		float *row = s + r * w, m = top[r], part[16] = { 0 }, add = 0, keep;
		int64_t c = 0;

		for (int64_t i = 0; i < w; i++)
			m = row[i] > m ? row[i] : m;
		if (m == -INFINITY) { /* nothing seen so far */
			memset(row, 0, (size_t)w * sizeof *row);
			continue;
		}
		for (int64_t i = 0; i < w; i++)
			row[i] -= m;
		v_exp(row, row, w);
		for (; c + 16 <= w; c += 16)
			for (int l = 0; l < 16; l++)
				part[l] += row[c + l];
		for (int l = 0; l < 16; l++)
			add += part[l];
		for (; c < w; c++)
			add += row[c];
		keep = expf(top[r] - m); /* 0 for the first tile */
		sum[r] = sum[r] * keep + add;
		top[r] = m;
		if (keep != 1)
			for (int64_t i = 0; i < E; i++)
				y[r * E + i] *= keep;
	}
}

static void softmax_block(void *ctx, int64_t piece)
{
	const struct softmax_job *j = ctx;
	int64_t block = piece % j->blocks, bh = piece / j->blocks, b = bh / j->H, h = bh % j->H, kv = b * j->G + h / (j->H / j->G);
	int64_t i0 = block * QUERIES, n = j->L - i0 < QUERIES ? j->L - i0 : QUERIES, end = j->S, begin = 0;
	const float *q = j->q + (bh * j->L + i0) * j->D, *k = j->k + kv * j->S * j->D, *v = j->v + kv * j->S * j->E;
	float *y = j->y + (bh * j->L + i0) * j->E, s[QUERIES * KEYS], top[QUERIES], sum[QUERIES];

	memset(y, 0, (size_t)(n * j->E) * sizeof *y);
	for (int64_t r = 0; r < n; r++) {
		top[r] = -INFINITY;
		sum[r] = 0;
	}
	if (j->causal && i0 + n + j->offset < end)
		end = i0 + n + j->offset;
	if (j->left >= 0 && i0 + j->offset - j->left > 0)
		begin = (i0 + j->offset - j->left) / KEYS * KEYS;
	for (int64_t j0 = begin; j0 < end; j0 += KEYS) {
		int64_t w = end - j0 < KEYS ? end - j0 : KEYS;

		blas_sgemm(false, true, n, w, j->D, j->scale, q, j->D, k + j0 * j->D, j->D, 0, s, w);
		mask_tile(j, s, b, h, i0, n, j0, w);
		absorb(s, n, w, top, sum, y, j->E);
		blas_sgemm(false, false, n, j->E, w, 1, s, w, v + j0 * j->E, j->E, 1, y, j->E);
	}
	for (int64_t r = 0; r < n; r++) {
		float f = sum[r] > 0 ? 1 / sum[r] : sum[r] == 0 ? 0 : NAN;

		for (int64_t i = 0; i < j->E; i++)
			y[r * j->E + i] *= f;
	}
}

/* 4-D float inputs without cache or further outputs. */
static bool attention_ok(const struct kernel_call *c)
{
	const struct tensor *q = c->in[0], *k = c->in[1], *v = c->in[2], *mask = c->nin > 3 ? c->in[3] : NULL;
	int64_t precision = attr_get(c->op, c->attr, "softmax_precision")->i;

	for (int i = 4; i < c->nin; i++)
		if (c->in[i])
			return false;
	for (int i = 1; i < c->nout; i++)
		if (c->out[i])
			return false;
	if (q->rank != 4 || k->rank != 4 || v->rank != 4 || q->dt != DT_FLOAT || v->dt != DT_FLOAT || (precision && precision != DT_FLOAT))
		return false;
	if (!k->d[1] || q->d[1] % k->d[1] || v->d[1] != k->d[1] || k->d[0] != q->d[0] || v->d[0] != q->d[0])
		return false;
	return !mask || ((mask->dt == DT_FLOAT || mask->dt == DT_BOOL) && mask->rank <= 4 && mask->rank > 0 && (mask->d[mask->rank - 1] == k->d[2]));
}

static enum linnet_code attention_run(struct kernel_call *c)
{
	const struct tensor *q = c->in[0], *k = c->in[1], *v = c->in[2];
	const struct attr *scale = attr_get(c->op, c->attr, "scale");
	int left = op_attr_index(c->op, "left_window_size"), right = op_attr_index(c->op, "right_window_size");
	struct softmax_job j = { .q = q->data, .k = k->data, .v = v->data, .mask = c->nin > 3 ? c->in[3] : NULL, .y = c->out[0]->data,
	                         .H = q->d[1], .G = k->d[1], .L = q->d[2], .S = k->d[2], .D = q->d[3], .E = v->d[3],
	                         .left = left >= 0 ? c->attr[left].i : -1, .right = right >= 0 ? c->attr[right].i : -1,
	                         .softcap = (float)attr_get(c->op, c->attr, "softcap")->f, .causal = attr_get(c->op, c->attr, "is_causal")->i != 0 };

	j.scale = attr_given(scale) && scale->f != 0 ? (float)scale->f : 1 / sqrtf((float)j.D);
	j.blocks = (j.L + QUERIES - 1) / QUERIES;
	if (j.mask)
		broadcast_strides(j.mask, 4, j.mask_stride);
	if (c->out[0]->n)
		parallel_for(c->threads, q->d[0] * j.H * j.blocks, softmax_block, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(attention) = { .name = "attention/tiled", .ok = attention_ok, .run = attention_run };

/* ---- Linear attention: update rule "linear" ---- */

enum { CHUNK = 64 };

struct linear_job {
	const float *q, *k, *v, *past;
	float *y, *state;
	int64_t T, H, G, F, E; /* tokens, heads, key heads, widths */
	float scale;
};

/* One key head of one batch: o = q S + tril(q k^T) v, S += k^T v, chunk after chunk. Rows are strided by the packed heads. */
static void linear_head(void *ctx, int64_t i)
{
	const struct linear_job *j = ctx;
	int64_t b = i / j->G, g = i % j->G, R = j->H / j->G, sq = j->H * j->F, sk = j->G * j->F, sv = j->G * j->E, so = j->H * j->E;
	float *S = j->state + i * j->F * j->E, p[CHUNK * CHUNK];

	if (j->past)
		memcpy(S, j->past + i * j->F * j->E, (size_t)(j->F * j->E) * sizeof *S);
	else
		memset(S, 0, (size_t)(j->F * j->E) * sizeof *S);
	for (int64_t t = 0; t < j->T; t += CHUNK) {
		int64_t n = j->T - t < CHUNK ? j->T - t : CHUNK;
		const float *k = j->k + (b * j->T + t) * sk + g * j->F, *v = j->v + (b * j->T + t) * sv + g * j->E;

		for (int64_t r = 0; r < R; r++) {
			const float *q = j->q + (b * j->T + t) * sq + (g * R + r) * j->F;
			float *o = j->y + (b * j->T + t) * so + (g * R + r) * j->E;

			blas_sgemm(false, true, n, n, j->F, j->scale, q, sq, k, sk, 0, p, n);
			for (int64_t row = 0; row < n; row++)
				memset(p + row * n + row + 1, 0, (size_t)(n - row - 1) * sizeof *p);
			blas_sgemm(false, false, n, j->E, j->F, j->scale, q, sq, S, j->E, 0, o, so);
			blas_sgemm(false, false, n, j->E, n, 1, p, n, v, sv, 1, o, so);
		}
		blas_sgemm(true, false, j->F, j->E, n, 1, k, sk, v, sv, 1, S, j->E);
	}
}

static bool linear_attention_ok(const struct kernel_call *c)
{
	const struct text rule = attr_get(c->op, c->attr, "update_rule")->s;
	const struct tensor *past = c->nin > 3 ? c->in[3] : NULL;

	return rule.n == 6 && !memcmp(rule.p, "linear", 6) && c->in[0]->dt == DT_FLOAT && c->in[0]->rank == 3 && c->nout > 1 && c->out[1] &&
	       c->out[1]->dt == DT_FLOAT && (!past || past->dt == DT_FLOAT);
}

static enum linnet_code linear_attention_run(struct kernel_call *c)
{
	const struct tensor *q = c->in[0], *k = c->in[1], *v = c->in[2];
	struct linear_job j = { .q = q->data, .k = k->data, .v = v->data, .past = c->nin > 3 && c->in[3] ? c->in[3]->data : NULL,
	                        .y = c->out[0]->data, .state = c->out[1]->data, .T = q->d[1], .H = attr_get(c->op, c->attr, "q_num_heads")->i,
	                        .G = attr_get(c->op, c->attr, "kv_num_heads")->i, .scale = (float)attr_get(c->op, c->attr, "scale")->f };

	j.F = k->d[2] / j.G;
	j.E = v->d[2] / j.G;
	if (j.scale == 0)
		j.scale = 1 / sqrtf((float)j.F);
	parallel_for(j.T * j.F * j.E < 1 << 13 ? 1 : c->threads, q->d[0] * j.G, linear_head, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(linear_attention) = { .name = "linear_attention/chunked", .ok = linear_attention_ok, .run = linear_attention_run };
