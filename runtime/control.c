/*
 * If, Loop and Scan: the plans of their subgraphs run over slots of their own, which share blocks with the slots outside, so
 * nothing is copied on the way in or out except slices and scanned outputs.
 *
 * Source: ONNX If-1, Loop-1, Scan-9 and later. Where Loop's text and the evaluators differ (the condition the body computes is
 * heeded also when the node's `cond` is left out) this follows onnxruntime and the reference evaluator.
 */
#include <string.h>

#include "runtime/plan.h"

/* Slices joined along a new axis. Room grows when the count is not known beforehand, which needs axis 0. */
struct join {
	struct held all;
	struct tensor slice; /* header of one */
	int axis;
	int64_t n, room;
};

struct control {
	enum linnet_code (*run)(struct plan *p, struct step *s, struct linnet_error *e);
	int nstate;         /* values carried from one iteration to the next */
	int nscan;          /* inputs cut into slices */
	int njoin;
	struct held *state;
	struct join *join;
	struct block **list; /* SequenceMap: outputs so far */
	int nlist;
};

static enum linnet_code check_tensor(const struct tensor *t, const char *what, struct linnet_error *e)
{
	return t->kind == KIND_TENSOR ? LINNET_OK : fail(e, LINNET_ETYPE, "%s is no tensor", what);
}

/* ---- Slices ---- */

/* Copy one slice to or from position `at` of the axis that it lacks. */
static void copy_slice(struct tensor *all, int axis, int64_t at, struct tensor *slice, bool out_of_all)
{
	int64_t outer = 1, inner = 1, n = all->d[axis];
	unsigned bits = dtype_bits(all->dt);

	for (int i = 0; i < axis; i++)
		outer *= all->d[i];
	for (int i = axis + 1; i < all->rank; i++)
		inner *= all->d[i];
	for (int64_t o = 0; o < outer; o++) {
		int64_t from = (o * n + at) * inner, to = o * inner;
		size_t size = dtype_bytes(all->dt, 1);

		if (bits >= 6 && inner) {
			unsigned char *a = (unsigned char *)all->data + (size_t)from * size;
			unsigned char *b = (unsigned char *)slice->data + (size_t)to * size;

			memcpy(out_of_all ? b : a, out_of_all ? a : b, (size_t)inner * size);
			continue;
		}
		for (int64_t i = 0; i < inner; i++) /* several elements a byte */
			if (out_of_all)
				tensor_put(slice, to + i, tensor_get(all, from + i));
			else
				tensor_put(all, from + i, tensor_get(slice, to + i));
	}
}

/* h: slice `at` along an axis. Whole bytes along axis 0 are shared, the rest is copied. */
static enum linnet_code cut(struct pool *pool, const struct held *all, int axis, int64_t at, struct held *h, struct linnet_error *e)
{
	struct tensor whole = all->t;
	int64_t d[MAX_RANK];
	int r = 0;

	for (int i = 0; i < all->t.rank; i++)
		if (i != axis)
			d[r++] = all->t.d[i];
	held_drop(h);
	TRY(held_header(&h->t, all->t.dt, r, d, e));
	if (axis == 0 && dtype_bits(h->t.dt) >= 6) {
		h->t.data = (unsigned char *)all->t.data + (size_t)at * h->t.bytes;
		h->block = all->block;
		if (h->block)
			h->block->holders++;
		return LINNET_OK;
	}
	TRY(held_make(h, pool, e));
	copy_slice(&whole, axis, at, &h->t, true);
	return LINNET_OK;
}

/* The joined tensor's lengths when it has n slices. */
static enum linnet_code joined_header(const struct join *j, int64_t n, struct tensor *t, struct linnet_error *e)
{
	int64_t d[MAX_RANK];
	int r = 0;

	if (j->slice.rank >= MAX_RANK)
		return fail(e, LINNET_EUNSUPPORTED, "a scanned output has %d dimensions; at most %d are supported",
		            j->slice.rank + 1, MAX_RANK);
	for (int i = 0; i <= j->slice.rank; i++)
		d[i] = i == j->axis ? n : j->slice.d[r++];
	return held_header(t, j->slice.dt, j->slice.rank + 1, d, e);
}

static enum linnet_code join_room(struct join *j, int64_t room, struct pool *pool, struct linnet_error *e)
{
	struct held more = { .block = NULL };

