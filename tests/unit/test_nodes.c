/*
 * The official node tests of corpus/nodes by the reference kernels: test_nodes FOLDER [--update | NAME ...]
 *
 * FOLDER holds the unpacked archive. Every case of corpus/nodes/expected.txt must pass; others may, and are counted. --update
 * writes the list anew from what passes. Names alone run these cases and say why they fail.
 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/runtime.h"

#define EXPECTED "corpus/nodes/expected.txt"

enum { MAX_IO = 64, MAX_CASES = 4000 };

static const char *const groups[] = { "node", "simple" };

static char **args;
static int nargs;

/* ---- One data set ---- */

static enum linnet_code difference(const struct tensor *got, const struct tensor *want, const char *name, struct linnet_error *e)
{
	bool same = got && got->dt == want->dt && got->rank == want->rank;

	for (int i = 0; same && i < want->rank; i++)
		same = got->d[i] == want->d[i];
	if (!same)
		return fail(e, LINNET_EVALUE, "output %s has another type or shape than expected", name);
	if (want->dt == DT_STRING)
		return tensor_same(got, want) ? LINNET_OK : fail(e, LINNET_EVALUE, "output %s has other strings than expected", name);
	for (int64_t i = 0; i < want->n * (dtype_in(want->dt, COMPLEXES) ? 2 : 1); i++) {
		double x, y;

		if (want->dt == DT_COMPLEX64) {
			x = (double)((const float *)got->data)[i];
			y = (double)((const float *)want->data)[i];
		} else if (want->dt == DT_COMPLEX128) {
			x = ((const double *)got->data)[i];
			y = ((const double *)want->data)[i];
		} else {
			x = tensor_get(got, i);
			y = tensor_get(want, i);
		}
		/* As the official runner: numpy's assert_allclose with rtol 1e-3, atol 1e-7. */
		if (x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= 1e-7 + 1e-3 * fabs(y))
			continue;
		return fail(e, LINNET_EVALUE, "output %s[%lld] is %.9g, expected %.9g", name, (long long)i, x, y);
	}
	return LINNET_OK;
}

static bool exists(const char *path)
{
	FILE *f = fopen(path, "rb");

	if (f)
		fclose(f);
	return f;
}

static enum linnet_code only_tensors(const struct graph *g, const value_id *v, uint32_t n, struct linnet_error *e)
{
	for (uint32_t i = 0; i < n; i++)
		if (g->value[v[i]].type.kind != KIND_TENSOR)
			return fail(e, LINNET_EUNSUPPORTED, "%s is no tensor", g->value[v[i]].name);
	return n > MAX_IO ? fail(e, LINNET_ELIMIT, "more than %d inputs or outputs", MAX_IO) : LINNET_OK;
}

static enum linnet_code run_set(struct linnet_model *m, struct plan *plan, const char *dir, int set, struct linnet_error *e)
{
	const struct graph *g = m->graph;
	struct tensor *in[MAX_IO] = { NULL }, *out[MAX_IO] = { NULL };
	enum linnet_code code;
	const char *name;

	for (uint32_t i = 0; i < g->nin; i++) {
		const char *path = arena_fmt(m->arena, "%s/test_data_set_%d/input_%u.pb", dir, set, i);

		if (exists(path))
			TRY(proto_load_tensor(path, m->arena, &m->limits, &in[i], &name, e));
	}
	code = plan_run(plan, (const struct tensor *const *)in, out, e);
	for (uint32_t i = 0; i < g->nout && !code; i++) {
		const char *path = arena_fmt(m->arena, "%s/test_data_set_%d/output_%u.pb", dir, set, i);
		struct tensor *want;

		if (!exists(path))
			continue;
		code = proto_load_tensor(path, m->arena, &m->limits, &want, &name, e);
		if (!code)
			code = difference(out[i], want, g->value[g->out[i]].name, e);
	}
	for (uint32_t i = 0; i < g->nout; i++)
		tensor_release(out[i]);
	return code;
}

static enum linnet_code run_model(struct linnet_model *m, const char *dir, struct linnet_error *e)
{
	struct run_opt opt = { .kernels = KERNELS_REFERENCE, .threads = 1, .seed = 1 };
	struct plan *plan;
	enum linnet_code code = LINNET_OK;

	TRY(proto_load(m, arena_fmt(m->arena, "%s/model.onnx", dir), e));
	TRY(graph_import(m, e));
	TRY(graph_infer(m->graph, e));
	TRY(only_tensors(m->graph, m->graph->in, m->graph->nin, e));
	TRY(only_tensors(m->graph, m->graph->out, m->graph->nout, e));
	TRY(plan_new(m->graph, &opt, &plan, e));
	for (int set = 0; !code && exists(arena_fmt(m->arena, "%s/test_data_set_%d/output_0.pb", dir, set)); set++)
		code = run_set(m, plan, dir, set, e);
	plan_free(plan);
	return code;
}

static bool run_folder(const char *root, const char *name, struct linnet_error *e)
{
	struct linnet_model *m = model_new(NULL, e);
	enum linnet_code code;

	assert_non_null(m);
	code = run_model(m, arena_fmt(m->arena, "%s/%s", root, name), e);
	model_free(m);
	return !code;
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
		struct linnet_error e = { 0 };
		const char *key = name[i];
		bool known = nexpected && bsearch(&key, expected, nexpected, sizeof *expected, by_name);
		bool asked = nargs == 1 || update, ok;
		char line[800];

		for (int k = 1; k < nargs; k++)
			asked |= strstr(key, args[k]) != NULL;
		nfound += known;
		if (!asked)
			continue;
		ok = run_folder(args[0], key, &e);
		if (ok)
			passed[npassed++] = name[i];
		nother += ok && !known;
		if (ok || (!known && nargs == 1))
			continue;
		print_error("%s: %s\n", key, linnet_error_line(&e, line, sizeof line));
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
