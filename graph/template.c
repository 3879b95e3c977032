/* Templates: text to a graph, and a graph's nodes into a patch. */
#include "graph/template.h"

#include <string.h>

#include "ops/base/str.h"

static void free_model(void *m)
{
	model_free(m);
}

enum linnet_code template_parse(const char *text, struct arena *a, struct graph **out, struct linnet_error *e)
{
	struct linnet_model *m = model_new(NULL, e);
	struct str s;
	const char *whole;
	enum linnet_code code = LINNET_OK;

	if (!m)
		return LINNET_EMEM;
	str_init(&s, m->arena);
	str_addf(&s, "<ir_version: 10, opset_import: [\"\" : %d, \"com.microsoft\" : 1]>\ntemplate ", OPSET_NEWEST);
	str_add(&s, text);
	whole = str_done(&s);
	if (!whole || arena_on_free(a, free_model, m)) {
		model_free(m);
		return fail_mem(e);
	}
	code = text_parse(m, whole, strlen(whole), e);
	if (!code)
		code = graph_import(m, e);
	*out = m->graph;
	return code;
}

/* ---- Copies into another arena ---- */

/* A template's float constants become `real`. */
static enum linnet_code copy_tensor(struct arena *a, const struct tensor *t, enum dtype real, struct tensor **out,
                                    struct linnet_error *e)
{
	if (t->dt == DT_STRING)
		return fail(e, LINNET_EUNSUPPORTED, "a template has no strings");
	TRY(tensor_new(a, t->dt == DT_FLOAT ? real : t->dt, t->rank, t->d, out, e));
	if ((*out)->dt == t->dt && t->bytes)
		memcpy((*out)->data, t->data, t->bytes);
	for (int64_t i = 0; (*out)->dt != t->dt && i < t->n; i++)
		tensor_put(*out, i, tensor_get(t, i));
	return LINNET_OK;
}

static enum linnet_code copy_graph(const struct patch *p, const struct graph *from, enum dtype real, struct graph **out,
                                   struct linnet_error *e);

/* Attributes that were given, in the patch's arena. The list ends with a NULL name. */
static enum linnet_code copy_attrs(const struct patch *p, const struct node *n, enum dtype real, struct attr **out,
                                   struct linnet_error *e)
{
	uint32_t na = 0;

	TRY_NEW(*out, p->arena, n->nattr + 1);
	for (uint32_t i = 0; i < n->nattr; i++) {
		struct attr *a = &(*out)[na];
		struct tensor *t;

		if (!n->attr[i].given)
			continue;
		*a = n->attr[i];
		na++;
		if (a->kind == ATTR_STRING && !(a->s.p = arena_strn(p->arena, a->s.p, a->s.n)))
			return fail_mem(e);
		if (a->kind == ATTR_INTS && !(a->ints = arena_dup(p->arena, a->ints, a->n * sizeof *a->ints)))
			return fail_mem(e);
		if (a->kind == ATTR_FLOATS && !(a->floats = arena_dup(p->arena, a->floats, a->n * sizeof *a->floats)))
			return fail_mem(e);
		if (a->kind == ATTR_TENSOR) {
			TRY(copy_tensor(p->arena, a->t, real, &t, e));
			a->t = t;
		}
		if (a->kind == ATTR_GRAPH)
			TRY(copy_graph(p, n->attr[i].g, real, &a->g, e));
	}
	return LINNET_OK;
}

/* A subgraph for the patched graph: fresh names, types to be inferred anew. */
static enum linnet_code copy_graph(const struct patch *p, const struct graph *from, enum dtype real, struct graph **out,
                                   struct linnet_error *e)
{
	struct graph *g = graph_new(p->arena, p->g->dims, e);
	struct arena *s;
	node_id *order;
	value_id *map;
	uint32_t n;

