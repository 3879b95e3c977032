/* A part of a graph, and a graph for inputs of a given length. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "graph/blocks.h"
#include "graph/pass.h"
#include "graph/rewrite.h"
#include "ops/base/str.h"

struct names {
	value_id *v;
	uint32_t n;
};

/* The first value that the node of that name computes. */
static const char *computed_by(const struct graph *g, const char *name)
{
	for (node_id id = 1; id < g->nnode; id++)
		if (!g->node[id].dead && !strcmp(g->node[id].name, name) && g->node[id].nout && g->node[id].out[0])
			return g->value[g->node[id].out[0]].name;
	return NULL;
}

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
		if (!map_get(&g->names, name, &id) || !id || id >= g->nvalue) {
			const char *computed = computed_by(g, name);

			return computed ? fail(e, LINNET_EUSAGE, "the graph has no value \"%s\"; the node of that name computes \"%s\"", name, computed)
			                : fail(e, LINNET_EUSAGE, "the graph has no value \"%s\"", name);
		}
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

/* ---- Blocks by name ---- */

static const char *title_of(const struct block *b, struct arena *s)
{
	if (b->kind == BLOCK_LAYER)
		return arena_fmt(s, "layer %d", b->number);
	return b->kind == BLOCK_PART ? b->label : block_words[b->kind];
}

struct search {
	const char *what; /* as the user has it */
	struct arena *s;
	const struct block *found;
	int n;            /* blocks found */
	struct str titles;
	int ntitle;
	bool failed;
};

/* The block of that name, or those whose titles are one in the other: "decoder/layer 2/attention". */
static void find_block(struct search *f, const struct block *b, const char *path)
{
	const char *title = b->kind == BLOCK_STEP || b->kind == BLOCK_MODEL ? "" : title_of(b, f->s), *rest = path;
	size_t n = title ? strlen(title) : 0;
	bool whole = b->kind != BLOCK_STEP && b->name && *b->name && !strcmp(b->name, path);

	f->failed = f->failed || !title;
	if (n && !strncmp(path, title, n) && (!path[n] || path[n] == '/')) {
		whole = whole || !path[n];
		rest = path[n] ? path + n + 1 : path;
	}
	if (whole) {
		f->found = f->n++ ? f->found : b;
		return;
	}
	for (int i = 0; i < b->nchild; i++)
		find_block(f, b->child[i], rest);
}

static void list_blocks(struct search *f, const struct block *b, int depth)
{
	enum { MOST = 12 };

	for (int i = 0; i < b->nchild && f->ntitle <= MOST; i++) {
		const struct block *c = b->child[i];
		const char *title = c->kind == BLOCK_STEP ? "" : title_of(c, f->s);

		if (title && *title && ++f->ntitle <= MOST)
			str_addf(&f->titles, "%s%s", f->ntitle > 1 ? ", " : "", title);
		else if (title && *title)
			str_add(&f->titles, ", ...");
		if (depth > 1)
			list_blocks(f, c, depth - 1);
	}
}

/* Mark the nodes of g that t stands for. */
static void mark_written(const struct graph *g, const struct trail *t, bool *marked, int *left)
{
	for (uint32_t i = 0; t->rule && i < t->n && --*left > 0; i++)
		mark_written(g, t->of[i], marked, left);
	for (node_id id = 1; !t->rule && id < g->nnode; id++) {
		const char *name, *op;

		node_written(g, &g->node[id], &name, &op);
		marked[id] = marked[id] || (!strcmp(name, t->name) && !strcmp(op, t->op));
	}
}

/* The value of g that v of the graph behind the passes is: of its name, or what the nodes that it was made of compute for others. *name NULL: there is not one. */
static enum linnet_code name_written(const struct graph *g, const struct graph *behind, value_id v, struct arena *s, const char **name,
                                     struct linnet_error *e)
{
	const struct node *n = value_node(behind, v);
	struct uses u;
	bool *marked;
	int left = 1000, found = 0;

	*name = map_get(&g->names, behind->value[v].name, NULL) ? behind->value[v].name : NULL;
	if (*name || !n || !n->trail)
		return LINNET_OK;
	TRY_NEW(marked, s, g->nnode);
	TRY(graph_uses(g, s, &u, e));
	mark_written(g, n->trail, marked, &left);
	for (node_id id = 1; id < g->nnode; id++)
		for (uint32_t k = 0; marked[id] && k < g->node[id].nout; k++) {
			value_id out = g->node[id].out[k];
			bool beyond = false;

			for (uint32_t i = u.begin[out]; out && i < u.end[out]; i++)
				beyond = beyond || !u.use[i].node || !marked[u.use[i].node];
			if (beyond) {
				*name = g->value[out].name;
				found++;
			}
		}
	*name = found == 1 ? *name : NULL;
	return LINNET_OK;
}

