/* Language models: how well they predict a text. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "graph/file.h"
#include "validate/validate.h"

struct lm {
	const struct graph *g;
	const struct tensor *stream;
	const struct lm_opt *opt;
	struct session *session;
	struct arena *scratch; /* of one run */
	uint32_t *in, nin;     /* inputs that are no states */
	int logits;            /* which output that is no state */
	int tokens;            /* which of `in` */
	struct lm_result *out;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- Vocabulary ---- */

enum linnet_code lm_vocabulary(const char *path, struct arena *a, int64_t **bytes, int64_t *n, struct linnet_error *e)
{
	struct bytes f;
	size_t lines = 0, at = 0;

	TRY(file_load(a, path, (int64_t)1 << 32, &f, e));
	for (size_t i = 0; i < f.n; i++)
		lines += f.p[i] == '\n';
	TRY_NEW(*bytes, a, lines + 1);
	*n = 0;
	while (at < f.n) {
		size_t end = at, hex = at;

		while (end < f.n && f.p[end] != '\n')
			end++;
		while (hex < end && f.p[hex] != ' ')
			hex++;
		if (end > at && f.p[at] != '#') {
			if (hex == at || (hex - at) % 2)
				return err_file(e, fail(e, LINNET_EFORMAT, "token %lld is not written as pairs of hexadecimal digits", (long long)*n),
				                path);
			(*bytes)[(*n)++] = (int64_t)(hex - at) / 2;
		}
		at = end + 1;
	}
	return LINNET_OK;
}

/* ---- The model's inputs and outputs ---- */

static bool is_state(const struct lm *m, const char *name, bool input)
{
	for (int i = 0; i < session_nstate(m->session); i++)
		if (!strcmp(name, input ? session_pair(m->session, i).input : session_pair(m->session, i).output))
			return true;
	return false;
}

static enum linnet_code find_inputs(struct lm *m, struct linnet_error *e)
{
	const struct graph *g = m->g;
	int n = 0;

	m->tokens = m->logits = -1;
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct value *v = &g->value[g->in[i]];
		bool other = strstr(v->name, "mask") || strstr(v->name, "position");

		if (is_state(m, v->name, true))
			continue;
		if (m->tokens < 0 && !other && dtype_in(v->type.dt, INDICES) && v->type.shape.rank == 2)
			m->tokens = (int)m->nin;
		else if (!other && !v->has_default)
			return fail(e, LINNET_EUNSUPPORTED, "input \"%s\" is neither tokens [batch, sequence] nor a mask nor a position", v->name);
		m->in[m->nin++] = i;
	}
	for (uint32_t i = 0; i < g->nout; i++) {
		const struct value *v = &g->value[g->out[i]];

		if (is_state(m, v->name, false))
			continue;
		if (m->logits < 0 && dtype_class(v->type.dt) == CLASS_FLOAT && v->type.shape.rank == 3)
			m->logits = n;
		n++;
	}
	if (m->tokens < 0)
		return fail(e, LINNET_EUNSUPPORTED, "the model has no integer input [batch, sequence] for tokens");
	return m->logits < 0 ? fail(e, LINNET_EUNSUPPORTED, "the model has no float output [batch, sequence, vocabulary]") : LINNET_OK;
}

/* Everything but tokens: ones for a mask, positions from 0; inputs with a default keep it. */
static enum linnet_code fill_other(struct lm *m, const struct value *v, int64_t rows, int64_t length, const struct tensor **out,
                                   struct linnet_error *e)
{
	const struct shape *s = &v->type.shape;
	int64_t d[MAX_RANK] = { 0 };
	struct tensor *t;

	if (v->has_default)
		return LINNET_OK;
	if (s->rank < 0)
		return fail(e, LINNET_EUNSUPPORTED, "the rank of input \"%s\" is not known", v->name);
	for (int i = 0; i < s->rank; i++)
		d[i] = dim_is_int(s->d[i]) ? s->d[i] : s->rank > 1 && !i ? rows : length;
	TRY(tensor_new(m->scratch, v->type.dt, s->rank, d, &t, e));
	for (int64_t i = 0; i < t->n; i++)
		tensor_put(t, i, strstr(v->name, "mask") ? 1 : (double)(s->rank ? i % d[s->rank - 1] : 0));
	*out = t;
	return LINNET_OK;
}

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

