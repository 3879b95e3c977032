/*
 * Products of 8-bit integers less their zero points, summed in 32 bits, and convolutions as such products.
 *
 * Operands are packed as 16-bit numbers with their zero points taken off, so that zero points by row or by column cost nothing later;
 * constant ones once a plan. Two products and their sum are one instruction (pmaddwd, vpdpwssd where VNNI is), exact for numbers of 9 bits. Sums wrap, as the
 * operators' do; where they are scaled, lengths up to MOST keep them within 32 bits. All results are the reference's, bit for bit.
 *
 * Many rows: arithmetic bounds it, 32 products a cycle with 512 bits. Few: the packed weights are streamed once; memory bounds it.
 */
#include <math.h>
#include <string.h>

#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/window.h"

#if defined(__AVX512VNNI__)
#include <immintrin.h>
typedef __m512i ivec;
enum { LANES = 16, ROWS = 8 };
#define IZERO() _mm512_setzero_si512()
#define ILOAD(p) _mm512_loadu_si512(p)
#define ISTORE(p, v) _mm512_storeu_si512(p, v)
#define IBOTH(v) _mm512_set1_epi32(v)
#define IADD(s, a, b) _mm512_dpwssd_epi32(s, a, b)
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256i ivec;
enum { LANES = 8, ROWS = 4 };
#define IZERO() _mm256_setzero_si256()
#define ILOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define ISTORE(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define IBOTH(v) _mm256_set1_epi32(v)
#define IADD(s, a, b) _mm256_add_epi32(s, _mm256_madd_epi16(a, b))
#elif defined(__SSE2__)
#include <emmintrin.h>
typedef __m128i ivec;
enum { LANES = 4, ROWS = 4 };
#define IZERO() _mm_setzero_si128()
#define ILOAD(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define ISTORE(p, v) _mm_storeu_si128((__m128i *)(void *)(p), v)
#define IBOTH(v) _mm_set1_epi32(v)
#define IADD(s, a, b) _mm_add_epi32(s, _mm_madd_epi16(a, b))
#else
/* Two numbers of 16 bits in one of 32, as packed. */
typedef struct {
	int16_t of[2];
} ivec_pair;
typedef int32_t ivec;
enum { LANES = 1, ROWS = 4 };
static inline ivec iload(const void *p)
{
	ivec v;

	memcpy(&v, p, sizeof v);
	return v;
}
static inline ivec iadd(ivec s, ivec a, ivec b)
{
	ivec_pair x, y;

	memcpy(&x, &a, sizeof x);
	memcpy(&y, &b, sizeof y);
	return (ivec)((uint32_t)s + (uint32_t)(x.of[0] * y.of[0]) + (uint32_t)(x.of[1] * y.of[1]));
}
#define IZERO() 0
#define ILOAD(p) iload(p)
#define ISTORE(p, v) (*(p) = (v))
#define IBOTH(v) (v)
#define IADD(s, a, b) iadd(s, a, b)
#endif

enum {
	PANEL = 2 * LANES,    /* columns of B packed side by side: [k / 2][PANEL][2] */
	BLOCK_ROWS = 64,      /* of a piece */
	BLOCK_PANELS = 128 / PANEL,
	MOST = INT32_MAX / (255 * 255)
};

/* A matrix [rows, columns] of bytes with its strides, less zero points that advance by zero_row and zero_column (0 or 1). */
struct bytes {
	const uint8_t *x;
	int64_t rows, columns, row, column;
	const void *zero; /* of x's type, or NULL */
	int64_t zero_row, zero_column;
	bool sign;
};

static inline int value(bool sign, const void *p, int64_t i)
{
	return sign ? ((const int8_t *)p)[i] : ((const uint8_t *)p)[i];
}

static int zero_at(const struct bytes *m, int64_t i, int64_t j)
{
	return m->zero ? value(m->sign, m->zero, i * m->zero_row + j * m->zero_column) : 0;
}

static int64_t pairs(int64_t k) { return (k + 1) / 2; }
static int64_t panels(int64_t n) { return (n + PANEL - 1) / PANEL; }

