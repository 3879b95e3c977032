/* Gradients that depend on a call's ranks, attributes or constants: what rows have as `write_grad`. */
#ifndef LINNET_OPS_GRAD_H
#define LINNET_OPS_GRAD_H

#include "ops/op.h"

body_fn grad_power, grad_extreme, grad_sum, grad_mean;               /* binary.c */
body_fn grad_reduce, grad_running;                                   /* reduce.c */
body_fn grad_matmul, grad_gemm, grad_einsum, grad_det, grad_inverse; /* matmul.c */
body_fn grad_transpose, grad_concat, grad_split, grad_slice, grad_pad, grad_dropout; /* layout.c */
body_fn grad_gather, grad_scatter, grad_topk, grad_unique;           /* index.c */
body_fn grad_layer_norm, grad_rms_norm, grad_group_norm, grad_batch_norm, grad_lrn, grad_lp_norm; /* norm.c */
body_fn grad_cross_entropy, grad_nll;                                /* loss.c */
body_fn grad_conv, grad_conv_transpose, grad_col2im;                  /* conv.c */
body_fn grad_resize, grad_dft, grad_dequantize;                       /* resize.c, signal.c, quant.c */
body_fn grad_max_pool, grad_sum_pool, grad_global_pool;               /* pool.c */

/*
 * The gradient of an operator that only picks elements of `x` (or fills in others): `call` does the same to the numbers of
 * the elements, `all`, and tells where the gradients belong.
 */
#define GRAD_OF_PICKING(x, y, call)                                                                \
	"{ count = Size (" x ")\n"                                                                 \
	"  lengths = Shape (" x ")\n"                                                              \
	"  first = Constant <value = int64 {0}> ()\n"                                              \
	"  step = Constant <value = int64 {1}> ()\n"                                               \
	"  flat = Constant <value = int64[1] {-1}> ()\n"                                           \
	"  line = Range (first, count, step)\n"                                                    \
	"  all = Reshape <allowzero = 1> (line, lengths)\n"                                        \
	"  picked = " call "\n"                                                                    \
	"  where = Reshape (picked, flat)\n"                                                       \
	"  what = Reshape (d_" y ", flat)\n"                                                       \
	"  length = Reshape (count, flat)\n" REAL("zero", "0.0")                                   \
	"  zeros = Expand (zero, length)\n"                                                        \
	"  sums = ScatterElements <reduction = \"add\"> (zeros, where, what)\n"                    \
	"  d_" x " = Reshape <allowzero = 1> (sums, lengths) }"

/* The gradient of an operator that gives x another shape. */
#define GRAD_OF_SHAPE(x, y)                                                                        \
	"{ lengths = Shape (" x ")\n"                                                              \
	"  d_" x " = Reshape <allowzero = 1> (d_" y ", lengths) }"

#endif
