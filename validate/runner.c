/* Recorded cases: a model with inputs and the outputs expected. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "graph/pass.h"
#include "validate/validate.h"

/*
 * Executions that round to 16 bits at different places (a runtime may keep float32 between two operators) differ by some units of the
 * largest element, and so do sums in float32 where they cancel: one unit for each operator that rounds is admitted, up to so many.
 */
enum { MAX_ROUNDINGS = 16 };

struct runner {
	const char *folder;
	const struct case_opt *opt;
	double rtol, atol;
	struct linnet_model *model;
	struct plan *plan;
	struct arena *arena; /* of one data set */
	double unit; /* as rounding() says */
	uint64_t max_ulp; /* of the data set */
};

static bool exists(const char *path)
{
	struct stat s;

	return !stat(path, &s);
}

/* ---- Comparing ---- */

static enum linnet_code compare_strings(const struct tensor *found, const struct tensor *want, const char *name,
                                        struct linnet_error *e)
{
	const struct text *a = found->data, *b = want->data;

	for (int64_t i = 0; i < want->n; i++)
		if (a[i].n != b[i].n || (a[i].n && memcmp(a[i].p, b[i].p, a[i].n)))
			return fail(e, LINNET_EVALUE, "output \"%s\": element %lld is \"%.*s\"; expected \"%.*s\"", name, (long long)i,
			            (int)(a[i].n < 64 ? a[i].n : 64), a[i].p, (int)(b[i].n < 64 ? b[i].n : 64), b[i].p);
	return LINNET_OK;
}

/* NaN prints the same whatever its sign bit. */
static double unsigned_nan(double v)
{
	return isnan(v) ? (double)NAN : v;
}

static enum linnet_code compare_numbers(struct runner *r, const struct tensor *found, const struct tensor *want,
                                        const char *name, struct linnet_error *e)
{
	bool whole = dtype_class(want->dt) == CLASS_INT || dtype_class(want->dt) == CLASS_UINT;
	int64_t n = dtype_class(want->dt) == CLASS_COMPLEX ? 2 * want->n : want->n, wrong = 0, worst = 0;
	double most = -1, rtol = r->rtol, atol = r->atol, top = 0;

	if (want->dt == DT_BFLOAT16 && rtol < 0x1p-6)
		rtol = 0x1p-6; /* two units of the last place, as ONNX's own runner admits */
	for (int64_t i = 0; r->unit > 0 && i < n; i++)
		if (isfinite(tensor_part(want, i)) && fabs(tensor_part(want, i)) > top)
			top = fabs(tensor_part(want, i));
	if (atol < r->unit * top)
		atol = r->unit * top;
	for (int64_t i = 0; i < n; i++) {
		double a = tensor_part(found, i), b = tensor_part(want, i), over;

		if (a == b || (isnan(a) && isnan(b))) {
			if (!whole || tensor_get_int(found, i) == tensor_get_int(want, i))
				continue;
		}
		over = fabs(a - b) - (atol + rtol * fabs(b));
		if (over <= 0)
			continue;
		if (isnan(over) || isinf(over))
			over = HUGE_VAL;
		if (over > most) {
			most = over;
			worst = i;
		}
		wrong++;
	}
	if (!wrong)
		return LINNET_OK;
	return fail(e, LINNET_EVALUE, "output \"%s\": %lld of %lld elements differ, most of all element %lld: %.9g; expected %.9g", name,
	            (long long)wrong, (long long)n, (long long)worst, unsigned_nan(tensor_part(found, worst)),
	            unsigned_nan(tensor_part(want, worst)));
}

/* Half a unit of the last place of a value whose rounding shows in the largest element, else 0: Fourier transforms' sums cancel. */
static double unit_of(const struct graph *g, value_id v)
{
	const struct node *n = &g->node[g->value[v].producer];

	switch (g->value[v].type.dt) {
	case DT_BFLOAT16: return 0x1p-8;
	case DT_FLOAT16: return 0x1p-11;
	case DT_FLOAT: return node_is(n, "DFT") || node_is(n, "STFT") ? 0x1p-24 : 0;
	default: return 0;
	}
}

