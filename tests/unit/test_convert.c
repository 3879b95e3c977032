/* Conversion: linear attention computes its formula in every target's words, and what cannot be linear is left and reported. */
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "converter/convert.h"
#include "runtime/runtime.h"

enum { BATCH = 2, HEADS = 4, GROUPS = 2, WIDTH = 8, VALUE_WIDTH = 6 };

#define SCALE 0.5

/* ---- Models ---- */

static struct linnet_model *parsed(const char *text)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[800];

	if (!m || text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s\nin\n%s", linnet_error_line(&e, line, sizeof line), text);
	return m;
}

/* With the sum of weights, where it is kept. */
static int64_t value_width(const struct mechanism *m) { return VALUE_WIDTH + (m->normaliser == NORM_RATIO); }

/* The model of that text converted, written, and read again. */
static struct linnet_model *converted(const char *text, const struct convert_opt *opt)
{
	struct linnet_model *m = parsed(text), *again;
	struct linnet_error e = { 0 };
	struct convert_report r;
	char line[800];
	void *data = NULL, *copy;
	size_t n = 0;

	again = model_new(NULL, &e);
	if (convert_model(m, opt, &r, &e) || graph_export(m, r.opset, &e) || proto_save_memory(m, m->arena, &data, &n, &e))
		fail_msg("%s: %s", target_names[opt->target], linnet_error_line(&e, line, sizeof line));
	assert_int_equal(r.nitem, 1);
	assert_int_equal(r.nconverted, 1);
	assert_true(r.item[0].converted && r.item[0].selected && !r.item[0].reason);
	assert_int_equal(r.item[0].heads, HEADS);
	assert_int_equal(r.item[0].kv_heads, GROUPS);
	assert_int_equal(r.item[0].state_numbers, GROUPS * r.item[0].features * value_width(opt->mechanism));
	copy = arena_dup(again->arena, data, n);
	model_free(m);
	if (!copy || proto_load_memory(again, copy, n, &e) || graph_import(again, &e))
		fail_msg("%s: %s", target_names[opt->target], linnet_error_line(&e, line, sizeof line));
	return again;
}

/* ---- Numbers ---- */

static struct tensor *tensor_of(struct arena *a, enum dtype dt, int rank, const int64_t *d)
{
	struct tensor *t;

	assert_int_equal(tensor_new(a, dt, rank, d, &t, NULL), LINNET_OK);
	return t;
}

/* Uniform in [-1, 1], the same for the same seed. */
static double draw(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return (double)(*seed >> 8) / (1 << 23) - 1;
}

static struct tensor *drawn(struct arena *a, int64_t heads, int64_t length, int64_t width, uint32_t seed)
{
	struct tensor *t = tensor_of(a, DT_FLOAT, 4, (int64_t[]){ BATCH, heads, length, width });

	for (int64_t i = 0; i < t->n; i++)
		tensor_put(t, i, draw(&seed));
	return t;
}

/* Key masks [BATCH, 1, 1, length]: key 0 is visible; of the others every third is not. */
static struct tensor *key_mask(struct arena *a, enum dtype dt, int64_t length)
{
	struct tensor *t = tensor_of(a, dt, 4, (int64_t[]){ BATCH, 1, 1, length });
	uint32_t seed = 77;

	for (int64_t i = 0; i < t->n; i++) {
		bool hidden = i % length && i % 3 == 1;

		tensor_put(t, i, dt == DT_BOOL ? !hidden : hidden ? -INFINITY : draw(&seed));
	}
	return t;
}

/* The tokens [from, to) of x [BATCH, heads, L, width]. */
static struct tensor *tokens_of(struct arena *a, const struct tensor *x, int64_t from, int64_t to)
{
	struct tensor *t = tensor_of(a, x->dt, 4, (int64_t[]){ x->d[0], x->d[1], to - from, x->d[3] });

	for (int64_t i = 0; i < x->d[0] * x->d[1]; i++)
		for (int64_t j = 0; j < (to - from) * x->d[3]; j++)
			tensor_put(t, i * (to - from) * x->d[3] + j, tensor_get(x, (i * x->d[2] + from) * x->d[3] + j));
	return t;
}

struct inputs {
	const struct tensor *q, *k, *v, *mask;
	bool causal;
	bool positions; /* sin(j) is added to key j */
};

/* softmax(x)[c] over the width. */
static double softmax_at(const double *x, double sign, int c)
{
	double sum = 0;

	for (int i = 0; i < WIDTH; i++)
		sum += exp(sign * (x[i] - x[c]));
	return 1 / sum;
}

/* The weight of favor or prf, from their m random directions: the mean of exp(w_r (q + k) - |q|^2 / 2 - |k|^2 / 2). */
static double random_weight(const char *name, int m, const double *q, const double *k)
{
	static double w[2][WIDTH * 4 * WIDTH];
	double *d = w[strcmp(name, "favor") != 0], sum = 0, half = 0;

	if (!d[0]) {
		struct arena *a = arena_new();
		const struct map_use u = { .arena = a, .dt = DT_FLOAT, .heads = 1, .width = WIDTH, .seed = 1000003 };
		struct tensor *t[MAX_PARAMETERS];
		int n;

		assert_int_equal(mechanism_find(name)->parameters(&u, t, &n, NULL), LINNET_OK);
		assert_int_equal(t[0]->n, WIDTH * m);
		for (int64_t i = 0; i < t[0]->n; i++)
			d[i] = tensor_get(t[0], i);
		arena_free(a);
	}
	for (int c = 0; c < WIDTH; c++)
		half += SCALE * (q[c] * q[c] + k[c] * k[c]) / 2;
	for (int r = 0; r < m; r++) {
		double s = -half;

		for (int c = 0; c < WIDTH; c++)
			s += sqrt(SCALE) * d[c * m + r] * (q[c] + k[c]);
		sum += exp(s) / m;
	}
	return sum;
}

/* |a| |b| a^3 . b^3 / (|a^3| |b^3|), a and b of q and k what is above 0; 0 where nothing is. */
static double focused(const double *q, const double *k)
{
	double qk = 0, length[2] = { 0, 0 }, cubed[2] = { 0, 0 };

	for (int c = 0; c < WIDTH; c++) {
		const double a[2] = { fmax(q[c], 0), fmax(k[c], 0) };

		qk += pow(a[0] * a[1], 3);
		for (int i = 0; i < 2; i++) {
			length[i] += a[i] * a[i];
			cubed[i] += pow(a[i], 6);
		}
	}
	return qk > 0 ? qk * sqrt(length[0] * length[1] / cubed[0] / cubed[1]) : 0;
}

