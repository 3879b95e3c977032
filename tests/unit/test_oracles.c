/*
 * What every mechanism owes, whatever its formula, on drawn sizes in double precision: all forms say the same, a sequence may be cut anywhere,
 * later tokens and hidden ones do not matter, batch entries and query heads of a group are alike. docs/testing.md lists who checks what.
 *
 * LinearAttention knows no double: targets onnx and ort are compared in float.
 */
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "converter/convert.h"
#include "ops/base/rng.h"
#include "runtime/runtime.h"

static struct rng rng = { 1 };

static int64_t between(int64_t lo, int64_t hi) { return lo + (int64_t)rng_below(&rng, (uint64_t)(hi - lo + 1)); }

/* ---- Models ---- */

struct size {
	int64_t B, G, R, D, E;
};

static struct size drawn_size(void) { return (struct size){ between(1, 3), between(1, 3), between(1, 2), 2 * between(1, 3), between(1, 5) }; }

static bool in_float(enum target t) { return t == TARGET_ONNX || t == TARGET_ORT; }

/* One attention of that size, causal unless it is an image's, with a mask of keys when masked. */
static struct linnet_model *model_of(struct size n, enum dtype dt, bool masked, bool image)
{
	const char *type = dt == DT_DOUBLE ? "double" : "float";
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char text[600], line[800], tokens[8] = "T";

	if (image)
		snprintf(tokens, sizeof tokens, "9");
	snprintf(text, sizeof text,
	         "<ir_version: 10, opset_import: [\"\": 24]>\n"
	         "g (%s[B,%d,%s,%d] q, %s[B,%d,%s,%d] k, %s[B,%d,%s,%d] v%s) => (%s[B,%d,%s,%d] y)\n"
	         "{ y = Attention <is_causal = %d, scale = 0.5> (q, k, v%s) }",
	         type, (int)(n.G * n.R), tokens, (int)n.D, type, (int)n.G, tokens, (int)n.D, type, (int)n.G, tokens, (int)n.E,
	         masked ? ", bool[B,1,1,T] m" : "", type, (int)(n.G * n.R), tokens, (int)n.E, !image, masked ? ", m" : "");
	if (!m || text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s\nin\n%s", linnet_error_line(&e, line, sizeof line), text);
	return m;
}

/* The mechanism's parameters, by name, as they are when nothing is neutral; of those that are not drawn here nobody knows. */
static const char *const moved[] = { "q_w", "k_w", "o_w", "q_conv", "k_conv", "v_conv", "gate_w", "gate_b", "gate_w1", "gate_w2", "beta_w", "beta_b",
	                             "window_gate", "far_gate", "mix", "q_b", "k_b", "v_image" };

/* The same numbers for the same name, whatever the target; floats hold them exactly once they are rounded to eighths of what they were. */
static void move_params(const struct linnet_model *m)
{
	const struct graph *g = m->graph;

	for (value_id v = 1; v < g->nvalue; v++)
		for (size_t i = 0; i < sizeof moved / sizeof *moved; i++)
			if (g->value[v].kind == VALUE_CONST && !strncmp(g->value[v].name, "0.", 2) && !strcmp(g->value[v].name + 2, moved[i])) {
				struct tensor *t = (struct tensor *)(uintptr_t)g->value[v].type.value;
				struct rng r = { i + 7 };

				for (int64_t k = 0; k < t->n; k++)
					tensor_put(t, k, (double)(float)(tensor_get(t, k) / 2 + rng_unit(&r) - 0.5));
			}
}

static int forms_made; /* by the test that runs */

/* One form of a mechanism. */
struct form {
	struct linnet_model *m;
	enum target target;
	enum dtype dt;
};

struct wish {
	const struct mechanism *mechanism;
	struct convert_opt opt;
	struct size n;
	bool masked, neutral; /* neutral: parameters stay as they are at first */
};

/* *f is of no model when the target does not say it, which has to have a reason. */
static bool made(const struct wish *w, enum target target, struct form *f)
{
	struct convert_opt opt = w->opt;
	struct linnet_error e = { 0 };
	struct convert_report r;
	char line[800];

	f->target = target;
	f->dt = in_float(target) ? DT_FLOAT : DT_DOUBLE;
	f->m = model_of(w->n, f->dt, w->masked, w->mechanism->image);
	opt.mechanism = w->mechanism;
	opt.target = target;
	if (convert_model(f->m, &opt, &r, &e) && e.code != LINNET_EUNSUPPORTED)
		fail_msg("%s, %s: %s", w->mechanism->name, target_names[target], linnet_error_line(&e, line, sizeof line));
	if (e.code || !r.nconverted) {
		assert_true(e.code || r.item[0].reason);
		model_free(f->m);
		return false;
	}
	if (!w->neutral)
		move_params(f->m);
	forms_made++;
	return true;
}

/* ---- Inputs, outputs ---- */

struct inputs {
	struct tensor *q, *k, *v, *m; /* of double; m: bool [B, 1, 1, L], or NULL */
};

static struct tensor *drawn(struct arena *a, int64_t B, int64_t heads, int64_t L, int64_t width)
{
	struct tensor *t;

