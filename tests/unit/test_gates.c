/*
 * Gates, delta rules and short convolutions compute their formulas in every target's words. The formulas stand here as loops over
 * tokens in double precision, after Yang et al. 2024 (GLA, DeltaNet, Gated DeltaNet), Qin et al. 2024 (HGRN2), Zhang et al. 2024 (GSA) and Lan et
 * al. 2025 (Liger). All parameters of a converted model are drawn before it is written, so that none is neutral.
 */
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "converter/convert.h"
#include "runtime/runtime.h"

enum { BATCH = 2, HEADS = 4, GROUPS = 2, WIDTH = 4, VALUE_WIDTH = 3 };

#define SCALE 0.5

/* ---- Sequences [BATCH, heads, L, width] ---- */

struct seq {
	int64_t heads, L, width;
	double *x;
};

static struct seq seq_new(struct arena *a, int64_t heads, int64_t L, int64_t width)
{
	return (struct seq){ heads, L, width, arena_get(a, (size_t)(BATCH * heads * L * width) + 1, sizeof(double)) };
}

static double *at(struct seq s, int64_t b, int64_t h, int64_t t) { return s.x + ((b * s.heads + h) * s.L + t) * s.width; }

/* Uniform in [-1, 1], the same for the same seed. */
static double draw(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (double)(*seed >> 8) / (1 << 23) - 1;
}

static struct seq drawn(struct arena *a, int64_t heads, int64_t L, int64_t width, uint32_t seed)
{
	struct seq s = seq_new(a, heads, L, width);

	for (int64_t i = 0; i < BATCH * heads * L * width; i++)
		s.x[i] = (double)(float)(1.5 * draw(&seed));
	return s;
}

/* Tokens [from, to) as a tensor. */
static struct tensor *tokens(struct arena *a, struct seq s, int64_t from, int64_t to)
{
	struct tensor *t;

	assert_int_equal(tensor_new(a, DT_FLOAT, 4, (int64_t[]){ BATCH, s.heads, to - from, s.width }, &t, NULL), LINNET_OK);
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(t, i, s.x[(i / s.width / (to - from) * s.L + from + i / s.width % (to - from)) * s.width + i % s.width]);
	return t;
}

/* ---- Models: rotated queries and keys ---- */

#define MODEL(input, arg)                                                                          \
	"<ir_version: 10, opset_import: [\"\": 24]>\n"                                                \
	"g (float[B,4,T,4] q, float[B,2,T,4] k, float[B,2,T,3] v, float[1,T,2] c, float[1,T,2] s" input ") => (float[B,4,T,3] y) {\n" \
	"  n = Shape <start = 0, end = 1> (q)  rest = Constant <value_ints = [-1, 2]> ()\n"           \
	"  t = Shape <start = 2, end = 3> (q)  two = Constant <value_ints = [2]> ()\n"                \
	"  shape = Concat <axis = 0> (n, t, two)  cb = Expand (c, shape)  sb = Expand (s, shape)\n"   \
	"  qr = RotaryEmbedding (q, cb, sb)  kr = RotaryEmbedding (k, cb, sb)\n"                      \
	"  y = Attention <is_causal = 1, scale = 0.5> (qr, kr, v" arg ") }"

/* ALiBi as an input of the attention: slopes 1/4, 1/16, 1/64, 1/256 times the key's distance. */
static const char sloped_text[] =
	"<ir_version: 10, opset_import: [\"\": 24]>\n"
	"g (float[B,4,T,4] q, float[B,2,T,4] k, float[B,2,T,3] v, float[1,T,2] c, float[1,T,2] s) => (float[B,4,T,3] y)\n"
	"<float[4,1,1] slope = {0.25, 0.0625, 0.015625, 0.00390625}, int64 zero = {0}, int64 one = {1}, int64[1] last = {1}> {\n"
	"  t1 = Shape <start = 2, end = 3> (q)  t = Squeeze (t1)  r = Range (zero, t, one)  f = Cast <to = 1> (r)\n"
	"  column = Unsqueeze (f, last)  apart = Sub (f, column)  bias = Mul (slope, apart)\n"
	"  y = Attention <is_causal = 1, scale = 0.5> (q, k, v, bias) }";

/* It and a padding mask: keys are counted without the hidden ones, as a cumulative sum does, or by their places. */
#define SLOPED_MASK(places)                                                                        \
	"<ir_version: 10, opset_import: [\"\": 24]>\n"                                                \
	"g (float[B,4,T,4] q, float[B,2,T,4] k, float[B,2,T,3] v, float[1,T,2] c, float[1,T,2] s, bool[B,1,1,T] m) => (float[B,4,T,3] y)\n" \
	"<float[4,1,1] slope = {0.25, 0.0625, 0.015625, 0.00390625}, int64 zero = {0}, int64 one = {1}, int64 last = {-1},\n" \
	" float least = {-3.4e38}, float none = {0}> {\n" places                                     \
	"  bias = Mul (slope, place)  low = Where (m, none, least)  both = Add (bias, low)\n"         \
	"  y = Attention <is_causal = 1, scale = 0.5> (q, k, v, both) }"

static const char counted_text[] = SLOPED_MASK("  f = Cast <to = 1> (m)  n = CumSum (f, last)  place = Mul (n, f)\n"),
                  placed_text[] = SLOPED_MASK("  t1 = Shape <start = 2, end = 3> (q)  t = Squeeze (t1)  r = Range (zero, t, one)  place = Cast <to = 1> (r)\n");

/* The same mask as HF models have it: hidden is the least number, added to the scores. */
static const char added_text[] =
	"<ir_version: 10, opset_import: [\"\": 24]>\n"
	"g (float[B,4,T,4] q, float[B,2,T,4] k, float[B,2,T,3] v, float[1,T,2] c, float[1,T,2] s, bool[B,1,1,T] m) => (float[B,4,T,3] y)\n"
	"<float least = {-3.4e38}, float none = {0}> {\n"
	"  n = Shape <start = 0, end = 1> (q)  t = Shape <start = 2, end = 3> (q)  two = Constant <value_ints = [2]> ()\n"
	"  shape = Concat <axis = 0> (n, t, two)  cb = Expand (c, shape)  sb = Expand (s, shape)\n"
	"  qr = RotaryEmbedding (q, cb, sb)  kr = RotaryEmbedding (k, cb, sb)  bias = Where (m, none, least)\n"
	"  y = Attention <is_causal = 1, scale = 0.5> (qr, kr, v, bias) }";

static const char plain_text[] = MODEL("", ""), masked_text[] = MODEL(", bool[B,1,1,T] m", ", m");

/* A parameter of the converted model, by its name without the layer; NULL when there is none. */
static struct tensor *param(const struct linnet_model *m, const char *name)
{
	const struct graph *g = m->graph;
	char full[64];

	snprintf(full, sizeof full, "0.%s", name);
	for (value_id v = 1; v < g->nvalue; v++)
		if (g->value[v].kind == VALUE_CONST && !strcmp(g->value[v].name, full))
			return (struct tensor *)(uintptr_t)g->value[v].type.value;
	return NULL;
}

static const char *const drawn_params[] = { "q_w", "k_w", "o_w", "q_conv", "k_conv", "v_conv", "gate_w", "gate_b", "gate_w1",
	                                    "gate_w2", "beta_w", "beta_b", "window_gate", "far_gate", "mix", "q_b", "k_b", "v_image", NULL };

static void draw_params(const struct linnet_model *m)
{
	uint32_t seed = 99;

	for (const char *const *name = drawn_params; *name; name++) {
		struct tensor *t = param(m, *name);

		for (int64_t i = 0; t && i < t->n; i++)
			tensor_put(t, i, tensor_get(t, i) / 2 + draw(&seed) / 2);
	}
}

static struct linnet_model *parsed(const char *text)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[800];

	if (!m || text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s", linnet_error_line(&e, line, sizeof line));
	return m;
}

