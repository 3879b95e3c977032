/* linnet test: folders in the layout of ONNX's backend tests. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "validate/validate.h"

struct test_cli {
	double rtol, atol;
	const char *kernels;
	int64_t threads, stop_after;
	bool as_written, verbose, written_again, conformance;
};

struct tally {
	const struct test_cli *opt;
	int64_t passed, failed, skipped, folders, done;
	void (*note)(void *ctx, const struct case_result *r); /* instead of a line a case */
	void *page;
};

static void report(void *ctx, const struct case_result *r)
{
	static const char *const word[] = { "passed", "FAILED", "skipped" };
	static const enum style paint[] = { GREEN, RED, YELLOW };
	struct tally *t = ctx;
	char line[1200] = "";

	t->passed += r->verdict == VERDICT_PASS;
	t->failed += r->verdict == VERDICT_FAIL;
	t->skipped += r->verdict == VERDICT_SKIP;
	if (r->verdict != VERDICT_PASS)
		linnet_error_line(&r->why, line, sizeof line);
	if (globals.json) {
		json_line(json_pack("{s:s, s:s, s:s, s:s}", "folder", r->folder, "set", r->set, "verdict", word[r->verdict], "reason", line), "case");
		return;
	}
	if (r->verdict == VERDICT_PASS && !t->opt->verbose)
		return;
	progress_end();
	printf("%s%s%s %s%s%s%s%s\n", style(stdout, paint[r->verdict]), word[r->verdict], style(stdout, RESET), r->folder, *r->set ? "/" : "",
	       r->set, *line ? ": " : "", line);
}

