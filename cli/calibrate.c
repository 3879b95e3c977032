/* convert --calibrate: running it, with progress, and telling what it cost. */
#include "cli/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* "2%" or "0.02"; -1: neither. */
static double share_of(const char *s)
{
	char *end;
	double x = s ? strtod(s, &end) : 0;

	if (!s)
		return INFINITY;
	if (end == s || !(x >= 0) || strcmp(end, *end == '%' ? "%" : ""))
		return -1;
	return *end ? x / 100 : x;
}

int calibrate_choose(const struct calibrate_cli *o, bool chosen, struct convert_opt *c, struct calibrated *r)
{
	struct linnet_error e = { 0 };

	*r = (struct calibrated){ .chosen = chosen ? c->mechanism : NULL };
	if (calibrate_recipe(o->recipe, chosen, c, &r->recipe, &r->searched, &e))
		return report_error(&e);
	if ((o->max_state || o->plot) && !r->searched) {
		fprintf(stderr, "linnet: %s is of a search; it needs --recipe auto\n", o->max_state ? "--max-state" : "--plot");
		return EXIT_USAGE;
	}
	if (o->max_state && bytes_of(o->max_state) <= 0) {
		fprintf(stderr, "linnet: \"%s\" is no size; --max-state is bytes, 200000, 64K or 1.5M\n", o->max_state);
		return EXIT_USAGE;
	}
	if (share_of(o->max_loss) < 0) {
		fprintf(stderr, "linnet: --max-loss is a share: 2%% or 0.02\n");
		return EXIT_USAGE;
	}
	return EXIT_YES;
}

/* ---- Progress ---- */

struct view_of_run {
	double seconds;
	int64_t tokens;
	int stage;
	const char *trial;
	const struct search_result *search;
};

static void show_event(void *ctx, const struct calibrate_event *ev)
{
	struct view_of_run *w = ctx;
	const struct train_event *t = ev->train;
	char line[200], time[40];
	double span;

	if (w->stage != ev->index || w->trial != ev->trial)
		*w = (struct view_of_run){ .stage = ev->index, .trial = ev->trial, .search = w->search };
	span = t->seconds - w->seconds;
	if (globals.json) {
		json_line(json_pack("{s:s*, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "trial", ev->trial, "stage", ev->stage, "step", (json_int_t)t->step, "steps",
		                    (json_int_t)t->steps, "tokens", (json_int_t)t->tokens, "loss", t->loss, "rate", t->rate, "norm", t->norm,
		                    "seconds", t->seconds), "step");
		return;
	}
	snprintf(line, sizeof line, "%.60s%s%s (%d of %d): loss %.4f, %.0f tokens a second, %s left", ev->trial ? ev->trial : "", ev->trial ? ": " : "", ev->stage, ev->index + 1, ev->of, t->loss,
	         (double)t->tokens / t->seconds,
	         human_seconds(t->seconds / (double)t->step * (double)(t->steps - t->step), time, sizeof time));
	progress(line, t->step, t->steps);
	if (globals.quiet || (t->step != t->steps && span < 15))
		return;
	progress_end();
	fprintf(stderr, "%s%s%s  step %lld of %lld  loss %.4f  %.0f tokens a second\n", ev->trial ? ev->trial : "", ev->trial ? ": " : "", ev->stage, (long long)t->step, (long long)t->steps, t->loss,
	        (double)(t->tokens - w->tokens) / (span > 0 ? span : 1));
	w->seconds = t->seconds;
	w->tokens = t->tokens;
}

static void show_trial(void *ctx, const struct trial *t, int round, int rounds)
{
	struct view_of_run *w = ctx;

	progress_end();
	trial_note(w->search, t, round, rounds);
}

static enum linnet_code search(const struct calibrate_cli *o, const struct linnet_model *m, const struct calibrate_opt *opt, struct train_data *data,
                               struct train_data *held, struct convert_opt *c, struct calibrated *out, struct linnet_error *e)
{
	struct search_opt s = { .calibrate = *opt, .mechanism = out->chosen, .most_loss = share_of(o->max_loss),
	                        .most_state = o->max_state ? bytes_of(o->max_state) : 0, .tried = show_trial };
	const struct trial *best;

	TRY(calibrate_search(m, &s, data, held, &out->search, e));
	best = &out->search.trial[out->search.best];
	out->recipe = best->recipe;
	out->result = out->search.result;
	*c = best->convert;
	return o->plot ? search_draw(&out->search, o->plot, e) : LINNET_OK;
}

int calibrate_run(const struct calibrate_cli *o, const struct linnet_model *m, const char *path, struct convert_opt *c, struct calibrated *out)
{
	struct view_of_run w = { .stage = -1, .search = &out->search };
	struct calibrate_opt opt = { .convert = *c, .recipe = &out->recipe, .minutes = o->minutes, .tokens = o->tokens, .batch = o->batch, .length = o->length,
	                             .rank = o->rank, .rate = o->rate, .seed = c->seed, .threads = (int)o->threads, .exact = o->exact, .checkpoint = o->checkpoint,
	                             .report = show_event, .ctx = &w };
	struct train_data *data = NULL, *held = NULL;
	struct linnet_error e = { 0 };
	enum linnet_code code = data_open(o->data.v, o->data.n, &data, &e);

	if (!code)
		code = data_open(o->held_out.v, o->held_out.n, &held, &e);
	if (!code && out->searched)
		code = err_file(&e, search(o, m, &opt, data, held, c, out, &e), path);
	else if (!code)
		code = err_file(&e, calibrate(m, &opt, data, held, &out->result, &e), path);
	progress_end();
	data_free(data);
	data_free(held);
	c->given = out->result.weight;
	c->ngiven = out->result.nweight;
	return code ? report_error(&e) : EXIT_YES;
}

