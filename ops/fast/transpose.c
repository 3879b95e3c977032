/*
 * Transposition. Memory bounds it: axes that move together are merged, whole lines are copied where the last axis stays, and else the two axes
 * that change places at the bottom are walked in square tiles, so that both sides use whole cache lines.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/fast/fast.h"

enum { TILE = 16, MIN_PARALLEL = 1 << 16 };

struct turn {
	const char *x;
	char *y;
	size_t size; /* of an element */
	int rank;
	int64_t d[MAX_RANK];      /* output lengths */
	int64_t stride[MAX_RANK]; /* input strides of the output axes, elements */
	int64_t inner;            /* output elements below the axes cut into pieces */
	int cut;                  /* axes cut */
};

static int64_t offset_of(const struct turn *t, int64_t piece)
{
	int64_t at = 0;

	for (int i = t->cut - 1; i >= 0; i--) {
		at += piece % t->d[i] * t->stride[i];
		piece /= t->d[i];
	}
	return at;
}

/* The last axis keeps its place: lines. */
static void turn_lines(void *ctx, int64_t piece)
{
	const struct turn *t = ctx;

	memcpy(t->y + (size_t)(piece * t->inner) * t->size, t->x + (size_t)offset_of(t, piece) * t->size, (size_t)t->inner * t->size);
}

#define TILES(type)                                                                                \
	static void turn_##type(type *restrict y, const type *restrict x, int64_t a, int64_t b, int64_t sa, int64_t sb) \
	{                                                                                          \
		for (int64_t i0 = 0; i0 < a; i0 += TILE)                                           \
			for (int64_t j0 = 0; j0 < b; j0 += TILE)                                   \
				for (int64_t i = i0; i < i0 + TILE && i < a; i++)                  \
					for (int64_t j = j0; j < j0 + TILE && j < b; j++)          \
						y[i * b + j] = x[i * sa + j * sb];                 \
	}

TILES(uint8_t)
TILES(uint16_t)
TILES(uint32_t)
TILES(uint64_t)

/* The last two output axes in tiles. */
static void turn_tiles(void *ctx, int64_t piece)
{
	const struct turn *t = ctx;
	int64_t a = t->d[t->rank - 2], b = t->d[t->rank - 1], sa = t->stride[t->rank - 2], sb = t->stride[t->rank - 1];
	char *y = t->y + (size_t)(piece * t->inner) * t->size;
	const char *x = t->x + (size_t)offset_of(t, piece) * t->size;

	switch (t->size) {
	case 1: turn_uint8_t((uint8_t *)y, (const uint8_t *)x, a, b, sa, sb); break;
	case 2: turn_uint16_t((uint16_t *)(void *)y, (const uint16_t *)(const void *)x, a, b, sa, sb); break;
	case 4: turn_uint32_t((uint32_t *)(void *)y, (const uint32_t *)(const void *)x, a, b, sa, sb); break;
	default: turn_uint64_t((uint64_t *)(void *)y, (const uint64_t *)(const void *)x, a, b, sa, sb); break;
	}
}

static bool transpose_ok(const struct kernel_call *c)
{
	unsigned bits = dtype_bits(c->in[0]->dt);

	return c->in[0]->dt != DT_STRING && (bits == 8 || bits == 16 || bits == 32 || bits == 64);
}

/* Output axes whose input axes follow each other become one. */
static void merge(struct turn *t, const struct tensor *x, const int64_t *perm)
{
	int64_t stride[MAX_RANK], s = 1;
	int last = -2;

	for (int i = x->rank - 1; i >= 0; i--) {
		stride[i] = s;
		s *= x->d[i];
	}
	for (int i = 0; i < x->rank; i++) {
		int from = (int)perm[i];

		if (x->d[from] == 1)
			continue;
		if (t->rank && from > last && stride[last] == stride[from] * x->d[from]) {
			t->d[t->rank - 1] *= x->d[from];
			t->stride[t->rank - 1] = stride[from];
		} else {
			t->d[t->rank] = x->d[from];
			t->stride[t->rank++] = stride[from];
		}
		last = from;
	}
}

static enum linnet_code transpose_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	const struct attr *a = attr_get(c->op, c->attr, "perm");
	struct turn t = { .x = x->data, .y = c->out[0]->data, .size = dtype_bits(x->dt) / 8 };
	int64_t perm[MAX_RANK], pieces = 1;
	bool lines;

	if (!x->n)
		return LINNET_OK;
	for (int i = 0; i < x->rank; i++)
		perm[i] = a->kind == ATTR_INTS ? a->ints[i] : x->rank - 1 - i;
	merge(&t, x, perm);
	if (t.rank <= 1) {
		memcpy(t.y, t.x, x->bytes);
		return LINNET_OK;
	}
	lines = t.stride[t.rank - 1] == 1;
	t.cut = lines ? t.rank - 1 : t.rank - 2;
	t.inner = lines ? t.d[t.rank - 1] : t.d[t.rank - 1] * t.d[t.rank - 2];
	for (int i = 0; i < t.cut; i++)
		pieces *= t.d[i];
	if (lines && x->n < MIN_PARALLEL)
		for (int64_t i = 0; i < pieces; i++)
			turn_lines(&t, i);
	else
		parallel_for(x->n < MIN_PARALLEL ? 1 : c->threads, pieces, lines ? turn_lines : turn_tiles, &t);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(transpose) = { .name = "transpose/tiled", .ok = transpose_ok, .run = transpose_run };
