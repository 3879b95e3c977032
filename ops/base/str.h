/* Building text in an arena. Failure is remembered: str_done() returns NULL then. */
#ifndef LINNET_STR_H
#define LINNET_STR_H

#include "ops/base/arena.h"

struct str {
	struct arena *a;
	char *p;
	size_t n, cap;
	int failed;
};

void str_init(struct str *s, struct arena *a);
void str_add(struct str *s, const char *text);
void str_addn(struct str *s, const char *text, size_t n);
void str_addf(struct str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *str_done(struct str *s); /* zero-terminated; NULL when memory ran out on the way */

#endif
