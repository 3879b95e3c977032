/* Operators of com.microsoft on weights of a few bits, scaled in blocks: shape functions, reference kernels, then rows. */
#include <string.h>

#include "ops/contrib.h"
#include "ops/fast/fast.h"
#include "ops/quant.h"

/* An input that holds so many elements, whatever its shape. */
static enum linnet_code count_check(struct shape_call *c, int i, int64_t expected)
{
	const struct shape s = in_shape(c, i);
	dim n = s.rank < 0 ? DIM_NONE : shape_count(c->dims, &s, 0, s.rank);

	if (dim_is_int(n) && n != expected)
		return fail(c->e, LINNET_ESHAPE, "input \"%s\" has %lld elements; expected %lld", op_in(c->op, i)->name, (long long)n,
		            (long long)expected);
	return LINNET_OK;
}

/* Y[.., j] of n columns = A[.., :] w + bias[j], A: rows of k. */
static void put_column(struct kernel_call *c, const double *a, const double *w, int64_t k, int64_t j, int64_t n, const struct tensor *bias)
{
	for (int64_t row = 0; row < c->out[0]->n / n; row++) {
		double sum = bias ? tensor_get(bias, j) : 0;

		for (int64_t i = 0; i < k; i++)
			sum += a[row * k + i] * w[i];
		tensor_put(c->out[0], row * n + j, sum);
	}
}

/* ---- MatMulNBits ---- */

/*
 * A: [..., K]  Y: [..., N]  J = ceil(K / block) blocks of a row of the transposed matrix
 * B: [N, J, block bits / 8] bytes  scales: N J  zero_points: N rows of ceil(J bits / 8) bytes, or N J of A's type
 * g_idx: [K], the block whose scale a column has  bias: [N]
 */
static enum linnet_code shape_matmul_nbits(struct shape_call *c)
{
	int64_t k = int_attr(c, "K"), n = int_attr(c, "N"), block = int_attr(c, "block_size"), bits = int_attr(c, "bits");
	int64_t blocks = (k + block - 1) / block, bytes = block * bits / 8;
	struct shape s = in_shape(c, 0);

	TRY(quant_bits_check(c, bits));
	TRY(quant_block_check(c, block));
	TRY(count_check(c, 1, n * blocks * bytes));
	TRY(count_check(c, 2, n * blocks));
	if (in_given(c, 3) && c->in[3]->dt != DT_UNDEFINED)
		TRY(count_check(c, 3, c->in[3]->dt == DT_UINT8 ? n * ((blocks * bits + 7) / 8) : n * blocks));
	/* onnxruntime's tools pad g_idx to whole blocks */
	if (in_given(c, 4) && in_shape(c, 4).rank == 1 && in_shape(c, 4).d[0] != blocks * block)
		TRY(count_check(c, 4, k));
	TRY(count_check(c, 5, n));
	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (s.rank < 1)
		return LINNET_OK;
	TRY(length_join(c, "inner lengths", s.d[s.rank - 1], k, NULL));
	s.d[s.rank - 1] = n;
	c->out[0].shape = s;
	return LINNET_OK;
}

/* Y[.., n] = sum over k of A[.., k] (B[n, k] - zero_point) scale, of n and k's block, + bias[n]; without zero points half the range. */
static enum linnet_code matmul_nbits(struct kernel_call *c)
{
	int64_t k = attr_get(c->op, c->attr, "K")->i, n = attr_get(c->op, c->attr, "N")->i;
	int64_t block = attr_get(c->op, c->attr, "block_size")->i, bits = attr_get(c->op, c->attr, "bits")->i;
	int64_t blocks = (k + block - 1) / block, zeros = (blocks * bits + 7) / 8 * (8 / bits);
	const struct tensor *zero = in_tensor(c, 3), *place = in_tensor(c, 4), *bias = in_tensor(c, 5);
	struct linnet_error *e = c->e;
	const double *a;
	double *w;

