/* Drawing calls of one operator from its row. */
#include "validate/gen_op.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/base/str.h"

enum { RESTARTS = 40, TRIES = 40, POOL = 48, MAX_OUTPUT = 40000, MAX_LIST = 5 };

struct drawing {
	const struct op *op;
	const struct call_opt *opt;
	struct rng *r;
	struct arena *a;
	struct call *c;
	struct linnet_error *e;
	enum dtype bound[NTVAR];
	int64_t pool[POOL]; /* lengths and attributes so far: what other lengths are made of */
	int npool;
	bool solid; /* no length is 0 */
};

static bool chance(struct drawing *w, unsigned percent) { return rng_below(w->r, 100) < percent; }

static int64_t between(struct drawing *w, int64_t lo, int64_t hi)
{
	return lo + (int64_t)rng_below(w->r, (uint64_t)(hi - lo) + 1);
}

static void pool_add(struct drawing *w, int64_t n)
{
	if (n >= 0 && n <= 128 && w->npool < POOL)
		w->pool[w->npool++] = n;
}

static int64_t pooled(struct drawing *w) { return w->npool ? w->pool[rng_below(w->r, (uint64_t)w->npool)] : 1; }

static enum dtype draw_dtype(struct drawing *w, dtype_set set)
{
	dtype_set some = w->opt->types & set ? w->opt->types & set : set;
	int n = 0, k;

	if (dtype_in(DT_FLOAT, some) && chance(w, 40))
		return DT_FLOAT;
	for (int t = 1; t < DT_COUNT; t++)
		n += dtype_in((enum dtype)t, some);
	k = n ? (int)between(w, 1, n) : 0;
	for (int t = 1; t < DT_COUNT; t++)
		if (dtype_in((enum dtype)t, some) && !--k)
			return (enum dtype)t;
	return DT_UNDEFINED;
}

/* ---- Elements ---- */

static double draw_double(struct drawing *w, bool extreme)
{
	static const double edge[] = { NAN, INFINITY, -INFINITY, 0.0, -0.0, DBL_MIN / 4, FLT_MIN / 4, -FLT_MIN / 4,
		                       FLT_MAX, -FLT_MAX, 65504, 448, 57344, 1e-8, -1e-8, 1, -1, 0.5, 1e30, 88.8, -104 };
	const struct fuzz *f = &w->op->fuzz;
	double lo = f->lo < f->hi ? f->lo : -1, hi = f->lo < f->hi ? f->hi : 1;

	if (extreme && chance(w, 40))
		return edge[rng_below(w->r, sizeof edge / sizeof *edge)];
	return lo + (hi - lo) * rng_unit(w->r);
}

static int64_t draw_int(struct drawing *w, enum dtype dt, bool extreme)
{
	unsigned bits = dtype_bits(dt);
	uint64_t top = (uint64_t)1 << (bits - 1);

	if (extreme && chance(w, 40)) {
		int64_t edge[] = { 0, -1, 1, (int64_t)top, (int64_t)(top - 1), (int64_t)(top + 1), -2, (int64_t)(top / 2) };

		return edge[rng_below(w->r, sizeof edge / sizeof *edge)];
	}
	if (bits <= 8)
		return (int64_t)rng_next(w->r); /* put wraps */
	return between(w, dtype_class(dt) == CLASS_INT ? -8 : 0, 8);
}

/* Integers that say where or how many. */
static void draw_selecting(struct drawing *w, struct tensor *t)
{
	int way = (int)between(w, 0, 7);
	int64_t start = between(w, 0, 1), span = way == 1 ? 4 : 2;

	for (int64_t i = 0; i < t->n; i++) {
		int64_t v = 0;

		switch (way) {
		case 0: v = i + start; break;
		case 1:
		case 2: v = between(w, 0, span - 1); break;
		case 3: v = -between(w, 1, 3); break;
		case 4: v = pooled(w); break;
		case 5: v = between(w, -3, 3); break;
		case 6: v = start; break;
		default: v = chance(w, 20) ? -1 : pooled(w); break;
		}
		if (w->opt->extreme && chance(w, 5))
			v = draw_int(w, t->dt, true);
		tensor_put_int(t, i, v);
	}
}

