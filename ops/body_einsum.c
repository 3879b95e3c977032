/* Einsum in other operators: operands are multiplied from the left, two at a time, as matrices wherever labels are summed. */
#include "ops/einsum.h"

#include <stdio.h>
#include <string.h>

#include "ops/body.h"

/* Sums of these wrap, so they may be taken of wider ones. */
#define NARROW_INTS (SET(INT8) | SET(INT16) | SET(UINT8) | SET(UINT16))

#define SAY(...) str_addf(&w->b.s, __VA_ARGS__)

/* A value whose axes have labels, each at most once. */
struct labelled {
	char name[32];
	struct labels l;
	dim d[MAX_RANK];
};

struct writer {
	struct body b;
	int made;            /* values named so far */
	int last[NLABEL];    /* the last operand that has the label; nin: the output */
	bool uneven[NLABEL]; /* lengths that may be 1 in one operand and more in another */
};

static int at(const struct labels *l, int label)
{
	for (int i = 0; i < l->n; i++)
		if (l->at[i] == label)
			return i;
	return -1;
}

static void rename_to(struct writer *w, struct labelled *x) { snprintf(x->name, sizeof x->name, "v%d", w->made++); }

static void remove_axis(struct labelled *x, int axis)
{
	for (int i = axis; i < x->l.n - 1; i++) {
		x->l.at[i] = x->l.at[i + 1];
		x->d[i] = x->d[i + 1];
	}
	x->l.n--;
}

/* x without the marked axes: of length 1 and left out, or summed. */
static void reduce(struct writer *w, struct labelled *x, const char *op, const bool *marked)
{
	struct labelled from = *x;
	int64_t axes[MAX_RANK];
	int n = 0;

	for (int i = 0; i < from.l.n; i++)
		if (marked[i])
			axes[n++] = i;
	if (!n)
		return;
	for (int i = n; i-- > 0;)
		remove_axis(x, (int)axes[i]);
	rename_to(w, x);
	SAY("%s_axes = Constant <value = int64[%d] {", x->name, n);
	for (int i = 0; i < n; i++)
		SAY("%s%d", i ? ", " : "", (int)axes[i]);
	SAY("}> ()\n%s = %s%s (%s, %s_axes)\n", x->name, op, *op == 'R' ? " <keepdims = 0>" : "", from.name, x->name);
}

/* 0, 1, ... along `axis` of `rank` axes. */
static void count_along(struct writer *w, const char *name, const struct labelled *x, int axis)
{
	char length[48];

	snprintf(length, sizeof length, "%s_n", name);
	body_length(&w->b, length, x->d[axis], x->name, axis);
	SAY("%s_scalar = Squeeze (%s)\n"
	    "%s_first = Constant <value = int64 {0}> ()\n"
	    "%s_step = Constant <value = int64 {1}> ()\n"
	    "%s_row = Range (%s_first, %s_scalar, %s_step)\n"
	    "%s_to = Constant <value = int64[%d] {", name, length, name, name, name, name, name, name, name, x->l.n);
	for (int i = 0; i < x->l.n; i++)
		SAY("%s%d", i ? ", " : "", i == axis ? -1 : 1);
	SAY("}> ()\n%s = Reshape (%s_row, %s_to)\n", name, name, name);
}

/* Axes p < q of one label: what lies off the diagonal is nothing, and the sum along q leaves it. */
static enum linnet_code take_diagonal(struct writer *w, struct labelled *x, enum dtype dt, int p, int q)
{
	bool marked[MAX_RANK] = { false };
	struct labelled from = *x;
	char row[40], column[40];

	if (x->d[p] == 1 || x->d[q] == 1) {
		marked[x->d[q] == 1 ? q : p] = true;
		reduce(w, x, "Squeeze", marked);
		return LINNET_OK;
	}
	if (x->d[p] != x->d[q] || x->d[p] == DIM_NONE)
		return fail(w->b.c->e, LINNET_EUNSUPPORTED, "a diagonal of lengths that may differ cannot be written in other operators");
	rename_to(w, x);
	snprintf(row, sizeof row, "%s_p", x->name);
	snprintf(column, sizeof column, "%s_q", x->name);
	count_along(w, row, &from, p);
	count_along(w, column, &from, q);
	SAY("%s_on = Equal (%s, %s)\n%s_off = Constant <value = %s {0}> ()\n%s = Where (%s_on, %s, %s_off)\n", x->name, row, column, x->name,
	    dtype_name(dt), x->name, x->name, from.name, x->name);
	marked[q] = true;
	reduce(w, x, "ReduceSum", marked);
	return LINNET_OK;
}

