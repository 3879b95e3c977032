/*
 * Positions of a step model. What counts tokens from 0 must count them from `position`: ranges over the token axis, and tables cut to the
 * number of tokens. Sums over the tokens so far, of a padding mask for example, go on from a state, past_sum.N. All that follows them is
 * elementwise in the token, or the comparison of the step model with the whole-sequence one finds it.
 */
#include "converter/build.h"

#include <string.h>

/* The single element of v is the dim d. */
static bool is_dim(const struct graph *g, value_id v, dim d)
{
	const struct type *t = &g->value[v].type;

	return t->sym && (t->shape.rank == 0 || (t->shape.rank == 1 && t->shape.d[0] == 1)) && t->sym[0] == d;
}

/* Range(0, tokens, 1): position is added. */
static bool shift_range(const struct node *n, const struct graph *g, dim tokens, value_id position, struct patch *p)
{
	enum dtype dt = g->value[n->out[0]].type.dt;
	struct attr to[] = { attr_int("to", dt), { .name = NULL } };
	double start, delta;
	value_id again;

	if (!node_is(n, "Range") || !value_scalar(g, n->in[0], &start) || start != 0 || !value_scalar(g, n->in[2], &delta) || delta != 1 ||
	    g->value[n->out[0]].type.shape.d[0] != tokens)
		return false;
	if (dt != DT_INT64)
		position = patch_node(p, "Cast", "position", PATCH_IN(position), 1, to);
	again = patch_node(p, "Range", n->name, n->in, 3, 1, NULL);
	patch_replace(p, n->out[0], patch_node(p, "Add", "positions", PATCH_IN(again, position), 1, NULL));
	return true;
}

/* Slice(table, 0, tokens, axis): [position, position + tokens) of it. */
static bool shift_slice(const struct node *n, const struct graph *g, dim tokens, value_id position, struct patch *p)
{
	double start, step = 1;
	value_id from, to, in[5];

	if (!node_is(n, "Slice") || n->nin < 4 || !value_const(g, n->in[0]) || !value_scalar(g, n->in[1], &start) || start != 0 ||
	    !is_dim(g, n->in[2], tokens) || (n->nin > 4 && n->in[4] && (!value_scalar(g, n->in[4], &step) || step != 1)) ||
	    g->value[n->in[2]].type.shape.rank != 1)
		return false;
	from = position;
	to = patch_node(p, "Add", "end", PATCH_IN(n->in[2], position), 1, NULL);
	memcpy(in, (value_id[]){ n->in[0], from, to, n->in[3], n->nin > 4 ? n->in[4] : 0 }, sizeof in);
	patch_replace(p, n->out[0], patch_node(p, "Slice", n->name, in, n->nin > 4 && n->in[4] ? 5 : 4, 1, NULL));
	return true;
}

/* CumSum(x) along the tokens: what the tokens before come to is added. */
static bool carry_sum(const struct node *n, const struct graph *g, dim tokens, int *sums, struct patch *p)
{
	const struct type *x = n->nin > 1 ? &g->value[n->in[0]].type : NULL;
	struct attr keep[] = { attr_int("keepdims", 1), { .name = NULL } };
	struct type one;
	const char *past, *present;
	double at;
	int axis;
	value_id before, all;

	if (!node_is(n, "CumSum") || x->shape.rank < 1 || value_const(g, n->in[0]) || !value_scalar(g, n->in[1], &at) || node_attr(n, "reverse")->i)
		return false;
	axis = (int)at < 0 ? (int)at + x->shape.rank : (int)at;
	if (axis < 0 || axis >= x->shape.rank || x->shape.d[axis] != tokens)
		return false;
	one = (struct type){ .dt = x->dt, .shape = x->shape };
	one.shape.d[axis] = 1;
	past = arena_fmt(p->arena, "past_sum.%d", *sums);
	present = arena_fmt(p->arena, "present_sum.%d", *sums);
	if (!past || !present) {
		p->code = fail_mem(p->e);
		return true;
	}
	++*sums;
	before = patch_input(p, past, &one);
	all = patch_node(p, "ReduceSum", "tokens_sum", PATCH_IN(n->in[0], patch_ints(p, (int64_t[]){ axis }, 1, "axis")), 1, keep);
	patch_output(p, patch_node(p, "Add", "sum", PATCH_IN(all, before), 1, NULL), present);
	all = patch_node(p, "CumSum", n->name, n->in, 2, 1, (struct attr[]){ attr_int("exclusive", node_attr(n, "exclusive")->i), { .name = NULL } });
	patch_replace(p, n->out[0], patch_node(p, "Add", "sum", PATCH_IN(all, before), 1, NULL));
	return true;
}

enum linnet_code step_positions(struct graph *g, dim tokens, value_id position, struct linnet_error *e)
{
	int sums = 0;
	uint32_t last = g->nnode; /* not those made here, nor those that count from their own first token */

	for (node_id id = 1; id < last; id++) {
		struct patch p;

		if (g->node[id].dead || (g->node[id].from && !strncmp(g->node[id].name, OWN_MASK, strlen(OWN_MASK))))
			continue;
		patch_init(&p, g, e);
		if (shift_range(&g->node[id], g, tokens, position, &p) || shift_slice(&g->node[id], g, tokens, position, &p) ||
		    carry_sum(&g->node[id], g, tokens, &sums, &p))
			TRY(patch_apply(g, &p, "step/position", e));
	}
	return LINNET_OK;
}
