/* The public header's functions, over the layers. */
#include "linnet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/card.h"
#include "graph/why.h"
#include "train/data.h"
#include "validate/card.h"

/* Options of an older caller are shorter: what it does not know is zero. */
#define TAKE(into, opt)                                                                            \
	do {                                                                                       \
		if (opt)                                                                           \
			memcpy(&(into), (opt), (opt)->size < sizeof(into) ? (opt)->size : sizeof(into)); \
	} while (0)

/* Results likewise: only what the caller has room for is written. */
#define GIVE(out, from)                                                                            \
	do {                                                                                       \
		(from).size = (out)->size;                                                         \
		memcpy((out), &(from), (out)->size < sizeof(from) ? (out)->size : sizeof(from));   \
	} while (0)

const char *linnet_version(void)
{
	return LINNET_VERSION;
}

/* ---- Models ---- */

static enum linnet_code finish_load(struct linnet_model *m, enum linnet_code code, linnet_model **out, struct linnet_error *e)
{
	if (!code)
		code = graph_import(m, e);
	if (code) {
		model_free(m);
		return code;
	}
	*out = m;
	return LINNET_OK;
}

enum linnet_code linnet_model_load(const char *path, const struct linnet_limits *limits, linnet_model **out, struct linnet_error *e)
{
	struct linnet_model *m = model_new(limits, e);

	*out = NULL;
	if (!m)
		return LINNET_EMEM;
	return err_file(e, finish_load(m, proto_load(m, path, e), out, e), path);
}

enum linnet_code linnet_model_load_memory(const void *data, size_t n, const struct linnet_limits *limits, linnet_model **out,
                                          struct linnet_error *e)
{
	struct linnet_model *m = model_new(limits, e);

	*out = NULL;
	return m ? finish_load(m, proto_load_memory(m, data, n, e), out, e) : LINNET_EMEM;
}

enum linnet_code linnet_model_save(const linnet_model *m, const char *path, bool external, struct linnet_error *e)
{
	return err_file(e, proto_save(m, path, external, e), path);
}

void linnet_model_free(linnet_model *m)
{
	model_free(m);
}

int64_t linnet_model_nodes(const linnet_model *m)
{
	int64_t n = 0;

	for (node_id id = 1; id < m->graph->nnode; id++)
		n += !m->graph->node[id].dead;
	return n;
}

int64_t linnet_model_opset(const linnet_model *m)
{
	for (uint32_t i = 0; i < m->nopset; i++)
		if (!*m->opset[i].domain)
			return m->opset[i].version;
	return 0;
}

int linnet_model_count(const linnet_model *m, enum linnet_port port)
{
	return (int)(port == LINNET_INPUT ? m->graph->nin : m->graph->nout);
}

static const struct value *port_value(const linnet_model *m, enum linnet_port port, int i)
{
	if (i < 0 || i >= linnet_model_count(m, port))
		return NULL;
	return &m->graph->value[port == LINNET_INPUT ? m->graph->in[i] : m->graph->out[i]];
}

static dim port_dim(const linnet_model *m, enum linnet_port port, int i, int axis)
{
	const struct value *v = port_value(m, port, i);

	return v && axis >= 0 && axis < v->type.shape.rank ? v->type.shape.d[axis] : DIM_NONE;
}

const char *linnet_model_name(const linnet_model *m, enum linnet_port port, int i)
{
	const struct value *v = port_value(m, port, i);

	return v ? v->name : NULL;
}

int linnet_model_dtype(const linnet_model *m, enum linnet_port port, int i)
{
	const struct value *v = port_value(m, port, i);

	return v ? (int)v->type.dt : DT_UNDEFINED;
}

int linnet_model_rank(const linnet_model *m, enum linnet_port port, int i)
{
	const struct value *v = port_value(m, port, i);

	return v ? v->type.shape.rank : -1;
}

int64_t linnet_model_length(const linnet_model *m, enum linnet_port port, int i, int axis)
{
	dim d = port_dim(m, port, i, axis);

	return dim_is_int(d) ? d : -1;
}

