/* Learning curves: losses by step, drawn. */
#ifndef LINNET_CLI_CURVE_H
#define LINNET_CLI_CURVE_H

#include <stdint.h>

#include "ops/base/arena.h"
#include "ops/base/err.h"

struct curve_point {
	int64_t step;
	double loss, held_out; /* NaN: not evaluated */
};

struct curve {
	const char *name;
	struct curve_point *p;
	int n;
	uint32_t cap;
	struct arena *a;
};

/* A step that was there already, because a run was begun again, takes the place of what followed it. */
enum linnet_code curve_add(struct curve *c, struct curve_point p, struct linnet_error *e);

/* The steps of a log that `linnet train --log` wrote, below step `before`. */
enum linnet_code curve_read(struct curve *c, const char *path, int64_t before, struct linnet_error *e);

/* An SVG, or with a name in .html a page with a table of the evaluations too. */
enum linnet_code curve_draw(const struct curve *c, int n, const char *path, struct linnet_error *e);

#endif
