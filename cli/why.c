/* linnet why: what recognition missed in a model, and what became of a node. */
#include "graph/why.h"

#include <string.h>

#include "cli/model.h"

struct why_opt {
	bool list, markdown;
};

/* ---- The codes ---- */

static void list_codes(bool markdown)
{
	if (markdown)
		printf("# Why not\n\nPrinted by `linnet why --list --markdown`. `linnet why MODEL` tells of every softmax, gated product and loop that did not\n"
		       "become one node (attention, a gated linear unit, a linear recurrence) which condition failed, by these codes, and the node that\n"
		       "shows it. Codes keep their names and meanings.\n\n| code | near form | what does not hold | what can be done |\n| --- | --- | --- | --- |\n");
	for (int i = WHY_NONE + 1; i < WHY_COUNT; i++) {
		const struct why_row *r = &why_rows[i];

		if (markdown)
			printf("| `%s` | %s | %s | %s |\n", r->code, r->form, r->text, r->help);
		else if (globals.json)
			json_line(json_pack("{s:s, s:s, s:s, s:s}", "code", r->code, "form", r->form, "meaning", r->text, "help", r->help), "code");
		else
			printf("%s%s%s\n  %s\n  %s\n", style(stdout, CYAN), r->code, style(stdout, RESET), r->text, r->help);
	}
}

/* ---- A model ---- */

static json_t *finding_json(const struct finding *f)
{
	const struct why_row *r = &why_rows[f->code];
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "node", f->node, "operator", f->op, "form", r->form, "code", r->code, "meaning",
	                      r->text, "help", r->help);

	if (*f->witness_op)
		json_object_set_new(j, "witness", json_pack("{s:s, s:s}", "node", f->witness, "operator", f->witness_op));
	else
		json_object_set_new(j, "witness", json_pack("{s:s}", "value", f->witness));
	json_object_set_new(j, "described", json_boolean(f->described));
	return j;
}

static void print_finding(const struct finding *f)
{
	const struct why_row *r = &why_rows[f->code];

	if (globals.json) {
		json_line(finding_json(f), "finding");
		return;
	}
	printf("%s%s%s (%s)  %s%s%s\n  %s%s.\n", style(stdout, BOLD), f->node, style(stdout, RESET), f->op, style(stdout, CYAN), r->code,
	       style(stdout, RESET), f->described ? "described as attention, but stays as written: " : "", r->text);
	if (*f->witness_op)
		printf("  witness: %s (%s)\n", f->witness, f->witness_op);
	else
		printf("  witness: value %s\n", f->witness);
	printf("  help: %s.\n", r->help);
}

static void print_summary(const struct findings *f)
{
	if (globals.json) {
		json_line(json_pack("{s:i, s:i, s:i, s:i, s:i}", "attention", f->recognised[0], "glu", f->recognised[1], "recurrence", f->recognised[2],
		                    "experts", f->mixtures, "not_recognised", f->n), "recognised");
		return;
	}
	printf("%srecognised: %d attention, %d gated units, %d linear recurrences", f->n ? "\n" : "", f->recognised[0], f->recognised[1], f->recognised[2]);
	if (f->mixtures)
		printf(", %d mixtures of experts", f->mixtures);
	printf("; not recognised: %d\n", f->n);
}

/* ---- A node ---- */

static const char *const fate_names[] = { "unknown", "part", "near", "rewritten", "kept", "constant", "input", "left_out" };

