/* Shape functions and helpers shared by several families. */
#include <math.h>
#include <string.h>

#include "ops/op.h"

enum linnet_code shape_same(struct shape_call *c)
{
	for (int i = 0; i < c->nout; i++)
		if (c->in[0])
			c->out[i].shape = c->in[0]->shape;
	return LINNET_OK;
}

/*
 * Whether a length that broadcasts with a is a afterwards, as it is where b is at most a: a = seq, b = min(64, seq). That b might
 * be 0 where a is 1, as in the part of a table that begins after its end, is not what a model means. What is a length is not
 * negative: n - 1 and max(n - 1, 0) are the same.
 */
static bool covers(struct dims *t, dim a, dim b)
{
	return dim_ge(t, dim_sub(t, dim_max(t, a, 0), dim_max(t, b, 0)), 0);
}

/* One axis of a broadcast. */
static enum linnet_code broadcast_dim(struct dims *t, dim a, dim b, dim *out, struct linnet_error *e)
{
	if (a == b || b == 1)
		*out = a;
	else if (a == 1)
		*out = b;
	else if (dim_is_int(a) && dim_is_int(b))
		return fail(e, LINNET_ESHAPE, "lengths %lld and %lld do not broadcast", (long long)a, (long long)b);
	else if (dim_is_int(a))
		*out = a; /* b is 1 or a */
	else if (dim_is_int(b))
		*out = b;
	else if (t && dim_is_expr(a) && dim_ge(t, a, 2))
		*out = a;
	else if (t && dim_is_expr(b) && dim_ge(t, b, 2))
		*out = b;
	else if (t && dim_is_expr(a) && dim_is_expr(b) && covers(t, a, b))
		*out = a;
	else if (t && dim_is_expr(a) && dim_is_expr(b) && covers(t, b, a))
		*out = b;
	else
		*out = DIM_NONE;
	return LINNET_OK;
}

enum linnet_code broadcast(struct dims *t, const struct shape *a, const struct shape *b, struct shape *out,
                           struct linnet_error *e)
{
	struct shape r = { .rank = a->rank > b->rank ? a->rank : b->rank };

	if (a->rank < 0 || b->rank < 0) {
		*out = shape_unknown();
		return LINNET_OK;
	}
	for (int i = 0; i < r.rank; i++) {
		int ia = i - (r.rank - a->rank), ib = i - (r.rank - b->rank);

		TRY(broadcast_dim(t, ia < 0 ? 1 : a->d[ia], ib < 0 ? 1 : b->d[ib], &r.d[i], e));
	}
	*out = r;
	return LINNET_OK;
}

enum linnet_code shape_broadcast(struct shape_call *c)
{
	struct shape s = { .rank = 0 };

	for (int i = 0; i < c->nin; i++)
		if (c->in[i])
			TRY(broadcast(c->dims, &s, &c->in[i]->shape, &s, c->e));
	c->out[0].shape = s;
	return LINNET_OK;
}

enum linnet_code length_join(struct shape_call *c, const char *what, dim a, dim b, dim *out)
{
	dim d = dim_sub(c->dims, a, b);

	if (dim_is_int(a) && dim_is_int(b) && a != b)
		return fail(c->e, LINNET_ESHAPE, "%s differ: %lld and %lld", what, (long long)a, (long long)b);
	if (dim_is_int(d) && d != 0 && c->arena) {
		const char *x = dim_str(c->dims, a, c->arena), *y = dim_str(c->dims, b, c->arena);

		return fail(c->e, LINNET_ESHAPE, "%s differ: %s and %s", what, x ? x : "?", y ? y : "?");
	}
	if (out)
		*out = dim_is_int(a) || b == DIM_NONE ? a : b;
	return LINNET_OK;
}

enum linnet_code rank_check(const struct shape_call *c, int i, int lo, int hi)
{
	int r = i < c->nin && c->in[i] ? c->in[i]->shape.rank : -1;

