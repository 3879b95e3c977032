/* Why not: asking the recognisers where they stopped, and what became of a node. */
#include "graph/why.h"

#include <string.h>

#include "graph/experts.h"

const struct why_row why_rows[WHY_COUNT] = {
	[WHY_NONE] = { "", "", "", "" },
#define X(id, code, form, text, help) [WHY_##id] = { code, form, text, help },
	WHY_CODES(X)
#undef X
};

/* ---- Notes ---- */

bool why_not(const struct view *w, enum why_code code, const struct node *n, value_id v, int depth)
{
	struct why *y = w->why;

	if (y && y->n < MAX_NOTES)
		y->note[y->n++] = (struct why_note){ .code = code, .part = y->part, .value = v, .depth = depth,
		                                     .node = n ? (node_id)(n - w->g->node) : 0 };
	return false;
}

void why_part(const struct view *w, enum why_part part)
{
	if (w->why)
		w->why->part = part;
}

void why_forget(const struct view *w, enum why_part part)
{
	struct why *y = w->why;
	int n = 0;

	for (int i = 0; y && i < y->n; i++)
		if (y->note[i].part != part)
			y->note[n++] = y->note[i];
	if (y)
		y->n = n;
}

const struct node *other_user(const struct view *w, value_id v, const struct node *reader)
{
	const struct node *other = NULL;

	for (uint32_t i = w->uses.begin[v]; i < w->uses.end[v]; i++) {
		const struct use *u = &w->uses.use[i];

		if (!u->node)
			return NULL;
		if (&w->g->node[u->node] != reader)
			other = &w->g->node[u->node];
	}
	return other ? other : reader;
}

/* ---- Names of the file ---- */

enum { MAX_LEAVES = 1000 };

/* Call f for the nodes of the file that t stands for, with the rule that replaced each, until it returns true. */
static bool each_leaf(const struct trail *t, bool (*f)(void *ctx, const struct trail *leaf, const char *rule), void *ctx, int *left)
{
	for (uint32_t i = 0; i < t->n && --*left > 0; i++)
		if (t->of[i]->rule ? each_leaf(t->of[i], f, ctx, left) : f(ctx, t->of[i], t->rule))
			return true;
	return false;
}

struct choice {
	const char *wanted, *name, *op;
};

static bool choose_leaf(void *ctx, const struct trail *leaf, const char *rule)
{
	struct choice *c = ctx;
	bool exact = !strcmp(leaf->op, c->wanted);

	(void)rule;
	if (exact || !c->name) {
		c->name = leaf->name;
		c->op = leaf->op;
	}
	return exact;
}

/* The node of the file that n is, or that stands for it best: the one with its operator, attention's softmax, else the first it replaced. */
static void file_node(const struct graph *g, const struct node *n, const char **name, const char **op)
{
	struct choice c = { .wanted = part_kind(g, n) == PART_ATTENTION ? "Softmax" : n->op->name };
	int left = MAX_LEAVES;

	if (n->trail)
		each_leaf(n->trail, choose_leaf, &c, &left);
	if (!c.name)
		node_written(g, n, &c.name, &c.op);
	*name = c.name;
	*op = c.op;
}

/* ---- Choosing among the notes ---- */

enum { MAX_REACH = 200 };

static bool reaches(const struct graph *g, value_id from, value_id to, int *left)
{
	const struct node *n = value_node(g, from);

	if (from == to)
		return true;
	for (uint32_t i = 0; n && !(n->op->flags & OP_SHAPE_ONLY) && i < n->nin && --*left > 0; i++)
		if (n->in[i] && reaches(g, n->in[i], to, left))
			return true;
	return false;
}