/* What rounding may add up to in this graph, relative to the largest element; 0 when nothing rounds so. */
static double rounding(const struct graph *g)
{
	double unit = 0;
	int n = 0;

	for (value_id v = 1; v < g->nvalue; v++) {
		double u = g->value[v].kind == VALUE_NODE ? unit_of(g, v) : 0;

		n += u > 0 && n < MAX_ROUNDINGS;
		unit = u > unit ? u : unit;
	}
	return n * unit;
}

static enum linnet_code compare_tensors(struct runner *r, const struct tensor *found, const struct tensor *want,
                                        const char *name, struct linnet_error *e)
{
	struct shape a = shape_of(found), b = shape_of(want);

	if (found->dt != want->dt)
		return fail(e, LINNET_ETYPE, "output \"%s\" is %s; expected %s", name, dtype_name(found->dt), dtype_name(want->dt));
	if (!shape_equal(&a, &b)) {
		const char *sa = shape_str(NULL, &a, r->arena), *sb = shape_str(NULL, &b, r->arena);

		return fail(e, LINNET_ESHAPE, "output \"%s\" is %s; expected %s", name, sa ? sa : "?", sb ? sb : "?");
	}
	for (int64_t i = 0; dtype_class(want->dt) == CLASS_FLOAT && i < want->n; i++) {
		uint64_t u = isnan(tensor_get(found, i)) || isnan(tensor_get(want, i)) ? 0 : ulps_between(found, want, i);

		r->max_ulp = u > r->max_ulp ? u : r->max_ulp;
	}
	return want->dt == DT_STRING ? compare_strings(found, want, name, e) : compare_numbers(r, found, want, name, e);
}

static enum linnet_code compare(struct runner *r, const struct tensor *found, const struct tensor *want, const char *name,
                                struct linnet_error *e)
{
	char a[64], b[64];

	if (found->kind != want->kind || found->key != want->key) {
		struct type ta = { .kind = found->kind, .dt = found->dt, .key = found->key };
		struct type tb = { .kind = want->kind, .dt = want->dt, .key = want->key };

		return fail(e, LINNET_ETYPE, "output \"%s\" is %s; expected %s", name, kind_str(&ta, a, sizeof a), kind_str(&tb, b, sizeof b));
	}
	if (want->kind == KIND_TENSOR)
		return compare_tensors(r, found, want, name, e);
	if (found->n != want->n)
		return fail(e, LINNET_ESHAPE, "output \"%s\" has %lld members; expected %lld", name, (long long)found->n, (long long)want->n);
	for (int64_t i = 0; i < want->n; i++) {
		const char *member = arena_fmt(r->arena, "%s[%lld]", name, (long long)i);

		if (!member)
			return fail_mem(e);
		TRY(compare(r, tensor_member(found, i), tensor_member(want, i), member, e));
	}
	return LINNET_OK;
}

/* ---- One data set ---- */

/*
 * The files <set>/<kind>_<i>.pb: list[k] is what belongs to graph input or output k. What kind of value a file holds is not told by it:
 * it is that of input or output i.
 */
static enum linnet_code load_values(struct runner *r, const char *set, const char *kind, const value_id *id, uint32_t n,
                                     const struct tensor **list, struct linnet_error *e)
{
	const struct graph *g = r->model->graph;
	const struct type tensor = { .kind = KIND_TENSOR };

	for (uint32_t i = 0;; i++) {
		const char *path = arena_fmt(r->arena, "%s/%s/%s_%u.pb", r->folder, set, kind, i), *name = NULL;
		struct tensor *t;
		uint32_t k = 0;

		if (!path)
			return fail_mem(e);
		if (!exists(path))
			return LINNET_OK;
		TRY(proto_load_value(path, i < n ? &g->value[id[i]].type : &tensor, r->arena, r->opt->limits, &t, &name, e));
		while (k < n && !(name && !strcmp(name, g->value[id[k]].name)))
			k++;
		if (k == n)
			k = i;
		if (k >= n)
			return err_file(e, fail(e, LINNET_EUSAGE, "the model has no %s number %u", kind, i), path);
		list[k] = t;
	}
}

static enum linnet_code run_set(struct runner *r, const char *set, struct linnet_error *e)
{
	const struct graph *g = r->model->graph;
	const struct tensor **in, **want;
	struct tensor **out;
	enum linnet_code code;

