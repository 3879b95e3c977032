/* Rows of numbers scaled by their own statistics: the softmax family, normalizations. Reference kernels, then rows. */
#include <math.h>
#include <string.h>

#include "ops/op.h"

static enum linnet_code shape_axis(struct shape_call *c)
{
	int axis;

	c->out[0].shape = c->in[0]->shape;
	if (c->in[0]->shape.rank < 0)
		return LINNET_OK;
	return axis_check(attr_get(c->op, c->attr, "axis")->i, c->in[0]->shape.rank, &axis, c->e);
}

/* A tensor as [before, n, after], n the length of one axis. */
struct lines {
	int64_t before, n, after;
};

static int64_t product(const struct tensor *t, int from, int to)
{
	int64_t p = 1;

	for (int i = from; i < to; i++)
		p *= t->d[i];
	return p;
}

static struct lines lines_along(const struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t axis = attr_get(c->op, c->attr, "axis")->i;
	int a = (int)(axis < 0 ? axis + x->rank : axis);

	return (struct lines){ product(x, 0, a), x->d[a], product(x, a + 1, x->rank) };
}

/* One line of n numbers `stride` apart, from x + at, into y + at. */
typedef void line_fn(const double *x, struct tensor *y, int64_t at, int64_t n, int64_t stride);

static enum linnet_code each_line(struct kernel_call *c, line_fn *f)
{
	struct lines s = lines_along(c);
	const double *x;

	TRY(kernel_doubles(c, 0, &x));
	for (int64_t i = 0; i < s.before; i++)
		for (int64_t j = 0; j < s.after; j++)
			f(x, c->out[0], i * s.n * s.after + j, s.n, s.after);
	return LINNET_OK;
}

static double line_max(const double *x, int64_t at, int64_t n, int64_t stride)
{
	double m = -INFINITY;

	for (int64_t i = 0; i < n; i++)
		m = x[at + i * stride] > m ? x[at + i * stride] : m;
	return m;
}

/* y = exp(x - max x) / sum of exp(x - max x) */
static void softmax_line(const double *x, struct tensor *y, int64_t at, int64_t n, int64_t stride)
{
	double m = line_max(x, at, n, stride), sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += exp(x[at + i * stride] - m);
	for (int64_t i = 0; i < n; i++)
		tensor_put(y, at + i * stride, exp(x[at + i * stride] - m) / sum);
}

/* y = x - max x - log(sum of exp(x - max x)) */
static void log_softmax_line(const double *x, struct tensor *y, int64_t at, int64_t n, int64_t stride)
{
	double m = line_max(x, at, n, stride), sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += exp(x[at + i * stride] - m);
	for (int64_t i = 0; i < n; i++)
		tensor_put(y, at + i * stride, x[at + i * stride] - m - log(sum));
}

/* 1 at the first largest, else 0 */
static void hardmax_line(const double *x, struct tensor *y, int64_t at, int64_t n, int64_t stride)
{
	int64_t best = 0;

	for (int64_t i = 1; i < n; i++)
		if (x[at + i * stride] > x[at + best * stride])
			best = i;
	for (int64_t i = 0; i < n; i++)
		tensor_put(y, at + i * stride, i == best);
}

static enum linnet_code softmax(struct kernel_call *c) { return each_line(c, softmax_line); }
static enum linnet_code log_softmax(struct kernel_call *c) { return each_line(c, log_softmax_line); }
static enum linnet_code hardmax(struct kernel_call *c) { return each_line(c, hardmax_line); }

/* Scale and bias inputs must broadcast to X. */
static enum linnet_code broadcasts_to_first(struct shape_call *c, int i)
{
	const struct shape *x = &c->in[0]->shape;
	struct shape s;

	if (i >= c->nin || !c->in[i] || x->rank < 0 || c->in[i]->shape.rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, i, 0, x->rank));
	TRY(broadcast(c->dims, x, &c->in[i]->shape, &s, c->e));
	for (int k = 0; k < x->rank; k++)
		if (dim_is_int(x->d[k]) && dim_is_int(s.d[k]) && x->d[k] != s.d[k])
			return fail(c->e, LINNET_ESHAPE, "input \"%s\" has length %lld where \"%s\" has %lld",
			            op_in(c->op, i)->name, (long long)s.d[k], op_in(c->op, 0)->name, (long long)x->d[k]);
	return LINNET_OK;
}

/* The element type of a normalization's first stage. */
static enum linnet_code stash_type(const struct shape_call *c, dtype_set admitted, enum dtype *out)
{
	int64_t t = attr_get(c->op, c->attr, "stash_type")->i;

