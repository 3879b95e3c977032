/* linnet passes: the list of passes and rules, as text, JSON and docs/passes.md. */
#include <string.h>

#include "cli/cli.h"
#include "graph/pass.h"

struct passes_opt {
	bool markdown;
};

static const char *kind(const struct pass *p)
{
	return p->kind == PASS_EXACT ? "exact" : "approximate";
}

static void print_pass(const struct pass *p)
{
	printf("%s%s%s (%s): %s\n", style(stdout, BOLD), p->name, style(stdout, RESET), kind(p), p->doc);
	for (int i = 0; i < p->nrule; i++)
		printf("  %s%-24s%s %s\n", style(stdout, CYAN), p->rule[i].name, style(stdout, RESET), p->rule[i].doc);
}

static void markdown_pass(const struct pass *p)
{
	printf("\n## %s (%s)\n\n%s.\n", p->name, kind(p), p->doc);
	if (p->nrule)
		printf("\n| rule | what it does |\n| --- | --- |\n");
	for (int i = 0; i < p->nrule; i++)
		printf("| %s | %s |\n", p->rule[i].name, p->rule[i].doc);
}

static int passes_run(void *opt, int argc, char **argv)
{
	const struct passes_opt *o = opt;

	(void)argc;
	(void)argv;
	if (o->markdown)
		printf("# Passes\n\nPrinted by `linnet passes --markdown`, in the order they run.\n");
	for (const struct pass *const *p = passes; *p; p++) {
		if (o->markdown) {
			markdown_pass(*p);
		} else if (globals.json) {
			json_t *rules = json_array();

			for (int i = 0; i < (*p)->nrule; i++)
				json_array_append_new(rules, json_pack("{s:s, s:s}", "name", (*p)->rule[i].name, "doc", (*p)->rule[i].doc));
			json_line(json_pack("{s:s, s:s, s:s, s:o}", "name", (*p)->name, "class", kind(*p), "doc", (*p)->doc, "rules", rules),
			          "pass");
		} else {
			print_pass(*p);
		}
	}
	return EXIT_YES;
}

const struct command passes_command = {
	.name = "passes",
	.summary = "List the passes and their rules",
	.operands = "",
	.opt = (const struct opt[]){
		{ "markdown", 0, OPT_FLAG, OPT(struct passes_opt, markdown), NULL, "as docs/passes.md", NULL },
		{ .name = NULL },
	},
	.size = sizeof(struct passes_opt),
	.run = passes_run,
};