/* f(q_i) . f(k_j), by the mechanism's formula. */
static double kernel(const char *name, const double *q, const double *k, int64_t i, int64_t j)
{
	double sum = 0, s = 0, cosine = cos(1.5707963267948966 * (double)(i - j) / 2048);

	for (int c = 0; c < WIDTH; c++)
		s += SCALE * q[c] * k[c];
	if (!strcmp(name, "identity") || !strcmp(name, "retnet"))
		return s;
	if (!strcmp(name, "taylor"))
		return 1 + s + s * s / 2;
	if (!strcmp(name, "square") || !strcmp(name, "polynomial"))
		return s * s / SCALE / SCALE;
	if (!strcmp(name, "favor") || !strcmp(name, "prf"))
		return random_weight(name, (*name == 'f' ? 4 : 2) * WIDTH, q, k);
	if (!strcmp(name, "focused"))
		return focused(q, k);
	for (int c = 0; c < WIDTH; c++) {
		double a = q[c], b = k[c];

		if (!strcmp(name, "elu") || !strcmp(name, "transnormer"))
			sum += (a > 0 ? a + 1 : exp(a)) * (b > 0 ? b + 1 : exp(b));
		else if (!strcmp(name, "relu") || !strcmp(name, "t2r"))
			sum += fmax(a, 0) * fmax(b, 0);
		else if (!strcmp(name, "relu2"))
			sum += pow(fmax(a, 0) * fmax(b, 0), 2);
		else if (!strcmp(name, "cosformer"))
			sum += fmax(a, 0) * fmax(b, 0) * cosine;
		else if (!strcmp(name, "hedgehog"))
			sum += softmax_at(q, 1, c) * softmax_at(k, 1, c) + softmax_at(q, -1, c) * softmax_at(k, -1, c);
		else if (!strcmp(name, "lightning"))
			sum += a / (1 + exp(-a)) * b / (1 + exp(-b));
		else if (!strcmp(name, "exp"))
			sum += exp(fmin(sqrt(SCALE) * a, 60)) * exp(fmin(sqrt(SCALE) * b, 60));
		else
			fail_msg("%s has no definition here", name);
	}
	return sum;
}

/* What is left of a token after one, by key head of two: 1 - 1/32 and 1 - 1/64; ALiBi's slopes for two heads are 1/16 and 1/256. */
static double left_after(const char *fade, int64_t g, int64_t tokens)
{
	if (!fade)
		return 1;
	return !strcmp(fade, "retention") ? pow(g ? 1 - 1 / 64.0 : 1 - 1 / 32.0, (double)tokens) : exp(-(g ? 1 / 256.0 : 1 / 16.0) * (double)tokens);
}

/* How much of key j query i takes in, before division; *most: what it cannot exceed, |f(q)| |f(k)|, which rounding is relative to. */
static double weight(const struct inputs *x, const struct mechanism *m, int64_t b, int64_t h, int64_t i, int64_t j, double *most)
{
	int64_t g = h / (HEADS / GROUPS), S = x->k->d[2];
	double q[WIDTH], k[WIDTH], left = left_after(m->fade, g, i - j);

	*most = 0;
	if (x->causal && j > i)
		return 0;
	for (int64_t c = 0; c < WIDTH; c++) {
		q[c] = tensor_get(x->q, ((b * HEADS + h) * x->q->d[2] + i) * WIDTH + c);
		k[c] = tensor_get(x->k, ((b * GROUPS + g) * S + j) * WIDTH + c) + (x->positions ? sin((double)j) : 0);
	}
	if (x->mask) {
		double mask = tensor_get(x->mask, b * S + j);

		left *= x->mask->dt == DT_BOOL ? mask : exp(mask);
	}
	*most = left * sqrt(kernel(m->name, q, q, 0, 0) * kernel(m->name, k, k, 0, 0));
	return left * kernel(m->name, q, k, i, j);
}

/* A row of values divided by its root mean square, which is the result, about its mean when centred. */
static double normal(double *y, bool centred)
{
	double mean = 0, square = 0;

	for (int c = 0; c < VALUE_WIDTH; c++)
		mean += centred ? y[c] / VALUE_WIDTH : 0;
	for (int c = 0; c < VALUE_WIDTH; c++)
		square += (y[c] - mean) * (y[c] - mean) / VALUE_WIDTH;
	for (int c = 0; c < VALUE_WIDTH; c++)
		y[c] = (y[c] - mean) / sqrt(square + 1e-5);
	return sqrt(square + 1e-5);
}

/*
 * y_i = sum_j w_ij v_j / sum_j w_ij,  w_ij = f(q_i) . f(k_j) times what the mask lets through and what is left of token j; or that sum brought
 * to a root mean square of 1.
 * Source: Katharopoulos et al., Transformers are RNNs, ICML 2020, section 3; of maps that vanish the denominator stays above 1e-6.
 */
struct result {
	double *y;     /* [BATCH, HEADS, L, VALUE_WIDTH] */
	double *slack; /* [BATCH, HEADS, L]: how far rounding may lead */
};

static struct result definition(struct arena *a, const struct inputs *x, const struct mechanism *m)
{
	int64_t L = x->q->d[2], S = x->k->d[2];
	struct result z = { arena_get(a, (size_t)(BATCH * HEADS * L * VALUE_WIDTH), sizeof *z.y),
		            arena_get(a, (size_t)(BATCH * HEADS * L), sizeof *z.slack) };

	for (int64_t r = 0; r < BATCH * HEADS * L; r++) {
		int64_t b = r / L / HEADS, h = r / L % HEADS, g = h / (HEADS / GROUPS);
		double sum = 0, most = 0, all = 0, *y = z.y + r * VALUE_WIDTH;

		for (int64_t j = 0; j < S; j++) {
			double w = weight(x, m, b, h, r % L, j, &most);

			sum += w;
			all += most;
			for (int64_t c = 0; c < VALUE_WIDTH; c++)
				y[c] += w * tensor_get(x->v, ((b * GROUPS + g) * S + j) * VALUE_WIDTH + c);
		}
		if (m->normaliser == NORM_RATIO)
			sum = fmax(sum, 1e-6);
		else
			sum = normal(y, m->normaliser == NORM_GROUP);
		for (int64_t c = 0; m->normaliser == NORM_RATIO && c < VALUE_WIDTH; c++)
			y[c] /= sum;
		z.slack[r] = 1e-5 + 4e-7 * all / sum;
	}
	return z;
}

