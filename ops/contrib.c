/*
 * Operators of com.microsoft: what their families share, and those that are operators of ai.onnx under another name or with something
 * around them. Shape functions, reference kernels, then rows.
 */
#include "ops/contrib.h"

#include <string.h>

#include "ops/base/rng.h"

/* ---- Operators of ai.onnx ---- */

void attrs_by_name(const struct op *op, const struct attr *attr, const struct op *to, struct attr out[MAX_ATTRS])
{
	for (int i = 0; to->attr && to->attr[i].name; i++) {
		const struct op_attr *row = &to->attr[i];
		bool optional = row->flags & (OPTIONAL | REQUIRED);

		out[i] = op && op_attr_index(op, row->name) >= 0 ? *attr_get(op, attr, row->name)
			: (struct attr){ .kind = optional ? ATTR_NONE : row->kind, .i = row->i, .f = row->f };
		out[i].name = row->name;
		if (out[i].kind == ATTR_STRING && !out[i].s.p && row->s)
			out[i].s = (struct text){ row->s, strlen(row->s) };
	}
}

enum linnet_code shape_standard(struct shape_call *c)
{
	struct shape_call inner = *c;
	struct attr attr[MAX_ATTRS];

	inner.op = op_newest(NULL, c->op->param);
	attrs_by_name(c->op, c->attr, inner.op, attr);
	inner.attr = attr;
	return inner.op->shape(&inner);
}

enum linnet_code kernel_standard(struct kernel_call *c)
{
	struct kernel_call inner = *c;
	struct attr attr[MAX_ATTRS];

	inner.op = op_newest(NULL, c->op->param);
	attrs_by_name(c->op, c->attr, inner.op, attr);
	inner.attr = attr;
	return inner.op->kernel(&inner);
}

static enum linnet_code shape_expand_dims(struct shape_call *c)
{
	TRY(scalar_check(c, 1));
	return shape_standard(c);
}

/* Pads may be of shape [1, n] for Pad's [n]. */
static enum linnet_code shape_pad(struct shape_call *c)
{
	const struct type *in[3] = { c->in[0], c->in[1], c->nin > 2 ? c->in[2] : NULL };
	struct shape_call inner = *c;
	struct type pads = *c->in[1];
	struct tensor flat;

	TRY(rank_check(c, 1, 1, 2));
	if (pads.shape.rank == 2) {
		TRY(length_join(c, "numbers of rows of pads and 1", pads.shape.d[0], 1, NULL));
		pads.shape = (struct shape){ .rank = 1, .d = { pads.shape.d[1] } };
		if (pads.value) {
			flat = *pads.value;
			flat.rank = 1;
			flat.d[0] = flat.n;
			pads.value = &flat;
		}
		in[1] = &pads;
	}
	inner.in = in;
	return shape_standard(&inner);
}

static enum linnet_code pad(struct kernel_call *c)
{
	struct tensor flat = *c->in[1];
	const struct tensor *in[3] = { c->in[0], &flat, in_tensor(c, 2) };
	struct kernel_call inner = *c;

	flat.rank = 1;
	flat.d[0] = flat.n;
	inner.in = in;
	return kernel_standard(&inner);
}

/* The one that is Range's delta when it is left out. */
static void one_of_type(enum dtype dt, struct tensor *t, uint64_t *data)
{
	*t = (struct tensor){ .dt = dt, .n = 1, .bytes = dtype_bytes(dt, 1), .data = data };
	tensor_put(t, 0, 1);
}

static enum linnet_code shape_range(struct shape_call *c)
{
	struct shape_call inner = *c;
	uint64_t data;
	struct tensor one;
	struct type step;
	const struct type *in[3] = { c->in[0], c->in[1], &step };

	one_of_type(c->in[0]->dt, &one, &data);
	step = type_of(&one);
	if (in_given(c, 2))
		in[2] = c->in[2];
	inner.nin = 3;
	inner.in = in;
	return shape_standard(&inner);
}

static enum linnet_code range(struct kernel_call *c)
{
	struct kernel_call inner = *c;
	uint64_t data;
	struct tensor one;
	const struct tensor *in[3] = { c->in[0], c->in[1], &one };

