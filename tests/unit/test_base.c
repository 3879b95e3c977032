/* ops/base: arenas, errors, element types, strings, maps, tensors. */
#include "tests/unit/unit.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops/base/idmap.h"
#include "ops/base/map.h"
#include "ops/base/shape.h"
#include "ops/base/str.h"
#include "ops/base/thread.h"

static void arena_alignment_and_failure(void **state)
{
	struct arena *a = arena_new();

	(void)state;
	assert_int_equal((uintptr_t)arena_get(a, 100, 1) % 64, 0);
	assert_int_equal((uintptr_t)arena_get(a, 3, 1) % 16, 0);
	assert_int_equal((uintptr_t)arena_get(a, 1 << 20, 1) % 64, 0);
	assert_null(arena_get(a, SIZE_MAX / 2, 8));
	mem_fail_at(1);
	assert_null(arena_get(a, 1, 1));
	mem_fail_at(0);
	assert_non_null(arena_get(a, 1, 1));
	arena_free(a);
}

/* Names from files may hold anything; messages are one line of valid UTF-8. */
static void errors_are_printable(void **state)
{
	static const struct {
		const char *name, *shown;
	} cases[] = {
		{ "a\nb\x7f", "a b?" },                          /* controls */
		{ "\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80", "\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x98\x80" },
		{ "\xc2\x9b" "31m", "??31m" },                  /* a terminal's control as a character */
		{ "\xff\x80 \xc3", "?? ?" },                    /* no character, half a character */
		{ "\xc0\xaf \xe0\x80\xaf \xed\xa0\x80", "?? ??? ???" }, /* too long, a surrogate */
		{ "\xf4\x90\x80\x80", "????" },                 /* beyond Unicode */
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_error e = { 0 };

		err_node(&e, fail(&e, LINNET_EMODEL, "%s", cases[i].name), cases[i].name, "Op");
		assert_string_equal(e.message, cases[i].shown);
		assert_string_equal(e.node, cases[i].shown);
	}
}

static void errors_keep_the_first(void **state)
{
	struct linnet_error e = { 0 };
	char line[256];

	(void)state;
	assert_int_equal(fail(&e, LINNET_ESHAPE, "first %d", 1), LINNET_ESHAPE);
	fail(&e, LINNET_EMEM, "second");
	err_node(&e, LINNET_ESHAPE, "attn/qk", "MatMul");
	err_file(&e, LINNET_ESHAPE, "model.onnx");
	assert_string_equal(linnet_error_line(&e, line, sizeof line),
	                    "model.onnx: node \"attn/qk\" (MatMul): first 1");
}

/* Every code of the narrow floats survives the way to double and back; spot values are from the formats' papers. */
static void narrow_floats(void **state)
{
	static const struct { enum dtype t; uint8_t bits; double v; } spot[] = {
		{ DT_FLOAT8E4M3FN, 0x7e, 448 },      { DT_FLOAT8E4M3FN, 0x01, 0x1p-9 },
		{ DT_FLOAT8E4M3FNUZ, 0x7f, 240 },    { DT_FLOAT8E4M3FNUZ, 0x01, 0x1p-10 },
		{ DT_FLOAT8E5M2, 0x7b, 57344 },      { DT_FLOAT8E5M2, 0x01, 0x1p-16 },
		{ DT_FLOAT8E5M2FNUZ, 0x7f, 57344 },  { DT_FLOAT8E5M2FNUZ, 0x01, 0x1p-17 },
		{ DT_FLOAT4E2M1, 0x7, 6 },           { DT_FLOAT4E2M1, 0x1, 0.5 },
		{ DT_FLOAT6E2M3, 0x1f, 7.5 },        { DT_FLOAT6E3M2, 0x1f, 28 },
		{ DT_FLOAT8E8M0, 0x7f, 1 },          { DT_FLOAT8E8M0, 0x00, 0x1p-127 },
	};
	static const enum dtype all[] = { DT_FLOAT8E4M3FN, DT_FLOAT8E4M3FNUZ, DT_FLOAT8E5M2, DT_FLOAT8E5M2FNUZ,
	                                  DT_FLOAT4E2M1, DT_FLOAT6E2M3, DT_FLOAT6E3M2, DT_FLOAT8E8M0 };

	(void)state;
	for (size_t i = 0; i < sizeof spot / sizeof *spot; i++) {
		assert_true(narrow_to_double(spot[i].t, spot[i].bits) == spot[i].v);
		assert_int_equal(narrow_from_double(spot[i].t, spot[i].v, true), spot[i].bits);
	}
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		for (unsigned b = 0; b < 1u << dtype_bits(all[i]); b++) {
			double v = narrow_to_double(all[i], (uint8_t)b);

			if (!isnan(v))
				assert_int_equal(narrow_from_double(all[i], v, false), b);
		}
	assert_int_equal(narrow_from_double(DT_FLOAT8E4M3FN, 1000, true), 0x7e);
	assert_int_equal(narrow_from_double(DT_FLOAT8E4M3FN, 1000, false), 0x7f);
	assert_int_equal(narrow_from_double(DT_FLOAT8E5M2, 1e6, false), 0x7c);
	assert_int_equal(narrow_from_double(DT_FLOAT4E2M1, NAN, true), 0x8);
}

