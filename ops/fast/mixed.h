/*
 * Matrix products whose factors are rounded to bfloat16 and whose sums are made in float32, where the processor has instructions for it: twice
 * the peak of float32. For training in mixed precision only; nothing else rounds its inputs.
 *
 * Factors are packed first, in panels of MIXED_ROWS rows of A and MIXED_COLUMNS columns of B, by pairs along the inner length; what fills up
 * panels and an odd pair is zero.
 */
#ifndef LINNET_MIXED_H
#define LINNET_MIXED_H

#include <stdbool.h>
#include <stdint.h>

enum { MIXED_ROWS = 16, MIXED_COLUMNS = 32 };

/* Where the processor cannot, nothing below may be called. */
bool mixed_usable(void); /* level.c */

/* A factor that is packed: `length` rows of A or columns of B; at(i, l) = x[i ld + l], or x[l ld + i] where `down`. */
struct mixed_factor {
	const float *x;
	int64_t length, k, ld;
	bool down;
	int panel;        /* MIXED_ROWS or MIXED_COLUMNS */
	uint32_t *packed; /* of mixed_room() elements */
};

int64_t mixed_room(const struct mixed_factor *f);
int64_t mixed_panels(const struct mixed_factor *f);
void mixed_pack(const struct mixed_factor *f, int64_t panel);

/* C [i0..i1, j0..j1) of row length ldc; i0 and j0 begin panels. */
void mixed_multiply(const struct mixed_factor *a, const struct mixed_factor *b, int64_t i0, int64_t i1, int64_t j0, int64_t j1, float *c, int64_t ldc);

#endif
