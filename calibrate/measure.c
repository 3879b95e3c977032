/* Measuring language models by token. */
#include "calibrate/measure.h"

#include <math.h>
#include <string.h>

#include "validate/validate.h"

/* ---- Tokens that need recall ---- */

/* Pairs of tokens with a count and the place of the last one: open addressing. */
struct pairs {
	struct pair {
		uint64_t key; /* of the pair, plus one; 0: free */
		int64_t value;
	} *slot;
	size_t mask;
};

static enum linnet_code pairs_new(struct pairs *p, int64_t n, struct arena *a, struct linnet_error *e)
{
	size_t size = 16;

	while (size < 2 * (size_t)n)
		size *= 2;
	p->mask = size - 1;
	TRY_NEW(p->slot, a, size);
	return LINNET_OK;
}

/* The value of a pair, at first 0. */
static int64_t *pair_at(struct pairs *p, uint64_t a, uint64_t b)
{
	uint64_t key = (a << 32 | b) + 1, h = key * 0x9e3779b97f4a7c15u;
	size_t i = (h >> 20) & p->mask;

	while (p->slot[i].key && p->slot[i].key != key)
		i = (i + 1) & p->mask;
	p->slot[i].key = key;
	return &p->slot[i].value;
}

static uint64_t token(const struct tensor *t, int64_t i) { return (uint64_t)tensor_get_int(t, i); }

enum linnet_code recall_tokens(const struct tensor *stream, const struct tensor *train, int64_t context, int64_t far, int64_t rare, uint8_t *need,
                               struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct pairs known, seen;
	enum linnet_code code = a ? pairs_new(&known, train->n, a, e) : fail_mem(e);

	if (!code)
		code = pairs_new(&seen, context + 1, a, e);
	for (int64_t i = 1; !code && i < train->n; i++)
		++*pair_at(&known, token(train, i - 1), token(train, i));
	memset(need, 0, (size_t)stream->n);
	for (int64_t from = 0; !code && from < stream->n - 1; from += context) {
		memset(seen.slot, 0, (seen.mask + 1) * sizeof *seen.slot);
		for (int64_t i = from + 1; i <= from + context && i < stream->n; i++) {
			int64_t *last = pair_at(&seen, token(stream, i - 1), token(stream, i));

			need[i] = *last && i - *last >= far && *pair_at(&known, token(stream, i - 1), token(stream, i)) <= rare;
			*last = i;
		}
	}
	arena_free(a);
	return code;
}

/* ---- Figures ---- */

struct tally {
	struct quality *out;
	const uint8_t *need;
};

static void count(void *ctx, int64_t at, double nll)
{
	struct tally *t = ctx;

	if (!t->need[at])
		return;
	t->out->recall += nll;
	t->out->recall_tokens++;
}

static struct tensor head_of(const struct tensor *stream, int64_t most)
{
	struct tensor t = *stream;

	if (most > 0 && most < t.n) {
		t.bytes = t.bytes / (size_t)t.n * (size_t)most;
		t.d[0] = t.n = most;
	}
	return t;
}

enum linnet_code measure_lm(const struct graph *g, const struct tensor *stream, const uint8_t *need, int64_t context, int64_t batch, int threads,
                            struct quality *out, struct linnet_error *e)
{
	struct tally t = { .out = out, .need = need };
	struct lm_opt opt = { .run.threads = threads, .context = context, .batch = batch, .token = count, .token_ctx = &t };
	struct lm_result r;

	out->recall = 0;
	out->recall_tokens = 0;
	TRY(lm_evaluate(g, stream, &opt, &r, e));
	out->nll = r.nll / (double)r.tokens;
	out->recall = out->recall_tokens ? out->recall / (double)out->recall_tokens : NAN;
	return LINNET_OK;
}

struct places {
	double sum[QUALITY_SPANS];
	int64_t n[QUALITY_SPANS];
	int64_t context, window;
};

static void place(void *ctx, int64_t at, double nll)
{
	struct places *p = ctx;
	int64_t i = (at - 1) % p->window / p->context;
	int span = 0;

	while (i >= 1 << span)
		span++;
	p->sum[span] += nll;
	p->n[span]++;
}

enum linnet_code measure_longest(const struct graph *g, const struct tensor *stream, int64_t *context, int threads, struct linnet_error *e)
{
	enum { LEAST = 16 };

	struct linnet_error first = { 0 };

	for (int64_t n = *context; n >= LEAST || n == *context; n /= 2) {
		struct tensor part = head_of(stream, n + 1);
		struct lm_opt opt = { .run.threads = threads, .context = n, .batch = 1 };
		struct lm_result r;
		struct linnet_error other = { 0 };

		if (!lm_evaluate(g, &part, &opt, &r, n == *context ? &first : &other)) {
			*context = n;
			return LINNET_OK;
		}
	}
	*e = first;
	return first.code;
}

enum linnet_code measure_long(const struct graph *g, const struct tensor *stream, int64_t context, int threads, struct quality *out,
                              struct linnet_error *e)
{
	enum { WINDOWS = 2 };

	for (int64_t window = context << (QUALITY_SPANS - 1); window > context; window /= 2) {
		struct places p = { .context = context, .window = window };
		struct tensor part = head_of(stream, WINDOWS * window + 1);
		struct lm_opt opt = { .run.threads = threads, .context = window, .batch = 1, .token = place, .token_ctx = &p };
		struct lm_result r;
		struct linnet_error short_of = { 0 };

		if (part.n <= window)
			continue;
		if (lm_evaluate(g, &part, &opt, &r, &short_of) == LINNET_EMEM)
			return fail_mem(e);
		if (short_of.code)
			continue;
		for (int i = 0; i < QUALITY_SPANS; i++)
			out->span[i] = p.n[i] ? p.sum[i] / (double)p.n[i] : NAN;
		out->speed = r.seconds > 0 ? (double)r.tokens / r.seconds : NAN;
		return LINNET_OK;
	}
	return LINNET_OK;
}
