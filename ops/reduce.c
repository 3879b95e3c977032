/* Many elements to one, and running totals: reference kernels, then rows. */
#include <math.h>

#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/kernel.h"

/*
 * One reduction, as its row says it in `param`: end(step(... step(step(start, x0), x1) ..., xn)), in double. Integers go
 * the same way in 64 bits, wrapping to the type when stored, or through double where `whole` is NULL.
 */
struct reduction {
	double start;
	double (*step)(double total, double x);
	double (*end)(double total); /* NULL: the total */
	bool mean;                   /* the total is divided by the number of elements */
	int64_t (*whole)(int64_t total, int64_t x);
	int64_t (*natural)(int64_t total, int64_t x); /* instead, on unsigned types */
	int64_t (*whole_start)(enum dtype t);         /* NULL: start */
	dim (*sym)(struct dims *t, dim a, dim b);     /* on known elements */
};

/* The axes a call reduces over. */
struct axes {
	int n;      /* how many; -1: not known */
	bool known; /* every one, so that those not on are kept */
	bool on[MAX_RANK];
};

static enum linnet_code find_axes(struct shape_call *c, int rank, struct axes *a)
{
	dim axis[MAX_RANK];

	*a = (struct axes){ .known = true };
	if (c->nin > 1 && c->in[1])
		TRY(type_dims(c->in[1], axis, MAX_RANK, &a->n, c->e));
	a->known = a->n >= 0;
	if (a->n > rank)
		return fail(c->e, LINNET_EVALUE, "%d axes given for rank %d", a->n, rank);
	for (int i = 0; i < a->n; i++) {
		int k;

		if (!dim_is_int(axis[i])) {
			a->known = false;
			continue;
		}
		TRY(axis_check(axis[i], rank, &k, c->e));
		if (a->on[k])
			return fail(c->e, LINNET_EVALUE, "axis %d is given twice", k);
		a->on[k] = true;
	}
	if (a->n == 0 && !attr_get(c->op, c->attr, "noop_with_empty_axes")->i)
		for (a->n = 0; a->n < rank; a->n++)
			a->on[a->n] = true;
	return LINNET_OK;
}

/* The elements of a vector as one. */
static void fold_sym(struct shape_call *c, dim (*f)(struct dims *t, dim a, dim b))
{
	dim x[MAX_SYM];
	int n = c->arena ? type_elements(c->in[0], x) : -1;

	for (int i = 1; i < n; i++)
		x[0] = f(c->dims, x[0], x[i]);
	if (n > 0)
		type_set_sym(c, 0, x, 1);
}

static enum linnet_code shape_reduce(struct shape_call *c)
{
	const struct reduction *f = c->op->param;
	const struct shape *x = &c->in[0]->shape;
	struct shape y = { .rank = 0 };
	bool keep = attr_get(c->op, c->attr, "keepdims")->i != 0;
	struct axes a;

	if (x->rank < 0)
		return LINNET_OK;
	TRY(find_axes(c, x->rank, &a));
	for (int k = 0; k < x->rank; k++) {
		if (a.on[k] && !keep)
			continue;
		y.d[y.rank++] = a.on[k] || (keep && x->d[k] == 1) ? 1 : a.known ? x->d[k] : DIM_NONE;
	}
	if (!a.known && !keep) {
		y.rank = a.n < 0 ? -1 : x->rank - a.n;
		for (int k = 0; k < y.rank; k++)
			y.d[k] = DIM_NONE;
	}
	c->out[0].shape = y;
	if (f && f->sym && a.known && (x->rank == 0 || a.on[0]))
		fold_sym(c, f->sym);
	return LINNET_OK;
}

/* How the output lies in the input: with length 1 along the axes that are reduced over. */
static struct tensor spread_output(const struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *axes = c->nin > 1 ? c->in[1] : NULL;
	struct tensor y = *c->out[0];
	bool all = (!axes || axes->n == 0) && !attr_get(c->op, c->attr, "noop_with_empty_axes")->i;

	y.rank = x->rank;
	for (int k = 0; k < x->rank; k++)
		y.d[k] = all ? 1 : x->d[k];
	for (int64_t i = 0; axes && i < axes->n; i++) {
		int64_t k = tensor_get_int(axes, i);

		y.d[k < 0 ? k + x->rank : k] = 1;
	}
	return y;
}

