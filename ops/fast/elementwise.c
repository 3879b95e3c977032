/*
 * Functions of one, two and three values, element by element, in float32. Memory bounds all but the transcendental ones; pieces of a few
 * thousand elements stay in the first cache between the steps of a compound function.
 */
#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/fast/vmath.h"

VARRAY(exp)
VARRAY(tanh)
VARRAY(erf)
VARRAY(log)
VARRAY(sin)
VARRAY(cos)

enum { PIECE = 4096 }; /* elements a piece */

/* ---- One value ---- */

typedef void map(float *restrict y, const float *restrict x, int64_t n, float alpha);

#define LOOP(name, expression)                                                                     \
	static void name(float *restrict y, const float *restrict x, int64_t n, float alpha)       \
	{                                                                                          \
		(void)alpha;                                                                       \
		for (int64_t i = 0; i < n; i++)                                                    \
			y[i] = (expression);                                                       \
	}

#define WHOLE(name)                                                                                \
	static void f_##name(float *restrict y, const float *restrict x, int64_t n, float alpha)   \
	{                                                                                          \
		(void)alpha;                                                                       \
		v_##name(y, x, n);                                                                 \
	}

WHOLE(exp)
WHOLE(tanh)
WHOLE(erf)
WHOLE(log)
WHOLE(sin)
WHOLE(cos)
LOOP(f_sqrt, sqrtf(x[i]))
LOOP(f_relu, x[i] > 0 || x[i] != x[i] ? x[i] : 0)
LOOP(f_neg, -x[i])
LOOP(f_abs, fabsf(x[i]))
LOOP(f_reciprocal, 1 / x[i])
LOOP(f_square, x[i] * x[i])
LOOP(f_leaky, x[i] < 0 ? alpha * x[i] : x[i])
LOOP(f_hard_swish, x[i] * (x[i] <= -3 ? 0 : x[i] >= 3 ? 1 : x[i] / 6 + 0.5f))
LOOP(f_softsign, x[i] / (1 + fabsf(x[i])))

/* y = 1 / (1 + exp(-alpha x)) */
static void f_logistic(float *restrict y, const float *restrict x, int64_t n, float alpha)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = -alpha * x[i];
	v_exp(y, y, n);
	for (int64_t i = 0; i < n; i++)
		y[i] = 1 / (1 + y[i]);
}

static void f_sigmoid(float *restrict y, const float *restrict x, int64_t n, float alpha)
{
	(void)alpha;
	f_logistic(y, x, n, 1);
}

static void f_swish(float *restrict y, const float *restrict x, int64_t n, float alpha)
{
	f_logistic(y, x, n, alpha);
	for (int64_t i = 0; i < n; i++)
		y[i] *= x[i];
}

static void f_gelu(float *restrict y, const float *restrict x, int64_t n, float alpha)
{
	(void)alpha;
	for (int64_t i = 0; i < n; i++)
		y[i] = x[i] * 0.70710678118654752f;
	v_erf(y, y, n);
	for (int64_t i = 0; i < n; i++)
		y[i] = 0.5f * x[i] * (1 + y[i]);
}

static void f_gelu_tanh(float *restrict y, const float *restrict x, int64_t n, float alpha)
{
	(void)alpha;
	for (int64_t i = 0; i < n; i++)
		y[i] = 0.79788456080286536f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
	v_tanh(y, y, n);
	for (int64_t i = 0; i < n; i++)
		y[i] = 0.5f * x[i] * (1 + y[i]);
}

static void f_elu(float *restrict y, const float *restrict x, int64_t n, float alpha)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = x[i] < 0 ? x[i] : 0;
	v_exp(y, y, n);
	for (int64_t i = 0; i < n; i++)
		y[i] = x[i] < 0 ? alpha * (y[i] - 1) : x[i];
}

/* y = max(x, 0) + log(1 + u), u = exp(-|x|); the logarithm of the rounded w = 1 + u is that of 1 + u by the factor u / (w - 1). */
static void f_softplus(float *restrict y, const float *restrict x, int64_t n, float alpha)
{
	float u[256], w[256];

	(void)alpha;
	for (int64_t from = 0; from < n; from += 256) {
		int64_t m = n - from < 256 ? n - from : 256;

		for (int64_t i = 0; i < m; i++)
			u[i] = -fabsf(x[from + i]);
		v_exp(w, u, m);
		for (int64_t i = 0; i < m; i++) {
			u[i] = w[i];
			w[i] = 1 + u[i];
		}
		v_log(y + from, w, m);
		for (int64_t i = 0; i < m; i++)
			y[from + i] = (x[from + i] > 0 ? x[from + i] : 0) + (w[i] == 1 ? u[i] : y[from + i] * (u[i] / (w[i] - 1)));
	}
}

/* tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2), e = exp(x); from 20 on it is 1. */
static void f_mish(float *restrict y, const float *restrict x, int64_t n, float alpha)
{
	(void)alpha;
	for (int64_t i = 0; i < n; i++)
		y[i] = x[i] < 20 ? x[i] : 20;
	v_exp(y, y, n);
	for (int64_t i = 0; i < n; i++) {
		float e = y[i] * (y[i] + 2);

		y[i] = x[i] * (e / (e + 2));
	}
}

static map *unary_map(const struct op *op, const struct attr *attr, float *alpha)
{
	static const struct {
		const char *name;
		map *f;
	} maps[] = {
		{ "Exp", f_exp },   { "Tanh", f_tanh },   { "Erf", f_erf },       { "Log", f_log },
		{ "Sin", f_sin },   { "Cos", f_cos },     { "Sqrt", f_sqrt },     { "Relu", f_relu },
		{ "Neg", f_neg },   { "Abs", f_abs },     { "Sigmoid", f_sigmoid }, { "Reciprocal", f_reciprocal },
		{ "Swish", f_swish }, { "Elu", f_elu },   { "LeakyRelu", f_leaky },
		{ "Softplus", f_softplus }, { "Mish", f_mish }, { "HardSwish", f_hard_swish }, { "Softsign", f_softsign },
	};
	int a = op_attr_index(op, "alpha");

	*alpha = a >= 0 ? (float)attr[a].f : 0;
	if (!strcmp(op->name, "Gelu")) {
		const struct text s = attr_get(op, attr, "approximate")->s;

		return s.n == 4 && !memcmp(s.p, "tanh", 4) ? f_gelu_tanh : f_gelu;
	}
	for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
		if (!strcmp(maps[i].name, op->name))
			return maps[i].f;
	return NULL;
}

struct unary_job {
	map *f;
	float *y;
	const float *x;
	int64_t n;
	float alpha;
};

static void unary_piece(void *ctx, int64_t i)
{
	const struct unary_job *j = ctx;
	int64_t from = i * PIECE, n = j->n - from < PIECE ? j->n - from : PIECE;
	float copy[PIECE];

	if (j->y == j->x) { /* in place: the compound functions read x after writing y */
		memcpy(copy, j->x + from, (size_t)n * sizeof *copy);
		j->f(j->y + from, copy, n, j->alpha);
	} else {
		j->f(j->y + from, j->x + from, n, j->alpha);
	}
}

static bool unary_ok(const struct kernel_call *c)
{
	float alpha;

	return c->in[0]->dt == DT_FLOAT && unary_map(c->op, c->attr, &alpha);
}

static enum linnet_code unary_run(struct kernel_call *c)
{
	struct unary_job j = { .y = c->out[0]->data, .x = c->in[0]->data, .n = c->in[0]->n };

