/* Functions of one element: reference kernels, then rows. */
#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/kernel.h"

/* One function of one element, as its row says it in `param`. */
struct unary {
	double (*real)(double x);
	double (*with)(double x, const struct attr *a); /* instead of `real`: by the attributes, in row order */
	int64_t (*whole)(int64_t x);                    /* on signed integers, wrapping to the type */
	int64_t (*natural)(int64_t x);                  /* on unsigned integers (their bits) and bool */
	dim (*sym)(struct dims *t, dim x);              /* on known elements */
	dim (*ratio)(struct dims *t, dim num, dim den); /* on known elements of floats, to integers */
};

static enum linnet_code shape_unary(struct shape_call *c)
{
	const struct unary *f = c->op->param;
	dim x[MAX_SYM];
	int n;

	TRY(shape_same(c));
	if (f->ratio && dtype_class(c->out[0].dt) == CLASS_FLOAT) {
		struct ratio r[MAX_SYM];

		n = c->arena ? type_ratios(c->in[0], r) : -1;
		for (int i = 0; i < n; i++)
			r[i] = (struct ratio){ f->ratio(c->dims, r[i].num, r[i].den), 1 };
		if (n >= 0)
			type_set_ratios(c, 0, r, n);
		return LINNET_OK;
	}
	n = f->sym && c->arena ? type_elements(c->in[0], x) : -1;
	for (int i = 0; i < n; i++)
		x[i] = f->sym(c->dims, x[i]);
	if (n >= 0)
		type_set_sym(c, 0, x, n);
	return LINNET_OK;
}

static enum linnet_code unary(struct kernel_call *c)
{
	const struct unary *f = c->op->param;
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t (*g)(int64_t) = dtype_class(x->dt) == CLASS_INT ? f->whole : f->natural;

	if (dtype_class(x->dt) != CLASS_FLOAT && g)
		for (int64_t i = 0; i < y->n; i++)
			tensor_put_int(y, i, g(tensor_get_int(x, i)));
	else if (f->with)
		for (int64_t i = 0; i < y->n; i++)
			tensor_put(y, i, f->with(tensor_get(x, i), c->attr));
	else
		return map_unary(c, f->real);
	return LINNET_OK;
}

/* ---- Arithmetic ---- */

static int64_t same_int(int64_t x) { return x; }
static int64_t neg_int(int64_t x) { return (int64_t)(0 - (uint64_t)x); }
static int64_t abs_int(int64_t x) { return x < 0 ? neg_int(x) : x; }
static int64_t sign_int(int64_t x) { return (x > 0) - (x < 0); }
static int64_t nonzero_int(int64_t x) { return x != 0; }
static int64_t relu_int(int64_t x) { return x < 0 ? 0 : x; }
static int64_t bitwise_not(int64_t x) { return ~x; }
static int64_t not_int(int64_t x) { return !x; }

static double neg(double x) { return -x; }
static double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : x == 0 ? 0 : x; }
static double reciprocal(double x) { return 1 / x; }
static double is_nan(double x) { return isnan(x); }

static double is_inf(double x, const struct attr *a)
{
	return isinf(x) && (x < 0 ? a[0].i : a[1].i) != 0;
}

static dim dim_neg(struct dims *t, dim x) { return dim_sub(t, 0, x); }
static dim dim_abs(struct dims *t, dim x) { return dim_max(t, x, dim_neg(t, x)); }
static dim dim_relu(struct dims *t, dim x) { return dim_max(t, x, 0); }

static dim dim_not(struct dims *t, dim x)
{
	(void)t;
	return dim_is_int(x) ? !x : DIM_NONE;
}

/* ---- Activations ---- */

static double relu(double x) { return x < 0 ? 0 : x; }
static double leaky_relu(double x, const struct attr *a) { return x < 0 ? a[0].f * x : x; }
static double elu(double x, const struct attr *a) { return x < 0 ? a[0].f * expm1(x) : x; }
static double thresholded_relu(double x, const struct attr *a) { return x > a[0].f ? x : 0; }
static double softsign(double x) { return x / (1 + fabs(x)); }

static double selu(double x, const struct attr *a)
{
	return a[1].f * (x < 0 ? a[0].f * expm1(x) : x);
}

/* max(0, x) + min(0, alpha (exp(x / alpha) - 1)) */
static double celu(double x, const struct attr *a)
{
	double v = a[0].f * expm1(x / a[0].f);

	return x > 0 ? x : v > 0 ? 0 : v;
}

/* 1 / (1 + exp(-x)), from the side where exp is small. */
static double sigmoid(double x)
{
	double e = exp(-fabs(x));

	return x < 0 ? e / (1 + e) : 1 / (1 + e);
}

static double hard_sigmoid(double x, const struct attr *a)
{
	double v = a[0].f * x + a[1].f;

	return v < 0 ? 0 : v > 1 ? 1 : v;
}

static double hard_swish(double x)
{
	double v = x / 6 + 0.5;

	return x * (v < 0 ? 0 : v > 1 ? 1 : v);
}

/* log(1 + exp(x)) */
static double softplus(double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))); }
static double mish(double x) { return x * tanh(softplus(x)); }
static double swish(double x, const struct attr *a) { return x * sigmoid(a[0].f * x); }

