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
	bool texts = false;

	printf("\n## %s (%s)\n\n%s.\n", p->name, kind(p), p->doc);
	if (p->nrule)
		printf("\n| rule | what it does | differs |\n| --- | --- | --- |\n");
	for (int i = 0; i < p->nrule; i++) {
		printf("| %s | %s | %g |\n", p->rule[i].name, p->rule[i].doc, p->rule[i].differs);
		texts = texts || p->rule[i].from;
	}
	if (texts)
		printf("\n```\n");
	for (int i = 0; i < p->nrule; i++)
		if (p->rule[i].from) {
			printf("%s%s\n     ", p->rule[i].name, p->rule[i].guard ? ", where a guard holds" : "");
			for (const char *s = p->rule[i].from; *s; s++) /* lines keep the margin */
				printf("%c%s", *s, *s == '\n' ? "     " : "");
			printf("\n  => %s\n", p->rule[i].to);
		}
	if (texts)
		printf("```\n");
}

static int passes_run(void *opt, int argc, char **argv)
{
	const struct passes_opt *o = opt;

	(void)argc;
	(void)argv;
	if (o->markdown)
		printf("# Passes\n\nPrinted by `linnet passes --markdown`, in the order they run; `fuse` and `ort` only when a model is written so\n"
		       "(`linnet convert --fuse`). `differs` is the most that a rule's two sides may differ by on inputs drawn from [-1, 1), computed in double\n"
		       "precision, relative to them where they are above 1 (0: the same bits; 1e-5 and above: operators that are not defined in double); ctest\n"
		       "rules holds each rule to it. Rules stated as text are printed behind the table: the pattern, and behind => what takes its place. In them\n"
		       "float is any one floating-point type, [] any rank, a letter one length, @p a number. The others are code (`graph/passes/`).\n");
	for (int k = 0; pass_at(k); k++) {
		const struct pass *p = pass_at(k);

		if (o->markdown) {
			markdown_pass(p);
		} else if (globals.json) {
			json_t *rules = json_array();

			for (int i = 0; i < p->nrule; i++)
				json_array_append_new(rules, json_pack("{s:s, s:s, s:f, s:s?, s:s?}", "name", p->rule[i].name, "doc", p->rule[i].doc, "differs",
				                                       p->rule[i].differs, "from", p->rule[i].from, "to", p->rule[i].to));
			json_line(json_pack("{s:s, s:s, s:s, s:o}", "name", p->name, "class", kind(p), "doc", p->doc, "rules", rules), "pass");
		} else {
			print_pass(p);
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
