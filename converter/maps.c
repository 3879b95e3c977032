/*
 * Mechanisms: how the weight of a (query, key) pair factors into features, what keeps the output to scale, how the past fades. A row each.
 *
 * A map's first input is x [B, H, T, D], queries or keys; the others are its parameters, made anew for each layer and for queries
 * and keys apart, so that calibration can move them.
 */
#include <math.h>
#include <string.h>

#include "converter/build.h"
#include "ops/base/rng.h"
#include "ops/base/shape.h"

/* ---- Parameters ---- */

static enum linnet_code floats(const struct map_use *u, int rank, const int64_t *d, struct tensor **out, struct linnet_error *e)
{
	return tensor_new(u->arena, u->dt, rank, d, out, e);
}

/* W [H, D, F]: the identity, repeated where F is a multiple of D. */
enum linnet_code identity_weights(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	int64_t D = u->width, F = u->features ? u->features : D;

	TRY(floats(u, 3, (int64_t[]){ u->heads, D, F }, &out[0], e));
	for (int64_t h = 0; h < u->heads; h++)
		for (int64_t f = 0; f < F; f++)
			tensor_put(out[0], (h * D + f % D) * F + f, 1);
	*n = 1;
	return LINNET_OK;
}

/* W as above, b [H, 1, F] of zeros. */
static enum linnet_code affine_weights(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	TRY(identity_weights(u, out, n, e));
	*n = 2;
	return floats(u, 3, (int64_t[]){ u->heads, 1, out[0]->d[2] }, &out[1], e);
}

/* The pairs (i, j), i <= j < D, as two lists, and a factor for each: `square` where i = j, else `cross`. */
static enum linnet_code pairs(const struct map_use *u, double square, double cross, struct tensor **out, int *n, struct linnet_error *e)
{
	int64_t D = u->width, P = D * (D + 1) / 2, at = 0;

	if (D > 512)
		return fail(e, LINNET_ELIMIT, "heads of width %lld have %lld pairs; at most 512 are squared", (long long)D, (long long)P);
	TRY(tensor_new(u->arena, DT_INT64, 1, &P, &out[0], e));
	TRY(tensor_new(u->arena, DT_INT64, 1, &P, &out[1], e));
	TRY(floats(u, 1, &P, &out[2], e));
	for (int64_t i = 0; i < D; i++)
		for (int64_t j = i; j < D; j++, at++) {
			tensor_put_int(out[0], at, i);
			tensor_put_int(out[1], at, j);
			tensor_put(out[2], at, i == j ? square : cross);
		}
	*n = 3;
	return LINNET_OK;
}

/* n (n + 1) .. (n + p - 1) / p!: the monomials of degree p in n variables; -1 above 2^20. */
static int64_t monomials(int64_t n, int p)
{
	int64_t c = 1;

	for (int i = 0; i < p && c >= 0; i++) {
		c = c * (n + i) / (i + 1);
		c = c > 1 << 20 ? -1 : c;
	}
	return c;
}

/*
 * Of the monomials of degree p in n variables: index [p, P], which variables, not decreasing, and factor [P]: sqrt(p! / m_1! m_2! ...) of
 * exponents m, so that products of features sum up to (q . k)^p. With `ones` the last variable is the constant 1, and the factor is
 * sqrt(1 / m_1! m_2! ...) of the others' exponents: products sum up to 1 + s + s^2 / 2! + ... + s^p / p!.
 */
static enum linnet_code monomial_list(const struct map_use *u, int64_t n, bool ones, struct tensor **out, int *count, struct linnet_error *e)
{
	int p = u->degree ? u->degree : 2;
	int64_t P = monomials(n, p), which[16] = { 0 };

	if (p < 1 || p > 16)
		return fail(e, LINNET_EUSAGE, "a degree of %d; expected 1 to 16", p);
	if (P < 0)
		return fail(e, LINNET_ELIMIT, "polynomials of degree %d of heads of width %lld have more than %d terms", p, (long long)u->width, 1 << 20);
	TRY(tensor_new(u->arena, DT_INT64, 2, (int64_t[]){ p, P }, &out[0], e));
	TRY(floats(u, 1, &P, &out[1], e));
	for (int64_t at = 0; at < P; at++) {
		double f = 1, run = 0;
		int i = p - 1;

		for (int k = 0; k < p; k++) {
			tensor_put_int(out[0], k * P + at, which[k]);
			run = k && which[k] == which[k - 1] ? run + 1 : 1;
			f *= (ones ? 1 : k + 1) / (ones && which[k] == n - 1 ? 1 : run);
		}
		tensor_put(out[1], at, sqrt(f));
		while (i > 0 && which[i] == n - 1)
			i--;
		which[i]++;
		for (int k = i + 1; k < p; k++)
			which[k] = which[i];
	}
	*count = 2;
	return LINNET_OK;
}

