/* Operators that choose elements by index: reference kernels, then rows. */
#include <math.h>
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/kernel.h"

/* Element i of the index tensor, counted from the start of an axis of the given length. */
static enum linnet_code index_at(const struct tensor *index, int64_t i, int64_t length, int64_t *out, struct linnet_error *e)
{
	int64_t v = tensor_get_int(index, i);

	if (v < -length || v >= length)
		return fail(e, LINNET_EVALUE, "index %lld is not in [%lld, %lld]", (long long)v, (long long)-length,
		            (long long)length - 1);
	*out = v < 0 ? v + length : v;
	return LINNET_OK;
}

/* ---- Gather ---- */

static enum linnet_code gather_shape(struct shape_call *c)
{
	const struct shape *data = &c->in[0]->shape, *index = &c->in[1]->shape;
	struct shape *out = &c->out[0].shape;
	dim e[MAX_SYM], at[MAX_SYM], picked[MAX_SYM];
	int axis;

	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (data->rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, data->rank, &axis, c->e));
	if (index->rank < 0)
		return LINNET_OK;
	TRY(rank_limit(data->rank + index->rank - 1, c->e));
	out->rank = 0;
	for (int i = 0; i < axis; i++)
		out->d[out->rank++] = data->d[i];
	for (int i = 0; i < index->rank; i++)
		out->d[out->rank++] = index->d[i];
	for (int i = axis + 1; i < data->rank; i++)
		out->d[out->rank++] = data->d[i];
	if (!c->arena || out->rank > 1 || data->rank != 1)
		return LINNET_OK;
	int m = type_elements(c->in[0], e), n = type_elements(c->in[1], at);

	if (m < 0 || n < 0)
		return LINNET_OK;
	for (int i = 0; i < n; i++) {
		picked[i] = DIM_NONE;
		if (dim_is_int(at[i]) && at[i] >= -m && at[i] < m)
			picked[i] = e[at[i] < 0 ? at[i] + m : at[i]];
	}
	type_set_sym(c, 0, picked, n);
	return LINNET_OK;
}

/* y[a, i, b] = x[a, index[i], b] */
static enum linnet_code gather_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *index = c->in[1];
	int64_t outer = 1, inner = 1, at;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, c->e));
	for (int i = 0; i < axis; i++)
		outer *= x->d[i];
	for (int i = axis + 1; i < x->rank; i++)
		inner *= x->d[i];
	const int64_t d[2] = { outer, inner };
	const int64_t from[2] = { x->d[axis] * inner, 1 }, to[2] = { index->n * inner, 1 };

	for (int64_t i = 0; i < index->n; i++) {
		TRY(index_at(index, i, x->d[axis], &at, c->e));
		copy_box(c->out[0], i * inner, to, x, at * inner, from, 2, d);
	}
	return LINNET_OK;
}

/* ---- GatherElements, GatherND ---- */

/* Index and data of the same rank; beside the axis no index axis is longer than the data's. */
static enum linnet_code check_elements(struct shape_call *c, int *axis)
{
	const struct shape *data = &c->in[0]->shape, *index = &c->in[1]->shape;

	*axis = -1;
	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (data->rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, data->rank, axis, c->e));
	TRY(rank_check(c, 1, data->rank, data->rank));
	for (int i = 0; i < index->rank; i++)
		if (i != *axis && dim_is_int(index->d[i]) && dim_is_int(data->d[i]) && index->d[i] > data->d[i])
			return fail(c->e, LINNET_ESHAPE, "axis %d of indices has length %lld; that of data has %lld", i,
			            (long long)index->d[i], (long long)data->d[i]);
	return LINNET_OK;
}

static enum linnet_code gather_elements_shape(struct shape_call *c)
{
	int axis;

	TRY(check_elements(c, &axis));
	c->out[0].shape = c->in[1]->shape;
	return LINNET_OK;
}

/* y[i, j, k] = x[i, index[i, j, k], k] for axis 1 of three */
static enum linnet_code gather_elements_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *index = c->in[1];
	int64_t sx[MAX_RANK], at[MAX_RANK] = { 0 }, v;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, c->e));
	strides(x->rank, x->d, sx);
	for (int64_t i = 0; i < index->n; i++) {
		int64_t from = 0;

		TRY(index_at(index, i, x->d[axis], &v, c->e));
		for (int k = 0; k < x->rank; k++)
			from += (k == axis ? v : at[k]) * sx[k];
		element_copy(c->out[0], i, x, from);
		next_position(index->rank, index->d, at);
	}
	return LINNET_OK;
}

static enum linnet_code gather_nd_shape(struct shape_call *c)
{
	int64_t batch = attr_get(c->op, c->attr, "batch_dims")->i, width;
	const struct shape *data = &c->in[0]->shape, *index = &c->in[1]->shape;
	struct shape *out = &c->out[0].shape;

