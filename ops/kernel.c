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
	switch (size) {
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
