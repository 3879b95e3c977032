/*
 * LinearAttention in float32: all update rules, token by token.
 *
 * Heads are cut into pieces of value columns, which do not depend on each other; a piece's state stays in the first cache for all tokens, whose
 * loads and stores bound it: for rules that do not correct, widths of 64 and one token of one head, 0.26 us of about 0.16 at two cycles for 16
 * numbers. Chunks of tokens as products of matrices (Yang et al., Parallelizing Linear Transformers with the Delta Rule over Sequence Length,
 * NeurIPS 2024, section 3) were measured with BLAS for the rule "linear": they take 1.1 times as long with widths of 128, 1.3 with 64,
 * twice with several queries a state, and pay from about 256 x 256 on; the other rules need more products and the same recurrence.
 */
#include <math.h>
#include <string.h>

#include "ops/base/thread.h"
#include "ops/blas.h"
#include "ops/fast/fast.h"
#include "ops/fast/vmath.h"

VARRAY(exp)

enum {
	COLUMNS = 64, /* of a piece; one behind may be as many as a vector has lanes longer, so that none is shorter */
	ROUND = 16,   /* to which a piece's columns are filled up in memory of its own, where they do not fit */
	MOST = COLUMNS + ROUND,
	PIECE = 1 << 12
};

struct linear_job {
	const float *q, *k, *v, *beta;
	const float *keep; /* exp(decay): [B, T, Hkv, ndecay]; NULL: 1 */
	float *y, *state;  /* state: [B, Hkv, F, E] */
	int64_t T, H, G, readers, F, E; /* tokens, query heads, key heads, heads of the output, widths */
	int64_t ndecay, nbeta, blocks;  /* pieces a head */
	size_t room;                    /* numbers of working memory a piece */
	float *work;
	float scale;
};

/* Row i of S is kept by this factor. */
static inline float kept(const struct linear_job *j, const float *a, int64_t i) { return a ? a[j->ndecay > 1 ? i : 0] : 1; }

/* out = x S, of w columns, four rows of S: [F, w], E apart, at a time */
static void read_state(const struct linear_job *j, const float *S, int64_t E, const float *x, int64_t w, float *restrict out)
{
	int64_t i = 0;

	for (int64_t l = 0; l < w; l++)
		out[l] = 0;
	for (; i + 4 <= j->F; i += 4, S += 4 * E) {
		float x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];

		for (int64_t l = 0; l < w; l++)
			out[l] += (x0 * S[l] + x1 * S[E + l]) + (x2 * S[2 * E + l] + x3 * S[3 * E + l]);
	}
	for (; i < j->F; i++, S += E)
		for (int64_t l = 0; l < w; l++)
			out[l] += x[i] * S[l];
}

/* S = diag(a) S + k^T fix, out = q S */
static void advance(const struct linear_job *j, float *restrict S, int64_t E, const float *k, const float *a, const float *q,
                    const float *restrict fix, int64_t w, float *restrict out)
{
	int64_t i = 0;

	for (int64_t l = 0; l < w; l++)
		out[l] = 0;
	for (; i + 4 <= j->F; i += 4, S += 4 * E) {
		float a0 = kept(j, a, i), a1 = kept(j, a, i + 1), a2 = kept(j, a, i + 2), a3 = kept(j, a, i + 3);

		for (int64_t l = 0; l < w; l++) {
			float s0 = a0 * S[l] + k[i] * fix[l], s1 = a1 * S[E + l] + k[i + 1] * fix[l];
			float s2 = a2 * S[2 * E + l] + k[i + 2] * fix[l], s3 = a3 * S[3 * E + l] + k[i + 3] * fix[l];

			S[l] = s0;
			S[E + l] = s1;
			S[2 * E + l] = s2;
			S[3 * E + l] = s3;
			out[l] += (q[i] * s0 + q[i + 1] * s1) + (q[i + 2] * s2 + q[i + 3] * s3);
		}
	}
	for (; i < j->F; i++, S += E)
		for (int64_t l = 0; l < w; l++) {
			S[l] = kept(j, a, i) * S[l] + k[i] * fix[l];
			out[l] += q[i] * S[l];
		}
}