	one_of_type(c->in[0]->dt, &one, &data);
	if (in_tensor(c, 2))
		in[2] = c->in[2];
	inner.nin = 3;
	inner.in = in;
	return kernel_standard(&inner);
}

/* x: [n]  y: [m], as they come  idx: [n], which of y every element is  counts: [m]; Unique has the places of y before idx. */
static enum linnet_code shape_unique(struct shape_call *c)
{
	const bool wanted[4] = { true, false, true, true };
	struct shape_call inner = *c;
	struct type out[4];

	TRY(rank_check(c, 0, 1, 1));
	for (int i = 0; i < 4; i++)
		out[i] = (struct type){ .dt = i ? DT_INT64 : c->out[0].dt, .shape.rank = -1 };
	inner.nout = 4;
	inner.out = out;
	inner.wanted = wanted;
	TRY(shape_standard(&inner));
	for (int i = 0; i < c->nout; i++)
		c->out[i] = out[i ? i + 1 : 0];
	return LINNET_OK;
}

static enum linnet_code unique(struct kernel_call *c)
{
	struct tensor *out[4] = { c->out[0], NULL, out_tensor(c, 1), out_tensor(c, 2) };
	const struct attr attr[] = { { .name = "axis" }, { .name = "sorted", .kind = ATTR_INT, .i = 0 } };
	struct kernel_call inner = *c;

	inner.op = op_newest(NULL, c->op->param);
	inner.attr = attr;
	inner.nout = 4;
	inner.out = out;
	return inner.op->kernel(&inner);
}

/* ---- Softmax and Dropout with a bias ---- */

static enum linnet_code shape_bias_softmax(struct shape_call *c)
{
	int axis;

	if (in_shape(c, 0).rank >= 0)
		TRY(axis_check(int_attr(c, "axis"), in_shape(c, 0).rank, &axis, c->e));
	return shape_same(c);
}

/*
 * Softmax of data + bias over all axes from `axis` on as one: rows of n elements. The rows of the bias, which are as long, repeat:
 * each in its place for several rows of the data, one after the other (inner), or all of them in turn.
 */
static enum linnet_code bias_softmax(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *bias = c->in[1];
	bool inner_rows = attr_get(c->op, c->attr, "is_inner_broadcast")->i;
	const struct attr last = { .name = "axis", .kind = ATTR_INT, .i = -1 };
	struct kernel_call inner = *c;
	struct tensor *sum, *y;
	int64_t d[2] = { 1, 1 }, rows;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, c->e));
	for (int i = 0; i < x->rank; i++)
		d[i >= axis] *= x->d[i];
	rows = d[1] ? bias->n / d[1] : 0;
	if (x->n == 0)
		return LINNET_OK;
	if (rows == 0 || rows * d[1] != bias->n || d[0] % rows)
		return fail(c->e, LINNET_ESHAPE, "the bias has %lld elements; the data has %lld rows of %lld", (long long)bias->n,
		            (long long)d[0], (long long)d[1]);
	TRY(tensor_new(c->scratch, DT_DOUBLE, 2, d, &sum, c->e));
	TRY(tensor_new(c->scratch, DT_DOUBLE, 2, d, &y, c->e));
	for (int64_t i = 0; i < x->n; i++) {
		int64_t row = inner_rows ? i / d[1] / (d[0] / rows) : i / d[1] % rows;

		tensor_put(sum, i, tensor_get(x, i) + tensor_get(bias, row * d[1] + i % d[1]));
	}
	inner.op = op_newest(NULL, "Softmax");
	inner.attr = &last;
	inner.nin = 1;
	inner.in = (const struct tensor *[]){ sum };
	inner.out = &y;
	TRY(inner.op->kernel(&inner));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(c->out[0], i, tensor_get(y, i));
	return LINNET_OK;
}

/* Forms of Dropout: whether bias and residual come behind the data, whether the mask is of bits. */
struct dropout {
	bool biased, bits;
};

static const struct dropout dropout_biased = { true, false }, dropout_bits = { false, true }, dropout_both = { true, true };