	assert_false(tensor_new(a, DT_DOUBLE, 4, (int64_t[]){ B, heads, L, width }, &t, NULL));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(t, i, (double)(float)(3 * rng_unit(&rng) - 1.5));
	return t;
}

static struct inputs drawn_inputs(struct arena *a, struct size n, int64_t L)
{
	return (struct inputs){ drawn(a, n.B, n.G * n.R, L, n.D), drawn(a, n.B, n.G, L, n.D), drawn(a, n.B, n.G, L, n.E), NULL };
}

/* Element k of tokens [from, to) of x [B, heads, T, width] is this one of x. */
static int64_t place(const struct tensor *x, int64_t from, int64_t to, int64_t k)
{
	int64_t width = x->d[3], n = to - from;

	return (k / width / n * x->d[2] + from + k / width % n) * width + k % width;
}

/* Tokens [from, to) as dt; of a mask, its last axis. */
static struct tensor *piece(struct arena *a, const struct tensor *x, int64_t from, int64_t to, enum dtype dt)
{
	struct tensor *t;
	bool mask = x->dt == DT_BOOL;

	assert_false(tensor_new(a, dt, 4, (int64_t[]){ x->d[0], x->d[1], mask ? 1 : to - from, mask ? to - from : x->d[3] }, &t, NULL));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(t, i, tensor_get(x, mask ? i / (to - from) * x->d[3] + from + i % (to - from) : place(x, from, to, i)));
	return t;
}

/* x with all numbers of tokens [from, L) set to one. */
static struct tensor *changed(struct arena *a, const struct tensor *x, int64_t from, double to)
{
	struct tensor *t = piece(a, x, 0, x->d[2], x->dt);

	for (int64_t i = 0; i < t->n; i++)
		if (i / x->d[3] % x->d[2] >= from)
			tensor_put(t, i, to);
	return t;
}

/* Its output for these inputs, given in pieces that end at cut[0], cut[1] ... and L, in one piece where it has no states; as double [B, H, L, E]. */
static struct tensor *run(struct arena *a, const struct form *f, struct inputs x, const int64_t *cut, int ncut, enum kernels kernels)
{
	int64_t L = x.q->d[2], from = 0;
	const struct run_opt opt = { .kernels = kernels, .threads = 1 };
	const struct graph *g = f->m->graph;
	struct tensor *y, *out;
	struct linnet_error e = { 0 };
	struct session *s;
	char line[800];

	assert_false(tensor_new(a, DT_DOUBLE, 4, (int64_t[]){ x.q->d[0], x.q->d[1], L, x.v->d[3] }, &y, NULL));
	if (session_new(g, &opt, NULL, 0, &s, &e))
		fail_msg("%s", linnet_error_line(&e, line, sizeof line));
	for (int i = 0; i <= ncut; i++) {
		int64_t to = i < ncut ? cut[i] : L;
		const struct tensor *in[4];
		int n = 0;

		for (uint32_t k = 0; k < g->nin; k++) {
			const char *name = g->value[g->in[k]].name;

			if (strlen(name) == 1)
				in[n++] = piece(a, *name == 'q' ? x.q : *name == 'k' ? x.k : *name == 'v' ? x.v : x.m, from, to,
				                *name == 'm' ? DT_BOOL : f->dt);
		}
		if (session_run(s, in, &out, &e))
			fail_msg("%s: %s", target_names[f->target], linnet_error_line(&e, line, sizeof line));
		assert_int_equal(out->n, x.q->d[0] * x.q->d[1] * (to - from) * x.v->d[3]);
		for (int64_t k = 0; k < out->n; k++)
			tensor_put(y, place(y, from, to, k), tensor_get(out, k));
		tensor_release(out);
		from = to;
	}
	session_free(s);
	return y;
}

static struct tensor *run_whole(struct arena *a, const struct form *f, struct inputs x) { return run(a, f, x, NULL, 0, KERNELS_REFERENCE); }

static struct tensor *run_steps(struct arena *a, const struct form *f, struct inputs x)
{
	int64_t cut[64];
	int n = 0;