	TRY(rank_check(c, 0, 1, MAX_RANK));
	TRY(rank_check(c, 1, 1, MAX_RANK));
	if (data->rank < 0 || index->rank < 0)
		return LINNET_OK;
	if (batch < 0 || batch >= data->rank || batch >= index->rank)
		return fail(c->e, LINNET_EATTR, "batch_dims is %lld; the ranks are %d and %d", (long long)batch, data->rank, index->rank);
	for (int i = 0; i < batch; i++)
		TRY(length_join(c, "batch lengths", data->d[i], index->d[i], NULL));
	width = index->d[index->rank - 1];
	if (!dim_is_int(width))
		return LINNET_OK;
	if (width < 1 || width > data->rank - batch)
		return fail(c->e, LINNET_ESHAPE, "index tuples have %lld members; expected 1 to %lld", (long long)width,
		            (long long)(data->rank - batch));
	TRY(rank_limit(index->rank - 1 + data->rank - batch - width, c->e));
	out->rank = 0;
	for (int i = 0; i < index->rank - 1; i++)
		out->d[out->rank++] = index->d[i];
	for (int i = (int)(batch + width); i < data->rank; i++)
		out->d[out->rank++] = data->d[i];
	return LINNET_OK;
}

/* Product of d[from..to). */
static int64_t product(const int64_t *d, int from, int to)
{
	int64_t n = 1;

	for (int i = from; i < to; i++)
		n *= d[i];
	return n;
}

/* Where in the data tuple i of the index points: the axes it names begin at `first`. */
static enum linnet_code tuple_at(const struct tensor *index, int64_t i, const struct tensor *data, int first, int64_t *out,
                                 struct linnet_error *e)
{
	int64_t width = index->d[index->rank - 1], stride[MAX_RANK], v;

	strides(data->rank, data->d, stride);
	*out = 0;
	for (int64_t k = 0; k < width; k++) {
		TRY(index_at(index, i * width + k, data->d[first + k], &v, e));
		*out += v * stride[first + k];
	}
	return LINNET_OK;
}

static enum linnet_code gather_nd_kernel(struct kernel_call *c)
{
	int batch = (int)attr_get(c->op, c->attr, "batch_dims")->i;
	const struct tensor *x = c->in[0], *index = c->in[1];
	int64_t width = index->d[index->rank - 1], one = 1, from;
	int64_t batches = product(x->d, 0, batch), slice = product(x->d, batch + (int)width, x->rank);
	int64_t n = product(index->d, 0, index->rank - 1), block = product(x->d, batch, x->rank);

	for (int64_t i = 0; i < n; i++) {
		TRY(tuple_at(index, i, x, batch, &from, c->e));
		from += i / (n / batches) * block;
		copy_box(c->out[0], i * slice, &one, x, from, &one, 1, &slice);
	}
	return LINNET_OK;
}

/* ---- Order of elements ---- */

/* Real and imaginary parts by turns. */
static struct tensor complex_parts(const struct tensor *t)
{
	struct tensor parts = *t;

	parts.dt = t->dt == DT_COMPLEX64 ? DT_FLOAT : DT_DOUBLE;
	return parts;
}

/*
 * -1, 0 or 1: a total order of the elements of tensors. NaN is equal to itself and above all else, complex numbers
 * are ordered by real, then imaginary part, strings by bytes.
 */
static int order_double(double a, double b)
{
	if (isnan(a) || isnan(b))
		return isnan(a) - isnan(b);
	return (a > b) - (a < b);
}

/* Of element i of t and element j of u, which is of the same type. */
static int order(const struct tensor *t, int64_t i, const struct tensor *u, int64_t j)
{
	switch (dtype_class(t->dt)) {
	case CLASS_INT: {
		int64_t a = tensor_get_int(t, i), b = tensor_get_int(u, j);

		return (a > b) - (a < b);
	}
	case CLASS_UINT:
	case CLASS_BOOL: {
		uint64_t a = (uint64_t)tensor_get_int(t, i), b = (uint64_t)tensor_get_int(u, j);

		return (a > b) - (a < b);
	}
	case CLASS_STRING: {
		const struct text *a = (const struct text *)t->data + i, *b = (const struct text *)u->data + j;
		size_t n = a->n < b->n ? a->n : b->n;
		int r = n ? memcmp(a->p, b->p, n) : 0;

		return r ? (r > 0) - (r < 0) : (a->n > b->n) - (a->n < b->n);
	}
	case CLASS_COMPLEX: {
		const struct tensor p = complex_parts(t), q = complex_parts(u);
		int r = order(&p, 2 * i, &q, 2 * j);

		return r ? r : order(&p, 2 * i + 1, &q, 2 * j + 1);
	}
	default: return order_double(tensor_get(t, i), tensor_get(u, j));
	}
}

/* ---- ScatterElements, ScatterND ---- */

enum reduction { REDUCE_NONE, REDUCE_ADD, REDUCE_MUL, REDUCE_MIN, REDUCE_MAX };

static enum reduction reduction_of(const struct op *op, const struct attr *attr)
{
	static const char *const name[] = { "none", "add", "mul", "min", "max" };
	struct text s = attr_get(op, attr, "reduction")->s;

	for (int i = 1; i < 5; i++)
		if (s.n == strlen(name[i]) && !memcmp(s.p, name[i], s.n))
			return (enum reduction)i;
	return REDUCE_NONE;
}

static enum linnet_code check_reduction(struct shape_call *c)
{
	if (reduction_of(c->op, c->attr) == REDUCE_MUL && c->in[0]->dt == DT_STRING)
		return fail(c->e, LINNET_ETYPE, "strings cannot be multiplied");
	return LINNET_OK;
}

static enum linnet_code join_strings(struct text *a, const struct text *b, struct arena *arena, struct linnet_error *e)
{
	char *p;

	TRY_NEW(p, arena, a->n + b->n);
	memcpy(p, a->p ? a->p : "", a->n);
	memcpy(p + a->n, b->p ? b->p : "", b->n);
	*a = (struct text){ p, a->n + b->n };
	return LINNET_OK;
}

