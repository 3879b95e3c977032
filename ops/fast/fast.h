/*
 * Fast kernels. The files of this folder that hold kernels are compiled once for each instruction set, with LEVEL defined as base, avx2
 * or avx512; FAST_LIST names every kernel once and table.c gathers the levels.
 *
 * Rules: the reference kernel is the definition; a fast kernel gives the same up to rounding. Work is cut by shape, not by the
 * number of threads, and each piece is summed in a fixed order, so results are the same bits on any number of threads.
 */
#ifndef LINNET_FAST_H
#define LINNET_FAST_H

#include "ops/op.h"

#define FAST_LIST(X)                                                                               \
	X(matmul)                                                                                  \
	X(gemm)                                                                                    \
	X(attention)                                                                               \
	X(attention_grad)                                                                          \
	X(linear_attention)                                                                        \
	X(linear_grad)                                                                             \
	X(causal_conv)                                                                             \
	X(softmax)                                                                                 \
	X(log_softmax)                                                                             \
	X(cross_entropy)                                                                           \
	X(rms_norm)                                                                                \
	X(layer_norm)                                                                              \
	X(l2_norm)                                                                                 \
	X(rotary)                                                                                  \
	X(glu)                                                                                     \
	X(swiglu)                                                                                  \
	X(unary)                                                                                   \
	X(binary)                                                                                  \
	X(where)                                                                                   \
	X(conv)                                                                                    \
	X(conv_transpose)                                                                          \
	X(pool)                                                                                    \
	X(global_pool)                                                                             \
	X(recurrent)                                                                               \
	X(gather)                                                                                  \
	X(transpose)                                                                               \
	X(integer_matmul)                                                                          \
	X(integer_conv)                                                                            \
	X(quantize)                                                                                \
	X(dequantize)                                                                              \
	X(dynamic_quantize)                                                                        \
	X(cast)                                                                                    \
	X(matmul_nbits)                                                                            \
	X(gather_nbits)                                                                            \
	X(group_query)                                                                             \
	X(multi_head)                                                                              \
	X(packed_attention)                                                                        \
	X(quantised_attention)                                                                     \
	X(topk)                                                                                    \
	X(gather_elements)                                                                         \
	X(gather_nd)                                                                               \
	X(scatter_elements)                                                                        \
	X(scatter_nd)                                                                              \
	X(einsum)                                                                                  \
	X(resize)                                                                                  \
	X(reduce)

#define X(name) extern const struct fast_set fast_##name;
FAST_LIST(X)
#undef X

/* In the files compiled a level: the kernel's name at this level. */
#define FAST_JOIN(name, level) fast_##name##_##level
#define FAST_AT(name, level) FAST_JOIN(name, level)
#define FAST_KERNEL(name) FAST_AT(name, LEVEL)

#endif