char *linnet_model_length_text(const linnet_model *m, enum linnet_port port, int i, int axis, char *buf, size_t n)
{
	struct arena *a = arena_new();
	const char *s = a ? dim_str(m->graph->dims, port_dim(m, port, i, axis), a) : NULL;
	size_t length = s ? strlen(s) : 0;

	if (n) {
		length = length < n ? length : n - 1;
		if (length)
			memcpy(buf, s, length);
		buf[length] = 0;
	}
	arena_free(a);
	return buf;
}

/* ---- Tensors ---- */

static bool dtype_valid(int dt)
{
	return dt > DT_UNDEFINED && dt < DT_COUNT;
}

const char *linnet_dtype_name(int dtype)
{
	return dtype_name(dtype_valid(dtype) ? (enum dtype)dtype : DT_UNDEFINED);
}

static enum linnet_code check_tensor(const struct linnet_tensor *t, int64_t *n, size_t *bytes, struct linnet_error *e)
{
	if (!dtype_valid(t->dtype) || t->dtype == DT_STRING)
		return fail(e, LINNET_ETYPE, "element type %d is not one that can be passed", t->dtype);
	if (t->rank < 0 || t->rank > LINNET_MAX_RANK)
		return fail(e, LINNET_ESHAPE, "rank %d is not in [0, %d]", t->rank, LINNET_MAX_RANK);
	return tensor_size((enum dtype)t->dtype, t->rank, t->d, 0, n, bytes, e);
}

int64_t linnet_tensor_count(const struct linnet_tensor *t)
{
	struct linnet_tensor bytes = *t;
	int64_t n;
	size_t size;

	bytes.dtype = DT_UINT8;
	return check_tensor(&bytes, &n, &size, NULL) ? -1 : n;
}

int64_t linnet_tensor_bytes(const struct linnet_tensor *t)
{
	int64_t n;
	size_t size;

	return check_tensor(t, &n, &size, NULL) ? -1 : (int64_t)size;
}

/* ---- Sessions ---- */

struct linnet_session {
	struct arena *arena, *scratch; /* scratch: of one run */
	struct graph *graph;
	struct plan *plan;
	struct session *session; /* instead of a plan, with states */
	struct tensor **out;     /* of the last run */
	uint32_t *number, nout;  /* which graph outputs they are */
};

/* The graph to run: a copy after the exact passes, or as written. */
static enum linnet_code graph_to_run(const linnet_model *m, bool reference, struct arena *a, struct graph **out, struct linnet_error *e)
{
	TRY(graph_copy(m->graph, a, out, e));
	return reference ? LINNET_OK : pass_run_all(*out, NULL, e);
}

static bool is_state(const linnet_session *s, const char *name, bool input)
{
	for (int i = 0; s->session && i < session_nstate(s->session); i++)
		if (!strcmp(name, input ? session_pair(s->session, i).input : session_pair(s->session, i).output))
			return true;
	return false;
}

static enum linnet_code fill_session(linnet_session *s, const linnet_model *m, const struct linnet_session_opt *opt,
                                     struct linnet_error *e)
{
	struct run_opt run = { .kernels = opt->reference ? KERNELS_REFERENCE : KERNELS_FAST, .threads = opt->threads,
		               .max_memory = opt->max_memory, .seed = opt->seed };

	TRY(graph_to_run(m, opt->reference, s->arena, &s->graph, e));
	TRY_NEW(s->out, s->arena, s->graph->nout);
	TRY_NEW(s->number, s->arena, s->graph->nout);
	if (opt->states)
		TRY(session_new(s->graph, &run, NULL, 0, &s->session, e));
	else
		TRY(plan_new(s->graph, &run, &s->plan, e));
	for (uint32_t i = 0; i < s->graph->nout; i++)
		if (!is_state(s, s->graph->value[s->graph->out[i]].name, false))
			s->number[s->nout++] = i;
	return LINNET_OK;
}