/* Row i of A, [pairs][2]; an odd length is filled up by 0. */
static void pack_row(const struct bytes *m, int64_t i, int16_t *restrict to)
{
	const uint8_t *restrict x = m->x + i * m->row;

	if (m->zero_column || m->column != 1) {
		for (int64_t j = 0; j < m->columns; j++)
			to[j] = (int16_t)(value(m->sign, x, j * m->column) - zero_at(m, i, j));
	} else {
		int zero = zero_at(m, i, 0);

		if (m->sign)
			for (int64_t j = 0; j < m->columns; j++)
				to[j] = (int16_t)((int8_t)x[j] - zero);
		else
			for (int64_t j = 0; j < m->columns; j++)
				to[j] = (int16_t)(x[j] - zero);
	}
	if (m->columns % 2)
		to[m->columns] = 0;
}

/* Columns of B from panel p on; those behind the last and an odd row behind the last are 0. */
static void pack_panel(const struct bytes *m, int64_t p, int16_t *restrict to)
{
	int64_t from = p * PANEL, n = m->columns - from < PANEL ? m->columns - from : PANEL;
	int16_t zero[PANEL];

	if (n < PANEL || m->rows % 2)
		memset(to, 0, (size_t)(pairs(m->rows) * PANEL * 2) * sizeof *to);
	for (int64_t j = 0; j < n; j++)
		zero[j] = (int16_t)zero_at(m, 0, from + j);
	for (int64_t i = 0; i < m->rows; i++) {
		const uint8_t *restrict x = m->x + i * m->row + from * m->column;
		int16_t *restrict y = to + i / 2 * PANEL * 2 + i % 2;

		if (m->sign)
			for (int64_t j = 0; j < n; j++)
				y[2 * j] = (int16_t)((int8_t)x[j * m->column] - zero[j]);
		else
			for (int64_t j = 0; j < n; j++)
				y[2 * j] = (int16_t)(x[j * m->column] - zero[j]);
	}
}

/* Several matrices, as far apart as they are long. */
struct pack_job {
	struct bytes m;
	int64_t n; /* rows or panels of a matrix */
	int16_t *to;
};

static void pack_rows_piece(void *ctx, int64_t i)
{
	const struct pack_job *j = ctx;
	struct bytes m = j->m;

	m.x += i / j->n * m.rows * m.columns;
	pack_row(&m, i % j->n, j->to + i * pairs(m.columns) * 2);
}

static void pack_panels_piece(void *ctx, int64_t i)
{
	const struct pack_job *j = ctx;
	struct bytes m = j->m;

	m.x += i / j->n * m.rows * m.columns;
	pack_panel(&m, i % j->n, j->to + i * pairs(m.rows) * PANEL * 2);
}

/* `count` matrices of A, or of B. */
static enum linnet_code pack_rows(struct arena *a, int threads, const struct bytes *m, int64_t count, int16_t **out, struct linnet_error *e)
{
	struct pack_job j = { .m = *m, .n = m->rows };

	TRY_NEW(j.to, a, count * m->rows * pairs(m->columns) * 2);
	parallel_for(m->rows * m->columns * count < 1 << 16 ? 1 : threads, count * j.n, pack_rows_piece, &j);
	*out = j.to;
	return LINNET_OK;
}

static enum linnet_code pack_panels(struct arena *a, int threads, const struct bytes *m, int64_t count, int16_t **out,
                                    struct linnet_error *e)
{
	struct pack_job j = { .m = *m, .n = panels(m->columns) };

	TRY_NEW(j.to, a, count * j.n * pairs(m->rows) * PANEL * 2);
	parallel_for(m->rows * m->columns * count < 1 << 16 ? 1 : threads, count * j.n, pack_panels_piece, &j);
	*out = j.to;
	return LINNET_OK;
}

