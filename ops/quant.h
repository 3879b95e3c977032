/* What families that compute with quantised numbers share (quant.c). */
#ifndef LINNET_QUANT_H
#define LINNET_QUANT_H

#include "ops/kernel.h"

#define QUANTISED_8 (SET(INT8) | SET(UINT8))

/* The attributes of a sliding window that convolutions and pools share. */
#define QUANT_LIST(title, least) { .name = title, .kind = ATTR_INTS, .s = "", .lo = (least), .hi = INT32_MAX }
#define QUANT_AUTO_PAD                                                                             \
	{ .name = "auto_pad", .kind = ATTR_STRING, .s = "NOTSET", .oneof = "NOTSET|SAME_UPPER|SAME_LOWER|VALID" }
#define QUANT_CONV                                                                                 \
	QUANT_AUTO_PAD, QUANT_LIST("dilations", 1), { .name = "group", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }, \
		QUANT_LIST("kernel_shape", 1), QUANT_LIST("pads", 0), QUANT_LIST("strides", 1)

/* Number i of `bits` bits in bytes, which the numbers fill from their low bits; none crosses a byte. */
static inline int64_t quant_unpack(const struct tensor *t, int64_t i, int64_t bits)
{
	int64_t per = 8 / bits;

	return (((const uint8_t *)t->data)[i / per] >> i % per * bits) & ((1 << bits) - 1);
}

/* How many bits such numbers have, and their blocks, of a power of 2. */
enum linnet_code quant_bits_check(const struct shape_call *c, int64_t bits);
enum linnet_code quant_block_check(const struct shape_call *c, int64_t block);

/* The integer nearest to v, ties to even, plus the zero point, within the type. */
void quant_put(struct tensor *y, int64_t i, double v, int64_t zero);

/* y = x / scale, of x's type, + zero point (NULL: 1 and 0), one scale for all. */
void quant_store(struct tensor *y, const struct tensor *x, const struct tensor *scale, const struct tensor *zero);

/*
 * (x - zero) scale in doubles. zero and scale (NULL: 0 and 1) broadcast to x, but as vectors they are along `axis`, which counts
 * from the end when negative.
 */
enum linnet_code quant_centre(struct kernel_call *c, const struct tensor *x, const struct tensor *zero, const struct tensor *scale,
                              int axis, struct tensor **out);

/*
 * The shape function of another row on the inputs from[0..n) of this call, and its kernel on `in`. Attributes are this call's where
 * it has them, else that row's defaults; lists are then empty. quant_run() makes the only output, of type t.
 */
enum linnet_code quant_shape(struct shape_call *c, const char *domain, const char *name, int n, const int *from);
enum linnet_code quant_call(struct kernel_call *c, const char *domain, const char *name, int n, const struct tensor *const *in, int nout,
                            struct tensor *const *out);
enum linnet_code quant_run(struct kernel_call *c, enum dtype t, const char *name, int n, const struct tensor *const *in, int rank,
                           const int64_t *d, struct tensor **out);

/* Quantised numbers; scale and zero may be NULL. */
struct quant_operand {
	const struct tensor *x, *scale, *zero;
};

/* x quantised to uint8 by its range, as DynamicQuantizeLinear does it. */
enum linnet_code quant_dynamic(struct kernel_call *c, const struct tensor *x, struct quant_operand *out);

/*
 * The sums of MatMul on integers less their zero points, by row of a and by column of b, exact in doubles. When both have scales, each
 * times a_scale b_scale / scale (NULL: 1), where that factor, the sum and their product are rounded to float, as the reference
 * evaluator of ONNX and onnxruntime have it. y has c->out[0]'s shape.
 */
enum linnet_code quant_matmul(struct kernel_call *c, const struct quant_operand *a, const struct quant_operand *b,
                              const struct tensor *scale, struct tensor **y);

/* Likewise of Conv, scales and zero points by output channel; the bias counts in steps of both scales. y has shape s. */
enum linnet_code quant_conv(struct kernel_call *c, const struct quant_operand *x, const struct quant_operand *w,
                            const struct tensor *bias, const struct tensor *scale, const struct shape *s, struct tensor **y);

/* Sums to integers. */
enum linnet_code quant_sums(struct kernel_call *c, const struct tensor *y);

#endif