/* y[j] = f(y[j], u[i]). Strings are added by joining them; their order, and that of complex numbers, is that of order(). */
static enum linnet_code update(struct kernel_call *c, int64_t j, const struct tensor *u, int64_t i, enum reduction f)
{
	struct tensor *y = c->out[0];
	enum dtype_class class = dtype_class(y->dt);
	bool ordered = class == CLASS_COMPLEX || class == CLASS_STRING;

	if (f == REDUCE_NONE) {
		element_copy(y, j, u, i);
	} else if (ordered && (f == REDUCE_MIN || f == REDUCE_MAX)) {
		if (order(u, i, y, j) * (f == REDUCE_MIN ? -1 : 1) > 0)
			element_copy(y, j, u, i);
	} else if (class == CLASS_STRING) {
		return join_strings((struct text *)y->data + j, (const struct text *)u->data + i, c->scratch, c->e);
	} else if (class == CLASS_COMPLEX) {
		struct tensor p = complex_parts(y);
		const struct tensor q = complex_parts(u);
		double a = tensor_get(&p, 2 * j), b = tensor_get(&p, 2 * j + 1), x = tensor_get(&q, 2 * i), z = tensor_get(&q, 2 * i + 1);

		tensor_put(&p, 2 * j, f == REDUCE_ADD ? a + x : a * x - b * z);
		tensor_put(&p, 2 * j + 1, f == REDUCE_ADD ? b + z : a * z + b * x);
	} else if (class == CLASS_FLOAT) {
		double a = tensor_get(y, j), b = tensor_get(u, i);

		if (f == REDUCE_ADD)
			a += b;
		else if (f == REDUCE_MUL)
			a *= b;
		else if (isnan(b) || (f == REDUCE_MIN ? b < a : b > a)) /* a NaN stays: nothing compares with it */
			a = b;
		tensor_put(y, j, a);
	} else {
		uint64_t a = (uint64_t)tensor_get_int(y, j), b = (uint64_t)tensor_get_int(u, i);
		bool less = class == CLASS_INT ? (int64_t)b < (int64_t)a : b < a;

		if (f == REDUCE_ADD)
			a += b;
		else if (f == REDUCE_MUL)
			a *= b;
		else if (b != a && less == (f == REDUCE_MIN))
			a = b;
		tensor_put_int(y, j, (int64_t)a);
	}
	return LINNET_OK;
}

static enum linnet_code scatter_elements_shape(struct shape_call *c)
{
	const struct shape *index = &c->in[1]->shape, *updates = &c->in[2]->shape;
	int axis;

	TRY(check_elements(c, &axis));
	TRY(check_reduction(c));
	if (index->rank >= 0) {
		TRY(rank_check(c, 2, index->rank, index->rank));
		for (int i = 0; i < updates->rank; i++)
			TRY(length_join(c, "lengths of indices and updates", index->d[i], updates->d[i], NULL));
	}
	return shape_same(c);
}

/* y = x, then y[i, index[i, j, k], k] = f(that, u[i, j, k]) for axis 1 of three, in row-major order */
static enum linnet_code scatter_elements_kernel(struct kernel_call *c)
{
	enum reduction f = reduction_of(c->op, c->attr);
	const struct tensor *index = c->in[1];
	struct tensor *y = c->out[0];
	int64_t sy[MAX_RANK], at[MAX_RANK] = { 0 }, v;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, y->rank, &axis, c->e));
	tensor_copy(y, c->in[0]);
	strides(y->rank, y->d, sy);
	for (int64_t i = 0; i < index->n; i++) {
		int64_t to = 0;

		TRY(index_at(index, i, y->d[axis], &v, c->e));
		for (int k = 0; k < y->rank; k++)
			to += (k == axis ? v : at[k]) * sy[k];
		TRY(update(c, to, c->in[2], i, f));
		next_position(index->rank, index->d, at);
	}
	return LINNET_OK;
}

static enum linnet_code scatter_nd_shape(struct shape_call *c)
{
	const struct shape *data = &c->in[0]->shape, *index = &c->in[1]->shape, *updates = &c->in[2]->shape;

	TRY(rank_check(c, 0, 1, MAX_RANK));
	TRY(rank_check(c, 1, 1, MAX_RANK));
	TRY(check_reduction(c));
	if (data->rank >= 0 && index->rank >= 0 && dim_is_int(index->d[index->rank - 1])) {
		int64_t width = index->d[index->rank - 1];
		int rank;

		if (width < 1 || width > data->rank)
			return fail(c->e, LINNET_ESHAPE, "index tuples have %lld members; expected 1 to %d", (long long)width, data->rank);
		rank = index->rank - 1 + data->rank - (int)width;
		TRY(rank_check(c, 2, rank, rank));
		for (int i = 0; i < updates->rank; i++)
			TRY(length_join(c, "lengths of updates and what they replace", updates->d[i],
			                i < index->rank - 1 ? index->d[i] : data->d[i - (index->rank - 1) + width], NULL));
	}
	return shape_same(c);
}

static enum linnet_code scatter_nd_kernel(struct kernel_call *c)
{
	enum reduction f = reduction_of(c->op, c->attr);
	const struct tensor *index = c->in[1];
	struct tensor *y = c->out[0];
	int64_t n = product(index->d, 0, index->rank - 1), to;
	int64_t slice = product(y->d, (int)index->d[index->rank - 1], y->rank);