/* found: tokens [at, at + n) of the result, whose rows are L long. Values are averages of numbers up to 1. */
static void is_near(const struct tensor *found, struct result z, int64_t at, int64_t L, const char *what)
{
	int64_t n = found->d[2];

	for (int64_t i = 0; i < found->n; i++) {
		int64_t c = i % VALUE_WIDTH, t = i / VALUE_WIDTH % n, r = i / VALUE_WIDTH / n;
		double want = z.y[(r * L + at + t) * VALUE_WIDTH + c], have = tensor_get(found, i);

		if (!(fabs(have - want) <= z.slack[r * L + at + t]))
			fail_msg("%s, %lld tokens, token %lld: %.9g; expected %.9g", what, (long long)L, (long long)(at + t), have, want);
	}
}

/* ---- Running ---- */

static const struct tensor *input_named(const struct inputs *x, const char *name)
{
	switch (*name) {
	case 'q': return x->q;
	case 'k': return x->k;
	case 'v': return x->v;
	default: return x->mask;
	}
}

static void run_whole(struct plan *p, const struct graph *g, const struct inputs *x, struct result y, const char *what)
{
	const struct tensor *in[4];
	struct linnet_error e = { 0 };
	struct tensor *out;
	char line[800];

	assert_int_equal(g->nout, 1);
	assert_true(g->nin <= 4);
	for (uint32_t i = 0; i < g->nin; i++)
		in[i] = input_named(x, g->value[g->in[i]].name);
	if (plan_run(p, in, &out, &e))
		fail_msg("%s, %lld tokens: %s", what, (long long)x->q->d[2], linnet_error_line(&e, line, sizeof line));
	assert_int_equal(out->n, BATCH * HEADS * x->q->d[2] * VALUE_WIDTH);
	is_near(out, y, 0, x->q->d[2], what);
	tensor_release(out);
}

/* A step model's inputs are q, k, v, past_state.0 and position, its outputs y, present_state.0 and present_position. */
static void run_steps(struct plan *p, const struct graph *g, const struct inputs *x, struct result y, int64_t longest, const char *what)
{
	struct arena *a = arena_new();
	const dim *s = g->value[g->in[3]].type.shape.d;
	struct tensor *out[3], *state = tensor_of(a, DT_FLOAT, 4, (int64_t[]){ BATCH, s[1], s[2], s[3] });
	struct tensor *position = tensor_of(a, DT_INT64, 1, (int64_t[]){ 1 });
	struct linnet_error e = { 0 };
	int64_t L = x->q->d[2], at = 0;
	uint32_t seed = 5;
	bool kept = false; /* state and position come from a run */
	char line[800];

	assert_int_equal(g->nin, 5);
	assert_int_equal(g->nout, 3);
	assert_string_equal(g->value[g->in[3]].name, "past_state.0");
	assert_string_equal(g->value[g->in[4]].name, "position");
	assert_string_equal(g->value[g->out[1]].name, "present_state.0");
	assert_string_equal(g->value[g->out[2]].name, "present_position");
	do {
		int64_t n = longest == 1 ? 1 : (int64_t)((draw(&seed) + 1) / 2 * (double)(longest + 1)); /* 0 is allowed */

		n = n < L - at ? n : L - at;
		if (plan_run(p, (const struct tensor *[]){ tokens_of(a, x->q, at, at + n), tokens_of(a, x->k, at, at + n),
		                                           tokens_of(a, x->v, at, at + n), state, position }, out, &e))
			fail_msg("%s: %s", what, linnet_error_line(&e, line, sizeof line));
		assert_int_equal(out[0]->d[2], n);
		is_near(out[0], y, at, L, what);
		tensor_release(out[0]);
		if (kept) {
			tensor_release(state);
			tensor_release(position);
		}
		kept = true;
		state = out[1];
		position = out[2];
		at += n;
		assert_int_equal(tensor_get_int(position, 0), at);
	} while (at < L);
	tensor_release(state);
	tensor_release(position);
	arena_free(a);
}

/* ---- Every mechanism in every target's words ---- */

#define HEAD(opset) "<ir_version: 10, opset_import: [\"\": " #opset "]>\n"
#define QKV "float[B,4,T,8] q, float[B,2,S,8] k, float[B,2,S,6] v"
#define QKV_CAUSAL "float[B,4,T,8] q, float[B,2,T,8] k, float[B,2,T,6] v"
#define RESULT " => (float[B,4,T,6] y)\n"

