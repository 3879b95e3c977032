/* Resize as resamplings along single axes: what its reference and its fast kernel share. */
#ifndef LINNET_RESIZE_H
#define LINNET_RESIZE_H

#include "ops/op.h"

/* Where one output position along one axis looks: elements first .. first + n - 1, clamped, with weights w. */
struct taps {
	int64_t first, n;
	double *w;
	bool outside; /* the coordinate is not within the input */
};

/* taps[k]: one for every position of the output along axis k; in scratch memory. */
enum linnet_code resize_taps(const struct kernel_call *c, struct taps *taps[MAX_RANK]);

#endif