	TRY(kernel_doubles(c, 0, &a));
	TRY_NEW(w, c->scratch, k);
	for (int64_t i = 0; place && i < k; i++)
		if (tensor_get_int(place, i) < 0 || tensor_get_int(place, i) >= blocks)
			return fail(e, LINNET_EVALUE, "g_idx has %lld; expected 0 to %lld", (long long)tensor_get_int(place, i), (long long)blocks - 1);
	if (place && bits == 4 && zero && zero->dt == DT_UINT8)
		zero = NULL; /* as onnxruntime, which does not read them then */
	for (int64_t j = 0; j < n; j++) {
		for (int64_t i = 0; i < k; i++) {
			int64_t at = place ? tensor_get_int(place, i) : i / block;
			double z = !zero ? (double)(1 << (bits - 1)) : zero->dt == DT_UINT8 ? (double)quant_unpack(zero, j * zeros + at, bits)
			                                                                : tensor_get(zero, j * blocks + at);

			w[i] = ((double)quant_unpack(c->in[1], j * blocks * block + i, bits) - z) * tensor_get(c->in[2], j * blocks + at);
		}
		put_column(c, a, w, k, j, n, bias);
	}
	return LINNET_OK;
}

/* ---- GatherBlockQuantized ---- */

/* How many numbers an element of data holds along its last axis: bytes are packed. */
static int64_t packed(enum dtype t, int64_t bits) { return t == DT_UINT8 ? 8 / bits : 1; }

/* block_size 0, of floats: the whole axis. */
static int64_t gather_block(const struct op *op, const struct attr *attr, int64_t length)
{
	int64_t block = attr_get(op, attr, "block_size")->i;

	return block ? block : length > 0 ? length : 1;
}

/*
 * data: [...], of bytes packed along the last axis  scales: as data, in blocks along quantize_axis; of floats it broadcasts
 * zero_points: as scales, packed as data  output: the axis gather_axis replaced by those of indices
 */
static enum linnet_code shape_gather_block(struct shape_call *c)
{
	const struct shape data = in_shape(c, 0), indices = in_shape(c, 1), scales = in_shape(c, 2), zero = in_shape(c, 3);
	int64_t bits = int_attr(c, "bits"), block = int_attr(c, "block_size"), per;
	enum dtype dt = c->in[0]->dt;
	bool floats = dtype_class(dt) == CLASS_FLOAT;
	struct shape *s = &c->out[0].shape, full;
	int gather, quantize;

	if (dt == DT_UNDEFINED)
		return LINNET_OK;
	if (dt == DT_UINT8)
		TRY(quant_bits_check(c, bits));
	else if (!floats && bits != 4)
		return fail(c->e, LINNET_EATTR, "attribute \"bits\" is %lld; expected 4 for %s", (long long)bits, dtype_name(dt));
	if (!floats || block)
		TRY(quant_block_check(c, block));
	if (floats && in_given(c, 3))
		return fail(c->e, LINNET_EMODEL, "zero points are given for floats");
	if (data.rank < 0)
		return LINNET_OK;
	TRY(axis_check(int_attr(c, "gather_axis"), data.rank, &gather, c->e));
	TRY(axis_check(int_attr(c, "quantize_axis"), data.rank, &quantize, c->e));
	if (dt == DT_UINT8 && (gather != 0 || quantize != data.rank - 1 || data.rank < 2))
		return fail(c->e, LINNET_ESHAPE, "bytes are gathered along axis %d and scaled along axis %d; expected the first and the last of more",
		            gather, quantize);
	per = packed(dt, bits);
	full = data;
	full.d[data.rank - 1] = dim_mul(c->dims, data.d[data.rank - 1], per);
	TRY(rank_check(c, 2, data.rank, data.rank));
	TRY(rank_check(c, 3, data.rank, data.rank));
	for (int i = 0; i < data.rank; i++) {
		dim d = i != quantize ? full.d[i] : floats && !block ? 1 : dim_ceil_div(c->dims, full.d[i], block);

		if (scales.rank > 0 && !(floats && i != quantize && scales.d[i] == 1))
			TRY(length_join(c, "lengths of the data, in blocks, and of the scales", d, scales.d[i], NULL));
		if (zero.rank > 0)
			TRY(length_join(c, "lengths of the scales and of the zero points", i == quantize ? dim_ceil_div(c->dims, d, per) : d, zero.d[i],
			                NULL));
	}
	if (indices.rank < 0)
		return LINNET_OK;
	TRY(rank_limit(data.rank - 1 + indices.rank, c->e));
	s->rank = 0;
	for (int i = 0; i < data.rank; i++)
		if (i != gather)
			s->d[s->rank++] = full.d[i];
		else
			for (int k = 0; k < indices.rank; k++)
				s->d[s->rank++] = indices.d[k];
	return LINNET_OK;
}

