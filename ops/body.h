/* Writing the body of one call (body_fn of op.h). */
#ifndef LINNET_BODY_H
#define LINNET_BODY_H

#include "ops/base/str.h"
#include "ops/op.h"

/* A body being written: lines of nodes are added to s with str_addf(). Members of a variadic input NAME are NAME_0, NAME_1, ... in it. */
struct body {
	struct shape_call *c;
	struct str s;
};

void body_begin(struct body *b, struct shape_call *c);
enum linnet_code body_end(struct body *b, const char **text);

/* Constants: int64[n], and a scalar of a float type. */
void body_ints(struct body *b, const char *name, int n, const int64_t *x);
void body_float(struct body *b, const char *name, enum dtype dt, double x);

/* name: int64[1] is length d, which is that of value `of` along `axis` where it is not a number. */
void body_length(struct body *b, const char *name, dim d, const char *of, int axis);

/* Bodies too long for their rows (body_sample.c, body_einsum.c). */
body_fn body_grid_sample, body_deform_conv, body_roi_align, body_max_roi_pool, body_stft, body_einsum;

/* name: x, or its contents in another float type. */
void body_cast(struct body *b, const char *name, const char *x, enum dtype from, enum dtype to);

#endif
