/* Operators of com.microsoft on tokens: embedding, hashing, decoding with n-grams. Shape functions, reference kernels, then rows. */
#include <math.h>
#include <string.h>

#include "ops/contrib.h"

/* ---- MurmurHash3 ---- */

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

/* MurmurHash3_x86_32 of n bytes. Source: A. Appleby, MurmurHash3.cpp, in the public domain. */
static uint32_t murmur(const unsigned char *p, size_t n, uint32_t h)
{
	for (size_t i = 0; i < n; i += 4) {
		uint32_t k = 0;

		for (size_t j = 0; j < 4 && i + j < n; j++)
			k |= (uint32_t)p[i + j] << 8 * j;
		h ^= rotate(k * 0xcc9e2d51, 15) * 0x1b873593;
		if (i + 4 <= n)
			h = rotate(h, 13) * 5 + 0xe6546b64;
	}
	h ^= (uint32_t)n;
	h = (h ^ h >> 16) * 0x85ebca6b;
	h = (h ^ h >> 13) * 0xc2b2ae35;
	return h ^ h >> 16;
}

static enum linnet_code shape_hash(struct shape_call *c)
{
	c->out[0].dt = int_attr(c, "positive") ? DT_UINT32 : DT_INT32;
	return shape_same(c);
}

static enum linnet_code hash(struct kernel_call *c)
{
	uint32_t seed = (uint32_t)attr_get(c->op, c->attr, "seed")->i;
	const struct tensor *x = c->in[0];
	size_t width = dtype_bytes(x->dt, 1);

	for (int64_t i = 0; i < x->n; i++) {
		const char *p = (const char *)x->data + (size_t)i * width;
		size_t size = width;

		if (x->dt == DT_STRING) {
			p = ((const struct text *)x->data)[i].p;
			size = ((const struct text *)x->data)[i].n;
		}
		tensor_put_int(c->out[0], i, murmur((const unsigned char *)p, size, seed));
	}
	return LINNET_OK;
}

/* ---- NGramRepeatBlock ---- */

/* input_ids: [B, S]  scores, scores_out: [B, vocabulary] */
static enum linnet_code shape_block(struct shape_call *c)
{
	const struct shape ids = in_shape(c, 0), scores = in_shape(c, 1);

	TRY(rank_check(c, 0, 2, 2));
	TRY(rank_check(c, 1, 2, 2));
	c->out[0].shape = scores;
	if (ids.rank == 2 && scores.rank == 2)
		return length_join(c, "lengths of the batch", ids.d[0], scores.d[0], &c->out[0].shape.d[0]);
	return LINNET_OK;
}

/* Minus infinity for every token that would end an n-gram which is in input_ids already, and whose beginning is their end. */
static enum linnet_code block_repeats(struct kernel_call *c)
{
	int64_t n = attr_get(c->op, c->attr, "ngram_size")->i, length = c->in[0]->d[1], words = c->in[1]->d[1];
	const struct tensor *ids = c->in[0];

	tensor_copy(c->out[0], c->in[1]);
	for (int64_t b = 0; b < ids->d[0]; b++)
		for (int64_t i = 0; i + n <= length; i++) {
			int64_t first = b * length + i, j = 0, word = tensor_get_int(ids, first + n - 1);

			while (j < n - 1 && tensor_get_int(ids, first + j) == tensor_get_int(ids, (b + 1) * length - (n - 1) + j))
				j++;
			if (j < n - 1)
				continue;
			if (word < 0 || word >= words)
				return fail(c->e, LINNET_EVALUE, "token %lld is not in [0, %lld]", (long long)word, (long long)words - 1);
			tensor_put(c->out[0], b * words + word, -INFINITY);
		}
	return LINNET_OK;
}

/* ---- BifurcationDetector ---- */

/* How many of the predicted tokens are taken: as long as they are those of the source, and one. pred may be NULL. */
static enum linnet_code taken(const struct tensor *src, const struct tensor *at, const struct tensor *pred, int64_t *n, struct linnet_error *e)
{
	int64_t from = tensor_get_int(at, 0), i = 0;

	*n = 0;
	if (!pred)
		return LINNET_OK;
	if (from < 0 || from > src->n)
		return fail(e, LINNET_EVALUE, "prev_suffix_match_idx is %lld; expected 0 to %lld", (long long)from, (long long)src->n);
	if (pred->n != src->n - from + 1)
		return fail(e, LINNET_ESHAPE, "%lld tokens are predicted; expected %lld, one more than the source still has", (long long)pred->n,
		            (long long)(src->n - from + 1));
	while (i < src->n - from && tensor_get_int(pred, i) == tensor_get_int(src, from + i))
		i++;
	*n = i + 1;
	return LINNET_OK;
}

/* src_tokens, cur_tokens, pred_tokens, tokens: vectors; the others: one number. */
static enum linnet_code shape_bifurcation(struct shape_call *c)
{
	const struct type *pred = in_given(c, 3) ? c->in[3] : NULL;
	const struct shape cur = in_shape(c, 1);
	dim length = DIM_NONE;

