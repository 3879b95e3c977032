/* Running a recipe: its stages, their budgets, what they leave for the next. */
#include "calibrate/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/graphs.h"
#include "calibrate/measure.h"
#include "ops/base/clock.h"
#include "ops/op.h"
#include "train/data.h"
#include "validate/validate.h"

struct calibration {
	const struct linnet_model *m; /* without caches */
	const struct calibrate_opt *o; /* with a length and a batch */
	struct train_data *data, *held;
	struct tensor *tokens; /* held out; NULL: data is no stream */
	uint8_t *need;               /* which of them only recall predicts */
	struct arena *a;              /* the model's: results */
	struct arena *stage;          /* of one stage */
	struct named_tensor *weight;  /* so far */
	int nweight;
	uint32_t cap;
	int of;                       /* stages */
	double idle;                  /* share of the budget of stages that had nothing to train: the others' */
	struct calibrate_result *out;
	struct linnet_error *e;
};

/* ---- Weights ---- */

static enum linnet_code keep_weight(struct calibration *c, const char *name, const struct tensor *from)
{
	struct linnet_error *e = c->e;
	struct tensor *t;

	TRY(tensor_new(c->a, DT_FLOAT, from->rank, from->d, &t, e));
	memcpy(t->data, from->data, from->bytes);
	for (int i = 0; i < c->nweight; i++)
		if (!strcmp(c->weight[i].name, name)) {
			c->weight[i].t = t;
			return LINNET_OK;
		}
	c->weight = arena_grow(c->a, c->weight, (uint32_t)c->nweight, 1, &c->cap, sizeof *c->weight);
	if (!c->weight)
		return fail_mem(e);
	c->weight[c->nweight++] = (struct named_tensor){ arena_str(c->a, name), t };
	return c->weight[c->nweight - 1].name ? LINNET_OK : fail_mem(e);
}

static const struct tensor *constant(const struct graph *g, const char *name)
{
	uint32_t v;

	return map_get(&g->names, name, &v) && g->value[v].kind == VALUE_CONST ? g->value[v].type.value : NULL;
}

static enum linnet_code keep_named(struct calibration *c, const struct lesson *l, const struct names *list)
{
	for (int i = 0; i < list->n; i++)
		TRY(keep_weight(c, list->v[i], constant(l->model.graph, list->v[i])));
	return LINNET_OK;
}

/* W + s A B of each pair in the list. */
static enum linnet_code merge(struct calibration *c, const struct lesson *l, const struct names *low)
{
	struct linnet_error *e = c->e;

	for (int i = 0; i < low->n; i += 2) {
		const struct tensor *a = constant(l->model.graph, low->v[i]), *b = constant(l->model.graph, low->v[i + 1]);
		const char *name = low->v[i] + 2;
		const struct tensor *w = constant(l->model.graph, name);
		struct tensor *sum;

		TRY(tensor_new(c->stage, DT_FLOAT, w->rank, w->d, &sum, e));
		for (int64_t x = 0; x < w->d[0]; x++)
			for (int64_t y = 0; y < w->d[1]; y++) {
				double s = 0;

				for (int64_t k = 0; k < a->d[1]; k++)
					s += tensor_get(a, x * a->d[1] + k) * tensor_get(b, k * b->d[1] + y);
				tensor_put(sum, x * w->d[1] + y, tensor_get(w, x * w->d[1] + y) + LOW_RANK_SCALE * s);
			}
		TRY(keep_weight(c, name, sum));
	}
	return LINNET_OK;
}

/* ---- Measuring ---- */

/* Tokens that one measurement looks at; tokens of the training data that pairs are counted in. */
enum { MOST_TOKENS = 1 << 16, FEW_TOKENS = 1 << 12, MOST_KNOWN = 1 << 24 };

/* Held-out batches that distances are measured on, and samples of each. */
enum { BATCHES = 4, TOGETHER = 8 };