/* The delta rules are no sum over all pairs. */
static bool can_say(enum target t, const char *mechanism) { return t != TARGET_QUADRATIC || !mechanism_find(mechanism)->corrects; }

/* Written and read again. *before: the converted model, with its parameters. */
static struct linnet_model *converted(const char *text, const struct convert_opt *opt, struct linnet_model **before, struct convert_report *r)
{
	struct linnet_model *m = parsed(text), *again;
	struct linnet_error e = { 0 };
	char line[800];
	void *data = NULL;
	size_t n = 0;

	again = model_new(NULL, &e);
	if (convert_model(m, opt, r, &e))
		fail_msg("%s, %s: %s", opt->mechanism->name, target_names[opt->target], linnet_error_line(&e, line, sizeof line));
	assert_int_equal(r->nconverted, 1);
	draw_params(m);
	*before = m;
	if (graph_export(m, r->opset, &e) || proto_save_memory(m, m->arena, &data, &n, &e) || proto_load_memory(again, data, n, &e) ||
	    graph_import(again, &e))
		fail_msg("%s, %s: %s", opt->mechanism->name, target_names[opt->target], linnet_error_line(&e, line, sizeof line));
	return again;
}

/* ---- The formulas ---- */

static bool hidden(int64_t b, int64_t t) { return t && (b + t) % 3 == 0; }

struct formula {
	struct arena *a;
	const struct linnet_model *m; /* has the parameters */
	const struct convert_opt *opt;
	struct seq q, k, v;           /* what the mechanism works on */
	struct seq plain_k;
	struct seq y;
	bool unturned;                /* nothing is rotated */
	bool sloped;                  /* the past fades by exp(-4^(-1-h)) too */
	bool masked;                  /* every third token is hidden, but not the first */
	double *slack;                /* of each row of y: how far rounding may lead, relative to its values */
};

static double p(const struct formula *f, const char *name, int64_t i)
{
	const struct tensor *t = param(f->m, name);

	if (!t)
		fail_msg("%s: there is no parameter %s", f->opt->mechanism->name, name);
	return tensor_get(t, i);
}

static double softplus(double x) { return x > 30 ? x : log1p(exp(x)); }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double log_sigmoid(double x) { return -softplus(-x); }

/* RoFormer with halves: (x1 cos - x2 sin, x2 cos + x1 sin), angles t and t / 100. */
static struct seq rotated(struct arena *a, struct seq s)
{
	struct seq r = seq_new(a, s.heads, s.L, s.width);

	for (int64_t i = 0; i < BATCH * s.heads * s.L; i++)
		for (int64_t c = 0; c < s.width / 2; c++) {
			double angle = (double)(i % s.L) * (c ? 0.01 : 1), *x = s.x + i * s.width, *y = r.x + i * s.width;

			y[c] = x[c] * (double)(float)cos(angle) - x[c + 2] * (double)(float)sin(angle);
			y[c + 2] = x[c + 2] * (double)(float)cos(angle) + x[c] * (double)(float)sin(angle);
		}
	return r;
}

static struct seq repeated(struct arena *a, struct seq s)
{
	struct seq r = seq_new(a, HEADS, s.L, s.width);

	for (int64_t i = 0; i < BATCH * HEADS * s.L; i++)
		memcpy(r.x + i * s.width, at(s, i / s.L / HEADS, i / s.L % HEADS / (HEADS / s.heads), i % s.L), (size_t)s.width * sizeof *r.x);
	return r;
}

/* Each channel over its last taps tokens. */
static struct seq filtered(const struct formula *f, struct seq s, const char *name, int taps)
{
	struct seq r = seq_new(f->a, s.heads, s.L, s.width);

	for (int64_t i = 0; i < BATCH * s.heads * s.L * s.width; i++) {
		int64_t c = i % s.width, t = i / s.width % s.L, h = i / s.width / s.L % s.heads;

		for (int64_t j = 0; j < taps; j++)
			if (t - taps + 1 + j >= 0)
				r.x[i] += p(f, name, (h * s.width + c) * taps + j) * s.x[i + (j - taps + 1) * s.width];
	}
	return r;
}

/* x W + b by head; b may be left out. */
static struct seq affine(const struct formula *f, struct seq s, const char *w, const char *b, int64_t columns)
{
	struct seq r = seq_new(f->a, s.heads, s.L, columns);

	for (int64_t i = 0; i < BATCH * s.heads * s.L * columns; i++) {
		int64_t c = i % columns, row = i / columns, h = row / s.L % s.heads;

		r.x[i] = b ? p(f, b, h * columns + c) : 0;
		for (int64_t d = 0; d < s.width; d++)
			r.x[i] += s.x[row * s.width + d] * p(f, w, (h * s.width + d) * columns + c);
	}
	return r;
}

static struct seq each(const struct formula *f, struct seq s, double (*fn)(double x, double c), double c)
{
	struct seq r = seq_new(f->a, s.heads, s.L, s.width);

	for (int64_t i = 0; i < BATCH * s.heads * s.L * s.width; i++)
		r.x[i] = fn(s.x[i], c);
	return r;
}

static double times(double x, double c) { return x * c; }
static double silu(double x, double c) { (void)c; return x * sigmoid(x); }
static double gate_over(double x, double c) { return log_sigmoid(x) / c; }
static double let_go(double x, double c) { (void)c; return sigmoid(-x); }
static double one_less(double g, double c) { (void)c; return 1 - exp(g); }
static double squashed(double x, double c) { (void)c; return sigmoid(x); }
static double fading(double x, double c) { (void)c; return -softplus(x); }
static double elu1(double x, double c) { (void)c; return x > 0 ? x + 1 : exp(x); }

static struct seq softmax(const struct formula *f, struct seq s, double sign)
{
	struct seq r = seq_new(f->a, s.heads, s.L, s.width);

	for (int64_t i = 0; i < BATCH * s.heads * s.L * s.width; i++) {
		const double *x = s.x + i / s.width * s.width;
		double sum = 0;

		for (int64_t c = 0; c < s.width; c++)
			sum += exp(sign * (x[c] - s.x[i]));
		r.x[i] = 1 / sum;
	}
	return r;
}

static struct seq unit(const struct formula *f, struct seq s)
{
	struct seq r = seq_new(f->a, s.heads, s.L, s.width);

	for (int64_t i = 0; i < BATCH * s.heads * s.L * s.width; i++) {
		const double *x = s.x + i / s.width * s.width;
		double sum = 0;

		for (int64_t c = 0; c < s.width; c++)
			sum += x[c] * x[c];
		r.x[i] = s.x[i] / sqrt(sum);
	}
	return r;
}

/* Features side by side. */
static struct seq beside(const struct formula *f, struct seq s, struct seq more)
{
	struct seq r = seq_new(f->a, s.heads, s.L, s.width + more.width);

	for (int64_t i = 0; i < BATCH * s.heads * s.L; i++) {
		memcpy(r.x + i * r.width, s.x + i * s.width, (size_t)s.width * sizeof *r.x);
		memcpy(r.x + i * r.width + s.width, more.x + i * more.width, (size_t)more.width * sizeof *r.x);
	}
	return r;
}

/*
 * S <- diag(e^g) S, or S diag(e^g) by value; v' = beta (v - k S); S <- S + k^T v'; o = q S. Without beta (no width) v' = v.
 * bound, when not NULL: |q| times the same of absolute values, which rounding is relative to.
 */
static struct seq recurrence(const struct formula *f, struct seq q, struct seq k, struct seq v, struct seq g, struct seq beta, bool by_value,
                             struct seq *bound)
{
	struct seq o = seq_new(f->a, HEADS, q.L, v.width);
	int64_t F = k.width, E = v.width;
	double *S = arena_get(f->a, (size_t)(F * E), sizeof *S), *A = arena_get(f->a, (size_t)(F * E), sizeof *A);