/* The name of the value that enters a block or leaves it, as the graph before the passes has it; "" where the graph's own inputs or outputs do; NULL: it has none. */
static enum linnet_code end_of(const struct graph *g, const struct block *b, bool out, struct arena *s, const char **name, struct linnet_error *e)
{
	value_id v;

	while (b->nchild && !(out ? b->out : b->in))
		b = b->child[out ? b->nchild - 1 : 0];
	v = out ? b->out : b->in;
	*name = "";
	return v ? name_written(g, b->g, v, s, name, e) : LINNET_OK;
}

/* FROM..TO of a block: "layer 2", "decoder/layer 2/attention", or a block's name as linnet show --blocks --json has it. */
static enum linnet_code block_ends(const struct graph *g, const char *what, struct arena *s, const char **from_to, struct linnet_error *e)
{
	struct search f = { .what = what, .s = s };
	struct block *all;
	struct graph *copy;
	const char *in, *out;

	TRY(graph_copy(g, s, &copy, e));
	copy->opset = 0;
	TRY(pass_read_all(copy, e));
	TRY(graph_blocks(copy, false, s, &all, e));
	find_block(&f, all, what);
	if (!f.failed && !f.n) {
		str_init(&f.titles, s);
		list_blocks(&f, all, 2);
		return fail(e, LINNET_EUSAGE, "\"%s\" is not of the form FROM..TO, and no block; there are %s", what, str_done(&f.titles) ? f.titles.p : "others");
	}
	if (f.n > 1)
		return fail(e, LINNET_EUSAGE, "%d blocks are called \"%s\"; put what it is in before it, as in \"decoder/layer 2/attention\"", f.n, what);
	if (f.failed)
		return fail_mem(e);
	TRY(end_of(g, f.found, false, s, &in, e));
	TRY(end_of(g, f.found, true, s, &out, e));
	if (!in || !out)
		return fail(e, LINNET_EUNSUPPORTED, "what %s \"%s\" is not a value of the model as it is written", in ? "leaves" : "enters", what);
	if (!*in && !*out)
		return fail(e, LINNET_EUNSUPPORTED, "\"%s\" is no part that one value enters or leaves", what);
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
	if (dots == from_to && !dots[2])
		return fail(e, LINNET_EUSAGE, "neither inputs nor outputs are named in \"..\"");
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

/* Put a name on the list, "a, b", when it is not there. */
static void note_length(void *ctx, const char *name)
{
	struct str *list = ctx;
	size_t n = strlen(name);
	const char *p = list->n ? list->p : NULL;

	while (p && (p = strstr(p, name)) != NULL && !((p == list->p || p[-1] == ' ') && (!p[n] || p[n] == ',')))
		p++;
	if (!p)
		str_addf(list, "%s%s", list->n ? ", " : "", name);
}

enum linnet_code graph_has_dim(const struct graph *g, const char *symbol, struct linnet_error *e)
{
	dim wanted = dim_symbol(g->dims, symbol);
	struct str list;

	str_init(&list, g->arena);
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct shape *s = &g->value[g->in[i]].type.shape;

		if (shape_has(g->dims, s, wanted))
			return LINNET_OK;
		for (int k = 0; k < s->rank; k++)
			dim_symbols(g->dims, s->d[k], note_length, &list);
	}
	return list.n ? fail(e, LINNET_EUSAGE, "no input has a length \"%s\"; there are %s", symbol, str_done(&list) ? list.p : "others")
	              : fail(e, LINNET_EUSAGE, "no input has a length \"%s\"; all are numbers", symbol);
}

enum linnet_code graph_set_dim(struct graph *g, const char *symbol, dim by, struct linnet_error *e)
{
	dim wanted = dim_symbol(g->dims, symbol);
	struct set_dim *set;

	TRY(graph_has_dim(g, symbol, e));
	TRY_NEW(set, g->arena, 1);
	*set = (struct set_dim){ arena_str(g->arena, symbol), by, g->set };
	if (!set->name)
		return fail_mem(e);
	g->set = set;
	for (uint32_t i = 0; i < g->nin; i++) {
		struct shape *s = &g->value[g->in[i]].type.shape;

		for (int k = 0; k < s->rank; k++)
			if (dim_is_expr(s->d[k]))
				s->d[k] = dim_put(g->dims, s->d[k], wanted, by);
	}
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
	if (n > INT32_MAX)
		return fail(e, LINNET_EUSAGE, "\"%s\": lengths are at most %d", setting, INT32_MAX);
	name = arena_strn(g->arena, setting, (size_t)(equals - setting));
	return name ? graph_set_dim(g, name, n, e) : fail_mem(e);
}