/* bias: [D] or as data, residual: as data. mask: as data, or [words of 32 bits]. */
static enum linnet_code shape_dropout(struct shape_call *c)
{
	const struct dropout *form = c->op->param;
	const struct shape x = in_shape(c, 0);
	int ratio = form->biased ? 3 : 1;

	TRY(scalar_check(c, ratio));
	TRY(scalar_check(c, ratio + 1));
	for (int i = 1; i < ratio; i++) {
		const struct shape s = in_shape(c, i);

		if (x.rank < 0 || s.rank < 0)
			continue;
		if (s.rank != x.rank && (i != 1 || s.rank != 1 || !x.rank))
			return fail(c->e, LINNET_ESHAPE, "input \"%s\" has rank %d; expected %s%d as data", c->op->in[i].name, s.rank,
			            i == 1 && x.rank ? "1 or " : "", x.rank);
		for (int k = 0; k < s.rank; k++)
			TRY(length_join(c, "lengths of data and what is added", x.d[x.rank - s.rank + k], s.d[k], NULL));
	}
	TRY(shape_same(c));
	if (c->nout > 1 && form->bits)
		c->out[1].shape = (struct shape){ .rank = 1, .d = { dim_ceil_div(c->dims, shape_count(c->dims, &x, 0, x.rank), 32) } };
	return LINNET_OK;
}

/* output = Dropout(data + bias) + residual */
static enum linnet_code dropout(struct kernel_call *c)
{
	const struct dropout *form = c->op->param;
	const struct tensor *x = c->in[0], *bias = form->biased ? c->in[1] : NULL, *residual = form->biased ? in_tensor(c, 2) : NULL;
	int at = form->biased ? 3 : 1;
	const struct tensor *in[3] = { NULL, in_tensor(c, at), in_tensor(c, at + 1) };
	bool drops = in[2] && tensor_get_int(in[2], 0) && (!in[1] || tensor_get(in[1], 0) != 0);
	struct tensor *sum, *out[2], *mask = out_tensor(c, 1);
	struct kernel_call inner = *c;
	struct attr attr[MAX_ATTRS];

	TRY(tensor_new(c->scratch, DT_DOUBLE, x->rank, x->d, &sum, c->e));
	TRY(tensor_new(c->scratch, DT_DOUBLE, x->rank, x->d, &out[0], c->e));
	TRY(tensor_new(c->scratch, DT_BOOL, x->rank, x->d, &out[1], c->e));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(sum, i, tensor_get(x, i) + (bias ? tensor_get(bias, i % bias->n) : 0));
	in[0] = sum;
	inner.op = op_newest(NULL, "Dropout");
	attrs_by_name(c->op, c->attr, inner.op, attr);
	inner.attr = attr;
	inner.nin = 3;
	inner.in = in;
	inner.nout = 2;
	inner.out = out;
	TRY(inner.op->kernel(&inner));
	for (int64_t i = 0; c->out[0] && i < x->n; i++)
		tensor_put(c->out[0], i, tensor_get(out[0], i) + (residual ? tensor_get(residual, i) : 0));
	if (mask && !form->bits) {
		tensor_copy(mask, out[1]);
		return LINNET_OK;
	}
	/* bits beyond the last element are set when nothing can be dropped, as in onnxruntime */
	for (int64_t i = 0; mask && i < mask->n; i++) {
		uint32_t word = drops ? 0 : UINT32_MAX;

		for (int64_t k = 0; k < 32 && drops && 32 * i + k < x->n; k++)
			word |= (uint32_t)tensor_get_int(out[1], 32 * i + k) << k;
		tensor_put_int(mask, i, word);
	}
	return LINNET_OK;
}

/* ---- Rfft, Irfft ---- */

/*
 * Rfft: X: [..., n1, ..., nk] to Y: [..., n1, ..., nk / 2 + 1, 2], k = signal_ndim. Irfft: back, to nk = 2 (m - 1) of m.
 */
static enum linnet_code shape_spectrum(struct shape_call *c)
{
	int64_t ndim = int_attr(c, "signal_ndim");
	bool back = c->op->param;
	struct shape s = in_shape(c, 0);
	dim *n;

