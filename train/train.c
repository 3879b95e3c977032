/* Training: the graphs of loss and gradients, batches, steps, checkpoints. */
#include "train/train.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "graph/grad.h"
#include "graph/pass.h"
#include "ops/base/clock.h"
#include "runtime/runtime.h"
#include "train/data.h"
#include "train/step.h"

/* What a graph input gets. */
enum source { FROM_DEFAULT, FROM_WEIGHT, FROM_ARRAY, FROM_TOKENS, FROM_LABELS, FROM_ONES, FROM_POSITIONS };

struct port {
	enum source from;
	int weight;
	const struct series *array;
	struct tensor *batch; /* what is made of the data */
};

/* A graph with its plan; the loss is its first output. */
struct machine {
	struct graph *g;
	struct plan *plan;
	struct port *port;           /* by graph input */
	const struct tensor **in;
	struct tensor **out;
	const struct train_data *bound; /* whose arrays the ports refer to */
};

struct training {
	struct arena *a;
	struct train_opt *o;         /* its own */
	struct linnet_error *e;
	const char *loss, *tokens, *labels;
	int64_t vocabulary;          /* -1: not known */
	struct weight *weight;
	struct tensor **first, **second, **average;
	struct tensor **kept;        /* of the best evaluation, when runs may stop early */
	int nweight;
	struct machine learn, judge;
	struct graph *whole;         /* learn's, when memory is bounded: before anything is computed again */
	int64_t step, bad;           /* evaluations without a new best */
	int64_t large;               /* steps on end with too large a loss */
	int64_t saved;               /* the step of the checkpoint; -1: none */
	double best, mean, lowest, start; /* held-out loss; mean of the last losses, the lowest it was, the first loss; NaN: none yet */
	double began, spent;         /* this run; seconds of those before it */
	int rank, size;              /* of the processes */
	bool keeps;                  /* kept[] holds something */
};

static bool is_weight(const struct train_opt *o, const char *name)
{
	for (int i = 0; i < o->nweight; i++)
		if (!strcmp(o->weight[i], name) || !fnmatch(o->weight[i], name, 0))
			return true;
	return false;
}

static value_id named(const struct graph *g, const char *name)
{
	for (value_id v = 1; v < g->nvalue; v++)
		if (!strcmp(g->value[v].name, name))
			return v;
	return 0;
}

/* ---- The loss ---- */

static bool is_tokens(const struct value *v)
{
	return !v->has_default && dtype_in(v->type.dt, INDICES) && !strstr(v->name, "mask") && !strstr(v->name, "position");
}

/* The cross-entropy of the next token, by the model's output of rank 3, as a new output. */
static enum linnet_code add_loss(struct training *t, struct graph *g)
{
	static const struct op_io in[] = { { "logits" }, { "labels" }, { NULL } }, out[] = { { "loss" }, { NULL } };
	static const struct op row = { .name = "NextToken", .in = in, .out = out };
	static const char text[] = "{ width = Shape <start = -1> (logits)\n"
	                           "  flat = Constant <value = int64[1] {-1}> ()\n"
	                           "  rows = Concat <axis = 0> (flat, width)\n"
	                           "  each = Reshape (logits, rows)\n"
	                           "  right = Reshape (labels, flat)\n"
	                           "  loss = SoftmaxCrossEntropyLoss (each, right) }";
	struct linnet_error *e = t->e;
	value_id logits = 0, tokens = 0, made = 0;
	struct type type;

	for (uint32_t i = 0; i < g->nout; i++)
		if (dtype_in(g->value[g->out[i]].type.dt, FLOATS) && g->value[g->out[i]].type.shape.rank == 3) {
			if (logits)
				return fail(e, LINNET_EMODEL, "outputs \"%s\" and \"%s\" could both be logits; name a loss", g->value[logits].name,
				            g->value[g->out[i]].name);
			logits = g->out[i];
		}
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct value *v = &g->value[g->in[i]];

		if (!is_tokens(v))
			continue;
		if (tokens)
			return fail(e, LINNET_EMODEL, "inputs \"%s\" and \"%s\" could both be tokens", g->value[tokens].name, v->name);
		tokens = g->in[i];
	}
	if (!logits || !tokens)
		return fail(e, LINNET_EMODEL, "the model has no %s; data that is a stream of tokens is for language models",
		            logits ? "input of tokens" : "output of logits, [batch, tokens, vocabulary]");
	t->tokens = g->value[tokens].name;
	t->vocabulary = dim_is_int(g->value[logits].type.shape.d[2]) ? g->value[logits].type.shape.d[2] : -1;
	type = (struct type){ .dt = DT_INT64, .shape = g->value[tokens].type.shape };
	t->labels = graph_fresh_name(g, "labels");
	t->loss = graph_fresh_name(g, "loss");
	if (!t->labels || !t->loss)
		return fail_mem(e);
	value_id inputs[2] = { logits, graph_add_input(g, t->labels, &type) };
	bool wanted = true;
	struct block_call c = { .op = &row, .name = t->loss, .in = inputs, .wanted = &wanted, .out = &made, .nin = 2, .nout = 1 };

	if (!inputs[1])
		return fail_mem(e);
	c.real = g->value[logits].type.dt;
	TRY(graph_add_block(g, text, &c, e));
	t->loss = g->value[made].name;
	return graph_add_output(g, made) ? fail_mem(e) : LINNET_OK;
}

