/* Running passes: the list, and applying rules until none applies. */
#include "graph/pass.h"

#include <string.h>

#define PASSES(X)                                                                                  \
	X(tidy)                                                                                    \
	X(fold)                                                                                    \
	X(share)                                                                                   \
	X(norm)                                                                                    \
	X(activate)                                                                        \
	X(rope)                                                                                    \
	X(scores)                                                                                  \
	X(attend)                                                                                  \
	X(glu)                                                                                     \
	X(recur)                                                                                   \
	X(causal)                                                                                  \
	X(linear)

#define X(name) extern const struct pass name##_pass;
PASSES(X)
#undef X

const struct pass *const passes[] = {
#define X(name) &name##_pass,
	PASSES(X)
#undef X
	NULL,
};

const struct pass *pass_find(const char *name)
{
	for (const struct pass *const *p = passes; *p; p++)
		if (!strcmp((*p)->name, name))
			return *p;
	return NULL;
}

const struct pass *pass_at(int i)
{
	static const struct pass *const written[] = { &batch_pass, &fuse_pass, &ort_pass };
	const int n = (int)(sizeof passes / sizeof *passes) - 1, more = (int)(sizeof written / sizeof *written);

	return i < n ? passes[i] : i - n < more ? written[i - n] : NULL;
}

/* ---- Reading graphs ---- */

bool value_is_output(const struct view *w, value_id v)
{
	for (uint32_t i = w->uses.begin[v]; i < w->uses.end[v]; i++)
		if (!w->uses.use[i].node)
			return true;
	return false;
}

const struct node *value_from(const struct graph *g, value_id v, const char *op)
{
	const struct node *n = value_node(g, v);

	return n && node_is(n, op) ? n : NULL;
}

const struct node *value_user(const struct view *w, value_id v, uint32_t *index)
{
	const struct use *u;

	if (value_uses(w, v) != 1)
		return NULL;
	u = &w->uses.use[w->uses.begin[v]];
	if (index)
		*index = u->index;
	return u->node ? &w->g->node[u->node] : NULL;
}

const struct tensor *value_const(const struct graph *g, value_id v)
{
	return v ? g->value[v].type.value : NULL;
}

bool value_scalar(const struct graph *g, value_id v, double *x)
{
	const struct tensor *t = value_const(g, v);
	enum dtype_class c;

	if (!t || t->n < 1)
		return false;
	c = dtype_class(t->dt);
	if (c == CLASS_STRING || c == CLASS_COMPLEX)
		return false;
	*x = tensor_get(t, 0);
	for (int64_t i = 1; i < t->n; i++) {
		double y = tensor_get(t, i);

		if (!(y == *x))
			return false;
	}
	return true;
}

bool value_ints(const struct graph *g, value_id v, int64_t *out, int max, int *n)
{
	const struct tensor *t = value_const(g, v);

	if (!t || t->rank > 1 || t->n > max || !dtype_in(t->dt, INTS))
		return false;
	*n = (int)t->n;
	for (int i = 0; i < *n; i++)
		out[i] = tensor_get_int(t, i);
	return true;
}

dim value_length(const struct graph *g, value_id v)
{
	const struct type *t = &g->value[v].type;
	bool one = t->value ? t->value->n == 1 : type_nsym(t) == 1;

	return one && dtype_in(t->dt, INTS) ? type_element(t, 0) : DIM_NONE;
}

bool pads_zeros(const struct graph *g, const struct node *n)
{
	struct text mode;
	double zero = 0;

	if (!node_is(n, "Pad") || (n->nin > 3 && n->in[3]) || (n->nin > 2 && n->in[2] && !value_scalar(g, n->in[2], &zero)))
		return false;
	mode = node_attr(n, "mode")->s;
	return zero == 0 && mode.n == 8 && !memcmp(mode.p, "constant", 8);
}

bool pads_one(const struct graph *g, const struct node *n, int axis)
{
	int64_t pads[2 * MAX_RANK];
	int rank = g->value[n->in[0]].type.shape.rank, count;

	if (!pads_zeros(g, n) || rank < axis || !value_ints(g, n->in[1], pads, 2 * MAX_RANK, &count) || count != 2 * rank)
		return false;
	for (int i = 0; i < count; i++)
		if (pads[i] != (i == count - axis))
			return false;
	return true;
}

bool keeps_factor(const struct graph *g, const struct node *n)
{
	static const char *const steps[] = { "Transpose", "Reshape", "Unsqueeze", "Squeeze", "RotaryEmbedding", "Expand", "Tile", "Gather", "Slice", NULL };

	return node_among(n, steps) || pads_zeros(g, n) || joins_one(n);
}

bool joins_one(const struct node *n)
{
	bool one = node_is(n, "Concat");

	for (uint32_t i = 1; one && i < n->nin; i++)
		one = n->in[i] == n->in[0];
	return one;
}

