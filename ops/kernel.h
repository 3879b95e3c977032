/* What reference kernels share: copying elements of any type, walking over positions. */
#ifndef LINNET_KERNEL_H
#define LINNET_KERNEL_H

#include "ops/op.h"

/* Boxes may have more axes than tensors: an axis cut in two, as in Tile and DepthToSpace. */
enum { BOX_RANK = 2 * MAX_RANK };

/*
 * Element i of src to element j of dst, bit for bit; both of the same element type. Elements of 2 and 4 bits share
 * bytes: the last one clears what is left of its byte, so that equal tensors have equal bytes.
 */
void element_copy(struct tensor *dst, int64_t j, const struct tensor *src, int64_t i);

/* Element j becomes all zero bits: 0, false or the empty string. */
void element_zero(struct tensor *dst, int64_t j);

/* All of src to dst, which has as many elements of the same type. */
void tensor_copy(struct tensor *dst, const struct tensor *src);

/* Row-major strides in elements. */
void strides(int rank, const int64_t *d, int64_t *stride);

/* The next position in row-major order; false after the last, when `at` is all zeros again. */
bool next_position(int rank, const int64_t *d, int64_t *at);

/*
 * dst[to + sum at[k] * to_stride[k]] = src[from + sum at[k] * from_stride[k]] for every position `at` in the box
 * d[0..rank), rank <= BOX_RANK. Strides may be zero or negative.
 */
void copy_box(struct tensor *dst, int64_t to, const int64_t *to_stride, const struct tensor *src, int64_t from,
              const int64_t *from_stride, int rank, const int64_t *d);

/* What is known of a tensor: everything. */
static inline struct type type_of(const struct tensor *t)
{
	return (struct type){ .dt = t->dt, .shape = shape_of(t), .value = t };
}

#endif
