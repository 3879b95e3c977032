/*
 * The structure of networks: trees that architectures say (corpus/models/blocks.txt), every attention and gated unit in exactly one block, every node in
 * exactly one place, folding, and networks made here of many layers.
 */
#include "tests/unit/list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "graph/blocks.h"
#include "graph/text.h"
#include "ops/base/str.h"

static struct linnet_model *load(const char *path)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[800];

	if (!m || proto_load(m, path, &e) || graph_import(m, &e) || pass_read_all(m->graph, &e))
		fail_msg("%s: %s", path, linnet_error_line(&e, line, sizeof line));
	return m;
}

/* ---- A tree as a line ---- */

static void put_parts(struct str *s, const struct block *b);

static void put_kinds(struct str *s, const struct block *layer)
{
	for (int i = 0; i < layer->nchild; i++) {
		const struct block *b = layer->child[i];

		str_addf(s, "%s%s", i ? ", " : "", block_words[b->kind]);
		if (b->kind == BLOCK_NESTED) {
			str_add(s, " (");
			put_parts(s, b);
			str_add(s, ")");
		}
	}
}

/* Layers of like blocks are counted; norms and steps are left out. */
static void put_parts(struct str *s, const struct block *b)
{
	struct str text;
	const char *before = "";
	int count = 0, put = 0;

	for (int i = 0; i <= b->nchild; i++) {
		const struct block *k = i < b->nchild ? b->child[i] : NULL;
		const char *now = "";

		if (k && (k->kind == BLOCK_NORM || k->kind == BLOCK_STEP))
			continue;
		if (k && k->kind == BLOCK_LAYER) {
			str_init(&text, s->a);
			put_kinds(&text, k);
			now = str_done(&text);
		}
		if (count && strcmp(now, before) != 0) {
			str_addf(s, "%s%d [%s]", put++ ? ", " : "", count, before);
			count = 0;
		}
		if (k && k->kind == BLOCK_LAYER)
			count++;
		else if (k)
			str_addf(s, "%s%s", put++ ? ", " : "", block_words[k->kind]);
		before = now;
	}
}

static char *tree_line(const struct block *top, struct arena *a)
{
	struct str s;
	int put = 0;

	str_init(&s, a);
	for (int i = 0; i < top->nchild; i++) {
		const struct block *b = top->child[i];

		if (b->kind == BLOCK_SHARED || (b->kind == BLOCK_HEAD && !b->nchild))
			continue;
		str_addf(&s, "%s%s", put++ ? "; " : "", b->kind == BLOCK_PART ? b->label : block_words[b->kind]);
		if (b->kind != BLOCK_PART || !b->nchild || b->child[0]->kind == BLOCK_STEP)
			continue;
		str_add(&s, ": ");
		if (b->child[0]->kind == BLOCK_PART) /* a subgraph's */
			str_add(&s, tree_line(b, a));
		else
			put_parts(&s, b);
	}
	return str_done(&s);
}

static void check_tree(const char *name, const char *want, void *ctx)
{
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	struct linnet_model *m;
	struct block *top;
	char path[200];
	int *wrong = ctx;

	snprintf(path, sizeof path, "corpus/models/%s/model.onnx", name);
	m = load(path);
	assert_int_equal(graph_blocks(m->graph, false, a, &top, &e), LINNET_OK);
	if (strcmp(tree_line(top, a), want) != 0) {
		print_error("%s: found %s\n  expected %s\n", name, tree_line(top, a), want);
		++*wrong;
	}
	arena_free(a);
	model_free(m);
}

static void architectures_are_found(void **state)
{
	int wrong = 0;

	(void)state;
	each_model("corpus/models/blocks.txt", 20, check_tree, &wrong);
	assert_int_equal(wrong, 0);
}

/* ---- What holds of every tree ---- */

static void count_own(const struct block *b, int *seen)
{
	for (uint32_t i = 0; i < b->nown; i++)
		seen[b->own[i]]++;
	for (int i = 0; i < b->nchild; i++)
		if (b->child[i]->g == b->g)
			count_own(b->child[i], seen);
}

