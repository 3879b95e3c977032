/*
 * The source's attentions in one form: heads one by one, and no key/value caches.
 *
 * With empty caches a model computes what it would without any; so their length becomes 0 everywhere, the
 * attentions forget them, and inputs and outputs of that length go away. What is left is a model of whole sequences like any other, and counts
 * positions as it did with nothing in the caches.
 */
#include <string.h>

#include "converter/convert.h"
#include "graph/rewrite.h"

enum { Q, K, V, MASK, PAST_K, PAST_V, NINPUT };

static const struct node *attention(const struct graph *g, node_id id, value_id in[NINPUT])
{
	const struct node *n = &g->node[id];

	if (n->dead || !node_is(n, "Attention"))
		return NULL;
	for (uint32_t i = 0; i < NINPUT; i++)
		in[i] = i < n->nin ? n->in[i] : 0;
	return n;
}

/* The attributes of n that are given, but for those named; room for `more` behind them. */
static struct attr *attributes(struct patch *p, const struct node *n, const char *const *but, uint32_t more, uint32_t *count)
{
	struct attr *attr = NEW(p->arena, n->nattr + more + 1, struct attr);

	*count = 0;
	for (uint32_t i = 0; attr && i < n->nattr; i++) {
		const char *const *b = but;

		while (*b && strcmp(*b, n->attr[i].name))
			b++;
		if (!*b && attr_given(&n->attr[i]))
			attr[(*count)++] = n->attr[i];
	}
	return attr;
}

/* ---- Layout ---- */

static value_id turned(struct patch *p, value_id x)
{
	return patch_node(p, "Transpose", "heads", PATCH_IN(x), 1, (struct attr[]){ attr_ints("perm", (int64_t[]){ 0, 2, 1, 3 }, 4), { .name = NULL } });
}

static value_id shaped(struct patch *p, value_id x, const int64_t *d, int n)
{
	return patch_node(p, "Reshape", "heads", PATCH_IN(x, patch_ints(p, d, n, "heads")), 1, NULL);
}

enum linnet_code source_spread(struct graph *g, struct linnet_error *e)
{
	static const char *const but[] = { "q_num_heads", "kv_num_heads", NULL };

	for (node_id id = 1, last = g->nnode; id < last; id++) {
		value_id in[NINPUT], y;
		const struct node *n = attention(g, id, in);
		struct attr *attr;
		uint32_t na;
		struct patch p;
		int64_t heads[3];
		bool packed = n != NULL;

		for (int i = Q; i <= V && packed; i++) {
			const struct shape *s = &g->value[in[i]].type.shape;

			heads[i] = node_attr(n, i == Q ? "q_num_heads" : "kv_num_heads")->i;
			packed = s->rank == 3 && dim_is_int(s->d[2]) && heads[i] > 0 && s->d[2] % heads[i] == 0;
		}
		if (!packed || n->nin > NINPUT || (n->nout > 3 && n->out[3]))
			continue;
		patch_init(&p, g, e);
		attr = attributes(&p, n, but, 0, &na);
		if (!attr)
			return fail_mem(e);
		for (int i = Q; i <= V; i++)
			in[i] = turned(&p, shaped(&p, in[i], (int64_t[]){ 0, 0, heads[i], g->value[in[i]].type.shape.d[2] / heads[i] }, 4));
		y = patch_op(&p, n->op, *n->name ? n->name : "attention", in, n->nin, n->nout, attr);
		for (uint32_t i = 1; i < n->nout; i++)
			if (n->out[i])
				patch_replace(&p, n->out[i], y + i);
		patch_replace(&p, n->out[0], shaped(&p, turned(&p, y), (int64_t[]){ 0, 0, g->value[n->out[0]].type.shape.d[2] }, 3));
		TRY(patch_apply(g, &p, "spread", e));
	}
	return LINNET_OK;
}

/* ---- Caches ---- */

