/*
 * Matrix products in float32.
 *
 * Many rows: BLAS on blocks of rows and columns, bound by arithmetic. Few rows (a decoder's single step): each weight is used once a row, so
 * memory bounds it: the weights are streamed once, in columns of a width that keeps the sums in the first cache, with no packing. In mixed
 * precision (mixed.h) factors of large products are packed once and then shared by all blocks.
 */
#include <string.h>

#include "ops/blas.h"
#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/fast/mixed.h"

enum {
	FEW_ROWS = 6,      /* up to this many rows are streamed */
	COLUMNS = 256,     /* width of a streamed piece: one row of sums is 1 KiB */
	BLOCK_ROWS = 128,  /* of a BLAS piece */
	BLOCK_COLUMNS = 512,
	MIXED_LEAST = 64   /* of a product's three lengths, to be worth packing */
};

/* One product C [m, n] = A [m, k] B [k, n] (or A^T, A being [k, m], or B^T, B being [n, k]) with row lengths in memory. */
struct product {
	const float *a, *b;
	float *c;
	int64_t m, n, k, lda, ldb;
	bool ta, tb;
	const float *bias; /* [n] added, or NULL; Gemm */
	float alpha, beta;
};

/* y [m, w] = x [m, k] b [k, w]: four rows of b at a time. */
static void stream(const struct product *p, int64_t from, int64_t w)
{
	for (int64_t i = 0; i < p->m; i++) {
		const float *x = p->a + i * p->lda;
		float *restrict y = p->c + i * p->n + from;
		int64_t k = 0;

		for (int64_t j = 0; j < w; j++)
			y[j] = 0;
		for (; k + 4 <= p->k; k += 4) {
			const float *restrict b0 = p->b + k * p->ldb + from, *restrict b1 = b0 + p->ldb, *restrict b2 = b1 + p->ldb,
			            *restrict b3 = b2 + p->ldb;
			float x0 = x[k], x1 = x[k + 1], x2 = x[k + 2], x3 = x[k + 3];

			for (int64_t j = 0; j < w; j++)
				y[j] += x0 * b0[j] + x1 * b1[j] + (x2 * b2[j] + x3 * b3[j]);
		}
		for (; k < p->k; k++)
			for (int64_t j = 0; j < w; j++)
				y[j] += x[k] * p->b[k * p->ldb + from + j];
	}
}

/* The same with b [n, k]: a dot product a column, in eight partial sums. */
static void stream_dots(const struct product *p, int64_t from, int64_t w)
{
	for (int64_t j = from; j < from + w; j++) {
		const float *restrict b = p->b + j * p->ldb;

		for (int64_t i = 0; i < p->m; i++) {
			const float *restrict x = p->a + i * p->lda;
			float s[16] = { 0 }, sum = 0;
			int64_t k = 0;

			for (; k + 16 <= p->k; k += 16)
				for (int l = 0; l < 16; l++)
					s[l] += x[k + l] * b[k + l];
			for (int l = 0; l < 16; l++)
				sum += s[l];
			for (; k < p->k; k++)
				sum += x[k] * b[k];
			p->c[i * p->n + j] = sum;
		}
	}
}

static void finish(const struct product *p, int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
	if (p->alpha == 1 && !p->bias)
		return;
	for (int64_t i = i0; i < i1; i++)
		for (int64_t j = j0; j < j1; j++)
			p->c[i * p->n + j] = p->alpha * p->c[i * p->n + j] + (p->bias ? p->beta * p->bias[j] : 0);
}

/* All products of a call and how they are cut. */
struct job {
	struct product p; /* of the first; a, b, c move by batch */
	int64_t batch, pieces; /* pieces a product */
	int64_t rows, columns; /* blocks */
	int rank;              /* of the batch lengths */
	const int64_t *length, *stride_a, *stride_b;
	bool few, mixed;
	struct mixed_factor a, b; /* where mixed */
};

