/*
 * What inference says of whole models: every value has a type, in terms of the inputs' lengths; it agrees with the file's own
 * annotations; and it is what running the model shows.
 *
 * Checks every folder of corpus/models. `test_types FOLDER ...` checks those folders instead and prints all findings.
 */
#include "tests/unit/unit.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/runtime.h"

static char **folders;
static int nfolder;

/* Values whose lengths depend on data, so that they have symbols of their own: folder, start of the name. */
static const char *const data_dependent[][2] = {
	{ "ctl_loop_path", "" }, /* how often the loop runs */
};

struct bound {
	const char *symbol;
	int64_t length;
};

struct check {
	const char *folder;
	struct linnet_model *m;
	struct arena *a; /* of one run */
	struct bound *bound;
	size_t nbound, cap;
	int findings;
	int values, open;
};

static void __attribute__((format(printf, 3, 4))) finding(struct check *c, const struct value *v, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	print_error("%s: %s: %s\n", c->folder, v->name, text);
	c->findings++;
}

static const char *text_of(struct check *c, const struct type *t)
{
	const char *s = shape_str(c->m->dims, &t->shape, c->m->arena);

	return arena_fmt(c->m->arena, "%s%s", dtype_name(t->dt), s ? s : "");
}

/* ---- Without running ---- */

struct search {
	struct linnet_model *m;
	const char *name;
	bool found, all;
};

static void same_name(void *ctx, const char *name)
{
	struct search *s = ctx;

	s->found |= !strcmp(name, s->name);
}

/* Whether a symbol is one of the graph inputs' lengths. */
static void of_an_input(void *ctx, const char *name)
{
	struct search *s = ctx;
	const struct graph *g = s->m->graph;
	struct search one = { .m = s->m, .name = name };

	for (uint32_t i = 0; i < g->nin; i++)
		for (int k = 0; k < g->value[g->in[i]].type.shape.rank; k++)
			dim_symbols(s->m->dims, g->value[g->in[i]].type.shape.d[k], same_name, &one);
	s->all &= one.found;
}

static bool in_inputs_terms(struct check *c, dim d)
{
	struct search s = { .m = c->m, .all = true };

	dim_symbols(c->m->dims, d, of_an_input, &s);
	return s.all;
}

static void check_known(struct check *c, const struct value *v)
{
	const struct type *t = &v->type;
	bool own = false;

	c->values++;
	if (t->dt == DT_UNDEFINED || t->shape.rank < 0)
		finding(c, v, "is %s", text_of(c, t));
	for (int i = 0; i < t->shape.rank; i++)
		own |= !in_inputs_terms(c, t->shape.d[i]);
	c->open += own;
	for (size_t i = 0; own && i < sizeof data_dependent / sizeof *data_dependent; i++)
		if (strstr(c->folder, data_dependent[i][0]) && !strncmp(v->name, data_dependent[i][1], strlen(data_dependent[i][1])))
			own = false;
	if (own)
		finding(c, v, "is %s: not in terms of the inputs", text_of(c, t));
}

/* An annotation that is a number, or an expression of the inputs' lengths, says what was found. A mere name may be any. */
static void check_annotation(struct check *c, const struct graph *g, value_id id)
{
	const struct value *v = &g->value[id];
	struct linnet_error e = { 0 };
	struct type said;
	bool same;

	assert_int_equal(graph_annotation(g, id, &said, &e), LINNET_OK);
	same = (said.dt == DT_UNDEFINED || said.dt == v->type.dt) && (said.shape.rank < 0 || said.shape.rank == v->type.shape.rank);
	for (int i = 0; same && i < said.shape.rank; i++) {
		dim a = said.shape.d[i], b = v->type.shape.d[i];
		const char *text = dim_str(c->m->dims, a, c->m->arena);
		bool name = dim_is_expr(a) && text && !strpbrk(text, " +*/(");

		if (a == DIM_NONE || a == b || name)
			continue;
		same = dim_is_expr(a) && !in_inputs_terms(c, a);
	}
	if (!same)
		finding(c, v, "is %s; the file says %s", text_of(c, &v->type), text_of(c, &said));
}

static void check_graph(struct check *c, const struct graph *g)
{
	for (value_id v = 1; v < g->nvalue; v++) {
		const struct value *x = &g->value[v];

		if (x->kind == VALUE_CONST || (x->kind == VALUE_NODE && (!x->producer || g->node[x->producer].dead)))
			continue;
		check_known(c, x);
		check_annotation(c, g, v);
	}
	for (node_id n = 1; n < g->nnode; n++)
		for (uint32_t i = 0; !g->node[n].dead && i < g->node[n].nattr; i++)
			if (g->node[n].attr[i].kind == ATTR_GRAPH)
				check_graph(c, g->node[n].attr[i].g);
}

/* ---- Against a run ---- */

static dim length_of(void *ctx, const char *symbol)
{
	const struct check *c = ctx;

	for (size_t i = 0; i < c->nbound; i++)
		if (!strcmp(c->bound[i].symbol, symbol))
			return c->bound[i].length;
	return DIM_NONE;
}

/* The length d is n now: compared, or, when d is a symbol not met before, kept. */
static void meet(struct check *c, const struct value *v, dim d, int64_t n)
{
	dim now = dim_eval(c->m->dims, d, length_of, c);
	const char *name = dim_name(c->m->dims, d);

	if (now == DIM_NONE) {
		if (!name || c->nbound == c->cap)
			return;
		c->bound[c->nbound++] = (struct bound){ name, n };
	} else if (now != n) {
		const char *text = dim_str(c->m->dims, d, c->m->arena);

		finding(c, v, "%s is %lld, not %lld", text ? text : "?", (long long)now, (long long)n);
	}
}

