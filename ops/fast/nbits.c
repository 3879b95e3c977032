/*
 * Products with matrices of 2, 4 or 8 bits scaled in blocks, and gathering their rows; float32.
 *
 * Few rows of A: the packed weights are streamed once, as numbers of a few bits, and scaled by the block; memory bounds it, with 4 bits nearly
 * the unpacking. Many: tiles of weights are unpacked, which stay in the second cache, and multiplied by BLAS; arithmetic bounds it.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/blas.h"
#include "ops/fast/fast.h"

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 fvec;
typedef __m512i wvec;
enum { LANES = 16 };
#define WLOAD(p) _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define WLOW(v) _mm512_and_si512(v, _mm512_set1_epi32(15))
#define WHIGH(v) _mm512_srli_epi32(v, 4)
#define FOF(v) _mm512_cvtepi32_ps(v)
#define FLOAD(p) _mm512_loadu_ps(p)
#define FSTORE(p, v) _mm512_storeu_ps(p, v)
#define FALL(x) _mm512_set1_ps(x)
#define FADD(s, a, b) _mm512_fmadd_ps(a, b, s)
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
typedef __m256 fvec;
typedef __m256i wvec;
enum { LANES = 8 };
#define WLOAD(p) _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p)))
#define WLOW(v) _mm256_and_si256(v, _mm256_set1_epi32(15))
#define WHIGH(v) _mm256_srli_epi32(v, 4)
#define FOF(v) _mm256_cvtepi32_ps(v)
#define FLOAD(p) _mm256_loadu_ps(p)
#define FSTORE(p, v) _mm256_storeu_ps(p, v)
#define FALL(x) _mm256_set1_ps(x)
#define FADD(s, a, b) _mm256_fmadd_ps(a, b, s)
#else
typedef float fvec;
typedef int wvec;
enum { LANES = 1 };
#define WLOAD(p) (*(p))
#define WLOW(v) ((v) & 15)
#define WHIGH(v) ((v) >> 4)
#define FOF(v) ((float)(v))
#define FLOAD(p) (*(p))
#define FSTORE(p, v) (*(p) = (v))
#define FALL(x) ((float)(x))
#define FADD(s, a, b) ((s) + (a) * (b))
#endif

enum {
	FEW = 8,        /* rows that are streamed */
	COLUMNS = 32,   /* of a streamed piece */
	TILE = 64,      /* columns of a tile */
	DEPTH = 256,    /* and its rows: 64 KiB */
	PAIR = 32       /* numbers of 4 bits whose even ones come before the odd ones in A as it is streamed */
};

/* Numbers [i, i + n) of `bits` bits, packed from the low bits on. */
static void unpack(const uint8_t *x, int bits, bool sign, int64_t i, int64_t n, float *restrict to)
{
	if (bits == 8) {
		for (int64_t l = 0; l < n; l++)
			to[l] = sign ? (float)(int8_t)x[i + l] : (float)x[i + l];
	} else if (bits == 4) {
		int flip = sign ? 8 : 0;
		int64_t l = 0;

		for (; l < n && (i + l) % 2; l++)
			to[l] = (float)((x[(i + l) / 2] >> 4 ^ flip) - flip);
#if defined(__AVX2__)
		for (const __m128i low = _mm_set1_epi8(15); !sign && l + 32 <= n; l += 32) {
			__m128i v = _mm_loadu_si128((const __m128i *)(const void *)(x + (i + l) / 2));
			__m128i even = _mm_and_si128(v, low), odd = _mm_and_si128(_mm_srli_epi16(v, 4), low);
			uint8_t q[32];

			_mm_storeu_si128((__m128i *)(void *)q, _mm_unpacklo_epi8(even, odd));
			_mm_storeu_si128((__m128i *)(void *)(q + 16), _mm_unpackhi_epi8(even, odd));
			for (int m = 0; m < 32; m += LANES)
				FSTORE(to + l + m, FOF(WLOAD(q + m)));
		}
#endif
		for (const uint8_t *p = x + (i + l) / 2; l + 2 <= n; l += 2, p++) {
			to[l] = (float)(((*p & 15) ^ flip) - flip);
			to[l + 1] = (float)((*p >> 4 ^ flip) - flip);
		}
		for (; l < n; l++)
			to[l] = (float)(((x[(i + l) / 2] & 15) ^ flip) - flip);
	} else {
		for (int64_t l = 0; l < n; l++)
			to[l] = (float)(x[(i + l) / 4] >> (i + l) % 4 * 2 & 3);
	}
}

