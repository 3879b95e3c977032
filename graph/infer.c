/*
 * Types of all values: the rows' shape functions applied in order, constants evaluated on the way, subgraphs typed from the
 * values their node gives them.
 *
 * What a run finds depends only on the graph, the types of its inputs and the file's annotations, not on types
 * found before; hence it can be run again at any time.
 */
#include <math.h>
#include <string.h>

#include "graph/graph.h"

/* Constants are evaluated when the result and the operands are small, until a run has done so much work. */
enum { MAX_RESULT = 1 << 16, MAX_OPERAND = 1 << 18 };
static const int64_t max_work = (int64_t)1 << 28;

/* Bodies of loops are typed again until nothing changes, those of nested loops each time; after so many nodes, and so many a
 * node, no more. */
enum { MAX_AGAIN = 1 << 16, MAX_AGAIN_EACH = 8 };

struct infer {
	struct linnet_error *e;
	struct arena *scratch; /* of the node at hand */
	int64_t work;          /* of evaluations so far, as cost() counts */
	int64_t visits, again; /* of nodes so far: for the first time, and for later rounds of a loop */
	int rounds;            /* later rounds under way */
};

static enum linnet_code infer_graph(struct infer *x, struct graph *g);

/* ---- Types ---- */

static const struct type unknown_type = { .shape.rank = -1 };

static bool sym_equal(const struct type *a, const struct type *b)
{
	int n = type_nsym(a);

	return n >= 0 && n == type_nsym(b) && a->den == b->den && !memcmp(a->sym, b->sym, (size_t)n * sizeof *a->sym);
}

/* The symbol of length i of value v. */
static enum linnet_code symbol_for(struct infer *x, struct graph *g, const struct value *v, int i, dim *d)
{
	const char *key = arena_fmt(x->scratch, "%p %d %s", (const void *)g, i, v->name);
	const char *hint = arena_fmt(x->scratch, "%s_d%d", v->name, i);

	*d = key && hint ? dim_unknown(g->dims, key, hint) : DIM_NONE;
	return *d == DIM_NONE ? fail_mem(x->e) : LINNET_OK;
}

/* What is certain of a length. */
static int64_t at_least(struct dims *t, dim d)
{
	return dim_is_int(d) ? d : dim_ge(t, d, 2) ? 2 : dim_ge(t, d, 1) ? 1 : 0;
}

/* Whether values of both kinds may come together: an optional and what it may hold, which operators take in its place. */
static bool kinds_meet(const struct type *a, const struct type *b)
{
	return a->kind == b->kind || kind_optional(a->kind) == b->kind || kind_optional(b->kind) == a->kind;
}

static enum linnet_code fail_join(const struct type *a, const struct type *b, struct linnet_error *e)
{
	char found[2][64];

	for (int i = 0; i < 2; i++)
		kind_str(i ? b : a, found[i], sizeof found[i]);
	return fail(e, LINNET_ETYPE, "a value would be %s or %s, depending on the way taken", found[0], found[1]);
}

/*
 * The type of a value that is of type a or of type b: what they share. A length they do not share becomes DIM_NONE. Element
 * types must agree.
 */
static enum linnet_code join(const struct type *a, const struct type *b, struct type *out, struct linnet_error *e)
{
	struct type t = *a;

	if (a->dt != DT_UNDEFINED && b->dt != DT_UNDEFINED && (a->dt != b->dt || a->key != b->key || !kinds_meet(a, b)))
		return fail_join(a, b, e);
	if (t.dt == DT_UNDEFINED || (b->dt != DT_UNDEFINED && b->kind == kind_optional(a->kind))) {
		t.dt = b->dt;
		t.kind = b->kind;
		t.key = b->key;
	}
	if (a->shape.rank != b->shape.rank)
		t.shape = shape_unknown();
	for (int i = 0; i < t.shape.rank; i++)
		if (a->shape.d[i] != b->shape.d[i])
			t.shape.d[i] = DIM_NONE;
	if (!a->value || !b->value || !tensor_same(a->value, b->value))
		t.value = NULL;
	if (!sym_equal(a, b))
		t.sym = NULL;
	*out = t;
	return LINNET_OK;
}

/* A tensor of the elements when they are all integers; *out stays NULL otherwise. */
static enum linnet_code tensor_of_sym(struct infer *x, const struct type *t, struct tensor **out)
{
	int n = type_nsym(t);

