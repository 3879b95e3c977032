/*
 * Operators of com.microsoft that multiply: matrix products and convolutions with what onnxruntime fuses to them, distances, inverses.
 * They are calls of operators of ai.onnx, computed in double, and something before or behind. Reference kernels, then rows.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/contrib.h"
#include "ops/grad.h"

/* ---- Axes in another order ---- */

/* Axis k of the result is axis p[k]. */
static void permute_shape(struct shape *s, const int *p)
{
	const struct shape from = *s;

	for (int k = 0; k < s->rank; k++)
		s->d[k] = from.d[p[k]];
}

static enum linnet_code permuted(struct kernel_call *c, const struct tensor *t, const int *p, const struct tensor **result)
{
	struct tensor *out;
	struct shape d = shape_of(t);
	int64_t from[MAX_RANK], to[MAX_RANK], s[MAX_RANK];

	permute_shape(&d, p);
	TRY(tensor_new(c->scratch, t->dt, t->rank, d.d, &out, c->e));
	strides(t->rank, t->d, s);
	for (int k = 0; k < t->rank; k++)
		from[k] = s[p[k]];
	strides(t->rank, d.d, to);
	copy_box(out, 0, to, t, 0, from, t->rank, d.d);
	*result = out;
	return LINNET_OK;
}

/* ---- A product, then something ---- */

/* Room for the product that out[0] is made of: double for floats, else of its type. */
static enum linnet_code product_new(struct kernel_call *c, int rank, const int64_t *d, struct tensor **y)
{
	enum dtype dt = c->out[0]->dt;

	return tensor_new(c->scratch, dtype_class(dt) == CLASS_FLOAT ? DT_DOUBLE : dt, rank, d, y, c->e);
}

/* out[0] = alpha y */
static enum linnet_code product_put(struct kernel_call *c, const struct tensor *y, double alpha)
{
	for (int64_t i = 0; i < y->n; i++)
		if (dtype_class(y->dt) == CLASS_FLOAT || alpha != 1)
			tensor_put(c->out[0], i, alpha * tensor_get(y, i));
		else
			element_copy(c->out[0], i, y, i);
	return LINNET_OK;
}

/* The elements of the product as doubles through the operator of ai.onnx of that name. */
static enum linnet_code apply(struct kernel_call *c, const char *name, const struct attr *given, int ngiven, const struct tensor *const *in,
                              int nin, struct tensor **out)
{
	const struct op *op = op_newest(NULL, name);
	struct kernel_call inner = *c;
	struct attr attr[MAX_ATTRS];

	attrs_by_name(NULL, NULL, op, attr);
	for (int i = 0; i < ngiven; i++)
		attr[op_attr_index(op, given[i].name)] = given[i];
	TRY(tensor_new(c->scratch, DT_DOUBLE, in[0]->rank, in[0]->d, out, c->e));
	inner.op = op;
	inner.attr = attr;
	inner.nin = nin;
	inner.in = in;
	inner.nout = 1;
	inner.out = out;
	return op->kernel(&inner);
}

static bool text_is(struct text s, const char *word) { return s.n == strlen(word) && !memcmp(s.p, word, s.n); }

/* Activation functions that are no operators of ai.onnx any more: alpha tanh(beta x), alpha log(1 + e^(beta x)). */
static bool retired(struct text name) { return text_is(name, "ScaledTanh") || text_is(name, "ParametricSoftplus"); }

static double retired_of(struct text name, double alpha, double beta, double x)
{
	if (text_is(name, "ScaledTanh"))
		return alpha * tanh(beta * x);
	x *= beta;
	return alpha * (x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)));
}

/*
 * *y = f(*y) with the function that attribute `activation` names, if any, an operator of ai.onnx: its parameters are the attributes
 * activation_<name>, or in order the members of activation_params; what is not given is as the operator has it.
 */
static enum linnet_code activate(struct kernel_call *c, struct tensor **y)
{
	static const char *const parameter[] = { "alpha", "beta", "gamma", "axis" };
	const struct attr *a = attr_get(c->op, c->attr, "activation"), *params = attr_get(c->op, c->attr, "activation_params");
	const struct tensor *in[3] = { *y, NULL, NULL };
	struct tensor bound[2], *x;
	double limit[2];
	struct attr given[4];
	int ngiven = 0, nin = 1;
	char name[24], title[40];
	const struct op *op;

