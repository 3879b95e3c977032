/* Rows of numbers scaled by their own statistics: the softmax family, normalizations. Reference kernels, then rows. */
#include <math.h>
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/norm.h"

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

enum linnet_code stash_type(const struct shape_call *c, dtype_set admitted, enum dtype *out)
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

void normalize(double *y, const double *x, int64_t rows, int64_t n, bool centred, double epsilon, double *mean, double *inverse)
{
	for (int64_t i = 0; i < rows; i++) {
		double m = 0, var = 0, r;

		for (int64_t k = i * n; k < (i + 1) * n && centred; k++)
			m += x[k];
		m /= (double)n;
		for (int64_t k = i * n; k < (i + 1) * n; k++)
			var += (x[k] - m) * (x[k] - m);
		r = 1 / sqrt(var / (double)n + epsilon);
		for (int64_t k = i * n; k < (i + 1) * n; k++)
			y[k] = (x[k] - m) * r;
		if (mean)
			mean[i] = m;
		if (inverse)
			inverse[i] = r;
	}
}

enum linnet_code spread(struct kernel_call *c, int input, double absent, double **out)
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
	double eps = attr_get(c->op, c->attr, "epsilon")->f, *scale, *bias, *y, *mean, *inverse;
	struct lines s = lines_along(c);
	const double *x;
	struct linnet_error *e = c->e;

	TRY(kernel_doubles(c, 0, &x));
	TRY(spread(c, 1, 1, &scale));
	TRY(spread(c, 2, 0, &bias));
	TRY_NEW(y, c->scratch, c->in[0]->n);
	TRY_NEW(mean, c->scratch, s.before);
	TRY_NEW(inverse, c->scratch, s.before);
	normalize(y, x, s.before, s.n * s.after, true, eps, mean, inverse);
	for (int64_t k = 0; k < c->in[0]->n && c->out[0]; k++)
		tensor_put(c->out[0], k, y[k] * scale[k] + bias[k]);
	for (int64_t i = 0; i < s.before; i++) {
		if (c->nout > 1 && c->out[1])
			tensor_put(c->out[1], i, mean[i]);
		if (c->nout > 2 && c->out[2])
			tensor_put(c->out[2], i, inverse[i]);
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
	double eps = attr_get(c->op, c->attr, "epsilon")->f, *scale, *y;
	struct lines s = lines_along(c);
	struct linnet_error *e = c->e;
	const double *x;

	TRY(kernel_doubles(c, 0, &x));
	TRY(spread(c, 1, 1, &scale));
	TRY_NEW(y, c->scratch, c->in[0]->n);
	normalize(y, x, s.before, s.n * s.after, false, eps, NULL, NULL);
	for (int64_t k = 0; k < c->in[0]->n; k++)
		tensor_put(c->out[0], k, y[k] * scale[k]);
	return LINNET_OK;
}

/* X: [N, C, ...]; the input is a vector of C. */
static enum linnet_code per_channel(struct shape_call *c, int i, dim *channels)
{
	if (c->in[i]->shape.rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, i, 1, 1));
	return length_join(c, "numbers of channels", *channels, c->in[i]->shape.d[0], channels);
}

static enum linnet_code shape_instance_norm(struct shape_call *c)
{
	struct shape *s = &c->out[0].shape;

	*s = c->in[0]->shape;
	TRY(rank_check(c, 0, 2, MAX_RANK));
	if (s->rank < 0)
		return LINNET_OK;
	TRY(per_channel(c, 1, &s->d[1]));
	return per_channel(c, 2, &s->d[1]);
}

/* InstanceNormalization has one channel a group, GroupNormalization `num_groups` groups a sample:
 * Y = (X - mean) / sqrt(variance + epsilon) scale + bias, statistics over a group, scale and bias of the channel. */
static enum linnet_code group_norm(struct kernel_call *c)
{
	const double *x, *scale, *bias, eps = attr_get(c->op, c->attr, "epsilon")->f;
	const struct attr *num_groups = attr_get(c->op, c->attr, "num_groups");
	int64_t channels = c->in[0]->d[1], groups = attr_given(num_groups) ? num_groups->i : channels;
	int64_t per_channel = product(c->in[0], 2, c->in[0]->rank), n;
	struct linnet_error *e = c->e;
	double *y;

