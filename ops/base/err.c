/* The error record. */
#include "ops/base/err.h"

#include "ops/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
#define X(name, text) #name,
	LINNET_CODES(X)
#undef X
};

static const char *const texts[] = {
#define X(name, text) text,
	LINNET_CODES(X)
#undef X
};

const char *linnet_code_name(enum linnet_code code)
{
	return (size_t)code < sizeof names / sizeof *names ? names[code] : "?";
}

const char *linnet_code_text(enum linnet_code code)
{
	return (size_t)code < sizeof texts / sizeof *texts ? texts[code] : "?";
}

/* Bytes of the printable UTF-8 character at p, which ends with a zero; 0 when it is none. */
static size_t character(const char *p)
{
	uint32_t c = 0;
	size_t n = utf8_get(p, 4, &c);

	return c < 0x20 || (c >= 0x7f && c < 0xa0) ? 0 : n;
}

/* One line of valid text, whatever a file's names hold and wherever it was cut. */
static void make_printable(char *s)
{
	while (*s) {
		size_t n = character(s);

		if (!n)
			*s = *s > 0 && *s < ' ' ? ' ' : '?';
		s += n ? n : 1;
	}
}

enum linnet_code (fail)(struct linnet_error *e, enum linnet_code code, const char *fmt, ...)
{
	va_list ap;

	if (!e || e->code)
		return code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof e->message, fmt, ap);
	va_end(ap);
	make_printable(e->message);
	return code;
}

enum linnet_code (fail_mem)(struct linnet_error *e)
{
	return fail(e, LINNET_EMEM, "out of memory");
}

static void set(char *dst, size_t n, const char *s)
{
	if (!s || *dst)
		return;
	snprintf(dst, n, "%s", s);
	make_printable(dst);
}

enum linnet_code err_node(struct linnet_error *e, enum linnet_code code, const char *node, const char *op)
{
	if (e && code && !*e->node && !*e->op) {
		set(e->node, sizeof e->node, node);
		set(e->op, sizeof e->op, op);
	}
	return code;
}

enum linnet_code err_file(struct linnet_error *e, enum linnet_code code, const char *file)
{
	if (e && code)
		set(e->file, sizeof e->file, file);
	return code;
}

void err_clear(struct linnet_error *e)
{
	if (e)
		memset(e, 0, sizeof *e);
}

char *linnet_error_line(const struct linnet_error *e, char *buf, size_t n)
{
	size_t at = 0;

	if (!n)
		return buf;
	buf[0] = '\0';
#define ADD(...)                                                                                   \
	do {                                                                                       \
		if (at < n)                                                                        \
			at += (size_t)snprintf(buf + at, n - at, __VA_ARGS__);                     \
	} while (0)
	if (*e->file)
		ADD("%s: ", e->file);
	if (*e->node && *e->op)
		ADD("node \"%s\" (%s): ", e->node, e->op);
	else if (*e->node)
		ADD("value \"%s\": ", e->node);
	else if (*e->op)
		ADD("%s: ", e->op);
	ADD("%s", *e->message ? e->message : linnet_code_text(e->code));
#undef ADD
	return buf;
}
