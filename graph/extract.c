/* A part of a graph, and a graph for inputs of a given length. */
#include <stdlib.h>
#include <string.h>

#include "graph/blocks.h"
#include "graph/pass.h"
#include "graph/rewrite.h"

struct names {
	value_id *v;
	uint32_t n;
};

/* The values a list of names "a,b" stands for. */
static enum linnet_code find_values(const struct graph *g, const char *list, size_t n, struct arena *s, struct names *out,
                                    struct linnet_error *e)
{
	const char *end = list + n;

	*out = (struct names){ 0 };
	TRY_NEW(out->v, s, n + 1);
	while (list < end) {
		const char *comma = memchr(list, ',', (size_t)(end - list));
		char *name = arena_strn(s, list, (size_t)((comma ? comma : end) - list));
		uint32_t id = 0;

		if (!name)
			return fail_mem(e);
		if (!map_get(&g->names, name, &id) || !id || id >= g->nvalue)
			return fail(e, LINNET_EUSAGE, "the graph has no value \"%s\"", name);
		out->v[out->n++] = id;
		list = comma ? comma + 1 : end;
	}
	return LINNET_OK;
}

/* A value of the graph becomes an input; what computed it computes another in its place. */
static enum linnet_code make_input(struct graph *g, value_id v, struct linnet_error *e)
{
	struct type t = g->value[v].type;

	if (t.dt == DT_UNDEFINED)
		return fail(e, LINNET_EUNSUPPORTED, "the type of value \"%s\" is not known, so it can be no input", g->value[v].name);
	if (g->value[v].kind == VALUE_NODE) {
		node_id id = g->value[v].producer;
		value_id other = graph_add_value(g, VALUE_NODE, NULL, g->value[v].name);

		if (!other)
			return fail_mem(e);
		g->value[other].type = t;
		g->value[other].producer = id;
		g->value[other].index = g->value[v].index;
		g->node[id].out[g->value[v].index] = other;
	}
	t.value = NULL;
	t.sym = NULL;
	t.den = 0;
	g->value[v].type = t;
	if (g->value[v].kind == VALUE_CONST)
		g->value[v].origin = NULL;
	g->value[v].kind = VALUE_INPUT;
	g->value[v].producer = 0;
	return LINNET_OK;
}

/* The interface: FROM, the inputs that are still needed, TO. */
static enum linnet_code take(struct graph *g, const struct names *from, const struct names *to, struct arena *s, struct linnet_error *e)
{
	value_id *in, *out;
	bool *listed;
	struct uses u;
	uint32_t nin = 0;

	TRY_NEW(in, g->arena, g->nin + from->n + 1);
	TRY_NEW(out, g->arena, to->n + 1);
	TRY_NEW(listed, s, g->nvalue);
	for (uint32_t i = 0; i < from->n; i++)
		if (g->value[from->v[i]].kind != VALUE_INPUT)
			TRY(make_input(g, from->v[i], e));
	for (uint32_t i = 0; i < to->n; i++) {
		if (g->value[to->v[i]].kind == VALUE_INPUT)
			return fail(e, LINNET_EUSAGE, "value \"%s\" is an input and cannot be an output", g->value[to->v[i]].name);
		out[i] = to->v[i];
	}
	if (to->n) {
		g->out = out;
		g->nout = to->n;
	}
	/* compaction takes inputs from the list: all that may be needed */
	for (uint32_t i = 0; i < from->n; i++) {
		in[nin++] = from->v[i];
		listed[from->v[i]] = true;
	}
	for (uint32_t i = 0; i < g->nin; i++)
		if (!listed[g->in[i]])
			in[nin++] = g->in[i];
	g->in = in;
	g->nin = nin;
	TRY(graph_compact(g, s, e));
	TRY(graph_uses(g, s, &u, e));
	nin = 0;
	for (uint32_t i = 0; i < g->nin; i++) {
		bool used = uses_of(&u, g->in[i]) > 0;

		if (!used && i < from->n)
			return fail(e, LINNET_EUSAGE, "no output depends on value \"%s\"", g->value[g->in[i]].name);
		if (!used && to->n + from->n)
			continue;
		g->value[g->in[i]].index = nin;
		g->in[nin++] = g->in[i];
	}
	g->nin = nin;
	return graph_compact(g, s, e);
}

/* The block of that name, or the layer of that number. */
static const struct block *find_block(const struct block *b, const char *name, int layer)
{
	if (layer ? b->kind == BLOCK_LAYER && b->number == layer : b->kind != BLOCK_STEP && b->name && *b->name && !strcmp(b->name, name))
		return b;
	for (int i = 0; i < b->nchild; i++) {
		const struct block *found = find_block(b->child[i], name, layer);

		if (found)
			return found;
	}
	return NULL;
}

