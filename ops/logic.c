/* Comparisons, logic and choice: reference kernels, then rows. */
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/kernel.h"

/* One relation, as its row says it in `param`. */
struct relation {
	bool (*real)(double a, double b);   /* floats; false on NaN as C has it */
	bool (*whole)(int64_t a, int64_t b); /* integers, made to compare as signed; bools */
	dim (*sym)(struct dims *t, dim a, dim b); /* on known elements: 0, 1 or DIM_NONE */
};

static bool eq(double a, double b) { return a == b; }
static bool lt(double a, double b) { return a < b; }
static bool le(double a, double b) { return a <= b; }
static bool gt(double a, double b) { return a > b; }
static bool ge(double a, double b) { return a >= b; }
static bool eq_int(int64_t a, int64_t b) { return a == b; }
static bool lt_int(int64_t a, int64_t b) { return a < b; }
static bool le_int(int64_t a, int64_t b) { return a <= b; }
static bool gt_int(int64_t a, int64_t b) { return a > b; }
static bool ge_int(int64_t a, int64_t b) { return a >= b; }
static bool both(int64_t a, int64_t b) { return a && b; }
static bool either(int64_t a, int64_t b) { return a || b; }
static bool differ(int64_t a, int64_t b) { return a != b; }

/* What can be proved of a < b and its kin for all values of the symbols. */
static dim dim_less(struct dims *t, dim a, dim b)
{
	dim d = dim_sub(t, b, a);

	if (d == DIM_NONE)
		return DIM_NONE;
	if (dim_ge(t, d, 1))
		return 1;
	return dim_ge(t, dim_sub(t, a, b), 0) ? 0 : DIM_NONE;
}

static dim dim_not(dim x) { return dim_is_int(x) ? !x : DIM_NONE; }
static dim dim_greater(struct dims *t, dim a, dim b) { return dim_less(t, b, a); }
static dim dim_leq(struct dims *t, dim a, dim b) { return dim_not(dim_less(t, b, a)); }
static dim dim_geq(struct dims *t, dim a, dim b) { return dim_not(dim_less(t, a, b)); }

static dim dim_equal(struct dims *t, dim a, dim b)
{
	if (a == DIM_NONE || b == DIM_NONE)
		return DIM_NONE;
	if (a == b)
		return 1;
	return dim_less(t, a, b) == 1 || dim_less(t, b, a) == 1 ? 0 : DIM_NONE;
}

/* One known operand may decide alone. */
static dim dim_and(struct dims *t, dim a, dim b)
{
	(void)t;
	if (a == 0 || b == 0)
		return 0;
	return dim_is_int(a) && dim_is_int(b) ? 1 : DIM_NONE;
}

static dim dim_or(struct dims *t, dim a, dim b)
{
	return dim_not(dim_and(t, dim_not(a), dim_not(b)));
}

static dim dim_xor(struct dims *t, dim a, dim b)
{
	(void)t;
	return dim_is_int(a) && dim_is_int(b) ? a != b : DIM_NONE;
}

static enum linnet_code shape_relation(struct shape_call *c)
{
	const struct relation *f = c->op->param;

	TRY(shape_broadcast(c));
	join_sym(c, f->sym);
	return LINNET_OK;
}

static bool same_text(struct text a, struct text b) { return a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n)); }

static enum linnet_code relation(struct kernel_call *c)
{
	const struct relation *f = c->op->param;
	const struct tensor *a = c->in[0], *b = c->in[1];
	enum dtype_class kind = dtype_class(a->dt);
	uint8_t *y = c->out[0]->data;
	struct walk w;

	for (walk_init(&w, c->out[0], 2, c->in); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++) {
			int64_t p = w.at[0] + i * w.step[0], q = w.at[1] + i * w.step[1];

			if (kind == CLASS_FLOAT)
				y[w.out + i] = f->real(tensor_get(a, p), tensor_get(b, q));
			else if (kind == CLASS_STRING)
				y[w.out + i] = same_text(((const struct text *)a->data)[p], ((const struct text *)b->data)[q]);
			else
				y[w.out + i] = f->whole(int_order(a->dt, tensor_get_int(a, p)),
				                        int_order(b->dt, tensor_get_int(b, q)));
		}
	return LINNET_OK;
}

/* ---- Where ---- */

