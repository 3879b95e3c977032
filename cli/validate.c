/* linnet validate: whether two models agree; how well language models predict a text. */
#include <math.h>
#include <string.h>

#include "cli/inputs.h"
#include "cli/model.h"
#include "graph/pass.h"
#include "runtime/data.h"

struct validate_cli {
	struct opt_list input, dim;
	const char *data, *a_kernels, *b_kernels, *tokens, *tokenizer, *kernels;
	int64_t cases, seed, axis, threads, context, batch;
	double rtol, atol, budget;
	bool as_written;
};

static void on_case(void *ctx, int done, int total)
{
	(void)ctx;
	progress("comparing", done, total);
}

static void on_window(void *ctx, int64_t done, int64_t total)
{
	progress(ctx, done, total);
}

/* ---- Two models ---- */

static json_t *real(double x)
{
	return isfinite(x) ? json_real(x) : json_null();
}

static void json_diff(const struct diff *d, const struct tolerance *t, struct arena *a)
{
	const char *as = shape_str(NULL, &d->ashape, a), *bs = shape_str(NULL, &d->bshape, a);

	json_line(json_pack("{s:s, s:b, s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:I}", "name", d->name, "agree",
	                    diff_agrees(d, t), "a_dtype", dtype_name(d->adt), "b_dtype", dtype_name(d->bdt), "a_shape", as ? as : "",
	                    "b_shape", bs ? bs : "", "elements", (json_int_t)d->n, "wrong", (json_int_t)d->wrong, "max_abs", real(d->max_abs),
	                    "max_rel", real(d->max_rel), "nmse", real(diff_nmse(d)), "max_ulp", (json_int_t)d->max_ulp, "nan_at",
	                    (json_int_t)d->nan_at, "inf_at", (json_int_t)d->inf_at),
	          "output");
}

static void verdict_words(const struct diff *d, const struct tolerance *t, struct arena *a, char *buf, size_t size)
{
	const char *as = shape_str(NULL, &d->ashape, a), *bs = shape_str(NULL, &d->bshape, a);

	if (d->typed_apart && (d->akind != KIND_TENSOR || d->bkind != KIND_TENSOR)) {
		struct type at = { .kind = d->akind, .dt = d->adt }, bt = { .kind = d->bkind, .dt = d->bdt };
		char aw[64], bw[64];

		snprintf(buf, size, "differs: %s of %lld and %s of %lld", kind_str(&at, aw, sizeof aw), (long long)d->amembers,
		         kind_str(&bt, bw, sizeof bw), (long long)d->bmembers);
	} else if (d->typed_apart) {
		snprintf(buf, size, "differs: %s%s and %s%s", dtype_name(d->adt), as ? as : "", dtype_name(d->bdt), bs ? bs : "");
	} else if (diff_agrees(d, t)) {
		snprintf(buf, size, "agrees");
	} else if (d->nan_at >= 0) {
		snprintf(buf, size, "differs: NaN in one only, at element %lld", (long long)d->nan_at);
	} else if (d->inf_at >= 0) {
		snprintf(buf, size, "differs: infinite in one only, at element %lld", (long long)d->inf_at);
	} else if (d->adt == DT_STRING) {
		snprintf(buf, size, "differs: %lld strings, first element %lld", (long long)d->wrong, (long long)d->worst);
	} else {
		snprintf(buf, size, "differs: %lld elements, most of all %lld: %.6g and %.6g", (long long)d->wrong, (long long)d->worst,
		         d->a_worst, d->b_worst);
	}
}

static void print_diffs(const struct pair_report *r, const struct tolerance *t, struct arena *a)
{
	static const char *const heads[] = { "output", "elements", "max abs", "max rel", "NMSE", "ULP", "verdict", NULL };
	struct table table;
	char words[300];

	table_init(&table, 7, "lrrrrrl");
	for (const char *const *h = heads; *h; h++)
		table_add(&table, "%s", *h);
	for (uint32_t i = 0; i < r->nout; i++) {
		const struct diff *d = &r->out[i];

		verdict_words(d, t, a, words, sizeof words);
		table_add(&table, "%s", d->name);
		table_add(&table, "%lld", (long long)d->n);
		table_add(&table, "%.3g", d->max_abs);
		table_add(&table, "%.3g", d->max_rel);
		table_add(&table, "%.3g", diff_nmse(d));
		table_add(&table, "%llu", (unsigned long long)d->max_ulp);
		table_add(&table, "%s%s%s", style(stdout, diff_agrees(d, t) ? GREEN : RED), words, style(stdout, RESET));
	}
	table_print(&table, stdout, true);
}

