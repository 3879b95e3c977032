/* Elements of float32, float16 and bfloat16 as float32, and back; compiled for the level of the file that includes it. */
#ifndef LINNET_HALVES_H
#define LINNET_HALVES_H

#include <string.h>

#include "ops/base/dtype.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

/* to[0..n) = x[i..i + n) */
static inline void load_floats(enum dtype t, const void *x, int64_t i, int64_t n, float *restrict to)
{
	const uint16_t *half = (const uint16_t *)x + i;
	int64_t l = 0;

	if (t == DT_FLOAT) {
		memcpy(to, (const float *)x + i, (size_t)n * sizeof *to);
	} else if (t == DT_BFLOAT16) {
		for (; l < n; l++) {
			uint32_t u = (uint32_t)half[l] << 16;

			memcpy(to + l, &u, sizeof u);
		}
	} else if (t == DT_FLOAT16) {
#if defined(__F16C__)
		for (; l + 8 <= n; l += 8)
			_mm256_storeu_ps(to + l, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(half + l))));
#endif
		for (; l < n; l++)
			to[l] = (float)half_to_double(half[l]);
	}
}

/* y[i..i + n) = from[0..n), rounded to nearest, ties to even; NaN stays NaN. */
static inline void store_floats(enum dtype t, void *y, int64_t i, int64_t n, const float *restrict from)
{
	uint16_t *half = (uint16_t *)y + i;
	int64_t l = 0;

	if (t == DT_FLOAT) {
		memcpy((float *)y + i, from, (size_t)n * sizeof *from);
	} else if (t == DT_BFLOAT16) {
		for (; l < n; l++) {
			uint32_t u;

			memcpy(&u, from + l, sizeof u);
			half[l] = (uint16_t)((u & 0x7FFFFFFF) > 0x7F800000 ? u >> 16 | 0x40 : (u + 0x7FFF + (u >> 16 & 1)) >> 16);
		}
	} else if (t == DT_FLOAT16) {
#if defined(__F16C__)
		for (; l + 8 <= n; l += 8)
			_mm_storeu_si128((__m128i *)(void *)(half + l), _mm256_cvtps_ph(_mm256_loadu_ps(from + l), _MM_FROUND_TO_NEAREST_INT));
#endif
		for (; l < n; l++)
			half[l] = half_from_double((double)from[l]);
	}
}

#endif
