/* Saying a model again: that what it computes stays the same, twice is once, and memory may run out anywhere. */
#include "tests/unit/unit.h"

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
	const struct CMUnitTest tests[] = { cmocka_unit_test(ways_agree), cmocka_unit_test(memory_may_run_out), cmocka_unit_test(digests) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
