/* linnet show: what is in a model. */
#include <stdlib.h>
#include <string.h>

#include "cli/blocks.h"
#include "cli/model.h"
#include "graph/pass.h"
#include "graph/recognise.h"
#include "graph/text.h"

struct show_opt {
	bool attention, blocks, text, types, passes, full, plain;
	const char *svg, *html;
};

/* ---- As text ---- */

static int show_text(struct linnet_model *m, const struct show_opt *opt)
{
	struct text_opt o = { .max_elements = opt->full ? 0 : 16, .plain = opt->plain };
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	char *text;
	int status = EXIT_YES;

	if (!a || text_print_model(m, &o, a, &text, &e))
		status = report_error(&e);
	else
		fputs(text, stdout);
	arena_free(a);
	return status;
}

/* ---- The table of nodes ---- */

static json_t *types_json(const struct graph *g, const value_id *v, uint32_t n, struct arena *a)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(list, v[i] ? json_pack("{s:s, s:s}", "name", g->value[v[i]].name, "type",
		                                             type_words(g, &g->value[v[i]].type, a))
		                                 : json_null());
	return list;
}

static void add_words(struct table *t, const struct graph *g, const value_id *v, uint32_t n, struct arena *a)
{
	char text[160] = "";
	size_t at = 0;

	for (uint32_t i = 0; i < n && at < sizeof text; i++)
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", i ? ", " : "",
		                       v[i] ? type_words(g, &g->value[v[i]].type, a) : "-");
	if (at >= sizeof text)
		memcpy(text + sizeof text - 4, "...", 4);
	table_add(t, "%s", text);
}

static void show_nodes(const struct graph *g, struct arena *a, int depth)
{
	struct table t;

	table_init(&t, 4, "llll");
	if (!globals.json) {
		table_add(&t, "node");
		table_add(&t, "operator");
		table_add(&t, "inputs");
		table_add(&t, "outputs");
	}
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];

		if (n->dead)
			continue;
		if (globals.json) {
			json_line(json_pack("{s:s, s:s, s:s, s:i, s:o, s:o}", "name", n->name, "operator", n->op->name, "domain",
			                    n->op->domain ? n->op->domain : "", "depth", depth, "inputs", types_json(g, n->in, n->nin, a),
			                    "outputs", types_json(g, n->out, n->nout, a)),
			          "node");
			continue;
		}
		table_add(&t, "%*s%s", depth * 2, "", *n->name ? n->name : n->nout && n->out[0] ? g->value[n->out[0]].name : "");
		table_add(&t, "%s%s%s", n->op->domain ? n->op->domain : "", n->op->domain && *n->op->domain ? "." : "", n->op->name);
		add_words(&t, g, n->in, n->nin, a);
		add_words(&t, g, n->out, n->nout, a);
	}
	table_print(&t, stdout, true);
	for (node_id id = 1; id < g->nnode; id++)
		for (uint32_t i = 0; i < g->node[id].nattr; i++)
			if (g->node[id].attr[i].kind == ATTR_GRAPH) {
				if (!globals.json)
					printf("\n%s%s %s%s\n", style(stdout, BOLD), g->node[id].name, g->node[id].attr[i].name,
					       style(stdout, RESET));
				show_nodes(g->node[id].attr[i].g, a, depth + 1);
			}
}

/* Numbers in constants that are weights: floats of more than one element. */
static int64_t parameters(const struct graph *g, int64_t *bytes)
{
	int64_t n = 0;

	*bytes = 0;
	for (value_id v = 1; v < g->nvalue; v++) {
		const struct tensor *t = g->value[v].kind == VALUE_CONST ? g->value[v].type.value : NULL;

		if (!t)
			continue;
		*bytes += (int64_t)t->bytes;
		if (dtype_class(t->dt) == CLASS_FLOAT && t->n > 1)
			n += t->n;
	}
	return n;
}