/* A length of s is the symbol and something more: what it has when new is put behind old. */
static bool counts(struct dims *t, const struct shape *s, dim symbol)
{
	for (int i = 0; i < s->rank; i++)
		if (dim_has(t, s->d[i], symbol) && !dim_has(t, dim_sub(t, s->d[i], symbol), symbol))
			return true;
	return false;
}

/* The length of the first cache whose length is an input's to choose; NULL: there is none. */
static const char *cache_length(const struct graph *g)
{
	value_id in[NINPUT];

	for (node_id id = 1; id < g->nnode; id++)
		if (attention(g, id, in) && in[PAST_K] && in[PAST_V]) {
			const struct shape *s = &g->value[in[PAST_K]].type.shape;
			const char *name = s->rank == 4 ? dim_name(g->dims, s->d[2]) : NULL;

			for (uint32_t i = 0; name && i < g->nin; i++)
				if (shape_has(g->dims, &g->value[g->in[i]].type.shape, s->d[2]))
					return name;
		}
	return NULL;
}

/* Attentions whose past has become empty do without; their caches are the new keys and values. */
static enum linnet_code forget(struct graph *g, struct linnet_error *e)
{
	static const char *const but[] = { "is_causal", NULL };

	for (node_id id = 1, last = g->nnode; id < last; id++) {
		value_id in[NINPUT], y;
		const struct node *n = attention(g, id, in);
		struct attr *attr;
		uint32_t na;
		struct patch p;

		if (!n || !in[PAST_K] || !in[PAST_V] || g->value[in[PAST_K]].type.shape.rank != 4 || g->value[in[PAST_K]].type.shape.d[2] != 0 ||
		    (n->nout > 3 && n->out[3]) || (n->nin > NINPUT && n->in[NINPUT]))
			continue;
		patch_init(&p, g, e);
		attr = attributes(&p, n, but, 1, &na);
		if (!attr)
			return fail_mem(e);
		/* one token that sees all before it */
		if (node_attr(n, "is_causal")->i || (!in[MASK] && g->value[in[Q]].type.shape.d[2] == 1))
			attr[na++] = attr_int("is_causal", 1);
		y = patch_op(&p, n->op, *n->name ? n->name : "attention", in, in[MASK] ? 4 : 3, 1, attr);
		patch_replace(&p, n->out[0], y);
		for (uint32_t i = 1; i < 3 && i < n->nout; i++)
			if (n->out[i])
				patch_replace(&p, n->out[i], in[i]);
		TRY(patch_apply(g, &p, "cache", e));
	}
	return LINNET_OK;
}

/* The mask's length has a name of its own among the inputs': it is the keys'. */
static enum linnet_code shorten(struct graph *g, const struct shape *m, const struct shape *k, struct linnet_error *e)
{
	dim wanted = m->d[m->rank - 1];
	const char *name = dim_name(g->dims, wanted);
	dim keys = k->d[2];

	if (name && dim_has(g->dims, keys, wanted)) { /* as those are that are said to be as many as the longer of both */
		keys = dim_put(g->dims, keys, wanted, 0);
		if (!dim_is_expr(keys))
			return LINNET_OK;
	}
	for (uint32_t i = 0; name && i < g->nin; i++)
		if (shape_has(g->dims, &g->value[g->in[i]].type.shape, wanted))
			return graph_set_dim(g, name, keys, e);
	return LINNET_OK;
}

/* The mask's length is computed from both lengths of an input, which are no names of the keys': that is of the keys' batch and as long as they are. */
static enum linnet_code shorten_view(struct graph *g, const struct shape *m, const struct shape *k, struct linnet_error *e)
{
	dim all = m->d[m->rank - 1], batch = k->d[0], length = k->d[2];

