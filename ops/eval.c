/* Checking a call against its row, and evaluating one node by its reference kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/op.h"
#include "ops/base/str.h"

static enum linnet_code check_arity(const struct op_io *io, int n, const char *what, struct linnet_error *e)
{
	int max = 0, min = 0;
	bool variadic = false;

	for (; io && io[max].name; max++) {
		if (!(io[max].flags & OPTIONAL))
			min = max + 1;
		if (io[max].flags & VARIADIC)
			variadic = true;
	}
	if (n < min)
		return fail(e, LINNET_EMODEL, "%d %s%s given; at least %d needed", n, what, n == 1 ? "" : "s", min);
	if (n > max && !variadic)
		return fail(e, LINNET_EMODEL, "%d %ss given; at most %d taken", n, what, max);
	return LINNET_OK;
}

/* A set of one type, or DT_UNDEFINED. */
static enum dtype only_member(dtype_set s)
{
	if (!s || s & (s - 1))
		return DT_UNDEFINED;
	for (int t = 1; t < DT_COUNT; t++)
		if (dtype_in((enum dtype)t, s))
			return (enum dtype)t;
	return DT_UNDEFINED;
}

static enum linnet_code check_kind(const struct shape_call *c, const struct op_io *io, const struct type *t)
{
	char found[64];

	if (t->kind == KIND_SPARSE || kind_in(t->kind, io_kinds(io)))
		return LINNET_OK;
	return fail(c->e, LINNET_ETYPE, "input \"%s\" is %s, which %s does not admit", io->name,
	            kind_str(t, found, sizeof found), c->op->name);
}

/* The first kind of a set. */
static enum type_kind first_kind(kind_set s)
{
	int k = 0;

	while (!(s >> k & 1))
		k++;
	return (enum type_kind)k;
}

enum linnet_code op_infer(struct shape_call *c)
{
	enum dtype bound[NTVAR] = { DT_UNDEFINED };
	const struct op *op = c->op;

	TRY(check_arity(op->in, c->nin, "input", c->e));
	TRY(check_arity(op->out, c->nout, "output", c->e));
	for (int i = 0; i < c->nin; i++) {
		const struct op_io *io = op_in(op, i);
		const struct type *t = c->in[i];

		if (!t) {
			if (!(io->flags & OPTIONAL))
				return fail(c->e, LINNET_EMODEL, "input \"%s\" is left out but is not optional", io->name);
			continue;
		}
		if (t->dt == DT_UNDEFINED)
			continue;
		TRY(check_kind(c, io, t));
		if (!dtype_in(t->dt, op->types[io->type]))
			return fail(c->e, LINNET_ETYPE, "input \"%s\" has element type %s, which %s does not admit", io->name,
			            dtype_name(t->dt), op->name);
		if (io->flags & HETERO)
			continue;
		if (bound[io->type] == DT_UNDEFINED)
			bound[io->type] = t->dt;
		else if (bound[io->type] != t->dt)
			return fail(c->e, LINNET_ETYPE, "input \"%s\" has element type %s; %s was expected as for the inputs before it",
			            io->name, dtype_name(t->dt), dtype_name(bound[io->type]));
	}
	for (int i = 0; i < c->nout; i++) {
		const struct op_io *io = op_out(op, i);

		c->out[i] = (struct type){ .kind = first_kind(io_kinds(io)), .shape.rank = -1 };
		c->out[i].dt = bound[io->type] != DT_UNDEFINED ? bound[io->type] : only_member(op->types[io->type]);
	}
	return op->shape ? op->shape(c) : LINNET_OK;
}

/* "1,2" as integers or floats. */
static enum linnet_code parse_list(const char *s, struct arena *a, struct attr *out, struct linnet_error *e)
{
	size_t n = *s ? 1 : 0;
	int64_t *ints;
	float *floats;

	for (const char *p = s; *p; p++)
		n += *p == ',';
	TRY_NEW(ints, a, n);
	TRY_NEW(floats, a, n);
	for (size_t i = 0; i < n; i++) {
		char *end;

		floats[i] = strtof(s, &end);
		ints[i] = strtoll(s, NULL, 10);
		s = *end ? end + 1 : end;
	}
	out->n = n;
	out->ints = ints;
	out->floats = floats;
	return LINNET_OK;
}

static bool one_of(const char *list, struct text s)
{
	while (*list) {
		size_t n = strcspn(list, "|");

		if (n == s.n && !memcmp(list, s.p, n))
			return true;
		list += n + (list[n] == '|');
	}
	return false;
}

static enum linnet_code check_attr(const struct op_attr *row, const struct attr *a, struct linnet_error *e)
{
	if (a->kind != row->kind)
		return fail(e, LINNET_EATTR, "attribute \"%s\" has the wrong kind", row->name);
	if (row->oneof && !one_of(row->oneof, a->s))
		return fail(e, LINNET_EATTR, "attribute \"%s\" is \"%.*s\"; expected one of %s", row->name, (int)a->s.n, a->s.p, row->oneof);
	if (!(row->lo < row->hi))
		return LINNET_OK;
	for (size_t i = 0; i < (a->kind == ATTR_INTS || a->kind == ATTR_FLOATS ? a->n : 1); i++) {
		double v = a->kind == ATTR_INT ? (double)a->i : a->kind == ATTR_FLOAT ? a->f
			: a->kind == ATTR_INTS ? (double)a->ints[i] : a->kind == ATTR_FLOATS ? (double)a->floats[i] : row->lo;

		if (!(v >= row->lo && v <= row->hi))
			return fail(e, LINNET_EATTR, "attribute \"%s\" is %g; expected %g to %g", row->name, v, row->lo, row->hi);
	}
	return LINNET_OK;
}

