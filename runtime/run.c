/* Running a plan. */
#include <string.h>

#include "runtime/plan.h"

/* ---- Shapes and kernel of one node ---- */

static bool same_inputs(const struct step *s)
{
	for (int i = 0; i < s->call.nin; i++) {
		const struct tensor *t = s->call.in[i];
		const struct type *was = &s->in_type[i];

		if (!t)
			continue;
		if (t->dt != was->dt || t->kind != was->kind)
			return false;
		if (t->kind != KIND_TENSOR)
			continue;
		if (t->rank != was->shape.rank)
			return false;
		for (int k = 0; k < t->rank; k++)
			if (t->d[k] != was->shape.d[k])
				return false;
	}
	return true;
}

/* Ask the row's shape function, with all values or with constants' only. */
static enum linnet_code ask_types(struct plan *p, struct step *s, bool values, struct linnet_error *e)
{
	struct world *w = p->world;
	enum linnet_code code;

	for (int i = 0; i < s->call.nin; i++) {
		const struct tensor *t = s->call.in[i];

		if (!t)
			continue;
		s->in_type[i] = (struct type){ .kind = t->kind, .dt = t->dt, .key = t->key, .shape = shape_of(t), .value = s->fixed[i] };
		if (t->kind != KIND_TENSOR)
			s->in_type[i].shape = shape_unknown(); /* another one each time */
		if (values && t->data)
			s->in_type[i].value = t;
	}
	s->shape.e = e;
	s->shape.arena = w->scratch;
	s->shape.dims = values ? NULL : w->dims;
	code = op_infer(&s->shape);
	if (arena_used(w->scratch))
		arena_reset(w->scratch);
	return code;
}

static bool same_outputs(const struct step *s)
{
	for (int i = 0; i < s->call.nout; i++) {
		const struct type *t = &s->shape.out[i];
		struct shape was;

		if (!s->out[i])
			continue;
		was = shape_of(&s->out[i]->t);
		if (t->dt != s->out[i]->t.dt || t->kind != s->out[i]->t.kind || (!t->kind && !shape_equal(&t->shape, &was)))
			return false;
	}
	return true;
}

/* The first fast kernel that can do this call, else the reference kernel. */
static enum linnet_code choose_kernel(struct plan *p, struct step *s, struct linnet_error *e)
{
	struct world *w = p->world;

	s->taken = NULL;
	s->run = s->node->op->kernel;
	s->call.prepared = NULL;
	for (int i = 0; i < s->nchoice; i++) {
		struct choice *c = &s->choice[i];

		if (!c->asked && c->fast->prepare) {
			size_t before = arena_used(w->arena);

			TRY(c->fast->prepare(s->node->op, s->node->attr, s->call.nin, s->fixed, w->arena, &c->prepared, e));
			w->prepared_bytes += (int64_t)(arena_used(w->arena) - before);
		}
		c->asked = true;
		s->call.prepared = c->prepared;
		if (c->fast->ok && !c->fast->ok(&s->call))
			continue;
		s->taken = c;
		s->run = c->fast->run;
		return LINNET_OK;
	}
	s->call.prepared = NULL;
	return LINNET_OK;
}

/* Inputs read here for the last time whose memory fits output 0. */
static void find_reuse(struct step *s)
{
	const struct tensor *out = s->call.nout ? s->call.out[0] : NULL;

	s->nreuse = 0;
	if (!out || !s->taken || !s->taken->fast->inplace)
		return;
	for (uint32_t i = 0; i < s->ndying; i++) {
		const struct tensor *in = s->call.in[s->dying[i]];

		if (in->dt == out->dt && in->rank == out->rank && !memcmp(in->d, out->d, sizeof in->d))
			s->reuse[s->nreuse++] = s->dying[i];
	}
}

/*
 * Types of the outputs, the kernel, and what may run in place. A shape function that knows all lengths without values will know
 * the same ones as long as the inputs' types are the same; one that does not is asked again at every run.
 */
static enum linnet_code decide(struct plan *p, struct step *s, struct linnet_error *e)
{
	bool same = s->decided && same_inputs(s);

