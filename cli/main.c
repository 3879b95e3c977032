/* The program: find the command, parse its options, run it. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COMMANDS(X)                                                                                \
	X(check)                                                                                   \
	X(show)                                                                                    \
	X(why)                                                                                     \
	X(run)                                                                                     \
	X(validate)                                                                                \
	X(generate)                                                                                \
	X(test)                                                                                    \
	X(convert)                                                                                 \
	X(certify)                                                                                 \
	X(grad)                                                                                    \
	X(train)                                                                                   \
	X(curve)                                                                                   \
	X(ops)                                                                                     \
	X(passes)                                                                                  \
	X(help)                                                                                    \
	X(completion)

#define X(name) extern const struct command name##_command;
COMMANDS(X)
#undef X

const struct command *const commands[] = {
#define X(name) &name##_command,
	COMMANDS(X)
#undef X
	NULL,
};

struct globals globals;

const struct opt global_opts[] = {
	{ "json", 0, OPT_FLAG, OPT(struct globals, json), NULL,
	  "print one JSON object a line instead of text", NULL },
	{ "quiet", 'q', OPT_FLAG, OPT(struct globals, quiet), NULL, "no progress and no notes on stderr", NULL },
	{ "color", 0, OPT_STRING, OPT(struct globals, color), "WHEN",
	  "colours: where a terminal reads, always or never", "auto|always|never" },
	{ "help", 'h', OPT_FLAG, OPT(struct globals, help), NULL, "print help and stop", NULL },
	{ .name = NULL },
};

const struct command *command_find(const char *name)
{
	for (const struct command *const *c = commands; *c; c++)
		if (!strcmp((*c)->name, name))
			return *c;
	return NULL;
}

static int usage(const char *before, const char *what, const char *after)
{
	fprintf(stderr, "%slinnet: %s%s%s%s; see linnet --help\n", style(stderr, RED), style(stderr, RESET),
	        before, what, after);
	return EXIT_USAGE;
}

static const struct opt *find_opt(const struct opt *table, const char *name, size_t n, char letter)
{
	for (; table && table->name; table++)
		if (letter ? table->letter == letter : strlen(table->name) == n && !memcmp(table->name, name, n))
			return table;
	return NULL;
}

static bool admitted(const char *values, const char *v)
{
	size_t n = strlen(v);

	while (*values) {
		size_t m = strcspn(values, "|");

		if (m == n && !memcmp(values, v, n))
			return true;
		values += m + (values[m] == '|');
	}
	return false;
}

/* Store one value; NULL on success, else what is wrong with it. */
static const char *store(const struct opt *o, char *base, const char *value)
{
	struct opt_list *l = (struct opt_list *)(base + o->offset);
	char *end = NULL;
	const char **v;

	errno = 0;
	if (o->values && !(o->kind == OPT_MAYBE && !*value) && !admitted(o->values, value))
		return " is none of the admitted values";
	switch (o->kind) {
	case OPT_FLAG: *(bool *)(base + o->offset) = true; return NULL;
	case OPT_INT:
		*(int64_t *)(base + o->offset) = strtoll(value, &end, 0);
		return errno || end == value || *end ? " is not an integer" : NULL;
	case OPT_REAL:
		*(double *)(base + o->offset) = strtod(value, &end);
		return errno || end == value || *end ? " is not a number" : NULL;
	case OPT_MAYBE:
	case OPT_STRING: *(const char **)(base + o->offset) = value; return NULL;
	case OPT_LIST: break;
	}
	v = realloc(l->v, (size_t)(l->n + 1) * sizeof *v);
	if (!v)
		return " does not fit in memory";
	v[l->n++] = value;
	l->v = v;
	return NULL;
}

/* One argument that starts with '-'. *at moves over a value taken from the next argument. */
static int parse_opt(const struct command *c, char *base, int argc, char **argv, int *at)
{
	const char *arg = argv[*at], *name = arg + 2, *value = NULL, *why;
	bool is_long = arg[1] == '-';
	size_t n = is_long ? strcspn(name, "=") : 0;
	const struct opt *o = find_opt(global_opts, name, n, is_long ? 0 : arg[1]);
	char *into = (char *)&globals;

	if (!o && c) {
		o = find_opt(c->opt, name, n, is_long ? 0 : arg[1]);
		into = base;
	}
	if (!o)
		return usage("unknown option ", arg, "");
	if (is_long && name[n] == '=')
		value = name + n + 1;
	else if (!is_long && arg[2])
		value = arg + 2;
	if (o->kind == OPT_FLAG && value)
		return usage("option ", arg, " takes no value");
	if (o->kind == OPT_MAYBE && !value)
		value = "";
	if (o->kind != OPT_FLAG && !value) {
		if (*at + 1 >= argc)
			return usage("option ", arg, " needs a value");
		value = argv[++*at];
	}
	why = store(o, into, value);
	return why ? usage("the value of --", o->name, why) : 0;
}

static void free_lists(const struct opt *o, char *base)
{
	for (; o && o->name; o++)
		if (o->kind == OPT_LIST)
			free(((struct opt_list *)(base + o->offset))->v);
}

static int start(const struct command *c, int argc, char **argv)
{
	char *base = calloc(1, c->size ? c->size : 1), **operand = calloc((size_t)argc + 1, sizeof *operand);
	int n = 0, status = base && operand ? 0 : EXIT_RESOURCES;
	bool only_operands = false;

	if (!status && c->defaults)
		memcpy(base, c->defaults, c->size);
	for (int i = 0; i < argc && !status; i++) {
		if (!only_operands && !strcmp(argv[i], "--"))
			only_operands = true;
		else if (!only_operands && argv[i][0] == '-' && argv[i][1])
			status = parse_opt(c, base, argc, argv, &i);
		else
			operand[n++] = argv[i];
	}
	if (!status && globals.help)
		help_of_command(stdout, c);
	else if (!status && n < c->min)
		status = usage(c->name, " needs ", c->operands);
	else if (!status && c->max >= 0 && n > c->max)
		status = usage("unexpected operand \"", operand[c->max], "\"");
	else if (!status)
		status = c->run(base, n, operand);
	if (base)
		free_lists(c->opt, base);
	free(base);
	free(operand);
	progress_end();
	if (fflush(stdout) || ferror(stdout)) {
		fputs("linnet: standard output cannot be written\n", stderr);
		return EXIT_INPUT;
	}
	return status;
}

int main(int argc, char **argv)
{
	int i = 1;

	for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
		int status;

		if (!strcmp(argv[i], "--version")) {
			printf("linnet %s\n", LINNET_VERSION);
			return EXIT_YES;
		}
		status = parse_opt(NULL, NULL, argc, argv, &i);
		if (status)
			return status;
	}
	if (globals.help || i >= argc) {
		help_program(globals.help ? stdout : stderr);
		return globals.help ? EXIT_YES : EXIT_USAGE;
	}
	if (!command_find(argv[i]))
		return usage("unknown command \"", argv[i], "\"");
	return start(command_find(argv[i]), argc - i - 1, argv + i + 1);
}
