/*
 * Attention and rotary embedding of com.microsoft, as onnxruntime writes them when it fuses: shape functions, reference kernels,
 * then rows.
 *
 * Letters: B batch, S query length, L key length, P past length, T = P + L, N heads, H head width, D = N H.
 */
#include "ops/contrib.h"

/* ---- Rotary embedding ---- */

/* input: [B, S, D] or [B, N, S, H]; output alike. */
static enum linnet_code shape_rotary(struct shape_call *c)
{
	TRY(rank_check(c, 0, 3, 4));
	TRY(rank_check(c, 1, 1, 2));
	TRY(rank_check(c, 2, 2, 2));
	TRY(rank_check(c, 3, 2, 2));
	return shape_same(c);
}

/*
 * Pairs of the first 2 half numbers of every head, (i, i + half) or interleaved (2i, 2i + 1), turned by the angle of their position:
 * cos_cache, sin_cache: [positions, half]. position_ids: [B, S], or one number, the position of the first.
 */
static enum linnet_code rotary(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *ids = c->in[1], *cosine = c->in[2], *sine = c->in[3];
	bool interleaved = attr_get(c->op, c->attr, "interleaved")->i != 0, split = x->rank == 4;
	int64_t heads = attr_get(c->op, c->attr, "num_heads")->i, half = cosine->d[1];
	int64_t last = x->d[x->rank - 1], s = x->d[split ? 2 : 1], width, n;

	if (attr_get(c->op, c->attr, "is_packed_batching")->i || attr_get(c->op, c->attr, "scale")->f != 1)
		return fail(c->e, LINNET_EUNSUPPORTED, "packed batching and scale");
	width = split ? last : attr_get(c->op, c->attr, "rotary_embedding_dim")->i && heads ? last / heads : 2 * half;
	n = split ? x->d[1] : width ? last / width : 0;
	if (2 * half > width || (!split && n * width != last) || sine->d[1] != half || sine->d[0] != cosine->d[0])
		return fail(c->e, LINNET_ESHAPE, "caches turn %lld numbers of each head; rows of %lld have heads of %lld", (long long)(2 * half),
		            (long long)last, (long long)width);
	if (ids->n != 1 && ids->n != x->d[0] * s)
		return fail(c->e, LINNET_ESHAPE, "%lld position_ids for %lld positions", (long long)ids->n, (long long)(x->d[0] * s));
	for (int64_t row = 0; row < x->d[0] * n * s; row++) {
		/* rows are [B, N, S] or [B, S, N] */
		int64_t b = row / (n * s), t = split ? row % s : row / n % s, base = row * width;
		int64_t place = ids->n == 1 ? tensor_get_int(ids, 0) + t : tensor_get_int(ids, b * s + t);

		if (place < 0 || place >= cosine->d[0])
			return fail(c->e, LINNET_EVALUE, "position %lld is not in [0, %lld]", (long long)place, (long long)(cosine->d[0] - 1));
		for (int64_t i = 0; i < half; i++) {
			int64_t p = base + (interleaved ? 2 * i : i), q = base + (interleaved ? 2 * i + 1 : i + half);
			double u = tensor_get(x, p), v = tensor_get(x, q);
			double co = tensor_get(cosine, place * half + i), si = tensor_get(sine, place * half + i);

			tensor_put(c->out[0], p, u * co - v * si);
			tensor_put(c->out[0], q, u * si + v * co);
		}
		for (int64_t i = base + 2 * half; i < base + width; i++)
			element_copy(c->out[0], i, x, i);
	}
	return LINNET_OK;
}

/* ---- Attention ---- */

enum linnet_code packed_attention(struct shape_call *c, int past_at, const struct attr *sizes)
{
	const struct shape x = in_shape(c, 0), w = in_shape(c, 1), past = in_shape(c, past_at);
	dim width = DIM_NONE, key_width = DIM_NONE, head = DIM_NONE, total;
	int64_t heads = int_attr(c, "num_heads");

	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, 1, 2, 2));
	TRY(rank_check(c, past_at, 5, 5));
	if (sizes && sizes->n == 3) {
		key_width = sizes->ints[1];
		width = sizes->ints[2];
	} else if (w.rank == 2) {
		TRY(parts(c, "the width of the weights", w.d[1], 3, &width));
		key_width = width;
	}
	if (x.rank < 0)
		return LINNET_OK;
	if (w.rank == 2)
		TRY(length_join(c, "inner lengths", x.d[2], w.d[0], NULL));
	set_shape(c, 0, shape3(x.d[0], x.d[1], width));
	if (c->nout < 2)
		return LINNET_OK;
	TRY(parts(c, "the width of keys", key_width, heads, &head));
	total = !in_given(c, past_at) ? x.d[1] : past.rank < 0 ? DIM_NONE : dim_add(c->dims, past.d[3], x.d[1]);
	if (int_attr(c, "past_present_share_buffer"))
		total = past.rank < 0 ? DIM_NONE : past.d[3];
	c->out[1].shape = (struct shape){ .rank = 5, .d = { 2, x.d[0], heads, total, head } };
	return LINNET_OK;
}

