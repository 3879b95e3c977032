/*
 * LinearAttentionGrad in float32, chunk by chunk.
 *
 * A piece is one key head with its query heads. Forward, the state at each chunk's start is kept, and of rules that correct the corrected
 * values too; backward, each chunk is a dozen products of matrices of the length of a chunk and the widths of a head, which stay in the
 * caches: arithmetic bounds it. With b the sum of log decays within the chunk, up to and with each token, E_ij = exp(b_i - b_j) for j <= i,
 *	R = V - (K e^b) S;  M = stril(K K^T E);  N = (I + beta M)^-1 beta R;  P = tril(Q K^T E);  S' = e^b_end S + (K e^(b_end - b))^T N
 * and back (N = V, and what stands behind // left out, for rules that do not correct), dO being multiplied by scale:
 *	dN = P^T dO + (K e^(b_end - b)) dS';  dP = tril(dO N^T);  dQ = e^b (dO S^T) + dP K E;  dK = e^(b_end - b) (N dS'^T) + (dP E)^T Q
 *	dS = e^b_end dS' + (Q e^b)^T dO
 *	// Z = (I + beta M)^-T dN;  dA = -stril(Z N^T);  dM = beta dA;  dbeta = rowsum(Z R) + rowsum(dA M);  dV = beta Z
 *	// dK += (dM E) K + (dM E)^T K - e^b (dV S^T);  dS -= (K e^b)^T dV
 * Each b_i gets q dq of its queries, k dk of where its key has e^b, minus that of where it has e^-b; the last also rowsum(dS' S').
 * No exponent is positive while decays are not: with a decay for each channel, E is taken apart in blocks of BLOCK tokens at the block's start.
 *
 * Source: Yang et al., Parallelizing Linear Transformers with the Delta Rule over Sequence Length, 2024, section 3; Gated Delta Networks, 2025.
 */
#include <math.h>
#include <string.h>

#include "ops/base/thread.h"
#include "ops/fast/decay.h"
#include "ops/fast/fast.h"
#include "ops/fast/product.h"
#include "ops/fast/vmath.h"

VARRAY(exp)

enum { CHUNK = 32, LONG_CHUNK = 64, BLOCK = 8, WIDE_HEAD = 64 };
enum { IN_QUERY, IN_KEY, IN_VALUE, IN_PAST, IN_DECAY, IN_BETA, IN_DY, IN_DLAST, NINPUT, NOUTPUT = IN_DY };

struct grad_job {
	const float *q, *k, *v, *past, *decay, *beta, *dy, *dlast;
	float *dq, *dk, *dv, *dpast, *ddecay, *dbeta; /* dbeta: [B, T, Hkv] */
	int64_t T, H, G, R, F, E;       /* tokens, query heads, key heads, queries a key head, widths of a head */
	int64_t Fp, Ep, C, N;           /* widths filled up, tokens a chunk, chunks */
	int64_t ndecay, nbeta;
	float scale;
	int64_t room;                   /* numbers of working memory a piece */
	float *work;
};

/* A piece's memory. Matrices of C tokens have rows of Fp or Ep, those of pairs of tokens of C. */
struct head {
	const struct grad_job *j;
	int64_t b, g, t0, n;            /* batch, key head; first token and tokens of the chunk */
	float *S;                       /* [N + 1, Fp, Ep] states at chunks' starts */
	float *allN, *allR, *allM;      /* [N, ..], of rules that correct */
	float *dS, *St, *dSt;           /* [Fp, Ep], and [Ep, Fp] transposed */
	float *K, *Kt, *X, *dX, *plus, *minus, *Kb, *Ke, *eb, *ee, *db, *tmp; /* [C, Fp]; Kt: [Fp, C] */
	float *V, *N, *R, *dO, *dN, *Nt; /* [C, Ep]; Nt: [Ep, C] */
	float *M, *P, *dP, *D, *A;      /* [C, C] */
	float *beta, *last;             /* [C]; [Fp]: e^b_end */
	double *cum;                    /* [C, Fp] or [C]: b */
	float *near, *far;              /* with a decay for each channel: E of pairs within a block; K e^(r - b) of those before it */
};