static void draw_elements(struct drawing *w, struct tensor *t, dtype_set set)
{
	static const char letters[] = "abcdefgh";
	bool selects = !(set & (FLOATS | FLOAT8S)) && !(dtype_bits(t->dt) <= 8 && dtype_bits(t->dt)) && !dtype_in(DT_STRING, set);
	bool extreme = w->opt->extreme && chance(w, 80);
	bool mild = !(w->op->fuzz.lo < w->op->fuzz.hi) && chance(w, 15); /* factors: positive, of few bits */

	switch (dtype_class(t->dt)) {
	case CLASS_INT:
	case CLASS_UINT:
		if (selects) {
			draw_selecting(w, t);
			return;
		}
		for (int64_t i = 0; i < t->n; i++)
			tensor_put_int(t, i, draw_int(w, t->dt, extreme));
		break;
	case CLASS_BOOL:
		for (int64_t i = 0; i < t->n; i++)
			tensor_put_int(t, i, chance(w, 60));
		break;
	case CLASS_STRING:
		for (int64_t i = 0; i < t->n; i++)
			((struct text *)t->data)[i] = (struct text){ letters + rng_below(w->r, 8), rng_below(w->r, 2) };
		break;
	case CLASS_COMPLEX:
		for (int64_t i = 0; i < 2 * t->n; i++) {
			if (t->dt == DT_COMPLEX64)
				((float *)t->data)[i] = (float)draw_double(w, extreme);
			else
				((double *)t->data)[i] = draw_double(w, extreme);
		}
		break;
	case CLASS_FLOAT:
	case CLASS_NONE:
		for (int64_t i = 0; i < t->n; i++)
			tensor_put(t, i, mild ? (double)between(w, 1, 6) / 2 : draw_double(w, extreme));
		break;
	}
}

/* ---- Attributes ---- */

static int64_t draw_attr_int(struct drawing *w, const struct op_attr *row)
{
	if (row->lo < row->hi) {
		double lo = fmax(row->lo, -1e6), hi = fmin(row->hi, lo + 8);

		return chance(w, 5) && row->hi < 1e6 ? (int64_t)row->hi : between(w, (int64_t)lo, (int64_t)hi);
	}
	if ((row->i == 0 || row->i == 1) && !(row->flags & (REQUIRED | OPTIONAL)) && chance(w, 60)) /* a flag, perhaps */
		return between(w, 0, 1);
	switch (between(w, 0, 9)) {
	case 0: return between(w, 0, 28); /* a type, perhaps */
	case 1: return between(w, -4, -1);
	case 2: return row->i;
	case 3: return between(w, 1, 9);
	default: return between(w, 0, 3);
	}
}

static double draw_attr_float(struct drawing *w, const struct op_attr *row)
{
	double lo = row->lo < row->hi ? fmax(row->lo, -8) : -1, hi = row->lo < row->hi ? fmin(row->hi, lo + 8) : 2;

	if (lo < 0 && !strcmp(row->name, "epsilon")) /* below 0, sums with it cancel */
		lo = 0x1p-20;
	return (float)(lo + (hi - lo) * rng_unit(w->r));
}

static enum linnet_code draw_word(struct drawing *w, const char *oneof, struct text *s)
{
	static const char letters[] = "abcdefgh";
	int n = 1, k;

	*s = (struct text){ letters + rng_below(w->r, 8), 1 };
	if (!oneof)
		return LINNET_OK;
	for (const char *p = oneof; *p; p++)
		n += *p == '|';
	for (k = (int)between(w, 0, n - 1); k; k--)
		oneof = strchr(oneof, '|') + 1;
	*s = (struct text){ oneof, strcspn(oneof, "|") };
	return LINNET_OK;
}

static enum linnet_code draw_ints(struct drawing *w, const struct op_attr *row, struct attr *a)
{
	struct linnet_error *e = w->e;
	int64_t *v;
	int way = (int)between(w, 0, 3);