/* (x - zero point) scale; without zero points 0 or, of bytes, half the range. Indices out of range give zeros. */
static enum linnet_code gather_block_quantized(struct kernel_call *c)
{
	const struct tensor *data = c->in[0], *indices = c->in[1], *scales = c->in[2], *zero = in_tensor(c, 3);
	int64_t bits = attr_get(c->op, c->attr, "bits")->i, gather = attr_get(c->op, c->attr, "gather_axis")->i;
	int64_t quantize = attr_get(c->op, c->attr, "quantize_axis")->i, d[MAX_RANK], stride[MAX_RANK], box[MAX_RANK], at[MAX_RANK] = { 0 };
	int64_t block, i = 0, zeros;
	bool bytes = data->dt == DT_UINT8;
	int rank = data->rank;

	gather += gather < 0 ? rank : 0;
	quantize += quantize < 0 ? rank : 0;
	memcpy(d, data->d, sizeof d);
	d[rank - 1] *= packed(data->dt, bits);
	block = gather_block(c->op, c->attr, d[quantize]);
	zeros = zero ? zero->d[rank - 1] * packed(data->dt, bits) : 0;
	broadcast_strides(scales, rank, stride);
	memcpy(box, d, sizeof box);
	box[gather] = indices->n;
	if (c->out[0]->n == 0)
		return LINNET_OK;
	do {
		int64_t k = tensor_get_int(indices, at[gather]), x = 0, s = 0, z = 0;
		double v, z_value = 0;

		if (k < -d[gather] || k >= d[gather]) {
			tensor_put(c->out[0], i++, 0);
			continue;
		}
		for (int a = 0; a < rank; a++) {
			int64_t p = a == gather ? (k < 0 ? k + d[gather] : k) : at[a], q = a == quantize ? p / block : p;

			x = x * d[a] + p;
			s += q * stride[a];
			z = z * (a == rank - 1 && zero ? zeros : scales->d[a]) + q;
		}
		v = bytes ? (double)quant_unpack(data, x, bits) : tensor_get(data, x);
		if (bytes)
			z_value = zero ? (double)quant_unpack(zero, z, bits) : (double)(1 << (bits - 1));
		else if (zero)
			z_value = tensor_get(zero, z);
		tensor_put(c->out[0], i++, (v - z_value) * tensor_get(scales, s));
	} while (next_position(rank, box, at));
	return LINNET_OK;
}

/* ---- MatMulBnb4 ---- */

/* What the 16 codes stand for; bitsandbytes' types FP4 and NF4 (Dettmers et al., QLoRA, NeurIPS 2023, appendix E). */
static const float bnb4[2][16] = {
	{ 0, 0.00520833333F, 0.66666667F, 1, 0.33333333F, 0.5F, 0.16666667F, 0.25F, -0.0F, -0.00520833333F, -0.66666667F, -1, -0.33333333F,
	  -0.5F, -0.16666667F, -0.25F },
	{ -1, -0.6961928009986877F, -0.5250730514526367F, -0.39491748809814453F, -0.28444138169288635F, -0.18477343022823334F,
	  -0.09105003625154495F, 0, 0.07958029955625534F, 0.16093020141124725F, 0.24611230194568634F, 0.33791524171829224F,
	  0.44070982933044434F, 0.5626170039176941F, 0.7229568362236023F, 1 },
};