static enum linnet_code find_loss(struct training *t, struct graph *g, const struct train_data *d)
{
	struct linnet_error *e = t->e;
	value_id v;

	if (data_is_stream(d) && !t->o->loss)
		return add_loss(t, g);
	if (!t->o->loss && g->nout != 1)
		return fail(e, LINNET_EMODEL, "the model has %u outputs; tell which is the loss", g->nout);
	v = t->o->loss ? named(g, t->o->loss) : g->out[0];
	if (!v)
		return fail(e, LINNET_EMODEL, "there is no value \"%s\" to be the loss", t->o->loss);
	if (!dtype_in(g->value[v].type.dt, SET(FLOAT) | SET(DOUBLE)) || g->value[v].type.shape.rank > 1)
		return fail(e, LINNET_ETYPE, "\"%s\" is no loss: a loss is one float", g->value[v].name);
	t->loss = g->value[v].name;
	for (uint32_t i = 0; i < g->nin && data_is_stream(d); i++) {
		const struct value *x = &g->value[g->in[i]];

		if (!x->has_default && dtype_in(x->type.dt, INDICES) && strstr(x->name, "label"))
			t->labels = x->name;
		else if (!t->tokens && is_tokens(x))
			t->tokens = x->name;
	}
	return LINNET_OK;
}

/* ---- Weights ---- */

static bool decays(const struct train_opt *o, const char *name, const struct tensor *t)
{
	for (int i = 0; i < o->nno_decay; i++)
		if (!fnmatch(o->no_decay[i], name, 0))
			return false;
	return t->rank > 1;
}

static double peak_of(const struct train_opt *o, const char *name)
{
	for (int i = 0; i < o->nrates; i++)
		if (!fnmatch(o->rates[i].pattern, name, 0))
			return o->rates[i].rate;
	return o->rate;
}

/* A pattern that fits no weight is a slip. */
static enum linnet_code check_rates(const struct training *t)
{
	for (int i = 0; i < t->o->nrates; i++) {
		int k = 0;

		while (k < t->nweight && fnmatch(t->o->rates[i].pattern, t->weight[k].name, 0))
			k++;
		if (k == t->nweight)
			return fail(t->e, LINNET_EMODEL, "a rate is given for \"%s\", which no trained weight is named", t->o->rates[i].pattern);
	}
	return LINNET_OK;
}

static enum linnet_code make_weights(struct training *t, struct graph *g)
{
	struct linnet_error *e = t->e;

	TRY_NEW(t->weight, t->a, g->nvalue);
	TRY_NEW(t->first, t->a, g->nvalue);
	TRY_NEW(t->second, t->a, g->nvalue);
	TRY_NEW(t->average, t->a, g->nvalue);
	TRY_NEW(t->kept, t->a, g->nvalue);
	for (value_id v = 1; v < g->nvalue; v++) {
		const struct tensor *from = g->value[v].type.value;
		struct weight *w = &t->weight[t->nweight];
		int k = t->nweight;

		if (g->value[v].kind != VALUE_CONST || !is_weight(t->o, g->value[v].name) || !dtype_in(from->dt, FLOATS))
			continue;
		if (from->dt != DT_FLOAT)
			return fail(e, LINNET_ETYPE, "weight \"%s\" is of %s; only float is trained", g->value[v].name, dtype_name(from->dt));
		w->name = g->value[v].name;
		TRY(tensor_new(t->a, DT_FLOAT, from->rank, from->d, &w->t, e));
		memcpy(w->t->data, from->data, from->bytes);
		TRY(tensor_new(t->a, DT_FLOAT, from->rank, from->d, &t->first[k], e));
		memset(t->first[k]->data, 0, t->first[k]->bytes);
		w->first = t->first[k]->data;
		if (t->o->optimizer != OPTIMIZER_SGD) {
			TRY(tensor_new(t->a, DT_FLOAT, from->rank, from->d, &t->second[k], e));
			memset(t->second[k]->data, 0, t->second[k]->bytes);
			w->second = t->second[k]->data;
		}
		if (t->o->average > 0) {
			TRY(tensor_new(t->a, DT_FLOAT, from->rank, from->d, &t->average[k], e));
			memcpy(t->average[k]->data, from->data, from->bytes);
			w->average = t->average[k]->data;
		}
		if (t->o->patience) {
			TRY(tensor_new(t->a, DT_FLOAT, from->rank, from->d, &t->kept[k], e));
			memcpy(t->kept[k]->data, from->data, from->bytes);
		}
		TRY_NEW(w->grad, t->a, from->n);
		w->rate = peak_of(t->o, w->name);
		w->decays = decays(t->o, w->name, from);
		t->nweight++;
	}
	if (!t->nweight)
		return fail(e, LINNET_EMODEL, "no constant of floats is named \"%s\"%s", t->o->weight[0], t->o->nweight > 1 ? " or as the others" : "");
	return check_rates(t);
}