static const struct {
	const char *name, *text;
	bool causal, positions;
	enum dtype mask;
	int64_t more; /* keys than queries */
} forms[] = {
	{ .name = "causal", .causal = true,
	  .text = HEAD(23) "g (" QKV_CAUSAL ")" RESULT "{ y = Attention <is_causal = 1, scale = 0.5> (q, k, v) }" },
	{ .name = "causal, spelled out", .causal = true, .positions = true,
	  .text = HEAD(18) "g (" QKV_CAUSAL ")" RESULT
	          "<int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64[1] two = {2}, int64[5] times = {1, 1, 2, 1, 1},\n"
	          " int64[4] ks = {0, 4, -1, 8}, int64[4] vs = {0, 4, -1, 6}, float low = {-inf}, float none = {0}, float c = {0.5}>\n"
	          "{ t1 = Shape <start = 2, end = 3> (q)  t = Squeeze (t1)  r = Range (zero, t, one)\n"
	          "  column = Unsqueeze (r, last)  f = Cast <to = 1> (column)  s = Sin (f)  k1 = Add (k, s)\n"
	          "  k5 = Unsqueeze (k1, two)  ke = Expand (k5, times)  kr = Reshape (ke, ks)\n"
	          "  v5 = Unsqueeze (v, two)  ve = Expand (v5, times)  vr = Reshape (ve, vs)\n"
	          "  kt = Transpose <perm = [0, 1, 3, 2]> (kr)  qk = MatMul (q, kt)  scaled = Mul (qk, c)\n"
	          "  beyond = Greater (r, column)  mask = Where (beyond, low, none)  masked = Add (scaled, mask)\n"
	          "  p = Softmax <axis = -1> (masked)  y = MatMul (p, vr) }" },
	{ .name = "cached", .causal = true,
	  .text = HEAD(24) "g (" QKV_CAUSAL ", float[B,2,P,8] pk, float[B,2,P,6] pv) => (float[B,4,T,6] y, float[B,2,A,8] nk, float[B,2,A,6] nv)\n"
	          "{ y, nk, nv = Attention <is_causal = 1, scale = 0.5> (q, k, v, \"\", pk, pv) }" },
	{ .name = "cached, spelled out", .causal = true, .positions = true,
	  .text = HEAD(18) "g (" QKV_CAUSAL ", float[B,2,P,8] pk, float[B,2,P,6] pv) => (float[B,4,T,6] y, float[B,2,A,8] nk, float[B,2,A,6] nv)\n"
	          "<int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64[1] two = {2}, int64[5] times = {1, 1, 2, 1, 1},\n"
	          " int64[4] ks = {0, 4, -1, 8}, int64[4] vs = {0, 4, -1, 6}, float low = {-inf}, float none = {0}, float c = {0.5}>\n"
	          "{ t1 = Shape <start = 2, end = 3> (q)  p1 = Shape <start = 2, end = 3> (pk)  p = Squeeze (p1)  a1 = Add (p1, t1)  a = Squeeze (a1)\n"
	          "  r = Range (p, a, one)  j = Range (zero, a, one)  column = Unsqueeze (r, last)  f = Cast <to = 1> (column)  s = Sin (f)\n"
	          "  k1 = Add (k, s)  nk = Concat <axis = 2> (pk, k1)  nv = Concat <axis = 2> (pv, v)\n"
	          "  k5 = Unsqueeze (nk, two)  ke = Expand (k5, times)  kr = Reshape (ke, ks)\n"
	          "  v5 = Unsqueeze (nv, two)  ve = Expand (v5, times)  vr = Reshape (ve, vs)\n"
	          "  kt = Transpose <perm = [0, 1, 3, 2]> (kr)  qk = MatMul (q, kt)  scaled = Mul (qk, c)\n"
	          "  beyond = Greater (j, column)  mask = Where (beyond, low, none)  masked = Add (scaled, mask)\n"
	          "  w = Softmax <axis = -1> (masked)  y = MatMul (w, vr) }" },
	{ .name = "heads side by side", .causal = true,
	  .text = HEAD(23) "g (" QKV_CAUSAL ")" RESULT
	          "<int64[3] qs = {0, 0, 32}, int64[3] ks = {0, 0, 16}, int64[3] vs = {0, 0, 12}, int64[4] ys = {0, 0, 4, 6}>\n"
	          "{ qt = Transpose <perm = [0, 2, 1, 3]> (q)  kt = Transpose <perm = [0, 2, 1, 3]> (k)  vt = Transpose <perm = [0, 2, 1, 3]> (v)\n"
	          "  q3 = Reshape (qt, qs)  k3 = Reshape (kt, ks)  v3 = Reshape (vt, vs)\n"
	          "  y3 = Attention <is_causal = 1, scale = 0.5, q_num_heads = 4, kv_num_heads = 2> (q3, k3, v3)\n"
	          "  yt = Reshape (y3, ys)  y = Transpose <perm = [0, 2, 1, 3]> (yt) }" },
	{ .name = "bidirectional", .more = 3,
	  .text = HEAD(23) "g (" QKV ")" RESULT "{ y = Attention <scale = 0.5> (q, k, v) }" },
	{ .name = "boolean mask", .mask = DT_BOOL,
	  .text = HEAD(23) "g (" QKV ", bool[B,1,1,S] m)" RESULT "{ y = Attention <scale = 0.5> (q, k, v, m) }" },
	{ .name = "additive mask", .mask = DT_FLOAT, .more = 1,
	  .text = HEAD(23) "g (" QKV ", float[B,1,1,S] m)" RESULT "{ y = Attention <scale = 0.5> (q, k, v, m) }" },
	{ .name = "causal, boolean mask", .causal = true, .mask = DT_BOOL,
	  .text = HEAD(23) "g (" QKV_CAUSAL ", bool[B,1,1,T] m)" RESULT "{ y = Attention <is_causal = 1, scale = 0.5> (q, k, v, m) }" },
};

static void step_is_refused(const char *text, const char *reason)
{
	struct convert_opt opt = { .mechanism = mechanism_at(0), .target = TARGET_STEP };
	struct linnet_model *m = parsed(text);
	struct linnet_error e = { 0 };
	struct convert_report r;

	assert_int_equal(convert_model(m, &opt, &r, &e), LINNET_EUNSUPPORTED);
	if (!strstr(e.message, reason))
		assert_string_equal(e.message, reason);
	model_free(m);
}

struct trial {
	struct inputs x;
	struct result y;
};

static const int64_t lengths[] = { 0, 1, 2, 63, 64, 65, 130 };
enum { NLENGTH = sizeof lengths / sizeof *lengths };

static void check_target(size_t f, const struct mechanism *mechanism, enum target target, const struct trial *trial)
{
	struct convert_opt opt = { .mechanism = mechanism, .target = target };
	struct linnet_model *m = converted(forms[f].text, &opt);
	struct linnet_error e = { 0 };
	struct plan *p;
	char what[120];

	snprintf(what, sizeof what, "%s, %s, %s", forms[f].name, mechanism->name, target_names[target]);
	assert_int_equal(plan_new(m->graph, &(struct run_opt){ .threads = 1 }, &p, &e), LINNET_OK);
	for (const struct trial *t = trial; t < trial + NLENGTH; t++) {
		if (!target_has_states(target)) {
			run_whole(p, m->graph, &t->x, t->y, what);
			continue;
		}
		run_steps(p, m->graph, &t->x, t->y, 1, what);
		run_steps(p, m->graph, &t->x, t->y, 7, what);
		run_steps(p, m->graph, &t->x, t->y, 100, what);
	}
	plan_free(p);
	model_free(m);
}

static void check_form(size_t f, const struct mechanism *mechanism)
{
	struct arena *a = arena_new();
	struct trial trial[NLENGTH];

	for (int i = 0; i < NLENGTH; i++) {
		int64_t n = lengths[i] + forms[f].more;

		trial[i].x = (struct inputs){ .q = drawn(a, HEADS, lengths[i], WIDTH, 1), .k = drawn(a, GROUPS, n, WIDTH, 2),
		                              .v = drawn(a, GROUPS, n, VALUE_WIDTH, 3), .causal = forms[f].causal,
		                              .mask = forms[f].mask ? key_mask(a, forms[f].mask, n) : NULL, .positions = forms[f].positions };
		trial[i].y = definition(a, &trial[i].x, mechanism);
	}
	for (enum target t = 0; t < NTARGET; t++)
		if (!target_has_states(t) || (forms[f].causal && !forms[f].mask))
			check_target(f, mechanism, t, trial);
	arena_free(a);
}