/* Sums of `rows` rows of A with one panel of B. */
#define TILE(rows)                                                                                 \
	static void tile_##rows(const int16_t *a, const int16_t *restrict b, int64_t np, int32_t *restrict sum) \
	{                                                                                          \
		ivec s[rows][2];                                                                   \
                                                                                                   \
		for (int r = 0; r < (rows); r++)                                                   \
			s[r][0] = s[r][1] = IZERO();                                               \
		for (int64_t p = 0; p < np; p++, b += 2 * PANEL) {                                 \
			ivec b0 = ILOAD(b), b1 = ILOAD(b + 2 * LANES);                             \
                                                                                                   \
			for (int r = 0; r < (rows); r++) {                                         \
				int32_t pair;                                                      \
				ivec x;                                                            \
                                                                                                   \
				memcpy(&pair, a + 2 * (r * np + p), sizeof pair);                  \
				x = IBOTH(pair);                                                   \
				s[r][0] = IADD(s[r][0], x, b0);                                    \
				s[r][1] = IADD(s[r][1], x, b1);                                    \
			}                                                                          \
		}                                                                                  \
		for (int r = 0; r < (rows); r++) {                                                 \
			ISTORE(sum + r * PANEL, s[r][0]);                                          \
			ISTORE(sum + r * PANEL + LANES, s[r][1]);                                  \
		}                                                                                  \
	}

TILE(1)
TILE(2)
TILE(4)
#if defined(__AVX512BW__)
TILE(8)
#endif

/* As many rows as a tile may have. */
static int tile(int64_t rows, const int16_t *a, const int16_t *b, int64_t np, int32_t *sum)
{
#if defined(__AVX512BW__)
	if (rows >= 8) {
		tile_8(a, b, np, sum);
		return 8;
	}
#endif
	if (rows >= 4) {
		tile_4(a, b, np, sum);
		return 4;
	}
	if (rows >= 2) {
		tile_2(a, b, np, sum);
		return 2;
	}
	tile_1(a, b, np, sum);
	return 1;
}

/* What becomes of sums. */
struct finish {
	enum { SUMS, SCALED, GEMM } how;
	/* SCALED: f = row_scale column_scale / scale in float; (sum + row_bias) f, each step rounded */
	const float *row_scale, *column_scale, *scale;
	int64_t row_step, column_step;
	const int32_t *row_bias;
	const float *bias; /* of columns, floats; added at last */
	/* GEMM: alpha row_scale column_scale (sum + plus) / scale in double */
	double alpha;
	const int32_t *plus;
	int64_t plus_row, plus_column;
	enum dtype dt; /* FLOAT, INT8, UINT8 behind SCALED and GEMM */
	int zero;
};

static int saturated(double v, int zero, enum dtype dt)
{
	double r = v == v ? nearbyint(v) + zero : 0, lo = dt == DT_INT8 ? -128 : 0, hi = dt == DT_INT8 ? 127 : 255;

	return (int)(r < lo ? lo : r > hi ? hi : r);
}

static void store_row(const struct finish *f, int64_t i, int64_t j, int64_t n, const int32_t *restrict sum, void *row)
{
	float v[PANEL];

	if (f->how == SUMS) {
		memcpy((int32_t *)row + j, sum, (size_t)n * sizeof *sum);
		return;
	}
	if (f->how == GEMM) {
		for (int64_t l = 0; l < n; l++) {
			int64_t s = sum[l] + (f->plus ? (int64_t)f->plus[i * f->plus_row + (j + l) * f->plus_column] : 0);
			double y = (double)s * (f->alpha * (double)*f->row_scale * (double)f->column_scale[(j + l) * f->column_step]);

			if (f->dt == DT_FLOAT)
				((float *)row)[j + l] = (float)y;
			else
				((uint8_t *)row)[j + l] = (uint8_t)saturated(y / (double)*f->scale, f->zero, f->dt);
		}
		return;
	}
	for (int64_t l = 0; l < n; l++) {
		float by = f->row_scale[i * f->row_step] * f->column_scale[(j + l) * f->column_step];

		v[l] = f->scale ? by / *f->scale : by;
	}
	if (f->row_bias)
		for (int64_t l = 0; l < n; l++)
			v[l] = (float)((int64_t)sum[l] + f->row_bias[i]) * v[l];
	else
		for (int64_t l = 0; l < n; l++)
			v[l] = (float)sum[l] * v[l];
	if (f->dt == DT_FLOAT)
		for (int64_t l = 0; l < n; l++)
			((float *)row)[j + l] = f->bias ? v[l] + f->bias[j + l] : v[l];
	else {
		float lo = f->dt == DT_INT8 ? -128 : 0, hi = f->dt == DT_INT8 ? 127 : 255, zero = (float)f->zero;

		for (int64_t l = 0; l < n; l++) {
			float r = v[l] == v[l] ? nearbyintf(v[l]) + zero : 0;

			((uint8_t *)row)[j + l] = (uint8_t)(int)(r < lo ? lo : r > hi ? hi : r);
		}
	}
}

