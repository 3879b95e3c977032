/* What of a source's attention is carried over, and how; what is not, and why. */
#include "converter/build.h"

#include <string.h>

#include "graph/mask.h"

/* What linear_check() refuses: of the source or of what is asked for, and the reason it gives. */
enum refusal {
	NONE, LAYOUT, UNKNOWN_HEADS, CACHE, SCORES, AHEAD, LENGTHS, NO_PAST, NO_ORDER, CORRECTS, WEIGHING, CAUSAL_IMAGE, NO_IMAGE, LOOKS_BACK,
	OWN_SCALE, ODD, FAR_POSITIONS, TERRACED, BIAS, UNKNOWN_MASK, MASK_OF_HEADS, STEP_LENGTH, STEP_WEIGHING, NREFUSAL
};

static const struct {
	const char *source, *reason;
} refusals[NREFUSAL] = {
	[LAYOUT] = { "queries, keys or values of rank 4 in no known order", "queries, keys and values are not laid out as [batch, heads, length, width]" },
	[UNKNOWN_HEADS] = { "heads or widths that are lengths of inputs", "its number of heads or its widths are not known before running" },
	[CACHE] = { "a cache of fixed length (TensorScatter, ScatterND)", "it reads a key/value cache whose length is fixed or not an input's" },
	[SCORES] = { "scores or probabilities used elsewhere", "its scores or caches are used outside attention; linear attention has no score matrix" },
	[AHEAD] = { "a window that looks ahead", "its window looks ahead; softmax over a window is already linear in the length" },
	[LENGTHS] = { "causal between different lengths", "it is causal between sequences of different lengths" },
	[NO_PAST] = { "no causality, targets step and chunk", "it is not causal; it can be linear but not recurrent" },
	[NO_ORDER] = { "no causality, with what fades, is gated or corrects", "it is not causal; what fades or is gated needs an order" },
	[CORRECTS] = { "delta rules, target quadratic", "the delta rule puts what depends on the state; every query with every key does not say it" },
	[WEIGHING] = { "a mask that weighs keys, with gates, windows or convolutions",
	               "its mask weighs keys; gates, windows and convolutions know only hidden ones" },
	[CAUSAL_IMAGE] = { "causality, with lit", "it is causal; tokens of an image look both ways" },
	[NO_IMAGE] = { "a number of tokens that is no image's, with lit", "its tokens are no square image; --grid says their rows and columns" },
	[LOOKS_BACK] = { "no causality, with windows and short convolutions", "it is not causal; windows and short convolutions look back" },
	[OWN_SCALE] = { "--norm, with gates, delta rules and windows", "what keeps its output to scale is part of the mechanism" },
	[ODD] = { "--degree odd, divided by the sum of weights", "weights of an odd degree may be negative, so their sum is nothing to divide by" },
	[FAR_POSITIONS] = { "cosformer beside a window", "its features depend on positions, which the window's other side has no more" },
	[TERRACED] = { "ALiBi's bias and --sinks, with terraced windows", "terraced windows know neither sinks nor what fades with distance" },
	[BIAS] = { "a bias or mask of query and key", "its mask or bias is not a function of the key alone" },
	[UNKNOWN_MASK] = { "a mask that is an input", "its mask is not known until run time" },
	[MASK_OF_HEADS] = { "a mask that differs between heads of one key head", "its mask differs between the query heads of one key head" },
	[STEP_LENGTH] = { "a padding mask longer than the tokens, targets step and chunk", "its padding mask is not as long as the tokens are many; a step model sees those" },
	[STEP_WEIGHING] = { "a mask that weighs keys, targets step and chunk",
	                    "its mask weighs keys by their place in the whole sequence; a step model sees only the tokens it is given" },
};