	if (c->in[0]->n == 0)
		return LINNET_OK;
	n = channels / groups * per_channel;
	TRY(kernel_doubles(c, 0, &x));
	TRY(kernel_doubles(c, 1, &scale));
	TRY(kernel_doubles(c, 2, &bias));
	TRY_NEW(y, c->scratch, c->in[0]->n);
	normalize(y, x, c->in[0]->n / n, n, true, eps, NULL, NULL);
	for (int64_t k = 0; k < c->in[0]->n; k++) {
		int64_t ch = k / per_channel % channels;

		tensor_put(c->out[0], k, y[k] * scale[ch] + bias[ch]);
	}
	return LINNET_OK;
}

static enum linnet_code shape_group_norm(struct shape_call *c)
{
	int64_t groups = attr_get(c->op, c->attr, "num_groups")->i;
	enum dtype stash;
	dim left;

	TRY(stash_type(c, FLOATS, &stash));
	TRY(shape_instance_norm(c));
	if (c->out[0].shape.rank < 0)
		return LINNET_OK;
	left = dim_mod(c->dims, c->out[0].shape.d[1], groups);
	if (dim_is_int(left) && left != 0)
		return fail(c->e, LINNET_ESHAPE, "%lld channels do not make %lld groups", (long long)c->out[0].shape.d[1],
		            (long long)groups);
	return LINNET_OK;
}

/* Statistics are vectors of C; a vector X counts as one channel. */
static enum linnet_code shape_batch_norm(struct shape_call *c)
{
	struct shape *s = &c->out[0].shape;
	dim one = 1, *channels = &one;

	*s = c->in[0]->shape;
	TRY(rank_check(c, 0, 1, MAX_RANK));
	for (int i = 1; i < c->nout; i++) {
		if (c->wanted[i] && !attr_get(c->op, c->attr, "training_mode")->i)
			return fail(c->e, LINNET_EMODEL, "output \"%s\" exists only in training mode", op_out(c->op, i)->name);
		c->out[i].shape = c->in[i + 2]->shape;
	}
	if (s->rank < 0)
		return LINNET_OK;
	if (s->rank > 1)
		channels = &s->d[1];
	for (int i = 1; i < 5; i++)
		TRY(per_channel(c, i, channels));
	return LINNET_OK;
}

/*
 * Y = (X - mean) / sqrt(var + epsilon) scale + B by channel. Mean and variance are the inputs; in training mode they are
 * those of X over the channel, and running = input momentum + those (1 - momentum).
 */
static enum linnet_code batch_norm(struct kernel_call *c)
{
	const struct tensor *t = c->in[0];
	bool training = attr_get(c->op, c->attr, "training_mode")->i != 0;
	const double *x, *scale, *bias, *mean, *var, eps = attr_get(c->op, c->attr, "epsilon")->f;
	double momentum = attr_get(c->op, c->attr, "momentum")->f;
	int64_t channels = t->rank > 1 ? t->d[1] : 1, n = product(t, 2, t->rank), batch = t->d[0];

	TRY(kernel_doubles(c, 0, &x));
	TRY(kernel_doubles(c, 1, &scale));
	TRY(kernel_doubles(c, 2, &bias));
	TRY(kernel_doubles(c, 3, &mean));
	TRY(kernel_doubles(c, 4, &var));
	for (int64_t ch = 0; ch < channels; ch++) {
		struct moments m = { mean[ch], var[ch] };

		if (training) {
			m = (struct moments){ 0, 0 };
			for (int64_t b = 0; b < batch; b++)
				for (int64_t k = 0; k < n; k++)
					m.mean += x[(b * channels + ch) * n + k] / (double)(batch * n);
			for (int64_t b = 0; b < batch; b++)
				for (int64_t k = 0; k < n; k++)
					m.var += pow(x[(b * channels + ch) * n + k] - m.mean, 2) / (double)(batch * n);
			if (c->nout > 1 && c->out[1])
				tensor_put(c->out[1], ch, mean[ch] * momentum + m.mean * (1 - momentum));
			if (c->nout > 2 && c->out[2])
				tensor_put(c->out[2], ch, var[ch] * momentum + m.var * (1 - momentum));
		}
		for (int64_t b = 0; b < batch && c->out[0]; b++)
			for (int64_t k = 0; k < n; k++) {
				int64_t i = (b * channels + ch) * n + k;

				tensor_put(c->out[0], i, (x[i] - m.mean) / sqrt(m.var + eps) * scale[ch] + bias[ch]);
			}
	}
	return LINNET_OK;
}

