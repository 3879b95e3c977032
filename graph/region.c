/* The part of a graph that mixes tokens to make a value, and where it begins. */
#include "graph/region.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_REGION = 8192 };

/* Beside a kind: Min, Max or Clip may have cut the value off; it is a product of what enters. */
enum { KINDS = 16, LIMITED = 16, PRODUCT = 32 };

static bool named(const struct node *n, const char *const *list)
{
	for (; *list; list++)
		if (node_is(n, *list))
			return true;
	return false;
}

static const char *const alike[] = { "Identity", "Neg", "Exp", "Cast", "CastLike", "Unsqueeze", "Squeeze", "Transpose", "Expand", "Tile", "Reshape", "Flatten", NULL };
static const char *const pairs[] = { "Add", "Sub", "Mul", "Div", "Sum", NULL };
static const char *const limits[] = { "Min", "Max", "Clip", NULL };
static const char *const cuts[] = { "Slice", "Split", "Gather", NULL };
static const char *const others[] = { "MatMul", "Einsum", "ReduceSum", "CumSum", "Trilu", "Pad", "Where", "Concat", "Scan", "Loop", "ScatterND", "ScatterElements", "Reciprocal", NULL };

static bool polynomial(const struct node *n) { return named(n, alike) || named(n, pairs) || named(n, limits) || named(n, cuts) || named(n, others); }

bool region_makes_polynomial(const struct node *n) { return polynomial(n) && !named(n, limits); }

/* ---- All of a graph ---- */

static bool outer(const struct graph *g, const struct node *n)
{
	const struct shape *a = &g->value[n->in[0]].type.shape, *b = &g->value[n->in[1]].type.shape;
	bool wider[2] = { false, false };

	for (int i = 1; i <= a->rank || i <= b->rank; i++) {
		dim x = i <= a->rank ? a->d[a->rank - i] : 1, y = i <= b->rank ? b->d[b->rank - i] : 1;

		wider[0] = wider[0] || (x != 1 && y == 1);
		wider[1] = wider[1] || (y != 1 && x == 1);
	}
	return wider[0] && wider[1];
}

static bool both_vary(const struct terrain *t, const struct node *n)
{
	return n->nin > 1 && n->in[0] && n->in[1] && !t->fixed[n->in[0]] && !t->fixed[n->in[1]];
}

static bool may_mix(const struct terrain *t, const struct node *n)
{
	static const char *const sure[] = { "CumSum", "Scan", "Loop", NULL };

	return named(n, sure) || ((node_is(n, "MatMul") || node_is(n, "Einsum")) && both_vary(t, n)) || (named(n, pairs) && both_vary(t, n) && outer(t->g, n));
}

enum linnet_code terrain_survey(const struct graph *g, struct arena *a, struct terrain *t, struct linnet_error *e)
{
	*t = (struct terrain){ .g = g };
	TRY(graph_order(g, a, &t->order, &t->norder, e));
	TRY_NEW(t->at, a, g->nnode);
	TRY_NEW(t->fixed, a, g->nvalue);
	TRY_NEW(t->loose, a, g->nvalue);
	TRY_NEW(t->kind, a, g->nvalue);
	t->fixed[0] = true;
	for (value_id v = 1; v < g->nvalue; v++)
		t->fixed[v] = g->value[v].type.value != NULL;
	for (uint32_t i = 0; i < t->norder; i++) {
		const struct node *n = &g->node[t->order[i]];
		bool fixed = n->op->agree != AGREE_RANDOM, loose = false;

		t->at[t->order[i]] = i;
		for (uint32_t k = 0; k < n->nin; k++) {
			fixed = fixed && (t->fixed[n->in[k]] || (k == 1 && node_is(n, "CastLike")));
			loose = loose || t->loose[n->in[k]];
		}
		fixed = fixed || n->op->flags & OP_SHAPE_ONLY;
		loose = !fixed && polynomial(n) && (loose || may_mix(t, n));
		for (uint32_t k = 0; k < n->nout; k++) {
			t->fixed[n->out[k]] = t->fixed[n->out[k]] || fixed || !n->out[k];
			t->loose[n->out[k]] = loose && n->out[k];
		}
	}
	return LINNET_OK;
}

