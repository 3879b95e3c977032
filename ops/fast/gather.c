/*
 * Gather of elements of whole bytes: rows of `inner` elements, picked by index, copied one after the other. Memory bounds it: each row is read
 * and written once.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/fast/fast.h"

enum { PIECE = 1 << 16 }; /* bytes a piece, about */

struct gather_job {
	const unsigned char *x;
	unsigned char *y;
	const struct tensor *index;
	int64_t length, rows, group; /* of the axis; rows to write: outer x indices; rows a piece */
	size_t row;                  /* bytes */
};

static int64_t place(const struct gather_job *j, int64_t i)
{
	int64_t at = j->index->dt == DT_INT64 ? ((const int64_t *)j->index->data)[i] : ((const int32_t *)j->index->data)[i];

	return at < 0 ? at + j->length : at;
}

static void gather_piece(void *ctx, int64_t piece)
{
	const struct gather_job *j = ctx;
	int64_t from = piece * j->group, to = from + j->group < j->rows ? from + j->group : j->rows;

	for (int64_t r = from; r < to; r++) {
		int64_t outer = r / j->index->n, at = place(j, r % j->index->n);
		const unsigned char *x = j->x + (size_t)(outer * j->length + at) * j->row;
		unsigned char *y = j->y + (size_t)r * j->row;

		if (j->row == 4)
			memcpy(y, x, 4);
		else
			memcpy(y, x, j->row);
	}
}

static bool gather_ok(const struct kernel_call *c)
{
	return c->in[0]->dt == DT_STRING || dtype_bits(c->in[0]->dt) % 8 == 0;
}

static enum linnet_code gather_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t axis = attr_get(c->op, c->attr, "axis")->i, outer = 1;
	struct gather_job j = { .x = x->data, .y = c->out[0]->data, .index = c->in[1], .row = dtype_bytes(x->dt, 1) };

	axis += axis < 0 ? x->rank : 0;
	for (int i = 0; i < x->rank; i++)
		if (i < axis)
			outer *= x->d[i];
		else if (i > axis)
			j.row *= (size_t)x->d[i];
	j.length = x->d[axis];
	j.rows = outer * j.index->n;
	for (int64_t i = 0; i < j.index->n; i++)
		if (place(&j, i) < 0 || place(&j, i) >= j.length)
			return c->op->kernel(c); /* which says so */
	if (!j.rows || !j.row)
		return LINNET_OK;
	j.group = PIECE / (int64_t)j.row + 1;
	parallel_for(c->out[0]->bytes < 4 * PIECE ? 1 : c->threads, (j.rows + j.group - 1) / j.group, gather_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(gather) = { .name = "gather", .ok = gather_ok, .run = gather_run };
