/*
 * Numbers as small integers times a scale: quantising, back, and sums of products of quantised numbers. Reference
 * kernels, then rows.
 *
 * The products work on integers held exactly in doubles, by the shape functions and kernels of MatMul and Conv.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/quant.h"

#define QUANTISED                                                                                  \
	(QUANTISED_8 | SET(INT16) | SET(UINT16) | SET(INT4) | SET(UINT4) | SET(INT2) | SET(UINT2) | FLOAT8S | \
	 SET(FLOAT4E2M1) | SET(FLOAT6E2M3) | SET(FLOAT6E3M2))
#define SCALED (SET(FLOAT) | HALVES)

/* ---- QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear ---- */

/* Element types an attribute names by number: 0 is none. */
static enum linnet_code dtype_attr(const struct shape_call *c, const char *name, dtype_set admitted, enum dtype *out)
{
	int64_t t = attr_get(c->op, c->attr, name)->i;

	*out = DT_UNDEFINED;
	if (t == 0)
		return LINNET_OK;
	if (t < 0 || t >= DT_COUNT || !dtype_in((enum dtype)t, admitted))
		return fail(c->e, LINNET_EATTR, "attribute \"%s\" is %lld, which %s does not admit", name, (long long)t, c->op->name);
	*out = (enum dtype)t;
	return LINNET_OK;
}

/*
 * x: [...]. The scale is one number, or a vector along `axis`, or, with block_size B, has x's rank and one number for every B
 * along `axis`. The zero point has the shape of the scale; of single numbers one may be [] and the other [1].
 */
static enum linnet_code check_scale(struct shape_call *c)
{
	int64_t block = attr_get(c->op, c->attr, "block_size")->i;
	const struct shape *x = &c->in[0]->shape, *s = &c->in[1]->shape;
	const struct shape *z = c->nin > 2 && c->in[2] ? &c->in[2]->shape : NULL;
	int axis;

	c->out[0].shape = *x;
	if (z && s->rank >= 0 && z->rank >= 0) {
		if (s->rank + z->rank != 1)
			TRY(rank_check(c, 2, s->rank, s->rank));
		for (int i = 0; i < s->rank || i < z->rank; i++)
			TRY(length_join(c, "lengths of scale and zero point", i < s->rank ? s->d[i] : 1, i < z->rank ? z->d[i] : 1, NULL));
	}
	if (x->rank < 0 || s->rank < 0 || (s->rank <= 1 && shape_count(c->dims, s, 0, s->rank) == 1))
		return LINNET_OK;
	TRY(rank_check(c, 1, block ? x->rank : 1, block ? x->rank : 1));
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, c->e));
	if (!block)
		return length_join(c, "lengths of the axis and of the scale", x->d[axis], s->d[0], NULL);
	for (int i = 0; i < x->rank; i++)
		TRY(length_join(c, "lengths of the input, in blocks, and of the scale",
		                i == axis ? dim_ceil_div(c->dims, x->d[i], block) : x->d[i], s->d[i], NULL));
	return LINNET_OK;
}

static enum linnet_code shape_quantize(struct shape_call *c)
{
	enum dtype said;

	TRY(check_scale(c));
	TRY(dtype_attr(c, "precision", SCALED, &said));
	TRY(dtype_attr(c, "output_dtype", QUANTISED, &said));
	if (said != DT_UNDEFINED && c->out[0].dt != DT_UNDEFINED && said != c->out[0].dt)
		return fail(c->e, LINNET_ETYPE, "output_dtype is %s; the zero point is %s", dtype_name(said), dtype_name(c->out[0].dt));
	if (c->nin < 3 || !c->in[2])
		c->out[0].dt = said != DT_UNDEFINED ? said : DT_UINT8;
	return LINNET_OK;
}

static enum linnet_code shape_dequantize(struct shape_call *c)
{
	enum dtype said;

