/* Sums over the processes that train together: all that the trainer knows of them. */
#ifndef LINNET_TRAIN_REDUCE_H
#define LINNET_TRAIN_REDUCE_H

#include <stdint.h>

#include "ops/base/err.h"

struct reduce {
	int rank, size;
	/* x[0 .. n) becomes its sum over all processes, added in the order of their ranks: the same bits everywhere and in every run. All call it alike. */
	enum linnet_code (*sum)(void *ctx, float *x, int64_t n, struct linnet_error *e);
	enum linnet_code (*sum_double)(void *ctx, double *x, int64_t n, struct linnet_error *e);
	void *ctx;
};

#endif
