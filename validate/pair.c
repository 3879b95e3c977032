/* Two models on the same inputs: whole against whole, and whole against step by step. */
#include <string.h>

#include "graph/pass.h"
#include "validate/validate.h"

enum { NO_INPUT = -1, POSITION = -2 }; /* instead of an input of a */

struct pair {
	const struct side *a, *b;
	const struct pair_opt *opt;
	struct pair_report *report;
	struct arena *scratch;   /* of one case */
	struct plan *plan;       /* of a */
	struct plan *whole;      /* of b, or */
	struct session *session; /* of b, when it is a step model */
	bool cut;                /* b gets the sequence in pieces */
	int64_t piece;           /* so many tokens each; 0: any number */
	int axis;                /* of tokens, where no symbol tells */
	dim tokens;              /* the symbol of a's inputs that counts them, or DIM_NONE */
	int *from;               /* of each input of b that is no state, which input of a */
	uint32_t *bin, nbin;     /* inputs of b that are no states */
	int *to;                 /* of each output of b that is no state, which member of report->out, or -1 */
	uint32_t *to_a;          /* of each member of report->out, which output of a */
	uint32_t nbout;
};

static bool counts_tokens(const char *name)
{
	return !strcmp(name, "position") || !strcmp(name, "position_ids") || !strcmp(name, "cache_position");
}

static bool is_state(const struct pair *p, const char *name, bool input)
{
	for (int i = 0; p->session && i < session_nstate(p->session); i++) {
		struct state_pair s = session_pair(p->session, i);

		if (!strcmp(name, input ? s.input : s.output))
			return true;
	}
	return false;
}

/* ---- Which input and output is which ---- */

static enum linnet_code match_inputs(struct pair *p, struct linnet_error *e)
{
	const struct graph *a = p->a->g, *b = p->b->g;

	TRY_NEW(p->from, p->scratch, b->nin);
	TRY_NEW(p->bin, p->scratch, b->nin);
	for (uint32_t i = 0; i < b->nin; i++) {
		const struct value *v = &b->value[b->in[i]];
		int k = values_find(a, a->in, a->nin, v->name);

		if (is_state(p, v->name, true))
			continue;
		if (k == NO_INPUT && counts_tokens(v->name))
			k = POSITION;
		if (k == NO_INPUT && !v->has_default)
			return fail(e, LINNET_ETYPE, "the second model's input \"%s\" is none of the first model's", v->name);
		if (k >= 0 && a->value[a->in[k]].type.dt != v->type.dt)
			return fail(e, LINNET_ETYPE, "input \"%s\" is %s in the first model and %s in the second", v->name,
			            dtype_name(a->value[a->in[k]].type.dt), dtype_name(v->type.dt));
		p->from[p->nbin] = k;
		p->bin[p->nbin++] = i;
	}
	return LINNET_OK;
}

static enum linnet_code match_outputs(struct pair *p, struct arena *arena, struct linnet_error *e)
{
	const struct graph *a = p->a->g, *b = p->b->g;
	struct pair_report *r = p->report;

	TRY_NEW(p->to, p->scratch, b->nout);
	TRY_NEW(p->to_a, p->scratch, b->nout);
	TRY_NEW(r->out, arena, b->nout);
	for (uint32_t i = 0; i < b->nout; i++) {
		const char *name = b->value[b->out[i]].name;
		int k = values_find(a, a->out, a->nout, name);

		if (is_state(p, name, false))
			continue;
		if (k >= 0) {
			name = arena_str(arena, name);
			if (!name)
				return fail_mem(e);
			diff_init(&r->out[r->nout], name);
			p->to_a[r->nout] = (uint32_t)k;
		}
		p->to[p->nbout++] = k >= 0 ? (int)r->nout++ : -1;
	}
	return r->nout ? LINNET_OK : fail(e, LINNET_ETYPE, "the models have no output in common");
}

/* ---- Pieces along an axis ---- */

/* The part [at, at + n) of t along an axis, in the scratch arena. */
static enum linnet_code piece(struct arena *scratch, const struct tensor *t, int axis, int64_t at, int64_t n,
                              const struct tensor **out, struct linnet_error *e)
{
	int64_t d[MAX_RANK] = { 0 }, outer = 1, inner = 1;
	struct tensor *part;

	memcpy(d, t->d, sizeof d);
	d[axis] = n;
	TRY(tensor_new(scratch, t->dt, t->rank, d, &part, e));
	for (int i = 0; i < t->rank; i++) {
		outer *= i < axis ? t->d[i] : 1;
		inner *= i > axis ? t->d[i] : 1;
	}
	if (dtype_bits(t->dt) % 8)
		return fail(e, LINNET_EUNSUPPORTED, "%s tensors are not cut into pieces", dtype_name(t->dt));
	size_t row = (size_t)inner * (dtype_bits(t->dt) / 8);

	for (int64_t i = 0; i < outer; i++)
		if (n && row)
			memcpy((char *)part->data + (size_t)(i * n) * row, (const char *)t->data + (size_t)(i * t->d[axis] + at) * row,
			       (size_t)n * row);
	*out = part;
	return LINNET_OK;
}