static void print_report(const struct pair_report *r, const struct pair_opt *o, struct arena *a)
{
	const struct location *w = &r->where;
	bool agree = true;

	for (uint32_t i = 0; i < r->nout; i++) {
		agree = agree && diff_agrees(&r->out[i], &o->tolerance);
		if (globals.json)
			json_diff(&r->out[i], &o->tolerance, a);
	}
	if (globals.json) {
		json_t *v = json_pack("{s:b, s:i, s:I, s:b}", "agree", agree, "cases", r->cases, "seed", (json_int_t)o->seed, "steps", r->steps);

		if (v && w->found)
			json_object_set_new(v, "parted_at",
			                    json_pack("{s:s, s:s, s:s, s:s, s:f, s:i}", "node", w->node, "operator", w->op, "value", w->value, "a_value",
			                              w->a_value, "max_abs", w->diff.max_abs, "values_before", (int)w->same));
		json_line(v, "verdict");
		return;
	}
	print_diffs(r, &o->tolerance, a);
	if (w->found)
		printf("\nfirst apart: node \"%s\" (%s), value \"%s\": largest difference %.3g, %lld of %lld elements; %u values before it agree\n",
		       w->node, w->op, w->value, w->diff.max_abs, (long long)w->diff.wrong, (long long)w->diff.n, w->same);
	printf("\n%s%s%s: %d cases from seed %lld%s\n", style(stdout, agree ? GREEN : RED), agree ? "agree" : "DIFFER", style(stdout, RESET),
	       r->cases, (long long)o->seed, r->steps ? ", the second model step by step" : "");
}

static int compare_models(const struct validate_cli *o, struct linnet_model *a, struct linnet_model *b, struct arena *arena,
                          const char *path)
{
	const struct tensor **given = NEW(arena, a->graph->nin, const struct tensor *);
	struct run_opt run = { .threads = (int)o->threads, .seed = (uint64_t)o->seed };
	struct side sa = { a->graph, run }, sb = { b->graph, run };
	struct pair_opt opt = { .cases = (int)o->cases, .seed = (uint64_t)o->seed, .given = given, .axis = (int)o->axis,
		                .tolerance = { o->rtol, o->atol, o->budget }, .progress = on_case };
	struct pair_report r;
	struct linnet_error e = { 0 };
	int status;

	sa.run.kernels = kernels_named(o->a_kernels ? o->a_kernels : o->kernels);
	sb.run.kernels = kernels_named(o->b_kernels ? o->b_kernels : o->kernels);
	if (!given)
		return EXIT_RESOURCES;
	status = read_inputs(a->graph, &o->input, o->data, arena, given);
	if (!status)
		status = read_dims(a->graph, path, &o->dim, arena, &opt.gen);
	if (status)
		return status;
	if (pair_compare(&sa, &sb, &opt, arena, &r, &e)) {
		err_file(&e, e.code, path);
		return report_error(&e);
	}
	progress_end();
	print_report(&r, &opt, arena);
	for (uint32_t i = 0; i < r.nout; i++)
		if (!diff_agrees(&r.out[i], &opt.tolerance))
			return EXIT_NO;
	return EXIT_YES;
}

static int validate_pair(const struct validate_cli *o, char **argv, struct arena *arena)
{
	struct linnet_model *a = NULL, *b = NULL;
	int status = open_for_running(argv[0], o->as_written, &a);

	if (!status)
		status = open_for_running(argv[1], o->as_written, &b);
	if (!status)
		status = compare_models(o, a, b, arena, argv[1]);
	model_free(a);
	model_free(b);
	return status;
}

/* ---- Language models ---- */

