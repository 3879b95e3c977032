/* Operators that move elements without computing on them: reference kernels, then rows. */
#include <math.h>
#include <string.h>

#include "ops/body.h"
#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/base/rng.h"
#include "ops/kernel.h"

static enum linnet_code copy_kernel(struct kernel_call *c)
{
	tensor_copy(c->out[0], c->in[0]);
	return LINNET_OK;
}

/* A view's elements are its input's. */
static void keep_elements(struct shape_call *c)
{
	struct ratio r[MAX_SYM];
	int n;

	if (!c->arena || c->out[0].shape.rank < 0 || c->out[0].shape.rank > 1)
		return;
	n = type_ratios(c->in[0], r);
	if (n >= 0)
		type_set_ratios(c, 0, r, n);
}

/* A length given by the user: known ones must not be negative. */
static enum linnet_code check_length(dim d, struct linnet_error *e)
{
	if (dim_is_int(d) && d < 0)
		return fail(e, LINNET_ESHAPE, "length is %lld; it must not be negative", (long long)d);
	return LINNET_OK;
}

/* on[i] for every axis in axes[0..n), each in [-rank, rank) and given once. */
static enum linnet_code mark_axes(const dim *axes, int n, int rank, bool on[MAX_RANK], struct linnet_error *e)
{
	memset(on, 0, MAX_RANK * sizeof *on);
	for (int i = 0; i < n; i++) {
		int axis;

		TRY(axis_check(axes[i], rank, &axis, e));
		if (on[axis])
			return fail(e, LINNET_EVALUE, "axis %d is given twice", axis);
		on[axis] = true;
	}
	return LINNET_OK;
}

static bool all_ints(const dim *d, int n)
{
	for (int i = 0; i < n; i++)
		if (!dim_is_int(d[i]))
			return false;
	return true;
}

/* ---- Shape, Size ---- */

/* The lengths Shape reports: [from, to), both clamped to the rank. */
static void shape_bounds(const struct op *op, const struct attr *attr, int rank, int *from, int *to)
{
	const struct attr *end = attr_get(op, attr, "end");
	int64_t a = attr_get(op, attr, "start")->i, b = attr_given(end) ? end->i : rank;

	a += a < 0 ? rank : 0;
	b += b < 0 ? rank : 0;
	a = a < 0 ? 0 : a > rank ? rank : a;
	b = b < 0 ? 0 : b > rank ? rank : b;
	*from = (int)a;
	*to = (int)(b < a ? a : b);
}

static enum linnet_code shape_shape(struct shape_call *c)
{
	const struct shape *s = &c->in[0]->shape;
	int from, to;

	c->out[0].shape = (struct shape){ .rank = 1, .d = { DIM_NONE } };
	if (s->rank < 0)
		return LINNET_OK;
	shape_bounds(c->op, c->attr, s->rank, &from, &to);
	c->out[0].shape.d[0] = to - from;
	type_set_sym(c, 0, s->d + from, to - from);
	return LINNET_OK;
}

static enum linnet_code shape_kernel(struct kernel_call *c)
{
	int from, to;

	shape_bounds(c->op, c->attr, c->in[0]->rank, &from, &to);
	for (int i = from; i < to; i++)
		tensor_put_int(c->out[0], i - from, c->in[0]->d[i]);
	return LINNET_OK;
}

static enum linnet_code size_shape(struct shape_call *c)
{
	dim n = shape_count(c->dims, &c->in[0]->shape, 0, MAX_RANK);

	c->out[0].shape = (struct shape){ .rank = 0 };
	type_set_sym(c, 0, &n, 1);
	return LINNET_OK;
}

static enum linnet_code size_kernel(struct kernel_call *c)
{
	tensor_put_int(c->out[0], 0, c->in[0]->n);
	return LINNET_OK;
}

/* ---- Views: Identity, Reshape, Flatten, Squeeze, Unsqueeze ---- */

static enum linnet_code identity_shape(struct shape_call *c)
{
	c->out[0].kind = c->in[0]->kind;
	c->out[0].dt = c->in[0]->dt;
	c->out[0].shape = c->in[0]->shape;
	keep_elements(c);
	return LINNET_OK;
}

static enum linnet_code identity_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor **member;

	if (x->kind == KIND_TENSOR)
		return copy_kernel(c);
	TRY(give_members(c, 0, x->n, &member));
	for (int64_t i = 0; i < x->n; i++)
		member[i] = as_member(tensor_member(x, i));
	return LINNET_OK;
}

/*
 * The length that makes the product of out's lengths that of in's: out->d[at]. Equal factors cancel first, so it is found
 * where products overflow, are symbolic or contain unknown lengths, and is the same for an empty batch as for any other.
 * copied[i]: out's length i is in's length i.
 */
static enum linnet_code remaining_length(struct dims *t, const struct shape *in, struct shape *out, int at,
                                         const bool copied[MAX_RANK], struct linnet_error *e)
{
	bool gone[MAX_RANK];
	dim num = 1, den = 1;

	memcpy(gone, copied, sizeof gone);
	for (int i = 0; i < out->rank; i++) {
		bool found = copied[i] || i == at;

		for (int k = 0; k < in->rank && !found; k++)
			if (!gone[k] && in->d[k] == out->d[i] && in->d[k] != DIM_NONE && in->d[k] != 0)
				found = gone[k] = true;
		if (!found)
			den = dim_mul(t, den, out->d[i]);
	}
	for (int k = 0; k < in->rank; k++)
		if (!gone[k])
			num = dim_mul(t, num, in->d[k]);
	if (den == 0 && out->d[at] == -1)
		return fail(e, LINNET_ESHAPE, "shape has -1 beside a length 0: any length would do");
	if (dim_is_int(num) && dim_is_int(den) && den > 0 && num % den)
		return fail(e, LINNET_ESHAPE, "length %lld cannot be cut into pieces of %lld", (long long)num, (long long)den);
	out->d[at] = den == 0 ? DIM_NONE : den == 1 ? num : dim_div(t, num, den);
	return LINNET_OK;
}

static enum linnet_code reshape_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	bool zero = attr_get(c->op, c->attr, "allowzero")->i, copied[MAX_RANK] = { false };
	int infer = -1, unknown = -1, nunknown = 0;
	struct shape s;
	dim have, want;

	TRY(type_shape(c->in[1], &s, c->e));
	c->out[0].shape = s;
	if (s.rank < 0)
		return LINNET_OK;
	for (int i = 0; i < s.rank; i++) {
		if (s.d[i] == -1) {
			if (infer >= 0)
				return fail(c->e, LINNET_ESHAPE, "shape has -1 twice, at %d and %d", infer, i);
			infer = i;
		} else if (s.d[i] == 0 && !zero) {
			if (in->rank >= 0 && i >= in->rank)
				return fail(c->e, LINNET_ESHAPE, "shape has 0 at %d, but the input's rank is %d", i, in->rank);
			s.d[i] = in->rank < 0 ? DIM_NONE : in->d[i];
			copied[i] = in->rank >= 0;
		} else if (s.d[i] == DIM_NONE) {
			unknown = i;
			nunknown++;
		}
		if (i != infer)
			TRY(check_length(s.d[i], c->e));
	}
	/* one unknown element, wherever its value comes from, is what the number of elements leaves */
	if (infer < 0 && nunknown == 1)
		infer = unknown;
	if (infer >= 0 && in->rank >= 0)
		TRY(remaining_length(c->dims, in, &s, infer, copied, c->e));
	else if (infer >= 0)
		s.d[infer] = DIM_NONE;
	have = shape_count(c->dims, in, 0, MAX_RANK);
	want = shape_count(c->dims, &s, 0, MAX_RANK);
	if (dim_is_int(have) && dim_is_int(want) && have != want)
		return fail(c->e, LINNET_ESHAPE, "%lld elements cannot become %lld", (long long)have, (long long)want);
	c->out[0].shape = s;
	keep_elements(c);
	return LINNET_OK;
}

static enum linnet_code flatten_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	int64_t axis = attr_get(c->op, c->attr, "axis")->i;
	int rank = in->rank;

	c->out[0].shape = (struct shape){ .rank = 2, .d = { DIM_NONE, DIM_NONE } };
	if (rank < 0)
		return LINNET_OK;
	if (axis < -rank || axis > rank)
		return fail(c->e, LINNET_ESHAPE, "axis %lld is not in [%d, %d]", (long long)axis, -rank, rank);
	axis += axis < 0 ? rank : 0;
	c->out[0].shape.d[0] = shape_count(c->dims, in, 0, (int)axis);
	c->out[0].shape.d[1] = shape_count(c->dims, in, (int)axis, rank);
	return LINNET_OK;
}