/* The length along that axis that the model's tokens have to have; 0: any. */
static int64_t fixed(const struct graph *g, int axis)
{
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct shape *s = &g->value[g->in[i]].type.shape;

		if (s->rank == 2 && dim_is_int(s->d[axis]))
			return s->d[axis];
	}
	return 0;
}

static int64_t together(const struct calibration *c) { return c->tokens && fixed(c->m->graph, 0) ? fixed(c->m->graph, 0) : TOGETHER; }

static const struct quality unknown = { NAN, NAN, 0, { NAN, NAN, NAN, NAN, NAN }, NAN, NAN };

/* The first tokens of a stream. */
static enum linnet_code tokens_of(const struct train_data *d, int64_t most, struct arena *a, struct tensor **out, struct linnet_error *e)
{
	int64_t n = d->stream.n < most ? d->stream.n : most;

	TRY(tensor_new(a, DT_INT32, 1, &n, out, e));
	data_tokens(d, 0, n, *out, 0);
	return LINNET_OK;
}

static enum linnet_code read_tokens(struct calibration *c)
{
	enum { FAR = 64, RARE = 20 };
	const struct train_data *held = c->held ? c->held : c->data;
	struct linnet_error *e = c->e;
	struct tensor *tokens, *known;
	struct arena *a;
	enum linnet_code code;

	if (!data_is_stream(held))
		return LINNET_OK;
	TRY(tokens_of(held, c->o->measured == MEASURE_LOSS ? FEW_TOKENS : MOST_TOKENS, c->a, &tokens, e));
	TRY_NEW(c->need, c->a, tokens->n);
	c->tokens = tokens;
	if (c->o->measured != MEASURE_ALL)
		return LINNET_OK;
	a = arena_new();
	code = a ? tokens_of(c->data, MOST_KNOWN, a, &known, e) : fail_mem(e);
	if (!code)
		code = recall_tokens(tokens, known, c->o->length, FAR, RARE, c->need, e);
	arena_free(a);
	return code;
}

static enum linnet_code measure_run(struct calibration *c, const struct graph *g, bool far, struct arena *a, struct quality *out)
{
	struct linnet_error *e = c->e;
	struct graph *fast;

	TRY(graph_copy(g, a, &fast, e));
	TRY(pass_run_all(fast, NULL, e));
	if (c->o->measured != MEASURE_SPEED)
		TRY(measure_lm(fast, c->tokens, c->need, c->o->length, together(c), c->o->threads, out, e));
	return far && c->o->measured != MEASURE_LOSS ? measure_long(fast, c->tokens, c->o->length, c->o->threads, out, e) : LINNET_OK;
}

/* Of a language model, after the exact passes, as it is run; `far`: by position too. */
static enum linnet_code measure(struct calibration *c, const struct graph *g, bool far, struct quality *out)
{
	struct arena *a = c->tokens ? arena_new() : NULL;
	enum linnet_code code;

	*out = unknown;
	if (!c->tokens)
		return LINNET_OK;
	code = a ? measure_run(c, g, far, a, out) : fail_mem(c->e);
	arena_free(a);
	return code;
}

static enum linnet_code student(struct calibration *c, const struct convert_opt *convert, enum beside beside, struct arena *a, struct lesson *l)
{
	return lesson_student(c->m, convert, c->weight, c->nweight, beside, a, l, c->e);
}

static struct train_opt set_up(const struct calibration *c, const char *loss)
{
	return (struct train_opt){ .optimizer = OPTIMIZER_ADAMW, .schedule = SCHEDULE_COSINE, .rate_end = 0.02, .beta1 = 0.9, .beta2 = 0.98,
	                           .epsilon = 1e-8, .clip = 1, .batch = c->o->batch, .accumulate = 1, .length = c->o->length,
	                           .seed = c->o->seed ? c->o->seed : 1, .threads = c->o->threads, .mixed = !c->o->exact, .loss = loss,
	                           .keep = 50, .explode = 4 };
}