	*out = NULL;
	for (int i = 0; i < n; i++)
		if (!dim_is_int(t->sym[i]))
			return LINNET_OK;
	if (n < 0 || !dtype_in(t->dt, INTS | FLOATS | SET(BOOL)))
		return LINNET_OK;
	TRY(tensor_new(x->scratch, t->dt, t->shape.rank, t->shape.d, out, x->e));
	for (int i = 0; i < n; i++) {
		if (dtype_in(t->dt, FLOATS))
			tensor_put(*out, i, (double)t->sym[i] / (double)(t->den ? t->den : 1));
		else
			tensor_put_int(*out, i, t->sym[i]);
	}
	return LINNET_OK;
}

/* What t says in the model's arena: `old` when that says the same, else a copy. */
static enum linnet_code keep_tensor(struct graph *g, const struct tensor *t, const struct value *old, const struct tensor **out,
                                    struct linnet_error *e)
{
	struct tensor *copy;

	*out = old->type.value;
	if (*out && tensor_same(*out, t))
		return LINNET_OK;
	TRY(tensor_new(g->arena, t->dt, t->rank, t->d, &copy, e));
	if (t->bytes)
		memcpy(copy->data, t->data, t->bytes);
	*out = copy;
	return LINNET_OK;
}

/* Fill what inference left open from the file's annotation. */
static enum linnet_code annotate(struct infer *x, struct graph *g, value_id id, struct type *t)
{
	struct type said;

	TRY(graph_annotation(g, id, &said, x->e));
	if (t->dt == DT_UNDEFINED) {
		t->dt = said.dt;
		t->kind = said.kind;
		t->key = said.key;
	}
	if (t->kind != said.kind)
		return LINNET_OK;
	if (t->shape.rank < 0)
		t->shape = said.shape;
	if (t->shape.rank == said.shape.rank)
		for (int i = 0; i < t->shape.rank; i++)
			if (t->shape.d[i] == DIM_NONE)
				t->shape.d[i] = said.shape.d[i];
	return LINNET_OK;
}

/* Record the type found for a value: gaps filled from the annotation, then from what is likely, lengths still open as symbols. */
static enum linnet_code settle(struct infer *x, struct graph *g, value_id id, struct type t, const struct shape *likely)
{
	struct value *v = &g->value[id];
	bool open = t.dt == DT_UNDEFINED || t.shape.rank < 0;
	struct tensor *whole = NULL;

	for (int i = 0; i < t.shape.rank; i++)
		open |= t.shape.d[i] == DIM_NONE;
	if (open)
		TRY(annotate(x, g, id, &t));
	for (int i = 0; i < t.shape.rank; i++) {
		if (t.shape.d[i] == DIM_NONE && likely && likely->rank == t.shape.rank)
			t.shape.d[i] = likely->d[i];
		if (t.shape.d[i] == DIM_NONE && t.kind == KIND_TENSOR)
			TRY(symbol_for(x, g, v, i, &t.shape.d[i]));
		if (dim_is_int(t.shape.d[i]) && t.shape.d[i] < 0)
			return fail(x->e, LINNET_ESHAPE, "length %d of \"%s\" is %lld", i, v->name, (long long)t.shape.d[i]);
		if (!g->outer && t.kind == KIND_TENSOR) /* no run goes on behind a node that would make fewer */
			dim_at_least(g->dims, t.shape.d[i], 0);
	}
	t.den = t.sym && t.den > 1 ? t.den : 0;
	if (!t.value && t.sym)
		TRY(tensor_of_sym(x, &t, &whole));
	if (whole)
		TRY(keep_tensor(g, whole, v, &t.value, x->e));
	if (t.value || type_nsym(&t) < 0) {
		t.sym = NULL;
	} else if (sym_equal(&t, &v->type)) {
		t.sym = v->type.sym;
	} else {
		t.sym = arena_dup(g->arena, t.sym, (size_t)type_nsym(&t) * sizeof *t.sym);
		if (!t.sym)
			return fail_mem(x->e);
	}
	if (!t.sym)
		t.den = 0;
	v->type = t;
	return LINNET_OK;
}

/* ---- Evaluating constants ---- */

