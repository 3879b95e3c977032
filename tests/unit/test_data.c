/* runtime/npy.c, zip.c, data.c: tensors in files. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/data.h"

static const struct {
	const char *file;
	enum dtype dt;
	int rank;
	int64_t d[3];
	double v[6];
} numbers[] = {
	{ "float.npy", DT_FLOAT, 2, { 2, 3 }, { 0.25, 0.5, 0.75, 1, 1.25, 1.5 } },
	{ "double_fortran.npy", DT_DOUBLE, 2, { 2, 3 }, { 1, 2, 3, 4, 5, 6 } },
	{ "int32_big.npy", DT_INT32, 2, { 2, 3 }, { -70000, -140000, -210000, -280000, -350000, -420000 } },
	{ "half_fortran_big.npy", DT_FLOAT16, 2, { 2, 3 }, { 0.125, 0.25, 0.375, 0.5, 0.625, 0.75 } },
	{ "uint64.npy", DT_UINT64, 1, { 2 }, { 0, 18446744073709551615.0 } },
	{ "int64_scalar.npy", DT_INT64, 0, { 0 }, { -5 } },
	{ "bool.npy", DT_BOOL, 1, { 3 }, { 1, 0, 1 } },
	{ "int8_empty.npy", DT_INT8, 3, { 2, 0, 3 }, { 0 } },
	{ "bfloat16.npy", DT_BFLOAT16, 1, { 2 }, { 1.5, -2 } },
	{ "float8_e5m2.npy", DT_FLOAT8E5M2, 1, { 2 }, { 1.5, -2 } },
	{ "named.pb", DT_FLOAT, 2, { 2, 3 }, { 1, 2, 3, 4, 5, 6 } },
};

static void load(const char *file, enum dtype want, struct arena *a, struct named_tensor **list, int *n)
{
	struct linnet_error e = { 0 };
	char path[100], line[900];

	snprintf(path, sizeof path, "corpus/data/%s", file);
	if (data_load(path, want, NULL, a, list, n, &e))
		print_error("%s\n", linnet_error_line(&e, line, sizeof line));
	assert_int_equal(e.code, LINNET_OK);
}

static void numpy_arrays_are_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		struct arena *a = arena_new();
		struct named_tensor *list;
		const struct tensor *t;
		int n;

		load(numbers[i].file, DT_UNDEFINED, a, &list, &n);
		assert_int_equal(n, 1);
		assert_string_equal(list->name, strstr(numbers[i].file, ".pb") ? "x" : "");
		t = list->t;
		if (t->dt != numbers[i].dt || t->rank != numbers[i].rank)
			print_error("%s: %s of rank %d\n", numbers[i].file, dtype_name(t->dt), t->rank);
		assert_int_equal(t->dt, numbers[i].dt);
		assert_int_equal(t->rank, numbers[i].rank);
		for (int k = 0; k < t->rank; k++)
			assert_int_equal(t->d[k], numbers[i].d[k]);
		for (int64_t k = 0; k < t->n; k++)
			assert_true(tensor_get(t, k) == numbers[i].v[k]);
		arena_free(a);
	}
}

static void complex_numbers_and_void(void **state)
{
	struct arena *a = arena_new();
	struct named_tensor *list;
	int n;

	(void)state;
	load("complex_big.npy", DT_UNDEFINED, a, &list, &n);
	assert_int_equal(list->t->dt, DT_COMPLEX64);
	assert_memory_equal(list->t->data, ((const float[]){ 1, 2, -3, -4 }), 16);
	load("void1.npy", DT_FLOAT8E4M3FN, a, &list, &n);
	assert_int_equal(list->t->dt, DT_FLOAT8E4M3FN);
	assert_true(tensor_get(list->t, 0) == 1.5 && tensor_get(list->t, 1) == -2);
	arena_free(a);
}

static void strings_are_read(void **state)
{
	static const char *const want[][4] = { { "ab", "", "xyz" }, { "ä", "", "日本", "x𝄞" }, { "ä", "", "日本", "x𝄞" } };
	static const char *const files[] = { "bytes.npy", "text.npy", "text_big.npy" };

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct arena *a = arena_new();
		struct named_tensor *list;
		int n;

		load(files[i], DT_UNDEFINED, a, &list, &n);
		assert_int_equal(list->t->dt, DT_STRING);
		assert_int_equal(list->t->n, i ? 4 : 3);
		for (int k = 0; k < list->t->n; k++) {
			const struct text *s = (const struct text *)list->t->data + k;

			assert_int_equal(s->n, strlen(want[i][k]));
			assert_memory_equal(s->p, want[i][k], s->n);
		}
		arena_free(a);
	}
}

static void archives_are_read(void **state)
{
	struct arena *a = arena_new();
	struct named_tensor *list;
	int n;

	(void)state;
	load("stored.npz", DT_UNDEFINED, a, &list, &n);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].name, "x");
	assert_true(tensor_get(list[0].t, 5) == 6);
	assert_string_equal(list[1].name, "y");
	assert_int_equal(tensor_get_int(list[1].t, 1), 8);
	load("deflated.npz", DT_UNDEFINED, a, &list, &n);
	assert_int_equal(n, 2);
	assert_string_equal(list[0].name, "a/b");
	assert_int_equal(list[0].t->n, 1000);
	assert_int_equal(list[1].t->dt, DT_INT64);
	arena_free(a);
}

static const struct {
	const char *file;
	enum linnet_code code;
	const char *line;
} refused[] = {
	{ "object.npy", LINNET_EUNSUPPORTED, "the array holds pickled Python objects" },
	{ "record.npy", LINNET_EUNSUPPORTED, "the array holds records" },
	{ "date.npy", LINNET_EUNSUPPORTED, "elements of type \"<M8[s]\" are not supported" },
	{ "rank9.npy", LINNET_EUNSUPPORTED, "the array has more than 8 dimensions" },
	{ "void1.npy", LINNET_EUNSUPPORTED, "elements of type \"<V1\" are not supported" },
};

static void the_rest_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		struct arena *a = arena_new();
		struct linnet_error e = { 0 };
		struct named_tensor *list;
		char path[100], line[900], want[900];
		int n;

		snprintf(path, sizeof path, "corpus/data/%s", refused[i].file);
		snprintf(want, sizeof want, "%s: %s", path, refused[i].line);
		assert_int_equal(data_load(path, DT_UNDEFINED, NULL, a, &list, &n, &e), refused[i].code);
		assert_string_equal(linnet_error_line(&e, line, sizeof line), want);
		arena_free(a);
	}
}

/* ---- Damage ---- */