	TRY(check_scale(c));
	TRY(dtype_attr(c, "output_dtype", SCALED, &said));
	if (said != DT_UNDEFINED)
		c->out[0].dt = said;
	else if (dtype_in(c->in[1]->dt, SCALED))
		c->out[0].dt = c->in[1]->dt;
	else if (c->in[1]->dt != DT_UNDEFINED)
		return fail(c->e, LINNET_EATTR, "attribute \"output_dtype\" is needed with a scale of type %s", dtype_name(c->in[1]->dt));
	return LINNET_OK;
}

/* Which element of the scale belongs to which of x: [before, n, after]. block > 0: so many along n share one, of nscale. */
struct scaling {
	int64_t n, after, block, nscale;
};

static struct scaling scaling_of(const struct kernel_call *c)
{
	int64_t axis = attr_get(c->op, c->attr, "axis")->i, block = attr_get(c->op, c->attr, "block_size")->i;
	const struct tensor *x = c->in[0], *scale = c->in[1];
	struct scaling s = { .n = 1, .after = 1 };

	if (scale->n == 1)
		return s;
	axis += axis < 0 ? x->rank : 0;
	s.n = x->d[axis];
	for (int i = (int)axis + 1; i < x->rank; i++)
		s.after *= x->d[i];
	s.block = block;
	s.nscale = block ? scale->d[axis] : s.n;
	return s;
}

static int64_t scale_at(const struct kernel_call *c, const struct scaling *s, int64_t i)
{
	int64_t inner = i % s->after, along = i / s->after % s->n, outer = i / s->after / s->n;

	if (c->in[1]->n == 1)
		return 0;
	return s->block ? (outer * s->nscale + along / s->block) * s->after + inner : along;
}

enum linnet_code quant_bits_check(const struct shape_call *c, int64_t bits)
{
	if (bits != 2 && bits != 4 && bits != 8)
		return fail(c->e, LINNET_EATTR, "numbers have %lld bits; expected 2, 4 or 8", (long long)bits);
	return LINNET_OK;
}

enum linnet_code quant_block_check(const struct shape_call *c, int64_t block)
{
	if (block < 16 || (block & (block - 1)))
		return fail(c->e, LINNET_EATTR, "attribute \"block_size\" is %lld; expected a power of 2 from 16 on", (long long)block);
	return LINNET_OK;
}

void quant_put(struct tensor *y, int64_t i, double v, int64_t zero)
{
	unsigned bits = dtype_bits(y->dt);
	bool sign = dtype_class(y->dt) == CLASS_INT;
	double lo = sign ? -ldexp(1, (int)bits - 1) : 0, hi = ldexp(1, (int)bits - sign) - 1;
	double r = isnan(v) ? 0 : nearbyint(v) + (double)zero;

	tensor_put_int(y, i, (int64_t)(r < lo ? lo : r > hi ? hi : r));
}

/* A number rounded to an element type. */
static double rounded(enum dtype t, double v)
{
	double store;

	dtype_put(t, &store, 0, v);
	return dtype_get(t, &store, 0);
}

/* y = x / scale + zero point, the quotient in the type `precision` names or in that of the scale; in com.microsoft in float. */
static enum linnet_code quantize(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *scale = c->in[1], *zero = c->nin > 2 ? c->in[2] : NULL;
	int64_t precision = attr_get(c->op, c->attr, "precision")->i;
	bool saturate = attr_get(c->op, c->attr, "saturate")->i != 0;
	enum dtype t = precision ? (enum dtype)precision : dtype_in(scale->dt, SCALED) && !c->op->domain ? scale->dt : DT_FLOAT;
	struct scaling s = scaling_of(c);
	struct tensor *y = c->out[0];

	memset(y->data, 0, y->bytes); /* elements may be parts of bytes */
	for (int64_t i = 0; i < x->n; i++) {
		int64_t k = scale_at(c, &s, i);
		double q = rounded(t, tensor_get(x, i) / tensor_get(scale, k));

		if (dtype_class(y->dt) != CLASS_FLOAT)
			quant_put(y, i, q, zero ? tensor_get_int(zero, k) : 0);
		else if (dtype_in(y->dt, FLOAT8S))
			((uint8_t *)y->data)[i] = narrow_from_double(y->dt, q + (zero ? tensor_get(zero, k) : 0), saturate);
		else
			tensor_put(y, i, q + (zero ? tensor_get(zero, k) : 0));
	}
	return LINNET_OK;
}