static enum linnet_code taylor_terms(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	return monomial_list(u, u->width + 1, true, out, n, e);
}

static enum linnet_code power_terms(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	return monomial_list(u, u->width, false, out, n, e);
}

static enum linnet_code square_pairs(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	return pairs(u, 1, sqrt(2), out, n, e);
}

static double gauss(struct rng *r)
{
	double radius = sqrt(-2 * log(1 - rng_unit(r)));

	return radius * cos(6.283185307179586 * rng_unit(r));
}

/* w[D] is made orthogonal to the n rows before it, which are orthonormal, and of length 1; false when nothing is left of it. */
static bool orthonormal(double *w, int64_t D, int64_t n)
{
	double norm = 0;

	for (int64_t q = 1; q <= n; q++) {
		double dot = 0;

		for (int64_t c = 0; c < D; c++)
			dot += w[c - q * D] * w[c];
		for (int64_t c = 0; c < D; c++)
			w[c] -= dot * w[c - q * D];
	}
	for (int64_t c = 0; c < D; c++)
		norm += w[c] * w[c];
	for (int64_t c = 0; c < D && norm > 1e-12; c++)
		w[c] /= sqrt(norm);
	return norm > 1e-12;
}

/*
 * w [m, D]: Gaussian rows, made orthogonal in blocks of D and given the lengths of Gaussian vectors. The same for queries and keys of all
 * heads. Source: Choromanski et al. 2021, section 2.4.
 */
static enum linnet_code draw_directions(const struct map_use *u, int64_t m, double **out, struct linnet_error *e)
{
	int64_t D = u->width;
	struct rng r = { u->seed };
	double *w;

	TRY_NEW(w, u->arena, m * D);
	for (int64_t k = 0; k < m; k++) {
		double length = 0;

		do {
			for (int64_t c = 0; c < D; c++)
				w[k * D + c] = gauss(&r);
		} while (!orthonormal(w + k * D, D, k % D));
		for (int64_t c = 0; c < D; c++) {
			double x = gauss(&r);

			length += x * x;
		}
		for (int64_t c = 0; c < D; c++)
			w[k * D + c] *= sqrt(length);
	}
	*out = w;
	return LINNET_OK;
}

/* W [D, m] of these; factor: 1 / sqrt(m). */
static enum linnet_code random_directions(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	int64_t D = u->width, m = u->features ? u->features : 4 * D;
	double *w;

	TRY(draw_directions(u, m, &w, e));
	TRY(floats(u, 2, (int64_t[]){ D, m }, &out[0], e));
	for (int64_t k = 0; k < m; k++)
		for (int64_t c = 0; c < D; c++)
			tensor_put(out[0], c * m + k, w[k * D + c]);
	TRY(floats(u, 0, NULL, &out[1], e));
	tensor_put(out[1], 0, 1 / sqrt((double)m));
	*n = 2;
	return LINNET_OK;
}

/* W [H, D, m] of these for each head; b [H, 1, m]: the log of that factor. */
static enum linnet_code directions_of_heads(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	int64_t D = u->width, m = u->features ? u->features : 2 * D;
	double *w;

	TRY(draw_directions(u, m, &w, e));
	TRY(floats(u, 3, (int64_t[]){ u->heads, D, m }, &out[0], e));
	TRY(floats(u, 3, (int64_t[]){ u->heads, 1, m }, &out[1], e));
	for (int64_t h = 0; h < u->heads; h++)
		for (int64_t k = 0; k < m; k++) {
			for (int64_t c = 0; c < D; c++)
				tensor_put(out[0], (h * D + c) * m + k, w[k * D + c]);
			tensor_put(out[1], h * m + k, -log((double)m) / 2);
		}
	*n = 2;
	return LINNET_OK;
}