/* ---- One part ---- */

struct reading {
	struct terrain *t;
	const struct graph *g;
	struct region *r;
	value_id *seen;
	uint32_t nseen;
	unsigned how;
	bool foreign; /* something no recurrence has: a limit on other than an exponent, the exponential of a product */
};

struct lengths {
	const char *tokens;
	int64_t n;
};

static void keep_name(void *ctx, const char *name) { ((struct lengths *)ctx)->tokens = name; }

static dim only_tokens(void *ctx, const char *name)
{
	const struct lengths *l = ctx;

	return strcmp(name, l->tokens) ? 5 : l->n;
}

bool region_counts(const struct graph *g, dim tokens, dim d)
{
	struct lengths l = { .tokens = NULL };
	int same = 0;

	if (d == tokens)
		return true;
	if (dim_is_int(d) || dim_is_int(tokens) || d == DIM_NONE)
		return false;
	dim_symbols(g->dims, tokens, keep_name, &l);
	for (l.n = 768; l.n <= 1536 && l.tokens; l.n *= 2)
		same += dim_eval(g->dims, d, only_tokens, &l) == l.n;
	return same == 2;
}

/* Expressions of many lengths take long to evaluate, and are met again and again. */
static bool is_tokens(const struct reading *x, dim d)
{
	dim tokens = x->r->tokens;
	struct count *c = &x->t->count[((uint64_t)d * 31 + (uint64_t)tokens) % 256];

	if (dim_is_int(d) || dim_is_int(tokens) || d == DIM_NONE)
		return d == tokens;
	if (c->tokens != tokens || c->d != d)
		*c = (struct count){ tokens, d, region_counts(x->g, tokens, d) };
	return c->same;
}

static const struct shape *shape_at(const struct reading *x, value_id v) { return &x->g->value[v].type.shape; }

static int token_axes(const struct reading *x, value_id v)
{
	const struct shape *s = shape_at(x, v);
	int n = 0;

	for (int i = 0; i < s->rank; i++)
		n += is_tokens(x, s->d[i]);
	return n;
}

static bool tokens_on(const struct reading *x, value_id v, int64_t axis)
{
	const struct shape *s = shape_at(x, v);

	axis = axis < 0 ? axis + s->rank : axis;
	return axis < 0 || axis >= s->rank || is_tokens(x, s->d[axis]);
}

static enum region_kind kind_of(const struct reading *x, value_id v)
{
	return !v || x->t->fixed[v] ? REGION_FIXED : (enum region_kind)(x->t->kind[v] % KINDS);
}

/* An exponential, whatever its layout. */
static bool is_power(const struct graph *g, value_id v)
{
	for (const struct node *n = value_node(g, v); n && named(n, alike); n = value_node(g, n->in[0]))
		if (node_is(n, "Exp"))
			return true;
	return false;
}

/* All nodes of a body make polynomials and exponentials, or compute with integers. */
static bool polynomial_body(const struct graph *b, int depth)
{
	for (node_id id = 1; id < b->nnode; id++) {
		const struct node *n = &b->node[id];
		bool whole = true;

		if (n->dead || n->op->flags & OP_SHAPE_ONLY)
			continue;
		for (uint32_t i = 0; i < n->nin; i++)
			whole = whole && (!n->in[i] || !dtype_in(b->value[n->in[i]].type.dt, FLOATS) || value_const(b, n->in[i]));
		if (whole && !(n->op->flags & OP_CONTROL))
			continue;
		if (!polynomial(n) || named(n, limits) || (node_is(n, "Div") && !is_power(b, n->in[1]) && !value_const(b, n->in[1])) ||
		    (node_is(n, "Reciprocal") && !is_power(b, n->in[0])))
			return false;
		if (n->op->flags & OP_CONTROL && (!depth || !node_attr(n, "body")->g || !polynomial_body(node_attr(n, "body")->g, depth - 1)))
			return false;
	}
	return true;
}