/* y = (x - zero point) scale */
static enum linnet_code dequantize(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *scale = c->in[1], *zero = c->nin > 2 ? c->in[2] : NULL;
	struct scaling s = scaling_of(c);

	for (int64_t i = 0; i < x->n; i++) {
		int64_t k = scale_at(c, &s, i);

		tensor_put(c->out[0], i, (tensor_get(x, i) - (zero ? tensor_get(zero, k) : 0)) * tensor_get(scale, k));
	}
	return LINNET_OK;
}

static enum linnet_code shape_dynamic_quantize(struct shape_call *c)
{
	c->out[0].shape = c->in[0]->shape;
	c->out[1].shape = c->out[2].shape = (struct shape){ .rank = 0 };
	return LINNET_OK;
}

/*
 * The range of x, widened to hold 0, cut into 255 steps: each stage in float, as the operator's function body has it. Where
 * that divides by zero, all x being 0, the scale is 1.
 */
static enum linnet_code dynamic_quantize(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	double lo = 0, hi = 0, scale, zero;

	for (int64_t i = 0; i < x->n; i++) {
		lo = fmin(lo, tensor_get(x, i));
		hi = fmax(hi, tensor_get(x, i));
	}
	scale = rounded(DT_FLOAT, rounded(DT_FLOAT, hi - lo) / 255);
	if (scale == 0)
		scale = 1;
	zero = nearbyint(rounded(DT_FLOAT, -lo / scale));
	zero = zero > 255 ? 255 : zero;
	for (int64_t i = 0; i < x->n && c->out[0]; i++)
		quant_put(c->out[0], i, rounded(DT_FLOAT, tensor_get(x, i) / scale), (int64_t)zero);
	if (c->out[1])
		tensor_put(c->out[1], 0, scale);
	if (c->out[2])
		tensor_put(c->out[2], 0, zero);
	return LINNET_OK;
}

enum linnet_code quant_dynamic(struct kernel_call *c, const struct tensor *x, struct quant_operand *out)
{
	struct tensor *y[3];

	TRY(tensor_new(c->scratch, DT_UINT8, x->rank, x->d, &y[0], c->e));
	TRY(tensor_new(c->scratch, DT_FLOAT, 0, NULL, &y[1], c->e));
	TRY(tensor_new(c->scratch, DT_UINT8, 0, NULL, &y[2], c->e));
	*out = (struct quant_operand){ y[0], y[1], y[2] };
	return quant_call(c, NULL, "DynamicQuantizeLinear", 1, &x, 3, y);
}

/* ---- Other rows' shapes and kernels ---- */

enum { MAX_ATTRS = 12, MAX_OPERANDS = 8 };

/* The attributes of a call for another row: the call's where it has them, else the row's defaults; lists are then empty. */
static void attrs_as(const struct op *op, const struct attr *attr, const struct op *as, struct attr out[MAX_ATTRS])
{
	assert(op_nattr(as) <= MAX_ATTRS);
	for (int i = 0; i < op_nattr(as); i++) {
		const struct op_attr *row = &as->attr[i];

		out[i] = *attr_get(op, attr, row->name);
		if (attr_given(&out[i]) || row->flags & OPTIONAL || row->kind == ATTR_STRINGS)
			continue;
		out[i] = (struct attr){ .name = row->name, .kind = row->kind, .i = row->i, .f = row->f };
		if (row->s)
			out[i].s = (struct text){ row->s, strlen(row->s) };
	}
}

/* Numbers quantised are not the numbers meant: inputs' values are not shown. */
enum linnet_code quant_shape(struct shape_call *c, const char *domain, const char *name, int n, const int *from)
{
	const struct type *in[MAX_OPERANDS];
	struct type plain[MAX_OPERANDS];
	struct attr attr[MAX_ATTRS];
	struct shape_call inner = *c;

