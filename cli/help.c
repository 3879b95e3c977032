/* Help in its forms, all from the tables: text, manual pages, Markdown, shell completion. */
#include "cli/cli.h"

#include <string.h>

/* Between an option and its value. */
static const char *gap(const struct opt *o) { return o->arg && o->kind != OPT_MAYBE ? " " : ""; }

static const char about[] = "convert, run and validate ONNX models";
static const char statuses[] = "0 done and the answer is yes, 1 done and the answer is no, 2 wrong usage, "
                               "3 input unreadable or unsupported, 4 out of resources";

static void print_opts(FILE *f, const struct opt *o)
{
	for (; o && o->name; o++) {
		char words[64], letter[8] = "    ";

		if (o->letter)
			snprintf(letter, sizeof letter, "-%c, ", o->letter);
		snprintf(words, sizeof words, "%s--%s%s%s", letter, o->name, gap(o), o->arg ? o->arg : "");
		fprintf(f, "  %s%-26s%s %s", style(f, CYAN), words, style(f, RESET), o->help);
		fprintf(f, o->values ? " (%s)\n" : "\n", o->values);
	}
}

static void heading(FILE *f, const char *s)
{
	fprintf(f, "\n%s%s%s\n", style(f, BOLD), s, style(f, RESET));
}

void help_program(FILE *f)
{
	fprintf(f, "linnet %s: %s\n", LINNET_VERSION, about);
	heading(f, "Usage: linnet COMMAND [OPTIONS] FILES");
	heading(f, "Commands");
	for (const struct command *const *c = commands; *c; c++)
		fprintf(f, "  %s%-12s%s %s\n", style(f, CYAN), (*c)->name, style(f, RESET), (*c)->summary);
	heading(f, "Options of every command");
	print_opts(f, global_opts);
	fprintf(f, "      --version              print the version and stop\n");
	fprintf(f, "\nlinnet COMMAND --help says more. Exit status: %s.\n", statuses);
}

void help_of_command(FILE *f, const struct command *c)
{
	fprintf(f, "%sUsage: linnet %s%s %s\n\n%s.\n", style(f, BOLD), c->name, style(f, RESET), c->operands,
	        c->summary);
	if (c->details)
		fprintf(f, "\n%s\n", c->details);
	if (c->opt && c->opt->name) {
		heading(f, "Options");
		print_opts(f, c->opt);
	}
	heading(f, "Options of every command");
	print_opts(f, global_opts);
	if (c->examples) {
		heading(f, "Examples");
		fprintf(f, "%s\n", c->examples);
	}
}

/* ---- Manual pages ---- */

static void roff(FILE *f, const char *s)
{
	for (bool start = true; *s; start = *s++ == '\n') {
		if (start && (*s == '.' || *s == '\''))
			fputs("\\&", f);
		if (*s == '-' || *s == '\\')
			fputs(*s == '-' ? "\\-" : "\\e", f);
		else
			fputc(*s, f);
	}
}

static void roff_opts(FILE *f, const struct opt *o)
{
	for (; o && o->name; o++) {
		fputs(".TP\n", f);
		if (o->letter)
			fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
		fputs("\\fB\\-\\-", f);
		roff(f, o->name);
		fprintf(f, "\\fR%s\\fI%s\\fR\n", gap(o), o->arg ? o->arg : "");
		roff(f, o->help);
		if (o->values) {
			fputs(" (", f);
			roff(f, o->values);
			fputc(')', f);
		}
		fputc('\n', f);
	}
}

static void man_program(FILE *f)
{
	fprintf(f, ".TH LINNET 1 \"\" \"linnet %s\" \"User Commands\"\n.SH NAME\nlinnet \\- %s\n", LINNET_VERSION,
	        about);
	fputs(".SH SYNOPSIS\n.B linnet\n.I command\n[\\fIoptions\\fR] \\fIfiles\\fR\n.SH COMMANDS\n", f);
	for (const struct command *const *c = commands; *c; c++) {
		fprintf(f, ".TP\n\\fB%s\\fR\n", (*c)->name);
		roff(f, (*c)->summary);
		fprintf(f, "; see\n.BR linnet\\-%s (1)\n", (*c)->name);
	}
	fputs(".SH OPTIONS\nEvery command takes these.\n", f);
	roff_opts(f, global_opts);
	fprintf(f, ".SH EXIT STATUS\n%s.\n", statuses);
}