	if (int_attr(c, "normalized") || !int_attr(c, "onesided"))
		return fail(c->e, LINNET_EATTR, "only spectra with onesided = 1 and normalized = 0 exist");
	if (s.rank < 0)
		return LINNET_OK;
	if (s.rank < ndim + back)
		return fail(c->e, LINNET_ESHAPE, "input \"X\" has rank %d; expected %lld or more", s.rank, (long long)ndim + back);
	TRY(rank_limit(s.rank + !back, c->e));
	n = &s.d[s.rank - 1 - back];
	if (back) {
		TRY(length_join(c, "the length of the last axis and 2", s.d[s.rank - 1], 2, NULL));
		*n = dim_mul(c->dims, 2, dim_sub(c->dims, *n, 1));
		s.rank--;
	}
	if (dim_is_int(*n) && *n < 1)
		return fail(c->e, LINNET_ESHAPE, "a signal of length %lld", (long long)*n);
	if (!back) {
		*n = dim_add(c->dims, dim_div(c->dims, *n, 2), 1);
		s.d[s.rank++] = 2;
	}
	c->out[0].shape = s;
	return LINNET_OK;
}

/* *x: [..., 1 or 2] to its DFT along one axis. */
static enum linnet_code transform(struct kernel_call *c, bool inverse, bool onesided, int axis, struct tensor **x)
{
	const struct op *op = op_newest(NULL, "DFT");
	int64_t at = axis, d[MAX_RANK];
	struct tensor place = { .dt = DT_INT64, .n = 1, .bytes = sizeof at, .data = &at };
	struct kernel_call inner = *c;
	struct attr attr[MAX_ATTRS];
	struct tensor *y;

	attrs_by_name(NULL, NULL, op, attr);
	attr[op_attr_index(op, "inverse")].i = inverse;
	attr[op_attr_index(op, "onesided")].i = onesided;
	memcpy(d, (*x)->d, sizeof d);
	d[(*x)->rank - 1] = onesided && inverse ? 1 : 2;
	if (onesided)
		d[axis] = inverse ? 2 * (d[axis] - 1) : d[axis] / 2 + 1;
	TRY(tensor_new(c->scratch, DT_DOUBLE, (*x)->rank, d, &y, c->e));
	inner.op = op;
	inner.attr = attr;
	inner.nin = 3;
	inner.in = (const struct tensor *[]){ *x, NULL, &place };
	inner.out = &y;
	TRY(op->kernel(&inner));
	*x = y;
	return LINNET_OK;
}

/* The last axis of the signal is transformed first, from real numbers; back it comes last. */
static enum linnet_code spectrum(struct kernel_call *c)
{
	int ndim = (int)attr_get(c->op, c->attr, "signal_ndim")->i, rank = c->in[0]->rank;
	bool back = c->op->param;
	int last = back ? rank - 2 : rank - 1;
	int64_t d[MAX_RANK];
	struct tensor *x;

	if (c->out[0]->n == 0)
		return LINNET_OK;
	memcpy(d, c->in[0]->d, sizeof d);
	if (!back)
		d[rank++] = 1;
	TRY(tensor_new(c->scratch, DT_DOUBLE, rank, d, &x, c->e));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(x, i, tensor_get(c->in[0], i));
	if (!back)
		TRY(transform(c, false, true, last, &x));
	for (int axis = last - ndim + 1; axis < last; axis++)
		TRY(transform(c, back, false, axis, &x));
	if (back)
		TRY(transform(c, true, true, last, &x));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(c->out[0], i, tensor_get(x, i));
	return LINNET_OK;
}

/* ---- Others ---- */

/*
 * Z = scale X, S = 1 / (1 + e^-Z), Y = Z S, each rounded to X's type. Input scale wins over attribute alpha.
 */
static enum linnet_code scaled_silu(struct kernel_call *c)
{
	double scale = in_tensor(c, 1) ? tensor_get(c->in[1], 0) : attr_get(c->op, c->attr, "alpha")->f;
	struct tensor *y = c->out[0];