static enum linnet_code measure_student(struct calibration *c, const struct convert_opt *convert, bool far, struct quality *out)
{
	struct arena *a = arena_new();
	struct linnet_error *e = c->e;
	struct lesson l;
	enum linnet_code code = a ? student(c, convert, BESIDE_NOTHING, a, &l) : fail_mem(e);

	if (!code)
		code = measure(c, l.model.graph, far, out);
	if (code || (c->tokens && c->o->measured != MEASURE_ALL)) {
		arena_free(a);
		return code;
	}
	code = lesson_distil(&l, c->m, false, e);
	if (!code) {
		struct train_opt t = set_up(c, l.loss);

		t.batch = together(c);
		code = train_means(&l.model, &t, c->held ? c->held : c->data, &l.loss, 1, c->tokens ? BATCHES : 0, &out->loss, e);
	}
	arena_free(a);
	return code;
}

/* Each layer's error on a few held-out batches; `after`: which of the two. */
static enum linnet_code measure_layers(struct calibration *c, bool after, struct arena *a)
{
	struct calibrate_result *out = c->out;
	struct linnet_error *e = c->e;
	struct train_opt t = set_up(c, NULL);
	double *mean;
	struct lesson l;
	uint32_t n = 0;

	TRY(student(c, &c->o->convert, BESIDE_RESULTS, a, &l));
	TRY(lesson_transfer(&l, e));
	TRY_NEW(mean, a, l.report.nitem);
	if (!out->error)
		TRY_NEW(out->error, c->a, l.report.nitem);
	for (uint32_t i = 0; i < l.report.nitem; i++)
		if (l.report.item[i].converted)
			out->error[n++].layer = i;
	out->nerror = n;
	out->nattention = l.report.nitem;
	t.batch = together(c);
	TRY(train_means(&l.model, &t, c->held ? c->held : c->data, l.error, (int)n, BATCHES, mean, e));
	for (uint32_t i = 0; i < n; i++)
		*(after ? &out->error[i].after : &out->error[i].before) = mean[i];
	return LINNET_OK;
}

static enum linnet_code layers(struct calibration *c, bool after)
{
	struct arena *a = arena_new();
	enum linnet_code code = a ? measure_layers(c, after, a) : fail_mem(c->e);

	arena_free(a);
	return code;
}

/* ---- One stage ---- */

struct watch {
	const struct calibration *c;
	const struct stage *stage;
	int index;
	int64_t warm;     /* no report: only how long steps take, after that many */
	double since, last; /* seconds at their end; at that of the latest */
};

static int each_step(void *ctx, const struct train_event *ev)
{
	struct watch *w = ctx;
	struct calibrate_event x = { NULL, w->stage->name, w->index, w->c->of, ev };

	w->last = ev->seconds;
	if (ev->step == w->warm)
		w->since = ev->seconds;
	if (w->c->o->report && !w->warm)
		w->c->o->report(w->c->o->ctx, &x);
	return 0;
}

static enum linnet_code prepare(struct calibration *c, const struct stage *s, struct lesson *l, struct names *train, struct names *low)
{
	struct linnet_error *e = c->e;

	TRY(student(c, &c->o->convert, s->loss == LOSS_TRANSFER ? BESIDE_RESULTS : s->loss == LOSS_WEIGHTS ? BESIDE_WEIGHTS : BESIDE_NOTHING, c->stage, l));
	TRY_NEW(train->v, c->stage, 3 * (size_t)l->model.graph->nvalue);
	train->n = 0;
	low->n = 0;
	for (int i = 0; i < l->fresh.n; i++)
		train->v[train->n++] = l->fresh.v[i];
	for (int i = 0; s->weights == WEIGHTS_ALL && i < l->inherited.n; i++)
		train->v[train->n++] = l->inherited.v[i];
	if (s->weights == WEIGHTS_LOW) {
		TRY(lesson_low_rank(l, c->o->rank ? c->o->rank : 8, c->o->seed ? c->o->seed : 1, low, e));
		for (int i = 0; i < low->n; i++)
			train->v[train->n++] = low->v[i];
	}
	if (stage_by_layer(s))
		return lesson_transfer(l, e);
	if (s->loss == LOSS_TASK)
		return data_is_stream(c->data) ? LINNET_OK : lesson_task(l, c->m, e);
	return lesson_distil(l, c->m, s->loss == LOSS_HYBRID, e);
}