static enum linnet_code squeeze_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	struct shape *out = &c->out[0].shape;
	bool on[MAX_RANK] = { false };
	dim axes[MAX_RANK];
	int n = -1;

	if (in->rank < 0)
		return LINNET_OK;
	if (c->nin > 1 && c->in[1]) {
		TRY(type_dims(c->in[1], axes, MAX_RANK, &n, c->e));
		if (n < 0)
			return LINNET_OK;
		if (n > in->rank)
			return fail(c->e, LINNET_ESHAPE, "%d axes to remove from rank %d", n, in->rank);
		if (!all_ints(axes, n)) {
			out->rank = in->rank - n;
			for (int i = 0; i < out->rank; i++)
				out->d[i] = DIM_NONE;
			return LINNET_OK;
		}
		TRY(mark_axes(axes, n, in->rank, on, c->e));
		for (int i = 0; i < in->rank; i++)
			if (on[i] && dim_is_int(in->d[i]) && in->d[i] != 1)
				return fail(c->e, LINNET_ESHAPE, "axis %d has length %lld; only length 1 can be removed", i,
				            (long long)in->d[i]);
	} else {
		for (int i = 0; i < in->rank; i++) {
			if (!dim_is_int(in->d[i]) && !(dim_is_expr(in->d[i]) && dim_ge(c->dims, in->d[i], 2)))
				return LINNET_OK; /* it may be 1 */
			on[i] = in->d[i] == 1;
		}
	}
	out->rank = 0;
	for (int i = 0; i < in->rank; i++)
		if (!on[i])
			out->d[out->rank++] = in->d[i];
	keep_elements(c);
	return LINNET_OK;
}

static enum linnet_code unsqueeze_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	struct shape *out = &c->out[0].shape;
	bool on[MAX_RANK];
	dim axes[MAX_RANK];
	int n, from = 0;

	TRY(type_dims(c->in[1], axes, MAX_RANK, &n, c->e));
	if (in->rank < 0 || n < 0)
		return LINNET_OK;
	TRY(rank_limit(in->rank + n, c->e));
	out->rank = in->rank + n;
	for (int i = 0; i < out->rank; i++)
		out->d[i] = DIM_NONE;
	if (!all_ints(axes, n))
		return LINNET_OK;
	TRY(mark_axes(axes, n, out->rank, on, c->e));
	for (int i = 0; i < out->rank; i++)
		out->d[i] = on[i] ? 1 : in->d[from++];
	keep_elements(c);
	return LINNET_OK;
}

/* ---- Transpose ---- */

static enum linnet_code permutation(const struct attr *perm, int rank, int p[MAX_RANK], struct linnet_error *e)
{
	bool seen[MAX_RANK] = { false };

	if (!attr_given(perm)) {
		for (int i = 0; i < rank; i++)
			p[i] = rank - 1 - i;
		return LINNET_OK;
	}
	if (perm->n != (size_t)rank)
		return fail(e, LINNET_EATTR, "perm has %zu members; the input's rank is %d", perm->n, rank);
	for (int i = 0; i < rank; i++) {
		int64_t k = perm->ints[i];

		if (k < 0 || k >= rank || seen[k])
			return fail(e, LINNET_EATTR, "perm is no permutation of 0 to %d: member %d is %lld", rank - 1, i, (long long)k);
		seen[k] = true;
		p[i] = (int)k;
	}
	return LINNET_OK;
}

static enum linnet_code transpose_shape(struct shape_call *c)
{
	const struct attr *perm = attr_get(c->op, c->attr, "perm");
	const struct shape *in = &c->in[0]->shape;
	struct shape *out = &c->out[0].shape;
	int p[MAX_RANK];

	if (in->rank < 0) {
		if (attr_given(perm)) {
			TRY(rank_limit((int64_t)perm->n, c->e));
			out->rank = (int)perm->n;
			for (int i = 0; i < out->rank; i++)
				out->d[i] = DIM_NONE;
		}
		return LINNET_OK;
	}
	TRY(permutation(perm, in->rank, p, c->e));
	out->rank = in->rank;
	for (int i = 0; i < in->rank; i++)
		out->d[i] = in->d[p[i]];
	keep_elements(c);
	return LINNET_OK;
}

static enum linnet_code transpose_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t sx[MAX_RANK], from[MAX_RANK], to[MAX_RANK];
	int p[MAX_RANK];

	TRY(permutation(attr_get(c->op, c->attr, "perm"), x->rank, p, c->e));
	strides(x->rank, x->d, sx);
	strides(y->rank, y->d, to);
	for (int i = 0; i < x->rank; i++)
		from[i] = sx[p[i]];
	copy_box(y, 0, to, x, 0, from, y->rank, y->d);
	return LINNET_OK;
}

/* ---- Concat, Split ---- */

static enum linnet_code concat_shape(struct shape_call *c)
{
	struct shape *out = &c->out[0].shape;
	int64_t given = attr_get(c->op, c->attr, "axis")->i;
	bool unknown = false;
	dim e[MAX_SYM], part[MAX_SYM];
	int n = 0, axis;
	dim total = 0;

	for (int i = 0; i < c->nin; i++) {
		const struct shape *in = &c->in[i]->shape;

		if (in->rank < 0) {
			unknown = true;
			continue;
		}
		TRY(axis_check(given, in->rank, &axis, c->e));
		if (out->rank < 0) {
			*out = *in;
			total = in->d[axis];
			continue;
		}
		if (out->rank != in->rank)
			return fail(c->e, LINNET_ESHAPE, "input %d has rank %d; the inputs before it have rank %d", i, in->rank, out->rank);
		for (int k = 0; k < in->rank; k++)
			if (k != axis)
				TRY(length_join(c, "lengths beside the axis", out->d[k], in->d[k], &out->d[k]));
		total = dim_add(c->dims, total, in->d[axis]);
	}
	if (out->rank < 0)
		return LINNET_OK;
	TRY(axis_check(given, out->rank, &axis, c->e));
	out->d[axis] = unknown ? DIM_NONE : total;
	if (!c->arena || out->rank != 1 || !dim_is_int(out->d[0]) || out->d[0] > MAX_SYM)
		return LINNET_OK;
	for (int i = 0; i < c->nin; i++) {
		int64_t len = c->in[i]->shape.d[0];
		int k = type_elements(c->in[i], part);

		if (!dim_is_int(len))
			return LINNET_OK; /* only the sum of the lengths is known */
		for (int j = 0; j < len; j++)
			e[n++] = k < 0 ? DIM_NONE : part[j];
	}
	type_set_sym(c, 0, e, n);
	return LINNET_OK;
}

static enum linnet_code concat_kernel(struct kernel_call *c)
{
	struct tensor *y = c->out[0];
	int64_t sx[MAX_RANK], sy[MAX_RANK], at = 0;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, y->rank, &axis, c->e));
	strides(y->rank, y->d, sy);
	for (int i = 0; i < c->nin; i++) {
		const struct tensor *x = c->in[i];

		strides(x->rank, x->d, sx);
		copy_box(y, at * sy[axis], sy, x, 0, sx, x->rank, x->d);
		at += x->d[axis];
	}
	return LINNET_OK;
}

static enum linnet_code split_shape(struct shape_call *c)
{
	const struct attr *num = attr_get(c->op, c->attr, "num_outputs");
	const struct shape *in = &c->in[0]->shape;
	bool given = c->nin > 1 && c->in[1];
	dim e[MAX_SYM], length, sum = 0;
	int axis, at = 0;

	if (attr_given(num) && given)
		return fail(c->e, LINNET_EATTR, "both num_outputs and split are given");
	if (attr_given(num) && num->i != c->nout)
		return fail(c->e, LINNET_EATTR, "num_outputs is %lld, but there are %d outputs", (long long)num->i, c->nout);
	if (in->rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, in->rank, &axis, c->e));
	length = in->d[axis];
	for (int i = 0; i < c->nout; i++) {
		c->out[i].shape = *in;
		c->out[i].shape.d[axis] = DIM_NONE;
	}
	if (given) {
		const struct shape *split = &c->in[1]->shape;

		TRY(rank_check(c, 1, 1, 1));
		if (split->rank == 1 && dim_is_int(split->d[0]) && split->d[0] != c->nout)
			return fail(c->e, LINNET_ESHAPE, "split has not the %d lengths that %d outputs take", c->nout, c->nout);
		for (int i = 0; i < c->nout; i++)
			c->out[i].shape.d[axis] = type_element(c->in[1], i);
	} else {
		dim piece = dim_ceil_div(c->dims, length, c->nout);

		for (int i = 0; i + 1 < c->nout; i++)
			c->out[i].shape.d[axis] = piece;
		c->out[c->nout - 1].shape.d[axis] = dim_sub(c->dims, length, dim_mul(c->dims, piece, c->nout - 1));
		if (dim_is_int(length) && c->out[c->nout - 1].shape.d[axis] < 0)
			return fail(c->e, LINNET_ESHAPE, "length %lld cannot be split into %d", (long long)length, c->nout);
	}
	for (int i = 0; i < c->nout; i++) {
		TRY(check_length(c->out[i].shape.d[axis], c->e));
		sum = dim_add(c->dims, sum, c->out[i].shape.d[axis]);
	}
	if (dim_is_int(sum) && dim_is_int(length) && sum != length)
		return fail(c->e, LINNET_ESHAPE, "split adds up to %lld, but axis %d has length %lld", (long long)sum, axis,
		            (long long)length);
	if (!c->arena || in->rank != 1 || !dim_is_int(sum) || type_elements(c->in[0], e) < 0)
		return LINNET_OK;
	for (int i = 0; i < c->nout; i++) {
		type_set_sym(c, i, e + at, (int)c->out[i].shape.d[0]);
		at += (int)c->out[i].shape.d[0];
	}
	return LINNET_OK;
}