bool attr_is_default(const struct op_attr *row, const struct attr *a)
{
	bool has_default = !(row->flags & (REQUIRED | OPTIONAL));

	switch (a->kind) {
	case ATTR_NONE: return true;
	case ATTR_INT: return has_default && a->i == row->i;
	case ATTR_FLOAT: return has_default && a->f == row->f;
	case ATTR_STRING: return has_default && row->s && strlen(row->s) == a->s.n && !memcmp(row->s, a->s.p, a->s.n);
	default: return !a->given;
	}
}

enum linnet_code op_attrs(const struct op *op, const struct attr *given, size_t ngiven, struct arena *a, struct attr **full,
                          struct linnet_error *e)
{
	int n = op_nattr(op);

	TRY_NEW(*full, a, n);
	for (size_t i = 0; i < ngiven; i++) {
		int at = op_attr_index(op, given[i].name);

		if (given[i].kind == ATTR_NONE)
			continue;
		if (at < 0)
			return fail(e, LINNET_EATTR, "unknown attribute \"%s\"", given[i].name);
		if ((*full)[at].given)
			return fail(e, LINNET_EATTR, "attribute \"%s\" is given twice", given[i].name);
		TRY(check_attr(&op->attr[at], &given[i], e));
		(*full)[at] = given[i];
		(*full)[at].given = true;
	}
	for (int i = 0; i < n; i++) {
		const struct op_attr *row = &op->attr[i];
		struct attr *v = &(*full)[i];

		v->name = row->name;
		if (v->given)
			continue;
		if (row->flags & REQUIRED)
			return fail(e, LINNET_EATTR, "attribute \"%s\" is required", row->name);
		if (row->flags & OPTIONAL || row->kind == ATTR_TENSOR || row->kind == ATTR_GRAPH || row->kind == ATTR_STRINGS)
			continue; /* stays ATTR_NONE */
		v->kind = row->kind;
		v->i = row->i;
		v->f = row->f;
		if (row->kind == ATTR_STRING)
			v->s = (struct text){ row->s ? row->s : "", row->s ? strlen(row->s) : 0 };
		else if (row->kind == ATTR_INTS || row->kind == ATTR_FLOATS)
			TRY(parse_list(row->s ? row->s : "", a, v, e));
	}
	return LINNET_OK;
}

/* Lengths are known; other values than tensors have none. */
static bool decided(const struct type *t)
{
	return t->kind != KIND_TENSOR || (t->dt != DT_UNDEFINED && shape_known(&t->shape));
}

bool op_decided(const struct shape_call *c)
{
	for (int i = 0; i < c->nout; i++)
		if (c->wanted[i] && !(c->op->flags & OP_PICK) && !decided(&c->out[i]))
			return false;
	return true;
}

enum linnet_code op_undecided(const struct shape_call *c, struct linnet_error *e)
{
	for (int i = 0; i < c->nout; i++)
		if (c->wanted[i] && c->out[i].kind == KIND_TENSOR && (c->out[i].dt == DT_UNDEFINED || c->out[i].shape.rank < 0))
			return fail(e, LINNET_EINTERNAL, "%s does not say the type of its output %d", c->op->name, i);
	return fail(e, LINNET_ELIMIT, "a length of the output is beyond what lengths can be");
}

enum linnet_code op_eval(const struct op *op, const struct attr *attr, int nin, const struct tensor *const *in, int nout,
                         const bool *wanted, struct arena *a, struct tensor **out, struct linnet_error *e)
{
	struct shape_call s = { .op = op, .attr = attr, .arena = a, .nin = nin, .nout = nout, .wanted = wanted, .e = e };
	struct kernel_call k = { .op = op, .attr = attr, .nin = nin, .nout = nout, .scratch = a, .threads = 1, .e = e };
	const struct tensor **given;
	const struct type **in_type;
	struct tensor *header;
	struct type *in_store;

	if (!op->kernel)
		return fail(e, LINNET_EUNSUPPORTED, "%s has no kernel", op->name);
	s.dims = dims_new(a);
	if (!s.dims)
		return fail_mem(e);
	TRY_NEW(given, a, nin);
	TRY_NEW(header, a, nin);
	TRY_NEW(in_store, a, nin);
	TRY_NEW(in_type, a, nin);
	TRY_NEW(s.out, a, nout);
	for (int i = 0; i < nin; i++) {
		if (!in[i])
			continue;
		header[i] = *in[i];
		TRY(tensor_align(&header[i], a, e));
		given[i] = &header[i];
		in_store[i] = type_of(given[i]);
		in_type[i] = &in_store[i];
	}
	s.in = in_type;
	TRY(op_infer(&s));
	if (!op_decided(&s))
		return op_undecided(&s, e);
	for (int i = 0; i < nout; i++) {
		out[i] = NULL;
		if (!wanted[i] || op->flags & OP_PICK)
			continue;
		if (s.out[i].kind == KIND_TENSOR)
			TRY(tensor_new(a, s.out[i].dt, s.out[i].shape.rank, s.out[i].shape.d, &out[i], e));
		else
			TRY(members_new(a, s.out[i].kind, s.out[i].dt, 0, &out[i], e));
		out[i]->key = s.out[i].key;
	}
	k.in = given;
	k.out = out;
	TRY(op->kernel(&k));
	if (op->flags & OP_PICK)
		out[0] = (struct tensor *)(uintptr_t)k.pick;
	return LINNET_OK;
}