/* ---- Graphs to run ---- */

/* Only these outputs, then the exact passes, with types throughout. */
static enum linnet_code settle(struct training *t, struct graph *g, const value_id *out, uint32_t n)
{
	struct arena *s = arena_new();
	enum linnet_code code = s ? LINNET_OK : fail_mem(t->e);

	g->nout = 0;
	g->out = NULL;
	for (uint32_t i = 0; !code && i < n; i++)
		if (graph_add_output(g, out[i]))
			code = fail_mem(t->e);
	if (!code)
		code = graph_compact(g, s, t->e);
	arena_free(s);
	if (!code)
		code = graph_infer(g, t->e);
	return code ? code : pass_run_all(g, NULL, t->e);
}

static enum linnet_code make_machine(struct training *t, struct machine *m, bool mixed)
{
	struct run_opt opt = { .threads = t->o->threads, .mixed = mixed, .seed = t->o->seed };
	struct linnet_error *e = t->e;

	TRY_NEW(m->port, t->a, m->g->nin);
	TRY_NEW(m->in, t->a, m->g->nin);
	TRY_NEW(m->out, t->a, m->g->nout);
	return plan_new(m->g, &opt, &m->plan, e);
}

/* Weights that the loss does not depend on are none. */
static enum linnet_code make_graphs(struct training *t, const struct graph *model, const struct train_data *d)
{
	struct linnet_error *e = t->e;
	value_id loss, *wrt, *grad;
	uint32_t n = 0;
	int kept = 0;

	TRY(graph_copy(model, t->a, &t->learn.g, e));
	TRY(find_loss(t, t->learn.g, d));
	TRY(make_weights(t, t->learn.g));
	for (int i = 0; i < t->nweight; i++)
		if (graph_free_const(t->learn.g, named(t->learn.g, t->weight[i].name)))
			return fail_mem(e);
	loss = named(t->learn.g, t->loss);
	TRY(settle(t, t->learn.g, &loss, 1));
	TRY(graph_copy(t->learn.g, t->a, &t->judge.g, e));
	TRY_NEW(wrt, t->a, t->nweight);
	TRY_NEW(grad, t->a, t->nweight + 1);
	for (int i = 0; i < t->nweight; i++)
		wrt[i] = named(t->learn.g, t->weight[i].name);
	loss = t->learn.g->out[0];
	TRY(graph_grad(t->learn.g, loss, wrt, (uint32_t)t->nweight, grad + 1, e));
	grad[0] = loss;
	for (int i = 0; i < t->nweight; i++) {
		if (!grad[1 + i])
			continue;
		t->weight[kept] = t->weight[i];
		t->first[kept] = t->first[i];
		t->second[kept] = t->second[i];
		t->kept[kept] = t->kept[i];
		t->average[kept++] = t->average[i];
		grad[++n] = grad[1 + i];
	}
	if (!kept)
		return fail(e, LINNET_EMODEL, "the loss \"%s\" depends on no weight", t->loss);
	t->nweight = kept;
	TRY(settle(t, t->learn.g, grad, n + 1));
	if (t->o->memory)
		TRY(graph_copy(t->learn.g, t->a, &t->whole, e));
	TRY(make_machine(t, &t->learn, t->o->mixed));
	return make_machine(t, &t->judge, false);
}

/* ---- Batches ---- */

static enum linnet_code batch_tensor(struct training *t, struct port *p, const struct value *v, const struct tensor *like)
{
	const struct shape *s = &v->type.shape;
	struct linnet_error *e = t->e;
	int64_t d[MAX_RANK] = { t->o->batch };
	int rank = like ? like->rank : 2;

	d[1] = t->o->length;
	for (int i = 1; like && i < rank; i++)
		d[i] = like->d[i];
	if (s->rank >= 0 && s->rank != rank)
		return fail(e, LINNET_ESHAPE, "input \"%s\" has rank %d; the data has rank %d", v->name, s->rank, rank);
	for (int i = 0; i < s->rank; i++)
		if (dim_is_int(s->d[i]) && s->d[i] != d[i])
			return fail(e, LINNET_ESHAPE, "input \"%s\" has length %lld along axis %d; %s %lld", v->name, (long long)s->d[i], i,
			            i || like ? i ? "the data has" : "a batch has" : "a batch has", (long long)d[i]);
	if (like && (dtype_class(like->dt) == CLASS_FLOAT) != (dtype_class(v->type.dt) == CLASS_FLOAT))
		return fail(e, LINNET_ETYPE, "input \"%s\" is of %s; the data is of %s", v->name, dtype_name(v->type.dt), dtype_name(like->dt));
	return tensor_new(t->a, v->type.dt, rank, d, &p->batch, e);
}

/* Which input gets what of the data. */
static enum linnet_code bind(struct training *t, struct machine *m, const struct train_data *d)
{
	struct linnet_error *e = t->e;