static enum linnet_code count(struct lm *m, const struct tensor *logits, int64_t from, int64_t rows, int64_t length,
                              struct linnet_error *e)
{
	int64_t width = logits->rank == 3 ? logits->d[2] : 0;

	if (logits->rank != 3 || logits->d[0] != rows || logits->d[1] != length)
		return fail(e, LINNET_ESHAPE, "the logits should be [%lld,%lld,vocabulary]", (long long)rows, (long long)length);
	for (int64_t i = 0; i < rows * length; i++) {
		int64_t target = tensor_get_int(m->stream, from + i + 1);

		if (target < 0 || target >= width)
			return fail(e, LINNET_EVALUE, "token %lld of the stream is %lld; the model has %lld tokens", (long long)(from + i + 1),
			            (long long)target, (long long)width);
		if (m->opt->bytes && target >= m->opt->nbytes)
			return fail(e, LINNET_EVALUE, "token %lld of the stream is %lld; the vocabulary has %lld", (long long)(from + i + 1),
			            (long long)target, (long long)m->opt->nbytes);
		m->out->nll += surprise(logits, i * width, width, target);
		m->out->bytes += m->opt->bytes ? m->opt->bytes[target] : 0;
	}
	m->out->tokens += rows * length;
	return LINNET_OK;
}

static enum linnet_code run_windows(struct lm *m, int64_t from, int64_t rows, int64_t length, struct linnet_error *e)
{
	const struct graph *g = m->g;
	const struct tensor **in;
	struct tensor *ids, **out;
	double start;
	enum linnet_code code;

	TRY_NEW(in, m->scratch, m->nin);
	TRY_NEW(out, m->scratch, g->nout);
	TRY(tensor_new(m->scratch, g->value[g->in[m->in[m->tokens]]].type.dt, 2, (int64_t[]){ rows, length }, &ids, e));
	for (int64_t i = 0; i < rows * length; i++)
		tensor_put_int(ids, i, tensor_get_int(m->stream, from + i));
	for (uint32_t i = 0; i < m->nin; i++)
		if ((int)i == m->tokens)
			in[i] = ids;
		else
			TRY(fill_other(m, &g->value[g->in[m->in[i]]], rows, length, &in[i], e));
	start = now();
	session_reset(m->session);
	TRY(session_run(m->session, in, out, e));
	m->out->seconds += now() - start;
	code = count(m, out[m->logits], from, rows, length, e);
	for (int i = 0; i < session_nout(m->session); i++)
		tensor_release(out[i]);
	return code;
}

static enum linnet_code evaluate(struct lm *m, struct arena *a, struct linnet_error *e)
{
	int64_t context = m->opt->context > 0 ? m->opt->context : 512, batch = m->opt->batch > 0 ? m->opt->batch : 8;
	int64_t total = m->stream->n - 1, from = 0;

	TRY_NEW(m->in, a, m->g->nin);
	TRY(session_new(m->g, &m->opt->run, NULL, 0, &m->session, e));
	TRY(find_inputs(m, e));
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
	m->out->peak = plan_peak_bytes(session_plan(m->session));
	m->out->prepared = plan_prepared_bytes(session_plan(m->session));
	return LINNET_OK;
}

enum linnet_code lm_evaluate(const struct graph *g, const struct tensor *stream, const struct lm_opt *opt, struct lm_result *out,
                             struct linnet_error *e)
{
	struct lm m = { .g = g, .stream = stream, .opt = opt, .out = out, .scratch = arena_new() };
	struct arena *a = arena_new();
	enum linnet_code code;

	memset(out, 0, sizeof *out);
	if (!a || !m.scratch)
		code = fail_mem(e);
	else if (stream->rank != 1 || stream->n < 2 || !dtype_in(stream->dt, INTS))
		code = fail(e, LINNET_ETYPE, "the stream of tokens should be a list of at least two integers");
	else
		code = evaluate(&m, a, e);
	session_free(m.session);
	arena_free(m.scratch);
	arena_free(a);
	return code;
}