static enum linnet_code split_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *split = c->nin > 1 ? c->in[1] : NULL;
	int64_t sx[MAX_RANK], sy[MAX_RANK], at = 0, piece;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, c->e));
	strides(x->rank, x->d, sx);
	piece = dim_ceil_div(NULL, x->d[axis], c->nout);
	for (int i = 0; i < c->nout; i++) {
		struct tensor *y = c->out[i];

		if (y) {
			strides(y->rank, y->d, sy);
			copy_box(y, 0, sy, x, at * sx[axis], sx, y->rank, y->d);
		}
		at += split ? tensor_get_int(split, i) : piece;
	}
	return LINNET_OK;
}

/* ---- Slice ---- */

/* The elements of one axis a slice takes: first, first + step, ..., `length` of them. */
struct cut {
	dim first, length, step;
};

/* Indices this far out mean the end of an axis whose length is not known: exporters write INT32_MAX or INT64_MAX, tf2onnx 10^9. */
static const int64_t far_out = 1000000000;

/* An index counted from either end as one counted from the start; only clamped where the length is a number or the index is
 * far out: `low` is where the axis begins. */
static dim from_start(struct dims *t, dim i, dim length, int64_t low)
{
	if (dim_is_int(i)) {
		if (!dim_is_int(length) && (i >= far_out || i <= -far_out))
			return i > 0 ? length : low;
		i = i < 0 ? dim_add(t, length, i) : i;
		return dim_is_int(length) ? dim_min(NULL, dim_max(NULL, i, low), length) : i;
	}
	/* length - 1 is below 0 only for an empty axis, which begins where it ends */
	if (dim_is_expr(i) && i == dim_sub(t, length, 1))
		return dim_max(t, i, 0);
	if (dim_is_expr(i) && dim_ge(t, dim_sub(t, -1, i), 0))
		return dim_add(t, length, i);
	/* whose sign depends on the lengths is meant from the start, and to be there */
	return dim_is_expr(i) ? i : DIM_NONE;
}

static struct cut cut_axis(struct dims *t, dim length, dim start, dim end, int64_t step)
{
	struct cut r = { .step = step };
	dim last, stop;

	if (step > 0) {
		/* first and stop in [0, length]; a clamp that the difference's own makes needless is left out */
		r.first = dim_max(t, from_start(t, start, length, 0), 0);
		stop = dim_min(t, from_start(t, end, length, 0), length);
		if (stop == length && dim_is_int(start) && start < 0 && start > -far_out)
			r.length = dim_min(t, dim_sub(t, 0, start), length);
		else
			r.length = dim_max(t, dim_sub(t, stop, r.first), 0);
		r.length = step == 1 ? r.length : dim_ceil_div(t, r.length, step);
		return r;
	}
	/* first in [0, length - 1], stop in [-1, length - 1] */
	last = dim_sub(t, length, 1);
	r.first = start == -1 ? last : dim_min(t, dim_max(t, from_start(t, start, length, 0), 0), last);
	stop = dim_max(t, dim_min(t, from_start(t, end, length, -1), last), -1);
	r.length = dim_ceil_div(t, dim_max(t, dim_sub(t, r.first, stop), 0), dim_sub(t, 0, step));
	return r;
}

/* What a slice takes of each axis; DIM_NONE where that is not known. in: data, starts, ends, axes, steps. */
static enum linnet_code slice_cuts(struct dims *t, const struct type *const *in, int nin, struct cut out[MAX_RANK],
                                   struct linnet_error *e)
{
	const struct shape *s = &in[0]->shape;
	dim v[4][MAX_RANK];
	int n[4] = { -1, -1, -1, -1 }, count = -1;
	bool given[4], on[MAX_RANK];
	static const char *const name[] = { "starts", "ends", "axes", "steps" };

	for (int k = 0; k < 4; k++) {
		given[k] = k + 1 < nin && in[k + 1];
		if (!given[k])
			continue;
		TRY(type_dims(in[k + 1], v[k], MAX_RANK, &n[k], e));
		if (n[k] >= 0 && count >= 0 && n[k] != count)
			return fail(e, LINNET_ESHAPE, "%s has %d elements; %d were expected as in starts", name[k], n[k], count);
		if (n[k] >= 0)
			count = n[k];
	}
	for (int i = 0; i < s->rank; i++)
		out[i] = (struct cut){ 0, s->d[i], 1 };
	if (count > s->rank)
		return fail(e, LINNET_ESHAPE, "%d axes to slice of rank %d", count, s->rank);
	if (count < 0 || (given[2] && (n[2] < 0 || !all_ints(v[2], n[2])))) {
		for (int i = 0; i < s->rank; i++)
			out[i] = (struct cut){ DIM_NONE, DIM_NONE, DIM_NONE };
		return LINNET_OK;
	}
	for (int i = 0; i < count && !given[2]; i++)
		v[2][i] = i;
	TRY(mark_axes(v[2], count, s->rank, on, e));
	for (int i = 0; i < count; i++) {
		dim start = n[0] < 0 ? DIM_NONE : v[0][i], end = n[1] < 0 ? DIM_NONE : v[1][i];
		dim step = !given[3] ? 1 : n[3] < 0 ? DIM_NONE : v[3][i];
		int axis = (int)(v[2][i] < 0 ? v[2][i] + s->rank : v[2][i]);

		if (step == 0)
			return fail(e, LINNET_EVALUE, "step of axis %d is 0", axis);
		out[axis] = (struct cut){ DIM_NONE, DIM_NONE, DIM_NONE };
		if (dim_is_int(step))
			out[axis] = cut_axis(t, s->d[axis], start, end, step);
	}
	return LINNET_OK;
}

static enum linnet_code slice_shape(struct shape_call *c)
{
	struct shape *out = &c->out[0].shape;
	struct cut cut[MAX_RANK];
	dim e[MAX_SYM], part[MAX_SYM];

	if (c->in[0]->shape.rank < 0)
		return LINNET_OK;
	TRY(slice_cuts(c->dims, c->in, c->nin, cut, c->e));
	out->rank = c->in[0]->shape.rank;
	for (int i = 0; i < out->rank; i++)
		out->d[i] = cut[i].length;
	if (!c->arena || out->rank != 1 || !dim_is_int(cut[0].length) || !dim_is_int(cut[0].first) || type_elements(c->in[0], e) < 0)
		return LINNET_OK;
	for (int i = 0; i < cut[0].length; i++)
		part[i] = e[cut[0].first + i * cut[0].step];
	type_set_sym(c, 0, part, (int)cut[0].length);
	return LINNET_OK;
}

static enum linnet_code slice_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	const struct type *in[5] = { NULL };
	struct type type[5];
	struct cut cut[MAX_RANK];
	int64_t from[MAX_RANK], to[MAX_RANK], at = 0;

	for (int i = 0; i < c->nin; i++) {
		if (!c->in[i])
			continue;
		type[i] = type_of(c->in[i]);
		in[i] = &type[i];
	}
	TRY(slice_cuts(NULL, in, c->nin, cut, c->e));
	strides(x->rank, x->d, from);
	strides(y->rank, y->d, to);
	for (int i = 0; i < x->rank; i++) {
		at += cut[i].first * from[i];
		from[i] *= cut[i].step;
	}
	copy_box(y, 0, to, x, at, from, y->rank, y->d);
	return LINNET_OK;
}

/* ---- Expand, Tile ---- */

static enum linnet_code expand_shape(struct shape_call *c)
{
	struct shape s;
	dim e[MAX_SYM];

	TRY(type_shape(c->in[1], &s, c->e));
	if (s.rank < 0)
		return LINNET_OK;
	for (int i = 0; i < s.rank; i++)
		TRY(check_length(s.d[i], c->e));
	TRY(broadcast(c->dims, &c->in[0]->shape, &s, &s, c->e));
	c->out[0].shape = s;
	if (!c->arena || s.rank < 0 || s.rank > 1 || (s.rank && (!dim_is_int(s.d[0]) || s.d[0] > MAX_SYM)))
		return LINNET_OK;
	int n = type_elements(c->in[0], e), m = s.rank ? (int)s.d[0] : 1;