static bool small(const struct type *t, int64_t max, int64_t *n)
{
	*n = 1;
	if (t->kind != KIND_TENSOR || t->dt == DT_UNDEFINED || t->dt == DT_STRING || !shape_known(&t->shape))
		return false;
	for (int i = 0; i < t->shape.rank; i++)
		if (t->shape.d[i] < 0 || __builtin_mul_overflow(*n, t->shape.d[i], n) || *n > max)
			return false;
	return true;
}

/* Elements read, multiplied and written, about. A matrix product of sizes MK, KN, MN multiplies the root of their product. */
static int64_t cost(const struct shape_call *c, int64_t result)
{
	int64_t most = 1, next = 1, sum = result, n;
	bool contraction = c->op->agree == AGREE_ROUND && c->op->fuzz.shapes != FUZZ_SAME &&
	                   c->op->fuzz.shapes != FUZZ_BROADCAST && c->op->fuzz.shapes != FUZZ_REDUCE;

	for (int i = 0; i < c->nin; i++) {
		n = c->in[i] ? c->in[i]->value->n : 0;
		sum += n;
		next = n > most ? most : n > next ? n : next;
		most = n > most ? n : most;
	}
	return contraction ? sum + (int64_t)sqrt((double)most * (double)next * (double)result) : sum;
}

/*
 * Evaluate a node whose operands are all constant, into the types' values. A node that is too large, or that fails (it
 * may never be reached), is left alone.
 */
static enum linnet_code evaluate(struct infer *x, struct graph *g, const struct node *node, struct shape_call *c)
{
	struct linnet_error ignored = { 0 }, *e = x->e;
	const struct tensor **in;
	struct tensor **out;
	int64_t result = 0, n;

	if (!c->op->kernel || c->op->agree == AGREE_RANDOM)
		return LINNET_OK;
	TRY_NEW(in, x->scratch, c->nin);
	TRY_NEW(out, x->scratch, c->nout);
	for (int i = 0; i < c->nin; i++) {
		if (c->in[i] && (!c->in[i]->value || !small(c->in[i], MAX_OPERAND, &n)))
			return LINNET_OK;
		in[i] = c->in[i] ? c->in[i]->value : NULL;
	}
	for (int i = 0; i < c->nout; i++) {
		if (!c->wanted[i])
			continue;
		if (!small(&c->out[i], MAX_RESULT, &n))
			return LINNET_OK;
		result += n;
	}
	n = cost(c, result);
	if (n > max_work - x->work)
		return LINNET_OK;
	x->work += n;
	if (op_eval(c->op, c->attr, c->nin, in, c->nout, c->wanted, x->scratch, out, &ignored))
		return ignored.code == LINNET_EMEM ? fail_mem(e) : LINNET_OK;
	for (int i = 0; i < c->nout; i++)
		if (c->wanted[i])
			TRY(keep_tensor(g, out[i], &g->value[node->out[i]], &c->out[i].value, e));
	return LINNET_OK;
}

/* ---- Subgraphs ---- */

static uint32_t nformal(const struct graph *g) { return g->nin - g->ncapture; }

/* What the node passes to its subgraphs beside the formal inputs. */
static void bind_captures(const struct graph *g, const struct node *n)
{
	uint32_t from = n->nin - n->ncapture;

	for (uint32_t i = 0; i < n->nattr; i++) {
		struct graph *sub = n->attr[i].kind == ATTR_GRAPH ? n->attr[i].g : NULL;

		for (uint32_t k = 0; sub && k < sub->ncapture && from < n->nin; k++, from++)
			sub->value[sub->in[nformal(sub) + k]].type = g->value[n->in[from]].type;
	}
}

static struct graph *subgraph(const struct node *n, const char *name)
{
	const struct attr *a = node_attr(n, name);

	return a->kind == ATTR_GRAPH ? a->g : NULL;
}

static const struct type *out_type(const struct graph *g, uint32_t i) { return &g->value[g->out[i]].type; }

static bool truth(const struct type *t, bool value)
{
	return t && t->value && t->value->dt == DT_BOOL && t->value->n == 1 && !tensor_get_int(t->value, 0) == !value;
}

/*
 * If: what the branches share, or the branch that is known to be taken. A branch that cannot be typed fails whenever it is
 * run (exporters write such ones for ranks that never occur), so a value that comes out comes from the other.
 */