	*bound = seq_new(f->a, HEADS, q.L, v.width);
	for (int64_t bh = 0; bh < BATCH * HEADS; bh++) {
		int64_t b = bh / HEADS, h = bh % HEADS, kh = h / (HEADS / k.heads);

		memset(S, 0, (size_t)(F * E) * sizeof *S);
		memset(A, 0, (size_t)(F * E) * sizeof *A);
		for (int64_t t = 0; t < q.L; t++) {
			const double *kt = at(k, b, kh, t), *vt = at(v, b, kh, t), *qt = at(q, b, h, t), *gt = g.width ? at(g, b, kh, t) : NULL;

			for (int64_t i = 0; gt && !(f->masked && hidden(b, t)) && i < F * E; i++) {
				double left = exp(gt[by_value ? i % E : i / E % g.width] - (f->sloped ? pow(4, -1 - (double)h) : 0));

				S[i] *= left;
				A[i] *= left;
			}
			for (int64_t c = 0; c < E; c++) {
				double put = vt[c], all = fabs(vt[c]);

				for (int64_t d = 0; beta.width && d < F; d++)
					put -= kt[d] * S[d * E + c];
				put *= beta.width ? *at(beta, b, kh, t) : 1;
				for (int64_t d = 0; !(f->masked && hidden(b, t)) && d < F; d++) {
					S[d * E + c] += kt[d] * put;
					A[d * E + c] += fabs(kt[d]) * all;
				}
				for (int64_t d = 0; d < F; d++) {
					at(o, b, h, t)[c] += qt[d] * S[d * E + c];
					at(*bound, b, h, t)[c] += fabs(qt[d]) * A[d * E + c];
				}
			}
		}
	}
	return o;
}

static const struct seq none = { 0, 0, 0, NULL };

/* y = o with a slack of its bound. */
static void as_is(struct formula *f, struct seq o, struct seq bound)
{
	f->y = o;
	for (int64_t i = 0; i < BATCH * HEADS * o.L * o.width; i++)
		f->slack[i / o.width] = fmax(f->slack[i / o.width], bound.x[i]);
}

static void divided_by_root(struct formula *f, struct seq o, struct seq bound, bool centred)
{
	as_is(f, o, bound);
	for (int64_t i = 0; centred && i < BATCH * HEADS * o.L; i++) {
		double mean = 0;

		for (int64_t c = 0; c < o.width; c++)
			mean += o.x[i * o.width + c] / (double)o.width;
		for (int64_t c = 0; c < o.width; c++)
			o.x[i * o.width + c] -= mean;
	}
	for (int64_t i = 0; i < BATCH * HEADS * o.L; i++) {
		double sum = 0;

		for (int64_t c = 0; c < o.width; c++)
			sum += o.x[i * o.width + c] * o.x[i * o.width + c] / (double)o.width;
		for (int64_t c = 0; c < o.width; c++)
			o.x[i * o.width + c] /= sqrt(sum + 1e-5);
		f->slack[i] /= sqrt(sum + 1e-5);
	}
}

static void divided_by_sum(struct formula *f, struct seq q, struct seq k, struct seq g)
{
	struct seq ones = seq_new(f->a, f->v.heads, q.L, 1), o, bound;

	for (int64_t i = 0; i < BATCH * ones.heads * q.L; i++)
		ones.x[i] = 1;
	o = recurrence(f, q, k, beside(f, f->v, ones), g, none, false, &bound);
	f->y = seq_new(f->a, HEADS, q.L, VALUE_WIDTH);
	for (int64_t i = 0; i < BATCH * HEADS * q.L; i++)
		for (int64_t c = 0; c < VALUE_WIDTH; c++)
			f->y.x[i * VALUE_WIDTH + c] = o.x[i * o.width + c] / o.x[i * o.width + VALUE_WIDTH];
	for (int64_t i = 0; i < BATCH * HEADS * q.L; i++)
		f->slack[i] = 2;
}

/* A gate a head and token, or a channel: the keys of all heads through W1, W2. */
static struct seq gates(const struct formula *f, const char *fade, int64_t width)
{
	struct seq g = seq_new(f->a, f->k.heads, f->k.L, width);
	int64_t n = f->k.heads * WIDTH, m = f->k.heads * width;

	if (!fade)
		return f->sloped ? seq_new(f->a, f->k.heads, f->k.L, 1) : none; /* zeros */
	if (!strcmp(fade, "token"))
		return each(f, affine(f, f->plain_k, "gate_w", "gate_b", 1), fading, 0);
	if (!strcmp(fade, "retention") || !strcmp(fade, "slopes")) {
		g = seq_new(f->a, f->k.heads, f->k.L, 1);
		for (int64_t i = 0; i < BATCH * g.heads * g.L; i++) {
			double h = (double)(i / g.L % g.heads);

			g.x[i] = *fade == 'r' ? log(1 - pow(2, -5 - h)) : -pow(2, -8 * (h + 1) / (double)g.heads);
		}
		return g;
	}
	for (int64_t bt = 0; bt < BATCH * g.L; bt++) {
		double u[16] = { 0 };

		for (int64_t i = 0; i < n * 16; i++)
			u[i % 16] += at(f->plain_k, bt / g.L, i / 16 / WIDTH, bt % g.L)[i / 16 % WIDTH] * p(f, "gate_w1", i);
		for (int64_t c = 0; c < m; c++) {
			double sum = p(f, "gate_b", c);

			for (int64_t r = 0; r < 16; r++)
				sum += u[r] * p(f, "gate_w2", r * m + c);
			at(g, bt / g.L, c / width, bt % g.L)[c % width] = log_sigmoid(sum) / 16;
		}
	}
	return g;
}

/* Means of the keys of all heads, width numbers a head. */
static struct seq pooled(const struct formula *f, int64_t width)
{
	struct seq r = seq_new(f->a, f->k.heads, f->k.L, width);
	int64_t n = f->k.heads * WIDTH, m = f->k.heads * width;

	for (int64_t bt = 0; bt < BATCH * r.L; bt++)
		for (int64_t i = 0; i < m; i++) {
			int64_t from = i * n / m, to = ((i + 1) * n + m - 1) / m;

			for (int64_t j = from; j < to; j++)
				at(r, bt / r.L, i / width, bt % r.L)[i % width] +=
					at(f->plain_k, bt / r.L, j / WIDTH, bt % r.L)[j % WIDTH] / (double)(to - from);
		}
	return r;
}

static void slots(struct formula *f, struct seq g, double scale)
{
	struct seq s = each(f, g, one_less, 0), bound, scores;

	scores = recurrence(f, each(f, f->q, times, scale), f->k, s, g, none, true, &bound);
	as_is(f, recurrence(f, softmax(f, scores, 1), s, f->v, g, none, false, &bound), bound);
	for (int64_t i = 0; i < BATCH * HEADS * f->q.L; i++)
		f->slack[i] = 4;
}

/* max(x W + b, 0) over the heads side by side. */
static struct seq rectified(const struct formula *f, struct seq s, const char *w, const char *b)
{
	struct seq r = seq_new(f->a, s.heads, s.L, s.width);
	int64_t n = s.heads * s.width;

	for (int64_t i = 0; i < BATCH * s.L * n; i++) {
		int64_t c = i % n, t = i / n % s.L, batch = i / n / s.L;
		double sum = p(f, b, c);

		for (int64_t d = 0; d < n; d++)
			sum += at(s, batch, d / s.width, t)[d % s.width] * p(f, w, d * n + c);
		at(r, batch, c / s.width, t)[c % s.width] = fmax(sum, 0);
	}
	return r;
}

/* ---- Windows ---- */

static int64_t window_of(const struct convert_opt *opt) { return opt->window ? opt->window : opt->mechanism->window; }

