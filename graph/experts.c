/* Finding mixtures of experts: from a projection that chooses or weighs, on to what is chosen or weighed. */
#include "graph/experts.h"

#include <string.h>

enum { MAX_EXPERTS = 1024, MAX_MET = 4000, MAX_BACK = 40 };

/* ---- Experts ---- */

/* The unit between two projections, as a node that is gated, active or cut off, that v, behind the second one, was made by; 0. */
static node_id unit_behind(const struct graph *g, value_id v)
{
	static const char *const plain[] = { "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast", "Expand", NULL };
	static const char *const active[] = { "Relu", "Gelu", "Swish", "Tanh", "Sigmoid", "HardSwish", "Mish", "Elu", "LeakyRelu", "Softplus", NULL };
	bool down = false;

	for (int steps = 0; steps < MAX_BACK; steps++) {
		const struct node *n = value_node(g, v);

		if (!n || !n->nin)
			return 0;
		if (down && (node_is_glu(n) || node_among(n, active) || node_is_ms(n, "QuickGelu") || node_is_ms(n, "FastGelu") || node_is_ms(n, "Gelu")))
			return (node_id)(n - g->node);
		if (is_projection(g, n)) {
			if (down)
				return 0;
			down = true;
			v = n->in[value_is_weight(g, n->in[0]) && node_is(n, "MatMul") ? 1 : 0];
		} else if (node_among(n, plain)) {
			v = n->in[0];
		} else if ((node_is(n, "Add") || node_is(n, "Mul")) && (value_is_weight(g, n->in[0]) || value_is_weight(g, n->in[1]))) {
			v = n->in[value_is_weight(g, n->in[0])];
		} else if (down && node_is(n, "Mul")) { /* a unit that no operator is: with limits, say */
			return (node_id)(n - g->node);
		} else {
			return 0;
		}
	}
	return 0;
}

/* Whether a weight is of one array with a leading axis of so many; *gathered: of the chosen ones only. */
static bool is_stack(const struct graph *g, value_id v, int64_t experts, bool *gathered)
{
	for (int steps = 0; v && steps < MAX_BACK; steps++) {
		const struct shape *s = &g->value[v].type.shape;
		const struct node *n = value_node(g, v);

		for (int i = 0; !n && i < s->rank - 2; i++)
			if (s->d[i] == experts)
				return true;
		if (!n || !n->nin)
			return false;
		*gathered = *gathered || ((node_is(n, "Gather") || node_is(n, "GatherND")) && !value_is_weight(g, n->in[1]));
		v = n->in[0];
	}
	return false;
}

/* Whether the projections around a unit have their weights in one stack of all experts. */
static bool unit_stacked(const struct graph *g, const struct node *n, int64_t experts, bool *gathered)
{
	value_id v = n->nin ? n->in[0] : 0;

	for (int steps = 0; v && steps < MAX_BACK; steps++) {
		const struct node *from = value_node(g, v);

		if (!from || !from->nin)
			return false;
		if (is_projection(g, from)) {
			bool turned = node_is(from, "MatMul") && value_is_weight(g, from->in[0]);

			return is_stack(g, from->in[turned ? 0 : 1], experts, gathered);
		}
		v = from->in[value_is_weight(g, from->in[0]) && from->nin > 1 ? 1 : 0];
	}
	return false;
}

static const char *variant_of(const struct graph *g, const struct node *n, struct arena *a)
{
	struct glu_group f;

	if (!node_is_glu(n))
		return node_is(n, "Mul") ? "gated" : "mlp";
	return node_glu(g, n, a, &f) ? f.variant : NULL;
}