/* pi / (2 M): the angle of a token's distance, M the horizon. */
static enum linnet_code horizon_angle(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	TRY(floats(u, 0, NULL, &out[0], e));
	tensor_put(out[0], 0, 1.5707963267948966 / (double)u->horizon);
	*n = 1;
	return LINNET_OK;
}

/* ---- How the past fades: logs of factors a token, by key head ---- */

/* 1 - 2^(-5-h). Source: Sun et al., Retentive Network, 2023, section 2.1. */
static double retention(const struct convert_opt *opt, int64_t h, int64_t H)
{
	(void)opt;
	(void)H;
	return log1p(-exp2(-5.0 - (double)h));
}

/* exp(-slope_h), ALiBi's slopes. Source: Press et al. 2022, section 3; SUPRA (Mercat et al. 2024) and TransNormerLLM fade alike. */
static double slopes(const struct convert_opt *opt, int64_t h, int64_t H)
{
	int64_t whole = 1;

	(void)opt;
	while (whole * 2 <= H)
		whole *= 2;
	if (h < whole)
		return -exp2(-8.0 * (double)(h + 1) / (double)whole);
	return -exp2(-8.0 * (double)(2 * (h - whole) + 1) / (double)(2 * whole)); /* every second one of twice as many */
}

static double fixed(const struct convert_opt *opt, int64_t h, int64_t H)
{
	(void)h;
	(void)H;
	return log(opt->decay);
}

const struct fade fixed_fade = { .name = "NUMBER", .doc = "that much a token, above 0 and at most 1", .log_factor = fixed };
const struct fade retention_fade = { .name = "retention", .doc = "1 - 2^(-5-h) a token, by key head", .log_factor = retention };
const struct fade slopes_fade = { .name = "slopes", .doc = "exp(-slope) a token, with ALiBi's slopes, by key head", .log_factor = slopes };

/* ---- Mechanisms ---- */

#define MAP(inputs) "(float[B,H,T,D] x" inputs ") => (float[B,H,T,F] y) {\n"

const char hedgehog_map[] = MAP(", float[H,D,M] w")
                            "  u = MatMul (x, w)\n"
                            "  n = Neg (u)\n"
                            "  a = Softmax <axis = -1> (u)\n"
                            "  b = Softmax <axis = -1> (n)\n"
                            "  y = Concat <axis = -1> (a, b) }";

/* Rows with nothing above 0 stay 0; a row is divided by its largest element first, so that no power of it is lost. */
const char focused_map[] = MAP("")
                           "  f = Relu (x)\n"
                           "  last = Constant <value_ints = [-1]> ()\n"
                           "  low = Constant <value_float = 1e-6> ()\n"
                           "  top = ReduceMax (f, last)\n"
                           "  some = Max (top, low)\n"
                           "  u = Div (f, some)\n"
                           "  u2 = Mul (u, u)\n"
                           "  u3 = Mul (u2, u)\n"
                           "  u6 = Mul (u3, u3)\n"
                           "  s2 = ReduceSum (u2, last)\n"
                           "  s6 = ReduceSum (u6, last)\n"
                           "  a = Max (s2, low)\n"
                           "  b = Max (s6, low)\n"
                           "  ab = Div (a, b)\n"
                           "  r = Sqrt (ab)\n"
                           "  length = Mul (top, r)\n"
                           "  y = Mul (u3, length) }";

