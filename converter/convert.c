/* Converting a model: which attention, what becomes of each, and what the target needs around it. */
#include "converter/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const target_names[NTARGET] = {
	[TARGET_ONNX] = "onnx",
	[TARGET_ORT] = "ort",
	[TARGET_PORTABLE] = "portable",
	[TARGET_QUADRATIC] = "quadratic",
	[TARGET_STEP] = "step",
	[TARGET_CHUNK] = "chunk",
};

const char *const target_docs[NTARGET] = {
	[TARGET_ONNX] = "the LinearAttention operator, opset 27",
	[TARGET_ORT] = "LinearAttention of com.microsoft",
	[TARGET_PORTABLE] = "standard operators of opset 17: matrix products within a chunk, Scan across chunks",
	[TARGET_QUADRATIC] = "standard operators of opset 17: every query with every key",
	[TARGET_STEP] = "standard operators of opset 17, tokens as they come, with named states in and out",
	[TARGET_CHUNK] = "the same, made for many tokens at a time: chunks as in portable",
};

/* ---- Which layers ---- */

/* The layers of an item, "all", "3", "2-4": [from, to). */
static enum linnet_code layers_of(const char *s, size_t n, unsigned long *from, unsigned long *to, uint32_t count, struct linnet_error *e)
{
	const char *p = s + (*s == '-'), *end = s + n;
	char *after;

	*from = 0;
	*to = count;
	if (end - p == 3 && !memcmp(p, "all", 3))
		return LINNET_OK;
	*from = strtoul(p, &after, 10);
	if (after == p)
		return fail(e, LINNET_EUSAGE, "\"%.*s\" is no layer, range of layers or \"all\"", (int)n, s);
	*to = *from;
	p = after;
	if (p < end && *p == '-') {
		*to = strtoul(p + 1, &after, 10);
		if (after == p + 1 || *to < *from)
			return fail(e, LINNET_EUSAGE, "\"%.*s\" is no range of layers", (int)n, s);
		p = after;
	}
	if (p != end)
		return fail(e, LINNET_EUSAGE, "\"%.*s\" is no layer, range of layers or \"all\"", (int)n, s);
	if (*to >= count)
		return fail(e, LINNET_EUSAGE, "there is no layer %lu; the model has %u attentions, counted from 0", *to, count);
	++*to;
	return LINNET_OK;
}

/* What a layer becomes: no mechanism, it stays; window 0, that of all. */
struct choice {
	const struct mechanism *m;
	int window;
};

/* One item of the list, layers with an optional '-' in front or "=mechanism" or "=mechanism/window" behind. */
static enum linnet_code select_item(const char *s, size_t n, const struct mechanism *m, struct choice *on, uint32_t count,
                                    struct linnet_error *e)
{
	size_t layers = 0;
	unsigned long from, to, window = 0;
	char name[64], *slash, *after;

	while (layers < n && s[layers] != '=')
		layers++;
	if (layers < n) {
		snprintf(name, sizeof name, "%.*s", (int)(n - layers - 1), s + layers + 1);
		slash = strchr(name, '/');
		if (slash) {
			*slash = '\0';
			window = strtoul(slash + 1, &after, 10);
			if (after == slash + 1 || *after || window < 1 || window > 65536)
				return fail(e, LINNET_EUSAGE, "\"%s\" is no window; it is 1 to 65536 tokens", slash + 1);
		}
		m = mechanism_find(name);
		if (!m)
			return fail(e, LINNET_EUSAGE, "there is no mechanism \"%s\"", name);
		if (*s == '-')
			return fail(e, LINNET_EUSAGE, "\"%.*s\" takes layers away and names a mechanism", (int)n, s);
	}
	TRY(layers_of(s, layers, &from, &to, count, e));
	for (unsigned long i = from; i < to; i++)
		on[i] = *s == '-' ? (struct choice){ NULL, 0 } : (struct choice){ m, (int)window };
	return LINNET_OK;
}

/* "0,2-4" is just these; a list that starts by taking away starts from all. */
static enum linnet_code select_layers(const char *list, const struct mechanism *m, struct choice *on, uint32_t count, struct linnet_error *e)
{
	const char *s = list ? list : "all";

	for (uint32_t i = 0; i < count; i++)
		on[i] = (struct choice){ *s == '-' ? m : NULL, 0 };
	while (*s) {
		size_t n = strcspn(s, ",");

		if (!n)
			return fail(e, LINNET_EUSAGE, "empty item in the list of layers \"%s\"", list);
		TRY(select_item(s, n, m, on, count, e));
		s += n + (s[n] == ',');
	}
	return LINNET_OK;
}

