/* Sessions: a plan run again and again, its states handed from one run to the next. */
#include <string.h>

#include "runtime/plan.h"

struct state {
	struct state_pair name;
	uint32_t in, out; /* which graph input and output */
	struct tensor *t; /* what the next run gets; NULL: zeros */
};

struct session {
	struct arena *arena;
	const struct graph *graph;
	struct plan *plan;
	struct state *state;
	int nstate;
	const struct tensor **in; /* of one run: all graph inputs */
	bool *given;              /* which of them are states */
	struct tensor **out;
	bool *kept;               /* which graph outputs are states */
};

/* ---- Pairs ---- */

/* The output an input's name asks for; NULL when it is not named like a state. */
static const char *output_name(struct arena *a, const char *input)
{
	static const struct {
		const char *past, *present;
	} forms[] = { { "past_key_values.", "present." }, { "past_", "present_" }, { "position", "present_position" } };

	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		if (!strncmp(input, forms[i].past, strlen(forms[i].past)) && (i < 2 || !strcmp(input, forms[i].past)))
			return arena_fmt(a, "%s%s", forms[i].present, input + strlen(forms[i].past));
	return NULL;
}

static enum linnet_code add_pair(struct session *s, uint32_t in, uint32_t out, struct linnet_error *e)
{
	const struct value *a = &s->graph->value[s->graph->in[in]], *b = &s->graph->value[s->graph->out[out]];

	if (s->given[in] || s->kept[out])
		return fail(e, LINNET_EUSAGE, "state \"%s\" from \"%s\": one of them belongs to another state", a->name, b->name);
	if (a->type.kind != KIND_TENSOR || b->type.kind != KIND_TENSOR)
		return fail(e, LINNET_EUNSUPPORTED, "state \"%s\" from \"%s\": only tensors are kept", a->name, b->name);
	if (a->type.dt != DT_UNDEFINED && b->type.dt != DT_UNDEFINED && a->type.dt != b->type.dt)
		return fail(e, LINNET_ETYPE, "state \"%s\" is %s but \"%s\" is %s", a->name, dtype_name(a->type.dt), b->name,
		            dtype_name(b->type.dt));
	s->given[in] = s->kept[out] = true;
	s->state[s->nstate++] = (struct state){ .name = { a->name, b->name }, .in = in, .out = out };
	return LINNET_OK;
}

static enum linnet_code find_pairs(struct session *s, struct linnet_error *e)
{
	const struct graph *g = s->graph;

	for (uint32_t i = 0; i < g->nin; i++) {
		const char *name = output_name(s->arena, g->value[g->in[i]].name);
		int out = name ? values_find(g, g->out, g->nout, name) : -1;

		if (out >= 0 && g->value[g->in[i]].type.kind == KIND_TENSOR && g->value[g->out[out]].type.kind == KIND_TENSOR)
			TRY(add_pair(s, i, (uint32_t)out, e));
	}
	return LINNET_OK;
}

static enum linnet_code take_pairs(struct session *s, const struct state_pair *pair, int npair, struct linnet_error *e)
{
	const struct graph *g = s->graph;

	for (int i = 0; i < npair; i++) {
		int in = values_find(g, g->in, g->nin, pair[i].input), out = values_find(g, g->out, g->nout, pair[i].output);

		if (in < 0)
			return fail(e, LINNET_EUSAGE, "the model has no input \"%s\" to keep a state", pair[i].input);
		if (out < 0)
			return fail(e, LINNET_EUSAGE, "the model has no output \"%s\" to take a state from", pair[i].output);
		TRY(add_pair(s, (uint32_t)in, (uint32_t)out, e));
	}
	return LINNET_OK;
}

static enum linnet_code session_fill(struct session *s, const struct run_opt *opt, const struct state_pair *pair, int npair,
                                     struct linnet_error *e)
{
	const struct graph *g = s->graph;

	TRY_NEW(s->state, s->arena, g->nin);
	TRY_NEW(s->in, s->arena, g->nin);
	TRY_NEW(s->given, s->arena, g->nin);
	TRY_NEW(s->out, s->arena, g->nout);
	TRY_NEW(s->kept, s->arena, g->nout);
	if (npair)
		TRY(take_pairs(s, pair, npair, e));
	else
		TRY(find_pairs(s, e));
	return plan_new(g, opt, &s->plan, e);
}