static enum region_kind product(const struct reading *x, const struct node *n, enum region_kind a, enum region_kind b)
{
	const struct shape *s = shape_at(x, n->in[0]), *u = shape_at(x, n->in[1]);

	if (a != REGION_FIXED && b != REGION_FIXED)
		return REGION_MIXED;
	if (s->rank < 2 || u->rank < 2)
		return REGION_SOURCE;
	if (b == REGION_FIXED)
		return is_tokens(x, s->d[s->rank - 1]) || (a == REGION_MIXED && u->rank > 2) ? REGION_MIXED : REGION_SOURCE;
	return is_tokens(x, u->d[u->rank - 2]) || b == REGION_MIXED ? REGION_MIXED : REGION_SOURCE;
}

/* Whether the first axis that is as long as there are tokens is one of the output as well. */
static bool keeps_first(const struct reading *x, const struct node *n)
{
	const struct shape *in = shape_at(x, n->in[0]), *out = shape_at(x, n->out[0]);
	int first = 0;

	while (first < in->rank && !is_tokens(x, in->d[first]))
		first++;
	for (int i = 0; i < out->rank && first < in->rank; i++)
		if (out->d[i] == in->d[first] && shape_count(x->g->dims, in, 0, first) == shape_count(x->g->dims, out, 0, i))
			return true;
	return false;
}

/* What a node of the vocabulary makes of what it reads; sets r->ordered. */
static enum region_kind judge(struct reading *x, const struct node *n)
{
	enum region_kind k[2] = { REGION_FIXED, REGION_FIXED }, most = REGION_FIXED;
	int vary = 0, tokens = 0;
	value_id out = n->out[0];

	for (uint32_t i = 0; i < n->nin; i++) {
		enum region_kind one = i == 1 && node_is(n, "CastLike") ? REGION_FIXED : kind_of(x, n->in[i]);

		if (i < 2)
			k[i] = one;
		if (one == REGION_FIXED)
			continue;
		vary++;
		most = one > most ? one : most;
		if (token_axes(x, n->in[i]) > tokens)
			tokens = token_axes(x, n->in[i]);
	}
	if (!polynomial(n) || !vary)
		return REGION_SOURCE;
	if (node_is(n, "Scan") || node_is(n, "Loop")) {
		x->r->ordered = true;
		return node_attr(n, "body")->g && polynomial_body(node_attr(n, "body")->g, 2) ? REGION_MIXED : REGION_SOURCE;
	}
	if (node_is(n, "CumSum") || node_is(n, "Trilu") || node_is(n, "Pad") || node_is(n, "ScatterND") || node_is(n, "ScatterElements")) {
		x->r->ordered = true;
		return REGION_MIXED;
	}
	if (node_is(n, "MatMul"))
		return product(x, n, k[0], k[1]);
	if (node_is(n, "Einsum"))
		return vary > 1 || most == REGION_MIXED ? REGION_MIXED : REGION_SOURCE;
	if (node_is(n, "Div") || node_is(n, "Reciprocal")) {
		int by = node_is(n, "Div");

		if (k[by] != REGION_FIXED && !is_power(x->g, n->in[by]))
			return REGION_SOURCE;
	}
	if (node_is(n, "Where") && k[0] != REGION_FIXED)
		return REGION_SOURCE;
	if (named(n, limits))
		return most == REGION_MIXED ? REGION_MIXED : REGION_SOURCE;
	if (node_is(n, "Concat")) {
		int64_t axis = node_attr(n, "axis")->i;
		bool join = tokens_on(x, out, axis);

		for (uint32_t i = 0; i < n->nin; i++)
			join = join || tokens_on(x, n->in[i], axis);
		x->r->ordered = x->r->ordered || join;
		return join || most == REGION_MIXED ? REGION_MIXED : REGION_TOKEN;
	}
	if (named(n, cuts)) {
		bool part = false;
		int64_t axes[MAX_RANK];
		int count = 0;

		if (node_is(n, "Slice")) {
			if (n->nin > 3 && n->in[3] && !value_ints(x->g, n->in[3], axes, MAX_RANK, &count))
				return REGION_SOURCE;
			part = n->nin <= 3 || !n->in[3];
			for (int i = 0; i < count; i++)
				part = part || tokens_on(x, n->in[0], axes[i]);
		} else {
			part = tokens_on(x, n->in[0], node_attr(n, "axis")->i);
		}
		if (node_is(n, "Gather") && k[1] != REGION_FIXED)
			return REGION_SOURCE;
		x->r->ordered = x->r->ordered || part;
		return part || most == REGION_MIXED ? REGION_MIXED : REGION_TOKEN;
	}
	if (x->how & REGION_ROWS && most != REGION_MIXED && node_is(n, "Reshape") && token_axes(x, out) < tokens && keeps_first(x, n)) {
		x->r->how |= REGION_ROWS;
		return REGION_TOKEN;
	}
	if (node_is(n, "Reshape") || node_is(n, "Flatten"))
		return most == REGION_MIXED || (tokens && token_axes(x, out) < tokens) ? REGION_MIXED : REGION_TOKEN;
	if (node_is(n, "ReduceSum"))
		return most == REGION_MIXED || token_axes(x, out) < tokens ? REGION_MIXED : REGION_TOKEN;
	if (named(n, pairs) || node_is(n, "Where")) {
		if (n->nin > 1 && token_axes(x, out) > 1)
			x->r->ordered = x->r->ordered || k[0] == REGION_FIXED || k[1] == REGION_FIXED;
		if (most == REGION_MIXED || token_axes(x, out) > tokens || (vary > 1 && named(n, pairs) && outer(x->g, n)))
			return REGION_MIXED;
	}
	return most == REGION_MIXED ? REGION_MIXED : REGION_TOKEN;
}

