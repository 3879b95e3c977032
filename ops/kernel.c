/* What reference kernels share: copying elements of any type, walking over positions. */
#include "ops/kernel.h"

#include <string.h>

/* Bits of an element that shares its byte with others, else 0. */
static unsigned packed_bits(enum dtype t)
{
	unsigned bits = dtype_bits(t);

	return bits == 2 || bits == 4 ? bits : 0;
}

static unsigned get_bits(const struct tensor *t, int64_t i, unsigned bits)
{
	int64_t per = 8 / bits;
	unsigned byte = ((const uint8_t *)t->data)[i / per];

	return byte >> (unsigned)(i % per) * bits & ((1u << bits) - 1);
}

static void put_bits(struct tensor *t, int64_t j, unsigned bits, unsigned v)
{
	int64_t per = 8 / bits;
	unsigned shift = (unsigned)(j % per) * bits, mask = ((1u << bits) - 1) << shift;
	uint8_t *byte = (uint8_t *)t->data + j / per;

	if (j == t->n - 1)
		mask = 0xffu << shift;
	*byte = (uint8_t)((*byte & ~mask) | v << shift);
}

void element_copy(struct tensor *dst, int64_t j, const struct tensor *src, int64_t i)
{
	unsigned bits = packed_bits(dst->dt);
	size_t size = dtype_bytes(dst->dt, 1);

	if (bits)
		put_bits(dst, j, bits, get_bits(src, i, bits));
	else
		memcpy((char *)dst->data + (size_t)j * size, (const char *)src->data + (size_t)i * size, size);
}

void element_zero(struct tensor *dst, int64_t j)
{
	unsigned bits = packed_bits(dst->dt);
	size_t size = dtype_bytes(dst->dt, 1);

	if (bits)
		put_bits(dst, j, bits, 0);
	else
		memset((char *)dst->data + (size_t)j * size, 0, size);
}

void tensor_copy(struct tensor *dst, const struct tensor *src)
{
	if (dst->bytes)
		memcpy(dst->data, src->data, dst->bytes);
}

enum linnet_code give_members(struct kernel_call *c, int out, int64_t n, struct tensor ***member)
{
	struct linnet_error *e = c->e;

	TRY_NEW(*member, c->scratch, n);
	c->out[out]->data = *member;
	c->out[out]->n = n;
	return LINNET_OK;
}

void strides(int rank, const int64_t *d, int64_t *stride)
{
	int64_t s = 1;

	for (int k = rank - 1; k >= 0; k--) {
		stride[k] = s;
		s *= d[k];
	}
}

bool next_position(int rank, const int64_t *d, int64_t *at)
{
	for (int k = rank - 1; k >= 0; k--) {
		if (++at[k] < d[k])
			return true;
		at[k] = 0;
	}
	return false;
}

/* n elements, both sides strided. */
static void copy_run(struct tensor *dst, int64_t to, int64_t to_stride, const struct tensor *src, int64_t from,
                     int64_t from_stride, int64_t n)
{
	size_t size = dtype_bytes(dst->dt, 1);

	if (packed_bits(dst->dt)) {
		for (int64_t i = 0; i < n; i++)
			element_copy(dst, to + i * to_stride, src, from + i * from_stride);
		return;
	}
	if (to_stride == 1 && from_stride == 1) {
		memcpy((char *)dst->data + (size_t)to * size, (const char *)src->data + (size_t)from * size, (size_t)n * size);
		return;
	}
#define RUN(type)                                                                                  \
	for (int64_t i = 0; i < n; i++)                                                            \
		((type *)dst->data)[to + i * to_stride] = ((const type *)src->data)[from + i * from_stride]
	switch (size == dtype_align(dst->dt) ? size : 0) { /* pairs and strings are aligned less */
	case 1: RUN(uint8_t); break;
	case 2: RUN(uint16_t); break;
	case 4: RUN(uint32_t); break;
	case 8: RUN(uint64_t); break;
	default:
		for (int64_t i = 0; i < n; i++)
			element_copy(dst, to + i * to_stride, src, from + i * from_stride);
	}
#undef RUN
}

