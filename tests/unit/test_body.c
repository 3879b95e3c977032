/*
 * Second opinions on drawn calls: kernels against the bodies of their rows, written in other operators; old versions' rows in current
 * operators; what rows claim of their inputs (`flow`).
 *
 * `test_body [-n CASES] NAME ...` runs the rows of these operators alone.
 */
#include "tests/unit/drawn.h"

enum { CASES = 40 };

/* ---- Bodies ---- */

/* Bodies that are not compared. */
static const struct reason apart[] = {
	{ "Celu", "the function of ONNX is the formula for alpha > 0 alone" },
	{ "MatMulIntegerToFloat", "the product of two vectors comes out with the rank of the scale" },
	{ "DynamicQuantizeMatMul", "the same" },
	{ NULL, NULL },
};

/* Old versions whose calls are seldom hit by drawing: nothing is asked of their number. */
static const struct reason rare[] = {
	{ "Resize", "one scale an axis" },
	{ "RoiAlign", "a rank of 4, a rank of 2 and as many indices" },
	{ "LpPool", "names of paddings that the row does not list" },
	{ "Cast", "names of element types that the row does not list" },
	{ "Tile", "a number of tiles and an axis" },
	{ NULL, NULL },
};

/* The call as a graph of one node. Integers are constants in half of the graphs. */
static enum linnet_code make_graph(const struct call *c, struct arena *a, struct graph **g, const struct tensor **in, node_id *n,
                                   struct linnet_error *e)
{
	value_id from[CALL_MAX] = { 0 }, made[CALL_MAX] = { 0 };
	struct dims *dims = dims_new(a);
	bool fixed = rng_below(&draw_rng, 2);

	if (!dims)
		return fail_mem(e);
	*g = graph_new(a, dims, e);
	if (!*g)
		return LINNET_EMEM;
	for (int i = 0; i < c->nin; i++) {
		struct type t;

		if (!c->in[i])
			continue;
		if (fixed && c->in[i]->kind == KIND_TENSOR && dtype_in(c->in[i]->dt, INDICES)) {
			from[i] = graph_add_const(*g, c->in[i], "x");
			continue;
		}
		t = type_of(c->in[i]);
		t.value = NULL;
		t.sym = NULL;
		in[(*g)->nin] = c->in[i];
		from[i] = graph_add_input(*g, arena_fmt(a, "x%d", i), &t);
	}
	for (int i = 0; i < c->nout; i++)
		if (c->wanted[i])
			made[i] = graph_add_value(*g, VALUE_NODE, arena_fmt(a, "y%d", i), NULL);
	TRY(graph_add_node(*g, c->op, "n", from, (uint32_t)c->nin, made, (uint32_t)c->nout, c->given, (uint32_t)c->ngiven, n, e));
	for (int i = 0; i < c->nout; i++)
		if (made[i] && graph_add_output(*g, made[i]))
			return fail_mem(e);
	return graph_infer(*g, e);
}

static bool rounds(const struct graph *g)
{
	bool r = false;

	for (node_id n = 1; n < g->nnode; n++)
		r |= !g->node[n].dead && g->node[n].op->agree != AGREE_BITS;
	return r;
}

/* Texts for constants of length are not made for empty tensors, and functions of ONNX divide by such lengths. */
static bool empty(const struct call *c, struct tensor *const *out)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && c->in[i]->kind == KIND_TENSOR && !c->in[i]->n)
			return true;
	for (int i = 0; i < c->nout; i++)
		if (out[i] && out[i]->kind == KIND_TENSOR && !out[i]->n)
			return true;
	return false;
}

