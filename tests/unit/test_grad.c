/*
 * Gradients: of every row that has one, on drawn calls, against differences in double precision; of composed graphs, twice, through
 * subgraphs; and what is refused.
 *
 * `test_grad [-n CASES] NAME ...` runs the rows of these operators alone.
 */
#include "tests/unit/drawn.h"

#include "graph/grad.h"
#include "graph/template.h"

enum { CASES = 12, WAYS = 3 };

static bool real(const struct tensor *t) { return t && t->kind == KIND_TENSOR && dtype_in(t->dt, SET(FLOAT) | SET(DOUBLE)); }

/* ---- Single operators ---- */

/* Operators that have none, though inputs ought to. */
static const struct reason without[] = {
	{ "MatMulIntegerToFloat", "its body is not for all ranks of scales" },
	{ NULL, NULL },
};

/* A call, and weights that make one number of its outputs. */
struct trial {
	const struct call *c;
	struct arena *a;
	struct tensor *weight[CALL_MAX]; /* NULL: the output does not count */
	struct graph *g;
	value_id from[CALL_MAX], loss; /* of the graph */
	const struct tensor *in[CALL_MAX]; /* of the graph */
	bool asked[CALL_MAX];
};

static struct tensor *random_like(struct arena *a, const struct tensor *x)
{
	struct tensor *t;

	assert_false(tensor_new(a, x->dt, x->rank, x->d, &t, NULL));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(t, i, 2 * rng_unit(&draw_rng) - 1);
	return t;
}

/* loss = sum of weight y over outputs, as a graph of the call. */
static enum linnet_code make_graph(struct trial *t, struct linnet_error *e)
{
	const struct call *c = t->c;
	value_id made[CALL_MAX] = { 0 };
	struct dims *dims = dims_new(t->a);
	node_id n;

	if (!dims)
		return fail_mem(e);
	t->g = graph_new(t->a, dims, e);
	if (!t->g)
		return LINNET_EMEM;
	for (int i = 0; i < c->nin; i++) {
		struct type type;

		if (!c->in[i])
			continue;
		if (!t->asked[i]) {
			t->from[i] = graph_add_const(t->g, c->in[i], "x");
			continue;
		}
		type = type_of(c->in[i]);
		type.value = NULL;
		type.sym = NULL;
		t->in[t->g->nin] = c->in[i];
		t->from[i] = graph_add_input(t->g, arena_fmt(t->a, "x%d", i), &type);
	}
	for (int i = 0; i < c->nout; i++)
		if (c->wanted[i])
			made[i] = graph_add_value(t->g, VALUE_NODE, arena_fmt(t->a, "y%d", i), NULL);
	TRY(graph_add_node(t->g, c->op, "n", t->from, (uint32_t)c->nin, made, (uint32_t)c->nout, c->given, (uint32_t)c->ngiven, &n, e));
	for (int i = 0; i < c->nout; i++) {
		value_id in[2] = { made[i] };

		if (!t->weight[i])
			continue;
		in[1] = graph_add_const(t->g, t->weight[i], "w");
		TRY(graph_add_node(t->g, op_newest(NULL, "Mul"), "weigh", in, 2, NULL, 1, NULL, 0, &n, e));
		in[0] = t->g->node[n].out[0];
		TRY(graph_add_node(t->g, op_newest(NULL, "ReduceSum"), "sum", in, 1, NULL, 1,
		                   (struct attr[]){ { .name = "keepdims", .kind = ATTR_INT } }, 1, &n, e));
		if (t->loss) {
			in[0] = t->g->node[n].out[0];
			in[1] = t->loss;
			TRY(graph_add_node(t->g, op_newest(NULL, "Add"), "both", in, 2, NULL, 1, NULL, 0, &n, e));
		}
		t->loss = t->g->node[n].out[0];
	}
	return graph_infer(t->g, e);
}

static double loss_of(const struct trial *t, struct tensor *const *out)
{
	double sum = 0;

	for (int i = 0; i < t->c->nout; i++)
		for (int64_t k = 0; t->weight[i] && k < t->weight[i]->n; k++)
			sum += tensor_get(t->weight[i], k) * tensor_get(out[i], k);
	return sum;
}

