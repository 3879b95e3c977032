/* Constants computed once: nodes whose outputs are known become constants. Needs types. */
#include "graph/pass.h"

/*
 * What is larger is folded only when it replaces constants at least as large that nothing else uses: elements, when the graph is to be
 * run; bytes, when it is to be written and must not grow, as many as a node takes in a file.
 */
enum { SMALL_TO_RUN = 1 << 16, SMALL_TO_WRITE = 128 };

/* Whether every element is a known integer. */
static bool ints_known(const struct type *t)
{
	int n = type_nsym(t);

	for (int i = 0; i < n; i++)
		if (!dim_is_int(t->sym[i]))
			return false;
	return n >= 0 && dtype_in(t->dt, INTS);
}

/* A tensor of known elements. */
static enum linnet_code from_sym(struct graph *g, const struct type *t, const struct tensor **out, struct linnet_error *e)
{
	int64_t n = t->shape.rank ? t->shape.d[0] : 1;
	struct tensor *x;

	TRY(tensor_new(g->arena, t->dt, t->shape.rank, &n, &x, e));
	for (int64_t i = 0; i < n; i++)
		tensor_put_int(x, i, t->sym[i]);
	*out = x;
	return LINNET_OK;
}

/* Whether a node's results may take its place. */
static bool fits(const struct graph *g, const struct uses *u, const struct node *n, bool written)
{
	int64_t freed = 0, size = 0, small = written ? SMALL_TO_WRITE : SMALL_TO_RUN;

	for (uint32_t i = 0; i < n->nin; i++) {
		const struct tensor *t = value_const(g, n->in[i]);

		if (t && g->value[n->in[i]].kind == VALUE_CONST && uses_of(u, n->in[i]) == 1)
			freed += written ? (int64_t)t->bytes : t->n;
	}
	for (uint32_t i = 0; i < n->nout; i++) {
		const struct type *t = n->out[i] ? &g->value[n->out[i]].type : NULL;
		dim count;

		if (!t)
			continue;
		if (t->kind != KIND_TENSOR || !shape_known(&t->shape))
			return false;
		count = shape_count(g->dims, &t->shape, 0, MAX_RANK);
		if (!dim_is_int(count))
			return false;
		if (written && __builtin_mul_overflow(count, (int64_t)(dtype_bits(t->dt) + 7) / 8, &count))
			return false;
		if (count > freed + small || __builtin_add_overflow(size, count, &size))
			return false;
	}
	return size <= small || size <= freed;
}

/* Whether there is anything to look at: of most nodes nothing is constant. */
static bool may_fold(const struct graph *g, const struct node *n)
{
	bool constant = n->known && n->op->kernel;

	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i] && (g->value[n->out[i]].type.value || ints_known(&g->value[n->out[i]].type)))
			return true;
	for (uint32_t i = 0; constant && i < n->nin; i++)
		constant = !n->in[i] || value_const(g, n->in[i]);
	return constant;
}

/* Evaluate a node of constants. */
static enum linnet_code evaluate(struct graph *g, const struct node *n, struct tensor **out, bool *done, struct linnet_error *e)
{
	const struct tensor **in;
	struct linnet_error quiet = { 0 };
	bool *wanted;
	enum linnet_code code;

	*done = false;
	if (!n->known || !n->op->kernel || n->op->flags & OP_CONTROL || n->op->agree == AGREE_RANDOM)
		return LINNET_OK;
	TRY_NEW(in, g->arena, n->nin);
	TRY_NEW(wanted, g->arena, n->nout);
	for (uint32_t i = 0; i < n->nin; i++) {
		if (!n->in[i])
			continue;
		in[i] = value_const(g, n->in[i]);
		if (!in[i])
			return LINNET_OK;
	}
	for (uint32_t i = 0; i < n->nout; i++)
		wanted[i] = n->out[i] != 0;
	code = op_eval(n->op, n->attr, (int)n->nin, in, (int)n->nout, wanted, g->arena, out, &quiet);
	*done = code == LINNET_OK;
	return code == LINNET_EMEM ? fail_mem(e) : LINNET_OK; /* other failures are the run's to report */
}

static enum linnet_code fold_graph(struct graph *g, bool written, uint32_t *count, struct linnet_error *e)
{
	struct arena *s;
	struct uses u;
	node_id *order, first = 1;
	uint32_t n = 0;
	enum linnet_code code;

	while (first < g->nnode && (g->node[first].dead || !may_fold(g, &g->node[first])))
		first++;
	if (first == g->nnode)
		return LINNET_OK;
	s = arena_new();
	code = s ? graph_order(g, s, &order, &n, e) : fail_mem(e);
	if (!code)
		code = graph_uses(g, s, &u, e);
	for (uint32_t i = 0; !code && i < n; i++) {
		struct node *node = &g->node[order[i]];
		struct tensor *out[8] = { NULL };
		bool all = node->nout <= 8, done = false, some = false;

		if (!may_fold(g, node) || (written && !fits(g, &u, node, written)))
			continue;
		for (uint32_t k = 0; all && k < node->nout && !code; k++) {
			const struct type *t = node->out[k] ? &g->value[node->out[k]].type : NULL;
			const struct tensor *known = t ? t->value : NULL;

			if (t && !known && ints_known(t))
				code = from_sym(g, t, &known, e);
			some = some || known;
			all = !t || known;
			out[k] = (struct tensor *)(uintptr_t)known;
		}
		if (!code && !(all && some) && node->nout <= 8 && (written || fits(g, &u, node, written))) {
			code = evaluate(g, node, out, &done, e);
			all = some = done;
		}
		if (code || !all || !some)
			continue;
		node->dead = true;
		++*count;
		for (uint32_t k = 0; k < node->nout; k++) {
			struct value *v = node->out[k] ? &g->value[node->out[k]] : NULL;

			if (!v)
				continue;
			v->kind = VALUE_CONST;
			v->producer = 0;
			v->origin = NULL; /* what the file said of the node's output is not about a constant */
			if (v->type.value != out[k])
				graph_types_change(g);
			v->type = (struct type){ .dt = out[k]->dt, .shape = shape_of(out[k]), .value = out[k] };
		}
	}
	arena_free(s);
	return code;
}

static enum linnet_code fold_run(struct graph *g, uint32_t *count, struct linnet_error *e) { return fold_graph(g, false, count, e); }
static enum linnet_code fold_small_run(struct graph *g, uint32_t *count, struct linnet_error *e) { return fold_graph(g, true, count, e); }

const struct pass fold_small_pass = { .name = "fold", .doc = "Compute constants once where that makes the model no larger", .kind = PASS_EXACT,
	                              .run = fold_small_run };
const struct pass fold_pass = { .name = "fold", .doc = "Compute constants once", .kind = PASS_EXACT, .run = fold_run };