/* The sum of |x|, or sqrt(sum of x^2). */
static double line_length(const double *x, int64_t at, int64_t n, int64_t stride, bool squares)
{
	double sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += squares ? x[at + i * stride] * x[at + i * stride] : fabs(x[at + i * stride]);
	return squares ? sqrt(sum) : sum;
}

static void line_divided(const double *x, struct tensor *y, int64_t at, int64_t n, int64_t stride, double by)
{
	for (int64_t i = 0; i < n; i++)
		tensor_put(y, at + i * stride, by == 0 ? 0 : x[at + i * stride] / by);
}

/* y = x / |x|; 0 where that is 0 */
static void l1_line(const double *x, struct tensor *y, int64_t at, int64_t n, int64_t stride)
{
	line_divided(x, y, at, n, stride, line_length(x, at, n, stride, false));
}

static void l2_line(const double *x, struct tensor *y, int64_t at, int64_t n, int64_t stride)
{
	line_divided(x, y, at, n, stride, line_length(x, at, n, stride, true));
}

static enum linnet_code lp_norm(struct kernel_call *c)
{
	return each_line(c, attr_get(c->op, c->attr, "p")->i == 1 ? l1_line : l2_line);
}

/* y = x / max(|x|, epsilon), y = x / (|x| + epsilon) */
static enum linnet_code l2_norm(struct kernel_call *c)
{
	double epsilon = attr_get(c->op, c->attr, "epsilon")->f;
	bool add = attr_get(c->op, c->attr, "bound")->s.p[0] == 'a';
	struct lines s = lines_along(c);
	const double *x;

	TRY(kernel_doubles(c, 0, &x));
	for (int64_t i = 0; i < s.before; i++)
		for (int64_t j = 0; j < s.after; j++) {
			int64_t at = i * s.n * s.after + j;
			double length = line_length(x, at, s.n, s.after, true);

			line_divided(x, c->out[0], at, s.n, s.after, add ? length + epsilon : length < epsilon ? epsilon : length);
		}
	return LINNET_OK;
}

static enum linnet_code shape_lrn(struct shape_call *c)
{
	TRY(rank_check(c, 0, 2, MAX_RANK));
	return shape_same(c);
}

/* Y[c] = X[c] / (bias + alpha / size (sum of X[i]^2, floor((size - 1) / 2) before c to ceil((size - 1) / 2) after))^beta */
static enum linnet_code lrn(struct kernel_call *c)
{
	double alpha = attr_get(c->op, c->attr, "alpha")->f, beta = attr_get(c->op, c->attr, "beta")->f;
	double bias = attr_get(c->op, c->attr, "bias")->f;
	int64_t size = attr_get(c->op, c->attr, "size")->i, channels = c->in[0]->d[1];
	int64_t n = product(c->in[0], 2, c->in[0]->rank);
	const double *x;

	TRY(kernel_doubles(c, 0, &x));
	for (int64_t at = 0; at < c->in[0]->n; at++) {
		int64_t ch = at / n % channels;
		int64_t first = ch < (size - 1) / 2 ? 0 : ch - (size - 1) / 2;
		int64_t last = channels - 1 - ch < size / 2 ? channels - 1 : ch + size / 2;
		double sum = 0;

		for (int64_t i = first; i <= last; i++)
			sum += pow(x[at + (i - ch) * n], 2);
		tensor_put(c->out[0], at, x[at] / pow(bias + alpha / (double)size * sum, beta));
	}
	return LINNET_OK;
}

/* The axes of an attribute as flags. */
static enum linnet_code axis_flags(const struct attr *a, int rank, bool *flag, struct linnet_error *e)
{
	for (int i = 0; i < rank; i++)
		flag[i] = false;
	for (size_t i = 0; i < a->n; i++) {
		int axis;

		TRY(axis_check(a->ints[i], rank, &axis, e));
		flag[axis] = true;
	}
	return LINNET_OK;
}

