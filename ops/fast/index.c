/*
 * TopK, and elements and slices picked or put by index: GatherElements, GatherND, ScatterElements, ScatterND. Memory bounds them; TopK keeps
 * the best k in a heap and compares each other element once.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/kernel.h"

enum { PIECE = 1 << 14 }; /* elements a piece, about */

static const struct tensor *input(const struct kernel_call *c, int i) { return i < c->nin ? c->in[i] : NULL; }

static int axis_of(const struct kernel_call *c, int rank)
{
	int64_t axis = attr_get(c->op, c->attr, "axis")->i;

	return (int)(axis + (axis < 0 ? rank : 0));
}

static int64_t product(const int64_t *d, int from, int to)
{
	int64_t n = 1;

	for (int i = from; i < to; i++)
		n *= d[i];
	return n;
}

/* ---- TopK ---- */

struct topk_job {
	const struct tensor *x, *values, *places;
	int64_t k, length, inner;
	uint64_t *best; /* k of each line */
	bool largest;
};

/* Larger for what comes first; of equal elements the first one. NaN is above all else. */
static uint64_t key_of(const struct topk_job *j, int64_t at, int64_t i)
{
	uint32_t u;
	float f;

	if (j->x->dt == DT_FLOAT) {
		f = ((const float *)j->x->data)[at] + 0.0F; /* -0 is 0 */
		memcpy(&u, &f, sizeof u);
		u = f != f ? UINT32_MAX : u & 0x80000000 ? ~u : u | 0x80000000;
	} else {
		u = (uint32_t)((const int32_t *)j->x->data)[at] ^ 0x80000000;
	}
	return (uint64_t)(j->largest ? u : ~u) << 32 | (UINT32_MAX - (uint32_t)i);
}

/* The heap h[0..n), smallest first, but for h[0]. */
static void sink(uint64_t *h, int64_t n, int64_t i)
{
	uint64_t v = h[i];

	for (int64_t child; (child = 2 * i + 1) < n; i = child) {
		child += child + 1 < n && h[child + 1] < h[child];
		if (h[child] >= v)
			break;
		h[i] = h[child];
	}
	h[i] = v;
}

static void topk_piece(void *ctx, int64_t line)
{
	const struct topk_job *j = ctx;
	int64_t base = line / j->inner * j->length * j->inner + line % j->inner, to = line / j->inner * j->k * j->inner + line % j->inner;
	uint64_t *h = j->best + line * j->k;

	for (int64_t i = 0; i < j->k; i++)
		h[i] = key_of(j, base + i * j->inner, i);
	for (int64_t i = j->k / 2 - 1; i >= 0; i--)
		sink(h, j->k, i);
	for (int64_t i = j->k; i < j->length; i++) {
		uint64_t v = key_of(j, base + i * j->inner, i);

		if (v > h[0]) {
			h[0] = v;
			sink(h, j->k, 0);
		}
	}
	for (int64_t n = j->k - 1; n > 0; n--) { /* the smallest to the end */
		uint64_t v = h[0];

		h[0] = h[n];
		h[n] = v;
		sink(h, n, 0);
	}
	for (int64_t i = 0; i < j->k; i++, to += j->inner) {
		int64_t at = UINT32_MAX - (uint32_t)h[i];

		if (j->values)
			((uint32_t *)j->values->data)[to] = ((const uint32_t *)j->x->data)[base + at * j->inner];
		if (j->places)
			((int64_t *)j->places->data)[to] = at;
	}
}

static bool topk_ok(const struct kernel_call *c)
{
	return (c->in[0]->dt == DT_FLOAT || c->in[0]->dt == DT_INT32) && c->in[0]->rank > 0 &&
	       c->in[0]->d[axis_of(c, c->in[0]->rank)] < INT32_MAX;
}

