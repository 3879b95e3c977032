/* linnet run: what a model computes, and how fast. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/inputs.h"
#include "cli/model.h"
#include "graph/pass.h"
#include "ops/base/clock.h"
#include "runtime/data.h"

struct run_cli {
	struct opt_list input, dim;
	const char *data, *output, *kernels;
	int64_t seed, threads, repeat, states;
	bool explain, as_written, profile;
};

/* Time by operator: what passes between two values is put down to the node of the second. */
struct profile {
	double last;
	struct profile_row {
		const char *op;
		double seconds;
		int64_t count;
	} row[256];
	int n;
};

struct run {
	const struct run_cli *opt;
	const char *path;
	struct linnet_model *model;
	struct arena *arena;
	struct plan *plan;
	struct session *session; /* with --states */
	const struct tensor **in;
	struct tensor **out;
	uint32_t *shown, nshown; /* outputs that are no states */
	double *seconds;
	int64_t nseconds;
	struct profile profile;
	struct gen_opt gen;
};

/* ---- Profile ---- */

static int watch(void *ctx, const struct graph *g, value_id v, const struct tensor *t)
{
	struct profile *p = ctx;
	const char *op = g->value[v].kind == VALUE_NODE ? g->node[g->value[v].producer].op->name : "";
	double now = seconds_now();
	int i = 0;

	(void)t;
	while (i < p->n && strcmp(p->row[i].op, op))
		i++;
	if (i == p->n && p->n == (int)(sizeof p->row / sizeof *p->row))
		return 0;
	if (i == p->n)
		p->row[p->n++].op = op;
	p->row[i].seconds += now - p->last;
	p->row[i].count++;
	p->last = seconds_now();
	return 0;
}

static int by_time(const void *a, const void *b)
{
	double x = ((const struct profile_row *)a)->seconds, y = ((const struct profile_row *)b)->seconds;

	return (x < y) - (x > y);
}

static void print_profile(struct profile *p)
{
	double total = 0;
	struct table t;
	char buf[32];

	qsort(p->row, (size_t)p->n, sizeof *p->row, by_time);
	for (int i = 0; i < p->n; i++)
		total += p->row[i].seconds;
	table_init(&t, 4, "lrrr");
	if (!globals.json)
		for (const char *const *h = (const char *const[]){ "operator", "values", "time", "share", NULL }; *h; h++)
			table_add(&t, "%s", *h);
	for (int i = 0; i < p->n; i++) {
		if (globals.json) {
			json_line(json_pack("{s:s, s:I, s:f}", "operator", p->row[i].op, "values", (json_int_t)p->row[i].count, "seconds",
			                    p->row[i].seconds),
			          "profile");
			continue;
		}
		table_add(&t, "%s", p->row[i].op);
		table_add(&t, "%lld", (long long)p->row[i].count);
		table_add(&t, "%s", human_seconds(p->row[i].seconds, buf, sizeof buf));
		table_add(&t, "%.1f%%", total > 0 ? 100 * p->row[i].seconds / total : 0);
	}
	if (!globals.json)
		putchar('\n');
	table_print(&t, stdout, true);
}

/* ---- Results ---- */

static void first_elements(const struct tensor *t, char *buf, size_t size)
{
	size_t at = 0;

	*buf = 0;
	for (int64_t i = 0; i < t->n && i < 4 && at < size; i++) {
		const struct text *s = t->dt == DT_STRING ? (const struct text *)t->data + i : NULL;

		if (s)
			at += (size_t)snprintf(buf + at, size - at, "%s\"%.*s\"", i ? " " : "", (int)(s->n < 24 ? s->n : 24), s->n ? s->p : "");
		else if (dtype_class(t->dt) == CLASS_INT || dtype_class(t->dt) == CLASS_UINT || t->dt == DT_BOOL)
			at += (size_t)snprintf(buf + at, size - at, "%s%lld", i ? " " : "", (long long)tensor_get_int(t, i));
		else if (dtype_class(t->dt) == CLASS_FLOAT)
			at += (size_t)snprintf(buf + at, size - at, "%s%.6g", i ? " " : "", tensor_get(t, i));
	}
	if (t->n > 4 && at + 4 < size)
		snprintf(buf + at, size - at, " ...");
}

static json_t *real(double x)
{
	return isfinite(x) ? json_real(x) : json_null();
}