static const struct carried carried[] = {
	{ "causal, equal lengths", CARRY_EXACT, "the form itself" },
	{ "no causality, cross attention", CARRY_EXACT, "three products; in step and chunk models cross attention too, as its keys are no tokens" },
	{ "grouped and multi-query heads", CARRY_EXACT, "one key map and one state a key head" },
	{ "scale", CARRY_EXACT, "a factor sqrt(scale) before maps that need it; it cancels or is dropped otherwise" },
	{ "heads side by side, [B, T, H D]", CARRY_EXACT, "are laid out one by one first" },
	{ "biases of projections, q and k normalisation", CARRY_EXACT, "stay in front of the map" },
	{ "key/value caches as inputs and outputs", CARRY_EXACT,
	  "go away, and what was as long as they were: step and chunk models have states instead, all others take whole sequences" },
	{ "com.microsoft Attention, MultiHeadAttention and GroupQueryAttention", CARRY_EXACT,
	  "are said as Attention first: biases and rotation stand in front, padding is a mask, caches are its own; padding behind the tokens, which seqlens_k "
	  "tells of, is not looked at, as no token before it sees it" },
	{ "the same with sinks, quantised or circular caches, normalisation, beams, queries of rank 5, scores as outputs; Attention with a past", CARRY_NOT,
	  "stay as they are and are not recognised" },
	{ "positions", CARRY_EXACT, "an input stays one; what counts from 0, or behind the cache, counts from `position` in step and chunk models, and sums over the tokens so far go on from `past_sum.N`" },
	{ "padding mask, a function of the key alone", CARRY_EXACT,
	  "a factor of the key's features, 0 or 1, or exp of the bias; nothing fades over hidden tokens; in step and chunk models the mask of the tokens given, while an input of sequence lengths counts from the first token of all" },
	{ "the same with short convolutions and windows", CARRY_EXACT, "hidden keys and values count as 0; no query sees them but their own" },
	{ "ALiBi's bias, causal", CARRY_EXACT,
	  "fades by exp(-slope) a token, in windows a bias; a state for each query head where slopes differ within a key head" },
	{ "the same with a padding mask", CARRY_EXACT,
	  "both; nothing fades over hidden tokens, so where some lie between others a bias that counts those too is another" },
	{ "sliding window of the source, causal", CARRY_EXACT,
	  "stays softmax over that window, in blocks, or with the last tokens' keys and values as states (mechanism window, whatever was asked for)" },
	{ "soft cap within windows", CARRY_EXACT, "softmax over a window keeps it" },
	{ "softmax itself", CARRY_APPROX, "what the mechanism puts in its place" },
	{ "soft cap", CARRY_APPROX, "dropped: part of what the map approximates" },
	{ "rotary embedding", CARRY_APPROX,
	  "stays in front of the map, so weights depend on distances only roughly; gates look at keys before it, hgrn2, supra and Liger's work on those" },
};

bool carried_at(int i, struct carried *out)
{
	int n = (int)(sizeof carried / sizeof *carried), refusal = i - n + NONE + 1;

	if (i < 0 || refusal >= NREFUSAL)
		return false;
	*out = i < n ? carried[i] : (struct carried){ refusals[refusal].source, CARRY_NOT, refusals[refusal].reason };
	return true;
}

enum { Q, K, V, MASK, PAST_K, PAST_V, NONPAD };

static value_id input(const struct node *n, uint32_t i)
{
	return i < n->nin ? n->in[i] : 0;
}

bool attention_causal(const struct node *n)
{
	return node_attr(n, "is_causal")->i != 0 || node_attr(n, "right_window_size")->i == 0;
}

int64_t attention_window(const struct node *n)
{
	int64_t left = node_attr(n, "left_window_size")->i;

	return left >= 0 && left < INT32_MAX && attention_causal(n) ? left + 1 : 0;
}

/* Keys are no tokens of the step model: another sequence. */
static bool crosses(const struct graph *g, const struct node *n)
{
	return !attention_causal(n) && g->value[n->in[Q]].type.shape.d[2] != g->value[n->in[K]].type.shape.d[2];
}

/* Of the source alone. */
static enum refusal of_source(const struct view *w, const struct node *n, const struct convert_opt *opt)
{
	const struct graph *g = w->g;
	const struct shape *q = &g->value[n->in[Q]].type.shape, *k = &g->value[n->in[K]].type.shape, *v = &g->value[n->in[V]].type.shape;
	int64_t width = attention_window(n);

	if (q->rank != 4 || k->rank != 4 || v->rank != 4)
		return LAYOUT;
	if (!dim_is_int(q->d[1]) || !dim_is_int(k->d[1]) || !dim_is_int(q->d[3]) || !dim_is_int(v->d[3]) || k->d[1] <= 0 ||
	    q->d[1] % k->d[1])
		return UNKNOWN_HEADS;
	if (input(n, PAST_K) || input(n, NONPAD))
		return CACHE;
	for (uint32_t i = 1; i < n->nout; i++)
		if (n->out[i] && (value_uses(w, n->out[i]) || value_is_output(w, n->out[i])))
			return SCORES;
	if (node_attr(n, "left_window_size")->i >= 0 || node_attr(n, "right_window_size")->i > 0)
		if (!width || opt->mechanism != mechanism_find("window") || opt->window != width)
			return AHEAD;
	if (attention_causal(n) && q->d[2] != k->d[2])
		return LENGTHS;
	return NONE;
}

/* Of what mechanism, target and options make of an order of tokens. */
static enum refusal of_order(const struct view *w, const struct node *n, const struct convert_opt *opt)
{
	bool causal = attention_causal(n);
	int64_t rows, columns;