static const float *rows_at(const float *x, const struct head *h, int64_t heads, int64_t head, int64_t width)
{
	return x + ((h->b * h->j->T + h->t0) * heads + head) * width;
}

/* to: [C, up] <- the chunk's rows of a head, with zeros behind */
static void load(const struct head *h, const float *x, int64_t heads, int64_t head, int64_t width, int64_t up, float scale, float *restrict to)
{
	const float *restrict from = x ? rows_at(x, h, heads, head, width) : NULL;

	for (int64_t i = 0; i < h->j->C; i++, to += up) {
		int64_t w = x && i < h->n ? width : 0;

		for (int64_t l = 0; l < w; l++)
			to[l] = scale * from[i * heads * width + l];
		for (int64_t l = w; l < up; l++)
			to[l] = 0;
	}
}

static void store(const struct head *h, float *x, int64_t heads, int64_t head, int64_t width, int64_t up, const float *restrict from)
{
	float *restrict to = x ? x + ((h->b * h->j->T + h->t0) * heads + head) * width : NULL;

	for (int64_t i = 0; x && i < h->n; i++)
		for (int64_t l = 0; l < width; l++)
			to[i * heads * width + l] = from[i * up + l];
}

static bool by_channel(const struct grad_job *j) { return j->ndecay > 1; }

/* ---- Decays ---- */

static void times(int64_t n, float *restrict x, const float *restrict y)
{
	for (int64_t i = 0; i < n; i++)
		x[i] *= y[i];
}

/* Far below what a float's exponential can be; keeps minus infinity from becoming NaN in differences. */
static double log_decay(float g) { return g < -1e4f ? -1e4 : (double)g; }

/* exp(b_i - b_j) for j <= i, else 0 */
static void pair_decays(const struct head *h)
{
	int64_t C = h->j->C;

	for (int64_t i = 0; i < C; i++) {
		float *d = h->D + i * C;

		for (int64_t l = 0; l < C; l++)
			d[l] = l <= i ? (float)(h->cum[i] - h->cum[l]) : -200;
	}
	v_exp(h->D, h->D, C * C);
}

/* E of pairs within blocks, one row of channels each, and keys before each block as seen from its start. */
static void block_decays(const struct head *h)
{
	int64_t C = h->j->C, Fp = h->j->Fp;
	float *near = h->near, *far = h->far;

	for (int64_t s = 0; s < C; s += BLOCK) {
		const double *r = s ? h->cum + (s - 1) * Fp : NULL;
		float *from = far;

		for (int64_t i = s; i < s + BLOCK; i++)
			for (int64_t l = s; l <= i; l++, near += Fp)
				for (int64_t d = 0; d < Fp; d++)
					near[d] = (float)(h->cum[i * Fp + d] - h->cum[l * Fp + d]);
		for (int64_t l = 0; l < s; l++, far += Fp)
			for (int64_t d = 0; d < Fp; d++)
				far[d] = (float)(r[d] - h->cum[l * Fp + d]);
		v_exp(from, from, far - from);
		times(s * Fp, from, h->K);
	}
	v_exp(h->near, h->near, near - h->near);
}

