/* Symbolic lengths: identities, proofs, text, and that the normal form means what was written. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "ops/base/dim.h"
#include "ops/base/rng.h"

static struct arena *arena;
static struct dims *dims;

static int setup(void **state)
{
	(void)state;
	arena = arena_new();
	dims = dims_new(arena);
	return dims ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	arena_free(arena);
	return 0;
}

static dim read(const char *s) { return dim_parse(dims, s); }
static const char *text(dim d) { return dim_str(dims, d, arena); }

/* Both sides are one dim. */
static const char *const equal[][2] = {
	{ "a + b", "b + a" },
	{ "a*(b + c)", "a*c + b*a" },
	{ "(a + b)*(a - b)", "a**2 - b**2" },
	{ "(a*b)//b", "a" },
	{ "(64*h)//64", "h" },
	{ "(6*a + 12)//6", "a + 2" },
	{ "(8*a + 3)//4", "2*a" },
	{ "(8*a + b)//8", "a + b//8" },
	{ "(9*a + b)//8", "a + (a + b)//8" },
	{ "(a*b*c + a*c*d)//(a*c)", "b + d" },
	{ "(a**2 - b**2)//(a + b)", "a - b" },
	{ "(a*b + c)//b", "a + c//b" },
	{ "(6*a)//(4*b)", "(3*a)//(2*b)" },
	{ "(a*b)//(a*c)", "b//c" },
	{ "(x//8)*8 + x%8", "x" },
	{ "(x//y)*y + x%y", "x" },
	{ "(x//4)//2", "x//8" },
	{ "(x//y)//z", "x//(y*z)" },
	{ "((x + 1)//2 + 1)//2", "(x + 3)//4" },
	{ "(2*x + 1)//4", "x//2" },
	{ "(x - 1)//2 + 1", "(x + 1)//2" },
	{ "0 - (0 - x)//2", "(x + 1)//2" },
	{ "(0 - x)//8", "0 - (x + 7)//8" },
	{ "x + (8 - x%8)%8", "8*((x + 7)//8)" },
	{ "(x%8)//8", "0" },
	{ "(x%8)%8", "x%8" },
	{ "(16*x)%8", "0" },
	{ "(8*x + 5)%8", "5" },
	{ "max(a, a)", "a" },
	{ "max(a + 3, a + 5)", "a + 5" },
	{ "min(a + 3, a + 5)", "a + 3" },
	{ "max(x, 0)", "x" },
	{ "min(x, 0)", "0" },
	{ "max(a*b + 1, 1)", "a*b + 1" },
	{ "max(x//2, 0)", "x//2" },
	{ "max(a, b)", "max(b, a)" },
	{ "min(a, b)", "min(b, a)" },
	{ "max(a, b) + min(a, b)", "a + b" },
	{ "max(2*a, 2*b)", "2*max(a, b)" },
	{ "max(a*c, b*c)", "c*max(a, b)" },
	{ "max(max(a, b), a)", "max(a, b)" },
	{ "min(min(a, 64), 64)", "min(a, 64)" },
	{ "max(min(a, 64), 0)", "min(a, 64)" },
	{ "min(a, a + b)", "a" },
	{ "min(x, 2*(x//2))", "2*(x//2)" },
	{ "min(x, x//2)", "x//2" },
	{ "max(x%8, 0)", "x%8" },
	{ "min(x%8, 7)", "x%8" },
	{ "max(x - (x//3)*2, 0)", "x - 2*(x//3)" },
	{ "1*x + 0*y", "x" },
	{ "x - x", "0" },
	{ "7//2", "3" },
	{ "-7//2", "-4" },
	{ "-7%3", "2" },
	/* what exporters write */
	{ "past_sequence_length + sequence_length", "sequence_length + past_sequence_length" },
	{ "floor(seq/2)", "seq//2" },
	{ "floor(h/2 - 1/2) + 1", "(h - 1)//2 + 1" },
	{ "ceil(x/2)", "(x + 1)//2" },
	{ "ceiling(x/2)", "(x + 1)//2" },
	{ "Max(1, s5)", "max(s5, 1)" },
	{ "Min(64, seq)", "min(seq, 64)" },
	{ "Mod(x, 4)", "x%4" },
	{ "FloorDiv(x, 4)", "x//4" },
	{ "CeilDiv(x, 4)", "(x + 3)//4" },
	{ "s0**2", "s0*s0" },
	{ " 2 * s0+1 ", "1 + s0 + s0" },
	{ "floor(0 + 3*s0*(1/4))", "(3*s0)//4" },
	{ "'two words' + 1", "1 + 'two words'" },
	{ "'two words'", "two words" },
};

