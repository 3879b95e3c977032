/*
 * Wrong calls of every row: an error in one clear line, whatever is wrong with them; and calls with anything in them, which may
 * succeed or fail, but nothing else. Under sanitizers.
 *
 * `test_wrong [-n CASES] NAME ...` runs the rows of these operators alone.
 */
#include "tests/unit/drawn.h"

enum { CASES = 15, MOST = 20000 /* elements computed */ };

static bool say(void)
{
	return getenv("DRAWN_SAY") != NULL; /* print each call before it is made, to find one that crashes */
}

/* An error is of the caller's making and says so in one line. */
static void check_error(const struct call *c, struct arena *a, const char *how, enum linnet_code code, const struct linnet_error *e)
{
	if (!code)
		return;
	if (code == LINNET_EINTERNAL || code == LINNET_EMEM || !*e->message || strchr(e->message, '\n'))
		complain_of(c, a, "%s: LINNET_%s %s", how, linnet_code_name(code), e->message);
}

static void expect_error(const struct call *c, struct arena *a, const char *how, enum linnet_code code, const struct linnet_error *e)
{
	if (!code)
		complain_of(c, a, "%s: succeeds", how);
	check_error(c, a, how, code, e);
}

/* ---- What the row itself says no to ---- */

static enum linnet_code infer_types(const struct call *c, int nin, const struct type *const *in, int nout, struct arena *a,
                                    struct linnet_error *e)
{
	struct type out[CALL_MAX + 1] = { 0 };
	bool wanted[CALL_MAX + 1];
	struct shape_call s = { .op = c->op, .attr = c->attr, .arena = a, .dims = dims_new(a), .nin = nin, .nout = nout, .in = in, .out = out,
		                .wanted = wanted, .e = e };

	for (int i = 0; i <= CALL_MAX; i++)
		wanted[i] = true;
	return op_infer(&s);
}

static void wrong_arity(const struct call *c, const struct type *const *in, struct arena *a)
{
	const struct type *other[CALL_MAX + 1] = { NULL };
	struct linnet_error e = { 0 };
	bool variadic;
	int n = op_nin(c->op, &variadic);

	memcpy(other, in, sizeof *in * CALL_MAX);
	if (!variadic && n < CALL_MAX)
		expect_error(c, a, "one input too many", infer_types(c, n + 1, other, c->nout, a, &e), &e);
	for (int i = 0; i < c->nin; i++) {
		if (op_in(c->op, i)->flags & OPTIONAL || !in[i])
			continue;
		err_clear(&e);
		other[i] = NULL;
		expect_error(c, a, "a needed input left out", infer_types(c, c->nin, other, c->nout, a, &e), &e);
		other[i] = in[i];
		err_clear(&e);
		if (!(op_in(c->op, i)->flags & VARIADIC))
			expect_error(c, a, "inputs missing", infer_types(c, i, other, c->nout, a, &e), &e);
	}
	n = op_nout(c->op, &variadic);
	err_clear(&e);
	if (!variadic && n < CALL_MAX)
		expect_error(c, a, "one output too many", infer_types(c, c->nin, in, n + 1, a, &e), &e);
	err_clear(&e);
	if (!(c->op->out[0].flags & OPTIONAL))
		expect_error(c, a, "no outputs", infer_types(c, c->nin, in, 0, a, &e), &e);
}

static void wrong_types(const struct call *c, const struct type *const *in, struct arena *a)
{
	for (int i = 0; i < c->nin; i++) {
		const struct op_io *io = op_in(c->op, i);
		const struct type *other[CALL_MAX] = { NULL };
		struct type t;

		if (!in[i])
			continue;
		memcpy(other, in, sizeof other);
		other[i] = &t;
		for (int dt = 1; dt < DT_COUNT; dt++) {
			struct linnet_error e = { 0 };

			t = *in[i];
			t.dt = (enum dtype)dt;
			t.value = NULL;
			if (!dtype_in(t.dt, c->op->types[io->type]))
				expect_error(c, a, "a wrong element type", infer_types(c, c->nin, other, c->nout, a, &e), &e);
		}
		for (int kind = 0; kind < KIND_SPARSE; kind++) {
			struct linnet_error e = { 0 };

			t = *in[i];
			t.kind = (enum type_kind)kind;
			t.value = NULL;
			if (!kind_in(t.kind, io_kinds(io)))
				expect_error(c, a, "a wrong kind of value", infer_types(c, c->nin, other, c->nout, a, &e), &e);
		}
	}
}