static void check_whole(const char *name, const char *want, void *ctx)
{
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	struct linnet_model *m;
	struct recognised r;
	struct block *top;
	char path[200];
	int attention = 0, glu = 0, folded_attention = 0, folded_glu = 0, *seen;

	(void)want;
	(void)ctx;
	snprintf(path, sizeof path, "corpus/models/%s/model.onnx", name);
	m = load(path);
	assert_int_equal(graph_recognised(m->graph, a, &r, &e), LINNET_OK);
	for (int i = 0; i < r.nattention; i++)
		attention += r.attention[i].count;
	for (int i = 0; i < r.nglu; i++)
		glu += r.glu[i].count;
	assert_int_equal(graph_blocks(m->graph, false, a, &top, &e), LINNET_OK);
	seen = NEW(a, m->graph->nnode, int);
	count_own(top, seen);
	for (node_id id = 1; id < m->graph->nnode; id++)
		if (seen[id] != !m->graph->node[id].dead)
			fail_msg("%s: node %s is in %d places", name, node_label(m->graph, &m->graph->node[id]), seen[id]);
	assert_int_equal(top->nnode, m->graph->nnode - 1);
	for (int k = 0; k < 2; k++) {
		int found_attention = 0, found_glu = 0;

		block_units(top, &found_attention, &found_glu);
		if (found_attention != attention || found_glu != glu)
			fail_msg("%s: %d attentions of %d and %d gated units of %d in blocks", name, found_attention, attention, found_glu, glu);
		assert_int_equal(graph_blocks(m->graph, true, a, &top, &e), LINNET_OK);
	}
	block_units(top, &folded_attention, &folded_glu);
	assert_int_equal(folded_attention, attention);
	assert_int_equal(folded_glu, glu);
	arena_free(a);
	model_free(m);
}

static void every_unit_is_in_one_block(void **state)
{
	(void)state;
	each_model("corpus/models/truth.txt", 20, check_whole, NULL);
}

/* corpus/lm/README.md: 5 layers, 8 heads and 4 key heads of 32, SwiGLU of 512, width 256, 2048 tokens; 3.48 M parameters. */
static void language_model(void **state)
{
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	struct linnet_model *m = load("corpus/lm/softmax.onnx");
	struct block *top;
	const struct block *layers, *attention, *glu;

	(void)state;
	assert_int_equal(graph_blocks(m->graph, true, a, &top, &e), LINNET_OK);
	assert_string_equal(top->child[0]->label, "decoder");
	assert_int_equal(top->child[0]->nchild, 3);
	assert_int_equal(top->child[0]->child[0]->kind, BLOCK_EMBEDDING);
	assert_int_equal(top->child[0]->child[0]->parameters, 2048 * 256);
	layers = top->child[0]->child[1];
	assert_int_equal(layers->kind, BLOCK_LAYER);
	assert_int_equal(layers->repeat, 5);
	assert_int_equal(layers->parameters, 2 * 256 + 2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512);
	assert_int_equal(layers->nchild, 2);
	attention = layers->child[0];
	glu = layers->child[1];
	assert_int_equal(attention->kind, BLOCK_ATTENTION);
	assert_true(attention->residual && !attention->post_norm);
	assert_int_equal(glu->kind, BLOCK_GLU);
	assert_int_equal(glu->child[1]->parameters, 256 * 512);
	assert_string_equal(glu->child[1]->label, "gate");
	assert_string_equal(glu->child[2]->label, "up");
	assert_string_equal(glu->child[4]->label, "down");
	assert_int_equal(top->child[0]->child[2]->kind, BLOCK_NORM);
	assert_int_equal(top->child[1]->kind, BLOCK_HEAD);
	assert_int_equal(block_count(top, BLOCK_LAYER), 5);
	arena_free(a);
	model_free(m);
}

/* ---- Networks made here ---- */

