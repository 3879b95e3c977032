/* Shapes and tensors. */
#include "ops/base/shape.h"

#include <stdio.h>
#include <string.h>

#include "ops/base/str.h"

static const struct {
	enum type_kind member;
	const char *before, *after; /* of the members' type as text */
} kinds[] = {
	[KIND_TENSOR] = { KIND_OTHER, "", "" },
	[KIND_SEQUENCE] = { KIND_TENSOR, "seq(", ")" },
	[KIND_OPTIONAL] = { KIND_TENSOR, "optional(", ")" },
	[KIND_OPTIONAL_SEQUENCE] = { KIND_SEQUENCE, "optional(seq(", "))" },
	[KIND_MAP] = { KIND_TENSOR, "map(", ")" },
	[KIND_SEQUENCE_MAP] = { KIND_MAP, "seq(map(", "))" },
	[KIND_SPARSE] = { KIND_OTHER, "sparse_tensor(", ")" },
	[KIND_OTHER] = { KIND_OTHER, "nested(", ")" },
};

enum type_kind kind_member(enum type_kind k) { return kinds[k].member; }

enum type_kind kind_sequence(enum type_kind k)
{
	return k == KIND_TENSOR ? KIND_SEQUENCE : k == KIND_MAP ? KIND_SEQUENCE_MAP : KIND_OTHER;
}

enum type_kind kind_optional(enum type_kind k)
{
	return k == KIND_TENSOR ? KIND_OPTIONAL : k == KIND_SEQUENCE ? KIND_OPTIONAL_SEQUENCE : KIND_OTHER;
}

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

bool shape_has(const struct dims *t, const struct shape *s, dim symbol)
{
	for (int i = 0; i < s->rank; i++)
		if (dim_has(t, s->d[i], symbol))
			return true;
	return false;
}

int type_nsym(const struct type *t)
{
	if (!t->sym || t->shape.rank < 0 || t->shape.rank > 1 || (t->shape.rank && !dim_is_int(t->shape.d[0])))
		return -1;
	return t->shape.rank ? (t->shape.d[0] <= MAX_SYM ? (int)t->shape.d[0] : -1) : 1;
}

bool type_equal(const struct type *a, const struct type *b)
{
	int n = type_nsym(a);

	if (a->kind != b->kind || a->dt != b->dt || a->key != b->key || a->shape.rank != b->shape.rank || a->den != b->den || !a->value != !b->value || !a->sym != !b->sym)
		return false;
	for (int i = 0; i < a->shape.rank; i++)
		if (a->shape.d[i] != b->shape.d[i])
			return false;
	return (!a->value || a->value == b->value || tensor_same(a->value, b->value)) && (!a->sym || (n >= 0 && !memcmp(a->sym, b->sym, (size_t)n * sizeof *a->sym)));
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

static const char *key_name(const struct type *t) { return t->key ? dtype_name(t->key) : ""; }

const char *kind_str(const struct type *type, char *buf, size_t n)
{
	snprintf(buf, n, "%s%s%s%s%s", kinds[type->kind].before, key_name(type), type->key ? ", " : "", dtype_name(type->dt),
	         kinds[type->kind].after);
	return buf;
}

const char *type_str(struct dims *t, const struct type *type, struct arena *a)
{
	bool silent = type->kind != KIND_TENSOR && type->shape.rank < 0;
	const char *shape = silent ? "" : shape_str(t, &type->shape, a);

	return arena_fmt(a, "%s%s%s%s%s%s", kinds[type->kind].before, key_name(type), type->key ? ", " : "", dtype_name(type->dt),
	                 shape ? shape : "", kinds[type->kind].after);
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

enum linnet_code members_new(struct arena *a, enum type_kind kind, enum dtype dt, int64_t n, struct tensor **out,
                             struct linnet_error *e)
{
	struct tensor *t, **member;

	TRY_NEW(t, a, 1);
	TRY_NEW(member, a, n);
	*t = (struct tensor){ .kind = kind, .dt = dt, .n = n, .bytes = (size_t)n * sizeof *member, .data = member };
	*out = t;
	return LINNET_OK;
}

enum linnet_code tensor_dup(struct arena *a, const struct tensor *t, struct tensor **out, struct linnet_error *e)
{
	struct tensor *copy = arena_dup(a, t, sizeof *t), **member;
	struct text *s;

	if (copy)
		copy->data = arena_dup(a, t->data, t->bytes);
	if (!copy || !copy->data)
		return fail_mem(e);
	member = copy->data;
	s = copy->data;
	for (int64_t i = 0; i < t->n && t->kind != KIND_TENSOR; i++)
		TRY(tensor_dup(a, tensor_member(t, i), &member[i], e));
	for (int64_t i = 0; i < t->n && t->kind == KIND_TENSOR && t->dt == DT_STRING; i++) {
		s[i].p = arena_dup(a, s[i].p, s[i].n);
		if (!s[i].p)
			return fail_mem(e);
	}
	*out = copy;
	return LINNET_OK;
}

enum linnet_code tensor_align(struct tensor *t, struct arena *a, struct linnet_error *e)
{
	void *data;

	if (t->kind != KIND_TENSOR || t->dt == DT_STRING || (uintptr_t)t->data % dtype_align(t->dt) == 0)
		return LINNET_OK;
	data = arena_dup(a, t->data, t->bytes);
	if (!data)
		return fail_mem(e);
	t->data = data;
	return LINNET_OK;
}

void shape_share(struct shape *s, const struct shape *other)
{
	if (s->rank != other->rank)
		*s = shape_unknown();
	for (int i = 0; i < s->rank; i++)
		if (s->d[i] != other->d[i])
			s->d[i] = DIM_NONE;
}

struct type type_of(const struct tensor *t)
{
	struct type type = { .kind = t->kind, .dt = t->dt, .key = t->key, .shape = shape_of(t), .value = t };

	if (t->kind == KIND_MAP || t->kind == KIND_SEQUENCE_MAP || t->kind == KIND_TENSOR)
		return type;
	type.shape = shape_unknown();
	for (int64_t i = 0; i < t->n; i++) {
		struct type member = type_of(tensor_member(t, i));

		if (i)
			shape_share(&type.shape, &member.shape);
		else
			type.shape = member.shape;
	}
	return type;
}

bool tensor_same(const struct tensor *a, const struct tensor *b)
{
	if (a->kind != b->kind || a->key != b->key)
		return false;
	if (a->kind != KIND_TENSOR) {
		bool same = a->dt == b->dt && a->n == b->n;

		for (int64_t i = 0; same && i < a->n; i++)
			same = tensor_same(tensor_member(a, i), tensor_member(b, i));
		return same;
	}
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