enum linnet_code linnet_session_new(const linnet_model *m, const struct linnet_session_opt *opt, linnet_session **out,
                                    struct linnet_error *e)
{
	struct linnet_session_opt o = { 0 };
	struct arena *a = arena_new();
	linnet_session *s = a ? NEW(a, 1, linnet_session) : NULL;
	enum linnet_code code;

	*out = NULL;
	if (!s) {
		arena_free(a);
		return fail_mem(e);
	}
	TAKE(o, opt);
	s->arena = a;
	s->scratch = arena_new();
	code = s->scratch ? fill_session(s, m, &o, e) : fail_mem(e);
	if (code)
		linnet_session_free(s);
	else
		*out = s;
	return code;
}

static void drop_outputs(linnet_session *s)
{
	for (uint32_t i = 0; i < s->nout; i++) {
		tensor_release(s->out[i]);
		s->out[i] = NULL;
	}
}

void linnet_session_free(linnet_session *s)
{
	if (!s)
		return;
	drop_outputs(s);
	session_free(s->session);
	plan_free(s->plan);
	arena_free(s->scratch);
	arena_free(s->arena);
}

static enum linnet_code wrap(struct arena *a, const struct linnet_tensor *in, const char *name, const struct tensor **out,
                             struct linnet_error *e)
{
	struct tensor *t;
	int64_t n;
	size_t bytes;
	enum linnet_code code = check_tensor(in, &n, &bytes, e);

	if (!code)
		code = tensor_wrap(a, (enum dtype)in->dtype, in->rank, in->d, in->data, &t, e);
	if (code)
		return err_node(e, code, name, "");
	*out = t;
	return LINNET_OK;
}

enum linnet_code linnet_session_run(linnet_session *s, const char *const *name, const struct linnet_tensor *in, int nin,
                                    struct linnet_error *e)
{
	const struct graph *g = s->graph;
	const struct tensor **given;
	uint32_t n = 0;
	int used = 0;

	drop_outputs(s);
	arena_reset(s->scratch);
	TRY_NEW(given, s->scratch, g->nin);
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct value *v = &g->value[g->in[i]];
		int k = 0;

		if (is_state(s, v->name, true))
			continue;
		while (k < nin && strcmp(name[k], v->name))
			k++;
		if (k < nin)
			TRY(wrap(s->scratch, &in[k], v->name, &given[n], e));
		else if (!v->has_default)
			return fail(e, LINNET_EUSAGE, "input \"%s\" is missing", v->name);
		used += k < nin;
		n++;
	}
	if (used != nin)
		return fail(e, LINNET_EUSAGE, "%d inputs are given, %d of them are inputs of the model", nin, used);
	return s->session ? session_run(s->session, given, s->out, e) : plan_run(s->plan, given, s->out, e);
}

enum linnet_code linnet_session_output(const linnet_session *s, const char *name, struct linnet_tensor *out, struct linnet_error *e)
{
	const struct tensor *t = NULL;

	for (uint32_t i = 0; i < s->nout; i++)
		if (!strcmp(name, s->graph->value[s->graph->out[s->number[i]]].name))
			t = s->out[i];
	for (int i = 0; s->session && i < session_nstate(s->session); i++)
		if (!strcmp(name, session_pair(s->session, i).output))
			t = session_state(s->session, i);
	if (!t)
		return fail(e, LINNET_EUSAGE, "there is no output \"%s\" of a run", name);
	if (t->kind != KIND_TENSOR)
		return fail(e, LINNET_EUNSUPPORTED, "output \"%s\" is no tensor", name);
	if (t->dt == DT_STRING)
		return fail(e, LINNET_EUNSUPPORTED, "output \"%s\" holds strings", name);
	*out = (struct linnet_tensor){ .dtype = (int)t->dt, .rank = t->rank, .data = t->data };
	memcpy(out->d, t->d, sizeof out->d);
	return LINNET_OK;
}

void linnet_session_reset(linnet_session *s)
{
	if (s->session)
		session_reset(s->session);
}

