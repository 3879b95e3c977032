/* Operators of com.microsoft on weights of a few bits, scaled in blocks: shape functions, then rows. */
#include "ops/contrib.h"

/* A: [..., K]  Y: [..., N] */
static enum linnet_code shape_matmul_nbits(struct shape_call *c)
{
	struct shape s = in_shape(c, 0);

	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (s.rank < 1)
		return LINNET_OK;
	TRY(length_join(c, "inner lengths", s.d[s.rank - 1], int_attr(c, "K"), NULL));
	s.d[s.rank - 1] = int_attr(c, "N");
	c->out[0].shape = s;
	return LINNET_OK;
}

/* ---- Rows ---- */

static const struct op rows[] = {
	{
		MS, .name = "MatMulNBits",
		.doc = "MatMul with a matrix of integers of a few bits, scaled in blocks.",
		.in = IN({ "A", T1, FLOW_LINEAR }, { "B", T2, FLOW_NONE }, { "scales", T1, FLOW_NONE },
		         { "zero_points", T3, FLOW_NONE, OPTIONAL }, { "g_idx", T4, FLOW_NONE, OPTIONAL },
		         { "bias", T1, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(HEADS("K"), HEADS("N"), { .name = "accuracy_level", .kind = ATTR_INT },
		              { .name = "bits", .kind = ATTR_INT, .i = 4, .lo = 2, .hi = 8 },
		              { .name = "block_size", .kind = ATTR_INT, .flags = REQUIRED, .lo = 16, .hi = INT32_MAX },
		              FLAG("weight_prepacked")),
		.types = { [T1] = HALF_FLOATS, [T2] = SET(UINT8), [T3] = HALF_FLOATS | SET(UINT8), [T4] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_matmul_nbits,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_nbits_ops = FAMILY("contrib_nbits", rows);