static enum linnet_code infer_if(struct infer *x, struct graph *g, const struct node *n, struct shape_call *c)
{
	static const char *const name[2] = { "then_branch", "else_branch" };
	struct linnet_error error[2] = { 0 }, *outer = x->e;
	struct graph *sub[2];
	bool use[2];

	for (int k = 0; k < 2; k++) {
		enum linnet_code code;

		sub[k] = subgraph(n, name[k]);
		if (!sub[k] || sub[k]->nout < n->nout || nformal(sub[k]))
			return fail(x->e, LINNET_EMODEL, "%s does not have one output for each of the node's %u", name[k], n->nout);
		x->e = &error[k];
		code = infer_graph(x, sub[k]);
		x->e = outer;
		if (code && !error[k].code)
			error[k].code = code;
		if (code == LINNET_EMEM)
			return fail_mem(x->e);
		use[k] = !code && !truth(c->in[0], k == 1);
	}
	if (!use[0] && !use[1]) {
		const struct linnet_error *first = &error[error[0].code && !truth(c->in[0], false) ? 0 : 1];

		if (x->e && !x->e->code)
			*x->e = *first;
		return first->code;
	}
	for (uint32_t i = 0; i < n->nout; i++) {
		const struct type *a = out_type(sub[use[0] ? 0 : 1], i), *b = out_type(sub[use[1] ? 1 : 0], i);

		TRY(join(a, b, &c->out[i], x->e));
		for (int k = 0; n->out[i] && c->out[i].kind == KIND_TENSOR && k < c->out[i].shape.rank; k++)
			if (c->out[i].shape.d[k] == DIM_NONE) {
				int64_t la = at_least(g->dims, a->shape.d[k]), lb = at_least(g->dims, b->shape.d[k]);

				TRY(symbol_for(x, g, &g->value[n->out[i]], k, &c->out[i].shape.d[k]));
				dim_at_least(g->dims, c->out[i].shape.d[k], la < lb ? la : lb);
			}
	}
	return LINNET_OK;
}

/* What one more way round adds to a carried value's type; true when it did. A length that differs once stays open. */
static enum linnet_code widen(struct infer *x, struct graph *body, value_id formal, struct type *state, bool open[MAX_RANK],
                              const struct type *next, bool *changed)
{
	struct type wide;

	TRY(join(state, next, &wide, x->e));
	*changed |= wide.dt != state->dt || wide.kind != state->kind || wide.shape.rank != state->shape.rank || (!wide.value && state->value) ||
	            (!wide.sym && state->sym);
	for (int i = 0; i < wide.shape.rank; i++) {
		if (wide.shape.d[i] != DIM_NONE)
			continue;
		if (open[i])
			wide.shape.d[i] = state->shape.d[i];
		else if (wide.kind == KIND_TENSOR)
			TRY(symbol_for(x, body, &body->value[formal], i, &wide.shape.d[i]));
		*changed |= !open[i];
		open[i] = true;
	}
	*state = wide;
	return LINNET_OK;
}

/*
 * Type a body until its carried values have types that hold however often it runs. state[i] enters as formal input
 * formal + i and leaves as output out + i. Each way round opens a length or forgets something, so it ends; in nests so deep
 * that this takes too long nothing is said of carried values.
 */
static enum linnet_code fixed_point(struct infer *x, struct graph *body, uint32_t formal, uint32_t out, uint32_t n,
                                    struct type *state, bool (*open)[MAX_RANK])
{
	bool changed = true, later = false;
	enum linnet_code code;

	while (changed) {
		bool enough = x->again > MAX_AGAIN + MAX_AGAIN_EACH * x->visits;

		changed = false;
		for (uint32_t i = 0; i < n && enough; i++)
			state[i] = (struct type){ .kind = state[i].kind, .dt = state[i].dt, .key = state[i].key, .shape.rank = -1 };
		for (uint32_t i = 0; i < n; i++)
			body->value[body->in[formal + i]].type = state[i];
		x->rounds += later;
		code = infer_graph(x, body);
		x->rounds -= later;
		TRY(code);
		later = true;
		for (uint32_t i = 0; i < n && !enough; i++)
			TRY(widen(x, body, body->in[formal + i], &state[i], open[i], out_type(body, out + i), &changed));
	}
	return LINNET_OK;
}

