/* Saying a model again: that what it computes stays the same, twice is once, and memory may run out anywhere. */
#include "tests/unit/list.h"

#include <string.h>

#include "graph/rewrite.h"
#include "graph/text.h"
#include "validate/certify.h"

#define HEAD "<ir_version: 8, opset_import: [\"\": 17]> "

static const char *const models[] = {
	HEAD "g (float[N,6] x) => (float[N,2,3] y, float[N,6] z)\n"
	     "<float[6] a = {1,2,3,4,5,6}, float[6] b = {1,2,3,4,5,6}, int64[1] zero = {0}, int64[2] tail = {2,3}>\n"
	     "{ s = Shape (x) n = Gather (s, zero) t = Concat <axis = 0> (n, tail) i = Identity (x) p = Add (i, a) q = Add (x, b)\n"
	     "  y = Reshape (p, t) r = Identity (q) z = Neg (r) }",
	HEAD "g (float[B,T,4] x, float[B,T,4] u) => (float[B,T,4] y)\n"
	     "<float[4] w = {1,2,1,2}, float[4] c = {0,1,0,1}, float eps = {0.00001}, float two = {2}>\n"
	     "{ m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) p = Pow (d, two) v = ReduceMean <axes = [-1]> (p) a = Add (v, eps)\n"
	     "  s = Sqrt (a) n = Div (d, s) k = Mul (n, w) l = Add (k, c) g = Sigmoid (l) h = Mul (l, g) y = Mul (h, u) }",
	HEAD "g (float[B,2,T,8] q, float[B,2,T,8] k, float[B,2,T,8] v) => (float[B,2,T,8] y)\n"
	     "<float scale = {0.35355339059327373}>\n"
	     "{ kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul (q, kt) z = Mul (s, scale) p = Softmax <axis = -1> (z) y = MatMul (p, v) }",
	HEAD "g (bool c, float[N] x) => (float[N] y)\n"
	     "{ e = Exp (x) y = If (c) <then_branch = t () => (r) { i = Identity (e) r = Relu (i) }, else_branch = f () => (r) { r = HardSwish (e) }> }",
};

static const struct {
	const char *name;
	struct rewrite_opt o;
	bool twice; /* the second time changes nothing */
} ways[] = {
	{ "simplify", { .simplify = true }, true },
	{ "fuse", { .fuse = FUSE_ONNX }, true },
	{ "fuse at 28", { .fuse = FUSE_ONNX, .opset = 28 }, true },
	{ "fuse=ort", { .fuse = FUSE_ORT }, true },
	{ "expand", { .expand = true }, true },
	{ "float16", { .to = DT_FLOAT16 }, false },
	{ "bfloat16 inside", { .to = DT_BFLOAT16, .keep_io = true }, false },
};

static struct linnet_model *read_model(const char *text)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[512];

	if (!m || text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s", linnet_error_line(&e, line, sizeof line));
	return m;
}

static uint32_t nodes(const struct graph *g)
{
	uint32_t n = 0;

	for (node_id id = 1; id < g->nnode; id++)
		n += !g->node[id].dead;
	return n;
}

struct values {
	uint32_t models, values, untested, hidden, wrong;
};

static void __attribute__((format(printf, 2, 3))) complain(struct values *v, const char *fmt, ...)
{
	char text[500];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	print_error("%s\n", text);
	v->wrong++;
}