/* The call's attributes with one more or another one. */
static void wrong_attr(const struct call *c, struct attr wrong, const char *how, struct arena *a)
{
	struct attr *given = NEW(a, c->ngiven + 1, struct attr), *full;
	struct linnet_error e = { 0 };
	size_t n = 0;

	assert_non_null(given);
	for (size_t i = 0; i < c->ngiven; i++)
		if (strcmp(c->given[i].name, wrong.name))
			given[n++] = c->given[i];
	if (wrong.kind != ATTR_NONE)
		given[n++] = wrong;
	expect_error(c, a, how, op_attrs(c->op, given, n, a, &full, &e), &e);
}

static void wrong_attrs(const struct call *c, struct arena *a)
{
	wrong_attr(c, (struct attr){ .name = "nonsense", .kind = ATTR_INT }, "an unknown attribute", a);
	for (const struct op_attr *row = c->op->attr; row && row->name; row++) {
		struct attr x = { .name = row->name, .kind = row->kind, .s = { "nonsense", 8 }, .n = 1 };
		double beyond[] = { row->lo - 1, row->hi + 1, row->kind == ATTR_FLOAT ? NAN : row->lo - 1 };

		if (row->flags & REQUIRED)
			wrong_attr(c, (struct attr){ .name = row->name }, "a required attribute left out", a);
		if (row->kind == ATTR_STRING && row->oneof)
			wrong_attr(c, x, "a word that is not among those admitted", a);
		for (int k = 0; k < 3 && row->lo < row->hi; k++) {
			int64_t i = isnan(beyond[k]) ? 0 : (int64_t)fmax(fmin(beyond[k], 9e18), -9e18);
			float f = (float)beyond[k];

			x.i = i;
			x.f = beyond[k];
			x.ints = &i;
			x.floats = &f;
			if (!isnan(beyond[k]) && (double)i >= row->lo && (double)i <= row->hi)
				continue; /* the range is that of the type */
			if (row->kind == ATTR_FLOATS && !(f < row->lo || f > row->hi))
				continue;
			wrong_attr(c, x, "an attribute out of its range", a);
		}
		for (int kind = ATTR_INT; kind <= ATTR_OTHER; kind++)
			if (kind != (int)row->kind) {
				x.kind = (enum attr_kind)kind;
				x.n = 0;
				wrong_attr(c, x, "an attribute of another kind", a);
			}
	}
}

/* ---- Anything ---- */

static int64_t any_int(void)
{
	static const int64_t edge[] = { 0, 1, -1, 2, INT64_MAX, INT64_MIN, INT64_MIN + 1, INT64_MAX - 1, INT32_MAX, INT32_MIN, 1LL << 32, 1LL << 40,
		                        1LL << 62, -(1LL << 62), 9, 100, 65536, -65536 };

	if (rng_below(&draw_rng, 2))
		return (int64_t)rng_below(&draw_rng, 12) - 4;
	return edge[rng_below(&draw_rng, sizeof edge / sizeof *edge)];
}

static double any_double(void)
{
	static const double edge[] = { NAN, INFINITY, -INFINITY, 0, -0.0, 1e300, -1e300, 1e-310, 0.5, -1, 1, 2, 1e9, -1e9 };

	return edge[rng_below(&draw_rng, sizeof edge / sizeof *edge)];
}