static const struct mechanism rows[] = {
	{
		.name = "elu",
		.doc = "elu(x) + 1",
		.source = "Katharopoulos et al. 2020, section 3.3",
		.map = MAP("")
		       "  e = Elu (x)\n"
		       "  one = Constant <value_float = 1.0> ()\n"
		       "  y = Add (e, one) }",
	},
	{
		.name = "relu",
		.doc = "max(x, 0)",
		.source = "Kasai et al. 2021, section 3, without the learned projection",
		.map = MAP("") "  y = Relu (x) }",
		.may_vanish = true,
	},
	{
		.name = "exp",
		.doc = "exp(x), with x clamped to at most 60",
		.source = "Choromanski et al. 2021, section 2; one-sided, without projection",
		.map = MAP("")
		       "  top = Constant <value_float = 60.0> ()\n"
		       "  c = Min (x, top)\n"
		       "  y = Exp (c) }",
		.scaled = true,
	},
	{
		.name = "relu2",
		.doc = "max(x, 0) squared",
		.source = "linear attention with squared rectifiers; linearization by So et al. 2021's activation",
		.map = MAP("")
		       "  r = Relu (x)\n"
		       "  y = Mul (r, r) }",
		.may_vanish = true,
	},
	{
		.name = "focused",
		.doc = "max(x, 0) cubed, and brought back to the length of max(x, 0)",
		.source = "Han et al., FLatten Transformer, 2023, section 4.1",
		.map = focused_map,
		.may_vanish = true,
	},
	{
		.name = "hedgehog",
		.doc = "softmax(W x) and softmax(-W x), W a matrix a head, at first the identity",
		.source = "Zhang et al. 2024, section 4.1, as LoLCATs normalises it",
		.map = hedgehog_map,
		.parameters = identity_weights,
	},
	{
		.name = "t2r",
		.doc = "max(W x + b, 0), W and b for each head, at first the identity and 0",
		.source = "Kasai et al. 2021, section 3",
		.map = MAP(", float[H,D,M] w, float[H,1,M] b")
		       "  u = MatMul (x, w)\n"
		       "  v = Add (u, b)\n"
		       "  y = Relu (v) }",
		.parameters = affine_weights,
		.may_vanish = true,
	},
	{
		.name = "favor",
		.doc = "exp(w_r x - |x|^2 / 2) / sqrt(m) for m random directions, orthogonal in blocks: positive random features",
		.source = "Choromanski et al. 2021, Lemma 1 and section 2.4",
		.map = MAP(", float[D,M] w, float f")
		       "  u = MatMul (x, w)\n"
		       "  square = Mul (x, x)\n"
		       "  last = Constant <value_ints = [-1]> ()\n"
		       "  sum = ReduceSum (square, last)\n"
		       "  half = Constant <value_float = 0.5> ()\n"
		       "  h = Mul (sum, half)\n"
		       "  d = Sub (u, h)\n"
		       "  top = Constant <value_float = 60.0> ()\n"
		       "  c = Min (d, top)\n"
		       "  p = Exp (c)\n"
		       "  y = Mul (p, f) }",
		.parameters = random_directions,
		.scaled = true,
	},
	{
		.name = "prf",
		.doc = "exp(W x - |x|^2 / 2 + b), W and b for each head, at first favor's: features that start on the scale of exp(s) and are trained",
		.source = "Chowdhury et al., Learning the Transformer Kernel, 2022, section 3.2 (positive random features whose directions are trained)",
		.map = MAP(", float[H,D,M] w, float[H,1,M] b")
		       "  u = MatMul (x, w)\n"
		       "  square = Mul (x, x)\n"
		       "  last = Constant <value_ints = [-1]> ()\n"
		       "  sum = ReduceSum (square, last)\n"
		       "  half = Constant <value_float = 0.5> ()\n"
		       "  h = Mul (sum, half)\n"
		       "  d = Sub (u, h)\n"
		       "  e = Add (d, b)\n"
		       "  top = Constant <value_float = 60.0> ()\n"
		       "  c = Min (e, top)\n"
		       "  y = Exp (c) }",
		.parameters = directions_of_heads,
		.scaled = true,
	},
	{
		.name = "taylor",
		.doc = "products of up to --degree (2) elements of x: the weight is 1 + s + s^2 / 2 + ..., with s the logit",
		.source = "Arora et al., Based, 2024, section 4; the symmetric part kept once",
		.map = MAP(", int64[p,P] i, float[P] f")
		       "  lead = Shape <start = 0, end = 3> (x)\n"
		       "  width = Constant <value_ints = [1]> ()\n"
		       "  shape = Concat <axis = 0> (lead, width)\n"
		       "  one = Constant <value_float = 1.0> ()\n"
		       "  ones = Expand (one, shape)\n"
		       "  x1 = Concat <axis = -1> (x, ones)\n"
		       "  g = Gather <axis = -1> (x1, i)\n"
		       "  axis = Constant <value_ints = [-2]> ()\n"
		       "  m = ReduceProd <keepdims = 0> (g, axis)\n"
		       "  y = Mul (m, f) }",
		.parameters = taylor_terms,
		.scaled = true,
		.even = true,
	},
	{
		.name = "polynomial",
		.doc = "the products of --degree (2) elements of x: the weight is a power of the logit",
		.source = "polynomial kernel",
		.map = MAP(", int64[p,P] i, float[P] f")
		       "  g = Gather <axis = -1> (x, i)\n"
		       "  axis = Constant <value_ints = [-2]> ()\n"
		       "  m = ReduceProd <keepdims = 0> (g, axis)\n"
		       "  y = Mul (m, f) }",
		.parameters = power_terms,
		.may_vanish = true,
		.even = true,
	},
	{
		.name = "square",
		.doc = "the products of x's elements: the weight is the squared logit",
		.source = "polynomial kernel of degree 2",
		.map = MAP(", int64[P] i, int64[P] j, float[P] f")
		       "  a = Gather <axis = -1> (x, i)\n"
		       "  b = Gather <axis = -1> (x, j)\n"
		       "  ab = Mul (a, b)\n"
		       "  y = Mul (ab, f) }",
		.parameters = square_pairs,
		.may_vanish = true,
	},
	{
		.name = "cosformer",
		.doc = "max(x, 0) times cosine and sine of pi t / 2M, with t the position and M the horizon, beyond which weights may be negative",
		.source = "Qin et al., cosFormer, 2022, section 3",
		.map = MAP(", float angle")
		       "  r = Relu (x)\n"
		       "  t1 = Shape <start = 2, end = 3> (x)\n"
		       "  t = Squeeze (t1)\n"
		       "  zero = Constant <value_int = 0> ()\n"
		       "  one = Constant <value_int = 1> ()\n"
		       "  index = Range (zero, t, one)\n"
		       "  real = CastLike (index, x)\n"
		       "  phase = Mul (real, angle)\n"
		       "  last = Constant <value_ints = [1]> ()\n"
		       "  column = Unsqueeze (phase, last)\n"
		       "  c = Cos (column)\n"
		       "  s = Sin (column)\n"
		       "  a = Mul (r, c)\n"
		       "  b = Mul (r, s)\n"
		       "  y = Concat <axis = -1> (a, b) }",
		.parameters = horizon_angle,
		.positions = true,
		.may_vanish = true,
	},
	{
		.name = "identity",
		.doc = "x itself; the output is brought to a root mean square of 1",
		.source = "Qin et al., The Devil in Linear Transformer, 2022, section 3.2 (NormAttention without activation)",
		.map = MAP("") "  y = Identity (x) }",
		.scaled = true,
		.normaliser = NORM_RMS,
	},
	{
		.name = "transnormer",
		.doc = "elu(x) + 1; the output is brought to a root mean square of 1",
		.source = "Qin et al., The Devil in Linear Transformer, 2022, section 3.2 (NormAttention)",
		.map = MAP("")
		       "  e = Elu (x)\n"
		       "  one = Constant <value_float = 1.0> ()\n"
		       "  y = Add (e, one) }",
		.normaliser = NORM_RMS,
	},
	{
		.name = "lightning",
		.doc = "x sigmoid(x), fading by ALiBi's slopes; the output is brought to a root mean square of 1",
		.source = "Qin et al., TransNormerLLM, 2023, section 3",
		.map = MAP("")
		       "  s = Sigmoid (x)\n"
		       "  y = Mul (x, s) }",
		.normaliser = NORM_RMS,
		.fade = "slopes",
	},
	{
		.name = "retnet",
		.doc = "x itself, fading by 1 - 2^(-5-h); the output is brought to a root mean square of 1 about its mean",
		.source = "Sun et al., Retentive Network, 2023, section 2.1",
		.map = MAP("") "  y = Identity (x) }",
		.scaled = true,
		.normaliser = NORM_GROUP,
		.fade = "retention",
	},
};

const char *const normaliser_names[] = { [NORM_RATIO] = "sum", [NORM_RMS] = "rms", [NORM_GROUP] = "group", [NORM_NONE] = "none" };
const char *const normaliser_docs[] = { [NORM_RATIO] = "sum of weights", [NORM_RMS] = "root mean square",
	                                [NORM_GROUP] = "mean and root mean square", [NORM_NONE] = "-" };

const struct mechanism_family map_family = { rows, sizeof rows / sizeof *rows };