/* x Phi(x), Phi the normal distribution: 0.5 x (1 + erf(x / sqrt(2))), or with "tanh" for erf a polynomial's tanh. */
static double gelu(double x, const struct attr *a)
{
	const double sqrt_half = 0.70710678118654752440, sqrt_two_over_pi = 0.79788456080286535588;

	if (a[0].s.p[0] == 't')
		return 0.5 * x * (1 + tanh(sqrt_two_over_pi * (x + 0.044715 * x * x * x)));
	return 0.5 * x * erfc(-x * sqrt_half);
}

/* x + bias below -lambd, x - bias above lambd, else 0. */
static double shrink_real(double x, const struct attr *a)
{
	double bias = a[0].f, lambd = a[1].f;

	return x < -lambd ? x + bias : x > lambd ? x - bias : isnan(x) ? x : 0;
}

/* On integers with bias and lambd of their type, as ONNX's function body casts them. */
static enum linnet_code shrink(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t bias, lambd;

	if (dtype_class(x->dt) == CLASS_FLOAT)
		return unary(c);
	dtype_put(DT_INT64, &bias, 0, c->attr[0].f);
	dtype_put(DT_INT64, &lambd, 0, c->attr[1].f);
	for (int64_t i = 0; i < x->n; i++) {
		int64_t v = tensor_get_int(x, i), order = int_order(x->dt, v), y = 0;

		if (order < int_order(x->dt, neg_int(lambd)) && dtype_class(x->dt) == CLASS_INT)
			y = (int64_t)((uint64_t)v + (uint64_t)bias);
		else if (order > int_order(x->dt, lambd))
			y = (int64_t)((uint64_t)v - (uint64_t)bias);
		tensor_put_int(c->out[0], i, y);
	}
	return LINNET_OK;
}

/* ---- Clip ---- */

static enum linnet_code shape_clip(struct shape_call *c)
{
	dim x[MAX_SYM], bound;
	int n;

	TRY(shape_same(c));
	for (int i = 1; i < c->nin; i++) {
		if (!c->in[i])
			continue;
		TRY(rank_check(c, i, 0, 1));
		if (c->in[i]->shape.rank == 1)
			TRY(length_join(c, "length of a bound and 1", c->in[i]->shape.d[0], 1, NULL));
	}
	n = c->arena ? type_elements(c->in[0], x) : -1;
	for (int k = 1; k < c->nin; k++) {
		bound = c->in[k] && n >= 0 ? type_element(c->in[k], 0) : DIM_NONE;
		for (int i = 0; i < n && c->in[k]; i++)
			x[i] = k == 1 ? dim_max(c->dims, x[i], bound) : dim_min(c->dims, x[i], bound);
	}
	if (n >= 0)
		type_set_sym(c, 0, x, n);
	return LINNET_OK;
}

/* Raised to min, then lowered to max, which wins. */
static enum linnet_code clip(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *lo = c->nin > 1 ? c->in[1] : NULL, *hi = c->nin > 2 ? c->in[2] : NULL;
	bool real = dtype_class(x->dt) == CLASS_FLOAT;

	for (int64_t i = 0; i < x->n && real; i++) {
		double v = tensor_get(x, i);

		if (lo && v < tensor_get(lo, 0))
			v = tensor_get(lo, 0);
		if (hi && v > tensor_get(hi, 0))
			v = tensor_get(hi, 0);
		tensor_put(c->out[0], i, v);
	}
	for (int64_t i = 0; i < x->n && !real; i++) {
		int64_t v = int_order(x->dt, tensor_get_int(x, i));
		int64_t a = lo ? int_order(x->dt, tensor_get_int(lo, 0)) : INT64_MIN;
		int64_t b = hi ? int_order(x->dt, tensor_get_int(hi, 0)) : INT64_MAX;

		v = v < a ? a : v;
		v = v > b ? b : v;
		tensor_put_int(c->out[0], i, int_order(x->dt, v));
	}
	return LINNET_OK;
}

/* ---- Cast ---- */

/* The elements a cast keeps: those of integers and floats, though not as bool. A cast to integers truncates. Constants are not
 * for here: they are evaluated. */
static void keep_sym(struct shape_call *c)
{
	struct ratio r[MAX_SYM];
	int n;

	if (!c->arena || c->in[0]->value || !dtype_in(c->out[0].dt, INDICES | SET(FLOAT) | SET(DOUBLE)))
		return;
	n = type_ratios(c->in[0], r);
	for (int i = 0; i < n && dtype_in(c->out[0].dt, INDICES); i++) {
		bool whole = r[i].den == 1 || dim_ge(c->dims, r[i].num, 0);

		r[i] = (struct ratio){ whole ? dim_div(c->dims, r[i].num, r[i].den) : DIM_NONE, 1 };
	}
	if (n >= 0)
		type_set_ratios(c, 0, r, n);
}

static enum linnet_code shape_cast(struct shape_call *c)
{
	TRY(shape_same(c));
	TRY(attr_dtype(c, "to"));
	keep_sym(c);
	return LINNET_OK;
}

static enum linnet_code shape_cast_like(struct shape_call *c)
{
	TRY(shape_same(c));
	keep_sym(c);
	return LINNET_OK;
}

/*
 * A double that rounds to any narrower float as the integer m does: beyond 53 bits, the last one kept says whether
 * something was dropped.
 */