/* ---- Converting ---- */

struct job {
	struct linnet_model *m;
	struct graph *g;
	const struct convert_opt *opt;
	struct convert_report *report;
	struct arena *scratch;
};

/* The first attention that is not converted yet, in order of execution, after `done` of them. */
static enum linnet_code list_attention(struct job *j, node_id **list, uint32_t *n, struct linnet_error *e)
{
	node_id *order;
	uint32_t count;

	*n = 0;
	TRY(graph_order(j->g, j->scratch, &order, &count, e));
	TRY_NEW(*list, j->scratch, count + 1);
	for (uint32_t i = 0; i < count; i++)
		if (node_is(&j->g->node[order[i]], "Attention"))
			(*list)[(*n)++] = order[i];
	return LINNET_OK;
}

static enum linnet_code refuse(const struct convert_item *item, uint32_t layer, const char *why, struct linnet_error *e)
{
	return err_node(e, fail(e, LINNET_EUNSUPPORTED, "attention %u stays softmax: %s", layer, why), item->node, "Attention");
}

/* A window of the source stays one, whatever was asked for: it is linear in the length already, and in step models its states are its last tokens. */
static void keep_window(struct convert_opt *opt, int64_t width)
{
	opt->mechanism = mechanism_find("window");
	opt->window = (int)width;
	opt->sinks = 0;
	opt->conv = 0;
	opt->features = 0;
	opt->fade = opt->norm = opt->heads = NULL;
}

/* Decide each attention's fate and fill the report. */
static enum linnet_code survey(struct job *j, const node_id *list, uint32_t n, struct linnet_error *e)
{
	struct view w = { .g = j->g, .scratch = j->scratch };
	struct convert_report *r = j->report;
	struct choice *on;

	TRY_NEW(on, j->scratch, n);
	TRY_NEW(r->item, j->m->arena, n);
	r->nitem = n;
	TRY(select_layers(j->opt->layers, j->opt->mechanism, on, n, e));
	TRY(graph_uses(j->g, j->scratch, &w.uses, e));
	for (uint32_t i = 0; i < n; i++) {
		struct convert_item *item = &r->item[i];
		struct convert_opt opt = *j->opt;
		int64_t width = attention_window(&j->g->node[list[i]]);

		opt.mechanism = on[i].m ? on[i].m : j->opt->mechanism;
		opt.window = item->own_window = on[i].window ? on[i].window : opt.window;
		if (width && (on[i].m || target_has_states(opt.target))) {
			keep_window(&opt, width);
			on[i].m = opt.mechanism;
			item->window = width;
		}
		item->mechanism = on[i].m;
		TRY(linear_check(&w, &j->g->node[list[i]], &opt, item, e));
		item->selected = on[i].m != NULL;
		if (!on[i].m)
			item->reason = "it was not selected";
		item->converted = !item->reason;
		if (item->converted)
			r->nconverted++;
		else if ((target_has_states(j->opt->target) && !item->crosses) || (j->opt->strict && on[i].m))
			return refuse(item, i, item->reason, e);
	}
	return LINNET_OK;
}

static enum linnet_code convert_one(struct job *j, node_id id, uint32_t layer, struct linnet_error *e)
{
	struct convert_opt opt = *j->opt;
	struct patch p;

	opt.mechanism = j->report->item[layer].mechanism;
	opt.window = j->report->item[layer].own_window;
	if (j->report->item[layer].window)
		keep_window(&opt, j->report->item[layer].window);
	patch_init(&p, j->g, e);
	TRY(mechanism_apply(j->g, &j->g->node[id], &opt, layer, &p, &j->report->item[layer], e));
	return patch_apply(j->g, &p, "linear", e);
}

/* `position` in: tokens consumed so far; `present_position` out. */
static enum linnet_code add_position(struct job *j, dim tokens, value_id v, struct linnet_error *e)
{
	struct type t = { .dt = DT_INT64, .shape = { .rank = 1, .d = { 1 } } };
	uint32_t old;
	value_id position = map_get(&j->g->names, "position", &old) && j->g->value[old].kind == VALUE_INPUT
	                    ? old : graph_add_input(j->g, "position", &t), sum;
	struct attr axis[] = { attr_int("start", 2), attr_int("end", 3), { .name = NULL } };
	struct patch p;

	if (!position)
		return fail_mem(e);
	patch_init(&p, j->g, e);
	sum = patch_node(&p, "Add", "tokens_after", PATCH_IN(position, patch_node(&p, "Shape", "tokens", PATCH_IN(v), 1, axis)), 1, NULL);
	patch_output(&p, sum, "present_position");
	TRY(patch_apply(j->g, &p, "step", e));
	return step_positions(j->g, tokens, position, e);
}

