/*
 * How long exact rewrites take beside reading (the file, its nodes, their types: what every command does first), in one process.
 *
 *   rewrite ROUNDS MODEL...
 *
 * Prints a line of JSON for each model: milliseconds of this process, medians over the rounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "graph/rewrite.h"

enum { READING, SIMPLIFY, FUSE, PARTS, MOST_ROUNDS = 100 };

static const char *const part_name[PARTS] = { "reading", "simplify", "fuse" };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static enum linnet_code read_model(const char *path, struct linnet_model **m, struct linnet_error *e)
{
	*m = model_new(NULL, e);
	if (!*m)
		return e->code;
	TRY(proto_load(*m, path, e));
	return graph_import(*m, e);
}

/* One rewrite of a model read anew. */
static enum linnet_code once(const char *path, const struct rewrite_opt *o, double *reading, double *rewriting, struct linnet_error *e)
{
	struct linnet_model *m;
	double start = now();
	enum linnet_code code = read_model(path, &m, e);

	*reading = now() - start;
	start = now();
	if (!code)
		code = rewrite(m, o, e);
	*rewriting = now() - start;
	model_free(m);
	return code;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static enum linnet_code measure(const char *path, int rounds, struct linnet_error *e)
{
	const struct rewrite_opt way[] = { [SIMPLIFY] = { .simplify = true }, [FUSE] = { .fuse = FUSE_ONNX } };
	double ms[PARTS][MOST_ROUNDS];

	for (int r = 0; r < rounds; r++)
		for (int w = SIMPLIFY; w <= FUSE; w++)
			TRY(once(path, &way[w], &ms[READING][r], &ms[w][r], e));
	printf("{\"model\": \"%s\"", path);
	for (int p = 0; p < PARTS; p++) {
		qsort(ms[p], (size_t)rounds, sizeof ms[p][0], ascending);
		printf(", \"%s\": %.3f", part_name[p], ms[p][rounds / 2]);
	}
	printf("}\n");
	return LINNET_OK;
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[1]) : 0;

	if (rounds < 1 || rounds > MOST_ROUNDS) {
		fprintf(stderr, "usage: rewrite ROUNDS MODEL..., 1 to %d rounds\n", MOST_ROUNDS);
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		struct linnet_error e = { 0 };
		char line[1024];

		if (measure(argv[i], rounds, &e)) {
			fprintf(stderr, "rewrite: %s: %s\n", argv[i], linnet_error_line(&e, line, sizeof line));
			return 1;
		}
	}
	return 0;
}