	tensor_copy(y, c->in[0]);
	for (int64_t i = 0; i < n; i++) {
		TRY(tuple_at(index, i, y, 0, &to, c->e));
		for (int64_t k = 0; k < slice; k++)
			TRY(update(c, to + k, c->in[2], i * slice + k, f));
	}
	return LINNET_OK;
}

/* ---- TensorScatter ---- */

static enum linnet_code tensor_scatter_shape(struct shape_call *c)
{
	const struct shape *past = &c->in[0]->shape, *new = &c->in[1]->shape;
	int axis;

	TRY(rank_check(c, 0, 2, MAX_RANK));
	if (c->nin > 2)
		TRY(rank_check(c, 2, 1, 1));
	if (past->rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, past->rank, &axis, c->e));
	if (axis == 0)
		return fail(c->e, LINNET_EATTR, "axis is that of the batch");
	TRY(rank_check(c, 1, past->rank, past->rank));
	for (int i = 0; i < new->rank; i++)
		if (i != axis)
			TRY(length_join(c, "lengths of past_cache and update", past->d[i], new->d[i], NULL));
	if (new->rank >= 0 && dim_is_int(past->d[axis]) && dim_is_int(new->d[axis]) && new->d[axis] > past->d[axis])
		return fail(c->e, LINNET_ESHAPE, "update has length %lld on axis %d; the cache has %lld", (long long)new->d[axis],
		            axis, (long long)past->d[axis]);
	if (c->nin > 2 && c->in[2] && c->in[2]->shape.rank == 1)
		TRY(length_join(c, "batch sizes of past_cache and write_indices", past->d[0], c->in[2]->shape.d[0], NULL));
	return shape_same(c);
}

/* present = past, then present[b, ..., w[b] + s, ...] = update[b, ..., s, ...]; circular: modulo the cache's length. */
static enum linnet_code tensor_scatter_kernel(struct kernel_call *c)
{
	bool circular = attr_get(c->op, c->attr, "mode")->s.n == strlen("circular");
	const struct tensor *u = c->in[1], *write = c->nin > 2 ? c->in[2] : NULL;
	struct tensor *y = c->out[0];
	int64_t su[MAX_RANK], sy[MAX_RANK], d[MAX_RANK], length, n;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, y->rank, &axis, c->e));
	tensor_copy(y, c->in[0]);
	strides(u->rank, u->d, su);
	strides(y->rank, y->d, sy);
	memcpy(d, u->d, sizeof d);
	d[0] = 1;
	length = y->d[axis];
	n = u->d[axis];
	for (int64_t b = 0; b < u->d[0] && u->n; b++) {
		int64_t w = write ? tensor_get_int(write, b) : 0;

		if (!circular && (w < 0 || w > length - n))
			return fail(c->e, LINNET_EVALUE, "write index %lld of sample %lld is not in [0, %lld]", (long long)w,
			            (long long)b, (long long)(length - n));
		w = (w % length + length) % length;
		d[axis] = w + n > length ? length - w : n;
		copy_box(y, b * sy[0] + w * sy[axis], sy, u, b * su[0], su, u->rank, d);
		d[axis] = n - d[axis];
		copy_box(y, b * sy[0], sy, u, b * su[0] + (n - d[axis]) * su[axis], su, u->rank, d);
	}
	return LINNET_OK;
}

/* What is being sorted: items are runs of `count` elements of t, element k of item i at position(i, k). */
struct items {
	const struct tensor *t;
	int64_t base;          /* of item 0's first element */
	int64_t stride;        /* from item to item */
	int64_t count;         /* elements an item */
	int64_t inner, outer;  /* element k of an item is at k % inner + k / inner * outer */
	bool falling;
};

static int order_items(const struct items *x, int64_t i, int64_t j)
{
	int r = 0;

	for (int64_t k = 0; k < x->count && !r; k++) {
		int64_t at = x->base + k % x->inner + k / x->inner * x->outer;

		r = order(x->t, at + i * x->stride, x->t, at + j * x->stride);
	}
	return x->falling ? -r : r;
}

/* Sort at[0..n) by the items it names; equal ones keep their order. room: n more. Merge sort from pieces of 1 up. */
static void sort_items(const struct items *x, int64_t *at, int64_t *room, int64_t n)
{
	for (int64_t width = 1; width < n; width *= 2) {
		for (int64_t from = 0; from < n; from += 2 * width) {
			int64_t mid = from + width < n ? from + width : n, to = mid + width < n ? mid + width : n;
			int64_t a = from, b = mid;

			for (int64_t k = from; k < to; k++)
				room[k] = a < mid && (b == to || order_items(x, at[a], at[b]) <= 0) ? at[a++] : at[b++];
		}
		memcpy(at, room, (size_t)n * sizeof *at);
	}
}

/* ---- TopK ---- */

static enum linnet_code topk_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	dim k;
	int axis, n;

	TRY(type_dims(c->in[1], &k, 1, &n, c->e));
	if (n == 0)
		return fail(c->e, LINNET_ESHAPE, "K is empty; expected 1 element");
	TRY(rank_check(c, 0, 1, MAX_RANK));
	c->out[1].shape = c->out[0].shape = *in;
	if (in->rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, in->rank, &axis, c->e));
	if (n < 0)
		k = DIM_NONE;
	if (dim_is_int(k) && (k < 0 || (dim_is_int(in->d[axis]) && k > in->d[axis])))
		return fail(c->e, LINNET_EVALUE, "K is %lld; axis %d has length %lld", (long long)k, axis,
		            dim_is_int(in->d[axis]) ? (long long)in->d[axis] : -1);
	c->out[1].shape.d[axis] = c->out[0].shape.d[axis] = k;
	return LINNET_OK;
}