/*
 * The node's outputs that are carried values and leave the body as outputs out, out + 1, ...; open lengths get symbols of their
 * own. What enters as an optional and leaves as what it may hold is taken for the latter.
 */
static void carried_out(struct shape_call *c, const struct graph *body, uint32_t out, const struct type *state,
                        bool (*open)[MAX_RANK], uint32_t n)
{
	for (uint32_t i = 0; i < n && i < (uint32_t)c->nout; i++) {
		c->out[i] = state[i];
		if (out_type(body, out + i)->dt != DT_UNDEFINED)
			c->out[i].kind = out_type(body, out + i)->kind;
		for (int k = 0; k < state[i].shape.rank; k++)
			if (open[i][k])
				c->out[i].shape.d[k] = DIM_NONE;
	}
}

/* Whether a length is in terms of one that is another at each way round. */
static bool varies(struct dims *dims, dim d, const struct type *state, bool (*open)[MAX_RANK], uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		for (int k = 0; k < state[i].shape.rank; k++)
			if (open[i][k] && dim_has(dims, d, state[i].shape.d[k]))
				return true;
	return false;
}

static enum linnet_code check_stacked(const struct graph *body, uint32_t from, struct linnet_error *e)
{
	char found[64];

	for (uint32_t i = from; i < body->nout; i++)
		if (out_type(body, i)->kind != KIND_TENSOR)
			return fail(e, LINNET_ETYPE, "output %u of the body is %s; only tensors can be gathered", i,
			            kind_str(out_type(body, i), found, sizeof found));
	return LINNET_OK;
}

/* An output of the body, stacked along a new axis. */
static struct type stacked(struct dims *dims, const struct type *t, int64_t axis, dim length, const struct type *state,
                           bool (*open)[MAX_RANK], uint32_t n)
{
	struct type s = { .kind = t->kind, .dt = t->dt, .shape.rank = -1 };
	int rank = t->shape.rank;

	if (axis < 0)
		axis += rank + 1;
	if (rank < 0 || rank == MAX_RANK || axis < 0 || axis > rank)
		return s;
	s.shape.rank = rank + 1;
	for (int i = 0; i <= rank; i++)
		s.shape.d[i] = i < axis ? t->shape.d[i] : i == axis ? length : t->shape.d[i - 1];
	for (int i = 0; i <= rank; i++)
		if (i != axis && varies(dims, s.shape.d[i], state, open, n))
			s.shape.d[i] = DIM_NONE;
	return s;
}

/* Body: (iteration, cond, carried...) -> (cond, carried..., stacked...). */
static enum linnet_code infer_loop(struct infer *x, const struct node *n, struct shape_call *c)
{
	struct graph *body = subgraph(n, "body");
	uint32_t ncarried = c->nin > 2 ? (uint32_t)c->nin - 2 : 0;
	const struct type *count = c->nin > 0 ? c->in[0] : NULL, *cond = c->nin > 1 ? c->in[1] : NULL;
	struct linnet_error *e = x->e;
	bool (*open)[MAX_RANK];
	struct type *state;
	dim trips = DIM_NONE;
	int ntrips;

	if (!body || nformal(body) != ncarried + 2 || body->nout < ncarried + 1 || n->nout > body->nout - 1)
		return fail(e, LINNET_EMODEL, "inputs and outputs of the body are not those of the loop");
	TRY_NEW(state, x->scratch, ncarried + 1);
	TRY_NEW(open, x->scratch, ncarried + 1);
	state[0] = cond ? *cond : (struct type){ .dt = DT_BOOL };
	for (uint32_t i = 1; i <= ncarried; i++)
		state[i] = c->in[1 + i] ? *c->in[1 + i] : unknown_type;
	body->value[body->in[0]].type = (struct type){ .dt = DT_INT64 };
	TRY(fixed_point(x, body, 1, 0, ncarried + 1, state, open));
	carried_out(c, body, 1, state + 1, open + 1, ncarried);
	/* the trip count is known when nothing but it ends the loop */
	if (!cond || truth(&state[0], true))
		TRY(type_ints(count, &trips, 1, &ntrips, e));
	if (trips != DIM_NONE)
		trips = dim_max(c->dims, trips, 0);
	TRY(check_stacked(body, ncarried + 1, e));
	for (uint32_t i = ncarried; i < n->nout; i++)
		c->out[i] = stacked(c->dims, out_type(body, i + 1), 0, trips, state, open, ncarried + 1);
	return LINNET_OK;
}