	if (n < 0)
		return LINNET_OK;
	for (int i = n; i < m; i++)
		e[i] = e[0];
	type_set_sym(c, 0, e, m);
	return LINNET_OK;
}

static enum linnet_code expand_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t from[MAX_RANK], to[MAX_RANK];

	broadcast_strides(x, y->rank, from);
	strides(y->rank, y->d, to);
	copy_box(y, 0, to, x, 0, from, y->rank, y->d);
	return LINNET_OK;
}

static enum linnet_code tile_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	struct shape s;
	dim e[MAX_SYM], tiled[MAX_SYM];
	int n;

	TRY(type_shape(c->in[1], &s, c->e));
	if (s.rank >= 0 && in->rank >= 0 && s.rank != in->rank)
		return fail(c->e, LINNET_ESHAPE, "repeats has %d elements; the input's rank is %d", s.rank, in->rank);
	if (in->rank < 0 && s.rank < 0)
		return LINNET_OK;
	c->out[0].shape.rank = in->rank < 0 ? s.rank : in->rank;
	for (int i = 0; i < c->out[0].shape.rank; i++) {
		dim d = in->rank < 0 ? DIM_NONE : in->d[i], times = s.rank < 0 ? DIM_NONE : s.d[i];

		TRY(check_length(times, c->e));
		c->out[0].shape.d[i] = dim_mul(c->dims, d, times);
	}
	s = c->out[0].shape;
	if (!c->arena || s.rank != 1 || !dim_is_int(s.d[0]) || s.d[0] > MAX_SYM || (n = type_elements(c->in[0], e)) < 1)
		return LINNET_OK;
	for (int i = 0; i < s.d[0]; i++)
		tiled[i] = e[i % n];
	type_set_sym(c, 0, tiled, (int)s.d[0]);
	return LINNET_OK;
}

/* Axis k of the output is two axes: the repetition, which does not move in the input, and the position in it. */
static enum linnet_code tile_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t sx[MAX_RANK], sy[MAX_RANK], d[BOX_RANK], from[BOX_RANK], to[BOX_RANK];

	strides(x->rank, x->d, sx);
	strides(y->rank, y->d, sy);
	for (int k = 0; k < x->rank; k++) {
		d[2 * k] = x->d[k] ? y->d[k] / x->d[k] : 0;
		from[2 * k] = 0;
		to[2 * k] = x->d[k] * sy[k];
		d[2 * k + 1] = x->d[k];
		from[2 * k + 1] = sx[k];
		to[2 * k + 1] = sy[k];
	}
	copy_box(y, 0, to, x, 0, from, 2 * x->rank, d);
	return LINNET_OK;
}

/* ---- Constant, ConstantOfShape ---- */

static enum linnet_code constant_shape(struct shape_call *c)
{
	static const struct {
		const char *name;
		enum dtype dt;
		int rank;
	} form[] = {
		{ "value", DT_UNDEFINED, 0 },      { "value_float", DT_FLOAT, 0 },    { "value_floats", DT_FLOAT, 1 },
		{ "value_int", DT_INT64, 0 },      { "value_ints", DT_INT64, 1 },     { "value_string", DT_STRING, 0 },
		{ "value_strings", DT_STRING, 1 },
	};
	int n = 0;

	if (attr_given(attr_get(c->op, c->attr, "sparse_value")))
		return fail(c->e, LINNET_EUNSUPPORTED, "sparse_value is not supported");
	for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
		const struct attr *a = attr_get(c->op, c->attr, form[i].name);

		if (!attr_given(a))
			continue;
		n++;
		c->out[0].dt = a->t ? a->t->dt : form[i].dt;
		c->out[0].shape = a->t ? shape_of(a->t) : (struct shape){ .rank = form[i].rank, .d = { (dim)a->n } };
	}
	if (n != 1)
		return fail(c->e, LINNET_EATTR, "%d of the value attributes are given; exactly one is needed", n);
	return LINNET_OK;
}

static enum linnet_code constant_kernel(struct kernel_call *c)
{
	struct tensor *y = c->out[0];

	for (int i = 0; i < op_nattr(c->op); i++) {
		const struct attr *a = &c->attr[i];

		switch (a->kind) {
		case ATTR_TENSOR: tensor_copy(y, a->t); break;
		case ATTR_INT: tensor_put_int(y, 0, a->i); break;
		case ATTR_FLOAT: tensor_put(y, 0, a->f); break;
		case ATTR_STRING: *(struct text *)y->data = a->s; break;
		case ATTR_INTS: memcpy(y->data, a->ints, y->bytes); break;
		case ATTR_FLOATS: memcpy(y->data, a->floats, y->bytes); break;
		case ATTR_STRINGS: memcpy(y->data, a->strings, y->bytes); break;
		default: break;
		}
	}
	return LINNET_OK;
}

static enum linnet_code fill_shape(struct shape_call *c)
{
	const struct tensor *v = attr_get(c->op, c->attr, "value")->t;
	struct shape *s = &c->out[0].shape;
	dim e[MAX_SYM];

	if (v && v->n != 1)
		return fail(c->e, LINNET_EATTR, "value has %lld elements; expected 1", (long long)v->n);
	c->out[0].dt = v ? v->dt : DT_FLOAT;
	TRY(type_shape(c->in[0], s, c->e));
	for (int i = 0; i < s->rank; i++)
		TRY(check_length(s->d[i], c->e));
	if (!c->arena || !v || s->rank < 0 || s->rank > 1 || (s->rank && (!dim_is_int(s->d[0]) || s->d[0] > MAX_SYM)) ||
	    !dtype_in(v->dt, INTS | SET(BOOL)))
		return LINNET_OK;
	int n = s->rank ? (int)s->d[0] : 1;

	for (int i = 0; i < n; i++)
		e[i] = dim_is_int(tensor_get_int(v, 0)) ? tensor_get_int(v, 0) : DIM_NONE;
	type_set_sym(c, 0, e, n);
	return LINNET_OK;
}

static enum linnet_code fill_kernel(struct kernel_call *c)
{
	const struct tensor *v = attr_get(c->op, c->attr, "value")->t;

	for (int64_t i = 0; i < c->out[0]->n; i++)
		if (v)
			element_copy(c->out[0], i, v, 0);
		else
			element_zero(c->out[0], i);
	return LINNET_OK;
}

/* ---- Pad ---- */

/* What Pad adds before and after each axis; negative cuts off. DIM_NONE where not known. in: data, pads, constant_value, axes. */
static enum linnet_code pad_widths(const struct type *const *in, int nin, dim before[MAX_RANK], dim after[MAX_RANK],
                                   struct linnet_error *e)
{
	int rank = in[0]->shape.rank, n, m = rank;
	dim pads[2 * MAX_RANK], axes[MAX_RANK];
	bool given = nin > 3 && in[3], on[MAX_RANK];

	TRY(type_dims(in[1], pads, 2 * MAX_RANK, &n, e));
	if (given)
		TRY(type_dims(in[3], axes, MAX_RANK, &m, e));
	if (n >= 0 && m >= 0 && n != 2 * m)
		return fail(e, LINNET_ESHAPE, "pads has %d elements; %d were expected, two for each of %d axes", n, 2 * m, m);
	for (int i = 0; i < rank; i++)
		before[i] = after[i] = given && (m < 0 || !all_ints(axes, m)) ? DIM_NONE : 0;
	if (given && (m < 0 || !all_ints(axes, m)))
		return LINNET_OK;
	for (int i = 0; i < m && !given; i++)
		axes[i] = i;
	TRY(mark_axes(axes, m, rank, on, e));
	for (int i = 0; i < m; i++) {
		int axis = (int)(axes[i] < 0 ? axes[i] + rank : axes[i]);

		before[axis] = n < 0 ? DIM_NONE : pads[i];
		after[axis] = n < 0 ? DIM_NONE : pads[m + i];
	}
	return LINNET_OK;
}

static bool mode_is(const struct op *op, const struct attr *attr, const char *name)
{
	struct text mode = attr_get(op, attr, "mode")->s;

	return mode.n == strlen(name) && !memcmp(mode.p, name, mode.n);
}

static enum linnet_code pad_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	struct shape *out = &c->out[0].shape;
	dim before[MAX_RANK], after[MAX_RANK];

	TRY(scalar_check(c, 2));
	if (in->rank < 0)
		return LINNET_OK;
	TRY(pad_widths(c->in, c->nin, before, after, c->e));
	out->rank = in->rank;
	for (int i = 0; i < in->rank; i++) {
		dim cut_before = dim_min(c->dims, before[i], 0), cut_after = dim_min(c->dims, after[i], 0);
		dim left = dim_add(c->dims, in->d[i], dim_add(c->dims, cut_before, cut_after));

		out->d[i] = dim_add(c->dims, in->d[i], dim_add(c->dims, before[i], after[i]));
		if (dim_is_int(left) && left < 0)
			return fail(c->e, LINNET_ESHAPE, "pads cut %lld off axis %d, whose length is %lld", (long long)(in->d[i] - left),
			            i, (long long)in->d[i]);
		if (left == 0 && dim_is_int(out->d[i]) && out->d[i] > 0 && !mode_is(c->op, c->attr, "constant"))
			return fail(c->e, LINNET_ESHAPE, "axis %d is empty; only constant padding can make it longer", i);
	}
	return LINNET_OK;
}

