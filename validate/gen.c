/* Inputs drawn from what a graph declares of them. */
#include <string.h>

#include "validate/validate.h"

/* ---- Lengths of symbols ---- */

struct lengths {
	const struct graph *g;
	const struct gen_opt *opt;
	const struct tensor **in;
};

static bool like_batch(const char *name)
{
	return strstr(name, "batch") || strstr(name, "Batch") || !strcmp(name, "N") || !strcmp(name, "B");
}

static dim length_of(void *ctx, const char *name)
{
	const struct lengths *l = ctx;
	const struct graph *g = l->g;
	dim d = dim_symbol(g->dims, name);

	for (int i = 0; i < l->opt->ndim; i++)
		if (!strcmp(l->opt->dim[i].name, name))
			return l->opt->dim[i].n;
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct shape *s = &g->value[g->in[i]].type.shape;

		for (int k = 0; l->in[i] && k < s->rank && k < l->in[i]->rank; k++)
			if (s->d[k] == d)
				return l->in[i]->d[k];
	}
	if (like_batch(name))
		return l->opt->batch > 0 ? l->opt->batch : 2;
	return l->opt->length > 0 ? l->opt->length : 8;
}

/* ---- What an integer input selects from ---- */

/* Operators whose output holds the elements of input 0 unchanged. */
static bool passes_on(const struct node *n)
{
	static const char *const name[] = { "Cast",  "CastLike", "Identity", "Unsqueeze", "Squeeze", "Reshape",
		                            "Slice", "Transpose", "Flatten", "Expand",    "Split",   "Tile" };

	for (size_t i = 0; i < sizeof name / sizeof *name; i++)
		if (node_is(n, name[i]))
			return true;
	return false;
}

static int64_t rows_of(const struct graph *g, const struct uses *u, value_id v, int depth)
{
	int64_t rows = 0;

	for (uint32_t i = u->begin[v]; i < u->end[v]; i++) {
		const struct node *n = &g->node[u->use[i].node];
		int64_t found = 0;

		if (!u->use[i].node)
			continue;
		if (u->use[i].index == 1 && (node_is(n, "Gather") || node_is(n, "GatherElements"))) {
			const struct shape *s = &g->value[n->in[0]].type.shape;
			int64_t axis = node_attr(n, "axis")->i;

			axis += axis < 0 ? s->rank : 0;
			if (axis >= 0 && axis < s->rank && dim_is_int(s->d[axis]))
				found = s->d[axis];
		} else if (u->use[i].index == 0 && depth < 16 && passes_on(n)) {
			for (uint32_t k = 0; k < n->nout; k++) {
				int64_t one = n->out[k] ? rows_of(g, u, n->out[k], depth + 1) : 0;

				found = one && (!found || one < found) ? one : found;
			}
		}
		rows = found && (!rows || found < rows) ? found : rows;
	}
	return rows;
}

int64_t gen_rows(const struct graph *g, value_id v, struct arena *scratch)
{
	struct linnet_error ignored = { 0 };
	struct uses u;

	return graph_uses(g, scratch, &u, &ignored) ? 0 : rows_of(g, &u, v, 0);
}

/* ---- Elements ---- */

static void draw_ints(struct tensor *t, const char *name, int64_t rows, struct rng *r)
{
	bool mask = strstr(name, "mask") != NULL;
	int64_t lo = 0, span = rows ? rows : 8;

	if (!rows && dtype_bits(t->dt) == 8) {
		span = 256;
		lo = dtype_class(t->dt) == CLASS_INT ? -128 : 0;
	}
	if (dtype_bits(t->dt) < 8)
		span = 1 << dtype_bits(t->dt); /* put wraps */
	for (int64_t i = 0; i < t->n; i++) {
		int64_t x = lo + (int64_t)rng_below(r, (uint64_t)span);

		tensor_put_int(t, i, mask && !rows ? rng_below(r, 8) > 0 : x);
	}
}