/* The deepest note of that part, of those on the way to the product when there are any. */
static const struct why_note *deepest(const struct view *w, enum why_part part, value_id product)
{
	const struct why_note *best = NULL;
	bool best_leads = false;

	for (int i = 0; i < w->why->n; i++) {
		const struct why_note *note = &w->why->note[i];
		int left = MAX_REACH;
		bool leads = product && reaches(w->g, note->value, product, &left);

		if (note->part != part || (best_leads && !leads) || (best && leads == best_leads && note->depth <= best->depth))
			continue;
		best = note;
		best_leads = leads;
	}
	return best;
}

static void set(const struct view *w, struct finding *f, enum why_code code, const struct node *n, value_id v)
{
	f->code = code;
	if (n) {
		file_node(w->g, n, &f->witness, &f->witness_op);
	} else {
		f->witness = v ? w->g->value[v].name : f->node;
		f->witness_op = v ? "" : f->op;
	}
}

static void set_note(const struct view *w, struct finding *f, const struct why_note *note)
{
	set(w, f, note->code, note->node ? &w->g->node[note->node] : NULL, note->value);
}

/* Who reads the probabilities p besides the product with values. */
static void set_used(const struct view *w, struct finding *f, value_id p)
{
	const struct node *last = NULL;

	f->code = WHY_ATTENTION_PROBABILITIES_USED;
	for (uint32_t i = w->uses.begin[p]; i < w->uses.end[p]; i++) {
		const struct use *u = &w->uses.use[i];
		const struct node *n = &w->g->node[u->node];

		if (!u->node) {
			set(w, f, f->code, NULL, p);
			return;
		}
		last = n;
		if (!node_is(n, "MatMul") && !(n->nout && n->out[0] && product_behind(w, n->out[0])))
			break;
	}
	set(w, f, f->code, last, p);
}

/* Some product of two values that v is made of, without a projection in between. */
static value_id product_near(const struct view *w, value_id v, int depth)
{
	const struct node *n = value_node(w->g, v);
	value_id found = 0;

	if (!n || !depth || n->op->flags & OP_SHAPE_ONLY || is_projection(w->g, n))
		return 0;
	if (node_is(n, "MatMul"))
		return v;
	for (uint32_t i = 0; i < n->nin && !found; i++)
		found = product_near(w, n->in[i], depth - 1);
	return found;
}

/* Only asked for its lengths: attention was made of it, and it is never computed. */
static bool for_lengths(const struct view *w, value_id v)
{
	for (uint32_t i = w->uses.begin[v]; i < w->uses.end[v]; i++)
		if (!w->uses.use[i].node || !(w->g->node[w->uses.use[i].node].op->flags & OP_SHAPE_ONLY))
			return false;
	return true;
}

/* The first node that reads v; NULL when only the graph's outputs do. */
static const struct node *first_user(const struct view *w, value_id v)
{
	for (uint32_t i = w->uses.begin[v]; v && i < w->uses.end[v]; i++)
		if (w->uses.use[i].node)
			return &w->g->node[w->uses.use[i].node];
	return NULL;
}