/* x with its axes in the order of `to`, which are the labels it has among others. */
static void order(struct writer *w, struct labelled *x, const struct labels *to)
{
	struct labelled from = *x;
	bool still = true;
	int perm[MAX_RANK];

	x->l.n = 0;
	for (int i = 0; i < to->n; i++) {
		int k = at(&from.l, to->at[i]);

		if (k < 0)
			continue;
		perm[x->l.n] = k;
		still = still && k == x->l.n;
		x->l.at[x->l.n] = to->at[i];
		x->d[x->l.n++] = from.d[k];
	}
	if (still)
		return;
	rename_to(w, x);
	SAY("%s = Transpose <perm = [", x->name);
	for (int i = 0; i < x->l.n; i++)
		SAY("%s%d", i ? ", " : "", perm[i]);
	SAY("]> (%s)\n", from.name);
}

/* name: int64[1], how many elements the labels of `some` have in x. */
static void count(struct writer *w, const char *name, const struct labelled *x, const struct labels *some)
{
	char one[64];
	dim known = 1;

	for (int i = 0; i < some->n; i++)
		known = dim_is_int(known) ? dim_mul(w->b.c->dims, known, x->d[at(&x->l, some->at[i])]) : DIM_NONE;
	if (dim_is_int(known)) {
		body_ints(&w->b, name, 1, &known);
		return;
	}
	for (int i = 0; i < some->n; i++) {
		int axis = at(&x->l, some->at[i]);

		snprintf(one, sizeof one, "%s_%d", name, i);
		body_length(&w->b, one, x->d[axis], x->name, axis);
		if (i)
			SAY("%s%d = Mul (%s%d, %s)\n", name, i, name, i - 1, one);
		else
			SAY("%s0 = Identity (%s)\n", name, one);
	}
	SAY("%s = Identity (%s%d)\n", name, name, some->n - 1);
}

/* x, ordered as batch, a, b, as stacked matrices. */
static void as_matrices(struct writer *w, struct labelled *x, int nbatch, const struct labels *a, const struct labels *b)
{
	struct labelled from = *x;
	char n[2][48];

	if (a->n == 1 && b->n == 1)
		return;
	rename_to(w, x);
	for (int k = 0; k < 2; k++) {
		snprintf(n[k], sizeof n[k], "%s_%c", x->name, 'a' + k);
		count(w, n[k], &from, k ? b : a);
	}
	if (nbatch) {
		SAY("%s_kept = Constant <value = int64[%d] {", x->name, nbatch);
		for (int i = 0; i < nbatch; i++)
			SAY("%s0", i ? ", " : "");
		SAY("}> ()\n%s_to = Concat <axis = 0> (%s_kept, %s, %s)\n", x->name, x->name, n[0], n[1]);
	} else {
		SAY("%s_to = Concat <axis = 0> (%s, %s)\n", x->name, n[0], n[1]);
	}
	SAY("%s = Reshape (%s, %s_to)\n", x->name, from.name, x->name);
}

/* The opposite for the product: its last two axes become those of `rows` in x and `columns` in y. */
static void as_axes(struct writer *w, struct labelled *m, int nbatch, const struct labelled *x, const struct labels *rows, const struct labelled *y,
                    const struct labels *columns)
{
	char from[32];
	int n = 0;

	if (rows->n == 1 && columns->n == 1)
		return;
	memcpy(from, m->name, sizeof from);
	rename_to(w, m);
	for (int k = 0; k < 2; k++) {
		const struct labelled *of = k ? y : x;
		const struct labels *some = k ? columns : rows;

		for (int i = 0; i < some->n; i++) {
			char name[64];
			int axis = at(&of->l, some->at[i]);

			snprintf(name, sizeof name, "%s_%d", m->name, n++);
			body_length(&w->b, name, of->d[axis], of->name, axis);
		}
	}
	if (nbatch) {
		SAY("%s_kept = Constant <value = int64[%d] {", m->name, nbatch);
		for (int i = 0; i < nbatch; i++)
			SAY("%s0", i ? ", " : "");
		SAY("}> ()\n");
	}
	if (!nbatch && !n) {
		SAY("%s_to = Constant <value = int64[0] {}> ()\n", m->name);
	} else {
		SAY("%s_to = Concat <axis = 0> (", m->name);
		if (nbatch)
			SAY("%s_kept", m->name);
		for (int i = 0; i < n; i++)
			SAY("%s%s_%d", nbatch || i ? ", " : "", m->name, i);
		SAY(")\n");
	}
	SAY("%s = Reshape (%s, %s_to)\n", m->name, from, m->name);
}

