/* Whether a conversion says the same in every target's words. */
#include "validate/agree.h"

#include <math.h>
#include <string.h>

#include "graph/rewrite.h"

/* One target's form of the conversion. */
struct form {
	enum target target;
	struct graph *g[2]; /* as it is, and in double */
	bool narrow;        /* some operator knows no double */
};

/* The weights of calibration in double. */
static enum linnet_code widen_given(struct convert_opt *opt, struct arena *a, struct linnet_error *e)
{
	struct named_tensor *wide;

	TRY_NEW(wide, a, (size_t)opt->ngiven);
	for (int i = 0; i < opt->ngiven; i++) {
		const struct tensor *t = opt->given[i].t;
		struct tensor *w;

		TRY(tensor_new(a, DT_DOUBLE, t->rank, t->d, &w, e));
		for (int64_t k = 0; k < t->n; k++)
			tensor_put(w, k, tensor_get(t, k));
		wide[i] = (struct named_tensor){ .name = opt->given[i].name, .t = w };
	}
	opt->given = wide;
	return LINNET_OK;
}

static void some_stays(void *ctx, const char *name, const char *op, const char *why)
{
	(void)name;
	(void)why;
	*(bool *)ctx |= *op != 0;
}

/* m converted for that target, computing in double when wide; *out stays NULL when the target cannot say all that is to be converted, or some node knows no double. */
static enum linnet_code convert_copy(const struct linnet_model *m, const struct convert_opt *opt, uint32_t converted, bool wide, struct arena *a,
                                     struct graph **out, struct linnet_error *e)
{
	bool kept = false;
	struct precision widen = { .from = SET(FLOAT) | SET(FLOAT16) | SET(BFLOAT16), .to = DT_DOUBLE, .faithful = true, .note = some_stays, .ctx = &kept };
	struct linnet_error told = { 0 };
	struct linnet_model copy = *m;
	struct convert_opt o = *opt;
	struct convert_report r = { 0 };
	enum linnet_code code;

	*out = NULL;
	copy.arena = a;
	TRY(graph_copy(m->graph, a, &copy.graph, e));
	code = wide ? graph_precision(copy.graph, &widen, &told) : LINNET_OK;
	if (!code && wide)
		code = widen_given(&o, a, &told);
	if (!code)
		code = convert_model(&copy, &o, &r, &told);
	if (code == LINNET_EMEM)
		return fail_mem(e);
	if (!code && !kept && r.nconverted == converted)
		*out = copy.graph;
	return LINNET_OK;
}

static enum linnet_code make_form(const struct linnet_model *m, const struct convert_opt *opt, uint32_t converted, struct agreement *all, struct arena *a,
                                  struct form *f, bool *made, struct linnet_error *e)
{
	struct convert_opt o = *opt;

	o.target = f->target;
	o.state = DT_UNDEFINED;
	o.strict = false;
	o.opset = 0;
	o.chunk = AGREE_CHUNK;
	if (all->window)
		o.window = all->window;
	TRY(convert_copy(m, &o, converted, false, a, &f->g[0], e));
	*made = f->g[0] != NULL;
	if (*made)
		TRY(convert_copy(m, &o, converted, true, a, &f->g[1], e));
	f->narrow = !f->g[1];
	return LINNET_OK;
}

/* The largest normalised mean square error of an output. */
static enum linnet_code apart(const struct graph *a, const struct graph *b, const struct agreement *all, struct arena *s, double *nmse, struct linnet_error *e)
{
	struct run_opt run = { .kernels = KERNELS_REFERENCE, .threads = 1 };
	struct side side[2] = { { (struct graph *)(uintptr_t)a, run }, { (struct graph *)(uintptr_t)b, run } };
	struct pair_opt opt = { .cases = 1, .seed = all->seed, .gen = { .length = all->tokens, .batch = 1 }, .tolerance = { .budget = INFINITY } };
	struct pair_report report = { 0 };

	*nmse = 0;
	TRY(pair_compare(&side[0], &side[1], &opt, s, &report, e));
	for (uint32_t i = 0; i < report.nout; i++) {
		const struct diff *d = &report.out[i];

		*nmse = d->typed_apart || d->nan_at >= 0 || d->inf_at >= 0 ? INFINITY : fmax(*nmse, diff_nmse(d));
	}
	return LINNET_OK;
}