	if (t <= 0 || t >= DT_COUNT || !dtype_in((enum dtype)t, admitted))
		return fail(c->e, LINNET_EATTR, "stash_type is %lld, which %s does not admit", (long long)t, c->op->name);
	*out = (enum dtype)t;
	return LINNET_OK;
}

/* Y as X; Mean and InvStdDev with length 1 from `axis` on, in the type stash_type names. */
static enum linnet_code shape_layer_norm(struct shape_call *c)
{
	struct shape s = c->in[0]->shape;
	enum dtype stash;
	int axis = 0;

	TRY(stash_type(c, c->op->types[T1], &stash));
	TRY(broadcasts_to_first(c, 1));
	TRY(broadcasts_to_first(c, 2));
	if (s.rank >= 0)
		TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, s.rank, &axis, c->e));
	c->out[0].shape = s;
	for (int i = axis; i < s.rank; i++)
		s.d[i] = 1;
	for (int i = 1; i < c->nout; i++) {
		c->out[i].shape = s;
		c->out[i].dt = stash;
	}
	return LINNET_OK;
}

struct moments {
	double mean, var; /* of the population */
};

static struct moments moments(const double *x, int64_t n)
{
	struct moments m = { 0, 0 };

	for (int64_t i = 0; i < n; i++)
		m.mean += x[i];
	m.mean /= (double)n;
	for (int64_t i = 0; i < n; i++)
		m.var += (x[i] - m.mean) * (x[i] - m.mean);
	m.var /= (double)n;
	return m;
}

/* One number for each element of X, from a tensor that broadcasts to it. */
static enum linnet_code spread(struct kernel_call *c, int input, double absent, const double **out)
{
	const struct tensor *x = c->in[0], *t = input < c->nin ? c->in[input] : NULL;
	int64_t stride[MAX_RANK] = { 0 }, index[MAX_RANK] = { 0 };
	struct linnet_error *e = c->e;
	double *p;

	TRY_NEW(p, c->scratch, x->n);
	if (t)
		broadcast_strides(t, x->rank, stride);
	for (int64_t i = 0; i < x->n; i++) {
		int64_t at = 0;

		for (int k = 0; k < x->rank; k++)
			at += index[k] * stride[k];
		p[i] = t ? tensor_get(t, at) : absent;
		for (int k = x->rank - 1; k >= 0 && ++index[k] == x->d[k]; k--)
			index[k] = 0;
	}
	*out = p;
	return LINNET_OK;
}

/*
 * Over all axes from `axis` on: Y = (X - Mean) InvStdDev Scale + B, InvStdDev = 1 / sqrt(variance + epsilon).
 * Stage one's precision (stash_type) is a lower bound; it is double here.
 */
static enum linnet_code layer_norm(struct kernel_call *c)
{
	const double *x, *scale, *bias, eps = attr_get(c->op, c->attr, "epsilon")->f;
	struct lines s = lines_along(c);
	int64_t n = s.n * s.after;

	TRY(kernel_doubles(c, 0, &x));
	TRY(spread(c, 1, 1, &scale));
	TRY(spread(c, 2, 0, &bias));
	for (int64_t i = 0; i < s.before; i++) {
		struct moments m = moments(x + i * n, n);
		double inv = 1 / sqrt(m.var + eps);

		for (int64_t k = i * n; k < (i + 1) * n && c->out[0]; k++)
			tensor_put(c->out[0], k, (x[k] - m.mean) * inv * scale[k] + bias[k]);
		if (c->nout > 1 && c->out[1])
			tensor_put(c->out[1], i, m.mean);
		if (c->nout > 2 && c->out[2])
			tensor_put(c->out[2], i, inv);
	}
	return LINNET_OK;
}

static enum linnet_code shape_rms_norm(struct shape_call *c)
{
	enum dtype stash;

	TRY(stash_type(c, FLOATS, &stash));
	TRY(broadcasts_to_first(c, 1));
	return shape_axis(c);
}

/* Over all axes from `axis` on: Y = X / sqrt(mean of X^2 + epsilon) scale */
static enum linnet_code rms_norm(struct kernel_call *c)
{
	const double *x, *scale, eps = attr_get(c->op, c->attr, "epsilon")->f;
	struct lines s = lines_along(c);
	int64_t n = s.n * s.after;

