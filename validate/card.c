/* Cards: see card.h. */
#include "validate/card.h"

#include <math.h>
#include <string.h>

#include "graph/file.h"
#include "ops/base/str.h"

/* ---- JSON ---- */

static void string(struct str *t, const char *s)
{
	if (!s) {
		str_add(t, "null");
		return;
	}
	str_add(t, "\"");
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			str_addf(t, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			str_addf(t, "\\u%04x", *s);
		else
			str_addn(t, s, 1);
	str_add(t, "\"");
}

static void named(struct str *t, const char *sep, const char *name, const char *value)
{
	str_addf(t, "%s\"%s\": ", sep, name);
	string(t, value);
}

/* What JSON has no word for is a string. */
static void real(struct str *t, const char *name, double x)
{
	str_addf(t, isfinite(x) ? ", \"%s\": %.3g" : ", \"%s\": \"%g\"", name, x);
}

static const char *truth(bool b) { return b ? "true" : "false"; }

/* ---- Parts ---- */

/* Those that were given, or chosen by a recipe. */
static void options(struct str *t, const struct convert_request *r, const struct convert_opt *o)
{
	const struct {
		const char *name, *value;
	} text[] = { { "layers", o->layers }, { "fade", o->fade }, { "norm", o->norm }, { "heads", r->heads }, { "map", r->map ? r->map_name : NULL },
		     { "grid", r->grid }, { "state", r->state } };
	const struct {
		const char *name;
		int64_t value;
	} number[] = { { "features", o->features }, { "degree", r->degree }, { "horizon", r->horizon }, { "seed", r->seed }, { "conv", o->conv },
		       { "window", o->window }, { "sinks", r->sinks }, { "chunk", r->chunk }, { "opset", r->opset } };
	const char *sep = "";

	str_add(t, " \"options\": {");
	for (size_t i = 0; i < sizeof text / sizeof *text; i++)
		if (text[i].value) {
			named(t, sep, text[i].name, text[i].value);
			sep = ", ";
		}
	for (size_t i = 0; i < sizeof number / sizeof *number; i++)
		if (number[i].value) {
			str_addf(t, "%s\"%s\": %lld", sep, number[i].name, (long long)number[i].value);
			sep = ", ";
		}
	str_add(t, "},\n");
}

static void layers(struct str *t, const struct convert_report *r)
{
	str_add(t, " \"layers\": [");
	for (uint32_t i = 0; i < r->nitem; i++) {
		const struct convert_item *c = &r->item[i];

		str_addf(t, "%s\n  {\"index\": %u", i ? "," : "", i);
		named(t, ", ", "node", c->node);
		named(t, ", ", "mechanism", c->converted ? c->mechanism->name : NULL);
		str_addf(t, ", \"heads\": %lld, \"kv_heads\": %lld, \"head_dim\": %lld, \"causal\": %s, \"converted\": %s", (long long)c->heads,
		         (long long)c->kv_heads, (long long)c->width, truth(c->causal), truth(c->converted));
		if (c->window)
			str_addf(t, ", \"window\": %lld", (long long)c->window);
		named(t, ", ", "reason", c->reason);
		named(t, ", ", "state", c->state);
		str_addf(t, ", \"state_numbers\": %lld, \"features\": %lld}", (long long)c->state_numbers, (long long)c->features);
	}
	str_add(t, "\n ],\n");
}

/* Inputs past_X and position with their outputs. */
static void states(struct str *t, const struct graph *g)
{
	const char *sep = "";

	str_add(t, " \"states\": [");
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct value *v = &g->value[g->in[i]];
		bool past = !strncmp(v->name, "past_", 5);

		if (!past && strcmp(v->name, "position"))
			continue;
		str_addf(t, "%s\n  {", sep);
		named(t, "", "input", v->name);
		str_add(t, ", \"output\": \"present_");
		str_add(t, v->name + (past ? 5 : 0));
		str_addf(t, "\", \"type\": \"%s\", \"shape\": [", dtype_name(v->type.dt));
		for (int k = 0; k < v->type.shape.rank; k++) {
			dim d = v->type.shape.d[k];

			str_add(t, k ? ", " : "");
			if (dim_is_int(d))
				str_addf(t, "%lld", (long long)d);
			else
				string(t, dim_str(g->dims, d, t->a));
		}
		str_add(t, "]}");
		sep = ",";
	}
	str_addf(t, "%s],\n", *sep ? "\n " : "");
}

static void certificate(struct str *t, const struct agreement *a)
{
	str_add(t, " \"agreement\": {");
	if (a->skipped) {
		named(t, "", "skipped", a->skipped);
		str_add(t, "}\n");
		return;
	}
	str_addf(t, "\"agree\": %s, \"with\": \"portable\", \"tokens\": %lld, \"seed\": %llu", truth(a->agree), (long long)a->tokens,
	         (unsigned long long)a->seed);
	if (a->window)
		str_addf(t, ", \"window\": %d", a->window);
	real(t, "condition", a->condition);
	str_add(t, ", \"targets\": [");
	for (int i = 0; i < a->npair; i++) {
		const struct agreement_pair *p = &a->pair[i];

		str_addf(t, "%s\n  {\"target\": \"%s\"", i ? "," : "", target_names[p->target]);
		if (p->failed) {
			named(t, ", ", "not_run", p->failed);
			str_add(t, "}");
			continue;
		}
		named(t, ", ", "computed_in", p->narrow ? "float" : "double");
		real(t, "nmse", p->nmse);
		real(t, "bound", p->bound);
		str_addf(t, ", \"agrees\": %s}", truth(p->agrees));
	}
	str_add(t, "\n ]}\n");
}

enum linnet_code card_text(const struct card *c, struct arena *a, const char **text, struct linnet_error *e)
{
	const struct mechanism *m = c->opt->mechanism;
	struct str t;

	str_init(&t, a);
	str_add(&t, "{\n \"schema\": \"linnet/1\",\n \"kind\": \"card\",\n");
	named(&t, " ", "linnet", c->version);
	named(&t, ",\n ", "file", c->file);
	named(&t, ",\n ", "made_from", c->source);
	named(&t, ",\n ", "mechanism", m->name);
	named(&t, ",\n ", "paper", m->source);
	named(&t, ",\n ", "target", target_names[c->opt->target]);
	str_addf(&t, ",\n \"opset\": %d,\n \"calibrated\": %s,\n", c->report->opset, truth(c->calibration));
	if (c->calibration)
		str_addf(&t, " \"calibration\": %s,\n", c->calibration);
	options(&t, c->request, c->opt);
	layers(&t, c->report);
	states(&t, c->g);
	certificate(&t, c->agreement);
	str_add(&t, "}\n");
	*text = str_done(&t);
	return *text ? LINNET_OK : fail_mem(e);
}

static enum linnet_code write_text(struct file_out *f, const void *text, struct arena *a, struct linnet_error *e)
{
	(void)a;
	return file_write(f, text, strlen(text), e);
}

enum linnet_code card_save(const struct card *c, const char *path, struct linnet_error *e)
{
	struct arena *a = arena_new();
	const char *text = NULL;
	enum linnet_code code = a ? card_text(c, a, &text, e) : fail_mem(e);

	if (!code)
		code = file_save(path, write_text, text, e);
	arena_free(a);
	return code;
}