/*
 * The same with LIMITED, which is fine on the way to an exponential, where numbers of all sizes are tried, and PRODUCT, which is not: decays are
 * exponentials of sums, scores of softmax of products.
 */
static uint8_t judge_more(struct reading *x, const struct node *n)
{
	enum region_kind kind = judge(x, n);
	uint8_t more = named(n, limits) ? LIMITED : 0;
	int vary = 0;

	for (uint32_t i = 0; i < n->nin; i++) {
		vary += kind_of(x, n->in[i]) != REGION_FIXED;
		more |= n->in[i] ? x->t->kind[n->in[i]] & (LIMITED | PRODUCT) : 0;
	}
	if (kind != REGION_MIXED && kind != REGION_TOKEN)
		return (uint8_t)kind;
	if (node_is(n, "Exp")) {
		x->foreign = x->foreign || (more & PRODUCT && kind == REGION_MIXED);
		return (uint8_t)kind;
	}
	if (kind == REGION_MIXED && more & LIMITED && !named(n, alike) && !named(n, limits) && !((named(n, pairs) || node_is(n, "Where")) && vary == 1))
		x->foreign = true;
	if (vary > 1 && (node_is(n, "Mul") || node_is(n, "MatMul") || node_is(n, "Einsum")))
		more |= PRODUCT;
	return (uint8_t)(kind | more);
}

/* Kinds of all values behind o, as far as they are of the part. */
static enum linnet_code explore(struct reading *x, bool *found, struct linnet_error *e)
{
	value_id *stack;
	uint32_t depth = 0;