bool swaps_last_two(const struct node *n, int rank)
{
	const struct attr *perm = node_attr(n, "perm");

	if (rank < 2 || (perm->kind != ATTR_INTS ? rank != 2 : perm->n != (size_t)rank))
		return false;
	for (int i = 0; perm->kind == ATTR_INTS && i < rank; i++)
		if (perm->ints[i] != (i < rank - 2 ? i : 2 * rank - 3 - i))
			return false;
	return true;
}

/* ---- Running ---- */

enum { MET_BITS = 8 };

struct runner {
	const struct pass *pass;
	struct pass_turns *turns; /* NULL: it runs alone */
	uint32_t count, *left;
	const struct graph *main;
	struct arena *arena;
	struct pattern **pattern; /* by rule; read when first asked for */
	struct met {
		const struct op *op;
		uint64_t rules; /* anchored there, a bit each */
		bool graphs;    /* it has attributes that are graphs */
	} met[1 << MET_BITS];   /* rows met, in the places of their addresses */
};

/* The rules for a live node, those of its operator's name and those that look at every node; and whether it holds graphs. */
static const struct met *met(struct runner *r, const struct node *n)
{
	struct met *m = &r->met[((uintptr_t)n->op / sizeof *n->op * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - MET_BITS)];

	if (m->op == n->op)
		return m;
	*m = (struct met){ .op = n->op, .graphs = !n->known };
	for (uint32_t i = 0; i < n->nattr && n->known; i++)
		m->graphs = m->graphs || n->op->attr[i].kind == ATTR_GRAPH;
	for (int i = 0; i < r->pass->nrule; i++) {
		const struct rule *rule = &r->pass->rule[i];

		if (!rule->anchor || (rule->apply ? node_is(n, rule->anchor) : !strcmp(n->op->name, rule->anchor)))
			m->rules |= UINT64_C(1) << i;
	}
	return m;
}

static enum linnet_code apply_rule(const struct runner *r, int i, const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct rule *rule = &r->pass->rule[i];

	if (rule->apply)
		return rule->apply(w, n, p, e);
	if (!r->pattern[i])
		TRY(pattern_read(rule, r->arena, &r->pattern[i], e));
	return pattern_apply(r->pattern[i], w, n, p, e);
}

/* Rules that undo each other would never end: so often a graph's nodes are rewritten by one pass, which leaves it exact wherever it stops. */
enum { APPLIED_LEAST = 1 << 12, APPLIED_EACH = 64 };

/* Of these rules, each a bit. */
static enum linnet_code try_node(struct runner *r, struct graph *g, struct view *w, node_id id, uint64_t these, bool *changed, struct linnet_error *e)
{
	for (uint64_t rules = met(r, &g->node[id])->rules & these; rules; rules &= rules - 1) {
		int i = __builtin_ctzll(rules);
		const struct rule *rule = &r->pass->rule[i];
		const struct node *n = &g->node[id];
		struct patch p;

		patch_init(&p, g, e);
		p.uses = &w->uses;
		p.scratch = w->scratch;
		arena_reset(w->scratch);
		TRY(err_node(e, apply_rule(r, i, w, n, &p, e), n->name, n->op->name));
		if (p.code)
			return p.code;
		if (patch_empty(&p) || !patch_fits(&p, r->main))
			continue;
		TRY(patch_apply(g, &p, rule->name, e));
		r->count++;
		if (r->left)
			--*r->left;
		*changed = true;
		return LINNET_OK;
	}
	return LINNET_OK;
}

static enum linnet_code run_graph(struct runner *r, struct graph *g, struct arena *s, struct linnet_error *e);

/* The uses of values, which patches keep up; from the turn before when nothing has changed. */
static enum linnet_code get_uses(struct runner *r, const struct graph *g, struct arena *s, struct uses *u, struct linnet_error *e)
{
	struct pass_turns *t = r->turns;

	if (!t || g->outer)
		return graph_uses(g, s, u, e);
	if (t->uses_seen != t->changes + 1) {
		t->uses_seen = 0;
		if (!t->memory && !(t->memory = arena_new()))
			return fail_mem(e);
		arena_reset(t->memory);
		TRY(graph_uses(g, t->memory, &t->uses, e));
		t->uses_seen = t->changes + 1;
	}
	*u = t->uses;
	return LINNET_OK;
}

static uint64_t first_rules(const struct pass *pass)
{
	uint64_t rules = 0;

	for (int i = 0; i < pass->nrule; i++)
		rules |= pass->rule[i].first ? UINT64_C(1) << i : 0;
	return rules;
}

/* These rules at all nodes; those that a patch adds come last. */
static enum linnet_code scan(struct runner *r, struct graph *g, struct view *w, uint64_t these, uint64_t most, bool *changed, struct linnet_error *e)
{
	*changed = false;
	for (node_id id = 1; these && id < g->nnode && r->count < most && !(r->left && !*r->left); id++)
		if (!g->node[id].dead)
			TRY(try_node(r, g, w, id, these, changed, e));
	return LINNET_OK;
}