/* Every way on every model computes the same, in few digits where the precision is another. */
static void ways_agree(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++)
		for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
			struct linnet_model *before = read_model(models[i]), *m = read_model(models[i]);
			struct linnet_error e = { 0 };
			double most, rel;
			char line[512];
			uint32_t once;

			if (rewrite(m, &ways[k].o, &e) || graph_verify(m->graph, &e) ||
			    certify_compare(before->graph, m->graph, 2, 1, &most, &rel, &e))
				fail_msg("%s of model %zu: %s", ways[k].name, i, linnet_error_line(&e, line, sizeof line));
			if (most > (ways[k].o.to ? 0.1 : 1e-6))
				fail_msg("%s of model %zu differs by %g", ways[k].name, i, most);
			once = nodes(m->graph);
			if (ways[k].twice && (rewrite(m, &ways[k].o, &e) || nodes(m->graph) != once))
				fail_msg("%s of model %zu: not the same when repeated", ways[k].name, i);
			if (ways[k].o.simplify && once > nodes(before->graph))
				fail_msg("%s of model %zu made it larger", ways[k].name, i);
			model_free(m);
			model_free(before);
		}
}

/* ---- The models of corpus/models ---- */

static void no_error(enum linnet_code code, const char *model, const char *way, const struct linnet_error *e)
{
	char line[512];

	if (code)
		fail_msg("%s of %s: %s", way, model, linnet_error_line(e, line, sizeof line));
}

static value_id named(const struct graph *g, const char *name)
{
	for (value_id v = 1; v < g->nvalue; v++)
		if (g->value[v].kind == VALUE_NODE && g->value[v].producer && !strcmp(g->value[v].name, name))
			return v;
	return 0;
}

/* Values of one name become outputs of both graphs. How many they are. */
static uint32_t expose(struct graph *a, struct graph *b)
{
	uint32_t n = 0;

	for (value_id v = 1; v < a->nvalue; v++) {
		value_id twin = a->value[v].kind == VALUE_NODE && a->value[v].producer ? named(b, a->value[v].name) : 0;

		if (!twin || graph_is_output(a, v) || graph_is_output(b, twin))
			continue;
		assert_int_equal(graph_add_output(a, v), 0);
		assert_int_equal(graph_add_output(b, twin), 0);
		n++;
	}
	return n;
}

static void same_ends(const struct graph *a, const struct graph *b, const char *model, const char *way)
{
	if (a->nin != b->nin || a->nout != b->nout)
		fail_msg("%s of %s: %u inputs and %u outputs become %u and %u", way, model, a->nin, a->nout, b->nin, b->nout);
	for (uint32_t i = 0; i < a->nin + a->nout; i++) {
		const char *x = a->value[i < a->nin ? a->in[i] : a->out[i - a->nin]].name;
		const char *y = b->value[i < b->nin ? b->in[i] : b->out[i - b->nin]].name;

		if (strcmp(x, y) != 0)
			fail_msg("%s of %s: \"%s\" is called \"%s\"", way, model, x, y);
	}
}

static struct linnet_model *load(const char *name, const void *data, size_t n)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char path[200];

	snprintf(path, sizeof path, "corpus/models/%s/model.onnx", name);
	if (!m)
		no_error(e.code, name, "loading", &e);
	no_error(data ? proto_load_memory(m, data, n, &e) : proto_load(m, path, &e), name, "loading", &e);
	no_error(graph_import(m, &e), name, "loading", &e);
	return m;
}

/* The file that one way makes of the model, which is read from data or else from the corpus. */
static void say(const char *name, const void *data, size_t n, size_t way, struct arena *a, void **out, size_t *size)
{
	struct linnet_model *m = load(name, data, n);
	struct linnet_error e = { 0 };

	no_error(rewrite(m, &ways[way].o, &e), name, ways[way].name, &e);
	if (m->changed)
		no_error(graph_export(m, ways[way].o.opset, &e), name, ways[way].name, &e);
	no_error(proto_save_memory(m, a, out, size, &e), name, ways[way].name, &e);
	model_free(m);
}

/*
 * Every exact way keeps the names of inputs and outputs; values that keep their names keep what they hold; said once more, the file stays the same, byte for
 * byte; and simplifying and fusing make no
 * model larger, in nodes or in bytes.
 */