	j.f = unary_map(c->op, c->attr, &j.alpha);
	parallel_for(j.n < 4 * PIECE ? 1 : c->threads, (j.n + PIECE - 1) / PIECE, unary_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(unary) = { .name = "unary/float", .ok = unary_ok, .run = unary_run, .inplace = true };

/* ---- GLU ---- */

struct glu_job {
	struct unary_job gate;
	const float *value;
};

static void glu_piece(void *ctx, int64_t i)
{
	const struct glu_job *j = ctx;
	int64_t from = i * PIECE, n = j->gate.n - from < PIECE ? j->gate.n - from : PIECE;
	float a[PIECE], *y = j->gate.y + from;

	if (j->gate.f)
		j->gate.f(a, j->gate.x + from, n, j->gate.alpha);
	else
		memcpy(a, j->gate.x + from, (size_t)n * sizeof *a);
	for (int64_t k = 0; k < n; k++)
		y[k] = a[k] * j->value[from + k];
}

static bool glu_ok(const struct kernel_call *c)
{
	return c->in[0]->dt == DT_FLOAT;
}

static enum linnet_code glu_run(struct kernel_call *c)
{
	static const struct {
		const char *name;
		map *f;
	} maps[] = { { "identity", NULL }, { "sigmoid", f_sigmoid }, { "relu", f_relu }, { "swish", f_swish }, { "gelu", f_gelu }, { "gelu_tanh", f_gelu_tanh } };
	const struct text s = attr_get(c->op, c->attr, "activation")->s;
	struct glu_job j = { .gate = { .y = c->out[0]->data, .x = c->in[0]->data, .n = c->in[0]->n,
	                               .alpha = (float)attr_get(c->op, c->attr, "alpha")->f },
	                     .value = c->in[1]->data };

	for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
		if (strlen(maps[i].name) == s.n && !memcmp(maps[i].name, s.p, s.n))
			j.gate.f = maps[i].f;
	parallel_for(j.gate.n < 4 * PIECE ? 1 : c->threads, (j.gate.n + PIECE - 1) / PIECE, glu_piece, &j);
	return LINNET_OK;
}

/* SwiGLU(A, B) = A sigmoid(alpha A) B for operands of one shape. */
static bool swiglu_ok(const struct kernel_call *c)
{
	return c->in[0]->dt == DT_FLOAT && c->in[0]->n == c->out[0]->n && c->in[1]->n == c->out[0]->n;
}

static enum linnet_code swiglu_run(struct kernel_call *c)
{
	struct glu_job j = { .gate = { .f = f_swish, .y = c->out[0]->data, .x = c->in[0]->data, .n = c->in[0]->n,
	                               .alpha = (float)attr_get(c->op, c->attr, "alpha")->f },
	                     .value = c->in[1]->data };

	parallel_for(j.gate.n < 4 * PIECE ? 1 : c->threads, (j.gate.n + PIECE - 1) / PIECE, glu_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(swiglu) = { .name = "swiglu/float", .ok = swiglu_ok, .run = swiglu_run, .inplace = true };
const struct fast FAST_KERNEL(glu) = { .name = "glu/float", .ok = glu_ok, .run = glu_run, .inplace = true };

/* ---- Two and three values, broadcast ---- */

/* Up to three inputs walked together: axes that lie as one are merged; the last axis is a line. */
struct walk {
	int rank, nin;
	int64_t length[MAX_RANK], stride[3][MAX_RANK];
	int64_t lines, line;
};

static void walk_init(struct walk *w, const struct tensor *out, const struct tensor *const *in, int nin)
{
	int64_t length[MAX_RANK], stride[3][MAX_RANK];
	int r = 0;

	for (int k = 0; k < nin; k++)
		broadcast_strides(in[k], out->rank, stride[k]);
	for (int i = 0; i < out->rank; i++)
		length[i] = out->d[i];
	*w = (struct walk){ .nin = nin, .lines = 1 };
	for (int i = 0; i < out->rank; i++) {
		bool merge = r > 0;

		if (length[i] == 1)
			continue;
		for (int k = 0; k < nin; k++)
			merge = merge && w->stride[k][r - 1] == stride[k][i] * length[i];
		if (merge) {
			w->length[r - 1] *= length[i];
		} else {
			w->length[r++] = length[i];
		}
		for (int k = 0; k < nin; k++)
			w->stride[k][r - 1] = stride[k][i];
	}
	if (!r) {
		w->length[r++] = 1;
	}
	w->rank = r;
	w->line = w->length[r - 1];
	for (int i = 0; i < r - 1; i++)
		w->lines *= w->length[i];
}

static void walk_line(const struct walk *w, int64_t line, int64_t *at)
{
	for (int k = 0; k < w->nin; k++)
		at[k] = 0;
	for (int i = w->rank - 2; i >= 0; i--) {
		int64_t x = line % w->length[i];

		line /= w->length[i];
		for (int k = 0; k < w->nin; k++)
			at[k] += x * w->stride[k][i];
	}
}

/* y = a joined with b; sa, sb are 0 or 1, and both 0 only when n is 1. */
typedef void join(float *y, const float *a, const float *b, int64_t n, int64_t sa, int64_t sb);

#define JOIN(name, expression)                                                                     \
	static void name(float *y, const float *a, const float *b, int64_t n, int64_t sa, int64_t sb) \
	{                                                                                          \
		if (sa && sb) {                                                                    \
			for (int64_t i = 0; i < n; i++) {                                          \
				float p = a[i], q = b[i];                                          \
				y[i] = (expression);                                               \
			}                                                                          \
		} else if (sa) {                                                                   \
			float q = *b;                                                              \
			for (int64_t i = 0; i < n; i++) {                                          \
				float p = a[i];                                                    \
				y[i] = (expression);                                               \
			}                                                                          \
		} else {                                                                           \
			float p = *a;                                                              \
			for (int64_t i = 0; i < n; i++) {                                          \
				float q = b[i];                                               \
				y[i] = (expression);                                               \
			}                                                                          \
		}                                                                                  \
	}

JOIN(j_add, p + q)
JOIN(j_sub, p - q)
JOIN(j_mul, p *q)
JOIN(j_div, p / q)
JOIN(j_max, p != p || p > q ? p : q)
JOIN(j_min, p != p || p < q ? p : q)

static join *binary_join(const struct kernel_call *c)
{
	static const struct {
		const char *name;
		join *f;
	} joins[] = { { "Add", j_add }, { "Sub", j_sub }, { "Mul", j_mul }, { "Div", j_div }, { "Max", j_max }, { "Min", j_min } };

	for (size_t i = 0; i < sizeof joins / sizeof *joins; i++)
		if (!strcmp(joins[i].name, c->op->name))
			return joins[i].f;
	return NULL;
}

struct binary_job {
	struct walk w;
	join *f;
	float *y;
	const float *a, *b;
	const uint8_t *cond;
	int64_t pieces, per; /* pieces a line, elements a piece; or several lines a piece */
	int64_t group;       /* lines a piece when lines are short */
};

/* Square: Pow with exponent 2, which exporters write for norms. */
static bool is_square(const struct kernel_call *c)
{
	return !strcmp(c->op->name, "Pow") && c->in[1]->n == 1 && c->in[1]->dt == DT_FLOAT;
}

static bool binary_ok(const struct kernel_call *c)
{
	if (c->nin != 2 || c->in[0]->dt != DT_FLOAT || c->in[1]->dt != DT_FLOAT)
		return false;
	return binary_join(c) || is_square(c);
}

static void split_lines(struct binary_job *j)
{
	if (j->w.line >= PIECE) {
		j->per = PIECE;
		j->pieces = (j->w.line + PIECE - 1) / PIECE;
		j->group = 1;
	} else {
		j->per = j->w.line;
		j->pieces = 1;
		j->group = j->w.line ? PIECE / j->w.line : 1;
	}
}

static void binary_piece(void *ctx, int64_t i)
{
	const struct binary_job *j = ctx;
	const struct walk *w = &j->w;
	int64_t first = i / j->pieces * j->group, from = i % j->pieces * j->per, at[3];
	int64_t sa = w->stride[0][w->rank - 1], sb = w->stride[1][w->rank - 1];

	for (int64_t l = first; l < first + j->group && l < w->lines; l++) {
		int64_t n = w->line - from < j->per ? w->line - from : j->per;

		walk_line(w, l, at);
		j->f(j->y + l * w->line + from, j->a + at[0] + from * sa, j->b + at[1] + from * sb, n, sa, sb);
	}
}

static enum linnet_code binary_run(struct kernel_call *c)
{
	struct binary_job j = { .f = binary_join(c), .y = c->out[0]->data, .a = c->in[0]->data, .b = c->in[1]->data };

	if (!c->out[0]->n)
		return LINNET_OK;
	if (!j.f) {
		struct unary_job u = { .f = f_square, .y = c->out[0]->data, .x = c->in[0]->data, .n = c->in[0]->n };

		if (*j.b != 2 || c->in[0]->n != c->out[0]->n)
			return c->op->kernel(c);
		parallel_for(u.n < 4 * PIECE ? 1 : c->threads, (u.n + PIECE - 1) / PIECE, unary_piece, &u);
		return LINNET_OK;
	}
	walk_init(&j.w, c->out[0], c->in, 2);
	split_lines(&j);
	parallel_for(c->out[0]->n < 8 * PIECE ? 1 : c->threads, (j.w.lines + j.group - 1) / j.group * j.pieces, binary_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(binary) = { .name = "binary/float", .ok = binary_ok, .run = binary_run, .inplace = true };

/* ---- Where ---- */

static bool where_ok(const struct kernel_call *c)
{
	return c->in[1]->dt == DT_FLOAT;
}

static void where_piece(void *ctx, int64_t i)
{
	const struct binary_job *j = ctx;
	const struct walk *w = &j->w;
	int64_t first = i / j->pieces * j->group, from = i % j->pieces * j->per, at[3];
	int64_t sc = w->stride[0][w->rank - 1], sa = w->stride[1][w->rank - 1], sb = w->stride[2][w->rank - 1];

	for (int64_t l = first; l < first + j->group && l < w->lines; l++) {
		int64_t n = w->line - from < j->per ? w->line - from : j->per;
		float *y = j->y + l * w->line + from;
		const uint8_t *p;
		const float *a, *b;

		walk_line(w, l, at);
		p = j->cond + at[0] + from * sc;
		a = j->a + at[1] + from * sa;
		b = j->b + at[2] + from * sb;
		for (int64_t k = 0; k < n; k++)
			y[k] = p[k * sc] ? a[k * sa] : b[k * sb];
	}
}

static enum linnet_code where_run(struct kernel_call *c)
{
	struct binary_job j = { .y = c->out[0]->data, .cond = c->in[0]->data, .a = c->in[1]->data, .b = c->in[2]->data };

	if (!c->out[0]->n)
		return LINNET_OK;
	walk_init(&j.w, c->out[0], c->in, 3);
	split_lines(&j);
	parallel_for(c->out[0]->n < 8 * PIECE ? 1 : c->threads, (j.w.lines + j.group - 1) / j.group * j.pieces, where_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(where) = { .name = "where/float", .ok = where_ok, .run = where_run };
