/* Teacher, student and loss in one graph. */
#include "calibrate/graphs.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/base/rng.h"

/* ---- Which constants are weights ---- */

static bool is_vector(const struct shape *s)
{
	int long_axes = 0;

	for (int i = 0; i < s->rank; i++)
		long_axes += !dim_is_int(s->d[i]) || s->d[i] != 1;
	return long_axes == 1;
}

/* Whether what node n computes ends up in angles, as rotary frequencies do, a few nodes on. */
static bool turns(const struct graph *g, const struct uses *u, value_id v, int depth)
{
	for (uint32_t i = u->begin[v]; depth && i < u->end[v]; i++) {
		const struct node *n = &g->node[u->use[i].node];

		if (!u->use[i].node || n->dead)
			continue;
		if (node_is(n, "Cos") || node_is(n, "Sin"))
			return true;
		for (uint32_t k = 0; k < n->nout; k++)
			if (n->out[k] && turns(g, u, n->out[k], depth - 1))
				return true;
	}
	return false;
}

/* Whether a constant read there is a weight of the model. */
static bool is_weight(const struct graph *g, const struct uses *u, const struct node *n, uint32_t input)
{
	const struct shape *s = &g->value[n->in[input]].type.shape;

	if (node_is(n, "MatMul") || node_is(n, "Gemm"))
		return s->rank >= 2 || (node_is(n, "Gemm") && input == 2);
	if (node_is(n, "Conv") || node_is(n, "ConvTranspose") || node_is(n, "LayerNormalization") || node_is(n, "RMSNormalization") ||
	    node_is(n, "GroupNormalization") || node_is(n, "InstanceNormalization"))
		return input > 0;
	if (node_is(n, "Gather"))
		return input == 0 && s->rank == 2;
	if (node_is(n, "Add") || node_is(n, "Mul"))
		return is_vector(s) && !turns(g, u, n->out[0], 6);
	return false;
}

/* The digits and the dot that parameters' names begin with, and not those that recipes leave alone. */
static bool is_parameter(const struct graph *before, const struct value *v)
{
	static const char *const alone[] = { ".fade", ".slope", ".pool", ".q_angle", ".k_angle" };
	const char *p = v->name;

	while (isdigit((unsigned char)*p))
		p++;
	for (size_t i = 0; i < sizeof alone / sizeof *alone; i++)
		if (!strcmp(p, alone[i]))
			return false;
	return p > v->name && *p == '.' && !map_get(&before->names, v->name, NULL);
}

static enum linnet_code list_weights(struct lesson *l, const struct graph *before, struct linnet_error *e)
{
	struct graph *g = l->model.graph;
	struct uses u;
	struct arena *s = arena_new();
	enum linnet_code code = s ? graph_uses(g, s, &u, e) : fail_mem(e);

	l->fresh.v = NEW(g->arena, g->nvalue, const char *);
	l->inherited.v = NEW(g->arena, g->nvalue, const char *);
	if (!code && (!l->fresh.v || !l->inherited.v))
		code = fail_mem(e);
	for (value_id v = 1; !code && v < g->nvalue; v++) {
		const struct value *x = &g->value[v];
		bool read = false;

		if (x->kind != VALUE_CONST || x->type.dt != DT_FLOAT)
			continue;
		if (is_parameter(before, x)) {
			l->fresh.v[l->fresh.n++] = x->name;
			continue;
		}
		for (uint32_t i = u.begin[v]; i < u.end[v] && !read; i++)
			read = u.use[i].node && is_weight(g, &u, &g->node[u.use[i].node], u.use[i].index);
		if (read)
			l->inherited.v[l->inherited.n++] = x->name;
	}
	arena_free(s);
	return code;
}

/* ---- The student ---- */

enum linnet_code lesson_student(const struct linnet_model *m, const struct convert_opt *opt, const struct named_tensor *given, int ngiven, enum beside beside,
                                struct arena *a, struct lesson *out, struct linnet_error *e)
{
	struct convert_opt c = *opt;

	*out = (struct lesson){ .model = *m };
	c.target = TARGET_ONNX;
	c.opset = 0;
	c.given = given;
	c.ngiven = ngiven;
	c.beside = beside;
	c.open = true;
	out->model.arena = a;
	TRY(graph_copy(m->graph, a, &out->model.graph, e));
	TRY(convert_model(&out->model, &c, &out->report, e));
	if (!out->report.nconverted)
		return fail(e, LINNET_EUNSUPPORTED, out->report.nitem ? "no attention can be converted: %s" : "no attention was recognised",
		            out->report.nitem ? out->report.item[0].reason : "");
	return list_weights(out, m->graph, e);
}

/* ---- Losses ---- */

static const struct op_io pair_in[] = { { "soft" }, { "linear" }, { NULL } }, loss_out[] = { { "loss" }, { NULL } };
static const struct op distance = { .name = "Distance", .in = pair_in, .out = loss_out };

