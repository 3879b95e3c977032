/* Shapes and tensors. */
#include "ops/base/shape.h"

#include <string.h>

#include "ops/base/str.h"

struct shape shape_of(const struct tensor *t)
{
	struct shape s = { .rank = t->rank };

	for (int i = 0; i < t->rank; i++)
		s.d[i] = t->d[i];
	return s;
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
	if (a->rank < 0 || a->rank != b->rank)
		return false;
	for (int i = 0; i < a->rank; i++)
		if (a->d[i] != b->d[i] || a->d[i] == DIM_NONE)
			return false;
	return true;
}

bool shape_known(const struct shape *s)
{
	if (s->rank < 0)
		return false;
	for (int i = 0; i < s->rank; i++)
		if (!dim_is_int(s->d[i]) || s->d[i] < 0)
			return false;
	return true;
}

dim shape_count(struct dims *t, const struct shape *s, int from, int to)
{
	dim n = 1;

	if (s->rank < 0)
		return DIM_NONE;
	for (int i = from; i < to && i < s->rank; i++)
		n = dim_mul(t, n, s->d[i]);
	return n;
}

const char *shape_str(struct dims *t, const struct shape *s, struct arena *a)
{
	struct str b;

	if (s->rank < 0)
		return "[?]";
	str_init(&b, a);
	str_add(&b, "[");
	for (int i = 0; i < s->rank; i++) {
		const char *d = dim_str(t, s->d[i], a);

		str_addf(&b, "%s%s", i ? "," : "", d ? d : "?");
	}
	str_add(&b, "]");
	return str_done(&b);
}

enum linnet_code tensor_size(enum dtype dt, int rank, const int64_t *d, int64_t max_elements, int64_t *n, size_t *bytes,
                             struct linnet_error *e)
{
	int64_t limit = max_elements ? max_elements : (int64_t)1 << 40, count = 1;
	bool empty = false;

	if (rank < 0 || rank > MAX_RANK)
		return fail(e, LINNET_EUNSUPPORTED, "rank is %d; at most %d is supported", rank, MAX_RANK);
	for (int i = 0; i < rank; i++) {
		if (d[i] < 0)
			return fail(e, LINNET_ESHAPE, "length %d is %lld; it must not be negative", i, (long long)d[i]);
		if (d[i] == 0)
			empty = true;
		else if (count > limit / d[i])
			return fail(e, LINNET_ELIMIT, "tensor has more than %lld elements", (long long)limit);
		else
			count *= d[i];
	}
	*n = empty ? 0 : count;
	*bytes = dtype_bytes(dt, (uint64_t)*n);
	if (*bytes == SIZE_MAX)
		return fail(e, LINNET_ELIMIT, "tensor's size in bytes overflows");
	return LINNET_OK;
}

enum linnet_code tensor_wrap(struct arena *a, enum dtype dt, int rank, const int64_t *d, const void *data,
                             struct tensor **out, struct linnet_error *e)
{
	struct tensor *t;

	TRY_NEW(t, a, 1);
	TRY(tensor_size(dt, rank, d, 0, &t->n, &t->bytes, e));
	t->dt = dt;
	t->rank = rank;
	if (rank)
		memcpy(t->d, d, (size_t)rank * sizeof *d);
	t->data = (void *)(uintptr_t)data;
	*out = t;
	return LINNET_OK;
}

enum linnet_code tensor_new(struct arena *a, enum dtype dt, int rank, const int64_t *d, struct tensor **out,
                            struct linnet_error *e)
{
	TRY(tensor_wrap(a, dt, rank, d, NULL, out, e));
	(*out)->data = arena_get(a, (*out)->bytes, 1);
	return (*out)->data ? LINNET_OK : fail_mem(e);
}

enum linnet_code tensor_align(struct tensor *t, struct arena *a, struct linnet_error *e)
{
	void *data;

	if (t->dt == DT_STRING || (uintptr_t)t->data % dtype_align(t->dt) == 0)
		return LINNET_OK;
	data = arena_dup(a, t->data, t->bytes);
	if (!data)
		return fail_mem(e);
	t->data = data;
	return LINNET_OK;
}

bool tensor_same(const struct tensor *a, const struct tensor *b)
{
	if (a->dt != b->dt || a->rank != b->rank || a->n != b->n ||
	    (a->rank && memcmp(a->d, b->d, (size_t)a->rank * sizeof *a->d)))
		return false;
	if (a->dt == DT_STRING) {
		const struct text *s = a->data, *t = b->data;

		for (int64_t i = 0; i < a->n; i++)
			if (s[i].n != t[i].n || (s[i].n && memcmp(s[i].p, t[i].p, s[i].n)))
				return false;
		return true;
	}
	return !a->bytes || !memcmp(a->data, b->data, a->bytes);
}