	if (same && !s->reads_values)
		return LINNET_OK;
	s->decided = same;
	if (!s->reads_values) {
		TRY(ask_types(p, s, false, e));
		s->reads_values = !op_decided(&s->shape);
	}
	if (s->reads_values) {
		TRY(ask_types(p, s, true, e));
		if (!op_decided(&s->shape))
			return op_undecided(&s->shape, e);
		if (same && same_outputs(s))
			return LINNET_OK;
	}
	s->decided = false;
	s->text = false;
	for (int i = 0; i < s->call.nout; i++) {
		const struct type *t = &s->shape.out[i];

		if (!s->out[i] || s->node->op->flags & OP_PICK)
			continue;
		if (t->kind == KIND_TENSOR)
			TRY(held_header(&s->out[i]->t, t->dt, t->shape.rank, t->shape.d, e));
		else
			s->out[i]->t = (struct tensor){ .kind = t->kind, .dt = t->dt, .key = t->key };
		s->text |= t->dt == DT_STRING;
	}
	if (!s->view) {
		TRY(choose_kernel(p, s, e));
		find_reuse(s);
	}
	s->decided = true;
	return LINNET_OK;
}

/* ---- Running one node ---- */

/* Output 0 shares input 0's data. */
static enum linnet_code run_view(struct step *s, struct linnet_error *e)
{
	const struct held *in = s->in[0];
	struct held *out = s->out[0];

	if (in->t.kind != KIND_TENSOR)
		out->t = in->t;
	if (out->t.bytes != in->t.bytes)
		return fail(e, LINNET_EINTERNAL, "a view of %zu bytes has %zu bytes", in->t.bytes, out->t.bytes);
	out->t.data = in->t.data;
	out->block = in->block;
	if (out->block)
		out->block->holders++;
	return LINNET_OK;
}

/* Give output 0 the block of a dying input that nobody else holds. */
static bool take_place(struct step *s)
{
	for (uint32_t i = 0; i < s->nreuse; i++) {
		struct held *in = s->in[s->reuse[i]];

		if (!in->block || in->block->holders != 1)
			continue;
		s->out[0]->t.data = in->t.data;
		s->out[0]->block = in->block;
		in->block = NULL;
		return true;
	}
	return false;
}

/* ---- Outputs that are no tensors ---- */

/* Where a walk over the members of a node's inputs is: results mostly have them in the same order. */
struct walker {
	int input;
	int64_t at;
};

/* The block of a member of an input; NULL when m is none. */
static struct block *find_member(const struct step *s, const struct tensor *m, struct walker *w)
{
	for (int k = 0; k < s->call.nin; k++) {
		int input = (w->input + k) % s->call.nin;
		const struct tensor *t = s->call.in[input];
		int64_t n = t && t->kind != KIND_TENSOR ? t->n : 0, from = k ? 0 : w->at;

		for (int64_t i = 0; i < n; i++) {
			int64_t at = (from + i) % n;

			if (tensor_member(t, at) != m)
				continue;
			*w = (struct walker){ input, at + 1 };
			return member_block(t, at);
		}
	}
	return NULL;
}

/* A member of an output, with one holder for the caller: what an input or its member holds is shared, what the kernel made copied. */
static enum linnet_code member_of_output(struct plan *p, const struct step *s, const struct tensor *m, struct walker *w,
                                         struct block **out, struct linnet_error *e)
{
	for (int k = 0; k < s->call.nin; k++)
		if (s->call.in[k] == m)
			return block_of_held(p->world->pool, s->in[k], out, e);
	*out = find_member(s, m, w);
	if (!*out)
		return block_copy(p->world->pool, m, out, e);
	(*out)->holders++;
	return LINNET_OK;
}

/* The members a kernel gave its output, put into blocks. */
static enum linnet_code take_members(struct plan *p, const struct step *s, struct held *h, struct linnet_error *e)
{
	const struct tensor given = h->t;
	struct walker w = { 0 };

	TRY(block_members(p->world->pool, &given, &h->block, e));
	for (int64_t i = 0; i < given.n; i++) {
		struct block *member;

		TRY(member_of_output(p, s, tensor_member(&given, i), &w, &member, e));
		block_append(h->block, member);
	}
	h->t = h->block->t;
	return LINNET_OK;
}