static void add_evaluation(struct table *t, const char *path, const struct lm_result *r)
{
	double nll = r->nll / (double)r->tokens, bits = r->bytes ? r->nll / log(2) / (double)r->bytes : (double)NAN;
	double rate = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;

	if (globals.json) {
		json_line(json_pack("{s:s, s:I, s:I, s:f, s:f, s:o, s:f}", "file", path, "tokens", (json_int_t)r->tokens, "bytes",
		                    (json_int_t)r->bytes, "nll", nll, "perplexity", exp(nll), "bits_per_byte", real(bits), "tokens_per_second", rate),
		          "evaluation");
		return;
	}
	table_add(t, "%s", path);
	table_add(t, "%lld", (long long)r->tokens);
	table_add(t, "%.5f", nll);
	table_add(t, "%.4f", exp(nll));
	table_add(t, r->bytes ? "%.5f" : "-", bits);
	table_add(t, "%.0f", rate);
}

static int evaluate(const struct validate_cli *o, char *path, const struct tensor *stream, struct lm_opt *opt, struct table *t)
{
	struct linnet_model *m = NULL;
	struct lm_result r;
	struct linnet_error e = { 0 };
	int status = open_for_running(path, o->as_written, &m);

	if (!status) {
		opt->progress_ctx = path;
		if (lm_evaluate(m->graph, stream, opt, &r, &e)) {
			err_file(&e, e.code, path);
			status = report_error(&e);
		} else {
			progress_end();
			add_evaluation(t, path, &r);
		}
	}
	model_free(m);
	return status;
}

static int validate_lm(const struct validate_cli *o, int argc, char **argv, struct arena *a)
{
	struct lm_opt opt = { .run = { .kernels = kernels_named(o->kernels), .threads = (int)o->threads, .seed = (uint64_t)o->seed },
		              .context = o->context, .batch = o->batch, .progress = on_window };
	struct linnet_error e = { 0 };
	struct named_tensor *list;
	struct tokenizer *tokenizer = NULL;
	struct table t;
	int n, status = EXIT_YES;

	if (data_load(o->tokens, DT_UNDEFINED, NULL, a, &list, &n, &e) ||
	    (o->tokenizer && tokenizer_load(o->tokenizer, a, &tokenizer, &e)))
		return report_error(&e);
	if (n != 1) {
		fprintf(stderr, "linnet: %s: holds %d tensors instead of one\n", o->tokens, n);
		return EXIT_INPUT;
	}
	opt.tokenizer = tokenizer;
	table_init(&t, 6, "lrrrrr");
	if (!globals.json)
		for (const char *const *h = (const char *const[]){ "model", "tokens", "NLL", "perplexity", "bits/byte", "tok/s", NULL }; *h; h++)
			table_add(&t, "%s", *h);
	for (int i = 0; i < argc && !status; i++)
		status = evaluate(o, argv[i], list->t, &opt, &t);
	table_print(&t, stdout, true);
	return status;
}

static int validate_run(void *opt, int argc, char **argv)
{
	const struct validate_cli *o = opt;
	struct arena *a;
	int status;

	if (!o->tokens && argc != 2) {
		fputs("linnet: validate compares two models; with --tokens it takes any number; see linnet validate --help\n", stderr);
		return EXIT_USAGE;
	}
	if (o->cases < 1 || o->cases > 1000000 || o->axis < 0 || o->axis >= MAX_RANK || o->context < 1 || o->batch < 1 || o->threads < 0 ||
	    o->rtol < 0 || o->atol < 0 || o->budget < 0) {
		fputs("linnet: --cases, --context and --batch are at least 1, --axis is 0 to 7, tolerances are not negative\n", stderr);
		return EXIT_USAGE;
	}
	a = arena_new();
	if (!a)
		return EXIT_RESOURCES;
	status = o->tokens ? validate_lm(o, argc, argv, a) : validate_pair(o, argv, a);
	arena_free(a);
	return status;
}

static const struct validate_cli defaults = { .kernels = "fast", .cases = 16, .seed = 1, .context = 512, .batch = 8,
	                                      .rtol = 1e-3, .atol = 1e-5 };