static enum linnet_code topk_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int axis = axis_of(c, x->rank);
	struct topk_job j = { .x = x, .values = c->out[0], .places = c->nout > 1 ? c->out[1] : NULL, .length = x->d[axis],
	                      .k = tensor_get_int(c->in[1], 0), .inner = product(x->d, axis + 1, x->rank),
	                      .largest = attr_get(c->op, c->attr, "largest")->i != 0 };
	int64_t lines = product(x->d, 0, axis) * j.inner;
	struct linnet_error *e = c->e;

	if (!lines || !j.k)
		return LINNET_OK;
	TRY_NEW(j.best, c->scratch, lines * j.k);
	parallel_for(x->n < PIECE ? 1 : c->threads, lines, topk_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(topk) = { .name = "topk/heap", .ok = topk_ok, .run = topk_run };

/* ---- Elements by index ---- */

static int64_t index_value(const struct tensor *index, int64_t i)
{
	return index->dt == DT_INT64 ? ((const int64_t *)index->data)[i] : ((const int32_t *)index->data)[i];
}

static bool within(const struct tensor *index, int64_t length)
{
	bool good = true;

	for (int64_t i = 0; i < index->n; i++)
		good &= index_value(index, i) >= -length && index_value(index, i) < length;
	return good;
}

static bool whole_bytes(const struct tensor *t)
{
	return t->dt != DT_STRING && dtype_bits(t->dt) % 8 == 0 && dtype_bits(t->dt) <= 64;
}

/* Rows along the last axis of the index: which elements of the other tensor, of lengths d, they name. */
struct elements {
	const struct tensor *index;
	int axis, rank;
	int64_t stride[MAX_RANK], length, row; /* of the other tensor; of its axis; of the index's last axis */
};

static struct elements elements_of(const struct kernel_call *c, const struct tensor *index, const struct tensor *other)
{
	struct elements s = { .index = index, .axis = axis_of(c, other->rank), .rank = other->rank };

	strides(other->rank, other->d, s.stride);
	s.length = other->d[s.axis];
	s.row = index->d[index->rank - 1];
	return s;
}

/* Where row r begins in the other tensor, its axis left out, and how far apart its elements are then. */
static int64_t row_base(const struct elements *s, int64_t r, int64_t *step)
{
	int64_t base = 0;

	for (int k = s->rank - 2; k >= 0; k--) {
		base += k == s->axis ? 0 : r % s->index->d[k] * s->stride[k];
		r /= s->index->d[k];
	}
	*step = s->axis == s->rank - 1 ? 0 : 1;
	return base;
}

static inline int64_t place_of(const struct elements *s, int64_t i)
{
	int64_t v = index_value(s->index, i);

	return (v < 0 ? v + s->length : v) * s->stride[s->axis];
}

struct pick_job {
	struct elements s;
	const unsigned char *x;
	unsigned char *y;
	size_t size;
	int64_t rows, group;
};

static void pick_piece(void *ctx, int64_t piece)
{
	const struct pick_job *j = ctx;
	int64_t to = (piece + 1) * j->group < j->rows ? (piece + 1) * j->group : j->rows, step;

	for (int64_t r = piece * j->group; r < to; r++) {
		int64_t base = row_base(&j->s, r, &step), i = r * j->s.row;

		if (j->size == 4)
			for (int64_t l = 0; l < j->s.row; l++, i++)
				((uint32_t *)j->y)[i] = ((const uint32_t *)j->x)[base + place_of(&j->s, i) + l * step];
		else
			for (int64_t l = 0; l < j->s.row; l++, i++)
				memcpy(j->y + (size_t)i * j->size, j->x + (size_t)(base + place_of(&j->s, i) + l * step) * j->size, j->size);
	}
}

static bool gather_elements_ok(const struct kernel_call *c)
{
	return whole_bytes(c->in[0]) && c->in[0]->rank > 0 && c->in[1]->rank == c->in[0]->rank;
}

static enum linnet_code gather_elements_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *index = c->in[1];
	struct pick_job j = { .s = elements_of(c, index, x), .x = x->data, .y = c->out[0]->data, .size = dtype_bytes(x->dt, 1) };

	if (!index->n)
		return LINNET_OK;
	if (!within(index, j.s.length))
		return c->op->kernel(c); /* which says so */
	j.rows = index->n / j.s.row;
	j.group = PIECE / j.s.row + 1;
	parallel_for(index->n < 4 * PIECE ? 1 : c->threads, (j.rows + j.group - 1) / j.group, pick_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(gather_elements) = { .name = "gather/elements", .ok = gather_elements_ok, .run = gather_elements_run };

/* Elements that replace, or are added in float; one after the other, as several may have the same place. */
enum scatter { REPLACE, ADD, OTHER };

static enum scatter scatter_of(const struct kernel_call *c)
{
	const struct text s = attr_get(c->op, c->attr, "reduction")->s;

	return s.n == 4 && !memcmp(s.p, "none", 4)                                    ? REPLACE
	       : s.n == 3 && !memcmp(s.p, "add", 3) && c->in[0]->dt == DT_FLOAT ? ADD
	                                                                                : OTHER;
}

/* The output holds the data. It may be the memory of any input: the others are then read from a copy. */
static enum linnet_code begin_scatter(struct kernel_call *c, const struct tensor *in[3], struct kernel_call *inner)
{
	*inner = *c;
	in[0] = c->in[0];
	for (int i = 1; i < 3; i++) {
		struct tensor *copy;

		in[i] = c->in[i];
		if (in[i]->data == c->out[0]->data && in[i]->n) {
			TRY(tensor_dup(c->scratch, in[i], &copy, c->e));
			in[i] = copy;
		}
	}
	inner->in = in;
	return LINNET_OK;
}

static void begin_output(const struct kernel_call *c)
{
	if (c->out[0]->data != c->in[0]->data && c->out[0]->bytes)
		memcpy(c->out[0]->data, c->in[0]->data, c->out[0]->bytes);
}

static bool scatter_elements_ok(const struct kernel_call *c)
{
	return whole_bytes(c->in[0]) && c->in[0]->rank > 0 && c->in[1]->rank == c->in[0]->rank && scatter_of(c) != OTHER;
}

static enum linnet_code scatter_elements_run(struct kernel_call *c)
{
	const struct tensor *in[3];
	struct kernel_call inner;
	struct tensor *y = c->out[0];
	size_t size = dtype_bytes(y->dt, 1);
	struct elements s;
	int64_t step;

	TRY(begin_scatter(c, in, &inner));
	s = elements_of(c, in[1], y);
	if (!within(in[1], s.length))
		return c->op->kernel(&inner);
	begin_output(c);
	for (int64_t r = 0; in[1]->n && r < in[1]->n / s.row; r++) {
		int64_t base = row_base(&s, r, &step), i = r * s.row;

		for (int64_t l = 0; l < s.row; l++, i++) {
			int64_t to = base + place_of(&s, i) + l * step;

			if (scatter_of(c) == ADD)
				((float *)y->data)[to] += ((const float *)in[2]->data)[i];
			else
				memcpy((unsigned char *)y->data + (size_t)to * size, (const unsigned char *)in[2]->data + (size_t)i * size, size);
		}
	}
	return LINNET_OK;
}

const struct fast FAST_KERNEL(scatter_elements) = { .name = "scatter/elements", .ok = scatter_elements_ok, .run = scatter_elements_run,
	                                            .inplace = true };

/* ---- Slices by tuples of indices ---- */

struct tuples {
	const struct tensor *index;
	int64_t width, n, slice;                        /* members of a tuple; tuples; elements of a slice */
	int64_t length[MAX_RANK], stride[MAX_RANK];     /* of the axes they name */
	int64_t block, each;                            /* elements of a batch, tuples of one */
};

static struct tuples tuples_of(const struct tensor *index, const struct tensor *data, int batch)
{
	struct tuples t = { .index = index, .width = index->d[index->rank - 1], .n = product(index->d, 0, index->rank - 1) };
	int64_t stride[MAX_RANK], batches = product(data->d, 0, batch);

	strides(data->rank, data->d, stride);
	for (int64_t k = 0; k < t.width; k++) {
		t.length[k] = data->d[batch + k];
		t.stride[k] = stride[batch + k];
	}
	t.slice = product(data->d, batch + (int)t.width, data->rank);
	t.block = product(data->d, batch, data->rank);
	t.each = batches ? t.n / batches : 1;
	return t;
}

/* Where tuple i points; -1 outside. */
static int64_t tuple_at(const struct tuples *t, int64_t i)
{
	int64_t at = i / t->each * t->block;

	for (int64_t k = 0; k < t->width; k++) {
		int64_t v = index_value(t->index, i * t->width + k);

		v += v < 0 ? t->length[k] : 0;
		if (v < 0 || v >= t->length[k])
			return -1;
		at += v * t->stride[k];
	}
	return at;
}

static bool tuples_within(const struct tuples *t)
{
	for (int64_t i = 0; i < t->n; i++)
		if (tuple_at(t, i) < 0)
			return false;
	return true;
}

struct slices_job {
	struct tuples t;
	const unsigned char *x;
	unsigned char *y;
	size_t bytes; /* of a slice */
	size_t size;
	int64_t group;
};

static void slices_piece(void *ctx, int64_t piece)
{
	const struct slices_job *j = ctx;
	int64_t to = (piece + 1) * j->group < j->t.n ? (piece + 1) * j->group : j->t.n;

	for (int64_t i = piece * j->group; i < to; i++)
		memcpy(j->y + (size_t)i * j->bytes, j->x + (size_t)tuple_at(&j->t, i) * j->size, j->bytes);
}

static bool gather_nd_ok(const struct kernel_call *c) { return whole_bytes(c->in[0]) && c->in[1]->dt == DT_INT64; }

static enum linnet_code gather_nd_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct slices_job j = { .x = x->data, .y = c->out[0]->data, .size = dtype_bytes(x->dt, 1) };

	if (!c->out[0]->n)
		return c->op->kernel(c);
	j.t = tuples_of(c->in[1], x, (int)attr_get(c->op, c->attr, "batch_dims")->i);
	if (!tuples_within(&j.t))
		return c->op->kernel(c);
	j.bytes = (size_t)j.t.slice * j.size;
	j.group = PIECE / j.t.slice + 1;
	parallel_for(c->out[0]->n < 4 * PIECE ? 1 : c->threads, (j.t.n + j.group - 1) / j.group, slices_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(gather_nd) = { .name = "gather/slices", .ok = gather_nd_ok, .run = gather_nd_run };

static bool scatter_nd_ok(const struct kernel_call *c)
{
	return whole_bytes(c->in[0]) && c->in[1]->dt == DT_INT64 && input(c, 2) && scatter_of(c) != OTHER;
}

static enum linnet_code scatter_nd_run(struct kernel_call *c)
{
	const struct tensor *in[3];
	struct kernel_call inner;
	struct tensor *y = c->out[0];
	size_t size = dtype_bytes(y->dt, 1);
	struct tuples t;

	TRY(begin_scatter(c, in, &inner));
	t = tuples_of(in[1], y, 0);
	if (!tuples_within(&t))
		return c->op->kernel(&inner);
	begin_output(c);
	for (int64_t i = 0; i < t.n && t.slice; i++) {
		int64_t to = tuple_at(&t, i);
		const unsigned char *u = (const unsigned char *)in[2]->data + (size_t)(i * t.slice) * size;

		if (scatter_of(c) == ADD)
			for (int64_t l = 0; l < t.slice; l++)
				((float *)y->data)[to + l] += ((const float *)(const void *)u)[l];
		else
			memcpy((unsigned char *)y->data + (size_t)to * size, u, (size_t)t.slice * size);
	}
	return LINNET_OK;
}

const struct fast FAST_KERNEL(scatter_nd) = { .name = "scatter/slices", .ok = scatter_nd_ok, .run = scatter_nd_run, .inplace = true };