static void take_pick(struct step *s)
{
	for (int k = 0; k < s->call.nin; k++)
		if (s->call.in[k] == s->call.pick) {
			held_share(s->out[0], s->in[k]);
			return;
		}
	held_member(s->out[0], (struct block *)(uintptr_t)s->call.pick);
}

static enum linnet_code run_kernel(struct plan *p, struct step *s, uint64_t salt, struct linnet_error *e)
{
	struct world *w = p->world;

	bool pick = s->node->op->flags & OP_PICK;

	for (int i = s->nreuse && take_place(s); i < s->call.nout && !pick; i++)
		if (s->out[i] && s->out[i]->t.kind == KIND_TENSOR)
			TRY(held_make(s->out[i], w->pool, e));
	s->call.e = e;
	s->call.seed = s->seed + salt;
	s->call.scratch = s->text ? w->text : w->scratch; /* strings made here live until the run ends */
	TRY(s->run(&s->call));
	for (int i = 0; i < s->call.nout && !pick; i++)
		if (s->out[i] && s->out[i]->t.kind != KIND_TENSOR)
			TRY(take_members(p, s, s->out[i], e));
	if (pick && s->out[0])
		take_pick(s);
	if (arena_used(w->scratch))
		arena_reset(w->scratch);
	return LINNET_OK;
}

static enum linnet_code run_step(struct plan *p, struct step *s, uint64_t salt, struct linnet_error *e)
{
	if (s->control)
		return control_run(p, s, e);
	TRY(decide(p, s, e));
	return s->view ? run_view(s, e) : run_kernel(p, s, salt, e);
}

/* ---- Steps run once ---- */

/* Move what is read later into the plan's memory, drop the rest. */
static enum linnet_code keep_once(struct plan *p, struct linnet_error *e)
{
	struct world *w = p->world;
	bool *read;

	TRY_NEW(read, w->scratch, p->nslot);
	for (uint32_t i = 0; i < p->graph->nout; i++)
		read[p->graph->out[i]] = true;
	for (uint32_t i = 0; i < p->nstep; i++)
		for (int k = 0; !p->step[i].once && k < p->step[i].call.nin; k++)
			if (p->step[i].in[k])
				read[p->step[i].in[k] - p->slot] = true;
	for (uint32_t v = 1; v < p->nslot; v++) {
		struct held *h = &p->slot[v];
		void *data;

		if (!p->fixed[v] || !h->block)
			continue;
		data = read[v] ? arena_dup(w->arena, h->t.data, h->t.bytes) : NULL;
		if (read[v] && !data)
			return fail_mem(e);
		held_drop(h);
		h->t.data = data;
		w->prepared_bytes += read[v] ? (int64_t)h->t.bytes : 0;
	}
	return LINNET_OK;
}

static void drop_once(struct plan *p)
{
	for (uint32_t v = 1; v < p->nslot; v++)
		if (p->fixed[v] && p->slot[v].block)
			held_drop(&p->slot[v]);
}

static enum linnet_code prime(struct plan *p, struct linnet_error *e)
{
	enum linnet_code code = LINNET_OK;

	for (uint32_t i = 0; !code && i < p->nstep; i++)
		if (p->step[i].once)
			code = err_node(e, run_step(p, &p->step[i], 0, e), step_name(p->graph, &p->step[i]), p->step[i].node->op->name);
	if (!code)
		code = keep_once(p, e);
	arena_reset(p->world->scratch);
	if (code)
		drop_once(p);
	p->primed = !code;
	return code;
}

/* ---- All steps ---- */

static bool show(struct plan *p, const struct step *s)
{
	const struct run_opt *opt = &p->world->opt;

	for (uint32_t i = 0; i < s->node->nout; i++)
		if (s->node->out[i] && s->out[i] && opt->watch(opt->watch_ctx, p->graph, s->node->out[i], &s->out[i]->t))
			return false;
	return true;
}

enum linnet_code plan_exec(struct plan *p, bool watched, bool *stopped, struct linnet_error *e)
{
	uint64_t salt = p->world->execs++ * 0xd1342543de82ef95u;