static void targets_compute_the_formula(void **state)
{
	(void)state;
	for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
		for (int k = 0; k < map_family.n; k++)
			if (forms[f].causal || !map_family.row[k].fade)
				check_form(f, &map_family.row[k]);
	step_is_refused(HEAD(23) "g (" QKV_CAUSAL ")" RESULT "{ y = Attention (q, k, v) }", "it is not causal; it can be linear but not recurrent");
}

/* Products of features of taylor and polynomial, of any degree, from their lists of monomials: the sum of s^n / n!, and s^p. */
static void products_of_monomials(void **state)
{
	(void)state;
	for (int degree = 1; degree < 7; degree++)
		for (int taylor = 0; taylor < 2; taylor++) {
			struct arena *a = arena_new();
			const struct map_use u = { .arena = a, .dt = DT_DOUBLE, .heads = 1, .width = 3, .degree = degree };
			const double q[] = { 0.5, -1.25, 0.75, 1 }, k[] = { 1.5, 0.25, -0.5, 1 }, s = 0.75 - 0.3125 - 0.375;
			double sum = 0, want = taylor ? 0 : pow(s, degree), term = 1;
			struct tensor *t[MAX_PARAMETERS];
			int n;

			assert_int_equal(mechanism_find(taylor ? "taylor" : "polynomial")->parameters(&u, t, &n, NULL), LINNET_OK);
			for (int64_t i = 0; i < t[1]->n; i++) {
				double x = tensor_get(t[1], i) * tensor_get(t[1], i);

				for (int64_t c = 0; c < degree; c++)
					x *= q[tensor_get_int(t[0], c * t[1]->n + i)] * k[tensor_get_int(t[0], c * t[1]->n + i)];
				sum += x;
			}
			for (int i = 0; taylor && i <= degree; term *= s / ++i)
				want += term;
			if (!(fabs(sum - want) < 1e-12))
				fail_msg("degree %d: %.15g; expected %.15g", degree, sum, want);
			arena_free(a);
		}
}

static void chunks_may_have_any_length(void **state)
{
	struct arena *a = arena_new();
	struct inputs x = { .q = drawn(a, HEADS, 17, WIDTH, 1), .k = drawn(a, GROUPS, 17, WIDTH, 2), .v = drawn(a, GROUPS, 17, VALUE_WIDTH, 3),
	                    .causal = true };
	struct result y = definition(a, &x, mechanism_find("elu"));

	(void)state;
	for (int chunk = 1; chunk < 20; chunk += 5) {
		struct convert_opt opt = { .mechanism = mechanism_find("elu"), .target = TARGET_PORTABLE, .chunk = chunk };
		struct linnet_model *m = converted(forms[0].text, &opt);
		struct plan *p;

		assert_int_equal(plan_new(m->graph, NULL, &p, NULL), LINNET_OK);
		run_whole(p, m->graph, &x, y, "chunks");
		plan_free(p);
		model_free(m);
	}
	assert_null(mechanism_find("softmax"));
	arena_free(a);
}

/* A padding mask that comes as a matrix of queries and keys is read off the last query: none of the size of that matrix is made. */
static void masks_make_no_matrix(void **state)
{
	static const char text[] = "<ir_version: 10, opset_import: [\"\" : 23]>\n"
	                           "g (float[batch,4,seq,8] q, float[batch,2,seq,8] k, float[batch,2,seq,8] v, bool[batch,1,1,seq] shown) => (y)\n"
	                           "<int64 zero = {0}, int64 one = {1}, int64[1] first = {0}, int64[1] second = {1}>\n"
	                           "{ n = Shape <start = 2, end = 3> (q)\n l = Squeeze (n, first)\n r = Range (zero, l, one)\n row = Unsqueeze (r, second)\n"
	                           "  causal = LessOrEqual (r, row)\n m = And (causal, shown)\n y = Attention (q, k, v, m) }";

	(void)state;
	for (enum target t = 0; t < NTARGET; t++) {
		struct convert_opt opt = { .mechanism = mechanism_find("elu"), .target = t };
		struct linnet_model *m = parsed(text);
		struct linnet_error e = { 0 };
		struct convert_report r;

		if (convert_model(m, &opt, &r, &e) || r.nconverted != 1)
			fail_msg("%s: %s", target_names[t], e.code ? e.message : r.item[0].reason);
		for (node_id id = 1; id < m->graph->nnode && t != TARGET_QUADRATIC && t != TARGET_STEP; id++)
			for (uint32_t i = 0; !m->graph->node[id].dead && i < m->graph->node[id].nout; i++) {
				const struct shape *s = &m->graph->value[m->graph->node[id].out[i]].type.shape;

				if (s->rank > 1 && dim_is_expr(s->d[s->rank - 1]) && s->d[s->rank - 1] == s->d[s->rank - 2])
					fail_msg("%s: %s is %s", target_names[t], m->graph->node[id].name, shape_str(m->graph->dims, s, m->arena));
			}
		model_free(m);
	}
}

/* A session feeds state and position back by itself. */
static void sessions_step(void **state)
{
	struct convert_opt opt = { .mechanism = mechanism_find("elu"), .target = TARGET_STEP };
	struct linnet_model *m = converted(forms[1].text, &opt);
	struct arena *a = arena_new();
	struct inputs x = { .q = drawn(a, HEADS, 9, WIDTH, 1), .k = drawn(a, GROUPS, 9, WIDTH, 2), .v = drawn(a, GROUPS, 9, VALUE_WIDTH, 3),
	                    .causal = true, .positions = true };
	struct result y = definition(a, &x, mechanism_find("elu"));
	struct session *s;

	(void)state;
	assert_int_equal(session_new(m->graph, NULL, NULL, 0, &s, NULL), LINNET_OK);
	assert_int_equal(session_nstate(s), 2);
	assert_int_equal(session_nin(s), 3);
	assert_int_equal(session_nout(s), 1);
	for (int64_t t = 0; t < 9; t++) {
		struct tensor *out;

		assert_int_equal(session_run(s, (const struct tensor *[]){ tokens_of(a, x.q, t, t + 1), tokens_of(a, x.k, t, t + 1),
		                                                           tokens_of(a, x.v, t, t + 1) }, &out, NULL), LINNET_OK);
		is_near(out, y, t, 9, "session");
		tensor_release(out);
	}
	session_free(s);
	arena_free(a);
	model_free(m);
}