/* Layers x + W2 relu(W1 norm(x)), or, with `post`, norm(x + W2 relu(W1 x)). */
static struct linnet_model *made(int layers, bool post, struct arena *a)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	struct str s;
	char *text, line[800];

	str_init(&s, a);
	str_add(&s, "<ir_version: 10, opset_import: [\"\": 23]>\n"
	            "made (float[N,T,4] x0) => (float[N,T,4] y)\n<float[4,8] w = {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8},\n"
	            "float[8,4] v = {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}, float[4] g = {1,2,1,2}>\n{\n");
	for (int i = 0; i < layers; i++) {
		if (!post)
			str_addf(&s, "n%d = RMSNormalization (x%d, g)\n", i, i);
		str_addf(&s, "a%d = MatMul (%s%d, w)\nb%d = Relu (a%d)\nc%d = MatMul (b%d, v)\n%s%d = Add (%s%d, %s%d)\n", i, post ? "x" : "n", i, i, i, i, i,
		         post ? "s" : "x", post ? i : i + 1, i % 2 ? "c" : "x", i, i % 2 ? "x" : "c", i);
		if (post)
			str_addf(&s, "x%d = RMSNormalization (s%d, g)\n", i + 1, i);
	}
	str_addf(&s, "y = Identity (x%d)\n}\n", layers);
	text = str_done(&s);
	assert_non_null(text);
	if (!m || text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s", linnet_error_line(&e, line, sizeof line));
	return m;
}

static void many_layers_fold(void **state)
{
	(void)state;
	for (int post = 0; post < 2; post++) {
		struct linnet_error e = { 0 };
		struct arena *a = arena_new();
		struct linnet_model *m = made(12, post, a);
		struct block *top;

		assert_int_equal(graph_blocks(m->graph, true, a, &top, &e), LINNET_OK);
		assert_int_equal(top->child[0]->nchild, 1);
		assert_int_equal(top->child[0]->child[0]->kind, BLOCK_LAYER);
		assert_int_equal(top->child[0]->child[0]->repeat, 12);
		assert_int_equal(top->child[0]->child[0]->child[0]->kind, BLOCK_MLP);
		assert_int_equal(top->child[0]->child[0]->child[0]->post_norm, post);
		assert_int_equal(top->parameters, 4 * 8 + 8 * 4 + 4); /* shared by all layers */
		arena_free(a);
		model_free(m);
	}
}

static void big_graphs_take_linear_time(void **state)
{
	double seconds[2];

	(void)state;
	for (int k = 0; k < 2; k++) {
		struct linnet_error e = { 0 };
		struct arena *a = arena_new();
		struct linnet_model *m = made(k ? 8000 : 1000, false, a);
		struct block *top;
		clock_t t = clock();

		assert_int_equal(graph_blocks(m->graph, true, a, &top, &e), LINNET_OK);
		seconds[k] = (double)(clock() - t) / CLOCKS_PER_SEC;
		assert_int_equal(block_count(top, BLOCK_LAYER), k ? 8000 : 1000);
		arena_free(a);
		model_free(m);
	}
	assert_true(seconds[1] < 40 * (seconds[0] + 0.02)); /* eight times as many layers; quadratic were 64 */
}

/* ---- Experts ---- */

/* The text with numbers for the constants in front of the nodes that have none. */
static char *with_numbers(const char *text, struct arena *a)
{
	struct str s;
	const char *header = strchr(text, '<'), *end = header ? strchr(header, '>') : NULL;
	unsigned drawn = 1;

	str_init(&s, a);
	for (const char *p = text, *item; *p; p = item) {
		int64_t n = 1;

		if (!end || p <= header || p >= end) { /* outside: up to where the constants begin, or the rest */
			item = !end || p > header ? p + strlen(p) : header + 1;
			str_addf(&s, "%.*s", (int)(item - p), p);
			continue;
		}
		item = p;
		for (int depth = 0; item < end && (depth || *item != ','); item++)
			depth += (*item == '[') - (*item == ']') + (*item == '{') - (*item == '}');
		str_addf(&s, "%.*s", (int)(item - p), p);
		if (!memchr(p, '=', (size_t)(item - p))) {
			for (const char *d = memchr(p, '[', (size_t)(item - p)); d && *d != ']'; d = strpbrk(d + 1, ",]"))
				n *= strtol(d + 1, NULL, 10);
			str_add(&s, " = {");
			for (int64_t i = 0; i < n; i++, drawn = drawn * 1103515245U + 12345U)
				str_addf(&s, "%s%u", i ? ", " : "", drawn >> 16 & 7);
			str_add(&s, "}");
		}
		if (item < end)
			str_addf(&s, "%c", *item++);
	}
	return str_done(&s);
}

