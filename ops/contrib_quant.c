/*
 * Operators of com.microsoft on quantised numbers: shape functions, reference kernels, then rows.
 *
 * Most are another operator on the numbers that the quantised ones stand for, quantised again: that operator's kernel computes them.
 * onnxruntime rounds to float on the way, in an order of its own; where a result lies within that of half a step it may be the other
 * neighbour.
 */
#include <math.h>
#include <string.h>

#include "ops/contrib.h"
#include "ops/fast/fast.h"
#include "ops/quant.h"

/* ---- Through another operator ---- */

/*
 * A row that another operator computes: which inputs are its operands, what quantises its output. -1: none. Either each step is
 * rounded to float, as DequantizeLinear, the operator and QuantizeLinear would, or none is, and the zero point is added before rounding,
 * so that ties go to even results; that is how onnxruntime does the one and the other.
 */
enum steps { STEPWISE, ZERO_FIRST };
struct through {
	const char *name;
	enum steps steps;
	int n;
	struct {
		int x, scale, zero;
	} operand[3];
	int scale, zero;
};

/* Axes [N, spatial..., C] in the order [N, C, spatial...], or back. */
static void channel_order(int rank, bool back, int p[MAX_RANK])
{
	for (int i = 0; i < rank; i++)
		p[i] = i == 0 ? 0 : back ? (i == rank - 1 ? 1 : i + 1) : i == 1 ? rank - 1 : i - 1;
}

static struct shape channels_moved(const struct shape *s, bool back)
{
	struct shape out = *s;
	int p[MAX_RANK];

	if (s->rank < 2)
		return out;
	channel_order(s->rank, back, p);
	for (int i = 0; i < s->rank; i++)
		out.d[i] = s->d[p[i]];
	return out;
}

static enum linnet_code move_channels(struct kernel_call *c, const struct tensor *x, bool back, struct tensor **out)
{
	struct shape s = shape_of(x), moved = channels_moved(&s, back);
	int64_t from[MAX_RANK], stride[MAX_RANK], to[MAX_RANK];
	int p[MAX_RANK];

	TRY(tensor_new(c->scratch, x->dt, x->rank, moved.d, out, c->e));
	channel_order(x->rank, back, p);
	strides(x->rank, x->d, stride);
	strides(x->rank, moved.d, to);
	for (int i = 0; i < x->rank; i++)
		from[i] = stride[p[i]];
	copy_box(*out, 0, to, x, 0, from, x->rank, moved.d);
	return LINNET_OK;
}

/* The shape function of another row, on inputs whose first may have its channels last; so has the output then. */
static enum linnet_code shape_moved(struct shape_call *c, const char *name, int n, const int *from, bool last)
{
	struct shape_call inner = *c;
	const struct type *in[9];
	struct type x = *c->in[0];

	if (!last)
		return quant_shape(c, NULL, name, n, from);
	x.shape = channels_moved(&x.shape, false);
	memcpy(in, c->in, (size_t)c->nin * sizeof *in);
	in[0] = &x;
	inner.in = in;
	TRY(quant_shape(&inner, NULL, name, n, from));
	c->out[0].shape = channels_moved(&c->out[0].shape, true);
	return LINNET_OK;
}

static enum linnet_code scalars_check(const struct shape_call *c, int from, int to)
{
	for (int i = from; i <= to; i++)
		TRY(scalar_check(c, i));
	return LINNET_OK;
}

static enum linnet_code shape_through(struct shape_call *c)
{
	const struct through *t = c->op->param;
	int from[3];

	for (int i = 0; i < t->n; i++) {
		from[i] = t->operand[i].x;
		if (t->operand[i].scale >= 0)
			TRY(scalars_check(c, t->operand[i].scale, t->operand[i].zero));
	}
	TRY(scalars_check(c, t->scale, t->zero));
	return shape_moved(c, t->name, t->n, from, int_attr(c, "channels_last"));
}

static const struct tensor *maybe(const struct kernel_call *c, int i) { return i < 0 ? NULL : in_tensor(c, i); }

static enum linnet_code rounded_to_float(struct kernel_call *c, const struct tensor *x, struct tensor **out)
{
	struct tensor *y;

	TRY(tensor_new(c->scratch, DT_FLOAT, x->rank, x->d, &y, c->e));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(y, i, tensor_get(x, i));
	*out = y;
	return LINNET_OK;
}

static enum linnet_code through(struct kernel_call *c)
{
	const struct through *t = c->op->param;
	bool last = attr_get(c->op, c->attr, "channels_last")->i != 0;
	struct shape s = shape_of(c->out[0]);
	const struct tensor *in[3];
	struct tensor *x, *y;
	double scale, zero;

	for (int i = 0; i < t->n; i++) {
		in[i] = c->in[t->operand[i].x];
		if (t->operand[i].scale < 0)
			continue;
		TRY(quant_centre(c, in[i], maybe(c, t->operand[i].zero), maybe(c, t->operand[i].scale), 0, &x));
		if (t->steps == STEPWISE)
			TRY(rounded_to_float(c, x, &x));
		if (last)
			TRY(move_channels(c, x, false, &x));
		in[i] = x;
	}
	if (last)
		s = channels_moved(&s, false);
	TRY(quant_run(c, t->steps == STEPWISE ? DT_FLOAT : DT_DOUBLE, t->name, t->n, in, s.rank, s.d, &y));
	if (last)
		TRY(move_channels(c, y, true, &y));
	if (t->steps == STEPWISE) {
		quant_store(c->out[0], y, maybe(c, t->scale), maybe(c, t->zero));
		return LINNET_OK;
	}
	scale = tensor_get(c->in[t->scale], 0);
	zero = maybe(c, t->zero) ? tensor_get(c->in[t->zero], 0) : 0;
	for (int64_t i = 0; i < y->n; i++)
		quant_put(c->out[0], i, tensor_get(y, i) / scale + zero, 0);
	return LINNET_OK;
}

static const struct through add_through = { "Add", ZERO_FIRST, 2, { { 0, 1, 2 }, { 3, 4, 5 } }, 6, 7 };
static const struct through mul_through = { "Mul", ZERO_FIRST, 2, { { 0, 1, 2 }, { 3, 4, 5 } }, 6, 7 };
static const struct through sigmoid_through = { "Sigmoid", STEPWISE, 1, { { 0, 1, 2 } }, 3, 4 };
static const struct through leaky_through = { "LeakyRelu", STEPWISE, 1, { { 0, 1, 2 } }, 3, 4 };
static const struct through pool_through = { "AveragePool", ZERO_FIRST, 1, { { 0, 1, 2 } }, 3, 4 };
static const struct through global_through = { "GlobalAveragePool", STEPWISE, 1, { { 0, 1, 2 } }, 3, 4 };
static const struct through where_through = { "Where", STEPWISE, 3, { { 0, -1, -1 }, { 1, 2, 3 }, { 4, 5, 6 } }, 7, 8 };

