/* Building text. */
#include "ops/base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void str_init(struct str *s, struct arena *a)
{
	*s = (struct str){ .a = a };
}

static int grow(struct str *s, size_t more)
{
	size_t cap = s->cap ? s->cap : 64;
	char *p;

	if (s->failed)
		return -1;
	if (s->n + more + 1 <= s->cap)
		return 0;
	while (cap < s->n + more + 1)
		cap *= 2;
	p = arena_get(s->a, cap, 1);
	if (!p) {
		s->failed = 1;
		return -1;
	}
	if (s->n)
		memcpy(p, s->p, s->n);
	s->p = p;
	s->cap = cap;
	return 0;
}

void str_addn(struct str *s, const char *text, size_t n)
{
	if (grow(s, n))
		return;
	if (n)
		memcpy(s->p + s->n, text, n);
	s->n += n;
	s->p[s->n] = '\0';
}

void str_add(struct str *s, const char *text)
{
	str_addn(s, text, strlen(text));
}

void str_addf(struct str *s, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || grow(s, (size_t)n))
		return;
	va_start(ap, fmt);
	vsnprintf(s->p + s->n, (size_t)n + 1, fmt, ap);
	va_end(ap);
	s->n += (size_t)n;
}

char *str_done(struct str *s)
{
	if (grow(s, 0))
		return NULL;
	s->p[s->n] = '\0';
	return s->p;
}
