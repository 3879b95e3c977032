/* The only file that includes BLAS. */
#include "ops/blas.h"

#include <cblas.h>

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