static void man_command(FILE *f, const struct command *c)
{
	fprintf(f, ".TH LINNET\\-%s 1 \"\" \"linnet %s\" \"User Commands\"\n.SH NAME\nlinnet\\-%s \\- ", c->name,
	        LINNET_VERSION, c->name);
	roff(f, c->summary);
	fprintf(f, "\n.SH SYNOPSIS\n.B linnet %s\n[\\fIoptions\\fR] ", c->name);
	roff(f, c->operands);
	fputs("\n.SH DESCRIPTION\n", f);
	roff(f, c->details ? c->details : c->summary);
	fputs("\n.SH OPTIONS\n", f);
	roff_opts(f, c->opt);
	roff_opts(f, global_opts);
	if (c->examples) {
		fputs(".SH EXAMPLES\n.nf\n", f);
		roff(f, c->examples);
		fputs("\n.fi\n", f);
	}
	fputs(".SH SEE ALSO\n.BR linnet (1)\n", f);
}

/* ---- Markdown: docs/cli.md ---- */

static void markdown_opts(FILE *f, const struct opt *o)
{
	if (!o || !o->name)
		return;
	fputs("\n| option | meaning |\n| --- | --- |\n", f);
	for (; o->name; o++) {
		fprintf(f, "| `--%s%s%s`", o->name, gap(o), o->arg ? o->arg : "");
		if (o->letter)
			fprintf(f, ", `-%c`", o->letter);
		fprintf(f, " | %s", o->help);
		for (const char *s = o->values; s && *s; s++)
			fprintf(f, s == o->values ? " (%c" : *s == '|' ? ", " : "%c", *s);
		fputs(o->values ? ") |\n" : " |\n", f);
	}
}

static void markdown(FILE *f)
{
	fputs("# Command line\n\nPrinted by `linnet help --markdown`.\n\nOptions of every command:\n", f);
	markdown_opts(f, global_opts);
	fprintf(f, "\nExit status: %s.\n", statuses);
	for (const struct command *const *c = commands; *c; c++) {
		fprintf(f, "\n## linnet %s %s\n\n%s.\n", (*c)->name, (*c)->operands, (*c)->summary);
		if ((*c)->details)
			fprintf(f, "\n%s\n", (*c)->details);
		markdown_opts(f, (*c)->opt);
		if ((*c)->examples)
			fprintf(f, "\n```\n%s\n```\n", (*c)->examples);
	}
}

struct help_opt {
	bool man, markdown;
};

static int help_run(void *opt, int argc, char **argv)
{
	const struct help_opt *o = opt;
	const struct command *c = argc ? command_find(argv[0]) : NULL;

	if (argc && !c) {
		fprintf(stderr, "linnet: unknown command \"%s\"; see linnet --help\n", argv[0]);
		return EXIT_USAGE;
	}
	if (o->markdown)
		markdown(stdout);
	else if (o->man && c)
		man_command(stdout, c);
	else if (o->man)
		man_program(stdout);
	else if (c)
		help_of_command(stdout, c);
	else
		help_program(stdout);
	return EXIT_YES;
}

const struct command help_command = {
	.name = "help",
	.summary = "Print help on the program or on a command",
	.operands = "[COMMAND]",
	.opt = (const struct opt[]){
		{ "man", 0, OPT_FLAG, OPT(struct help_opt, man), NULL, "as a manual page", NULL },
		{ "markdown", 0, OPT_FLAG, OPT(struct help_opt, markdown), NULL, "everything, as Markdown", NULL },
		{ .name = NULL },
	},
	.max = 1,
	.size = sizeof(struct help_opt),
	.run = help_run,
};

/* ---- Shell completion ---- */

static void names(FILE *f, const struct opt *o)
{
	for (; o && o->name; o++)
		fprintf(f, " --%s", o->name);
}