/* What attention fails at: n normalises scores, some notes were taken. */
static void judge_attention(const struct view *w, const struct node *n, struct finding *f)
{
	value_id read = product_before(w, n->in[0]), product = read ? read : product_near(w, n->in[0], 6), p = n->out[0];
	bool values = product_behind(w, p);
	const struct why_note *whole = deepest(w, WHY_WHOLE, 0), *before = deepest(w, WHY_BEFORE, product), *behind = deepest(w, WHY_BEHIND, 0);
	enum why_code code = behind ? behind->code : WHY_NONE;
	const struct node *reader = behind && behind->node ? &w->g->node[behind->node] : behind ? first_user(w, behind->value) : NULL;

	if (for_lengths(w, p))
		return;
	if (!product && !values) {
		set(w, f, WHY_SOFTMAX_ALONE, reader, behind ? behind->value : 0);
	} else if (!values) {
		if (code == WHY_ATTENTION_SOFTMAX_AXIS || code == WHY_ATTENTION_QUANTISED)
			set_note(w, f, behind);
		else
			set(w, f, WHY_ATTENTION_NO_VALUES, reader, behind ? behind->value : 0);
	} else if (!product && before) {
		set(w, f, WHY_ATTENTION_NO_SCORES, before->node ? &w->g->node[before->node] : NULL, before->value);
	} else if (whole && whole->code == WHY_ATTENTION_SOFTMAX_AXIS) {
		set_note(w, f, whole);
	} else if (before) {
		int left = MAX_REACH;
		const struct node *user = before->node ? &w->g->node[before->node] : NULL;
		bool choose = before->code == WHY_ATTENTION_SCORES_USED && user && user->nout && reaches(w->g, n->in[0], user->out[0], &left);

		set(w, f, choose ? WHY_ATTENTION_SCORES_CHOOSE : before->code, user, before->value);
	} else if (code == WHY_ATTENTION_PROBABILITIES_USED) {
		set_used(w, f, behind->value);
	} else if (behind || whole) {
		set_note(w, f, behind ? behind : whole);
	} else { /* an operator no rule asks for */
		set(w, f, strcmp(n->op->name, "QLinearSoftmax") ? WHY_ATTENTION_OPERATOR : WHY_ATTENTION_QUANTISED, n, 0);
	}
}

/*
 * The product of queries and keys that v is made of without a softmax, through curves, masks and scales; *curve: the first curve on the way
 * back, or that product. No recogniser starts here, for want of a softmax to start from.
 */
static bool unnormalised(const struct view *w, value_id v, int depth, const struct node **curve)
{
	static const char *const plain[] = { "Cast", "Identity", "Transpose", "Reshape", NULL };
	static const char *const curves[] = { "Sigmoid", "Relu", "Pow", "Elu", "Softplus", "Tanh", "Sqrt", "Abs", "Clip", "HardSigmoid", NULL };
	static const char *const joins[] = { "Mul", "Div", "Add", "Sub", "Where", NULL };
	const struct node *n = value_node(w->g, v);

	if (!n || !depth)
		return false;
	if (node_is(n, "MatMul")) {
		*curve = *curve ? *curve : n;
		return !is_projection(w->g, n);
	}
	if (node_among(n, plain))
		return unnormalised(w, n->in[0], depth - 1, curve);
	if (node_among(n, curves)) {
		*curve = *curve ? *curve : n;
		return unnormalised(w, n->in[0], depth - 1, curve);
	}
	for (uint32_t i = 0; node_among(n, joins) && i < n->nin; i++) {
		const struct node *keep = *curve;

		if (unnormalised(w, n->in[i], depth - 1, curve))
			return true;
		*curve = keep;
	}
	return false;
}

/* ---- Loops ---- */

enum dependence { FREE, LINEAR, CURVED };

struct loop {
	const struct graph *body;
	uint32_t first, nstate;  /* states: inputs first.. of the body */
	uint32_t out;            /* and its outputs from here */
	enum dependence *of;     /* by value: how it depends on the states */
	node_id *cause;          /* by value: the node that made it curved */
	bool *counts;            /* by state: integers that depend on themselves only */
};

static enum dependence through(const struct loop *l, const struct node *n)
{
	static const char *const joint[] = { "Add", "Sub", "Sum", "Mean", "Concat", "Where", "ScatterND", "ScatterElements", "TensorScatter", "Pad", NULL };
	int linear = 0;
	bool together = false;

	if (n->op->flags & OP_SHAPE_ONLY)
		return FREE;
	for (const char *const *s = joint; *s; s++)
		together = together || node_is(n, *s);
	for (uint32_t i = 0; i < n->nin; i++) {
		const struct op_io *io = n->known && i < n->nin - n->ncapture ? op_in(n->op, (int)i) : NULL;

		if (!n->in[i] || l->of[n->in[i]] == FREE)
			continue;
		if (l->of[n->in[i]] == CURVED || !io || (io->flow != FLOW_LINEAR && !node_is(n, "Cast")))
			return CURVED;
		linear++;
	}
	return linear > 1 && !together ? CURVED : linear ? LINEAR : FREE;
}