/* total[j] = step(total[j], x) for every element x of the input that belongs to output element j. */
static void add_up(const struct tensor *x, const struct tensor *y, double *total, double (*step)(double, double))
{
	struct walk w;

	for (walk_init(&w, x, 1, &y); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++) {
			double *t = &total[w.at[0] + i * w.step[0]];

			*t = step(*t, tensor_get(x, w.out + i));
		}
}

static void add_up_int(const struct tensor *x, const struct tensor *y, int64_t *total, int64_t (*step)(int64_t, int64_t))
{
	struct walk w;

	for (walk_init(&w, x, 1, &y); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++) {
			int64_t *t = &total[w.at[0] + i * w.step[0]];

			*t = step(*t, tensor_get_int(x, w.out + i));
		}
}

/* Toward zero; of nothing, 0. */
static int64_t mean_int(int64_t total, int64_t n, enum dtype t)
{
	if (n == 0)
		return 0;
	return dtype_class(t) == CLASS_UINT ? (int64_t)((uint64_t)total / (uint64_t)n) : total / n;
}

static enum linnet_code reduce_int(struct kernel_call *c, const struct tensor *out, int64_t n)
{
	const struct reduction *f = c->op->param;
	enum dtype t = c->in[0]->dt;
	struct tensor *y = c->out[0];
	struct linnet_error *e = c->e;
	int64_t *total;

	TRY_NEW(total, c->scratch, y->n);
	for (int64_t j = 0; j < y->n; j++)
		total[j] = f->whole_start ? f->whole_start(t) : (int64_t)f->start;
	add_up_int(c->in[0], out, total, f->natural && dtype_class(t) == CLASS_UINT ? f->natural : f->whole);
	for (int64_t j = 0; j < y->n; j++)
		tensor_put_int(y, j, f->mean ? mean_int(total[j], n, t) : total[j]);
	return LINNET_OK;
}

static enum linnet_code reduce(struct kernel_call *c)
{
	const struct reduction *f = c->op->param;
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0], out = spread_output(c);
	int64_t n = y->n ? x->n / y->n : 0;
	struct linnet_error *e = c->e;
	double *total;

	if (f->whole && dtype_class(x->dt) != CLASS_FLOAT)
		return reduce_int(c, &out, n);
	TRY_NEW(total, c->scratch, y->n);
	for (int64_t j = 0; j < y->n; j++)
		total[j] = f->start;
	add_up(x, &out, total, f->step);
	for (int64_t j = 0; j < y->n; j++) {
		double v = f->mean ? total[j] / (double)n : total[j];

		tensor_put(y, j, f->end ? f->end(v) : v);
	}
	return LINNET_OK;
}

/* ---- What is reduced by ---- */

static double plus(double t, double x) { return t + x; }
static double times(double t, double x) { return t * x; }
static double plus_abs(double t, double x) { return t + fabs(x); }
static double plus_square(double t, double x) { return t + x * x; }

static int64_t plus_abs_int(int64_t t, int64_t x) { return x < 0 ? sub_int(t, x) : add_int(t, x); }
static int64_t plus_square_int(int64_t t, int64_t x) { return add_int(t, mul_int(x, x)); }

static int64_t least(enum dtype t)
{
	return dtype_class(t) == CLASS_INT ? (int64_t)(UINT64_MAX << (dtype_bits(t) - 1)) : 0;
}

static int64_t greatest(enum dtype t)
{
	if (t == DT_BOOL)
		return 1;
	return dtype_class(t) == CLASS_INT ? ~least(t) : (int64_t)(UINT64_MAX >> (64 - dtype_bits(t)));
}

