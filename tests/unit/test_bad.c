/* Every model of corpus/bad is refused, with the code and the words its manifest says, and nothing leaks. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "graph/graph.h"

#define FOLDER "corpus/bad/"

static enum linnet_code open_model(const char *path, struct linnet_error *e)
{
	const struct linnet_limits limits = { .max_nodes = 10000 };
	struct linnet_model *m = model_new(&limits, e);
	enum linnet_code code;

	assert_non_null(m);
	code = proto_load(m, path, e);
	if (!code)
		code = graph_import(m, e);
	if (!code)
		code = err_file(e, graph_infer(m->graph, e), path);
	if (!code)
		code = err_file(e, graph_verify(m->graph, e), path);
	model_free(m);
	return code;
}

static void refused(void **state)
{
	FILE *f = fopen(FOLDER "manifest.txt", "r");
	char line[512];
	int n = 0, wrong = 0;

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		char name[128], code[32], path[256], got[900];
		struct linnet_error e = { 0 };
		int says;

		line[strcspn(line, "\n")] = '\0';
		assert_int_equal(sscanf(line, "%127s %31s%n", name, code, &says), 2);
		if (line[says] == ' ')
			says++;
		snprintf(path, sizeof path, FOLDER "%s", name);
		open_model(path, &e);
		linnet_error_line(&e, got, sizeof got);
		n++;
		if (strcmp(linnet_code_name(e.code), code) || !strstr(got, line + says) || strncmp(got, path, strlen(path))) {
			print_error("%s\n\texpected %s %s\n\tgot      %s %s\n", name, code, line + says, linnet_code_name(e.code), got);
			wrong++;
		}
	}
	fclose(f);
	assert_true(n >= 60);
	assert_int_equal(wrong, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(refused) };

	return cmocka_run_group_tests_name("bad", tests, NULL, NULL);
}
