/* What normalizations share (norm.c). */
#ifndef LINNET_NORM_H
#define LINNET_NORM_H

#include "ops/kernel.h"

/*
 * Rows of n numbers: y = (x - m) r with r = 1 / sqrt(mean of (x - m)^2 + epsilon), and m the mean or, when not centred, 0.
 * y may be x. mean and inverse, one a row (NULL: not wanted), receive m and r.
 */
void normalize(double *y, const double *x, int64_t rows, int64_t n, bool centred, double epsilon, double *mean, double *inverse);

#endif
