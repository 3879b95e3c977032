/* Cutting work over threads, by OpenMP. */
#include "ops/base/thread.h"

#include <omp.h>

void parallel_for(int threads, int64_t n, void (*f)(void *ctx, int64_t i), void *ctx)
{
	if (threads <= 1 || n <= 1) {
		for (int64_t i = 0; i < n; i++)
			f(ctx, i);
		return;
	}
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
	for (int64_t i = 0; i < n; i++)
		f(ctx, i);
}

int thread_default(void)
{
	return omp_get_num_procs();
}