/* A gated unit or activation in a graph or in those inside; 0 when there is none. *in: the graph that has it. */
static node_id unit_inside(const struct graph *g, int depth, const struct graph **in)
{
	node_id found = 0;

	for (node_id id = 1; id < g->nnode && !found; id++) {
		const struct node *n = &g->node[id];

		if (n->dead)
			continue;
		*in = g;
		if (node_is_glu(n))
			return id;
		if (is_projection(g, n) && n->nout)
			found = unit_behind(g, n->out[0]);
		for (uint32_t i = 0; i < n->nattr && depth && !found; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				found = unit_inside(n->attr[i].g, depth - 1, in);
	}
	return found;
}

/* ---- From the router on ---- */

struct walk {
	const struct view *w;
	struct arena *a;
	uint32_t *mark;              /* of nodes: the router that met it last */
	uint32_t stamp;
	value_id *met;               /* what was made of the router's scores, in the order it was met */
	int nmet;
	node_id *unit;
	int nunit, njoin;
	node_id join[MAX_EXPERTS];   /* where weights meet results */
	const struct node *choice, *softmax, *sigmoid;
	int choice_at, softmax_at;
	const struct node *holder;   /* a loop or branch with experts in it */
	int nholder;
	int64_t experts;
};

static void add_unit(struct walk *k, node_id unit)
{
	for (int i = 0; i < k->nunit; i++)
		if (k->unit[i] == unit)
			return;
	if (k->nunit < MAX_EXPERTS)
		k->unit[k->nunit++] = unit;
}

/* n reads what the router made: what n is to the mixture. Returns whether the walk goes on behind it. */
static bool meet(struct walk *k, const struct node *n, uint32_t index)
{
	static const char *const joins[] = { "Mul", "MatMul", "Where", NULL }, *const sums[] = { "MatMul", "Add", "Sum", NULL };
	const struct graph *g = k->w->g, *in;
	bool joined = false, other = false;

	for (uint32_t i = 0; i < n->nattr; i++)
		if (n->attr[i].kind == ATTR_GRAPH && !joined && unit_inside(n->attr[i].g, 4, &in)) {
			k->holder = n;
			k->nholder++;
			joined = true;
		}
	if (joined)
		return true; /* one branch hands its result to the next */
	if (is_projection(g, n) || part_kind(g, n) || n->op->flags & OP_SHAPE_ONLY)
		return false;
	if ((node_is(n, "TopK") || node_is(n, "ArgMax")) && !k->choice) {
		k->choice = n;
		k->choice_at = k->nmet;
	}
	if (node_is(n, "Softmax") && !k->softmax) {
		k->softmax = n;
		k->softmax_at = k->nmet;
	}
	if (node_is(n, "Sigmoid") && !k->sigmoid)
		k->sigmoid = n;
	for (uint32_t i = 0; i < n->nin; i++) {
		const struct node *from = i != index && n->in[i] ? value_node(g, n->in[i]) : NULL;
		node_id unit = from && node_among(n, joins) ? unit_behind(g, n->in[i]) : 0;

		other = other || (from && k->mark[from - g->node] != k->stamp && !value_is_weight(g, n->in[i]));
		if (unit) {
			add_unit(k, unit);
			joined = true;
		}
	}
	if (joined && k->njoin < MAX_EXPERTS)
		k->join[k->njoin++] = (node_id)(n - g->node);
	return !joined && !(other && node_among(n, sums)); /* beyond sums lies the stream */
}

/* Weights of the chosen are gathered: the products with them are the experts. */
static void meet_gathered(struct walk *k, const struct node *n)
{
	const struct graph *g = k->w->g;

	for (uint32_t o = 0; o < n->nout && (node_is(n, "Gather") || node_is(n, "GatherND")); o++)
		for (uint32_t i = n->out[o] && value_is_weight(g, n->out[o]) ? k->w->uses.begin[n->out[o]] : 0; n->out[o] && i < k->w->uses.end[n->out[o]]; i++) {
			const struct node *user = &g->node[k->w->uses.use[i].node];
			node_id unit = k->w->uses.use[i].node && is_projection(g, user) && user->nout ? unit_behind(g, user->out[0]) : 0;

			if (unit)
				add_unit(k, unit);
		}
}

static void walk_on(struct walk *k, value_id v)
{
	const struct graph *g = k->w->g;

	k->met[k->nmet++] = v;
	for (int at = 0; at < k->nmet; at++)
		for (uint32_t i = k->w->uses.begin[k->met[at]]; i < k->w->uses.end[k->met[at]]; i++) {
			node_id id = k->w->uses.use[i].node;
			const struct node *n = &g->node[id];

			if (!id || k->mark[id] == k->stamp || !meet(k, n, k->w->uses.use[i].index))
				continue;
			k->mark[id] = k->stamp;
			for (uint32_t o = 0; o < n->nout && k->nmet < MAX_MET; o++)
				if (n->out[o])
					k->met[k->nmet++] = n->out[o];
			meet_gathered(k, n);
		}
}

/* What joins lead to, through sums and layouts that nothing else reads. */
static value_id gather_out(const struct walk *k)
{
	static const char *const plain[] = { "Add", "Sum", "ReduceSum", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "ScatterElements", "ScatterND", "Concat",
		                             "Identity", "Cast", NULL };
	const struct graph *g = k->w->g;
	const struct node *n = k->njoin ? &g->node[k->join[0]] : k->holder;
	value_id v = n ? n->out[0] : 0;

	while (n && (n = value_user(k->w, v, NULL)) != NULL && node_among(n, plain))
		v = n->out[0];
	return v;
}

/* The loop has as many steps as there are experts, or their weights one after the other. */
static bool loops_over(const struct graph *g, const struct node *n, int64_t experts)
{
	double trips;

	if (node_is(n, "Loop") && n->in[0] && value_scalar(g, n->in[0], &trips) && trips == (double)experts)
		return true;
	for (uint32_t i = 0; i < n->nin; i++)
		if (n->in[i] && g->value[n->in[i]].type.shape.rank > 2 && g->value[n->in[i]].type.shape.d[0] == experts)
			return true;
	return false;
}

/* What the walk met is a mixture: all experts are there, one beside the other, in one stack, in a loop or in branches. */
static bool is_mixture(struct walk *k, struct experts *x)
{
	const struct graph *g = k->w->g, *in = g;
	bool gathered = false;
	int64_t top = k->experts;
	int count;

	if (!(k->softmax || k->sigmoid || k->choice))
		return false;
	if (k->holder && (node_is(k->holder, "If") ? k->nholder == k->experts : loops_over(g, k->holder, k->experts))) {
		x->spelling = node_is(k->holder, "If") ? "branches" : "loop";
		x->first = (node_id)(k->holder - g->node);
		for (uint32_t i = 0; i < k->holder->nattr && !x->variant; i++)
			if (k->holder->attr[i].kind == ATTR_GRAPH) {
				node_id unit = unit_inside(k->holder->attr[i].g, 4, &in);

				x->variant = unit ? variant_of(in, &in->node[unit], k->a) : NULL;
			}
	} else if (k->nunit && unit_stacked(g, &g->node[k->unit[0]], k->experts, &gathered)) {
		x->spelling = gathered ? "gathered" : "stacked";
	} else if (k->nunit > 1 && k->nunit == k->experts) {
		x->spelling = "units";
	} else {
		return false;
	}
	if (!x->variant) {
		x->first = k->unit[0];
		x->variant = variant_of(g, &g->node[x->first], k->a);
	}
	if (k->choice && node_is(k->choice, "TopK") && (!value_ints(g, k->choice->in[1], &top, 1, &count) || count != 1))
		top = -1;
	x->experts = k->experts;
	x->top_k = k->choice && node_is(k->choice, "ArgMax") ? 1 : top;
	x->router = k->softmax ? (k->choice && k->choice_at < k->softmax_at ? "softmax of chosen" : "softmax") : k->sigmoid ? "sigmoid" : "none";
	x->out = gather_out(k);
	return x->variant != NULL;
}

/* ---- All of a graph ---- */

static enum linnet_code add(struct mixtures *m, const struct experts *x, struct arena *a, struct linnet_error *e)
{
	struct experts *list;

	if (!(m->n & (m->n - 1))) {
		TRY_NEW(list, a, (size_t)(m->n ? 2 * m->n : 1));
		if (m->n)
			memcpy(list, m->list, (size_t)m->n * sizeof *list);
		m->list = list;
	}
	m->list[m->n++] = *x;
	return LINNET_OK;
}

static bool is_node(const struct graph *g, const struct node *n, struct experts *x)
{
	struct glu_group f;
	const struct shape *s;

	if ((!node_is_ms(n, "MoE") && !node_is_ms(n, "QMoE")) || n->nin < 3)
		return false;
	s = &g->value[n->in[2]].type.shape;
	*x = (struct experts){ .experts = s->rank > 0 && dim_is_int(s->d[0]) ? s->d[0] : -1, .top_k = node_attr(n, "k")->i, .router = "softmax", .spelling = "node",
		               .chooser = (node_id)(n - g->node), .first = (node_id)(n - g->node), .out = n->out[0] };
	x->variant = node_experts(n, &f) ? f.variant : node_attr(n, "activation_type")->s.n == 6 ? "gated" : "mlp";
	return true;
}

enum linnet_code graph_experts(const struct view *w, struct arena *a, struct mixtures *out, struct linnet_error *e)
{
	const struct graph *g = w->g;
	struct walk *k;

	*out = (struct mixtures){ .n = 0 };
	TRY_NEW(k, a, 1);
	k->w = w;
	k->a = a;
	TRY_NEW(k->mark, a, g->nnode);
	TRY_NEW(k->met, a, MAX_MET);
	TRY_NEW(k->unit, a, MAX_EXPERTS);
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];
		const struct shape *s = n->dead || !n->nout ? NULL : &g->value[n->out[0]].type.shape;
		struct experts x = { .chooser = id };

		if (!s)
			continue;
		if (is_node(g, n, &x)) {
			TRY(add(out, &x, a, e));
			continue;
		}
		if (!is_projection(g, n) || s->rank < 2 || !dim_is_int(s->d[s->rank - 1]) || s->d[s->rank - 1] < 2 || s->d[s->rank - 1] > MAX_EXPERTS)
			continue;
		k->experts = s->d[s->rank - 1];
		k->stamp = id;
		k->nmet = k->nunit = k->njoin = k->nholder = k->choice_at = k->softmax_at = 0;
		k->choice = k->softmax = k->sigmoid = k->holder = NULL;
		walk_on(k, n->out[0]);
		if (is_mixture(k, &x))
			TRY(add(out, &x, a, e));
	}
	return LINNET_OK;
}