/* Products Y [m, n] of packed matrices; which of them by batch. */
struct product_job {
	const int16_t *a, *b;
	unsigned char *y;
	int64_t m, n, k, batch;
	int64_t apart; /* rows of Y between products; 0: m */
	int64_t pieces, row_blocks; /* a product */
	int rank;
	const int64_t *length, *stride_a, *stride_b; /* in matrices */
	size_t size; /* of an element of Y */
	struct finish f;
};

static void product_piece(void *ctx, int64_t piece)
{
	const struct product_job *j = ctx;
	int64_t batch = piece / j->pieces, rest = batch, ia = 0, ib = 0, np = pairs(j->k), apart = j->apart ? j->apart : j->m;
	int64_t i0 = piece % j->pieces % j->row_blocks * BLOCK_ROWS, i1 = i0 + BLOCK_ROWS < j->m ? i0 + BLOCK_ROWS : j->m;
	int64_t p0 = piece % j->pieces / j->row_blocks * BLOCK_PANELS, p1 = p0 + BLOCK_PANELS;
	int32_t sum[ROWS * PANEL];

	for (int r = j->rank - 1; r >= 0; r--) {
		ia += rest % j->length[r] * j->stride_a[r];
		ib += rest % j->length[r] * j->stride_b[r];
		rest /= j->length[r];
	}
	p1 = p1 < panels(j->n) ? p1 : panels(j->n);
	for (int64_t p = p0; p < p1; p++) {
		const int16_t *b = j->b + (ib * panels(j->n) + p) * np * PANEL * 2;
		int64_t n = j->n - p * PANEL < PANEL ? j->n - p * PANEL : PANEL;

		for (int64_t i = i0; i < i1;) {
			int done = tile(i1 - i, j->a + (ia * j->m + i) * np * 2, b, np, sum);

			for (int r = 0; r < done; r++, i++)
				store_row(&j->f, i, p * PANEL, n, sum + r * PANEL, j->y + (size_t)((batch * apart + i) * j->n) * j->size);
		}
	}
}

static void run_products(struct product_job *j, int threads)
{
	j->row_blocks = (j->m + BLOCK_ROWS - 1) / BLOCK_ROWS;
	j->pieces = j->row_blocks * ((panels(j->n) + BLOCK_PANELS - 1) / BLOCK_PANELS);
	if (j->pieces)
		parallel_for(j->m * j->n * j->k * j->batch < 1 << 16 ? 1 : threads, j->batch * j->pieces, product_piece, j);
}

/* ---- Matrix products ---- */

/* Where an operator has what; -1: nowhere. `dynamic`: A comes in floats and is quantised by its range. */
struct wiring {
	const char *op;
	int a, a_zero, a_scale, b, b_zero, b_scale, scale, zero, bias;
	bool dynamic, gemm;
};

static const struct wiring wirings[] = {
	{ "MatMulInteger", 0, 2, -1, 1, 3, -1, -1, -1, -1, false, false },
	{ "QLinearMatMul", 0, 2, 1, 3, 5, 4, 6, 7, -1, false, false },
	{ "MatMulIntegerToFloat", 0, 4, 2, 1, 5, 3, -1, -1, 6, false, false },
	{ "DynamicQuantizeMatMul", 0, -1, -1, 1, 3, 2, -1, -1, 4, true, false },
	{ "QGemm", 0, 2, 1, 3, 5, 4, 7, 8, 6, false, true },
};

static const struct wiring *wiring_of(const struct op *op)
{
	for (size_t i = 0; i < sizeof wirings / sizeof *wirings; i++)
		if (!strcmp(wirings[i].op, op->name))
			return &wirings[i];
	return NULL;
}

static const struct tensor *input(const struct kernel_call *c, int i) { return i >= 0 && i < c->nin ? c->in[i] : NULL; }

static bool of_bytes(const struct tensor *t) { return t->dt == DT_INT8 || t->dt == DT_UINT8; }

/* One number, or a vector of n. */
static bool one_or(const struct tensor *t, int64_t n) { return !t || t->n == 1 || (t->rank == 1 && t->n == n); }

static bool is_float(const struct tensor *t) { return !t || t->dt == DT_FLOAT; }