static enum linnet_code shape_mvn(struct shape_call *c)
{
	int axes[MAX_RANK], n;

	c->out[0].shape = c->in[0]->shape;
	return c->in[0]->shape.rank < 0 ? LINNET_OK : axes_check(&c->attr[0], c->in[0]->shape.rank, axes, &n, c->e);
}

/* Y = (X - mean) / (standard deviation + 1e-9), both over the axes. */
static enum linnet_code mvn(struct kernel_call *c)
{
	const struct tensor *t = c->in[0];
	int64_t index[MAX_RANK] = { 0 }, stride[MAX_RANK] = { 0 }, groups = 1, *of;
	struct linnet_error *e = c->e;
	double *mean, *var, count;
	bool over[MAX_RANK];
	const double *x;

	TRY(axis_flags(&c->attr[0], t->rank, over, e));
	for (int i = t->rank - 1; i >= 0; i--)
		if (!over[i]) {
			stride[i] = groups;
			groups *= t->d[i];
		}
	TRY(kernel_doubles(c, 0, &x));
	TRY_NEW(of, c->scratch, t->n);
	TRY_NEW(mean, c->scratch, groups);
	TRY_NEW(var, c->scratch, groups);
	count = (double)t->n / (double)groups;
	for (int64_t i = 0; i < t->n; i++) {
		for (int k = 0; k < t->rank; k++)
			of[i] += index[k] * stride[k];
		for (int k = t->rank - 1; k >= 0 && ++index[k] == t->d[k]; k--)
			index[k] = 0;
		mean[of[i]] += x[i] / count;
	}
	for (int64_t i = 0; i < t->n; i++)
		var[of[i]] += (x[i] - mean[of[i]]) * (x[i] - mean[of[i]]) / count;
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(c->out[0], i, (x[i] - mean[of[i]]) / (sqrt(var[of[i]]) + 1e-9));
	return LINNET_OK;
}

#define AXIS(default) { .name = "axis", .kind = ATTR_INT, .i = (default) }
#define EPSILON { .name = "epsilon", .kind = ATTR_FLOAT, .f = 1e-5f }

#define MOMENTUM { .name = "momentum", .kind = ATTR_FLOAT, .f = 0.9f }
#define STASH_TYPE { .name = "stash_type", .kind = ATTR_INT, .i = DT_FLOAT }

/* Along the last axis Softmax before and since opset 13 are the same. */
static bool axis_is_last(const struct op *op, const struct attr *attr, int nin, const struct type *const *in)
{
	int64_t axis = attr_get(op, attr, "axis")->i;

	return axis == -1 || (nin && in[0] && in[0]->shape.rank > 0 && axis == in[0]->shape.rank - 1);
}

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
		.same = axis_is_last,                                                              \
	}

/* x2: [n, m] in stash_type, its mean and 1 / inv = sqrt(variance + epsilon) along m; normed: X's type and shape. */
#define LAYER_NORM_STAGE_1                                                                         \
	"  shape = Shape (X)\n"                                                                        \
	"  flat = Flatten <axis: int = @axis> (X)\n"                                                  \
	"  x2 = Cast <to: int = @stash_type> (flat)\n"                                                \
	"  one = Constant <value_ints = [1]> ()\n"                                                    \
	"  mean2 = ReduceMean (x2, one)\n"                                                            \
	"  d = Sub (x2, mean2)\n"                                                                     \
	"  dd = Mul (d, d)\n"                                                                         \
	"  var = ReduceMean (dd, one)\n"                                                              \
	"  eps = Constant <value_float: float = @epsilon> ()\n"                                       \
	"  epst = Cast <to: int = @stash_type> (eps)\n"                                               \
	"  vareps = Add (var, epst)\n"                                                                \
	"  std = Sqrt (vareps)\n"                                                                     \
	"  norm2 = Div (d, std)\n"                                                                    \
	"  normt = CastLike (norm2, X)\n"                                                             \
	"  normed = Reshape <allowzero = 1> (normt, shape)\n"                                         \
	"  inv2 = Reciprocal (std)\n"                                                                 \
	"  zero = Constant <value_ints = [0]> ()\n"                                                   \
	"  axis = Constant <value_int: int = @axis> ()\n"                                             \
	"  axis1 = Reshape (axis, one)\n"                                                             \
	"  before = Slice (shape, zero, axis1)\n"                                                     \
	"  rank = Shape (shape)\n"                                                                     \
	"  from = Slice (shape, axis1, rank)\n"                                                       \
	"  count = Shape (from)\n"                                                                    \
	"  ones = Expand (one, count)\n"                                                              \
	"  reduced = Concat <axis = 0> (before, ones)\n"                                              \
	"  Mean = Reshape <allowzero = 1> (mean2, reduced)\n"                                         \
	"  InvStdDev = Reshape <allowzero = 1> (inv2, reduced)\n"

