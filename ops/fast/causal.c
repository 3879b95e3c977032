/*
 * CausalConvWithState in float32. With x the state, or zeros, followed by the input: y[t] = f(bias + sum over j of w[j] x[t + j d]). Channels of a
 * line each are done along the tokens; channels side by side a token at a time, along the channels. Memory bounds it: few taps pass over what is read once.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/fast/vmath.h"
#include "ops/linear.h"

VARRAY(exp)

enum { LINES = 16, TOKENS = 64, TILE = 256, SMALL = 1 << 15 }; /* channels, tokens a piece; numbers at a time; products that are not worth threads */

struct causal_job {
	const float *x, *w, *bias, *past; /* w [C, taps], of channels side by side turned, [taps, C] */
	float *y, *present;
	int64_t L, C, taps, d, need; /* need: tokens of the state */
	int64_t blocks;              /* pieces of a sample */
	bool silu;
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void silu(float *restrict y, int64_t n)
{
	float e[TILE];

	for (int64_t i = 0; i < n; i += TILE) {
		int64_t m = least(n - i, TILE);

		for (int64_t k = 0; k < m; k++)
			e[k] = -y[i + k];
		v_exp(e, e, m);
		for (int64_t k = 0; k < m; k++)
			y[i + k] /= 1 + e[k];
	}
}

/* ---- Lines ---- */

static inline void filter(float *restrict y, const float *restrict x, const float *restrict w, float bias, int64_t n, int64_t d, int64_t taps)
{
	for (int64_t t = 0; t < n; t++) {
		float sum = bias;

		for (int64_t j = 0; j < taps; j++)
			sum += w[j] * x[t + j * d];
		y[t] = sum;
	}
}

static void filter_any(float *restrict y, const float *restrict x, const float *restrict w, float bias, int64_t n, int64_t d, int64_t taps)
{
	for (int64_t t0 = 0; t0 < n; t0 += TILE) {
		int64_t m = least(n - t0, TILE);

		for (int64_t t = 0; t < m; t++)
			y[t0 + t] = bias;
		for (int64_t j = 0; j < taps; j++)
			for (int64_t t = 0; t < m; t++)
				y[t0 + t] += w[j] * x[t0 + t + j * d];
	}
}

/* Number i of the state followed by the input. */
static inline float of_both(const float *past, const float *x, int64_t need, int64_t i) { return i >= need ? x[i - need] : past ? past[i] : 0; }

static void line(const struct causal_job *j, int64_t row, int64_t channel)
{
	const float *x = j->x + row * j->L, *past = j->past ? j->past + row * j->need : NULL, *w = j->w + channel * j->taps;
	float *y = j->y ? j->y + row * j->L : NULL, bias = j->bias ? j->bias[channel] : 0;
	int64_t first = least(j->L, j->need), n = j->L - first;

	for (int64_t t = 0; y && t < first; t++) {
		y[t] = bias;
		for (int64_t i = 0; i < j->taps; i++)
			y[t] += w[i] * of_both(past, x, j->need, t + i * j->d);
	}
	if (y && j->taps == 4 && j->d == 1)
		filter(y + first, x, w, bias, n, 1, 4);
	else if (y && j->taps == 3 && j->d == 1)
		filter(y + first, x, w, bias, n, 1, 3);
	else if (y)
		filter_any(y + first, x, w, bias, n, j->d, j->taps);
	for (int64_t i = 0; j->present && i < j->need; i++)
		j->present[row * j->need + i] = of_both(past, x, j->need, j->L + i);
}

static void lines(void *ctx, int64_t piece)
{
	const struct causal_job *j = ctx;
	int64_t b = piece / j->blocks, from = piece % j->blocks * LINES, to = least(from + LINES, j->C);

	for (int64_t c = from; c < to; c++)
		line(j, b * j->C + c, c);
	if (j->silu && j->y)
		silu(j->y + (b * j->C + from) * j->L, (to - from) * j->L);
}

/* ---- Side by side ---- */

/* Row i of the state followed by the input; NULL: zeros. */
static const float *row_of(const struct causal_job *j, int64_t b, int64_t i)
{
	return i >= j->need ? j->x + (b * j->L + i - j->need) * j->C : j->past ? j->past + (b * j->need + i) * j->C : NULL;
}

static void add_taps(float *restrict y, const float *restrict x, const float *restrict w, int64_t n)
{
	for (int64_t c = 0; c < n; c++)
		y[c] += w[c] * x[c];
}

static void tokens(void *ctx, int64_t piece)
{
	const struct causal_job *j = ctx;
	int64_t b = piece / j->blocks, from = piece % j->blocks * TOKENS, to = least(from + TOKENS, j->L), C = j->C;

	for (int64_t t = from; j->y && t < to; t++) {
		float *y = j->y + (b * j->L + t) * C;

		for (int64_t c = 0; c < C; c += TILE) {
			int64_t m = least(C - c, TILE);

			if (j->bias)
				memcpy(y + c, j->bias + c, (size_t)m * sizeof *y);
			else
				memset(y + c, 0, (size_t)m * sizeof *y);
			for (int64_t i = 0; i < j->taps; i++) {
				const float *x = row_of(j, b, t + i * j->d);

				if (x)
					add_taps(y + c, x + c, j->w + i * C + c, m);
			}
			if (j->silu)
				silu(y + c, m);
		}
	}
	for (int64_t i = 0; j->present && to == j->L && i < j->need; i++) {
		const float *x = row_of(j, b, j->L + i);
		float *end = j->present + (b * j->need + i) * C;

		if (x)
			memcpy(end, x, (size_t)C * sizeof *end);
		else
			memset(end, 0, (size_t)C * sizeof *end);
	}
}

/* Weights [C, 1, taps] as [taps, C]. */
static enum linnet_code turn(const struct tensor *w, struct arena *a, float **to, struct linnet_error *e)
{
	int64_t C = w->d[0], taps = w->d[2];