	for (uint32_t i = 0; i < g->nin; i++) {
		const struct shape *s = &g->value[g->in[i]].type.shape;
		const char *rows = s->rank == 2 ? dim_name(g->dims, s->d[0]) : NULL, *columns = s->rank == 2 ? dim_name(g->dims, s->d[1]) : NULL;

		if (!rows || !columns || !dim_has(g->dims, all, s->d[0]) || !dim_has(g->dims, all, s->d[1]) || shape_has(g->dims, k, s->d[0]) ||
		    shape_has(g->dims, k, s->d[1]))
			continue;
		TRY(graph_set_dim(g, rows, batch, e));
		return graph_set_dim(g, columns, length, e);
	}
	return LINNET_OK;
}

/* A mask as long as cache and new tokens together, or under a name of its own, is now as long as the tokens. */
static enum linnet_code shorten_masks(struct graph *g, struct linnet_error *e)
{
	for (node_id id = 1; id < g->nnode; id++) {
		value_id in[NINPUT];
		struct shape m, k;

		if (!attention(g, id, in) || !in[MASK])
			continue;
		m = g->value[in[MASK]].type.shape;
		k = g->value[in[K]].type.shape;
		if (k.rank != 4 || m.rank < 1 || m.d[m.rank - 1] == k.d[2])
			continue;
		TRY(shorten(g, &m, &k, e));
		TRY(shorten_view(g, &m, &k, e));
	}
	return LINNET_OK;
}

/* Lengths that are read off an input which was a cache are read off another, or known. */
static enum linnet_code read_elsewhere(struct graph *g, const bool *was_cache, struct linnet_error *e)
{
	for (node_id id = 1, last = g->nnode; id < last; id++) {
		const struct node *n = &g->node[id];
		const struct value *x = !n->dead && node_is(n, "Shape") ? &g->value[n->in[0]] : NULL;
		const struct type *t;
		int64_t from, to;
		value_id part[MAX_RANK];
		struct patch p;

		if (!x || x->kind != VALUE_INPUT || !was_cache[x->index] || x->type.shape.rank < 0)
			continue;
		t = &x->type;
		from = node_attr(n, "start")->i;
		to = node_attr(n, "end")->given ? node_attr(n, "end")->i : t->shape.rank;
		from += from < 0 ? t->shape.rank : 0;
		to += to < 0 ? t->shape.rank : 0;
		if (from < 0 || to > t->shape.rank || from >= to)
			continue;
		patch_init(&p, g, e);
		for (int64_t k = from; k < to; k++) {
			dim d = t->shape.d[k];

			part[k - from] = dim_is_int(d) ? patch_ints(&p, &d, 1, "length") : 0;
			for (uint32_t i = 0; i < g->nin && !part[k - from]; i++) {
				const struct shape *s = &g->value[g->in[i]].type.shape;

				for (int a = 0; a < s->rank && !was_cache[i] && !part[k - from]; a++)
					if (s->d[a] == d)
						part[k - from] = patch_node(&p, "Shape", "length", PATCH_IN(g->in[i]), 1, (struct attr[]){
						                            attr_int("start", a), attr_int("end", a + 1), { .name = NULL } });
			}
			if (!part[k - from] && !p.code)
				goto next;
		}
		patch_replace(&p, n->out[0], to - from == 1 ? part[0] : patch_node(&p, "Concat", "lengths", part, (uint32_t)(to - from), 1,
		              (struct attr[]){ attr_int("axis", 0), { .name = NULL } }));
		TRY(patch_apply(g, &p, "cache", e));
next:;
	}
	return LINNET_OK;
}

/* Inputs that were as long as the caches and have no use any more go away. */
static enum linnet_code drop_inputs(struct graph *g, const bool *was_cache, struct arena *scratch, uint32_t *dropped, struct linnet_error *e)
{
	struct uses u;
	uint32_t n = 0;

	TRY(graph_compact(g, scratch, e));
	TRY(graph_uses(g, scratch, &u, e));
	for (uint32_t i = 0; i < g->nin; i++) {
		if (was_cache[i] && !uses_of(&u, g->in[i])) {
			++*dropped;
			continue;
		}
		g->value[g->in[i]].index = n;
		g->in[n++] = g->in[i];
	}
	g->nin = n;
	return graph_compact(g, scratch, e);
}

