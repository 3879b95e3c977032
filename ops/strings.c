/*
 * Operators on strings: reference kernels, then rows. Strings are made in scratch memory, or are pieces of the inputs' ones, which
 * live as long. Text is UTF-8; bytes that are not are kept as they are.
 */
#include <string.h>

#include "ops/base/map.h"
#include "ops/base/utf8.h"
#include "ops/kernel.h"
#include "ops/regex.h"

static struct text text_at(const struct tensor *t, int64_t i) { return ((const struct text *)t->data)[i]; }

static void put_text(struct tensor *t, int64_t i, struct text s) { ((struct text *)t->data)[i] = s; }

static bool text_equal(struct text a, struct text b) { return a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n)); }

/* ---- StringConcat ---- */

static enum linnet_code string_concat(struct kernel_call *c)
{
	struct tensor *z = c->out[0];
	struct linnet_error *e = c->e;
	struct walk w;

	for (walk_init(&w, z, 2, c->in); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++) {
			struct text a = text_at(c->in[0], w.at[0] + i * w.step[0]), b = text_at(c->in[1], w.at[1] + i * w.step[1]);
			char *p;

			TRY_NEW(p, c->scratch, a.n + b.n);
			if (a.n)
				memcpy(p, a.p, a.n);
			if (b.n)
				memcpy(p + a.n, b.p, b.n);
			put_text(z, w.out + i, (struct text){ p, a.n + b.n });
		}
	return LINNET_OK;
}

/* ---- StringSplit ---- */

struct split {
	struct text rest, by;
	int64_t left; /* splits to make; any number when negative */
	bool done;
};

static struct split split_of(const struct op *op, const struct attr *attr, struct text s)
{
	const struct attr *by = attr_get(op, attr, "delimiter"), *most = attr_get(op, attr, "maxsplit");

	return (struct split){ .rest = s, .by = attr_given(by) ? by->s : (struct text){ 0 }, .left = attr_given(most) && most->i >= 0 ? most->i : -1 };
}

static void skip(struct text *s, size_t n)
{
	s->p += n;
	s->n -= n;
}

/* Bytes at the start of s that are white space or are none. */
static size_t span(struct text s, bool space)
{
	size_t n = 0;

	while (n < s.n) {
		uint32_t c = 0;
		size_t len = utf8_get(s.p + n, s.n - n, &c);

		if ((len && unicode_space(c)) != space)
			break;
		n += len ? len : 1;
	}
	return n;
}

/* Where b begins in s; s.n when it does not. */
static size_t find(struct text s, struct text b)
{
	for (size_t i = 0; i + b.n <= s.n; i++)
		if (!memcmp(s.p + i, b.p, b.n))
			return i;
	return s.n;
}

/*
 * The next piece. Delimiters part pieces, which may be empty. Without delimiter white space does, also where there is more of it, and
 * none of it begins a piece; the last piece, when splits have run out, keeps what is behind it.
 */
static bool split_next(struct split *s, struct text *piece)
{
	bool words = !s->by.n;
	size_t n;

	if (words && s->rest.n)
		skip(&s->rest, span(s->rest, true));
	if (s->done || (words && !s->rest.n))
		return false;
	n = !s->left || !s->rest.n ? s->rest.n : words ? span(s->rest, false) : find(s->rest, s->by);
	*piece = (struct text){ s->rest.p, n };
	s->done = n == s->rest.n;
	if (n)
		skip(&s->rest, n);
	if (!s->done && !words)
		skip(&s->rest, s->by.n);
	s->left--;
	return true;
}

static int64_t count_pieces(const struct op *op, const struct attr *attr, struct text s)
{
	struct split split = split_of(op, attr, s);
	struct text piece;
	int64_t n = 0;

	while (split_next(&split, &piece))
		n++;
	return n;
}

static enum linnet_code split_shape(struct shape_call *c)
{
	const struct tensor *x = c->in[0]->value;
	const struct shape *in = &c->in[0]->shape;
	struct shape s = *in;
	dim most = x ? 0 : DIM_NONE;

	for (int64_t i = 0; x && i < x->n; i++)
		most = larger_int(most, count_pieces(c->op, c->attr, text_at(x, i)));
	c->out[1].shape = *in;
	if (in->rank < 0)
		return LINNET_OK;
	TRY(rank_limit(in->rank + 1, c->e));
	s.d[s.rank++] = most;
	c->out[0].shape = s;
	return LINNET_OK;
}

