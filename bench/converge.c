/*
 * How fast approximations of softmax attention become it: favor with the number m of its directions, as 1 / sqrt(m), and taylor with its degree p, at
 * least as fast as the remainder of the exponential's series. One drawn attention, computed in double by reference kernels.
 *
 *   converge [DOCS]
 *
 * Prints the tables in Markdown; DOCS: draws favor.svg and taylor.svg there. Exit status 1 when a rate is not that of theory.
 */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cli/page.h"
#include "converter/convert.h"
#include "ops/base/rng.h"
#include "runtime/runtime.h"

enum { HEADS = 4, TOKENS = 32, WIDTH = 4, MOST = 12, SEEDS = 16, ASYMPTOTIC = 128 /* directions */ };

/* softmax(SCALE q k^T) v, all numbers drawn from [-1, 1). */
#define SCALE 0.25

struct source {
	const struct tensor *in[3];
	struct tensor *softmax;
	double largest; /* |logit| */
};

struct point {
	double x, rms, most, bound; /* errors of outputs: root mean square over that of the outputs, largest; what theory says */
};

static enum linnet_code parse(struct linnet_model **out, struct linnet_error *e)
{
	char text[400];

	snprintf(text, sizeof text,
	         "<ir_version: 10, opset_import: [\"\" : 23]>\ng (double[1,%d,%d,%d] q, double[1,%d,%d,%d] k, double[1,%d,%d,%d] v) => (y) {\n"
	         "y = Attention <scale = %g> (q, k, v) }",
	         HEADS, TOKENS, WIDTH, HEADS, TOKENS, WIDTH, HEADS, TOKENS, WIDTH, SCALE);
	*out = model_new(NULL, e);
	if (!*out)
		return e->code;
	TRY(text_parse(*out, text, strlen(text), e));
	return graph_import(*out, e);
}

static enum linnet_code run(const struct linnet_model *m, const struct tensor *const *in, struct tensor **y, struct linnet_error *e)
{
	struct run_opt opt = { .kernels = KERNELS_REFERENCE, .threads = 1 };
	struct plan *p;
	enum linnet_code code;

	TRY(plan_new(m->graph, &opt, &p, e));
	code = plan_run(p, in, y, e);
	plan_free(p);
	return code;
}

/* Tensors live in the arena, but for the outputs. */
static enum linnet_code draw(struct arena *a, struct source *s, struct linnet_error *e)
{
	struct rng r = { 1 };
	struct linnet_model *m;
	enum linnet_code code;

	*s = (struct source){ .largest = 0 };
	for (int i = 0; i < 3; i++) {
		struct tensor *t;

		TRY(tensor_new(a, DT_DOUBLE, 4, (const int64_t[]){ 1, HEADS, TOKENS, WIDTH }, &t, e));
		for (int64_t k = 0; k < t->n; k++)
			tensor_put(t, k, 2 * rng_unit(&r) - 1);
		s->in[i] = t;
	}
	for (int64_t i = 0; i < HEADS * TOKENS; i++)
		for (int64_t j = i / TOKENS * TOKENS; j < (i / TOKENS + 1) * TOKENS; j++) {
			double logit = 0;

			for (int64_t c = 0; c < WIDTH; c++)
				logit += SCALE * tensor_get(s->in[0], i * WIDTH + c) * tensor_get(s->in[1], j * WIDTH + c);
			s->largest = fmax(s->largest, fabs(logit));
		}
	code = parse(&m, e);
	if (!code)
		code = run(m, s->in, &s->softmax, e);
	model_free(m);
	return code;
}

/* The errors of one conversion are added: squares to p->rms, the largest to p->most. */
static enum linnet_code add_errors(const struct source *s, const struct convert_opt *opt, struct point *p, struct linnet_error *e)
{
	struct convert_report report;
	struct linnet_model *m;
	struct tensor *y = NULL;
	double se = 0, ss = 0;
	enum linnet_code code = parse(&m, e);

	if (!code)
		code = convert_model(m, opt, &report, e);
	if (!code && !report.nconverted)
		code = fail(e, LINNET_EINTERNAL, "%s", report.item[0].reason);
	if (!code)
		code = run(m, s->in, &y, e);
	for (int64_t i = 0; !code && i < y->n; i++) {
		double want = tensor_get(s->softmax, i), d = tensor_get(y, i) - want;

		se += d * d;
		ss += want * want;
		p->most = fmax(p->most, fabs(d));
	}
	p->rms += se / ss;
	tensor_release(y);
	model_free(m);
	return code;
}

static double factorial(double n) { return exp(lgamma(n + 1)); }

/* The slope of log y over log x, by least squares. */
static double slope(const struct point *p, int n)
{
	double x = 0, y = 0, xx = 0, xy = 0;

	for (int i = 0; i < n; i++) {
		double u = log(p[i].x), v = log(p[i].rms);

		x += u / n, y += v / n, xx += u * u / n, xy += u * v / n;
	}
	return (xy - x * y) / (xx - x * x);
}

/* Errors as points, bounds dashed, into DOCS/name.svg; nothing without DOCS. */
static enum linnet_code plot(const char *docs, const char *name, const char *title, const char *label, const struct point *p, int n, bool log, struct arena *a,
                             struct linnet_error *e)
{
	struct page_axis x = { INFINITY, -INFINITY, 80, 480, log }, y = { INFINITY, -INFINITY, 330, -280, true };
	struct str s;

