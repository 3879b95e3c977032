/* Operators of com.microsoft on quantised numbers: shape functions, then rows. */
#include "ops/contrib.h"

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

const struct op_family contrib_quant_ops = FAMILY("contrib_quant", rows);
