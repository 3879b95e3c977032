/* Running out of memory while a model is understood: an ordinary error wherever it happens. */
#include "unit.h"

#include <string.h>

#include "graph/graph.h"
#include "walk.h"

static enum linnet_code understand(const void *ctx, struct linnet_error *e)
{
	struct linnet_model *m = model_new(NULL, e);
	enum linnet_code code = m ? proto_load_memory(m, ctx, strlen(ctx), e) : LINNET_EMEM;
	void *data;
	size_t n;

	if (!code)
		code = proto_save_memory(m, m->arena, &data, &n, e);
	if (!code)
		code = graph_import(m, e);
	if (!code)
		code = graph_infer(m->graph, e);
	if (!code)
		code = graph_verify(m->graph, e);
	model_free(m);
	return code;
}

static void understanding(void **state)
{
	static const char *const models[][2] = {
		{ "plain", "<ir_version: 10, opset_import: [\"\": 21]>\n"
		           "g (float[batch,4] x) => (float[batch,3] y) <float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {\n"
		           "  a = MatMul (x, w)\n"
		           "  s = Shape (a)\n"
		           "  r = Reshape (a, s)\n"
		           "  y = Softmax <axis = -1> (r) }" },
		{ "subgraphs", "<ir_version: 10, opset_import: [\"\": 21]>\n"
		               "g (bool c, float[N] x) => (float[N] y) {\n"
		               "  y = If (c) <then_branch = a () => (float[N] t) { t = Relu (x) },\n"
		               "              else_branch = b () => (float[N] t) { t = Neg (x) }> }" },
		{ "function", "<ir_version: 10, opset_import: [\"\": 21, \"local\": 1]>\n"
		              "g (float[N] x) => (float[N] y) { y = local.twice <k = 1.5> (x) }\n"
		              "<domain: \"local\", opset_import: [\"\": 21]>\n"
		              "twice <k> (a) => (b) { c = Constant <value_float: float = @k> ()\n"
		              "  d = Mul (a, c)\n"
		              "  b = Add (a, d) }" },
		{ "old versions", "<ir_version: 6, opset_import: [\"\": 9]>\n"
		                  "g (float[2,1,6] x) => (float[2,4] y) {\n"
		                  "  a = Squeeze <axes = [1]> (x)\n"
		                  "  b = Slice <starts = [0], ends = [4], axes = [1]> (a)\n"
		                  "  y = Softmax <axis = 1> (b) }" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof models / sizeof *models; i++)
		assert_true(walk_memory(models[i][0], understand, models[i][1]) > 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(understanding) };

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