/* The loss with input i moved by h along a way; *ok is false when the call is none then. */
static double moved(const struct trial *t, int i, const struct tensor *way, double h, bool *ok)
{
	struct tensor *out[CALL_MAX] = { NULL }, *x;
	struct call c = *t->c;
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	double loss = 0;

	assert_false(tensor_new(a, c.in[i]->dt, c.in[i]->rank, c.in[i]->d, &x, NULL));
	for (int64_t k = 0; k < x->n; k++)
		tensor_put(x, k, tensor_get(c.in[i], k) + h * tensor_get(way, k));
	c.in[i] = x;
	*ok = !op_eval(c.op, c.attr, c.nin, c.in, c.nout, c.wanted, a, out, &e);
	for (int k = 0; *ok && k < c.nout; k++)
		*ok = !t->weight[k] || (out[k] && out[k]->n == t->weight[k]->n);
	if (*ok)
		loss = loss_of(t, out);
	arena_free(a);
	return loss;
}

struct tally {
	int calls, ways, kinks;
	const char *why;
};

/*
 * Along random ways: the difference quotient over h and h / 2, extrapolated, against the gradient. Where they are far apart, and where slopes to
 * both sides do not come together as h shrinks, there is a kink.
 */
static void check_input(const struct trial *t, int i, const struct tensor *grad, struct tally *n)
{
	bool narrow = false, ok;
	double h, near;

	for (int k = 0; k < t->c->nin; k++)
		narrow |= t->c->in[k] && t->c->in[k]->dt == DT_FLOAT;
	for (int k = 0; k < t->c->nout; k++)
		narrow |= t->weight[k] && t->weight[k]->dt == DT_FLOAT;
	narrow |= op_attr_index(t->c->op, "stash_type") >= 0 && !t->c->op->write_grad; /* computed in float */
	h = narrow ? 1e-2 : 2e-4;
	near = narrow ? 3e-3 : 1e-6;
	for (int w = 0; w < WAYS; w++) {
		struct arena *a = arena_new();
		struct tensor *way = random_like(a, t->c->in[i]);
		double f[5], d1, d2, d, dot = 0, scale = 0, all = 0, bend, half_bend;

		if (w) { /* few elements */
			for (int64_t k = 0; k < way->n; k++)
				if (k != (int64_t)(rng_below(&draw_rng, (uint64_t)way->n)))
					tensor_put(way, k, 0);
		}
		f[0] = moved(t, i, way, h, &ok);
		f[1] = ok ? moved(t, i, way, -h, &ok) : 0;
		f[2] = ok ? moved(t, i, way, h / 2, &ok) : 0;
		f[3] = ok ? moved(t, i, way, -h / 2, &ok) : 0;
		f[4] = ok ? moved(t, i, way, 0, &ok) : 0;
		d1 = (f[0] - f[1]) / (2 * h);
		bend = fabs(f[0] + f[1] - 2 * f[4]) / h;
		half_bend = fabs(f[2] + f[3] - 2 * f[4]) / (h / 2);
		d2 = (f[2] - f[3]) / h;
		d = (4 * d2 - d1) / 3;
		for (int64_t k = 0; k < way->n; k++) {
			dot += tensor_get(grad, k) * tensor_get(way, k);
			scale += fabs(tensor_get(grad, k) * tensor_get(way, k));
		}
		for (int k = 0; k < 4; k++)
			all = fmax(all, fabs(f[k]));
		arena_free(a);
		scale = fmax(fmax(scale, fabs(d)), (narrow ? 1e-1 : 1e-2) * fmax(1, all));
		if (!ok || !isfinite(d) || scale > 1e6)
			continue;
		if (fabs(d1 - d2) > (op_in(t->c->op, i)->flow == FLOW_KINKED ? near / 10 : narrow ? near : 1e-4) * scale ||
		    (half_bend > 0.75 * bend && half_bend > (narrow ? 1e-2 : 1e-5) * scale)) {
			n->kinks++;
			continue;
		}
		n->ways++;
		if (!(fabs(d - dot) <= near * scale)) {
			complain_of(t->c, t->a, "the gradient along input %d is %.17g, differences give %.17g", i, dot, d);
			return;
		}
	}
}

/* Elements that are not equal, where it would matter. */
static const struct tensor *apart(struct arena *a, const struct tensor *x)
{
	struct tensor *t = random_like(a, x);

	for (int64_t i = 0; i < x->n; i++)
		tensor_put(t, i, tensor_get(x, i) + 0.04 * tensor_get(t, i));
	return t;
}