	if (!attr_given(a))
		return LINNET_OK;
	if (retired(a->s)) {
		const struct attr *alpha = attr_get(c->op, c->attr, "activation_alpha"), *beta = attr_get(c->op, c->attr, "activation_beta");

		if (!attr_given(alpha) || !attr_given(beta))
			return fail(c->e, LINNET_EATTR, "%.*s needs activation_alpha and activation_beta", (int)a->s.n, a->s.p);
		for (int64_t i = 0; i < (*y)->n; i++)
			tensor_put(*y, i, retired_of(a->s, alpha->f, beta->f, tensor_get(*y, i)));
		return LINNET_OK;
	}
	snprintf(name, sizeof name, "%.*s", (int)a->s.n, a->s.p);
	op = op_newest(NULL, name);
	for (int i = 0; i < 4; i++) {
		const struct attr *p;

		snprintf(title, sizeof title, "activation_%s", parameter[i]);
		p = attr_get(c->op, c->attr, title);
		if (op_attr_index(op, parameter[i]) < 0)
			continue;
		if (attr_given(p))
			given[ngiven] = *p;
		else if ((size_t)ngiven < params->n)
			given[ngiven] = (struct attr){ .kind = ATTR_FLOAT, .f = (double)params->floats[ngiven] };
		else
			continue;
		given[ngiven++].name = parameter[i];
	}
	for (int i = 0; i < 2 && !strcmp(name, "Clip") && params->n == 2; i++) {
		limit[i] = (double)params->floats[i];
		bound[i] = (struct tensor){ .dt = DT_DOUBLE, .n = 1, .bytes = sizeof *limit, .data = &limit[i] };
		in[nin++] = &bound[i];
	}
	if ((*y)->dt == DT_DOUBLE) {
		TRY(apply(c, name, given, ngiven, in, nin, y));
		return LINNET_OK;
	}
	/* integers stay what they are where the function does not change them */
	TRY(apply(c, name, given, ngiven, in, nin, &x));
	for (int64_t i = 0; i < x->n; i++)
		if (tensor_get(x, i) != tensor_get(*y, i))
			tensor_put(*y, i, tensor_get(x, i));
	return LINNET_OK;
}

/* ---- Matrix products ---- */

/* Axes of a FusedMatMul operand in the order of MatMul's: batch: the first axis goes behind the batch, then the last two change places. */
static void matmul_order(int rank, bool batch, bool transpose, int p[MAX_RANK])
{
	for (int i = 0; i < rank; i++)
		p[i] = batch && rank > 2 && i < rank - 1 ? (i + 1) % (rank - 1) : i;
	if (transpose && rank > 1) {
		int last = p[rank - 1];

		p[rank - 1] = p[rank - 2];
		p[rank - 2] = last;
	}
}

static const char *const fused_attr[2][2] = { { "transBatchA", "transA" }, { "transBatchB", "transB" } };

/* Softmax, alone of the activations, needs an axis of the product. */
static enum linnet_code softmax_axis(const struct shape_call *c)
{
	int rank = c->out[0].shape.rank, axis;
	const struct attr *given;

	if (op_attr_index(c->op, "activation") < 0 || rank < 0)
		return LINNET_OK;
	given = attr_get(c->op, c->attr, "activation");
	if (given->s.n != strlen("Softmax") || memcmp(given->s.p, "Softmax", given->s.n))
		return LINNET_OK;
	given = attr_get(c->op, c->attr, "activation_axis");
	return axis_check(attr_given(given) ? given->i : -1, rank, &axis, c->e);
}

static enum linnet_code shape_fused_matmul(struct shape_call *c)
{
	struct type operand[2];
	struct shape_call inner = *c;

	for (int i = 0; i < 2; i++) {
		int p[MAX_RANK];

		operand[i] = *c->in[i];
		if (operand[i].shape.rank < 0)
			continue;
		matmul_order(operand[i].shape.rank, int_attr(c, fused_attr[i][0]), int_attr(c, fused_attr[i][1]), p);
		permute_shape(&operand[i].shape, p);
	}
	inner.op = op_newest(NULL, "MatMul");
	inner.in = (const struct type *[]){ &operand[0], &operand[1] };
	TRY(inner.op->shape(&inner));
	return softmax_axis(c);
}

/* Y = f(alpha op(A) op(B)) */
static enum linnet_code fused_matmul(struct kernel_call *c)
{
	double alpha = attr_get(c->op, c->attr, "alpha")->f;
	struct kernel_call inner = *c;
	const struct tensor *operand[2];
	struct tensor *y;

