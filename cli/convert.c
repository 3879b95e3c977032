/* linnet convert: softmax attention into linear attention. */
#include <string.h>

#include "cli/model.h"
#include "converter/convert.h"

struct convert_cli {
	const char *output, *mechanism, *target, *layers;
	bool strict, external;
	int64_t chunk, opset;
};

static void print_items(const struct convert_report *r, const char *path)
{
	struct table t;

	table_init(&t, 7, "rlrrrll");
	table_add(&t, "#");
	table_add(&t, "attention");
	table_add(&t, "heads");
	table_add(&t, "kv heads");
	table_add(&t, "width");
	table_add(&t, "causal");
	table_add(&t, "became");
	for (uint32_t i = 0; i < r->nitem; i++) {
		const struct convert_item *c = &r->item[i];

		table_add(&t, "%u", i);
		table_add(&t, "%s", c->node);
		table_add(&t, "%lld", (long long)c->heads);
		table_add(&t, "%lld", (long long)c->kv_heads);
		table_add(&t, "%lld", (long long)c->width);
		table_add(&t, "%s", c->causal ? "yes" : "no");
		table_add(&t, "%s%s%s%s%s", style(stdout, c->converted ? GREEN : YELLOW), c->converted ? "linear" : "softmax",
		          style(stdout, RESET), c->reason ? ": " : "", c->reason ? c->reason : "");
	}
	table_print(&t, stdout, true);
	printf("%s%s%s: %u of %u attentions linear, opset %d; approximate, not calibrated\n", style(stdout, BOLD), path,
	       style(stdout, RESET), r->nconverted, r->nitem, r->opset);
}

static void json_items(const struct convert_report *r, const char *path)
{
	for (uint32_t i = 0; i < r->nitem; i++) {
		const struct convert_item *c = &r->item[i];

		json_line(json_pack("{s:i, s:s, s:I, s:I, s:I, s:b, s:b, s:s?, s:s?, s:I}", "index", (int)i, "node", c->node, "heads",
		                    (json_int_t)c->heads, "kv_heads", (json_int_t)c->kv_heads, "head_dim", (json_int_t)c->width, "causal",
		                    c->causal, "converted", c->converted, "reason", c->reason, "state", c->state, "state_numbers",
		                    (json_int_t)c->state_numbers),
		          "attention");
	}
	json_line(json_pack("{s:s, s:i, s:i, s:i, s:b}", "file", path, "attentions", (int)r->nitem, "converted", (int)r->nconverted, "opset",
	                    r->opset, "calibrated", 0),
	          "conversion");
}

static int convert_run(void *opt, int argc, char **argv)
{
	const struct convert_cli *o = opt;
	struct convert_opt c = { .mechanism = mechanism_find(o->mechanism), .layers = o->layers, .strict = o->strict, .chunk = (int)o->chunk,
	                         .opset = (int)o->opset };
	struct convert_report r;
	struct linnet_error e = { 0 };
	struct linnet_model *m;
	int status;

	(void)argc;
	while (c.target < NTARGET && strcmp(target_names[c.target], o->target))
		c.target++;
	if (!o->output || o->chunk < 0 || o->chunk > 4096 || o->opset < 0 || o->opset > OPSET_NEWEST) {
		fprintf(stderr, "linnet: %s; see linnet convert --help\n",
		        !o->output ? "convert needs -o FILE" : "--chunk is 1 to 4096 and --opset at most 28");
		return EXIT_USAGE;
	}
	status = open_model(argv[0], &m);
	if (status)
		return status;
	if (convert_model(m, &c, &r, &e) || graph_export(m, r.opset, &e)) {
		err_file(&e, e.code, argv[0]);
		status = report_error(&e);
	} else if (proto_save(m, o->output, o->external, &e)) {
		err_file(&e, e.code, o->output);
		status = report_error(&e);
	} else if (globals.json) {
		json_items(&r, o->output);
	} else if (!globals.quiet) {
		print_items(&r, o->output);
	}
	if (!status && !r.nconverted)
		status = EXIT_NO;
	model_free(m);
	return status;
}

static const struct convert_cli defaults = { .mechanism = "elu", .target = "portable" };

const struct command convert_command = {
	.name = "convert",
	.summary = "Turn softmax attention into linear attention",
	.operands = "MODEL -o FILE",
	.details =
		"Recognises softmax attention and rewrites it into linear attention with a feature map and a normaliser.\n"
		"Targets: onnx, the LinearAttention operator of opset 27; ort, LinearAttention of com.microsoft; portable, standard operators of\n"
		"opset 17, in chunks; step, the same with states past_state.N in and present_state.N out, and the count of tokens seen so far as\n"
		"`position`, for one token at a time or a few.\n"
		"The result is approximate and not calibrated: compare it with linnet validate. Attention that cannot be carried over stays as it is\n"
		"and is listed with the reason. Exit status 1: nothing could be converted; the model is written all the same.",
	.examples = "linnet convert model.onnx -o linear.onnx --mechanism elu --target portable\n"
	            "linnet convert model.onnx -o step.onnx --target step\n"
	            "linnet convert model.onnx -o hybrid.onnx --layers all,-0",
	.opt = (const struct opt[]){
		{ "output", 'o', OPT_STRING, OPT(struct convert_cli, output), "FILE", "where to write the result", NULL },
		{ "mechanism", 'm', OPT_STRING, OPT(struct convert_cli, mechanism), "NAME", "feature map, elu by default", "elu|relu|exp" },
		{ "target", 't', OPT_STRING, OPT(struct convert_cli, target), "NAME", "the words of the result, portable by default",
		  "onnx|ort|portable|step" },
		{ "layers", 'l', OPT_STRING, OPT(struct convert_cli, layers), "LIST", "which attentions: all, 0,2-4 or all,-0", NULL },
		{ "strict", 0, OPT_FLAG, OPT(struct convert_cli, strict), NULL, "attention that stays softmax is an error", NULL },
		{ "chunk", 0, OPT_INT, OPT(struct convert_cli, chunk), "N", "tokens a chunk of the portable form, 64 by default", NULL },
		{ "opset", 0, OPT_INT, OPT(struct convert_cli, opset), "N", "opset of the result instead of the target's own", NULL },
		{ "external", 0, OPT_FLAG, OPT(struct convert_cli, external), NULL, "weights in a file of their own", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = 1,
	.size = sizeof(struct convert_cli),
	.defaults = &defaults,
	.run = convert_run,
};
