/*
 * The demonstration: a language model with softmax attention is converted into linear form for every target, with fixed feature maps and by a recipe, which is
 * calibrated; written, read back, run, and measured. Every number of the table is measured in this run.
 *
 *   demo MODEL TRAINING TOKENS TOKENIZER FOLDER
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "calibrate/calibrate.h"
#include "cli/cli.h"
#include "runtime/data.h"
#include "validate/validate.h"

enum { NLENGTH = 4, SECONDS_ALLOWED = 40 };

/* What is calibrated, and for how long: what fits into a minute. */
static const struct recipe short_recipe = { .name = "gated-delta-64", .mechanism = "gated-delta", .window = 64,
	                                    .stage = { { "transfer", LOSS_TRANSFER, WEIGHTS_NEW, 5e-3, 1 } } };
static const double minutes = 1;

static const int64_t lengths[NLENGTH] = { 512, 2048, 8192, 16384 };

struct globals globals;

/* What one model's row says. */
struct row {
	const char *form, *map, *path;
	double perplexity, bits;
	double rate[NLENGTH];    /* tokens a second; < 0: not enough time, 0: not enough memory */
	int64_t peak[NLENGTH];
	int64_t state, file;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct run_opt run_options(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	return (struct run_opt){ .max_memory = (int64_t)pages * size / 4 * 3 };
}

static void show_progress(void *ctx, int64_t done, int64_t total)
{
	progress(ctx, done, total);
}

static enum linnet_code load(const char *path, struct linnet_model **m, struct linnet_error *e)
{
	enum linnet_code code;

	*m = model_new(NULL, e);
	code = *m ? proto_load(*m, path, e) : LINNET_EMEM;
	if (!code)
		code = graph_import(*m, e);
	return err_file(e, code, path);
}

/* Load, convert, write; then what the file says is what is measured. */
static enum linnet_code make(const char *source, const char *path, const struct convert_opt *opt, struct linnet_error *e)
{
	struct convert_report report;
	struct linnet_model *m;
	enum linnet_code code = load(source, &m, e);

	if (!code)
		code = convert_model(m, opt, &report, e);
	if (!code)
		code = graph_export(m, report.opset, e);
	if (!code)
		code = err_file(e, proto_save(m, path, false, e), path);
	model_free(m);
	return code;
}

static void show_step(void *ctx, const struct calibrate_event *ev)
{
	char line[160], left[40];

	(void)ctx;
	snprintf(line, sizeof line, "calibrating, %s (%d of %d): loss %.4f, %s left", ev->stage, ev->index + 1, ev->of, ev->train->loss,
	         human_seconds(ev->train->seconds / (double)ev->train->step * (double)(ev->train->steps - ev->train->step), left, sizeof left));
	progress(line, ev->train->step, ev->train->steps);
}

/* The weights that calibration finds for opt, in the arena of *m, which is the source and stays as it is. */
static enum linnet_code train_on(const char *source, const char *stream, struct convert_opt *opt, struct linnet_model **m, struct linnet_error *e)
{
	struct calibrate_opt c = { .convert = *opt, .recipe = &short_recipe, .minutes = minutes, .measured = MEASURE_LOSS, .report = show_step };
	struct calibrate_result r = { 0 };
	struct train_data *data = NULL;
	enum linnet_code code = load(source, m, e);

	if (!code)
		code = data_new(&data, e);
	if (!code)
		code = data_add(data, NULL, stream, e);
	if (!code)
		code = calibrate(*m, &c, data, NULL, &r, e);
	progress_end();
	for (int i = 0; !code && i < r.nstage; i++)
		printf("%s, %s: %lld steps, %lld tokens in %.0f s\n", short_recipe.name, r.stage[i].name, (long long)r.stage[i].steps, (long long)r.stage[i].tokens,
		       r.stage[i].seconds);
	fflush(stdout);
	data_free(data);
	opt->given = r.weight;
	opt->ngiven = r.nweight;
	return code;
}

static enum linnet_code open_graph(const char *path, struct linnet_model **m, struct linnet_error *e)
{
	enum linnet_code code = load(path, m, e);