static void check_call(struct call *c, struct tensor **out, struct arena *a, struct tally *n)
{
	struct trial t = { .c = c, .a = a };
	struct linnet_error e = { 0 };
	value_id wrt[CALL_MAX], grad[CALL_MAX];
	struct tensor *got[CALL_MAX] = { NULL };
	int input[CALL_MAX], asked = 0;
	enum dtype first = DT_UNDEFINED;
	enum linnet_code code;

	for (int i = 0; i < c->nin; i++) {
		t.asked[i] = real(c->in[i]) && c->in[i]->n && op_in(c->op, i)->flow != FLOW_NONE;
		if (t.asked[i] && op_in(c->op, i)->flow == FLOW_KINKED)
			c->in[i] = apart(a, c->in[i]);
	}
	if (op_eval(c->op, c->attr, c->nin, c->in, c->nout, c->wanted, a, out, &e))
		return;
	for (int i = 0; i < c->nout; i++)
		if (c->wanted[i] && real(out[i]) && out[i]->n) {
			if (first && out[i]->dt != first)
				continue;
			t.weight[i] = random_like(a, out[i]);
			first = out[i]->dt;
		}
	if (!first || (!strcmp(c->op->name, "Dropout") && c->nin > 2 && c->in[2] && tensor_get_int(c->in[2], 0)))
		return; /* or at random */
	code = make_graph(&t, &e);
	for (int i = 0; i < c->nin; i++)
		if (t.asked[i]) {
			wrt[asked] = t.from[i];
			input[asked++] = i;
		}
	if (!asked)
		return;
	code = code ? code : graph_grad(t.g, t.loss, wrt, (uint32_t)asked, grad, &e);
	if (code == LINNET_EUNSUPPORTED || strstr(e.message, "the body does not define")) {
		n->why = arena_str(a, e.message);
		verbose("%s: %s", row_title(c->op), e.message);
		return;
	}
	for (int i = 0; !code && i < asked; i++)
		if (grad[i] && graph_add_output(t.g, grad[i]))
			code = fail_mem(&e);
	code = code ? code : graph_compact(t.g, a, &e);
	code = code ? code : graph_infer(t.g, &e);
	code = code ? code : graph_verify(t.g, &e);
	code = code ? code : run_graph(t.g, t.in, got, &e);
	if (code) {
		complain_of(c, a, "its gradient: LINNET_%s %s%s%s: %s", linnet_code_name(code), e.node, *e.op ? " " : "", e.op, e.message);
		return;
	}
	n->calls++;
	for (int i = 0, k = 0; i < asked; i++) {
		struct tensor *zero;

		if (grad[i] && (got[k]->rank != c->in[input[i]]->rank || memcmp(got[k]->d, c->in[input[i]]->d, sizeof *got[k]->d * (size_t)got[k]->rank))) {
			complain_of(c, a, "the gradient along input %d has another shape", input[i]);
			tensor_release(got[k++]);
			continue;
		}
		assert_false(tensor_new(a, c->in[input[i]]->dt, c->in[input[i]]->rank, c->in[input[i]]->d, &zero, NULL));
		check_input(&t, input[i], grad[i] ? got[k] : zero, n);
		if (grad[i])
			tensor_release(got[k++]);
	}
}

static void check_row(const struct op *op)
{
	struct tally n = { 0 };
	enum op_gradient has = op_gradient(op);
	const char *why = "";
	char kept[300] = "";

	if (op_is_old(op) || !op->kernel || op->agree == AGREE_RANDOM || has == GRADIENT_NO || has == GRADIENT_GRAPHS || (op->domain && listed(op, without)))
		return;
	if (has == GRADIENT_MISSING) {
		if (!op->domain && !listed(op, without))
			complain("%s: no gradient, and not listed as without", row_title(op));
		return;
	}
	for (int k = 0; n.calls < cases(CASES) && k < 40 * cases(CASES); k++) {
		struct call_opt opt = { .types = (k % 4 ? SET(DOUBLE) : SET(FLOAT)) | SET(INT64) | SET(BOOL), .elements = 60 };
		struct tensor *out[CALL_MAX] = { NULL };
		struct arena *a = arena_new();
		struct draw_count drawn = { 0 };
		struct call c;

		if (draw_good(op, &opt, a, &c, out, &drawn))
			check_call(&c, out, a, &n);
		if (n.why)
			snprintf(kept, sizeof kept, "%s", n.why);
		n.why = NULL;
		why = kept;
		arena_free(a);
	}
	if (!n.ways && !op->domain && !listed(op, without))
		complain("%s: no gradient could be checked (%d calls, %d kinks): %s", row_title(op), n.calls, n.kinks, why);
	verbose("%s: %d calls, %d ways, %d kinks", row_title(op), n.calls, n.ways, n.kinks);
}