/* Sums of decays and what follows from them: eb = e^b, ee = e^(b_end - b), Kb, Ke the keys times these. */
static void load_decays(struct head *h)
{
	const struct grad_job *j = h->j;
	int64_t Fp = j->Fp, C = j->C, w = by_channel(j) ? Fp : 1;
	const float *g = rows_at(j->decay, h, j->G, h->g, j->ndecay);
	const double *end = h->cum + (C - 1) * w;

	for (int64_t i = 0; i < C; i++)
		for (int64_t d = 0; d < w; d++)
			h->cum[i * w + d] = (i ? h->cum[(i - 1) * w + d] : 0) +
			                    (i < h->n && d < j->ndecay ? log_decay(g[i * j->G * j->ndecay + d]) : 0);
	for (int64_t i = 0; i < C; i++)
		for (int64_t d = 0; d < w; d++) {
			h->eb[i * w + d] = (float)h->cum[i * w + d];
			h->ee[i * w + d] = (float)(end[d] - h->cum[i * w + d]);
		}
	v_exp(h->eb, h->eb, C * w);
	v_exp(h->ee, h->ee, C * w);
	if (w == 1) /* the same for all channels, from the last row on as they share memory */
		for (int64_t i = C; i-- > 0;) {
			float eb = h->eb[i], ee = h->ee[i];

			for (int64_t d = 0; d < Fp; d++) {
				h->eb[i * Fp + d] = eb;
				h->ee[i * Fp + d] = ee;
			}
		}
	memcpy(h->last, h->eb + (C - 1) * Fp, (size_t)Fp * sizeof *h->last);
	for (int64_t i = 0; i < C * Fp; i++) {
		h->Kb[i] = h->K[i] * h->eb[i];
		h->Ke[i] = h->K[i] * h->ee[i];
	}
	if (by_channel(j))
		block_decays(h);
	else
		pair_decays(h);
}

/* ---- Pairs of tokens ---- */

/* tmp: the block's rows of X times e^(b - r) */
static void block_rows(const struct head *h, const float *X, int64_t s, float *tmp)
{
	int64_t Fp = h->j->Fp;

	for (int64_t i = 0; i < BLOCK * Fp; i++)
		tmp[i] = (float)(h->cum[s * Fp + i] - (s ? h->cum[(s - 1) * Fp + i % Fp] : 0));
	v_exp(tmp, tmp, BLOCK * Fp);
	times(BLOCK * Fp, tmp, X + s * Fp);
}

/* P = tril(X K^T E), without the diagonal when `strict` */
static void pairs(const struct head *h, const float *X, bool strict, float *P)
{
	int64_t C = h->j->C, Fp = h->j->Fp;
	const float *near = h->near, *far = h->far;

	if (by_channel(h->j)) {
		memset(P, 0, (size_t)(C * C) * sizeof *P);
		for (int64_t s = 0; s < C; far += s * Fp, s += BLOCK) {
			int64_t up = small_up(s);

			block_rows(h, X, s, h->tmp);
			for (int64_t i = 0; i < Fp; i++) /* far^T: [Fp, up] */
				for (int64_t l = 0; l < up; l++)
					h->dX[i * up + l] = l < s ? far[l * Fp + i] : 0;
			small_product(SMALL_ALL, BLOCK, up, Fp, h->tmp, Fp, 1, h->dX, up, false, P + s * C, C);
			for (int64_t i = s; i < s + BLOCK; i++)
				for (int64_t l = s; l <= i; l++, near += Fp) {
					float sum = 0;

					for (int64_t d = 0; d < Fp; d++)
						sum += X[i * Fp + d] * h->K[l * Fp + d] * near[d];
					P[i * C + l] = sum;
				}
		}
	} else {
		small_product(SMALL_LOWER_OUT, C, C, Fp, X, Fp, 1, h->Kt, C, false, P, C);
		for (int64_t i = 0; i < C; i++) {
			for (int64_t l = 0; l <= i && h->j->decay; l++)
				P[i * C + l] *= h->D[i * C + l];
			for (int64_t l = i + 1; l < C; l++)
				P[i * C + l] = 0;
		}
	}
	for (int64_t i = 0; i < C && strict; i++)
		P[i * C + i] = 0;
}