	for (int i = 0; i < 2; i++) {
		const struct tensor *t = c->in[i];
		int p[MAX_RANK];

		matmul_order(t->rank, attr_get(c->op, c->attr, fused_attr[i][0])->i, attr_get(c->op, c->attr, fused_attr[i][1])->i, p);
		TRY(permuted(c, t, p, &operand[i]));
	}
	TRY(product_new(c, c->out[0]->rank, c->out[0]->d, &y));
	inner.op = op_newest(NULL, "MatMul");
	inner.in = operand;
	inner.out = &y;
	TRY(inner.op->kernel(&inner));
	if (!attr_given(attr_get(c->op, c->attr, "activation")))
		return product_put(c, y, alpha);
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(y, i, alpha * tensor_get(y, i));
	TRY(activate(c, &y));
	return product_put(c, y, 1);
}

/* The sparse matrix is dense here: sparse constants of a model are. */
static enum linnet_code shape_sparse_matmul(struct shape_call *c)
{
	TRY(rank_check(c, 0, 2, 2));
	return shape_fused_matmul(c);
}

/* X: [..., K]  W: [K, N]  bias: [N]  Y: [..., N] */
static enum linnet_code shape_gemm_gelu(struct shape_call *c)
{
	const struct shape w = in_shape(c, 1), bias = in_shape(c, 2);
	struct shape_call inner = *c;

	TRY(rank_check(c, 1, 2, 2));
	TRY(rank_check(c, 2, 1, 1));
	if (w.rank == 2 && bias.rank == 1)
		TRY(length_join(c, "numbers of columns of W and of the bias", w.d[1], bias.d[0], NULL));
	inner.op = op_newest(NULL, "MatMul");
	return inner.op->shape(&inner);
}

/* Y = gelu(X W + bias), by a tanh */
static enum linnet_code gemm_gelu(struct kernel_call *c)
{
	const struct attr tanh_form = { .name = "approximate", .kind = ATTR_STRING, .s = { "tanh", 4 } };
	const struct tensor *bias = in_tensor(c, 2);
	struct kernel_call inner = *c;
	struct tensor *y;

	TRY(product_new(c, c->out[0]->rank, c->out[0]->d, &y));
	inner.op = op_newest(NULL, "MatMul");
	inner.out = &y;
	TRY(inner.op->kernel(&inner));
	for (int64_t i = 0; bias && i < y->n; i++)
		tensor_put(y, i, tensor_get(y, i) + tensor_get(bias, i % bias->n));
	TRY(apply(c, "Gelu", &tanh_form, 1, (const struct tensor *[]){ y }, 1, &y));
	return product_put(c, y, 1);
}

/* Y = f(alpha op(A) op(B) + beta C) */
static enum linnet_code fused_gemm(struct kernel_call *c)
{
	struct kernel_call inner = *c;
	struct attr attr[MAX_ATTRS];
	struct tensor *y;

	TRY(product_new(c, 2, c->out[0]->d, &y));
	inner.op = op_newest(NULL, "Gemm");
	attrs_by_name(c->op, c->attr, inner.op, attr);
	inner.attr = attr;
	inner.out = &y;
	TRY(inner.op->kernel(&inner));
	TRY(activate(c, &y));
	return product_put(c, y, 1);
}

/* ---- Convolutions ---- */

/* Which tensors have the channels last: X and Y: [N, ..., C], W: [M, ..., C / group]. */
struct channels {
	bool data_last, filter_last;
};

static const struct channels channels_first = { false, false }, channels_last = { true, true }, data_last = { true, false };

/* The axes of a tensor with channels last (or, back, first) in the order they have with channels first. */
static void channel_order(int rank, bool back, int p[MAX_RANK])
{
	p[0] = 0;
	for (int i = 1; i < rank; i++)
		p[i] = back ? (i == rank - 1 ? 1 : i + 1) : (i == 1 ? rank - 1 : i - 1);
}

/* activation_params has one member for each parameter of the function. */
static enum linnet_code check_params(struct shape_call *c)
{
	const struct attr *a = attr_get(c->op, c->attr, "activation"), *params = attr_get(c->op, c->attr, "activation_params");
	size_t n = 0;

	if (!attr_given(a))
		return LINNET_OK;
	if (text_is(a->s, "LeakyRelu"))
		n = 1;
	else if (text_is(a->s, "Clip") || text_is(a->s, "HardSigmoid"))
		n = 2;
	if (n && params->n != n)
		return fail(c->e, LINNET_EATTR, "activation_params has %zu members; %.*s has %zu parameters", params->n, (int)a->s.n, a->s.p, n);
	return LINNET_OK;
}

