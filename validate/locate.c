/* The first value at which two graphs part. */
#include <string.h>

#include "validate/validate.h"

/* One value that a computed. */
struct seen {
	const char *name;
	const struct op *op;
	uint32_t turn; /* this is the turn-th output of nodes of that operator */
	const struct tensor *t;
};

struct recording {
	struct arena *arena;
	struct seen *v;
	uint32_t n;
	struct linnet_error *e;
	enum linnet_code code;
};

struct comparing {
	const struct recording *a;
	const struct tolerance *tolerance;
	struct seen *v; /* operators counted so far; t is not set */
	uint32_t n;
	struct location *out;
};

static const struct op *op_of(const struct graph *g, value_id v)
{
	return g->value[v].kind == VALUE_NODE ? g->node[g->value[v].producer].op : NULL;
}

/* How many of the n values before came from that operator. */
static uint32_t turn_of(const struct seen *v, uint32_t n, const struct op *op)
{
	for (uint32_t i = n; i > 0; i--)
		if (v[i - 1].op && op && !strcmp(v[i - 1].op->name, op->name))
			return v[i - 1].turn + 1;
	return 0;
}

static int record(void *ctx, const struct graph *g, value_id v, const struct tensor *t)
{
	struct recording *r = ctx;
	const struct op *op = op_of(g, v);
	struct tensor *copy;

	r->code = tensor_dup(r->arena, t, &copy, r->e);
	if (r->code)
		return 1;
	r->v[r->n] = (struct seen){ g->value[v].name, op, turn_of(r->v, r->n, op), copy };
	r->n++;
	return 0;
}

static const struct seen *counterpart(const struct comparing *c, const char *name, const struct op *op, uint32_t turn,
                                      const struct tensor *t)
{
	const struct seen *by_turn = NULL;
	struct shape shape = shape_of(t);

	for (uint32_t i = 0; i < c->a->n; i++) {
		const struct seen *s = &c->a->v[i];
		struct shape other = shape_of(s->t);
		bool fits = s->t->dt == t->dt && s->t->kind == t->kind && shape_equal(&shape, &other);

		if (!strcmp(s->name, name))
			return fits ? s : NULL;
		if (fits && op && s->op && s->turn == turn && !strcmp(s->op->name, op->name))
			by_turn = s;
	}
	return by_turn;
}

static int check(void *ctx, const struct graph *g, value_id v, const struct tensor *t)
{
	struct comparing *c = ctx;
	struct location *out = c->out;
	const struct op *op = op_of(g, v);
	uint32_t turn = turn_of(c->v, c->n, op);
	const struct seen *s = counterpart(c, g->value[v].name, op, turn, t);

	c->v[c->n++] = (struct seen){ g->value[v].name, op, turn, NULL };
	if (!s)
		return 0;
	diff_init(&out->diff, g->value[v].name);
	diff_add(&out->diff, s->t, t, c->tolerance);
	if (diff_agrees(&out->diff, c->tolerance)) {
		out->same++;
		return 0;
	}
	out->found = true;
	out->value = g->value[v].name;
	out->a_value = s->name;
	out->op = op ? op->name : "";
	out->node = op ? node_label(g, &g->node[g->value[v].producer]) : "";
	return 1;
}

static enum linnet_code run(const struct side *s, const struct tensor *const *in,
                            int (*watch)(void *, const struct graph *, value_id, const struct tensor *), void *ctx,
                            struct arena *scratch, struct linnet_error *e)
{
	struct run_opt opt = s->run;
	struct tensor **out;
	struct plan *p;
	enum linnet_code code;

	opt.watch = watch;
	opt.watch_ctx = ctx;
	TRY_NEW(out, scratch, s->g->nout);
	TRY(plan_new(s->g, &opt, &p, e));
	code = plan_run(p, in, out, e);
	for (uint32_t i = 0; i < s->g->nout; i++)
		tensor_release(out[i]);
	plan_free(p);
	return code;
}

static enum linnet_code both(const struct side *a, const struct tensor *const *ain, const struct side *b,
                             const struct tensor *const *bin, const struct tolerance *t, struct arena *scratch, struct location *out,
                             struct linnet_error *e)
{
	struct recording r = { .arena = scratch, .e = e };
	struct comparing c = { .a = &r, .tolerance = t, .out = out };

	TRY_NEW(r.v, scratch, a->g->nvalue);
	TRY_NEW(c.v, scratch, b->g->nvalue);
	TRY(run(a, ain, record, &r, scratch, e));
	return r.code ? r.code : run(b, bin, check, &c, scratch, e);
}

enum linnet_code locate(const struct side *a, const struct tensor *const *ain, const struct side *b,
                        const struct tensor *const *bin, const struct tolerance *t, struct arena *arena, struct location *out,
                        struct linnet_error *e)
{
	struct arena *scratch = arena_new();
	enum linnet_code code;

	memset(out, 0, sizeof *out);
	if (!scratch)
		return fail_mem(e);
	code = both(a, ain, b, bin, t, scratch, out, e);
	if (!code && out->found) {
		out->value = arena_str(arena, out->value);
		out->a_value = arena_str(arena, out->a_value);
		out->node = arena_str(arena, out->node);
		out->op = arena_str(arena, out->op);
		out->diff.name = out->value;
		if (!out->value || !out->a_value || !out->node || !out->op)
			code = fail_mem(e);
	}
	arena_free(scratch);
	return code;
}