static void check_body(const struct call *c, struct tensor *const *want, struct arena *a, int *expanded)
{
	struct linnet_error e = { 0 };
	const struct tensor *in[CALL_MAX] = { NULL };
	struct tensor *out[CALL_MAX] = { NULL };
	struct graph *g;
	enum linnet_code code;
	node_id n;

	code = make_graph(c, a, &g, in, &n, &e);
	if (!code) {
		code = graph_expand(g, n, &e);
		if (code == LINNET_EUNSUPPORTED)
			return; /* not this call */
	}
	code = code ? code : graph_infer(g, &e);
	if (code == LINNET_ETYPE || strstr(e.message, "the body does not define"))
		return; /* not for these element types, or without that output */
	code = code ? code : run_graph(g, in, out, &e);
	if (code) {
		complain_of(c, a, "by its body: LINNET_%s %s", linnet_code_name(code), e.message);
		return;
	}
	++*expanded;
	for (int i = 0, k = 0; i < c->nout; i++) {
		if (!c->wanted[i])
			continue;
		compare_outputs(c, a, "by its body", i, out[k], want[i], rounds(g) ? EACH_STEP : AS_ROW);
		tensor_release(out[k++]);
	}
}

static void check_bodies(const struct op *op)
{
	struct draw_count n = { 0 };
	int expanded = 0, nonempty = 0;

	if (listed(op, apart) || !op_has_body(op) || !op->kernel || op->agree == AGREE_RANDOM)
		return;
	while (nonempty < cases(CASES) && n.tried < 60 * cases(CASES)) {
		struct call_opt opt = { .types = n.tried % 2 ? SET(FLOAT) | SET(DOUBLE) : 0, .elements = 400 };
		struct tensor *want[CALL_MAX] = { NULL };
		struct arena *a = arena_new();
		struct call c;

		if (draw_good(op, &opt, a, &c, want, &n) && !empty(&c, want) && ++nonempty)
			check_body(&c, want, a, &expanded);
		arena_free(a);
	}
	if (!expanded)
		complain("%s: no drawn call has a body", row_title(op));
	verbose("%s: %d calls drawn, %d executed, %d by the body", row_title(op), n.tried, n.good, expanded);
}

static void bodies_agree(void **state)
{
	(void)state;
	complaints = 0;
	each_row(check_bodies);
	assert_int_equal(complaints, 0);
}

/* ---- Old versions ---- */

static void add_type(struct str *s, const struct tensor *t)
{
	struct type type = { .kind = t->kind, .dt = t->dt, .key = t->key };
	char words[64];

	kind_str(&type, words, sizeof words);
	if (t->kind != KIND_TENSOR) {
		str_addf(s, "%.*s[]%s", (int)strcspn(words, ")"), words, strchr(words, ')'));
		return;
	}
	str_add(s, words);
	for (int d = 0; d < t->rank; d++)
		str_addf(s, "%s%lld%s", d ? "," : "[", (long long)t->d[d], d + 1 == t->rank ? "]" : "");
}

/* A model of the row's opset with the one node. */
static char *model_text(const struct call *c, struct arena *a, const struct tensor **in)
{
	const struct op *op = c->op;
	const char *attrs = call_attr_text(c, a);
	struct str s;
	int n = 0;

	str_init(&s, a);
	if (op->domain)
		str_addf(&s, "<ir_version: 13, opset_import: [\"\" : 21, \"%s\" : %d]>\ncase (", op->domain, op->since);
	else
		str_addf(&s, "<ir_version: 13, opset_import: [\"\" : %d]>\ncase (", op->since);
	for (int i = 0; i < c->nin; i++) {
		if (!c->in[i])
			continue;
		str_add(&s, n ? ", " : "");
		add_type(&s, c->in[i]);
		str_addf(&s, " x%d", i);
		in[n++] = c->in[i];
	}
	str_add(&s, ") => (");
	for (int i = n = 0; i < c->nout; i++)
		if (c->wanted[i])
			str_addf(&s, "%sy%d", n++ ? ", " : "", i);
	str_add(&s, ") {\n");
	for (int i = 0; i < c->nout; i++)
		str_addf(&s, c->wanted[i] ? "%sy%d" : "%s\"\"", i ? ", " : "", i);
	str_addf(&s, " = %s%s%s%s (", op->domain ? op->domain : "", op->domain ? "." : "", op->name, attrs ? attrs : "");
	for (int i = 0; i < c->nin; i++)
		str_addf(&s, c->in[i] ? "%sx%d" : "%s\"\"", i ? ", " : "", i);
	str_add(&s, ")\n}\n");
	return str_done(&s);
}