static void spoil_attr(struct attr *x, struct arena *a)
{
	static const char *const words[] = { "", "nonsense", "a->b", "...", "(", "ij,jk->ik", "\xff", "%s%n", "[a-", "linear" };

	switch (x->kind) {
	case ATTR_INT: x->i = any_int(); break;
	case ATTR_FLOAT: x->f = any_double(); break;
	case ATTR_STRING:
		x->s.p = words[rng_below(&draw_rng, sizeof words / sizeof *words)];
		x->s.n = strlen(x->s.p);
		break;
	case ATTR_INTS: {
		size_t n = rng_below(&draw_rng, 3) ? x->n : rng_below(&draw_rng, 12);
		int64_t *v = NEW(a, n, int64_t);

		for (size_t i = 0; i < n; i++)
			v[i] = i < x->n && rng_below(&draw_rng, 2) ? x->ints[i] : any_int();
		x->ints = v;
		x->n = n;
		break;
	}
	case ATTR_FLOATS: {
		size_t n = rng_below(&draw_rng, 3) ? x->n : rng_below(&draw_rng, 12);
		float *v = NEW(a, n, float);

		for (size_t i = 0; i < n; i++)
			v[i] = i < x->n && rng_below(&draw_rng, 2) ? x->floats[i] : (float)fmax(fmin(any_double(), 1e38), -1e38);
		x->floats = v;
		x->n = n;
		break;
	}
	case ATTR_STRINGS: x->n = x->n ? rng_below(&draw_rng, x->n) : 0; break;
	default: break;
	}
}

static struct shape any_shape(const struct shape *was, int64_t most)
{
	struct shape s = *was;

	if (rng_below(&draw_rng, 2)) {
		s.rank = (int)rng_below(&draw_rng, MAX_RANK + 1);
		for (int i = was->rank; i < s.rank; i++)
			s.d[i] = (int64_t)rng_below(&draw_rng, 4);
	}
	if (s.rank) {
		int64_t d = any_int();

		s.d[rng_below(&draw_rng, (uint64_t)s.rank)] = d < 0 ? 0 : d > most ? most : d;
	}
	return s;
}

static void spoil_input(struct call *c, int i, struct arena *a)
{
	const struct tensor *was = c->in[i];
	struct tensor *t;

	if (!was) {
		return;
	}
	if (op_in(c->op, i)->flags & OPTIONAL && !rng_below(&draw_rng, 4)) {
		c->in[i] = NULL;
		return;
	}
	if (was->kind != KIND_TENSOR)
		return;
	if (rng_below(&draw_rng, 2)) {
		assert_false(tensor_dup(a, was, &t, NULL));
	} else {
		struct shape now = shape_of(was);
		int64_t n;
		size_t bytes;

		now = any_shape(&now, 20);
		if (tensor_size(was->dt, now.rank, now.d, 20000, &n, &bytes, NULL))
			return;
		assert_false(tensor_new(a, was->dt, now.rank, now.d, &t, NULL));
		if (was->dt == DT_STRING)
			for (int64_t k = 0; k < t->n && was->n; k++)
				((struct text *)t->data)[k] = ((const struct text *)was->data)[k % was->n];
		else if (t->bytes && was->bytes)
			for (size_t k = 0; k < t->bytes; k++)
				((char *)t->data)[k] = ((const char *)was->data)[k % was->bytes];
	}
	if (dtype_in(t->dt, INTS) && t->n && rng_below(&draw_rng, 2))
		for (int64_t k = rng_below(&draw_rng, 2) ? 0 : t->n - 1; k < t->n; k++)
			tensor_put_int(t, k, any_int());
	if (dtype_in(t->dt, FLOATS) && t->n && rng_below(&draw_rng, 2))
		for (int64_t k = rng_below(&draw_rng, 2) ? 0 : t->n - 1; k < t->n; k++)
			tensor_put(t, k, any_double());
	c->in[i] = t;
}