	if (!docs)
		return LINNET_OK;
	str_init(&s, a);
	for (int i = 0; i < n; i++) {
		page_reach(&x, p[i].x);
		page_reach(&y, p[i].rms);
		page_reach(&y, p[i].bound);
	}
	page_drawing(&s, 600, 380, title);
	str_add(&s, "<text x=\"80\" y=\"24\">");
	page_text(&s, title, 100);
	str_add(&s, "</text>\n");
	page_axes(&s, &x, &y, label);
	str_add(&s, "<path class=\"h c1\" d=\"");
	for (int i = 0; i < n; i++)
		str_addf(&s, "%s%.1f %.1f", i ? "L" : "M", page_place(&x, p[i].x), page_place(&y, p[i].bound));
	str_add(&s, "\"/>\n");
	for (int i = 0; i < n; i++)
		str_addf(&s, "<circle class=\"d c0\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>%g: %.3g</title></circle>\n", page_place(&x, p[i].x), page_place(&y, p[i].rms),
		         p[i].x, p[i].rms);
	str_add(&s, "</svg>\n");
	return page_save(&s, arena_fmt(a, "%s/%s.svg", docs, name), e);
}

static const double *field(const struct point *p, size_t what) { return (const double *)((const char *)p + what); }

/* A row of a table: x, the errors, the largest ones or their bounds. */
static void print_row(const char *name, const struct point *p, int n, size_t what)
{
	printf("| %s |", name);
	for (int i = 0; i < n; i++)
		printf(*field(&p[i], what) < 1e3 ? " %.3g |" : " %.0f |", *field(&p[i], what));
	printf("\n");
}

static void print_head(const char *name, const struct point *p, int n)
{
	print_row(name, p, n, offsetof(struct point, x));
	printf("| --- |");
	for (int i = 0; i < n; i++)
		printf(" ---: |");
	printf("\n");
}

/* favor's error for m = 32, 64, ..., 4096, over several draws of its directions. */
static enum linnet_code favor(const struct source *s, const char *docs, struct arena *a, bool *holds, struct linnet_error *e)
{
	struct convert_opt opt = { .mechanism = mechanism_find("favor") };
	struct point p[MOST] = { 0 };
	int n = 0, few = 0;
	double rate;

	opt.target = TARGET_PORTABLE;
	for (int m = 32; m <= 4096; m *= 2, n++) {
		opt.features = m;
		p[n].x = m;
		for (opt.seed = 1; opt.seed <= SEEDS; opt.seed++)
			TRY(add_errors(s, &opt, &p[n], e));
		p[n].rms = sqrt(p[n].rms / SEEDS);
	}
	while (p[few].x < ASYMPTOTIC)
		few++;
	rate = slope(p + few, n - few);
	for (int i = 0; i < n; i++)
		p[i].bound = p[n - 1].rms * sqrt(p[n - 1].x / p[i].x);
	*holds = *holds && fabs(rate + 0.5) < 0.05;
	print_head("favor, m", p, n);
	print_row("error", p, n, offsetof(struct point, rms));
	printf("\nFitted from m = %d on: error ~ m^%.3f (theory: -1/2); %d draws of the directions.\n\n", ASYMPTOTIC, rate, SEEDS);
	return plot(docs, "favor", "favor: error of outputs by number of directions; dashed: 1 / sqrt(m)", "m", p, n, true, a, e);
}

/*
 * taylor's for degrees 2, 4, ..., 12. The weight of a logit s, |s| <= L, is off by at most r = e^L L^(p + 1) / (p + 1)!, Lagrange's remainder. An output is a mean of
 * values in [-1, 1] by weights of at least e^-L, so it is off by at most 2 r / (e^-L - r).
 */
static enum linnet_code taylor(const struct source *s, const char *docs, struct arena *a, bool *holds, struct linnet_error *e)
{
	struct convert_opt opt = { .mechanism = mechanism_find("taylor") };
	struct point p[MOST] = { 0 };
	int n = 0;

	opt.target = TARGET_PORTABLE;
	for (int degree = 2; degree <= 12; degree += 2, n++) {
		double r = exp(s->largest) * pow(s->largest, degree + 1) / factorial(degree + 1);

		opt.degree = degree;
		p[n].x = degree;
		p[n].bound = r < exp(-s->largest) ? 2 * r / (exp(-s->largest) - r) : INFINITY;
		TRY(add_errors(s, &opt, &p[n], e));
		p[n].rms = sqrt(p[n].rms);
		*holds = *holds && p[n].most <= p[n].bound && (!n || p[n].rms < p[n - 1].rms * s->largest * s->largest / (degree * (degree + 1)));
	}
	print_head("taylor, degree", p, n);
	print_row("error", p, n, offsetof(struct point, rms));
	print_row("largest", p, n, offsetof(struct point, most));
	print_row("the remainder allows", p, n, offsetof(struct point, bound));
	printf("\nLogits up to %.2f.\n", s->largest);
	return plot(docs, "taylor", "taylor: error of outputs by degree; dashed: what the remainder allows", "degree", p, n, false, a, e);
}

int main(int argc, char **argv)
{
	struct arena *a = arena_new();
	const char *docs = argc > 1 ? argv[1] : NULL;
	struct linnet_error e = { 0 };
	struct source s = { .softmax = NULL };
	bool holds = true;
	char line[900];

	if (!a || draw(a, &s, &e) || favor(&s, docs, a, &holds, &e) || taylor(&s, docs, a, &holds, &e))
		fprintf(stderr, "converge: %s\n", a ? linnet_error_line(&e, line, sizeof line) : "out of memory");
	tensor_release(s.softmax);
	arena_free(a);
	if (!holds)
		fputs("converge: a rate is not that of theory\n", stderr);
	return e.code || !a || !holds;
}
