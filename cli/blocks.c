/* linnet show --blocks: tables and JSON. */
#include "cli/blocks.h"

#include <string.h>

#include "cli/model.h"

const char *count_words(int64_t n, struct arena *a)
{
	double x = (double)n;

	if (n < 1)
		return "";
	return n < 10000 ? arena_fmt(a, "%lld", (long long)n) : n < 1000000 ? arena_fmt(a, "%.1f k", x / 1e3)
	       : n < 1000000000                                             ? arena_fmt(a, "%.2f M", x / 1e6)
	                                                                    : arena_fmt(a, "%.2f G", x / 1e9);
}

static int layers_in(const struct block *b)
{
	return block_count(b, BLOCK_LAYER);
}

const char *block_title(const struct block *b, struct arena *a)
{
	const char *word = b->kind == BLOCK_PART || (b->kind == BLOCK_STEP && *b->label) ? b->label : block_words[b->kind];

	if (b->kind == BLOCK_STEP && !*word && b->node)
		word = b->g->node[b->node].op->name;
	if (b->kind == BLOCK_LAYER && b->repeat > 1)
		return arena_fmt(a, "layers %d to %d", b->number, b->number + b->repeat - 1);
	if (b->kind == BLOCK_LAYER)
		return arena_fmt(a, "layer %d", b->number);
	if (b->kind == BLOCK_GROUP && b->nchild && b->child[0]->kind == BLOCK_LAYER)
		return arena_fmt(a, "layers %d to %d, %d by %d", b->child[0]->number, b->child[0]->number + layers_in(b) - 1, layers_in(b) / b->repeat,
		                 layers_in(b) / b->repeat);
	return b->repeat > 1 ? arena_fmt(a, "%s x %d", word, b->repeat) : word;
}

/* ---- JSON ---- */

static json_t *value_json(const struct graph *g, value_id v, struct arena *a)
{
	return v ? json_pack("{s:s, s:s}", "name", g->value[v].name, "type", type_words(g, &g->value[v].type, a)) : json_null();
}

static json_t *block_json(const struct block *b, struct arena *a)
{
	const char *text = block_text(b, a);
	json_t *j = json_pack("{s:s, s:s}", "block", block_words[b->kind], "text", text ? text : ""), *list;

	if (*b->label)
		json_object_set_new(j, b->kind == BLOCK_PART ? "role" : b->kind == BLOCK_STEP ? "purpose" : "note", json_string(b->label));
	if (b->number)
		json_object_set_new(j, "number", json_integer(b->number));
	if (b->repeat > 1)
		json_object_set_new(j, "repeat", json_integer(b->repeat));
	if (b->node) {
		json_object_set_new(j, "node", json_string(b->name));
		json_object_set_new(j, "operator", json_string(b->g->node[b->node].op->name));
	}
	json_object_set_new(j, "input", value_json(b->g, b->in, a));
	json_object_set_new(j, "output", value_json(b->g, b->out, a));
	json_object_set_new(j, "parameters", json_integer(b->parameters));
	json_object_set_new(j, "nodes", json_integer(b->nnode));
	if (b->residual)
		json_object_set_new(j, "residual", json_true());
	if (b->post_norm)
		json_object_set_new(j, "post_norm", json_true());
	if (b->attention)
		json_object_set_new(j, "attention", attention_json(b->attention));
	if (b->glu)
		json_object_set_new(j, "glu", glu_json(b->glu));
	if (b->experts)
		json_object_set_new(j, "experts", json_pack("{s:I, s:I, s:s, s:s, s:s, s:s}", "experts", (json_int_t)b->experts->experts, "top_k", (json_int_t)b->experts->top_k,
		                                            "router", b->experts->router, "variant", b->experts->variant, "spelling", b->experts->spelling,
		                                            "router_node", node_label(b->g, &b->g->node[b->experts->chooser])));
	if (b->nown) {
		list = json_array();
		for (uint32_t i = 0; i < b->nown; i++)
			json_array_append_new(list, json_string(node_label(b->g, &b->g->node[b->own[i]])));
		json_object_set_new(j, "own_nodes", list);
	}
	if (b->nchild) {
		list = json_array();
		for (int i = 0; i < b->nchild; i++)
			json_array_append_new(list, block_json(b->child[i], a));
		json_object_set_new(j, "children", list);
	}
	return j;
}

/* ---- Tables ---- */

static void add_tree(struct table *t, const struct block *b, int depth, struct arena *a)
{
	const char *title = block_title(b, a), *text = b->node || *b->label ? block_text(b, a) : "";

	if (b->kind == BLOCK_PART)
		text = "";
	else if (*b->label && b->kind != BLOCK_STEP)
		text = b->label;
	else if (b->residual)
		text = arena_fmt(a, "x + ...%s%s%s", b->experts ? ", " : "", b->experts ? block_text(b, a) : "", b->post_norm ? ", normalised" : "");
	else if (b->experts)
		text = block_text(b, a);
	table_add(t, "%*s%s", 2 * depth, "", title ? title : "?");
	table_add(t, "%s", text ? text : "?");
	table_add(t, "%s", b->out ? type_words(b->g, &b->g->value[b->out].type, a) : "");
	table_add(t, "%s", count_words(b->parameters, a));
	table_add(t, "%s", b->node ? b->name : "");
	for (int i = 0; i < b->nchild; i++)
		add_tree(t, b->child[i], depth + 1, a);
}

static void show_parts(const struct block *top, struct arena *a)
{
	struct table t;

	table_init(&t, 6, "lrrrrr");
	for (const char *const *h = (const char *const[]){ "part", "layers", "attention", "gated units", "nodes", "parameters", NULL }; *h; h++)
		table_add(&t, "%s", *h);
	for (int i = 0; i <= top->nchild; i++) {
		const struct block *b = i < top->nchild ? top->child[i] : top;
		int attentions = 0, glus = 0;

		block_units(b, &attentions, &glus);
		table_add(&t, "%s", block_title(b, a));
		table_add(&t, "%d", layers_in(b));
		table_add(&t, "%d", attentions);
		table_add(&t, "%d", glus);
		table_add(&t, "%u", b->nnode);
		table_add(&t, "%s", count_words(b->parameters, a));
	}
	table_print(&t, stdout, true);
}

enum linnet_code blocks_show(const struct block *top, struct arena *a, struct linnet_error *e)
{
	struct table t;

	(void)e;
	if (globals.json) {
		json_line(block_json(top, a), "blocks");
		return LINNET_OK;
	}
	show_parts(top, a);
	putchar('\n');
	table_init(&t, 5, "lllrl");
	for (const char *const *h = (const char *const[]){ "block", "what", "output", "parameters", "node", NULL }; *h; h++)
		table_add(&t, "%s", *h);
	for (int i = 0; i < top->nchild; i++)
		add_tree(&t, top->child[i], 0, a);
	table_print(&t, stdout, true);
	return LINNET_OK;
}