void copy_box(struct tensor *dst, int64_t to, const int64_t *to_stride, const struct tensor *src, int64_t from,
              const int64_t *from_stride, int rank, const int64_t *d)
{
	int64_t len[BOX_RANK], ts[BOX_RANK], fs[BOX_RANK], at[BOX_RANK] = { 0 };
	int n = 0;

	/* axes of length 1 go, neighbours that are one axis on both sides are joined */
	for (int k = 0; k < rank; k++) {
		if (d[k] == 0)
			return;
		if (d[k] == 1)
			continue;
		if (n && ts[n - 1] == d[k] * to_stride[k] && fs[n - 1] == d[k] * from_stride[k]) {
			len[n - 1] *= d[k];
			ts[n - 1] = to_stride[k];
			fs[n - 1] = from_stride[k];
			continue;
		}
		len[n] = d[k];
		ts[n] = to_stride[k];
		fs[n++] = from_stride[k];
	}
	if (n == 0) {
		element_copy(dst, to, src, from);
		return;
	}
	n--;
	do {
		int64_t t = to, f = from;

		for (int k = 0; k < n; k++) {
			t += at[k] * ts[k];
			f += at[k] * fs[k];
		}
		copy_run(dst, t, ts[n], src, f, fs[n], len[n]);
	} while (next_position(n, len, at));
}

/* Whether axis k of the output continues the walk's last axis, for every input. */
static bool joins(const struct walk *w, int64_t stride[][MAX_RANK], int k, int64_t d)
{
	for (int i = 0; i < w->nin; i++)
		if (w->stride[i][w->rank - 1] != stride[i][k] * d)
			return false;
	return true;
}

void walk_init(struct walk *w, const struct tensor *out, int nin, const struct tensor *const *in)
{
	int64_t stride[WALK_MAX][MAX_RANK] = { { 0 } };

	*w = (struct walk){ .n = 1, .nin = nin, .lines = 1 };
	for (int i = 0; i < nin; i++)
		if (in[i])
			broadcast_strides(in[i], out->rank, stride[i]);
	for (int k = 0; k < out->rank; k++) {
		if (out->d[k] == 1)
			continue;
		if (w->rank && joins(w, stride, k, out->d[k]))
			w->d[w->rank - 1] *= out->d[k];
		else
			w->d[w->rank++] = out->d[k];
		for (int i = 0; i < nin; i++)
			w->stride[i][w->rank - 1] = stride[i][k];
	}
	if (w->rank) {
		w->n = w->d[--w->rank];
		for (int i = 0; i < nin; i++)
			w->step[i] = w->stride[i][w->rank];
	}
	for (int k = 0; k < w->rank; k++)
		w->lines *= w->d[k];
	if (w->n == 0)
		w->lines = 0;
	w->out = -w->n;
}

bool walk_next(struct walk *w)
{
	if (w->lines == 0)
		return false;
	w->lines--;
	w->out += w->n;
	for (int k = w->rank - 1; k >= 0 && w->out; k--) {
		for (int i = 0; i < w->nin; i++)
			w->at[i] += w->stride[i][k];
		if (++w->index[k] < w->d[k])
			break;
		for (int i = 0; i < w->nin; i++)
			w->at[i] -= w->stride[i][k] * w->d[k];
		w->index[k] = 0;
	}
	return true;
}

enum linnet_code map_unary(struct kernel_call *c, double (*f)(double))
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];

	for (int64_t i = 0; i < y->n; i++)
		tensor_put(y, i, f(tensor_get(x, i)));
	return LINNET_OK;
}

enum linnet_code map_binary(struct kernel_call *c, double (*f)(double, double))
{
	const struct tensor *a = c->in[0], *b = c->in[1];
	struct tensor *y = c->out[0];
	struct walk w;

	for (walk_init(&w, y, 2, c->in); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++)
			tensor_put(y, w.out + i,
			           f(tensor_get(a, w.at[0] + i * w.step[0]), tensor_get(b, w.at[1] + i * w.step[1])));
	return LINNET_OK;
}

enum linnet_code map_binary_int(struct kernel_call *c, int64_t (*f)(int64_t, int64_t))
{
	const struct tensor *a = c->in[0], *b = c->in[1];
	struct tensor *y = c->out[0];
	struct walk w;

	for (walk_init(&w, y, 2, c->in); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++)
			tensor_put_int(y, w.out + i, f(tensor_get_int(a, w.at[0] + i * w.step[0]),
			                               tensor_get_int(b, w.at[1] + i * w.step[1])));
	return LINNET_OK;
}