	for (int64_t t = 1; t < x.q->d[2]; t++)
		cut[n++] = t;
	return run(a, f, x, cut, n, KERNELS_REFERENCE);
}

/* The largest difference in tokens [from, to), relative to numbers above 1; NaN is as far as can be. */
static double apart(const struct tensor *x, const struct tensor *y, int64_t from, int64_t to)
{
	double most = 0;

	assert_int_equal(x->n, y->n);
	for (int64_t i = 0; i < x->n; i++) {
		int64_t t = i / x->d[3] % x->d[2];
		double d = fabs(tensor_get(x, i) - tensor_get(y, i)) / fmax(1, fabs(tensor_get(x, i)));

		if (t >= from && t < to && !(d <= most))
			most = isnan(d) ? INFINITY : d;
	}
	return most;
}

static double bound(const struct form *f) { return f->dt == DT_DOUBLE ? 1e-9 : 2e-3; }

static void close_enough(const struct wish *w, const struct form *f, const struct tensor *x, const struct tensor *y, int64_t from, const char *what)
{
	double d = apart(x, y, from, x->d[2]);

	if (!(d <= bound(f)))
		fail_msg("%s%s, %s, B %d, G %d, R %d, D %d, E %d, %d tokens, chunk %d, window %d: %s: %g apart", w->mechanism->name, w->masked ? ", masked" : "",
		         target_names[f->target], (int)w->n.B, (int)w->n.G, (int)w->n.R, (int)w->n.D, (int)w->n.E, (int)x->d[2], w->opt.chunk, w->opt.window,
		         what, d);
}

/* ---- Every mechanism, alone and beside a window ---- */

typedef void property(struct wish w);

static bool softmax_alone(const struct mechanism *m) { return !strcmp(m->name, "window") || !strcmp(m->name, "diag"); }

/* least: so many forms are looked at, lest refusals hide them all. Each is drawn by its name, whatever others there are. */
static void each_mechanism(property *p, int times, int least)
{
	uint64_t seed = rng.state;
	const struct mechanism *m;

	forms_made = 0;
	for (int i = 0; (m = mechanism_at(i)); i++) {
		rng.state = seed;
		for (const char *c = m->name; *c; c++)
			rng.state = rng.state * 31 + (uint64_t)*c;
		for (int k = 0; k < times; k++)
			for (int beside = 0; beside < 2; beside++) {
				struct wish w = { .mechanism = m, .n = drawn_size() };

				if (beside && (m->window || m->image || m->positions))
					continue; /* that is how it is, or it is refused */
				w.opt.window = beside || m->window ? (int)between(1, 6) : 0;
				w.opt.sinks = m->terraced || (w.opt.window && m->build && !beside) ? 0 : w.opt.window ? (int)between(0, 2) : 0;
				w.opt.chunk = (int)between(1, 9);
				p(w);
			}
	}
	if (forms_made < least)
		fail_msg("%d forms; expected %d", forms_made, least);
}

/* parallel = chunked = recurrent = step by step; whatever the chunk is long; cut anywhere. */
static void says_the_same(struct wish w)
{
	struct arena *a = arena_new();
	struct inputs x = drawn_inputs(a, w.n, w.mechanism->image ? 9 : between(1, 20));
	int64_t L = x.q->d[2], cut[3] = { between(0, L), 0, 0 };
	struct tensor *y = NULL;
	struct form f;
	int n = 0;

	cut[1] = between(cut[0], L);
	cut[2] = between(cut[1], L);
	if (made(&w, w.mechanism->image ? TARGET_PORTABLE : TARGET_STEP, &f)) {
		y = w.mechanism->image ? run_whole(a, &f, x) : run_steps(a, &f, x);
		for (int64_t at = 0; at <= L && target_has_states(f.target); at++)
			close_enough(&w, &f, y, run(a, &f, x, &at, 1, KERNELS_REFERENCE), 0, "cut in two");
		model_free(f.m);
	}
	assert_non_null(y);
	for (enum target t = 0; t < NTARGET; t++)
		for (int chunk = 1; chunk <= 25; chunk += t == TARGET_PORTABLE || t == TARGET_CHUNK ? 8 : 25) {
			w.opt.chunk = chunk;
			if (!made(&w, t, &f))
				continue;
			n++;
			close_enough(&w, &f, y, run_whole(a, &f, x), 0, "not as step by step");
			if (in_float(t))
				close_enough(&w, &f, y, run(a, &f, x, NULL, 0, KERNELS_FAST), 0, "by fast kernels, not as step by step");
			if (target_has_states(t))
				close_enough(&w, &f, y, run(a, &f, x, cut, 3, KERNELS_REFERENCE), 0, "in pieces, not as step by step");
			model_free(f.m);
		}
	assert_true(n >= (w.mechanism->image ? 6 : w.mechanism->corrects ? 11 : 12));
	arena_free(a);
}

static void all_forms_say_the_same(void **state)
{
	(void)state;
	rng.state = 1;
	each_mechanism(says_the_same, 3, 2000);
}

/* Outputs up to t keep their bits whatever comes behind, and change with t. NaN where no product with 0 takes it in. */
static void looks_back(struct wish w)
{
	struct arena *a = arena_new();
	struct inputs x = drawn_inputs(a, w.n, 12), z = x;
	int64_t t = between(0, 10);
	struct form f;

	for (enum target target = 0; target < NTARGET && !w.mechanism->image; target++) {
		bool clean = in_float(target) && !w.opt.window && !strstr(w.mechanism->name, "gsa") && !w.mechanism->window;
		struct tensor *y, *other;

		if (!made(&w, target, &f))
			continue;
		y = run_whole(a, &f, x);
		for (int nan = 0; nan < 2; nan++) {
			z.q = changed(a, x.q, t + 1, nan && clean ? NAN : 1e3);
			z.k = changed(a, x.k, t + 1, nan && clean ? NAN : -1e3);
			z.v = changed(a, x.v, t + 1, nan && clean ? NAN : 1e30);
			other = run_whole(a, &f, z);
			if (apart(y, other, 0, t + 1) != 0)
				fail_msg("%s, %s: what comes behind token %d moves it by %g", w.mechanism->name, target_names[target], (int)t,
				         apart(y, other, 0, t + 1));
		}
		z = x;
		z.v = changed(a, x.v, t, 7);
		if (!(apart(y, run_whole(a, &f, z), t, t + 1) > 1e-6) && !w.mechanism->may_vanish && w.mechanism->normaliser == NORM_RATIO)
			fail_msg("%s, %s: token %d does not look at itself", w.mechanism->name, target_names[target], (int)t);
		model_free(f.m);
	}
	arena_free(a);
}

static void later_tokens_do_not_matter(void **state)
{
	(void)state;
	rng.state = 2;
	each_mechanism(looks_back, 1, 300);
}

/* Rows of the batch, and query heads of one key head, come out as they went in. Parameters of query heads are alike at first. */
static void permutes(struct wish w)
{
	static const enum target targets[] = { TARGET_ONNX, TARGET_PORTABLE, TARGET_QUADRATIC, TARGET_STEP };
	struct arena *a = arena_new();
	struct inputs x, z;
	struct form f;

	w.n.R = 2;
	w.neutral = true;
	if (w.mechanism->per_query)
		w.opt.heads = "key";
	x = drawn_inputs(a, w.n, 9);
	z = (struct inputs){ piece(a, x.q, 0, 9, DT_DOUBLE), piece(a, x.k, 0, 9, DT_DOUBLE), piece(a, x.v, 0, 9, DT_DOUBLE), NULL };
	for (int64_t i = 0; i < x.q->n; i++) { /* batch in reverse, the two heads of each group swapped */
		int64_t each = 9 * w.n.D, h = i / each % (w.n.G * 2), b = i / each / (w.n.G * 2);

		tensor_put(z.q, (((w.n.B - 1 - b) * w.n.G * 2 + (h ^ 1)) * each) + i % each, tensor_get(x.q, i));
	}
	for (int side = 0; side < 2; side++) {
		const struct tensor *from = side ? x.v : x.k;
		int64_t each = from->n / w.n.B;

		for (int64_t i = 0; i < from->n; i++)
			tensor_put(side ? z.v : z.k, (w.n.B - 1 - i / each) * each + i % each, tensor_get(from, i));
	}
	for (size_t k = 0; k < sizeof targets / sizeof *targets && strcmp(w.mechanism->name, "supra"); k++) {
		struct tensor *y, *other, *back;

		if (!made(&w, targets[k], &f))
			continue;
		y = run_whole(a, &f, x);
		other = run_whole(a, &f, z);
		assert_false(tensor_new(a, DT_DOUBLE, 4, y->d, &back, NULL));
		for (int64_t i = 0; i < y->n; i++) {
			int64_t each = 9 * w.n.E, h = i / each % (w.n.G * 2), b = i / each / (w.n.G * 2);

			tensor_put(back, i, tensor_get(other, ((w.n.B - 1 - b) * w.n.G * 2 + (h ^ 1)) * each + i % each));
		}
		close_enough(&w, &f, y, back, 0, "permuted");
		model_free(f.m);
	}
	arena_free(a);
}

static void heads_and_batch_permute(void **state)
{
	(void)state;
	rng.state = 3;
	each_mechanism(permutes, 1, 200);
}

/* Hidden tokens may hold anything, and a sequence behind hidden ones is that sequence. Short convolutions of queries do look at them. */
static void hides(struct wish w)
{
	static const enum target targets[] = { TARGET_ONNX, TARGET_ORT, TARGET_PORTABLE, TARGET_QUADRATIC, TARGET_STEP, TARGET_CHUNK };
	enum { PAD = 5, SHORT = 8, ALL = PAD + SHORT };
	struct arena *a = arena_new();
	struct inputs x, z;
	struct wish bare;
	struct form f;
	bool blocks = !strcmp(w.mechanism->name, "diag") || w.mechanism->terraced;

	if (w.mechanism->image)
		return arena_free(a);
	w.masked = true;
	w.opt.conv = 1;
	w.opt.sinks = 0;
	x = drawn_inputs(a, w.n, ALL);
	assert_false(tensor_new(a, DT_BOOL, 4, (int64_t[]){ w.n.B, 1, 1, ALL }, &x.m, NULL));
	for (int64_t i = 0; i < x.m->n; i++)
		tensor_put(x.m, i, i % ALL >= PAD);
	z = x;
	z.q = drawn(a, w.n.B, w.n.G * w.n.R, ALL, w.n.D);
	z.k = drawn(a, w.n.B, w.n.G, ALL, w.n.D);
	z.v = drawn(a, w.n.B, w.n.G, ALL, w.n.E);
	for (int64_t i = 0; i < z.k->n; i++)
		tensor_put(z.k, i, i / w.n.D % ALL < PAD ? 1e3 * tensor_get(z.k, i) : tensor_get(x.k, i));
	for (int64_t i = 0; i < z.q->n; i++)
		tensor_put(z.q, i, i / w.n.D % ALL < PAD ? 1e3 * tensor_get(z.q, i) : tensor_get(x.q, i));
	for (int64_t i = 0; i < z.v->n; i++)
		tensor_put(z.v, i, i / w.n.E % ALL < PAD ? 1e30 : tensor_get(x.v, i));
	bare = w;
	bare.masked = false;
	for (size_t k = 0; k < sizeof targets / sizeof *targets; k++) {
		struct tensor *y, *short_y;
		struct inputs tail = { piece(a, x.q, PAD, ALL, DT_DOUBLE), piece(a, x.k, PAD, ALL, DT_DOUBLE), piece(a, x.v, PAD, ALL, DT_DOUBLE), NULL };

		if (!made(&w, targets[k], &f))
			continue;
		y = run_whole(a, &f, x);
		close_enough(&w, &f, y, run_whole(a, &f, z), PAD, "hidden tokens changed");
		model_free(f.m);
		if (blocks || !made(&bare, targets[k], &f))
			continue;
		short_y = run_whole(a, &f, tail);
		close_enough(&w, &f, piece(a, y, PAD, ALL, DT_DOUBLE), short_y, 0, "behind hidden tokens");
		model_free(f.m);
	}
	arena_free(a);
}

static void hidden_tokens_do_not_matter(void **state)
{
	(void)state;
	rng.state = 4;
	each_mechanism(hides, 1, 600);
}

/* Linear in the values; weights that are divided by their sum make 1 of 1. What is brought to a root mean square of 1 is neither. */
static void weighs(struct wish w)
{
	struct arena *a = arena_new();
	struct inputs x = drawn_inputs(a, w.n, w.mechanism->image ? 9 : 11), p = x, s = x, one = x;
	bool sums = (w.mechanism->normaliser == NORM_RATIO && !w.mechanism->build) || softmax_alone(w.mechanism);
	struct form f;

	p.v = drawn(a, w.n.B, w.n.G, x.q->d[2], w.n.E);
	s.v = piece(a, x.v, 0, x.q->d[2], DT_DOUBLE);
	for (int64_t i = 0; i < s.v->n; i++)
		tensor_put(s.v, i, 2 * tensor_get(x.v, i) - 3 * tensor_get(p.v, i));
	one.v = changed(a, x.v, 0, 1);
	if ((w.mechanism->normaliser != NORM_RMS && w.mechanism->normaliser != NORM_GROUP) && made(&w, TARGET_PORTABLE, &f)) {
		struct tensor *y = run_whole(a, &f, x), *other = run_whole(a, &f, p), *both = run_whole(a, &f, s);

		for (int64_t i = 0; i < y->n; i++)
			tensor_put(y, i, 2 * tensor_get(y, i) - 3 * tensor_get(other, i));
		close_enough(&w, &f, both, y, 0, "not linear in the values");
		if (sums && !w.mechanism->image) {
			y = run_whole(a, &f, one);
			for (int64_t i = 0; i < y->n; i++)
				if (!(tensor_get(y, i) <= 1 + 1e-9 && (tensor_get(y, i) >= 1 - 1e-9 || w.mechanism->may_vanish)))
					fail_msg("%s: weights add up to %g", w.mechanism->name, tensor_get(y, i));
		}
		model_free(f.m);
	}
	arena_free(a);
}

static void outputs_are_linear_in_values(void **state)
{
	(void)state;
	rng.state = 5;
	each_mechanism(weighs, 2, 70);
}

/* A gate that leaves everything is none: the gated rule at decay 0 is the linear one. */
static void keeps_all(struct wish w)
{
	struct arena *a = arena_new();
	struct inputs x = drawn_inputs(a, w.n, 14);
	struct form f;

	for (enum target t = 0; t < NTARGET && !w.mechanism->build && !w.mechanism->image && !w.opt.window; t++) {
		struct tensor *y[2];
		bool both = true;

		for (int gated = 0; gated < 2 && both; gated++) {
			w.opt.fade = gated ? "1" : "none";
			w.opt.decay = gated;
			both = made(&w, t, &f);
			if (!both)
				continue;
			y[gated] = run_whole(a, &f, x);
			if (gated)
				close_enough(&w, &f, y[0], y[1], 0, "a gate that leaves everything");
			model_free(f.m);
		}
	}
	arena_free(a);
}

static void open_gates_are_none(void **state)
{
	(void)state;
	rng.state = 6;
	each_mechanism(keeps_all, 1, 200);
}

/* States kept in half precision: each step rounds what there is to a unit. */
static void halves(struct wish w)
{
	enum { STEPS = 24 };
	static const struct {
		enum dtype dt;
		double unit;
	} half[] = { { DT_FLOAT16, 0x1p-11 }, { DT_BFLOAT16, 0x1p-8 } };
	struct arena *a = arena_new();
	struct inputs x = drawn_inputs(a, w.n, STEPS);
	struct tensor *y;
	struct form f;

	if (w.mechanism->image)
		return arena_free(a);
	assert_true(made(&w, TARGET_STEP, &f));
	y = run_steps(a, &f, x);
	model_free(f.m);
	for (size_t i = 0; i < 2; i++) {
		double off = 0, all = 0;
		struct tensor *z;

		w.opt.state = half[i].dt;
		assert_true(made(&w, TARGET_STEP, &f));
		z = run_steps(a, &f, x);
		for (int64_t k = 0; k < y->n; k++) {
			off += pow(tensor_get(y, k) - tensor_get(z, k), 2);
			all += pow(tensor_get(y, k), 2);
		}
		/* roundings add up at random in most rows and at worst T times in one; signed sums lose some digits more */
		if (!(sqrt(off / all) < STEPS * half[i].unit) || (off == 0 && w.opt.window != 1))
			fail_msg("%s, window %d: states of %s cost %g", w.mechanism->name, w.opt.window, dtype_name(half[i].dt), sqrt(off / all));
		model_free(f.m);
	}
	arena_free(a);
}

static void states_may_be_halves(void **state)
{
	(void)state;
	rng.state = 7;
	each_mechanism(halves, 1, 160);
}

/* ---- The operator's rules ---- */

static struct tensor *attended(struct arena *a, const char *rule, const struct tensor *const *in, int64_t heads)
{
	const struct op *op = op_newest(NULL, "LinearAttention");
	struct attr given[] = { { .name = "q_num_heads", .kind = ATTR_INT, .i = heads }, { .name = "kv_num_heads", .kind = ATTR_INT, .i = heads },
		                { .name = "update_rule", .kind = ATTR_STRING, .s = { rule, strlen(rule) } }, { .name = "scale", .kind = ATTR_FLOAT, .f = 1 } };
	struct linnet_error e = { 0 };
	struct tensor *out[2];
	struct attr *attr;