/* ---- MatMulNBits: Y [m, n] = A [m, k] B^T + bias, B [n, blocks, block] ---- */

struct nbits_job {
	const float *a, *scale, *bias;
	const uint8_t *b;
	const struct tensor *zero;
	float *y;
	int64_t m, n, k, block, blocks, zeros; /* zeros: bytes of a column's packed zero points */
	int bits;
	/* streamed: A as the weights come, filled up to whole blocks by 0, and sums of its blocks */
	float *streamed, *sums;
};

static float zero_of(const struct nbits_job *j, int64_t column, int64_t block)
{
	const uint8_t *p;

	if (!j->zero)
		return (float)(1 << (j->bits - 1));
	if (j->zero->dt == DT_FLOAT)
		return ((const float *)j->zero->data)[column * j->blocks + block];
	p = (const uint8_t *)j->zero->data + column * j->zeros;
	return (float)(p[block * j->bits / 8] >> block * j->bits % 8 & ((1 << j->bits) - 1));
}

/* The dot product of a block of numbers with what of A belongs to it, in as many partial sums as there are lanes. */
static inline fvec block_sums(int bits, const uint8_t *b, const float *a, int64_t n)
{
	fvec s = FALL(0), t = FALL(0);

	if (bits == 4)
		for (int64_t i = 0; i < n; i += PAIR, b += PAIR / 2, a += PAIR)
			for (int l = 0; l < PAIR / 2; l += LANES) {
				wvec v = WLOAD(b + l);

				s = FADD(s, FOF(WLOW(v)), FLOAD(a + l));
				t = FADD(t, FOF(WHIGH(v)), FLOAD(a + PAIR / 2 + l));
			}
	else
		for (int64_t i = 0; i < n; i += LANES)
			s = FADD(s, FOF(WLOAD(b + i)), FLOAD(a + i));
	return FADD(s, FALL(1), t);
}

/* sum over blocks of scale zero sum of a */
static float zeros_part(const struct nbits_job *j, const float *sums, int64_t at)
{
	const float *scale = j->scale + at * j->blocks;
	float zero[64], part = 0;

	for (int64_t from = 0; from < j->blocks; from += 64) {
		int64_t n = j->blocks - from < 64 ? j->blocks - from : 64;
		float s[16] = { 0 };

		if (!j->zero)
			for (int64_t i = 0; i < n; i++)
				zero[i] = (float)(1 << (j->bits - 1));
		else if (j->zero->dt == DT_FLOAT)
			memcpy(zero, (const float *)j->zero->data + at * j->blocks + from, (size_t)n * sizeof *zero);
		else
			unpack((const uint8_t *)j->zero->data + at * j->zeros, j->bits, false, from, n, zero);
		for (int64_t i = n; i < 64; i++)
			zero[i] = 0;
		for (int64_t i = 0; i + 16 <= n; i += 16)
			for (int l = 0; l < 16; l++)
				s[l] += scale[from + i + l] * sums[from + i + l] * zero[i + l];
		for (int64_t i = n / 16 * 16; i < n; i++)
			s[i % 16] += scale[from + i] * sums[from + i] * zero[i];
		for (int w = 8; w; w /= 2)
			for (int l = 0; l < w; l++)
				s[l] += s[l + w];
		part += s[0];
	}
	return part;
}

/* sum over blocks of scale (sum of b a - zero sum of a) */
static inline float column(const struct nbits_job *j, int bits, int64_t row, int64_t at)
{
	const float *a = j->streamed + row * j->blocks * j->block, *scale = j->scale + at * j->blocks;
	int64_t bytes = j->block * bits / 8;
	const uint8_t *b = j->b + at * j->blocks * bytes;
	float part[LANES], sum = 0;
	fvec all = FALL(0);

	for (int64_t i = 0; i < j->blocks; i++, a += j->block, b += bytes)
		all = FADD(all, FALL(scale[i]), block_sums(bits, b, a, j->block));
	FSTORE(part, all);
	for (int l = 0; l < LANES; l++)
		sum += part[l];
	return sum - zeros_part(j, j->sums + row * j->blocks, at) + (j->bias ? j->bias[at] : 0);
}