/* A block of value columns of one key head, all tokens. */
static void tokens_piece(void *ctx, int64_t piece)
{
	const struct linear_job *j = ctx;
	int64_t i = piece / j->blocks, b = i / j->G, g = i % j->G, R = j->readers / j->G;
	int64_t from = piece % j->blocks * COLUMNS, w = piece % j->blocks + 1 < j->blocks ? COLUMNS : j->E - from;
	int64_t full = (w + ROUND - 1) / ROUND * ROUND, E = full == w ? j->E : full;
	float *state = j->state + i * j->F * j->E + from, fix[MOST] = { 0 }, out[MOST], *x = j->work + (size_t)piece * j->room, *S = state;

	if (full != w) {
		S = x + j->F;
		for (int64_t r = 0; r < j->F; r++)
			memcpy(S + r * E, state + r * j->E, (size_t)w * sizeof *S);
	}
	for (int64_t t = 0; t < j->T; t++) {
		int64_t at = b * j->T + t;
		const float *k = j->k + (at * j->G + g) * j->F, *v = j->v + (at * j->G + g) * j->E + from;
		const float *a = j->keep ? j->keep + (at * j->G + g) * j->ndecay : NULL;

		if (j->beta) {
			float beta = j->beta[at * j->nbeta + (j->nbeta > 1 ? g : 0)];

			for (int64_t l = 0; l < j->F; l++)
				x[l] = k[l] * kept(j, a, l);
			read_state(j, S, E, x, full, out);
			for (int64_t l = 0; l < w; l++)
				fix[l] = beta * (v[l] - out[l]);
		} else {
			memcpy(fix, v, (size_t)w * sizeof *v);
		}
		for (int64_t r = 0; r < R; r++) {
			int64_t reader = g * R + r;
			const float *q = j->q + (at * j->H + reader * j->H / j->readers) * j->F;
			float *o = j->y + (at * j->readers + reader) * j->E + from;

			if (!r)
				advance(j, S, E, k, a, q, fix, full, out);
			else
				read_state(j, S, E, q, full, out);
			for (int64_t l = 0; l < w; l++)
				o[l] = j->scale * out[l];
		}
	}
	for (int64_t r = 0; r < j->F && full != w; r++)
		memcpy(state + r * j->E, S + r * E, (size_t)w * sizeof *S);
}

/* ---- The operator ---- */

struct exp_job {
	const float *x;
	float *y;
	int64_t n;
};

static void exp_piece(void *ctx, int64_t i)
{
	const struct exp_job *j = ctx;

	v_exp(j->y + i * PIECE, j->x + i * PIECE, j->n - i * PIECE < PIECE ? j->n - i * PIECE : PIECE);
}

static const struct tensor *input(const struct kernel_call *c, int i) { return i < c->nin ? c->in[i] : NULL; }

static bool linear_attention_ok(const struct kernel_call *c)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && c->in[i]->dt != DT_FLOAT)
			return false;
	return c->out[0] && (op_attr_index(c->op, "state_window") < 0 || !attr_get(c->op, c->attr, "state_window")->i);
}

static enum linnet_code linear_attention_run(struct kernel_call *c)
{
	const struct tensor *q = c->in[0], *k = c->in[1], *v = c->in[2], *past = input(c, 3), *decay = input(c, 4), *beta = input(c, 5);
	struct linear_job j = { .q = q->data, .k = k->data, .v = v->data, .beta = beta ? beta->data : NULL, .y = c->out[0]->data, .T = q->d[1],
	                        .H = attr_get(c->op, c->attr, "q_num_heads")->i, .G = attr_get(c->op, c->attr, "kv_num_heads")->i,
	                        .scale = (float)attr_get(c->op, c->attr, "scale")->f };
	struct linnet_error *e = c->e;
	struct exp_job x;
	size_t states;

	j.readers = j.H > j.G ? j.H : j.G;
	j.F = k->d[2] / j.G;
	j.E = v->d[2] / j.G;
	j.ndecay = decay ? decay->d[2] / j.G : 1;
	j.nbeta = beta ? beta->d[2] : 1;
	j.blocks = j.E <= MOST ? 1 : (j.E - ROUND + COLUMNS - 1) / COLUMNS;
	j.room = (size_t)(j.F * (j.E % ROUND ? MOST + 1 : 1));
	if (j.scale == 0)
		j.scale = 1 / sqrtf((float)j.F);
	states = (size_t)(q->d[0] * j.G * j.F * j.E) * sizeof *j.state;
	if (c->nout > 1 && c->out[1])
		j.state = c->out[1]->data;
	else
		TRY_NEW(j.state, c->scratch, q->d[0] * j.G * j.F * j.E);
	if (past)
		memcpy(j.state, past->data, states);
	else
		memset(j.state, 0, states);
	if (decay) {
		x = (struct exp_job){ .x = decay->data, .n = decay->n };
		TRY_NEW(x.y, c->scratch, x.n);
		parallel_for(x.n < 4 * PIECE ? 1 : c->threads, (x.n + PIECE - 1) / PIECE, exp_piece, &x);
		j.keep = x.y;
	}
	TRY_NEW(j.work, c->scratch, (size_t)(q->d[0] * j.G * j.blocks) * j.room);
	parallel_for(q->d[0] * j.G * j.T * j.F * j.E < 1 << 15 ? 1 : c->threads, q->d[0] * j.G * j.blocks, tokens_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(linear_attention) = { .name = "linear_attention", .ok = linear_attention_ok, .run = linear_attention_run };