/* Axes of x: [N, spatial..., C] */
static enum linnet_code shape_nhwc_max(struct shape_call *c)
{
	return shape_moved(c, "MaxPool", 1, (int[]){ 0 }, true);
}

static enum linnet_code nhwc_max(struct kernel_call *c)
{
	struct shape s = shape_of(c->out[0]);
	struct tensor *x, *y;

	s = channels_moved(&s, false);
	TRY(move_channels(c, c->in[0], false, &x));
	TRY(tensor_new(c->scratch, x->dt, s.rank, s.d, &y, c->e));
	TRY(quant_call(c, NULL, "MaxPool", 1, (const struct tensor *[]){ x }, 1, &y));
	TRY(move_channels(c, y, true, &y));
	tensor_copy(c->out[0], y);
	return LINNET_OK;
}

/* ---- Concatenation ---- */

/* Threes from input 2 on: numbers, scale, zero point. */
static enum linnet_code shape_qconcat(struct shape_call *c)
{
	const struct shape first = in_shape(c, 2);
	struct shape *s = &c->out[0].shape;
	int axis;

	if ((c->nin - 2) % 3)
		return fail(c->e, LINNET_EMODEL, "%d inputs behind Y_zero_point; expected a multiple of 3", c->nin - 2);
	TRY(scalars_check(c, 0, 1));
	for (int i = 2; i < c->nin; i += 3) {
		if (c->in[i] && c->in[i]->dt != DT_UNDEFINED && c->in[1]->dt != DT_UNDEFINED && c->in[i]->dt != c->in[1]->dt)
			return fail(c->e, LINNET_ETYPE, "input %d has element type %s; expected %s as the output", i, dtype_name(c->in[i]->dt),
			            dtype_name(c->in[1]->dt));
		TRY(scalars_check(c, i + 1, i + 2));
		TRY(rank_check(c, i, first.rank < 0 ? 1 : first.rank, first.rank < 0 ? MAX_RANK : first.rank));
	}
	if (first.rank < 0)
		return LINNET_OK;
	TRY(axis_check(int_attr(c, "axis"), first.rank, &axis, c->e));
	*s = first;
	for (int i = 5; i < c->nin; i += 3) {
		const struct shape x = in_shape(c, i);

		for (int k = 0; k < first.rank; k++) {
			dim d = x.rank < 0 ? DIM_NONE : x.d[k];

			if (k == axis)
				s->d[k] = dim_add(c->dims, s->d[k], d);
			else
				TRY(length_join(c, "lengths beside the axis", s->d[k], d, &s->d[k]));
		}
	}
	return LINNET_OK;
}

static enum linnet_code qconcat(struct kernel_call *c)
{
	struct tensor *y = c->out[0], *x, *q;
	int64_t axis = attr_get(c->op, c->attr, "axis")->i, to[MAX_RANK], from[MAX_RANK], at = 0;

	axis += axis < 0 ? y->rank : 0;
	strides(y->rank, y->d, to);
	for (int i = 2; i < c->nin; i += 3) {
		TRY(quant_centre(c, c->in[i], c->in[i + 2], c->in[i + 1], 0, &x));
		TRY(rounded_to_float(c, x, &x));
		TRY(tensor_new(c->scratch, y->dt, x->rank, x->d, &q, c->e));
		quant_store(q, x, c->in[0], c->in[1]);
		strides(q->rank, q->d, from);
		copy_box(y, at * to[axis], to, q, 0, from, q->rank, q->d);
		at += q->d[axis];
	}
	return LINNET_OK;
}

/* ---- Softmax ---- */

static enum linnet_code shape_qsoftmax(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	int axis;

	TRY(scalars_check(c, 1, 4));
	if (x->rank >= 0)
		TRY(axis_check(int_attr(c, "axis"), x->rank, &axis, c->e));
	return shape_same(c);
}

/* Up to opset 12 the exponentials of all axes from `axis` on sum to 1, later those along that axis. As onnxruntime computes it, 1 is a whole number of steps. */
static enum linnet_code qsoftmax(struct kernel_call *c)
{
	int64_t axis = attr_get(c->op, c->attr, "axis")->i, n = 1, after = 1;
	const struct tensor *x = c->in[0], *zero = c->in[4];
	double scale = tensor_get(c->in[1], 0), one = floorf(1.0f / (float)tensor_get(c->in[3], 0));

	axis += axis < 0 ? x->rank : 0;
	if (x->n == 0)
		return LINNET_OK;
	for (int i = (int)axis; i < x->rank; i++)
		*(i == axis || attr_get(c->op, c->attr, "opset")->i < 13 ? &n : &after) *= x->d[i];
	for (int64_t i = 0; i < x->n / n; i++) {
		int64_t base = i / after * n * after + i % after, most = tensor_get_int(x, base);
		double sum = 0;

		for (int64_t k = 1; k < n; k++)
			most = larger_int(most, tensor_get_int(x, base + k * after));
		for (int64_t k = 0; k < n; k++)
			sum += exp((double)(tensor_get_int(x, base + k * after) - most) * scale);
		for (int64_t k = 0; k < n; k++)
			quant_put(c->out[0], base + k * after,
			          exp((double)(tensor_get_int(x, base + k * after) - most) * scale) / sum * one,
			          zero ? tensor_get_int(zero, 0) : 0);
	}
	return LINNET_OK;
}

/* ---- Sums along axes ---- */

static enum linnet_code reduced_axes(const struct op *op, const struct attr *attr, int rank, bool out[MAX_RANK], struct linnet_error *e)
{
	const struct attr *axes = attr_get(op, attr, "axes");

	memset(out, 0, MAX_RANK * sizeof *out);
	for (size_t i = 0; i < axes->n; i++) {
		int axis;

		TRY(axis_check(axes->ints[i], rank, &axis, e));
		out[axis] = true;
	}
	return LINNET_OK;
}

static enum linnet_code shape_qreduce(struct shape_call *c)
{
	const struct shape x = in_shape(c, 0);
	bool keep = int_attr(c, "keepdims"), reduced[MAX_RANK];
	struct shape *s = &c->out[0].shape;