static bool transposed(const struct op *op, const struct attr *attr, const struct wiring *w, const char *name)
{
	return w->gemm && attr_get(op, attr, name)->i;
}

static bool integer_matmul_ok(const struct kernel_call *c)
{
	const struct wiring *w = wiring_of(c->op);
	const struct tensor *a = c->in[w->a], *b = c->in[w->b], *bias = input(c, w->bias), *y = c->out[0];
	int64_t rows, columns, k;

	if (!y || !of_bytes(b) || !(w->dynamic ? a->dt == DT_FLOAT : of_bytes(a)) || !a->rank || !b->rank)
		return false;
	rows = a->rank == 2 ? a->d[0] : 1; /* of several matrices rows have no zero points of their own */
	columns = b->rank > 1 ? b->d[b->rank - 1] : 1;
	k = a->d[a->rank - 1];
	if (w->gemm) {
		rows = 1;
		columns = y->d[1];
		k = a->d[!transposed(c->op, c->attr, w, "transA")];
		if (bias && bias->dt != DT_INT32)
			return false;
	} else if (bias && (bias->dt != DT_FLOAT || bias->rank != 1 || bias->n != columns || b->rank < 2)) {
		return false;
	}
	if (k > MOST && (w->b_scale >= 0 || w->gemm))
		return false;
	return one_or(input(c, w->a_zero), rows) && one_or(input(c, w->b_zero), columns) && one_or(input(c, w->a_scale), rows) &&
	       one_or(input(c, w->b_scale), columns) && is_float(input(c, w->a_scale)) && is_float(input(c, w->b_scale)) &&
	       is_float(input(c, w->scale)) && (y->dt == DT_FLOAT || y->dt == DT_INT32 || of_bytes(y)) &&
	       (!input(c, w->scale) || input(c, w->scale)->n == 1) && (!input(c, w->zero) || input(c, w->zero)->n == 1);
}

static struct bytes matrix_b(const struct op *op, const struct attr *attr, const struct wiring *w, const struct tensor *b,
                             const struct tensor *zero)
{
	bool tb = transposed(op, attr, w, "transB");
	struct bytes m = { .x = b->data, .rows = b->rank > 1 ? b->d[b->rank - 2] : b->d[0], .columns = b->rank > 1 ? b->d[b->rank - 1] : 1,
		           .column = 1, .zero = zero ? zero->data : NULL, .zero_column = zero && zero->n > 1, .sign = b->dt == DT_INT8 };

	m.row = m.columns;
	if (tb) {
		m = (struct bytes){ m.x, m.columns, m.rows, 1, m.row, m.zero, m.zero_row, m.zero_column, m.sign };
	}
	return m;
}

/* A constant B, packed with a constant zero point or none. */
struct packed {
	const int16_t *b;
	bool zero; /* one was known */
};

static enum linnet_code integer_matmul_prepare(const struct op *op, const struct attr *attr, int nin, const struct tensor *const *constant,
                                               struct arena *a, void **prepared, struct linnet_error *e)
{
	const struct wiring *w = wiring_of(op);
	const struct tensor *b = constant[w->b], *zero = w->b_zero < nin ? constant[w->b_zero] : NULL;
	struct packed *p;
	struct bytes m;
	int16_t *to;

	if (!b || !of_bytes(b) || b->rank != 2 || !b->n)
		return LINNET_OK;
	m = matrix_b(op, attr, w, b, zero);
	if (!one_or(zero, m.columns))
		return LINNET_OK;
	TRY_NEW(p, a, 1);
	TRY(pack_panels(a, 1, &m, 1, &to, e));
	*p = (struct packed){ to, zero != NULL };
	*prepared = p;
	return LINNET_OK;
}

/* Batch lengths of Y and which matrices of A and B belong to them. */
static void batches(const struct tensor *a, const struct tensor *b, struct product_job *j, int64_t *length, int64_t *sa, int64_t *sb)
{
	struct tensor ba = *a, bb = *b;

	ba.rank = a->rank > 2 ? a->rank - 2 : 0;
	bb.rank = b->rank - 2;
	j->rank = ba.rank > bb.rank ? ba.rank : bb.rank;
	broadcast_strides(&ba, j->rank, sa);
	broadcast_strides(&bb, j->rank, sb);
	for (int i = 0; i < j->rank; i++) {
		int ia = i - (j->rank - ba.rank), ib = i - (j->rank - bb.rank);
		int64_t la = ia < 0 ? 1 : a->d[ia], lb = ib < 0 ? 1 : b->d[ib];

		length[i] = la == 1 ? lb : la;
		j->batch *= length[i];
	}
}