/* x with axes of length 1 for labels it has not. */
static void spread(struct writer *w, struct labelled *x, const struct labels *all)
{
	char from[32];
	int64_t axes[MAX_RANK];
	int n = 0;

	order(w, x, all);
	for (int i = 0; i < all->n; i++)
		if (at(&x->l, all->at[i]) < 0)
			axes[n++] = i;
	if (!n)
		return;
	memcpy(from, x->name, sizeof from);
	rename_to(w, x);
	SAY("%s_axes = Constant <value = int64[%d] {", x->name, n);
	for (int i = 0; i < n; i++)
		SAY("%s%d", i ? ", " : "", (int)axes[i]);
	SAY("}> ()\n%s = Unsqueeze (%s, %s_axes)\n", x->name, from, x->name);
}

static enum linnet_code append(struct writer *w, struct labels *to, const struct labels *more)
{
	if (to->n + more->n > MAX_RANK)
		return fail(w->b.c->e, LINNET_EUNSUPPORTED, "a product of the equation has more than %d axes", MAX_RANK);
	for (int i = 0; i < more->n; i++)
		to->at[to->n++] = more->at[i];
	return LINNET_OK;
}

/* The labels that nothing from operand `next` on has are summed. */
static void sum_rest(struct writer *w, struct labelled *x, int next)
{
	bool marked[MAX_RANK];

	for (int i = 0; i < x->l.n; i++)
		marked[i] = w->last[x->l.at[i]] < next;
	reduce(w, x, "ReduceSum", marked);
}

/* x becomes its product with y; labels that nothing from operand `next` on has are summed. */
static enum linnet_code multiply(struct writer *w, struct labelled *x, struct labelled *y, int next)
{
	struct labels batch = { 0 }, rows = { 0 }, columns = { 0 }, inner = { 0 }, all = { 0 };
	struct labelled m = { .name = "" };
	bool even = true;

	for (int i = 0; i < x->l.n; i++) {
		int label = x->l.at[i];
		struct labels *to = at(&y->l, label) < 0 ? &rows : w->last[label] >= next ? &batch : &inner;

		to->at[to->n++] = label;
		even = even && !(to == &inner && w->uneven[label]);
	}
	for (int i = 0; i < y->l.n; i++)
		if (at(&x->l, y->l.at[i]) < 0)
			columns.at[columns.n++] = y->l.at[i];
	TRY(append(w, &all, &batch));
	TRY(append(w, &all, &rows));
	TRY(append(w, &all, &columns));
	if (!inner.n || !even) {
		TRY(append(w, &all, &inner));
		spread(w, x, &all);
		spread(w, y, &all);
	} else {
		struct labels left = batch, right = batch;

		TRY(append(w, &left, &rows));
		TRY(append(w, &left, &inner));
		TRY(append(w, &right, &inner));
		TRY(append(w, &right, &columns));
		if (batch.n + 2 > MAX_RANK)
			return fail(w->b.c->e, LINNET_EUNSUPPORTED, "a product of the equation has more than %d axes", MAX_RANK);
		order(w, x, &left);
		order(w, y, &right);
	}
	m.l = all;
	for (int i = 0; i < all.n; i++) {
		int a = at(&x->l, all.at[i]), b = at(&y->l, all.at[i]);

		m.d[i] = a < 0 ? y->d[b] : b < 0 ? x->d[a] : x->d[a] == 1 ? y->d[b] : y->d[b] == 1 || y->d[b] == x->d[a] ? x->d[a] : DIM_NONE;
	}
	if (!inner.n || !even) {
		rename_to(w, &m);
		SAY("%s = Mul (%s, %s)\n", m.name, x->name, y->name);
		*x = m;
		sum_rest(w, x, next);
		return LINNET_OK;
	}
	struct labelled a = *x, b = *y;