	assert(n <= MAX_OPERANDS);
	for (int i = 0; i < n; i++) {
		in[i] = NULL;
		if (from[i] >= c->nin || !c->in[from[i]])
			continue;
		plain[i] = (struct type){ .dt = c->in[from[i]]->dt, .shape = c->in[from[i]]->shape };
		in[i] = &plain[i];
	}
	inner.op = op_newest(domain, name);
	attrs_as(c->op, c->attr, inner.op, attr);
	inner.attr = attr;
	inner.nin = n;
	inner.in = in;
	return inner.op->shape(&inner);
}

enum linnet_code quant_call(struct kernel_call *c, const char *domain, const char *name, int n, const struct tensor *const *in, int nout,
                            struct tensor *const *out)
{
	struct attr attr[MAX_ATTRS];
	struct kernel_call inner = *c;

	inner.op = op_newest(domain, name);
	if (!inner.op->kernel)
		return fail(c->e, LINNET_EUNSUPPORTED, "%s has no kernel", name);
	attrs_as(c->op, c->attr, inner.op, attr);
	inner.attr = attr;
	inner.nin = n;
	inner.in = in;
	inner.out = out;
	inner.nout = nout;
	return inner.op->kernel(&inner);
}

enum linnet_code quant_run(struct kernel_call *c, enum dtype t, const char *name, int n, const struct tensor *const *in, int rank,
                           const int64_t *d, struct tensor **out)
{
	TRY(tensor_new(c->scratch, t, rank, d, out, c->e));
	return quant_call(c, NULL, name, n, in, 1, out);
}

/* ---- Products ---- */

static enum linnet_code shape_matmul_integer(struct shape_call *c) { return quant_shape(c, NULL, "MatMul", 2, (int[]){ 0, 1 }); }
static enum linnet_code shape_qlinear_matmul(struct shape_call *c) { return quant_shape(c, NULL, "MatMul", 2, (int[]){ 0, 3 }); }
static enum linnet_code shape_conv_integer(struct shape_call *c) { return quant_shape(c, NULL, "Conv", 2, (int[]){ 0, 1 }); }
static enum linnet_code shape_qlinear_conv(struct shape_call *c) { return quant_shape(c, NULL, "Conv", 3, (int[]){ 0, 3, 8 }); }

enum linnet_code quant_centre(struct kernel_call *c, const struct tensor *x, const struct tensor *zero, const struct tensor *scale,
                              int axis, struct tensor **out)
{
	const struct tensor *by[2] = { zero, scale };
	int64_t stride[2][MAX_RANK] = { { 0 } }, at[MAX_RANK] = { 0 }, i = 0;
	enum linnet_code code;

	for (int k = 0; k < 2; k++) {
		if (!by[k] || by[k]->n == 1)
			continue;
		if (by[k]->rank > x->rank)
			return fail(c->e, LINNET_ESHAPE, "scale or zero point has rank %d; the operand has %d", by[k]->rank, x->rank);
		if (by[k]->rank == 1 && x->rank > 1)
			stride[k][axis < 0 ? x->rank + axis : axis] = 1;
		else
			broadcast_strides(by[k], x->rank, stride[k]);
		for (int j = 0; j < x->rank; j++) {
			int64_t n = stride[k][j] ? by[k]->d[by[k]->rank == 1 ? 0 : j + by[k]->rank - x->rank] : x->d[j];

			if (n != x->d[j])
				return fail(c->e, LINNET_ESHAPE, "scale or zero point has length %lld; the operand has %lld", (long long)n,
				            (long long)x->d[j]);
		}
	}
	code = tensor_new(c->scratch, DT_DOUBLE, x->rank, x->d, out, c->e);
	if (code || !x->n)
		return code;
	do {
		int64_t z = 0, s = 0;

		for (int j = 0; j < x->rank; j++) {
			z += at[j] * stride[0][j];
			s += at[j] * stride[1][j];
		}
		tensor_put(*out, i, (tensor_get(x, i) - (zero ? tensor_get(zero, z) : 0)) * (scale ? tensor_get(scale, s) : 1));
		i++;
	} while (next_position(x->rank, x->d, at));
	return LINNET_OK;
}