static void spread(struct loop *l, const node_id *order, uint32_t n)
{
	const struct graph *b = l->body;

	memset(l->of, 0, b->nvalue * sizeof *l->of);
	memset(l->cause, 0, b->nvalue * sizeof *l->cause);
	for (uint32_t i = 0; i < l->nstate; i++)
		l->of[b->in[l->first + i]] = l->counts[i] ? FREE : LINEAR;
	for (uint32_t i = 0; i < n; i++) {
		const struct node *x = &b->node[order[i]];
		enum dependence d = through(l, x);
		node_id cause = order[i];

		for (uint32_t k = 0; d == CURVED && k < x->nin; k++)
			if (x->in[k] && l->of[x->in[k]] == CURVED)
				cause = l->cause[x->in[k]];
		for (uint32_t k = 0; k < x->nout; k++)
			if (x->out[k]) {
				l->of[x->out[k]] = d;
				l->cause[x->out[k]] = d == CURVED ? cause : 0;
			}
	}
}

/* The state that output v appends to, 0 when it keeps its size. */
static node_id grows(const struct loop *l, uint32_t state)
{
	const struct graph *b = l->body;
	value_id v = b->out[l->out + state];
	const struct node *n = value_node(b, v);

	while (n && (node_is(n, "Identity") || node_is(n, "Cast")))
		n = value_node(b, n->in[0]);
	for (uint32_t i = 0; n && (node_is(n, "Concat") || node_is(n, "SequenceInsert")) && i < n->nin; i++)
		if (n->in[i] == b->in[l->first + state])
			return (node_id)(n - b->node);
	return 0;
}

static enum linnet_code judge_loop(const struct view *w, const struct node *n, struct finding *f, struct linnet_error *e)
{
	struct loop l = { .body = node_attr(n, "body")->g };
	struct view inner = { .g = l.body };
	bool loop = node_is(n, "Loop"), again = true;
	uint32_t formal, norder, states = 0;
	node_id *order, at;

	set(w, f, WHY_LOOP_NO_STATE, n, 0);
	if (!l.body)
		return LINNET_OK;
	formal = l.body->nin - l.body->ncapture;
	l.first = loop ? 2 : 0;
	l.out = loop ? 1 : 0;
	l.nstate = loop ? (formal > 2 ? formal - 2 : 0) : formal - (uint32_t)node_attr(n, "num_scan_inputs")->i;
	TRY(graph_order(l.body, w->scratch, &order, &norder, e));
	TRY_NEW(l.of, w->scratch, l.body->nvalue);
	TRY_NEW(l.cause, w->scratch, l.body->nvalue);
	TRY_NEW(l.counts, w->scratch, l.nstate + 1);
	for (uint32_t i = 0; i < l.nstate; i++) /* a sequence's elements are not told apart */
		l.counts[i] = l.body->value[l.body->in[l.first + i]].type.kind == KIND_TENSOR &&
		              !dtype_in(l.body->value[l.body->in[l.first + i]].type.dt, FLOATS);
	while (again) {
		spread(&l, order, norder);
		again = false;
		for (uint32_t i = 0; i < l.nstate; i++)
			if (l.counts[i] && (l.of[l.body->out[l.out + i]] != FREE || grows(&l, i))) {
				l.counts[i] = false;
				again = true;
			}
	}
	for (uint32_t i = 0; i < l.nstate; i++)
		states += !l.counts[i] && l.body->out[l.out + i] != l.body->in[l.first + i];
	if (!states)
		return LINNET_OK;
	if (loop && l.of[l.body->out[0]] != FREE) {
		set(&inner, f, WHY_LOOP_CONDITION, value_node(l.body, l.body->out[0]), l.body->out[0]);
		return LINNET_OK;
	}
	for (uint32_t i = 0; i < l.nstate; i++) {
		value_id out = l.body->out[l.out + i];

		at = l.counts[i] ? 0 : grows(&l, i);
		if (!at && (l.counts[i] || l.of[out] != CURVED))
			continue;
		set(&inner, f, at ? WHY_LOOP_STATE_GROWS : WHY_LOOP_STATE_NOT_LINEAR, &l.body->node[at ? at : l.cause[out]], out);
		return LINNET_OK;
	}
	set(w, f, WHY_LOOP_LINEAR, n, 0);
	return LINNET_OK;
}