/* A: [..., K] or with transB 0 [..., N]  B: ceil(N K / 2) bytes  absmax: ceil(N K / block)  Y: [..., N] or [..., K] */
static enum linnet_code shape_matmul_bnb4(struct shape_call *c)
{
	int64_t k = int_attr(c, "K"), n = int_attr(c, "N"), block = int_attr(c, "block_size");
	bool transposed = int_attr(c, "transB");
	struct shape s = in_shape(c, 0);

	TRY(quant_block_check(c, block));
	TRY(count_check(c, 1, (n * k + 1) / 2));
	TRY(count_check(c, 2, (n * k + block - 1) / block));
	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (s.rank < 1)
		return LINNET_OK;
	TRY(length_join(c, "inner lengths", s.d[s.rank - 1], transposed ? k : n, NULL));
	s.d[s.rank - 1] = transposed ? n : k;
	c->out[0].shape = s;
	return LINNET_OK;
}

/* Y = A B^T with B: [N, K], numbers in sequence, the first in a byte's high bits, each a code times its block's absmax. */
static enum linnet_code matmul_bnb4(struct kernel_call *c)
{
	int64_t k = attr_get(c->op, c->attr, "K")->i, n = attr_get(c->op, c->attr, "N")->i, block = attr_get(c->op, c->attr, "block_size")->i;
	const float *code = bnb4[attr_get(c->op, c->attr, "quant_type")->i];
	bool transposed = attr_get(c->op, c->attr, "transB")->i != 0;
	int64_t inner = transposed ? k : n, columns = transposed ? n : k;
	struct linnet_error *e = c->e;
	const double *a;
	double *w;

	TRY(kernel_doubles(c, 0, &a));
	TRY_NEW(w, c->scratch, inner);
	for (int64_t j = 0; j < columns; j++) {
		for (int64_t i = 0; i < inner; i++) {
			int64_t at = transposed ? j * k + i : i * k + j;

			w[i] = (double)code[quant_unpack(c->in[1], at ^ 1, 4)] * tensor_get(c->in[2], at / block);
		}
		put_column(c, a, w, inner, j, columns, NULL);
	}
	return LINNET_OK;
}

/* ---- MatMulFpQ4 ---- */

enum { Q4_BLOCK = 32 };

/* Bytes of a block: its scale, with blk_quant_type 1 its zero point, its numbers. */
static int64_t q4_bytes(const struct attr *type) { return 4 + type->i + Q4_BLOCK / 2; }

/* A: [..., K]  B_shape: [2] is K, N  B: N columns of ceil(K / 32) blocks  Y: [..., N] */
static enum linnet_code shape_matmul_fpq4(struct shape_call *c)
{
	dim k = type_element(c->in[2], 0), n = type_element(c->in[2], 1);
	struct shape s = in_shape(c, 0);

	TRY(rank_check(c, 2, 1, 1));
	TRY(count_check(c, 2, 2));
	if (dim_is_int(k) && dim_is_int(n)) {
		dim bytes = dim_mul(NULL, dim_mul(NULL, n, dim_ceil_div(NULL, k, Q4_BLOCK)), q4_bytes(attr_get(c->op, c->attr, "blk_quant_type")));

		if (k < 1 || n < 1 || !dim_is_int(bytes))
			return fail(c->e, LINNET_EVALUE, "\"B_shape\" has %lld, %lld; expected lengths", (long long)k, (long long)n);
		TRY(count_check(c, 1, bytes));
	}
	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (s.rank < 1)
		return LINNET_OK;
	TRY(length_join(c, "inner lengths", s.d[s.rank - 1], k, NULL));
	s.d[s.rank - 1] = n;
	c->out[0].shape = s;
	return LINNET_OK;
}