/* Whether the call was one, and executed. */
static bool run_old(const struct call *c, struct arena *a, struct linnet_error *e)
{
	const struct tensor *in[CALL_MAX] = { NULL };
	struct tensor *out[CALL_MAX] = { NULL };
	const char *text = model_text(c, a, in);
	struct linnet_model *m = model_new(NULL, e);
	enum linnet_code code;

	assert_non_null(m);
	assert_non_null(text);
	code = text_parse(m, text, strlen(text), e);
	if (code)
		complain_of(c, a, "LINNET_%s %s in\n%s", linnet_code_name(code), e->message, text);
	code = code ? code : graph_import(m, e);
	code = code ? code : run_graph(m->graph, in, out, e);
	for (int i = 0; i < CALL_MAX; i++)
		tensor_release(out[i]);
	if (code == LINNET_EINTERNAL)
		complain_of(c, a, "LINNET_%s %s", linnet_code_name(code), e->message);
	model_free(m);
	return !code;
}

static void check_old(const struct op *op)
{
	struct linnet_error why = { 0 };
	int drawn = 0, good = 0;

	if (!op->lower && !op->write_lower)
		return;
	for (int k = 0; good < cases(CASES) && k < 20 * cases(CASES); k++) {
		struct call_opt opt = { .types = k % 2 ? SET(FLOAT) | SET(DOUBLE) : 0, .elements = 400 };
		struct linnet_error e = { 0 };
		struct arena *a = arena_new();
		struct call c;

		if (!gen_call(op, &opt, &draw_rng, a, &c, &e) && ++drawn)
			good += run_old(&c, a, &e);
		why = *e.message ? e : why;
		arena_free(a);
	}
	if (!good && !listed(op, rare))
		complain("%s: none of %d drawn calls ran: %s", row_title(op), drawn, why.message);
	verbose("%s: %d calls drawn, %d executed in current operators", row_title(op), drawn, good);
}

static void old_versions_run(void **state)
{
	(void)state;
	complaints = 0;
	each_row(check_old);
	assert_int_equal(complaints, 0);
}

/* ---- Flow ---- */

static bool is_real(const struct tensor *t) { return t && t->kind == KIND_TENSOR && t->dt == DT_DOUBLE; }

/* a x + b y, or x where they are the same numbers. */
static struct tensor *combine(struct arena *arena, double a, const struct tensor *x, double b, const struct tensor *y)
{
	struct tensor *t;

	assert_false(tensor_new(arena, x->dt, x->rank, x->d, &t, NULL));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(t, i, a * tensor_get(x, i) + b * tensor_get(y, i));
	return t;
}

static bool eval_with(const struct call *c, int i, const struct tensor *x, struct arena *a, struct tensor **out)
{
	struct call with = *c;
	struct linnet_error e = { 0 };

	with.in[i] = x;
	return !op_eval(c->op, c->attr, c->nin, with.in, c->nout, c->wanted, a, out, &e);
}

static struct tensor *like(struct arena *a, const struct tensor *x)
{
	struct tensor *t;

	assert_false(tensor_new(a, x->dt, x->rank, x->d, &t, NULL));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(t, i, 2 * rng_unit(&draw_rng) - 1);
	return t;
}