const struct experts *experts_routed(const struct view *w, const struct mixtures *m, const struct node *n)
{
	value_id v = n->nin ? n->in[0] : 0;

	for (int steps = 0; v && steps < MAX_BACK; steps++) {
		const struct node *from = value_node(w->g, v);

		for (int i = 0; from && i < m->n; i++)
			if (&w->g->node[m->list[i].chooser] == from)
				return &m->list[i];
		if (!from || !from->nin || is_projection(w->g, from))
			return NULL;
		v = from->in[value_is_weight(w->g, from->in[0]) && from->nin > 1 ? 1 : 0];
	}
	return NULL;
}

bool experts_alike(const struct experts *a, const struct experts *b)
{
	return a->experts == b->experts && a->top_k == b->top_k && !strcmp(a->router, b->router) && !strcmp(a->spelling, b->spelling) && !strcmp(a->variant, b->variant);
}

const char *experts_text(const struct experts *x, struct arena *a)
{
	const char *chosen = x->top_k == x->experts ? "all" : x->top_k < 0 ? "some" : arena_fmt(a, "top %lld", (long long)x->top_k);
	const char *count = x->experts < 0 ? "?" : arena_fmt(a, "%lld", (long long)x->experts);

	if (!chosen || !count)
		return NULL;
	return arena_fmt(a, "%s experts, %s by %s, %s, %s", count, chosen, x->router, x->variant, x->spelling);
}