	a->n = (size_t)between(w, 1, MAX_LIST - 1);
	if (chance(w, 5))
		a->n = (size_t)between(w, 0, 8);
	TRY_NEW(v, w->a, a->n);
	for (size_t i = 0; i < a->n; i++)
		v[i] = row->lo < row->hi ? draw_attr_int(w, row) : way == 0 ? (int64_t)i
			: between(w, way == 1 ? 0 : way == 2 ? 1 : -3, way == 1 ? 1 : 3);
	for (size_t i = a->n; way == 0 && i > 1; i--) { /* a permutation */
		size_t k = rng_below(w->r, i);
		int64_t x = v[k];

		v[k] = v[i - 1];
		v[i - 1] = x;
	}
	a->ints = v;
	return LINNET_OK;
}

static enum linnet_code draw_attr(struct drawing *w, const struct op_attr *row, struct attr *a)
{
	struct linnet_error *e = w->e;
	float *floats;
	struct text *strings;
	struct tensor *t;

	*a = (struct attr){ .name = row->name, .kind = row->kind, .given = true };
	switch (row->kind) {
	case ATTR_INT:
		a->i = draw_attr_int(w, row);
		if (a->i)
			pool_add(w, a->i);
		return LINNET_OK;
	case ATTR_FLOAT: a->f = draw_attr_float(w, row); return LINNET_OK;
	case ATTR_STRING: return draw_word(w, row->oneof ? row->oneof : w->op->fuzz.words, &a->s);
	case ATTR_INTS:
		TRY(draw_ints(w, row, a));
		for (size_t i = 0; i < a->n; i++)
			pool_add(w, a->ints[i]);
		return LINNET_OK;
	case ATTR_FLOATS:
		a->n = (size_t)between(w, 1, MAX_LIST);
		TRY_NEW(floats, w->a, a->n);
		for (size_t i = 0; i < a->n; i++)
			floats[i] = (float)draw_attr_float(w, row);
		a->floats = floats;
		return LINNET_OK;
	case ATTR_STRINGS:
		a->n = (size_t)between(w, 1, MAX_LIST);
		TRY_NEW(strings, w->a, a->n);
		for (size_t i = 0; i < a->n; i++)
			TRY(draw_word(w, row->oneof, &strings[i]));
		a->strings = strings;
		return LINNET_OK;
	case ATTR_TENSOR:
		TRY(tensor_new(w->a, draw_dtype(w, SET(FLOAT) | SET(INT64)), 1, (const int64_t[]){ between(w, 1, 3) }, &t, w->e));
		draw_elements(w, t, NUMBERS);
		a->t = t;
		return LINNET_OK;
	default: return fail(w->e, LINNET_EUNSUPPORTED, "attribute \"%s\" cannot be drawn", row->name);
	}
}

static bool drawable(enum attr_kind k) { return k != ATTR_GRAPH && k != ATTR_TYPE && k != ATTR_OTHER && k != ATTR_NONE; }

static enum linnet_code draw_attrs(struct drawing *w)
{
	struct linnet_error *e = w->e;
	int n = op_nattr(w->op);
	unsigned share = chance(w, 50) ? 25 : 60;

	w->c->ngiven = 0;
	TRY_NEW(w->c->given, w->a, n);
	for (int i = 0; i < n; i++) {
		const struct op_attr *row = &w->op->attr[i];

		if (!(row->flags & REQUIRED) && (!drawable(row->kind) || !chance(w, share)))
			continue;
		TRY(draw_attr(w, row, &w->c->given[w->c->ngiven]));
		w->c->ngiven++;
	}
	TRY(op_attrs(w->op, w->c->given, w->c->ngiven, w->a, &w->c->attr, w->e));
	for (int i = 0; i < n; i++)
		if (w->c->attr[i].kind == ATTR_INT && !w->c->attr[i].given && w->c->attr[i].i)
			pool_add(w, w->c->attr[i].i);
	return LINNET_OK;
}

/* ---- Shapes ---- */

static int64_t draw_any_length(struct drawing *w)
{
	unsigned k = (unsigned)rng_below(w->r, 100);

	if (w->npool && k < 50)
		return pooled(w);
	if (w->npool && k < 62) {
		int64_t a = pooled(w), b = pooled(w);

		switch (between(w, 0, 5)) {
		case 0: return a * b;
		case 5: return 3 * a * b;
		case 1: return b ? a / b : a;
		case 2: return a + b;
		case 3: return 2 * a;
		default: return (a + 1) / 2;
		}
	}
	k = (unsigned)rng_below(w->r, 100);
	return k < 3 ? 0 : k < 18 ? 1 : k < 80 ? between(w, 2, 8) : k < 95 ? between(w, 9, 40) : between(w, 41, 100);
}

