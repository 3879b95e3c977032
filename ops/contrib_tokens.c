/* Operators of com.microsoft on text and tokens: cutting, embedding, hashing, decoding with n-grams. Shape functions, reference kernels, then rows. */
#include <math.h>
#include <string.h>

#include "ops/base/utf8.h"
#include "ops/contrib.h"
#include "ops/regex.h"

/* ---- Tokenizer ---- */

/* What cuts strings: separators, one after the other on the pieces of the one before; a pattern of tokens; or every character is one. */
struct tokenizer {
	struct regex **separator; /* nseparator of them */
	struct regex *token;
	size_t nseparator;
	int64_t shortest; /* characters of a token, at least */
	bool mark;
};

struct tokens {
	struct text *p; /* room for as many as there are bytes */
	size_t n;
};

static bool is_text(struct text s, const char *what) { return s.n == strlen(what) && !memcmp(s.p, what, s.n); }

static enum linnet_code tokenizer_new(struct tokenizer *t, const struct op *op, const struct attr *attr, struct arena *a, struct linnet_error *e)
{
	const struct attr *by = attr_get(op, attr, "separators"), *as = attr_get(op, attr, "tokenexp");
	bool cut = attr_given(by), characters;

	*t = (struct tokenizer){ .shortest = attr_get(op, attr, "mincharnum")->i, .mark = attr_get(op, attr, "mark")->i != 0 };
	if (cut ? !by->n : !attr_given(as) || !as->s.n)
		return fail(e, LINNET_EATTR, "separators or tokenexp is to say what tokens are");
	characters = cut ? by->n == 1 && !by->strings[0].n : is_text(as->s, ".");
	if (characters && t->shortest > 1)
		return fail(e, LINNET_EATTR, "mincharnum is %lld; tokens are single characters", (long long)t->shortest);
	if (characters)
		return LINNET_OK;
	if (!cut)
		return regex_new(&t->token, as->s, REGEX_FIND, a, e);
	TRY_NEW(t->separator, a, by->n);
	for (; t->nseparator < by->n; t->nseparator++)
		TRY(regex_new(&t->separator[t->nseparator], by->strings[t->nseparator], REGEX_FIND, a, e));
	return LINNET_OK;
}

/* Bytes of the character at s.p[at]. */
static size_t character(struct text s, size_t at) { return utf8_get(s.p + at, s.n - at, &(uint32_t){ 0 }); }

static bool long_enough(const struct tokenizer *t, struct text s)
{
	int64_t n = 0;

	for (size_t at = 0; at < s.n && n < t->shortest; at += character(s, at))
		n++;
	return n >= t->shortest;
}

/* What is between separators in one piece. A separator of no character takes the one behind it. */
static enum linnet_code part(const struct tokenizer *t, struct regex *by, struct text s, struct tokens *to, struct linnet_error *e)
{
	size_t at = 0;

	while (at < s.n) {
		struct text match, piece = { s.p + at, s.n - at };

		TRY(regex_find(by, s, at, &match, e));
		if (match.p)
			piece.n = (size_t)(match.p - piece.p);
		if (long_enough(t, piece))
			to->p[to->n++] = piece;
		if (!match.p)
			break;
		at += piece.n;
		if (at < s.n)
			at += match.n ? match.n : character(s, at);
	}
	return LINNET_OK;
}

/* What the pattern matches; where that is too short the search goes on a character later. */
static enum linnet_code gather(const struct tokenizer *t, struct text s, struct tokens *to, struct linnet_error *e)
{
	size_t at = 0;

	while (at < s.n) {
		struct text match;

		TRY(regex_find(t->token, s, at, &match, e));
		if (!match.p)
			break;
		at = (size_t)(match.p - s.p);
		if (long_enough(t, match)) {
			to->p[to->n++] = match;
			at += match.n;
		} else if (at < s.n) {
			at += character(s, at);
		}
	}
	return LINNET_OK;
}

/* The tokens of s, pieces of it. */
static enum linnet_code tokenize(const struct tokenizer *t, struct text s, struct arena *a, struct tokens *out, struct linnet_error *e)
{
	struct tokens from = { 0 };