/* dX += (dP E) K;  minus += (dP E)^T X. dP, lower triangular, is used up. */
static void pairs_back(const struct head *h, float *dP, const float *X, float *dX)
{
	int64_t C = h->j->C, Fp = h->j->Fp;
	const float *near = h->near, *far = h->far;

	if (!by_channel(h->j)) {
		if (h->j->decay)
			times(C * C, dP, h->D);
		small_product(SMALL_LOWER, C, Fp, C, dP, C, 1, h->K, Fp, true, dX, Fp);
		small_product(SMALL_UPPER, C, Fp, C, dP, 1, C, X, Fp, true, h->minus, Fp);
		return;
	}
	for (int64_t s = 0; s < C; far += s * Fp, s += BLOCK) {
		const double *r = s ? h->cum + (s - 1) * Fp : NULL;

		if (s) {
			small_product(SMALL_ALL, BLOCK, Fp, s, dP + s * C, C, 1, far, Fp, false, h->tmp, Fp);
			for (int64_t i = 0; i < BLOCK; i++) {
				for (int64_t d = 0; d < Fp; d++)
					h->A[d] = (float)(h->cum[(s + i) * Fp + d] - r[d]);
				v_exp(h->A, h->A, Fp);
				for (int64_t d = 0; d < Fp; d++)
					dX[(s + i) * Fp + d] += h->A[d] * h->tmp[i * Fp + d];
			}
			block_rows(h, X, s, h->tmp);
			small_product(SMALL_ALL, s, Fp, BLOCK, dP + s * C, 1, C, h->tmp, Fp, false, h->tmp + BLOCK * Fp, Fp);
			for (int64_t l = 0; l < s; l++) {
				for (int64_t d = 0; d < Fp; d++)
					h->A[d] = (float)(r[d] - h->cum[l * Fp + d]);
				v_exp(h->A, h->A, Fp);
				for (int64_t d = 0; d < Fp; d++)
					h->minus[l * Fp + d] += h->A[d] * h->tmp[(BLOCK + l) * Fp + d];
			}
		}
		for (int64_t i = s; i < s + BLOCK; i++)
			for (int64_t l = s; l <= i; l++, near += Fp) {
				float p = dP[i * C + l];

				for (int64_t d = 0; d < Fp; d++) {
					dX[i * Fp + d] += p * h->K[l * Fp + d] * near[d];
					h->minus[l * Fp + d] += p * X[i * Fp + d] * near[d];
				}
			}
	}
}

/* ---- Forward ---- */

static void load_keys(struct head *h)
{
	const struct grad_job *j = h->j;

	load(h, j->k, j->G, h->g, j->F, j->Fp, 1, h->K);
	if (!by_channel(j))
		small_transpose(j->C, j->Fp, h->K, j->Fp, h->Kt, j->C);
	if (j->decay)
		load_decays(h);
	for (int64_t i = 0; i < j->C && j->beta; i++)
		h->beta[i] = i < h->n ? j->beta[(h->b * j->T + h->t0 + i) * j->nbeta + (j->nbeta > 1 ? h->g : 0)] : 0;
}

/* A = -beta M */
static void correction(const struct head *h)
{
	int64_t C = h->j->C;

	for (int64_t i = 0; i < C; i++)
		for (int64_t l = 0; l < C; l++)
			h->A[i * C + l] = -h->beta[i] * h->M[i * C + l];
}

/* X = (I - A)^-1 X, A strictly lower, X [C, Ep] */
static void solve(const struct head *h, float *X)
{
	int64_t C = h->j->C, Ep = h->j->Ep;

	for (int64_t s = 0; s < C; s += SMALL_ROWS) {
		small_product(SMALL_ALL, SMALL_ROWS, Ep, s, h->A + s * C, C, 1, X, Ep, true, X + s * Ep, Ep);
		for (int64_t i = s + 1; i < s + SMALL_ROWS; i++)
			for (int64_t l = s; l < i; l++)
				for (int64_t e = 0; e < Ep; e++)
					X[i * Ep + e] += h->A[i * C + l] * X[l * Ep + e];
	}
}

/* X = (I - A)^-T X */
static void solve_transposed(const struct head *h, float *X)
{
	int64_t C = h->j->C, Ep = h->j->Ep;

	for (int64_t s = C - SMALL_ROWS; s >= 0; s -= SMALL_ROWS) {
		int64_t t = s + SMALL_ROWS;

		if (t < C)
			small_product(SMALL_ALL, SMALL_ROWS, Ep, C - t, h->A + t * C + s, 1, C, X + t * Ep, Ep, true, X + s * Ep, Ep);
		for (int64_t i = t - 2; i >= s; i--)
			for (int64_t l = i + 1; l < t; l++)
				for (int64_t e = 0; e < Ep; e++)
					X[i * Ep + e] += h->A[l * C + i] * X[l * Ep + e];
	}
}

