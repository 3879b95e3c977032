/* The sum of products of two rows, in sixteen lanes; compiled for the level of the file that includes it. */
#ifndef LINNET_DOT_H
#define LINNET_DOT_H

#include <stdint.h>

static inline float dot(const float *restrict a, const float *restrict b, int64_t n)
{
	float s[16] = { 0 }, sum = 0;
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		for (int l = 0; l < 16; l++)
			s[l] += a[i + l] * b[i + l];
	for (int w = 8; w; w /= 2)
		for (int l = 0; l < w; l++)
			s[l] += s[l + w];
	for (; i < n; i++)
		sum += a[i] * b[i];
	return s[0] + sum;
}

#endif