/* The call, if what it makes is not too much to compute here. */
static void try_call(struct call *c, struct arena *a)
{
	struct tensor *out[CALL_MAX] = { NULL };
	struct linnet_error e = { 0 };
	enum linnet_code code;

	if (say())
		fprintf(stderr, "%s\n", call_text(c, a));
	code = call_infer(c, a, &e);
	if (code) {
		if (code != LINNET_EMEM)
			check_error(c, a, "inference", code, &e);
		return;
	}
	for (int i = 0; i < c->nout; i++) {
		int64_t n;
		size_t bytes;

		if (c->out[i].kind == KIND_TENSOR && (c->out[i].shape.rank < 0 || !shape_known(&c->out[i].shape) ||
		    tensor_size(c->out[i].dt, c->out[i].shape.rank, c->out[i].shape.d, MOST, &n, &bytes, NULL)))
			return;
	}
	if (!c->op->kernel)
		return;
	code = op_eval(c->op, c->attr, c->nin, c->in, c->nout, c->wanted, a, out, &e);
	if (code != LINNET_EMEM)
		check_error(c, a, "execution", code, &e);
}

/* Lengths as no tensor in memory has them. */
static void try_lengths(const struct call *c, struct arena *a)
{
	static const int64_t length[] = { 0, 1, INT32_MAX, 1LL << 32, 1LL << 40, 1LL << 61, INT64_MAX, 3, 7 };
	struct type store[CALL_MAX];
	const struct type *in[CALL_MAX] = { NULL };
	struct linnet_error e = { 0 };

	for (int i = 0; i < c->nin; i++) {
		if (!c->in[i])
			continue;
		store[i] = type_of(c->in[i]);
		in[i] = &store[i];
		if (rng_below(&draw_rng, 2) || store[i].kind != KIND_TENSOR)
			continue;
		store[i].value = NULL;
		store[i].sym = NULL;
		store[i].shape = any_shape(&store[i].shape, 20);
		for (int k = 0; k < store[i].shape.rank; k++)
			if (!rng_below(&draw_rng, 2))
				store[i].shape.d[k] = length[rng_below(&draw_rng, sizeof length / sizeof *length)];
	}
	check_error(c, a, "inference with great lengths", infer_types(c, c->nin, in, c->nout, a, &e), &e);
}

static void spoil(const struct call *good, struct arena *a)
{
	struct call c = *good;
	struct linnet_error e = { 0 };
	struct attr *given = arena_dup(a, c.given, sizeof *given * (c.ngiven ? c.ngiven : 1));

	assert_non_null(given);
	c.given = given;
	for (int k = 1 + (int)rng_below(&draw_rng, 3); k; k--) {
		if (c.ngiven && rng_below(&draw_rng, 2))
			spoil_attr(&given[rng_below(&draw_rng, c.ngiven)], a);
		else if (c.nin)
			spoil_input(&c, (int)rng_below(&draw_rng, (uint64_t)c.nin), a);
	}
	if (op_attrs(c.op, given, c.ngiven, a, &c.attr, &e))
		return;
	try_call(&c, a);
	try_lengths(&c, a);
}

static void check_row(const struct op *op)
{
	bool told = false;

	if (!op->shape && !op->kernel)
		return;
	for (int k = 0; k < cases(CASES); k++) {
		struct arena *a = arena_new();
		struct call_opt opt = { .elements = 100, .extreme = k % 3 == 2 };
		struct linnet_error e = { 0 };
		struct call c;

		if (!gen_call(op, &opt, &draw_rng, a, &c, &e)) {
			if (!told) {
				struct type store[CALL_MAX];
				const struct type *in[CALL_MAX] = { NULL };

				for (int i = 0; i < c.nin; i++)
					if (c.in[i]) {
						store[i] = type_of(c.in[i]);
						in[i] = &store[i];
					}
				wrong_arity(&c, in, a);
				wrong_types(&c, in, a);
				wrong_attrs(&c, a);
				told = true;
			}
			for (int i = 0; i < 4; i++)
				spoil(&c, a);
		}
		arena_free(a);
	}
}

static void wrong_calls_fail(void **state)
{
	(void)state;
	each_row(check_row);
	assert_int_equal(complaints, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(wrong_calls_fail) };

	read_arguments(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