	if (!p->primed)
		TRY(prime(p, e));
	for (uint32_t i = 0; i < p->nstep; i++) {
		struct step *s = &p->step[i];
		enum linnet_code code;

		if (s->once)
			continue;
		code = run_step(p, s, salt, e);
		if (code)
			return err_node(e, code, step_name(p->graph, s), s->node->op->name);
		if (watched && p->world->opt.watch && !show(p, s)) {
			*stopped = true;
			return LINNET_OK;
		}
		for (uint32_t k = 0; k < s->ndrop; k++)
			held_drop(&p->slot[s->drop[k]]);
	}
	return LINNET_OK;
}

void plan_clear(struct plan *p)
{
	for (uint32_t v = 0; v < p->nslot; v++)
		if (p->slot[v].block)
			held_drop(&p->slot[v]);
}

/* ---- A run ---- */

/* Whether a tensor has the lengths that are numbers. */
static bool has_lengths(const struct tensor *t, const struct shape *s)
{
	if (s->rank >= 0 && t->rank != s->rank)
		return false;
	for (int k = 0; k < s->rank; k++)
		if (dim_is_int(s->d[k]) && t->d[k] != s->d[k])
			return false;
	return true;
}

/* What a caller gives is what it says, and what the model declares: members of one kind, type and shape. */
static enum linnet_code check_members(const struct tensor *t, const struct shape *declared, const char *name, struct linnet_error *e)
{
	bool map = t->kind == KIND_MAP;

	for (int64_t i = 0; i < t->n; i++) {
		const struct tensor *m = tensor_member(t, i);
		enum dtype dt = map && !i ? t->key : t->dt;

		if (m->kind != kind_member(t->kind) || m->dt != dt || m->key != (m->kind == KIND_MAP ? t->key : DT_UNDEFINED))
			return fail(e, LINNET_ETYPE, "input \"%s\": member %lld is of another type: %s instead of %s", name, (long long)i,
			            dtype_name(m->dt), dtype_name(dt));
		if (m->kind != KIND_TENSOR)
			TRY(check_members(m, declared, name, e));
		else if (!map && !has_lengths(m, declared))
			return fail(e, LINNET_ESHAPE, "input \"%s\": member %lld has not the lengths that the model declares", name, (long long)i);
	}
	if ((map && (t->n != 2 || tensor_member(t, 0)->rank != 1 || tensor_member(t, 1)->n != tensor_member(t, 0)->n)) ||
	    (kind_in(t->kind, OPTIONALS) && t->n > 1))
		return fail(e, LINNET_EUSAGE, "input \"%s\": its members do not make a value of its kind", name);
	return LINNET_OK;
}

static enum linnet_code check_input(const struct plan *p, uint32_t i, const struct tensor *t, struct linnet_error *e)
{
	const struct value *v = &p->graph->value[p->graph->in[i]];

	char found[64], declared[64];

	if (!t)
		return fail(e, LINNET_EUSAGE, "input \"%s\" is not given and has no default", v->name);
	if (t->kind != v->type.kind || t->key != v->type.key)
		return fail(e, LINNET_ETYPE, "input \"%s\" is %s; the model declares %s", v->name,
		            kind_str(&(struct type){ .kind = t->kind, .dt = t->dt, .key = t->key }, found, sizeof found),
		            kind_str(&v->type, declared, sizeof declared));
	if (v->type.dt != DT_UNDEFINED && t->dt != v->type.dt)
		return fail(e, LINNET_ETYPE, "input \"%s\" has element type %s; the model declares %s", v->name, dtype_name(t->dt),
		            dtype_name(v->type.dt));
	if (t->kind != KIND_TENSOR)
		return check_members(t, &v->type.shape, v->name, e);
	if (v->type.shape.rank >= 0 && t->rank != v->type.shape.rank)
		return fail(e, LINNET_ESHAPE, "input \"%s\" has %d dimensions; the model declares %d", v->name, t->rank,
		            v->type.shape.rank);
	return LINNET_OK;
}

static dim bound_length(void *ctx, const char *name)
{
	const struct plan *p = ctx;

	for (int i = 0; i < p->nsymbol; i++)
		if (!strcmp(p->symbol[i].name, name))
			return p->symbol[i].length;
	return DIM_NONE;
}

