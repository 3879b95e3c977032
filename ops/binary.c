/* Functions of two or more elements, inputs broadcast: reference kernels, then rows. */
#include <math.h>

#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/kernel.h"

/* One function of two elements, as its row says it in `param`. */
struct binary {
	double (*real)(double a, double b);
	int64_t (*whole)(int64_t a, int64_t b);   /* on integers, wrapping to the type */
	int64_t (*natural)(int64_t a, int64_t b); /* on the bits of unsigned ones, where that differs */
	dim (*sym)(struct dims *t, dim a, dim b); /* on known elements */
	struct ratio (*ratio)(struct dims *t, struct ratio a, struct ratio b); /* on known elements of floats */
	bool divides;                             /* no integer divisor may be 0 */
};

/* out[0]'s elements as floats; the inputs are one or two numbers or vectors. */
static void join_ratios(struct shape_call *c, struct ratio (*f)(struct dims *t, struct ratio a, struct ratio b))
{
	struct ratio a[MAX_SYM], b[MAX_SYM], y[MAX_SYM];
	int m, n;

	if (!c->arena || (m = type_ratios(c->in[0], a)) < 0 || (n = type_ratios(c->in[1], b)) < 0)
		return;
	if (m != n && m != 1 && n != 1)
		return;
	for (int i = 0; i < m || i < n; i++) {
		struct ratio p = a[m == 1 ? 0 : i], q = b[n == 1 ? 0 : i];

		y[i] = p.num == DIM_NONE || q.num == DIM_NONE ? (struct ratio){ DIM_NONE, 1 } : f(c->dims, p, q);
	}
	type_set_ratios(c, 0, y, m == 1 || !n ? n : m);
}

static enum linnet_code shape_binary(struct shape_call *c)
{
	const struct binary *f = c->op->param;

	TRY(shape_broadcast(c));
	if (f->ratio && dtype_class(c->out[0].dt) == CLASS_FLOAT)
		join_ratios(c, f->ratio);
	else if (f->sym)
		join_sym(c, f->sym);
	return LINNET_OK;
}

static enum linnet_code check_divisor(const struct kernel_call *c)
{
	for (int64_t i = 0; i < c->in[1]->n && c->out[0]->n; i++)
		if (!tensor_get_int(c->in[1], i))
			return fail(c->e, LINNET_EVALUE, "element %lld of input \"%s\" is 0; integers cannot be divided by it",
			            (long long)i, op_in(c->op, 1)->name);
	return LINNET_OK;
}

static enum linnet_code apply(struct kernel_call *c, const struct binary *f)
{
	enum dtype_class kind = dtype_class(c->in[0]->dt);

	if (kind == CLASS_FLOAT)
		return map_binary(c, f->real);
	if (f->divides)
		TRY(check_divisor(c));
	return map_binary_int(c, kind == CLASS_UINT && f->natural ? f->natural : f->whole);
}

static enum linnet_code binary(struct kernel_call *c) { return apply(c, c->op->param); }

/* ---- Arithmetic ---- */

static double add(double a, double b) { return a + b; }
static double sub(double a, double b) { return a - b; }
static double mul(double a, double b) { return a * b; }
static double quotient(double a, double b) { return a / b; }

static int64_t and_int(int64_t a, int64_t b) { return a & b; }
static int64_t or_int(int64_t a, int64_t b) { return a | b; }
static int64_t xor_int(int64_t a, int64_t b) { return a ^ b; }

/* Toward zero; the smallest number by -1 wraps. */
static int64_t quotient_int(int64_t a, int64_t b) { return b == -1 ? sub_int(0, a) : a / b; }
static int64_t quotient_natural(int64_t a, int64_t b) { return (int64_t)((uint64_t)a / (uint64_t)b); }

static struct ratio sum_ratio(struct dims *t, struct ratio a, struct ratio b, dim (*f)(struct dims *, dim, dim))
{
	struct ratio r = { DIM_NONE, 1 };

	if (!__builtin_mul_overflow(a.den, b.den, &r.den))
		r.num = f(t, dim_mul(t, a.num, b.den), dim_mul(t, b.num, a.den));
	return r;
}

static struct ratio ratio_add(struct dims *t, struct ratio a, struct ratio b) { return sum_ratio(t, a, b, dim_add); }
static struct ratio ratio_sub(struct dims *t, struct ratio a, struct ratio b) { return sum_ratio(t, a, b, dim_sub); }

static struct ratio ratio_mul(struct dims *t, struct ratio a, struct ratio b)
{
	struct ratio r = { DIM_NONE, 1 };

