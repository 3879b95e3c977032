/*
 * Vectors of float32 of the instruction set this file is compiled for: VWIDTH lanes; VFMA(a, b, c) is a b + c. Elementary functions over
 * arrays by SLEEF's vector functions of at most 1 unit in the last place. Tails go through the same functions, so a value does not depend
 * on where it stands.
 */
#ifndef LINNET_VMATH_H
#define LINNET_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#include <sleef.h>
typedef __m512 vfloat;
enum { VWIDTH = 16 };
#define VLOAD(p) _mm512_loadu_ps(p)
#define VSTORE(p, v) _mm512_storeu_ps(p, v)
#define VSET(x) _mm512_set1_ps(x)
#define VADD(a, b) _mm512_add_ps(a, b)
#define VMUL(a, b) _mm512_mul_ps(a, b)
#define VFMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define VAND(a, b) _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_castps_si512(b)))
#define VFUN(name) Sleef_##name##f16_u10avx512f
#elif defined(__AVX2__)
#include <immintrin.h>
#include <sleef.h>
typedef __m256 vfloat;
enum { VWIDTH = 8 };
#define VLOAD(p) _mm256_loadu_ps(p)
#define VSTORE(p, v) _mm256_storeu_ps(p, v)
#define VSET(x) _mm256_set1_ps(x)
#define VADD(a, b) _mm256_add_ps(a, b)
#define VMUL(a, b) _mm256_mul_ps(a, b)
#define VFMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define VAND(a, b) _mm256_and_ps(a, b)
#define VFUN(name) Sleef_##name##f8_u10avx2
#elif defined(__SSE4_1__)
#include <emmintrin.h>
#include <sleef.h>
typedef __m128 vfloat;
enum { VWIDTH = 4 };
#define VLOAD(p) _mm_loadu_ps(p)
#define VSTORE(p, v) _mm_storeu_ps(p, v)
#define VSET(x) _mm_set1_ps(x)
#define VADD(a, b) _mm_add_ps(a, b)
#define VMUL(a, b) _mm_mul_ps(a, b)
#define VFMA(a, b, c) _mm_add_ps(_mm_mul_ps(a, b), c)
#define VAND(a, b) _mm_and_ps(a, b)
#define VFUN(name) Sleef_##name##f4_u10sse4
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sleef.h>
typedef float32x4_t vfloat;
enum { VWIDTH = 4 };
#define VLOAD(p) vld1q_f32(p)
#define VSTORE(p, v) vst1q_f32(p, v)
#define VSET(x) vdupq_n_f32(x)
#define VADD(a, b) vaddq_f32(a, b)
#define VMUL(a, b) vmulq_f32(a, b)
#define VFMA(a, b, c) vfmaq_f32(c, a, b)
#define VAND(a, b) vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
#define VFUN(name) Sleef_##name##f4_u10advsimd
#else
typedef float vfloat;
enum { VWIDTH = 1 };
#define VLOAD(p) (*(p))
#define VSTORE(p, v) (*(p) = (v))
#define VSET(x) (x)
#define VADD(a, b) ((a) + (b))
#define VMUL(a, b) ((a) * (b))
#define VFMA(a, b, c) ((a) * (b) + (c))
#define VAND(a, b) vand(a, b)
#define VFUN(name) name##f

static inline float vand(float a, float b)
{
	uint32_t x, y;

	memcpy(&x, &a, sizeof x);
	memcpy(&y, &b, sizeof y);
	x &= y;
	memcpy(&a, &x, sizeof a);
	return a;
}
#endif

/* Ask for the line of the cache that p is in. */
#if defined(__SSE4_1__)
#define VPREFETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#else
#define VPREFETCH(p) ((void)(p))
#endif

#define VARRAY(name)                                                                               \
	static inline void v_##name(float *y, const float *x, int64_t n)                           \
	{                                                                                          \
		float rest[VWIDTH] = { 0 };                                                        \
		int64_t i = 0;                                                                     \
                                                                                                   \
		for (; i + VWIDTH <= n; i += VWIDTH)                                               \
			VSTORE(y + i, VFUN(name)(VLOAD(x + i)));                                   \
		if (i < n) {                                                                       \
			memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);                          \
			VSTORE(rest, VFUN(name)(VLOAD(rest)));                                     \
			memcpy(y + i, rest, (size_t)(n - i) * sizeof *x);                          \
		}                                                                                  \
	}

#endif