/* Scales are by row or column, which are these axes of the sums. */
static enum linnet_code rescale(struct kernel_call *c, const struct tensor *a_scale, int axis_a, const struct tensor *b_scale, int axis_b,
                                const struct tensor *scale, struct tensor *y)
{
	struct tensor *factor;

	if (!a_scale || !b_scale)
		return LINNET_OK;
	TRY(tensor_new(c->scratch, DT_DOUBLE, y->rank, y->d, &factor, c->e));
	for (int64_t i = 0; i < factor->n; i++)
		tensor_put(factor, i, 1);
	TRY(quant_centre(c, factor, NULL, a_scale, axis_a, &factor));
	TRY(quant_centre(c, factor, NULL, b_scale, axis_b, &factor));
	for (int64_t i = 0; i < y->n; i++) {
		double f = rounded(DT_FLOAT, tensor_get(factor, i));

		if (scale)
			f = rounded(DT_FLOAT, f / tensor_get(scale, 0));
		tensor_put(y, i, rounded(DT_FLOAT, rounded(DT_FLOAT, tensor_get(y, i)) * f));
	}
	return LINNET_OK;
}

/* Where B is a vector the output has no columns. */
enum linnet_code quant_matmul(struct kernel_call *c, const struct quant_operand *a, const struct quant_operand *b,
                              const struct tensor *scale, struct tensor **y)
{
	struct tensor *l, *r;

	TRY(quant_centre(c, a->x, a->zero, NULL, -2, &l));
	TRY(quant_centre(c, b->x, b->zero, NULL, -1, &r));
	TRY(quant_run(c, DT_DOUBLE, "MatMul", 2, (const struct tensor *[]){ l, r }, c->out[0]->rank, c->out[0]->d, y));
	return rescale(c, a->scale, b->x->rank == 1 ? -1 : -2, b->scale, -1, scale, *y);
}

enum linnet_code quant_conv(struct kernel_call *c, const struct quant_operand *x, const struct quant_operand *w,
                            const struct tensor *bias, const struct tensor *scale, const struct shape *s, struct tensor **y)
{
	struct tensor *l, *r;

	TRY(quant_centre(c, x->x, x->zero, NULL, 1, &l));
	TRY(quant_centre(c, w->x, w->zero, NULL, 0, &r));
	TRY(quant_run(c, DT_DOUBLE, "Conv", bias ? 3 : 2, (const struct tensor *[]){ l, r, bias }, s->rank, s->d, y));
	return rescale(c, x->scale, 1, w->scale, 1, scale, *y);
}

static const struct tensor *optional(const struct kernel_call *c, int i) { return i < c->nin ? c->in[i] : NULL; }

/* Sums that the type cannot hold wrap. */
enum linnet_code quant_sums(struct kernel_call *c, const struct tensor *y)
{
	for (int64_t i = 0; i < y->n; i++)
		tensor_put_int(c->out[0], i, (int64_t)tensor_get(y, i));
	return LINNET_OK;
}

static enum linnet_code matmul_integer(struct kernel_call *c)
{
	struct tensor *y;

	TRY(quant_matmul(c, &(struct quant_operand){ c->in[0], NULL, optional(c, 2) },
	                 &(struct quant_operand){ c->in[1], NULL, optional(c, 3) }, NULL, &y));
	return quant_sums(c, y);
}

static enum linnet_code conv_integer(struct kernel_call *c)
{
	struct shape s = shape_of(c->out[0]);
	struct tensor *y;

	TRY(quant_conv(c, &(struct quant_operand){ c->in[0], NULL, optional(c, 2) },
	               &(struct quant_operand){ c->in[1], NULL, optional(c, 3) }, NULL, NULL, &s, &y));
	return quant_sums(c, y);
}