	TRY(joined_header(j, room, &more.t, e));
	TRY(held_make(&more, pool, e));
	if (j->n) /* axis 0: what is there stays a prefix */
		memcpy(more.t.data, j->all.t.data, dtype_bytes(j->slice.dt, (uint64_t)(j->n * j->slice.n)));
	block_drop(j->all.block);
	j->all = more;
	j->room = room;
	return LINNET_OK;
}

/* Put a slice at position `at`; the first one sets the shape. room: how many there will be, or a guess. */
static enum linnet_code join_put(struct join *j, int64_t at, int64_t room, struct tensor *slice, struct pool *pool,
                                 struct linnet_error *e)
{
	TRY(check_tensor(slice, "a scanned output", e));
	if (!j->n) {
		j->slice = *slice;
		TRY(join_room(j, room, pool, e));
	} else if (slice->dt != j->slice.dt || slice->rank != j->slice.rank ||
	           (slice->rank && memcmp(slice->d, j->slice.d, (size_t)slice->rank * sizeof *slice->d))) {
		return fail(e, LINNET_ESHAPE, "a scanned output changes its type or shape at iteration %lld", (long long)j->n);
	} else if (j->n == j->room) {
		TRY(join_room(j, j->room * 2, pool, e));
	}
	copy_slice(&j->all.t, j->axis, at, slice, false);
	j->n++;
	return LINNET_OK;
}

/* out takes over what was joined. Without a single slice: no elements, of the type inference knows. */
static enum linnet_code join_end(struct join *j, const struct type *known, struct pool *pool, struct held *out,
                                 struct linnet_error *e)
{
	if (!j->n) {
		j->slice = (struct tensor){ .dt = known->dt, .rank = known->shape.rank > 0 ? known->shape.rank : 0 };
		for (int i = 0; i < j->slice.rank; i++)
			j->slice.d[i] = dim_is_int(known->shape.d[i]) ? known->shape.d[i] : 0;
		if (known->dt == DT_UNDEFINED)
			return fail(e, LINNET_EUNSUPPORTED, "no iteration was made and the element type of a scanned output is not known");
		TRY(join_room(j, 0, pool, e));
	}
	TRY(joined_header(j, j->n, &out->t, e));
	out->t.data = j->all.t.data;
	out->block = j->all.block;
	j->all.block = NULL;
	return LINNET_OK;
}

/* ---- Going in and out of a subgraph ---- */

static struct held *formal(struct plan *sub, int i)
{
	return &sub->slot[sub->graph->in[i]];
}

static struct held *result(struct plan *sub, int i)
{
	return &sub->slot[sub->graph->out[i]];
}

static void bind_captures(struct plan *sub, const struct step *s)
{
	const struct graph *g = sub->graph;

	for (uint32_t i = 0; i < g->ncapture; i++) {
		value_id v = g->in[g->nin - g->ncapture + i];

		if (!sub->fixed[v])
			held_share(&sub->slot[v], s->in[sub->first_capture + i]);
	}
}

static enum linnet_code exec(struct plan *sub, const struct step *s, struct linnet_error *e)
{
	bind_captures(sub, s);
	return plan_exec(sub, false, NULL, e);
}

static enum linnet_code new_scalar(struct held *h, struct pool *pool, enum dtype dt, int64_t v, struct linnet_error *e)
{
	held_drop(h);
	TRY(held_header(&h->t, dt, 0, NULL, e));
	TRY(held_make(h, pool, e));
	tensor_put_int(&h->t, 0, v);
	return LINNET_OK;
}

/* The one element of an input or result that decides something. */
static enum linnet_code one_value(const struct tensor *t, enum dtype dt, const char *what, int64_t *v, struct linnet_error *e)
{
	TRY(check_tensor(t, what, e));
	if (t->dt != dt || t->n != 1)
		return fail(e, LINNET_ETYPE, "%s is %s with %lld elements; expected one %s", what, dtype_name(t->dt), (long long)t->n,
		            dtype_name(dt));
	*v = tensor_get_int(t, 0);
	return LINNET_OK;
}

/* ---- If ---- */

static enum linnet_code run_if(struct plan *p, struct step *s, struct linnet_error *e)
{
	const struct node *n = s->node;
	int64_t cond;
	int at = 0;
	enum linnet_code code;