static void show_summary(const struct linnet_model *m, const char *path, struct arena *a)
{
	const struct graph *g = m->graph;
	int64_t bytes, n = parameters(g, &bytes);
	char buf[32];

	if (globals.json) {
		json_t *opsets = json_object();

		for (uint32_t i = 0; i < m->nopset; i++)
			json_object_set_new(opsets, *m->opset[i].domain ? m->opset[i].domain : "ai.onnx", json_integer(m->opset[i].version));
		json_line(json_pack("{s:s, s:o, s:i, s:I, s:I, s:o, s:o}", "file", path, "opset", opsets, "nodes", (int)g->nnode - 1,
		                    "parameters", (json_int_t)n, "constant_bytes", (json_int_t)bytes, "inputs",
		                    types_json(g, g->in, g->nin, a), "outputs", types_json(g, g->out, g->nout, a)),
		          "model");
		return;
	}
	printf("%s%s%s  %u nodes, %lld parameters, %s of constants, opset", style(stdout, BOLD), path, style(stdout, RESET), g->nnode - 1,
	       (long long)n, human_bytes(bytes, buf, sizeof buf));
	for (uint32_t i = 0; i < m->nopset; i++)
		printf(" %s%s%lld", m->opset[i].domain, *m->opset[i].domain ? " " : "", (long long)m->opset[i].version);
	putchar('\n');
	for (uint32_t i = 0; i < g->nin; i++)
		printf("  input  %s %s\n", g->value[g->in[i]].name, type_words(g, &g->value[g->in[i]].type, a));
	for (uint32_t i = 0; i < g->nout; i++)
		printf("  output %s %s\n", g->value[g->out[i]].name, type_words(g, &g->value[g->out[i]].type, a));
}

/* ---- Attention ---- */

/* A length; null where the graph does not tell it. */
static json_t *length_json(int64_t n) { return n < 0 ? json_null() : json_integer(n); }

static void add_length(struct table *t, int64_t n)
{
	if (n < 0)
		table_add(t, "?");
	else
		table_add(t, "%lld", (long long)n);
}

json_t *attention_json(const struct attention_group *f)
{
	json_t *j = json_pack("{s:s, s:o, s:o, s:o, s:b, s:s, s:f, s:o, s:b, s:b, s:b, s:i}", "kind", f->kind, "heads", length_json(f->heads),
	                      "kv_heads", length_json(f->kv_heads), "head_dim", length_json(f->head_dim), "causal", f->causal, "mask", f->mask,
	                      "scale", f->scale, "softcap", f->softcap > 0 ? json_real(f->softcap) : json_null(), "rope", f->rope, "qk_norm",
	                      f->qk_norm, "kv_cache", f->kv_cache, "count", f->count);

	if (f->value_dim != f->head_dim)
		json_object_set_new(j, "v_head_dim", length_json(f->value_dim));
	if (f->window >= 0)
		json_object_set_new(j, "window", json_integer(f->window));
	if (f->padding)
		json_object_set_new(j, "padding", json_true());
	if (!f->rewritable)
		json_object_set_new(j, "rewritable", json_false());
	if (f->sink)
		json_object_set_new(j, "sink", json_true());
	return j;
}

json_t *glu_json(const struct glu_group *f)
{
	json_t *j = json_pack("{s:s, s:i, s:b}", "variant", f->variant, "count", f->count, "fused_weight", f->fused_weight);

	if (f->alpha != 1)
		json_object_set_new(j, "alpha", json_real(f->alpha));
	return j;
}

static json_t *linear_json(const struct linear_group *f)
{
	json_t *j = json_pack("{s:s%, s:I, s:I, s:I, s:f, s:i}", "rule", f->rule.p, f->rule.n, "heads", (json_int_t)f->heads, "kv_heads", (json_int_t)f->kv_heads,
	                      "head_dim", (json_int_t)f->head_dim, "scale", f->scale, "count", f->count);

	if (f->decay)
		json_object_set_new(j, "decay", json_string(f->decay));
	if (f->state)
		json_object_set_new(j, "state", json_true());
	return j;
}

static json_t *causal_json(const struct causal_group *f)
{
	return json_pack("{s:I, s:I, s:s, s:b, s:i}", "channels", (json_int_t)f->channels, "taps", (json_int_t)f->taps, "activation", f->silu ? "silu" : "none",
	                 "state", f->state, "count", f->count);
}