/* X, Y, Z: [N, C, ...] or [N, ..., C]  W: [M, C / group, ...] or [M, ..., C / group]  B: [M]  Z is added: as Y. */
static enum linnet_code shape_fused_conv(struct shape_call *c)
{
	const struct channels *order = c->op->param;
	struct shape_call inner = *c;
	struct attr attr[MAX_ATTRS];
	struct shape *y = &c->out[0].shape;
	const struct shape z = in_shape(c, 3);
	struct type operand[2];
	int p[MAX_RANK];

	TRY(check_params(c));
	for (int i = 0; i < 2; i++) {
		operand[i] = *c->in[i];
		if (operand[i].shape.rank < 3 || !(i ? order->filter_last : order->data_last))
			continue;
		channel_order(operand[i].shape.rank, false, p);
		permute_shape(&operand[i].shape, p);
	}
	inner.op = op_newest(NULL, "Conv");
	attrs_by_name(c->op, c->attr, inner.op, attr);
	inner.attr = attr;
	inner.nin = c->nin < 3 ? c->nin : 3;
	inner.in = (const struct type *[]){ &operand[0], &operand[1], c->nin > 2 ? c->in[2] : NULL };
	TRY(inner.op->shape(&inner));
	if (y->rank < 0)
		return LINNET_OK;
	if (order->data_last) {
		channel_order(y->rank, true, p);
		permute_shape(y, p);
	}
	TRY(rank_check(c, 3, y->rank, y->rank));
	for (int i = 0; i < z.rank; i++)
		TRY(length_join(c, "lengths of the output and of Z", y->d[i], z.d[i], &y->d[i]));
	return LINNET_OK;
}

/* Y = f(conv(X, W) + B + Z) */
static enum linnet_code fused_conv(struct kernel_call *c)
{
	const struct channels *order = c->op->param;
	const struct tensor *x = c->in[0], *z = in_tensor(c, 3);
	struct shape d = shape_of(c->out[0]);
	struct kernel_call inner = *c;
	struct attr attr[MAX_ATTRS];
	const struct tensor *operand[3] = { x, c->in[1], in_tensor(c, 2) }, *y;
	struct tensor *product;
	int p[MAX_RANK];

	channel_order(x->rank, false, p);
	if (order->data_last) {
		permute_shape(&d, p);
		TRY(permuted(c, x, p, &operand[0]));
	}
	if (order->filter_last)
		TRY(permuted(c, c->in[1], p, &operand[1]));
	TRY(product_new(c, d.rank, d.d, &product));
	inner.op = op_newest(NULL, "Conv");
	attrs_by_name(c->op, c->attr, inner.op, attr);
	inner.attr = attr;
	inner.nin = c->nin < 3 ? c->nin : 3;
	inner.in = operand;
	inner.out = &product;
	TRY(inner.op->kernel(&inner));
	y = product;
	if (order->data_last) {
		channel_order(x->rank, true, p);
		TRY(permuted(c, product, p, &y));
	}
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(product, i, tensor_get(y, i) + (z ? tensor_get(z, i) : 0));
	TRY(activate(c, &product));
	return product_put(c, product, 1);
}

/*
 * The attributes of ConvTranspose with pads from an input; none when it is left out. Padding that is found automatically takes no
 * notice of them; with auto_pad VALID they count, as in onnxruntime.
 */
static void spread_attrs(const struct op *op, const struct attr *given, const int64_t *pads, int n, const struct op *to,
                         struct attr attr[MAX_ATTRS])
{
	struct attr *automatic;

	attrs_by_name(op, given, to, attr);
	attr[op_attr_index(to, "pads")] = (struct attr){ .name = "pads", .kind = ATTR_INTS, .n = (size_t)n, .ints = pads };
	automatic = &attr[op_attr_index(to, "auto_pad")];
	if (text_is(automatic->s, "VALID"))
		automatic->s = (struct text){ "NOTSET", 6 };
}

/* X: [N, C, ...]  W: [C, M / group, ...]  Pads: [2 axes of space], all begins, then all ends  B: [M] */
static enum linnet_code shape_spread(struct shape_call *c)
{
	const struct type *in[3] = { c->in[0], c->in[1], c->nin > 3 ? c->in[3] : NULL };
	struct shape *y = &c->out[0].shape;
	struct shape_call inner = *c;
	int space = c->in[0]->shape.rank - 2, n = 0;
	struct attr attr[MAX_ATTRS];
	dim pads[2 * MAX_RANK];
	bool known = true;