	if (!__builtin_mul_overflow(a.den, b.den, &r.den))
		r.num = dim_mul(t, a.num, b.num);
	return r;
}

/* By a number; by a symbolic length only where it leaves nothing over. */
static struct ratio ratio_div(struct dims *t, struct ratio a, struct ratio b)
{
	struct ratio r = { DIM_NONE, 1 };
	dim num = dim_mul(t, a.num, b.den);

	if (dim_is_int(b.num) && b.num) {
		if (!__builtin_mul_overflow(a.den, b.num < 0 ? -b.num : b.num, &r.den))
			r.num = b.num < 0 ? dim_sub(t, 0, num) : num;
	} else if (dim_is_expr(b.num)) {
		dim q = dim_div(t, num, b.num);

		if (q != DIM_NONE && dim_mul(t, q, b.num) == num)
			r = (struct ratio){ q, a.den };
	}
	return r;
}

/* Div truncates: the floor where nothing is negative, else only integers are known. */
static dim dim_quotient(struct dims *t, dim a, dim b)
{
	if (dim_is_int(a) && dim_is_int(b))
		return b == 0 ? DIM_NONE : quotient_int(a, b);
	return dim_ge(t, a, 0) && dim_ge(t, b, 1) ? dim_div(t, a, b) : DIM_NONE;
}

/* ---- Mod ---- */

/* The remainder of the quotient rounded down: it has the divisor's sign. */
static double floor_mod(double a, double b)
{
	double r = fmod(a, b);

	if (r == 0)
		return copysign(0, b);
	return (r < 0) != (b < 0) ? r + b : r;
}

static int64_t trunc_mod_int(int64_t a, int64_t b) { return b == -1 ? 0 : a % b; }
static int64_t mod_natural(int64_t a, int64_t b) { return (int64_t)((uint64_t)a % (uint64_t)b); }

static int64_t floor_mod_int(int64_t a, int64_t b)
{
	int64_t r = trunc_mod_int(a, b);

	return r && (r < 0) != (b < 0) ? r + b : r;
}

static dim dim_trunc_mod(struct dims *t, dim a, dim b)
{
	if (dim_is_int(a) && dim_is_int(b))
		return b == 0 ? DIM_NONE : trunc_mod_int(a, b);
	return dim_ge(t, a, 0) && dim_ge(t, b, 1) ? dim_mod(t, a, b) : DIM_NONE;
}

static const struct binary *mod_function(const struct op *op, const struct attr *attr)
{
	static const struct binary f[] = {
		{ .real = floor_mod, .whole = floor_mod_int, .natural = mod_natural, .sym = dim_mod, .divides = true },
		{ .real = fmod, .whole = trunc_mod_int, .natural = mod_natural, .sym = dim_trunc_mod, .divides = true },
	};

	return &f[attr_get(op, attr, "fmod")->i != 0];
}

static enum linnet_code shape_mod(struct shape_call *c)
{
	TRY(shape_broadcast(c));
	join_sym(c, mod_function(c->op, c->attr)->sym);
	return LINNET_OK;
}

static enum linnet_code mod(struct kernel_call *c) { return apply(c, mod_function(c->op, c->attr)); }

/* ---- Pow ---- */

/* x^y by squaring, wrapping; y >= 0. */
static int64_t power_int(int64_t x, uint64_t y)
{
	uint64_t base = (uint64_t)x, p = 1;

	for (; y; y >>= 1) {
		p *= y & 1 ? base : 1;
		base *= base;
	}
	return (int64_t)p;
}

/*
 * In the base's type, whatever the exponent's. An integer to a negative integer power is a fraction, which truncates to
 * 0, or is 1 or -1; to a float power it is computed in double and truncated.
 */
static enum linnet_code power(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *y = c->in[1];
	struct tensor *z = c->out[0];
	bool whole = dtype_class(x->dt) == CLASS_INT && dtype_class(y->dt) != CLASS_FLOAT;
	struct walk w;

	for (walk_init(&w, z, 2, c->in); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++) {
			int64_t at = w.at[0] + i * w.step[0], to = w.at[1] + i * w.step[1], a, b;

			if (!whole) {
				tensor_put(z, w.out + i, pow(tensor_get(x, at), tensor_get(y, to)));
				continue;
			}
			a = tensor_get_int(x, at);
			b = tensor_get_int(y, to);
			if (b >= 0 || y->dt == DT_UINT64)
				a = power_int(a, (uint64_t)b);
			else if (a == 0)
				return fail(c->e, LINNET_EVALUE, "0 to the power %lld is no integer", (long long)b);
			else if (a == -1)
				a = b % 2 ? -1 : 1;
			else
				a = a == 1;
			tensor_put_int(z, w.out + i, a);
		}
	return LINNET_OK;
}

