/* What the tests over drawn calls share: choosing rows, drawing with one seed a row, comparing, complaining. */
#ifndef LINNET_DRAWN_H
#define LINNET_DRAWN_H

#include "tests/unit/unit.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/base/str.h"
#include "runtime/runtime.h"
#include "validate/gen_op.h"

static char **only; /* operators asked for on the command line */
static int nonly, asked_cases;
static int complaints, row_complaints;
static char shortest[2000]; /* of the current row's complaints */
static struct rng draw_rng;

/* One complaint a row is printed, the shortest: it has the smallest call. */
static void __attribute__((format(printf, 1, 2))) complain(const char *fmt, ...)
{
	char text[sizeof shortest];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (!row_complaints++ || strlen(text) < strlen(shortest))
		memcpy(shortest, text, sizeof shortest);
	complaints++;
}

static inline void __attribute__((format(printf, 1, 2))) verbose(const char *fmt, ...)
{
	va_list ap;

	if (!nonly)
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static inline const char *row_title(const struct op *op)
{
	static char t[200];

	snprintf(t, sizeof t, "%s%s%s, version %d", op->domain ? op->domain : "", op->domain ? "." : "", op->name, op->since);
	return t;
}

/* A complaint with the call behind it. */
#define complain_of(c, a, fmt, ...) complain("%s: " fmt "\n%s", row_title((c)->op), __VA_ARGS__, call_text(c, a))

static void read_arguments(int argc, char **argv)
{
	only = argv + 1;
	nonly = argc - 1;
	if (nonly >= 2 && !strcmp(only[0], "-n")) {
		asked_cases = atoi(only[1]);
		only += 2;
		nonly -= 2;
	}
}

static inline int cases(int n) { return asked_cases ? asked_cases : n; }

static bool row_asked(const struct op *op)
{
	for (int i = 0; i < nonly; i++)
		if (!strcmp(only[i], op->name))
			return true;
	return !nonly;
}

/* Run the graph by reference kernels; in: of the graph's inputs, in order. */
static inline enum linnet_code run_graph(const struct graph *g, const struct tensor *const *in, struct tensor **out, struct linnet_error *e)
{
	struct run_opt opt = { .kernels = KERNELS_REFERENCE, .threads = 1 };
	struct plan *p;
	enum linnet_code code;

	TRY(plan_new(g, &opt, &p, e));
	code = plan_run(p, in, out, e);
	plan_free(p);
	return code;
}

/* Operators that a test leaves out, each with its reason; NULL ends the list. */
struct reason {
	const char *name, *why;
};

static inline bool listed(const struct op *op, const struct reason *r)
{
	for (; r->name; r++)
		if (!strcmp(r->name, op->name))
			return true;
	return false;
}

/* Every row's draws begin with its own seed, so that one row alone draws what it draws among all. */
static void each_row(void (*f)(const struct op *op))
{
	for (const struct op_family *const *g = op_families; *g; g++)
		for (int i = 0; i < (*g)->n; i++) {
			const struct op *op = &(*g)->op[i];

			if (!row_asked(op))
				continue;
			draw_rng.state = (uint64_t)op->since;
			for (const char *s = op->name; *s; s++)
				draw_rng.state = draw_rng.state * 31 + (unsigned char)*s;
			row_complaints = 0;
			f(op);
			if (row_complaints)
				print_error("%s\n(%d such)\n\n", shortest, row_complaints);
		}
}

struct draw_count {
	int tried, drawn, good; /* accepted by the shape function; executed by the reference kernel */
	struct linnet_error why; /* of the last one that was not good */
};

/* A drawn call and its outputs by the reference kernel; false when there is none this time. */
static inline bool draw_good(const struct op *op, const struct call_opt *opt, struct arena *a, struct call *c, struct tensor **want,
                      struct draw_count *n)
{
	struct linnet_error e = { 0 };

	n->tried++;
	if (gen_call(op, opt, &draw_rng, a, c, &e)) {
		n->why = e;
		return false;
	}
	n->drawn++;
	if (op_eval(op, c->attr, c->nin, c->in, c->nout, c->wanted, a, want, &e)) {
		n->why = e;
		return false;
	}
	n->good++;
	return true;
}

static inline void check_count(const struct op *op, const struct draw_count *n, int enough)
{
	if (n->good < enough)
		complain("%s: only %d good calls out of %d drawn: %s", row_title(op), n->good, n->tried, n->why.message);
}

/* ---- Comparing ---- */

/* Half the distance of neighbouring numbers about 1. */
static inline double unit_of(enum dtype dt)
{
	switch (dt) {
	case DT_DOUBLE: return 0x1p-53;
	case DT_FLOAT: return 0x1p-24;
	case DT_FLOAT16: return 0x1p-11;
	case DT_BFLOAT16: return 0x1p-8;
	default: return 0x1p-3;
	}
}

/* The largest finite magnitude among the elements, and whether there are infinite ones. */
static inline double magnitude(const struct tensor *t, bool *infinite)
{
	double m = 0;

	if (!t || t->kind != KIND_TENSOR || !dtype_in(t->dt, NUMBERS))
		return 0;
	for (int64_t i = 0; i < t->n; i++) {
		double x = fabs(tensor_get(t, i));

		m = isfinite(x) && x > m ? x : m;
		*infinite |= isinf(x) != 0;
	}
	return m;
}

/* The most terms a sum in the call may have: elements of an input. */
static inline double terms_of(const struct call *c)
{
	double n = 1;

	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && c->in[i]->kind == KIND_TENSOR && (double)c->in[i]->n > n)
			n = (double)c->in[i]->n;
	return n;
}