static void chunk_at(struct head *h, int64_t chunk)
{
	const struct grad_job *j = h->j;

	h->t0 = chunk * j->C;
	h->n = j->T - h->t0 < j->C ? j->T - h->t0 : j->C;
	if (j->beta) {
		h->N = h->allN + chunk * j->C * j->Ep;
		h->R = h->allR + chunk * j->C * j->Ep;
		h->M = h->allM + chunk * j->C * j->C;
	}
	load_keys(h);
}

static void chunk_forward(struct head *h, int64_t chunk)
{
	const struct grad_job *j = h->j;
	int64_t C = j->C, Fp = j->Fp, Ep = j->Ep;
	const float *S = h->S + chunk * Fp * Ep;
	float *next = h->S + (chunk + 1) * Fp * Ep;

	chunk_at(h, chunk);
	load(h, j->v, j->G, h->g, j->E, Ep, 1, h->V);
	if (j->beta) {
		small_product(SMALL_ALL, C, Ep, Fp, j->decay ? h->Kb : h->K, Fp, 1, S, Ep, false, h->R, Ep);
		for (int64_t i = 0; i < C; i++)
			for (int64_t e = 0; e < Ep; e++) {
				h->R[i * Ep + e] = h->V[i * Ep + e] - h->R[i * Ep + e];
				h->N[i * Ep + e] = h->beta[i] * h->R[i * Ep + e];
			}
		pairs(h, h->K, true, h->M);
		correction(h);
		solve(h, h->N);
	}
	for (int64_t i = 0; i < Fp; i++)
		for (int64_t e = 0; e < Ep; e++)
			next[i * Ep + e] = j->decay ? h->last[i] * S[i * Ep + e] : S[i * Ep + e];
	small_product(SMALL_ALL, Fp, Ep, C, j->decay ? h->Ke : h->K, 1, Fp, j->beta ? h->N : h->V, Ep, true, next, Ep);
}

/* ---- Backward ---- */

/* Decays' gradients from those of their sums. */
static void store_decays(const struct head *h)
{
	const struct grad_job *j = h->j;
	float *to = j->ddecay + ((h->b * j->T + h->t0) * j->G + h->g) * j->ndecay;
	int64_t Fp = j->Fp;

	for (int64_t i = h->j->C - 1; i-- > 0;)
		for (int64_t d = 0; d < Fp; d++)
			h->db[i * Fp + d] += h->db[(i + 1) * Fp + d];
	for (int64_t i = 0; i < h->n; i++) {
		double sum = 0;

		if (by_channel(j)) {
			memcpy(to + i * j->G * j->ndecay, h->db + i * Fp, (size_t)j->ndecay * sizeof *to);
			continue;
		}
		for (int64_t d = 0; d < Fp; d++)
			sum += h->db[i * Fp + d];
		to[i * j->G] = (float)sum;
	}
}

