/* Time that passes. */
#ifndef LINNET_CLOCK_H
#define LINNET_CLOCK_H

#include <time.h>

/* Seconds since some moment; never set back. */
static inline double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
