/* linnet convert: softmax attention into linear attention; or, without an option of that, the same model in other words (again.c). */
#include <stdlib.h>
#include <string.h>

#include "cli/again.h"
#include "calibrate/card.h"
#include "cli/calibrate.h"
#include "cli/model.h"
#include "graph/file.h"
#include "validate/card.h"

struct convert_cli {
	struct again_opt again;
	struct calibrate_cli calibrate;
	const char *output, *mechanism, *target, *layers, *fade;
	const char *heads, *map, *norm, *grid, *state;
	bool strict, external, list, sources, markdown, no_card;
	int64_t chunk, opset, features, horizon, seed, conv, window, sinks, degree;
};

static void print_items(const struct convert_report *r, const char *path, bool calibrated)
{
	struct table t;

	table_init(&t, 8, "rlrrrrll");
	table_add(&t, "#");
	table_add(&t, "attention");
	table_add(&t, "heads");
	table_add(&t, "kv heads");
	table_add(&t, "width");
	table_add(&t, "features");
	table_add(&t, "causal");
	table_add(&t, "became");
	for (uint32_t i = 0; i < r->nitem; i++) {
		const struct convert_item *c = &r->item[i];

		table_add(&t, "%u", i);
		table_add(&t, "%s", c->node);
		table_add(&t, "%lld", (long long)c->heads);
		table_add(&t, "%lld", (long long)c->kv_heads);
		table_add(&t, "%lld", (long long)c->width);
		if (c->features)
			table_add(&t, "%lld", (long long)c->features);
		else
			table_add(&t, "-");
		table_add(&t, "%s", c->causal ? "yes" : "no");
		table_add(&t, "%s%s%s%s%s", style(stdout, c->converted ? GREEN : YELLOW), c->converted ? c->mechanism->name : "softmax",
		          style(stdout, RESET), c->reason ? ": " : "", c->reason ? c->reason : "");
	}
	table_print(&t, stdout, true);
	printf("%s%s%s: %u of %u attentions converted, opset %d; approximate, %scalibrated\n", style(stdout, BOLD), path,
	       style(stdout, RESET), r->nconverted, r->nitem, r->opset, calibrated ? "" : "not ");
}

static json_t *item_json(const struct convert_item *c, int index)
{
	return json_pack("{s:i, s:s, s:s?, s:I, s:I, s:I, s:b, s:b, s:s?, s:s?, s:I, s:I}", "index", index, "node", c->node, "mechanism",
	                 c->converted ? c->mechanism->name : NULL, "heads", (json_int_t)c->heads, "kv_heads", (json_int_t)c->kv_heads, "head_dim",
	                 (json_int_t)c->width, "causal", c->causal, "converted", c->converted, "reason", c->reason, "state", c->state,
	                 "state_numbers", (json_int_t)c->state_numbers, "features", (json_int_t)c->features);
}

static void json_items(const struct convert_report *r, const char *path, bool calibrated)
{
	for (uint32_t i = 0; i < r->nitem; i++)
		json_line(item_json(&r->item[i], (int)i), "attention");
	json_line(json_pack("{s:s, s:i, s:i, s:i, s:b}", "file", path, "attentions", (int)r->nitem, "converted", (int)r->nconverted, "opset",
	                    r->opset, "calibrated", calibrated),
	          "conversion");
}