static bool visible(const struct formula *f, int64_t b, int64_t i, int64_t j)
{
	int64_t W = window_of(f->opt);

	if (f->masked && hidden(b, j)) { /* a query with nothing else to see sees itself */
		for (int64_t other = 0; j == i && other < i; other++)
			if (visible(f, b, i, other))
				return false;
		return j == i;
	}
	if (!strcmp(f->opt->mechanism->name, "diag"))
		return j <= i && j / W == i / W;
	if (!strcmp(f->opt->mechanism->name, "lolcats-terraced"))
		return j <= i && j >= W * (i / W - 1);
	return j <= i && (j > i - W || j < f->opt->sinks);
}

/* ALiBi's slope of a query head. */
static double slope(const struct formula *f, int64_t h) { return f->sloped ? pow(4, -1 - (double)h) : 0; }

static double logit(const struct formula *f, struct seq q, struct seq k, int64_t b, int64_t h, int64_t i, int64_t j)
{
	double s = slope(f, h) * (double)(j - i);

	for (int64_t c = 0; c < WIDTH; c++)
		s += SCALE * at(q, b, h, i)[c] * at(k, b, h / (HEADS / k.heads), j)[c];
	return s;
}

/* The largest logit that query i sees. */
static double top(const struct formula *f, struct seq q, struct seq k, int64_t b, int64_t h, int64_t i)
{
	double most = -INFINITY;

	for (int64_t j = 0; j <= i; j++)
		if (visible(f, b, i, j))
			most = fmax(most, logit(f, q, k, b, h, i, j));
	return most;
}

static struct seq windowed(const struct formula *f, struct seq q, struct seq k, struct seq v)
{
	struct seq y = seq_new(f->a, HEADS, q.L, VALUE_WIDTH);

	for (int64_t r = 0; r < BATCH * HEADS * q.L; r++) {
		int64_t b = r / q.L / HEADS, h = r / q.L % HEADS, i = r % q.L;
		double sum = 0, most = top(f, q, k, b, h, i);

		for (int64_t j = 0; j <= i; j++) {
			double w = visible(f, b, i, j) ? exp(logit(f, q, k, b, h, i, j) - most) : 0;

			sum += w;
			for (int64_t c = 0; c < VALUE_WIDTH; c++)
				y.x[r * VALUE_WIDTH + c] += w * at(v, b, h / (HEADS / v.heads), j)[c];
		}
		for (int64_t c = 0; c < VALUE_WIDTH; c++)
			y.x[r * VALUE_WIDTH + c] /= sum;
	}
	return y;
}

/* Softmax in the window and features fq . fk outside, divided by one sum. LoLCATs: Zhang et al. 2025, section 3.1. */
static void joint(struct formula *f, struct seq fq, struct seq fk)
{
	bool shifted = strstr(f->opt->mechanism->name, "lolcats") != NULL;

	f->y = seq_new(f->a, HEADS, fq.L, VALUE_WIDTH);
	for (int64_t r = 0; r < BATCH * HEADS * fq.L; r++) {
		int64_t b = r / fq.L / HEADS, h = r / fq.L % HEADS, i = r % fq.L;
		double sum = 0, most = top(f, f->q, f->k, b, h, i);
		double near = shifted ? exp(p(f, "window_gate", h)) : 1, far = shifted ? 1 : exp(p(f, "far_gate", h) - most);

		for (int64_t j = 0; j <= i; j++) {
			double w = 0;

			if (visible(f, b, i, j))
				w = near * exp(logit(f, f->q, f->k, b, h, i, j) - most);
			for (int64_t c = 0; !visible(f, b, i, j) && !(f->masked && hidden(b, j)) && c < fq.width; c++)
				w += far * exp(slope(f, h) * (double)(j - i)) * at(fq, b, h, i)[c] * at(fk, b, h / (HEADS / fk.heads), j)[c];
			sum += w;
			for (int64_t c = 0; c < VALUE_WIDTH; c++)
				f->y.x[r * VALUE_WIDTH + c] += w * at(f->v, b, h / (HEADS / f->v.heads), j)[c];
		}
		for (int64_t c = 0; c < VALUE_WIDTH; c++)
			f->y.x[r * VALUE_WIDTH + c] /= sum;
		f->slack[r] = 2;
	}
}

static void compute(struct formula *f)
{
	const char *name = f->opt->mechanism->name, *fade = f->opt->fade ? f->opt->fade : f->opt->mechanism->fade;
	int64_t M = f->opt->features ? f->opt->features : WIDTH;
	struct seq bound, o, beta, logit;

	if (f->opt->mechanism->build && strstr(name, "gsa")) {
		bool liger = *name == 'l';

		slots(f, each(f, liger ? pooled(f, M) : affine(f, f->plain_k, "gate_w", "gate_b", M), gate_over, liger ? 16 : 8), liger ? 1 : SCALE);
	} else if (!strcmp(name, "hgrn2")) {
		logit = affine(f, f->plain_k, "gate_w", "gate_b", WIDTH);
		o = recurrence(f, each(f, f->q, silu, 0), each(f, logit, let_go, 0), f->v, each(f, logit, gate_over, 1), none, false, &bound);
		divided_by_root(f, o, bound, false);
	} else if (!strcmp(name, "liger-gla")) {
		as_is(f, recurrence(f, softmax(f, f->q, 1), softmax(f, f->k, 1), f->v, each(f, f->plain_k, gate_over, 16), none, false, &bound), bound);
	} else if (!strcmp(name, "liger-hgrn2")) {
		as_is(f, recurrence(f, softmax(f, f->q, 1), each(f, f->k, let_go, 0), f->v, each(f, f->plain_k, gate_over, 1), none, false, &bound),
		      bound);
	} else if (strstr(name, "delta") || !strcmp(name, "kda")) {
		beta = each(f, affine(f, f->plain_k, "beta_w", "beta_b", 1), squashed, 0);
		o = recurrence(f, unit(f, each(f, affine(f, f->q, "q_w", NULL, WIDTH), silu, 0)),
		               unit(f, each(f, affine(f, f->k, "k_w", NULL, WIDTH), silu, 0)), f->v, gates(f, fade, WIDTH), beta, false, &bound);
		as_is(f, affine(f, o, "o_w", NULL, VALUE_WIDTH), bound);
	} else if (!strcmp(name, "gla")) {
		divided_by_root(f, recurrence(f, each(f, f->q, times, sqrt(SCALE)), each(f, f->k, times, sqrt(SCALE)), f->v, gates(f, fade, WIDTH), none,
		                              false, &bound), bound, false);
	} else if (!strcmp(name, "supra")) {
		struct seq q = each(f, rotated(f->a, rectified(f, f->q, "q_w", "q_b")), times, SCALE);

		divided_by_root(f, recurrence(f, q, rotated(f->a, rectified(f, f->k, "k_w", "k_b")), f->v, gates(f, fade, WIDTH), none, false, &bound), bound,
		                true);
	} else if (!strcmp(name, "mamba2")) {
		o = recurrence(f, each(f, f->q, silu, 0), each(f, f->k, silu, 0), f->v, gates(f, fade, WIDTH), none, false, &bound);
		divided_by_root(f, o, bound, false);
	} else if (!strcmp(name, "window") || !strcmp(name, "diag")) {
		f->y = windowed(f, f->q, f->k, f->v);
	} else if (!strcmp(name, "elu") && f->opt->window && !fade) {
		joint(f, each(f, f->q, elu1, 0), each(f, f->k, elu1, 0));
	} else if (strstr(name, "lolcats")) {
		struct seq q = affine(f, f->q, "q_w", NULL, WIDTH), k = affine(f, f->k, "k_w", NULL, WIDTH);

		joint(f, beside(f, softmax(f, q, 1), softmax(f, q, -1)), beside(f, softmax(f, k, 1), softmax(f, k, -1)));
	} else if (!strcmp(name, "elu")) {
		divided_by_sum(f, each(f, f->q, elu1, 0), each(f, f->k, elu1, 0), gates(f, fade, WIDTH));
	} else if (!strcmp(name, "hedgehog")) {
		struct seq q = affine(f, f->q, "q_w", NULL, WIDTH), k = affine(f, f->k, "k_w", NULL, WIDTH);

		divided_by_sum(f, beside(f, softmax(f, q, 1), softmax(f, q, -1)), beside(f, softmax(f, k, 1), softmax(f, k, -1)),
		               gates(f, fade, 2 * WIDTH));
	} else {
		fail_msg("%s has no formula here", name);
	}
}