static enum linnet_code topk_kernel(struct kernel_call *c)
{
	struct linnet_error *e = c->e;
	const struct tensor *x = c->in[0];
	int64_t outer, inner, length, k = tensor_get_int(c->in[1], 0), *at, *room;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, e));
	outer = product(x->d, 0, axis);
	inner = product(x->d, axis + 1, x->rank);
	length = x->d[axis];
	TRY_NEW(at, c->scratch, length);
	TRY_NEW(room, c->scratch, length);
	for (int64_t o = 0; o < outer; o++)
		for (int64_t i = 0; i < inner; i++) {
			struct items items = {
				.t = x, .base = o * length * inner + i, .stride = inner, .count = 1, .inner = 1, .outer = 1,
				.falling = attr_get(c->op, c->attr, "largest")->i,
			};

			for (int64_t j = 0; j < length; j++)
				at[j] = j;
			sort_items(&items, at, room, length);
			for (int64_t j = 0; j < k; j++) {
				int64_t to = (o * k + j) * inner + i;

				if (c->out[0])
					element_copy(c->out[0], to, x, items.base + at[j] * inner);
				if (c->nout > 1 && c->out[1])
					tensor_put_int(c->out[1], to, at[j]);
			}
		}
	return LINNET_OK;
}

/* ---- OneHot ---- */

static enum linnet_code onehot_axis(const struct op *op, const struct attr *attr, int rank, int *axis, struct linnet_error *e)
{
	return axis_check(attr_get(op, attr, "axis")->i, rank + 1, axis, e);
}

static enum linnet_code onehot_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	struct shape *out = &c->out[0].shape;
	dim depth;
	int n, axis;

	TRY(type_dims(c->in[1], &depth, 1, &n, c->e));
	if (n == 0)
		return fail(c->e, LINNET_ESHAPE, "depth is empty; expected 1 element");
	if (n < 0)
		depth = DIM_NONE;
	if (dim_is_int(depth) && depth < 0)
		return fail(c->e, LINNET_EVALUE, "depth is %lld; it must not be negative", (long long)depth);
	TRY(rank_check(c, 2, 1, 1));
	if (c->in[2]->shape.rank == 1 && dim_is_int(c->in[2]->shape.d[0]) && c->in[2]->shape.d[0] != 2)
		return fail(c->e, LINNET_ESHAPE, "values has %lld elements; expected off and on", (long long)c->in[2]->shape.d[0]);
	if (in->rank < 0)
		return LINNET_OK;
	TRY(rank_limit(in->rank + 1, c->e));
	TRY(onehot_axis(c->op, c->attr, in->rank, &axis, c->e));
	out->rank = in->rank + 1;
	for (int i = 0; i < out->rank; i++)
		out->d[i] = i == axis ? depth : in->d[i - (i > axis)];
	return LINNET_OK;
}

/* y[a, j, b] = values[1] where index[a, b] is j or j - depth, else values[0] */
static enum linnet_code onehot_kernel(struct kernel_call *c)
{
	const struct tensor *index = c->in[0];
	struct tensor *y = c->out[0];
	int64_t inner, depth = tensor_get_int(c->in[1], 0);
	int axis;

	TRY(onehot_axis(c->op, c->attr, index->rank, &axis, c->e));
	inner = product(index->d, axis, index->rank);
	for (int64_t i = 0; i < y->n; i++)
		element_copy(y, i, c->in[2], 0);
	for (int64_t i = 0; i < index->n; i++) {
		int64_t j = tensor_get_int(index, i);

		if (j >= -depth && j < depth)
			element_copy(y, (i / inner * depth + (j < 0 ? j + depth : j)) * inner + i % inner, c->in[2], 1);
	}
	return LINNET_OK;
}

/* ---- Compress, NonZero, Unique: lengths that depend on values ---- */

static enum linnet_code compress_shape(struct shape_call *c)
{
	const struct attr *given = attr_get(c->op, c->attr, "axis");
	const struct shape *in = &c->in[0]->shape;
	const struct tensor *condition = c->in[1]->value;
	dim n = DIM_NONE, length;
	int axis = 0;

	TRY(rank_check(c, 0, 1, MAX_RANK));
	TRY(rank_check(c, 1, 1, 1));
	if (condition)
		n = 0;
	for (int64_t i = 0; condition && i < condition->n; i++)
		n += tensor_get_int(condition, i) != 0;
	if (!attr_given(given))
		c->out[0].shape = (struct shape){ .rank = 1, .d = { n } };
	if (in->rank < 0)
		return LINNET_OK;
	if (attr_given(given)) {
		TRY(axis_check(given->i, in->rank, &axis, c->e));
		c->out[0].shape = *in;
		c->out[0].shape.d[axis] = n;
		length = in->d[axis];
	} else {
		length = shape_count(c->dims, in, 0, in->rank);
	}
	if (condition && dim_is_int(length) && condition->n > length)
		return fail(c->e, LINNET_ESHAPE, "condition has %lld elements for %lld to choose from", (long long)condition->n,
		            (long long)length);
	return LINNET_OK;
}