	return code ? code : err_file(e, pass_run_all((*m)->graph, NULL, e), path);
}

/* Tokens [from, from + n) of the stream, around its end again, as [1, n]. */
static enum linnet_code ids(struct arena *a, const struct tensor *tokens, int64_t from, int64_t n, struct tensor **out, struct linnet_error *e)
{
	TRY(tensor_new(a, DT_INT64, 2, (int64_t[]){ 1, n }, out, e));
	for (int64_t i = 0; i < n; i++)
		tensor_put_int(*out, i, tensor_get_int(tokens, (from + i) % tokens->n));
	return LINNET_OK;
}

static enum linnet_code call(struct session *s, const struct tensor *x, struct linnet_error *e)
{
	struct tensor *out[64] = { NULL };

	TRY(session_run(s, (const struct tensor *const[]){ x }, out, e));
	for (int i = 0; i < session_nout(s); i++)
		tensor_release(out[i]);
	return LINNET_OK;
}

/* A whole sequence at once, for each length, in a plan of its own so that the peak is of that length. */
static enum linnet_code time_whole(const struct graph *g, const struct tensor *tokens, struct row *r, struct linnet_error *e)
{
	struct run_opt opt = run_options();
	double last = 0;

	for (int i = 0; i < NLENGTH; i++) {
		struct arena *a = arena_new();
		struct session *s = NULL;
		struct tensor *x;
		struct linnet_error quiet = { 0 };
		enum linnet_code code = a ? ids(a, tokens, 0, lengths[i], &x, e) : fail_mem(e);
		double growth = i ? (double)lengths[i] / (double)lengths[i - 1] : 0;

		progress("timing at length", lengths[i], 0);
		if (i && last * growth * growth > SECONDS_ALLOWED) { /* as if quadratic: it may be */
			r->rate[i] = -1;
			arena_free(a);
			continue;
		}
		if (!code)
			code = session_new(g, &opt, NULL, 0, &s, e);
		if (!code) {
			double t = 0, begin;
			int runs = 0;

			code = call(s, x, &quiet); /* the first run decides kernels and fills the pool */
			for (begin = now(); !code && (runs < 1 || (runs < 5 && now() - begin < 1)); runs++)
				code = call(s, x, &quiet);
			t = (now() - begin) / (runs ? runs : 1);
			last = t;
			r->rate[i] = code ? 0 : (double)lengths[i] / t;
			r->peak[i] = plan_peak_bytes(session_plan(s));
			if (code == LINNET_EMEM || code == LINNET_ELIMIT)
				code = LINNET_OK;
			else if (code)
				*e = quiet;
		}
		session_free(s);
		arena_free(a);
		TRY(code);
	}
	return LINNET_OK;
}

/* One token at a time; the clock is read at each length. */
static enum linnet_code time_steps(const struct graph *g, const struct tensor *tokens, struct row *r, struct linnet_error *e)
{
	struct run_opt opt = run_options();
	struct arena *a = arena_new();
	struct session *s = NULL;
	enum linnet_code code = a ? session_new(g, &opt, NULL, 0, &s, e) : fail_mem(e);
	double begin = now();

	for (int64_t t = 0, i = 0; !code && i < NLENGTH; t++) {
		struct tensor *x;

		if (t == lengths[i]) {
			r->rate[i] = (double)t / (now() - begin);
			r->peak[i++] = plan_peak_bytes(session_plan(s));
			t--;
			if (i < NLENGTH && (now() - begin) / (double)t * (double)lengths[i] > SECONDS_ALLOWED) {
				for (; i < NLENGTH; i++)
					r->rate[i] = -1;
			}
			continue;
		}
		progress("stepping, token", t, lengths[NLENGTH - 1]);
		arena_reset(a);
		code = ids(a, tokens, t, 1, &x, e);
		if (!code)
			code = call(s, x, e);
	}
	r->state = code ? 0 : session_state_bytes(s);
	session_free(s);
	arena_free(a);
	return code;
}

static enum linnet_code measure(struct row *r, const struct tensor *tokens, const struct tokenizer *tokenizer, struct linnet_error *e)
{
	struct lm_opt opt = { .run = run_options(), .tokenizer = tokenizer, .progress = show_progress,
	                      .progress_ctx = (void *)(uintptr_t)r->path };
	struct lm_result lm;
	struct linnet_model *m = NULL;
	struct stat st;
	enum linnet_code code = open_graph(r->path, &m, e);