/* ---- Trials ---- */

struct sources {
	struct seq q, k, v, cos, sin;
};

static struct sources sources_of(struct arena *a, int64_t L)
{
	struct sources s = { drawn(a, HEADS, L, WIDTH, 1), drawn(a, GROUPS, L, WIDTH, 2), drawn(a, GROUPS, L, VALUE_WIDTH, 3), none, none };

	s.cos = seq_new(a, 1, L, 2);
	s.sin = seq_new(a, 1, L, 2);
	for (int64_t i = 0; i < L * 2; i++) {
		s.cos.x[i] = cos((double)(i / 2) * (i % 2 ? 0.01 : 1));
		s.sin.x[i] = sin((double)(i / 2) * (i % 2 ? 0.01 : 1));
	}
	return s;
}

static void formula_of(struct formula *f, struct sources s)
{
	const struct mechanism *m = f->opt->mechanism;
	bool per_query = f->opt->heads ? !strcmp(f->opt->heads, "query") : m->per_query;
	int taps = f->opt->conv ? f->opt->conv : m->conv;

	f->q = m->plain || f->unturned ? s.q : rotated(f->a, s.q);
	f->k = m->plain || f->unturned ? s.k : rotated(f->a, s.k);
	f->v = s.v;
	f->plain_k = s.k;
	if (per_query) {
		f->k = repeated(f->a, f->k);
		f->v = repeated(f->a, f->v);
		f->plain_k = repeated(f->a, f->plain_k);
	}
	if (f->masked && taps > 1) { /* the sources stay as they are */
		f->k = each(f, f->k, times, 1);
		f->v = each(f, f->v, times, 1);
	}
	for (int64_t i = 0; f->masked && taps > 1 && i < BATCH * f->k.heads * s.q.L; i++)
		if (hidden(i / s.q.L / f->k.heads, i % s.q.L)) { /* what is hidden counts as nothing */
			memset(f->k.x + i * WIDTH, 0, WIDTH * sizeof *f->k.x);
			memset(f->v.x + i * VALUE_WIDTH, 0, VALUE_WIDTH * sizeof *f->v.x);
		}
	if (taps > 1) {
		f->q = filtered(f, f->q, "q_conv", taps);
		f->k = filtered(f, f->k, "k_conv", taps);
		f->v = filtered(f, f->v, "v_conv", taps);
	}
	f->slack = arena_get(f->a, (size_t)(BATCH * HEADS * s.q.L) + 1, sizeof *f->slack);
	compute(f);
	if (f->opt->window && param(f->m, "mix")) {
		struct seq w = windowed(f, f->unturned ? s.q : rotated(f->a, s.q), f->unturned ? s.k : rotated(f->a, s.k), s.v);

		for (int64_t i = 0; i < BATCH * HEADS * s.q.L * VALUE_WIDTH; i++) {
			double a = p(f, "mix", i / VALUE_WIDTH / s.q.L % HEADS);

			f->y.x[i] = a * f->y.x[i] + (1 - a) * w.x[i];
		}
	}
}

static void is_near(const struct formula *f, const struct tensor *found, int64_t from, const char *what)
{
	int64_t n = found->d[2], L = f->y.L;

	for (int64_t i = 0; i < found->n; i++) {
		int64_t row = i / VALUE_WIDTH / n * L + from + i / VALUE_WIDTH % n;
		double want = f->y.x[row * VALUE_WIDTH + i % VALUE_WIDTH], have = tensor_get(found, i), slack = 1e-5 + 3e-6 * f->slack[row];

		if (!(fabs(have - want) <= slack))
			fail_msg("%s, %lld tokens, token %lld: %.9g; expected %.9g, within %.3g", what, (long long)L, (long long)(from + i / VALUE_WIDTH % n),
			         have, want, slack);
	}
}

/* The inputs a model has of the five, tokens [from, to) of them; n: how many. */
static int inputs_of(struct arena *a, const struct graph *g, struct sources x, int64_t from, int64_t to,
                     const struct tensor **in)
{
	int n = 0;

	for (uint32_t i = 0; i < g->nin; i++) {
		const char *name = g->value[g->in[i]].name;
		struct tensor *t;

		if (strlen(name) > 1)
			continue; /* a state */
		if (*name == 'm') {
			assert_int_equal(tensor_new(a, DT_BOOL, 4, (int64_t[]){ BATCH, 1, 1, to - from }, &t, NULL), LINNET_OK);
			for (int64_t k = 0; k < t->n; k++)
				tensor_put(t, k, !hidden(k / (to - from), from + k % (to - from)));
			in[n++] = t;
			continue;
		}
		if (*name == 'c' || *name == 's') {
			struct seq table = *name == 'c' ? x.cos : x.sin;

			assert_int_equal(tensor_new(a, DT_FLOAT, 3, (int64_t[]){ 1, to - from, 2 }, &t, NULL), LINNET_OK);
			for (int64_t k = 0; k < t->n; k++)
				tensor_put(t, k, table.x[from * 2 + k]);
			in[n++] = t;
			continue;
		}
		in[n++] = tokens(a, *name == 'q' ? x.q : *name == 'k' ? x.k : x.v, from, to);
	}
	return n;
}

/* In pieces of `longest`, or drawn ones of up to as many when it is negative. */
static void run(const struct formula *f, const struct linnet_model *m, struct sources x, int64_t longest, const char *what)
{
	struct session *s;
	struct arena *a = arena_new();
	struct linnet_error e = { 0 };
	uint32_t seed = 5;
	int64_t from = 0, L = x.q.L;
	char line[800];

	assert_int_equal(session_new(m->graph, &(struct run_opt){ .threads = 1 }, NULL, 0, &s, &e), LINNET_OK);
	do {
		int64_t n = longest >= 0 ? longest : 1 + (int64_t)((draw(&seed) + 1) / 2 * (double)-longest);
		const struct tensor *in[6];
		struct tensor *out;

		n = n < L - from ? n : L - from;
		inputs_of(a, m->graph, x, from, from + n, in);
		if (session_run(s, in, &out, &e))
			fail_msg("%s, %lld tokens: %s", what, (long long)L, linnet_error_line(&e, line, sizeof line));
		assert_int_equal(out->n, BATCH * HEADS * n * VALUE_WIDTH);
		is_near(f, out, from, what);
		tensor_release(out);
		from += n;
	} while (from < L);
	session_free(s);
	arena_free(a);
}

/* ---- Every mechanism in every target's words ---- */