	assert_false(op_attrs(op, given, 4, a, &attr, &e));
	if (op_eval(op, attr, 6, in, 2, (const bool[]){ true, true }, a, out, &e))
		fail_msg("%s", e.message);
	return out[0];
}

/* Under orthonormal keys the delta rule at beta 1 takes nothing away: it is the linear rule, and queries by keys read the values back. */
static void orthonormal_keys_are_linear(void **state)
{
	(void)state;
	rng.state = 8;
	for (int trial = 0; trial < 8; trial++) {
		enum { MOST = 8 };
		int64_t D = between(1, MOST), L = between(1, D), E = between(1, 5);
		double key[MOST][MOST];
		struct arena *a = arena_new();
		struct tensor *q, *k, *v, *beta, *linear, *delta, *back;

		for (int64_t i = 0; i < D; i++) { /* Gram and Schmidt */
			double length = 0;

			for (int64_t c = 0; c < D; c++)
				key[i][c] = 2 * rng_unit(&rng) - 1;
			for (int64_t j = 0; j < 2 * i; j++) {
				double dot = 0;

				for (int64_t c = 0; c < D; c++)
					dot += key[i][c] * key[j % i][c];
				for (int64_t c = 0; c < D; c++)
					key[i][c] -= dot * key[j % i][c];
			}
			for (int64_t c = 0; c < D; c++)
				length += key[i][c] * key[i][c];
			for (int64_t c = 0; c < D; c++)
				key[i][c] /= sqrt(length);
		}
		assert_false(tensor_new(a, DT_FLOAT, 3, (int64_t[]){ 1, L, D }, &q, NULL));
		assert_false(tensor_new(a, DT_FLOAT, 3, (int64_t[]){ 1, L, D }, &k, NULL));
		assert_false(tensor_new(a, DT_FLOAT, 3, (int64_t[]){ 1, L, E }, &v, NULL));
		assert_false(tensor_new(a, DT_FLOAT, 3, (int64_t[]){ 1, L, 1 }, &beta, NULL));
		for (int64_t i = 0; i < L * D; i++) {
			tensor_put(k, i, key[i / D][i % D]);
			tensor_put(q, i, 2 * rng_unit(&rng) - 1);
		}
		for (int64_t i = 0; i < L * E; i++)
			tensor_put(v, i, 2 * rng_unit(&rng) - 1);
		for (int64_t i = 0; i < L; i++)
			tensor_put(beta, i, 1);
		linear = attended(a, "linear", (const struct tensor *[]){ q, k, v, NULL, NULL, NULL }, 1);
		delta = attended(a, "delta", (const struct tensor *[]){ q, k, v, NULL, NULL, beta }, 1);
		back = attended(a, "delta", (const struct tensor *[]){ k, k, v, NULL, NULL, beta }, 1);
		for (int64_t i = 0; i < L * E; i++) {
			assert_true(fabs(tensor_get(linear, i) - tensor_get(delta, i)) < 2e-6);
			assert_true(fabs(tensor_get(back, i) - tensor_get(v, i)) < 2e-6);
		}
		arena_free(a);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_forms_say_the_same),
		cmocka_unit_test(later_tokens_do_not_matter),
		cmocka_unit_test(heads_and_batch_permute),
		cmocka_unit_test(hidden_tokens_do_not_matter),
		cmocka_unit_test(outputs_are_linear_in_values),
		cmocka_unit_test(open_gates_are_none),
		cmocka_unit_test(states_may_be_halves),
		cmocka_unit_test(orthonormal_keys_are_linear),
	};

	return cmocka_run_group_tests_name("oracles", tests, NULL, NULL);
}