/* ---- Any number of inputs ---- */

/* y = f(... f(f(x0, x1), x2) ..., xn) / divisor, in double or int64 until stored. */
static enum linnet_code fold(struct kernel_call *c, double divisor)
{
	const struct binary *f = c->op->param;
	struct tensor *y = c->out[0];
	enum dtype_class kind = dtype_class(y->dt);
	int64_t (*g)(int64_t, int64_t) = kind == CLASS_UINT ? f->natural : f->whole;
	struct linnet_error *e = c->e;
	union { double real; int64_t whole; } *acc;
	struct walk w;

	TRY_NEW(acc, c->scratch, y->n);
	for (int k = 0; k < c->nin; k++)
		for (walk_init(&w, y, 1, &c->in[k]); walk_next(&w);)
			for (int64_t i = 0; i < w.n; i++) {
				int64_t at = w.at[0] + i * w.step[0], to = w.out + i;

				if (kind == CLASS_FLOAT) {
					double v = tensor_get(c->in[k], at);

					acc[to].real = k ? f->real(acc[to].real, v) : v;
				} else {
					int64_t v = tensor_get_int(c->in[k], at);

					acc[to].whole = k ? g(acc[to].whole, v) : v;
				}
			}
	for (int64_t i = 0; i < y->n; i++) {
		if (kind == CLASS_FLOAT)
			tensor_put(y, i, acc[i].real / divisor);
		else
			tensor_put_int(y, i, acc[i].whole);
	}
	return LINNET_OK;
}

static enum linnet_code variadic(struct kernel_call *c) { return fold(c, 1); }
static enum linnet_code mean(struct kernel_call *c) { return fold(c, c->nin); }

/* ---- Bits ---- */

/*
 * By a negative amount, or by the width or more, only the sign is left of a number shifted right, and 0 otherwise.
 * Right shifts of signed numbers copy the sign; integers of all types come sign- or zero-extended to 64 bits.
 */
static int64_t shift_right(int64_t x, int64_t n)
{
	if (n < 0 || n > 63)
		return x < 0 ? -1 : 0;
	return x < 0 ? (int64_t)~(~(uint64_t)x >> n) : (int64_t)((uint64_t)x >> n);
}

static int64_t shift_right_natural(int64_t x, int64_t n)
{
	return n < 0 || n > 63 ? 0 : (int64_t)((uint64_t)x >> n);
}

static int64_t shift_left(int64_t x, int64_t n)
{
	return n < 0 || n > 63 ? 0 : (int64_t)((uint64_t)x << n);
}

static enum linnet_code bit_shift(struct kernel_call *c)
{
	static const struct binary right = { .whole = shift_right, .natural = shift_right_natural };
	static const struct binary left = { .whole = shift_left };

	return apply(c, c->attr[0].s.p[0] == 'R' ? &right : &left);
}

/* ---- Gates ---- */

/* x, slope * x when negative; the slope broadcasts to X and not the other way. */
static double prelu(double x, double slope) { return x < 0 ? slope * x : x; }
static int64_t prelu_int(int64_t x, int64_t slope) { return x < 0 ? mul_int(x, slope) : x; }
static int64_t prelu_natural(int64_t x, int64_t slope)
{
	(void)slope;
	return x;
}

static enum linnet_code shape_prelu(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	struct shape s;

	if (x->rank >= 0)
		TRY(rank_check(c, 1, 0, x->rank));
	TRY(broadcast(c->dims, x, &c->in[1]->shape, &s, c->e));
	for (int i = 0; i < s.rank; i++)
		if (x->d[i] == 1 && dim_is_int(s.d[i]) && s.d[i] != 1)
			return fail(c->e, LINNET_ESHAPE, "slope has length %lld where X has 1", (long long)s.d[i]);
	c->out[0].shape = *x;
	return LINNET_OK;
}

static enum linnet_code shape_swiglu(struct shape_call *c)
{
	const struct shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;

	c->out[0].shape = a->rank < 0 ? *b : *a;
	if (a->rank < 0 || b->rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, 1, a->rank, a->rank));
	for (int i = 0; i < a->rank; i++)
		TRY(length_join(c, "lengths of A and B", a->d[i], b->d[i], &c->out[0].shape.d[i]));
	return LINNET_OK;
}

