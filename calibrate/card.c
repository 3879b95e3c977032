/* What calibration did, as the card beside the model tells it. */
#include "calibrate/card.h"

#include <math.h>

/* ---- Searches ---- */

bool search_language(const struct search_result *s) { return !isnan(s->softmax.nll); }

double search_figure(const struct search_result *s, const struct trial *t)
{
	return search_language(s) ? exp(t->quality.nll) : t->quality.loss;
}

json_t *trial_card(const struct search_result *s, const struct trial *t)
{
	json_t *j = json_pack("{s:s, s:s?, s:i, s:s?, s:I, s:i, s:I, s:f, s:i}", "name", t->name, "mechanism",
	                      t->convert.mechanism ? t->convert.mechanism->name : NULL, "window", t->convert.window, "layers", t->convert.layers,
	                      "state_bytes", (json_int_t)t->state_bytes, "softmax_layers", (int)t->softmax, "tokens", (json_int_t)t->tokens, "seconds",
	                      t->seconds, "rounds", t->rounds);

	if (t->reason)
		json_object_set_new(j, "reason", json_string(t->reason));
	else
		json_object_set_new(j, search_language(s) ? "perplexity" : "distance", json_real(search_figure(s, t)));
	if (t->quality.speed > 0)
		json_object_set_new(j, "tokens_a_second", json_real(t->quality.speed));
	if (t->fixed)
		json_object_set_new(j, "compared", json_true());
	if (t->front)
		json_object_set_new(j, "front", json_true());
	if (t->best)
		json_object_set_new(j, "chosen", json_true());
	return j;
}

static json_t *search_card(const struct search_result *s)
{
	json_t *list = json_array();

	for (int i = 0; i < s->ntrial; i++)
		json_array_append_new(list, trial_card(s, &s->trial[i]));
	return list;
}

/* ---- One calibration ---- */

static json_t *number(double x) { return isnan(x) ? json_null() : json_real(x); }

static json_t *quality_json(const struct calibrate_result *r, const struct quality *q)
{
	json_t *j = json_object(), *spans = json_array();

	json_object_set_new(j, "distance", number(q->loss));
	if (!r->language) {
		json_decref(spans);
		return j;
	}
	json_object_set_new(j, "perplexity", number(exp(q->nll)));
	json_object_set_new(j, "perplexity_recall", number(exp(q->recall)));
	json_object_set_new(j, "recall_tokens", json_integer(q->recall_tokens));
	for (int i = 0; i < QUALITY_SPANS; i++)
		json_array_append_new(spans, number(exp(q->span[i])));
	json_object_set_new(j, "perplexity_by_position", spans);
	json_object_set_new(j, "tokens_a_second", number(q->speed)); /* in those windows */
	return j;
}

json_t *calibrate_card(const struct recipe *recipe, const struct calibrate_result *r, const struct search_result *search)
{
	json_t *j = json_pack("{s:s, s:s, s:I, s:o, s:o, s:o}", "recipe", recipe->name, "source", recipe->source, "length", (json_int_t)r->length, "softmax", quality_json(r, &r->teacher),
	                      "not_calibrated", quality_json(r, &r->before), "stages", json_array()), *errors = json_array();

	if (!isnan(r->window.nll))
		json_object_set_new(j, "window_alone", quality_json(r, &r->window));
	for (int i = 0; i < r->nstage; i++) {
		const struct stage_result *s = &r->stage[i];

		json_array_append_new(json_object_get(j, "stages"),
		                      json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:o}", "name", s->name, "parameters", (json_int_t)s->parameters, "steps",
		                                (json_int_t)s->steps, "tokens", (json_int_t)s->tokens, "seconds", s->seconds, "loss", s->loss, "held_out",
		                                quality_json(r, &s->quality)));
	}
	for (uint32_t i = 0; i < r->nerror; i++)
		json_array_append_new(errors, json_pack("{s:i, s:o, s:o}", "attention", (int)r->error[i].layer, "before", number(r->error[i].before),
		                                        "after", number(r->error[i].after)));
	json_object_set_new(j, "attention_error", errors);
	if (r->nattention)
		json_object_set_new(j, "softmax_share", json_real((double)(r->nattention - r->nerror) / r->nattention));
	if (search)
		json_object_set_new(j, "search", search_card(search));
	return j;
}
