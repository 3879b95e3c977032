/*
 * Lengths, known or symbolic.
 *
 * A dim is an int64. Any value above DIM_EXPR_MAX is that integer itself (lengths are >= 0; elements of shape
 * tensors such as -1 or INT64_MAX are dims too); values below are indices of interned expressions in a
 * table, in normal form, so that equal expressions are equal numbers and == is the test.
 *
 * Normal form: a polynomial with integer coefficients over atoms; an atom is a symbol, a floor division that did
 * not simplify, or max(x, 0) that is not decided. The rest is said by these: a mod b = a - b*(a // b),
 * max(a, b) = b + max(a - b, 0), min(a, b) = a - max(a - b, 0). Symbols stand for lengths, hence are >= 0. Expressions
 * are bounded in terms, degree and nesting; what would be larger is DIM_NONE.
 */
#ifndef LINNET_DIM_H
#define LINNET_DIM_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/base/arena.h"

typedef int64_t dim;

#define DIM_NONE INT64_MIN                       /* not known, or out of memory, or overflow */
#define DIM_EXPR_MAX (-((int64_t)1 << 62))       /* below or equal: an expression */

struct dims;

struct dims *dims_new(struct arena *a); /* lives in the arena; NULL when out of memory */

static inline bool dim_is_int(dim d) { return d > DIM_EXPR_MAX; }
static inline bool dim_is_expr(dim d) { return d <= DIM_EXPR_MAX && d != DIM_NONE; }

/* The symbol of that name (same name, same dim), and one not used before, named after hint (made an identifier). */
dim dim_symbol(struct dims *t, const char *name);
dim dim_fresh(struct dims *t, const char *hint);

/* The symbol for the unknown length that key tells from all others: fresh at the first call, the same later. */
dim dim_unknown(struct dims *t, const char *key, const char *hint);

/* Let it be known that d is at least lo. Bounds only grow. Ignored where more than one symbol, floor division or maximum is in d. */
void dim_at_least(struct dims *t, dim d, int64_t lo);

/* How often bounds have grown: expressions made since may come out simpler than before. */
uint64_t dims_learned(const struct dims *t);

/*
 * A name as exporters write it: an identifier, or an expression over + - * / // % ** ( ) max min mod ceil floor with
 * integers and identifiers; anything else becomes one symbol of that whole name. "/" is exact inside floor() and
 * ceil(), a result that is no integer is floored. A symbol with any name can be written in single quotes (a quote in
 * it is doubled). Empty and "?" give a fresh symbol.
 */
dim dim_parse(struct dims *t, const char *s);

/*
 * Algebra. DIM_NONE in gives DIM_NONE out, as do overflow, division by zero and lack of memory.
 * t may be NULL when both operands are integers. Division and remainder floor.
 */
dim dim_add(struct dims *t, dim a, dim b);
dim dim_sub(struct dims *t, dim a, dim b);
dim dim_mul(struct dims *t, dim a, dim b);
dim dim_div(struct dims *t, dim a, dim b);
dim dim_ceil_div(struct dims *t, dim a, dim b);
dim dim_mod(struct dims *t, dim a, dim b);
dim dim_max(struct dims *t, dim a, dim b);
dim dim_min(struct dims *t, dim a, dim b);

/* What can be proved when every symbol is a length >= 0. */
bool dim_ge(struct dims *t, dim a, int64_t b);  /* a >= b for all values of the symbols */
bool dim_divides(struct dims *t, int64_t d, dim a); /* d divides a for all values of the symbols */

/* Value under an assignment of symbols: get(ctx, name) gives each, or DIM_NONE. */
dim dim_eval(struct dims *t, dim d, dim (*get)(void *ctx, const char *name), void *ctx);
/* The name of the symbol that d is; NULL when it is a number or more than a symbol. */
const char *dim_name(const struct dims *t, dim d);
/* Whether the symbol is in d. */
bool dim_has(const struct dims *t, dim d, dim symbol);
/* d with another length in the place of a symbol. */
dim dim_put(struct dims *t, dim d, dim symbol, dim by);

/* Call f for each symbol's name in d, once or more. */
void dim_symbols(struct dims *t, dim d, void (*f)(void *ctx, const char *name), void *ctx);

/* As text that dim_parse() reads back to the same dim: "7", "batch", "past + seq", "64*heads", "(seq + 1)//2"; "?" for
 * DIM_NONE. In the arena; NULL without memory. */
const char *dim_str(struct dims *t, dim d, struct arena *a);

#endif