	for (uint32_t i = 0; i < m->g->nin; i++) {
		const struct value *v = &m->g->value[m->g->in[i]];
		struct port *p = &m->port[i];

		*p = (struct port){ .weight = -1 };
		for (int k = 0; k < t->nweight; k++)
			if (!strcmp(t->weight[k].name, v->name))
				p->weight = k;
		p->array = data_array(d, v->name);
		if (p->weight >= 0) {
			p->from = FROM_WEIGHT;
			continue;
		}
		if (p->array)
			p->from = FROM_ARRAY;
		else if (data_is_stream(d) && t->tokens && !strcmp(v->name, t->tokens))
			p->from = FROM_TOKENS;
		else if (data_is_stream(d) && t->labels && !strcmp(v->name, t->labels))
			p->from = FROM_LABELS;
		else if (v->has_default)
			continue;
		else if (data_is_stream(d) && strstr(v->name, "mask"))
			p->from = FROM_ONES;
		else if (data_is_stream(d) && strstr(v->name, "position"))
			p->from = FROM_POSITIONS;
		else
			return fail(e, LINNET_EMODEL, "there is no data for input \"%s\"", v->name);
		TRY(batch_tensor(t, p, v, p->array ? p->array->part[0].t : NULL));
		for (int64_t k = 0; k < p->batch->n && (p->from == FROM_ONES || p->from == FROM_POSITIONS); k++)
			tensor_put_int(p->batch, k, p->from == FROM_ONES ? 1 : k % t->o->length);
	}
	for (int i = 0; i < d->narray; i++) {
		value_id v = named(m->g, d->array[i].name);

		if (!v || m->g->value[v].kind != VALUE_INPUT)
			return fail(e, LINNET_EMODEL, "the loss depends on no input \"%s\" that there is data for", d->array[i].name);
	}
	m->bound = d;
	return LINNET_OK;
}

static void copy_row(struct tensor *to, int64_t row, const struct tensor *from, int64_t at)
{
	int64_t n = to->n / to->d[0];
	bool whole = dtype_class(to->dt) != CLASS_FLOAT;

	if (to->dt == from->dt && dtype_bits(to->dt) >= 8) {
		size_t bytes = to->bytes / (size_t)to->d[0];

		memcpy((char *)to->data + (size_t)row * bytes, (const char *)from->data + (size_t)at * bytes, bytes);
		return;
	}
	for (int64_t i = 0; i < n; i++)
		if (whole)
			tensor_put_int(to, row * n + i, tensor_get_int(from, at * n + i));
		else
			tensor_put(to, row * n + i, tensor_get(from, at * n + i));
}

/* Batch number `number`; averaged: of the averaged weights. */
static enum linnet_code fill(struct training *t, struct machine *m, struct train_data *d, bool shuffled, int64_t number, bool averaged)
{
	int64_t n = t->o->length;

	for (int64_t row = 0; row < t->o->batch; row++) {
		int64_t at;

		TRY(data_sample(d, n, t->o->seed, shuffled, number * t->o->batch + row, &at, t->e));
		for (uint32_t i = 0; i < m->g->nin; i++) {
			struct port *p = &m->port[i];

			if (p->from == FROM_ARRAY) {
				const struct part *part = series_part(p->array, at);

				copy_row(p->batch, row, part->t, at - part->from);
			}
			if (p->from == FROM_TOKENS || p->from == FROM_LABELS)
				data_tokens(d, at + (p->from == FROM_LABELS), n, p->batch, row * n);
		}
	}
	for (uint32_t i = 0; i < m->g->nin; i++) {
		const struct port *p = &m->port[i];

		m->in[i] = p->from != FROM_WEIGHT ? p->batch : averaged ? t->average[p->weight] : t->weight[p->weight].t;
	}
	return LINNET_OK;
}

/* Parts are computed again, more and more of them, until a step takes no more than the memory it may. */
static enum linnet_code fit_memory(struct training *t, struct train_data *d, struct train_result *r)
{
	for (int segments = 2; t->o->memory; segments *= 2) {
		struct machine *m = &t->learn;

		TRY(fill(t, m, d, true, 0, false));
		TRY(plan_run(m->plan, m->in, m->out, t->e));
		for (uint32_t i = 0; i < m->g->nout; i++)
			tensor_release(m->out[i]);
		if (plan_peak_bytes(m->plan) <= t->o->memory)
			return LINNET_OK;
		if (segments > 64)
			return fail(t->e, LINNET_ELIMIT, "a step takes %lld bytes of activations, however much is computed again; %lld are allowed",
			            (long long)plan_peak_bytes(m->plan), (long long)t->o->memory);
		plan_free(m->plan);
		m->plan = NULL;
		TRY(graph_copy(t->whole, t->a, &m->g, t->e));
		TRY(graph_recompute(m->g, m->g->out[0], segments, t->e));
		TRY(graph_infer(m->g, t->e));
		TRY(make_machine(t, m, t->o->mixed));
		TRY(bind(t, m, d));
		r->segments = segments;
	}
	return LINNET_OK;
}

/* ---- Checkpoints ---- */

/* What a run must share with the one that made its checkpoint. */
enum { FACTS = 7 };