static const struct {
	const char *mechanism;
	struct convert_opt opt;
	int64_t state; /* numbers a batch entry: H, G = 4, 2 heads, D, E = 4, 3 wide */
} cases[] = {
	{ "gla", { .chunk = 5 }, 2 * 4 * 3 },
	{ "mamba2", { 0 }, 2 * 4 * 3 + 3 * (4 * 4 + 2 * 4 + 2 * 3) },
	{ "elu", { .fade = "token" }, 2 * 4 * 4 },
	{ "elu", { .fade = "channel", .conv = 2, .heads = "query" }, 4 * 4 * 4 + 4 * 4 + 4 * 4 + 4 * 3 },
	{ "elu", { .conv = 3 }, 2 * 4 * 4 + 2 * (4 * 4 + 2 * 4 + 2 * 3) },
	{ "hedgehog", { .fade = "channel" }, 2 * 8 * 4 },
	{ "hgrn2", { 0 }, 2 * 4 * 3 },
	{ "gsa", { 0 }, 2 * (4 * 4 + 4 * 3) },
	{ "gsa", { .features = 3, .heads = "query" }, 4 * (4 * 3 + 3 * 3) },
	{ "liger-gla", { 0 }, 2 * 4 * 3 },
	{ "liger-hgrn2", { .chunk = 64 }, 2 * 4 * 3 },
	{ "liger-gsa", { 0 }, 2 * (4 * 4 + 4 * 3) },
	{ "liger-gsa", { .features = 3 }, 2 * (4 * 3 + 3 * 3) },
	{ "supra", { 0 }, 2 * 4 * 3 },
	{ "supra", { .fade = "channel", .heads = "query" }, 4 * 4 * 3 },
	{ "delta", { .conv = 1 }, 4 * 4 * 3 },
	{ "delta", { .conv = 1, .chunk = 1, .heads = "key" }, 2 * 4 * 3 },
	{ "gated-delta", { 0 }, 4 * 4 * 3 + 3 * (4 * 4 + 4 * 4 + 4 * 3) },
	{ "gated-delta", { .heads = "key", .fade = "retention", .chunk = 7 }, 2 * 4 * 3 + 3 * (4 * 4 + 2 * 4 + 2 * 3) },
	{ "kda", { .conv = 1 }, 4 * 4 * 3 },
	{ "window", { .window = 1 }, 2 * 7 },
	{ "window", { .window = 5, .sinks = 2 }, 2 * (4 + 2) * 7 },
	{ "window", { 0 }, 2 * 63 * 7 },
	{ "window", { .window = 9, .heads = "query", .conv = 2 }, 4 * 8 * 7 + 4 * 4 + 4 * 4 + 4 * 3 },
	{ "diag", { .window = 7 }, 2 * 6 * 7 },
	{ "lolcats", { .window = 5 }, 2 * 5 * 7 + 2 * 8 * 4 },
	{ "lolcats-terraced", { .window = 5 }, 2 * 9 * 7 + 2 * 8 * 4 },
	{ "lolcats-terraced", { .window = 1, .heads = "query" }, 4 * 1 * 7 + 4 * 8 * 4 },
	{ "lolcats-terraced", { 0 }, 2 * 127 * 7 + 2 * 8 * 4 },
	{ "lolcats", { .sinks = 3 }, 2 * (64 + 3) * 7 + 2 * 8 * 4 },
	{ "elu", { .window = 6, .sinks = 2 }, 2 * (6 + 2) * 7 + 2 * 4 * 4 },
	{ "elu", { .window = 4, .fade = "token" }, 2 * 3 * 7 + 2 * 4 * 4 },
	{ "liger-gla", { .window = 5 }, 2 * 4 * 7 + 2 * 4 * 3 },
	{ "liger-gsa", { .window = 64, .sinks = 1 }, 2 * (63 + 1) * 7 + 2 * (4 * 4 + 4 * 3) },
	{ "delta", { .window = 3, .conv = 1 }, 2 * 2 * 7 + 4 * 4 * 3 },
};

static const int64_t lengths[] = { 0, 1, 2, 63, 64, 65, 130 };

static void targets_compute_the_formula(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (enum target target = 0; target < NTARGET; target++) {
			if (!can_say(target, cases[i].mechanism))
				continue;
			struct convert_opt opt = cases[i].opt;
			struct linnet_model *before, *m;
			struct convert_report r;
			char what[100];

			opt.mechanism = mechanism_find(cases[i].mechanism);
			opt.target = target;
			m = converted(plain_text, &opt, &before, &r);
			snprintf(what, sizeof what, "case %d, %s, %s", (int)i, opt.mechanism->name, target_names[target]);
			if (r.item[0].state_numbers != cases[i].state)
				fail_msg("%s: a state of %d numbers", what, (int)r.item[0].state_numbers);
			for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
				struct arena *a = arena_new();
				struct sources x = sources_of(a, lengths[k]);
				struct formula f = { .a = a, .m = before, .opt = &opt };

				formula_of(&f, x);
				run(&f, m, x, target_has_states(target) ? 1 : lengths[k], what);
				if (target_has_states(target)) {
					run(&f, m, x, lengths[k], what);
					run(&f, m, x, -40, what);
				}
				arena_free(a);
			}
			model_free(m);
			model_free(before);
		}
}

/* m against the formula, at once and, where the target has states, step by step and in pieces. */
static void at_all_lengths(struct formula f, const struct linnet_model *m, enum target target, const char *what)
{
	for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
		struct arena *a = arena_new();
		struct sources x = sources_of(a, lengths[k]);

		f.a = a;
		formula_of(&f, x);
		run(&f, m, x, lengths[k], what);
		if (target_has_states(target)) {
			run(&f, m, x, 1, what);
			run(&f, m, x, -40, what);
		}
		arena_free(a);
	}
}

/* Hidden tokens put nothing, and nothing fades over them. */
static void masks_hide_tokens(void **state)
{
	static const struct {
		const char *mechanism;
		struct convert_opt opt;
	} masked[] = { { "gla", { 0 } }, { "kda", { .conv = 1 } }, { "gsa", { 0 } }, { "liger-hgrn2", { 0 } }, { "elu", { .fade = "token" } },
		       { "gated-delta", { .conv = 1, .heads = "key" } }, { "gated-delta", { 0 } }, { "window", { .window = 5, .sinks = 2 } },
		       { "diag", { .window = 7 } }, { "lolcats", { .window = 4 } }, { "lolcats-terraced", { .window = 4 } }, { "elu", { .window = 6, .sinks = 2 } },
		       { "liger-gla", { .window = 5 } } };

	(void)state;
	for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
		for (enum target target = 0; target < NTARGET; target++) {
			if (!can_say(target, masked[i].mechanism))
				continue;
			struct convert_opt opt = masked[i].opt;
			struct linnet_model *before, *m;
			struct convert_report r;
			char what[100];

			opt.mechanism = mechanism_find(masked[i].mechanism);
			opt.target = target;
			m = converted(i % 2 ? masked_text : added_text, &opt, &before, &r);
			snprintf(what, sizeof what, "masked, %s, %s", opt.mechanism->name, target_names[target]);
			at_all_lengths((struct formula){ .m = before, .opt = &opt, .masked = true }, m, target, what);
			model_free(m);
			model_free(before);
		}
}

/* The model's output for these inputs, whole; to be released. */
static struct tensor *output(const struct linnet_model *m, struct sources x)
{
	struct arena *a = arena_new();
	const struct tensor *in[6];
	struct tensor *out;
	struct plan *pl;
	struct linnet_error e = { 0 };
	char line[800];

	inputs_of(a, m->graph, x, 0, x.q.L, in);
	if (plan_new(m->graph, &(struct run_opt){ .threads = 1 }, &pl, &e) || plan_run(pl, in, &out, &e))
		fail_msg("%s", linnet_error_line(&e, line, sizeof line));
	plan_free(pl);
	arena_free(a);
	return out;
}

/* ALiBi's bias fades like any gate; it is not the same for the query heads of one key head, which so get states of their own. */
static void slopes_fade(void **state)
{
	static const struct {
		const char *mechanism;
		struct convert_opt opt;
	} sloped[] = { { "elu", { 0 } }, { "gla", { 0 } }, { "delta", { 0 } }, { "hgrn2", { 0 } }, { "gsa", { 0 } }, { "window", { .window = 5, .sinks = 2 } },
		       { "diag", { .window = 7 } }, { "elu", { .window = 6, .sinks = 2 } }, { "lolcats", { .window = 4 } }, { "gla", { .window = 5 } } };
	const int n = sizeof sloped / sizeof *sloped;

	(void)state;
	for (int k = 0; k < 2 * n; k++)
		for (enum target target = 0; target < NTARGET; target++) {
			const int i = k % n;
			const char *name = sloped[i].mechanism;
			bool masked = k >= n, windows = mechanism_find(name)->window != 0;

			if (!can_say(target, name) || (masked && sloped[i].opt.window && !windows) || (masked && !strcmp(name, "lolcats")))
				continue;
			struct convert_opt opt = sloped[i].opt;
			struct linnet_model *before, *m;
			struct convert_report r;
			char what[100];

			opt.mechanism = mechanism_find(name);
			opt.target = target;
			opt.conv = 1;
			m = converted(!masked ? sloped_text : windows ? placed_text : counted_text, &opt, &before, &r);
			opt.heads = "query"; /* as it has come to be */
			snprintf(what, sizeof what, "sloped%s, %s, %s", masked ? ", masked" : "", name, target_names[target]);
			at_all_lengths((struct formula){ .m = before, .opt = &opt, .sloped = true, .masked = masked, .unturned = true }, m, target, what);
			model_free(m);
			model_free(before);
		}
}