static void rows_agree(void **state)
{
	(void)state;
	complaints = 0;
	each_row(check_row);
	assert_int_equal(complaints, 0);
}

/* ---- Graphs ---- */

/* Functions of double inputs to one double number, and how often they are differentiated. */
static const struct {
	const char *what, *text;
	int times;
} functions[] = {
	{ "values used twice", "(double[3] x) => (double y) { a = Mul (x, x)\n b = Mul (a, x)\n c = Add (a, b)\n y = ReduceSum <keepdims = 0> (c) }", 3 },
	{ "broadcast to all sides", "(double[2,1,3] x, double[4,1] w, double b) => (double y) {\n"
	  " p = Mul (x, w)\n q = Add (p, b)\n t = Tanh (q)\n y = ReduceSum <keepdims = 0> (t) }", 2 },
	{ "broadcast of unknown lengths", "(double[N,M] x, double[K] w) => (double y) {\n"
	  " p = Mul (x, w)\n t = Sin (p)\n y = ReduceSum <keepdims = 0> (t) }", 2 },
	{ "indices stop it", "(double[3] x) => (double y) { i = ArgMax (x)\n g = Gather (x, i)\n s = Mul (g, g)\n y = ReduceSum <keepdims = 0> (s) }", 2 },
	{ "a softmax and its logarithm", "(double[2,4] x) => (double y) { s = Softmax (x)\n l = LogSoftmax (x)\n p = Mul (s, l)\n"
	  " y = ReduceSum <keepdims = 0> (p) }", 2 },
	{ "products and a normalisation", "(double[2,3] x, double[3,4] w, double[4] s) => (double y) { p = MatMul (x, w)\n"
	  " n = LayerNormalization (p, s)\n g = Gelu (n)\n q = Mul (g, p)\n y = ReduceSum <keepdims = 0> (q) }", 2 },
	{ "attention with grouped heads, a cap and a mask", "(double[1,2,3,2] q, double[1,1,3,2] k, double[1,1,3,2] v, double[3,3] m) => (double y) {\n"
	  " a = Attention <is_causal = 1, softcap = 2.0> (q, k, v, m)\n t = Sin (a)\n y = ReduceSum <keepdims = 0> (t) }", 2 },
	{ "attention behind a past, in packed heads", "(double[1,2,2] q, double[1,2,1] k, double[1,2,1] v, double[1,1,2,1] pk, double[1,1,2,1] pv) => (double y) {\n"
	  " a, ck, cv = Attention <is_causal = 1, q_num_heads = 2, kv_num_heads = 1, left_window_size = 2> (q, k, v, , pk, pv)\n s = ReduceSum <keepdims = 0> (a)\n"
	  " c = Mul (ck, cv)\n u = ReduceSum <keepdims = 0> (c)\n y = Mul (s, u) }", 2 },
	{ "a branch", "(double[3] x, double[3] w) => (double y) { c = Constant <value = bool {1}> ()\n"
	  " s = If (c) <then_branch = yes () => (a) { p = Mul (x, w)\n a = Sin (p) }, else_branch = no () => (a) { a = Neg (x) }>\n"
	  " y = ReduceSum <keepdims = 0> (s) }", 2 },
	{ "a branch that depends on the input", "(double[3] x, double[3] w) => (double y) { m = ReduceSum <keepdims = 0> (x)\n"
	  " z = Constant <value = double {0}> ()\n c = Less (z, m)\n"
	  " s, u = If (c) <then_branch = yes () => (a, b) { p = Mul (x, w)\n a = Sin (p)\n b = Mul (x, x) }, else_branch = no () => (a, b) {\n"
	  " a = Neg (x)\n b = Exp (w) }>\n t = Mul (s, u)\n y = ReduceSum <keepdims = 0> (t) }", 2 },
	{ "a scan", "(double[2] s0, double[5,2] x, double[2] w) => (double y) {\n"
	  " last, all = Scan <num_scan_inputs = 1, body = step (s, v) => (n, o) { p = Mul (s, w)\n q = Add (p, v)\n n = Tanh (q)\n o = Mul (n, v) }> (s0, x)\n"
	  " a = ReduceSum <keepdims = 0> (last)\n b = ReduceSum <keepdims = 0> (all)\n y = Mul (a, b) }", 2 },
	{ "a scan backwards along other axes", "(double[2] s0, double[2,5] x, double[2] w) => (double y) {\n"
	  " last, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1], scan_output_axes = [1],\n"
	  " scan_output_directions = [1], body = step (s, v) => (n, o) { p = Mul (s, w)\n q = Add (p, v)\n n = Sin (q)\n o = Mul (n, v) }> (s0, x)\n"
	  " a = ReduceSum <keepdims = 0> (last)\n b = Mul (all, x)\n c = ReduceSum <keepdims = 0> (b)\n y = Mul (a, c) }", 2 },
	{ "a loop", "(double[2] s0, double[2] w) => (double y) { m = Constant <value = int64 {4}> ()\n c = Constant <value = bool {1}> ()\n"
	  " last, all = Loop (m, c, s0) <body = step (i, d, s) => (d2, n, o) { d2 = Identity (d)\n f = Cast <to = 11> (i)\n p = Mul (s, w)\n"
	  " q = Add (p, f)\n n = Sin (q)\n o = Mul (n, s) }>\n"
	  " a = ReduceSum <keepdims = 0> (last)\n b = ReduceSum <keepdims = 0> (all)\n y = Mul (a, b) }", 2 },
	{ "a loop in a branch in a loop", "(double[2] s0, double[2] w) => (double y) { m = Constant <value = int64 {3}> ()\n"
	  " t = Constant <value = bool {1}> ()\n one = Constant <value = int64 {1}> ()\n"
	  " last = Loop (m, t, s0) <body = step (i, d, s) => (d2, n) { d2 = Identity (d)\n late = Less (one, i)\n"
	  " n = If (late) <then_branch = yes () => (a) { a = Loop (m, t, s) <body = inner (j, e, u) => (e2, v) { e2 = Identity (e)\n"
	  " h = Mul (u, w)\n v = Sin (h) }> }, else_branch = no () => (a) { a = Mul (s, w) }> }>\n"
	  " y = ReduceSum <keepdims = 0> (last) }", 1 },
};