/* Member i of a list that may be left out. */
static int64_t member(const struct attr *a, uint32_t i) { return a->kind == ATTR_INTS && i < a->n ? a->ints[i] : 0; }

/* Body: (carried..., slices...) -> (carried..., stacked...). */
static enum linnet_code infer_scan(struct infer *x, const struct node *n, struct shape_call *c)
{
	const struct attr *in_axes = node_attr(n, "scan_input_axes"), *out_axes = node_attr(n, "scan_output_axes");
	int64_t nscan = node_attr(n, "num_scan_inputs")->i;
	struct graph *body = subgraph(n, "body");
	struct linnet_error *e = x->e;
	bool (*open)[MAX_RANK];
	uint32_t ncarried;
	struct type *state;
	dim length = DIM_NONE;

	if (!body || nscan < 1 || nscan > c->nin || nformal(body) != (uint32_t)c->nin)
		return fail(e, LINNET_EMODEL, "inputs of the body are not those of the scan");
	ncarried = (uint32_t)(c->nin - nscan);
	if (body->nout < ncarried || n->nout > body->nout)
		return fail(e, LINNET_EMODEL, "outputs of the body are not those of the scan");
	TRY_NEW(state, x->scratch, ncarried);
	TRY_NEW(open, x->scratch, ncarried);
	for (uint32_t i = 0; i < ncarried; i++)
		state[i] = c->in[i] ? *c->in[i] : unknown_type;
	for (uint32_t i = 0; i < (uint32_t)nscan; i++) {
		const struct type *t = c->in[ncarried + i];
		struct type slice = { .dt = t ? t->dt : DT_UNDEFINED, .shape.rank = -1 };
		int axis;

		if (t && t->shape.rank >= 0) {
			TRY(axis_check(member(in_axes, i), t->shape.rank, &axis, e));
			TRY(length_join(c, "sequence lengths", length, t->shape.d[axis], &length));
			slice.shape.rank = t->shape.rank - 1;
			for (int k = 0; k < slice.shape.rank; k++)
				slice.shape.d[k] = t->shape.d[k < axis ? k : k + 1];
		}
		body->value[body->in[ncarried + i]].type = slice;
	}
	TRY(fixed_point(x, body, 0, 0, ncarried, state, open));
	carried_out(c, body, 0, state, open, ncarried);
	TRY(check_stacked(body, ncarried, e));
	for (uint32_t i = ncarried; i < n->nout; i++)
		c->out[i] = stacked(c->dims, out_type(body, i), member(out_axes, i - ncarried), length, state, open, ncarried);
	return LINNET_OK;
}

/* Whether a length is a number or that of an input, hence the same for all members. */
static bool is_common(const struct shape_call *c, dim d)
{
	if (dim_is_int(d))
		return true;
	for (int i = 0; i < c->nin; i++)
		for (int k = 0; c->in[i] && k < c->in[i]->shape.rank; k++)
			if (c->in[i]->shape.d[k] == d && d != DIM_NONE)
				return true;
	return false;
}

/* Body: (members or whole tensors...) -> (members...). */
static enum linnet_code infer_sequence_map(struct infer *x, const struct node *n, struct shape_call *c)
{
	struct graph *body = subgraph(n, "body");

	if (!body || nformal(body) != (uint32_t)c->nin || body->nout < n->nout)
		return fail(x->e, LINNET_EMODEL, "inputs and outputs of the body are not those of the node");
	for (int i = 0; i < c->nin; i++) {
		struct value *v = &body->value[body->in[i]];
		struct type t = c->in[i] ? *c->in[i] : unknown_type;

		if (t.kind != KIND_TENSOR)
			t = (struct type){ .dt = t.dt, .shape = t.shape };
		for (int k = 0; k < t.shape.rank; k++)
			if (t.shape.d[k] == DIM_NONE)
				TRY(symbol_for(x, body, v, k, &t.shape.d[k]));
		v->type = t;
	}
	TRY(infer_graph(x, body));
	TRY(check_stacked(body, 0, x->e));
	for (uint32_t i = 0; i < n->nout; i++) {
		c->out[i] = (struct type){ .kind = KIND_SEQUENCE, .dt = out_type(body, i)->dt, .shape = out_type(body, i)->shape };
		for (int k = 0; k < c->out[i].shape.rank; k++)
			if (!is_common(c, c->out[i].shape.d[k]))
				c->out[i].shape.d[k] = DIM_NONE;
	}
	return LINNET_OK;
}