static enum linnet_code compress_kernel(struct kernel_call *c)
{
	const struct attr *given = attr_get(c->op, c->attr, "axis");
	const struct tensor *x = c->in[0], *condition = c->in[1];
	int64_t outer = 1, inner = 1, length = x->n, kept = c->out[0]->n, n = 0;
	int axis = 0;

	if (attr_given(given)) {
		TRY(axis_check(given->i, x->rank, &axis, c->e));
		outer = product(x->d, 0, axis);
		inner = product(x->d, axis + 1, x->rank);
		length = x->d[axis];
		kept = c->out[0]->d[axis];
	}
	const int64_t d[2] = { outer, inner }, from[2] = { length * inner, 1 }, to[2] = { kept * inner, 1 };

	for (int64_t i = 0; i < condition->n; i++)
		if (tensor_get_int(condition, i))
			copy_box(c->out[0], n++ * inner, to, x, i * inner, from, 2, d);
	return LINNET_OK;
}

static bool nonzero(const struct tensor *t, int64_t i)
{
	switch (dtype_class(t->dt)) {
	case CLASS_STRING: return ((const struct text *)t->data)[i].n;
	case CLASS_COMPLEX:
		return t->dt == DT_COMPLEX64 ? ((const float *)t->data)[2 * i] != 0 || ((const float *)t->data)[2 * i + 1] != 0
			: ((const double *)t->data)[2 * i] != 0 || ((const double *)t->data)[2 * i + 1] != 0;
	default: return tensor_get(t, i) != 0;
	}
}

/* [rank, number of elements that are not 0] */
static enum linnet_code nonzero_shape(struct shape_call *c)
{
	const struct tensor *x = c->in[0]->value;
	dim n = x ? 0 : DIM_NONE;

	for (int64_t i = 0; x && i < x->n; i++)
		n += nonzero(x, i);
	c->out[0].shape = (struct shape){ .rank = 2, .d = { c->in[0]->shape.rank < 0 ? DIM_NONE : c->in[0]->shape.rank, n } };
	return LINNET_OK;
}

static enum linnet_code nonzero_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t at[MAX_RANK] = { 0 }, n = 0;

	for (int64_t i = 0; i < x->n; i++) {
		if (nonzero(x, i)) {
			for (int k = 0; k < x->rank; k++)
				tensor_put_int(c->out[0], k * c->out[0]->d[1] + n, at[k]);
			n++;
		}
		next_position(x->rank, x->d, at);
	}
	return LINNET_OK;
}

/* The different items of a tensor: its elements, or its slices along an axis. */
struct distinct {
	struct items items;
	int64_t n;        /* items */
	int64_t count;    /* different ones */
	int64_t *first;   /* first occurrence of each, in the order of the output */
	int64_t *which;   /* of each item, its number in `first` */
	int64_t *times;   /* how often each occurs */
};

static enum linnet_code distinct_find(const struct op *op, const struct attr *attr, const struct tensor *x, struct arena *a,
                                      struct distinct *d, struct linnet_error *e)
{
	const struct attr *given = attr_get(op, attr, "axis");
	bool sorted = attr_get(op, attr, "sorted")->i;
	int64_t *at, *room, *name;
	int axis;

	*d = (struct distinct){ .items = { .t = x, .stride = 1, .count = 1, .inner = 1, .outer = 1 }, .n = x->n };
	if (attr_given(given)) {
		TRY(axis_check(given->i, x->rank, &axis, e));
		d->n = x->d[axis];
		d->items.inner = d->items.stride = product(x->d, axis + 1, x->rank);
		d->items.outer = d->items.inner * d->n;
		d->items.count = d->items.inner * product(x->d, 0, axis);
	}
	TRY_NEW(at, a, d->n);
	TRY_NEW(room, a, d->n);
	TRY_NEW(name, a, d->n);
	TRY_NEW(d->first, a, d->n);
	TRY_NEW(d->which, a, d->n);
	TRY_NEW(d->times, a, d->n);
	for (int64_t i = 0; i < d->n; i++)
		at[i] = i;
	sort_items(&d->items, at, room, d->n);
	/* equal items are neighbours now, the first occurrence in front */
	for (int64_t i = 0; i < d->n; i++) {
		if (!i || order_items(&d->items, at[i - 1], at[i]))
			d->first[d->count++] = at[i];
		d->which[at[i]] = d->count - 1;
	}
	if (!sorted) {
		/* number them again as they come */
		int64_t n = 0;

		memcpy(room, d->which, (size_t)d->n * sizeof *room);
		for (int64_t i = 0; i < d->n; i++) {
			if (d->first[room[i]] == i)
				name[room[i]] = n++;
			d->which[i] = name[room[i]];
		}
		for (int64_t i = d->n - 1; i >= 0; i--)
			d->first[d->which[i]] = i;
	}
	for (int64_t i = 0; i < d->n; i++)
		d->times[d->which[i]]++;
	return LINNET_OK;
}

static enum linnet_code unique_shape(struct shape_call *c)
{
	const struct attr *given = attr_get(c->op, c->attr, "axis");
	const struct shape *in = &c->in[0]->shape;
	dim count = DIM_NONE, n;
	int axis = 0;