/* mean |linear - soft|^2 / mean |soft|^2 */
static const char error_text[] = "{ d = Sub (linear, soft)\n"
                                 "  dd = Mul (d, d)\n"
                                 "  m = ReduceMean <keepdims = 0> (dd)\n"
                                 "  ss = Mul (soft, soft)\n"
                                 "  n = ReduceMean <keepdims = 0> (ss)\n"
                                 "  tiny = Constant <value = float {1e-20}> ()\n"
                                 "  more = Add (n, tiny)\n"
                                 "  loss = Div (m, more) }";

/* The mean over rows of KL(soft || linear). */
static const char divergence_text[] = "{ a = LogSoftmax <axis = -1> (soft)\n"
                                      "  p = Exp (a)\n"
                                      "  b = LogSoftmax <axis = -1> (linear)\n"
                                      "  d = Sub (a, b)\n"
                                      "  w = Mul (p, d)\n"
                                      "  last = Constant <value = int64[1] {-1}> ()\n"
                                      "  row = ReduceSum <keepdims = 0> (w, last)\n"
                                      "  loss = ReduceMean <keepdims = 0> (row) }";

/* The mean over rows of the cross-entropy of weights, less what it is at best. Source: Zhang et al., The Hedgehog & the Porcupine, 2024, section 4.2 */
static const char weights_text[] = "{ tiny = Constant <value = float {1e-9}> ()\n"
                                   "  p = Max (soft, tiny)\n"
                                   "  w = Max (linear, tiny)\n"
                                   "  a = Log (p)\n"
                                   "  b = Log (w)\n"
                                   "  d = Sub (a, b)\n"
                                   "  pd = Mul (soft, d)\n"
                                   "  last = Constant <value = int64[1] {-1}> ()\n"
                                   "  row = ReduceSum <keepdims = 0> (pd, last)\n"
                                   "  loss = ReduceMean <keepdims = 0> (row) }";

static enum linnet_code add_distance(struct graph *g, const char *text, const char *name, value_id soft, value_id linear, value_id *out,
                                     struct linnet_error *e)
{
	value_id in[] = { soft, linear };
	bool wanted = true;
	struct block_call c = { .op = &distance, .name = name, .in = in, .wanted = &wanted, .out = out, .nin = 2, .nout = 1,
	                        .real = g->value[soft].type.dt };

	return graph_add_block(g, text, &c, e);
}

/* What the model itself says its loss is: an output of one float; 0: it has none. */
static value_id own_loss(const struct graph *g, uint32_t nout)
{
	for (uint32_t i = 0; i < nout; i++) {
		const struct type *t = &g->value[g->out[i]].type;
		bool one = t->dt == DT_FLOAT && t->shape.rank >= 0;

		for (int k = 0; k < t->shape.rank; k++)
			one = one && t->shape.d[k] == 1;
		if (one)
			return g->out[i];
	}
	return 0;
}

static const char half_text[] = "{ c = Constant <value = float {0.5}> ()\n"
                                "  h = Mul (linear, c)\n"
                                "  loss = Add (soft, h) }";

/* The mean of terms, as the output "loss"; half of it and the task's loss, where there is one. */
static enum linnet_code add_mean(struct lesson *l, const value_id *term, uint32_t n, value_id task, struct linnet_error *e)
{
	struct graph *g = l->model.graph;
	node_id id;
	value_id loss;

	TRY(graph_add_node(g, op_find(NULL, "Mean", OPSET_NEWEST), "loss", term, n, NULL, 1, NULL, 0, &id, e));
	TRY(graph_infer_node(g, id, e));
	loss = g->node[id].out[0];
	if (task)
		TRY(add_distance(g, half_text, "hybrid", task, loss, &loss, e));
	l->loss = g->value[loss].name;
	return graph_add_output(g, loss) ? fail_mem(e) : LINNET_OK;
}

value_id lesson_output(const struct lesson *l, const char *what, uint32_t layer)
{
	const struct graph *g = l->model.graph;
	char name[40];

	snprintf(name, sizeof name, "%s.%u", what, layer);
	for (uint32_t i = 0; i < g->nout; i++)
		if (!strcmp(g->value[g->out[i]].name, name))
			return g->out[i];
	return 0;
}

enum linnet_code lesson_transfer(struct lesson *l, struct linnet_error *e)
{
	struct graph *g = l->model.graph;
	value_id *term;
	uint32_t n = 0;

	TRY_NEW(term, g->arena, l->report.nitem);
	TRY_NEW(l->error, g->arena, l->report.nitem);
	for (uint32_t i = 0; i < l->report.nitem; i++) {
		char name[40];

		if (!l->report.item[i].converted)
			continue;
		snprintf(name, sizeof name, "error.%u", i);
		TRY(add_distance(g, l->report.item[i].weights ? weights_text : error_text, name, lesson_output(l, "soft", i), lesson_output(l, "linear", i), &term[n], e));
		l->error[n] = g->value[term[n]].name;
		n++;
	}
	return add_mean(l, term, n, 0, e);
}