/* (a / (1 + exp(-alpha a))) b */
static enum linnet_code swiglu(struct kernel_call *c)
{
	double alpha = attr_get(c->op, c->attr, "alpha")->f;

	for (int64_t i = 0; i < c->out[0]->n; i++) {
		double a = tensor_get(c->in[0], i), e = exp(-fabs(alpha * a));

		a *= alpha * a < 0 ? e / (1 + e) : 1 / (1 + e);
		tensor_put(c->out[0], i, a * tensor_get(c->in[1], i));
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define BINARY(title, first, set, flow, agreement, low, high, text, gradient, ...)                 \
	{                                                                                          \
		.name = title, .since = first, .doc = text,                                        \
		.in = IN({ "A", T, flow }, { "B", T, flow }), .out = OUT({ "C", T }),              \
		.types = { [T] = set }, .agree = agreement, .flags = OP_EACH, .shape = shape_binary, .kernel = binary, .fast = FAST(&fast_binary), \
		.param = &(const struct binary){ __VA_ARGS__ }, .grad = gradient,                  \
		.fuzz = { FUZZ_BROADCAST, low, high },                                             \
	}

/* The output is named like the operator, in small letters. */
#define MANY(title, output, set, flow, agreement, run, text, gradient, ...)                        \
	{                                                                                          \
		.name = title, .since = 8, .doc = text,                                            \
		.in = IN({ "data_0", T, flow, VARIADIC }), .out = OUT({ output, T }),              \
		.types = { [T] = set }, .agree = agreement, .flags = OP_EACH, .shape = shape_binary, .kernel = run, .fast = FAST(&fast_binary), \
		.param = &(const struct binary){ __VA_ARGS__ }, .write_grad = gradient, .fuzz = { FUZZ_BROADCAST, -4, 4 }, \
	}

static const struct op rows[] = {
	BINARY("Add", 7, NUMBERS, FLOW_LINEAR, AGREE_ROUND, -4, 4, "The sum.", "{ d_A = Identity (d_C)\n  d_B = Identity (d_C) }", .real = add,
	       .whole = add_int, .sym = dim_add, .ratio = ratio_add),
	BINARY("Sub", 7, NUMBERS, FLOW_LINEAR, AGREE_ROUND, -4, 4, "The difference.", "{ d_A = Identity (d_C)\n  d_B = Neg (d_C) }", .real = sub,
	       .whole = sub_int, .sym = dim_sub, .ratio = ratio_sub),
	BINARY("Mul", 7, NUMBERS, FLOW_LINEAR, AGREE_ROUND, -4, 4, "The product.", "{ d_A = Mul (d_C, B)\n  d_B = Mul (d_C, A) }", .real = mul,
	       .whole = mul_int, .sym = dim_mul, .ratio = ratio_mul),
	{
		.name = "Div", .since = 7,
		.doc = "The quotient; of integers toward zero.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_SMOOTH }),
		.out = OUT({ "C", T }),
		.types = { [T] = NUMBERS },
		.agree = AGREE_ROUND,
		.flags = OP_EACH,
		.grad = "{ d_A = Div (d_C, B)\n  q = Mul (d_A, C)\n  d_B = Neg (q) }",
		.shape = shape_binary,
		.kernel = binary,
		.fast = FAST(&fast_binary),
		.param = &(const struct binary){ quotient, quotient_int, quotient_natural, dim_quotient, ratio_div, .divides = true },
		.fuzz = { FUZZ_BROADCAST, 1, 8 },
	},
	{
		.name = "Mod", .since = 10,
		.doc = "The remainder: of the quotient rounded down, with the divisor's sign, or rounded to zero, with "
		       "the dividend's.",
		.in = IN({ "A", T, FLOW_KINKED }, { "B", T, FLOW_KINKED }),
		.out = OUT({ "C", T }),
		.attr = ATTRS({ .name = "fmod", .kind = ATTR_INT, .lo = 0, .hi = 1 }),
		.types = { [T] = NUMBERS },
		.agree = AGREE_ROUND,
		.flags = OP_EACH,
		.grad = "{ whole = Sub (A, C)\n  q = Div (whole, B)\n  n = Round (q)\n  m = Neg (n)\n  d_A = Identity (d_C)\n  d_B = Mul (d_C, m) }",
		.shape = shape_mod,
		.kernel = mod,
		.fuzz = { FUZZ_BROADCAST, 1, 8 },
	},
	{
		.name = "Pow", .since = 7,
		.doc = "X to the power Y, in the type of X.",
		.in = IN({ "X", T, FLOW_SMOOTH }, { "Y", T1, FLOW_SMOOTH }),
		.out = OUT({ "Z", T }),
		.types = { [T] = FLOATS | INDICES, [T1] = NUMBERS },
		.agree = AGREE_ROUND,
		.flags = OP_EACH,
		.write_grad = grad_power,
		.shape = shape_broadcast,
		.kernel = power,
		.fast = FAST(&fast_binary),
		.fuzz = { FUZZ_BROADCAST, 0.5, 3 },
	},
	MANY("Max", "max", NUMBERS, FLOW_KINKED, AGREE_BITS, variadic,
	     "The largest; NaN if any is.", grad_extreme, .real = larger, .whole = larger_int,
	     .natural = larger_natural, .sym = dim_max),
	MANY("Min", "min", NUMBERS, FLOW_KINKED, AGREE_BITS, variadic,
	     "The smallest; NaN if any is.", grad_extreme, .real = smaller, .whole = smaller_int,
	     .natural = smaller_natural, .sym = dim_min),
	MANY("Sum", "sum", FLOATS, FLOW_LINEAR, AGREE_ROUND, variadic, "The sum.", grad_sum, .real = add),
	MANY("Mean", "mean", FLOATS, FLOW_LINEAR, AGREE_ROUND, mean, "The mean.", grad_mean, .real = add),
	BINARY("BitwiseAnd", 18, INTS, FLOW_NONE, AGREE_BITS, 0, 0, "The bits set in both.", NULL,
	       .whole = and_int),
	BINARY("BitwiseOr", 18, INTS, FLOW_NONE, AGREE_BITS, 0, 0, "The bits set in either.", NULL,
	       .whole = or_int),
	BINARY("BitwiseXor", 18, INTS, FLOW_NONE, AGREE_BITS, 0, 0,
	       "The bits set in one of the two.", NULL, .whole = xor_int),
	{
		.name = "BitShift", .since = 11,
		.doc = "X shifted by Y bits; to the right, signed numbers keep their sign.",
		.in = IN({ "X", T, FLOW_NONE }, { "Y", T, FLOW_NONE }),
		.out = OUT({ "Z", T }),
		.attr = ATTRS({ .name = "direction", .kind = ATTR_STRING, .flags = REQUIRED | BY_NAME, .oneof = "LEFT|RIGHT" }),
		.types = { [T] = INTS },
		.agree = AGREE_BITS,
		.flags = OP_EACH,
		.shape = shape_broadcast,
		.kernel = bit_shift,
		.fuzz = { FUZZ_BROADCAST, 0, 8 },
	},
	{
		.name = "PRelu", .since = 7,
		.doc = "X, slope times it where it is negative; the slope broadcasts to X.",
		.in = IN({ "X", T, FLOW_KINKED }, { "slope", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.types = { [T] = FLOATS | INDICES | SET(UINT32) | SET(UINT64) },
		.agree = AGREE_ROUND,
		.shape = shape_prelu,
		.kernel = binary,
		.param = &(const struct binary){ .real = prelu, .whole = prelu_int, .natural = prelu_natural },
		.body = "{ zero_32 = Constant <value_float = 0.0> ()\n"
		        "  zero = CastLike (zero_32, X)\n"
		        "  below = Less (X, zero)\n"
		        "  small = Mul (slope, X)\n"
		        "  Y = Where (below, small, X) }",
		.fuzz = { FUZZ_CUSTOM, -4, 4 },
	},
	{
		.name = "SwiGLU", .since = 28,
		.doc = "The gate A times its sigmoid (at alpha A), times B.",
		.in = IN({ "A", T, FLOW_SMOOTH }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_swiglu,
		.kernel = swiglu,
		.fast = FAST(&fast_swiglu),
		.grad = "{" REAL("one", "1.0") "  a = Constant <value_float: float = @alpha> ()\n"
		        "  u = Mul (A, a)\n"
		        "  s = Sigmoid (u)\n"
		        "  gate = Mul (A, s)\n"
		        "  d_B = Mul (d_Y, gate)\n"
		        "  n = Sub (one, s)\n"
		        "  un = Mul (u, n)\n"
		        "  f = Add (un, one)\n"
		        "  slope = Mul (s, f)\n"
		        "  b = Mul (d_Y, B)\n"
		        "  d_A = Mul (b, slope) }",
		.body = "{ gate = Swish <alpha: float = @alpha> (A)\n"
		        "  Y = Mul (gate, B) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
};

const struct op_family binary_ops = FAMILY("binary", rows);