extern const struct fast FAST_KERNEL(dynamic_quantize);

/* A in bytes, with its scale and zero point: those of the call, or found. */
static enum linnet_code operand_a(struct kernel_call *c, const struct wiring *w, const struct tensor *a[3])
{
	struct kernel_call inner = *c;
	struct tensor *y[3];

	a[0] = c->in[w->a];
	a[1] = input(c, w->a_scale);
	a[2] = input(c, w->a_zero);
	if (!w->dynamic)
		return LINNET_OK;
	TRY(tensor_new(c->scratch, DT_UINT8, a[0]->rank, a[0]->d, &y[0], c->e));
	TRY(tensor_new(c->scratch, DT_FLOAT, 0, NULL, &y[1], c->e));
	TRY(tensor_new(c->scratch, DT_UINT8, 0, NULL, &y[2], c->e));
	inner.nin = 1;
	inner.nout = 3;
	inner.out = y;
	TRY(FAST_KERNEL(dynamic_quantize).run(&inner));
	for (int i = 0; i < 3; i++)
		a[i] = y[i];
	return LINNET_OK;
}

static struct finish finish_of(const struct kernel_call *c, const struct wiring *w, const struct tensor *a_scale)
{
	const struct tensor *b_scale = input(c, w->b_scale), *scale = input(c, w->scale), *zero = input(c, w->zero), *bias = input(c, w->bias);
	struct finish f = { .how = w->gemm ? GEMM : b_scale ? SCALED : SUMS, .dt = c->out[0]->dt };
	int64_t stride[2] = { 0 };

	if (f.how == SUMS)
		return f;
	f.row_scale = a_scale->data;
	f.row_step = a_scale->n > 1;
	f.column_scale = b_scale->data;
	f.column_step = b_scale->n > 1;
	f.scale = scale ? scale->data : NULL;
	f.zero = zero && of_bytes(zero) ? (int)tensor_get_int(zero, 0) : 0;
	if (w->gemm) {
		f.alpha = attr_get(c->op, c->attr, "alpha")->f;
		f.plus = bias ? bias->data : NULL;
		if (bias)
			broadcast_strides(bias, 2, stride);
		f.plus_row = stride[0];
		f.plus_column = stride[1];
	} else {
		f.bias = bias ? bias->data : NULL;
	}
	return f;
}

static enum linnet_code integer_matmul_run(struct kernel_call *c)
{
	const struct wiring *w = wiring_of(c->op);
	const struct packed *ready = c->prepared;
	const struct tensor *b = c->in[w->b], *zero = input(c, w->b_zero), *of[3], *a;
	int64_t length[MAX_RANK], sa[MAX_RANK], sb[MAX_RANK];
	struct product_job j = { .batch = 1, .y = c->out[0]->data, .length = length, .stride_a = sa, .stride_b = sb,
	                         .size = dtype_bytes(c->out[0]->dt, 1) };
	struct bytes ma, mb = matrix_b(c->op, c->attr, w, b, zero);
	int64_t nb = 1;
	int16_t *pa, *pb;