	for (int64_t i = 0; i < y->n; i++) {
		double z;

		tensor_put(y, i, scale * tensor_get(c->in[0], i));
		z = tensor_get(y, i);
		tensor_put(y, i, 1 / (1 + exp(-z)));
		tensor_put(y, i, z * tensor_get(y, i));
	}
	return LINNET_OK;
}

static enum linnet_code shape_scaled_silu(struct shape_call *c)
{
	TRY(rank_check(c, 1, 0, 0));
	return shape_same(c);
}

static enum linnet_code shape_all_finite(struct shape_call *c)
{
	if (int_attr(c, "isinf_only") && int_attr(c, "isnan_only"))
		return fail(c->e, LINNET_EATTR, "isinf_only and isnan_only exclude each other");
	c->out[0].shape = (struct shape){ .rank = 0 };
	return LINNET_OK;
}

static enum linnet_code all_finite(struct kernel_call *c)
{
	bool inf = !attr_get(c->op, c->attr, "isnan_only")->i, nan = !attr_get(c->op, c->attr, "isinf_only")->i, all = true;

	for (int i = 0; i < c->nin; i++)
		for (int64_t k = 0; c->in[i] && k < c->in[i]->n && all; k++) {
			double x = tensor_get(c->in[i], k);

			all = !((inf && isinf(x)) || (nan && isnan(x)));
		}
	tensor_put_int(c->out[0], 0, all);
	return LINNET_OK;
}

/*
 * The cheapest way from (0, 0) to (m - 1, n - 1) through costs x: [m, n] by steps to the next row, column or both. Of equally cheap
 * ways to a point that from the same row is taken, unless both others are dearer; from rows and columns outside none comes, but
 * where all costs are infinite or none is a number, the way may begin at another point of the first column.
 * from (may be NULL): scratch for the steps; path: 2 rows of m + n numbers, of which *length are used, backwards.
 */
enum step { BOTH, ROW, COLUMN };

static enum linnet_code warp(const struct tensor *x, struct arena *a, int64_t **path, int64_t *length, struct linnet_error *e)
{
	int64_t m = x->d[x->rank - 2], n = x->d[x->rank - 1], i = m, j = n;
	double *cost;
	uint8_t *step;

	*length = 0;
	TRY_NEW(cost, a, (m + 1) * (n + 1));
	TRY_NEW(step, a, (m + 1) * (n + 1));
	TRY_NEW(*path, a, 2 * (m + n));
	for (int64_t k = 1; k <= m; k++)
		cost[k * (n + 1)] = INFINITY;
	for (int64_t k = 1; k <= n; k++)
		cost[k] = INFINITY;
	for (int64_t row = 1; row <= m; row++)
		for (int64_t column = 1; column <= n; column++) {
			int64_t at = row * (n + 1) + column;
			double both = cost[at - n - 2], up = cost[at - n - 1], left = cost[at - 1];

			step[at] = both < up && both < left ? BOTH : up < both && up < left ? ROW : COLUMN;
			cost[at] = (step[at] == BOTH ? both : step[at] == ROW ? up : left) +
			           tensor_get(x, (row - 1) * n + column - 1);
		}
	while (i > 0 && j > 0) {
		enum step s = (enum step)step[i * (n + 1) + j];

		(*path)[2 * *length] = i - 1;
		(*path)[2 * (*length)++ + 1] = j - 1;
		i -= s != COLUMN;
		j -= s != ROW;
	}
	return LINNET_OK;
}

/* input: [m, n] or [1, m, n]  output: [2, points] */
static enum linnet_code shape_warp(struct shape_call *c)
{
	const struct shape s = in_shape(c, 0);
	dim length = DIM_NONE;

	TRY(rank_check(c, 0, 2, 3));
	if (s.rank == 3)
		TRY(length_join(c, "the first length and 1", s.d[0], 1, NULL));
	if (c->in[0]->value) {
		struct arena *a = arena_new();
		enum linnet_code code;
		int64_t *path;

		if (!a)
			return fail_mem(c->e);
		code = warp(c->in[0]->value, a, &path, &length, c->e);
		arena_free(a);
		TRY(code);
	}
	c->out[0].shape = (struct shape){ .rank = 2, .d = { 2, length } };
	return LINNET_OK;
}