static void print_tensor(struct table *t, const char *name, const struct tensor *x, struct arena *a)
{
	struct summary s = summarise(x);
	struct shape shape = shape_of(x);
	const char *words = shape_str(NULL, &shape, a);
	char first[200];

	if (globals.json) {
		json_t *d = json_array();

		for (int k = 0; k < x->rank; k++)
			json_array_append_new(d, json_integer(x->d[k]));
		json_line(json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:I, s:I}", "name", name, "dtype", dtype_name(x->dt), "shape", d, "min",
		                    real(s.min), "max", real(s.max), "mean", real(s.mean), "nan", (json_int_t)s.nan, "inf", (json_int_t)s.inf),
		          "output");
		return;
	}
	first_elements(x, first, sizeof first);
	table_add(t, "%s", name);
	table_add(t, "%s%s", dtype_name(x->dt), words ? words : "");
	table_add(t, "%.6g", s.min);
	table_add(t, "%.6g", s.max);
	table_add(t, "%.6g", s.mean);
	table_add(t, "%lld", (long long)s.nan);
	table_add(t, "%lld", (long long)s.inf);
	table_add(t, "%s", first);
}

/* One line for a value, and for each of its first members. */
static void print_value(struct table *t, const char *name, const struct tensor *x, struct arena *a)
{
	enum { MOST = 16 };
	struct type type = { .kind = x->kind, .dt = x->dt, .key = x->key };
	char words[64];

	if (x->kind == KIND_TENSOR) {
		print_tensor(t, name, x, a);
		return;
	}
	kind_str(&type, words, sizeof words);
	if (globals.json) {
		json_line(json_pack("{s:s, s:s, s:I}", "name", name, "type", words, "members", (json_int_t)x->n), "output");
	} else {
		table_add(t, "%s", name);
		table_add(t, "%s", words);
		for (int i = 0; i < 5; i++)
			table_add(t, "%s", "");
		table_add(t, "%lld member%s%s", (long long)x->n, x->n == 1 ? "" : "s", x->n > MOST ? "; the first of them:" : "");
	}
	for (int64_t i = 0; i < x->n && i < MOST; i++) {
		const char *member = arena_fmt(a, "%s[%lld]", name, (long long)i);

		print_value(t, member ? member : name, tensor_member(x, i), a);
	}
}

static void print_outputs(const struct run *r)
{
	static const char *const heads[] = { "output", "type", "min", "max", "mean", "NaN", "inf", "first", NULL };
	const struct graph *g = r->model->graph;
	struct table t;

	table_init(&t, 8, "llrrrrrl");
	for (const char *const *h = heads; *h && !globals.json; h++)
		table_add(&t, "%s", *h);
	for (uint32_t i = 0; i < r->nshown; i++)
		print_value(&t, g->value[g->out[r->shown[i]]].name, r->out[i], r->arena);
	table_print(&t, stdout, true);
}

