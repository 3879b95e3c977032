/* Writing the body of one call. */
#include "ops/body.h"

void body_begin(struct body *b, struct shape_call *c)
{
	b->c = c;
	str_init(&b->s, c->arena);
	str_add(&b->s, "{\n");
}

enum linnet_code body_end(struct body *b, const char **text)
{
	str_add(&b->s, "}");
	*text = str_done(&b->s);
	return *text ? LINNET_OK : fail_mem(b->c->e);
}

void body_ints(struct body *b, const char *name, int n, const int64_t *x)
{
	str_addf(&b->s, "%s = Constant <value = int64[%d] {", name, n);
	for (int i = 0; i < n; i++)
		str_addf(&b->s, "%s%lld", i ? ", " : "", (long long)x[i]);
	str_add(&b->s, "}> ()\n");
}

void body_float(struct body *b, const char *name, enum dtype dt, double x)
{
	str_addf(&b->s, "%s = Constant <value = %s {%#.17g}> ()\n", name, dtype_name(dt), x); /* with a point: whole numbers are bits */
}

void body_length(struct body *b, const char *name, dim d, const char *of, int axis)
{
	if (dim_is_int(d)) {
		body_ints(b, name, 1, &d);
		return;
	}
	str_addf(&b->s, "%s_shape = Shape (%s)\n", name, of);
	str_addf(&b->s, "%s_axis = Constant <value = int64[1] {%d}> ()\n", name, axis);
	str_addf(&b->s, "%s = Gather (%s_shape, %s_axis)\n", name, name, name);
}

void body_cast(struct body *b, const char *name, const char *x, enum dtype from, enum dtype to)
{
	if (from == to)
		str_addf(&b->s, "%s = Identity (%s)\n", name, x);
	else
		str_addf(&b->s, "%s = Cast <to = %d> (%s)\n", name, (int)to, x);
}