static void identities(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof equal / sizeof *equal; i++) {
		dim a = read(equal[i][0]), b = read(equal[i][1]);

		if (a != b)
			fail_msg("%s is %s, %s is %s", equal[i][0], text(a), equal[i][1], text(b));
	}
}

static void lengths_may_be_zero_and_unlike(void **state)
{
	static const char *const unequal[][2] = {
		{ "a", "b" }, { "a//b", "b//a" }, { "max(a, b)", "a" }, { "max(a, 1)", "a" }, { "(a + 1)//2", "a//2" },
		{ "8*(x//8)", "x" }, { "batch-size", "batch - size" }, { "x", "'x '" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof unequal / sizeof *unequal; i++)
		if (read(unequal[i][0]) == read(unequal[i][1]))
			fail_msg("%s and %s are both %s", unequal[i][0], unequal[i][1], text(read(unequal[i][0])));
}

/* Printed text: what a person reads. */
static void printing(void **state)
{
	static const char *const cases[][2] = {
		{ "7", "7" },
		{ "-1", "-1" },
		{ "batch", "batch" },
		{ "p + s", "p + s" },
		{ "heads*64", "64*heads" },
		{ "(s + 1)/2", "(s + 1)//2" },
		{ "7 - s", "7 - s" },
		{ "0 - s", "-s" },
		{ "batch*(s//2)", "batch*(s//2)" },
		{ "3*(s//2) + 1", "3*(s//2) + 1" },
		{ "max(s, 1)", "max(s, 1)" },
		{ "min(64, s)", "min(64, s)" },
		{ "s//(2*p)", "s//(2*p)" },
		{ "two words", "two words" },
		{ "'two words'*2", "2*'two words'" },
		{ "'a + b'", "'a + b'" },
		{ "'it''s'", "'it''s'" },
		{ "/model/Shape:0", "/model/Shape:0" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_string_equal(text(read(cases[i][0])), cases[i][1]);
		assert_int_equal(read(text(read(cases[i][0]))), read(cases[i][0]));
	}
	assert_string_equal(text(DIM_NONE), "?");
	assert_string_equal(text(dim_symbol(dims, "a//b")), "'a//b'");
	assert_int_equal(read(text(dim_symbol(dims, "a//b"))), dim_symbol(dims, "a//b"));
	assert_string_equal(text(dim_symbol(dims, "")), "''");
	assert_int_equal(read(text(dim_symbol(dims, ""))), dim_symbol(dims, ""));
}

static void unreadable_names_are_symbols(void **state)
{
	static const char *const names[] = { "two words", "a +", "f(x)", "1.5*x", "(a", "a)", "max()", "mod(a)", "x**y", "x**12",
	                                     "9999999999999999999", "a b", "x//0", "2x", "'", "a%(b/2)" };
	char deep[400];

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (read(names[i]) != dim_symbol(dims, names[i]))
			fail_msg("%s reads as %s", names[i], text(read(names[i])));
	memset(deep, '(', sizeof deep - 1);
	deep[sizeof deep - 1] = '\0';
	assert_int_equal(read(deep), dim_symbol(dims, deep));
	assert_true(read("") != read(""));
	assert_true(read("?") != read("?"));
}

static void proofs(void **state)
{
	static const struct { const char *d; int64_t at_least; bool yes; } cases[] = {
		{ "x", 0, true },           { "x", 1, false },          { "x + 2", 2, true },      { "x - 1", 0, false },
		{ "a*b", 0, true },         { "x//2", 0, true },        { "x%8", 0, true },        { "7 - x%8", 0, true },
		{ "6 - x%8", 0, false },    { "x - x//2", 0, true },    { "max(x, 3)", 3, true },  { "max(x - 9, 2)", 2, true },
		{ "5 - min(x, 5)", 0, true }, { "min(x, 5)", 0, true }, { "min(x + 3, 5)", 3, true }, { "min(x + 3, 5)", 4, false },
		{ "max(x//10 - 1, 0) - x//10", -1, true },
		{ "(x + 5)//2", 2, true },  { "b*(x//2)*2 - b*x", 0, false }, { "b*x - b*(x//2)*2", 0, true }, { "7", 7, true },
		{ "7", 8, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (dim_ge(dims, read(cases[i].d), cases[i].at_least) != cases[i].yes)
			fail_msg("%s >= %d", cases[i].d, (int)cases[i].at_least);
	assert_false(dim_ge(dims, DIM_NONE, 0));
	assert_true(dim_divides(dims, 4, read("8*a + 4*b*c + 12")));
	assert_false(dim_divides(dims, 4, read("8*a + 2")));
	assert_true(dim_divides(dims, 8, read("x - x%8")));
	assert_true(dim_divides(NULL, 3, 9));
	assert_false(dim_divides(dims, 1, DIM_NONE));
}

static void bounds_of_symbols(void **state)
{
	dim n = dim_fresh(dims, "n");

	(void)state;
	dim_at_least(dims, n, 4);
	dim_at_least(dims, n, 2);
	assert_true(dim_ge(dims, n, 4));
	assert_false(dim_ge(dims, n, 5));
	assert_int_equal(dim_max(dims, n, 3), n);
	assert_int_equal(dim_min(dims, n, 4), 4);
}

static void bounds_of_lengths(void **state)
{
	dim windows = read("(bounded + 35)//40 - 1"), pairs = read("2*paired - 3"), both = read("one_of + other_of - 4");

	(void)state;
	assert_false(dim_ge(dims, windows, 0));
	dim_at_least(dims, windows, 0);
	assert_true(dim_ge(dims, windows, 0));
	assert_false(dim_ge(dims, windows, 1));
	assert_int_equal(dim_max(dims, windows, 0), windows);
	dim_at_least(dims, pairs, 0);
	assert_true(dim_ge(dims, read("paired"), 2));
	assert_false(dim_ge(dims, read("paired"), 3));
	dim_at_least(dims, both, 0); /* of neither alone */
	assert_false(dim_ge(dims, both, 0));
}

static void fresh_symbols_are_new_identifiers(void **state)
{
	dim a = dim_fresh(dims, "/model/NonZero:0"), b = dim_fresh(dims, "/model/NonZero:0");

	(void)state;
	assert_true(a != b);
	assert_string_equal(text(a), "d_model_NonZero_0");
	assert_string_equal(text(b), "d_model_NonZero_0_1");
	assert_int_equal(read(text(b)), b);
	a = dim_unknown(dims, "x 0", "x_d0");
	assert_int_equal(dim_unknown(dims, "x 0", "x_d0"), a);
	assert_true(dim_unknown(dims, "x 1", "x_d1") != a);
	read("y_d0");
	b = dim_unknown(dims, "y 0", "y_d0");
	assert_string_equal(text(b), "y_d0_2");
	assert_int_equal(dim_unknown(dims, "y 0", "y_d0"), b);
}

static void integers_need_no_table(void **state)
{
	(void)state;
	assert_int_equal(dim_add(NULL, 3, 4), 7);
	assert_int_equal(dim_sub(NULL, 3, 4), -1);
	assert_int_equal(dim_mul(NULL, 3, 4), 12);
	assert_int_equal(dim_div(NULL, -3, 2), -2);
	assert_int_equal(dim_ceil_div(NULL, 3, 2), 2);
	assert_int_equal(dim_ceil_div(NULL, -3, 2), -1);
	assert_int_equal(dim_mod(NULL, -3, 5), 2);
	assert_int_equal(dim_max(NULL, 3, 4), 4);
	assert_int_equal(dim_min(NULL, 3, 4), 3);
	assert_string_equal(dim_str(NULL, 12, arena), "12");
	assert_int_equal(dim_add(NULL, 1, read("x")), DIM_NONE);
}

static void overflow_and_nonsense_are_unknown(void **state)
{
	dim x = read("x"), big = (int64_t)1 << 61;

	(void)state;
	assert_int_equal(dim_add(dims, INT64_MAX, 1), DIM_NONE);
	assert_int_equal(dim_mul(dims, big, 4), DIM_NONE);
	assert_int_equal(dim_mul(dims, -big, 4), DIM_NONE);
	assert_int_equal(dim_mul(dims, dim_mul(dims, x, big), 4), DIM_NONE);
	assert_int_equal(dim_sub(dims, dim_mul(dims, x, -big), dim_mul(dims, x, big)), DIM_NONE);
	assert_int_equal(dim_div(dims, x, 0), DIM_NONE);
	assert_int_equal(dim_mod(dims, x, 0), DIM_NONE);
	assert_int_equal(dim_add(dims, DIM_NONE, x), DIM_NONE);
	assert_int_equal(dim_max(dims, DIM_NONE, 1), DIM_NONE);
	assert_int_equal(dim_min(dims, x, INT64_MAX), x);
	assert_int_equal(dim_max(dims, INT64_MAX, x), INT64_MAX);
}

/* However an expression grows, it ends: as an expression of bounded size or as unknown. */
static void growth_is_bounded(void **state)
{
	dim d = read("x"), e = read("x"), f = read("x");

	(void)state;
	for (int i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof name, "s%d", i);
		d = dim_mul(dims, dim_add(dims, d, dim_symbol(dims, name)), dim_symbol(dims, name));
		e = dim_div(dims, dim_add(dims, dim_mul(dims, e, e), 1), 3);
		f = dim_max(dims, dim_sub(dims, 100, f), dim_div(dims, f, dim_symbol(dims, name)));
	}
	assert_int_equal(d, DIM_NONE);
	assert_int_equal(e, DIM_NONE);
	assert_int_equal(f, DIM_NONE);
}

/* ---- A random expression evaluates to what its normal form does ---- */

enum { NSYM = 4 };
static int64_t assigned[NSYM];

static dim lookup(void *ctx, const char *name)
{
	(void)ctx;
	return assigned[name[0] - 'p'];
}

/* The expression and, by plain arithmetic, its value; false where it has none (division by zero). */
static bool random_pair(struct rng *r, int depth, dim *d, int64_t *v)
{
	int64_t a, b, q;
	dim x, y;

	if (!depth || rng_below(r, 4) == 0) {
		if (rng_below(r, 2)) {
			*v = (int64_t)rng_below(r, 12) - 2;
			*d = *v;
		} else {
			char name[2] = { (char)('p' + rng_below(r, NSYM)), 0 };

			*v = assigned[name[0] - 'p'];
			*d = dim_symbol(dims, name);
		}
		return true;
	}
	if (!random_pair(r, depth - 1, &x, &a) || !random_pair(r, depth - 1, &y, &b))
		return false;
	switch (rng_below(r, 8)) {
	case 0: case 1:
		*d = dim_add(dims, x, y);
		*v = a + b;
		return true;
	case 2:
		*d = dim_sub(dims, x, y);
		*v = a - b;
		return true;
	case 3:
		*d = dim_mul(dims, x, y);
		*v = a * b;
		return true;
	case 4:
		*d = dim_max(dims, x, y);
		*v = a > b ? a : b;
		return true;
	case 5:
		*d = dim_min(dims, x, y);
		*v = a < b ? a : b;
		return true;
	default:
		if (!b)
			return false;
		q = a / b - (a % b != 0 && (a % b < 0) != (b < 0));
		if (rng_below(r, 2)) {
			*d = dim_div(dims, x, y);
			*v = q;
		} else {
			*d = dim_mod(dims, x, y);
			*v = a - q * b;
		}
		return true;
	}
}

static void normal_form_means_the_same(void **state)
{
	struct rng r = { 1 };
	int known = 0, proved = 0;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		int64_t v;
		dim d;

		for (int j = 0; j < NSYM; j++)
			assigned[j] = 1 + (int64_t)rng_below(&r, 30);
		if (!random_pair(&r, 4, &d, &v) || d == DIM_NONE)
			continue;
		known++;
		/* a symbolic divisor in the normal form may be zero where the written one was not */
		if (dim_eval(dims, d, lookup, NULL) != v && dim_eval(dims, d, lookup, NULL) != DIM_NONE)
			fail_msg("case %d: %s gives %lld, not %lld", i, text(d), (long long)dim_eval(dims, d, lookup, NULL),
			         (long long)v);
		if (dim_ge(dims, d, 0)) {
			assert_true(v >= 0);
			proved++;
		}
		if (read(text(d)) != d)
			fail_msg("case %d: %s is read back as %s", i, text(d), text(read(text(d))));
	}
	assert_true(known > 10000);
	assert_true(proved > 2000);
}

static void count(void *ctx, const char *name)
{
	++*(int *)ctx;
	assert_true(!strcmp(name, "a") || !strcmp(name, "b") || !strcmp(name, "c"));
}

static void symbols_within(void **state)
{
	int n = 0;

	(void)state;
	dim_symbols(dims, read("a*b + max((c - 1)//2, 3)"), count, &n);
	assert_true(n >= 3);
	dim_symbols(NULL, 7, count, &n);
}

/* Without memory everything is unknown, and the table stays usable. */
static void memory_failure(void **state)
{
	(void)state;
	for (uint64_t n = 1; n < 60; n++) {
		struct arena *a = arena_new();
		struct dims *t = a ? dims_new(a) : NULL;
		dim d;

		mem_fail_at(n);
		for (int i = 0; t && i < 400; i++) {
			char name[16];

			snprintf(name, sizeof name, "s%d", i);
			d = dim_div(t, dim_add(t, dim_symbol(t, name), dim_parse(t, "max(x, 7)")), 3);
			dim_str(t, d, a);
		}
		mem_fail_at(0);
		if (t)
			assert_true(dim_is_expr(dim_add(t, dim_symbol(t, "later"), 1)));
		arena_free(a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(identities, setup, teardown),
		cmocka_unit_test_setup_teardown(lengths_may_be_zero_and_unlike, setup, teardown),
		cmocka_unit_test_setup_teardown(printing, setup, teardown),
		cmocka_unit_test_setup_teardown(unreadable_names_are_symbols, setup, teardown),
		cmocka_unit_test_setup_teardown(proofs, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_of_symbols, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_of_lengths, setup, teardown),
		cmocka_unit_test_setup_teardown(fresh_symbols_are_new_identifiers, setup, teardown),
		cmocka_unit_test_setup_teardown(integers_need_no_table, setup, teardown),
		cmocka_unit_test_setup_teardown(overflow_and_nonsense_are_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(growth_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(normal_form_means_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(symbols_within, setup, teardown),
		cmocka_unit_test(memory_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