/* The stage's share of the budget: steps, or seconds with a guess at their steps. */
static enum linnet_code plan_steps(struct calibration *c, const struct stage *s, double start, struct linnet_model *m, struct train_opt *t)
{
	enum { WARM = 3, TRIES = WARM + 5 };
	struct watch w = { .c = c, .stage = s, .warm = WARM };
	struct train_opt tries = *t;
	struct train_result r;
	struct linnet_error *e = c->e;
	struct graph *g = m->graph;
	int64_t each = c->o->batch * (data_is_stream(c->data) ? c->o->length : 1);
	double share = s->share / (1 - c->idle);

	if (!(c->o->minutes > 0)) {
		t->steps = (int64_t)ceil(share * (double)(c->o->tokens ? c->o->tokens : CALIBRATE_TOKENS) / (double)each);
		return LINNET_OK;
	}
	tries.steps = TRIES;
	tries.checkpoint = NULL;
	TRY(graph_copy(g, c->stage, &m->graph, e));
	TRY(train(m, &tries, c->data, NULL, each_step, &w, &r, e));
	m->graph = g;
	t->seconds = fmax(share * c->o->minutes * 60 - (seconds_now() - start), 1e-3);
	t->steps = (int64_t)(t->seconds * (TRIES - WARM) / (w.last - w.since)) + 1;
	return LINNET_OK;
}

/* Tokens, or samples, that output projections are fitted to at least; as many batches as that takes. */
enum { FIT_ROWS = 1 << 15 };

static enum linnet_code run_fit(struct calibration *c, struct stage_result *out)
{
	struct linnet_error *e = c->e;
	struct train_opt t = set_up(c, NULL);
	const char **name;
	double *mean, *sum, before, after;
	int64_t rows, all = 1, n = 1, samples;
	struct lesson l;

	TRY(student(c, &c->o->convert, BESIDE_RESULTS, c->stage, &l));
	TRY(lesson_fit(&l, e));
	TRY(lesson_transfer(&l, e));
	TRY_NEW(name, c->stage, 1 + 3 * (size_t)l.nfit);
	name[0] = l.loss;
	for (uint32_t i = 0; i < l.nfit; i++) {
		for (int k = 0; k < 3; k++)
			name[n++] = l.fit[i].sum[k];
		all += 3 * l.fit[i].w->d[0] * l.fit[i].w->d[0];
		out->parameters += l.fit[i].w->n;
	}
	TRY_NEW(mean, c->stage, all);
	TRY(data_samples(c->data, t.length, &samples, e));
	rows = t.batch * (data_is_stream(c->data) ? t.length : 1);
	n = (FIT_ROWS + rows - 1) / rows;
	out->tokens = rows * (samples / t.batch < n ? samples / t.batch : n);
	TRY(train_means(&l.model, &t, c->data, name, 1 + 3 * (int)l.nfit, n, mean, e));
	sum = mean + 1;
	out->loss = l.nfit ? 0 : mean[0];
	for (uint32_t i = 0; i < l.nfit; i++) {
		struct tensor *w;

		TRY(fit_solve(&l.fit[i], sum, c->stage, &w, &before, &after, e));
		TRY(keep_weight(c, l.fit[i].weight, w));
		sum += 3 * w->d[0] * w->d[0];
		out->loss += after / l.nfit;
	}
	return LINNET_OK;
}