	if (in_given(c, 2)) {
		TRY(rank_check(c, 2, 1, 1));
		TRY(type_dims(c->in[2], pads, 2 * MAX_RANK, &n, c->e));
	}
	for (int i = 0; i < n; i++) {
		known &= dim_is_int(pads[i]);
		if (dim_is_int(pads[i]) && pads[i] < 0)
			return fail(c->e, LINNET_EVALUE, "pad %lld is negative", (long long)pads[i]);
	}
	if (n > 0 && space > 0 && n != 2 * space)
		return fail(c->e, LINNET_ESHAPE, "Pads has %d elements; expected %d, two for each axis of space", n, 2 * space);
	inner.op = op_newest(NULL, "ConvTranspose");
	spread_attrs(c->op, c->attr, pads, n < 0 || !known ? 0 : n, inner.op, attr);
	inner.attr = attr;
	inner.nin = 3;
	inner.in = in;
	TRY(inner.op->shape(&inner));
	for (int i = 2; (n < 0 || !known) && i < y->rank; i++)
		y->d[i] = DIM_NONE;
	return LINNET_OK;
}

static enum linnet_code spread(struct kernel_call *c)
{
	const struct tensor *in[3] = { c->in[0], c->in[1], in_tensor(c, 3) }, *given = in_tensor(c, 2);
	struct kernel_call inner = *c;
	struct attr attr[MAX_ATTRS];
	int64_t pads[2 * MAX_RANK];
	int n = given ? (int)given->n : 0;

	for (int i = 0; i < n; i++)
		pads[i] = tensor_get_int(given, i);
	inner.op = op_newest(NULL, "ConvTranspose");
	spread_attrs(c->op, c->attr, pads, n, inner.op, attr);
	inner.attr = attr;
	inner.nin = 3;
	inner.in = in;
	return inner.op->kernel(&inner);
}

/* ---- Inverse, CDist ---- */

/* X: [..., n, n] */
static enum linnet_code shape_inverse(struct shape_call *c)
{
	struct shape *s = &c->out[0].shape;

	TRY(rank_check(c, 0, 2, MAX_RANK));
	*s = in_shape(c, 0);
	if (s->rank < 0)
		return LINNET_OK;
	TRY(length_join(c, "numbers of rows and columns", s->d[s->rank - 2], s->d[s->rank - 1], &s->d[s->rank - 1]));
	s->d[s->rank - 2] = s->d[s->rank - 1];
	return LINNET_OK;
}

static void swap_rows(double *a, int64_t n, int64_t i, int64_t j)
{
	for (int64_t k = 0; k < n; k++) {
		double t = a[i * n + k];

		a[i * n + k] = a[j * n + k];
		a[j * n + k] = t;
	}
}

/* a: [n, n] to its inverse in b, by elimination with the largest pivot of each column; false where that is 0. a is used up. */
static bool invert(double *a, double *b, int64_t n)
{
	for (int64_t i = 0; i < n * n; i++)
		b[i] = i / n == i % n;
	for (int64_t k = 0; k < n; k++) {
		int64_t best = k;
		double pivot;

		for (int64_t i = k + 1; i < n; i++)
			if (fabs(a[i * n + k]) > fabs(a[best * n + k]))
				best = i;
		pivot = a[best * n + k];
		if (pivot == 0)
			return false;
		swap_rows(a, n, k, best);
		swap_rows(b, n, k, best);
		for (int64_t j = 0; j < n; j++) {
			a[k * n + j] /= pivot;
			b[k * n + j] /= pivot;
		}
		for (int64_t i = 0; i < n; i++) {
			double f = a[i * n + k];

			for (int64_t j = 0; j < n && i != k; j++) {
				a[i * n + j] -= f * a[k * n + j];
				b[i * n + j] -= f * b[k * n + j];
			}
		}
	}
	return true;
}

static enum linnet_code inverse(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct linnet_error *e = c->e;
	int64_t n = x->d[x->rank - 1], size = n * n;
	double *a, *b;

	if (x->n == 0)
		return LINNET_OK;
	TRY_NEW(a, c->scratch, size);
	TRY_NEW(b, c->scratch, size);
	for (int64_t at = 0; at < x->n; at += size) {
		for (int64_t i = 0; i < size; i++)
			a[i] = tensor_get(x, at + i);
		if (!invert(a, b, n))
			return fail(e, LINNET_EVALUE, "matrix %lld has no inverse", (long long)(at / size));
		for (int64_t i = 0; i < size; i++)
			tensor_put(c->out[0], at + i, b[i]);
	}
	return LINNET_OK;
}

/* A: [m, k]  B: [n, k]  C: [m, n] */
static enum linnet_code shape_distances(struct shape_call *c)
{
	const struct shape a = in_shape(c, 0), b = in_shape(c, 1);