static int64_t draw_length(struct drawing *w)
{
	int64_t n = draw_any_length(w);

	return n || !w->solid ? n : between(w, 1, 8);
}

static int64_t count(const struct shape *s)
{
	int64_t n = 1;

	for (int i = 0; i < s->rank; i++)
		n *= s->d[i] > 100000 ? 100000 : s->d[i];
	return n;
}

/* Cut axes down until the tensor is small enough. */
static void limit(struct drawing *w, struct shape *s)
{
	int64_t most = w->opt->elements ? w->opt->elements : 3000;

	for (int i = 0; i < s->rank; i++)
		s->d[i] = s->d[i] > 4096 ? 4096 : s->d[i];
	while (s->rank && count(s) > most) {
		int large = 0;

		for (int i = 1; i < s->rank; i++)
			large = s->d[i] > s->d[large] ? i : large;
		s->d[large] = s->d[large] / 2;
	}
}

static struct shape draw_any(struct drawing *w)
{
	static const int rank[] = { 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 6 };
	struct shape s = { .rank = rank[rng_below(w->r, sizeof rank / sizeof *rank)] };

	for (int i = 0; i < s.rank; i++)
		s.d[i] = draw_length(w);
	return s;
}

/* The last axes of another shape, some of them 1. */
static struct shape broadcasting(struct drawing *w, const struct shape *of)
{
	struct shape s = { .rank = chance(w, 50) ? of->rank : (int)between(w, 0, of->rank) };

	for (int i = 0; i < s.rank; i++)
		s.d[i] = chance(w, 20) ? 1 : of->d[of->rank - s.rank + i];
	return s;
}

/* Another shape with one thing changed. */
static struct shape similar(struct drawing *w, struct shape s)
{
	if (!s.rank)
		return s;
	switch (between(w, 0, 3)) {
	case 0: s.d[between(w, 0, s.rank - 1)] = draw_length(w); break;
	case 1: s.rank--; break;
	case 2: {
		int i = (int)between(w, 0, s.rank - 1), k = (int)between(w, 0, s.rank - 1);
		dim x = s.d[i];

		s.d[i] = s.d[k];
		s.d[k] = x;
		break;
	}
	default:
		for (int i = 0; i < s.rank; i++)
			s.d[i] = chance(w, 50) ? draw_length(w) : s.d[i];
	}
	return s;
}

static struct shape draw_shape(struct drawing *w, int i, dtype_set set)
{
	struct shape s = { .rank = 0 }, first, other;
	int given[CALL_MAX], n = 0;

	for (int k = 0; k < i; k++)
		if (w->c->in[k] && w->c->in[k]->kind == KIND_TENSOR)
			given[n++] = k;
	if (!n)
		return draw_any(w);
	first = shape_of(w->c->in[given[0]]);
	other = shape_of(w->c->in[given[rng_below(w->r, (uint64_t)n)]]);
	if (w->op->fuzz.shapes == FUZZ_SAME && chance(w, 70))
		return first;
	if (w->op->fuzz.shapes == FUZZ_BROADCAST && chance(w, 70))
		return broadcasting(w, &first);
	if (w->op->fuzz.shapes == FUZZ_MATMUL && first.rank && chance(w, 60)) {
		s = first;
		if (s.rank == 1)
			s.d[s.rank++] = draw_length(w);
		s.d[s.rank - 2] = first.d[first.rank - 1];
		s.d[s.rank - 1] = draw_length(w);
		return s;
	}
	if (!(set & ~(INDICES)) && chance(w, 60)) {
		s.rank = chance(w, 80);
		s.d[0] = first.rank && chance(w, 30) ? first.d[between(w, 0, first.rank - 1)] : chance(w, 50) ? between(w, 0, first.rank) : first.rank;
		return s;
	}
	switch (between(w, 0, 9)) {
	case 0:
	case 1: return other;
	case 2: return broadcasting(w, &other);
	case 3:
	case 4: return (struct shape){ .rank = 1, .d = { draw_length(w) } };
	case 5: return similar(w, other);
	case 6: return s;
	case 7: /* of its rank */
		s.rank = other.rank;
		for (int k = 0; k < s.rank; k++)
			s.d[k] = draw_length(w);
		return s;
	default: return draw_any(w);
	}
}