static bool is_case(const char *path)
{
	char name[4096];
	struct stat s;

	snprintf(name, sizeof name, "%s/model.onnx", path);
	return !stat(name, &s);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Run the folder, or the folders in it, in the order of their names. */
static int run_folder(struct tally *t, const char *path, const struct case_opt *o, int depth)
{
	struct linnet_error e = { 0 };
	DIR *d;
	struct dirent *entry;
	char **name = NULL;
	size_t n = 0, cap = 0;
	int status = EXIT_YES;

	if (is_case(path)) {
		progress("testing", ++t->done, 0);
		return case_run(path, o, t->note ? t->note : report, t->note ? t->page : t, &e) ? report_error(&e) : EXIT_YES;
	}
	d = depth < 4 ? opendir(path) : NULL;
	if (!d && depth)
		return EXIT_YES;
	if (!d) {
		fprintf(stderr, "linnet: %s: there is no such folder\n", path);
		return EXIT_INPUT;
	}
	while ((entry = readdir(d)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		if (n == cap) {
			char **more = realloc(name, (cap = cap ? cap * 2 : 64) * sizeof *name);

			if (!more)
				break;
			name = more;
		}
		name[n++] = strdup(entry->d_name);
	}
	closedir(d);
	if (n)
		qsort(name, n, sizeof *name, by_name);
	for (size_t i = 0; i < n; i++) {
		char sub[4096];
		struct stat s;
		int one = EXIT_YES;

		snprintf(sub, sizeof sub, "%s/%s", path, name[i] ? name[i] : "");
		if (!stat(sub, &s) && S_ISDIR(s.st_mode))
			one = run_folder(t, sub, o, depth + 1);
		status = one > status ? one : status;
		free(name[i]);
	}
	free(name);
	return status;
}

/* ---- A page of all cases ---- */

/* A case under one kernel. */
struct conformed {
	char *name;
	enum verdict verdict;
	uint64_t ulp;
	char why[300];
};

struct page {
	struct conformed *line;
	size_t n, cap;
	size_t root; /* characters of the folder asked for */
};

static void note_case(void *ctx, const struct case_result *r)
{
	struct page *p = ctx;
	struct conformed *c = p->n ? &p->line[p->n - 1] : NULL;
	const char *name = r->folder + p->root;

	if (!c || strcmp(c->name, name)) {
		if (p->n == p->cap) {
			struct conformed *more = realloc(p->line, (p->cap = p->cap ? 2 * p->cap : 256) * sizeof *more);

			if (!more)
				return;
			p->line = more;
		}
		c = &p->line[p->n++];
		*c = (struct conformed){ .name = strdup(name), .verdict = VERDICT_PASS };
	}
	c->ulp = r->max_ulp > c->ulp ? r->max_ulp : c->ulp;
	if (r->verdict == VERDICT_PASS || c->verdict == VERDICT_FAIL || !c->name)
		return;
	c->verdict = r->verdict;
	snprintf(c->why, sizeof c->why, "%.299s", r->why.message);
}

static void count_page(const struct page *p, const char *title)
{
	size_t verdict[3] = { 0 }, within[4] = { 0 };

	for (size_t i = 0; i < p->n; i++) {
		const struct conformed *c = &p->line[i];

		verdict[c->verdict]++;
		if (c->verdict == VERDICT_PASS)
			within[c->ulp == 0 ? 0 : c->ulp <= 1 ? 1 : c->ulp <= 16 ? 2 : 3]++;
	}
	printf("| %s | %zu | %zu | %zu | %zu | %zu | %zu | %zu |\n", title, verdict[VERDICT_PASS], verdict[VERDICT_FAIL], verdict[VERDICT_SKIP],
	       within[0], within[1], within[2], within[3]);
}

/* Errors of a few units are given as they are, larger ones as the next power of two: libraries differ by that much. */
static void print_ulp(const struct conformed *c)
{
	uint64_t top = 16;

	if (c->verdict != VERDICT_PASS) {
		printf(" - |");
		return;
	}
	while (top < c->ulp && top < (uint64_t)1 << 62)
		top *= 2;
	printf(c->ulp > 16 ? " <= %llu |" : " %llu |", (unsigned long long)(c->ulp > 16 ? top : c->ulp));
}

static int print_page(int argc, char **argv, struct case_opt *o)
{
	static const char *const word[] = { "passed", "FAILED", "skipped" };
	struct page page[2] = { { .n = 0 } };
	struct tally t = { .note = note_case };
	int status = EXIT_YES;

	o->run.seed = 1;
	for (int k = 0; k < 2; k++) {
		o->run.kernels = k ? KERNELS_FAST : KERNELS_REFERENCE;
		for (int i = 0; i < argc; i++) {
			int one;

			page[k].root = strlen(argv[i]) + (argv[i][strlen(argv[i]) - 1] != '/');
			t.page = &page[k];
			one = run_folder(&t, argv[i], o, 0);
			status = one > status ? one : status;
		}
	}
	progress_end();
	printf("# Conformance\n\nPrinted by `linnet test --conformance FOLDER`. Each case of the official backend tests under the reference and under the fast\n"
	       "kernels: the verdict by the official tolerances (relative 1e-3, absolute 1e-7; all else exactly), and the largest error of its\n"
	       "float outputs in units in the last place (ULP), beyond 16 as a power of two that bounds it.\n\n"
	       "| kernels | passed | failed | skipped | 0 ULP | 1 ULP | up to 16 | more |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
	count_page(&page[0], "reference");
	count_page(&page[1], "fast");
	printf("\n| case | verdict | reference, ULP | fast, ULP | |\n| --- | --- | --- | --- | --- |\n");
	for (size_t i = 0; i < page[0].n && i < page[1].n; i++) {
		const struct conformed *a = &page[0].line[i], *b = &page[1].line[i], *worse = b->verdict == VERDICT_PASS ? a : b;

		printf("| %s | %s |", a->name, word[worse->verdict]);
		print_ulp(a);
		print_ulp(b);
		printf(" %s |\n", worse->verdict == VERDICT_PASS ? "" : worse->why);
		status = worse->verdict == VERDICT_FAIL && !status ? EXIT_NO : status;
	}
	for (int k = 0; k < 2; k++) {
		for (size_t i = 0; i < page[k].n; i++)
			free(page[k].line[i].name);
		free(page[k].line);
	}
	return status;
}

static int test_run(void *opt, int argc, char **argv)
{
	const struct test_cli *cli = opt;
	struct case_opt o = { .rtol = cli->rtol, .atol = cli->atol, .passes = !cli->as_written,
	                      .changes = (uint32_t)(cli->stop_after > 0 ? cli->stop_after : 0) };
	struct tally t = { .opt = cli };
	int status = EXIT_YES;

	o.written_again = cli->written_again;
	o.run.threads = (int)cli->threads;
	if (cli->conformance)
		return print_page(argc, argv, &o);
	o.run.kernels = !strcmp(cli->kernels, "reference") ? KERNELS_REFERENCE : KERNELS_FAST;
	for (int i = 0; i < argc; i++) {
		int one = run_folder(&t, argv[i], &o, 0);

		status = one > status ? one : status;
	}
	progress_end();
	if (globals.json)
		json_line(json_pack("{s:I, s:I, s:I}", "passed", (json_int_t)t.passed, "failed", (json_int_t)t.failed, "skipped",
		                    (json_int_t)t.skipped),
		          "summary");
	else
		printf("%lld passed, %lld failed, %lld skipped\n", (long long)t.passed, (long long)t.failed, (long long)t.skipped);
	return status ? status : t.failed ? EXIT_NO : EXIT_YES;
}

static const struct test_cli defaults = { .rtol = 1e-3, .atol = 1e-7, .kernels = "fast" };

const struct command test_command = {
	.name = "test",
	.summary = "Run folders in the layout of ONNX's backend tests",
	.operands = "FOLDER...",
	.details = "A folder holds model.onnx and test_data_set_*/input_*.pb, output_*.pb; folders of folders are searched.\n"
	           "Every data set that fails or is skipped gets a line; the last line counts.",
	.examples = "linnet test corpus/models\nlinnet test --kernels reference --atol 1e-5 corpus/models",
	.opt = (const struct opt[]){
		{ "kernels", 'k', OPT_STRING, OPT(struct test_cli, kernels), "WHICH", "kernels to run, fast by default", "reference|fast" },
		{ "rtol", 0, OPT_REAL, OPT(struct test_cli, rtol), "X", "relative tolerance, 1e-3 by default", NULL },
		{ "atol", 0, OPT_REAL, OPT(struct test_cli, atol), "X", "absolute tolerance, 1e-7 by default", NULL },
		{ "threads", 0, OPT_INT, OPT(struct test_cli, threads), "N", "threads, all processors by default", NULL },
		{ "as-written", 0, OPT_FLAG, OPT(struct test_cli, as_written), NULL, "without the exact passes", NULL },
		{ "written-again", 0, OPT_FLAG, OPT(struct test_cli, written_again), NULL, "export each model and run what was written", NULL },
		{ "conformance", 0, OPT_FLAG, OPT(struct test_cli, conformance), NULL, "print a page: verdicts and largest errors by both kernels", NULL },
		{ "stop-after", 0, OPT_INT, OPT(struct test_cli, stop_after), "N", "make only the first N changes of the passes, to find a wrong one", NULL },
		{ "verbose", 'v', OPT_FLAG, OPT(struct test_cli, verbose), NULL, "a line for what passes too", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = -1,
	.size = sizeof(struct test_cli),
	.defaults = &defaults,
	.run = test_run,
};
