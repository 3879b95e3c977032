/* Operators that choose elements by index: reference kernels, then rows. */
#include "ops/kernel.h"

/* What these operators admit: none of them grew with the narrow types. */
#define COMMON (NUMBERS | COMPLEXES | SET(BOOL) | SET(STRING))

/* Element i of the index tensor, counted from the start of an axis of the given length. */
static enum linnet_code index_at(const struct tensor *index, int64_t i, int64_t length, int64_t *out, struct linnet_error *e)
{
	int64_t v = tensor_get_int(index, i);

	if (v < -length || v >= length)
		return fail(e, LINNET_EVALUE, "index %lld is not in [%lld, %lld]", (long long)v, (long long)-length,
		            (long long)length - 1);
	*out = v < 0 ? v + length : v;
	return LINNET_OK;
}

/* ---- Gather ---- */

static enum linnet_code gather_shape(struct shape_call *c)
{
	const struct shape *data = &c->in[0]->shape, *index = &c->in[1]->shape;
	struct shape *out = &c->out[0].shape;
	dim e[MAX_SYM], at[MAX_SYM], picked[MAX_SYM];
	int axis;

	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (data->rank < 0)
		return LINNET_OK;
	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, data->rank, &axis, c->e));
	if (index->rank < 0)
		return LINNET_OK;
	TRY(rank_limit(data->rank + index->rank - 1, c->e));
	out->rank = 0;
	for (int i = 0; i < axis; i++)
		out->d[out->rank++] = data->d[i];
	for (int i = 0; i < index->rank; i++)
		out->d[out->rank++] = index->d[i];
	for (int i = axis + 1; i < data->rank; i++)
		out->d[out->rank++] = data->d[i];
	if (!c->arena || out->rank > 1 || data->rank != 1)
		return LINNET_OK;
	int m = type_elements(c->in[0], e), n = type_elements(c->in[1], at);

	if (m < 0 || n < 0)
		return LINNET_OK;
	for (int i = 0; i < n; i++) {
		picked[i] = DIM_NONE;
		if (dim_is_int(at[i]) && at[i] >= -m && at[i] < m)
			picked[i] = e[at[i] < 0 ? at[i] + m : at[i]];
	}
	type_set_sym(c, 0, picked, n);
	return LINNET_OK;
}

/* y[a, i, b] = x[a, index[i], b] */
static enum linnet_code gather_kernel(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *index = c->in[1];
	int64_t outer = 1, inner = 1, at;
	int axis;

	TRY(axis_check(attr_get(c->op, c->attr, "axis")->i, x->rank, &axis, c->e));
	for (int i = 0; i < axis; i++)
		outer *= x->d[i];
	for (int i = axis + 1; i < x->rank; i++)
		inner *= x->d[i];
	const int64_t d[2] = { outer, inner };
	const int64_t from[2] = { x->d[axis] * inner, 1 }, to[2] = { index->n * inner, 1 };

	for (int64_t i = 0; i < index->n; i++) {
		TRY(index_at(index, i, x->d[axis], &at, c->e));
		copy_box(c->out[0], i * inner, to, x, at * inner, from, 2, d);
	}
	return LINNET_OK;
}

static const struct op rows[] = {
	{
		.name = "Gather", .since = 1,
		.doc = "Slices of the data along one axis, in the order the indices name them.",
		.in = IN({ "data", T, FLOW_LINEAR }, { "indices", T1 }),
		.out = OUT({ "output", T }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT }),
		.types = { [T] = COMMON, [T1] = INDICES },
		.agree = AGREE_BITS,
		.shape = gather_shape, .kernel = gather_kernel,
	},
};

const struct op_family index_ops = FAMILY("index", rows);
