/* Matrix products through BLAS, on the calling thread only. */
#ifndef LINNET_BLAS_H
#define LINNET_BLAS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * C [m, n] = alpha op(A) op(B) + beta C, row-major, op transposing where ta, tb; lda, ldb, ldc are the row lengths in memory.
 * Any of m, n, k may be 0.
 */
void blas_sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                int64_t ldb, float beta, float *c, int64_t ldc);

/* Keep BLAS from starting threads of its own. Called once before the first product. */
void blas_init(void);

/* c = a b of rows one behind the other: a [m, k], b [k, n], none of them 0. */
void blas_dgemm(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c);

/* a x = b, a [n, n] symmetric and positive definite, b [n, m], which becomes x; a is overwritten. False: it is not positive definite. */
bool blas_solve_positive(int64_t n, int64_t m, double *a, double *b);

#endif
