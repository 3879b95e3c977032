/* Cutting work over threads. */
#ifndef LINNET_THREAD_H
#define LINNET_THREAD_H

#include <stdint.h>

/* Run f(ctx, i) for every i in [0, n), on up to `threads` threads (<= 1: the caller's only). The pieces are the same whatever
 * the number of threads, so a result that is summed within pieces is the same bits on 1 thread and on 64. */
void parallel_for(int threads, int64_t n, void (*f)(void *ctx, int64_t i), void *ctx);

/* Processors this process may use. */
int thread_default(void);

#endif
