/* Saying a model again, step by step. */
#include "graph/rewrite.h"

#include <string.h>

#include "graph/pass.h"

struct rewriting {
	const struct rewrite_opt *o;
	struct graph *g;
	bool *changed;
};

static enum linnet_code report(const struct rewriting *r, const char *name, uint32_t changes, bool approximate, struct linnet_error *e)
{
	struct rewrite_step step = { .name = name, .changes = changes, .approximate = approximate };

	*r->changed = *r->changed || changes;
	return r->o->watch && changes ? r->o->watch(r->o->ctx, &step, r->g, e) : LINNET_OK;
}

static enum linnet_code run_pass(const struct rewriting *r, struct pass_turns *t, size_t i, const struct pass *p, struct linnet_error *e)
{
	uint32_t n;

	TRY(pass_turn(t, i, p, r->g, &n, NULL, e));
	return report(r, p->name, n, false, e);
}

/* Passes in turn until none changes anything; one may open the way for an earlier one. */
static enum linnet_code run_passes(const struct rewriting *r, const struct pass *const *list, struct linnet_error *e)
{
	struct pass_turns turns = { 0 };
	enum linnet_code code = LINNET_OK;
	uint64_t before;
	int round = 0;

	do {
		before = turns.changes;
		for (size_t i = 0; !code && list[i]; i++)
			code = run_pass(r, &turns, i, list[i], e);
	} while (!code && ++round < 8 && turns.changes != before);
	pass_turns_end(&turns);
	return code;
}

static enum linnet_code simplify(const struct rewriting *r, struct linnet_error *e)
{
	const struct pass *const list[] = { pass_find("tidy"), &fold_small_pass, &share_all_pass, &batch_pass, NULL };

	return run_passes(r, list, e);
}

static enum linnet_code fuse_with(const struct rewriting *r, const struct pass *last, struct linnet_error *e)
{
	const struct pass *list[PASSES_MOST];
	size_t n = 0;

	list[n++] = pass_find("tidy");
	list[n++] = &fold_small_pass;
	list[n++] = &share_all_pass;
	list[n++] = &batch_pass;
	for (const struct pass *const *p = passes; *p && n < sizeof list / sizeof *list - 2; p++)
		if (strcmp((*p)->name, "tidy") && strcmp((*p)->name, "fold") && strcmp((*p)->name, "share"))
			list[n++] = *p;
	if (last)
		list[n++] = last;
	list[n] = NULL;
	return run_passes(r, list, e);
}

/* All words of ONNX where they are not denied, then those of com.microsoft. */
static enum linnet_code ort_with(const struct rewriting *r, const struct map *denied, struct linnet_error *e)
{
	const struct pass *const list[] = { &ort_pass, pass_find("tidy"), &fold_small_pass, &share_all_pass, NULL };
	enum linnet_code code;

	r->g->denied = denied;
	code = fuse_with(r, NULL, e);
	if (!code)
		code = run_passes(r, list, e);
	r->g->denied = NULL;
	return code;
}

/* What is left that the opset cannot say and rules have made: each is denied where it was made. */
static enum linnet_code deny_left(const struct graph *g, int opset, struct map *denied, uint32_t *count, struct linnet_error *e)
{
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];
		const char *key;

		for (uint32_t i = 0; !n->dead && i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				TRY(deny_left(n->attr[i].g, opset, denied, count, e));
		if (n->dead || !n->known || n->op->domain || !n->trail || op_find(NULL, n->op->name, opset))
			continue;
		key = arena_fmt(denied->a, "%s:%s", n->op->name, node_first_written(g, n));
		if (key && map_get(denied, key, NULL))
			continue;
		if (!key || map_put(denied, key, 1))
			return fail_mem(e);
		++*count;
	}
	return LINNET_OK;
}

/*
 * In the words of the wanted opset; or in all words of ONNX and then those of com.microsoft. What of the former neither
 * com.microsoft nor the opset can say would be expanded again: trials on copies find where, and there the node is not made.
 */
