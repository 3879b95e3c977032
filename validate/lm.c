/* How well language models predict a text. */
#include <math.h>
#include <string.h>

#include "ops/base/clock.h"
#include "validate/lm.h"

struct evaluation {
	struct lm lm;
	const struct tensor *stream;
	const struct lm_opt *opt;
	struct arena *scratch; /* of one run */
	struct lm_result *out;
};

/* ---- Windows ---- */

/* -ln softmax(x)[target] */
static double surprise(const struct tensor *x, int64_t at, int64_t n, int64_t target)
{
	double most = -INFINITY, sum = 0;

	for (int64_t i = 0; i < n; i++)
		most = fmax(most, tensor_get(x, at + i));
	for (int64_t i = 0; i < n; i++)
		sum += exp(tensor_get(x, at + i) - most);
	return most + log(sum) - tensor_get(x, at + target);
}

static enum linnet_code count(struct evaluation *m, const struct tensor *logits, int64_t from, struct linnet_error *e)
{
	const struct tokenizer *t = m->opt->tokenizer;
	int64_t width = logits->d[2];

	for (int64_t i = 0; i < logits->d[0] * logits->d[1]; i++) {
		int64_t target = tensor_get_int(m->stream, from + i + 1);
		double nll;

		if (target < 0 || target >= width)
			return fail(e, LINNET_EVALUE, "token %lld of the stream is %lld; the model has %lld tokens", (long long)(from + i + 1),
			            (long long)target, (long long)width);
		if (t && target >= t->n)
			return fail(e, LINNET_EVALUE, "token %lld of the stream is %lld; the vocabulary has %lld", (long long)(from + i + 1),
			            (long long)target, (long long)t->n);
		nll = surprise(logits, i * width, width, target);
		m->out->nll += nll;
		if (m->opt->token)
			m->opt->token(m->opt->token_ctx, from + i + 1, nll);
		m->out->bytes += t ? (int64_t)t->token[target].n : 0;
	}
	m->out->tokens += logits->d[0] * logits->d[1];
	return LINNET_OK;
}

static enum linnet_code run_windows(struct evaluation *m, int64_t from, int64_t rows, int64_t length, struct linnet_error *e)
{
	const struct graph *g = m->lm.g;
	struct tensor *ids, *logits;
	double start;
	enum linnet_code code;

	TRY(tensor_new(m->scratch, g->value[g->in[m->lm.in[m->lm.tokens]]].type.dt, 2, (int64_t[]){ rows, length }, &ids, e));
	for (int64_t i = 0; i < rows * length; i++)
		tensor_put_int(ids, i, tensor_get_int(m->stream, from + i));
	start = seconds_now();
	session_reset(m->lm.session);
	TRY(lm_run(&m->lm, ids, 0, m->scratch, &logits, e));
	m->out->seconds += seconds_now() - start;
	code = count(m, logits, from, e);
	tensor_release(logits);
	return code;
}

static enum linnet_code evaluate(struct evaluation *m, const struct graph *g, struct arena *a, struct linnet_error *e)
{
	int64_t context = m->opt->context > 0 ? m->opt->context : 512, batch = m->opt->batch > 0 ? m->opt->batch : 8;
	int64_t total = m->stream->n - 1, from = 0;

	TRY(lm_open(&m->lm, g, &m->opt->run, a, e));
	while (from < total) {
		int64_t windows = (total - from) / context, rows = windows < batch ? windows : batch, length = context;

		if (!windows) {
			rows = 1;
			length = total - from;
		}
		if (m->opt->progress)
			m->opt->progress(m->opt->progress_ctx, from, total);
		TRY(run_windows(m, from, rows, length, e));
		arena_reset(m->scratch);
		from += rows * length;
	}
	m->out->peak = plan_peak_bytes(session_plan(m->lm.session));
	m->out->prepared = plan_prepared_bytes(session_plan(m->lm.session));
	return LINNET_OK;
}

enum linnet_code lm_evaluate(const struct graph *g, const struct tensor *stream, const struct lm_opt *opt, struct lm_result *out,
                             struct linnet_error *e)
{
	struct evaluation m = { .stream = stream, .opt = opt, .out = out, .scratch = arena_new() };
	struct arena *a = arena_new();
	enum linnet_code code;

	memset(out, 0, sizeof *out);
	if (!a || !m.scratch)
		code = fail_mem(e);
	else if (stream->rank != 1 || stream->n < 2 || !dtype_in(stream->dt, INTS))
		code = fail(e, LINNET_ETYPE, "the stream of tokens should be a list of at least two integers");
	else
		code = evaluate(&m, g, a, e);
	lm_close(&m.lm);
	arena_free(m.scratch);
	arena_free(a);
	return code;
}