int64_t linnet_session_peak(const linnet_session *s)
{
	return plan_peak_bytes(s->session ? session_plan(s->session) : s->plan);
}

/* ---- Why not ---- */

struct linnet_reasons {
	struct arena *arena;
	struct findings f;
};

enum linnet_code linnet_why(const linnet_model *m, linnet_reasons **out, struct linnet_error *e)
{
	struct arena *a = arena_new();
	linnet_reasons *r = a ? NEW(a, 1, linnet_reasons) : NULL;
	enum linnet_code code;

	*out = NULL;
	if (!r) {
		arena_free(a);
		return fail_mem(e);
	}
	r->arena = a;
	code = why_graph(m->graph, a, &r->f, e);
	if (code)
		arena_free(a);
	else
		*out = r;
	return code;
}

void linnet_reasons_free(linnet_reasons *r)
{
	if (r)
		arena_free(r->arena);
}

int linnet_reasons_count(const linnet_reasons *r)
{
	return r->f.n;
}

enum linnet_code linnet_reasons_get(const linnet_reasons *r, int i, struct linnet_reason *out, struct linnet_error *e)
{
	const struct finding *f = i >= 0 && i < r->f.n ? &r->f.list[i] : NULL;
	const struct why_row *row = f ? &why_rows[f->code] : NULL;
	struct linnet_reason reason;

	if (!f)
		return fail(e, LINNET_EUSAGE, "there is no reason %d; there are %d", i, r->f.n);
	reason = (struct linnet_reason){ .node = f->node, .op = f->op, .form = row->form, .code = row->code, .text = row->text, .help = row->help,
		                         .witness = f->witness, .witness_op = f->witness_op, .described = f->described };
	GIVE(out, reason);
	return LINNET_OK;
}

enum linnet_code linnet_reasons_find(const linnet_reasons *r, const char *node, int *i, const char **into, struct linnet_error *e)
{
	struct node_fate fate;

	TRY(why_node(&r->f, node, r->arena, &fate, e));
	if (fate.fate == FATE_UNKNOWN)
		return fail(e, LINNET_EUSAGE, "there is no node and no value \"%s\"", node);
	*i = fate.finding;
	*into = fate.fate == FATE_PART ? fate.into_op : NULL;
	return LINNET_OK;
}

/* ---- Converting ---- */

static enum linnet_code read_request(const struct linnet_convert_opt *o, struct arena *a, struct convert_request *q, struct convert_opt *c, struct linnet_error *e)
{
	*q = (struct convert_request){ .mechanism = o->mechanism, .target = o->target, .layers = o->layers, .fade = o->fade, .heads = o->heads, .norm = o->norm,
		                       .grid = o->grid, .state = o->state, .map = o->map, .map_name = "a text", .strict = o->strict, .chunk = o->chunk,
		                       .opset = o->opset, .features = o->features, .horizon = o->horizon, .seed = (int64_t)o->seed, .conv = o->conv,
		                       .window = o->window, .sinks = o->sinks, .degree = o->degree };
	return convert_read(q, a, c, e);
}

/* calibration: as JSON, for the card; NULL: there was none. */
static enum linnet_code convert(linnet_model *m, const struct convert_request *q, const struct convert_opt *c, const char *card, const char *calibration,
                                struct linnet_convert_result *result, struct linnet_error *e)
{
	struct convert_report r;
	struct linnet_model before = *m;

	if (card)
		TRY(graph_copy(m->graph, m->arena, &before.graph, e));
	TRY(convert_model(m, c, &r, e));
	TRY(graph_export(m, r.opset, e));
	if (card) {
		struct agreement agreement;

		TRY(targets_agree(&before, c, r.nconverted, m->arena, &agreement, e));
		TRY(card_save(&(struct card){ LINNET_VERSION, NULL, m->path ? m->path : "", q, c, &r, &agreement, m->graph, calibration }, card, e));
	}
	if (result) {
		struct linnet_convert_result done = { .attentions = (int)r.nitem, .converted = (int)r.nconverted, .opset = r.opset };

		GIVE(result, done);
	}
	return LINNET_OK;
}