	TRY(rank_check(c, 0, 2, 2));
	TRY(rank_check(c, 1, 2, 2));
	if (a.rank == 2 && b.rank == 2)
		TRY(length_join(c, "lengths of the rows", a.d[1], b.d[1], NULL));
	c->out[0].shape = (struct shape){ .rank = 2, .d = { a.rank == 2 ? a.d[0] : DIM_NONE, b.rank == 2 ? b.d[0] : DIM_NONE } };
	return LINNET_OK;
}

/* C[i, j] = sum over k of (A[i, k] - B[j, k])^2, or its root */
static enum linnet_code distances(struct kernel_call *c)
{
	bool root = text_is(attr_get(c->op, c->attr, "metric")->s, "euclidean");
	int64_t m = c->in[0]->d[0], n = c->in[1]->d[0], k = c->in[0]->d[1];
	const double *a, *b;

	TRY(kernel_doubles(c, 0, &a));
	TRY(kernel_doubles(c, 1, &b));
	for (int64_t i = 0; i < m * n; i++) {
		double sum = 0;

		for (int64_t l = 0; l < k; l++) {
			double d = a[i / n * k + l] - b[i % n * k + l];

			sum += d * d;
		}
		tensor_put(c->out[0], i, root ? sqrt(sum) : sum);
	}
	return LINNET_OK;
}

/* ---- Complex products ---- */

/* A, B, C: [..., 2], real and imaginary parts; the axes before broadcast. */
static enum linnet_code shape_complex(struct shape_call *c)
{
	for (int i = 0; i < 2; i++) {
		const struct shape s = in_shape(c, i);

		TRY(rank_check(c, i, 1, MAX_RANK));
		if (s.rank > 0)
			TRY(length_join(c, "the length of the last axis and 2", s.d[s.rank - 1], 2, NULL));
	}
	TRY(shape_broadcast(c));
	if (c->out[0].shape.rank > 0)
		c->out[0].shape.d[c->out[0].shape.rank - 1] = 2;
	return LINNET_OK;
}

/* C = A B, or A times the conjugate of B */
static enum linnet_code complex_mul(struct kernel_call *c)
{
	const struct tensor *a = c->in[0], *b = c->in[1];
	struct tensor *y = c->out[0];
	int64_t sa[MAX_RANK], sb[MAX_RANK], at[MAX_RANK] = { 0 };
	double sign = c->op->param ? -1 : 1;

	broadcast_strides(a, y->rank, sa);
	broadcast_strides(b, y->rank, sb);
	for (int64_t i = 0; i < y->n; i += 2) {
		int64_t p = 0, q = 0;

		for (int k = 0; k < y->rank - 1; k++) {
			p += at[k] * sa[k];
			q += at[k] * sb[k];
		}
		double u = tensor_get(a, p), v = tensor_get(a, p + 1), r = tensor_get(b, q), s = sign * tensor_get(b, q + 1);

		tensor_put(y, i, u * r - v * s);
		tensor_put(y, i + 1, u * s + v * r);
		next_position(y->rank - 1, y->d, at);
	}
	return LINNET_OK;
}

/* ---- UnfoldTensor ---- */

/* [..., n, ...] to [..., (n - size) / step + 1, ..., size] */
static enum linnet_code shape_unfold(struct shape_call *c)
{
	int64_t size = int_attr(c, "size"), step = int_attr(c, "step");
	struct shape s = in_shape(c, 0);
	dim n;
	int axis;

	if (s.rank < 0)
		return LINNET_OK;
	TRY(axis_check(int_attr(c, "dim"), s.rank, &axis, c->e));
	TRY(rank_limit(s.rank + 1, c->e));
	n = s.d[axis];
	if (dim_is_int(n) && n < size)
		return fail(c->e, LINNET_ESHAPE, "slices of %lld of an axis of length %lld", (long long)size, (long long)n);
	s.d[axis] = dim_add(c->dims, dim_div(c->dims, dim_sub(c->dims, n, size), step), 1);
	s.d[s.rank++] = size;
	c->out[0].shape = s;
	return LINNET_OK;
}

/* y[.., i, .., k] = x[.., i step + k, ..] */
static enum linnet_code unfold(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t from[MAX_RANK], to[MAX_RANK];
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "dim")->i, x->rank, &axis, c->e));
	strides(x->rank, x->d, from);
	strides(y->rank, y->d, to);
	from[x->rank] = from[axis];
	if (y->d[axis] > 1)
		from[axis] *= attr_get(c->op, c->attr, "step")->i;
	copy_box(y, 0, to, x, 0, from, y->rank, y->d);
	return LINNET_OK;
}

/* ---- Rows ---- */

