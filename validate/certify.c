/* Certificates: see certify.h. */
#include "validate/certify.h"

#include <stdio.h>
#include <string.h>

#include "ops/base/map.h"

/* A copy that computes in double what g computes in narrower floats. */
static enum linnet_code in_double(const struct graph *g, struct arena *a, struct graph **out, struct linnet_error *e)
{
	struct precision p = { .from = SET(FLOAT) | SET(FLOAT16) | SET(BFLOAT16), .to = DT_DOUBLE, .faithful = true };

	TRY(graph_copy(g, a, out, e));
	return graph_precision(*out, &p, e);
}

enum linnet_code certify_compare_at(const struct graph *a, const struct graph *b, int cases, uint64_t seed, int64_t length, double *max_abs,
                                   double *max_rel, struct linnet_error *e)
{
	struct arena *s = arena_new();
	struct run_opt run = { .kernels = KERNELS_REFERENCE, .threads = 1 };
	struct side side[2] = { { .run = run }, { .run = run } };
	struct pair_opt opt = { .cases = cases, .seed = seed, .gen = { .length = length, .batch = length ? 2 : 0 } };
	struct pair_report report = { 0 };
	struct graph *g[2];
	enum linnet_code code = s ? in_double(a, s, &g[0], e) : fail_mem(e);

	if (!code)
		code = in_double(b, s, &g[1], e);
	side[0].g = code ? NULL : g[0];
	side[1].g = code ? NULL : g[1];
	if (!code)
		code = pair_compare(&side[0], &side[1], &opt, s, &report, e);
	*max_abs = *max_rel = 0;
	for (uint32_t i = 0; !code && i < report.nout; i++) {
		const struct diff *d = &report.out[i];

		if (d->typed_apart || d->nan_at >= 0 || d->inf_at >= 0)
			code = fail(e, LINNET_EINTERNAL, "output \"%s\" is of another %s", d->name, d->typed_apart ? "type" : "kind of number");
		*max_abs = d->max_abs > *max_abs ? d->max_abs : *max_abs;
		*max_rel = d->max_rel > *max_rel ? d->max_rel : *max_rel;
	}
	arena_free(s);
	return code;
}

enum linnet_code certify_compare(const struct graph *a, const struct graph *b, int cases, uint64_t seed, double *max_abs, double *max_rel,
                                 struct linnet_error *e)
{
	static const int64_t length[] = { 5, 8, 4, 2, 3, 1, 16 };
	struct linnet_error first = { 0 };

	for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
		struct linnet_error told = { 0 };
		enum linnet_code code = certify_compare_at(a, b, cases, seed, length[i], max_abs, max_rel, &told);

		if (!first.code)
			first = told;
		if (!code)
			return LINNET_OK;
		if (code == LINNET_EMEM || code == LINNET_EINTERNAL) {
			first = told;
			break;
		}
	}
	if (e && !e->code)
		*e = first;
	return first.code;
}

/* ---- What rules did ---- */

static uint32_t leaves(const struct trail *t, const char **out, uint32_t n, uint32_t cap)
{
	if (!t->rule && n < cap)
		out[n++] = t->name;
	for (uint32_t i = 0; t->rule && i < t->n; i++)
		n = leaves(t->of[i], out, n, cap);
	return n;
}

static int put_trail(struct map *m, const struct trail *t, uint32_t value)
{
	const char *key = arena_fmt(m->a, "%p", (const void *)t);

	return key ? map_put(m, key, value) : -1;
}

static bool get_trail(const struct map *m, const struct trail *t, uint32_t *value)
{
	char key[32];

	snprintf(key, sizeof key, "%p", (const void *)t);
	return map_get(m, key, value);
}

/* Changes that left new nodes: those of a trail that the last graph did not have. */
static enum linnet_code list_changes(struct certificate *c, struct certified_step *step, const struct graph *g, struct arena *s, struct linnet_error *e)
{
	enum { MAX_LEAVES = 64 };
	struct certified_change *list;
	struct map old;