static void facts_of(const struct training *t, const struct train_data *d, int64_t fact[FACTS])
{
	fact[0] = (int64_t)t->o->seed;
	fact[1] = t->o->batch;
	fact[2] = t->o->accumulate * t->size;
	fact[3] = t->o->length;
	fact[4] = t->o->optimizer;
	fact[5] = d->shard;
	fact[6] = d->shards;
}

/* All of a run's state, as tensors with names: what is written and what is read. */
struct state {
	struct { const char *name; struct tensor *t; } *item;
	int n;
	struct tensor *facts, *counts, *levels;
};

static enum linnet_code add_state(struct state *s, const char *name, struct tensor *t, struct linnet_error *e)
{
	s->item[s->n].name = name;
	s->item[s->n++].t = t;
	return name ? LINNET_OK : fail_mem(e);
}

static enum linnet_code list_state(struct training *t, struct arena *a, struct state *s)
{
	const struct { const char *kind; struct tensor **of; } each[] = {
		{ "first", t->first }, { "second", t->second }, { "average", t->average }, { "kept", t->kept },
	};
	struct linnet_error *e = t->e;

	*s = (struct state){ 0 };
	TRY_NEW(s->item, a, 5 * (size_t)t->nweight + 3);
	TRY(tensor_new(a, DT_INT64, 1, (int64_t[]){ FACTS }, &s->facts, e));
	TRY(tensor_new(a, DT_INT64, 1, (int64_t[]){ 5 }, &s->counts, e));
	TRY(tensor_new(a, DT_DOUBLE, 1, (int64_t[]){ 5 }, &s->levels, e));
	TRY(add_state(s, "facts", s->facts, e));
	TRY(add_state(s, "counts", s->counts, e));
	TRY(add_state(s, "levels", s->levels, e));
	for (int i = 0; i < t->nweight; i++) {
		const char *name = t->weight[i].name;

		TRY(add_state(s, arena_fmt(a, "weight/%s", name), t->weight[i].t, e));
		for (size_t k = 0; k < sizeof each / sizeof *each; k++)
			if (each[k].of[i])
				TRY(add_state(s, arena_fmt(a, "%s/%s", each[k].kind, name), each[k].of[i], e));
	}
	return LINNET_OK;
}

static double spent(const struct training *t) { return t->spent + seconds_now() - t->began; }

static enum linnet_code write_checkpoint(struct training *t, const struct train_data *d, struct arena *a)
{
	struct linnet_error *e = t->e;
	struct named_tensor *list;
	struct state s;

	TRY(list_state(t, a, &s));
	facts_of(t, d, s.facts->data);
	memcpy(s.counts->data, (int64_t[]){ t->step, t->bad, t->large, t->keeps, t->o->steps }, s.counts->bytes);
	memcpy(s.levels->data, (double[]){ t->best, t->mean, t->lowest, t->start, spent(t) }, s.levels->bytes);
	TRY_NEW(list, a, s.n);
	for (int i = 0; i < s.n; i++)
		list[i] = (struct named_tensor){ s.item[i].name, s.item[i].t };
	t->saved = t->step;
	return npz_save(t->o->checkpoint, list, s.n, e);
}

/* The first of the processes writes. */
static enum linnet_code save_checkpoint(struct training *t, const struct train_data *d)
{
	struct arena *a = arena_new();
	enum linnet_code code = !a ? fail_mem(t->e) : t->rank ? LINNET_OK : write_checkpoint(t, d, a);

	arena_free(a);
	return code;
}

static enum linnet_code member(const struct named_tensor *list, int n, const char *name, struct tensor *to, struct linnet_error *e)
{
	for (int i = 0; i < n; i++) {
		const struct tensor *t = list[i].t;

		if (strcmp(list[i].name, name))
			continue;
		if (t->dt != to->dt || t->rank != to->rank || memcmp(t->d, to->d, (size_t)t->rank * sizeof *t->d))
			return fail(e, LINNET_ESHAPE, "the checkpoint's \"%s\" is of another shape than the model's", name);
		memcpy(to->data, t->data, t->bytes);
		return LINNET_OK;
	}
	return fail(e, LINNET_EFORMAT, "the checkpoint has no \"%s\"", name);
}

static enum linnet_code read_checkpoint(struct training *t, const struct train_data *d, struct arena *a)
{
	static const char *const names[FACTS] = { "seed", "batch", "batches a step", "length", "optimizer", "shard", "shards" };
	struct linnet_error *e = t->e;
	struct named_tensor *list;
	struct state s;
	int64_t fact[FACTS];
	int n;