static void check_model(const char *name, const char *want, void *ctx)
{
	struct values *count = ctx;

	(void)want;
	for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
		struct linnet_model *before, *m, *again;
		struct linnet_error e = { 0 };
		struct arena *a = arena_new();
		void *once, *twice, *asis;
		size_t none, n, n2;
		double most, rel;
		uint32_t had;

		if (!ways[k].twice || ways[k].o.opset) {
			arena_free(a);
			continue;
		}
		before = load(name, NULL, 0);
		had = nodes(before->graph);
		say(name, NULL, 0, k, a, &once, &n);
		say(name, once, n, k, a, &twice, &n2);
		if (n != n2 || memcmp(once, twice, n) != 0)
			complain(count, "%s of %s: not the same file when repeated", ways[k].name, name);
		m = load(name, once, n);
		same_ends(before->graph, m->graph, name, ways[k].name);
		count->models += !k;
		if (!ways[k].o.expand && ways[k].o.fuse != FUSE_ORT) {
			again = load(name, NULL, 0);
			no_error(proto_save_memory(again, a, &asis, &none, &e), name, "writing", &e);
			no_error(graph_export(again, 0, &e), name, "writing", &e);
			no_error(proto_save_memory(again, a, &asis, &n2, &e), name, "writing", &e);
			none = n2 > none ? n2 : none; /* types we know better are longer */
			model_free(again);
			if (nodes(m->graph) > had || n > none)
				complain(count, "%s of %s: %u nodes in %zu bytes become %u in %zu", ways[k].name, name, had, none, nodes(m->graph), n);
		}
		count->values += expose(before->graph, m->graph);
		if (certify_compare(before->graph, before->graph, 1, 1, &most, &rel, NULL))
			count->untested++; /* drawn inputs do not suit it */
		else if (certify_compare(before->graph, m->graph, 1, 1, &most, &rel, &e) && e.code == LINNET_EINTERNAL && ways[k].o.fuse)
			count->hidden++; /* drawn masks hide whole rows, on which attention does not agree */
		else
			no_error(e.code, name, ways[k].name, &e);
		if (most > 1e-4 && rel > 1e-5)
			/* constants are folded in single precision */
			complain(count, "%s of %s: a value of the same name differs by %g, relatively %g", ways[k].name, name, most, rel);
		model_free(m);
		model_free(before);
		arena_free(a);
	}
}

/* Every model can be said at every opset and computes the same. */
static void check_opsets(const char *name, const char *want, void *ctx)
{
	static const int opsets[] = { 11, 13, 17, 28 };
	struct values *count = ctx;

	(void)want;
	for (size_t i = 0; i < sizeof opsets / sizeof *opsets; i++) {
		struct linnet_model *before = load(name, NULL, 0), *m = load(name, NULL, 0), *again;
		struct linnet_error e = { 0 };
		struct arena *a = arena_new();
		double most = 0, rel;
		char way[32];
		void *data;
		size_t n;

		snprintf(way, sizeof way, "opset %d", opsets[i]);
		count->models++;
		no_error(graph_export(m, opsets[i], &e), name, way, &e);
		no_error(proto_save_memory(m, a, &data, &n, &e), name, way, &e);
		again = load(name, data, n);
		same_ends(before->graph, again->graph, name, way);
		if (certify_compare(before->graph, before->graph, 1, 1, &most, &rel, NULL))
			count->untested++;
		else
			no_error(certify_compare(before->graph, again->graph, 1, 1, &most, &rel, &e), name, way, &e);
		if (most > 1e-4 && rel > 1e-5)
			complain(count, "%s of %s: an output differs by %g, relatively %g", way, name, most, rel);
		model_free(again);
		model_free(m);
		model_free(before);
		arena_free(a);
	}
}

static void models_are_said_at_every_opset(void **state)
{
	struct values count = { 0 };

	(void)state;
	each_model("corpus/models/truth.txt", 40, check_opsets, &count);
	printf("%u times said, %u times drawn inputs could not be run\n", count.models, count.untested);
	assert_int_equal(count.wrong, 0);
	assert_true(count.models > 160 && count.untested < count.models / 8);
}