/* The axis of tokens of t, which a has as value v; -1: it has none. */
static int along(const struct pair *p, value_id v, const struct tensor *t, int64_t tokens)
{
	const struct shape *s = &p->a->g->value[v].type.shape;

	if (p->tokens == DIM_NONE || s->rank != t->rank)
		return t->rank > p->axis && t->d[p->axis] == tokens ? p->axis : -1;
	for (int i = 0; i < s->rank; i++)
		if (s->d[i] == p->tokens)
			return i;
	return -1;
}

/* Some state of b has it in its lengths, as it has those of batches. */
static bool in_states(const struct pair *p, const char *name)
{
	const struct graph *b = p->b->g;
	dim symbol = dim_symbol(b->dims, name);

	for (uint32_t i = 0; i < b->nin; i++) {
		const struct value *v = &b->value[b->in[i]];

		if (is_state(p, v->name, true) && shape_has(b->dims, &v->type.shape, symbol))
			return true;
	}
	return false;
}

/* By how much a state of b grows in a run, as its number of tokens so far does: position + Shape(...). DIM_NONE: no state counts so. */
static dim growth(const struct pair *p)
{
	const struct graph *b = p->b->g;

	for (int i = 0; i < session_nstate(p->session); i++) {
		struct state_pair s = session_pair(p->session, i);
		const struct node *sum = value_from(b, b->out[values_find(b, b->out, b->nout, s.output)], "Add");

		for (uint32_t k = 0; sum && k < 2; k++) {
			dim by = value_length(b, sum->in[1 - k]);

			if (sum->in[k] == b->in[values_find(b, b->in, b->nin, s.input)] && by != DIM_NONE)
				return by;
		}
	}
	return DIM_NONE;
}

/* How much speaks for a symbol that is length k of an input of a being that of tokens; 0: some state has it. */
static int likely(const struct pair *p, dim symbol, int k)
{
	const struct graph *a = p->a->g;
	int n = 1 + (k == 1);

	if (in_states(p, dim_name(a->dims, symbol)))
		return 0;
	for (uint32_t i = 0; i < p->report->nout; i++)
		if (shape_has(a->dims, &a->value[a->out[p->to_a[i]]].type.shape, symbol))
			return n + 2;
	return n;
}

/* The symbol that counts tokens, by itself a length of inputs that both have: what b counts by, else the most likely. DIM_NONE: their number is fixed, or nothing tells. */
static dim find_tokens(const struct pair *p, dim grows)
{
	const struct graph *a = p->a->g, *b = p->b->g;
	dim found = DIM_NONE;
	int most = 0;

	for (uint32_t i = 0; i < p->nbin; i++) {
		const struct shape *s = p->from[i] >= 0 ? &a->value[a->in[p->from[i]]].type.shape : NULL,
		                   *t = &b->value[b->in[p->bin[i]]].type.shape;

		for (int k = 0; s && k < s->rank && s->rank == t->rank; k++) {
			if (!dim_name(a->dims, s->d[k]))
				continue;
			int n = grows == DIM_NONE || t->d[k] == grows ? likely(p, s->d[k], k) : 0;

			if (n > most) {
				found = s->d[k];
				most = n;
			}
		}
	}
	return found;
}

/* Numbers of tokens [at, at + n) in the shape that the input declares: its last axis counts tokens, or is 1 long for their first. */
static enum linnet_code positions(const struct pair *p, const struct value *v, int64_t batch, int64_t at, int64_t n,
                                  const struct tensor **out, struct linnet_error *e)
{
	const struct shape *s = &v->type.shape;
	int64_t d[MAX_RANK] = { 0 };
	struct tensor *t;

	if (s->rank < 0 || s->rank > 2)
		return fail(e, LINNET_EUNSUPPORTED, "input \"%s\" should have rank 0, 1 or 2", v->name);
	for (int i = 0; i < s->rank; i++)
		d[i] = dim_is_int(s->d[i]) ? s->d[i] : i == s->rank - 1 ? n : batch;
	TRY(tensor_new(p->scratch, v->type.dt, s->rank, d, &t, e));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put_int(t, i, at + (s->rank ? i % d[s->rank - 1] : 0));
	*out = t;
	return LINNET_OK;
}