/* ---- All of a graph ---- */

static bool is_softmax(const struct node *n)
{
	return node_is(n, "Softmax") ||
	       (n->op->domain && !strcmp(n->op->domain, "com.microsoft") && (!strcmp(n->op->name, "QLinearSoftmax") || !strcmp(n->op->name, "BiasSoftmax")));
}

/* Let the rules look at n again. fits: one of them applies, so there is nothing to explain. */
static enum linnet_code ask(const struct view *w, const struct node *n, bool *fits, struct linnet_error *e)
{
	static const char *const asked[] = { "activate", "scores", "attend", "glu", "recur", "causal", NULL };

	*fits = false;
	for (const char *const *s = asked; *s; s++) {
		const struct pass *pass = pass_find(*s);

		for (int i = 0; i < pass->nrule && !*fits; i++) {
			struct patch p;

			if (!pass->rule[i].apply || (pass->rule[i].anchor && !node_is(n, pass->rule[i].anchor)))
				continue; /* rules stated as text have nothing to say */
			patch_init(&p, w->g, e);
			TRY(pass->rule[i].apply(w, n, &p, e));
			if (p.code)
				return p.code;
			*fits = !patch_empty(&p);
		}
	}
	return LINNET_OK;
}

static enum linnet_code add(struct findings *out, struct arena *a, const struct finding *f, struct linnet_error *e)
{
	struct finding *list;

	if (!(out->n & (out->n - 1))) { /* room grows by doubling */
		TRY_NEW(list, a, (size_t)(out->n ? 2 * out->n : 1));
		if (out->n)
			memcpy(list, out->list, (size_t)out->n * sizeof *list);
		out->list = list;
	}
	out->list[out->n++] = *f;
	return LINNET_OK;
}

static enum linnet_code judge(struct view *w, const struct node *n, const struct mixtures *mixed, struct arena *a, struct findings *out, struct linnet_error *e)
{
	struct why why = { .n = 0 };
	struct finding f = { .g = w->g, .at = (node_id)(n - w->g->node) };
	const struct why_note *note;
	const struct node *curve = NULL;
	enum linnet_code code = LINNET_OK;
	bool fits = false;

	file_node(w->g, n, &f.node, &f.op);
	w->why = &why;
	if (node_is(n, "Loop") || node_is(n, "Scan"))
		code = judge_loop(w, n, &f, e);
	if (!code && (!f.code || f.code == WHY_LOOP_LINEAR))
		code = ask(w, n, &fits, e);
	w->why = NULL;
	TRY(code);
	note = deepest(&(struct view){ .g = w->g, .why = &why }, WHY_WHOLE, 0);
	if (fits)
		return LINNET_OK;
	if (is_softmax(n) && experts_routed(w, mixed, n)) {
		set(w, &f, WHY_SOFTMAX_ROUTER, &w->g->node[experts_routed(w, mixed, n)->first], 0);
	} else if (is_softmax(n)) {
		w->why = &why;
		judge_attention(w, n, &f);
		w->why = NULL;
	} else if (note) {
		set_note(w, &f, note);
	} else if (node_is(n, "MatMul") && !is_projection(w->g, n) && unnormalised(w, n->in[0], 8, &curve)) {
		set(w, &f, WHY_ATTENTION_NO_SOFTMAX, curve, 0);
	}
	if (!f.code)
		return LINNET_OK;
	TRY(attention_kept(w, n, a, &f.described, e));
	return add(out, a, &f, e);
}