	(void)p;
	TRY(one_value(&s->in[0]->t, DT_BOOL, "the condition", &cond, e));
	for (uint32_t i = 0; i < n->nattr; i++) {
		if (n->attr[i].kind != ATTR_GRAPH)
			continue;
		if (!strcmp(n->attr[i].name, cond ? "then_branch" : "else_branch"))
			break;
		at++;
	}
	code = exec(s->sub[at], s, e);
	for (int i = 0; !code && i < s->call.nout; i++)
		if (s->out[i])
			held_share(s->out[i], result(s->sub[at], i));
	plan_clear(s->sub[at]);
	return code;
}

/* ---- Loop ---- */

/* How many slices there is room for at first: all of them when that is little, else a few, as a loop may end early. */
static int64_t first_room(int64_t trips, const struct tensor *slice)
{
	enum { FEW = 16, LITTLE = 1 << 20 };

	return trips <= FEW || (trips <= LITTLE && (uint64_t)trips * slice->bytes <= LITTLE) ? trips : FEW;
}

static enum linnet_code loop_iterate(struct plan *p, struct step *s, struct linnet_error *e)
{
	struct control *c = s->control;
	struct plan *body = s->sub[0];
	struct pool *pool = p->world->pool;
	int64_t trips = INT64_MAX, go = 1;

	if (s->in[0])
		TRY(one_value(&s->in[0]->t, DT_INT64, "the trip count", &trips, e));
	if (s->in[1])
		TRY(one_value(&s->in[1]->t, DT_BOOL, "the condition", &go, e));
	for (int i = 0; i < c->nstate; i++)
		held_share(&c->state[i], s->in[2 + i]);
	for (int64_t t = 0; t < trips && go; t++) {
		TRY(new_scalar(formal(body, 0), pool, DT_INT64, t, e));
		TRY(new_scalar(formal(body, 1), pool, DT_BOOL, go, e));
		for (int i = 0; i < c->nstate; i++) {
			held_share(formal(body, 2 + i), &c->state[i]);
			held_drop(&c->state[i]);
		}
		TRY(exec(body, s, e));
		TRY(one_value(&result(body, 0)->t, DT_BOOL, "the body's condition", &go, e));
		for (int i = 0; i < c->nstate; i++)
			held_share(&c->state[i], result(body, 1 + i));
		for (int i = 0; i < c->njoin; i++) {
			struct tensor *slice = &result(body, 1 + c->nstate + i)->t;

			if (s->out[c->nstate + i])
				TRY(join_put(&c->join[i], t, first_room(trips, slice), slice, pool, e));
		}
		plan_clear(body);
	}
	return LINNET_OK;
}

/* ---- Scan ---- */

static enum linnet_code scan_axis(const struct attr *a, int i, int rank, int *axis, struct linnet_error *e)
{
	return axis_check(attr_given(a) && (size_t)i < a->n ? a->ints[i] : 0, rank, axis, e);
}

static bool scan_backward(const struct attr *a, int i)
{
	return attr_given(a) && (size_t)i < a->n && a->ints[i];
}

static enum linnet_code scan_iterate(struct plan *p, struct step *s, struct linnet_error *e)
{
	struct control *c = s->control;
	struct plan *body = s->sub[0];
	struct pool *pool = p->world->pool;
	const struct attr *in_axes = node_attr(s->node, "scan_input_axes"), *in_back = node_attr(s->node, "scan_input_directions");
	const struct attr *out_axes = node_attr(s->node, "scan_output_axes"), *out_back = node_attr(s->node, "scan_output_directions");
	int64_t steps = -1;

	for (int i = 0; i < c->nscan; i++) {
		const struct tensor *t = &s->in[c->nstate + i]->t;
		int axis;

		TRY(check_tensor(t, "a scanned input", e));
		TRY(scan_axis(in_axes, i, t->rank, &axis, e));
		if (steps >= 0 && t->d[axis] != steps)
			return fail(e, LINNET_ESHAPE, "scanned input %d has length %lld; the ones before it have %lld", i,
			            (long long)t->d[axis], (long long)steps);
		steps = t->d[axis];
	}
	for (int i = 0; i < c->njoin && !steps; i++) {
		const struct graph *g = body->graph;
		int rank = g->value[g->out[c->nstate + i]].type.shape.rank;

		if (rank >= 0)
			TRY(scan_axis(out_axes, i, rank + 1, &c->join[i].axis, e));
	}
	for (int i = 0; i < c->nstate; i++)
		held_share(&c->state[i], s->in[i]);
	for (int64_t t = 0; t < steps; t++) {
		for (int i = 0; i < c->nstate; i++) {
			held_share(formal(body, i), &c->state[i]);
			held_drop(&c->state[i]);
		}
		for (int i = 0; i < c->nscan; i++) {
			const struct held *all = s->in[c->nstate + i];
			int axis;

			TRY(scan_axis(in_axes, i, all->t.rank, &axis, e));
			TRY(cut(pool, all, axis, scan_backward(in_back, i) ? steps - 1 - t : t, formal(body, c->nstate + i), e));
		}
		TRY(exec(body, s, e));
		for (int i = 0; i < c->nstate; i++)
			held_share(&c->state[i], result(body, i));
		for (int i = 0; i < c->njoin; i++) {
			struct join *j = &c->join[i];
			struct tensor *slice = &result(body, c->nstate + i)->t;

			if (!s->out[c->nstate + i])
				continue;
			if (!t)
				TRY(scan_axis(out_axes, i, slice->rank + 1, &j->axis, e));
			TRY(join_put(j, scan_backward(out_back, i) ? steps - 1 - t : t, steps, slice, pool, e));
		}
		plan_clear(body);
	}
	return LINNET_OK;
}