	TRY_NEW(*to, a, w->n);
	for (int64_t j = 0; j < taps; j++)
		for (int64_t c = 0; c < C; c++)
			(*to)[j * C + c] = ((const float *)w->data)[c * taps + j];
	return LINNET_OK;
}

/* ---- The kernel ---- */

static bool causal_ok(const struct kernel_call *c)
{
	struct causal l = causal_of(c->op, c->attr);

	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && c->in[i]->dt != DT_FLOAT)
			return false;
	return !l.extended && !l.window;
}

static enum linnet_code causal_prepare(const struct op *op, const struct attr *attr, int nin, const struct tensor *const *constant, struct arena *a,
                                       void **prepared, struct linnet_error *e)
{
	const struct tensor *w = nin > CONV_WEIGHT ? constant[CONV_WEIGHT] : NULL;
	float *to;

	if (!w || w->dt != DT_FLOAT || !causal_of(op, attr).last)
		return LINNET_OK;
	TRY(turn(w, a, &to, e));
	*prepared = to;
	return LINNET_OK;
}

static enum linnet_code causal_run(struct kernel_call *c)
{
	struct causal l = causal_of(c->op, c->attr);
	const struct tensor *x = c->in[CONV_INPUT], *w = c->in[CONV_WEIGHT];
	struct causal_job j = { .x = x->data, .w = w->data, .bias = c->nin > CONV_BIAS && c->in[CONV_BIAS] ? c->in[CONV_BIAS]->data : NULL,
		                .past = c->nin > CONV_PAST && c->in[CONV_PAST] ? c->in[CONV_PAST]->data : NULL,
		                .y = c->out[0] ? c->out[0]->data : NULL, .present = c->nout > 1 && c->out[1] ? c->out[1]->data : NULL,
		                .L = x->d[l.last ? 1 : 2], .C = w->d[0], .taps = w->d[2], .d = l.dilation, .need = (w->d[2] - 1) * l.dilation,
		                .silu = attr_get(c->op, c->attr, "activation")->s.p[0] == 's' };
	int threads = x->n * j.taps < SMALL ? 1 : c->threads;

	if (!j.C)
		return LINNET_OK;
	j.blocks = l.last ? (j.L + TOKENS - 1) / TOKENS : (j.C + LINES - 1) / LINES;
	if (!j.blocks)
		j.blocks = 1; /* no tokens: the state stays */
	if (l.last) {
		float *to = c->prepared;

		if (!to)
			TRY(turn(w, c->scratch, &to, c->e));
		j.w = to;
	}
	parallel_for(threads, x->d[0] * j.blocks, l.last ? tokens : lines, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(causal_conv) = { .name = "causal_conv/float", .ok = causal_ok, .prepare = causal_prepare, .run = causal_run };