enum pad_mode { PAD_CONSTANT, PAD_EDGE, PAD_REFLECT, PAD_WRAP };

/* The position in [0, n) that padding other than by a constant shows at i. */
static int64_t padded_from(enum pad_mode mode, int64_t i, int64_t n)
{
	int64_t period = mode == PAD_REFLECT ? (n > 1 ? 2 * (n - 1) : 1) : n;

	if (i >= 0 && i < n)
		return i;
	if (mode == PAD_EDGE)
		return i < 0 ? 0 : n - 1;
	i %= period;
	i += i < 0 ? period : 0;
	return i < n ? i : period - i;
}

/* The constant everywhere, then the part of x that is kept. */
static void pad_constant(const struct tensor *x, const struct tensor *value, struct tensor *y, const dim *before, const dim *after)
{
	int64_t from = 0, to = 0, kept[MAX_RANK], sx[MAX_RANK], sy[MAX_RANK];

	strides(x->rank, x->d, sx);
	strides(y->rank, y->d, sy);
	for (int k = 0; k < x->rank; k++) {
		kept[k] = x->d[k] + (before[k] < 0 ? before[k] : 0) + (after[k] < 0 ? after[k] : 0);
		from += before[k] < 0 ? -before[k] * sx[k] : 0;
		to += before[k] > 0 ? before[k] * sy[k] : 0;
	}
	if (y->bytes)
		memset(y->data, 0, y->bytes);
	for (int64_t j = 0; value && j < y->n; j++)
		element_copy(y, j, value, 0);
	copy_box(y, to, sy, x, from, sx, x->rank, kept);
}

static bool all_zero_bits(const struct tensor *t)
{
	const unsigned char *p = t->data;

	for (size_t i = 0; i < t->bytes; i++)
		if (p[i])
			return false;
	return true;
}

static enum linnet_code pad_kernel(struct kernel_call *c)
{
	enum pad_mode mode = mode_is(c->op, c->attr, "edge") ? PAD_EDGE : mode_is(c->op, c->attr, "reflect") ? PAD_REFLECT
		: mode_is(c->op, c->attr, "wrap") ? PAD_WRAP : PAD_CONSTANT;
	const struct tensor *x = c->in[0], *value = c->nin > 2 ? c->in[2] : NULL;
	struct tensor *y = c->out[0];
	const struct type *in[4] = { NULL };
	struct type type[4];
	dim before[MAX_RANK], after[MAX_RANK];
	int64_t sx[MAX_RANK], at[MAX_RANK] = { 0 };

	for (int i = 0; i < c->nin; i++) {
		if (!c->in[i])
			continue;
		type[i] = type_of(c->in[i]);
		in[i] = &type[i];
	}
	TRY(pad_widths(in, c->nin, before, after, c->e));
	if (mode == PAD_CONSTANT) {
		pad_constant(x, value && !all_zero_bits(value) ? value : NULL, y, before, after);
		return LINNET_OK;
	}
	strides(x->rank, x->d, sx);
	for (int64_t j = 0; j < y->n; j++) {
		int64_t from = 0;

		for (int k = 0; k < x->rank; k++) {
			/* what is cut off is gone before the rest is continued */
			int64_t cut = before[k] < 0 ? -before[k] : 0, left = x->d[k] - cut + (after[k] < 0 ? after[k] : 0);
			int64_t i = padded_from(mode, at[k] - (before[k] > 0 ? before[k] : 0), left);

			from += (cut + i) * sx[k];
		}
		element_copy(y, j, x, from);
		next_position(y->rank, y->d, at);
	}
	return LINNET_OK;
}

/* ---- Trilu ---- */

static enum linnet_code trilu_shape(struct shape_call *c)
{
	TRY(rank_check(c, 0, 2, MAX_RANK));
	TRY(scalar_check(c, 1));
	return shape_same(c);
}

static enum linnet_code trilu_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	bool upper = attr_get(c->op, c->attr, "upper")->i;
	int64_t k = c->nin > 1 && c->in[1] ? tensor_get_int(c->in[1], 0) : 0;
	int64_t height = x->d[x->rank - 2], width = x->d[x->rank - 1];

	for (int64_t i = 0; i < x->n; i++) {
		int64_t diagonal = i % width - i / width % height;

		if (upper ? diagonal >= k : diagonal <= k)
			element_copy(c->out[0], i, x, i);
		else
			element_zero(c->out[0], i);
	}
	return LINNET_OK;
}

/* ---- DepthToSpace, SpaceToDepth ---- */

static enum linnet_code depth_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	int64_t b = attr_get(c->op, c->attr, "blocksize")->i, bb = b * b;
	bool to_space = c->op->param;

	TRY(rank_check(c, 0, 4, 4));
	c->out[0].shape = (struct shape){ .rank = 4, .d = { DIM_NONE, DIM_NONE, DIM_NONE, DIM_NONE } };
	if (in->rank < 0)
		return LINNET_OK;
	for (int i = 1; i < 4; i++) {
		int64_t piece = !to_space ? (i == 1 ? 1 : b) : i == 1 ? bb : 1;

		if (dim_is_int(in->d[i]) && in->d[i] % piece)
			return fail(c->e, LINNET_ESHAPE, "axis %d has length %lld, no multiple of %lld", i, (long long)in->d[i],
			            (long long)piece);
	}
	c->out[0].shape.d[0] = in->d[0];
	c->out[0].shape.d[1] = to_space ? dim_div(c->dims, in->d[1], bb) : dim_mul(c->dims, in->d[1], bb);
	for (int i = 2; i < 4; i++)
		c->out[0].shape.d[i] = to_space ? dim_mul(c->dims, in->d[i], b) : dim_div(c->dims, in->d[i], b);
	return LINNET_OK;
}

/*
 * wide[n, c, h b + i, w b + j] = deep[n, (i b + j) C + c, h, w] in mode DCR, deep[n, (c b + i) b + j, h, w] in mode CRD,
 * with C channels in the wide tensor. The box's axes are n, c, h, i, w, j.
 */
static enum linnet_code depth_kernel(struct kernel_call *c)
{
	int64_t b = attr_get(c->op, c->attr, "blocksize")->i, sw[4], sd[4];
	bool to_space = c->op->param, crd = mode_is(c->op, c->attr, "CRD");
	const struct tensor *x = c->in[0], *deep = to_space ? x : c->out[0], *wide = to_space ? c->out[0] : x;
	const int64_t *d = wide->d, channels = d[1];

	strides(4, wide->d, sw);
	strides(4, deep->d, sd);
	const int64_t box[6] = { d[0], channels, deep->d[2], b, deep->d[3], b };
	const int64_t in_wide[6] = { sw[0], sw[1], b * sw[2], sw[2], b * sw[3], sw[3] };
	const int64_t in_deep[6] = {
		sd[0], sd[1] * (crd ? b * b : 1), sd[2], sd[1] * b * (crd ? 1 : channels), sd[3], sd[1] * (crd ? 1 : channels),
	};

	copy_box(c->out[0], 0, to_space ? in_wide : in_deep, x, 0, to_space ? in_deep : in_wide, 6, box);
	return LINNET_OK;
}

/* ---- ReverseSequence ---- */

static enum linnet_code reverse_shape(struct shape_call *c)
{
	int64_t batch = attr_get(c->op, c->attr, "batch_axis")->i, time = attr_get(c->op, c->attr, "time_axis")->i;
	const struct shape *in = &c->in[0]->shape;

	if (batch == time)
		return fail(c->e, LINNET_EATTR, "batch_axis and time_axis are both %lld", (long long)time);
	TRY(rank_check(c, 0, 2, MAX_RANK));
	TRY(rank_check(c, 1, 1, 1));
	if (in->rank >= 0 && c->in[1]->shape.rank >= 0)
		TRY(length_join(c, "batch sizes of input and sequence_lens", in->d[batch], c->in[1]->shape.d[0], NULL));
	return shape_same(c);
}

static enum linnet_code reverse_kernel(struct kernel_call *c)
{
	int64_t batch = attr_get(c->op, c->attr, "batch_axis")->i, time = attr_get(c->op, c->attr, "time_axis")->i;
	const struct tensor *x = c->in[0];
	int64_t d[MAX_RANK], to[MAX_RANK], from[MAX_RANK];