	TRY(scalars_check(c, 1, 4));
	if (c->in[0]->dt != DT_UNDEFINED && c->op->out->type != c->op->in->type)
		c->out[0].dt = c->in[0]->dt == DT_INT8 ? DT_INT32 : DT_UINT32;
	if (x.rank < 0)
		return LINNET_OK;
	TRY(reduced_axes(c->op, c->attr, x.rank, reduced, c->e));
	s->rank = 0;
	for (int i = 0; i < x.rank; i++)
		if (!reduced[i] || keep)
			s->d[s->rank++] = reduced[i] ? 1 : x.d[i];
	return LINNET_OK;
}

/* Sums of x - zero in doubles, of the output's shape. */
static enum linnet_code sums(struct kernel_call *c, int64_t zero, struct tensor **out)
{
	const struct tensor *x = c->in[0];
	int64_t stride[MAX_RANK], at[MAX_RANK] = { 0 }, s = 1, i = 0;
	bool reduced[MAX_RANK];

	TRY(reduced_axes(c->op, c->attr, x->rank, reduced, c->e));
	TRY(tensor_new(c->scratch, DT_DOUBLE, c->out[0]->rank, c->out[0]->d, out, c->e));
	for (int k = x->rank - 1; k >= 0; k--) {
		stride[k] = reduced[k] ? 0 : s;
		s *= reduced[k] ? 1 : x->d[k];
	}
	if (x->n == 0)
		return LINNET_OK;
	do {
		int64_t to = 0;

		for (int k = 0; k < x->rank; k++)
			to += at[k] * stride[k];
		tensor_put(*out, to, tensor_get(*out, to) + (double)(tensor_get_int(x, i++) - zero));
	} while (next_position(x->rank, x->d, at));
	return LINNET_OK;
}

static enum linnet_code reduce_sum_integer(struct kernel_call *c)
{
	struct tensor *y;

	TRY(sums(c, 0, &y));
	return quant_sums(c, y);
}

static enum linnet_code qreduce_mean(struct kernel_call *c)
{
	const struct tensor *zero = c->in[2];
	struct tensor *y;

	TRY(sums(c, zero ? tensor_get_int(zero, 0) : 0, &y));
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(y, i, tensor_get(y, i) * tensor_get(c->in[1], 0) / ((double)c->in[0]->n / (double)y->n));
	quant_store(c->out[0], y, c->in[3], in_tensor(c, 4));
	return LINNET_OK;
}

/* ---- Products ---- */

static enum linnet_code shape_qconv(struct shape_call *c)
{
	TRY(scalars_check(c, 1, 2));
	TRY(scalars_check(c, 6, 7));
	return shape_moved(c, "Conv", 3, (int[]){ 0, 3, 8 }, int_attr(c, "channels_last"));
}

static enum linnet_code qconv(struct kernel_call *c)
{
	bool last = attr_get(c->op, c->attr, "channels_last")->i != 0;
	struct shape s = shape_of(c->out[0]);
	const struct tensor *x = c->in[0];
	struct tensor *moved, *y;

	if (last) {
		TRY(move_channels(c, x, false, &moved));
		x = moved;
		s = channels_moved(&s, false);
	}
	TRY(quant_conv(c, &(struct quant_operand){ x, c->in[1], c->in[2] }, &(struct quant_operand){ c->in[3], c->in[4], c->in[5] },
	               in_tensor(c, 8), c->in[6], &s, &y));
	if (last)
		TRY(move_channels(c, y, true, &y));
	quant_store(c->out[0], y, NULL, c->in[7]);
	return LINNET_OK;
}

static enum linnet_code shape_product(struct shape_call *c) { return quant_shape(c, NULL, "MatMul", 2, (int[]){ 0, 1 }); }
static enum linnet_code shape_mul_integer(struct shape_call *c)
{
	TRY(scalar_check(c, 1));
	TRY(scalar_check(c, 3));
	return quant_shape(c, NULL, "Mul", 2, (int[]){ 0, 2 });
}

static enum linnet_code mul_integer(struct kernel_call *c)
{
	struct tensor *a, *b, *y;

	TRY(quant_centre(c, c->in[0], c->in[1], NULL, 0, &a));
	TRY(quant_centre(c, c->in[2], in_tensor(c, 3), NULL, 0, &b));
	TRY(quant_run(c, DT_DOUBLE, "Mul", 2, (const struct tensor *[]){ a, b }, c->out[0]->rank, c->out[0]->d, &y));
	return quant_sums(c, y);
}

/* int32 of unsigned operands, too: so onnxruntime infers. */
static enum linnet_code shape_matmul_integer16(struct shape_call *c)
{
	c->out[0].dt = DT_INT32;
	return shape_product(c);
}

/* Sums of products of 16 bits, below 2^53 exact in doubles; what 32 bits cannot hold wraps. */
static enum linnet_code matmul_integer16(struct kernel_call *c)
{
	struct tensor *y;

	TRY(quant_matmul(c, &(struct quant_operand){ .x = c->in[0] }, &(struct quant_operand){ .x = c->in[1] }, NULL, &y));
	return quant_sums(c, y);
}

/* The length of a vector that belongs to the columns of Y (a number has one): a bias, or as `scalar` admits one number for all. */
static enum linnet_code column_check(struct shape_call *c, int i, bool scalar, const char *what)
{
	const struct shape v = in_shape(c, i), b = in_shape(c, 1), *y = &c->out[0].shape;

	if (!in_given(c, i) || v.rank < 0 || y->rank < 0)
		return LINNET_OK;
	if (scalar && (v.rank == 0 || shape_count(c->dims, &v, 0, v.rank) == 1))
		return LINNET_OK;
	if (scalar && v.rank > 1 && b.rank >= 0) { /* of B's shape, one for each column */
		TRY(rank_check(c, i, b.rank, b.rank));
		for (int j = 0; j < v.rank; j++)
			TRY(length_join(c, "lengths of B and of its scales or zero points", j == v.rank - 2 ? 1 : b.d[j], v.d[j], NULL));
	}
	if (v.rank != 1)
		return scalar ? LINNET_OK : rank_check(c, i, 1, 1);
	return length_join(c, what, y->rank ? y->d[y->rank - 1] : 1, v.d[0], NULL);
}

static enum linnet_code shape_integer_to_float(struct shape_call *c)
{
	TRY(shape_product(c));
	c->out[0].dt = c->in[2]->dt;
	TRY(scalar_check(c, 4));
	TRY(column_check(c, 3, true, "numbers of columns and of scales of B"));
	TRY(column_check(c, 5, true, "numbers of columns and of zero points of B"));
	return column_check(c, 6, false, "numbers of columns and of the bias");
}