/* ---- One case ---- */

static enum linnet_code inputs_of_b(const struct pair *p, const struct tensor *const *ain, int64_t tokens, int64_t at, int64_t n,
                                    const struct tensor **in, struct linnet_error *e)
{
	int64_t batch = 1;

	for (uint32_t i = 0; i < p->a->g->nin; i++) {
		int axis = ain[i] && p->cut ? along(p, p->a->g->in[i], ain[i], tokens) : -1;

		if (axis >= 0 && ain[i]->rank > 1)
			batch = ain[i]->d[axis == 0];
	}
	for (uint32_t i = 0; i < p->nbin; i++) {
		const struct value *v = &p->b->g->value[p->b->g->in[p->bin[i]]];

		int axis;

		in[i] = p->from[i] >= 0 ? ain[p->from[i]] : NULL;
		axis = p->cut && in[i] ? along(p, p->a->g->in[p->from[i]], in[i], tokens) : -1;
		if (p->from[i] == POSITION)
			TRY(positions(p, v, batch, at, n, &in[i], e));
		else if (axis >= 0)
			TRY(piece(p->scratch, in[i], axis, at, n, &in[i], e));
	}
	return LINNET_OK;
}

static enum linnet_code compare_outputs(struct pair *p, struct tensor *const *aout, struct tensor *const *bout, int64_t tokens,
                                        int64_t at, int64_t n, struct linnet_error *e)
{
	for (uint32_t i = 0; i < p->nbout; i++) {
		const struct tensor *a;
		int axis;

		if (p->to[i] < 0)
			continue;
		a = aout[p->to_a[p->to[i]]];
		axis = p->cut ? along(p, p->a->g->out[p->to_a[p->to[i]]], a, tokens) : -1;
		if (axis >= 0)
			TRY(piece(p->scratch, a, axis, at, n, &a, e));
		else if (at + n < tokens)
			continue;
		diff_add(&p->report->out[p->to[i]], a, bout[i], &p->opt->tolerance);
	}
	return LINNET_OK;
}

static enum linnet_code run_piece(struct pair *p, const struct tensor *const *ain, struct tensor *const *aout, int64_t tokens,
                                  int64_t at, int64_t n, struct linnet_error *e)
{
	const struct tensor **in;
	struct tensor **out;
	enum linnet_code code;

	TRY_NEW(in, p->scratch, p->nbin);
	TRY_NEW(out, p->scratch, p->nbout);
	TRY(inputs_of_b(p, ain, tokens, at, n, in, e));
	if (p->session)
		TRY(session_run(p->session, in, out, e));
	else
		TRY(plan_run(p->whole, in, out, e));
	code = compare_outputs(p, aout, out, tokens, at, n, e);
	for (uint32_t i = 0; i < p->nbout; i++)
		tensor_release(out[i]);
	return code;
}

/* The longest token axis among a's inputs; they share its length. */
static int64_t count_tokens(const struct pair *p, const struct tensor *const *ain)
{
	int64_t n = 0;

	for (uint32_t i = 0; i < p->a->g->nin && p->tokens != DIM_NONE; i++) {
		int axis = ain[i] ? along(p, p->a->g->in[i], ain[i], 0) : -1;

		if (axis >= 0)
			return ain[i]->d[axis];
	}
	for (uint32_t i = 0; i < p->a->g->nin; i++)
		if (ain[i] && ain[i]->rank > p->axis && !dim_is_int(p->a->g->value[p->a->g->in[i]].type.shape.d[p->axis]) &&
		    ain[i]->d[p->axis] > n)
			n = ain[i]->d[p->axis];
	return n;
}

static enum linnet_code run_b(struct pair *p, const struct tensor *const *ain, struct tensor *const *aout, int number,
                              struct rng *r, struct linnet_error *e)
{
	int64_t tokens = p->cut ? count_tokens(p, ain) : 0, n;

	if (p->session)
		session_reset(p->session);
	if (!tokens) /* or the number of tokens is fixed: no piece would fit */
		return run_piece(p, ain, aout, 1, 0, 1, e);
	for (int64_t at = 0; at + p->piece <= tokens && at < tokens; at += n) {
		n = p->piece ? p->piece : number % 2 ? 1 + (int64_t)rng_below(r, (uint64_t)(tokens - at)) : 1;
		TRY(run_piece(p, ain, aout, tokens, at, n, e));
	}
	return LINNET_OK;
}

static bool all_agree(const struct pair *p)
{
	for (uint32_t i = 0; i < p->report->nout; i++)
		if (!diff_agrees(&p->report->out[i], &p->opt->tolerance))
			return false;
	return true;
}