	if (r < 0 || (r >= lo && r <= hi))
		return LINNET_OK;
	if (lo == hi)
		return fail(c->e, LINNET_ESHAPE, "input \"%s\" has rank %d; expected %d", op_in(c->op, i)->name, r, lo);
	return fail(c->e, LINNET_ESHAPE, "input \"%s\" has rank %d; expected %d to %d", op_in(c->op, i)->name, r, lo, hi);
}

enum linnet_code shape_check(struct shape_call *c, int i, const struct shape *s)
{
	if (i >= c->nin || !c->in[i] || s->rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, i, s->rank, s->rank));
	for (int k = 0; k < c->in[i]->shape.rank; k++)
		TRY(length_join(c, "lengths of a value and its gradient", s->d[k], c->in[i]->shape.d[k], NULL));
	return LINNET_OK;
}

enum linnet_code scalar_check(const struct shape_call *c, int i)
{
	const struct shape *s = i < c->nin && c->in[i] ? &c->in[i]->shape : NULL;

	TRY(rank_check(c, i, 0, 1));
	if (s && s->rank == 1 && dim_is_int(s->d[0]) && s->d[0] != 1)
		return fail(c->e, LINNET_ESHAPE, "input \"%s\" has %lld elements; expected 1", op_in(c->op, i)->name, (long long)s->d[0]);
	return LINNET_OK;
}

enum linnet_code attr_dtype(struct shape_call *c, const char *name)
{
	const struct attr *a = attr_get(c->op, c->attr, name);
	const struct op_io *out = op_out(c->op, 0);

	if (!attr_given(a))
		return LINNET_OK;
	if (a->i <= 0 || a->i >= DT_COUNT || !dtype_in((enum dtype)a->i, c->op->types[out->type]))
		return fail(c->e, LINNET_EATTR, "attribute \"%s\" is %lld, which is no element type %s makes", name, (long long)a->i,
		            c->op->name);
	c->out[0].dt = (enum dtype)a->i;
	return LINNET_OK;
}

enum linnet_code axis_check(int64_t axis, int rank, int *out, struct linnet_error *e)
{
	if (axis < -rank || axis >= rank)
		return fail(e, LINNET_ESHAPE, "axis %lld is not in [%d, %d]", (long long)axis, -rank, rank - 1);
	*out = (int)(axis < 0 ? axis + rank : axis);
	return LINNET_OK;
}

enum linnet_code axes_check(const struct attr *given, int rank, int axes[MAX_RANK], int *n, struct linnet_error *e)
{
	bool seen[MAX_RANK] = { false };

	if (attr_given(given) && given->n > (size_t)rank)
		return fail(e, LINNET_EATTR, "%zu axes given for rank %d", given->n, rank);
	*n = attr_given(given) ? (int)given->n : rank;
	for (int i = 0; i < *n; i++) {
		axes[i] = i;
		if (attr_given(given))
			TRY(axis_check(given->ints[i], rank, &axes[i], e));
		if (seen[axes[i]])
			return fail(e, LINNET_EATTR, "axis %d is given twice", axes[i]);
		seen[axes[i]] = true;
	}
	return LINNET_OK;
}

enum linnet_code type_ints(const struct type *t, dim *out, int max, int *n, struct linnet_error *e)
{
	int64_t count = -1;

	*n = -1;
	if (!t)
		return LINNET_OK;
	if (t->shape.rank > 1)
		return fail(e, LINNET_ESHAPE, "expected at most one dimension, found %d", t->shape.rank);
	if (t->value)
		count = t->value->n;
	else if (t->sym && t->den <= 1)
		count = t->shape.rank ? t->shape.d[0] : 1;
	if (count < 0)
		return LINNET_OK;
	if (count > max)
		return fail(e, LINNET_ESHAPE, "expected at most %d elements, found %lld", max, (long long)count);
	for (int i = 0; i < count; i++) {
		int64_t v = t->value ? tensor_get_int(t->value, i) : 0;

		/* the far negative integers, which dims use for expressions, mean "from the start" wherever they occur */
		out[i] = t->value ? (v <= DIM_EXPR_MAX ? DIM_EXPR_MAX + 1 : v) : t->sym[i];
	}
	*n = (int)count;
	return LINNET_OK;
}