/* Blocks are those of MLAS: a byte holds number l in its low bits and number l + 16 in its high ones; without zero points it is 8. */
static enum linnet_code matmul_fpq4(struct kernel_call *c)
{
	const struct attr *type = attr_get(c->op, c->attr, "blk_quant_type");
	int64_t k = tensor_get_int(c->in[2], 0), n = tensor_get_int(c->in[2], 1), size = q4_bytes(type);
	struct linnet_error *e = c->e;
	const uint8_t *block = c->in[1]->data;
	const double *a;
	double *w;

	TRY(kernel_doubles(c, 0, &a));
	TRY_NEW(w, c->scratch, k);
	for (int64_t j = 0; j < n; j++) {
		for (int64_t i = 0; i < k; i++) {
			int64_t l = i % Q4_BLOCK, byte;

			block += i > 0 && l == 0 ? size : 0;
			byte = block[4 + type->i + l % 16];
			w[i] = (double)((l < 16 ? byte & 15 : byte >> 4) - (type->i ? block[4] : 8)) * dtype_get(DT_FLOAT, block, 0);
		}
		block += size;
		put_column(c, a, w, k, j, n, NULL);
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

static const struct op rows[] = {
	{
		MS, .name = "MatMulNBits",
		.doc = "MatMul with a matrix of integers of 2, 4 or 8 bits, scaled in blocks. The reference computes in full precision "
		       "whatever accuracy_level says. As in onnxruntime, packed zero points of 4 bits are not read beside g_idx.",
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
		.kernel = matmul_nbits,
		.fast = FAST(&fast_matmul_nbits),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "GatherBlockQuantized",
		.doc = "Gather of quantised numbers, scaled in blocks. Indices out of range give zeros, as in onnxruntime.",
		.in = IN({ "data", T1, FLOW_NONE }, { "indices", T, FLOW_NONE }, { "scales", T2, FLOW_NONE },
		         { "zero_points", T1, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS({ .name = "bits", .kind = ATTR_INT, .i = 4 },
		              { .name = "block_size", .kind = ATTR_INT, .i = 128, .lo = 0, .hi = INT32_MAX },
		              { .name = "gather_axis", .kind = ATTR_INT }, { .name = "quantize_axis", .kind = ATTR_INT, .i = 1 }),
		.types = { [T] = INDICES, [T1] = SET(INT4) | SET(UINT4) | SET(UINT8) | FLOAT8S | SET(FLOAT4E2M1), [T2] = HALF_FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_gather_block,
		.kernel = gather_block_quantized,
		.fast = FAST(&fast_gather_nbits),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MatMulBnb4",
		.doc = "MatMul with a matrix of bitsandbytes' 4-bit floats (quant_type 0: FP4, 1: NF4), scaled in blocks.",
		.in = IN({ "A", T1, FLOW_LINEAR }, { "B", T2, FLOW_NONE }, { "absmax", T1, FLOW_LINEAR }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(HEADS("K"), HEADS("N"), { .name = "block_size", .kind = ATTR_INT, .flags = REQUIRED },
		              { .name = "quant_type", .kind = ATTR_INT, .flags = REQUIRED, .lo = 0, .hi = 1 }, FLAG("training_mode"),
		              { .name = "transB", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }),
		.types = { [T1] = HALF_FLOATS, [T2] = SET(UINT8) },
		.agree = AGREE_ROUND,
		.shape = shape_matmul_bnb4,
		.kernel = matmul_bnb4,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MatMulFpQ4",
		.doc = "MatMul with a matrix of 4-bit integers in onnxruntime's own blocks of 32, each with a scale and (blk_quant_type 1) a zero "
		       "point.",
		.in = IN({ "A", T1, FLOW_LINEAR }, { "B", T2, FLOW_NONE }, { "B_shape", T3, FLOW_NONE }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS({ .name = "blk_quant_type", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }),
		.types = { [T1] = SET(FLOAT), [T2] = SET(UINT8), [T3] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_matmul_fpq4,
		.kernel = matmul_fpq4,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_nbits_ops = FAMILY("contrib_nbits", rows);