/*
 * States kept in half precision: each of L steps rounds both sums to a unit u of what they are, and weights are positive, so outputs are off by
 * 2 L u of the largest value at most.
 */
static void states_may_be_halves(void **state)
{
	enum { L = 130 };
	static const struct {
		enum dtype dt;
		double unit;
	} half[] = { { DT_FLOAT16, 0x1p-11 }, { DT_BFLOAT16, 0x1p-8 } };
	struct arena *a = arena_new();
	struct inputs x = { .q = drawn(a, HEADS, L, WIDTH, 1), .k = drawn(a, GROUPS, L, WIDTH, 2), .v = drawn(a, GROUPS, L, VALUE_WIDTH, 3),
	                    .causal = true, .positions = true };
	struct result y = definition(a, &x, mechanism_find("elu"));

	(void)state;
	for (size_t i = 0; i < 2; i++)
		for (int chunked = 0; chunked < 2; chunked++) {
			struct convert_opt opt = { .mechanism = mechanism_find("elu"), .target = chunked ? TARGET_CHUNK : TARGET_STEP, .state = half[i].dt };
			struct linnet_model *m = converted(forms[1].text, &opt);
			double far = 0;
			struct session *s;

			assert_int_equal(m->graph->value[m->graph->in[3]].type.dt, half[i].dt);
			assert_int_equal(session_new(m->graph, NULL, NULL, 0, &s, NULL), LINNET_OK);
			for (int64_t t = 0; t < L; t++) {
				struct tensor *out;

				assert_int_equal(session_run(s, (const struct tensor *[]){ tokens_of(a, x.q, t, t + 1), tokens_of(a, x.k, t, t + 1),
				                                                           tokens_of(a, x.v, t, t + 1) }, &out, NULL), LINNET_OK);
				for (int64_t k = 0; k < out->n; k++)
					far = fmax(far, fabs(tensor_get(out, k) - y.y[k / VALUE_WIDTH * L * VALUE_WIDTH + t * VALUE_WIDTH + k % VALUE_WIDTH]));
				tensor_release(out);
			}
			assert_true(far > half[i].unit / 16 && far < 2 * L * half[i].unit);
			session_free(s);
			model_free(m);
		}
	arena_free(a);
}

/* ---- What stays softmax ---- */

static const struct {
	const char *text, *reason;
} stays[] = {
	{ HEAD(23) "g (" QKV ")" RESULT "{ y = Attention <is_causal = 1> (q, k, v) }", "it is causal between sequences of different lengths" },
	{ HEAD(25) "g (" QKV_CAUSAL ")" RESULT "{ y = Attention <left_window_size = 3, right_window_size = 2> (q, k, v) }",
	  "its window looks ahead; softmax over a window is already linear in the length" },
	{ HEAD(23) "g (" QKV ") => (float[B,4,T,6] y, float[B,4,T,S] s)\n{ y, \"\", \"\", s = Attention (q, k, v) }",
	  "its scores or caches are used outside attention; linear attention has no score matrix" },
	{ HEAD(23) "g (" QKV ", float[B,1,T,S] m)" RESULT "{ y = Attention (q, k, v, m) }",
	  "its mask or bias is not a function of the key alone" },
	{ HEAD(23) "g (" QKV ", bool[B,4,1,S] m)" RESULT "{ y = Attention (q, k, v, m) }",
	  "its mask differs between the query heads of one key head" },
	{ HEAD(23) "g (" QKV ", float[B,2,16,8] pk, float[B,2,16,6] pv)" RESULT "{ y = Attention (q, k, v, \"\", pk, pv) }",
	  "it reads a key/value cache whose length is fixed or not an input's" },
	{ HEAD(23) "g (float[B,H,T,8] q, float[B,H,S,8] k, float[B,H,S,6] v) => (float[B,H,T,6] y)\n{ y = Attention (q, k, v) }",
	  "its number of heads or its widths are not known before running" },
};

static void what_cannot_be_linear_stays(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof stays / sizeof *stays; i++)
		for (int strict = 0; strict < 2; strict++) {
			struct convert_opt opt = { .mechanism = mechanism_at(0), .target = TARGET_PORTABLE, .strict = strict };
			struct linnet_model *m = parsed(stays[i].text);
			struct linnet_error e = { 0 };
			struct convert_report r;
			enum linnet_code code = convert_model(m, &opt, &r, &e);

			assert_int_equal(code, strict ? LINNET_EUNSUPPORTED : LINNET_OK);
			assert_int_equal(r.nitem, 1);
			assert_int_equal(r.nconverted, 0);
			assert_non_null(r.item[0].reason);
			assert_string_equal(r.item[0].reason, stays[i].reason);
			assert_true(r.item[0].selected && !r.item[0].converted);
			if (strict && (strncmp(e.message, "attention 0 stays softmax: ", 27) || strcmp(e.message + 27, stays[i].reason)))
				fail_msg("%s", e.message);
			if (!strict) {
				int left = 0;

				for (node_id id = 1; id < m->graph->nnode; id++)
					left += !m->graph->node[id].dead && node_is(&m->graph->node[id], "Attention");
				assert_int_equal(left, 1);
			}
			model_free(m);
		}
	step_is_refused(HEAD(23) "g (float[2] x) => (float[2] y) { y = Neg (x) }",
	                "no attention was recognised; there is nothing to make recurrent");
}

/* ---- Lists of layers ---- */

static const char three[] = HEAD(23) "g (float[B,1,T,4] x) => (float[B,1,T,4] y)\n"
                                     "{ a = Attention <is_causal = 1> (x, x, x)  b = Attention <is_causal = 1> (a, a, a)\n"
                                     "  y = Attention <is_causal = 1> (b, b, b) }";