enum linnet_code type_dims(const struct type *t, dim *out, int max, int *n, struct linnet_error *e)
{
	TRY(type_ints(t, out, max, n, e));
	if (*n >= 0 || !t || t->shape.rank < 0)
		return LINNET_OK;
	if (t->shape.rank && !dim_is_int(t->shape.d[0]))
		return LINNET_OK;
	if (t->shape.rank && t->shape.d[0] > max)
		return fail(e, LINNET_ESHAPE, "expected at most %d elements, found %lld", max, (long long)t->shape.d[0]);
	*n = t->shape.rank ? (int)t->shape.d[0] : 1;
	for (int i = 0; i < *n; i++)
		out[i] = DIM_NONE;
	return LINNET_OK;
}

int type_elements(const struct type *t, dim out[MAX_SYM])
{
	dtype_set set = INTS | SET(BOOL);

	if (!t || t->shape.rank < 0 || t->shape.rank > 1 || !dtype_in(t->dt, set))
		return -1;
	if (t->value) {
		if (t->value->n > MAX_SYM)
			return -1;
		for (int64_t i = 0; i < t->value->n; i++) {
			int64_t v = tensor_get_int(t->value, i);

			out[i] = dim_is_int(v) && !(t->dt == DT_UINT64 && v < 0) ? v : DIM_NONE;
		}
		return (int)t->value->n;
	}
	if (!t->sym || (t->shape.rank && (!dim_is_int(t->shape.d[0]) || t->shape.d[0] > MAX_SYM)))
		return -1;
	int n = t->shape.rank ? (int)t->shape.d[0] : 1;

	memcpy(out, t->sym, (size_t)n * sizeof *out);
	return n;
}

struct ratio ratio_of(double v)
{
	struct ratio r = { DIM_NONE, 1 };

	while (r.den < 1 << 20 && v != floor(v)) {
		v *= 2;
		r.den *= 2;
	}
	if (v == floor(v) && fabs(v) < 0x1p53)
		r.num = (dim)v;
	return r;
}

int type_ratios(const struct type *t, struct ratio out[MAX_SYM])
{
	bool real = t && dtype_in(t->dt, SET(FLOAT) | SET(DOUBLE));
	dim whole[MAX_SYM];
	int n;

	if (!real) {
		n = type_elements(t, whole);
		for (int i = 0; i < n; i++)
			out[i] = (struct ratio){ whole[i], 1 };
		return n;
	}
	if (t->shape.rank < 0 || t->shape.rank > 1 || (t->shape.rank && !dim_is_int(t->shape.d[0])))
		return -1;
	if ((t->shape.rank && t->shape.d[0] > MAX_SYM) || (!t->value && !t->sym))
		return -1;
	n = t->shape.rank ? (int)t->shape.d[0] : 1;
	for (int i = 0; i < n; i++)
		out[i] = t->value ? ratio_of(tensor_get(t->value, i)) : (struct ratio){ t->sym[i], t->den ? t->den : 1 };
	return n;
}

dim type_element(const struct type *t, int64_t i)
{
	if (t->value && i < t->value->n) {
		int64_t v = tensor_get_int(t->value, i);

		return dim_is_int(v) ? v : DIM_EXPR_MAX + 1; /* as type_ints() */
	}
	if (!t->value && t->sym && t->den <= 1 && i < (t->shape.rank ? t->shape.d[0] : 1))
		return t->sym[i];
	return DIM_NONE;
}

enum linnet_code type_shape(const struct type *t, struct shape *out, struct linnet_error *e)
{
	int64_t n = t->shape.rank == 1 ? t->shape.d[0] : t->shape.rank == 0 ? 1 : DIM_NONE;