static enum linnet_code put_biased(struct kernel_call *c, const struct tensor *y, const struct tensor *bias)
{
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(c->out[0], i, tensor_get(y, i) + (bias ? tensor_get(bias, i % bias->n) : 0));
	return LINNET_OK;
}

static enum linnet_code integer_to_float(struct kernel_call *c)
{
	struct tensor *y;

	TRY(quant_matmul(c, &(struct quant_operand){ c->in[0], c->in[2], in_tensor(c, 4) },
	                 &(struct quant_operand){ c->in[1], c->in[3], in_tensor(c, 5) }, NULL, &y));
	return put_biased(c, y, in_tensor(c, 6));
}

static enum linnet_code shape_dynamic_matmul(struct shape_call *c)
{
	TRY(shape_product(c));
	TRY(column_check(c, 2, true, "numbers of columns and of scales of B"));
	TRY(column_check(c, 3, true, "numbers of columns and of zero points of B"));
	return column_check(c, 4, false, "numbers of columns and of the bias");
}

static enum linnet_code dynamic_matmul(struct kernel_call *c)
{
	struct quant_operand a;
	struct tensor *y;

	TRY(quant_dynamic(c, c->in[0], &a));
	TRY(quant_matmul(c, &a, &(struct quant_operand){ c->in[1], c->in[2], in_tensor(c, 3) }, NULL, &y));
	return put_biased(c, y, in_tensor(c, 4));
}

/* A: [M, K]  B: [K, N], or transposed  C broadcasts to Y: [M, N], of floats when it has no scale. */
static enum linnet_code shape_qgemm(struct shape_call *c)
{
	const struct shape a = in_shape(c, 0), b = in_shape(c, 3), plus = in_shape(c, 6);
	bool ta = int_attr(c, "transA"), tb = int_attr(c, "transB");
	struct shape *y = &c->out[0].shape, both;
	enum dtype dt = in_given(c, 8) ? c->in[8]->dt : DT_FLOAT;

	TRY(rank_check(c, 0, 2, 2));
	TRY(rank_check(c, 3, 2, 2));
	TRY(rank_check(c, 6, 0, 2));
	TRY(scalars_check(c, 1, 2));
	TRY(scalars_check(c, 7, 8));
	if (in_given(c, 7) != in_given(c, 8))
		return fail(c->e, LINNET_EMODEL, "\"y_scale\" and \"y_zero_point\" go together");
	c->out[0].dt = dt;
	*y = (struct shape){ .rank = 2, .d = { a.rank < 0 ? DIM_NONE : a.d[ta], b.rank < 0 ? DIM_NONE : b.d[!tb] } };
	if (a.rank == 2 && b.rank == 2)
		TRY(length_join(c, "inner lengths", a.d[!ta], b.d[tb], NULL));
	TRY(column_check(c, 4, true, "numbers of columns and of scales of B"));
	TRY(column_check(c, 5, true, "numbers of columns and of zero points of B"));
	if (plus.rank >= 0) {
		TRY(broadcast(c->dims, y, &plus, &both, c->e));
		for (int i = 0; i < 2; i++)
			TRY(length_join(c, "lengths of Y and of what C broadcasts it to", y->d[i], both.d[i], NULL));
	}
	return LINNET_OK;
}

/* Y = alpha a_scale b_scale ((A - a_zero_point) (B - b_zero_point) + C), C counting in such steps. */
static enum linnet_code qgemm(struct kernel_call *c)
{
	const struct tensor *a = c->in[0], *b = c->in[3], *zb = c->in[5], *sb = c->in[4], *plus = in_tensor(c, 6), *sy = in_tensor(c, 7);
	bool ta = attr_get(c->op, c->attr, "transA")->i != 0, tb = attr_get(c->op, c->attr, "transB")->i != 0;
	double alpha = attr_get(c->op, c->attr, "alpha")->f;
	int64_t m = c->out[0]->d[0], n = c->out[0]->d[1], k = a->d[!ta], za = tensor_get_int(c->in[2], 0), stride[MAX_RANK] = { 0 };

	if (plus)
		broadcast_strides(plus, 2, stride);
	for (int64_t i = 0; i < m; i++)
		for (int64_t j = 0; j < n; j++) {
			int64_t sum = plus ? tensor_get_int(plus, i * stride[0] + j * stride[1]) : 0;
			int64_t z = tensor_get_int(zb, zb->n == 1 ? 0 : j);
			double factor = alpha * tensor_get(c->in[1], 0) * tensor_get(sb, sb->n == 1 ? 0 : j);

			for (int64_t l = 0; l < k; l++)
				sum += (tensor_get_int(a, ta ? l * m + i : i * k + l) - za) * (tensor_get_int(b, tb ? j * k + l : l * n + j) - z);
			if (sy)
				quant_put(c->out[0], i * n + j, (double)sum * factor / tensor_get(sy, 0), tensor_get_int(c->in[8], 0));
			else
				tensor_put(c->out[0], i * n + j, (double)sum * factor);
		}
	return LINNET_OK;
}

/* ---- QuantizeLinear, DequantizeLinear ---- */

/* As ai.onnx's, but for a scale that needs the axis said. */
static enum linnet_code shape_as_onnx(struct shape_call *c)
{
	if (!attr_given(attr_get(c->op, c->attr, "axis")))
		TRY(scalars_check(c, 1, 2));
	return op_newest(NULL, c->op->name)->shape(c);
}

static enum linnet_code as_onnx(struct kernel_call *c) { return op_newest(NULL, c->op->name)->kernel(c); }

/* ---- Attention, embeddings ---- */

static enum linnet_code shape_qattention(struct shape_call *c)
{
	TRY(scalar_check(c, 3));
	TRY(scalar_check(c, 6));
	return packed_attention(c, 8, NULL);
}

static enum linnet_code qattention(struct kernel_call *c)
{
	struct tensor *x, *w;

	TRY(quant_centre(c, c->in[0], in_tensor(c, 6), c->in[3], -1, &x));
	TRY(quant_centre(c, c->in[1], in_tensor(c, 7), c->in[4], -1, &w));
	return quant_call(c, "com.microsoft", "Attention", 5,
	                  (const struct tensor *[]){ x, w, c->in[2], in_tensor(c, 5), in_tensor(c, 8) }, c->nout, c->out);
}

static enum linnet_code shape_qembed(struct shape_call *c)
{
	TRY(scalars_check(c, 8, 17));
	return shape_embed(c);
}

static enum linnet_code qembed(struct kernel_call *c)
{
	/* the tables, then gamma and beta: their scales are five inputs on, their zero points ten, and the mask lies between */
	const struct tensor *in[8] = { c->in[0], c->in[1] };
	struct tensor *x;