/* Outputs of classes: of rank 2 or more, and called logits or scores, or wide. */
static bool is_logits(const struct value *v)
{
	const struct shape *s = &v->type.shape;
	char lower[64];
	size_t n = 0;

	for (; v->name[n] && n + 1 < sizeof lower; n++)
		lower[n] = (char)tolower((unsigned char)v->name[n]);
	lower[n] = '\0';
	return s->rank >= 2 && dim_is_int(s->d[s->rank - 1]) && s->d[s->rank - 1] > 1 &&
	       (strstr(lower, "logit") || strstr(lower, "score") || strstr(lower, "class"));
}

enum linnet_code lesson_task(struct lesson *l, const struct linnet_model *teacher, struct linnet_error *e)
{
	value_id own = own_loss(l->model.graph, l->model.graph->nout);

	if (!own)
		return lesson_distil(l, teacher, false, e);
	l->loss = l->model.graph->value[own].name;
	return LINNET_OK;
}

enum linnet_code lesson_distil(struct lesson *l, const struct linnet_model *teacher, bool task, struct linnet_error *e)
{
	struct graph *g = l->model.graph;
	const struct graph *t = teacher->graph;
	value_id *to, *term, own = own_loss(g, g->nout);
	uint32_t n = 0, nout = g->nout;
	bool logits = false;

	TRY_NEW(to, g->arena, t->nvalue);
	TRY_NEW(term, g->arena, nout);
	TRY(graph_join(g, t, to, e));
	for (uint32_t i = 0; i < nout && i < t->nout; i++)
		logits |= is_logits(&g->value[g->out[i]]);
	for (uint32_t i = 0; i < nout && i < t->nout; i++) {
		const struct value *v = &g->value[g->out[i]];
		bool classes = is_logits(v);

		if (v->type.dt == DT_FLOAT && classes == logits && g->out[i] != own) /* where there are logits, they are what counts */
			TRY(add_distance(g, classes ? divergence_text : error_text, v->name, to[t->out[i]], g->out[i], &term[n++], e));
	}
	if (!n)
		return fail(e, LINNET_EUNSUPPORTED, "the model has no output of float to compare with the softmax model's");
	return add_mean(l, term, n, task ? own : 0, e);
}

/* ---- Adapters ---- */

static enum linnet_code adapt(struct graph *g, value_id w, int64_t rank, struct rng *r, struct names *out, value_id *to, struct linnet_error *e)
{
	static const struct op_io in[] = { { "w" }, { "a" }, { "b" }, { NULL } }, outs[] = { { "y" }, { NULL } };
	static const struct op row = { .name = "Adapter", .in = in, .out = outs };
	static const char text[] = "{ p = MatMul (a, b)\n"
	                           "  s = Constant <value = float {2}> ()\n"
	                           "  d = Mul (p, s)\n"
	                           "  y = Add (w, d) }";
	const struct shape *s = &g->value[w].type.shape;
	const char *name = g->value[w].name;
	struct tensor *a, *b;
	value_id input[3] = { w };
	bool wanted = true;
	struct block_call c = { .op = &row, .name = name, .in = input, .wanted = &wanted, .out = to, .nin = 3, .nout = 1, .real = DT_FLOAT };

	TRY(tensor_new(g->arena, DT_FLOAT, 2, (int64_t[]){ s->d[0], rank }, &a, e));
	TRY(tensor_new(g->arena, DT_FLOAT, 2, (int64_t[]){ rank, s->d[1] }, &b, e));
	memset(b->data, 0, b->bytes);
	for (int64_t i = 0; i < a->n; i++)
		tensor_put(a, i, (2 * rng_unit(r) - 1) / sqrt((double)s->d[0]));
	input[1] = graph_add_const(g, a, arena_fmt(g->arena, "a.%s", name));
	input[2] = graph_add_const(g, b, arena_fmt(g->arena, "b.%s", name));
	if (!input[1] || !input[2])
		return fail_mem(e);
	out->v[out->n++] = g->value[input[1]].name;
	out->v[out->n++] = g->value[input[2]].name;
	return graph_add_block(g, text, &c, e);
}

enum linnet_code lesson_low_rank(struct lesson *l, int64_t rank, uint64_t seed, struct names *out, struct linnet_error *e)
{
	struct graph *g = l->model.graph;
	struct rng r = { seed };
	value_id *adapted;
	uint32_t nnode = g->nnode, nvalue = g->nvalue;

	TRY_NEW(out->v, g->arena, 2 * (size_t)nvalue);
	TRY_NEW(adapted, g->arena, nvalue);
	out->n = 0;
	for (node_id i = 1; i < nnode; i++) {
		const struct node *n = &g->node[i];
		value_id w;

		if (n->dead || !(node_is(n, "MatMul") || node_is(n, "Gemm")))
			continue;
		w = n->in[1];
		if (w >= nvalue || g->value[w].kind != VALUE_CONST || g->value[w].type.dt != DT_FLOAT || g->value[w].type.shape.rank != 2 ||
		    g->value[w].type.value->d[0] <= rank || g->value[w].type.value->d[1] <= rank)
			continue;
		if (!adapted[w])
			TRY(adapt(g, w, rank, &r, out, &adapted[w], e));
		g->node[i].in[1] = adapted[w];
	}
	return LINNET_OK;
}