static enum linnet_code infer_control(struct infer *x, struct graph *g, const struct node *n, struct shape_call *c)
{
	bind_captures(g, n);
	if (node_is(n, "If"))
		return infer_if(x, g, n, c);
	if (node_is(n, "Loop"))
		return infer_loop(x, n, c);
	if (node_is(n, "Scan"))
		return infer_scan(x, n, c);
	if (node_is(n, "SequenceMap"))
		return infer_sequence_map(x, n, c);
	return LINNET_OK;
}

/* ---- Nodes ---- */

/* The length that inputs have on an axis, counted from the last, when they broadcast: the largest, as it is unless one is 0 and another 1. */
static dim largest(const struct shape_call *c, int from_end)
{
	dim most = 1;

	for (int i = 0; i < c->nin; i++) {
		const struct shape *s = c->in[i] ? &c->in[i]->shape : NULL;

		if (!s || s->rank < 0)
			return DIM_NONE;
		if (from_end <= s->rank)
			most = most == 1 ? s->d[s->rank - from_end] : s->d[s->rank - from_end] == 1 ? most : dim_max(c->dims, most, s->d[s->rank - from_end]);
	}
	return most;
}

/* Lengths of the first output that its shape function leaves open, for it knows not which of its inputs' lengths is 1. */
static void likely_shape(const struct node *n, const struct shape_call *c, struct shape *likely)
{
	const struct shape *y = &c->out[0].shape;
	bool expand = node_is(n, "Expand");

	*likely = shape_unknown();
	if (!c->nout || n->op->domain || !(n->op->flags & OP_EACH || node_is(n, "MatMul") || (expand && c->in[1]->sym && type_nsym(c->in[1]) >= 0)))
		return;
	*likely = *y;
	for (int i = 0; i < y->rank; i++) {
		int from_end = y->rank - i, asked = expand ? type_nsym(c->in[1]) : 0;

		if (y->d[i] != DIM_NONE || (node_is(n, "MatMul") && from_end <= 2))
			continue;
		if (!expand)
			likely->d[i] = largest(c, from_end);
		else if (from_end <= asked && from_end <= c->in[0]->shape.rank)
			likely->d[i] = dim_max(c->dims, c->in[0]->shape.d[c->in[0]->shape.rank - from_end], c->in[1]->sym[asked - from_end]);
	}
}

static bool is_single(const struct graph *g, value_id v)
{
	const struct shape *s = &g->value[v].type.shape;
	bool single = s->rank >= 0 && dtype_in(g->value[v].type.dt, INTS);

	for (int i = 0; i < s->rank; i++)
		single = single && s->d[i] == 1;
	return single;
}

/* Where the one integer that v is comes from, under whatever shape. */
static value_id number_of(const struct graph *g, value_id v)
{
	static const char *const moving[] = { "Squeeze", "Unsqueeze", "Reshape", "Gather", "Slice", "Cast", "Identity", NULL };
	const dtype_set wide = INDICES; /* a Cast to few bits is another number */

	for (const struct node *n; (n = value_node(g, v)) != NULL && node_among(n, moving) && is_single(g, n->in[0]); v = n->in[0])
		if (node_is(n, "Cast") && !(dtype_in(g->value[v].type.dt, wide) && dtype_in(g->value[n->in[0]].type.dt, wide)))
			break;
	return v;
}

/* From `start` on there are this many to `limit`, though nobody knows where that is: limit = start + many, or start = limit - many. */
static value_id many_between(const struct graph *g, value_id start, value_id limit)
{
	value_id from = number_of(g, start), to = number_of(g, limit);
	const struct node *sum = value_node(g, to), *rest = value_node(g, from);

	for (int i = 0; sum && node_is(sum, "Add") && i < 2; i++)
		if (number_of(g, sum->in[i]) == from)
			return sum->in[1 - i];
	return rest && node_is(rest, "Sub") && number_of(g, rest->in[0]) == to ? rest->in[1] : 0;
}