	as_matrices(w, &a, batch.n, &rows, &inner);
	as_matrices(w, &b, batch.n, &inner, &columns);
	rename_to(w, &m);
	SAY("%s = MatMul (%s, %s)\n", m.name, a.name, b.name);
	as_axes(w, &m, batch.n, x, &rows, y, &columns);
	*x = m;
	return LINNET_OK;
}

/* Operand i with each label once, and without axes of length 1 that are longer elsewhere. */
static enum linnet_code begin(struct writer *w, struct labelled *x, int i, const struct labels *l, const dim *length)
{
	struct shape_call *c = w->b.c;
	enum dtype dt = c->in[i]->dt;
	bool narrow = dtype_in(dt, NARROW_INTS), marked[MAX_RANK] = { false };

	x->l = *l;
	memcpy(x->d, c->in[i]->shape.d, sizeof x->d);
	snprintf(x->name, sizeof x->name, "Inputs_%d", i);
	if (narrow) {
		char from[32];

		memcpy(from, x->name, sizeof from);
		rename_to(w, x);
		body_cast(&w->b, x->name, from, dt, DT_INT32);
	}
	for (int q = 1; q < x->l.n; q++)
		for (int p = 0; p < q; p++)
			if (x->l.at[p] == x->l.at[q]) {
				TRY(take_diagonal(w, x, narrow ? DT_INT32 : dt, p, q--));
				break;
			}
	for (int k = 0; k < x->l.n; k++)
		marked[k] = x->d[k] == 1 && length[x->l.at[k]] != 1;
	reduce(w, x, "Squeeze", marked);
	return LINNET_OK;
}

enum linnet_code body_einsum(struct shape_call *c, const char **text)
{
	dim length[NLABEL];
	bool seen[NLABEL] = { false };
	struct linnet_error *e = c->e;
	struct labels *term, out;
	struct labelled x = { .name = "" }, y;
	struct writer w = { .made = 0 };
	enum dtype dt = c->in[0]->dt;
	struct equation q;

	TRY_NEW(term, c->arena, c->nin);
	equation_begin(&q, c->attr[0].s, c->nin);
	for (int i = 0; i < c->nin; i++) {
		const struct shape *s = &c->in[i]->shape;

		if (s->rank < 0)
			return fail(e, LINNET_EUNSUPPORTED, "Einsum of operands of unknown rank cannot be written in other operators");
		TRY(equation_term(&q, s->rank, &term[i], e));
		for (int k = 0; k < s->rank; k++) {
			int label = term[i].at[k];
			dim d = s->d[k];

			if (!seen[label] || length[label] == 1)
				length[label] = d;
			else if (d != 1 && (d != length[label] || d == DIM_NONE))
				w.uneven[label] = true;
			seen[label] = true;
		}
	}
	TRY(equation_end(&q, &out, e));
	for (int i = 0; i < c->nin; i++)
		for (int k = 0; k < term[i].n; k++)
			if (c->in[i]->shape.d[k] != 1 || length[term[i].at[k]] == 1)
				w.last[term[i].at[k]] = i;
	for (int i = 0; i < out.n; i++)
		w.last[out.at[i]] = c->nin;
	body_begin(&w.b, c);
	for (int i = 0; i < c->nin; i++) {
		TRY(begin(&w, i ? &y : &x, i, &term[i], length));
		/* what this operand alone has is summed at once */
		if (i) {
			bool marked[MAX_RANK];

			for (int k = 0; k < y.l.n; k++)
				marked[k] = w.last[y.l.at[k]] == i && at(&x.l, y.l.at[k]) < 0;
			reduce(&w, &y, "ReduceSum", marked);
			TRY(multiply(&w, &x, &y, i + 1));
		} else {
			sum_rest(&w, &x, 1);
		}
	}
	order(&w, &x, &out);
	body_cast(&w.b, "Output", x.name, dtype_in(dt, NARROW_INTS) ? DT_INT32 : dt, dt);
	return body_end(&w.b, text);
}