/* ---- Inputs ---- */

static enum linnet_code draw_tensor(struct drawing *w, int i, enum dtype dt, dtype_set set, struct tensor **t)
{
	struct shape s = draw_shape(w, i, set);

	limit(w, &s);
	TRY(tensor_new(w->a, dt, s.rank, s.d, t, w->e));
	draw_elements(w, *t, set);
	return LINNET_OK;
}

static enum linnet_code draw_value(struct drawing *w, int i, enum type_kind kind, enum dtype dt, dtype_set set, struct tensor **t)
{
	int64_t n;

	if (kind == KIND_TENSOR)
		return draw_tensor(w, i, dt, set, t);
	if (kind == KIND_MAP) {
		int64_t d = between(w, 0, 4);
		enum dtype key = chance(w, 50) ? DT_INT64 : DT_STRING;
		struct tensor **m;

		TRY(members_new(w->a, kind, dt, 2, t, w->e));
		m = (struct tensor **)(*t)->data;
		(*t)->key = key;
		TRY(tensor_new(w->a, key, 1, &d, &m[0], w->e));
		TRY(tensor_new(w->a, dt, 1, &d, &m[1], w->e));
		draw_elements(w, m[0], SET(INT64) | SET(STRING));
		draw_elements(w, m[1], set);
		return LINNET_OK;
	}
	if (kind > KIND_SEQUENCE_MAP)
		return fail(w->e, LINNET_EUNSUPPORTED, "input %d is of a kind that cannot be drawn", i);
	n = between(w, 0, 3);
	if (kind == KIND_OPTIONAL || kind == KIND_OPTIONAL_SEQUENCE)
		n = n > 0;
	TRY(members_new(w->a, kind, dt, n, t, w->e));
	for (int64_t k = 0; k < n; k++) {
		struct tensor **m = (struct tensor **)(*t)->data;

		TRY(draw_value(w, i, kind_member(kind), dt, set, &m[k]));
		(*t)->key = m[k]->key;
		if (kind == KIND_SEQUENCE && k && chance(w, 50)) /* alike */
			m[k] = m[0];
	}
	return LINNET_OK;
}

static enum type_kind draw_kind(struct drawing *w, kind_set set)
{
	enum type_kind k;

	if (kind_in(KIND_TENSOR, set) && chance(w, 60))
		return KIND_TENSOR;
	do
		k = (enum type_kind)between(w, KIND_TENSOR, KIND_SEQUENCE_MAP);
	while (!kind_in(k, set) && set & ((1u << KIND_SPARSE) - 1));
	return k;
}

/* What the shape function says when inputs from `known` on are open; all must be decided when none is. */
static enum linnet_code ask(struct drawing *w, int known, const enum dtype *later)
{
	struct shape_call s = { .op = w->op, .attr = w->c->attr, .arena = w->a, .nin = w->c->nin, .nout = w->c->nout, .wanted = w->c->wanted,
		                .out = w->c->out, .e = w->e };
	struct type store[CALL_MAX];
	const struct type *in[CALL_MAX] = { NULL };

	s.dims = dims_new(w->a);
	if (!s.dims)
		return fail_mem(w->e);
	for (int i = 0; i < s.nin; i++) {
		if (i < known && w->c->in[i])
			store[i] = type_of(w->c->in[i]);
		else if (i >= known && later[i] != DT_UNDEFINED)
			store[i] = (struct type){ .kind = KIND_TENSOR, .dt = later[i], .shape = shape_unknown() };
		else
			continue;
		if (i >= known && !kind_in(KIND_TENSOR, io_kinds(op_in(w->op, i)))) /* its kind is not known yet */
			store[i].dt = DT_UNDEFINED;
		in[i] = &store[i];
	}
	s.in = in;
	TRY(op_infer(&s));
	if (known < s.nin || !w->op->shape)
		return LINNET_OK;
	if (!op_decided(&s))
		return op_undecided(&s, w->e);
	for (int i = 0; i < s.nout; i++)
		if (s.out[i].kind == KIND_TENSOR && s.out[i].shape.rank > 0 && shape_known(&s.out[i].shape) && count(&s.out[i].shape) > MAX_OUTPUT)
			return fail(w->e, LINNET_ELIMIT, "output %d is large", i);
	return LINNET_OK;
}