	tensor_copy(c->out[0], x);
	strides(x->rank, x->d, to);
	strides(x->rank, x->d, from);
	memcpy(d, x->d, sizeof d);
	d[batch] = 1;
	from[time] = -from[time];
	for (int64_t i = 0; i < x->d[batch]; i++) {
		int64_t n = tensor_get_int(c->in[1], i);

		if (n < 0 || n > x->d[time])
			return fail(c->e, LINNET_EVALUE, "sequence %lld has length %lld; the time axis has %lld", (long long)i,
			            (long long)n, (long long)x->d[time]);
		d[time] = n;
		copy_box(c->out[0], i * to[batch], to, x, i * to[batch] + (n - 1) * to[time], from, x->rank, d);
	}
	return LINNET_OK;
}

/* ---- EyeLike, Range ---- */

static enum linnet_code eye_shape(struct shape_call *c)
{
	TRY(rank_check(c, 0, 2, 2));
	c->out[0].dt = c->in[0]->dt;
	TRY(attr_dtype(c, "dtype"));
	return shape_same(c);
}

static enum linnet_code eye_kernel(struct kernel_call *c)
{
	int64_t k = attr_get(c->op, c->attr, "k")->i, columns = c->in[0]->d[1];

	for (int64_t i = 0; i < c->out[0]->n; i++)
		tensor_put_int(c->out[0], i, i % columns - i / columns == k);
	return LINNET_OK;
}

/* Range's start, limit and delta as dims where they are known: integers, or lengths cast to floats. */
static dim range_part(const struct type *t)
{
	double v = t->value ? tensor_get(t->value, 0) : 0;

	if (dtype_class(t->dt) == CLASS_FLOAT && !(v == floor(v) && fabs(v) < 0x1p53))
		return DIM_NONE;
	return type_element(t, 0);
}

static enum linnet_code range_shape(struct shape_call *c)
{
	struct linnet_error *e = c->e;
	dim start, limit, delta, n = DIM_NONE, s[MAX_SYM];

	c->out[0].shape = (struct shape){ .rank = 1, .d = { DIM_NONE } };
	for (int i = 0; i < 3; i++) {
		const struct tensor *v = c->in[i]->value;

		TRY(scalar_check(c, i));
		if (v && !dim_is_int(tensor_get_int(v, 0)))
			return fail(e, LINNET_ELIMIT, "%s is %lld, beyond what lengths can be", c->op->in[i].name,
			            (long long)tensor_get_int(v, 0));
	}
	if (c->in[2]->value && tensor_get(c->in[2]->value, 0) == 0)
		return fail(e, LINNET_EVALUE, "delta is 0");
	start = range_part(c->in[0]);
	limit = range_part(c->in[1]);
	delta = range_part(c->in[2]);
	if (dtype_class(c->in[0]->dt) == CLASS_FLOAT && c->in[0]->value && c->in[1]->value && c->in[2]->value) {
		double a = tensor_get(c->in[0]->value, 0), b = tensor_get(c->in[1]->value, 0);
		double count = ceil((b - a) / tensor_get(c->in[2]->value, 0));

		if (!(count < 0x1p40))
			return fail(e, LINNET_ELIMIT, "%g elements from start to limit", count);
		n = count > 0 ? (dim)count : 0;
	} else if (dim_is_int(delta)) {
		n = delta > 0 ? dim_ceil_div(c->dims, dim_max(c->dims, dim_sub(c->dims, limit, start), 0), delta)
			: dim_ceil_div(c->dims, dim_max(c->dims, dim_sub(c->dims, start, limit), 0), dim_sub(c->dims, 0, delta));
		if (n == DIM_NONE && dim_is_int(start) && dim_is_int(limit))
			return fail(e, LINNET_ELIMIT, "too many elements from start to limit");
	}
	c->out[0].shape.d[0] = n;
	if (!c->arena || !dim_is_int(n) || n > MAX_SYM || dtype_class(c->in[0]->dt) == CLASS_FLOAT)
		return LINNET_OK;
	for (int i = 0; i < n; i++)
		s[i] = dim_add(c->dims, start, dim_mul(c->dims, i, delta));
	type_set_sym(c, 0, s, (int)n);
	return LINNET_OK;
}

static enum linnet_code range_kernel(struct kernel_call *c)
{
	struct tensor *y = c->out[0];

	for (int64_t i = 0; i < y->n; i++)
		if (dtype_class(y->dt) == CLASS_FLOAT)
			tensor_put(y, i, tensor_get(c->in[0], 0) + (double)i * tensor_get(c->in[2], 0));
		else
			tensor_put_int(y, i, tensor_get_int(c->in[0], 0) + i * tensor_get_int(c->in[2], 0));
	return LINNET_OK;
}

/* ---- Dropout ---- */

static enum linnet_code dropout_shape(struct shape_call *c)
{
	TRY(scalar_check(c, 1));
	TRY(scalar_check(c, 2));
	return shape_same(c);
}

/* In training y = x mask / (1 - ratio) with mask true at random, with probability 1 - ratio; else y = x, mask all true. */
static enum linnet_code dropout_kernel(struct kernel_call *c)
{
	const struct attr *seed = attr_get(c->op, c->attr, "seed");
	double ratio = c->nin > 1 && c->in[1] ? tensor_get(c->in[1], 0) : 0.5;
	bool training = c->nin > 2 && c->in[2] && tensor_get_int(c->in[2], 0);
	struct rng r = { attr_given(seed) ? (uint64_t)seed->i : c->seed };
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0], *mask = c->nout > 1 ? c->out[1] : NULL;

	if (training && !(ratio >= 0 && ratio < 1))
		return fail(c->e, LINNET_EVALUE, "ratio is %g; expected 0 to below 1", ratio);
	for (int64_t i = 0; i < x->n; i++) {
		bool keep = !training || ratio == 0 || rng_unit(&r) >= ratio;

		if (mask)
			tensor_put_int(mask, i, keep);
		if (!y)
			continue;
		if (training && ratio != 0)
			tensor_put(y, i, keep ? tensor_get(x, i) / (1 - ratio) : 0);
		else
			element_copy(y, i, x, i);
	}
	return LINNET_OK;
}

/* Kept is what lies at column - row - k >= 0, or <= 0. The zero of strings and complex numbers is what Pad fills with. */
static enum linnet_code write_trilu(struct shape_call *c, const char **text)
{
	enum dtype dt = c->in[0]->dt;
	struct body b;

	body_begin(&b, c);
	str_addf(&b.s,
	         "s = Shape (input)\n"
	         "i = Constant <value_ints = [-2]> ()\n"
	         "j = Constant <value_ints = [-1]> ()\n"
	         "none = Constant <value_ints = [0]> ()\n"
	         "zero = Constant <value_int = 0> ()\n"
	         "one = Constant <value_int = 1> ()\n"
	         "si = Gather (s, i)\n"
	         "sj = Gather (s, j)\n"
	         "height = Squeeze (si, none)\n"
	         "width = Squeeze (sj, none)\n"
	         "ri = Range (zero, height, one)\n"
	         "row = Unsqueeze (ri, j)\n"
	         "column = Range (zero, width, one)\n"
	         "diagonal = Sub (column, row)\n"
	         "d = %s\n"
	         "keep = %s (d, zero)\n",
	         c->nin > 1 && c->in[1] ? "Sub (diagonal, k)" : "Identity (diagonal)", attr_get(c->op, c->attr, "upper")->i ? "GreaterOrEqual" : "LessOrEqual");
	if (dt == DT_BOOL)
		str_add(&b.s, "output = And (keep, input)\n");
	else if (dtype_in(dt, NUMBERS))
		str_addf(&b.s, "blank = Constant <value = %s {0}> ()\n"
		         "output = Where (keep, input, blank)\n", dtype_name(dt));
	else
		str_add(&b.s, "flat = Reshape (input, j)\n"
		        "empty = Slice (flat, none, none)\n"
		        "pads = Constant <value_ints = [0, 1]> ()\n"
		        "blank = Pad (empty, pads)\n"
		        "output = Where (keep, input, blank)\n");
	return body_end(&b, text);
}

/* Lengths of the axes of an image, and the block's. */
#define BLOCKS                                                                                     \
	"  s = Shape (input)\n"                                                                    \
	"  each = Constant <value_ints = [1, 1, 1, 1]> ()\n"                                       \
	"  n, c, h, w = Split (s, each)\n"                                                         \
	"  b0 = Constant <value_int: int = @blocksize> ()\n"                                       \
	"  one = Constant <value_ints = [1]> ()\n"                                                 \
	"  b = Reshape (b0, one)\n"                                                                \
	"  bb = Mul (b, b)\n"