static struct product product_at(const struct job *j, int64_t batch)
{
	struct product p = j->p;
	int64_t ia = 0, ib = 0, rest = batch;

	for (int r = j->rank - 1; r >= 0; r--) {
		ia += rest % j->length[r] * j->stride_a[r];
		ib += rest % j->length[r] * j->stride_b[r];
		rest /= j->length[r];
	}
	p.a += ia;
	p.b += ib;
	p.c += batch * p.m * p.n;
	return p;
}

static void piece(void *ctx, int64_t i)
{
	const struct job *j = ctx;
	struct product p = product_at(j, i / j->pieces);
	int64_t at = i % j->pieces, ncol = (p.n + j->columns - 1) / j->columns;
	int64_t i0 = at / ncol * j->rows, j0 = at % ncol * j->columns;
	int64_t i1 = i0 + j->rows < p.m ? i0 + j->rows : p.m, j1 = j0 + j->columns < p.n ? j0 + j->columns : p.n;

	if (j->mixed)
		mixed_multiply(&j->a, &j->b, i0, i1, j0, j1, p.c, p.n);
	else if (j->few && p.tb)
		stream_dots(&p, j0, j1 - j0);
	else if (j->few)
		stream(&p, j0, j1 - j0);
	else
		blas_sgemm(p.ta, p.tb, i1 - i0, j1 - j0, p.k, 1, p.a + (p.ta ? i0 : i0 * p.lda), p.lda, p.b + (p.tb ? j0 * p.ldb : j0), p.ldb, 0,
		           p.c + i0 * p.n + j0, p.n);
	finish(&p, i0, i1, j0, j1);
}

static void pack_piece(void *ctx, int64_t i)
{
	const struct job *j = ctx;
	int64_t n = mixed_panels(&j->a);

	mixed_pack(i < n ? &j->a : &j->b, i < n ? i : i - n);
}

static enum linnet_code pack(struct job *j, struct kernel_call *c)
{
	const struct product *p = &j->p;
	struct linnet_error *e = c->e;

	j->a = (struct mixed_factor){ .x = p->a, .length = p->m, .k = p->k, .ld = p->lda, .down = p->ta, .panel = MIXED_ROWS };
	j->b = (struct mixed_factor){ .x = p->b, .length = p->n, .k = p->k, .ld = p->ldb, .down = !p->tb, .panel = MIXED_COLUMNS };
	TRY_NEW(j->a.packed, c->scratch, mixed_room(&j->a));
	TRY_NEW(j->b.packed, c->scratch, mixed_room(&j->b));
	parallel_for(c->threads, mixed_panels(&j->a) + mixed_panels(&j->b), pack_piece, j);
	return LINNET_OK;
}

static enum linnet_code run_job(struct job *j, struct kernel_call *c)
{
	const struct product *p = &j->p;
	int64_t work;

	j->few = p->m <= FEW_ROWS && !p->ta;
	j->rows = j->few ? p->m : BLOCK_ROWS;
	j->columns = j->few ? COLUMNS : BLOCK_COLUMNS;
	if (!p->m || !p->n || !j->batch)
		return LINNET_OK;
	if (j->batch >= 8) { /* enough pieces as it is */
		j->rows = p->m;
		j->columns = p->n;
	}
	j->mixed = c->mixed && j->batch == 1 && p->m >= MIXED_LEAST && p->n >= MIXED_LEAST && p->k >= MIXED_LEAST && mixed_usable();
	if (j->mixed && pack(j, c))
		return c->e->code;
	j->pieces = (p->m + j->rows - 1) / j->rows * ((p->n + j->columns - 1) / j->columns);
	work = p->m * p->n * p->k * j->batch;
	parallel_for(work < 1 << 16 ? 1 : c->threads, j->batch * j->pieces, piece, j);
	return LINNET_OK;
}

/* ---- MatMul ---- */

