/* Regular expressions of RE2's syntax. */
#ifndef LINNET_REGEX_H
#define LINNET_REGEX_H

#include "ops/base/arena.h"
#include "ops/base/dtype.h"
#include "ops/base/err.h"

struct regex;

/* What a pattern is for: to match a whole string, or to be found in it. */
enum regex_use { REGEX_WHOLE, REGEX_FIND };

/* LINNET_EATTR when the pattern is not RE2's; lives in the arena. */
enum linnet_code regex_new(struct regex **r, struct text pattern, enum regex_use use, struct arena *a, struct linnet_error *e);

/* Whether all of s matches; s that is not UTF-8 does not. LINNET_ELIMIT when deciding takes more than is reasonable. */
enum linnet_code regex_match(struct regex *r, struct text s, bool *matches, struct linnet_error *e);

/* The first match in s from byte `from` on, of those the longest, as a piece of s; its p is NULL when there is none. Else as regex_match(). */
enum linnet_code regex_find(struct regex *r, struct text s, size_t from, struct text *match, struct linnet_error *e);

#endif