	for (size_t at = 0, n; at < s.n; at += n) {
		n = character(s, at);
		if (!n)
			return fail(e, LINNET_EVALUE, "a string is not UTF-8, from its byte %zu on", at);
	}
	out->n = 0;
	TRY_NEW(out->p, a, s.n + 1);
	if (t->token)
		return gather(t, s, out, e);
	if (!t->nseparator) {
		for (size_t at = 0; at < s.n; at += character(s, at))
			out->p[out->n++] = (struct text){ s.p + at, character(s, at) };
		return LINNET_OK;
	}
	TRY_NEW(from.p, a, s.n + 1);
	out->p[out->n++] = s;
	for (size_t k = 0; k < t->nseparator; k++) {
		struct tokens before = *out;

		*out = (struct tokens){ .p = from.p };
		from = before;
		for (size_t i = 0; i < from.n; i++)
			TRY(part(t, t->separator[k], from.p[i], out, e));
	}
	return LINNET_OK;
}

/* X: [C] or [N, C]; Y: one axis more, as long as the most tokens and, when there is one, two marks. */
static enum linnet_code shape_tokenizer(struct shape_call *c)
{
	const struct tensor *x = c->in[0]->value;
	struct shape s = c->in[0]->shape;
	dim most = x ? 0 : DIM_NONE;
	struct tokenizer t;
	struct tokens tokens;

	TRY(rank_check(c, 0, 1, 2));
	TRY(tokenizer_new(&t, c->op, c->attr, c->arena, c->e));
	for (int64_t i = 0; x && i < x->n; i++) {
		TRY(tokenize(&t, ((const struct text *)x->data)[i], c->arena, &tokens, c->e));
		most = larger_int(most, (int64_t)tokens.n);
	}
	if (s.rank < 0)
		return LINNET_OK;
	s.d[s.rank++] = most == DIM_NONE || !most ? most : most + 2 * t.mark;
	c->out[0].shape = s;
	return LINNET_OK;
}

static enum linnet_code tokenizer(struct kernel_call *c)
{
	const struct text *x = c->in[0]->data, pad = attr_get(c->op, c->attr, "pad_value")->s;
	struct tensor *y = c->out[0];
	int64_t width = y->d[y->rank - 1];
	struct text *to = y->data;
	struct tokenizer t;

	TRY(tokenizer_new(&t, c->op, c->attr, c->scratch, c->e));
	for (int64_t i = 0; i < c->in[0]->n && width; i++, to += width) {
		struct tokens tokens;
		int64_t n = 0;

		TRY(tokenize(&t, x[i], c->scratch, &tokens, c->e));
		if (t.mark)
			to[n++] = (struct text){ "\2", 1 };
		for (size_t k = 0; k < tokens.n; k++)
			to[n++] = tokens.p[k];
		if (t.mark)
			to[n++] = (struct text){ "\3", 1 };
		while (n < width)
			to[n++] = pad;
	}
	return LINNET_OK;
}

/* ---- WordConvEmbedding ---- */

enum { WORD_SEQUENCE, WORD_WEIGHTS, WORD_BIAS, WORD_CHARACTERS };

/* Sequence: [S, L]  W: [F, 1, K, E]  B: [F]  C: [vocabulary, E]  Y: [S, F] */
static enum linnet_code shape_word(struct shape_call *c)
{
	static const struct {
		const char *name;
		int axis;
	} size[] = { { "embedding_size", 0 }, { "conv_window_size", 2 }, { "char_embedding_size", 3 } };
	struct shape w = in_shape(c, WORD_WEIGHTS), sequence = in_shape(c, WORD_SEQUENCE), characters = in_shape(c, WORD_CHARACTERS);
	struct shape bias = in_shape(c, WORD_BIAS), none = { .rank = 4, .d = { DIM_NONE, 1, DIM_NONE, DIM_NONE } };