/* ---- What it cost ---- */

static const struct quality *after(const struct calibrate_result *r) { return r->nstage ? &r->stage[r->nstage - 1].quality : &r->before; }

bool calibrate_too_bad(const struct calibrate_cli *o, const struct calibrated *x)
{
	const struct calibrate_result *r = &x->result;
	double loss = r->language ? exp(after(r)->nll - r->teacher.nll) - 1 : after(r)->loss, most = share_of(o->max_loss);

	if (!(loss > most))
		return false;
	fprintf(stderr, r->language ? "linnet: perplexity is %.2f%% above the softmax model's; --max-loss allows %s\n" :
	        "linnet: outputs differ by a loss of %.2f%%; --max-loss allows %s\n", 100 * loss, o->max_loss);
	return true;
}

static void add_number(struct table *t, const char *format, double x)
{
	char text[40];

	snprintf(text, sizeof text, format, x);
	table_add(t, "%s", isnan(x) ? "-" : text);
}

static void print_stages(const struct calibrate_result *r)
{
	struct table t;

	table_init(&t, r->language ? 8 : 6, "lrrrrrrr");
	for (const char *const *h = (const char *const[]){ "held out", "trained", "steps", r->language ? "tokens" : "samples", "time", "distance",
	                                                    r->language ? "perplexity" : NULL, "of recall", NULL }; *h; h++)
		table_add(&t, "%s", *h);
	for (int i = -3; i < r->nstage; i++) {
		const struct stage_result *s = i < 0 ? NULL : &r->stage[i];
		const struct quality *q = s ? &s->quality : i == -3 ? &r->teacher : i == -2 ? &r->window : &r->before;
		char time[40];

		if (i == -2 && isnan(q->nll))
			continue;
		table_add(&t, "%s", s ? s->name : i == -3 ? "softmax" : i == -2 ? "its window alone" : "not calibrated");
		if (s) {
			table_add(&t, "%lld", (long long)s->parameters);
			table_add(&t, "%lld", (long long)s->steps);
			table_add(&t, "%lld", (long long)s->tokens);
			table_add(&t, "%s", human_seconds(s->seconds, time, sizeof time));
		} else {
			for (int k = 0; k < 4; k++)
				table_add(&t, "-");
		}
		add_number(&t, "%.4f", q->loss);
		if (r->language) {
			add_number(&t, "%.2f", exp(q->nll));
			add_number(&t, "%.2f", exp(q->recall));
		}
	}
	table_print(&t, stdout, true);
}

static void print_spans(const struct calibrate_result *r)
{
	struct table t;

	if (isnan(r->teacher.span[0]))
		return;
	putchar('\n');
	table_init(&t, 3 + !isnan(r->window.nll), "rrrr");
	table_add(&t, "perplexity up to token");
	table_add(&t, "softmax");
	if (!isnan(r->window.nll))
		table_add(&t, "its window alone");
	table_add(&t, "calibrated");
	for (int i = 0; i < QUALITY_SPANS && !isnan(r->teacher.span[i]); i++) {
		table_add(&t, "%lld", (long long)r->length << i);
		add_number(&t, "%.2f", exp(r->teacher.span[i]));
		if (!isnan(r->window.nll))
			add_number(&t, "%.2f", exp(r->window.span[i]));
		add_number(&t, "%.2f", exp(after(r)->span[i]));
	}
	table_print(&t, stdout, true);
}

void calibrate_print(const struct calibrated *x)
{
	const struct calibrate_result *r = &x->result;
	struct table t;

	if (x->searched)
		search_print(&x->search);
	print_stages(r);
	print_spans(r);
	putchar('\n');
	table_init(&t, 3, "rrr");
	table_add(&t, "attention");
	table_add(&t, "error before");
	table_add(&t, "after");
	for (uint32_t i = 0; i < r->nerror; i++) {
		table_add(&t, "%u", r->error[i].layer);
		add_number(&t, "%.4f", r->error[i].before);
		add_number(&t, "%.4f", r->error[i].after);
	}
	table_print(&t, stdout, true);
	printf("softmax stays in %u of %u attentions\n", r->nattention - r->nerror, r->nattention);
}

void calibrate_list(void)
{
	struct table t;

	if (globals.json) {
		for (int i = 0; recipe_at(i); i++)
			json_line(json_pack("{s:s, s:s, s:s, s:s}", "name", recipe_at(i)->name, "doc", recipe_at(i)->doc, "source", recipe_at(i)->source,
			                    "mechanism", recipe_at(i)->mechanism), "recipe");
		return;
	}
	table_init(&t, 3, "lll");
	table_add(&t, "recipe");
	table_add(&t, "stages");
	table_add(&t, "of --calibrate");
	for (int i = 0; recipe_at(i); i++) {
		const struct recipe *r = recipe_at(i);
		char stages[100] = "";

		for (int k = 0; r->stage[k].loss != LOSS_NONE; k++)
			snprintf(stages + strlen(stages), sizeof stages - strlen(stages), "%s%s", k ? ", " : "", r->stage[k].name);
		table_add(&t, "%s", r->name);
		table_add(&t, "%s", stages);
		table_add(&t, "%s", r->doc);
	}
	for (const char *const *cell = (const char *const[]){ "auto", "those of what is chosen",
	                                                       "a search among all: mechanism, window and softmax by layer, under the budget, --max-state and --max-loss", NULL };
	     *cell; cell++)
		table_add(&t, "%s", *cell);
	table_print(&t, stdout, true);
}