static void spaced(FILE *f, const char *values)
{
	for (; *values; values++)
		fputc(*values == '|' ? ' ' : *values, f);
}

static void bash_values(FILE *f, const struct opt *o)
{
	for (; o && o->name; o++) {
		if (!o->values)
			continue;
		fprintf(f, "\t--%s) COMPREPLY=($(compgen -W \"", o->name);
		spaced(f, o->values);
		fputs("\" -- \"$cur\")); return;;\n", f);
	}
}

static void completion_bash(FILE *f)
{
	fputs("# bash completion for linnet\n_linnet() {\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} opts\n\tCOMPREPLY=()\n"
	      "\tif [ \"$COMP_CWORD\" -eq 1 ]; then\n\t\tCOMPREPLY=($(compgen -W \"",
	      f);
	for (const struct command *const *c = commands; *c; c++)
		fprintf(f, "%s ", (*c)->name);
	fputs("--help --version\" -- \"$cur\")); return\n\tfi\n\tcase ${COMP_WORDS[1]} in\n", f);
	for (const struct command *const *c = commands; *c; c++) {
		fprintf(f, "\t%s) opts=\"", (*c)->name);
		names(f, (*c)->opt);
		names(f, global_opts);
		fputs("\"\n\tcase $prev in\n", f);
		bash_values(f, (*c)->opt);
		bash_values(f, global_opts);
		fputs("\tesac;;\n", f);
	}
	fputs("\tesac\n\tcase $cur in\n\t-*) COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\"));;\n"
	      "\t*) COMPREPLY=($(compgen -f -- \"$cur\"));;\n\tesac\n}\ncomplete -o filenames -F _linnet linnet\n",
	      f);
}

static void zsh_opts(FILE *f, const struct opt *o)
{
	for (; o && o->name; o++) {
		fprintf(f, "\t\t'--%s[", o->name);
		for (const char *s = o->help; *s; s++)
			fprintf(f, *s == '[' || *s == ']' || *s == ':' ? "\\%c" : *s == '\'' ? "'\\%c'" : "%c", *s);
		fputc(']', f);
		if (o->kind == OPT_MAYBE) {
			; /* mostly used without a value */
		} else if (o->values) {
			fprintf(f, ":%s:(", o->arg);
			spaced(f, o->values);
			fputc(')', f);
		} else if (o->kind != OPT_FLAG) {
			fprintf(f, ":%s:%s", o->arg,
			        !strcmp(o->arg, "FILE") ? "_files" : !strcmp(o->arg, "DIR") ? "_files -/" : "");
		}
		fputs("' \\\n", f);
	}
}

static void completion_zsh(FILE *f)
{
	fputs("#compdef linnet\nif (( CURRENT == 2 )); then\n\t_values command", f);
	for (const struct command *const *c = commands; *c; c++)
		fprintf(f, " '%s[%s]'", (*c)->name, (*c)->summary);
	fputs("\n\treturn\nfi\ncase $words[2] in\n", f);
	for (const struct command *const *c = commands; *c; c++) {
		fprintf(f, "%s)\n\t_arguments \\\n", (*c)->name);
		zsh_opts(f, (*c)->opt);
		zsh_opts(f, global_opts);
		fputs("\t\t'*:file:_files';;\n", f);
	}
	fputs("esac\n", f);
}

static int completion_run(void *opt, int argc, char **argv)
{
	(void)opt;
	(void)argc;
	if (!strcmp(argv[0], "bash")) {
		completion_bash(stdout);
	} else if (!strcmp(argv[0], "zsh")) {
		completion_zsh(stdout);
	} else {
		fprintf(stderr, "linnet: there is completion for bash and zsh, not \"%s\"\n", argv[0]);
		return EXIT_USAGE;
	}
	return EXIT_YES;
}

const struct command completion_command = {
	.name = "completion",
	.summary = "Print the completion script of a shell",
	.operands = "bash|zsh",
	.examples = "source <(linnet completion bash)\nlinnet completion zsh > ~/.zfunc/_linnet",
	.min = 1,
	.max = 1,
	.run = completion_run,
};