enum linnet_code linnet_convert(linnet_model *m, const struct linnet_convert_opt *opt, struct linnet_convert_result *result,
                                struct linnet_error *e)
{
	struct linnet_convert_opt o = { 0 };
	struct convert_request q;
	struct convert_opt c;

	TAKE(o, opt);
	TRY(read_request(&o, m->arena, &q, &c, e));
	return convert(m, &q, &c, o.card, NULL, result, e);
}

/* ---- Calibrating ---- */

/* Of a list that ends with NULL, or none. */
static int length_of(const char *const *list)
{
	int n = 0;

	while (list && list[n])
		n++;
	return n;
}

static void tell(void *ctx, const struct calibrate_event *ev)
{
	const struct linnet_calibrate_opt *o = ctx;

	if (o->progress)
		o->progress(o->ctx, ev->stage, ev->train->step, ev->train->steps, ev->train->loss);
}

static struct linnet_quality quality_of(const struct quality *q)
{
	return (struct linnet_quality){ q->loss, exp(q->nll), exp(q->recall) };
}

static struct linnet_calibrate_result result_of(const struct calibrate_result *r, const struct convert_opt *c)
{
	struct linnet_calibrate_result out = { .mechanism = c->mechanism->name, .softmax = quality_of(&r->teacher), .before = quality_of(&r->before),
		                               .after = quality_of(r->nstage ? &r->stage[r->nstage - 1].quality : &r->before),
		                               .window = quality_of(&r->window) };

	for (int i = 0; i < r->nstage; i++) {
		out.tokens += r->stage[i].tokens;
		out.seconds += r->stage[i].seconds;
	}
	return out;
}

/* chosen: the user said which mechanism. */
static enum linnet_code calibrated(linnet_model *m, const struct linnet_calibrate_opt *o, bool chosen, struct convert_opt *c, struct train_data *data,
                                   struct train_data *held, struct calibrate_result *r, char **card, struct linnet_error *e)
{
	struct recipe recipe;
	bool searched;
	struct search_opt search = { .mechanism = chosen ? c->mechanism : NULL, .most_loss = o->max_loss > 0 ? o->max_loss : INFINITY, .most_state = o->max_state };
	struct search_result found;
	struct calibrate_opt opt = { .recipe = &recipe, .minutes = o->minutes, .tokens = o->tokens, .batch = o->batch, .length = o->length, .rank = o->rank,
	                             .rate = o->rate, .seed = c->seed, .threads = o->threads, .exact = o->exact, .checkpoint = o->checkpoint,
	                             .report = tell, .ctx = (void *)(uintptr_t)o };
	json_t *j;

	TRY(calibrate_recipe(o->recipe, chosen, c, &recipe, &searched, e));
	opt.convert = *c;
	search.calibrate = opt;
	if (searched) {
		TRY(calibrate_search(m, &search, data, held, &found, e));
		recipe = found.trial[found.best].recipe;
		*c = found.trial[found.best].convert;
		*r = found.result;
	} else {
		TRY(calibrate(m, &opt, data, held, r, e));
	}
	c->given = r->weight;
	c->ngiven = r->nweight;
	j = calibrate_card(&recipe, r, searched ? &found : NULL);
	*card = j ? json_dumps(j, JSON_REAL_PRECISION(6)) : NULL;
	json_decref(j);
	return *card ? LINNET_OK : fail_mem(e);
}

enum linnet_code linnet_calibrate(linnet_model *m, const struct linnet_convert_opt *opt, const struct linnet_calibrate_opt *cal,
                                  struct linnet_convert_result *result, struct linnet_calibrate_result *out, struct linnet_error *e)
{
	struct linnet_convert_opt o = { 0 };
	struct linnet_calibrate_opt co = { 0 };
	struct convert_request q;
	struct convert_opt c;
	struct calibrate_result r;
	struct train_data *data = NULL, *held = NULL;
	enum linnet_code code;
	char *card = NULL;