	if (!g)
		return LINNET_EMEM;
	*out = g;
	g->outer = (struct graph *)(uintptr_t)p->g;
	g->name = arena_str(p->arena, from->name);
	s = p->arena;
	TRY_NEW(map, s, from->nvalue);
	TRY(graph_order(from, s, &order, &n, e));
	for (uint32_t i = 0; i < from->nin; i++) {
		map[from->in[i]] = graph_add_input(g, graph_fresh_name(g, from->value[from->in[i]].name), NULL);
		if (!map[from->in[i]])
			return fail_mem(e);
	}
	g->ncapture = from->ncapture;
	for (value_id v = 1; v < from->nvalue; v++) {
		struct tensor *t;

		if (from->value[v].kind != VALUE_CONST)
			continue;
		TRY(copy_tensor(p->arena, from->value[v].type.value, real, &t, e));
		map[v] = graph_add_const(g, t, from->value[v].name);
		if (!map[v])
			return fail_mem(e);
	}
	for (uint32_t i = 0; i < n; i++) {
		const struct node *node = &from->node[order[i]];
		struct attr *attr;
		uint32_t na = 0;
		value_id *in;
		node_id id;

		TRY(copy_attrs(p, node, real, &attr, e));
		while (attr[na].name)
			na++;
		TRY_NEW(in, s, node->nin);
		for (uint32_t k = 0; k < node->nin; k++)
			in[k] = map[node->in[k]];
		TRY(graph_add_node(g, node->op, graph_fresh_name(g, node->op->name), in, node->nin, NULL, node->nout, attr, na, &id, e));
		g->node[id].ncapture = node->ncapture;
		for (uint32_t k = 0; k < node->nout; k++)
			map[node->out[k]] = g->node[id].out[k];
	}
	for (uint32_t i = 0; i < from->nout; i++)
		if (graph_add_output(g, map[from->out[i]]))
			return fail_mem(e);
	return LINNET_OK;
}

/* plainly: the node of the first output is called hint itself. */
static enum linnet_code add(struct patch *p, const struct graph *t, const value_id *in, value_id *out, enum dtype real, const char *hint,
                            bool plainly, struct linnet_error *e)
{
	struct arena *s = arena_new();
	node_id *order;
	value_id *map = NULL;
	uint32_t n = 0;
	enum linnet_code code = s ? graph_order(t, s, &order, &n, e) : fail_mem(e);

	if (!code && !(map = NEW(s, t->nvalue, value_id)))
		code = fail_mem(e);
	for (uint32_t i = 0; !code && i < t->nin; i++)
		map[t->in[i]] = in[i];
	for (value_id v = 1; !code && v < t->nvalue; v++) {
		struct tensor *c;

		if (t->value[v].kind != VALUE_CONST)
			continue;
		code = copy_tensor(p->arena, t->value[v].type.value, real, &c, e);
		if (!code)
			map[v] = patch_const(p, c, arena_fmt(p->arena, "%s/%s", hint, t->value[v].name));
	}
	for (uint32_t i = 0; !code && i < n; i++) {
		const struct node *node = &t->node[order[i]];
		value_id *args = NEW(s, node->nin, value_id), first;
		struct attr *attr;
		const char *name = plainly && node->out[0] == t->out[0] ? arena_str(p->arena, hint)
		                                                        : arena_fmt(p->arena, "%s/%s", hint, t->value[node->out[0]].name);

		code = args && name ? copy_attrs(p, node, real, &attr, e) : fail_mem(e);
		if (code)
			break;
		for (uint32_t k = 0; k < node->nin; k++)
			args[k] = map[node->in[k]];
		first = patch_op(p, node->op, name, args, node->nin, node->nout, attr);
		for (uint32_t k = 0; k < node->nout; k++)
			if (node->out[k])
				map[node->out[k]] = first + k;
		code = p->code;
	}
	for (uint32_t i = 0; !code && i < t->nout; i++)
		out[i] = map[t->out[i]];
	arena_free(s);
	return code;
}

enum linnet_code template_add(struct patch *p, const struct graph *t, const value_id *in, value_id *out, enum dtype real,
                              const char *hint, struct linnet_error *e)
{
	return add(p, t, in, out, real, hint, false, e);
}

static enum linnet_code parse_and_add(struct patch *p, const char *text, const value_id *in, value_id *out, enum dtype real, const char *hint,
                                      bool plainly, struct linnet_error *e)
{
	struct arena *s = arena_new();
	struct graph *t;
	enum linnet_code code = s ? template_parse(text, s, &t, e) : fail_mem(e);

	if (!code)
		code = add(p, t, in, out, real, hint, plainly, e);
	arena_free(s);
	return code;
}

enum linnet_code template_apply(struct patch *p, const char *text, const value_id *in, value_id *out, enum dtype real,
                                const char *hint, struct linnet_error *e)
{
	return parse_and_add(p, text, in, out, real, hint, false, e);
}

enum linnet_code template_replace(struct patch *p, const char *text, const value_id *in, value_id *out, enum dtype real, const char *name,
                                  struct linnet_error *e)
{
	return parse_and_add(p, text, in, out, real, name, true, e);
}