static double sticky_double(uint64_t m)
{
	int shift = 0;
	uint64_t lost;

	while (m >> shift >> DBL_MANT_DIG)
		shift++;
	lost = m & (((uint64_t)1 << shift) - 1);
	return ldexp((double)(m >> shift | (lost != 0)), shift);
}

static double int_to_real(const struct tensor *x, int64_t i, enum dtype to)
{
	int64_t v = tensor_get_int(x, i);
	bool negative = dtype_class(x->dt) == CLASS_INT && v < 0;
	double m;

	if (to == DT_DOUBLE)
		return tensor_get(x, i);
	m = sticky_double(negative ? 0 - (uint64_t)v : (uint64_t)v);
	return negative ? -m : m;
}

/*
 * 2^(bits - 127), 255 for NaN. What is beyond the range, zero included, takes the nearest end or, without `saturate`,
 * becomes NaN. The sign is dropped.
 */
static uint8_t e8m0_from_double(double v, bool saturate, struct text mode)
{
	int e;
	double m = 2 * frexp(fabs(v), &e); /* |v| = m 2^(e - 1), m in [1, 2) */

	if (isnan(v))
		return 0xff;
	if (isinf(v))
		return saturate ? 0xfe : 0xff;
	e += 126 + (mode.p[0] == 'u' ? m > 1 : mode.p[0] == 'n' ? m >= 1.5 : 0);
	if (v == 0 || e < 0)
		return saturate ? 0 : 0xff;
	return (uint8_t)(e <= 0xfe ? e : saturate ? 0xfe : 0xff);
}

static enum linnet_code not_a_number(const struct kernel_call *c, struct text s)
{
	return fail(c->e, LINNET_EVALUE, "\"%.*s\" cannot be cast to %s", (int)(s.n < 64 ? s.n : 64), s.p ? s.p : "",
	            dtype_name(c->out[0]->dt));
}

/* A number as C writes it, or inf or nan; for an integer type what follows the point is dropped. */
static enum linnet_code text_to_number(struct kernel_call *c, struct text s, int64_t i)
{
	struct tensor *y = c->out[0];
	enum dtype_class kind = dtype_class(y->dt);
	char *p = arena_strn(c->scratch, s.p, s.n), *end;
	double v;

	if (!p)
		return fail_mem(c->e);
	if (kind == CLASS_INT || kind == CLASS_UINT) {
		int64_t whole;

		errno = 0;
		whole = kind == CLASS_UINT ? (int64_t)strtoull(p, &end, 10) : strtoll(p, &end, 10);
		if (errno == ERANGE)
			return not_a_number(c, s);
		if (end != p && end == p + s.n) {
			tensor_put_int(y, i, whole);
			return LINNET_OK;
		}
	}
	v = y->dt == DT_FLOAT ? (double)strtof(p, &end) : strtod(p, &end);
	while (end != p && isspace((unsigned char)*end))
		end++;
	if (end == p || end != p + s.n || (kind != CLASS_FLOAT && !isfinite(v)))
		return not_a_number(c, s);
	tensor_put(y, i, v);
	return LINNET_OK;
}

/* The fewest digits that read back as the same element; with exponent below 1e-4 and from 1e16 on. */
static const char *real_to_text(const struct tensor *x, int64_t i, struct arena *a)
{
	double v = tensor_get(x, i);
	uint64_t bits = 0;
	int digits = 0, exponent; /* digits behind the first */
	char buf[32];

	if (isnan(v))
		return "NaN";
	if (isinf(v))
		return v < 0 ? "-INF" : "INF";
	for (;; digits++) {
		snprintf(buf, sizeof buf, "%.*e", digits, v);
		dtype_put(x->dt, &bits, 0, strtod(buf, NULL));
		if (dtype_get(x->dt, &bits, 0) == v || digits == DBL_DECIMAL_DIG - 1)
			break;
	}
	exponent = atoi(strchr(buf, 'e') + 1);
	if (exponent < -4 || exponent >= 16)
		return arena_str(a, buf);
	return arena_fmt(a, "%.*f", digits > exponent ? digits - exponent : 0, v);
}

static enum linnet_code number_to_text(struct kernel_call *c, int64_t i)
{
	const struct tensor *x = c->in[0];
	const char *p;

	if (dtype_class(x->dt) == CLASS_FLOAT)
		p = real_to_text(x, i, c->scratch);
	else if (x->dt == DT_UINT64)
		p = arena_fmt(c->scratch, "%llu", (unsigned long long)tensor_get_int(x, i));
	else
		p = arena_fmt(c->scratch, "%lld", (long long)tensor_get_int(x, i));
	if (!p)
		return fail_mem(c->e);
	((struct text *)c->out[0]->data)[i] = (struct text){ p, strlen(p) };
	return LINNET_OK;
}

/*
 * Floats round once, to even; to integers they drop the fraction. Integers wrap. What is not zero is true. 8-bit
 * floats saturate, or with `saturate` = 0 become infinite or NaN.
 */
