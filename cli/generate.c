/* linnet generate: text from a language model. */
#include <math.h>
#include <string.h>

#include "cli/inputs.h"
#include "cli/model.h"
#include "graph/file.h"
#include "validate/validate.h"

struct generate_cli {
	const char *tokenizer, *prompt, *file, *kernels;
	int64_t tokens, top_k, seed, threads, start, stop;
	double temperature, top_p;
	bool as_written;
};

struct sink {
	const struct tokenizer *t;
	json_t *ids;
};

static void on_token(void *ctx, int64_t id)
{
	const struct sink *s = ctx;

	if (s->ids)
		json_array_append_new(s->ids, json_integer(id));
	else if (s->t && id < s->t->n)
		fwrite(s->t->token[id].p, 1, s->t->token[id].n, stdout);
	else
		printf("%lld ", (long long)id);
	fflush(stdout);
}

/* The text of the ids, as far as it is UTF-8. */
static json_t *json_text(const struct tokenizer *t, const json_t *ids, struct arena *a)
{
	size_t n = 0, at = 0;
	char *text;

	for (size_t i = 0; i < json_array_size(ids); i++)
		n += t->token[json_integer_value(json_array_get(ids, i))].n;
	text = arena_get(a, n + 1, 1);
	for (size_t i = 0; text && i < json_array_size(ids); i++) {
		struct text s = t->token[json_integer_value(json_array_get(ids, i))];

		memcpy(text + at, s.p, s.n);
		at += s.n;
	}
	return text ? json_stringn(text, n) : NULL;
}

/* The prompt's tokens: numbers without a tokenizer, else text, behind the token that starts a text. */
static enum linnet_code read_prompt(const struct generate_cli *o, const struct tokenizer *t, struct arena *a, int64_t **ids, int64_t *n,
                                    struct linnet_error *e)
{
	struct text s = { o->prompt ? o->prompt : "", o->prompt ? strlen(o->prompt) : 0 };
	int64_t *rest, more;

	if (o->file) {
		struct bytes f;

		TRY(file_load(a, o->file, (int64_t)1 << 30, &f, e));
		s = (struct text){ (const char *)f.p, f.n };
	}
	TRY_NEW(*ids, a, s.n + 2);
	*n = 0;
	if (o->start >= 0)
		(*ids)[(*n)++] = o->start;
	if (t) {
		TRY(tokenizer_encode(t, s, a, &rest, &more, e));
		memcpy(*ids + *n, rest, (size_t)more * sizeof **ids);
		*n += more;
		return LINNET_OK;
	}
	for (size_t i = 0; i < s.n;) {
		int64_t id = 0;
		size_t from = i;

		for (; i < s.n && i - from < 10 && s.p[i] >= '0' && s.p[i] <= '9'; i++)
			id = 10 * id + s.p[i] - '0';
		if (i > from)
			(*ids)[(*n)++] = id;
		else if (s.p[i] == ' ' || s.p[i] == ',' || s.p[i] == '\n')
			i++;
		else
			return fail(e, LINNET_EUSAGE, "without --tokenizer the prompt is numbers of tokens");
	}
	return LINNET_OK;
}

static double rate(int64_t n, double seconds) { return seconds > 0 ? (double)n / seconds : 0; }

static void report(const struct generate_result *r, const struct tokenizer *t, json_t *ids, struct arena *a)
{
	/* the first token is the prompt's run's */
	double steps = rate(r->tokens - (r->stopped ? 0 : 1), r->seconds);
	char size[32], first[32];

	if (ids) {
		json_t *o = json_pack("{s:I, s:I, s:b, s:f, s:f, s:f, s:I, s:O}", "prompt_tokens", (json_int_t)r->prompt, "tokens", (json_int_t)r->tokens,
		                      "stopped", r->stopped, "prompt_seconds", r->prompt_seconds, "seconds", r->seconds, "tokens_per_second", steps,
		                      "state_bytes", (json_int_t)r->state_bytes, "ids", ids);
		if (o && t)
			json_object_set_new(o, "text", json_text(t, ids, a));
		json_line(o, "text");
		return;
	}
	putchar('\n');
	fflush(stdout); /* the text before what is said of it, where both go to one place */
	note("%lld tokens of prompt in %s (%.0f a second), %lld made at %.0f a second%s%s%s", (long long)r->prompt,
	     human_seconds(r->prompt_seconds, first, sizeof first), rate(r->prompt, r->prompt_seconds), (long long)r->tokens, steps,
	     r->state_bytes ? ", state of " : "; no state: all is read again for each token",
	     r->state_bytes ? human_bytes(r->state_bytes, size, sizeof size) : "", r->stopped ? "; the text ended" : "");
}