/* What --mechanism and --fade admit. */
static int print_mechanisms(void)
{
	struct table t;

	if (globals.json) {
		for (int i = 0; mechanism_at(i); i++) {
			const struct mechanism *m = mechanism_at(i);

			json_line(json_pack("{s:s, s:s, s:s, s:s, s:s?, s:b}", "name", m->name, "doc", m->doc, "source", m->source, "normaliser",
			                    normaliser_docs[m->normaliser], "fade", m->fade, "parameters", m->parameters != NULL),
			          "mechanism");
		}
		calibrate_list();
		return EXIT_YES;
	}
	table_init(&t, 4, "llll");
	for (const char *const *h = (const char *const[]){ "mechanism", "divided by", "fades", "features", NULL }; *h; h++)
		table_add(&t, "%s", *h);
	for (int i = 0; mechanism_at(i); i++) {
		const struct mechanism *m = mechanism_at(i);

		table_add(&t, "%s", m->name);
		table_add(&t, "%s", normaliser_docs[m->normaliser]);
		table_add(&t, "%s", m->fade ? m->fade : "-");
		table_add(&t, "%s", m->doc);
	}
	table_print(&t, stdout, true);
	putchar('\n');
	table_init(&t, 2, "ll");
	table_add(&t, "fade");
	table_add(&t, "what is left of the past");
	for (const struct fade *const *f = fades; *f; f++) {
		table_add(&t, "%s", (*f)->name);
		table_add(&t, "%s", (*f)->doc);
	}
	table_print(&t, stdout, true);
	putchar('\n');
	calibrate_list();
	return EXIT_YES;
}

/* What of a source is carried over. */
static int print_sources(bool markdown)
{
	static const char *const how[] = { [CARRY_EXACT] = "exactly", [CARRY_APPROX] = "approximately", [CARRY_NOT] = "no" };
	struct carried c;
	struct table t;

	if (markdown)
		printf("| source | carried over | it becomes, or why not |\n| --- | --- | --- |\n");
	for (int i = 0; (markdown || globals.json) && carried_at(i, &c); i++)
		if (markdown)
			printf("| %s | %s | %s |\n", c.source, how[c.how], c.what);
		else
			json_line(json_pack("{s:s, s:s, s:s}", "source", c.source, "carried", how[c.how], "what", c.what), "source");
	if (markdown || globals.json)
		return EXIT_YES;
	table_init(&t, 3, "lll");
	table_add(&t, "source");
	table_add(&t, "carried over");
	table_add(&t, "it becomes, or why not");
	for (int i = 0; carried_at(i, &c); i++) {
		table_add(&t, "%s", c.source);
		table_add(&t, "%s", how[c.how]);
		table_add(&t, "%s", c.what);
	}
	table_print(&t, stdout, true);
	return EXIT_YES;
}

/* The text of a file. */
static enum linnet_code load_text(struct arena *a, const char *path, const char **out, struct linnet_error *e)
{
	struct bytes b;

	TRY(file_load(a, path, 1 << 24, &b, e));
	*out = arena_strn(a, (const char *)b.p, b.n);
	return *out ? LINNET_OK : fail_mem(e);
}

/* m converted and written, and its card unless there is to be none; `calibration` is taken. */
static enum linnet_code convert_to(const struct convert_cli *o, const char *source, struct linnet_model *m, const struct convert_request *q,
                                   const struct convert_opt *opt, json_t *calibration, struct convert_report *r, struct arena *a, struct linnet_error *e)
{
	bool carded = !o->no_card && strcmp(o->output, "-") != 0;
	char *calibrated = calibration && carded ? json_dumps(calibration, JSON_REAL_PRECISION(6)) : NULL;
	struct agreement agreement;
	struct linnet_model before = *m;
	enum linnet_code code = calibration && carded && !calibrated ? fail_mem(e) : graph_copy(m->graph, a, &before.graph, e);

	json_decref(calibration);
	if (!code) {
		code = convert_model(m, opt, r, e);
		if (!code)
			code = graph_export(m, r->opset, e);
		err_file(e, code, source);
	}
	if (!code)
		code = err_file(e, proto_save(m, o->output, o->external, e), o->output);
	if (!code && carded) {
		code = targets_agree(&before, opt, r->nconverted, a, &agreement, e);
		if (!code)
			code = card_save(&(struct card){ LINNET_VERSION, o->output, source, q, opt, r, &agreement, m->graph, calibrated },
			                 arena_fmt(a, "%s.json", o->output), e);
	}
	free(calibrated);
	return code;
}