enum linnet_code call_infer(struct call *c, struct arena *a, struct linnet_error *e)
{
	struct drawing w = { .op = c->op, .a = a, .c = c, .e = e };
	enum dtype none[CALL_MAX] = { DT_UNDEFINED };

	return ask(&w, c->nin, none);
}

static void draw_arity(struct drawing *w)
{
	bool variadic;
	struct call *c = w->c;

	c->nin = op_nin(w->op, &variadic);
	if (variadic)
		c->nin += (int)between(w, 0, 2);
	c->nout = op_nout(w->op, &variadic);
	if (variadic)
		c->nout += (int)between(w, 0, 2);
	c->nin = c->nin > CALL_MAX ? CALL_MAX : c->nin;
	c->nout = c->nout > CALL_MAX ? CALL_MAX : c->nout;
}

static enum linnet_code draw_inputs(struct drawing *w)
{
	unsigned share = chance(w, 40) ? 15 : 60;
	enum dtype dt[CALL_MAX] = { DT_UNDEFINED };
	struct call *c = w->c;
	int first = c->nin && chance(w, 30) ? (int)between(w, 1, c->nin) : 0; /* the first inputs, and no optional one after them */

	for (int i = 0; i < NTVAR; i++)
		w->bound[i] = w->op->types[i] ? draw_dtype(w, w->op->types[i]) : DT_UNDEFINED;
	for (int i = 0; i < c->nin; i++) {
		const struct op_io *io = op_in(w->op, i);

		if (!(io->flags & OPTIONAL) || (first ? i < first : chance(w, share)))
			dt[i] = io->flags & HETERO ? draw_dtype(w, w->op->types[io->type]) : w->bound[io->type];
	}
	while (c->nin && dt[c->nin - 1] == DT_UNDEFINED)
		c->nin--;
	for (int i = 0; i < c->nout; i++)
		c->wanted[i] = !(op_out(w->op, i)->flags & OPTIONAL) || chance(w, 60);
	while (c->nout > 1 && !c->wanted[c->nout - 1])
		c->nout--;
	TRY(ask(w, 0, dt));
	for (int i = 0; i < c->nin; i++) {
		const struct op_io *io = op_in(w->op, i);
		enum linnet_code code = LINNET_OK;

		if (dt[i] == DT_UNDEFINED)
			continue;
		for (int k = 0; k < TRIES; k++) {
			struct tensor *t;

			err_clear(w->e);
			TRY(draw_value(w, i, draw_kind(w, io_kinds(io)), dt[i], w->op->types[io->type], &t));
			c->in[i] = t;
			code = ask(w, i + 1, dt);
			if (!code || code == LINNET_EMEM)
				break;
		}
		TRY(code);
		for (int k = 0; k < c->in[i]->rank; k++)
			pool_add(w, c->in[i]->d[k]);
	}
	return c->nin ? LINNET_OK : ask(w, 0, dt);
}

enum linnet_code gen_call(const struct op *op, const struct call_opt *opt, struct rng *r, struct arena *a, struct call *out,
                          struct linnet_error *e)
{
	static const struct call_opt none;
	enum linnet_code code = LINNET_OK;
	bool solid = rng_below(r, 100) < 75;

	for (int i = 0; i < op_nin(op, &(bool){ false }); i++)
		if (!(io_kinds(&op->in[i]) & ((1u << KIND_SPARSE) - 1)))
			return fail(e, LINNET_EUNSUPPORTED, "input \"%s\" cannot be drawn", op->in[i].name);
	for (int k = 0; k < RESTARTS; k++) {
		struct drawing w = { .op = op, .opt = opt ? opt : &none, .r = r, .a = a, .c = out, .e = e, .solid = solid };

		*out = (struct call){ .op = op };
		err_clear(e);
		code = draw_attrs(&w);
		if (!code) {
			draw_arity(&w);
			code = draw_inputs(&w);
		}
		if (!code || code == LINNET_EMEM || code == LINNET_EUNSUPPORTED)
			return code;
	}
	return code;
}

