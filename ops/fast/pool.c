/*
 * MaxPool, AveragePool and their global forms in float32. A channel at a time, which stays in the first or second cache; windows are gone
 * through tap by tap along the last axis, in the order of the reference kernel. Memory bounds it.
 */
#include <math.h>

#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/window.h"

enum { SMALL = 1 << 15, LANES = 16 }; /* elements times taps not worth threads; partial sums */

struct pool_job {
	const float *x;
	float *y;
	enum pool kind;
	struct window win;
	int64_t plane, P;        /* elements of a channel, in and out */
	const int64_t *count[3]; /* elements to divide by, by axis and position */
};

/* The larger, the first of equals, the first that is not a number. */
static float larger_first(float best, float x)
{
	return x > best || (x != x && best == best) ? x : best;
}

static void pool_line(enum pool kind, float *restrict y, const float *restrict x, int64_t n, int64_t stride)
{
	if (kind == POOL_MAX && stride == 1)
		for (int64_t i = 0; i < n; i++)
			y[i] = larger_first(y[i], x[i]);
	else if (kind == POOL_MAX)
		for (int64_t i = 0; i < n; i++)
			y[i] = larger_first(y[i], x[i * stride]);
	else
		for (int64_t i = 0; i < n; i++)
			y[i] += x[i * stride];
}

static void pool_channel(void *ctx, int64_t channel)
{
	const struct pool_job *j = ctx;
	const struct window *w = &j->win;
	const float *x = j->x + channel * j->plane;
	float *y = j->y + channel * j->P;

	for (int64_t p = 0; p < j->P; p++)
		y[p] = j->kind == POOL_MAX ? -INFINITY : 0;
	for (int64_t k0 = 0; k0 < w->taps[0]; k0++)
		for (int64_t k1 = 0; k1 < w->taps[1]; k1++)
			for (int64_t k2 = 0; k2 < w->taps[2]; k2++) {
				struct span s0 = window_readers(w, 0, k0), s1 = window_readers(w, 1, k1), s2 = window_readers(w, 2, k2);

				for (int64_t o0 = s0.from; o0 < s0.to && s2.from < s2.to; o0++)
					for (int64_t o1 = s1.from; o1 < s1.to; o1++)
						pool_line(j->kind, y + at3(w->out, o0, o1, s2.from),
						          x + at3(w->in, o0 * w->stride[0] - w->begin[0] + k0 * w->dilation[0],
						                  o1 * w->stride[1] - w->begin[1] + k1 * w->dilation[1],
						                  s2.from * w->stride[2] - w->begin[2] + k2 * w->dilation[2]),
						          s2.to - s2.from, w->stride[2]);
			}
	if (j->kind == POOL_AVERAGE)
		for (int64_t p = 0; p < j->P; p++)
			y[p] /= (float)(j->count[0][p / w->out[2] / w->out[1]] * j->count[1][p / w->out[2] % w->out[1]] *
			                j->count[2][p % w->out[2]]);
}

/* Floats, and no places asked for. */
static bool pool_ok(const struct kernel_call *c)
{
	return c->in[0]->dt == DT_FLOAT && c->out[0] && (c->nout < 2 || !c->out[1]);
}

static enum linnet_code pool_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct pool_job j = { .x = x->data, .y = c->out[0]->data, .kind = *(const enum pool *)c->op->param };
	bool include = attr_get(c->op, c->attr, "count_include_pad")->i != 0;
	struct shape s = shape_of(x);
	struct window *w = &j.win;
	struct linnet_error *e = c->e;
	int64_t *count, taps;

	if (!c->out[0]->n)
		return LINNET_OK;
	TRY(window_read(c->op, c->attr, &s, NULL, w, e));
	TRY(window_slide(NULL, c->op, c->attr, w, e));
	for (int k = 0; k < SPACE; k++) {
		TRY_NEW(count, c->scratch, w->out[k]);
		for (int64_t o = 0; o < w->out[k]; o++) {
			struct span in = window_inside(w, k, o, w->in[k]);

			count[o] = include ? window_inside(w, k, o, w->in[k] + w->end[k]).to : in.to - in.from;
		}
		j.count[k] = count;
	}
	j.plane = w->in[0] * w->in[1] * w->in[2];
	j.P = w->out[0] * w->out[1] * w->out[2];
	taps = w->taps[0] * w->taps[1] * w->taps[2];
	parallel_for(taps < SMALL && c->out[0]->n * taps < SMALL ? 1 : c->threads, x->d[0] * x->d[1], pool_channel, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(pool) = { .name = "pool/float", .ok = pool_ok, .run = pool_run };

/* ---- Over all of a channel ---- */

static void global_channel(void *ctx, int64_t channel)
{
	const struct pool_job *j = ctx;
	const float *restrict x = j->x + channel * j->plane;
	float s[LANES] = { 0 }, best = -INFINITY;
	int64_t i = 0;

	if (j->kind == POOL_MAX) {
		for (; i < j->plane; i++)
			best = larger_first(best, x[i]);
		j->y[channel] = best;
		return;
	}
	for (; i + LANES <= j->plane; i += LANES)
		for (int l = 0; l < LANES; l++)
			s[l] += x[i + l];
	for (; i < j->plane; i++)
		s[i % LANES] += x[i];
	for (int w = LANES / 2; w; w /= 2)
		for (int l = 0; l < w; l++)
			s[l] += s[l + w];
	j->y[channel] = s[0] / (float)j->plane;
}

static bool global_ok(const struct kernel_call *c) { return c->in[0]->dt == DT_FLOAT; }

static enum linnet_code global_run(struct kernel_call *c)
{
	int64_t n = c->out[0]->n;
	struct pool_job j = { .x = c->in[0]->data, .y = c->out[0]->data, .kind = *(const enum pool *)c->op->param,
	                      .plane = n ? c->in[0]->n / n : 0 };

	parallel_for(c->in[0]->n < SMALL ? 1 : c->threads, n, global_channel, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(global_pool) = { .name = "global_pool/float", .ok = global_ok, .run = global_run };