/* ---- SequenceMap ---- */

static enum linnet_code map_member(struct plan *p, struct step *s, int64_t at, struct linnet_error *e)
{
	struct control *c = s->control;
	struct plan *body = s->sub[0];

	for (int i = 0; i < s->call.nin - (int)s->node->ncapture; i++) {
		if (s->in[i]->t.kind == KIND_TENSOR)
			held_share(formal(body, i), s->in[i]);
		else
			held_member(formal(body, i), member_block(&s->in[i]->t, at));
	}
	TRY(exec(body, s, e));
	for (int i = 0; i < c->nlist; i++) {
		struct block *member;

		if (!c->list[i])
			continue;
		TRY(check_tensor(&result(body, i)->t, "an output of the body", e));
		TRY(block_of_held(p->world->pool, result(body, i), &member, e));
		block_append(c->list[i], member);
	}
	plan_clear(body);
	return LINNET_OK;
}

static enum linnet_code map_members(struct plan *p, struct step *s, struct linnet_error *e)
{
	struct control *c = s->control;
	const struct graph *g = s->sub[0]->graph;
	const struct tensor *first = &s->in[0]->t;

	for (int i = 0; i < s->call.nin - (int)s->node->ncapture; i++) {
		const struct tensor *t = &s->in[i]->t;

		if (t->kind != KIND_SEQUENCE && (!i || t->kind != KIND_TENSOR))
			return fail(e, LINNET_ETYPE, "input %d is no sequence%s", i, i ? " and no tensor" : "");
		if (t->kind == KIND_SEQUENCE && t->n != first->n)
			return fail(e, LINNET_ESHAPE, "input %d has %lld members; the first one has %lld", i, (long long)t->n,
			            (long long)first->n);
	}
	for (int i = 0; i < c->nlist; i++) {
		struct tensor like = { .kind = KIND_SEQUENCE, .dt = g->value[g->out[i]].type.dt, .n = first->n };

		if (s->out[i])
			TRY(block_members(p->world->pool, &like, &c->list[i], e));
	}
	for (int64_t at = 0; at < first->n; at++)
		TRY(map_member(p, s, at, e));
	for (int i = 0; i < c->nlist; i++) {
		if (!c->list[i])
			continue;
		if (c->list[i]->t.n)
			c->list[i]->t.dt = tensor_member(&c->list[i]->t, 0)->dt;
		*s->out[i] = (struct held){ .t = c->list[i]->t, .block = c->list[i] };
		c->list[i] = NULL;
	}
	return LINNET_OK;
}

static enum linnet_code run_sequence_map(struct plan *p, struct step *s, struct linnet_error *e)
{
	struct control *c = s->control;
	enum linnet_code code = map_members(p, s, e);

	for (int i = 0; i < c->nlist; i++) {
		block_drop(c->list[i]);
		c->list[i] = NULL;
	}
	plan_clear(s->sub[0]);
	return code;
}

/* ---- Loop and Scan: what surrounds the iterations ---- */

static enum linnet_code run_iterations(struct plan *p, struct step *s, struct linnet_error *e)
{
	struct control *c = s->control;
	struct plan *body = s->sub[0];
	bool loop = !strcmp(s->node->op->name, "Loop");
	const struct graph *g = body->graph;
	enum linnet_code code;