static int print_fate(const struct findings *f, const struct node_fate *n, const char *name)
{
	if (n->fate == FATE_UNKNOWN) {
		struct linnet_error e = { 0 };

		fail(&e, LINNET_EUSAGE, "there is no node and no value \"%s\"", name);
		return report_error(&e);
	}
	if (globals.json) {
		json_t *j = json_pack("{s:s, s:s, s:s}", "node", n->node, "operator", n->op, "fate", fate_names[n->fate]);

		if (n->fate != FATE_NEAR && n->into)
			json_object_set_new(j, "into", json_pack("{s:s, s:s, s:s?}", "node", n->into, "operator", n->into_op, "rule", n->rule));
		if (n->finding >= 0)
			json_object_set_new(j, "finding", finding_json(&f->list[n->finding]));
		json_line(j, "node");
		return n->fate == FATE_NEAR ? EXIT_NO : EXIT_YES;
	}
	printf("%s%s%s%s%s%s ", style(stdout, BOLD), n->node, style(stdout, RESET), *n->op ? " (" : "", n->op, *n->op ? ")" : "");
	switch (n->fate) {
	case FATE_UNKNOWN: break;
	case FATE_PART:
		if (!n->rule)
			printf("is %s as written\n", n->into_op);
		else
			printf("is part of %s at %s, by rule %s\n", n->into_op, n->into, n->rule);
		break;
	case FATE_NEAR:
		printf("belongs to what was not recognised:\n\n");
		print_finding(&f->list[n->finding]);
		break;
	case FATE_REWRITTEN: printf("became %s by rule %s\n", n->into_op, n->rule); break;
	case FATE_KEPT:
		if (n->into)
			printf("stays as written, in front of %s at %s\n", n->into_op, n->into);
		else
			printf("stays as written: no softmax, gated product or loop is near\n");
		break;
	case FATE_INPUT: printf("is an input\n"); break;
	case FATE_CONSTANT: printf("is computed once: its result is constant\n"); break;
	case FATE_LEFT_OUT: printf("is left out: it changes nothing, another node computes the same, or nothing needs it\n"); break;
	}
	return n->fate == FATE_NEAR ? EXIT_NO : EXIT_YES;
}

static int why_run(void *opt, int argc, char **argv)
{
	const struct why_opt *o = opt;
	struct linnet_error e = { 0 };
	struct linnet_model *m;
	struct findings f;
	struct node_fate fate;
	struct arena *a;
	int status;

	if (o->list) {
		list_codes(o->markdown);
		return EXIT_YES;
	}
	if (!argc) {
		fail(&e, LINNET_EUSAGE, "why needs MODEL [NODE], or --list");
		return report_error(&e);
	}
	status = open_model(argv[0], &m);
	if (status)
		return status;
	a = arena_new();
	if (!a || why_graph(m->graph, a, &f, &e) || (argc > 1 && why_node(&f, argv[1], a, &fate, &e))) {
		if (!a)
			fail_mem(&e);
		err_file(&e, e.code, argv[0]);
		status = report_error(&e);
	} else if (argc > 1) {
		status = print_fate(&f, &fate, argv[1]);
	} else {
		for (int i = 0; i < f.n; i++)
			print_finding(&f.list[i]);
		print_summary(&f);
		status = f.n ? EXIT_NO : EXIT_YES;
	}
	arena_free(a);
	model_free(m);
	return status;
}

const struct command why_command = {
	.name = "why",
	.summary = "Tell why a softmax, gated product or loop was not recognised",
	.operands = "MODEL [NODE]",
	.details = "For each softmax, gated product and loop that did not become one node (attention, a gated linear unit, a linear recurrence): a code for "
	           "the condition that failed (docs/why.md), what it means, and the node of the file that shows it. With NODE, the name of a node or of a value "
	           "it computes: what became of that node. Exit status 0: everything was recognised, or NODE belongs to nothing that was not; 1: it was not.",
	.examples = "linnet why model.onnx\nlinnet why model.onnx /encoder/layer.0/attention/Softmax\nlinnet why --json model.onnx\nlinnet why --list",
	.opt = (const struct opt[]){
		{ "list", 'l', OPT_FLAG, OPT(struct why_opt, list), NULL, "list the codes and what they mean", NULL },
		{ "markdown", 0, OPT_FLAG, OPT(struct why_opt, markdown), NULL, "with --list: as docs/why.md", NULL },
		{ .name = NULL },
	},
	.max = 2,
	.size = sizeof(struct why_opt),
	.run = why_run,
};
