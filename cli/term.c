/* What the program prints through: colours, progress, tables, errors, JSON lines. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph/file.h"
#include "ops/base/clock.h"

static bool colours(FILE *f)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	if (globals.color && strcmp(globals.color, "auto"))
		return !strcmp(globals.color, "always");
	return !(no && *no) && !(term && !strcmp(term, "dumb")) && isatty(fileno(f));
}

const char *style(FILE *f, enum style s)
{
	static const char *const code[] = {
		[RESET] = "\033[0m",   [BOLD] = "\033[1m",    [DIM] = "\033[2m",   [RED] = "\033[31m",
		[GREEN] = "\033[32m",  [YELLOW] = "\033[33m", [BLUE] = "\033[34m", [CYAN] = "\033[36m",
	};

	return colours(f) ? code[s] : "";
}

static bool progress_shown;

void progress(const char *what, int64_t done, int64_t total)
{
	static double last;
	double t;

	if (globals.quiet || globals.json || !isatty(STDERR_FILENO))
		return;
	t = seconds_now();
	if (t - last < 0.1)
		return;
	last = t;
	progress_shown = true;
	fprintf(stderr, "\r\033[K%s ", what);
	if (total > 0)
		fprintf(stderr, "%3d%% (%lld of %lld)", (int)(100 * done / total), (long long)done,
		        (long long)total);
	else
		fprintf(stderr, "%lld", (long long)done);
	fflush(stderr);
}

void progress_end(void)
{
	if (progress_shown)
		fputs("\r\033[K", stderr);
	progress_shown = false;
}

void note(const char *fmt, ...)
{
	va_list ap;

	if (globals.quiet)
		return;
	progress_end();
	va_start(ap, fmt);
	fputs("linnet: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

int64_t bytes_of(const char *s)
{
	static const char units[] = "KMG";
	char *end;
	double x = strtod(s, &end);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (end == s || (*end && (!unit || end[1])))
		return -1;
	for (const char *u = units; unit && u <= unit; u++)
		x *= 1024;
	return x >= 0 && x < 1e18 ? (int64_t)x : -1;
}

const char *human_bytes(int64_t n, char *buf, size_t size)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double v = (double)n;
	int u = 0;

	for (; v >= 1024 && u < 4; u++)
		v /= 1024;
	snprintf(buf, size, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
	return buf;
}

const char *human_seconds(double s, char *buf, size_t size)
{
	if (s < 1e-3)
		snprintf(buf, size, "%.1f us", s * 1e6);
	else if (s < 1)
		snprintf(buf, size, "%.1f ms", s * 1e3);
	else if (s < 120)
		snprintf(buf, size, "%.2f s", s);
	else if (s < 7200)
		snprintf(buf, size, "%.0f min", s / 60);
	else
		snprintf(buf, size, "%.1f h", s / 3600);
	return buf;
}

/* ---- Tables ---- */

void table_init(struct table *t, int ncol, const char *align)
{
	*t = (struct table){ .ncol = ncol, .align = align };
}

void table_add(struct table *t, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (t->ncell == t->cap) {
		int cap = t->cap ? t->cap * 2 : 64;
		char **cell = realloc(t->cell, (size_t)cap * sizeof *cell);

		if (!cell)
			return;
		t->cell = cell;
		t->cap = cap;
	}
	t->cell[t->ncell++] = strdup(text);
}

/* Columns a UTF-8 text takes, counting a code point as one. */
static int width_of(const char *s)
{
	int n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

void table_print(struct table *t, FILE *f, bool header)
{
	int *width = calloc((size_t)t->ncol, sizeof *width);

	for (int i = 0; width && i < t->ncell; i++)
		if (t->cell[i] && width_of(t->cell[i]) > width[i % t->ncol])
			width[i % t->ncol] = width_of(t->cell[i]);
	for (int i = 0; width && i < t->ncell; i++) {
		const char *s = t->cell[i] ? t->cell[i] : "";
		int col = i % t->ncol, pad = width[col] - width_of(s);
		bool last = col == t->ncol - 1, bold = header && i < t->ncol;

		if (t->align[col] == 'r')
			fprintf(f, "%*s", pad, "");
		fprintf(f, "%s%s%s", bold ? style(f, BOLD) : "", s, bold ? style(f, RESET) : "");
		if (t->align[col] != 'r' && !last)
			fprintf(f, "%*s", pad, "");
		fputs(last ? "\n" : "  ", f);
	}
	for (int i = 0; i < t->ncell; i++)
		free(t->cell[i]);
	free(t->cell);
	free(width);
	*t = (struct table){ 0 };
}

/* ---- Errors and JSON ---- */

void json_line(json_t *object, const char *kind)
{
	json_t *line = json_pack("{s:s, s:s}", "schema", "linnet/1", "kind", kind);

	if (line && object)
		json_object_update(line, object);
	if (line)
		json_dumpf(line, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(line);
	json_decref(object);
}

static enum linnet_code write_text(struct file_out *f, const void *text, struct arena *a, struct linnet_error *e)
{
	(void)a;
	TRY(file_write(f, text, strlen(text), e));
	return file_write(f, "\n", 1, e);
}

enum linnet_code json_save(json_t *object, const char *path, struct linnet_error *e)
{
	char *text = object ? json_dumps(object, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
	enum linnet_code code = text ? file_save(path, write_text, text, e) : fail_mem(e);

	free(text);
	json_decref(object);
	return code;
}

static int exit_status(enum linnet_code code)
{
	switch (code) {
	case LINNET_OK: return EXIT_YES;
	case LINNET_EUSAGE: return EXIT_USAGE;
	case LINNET_EMEM:
	case LINNET_ELIMIT: return EXIT_RESOURCES;
	default: return EXIT_INPUT;
	}
}

int report_error(const struct linnet_error *e)
{
	char line[1200];

	progress_end();
	if (globals.json)
		json_line(json_pack("{s:s, s:s, s:s, s:s, s:s}", "code", linnet_code_name(e->code), "file", e->file,
		                    "node", e->node, "op", e->op, "message", e->message),
		          "error");
	fprintf(stderr, "%slinnet: %s%s\n", style(stderr, RED), style(stderr, RESET),
	        linnet_error_line(e, line, sizeof line));
	return exit_status(e->code);
}