static void models_stay_themselves(void **state)
{
	struct values count = { 0 };

	(void)state;
	each_model("corpus/models/truth.txt", 40, check_model, &count);
	printf("%u models, %u values of the same name; %u times drawn inputs could not be run, %u times they hid whole rows\n", count.models,
	       count.values, count.untested, count.hidden);
	assert_int_equal(count.wrong, 0);
	assert_true(count.models > 40 && count.values > 1000 && count.untested < count.models / 2 && count.hidden < 8);
}

static void memory_may_run_out(void **state)
{
	(void)state;
	for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
		bool done = false;

		for (uint64_t n = 1; !done; n += 1 + n / 32) {
			struct linnet_model *m = read_model(models[1 + k % 3]);
			struct linnet_error e = { 0 };
			enum linnet_code code;

			mem_fail_at(n);
			code = rewrite(m, &ways[k].o, &e);
			done = mem_requests() < n;
			mem_fail_at(0);
			if (code != LINNET_EMEM && !done)
				fail_msg("%s: request %d failed unseen: %s", ways[k].name, (int)n, e.message);
			model_free(m);
		}
	}
}

/* Graphs with equal digests, or with different ones. */
static void digests(void **state)
{
	static const struct {
		const char *a, *b;
		bool same;
	} cases[] = {
		{ "g (float[N] x, float[N] u) => (float[N] y) { s = Add (x, u) y = Neg (s) }",
		  "g (float[N] x, float[N] u) => (float[N] y) { t = Add (u, x) i = Identity (t) y = Neg (i) }", true },
		{ "g (float[N] x, float[N] u) => (float[N] y) { y = Sub (x, u) }", "g (float[N] x, float[N] u) => (float[N] y) { y = Sub (u, x) }", false },
		{ "g (float[N] x) => (float[N] y) <float a = {2}, float b = {3}> { c = Add (a, b) y = Mul (x, c) }",
		  "g (float[N] x) => (float[N] y) <float c = {5}> { y = Mul (x, c) }", true },
		{ "g (float[N] x) => (float[N] y) <float c = {4}> { y = Mul (x, c) }", "g (float[N] x) => (float[N] y) <float c = {5}> { y = Mul (x, c) }", false },
		{ "g (float[N,3] x) => (int64[1] y) { s = Shape (x) z = Constant <value = int64[1] {0}> () y = Gather (s, z) }",
		  "g (float[N,3] x) => (int64[1] y) { y = Shape <start = 0, end = 1> (x) }", true },
		{ "g (float[N] x, bool c) => (float[N] y) { y = If (c) <then_branch = t () => (r) { r = Neg (x) }, else_branch = f () => (r) { r = Exp (x) }> }",
		  "g (float[N] x, bool c) => (float[N] y) { y = If (c) <then_branch = t () => (r) { r = Exp (x) }, else_branch = f () => (r) { r = Neg (x) }> }",
		  false },
		{ "g (float[N,4] x) => (float[N,4] y) { y = Softmax <axis = 0> (x) }", "g (float[N,4] x) => (float[N,4] y) { y = Softmax <axis = 1> (x) }", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[2][1024], hex[2][41];
		struct linnet_model *m[2];

		for (int k = 0; k < 2; k++) {
			snprintf(text[k], sizeof text[k], "%s%s", HEAD, k ? cases[i].b : cases[i].a);
			m[k] = read_model(text[k]);
			assert_int_equal(graph_digest(m[k]->graph, hex[k], NULL), LINNET_OK);
		}
		if (!strcmp(hex[0], hex[1]) != cases[i].same)
			fail_msg("case %zu: digests are %s", i, cases[i].same ? "different" : "equal");
		model_free(m[0]);
		model_free(m[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(ways_agree), cmocka_unit_test(models_stay_themselves),
		                            cmocka_unit_test(models_are_said_at_every_opset), cmocka_unit_test(memory_may_run_out), cmocka_unit_test(digests) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