	TRY_NEW(in, r->arena, g->nin);
	TRY_NEW(out, r->arena, g->nout);
	TRY_NEW(want, r->arena, g->nout);
	TRY(load_values(r, set, "input", g->in, g->nin, in, e));
	TRY(load_values(r, set, "output", g->out, g->nout, want, e));
	code = plan_run(r->plan, in, out, e);
	for (uint32_t i = 0; i < g->nout; i++) {
		if (!code && want[i])
			code = compare(r, out[i], want[i], g->value[g->out[i]].name, e);
		tensor_release(out[i]);
	}
	return code;
}

/* ---- A folder ---- */

/* The model is replaced by what is read of what it is written as. */
static enum linnet_code write_again(struct runner *r, struct linnet_error *e)
{
	struct linnet_model *again = model_new(r->opt->limits, e), *first = r->model;
	enum linnet_code code;
	void *data;
	size_t n;

	if (!again)
		return LINNET_EMEM;
	code = graph_export(first, 0, e);
	if (code == LINNET_EUNSUPPORTED) { /* an operator that is no more and was replaced when it was read */
		err_clear(e);
		code = graph_export(first, OPSET_NEWEST, e);
	}
	if (!code)
		code = proto_save_memory(first, again->arena, &data, &n, e);
	if (!code)
		code = proto_load_memory(again, data, n, e);
	if (!code)
		code = graph_import(again, e);
	r->model = again;
	model_free(first);
	return code;
}

static enum linnet_code open_model(struct runner *r, struct linnet_error *e)
{
	const char *path = arena_fmt(r->arena, "%s/model.onnx", r->folder);

	if (!path)
		return fail_mem(e);
	r->model = model_new(r->opt->limits, e);
	if (!r->model)
		return LINNET_EMEM;
	TRY(proto_load(r->model, path, e));
	TRY(err_file(e, graph_import(r->model, e), path));
	if (r->opt->written_again)
		TRY(err_file(e, write_again(r, e), path));
	r->unit = rounding(r->model->graph);
	if (r->opt->passes) {
		uint32_t left = r->opt->changes;

		TRY(err_file(e, pass_run_all(r->model->graph, left ? &left : NULL, e), path));
	}
	TRY(err_file(e, graph_infer(r->model->graph, e), path));
	return err_file(e, plan_new(r->model->graph, &r->opt->run, &r->plan, e), path);
}

static enum verdict verdict_of(enum linnet_code code)
{
	return !code ? VERDICT_PASS : code == LINNET_EUNSUPPORTED ? VERDICT_SKIP : VERDICT_FAIL;
}

enum linnet_code case_run(const char *folder, const struct case_opt *opt,
                          void (*report)(void *ctx, const struct case_result *r), void *ctx, struct linnet_error *e)
{
	struct runner r = { .folder = folder, .opt = opt, .rtol = opt->rtol, .atol = opt->atol };
	struct case_result result = { .folder = folder, .set = "" };
	enum linnet_code code;
	int sets = 0;

	if (!exists(folder))
		return err_file(e, fail(e, LINNET_EIO, "there is no such folder"), folder);
	if (r.rtol <= 0 && r.atol <= 0) {
		r.rtol = 1e-3;
		r.atol = 1e-7;
	}
	r.arena = arena_new();
	if (!r.arena)
		return fail_mem(e);
	code = open_model(&r, &result.why);
	for (; !code; sets++) {
		char set[40], path[4096];

		snprintf(set, sizeof set, "test_data_set_%d", sets);
		snprintf(path, sizeof path, "%s/%s", folder, set);
		if (!exists(path))
			break;
		memset(&result.why, 0, sizeof result.why);
		result.set = set;
		r.max_ulp = 0;
		result.verdict = verdict_of(run_set(&r, set, &result.why));
		result.max_ulp = r.max_ulp;
		report(ctx, &result);
		arena_reset(r.arena);
	}
	if (!sets) {
		result.verdict = code ? verdict_of(code) : VERDICT_SKIP;
		if (!code)
			fail(&result.why, LINNET_EUSAGE, "no test_data_set_0 in the folder");
		report(ctx, &result);
	}
	plan_free(r.plan);
	model_free(r.model);
	arena_free(r.arena);
	return LINNET_OK;
}