static enum linnet_code cast(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	bool from_real = dtype_class(x->dt) == CLASS_FLOAT, to_real = dtype_class(y->dt) == CLASS_FLOAT;
	bool saturate = attr_get(c->op, c->attr, "saturate")->i != 0;
	struct text mode = attr_get(c->op, c->attr, "round_mode")->s;

	if (x->dt == y->dt) {
		tensor_copy(y, x);
		return LINNET_OK;
	}
	if (dtype_bits(y->dt) < 8 && y->bytes)
		memset(y->data, 0, y->bytes); /* elements share bytes */
	for (int64_t i = 0; i < x->n; i++) {
		if (x->dt == DT_STRING) {
			TRY(text_to_number(c, ((const struct text *)x->data)[i], i));
		} else if (y->dt == DT_STRING) {
			TRY(number_to_text(c, i));
		} else if (!from_real && !to_real) {
			tensor_put_int(y, i, tensor_get_int(x, i));
		} else {
			double v = from_real ? tensor_get(x, i) : int_to_real(x, i, y->dt);

			if (y->dt == DT_FLOAT8E8M0)
				((uint8_t *)y->data)[i] = e8m0_from_double(v, saturate, mode);
			else if (dtype_in(y->dt, FLOAT8S))
				((uint8_t *)y->data)[i] = narrow_from_double(y->dt, v, saturate);
			else
				tensor_put(y, i, v);
		}
	}
	return LINNET_OK;
}

/* ---- BitCast ---- */

static enum linnet_code shape_bit_cast(struct shape_call *c)
{
	enum dtype from = c->in[0]->dt;

	TRY(shape_same(c));
	TRY(attr_dtype(c, "to"));
	if (from != DT_UNDEFINED && dtype_bits(from) != dtype_bits(c->out[0].dt))
		return fail(c->e, LINNET_ETYPE, "elements of type %s have %u bits; those of %s have %u", dtype_name(from), dtype_bits(from),
		            dtype_name(c->out[0].dt), dtype_bits(c->out[0].dt));
	return LINNET_OK;
}

static enum linnet_code bit_cast(struct kernel_call *c)
{
	tensor_copy(c->out[0], c->in[0]);
	return LINNET_OK;
}

/* ---- Rows ---- */

#define CASTABLE (NUMBERS | SET(BOOL) | SET(STRING) | NARROWS)
#define BIT_CASTABLE (STORED & ~SET(STRING))
#define FLOAT6S (SET(FLOAT6E2M3) | SET(FLOAT6E3M2))

/* ONNX calls the one input and output X and Y, or input and output. */
#define XY(flow) .in = IN({ "X", T, flow }), .out = OUT({ "Y", T })
#define IO(flow) .in = IN({ "input", T, flow }), .out = OUT({ "output", T })

#define FUNCTION(...) .flags = OP_EACH, .shape = shape_unary, .kernel = unary, .fast = FAST(&fast_unary), .param = &(const struct unary){ __VA_ARGS__ }

#define UNARY(title, first, io, set, agreement, low, high, text, gradient, ...)                    \
	{                                                                                          \
		.name = title, .since = first, .doc = text, io, .types = { [T] = set },            \
		.agree = agreement, .fuzz = { FUZZ_SAME, low, high }, .grad = gradient, FUNCTION(__VA_ARGS__), \
	}

#define ROUND_MODE                                                                                 \
	{ .name = "round_mode", .kind = ATTR_STRING, .s = "up", .oneof = "up|down|nearest", .since = 24 }
#define SATURATE { .name = "saturate", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1, .since = 19 }
#define ALPHA(value) { .name = "alpha", .kind = ATTR_FLOAT, .f = value }

/* A float attribute, or a number, in the element type of the input. */
#define TYPED_ATTR(to, name, x)                                                                    \
	"  " to "_32 = Constant <value_float: float = @" name "> ()\n"                             \
	"  " to " = CastLike (" to "_32, " x ")\n"
#define TYPED(to, number, x)                                                                       \
	"  " to "_32 = Constant <value_float = " number "> ()\n"                                   \
	"  " to " = CastLike (" to "_32, " x ")\n"

/* The root of 1 - x^2 and the like. */
#define ROOT(what) REAL("one", "1.0") "  q = Mul (input, input)\n  s = " what "\n  r = Sqrt (s)\n"
/* d_X = d_Y where the condition holds, 0 elsewhere. */
#define WHERE(x, y) REAL("nothing", "0.0") "  d_" x " = Where (holds, d_" y ", nothing) }"