const struct command validate_command = {
	.name = "validate",
	.summary = "Compare two models on the same inputs, or measure language models on a text",
	.operands = "A B | --tokens FILE MODEL...",
	.details =
		"Two models: inputs are matched by name and drawn as by linnet run, with other lengths in each case after the first. Two floats\n"
		"agree when |a - b| <= atol s + rtol max(|a|, |b|), s the root mean square of A's output, at least 1; narrower floats get wider\n"
		"tolerances, integers, bools and strings must be equal.\n"
		"When B keeps states (past_X in, present_X out) and A has none, A sees the whole sequence and B gets it in pieces along the axis\n"
		"of tokens. Models that differ are run again to find the first value that does. Exit status 1: they differ.\n"
		"With --tokens: a stream of token numbers is cut into windows that do not overlap, and every token but the first is predicted once.\n"
		"Perplexity is exp of the mean negative log-likelihood (NLL, nats); bits per byte need --tokenizer.",
	.examples = "linnet validate model.onnx simplified.onnx\n"
	            "linnet validate softmax.onnx linear.onnx --budget 1e-2\n"
	            "linnet validate linear.onnx step.onnx --cases 4\n"
	            "linnet validate --tokens valid.npy --tokenizer tokenizer.txt softmax.onnx linear.onnx",
	.opt = (const struct opt[]){
		{ "cases", 'n', OPT_INT, OPT(struct validate_cli, cases), "N", "inputs to try, 16 by default", NULL },
		{ "seed", 0, OPT_INT, OPT(struct validate_cli, seed), "N", "of the first case, 1 by default", NULL },
		{ "input", 'i', OPT_LIST, OPT(struct validate_cli, input), "NAME=FILE", "an input of A from an .npy, .npz or .pb file", NULL },
		{ "data", 0, OPT_STRING, OPT(struct validate_cli, data), "DIR", "inputs from a folder with input_0.pb, input_1.pb, ...", NULL },
		{ "dim", 0, OPT_LIST, OPT(struct validate_cli, dim), "NAME=N", "length of a symbolic dimension", NULL },
		{ "rtol", 0, OPT_REAL, OPT(struct validate_cli, rtol), "X", "relative tolerance, 1e-3 by default", NULL },
		{ "atol", 0, OPT_REAL, OPT(struct validate_cli, atol), "X", "absolute tolerance for outputs of size 1, 1e-5 by default", NULL },
		{ "budget", 0, OPT_REAL, OPT(struct validate_cli, budget), "X", "accept floats up to this normalised mean square error", NULL },
		{ "axis", 0, OPT_INT, OPT(struct validate_cli, axis), "N", "axis of tokens for a step model, by default that of what its position counts, else of the length that is in no state, else 1", NULL },
		{ "kernels", 'k', OPT_STRING, OPT(struct validate_cli, kernels), "WHICH", "kernels to run, fast by default", "reference|fast" },
		{ "a-kernels", 0, OPT_STRING, OPT(struct validate_cli, a_kernels), "WHICH", "kernels of A", "reference|fast" },
		{ "b-kernels", 0, OPT_STRING, OPT(struct validate_cli, b_kernels), "WHICH", "kernels of B", "reference|fast" },
		{ "threads", 0, OPT_INT, OPT(struct validate_cli, threads), "N", "threads, all processors by default", NULL },
		{ "as-written", 0, OPT_FLAG, OPT(struct validate_cli, as_written), NULL, "without the exact passes", NULL },
		{ "tokens", 't', OPT_STRING, OPT(struct validate_cli, tokens), "FILE", "measure language models on this stream of tokens", NULL },
		{ "tokenizer", 0, OPT_STRING, OPT(struct validate_cli, tokenizer), "FILE", "vocabulary, for bits per byte", NULL },
		{ "context", 0, OPT_INT, OPT(struct validate_cli, context), "N", "tokens a window, 512 by default", NULL },
		{ "batch", 0, OPT_INT, OPT(struct validate_cli, batch), "N", "windows a run, 8 by default", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = -1,
	.size = sizeof(struct validate_cli),
	.defaults = &defaults,
	.run = validate_run,
};