static enum linnet_code collect(const struct graph *g, struct arena *a, struct findings *out, struct linnet_error *e)
{
	struct view w = { .g = g, .scratch = a };
	struct mixtures mixed;

	TRY(graph_uses(g, a, &w.uses, e));
	TRY(graph_experts(&w, a, &mixed, e));
	out->mixtures += mixed.n;
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];
		enum part_kind kind;

		if (n->dead)
			continue;
		kind = part_kind(g, n);
		if (kind >= PART_ATTENTION && kind <= PART_RECURRENCE)
			out->recognised[kind - PART_ATTENTION]++;
		else
			TRY(judge(&w, n, &mixed, a, out, e));
		for (uint32_t i = 0; i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				TRY(collect(n->attr[i].g, a, out, e));
	}
	return LINNET_OK;
}

enum linnet_code why_graph(const struct graph *g, struct arena *a, struct findings *out, struct linnet_error *e)
{
	*out = (struct findings){ .written = g };
	TRY(graph_copy(g, a, &out->graph, e));
	TRY(pass_read_all(out->graph, e));
	return collect(out->graph, a, out, e);
}

/* ---- What became of a node ---- */

struct place {
	const struct graph *g;
	const struct node *n;
	const char *rule;
};

/* The node of g or of a graph in it that the file calls `name`, or that computes the value of that name. */
static const struct node *find_written(const struct graph *g, const char *name, const struct graph **in)
{
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id], *inner;
		const char *written, *op;
		bool same;

		if (n->dead)
			continue;
		node_written(g, n, &written, &op);
		same = !strcmp(written, name) || !strcmp(n->name, name);
		for (uint32_t i = 0; i < n->nout && !same; i++)
			same = n->out[i] && !strcmp(g->value[n->out[i]].name, name);
		*in = g;
		if (same)
			return n;
		for (uint32_t i = 0; i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH && (inner = find_written(n->attr[i].g, name, in)) != NULL)
				return inner;
	}
	return NULL;
}

static bool is_leaf(void *ctx, const struct trail *leaf, const char *rule)
{
	struct node_fate *f = ctx;
	bool same = !strcmp(leaf->name, f->node) && !strcmp(leaf->op, f->op);

	f->rule = same ? rule : f->rule;
	return same;
}

static bool stands_for(const struct graph *g, const struct node *n, struct node_fate *f)
{
	const char *name, *op;
	int left = MAX_LEAVES;

	f->rule = NULL;
	if (n->trail)
		return each_leaf(n->trail, is_leaf, f, &left);
	node_written(g, n, &name, &op);
	return !strcmp(name, f->node) && !strcmp(op, f->op);
}

/* The node that took over, of all graphs: one that is recognised before others. */
static void find_successor(const struct graph *g, struct node_fate *f, struct place *best)
{
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];

		if (n->dead)
			continue;
		if ((!best->n || (part_kind(g, n) && !part_kind(best->g, best->n))) && stands_for(g, n, f))
			*best = (struct place){ g, n, f->rule };
		for (uint32_t i = 0; i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				find_successor(n->attr[i].g, f, best);
	}
}

enum { NEAR = 12, FEEDS = 4 };