static void stream_piece(void *ctx, int64_t piece)
{
	const struct nbits_job *j = ctx;
	int64_t to = (piece + 1) * COLUMNS < j->n ? (piece + 1) * COLUMNS : j->n;

	for (int64_t i = piece * COLUMNS; i < to; i++)
		for (int64_t row = 0; row < j->m; row++)
			j->y[row * j->n + i] = j->bits == 4 ? column(j, 4, row, i) : column(j, 8, row, i);
}

static enum linnet_code stream(struct kernel_call *c, struct nbits_job *j)
{
	int64_t width = j->blocks * j->block;
	struct linnet_error *e = c->e;

	TRY_NEW(j->streamed, c->scratch, j->m * width);
	TRY_NEW(j->sums, c->scratch, j->m * j->blocks);
	for (int64_t row = 0; row < j->m; row++)
		for (int64_t i = 0; i < j->k; i++) {
			int64_t within = i % PAIR, to = j->bits == 8 ? i : i - within + within % 2 * (PAIR / 2) + within / 2;

			j->streamed[row * width + to] = j->a[row * j->k + i];
			j->sums[row * j->blocks + i / j->block] += j->a[row * j->k + i];
		}
	parallel_for(j->n * j->k < 1 << 16 ? 1 : c->threads, (j->n + COLUMNS - 1) / COLUMNS, stream_piece, j);
	return LINNET_OK;
}

/* TILE columns of all rows: DEPTH weights of each at a time. */
static void tile_piece(void *ctx, int64_t piece)
{
	const struct nbits_job *j = ctx;
	int64_t from = piece * TILE, n = j->n - from < TILE ? j->n - from : TILE, bytes = j->blocks * j->block * j->bits / 8;
	float w[TILE * DEPTH];

	for (int64_t k = 0; k < j->k; k += DEPTH) {
		int64_t depth = j->k - k < DEPTH ? j->k - k : DEPTH;

		for (int64_t i = 0; i < n; i++)
			for (int64_t l = 0; l < depth;) {
				int64_t block = (k + l) / j->block, end = (block + 1) * j->block - k;
				float *to = w + i * DEPTH, scale = j->scale[(from + i) * j->blocks + block], zero = zero_of(j, from + i, block);

				end = end < depth ? end : depth;
				unpack(j->b + (from + i) * bytes, j->bits, false, k + l, end - l, to + l);
				for (; l < end; l++)
					to[l] = (to[l] - zero) * scale;
			}
		blas_sgemm(false, true, j->m, n, depth, 1, j->a + k, j->k, w, DEPTH, k > 0, j->y + from, j->n);
	}
	for (int64_t row = 0; row < j->m && j->bias; row++)
		for (int64_t i = 0; i < n; i++)
			j->y[row * j->n + from + i] += j->bias[from + i];
}

static const struct tensor *input(const struct kernel_call *c, int i) { return i < c->nin ? c->in[i] : NULL; }

static bool is_float(const struct tensor *t) { return !t || t->dt == DT_FLOAT; }

static bool matmul_nbits_ok(const struct kernel_call *c)
{
	const struct tensor *zero = input(c, 3);

	return is_float(c->in[0]) && is_float(c->in[2]) && is_float(input(c, 5)) && !input(c, 4) &&
	       (!zero || zero->dt == DT_UINT8 || zero->dt == DT_FLOAT);
}

static enum linnet_code matmul_nbits_run(struct kernel_call *c)
{
	struct nbits_job j = { .a = c->in[0]->data, .b = c->in[1]->data, .scale = c->in[2]->data, .zero = input(c, 3), .y = c->out[0]->data,
	                       .bias = input(c, 5) ? input(c, 5)->data : NULL, .k = attr_get(c->op, c->attr, "K")->i,
	                       .n = attr_get(c->op, c->attr, "N")->i, .block = attr_get(c->op, c->attr, "block_size")->i,
	                       .bits = (int)attr_get(c->op, c->attr, "bits")->i };