#define ALPHA_ONE { .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }
#define GIVEN_FLOAT(title) { .name = title, .kind = ATTR_FLOAT, .flags = OPTIONAL }
#define LIST(title, least) { .name = title, .kind = ATTR_INTS, .s = "", .lo = (least), .hi = INT32_MAX }
#define CONV_ATTRS                                                                                 \
	{ .name = "auto_pad", .kind = ATTR_STRING, .s = "NOTSET", .oneof = "NOTSET|SAME_UPPER|SAME_LOWER|VALID" }, \
		LIST("dilations", 1), { .name = "group", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }, \
		LIST("kernel_shape", 1), LIST("strides", 1)
#define CONV_ACTIVATION                                                                            \
	{ .name = "activation", .kind = ATTR_STRING, .flags = OPTIONAL,                            \
	  .oneof = "Relu|Tanh|Sigmoid|LeakyRelu|Clip|HardSigmoid|HardSwish" },                     \
		{ .name = "activation_params", .kind = ATTR_FLOATS, .s = "" }
#define FUNCTIONS                                                                                  \
	"Celu|Elu|HardSigmoid|LeakyRelu|ParametricSoftplus|Relu|ScaledTanh|Selu|Sigmoid|Softplus|Softsign|Tanh|ThresholdedRelu"
#define COMPLEX_MUL(title, which, text)                                                            \
	{                                                                                          \
		MS, .name = title, .doc = text,                                                    \
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),                        \
		.out = OUT({ "C", T }),                                                            \
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16) },                        \
		.agree = AGREE_ROUND,                                                              \
		.shape = shape_complex,                                                            \
		.kernel = complex_mul,                                                             \
		.fuzz = { .shapes = FUZZ_CUSTOM },                                                 \
		.param = which,                                                                    \
	}