/* The name of the value that enters a block or leaves it, as the graph before the passes has it. */
static const char *end_of(const struct graph *g, const struct block *b, bool out)
{
	while (b && !(out ? b->out : b->in))
		b = b->nchild ? b->child[out ? b->nchild - 1 : 0] : NULL;
	return b && map_get(&g->names, b->g->value[out ? b->out : b->in].name, NULL) ? b->g->value[out ? b->out : b->in].name : NULL;
}

/* FROM..TO of a block: "layer 2", or a block's name as linnet show --blocks --json has it. */
static enum linnet_code block_ends(const struct graph *g, const char *what, struct arena *s, const char **from_to, struct linnet_error *e)
{
	int layer = !strncmp(what, "layer ", 6) ? atoi(what + 6) : 0;
	const struct block *b;
	struct block *all;
	struct graph *copy;
	const char *in, *out;

	TRY(graph_copy(g, s, &copy, e));
	copy->opset = 0;
	TRY(pass_read_all(copy, e));
	TRY(graph_blocks(copy, false, s, &all, e));
	b = find_block(all, what, layer);
	if (!b)
		return fail(e, LINNET_EUSAGE, "\"%s\" is not of the form FROM..TO, and no block; linnet show --blocks names them", what);
	in = end_of(g, b, false);
	out = end_of(g, b, true);
	if (!in || !out)
		return fail(e, LINNET_EUNSUPPORTED, "what %s \"%s\" is not a value of the model as it is written", in ? "leaves" : "enters", what);
	*from_to = arena_fmt(s, "%s..%s", in, out);
	return *from_to ? LINNET_OK : fail_mem(e);
}

static enum linnet_code extract(struct graph *g, const char *from_to, struct arena *s, struct linnet_error *e)
{
	const char *dots = strstr(from_to, "..");
	struct names from, to;

	if (!dots) {
		TRY(block_ends(g, from_to, s, &from_to, e));
		dots = strstr(from_to, "..");
	}
	TRY(find_values(g, from_to, (size_t)(dots - from_to), s, &from, e));
	TRY(find_values(g, dots + 2, strlen(dots + 2), s, &to, e));
	return take(g, &from, &to, s, e);
}

enum linnet_code graph_extract(struct graph *g, const char *from_to, struct linnet_error *e)
{
	struct arena *s = arena_new();
	enum linnet_code code = s ? extract(g, from_to, s, e) : fail_mem(e);

	arena_free(s);
	return code ? code : graph_infer(g, e);
}

/* ---- Lengths ---- */

struct setting {
	struct dims *dims;
	const char *name;
	dim by;
	bool found;
};

static dim replaced(void *ctx, const char *name)
{
	struct setting *s = ctx;

	if (strcmp(name, s->name) != 0)
		return dim_symbol(s->dims, name);
	s->found = true;
	return s->by;
}

/* Constants apart, values hold what is about to be found anew. */
static void forget_types(struct graph *g)
{
	for (value_id v = 1; v < g->nvalue; v++)
		if (g->value[v].kind == VALUE_NODE)
			g->value[v].type = (struct type){ .kind = g->value[v].type.kind, .dt = g->value[v].type.dt, .key = g->value[v].type.key,
			                                  .shape = shape_unknown() };
	for (node_id id = 1; id < g->nnode; id++)
		for (uint32_t i = 0; !g->node[id].dead && i < g->node[id].nattr; i++)
			if (g->node[id].attr[i].kind == ATTR_GRAPH)
				forget_types(g->node[id].attr[i].g);
}

enum linnet_code graph_set_dim(struct graph *g, const char *symbol, dim by, struct linnet_error *e)
{
	struct setting s = { .dims = g->dims, .name = symbol, .by = by };

	for (uint32_t i = 0; i < g->nin; i++) {
		struct type *t = &g->value[g->in[i]].type;

		for (int k = 0; k < t->shape.rank; k++)
			if (dim_is_expr(t->shape.d[k]))
				t->shape.d[k] = dim_replace(g->dims, t->shape.d[k], replaced, &s);
	}
	if (!s.found)
		return fail(e, LINNET_EUSAGE, "no input has a length \"%s\"", s.name);
	forget_types(g);
	return graph_infer(g, e);
}

enum linnet_code graph_fix_dim(struct graph *g, const char *setting, struct linnet_error *e)
{
	const char *equals = strrchr(setting, '='), *name;
	char *end = NULL;
	long long n = 0;

	if (equals && equals > setting)
		n = strtoll(equals + 1, &end, 10);
	if (!end || end == equals + 1 || *end || n < 0)
		return fail(e, LINNET_EUSAGE, "\"%s\" is not of the form NAME=LENGTH", setting);
	name = arena_strn(g->arena, setting, (size_t)(equals - setting));
	return name ? graph_set_dim(g, name, n, e) : fail_mem(e);
}