#define AXIS_LIST                                                                                  \
	"  axis = Constant <value_int: int = @axis> ()\n"                                              \
	"  one = Constant <value_ints = [1]> ()\n"                                                     \
	"  axes = Reshape (axis, one)\n"

#define L2_LENGTH                                                                                  \
	"  one = Constant <value_ints = [1]> ()\n"                                                \
	"  axis0 = Constant <value_int: int = @axis> ()\n"                                        \
	"  axes = Reshape (axis0, one)\n"                                                         \
	"  length = ReduceL2 (X, axes)\n"                                                         \
	"  epsilon1 = Constant <value_float: float = @epsilon> ()\n"                              \
	"  least = CastLike (epsilon1, X)\n"

static const struct op rows[] = {
	{
		.name = "Softmax", .since = 13,
		.doc = "Exponentials along one axis, scaled to sum to 1.",
		.in = IN({ "input", T, FLOW_SMOOTH }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(AXIS(-1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.grad = "{" AXIS_LIST
		        "  p = Mul (d_output, output)\n"
		        "  s = ReduceSum (p, axes)\n"
		        "  c = Sub (d_output, s)\n"
		        "  d_input = Mul (output, c) }",
		.shape = shape_axis,
		.kernel = softmax,
		.fast = FAST(&fast_softmax),
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
		.grad = "{" AXIS_LIST
		        "  s = ReduceSum (d_output, axes)\n"
		        "  e = Exp (output)\n"
		        "  es = Mul (e, s)\n"
		        "  d_input = Sub (d_output, es) }",
		.shape = shape_axis,
		.kernel = log_softmax,
		.fast = FAST(&fast_log_softmax),
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
		.body = "{ i = ArgMax <axis: int = @axis, keepdims = 0> (input)\n"
		        "  shape = Shape (input)\n"
		        "  axis = Constant <value_int: int = @axis> ()\n"
		        "  n = Gather (shape, axis)\n"
		        "  off_on = Constant <value_floats = [0.0, 1.0]> ()\n"
		        "  values = CastLike (off_on, input)\n"
		        "  output = OneHot <axis: int = @axis> (i, n, values) }",
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
		.write_grad = grad_layer_norm,
		.shape = shape_layer_norm,
		.kernel = layer_norm,
		.fast = FAST(&fast_layer_norm),
		.body = "?B {" LAYER_NORM_STAGE_1
		        "  scaled = Mul (normed, Scale)\n"
		        "  Y = Add (scaled, B) }\n"
		        "{" LAYER_NORM_STAGE_1
		        "  Y = Mul (normed, Scale) }",
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
		.write_grad = grad_rms_norm,
		.shape = shape_rms_norm,
		.kernel = rms_norm,
		.fast = FAST(&fast_rms_norm),
		.body = "{ shape = Shape (X)\n"
		        "  flat = Flatten <axis: int = @axis> (X)\n"
		        "  x2 = Cast <to: int = @stash_type> (flat)\n"
		        "  one = Constant <value_ints = [1]> ()\n"
		        "  xx = Mul (x2, x2)\n"
		        "  mean = ReduceMean (xx, one)\n"
		        "  eps = Constant <value_float: float = @epsilon> ()\n"
		        "  epst = Cast <to: int = @stash_type> (eps)\n"
		        "  meaneps = Add (mean, epst)\n"
		        "  rms = Sqrt (meaneps)\n"
		        "  norm2 = Div (x2, rms)\n"
		        "  normt = CastLike (norm2, scale)\n"
		        "  normed = Reshape <allowzero = 1> (normt, shape)\n"
		        "  Y = Mul (normed, scale) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "InstanceNormalization", .since = 6,
		.doc = "Mean 0 and variance 1 in every channel of every sample, then scaled and shifted by channel.",
		.in = IN({ "input", T, FLOW_SMOOTH }, { "scale", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(EPSILON),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.write_grad = grad_group_norm,
		.shape = shape_instance_norm,
		.kernel = group_norm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "GroupNormalization", .since = 21,
		.doc = "Mean 0 and variance 1 in every group of channels of every sample, then scaled and shifted by channel.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "scale", T, FLOW_LINEAR }, { "bias", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "num_groups", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }, EPSILON,
		              STASH_TYPE),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.write_grad = grad_group_norm,
		.shape = shape_group_norm,
		.kernel = group_norm,
		.body = "{ shape = Shape (X)\n"
		        "  xs = Cast <to: int = @stash_type> (X)\n"
		        "  one = Constant <value_ints = [1]> ()\n"
		        "  zero = Constant <value_ints = [0]> ()\n"
		        "  rest = Constant <value_ints = [-1]> ()\n"
		        "  groups = Constant <value_int: int = @num_groups> ()\n"
		        "  groups1 = Reshape (groups, one)\n"
		        "  grouped = Concat <axis = 0> (zero, groups1, rest)\n"
		        "  x3 = Reshape (xs, grouped)\n"
		        "  two = Constant <value_ints = [2]> ()\n"
		        "  mean = ReduceMean (x3, two)\n"
		        "  d = Sub (x3, mean)\n"
		        "  dd = Mul (d, d)\n"
		        "  var = ReduceMean (dd, two)\n"
		        "  eps = Constant <value_float: float = @epsilon> ()\n"
		        "  epst = Cast <to: int = @stash_type> (eps)\n"
		        "  vareps = Add (var, epst)\n"
		        "  std = Sqrt (vareps)\n"
		        "  norm3 = Div (d, std)\n"
		        "  normt = CastLike (norm3, X)\n"
		        "  normed = Reshape (normt, shape)\n"
		        "  flat = Constant <value_ints = [0, 0, -1]> ()\n"
		        "  y3 = Reshape (normed, flat)\n"
		        "  column = Constant <value_ints = [-1, 1]> ()\n"
		        "  scale2 = Reshape (scale, column)\n"
		        "  bias2 = Reshape (bias, column)\n"
		        "  scaled = Mul (y3, scale2)\n"
		        "  shifted = Add (scaled, bias2)\n"
		        "  Y = Reshape (shifted, shape) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "GroupNormalization", .since = 18,
		.doc = "The same with one scale and bias a group.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "scale", T, FLOW_LINEAR }, { "bias", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "num_groups", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }, EPSILON),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_same,
		.lower = "{ one = Constant <value_ints = [1]> ()\n"
		         "  rest = Constant <value_ints = [-1]> ()\n"
		         "  groups = Constant <value_int: int = @num_groups> ()\n"
		         "  groups1 = Reshape (groups, one)\n"
		         "  channels = Shape <start = 1, end = 2> (X)\n"
		         "  each = Div (channels, groups1)\n"
		         "  both = Concat <axis = 0> (groups1, each)\n"
		         "  column = Constant <value_ints = [-1, 1]> ()\n"
		         "  scale2 = Reshape (scale, column)\n"
		         "  bias2 = Reshape (bias, column)\n"
		         "  scales = Expand (scale2, both)\n"
		         "  biases = Expand (bias2, both)\n"
		         "  scale1 = Reshape (scales, rest)\n"
		         "  bias1 = Reshape (biases, rest)\n"
		         "  Y = GroupNormalization <num_groups: int = @num_groups, epsilon: float = @epsilon> (X, scale1, bias1) }",
	},
	{
		.name = "BatchNormalization", .since = 14,
		.doc = "Every channel shifted and scaled by given statistics, in training mode by its own.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "scale", T1, FLOW_LINEAR }, { "B", T1, FLOW_LINEAR },
		         { "input_mean", T2, FLOW_LINEAR }, { "input_var", T2, FLOW_SMOOTH }),
		.out = OUT({ "Y", T }, { "running_mean", T2, .flags = OPTIONAL }, { "running_var", T2, .flags = OPTIONAL }),
		.attr = ATTRS(EPSILON, MOMENTUM, { .name = "training_mode", .kind = ATTR_INT }),
		.types = { [T] = FLOATS, [T1] = FLOATS, [T2] = FLOATS },
		.agree = AGREE_ROUND,
		.write_grad = grad_batch_norm,
		.shape = shape_batch_norm,
		.kernel = batch_norm,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "LpNormalization", .since = 1,
		.doc = "Divided by the sum of absolute values (p = 1) or the length (p = 2) along one axis.",
		.in = IN({ "input", T, FLOW_KINKED }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(AXIS(-1), { .name = "p", .kind = ATTR_INT, .i = 2, .lo = 1, .hi = 2 }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.write_grad = grad_lp_norm,
		.shape = shape_axis,
		.kernel = lp_norm,
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.domain = "linnet",
		.name = "L2Normalization",
		.since = 1,
		.doc = "Divided by the length along one axis, which is at least epsilon, or to which epsilon is added.",
		.in = IN({ "X", T, FLOW_KINKED }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(AXIS(-1), { .name = "epsilon", .kind = ATTR_FLOAT, .f = 1e-12f, .lo = 1e-37, .hi = 1e37 },
		              { .name = "bound", .kind = ATTR_STRING, .s = "max", .oneof = "max|add" }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_axis,
		.kernel = l2_norm,
		.fast = FAST(&fast_l2_norm),
		.body = "?bound=max {" L2_LENGTH
		        "  most = Max (length, least)\n"
		        "  Y = Div (X, most) }\n"
		        "{" L2_LENGTH
		        "  more = Add (length, least)\n"
		        "  Y = Div (X, more) }",
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.name = "LRN", .since = 1,
		.doc = "Divided by a power of the sum of squares over neighbouring channels.",
		.in = IN({ "X", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 1e-4f }, { .name = "beta", .kind = ATTR_FLOAT, .f = 0.75 },
		              { .name = "bias", .kind = ATTR_FLOAT, .f = 1 },
		              { .name = "size", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.write_grad = grad_lrn,
		.shape = shape_lrn,
		.kernel = lrn,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "MeanVarianceNormalization", .since = 9,
		.doc = "Mean 0 and variance 1 over the axes.",
		.in = IN({ "X", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "axes", .kind = ATTR_INTS, .s = "0,2,3" }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.grad = "{" REAL("eps", "1e-9") REAL("zero", "0.0") REAL("one", "1.0")
		        "  over = Constant <value_ints: ints = @axes> ()\n"
		        "  m = ReduceMean <noop_with_empty_axes = 1> (X, over)\n"
		        "  x = Sub (X, m)\n"
		        "  xx = Mul (x, x)\n"
		        "  v = ReduceMean <noop_with_empty_axes = 1> (xx, over)\n"
		        "  s = Sqrt (v)\n"
		        "  se = Add (s, eps)\n"
		        "  g = Mul (d_Y, Y)\n"
		        "  along = ReduceMean <noop_with_empty_axes = 1> (g, over)\n"
		        "  level = ReduceMean <noop_with_empty_axes = 1> (d_Y, over)\n"
		        "  none = Equal (s, zero)\n"
		        "  deviation = Where (none, one, s)\n"
		        "  n = Div (x, deviation)\n"
		        "  a = Mul (n, along)\n"
		        "  flat = Sub (d_Y, level)\n"
		        "  rest = Sub (flat, a)\n"
		        "  d_X = Div (rest, se) }",
		.shape = shape_mvn,
		.kernel = mvn,
		.body = "{ axes = Constant <value_ints: ints = @axes> ()\n"
		        "  mean = ReduceMean (X, axes)\n"
		        "  d = Sub (X, mean)\n"
		        "  dd = Mul (d, d)\n"
		        "  var = ReduceMean (dd, axes)\n"
		        "  std = Sqrt (var)\n"
		        "  eps = Constant <value_float = 1e-9> ()\n"
		        "  epst = CastLike (eps, std)\n"
		        "  stdeps = Add (std, epst)\n"
		        "  Y = Div (d, stdeps) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family norm_ops = FAMILY("norm", rows);
