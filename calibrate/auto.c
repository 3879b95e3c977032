/*
 * Searching for a conversion under a budget, by successive halving.
 *
 *	probe     every recipe that fits the model, not trained; what is over the limit of state falls away, SIX of the others go on
 *	round 1   they share a sixth of the budget: the first stage of their recipes
 *	children  of the best one, with its weights, not trained: its most sensitive layers look through a wider window, or stay softmax
 *	round 2   FOUR of all share a third of the budget: their whole recipes
 *	the end   one gets the rest, by what its loss is expected to come to: what its recipe has behind the transfer
 *
 * Who goes on: half by loss, then those that no other beats in both state and loss. Softmax is left in only when there is a limit, of state or
 * loss, that says how much of it. Source: Jamieson and Talwalkar, Non-stochastic Best Arm Identification, 2016, section 2.
 */
#include "calibrate/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/base/clock.h"
#include "ops/base/str.h"

enum { SIX = 6, FOUR = 4, MOST = 64, WIDE = 64, NARROW = 16, LAYERS = 64, ROUNDS = 3 };

struct search {
	const struct linnet_model *m;
	const struct search_opt *o;
	struct train_data *data, *held;
	struct search_result *out;
	struct arena *a;
	const struct trial *now; /* that is being tried */
	int64_t tokens;          /* of the budget, spent so far */
	double start;
	uint32_t layers;         /* the model's attentions */
	int64_t cached;          /* bytes of their keys and values */
	struct linnet_error *e;
};

static void relay(void *ctx, const struct calibrate_event *ev)
{
	struct search *s = ctx;
	struct calibrate_event x = *ev;

	x.trial = s->now->name;
	s->o->calibrate.report(s->o->calibrate.ctx, &x);
}

static void tell(const struct search *s, const struct trial *t, int round)
{
	if (s->o->tried)
		s->o->tried(s->o->calibrate.ctx, t, round, ROUNDS);
}

/* ---- State ---- */

/* What its attentions keep of one sequence, in bytes: said by the step form, where there is one, else by the whole-sequence one. */
static enum linnet_code add_state(struct search *s, struct trial *t, const char *all_layers)
{
	enum dtype dt = t->convert.state ? t->convert.state : DT_FLOAT;
	struct convert_opt c = t->convert;
	struct linnet_error none = { 0 };
	struct linnet_model copy = *s->m;
	struct convert_report step = { 0 }, whole;
	struct arena *a = arena_new();
	enum linnet_code code = a ? LINNET_OK : fail_mem(s->e);
	int64_t numbers = 0, cached = 0;

	copy.arena = a;
	if (!code)
		code = graph_copy(s->m->graph, a, &copy.graph, s->e);
	c.target = TARGET_STEP;
	c.layers = all_layers;
	if (!code && convert_model(&copy, &c, &step, &none))
		step.nitem = 0;
	c.target = TARGET_ONNX;
	c.layers = t->convert.layers;
	if (!code)
		code = graph_copy(s->m->graph, a, &copy.graph, s->e);
	if (!code)
		code = convert_model(&copy, &c, &whole, s->e);
	for (uint32_t i = 0; !code && i < whole.nitem; i++) {
		const struct convert_item *x = &whole.item[i];
		int64_t cache = x->crosses ? 0 : CACHED * x->kv_heads * (x->width + x->value_width);

		t->softmax += !x->converted;
		numbers += !x->converted ? cache : i < step.nitem ? step.item[i].state_numbers : x->state_numbers;
		cached += cache;
	}
	if (!code) {
		t->state_bytes = (int64_t)dtype_bytes(dt, (uint64_t)numbers);
		s->cached = (int64_t)dtype_bytes(dt, (uint64_t)cached);
		s->layers = whole.nitem;
		if (t->softmax == whole.nitem)
			code = fail(s->e, LINNET_EUNSUPPORTED, "%s", whole.nitem ? whole.item[0].reason : "no attention was recognised");
	}
	arena_free(a);
	return code;
}

/* ---- Trials ---- */

/* Whether a trial is given up and the search goes on. */
static bool survivable(enum linnet_code code) { return code == LINNET_EUNSUPPORTED || code == LINNET_EVALUE || code == LINNET_ELIMIT; }

