/* Generating text with a language model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/base/rng.h"
#include "ops/base/clock.h"
#include "validate/lm.h"

struct choice {
	int64_t id;
	double p;
};

/* The more likely first, then the lower token. */
static int by_chance(const void *a, const void *b)
{
	const struct choice *x = a, *y = b;

	return x->p != y->p ? (x->p < y->p) - (x->p > y->p) : (x->id > y->id) - (x->id < y->id);
}

/* The next token from one row of logits; list: room for n choices. */
static enum linnet_code choose(const struct tensor *x, int64_t at, int64_t n, const struct generate_opt *opt, struct rng *r, struct choice *list,
                               int64_t *id, struct linnet_error *e)
{
	double most = -INFINITY, sum = 0, kept = 0, u;
	int64_t k = opt->top_k > 0 && opt->top_k < n ? opt->top_k : n, best = 0;

	for (int64_t i = 0; i < n; i++) {
		double v = tensor_get(x, at + i);

		if (isnan(v) || v == INFINITY)
			return fail(e, LINNET_EVALUE, "the logit of token %lld is %g", (long long)i, v);
		best = v > most ? i : best;
		most = v > most ? v : most;
	}
	*id = best;
	if (opt->temperature <= 0 || most == -INFINITY)
		return LINNET_OK;
	for (int64_t i = 0; i < n; i++) {
		list[i] = (struct choice){ i, exp((tensor_get(x, at + i) - most) / opt->temperature) };
		sum += list[i].p;
	}
	if (k < n || (opt->top_p > 0 && opt->top_p < 1))
		qsort(list, (size_t)n, sizeof *list, by_chance);
	for (int64_t i = 0; i < k; i++) {
		kept += list[i].p;
		if (opt->top_p > 0 && opt->top_p < 1 && kept >= opt->top_p * sum)
			k = i + 1;
	}
	u = rng_unit(r) * kept;
	for (int64_t i = 0; i < k; i++) {
		*id = list[i].id;
		u -= list[i].p;
		if (u < 0)
			break;
	}
	return LINNET_OK;
}

struct generator {
	struct lm lm;
	const struct generate_opt *opt;
	struct generate_result *out;
	struct arena *a, *scratch;
	int64_t *text, n; /* the prompt and what has been made */
	struct rng rng;
	struct choice *list;
	int64_t vocabulary;
};

/* Run over the last tokens, all for a model without states; *next: the token after them. */
static enum linnet_code advance(struct generator *m, int64_t from, int64_t *next, double *seconds, struct linnet_error *e)
{
	const struct graph *g = m->lm.g;
	struct tensor *ids, *logits;
	double start = seconds_now();
	enum linnet_code code = LINNET_OK;
	int64_t width;

	TRY(tensor_new(m->scratch, g->value[g->in[m->lm.in[m->lm.tokens]]].type.dt, 2, (int64_t[]){ 1, m->n - from }, &ids, e));
	for (int64_t i = from; i < m->n; i++)
		tensor_put_int(ids, i - from, m->text[i]);
	TRY(lm_run(&m->lm, ids, from, m->scratch, &logits, e));
	*seconds += seconds_now() - start;
	width = logits->d[2];
	if (width != m->vocabulary) {
		m->vocabulary = width;
		m->list = arena_get(m->a, (size_t)width, sizeof *m->list);
		code = m->list ? LINNET_OK : fail_mem(e);
	}
	if (!code && !width)
		code = fail(e, LINNET_ESHAPE, "the logits have no tokens");
	if (!code)
		code = choose(logits, (m->n - from - 1) * width, width, m->opt, &m->rng, m->list, next, e);
	tensor_release(logits);
	arena_reset(m->scratch);
	return code;
}

static enum linnet_code generate(struct generator *m, const struct graph *g, const int64_t *prompt, int64_t n, struct linnet_error *e)
{
	int64_t from = 0, next;

	if (n < 1)
		return fail(e, LINNET_EVALUE, "the prompt has no tokens");
	if (m->opt->tokens < 0 || m->opt->tokens > (int64_t)1 << 32 || n > (int64_t)1 << 32)
		return fail(e, LINNET_ELIMIT, "a text of %lld tokens and more", (long long)m->opt->tokens);
	TRY_NEW(m->text, m->a, n + m->opt->tokens);
	memcpy(m->text, prompt, (size_t)n * sizeof *prompt);
	m->n = m->out->prompt = n;
	TRY(lm_open(&m->lm, g, &m->opt->run, m->a, e));
	while (m->out->tokens < m->opt->tokens) {
		TRY(advance(m, from, &next, m->out->tokens ? &m->out->seconds : &m->out->prompt_seconds, e));
		if (next == m->opt->stop) {
			m->out->stopped = true;
			break;
		}
		from = session_nstate(m->lm.session) ? m->n : 0;
		m->text[m->n++] = next;
		m->out->tokens++;
		if (m->opt->token)
			m->opt->token(m->opt->ctx, next);
	}
	m->out->state_bytes = session_state_bytes(m->lm.session);
	return LINNET_OK;
}

enum linnet_code lm_generate(const struct graph *g, const int64_t *prompt, int64_t n, const struct generate_opt *opt, struct generate_result *out,
                             struct linnet_error *e)
{
	struct generator m = { .opt = opt, .out = out, .a = arena_new(), .scratch = arena_new(), .rng = { opt->seed } };
	enum linnet_code code;

	memset(out, 0, sizeof *out);
	code = m.a && m.scratch ? generate(&m, g, prompt, n, e) : fail_mem(e);
	lm_close(&m.lm);
	arena_free(m.scratch);
	arena_free(m.a);
	return code;
}