	for (int i = 2; i < 7; i++) {
		if (!c->in[i])
			continue;
		TRY(quant_centre(c, c->in[i], c->in[i + 11], c->in[i + 6], 0, &x));
		in[i] = x;
	}
	in[7] = c->in[7];
	return quant_call(c, "com.microsoft", "EmbedLayerNormalization", 8, in, c->nout, c->out);
}

/* ---- LSTM ---- */

/* W: [D, I, 4 H], R: [D, H, 4 H]: as LSTM has them but with the last two axes changed. Scales and zero points: [D] or [D, 4 H]. */
static enum linnet_code shape_dynamic_lstm(struct shape_call *c)
{
	struct type weights[2] = { *c->in[1], *c->in[2] };
	const struct type *in[12];
	struct shape_call inner = *c;

	memcpy(in, c->in, (size_t)c->nin * sizeof *in);
	for (int i = 0; i < 2; i++) {
		const struct shape w = weights[i].shape;

		TRY(rank_check(c, 1 + i, 3, 3));
		weights[i].shape = channels_moved(&w, false);
		in[1 + i] = &weights[i];
		for (int k = 8 + 2 * i; k < 10 + 2 * i && w.rank == 3; k++) {
			const struct shape s = in_shape(c, k);

			TRY(rank_check(c, k, 1, 2));
			if (s.rank > 0)
				TRY(length_join(c, "numbers of directions, and of scales or zero points for them,", w.d[0], s.d[0], NULL));
			if (s.rank > 1)
				TRY(length_join(c, "numbers of columns, and of scales or zero points for them,", w.d[2], s.d[1], NULL));
		}
	}
	inner.in = in;
	return quant_shape(&inner, NULL, "LSTM", 8, (int[]){ 0, 1, 2, 3, 4, 5, 6, 7 });
}

/* A matrix of each direction as LSTM has it, in real numbers. */
static enum linnet_code lstm_weights(struct kernel_call *c, int i, const struct tensor *scale, const struct tensor *zero, struct tensor **out)
{
	struct tensor by[2] = { *scale, *zero };

	for (int k = 0; k < 2; k++)
		if (by[k].rank == 2) {
			by[k].rank = 3;
			by[k].d[2] = by[k].d[1];
			by[k].d[1] = 1;
		}
	TRY(quant_centre(c, c->in[i], &by[1], &by[0], 0, out));
	return move_channels(c, *out, false, out);
}

/* What is left of x when it is quantised by its range. */
static enum linnet_code quantised_once(struct kernel_call *c, const struct tensor *x, struct tensor **out)
{
	struct quant_operand q;

	TRY(quant_dynamic(c, x, &q));
	return quant_centre(c, q.x, q.zero, q.scale, 0, out);
}

/* Blocks of n doubles. */
static void copy_block(struct tensor *to, int64_t i, const struct tensor *from, int64_t j, int64_t n)
{
	memcpy((double *)to->data + i * n, (const double *)from->data + j * n, (size_t)n * sizeof(double));
}

/* A state [D, B, H] in doubles; zeros when it is not given. */
static enum linnet_code lstm_state(struct kernel_call *c, int i, const int64_t *d, struct tensor **out)
{
	if (in_tensor(c, i))
		return quant_centre(c, c->in[i], NULL, NULL, 0, out);
	return tensor_new(c->scratch, DT_DOUBLE, 3, d, out, c->e);
}

/*
 * LSTM steps on what is left of X and of H when they are quantised by their ranges: of X all samples' steps up to the longest
 * sequence, of H all samples at a step, ended ones with their last state once more, then with 0: what onnxruntime does in one thread.
 * In several it may cut the samples into parts and quantise H by the part.
 */
static enum linnet_code dynamic_lstm(struct kernel_call *c)
{
	bool reverse = attr_get(c->op, c->attr, "direction")->s.p[0] == 'r';
	int64_t nd = c->in[1]->d[0], b = c->in[0]->d[1], width = c->in[0]->d[2], h = c->in[2]->d[1], longest = 0, *count;
	const struct tensor *lens = in_tensor(c, 4);
	struct tensor part = *c->in[0], *x, *w, *r, *xs, *hs, *now, *state[2], *next[2];
	struct linnet_error *e = c->e;

	TRY_NEW(count, c->scratch, b);
	for (int64_t i = 0; i < b; i++) {
		count[i] = lens ? tensor_get_int(lens, i) : part.d[0];
		if (count[i] < 0 || count[i] > part.d[0])
			return fail(e, LINNET_EVALUE, "sequence_lens has %lld; expected 0 to %lld", (long long)count[i], (long long)part.d[0]);
		longest = larger_int(longest, count[i]);
	}
	part.d[0] = longest;
	part.n = longest * b * width;
	TRY(quantised_once(c, &part, &x));
	TRY(lstm_weights(c, 1, c->in[8], c->in[9], &w));
	TRY(lstm_weights(c, 2, c->in[10], c->in[11], &r));
	for (int i = 0; i < 2; i++) {
		TRY(lstm_state(c, 5 + i, (int64_t[]){ nd, b, h }, &state[i]));
		TRY(tensor_new(c->scratch, DT_DOUBLE, 3, state[i]->d, &next[i], e));
	}
	TRY(tensor_new(c->scratch, DT_DOUBLE, 3, (int64_t[]){ 1, b, width }, &xs, e));
	for (int64_t i = 0; out_tensor(c, 0) && i < c->out[0]->n; i++)
		tensor_put(c->out[0], i, 0);
	for (int64_t d = 0; d < nd; d++)
		for (int64_t k = 0; k < longest; k++) {
			/* the other direction's numbers do not matter */
			TRY(tensor_new(c->scratch, DT_DOUBLE, 3, (int64_t[]){ 1, b, h }, &now, e));
			TRY(tensor_new(c->scratch, DT_DOUBLE, 3, (int64_t[]){ nd, b, h }, &hs, e));
			for (int64_t i = 0; i < b; i++)
				if (k <= count[i])
					copy_block(now, i, state[0], d * b + i, h);
			TRY(quantised_once(c, now, &now));
			copy_block(hs, d, now, 0, b * h);
			for (int64_t i = 0; i < b; i++)
				if (k < count[i])
					copy_block(xs, i, x, (reverse || d ? count[i] - 1 - k : k) * b + i, width);
			TRY(quant_call(c, NULL, "LSTM", 8,
			               (const struct tensor *[]){ xs, w, r, in_tensor(c, 3), NULL, hs, state[1], in_tensor(c, 7) }, 3,
			               (struct tensor *[]){ NULL, next[0], next[1] }));
			for (int64_t i = 0; i < b; i++) {
				int64_t t = reverse || d ? count[i] - 1 - k : k;

				if (k >= count[i])
					continue;
				for (int s = 0; s < 2; s++)
					copy_block(state[s], d * b + i, next[s], d * b + i, h);
				for (int64_t j = 0; out_tensor(c, 0) && j < h; j++)
					tensor_put(c->out[0], ((t * nd + d) * b + i) * h + j, tensor_get(state[0], (d * b + i) * h + j));
			}
		}
	for (int s = 0; s < 2; s++)
		for (int64_t i = 0; out_tensor(c, 1 + s) && i < state[s]->n; i++)
			tensor_put(c->out[1 + s], i, tensor_get(state[s], i));
	return LINNET_OK;
}