static enum linnet_code run_case(struct pair *p, int number, struct arena *arena, struct linnet_error *e)
{
	const struct graph *g = p->a->g;
	struct rng r = { .state = (p->opt->seed ? p->opt->seed : 1) + (uint64_t)number };
	struct gen_opt gen = p->opt->gen;
	const struct tensor **in, **bin;
	struct tensor **out;
	enum linnet_code code;

	if (!gen.length)
		gen.length = number ? 1 + (int64_t)rng_below(&r, 16) : 8;
	if (!gen.batch)
		gen.batch = number ? 1 + (int64_t)rng_below(&r, 3) : 2;
	TRY_NEW(in, p->scratch, g->nin);
	TRY_NEW(bin, p->scratch, p->b->g->nin);
	TRY_NEW(out, p->scratch, g->nout);
	for (uint32_t i = 0; p->opt->given && i < g->nin; i++)
		in[i] = p->opt->given[i];
	TRY(gen_inputs(g, &gen, &r, p->scratch, in, e));
	TRY(plan_run(p->plan, in, out, e));
	code = run_b(p, in, out, number, &r, e);
	for (uint32_t i = 0; i < g->nout; i++)
		tensor_release(out[i]);
	p->report->agree = !code && all_agree(p);
	if (!code && !p->report->agree && !p->report->where.found && !p->report->steps) {
		code = inputs_of_b(p, in, 1, 0, 1, bin, e);
		if (!code)
			code = locate(p->a, in, p->b, bin, &p->opt->tolerance, arena, &p->report->where, e);
	}
	return code;
}

static enum linnet_code run_cases(struct pair *p, struct arena *arena, struct linnet_error *e)
{
	int cases = p->opt->cases > 0 ? p->opt->cases : 16;
	struct arena *names = p->scratch;
	enum linnet_code code = LINNET_OK;

	p->scratch = arena_new();
	if (!p->scratch) {
		p->scratch = names;
		return fail_mem(e);
	}
	for (int i = 0; i < cases && !code; i++) {
		if (p->opt->progress)
			p->opt->progress(p->opt->progress_ctx, i, cases);
		code = run_case(p, i, arena, e);
		p->report->cases += !code;
		arena_reset(p->scratch);
	}
	arena_free(p->scratch);
	p->scratch = names;
	return code;
}

static enum linnet_code prepare(struct pair *p, struct linnet_error *e)
{
	TRY(session_new(p->b->g, &p->b->run, NULL, 0, &p->session, e));
	for (int i = 0; i < session_nstate(p->session); i++)
		p->report->steps |= values_find(p->a->g, p->a->g->in, p->a->g->nin, session_pair(p->session, i).input) == NO_INPUT;
	if (p->report->steps)
		return LINNET_OK;
	session_free(p->session); /* nothing is fed back: both models get what is drawn for their states */
	p->session = NULL;
	return plan_new(p->b->g, &p->b->run, &p->whole, e);
}

/* Of tokens, unless it is given; where b counts a fixed number of them in a run and a's is fixed too there are no pieces. */
static void choose_axis(struct pair *p)
{
	dim grows = growth(p);

	p->cut = true;
	if (dim_is_int(grows) && grows > 0)
		p->piece = grows;
	if (p->opt->axis > 0)
		return;
	p->tokens = find_tokens(p, grows);
	if (dim_is_int(grows))
		p->cut = p->tokens != DIM_NONE;
	else if (p->tokens == DIM_NONE)
		p->tokens = find_tokens(p, DIM_NONE);
}

enum linnet_code pair_compare(const struct side *a, const struct side *b, const struct pair_opt *opt, struct arena *arena,
                              struct pair_report *report, struct linnet_error *e)
{
	struct pair p = { .a = a, .b = b, .opt = opt, .report = report, .axis = opt->axis > 0 && opt->axis < MAX_RANK ? opt->axis : 1, .tokens = DIM_NONE };
	enum linnet_code code;

	memset(report, 0, sizeof *report);
	p.scratch = arena_new();
	if (!p.scratch)
		return fail_mem(e);
	code = prepare(&p, e);
	if (!code)
		code = match_inputs(&p, e);
	if (!code)
		code = match_outputs(&p, arena, e);
	if (!code && report->steps)
		choose_axis(&p);
	if (!code)
		code = plan_new(a->g, &a->run, &p.plan, e);
	if (!code)
		code = run_cases(&p, arena, e);
	plan_free(p.plan);
	plan_free(p.whole);
	session_free(p.session);
	arena_free(p.scratch);
	return code;
}
