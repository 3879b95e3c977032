/*
 * The official node tests of corpus/nodes by reference and fast kernels: test_nodes FOLDER [--update | NAME ...]
 *
 * FOLDER holds the unpacked archive. Every case of corpus/nodes/expected.txt must pass; others may, and are counted. --update
 * writes the list anew from what passes. Names alone run these cases and say why they fail.
 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "validate/validate.h"

#define EXPECTED "corpus/nodes/expected.txt"

enum { MAX_CASES = 4000 };

static const char *const groups[] = { "node", "pytorch-converted", "pytorch-operator", "simple" };

static char **args;
static int nargs;

/* ---- One case ---- */

/* Whether all data sets passed, and the first reason why not. */
struct outcome {
	bool passed;
	char why[900];
};

static void judge(void *ctx, const struct case_result *r)
{
	struct outcome *o = ctx;

	if (r->verdict == VERDICT_PASS)
		return;
	if (o->passed)
		linnet_error_line(&r->why, o->why, sizeof o->why);
	o->passed = false;
}

/* By the reference kernels, by the fast ones, and by the fast ones once the model was written and read again. */
static bool run_folder(const char *folder, struct outcome *o)
{
	struct case_opt opt = { .run = { .kernels = KERNELS_REFERENCE, .threads = 1, .seed = 1 } };

	*o = (struct outcome){ .passed = true };
	assert_int_equal(case_run(folder, &opt, judge, o, NULL), LINNET_OK);
	if (!o->passed)
		return false;
	opt.run.kernels = KERNELS_FAST;
	assert_int_equal(case_run(folder, &opt, judge, o, NULL), LINNET_OK);
	if (!o->passed)
		return false;
	opt.written_again = true;
	assert_int_equal(case_run(folder, &opt, judge, o, NULL), LINNET_OK);
	return o->passed;
}

/* ---- The list ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* group/name of every case, sorted */
static size_t list_cases(const char *root, struct arena *a, char **name)
{
	size_t n = 0;

	for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
		DIR *dir = opendir(arena_fmt(a, "%s/%s", root, groups[g]));
		const struct dirent *entry;

		assert_non_null(dir);
		while ((entry = readdir(dir)) != NULL) {
			if (strncmp(entry->d_name, "test_", 5))
				continue;
			assert_true(n < MAX_CASES);
			name[n] = arena_fmt(a, "%s/%s", groups[g], entry->d_name);
			assert_non_null(name[n++]);
		}
		closedir(dir);
	}
	qsort(name, n, sizeof *name, by_name);
	return n;
}

static size_t read_expected(struct arena *a, char **name)
{
	FILE *f = fopen(EXPECTED, "r");
	char line[300];
	size_t n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!*line || *line == '#')
			continue;
		assert_true(n < MAX_CASES);
		name[n] = arena_str(a, line);
		assert_non_null(name[n++]);
	}
	fclose(f);
	return n;
}

static void expected_cases_pass(void **state)
{
	struct arena *a = arena_new();
	static char *name[MAX_CASES], *expected[MAX_CASES], *passed[MAX_CASES];
	size_t n, nexpected, npassed = 0, nfailed = 0, nfound = 0, nother = 0;
	bool update = nargs > 1 && !strcmp(args[1], "--update");

	(void)state;
	assert_non_null(a);
	assert_true(nargs > 0);
	n = list_cases(args[0], a, name);
	nexpected = read_expected(a, expected);
	for (size_t i = 0; i < n; i++) {
		struct outcome o;
		const char *key = name[i];
		bool known = nexpected && bsearch(&key, expected, nexpected, sizeof *expected, by_name);
		bool asked = nargs == 1 || update, ok;

		for (int k = 1; k < nargs; k++)
			asked |= strstr(key, args[k]) != NULL;
		nfound += known;
		if (!asked)
			continue;
		ok = run_folder(arena_fmt(a, "%s/%s", args[0], key), &o);
		if (ok)
			passed[npassed++] = name[i];
		nother += ok && !known;
		if (ok || (!known && nargs == 1))
			continue;
		print_error("%s: %s\n", key, o.why);
		nfailed += known;
	}
	if (update) {
		FILE *f = fopen(EXPECTED, "w");

		assert_non_null(f);
		fprintf(f, "# Cases that must pass; `test_nodes FOLDER --update` writes this list.\n");
		for (size_t i = 0; i < npassed; i++)
			fprintf(f, "%s\n", passed[i]);
		assert_int_equal(fclose(f), 0);
	}
	print_message("%zu of %zu cases pass, %zu of them not yet in " EXPECTED "\n", npassed, n, nother);
	arena_free(a);
	if (!update) {
		assert_int_equal(nfound, nexpected);
		assert_int_equal(nfailed, 0);
	}
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = { cmocka_unit_test(expected_cases_pass) };

	args = argv + 1;
	nargs = argc - 1;
	return cmocka_run_group_tests_name("nodes", tests, NULL, NULL);
}