/* Range's length where only the distance of its ends is known: that of a range from 0 on. */
static enum linnet_code range_between(const struct graph *g, const struct node *n, struct shape_call *c)
{
	struct shape_call inner = *c;
	dim zero = 0;
	const struct type start = { .dt = c->in[0]->dt, .sym = &zero }, *in[3] = { &start, NULL, c->in[2] };
	struct type out = unknown_type;
	enum linnet_code code;
	value_id many = c->out[0].shape.rank == 1 && c->out[0].shape.d[0] == DIM_NONE && is_single(g, n->in[0]) ? many_between(g, n->in[0], n->in[1]) : 0;

	if (!many || !is_single(g, many))
		return LINNET_OK;
	inner.in = in;
	inner.out = &out;
	in[1] = &(struct type){ .dt = start.dt, .sym = g->value[many].type.sym, .value = g->value[many].type.value };
	code = op_infer(&inner);
	if (!code && out.shape.rank == 1)
		c->out[0].shape.d[0] = out.shape.d[0];
	return code;
}

static enum linnet_code infer_node(struct infer *x, struct graph *g, node_id id)
{
	const struct node *n = &g->node[id];
	struct shape_call c = { .op = n->op, .attr = n->attr, .dims = g->dims, .arena = x->scratch, .e = x->e };
	struct linnet_error *e = x->e;
	const struct type **in;
	struct shape likely = shape_unknown();
	bool *wanted;

	if (x->rounds)
		x->again++;
	else
		x->visits++;
	c.nin = (int)(n->nin - n->ncapture);
	c.nout = (int)n->nout;
	TRY_NEW(in, x->scratch, n->nin);
	TRY_NEW(c.out, x->scratch, n->nout);
	TRY_NEW(wanted, x->scratch, n->nout);
	for (int i = 0; i < c.nin; i++)
		in[i] = n->in[i] ? &g->value[n->in[i]].type : NULL;
	for (int i = 0; i < c.nout; i++) {
		wanted[i] = n->out[i] != 0;
		c.out[i] = unknown_type;
	}
	c.in = in;
	c.wanted = wanted;
	if (n->known)
		TRY(op_infer(&c));
	if (n->known && n->op->flags & OP_CONTROL)
		TRY(infer_control(x, g, n, &c));
	else if (n->known)
		TRY(evaluate(x, g, n, &c));
	if (node_is(n, "Range"))
		TRY(range_between(g, n, &c));
	if (n->known)
		likely_shape(n, &c, &likely);
	for (int i = 0; i < c.nout; i++)
		if (wanted[i])
			TRY(settle(x, g, n->out[i], c.out[i], i ? NULL : &likely));
	return LINNET_OK;
}

static enum linnet_code infer_graph(struct infer *x, struct graph *g)
{
	struct arena *scratch = arena_new(), *outer = x->scratch;
	enum linnet_code code = LINNET_OK;
	node_id *order;
	uint32_t n = 0;

	x->scratch = arena_new();
	if (scratch && x->scratch)
		code = graph_order(g, scratch, &order, &n, x->e);
	else
		code = fail_mem(x->e);
	for (uint32_t i = 0; !code && i < n; i++) {
		arena_reset(x->scratch);
		code = infer_node(x, g, order[i]);
		if (code) /* a label is looked for */
			code = err_node(x->e, code, node_label(g, &g->node[order[i]]), g->node[order[i]].op->name);
	}
	arena_free(x->scratch);
	arena_free(scratch);
	x->scratch = outer;
	return code;
}

enum linnet_code graph_infer(struct graph *g, struct linnet_error *e)
{
	struct infer x = { .e = e };

	uint64_t learned = dims_learned(g->dims);
	enum linnet_code code = infer_graph(&x, g);

	g->stale = dims_learned(g->dims) != learned;
	return code;
}

enum linnet_code graph_infer_node(struct graph *g, node_id n, struct linnet_error *e)
{
	struct infer x = { .e = e, .scratch = arena_new() };
	uint64_t learned = dims_learned(g->dims);
	enum linnet_code code = x.scratch ? infer_node(&x, g, n) : fail_mem(e);

	if (dims_learned(g->dims) != learned)
		graph_types_change(g);
	arena_free(x.scratch);
	return err_node(e, code, node_label(g, &g->node[n]), g->node[n].op->name);
}