enum linnet_code session_new(const struct graph *g, const struct run_opt *opt, const struct state_pair *pair, int npair,
                             struct session **out, struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct session *s = a ? NEW(a, 1, struct session) : NULL;
	enum linnet_code code;

	*out = NULL;
	if (!s) {
		arena_free(a);
		return fail_mem(e);
	}
	s->arena = a;
	s->graph = g;
	code = session_fill(s, opt, pair, npair, e);
	if (code)
		session_free(s);
	else
		*out = s;
	return code;
}

void session_reset(struct session *s)
{
	for (int i = 0; i < s->nstate; i++) {
		tensor_release(s->state[i].t);
		s->state[i].t = NULL;
	}
}

void session_free(struct session *s)
{
	if (!s)
		return;
	session_reset(s);
	plan_free(s->plan);
	arena_free(s->arena);
}

/* ---- States ---- */

/* The length a symbol has in the inputs that are there, else 0. */
static dim symbol_length(void *ctx, const char *name)
{
	const struct session *s = ctx;
	const struct graph *g = s->graph;
	dim d = dim_symbol(g->dims, name);

	for (uint32_t i = 0; i < g->nin; i++) {
		const struct shape *shape = &g->value[g->in[i]].type.shape;

		for (int k = 0; s->in[i] && k < shape->rank && k < s->in[i]->rank; k++)
			if (shape->d[k] == d)
				return s->in[i]->d[k];
	}
	return 0;
}

static enum linnet_code zero_state(struct session *s, struct state *state, struct linnet_error *e)
{
	const struct value *v = &s->graph->value[s->graph->in[state->in]];
	int64_t d[MAX_RANK];

	if (v->type.dt == DT_UNDEFINED || v->type.shape.rank < 0)
		return fail(e, LINNET_EUSAGE, "state \"%s\" has no declared type and shape; its first value must be given", v->name);
	for (int i = 0; i < v->type.shape.rank; i++) {
		dim n = v->type.shape.d[i];

		if (!dim_is_int(n))
			n = n == DIM_NONE ? 0 : dim_eval(s->graph->dims, n, symbol_length, s);
		d[i] = n > 0 ? n : 0;
	}
	return tensor_make(v->type.dt, v->type.shape.rank, d, &state->t, e);
}

enum linnet_code session_run(struct session *s, const struct tensor *const *in, struct tensor **out, struct linnet_error *e)
{
	const struct graph *g = s->graph;
	enum linnet_code code = LINNET_OK;
	uint32_t n = 0;

	for (uint32_t i = 0; i < g->nin; i++)
		s->in[i] = s->given[i] ? NULL : in[n++];
	for (int i = 0; i < s->nstate; i++)
		s->in[s->state[i].in] = s->state[i].t;
	for (int i = 0; !code && i < s->nstate; i++) {
		struct state *state = &s->state[i];

		if (!state->t)
			code = zero_state(s, state, e);
	}
	n = 0;
	for (uint32_t i = 0; i < g->nout; i++)
		if (!s->kept[i])
			out[n++] = NULL;
	if (code) {
		session_reset(s);
		return code;
	}
	for (int i = 0; i < s->nstate; i++) {
		s->in[s->state[i].in] = s->state[i].t;
		s->state[i].t = NULL;
	}
	TRY(plan_run_given(s->plan, s->in, s->given, s->out, e));
	for (int i = 0; i < s->nstate; i++)
		s->state[i].t = s->out[s->state[i].out];
	n = 0;
	for (uint32_t i = 0; i < g->nout; i++)
		if (!s->kept[i])
			out[n++] = s->out[i];
	return LINNET_OK;
}

enum linnet_code session_set_state(struct session *s, int i, const struct tensor *t, struct linnet_error *e)
{
	struct block *b;

	TRY(block_copy(plan_pool(s->plan), t, &b, e));
	tensor_release(s->state[i].t);
	s->state[i].t = &b->t;
	return LINNET_OK;
}

int session_nin(const struct session *s) { return (int)s->graph->nin - s->nstate; }
int session_nout(const struct session *s) { return (int)s->graph->nout - s->nstate; }
int session_nstate(const struct session *s) { return s->nstate; }
struct state_pair session_pair(const struct session *s, int i) { return s->state[i].name; }
const struct tensor *session_state(const struct session *s, int i) { return s->state[i].t; }
struct plan *session_plan(struct session *s) { return s->plan; }

int64_t session_state_bytes(const struct session *s)
{
	int64_t n = 0;

	for (int i = 0; i < s->nstate; i++)
		n += s->state[i].t ? (int64_t)s->state[i].t->bytes : 0;
	return n;
}