static enum linnet_code give_up(struct search *s, struct trial *t, enum linnet_code code)
{
	if (!survivable(code))
		return code;
	t->reason = arena_str(s->a, s->e->message);
	*s->e = (struct linnet_error){ 0 };
	return t->reason ? LINNET_OK : fail_mem(s->e);
}

static bool alive(const struct trial *t) { return !t->reason && !t->fixed; }

static double loss_of(const struct search *s, const struct quality *q)
{
	return isnan(s->out->softmax.nll) ? q->loss : q->nll - s->out->softmax.nll;
}

/* One calibration of it with these stages; none: it is measured only. */
static enum linnet_code run_trial(struct search *s, struct trial *t, const struct stage *stage, int64_t tokens, double minutes, int round,
                                  enum measured measured, struct calibrate_result *r)
{
	struct calibrate_opt o = s->o->calibrate;
	struct recipe recipe = t->recipe;
	enum linnet_code code;
	double sum = 0;
	int n = 0;

	memset(recipe.stage, 0, sizeof recipe.stage);
	for (; stage && stage[n].loss != LOSS_NONE; n++) {
		recipe.stage[n] = stage[n];
		sum += stage[n].share;
	}
	for (int i = 0; i < n; i++)
		recipe.stage[i].share /= sum;
	o.convert = t->convert;
	o.convert.given = t->weight;
	o.convert.ngiven = t->nweight;
	o.recipe = &recipe;
	o.tokens = tokens > 1 ? tokens : 1;
	o.minutes = minutes;
	o.measured = measured;
	o.report = o.report ? relay : NULL;
	o.ctx = s;
	s->now = t;
	if (o.checkpoint) {
		o.checkpoint = arena_fmt(s->a, "%s.%d-%d", o.checkpoint, round, (int)(t - s->out->trial));
		if (!o.checkpoint)
			return fail_mem(s->e);
	}
	code = calibrate(s->m, &o, s->data, s->held, r, s->e);
	for (int i = 0; i < r->nstage; i++) {
		t->tokens += r->stage[i].tokens;
		s->tokens += r->stage[i].tokens;
		t->seconds += r->stage[i].seconds;
	}
	if (code)
		return give_up(s, t, code);
	t->weight = r->weight;
	t->nweight = r->nweight;
	return LINNET_OK;
}

static enum linnet_code try_out(struct search *s, struct trial *t, const struct stage *stage, int64_t tokens, double minutes, int round)
{
	struct calibrate_result r;

	t->earlier = t->loss;
	t->earlier_tokens = t->tokens;
	TRY(run_trial(s, t, stage, tokens, minutes, round, MEASURE_LOSS, &r));
	if (t->reason)
		return LINNET_OK;
	t->quality = r.nstage ? r.stage[r.nstage - 1].quality : r.before;
	t->expected = t->loss = loss_of(s, &t->quality);
	if (isnan(t->loss))
		t->reason = "its loss is no number";
	if (stage)
		t->rounds = round;
	return LINNET_OK;
}

/* ---- Probing ---- */

/* A trial that may be: probed, unless its state is too large. */
static enum linnet_code add_trial(struct search *s, struct trial t, const char *all_layers)
{
	struct trial *to = &s->out->trial[s->out->ntrial];

	if (s->out->ntrial == MOST)
		return LINNET_OK;
	*to = t;
	if (!to->name)
		return fail_mem(s->e);
	s->out->ntrial++;
	TRY(give_up(s, to, add_state(s, to, all_layers)));
	if (!to->reason && !to->fixed && s->o->most_state && to->state_bytes > s->o->most_state)
		to->reason = "its state is too large";
	if (!to->reason)
		TRY(try_out(s, to, NULL, 0, 0, 0));
	tell(s, to, 0);
	return LINNET_OK;
}

static enum linnet_code add_recipe(struct search *s, const struct recipe *r, int window)
{
	struct trial t = { .name = r->name, .recipe = *r, .convert = s->o->calibrate.convert };

	t.convert.mechanism = s->o->mechanism;
	recipe_apply(r, &t.convert);
	if (window) {
		t.convert.window = window;
		t.name = arena_fmt(s->a, "%s, window %d", r->name, window);
	}
	return add_trial(s, t, t.convert.layers);
}