static void sixteen_bits(void **state)
{
	(void)state;
	for (unsigned h = 0; h < 0x10000; h++) {
		double v = half_to_double((uint16_t)h), w = bfloat_to_double((uint16_t)h);

		if (!isnan(v))
			assert_int_equal(half_from_double(v), h);
		if (!isnan(w))
			assert_int_equal(bfloat_from_double(w), h);
	}
	assert_int_equal(half_from_double(65504), 0x7bff);
	assert_int_equal(half_from_double(65520), 0x7c00);
	assert_int_equal(half_from_double(65519.99), 0x7bff);
	assert_int_equal(half_from_double(1 + 0x1p-11), 0x3c00);           /* tie to even */
	assert_int_equal(half_from_double(1 + 0x1p-11 + 0x1p-30), 0x3c01);
	assert_int_equal(half_from_double(0x1p-25), 0);
	assert_int_equal(half_from_double(0x1.8p-25), 1);
}

static void packed_integers(void **state)
{
	uint8_t b[2] = { 0, 0 };

	(void)state;
	dtype_put_int(DT_INT4, b, 0, -3);
	dtype_put_int(DT_INT4, b, 1, 7);
	dtype_put_int(DT_INT4, b, 2, -8);
	assert_int_equal(b[0], 0x7d);
	assert_int_equal(dtype_get_int(DT_INT4, b, 0), -3);
	assert_int_equal(dtype_get_int(DT_INT4, b, 1), 7);
	assert_int_equal(dtype_get_int(DT_INT4, b, 2), -8);
	assert_int_equal(dtype_bytes(DT_INT4, 3), 2);
	assert_int_equal(dtype_bytes(DT_UINT2, 5), 2);
	assert_true(dtype_bytes(DT_DOUBLE, UINT64_MAX / 2) == SIZE_MAX);
}

static void maps_grow(void **state)
{
	struct arena *a = arena_new();
	struct map m;
	uint32_t v;

	(void)state;
	map_init(&m, a);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(map_put(&m, arena_fmt(a, "k%u", i), i), 0);
	for (uint32_t i = 0; i < 1000; i++) {
		assert_true(map_get(&m, arena_fmt(a, "k%u", i), &v));
		assert_int_equal(v, i);
	}
	assert_false(map_get(&m, "absent", &v));
	arena_free(a);
}

static void maps_follow_numbers(void **state)
{
	enum { N = 1000 };
	struct arena *a = arena_new();
	struct map m;
	uint32_t to[N], v;

	(void)state;
	map_init(&m, a);
	map_renumber(&m, to);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(map_put(&m, arena_fmt(a, "k%u", i), i), 0);
	for (uint32_t i = 0; i < N; i++)
		to[i] = i % 3 ? N - i : 0;
	map_renumber(&m, to);
	assert_int_equal(m.n, N - (N + 2) / 3);
	for (uint32_t i = 0; i < N; i++) {
		const char *key = arena_fmt(a, "k%u", i);

		assert_int_equal(map_get(&m, key, &v), i % 3 != 0);
		assert_true(!(i % 3) || v == N - i);
		assert_int_equal(map_put(&m, key, i), 0);
	}
	assert_int_equal(m.n, N);
	arena_free(a);
}