	if (!c->out[0]->n)
		return LINNET_OK;
	TRY(operand_a(c, w, of));
	a = of[0];
	j.k = mb.rows;
	j.n = mb.columns;
	j.m = a->rank > 1 ? a->d[a->rank - 2] : 1;
	ma = (struct bytes){ .x = a->data, .rows = j.m, .columns = j.k, .row = j.k, .column = 1, .zero = of[2] ? of[2]->data : NULL,
	                     .zero_row = of[2] && of[2]->n > 1, .sign = a->dt == DT_INT8 };
	if (transposed(c->op, c->attr, w, "transA")) {
		j.m = ma.rows = a->d[1];
		ma.column = j.m;
		ma.row = 1;
	} else if (b->rank <= 2) { /* one matrix for all rows: the batch is rows */
		j.m = ma.rows = j.k ? a->n / j.k : c->out[0]->n / j.n;
	} else {
		batches(a, b, &j, length, sa, sb);
		for (int i = 0; i < b->rank - 2; i++)
			nb *= b->d[i];
	}
	TRY(pack_rows(c->scratch, c->threads, &ma, j.m && j.k ? a->n / j.m / j.k : 1, &pa, c->e));
	j.a = pa;
	if (ready && ready->zero == (zero != NULL)) {
		j.b = ready->b;
	} else {
		TRY(pack_panels(c->scratch, c->threads, &mb, nb, &pb, c->e));
		j.b = pb;
	}
	j.f = finish_of(c, w, of[1]);
	run_products(&j, c->threads);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(integer_matmul) = { .name = "matmul/integer", .ok = integer_matmul_ok, .prepare = integer_matmul_prepare,
	                                          .run = integer_matmul_run };

/* ---- Convolutions: Y [M, positions] = W [M, channels taps] X' [channels taps, positions] for each sample and group ---- */

/* Where an operator has what, as above. */
struct conv_wiring {
	int x, x_zero, x_scale, w, w_zero, w_scale, scale, zero, bias;
};

static const struct conv_wiring *conv_wiring_of(const struct op *op)
{
	static const struct conv_wiring integer = { 0, 2, -1, 1, 3, -1, -1, -1, -1 }, linear = { 0, 2, 1, 3, 5, 4, 6, 7, 8 };

	return strcmp(op->name, "ConvInteger") ? &linear : &integer;
}

struct unfold_job {
	struct window w;
	const uint8_t *x; /* [samples, groups, channels, in...] */
	int zero;
	bool sign;
	int64_t channels, plane, positions, depth; /* depth: channels taps */
	int16_t *to;
};

/* One panel: PANEL positions of a sample and group, all channels and taps. What lies outside the input counts 0. */
static void unfold_piece(void *ctx, int64_t piece)
{
	const struct unfold_job *j = ctx;
	const struct window *w = &j->w;
	int64_t np = panels(j->positions), from = piece % np * PANEL, n = j->positions - from < PANEL ? j->positions - from : PANEL, row = 0;
	const uint8_t *x = j->x + piece / np * j->channels * j->plane;
	int16_t *to = j->to + piece * pairs(j->depth) * PANEL * 2;
	int64_t start[SPACE][PANEL];

	memset(to, 0, (size_t)(pairs(j->depth) * PANEL * 2) * sizeof *to);
	for (int64_t l = 0; l < n; l++) {
		int64_t o = from + l;

		start[0][l] = o / w->out[2] / w->out[1] * w->stride[0] - w->begin[0];
		start[1][l] = o / w->out[2] % w->out[1] * w->stride[1] - w->begin[1];
		start[2][l] = o % w->out[2] * w->stride[2] - w->begin[2];
	}
	for (int64_t k0 = 0; k0 < w->taps[0]; k0++)
		for (int64_t k1 = 0; k1 < w->taps[1]; k1++)
			for (int64_t k2 = 0; k2 < w->taps[2]; k2++, row++)
				for (int64_t l = 0; l < n; l++) {
					int64_t i0 = start[0][l] + k0 * w->dilation[0], i1 = start[1][l] + k1 * w->dilation[1];
					int64_t i2 = start[2][l] + k2 * w->dilation[2], taps = w->taps[0] * w->taps[1] * w->taps[2];
					const uint8_t *at;

					if (i0 < 0 || i0 >= w->in[0] || i1 < 0 || i1 >= w->in[1] || i2 < 0 || i2 >= w->in[2])
						continue;
					at = x + at3(w->in, i0, i1, i2);
					for (int64_t ch = 0; ch < j->channels; ch++) {
						int64_t r = ch * taps + row;

						to[(r / 2 * PANEL + l) * 2 + r % 2] = (int16_t)(value(j->sign, at, ch * j->plane) - j->zero);
					}
				}
}

static bool integer_conv_ok(const struct kernel_call *c)
{
	const struct conv_wiring *w = conv_wiring_of(c->op);
	const struct tensor *x = c->in[w->x], *k = c->in[w->w], *bias = input(c, w->bias), *y = c->out[0];
	const struct tensor *one[4] = { input(c, w->x_zero), input(c, w->x_scale), input(c, w->scale), input(c, w->zero) };

	if (!y || !of_bytes(x) || !of_bytes(k) || !x->n || !k->n || (w->w_scale >= 0 && (k->n / k->d[0] > MOST)))
		return false;
	if (op_attr_index(c->op, "channels_last") >= 0 && attr_get(c->op, c->attr, "channels_last")->i)
		return false;
	for (int i = 0; i < 4; i++)
		if (one[i] && one[i]->n != 1)
			return false;
	return one_or(input(c, w->w_zero), k->d[0]) && one_or(input(c, w->w_scale), k->d[0]) && (!bias || bias->dt == DT_INT32);
}

static enum linnet_code integer_conv_run(struct kernel_call *c)
{
	const struct conv_wiring *at = conv_wiring_of(c->op);
	const struct tensor *x = c->in[at->x], *k = c->in[at->w], *w_zero = input(c, at->w_zero), *x_zero = input(c, at->x_zero);
	const struct tensor *w_scale = input(c, at->w_scale), *zero = input(c, at->zero), *bias = input(c, at->bias);
	struct shape sx = shape_of(x), sk = shape_of(k);
	int64_t groups = attr_get(c->op, c->attr, "group")->i, all = k->d[0], m = all / groups, size = (int64_t)dtype_bytes(c->out[0]->dt, 1);
	struct unfold_job u = { .x = x->data, .zero = x_zero ? (int)tensor_get_int(x_zero, 0) : 0, .sign = x->dt == DT_INT8,
	                        .channels = k->d[1] };
	struct bytes mk = { .x = k->data, .rows = all, .column = 1, .zero = w_zero ? w_zero->data : NULL,
	                    .zero_row = w_zero && w_zero->n > 1, .sign = k->dt == DT_INT8 };
	struct linnet_error *e = c->e;
	int16_t *weights;

