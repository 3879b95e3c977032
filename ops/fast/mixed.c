/* Products of bfloat16: see mixed.h. Compiled for AVX-512 with BF16 where there is such a thing. */
#include "ops/fast/mixed.h"

enum {
	STRETCH = 128, /* pairs at a time: a panel of B and one of A stay in the first cache */
	TILE = 8       /* rows of C whose sums stay in registers */
};

static int64_t pairs(const struct mixed_factor *f) { return (f->k + 1) / 2; }

int64_t mixed_panels(const struct mixed_factor *f) { return (f->length + f->panel - 1) / f->panel; }

int64_t mixed_room(const struct mixed_factor *f) { return mixed_panels(f) * pairs(f) * f->panel; }

#ifdef __AVX512BF16__

#include <immintrin.h>

static __mmask16 first(int64_t n) { return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1); }

/* Pairs (x[j], y[j]) of n <= 16 columns, y NULL for zeros. */
static __m512i pair_up(const float *x, const float *y, int64_t n)
{
	__m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first(n), x))), high;

	if (!y)
		return low;
	high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first(n), y)));
	return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

static void pack_down(const struct mixed_factor *f, int64_t from, uint32_t *to)
{
	int64_t n = f->length - from < f->panel ? f->length - from : f->panel;

	for (int64_t l = 0; l < f->k; l += 2, to += f->panel) {
		const float *x = f->x + l * f->ld + from, *y = l + 1 < f->k ? x + f->ld : NULL;

		for (int64_t j = 0; j < f->panel; j += 16)
			_mm512_storeu_si512(to + j, n > j ? pair_up(x + j, y ? y + j : NULL, n - j) : _mm512_setzero_si512());
	}
}

/* x [16][16] to its transpose. */
static void turn(__m512i x[16])
{
	__m512i t[16];

	for (int i = 0; i < 16; i += 2) {
		t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
	}
	for (int i = 0; i < 16; i += 4)
		for (int h = 0; h < 2; h++) {
			x[i + 2 * h] = _mm512_unpacklo_epi64(t[i + h], t[i + h + 2]);
			x[i + 2 * h + 1] = _mm512_unpackhi_epi64(t[i + h], t[i + h + 2]);
		}
	for (int j = 0; j < 4; j++) { /* lane l of x[i + j] has column 4 l + j of rows i to i + 3 */
		__m512i a = _mm512_shuffle_i32x4(x[j], x[4 + j], 0x88), b = _mm512_shuffle_i32x4(x[j], x[4 + j], 0xdd);
		__m512i c = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0x88), d = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0xdd);

		t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
		t[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
		t[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
		t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
	}
	for (int i = 0; i < 16; i++)
		x[i] = t[i];
}

/* Sixteen pairs of sixteen rows at a time. */
static void pack_along(const struct mixed_factor *f, int64_t from, uint32_t *to)
{
	int64_t n = f->length - from, count = pairs(f);

	for (int64_t i = 0; i < f->panel; i += 16)
		for (int64_t p = 0; p < count; p += 16) {
			int64_t left = f->k - 2 * p;
			__m512i x[16];

			for (int64_t r = 0; r < 16; r++) {
				const float *row = f->x + (from + i + r) * f->ld + 2 * p;

				x[r] = i + r < n ? (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(first(left < 16 ? 0 : left - 16), row + 16),
				                                                _mm512_maskz_loadu_ps(first(left), row))
				                 : _mm512_setzero_si512();
			}
			turn(x);
			for (int64_t q = 0; q < 16 && p + q < count; q++)
				_mm512_storeu_si512(to + (p + q) * f->panel + i, x[q]);
		}
}

void mixed_pack(const struct mixed_factor *f, int64_t panel)
{
	uint32_t *to = f->packed + panel * pairs(f) * f->panel;

	if (f->down)
		pack_down(f, panel * f->panel, to);
	else
		pack_along(f, panel * f->panel, to);
}

/* C [rows, columns] = (add: +=) A B over `count` pairs. */
static void tile(int64_t count, const uint32_t *restrict a, const uint32_t *restrict b, bool add, int64_t rows, int64_t columns, float *restrict c,
                 int64_t ldc)
{
	__mmask16 m0 = first(columns), m1 = first(columns < 16 ? 0 : columns - 16);
	__m512 x[TILE][2];

	for (int r = 0; r < TILE; r++)
		x[r][0] = x[r][1] = _mm512_setzero_ps();
	for (int64_t p = 0; p < count; p++, a += MIXED_ROWS, b += MIXED_COLUMNS) {
		__m512bh b0 = (__m512bh)_mm512_loadu_si512(b), b1 = (__m512bh)_mm512_loadu_si512(b + 16);

		for (int r = 0; r < TILE; r++) {
			__m512bh ar = (__m512bh)_mm512_set1_epi32((int)a[r]);

			x[r][0] = _mm512_dpbf16_ps(x[r][0], ar, b0);
			x[r][1] = _mm512_dpbf16_ps(x[r][1], ar, b1);
		}
	}
	for (int r = 0; r < TILE && r < rows; r++, c += ldc) {
		if (add) {
			x[r][0] = _mm512_add_ps(x[r][0], _mm512_maskz_loadu_ps(m0, c));
			x[r][1] = _mm512_add_ps(x[r][1], _mm512_maskz_loadu_ps(m1, c + 16));
		}
		_mm512_mask_storeu_ps(c, m0, x[r][0]);
		_mm512_mask_storeu_ps(c + 16, m1, x[r][1]);
	}
}

void mixed_multiply(const struct mixed_factor *a, const struct mixed_factor *b, int64_t i0, int64_t i1, int64_t j0, int64_t j1, float *c, int64_t ldc)
{
	int64_t all = pairs(a);

	for (int64_t p = 0; p < all; p += STRETCH) {
		int64_t count = all - p < STRETCH ? all - p : STRETCH;

		for (int64_t j = j0; j < j1; j += MIXED_COLUMNS)
			for (int64_t i = i0; i < i1; i += TILE)
				tile(count, a->packed + (i - i % MIXED_ROWS) * all + p * MIXED_ROWS + i % MIXED_ROWS,
				     b->packed + j * all + p * MIXED_COLUMNS, p > 0, i1 - i, j1 - j, c + i * ldc + j, ldc);
	}
}

#else

void mixed_pack(const struct mixed_factor *f, int64_t panel) { (void)f, (void)panel; }
void mixed_multiply(const struct mixed_factor *a, const struct mixed_factor *b, int64_t i0, int64_t i1, int64_t j0, int64_t j1, float *c, int64_t ldc)
{
	(void)a, (void)b, (void)i0, (void)i1, (void)j0, (void)j1, (void)c, (void)ldc;
}

#endif