static enum linnet_code shape_attention(struct shape_call *c)
{
	return packed_attention(c, 4, attr_get(c->op, c->attr, "qkv_hidden_sizes"));
}

/*
 * query: [B, S, D], or all three packed: [B, S, N, 3, H]
 * key:   [B, L, D], with the value: [B, L, N, 2, H], or [B, N, L, H]     value: [B, L, D_v] or [B, N, L, H_v]
 * output: [B, S, D_v]  present_key, present_value: [B, N, T, H]  qk: [B, N, S, T]
 */
static enum linnet_code shape_multi_head(struct shape_call *c)
{
	const struct shape q = in_shape(c, 0), k = in_shape(c, 1), v = in_shape(c, 2), past = in_shape(c, 6);
	dim b, s, length = DIM_NONE, head = DIM_NONE, value_head = DIM_NONE, total;
	int64_t n = int_attr(c, "num_heads");

	if (q.rank < 0 || (in_given(c, 1) && k.rank < 0) || (in_given(c, 2) && v.rank < 0))
		return LINNET_OK;
	TRY(rank_check(c, 0, 3, 5));
	b = q.d[0];
	s = q.d[1];
	if (q.rank == 5)
		head = q.d[4];
	else
		TRY(parts(c, "the width of queries", q.d[2], n, &head));
	if (!in_given(c, 1)) {
		length = s;
		value_head = head;
	} else if (k.rank == 5) {
		length = k.d[1];
		value_head = k.d[4];
	} else {
		TRY(rank_check(c, 1, 3, 4));
		length = k.rank == 4 ? k.d[2] : k.d[1];
		if (v.rank == 4)
			value_head = v.d[3];
		else if (v.rank == 3)
			TRY(parts(c, "the width of values", v.d[2], n, &value_head));
		else
			return fail(c->e, LINNET_ESHAPE, "input \"value\" has rank %d; expected 3 or 4", v.rank);
	}
	total = !in_given(c, 6) ? length : past.rank == 4 ? dim_add(c->dims, past.d[2], length) : DIM_NONE;
	/* with past_sequence_length, present is the buffer that past is */
	if (in_given(c, 6) && in_given(c, 8))
		total = past.rank == 4 ? past.d[2] : DIM_NONE;
	set_shape(c, 0, shape3(b, s, dim_mul(c->dims, value_head, n)));
	set_shape(c, 1, shape4(b, n, total, head));
	set_shape(c, 2, shape4(b, n, total, value_head));
	set_shape(c, 3, shape4(b, n, s, total));
	return LINNET_OK;
}

/*
 * query: [B, S, N H], or with key and value: [B, S, (N + 2 N_kv) H]  key, value: [B, L, N_kv H]
 * output: [B, S, N H]  present_key, present_value: [B, N_kv, T, H], T the longer of the past buffer and total_sequence_length
 */
static enum linnet_code shape_group_query(struct shape_call *c)
{
	const struct shape q = in_shape(c, 0), past = in_shape(c, 3);
	int64_t n = int_attr(c, "num_heads"), nkv = int_attr(c, "kv_num_heads");
	dim head, total;

	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, 3, 4, 4));
	if (q.rank < 0)
		return LINNET_OK;
	TRY(parts(c, "the width of queries", q.d[2], in_given(c, 1) ? n : n + 2 * nkv, &head));
	total = type_element(c->in[6], 0);
	if (in_given(c, 3))
		total = past.rank < 0 ? DIM_NONE : dim_max(c->dims, past.d[2], total);
	set_shape(c, 0, shape3(q.d[0], q.d[1], dim_mul(c->dims, head, n)));
	/* a quantised cache may be packed: its width is that of the past */
	if (past.rank == 4)
		head = past.d[3];
	set_shape(c, 1, shape4(q.d[0], nkv, total, head));
	set_shape(c, 2, shape4(q.d[0], nkv, total, head));
	set_shape(c, 3, shape4(q.d[0], n, q.d[1], total));
	return LINNET_OK;
}

/* ---- Rows ---- */

