/* Regular expressions of RE2's syntax. */
#ifndef LINNET_REGEX_H
#define LINNET_REGEX_H

#include "ops/base/arena.h"
#include "ops/base/dtype.h"
#include "ops/base/err.h"

struct regex;

/* LINNET_EATTR when the pattern is not RE2's; lives in the arena. */
enum linnet_code regex_new(struct regex **r, struct text pattern, struct arena *a, struct linnet_error *e);

/* Whether all of s matches; s that is not UTF-8 does not. LINNET_ELIMIT when deciding takes more than is reasonable. */
enum linnet_code regex_match(struct regex *r, struct text s, bool *matches, struct linnet_error *e);

#endif