static enum linnet_code run_steps(struct calibration *c, const struct stage *s, int index, double start, struct stage_result *out)
{
	struct linnet_error *e = c->e;
	struct watch w = { .c = c, .stage = s, .index = index };
	struct names train_names, low;
	struct train_result r;
	struct lesson l;
	struct train_opt t;

	TRY(prepare(c, s, &l, &train_names, &low));
	t = set_up(c, l.loss);
	t.rate = s->rate * (c->o->rate > 0 ? c->o->rate : 1);
	t.seed += (uint64_t)index;
	if (!train_names.n) { /* a mechanism without parameters */
		c->idle += s->share;
		return LINNET_OK;
	}
	t.weight = train_names.v;
	t.nweight = train_names.n;
	TRY(plan_steps(c, s, start, &l.model, &t));
	t.warmup = t.steps / 20 < 50 ? t.steps / 20 : 50;
	if (c->o->checkpoint) {
		t.checkpoint = arena_fmt(c->stage, "%s.%d-%s.npz", c->o->checkpoint, index, s->name);
		if (!t.checkpoint)
			return fail_mem(e);
	}
	TRY(train(&l.model, &t, c->data, NULL, each_step, &w, &r, e));
	TRY(keep_named(c, &l, &l.fresh));
	if (s->weights == WEIGHTS_ALL)
		TRY(keep_named(c, &l, &l.inherited));
	TRY(merge(c, &l, &low));
	out->steps = r.step;
	out->tokens = r.step * t.batch * (data_is_stream(c->data) ? t.length : 1);
	out->parameters = r.parameters;
	out->loss = r.loss;
	return LINNET_OK;
}

static enum linnet_code run_stage(struct calibration *c, const struct stage *s, int index)
{
	struct stage_result *out = &c->out->stage[index];
	double start = seconds_now();
	bool last = index + 1 == c->of;

	*out = (struct stage_result){ .name = s->name, .quality = unknown };
	TRY(s->loss == LOSS_FIT ? run_fit(c, out) : run_steps(c, s, index, start, out));
	if (!out->parameters) /* a mechanism without parameters */
		return c->o->measured == MEASURE_LOSS && last ? measure_student(c, &c->o->convert, true, &out->quality) : LINNET_OK;
	out->seconds = seconds_now() - start;
	return c->o->measured == MEASURE_ALL || last ? measure_student(c, &c->o->convert, last, &out->quality) : LINNET_OK;
}

/* ---- All of it ---- */

/* What the result will be held against. */
static enum linnet_code measure_others(struct calibration *c)
{
	TRY(measure(c, c->m->graph, true, &c->out->teacher));
	c->out->teacher.loss = 0;
	TRY(measure_student(c, &c->o->convert, true, &c->out->before));
	if (c->o->convert.window || c->o->convert.mechanism->window) {
		struct convert_opt window = c->o->convert;

		window.mechanism = mechanism_find("window");
		window.window = window.window ? window.window : c->o->convert.mechanism->window;
		window.layers = NULL;
		TRY(measure_student(c, &window, true, &c->out->window));
	}
	return layers(c, false);
}

static enum linnet_code run(struct calibration *c)
{
	const struct recipe *r = c->o->recipe;
	bool all = c->o->measured == MEASURE_ALL;

	TRY(read_tokens(c));
	c->out->language = c->tokens != NULL;
	if (all)
		TRY(measure_others(c));
	for (int i = 0; i < c->o->convert.ngiven; i++)
		TRY(keep_weight(c, c->o->convert.given[i].name, c->o->convert.given[i].t));
	while (r->stage[c->of].loss != LOSS_NONE)
		c->of++;
	if (!all && !c->of)
		return measure_student(c, &c->o->convert, true, &c->out->before);
	for (int i = 0; i < c->of; i++) {
		enum linnet_code code;

		c->stage = arena_new();
		code = c->stage ? run_stage(c, &r->stage[i], i) : fail_mem(c->e);
		arena_free(c->stage);
		TRY(code);
		c->out->nstage++;
	}
	return all ? layers(c, true) : LINNET_OK;
}