static unsigned char *slurp(const char *file, size_t *n)
{
	unsigned char *p = malloc(1000);
	char path[100];
	FILE *f;

	snprintf(path, sizeof path, "corpus/data/%s", file);
	f = fopen(path, "rb");
	*n = fread(p, 1, 1000, f);
	fclose(f);
	return p;
}

static enum linnet_code parse_any(const unsigned char *p, size_t n, struct linnet_error *e)
{
	struct linnet_limits l = { .size = sizeof l, .max_elements = 1 << 20, .max_bytes = 1 << 20 };
	struct arena *a = arena_new();
	unsigned char *exact = malloc(n ? n : 1); /* so that the sanitizer sees the end */
	enum linnet_code code = LINNET_OK;
	struct zip_member *m;
	struct tensor *t;
	int count;

	memcpy(exact, p, n);
	if (n >= 2 && p[0] == 'P') {
		code = zip_list((struct bytes){ exact, n }, a, &m, &count, e);
		for (int i = 0; !code && i < count; i++) {
			struct bytes b;

			code = zip_read((struct bytes){ exact, n }, &m[i], 1 << 20, a, &b, e);
			if (!code)
				code = npy_parse(b, DT_UNDEFINED, &l, a, &t, e);
		}
	} else {
		code = npy_parse((struct bytes){ exact, n }, DT_UNDEFINED, &l, a, &t, e);
	}
	arena_free(a);
	free(exact);
	return code;
}