	if (c->in[0]->value) {
		struct arena *a = arena_new();
		enum linnet_code code;
		struct distinct d;

		if (!a)
			return fail_mem(c->e);
		code = distinct_find(c->op, c->attr, c->in[0]->value, a, &d, c->e);
		count = d.count;
		arena_free(a);
		TRY(code);
	}
	n = shape_count(c->dims, in, 0, MAX_RANK);
	if (!attr_given(given)) {
		c->out[0].shape = (struct shape){ .rank = 1, .d = { count } };
	} else if (in->rank >= 0) {
		TRY(axis_check(given->i, in->rank, &axis, c->e));
		c->out[0].shape = *in;
		c->out[0].shape.d[axis] = count;
		n = in->d[axis];
	}
	for (int i = 1; i < c->nout; i++)
		c->out[i].shape = (struct shape){ .rank = 1, .d = { i == 2 ? n : count } };
	return LINNET_OK;
}

static enum linnet_code unique_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	struct distinct d;

	TRY(distinct_find(c->op, c->attr, x, c->scratch, &d, c->e));
	const int64_t *from[] = { NULL, d.first, d.which, d.times };

	for (int64_t i = 0; y && i < d.count; i++)
		for (int64_t k = 0; k < d.items.count; k++) {
			int64_t row = k / d.items.inner, column = k % d.items.inner;

			element_copy(y, (row * d.count + i) * d.items.stride + column, x,
			             row * d.items.outer + d.first[i] * d.items.stride + column);
		}
	for (int o = 1; o < c->nout; o++)
		for (int64_t i = 0; c->out[o] && i < c->out[o]->n; i++)
			tensor_put_int(c->out[o], i, from[o][i]);
	return LINNET_OK;
}

/* The numbers of the new entries as a tensor with one axis longer than 1; then where they go, as indices of the update's shape. */
#define SCATTER_STEPS                                                                              \
	"  ps = Shape (past_cache)\n"                                                              \
	"  us = Shape (update)\n"                                                                  \
	"  rank = Shape (us)\n"                                                                    \
	"  ones = ConstantOfShape <value = int64[1] {1}> (rank)\n"                                 \
	"  a0 = Constant <value_int: int = @axis> ()\n"                                            \
	"  one = Constant <value_ints = [1]> ()\n"                                                 \
	"  a = Reshape (a0, one)\n"                                                                \
	"  length = Gather (ps, a)\n"                                                              \
	"  n = Gather (us, a)\n"                                                                   \
	"  n0 = Gather (us, a0)\n"                                                                 \
	"  zero = Constant <value_int = 0> ()\n"                                                   \
	"  unit = Constant <value_int = 1> ()\n"                                                   \
	"  steps = Range (zero, n0, unit)\n"                                                       \
	"  line = ScatterElements (ones, a, n)\n"                                                  \
	"  step = Reshape <allowzero = 1> (steps, line)\n"
#define SCATTER_AT                                                                                 \
	"  index = Expand (at, us)\n"                                                              \
	"  present_cache = ScatterElements <axis: int = @axis> (past_cache, index, update)\n"