static const struct op rows[] = {
	UNARY("Abs", 6, XY(FLOW_KINKED), NUMBERS, AGREE_BITS, -4, 4, "The distance from 0.",
	      "{ s = Sign (X)\n  d_X = Mul (d_Y, s) }",
	      .real = fabs, .whole = abs_int, .natural = same_int, .sym = dim_abs),
	UNARY("Neg", 6, XY(FLOW_LINEAR), SIGNED_NUMBERS, AGREE_BITS, -4, 4,
	      "The number with its sign turned.",
	      "{ d_X = Neg (d_Y) }", .real = neg, .whole = neg_int, .sym = dim_neg),
	UNARY("Sign", 9, IO(FLOW_NONE), NUMBERS, AGREE_BITS, -4, 4,
	      "1, 0 or -1 as the input is positive, zero or negative.", NULL, .real = sign,
	      .whole = sign_int, .natural = nonzero_int),
	UNARY("Floor", 6, XY(FLOW_NONE), FLOATS, AGREE_BITS, -4, 4,
	      "The largest integer that is not larger.", NULL, .real = floor, .ratio = dim_div),
	UNARY("Ceil", 6, XY(FLOW_NONE), FLOATS, AGREE_BITS, -4, 4,
	      "The smallest integer that is not smaller.", NULL, .real = ceil, .ratio = dim_ceil_div),
	UNARY("Round", 11, XY(FLOW_NONE), FLOATS, AGREE_BITS, -4, 4,
	      "The nearest integer, halves to the even one.", NULL, .real = nearbyint),
	UNARY("Reciprocal", 6, XY(FLOW_SMOOTH), FLOATS, AGREE_ROUND, 0.25, 4,
	      "1 divided by the number.",
	      "{ q = Mul (Y, Y)\n  n = Neg (q)\n  d_X = Mul (d_Y, n) }", .real = reciprocal),
	UNARY("Sqrt", 6, XY(FLOW_SMOOTH), FLOATS, AGREE_ROUND, 0.25, 4,
	      "The square root; NaN of negative numbers.",
	      "{" REAL("half", "0.5") "  h = Mul (d_Y, half)\n  d_X = Div (h, Y) }", .real = sqrt),
	UNARY("Exp", 6, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -8, 8,
	      "e to the power of the number.",
	      "{ d_input = Mul (d_output, output) }", .real = exp),
	UNARY("Log", 6, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, 0.25, 8,
	      "The natural logarithm; NaN of negative numbers.",
	      "{ d_input = Div (d_output, input) }", .real = log),
	UNARY("Erf", 9, IO(FLOW_SMOOTH), NUMBERS, AGREE_ROUND, -3, 3, "The error function.",
	      "{" REAL("c", "1.1283791670955126") "  q = Mul (input, input)\n  n = Neg (q)\n  e = Exp (n)\n"
	      "  s = Mul (e, c)\n  d_input = Mul (d_output, s) }",
	      .real = erf),
	UNARY("Sin", 7, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -4, 4,
	      "The sine of an angle in radians.",
	      "{ c = Cos (input)\n  d_input = Mul (d_output, c) }", .real = sin),
	UNARY("Cos", 7, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -4, 4,
	      "The cosine of an angle in radians.",
	      "{ s = Sin (input)\n  n = Neg (s)\n  d_input = Mul (d_output, n) }", .real = cos),
	UNARY("Tan", 7, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -1.25, 1.25,
	      "The tangent of an angle in radians.",
	      "{" REAL("one", "1.0") "  q = Mul (output, output)\n  s = Add (q, one)\n  d_input = Mul (d_output, s) }", .real = tan),
	UNARY("Asin", 7, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -0.9, 0.9,
	      "The angle in radians with that sine.",
	      "{" ROOT("Sub (one, q)") "  d_input = Div (d_output, r) }", .real = asin),
	UNARY("Acos", 7, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -0.9, 0.9,
	      "The angle in radians with that cosine.",
	      "{" ROOT("Sub (one, q)") "  n = Neg (r)\n  d_input = Div (d_output, n) }", .real = acos),
	UNARY("Atan", 7, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -4, 4,
	      "The angle in radians with that tangent.",
	      "{" REAL("one", "1.0") "  q = Mul (input, input)\n  s = Add (one, q)\n  d_input = Div (d_output, s) }", .real = atan),
	UNARY("Sinh", 9, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -4, 4, "The hyperbolic sine.",
	      "{ c = Cosh (input)\n  d_input = Mul (d_output, c) }",
	      .real = sinh),
	UNARY("Cosh", 9, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -4, 4, "The hyperbolic cosine.",
	      "{ s = Sinh (input)\n  d_input = Mul (d_output, s) }",
	      .real = cosh),
	UNARY("Tanh", 6, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -4, 4, "The hyperbolic tangent.",
	      "{" REAL("one", "1.0") "  q = Mul (output, output)\n  s = Sub (one, q)\n  d_input = Mul (d_output, s) }",
	      .real = tanh),
	UNARY("Asinh", 9, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -4, 4,
	      "The number with that hyperbolic sine.",
	      "{" ROOT("Add (q, one)") "  d_input = Div (d_output, r) }", .real = asinh),
	UNARY("Acosh", 9, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, 1.25, 8,
	      "The number with that hyperbolic cosine.",
	      "{" ROOT("Sub (q, one)") "  d_input = Div (d_output, r) }", .real = acosh),
	UNARY("Atanh", 9, IO(FLOW_SMOOTH), FLOATS, AGREE_ROUND, -0.9, 0.9,
	      "The number with that hyperbolic tangent.",
	      "{" REAL("one", "1.0") "  q = Mul (input, input)\n  s = Sub (one, q)\n  d_input = Div (d_output, s) }", .real = atanh),
	UNARY("BitwiseNot", 18, XY(FLOW_NONE), INTS, AGREE_BITS, 0, 0, "Every bit turned.", NULL,
	      .whole = bitwise_not, .natural = bitwise_not),
	UNARY("Not", 1, XY(FLOW_NONE), SET(BOOL), AGREE_BITS, 0, 0,
	      "True for false, false for true.", NULL, .natural = not_int, .sym = dim_not),
	{
		.name = "IsNaN", .since = 9,
		.doc = "Whether the element is not a number.",
		.in = IN({ "X", T1, FLOW_NONE }),
		.out = OUT({ "Y", T2 }),
		.types = { [T1] = FLOATS | FLOAT8S, [T2] = SET(BOOL) },
		.agree = AGREE_BITS,
		FUNCTION(.real = is_nan),
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.name = "IsInf", .since = 10,
		.doc = "Whether the element is infinite, of the signs asked for.",
		.in = IN({ "X", T1, FLOW_NONE }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS({ .name = "detect_negative", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 },
		              { .name = "detect_positive", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }),
		.types = { [T1] = FLOATS | FLOAT8S, [T2] = SET(BOOL) },
		.agree = AGREE_BITS,
		FUNCTION(.with = is_inf),
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		.name = "Relu", .since = 6,
		.doc = "The number, 0 if it is negative.",
		XY(FLOW_KINKED),
		.types = { [T] = SIGNED_NUMBERS },
		.agree = AGREE_BITS,
		FUNCTION(.real = relu, .whole = relu_int, .sym = dim_relu),
		.body = "{" TYPED("zero", "0.0", "X") "  Y = Max (X, zero) }",
		.grad = "{" REAL("zero", "0.0") "  holds = Less (zero, X)\n" WHERE("X", "Y"),
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "LeakyRelu", .since = 6,
		.doc = "The number, alpha times it if it is negative.",
		XY(FLOW_KINKED),
		.attr = ATTRS(ALPHA(0.01f)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.with = leaky_relu),
		.body = "{" TYPED_ATTR("alpha", "alpha", "X") TYPED("zero", "0.0", "X")
		        "  below = Less (X, zero)\n"
		        "  small = Mul (alpha, X)\n"
		        "  Y = Where (below, small, X) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "ThresholdedRelu", .since = 10,
		.doc = "The number, 0 if it is not above alpha.",
		XY(FLOW_KINKED),
		.attr = ATTRS(ALPHA(1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_BITS,
		FUNCTION(.with = thresholded_relu),
		.body = "{" TYPED_ATTR("alpha", "alpha", "X") TYPED("zero", "0.0", "X")
		        "  above = Less (alpha, X)\n"
		        "  Y = Where (above, X, zero) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "Elu", .since = 6,
		.doc = "The number, alpha (exp(x) - 1) if it is negative.",
		XY(FLOW_KINKED),
		.attr = ATTRS(ALPHA(1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.with = elu),
		.body = "{" TYPED_ATTR("alpha", "alpha", "X") TYPED("zero", "0.0", "X") TYPED("one", "1.0", "X")
		        "  below = Less (X, zero)\n"
		        "  e = Exp (X)\n"
		        "  d = Sub (e, one)\n"
		        "  curve = Mul (alpha, d)\n"
		        "  Y = Where (below, curve, X) }",
		.grad = "{" REAL("one", "1.0") REAL("zero", "0.0") "  a = Constant <value_float: float = @alpha> ()\n"
		        "  below = Less (X, zero)\n"
		        "  curve = Add (Y, a)\n"
		        "  slope = Where (below, curve, one)\n"
		        "  d_X = Mul (d_Y, slope) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "Selu", .since = 6,
		.doc = "gamma times the number, gamma alpha (exp(x) - 1) if it is negative.",
		XY(FLOW_KINKED),
		.attr = ATTRS(ALPHA(1.67326319217681884765625),
		              { .name = "gamma", .kind = ATTR_FLOAT, .f = 1.05070102214813232421875 }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.with = selu),
		.body = "{" TYPED_ATTR("gamma", "gamma", "X")
		        "  e = Elu <alpha: float = @alpha> (X)\n"
		        "  Y = Mul (gamma, e) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "Celu", .since = 12,
		.doc = "max(0, x) + min(0, alpha (exp(x / alpha) - 1)).",
		XY(FLOW_SMOOTH),
		.attr = ATTRS(ALPHA(1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.with = celu),
		.body = "{" TYPED_ATTR("alpha", "alpha", "X")
		        "  s = Div (X, alpha)\n"
		        "  e = Elu <alpha = 1.0> (s)\n"
		        "  Y = Mul (alpha, e) }",
		.grad = "{" REAL("zero", "0.0") REAL("one", "1.0") "  a = Constant <value_float: float = @alpha> ()\n"
		        "  u = Div (X, a)\n"
		        "  e = Exp (u)\n"
		        "  shrunk = Sub (e, one)\n"
		        "  curve = Mul (shrunk, a)\n"
		        "  bent = Less (curve, zero)\n"
		        "  slope = Where (bent, e, zero)\n"
		        "  above = Less (zero, X)\n"
		        "  straight = Where (above, one, zero)\n"
		        "  both = Add (slope, straight)\n"
		        "  d_X = Mul (d_Y, both) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "Sigmoid", .since = 6,
		.doc = "1 / (1 + exp(-x)).",
		XY(FLOW_SMOOTH),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.real = sigmoid),
		.body = "{" TYPED("one", "1.0", "X")
		        "  n = Neg (X)\n"
		        "  e = Exp (n)\n"
		        "  s = Add (one, e)\n"
		        "  Y = Reciprocal (s) }",
		.grad = "{" REAL("one", "1.0") "  n = Sub (one, Y)\n"
		        "  s = Mul (Y, n)\n"
		        "  d_X = Mul (d_Y, s) }",
		.fuzz = { FUZZ_SAME, -8, 8 },
	},
	{
		.name = "HardSigmoid", .since = 6,
		.doc = "alpha x + beta, kept within 0 and 1.",
		XY(FLOW_KINKED),
		.attr = ATTRS(ALPHA(0.2f), { .name = "beta", .kind = ATTR_FLOAT, .f = 0.5 }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.with = hard_sigmoid),
		.body = "{" TYPED_ATTR("alpha", "alpha", "X") TYPED_ATTR("beta", "beta", "X")
		        TYPED("zero", "0.0", "X") TYPED("one", "1.0", "X")
		        "  m = Mul (X, alpha)\n"
		        "  a = Add (m, beta)\n"
		        "  low = Min (a, one)\n"
		        "  Y = Max (low, zero) }",
		.fuzz = { FUZZ_SAME, -8, 8 },
	},
	{
		.name = "HardSwish", .since = 14,
		.doc = "The number times (x / 6 + 0.5), that kept within 0 and 1.",
		XY(FLOW_KINKED),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.real = hard_swish),
		.body = "{ s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (X)\n"
		        "  Y = Mul (X, s) }",
		.fuzz = { FUZZ_SAME, -8, 8 },
	},
	{
		.name = "Softplus", .since = 1,
		.doc = "log(1 + exp(x)).",
		XY(FLOW_SMOOTH),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.real = softplus),
		.body = "{" TYPED("one", "1.0", "X")
		        "  a = Abs (X)\n"
		        "  n = Neg (a)\n"
		        "  e = Exp (n)\n"
		        "  s = Add (one, e)\n"
		        "  l = Log (s)\n"
		        "  r = Relu (X)\n"
		        "  Y = Add (r, l) }",
		.grad = "{ s = Sigmoid (X)\n"
		        "  d_X = Mul (d_Y, s) }",
		.fuzz = { FUZZ_SAME, -8, 8 },
	},
	{
		.name = "Softsign", .since = 1,
		.doc = "x / (1 + |x|).",
		IO(FLOW_SMOOTH),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.real = softsign),
		.body = "{" TYPED("one", "1.0", "input")
		        "  a = Abs (input)\n"
		        "  s = Add (one, a)\n"
		        "  output = Div (input, s) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "Mish", .since = 18,
		.doc = "The number times tanh(log(1 + exp(x))).",
		XY(FLOW_SMOOTH),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.real = mish),
		.body = "{ s = Softplus (X)\n"
		        "  t = Tanh (s)\n"
		        "  Y = Mul (X, t) }",
		.fuzz = { FUZZ_SAME, -8, 8 },
	},
	{
		.name = "Gelu", .since = 20,
		.doc = "The number times the normal distribution there, exactly or by a tanh.",
		XY(FLOW_SMOOTH),
		.attr = ATTRS({ .name = "approximate", .kind = ATTR_STRING, .s = "none", .oneof = "none|tanh" }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.with = gelu),
		.body = "?approximate=tanh\n"
		        "{" TYPED("half", "0.5", "X") TYPED("one", "1.0", "X") TYPED("cubic", "0.044715", "X")
		        TYPED("scale", "0.7978846", "X")
		        "  square = Mul (X, X)\n"
		        "  cube = Mul (square, X)\n"
		        "  bend = Mul (cubic, cube)\n"
		        "  p = Add (X, bend)\n"
		        "  u = Mul (scale, p)\n"
		        "  t = Tanh (u)\n"
		        "  s = Add (one, t)\n"
		        "  h = Mul (half, X)\n"
		        "  Y = Mul (h, s) }\n"
		        "{" TYPED("half", "0.5", "X") TYPED("one", "1.0", "X") TYPED("root", "1.4142135", "X")
		        "  u = Div (X, root)\n"
		        "  t = Erf (u)\n"
		        "  s = Add (one, t)\n"
		        "  h = Mul (half, X)\n"
		        "  Y = Mul (h, s) }",
		.grad = "?approximate=tanh\n"
		        "{" REAL("half", "0.5") REAL("one", "1.0") REAL("cubic", "0.044715") REAL("bend", "0.134145")
		        REAL("scale", "0.79788456080286536")
		        "  q = Mul (X, X)\n"
		        "  c = Mul (q, cubic)\n"
		        "  f = Add (c, one)\n"
		        "  p = Mul (f, X)\n"
		        "  u = Mul (p, scale)\n"
		        "  t = Tanh (u)\n"
		        "  tt = Mul (t, t)\n"
		        "  dt = Sub (one, tt)\n"
		        "  b = Mul (q, bend)\n"
		        "  bb = Add (b, one)\n"
		        "  du = Mul (bb, scale)\n"
		        "  w = Mul (dt, du)\n"
		        "  x = Mul (w, X)\n"
		        "  s = Add (t, one)\n"
		        "  both = Add (s, x)\n"
		        "  slope = Mul (both, half)\n"
		        "  d_X = Mul (d_Y, slope) }\n"
		        "{" REAL("half", "0.5") REAL("one", "1.0") REAL("root", "0.70710678118654752") REAL("c", "0.39894228040143268")
		        "  u = Mul (X, root)\n"
		        "  t = Erf (u)\n"
		        "  s = Add (t, one)\n"
		        "  h = Mul (s, half)\n"
		        "  q = Mul (u, u)\n"
		        "  n = Neg (q)\n"
		        "  e = Exp (n)\n"
		        "  x = Mul (X, e)\n"
		        "  xc = Mul (x, c)\n"
		        "  slope = Add (h, xc)\n"
		        "  d_X = Mul (d_Y, slope) }",
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "Swish", .since = 24,
		.doc = "The number times the sigmoid of alpha times it.",
		XY(FLOW_SMOOTH),
		.attr = ATTRS(ALPHA(1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		FUNCTION(.with = swish),
		.body = "{" TYPED_ATTR("alpha", "alpha", "X")
		        "  m = Mul (alpha, X)\n"
		        "  s = Sigmoid (m)\n"
		        "  Y = Mul (X, s) }",
		.grad = "{" REAL("one", "1.0") "  a = Constant <value_float: float = @alpha> ()\n"
		        "  u = Mul (X, a)\n"
		        "  s = Sigmoid (u)\n"
		        "  n = Sub (one, s)\n"
		        "  un = Mul (u, n)\n"
		        "  f = Add (un, one)\n"
		        "  slope = Mul (s, f)\n"
		        "  d_X = Mul (d_Y, slope) }",
		.fuzz = { FUZZ_SAME, -8, 8 },
	},
	{
		.name = "Shrink", .since = 9,
		.doc = "Moved by bias towards 0 beyond lambd on either side, 0 between.",
		IO(FLOW_KINKED),
		.attr = ATTRS({ .name = "bias", .kind = ATTR_FLOAT }, { .name = "lambd", .kind = ATTR_FLOAT, .f = 0.5 }),
		.types = { [T] = INTS | SET(FLOAT16) | SET(FLOAT) | SET(DOUBLE) },
		.agree = AGREE_ROUND,
		.shape = shape_same,
		.kernel = shrink,
		.param = &(const struct unary){ .with = shrink_real },
		.grad = "{ l = Constant <value_float: float = @lambd> ()\n"
		        "  a = Abs (input)\n"
		        "  holds = Less (l, a)\n" WHERE("input", "output"),
		.fuzz = { FUZZ_SAME, -4, 4 },
	},
	{
		.name = "Clip", .since = 11,
		.doc = "Raised to min, then lowered to max.",
		.in = IN({ "input", T, FLOW_KINKED }, { "min", T, FLOW_KINKED, OPTIONAL },
		          { "max", T, FLOW_KINKED, OPTIONAL }),
		.out = OUT({ "output", T }),
		.types = { [T] = NUMBERS },
		.agree = AGREE_BITS,
		.flags = OP_EACH,
		.shape = shape_clip,
		.kernel = clip,
		.body = "?min ?max\n"
		        "{ low = Less (input, min)\n"
		        "  t = Where (low, min, input)\n"
		        "  high = Less (max, t)\n"
		        "  output = Where (high, max, t) }\n"
		        "{ low = Less (input, min)\n"
		        "  output = Where (low, min, input) }\n"
		        "?max\n"
		        "{ high = Less (max, input)\n"
		        "  output = Where (high, max, input) }\n"
		        "{ output = Identity (input) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "Clip", .since = 6,
		.doc = "Raised to min, then lowered to max.",
		IO(FLOW_KINKED),
		.attr = ATTRS({ .name = "max", .kind = ATTR_FLOAT, .f = FLT_MAX, .input = 2 },
		              { .name = "min", .kind = ATTR_FLOAT, .f = -FLT_MAX, .input = 1 }),
		.types = { [T] = NUMBERS },
		.agree = AGREE_BITS,
		.shape = shape_same,
	},
	{
		.name = "Cast", .since = 6,
		.doc = "The same numbers in another element type: integers wrap, floats round to even, strings are "
		       "parsed and printed.",
		.in = IN({ "input", T1, FLOW_LINEAR }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS(ROUND_MODE, SATURATE, { .name = "to", .kind = ATTR_INT, .flags = REQUIRED }),
		.types = { [T1] = CASTABLE, [T2] = CASTABLE },
		.agree = AGREE_BITS,
		.flags = OP_EACH,
		.shape = shape_cast,
		.kernel = cast,
		.fast = FAST(&fast_cast),
		.grad = "{ d_input = CastLike (d_output, input) }",
		.fuzz = { .shapes = FUZZ_CUSTOM, .lo = -8, .hi = 8 },
	},
	{
		.name = "CastLike", .since = 15,
		.doc = "Cast to the element type of the second input, whose elements are not looked at.",
		.in = IN({ "input", T1, FLOW_LINEAR }, { "target_type", T2, FLOW_NONE }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS(ROUND_MODE, SATURATE),
		.types = { [T1] = CASTABLE & ~FLOAT6S, [T2] = CASTABLE & ~FLOAT6S },
		.agree = AGREE_BITS,
		.shape = shape_cast_like,
		.kernel = cast,
		.fast = FAST(&fast_cast),
		.grad = "{ d_input = CastLike (d_output, input) }",
		.fuzz = { .shapes = FUZZ_CUSTOM, .lo = -8, .hi = 8 },
	},
	{
		.name = "BitCast", .since = 26,
		.doc = "The same bits as elements of another type of the same width.",
		.in = IN({ "input", T1 }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS({ .name = "to", .kind = ATTR_INT, .flags = REQUIRED }),
		.types = { [T1] = BIT_CASTABLE, [T2] = BIT_CASTABLE },
		.agree = AGREE_BITS,
		.shape = shape_bit_cast,
		.kernel = bit_cast,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family unary_ops = FAMILY("unary", rows);