static enum linnet_code split(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0], *z = c->out[1];

	for (int64_t i = 0; i < x->n; i++) {
		struct split s = split_of(c->op, c->attr, text_at(x, i));
		struct text piece;
		int64_t n = 0, width = y ? y->d[y->rank - 1] : 0;

		for (; split_next(&s, &piece); n++)
			if (y)
				put_text(y, i * width + n, piece);
		for (int64_t k = n; k < width; k++)
			put_text(y, i * width + k, (struct text){ 0 });
		if (z)
			tensor_put_int(z, i, n);
	}
	return LINNET_OK;
}

/* ---- StringNormalizer ---- */

/* The next character of s in the case that tells no cases apart; a byte that is not UTF-8 is like no character. */
static uint32_t next_folded(struct text *s, bool fold)
{
	uint32_t c = 0;
	size_t n = utf8_get(s->p, s->n, &c);

	if (!n)
		c = 0x110000u + (unsigned char)*s->p;
	skip(s, n ? n : 1);
	return fold ? unicode_lower(unicode_upper(c)) : c;
}

static bool same_word(struct text a, struct text b, bool fold)
{
	while (a.n && b.n)
		if (next_folded(&a, fold) != next_folded(&b, fold))
			return false;
	return !a.n && !b.n;
}

static bool is_kept(const struct op *op, const struct attr *attr, struct text s)
{
	const struct attr *stop = attr_get(op, attr, "stopwords");
	bool fold = !attr_get(op, attr, "is_case_sensitive")->i;

	for (size_t i = 0; attr_given(stop) && i < stop->n; i++)
		if (fold ? same_word(s, stop->strings[i], true) : text_equal(s, stop->strings[i]))
			return false;
	return true;
}

/* [C] or [1, C], without stop words, but not without elements. */
static enum linnet_code normalizer_shape(struct shape_call *c)
{
	const struct attr *stop = attr_get(c->op, c->attr, "stopwords");
	const struct shape *in = &c->in[0]->shape;
	const struct tensor *x = c->in[0]->value;
	struct shape *out = &c->out[0].shape;
	dim n = DIM_NONE;

	TRY(rank_check(c, 0, 1, 2));
	if (in->rank < 0)
		return LINNET_OK;
	if (in->rank == 2)
		TRY(length_join(c, "rows of the input and 1", in->d[0], 1, NULL));
	if (x) {
		n = 0;
		for (int64_t i = 0; i < x->n; i++)
			n += is_kept(c->op, c->attr, text_at(x, i));
	} else if (!attr_given(stop) || !stop->n) {
		n = in->d[in->rank - 1];
	}
	*out = (struct shape){ .rank = in->rank, .d = { 1, 1 } };
	out->d[in->rank - 1] = dim_max(c->dims, n, 1);
	return LINNET_OK;
}

/* Of languages that write Turkish, dotted and dotless i are two letters, each with both cases. */
static bool is_turkic(const struct attr *locale)
{
	return attr_given(locale) && locale->s.n >= 2 && (!memcmp(locale->s.p, "tr", 2) || !memcmp(locale->s.p, "az", 2)) &&
	       (locale->s.n == 2 || strchr("_-.@", locale->s.p[2]));
}

static uint32_t change_case(uint32_t c, bool upper, bool turkic)
{
	if (turkic && c == (upper ? 'i' : 'I'))
		return upper ? 0x130 : 0x131;
	return upper ? unicode_upper(c) : unicode_lower(c);
}

/* Character by character: no case change makes two of one. */
static enum linnet_code cased(struct kernel_call *c, struct text *s, bool upper)
{
	bool turkic = is_turkic(attr_get(c->op, c->attr, "locale"));
	struct linnet_error *e = c->e;
	struct text from = *s;
	size_t n = 0;
	char *p;

	TRY_NEW(p, c->scratch, 4 * from.n); /* every character as long as one can be */
	while (from.n) {
		uint32_t point = 0;
		size_t len = utf8_get(from.p, from.n, &point);

		if (len)
			n += utf8_put(change_case(point, upper, turkic), p + n);
		else
			p[n++] = *from.p;
		skip(&from, len ? len : 1);
	}
	*s = (struct text){ p, n };
	return LINNET_OK;
}

static enum linnet_code normalizer(struct kernel_call *c)
{
	const struct text action = attr_get(c->op, c->attr, "case_change_action")->s;
	const struct tensor *x = c->in[0];
	int64_t n = 0;

	for (int64_t i = 0; i < x->n; i++) {
		struct text s = text_at(x, i);

		if (!is_kept(c->op, c->attr, s))
			continue;
		if (action.p[0] != 'N')
			TRY(cased(c, &s, action.p[0] == 'U'));
		put_text(c->out[0], n++, s);
	}
	if (!n)
		put_text(c->out[0], 0, (struct text){ 0 });
	return LINNET_OK;
}