static void damage_is_survived(void **state)
{
	static const char *const files[] = { "half_fortran_big.npy", "uint64.npy", "text_big.npy", "stored.npz", "deflated.npz" };

	(void)state;
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		size_t n;
		unsigned char *p = slurp(files[i], &n);

		assert_int_equal(parse_any(p, n, NULL), LINNET_OK);
		for (size_t k = 0; k < n; k++) {
			unsigned char was = p[k];

			assert_int_not_equal(parse_any(p, k, NULL), LINNET_OK); /* cut off */
			for (int v = 0; v < 4; v++) {
				p[k] = (unsigned char[]){ 0, 0xff, (unsigned char)(was ^ 1), '9' }[v];
				parse_any(p, n, NULL);
			}
			p[k] = was;
		}
		free(p);
	}
}

/* Overwrite bytes at a place, which counts from the end when it is negative. */
static void check_damage(const char *file, long at, const void *put, size_t size, enum linnet_code code, const char *message)
{
	struct linnet_error e = { 0 };
	size_t n;
	unsigned char *p = slurp(file, &n);

	memcpy(p + (at < 0 ? (long)n + at : at), put, size);
	assert_int_equal(parse_any(p, n, &e), code);
	assert_string_equal(e.message, message);
	free(p);
}

static void damage_is_told(void **state)
{
	struct linnet_error e = { 0 };
	size_t n;
	unsigned char *p = slurp("float.npy", &n);

	(void)state;
	assert_int_equal(parse_any(p, n - 4, &e), LINNET_EFORMAT);
	assert_string_equal(e.message, "the array has 6 elements of 4 bytes; the file has 20 bytes of data");
	free(p);
	check_damage("bool.npy", 130, "\7", 1, LINNET_EFORMAT, "element 2 is 7, which is no bool");
	check_damage("float.npy", 6, "\4", 1, LINNET_EUNSUPPORTED, "version 4 of the format; 1 to 3 are supported");
	check_damage("float.npy", 10, "[", 1, LINNET_EFORMAT,
	             "the array's header is not a dict of descr, fortran_order and shape");
	check_damage("float.npy", 8, "\xff\xff", 2, LINNET_EFORMAT, "the array's header is cut off");
	check_damage("text_big.npy", 128, "\0\0\xd8\0", 4, LINNET_EFORMAT, "a string holds 0000d800, which is no character");
	check_damage("stored.npz", 200, "\x55", 1, LINNET_EFORMAT, "member \"x.npy\" does not have its checksum");
	check_damage("stored.npz", -12, "\xff\xff", 2, LINNET_EFORMAT, "the archive is too short for 65535 members");
}

/* ---- Writing ---- */

static void written_arrays_are_read_back(void **state)
{
	char path[] = "/tmp/linnet-data-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	for (int dt = 1; dt < DT_COUNT; dt++)
		for (int rank = 0; rank < 3; rank++) {
			const int64_t d[2] = { 3, 5 };
			struct arena *a = arena_new();
			struct named_tensor *list;
			struct tensor *t;
			int n;

			assert_int_equal(tensor_new(a, (enum dtype)dt, rank, d, &t, NULL), LINNET_OK);
			for (int64_t i = 0; i < t->n; i++)
				if (dt == DT_STRING)
					((struct text *)t->data)[i] = (struct text){ &"äb𝄞c"[i % 2 ? 0 : 2], i % 2 ? 8 : 1 };
				else
					tensor_put(t, i, dtype_class((enum dtype)dt) == CLASS_FLOAT ? (double)(i % 4) / 2 : (double)(i % 2));
			assert_int_equal(npy_save(path, t, NULL), LINNET_OK);
			assert_int_equal(data_load(path, DT_UNDEFINED, NULL, a, &list, &n, NULL), LINNET_OK);
			if (!tensor_same(t, list->t))
				print_error("%s\n", dtype_name((enum dtype)dt));
			assert_true(tensor_same(t, list->t));
			arena_free(a);
		}
	unlink(path);
}