	TRY(rank_check(c, WORD_SEQUENCE, 2, 2));
	TRY(rank_check(c, WORD_WEIGHTS, 4, 4));
	TRY(rank_check(c, WORD_BIAS, 1, 1));
	TRY(rank_check(c, WORD_CHARACTERS, 2, 2));
	w = w.rank < 0 ? none : w;
	TRY(length_join(c, "input channels of W and 1", w.d[1], 1, NULL));
	for (int i = 0; i < 3; i++) {
		int64_t n = int_attr(c, size[i].name);

		if (n != -1)
			TRY(length_join(c, arena_fmt(c->arena, "axis %d of W and %s", size[i].axis, size[i].name), w.d[size[i].axis], n, NULL));
	}
	if (characters.rank == 2)
		TRY(length_join(c, "embeddings of characters in W and C", w.d[3], characters.d[1], NULL));
	if (bias.rank == 1)
		TRY(length_join(c, "lengths of W and B", w.d[0], bias.d[0], NULL));
	if (sequence.rank == 2 && dim_is_int(sequence.d[1]) && dim_is_int(w.d[2]) && w.d[2] > sequence.d[1])
		return fail(c->e, LINNET_ESHAPE, "windows of %lld characters in words of %lld", (long long)w.d[2], (long long)sequence.d[1]);
	set_shape(c, 0, (struct shape){ .rank = 2, .d = { sequence.rank == 2 ? sequence.d[0] : DIM_NONE, w.d[0] } });
	return LINNET_OK;
}

/* What filter f gives at n characters from p on. */
static double word_window(const struct kernel_call *c, int64_t f, const int32_t *p)
{
	const struct tensor *w = c->in[WORD_WEIGHTS], *characters = c->in[WORD_CHARACTERS];
	double sum = tensor_get(c->in[WORD_BIAS], f);

	for (int64_t k = 0; k < w->d[2]; k++)
		for (int64_t i = 0; p[k] >= 0 && p[k] < characters->d[0] && i < w->d[3]; i++)
			sum += tensor_get(w, (f * w->d[2] + k) * w->d[3] + i) * tensor_get(characters, p[k] * w->d[3] + i);
	return tanh(sum);
}

static enum linnet_code word_embedding(struct kernel_call *c)
{
	const struct tensor *sequence = c->in[WORD_SEQUENCE], *w = c->in[WORD_WEIGHTS];
	int64_t length = sequence->d[1], window = w->d[2];

	for (int64_t s = 0; s < sequence->d[0]; s++) {
		const int32_t *word = (const int32_t *)sequence->data + s * length;
		int64_t n = 0;

		for (int64_t i = 0; i < length && word[0] > 0; i++)
			n += word[i] > 0;
		for (int64_t f = 0; f < w->d[0]; f++) {
			double best = n ? -1 : 0;

			for (int64_t at = 0; n && (at == 0 || at + window <= n); at++)
				best = fmax(best, word_window(c, f, word + at));
			tensor_put(c->out[0], s * w->d[0] + f, best);
		}
	}
	return LINNET_OK;
}

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
#define WORD_SIZE(title) { .name = title, .kind = ATTR_INT, .i = -1, .lo = -1, .hi = INT32_MAX }

static const struct op rows[] = {
	{
		MS, .name = "Tokenizer",
		.doc = "Strings cut into tokens along a new last axis: at separators or where tokenexp matches, each as long as can be, or into "
		       "characters (tokenexp \".\" or one empty separator). Tokens of fewer than mincharnum characters are dropped, rows are filled "
		       "up with pad_value, and between the characters 2 and 3 when `mark` says so. Without any string onnxruntime leaves out the "
		       "new axis.",
		.in = IN({ "X", T }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "mark", .kind = ATTR_INT, .flags = REQUIRED },
		              { .name = "mincharnum", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX },
		              { .name = "pad_value", .kind = ATTR_STRING, .flags = REQUIRED },
		              { .name = "separators", .kind = ATTR_STRINGS, .flags = OPTIONAL },
		              { .name = "tokenexp", .kind = ATTR_STRING, .flags = OPTIONAL }),
		.types = { [T] = SET(STRING) },
		.agree = AGREE_BITS,
		.shape = shape_tokenizer, .kernel = tokenizer,
	},
	{
		MS, .name = "WordConvEmbedding",
		.doc = "Words, rows of Sequence up to their positive characters, by a convolution over the embeddings of their characters, its "
		       "hyperbolic tangent and the largest over positions. Words that begin with no character are zeros, and so are embeddings of "
		       "characters beyond the vocabulary; both as onnxruntime computes.",
		.in = IN({ "Sequence", T }, { "W", T1, FLOW_KINKED }, { "B", T1, FLOW_KINKED }, { "C", T1, FLOW_KINKED }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(WORD_SIZE("char_embedding_size"), WORD_SIZE("conv_window_size"),
		              WORD_SIZE("embedding_size")),
		.types = { [T] = SET(INT32), [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_word, .kernel = word_embedding,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
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