static enum linnet_code fuse(const struct rewriting *r, struct linnet_error *e)
{
	struct rewrite_opt quiet = *r->o;
	bool ignored = false;
	struct rewriting trial = { .o = &quiet, .changed = &ignored };
	struct arena *a;
	struct map denied;
	enum linnet_code code = LINNET_OK;
	uint32_t more = 1;

	if (r->o->fuse == FUSE_ONNX)
		return fuse_with(r, &fuse_pass, e);
	quiet.watch = NULL;
	a = arena_new();
	if (!a)
		return fail_mem(e);
	map_init(&denied, a);
	for (int round = 0; !code && more && round < 4; round++) {
		more = 0;
		code = graph_copy(r->g, a, &trial.g, e);
		if (!code)
			code = ort_with(&trial, &denied, e);
		if (!code)
			code = deny_left(trial.g, r->g->opset, &denied, &more, e);
	}
	if (!code)
		code = ort_with(r, &denied, e);
	arena_free(a);
	return code;
}

static enum linnet_code change_precision(const struct rewriting *r, struct linnet_error *e)
{
	static const dtype_set floats = SET(FLOAT) | SET(FLOAT16) | SET(BFLOAT16);
	struct precision p = { .to = r->o->to, .opset = r->g->opset, .keep_io = r->o->keep_io, .note = r->o->note, .ctx = r->o->ctx };

	p.from = floats & ~((dtype_set)1 << r->o->to);
	TRY(graph_precision(r->g, &p, e));
	return report(r, dtype_name(r->o->to), 1, true, e);
}

int own_opset(const struct linnet_model *m)
{
	for (uint32_t i = 0; i < m->nopset; i++)
		if (!*m->opset[i].domain)
			return (int)m->opset[i].version;
	return OPSET_NEWEST;
}

/* As the specification wants nodes, each behind what it reads; graphs are read that are not. */
static bool in_order(const struct graph *g)
{
	for (node_id id = 1; id < g->nnode; id++)
		for (uint32_t i = 0; i < g->node[id].nattr; i++)
			if (g->node[id].attr[i].kind == ATTR_GRAPH && !in_order(g->node[id].attr[i].g))
				return false;
	return graph_is_ordered(g);
}

/* Two settings NAME=LENGTH of one name. */
static bool same_name(const char *a, const char *b)
{
	const char *equals = strrchr(a, '=');

	return equals && !strncmp(a, b, (size_t)(equals - a) + 1) && strrchr(b, '=') == b + (equals - a);
}

enum linnet_code rewrite(struct linnet_model *m, const struct rewrite_opt *o, struct linnet_error *e)
{
	bool ordered = in_order(m->graph);
	struct rewriting r = { .o = o, .g = m->graph, .changed = &m->changed };
	struct arena *s = arena_new();
	enum linnet_code code = s ? graph_compact(m->graph, s, e) : fail_mem(e);
	uint32_t n = 0;

	arena_free(s);
	TRY(code);
	m->graph->opset = o->opset ? o->opset : own_opset(m);
	m->changed = !ordered || o->extract || o->ndim || (o->opset && (o->opset != own_opset(m) || !graph_fits(m->graph, m->opset, m->nopset, false)));
	if (o->extract)
		TRY(graph_extract(m->graph, o->extract, e));
	for (int i = 0; i < o->ndim; i++) {
		for (int k = 0; k < i; k++)
			if (same_name(o->dim[k], o->dim[i]))
				return fail(e, LINNET_EUSAGE, "one length is given twice, \"%s\" and \"%s\"", o->dim[k], o->dim[i]);
		TRY(graph_fix_dim(m->graph, o->dim[i], e));
	}
	if (o->watch)
		TRY(o->watch(o->ctx, NULL, m->graph, e));
	if (o->simplify)
		TRY(simplify(&r, e));
	if (o->fuse)
		TRY(fuse(&r, e));
	if (o->expand) {
		TRY(graph_primitive(m->graph, &n, e));
		TRY(report(&r, "expand", n, false, e));
		if (o->simplify)
			TRY(simplify(&r, e));
	}
	if (o->to)
		TRY(change_precision(&r, e));
	if (o->to && o->simplify)
		TRY(simplify(&r, e));
	m->graph->opset = 0;
	return LINNET_OK;
}