/* The finding whose node is met from n on, or back from it, before a projection; -1. */
static int nearest(const struct findings *f, const struct view *w, const struct node *n, bool on, int depth)
{
	for (int i = 0; i < f->n; i++)
		if (f->list[i].g == w->g && f->list[i].at == (node_id)(n - w->g->node))
			return i;
	if (!depth || part_kind(w->g, n) || (depth < NEAR && is_projection(w->g, n)))
		return -1;
	if (!on) {
		for (uint32_t i = 0; i < n->nin; i++) {
			const struct node *m = value_node(w->g, n->in[i]);
			int found = m ? nearest(f, w, m, on, depth - 1) : -1;

			if (found >= 0)
				return found;
		}
		return -1;
	}
	for (uint32_t k = 0; k < n->nout; k++)
		for (uint32_t i = n->out[k] ? w->uses.begin[n->out[k]] : 0; n->out[k] && i < w->uses.end[n->out[k]]; i++) {
			int found = w->uses.use[i].node ? nearest(f, w, &w->g->node[w->uses.use[i].node], on, depth - 1) : -1;

			if (found >= 0)
				return found;
		}
	return -1;
}

/* What is recognised next on the way from n, within a few steps. */
static const struct node *fed(const struct view *w, const struct node *n, int depth)
{
	const struct node *found = NULL;

	if (part_kind(w->g, n) || !depth)
		return part_kind(w->g, n) ? n : NULL;
	for (uint32_t k = 0; k < n->nout && !found; k++)
		for (uint32_t i = n->out[k] ? w->uses.begin[n->out[k]] : 0; n->out[k] && i < w->uses.end[n->out[k]] && !found; i++)
			found = w->uses.use[i].node ? fed(w, &w->g->node[w->uses.use[i].node], depth - 1) : NULL;
	return found;
}

static bool all_constant(const struct graph *g, const struct node *n)
{
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i] && !value_const(g, n->out[i]))
			return false;
	return true;
}

/* A value that no node computes, or a node Constant. */
static enum fate of_value(const struct graph *g, const char *name)
{
	for (value_id v = 1; v < g->nvalue; v++)
		if (!strcmp(g->value[v].name, name))
			return g->value[v].kind == VALUE_INPUT ? FATE_INPUT : FATE_CONSTANT;
	return constant_written(g, name) ? FATE_CONSTANT : FATE_UNKNOWN;
}

enum linnet_code why_node(const struct findings *f, const char *name, struct arena *a, struct node_fate *out, struct linnet_error *e)
{
	const struct graph *g;
	const struct node *n = find_written(f->written, name, &g), *next;
	struct place by = { .n = NULL };
	struct view w = { .scratch = a };
	bool recognised;

	*out = (struct node_fate){ .finding = -1 };
	if (!n) {
		out->fate = of_value(f->written, name);
		out->node = name;
		out->op = out->fate == FATE_CONSTANT ? "Constant" : "";
		return LINNET_OK;
	}
	node_written(g, n, &out->node, &out->op);
	find_successor(f->graph, out, &by);
	recognised = by.n && part_kind(by.g, by.n);
	for (int i = 0; i < f->n && out->finding < 0; i++)
		if (!strcmp(f->list[i].node, out->node))
			out->finding = i;
	for (int i = 0; i < f->n && out->finding < 0; i++)
		if (!strcmp(f->list[i].witness, out->node))
			out->finding = i;
	next = by.n;
	if (by.n && !recognised) {
		w.g = by.g;
		TRY(graph_uses(by.g, a, &w.uses, e));
		out->finding = out->finding < 0 ? nearest(f, &w, by.n, true, NEAR) : out->finding;
		out->finding = out->finding < 0 ? nearest(f, &w, by.n, false, NEAR) : out->finding;
		next = fed(&w, by.n, FEEDS);
	}
	out->fate = out->finding >= 0 ? FATE_NEAR : recognised ? FATE_PART : by.n && by.n->trail ? FATE_REWRITTEN : by.n ? FATE_KEPT
	            : all_constant(g, n) ? FATE_CONSTANT : FATE_LEFT_OUT;
	out->rule = by.rule;
	if (out->fate == FATE_REWRITTEN)
		next = by.n;
	if (next) {
		const char *op;

		file_node(by.g, next, &out->into, &op);
		out->into_op = next->op->name;
	}
	return LINNET_OK;
}