	TRY(data_load(t->o->checkpoint, DT_UNDEFINED, NULL, a, &list, &n, e));
	TRY(list_state(t, a, &s));
	for (int i = 0; i < s.n; i++) {
		TRY(member(list, n, s.item[i].name, s.item[i].t, e));
		if (i)
			continue;
		facts_of(t, d, fact);
		for (int k = 0; k < FACTS; k++)
			if (tensor_get_int(s.facts, k) != fact[k])
				return fail(e, LINNET_EUSAGE, "the checkpoint was made with %s %lld; this run has %lld", names[k],
				            (long long)tensor_get_int(s.facts, k), (long long)fact[k]);
	}
	t->saved = t->step = tensor_get_int(s.counts, 0);
	t->bad = tensor_get_int(s.counts, 1);
	t->large = tensor_get_int(s.counts, 2);
	t->keeps = tensor_get_int(s.counts, 3) != 0;
	t->best = tensor_get(s.levels, 0);
	t->mean = tensor_get(s.levels, 1);
	t->lowest = tensor_get(s.levels, 2);
	t->start = tensor_get(s.levels, 3);
	t->spent = tensor_get(s.levels, 4);
	t->o->steps = t->o->seconds > 0 ? tensor_get_int(s.counts, 4) : t->o->steps;
	return LINNET_OK;
}

static enum linnet_code resume(struct training *t, const struct train_data *d, bool *resumed)
{
	struct arena *a = arena_new();
	enum linnet_code code;
	struct bytes b;
	struct linnet_error none = { 0 };

	*resumed = false;
	if (!a)
		return fail_mem(t->e);
	if (!file_load(a, t->o->checkpoint, (int64_t)1 << 40, &b, &none)) {
		*resumed = true;
		code = err_file(t->e, read_checkpoint(t, d, a), t->o->checkpoint);
	} else {
		code = none.code == LINNET_EIO ? LINNET_OK : none.code; /* there is none yet */
	}
	arena_free(a);
	return code;
}

/* ---- Several processes ---- */

static enum linnet_code sum_doubles(const struct training *t, double *x, int64_t n)
{
	return t->o->reduce ? t->o->reduce->sum_double(t->o->reduce->ctx, x, n, t->e) : LINNET_OK;
}

/* An error of one is an error of all, so that none waits for ever. */
static enum linnet_code agree(const struct training *t, enum linnet_code code)
{
	double failed = code != LINNET_OK;

	if (sum_doubles(t, &failed, 1) || code)
		return code ? code : t->e->code;
	return failed > 0 ? fail(t->e, LINNET_EUSAGE, "another of the %d processes failed", t->size) : LINNET_OK;
}

/* All begin with the same step and weights. */
static enum linnet_code compare_processes(const struct training *t)
{
	uint32_t crc = 0;
	double mine[2] = { (double)t->step, 0 }, all[2];

	if (!t->o->reduce)
		return LINNET_OK;
	for (int i = 0; i < t->nweight; i++)
		crc = (uint32_t)crc32(crc, t->weight[i].t->data, (uInt)t->weight[i].t->bytes);
	mine[1] = crc;
	memcpy(all, mine, sizeof all);
	TRY(sum_doubles(t, all, 2));
	if (all[0] != mine[0] * t->size || all[1] != mine[1] * t->size)
		return fail(t->e, LINNET_EUSAGE, "process %d begins with another step or other weights than the rest; do all see the same files?", t->rank);
	return LINNET_OK;
}

/* ---- Running ---- */

static enum linnet_code diverged(struct training *t, const char *what, double x, const char *how)
{
	if (t->saved < 0)
		return fail(t->e, LINNET_EVALUE, "%s is %g at step %lld%s; no checkpoint was kept", what, x, (long long)t->step, how);
	return fail(t->e, LINNET_EVALUE, "%s is %g at step %lld%s; %s holds step %lld, the last good one", what, x, (long long)t->step, how,
	            t->o->checkpoint, (long long)t->saved);
}

/* Gradients of one step, summed over its batches. Process r of n takes every n-th batch from number r on. */
static enum linnet_code gradients(struct training *t, struct train_data *d, double *loss)
{
	struct machine *m = &t->learn;

	*loss = 0;
	for (int64_t k = 0; k < t->o->accumulate; k++) {
		TRY(fill(t, m, d, true, ((t->step - 1) * t->o->accumulate + k) * t->size + t->rank, false));
		TRY(plan_run(m->plan, m->in, m->out, t->e));
		*loss += tensor_get(m->out[0], 0) / (double)(t->o->accumulate * t->size);
		for (int i = 0; i < t->nweight; i++) {
			const float *g = m->out[1 + i]->data;
			struct weight *w = &t->weight[i];

			for (int64_t j = 0; j < w->t->n; j++)
				w->grad[j] = k ? w->grad[j] + g[j] : g[j];
		}
		for (uint32_t i = 0; i < m->g->nout; i++)
			tensor_release(m->out[i]);
	}
	return LINNET_OK;
}

static enum linnet_code sum_gradients(struct training *t, double *loss)
{
	const struct reduce *r = t->o->reduce;

	TRY(sum_doubles(t, loss, 1));
	for (int i = 0; r && i < t->nweight; i++)
		TRY(r->sum(r->ctx, t->weight[i].grad, t->weight[i].t->n, t->e));
	return LINNET_OK;
}

/* The means of the first n outputs, all their elements, over whole batches of samples in order, at most `most` of them (0: all): this process's share. */
static enum linnet_code judge(struct training *t, struct train_data *d, int n, int64_t most, double *mean)
{
	struct machine *m = &t->judge;
	int64_t samples, batches;