	if (!code)
		code = lm_evaluate(m->graph, tokens, &opt, &lm, e);
	if (!code) {
		r->perplexity = exp(lm.nll / (double)lm.tokens);
		r->bits = lm.nll / log(2) / (double)lm.bytes;
		r->file = stat(r->path, &st) ? 0 : (int64_t)st.st_size;
		code = strcmp(r->form, "step") ? time_whole(m->graph, tokens, r, e) : time_steps(m->graph, tokens, r, e);
	}
	model_free(m);
	progress_end();
	return code;
}

static void print_table(const struct row *r, int n)
{
	struct table t;
	char buf[32];

	table_init(&t, 14, "llrrrrrrrrrrrr");
	for (const char *const *h = (const char *const[]){ "form", "map", "perplexity", "bits/byte", "tok/s 512", "2048", "8192", "16384", "peak 512",
	                                                   "2048", "8192", "16384", "state", "file", NULL };
	     *h; h++)
		table_add(&t, "%s", *h);
	for (int i = 0; i < n; i++) {
		table_add(&t, "%s", r[i].form);
		table_add(&t, "%s", r[i].map);
		table_add(&t, "%.2f", r[i].perplexity);
		table_add(&t, "%.4f", r[i].bits);
		for (int k = 0; k < NLENGTH; k++)
			if (r[i].rate[k] > 0)
				table_add(&t, "%.0f", r[i].rate[k]);
			else
				table_add(&t, "%s", r[i].rate[k] < 0 ? "no time" : "no memory");
		for (int k = 0; k < NLENGTH; k++)
			table_add(&t, "%s", r[i].rate[k] > 0 ? human_bytes(r[i].peak[k], buf, sizeof buf) : "-");
		table_add(&t, "%s", r[i].state ? human_bytes(r[i].state, buf, sizeof buf) : "-");
		table_add(&t, "%s", human_bytes(r[i].file, buf, sizeof buf));
	}
	table_print(&t, stdout, true);
}

/* What the exact passes find in the source, a line an operator. */
static enum linnet_code print_found(const char *path, struct linnet_error *e)
{
	static const char *const names[] = { "Attention", "GLU", "RMSNormalization", "LayerNormalization", "RotaryEmbedding" };
	struct linnet_model *m = NULL;
	enum linnet_code code = open_graph(path, &m, e);

	if (!code)
		printf("%s: recognised", path);
	for (size_t k = 0; !code && k < sizeof names / sizeof *names; k++) {
		const struct node *first = NULL;
		int n = 0;

		for (node_id i = 1; i < m->graph->nnode; i++)
			if (!m->graph->node[i].dead && m->graph->node[i].known && !strcmp(m->graph->node[i].op->name, names[k])) {
				first = n++ ? first : &m->graph->node[i];
			}
		if (n)
			printf("%s %d %s", k ? "," : "", n, names[k]);
		if (first && !strcmp(names[k], "Attention")) {
			const struct shape *q = &m->graph->value[first->in[0]].type.shape, *kv = &m->graph->value[first->in[1]].type.shape;

			if (q->rank == 4 && kv->rank == 4)
				printf(" (%lld heads, %lld key heads of %lld, %s)", (long long)q->d[1], (long long)kv->d[1], (long long)q->d[3],
				       node_attr(first, "is_causal")->i ? "causal" : "not causal");
		}
		if (first && !strcmp(names[k], "GLU"))
			printf(" (%.*s)", (int)node_attr(first, "activation")->s.n, node_attr(first, "activation")->s.p);
	}
	if (!code)
		putchar('\n');
	fflush(stdout);
	model_free(m);
	return code;
}

enum { MOST_ROWS = 16 };

static enum linnet_code add_row(struct row *row, int *n, const char *source, const char *folder, const char *map, const struct convert_opt *opt,
                                struct arena *a, struct linnet_error *e)
{
	const char *form = target_names[opt->target];