/* ---- RegexFullMatch ---- */

static enum linnet_code full_match(struct kernel_call *c)
{
	struct regex *r;

	TRY(regex_new(&r, attr_get(c->op, c->attr, "pattern")->s, REGEX_WHOLE, c->scratch, c->e));
	for (int64_t i = 0; i < c->in[0]->n; i++) {
		bool matches;

		TRY(regex_match(r, text_at(c->in[0], i), &matches, c->e));
		tensor_put_int(c->out[0], i, matches);
	}
	return LINNET_OK;
}

/* ---- TfIdfVectorizer ---- */

/* The pool: n-grams of words, those of one word first, then those of two, ... */
struct pool {
	const int64_t *ints;          /* of integers */
	const struct text *strings;   /* or of strings */
	size_t nword, ngram;
	const struct attr *from;      /* ngram_counts: where n-grams of 1, 2, ... words begin */
	const struct attr *column;    /* ngram_indexes: of each n-gram */
	const struct attr *weight;    /* of each n-gram, 1 when not given */
};

static size_t pool_end(const struct pool *p, size_t k) { return k + 1 < p->from->n ? (size_t)p->from->ints[k + 1] : p->nword; }

static enum linnet_code pool_init(struct pool *p, const struct op *op, const struct attr *attr, struct linnet_error *e)
{
	const struct attr *ints = attr_get(op, attr, "pool_int64s"), *strings = attr_get(op, attr, "pool_strings");

	*p = (struct pool){ .from = attr_get(op, attr, "ngram_counts"), .column = attr_get(op, attr, "ngram_indexes"), .weight = attr_get(op, attr, "weights") };
	if (attr_given(ints) == attr_given(strings))
		return fail(e, LINNET_EATTR, "exactly one of pool_int64s and pool_strings is to be given");
	p->ints = attr_given(ints) ? ints->ints : NULL;
	p->strings = attr_given(ints) ? NULL : strings->strings;
	p->nword = attr_given(ints) ? ints->n : strings->n;
	for (size_t k = 0; k < p->from->n; k++) {
		int64_t at = p->from->ints[k];

		if (at < (k ? p->from->ints[k - 1] : 0) || (uint64_t)at > p->nword)
			return fail(e, LINNET_EATTR, "ngram_counts: %lld is no place in a pool of %zu behind those before", (long long)at, p->nword);
	}
	for (size_t k = 0; k < p->from->n; k++) {
		size_t words = pool_end(p, k) - (size_t)p->from->ints[k];

		if (words % (k + 1))
			return fail(e, LINNET_EATTR, "%zu words of the pool are no number of %zu-grams", words, k + 1);
		p->ngram += words / (k + 1);
	}
	if (p->column->n != p->ngram || !p->ngram)
		return fail(e, LINNET_EATTR, "ngram_indexes has %zu members; the pool has %zu n-grams", p->column->n, p->ngram);
	if (attr_given(p->weight) && p->weight->n != p->ngram)
		return fail(e, LINNET_EATTR, "weights has %zu members; the pool has %zu n-grams", p->weight->n, p->ngram);
	return LINNET_OK;
}

static enum linnet_code tfidf_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	struct pool p;
	int64_t columns = 0;

	TRY(rank_check(c, 0, 1, 2));
	TRY(pool_init(&p, c->op, c->attr, c->e));
	if (attr_get(c->op, c->attr, "max_gram_length")->i < attr_get(c->op, c->attr, "min_gram_length")->i)
		return fail(c->e, LINNET_EATTR, "max_gram_length is smaller than min_gram_length");
	if (c->in[0]->dt != DT_UNDEFINED && (c->in[0]->dt == DT_STRING) != (p.strings != NULL))
		return fail(c->e, LINNET_ETYPE, "elements of type %s are not looked for in a pool of %s", dtype_name(c->in[0]->dt),
		            p.strings ? "strings" : "integers");
	for (size_t i = 0; i < p.ngram; i++)
		columns = larger_int(columns, p.column->ints[i] + 1);
	if (in->rank == 1)
		c->out[0].shape = (struct shape){ .rank = 1, .d = { columns } };
	else if (in->rank == 2)
		c->out[0].shape = (struct shape){ .rank = 2, .d = { in->d[0], columns } };
	return LINNET_OK;
}