	TRY(kernel_doubles(c, 0, &x));
	TRY(spread(c, 1, 1, &scale));
	for (int64_t i = 0; i < s.before; i++) {
		double sum = 0;

		for (int64_t k = i * n; k < (i + 1) * n; k++)
			sum += x[k] * x[k];
		for (int64_t k = i * n; k < (i + 1) * n; k++)
			tensor_put(c->out[0], k, x[k] / sqrt(sum / (double)n + eps) * scale[k]);
	}
	return LINNET_OK;
}

#define AXIS(default) { .name = "axis", .kind = ATTR_INT, .i = (default) }
#define EPSILON { .name = "epsilon", .kind = ATTR_FLOAT, .f = 1e-5f }

#define STASH_TYPE { .name = "stash_type", .kind = ATTR_INT, .i = DT_FLOAT }

/* Before opset 13 the axes before `axis` were one axis of rows and the others one of columns. */
#define SOFTMAX_BEFORE_13(title)                                                                   \
	{                                                                                          \
		.name = title, .since = 1, .doc = "The same over all axes from `axis` on at once.", \
		.in = IN({ "input", T, FLOW_SMOOTH }), .out = OUT({ "output", T }),                \
		.attr = ATTRS(AXIS(1)), .types = { [T] = FLOATS }, .agree = AGREE_ROUND,           \
		.shape = shape_axis,                                                               \
		.lower = "{ s = Shape (input)\n"                                                   \
		         "  f = Flatten <axis: int = @axis> (input)\n"                             \
		         "  y = " title " <axis = 1> (f)\n"                                        \
		         "  output = Reshape <allowzero = 1> (y, s) }",                            \
	}

#define AXIS_LIST                                                                                  \
	"  axis = Constant <value_int: int = @axis> ()\n"                                              \
	"  one = Constant <value_ints = [1]> ()\n"                                                     \
	"  axes = Reshape (axis, one)\n"

static const struct op rows[] = {
	{
		.name = "Softmax", .since = 13,
		.doc = "Exponentials along one axis, scaled to sum to 1.",
		.in = IN({ "input", T, FLOW_SMOOTH }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(AXIS(-1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_axis,
		.kernel = softmax,
		.body = "{" AXIS_LIST
		        "  m = ReduceMax (input, axes)\n"
		        "  d = Sub (input, m)\n"
		        "  e = Exp (d)\n"
		        "  s = ReduceSum (e, axes)\n"
		        "  output = Div (e, s) }",
		.fuzz = { .shapes = FUZZ_SAME, .lo = -8, .hi = 8 },
	},
	{
		.name = "LogSoftmax", .since = 13,
		.doc = "Logarithm of Softmax.",
		.in = IN({ "input", T, FLOW_SMOOTH }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(AXIS(-1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_axis,
		.kernel = log_softmax,
		.body = "{" AXIS_LIST
		        "  m = ReduceMax (input, axes)\n"
		        "  d = Sub (input, m)\n"
		        "  e = Exp (d)\n"
		        "  s = ReduceSum (e, axes)\n"
		        "  l = Log (s)\n"
		        "  output = Sub (d, l) }",
		.fuzz = { .shapes = FUZZ_SAME, .lo = -8, .hi = 8 },
	},
	{
		.name = "Hardmax", .since = 13,
		.doc = "1 at the first largest element along one axis, 0 elsewhere.",
		.in = IN({ "input", T, FLOW_NONE }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(AXIS(-1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_BITS,
		.shape = shape_axis,
		.kernel = hardmax,
		.fuzz = { .shapes = FUZZ_SAME },
	},
	SOFTMAX_BEFORE_13("Softmax"),
	SOFTMAX_BEFORE_13("LogSoftmax"),
	SOFTMAX_BEFORE_13("Hardmax"),
	{
		.name = "LayerNormalization", .since = 17,
		.doc = "Mean 0 and variance 1 over the axes from `axis` on, then scaled and shifted.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "Scale", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T }, { "Mean", T1, .flags = OPTIONAL }, { "InvStdDev", T1, .flags = OPTIONAL }),
		.attr = ATTRS(AXIS(-1), EPSILON, STASH_TYPE),
		.types = { [T] = FLOATS, [T1] = SET(FLOAT) | SET(BFLOAT16) },
		.agree = AGREE_ROUND,
		.shape = shape_layer_norm,
		.kernel = layer_norm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "RMSNormalization", .since = 23,
		.doc = "Mean square 1 over the axes from `axis` on, then scaled.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "scale", T1, FLOW_LINEAR }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(AXIS(-1), EPSILON, STASH_TYPE),
		.types = { [T] = FLOATS, [T1] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_rms_norm,
		.kernel = rms_norm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family norm_ops = FAMILY("norm", rows);