/* Gradients of one query head; dN, minus and dS get what they say of keys, values and the state before. */
static void queries_back(struct head *h, int64_t r)
{
	const struct grad_job *j = h->j;
	int64_t C = j->C, Fp = j->Fp, Ep = j->Ep, head = h->g * j->R + r;

	load(h, j->q, j->H, head, j->F, Fp, 1, h->X);
	load(h, j->dy, j->H, head, j->E, Ep, j->scale, h->dO);
	pairs(h, h->X, false, h->P);
	small_product(SMALL_UPPER, C, Ep, C, h->P, 1, C, h->dO, Ep, true, h->dN, Ep);
	small_product(SMALL_LOWER_OUT, C, C, Ep, h->dO, Ep, 1, h->Nt, C, false, h->dP, C);
	for (int64_t i = 0; i < C; i++)
		for (int64_t l = i + 1; l < C; l++)
			h->dP[i * C + l] = 0;
	small_product(SMALL_ALL, C, Fp, Ep, h->dO, Ep, 1, h->St, Fp, false, h->dX, Fp);
	if (j->decay)
		times(C * Fp, h->dX, h->eb);
	pairs_back(h, h->dP, h->X, h->dX);
	store(h, j->dq, j->H, head, j->F, Fp, h->dX);
	if (j->decay) {
		for (int64_t i = 0; i < C * Fp; i++)
			h->db[i] += h->X[i] * h->dX[i];
		times(C * Fp, h->X, h->eb);
	}
	small_product(SMALL_ALL, Fp, Ep, C, h->X, 1, Fp, h->dO, Ep, true, h->dS, Ep);
}

/* From dN to dV, of rules that correct, and what it says of keys, betas and the state before. */
static void corrections_back(struct head *h)
{
	const struct grad_job *j = h->j;
	int64_t C = j->C, Fp = j->Fp, Ep = j->Ep;
	float *dbeta = j->dbeta + (h->b * j->T + h->t0) * j->G + h->g;

	correction(h);
	solve_transposed(h, h->dN);
	small_product(SMALL_LOWER_OUT, C, C, Ep, h->dN, Ep, 1, h->Nt, C, false, h->dP, C);
	for (int64_t i = 0; i < C; i++) {
		double sum = 0;

		for (int64_t e = 0; e < Ep; e++)
			sum += h->dN[i * Ep + e] * h->R[i * Ep + e];
		for (int64_t l = 0; l < i; l++) {
			sum -= h->dP[i * C + l] * h->M[i * C + l];
			h->dP[i * C + l] *= -h->beta[i];
		}
		for (int64_t l = i; l < C; l++)
			h->dP[i * C + l] = 0;
		for (int64_t e = 0; e < Ep; e++)
			h->dN[i * Ep + e] *= h->beta[i];
		if (i < h->n)
			dbeta[i * j->G] = (float)sum;
	}
	small_product(SMALL_ALL, C, Fp, Ep, h->dN, Ep, 1, h->St, Fp, false, h->plus, Fp);
	for (int64_t i = 0; i < C * Fp; i++)
		h->plus[i] = j->decay ? -h->eb[i] * h->plus[i] : -h->plus[i];
	pairs_back(h, h->dP, h->K, h->plus);
	for (int64_t i = 0; i < C * Fp; i++)
		h->X[i] = j->decay ? -h->Kb[i] : -h->K[i];
	small_product(SMALL_ALL, Fp, Ep, C, h->X, 1, Fp, h->dN, Ep, true, h->dS, Ep);
}

static void chunk_back(struct head *h, int64_t chunk)
{
	const struct grad_job *j = h->j;
	int64_t C = j->C, Fp = j->Fp, Ep = j->Ep;
	const float *S = h->S + chunk * Fp * Ep, *next = S + Fp * Ep, *N;

	chunk_at(h, chunk);
	if (!j->beta)
		load(h, j->v, j->G, h->g, j->E, Ep, 1, h->V);
	N = j->beta ? h->N : h->V;
	small_transpose(C, Ep, N, Ep, h->Nt, C);
	small_transpose(Fp, Ep, S, Ep, h->St, Fp);
	small_transpose(Fp, Ep, h->dS, Ep, h->dSt, Fp);
	small_product(SMALL_ALL, C, Ep, Fp, j->decay ? h->Ke : h->K, Fp, 1, h->dS, Ep, false, h->dN, Ep);
	small_product(SMALL_ALL, C, Fp, Ep, N, Ep, 1, h->dSt, Fp, false, h->minus, Fp);
	if (j->decay) {
		times(C * Fp, h->minus, h->ee);
		memset(h->db, 0, (size_t)(C * Fp) * sizeof *h->db);
		for (int64_t i = 0; i < Fp; i++) {
			float sum = 0;

			for (int64_t e = 0; e < Ep; e++)
				sum += h->dS[i * Ep + e] * next[i * Ep + e];
			h->db[(C - 1) * Fp + i] = sum;
			for (int64_t e = 0; e < Ep; e++)
				h->dS[i * Ep + e] *= h->last[i];
		}
	}
	for (int64_t r = 0; r < j->R; r++)
		queries_back(h, r);
	if (j->beta)
		corrections_back(h);
	store(h, j->dv, j->G, h->g, j->E, Ep, h->dN);
	for (int64_t i = 0; i < C * Fp && j->ddecay; i++)
		h->db[i] += h->K[i] * ((j->beta ? h->plus[i] : 0) - h->minus[i]);
	for (int64_t i = 0; i < C * Fp && j->beta; i++)
		h->minus[i] += h->plus[i];
	store(h, j->dk, j->G, h->g, j->F, Fp, h->minus);
	if (j->ddecay)
		store_decays(h);
}