/* Byte for byte what NumPy writes. */
static void written_as_numpy_writes(void **state)
{
	static const char *const files[] = { "float.npy", "bool.npy", "int8_empty.npy", "bytes.npy", "text.npy" };
	char path[] = "/tmp/linnet-data-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		struct arena *a = arena_new();
		struct named_tensor *list;
		unsigned char found[1000], *want;
		size_t nwant, nfound;
		FILE *f;
		int n;

		load(files[i], DT_UNDEFINED, a, &list, &n);
		assert_int_equal(npy_save(path, list->t, NULL), LINNET_OK);
		f = fopen(path, "rb");
		nfound = fread(found, 1, sizeof found, f);
		fclose(f);
		want = slurp(files[i], &nwant);
		if (!strcmp(files[i], "bytes.npy")) { /* bytes that are UTF-8 become text */
			assert_memory_equal(found + 10, "{'descr': '<U3', 'fortran_order': False, 'shape': (3,), }", 57);
		} else {
			assert_int_equal(nfound, nwant);
			assert_memory_equal(found, want, nwant);
		}
		free(want);
		arena_free(a);
	}
	unlink(path);
}

static void bytes_stay_bytes(void **state)
{
	char path[] = "/tmp/linnet-data-XXXXXX";
	const struct text s[] = { { "\xff\xfe", 2 }, { "a", 1 } };
	struct arena *a = arena_new();
	struct named_tensor *list;
	struct tensor *t;
	int n, fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(tensor_wrap(a, DT_STRING, 1, (const int64_t[]){ 2 }, s, &t, NULL), LINNET_OK);
	assert_int_equal(npy_save(path, t, NULL), LINNET_OK);
	assert_int_equal(data_load(path, DT_UNDEFINED, NULL, a, &list, &n, NULL), LINNET_OK);
	assert_true(tensor_same(t, list->t));
	arena_free(a);
	unlink(path);
}

static void paths_are_told(void **state)
{
	struct arena *a = arena_new();
	struct linnet_error e = { 0 };
	struct named_tensor *list;
	struct tensor *t;
	int n;

	(void)state;
	assert_int_equal(data_load("/nowhere/x.npy", DT_UNDEFINED, NULL, a, &list, &n, &e), LINNET_EIO);
	assert_string_equal(e.file, "/nowhere/x.npy");
	e = (struct linnet_error){ 0 };
	assert_int_equal(tensor_new(a, DT_FLOAT, 0, NULL, &t, NULL), LINNET_OK);
	assert_int_equal(npy_save("/nowhere/x.npy", t, &e), LINNET_EIO);
	assert_string_equal(e.file, "/nowhere/x.npy");
	arena_free(a);
}

static void memory_may_end_anywhere(void **state)
{
	static const char *const files[] = { "text_big.npy", "half_fortran_big.npy", "deflated.npz", "named.pb" };
	char path[] = "/tmp/linnet-data-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		enum linnet_code code = LINNET_EMEM;
		uint64_t n;

		for (n = 1; code; n++) {
			struct arena *a = arena_new();
			struct named_tensor *list;
			char from[100];
			int count;

			snprintf(from, sizeof from, "corpus/data/%s", files[i]);
			mem_fail_at(n);
			code = data_load(from, DT_UNDEFINED, NULL, a, &list, &count, NULL);
			if (!code)
				code = npy_save(path, list->t, NULL);
			mem_fail_at(0);
			assert_true(code == LINNET_OK || code == LINNET_EMEM);
			arena_free(a);
		}
		assert_true(n > 5);
	}
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numpy_arrays_are_read),
		cmocka_unit_test(complex_numbers_and_void),
		cmocka_unit_test(strings_are_read),
		cmocka_unit_test(archives_are_read),
		cmocka_unit_test(the_rest_is_refused),
		cmocka_unit_test(damage_is_survived),
		cmocka_unit_test(damage_is_told),
		cmocka_unit_test(written_arrays_are_read_back),
		cmocka_unit_test(written_as_numpy_writes),
		cmocka_unit_test(bytes_stay_bytes),
		cmocka_unit_test(paths_are_told),
		cmocka_unit_test(memory_may_end_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