static enum linnet_code settle(struct calibration *c, struct calibrate_opt *o)
{
	/* Small batches of windows: more steps for the same tokens, which at these budgets gain more than steadier ones. */
	enum { WINDOWS = 2, LENGTH = 512 };
	bool stream = data_is_stream(c->data);

	if (!(o->minutes >= 0) || !(o->rate >= 0) || o->tokens < 0 || o->batch < 0 || o->batch > 1 << 20 || o->length < 0 || o->length > 1 << 24 ||
	    o->rank < 0 || o->rank > 4096 || o->threads < 0 || o->threads > 4096)
		return fail(c->e, LINNET_EUSAGE, "a number of calibration is out of its range: minutes %g, tokens %lld, batch %lld, length %lld, rank %lld, rate %g, threads %d",
		            o->minutes, (long long)o->tokens, (long long)o->batch, (long long)o->length, (long long)o->rank, o->rate, o->threads);
	if (stream && !o->batch)
		o->batch = fixed(c->m->graph, 0);
	if (stream && !o->length)
		o->length = fixed(c->m->graph, 1);
	o->batch = o->batch ? o->batch : stream ? WINDOWS : TOGETHER;
	if (o->length)
		return LINNET_OK;
	o->length = LENGTH;
	if (!stream)
		return LINNET_OK;
	TRY(tokens_of(c->held ? c->held : c->data, LENGTH + 1, c->stage, &c->tokens, c->e));
	return measure_longest(c->m->graph, c->tokens, &o->length, o->threads, c->e); /* as it was written */
}

enum linnet_code calibrate_prepare(struct linnet_model *m, struct calibrate_opt *opt, struct train_data *data, struct train_data *held_out,
                                   struct linnet_error *e)
{
	struct calibration c = { .m = m, .data = data, .held = held_out, .stage = arena_new(), .e = e };
	enum linnet_code code = c.stage ? settle(&c, opt) : fail_mem(e);
	uint32_t caches;

	if (!code)
		code = graph_copy(m->graph, m->arena, &m->graph, e);
	if (!code)
		code = convert_source(m->graph, c.stage, &caches, e);
	arena_free(c.stage);
	return code;
}

enum linnet_code calibrate(const struct linnet_model *m, const struct calibrate_opt *opt, struct train_data *data, struct train_data *held_out,
                           struct calibrate_result *out, struct linnet_error *e)
{
	struct calibrate_opt o = *opt;
	struct linnet_model whole = *m;
	struct calibration c = { .m = &whole, .o = &o, .data = data, .held = held_out, .a = m->arena, .out = out, .e = e };
	enum linnet_code code;

	*out = (struct calibrate_result){ .teacher = unknown, .before = unknown, .window = unknown };
	TRY(calibrate_prepare(&whole, &o, data, held_out, e));
	out->length = o.length;
	code = run(&c);
	out->weight = c.weight;
	out->nweight = c.nweight;
	return code;
}

enum linnet_code calibrate_softmax(const struct linnet_model *m, const struct calibrate_opt *opt, struct train_data *data, struct train_data *held_out,
                                   struct quality *out, struct linnet_error *e)
{
	struct calibrate_opt o = *opt;
	struct linnet_model whole = *m;
	struct calibration c = { .m = &whole, .o = &o, .data = data, .held = held_out, .a = m->arena, .e = e };

	*out = unknown;
	TRY(calibrate_prepare(&whole, &o, data, held_out, e));
	TRY(read_tokens(&c));
	TRY(measure(&c, whole.graph, true, out));
	out->loss = 0;
	return LINNET_OK;
}