/* ---- Pieces ---- */

struct memory {
	float *base; /* NULL: only counted */
	int64_t used;
};

static float *take(struct memory *m, int64_t n)
{
	float *p = m->base ? m->base + m->used : NULL;

	m->used += small_up(n);
	return p;
}

/* Where a piece's matrices are; how many numbers there are. */
static int64_t lay_out(const struct grad_job *j, struct head *h, float *base)
{
	int64_t C = j->C, Fp = j->Fp, Ep = j->Ep, most = Fp > Ep ? Fp : Ep;
	float **const keys[] = { &h->K, &h->Kt, &h->X, &h->dX, &h->plus, &h->minus, &h->Kb, &h->Ke, &h->eb, &h->ee, &h->db };
	float **const values[] = { &h->V, &h->N, &h->R, &h->dO, &h->dN, &h->Nt }, **const both[] = { &h->M, &h->P, &h->dP, &h->D };
	struct memory m = { .base = base };

	h->cum = (double *)(void *)take(&m, 2 * C * Fp); /* first, for its alignment */
	h->S = take(&m, (j->N + 1) * Fp * Ep);
	h->dS = take(&m, Fp * Ep);
	h->St = take(&m, Fp * Ep);
	h->dSt = take(&m, Fp * Ep);
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		*keys[i] = take(&m, C * Fp);
	for (size_t i = 0; i < sizeof values / sizeof *values; i++)
		*values[i] = take(&m, C * Ep);
	for (size_t i = 0; i < sizeof both / sizeof *both; i++)
		*both[i] = take(&m, C * C);
	h->A = take(&m, C * (C > most ? C : most));
	h->tmp = take(&m, 2 * C * Fp);
	h->beta = take(&m, C);
	h->last = take(&m, Fp);
	if (by_channel(j)) {
		h->near = take(&m, C * (BLOCK + 1) / 2 * Fp);
		h->far = take(&m, C * (C / BLOCK - 1) / 2 * Fp);
	}
	if (j->beta) {
		h->allN = take(&m, j->N * C * Ep);
		h->allR = take(&m, j->N * C * Ep);
		h->allM = take(&m, j->N * C * C);
	}
	return m.used;
}

/* s [Fp, Ep] <- x [F, E], or zeros */
static void load_state(const struct grad_job *j, const float *x, float *s)
{
	memset(s, 0, (size_t)(j->Fp * j->Ep) * sizeof *s);
	for (int64_t i = 0; i < j->F && x; i++)
		memcpy(s + i * j->Ep, x + i * j->E, (size_t)j->E * sizeof *s);
}

static void head_piece(void *ctx, int64_t piece)
{
	const struct grad_job *j = ctx;
	struct head h = { .j = j, .b = piece / j->G, .g = piece % j->G };
	int64_t size = j->F * j->E;

	lay_out(j, &h, j->work + piece * j->room);
	load_state(j, j->past ? j->past + piece * size : NULL, h.S);
	load_state(j, j->dlast ? j->dlast + piece * size : NULL, h.dS);
	for (int64_t i = 0; i < j->N; i++)
		chunk_forward(&h, i);
	for (int64_t i = j->N; i-- > 0;)
		chunk_back(&h, i);
	for (int64_t i = 0; i < j->F && j->dpast; i++)
		memcpy(j->dpast + piece * size + i * j->E, h.dS + i * j->Ep, (size_t)j->E * sizeof *h.dS);
}