	if (!causal && target_has_states(opt->target) && !crosses(w->g, n))
		return NO_PAST;
	if (!causal && (fade_of(opt) || opt->mechanism->build))
		return NO_ORDER;
	if (opt->target == TARGET_QUADRATIC && opt->mechanism->corrects)
		return CORRECTS;
	if (opt->mechanism->image && causal)
		return CAUSAL_IMAGE;
	if (opt->mechanism->image && (w->g->value[n->in[K]].type.shape.d[2] != w->g->value[n->in[Q]].type.shape.d[2] ||
	                              !build_grid(opt, w->g->value[n->in[Q]].type.shape.d[2], &rows, &columns)))
		return NO_IMAGE;
	if (!causal && (opt->mechanism->window || opt->window || opt->conv > 1 || opt->mechanism->conv > 1))
		return LOOKS_BACK;
	if (opt->norm && opt->mechanism->build)
		return OWN_SCALE;
	if (normaliser_of(opt) == NORM_RATIO && opt->mechanism->even && opt->degree % 2)
		return ODD;
	if (opt->window && opt->mechanism->positions)
		return FAR_POSITIONS;
	if (opt->mechanism->terraced && opt->sinks)
		return TERRACED;
	return NONE;
}

/* hides: of what the mask says, only which keys are hidden is a mask any more. */
static enum refusal of_mask(const struct view *w, const struct node *n, const struct convert_opt *opt, const struct mask *m, bool hides)
{
	const struct type *t = &w->g->value[n->in[MASK]].type;
	const struct shape *s = &t->shape, *k = &w->g->value[n->in[K]].type.shape;
	bool key_only = s->rank < 2 || s->d[s->rank - 2] == 1, window = opt->mechanism->window || opt->window;

	if ((opt->mechanism->build || window || opt->conv || opt->mechanism->conv || (fade_of(opt) && fade_of(opt)->gate)) &&
	    !m->plain && t->dt != DT_BOOL && !hides)
		return WEIGHING;
	if (!key_only && !hides && !(m->known && (m->by_key || (attention_window(n) && m->reach + 1 == attention_window(n)))))
		return m->known ? BIAS : UNKNOWN_MASK;
	if (s->rank == 4 && s->d[1] != 1 && !hides && (s->d[1] != k->d[1] || opt->heads || opt->mechanism->per_query))
		return MASK_OF_HEADS;
	if (target_has_states(opt->target) && attention_causal(n) && !m->plain && t->dt != DT_BOOL && !hides)
		return STEP_WEIGHING;
	if (target_has_states(opt->target) && attention_causal(n) && (s->rank < 1 || s->d[s->rank - 1] != k->d[2]))
		return STEP_LENGTH;
	return NONE;
}

enum linnet_code linear_check(const struct view *w, const struct node *n, const struct convert_opt *opt, struct convert_item *item,
                              struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct type *q = &g->value[n->in[Q]].type;
	const struct shape *k = &g->value[n->in[K]].type.shape, *v = &g->value[n->in[V]].type.shape;
	struct mask m = { .known = false };
	struct convert_opt counted = *opt;
	struct patch p; /* never applied */
	double *slope = NULL;
	bool hides = false;
	enum refusal why;

	if (input(n, MASK))
		TRY(mask_classify(g, n->in[MASK], &m, e));
	if (input(n, MASK) && attention_causal(n) && q->shape.rank == 4 && dim_is_int(q->shape.d[1]))
		TRY(mask_slopes(g, n->in[MASK], q->shape.d[1], w->scratch, &slope, &hides, e));
	item->node = n->name;
	item->causal = attention_causal(n);
	item->by_key = m.known && m.by_key && !attention_window(n) && !slope;
	why = of_source(w, n, opt);
	if (!why)
		why = of_order(w, n, opt);
	if (!why && slope && opt->mechanism->terraced)
		why = TERRACED;
	if (!why && input(n, MASK) && (!slope || hides)) /* slopes are another fade */
		why = of_mask(w, n, opt, &m, hides);
	item->reason = refusals[why].reason;
	if (q->shape.rank != 4 || k->rank != 4 || v->rank != 4)
		return LINNET_OK;
	item->crosses = crosses(g, n);
	item->heads = q->shape.d[1];
	item->kv_heads = k->d[1];
	item->width = q->shape.d[3];
	item->value_width = v->d[3];
	if (item->reason)
		return LINNET_OK;
	counted.target = TARGET_STEP; /* which has the states */
	patch_init(&p, g, e);
	return mechanism_apply(g, n, &counted, 0, &p, item, e);
}