static int64_t length_of(dim d, int k) { return dim_is_int(d) ? d : (const int64_t[]){ 2, 3, 1 }[k % 3]; }

static double run_number(const struct graph *g, const struct tensor *const *in, int out, const char *what)
{
	struct tensor *all[32] = { NULL };
	struct linnet_error e = { 0 };
	double x;

	assert_true(g->nout <= 32);
	if (run_graph(g, in, all, &e)) {
		print_error("%s: %s %s: %s\n", what, e.node, e.op, e.message);
		assert_true(false);
	}
	x = tensor_get(all[out], 0);
	for (uint32_t i = 0; i < g->nout; i++)
		tensor_release(all[i]);
	return x;
}

/* One number of the gradients: their products with random weights, summed. A value of the graph. */
static value_id mixed(struct graph *g, const value_id *grad, uint32_t n, const struct tensor *const *in, struct arena *a)
{
	struct linnet_error e = { 0 };
	value_id sum = 0;

	for (uint32_t i = 0; i < n; i++) {
		value_id pair[2] = { grad[i] };
		node_id id;

		if (!grad[i])
			continue;
		pair[1] = graph_add_const(g, random_like(a, in[i]), "mix");
		assert_false(graph_add_node(g, op_newest(NULL, "Mul"), "mix", pair, 2, NULL, 1, NULL, 0, &id, &e));
		pair[0] = g->node[id].out[0];
		assert_false(graph_add_node(g, op_newest(NULL, "ReduceSum"), "mix", pair, 1, NULL, 1,
		                            (struct attr[]){ { .name = "keepdims", .kind = ATTR_INT } }, 1, &id, &e));
		pair[0] = g->node[id].out[0];
		pair[1] = sum;
		if (sum)
			assert_false(graph_add_node(g, op_newest(NULL, "Add"), "mix", pair, 2, NULL, 1, NULL, 0, &id, &e));
		sum = g->node[id].out[0];
	}
	return sum;
}