static const struct tensor *input(const struct kernel_call *c, int i) { return i < c->nin ? c->in[i] : NULL; }
static const float *data_of(const struct kernel_call *c, int i) { return input(c, i) ? input(c, i)->data : NULL; }
static float *output(const struct kernel_call *c, int i) { return i < c->nout && c->out[i] ? c->out[i]->data : NULL; }

static bool linear_grad_ok(const struct kernel_call *c)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && c->in[i]->dt != DT_FLOAT)
			return false;
	return true;
}

static enum linnet_code linear_grad_run(struct kernel_call *c)
{
	const struct tensor *q = c->in[IN_QUERY];
	struct grad_job j = { .q = q->data, .k = data_of(c, IN_KEY), .v = data_of(c, IN_VALUE), .past = data_of(c, IN_PAST), .decay = data_of(c, IN_DECAY),
	                      .beta = data_of(c, IN_BETA), .dy = data_of(c, IN_DY), .dlast = data_of(c, IN_DLAST), .dq = output(c, IN_QUERY),
	                      .dk = output(c, IN_KEY), .dv = output(c, IN_VALUE), .dpast = output(c, IN_PAST), .T = q->d[1],
	                      .H = attr_get(c->op, c->attr, "q_num_heads")->i, .G = attr_get(c->op, c->attr, "kv_num_heads")->i,
	                      .scale = (float)attr_get(c->op, c->attr, "scale")->f, .ndecay = 1, .nbeta = 1 };
	float *ddecay = output(c, IN_DECAY), *dbeta = output(c, IN_BETA);
	struct linnet_error *e = c->e;
	struct head h = { 0 };
	int64_t heads = q->d[0] * j.G;

	if (j.decay && decays_grow(j.decay, c->in[IN_DECAY]->n, decay_most(j.T)))
		return c->op->kernel(c);
	j.R = j.H / j.G;
	j.F = c->in[IN_KEY]->d[2] / j.G;
	j.E = c->in[IN_VALUE]->d[2] / j.G;
	if (j.decay)
		j.ndecay = c->in[IN_DECAY]->d[2] / j.G;
	if (j.beta)
		j.nbeta = c->in[IN_BETA]->d[2];
	if (j.scale == 0)
		j.scale = 1 / sqrtf((float)j.F);
	j.Fp = small_up(j.F);
	j.Ep = small_up(j.E);
	j.C = by_channel(&j) || j.Fp < WIDE_HEAD || j.T <= CHUNK ? CHUNK : LONG_CHUNK;
	j.N = (j.T + j.C - 1) / j.C;
	j.ddecay = ddecay;
	if (j.decay && !ddecay)
		TRY_NEW(j.ddecay, c->scratch, c->in[IN_DECAY]->n);
	j.dbeta = dbeta;
	if (j.beta && (!dbeta || j.nbeta != j.G))
		TRY_NEW(j.dbeta, c->scratch, heads * j.T);
	j.room = lay_out(&j, &h, NULL);
	TRY_NEW(j.work, c->scratch, heads * j.room);
	parallel_for(heads * j.T * j.F * j.E < 1 << 15 ? 1 : c->threads, heads, head_piece, &j);
	for (int64_t i = 0; dbeta && dbeta != j.dbeta && i < q->d[0] * j.T; i++) {
		double sum = 0;

		for (int64_t g = 0; g < j.G; g++)
			sum += j.dbeta[i * j.G + g];
		dbeta[i] = (float)sum;
	}
	return LINNET_OK;
}

const struct fast FAST_KERNEL(linear_grad) = { .name = "linear_grad", .ok = linear_grad_ok, .run = linear_grad_run };