static enum linnet_code probe(struct search *s)
{
	struct recipe own;
	bool any = false;

	for (int i = 0; recipe_at(i); i++)
		if (!s->o->mechanism || !strcmp(recipe_at(i)->mechanism, s->o->mechanism->name)) {
			TRY(add_recipe(s, recipe_at(i), 0));
			any = true;
		}
	if (s->o->mechanism) {
		own = recipe_for(s->o->mechanism);
		if (!any)
			TRY(add_recipe(s, &own, 0));
		for (int w = NARROW; !s->o->calibrate.convert.window && w <= WIDE; w *= WIDE / NARROW)
			if (w != own.window && w != s->o->mechanism->window)
				TRY(add_recipe(s, &own, w));
	}
	return LINNET_OK;
}

/* Softmax, and windows of it, beside which the others stand. */
static enum linnet_code add_fixed(struct search *s)
{
	static const struct recipe none = { .name = "window" };
	struct trial *t;

	for (int w = NARROW; w <= WIDE; w *= WIDE / NARROW) {
		struct trial window = { .recipe = none, .convert = s->o->calibrate.convert, .fixed = true };

		window.name = arena_fmt(s->a, "window of %d alone", w);
		window.convert.mechanism = mechanism_find("window");
		window.convert.window = w;
		window.convert.layers = NULL;
		TRY(add_trial(s, window, NULL));
		if (s->out->trial[s->out->ntrial - 1].reason)
			s->out->ntrial--; /* nothing to compare with */
	}
	t = &s->out->trial[s->out->ntrial++];
	*t = (struct trial){ .name = "softmax", .fixed = true, .quality = s->out->softmax, .softmax = s->layers, .state_bytes = s->cached };
	return LINNET_OK;
}

/* ---- Choosing ---- */

static bool beats(const struct trial *x, const struct trial *y)
{
	return x->state_bytes <= y->state_bytes && x->loss <= y->loss && (x->state_bytes < y->state_bytes || x->loss < y->loss);
}

static void mark_front(struct search *s)
{
	for (int i = 0; i < s->out->ntrial; i++) {
		struct trial *t = &s->out->trial[i];

		t->front = alive(t);
		for (int k = 0; t->front && k < s->out->ntrial; k++)
			t->front = !(alive(&s->out->trial[k]) && beats(&s->out->trial[k], t));
	}
}

/* The earlier one of equals. */
static int by_loss(const void *x, const void *y)
{
	const struct trial *a = *(struct trial *const *)x, *b = *(struct trial *const *)y;

	return a->loss != b->loss ? (a->loss < b->loss ? -1 : 1) : a < b ? -1 : 1;
}

/* The front first. */
static int by_merit(const void *x, const void *y)
{
	const struct trial *a = *(struct trial *const *)x, *b = *(struct trial *const *)y;

	return a->front != b->front ? (a->front ? -1 : 1) : by_loss(x, y);
}

/* The best `most` of those that live; how many there are. */
static int select_best(struct search *s, struct trial **list, int most)
{
	int n = 0, half = (most + 1) / 2;

	mark_front(s);
	for (int i = 0; i < s->out->ntrial; i++)
		if (alive(&s->out->trial[i]))
			list[n++] = &s->out->trial[i];
	qsort(list, (size_t)n, sizeof *list, by_loss);
	if (n > most)
		qsort(list + half, (size_t)(n - half), sizeof *list, by_merit);
	return n < most ? n : most;
}

/*
 * What losses come to with the rest of the budget, if they go on to fall as a power of the tokens as they did between rounds: what is ahead after a few
 * tokens, as adapters of a good start are, is often not after many.
 */