static void check_function(const char *what, const char *text, int times)
{
	struct arena *a = arena_new();
	struct linnet_error e = { 0 };
	struct graph *g;
	const struct tensor *in[8];
	value_id wrt[8], grad[8], of;
	uint32_t n;

	if (template_parse(text, a, &g, &e)) {
		print_error("%s: %s\n", what, e.message);
		assert_true(false);
	}
	n = g->nin;
	for (uint32_t i = 0; i < n; i++) {
		const struct type *t = &g->value[g->in[i]].type;
		int64_t d[MAX_RANK];
		struct tensor *x;

		for (int k = 0; k < t->shape.rank; k++)
			d[k] = length_of(t->shape.d[k], (int)i + k);
		assert_false(tensor_new(a, DT_DOUBLE, t->shape.rank, d, &x, &e));
		for (int64_t k = 0; k < x->n; k++)
			tensor_put(x, k, 2 * rng_unit(&draw_rng) - 1);
		in[i] = x;
		wrt[i] = g->in[i];
	}
	of = g->out[0];
	for (int time = 1; time <= times; time++) {
		double h = 1e-4;
		int out = (int)g->nout - 1;

		if (graph_grad(g, of, wrt, n, grad, &e)) {
			print_error("%s, derivative %d: %s %s: %s\n", what, time, e.node, e.op, e.message);
			assert_true(false);
		}
		for (uint32_t i = 0; i < n; i++) {
			struct tensor *way = random_like(a, in[i]);
			const struct tensor *moved_in[8];
			struct tensor *x;
			double f[4], d, dot;
			value_id one[8] = { 0 }, number;

			one[i] = grad[i];
			memcpy(moved_in, in, sizeof in);
			for (int k = 0; k < 4; k++) {
				assert_false(tensor_new(a, DT_DOUBLE, in[i]->rank, in[i]->d, &x, &e));
				for (int64_t j = 0; j < x->n; j++)
					tensor_put(x, j, tensor_get(in[i], j) + (k % 2 ? -1 : 1) * (k < 2 ? h : h / 2) * tensor_get(way, j));
				moved_in[i] = x;
				f[k] = run_number(g, moved_in, out, what);
			}
			d = (4 * (f[2] - f[3]) / h - (f[0] - f[1]) / (2 * h)) / 3;
			dot = 0;
			if (grad[i]) {
				struct graph *copy;
				node_id id;
				value_id pair[2];

				assert_false(graph_copy(g, a, &copy, &e));
				pair[0] = one[i];
				pair[1] = graph_add_const(copy, way, "way");
				assert_false(graph_add_node(copy, op_newest(NULL, "Mul"), "dot", pair, 2, NULL, 1, NULL, 0, &id, &e));
				pair[0] = copy->node[id].out[0];
				assert_false(graph_add_node(copy, op_newest(NULL, "ReduceSum"), "dot", pair, 1, NULL, 1,
				                            (struct attr[]){ { .name = "keepdims", .kind = ATTR_INT } }, 1, &id, &e));
				number = copy->node[id].out[0];
				assert_false(graph_add_output(copy, number));
				if (graph_infer(copy, &e) || graph_compact(copy, a, &e) || graph_infer(copy, &e) || graph_verify(copy, &e)) {
					print_error("%s, derivative %d: %s %s: %s\n", what, time, e.node, e.op, e.message);
					assert_true(false);
				}
				dot = run_number(copy, in, (int)copy->nout - 1, what);
			}
			if (fabs(d - dot) > 1e-6 * fmax(1, fabs(d))) {
				print_error("%s, derivative %d along input %u: %.12g, differences give %.12g\n", what, time, i, dot, d);
				assert_true(false);
			}
		}
		of = mixed(g, grad, n, in, a);
		assert_false(graph_add_output(g, of));
		assert_false(graph_infer(g, &e));
	}
	arena_free(a);
}

static void graphs_agree(void **state)
{
	(void)state;
	draw_rng.state = 1;
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
		check_function(functions[i].what, functions[i].text, functions[i].times);
}