	TRY(data_samples(d, t->o->length, &samples, t->e));
	batches = samples / t->o->batch ? samples / t->o->batch : 1;
	batches = most && batches > most ? most : batches;
	memset(mean, 0, (size_t)n * sizeof *mean);
	for (int64_t k = t->rank; k < batches; k += t->size) {
		double *to = mean;

		TRY(fill(t, m, d, false, k, t->o->average > 0));
		TRY(plan_run(m->plan, m->in, m->out, t->e));
		for (int i = 0; i < n; i++) {
			for (int64_t c = 0; c < m->out[i]->n; c++, to++)
				*to = (k == t->rank ? 0 : *to) + tensor_get(m->out[i], c) / (double)batches;
			tensor_release(m->out[i]);
		}
	}
	return LINNET_OK;
}

/* The mean loss over all whole batches of held-out samples, in order. */
static enum linnet_code evaluate(struct training *t, struct train_data *d, double *loss)
{
	TRY(agree(t, judge(t, d, 1, 0, loss)));
	return sum_doubles(t, loss, 1);
}

/* Losses that are far above the lowest mean, and above a tenth of the first, for several steps on end. */
static enum linnet_code watch(struct training *t, double loss)
{
	enum { SPAN = 10 };
	double level;
	char how[80];

	if (!isfinite(loss))
		return diverged(t, "the loss", loss, "");
	if (isnan(t->start))
		t->start = t->mean = t->lowest = loss;
	t->mean += (loss - t->mean) / SPAN;
	t->lowest = t->mean < t->lowest ? t->mean : t->lowest;
	level = t->o->explode * fmax(fabs(t->lowest), 0.1 * fabs(t->start));
	t->large = t->o->explode > 0 && loss > level ? t->large + 1 : 0;
	snprintf(how, sizeof how, ", and was over %.3g for %d steps", level, EXPLODED);
	return t->large == EXPLODED ? diverged(t, "the loss", loss, how) : LINNET_OK;
}

/* The state is written once the next loss and gradients have shown that its weights were good. */
static enum linnet_code one_step(struct training *t, struct train_data *d, struct train_event *ev)
{
	double factor = 1 / (double)(t->o->accumulate * t->size), norm;
	bool due = t->o->checkpoint && t->o->keep && t->step && t->step % t->o->keep == 0 && t->step != t->saved;
	double mean = t->mean, lowest = t->lowest, start = t->start;
	int64_t large = t->large;

	t->step++;
	TRY(agree(t, gradients(t, d, &ev->loss)));
	TRY(sum_gradients(t, &ev->loss));
	norm = norm_of(t->weight, t->nweight) * factor;
	TRY(watch(t, ev->loss));
	if (!isfinite(norm))
		return diverged(t, "the norm of the gradients", norm, "");
	if (due && !t->large) {
		struct training before = *t;

		before.step--;
		before.mean = mean;
		before.lowest = lowest;
		before.start = start;
		before.large = large;
		TRY(agree(t, save_checkpoint(&before, d)));
		t->saved = before.step;
	}
	if (t->o->clip > 0 && norm > t->o->clip)
		factor *= t->o->clip / norm;
	weights_step(t->o, t->weight, t->nweight, t->step, factor);
	ev->step = t->step;
	ev->rate = rate_at(t->o, t->o->rate, t->step);
	ev->norm = norm;
	ev->tokens = t->step * t->o->accumulate * t->size * t->o->batch * (data_is_stream(d) ? t->o->length : 1);
	return LINNET_OK;
}

/* A new best, or one more evaluation without. */
static void judged(struct training *t, double held_out)
{
	bool better = !(t->best <= held_out);

	t->bad = better ? 0 : t->bad + 1;
	t->best = better ? held_out : t->best;
	t->keeps = t->keeps || (better && t->o->patience);
	for (int i = 0; better && t->o->patience && i < t->nweight; i++)
		memcpy(t->kept[i]->data, t->average[i] ? t->average[i]->data : t->weight[i].t->data, t->kept[i]->bytes);
}

/* As many steps more as fit what is left of the seconds, by the time of those before. */
static enum linnet_code fit_seconds(struct training *t)
{
	double taken = spent(t), left;

	TRY(sum_doubles(t, &taken, 1));
	taken /= t->size;
	left = (t->o->seconds - taken) / taken * (double)t->step;
	t->o->steps = t->step + (left > 1 ? (int64_t)left : 1);
	return LINNET_OK;
}