	TRY(window_read(c->op, c->attr, &sx, &sk, &u.w, e));
	TRY(window_slide(NULL, c->op, c->attr, &u.w, e));
	if (!c->out[0]->n)
		return LINNET_OK;
	u.plane = u.w.in[0] * u.w.in[1] * u.w.in[2];
	u.positions = u.w.out[0] * u.w.out[1] * u.w.out[2];
	u.depth = u.channels * u.w.taps[0] * u.w.taps[1] * u.w.taps[2];
	mk.columns = mk.row = u.depth;
	TRY(pack_rows(c->scratch, c->threads, &mk, 1, &weights, e));
	TRY_NEW(u.to, c->scratch, x->d[0] * groups * panels(u.positions) * pairs(u.depth) * PANEL * 2);
	parallel_for(u.positions * u.depth * groups * x->d[0] < 1 << 14 ? 1 : c->threads, x->d[0] * groups * panels(u.positions), unfold_piece, &u);
	for (int64_t g = 0; g < groups; g++) {
		int64_t length[1] = { x->d[0] }, none[1] = { 0 }, by_sample[1] = { groups };
		struct product_job j = { .a = weights + g * m * pairs(u.depth) * 2, .b = u.to + g * panels(u.positions) * pairs(u.depth) * PANEL * 2,
			                 .m = m, .n = u.positions, .k = u.depth, .batch = x->d[0], .rank = 1, .length = length,
			                 .stride_a = none, .stride_b = by_sample, .size = (size_t)size };

		j.f = (struct finish){ .how = w_scale ? SCALED : SUMS, .dt = c->out[0]->dt };
		j.y = (unsigned char *)c->out[0]->data + g * m * u.positions * size;
		j.apart = all;
		if (w_scale) {
			j.f.row_step = w_scale->n > 1;
			j.f.row_scale = (const float *)w_scale->data + (w_scale->n > 1 ? g * m : 0);
			j.f.column_scale = input(c, at->x_scale)->data;
			j.f.scale = input(c, at->scale)->data;
			j.f.zero = zero ? (int)tensor_get_int(zero, 0) : 0;
			j.f.row_bias = bias ? (const int32_t *)bias->data + g * m : NULL;
		}
		run_products(&j, c->threads);
	}
	return LINNET_OK;
}

const struct fast FAST_KERNEL(integer_conv) = { .name = "conv/integer", .ok = integer_conv_ok, .run = integer_conv_run };