/*
 * A window of the source stays softmax over it whatever is asked for, exactly, and so does a soft cap in it. The mask is a window alone, or one that hides
 * tokens too, which an input says.
 */
static void windows_of_the_source_stay(void **state)
{
	static const char bare[] = "<ir_version: 10, opset_import: [\"\": 25]>\n"
	                           "g (float[B,4,T,4] q, float[B,2,T,4] k, float[B,2,T,3] v) => (float[B,4,T,3] y) {\n"
	                           "  y = Attention <is_causal = 1, scale = 0.5, left_window_size = 2> (q, k, v) }";
	static const char hiding[] =
		"<ir_version: 10, opset_import: [\"\": 25]>\n"
		"g (float[B,4,T,4] q, float[B,2,T,4] k, float[B,2,T,3] v, bool[B,1,1,T] m) => (float[B,4,T,3] y)\n"
		"<int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64 two = {2}> {\n"
		"  t1 = Shape <start = 2, end = 3> (q)  t = Squeeze (t1)  r = Range (zero, t, one)  column = Unsqueeze (r, last)\n"
		"  later = Greater (r, column)  not_later = Not (later)  apart = Sub (column, r)  far = Greater (apart, two)  not_far = Not (far)\n"
		"  both = And (not_later, not_far)  all = And (both, m)\n"
		"  y = Attention <scale = 0.5> (q, k, v, all) }";

	(void)state;
	for (int masked = 0; masked < 2; masked++)
		for (enum target target = 0; target < NTARGET; target++) {
			struct convert_opt opt = { .mechanism = mechanism_find("elu"), .target = target }, shown = { .mechanism = mechanism_find("window"), .window = 3 };
			struct linnet_model *before, *m = converted(masked ? hiding : bare, &opt, &before, &(struct convert_report){ 0 });
			char what[60];

			snprintf(what, sizeof what, "window of the source, %s%s", masked ? "masked, " : "", target_names[target]);
			at_all_lengths((struct formula){ .m = before, .opt = &shown, .masked = masked, .unturned = true }, m, target, what);
			model_free(m);
			model_free(before);
		}
}

/* LiT: linear attention of pixels that all see each other, and a convolution over the image of their values. Wang et al. 2025, section 3.1. */
static void images_are_convolved(void **state)
{
	static const char text[] = "<ir_version: 10, opset_import: [\"\": 24]>\n"
	                           "g (float[B,4,12,4] q, float[B,2,12,4] k, float[B,2,12,3] v) => (float[B,4,12,3] y) { y = Attention (q, k, v) }";
	enum { ROWS = 3, COLUMNS = 4, L = ROWS * COLUMNS };
	struct arena *a = arena_new();
	struct sources x = sources_of(a, L);

	(void)state;
	for (enum target target = 0; target < TARGET_STEP; target++) {
		struct convert_opt opt = { .mechanism = mechanism_find("lit"), .target = target, .rows = ROWS, .columns = COLUMNS };
		struct linnet_model *before, *m;
		struct convert_report r;
		struct tensor *y, *w;

		m = converted(text, &opt, &before, &r);
		w = param(before, "v_image");
		assert_non_null(w);
		y = output(m, x);
		for (int64_t i = 0; i < y->n; i++) {
			int64_t c = i % VALUE_WIDTH, t = i / VALUE_WIDTH % L, h = i / VALUE_WIDTH / L % HEADS, b = i / VALUE_WIDTH / L / HEADS, g = h / 2;
			double num = 0, den = 0, conv = 0;

			for (int64_t j = 0; j < L; j++) {
				int64_t up = j / COLUMNS - t / COLUMNS, right = j % COLUMNS - t % COLUMNS;
				double s = 0;

				for (int64_t d = 0; d < WIDTH; d++)
					s += fmax(at(x.q, b, h, t)[d], 0) * fmax(at(x.k, b, g, j)[d], 0);
				num += s * at(x.v, b, g, j)[c];
				den += s;
				if (labs((long)up) < 3 && labs((long)right) < 3)
					conv += tensor_get(w, (g * VALUE_WIDTH + c) * 25 + (up + 2) * 5 + right + 2) * at(x.v, b, g, j)[c];
			}
			if (!(fabs(tensor_get(y, i) - (num / fmax(den, 1e-6) + conv)) < 1e-4))
				fail_msg("%s, element %d: %g; expected %g", target_names[target], (int)i, tensor_get(y, i), num / fmax(den, 1e-6) + conv);
		}
		tensor_release(y);
		model_free(m);
		model_free(before);
	}
	arena_free(a);
}

/* ---- Properties ---- */

/* The largest difference of two outputs in tokens [from, to). */
static double apart(const struct tensor *x, const struct tensor *y, int64_t from, int64_t to)
{
	double most = 0;

	assert_int_equal(x->n, y->n);
	for (int64_t i = 0; i < x->n; i++)
		if (i / VALUE_WIDTH % x->d[2] >= from && i / VALUE_WIDTH % x->d[2] < to)
			most = fmax(most, fabs(tensor_get(x, i) - tensor_get(y, i)));
	return most;
}

/* What comes later changes nothing; the token itself does. */
static void outputs_depend_on_no_later_token(void **state)
{
	enum { L = 45, CHANGED = 20 };

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (enum target target = 0; target < TARGET_STEP; target++) {
			if (!can_say(target, cases[i].mechanism))
				continue;
			struct convert_opt opt = cases[i].opt;
			struct linnet_model *before, *m;
			struct convert_report r;
			struct arena *a = arena_new();
			struct sources x = sources_of(a, L);
			struct tensor *one, *two;

			opt.mechanism = mechanism_find(cases[i].mechanism);
			opt.target = target;
			m = converted(plain_text, &opt, &before, &r);
			one = output(m, x);
			for (int64_t k = 0; k < BATCH * HEADS * L * WIDTH; k++)
				x.q.x[k] += k / WIDTH % L >= CHANGED ? 1 : 0;
			for (int64_t k = 0; k < BATCH * GROUPS * L * WIDTH; k++)
				x.k.x[k] += k / WIDTH % L >= CHANGED ? 1 : 0;
			for (int64_t k = 0; k < BATCH * GROUPS * L * VALUE_WIDTH; k++)
				x.v.x[k] -= k / VALUE_WIDTH % L >= CHANGED ? 1 : 0;
			two = output(m, x);
			if (apart(one, two, 0, CHANGED) != 0 || !(apart(one, two, CHANGED, CHANGED + 1) > 1e-3))
				fail_msg("case %d, %s, %s: %g before, %g at the change", (int)i, opt.mechanism->name, target_names[target],
				         apart(one, two, 0, CHANGED), apart(one, two, CHANGED, CHANGED + 1));
			tensor_release(one);
			tensor_release(two);
			model_free(m);
			model_free(before);
			arena_free(a);
		}
}

/* A model of that mechanism, with parameters set after they were drawn: name, value, ..., NULL. */
static struct linnet_model *with_params(const char *mechanism, enum target target, const char *const *names, const double *values)
{
	struct convert_opt opt = { .mechanism = mechanism_find(mechanism), .target = target, .conv = 1 };
	struct linnet_model *m = parsed(plain_text), *again;
	struct linnet_error e = { 0 };
	struct convert_report r;
	void *data;
	size_t n;