static enum linnet_code run_rules(struct runner *r, struct graph *g, struct arena *s, struct arena *scratch, struct linnet_error *e)
{
	struct view w = { .g = g, .scratch = scratch };
	uint64_t first = first_rules(r->pass), most = r->count + APPLIED_LEAST + (uint64_t)APPLIED_EACH * g->nnode;
	bool again = true, ignored;

	TRY(get_uses(r, g, s, &w.uses, e));
	while (again && !(r->left && !*r->left)) {
		TRY(scan(r, g, &w, first, most, &ignored, e));
		TRY(scan(r, g, &w, ~first, most, &again, e));
	}
	return LINNET_OK;
}

static enum linnet_code run_graph(struct runner *r, struct graph *g, struct arena *s, struct linnet_error *e)
{
	uint32_t before = r->count;

	arena_reset(s);
	if (r->pass->run) {
		uint32_t n = 0;

		if (!r->left || *r->left)
			TRY(r->pass->run(g, &n, e));
		r->count += n;
	}
	if (r->pass->rule) {
		struct arena *scratch = arena_new();
		enum linnet_code code = scratch ? run_rules(r, g, s, scratch, e) : fail_mem(e);

		arena_free(scratch);
		TRY(code);
	}
	for (node_id id = 1; id < g->nnode; id++)
		for (uint32_t i = 0; !g->node[id].dead && met(r, &g->node[id])->graphs && i < g->node[id].nattr; i++)
			if (g->node[id].attr[i].kind == ATTR_GRAPH)
				TRY(run_graph(r, g->node[id].attr[i].g, s, e));
	if (r->count != before && g->outer)
		graph_types_change(g);
	if (r->count != before && !g->outer) {
		arena_reset(s);
		TRY(graph_compact(g, s, e));
		if (g->stale)
			TRY(graph_infer(g, e));
	}
	return LINNET_OK;
}

static enum linnet_code run_pass(const struct pass *pass, struct pass_turns *turns, struct graph *g, uint32_t *count, uint32_t *left, struct linnet_error *e)
{
	struct arena *s = arena_new(), *patterns = arena_new();
	struct runner r = { .pass = pass, .turns = turns, .left = left, .main = g, .arena = patterns };
	enum linnet_code code = s && patterns ? LINNET_OK : fail_mem(e);

	if (!code && pass->nrule > 64)
		code = fail(e, LINNET_EINTERNAL, "pass %s has more than 64 rules", pass->name);
	if (!code && pass->nrule && !(r.pattern = NEW(patterns, (size_t)pass->nrule, struct pattern *)))
		code = fail_mem(e);
	if (!code)
		code = run_graph(&r, g, s, e);
	if (count)
		*count = r.count;
	arena_free(patterns);
	arena_free(s);
	return code;
}

enum linnet_code pass_run(const struct pass *pass, struct graph *g, uint32_t *count, uint32_t *left, struct linnet_error *e)
{
	return run_pass(pass, NULL, g, count, left, e);
}

enum linnet_code pass_turn(struct pass_turns *t, size_t i, const struct pass *pass, struct graph *g, uint32_t *count, uint32_t *left, struct linnet_error *e)
{
	uint32_t n = 0;

	*count = 0;
	if (t->seen[i] == t->changes + 1 || (g->opset && !g->denied && pass->makes && !op_find(NULL, pass->makes, g->opset)))
		return LINNET_OK;
	t->seen[i] = t->changes + 1;
	TRY(run_pass(pass, t, g, &n, left, e));
	t->changes += n;
	if (pass->settles)
		t->seen[i] = t->changes + 1;
	*count = n;
	return LINNET_OK;
}

void pass_turns_end(struct pass_turns *t)
{
	arena_free(t->memory);
}

static enum linnet_code run_all(struct pass_turns *t, struct graph *g, uint32_t *left, struct linnet_error *e)
{
	for (int round = 0; round < 8; round++) { /* one pass may open the way for an earlier one */
		uint64_t before = t->changes;

		for (size_t i = 0; passes[i]; i++) {
			uint32_t n;

			if (!passes[i]->late || t->changes == before)
				TRY(pass_turn(t, i, passes[i], g, &n, left, e));
		}
		if (t->changes == before)
			break;
	}
	return LINNET_OK;
}

enum linnet_code pass_run_all(struct graph *g, uint32_t *left, struct linnet_error *e)
{
	struct pass_turns turns = { 0 };
	struct arena *s = arena_new();
	enum linnet_code code = s ? graph_compact(g, s, e) : fail_mem(e); /* rules count uses: what nothing needs has none */

	arena_free(s);
	if (!code)
		code = run_all(&turns, g, left, e);
	pass_turns_end(&turns);
	return code;
}

enum linnet_code pass_read_all(struct graph *g, struct linnet_error *e)
{
	g->reads = true;
	return pass_run_all(g, NULL, e);
}