	row[*n] = (struct row){ .form = form, .map = map, .path = arena_fmt(a, "%s/%s-%s.onnx", folder, map, form) };
	if (!row[*n].path)
		return fail_mem(e);
	return make(source, row[(*n)++].path, opt, e);
}

/* The softmax row, then a row a map and target; what is calibrated before and after. */
static enum linnet_code demo(char **argv, struct arena *a, struct linnet_error *e)
{
	static const char *const maps[] = { "elu", "relu" };
	static const enum target targets[] = { TARGET_ONNX, TARGET_ORT, TARGET_PORTABLE, TARGET_STEP }, trained[] = { TARGET_ONNX, TARGET_STEP };
	const char *source = argv[1], *folder = argv[5];
	struct convert_opt by_recipe = { .target = TARGET_ONNX, .strict = true };
	struct row row[MOST_ROWS] = { { 0 } };
	struct linnet_model *teacher = NULL;
	struct named_tensor *list;
	struct tokenizer *vocabulary;
	enum linnet_code code;
	int n = 0, count;

	TRY(data_load(argv[3], DT_UNDEFINED, NULL, a, &list, &count, e));
	TRY(tokenizer_load(argv[4], a, &vocabulary, e));
	TRY(print_found(source, e));
	row[n++] = (struct row){ .form = "softmax", .map = "-", .path = source };
	for (size_t k = 0; k < sizeof maps / sizeof *maps; k++)
		for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
			TRY(add_row(row, &n, source, folder, maps[k], &(struct convert_opt){ .mechanism = mechanism_find(maps[k]), .target = targets[i], .strict = true }, a, e));
	TRY(add_row(row, &n, source, folder, "window-64", &(struct convert_opt){ .mechanism = mechanism_find("window"), .window = 64, .strict = true }, a, e));
	recipe_apply(&short_recipe, &by_recipe);
	TRY(add_row(row, &n, source, folder, short_recipe.name, &by_recipe, a, e));
	code = train_on(source, argv[2], &by_recipe, &teacher, e);
	for (size_t i = 0; !code && i < sizeof trained / sizeof *trained; i++) {
		by_recipe.target = trained[i];
		code = add_row(row, &n, source, folder, "calibrated", &by_recipe, a, e);
	}
	model_free(teacher);
	TRY(code);
	printf("%d models written; held-out text: %lld tokens, windows of 512\n\n", n - 1, (long long)list[0].t->n);
	for (int i = 0; i < n; i++) {
		note("%d of %d: %s", i + 1, n, row[i].path);
		TRY(measure(&row[i], list[0].t, vocabulary, e));
	}
	print_table(row, n);
	printf("\ntok/s: one sequence of that length; step: one token at a time up to that length. peak: activations, weights not counted.\n"
	       "Rows of maps and of %s are approximate and not calibrated. Calibrated: the same, trained as above; perplexity %+.1f%% beside softmax.\n"
	       "window-64: softmax over the last 64 tokens and nothing else, beside which what has such a window must stand.\n\nWritten:\n",
	       short_recipe.name, 100 * (row[n - 1].perplexity / row[0].perplexity - 1));
	for (int i = 1; i < n; i++)
		printf("  %s\n", row[i].path);
	return LINNET_OK;
}

int main(int argc, char **argv)
{
	struct linnet_error e = { 0 };
	struct arena *a;
	int status = 0;

	if (argc != 6) {
		fprintf(stderr, "usage: demo MODEL TRAINING.npy TOKENS.npy TOKENIZER FOLDER\n");
		return 2;
	}
	if (mkdir(argv[5], 0777) && errno != EEXIST) {
		fprintf(stderr, "demo: %s cannot be made\n", argv[5]);
		return 3;
	}
	a = arena_new();
	if (!a || demo(argv, a, &e))
		status = report_error(&e);
	arena_free(a);
	return status;
}