	TRY_NEW(stack, x->t->a, 2 * MAX_REGION + 64);
	TRY_NEW(x->seen, x->t->a, MAX_REGION);
	stack[depth++] = x->r->o;
	while (depth) {
		value_id v = stack[depth - 1];
		const struct node *n = value_node(x->g, v);
		bool ready = true;

		if (kind_of(x, v) != REGION_UNSEEN) {
			depth--;
			continue;
		}
		if (n && polynomial(n))
			for (uint32_t i = 0; i < n->nin; i++) {
				if (kind_of(x, n->in[i]) != REGION_UNSEEN || (i == 1 && node_is(n, "CastLike")))
					continue;
				if (depth == 2 * MAX_REGION + 64) {
					*found = false;
					return LINNET_OK;
				}
				stack[depth++] = n->in[i];
				ready = false;
			}
		if (!ready)
			continue;
		depth--;
		if (x->nseen == MAX_REGION) {
			*found = false;
			return LINNET_OK;
		}
		x->seen[x->nseen++] = v;
		x->t->kind[v] = n ? judge_more(x, n) : REGION_SOURCE;
	}
	*found = kind_of(x, x->r->o) == REGION_MIXED && !(x->t->kind[x->r->o] & LIMITED) && !x->foreign;
	return LINNET_OK;
}

/* ---- Where it begins ---- */

/* A cut that leaves nothing out: of an axis of length 1, as the only chunk is one of. */
static bool takes_all(const struct reading *x, const struct node *n)
{
	const struct shape *in = shape_at(x, n->in[0]), *out = shape_at(x, n->out[0]);
	int64_t axis = node_is(n, "Gather") ? node_attr(n, "axis")->i : 0;

	axis += axis < 0 ? in->rank : 0;
	if (!node_is(n, "Gather"))
		return shape_equal(in, out);
	return axis >= 0 && axis < in->rank && in->d[axis] == 1 && shape_count(x->g->dims, in, 0, in->rank) == shape_count(x->g->dims, out, 0, out->rank);
}

/* The one value that a value of the part is made of, by layout, a sign, an exponential or constants; 0: there is not one. */
static value_id made_of(const struct reading *x, value_id v)
{
	const struct node *n = value_node(x->g, v);
	value_id from = 0;

	if (kind_of(x, v) != REGION_TOKEN || !n || (named(n, cuts) && !takes_all(x, n)) || node_is(n, "Concat") || node_is(n, "ReduceSum"))
		return 0;
	for (uint32_t i = 0; i < n->nin; i++) {
		if (kind_of(x, n->in[i]) == REGION_FIXED || (i == 1 && node_is(n, "CastLike")))
			continue;
		if (from)
			return 0;
		from = n->in[i];
	}
	return from;
}

/* Whether v lies on the chain from `from`. */
static bool on_chain(const struct reading *x, value_id from, value_id v)
{
	for (; from; from = made_of(x, from))
		if (from == v)
			return true;
	return false;
}

static value_id meeting(const struct reading *x, value_id a, value_id b)
{
	for (; a; a = made_of(x, a))
		if (on_chain(x, b, a))
			return a;
	return 0;
}

static void add_member(struct region *r, value_id v)
{
	for (int i = 0; i < r->nmember && i < MAX_MEMBERS; i++)
		if (r->member[i] == v)
			return;
	if (r->nmember < MAX_MEMBERS)
		r->member[r->nmember] = v;
	r->nmember++;
}

/* A list of candidates, which may shrink as they turn out to be made of the same. */
struct front {
	value_id v[4 * MAX_MEMBERS];
	int n;
};

static bool push(struct front *f, value_id v)
{
	for (int i = 0; i < f->n; i++)
		if (f->v[i] == v)
			return true;
	if (f->n == 4 * MAX_MEMBERS)
		return false;
	f->v[f->n++] = v;
	return true;
}

/* Two that are made of one value become it; a product with another of them is taken apart. */
static bool merge(const struct reading *x, struct front *f)
{
	for (int i = 0; i < f->n; i++) {
		value_id root = f->v[i];
		const struct node *n;

		for (int j = i + 1; j < f->n; j++) {
			value_id m = meeting(x, f->v[i], f->v[j]);

			if (!m)
				continue;
			f->v[i] = m;
			f->v[j] = f->v[--f->n];
			return true;
		}
		if (!(x->how & REGION_SPLIT))
			continue;
		while (made_of(x, root))
			root = made_of(x, root);
		n = value_node(x->g, root);
		if (kind_of(x, root) != REGION_TOKEN || !n || !node_is(n, "Mul"))
			continue;
		for (int j = 0; j < f->n; j++) {
			if (j == i || (!meeting(x, n->in[0], f->v[j]) && !meeting(x, n->in[1], f->v[j])))
				continue;
			f->v[i] = f->v[--f->n];
			x->r->how |= REGION_SPLIT;
			return push(f, n->in[0]) && push(f, n->in[1]);
		}
	}
	return false;
}