	TAKE(o, opt);
	TAKE(co, cal);
	if (!length_of(co.data))
		return fail(e, LINNET_EUSAGE, "calibration needs data");
	TRY(read_request(&o, m->arena, &q, &c, e));
	code = data_open(co.data, length_of(co.data), &data, e);
	if (!code)
		code = data_open(co.held_out, length_of(co.held_out), &held, e);
	if (!code)
		code = calibrated(m, &co, o.mechanism || o.map, &c, data, held, &r, &card, e);
	data_free(data);
	data_free(held);
	if (!code)
		code = convert(m, &q, &c, o.card, card, result, e);
	free(card);
	if (!code && out) {
		struct linnet_calibrate_result done = result_of(&r, &c);

		GIVE(out, done);
	}
	return code;
}

/* ---- Validating ---- */

struct linnet_report {
	struct arena *arena;
	struct tolerance tolerance;
	struct pair_report pair;
};

static enum linnet_code fill_report(linnet_report *r, const linnet_model *a, const linnet_model *b, const struct linnet_validate_opt *o,
                                    struct arena *scratch, struct linnet_error *e)
{
	struct run_opt run = { .kernels = o->reference ? KERNELS_REFERENCE : KERNELS_FAST, .threads = o->threads };
	struct pair_opt opt = { .cases = o->cases, .seed = o->seed, .tolerance = { o->rtol, o->atol, o->budget } };
	struct graph *ga, *gb;

	r->tolerance = opt.tolerance;
	TRY(graph_to_run(a, o->reference, scratch, &ga, e));
	TRY(graph_to_run(b, o->reference, scratch, &gb, e));
	return pair_compare(&(struct side){ ga, run }, &(struct side){ gb, run }, &opt, r->arena, &r->pair, e);
}

enum linnet_code linnet_validate(const linnet_model *a, const linnet_model *b, const struct linnet_validate_opt *opt,
                                 linnet_report **out, struct linnet_error *e)
{
	struct linnet_validate_opt o = { 0 };
	struct arena *arena = arena_new(), *scratch = arena_new();
	linnet_report *r = arena ? NEW(arena, 1, linnet_report) : NULL;
	enum linnet_code code;

	*out = NULL;
	TAKE(o, opt);
	if (r)
		r->arena = arena;
	code = r && scratch ? fill_report(r, a, b, &o, scratch, e) : fail_mem(e);
	arena_free(scratch);
	if (code)
		arena_free(arena);
	else
		*out = r;
	return code;
}

void linnet_report_free(linnet_report *r)
{
	if (r)
		arena_free(r->arena);
}

bool linnet_report_agrees(const linnet_report *r)
{
	for (uint32_t i = 0; i < r->pair.nout; i++)
		if (!diff_agrees(&r->pair.out[i], &r->tolerance))
			return false;
	return true;
}

int linnet_report_count(const linnet_report *r)
{
	return (int)r->pair.nout;
}

enum linnet_code linnet_report_difference(const linnet_report *r, int i, struct linnet_difference *out, struct linnet_error *e)
{
	const struct diff *d;
	struct linnet_difference x;

	if (i < 0 || i >= linnet_report_count(r))
		return fail(e, LINNET_EUSAGE, "output %d is not in [0, %d)", i, linnet_report_count(r));
	d = &r->pair.out[i];
	x = (struct linnet_difference){ .name = d->name, .agrees = diff_agrees(d, &r->tolerance), .elements = d->n, .wrong = d->wrong,
		                        .max_abs = d->max_abs, .max_rel = d->max_rel, .nmse = diff_nmse(d), .max_ulp = d->max_ulp };
	GIVE(out, x);
	return LINNET_OK;
}

const char *linnet_report_node(const linnet_report *r)
{
	return r->pair.where.found ? r->pair.where.node : NULL;
}

const char *linnet_report_operator(const linnet_report *r)
{
	return r->pair.where.found ? r->pair.where.op : NULL;
}
