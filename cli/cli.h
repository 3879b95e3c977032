/*
 * The program's frame: commands and options are tables, from which parsing, --help, manual pages, docs/cli.md and
 * shell completion derive.
 *
 * Results go to stdout, everything else to stderr. Exit status: 0 done and the answer is yes; 1 done and the answer is
 * no; 2 wrong usage; 3 input unreadable or unsupported; 4 out of resources.
 */
#ifndef LINNET_CLI_H
#define LINNET_CLI_H

#include <jansson.h>
#include <stdio.h>

#include "linnet.h"

enum { EXIT_YES = 0, EXIT_NO = 1, EXIT_USAGE = 2, EXIT_INPUT = 3, EXIT_RESOURCES = 4 };

enum opt_kind { OPT_FLAG, OPT_INT, OPT_REAL, OPT_STRING, OPT_LIST, OPT_MAYBE };

/* What OPT_LIST fills: every occurrence in order. */
struct opt_list {
	const char **v;
	int n;
};

/*
 * One option. The value goes to the member at `offset` of the command's option struct: bool,
 * int64_t, double, const char *, struct opt_list; OPT_MAYBE: const char *, the value only as --name=VALUE, "" without.
 */
struct opt {
	const char *name; /* long name without dashes; NULL ends the table */
	char letter;      /* short name, or 0 */
	enum opt_kind kind;
	size_t offset;
	const char *arg;    /* placeholder of the value; completion knows FILE and DIR */
	const char *help;   /* one line, lower case, no full stop */
	const char *values; /* admitted values, "a|b|c", or NULL */
};

#define OPT(type, member) offsetof(type, member)

/* Options every command has. */
struct globals {
	bool json, quiet, help;
	const char *color; /* auto, always, never */
};

extern struct globals globals; /* set by main() before a command runs */
extern const struct opt global_opts[];

struct command {
	const char *name;
	const char *summary;  /* one line, no full stop */
	const char *operands; /* "MODEL", "A B", "[NAME]" */
	const char *details;  /* paragraphs, or NULL */
	const char *examples; /* lines, or NULL */
	const struct opt *opt;
	int min, max; /* operands; max -1: any number */
	size_t size;  /* of the option struct; it starts zeroed or as `defaults` */
	const void *defaults;
	int (*run)(void *opt, int argc, char **argv); /* operands only; returns the exit status */
};

extern const struct command *const commands[]; /* ended by NULL */
const struct command *command_find(const char *name);

/* ---- Help, derived (help.c) ---- */

void help_program(FILE *f);
void help_of_command(FILE *f, const struct command *c);

/* ---- Terminal (term.c) ---- */

enum style { RESET, BOLD, DIM, RED, GREEN, YELLOW, BLUE, CYAN };

/* The escape sequence, "" where f shows no colours: follows --color, NO_COLOR, TERM and isatty. */
const char *style(FILE *f, enum style s);

/* One line on stderr, only on a terminal and without --quiet, at most ten times a second. total 0: unknown. */
void progress(const char *what, int64_t done, int64_t total);
void progress_end(void); /* erase it */

/* A note on stderr, unless --quiet. */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* "1.2 MiB"; "17.3 ms", "12 min". Returns buf. */
const char *human_bytes(int64_t n, char *buf, size_t size);
const char *human_seconds(double s, char *buf, size_t size);

/* Bytes in s, "65536", "64K" or "1.5M"; -1: it says none. */
int64_t bytes_of(const char *s);

/* ---- Tables: columns aligned to their widest cell ---- */

struct table {
	char **cell;
	int ncol, ncell, cap;
	const char *align; /* one letter a column: 'l' or 'r' */
};

void table_init(struct table *t, int ncol, const char *align);
void table_add(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(struct table *t, FILE *f, bool header); /* frees the cells */

/* ---- Errors and JSON ---- */

/* Print the error (one line; with --json an object too) and give the exit status for its code. */
int report_error(const struct linnet_error *e);

/* Print one object a line on stdout, "schema" and "kind" first; takes the reference over. */
void json_line(json_t *object, const char *kind);

/* The object as a file, which appears whole or not at all; takes the reference over. */
enum linnet_code json_save(json_t *object, const char *path, struct linnet_error *e);

#endif