	for (int i = 0; i < c->njoin; i++)
		c->join[i] = (struct join){ .axis = 0 };
	code = loop ? loop_iterate(p, s, e) : scan_iterate(p, s, e);
	for (int i = 0; !code && i < c->nstate && i < s->call.nout; i++)
		if (s->out[i])
			held_share(s->out[i], &c->state[i]);
	for (int i = 0; !code && i < c->njoin; i++)
		if (s->out[c->nstate + i])
			code = join_end(&c->join[i], &g->value[g->out[loop + c->nstate + i]].type, p->world->pool,
			                s->out[c->nstate + i], e);
	for (int i = 0; i < c->nstate; i++)
		held_drop(&c->state[i]);
	for (int i = 0; i < c->njoin; i++)
		held_drop(&c->join[i].all);
	plan_clear(body);
	return code;
}

/* ---- Once a plan ---- */

static bool is(const struct op *op, const char *name)
{
	return !op->domain && !strcmp(op->name, name);
}

bool control_known(const struct op *op)
{
	return is(op, "If") || is(op, "Loop") || is(op, "Scan") || is(op, "SequenceMap");
}

static enum linnet_code expect(int found, int wanted, const char *what, struct linnet_error *e)
{
	if (found == wanted)
		return LINNET_OK;
	return fail(e, LINNET_EMODEL, "the subgraph has %d %s; expected %d", found, what, wanted);
}

static enum linnet_code prepare_if(struct step *s, struct linnet_error *e)
{
	TRY(expect(s->nsub, 2, "branches", e));
	for (int i = 0; i < 2; i++) {
		const struct graph *g = s->sub[i]->graph;

		TRY(expect((int)(g->nin - g->ncapture), 0, "inputs", e));
		TRY(expect((int)g->nout, s->call.nout, "outputs", e));
	}
	return LINNET_OK;
}

static enum linnet_code prepare_sequence_map(struct plan *p, struct step *s, struct linnet_error *e)
{
	const struct graph *g = s->sub[0]->graph;
	struct control *c = s->control;

	c->nlist = s->call.nout;
	TRY(expect((int)(g->nin - g->ncapture), (int)(s->node->nin - s->node->ncapture), "inputs", e));
	TRY(expect((int)g->nout, c->nlist, "outputs", e));
	TRY_NEW(c->list, p->world->arena, c->nlist);
	return LINNET_OK;
}

enum linnet_code control_prepare(struct plan *p, struct step *s, struct linnet_error *e)
{
	const struct node *n = s->node;
	const struct graph *g;
	struct control *c;
	int formals, nin = (int)(n->nin - n->ncapture), own = 0;

	TRY_NEW(c, p->world->arena, 1);
	s->control = c;
	c->run = is(n->op, "If") ? run_if : is(n->op, "SequenceMap") ? run_sequence_map : run_iterations;
	if (is(n->op, "If"))
		return prepare_if(s, e);
	if (s->nsub != 1)
		return fail(e, LINNET_EMODEL, "expected one subgraph, found %d", s->nsub);
	if (is(n->op, "SequenceMap"))
		return prepare_sequence_map(p, s, e);
	g = s->sub[0]->graph;
	formals = (int)(g->nin - g->ncapture);
	if (is(n->op, "Loop")) {
		c->nstate = nin - 2;
		own = 1;
		TRY(expect(formals, nin, "inputs", e));
	} else {
		int64_t nscan = node_attr(n, "num_scan_inputs")->i;

		if (nscan < 1 || nscan > nin)
			return fail(e, LINNET_EATTR, "num_scan_inputs is %lld; expected 1 to %d", (long long)nscan, nin);
		c->nscan = (int)nscan;
		c->nstate = nin - c->nscan;
		TRY(expect(formals, nin, "inputs", e));
	}
	c->njoin = s->call.nout - c->nstate;
	if (c->nstate < 0 || c->njoin < 0)
		return fail(e, LINNET_EMODEL, "%d outputs given; at least %d expected", s->call.nout, c->nstate);
	TRY(expect((int)g->nout, own + c->nstate + c->njoin, "outputs", e));
	for (int i = 0; i < nin; i++)
		if (!s->in[i] && (i > 1 || !own))
			return fail(e, LINNET_EMODEL, "input %d is left out but is not optional", i);
	TRY_NEW(c->state, p->world->arena, c->nstate);
	TRY_NEW(c->join, p->world->arena, c->njoin);
	return LINNET_OK;
}

enum linnet_code control_run(struct plan *p, struct step *s, struct linnet_error *e)
{
	return s->control->run(p, s, e);
}