static void expect(struct search *s)
{
	double left = s->o->calibrate.minutes * 60 - (seconds_now() - s->start), base = isnan(s->out->softmax.nll) ? 0 : s->out->softmax.nll;
	int64_t all = s->o->calibrate.tokens ? s->o->calibrate.tokens : CALIBRATE_TOKENS;

	for (int i = 0; i < s->out->ntrial; i++) {
		struct trial *t = &s->out->trial[i];
		double was = t->earlier + base, is = t->loss + base, tokens = (double)t->tokens, more;

		if (!alive(t) || t->rounds < 2 || !(was > is && is > 0) || t->earlier_tokens <= 0 || t->tokens <= t->earlier_tokens)
			continue;
		more = s->o->calibrate.minutes > 0 ? left * tokens / t->seconds : (double)(all - s->tokens);
		t->expected = is * pow(1 + fmax(more, 0) / tokens, -log(was / is) / log(tokens / (double)t->earlier_tokens)) - base;
	}
}

static bool good_enough(const struct search *s, const struct trial *t)
{
	return (isnan(s->out->softmax.nll) ? t->expected : exp(t->expected) - 1) <= s->o->most_loss;
}

/* Trained before untrained; with a limit of loss, those within before those beyond, and of those within the smaller state; else the smaller loss. */
static bool preferred(const struct search *s, const struct trial *x, const struct trial *y)
{
	bool limit = isfinite(s->o->most_loss), good = limit && good_enough(s, x);

	if ((x->rounds > 0) != (y->rounds > 0))
		return x->rounds > 0;
	if (limit && good != good_enough(s, y))
		return good;
	return good && x->state_bytes != y->state_bytes ? x->state_bytes < y->state_bytes : x->expected < y->expected;
}

static struct trial *choose(struct search *s)
{
	struct trial *best = NULL;

	for (int i = 0; i < s->out->ntrial; i++)
		if (alive(&s->out->trial[i]) && (!best || preferred(s, &s->out->trial[i], best)))
			best = &s->out->trial[i];
	return best;
}

/* ---- Children ---- */

/* The layers in the order of what each alone costs, the worst first. */
static enum linnet_code sensitive(struct search *s, const struct trial *parent, uint32_t *order)
{
	double loss[LAYERS];

	for (uint32_t i = 0; i < s->layers; i++) {
		struct trial t = *parent;

		t.convert.layers = arena_fmt(s->a, "%u", i);
		t.reason = NULL;
		if (!t.convert.layers)
			return fail_mem(s->e);
		TRY(try_out(s, &t, NULL, 0, 0, 0));
		loss[i] = t.reason ? -INFINITY : t.loss;
		order[i] = i;
		for (uint32_t k = i; k && loss[order[k]] > loss[order[k - 1]]; k--) {
			uint32_t x = order[k];

			order[k] = order[k - 1];
			order[k - 1] = x;
		}
	}
	return LINNET_OK;
}

static enum linnet_code add_child(struct search *s, const struct trial *parent, const char *name, const char *layers, const char *all_layers)
{
	struct trial t = *parent;

	if (!layers)
		return fail_mem(s->e);
	t.name = name;
	t.convert.layers = layers;
	t.softmax = 0;
	return add_trial(s, t, all_layers);
}

static enum linnet_code children(struct search *s, const struct trial *p)
{
	int window = p->convert.window ? p->convert.window : p->convert.mechanism->window;
	uint32_t order[LAYERS];

	if (p->convert.layers || s->layers < 2 || s->layers > LAYERS)
		return LINNET_OK;
	TRY(sensitive(s, p, order));
	if (window < WIDE) {
		const char *layers = arena_fmt(s->a, "all,%u=%s/%d", order[0], p->convert.mechanism->name, WIDE);

		TRY(add_child(s, p, arena_fmt(s->a, "%s; window %d in %u", p->name, WIDE, order[0]), layers, layers));
	}
	for (uint32_t k = 1; (isfinite(s->o->most_loss) || s->o->most_state) && k <= 2 && k < s->layers; k++)
		TRY(add_child(s, p, arena_fmt(s->a, k > 1 ? "%s; softmax in %u, %u" : "%s; softmax in %u", p->name, order[0], order[1]),
		              arena_fmt(s->a, k > 1 ? "all,-%u,-%u" : "all,-%u", order[0], order[1]), NULL));
	return LINNET_OK;
}

/* ---- All of it ---- */