static void draw(struct tensor *t, const char *name, int64_t rows, struct rng *r)
{
	static const char letters[] = "abcdefgh";

	switch (dtype_class(t->dt)) {
	case CLASS_INT:
	case CLASS_UINT: draw_ints(t, name, rows, r); break;
	case CLASS_BOOL:
		for (int64_t i = 0; i < t->n; i++)
			tensor_put_int(t, i, strstr(name, "mask") ? rng_below(r, 8) > 0 : rng_below(r, 2) > 0);
		break;
	case CLASS_STRING:
		for (int64_t i = 0; i < t->n; i++)
			((struct text *)t->data)[i] = (struct text){ letters + rng_below(r, 8), 1 };
		break;
	case CLASS_COMPLEX:
		for (int64_t i = 0; i < 2 * t->n; i++) {
			double x = 2 * rng_unit(r) - 1;

			if (t->dt == DT_COMPLEX64)
				((float *)t->data)[i] = (float)x;
			else
				((double *)t->data)[i] = x;
		}
		break;
	case CLASS_FLOAT:
	case CLASS_NONE:
		for (int64_t i = 0; i < t->n; i++)
			tensor_put(t, i, 2 * rng_unit(r) - 1);
		break;
	}
}

static enum linnet_code draw_tensor(struct lengths *l, const struct uses *u, value_id v, struct rng *r, struct arena *a,
                                    struct tensor **out, struct linnet_error *e)
{
	const struct graph *g = l->g;
	const struct value *x = &g->value[v];
	int64_t d[MAX_RANK] = { 0 };

	for (int i = 0; i < x->type.shape.rank; i++) {
		d[i] = x->type.shape.d[i];
		if (d[i] == DIM_NONE && x->type.kind != KIND_TENSOR) /* a length that members need not share */
			d[i] = 1 + (int64_t)rng_below(r, (uint64_t)(l->opt->length > 0 ? l->opt->length : 8));
		if (dim_is_expr(d[i]))
			d[i] = dim_eval(g->dims, d[i], length_of, l);
		if (!dim_is_int(d[i]) || d[i] < 0)
			return fail(e, LINNET_ESHAPE, "input \"%s\": axis %d has no length with these dims; give it with --dim or --input", x->name,
			            i);
	}
	TRY(tensor_new(a, x->type.dt, x->type.shape.rank, d, out, e));
	draw(*out, x->name, x->type.kind == KIND_TENSOR ? rows_of(g, u, v, 0) : 0, r);
	return LINNET_OK;
}

/* Sequences of up to three tensors; optionals hold something three times out of four. */
static enum linnet_code draw_kind(struct lengths *l, const struct uses *u, value_id v, enum type_kind kind, struct rng *r,
                                  struct arena *a, struct tensor **out, struct linnet_error *e)
{
	bool sequence = kind == KIND_SEQUENCE;

	if (kind == KIND_TENSOR)
		return draw_tensor(l, u, v, r, a, out, e);
	TRY(members_new(a, kind, l->g->value[v].type.dt, (int64_t)rng_below(r, 4), out, e));
	if (!sequence)
		(*out)->n = (*out)->n > 0;
	for (int64_t i = 0; i < (*out)->n; i++)
		TRY(draw_kind(l, u, v, kind_member(kind), r, a, &((struct tensor **)(*out)->data)[i], e));
	return LINNET_OK;
}

static enum linnet_code draw_input(struct lengths *l, const struct uses *u, value_id v, struct rng *r, struct arena *a,
                                   const struct tensor **out, struct linnet_error *e)
{
	const struct value *x = &l->g->value[v];
	struct tensor *t;

	if (!kind_in(x->type.kind, TENSORS | SEQUENCES | OPTIONALS) || x->type.dt == DT_UNDEFINED || x->type.shape.rank < 0)
		return fail(e, LINNET_EUNSUPPORTED, "input \"%s\" is not declared as a tensor of known rank; it must be given", x->name);
	TRY(draw_kind(l, u, v, x->type.kind, r, a, &t, e));
	*out = t;
	return LINNET_OK;
}

enum linnet_code gen_inputs(const struct graph *g, const struct gen_opt *opt, struct rng *r, struct arena *a,
                            const struct tensor **in, struct linnet_error *e)
{
	static const struct gen_opt none;
	struct lengths l = { .g = g, .opt = opt ? opt : &none, .in = in };
	struct uses u;

	TRY(graph_uses(g, a, &u, e));
	for (uint32_t i = 0; i < g->nin; i++)
		if (!in[i] && !g->value[g->in[i]].has_default)
			TRY(draw_input(&l, &u, g->in[i], r, a, &in[i], e));
	return LINNET_OK;
}