/* Constants that a run works through, roughly. */
static double work(const struct graph *g)
{
	double n = 0;

	for (node_id id = 1; id < g->nnode; id++)
		for (uint32_t i = node_is(&g->node[id], "Gather"); !g->node[id].dead && i < g->node[id].nin; i++) {
			const struct value *v = &g->value[g->node[id].in[i]];

			if (g->node[id].in[i] && v->kind == VALUE_CONST && v->type.value)
				n += (double)v->type.value->n;
		}
	return n;
}

/*
 * Strided convolutions in front of the attention need longer sequences: all->tokens is doubled until the form runs, and twice more for several tokens behind them.
 * Whether it does; else the length is as it was.
 */
static bool lengthen(const struct graph *g, struct agreement *all, struct arena *s)
{
	struct linnet_error told = { 0 };
	double most = fmin(AGREE_MOST, AGREE_WORK / work(g) / 2), nmse;
	int64_t first = all->tokens;
	bool runs = false;

	for (int more = 3; more && 2 * (double)all->tokens <= most; more -= runs) {
		all->tokens *= 2;
		runs = runs || !apart(g, g, all, s, &nmse, &told);
	}
	if (!runs)
		all->tokens = first;
	return runs;
}

static enum linnet_code compare(const struct linnet_model *m, const struct convert_opt *opt, uint32_t converted, struct arena *s, struct agreement *out,
                                struct arena *keep, struct linnet_error *e)
{
	struct form base = { .target = TARGET_PORTABLE }, other[NTARGET];
	double narrow[NTARGET] = { 0 }, kappa = 1;
	bool made;
	int n = 0;

	TRY(make_form(m, opt, converted, out, s, &base, &made, e));
	if (!made) {
		out->skipped = "the portable form does not say it";
		return LINNET_OK;
	}
	for (enum target t = 0; t < NTARGET; t++) {
		struct agreement_pair *p = &out->pair[n];
		struct linnet_error told = { 0 };
		enum linnet_code code;

		if (t == TARGET_PORTABLE)
			continue;
		other[n] = (struct form){ .target = t };
		TRY(make_form(m, opt, converted, out, s, &other[n], &made, e));
		if (!made)
			continue;
		*p = (struct agreement_pair){ .target = t, .narrow = base.narrow || other[n].narrow };
		code = apart(base.g[0], other[n].g[0], out, s, &narrow[n], &told);
		if (code && code != LINNET_EMEM && !n && lengthen(base.g[0], out, s))
			code = apart(base.g[0], other[n].g[0], out, s, &narrow[n], &told);
		p->nmse = narrow[n];
		if (!code && !p->narrow)
			code = apart(base.g[1], other[n].g[1], out, s, &p->nmse, &told);
		if (code == LINNET_EMEM)
			return fail_mem(e);
		p->failed = code ? arena_str(keep, told.message) : NULL;
		if (!p->failed && !p->narrow && isfinite(narrow[n]))
			kappa = fmax(kappa, sqrt(narrow[n]) * 0x1p24);
		n++;
	}
	out->npair = n;
	out->condition = kappa;
	out->agree = n > 0;
	for (int i = 0; i < n; i++) {
		struct agreement_pair *p = &out->pair[i];
		double most = AGREE_SLACK * kappa * (p->narrow ? 0x1p-24 : 0x1p-53);

		p->bound = most * most;
		p->agrees = !p->failed && p->nmse <= p->bound;
		out->agree = out->agree && p->agrees;
	}
	return LINNET_OK;
}

enum linnet_code targets_agree(const struct linnet_model *m, const struct convert_opt *opt, uint32_t converted, struct arena *keep,
                               struct agreement *out, struct linnet_error *e)
{
	struct arena *s;
	enum linnet_code code;
	double numbers = work(m->graph);

	*out = (struct agreement){ .seed = opt->seed ? opt->seed : 1, .tokens = AGREE_TOKENS };
	if (numbers * 2 * AGREE_TOKENS > AGREE_WORK)
		out->tokens = (int64_t)(AGREE_WORK / numbers / 2);
	if ((opt->window ? opt->window : opt->mechanism->window) >= out->tokens)
		out->window = AGREE_WINDOW;
	if (!converted)
		out->skipped = "nothing was converted";
	else if (out->tokens < AGREE_LEAST)
		out->skipped = "the model is too large to be run several times";
	if (out->skipped)
		return LINNET_OK;
	s = arena_new();
	code = s ? compare(m, opt, converted, s, out, keep, e) : fail_mem(e);
	arena_free(s);
	return code;
}