/* A word as a name for a map, NULL for one that is in no pool. */
static enum linnet_code word_name(struct kernel_call *c, const int64_t *i, struct text s, const char **name)
{
	*name = NULL;
	if (!i && s.n && memchr(s.p, 0, s.n))
		return LINNET_OK;
	*name = i ? arena_fmt(c->scratch, "%lld", (long long)*i) : arena_strn(c->scratch, s.n ? s.p : "", s.n);
	return *name ? LINNET_OK : fail_mem(c->e);
}

/* The words of the input or the pool as numbers; 0 for one that the pool has not. add: the map takes those it has not. */
static enum linnet_code number_words(struct kernel_call *c, struct map *m, const int64_t *ints, const struct text *strings, size_t n,
                                     bool add, uint32_t **out)
{
	struct linnet_error *e = c->e;

	TRY_NEW(*out, c->scratch, n);
	for (size_t i = 0; i < n; i++) {
		const char *name;

		TRY(word_name(c, ints ? &ints[i] : NULL, strings ? strings[i] : (struct text){ 0 }, &name));
		if (!name || map_get(m, name, &(*out)[i]) || !add)
			continue;
		(*out)[i] = m->n + 1;
		if (map_put(m, name, m->n + 1))
			return fail_mem(e);
	}
	return LINNET_OK;
}

/* Words at, at + step, ... as a name: "3,17,5,". */
static void gram_name(char *to, const uint32_t *word, size_t n, size_t step)
{
	static const char digit[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		for (uint32_t v = word[i * step]; v; v >>= 4)
			*to++ = digit[v & 15];
		*to++ = ',';
	}
	*to = '\0';
}

/* n-grams by their names. */
static enum linnet_code name_grams(struct kernel_call *c, const struct pool *p, const uint32_t *word, struct map *grams)
{
	struct linnet_error *e = c->e;
	uint32_t gram = 0, other;

	for (size_t k = 0; k < p->from->n; k++)
		for (size_t at = (size_t)p->from->ints[k]; at < pool_end(p, k); at += k + 1, gram++) {
			char *name;

			TRY_NEW(name, c->scratch, 9 * (k + 1) + 1);
			gram_name(name, word + at, k + 1, 1);
			if (map_get(grams, name, &other))
				return fail(e, LINNET_EATTR, "n-gram %lu is in the pool again as %lu", (unsigned long)other, (unsigned long)gram);
			if (map_put(grams, name, gram))
				return fail_mem(e);
		}
	return LINNET_OK;
}

/* How often each n-gram occurs in a row of n words, every (skip + 1)-th word taken; those of one word once. */
static void count_grams(const struct kernel_call *c, const struct map *grams, const uint32_t *word, size_t n, size_t longest, char *name,
                        double *count)
{
	size_t least = (size_t)attr_get(c->op, c->attr, "min_gram_length")->i, most = (size_t)attr_get(c->op, c->attr, "max_gram_length")->i;
	uint64_t skips = (uint64_t)attr_get(c->op, c->attr, "max_skip_count")->i;

	for (size_t step = 1; step <= n && step <= skips + 1; step++)
		for (size_t len = least > 1 || step == 1 ? least : 2; len <= most && len <= longest && (len - 1) * step < n; len++)
			for (size_t at = 0; at + (len - 1) * step < n; at++) {
				uint32_t gram;

				gram_name(name, word + at, len, step);
				if (map_get(grams, name, &gram))
					count[gram]++;
			}
}