static int result_opset(const struct linnet_model *m, const struct convert_opt *opt)
{
	int own = 0;

	for (uint32_t i = 0; i < m->nopset; i++)
		if (!*m->opset[i].domain || !strcmp(m->opset[i].domain, "ai.onnx"))
			own = (int)m->opset[i].version;
	if (opt->opset)
		return opt->opset;
	switch (opt->target) {
	case TARGET_ONNX: return own > 27 ? own : 27;
	case TARGET_ORT: return own > 17 ? own : 17;
	default: return 17;
	}
}

const struct tensor *given_weight(const struct convert_opt *opt, const char *name)
{
	for (int i = 0; i < opt->ngiven; i++)
		if (!strcmp(opt->given[i].name, name))
			return opt->given[i].t;
	return NULL;
}

static enum linnet_code give_weights(struct job *j, struct linnet_error *e)
{
	for (value_id v = 1; v < j->g->nvalue && j->opt->ngiven; v++) {
		struct value *x = &j->g->value[v];
		const struct tensor *t = x->kind == VALUE_CONST ? given_weight(j->opt, x->name) : NULL;

		if (!t)
			continue;
		if (t->dt != x->type.dt || t->rank != x->type.value->rank ||
		    memcmp(t->d, x->type.value->d, (size_t)t->rank * sizeof *t->d))
			return fail(e, LINNET_ESHAPE, "the given weight \"%s\" is of another type or shape than the model's", x->name);
		x->type.value = t;
		x->origin = NULL;
	}
	return LINNET_OK;
}

/* The passes up to attention; one may open the way for another. */
static enum linnet_code recognise(struct graph *g, struct linnet_error *e)
{
	static const char *const before[] = { "tidy", "fold", "share", "scores", "attend" };
	uint32_t changes, count;

	g->reads = true;
	do {
		changes = 0;
		for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
			TRY(pass_run(pass_find(before[i]), g, &count, NULL, e));
			changes += count;
		}
	} while (changes);
	return LINNET_OK;
}

enum linnet_code convert_source(struct graph *g, struct arena *scratch, uint32_t *caches, struct linnet_error *e)
{
	TRY(source_standard(g, scratch, e));
	TRY(recognise(g, e));
	TRY(source_spread(g, e));
	TRY(cache_drop(g, scratch, caches, e));
	return recognise(g, e);
}

static enum linnet_code convert(struct job *j, struct linnet_error *e)
{
	node_id *list;
	uint32_t n, count;
	dim tokens = DIM_NONE;
	value_id v = 0;

	TRY(convert_source(j->g, j->scratch, &j->report->caches, e));
	TRY(give_weights(j, e));
	TRY(list_attention(j, &list, &n, e));
	TRY(survey(j, list, n, e));
	if (target_has_states(j->opt->target) && !n)
		return fail(e, LINNET_EUNSUPPORTED, "no attention was recognised; there is nothing to make recurrent");
	for (uint32_t i = 0; i < n; i++) {
		if (!j->report->item[i].converted)
			continue;
		if (j->report->item[i].causal) {
			tokens = j->g->value[j->g->node[list[i]].in[0]].type.shape.d[2];
			v = j->g->node[list[i]].in[2]; /* the rotated query may have no use any more */
		}
		TRY(convert_one(j, list[i], i, e));
	}
	if (target_has_states(j->opt->target) && !v)
		return fail(e, LINNET_EUNSUPPORTED, "no attention among tokens was recognised; there is nothing to make recurrent");
	if (target_has_states(j->opt->target))
		TRY(add_position(j, tokens, v, e));
	j->m->changed = true;
	TRY(graph_compact(j->g, j->scratch, e));
	TRY(graph_infer(j->g, e));
	if (j->opt->open)
		return LINNET_OK;
	TRY(pass_run(pass_find("tidy"), j->g, &count, NULL, e));
	return pass_run(pass_find("fold"), j->g, &count, NULL, e);
}

enum linnet_code convert_model(struct linnet_model *m, const struct convert_opt *opt, struct convert_report *report,
                               struct linnet_error *e)
{
	struct job j = { .m = m, .g = m->graph, .opt = opt, .report = report, .scratch = arena_new() };
	enum linnet_code code;

	if (!j.scratch)
		return fail_mem(e);
	memset(report, 0, sizeof *report);
	report->opset = result_opset(m, opt);
	code = convert(&j, e);
	arena_free(j.scratch);
	return code;
}
