/* The only file that includes BLAS and LAPACK. */
#include "ops/blas.h"

#include <cblas.h>
#include <lapacke.h>

void blas_init(void)
{
	openblas_set_num_threads(1);
}

void blas_sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                int64_t ldb, float beta, float *c, int64_t ldc)
{
	if (!m || !n)
		return;
	if (!k) { /* BLAS wants leading dimensions of at least 1 even then */
		for (int64_t i = 0; i < m; i++)
			for (int64_t j = 0; j < n; j++)
				c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
		return;
	}
	cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k,
	            alpha, a, (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
}

void blas_dgemm(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c)
{
	cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1, a, (blasint)k, b, (blasint)n, 0, c, (blasint)n);
}

bool blas_solve_positive(int64_t n, int64_t m, double *a, double *b)
{
	return LAPACKE_dposv(LAPACK_ROW_MAJOR, 'L', (lapack_int)n, (lapack_int)m, a, (lapack_int)n, b, (lapack_int)m) == 0;
}