	TRY(rank_check(c, 0, 1, 1));
	TRY(rank_check(c, 1, 1, 1));
	TRY(scalar_check(c, 2));
	TRY(rank_check(c, 3, 1, 1));
	if (int_attr(c, "max_ngram_size") < int_attr(c, "min_ngram_size"))
		return fail(c->e, LINNET_EATTR, "max_ngram_size is %lld, less than min_ngram_size", (long long)int_attr(c, "max_ngram_size"));
	if (c->in[0]->value && c->in[2]->value && (!pred || pred->value))
		TRY(taken(c->in[0]->value, c->in[2]->value, pred ? pred->value : NULL, &length, c->e));
	else if (!pred)
		length = 0;
	c->out[0].shape = (struct shape){ .rank = 1, .d = { cur.rank == 1 ? dim_add(c->dims, cur.d[0], length) : DIM_NONE } };
	set_shape(c, 1, in_shape(c, 2));
	return LINNET_OK;
}

/* Where the last n tokens are in the source, from a place on; -1 when nowhere. */
static int64_t find_end(const struct tensor *src, int64_t from, const struct tensor *tokens, int64_t n)
{
	for (int64_t i = from; i + n <= src->n; i++) {
		int64_t k = 0;

		while (k < n && tensor_get_int(src, i + k) == tensor_get_int(tokens, tokens->n - n + k))
			k++;
		if (k == n)
			return i;
	}
	return -1;
}

/*
 * tokens: the current ones and those taken of the predicted. suffix_match_idx: the place in the source behind the last n of them, n as
 * large as they are found, where they are found once; -1 when nowhere. Where the first place is the source's end, that is the answer.
 */
static enum linnet_code bifurcation(struct kernel_call *c)
{
	int64_t least = attr_get(c->op, c->attr, "min_ngram_size")->i, most = attr_get(c->op, c->attr, "max_ngram_size")->i;
	const struct tensor *src = c->in[0], *cur = c->in[1];
	struct tensor *tokens;
	int64_t n, match = -1;

	TRY(taken(src, c->in[2], in_tensor(c, 3), &n, c->e));
	n += cur->n;
	TRY(tensor_new(c->scratch, DT_INT64, 1, &n, &tokens, c->e));
	for (int64_t i = 0; i < n; i++)
		tensor_put_int(tokens, i, i < cur->n ? tensor_get_int(cur, i) : tensor_get_int(c->in[3], i - cur->n));
	for (int64_t k = least; k <= most && k <= n; k++) {
		int64_t at = find_end(src, 0, tokens, k);

		if (at < 0)
			break;
		match = at + k;
		if (match >= src->n)
			break;
		if (find_end(src, at + 1, tokens, k) >= 0)
			match = -1;
	}
	if (c->out[0])
		tensor_copy(c->out[0], tokens);
	if (out_tensor(c, 1))
		tensor_put_int(c->out[1], 0, match);
	return LINNET_OK;
}

/* ---- Rows ---- */

#define GRAM(title, default) { .name = title, .kind = ATTR_INT, .i = default, .lo = 1, .hi = INT32_MAX }

static const struct op rows[] = {
	{
		MS, .name = "TorchEmbedding",
		.doc = "Rows of the weights, in the order the indices name them; the other inputs are about gradients.",
		.in = IN({ "weight", T, FLOW_LINEAR }, { "indices", T1 }, { "padding_idx", T1, FLOW_NONE, OPTIONAL },
		         { "scale_grad_by_freq", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.types = { [T] = NUMBERS, [T1] = SET(INT64), [T2] = SET(BOOL) },
		.agree = AGREE_BITS,
		.shape = shape_standard, .kernel = kernel_standard, .param = "Gather",
		.body = "{ Y = Gather (weight, indices) }",
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "MurmurHash3",
		.doc = "A hash of 32 bits of every element's bytes, as unsigned or signed number.",
		.in = IN({ "X", T1 }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS({ .name = "positive", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }, { .name = "seed", .kind = ATTR_INT }),
		.types = { [T1] = SET(INT32) | SET(INT64) | SET(UINT32) | SET(UINT64) | SET(FLOAT) | SET(DOUBLE) | SET(STRING),
		           [T2] = SET(INT32) | SET(UINT32) },
		.agree = AGREE_BITS,
		.shape = shape_hash, .kernel = hash,
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		MS, .name = "NGramRepeatBlock",
		.doc = "The scores, minus infinity for tokens that would repeat an n-gram of input_ids.",
		.in = IN({ "input_ids", T1 }, { "scores", T, FLOW_NONE }),
		.out = OUT({ "scores_out", T }),
		.attr = ATTRS({ .name = "ngram_size", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }),
		.types = { [T] = SET(FLOAT), [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_block, .kernel = block_repeats,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		MS, .name = "BifurcationDetector",
		.doc = "The tokens with those predicted as far as they are the source's, and one; and where in the source the last of them end. "
		       "onnxruntime gives the place behind the n-gram, its documentation that of the beginning.",
		.in = IN({ "src_tokens", T }, { "cur_tokens", T }, { "prev_suffix_match_idx", T }, { "pred_tokens", T, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "tokens", T }, { "suffix_match_idx", T }),
		.attr = ATTRS(GRAM("max_ngram_size", 3), GRAM("min_ngram_size", 1)),
		.types = { [T] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_bifurcation, .kernel = bifurcation,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_tokens_ops = FAMILY("contrib_tokens", rows);