/* ---- Rows ---- */

#define Q(title, type) { title, type, FLOW_NONE }
#define Q_MAYBE(title, type) { title, type, FLOW_NONE, OPTIONAL }

#define LIST(title) { .name = title, .kind = ATTR_INTS, .flags = REQUIRED, .lo = INT32_MIN, .hi = INT32_MAX }
#define KEEP { .name = "keepdims", .kind = ATTR_INT, .flags = REQUIRED, .lo = 0, .hi = 1 }
#define WINDOW                                                                                     \
	QUANT_AUTO_PAD, FLAG("ceil_mode"), QUANT_LIST("pads", 0), QUANT_LIST("strides", 1),        \
		{ .name = "kernel_shape", .kind = ATTR_INTS, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }

#define QLINEAR .agree = AGREE_ROUND, .fuzz = { .shapes = FUZZ_CUSTOM }, .types = { [T] = QUANTISED_8, [T1] = SET(FLOAT) }

#define BINARY(title, text, by)                                                                    \
	{                                                                                          \
		MS, .name = title, .doc = text,                                                    \
		.in = IN(Q("A", T), Q("A_scale", T1), Q_MAYBE("A_zero_point", T), Q("B", T), Q("B_scale", T1), Q_MAYBE("B_zero_point", T), \
		         Q("C_scale", T1), Q_MAYBE("C_zero_point", T)),                            \
		.out = OUT({ "C", T }), .shape = shape_through, .kernel = through, .param = &(by), QLINEAR, \
	}

/* A zero point of the output left out is 0 of the input's type. */
#define UNARY_BODY(operator)                                                                       \
	"?Y_zero_point\n"                                                                          \
	"{ x = DequantizeLinear (X, X_scale, X_zero_point)\n"                                      \
	"  y = " operator " (x)\n"                                                                 \
	"  Y = QuantizeLinear (y, Y_scale, Y_zero_point) }\n"                                      \
	"{ x = DequantizeLinear (X, X_scale, X_zero_point)\n"                                      \
	"  y = " operator " (x)\n"                                                                 \
	"  none = Constant <value_int = 0> ()\n"                                                   \
	"  zero = CastLike (none, X)\n"                                                            \
	"  Y = QuantizeLinear (y, Y_scale, zero) }"

#define UNARY(title, text, x_scale, x_zero, y_scale, y_zero, zeros, by, ...)                       \
	{                                                                                          \
		MS, .name = title, .doc = text,                                                    \
		.in = IN(Q("X", T), Q(x_scale, T1), { x_zero, T, FLOW_NONE, zeros }, Q(y_scale, T1), { y_zero, T, FLOW_NONE, zeros }), \
		.out = OUT({ "Y", T }), .shape = shape_through, .kernel = through, .param = &(by), QLINEAR, __VA_ARGS__ \
	}

/* `scaled`: the sums of MatMul with B, times the scales of both. */
#define SCALED_SUMS(a, zero, scale)                                                                \
	"  sums = MatMulInteger (" a ", B, " zero ", b_zero_point)\n"                              \
	"  real = Cast <to = 1> (sums)\n"                                                          \
	"  one = Cast <to = 1> (" scale ")\n"                                                      \
	"  other = Cast <to = 1> (b_scale)\n"                                                      \
	"  factor = Mul (one, other)\n"                                                            \
	"  scaled = Mul (real, factor)\n"