static void recognised_json(const struct recognised *r)
{
	json_t *attention = json_array(), *glu = json_array(), *norms = json_object(), *linear = json_array(), *causal = json_array(), *all;

	for (int i = 0; i < r->nattention; i++)
		json_array_append_new(attention, attention_json(&r->attention[i]));
	for (int i = 0; i < r->nglu; i++)
		json_array_append_new(glu, glu_json(&r->glu[i]));
	for (int i = 0; i < NORM_KINDS; i++)
		if (r->norm[i] && i != NORM_L2)
			json_object_set_new(norms, norm_names[i], json_integer(r->norm[i]));
	for (int i = 0; i < r->nlinear; i++)
		json_array_append_new(linear, linear_json(&r->linear[i]));
	all = json_pack("{s:o, s:o, s:o}", "attention", attention, "glu", glu, "norms", norms);
	if (r->nlinear)
		json_object_set(all, "linear_attention", linear);
	for (int i = 0; i < r->ncausal; i++)
		json_array_append_new(causal, causal_json(&r->causal[i]));
	if (r->ncausal)
		json_object_set(all, "causal_conv", causal);
	json_decref(linear);
	json_decref(causal);
	if (r->norm[NORM_L2]) /* an operation on heads or features as it were, not one of the network's normalisations */
		json_object_set_new(all, norm_names[NORM_L2], json_integer(r->norm[NORM_L2]));
	if (r->sinusoidal)
		json_object_set_new(all, "sinusoidal", json_integer(r->sinusoidal));
	json_line(all, "recognised");
}

static const char *yes(bool b)
{
	return b ? "yes" : "no";
}

static enum linnet_code show_recognised(const struct graph *g, struct arena *a, int *status, struct linnet_error *e)
{
	struct recognised r;
	struct table t;

	TRY(graph_recognised(g, a, &r, e));
	*status = r.nattention ? EXIT_YES : EXIT_NO;
	if (globals.json) {
		recognised_json(&r);
		return LINNET_OK;
	}
	table_init(&t, 12, "rlrrrllrrlll");
	for (const char *const *h = (const char *const[]){ "count", "attention", "heads", "kv heads", "width", "causal", "mask", "scale", "soft cap",
	                                                   "rotary", "q/k norm", "cache", NULL };
	     r.nattention && *h; h++)
		table_add(&t, "%s", *h);
	for (int i = 0; i < r.nattention; i++) {
		const struct attention_group *f = &r.attention[i];

		table_add(&t, "%d", f->count);
		table_add(&t, "%s%s", f->kind, f->rewritable ? "" : " (stays)");
		add_length(&t, f->heads);
		add_length(&t, f->kv_heads);
		add_length(&t, f->head_dim);
		table_add(&t, "%s", yes(f->causal));
		if (f->window >= 0)
			table_add(&t, "%s %lld%s", f->mask, (long long)f->window, f->padding ? " + padding" : "");
		else
			table_add(&t, "%s%s", f->mask, f->padding ? " + padding" : "");
		table_add(&t, "%.6g", f->scale);
		table_add(&t, f->softcap > 0 ? "%g" : "no", f->softcap);
		table_add(&t, "%s", yes(f->rope));
		table_add(&t, "%s", yes(f->qk_norm));
		table_add(&t, "%s", yes(f->kv_cache));
	}
	if (r.nattention)
		table_print(&t, stdout, true);
	else
		note("no softmax attention was recognised");
	for (int i = 0; i < r.nglu; i++)
		printf("%d %s%s\n", r.glu[i].count, r.glu[i].variant, r.glu[i].fused_weight ? ", one projection" : "");
	for (int i = 0; i < r.nlinear; i++)
		printf("%d LinearAttention, %.*s, heads %lld/%lld, width %lld, scale %.6g%s%s%s\n", r.linear[i].count, (int)r.linear[i].rule.n, r.linear[i].rule.p,
		       (long long)r.linear[i].heads, (long long)r.linear[i].kv_heads, (long long)r.linear[i].head_dim, r.linear[i].scale,
		       r.linear[i].decay ? ", decay " : "", r.linear[i].decay ? r.linear[i].decay : "", r.linear[i].state ? ", with a state" : "");
	for (int i = 0; i < r.ncausal; i++)
		printf("%d CausalConvWithState, channels %lld, taps %lld%s%s\n", r.causal[i].count, (long long)r.causal[i].channels, (long long)r.causal[i].taps,
		       r.causal[i].silu ? ", silu" : "", r.causal[i].state ? ", with a state" : "");
	for (int i = 0; i < NORM_KINDS; i++)
		if (r.norm[i])
			printf("%d %s\n", r.norm[i], norm_names[i]);
	if (r.sinusoidal)
		printf("%d sinusoidal positions\n", r.sinusoidal);
	return LINNET_OK;
}

/* ---- Types that inference could not tell ---- */