/* The unit of the coarsest floats in the call and out of it. */
static inline double coarsest(const struct call *c, const struct tensor *out)
{
	double unit = unit_of(DT_FLOAT); /* constants in bodies are floats */

	for (int i = -1; i < c->nin; i++) {
		const struct tensor *t = i < 0 ? out : c->in[i];

		if (t && t->kind == KIND_TENSOR && dtype_class(t->dt) == CLASS_FLOAT)
			unit = fmax(unit, unit_of(t->dt));
	}
	for (int i = 0; i < op_nattr(c->op); i++) /* the type that a part is computed in */
		if ((!strcmp(c->attr[i].name, "stash_type") || !strcmp(c->attr[i].name, "softmax_precision")) && c->attr[i].i)
			unit = fmax(unit, unit_of((enum dtype)c->attr[i].i));
	return unit;
}

/* How the two agree: as the row says; or rounded to the output's type at each step. */
enum leeway { AS_ROW, EACH_STEP };

static inline void compare_outputs(const struct call *c, struct arena *a, const char *how, int out, const struct tensor *got,
                                   const struct tensor *want, enum leeway leeway)
{
	bool rounded = leeway == EACH_STEP || c->op->agree == AGREE_ROUND;
	double step = leeway == EACH_STEP ? coarsest(c, want) : unit_of(want->dt == DT_DOUBLE ? DT_DOUBLE : DT_FLOAT);
	bool is_float = dtype_in(want->dt, FLOATS | FLOAT8S) || (dtype_class(want->dt) == CLASS_FLOAT);
	double bound = 0, scale = 1;
	bool infinite = false, overflows, alone = c->op->fuzz.shapes == FUZZ_SAME || c->op->fuzz.shapes == FUZZ_BROADCAST;

	if (got->kind != want->kind || got->dt != want->dt || got->n != want->n || got->rank != want->rank ||
	    (!want->kind && memcmp(got->d, want->d, sizeof *got->d * (size_t)want->rank))) {
		complain_of(c, a, "%s: output %d is of another type", how, out);
		return;
	}
	if (want->kind != KIND_TENSOR || want->dt == DT_STRING || dtype_class(want->dt) == CLASS_COMPLEX) {
		if (want->kind == KIND_TENSOR && want->dt == DT_STRING && !tensor_same(got, want))
			complain_of(c, a, "%s: output %d differs", how, out);
		return;
	}
	if (rounded) {
		/* each of n terms is rounded: n units of the largest term, which is a product of two elements */
		for (int i = 0; i < c->nin; i++)
			scale = fmax(scale, magnitude(c->in[i], &infinite));
		scale = fmax(scale * scale, magnitude(want, &infinite));
		bound = step * (64 + terms_of(c)) * scale;
		if (c->op->fuzz.shapes == FUZZ_STEPS) /* what a step carries on is rounded again and again */
			bound *= (double)(c->in[0]->d[0] + c->in[0]->d[1]);
	}
	/* perhaps, on the way, in float: then what is not finite depends on the order of terms */
	overflows = rounded && (scale * terms_of(c) > FLT_MAX || (infinite && !alone));
	for (int64_t i = 0; i < want->n; i++) {
		double x = tensor_get(got, i), y = tensor_get(want, i), near;

		if (!is_float) {
			int64_t p = tensor_get_int(got, i), q = tensor_get_int(want, i);

			if (p == q || (rounded && fabs((double)p - (double)q) <= 1))
				continue;
			complain_of(c, a, "%s: output %d[%lld] is %lld, the reference kernel gives %lld", how, out, (long long)i, (long long)p,
			            (long long)q);
			return;
		}
		if ((isnan(x) && isnan(y)) || (x == y && (rounded || signbit(x) == signbit(y))))
			continue;
		if (overflows && (!isfinite(x) || !isfinite(y)))
			continue;
		near = bound + (rounded ? 8 * unit_of(want->dt) * fabs(y) + 1e-37 : 0);
		if (isfinite(x) && isfinite(y) && fabs(x - y) <= near)
			continue;
		complain_of(c, a, "%s: output %d[%lld] is %.17g, the reference kernel gives %.17g (bound %g)", how, out, (long long)i, x, y, near);
		return;
	}
}

#endif