#define UNASKED INT64_MIN

static const struct convert_cli defaults = { .mechanism = "elu", .target = "portable", .window = UNASKED, .again.cases = 4 };

static int linear_run(const struct convert_cli *o, int argc, char **argv)
{
	struct convert_request q = { o->mechanism, o->target, o->layers, o->fade, o->heads, o->norm, o->grid, o->state, NULL, o->map, o->strict, o->chunk, o->opset,
		                     o->features, o->horizon, o->seed, o->conv, o->window == UNASKED ? 0 : o->window, o->sinks, o->degree };
	struct convert_opt c;
	struct convert_report r = { 0 };
	struct calibrated cal;
	bool calibrated = calibrate_given(&o->calibrate);
	struct linnet_error e = { 0 };
	struct linnet_model *m;
	struct arena *a;
	int status;

	if (argc != 1 || !o->output) {
		fprintf(stderr, "linnet: convert needs one MODEL and -o FILE; see linnet convert --help\n");
		return EXIT_USAGE;
	}
	if (!o->window) {
		fprintf(stderr, "linnet: a window of 0 tokens shows nothing; --window is 1 to 65536\n");
		return EXIT_USAGE;
	}
	a = arena_new();
	if (!a || (o->map && load_text(a, o->map, &q.map, &e)) || convert_read(&q, a, &c, &e)) {
		if (!a)
			fail_mem(&e);
		arena_free(a);
		return report_error(&e);
	}
	status = calibrated ? calibrate_choose(&o->calibrate, o->map || o->mechanism != defaults.mechanism, &c, &cal) : EXIT_YES;
	if (!status)
		status = open_model(argv[0], &m);
	if (status) {
		arena_free(a);
		return status;
	}
	if (calibrated)
		status = calibrate_run(&o->calibrate, m, argv[0], &c, &cal);
	if (status) {
		/* it was told */
	} else if (convert_to(o, argv[0], m, &q, &c, calibrated ? calibrate_card(&cal.recipe, &cal.result, cal.searched ? &cal.search : NULL) : NULL, &r, a, &e)) {
		status = report_error(&e);
	} else if (globals.json) {
		json_items(&r, o->output, calibrated);
	} else if (!globals.quiet) {
		print_items(&r, o->output, calibrated);
		if (calibrated)
			calibrate_print(&cal);
	}
	if (!status && (!r.nconverted || (calibrated && calibrate_too_bad(&o->calibrate, &cal))))
		status = EXIT_NO;
	model_free(m);
	arena_free(a);
	return status;
}

/* Whether an option was given that only linear attention has. */
static bool linear_given(const struct convert_cli *o)
{
	struct convert_cli x;

	memcpy(&x, o, sizeof x);
	x.again = defaults.again;
	x.output = defaults.output;
	x.external = defaults.external;
	x.opset = defaults.opset;
	x.seed = defaults.seed;
	return memcmp(&x, &defaults, sizeof x) != 0;
}

static int convert_run(void *opt, int argc, char **argv)
{
	struct convert_cli *o = opt;
	bool linear = linear_given(o);

	if (o->list || o->sources)
		return o->list ? print_mechanisms() : print_sources(o->markdown);
	if (!again_given(&o->again) && (linear || !o->opset))
		return linear_run(o, argc, argv);
	if (linear || argc != 1 || !o->output) {
		fprintf(stderr, "linnet: %s; see linnet convert --help\n",
		        linear ? "linear attention is one thing, saying the model again another: convert twice" : "convert needs one MODEL and -o FILE");
		return EXIT_USAGE;
	}
	o->again.opset = o->opset;
	o->again.external = o->external;
	o->again.seed = o->seed ? o->seed : 1;
	return again_run(&o->again, argv[0], o->output);
}