static void show_unknown(const struct graph *g, int *count)
{
	for (value_id v = 1; v < g->nvalue; v++) {
		const struct type *t = &g->value[v].type;
		bool bad = t->dt == DT_UNDEFINED || t->shape.rank < 0;

		if (g->value[v].kind == VALUE_NODE && g->node[g->value[v].producer].dead)
			continue;
		for (int i = 0; i < t->shape.rank; i++)
			bad = bad || t->shape.d[i] == DIM_NONE;
		if (!bad)
			continue;
		printf("%s (%s)\n", g->value[v].name, g->value[v].kind == VALUE_NODE ? g->node[g->value[v].producer].op->name : "input");
		++*count;
	}
	for (node_id id = 1; id < g->nnode; id++)
		for (uint32_t i = 0; i < g->node[id].nattr; i++)
			if (g->node[id].attr[i].kind == ATTR_GRAPH)
				show_unknown(g->node[id].attr[i].g, count);
}

/* ---- Blocks ---- */

static enum linnet_code show_blocks(const struct graph *g, const char *path, const struct show_opt *o, struct arena *a, struct linnet_error *e)
{
	struct block *top;

	TRY(graph_blocks(g, true, a, &top, e));
	if (o->svg)
		TRY(blocks_draw(top, path, o->svg, false, a, e));
	if (o->html)
		TRY(blocks_draw(top, path, o->html, true, a, e));
	return o->blocks ? blocks_show(top, a, e) : LINNET_OK;
}

static int show_run(void *opt, int argc, char **argv)
{
	const struct show_opt *o = opt;
	struct linnet_error e = { 0 };
	struct linnet_model *m;
	struct arena *a;
	bool blocks = o->blocks || o->svg || o->html;
	int status, unknown = 0;

	(void)argc;
	status = o->text && !o->passes ? open_container(argv[0], &m) : open_model(argv[0], &m);
	if (status)
		return status;
	a = arena_new();
	if (!a)
		fail_mem(&e);
	else if (o->attention || blocks)
		pass_read_all(m->graph, &e);
	else if (o->passes)
		pass_run_all(m->graph, NULL, &e);
	if (!e.code && o->attention && !o->text)
		show_recognised(m->graph, a, &status, &e);
	if (!e.code && blocks)
		show_blocks(m->graph, argv[0], o, a, &e);
	if (!e.code && o->passes && o->text)
		graph_export(m, OPSET_NEWEST, &e);
	if (e.code) {
		err_file(&e, e.code, argv[0]);
		status = report_error(&e);
	} else if (o->text) {
		status = show_text(m, o);
	} else if (o->attention || blocks) {
		; /* shown already */
	} else if (o->types) {
		show_unknown(m->graph, &unknown);
		status = unknown ? EXIT_NO : EXIT_YES;
	} else {
		show_summary(m, argv[0], a);
		if (!globals.json)
			putchar('\n');
		show_nodes(m->graph, a, 0);
	}
	arena_free(a);
	model_free(m);
	return status;
}

const struct command show_command = {
	.name = "show",
	.summary = "Show what is in a model",
	.operands = "MODEL",
	.details = "Without options: a summary and a table of nodes in current operators, with the inferred types of their inputs and outputs.",
	.examples = "linnet show model.onnx\nlinnet show --attention model.onnx\nlinnet show --blocks --svg blocks.svg model.onnx\nlinnet show --text model.onnx",
	.opt = (const struct opt[]){
		{ "attention", 'a', OPT_FLAG, OPT(struct show_opt, attention), NULL, "recognise attention, gated linear units and norms and list them", NULL },
		{ "blocks", 'b', OPT_FLAG, OPT(struct show_opt, blocks), NULL, "the structure of the network: parts, layers, blocks", NULL },
		{ "svg", 0, OPT_STRING, OPT(struct show_opt, svg), "FILE", "draw the structure", NULL },
		{ "html", 0, OPT_STRING, OPT(struct show_opt, html), "FILE", "the drawing as a page", NULL },
		{ "text", 't', OPT_FLAG, OPT(struct show_opt, text), NULL, "the model in ONNX's textual syntax", NULL },
		{ "full", 0, OPT_FLAG, OPT(struct show_opt, full), NULL, "with --text: weights in full", NULL },
		{ "plain", 0, OPT_FLAG, OPT(struct show_opt, plain), NULL, "with --text: only what the onnx package reads", NULL },
		{ "passes", 'p', OPT_FLAG, OPT(struct show_opt, passes), NULL, "after the exact passes", NULL },
		{ "types", 0, OPT_FLAG, OPT(struct show_opt, types), NULL, "list the values whose type could not be inferred", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = 1,
	.size = sizeof(struct show_opt),
	.run = show_run,
};