/* The elements that are kept are scaled by the gradient. */
static void dropout_goes_back_where_it_came_from(void **state)
{
	struct arena *a = arena_new();
	struct linnet_error e = { 0 };
	struct graph *g;
	struct tensor *x, *out[2] = { NULL };
	value_id grad;

	(void)state;
	assert_false(template_parse("(double[40] x) => (double[40] z) { t = Constant <value = bool {1}> ()\n r = Constant <value = double {0.25}> ()\n"
	                            " z = Dropout (x, r, t) }", a, &g, &e));
	assert_false(graph_grad(g, g->out[0], g->in, 1, &grad, &e));
	assert_false(graph_add_output(g, grad));
	assert_false(graph_infer(g, &e));
	assert_false(tensor_new(a, DT_DOUBLE, 1, (int64_t[]){ 40 }, &x, &e));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(x, i, (double)i + 1);
	assert_false(run_graph(g, (const struct tensor *[]){ x }, out, &e));
	for (int64_t i = 0; i < x->n; i++)
		assert_true(fabs(tensor_get(out[0], i) - tensor_get(out[1], i) * tensor_get(x, i)) < 1e-12 * (double)(i + 1));
	tensor_release(out[0]);
	tensor_release(out[1]);
	arena_free(a);
}

/* Nodes of ai.onnx.preview.training: at other places than the values named, with constants, twice. */
static void gradient_nodes_are_replaced(void **state)
{
	static const char text[] = "<ir_version: 10, opset_import: [\"\" : 21, \"ai.onnx.preview.training\" : 1]>\n"
		"m (double x, double z, double p) => (double y, double a, double b, double c) {\n"
		" s = Mul (x, x)\n t = Mul (s, x)\n y = Mul (t, z)\n"
		" a = ai.onnx.preview.training.Gradient <xs = [\"x\"], zs = [\"z\"], y = \"y\"> (p, z)\n"
		" d = ai.onnx.preview.training.Gradient <xs = [\"x\"], y = \"y\"> (x)\n"
		" b = ai.onnx.preview.training.Gradient <xs = [\"x\"], y = \"d\"> (x)\n"
		" c = ai.onnx.preview.training.Gradient <xs = [\"x\"], zs = [\"s\"], y = \"y\"> (x, s) }";
	const double at[3] = { 2, 5, 3 }, want[4] = { 8 * 5, 3 * 9 * 5, 6 * 2 * 5, 4 * 5 };
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	const struct tensor *in[3];
	struct tensor *t, *out[4];

	(void)state;
	assert_non_null(m);
	if (text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s %s", e.node, e.message);
	for (int i = 0; i < 3; i++) {
		assert_false(tensor_new(m->arena, DT_DOUBLE, 0, NULL, &t, &e));
		tensor_put(t, 0, at[i]);
		in[i] = t;
	}
	assert_false(run_graph(m->graph, in, out, &e));
	for (int i = 0; i < 4; i++) {
		assert_true(tensor_get(out[i], 0) == want[i]);
		tensor_release(out[i]);
	}
	model_free(m);
}

static void refusals_name_the_node(void **state)
{
	struct arena *a = arena_new();
	struct linnet_error e = { 0 };
	struct graph *g;
	value_id grad;

	(void)state;
	assert_false(template_parse("(float[n,n] x) => (float y) { [here] d = Det (x)\n y = Exp (d) }", a, &g, &e));
	assert_int_equal(graph_grad(g, g->out[0], g->in, 1, &grad, &e), LINNET_EUNSUPPORTED);
	assert_string_equal(e.node, "here");
	assert_string_equal(e.op, "Det");
	assert_false(template_parse("(float[3] x) => (int64 y) { y = Size (x) }", a, &g, &e));
	assert_int_equal(graph_grad(g, g->out[0], g->in, 1, &grad, &e), LINNET_ETYPE);
	assert_false(template_parse("(float[3] x, float z) => (float y) { s = Size (x)\n f = Cast <to = 1> (s)\n y = Mul (f, z) }", a, &g, &e));
	assert_int_equal(graph_grad(g, g->out[0], g->in, 1, &grad, &e), LINNET_OK);
	assert_int_equal(grad, 0); /* does not depend on it */
	arena_free(a);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(rows_agree), cmocka_unit_test(graphs_agree),
		cmocka_unit_test(dropout_goes_back_where_it_came_from), cmocka_unit_test(gradient_nodes_are_replaced),
		 cmocka_unit_test(refusals_name_the_node) };

	read_arguments(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