/* log(sum of exp(x)), with the largest x taken out so that exp cannot overflow. */
static enum linnet_code log_sum_exp(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0], spread = spread_output(c);
	const struct tensor *out = &spread;
	struct linnet_error *e = c->e;
	double *most, *sum;
	struct walk w;

	TRY_NEW(most, c->scratch, y->n);
	TRY_NEW(sum, c->scratch, y->n);
	for (int64_t j = 0; j < y->n; j++)
		most[j] = -INFINITY;
	add_up(x, out, most, larger);
	for (int64_t j = 0; j < y->n; j++)
		most[j] = isfinite(most[j]) ? most[j] : 0;
	for (walk_init(&w, x, 1, &out); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++) {
			int64_t j = w.at[0] + i * w.step[0];

			sum[j] += exp(tensor_get(x, w.out + i) - most[j]);
		}
	for (int64_t j = 0; j < y->n; j++)
		tensor_put(y, j, log(sum[j]) + most[j]);
	return LINNET_OK;
}

/* ---- The place of the extreme ---- */

static enum linnet_code shape_arg(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	bool keep = attr_get(c->op, c->attr, "keepdims")->i != 0;
	struct shape y = { .rank = 0 };
	int axis;

	if (x->rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, c->e));
	if (x->d[axis] == 0)
		return fail(c->e, LINNET_ESHAPE, "axis %d has length 0; it has no %s element", axis,
		            c->op->param ? "largest" : "smallest");
	for (int k = 0; k < x->rank; k++)
		if (k != axis || keep)
			y.d[y.rank++] = k == axis ? 1 : x->d[k];
	c->out[0].shape = y;
	return LINNET_OK;
}

/* A tensor as [before, n, after], n the length of one axis. */
struct lines {
	int64_t before, n, after;
};

static struct lines lines_along(const struct tensor *x, int64_t axis)
{
	struct lines s = { 1, 1, 1 };

	if (axis < 0)
		axis += x->rank;
	for (int k = 0; k < x->rank; k++)
		*(k < axis ? &s.before : k == axis ? &s.n : &s.after) *= x->d[k];
	return s;
}

/* Above 0 when element i is to be chosen before element j, 0 when they are the same. NaN comes before all. */
static int before(const struct tensor *x, bool largest, int64_t i, int64_t j)
{
	int sign = largest ? 1 : -1;

	if (dtype_class(x->dt) == CLASS_FLOAT) {
		double a = tensor_get(x, i), b = tensor_get(x, j);

		if (isnan(a) || isnan(b))
			return isnan(a) - isnan(b);
		return sign * ((a > b) - (a < b));
	} else {
		int64_t a = int_order(x->dt, tensor_get_int(x, i)), b = int_order(x->dt, tensor_get_int(x, j));

		return sign * ((a > b) - (a < b));
	}
}

static enum linnet_code arg(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct lines s = lines_along(x, attr_get(c->op, c->attr, "axis")->i);
	bool largest = c->op->param, last = attr_get(c->op, c->attr, "select_last_index")->i != 0;

	for (int64_t i = 0; i < s.before; i++)
		for (int64_t j = 0; j < s.after; j++) {
			int64_t at = i * s.n * s.after + j, best = 0;

			for (int64_t k = 1; k < s.n; k++) {
				int r = before(x, largest, at + k * s.after, at + best * s.after);

				if (r > 0 || (r == 0 && last))
					best = k;
			}
			tensor_put_int(c->out[0], i * s.after + j, best);
		}
	return LINNET_OK;
}

/* ---- Running totals ---- */

static enum linnet_code shape_running(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	dim at = type_element(c->in[1], 0);
	int axis;

	c->out[0].shape = *x;
	TRY(rank_check(c, 1, 0, 1));
	if (c->in[1]->shape.rank == 1)
		TRY(length_join(c, "length of the axis and 1", c->in[1]->shape.d[0], 1, NULL));
	return x->rank < 0 || !dim_is_int(at) ? LINNET_OK : axis_check(at, x->rank, &axis, c->e);
}

/* y[k] = x[0] op ... op x[k], or exclusive of x[k]; from the other end when reverse. The row's param is op. */
static enum linnet_code running(struct kernel_call *c)
{
	const struct reduction *f = c->op->param;
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	struct lines s = lines_along(x, tensor_get_int(c->in[1], 0));
	bool exclusive = attr_get(c->op, c->attr, "exclusive")->i != 0, real = dtype_class(x->dt) == CLASS_FLOAT;
	bool reverse = attr_get(c->op, c->attr, "reverse")->i != 0;