static void check_linear(const struct call *c, int i, struct tensor *const *fx, struct arena *arena)
{
	const struct tensor *x = c->in[i], *y = like(arena, x);
	double a = 1.75, b = -0.75; /* a + b = 1: linear up to a constant, that other inputs may add */
	struct tensor *fy[CALL_MAX] = { NULL }, *fz[CALL_MAX] = { NULL };

	if (!eval_with(c, i, y, arena, fy) || !eval_with(c, i, combine(arena, a, x, b, y), arena, fz))
		return;
	for (int o = 0; o < c->nout; o++)
		for (int64_t k = 0; is_real(fx[o]) && is_real(fz[o]) && fz[o]->n == fx[o]->n && k < fx[o]->n; k++) {
			double p = a * tensor_get(fx[o], k), q = b * tensor_get(fy[o], k), r = tensor_get(fz[o], k);

			if (!isfinite(p) || !isfinite(q) || fabs(p + q - r) <= 1e-9 * (1 + fabs(p) + fabs(q)))
				continue;
			complain_of(c, arena, "input %d is not linear: output %d[%lld] of 1.75 x - 0.75 y is %.17g, expected %.17g", i, o, (long long)k, r,
			            p + q);
			return;
		}
}

/* Differences over h and over h / 2 give about the same slope, unless it is steep. */
static void check_smooth(const struct call *c, int i, struct tensor *const *fx, struct arena *arena)
{
	const struct tensor *x = c->in[i], *y = like(arena, x);
	double h = 1e-5;
	struct tensor *f1[CALL_MAX] = { NULL }, *f2[CALL_MAX] = { NULL };

	if (!eval_with(c, i, combine(arena, 1, x, h, y), arena, f1) || !eval_with(c, i, combine(arena, 1, x, h / 2, y), arena, f2))
		return;
	for (int o = 0; o < c->nout; o++)
		for (int64_t k = 0; is_real(fx[o]) && is_real(f1[o]) && f1[o]->n == fx[o]->n && k < fx[o]->n; k++) {
			double v = tensor_get(fx[o], k), p = (tensor_get(f1[o], k) - v) / h, q = (tensor_get(f2[o], k) - v) / (h / 2);

			if (!isfinite(v) || fabs(v) > 1e6 || (isfinite(p) && isfinite(q) && (fabs(p) > 1e3 || fabs(p - q) <= 0.05 * (1 + fabs(p)))))
				continue;
			complain_of(c, arena, "input %d is not smooth: output %d[%lld] has slopes %.9g and %.9g", i, o, (long long)k, p, q);
			return;
		}
}

static void check_flow(const struct op *op)
{
	bool claims = false;
	int checked = 0;

	for (const struct op_io *io = op->in; io && io->name; io++)
		claims |= (io->flow == FLOW_LINEAR || io->flow == FLOW_SMOOTH) && dtype_in(DT_DOUBLE, op->types[io->type]);
	if (!claims || !op->kernel || op->agree == AGREE_RANDOM)
		return;
	for (int k = 0; k < cases(CASES) / 2; k++) {
		struct call_opt opt = { .types = SET(DOUBLE) | SET(INT64), .elements = 200 };
		struct tensor *fx[CALL_MAX] = { NULL };
		struct arena *a = arena_new();
		struct draw_count n = { 0 };
		struct call c;

		if (draw_good(op, &opt, a, &c, fx, &n))
			for (int i = 0; i < c.nin; i++) {
				enum flow f = (enum flow)op_in(op, i)->flow;

				if (!is_real(c.in[i]))
					continue;
				checked++;
				if (f == FLOW_LINEAR)
					check_linear(&c, i, fx, a);
				else if (f == FLOW_SMOOTH)
					check_smooth(&c, i, fx, a);
			}
		arena_free(a);
	}
	if (!checked)
		complain("%s: no drawn call to check its flow on", row_title(op));
}

static void flow_holds(void **state)
{
	(void)state;
	complaints = 0;
	each_row(check_flow);
	assert_int_equal(complaints, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(bodies_agree), cmocka_unit_test(old_versions_run), cmocka_unit_test(flow_holds) };

	read_arguments(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