enum linnet_code region_read(struct terrain *t, value_id o, dim tokens, unsigned how, struct region *r, bool *found, struct linnet_error *e)
{
	struct reading x = { .t = t, .g = t->g, .r = r, .how = how };
	struct front front = { .n = 0 };
	enum linnet_code code;
	bool room = true;

	*r = (struct region){ .o = o, .tokens = tokens };
	code = explore(&x, found, e);
	if (!code && *found)
		TRY_NEW(r->mixed, t->a, x.nseen);
	for (uint32_t i = 0; !code && *found && i < x.nseen; i++) {
		value_id v = x.seen[i];
		const struct node *n = value_node(t->g, v);

		if (kind_of(&x, v) != REGION_MIXED)
			continue;
		r->mixed[r->nmixed++] = v;
		for (uint32_t k = 0; k < n->nin && room; k++) {
			enum region_kind kind = kind_of(&x, n->in[k]);

			if (kind == REGION_SOURCE || kind == REGION_TOKEN)
				room = push(&front, n->in[k]);
		}
	}
	for (int step = 0; !code && *found && room && step < 64 && merge(&x, &front); step++) {
	}
	for (int i = 0; i < front.n; i++)
		add_member(r, front.v[i]);
	*found = !code && *found && room && r->ordered && r->nmember > 1 && r->nmember <= MAX_MEMBERS;
	for (uint32_t i = 0; i < x.nseen; i++)
		t->kind[x.seen[i]] = REGION_UNSEEN;
	return code;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

enum linnet_code region_nodes(struct terrain *t, const value_id *want, int nwant, const value_id *given, int ngiven, node_id **out, uint32_t *n,
                              struct linnet_error *e)
{
	const struct graph *g = t->g;
	enum { SEEN = 255, ROOM = 4 * MAX_REGION };
	value_id *stack, *touched;
	uint32_t depth = 0, ntouched = 0, *place;

	*n = 0;
	TRY_NEW(stack, t->a, ROOM);
	TRY_NEW(touched, t->a, ROOM);
	TRY_NEW(place, t->a, ROOM);
	for (int i = 0; i < ngiven; i++) {
		t->kind[given[i]] = SEEN;
		touched[ntouched++] = given[i];
	}
	for (int i = 0; i < nwant; i++)
		stack[depth++] = want[i];
	while (depth) {
		value_id v = stack[--depth];
		const struct node *m = value_node(g, v);

		if (!v || t->kind[v] == SEEN || !m || g->value[v].type.value)
			continue;
		for (uint32_t k = 0; k < m->nout; k++)
			if (m->out[k] && t->kind[m->out[k]] != SEEN && ntouched < ROOM) {
				t->kind[m->out[k]] = SEEN;
				touched[ntouched++] = m->out[k];
			}
		if (*n == ROOM - 1 || ntouched == ROOM)
			break;
		place[(*n)++] = t->at[m - g->node];
		for (uint32_t i = 0; i < m->nin && !(m->op->flags & OP_SHAPE_ONLY); i++)
			if (m->in[i] && depth < ROOM && !(i == 1 && node_is(m, "CastLike")))
				stack[depth++] = m->in[i];
	}
	for (uint32_t i = 0; i < ntouched; i++)
		t->kind[touched[i]] = REGION_UNSEEN;
	qsort(place, *n, sizeof *place, by_number);
	TRY_NEW(*out, t->a, *n);
	for (uint32_t i = 0; i < *n; i++)
		(*out)[i] = t->order[place[i]];
	return LINNET_OK;
}