static const struct op rows[] = {
	{
		MS, .name = "RotaryEmbedding",
		.doc = "Pairs of numbers of every head turned by angles that grow with the position.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "position_ids", T1, FLOW_NONE }, { "cos_cache", T, FLOW_LINEAR },
		         { "sin_cache", T, FLOW_LINEAR }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(FLAG("interleaved"), FLAG("is_packed_batching"), COUNT("num_heads"), COUNT("rotary_embedding_dim"),
		              { .name = "scale", .kind = ATTR_FLOAT, .f = 1 }),
		.types = { [T] = HALF_FLOATS, [T1] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_rotary,
		.kernel = rotary,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "Attention",
		.doc = "Softmax attention with the projections of queries, keys and values.",
		.in = IN({ "input", T, FLOW_SMOOTH }, { "weights", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH, OPTIONAL },
		         { "mask_index", T1, FLOW_NONE, OPTIONAL }, { "past", T, FLOW_SMOOTH, OPTIONAL },
		         { "attention_bias", T, FLOW_SMOOTH, OPTIONAL }, { "past_sequence_length", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "present", T, .flags = OPTIONAL }),
		.attr = ATTRS(FLAG("do_rotary"), MASK_VALUE, HEADS("num_heads"), FLAG("past_present_share_buffer"),
		              { .name = "qkv_hidden_sizes", .kind = ATTR_INTS, .s = "", .lo = 1, .hi = INT32_MAX },
		              COUNT("rotary_embedding_dim"), SCALE, FLAG("unidirectional")),
		.types = { [T] = HALF_FLOATS, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_attention,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MultiHeadAttention",
		.doc = "Softmax attention of projected queries, keys and values.",
		.in = IN({ "query", T, FLOW_SMOOTH }, { "key", T, FLOW_SMOOTH, OPTIONAL }, { "value", T, FLOW_LINEAR, OPTIONAL },
		         { "bias", T, FLOW_SMOOTH, OPTIONAL }, { "key_padding_mask", T1, FLOW_NONE, OPTIONAL },
		         { "attention_bias", T, FLOW_SMOOTH, OPTIONAL }, { "past_key", T, FLOW_SMOOTH, OPTIONAL },
		         { "past_value", T, FLOW_LINEAR, OPTIONAL }, { "past_sequence_length", T1, FLOW_NONE, OPTIONAL },
		         { "cache_indirection", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "present_key", T, .flags = OPTIONAL }, { "present_value", T, .flags = OPTIONAL },
		           { "qk", T2, .flags = OPTIONAL }),
		.attr = ATTRS(MASK_VALUE, HEADS("num_heads"), SCALE, FLAG("unidirectional")),
		.types = { [T] = HALF_FLOATS, [T1] = SET(INT32), [T2] = HALF_FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_multi_head,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "GroupQueryAttention",
		.doc = "Causal softmax attention with groups of query heads sharing keys and values, and a cache.",
		.in = IN({ "query", T, FLOW_SMOOTH }, { "key", T, FLOW_SMOOTH, OPTIONAL }, { "value", T, FLOW_LINEAR, OPTIONAL },
		         { "past_key", T1, FLOW_SMOOTH, OPTIONAL }, { "past_value", T1, FLOW_LINEAR, OPTIONAL },
		         { "seqlens_k", T2, FLOW_NONE }, { "total_sequence_length", T2, FLOW_NONE },
		         { "cos_cache", T, FLOW_SMOOTH, OPTIONAL }, { "sin_cache", T, FLOW_SMOOTH, OPTIONAL },
		         { "position_ids", T3, FLOW_NONE, OPTIONAL }, { "attention_bias", T, FLOW_SMOOTH, OPTIONAL },
		         { "head_sink", T, FLOW_SMOOTH, OPTIONAL }, { "k_scale", T4, FLOW_NONE, OPTIONAL },
		         { "v_scale", T4, FLOW_NONE, OPTIONAL }, { "q_norm_weight", T, FLOW_SMOOTH, OPTIONAL },
		         { "k_norm_weight", T, FLOW_SMOOTH, OPTIONAL }, { "query_seqlens", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "present_key", T1, .flags = OPTIONAL }, { "present_value", T1, .flags = OPTIONAL },
		           { "output_qk", T, .flags = OPTIONAL }),
		.attr = ATTRS({ .name = "causal", .kind = ATTR_INT, .i = 1, .hi = 1 }, FLAG("do_rotary"),
		              { .name = "k_norm_epsilon", .kind = ATTR_FLOAT, .flags = OPTIONAL },
		              { .name = "k_quant_type", .kind = ATTR_STRING, .s = "NONE" }, COUNT("kv_cache_bit_width"),
		              HEADS("kv_num_heads"), { .name = "local_window_size", .kind = ATTR_INT, .i = -1 }, HEADS("num_heads"),
		              { .name = "q_norm_epsilon", .kind = ATTR_FLOAT, .flags = OPTIONAL },
		              { .name = "qk_norm_epsilon", .kind = ATTR_FLOAT, .f = 1e-6 }, COUNT("qk_output"), FLAG("rotary_interleaved"),
		              SCALE, FLAG("sliding_window_cache"), { .name = "smooth_softmax", .kind = ATTR_INT, .i = -1 },
		              { .name = "softcap", .kind = ATTR_FLOAT }, { .name = "v_quant_type", .kind = ATTR_STRING, .s = "NONE" }),
		.types = { [T] = HALF_FLOATS, [T1] = HALF_FLOATS | SET(FLOAT8E4M3FN) | SET(INT8) | SET(UINT8), [T2] = SET(INT32),
		           [T3] = SET(INT64), [T4] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_group_query,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_attention_ops = FAMILY("contrib_attention", rows);