static const struct op rows[] = {
	{
		MS, .name = "FusedMatMul",
		.doc = "MatMul of operands whose axes change places first, times alpha.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(ALPHA_ONE, FLAG("transA"), FLAG("transB"), FLAG("transBatchA"), FLAG("transBatchB")),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_fused_matmul,
		.kernel = fused_matmul,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "FusedMatMulActivation",
		.doc = "FusedMatMul, then an activation function: an operator of ai.onnx, its parameters the attributes activation_...",
		.in = IN({ "A", T, FLOW_KINKED }, { "B", T, FLOW_KINKED }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "activation", .kind = ATTR_STRING, .flags = REQUIRED, .oneof = FUNCTIONS "|Softmax" },
		              GIVEN_FLOAT("activation_alpha"), { .name = "activation_axis", .kind = ATTR_INT, .flags = OPTIONAL },
		              GIVEN_FLOAT("activation_beta"), GIVEN_FLOAT("activation_gamma"), ALPHA_ONE, FLAG("transA"), FLAG("transB"),
		              FLAG("transBatchA"), FLAG("transBatchB")),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_fused_matmul,
		.kernel = fused_matmul,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "TransposeMatMul",
		.doc = "What FusedMatMul was called before.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(ALPHA_ONE, FLAG("transA"), FLAG("transB")),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_fused_matmul,
		.kernel = fused_matmul,
		.body = "{ Y = com.microsoft.FusedMatMul <alpha: float = @alpha, transA: int = @transA, transB: int = @transB> (A, B) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "SparseToDenseMatMul",
		.doc = "MatMul of a sparse matrix, transposed or not, and a dense operand, times alpha.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(ALPHA_ONE, FLAG("transA"), FLAG("transB")),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(INT32) | SET(INT64) | SET(UINT32) | SET(UINT64) },
		.agree = AGREE_ROUND,
		.shape = shape_sparse_matmul,
		.kernel = fused_matmul,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "FusedGemm",
		.doc = "Gemm, then an activation function: an operator of ai.onnx, its parameters the attributes activation_...",
		.in = IN({ "A", T, FLOW_KINKED }, { "B", T, FLOW_KINKED }, { "C", T, FLOW_KINKED, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "activation", .kind = ATTR_STRING, .flags = OPTIONAL, .oneof = FUNCTIONS },
		              GIVEN_FLOAT("activation_alpha"), GIVEN_FLOAT("activation_beta"), GIVEN_FLOAT("activation_gamma"), ALPHA_ONE,
		              { .name = "beta", .kind = ATTR_FLOAT, .f = 1 }, FLAG("transA"), FLAG("transB")),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16) | SET(INT32) | SET(INT64) | SET(UINT32) | SET(UINT64) },
		.agree = AGREE_ROUND,
		.shape = shape_standard,
		.kernel = fused_gemm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
		.param = "Gemm",
	},
	{
		MS, .name = "GemmFastGelu",
		.doc = "Gelu by a tanh of X W + bias.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "W", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.types = { [T] = HALF_FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_gemm_gelu,
		.kernel = gemm_gelu,
		.body = "?bias\n"
		        "{ m = MatMul (X, W)\n"
		        "  s = Add (m, bias)\n"
		        "  Y = Gelu <approximate = \"tanh\"> (s) }\n"
		        "{ m = MatMul (X, W)\n"
		        "  Y = Gelu <approximate = \"tanh\"> (m) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "FusedConv",
		.doc = "Conv plus Z, then an activation function: an operator of ai.onnx with activation_params in the order of its attributes "
		       "(Clip: min, max).",
		.in = IN({ "X", T, FLOW_KINKED }, { "W", T, FLOW_KINKED }, { "B", T, FLOW_KINKED, OPTIONAL }, { "Z", T, FLOW_KINKED, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(CONV_ACTIVATION, CONV_ATTRS, LIST("pads", 0)),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16) },
		.agree = AGREE_ROUND,
		.shape = shape_fused_conv,
		.kernel = fused_conv,
		.fuzz = { .shapes = FUZZ_CUSTOM },
		.param = &channels_first,
	},
	{
		MS, .name = "NhwcConv",
		.doc = "Conv with the channels of X, Y and W last (W: [M, ..., C / group], as onnxruntime computes; its documentation has it as "
		       "Conv's).",
		.in = IN({ "X", T, FLOW_LINEAR }, { "W", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(CONV_ATTRS, LIST("pads", 0)),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16) },
		.agree = AGREE_ROUND,
		.shape = shape_fused_conv,
		.kernel = fused_conv,
		.fuzz = { .shapes = FUZZ_CUSTOM },
		.param = &channels_last,
	},
	{
		MS, .name = "NhwcFusedConv",
		.doc = "FusedConv with the channels of X, Y and Z last; W is as Conv's.",
		.in = IN({ "X", T, FLOW_KINKED }, { "W", T, FLOW_KINKED }, { "B", T, FLOW_KINKED, OPTIONAL }, { "Z", T, FLOW_KINKED, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(CONV_ACTIVATION, CONV_ATTRS, LIST("pads", 0)),
		.types = { [T] = SET(FLOAT) | SET(FLOAT16) },
		.agree = AGREE_ROUND,
		.shape = shape_fused_conv,
		.kernel = fused_conv,
		.fuzz = { .shapes = FUZZ_CUSTOM },
		.param = &data_last,
	},
	{
		MS, .name = "ConvTransposeWithDynamicPads",
		.doc = "ConvTranspose whose pads are an input; none when that is left out, which onnxruntime refuses.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "W", T, FLOW_LINEAR }, { "Pads", T1, FLOW_NONE, OPTIONAL }, { "B", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(CONV_ATTRS, LIST("output_padding", 0)),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16), [T1] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_spread,
		.kernel = spread,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Inverse",
		.doc = "The inverse of every matrix.",
		.in = IN({ "X", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T }),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16) },
		.agree = AGREE_ROUND,
		.shape = shape_inverse,
		.kernel = inverse,
		.write_grad = grad_inverse,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "CDist",
		.doc = "Distances of the rows of A and B, squared or not; onnxruntime has no other of the documented metrics.",
		.in = IN({ "A", T, FLOW_KINKED }, { "B", T, FLOW_KINKED }),
		.out = OUT({ "C", T }),
		.attr = ATTRS({ .name = "metric", .kind = ATTR_STRING, .s = "sqeuclidean", .oneof = "euclidean|sqeuclidean" }),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) },
		.agree = AGREE_ROUND,
		.shape = shape_distances,
		.kernel = distances,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	COMPLEX_MUL("ComplexMul", NULL, "Products of complex numbers; the last axis is real and imaginary part."),
	COMPLEX_MUL("ComplexMulConj", "conjugate", "Products of complex numbers and the conjugates of others; see ComplexMul."),
	{
		MS, .name = "UnfoldTensor",
		.doc = "All slices of `size` of one axis, `step` apart, along a new last axis.",
		.in = IN({ "input", T, FLOW_LINEAR }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "dim", .kind = ATTR_INT, .i = -1 },
		              { .name = "size", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX },
		              { .name = "step", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }),
		.types = { [T] = COMMON },
		.agree = AGREE_BITS,
		.shape = shape_unfold,
		.kernel = unfold,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_dense_ops = FAMILY("contrib_dense", rows);