static void add_mixtures(struct str *s, const struct block *b)
{
	if (b->experts)
		str_addf(s, "%s\n", experts_text(b->experts, s->a));
	for (int i = 0; i < b->nchild; i++)
		add_mixtures(s, b->child[i]);
}

/* tests/experts.txt, which says what it holds. */
static void experts_are_found(void **state)
{
	static char text[1 << 16];
	FILE *file = fopen("tests/experts.txt", "r");
	struct arena *a = arena_new();
	char *at, *next;
	int wrong = 0, cases = 0;

	(void)state;
	assert_non_null(file);
	assert_true(fread(text, 1, sizeof text - 1, file) < sizeof text - 1);
	fclose(file);
	for (at = strstr(text, "\n## "); at; at = next, cases++) {
		struct linnet_error e = { 0 };
		struct linnet_model *m = model_new(NULL, &e);
		char *graph = strchr(at + 1, '\n'), *want = strstr(at + 1, "\n=>"), line[800], *full;
		struct block *top;
		struct str found;

		next = strstr(at + 1, "\n## ");
		if (!graph || !want || (next && want > next))
			fail_msg("%s: no answer", at + 1);
		*graph = *want = '\0';
		if (next)
			*next = '\0';
		want += strspn(want + 1, "=> ") + 1;
		full = arena_fmt(a, "<ir_version: 10, opset_import: [\"\": 24, \"com.microsoft\": 1]>\n%s", with_numbers(graph + 1, a));
		if (!m || text_parse(m, full, strlen(full), &e) || graph_import(m, &e) || pass_read_all(m->graph, &e) || graph_blocks(m->graph, false, a, &top, &e))
			fail_msg("%s: %s\n%s", at + 4, linnet_error_line(&e, line, sizeof line), full);
		str_init(&found, a);
		add_mixtures(&found, top);
		str_done(&found)[strcspn(str_done(&found), "\n")] = '\0';
		want[strcspn(want, "\n")] = '\0';
		if (strcmp(str_done(&found), want) != 0) {
			print_error("%s: found \"%s\"\n  expected \"%s\"\n", at + 4, str_done(&found), want);
			wrong++;
		}
		model_free(m);
	}
	arena_free(a);
	assert_true(cases > 10);
	assert_int_equal(wrong, 0);
}

/* Without memory: an error, at whatever request. */
static void memory_may_fail(void **state)
{
	struct arena *a = arena_new(), *names = arena_new();
	struct linnet_model *m = load("corpus/models/hf_roformer_ts14/model.onnx");
	uint64_t n = 1;

	(void)state;
	for (;; n++) {
		struct linnet_error e = { 0 };
		struct block *top;
		enum linnet_code code;

		arena_reset(a);
		mem_fail_at(n);
		code = graph_blocks(m->graph, true, a, &top, &e);
		mem_fail_at(0);
		if (!code)
			break;
		assert_int_equal(code, LINNET_EMEM);
	}
	assert_true(n > 1);
	arena_free(a);
	arena_free(names);
	model_free(m);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(architectures_are_found),
		cmocka_unit_test(every_unit_is_in_one_block),
		cmocka_unit_test(experts_are_found),
		cmocka_unit_test(language_model),
		cmocka_unit_test(many_layers_fold),
		cmocka_unit_test(big_graphs_take_linear_time),
		cmocka_unit_test(memory_may_fail),
	};

	return cmocka_run_group_tests_name("blocks", tests, NULL, NULL);
}