	if (!c->out[0]->n)
		return LINNET_OK;
	j.m = c->out[0]->n / j.n;
	j.blocks = (j.k + j.block - 1) / j.block;
	j.zeros = (j.blocks * j.bits + 7) / 8;
	if (j.m <= FEW && (j.bits == 8 || (j.bits == 4 && j.block % PAIR == 0)))
		return stream(c, &j);
	parallel_for(j.m * j.n * j.k < 1 << 16 ? 1 : c->threads, (j.n + TILE - 1) / TILE, tile_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(matmul_nbits) = { .name = "matmul/nbits", .ok = matmul_nbits_ok, .run = matmul_nbits_run };

/* ---- GatherBlockQuantized: rows of a matrix, in blocks along its columns ---- */

struct gather_job {
	const struct tensor *data, *indices, *scales, *zero;
	float *y;
	int64_t width, block, blocks, group; /* numbers of a row; rows a piece */
	int bits;
};

static void gather_piece(void *ctx, int64_t piece)
{
	const struct gather_job *j = ctx;
	int64_t rows = j->data->d[0], to = (piece + 1) * j->group < j->indices->n ? (piece + 1) * j->group : j->indices->n;
	int64_t zeros = j->zero ? j->zero->d[1] * (j->zero->dt == DT_UINT8 ? 8 / j->bits : 1) : 0;
	bool sign = j->data->dt == DT_INT4, bytes = j->data->dt == DT_UINT8;

	for (int64_t i = piece * j->group; i < to; i++) {
		int64_t at = tensor_get_int(j->indices, i);
		float *y = j->y + i * j->width;

		if (at < -rows || at >= rows) {
			memset(y, 0, (size_t)j->width * sizeof *y);
			continue;
		}
		at += at < 0 ? rows : 0;
		unpack(j->data->data, j->bits, sign, at * j->width, j->width, y);
		for (int64_t b = 0, l = 0; b < j->blocks; b++) {
			float scale = ((const float *)j->scales->data)[at * j->blocks + b], zero = bytes ? (float)(1 << (j->bits - 1)) : 0;
			int64_t end = (b + 1) * j->block < j->width ? (b + 1) * j->block : j->width;

			if (j->zero)
				unpack(j->zero->data, j->bits, sign, at * zeros + b, 1, &zero);
			for (; l < end; l++)
				y[l] = (y[l] - zero) * scale;
		}
	}
}

/* Rows gathered, blocks along the columns, all lengths as they are. */
static bool gather_nbits_ok(const struct kernel_call *c)
{
	const struct tensor *data = c->in[0], *scales = c->in[2];
	int64_t gather = attr_get(c->op, c->attr, "gather_axis")->i, quantize = attr_get(c->op, c->attr, "quantize_axis")->i;

	return dtype_in(data->dt, SET(UINT8) | SET(UINT4) | SET(INT4)) && data->rank == 2 && (gather == 0 || gather == -2) &&
	       (quantize == 1 || quantize == -1) && is_float(scales) && scales->rank == 2 && c->out[0]->dt == DT_FLOAT &&
	       (!input(c, 3) || input(c, 3)->rank == 2);
}

static enum linnet_code gather_nbits_run(struct kernel_call *c)
{
	struct gather_job j = { .data = c->in[0], .indices = c->in[1], .scales = c->in[2], .zero = input(c, 3), .y = c->out[0]->data,
	                        .block = attr_get(c->op, c->attr, "block_size")->i, .bits = (int)attr_get(c->op, c->attr, "bits")->i };

	if (!c->out[0]->n)
		return LINNET_OK;
	j.width = c->out[0]->n / j.indices->n;
	j.blocks = j.scales->d[1];
	j.group = (1 << 14) / j.width + 1;
	parallel_for(c->out[0]->n < 1 << 16 ? 1 : c->threads, (j.indices->n + j.group - 1) / j.group, gather_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(gather_nbits) = { .name = "gather/nbits", .ok = gather_nbits_ok, .run = gather_nbits_run };