/* ---- As text ---- */

static void add_string(struct str *s, struct text t) { str_addf(s, "\"%.*s\"", (int)t.n, t.p); }

static void add_element(struct str *s, const struct tensor *t, int64_t i)
{
	switch (dtype_class(t->dt)) {
	case CLASS_FLOAT: str_addf(s, "%.9g", tensor_get(t, i)); break;
	case CLASS_STRING: add_string(s, ((const struct text *)t->data)[i]); break;
	case CLASS_COMPLEX: str_add(s, "?"); break;
	default: str_addf(s, "%lld", (long long)tensor_get_int(t, i));
	}
}

static void add_tensor(struct str *s, const struct tensor *t)
{
	if (t->kind != KIND_TENSOR) {
		struct type type = { .kind = t->kind, .dt = t->dt, .key = t->key };
		char words[64];

		str_addf(s, "%s {", kind_str(&type, words, sizeof words));
		for (int64_t i = 0; i < t->n; i++) {
			str_add(s, i ? ", " : "");
			add_tensor(s, tensor_member(t, i));
		}
		str_add(s, "}");
		return;
	}
	str_add(s, dtype_name(t->dt));
	for (int i = 0; i < t->rank; i++)
		str_addf(s, "%s%lld%s", i ? "," : "[", (long long)t->d[i], i + 1 == t->rank ? "]" : "");
	str_add(s, " {");
	for (int64_t i = 0; i < t->n && i < 300; i++) {
		str_add(s, i ? ", " : "");
		add_element(s, t, i);
	}
	str_add(s, t->n > 300 ? ", ...}" : "}");
}

static void add_attr(struct str *s, const struct attr *a)
{
	bool list = a->kind == ATTR_INTS || a->kind == ATTR_FLOATS || a->kind == ATTR_STRINGS;

	str_addf(s, "%s%s = ", a->name, list && !a->n ? (a->kind == ATTR_INTS ? ": ints" : a->kind == ATTR_FLOATS ? ": floats" : ": strings")
		: a->kind == ATTR_FLOAT ? ": float" : "");
	if (a->kind == ATTR_INT)
		str_addf(s, "%lld", (long long)a->i);
	else if (a->kind == ATTR_FLOAT)
		str_addf(s, "%.9g", a->f);
	else if (a->kind == ATTR_STRING)
		add_string(s, a->s);
	else if (a->kind == ATTR_TENSOR)
		add_tensor(s, a->t);
	for (size_t i = 0; list && i < a->n; i++) {
		str_add(s, i ? ", " : "[");
		if (a->kind == ATTR_INTS)
			str_addf(s, "%lld", (long long)a->ints[i]);
		else if (a->kind == ATTR_FLOATS)
			str_addf(s, "%#.9g", (double)a->floats[i]);
		else
			add_string(s, a->strings[i]);
	}
	str_add(s, list ? (a->n ? "]" : "[]") : "");
}

const char *call_attr_text(const struct call *c, struct arena *a)
{
	struct str s;

	str_init(&s, a);
	for (size_t i = 0; i < c->ngiven; i++) {
		str_add(&s, i ? ", " : " <");
		add_attr(&s, &c->given[i]);
	}
	str_add(&s, c->ngiven ? ">" : "");
	return str_done(&s);
}

const char *call_text(const struct call *c, struct arena *a)
{
	const char *attrs = call_attr_text(c, a);
	struct str s;

	str_init(&s, a);
	for (int i = 0; i < c->nout; i++) {
		str_add(&s, i ? ", " : "");
		if (c->wanted[i])
			str_addf(&s, "y%d", i);
	}
	str_addf(&s, " = %s%s%s%s (", c->op->domain ? c->op->domain : "", c->op->domain ? "." : "", c->op->name, attrs ? attrs : "");
	for (int i = 0; i < c->nin; i++) {
		str_add(&s, i ? ", " : "");
		if (c->in[i])
			str_addf(&s, "x%d", i);
	}
	str_add(&s, ")\n");
	for (int i = 0; i < c->nin; i++) {
		if (!c->in[i])
			continue;
		str_addf(&s, "x%d = ", i);
		add_tensor(&s, c->in[i]);
		str_add(&s, "\n");
	}
	return str_done(&s);
}