void quant_store(struct tensor *y, const struct tensor *x, const struct tensor *scale, const struct tensor *zero)
{
	for (int64_t i = 0; i < x->n; i++) {
		double q = rounded(x->dt, tensor_get(x, i) / (scale ? tensor_get(scale, 0) : 1));

		if (dtype_class(y->dt) == CLASS_FLOAT)
			tensor_put(y, i, q + (zero ? tensor_get(zero, 0) : 0));
		else
			quant_put(y, i, q, zero ? tensor_get_int(zero, 0) : 0);
	}
}

static enum linnet_code qlinear_matmul(struct kernel_call *c)
{
	struct tensor *y;

	TRY(quant_matmul(c, &(struct quant_operand){ c->in[0], c->in[1], c->in[2] },
	                 &(struct quant_operand){ c->in[3], c->in[4], c->in[5] }, c->in[6], &y));
	quant_store(c->out[0], y, NULL, c->in[7]);
	return LINNET_OK;
}

static enum linnet_code qlinear_conv(struct kernel_call *c)
{
	struct shape s = shape_of(c->out[0]);
	struct tensor *y;

	TRY(quant_conv(c, &(struct quant_operand){ c->in[0], c->in[1], c->in[2] },
	               &(struct quant_operand){ c->in[3], c->in[4], c->in[5] }, optional(c, 8), c->in[6], &s, &y));
	quant_store(c->out[0], y, NULL, c->in[7]);
	return LINNET_OK;
}

/* ---- Rows ---- */