/* Elements where the condition is known, and where both choices are the same. */
static void choose_sym(struct shape_call *c)
{
	dim y[3][MAX_SYM];
	int n[3], most = 1;

	for (int k = 0; k < 3; k++) {
		n[k] = c->arena ? type_elements(c->in[k], y[k]) : -1;
		if (n[k] == 0)
			most = 0;
		else if (n[k] > most && most)
			most = n[k];
	}
	for (int k = 0; k < 3; k++)
		if (n[k] < 0 || (n[k] != 1 && n[k] != most))
			return;
	for (int i = most - 1; i >= 0; i--) {
		dim on = y[0][n[0] == 1 ? 0 : i], a = y[1][n[1] == 1 ? 0 : i], b = y[2][n[2] == 1 ? 0 : i];

		y[0][i] = a == b ? a : !dim_is_int(on) ? DIM_NONE : on ? a : b;
	}
	type_set_sym(c, 0, y[0], most);
}

static enum linnet_code shape_where(struct shape_call *c)
{
	TRY(shape_broadcast(c));
	choose_sym(c);
	return LINNET_OK;
}

static enum linnet_code where(struct kernel_call *c)
{
	const uint8_t *on = c->in[0]->data;
	struct walk w;

	for (walk_init(&w, c->out[0], 3, c->in); walk_next(&w);)
		for (int64_t i = 0; i < w.n; i++) {
			int k = on[w.at[0] + i * w.step[0]] ? 1 : 2;

			element_copy(c->out[0], w.out + i, c->in[k], w.at[k] + i * w.step[k]);
		}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define RELATION(title, first, set, text, ...)                                                     \
	{                                                                                          \
		.name = title, .since = first, .doc = text,                                        \
		.in = IN({ "A", T, FLOW_NONE }, { "B", T, FLOW_NONE }), .out = OUT({ "C", T1 }),   \
		.types = { [T] = set, [T1] = SET(BOOL) }, .agree = AGREE_BITS, .flags = OP_EACH,   \
		.shape = shape_relation, .kernel = relation, .fuzz = { .shapes = FUZZ_BROADCAST }, __VA_ARGS__ \
	}

#define BY(...) .param = &(const struct relation){ __VA_ARGS__ }

static const struct op rows[] = {
	RELATION("Equal", 7, NUMBERS | SET(BOOL) | SET(STRING),
	         "Whether the two are equal; NaN equals nothing.", BY(eq, eq_int, dim_equal)),
	RELATION("Less", 7, NUMBERS, "Whether A is less than B.", BY(lt, lt_int, dim_less)),
	RELATION("Greater", 7, NUMBERS, "Whether A is greater than B.",
	         BY(gt, gt_int, dim_greater)),
	RELATION("LessOrEqual", 12, NUMBERS, "Whether A is less than B or equal to it.", BY(le, le_int, dim_leq),
	         .body = "{ l = Less (A, B)\n"
	                 "  e = Equal (A, B)\n"
	                 "  C = Or (l, e) }"),
	RELATION("GreaterOrEqual", 12, NUMBERS, "Whether A is greater than B or equal to it.", BY(ge, ge_int, dim_geq),
	         .body = "{ g = Greater (A, B)\n"
	                 "  e = Equal (A, B)\n"
	                 "  C = Or (g, e) }"),
	RELATION("And", 7, SET(BOOL), "Whether both are true.", BY(.whole = both, .sym = dim_and)),
	RELATION("Or", 7, SET(BOOL), "Whether one of the two or both are true.",
	         BY(.whole = either, .sym = dim_or)),
	RELATION("Xor", 7, SET(BOOL), "Whether one of the two is true.",
	         BY(.whole = differ, .sym = dim_xor)),
	{
		.name = "Where", .since = 9,
		.doc = "X where the condition is true, Y elsewhere.",
		.in = IN({ "condition", T1, FLOW_NONE }, { "X", T, FLOW_LINEAR }, { "Y", T, FLOW_LINEAR }),
		.out = OUT({ "output", T }),
		.types = { [T1] = SET(BOOL), [T] = NUMBERS | COMPLEXES | SET(BOOL) | SET(STRING) },
		.agree = AGREE_BITS,
		.flags = OP_EACH,
		.grad = "{" REAL("zero", "0.0") "  d_X = Where (condition, d_output, zero)\n  d_Y = Where (condition, zero, d_output) }",
		.shape = shape_where,
		.kernel = where,
		.fast = FAST(&fast_where),
		.fuzz = { .shapes = FUZZ_BROADCAST },
	},
};

const struct op_family logic_ops = FAMILY("logic", rows);
