/* Certificates: see certify.h. */
#include "validate/certify.h"

#include <string.h>

/* A copy that computes in double what g computes in narrower floats. */
static enum linnet_code in_double(const struct graph *g, struct arena *a, struct graph **out, struct linnet_error *e)
{
	struct precision p = { .from = SET(FLOAT) | SET(FLOAT16) | SET(BFLOAT16), .to = DT_DOUBLE, .faithful = true };

	TRY(graph_copy(g, a, out, e));
	return graph_precision(*out, &p, e);
}

static enum linnet_code compare_at(const struct graph *a, const struct graph *b, int cases, uint64_t seed, int64_t length, double *max_abs,
                                   double *max_rel, struct linnet_error *e)
{
	struct arena *s = arena_new();
	struct run_opt run = { .kernels = KERNELS_REFERENCE, .threads = 1 };
	struct side side[2] = { { .run = run }, { .run = run } };
	struct pair_opt opt = { .cases = cases, .seed = seed, .gen = { .length = length, .batch = 2 } };
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
		enum linnet_code code = compare_at(a, b, cases, seed, length[i], max_abs, max_rel, &told);

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

static bool seen(const struct graph *g, const struct trail *t)
{
	for (node_id id = 1; id < g->nnode; id++)
		if (g->node[id].trail == t)
			return true;
	return false;
}

static uint32_t leaves(const struct trail *t, const char **out, uint32_t n, uint32_t cap)
{
	if (!t->rule && n < cap)
		out[n++] = t->name;
	for (uint32_t i = 0; t->rule && i < t->n; i++)
		n = leaves(t->of[i], out, n, cap);
	return n;
}

static enum linnet_code list_changes(struct certificate *c, struct certified_step *step, const struct graph *g, struct linnet_error *e)
{
	enum { MAX_LEAVES = 64 };
	struct certified_change *list;
	const struct trail *last = NULL;

	TRY_NEW(list, c->arena, g->nnode);
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];
		const char **of;

		if (n->dead || !n->trail || seen(c->last, n->trail))
			continue;
		if (n->trail != last) {
			TRY_NEW(of, c->arena, MAX_LEAVES);
			list[step->nchange].nof = leaves(n->trail, of, 0, MAX_LEAVES);
			list[step->nchange].of = of;
			list[step->nchange++].rule = n->trail->rule;
		}
		list[step->nchange - 1].node = node_label(g, n);
		last = n->trail;
	}
	step->change = list;
	return LINNET_OK;
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
	const char *before = c->nstep ? c->step[c->nstep - 1].digest : c->before;

	if (!step) {
		TRY(graph_digest(g, c->before, e));
		memcpy(c->after, c->before, sizeof c->after);
		return remember(c, g, e);
	}
	if (c->nstep == c->cap) {
		struct certified_step *more;

		TRY_NEW(more, c->arena, c->cap ? 2 * c->cap : 16);
		if (c->nstep)
			memcpy(more, c->step, c->nstep * sizeof *more);
		before = c->nstep ? more[c->nstep - 1].digest : before;
		c->step = more;
		c->cap = c->cap ? 2 * c->cap : 16;
	}
	s = &c->step[c->nstep++];
	s->name = step->name;
	s->changes = step->changes;
	s->approximate = step->approximate;
	TRY(graph_digest(g, s->digest, e));
	memcpy(c->after, s->digest, sizeof c->after);
	s->proved = !strcmp(s->digest, before);
	TRY(list_changes(c, s, g, e));
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