	map_init(&old, s);
	for (node_id id = 1; id < c->last->nnode; id++)
		if (c->last->node[id].trail && put_trail(&old, c->last->node[id].trail, 0))
			return fail_mem(e);
	TRY_NEW(list, c->arena, g->nnode);
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];
		const char **of;
		uint32_t at = step->nchange;

		if (n->dead || !n->trail)
			continue;
		if (get_trail(&old, n->trail, &at)) {
			if (at)
				list[at - 1].node = node_label(g, n);
			continue;
		}
		TRY_NEW(of, c->arena, MAX_LEAVES);
		list[step->nchange] = (struct certified_change){ .rule = n->trail->rule, .node = node_label(g, n), .of = of };
		list[step->nchange++].nof = leaves(n->trail, of, 0, MAX_LEAVES);
		if (put_trail(&old, n->trail, step->nchange))
			return fail_mem(e);
	}
	step->change = list;
	return LINNET_OK;
}

/* Nodes of the last graph that are in g no more and that no change names. */
static enum linnet_code list_dropped(struct certificate *c, struct certified_step *step, const struct graph *g, struct arena *s, struct linnet_error *e)
{
	const struct graph *last = c->last;
	struct map kept;
	const char **list;

	map_init(&kept, s);
	for (node_id id = 1; id < g->nnode; id++)
		if (!g->node[id].dead && map_put(&kept, node_label(g, &g->node[id]), 0))
			return fail_mem(e);
	for (uint32_t i = 0; i < step->nchange; i++)
		for (uint32_t k = 0; k < step->change[i].nof; k++)
			if (map_put(&kept, step->change[i].of[k], 0))
				return fail_mem(e);
	TRY_NEW(list, c->arena, last->nnode);
	for (node_id id = 1; id < last->nnode; id++) {
		const char *label = node_label(last, &last->node[id]);

		if (last->node[id].dead || map_get(&kept, label, NULL))
			continue;
		list[step->ndropped] = arena_str(c->arena, label);
		if (!list[step->ndropped++])
			return fail_mem(e);
	}
	step->dropped = list;
	return LINNET_OK;
}

static enum linnet_code list_all(struct certificate *c, struct certified_step *step, const struct graph *g, struct linnet_error *e)
{
	struct arena *s = arena_new();
	enum linnet_code code = s ? list_changes(c, step, g, s, e) : fail_mem(e);

	if (!code)
		code = list_dropped(c, step, g, s, e);
	arena_free(s);
	return code;
}

static enum linnet_code remember(struct certificate *c, const struct graph *g, struct linnet_error *e)
{
	arena_free(c->last_arena);
	c->last = NULL;
	c->last_arena = arena_new();
	return c->last_arena ? graph_copy(g, c->last_arena, &c->last, e) : fail_mem(e);
}

enum linnet_code certify_watch(void *certificate, const struct rewrite_step *step, const struct graph *g, struct linnet_error *e)
{
	struct certificate *c = certificate;
	struct certified_step *s;
	const char *before;

	if (!step) {
		TRY(graph_digest(g, c->before, e));
		memcpy(c->after, c->before, sizeof c->after);
		return remember(c, g, e);
	}
	c->step = arena_grow(c->arena, c->step, c->nstep, 1, &c->cap, sizeof *c->step);
	if (!c->step)
		return fail_mem(e);
	before = c->nstep ? c->step[c->nstep - 1].digest : c->before;
	s = &c->step[c->nstep++];
	s->name = step->name;
	s->changes = step->changes;
	s->approximate = step->approximate;
	memcpy(s->before, before, sizeof s->before);
	TRY(graph_digest(g, s->digest, e));
	memcpy(c->after, s->digest, sizeof c->after);
	s->proved = !strcmp(s->digest, before);
	TRY(list_all(c, s, g, e));
	if (!s->proved) {
		struct linnet_error told = { 0 };
		enum linnet_code code = certify_compare(c->last, g, c->cases, c->seed, &s->max_abs, &s->max_rel, &told);

		if (code == LINNET_EMEM || code == LINNET_EINTERNAL) {
			*e = told;
			return code;
		}
		s->untested = code ? arena_str(c->arena, told.message) : NULL;
		if (code && !s->untested)
			return fail_mem(e);
	}
	return remember(c, g, e);
}

void certificate_release(struct certificate *c)
{
	arena_free(c->last_arena);
	c->last_arena = NULL;
}