static void layers_are_chosen(void **state)
{
	static const struct {
		const char *list, *on; /* or, for errors, the message */
	} cases[] = {
		{ NULL, "111" },
		{ "all", "111" },
		{ "0", "100" },
		{ "2", "001" },
		{ "0,2", "101" },
		{ "1-2", "011" },
		{ "all,-0", "011" },
		{ "-1", "101" },
		{ "-0,-2", "010" },
		{ "all,-0-1", "001" },
		{ "0,2=window", "101" },
		{ "all=hedgehog,-1", "101" },
		{ "all,0=lolcats/8", "111" },
		{ "0=lolcats/x", "\"x\" is no window; it is 1 to 65536 tokens" },
		{ "0=softmax", "there is no mechanism \"softmax\"" },
		{ "-0=elu", "\"-0=elu\" takes layers away and names a mechanism" },
		{ "3", "there is no layer 3; the model has 3 attentions, counted from 0" },
		{ "1-7", "there is no layer 7; the model has 3 attentions, counted from 0" },
		{ "2-1", "\"2-1\" is no range of layers" },
		{ "1-", "\"1-\" is no range of layers" },
		{ "first", "\"first\" is no layer, range of layers or \"all\"" },
		{ "1x", "\"1x\" is no layer, range of layers or \"all\"" },
		{ "0,,1", "empty item in the list of layers \"0,,1\"" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct convert_opt opt = { .mechanism = mechanism_at(0), .target = TARGET_ONNX, .layers = cases[i].list, .strict = true };
		bool good = *cases[i].on == '0' || *cases[i].on == '1';
		struct linnet_model *m = parsed(three);
		struct linnet_error e = { 0 };
		struct convert_report r;

		assert_int_equal(convert_model(m, &opt, &r, &e), good ? LINNET_OK : LINNET_EUSAGE);
		if (!good)
			assert_string_equal(e.message, cases[i].on);
		for (uint32_t k = 0; good && k < 3; k++) {
			bool on = cases[i].on[k] == '1';

			if (r.item[k].selected != on || r.item[k].converted != on)
				fail_msg("layers %s: attention %u", cases[i].list ? cases[i].list : "NULL", k);
			if (!on)
				assert_string_equal(r.item[k].reason, "it was not selected");
		}
		model_free(m);
	}
}

/* A window of W tokens keeps W - 1 keys and values of 4 each. */
static void windows_are_by_layer(void **state)
{
	struct convert_opt opt = { .mechanism = mechanism_find("window"), .target = TARGET_STEP, .layers = "all,0=window/2,1=window/5", .window = 3 };
	struct linnet_model *m = parsed(three);
	struct linnet_error e = { 0 };
	struct convert_report r;

	(void)state;
	assert_int_equal(convert_model(m, &opt, &r, &e), LINNET_OK);
	assert_int_equal(r.item[0].state_numbers, 8);
	assert_int_equal(r.item[1].state_numbers, 32);
	assert_int_equal(r.item[2].state_numbers, 16);
	model_free(m);
}

/* ---- Running out of memory ---- */

/* From bytes to bytes. */
static enum linnet_code convert_bytes(struct linnet_model **m, const void *bytes, size_t n, enum target target, struct linnet_error *e)
{
	struct convert_opt opt = { .mechanism = mechanism_find("relu"), .target = target };
	struct convert_report r;
	void *out;

	*m = model_new(NULL, e);
	if (!*m)
		return LINNET_EMEM;
	TRY(proto_load_memory(*m, bytes, n, e));
	TRY(graph_import(*m, e));
	TRY(pass_run_all((*m)->graph, NULL, e));
	TRY(convert_model(*m, &opt, &r, e));
	TRY(graph_export(*m, r.opset, e));
	return proto_save_memory(*m, (*m)->arena, &out, &n, e);
}

static void memory_may_run_out(void **state)
{
	struct linnet_model *source = parsed(forms[1].text);
	struct linnet_error e = { 0 };
	void *bytes;
	size_t size;

	(void)state;
	assert_int_equal(proto_save_memory(source, source->arena, &bytes, &size, &e), LINNET_OK);
	for (enum target t = 0; t < NTARGET; t++) {
		bool done = false;

		for (uint64_t n = 1; !done; n += 1 + n / 64) {
			struct linnet_model *m;
			enum linnet_code code;

			memset(&e, 0, sizeof e);
			mem_fail_at(n);
			code = convert_bytes(&m, bytes, size, t, &e);
			done = mem_requests() < n;
			mem_fail_at(0);
			if (code != (done ? LINNET_OK : LINNET_EMEM))
				fail_msg("%s, request %d failed: code %d, %s", target_names[t], (int)n, (int)code, e.message);
			model_free(m);
		}
	}
	model_free(source);
}

/* ---- ONNX Runtime's attentions ---- */

#define MS_HEAD "<ir_version: 10, opset_import: [\"\": 23, \"com.microsoft\": 1]>\n"

static const struct {
	const char *name, *text;
	bool stays; /* there is no Attention that says it */
} theirs[] = {
	{ "rows", MS_HEAD "g (float[B,S,32] q, float[B,S,32] k, float[B,S,24] v, float[88] b) => (float[B,S,24] y)\n"
	          "{ y = com.microsoft.MultiHeadAttention <num_heads = 4, unidirectional = 1, scale = 0.4> (q, k, v, b) }" },
	{ "padding and bias", MS_HEAD "g (float[B,S,32] q, float[B,T,32] k, float[B,T,32] v, int32[B,T] m, float[1,4,S,T] bias) => (float[B,S,32] y)\n"
	                      "{ y = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v, \"\", m, bias) }" },
	{ "keys of heads", MS_HEAD "g (float[B,S,32] q, float[B,4,T,8] k, float[B,4,T,8] v) => (float[B,S,32] y)\n"
	                   "{ y = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v) }" },
	{ "a past", MS_HEAD "g (float[B,S,32] q, float[B,S,32] k, float[B,S,32] v, float[96] b, float[B,4,P,8] pk, float[B,4,P,8] pv) => "
	            "(float[B,S,32] y, float[B,4,A,8] nk, float[B,4,A,8] nv)\n"
	            "{ y, nk, nv = com.microsoft.MultiHeadAttention <num_heads = 4, unidirectional = 1> (q, k, v, b, \"\", \"\", pk, pv) }" },
	{ "projected", MS_HEAD "g (float[B,S,16] x, float[16,88] w, float[88] b, int32[B,S] m) => (float[B,S,24] y)\n"
	               "{ y = com.microsoft.Attention <num_heads = 4, qkv_hidden_sizes = [32, 32, 24]> (x, w, b, m) }" },
	{ "projected, causal", MS_HEAD "g (float[B,S,16] x, float[16,96] w, float[96] b) => (float[B,S,32] y)\n"
	                       "{ y = com.microsoft.Attention <num_heads = 4, unidirectional = 1> (x, w, b) }" },
	{ "grouped", MS_HEAD "g (float[B,S,32] q, float[B,S,16] k, float[B,S,16] v, int32[B] last, int32 total) => (float[B,S,32] y)\n"
	             "{ y = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, softcap = 0.7, local_window_size = 3> (q, k, v, \"\", \"\", last, total) }" },
	{ "grouped, a past, turned", MS_HEAD "g (float[B,S,64] q, float[B,2,P,8] pk, float[B,2,P,8] pv, int32[B] last, int32 total, float[9,3] c, float[9,3] s) => "
	                             "(float[B,S,32] y, float[B,2,A,8] nk, float[B,2,A,8] nv)\n"
	                             "{ y, nk, nv = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, do_rotary = 1> (q, \"\", \"\", pk, pv, last, total, c, s) }" },
	{ "grouped, at positions", MS_HEAD "g (float[B,S,32] q, float[B,S,16] k, float[B,S,16] v, int32[B] last, int32 total, float[9,4] c, float[9,4] s, int64[B,S] at) => "
	                           "(float[B,S,32] y)\n{ y = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, do_rotary = 1, rotary_interleaved = 1> "
	                           "(q, k, v, \"\", \"\", last, total, c, s, at) }" },
	{ "a sink", MS_HEAD "g (float[B,S,32] q, float[B,S,16] k, float[B,S,16] v, int32[B] last, int32 total, float[4] sink) => (float[B,S,32] y)\n"
	            "{ y = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2> (q, k, v, \"\", \"\", last, total, \"\", \"\", \"\", \"\", sink) }",
	  .stays = true },
	{ "scores", MS_HEAD "g (float[B,S,32] q, float[B,S,32] k, float[B,S,32] v) => (float[B,S,32] y, float[B,4,S,S] p)\n"
	            "{ y, nk, nv, p = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v) }", .stays = true },
};

static dim theirs_length(void *ctx, const char *name)
{
	(void)ctx;
	return *name == 'B' ? 2 : *name == 'S' ? 5 : *name == 'P' ? 3 : 8;
}

/* Inputs by name and type: lengths as GroupQueryAttention wants them, masks that show the first key, all else drawn. */
static struct tensor *theirs_input(struct arena *a, const struct graph *g, value_id v, bool past)
{
	const struct value *x = &g->value[v];
	int64_t d[MAX_RANK], total = past ? 8 : 5;
	struct tensor *t;
	uint32_t seed = 11 + v;

	for (int k = 0; k < x->type.shape.rank; k++)
		d[k] = dim_eval(g->dims, x->type.shape.d[k], theirs_length, NULL);
	t = tensor_of(a, x->type.dt, x->type.shape.rank, d);
	for (int64_t i = 0; i < t->n; i++)
		if (t->dt == DT_FLOAT)
			tensor_put(t, i, draw(&seed));
		else
			tensor_put_int(t, i, !strcmp(x->name, "last") ? total - 1 : !strcmp(x->name, "total") ? total : t->dt == DT_INT64 ? 2 + i % d[1] :
			                     i % d[t->rank - 1] == 0 || draw(&seed) > 0);
	return t;
}

static void theirs_run(struct arena *a, const struct graph *g, const struct graph *whole, struct tensor **out)
{
	struct run_opt opt = { .kernels = KERNELS_REFERENCE, .threads = 1 };
	const struct tensor *in[9];
	struct linnet_error e = { 0 };
	struct plan *p;
	bool past = false;
	uint32_t v;
	char line[800];

	for (uint32_t i = 0; i < whole->nin; i++)
		past = past || !strcmp(whole->value[whole->in[i]].name, "pk");
	for (uint32_t i = 0; i < g->nin; i++) {
		assert_true(map_get(&whole->names, g->value[g->in[i]].name, &v));
		in[i] = theirs_input(a, whole, v, past);
	}
	if (plan_new(g, &opt, &p, &e) || plan_run(p, in, out, &e))
		fail_msg("%s", linnet_error_line(&e, line, sizeof line));
	plan_free(p);
}

/* Their attentions become ONNX's, which give the same numbers; inputs that only told lengths go away. */
static void theirs_is_ours(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++) {
		struct linnet_model *m = parsed(theirs[i].text), *n = parsed(theirs[i].text);
		struct arena *a = arena_new();
		struct tensor *before[4], *after[4];
		struct linnet_error e = { 0 };
		bool left = false;
		uint32_t v;

		if (source_standard(n->graph, a, &e))
			fail_msg("%s: %s", theirs[i].name, e.message);
		for (node_id id = 1; id < n->graph->nnode; id++)
			left = left || (!n->graph->node[id].dead && n->graph->node[id].op->domain);
		if (left != theirs[i].stays)
			fail_msg("%s: it %s", theirs[i].name, left ? "stays" : "is said");
		if (!left)
			assert_false(map_get(&n->graph->names, "last", &v) && n->graph->value[v].kind == VALUE_INPUT && n->graph->value[v].index < n->graph->nin &&
			             n->graph->in[n->graph->value[v].index] == v);
		theirs_run(a, m->graph, m->graph, before);
		theirs_run(a, n->graph, m->graph, after);
		assert_int_equal(m->graph->nout, n->graph->nout);
		for (uint32_t k = 0; k < m->graph->nout; k++) {
			assert_int_equal(before[k]->n, after[k]->n);
			for (int64_t c = 0; c < before[k]->n; c++)
				if (!(fabs(tensor_get(before[k], c) - tensor_get(after[k], c)) < 1e-5))
					fail_msg("%s, output %d, element %d: %g, not %g", theirs[i].name, (int)k, (int)c, tensor_get(after[k], c),
					         tensor_get(before[k], c));
			tensor_release(before[k]);
			tensor_release(after[k]);
		}
		arena_free(a);
		model_free(m);
		model_free(n);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(theirs_is_ours),
		cmocka_unit_test(targets_compute_the_formula),
		cmocka_unit_test(products_of_monomials),
		cmocka_unit_test(chunks_may_have_any_length),
		cmocka_unit_test(masks_make_no_matrix),
		cmocka_unit_test(sessions_step),
		cmocka_unit_test(states_may_be_halves),
		cmocka_unit_test(what_cannot_be_linear_stays),
		cmocka_unit_test(layers_are_chosen), cmocka_unit_test(windows_are_by_layer),
		cmocka_unit_test(memory_may_run_out),
	};

	return cmocka_run_group_tests_name("convert", tests, NULL, NULL);
}