#define TO_SPACE(box, perm)                                                                        \
	"{" BLOCKS                                                                                 \
	"  cw = Div (c, bb)\n"                                                                     \
	"  box = Concat <axis = 0> (" box ")\n"                                                    \
	"  cut = Reshape <allowzero = 1> (input, box)\n"                                           \
	"  moved = Transpose <perm = " perm "> (cut)\n"                                            \
	"  hb = Mul (h, b)\n"                                                                      \
	"  wb = Mul (w, b)\n"                                                                      \
	"  wide = Concat <axis = 0> (n, cw, hb, wb)\n"                                             \
	"  output = Reshape <allowzero = 1> (moved, wide) }"
#define TO_DEPTH(perm)                                                                             \
	"{" BLOCKS                                                                                 \
	"  cd = Mul (c, bb)\n"                                                                     \
	"  hd = Div (h, b)\n"                                                                      \
	"  wd = Div (w, b)\n"                                                                      \
	"  box = Concat <axis = 0> (n, c, hd, b, wd, b)\n"                                         \
	"  cut = Reshape <allowzero = 1> (input, box)\n"                                           \
	"  moved = Transpose <perm = " perm "> (cut)\n"                                            \
	"  deep = Concat <axis = 0> (n, cd, hd, wd)\n"                                             \
	"  output = Reshape <allowzero = 1> (moved, deep) }"