static enum linnet_code run(struct training *t, struct train_data *data, struct train_data *held,
                            int (*report)(void *, const struct train_event *), void *ctx, struct train_result *r)
{
	enum { SPAN = 16 };
	struct train_event ev = { .held_out = NAN };
	int64_t look = t->step + 1;
	bool go = true;

	t->began = seconds_now();
	r->held_out = NAN;
	r->stopped = t->o->patience && t->bad >= t->o->patience;
	while (go && t->step < t->o->steps && !r->stopped) {
		bool last;

		TRY(one_step(t, data, &ev));
		last = t->step == t->o->steps;
		if (t->o->seconds > 0 && t->step >= look && !last) {
			TRY(fit_seconds(t));
			look = t->step + (t->o->steps + SPAN - 1) / SPAN;
		}
		ev.evaluated = held && (last || (t->o->evaluate && t->step % t->o->evaluate == 0));
		if (ev.evaluated) {
			TRY(evaluate(t, held, &ev.held_out));
			if (!isfinite(ev.held_out))
				return diverged(t, "the held-out loss", ev.held_out, "");
			judged(t, ev.held_out);
			r->stopped = t->o->patience && t->bad >= t->o->patience;
			r->held_out = ev.held_out;
		}
		ev.best = t->best;
		for (int i = 0; (last || r->stopped) && i < t->nweight; i++)
			for (int64_t k = 0; k < t->weight[i].t->n; k++)
				if (!isfinite(((const float *)t->weight[i].t->data)[k]))
					return diverged(t, t->weight[i].name, ((const float *)t->weight[i].t->data)[k], "");
		if (t->o->checkpoint && (last || r->stopped))
			TRY(agree(t, save_checkpoint(t, data)));
		ev.seconds = seconds_now() - t->began;
		ev.steps = t->o->steps;
		r->loss = ev.loss;
		go = !(report && report(ctx, &ev)) && t->step != t->o->stop_at;
	}
	if (held && isnan(r->held_out) && go)
		TRY(evaluate(t, held, &r->held_out));
	r->held_out = t->keeps ? t->best : r->held_out;
	return LINNET_OK;
}

/* The model's constants take the trained contents. */
static enum linnet_code give_back(struct training *t, struct linnet_model *m)
{
	for (int i = 0; i < t->nweight; i++) {
		struct value *v = &m->graph->value[named(m->graph, t->weight[i].name)];
		const struct tensor *from = t->keeps ? t->kept[i] : t->average[i] ? t->average[i] : t->weight[i].t;
		struct tensor *to;

		TRY(tensor_new(m->arena, DT_FLOAT, from->rank, from->d, &to, t->e));
		memcpy(to->data, from->data, from->bytes);
		v->type.value = to;
	}
	m->changed = true;
	return graph_infer(m->graph, t->e);
}

enum linnet_code train(struct linnet_model *m, const struct train_opt *opt, struct train_data *data, struct train_data *held_out,
                       int (*report)(void *ctx, const struct train_event *), void *ctx, struct train_result *out, struct linnet_error *e)
{
	struct train_opt o = *opt;
	struct training t = { .a = arena_new(), .o = &o, .e = e, .vocabulary = -1, .best = NAN, .mean = NAN, .lowest = NAN,
	                      .start = NAN, .saved = -1, .rank = opt->reduce ? opt->reduce->rank : 0, .size = opt->reduce ? opt->reduce->size : 1 };
	enum linnet_code code = t.a ? make_graphs(&t, m->graph, data) : fail_mem(e);

	*out = (struct train_result){ 0 };
	if (!code && t.vocabulary >= 0)
		code = data_check_tokens(data, t.vocabulary, e);
	if (!code && held_out && t.vocabulary >= 0)
		code = data_check_tokens(held_out, t.vocabulary, e);
	if (!code)
		code = bind(&t, &t.learn, data);
	if (!code && held_out)
		code = bind(&t, &t.judge, held_out);
	if (!code)
		code = fit_memory(&t, data, out);
	if (!code && opt->checkpoint)
		code = resume(&t, data, &out->resumed);
	if (opt->reduce)
		code = agree(&t, code);
	if (!code)
		code = compare_processes(&t);
	if (!code)
		code = run(&t, data, held_out, report, ctx, out);
	if (!code)
		code = give_back(&t, m);
	out->step = t.step;
	out->peak = t.learn.plan ? plan_peak_bytes(t.learn.plan) : 0;
	out->weights = t.nweight;
	for (int i = 0; i < t.nweight; i++)
		out->parameters += t.weight[i].t->n;
	plan_free(t.learn.plan);
	plan_free(t.judge.plan);
	arena_free(t.a);
	return code;
}

enum linnet_code train_means(const struct linnet_model *m, const struct train_opt *opt, struct train_data *data, const char *const *output, int n,
                             int64_t most, double *mean, struct linnet_error *e)
{
	struct train_opt o = *opt;
	struct training t = { .a = arena_new(), .o = &o, .e = e, .vocabulary = -1, .best = NAN, .size = 1 };
	value_id *out = t.a ? NEW(t.a, (size_t)n, value_id) : NULL;
	enum linnet_code code = out ? graph_copy(m->graph, t.a, &t.judge.g, e) : fail_mem(e);

	o.loss = output[0];
	o.average = 0;
	if (!code)
		code = find_loss(&t, t.judge.g, data);
	for (int i = 0; i < n && !code; i++)
		out[i] = named(t.judge.g, output[i]);
	if (!code)
		code = settle(&t, t.judge.g, out, (uint32_t)n);
	if (!code)
		code = make_machine(&t, &t.judge, false);
	if (!code)
		code = bind(&t, &t.judge, data);
	if (!code)
		code = judge(&t, data, n, most, mean);
	plan_free(t.judge.plan);
	arena_free(t.a);
	return code;
}
