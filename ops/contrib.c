/* Operators of com.microsoft, as onnxruntime writes them when it fuses: shape functions, reference kernels, then rows. */
#include "ops/contrib.h"

/* ---- Matrix products ---- */

/* Axes of a FusedMatMul operand in the order of MatMul's: batch: the first axis goes behind the batch, then the last two change places. */
static void matmul_order(int rank, bool batch, bool transpose, int p[MAX_RANK])
{
	for (int i = 0; i < rank; i++)
		p[i] = batch && rank > 2 && i < rank - 1 ? (i + 1) % (rank - 1) : i;
	if (transpose && rank > 1) {
		int last = p[rank - 1];

		p[rank - 1] = p[rank - 2];
		p[rank - 2] = last;
	}
}

static const char *const fused_attr[2][2] = { { "transBatchA", "transA" }, { "transBatchB", "transB" } };

static enum linnet_code shape_fused_matmul(struct shape_call *c)
{
	struct type operand[2];
	struct shape_call inner = *c;

	for (int i = 0; i < 2; i++) {
		int p[MAX_RANK];

		operand[i] = *c->in[i];
		if (operand[i].shape.rank < 0)
			continue;
		matmul_order(operand[i].shape.rank, int_attr(c, fused_attr[i][0]), int_attr(c, fused_attr[i][1]), p);
		for (int k = 0; k < operand[i].shape.rank; k++)
			operand[i].shape.d[k] = c->in[i]->shape.d[p[k]];
	}
	inner.op = op_newest(NULL, "MatMul");
	inner.in = (const struct type *[]){ &operand[0], &operand[1] };
	return inner.op->shape(&inner);
}

/* Y = alpha op(A) op(B) */
static enum linnet_code fused_matmul(struct kernel_call *c)
{
	double alpha = attr_get(c->op, c->attr, "alpha")->f;
	struct kernel_call inner = *c;
	struct tensor *operand[2], *y;

	for (int i = 0; i < 2; i++) {
		const struct tensor *t = c->in[i];
		int64_t d[MAX_RANK], from[MAX_RANK], to[MAX_RANK], s[MAX_RANK];
		int p[MAX_RANK];

		matmul_order(t->rank, attr_get(c->op, c->attr, fused_attr[i][0])->i, attr_get(c->op, c->attr, fused_attr[i][1])->i, p);
		strides(t->rank, t->d, s);
		for (int k = 0; k < t->rank; k++) {
			d[k] = t->d[p[k]];
			from[k] = s[p[k]];
		}
		TRY(tensor_new(c->scratch, t->dt, t->rank, d, &operand[i], c->e));
		strides(t->rank, d, to);
		copy_box(operand[i], 0, to, t, 0, from, t->rank, d);
	}
	TRY(tensor_new(c->scratch, DT_DOUBLE, c->out[0]->rank, c->out[0]->d, &y, c->e));
	inner.op = op_newest(NULL, "MatMul");
	inner.in = (const struct tensor *[]){ operand[0], operand[1] };
	inner.out = &y;
	TRY(inner.op->kernel(&inner));
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(c->out[0], i, alpha * tensor_get(y, i));
	return LINNET_OK;
}

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

/* ---- Attention ---- */

static enum linnet_code shape_qattention(struct shape_call *c) { return packed_attention(c, 8, NULL); }

/* ---- Rows ---- */

static const struct op rows[] = {
	{
		MS, .name = "QEmbedLayerNormalization",
		.doc = "EmbedLayerNormalization of quantised embeddings.",
		.in = IN({ "input_ids", T1, FLOW_NONE }, { "segment_ids", T1, FLOW_NONE, OPTIONAL },
		         { "word_embedding_quant", T2, FLOW_NONE }, { "position_embedding_quant", T2, FLOW_NONE },
		         { "segment_embedding", T2, FLOW_NONE, OPTIONAL }, { "gamma_quant", T2, FLOW_NONE }, { "beta_quant", T2, FLOW_NONE },
		         { "mask", T1, FLOW_NONE, OPTIONAL }, { "word_embedding_scale", T, FLOW_NONE },
		         { "position_embedding_scale", T, FLOW_NONE }, { "segment_embedding_scale", T, FLOW_NONE, OPTIONAL },
		         { "gamma_scale", T, FLOW_NONE }, { "beta_scale", T, FLOW_NONE }, { "word_embedding_zero_point", T2, FLOW_NONE },
		         { "position_embedding_zero_point", T2, FLOW_NONE }, { "segment_embedding_zero_point", T2, FLOW_NONE, OPTIONAL },
		         { "gamma_zero_point", T2, FLOW_NONE }, { "beta_zero_point", T2, FLOW_NONE }),
		.out = OUT({ "layernorm_out", T }, { "mask_index_out", T1 }),
		.attr = ATTRS(EPSILON(1e-12)),
		.types = { [T] = SET(FLOAT), [T1] = SET(INT32), [T2] = SET(INT8) | SET(UINT8) },
		.agree = AGREE_ROUND,
		.shape = shape_embed,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "FusedMatMul",
		.doc = "MatMul of operands whose axes change places first, times alpha.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }, FLAG("transA"), FLAG("transB"), FLAG("transBatchA"),
		              FLAG("transBatchB")),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_fused_matmul,
		.kernel = fused_matmul,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
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
	{
		MS, .name = "QAttention",
		.doc = "Attention on quantised input and weights.",
		.in = IN({ "input", T1, FLOW_NONE }, { "weight", T2, FLOW_NONE }, { "bias", T3, FLOW_NONE }, { "input_scale", T3, FLOW_NONE },
		         { "weight_scale", T3, FLOW_NONE }, { "mask_index", T4, FLOW_NONE, OPTIONAL },
		         { "input_zero_point", T1, FLOW_NONE, OPTIONAL }, { "weight_zero_point", T2, FLOW_NONE, OPTIONAL },
		         { "past", T3, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T3 }, { "present", T3, .flags = OPTIONAL }),
		.attr = ATTRS(FLAG("do_rotary"), MASK_VALUE, HEADS("num_heads"), FLAG("past_present_share_buffer"), SCALE,
		              FLAG("unidirectional")),
		.types = { [T1] = SET(INT8) | SET(UINT8), [T2] = SET(INT8) | SET(UINT8), [T3] = SET(FLOAT) | SET(FLOAT16),
		           [T4] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_qattention,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_ops = FAMILY("contrib", rows);