static enum linnet_code check_length(struct plan *p, const struct check *c, struct linnet_error *e)
{
	const struct graph *g = p->graph;
	const char *name = g->value[g->in[c->input]].name;
	int64_t n = p->slot[g->in[c->input]].t.d[c->axis];
	struct symbol *s = c->symbol >= 0 ? &p->symbol[c->symbol] : NULL;
	dim want;

	if (s && s->length == DIM_NONE) {
		*s = (struct symbol){ .name = s->name, .length = n, .input = c->input, .axis = c->axis };
		return LINNET_OK;
	}
	if (s && n != s->length)
		return fail(e, LINNET_ESHAPE, "input \"%s\" has length %lld along axis %d (%s); input \"%s\" has %lld along axis %d", name,
		            (long long)n, c->axis, s->name, g->value[g->in[s->input]].name, (long long)s->length, s->axis);
	if (s)
		return LINNET_OK;
	want = dim_is_int(c->d) ? c->d : dim_eval(g->dims, c->d, bound_length, p);
	if (want != DIM_NONE && n != want)
		return fail(e, LINNET_ESHAPE, "input \"%s\" has length %lld along axis %d; the model declares %lld", name, (long long)n,
		            c->axis, (long long)want);
	return LINNET_OK;
}

static enum linnet_code bind_inputs(struct plan *p, const struct tensor *const *in, const bool *given, struct linnet_error *e)
{
	const struct graph *g = p->graph;

	for (uint32_t i = 0; i < g->nin; i++) {
		const struct tensor *t = in[i] ? in[i] : g->value[g->in[i]].dflt;
		struct held *h = &p->slot[g->in[i]];

		if (t)
			h->t = *t;
		if (in[i] && given && given[i])
			h->block = (struct block *)(uintptr_t)in[i];
	}
	for (uint32_t i = 0; i < g->nin; i++)
		TRY(check_input(p, i, in[i] ? in[i] : g->value[g->in[i]].dflt, e));
	for (uint32_t i = 0; i < g->nin; i++) {
		struct held *h = &p->slot[g->in[i]];

		if (h->t.kind == KIND_TENSOR || h->block)
			continue;
		TRY(block_borrow(p->world->pool, in[i], &h->block, e));
		h->t = h->block->t;
	}
	for (int i = 0; i < p->nsymbol; i++)
		p->symbol[i].length = DIM_NONE;
	for (int i = 0; i < p->ncheck; i++)
		TRY(check_length(p, &p->check[i], e));
	return LINNET_OK;
}

/* An output that nobody else holds is handed over as it is, another one copied. */
static enum linnet_code hand_out(struct plan *p, struct tensor **out, struct linnet_error *e)
{
	const struct graph *g = p->graph;

	for (uint32_t i = 0; i < g->nout; i++) {
		struct held *h = &p->slot[g->out[i]];
		struct block *b = h->block;

		if (b && b->holders == 1 && h->t.kind == KIND_TENSOR && h->t.dt != DT_STRING) {
			b->t = h->t;
			h->block = NULL;
		} else {
			TRY(block_copy(p->world->pool, &h->t, &b, e));
		}
		out[i] = &b->t;
	}
	return LINNET_OK;
}

enum linnet_code plan_run_given(struct plan *p, const struct tensor *const *in, const bool *given, struct tensor **out,
                                struct linnet_error *e)
{
	const struct graph *g = p->graph;
	bool stopped = false;
	enum linnet_code code;

	for (uint32_t i = 0; i < g->nout; i++)
		out[i] = NULL;
	p->world->execs = 0;
	code = weights_settle(p->world, g->files, e);
	if (!code)
		code = bind_inputs(p, in, given, e);
	if (!code)
		code = plan_exec(p, true, &stopped, e);
	if (!code && !stopped)
		code = hand_out(p, out, e);
	plan_clear(p);
	arena_reset(p->world->scratch);
	arena_reset(p->world->text);
	for (uint32_t i = 0; code && i < g->nout; i++) {
		tensor_release(out[i]);
		out[i] = NULL;
	}
	return code;
}

enum linnet_code plan_run(struct plan *p, const struct tensor *const *in, struct tensor **out, struct linnet_error *e)
{
	return plan_run_given(p, in, NULL, out, e);
}