/* The best of those that live share a part of the budget. */
static enum linnet_code play(struct search *s, int most, double share, int round)
{
	struct trial *list[MOST];
	int n = select_best(s, list, most);
	double minutes = s->o->calibrate.minutes * share / (n ? n : 1);
	int64_t all = s->o->calibrate.tokens ? s->o->calibrate.tokens : CALIBRATE_TOKENS, tokens = (int64_t)((double)all * share / (n ? n : 1));

	for (int i = 0; i < n; i++) {
		struct stage stage[MAX_STAGES + 1] = { { .loss = LOSS_NONE } };

		memcpy(stage, list[i]->recipe.stage, round == 1 ? sizeof *stage : sizeof stage);
		TRY(try_out(s, list[i], stage, tokens, minutes, round));
		tell(s, list[i], round);
	}
	return LINNET_OK;
}

static enum linnet_code finish(struct search *s, struct trial *t)
{
	const struct stage *stage = t->recipe.stage;
	int64_t all = s->o->calibrate.tokens ? s->o->calibrate.tokens : CALIBRATE_TOKENS;
	double minutes = s->o->calibrate.minutes, left = minutes - (seconds_now() - s->start) / 60;

	while (t->rounds > 1 && stage_by_layer(stage) && stage[1].loss != LOSS_NONE)
		stage++; /* they would take what later stages moved for the softmax model's */
	TRY(run_trial(s, t, stage, all - s->tokens, !minutes ? 0 : left > minutes / 10 ? left : minutes / 10, ROUNDS, MEASURE_ALL, &s->out->result));
	if (t->reason)
		return fail(s->e, LINNET_EVALUE, "%s: %s", t->name, t->reason);
	t->rounds = ROUNDS;
	TRY(try_out(s, t, NULL, 0, 0, ROUNDS));
	tell(s, t, ROUNDS);
	t->best = true;
	s->out->best = (int)(t - s->out->trial);
	return LINNET_OK;
}

static enum linnet_code speeds(struct search *s)
{
	struct calibrate_opt o = s->o->calibrate;

	o.measured = MEASURE_SPEED;
	for (int i = 0; i < s->out->ntrial; i++) {
		struct trial *t = &s->out->trial[i];
		struct calibrate_result r;
		struct quality q;

		if (t->reason || !(t->front || t->fixed || t->best))
			continue;
		if (t->softmax == s->layers) {
			TRY(calibrate_softmax(s->m, &o, s->data, s->held, &q, s->e));
		} else {
			TRY(run_trial(s, t, NULL, 0, 0, ROUNDS, MEASURE_SPEED, &r));
			q = r.before;
		}
		t->quality.speed = q.speed;
	}
	return LINNET_OK;
}

enum linnet_code calibrate_search(const struct linnet_model *m, const struct search_opt *opt, struct train_data *data, struct train_data *held_out,
                                  struct search_result *out, struct linnet_error *e)
{
	struct search_opt settled = *opt;
	struct linnet_model whole = *m;
	struct search s = { .m = &whole, .o = &settled, .data = data, .held = held_out, .out = out, .a = m->arena, .start = seconds_now(), .e = e };
	struct calibrate_opt brief;
	struct trial *best, *list[MOST];

	*out = (struct search_result){ .best = -1 };
	TRY_NEW(out->trial, s.a, MOST + 1);
	TRY(calibrate_prepare(&whole, &settled.calibrate, data, held_out, e));
	brief = settled.calibrate;
	brief.measured = MEASURE_LOSS;
	TRY(calibrate_softmax(&whole, &brief, data, held_out, &out->softmax, e));
	TRY(probe(&s));
	if (!select_best(&s, list, 1))
		return fail(e, LINNET_EUNSUPPORTED, "nothing that can be tried fits: %s: %s", out->ntrial ? out->trial[0].name : "no recipe",
		            out->ntrial ? out->trial[0].reason : "there is none");
	TRY(add_fixed(&s));
	TRY(play(&s, SIX, 1.0 / 6, 1));
	best = choose(&s);
	if (best)
		TRY(children(&s, best));
	TRY(play(&s, FOUR, 1.0 / 3, 2));
	expect(&s);
	best = choose(&s);
	if (!best)
		return fail(e, LINNET_EVALUE, "every trial failed, the last so: %s", out->trial[0].reason);
	TRY(finish(&s, best));
	mark_front(&s);
	return speeds(&s);
}