static const struct op rows[] = {
	{
		.name = "Shape", .since = 1,
		.doc = "The lengths of the input's axes from `start` to before `end`.",
		.in = IN({ "data", T }),
		.out = OUT({ "shape", T1 }),
		.attr = ATTRS({ .name = "start", .kind = ATTR_INT, .since = 15 },
		              { .name = "end", .kind = ATTR_INT, .flags = OPTIONAL, .since = 15 }),
		.types = { [T] = STORED, [T1] = SET(INT64) },
		.agree = AGREE_BITS, .flags = OP_SHAPE_ONLY,
		.shape = shape_shape, .kernel = shape_kernel,
		.body = "?end { all = Shape (data)\n"
		        "  one = Constant <value_ints = [1]> ()\n"
		        "  from = Constant <value_int: int = @start> ()\n"
		        "  to = Constant <value_int: int = @end> ()\n"
		        "  starts = Reshape (from, one)\n"
		        "  ends = Reshape (to, one)\n"
		        "  shape = Slice (all, starts, ends) }\n"
		        "{ all = Shape (data)\n"
		        "  one = Constant <value_ints = [1]> ()\n"
		        "  from = Constant <value_int: int = @start> ()\n"
		        "  starts = Reshape (from, one)\n"
		        "  ends = Constant <value_ints = [9223372036854775807]> ()\n"
		        "  shape = Slice (all, starts, ends) }",
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.name = "Size", .since = 1,
		.doc = "The number of elements of the input.",
		.in = IN({ "data", T }),
		.out = OUT({ "size", T1 }),
		.types = { [T] = STORED, [T1] = SET(INT64) },
		.agree = AGREE_BITS, .flags = OP_SHAPE_ONLY,
		.shape = size_shape, .kernel = size_kernel,
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.name = "Identity", .since = 1,
		.doc = "The input.",
		.in = IN({ "input", T, FLOW_LINEAR, .kinds = TENSORS | SEQUENCES | OPTIONALS }),
		.out = OUT({ "output", T, .kinds = TENSORS | SEQUENCES | OPTIONALS }),
		.types = { [T] = STORED },
		.agree = AGREE_BITS, .flags = OP_VIEW,
		.grad = "{ d_input = Identity (d_output) }",
		.shape = identity_shape, .kernel = identity_kernel,
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.name = "Reshape", .since = 5,
		.doc = "The same elements in another shape. -1 stands for the length that is left; 0 copies the input's length "
		       "unless `allowzero` is 1.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "shape", T1 }),
		.out = OUT({ "reshaped", T }),
		.attr = ATTRS({ .name = "allowzero", .kind = ATTR_INT, .since = 14, .lo = 0, .hi = 1 }),
		.types = { [T] = STORED, [T1] = SET(INT64) },
		.agree = AGREE_BITS, .flags = OP_VIEW | OP_VALUES,
		.grad = GRAD_OF_SHAPE("data", "reshaped"),
		.shape = reshape_shape, .kernel = copy_kernel,
	},
	{
		.name = "Flatten", .since = 1,
		.doc = "A matrix: the axes before `axis` are its rows, the others its columns.",
		.in = IN({ "input", T, FLOW_LINEAR }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = 1 }),
		.types = { [T] = STORED },
		.agree = AGREE_BITS, .flags = OP_VIEW,
		.grad = GRAD_OF_SHAPE("input", "output"),
		.shape = flatten_shape, .kernel = copy_kernel,
	},
	{
		.name = "Squeeze", .since = 13,
		.doc = "Without the given axes, which have length 1, or without all axes of length 1.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "axes", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "squeezed", T }),
		.types = { [T] = STORED, [T1] = SET(INT64) },
		.agree = AGREE_BITS, .flags = OP_VIEW | OP_VALUES,
		.grad = GRAD_OF_SHAPE("data", "squeezed"),
		.shape = squeeze_shape, .kernel = copy_kernel,
	},
	{
		.name = "Squeeze", .since = 1,
		.in = IN({ "data", T }),
		.out = OUT({ "squeezed", T }),
		.attr = ATTRS({ .name = "axes", .kind = ATTR_INTS, .flags = OPTIONAL, .input = 1 }),
		.types = { [T] = STORED },
	},
	{
		.name = "Unsqueeze", .since = 13,
		.doc = "With axes of length 1 at the given places of the output.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "axes", T1 }),
		.out = OUT({ "expanded", T }),
		.types = { [T] = STORED, [T1] = SET(INT64) },
		.agree = AGREE_BITS, .flags = OP_VIEW,
		.grad = GRAD_OF_SHAPE("data", "expanded"),
		.shape = unsqueeze_shape, .kernel = copy_kernel,
	},
	{
		.name = "Unsqueeze", .since = 1,
		.in = IN({ "data", T }),
		.out = OUT({ "expanded", T }),
		.attr = ATTRS({ .name = "axes", .kind = ATTR_INTS, .flags = REQUIRED, .input = 1 }),
		.types = { [T] = STORED },
	},
	{
		.name = "Transpose", .since = 1,
		.doc = "Axis i of the output is axis perm[i] of the input; without perm the axes are reversed.",
		.in = IN({ "data", T, FLOW_LINEAR }),
		.out = OUT({ "transposed", T }),
		.attr = ATTRS({ .name = "perm", .kind = ATTR_INTS, .flags = OPTIONAL }),
		.types = { [T] = STORED },
		.agree = AGREE_BITS,
		.write_grad = grad_transpose,
		.shape = transpose_shape, .kernel = transpose_kernel, .fast = FAST(&fast_transpose),
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.name = "Concat", .since = 4,
		.doc = "The inputs one after the other along one axis.",
		.in = IN({ "inputs", T, FLOW_LINEAR, VARIADIC }),
		.out = OUT({ "concat_result", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .flags = REQUIRED }),
		.types = { [T] = COMMON },
		.agree = AGREE_BITS,
		.write_grad = grad_concat,
		.shape = concat_shape, .kernel = concat_kernel,
	},
	{
		.name = "Split", .since = 13,
		.doc = "The input cut along one axis into pieces of the given lengths, or into equal ones of which the last may be "
		       "shorter.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "split", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "outputs", T, FLOW_NONE, VARIADIC }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT },
		              { .name = "num_outputs", .kind = ATTR_INT, .flags = OPTIONAL, .since = 18, .lo = 1, .hi = INT32_MAX }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.write_grad = grad_split,
		.shape = split_shape, .kernel = split_kernel,
	},
	{
		.name = "Split", .since = 2,
		.in = IN({ "input", T }),
		.out = OUT({ "outputs", T, FLOW_NONE, VARIADIC }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT },
		              { .name = "split", .kind = ATTR_INTS, .flags = OPTIONAL, .input = 1 }),
		.types = { [T] = COMMON },
	},
	{
		.name = "Slice", .since = 10,
		.doc = "Along each of the given axes the elements from `starts` to before `ends` in strides of `steps`. Negative indices "
		       "count from the end; indices beyond either end are clamped.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "starts", T1 }, { "ends", T1 }, { "axes", T1, FLOW_NONE, OPTIONAL },
		         { "steps", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }),
		.types = { [T] = COMMON, [T1] = INDICES },
		.agree = AGREE_BITS,
		.write_grad = grad_slice,
		.shape = slice_shape, .kernel = slice_kernel,
	},
	{
		.name = "Slice", .since = 1,
		.in = IN({ "data", T }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axes", .kind = ATTR_INTS, .flags = OPTIONAL, .input = 3 },
		              { .name = "ends", .kind = ATTR_INTS, .flags = REQUIRED, .input = 2 },
		              { .name = "starts", .kind = ATTR_INTS, .flags = REQUIRED, .input = 1 }),
		.types = { [T] = COMMON },
	},
	{
		.name = "Expand", .since = 8,
		.doc = "The input broadcast together with a shape.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "shape", T1 }),
		.out = OUT({ "output", T }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_BITS, .flags = OP_VALUES,
		.grad = "{ d_input = Identity (d_output) }",
		.shape = expand_shape, .kernel = expand_kernel,
	},
	{
		.name = "Tile", .since = 6,
		.doc = "The input repeated along each axis.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "repeats", T1 }),
		.out = OUT({ "output", T }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.grad = GRAD_OF_PICKING("input", "output", "Tile (all, repeats)"),
		.shape = tile_shape, .kernel = tile_kernel,
	},
	{
		.name = "Constant", .since = 1,
		.doc = "A constant, given by exactly one of the attributes.",
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "value", .kind = ATTR_TENSOR },
		              { .name = "sparse_value", .kind = ATTR_OTHER, .flags = OPTIONAL, .since = 11 },
		              { .name = "value_float", .kind = ATTR_FLOAT, .flags = OPTIONAL, .since = 12 },
		              { .name = "value_floats", .kind = ATTR_FLOATS, .flags = OPTIONAL, .since = 12 },
		              { .name = "value_int", .kind = ATTR_INT, .flags = OPTIONAL, .since = 12 },
		              { .name = "value_ints", .kind = ATTR_INTS, .flags = OPTIONAL, .since = 12 },
		              { .name = "value_string", .kind = ATTR_STRING, .flags = OPTIONAL, .since = 12 },
		              { .name = "value_strings", .kind = ATTR_STRINGS, .flags = OPTIONAL, .since = 12 }),
		.types = { [T] = STORED },
		.agree = AGREE_BITS,
		.shape = constant_shape, .kernel = constant_kernel,
	},
	{
		.name = "ConstantOfShape", .since = 9,
		.doc = "A tensor of the given shape with every element equal to `value`, float 0 when left out.",
		.in = IN({ "input", T1 }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS({ .name = "value", .kind = ATTR_TENSOR }),
		.types = { [T1] = SET(INT64), [T2] = STORED & ~(COMPLEXES | SET(STRING)) },
		.agree = AGREE_BITS,
		.shape = fill_shape, .kernel = fill_kernel,
	},
	{
		.name = "Pad", .since = 11,
		.doc = "The input made longer (or, with negative pads, shorter) at both ends of its axes: filled with a constant, the edge, "
		       "a reflection without the edge, or the other end.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "pads", T1 }, { "constant_value", T, FLOW_LINEAR, OPTIONAL },
		         { "axes", T2, FLOW_NONE, OPTIONAL, 18 }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "mode", .kind = ATTR_STRING, .s = "constant", .oneof = "constant|reflect|edge|wrap" }),
		.types = { [T] = STORED, [T1] = SET(INT64), [T2] = INDICES },
		.agree = AGREE_BITS,
		.write_grad = grad_pad,
		.shape = pad_shape, .kernel = pad_kernel,
	},
	{
		.name = "Pad", .since = 2,
		.in = IN({ "data", T }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "mode", .kind = ATTR_STRING, .s = "constant", .oneof = "constant|reflect|edge" },
		              { .name = "pads", .kind = ATTR_INTS, .flags = REQUIRED, .input = 1 },
		              { .name = "value", .kind = ATTR_FLOAT, .input = 2 }),
		.types = { [T] = FLOATS },
	},
	{
		.name = "Trilu", .since = 14,
		.doc = "Matrices without the elements below (or, with upper = 0, above) diagonal k.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "k", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "upper", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.grad = "{ d_input = Trilu <upper: int = @upper> (d_output, k) }",
		.shape = trilu_shape, .kernel = trilu_kernel,
		.write_body = write_trilu,
	},
	{
		.name = "DepthToSpace", .since = 1,
		.doc = "Blocks of channels become blocks of pixels: [N, C, H, W] to [N, C / b^2, H b, W b].",
		.in = IN({ "input", T, FLOW_LINEAR }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "blocksize", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = 32768 },
		              { .name = "mode", .kind = ATTR_STRING, .s = "DCR", .oneof = "DCR|CRD", .since = 11 }),
		.types = { [T] = COMMON },
		.agree = AGREE_BITS,
		.grad = "{ d_input = SpaceToDepth <blocksize: int = @blocksize, mode: string = @mode> (d_output) }",
		.shape = depth_shape, .kernel = depth_kernel, .param = "to space",
		.body = "?mode=CRD " TO_SPACE("n, cw, b, b, h, w", "[0, 1, 4, 2, 5, 3]") "\n"
		        TO_SPACE("n, b, b, cw, h, w", "[0, 3, 4, 1, 5, 2]"),
	},
	{
		.name = "SpaceToDepth", .since = 1,
		.doc = "Blocks of pixels become blocks of channels: [N, C, H, W] to [N, C b^2, H / b, W / b].",
		.in = IN({ "input", T, FLOW_LINEAR }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "blocksize", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = 32768 },
		              { .name = "mode", .kind = ATTR_STRING, .s = "DCR", .oneof = "DCR|CRD", .since = 28 }),
		.types = { [T] = COMMON },
		.agree = AGREE_BITS,
		.grad = "{ d_input = DepthToSpace <blocksize: int = @blocksize, mode: string = @mode> (d_output) }",
		.shape = depth_shape, .kernel = depth_kernel,
		.body = "?mode=CRD " TO_DEPTH("[0, 1, 3, 5, 2, 4]") "\n" TO_DEPTH("[0, 3, 5, 1, 2, 4]"),
	},
	{
		.name = "ReverseSequence", .since = 10,
		.doc = "Each sequence of a batch backwards, as far as its length goes.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "sequence_lens", T1 }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "batch_axis", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 },
		              { .name = "time_axis", .kind = ATTR_INT, .i = 0, .lo = 0, .hi = 1 }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.grad = "{ d_input = ReverseSequence <batch_axis: int = @batch_axis, time_axis: int = @time_axis> (d_Y, sequence_lens) }",
		.shape = reverse_shape, .kernel = reverse_kernel,
	},
	{
		.name = "EyeLike", .since = 9,
		.doc = "A matrix of the input's shape with ones on diagonal k and zeros elsewhere.",
		.in = IN({ "input", T1 }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS({ .name = "dtype", .kind = ATTR_INT, .flags = OPTIONAL }, { .name = "k", .kind = ATTR_INT }),
		.types = { [T1] = NUMBERS | SET(BOOL), [T2] = NUMBERS | SET(BOOL) },
		.agree = AGREE_BITS, .flags = OP_SHAPE_ONLY,
		.shape = eye_shape, .kernel = eye_kernel,
	},
	{
		.name = "Range", .since = 11,
		.doc = "start, start + delta, start + 2 delta, ... up to before limit.",
		.in = IN({ "start", T }, { "limit", T }, { "delta", T }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "stash_type", .kind = ATTR_INT, .i = DT_FLOAT, .since = 27 }),
		.types = { [T] = FLOATS | SET(INT16) | SET(INT32) | SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = range_shape, .kernel = range_kernel,
	},
	{
		.name = "Dropout", .since = 12,
		.doc = "The input; in training with elements set to 0 at random and the others scaled by 1 / (1 - ratio).",
		.in = IN({ "data", T, FLOW_LINEAR }, { "ratio", T1, FLOW_NONE, OPTIONAL }, { "training_mode", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "mask", T2, FLOW_NONE, OPTIONAL | FOR_GRAD }),
		.attr = ATTRS({ .name = "seed", .kind = ATTR_INT, .flags = OPTIONAL }),
		.types = { [T] = FLOATS | FLOAT8S, [T1] = FLOATS | FLOAT8S, [T2] = SET(BOOL) },
		.agree = AGREE_BITS,
		.write_grad = grad_dropout,
		.shape = dropout_shape, .kernel = dropout_kernel,
	},
	{
		.name = "Dropout", .since = 10,
		.in = IN({ "data", T }),
		.out = OUT({ "output", T }, { "mask", T1, FLOW_NONE, OPTIONAL }),
		.attr = ATTRS({ .name = "ratio", .kind = ATTR_FLOAT, .f = 0.5, .input = 1 }),
		.types = { [T] = FLOATS, [T1] = SET(BOOL) },
	},
	{
		.name = "Dropout", .since = 7,
		.in = IN({ "data", T }),
		.out = OUT({ "output", T }, { "mask", T, FLOW_NONE, OPTIONAL }),
		.attr = ATTRS({ .name = "ratio", .kind = ATTR_FLOAT, .f = 0.5, .input = 1 }),
		.types = { [T] = FLOATS },
		.lower = "{ ratio = Constant <value_float: float = @ratio> ()\n"
		         "  output, kept = Dropout (data, ratio)\n"
		         "  mask = CastLike (kept, data) }",
	},
};

const struct op_family layout_ops = FAMILY("layout", rows);