static const struct op rows[] = {
	{
		.name = "QuantizeLinear", .since = 10,
		.doc = "The nearest integers (or narrow floats) to x / y_scale, plus y_zero_point; out of range ones saturate.",
		.in = IN({ "x", T1, FLOW_NONE }, { "y_scale", T2, FLOW_NONE }, { "y_zero_point", T3, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "y", T3 }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = 1, .since = 13 },
		              { .name = "block_size", .kind = ATTR_INT, .since = 21, .lo = 0, .hi = INT32_MAX },
		              { .name = "output_dtype", .kind = ATTR_INT, .since = 21 },
		              { .name = "precision", .kind = ATTR_INT, .since = 23 },
		              { .name = "saturate", .kind = ATTR_INT, .i = 1, .since = 19, .lo = 0, .hi = 1 }),
		.types = { [T1] = SCALED | SET(INT32), [T2] = SCALED | SET(INT32) | SET(FLOAT8E8M0), [T3] = QUANTISED },
		.agree = AGREE_BITS,
		.shape = shape_quantize,
		.kernel = quantize,
		.fast = FAST(&fast_quantize),
		.fuzz = { .shapes = FUZZ_CUSTOM, .lo = -4, .hi = 4 },
	},
	{
		.name = "DequantizeLinear", .since = 10,
		.doc = "The numbers that quantised ones stand for: (x - x_zero_point) x_scale.",
		.in = IN({ "x", T1, FLOW_NONE }, { "x_scale", T2, FLOW_LINEAR }, { "x_zero_point", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "y", T3 }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = 1, .since = 13 },
		              { .name = "block_size", .kind = ATTR_INT, .since = 21, .lo = 0, .hi = INT32_MAX },
		              { .name = "output_dtype", .kind = ATTR_INT, .since = 23 }),
		.types = { [T1] = QUANTISED | SET(INT32), [T2] = SCALED | SET(FLOAT8E8M0), [T3] = SCALED },
		.agree = AGREE_BITS,
		.write_grad = grad_dequantize,
		.shape = shape_dequantize,
		.kernel = dequantize,
		.fast = FAST(&fast_dequantize),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "DynamicQuantizeLinear", .since = 11,
		.doc = "Numbers quantised to uint8 by their own range.",
		.in = IN({ "x", T1, FLOW_NONE }),
		.out = OUT({ "y", T2 }, { "y_scale", T }, { "y_zero_point", T2 }),
		.types = { [T1] = SET(FLOAT), [T2] = SET(UINT8), [T] = SET(FLOAT) },
		.agree = AGREE_BITS,
		.shape = shape_dynamic_quantize,
		.kernel = dynamic_quantize,
		.fast = FAST(&fast_dynamic_quantize),
		.body = "{ none = Constant <value_float = 0.0> ()\n"
		        "  steps = Constant <value_float = 255.0> ()\n"
		        "  least = ReduceMin <keepdims = 0> (x)\n"
		        "  lo = Min (least, none)\n"
		        "  most = ReduceMax <keepdims = 0> (x)\n"
		        "  hi = Max (most, none)\n"
		        "  range = Sub (hi, lo)\n"
		        "  y_scale = Div (range, steps)\n"
		        "  down = Div (lo, y_scale)\n"
		        "  start = Sub (none, down)\n"
		        "  within = Clip (start, none, steps)\n"
		        "  whole = Round (within)\n"
		        "  y_zero_point = Cast <to = 2> (whole)\n"
		        "  y = QuantizeLinear (x, y_scale, y_zero_point) }",
		.fuzz = { .shapes = FUZZ_CUSTOM, .lo = -4, .hi = 4 },
	},
	{
		.name = "MatMulInteger", .since = 10,
		.doc = "MatMul of integers less their zero points, in 32 bits.",
		.in = IN({ "A", T1, FLOW_NONE }, { "B", T2, FLOW_NONE }, { "a_zero_point", T1, FLOW_NONE, OPTIONAL },
		         { "b_zero_point", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "Y", T3 }),
		.types = { [T1] = QUANTISED_8, [T2] = QUANTISED_8, [T3] = SET(INT32) },
		.agree = AGREE_BITS,
		.shape = shape_matmul_integer,
		.kernel = matmul_integer,
		.fast = FAST(&fast_integer_matmul),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "ConvInteger", .since = 10,
		.doc = "Conv of integers less their zero points, in 32 bits.",
		.in = IN({ "x", T1, FLOW_NONE }, { "w", T2, FLOW_NONE }, { "x_zero_point", T1, FLOW_NONE, OPTIONAL },
		         { "w_zero_point", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "y", T3 }),
		.attr = ATTRS(QUANT_CONV),
		.types = { [T1] = QUANTISED_8, [T2] = QUANTISED_8, [T3] = SET(INT32) },
		.agree = AGREE_BITS,
		.shape = shape_conv_integer,
		.kernel = conv_integer,
		.fast = FAST(&fast_integer_conv),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "QLinearMatMul", .since = 10,
		.doc = "MatMul of quantised numbers, quantised.",
		.in = IN({ "a", T1, FLOW_NONE }, { "a_scale", T, FLOW_NONE }, { "a_zero_point", T1, FLOW_NONE },
		         { "b", T2, FLOW_NONE }, { "b_scale", T, FLOW_NONE }, { "b_zero_point", T2, FLOW_NONE },
		         { "y_scale", T, FLOW_NONE }, { "y_zero_point", T3, FLOW_NONE }),
		.out = OUT({ "y", T3 }),
		.types = { [T] = SCALED, [T1] = QUANTISED_8 | FLOAT8S, [T2] = QUANTISED_8 | FLOAT8S, [T3] = QUANTISED_8 | FLOAT8S },
		.agree = AGREE_ROUND,
		.shape = shape_qlinear_matmul,
		.kernel = qlinear_matmul,
		.fast = FAST(&fast_integer_matmul),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "QLinearConv", .since = 10,
		.doc = "Conv of quantised numbers, quantised.",
		.in = IN({ "x", T1, FLOW_NONE }, { "x_scale", T, FLOW_NONE }, { "x_zero_point", T1, FLOW_NONE },
		         { "w", T2, FLOW_NONE }, { "w_scale", T, FLOW_NONE }, { "w_zero_point", T2, FLOW_NONE },
		         { "y_scale", T, FLOW_NONE }, { "y_zero_point", T3, FLOW_NONE }, { "B", T4, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "y", T3 }),
		.attr = ATTRS(QUANT_CONV),
		.types = { [T] = SET(FLOAT), [T1] = QUANTISED_8, [T2] = QUANTISED_8, [T3] = QUANTISED_8, [T4] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_qlinear_conv,
		.kernel = qlinear_conv,
		.fast = FAST(&fast_integer_conv),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family quant_ops = FAMILY("quant", rows);