	*out = shape_unknown();
	if (dim_is_int(n))
		TRY(rank_limit(n, e));
	return type_dims(t, out->d, MAX_RANK, &out->rank, e);
}

enum linnet_code rank_limit(int64_t rank, struct linnet_error *e)
{
	if (rank > MAX_RANK)
		return fail(e, LINNET_EUNSUPPORTED, "rank is %lld; at most %d is supported", (long long)rank, MAX_RANK);
	return LINNET_OK;
}

void type_set_sym(struct shape_call *c, int out, const dim *elements, int n)
{
	bool known = n == 0;
	dim *p;

	for (int i = 0; i < n; i++)
		known |= elements[i] != DIM_NONE;
	if (!c->arena || n > MAX_SYM || !known)
		return;
	p = arena_dup(c->arena, elements, (size_t)n * sizeof *elements);
	c->out[out].sym = p; /* without memory: not known, which is always allowed */
}

/* Without what numerator and denominator are sure to share. */
static struct ratio reduced(struct dims *t, struct ratio r)
{
	if (r.num != DIM_NONE && dim_divides(t, r.den, r.num))
		return (struct ratio){ dim_div(t, r.num, r.den), 1 };
	return r;
}

void type_set_ratios(struct shape_call *c, int out, const struct ratio *elements, int n)
{
	bool real = dtype_in(c->out[out].dt, SET(FLOAT) | SET(DOUBLE));
	struct ratio r[MAX_SYM];
	int64_t den = 1;
	dim e[MAX_SYM];

	if (!c->arena || n > MAX_SYM)
		return;
	for (int i = 0; i < n; i++) {
		int64_t a = den, b, rest;

		r[i] = reduced(c->dims, elements[i]);
		if (r[i].num == DIM_NONE)
			continue;
		for (b = r[i].den; b; a = b, b = rest) /* a becomes the greatest common divisor */
			rest = a % b;
		if (__builtin_mul_overflow(den / a, r[i].den, &den) || den > INT32_MAX)
			return;
	}
	if (den > 1 && !real)
		return;
	for (int i = 0; i < n; i++)
		e[i] = r[i].num == DIM_NONE ? DIM_NONE : dim_mul(c->dims, r[i].num, den / r[i].den);
	type_set_sym(c, out, e, n);
	c->out[out].den = den;
}

void join_sym(struct shape_call *c, dim (*f)(struct dims *t, dim a, dim b))
{
	dim y[MAX_SYM], x[MAX_SYM];
	int n = c->arena ? type_elements(c->in[0], y) : -1;

	for (int k = 1; k < c->nin && n >= 0; k++) {
		int m = type_elements(c->in[k], x);

		if (m < 0 || (n != m && n != 1 && m != 1))
			return;
		for (int i = 1; i < m && n == 1; i++)
			y[i] = y[0];
		n = n == 1 ? m : n;
		for (int i = 0; i < n; i++)
			y[i] = f(c->dims, y[i], x[m == 1 ? 0 : i]);
	}
	if (n >= 0)
		type_set_sym(c, 0, y, n);
}

enum linnet_code kernel_doubles(struct kernel_call *c, int i, const double **out)
{
	struct linnet_error *e = c->e;
	double *p;

	*out = NULL;
	if (i >= c->nin || !c->in[i])
		return LINNET_OK;
	if (c->in[i]->dt == DT_DOUBLE) {
		*out = c->in[i]->data;
		return LINNET_OK;
	}
	TRY_NEW(p, c->scratch, c->in[i]->n);
	for (int64_t k = 0; k < c->in[i]->n; k++)
		p[k] = tensor_get(c->in[i], k);
	*out = p;
	return LINNET_OK;
}

void broadcast_strides(const struct tensor *t, int r, int64_t *stride)
{
	int64_t s = 1;

	for (int i = r - 1; i >= 0; i--) {
		int j = i - (r - t->rank);

		stride[i] = j < 0 || t->d[j] == 1 ? 0 : s;
		if (j >= 0)
			s *= t->d[j];
	}
}
