/* Inputs of models from the command line. */
#include "cli/inputs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "graph/rewrite.h"
#include "runtime/data.h"

static int wrong(const char *what, const char *name, const char *why)
{
	fprintf(stderr, "linnet: %s \"%s\" %s\n", what, name, why);
	return EXIT_USAGE;
}

static int find_input(const struct graph *g, const char *name, size_t n)
{
	for (uint32_t i = 0; i < g->nin; i++) {
		const char *s = g->value[g->in[i]].name;

		if (strlen(s) == n && !memcmp(s, name, n))
			return (int)i;
	}
	return -1;
}

/* One --input: in[] gets the file's tensor, or each of an archive's that has an input's name. */
static int read_input(const struct graph *g, const char *word, struct arena *a, const struct tensor **in)
{
	const char *eq = strchr(word, '='), *path = eq ? eq + 1 : word;
	int k = eq ? find_input(g, word, (size_t)(eq - word)) : -1, n, used = 0;
	struct linnet_error e = { 0 };
	struct named_tensor *list;

	if (eq && k < 0)
		return wrong("--input", word, "names no input of the model");
	if (k >= 0 && g->value[g->in[k]].type.kind != KIND_TENSOR) {
		struct tensor *t;

		if (proto_load_value(path, &g->value[g->in[k]].type, a, NULL, &t, NULL, &e))
			return report_error(&e);
		in[k] = t;
		return EXIT_YES;
	}
	if (data_load(path, k >= 0 ? g->value[g->in[k]].type.dt : DT_UNDEFINED, NULL, a, &list, &n, &e))
		return report_error(&e);
	for (int i = 0; i < n; i++) {
		int member = eq ? k : find_input(g, list[i].name, strlen(list[i].name));

		if (member < 0 || (eq && n > 1 && strcmp(list[i].name, g->value[g->in[k]].name)))
			continue;
		in[member] = list[i].t;
		used++;
	}
	return used ? EXIT_YES : wrong("--input", word, "holds no tensor that is called like an input");
}

static int read_folder(const struct graph *g, const char *folder, struct arena *a, const struct tensor **in)
{
	const struct type tensor = { .kind = KIND_TENSOR };

	for (uint32_t i = 0;; i++) {
		const char *path = arena_fmt(a, "%s/input_%u.pb", folder, i), *name = NULL;
		struct linnet_error e = { 0 };
		struct stat s;
		struct tensor *t;
		int k;

		if (!path || stat(path, &s))
			return i ? EXIT_YES : (fprintf(stderr, "linnet: %s: there is no input_0.pb in that folder\n", folder), EXIT_INPUT);
		if (proto_load_value(path, i < g->nin ? &g->value[g->in[i]].type : &tensor, a, NULL, &t, &name, &e)) {
			err_file(&e, e.code, path);
			return report_error(&e);
		}
		k = name ? find_input(g, name, strlen(name)) : -1;
		if (k < 0)
			k = (int)i;
		if (k >= (int)g->nin)
			return wrong("--data", path, "is for no input of the model");
		in[k] = t;
	}
}

int read_inputs(const struct graph *g, const struct opt_list *input, const char *folder, struct arena *a,
                const struct tensor **in)
{
	int status = folder ? read_folder(g, folder, a, in) : EXIT_YES;

	for (int i = 0; i < input->n && !status; i++)
		status = read_input(g, input->v[i], a, in);
	return status;
}

int read_dims(const struct graph *g, const char *path, const struct opt_list *dims, struct arena *a, struct gen_opt *gen)
{
	struct dim_given *list = NEW(a, (size_t)dims->n, struct dim_given);
	struct linnet_error e = { 0 };

	for (int i = 0; i < dims->n; i++) {
		const char *eq = strrchr(dims->v[i], '=');
		char *end = NULL;
		long long n = eq ? strtoll(eq + 1, &end, 10) : -1;

		if (!eq || end == eq + 1 || *end || n < 0)
			return wrong("--dim", dims->v[i], "is not NAME=N");
		if (list)
			list[i] = (struct dim_given){ arena_strn(a, dims->v[i], (size_t)(eq - dims->v[i])), n };
		if (!list || !list[i].name)
			return EXIT_RESOURCES;
		if (graph_has_dim(g, list[i].name, &e)) {
			err_file(&e, e.code, path);
			return report_error(&e);
		}
	}
	gen->dim = list;
	gen->ndim = dims->n;
	return EXIT_YES;
}

enum kernels kernels_named(const char *name)
{
	return !strcmp(name, "reference") ? KERNELS_REFERENCE : KERNELS_FAST;
}

struct summary summarise(const struct tensor *t)
{
	struct summary s = { .min = INFINITY, .max = -INFINITY };
	int64_t n = 0;

	if (t->dt == DT_STRING || dtype_class(t->dt) == CLASS_COMPLEX)
		return (struct summary){ NAN, NAN, NAN, 0, 0 };
	for (int64_t i = 0; i < t->n; i++) {
		double x = tensor_get(t, i);

		s.nan += isnan(x) != 0;
		s.inf += isinf(x) != 0;
		if (isnan(x) || isinf(x))
			continue;
		s.min = fmin(s.min, x);
		s.max = fmax(s.max, x);
		s.mean += x;
		n++;
	}
	if (!n)
		s.min = s.max = NAN;
	s.mean = n ? s.mean / (double)n : (double)NAN;
	return s;
}