static bool floats(const struct kernel_call *c, int n)
{
	for (int i = 0; i < n; i++)
		if (c->in[i] && c->in[i]->dt != DT_FLOAT)
			return false;
	return true;
}

static bool matmul_ok(const struct kernel_call *c)
{
	return floats(c, 2) && c->in[0]->rank > 0 && c->in[1]->rank > 0;
}

static enum linnet_code matmul_run(struct kernel_call *c)
{
	const struct tensor *a = c->in[0], *b = c->in[1];
	int ra = a->rank, rb = b->rank;
	int64_t length[MAX_RANK], sa[MAX_RANK], sb[MAX_RANK];
	struct job j = { .batch = 1, .length = length, .stride_a = sa, .stride_b = sb };
	struct product *p = &j.p;
	struct tensor ba = *a, bb = *b;

	p->a = a->data;
	p->b = b->data;
	p->c = c->out[0]->data;
	p->alpha = 1;
	p->m = ra > 1 ? a->d[ra - 2] : 1;
	p->k = a->d[ra - 1];
	p->n = rb > 1 ? b->d[rb - 1] : 1;
	p->lda = p->k;
	p->ldb = p->n;
	ba.rank = ra > 2 ? ra - 2 : 0;
	bb.rank = rb > 2 ? rb - 2 : 0;
	j.rank = ba.rank > bb.rank ? ba.rank : bb.rank;
	if (!bb.rank) { /* one matrix for all rows: the batch is rows */
		for (int i = 0; i < ba.rank; i++)
			p->m *= a->d[i];
		j.rank = 0;
	}
	if (j.rank) {
		broadcast_strides(&ba, j.rank, sa);
		broadcast_strides(&bb, j.rank, sb);
		for (int i = 0; i < j.rank; i++) {
			int ia = i - (j.rank - ba.rank), ib = i - (j.rank - bb.rank);
			int64_t la = ia < 0 ? 1 : a->d[ia], lb = ib < 0 ? 1 : b->d[ib];

			length[i] = la == 1 ? lb : la;
			j.batch *= length[i];
			sa[i] *= p->m * p->k;
			sb[i] *= p->k * p->n;
		}
	}
	return run_job(&j, c);
}

const struct fast FAST_KERNEL(matmul) = { .name = "matmul/float", .ok = matmul_ok, .run = matmul_run };

/* ---- Gemm ---- */

/* C absent or a row. */
static bool gemm_ok(const struct kernel_call *c)
{
	const struct tensor *bias = c->nin > 2 ? c->in[2] : NULL;

	if (!floats(c, c->nin))
		return false;
	return !bias || (bias->rank == 1 && bias->n == c->out[0]->d[1]) || (bias->rank == 2 && bias->d[0] == 1 && bias->d[1] == c->out[0]->d[1]);
}

static enum linnet_code gemm_run(struct kernel_call *c)
{
	const struct tensor *a = c->in[0], *b = c->in[1], *y = c->out[0];
	struct job j = { .batch = 1 };
	struct product *p = &j.p;

	p->a = a->data;
	p->b = b->data;
	p->c = y->data;
	p->ta = attr_get(c->op, c->attr, "transA")->i != 0;
	p->tb = attr_get(c->op, c->attr, "transB")->i != 0;
	p->m = a->d[p->ta];
	p->k = a->d[!p->ta];
	p->n = y->d[1];
	p->lda = a->d[1];
	p->ldb = b->d[1];
	p->alpha = (float)attr_get(c->op, c->attr, "alpha")->f;
	p->beta = (float)attr_get(c->op, c->attr, "beta")->f;
	p->bias = c->nin > 2 && c->in[2] && p->beta != 0 ? c->in[2]->data : NULL;
	return run_job(&j, c);
}

const struct fast FAST_KERNEL(gemm) = { .name = "gemm/float", .ok = gemm_ok, .run = gemm_run };