/* y[.., column[g]] += f(count of g): the count, 1 or 0 for any or none, the count or that times the n-gram's weight. */
static enum linnet_code tfidf(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct text mode = attr_get(c->op, c->attr, "mode")->s;
	struct tensor *y = c->out[0];
	struct linnet_error *e = c->e;
	int64_t n = x->d[x->rank - 1], columns = y->d[y->rank - 1];
	struct map words, grams;
	uint32_t *pooled, *word;
	int64_t *ints = NULL;
	double *count, *sum;
	struct pool p;
	char *name;

	TRY(pool_init(&p, c->op, c->attr, e));
	map_init(&words, c->scratch);
	map_init(&grams, c->scratch);
	TRY(number_words(c, &words, p.ints, p.strings, p.nword, true, &pooled));
	TRY(name_grams(c, &p, pooled, &grams));
	if (x->dt != DT_STRING) {
		TRY_NEW(ints, c->scratch, x->n);
		for (int64_t i = 0; i < x->n; i++)
			ints[i] = tensor_get_int(x, i);
	}
	TRY(number_words(c, &words, ints, ints ? NULL : x->data, (size_t)x->n, false, &word));
	TRY_NEW(name, c->scratch, 9 * p.from->n + 1);
	TRY_NEW(count, c->scratch, p.ngram);
	TRY_NEW(sum, c->scratch, columns);
	for (int64_t row = 0; row * columns < y->n; row++) {
		memset(count, 0, p.ngram * sizeof *count);
		memset(sum, 0, (size_t)columns * sizeof *sum);
		count_grams(c, &grams, word + row * n, (size_t)n, p.from->n, name, count);
		for (size_t g = 0; g < p.ngram; g++) {
			double v = mode.p[0] == 'I' ? count[g] > 0 : count[g];

			sum[p.column->ints[g]] += v * (mode.n > 2 && attr_given(p.weight) ? (double)p.weight->floats[g] : 1);
		}
		for (int64_t k = 0; k < columns; k++)
			tensor_put(y, row * columns + k, sum[k]);
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

static const struct op rows[] = {
	{
		.name = "StringConcat", .since = 20,
		.doc = "The first string followed by the second.",
		.in = IN({ "X", T }, { "Y", T }),
		.out = OUT({ "Z", T }),
		.types = { [T] = SET(STRING) },
		.agree = AGREE_BITS,
		.shape = shape_broadcast, .kernel = string_concat,
	},
	{
		.name = "StringSplit", .since = 20,
		.doc = "The parts of strings between delimiters (or white space), along a new last axis filled up with empty strings, and "
		       "their numbers.",
		.in = IN({ "X", T1 }),
		.out = OUT({ "Y", T2 }, { "Z", T3 }),
		.attr = ATTRS({ .name = "delimiter", .kind = ATTR_STRING, .flags = OPTIONAL },
		              { .name = "maxsplit", .kind = ATTR_INT, .flags = OPTIONAL }),
		.types = { [T1] = SET(STRING), [T2] = SET(STRING), [T3] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = split_shape, .kernel = split,
	},
	{
		.name = "StringNormalizer", .since = 10,
		.doc = "Strings without those that are stop words, in lower or upper case. Case is Unicode's, of one character for one; of "
		       "`locale` only Turkish and Azerbaijani make a difference. One empty string when none is left.",
		.in = IN({ "X", T }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "case_change_action", .kind = ATTR_STRING, .s = "NONE", .oneof = "LOWER|UPPER|NONE" },
		              { .name = "is_case_sensitive", .kind = ATTR_INT, .lo = 0, .hi = 1 },
		              { .name = "locale", .kind = ATTR_STRING, .flags = OPTIONAL },
		              { .name = "stopwords", .kind = ATTR_STRINGS, .flags = OPTIONAL }),
		.types = { [T] = SET(STRING) },
		.agree = AGREE_BITS,
		.shape = normalizer_shape, .kernel = normalizer,
	},
	{
		.name = "RegexFullMatch", .since = 20,
		.doc = "Whether all of the string matches a regular expression of RE2's syntax.",
		.in = IN({ "X", T1 }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS({ .name = "pattern", .kind = ATTR_STRING, .flags = REQUIRED }),
		.types = { [T1] = SET(STRING), [T2] = SET(BOOL) },
		.agree = AGREE_BITS,
		.shape = shape_same, .kernel = full_match,
	},
	{
		.name = "TfIdfVectorizer", .since = 9,
		.doc = "How often each n-gram of a pool occurs in a sequence of words, its words in a row or with equally many others between "
		       "them; or whether it occurs; either times the n-gram's weight.",
		.in = IN({ "X", T }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS({ .name = "max_gram_length", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX },
		              { .name = "max_skip_count", .kind = ATTR_INT, .flags = REQUIRED, .lo = 0, .hi = INT32_MAX },
		              { .name = "min_gram_length", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX },
		              { .name = "mode", .kind = ATTR_STRING, .flags = REQUIRED, .oneof = "TF|IDF|TFIDF" },
		              { .name = "ngram_counts", .kind = ATTR_INTS, .flags = REQUIRED },
		              { .name = "ngram_indexes", .kind = ATTR_INTS, .flags = REQUIRED, .lo = 0, .hi = INT32_MAX },
		              { .name = "pool_int64s", .kind = ATTR_INTS, .flags = OPTIONAL },
		              { .name = "pool_strings", .kind = ATTR_STRINGS, .flags = OPTIONAL },
		              { .name = "weights", .kind = ATTR_FLOATS, .flags = OPTIONAL }),
		.types = { [T] = INDICES | SET(STRING), [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = tfidf_shape, .kernel = tfidf,
	},
};

const struct op_family strings_ops = FAMILY("strings", rows);
