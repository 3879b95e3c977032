/* What normalizations share (norm.c). */
#ifndef LINNET_NORM_H
#define LINNET_NORM_H

#include "ops/kernel.h"

/*
 * Rows of n numbers: y = (x - m) r with r = 1 / sqrt(mean of (x - m)^2 + epsilon), and m the mean or, when not centred, 0.
 * y may be x. mean and inverse, one a row (NULL: not wanted), receive m and r.
 */
void normalize(double *y, const double *x, int64_t rows, int64_t n, bool centred, double epsilon, double *mean, double *inverse);

/* One number for each element of input 0, from an input that broadcasts to it, or `absent` when it is left out. They may be changed. */
enum linnet_code spread(struct kernel_call *c, int input, double absent, double **out);

/* The element type of a normalization's first stage. */
enum linnet_code stash_type(const struct shape_call *c, dtype_set admitted, enum dtype *out);

#endif