const struct command convert_command = {
	.name = "convert",
	.summary = "Say a model again, or turn its softmax attention into linear attention",
	.operands = "MODEL -o FILE",
	.details =
		"With --opset, --simplify, --fuse, --expand, --fix-dim, --extract, --external-data or a precision, and no option of linear attention: the\n"
		"same model in other words. Names of inputs, outputs and of values that survive are kept. Parts are taken first, then lengths fixed, then\n"
		"the model is simplified, fused or expanded, then its precision changed. What the wanted opset cannot say is an error that names the node\n"
		"and the lowest opset that can.\n"
		"Otherwise: recognises softmax attention and rewrites it into linear attention with a feature map and what keeps it to scale.\n"
		"Targets: onnx, the LinearAttention operator of opset 27; ort, LinearAttention of com.microsoft; portable, standard operators of\n"
		"opset 17, in chunks; step, the same with states past_state.N in and present_state.N out, and the count of tokens seen so far as\n"
		"`position`, for one token at a time or a few; chunk, the same in chunks, for many; quadratic, all pairs of tokens. Beside the model\n"
		"FILE.json says how it was made: mechanism, options, what became of each attention, states.\n"
		"The result is approximate and not calibrated: compare it with linnet validate. Attention that cannot be carried over stays as it is\n"
		"and is listed with the reason. Exit status 1: nothing could be converted; the model is written all the same.",
	.examples = "linnet convert model.onnx -o old.onnx --opset 11\n"
	            "linnet convert model.onnx -o small.onnx --simplify --certify small.json\n"
	            "linnet convert model.onnx -o fused.onnx --fuse=ort\n"
	            "linnet convert model.onnx -o part.onnx --extract hidden..logits\n"
	            "linnet convert model.onnx -o linear.onnx --mechanism elu --target portable\n"
	            "linnet convert model.onnx -o step.onnx --target step\n"
	            "linnet convert --list\n"
	            "linnet convert --sources\n"
	            "linnet convert model.onnx -o hybrid.onnx --layers all,-0",
	.opt = (const struct opt[]){
		{ "output", 'o', OPT_STRING, OPT(struct convert_cli, output), "FILE", "where to write the result", NULL },
		{ "mechanism", 'm', OPT_STRING, OPT(struct convert_cli, mechanism), "NAME", "how weights factor, elu by default; --list names them", NULL },
		{ "list", 0, OPT_FLAG, OPT(struct convert_cli, list), NULL, "list the mechanisms and stop", NULL },
		{ "sources", 0, OPT_FLAG, OPT(struct convert_cli, sources), NULL, "list what of a source's attention is carried over, how, and why not, and stop", NULL },
		{ "markdown", 0, OPT_FLAG, OPT(struct convert_cli, markdown), NULL, "with --sources: as in docs/attention.md", NULL },
		{ "fade", 0, OPT_STRING, OPT(struct convert_cli, fade), "NAME", "how the past fades: none, one that --list names, or a number, what is left after each token", NULL },
		{ "features", 0, OPT_INT, OPT(struct convert_cli, features), "N", "features of maps that let them be chosen (hedgehog, t2r, favor)", NULL },
		{ "conv", 0, OPT_INT, OPT(struct convert_cli, conv), "N", "tokens of short convolutions on queries, keys and values, 1 for none", NULL },
		{ "window", 'w', OPT_INT, OPT(struct convert_cli, window), "N", "softmax over the last N tokens beside the mechanism", NULL },
		{ "sinks", 0, OPT_INT, OPT(struct convert_cli, sinks), "N", "the first N tokens stay in the window", NULL },
		{ "heads", 0, OPT_STRING, OPT(struct convert_cli, heads), "WHOSE", "one map, gate and state for each key head, or for each query head",
		  "key|query" },
		{ "degree", 0, OPT_INT, OPT(struct convert_cli, degree), "N", "of taylor and polynomial, 2 by default", NULL },
		{ "grid", 0, OPT_STRING, OPT(struct convert_cli, grid), "RxC", "rows and columns of the image that tokens are, square by default (lit)", NULL },
		{ "map", 0, OPT_STRING, OPT(struct convert_cli, map), "FILE", "a map of your own in ONNX's textual syntax, in place of --mechanism: "
		  "(float[B,H,T,D] x) => (float[B,H,T,F] y) { ... }; x is multiplied by sqrt(scale)", NULL },
		{ "norm", 0, OPT_STRING, OPT(struct convert_cli, norm), "NAME", "what keeps the output of a map to scale, instead of the mechanism's own",
		  "sum|rms|group|none" },
		{ "horizon", 0, OPT_INT, OPT(struct convert_cli, horizon), "N", "longest sequence that cosformer is for, 2048 by default", NULL },
		{ "seed", 0, OPT_INT, OPT(struct convert_cli, seed), "N", "of random maps and of --certify, 1 by default", NULL },
		{ "target", 't', OPT_STRING, OPT(struct convert_cli, target), "NAME", "the words of the result, portable by default",
		  "onnx|ort|portable|quadratic|step|chunk" },
		{ "layers", 'l', OPT_STRING, OPT(struct convert_cli, layers), "LIST", "which attentions: all, 0,2-4, all,-0, or 0,2-3=NAME for another mechanism, "
		  "1=NAME/16 with a window of its own", NULL },
		{ "strict", 0, OPT_FLAG, OPT(struct convert_cli, strict), NULL, "attention that stays softmax is an error", NULL },
		{ "chunk", 0, OPT_INT, OPT(struct convert_cli, chunk), "N", "tokens a chunk of the portable form, 64 by default", NULL },
		{ "no-card", 0, OPT_FLAG, OPT(struct convert_cli, no_card), NULL, "do not write FILE.json, which says how linear attention was made and how far the targets agree", NULL },
		{ "state", 0, OPT_STRING, OPT(struct convert_cli, state), "TYPE", "keep states in half precision between runs (targets step and chunk)",
		  "float16|bfloat16" },
		{ "calibrate", 0, OPT_LIST, OPT(struct convert_cli, calibrate.data), "FILE",
		  "train what was converted until it says what the softmax model says of this data: tokens, an .npz, or NAME=FILE for one input", NULL },
		{ "held-out", 0, OPT_LIST, OPT(struct convert_cli, calibrate.held_out), "FILE", "the same, to measure the result on", NULL },
		{ "recipe", 0, OPT_STRING, OPT(struct convert_cli, calibrate.recipe), "NAME",
		  "of calibration; --list names them; by default the mechanism's; auto searches for the best", NULL },
		{ "minutes", 0, OPT_REAL, OPT(struct convert_cli, calibrate.minutes), "X", "of calibration in all", NULL },
		{ "tokens", 0, OPT_INT, OPT(struct convert_cli, calibrate.tokens), "N", "instead of minutes: tokens in all, 4,000,000 by default", NULL },
		{ "batch", 0, OPT_INT, OPT(struct convert_cli, calibrate.batch), "N", "samples a step of calibration, by default 2 windows of tokens, 8 of other data", NULL },
		{ "length", 0, OPT_INT, OPT(struct convert_cli, calibrate.length), "N", "tokens a sample of calibration, by default 512, or as many as the model takes", NULL },
		{ "rank", 0, OPT_INT, OPT(struct convert_cli, calibrate.rank), "N", "of adapters, 8 by default", NULL },
		{ "rate", 0, OPT_REAL, OPT(struct convert_cli, calibrate.rate), "X", "factor on the recipe's learning rates, 1 by default", NULL },
		{ "max-loss", 0, OPT_STRING, OPT(struct convert_cli, calibrate.max_loss), "SHARE",
		  "exit status 1 when the perplexity rises by more than this, 2% say; with --recipe auto the smallest state within is chosen", NULL },
		{ "max-state", 0, OPT_STRING, OPT(struct convert_cli, calibrate.max_state), "BYTES",
		  "of --recipe auto: the largest state of one sequence, 200000, 64K or 1.5M; layers that stay softmax count with 16,384 tokens", NULL },
		{ "plot", 0, OPT_STRING, OPT(struct convert_cli, calibrate.plot), "FILE", "of --recipe auto: draw loss against state and speed, an SVG", NULL },
		{ "checkpoint", 0, OPT_STRING, OPT(struct convert_cli, calibrate.checkpoint), "PREFIX", "files to go on from when calibration was stopped", NULL },
		{ "exact-steps", 0, OPT_FLAG, OPT(struct convert_cli, calibrate.exact), NULL, "calibrate in float32 alone; by default large matrix products are of bfloat16 where the processor has them", NULL },
		{ "threads", 0, OPT_INT, OPT(struct convert_cli, calibrate.threads), "N", "of calibration, all processors by default", NULL },
		{ "opset", 0, OPT_INT, OPT(struct convert_cli, opset), "N", "opset of the result, 11 to 28; of linear attention instead of the target's own", NULL },
		{ "external", 0, OPT_FLAG, OPT(struct convert_cli, external), NULL, "weights in a file of their own", NULL },
		{ "external-data", 0, OPT_LIST, OPT(struct convert_cli, again.external_data), "WHERE",
		  "the same: the file's name, or how many bytes a weight has at most that stays inside, 1000 or 64K; may be repeated", NULL },
		{ "simplify", 0, OPT_FLAG, OPT(struct convert_cli, again.simplify), NULL,
		  "compute constants and lengths, drop what has no effect or is there twice; never makes a model larger", NULL },
		{ "fuse", 0, OPT_MAYBE, OPT(struct convert_cli, again.fuse), "[=WORDS]",
		  "one operator where several spell attention, norms, activations or rotary embedding: ONNX's of the opset, or ONNX Runtime's", "onnx|ort" },
		{ "expand", 0, OPT_FLAG, OPT(struct convert_cli, again.expand), NULL, "only primitive operators: functions of ONNX are replaced by their bodies", NULL },
		{ "fix-dim", 0, OPT_LIST, OPT(struct convert_cli, again.dim), "NAME=N", "a symbolic length of inputs becomes a number; may be repeated", NULL },
		{ "extract", 0, OPT_STRING, OPT(struct convert_cli, again.extract), "FROM..TO",
		  "the part between values, names joined by commas; FROM or TO left out: the model's inputs or outputs; or a block as `linnet show --blocks` has it: \"layer 2\", \"encoder/layer 2/attention\"", NULL },
		{ "float16", 0, OPT_FLAG, OPT(struct convert_cli, again.float16), NULL, "weights and values in float16 where that is safe; what is not is listed", NULL },
		{ "bfloat16", 0, OPT_FLAG, OPT(struct convert_cli, again.bfloat16), NULL, "likewise bfloat16", NULL },
		{ "float32", 0, OPT_FLAG, OPT(struct convert_cli, again.float32), NULL, "float16 and bfloat16 become float", NULL },
		{ "keep-io", 0, OPT_FLAG, OPT(struct convert_cli, again.keep_io), NULL, "inputs and outputs keep their element types", NULL },
		{ "certify", 0, OPT_STRING, OPT(struct convert_cli, again.certify), "FILE",
		  "write what each step did and how it was proved or tested, for linnet certify", NULL },
		{ "cases", 0, OPT_INT, OPT(struct convert_cli, again.cases), "N", "drawn inputs a step of --certify, 4 by default", NULL },
		{ .name = NULL },
	},
	.min = 0,
	.max = 1,
	.size = sizeof(struct convert_cli),
	.defaults = &defaults,
	.run = convert_run,
};