static void numbers_are_kept(void **state)
{
	struct arena *a = arena_new();
	struct idmap m = { .a = a };
	uint32_t x[1000];

	(void)state;
	assert_null(idmap_get(&m, 7));
	for (uint32_t i = 1; i < 1000; i++)
		assert_int_equal(idmap_put(&m, i * 4096, &x[i]), 0);
	assert_int_equal(idmap_put(&m, 4096, &x[0]), 0);
	assert_int_equal(m.n, 999);
	for (uint32_t i = 2; i < 1000; i++)
		assert_ptr_equal(idmap_get(&m, i * 4096), &x[i]);
	assert_ptr_equal(idmap_get(&m, 4096), &x[0]);
	assert_null(idmap_get(&m, 1));
	assert_null(idmap_get(&m, 0));
	arena_free(a);
}

static void tensor_sizes_are_bounded(void **state)
{
	struct linnet_error e = { 0 };
	int64_t n;
	size_t bytes;

	(void)state;
	assert_int_equal(tensor_size(DT_FLOAT, 2, (int64_t[]){ 3, 5 }, 0, &n, &bytes, &e), LINNET_OK);
	assert_int_equal(n, 15);
	assert_int_equal(bytes, 60);
	assert_int_equal(tensor_size(DT_FLOAT, 3, (int64_t[]){ INT64_MAX, INT64_MAX, 2 }, 0, &n, &bytes, &e), LINNET_ELIMIT);
	err_clear(&e);
	assert_int_equal(tensor_size(DT_FLOAT, 1, (int64_t[]){ -1 }, 0, &n, &bytes, &e), LINNET_ESHAPE);
	assert_string_equal(e.message, "length 0 is -1; it must not be negative");
}

/* ---- Threads ---- */

enum { PIECES = 300 };

static void count_piece(void *ctx, int64_t i)
{
	((int *)ctx)[i]++;
}

/* Every piece once, whatever the number of threads and however often. */
static int count_wrong(int threads, int jobs)
{
	int wrong = 0;

	for (int k = 0; k < jobs; k++) {
		int count[PIECES] = { 0 }, n = k % (PIECES + 1);

		parallel_for(threads, n, count_piece, count);
		for (int i = 0; i < PIECES; i++)
			wrong += count[i] != (i < n);
	}
	return wrong;
}

static void nested_piece(void *ctx, int64_t i)
{
	((int *)ctx)[i] = count_wrong(3, 10);
}

static void *other_caller(void *ctx)
{
	*(int *)ctx = count_wrong(2, 500);
	return NULL;
}

static void pieces_run_once(void **state)
{
	int wrong[PIECES] = { 0 }, there = -1, status;
	pthread_t other;
	pid_t child;

	(void)state;
	for (int threads = 0; threads < 6; threads++)
		assert_int_equal(count_wrong(threads, 400), 0);
	parallel_for(4, 20, nested_piece, wrong); /* a job inside a job */
	for (int i = 0; i < 20; i++)
		assert_int_equal(wrong[i], 0);
	assert_int_equal(pthread_create(&other, NULL, other_caller, &there), 0); /* two callers at a time */
	assert_int_equal(count_wrong(3, 500), 0);
	pthread_join(other, NULL);
	assert_int_equal(there, 0);
	child = fork(); /* which has none of the parent's threads */
	assert_true(child >= 0);
	if (!child)
		_exit(count_wrong(3, 50) != 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(arena_alignment_and_failure), cmocka_unit_test(errors_keep_the_first),
		cmocka_unit_test(errors_are_printable),
		cmocka_unit_test(narrow_floats),               cmocka_unit_test(sixteen_bits),
		cmocka_unit_test(packed_integers),             cmocka_unit_test(maps_grow), cmocka_unit_test(maps_follow_numbers), cmocka_unit_test(numbers_are_kept),
		cmocka_unit_test(tensor_sizes_are_bounded),   cmocka_unit_test(pieces_run_once),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