	for (int64_t i = 0; i < s.before; i++)
		for (int64_t j = 0; j < s.after; j++) {
			double total = f->start;
			int64_t whole = (int64_t)f->start;

			for (int64_t k = 0; k < s.n; k++) {
				int64_t at = (i * s.n + (reverse ? s.n - 1 - k : k)) * s.after + j;
				double last = total;
				int64_t last_whole = whole;

				if (real) {
					total = f->step(total, tensor_get(x, at));
					tensor_put(y, at, exclusive ? last : total);
				} else {
					whole = f->whole(whole, tensor_get_int(x, at));
					tensor_put_int(y, at, exclusive ? last_whole : whole);
				}
			}
		}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define SUMMED (FLOATS | INDICES | SET(UINT32) | SET(UINT64))
#define COMPARED (SUMMED | SET(INT8) | SET(UINT8) | SET(BOOL))

#define KEEPDIMS { .name = "keepdims", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }

/* Since `first`, axes are an input; before, they were an attribute. */
#define REDUCE(title, first, set, flow, agreement, low, high, run, text, ...)                      	{                                                                                          		.name = title, .since = first, .doc = text,                                        		.in = IN({ "data", T, flow }, { "axes", T1, FLOW_NONE, OPTIONAL }),                		.out = OUT({ "reduced", T }),                                                      		.attr = ATTRS(KEEPDIMS, { .name = "noop_with_empty_axes", .kind = ATTR_INT, .lo = 0, .hi = 1 }), 		.types = { [T] = set, [T1] = SET(INT64) }, .agree = agreement,                     		.shape = shape_reduce, .kernel = run, .fast = FAST(&fast_reduce), .write_grad = grad_reduce, .fuzz = { FUZZ_REDUCE, low, high }, __VA_ARGS__ 	},                                                                                         	{                                                                                          		.name = title, .since = 1, .doc = text,                                            		.in = IN({ "data", T, flow }), .out = OUT({ "reduced", T }),                       		.attr = ATTRS({ .name = "axes", .kind = ATTR_INTS, .flags = OPTIONAL, .input = 1 }, KEEPDIMS), 		.types = { [T] = set }, .agree = agreement,                                        	}

#define BY(...) .param = &(const struct reduction){ __VA_ARGS__ }

#define ARG(title, text, choice)                                                                   	{                                                                                          		.name = title, .since = 1, .doc = text,                                            		.in = IN({ "data", T, FLOW_NONE }), .out = OUT({ "reduced", T1 }),                 		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT }, KEEPDIMS,                      		              { .name = "select_last_index", .kind = ATTR_INT, .lo = 0, .hi = 1, .since = 12 }), 		.types = { [T] = NUMBERS, [T1] = SET(INT64) }, .agree = AGREE_BITS,                		.shape = shape_arg, .kernel = arg, .param = choice, .fuzz = { .shapes = FUZZ_REDUCE }, 	}

#define RUNNING(title, first, flow, text, ...)                                                     	{                                                                                          		.name = title, .since = first, .doc = text,                                        		.in = IN({ "x", T, flow }, { "axis", T2, FLOW_NONE }), .out = OUT({ "y", T }),     		.attr = ATTRS({ .name = "exclusive", .kind = ATTR_INT, .lo = 0, .hi = 1 },         		              { .name = "reverse", .kind = ATTR_INT, .lo = 0, .hi = 1 }),          		.types = { [T] = SUMMED, [T2] = INDICES }, .agree = AGREE_ROUND, .flags = OP_VALUES,                   		.shape = shape_running, .kernel = running, .write_grad = grad_running, BY(__VA_ARGS__), .fuzz = { .shapes = FUZZ_CUSTOM }, 	}

/* `reduced` by a sum over the axes of `x`. */
#define SUM_OF(reduced, x)                                                                         	"  " reduced " = ReduceSum <keepdims: int = @keepdims, noop_with_empty_axes: int = @noop_with_empty_axes> (" x ", axes)\n"

static const struct op rows[] = {
	REDUCE("ReduceSum", 13, SUMMED, FLOW_LINEAR, AGREE_ROUND, -4, 4, reduce, "The sum.",
	       BY(.step = plus, .whole = add_int, .sym = dim_add)),
	REDUCE("ReduceMean", 18, SUMMED, FLOW_LINEAR, AGREE_ROUND, -4, 4, reduce,
	       "The mean; of integers toward zero. NaN, or 0, of nothing.",
	       BY(.step = plus, .whole = add_int, .mean = true)),
	REDUCE("ReduceMax", 18, COMPARED, FLOW_KINKED, AGREE_BITS, -4, 4, reduce,
	       "The largest, NaN if any is; of nothing the least the type has.",
	       BY(.start = -INFINITY, .step = larger, .whole = larger_int, .natural = larger_natural,
	          .whole_start = least, .sym = dim_max)),
	REDUCE("ReduceMin", 18, COMPARED, FLOW_KINKED, AGREE_BITS, -4, 4, reduce,
	       "The smallest, NaN if any is; of nothing the greatest the type has.",
	       BY(.start = INFINITY, .step = smaller, .whole = smaller_int, .natural = smaller_natural,
	          .whole_start = greatest, .sym = dim_min)),
	REDUCE("ReduceProd", 18, SUMMED, FLOW_SMOOTH, AGREE_ROUND, 0.5, 2, reduce, "The product.",
	       BY(.start = 1, .step = times, .whole = mul_int, .sym = dim_mul)),
	REDUCE("ReduceL1", 18, SUMMED, FLOW_KINKED, AGREE_ROUND, -4, 4, reduce, "The sum of absolute values.",
	       BY(.step = plus_abs, .whole = plus_abs_int, .natural = add_int),
	       .body = "{ a = Abs (data)\n" SUM_OF("reduced", "a") "}"),
	REDUCE("ReduceL2", 18, SUMMED, FLOW_SMOOTH, AGREE_ROUND, 0.5, 4, reduce, "The square root of the sum of squares.",
	       BY(.step = plus_square, .end = sqrt),
	       .body = "{ q = Mul (data, data)\n" SUM_OF("s", "q")
	               "  d = Cast <to = 11> (s)\n"
	               "  r = Sqrt (d)\n"
	               "  reduced = CastLike (r, data) }"),
	REDUCE("ReduceLogSum", 18, SUMMED, FLOW_SMOOTH, AGREE_ROUND, 0.25, 4, reduce, "The logarithm of the sum.",
	       BY(.step = plus, .end = log),
	       .body = "{ x = Cast <to = 11> (data)\n" SUM_OF("s", "x")
	               "  l = Log (s)\n"
	               "  reduced = CastLike (l, data) }"),
	REDUCE("ReduceLogSumExp", 18, SUMMED, FLOW_SMOOTH, AGREE_ROUND, -8, 8, log_sum_exp,
	       "The logarithm of the sum of exponentials.",
	       .body = "{ x = Cast <to = 11> (data)\n"
	               "  m = ReduceMax <noop_with_empty_axes: int = @noop_with_empty_axes> (x, axes)\n"
	               "  endless = IsInf (m)\n"
	               "  zero = Constant <value = double {0}> ()\n"
	               "  most = Where (endless, zero, m)\n"
	               "  d = Sub (x, most)\n"
	               "  y = Exp (d)\n" SUM_OF("s", "y")
	               "  l = Log (s)\n" SUM_OF("shift", "most")
	               "  r = Add (l, shift)\n"
	               "  reduced = CastLike (r, data) }"),
	REDUCE("ReduceSumSquare", 18, SUMMED, FLOW_SMOOTH, AGREE_ROUND, -4, 4, reduce, "The sum of squares.",
	       BY(.step = plus_square, .whole = plus_square_int),
	       .body = "{ q = Mul (data, data)\n" SUM_OF("reduced", "q") "}"),
	ARG("ArgMax", "The index of the largest element along one axis, NaN above all.", &(const bool){ true }),
	ARG("ArgMin", "The index of the smallest element along one axis, NaN below all.", NULL),
	RUNNING("CumSum", 11, FLOW_LINEAR, "Sums of the elements up to each along one axis.",
	        .step = plus, .whole = add_int),
	RUNNING("CumProd", 26, FLOW_SMOOTH, "Products of the elements up to each along one axis.",
	        .start = 1, .step = times, .whole = mul_int),
};

const struct op_family reduce_ops = FAMILY("reduce", rows);