static int generate(const struct generate_cli *o, const char *path, struct arena *a)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = NULL;
	struct tokenizer *t = NULL;
	struct generate_result r;
	struct sink sink = { 0 };
	struct generate_opt opt = { .run = { .kernels = kernels_named(o->kernels), .threads = (int)o->threads, .seed = (uint64_t)o->seed },
		                    .tokens = o->tokens, .temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p,
		                    .seed = (uint64_t)o->seed, .stop = o->stop, .token = on_token, .ctx = &sink };
	int64_t *ids, n;
	int status;

	if ((o->tokenizer && tokenizer_load(o->tokenizer, a, &t, &e)) || read_prompt(o, t, a, &ids, &n, &e))
		return report_error(&e);
	status = open_for_running(path, o->as_written, &m);
	sink.t = t;
	sink.ids = globals.json ? json_array() : NULL;
	if (!status && !globals.json && t)
		for (int64_t i = o->start >= 0; i < n; i++)
			on_token(&sink, ids[i]);
	if (!status && lm_generate(m->graph, ids, n, &opt, &r, &e)) {
		err_file(&e, e.code, path);
		status = report_error(&e);
	} else if (!status) {
		report(&r, t, sink.ids, a);
	}
	json_decref(sink.ids);
	model_free(m);
	return status;
}

static int generate_run(void *opt, int argc, char **argv)
{
	const struct generate_cli *o = opt;
	struct arena *a;
	int status;

	(void)argc;
	if (o->tokens < 0 || o->temperature < 0 || o->top_k < 0 || o->top_p < 0 || o->top_p > 1 || o->threads < 0 || (o->prompt && o->file)) {
		fputs("linnet: --tokens, --temperature and --top-k are not negative, --top-p is 0 to 1, the prompt is text or a file\n", stderr);
		return EXIT_USAGE;
	}
	a = arena_new();
	status = a ? generate(o, argv[0], a) : EXIT_RESOURCES;
	arena_free(a);
	return status;
}

static const struct generate_cli defaults = { .kernels = "fast", .tokens = 100, .seed = 1, .start = -1, .stop = -1, .temperature = 0 };

const struct command generate_command = {
	.name = "generate",
	.summary = "Go on with a text, by a language model",
	.operands = "MODEL",
	.details =
		"The model takes tokens [batch, sequence] and gives logits [batch, sequence, vocabulary]. One with states, a step model of linnet\n"
		"convert or one with key/value caches, reads each token once; another reads the whole text again for each token. The text goes to\n"
		"stdout as it is made, speeds to stderr. Without --temperature the most likely token is taken; the same --seed gives the same text.\n"
		"\n"
		"The tokenizer is a byte-level BPE: lines `hex left right` in the order of ids, a token's bytes and the two it merges (-1 -1: none).\n"
		"Without one, prompt and text are numbers of tokens.",
	.examples = "linnet generate softmax_kv.onnx --tokenizer tokenizer.txt --prompt 'In the beginning'\n"
	            "linnet generate step.onnx --tokenizer tokenizer.txt --start 0 --temperature 0.8 --top-p 0.95 --seed 7 --tokens 300",
	.opt = (const struct opt[]){
		{ "prompt", 'p', OPT_STRING, OPT(struct generate_cli, prompt), "TEXT", "the text to go on with", NULL },
		{ "prompt-file", 0, OPT_STRING, OPT(struct generate_cli, file), "FILE", "the same from a file, - for standard input", NULL },
		{ "tokenizer", 0, OPT_STRING, OPT(struct generate_cli, tokenizer), "FILE", "vocabulary and merges", NULL },
		{ "tokens", 'n', OPT_INT, OPT(struct generate_cli, tokens), "N", "tokens to make, 100 by default", NULL },
		{ "temperature", 't', OPT_REAL, OPT(struct generate_cli, temperature), "X", "sample, from logits divided by X; 0 by default", NULL },
		{ "top-k", 0, OPT_INT, OPT(struct generate_cli, top_k), "K", "sample from the K most likely tokens", NULL },
		{ "top-p", 0, OPT_REAL, OPT(struct generate_cli, top_p), "P", "sample from the most likely with probability P together", NULL },
		{ "seed", 0, OPT_INT, OPT(struct generate_cli, seed), "N", "of sampling, 1 by default", NULL },
		{ "start", 0, OPT_INT, OPT(struct generate_cli, start), "ID", "a token before the prompt", NULL },
		{ "stop", 0, OPT_INT, OPT(struct generate_cli, stop), "ID", "a token that ends the text", NULL },
		{ "kernels", 'k', OPT_STRING, OPT(struct generate_cli, kernels), "WHICH", "kernels to run, fast by default", "reference|fast" },
		{ "threads", 0, OPT_INT, OPT(struct generate_cli, threads), "N", "threads, all processors by default", NULL },
		{ "as-written", 0, OPT_FLAG, OPT(struct generate_cli, as_written), NULL, "without the exact passes", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = 1,
	.size = sizeof(struct generate_cli),
	.defaults = &defaults,
	.run = generate_run,
};
