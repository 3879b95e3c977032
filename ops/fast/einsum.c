/*
 * Einsum of two operands in float32 as products of matrices: labels of both operands and the output count matrices, those of one operand
 * and the output are rows or columns, those that are summed are inner. Labels that one operand alone has and the output has not are left
 * to the reference kernel. Operands and the result are copied into and out of that order where they are in another.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/einsum.h"
#include "ops/fast/fast.h"

extern const struct fast FAST_KERNEL(matmul);

/* Some labels in order, as axes of a tensor. */
struct axes {
	int n;
	int64_t d[3 * MAX_RANK], stride[3 * MAX_RANK];
};

enum part { MATRICES, ROWS, INNER, COLUMNS, NPART };

struct product {
	struct einsum s;
	struct labels part[NPART];
	int64_t size[NPART];
};

static bool has(const struct einsum *s, int operand, int label)
{
	return s->stride[operand][label] != 0 || s->length[label] == 1;
}

/* Which part each label is of; false when one is of none. Labels of length 1 say nothing. */
static bool divide(struct product *p)
{
	for (int i = 0; i < NPART; i++)
		p->size[i] = 1;
	for (int i = 0; i < p->s.out.n + p->s.nsum; i++) {
		bool summed = i >= p->s.out.n;
		int label = summed ? p->s.sum[i - p->s.out.n] : p->s.out.at[i];
		bool a = has(&p->s, 0, label), b = has(&p->s, 1, label);
		enum part at = a && b ? (summed ? INNER : MATRICES) : a ? ROWS : COLUMNS;

		if (p->s.length[label] == 1)
			continue;
		if ((summed && at != INNER) || p->part[at].n == MAX_RANK)
			return false;
		p->part[at].at[p->part[at].n++] = label;
		p->size[at] *= p->s.length[label];
	}
	return true;
}

static void add_axes(struct axes *x, const struct product *p, enum part part, const int64_t *stride)
{
	for (int i = 0; i < p->part[part].n; i++) {
		x->d[x->n] = p->s.length[p->part[part].at[i]];
		x->stride[x->n++] = stride[p->part[part].at[i]];
	}
}

/* Whether the axes lie one behind the other already. */
static bool in_order(const struct axes *x)
{
	int64_t step = 1;

	for (int i = x->n - 1; i >= 0; i--) {
		if (x->stride[i] != step)
			return false;
		step *= x->d[i];
	}
	return true;
}

struct move {
	const struct axes *axes;
	const float *from;
	float *to;
	bool out; /* `to` has the strides, else `from` has */
	int64_t inner;
};

/* Everything below one position of the first axes: a line along the last axis. */
static void move_line(void *ctx, int64_t line)
{
	const struct move *m = ctx;
	const struct axes *x = m->axes;
	int64_t at = 0, rest = line, step = x->n ? x->stride[x->n - 1] : 1;
	const float *restrict from = m->from;
	float *restrict to = m->to;

	for (int i = x->n - 2; i >= 0; i--) {
		at += rest % x->d[i] * x->stride[i];
		rest /= x->d[i];
	}
	for (int64_t i = 0; i < m->inner; i++) {
		if (m->out)
			to[at + i * step] = from[line * m->inner + i];
		else
			to[line * m->inner + i] = from[at + i * step];
	}
}

static void move_all(const struct kernel_call *c, const struct axes *x, const float *from, float *to, bool out, int64_t n)
{
	struct move m = { x, from, to, out, x->n ? x->d[x->n - 1] : 1 };

	if (n)
		parallel_for(n < 1 << 15 ? 1 : c->threads, n / m.inner, move_line, &m);
}

static bool einsum_ok(const struct kernel_call *c)
{
	int64_t each[2][NLABEL] = { { 0 } };
	struct product p = { .s = { .stride = each } };
	struct kernel_call quiet = *c;

	quiet.e = NULL;
	return c->nin == 2 && c->in[0]->dt == DT_FLOAT && c->in[0]->n && c->in[1]->n && !einsum_read(&quiet, &p.s) && divide(&p);
}

static enum linnet_code einsum_run(struct kernel_call *c)
{
	static const enum part order[2][3] = { { MATRICES, ROWS, INNER }, { MATRICES, INNER, COLUMNS } };
	int64_t each[2][NLABEL] = { { 0 } };
	struct product p = { .s = { .stride = each } };
	struct tensor side[3], *y = &side[2];
	const struct tensor *in[2] = { &side[0], &side[1] };
	struct kernel_call inner = *c;
	int64_t stride[NLABEL] = { 0 }, step = 1;
	struct axes out = { 0 };

	TRY(einsum_read(c, &p.s));
	divide(&p);
	for (int i = 0; i < 2; i++) {
		const int64_t d[3] = { p.size[order[i][0]], p.size[order[i][1]], p.size[order[i][2]] };
		struct axes x = { 0 };
		struct tensor *t;

		for (int k = 0; k < 3; k++)
			add_axes(&x, &p, order[i][k], p.s.stride[i]);
		if (in_order(&x)) {
			side[i] = *c->in[i];
			side[i].rank = 3;
			memcpy(side[i].d, d, sizeof d);
			continue;
		}
		TRY(tensor_new(c->scratch, DT_FLOAT, 3, d, &t, c->e));
		move_all(c, &x, c->in[i]->data, t->data, false, t->n);
		side[i] = *t;
	}
	for (int i = p.s.out.n - 1; i >= 0; i--) {
		stride[p.s.out.at[i]] = step;
		step *= p.s.length[p.s.out.at[i]];
	}
	add_axes(&out, &p, MATRICES, stride);
	add_axes(&out, &p, ROWS, stride);
	add_axes(&out, &p, COLUMNS, stride);
	if (in_order(&out)) {
		*y = *c->out[0];
		y->rank = 3;
		memcpy(y->d, (int64_t[]){ p.size[MATRICES], p.size[ROWS], p.size[COLUMNS] }, 3 * sizeof *y->d);
	} else {
		TRY(tensor_new(c->scratch, DT_FLOAT, 3, (int64_t[]){ p.size[MATRICES], p.size[ROWS], p.size[COLUMNS] }, &y, c->e));
	}
	inner.in = in;
	inner.out = &y;
	inner.prepared = NULL;
	TRY(FAST_KERNEL(matmul).run(&inner));
	if (y != &side[2])
		move_all(c, &out, y->data, c->out[0]->data, true, y->n);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(einsum) = { .name = "einsum/matmul", .ok = einsum_ok, .run = einsum_run };
