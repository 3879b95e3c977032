/*
 * Small matrix products, of matrices that stay in the first cache; compiled for the level of the file that includes it. Rows come in
 * fours and columns in sixteens: callers fill up with zeros.
 */
#ifndef LINNET_PRODUCT_H
#define LINNET_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

enum { SMALL_ROWS = 4, SMALL_COLUMNS = 16 };

#ifdef __AVX512F__
enum { SMALL_WIDE = 32 }; /* columns whose sums of four rows fit into registers */
#else
enum { SMALL_WIDE = 16 };
#endif

static inline int64_t small_up(int64_t n) { return (n + SMALL_COLUMNS - 1) / SMALL_COLUMNS * SMALL_COLUMNS; }

/* What is known to be zero of A [m, k], or not asked of C [m, n]: j > i, j < i. */
enum small_part { SMALL_ALL, SMALL_LOWER, SMALL_UPPER, SMALL_LOWER_OUT };

/* C [m, n], of row length ldc, = (add: +=) A B. A(i, l) = a[i * ai + l * al]: any row length, transposed or not. B: [k, n] of row length ldb. */
#define SMALL_TILE(name, W)                                                                        \
	static inline void name(int64_t k, const float *restrict a, int64_t ai, int64_t al, const float *restrict b, int64_t ldb, bool add, \
	                        float *restrict c, int64_t ldc)                                    \
	{                                                                                          \
		float s[SMALL_ROWS][W];                                                            \
                                                                                                   \
		for (int i = 0; i < SMALL_ROWS; i++)                                               \
			for (int j = 0; j < (W); j++)                                              \
				s[i][j] = add ? c[i * ldc + j] : 0;                                \
		for (int64_t l = 0; l < k; l++, a += al, b += ldb)                                 \
			for (int i = 0; i < SMALL_ROWS; i++)                                       \
				for (int j = 0; j < (W); j++)                                      \
					s[i][j] += a[i * ai] * b[j];                               \
		for (int i = 0; i < SMALL_ROWS; i++)                                               \
			for (int j = 0; j < (W); j++)                                              \
				c[i * ldc + j] = s[i][j];                                          \
	}

SMALL_TILE(small_wide, SMALL_WIDE)
SMALL_TILE(small_narrow, SMALL_COLUMNS)

static inline void small_product(enum small_part part, int64_t m, int64_t n, int64_t k, const float *a, int64_t ai, int64_t al, const float *b,
                                 int64_t ldb, bool add, float *c, int64_t ldc)
{
	for (int64_t i = 0; i < m; i += SMALL_ROWS) {
		int64_t l = part == SMALL_UPPER ? i : 0, end = part == SMALL_LOWER && i + SMALL_ROWS < k ? i + SMALL_ROWS : k;
		int64_t columns = part == SMALL_LOWER_OUT && small_up(i + SMALL_ROWS) < n ? small_up(i + SMALL_ROWS) : n, j = 0;
		const float *ax = a + i * ai + l * al, *bx = b + l * ldb;

		for (; j + SMALL_WIDE <= columns; j += SMALL_WIDE)
			small_wide(end - l, ax, ai, al, bx + j, ldb, add, c + i * ldc + j, ldc);
		for (; j < columns; j += SMALL_COLUMNS)
			small_narrow(end - l, ax, ai, al, bx + j, ldb, add, c + i * ldc + j, ldc);
	}
}

/* y [n, m] = x [m, n], of row lengths ldx and ldy */
static inline void small_transpose(int64_t m, int64_t n, const float *restrict x, int64_t ldx, float *restrict y, int64_t ldy)
{
	for (int64_t i = 0; i < m; i += SMALL_ROWS)
		for (int64_t j = 0; j < n; j++)
			for (int64_t l = 0; l < SMALL_ROWS; l++)
				y[j * ldy + i + l] = x[(i + l) * ldx + j];
}

#endif