/* The name of columns of input i [batch, columns] that no other input has; NULL: it has no such. */
static const char *own_columns(const struct graph *g, uint32_t i)
{
	const struct shape *s = &g->value[g->in[i]].type.shape;
	const char *name = s->rank == 2 ? dim_name(g->dims, s->d[1]) : NULL;

	for (uint32_t k = 0; name && k < g->nin; k++)
		if (k != i && shape_has(g->dims, &g->value[g->in[k]].type.shape, s->d[1]))
			return NULL;
	return name;
}

/*
 * A list of the keys, old and new, under a name of its own, from which masks pick columns by number, so that theirs is the keys' length already: now it
 * is as long as the keys. g is in order.
 */
static enum linnet_code shorten_lists(struct graph *g, struct arena *scratch, struct linnet_error *e)
{
	static const char *const picks[] = { "Gather", "GatherND", "GatherElements", "Slice", NULL }, /* and of each element one: */
	                  *const keeps[] = { "Cast", "Equal", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Not", "Transpose", NULL };
	value_id in[NINPUT];
	dim keys = DIM_NONE;
	bool *hides, *picked; /* by value: masks are made of it; it is what they pick from */

	TRY_NEW(hides, scratch, g->nvalue);
	TRY_NEW(picked, scratch, g->nvalue);
	for (node_id id = g->nnode - 1; id > 0; id--) {
		const struct node *n = &g->node[id];
		bool read = false, list = false;

		for (uint32_t i = 0; i < n->nout; i++) {
			read = read || (n->out[i] && hides[n->out[i]]);
			list = list || (n->out[i] && picked[n->out[i]]);
		}
		for (uint32_t i = 0; i < n->nin && read; i++) {
			hides[n->in[i]] = true;
			picked[n->in[i]] = picked[n->in[i]] || (list && (node_among(n, keeps) || n->op->flags & OP_VIEW)) || (!i && node_among(n, picks));
		}
		if (attention(g, id, in) && in[MASK]) {
			const struct shape *m = &g->value[in[MASK]].type.shape, *k = &g->value[in[K]].type.shape;

			if (k->rank == 4 && m->rank > 1 && m->d[m->rank - 1] == k->d[2] && (keys == DIM_NONE || keys == k->d[2])) {
				keys = k->d[2];
				hides[in[MASK]] = true;
			}
		}
	}
	for (uint32_t i = 0; i < g->nin && keys != DIM_NONE; i++) {
		const char *name = picked[g->in[i]] ? own_columns(g, i) : NULL;

		if (name && !dim_has(g->dims, keys, dim_symbol(g->dims, name)))
			TRY(graph_set_dim(g, name, keys, e));
	}
	return LINNET_OK;
}

enum linnet_code cache_drop(struct graph *g, struct arena *scratch, uint32_t *dropped, struct linnet_error *e)
{
	const char *name;
	bool *was_cache;

	*dropped = 0;
	TRY_NEW(was_cache, scratch, g->nin + 1);
	for (int round = 0; round < 8 && (name = cache_length(g)) != NULL; round++) {
		dim length = dim_symbol(g->dims, name);
		uint32_t n = 0;

		for (uint32_t i = 0; i < g->nin; i++)
			for (int k = 0; k < g->value[g->in[i]].type.shape.rank; k++)
				was_cache[i] = was_cache[i] || g->value[g->in[i]].type.shape.d[k] == length;
		for (uint32_t i = 0; i < g->nout; i++)
			if (!counts(g->dims, &g->value[g->out[i]].type.shape, length))
				g->out[n++] = g->out[i];
		g->nout = n;
		TRY(graph_set_dim(g, name, 0, e));
		TRY(forget(g, e));
	}
	TRY(shorten_masks(g, e));
	TRY(read_elsewhere(g, was_cache, e));
	TRY(drop_inputs(g, was_cache, scratch, dropped, e));
	return *dropped ? shorten_lists(g, scratch, e) : LINNET_OK;
}
