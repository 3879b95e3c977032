/*
 * Resize in float32, axis by axis: a resampling of many axes is one resampling after the other. Rows behind an axis are combined whole, so
 * memory bounds all axes but the last.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/resize.h"

enum { PIECE = 1 << 14 }; /* elements made by a piece of work */

struct resize_job {
	const float *x;
	float *y;
	const struct taps *taps;
	int64_t n, m, inner; /* lengths in and out, elements of a row */
	int64_t rows, group; /* rows made, all together and by a piece */
};

static int64_t clamped(const struct resize_job *j, int64_t at) { return at < 0 ? 0 : at >= j->n ? j->n - 1 : at; }

/* One row of the output, of `inner` elements: [outer, m, inner] from [outer, n, inner]. */
static void make_row(const struct resize_job *j, int64_t row)
{
	const struct taps *t = &j->taps[row % j->m];
	const float *x = j->x + row / j->m * j->n * j->inner;
	float *restrict y = j->y + row * j->inner;

	if (t->n == 1 && t->w[0] == 1) {
		memcpy(y, x + clamped(j, t->first) * j->inner, (size_t)j->inner * sizeof *y);
		return;
	}
	memset(y, 0, (size_t)j->inner * sizeof *y);
	for (int64_t k = 0; k < t->n; k++) {
		const float *restrict from = x + clamped(j, t->first + k) * j->inner;
		float w = (float)t->w[k];

		for (int64_t i = 0; i < j->inner && w != 0; i++)
			y[i] += w * from[i];
	}
}

/* The same where rows are single elements. */
static void make_elements(const struct resize_job *j, int64_t outer)
{
	const float *restrict x = j->x + outer * j->n;
	float *restrict y = j->y + outer * j->m;

	for (int64_t i = 0; i < j->m; i++) {
		const struct taps *t = &j->taps[i];
		float sum = 0;

		if (t->n == 1 && t->w[0] == 1) {
			y[i] = x[clamped(j, t->first)];
			continue;
		}
		for (int64_t k = 0; k < t->n; k++) {
			float w = (float)t->w[k];

			if (w != 0)
				sum += w * x[clamped(j, t->first + k)];
		}
		y[i] = sum;
	}
}

static void resize_piece(void *ctx, int64_t i)
{
	const struct resize_job *j = ctx;

	for (int64_t row = i * j->group; row < (i + 1) * j->group && row < j->rows; row++) {
		if (j->inner == 1)
			make_elements(j, row);
		else
			make_row(j, row);
	}
}

/* Whether the positions are the axis's own. */
static bool as_is(const struct taps *t, int64_t n, int64_t m)
{
	for (int64_t i = 0; i < m && n == m; i++)
		if (t[i].n != 1 || t[i].first != i || t[i].w[0] != 1)
			return false;
	return n == m;
}

static bool resize_ok(const struct kernel_call *c)
{
	/* what is beyond the input (tf_crop_and_resize) stays with the reference, and tf_half_pixel_for_nn with it */
	return c->in[0]->dt == DT_FLOAT && attr_get(c->op, c->attr, "coordinate_transformation_mode")->s.p[0] != 't';
}

static enum linnet_code resize_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t d[MAX_RANK], total = c->out[0]->n;
	struct linnet_error *e = c->e;
	struct taps *taps[MAX_RANK];
	const float *from = x->data;
	int last = -1;

	if (!total)
		return LINNET_OK;
	TRY(resize_taps(c, taps));
	memcpy(d, x->d, sizeof d);
	for (int k = 0; k < x->rank; k++)
		if (!as_is(taps[k], d[k], c->out[0]->d[k]))
			last = k;
	if (last < 0)
		memcpy(c->out[0]->data, from, c->out[0]->bytes);
	for (int k = 0; k <= last; k++) {
		struct resize_job j = { .x = from, .taps = taps[k], .n = d[k], .m = c->out[0]->d[k], .inner = 1, .rows = 1 };
		float *to = c->out[0]->data;

		if (as_is(taps[k], d[k], j.m))
			continue;
		d[k] = j.m;
		for (int i = 0; i < x->rank; i++)
			*(i <= k ? &j.rows : &j.inner) *= d[i];
		if (k < last)
			TRY_NEW(to, c->scratch, j.rows * j.inner);
		j.y = to;
		j.group = j.inner == 1 ? PIECE / j.m : PIECE / j.inner;
		j.group = j.group ? j.group : 1;
		if (j.inner == 1)
			j.rows /= j.m;
		parallel_for(total < 4 * PIECE ? 1 : c->threads, (j.rows + j.group - 1) / j.group, resize_piece, &j);
		from = to;
	}
	return LINNET_OK;
}

const struct fast FAST_KERNEL(resize) = { .name = "resize/axes", .ok = resize_ok, .run = resize_run };