/* <output>/<name>.npy, or .pb of what is no tensor, with what file names cannot hold turned into '_'. */
static int save_outputs(const struct run *r)
{
	struct linnet_error e = { 0 };

	if (mkdir(r->opt->output, 0777)) {
		struct stat s;

		if (stat(r->opt->output, &s) || !S_ISDIR(s.st_mode)) {
			fprintf(stderr, "linnet: %s: the folder cannot be made\n", r->opt->output);
			return EXIT_INPUT;
		}
	}
	for (uint32_t i = 0; i < r->nshown; i++) {
		char *name = arena_str(r->arena, r->model->graph->value[r->model->graph->out[r->shown[i]]].name), *path;

		for (char *s = name; s && *s; s++)
			*s = *s == '/' ? '_' : *s;
		bool tensor = r->out[i]->kind == KIND_TENSOR;

		path = name ? arena_fmt(r->arena, "%s/%s.%s", r->opt->output, name, tensor ? "npy" : "pb") : NULL;
		if (!path ? fail_mem(&e) : tensor ? npy_save(path, r->out[i], &e) : proto_save_value(path, r->out[i], name, &e))
			return report_error(&e);
	}
	return EXIT_YES;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print_costs(const struct run *r)
{
	const struct plan *p = r->session ? session_plan(r->session) : r->plan;
	int64_t peak = plan_peak_bytes(p), prepared = plan_prepared_bytes(p), n = r->nseconds;
	double lo, mid, hi;
	char a[32], b[32], c[32], d[32], f[32];

	qsort(r->seconds, (size_t)n, sizeof *r->seconds, ascending);
	lo = r->seconds[0];
	hi = r->seconds[n - 1];
	mid = n % 2 ? r->seconds[n / 2] : (r->seconds[n / 2 - 1] + r->seconds[n / 2]) / 2;
	if (globals.json) {
		json_line(json_pack("{s:s, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I}", "file", r->path, "seed", (json_int_t)r->opt->seed, "runs",
		                    (json_int_t)n, "median_seconds", mid, "min_seconds", lo, "max_seconds", hi, "peak_bytes", (json_int_t)peak,
		                    "prepared_bytes", (json_int_t)prepared, "state_bytes",
		                    (json_int_t)(r->session ? session_state_bytes(r->session) : 0)),
		          "run");
		return;
	}
	printf("\nseed %lld; %lld run%s, median %s, %s to %s; activations %s at most, prepared weights %s", (long long)r->opt->seed,
	       (long long)n, n == 1 ? "" : "s", human_seconds(mid, a, sizeof a), human_seconds(lo, b, sizeof b),
	       human_seconds(hi, c, sizeof c), human_bytes(peak, d, sizeof d), human_bytes(prepared, f, sizeof f));
	if (r->session)
		printf(", states %s", human_bytes(session_state_bytes(r->session), a, sizeof a));
	putchar('\n');
}

/* ---- Running ---- */

/* `position` and its like, where states are fed back: counts on with the tokens of the first input that is none. */
static void move_position(const struct run *r, int64_t step)
{
	for (uint32_t i = 0; i < r->model->graph->nin; i++) {
		const char *name = r->model->graph->value[r->model->graph->in[i]].name;
		const struct tensor *t = r->in[i];
		int64_t tokens = 1;

		if (!t || (strcmp(name, "position") && strcmp(name, "position_ids") && strcmp(name, "cache_position")))
			continue;
		for (uint32_t k = 0; k < r->model->graph->nin; k++)
			if (k != i && r->in[k] && r->in[k]->rank > 1 && !dim_is_int(r->model->graph->value[r->model->graph->in[k]].type.shape.d[1])) {
				tokens = r->in[k]->d[1];
				break;
			}
		for (int64_t k = 0; k < t->n; k++)
			dtype_put_int(t->dt, t->data, (size_t)k, step * tokens + (t->rank ? k % t->d[t->rank - 1] : 0));
	}
}

static bool is_state(const struct run *r, const char *name, bool input)
{
	for (int i = 0; r->session && i < session_nstate(r->session); i++)
		if (!strcmp(name, input ? session_pair(r->session, i).input : session_pair(r->session, i).output))
			return true;
	return false;
}

static enum linnet_code run_once(struct run *r, int64_t step, struct linnet_error *e)
{
	const struct graph *g = r->model->graph;
	const struct tensor **in;
	double start;
	uint32_t n = 0;

	TRY_NEW(in, r->arena, g->nin);
	for (uint32_t i = 0; i < g->nin; i++)
		if (!is_state(r, g->value[g->in[i]].name, true))
			in[n++] = r->in[i];
	for (uint32_t i = 0; i < r->nshown; i++) {
		tensor_release(r->out[i]);
		r->out[i] = NULL;
	}
	if (r->session)
		move_position(r, step);
	start = r->profile.last = seconds_now();
	TRY(r->session ? session_run(r->session, in, r->out, e) : plan_run(r->plan, in, r->out, e));
	r->seconds[r->nseconds++] = seconds_now() - start;
	return LINNET_OK;
}

static enum linnet_code prepare(struct run *r, struct linnet_error *e)
{
	const struct run_cli *o = r->opt;
	struct graph *g = r->model->graph;
	struct run_opt run = { .kernels = kernels_named(o->kernels), .threads = (int)o->threads, .seed = (uint64_t)o->seed };

	if (o->profile) {
		run.watch = watch;
		run.watch_ctx = &r->profile;
	}
	if (!o->as_written)
		TRY(pass_run_all(g, NULL, e));
	if (!o->states)
		TRY(plan_new(g, &run, &r->plan, e));
	else
		TRY(session_new(g, &run, NULL, 0, &r->session, e));
	if (o->states && !session_nstate(r->session))
		return fail(e, LINNET_EUSAGE, "the model has no states: no past_X input with a present_X output");
	TRY_NEW(r->out, r->arena, g->nout);
	TRY_NEW(r->shown, r->arena, g->nout);
	TRY_NEW(r->seconds, r->arena, o->repeat * (o->states ? o->states : 1));
	for (uint32_t i = 0; i < g->nout; i++)
		if (!is_state(r, g->value[g->out[i]].name, false))
			r->shown[r->nshown++] = i;
	return LINNET_OK;
}

static enum linnet_code run_all(struct run *r, struct linnet_error *e)
{
	struct rng rng = { .state = (uint64_t)r->opt->seed };
	int64_t steps = r->opt->states ? r->opt->states : 1;

	TRY(gen_inputs(r->model->graph, &r->gen, &rng, r->arena, r->in, e));
	for (int64_t i = 0; i < r->opt->repeat; i++) {
		if (r->session)
			session_reset(r->session);
		for (int64_t k = 0; k < steps; k++) {
			progress("running", i * steps + k, r->opt->repeat * steps);
			TRY(run_once(r, k, e));
		}
	}
	progress_end();
	return LINNET_OK;
}

static int run_model(struct run *r)
{
	struct linnet_error e = { 0 };
	enum linnet_code code;
	int status;

	r->in = NEW(r->arena, r->model->graph->nin, const struct tensor *);
	if (!r->in)
		return EXIT_RESOURCES;
	status = read_inputs(r->model->graph, &r->opt->input, r->opt->data, r->arena, r->in);
	if (!status)
		status = read_dims(r->model->graph, r->path, &r->opt->dim, r->arena, &r->gen);
	if (status)
		return status;
	code = prepare(r, &e);
	if (!code)
		code = run_all(r, &e);
	if (code) {
		err_file(&e, code, r->path);
		return report_error(&e);
	}
	if (r->opt->explain && plan_explain(r->session ? session_plan(r->session) : r->plan, stdout, &e))
		return report_error(&e);
	if (r->opt->output)
		status = save_outputs(r);
	if (!status)
		print_outputs(r);
	if (!status && r->opt->profile)
		print_profile(&r->profile);
	if (!status)
		print_costs(r);
	return status;
}

static int run_run(void *opt, int argc, char **argv)
{
	const struct run_cli *o = opt;
	struct run r = { .opt = o, .path = argv[0], .arena = arena_new() };
	int status;

	(void)argc;
	if (o->repeat < 1 || o->repeat > 1000000 || o->states < 0 || o->states > 1000000 || o->threads < 0) {
		fputs("linnet: --repeat is 1 to 1000000, --states at most 1000000 and --threads not negative\n", stderr);
		arena_free(r.arena);
		return EXIT_USAGE;
	}
	status = r.arena ? open_model(argv[0], &r.model) : EXIT_RESOURCES;
	if (!status)
		status = run_model(&r);
	for (uint32_t i = 0; i < r.nshown; i++)
		tensor_release(r.out[i]);
	session_free(r.session);
	plan_free(r.plan);
	model_free(r.model);
	arena_free(r.arena);
	return status;
}

static const struct run_cli defaults = { .kernels = "fast", .seed = 1, .repeat = 1 };

const struct command run_command = {
	.name = "run",
	.summary = "Run a model and show or save what it computes",
	.operands = "MODEL",
	.details =
		"Inputs that are not given are drawn: floats uniform in [-1, 1), indices of tables in their range, other integers small. A symbolic\n"
		"length that no given input fixes is as --dim says, else 2 for batches (batch..., N, B) and 8 for others.\n"
		"With --states, outputs present_X are fed back as inputs past_X (or past_key_values.X from present.X), which start as zeros; inputs\n"
		"called position count the tokens.",
	.examples = "linnet run model.onnx --dim batch=1 --dim seq=128 --repeat 10\n"
	            "linnet run model.onnx --input x=x.npy --output results\n"
	            "linnet run step.onnx --states 32 --dim sequence=1",
	.opt = (const struct opt[]){
		{ "input", 'i', OPT_LIST, OPT(struct run_cli, input), "NAME=FILE", "an input from an .npy, .npz or .pb file; an .npz may go without NAME=", NULL },
		{ "data", 0, OPT_STRING, OPT(struct run_cli, data), "DIR", "inputs from a folder with input_0.pb, input_1.pb, ...", NULL },
		{ "dim", 0, OPT_LIST, OPT(struct run_cli, dim), "NAME=N", "length of a symbolic dimension", NULL },
		{ "seed", 0, OPT_INT, OPT(struct run_cli, seed), "N", "of drawn inputs and random operators, 1 by default", NULL },
		{ "output", 'o', OPT_STRING, OPT(struct run_cli, output), "DIR", "write each output to DIR/NAME.npy, sequences and the like to .pb", NULL },
		{ "kernels", 'k', OPT_STRING, OPT(struct run_cli, kernels), "WHICH", "kernels to run, fast by default", "reference|fast" },
		{ "threads", 0, OPT_INT, OPT(struct run_cli, threads), "N", "threads, all processors by default", NULL },
		{ "repeat", 'n', OPT_INT, OPT(struct run_cli, repeat), "N", "run so many times for the time it takes", NULL },
		{ "states", 0, OPT_INT, OPT(struct run_cli, states), "N", "run N steps, states fed back", NULL },
		{ "as-written", 0, OPT_FLAG, OPT(struct run_cli, as_written), NULL, "without the exact passes", NULL },
		{ "explain", 0, OPT_FLAG, OPT(struct run_cli, explain), NULL, "the kernel that each node took", NULL },
		{ "profile", 0, OPT_FLAG, OPT(struct run_cli, profile), NULL, "time by operator, all runs together", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = 1,
	.size = sizeof(struct run_cli),
	.defaults = &defaults,
	.run = run_run,
};