static const struct op rows[] = {
	{
		.name = "Gather", .since = 1,
		.doc = "Slices of the data along one axis, in the order the indices name them.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "indices", T1 }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT }),
		.types = { [T] = COMMON, [T1] = INDICES },
		.agree = AGREE_BITS,
		.write_grad = grad_gather,
		.shape = gather_shape, .kernel = gather_kernel, .fast = FAST(&fast_gather),
	},
	{
		.name = "GatherElements", .since = 11,
		.doc = "Elements of the data whose position along one axis the indices say and along the others is the indices' own.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "indices", T1 }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT }),
		.types = { [T] = COMMON, [T1] = INDICES },
		.agree = AGREE_BITS,
		.grad = "{" REAL("zero", "0.0") "  shape = Shape (data)\n"
		        "  zeros = Expand (zero, shape)\n"
		        "  d_data = ScatterElements <axis: int = @axis, reduction = \"add\"> (zeros, indices, d_output) }",
		.shape = gather_elements_shape, .kernel = gather_elements_kernel, .fast = FAST(&fast_gather_elements),
	},
	{
		.name = "GatherND", .since = 11,
		.doc = "Elements or slices of the data at the places the last axis of the indices names, after `batch_dims` axes in common.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "indices", T1 }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "batch_dims", .kind = ATTR_INT, .since = 12 }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.grad = GRAD_OF_PICKING("data", "output", "GatherND <batch_dims: int = @batch_dims> (all, indices)"),
		.shape = gather_nd_shape, .kernel = gather_nd_kernel, .fast = FAST(&fast_gather_nd),
	},
	{
		.name = "ScatterElements", .since = 11,
		.doc = "The data with elements replaced by, or reduced with, the updates, each at the indices' own position but along "
		       "one axis, where the index says.",
		.in = IN({ "data", T, FLOW_KINKED }, { "indices", T1 }, { "updates", T, FLOW_KINKED }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT },
		              { .name = "reduction", .kind = ATTR_STRING, .s = "none", .oneof = "none|add|mul|min|max", .since = 16 }),
		.types = { [T] = COMMON, [T1] = INDICES },
		.agree = AGREE_ROUND,
		.write_grad = grad_scatter,
		.shape = scatter_elements_shape, .kernel = scatter_elements_kernel, .fast = FAST(&fast_scatter_elements),
	},
	{
		.name = "Scatter", .since = 9,
		.doc = "What ScatterElements was called before opset 11.",
		.in = IN({ "data", T }, { "indices", T1 }, { "updates", T }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT }),
		.types = { [T] = COMMON & ~SET(BFLOAT16), [T1] = INDICES },
		.lower = "{ output = ScatterElements <axis: int = @axis> (data, indices, updates) }",
	},
	{
		.name = "ScatterND", .since = 11,
		.doc = "The data with elements or slices replaced by, or reduced with, the updates at the places the last axis of the "
		       "indices names.",
		.in = IN({ "data", T, FLOW_KINKED }, { "indices", T1 }, { "updates", T, FLOW_KINKED }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "reduction", .kind = ATTR_STRING, .s = "none", .oneof = "none|add|mul|min|max", .since = 16 }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_ROUND,
		.write_grad = grad_scatter,
		.shape = scatter_nd_shape, .kernel = scatter_nd_kernel, .fast = FAST(&fast_scatter_nd),
	},
	{
		.name = "TensorScatter", .since = 24,
		.doc = "A cache with new entries written from each sample's index on, in a circle if so told.",
		.in = IN({ "past_cache", T, FLOW_LINEAR }, { "update", T, FLOW_LINEAR }, { "write_indices", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "present_cache", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = -2 },
		              { .name = "mode", .kind = ATTR_STRING, .s = "linear", .oneof = "linear|circular" }),
		.types = { [T] = STORED & ~(SET(INT2) | SET(UINT2)), [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = tensor_scatter_shape, .kernel = tensor_scatter_kernel,
		.body = "?write_indices {" SCATTER_STEPS
		        "  minus = Constant <value_ints = [-1]> ()\n"
		        "  first = Constant <value_ints = [0]> ()\n"
		        "  batch = ScatterElements (ones, first, minus)\n"
		        "  write = Reshape (write_indices, batch)\n"
		        "  sum = Add (write, step)\n"
		        "  at = Mod (sum, length)\n" SCATTER_AT "}\n"
		        "{" SCATTER_STEPS "  at = Identity (step)\n" SCATTER_AT "}",
	},
	{
		.name = "TopK", .since = 10,
		.doc = "The K largest or smallest elements along one axis, in order, and their indices; of equal ones the first comes first.",
		.in = IN({ "X", T, FLOW_KINKED }, { "K", T1 }),
		.out = OUT({ "Values", T }, { "Indices", T1 }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = -1 },
		              { .name = "largest", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1, .since = 11 },
		              { .name = "sorted", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1, .since = 11 }),
		.types = { [T] = NUMBERS, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.write_grad = grad_topk,
		.shape = topk_shape, .kernel = topk_kernel, .fast = FAST(&fast_topk),
	},
	{
		.name = "TopK", .since = 1,
		.in = IN({ "X", T }),
		.out = OUT({ "Values", T }, { "Indices", T1 }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = -1 },
		              { .name = "k", .kind = ATTR_INT, .flags = REQUIRED, .input = 1 }),
		.types = { [T] = NUMBERS, [T1] = SET(INT64) },
	},
	{
		.name = "OneHot", .since = 9,
		.doc = "A new axis of length `depth` with the on value where the index says and the off value elsewhere.",
		.in = IN({ "indices", T1 }, { "depth", T2 }, { "values", T3, FLOW_LINEAR }),
		.out = OUT({ "output", T3 }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = -1 }),
		.types = { [T1] = NUMBERS & ~SET(BFLOAT16), [T2] = NUMBERS & ~SET(BFLOAT16), [T3] = COMMON },
		.agree = AGREE_BITS,
		.grad = "{ off_on = Constant <value = double[2] {0.0, 1.0}> ()\n"
		        "  on = OneHot <axis: int = @axis> (indices, depth, off_on)\n"
		        "  lit = Mul (d_output, on)\n"
		        "  flat = Constant <value = int64[1] {-1}> ()\n"
		        "  l = ReduceSum <keepdims = 0> (lit)\n"
		        "  a = ReduceSum <keepdims = 0> (d_output)\n"
		        "  o = Sub (a, l)\n"
		        "  first = Reshape (o, flat)\n"
		        "  second = Reshape (l, flat)\n"
		        "  d_values = Concat <axis = 0> (first, second) }",
		.shape = onehot_shape, .kernel = onehot_kernel,
	},
	{
		.name = "Compress", .since = 9,
		.doc = "The elements, or slices along one axis, for which the condition holds.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "condition", T1 }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .flags = OPTIONAL }),
		.types = { [T] = COMMON, [T1] = SET(BOOL) },
		.agree = AGREE_BITS,
		.grad = GRAD_OF_PICKING("input", "output", "Compress <axis: int = @axis> (all, condition)"),
		.shape = compress_shape, .kernel = compress_kernel,
	},
	{
		.name = "NonZero", .since = 9,
		.doc = "The positions of the elements that are not zero, one a column, in row-major order.",
		.in = IN({ "X", T }),
		.out = OUT({ "Y", T1 }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = nonzero_shape, .kernel = nonzero_kernel,
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.name = "Unique", .since = 11,
		.doc = "The different elements, or slices along one axis, sorted or as they come; where each occurs first, which of them "
		       "every element is, and how often each occurs.",
		.in = IN({ "X", T, FLOW_KINKED }),
		.out = OUT({ "Y", T }, { "indices", T1, FLOW_NONE, OPTIONAL }, { "inverse_indices", T1, FLOW_NONE, OPTIONAL },
		           { "counts", T1, FLOW_NONE, OPTIONAL }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .flags = OPTIONAL },
		              { .name = "sorted", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = unique_shape, .kernel = unique_kernel,
		.write_grad = grad_unique,
		.fuzz = { .shapes = FUZZ_SAME },
	},
};

const struct op_family index_ops = FAMILY("index", rows);