	assert_int_equal(convert_model(m, &opt, &r, &e), LINNET_OK);
	for (; *names; names++, values++) {
		struct tensor *t = param(m, *names);

		assert_non_null(t);
		for (int64_t i = 0; i < t->n; i++)
			tensor_put(t, i, *values);
	}
	again = model_new(NULL, &e);
	assert_int_equal(graph_export(m, r.opset, &e), LINNET_OK);
	assert_int_equal(proto_save_memory(m, again->arena, &data, &n, &e), LINNET_OK);
	assert_int_equal(proto_load_memory(again, data, n, &e), LINNET_OK);
	assert_int_equal(graph_import(again, &e), LINNET_OK);
	model_free(m);
	return again;
}

/* Gates that leave everything are no gates. */
static void open_gates_are_none(void **state)
{
	static const char *const none_set[] = { NULL }, *const gate[] = { "gate_b", NULL };
	static const struct {
		const char *gated, *plain;
		double bias;
	} pairs[] = { { "gla", "identity", 1000 }, { "gated-delta", "delta", -1000 }, { "kda", "delta", 1000 } };
	struct arena *a = arena_new();
	struct sources x = sources_of(a, 130);

	(void)state;
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
		for (enum target target = 0; target < TARGET_STEP; target++) {
			if (!can_say(target, pairs[i].gated))
				continue;
			struct linnet_model *g = with_params(pairs[i].gated, target, gate, &pairs[i].bias),
			                    *p0 = with_params(pairs[i].plain, target, none_set, NULL);
			struct tensor *one = output(g, x), *two = output(p0, x);

			if (!(apart(one, two, 0, 130) < 2e-4))
				fail_msg("%s, %s: %g apart", pairs[i].gated, target_names[target], apart(one, two, 0, 130));
			tensor_release(one);
			tensor_release(two);
			model_free(g);
			model_free(p0);
		}
	arena_free(a);
}

/* With beta 1 and orthonormal keys, the delta rule gives back what was stored, also what was stored last under one key. */
static void delta_gives_back_values(void **state)
{
	static const char *const beta[] = { "beta_b", NULL };
	struct arena *a = arena_new();
	struct sources x = sources_of(a, 3 * WIDTH);

	(void)state;
	for (int64_t i = 0; i < x.cos.L * 2; i++) {
		x.cos.x[i] = 1;
		x.sin.x[i] = 0;
	}
	for (int64_t i = 0; i < BATCH * HEADS * 3 * WIDTH; i++) /* SiLU of 60 and 0 is 60 and 0; queries ask for all in another order */
		for (int64_t c = 0; c < WIDTH; c++) {
			int64_t t = i % (3 * WIDTH);

			x.q.x[i * WIDTH + c] = c == (t + 1) % WIDTH ? 60 : 0;
			if (i < BATCH * GROUPS * 3 * WIDTH)
				x.k.x[i * WIDTH + c] = c == t % WIDTH ? 60 : 0;
		}
	for (enum target target = 0; target < TARGET_STEP; target++) {
		if (!can_say(target, "delta"))
			continue;
		struct linnet_model *m = with_params("delta", target, beta, &(double){ 60 });
		struct tensor *y = output(m, x);

		for (int64_t i = 0; i < y->n; i++) {
			int64_t t = i / VALUE_WIDTH % y->d[2], h = i / VALUE_WIDTH / y->d[2] % HEADS, b = i / VALUE_WIDTH / y->d[2] / HEADS;
			int64_t stored = t - WIDTH + 1; /* the last token whose key the query of token t is */

			if (stored >= 0 && fabs(tensor_get(y, i) - at(x.v, b, h / (HEADS / GROUPS), stored)[i % VALUE_WIDTH]) > 1e-6)
				fail_msg("%s, token %d: %g", target_names[target], (int)t, tensor_get(y, i));
		}
		tensor_release(y);
		model_free(m);
	}
	arena_free(a);
}

/* ---- Running out of memory ---- */

static enum linnet_code convert_bytes(struct linnet_model **m, const void *bytes, size_t n, const struct convert_opt *opt, struct linnet_error *e)
{
	struct convert_report r;

	*m = model_new(NULL, e);
	if (!*m)
		return LINNET_EMEM;
	TRY(proto_load_memory(*m, bytes, n, e));
	TRY(graph_import(*m, e));
	return convert_model(*m, opt, &r, e);
}

static void memory_may_run_out(void **state)
{
	static const struct convert_opt opts[] = { { 0 }, { .sinks = 2, .window = 4 } };
	static const char *const names[] = { "gated-delta", "kda", "gsa", "liger-gsa", "lolcats", "supra", "elu" };
	struct linnet_model *source = parsed(plain_text);
	struct linnet_error e = { 0 };
	void *bytes;
	size_t size;

	(void)state;
	assert_int_equal(proto_save_memory(source, source->arena, &bytes, &size, &e), LINNET_OK);
	for (size_t i = 0; i < 2 * sizeof names / sizeof *names; i++)
		for (enum target t = 0; t < NTARGET; t++) {
			if (!can_say(t, names[i / 2]))
				continue;
			struct convert_opt opt = opts[i % 2];
			bool done = false;

			opt.mechanism = mechanism_find(names[i / 2]);
			opt.target = t;
			for (uint64_t n = 1; !done; n += 1 + n / 16) {
				struct linnet_model *m;
				enum linnet_code code;

				memset(&e, 0, sizeof e);
				mem_fail_at(n);
				code = convert_bytes(&m, bytes, size, &opt, &e);
				done = mem_requests() < n;
				mem_fail_at(0);
				if (code != (done ? LINNET_OK : LINNET_EMEM))
					fail_msg("%s, %s, request %d failed: code %d, %s", names[i / 2], target_names[t], (int)n, (int)code, e.message);
				model_free(m);
			}
		}
	model_free(source);
}

/* Keys that are nearly one, and gates that leave next to nothing: every target stays finite and says the same. */
static void extremes_stay_finite(void **state)
{
	static const char *const beta[] = { "beta_b", "gate_b", NULL };
	struct arena *a = arena_new();

	(void)state;
	for (int fading = 0; fading < 2; fading++) {
		struct sources x = sources_of(a, 130);
		struct tensor *first = NULL;

		for (int64_t i = 0; i < BATCH * GROUPS * 130 * WIDTH; i++)
			x.k.x[i] = 1 + 1e-3 * x.k.x[i];
		for (int64_t i = 0; i < x.cos.L * 2; i++) {
			x.cos.x[i] = 1;
			x.sin.x[i] = 0;
		}
		for (enum target target = 0; target < TARGET_STEP; target++) {
			if (!can_say(target, "gated-delta"))
				continue;
			struct linnet_model *m = with_params("gated-delta", target, beta, (double[]){ 60, fading ? 60 : -100 });
			struct tensor *y = output(m, x);

			for (int64_t i = 0; i < y->n; i++)
				assert_true(isfinite(tensor_get(y, i)));
			if (first && !(apart(first, y, 0, 130) < 2e-4))
				fail_msg("%s: %g apart", target_names[target], apart(first, y, 0, 130));
			if (first)
				tensor_release(y);
			else
				first = y;
			model_free(m);
		}
		tensor_release(first);
	}
	arena_free(a);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(targets_compute_the_formula),
		cmocka_unit_test(masks_hide_tokens),
		cmocka_unit_test(slopes_fade),
		cmocka_unit_test(windows_of_the_source_stay),
		cmocka_unit_test(images_are_convolved),
		cmocka_unit_test(outputs_depend_on_no_later_token),
		cmocka_unit_test(open_gates_are_none),
		cmocka_unit_test(delta_gives_back_values),
		cmocka_unit_test(extremes_stay_finite),
		cmocka_unit_test(memory_may_run_out),
	};

	return cmocka_run_group_tests_name("gates", tests, NULL, NULL);
}
