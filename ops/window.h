/* A window sliding over space, as convolutions and pools read and write it. */
#ifndef LINNET_WINDOW_H
#define LINNET_WINDOW_H

#include "ops/op.h"

enum { SPACE = 3 };

/*
 * A window over the spatial axes of X: [N, C, in...]. Fewer than three axes are preceded by axes of length 1. Output
 * position o reads input positions o stride - begin + k dilation for k in [0, taps) (transposed: writes them).
 */
struct window {
	int n;
	dim in[SPACE], taps[SPACE], out[SPACE];
	int64_t stride[SPACE], dilation[SPACE], begin[SPACE], end[SPACE];
};

/* Element i of a list attribute that may be left out; whether such a list has n elements. */
int64_t list_item(const struct attr *a, int i, int64_t absent);
enum linnet_code list_check(const struct attr *a, int n, struct linnet_error *e);

/*
 * Everything but `out` and, where padding is automatic, begin and end. kernel: the shape of W, or NULL when only the
 * attribute kernel_shape says it. The rank of x is known.
 */
enum linnet_code window_read(const struct op *op, const struct attr *attr, const struct shape *x, const struct shape *kernel,
                             struct window *w, struct linnet_error *e);

/* Output lengths of a sliding window, and its padding as far as it is known. */
enum linnet_code window_slide(struct dims *t, const struct op *op, const struct attr *attr, struct window *w,
                              struct linnet_error *e);

/* Output lengths of a transposed window, and the padding cut off it: (in - 1) stride + reach + output_padding - pads. */
enum linnet_code window_spread(struct dims *t, const struct op *op, const struct attr *attr, struct window *w,
                               struct linnet_error *e);

/* Every output: [N, channels, out...] */
void window_output(struct shape_call *c, dim channels, const struct window *w);

/* The taps [from, to) of the window at output position o that read inside the input. */
struct span {
	int64_t from, to;
};

struct span window_inside(const struct window *w, int axis, int64_t o, int64_t length);

/* The output positions [from, to) along an axis at which tap k reads inside the input. */
struct span window_readers(const struct window *w, int axis, int64_t k);

static inline int64_t at3(const int64_t *d, int64_t i, int64_t j, int64_t k)
{
	return (i * d[1] + j) * d[2] + k;
}

/* What a pool makes of the values in its window; the parameter of the pools' rows. */
enum pool { POOL_MAX, POOL_AVERAGE, POOL_LP };

#define LIST(title, least) { .name = title, .kind = ATTR_INTS, .s = "", .lo = (least), .hi = INT32_MAX }
#define AUTO_PAD                                                                                   \
	{ .name = "auto_pad", .kind = ATTR_STRING, .s = "NOTSET", .oneof = "NOTSET|SAME_UPPER|SAME_LOWER|VALID" }
#define KERNEL_SHAPE { .name = "kernel_shape", .kind = ATTR_INTS, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }

#endif