static const struct op rows[] = {
	BINARY("QLinearAdd", "Add of quantised numbers, quantised.", add_through),
	BINARY("QLinearMul", "Mul of quantised numbers, quantised.", mul_through),
	UNARY("QLinearSigmoid", "Sigmoid of quantised numbers, quantised.", "X_scale", "X_zero_point", "Y_scale", "Y_zero_point", OPTIONAL,
	      sigmoid_through, .body = UNARY_BODY("Sigmoid")),
	UNARY("QLinearLeakyRelu", "LeakyRelu of quantised numbers, quantised.", "X_scale", "X_zero_point", "Y_scale", "Y_zero_point", OPTIONAL,
	      leaky_through, .attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 0.01 }),
	      .body = UNARY_BODY("LeakyRelu <alpha: float = @alpha>")),
	UNARY("QLinearAveragePool", "AveragePool of quantised numbers, quantised.", "x_scale", "x_zero_point", "y_scale", "y_zero_point",
	      OPTIONAL, pool_through, .attr = ATTRS(WINDOW, FLAG("channels_last"), FLAG("count_include_pad"))),
	UNARY("QLinearGlobalAveragePool", "GlobalAveragePool of quantised numbers, quantised.", "x_scale", "x_zero_point", "y_scale",
	      "y_zero_point", 0, global_through, .attr = ATTRS(FLAG("channels_last"))),
	{
		MS, .name = "QLinearWhere",
		.doc = "Where of quantised numbers, quantised.",
		.in = IN(Q("condition", T2), Q("X", T), Q("x_scale", T1), Q("x_zero_point", T), Q("Y", T), Q("y_scale", T1), Q("y_zero_point", T),
		         Q("z_scale", T1), Q("z_zero_point", T)),
		.out = OUT({ "Z", T }),
		.types = { [T] = QUANTISED_8, [T1] = SET(FLOAT), [T2] = SET(BOOL) },
		.agree = AGREE_ROUND,
		.shape = shape_through,
		.kernel = through,
		.param = &where_through,
		.body = "{ x = DequantizeLinear (X, x_scale, x_zero_point)\n"
		        "  y = DequantizeLinear (Y, y_scale, y_zero_point)\n"
		        "  z = Where (condition, x, y)\n"
		        "  Z = QuantizeLinear (z, z_scale, z_zero_point) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QLinearConcat",
		.doc = "Concat of quantised numbers, each with its scale and zero point, quantised alike.",
		.in = IN(Q("Y_scale", T1), Q("Y_zero_point", T), { "inputs", T2, FLOW_NONE, VARIADIC | HETERO }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .flags = REQUIRED }),
		.types = { [T] = QUANTISED_8, [T1] = SET(FLOAT), [T2] = QUANTISED_8 | SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_qconcat,
		.kernel = qconcat,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QLinearSoftmax",
		.doc = "Softmax of quantised numbers, quantised; `opset` says whose: up to 12 over all axes from `axis` on.",
		.in = IN(Q("X", T), Q("X_scale", T1), Q_MAYBE("x_zero_point", T), Q("y_scale", T1), Q("y_zero_point", T)),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = -1 }, { .name = "opset", .kind = ATTR_INT, .flags = REQUIRED }),
		.types = { [T] = QUANTISED_8, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_qsoftmax,
		.kernel = qsoftmax,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QLinearReduceMean",
		.doc = "Means of quantised numbers along axes, quantised. By its documentation; onnxruntime has no kernel on the CPU.",
		.in = IN(Q("data", T), Q("data_scale", T1), Q_MAYBE("data_zero_point", T), Q("reduced_scale", T1), Q_MAYBE("reduced_zero_point", T)),
		.out = OUT({ "reduced", T }),
		.attr = ATTRS(LIST("axes"), KEEP),
		.types = { [T] = QUANTISED_8, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_qreduce,
		.kernel = qreduce_mean,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "ReduceSumInteger",
		.doc = "Sums of integers along axes, in 32 bits of their sign. By its documentation; onnxruntime has no kernel on the CPU.",
		.in = IN(Q("data", T1)),
		.out = OUT({ "reduced", T2 }),
		.attr = ATTRS(LIST("axes"), KEEP),
		.types = { [T1] = QUANTISED_8, [T2] = SET(INT32) | SET(UINT32) },
		.agree = AGREE_BITS,
		.shape = shape_qreduce,
		.kernel = reduce_sum_integer,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MulInteger",
		.doc = "Products of integers less their zero points, in 32 bits. By its documentation; onnxruntime has no kernel on the CPU.",
		.in = IN(Q("A", T), Q_MAYBE("A_zero_point", T), Q("B", T), Q_MAYBE("B_zero_point", T)),
		.out = OUT({ "C", T1 }),
		.types = { [T] = QUANTISED_8, [T1] = SET(INT32) },
		.agree = AGREE_BITS,
		.shape = shape_mul_integer,
		.kernel = mul_integer,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MatMulInteger16",
		.doc = "MatMul of 16-bit integers, in 32 bits.",
		.in = IN(Q("A", T1), Q("B", T2)),
		.out = OUT({ "Y", T3 }),
		.types = { [T1] = SET(INT16) | SET(UINT16), [T2] = SET(INT16) | SET(UINT16), [T3] = SET(INT32) | SET(UINT32) },
		.agree = AGREE_BITS,
		.shape = shape_matmul_integer16,
		.kernel = matmul_integer16,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MatMulIntegerToFloat",
		.doc = "MatMul of integers less their zero points, scaled, plus a bias.",
		.in = IN(Q("A", T1), Q("B", T2), Q("a_scale", T3), Q("b_scale", T3), Q_MAYBE("a_zero_point", T1), Q_MAYBE("b_zero_point", T2),
		         { "bias", T3, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T3 }),
		.types = { [T1] = QUANTISED_8, [T2] = QUANTISED_8, [T3] = SET(FLOAT) | SET(FLOAT16) },
		.agree = AGREE_ROUND,
		.shape = shape_integer_to_float,
		.kernel = integer_to_float,
		.fast = FAST(&fast_integer_matmul),
		.body = "?bias\n"
		        "{" SCALED_SUMS("A", "a_zero_point", "a_scale")
		        "  more = Cast <to = 1> (bias)\n"
		        "  all = Add (scaled, more)\n"
		        "  Y = CastLike (all, a_scale) }\n"
		        "{" SCALED_SUMS("A", "a_zero_point", "a_scale")
		        "  Y = CastLike (scaled, a_scale) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "DynamicQuantizeMatMul",
		.doc = "MatMul of numbers quantised by their range with quantised ones, plus a bias.",
		.in = IN(Q("A", T1), Q("B", T2), Q("b_scale", T1), Q_MAYBE("b_zero_point", T2), { "bias", T1, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T1 }),
		.types = { [T1] = SET(FLOAT), [T2] = QUANTISED_8 },
		.agree = AGREE_ROUND,
		.shape = shape_dynamic_matmul,
		.kernel = dynamic_matmul,
		.fast = FAST(&fast_integer_matmul),
		.body = "?bias\n"
		        "{ q, s, z = DynamicQuantizeLinear (A)\n"
		        SCALED_SUMS("q", "z", "s")
		        "  Y = Add (scaled, bias) }\n"
		        "{ q, s, z = DynamicQuantizeLinear (A)\n"
		        SCALED_SUMS("q", "z", "s")
		        "  Y = Identity (scaled) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QGemm",
		.doc = "Gemm of quantised numbers, quantised or, without y_scale, not; C counts in steps of alpha a_scale b_scale.",
		.in = IN(Q("A", T1), Q("a_scale", T), Q("a_zero_point", T1), Q("B", T2), Q("b_scale", T), Q("b_zero_point", T2), Q_MAYBE("C", T3),
		         Q_MAYBE("y_scale", T), Q_MAYBE("y_zero_point", T4)),
		.out = OUT({ "Y", T5 }),
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }, FLAG("transA"), FLAG("transB")),
		.types = { [T] = SET(FLOAT), [T1] = QUANTISED_8, [T2] = QUANTISED_8, [T3] = SET(INT32), [T4] = QUANTISED_8,
		           [T5] = QUANTISED_8 | SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_qgemm,
		.kernel = qgemm,
		.fast = FAST(&fast_integer_matmul),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QLinearConv",
		.doc = "Conv of quantised numbers, quantised; with channels_last x and y are [N, spatial, C], w is as ever.",
		.in = IN(Q("x", T1), Q("x_scale", T), Q("x_zero_point", T1), Q("w", T2), Q("w_scale", T), Q("w_zero_point", T2), Q("y_scale", T),
		         Q("y_zero_point", T3), Q_MAYBE("B", T4)),
		.out = OUT({ "y", T3 }),
		.attr = ATTRS(QUANT_CONV, FLAG("channels_last")),
		.types = { [T] = SET(FLOAT), [T1] = QUANTISED_8, [T2] = QUANTISED_8, [T3] = QUANTISED_8, [T4] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_qconv,
		.kernel = qconv,
		.fast = FAST(&fast_integer_conv),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "NhwcMaxPool",
		.doc = "MaxPool of integers whose channels are the last axis.",
		.in = IN(Q("x", T)),
		.out = OUT({ "y", T }),
		.attr = ATTRS(WINDOW, QUANT_LIST("dilations", 1)),
		.types = { [T] = QUANTISED_8 },
		.agree = AGREE_BITS,
		.shape = shape_nhwc_max,
		.kernel = nhwc_max,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QuantizeLinear",
		.doc = "QuantizeLinear by one scale or, when the axis is said, by one for each of its members; quotients are float, as in onnxruntime.",
		.in = IN(Q("x", T1), Q("y_scale", T1), Q_MAYBE("y_zero_point", T2)),
		.out = OUT({ "y", T2 }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .flags = OPTIONAL }),
		.types = { [T1] = SET(FLOAT) | SET(FLOAT16), [T2] = QUANTISED_8 | SET(INT16) | SET(UINT16) | SET(INT4) | SET(UINT4) },
		.agree = AGREE_BITS,
		.shape = shape_as_onnx,
		.kernel = as_onnx,
		.fast = FAST(&fast_quantize),
		.fuzz = { .shapes = FUZZ_CUSTOM, .lo = -4, .hi = 4 },
	},
	{
		MS, .name = "DequantizeLinear",
		.doc = "DequantizeLinear by one scale or, when the axis is said, by one for each of its members.",
		.in = IN(Q("x", T1), { "x_scale", T2, FLOW_LINEAR }, Q_MAYBE("x_zero_point", T1)),
		.out = OUT({ "y", T2 }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .flags = OPTIONAL }),
		.types = { [T1] = QUANTISED_8 | SET(INT16) | SET(UINT16) | SET(INT32) | SET(INT4) | SET(UINT4), [T2] = SET(FLOAT) | SET(FLOAT16) },
		.agree = AGREE_BITS,
		.shape = shape_as_onnx,
		.kernel = as_onnx,
		.fast = FAST(&fast_dequantize),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "DynamicQuantizeLSTM",
		.doc = "LSTM with quantised weights, on inputs and states quantised by their range at every step.",
		.in = IN(Q("X", T), Q("W", T2), Q("R", T2), Q_MAYBE("B", T), Q_MAYBE("sequence_lens", T1), Q_MAYBE("initial_h", T),
		         Q_MAYBE("initial_c", T), Q_MAYBE("P", T), Q("W_scale", T), Q("W_zero_point", T2), Q("R_scale", T), Q("R_zero_point", T2)),
		.out = OUT({ "Y", T, .flags = OPTIONAL }, { "Y_h", T, .flags = OPTIONAL }, { "Y_c", T, .flags = OPTIONAL }),
		.attr = ATTRS({ .name = "activation_alpha", .kind = ATTR_FLOATS, .flags = OPTIONAL },
		              { .name = "activation_beta", .kind = ATTR_FLOATS, .flags = OPTIONAL },
		              { .name = "activations", .kind = ATTR_STRINGS },
		              { .name = "clip", .kind = ATTR_FLOAT, .flags = OPTIONAL, .lo = 0, .hi = INFINITY },
		              { .name = "direction", .kind = ATTR_STRING, .s = "forward", .oneof = "forward|reverse|bidirectional" },
		              { .name = "hidden_size", .kind = ATTR_INT, .flags = OPTIONAL, .lo = 1, .hi = INT32_MAX }, FLAG("input_forget")),
		.types = { [T] = SET(FLOAT), [T1] = SET(INT32), [T2] = QUANTISED_8 },
		.agree = AGREE_ROUND,
		.shape = shape_dynamic_lstm,
		.kernel = dynamic_lstm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QEmbedLayerNormalization",
		.doc = "EmbedLayerNormalization of quantised embeddings.",
		.in = IN({ "input_ids", T1, FLOW_NONE }, { "segment_ids", T1, FLOW_NONE, OPTIONAL },
		         { "word_embedding_quant", T2, FLOW_NONE }, { "position_embedding_quant", T2, FLOW_NONE },
		         { "segment_embedding", T2, FLOW_NONE, OPTIONAL }, { "gamma_quant", T2, FLOW_NONE }, { "beta_quant", T2, FLOW_NONE },
		         { "mask", T1, FLOW_NONE, OPTIONAL }, { "word_embedding_scale", T, FLOW_NONE },
		         { "position_embedding_scale", T, FLOW_NONE }, { "segment_embedding_scale", T, FLOW_NONE, OPTIONAL },
		         { "gamma_scale", T, FLOW_NONE }, { "beta_scale", T, FLOW_NONE }, { "word_embedding_zero_point", T2, FLOW_NONE },
		         { "position_embedding_zero_point", T2, FLOW_NONE }, { "segment_embedding_zero_point", T2, FLOW_NONE, OPTIONAL },
		         { "gamma_zero_point", T2, FLOW_NONE }, { "beta_zero_point", T2, FLOW_NONE }),
		.out = OUT({ "layernorm_out", T }, { "mask_index_out", T1 }),
		.attr = ATTRS(EPSILON(1e-12)),
		.types = { [T] = SET(FLOAT), [T1] = SET(INT32), [T2] = QUANTISED_8 },
		.agree = AGREE_ROUND,
		.shape = shape_qembed,
		.kernel = qembed,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "QAttention",
		.doc = "Attention on quantised input and weights.",
		.in = IN({ "input", T1, FLOW_NONE }, { "weight", T2, FLOW_NONE }, { "bias", T3, FLOW_NONE }, { "input_scale", T3, FLOW_NONE },
		         { "weight_scale", T3, FLOW_NONE }, { "mask_index", T4, FLOW_NONE, OPTIONAL },
		         { "input_zero_point", T1, FLOW_NONE, OPTIONAL }, { "weight_zero_point", T2, FLOW_NONE, OPTIONAL },
		         { "past", T3, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T3 }, { "present", T3, .flags = OPTIONAL }),
		.attr = ATTRS(FLAG("do_rotary"), MASK_VALUE, HEADS("num_heads"), FLAG("past_present_share_buffer"), SCALE,
		              FLAG("unidirectional")),
		.types = { [T1] = QUANTISED_8, [T2] = QUANTISED_8, [T3] = SET(FLOAT) | SET(FLOAT16),
		           [T4] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_qattention,
		.kernel = qattention,
		.fast = FAST(&fast_quantised_attention),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_quant_ops = FAMILY("contrib_quant", rows);
