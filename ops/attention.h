/* What attention operators share: rows of heads, the softmax over keys, turning pairs by an angle (attention.c). */
#ifndef LINNET_ATTENTION_H
#define LINNET_ATTENTION_H

#include "ops/kernel.h"

/* Numbers addressed by batch, head and time. */
struct heads {
	const double *x;
	int64_t batch, h, t, width;
	int64_t by_batch, by_head, by_time; /* strides */
};

/* [B, H, T, D], and [B, T, H D] or [B, T, ..] whose rows of `step` numbers begin with H D of them. */
struct heads heads_split(const double *x, int64_t batch, int64_t h, int64_t t, int64_t width);
struct heads heads_packed(const double *x, int64_t batch, int64_t t, int64_t h, int64_t width, int64_t step);

static inline const double *heads_row(const struct heads *s, int64_t b, int64_t h, int64_t t)
{
	return s->x + b * s->by_batch + h * s->by_head + t * s->by_time;
}

/* Row t of the past followed by the present. */
static inline const double *heads_cached(const struct heads *past, const struct heads *now, int64_t b, int64_t h, int64_t t)
{
	return t < past->t ? heads_row(past, b, h, t) : heads_row(now, b, h, t - past->t);
}

/* [B, H, rows, D] from element `at` of out (may be NULL) on: the past, the present, and what lies behind the past's rows where it is
 * the beginning of a longer buffer. */
void heads_put(struct tensor *out, int64_t at, int64_t rows, const struct heads *past, const struct heads *now);

/* What is added to a score; minus infinity: the key has no part. */
typedef double bias_fn(const void *rule, int64_t b, int64_t h, int64_t i, int64_t j);

/* The scores as they are at some stage: scaled, capped, with the bias, after the softmax. */
enum { SCORES_SCALED, SCORES_CAPPED, SCORES_BIASED, SCORES_WEIGHTS };

/*
 * Y[i] = sum over j of softmax over j of (cap tanh(scale Q[i].K[j] / cap) + bias[i, j]) V[j], by batch and head;
 * head h of Q reads head h / (H / Hkv) of K and V, which are the past followed by the present. A row that sees no key is 0.
 */
struct attend {
	struct heads q, k, v, past_k, past_v; /* of .t = 0: no past */
	double scale, cap;          /* cap 0: none */
	bias_fn *bias;
	const void *rule;
	const double *sink;         /* by query head: exp(sink) more in the sum the softmax divides by; NULL: none */
	struct tensor *y;           /* may be NULL */
	bool split;                 /* y is [B, H, L, E], else [B, L, H E] */
	struct tensor *scores;      /* [B, H, L, S] or NULL */
	int stage;
};

enum linnet_code attend(const struct attend *a, struct arena *scratch, struct linnet_error *e);

/*
 * y[0..2 n) from x[0..2 n): pair k, (x[k], x[k + n]) or, interleaved, (x[2 k], x[2 k + 1]), turned by an angle:
 * (x cos[k] - y sin[k], x sin[k] + y cos[k]). y may be x.
 */
void turn(double *y, const double *x, const double *cosine, const double *sine, int64_t n, bool interleaved);

#endif