static int compare_value(void *ctx, const struct graph *g, value_id id, const struct tensor *t)
{
	const struct value *v = &g->value[id];
	const struct type *said = &v->type;
	struct check *c = ctx;

	if (said->kind != KIND_TENSOR)
		return 0;
	if (said->dt != t->dt || said->shape.rank != t->rank)
		finding(c, v, "is %s, not %s of rank %d", text_of(c, said), dtype_name(t->dt), t->rank);
	/* of what a loop stacks when it never runs, the runtime has no lengths but 0 */
	for (int i = 0; i < t->rank && said->shape.rank == t->rank && t->n; i++)
		meet(c, v, said->shape.d[i], t->d[i]);
	for (int64_t i = 0; said->sym && i < t->n; i++) {
		double n = tensor_get(t, i) * (double)(said->den ? said->den : 1);

		/* a third in float is no third: three of them are rounded to the number they came from */
		if (said->sym[i] != DIM_NONE)
			meet(c, v, said->sym[i], (int64_t)(said->den ? nearbyint(n) : n));
	}
	for (int64_t i = 0; said->value && i < t->n; i++)
		if (t->dt != DT_STRING && dtype_class(t->dt) != CLASS_COMPLEX && dtype_class(t->dt) != CLASS_FLOAT &&
		    tensor_get_int(t, i) != tensor_get_int(said->value, i)) {
			finding(c, v, "element %lld is %lld, not %lld", (long long)i, (long long)tensor_get_int(t, i),
			        (long long)tensor_get_int(said->value, i));
			break;
		}
	return 0;
}

static bool exists(const char *path)
{
	struct stat s;

	return !stat(path, &s);
}

static void check_run(struct check *c, int set)
{
	const struct run_opt opt = { .kernels = KERNELS_REFERENCE, .watch = compare_value, .watch_ctx = c };
	const struct graph *g = c->m->graph;
	struct linnet_error e = { 0 };
	const struct tensor **in = NEW(c->a, g->nin, const struct tensor *);
	struct tensor **out = NEW(c->a, g->nout, struct tensor *);
	struct plan *p;
	char line[900];

	c->nbound = 0;
	c->cap = 10000;
	c->bound = NEW(c->a, c->cap, struct bound);
	for (uint32_t i = 0; i < g->nin; i++) {
		const char *path = arena_fmt(c->a, "%s/test_data_set_%d/input_%u.pb", c->folder, set, i), *name;
		struct tensor *t;

		if (!exists(path))
			continue;
		if (proto_load_tensor(path, c->a, NULL, &t, &name, &e))
			fail_msg("%s", linnet_error_line(&e, line, sizeof line));
		in[i] = t;
		compare_value(c, g, g->in[i], t);
	}
	if (plan_new(g, &opt, &p, &e)) {
		assert_int_equal(e.code, LINNET_EUNSUPPORTED);
		return;
	}
	if (plan_run(p, in, out, &e) && e.code != LINNET_EUNSUPPORTED)
		fail_msg("%s: %s", c->folder, linnet_error_line(&e, line, sizeof line));
	for (uint32_t i = 0; i < g->nout; i++)
		tensor_release(out[i]);
	plan_free(p);
}

static int check_folder(const char *folder)
{
	struct linnet_error e = { 0 };
	struct check c = { .folder = folder, .m = model_new(NULL, &e), .a = arena_new() };
	struct type *before;
	char line[900];

	assert_non_null(c.m);
	assert_non_null(c.a);
	if (proto_load(c.m, arena_fmt(c.a, "%s/model.onnx", folder), &e) || graph_import(c.m, &e))
		fail_msg("%s", linnet_error_line(&e, line, sizeof line));
	check_graph(&c, c.m->graph);
	before = NEW(c.a, c.m->graph->nvalue, struct type);
	for (value_id v = 1; v < c.m->graph->nvalue; v++)
		before[v] = c.m->graph->value[v].type;
	assert_int_equal(graph_infer(c.m->graph, &e), LINNET_OK);
	for (value_id v = 1; v < c.m->graph->nvalue; v++)
		if (memcmp(&before[v], &c.m->graph->value[v].type, sizeof *before))
			finding(&c, &c.m->graph->value[v], "is %s, and %s when inferred again", text_of(&c, &before[v]),
			        text_of(&c, &c.m->graph->value[v].type));
	for (int set = 0; exists(arena_fmt(c.a, "%s/test_data_set_%d", folder, set)); set++) {
		check_run(&c, set);
		arena_reset(c.a);
	}
	if (nfolder)
		print_message("%s: %d values, %d not in terms of the inputs, %d findings\n", folder, c.values, c.open, c.findings);
	model_free(c.m);
	arena_free(c.a);
	return c.findings;
}

static void types_hold(void **state)
{
	DIR *dir = nfolder ? NULL : opendir("corpus/models");
	int findings = 0, n = 0;
	struct dirent *entry;
	char path[600];

	(void)state;
	for (int i = 0; i < nfolder; i++, n++)
		findings += check_folder(folders[i]);
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof path, "corpus/models/%s/model.onnx", entry->d_name);
		if (!exists(path))
			continue;
		snprintf(path, sizeof path, "corpus/models/%s", entry->d_name);
		findings += check_folder(path);
		n++;
	}
	if (dir)
		closedir(dir);
	assert_true(n > 0);
	assert_int_equal(findings, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(types_hold) };

	folders = argv + 1;
	nfolder = argc - 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