static enum linnet_code time_warping(struct kernel_call *c)
{
	int64_t *path, n;

	TRY(warp(c->in[0], c->scratch, &path, &n, c->e));
	for (int64_t i = 0; i < 2 * n; i++)
		tensor_put_int(c->out[0], i, path[2 * (n - 1 - i % n) + i / n]);
	return LINNET_OK;
}

/* ---- Rows ---- */

#define IEEE (SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16))
#define SPECTRUM FLAG("normalized"), { .name = "onesided", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }
#define SEED { .name = "seed", .kind = ATTR_INT, .flags = OPTIONAL }

static const struct op rows[] = {
	{
		MS, .name = "ExpandDims",
		.doc = "With one more axis of length 1, at the given place of the output; onnxruntime counts negative places from the back as "
		       "Unsqueeze does.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "axis", T1 }),
		.out = OUT({ "Y", T }),
		.types = { [T] = COMMON & ~SET(BFLOAT16), [T1] = SET(INT32) },
		.agree = AGREE_BITS, .flags = OP_VIEW,
		.shape = shape_expand_dims, .kernel = kernel_standard, .param = "Unsqueeze",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "GatherND",
		.doc = "GatherND of ai.onnx.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "indices", T1 }),
		.out = OUT({ "output", T }),
		.types = { [T] = COMMON & ~SET(BFLOAT16), [T1] = INDICES },
		.agree = AGREE_BITS,
		.shape = shape_standard, .kernel = kernel_standard, .param = "GatherND",
		.body = "{ wide = Cast <to = 7> (indices)\n"
		        "  output = GatherND (data, wide) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Pad",
		.doc = "Pad of ai.onnx, whose pads may be a row.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "pads", T1 }, { "value", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "mode", .kind = ATTR_STRING, .s = "constant", .oneof = "constant|reflect|edge|wrap" }),
		.types = { [T] = IEEE, [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_pad, .kernel = pad, .param = "Pad",
		.body = "{ line = Constant <value_ints = [-1]> ()\n"
		        "  flat = Reshape (pads, line)\n"
		        "  output = Pad <mode: string = @mode> (data, flat, value) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Range",
		.doc = "Range of ai.onnx, whose delta is 1 when left out.",
		.in = IN({ "start", T }, { "limit", T }, { "delta", T, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.types = { [T] = SET(FLOAT) | SET(DOUBLE) | SET(INT16) | SET(INT32) | SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_range, .kernel = range, .param = "Range",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Trilu",
		.doc = "Trilu of ai.onnx.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "k", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "upper", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }),
		.types = { [T] = NUMBERS | SET(BOOL), [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_standard, .kernel = kernel_standard, .param = "Trilu",
		.body = "{ Y = Trilu <upper: int = @upper> (X, k) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Unique",
		.doc = "Unique of ai.onnx for a vector, as the elements come; onnxruntime has every NaN differ from all others.",
		.in = IN({ "x", T, FLOW_KINKED }),
		.out = OUT({ "y", T }, { "idx", T1 }, { "counts", T1 }),
		.types = { [T] = COMMON & ~SET(BFLOAT16), [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_unique, .kernel = unique, .param = "Unique",
		.body = "{ y, first, idx, counts = Unique <sorted = 0> (x) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "SampleOp",
		.doc = "The input.",
		.in = IN({ "X", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.types = { [T] = IEEE | SET(INT32) | SET(INT64) | SET(UINT32) | SET(UINT64) },
		.agree = AGREE_BITS, .flags = OP_VIEW,
		.shape = shape_standard, .kernel = kernel_standard, .param = "Identity",
		.body = "{ Y = Identity (X) }",
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		MS, .name = "BiasSoftmax",
		.doc = "Softmax of data + bias over all axes from one on together; the bias repeats along the axes just before, or along the first.",
		.in = IN({ "data", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = 1 },
		              { .name = "is_inner_broadcast", .kind = ATTR_INT, .flags = REQUIRED, .lo = 0, .hi = 1 }),
		.types = { [T] = IEEE },
		.agree = AGREE_ROUND,
		.shape = shape_bias_softmax, .kernel = bias_softmax,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "BiasDropout",
		.doc = "Dropout of data + bias, plus the residual.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "bias", T, FLOW_LINEAR }, { "residual", T, FLOW_LINEAR, OPTIONAL },
		         { "ratio", T1, FLOW_NONE, OPTIONAL }, { "training_mode", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "mask", T2, .flags = OPTIONAL }),
		.attr = ATTRS(SEED),
		.types = { [T] = FLOATS, [T1] = FLOATS, [T2] = SET(BOOL) },
		.agree = AGREE_ROUND,
		.shape = shape_dropout, .kernel = dropout, .param = &dropout_biased,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "BitmaskDropout",
		.doc = "Dropout whose mask is of bits, 32 to a number, the lowest first.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "ratio", T1, FLOW_NONE, OPTIONAL }, { "training_mode", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "mask", T3, .flags = OPTIONAL }),
		.attr = ATTRS(SEED),
		.types = { [T] = FLOATS, [T1] = FLOATS, [T2] = SET(BOOL), [T3] = SET(UINT32) },
		.agree = AGREE_BITS,
		.shape = shape_dropout, .kernel = dropout, .param = &dropout_bits,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "BitmaskBiasDropout",
		.doc = "BiasDropout whose mask is of bits, 32 to a number, the lowest first.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "bias", T, FLOW_LINEAR }, { "residual", T, FLOW_LINEAR, OPTIONAL },
		         { "ratio", T1, FLOW_NONE, OPTIONAL }, { "training_mode", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "mask", T3, .flags = OPTIONAL }),
		.attr = ATTRS(SEED),
		.types = { [T] = FLOATS, [T1] = FLOATS, [T2] = SET(BOOL), [T3] = SET(UINT32) },
		.agree = AGREE_ROUND,
		.shape = shape_dropout, .kernel = dropout, .param = &dropout_both,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Rfft",
		.doc = "The Fourier transform of a real signal over its last axes, half of the spectrum; pairs are real and imaginary part.",
		.in = IN({ "X", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(SPECTRUM, { .name = "signal_ndim", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = 3 }),
		.types = { [T] = IEEE },
		.agree = AGREE_ROUND,
		.shape = shape_spectrum, .kernel = spectrum,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Irfft",
		.doc = "The real signal, of even length, whose Rfft this is, divided by the number of its elements.",
		.in = IN({ "X", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(SPECTRUM, { .name = "signal_ndim", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = 3 }),
		.types = { [T] = IEEE },
		.agree = AGREE_ROUND,
		.shape = shape_spectrum, .kernel = spectrum, .param = "back",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "ScaledSiLU",
		.doc = "The number, scaled, times the logistic function of it; every step is rounded to the element type.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "scale", T1, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }),
		.types = { [T] = HALF_FLOATS, [T1] = HALF_FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_scaled_silu, .kernel = scaled_silu,
		.fuzz = { .shapes = FUZZ_CUSTOM, .lo = -4, .hi = 4 },
	},
	{
		MS, .name = "IsAllFinite",
		.doc = "Whether no element is infinite or NaN, or only one of these is looked for.",
		.in = IN({ "input", T, FLOW_NONE, VARIADIC }),
		.out = OUT({ "output", T1 }),
		.attr = ATTRS(FLAG("isinf_only"), FLAG("isnan_only")),
		.types = { [T] = FLOATS, [T1] = SET(BOOL) },
		.agree = AGREE_BITS,
		.shape = shape_all_finite, .kernel = all_finite,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "DynamicTimeWarping",
		.doc = "The points of the cheapest way from the first to the last element of a matrix of costs, rows and columns.",
		.in = IN({ "input", T, FLOW_NONE }),
		.out = OUT({ "output", T1 }),
		.types = { [T] = SET(FLOAT), [T1] = SET(INT32) },
		.agree = AGREE_BITS,
		.shape = shape_warp, .kernel = time_warping,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_ops = FAMILY("contrib", rows);
