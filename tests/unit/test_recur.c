/*
 * Recurrences in many spellings become one LinearAttention of the rule that is written here, and compute the same before and after on
 * drawn inputs and lengths; near misses stay as they are. And back: what was recognised, said in primitive operators or in those of any opset,
 * computes the same and is recognised again as the same nodes.
 */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "graph/pass.h"
#include "ops/base/str.h"
#include "validate/certify.h"
#include "validate/validate.h"

#define HEADER "<ir_version: 10, opset_import: [\"\": 23]>\n"
#define ENDS "<int64[1] end = {-1}, int64[1] second = {-2}>"

/* A scan of [B, T, H, width] along tokens, states [B, H, K, V]. */
#define SCAN(inputs, formals, nodes, arguments, n, outer)                                          \
	"g (float[B,T,2,3] q, float[B,T,2,3] k, float[B,T,2,4] v, float[B,2,3,4] s" inputs ") => (float[B,T,2,4] y, float[B,2,3,4] last) {\n" \
	outer "last, y = Scan <num_scan_inputs = " n ", scan_input_axes = [1, 1, 1" arguments                                                    \
	", body = token (float[B,2,3,4] s0, float[B,2,3] q0, float[B,2,3] k0, float[B,2,4] v0" formals ") => (float[B,2,3,4] s1, float[B,2,4] o) " ENDS " {\n" \
	"kc = Unsqueeze (k0, end)  kr = Unsqueeze (k0, second)  vr = Unsqueeze (v0, second)  qr = Unsqueeze (q0, second)\n" nodes "}> "

#define READ "or = MatMul (qr, s1)  o = Squeeze (or, second)"

static const struct {
	const char *name, *rule; /* NULL: it stays */
	const char *text;
} cases[] = {
	{ "linear", "linear", SCAN("", "", "kv = Mul (kc, vr)  s1 = Add (kv, s0)  " READ, "], scan_output_axes = [1]", "3", "") "(s, q, k, v) }" },
	{ "outer product by MatMul, output by Mul and scale", "linear",
	  SCAN("", "", "kv = MatMul (kc, vr)  s1 = Add (s0, kv)  half = Constant <value_float = 0.5> ()  or0 = MatMul (qr, s1)  or = Mul (half, or0)  o = Squeeze (or, second)",
	       "], scan_output_axes = [1]", "3", "") "(s, q, k, v) }" },
	{ "decay of rows, exp inside", "gated",
	  SCAN(", float[B,T,2,3] g", ", float[B,2,3] g0", "a0 = Exp (g0)  a = Unsqueeze (a0, end)  sa = Mul (a, s0)  kv = Mul (kc, vr)  s1 = Add (sa, kv)  " READ, ", 1], scan_output_axes = [1]",
	       "4", "") "(s, q, k, v, g) }" },
	{ "decay of heads, sigmoid outside", "gated",
	  SCAN(", float[B,T,2] g", ", float[B,2] a0", "a1 = Unsqueeze (a0, end)  a = Unsqueeze (a1, end)  sa = Mul (s0, a)  kv = Mul (kc, vr)  s1 = Add (sa, kv)  " READ,
	       ", 1], scan_output_axes = [1]", "4", "a = Sigmoid (g)  ") "(s, q, k, v, a) }" },
	{ "retention: a constant for each head", "gated",
	  SCAN("", "", "a = Constant <value = float[2,1,1] {0.9, 0.75}> ()  sa = Mul (s0, a)  kv = Mul (kc, vr)  s1 = Add (sa, kv)  " READ, "], scan_output_axes = [1]", "3", "")
	  "(s, q, k, v) }" },
	{ "one constant for all", "gated",
	  SCAN("", "", "a = Constant <value_float = 0.9> ()  sa = Mul (s0, a)  kv = Mul (kc, vr)  s1 = Add (sa, kv)  " READ, "], scan_output_axes = [1]", "3", "") "(s, q, k, v) }" },
	{ "delta rule, correction of the value", "delta",
	  SCAN(", float[B,T,2] b", ", float[B,2] b0", "b1 = Unsqueeze (b0, end)  b = Unsqueeze (b1, end)  held = MatMul (kr, s0)  off = Sub (vr, held)  w = Mul (b, off)  kw = Mul (kc, w)  s1 = Add (s0, kw)  " READ,
	       ", 1], scan_output_axes = [1]", "4", "") "(s, q, k, v, b) }" },
	{ "delta rule, multiplied out: S - beta k^T (k S) + beta k^T v", "delta",
	  SCAN(", float[B,T,2] b", ", float[B,2] b0", "b1 = Unsqueeze (b0, end)  b = Unsqueeze (b1, end)  kb = Mul (kc, b)  kk = MatMul (kb, kr)  gone = MatMul (kk, s0)  kv = Mul (kb, vr)  s2 = Sub (s0, gone)  s1 = Add (s2, kv)  " READ,
	       ", 1], scan_output_axes = [1]", "4", "") "(s, q, k, v, b) }" },
	{ "gated delta rule", "gated_delta",
	  SCAN(", float[B,T,2] b, float[B,T,2] g", ", float[B,2] b0, float[B,2] g0",
	       "b1 = Unsqueeze (b0, end)  b = Unsqueeze (b1, end)  g1 = Unsqueeze (g0, end)  g2 = Unsqueeze (g1, end)  a = Exp (g2)  sa = Mul (s0, a)  held = MatMul (kr, sa)  off = Sub (vr, held)  w = Mul (off, b)  "
	       "kw = MatMul (kc, w)  s1 = Add (kw, sa)  " READ,
	       ", 1, 1], scan_output_axes = [1]", "5", "") "(s, q, k, v, b, g) }" },
	{ "turned state, tokens in front, no axis of heads", "linear",
	  "g (float[T,B,3] q, float[T,B,3] k, float[T,B,4] v, float[B,4,3] s) => (float[T,B,4] y, float[B,4,3] last) {\n"
	  "last, y = Scan <num_scan_inputs = 3, body = token (float[B,4,3] s0, float[B,3] q0, float[B,3] k0, float[B,4] v0) => (float[B,4,3] s1, float[B,4] o) " ENDS " {\n"
	  "kr = Unsqueeze (k0, second)  vc = Unsqueeze (v0, end)  vk = MatMul (vc, kr)  s1 = Add (s0, vk)  qc = Unsqueeze (q0, end)  oc = MatMul (s1, qc)  o = Squeeze (oc, end) }> (s, q, k, v) }" },
	{ "groups of queries", "linear",
	  "g (float[B,2,5,T,3] q, float[B,2,T,3] k, float[B,2,T,4] v, float[B,2,3,4] s) => (float[B,2,5,T,4] y, float[B,2,3,4] last) {\n"
	  "last, y = Scan <num_scan_inputs = 3, scan_input_axes = [3, 2, 2], scan_output_axes = [3], body = token (float[B,2,3,4] s0, float[B,2,5,3] q0, float[B,2,3] k0, float[B,2,4] v0) => (float[B,2,3,4] s1, float[B,2,5,4] o) " ENDS " {\n"
	  "kc = Unsqueeze (k0, end)  vr = Unsqueeze (v0, second)  kv = Mul (kc, vr)  s1 = Add (s0, kv)  o = MatMul (q0, s1) }> (s, q, k, v) }" },

	{ "no LinearAttention: a convolution behind zeros", NULL,
	  "g (float[B,3,T] x, float[3,1,4] w, float[3] b) => (float[B,3,T] y) { y = Conv <group = 3, pads = [3, 0]> (x, w, b) }" },
	{ "no LinearAttention: a convolution behind a state, which goes on, and an activation", NULL,
	  "g (float[B,3,T] x, float[3,1,4] w, float[B,3,3] s) => (float[B,3,T] y, float[B,3,3] t) <int64[1] last = {-3}, int64[1] end = {9223372036854775807}, int64[1] axis = {2}> {\n"
	  "p = Concat <axis = 2> (s, x)  c = Conv <group = 3> (p, w)  g = Sigmoid (c)  y = Mul (c, g)  t = Slice (p, last, end, axis) }" },

	{ "the state is read before the token", NULL,
	  SCAN("", "", "kv = Mul (kc, vr)  s1 = Add (kv, s0)  or = MatMul (qr, s0)  o = Squeeze (or, second)", "], scan_output_axes = [1]", "3", "") "(s, q, k, v) }" },
	{ "decay of columns", NULL,
	  SCAN(", float[B,T,2,4] g", ", float[B,2,4] g0", "a0 = Exp (g0)  a = Unsqueeze (a0, second)  sa = Mul (a, s0)  kv = Mul (kc, vr)  s1 = Add (sa, kv)  " READ, ", 1], scan_output_axes = [1]",
	       "4", "") "(s, q, k, v, g) }" },
	{ "a decay that may be negative", NULL,
	  SCAN(", float[B,T,2] g", ", float[B,2] a0", "a1 = Unsqueeze (a0, end)  a = Unsqueeze (a1, end)  sa = Mul (s0, a)  kv = Mul (kc, vr)  s1 = Add (sa, kv)  " READ,
	       ", 1], scan_output_axes = [1]", "4", "") "(s, q, k, v, g) }" },
	{ "a constant decay below 0", NULL,
	  SCAN("", "", "a = Constant <value_float = -0.9> ()  sa = Mul (s0, a)  kv = Mul (kc, vr)  s1 = Add (sa, kv)  " READ, "], scan_output_axes = [1]", "3", "") "(s, q, k, v) }" },
	{ "the new state goes through tanh", NULL,
	  SCAN("", "", "kv = Mul (kc, vr)  s2 = Add (kv, s0)  s1 = Tanh (s2)  " READ, "], scan_output_axes = [1]", "3", "") "(s, q, k, v) }" },
	{ "the state is counted twice", NULL,
	  SCAN("", "", "kv = Mul (kc, vr)  s2 = Add (kv, s0)  s1 = Add (s2, s0)  " READ, "], scan_output_axes = [1]", "3", "") "(s, q, k, v) }" },
	{ "backwards", NULL,
	  SCAN("", "", "kv = Mul (kc, vr)  s1 = Add (kv, s0)  " READ, "], scan_output_axes = [1], scan_input_directions = [1, 1, 1]", "3", "") "(s, q, k, v) }" },
	{ "the correction is by another key", NULL,
	  SCAN(", float[B,T,2] b", ", float[B,2] b0", "b1 = Unsqueeze (b0, end)  b = Unsqueeze (b1, end)  held = MatMul (qr, s0)  off = Sub (vr, held)  w = Mul (b, off)  kw = Mul (kc, w)  s1 = Add (s0, kw)  " READ,
	       ", 1], scan_output_axes = [1]", "4", "") "(s, q, k, v, b) }" },
	{ "beta on the value alone", NULL,
	  SCAN(", float[B,T,2] b", ", float[B,2] b0", "b1 = Unsqueeze (b0, end)  b = Unsqueeze (b1, end)  held = MatMul (kr, s0)  bv = Mul (b, vr)  w = Sub (bv, held)  kw = Mul (kc, w)  s1 = Add (s0, kw)  " READ,
	       ", 1], scan_output_axes = [1]", "4", "") "(s, q, k, v, b) }" },
	{ "the output is negative", NULL,
	  SCAN("", "", "kv = Mul (kc, vr)  s1 = Add (kv, s0)  or0 = MatMul (qr, s1)  or = Neg (or0)  o = Squeeze (or, second)", "], scan_output_axes = [1]", "3", "") "(s, q, k, v) }" },
};

static struct linnet_model *parsed(const char *text, const char *name)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char whole[16384], line[800];

	snprintf(whole, sizeof whole, HEADER "%s", text);
	if (!m || text_parse(m, whole, strlen(whole), &e) || graph_import(m, &e))
		fail_msg("%s: %s", name, linnet_error_line(&e, line, sizeof line));
	return m;
}

static const struct node *linear_in(const struct graph *g)
{
	for (node_id id = 1; id < g->nnode; id++)
		if (!g->node[id].dead && node_is(&g->node[id], "LinearAttention"))
			return &g->node[id];
	return NULL;
}

/* length: of the tokens; 0: several */
static void compare(const char *name, const struct graph *before, const struct graph *after, int64_t length)
{
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	struct side sides[2] = { { before, { .kernels = KERNELS_REFERENCE, .threads = 1 } }, { after, { .threads = 1 } } };
	struct pair_opt opt = { .cases = length ? 3 : 8, .gen.length = length };
	struct pair_report r;
	char line[800];

	for (int fast = 0; fast < 2; fast++) {
		sides[1].run.kernels = fast ? KERNELS_FAST : KERNELS_REFERENCE;
		if (pair_compare(&sides[0], &sides[1], &opt, a, &r, &e))
			fail_msg("%s: %s", name, linnet_error_line(&e, line, sizeof line));
		if (!r.agree)
			fail_msg("%s: not the same with %s kernels", name, fast ? "fast" : "reference");
	}
	arena_free(a);
}

static void spellings(void **state)
{
	int wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_error e = { 0 };
		struct linnet_model *before = parsed(cases[i].text, cases[i].name), *after = parsed(cases[i].text, cases[i].name);
		const struct node *n;
		char line[800];

		if (pass_run_all(after->graph, NULL, &e) || graph_verify(after->graph, &e))
			fail_msg("%s: %s", cases[i].name, linnet_error_line(&e, line, sizeof line));
		n = linear_in(after->graph);
		if (!n != !cases[i].rule || (n && strncmp(node_attr(n, "update_rule")->s.p, cases[i].rule, node_attr(n, "update_rule")->s.n) != 0) ||
		    (n && node_attr(n, "update_rule")->s.n != strlen(cases[i].rule))) {
			print_error("%s: found %s, expected %s\n", cases[i].name, n ? node_attr(n, "update_rule")->s.p : "nothing",
			            cases[i].rule ? cases[i].rule : "nothing");
			wrong++;
		}
		compare(cases[i].name, before->graph, after->graph, 0);
		model_free(before);
		model_free(after);
	}
	assert_int_equal(wrong, 0);
}

/* ---- tests/recurrences.txt ---- */

struct spelling {
	char title[200], rules[80], text[16000];
};

/* "rule rule ..." of the LinearAttention nodes of g and the graphs in it, each with a blank before it. */
static void rules_in(const struct graph *g, char *out, size_t size)
{
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];
		size_t at = strlen(out);

		if (!n->dead && node_is(n, "LinearAttention"))
			snprintf(out + at, size - at, " %.*s", (int)node_attr(n, "update_rule")->s.n, node_attr(n, "update_rule")->s.p);
		for (uint32_t i = 0; !n->dead && i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				rules_in(n->attr[i].g, out, size);
	}
}

/* The recurrences of g and the graphs in it: operator, attributes that are given, inputs and outputs that are used. */
static void nodes_in(const struct graph *g, struct str *s)
{
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];

		for (uint32_t i = 0; !n->dead && i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				nodes_in(n->attr[i].g, s);
		if (n->dead || (!node_is(n, "LinearAttention") && !node_is(n, "CausalConvWithState")))
			continue;
		str_add(s, n->op->name);
		for (uint32_t i = 0; i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_STRING)
				str_addf(s, " %s=%.*s", n->attr[i].name, (int)n->attr[i].s.n, n->attr[i].s.p);
			else
				str_addf(s, " %s=%.6g", n->attr[i].name, n->attr[i].kind == ATTR_INT ? (double)n->attr[i].i : n->attr[i].f);
		str_add(s, " of");
		for (uint32_t i = 0; i < n->nin; i++)
			if (n->in[i])
				str_addf(s, " %s", op_in(n->op, (int)i)->name);
		str_add(s, ";");
	}
}

/*
 * In primitive operators (opset PRIMITIVE), or in those of an opset, and recognised again: *apart is what that differs by from the
 * spelling as it was, in double, and what comes back is put in `found`.
 */
static enum linnet_code there_and_back(struct linnet_model *m, const struct graph *before, int opset, struct str *found, double *apart, struct linnet_error *e)
{
	uint32_t n = 0;
	enum linnet_code code = opset ? graph_export(m, opset, e) : graph_primitive(m->graph, &n, e);
	double rel;

	if (!code && opset)
		code = graph_import(m, e);
	if (!code && opset < 27)
		nodes_in(m->graph, found);
	assert_int_equal(found->n, 0);
	if (!code)
		code = certify_compare_at(before, m->graph, 2, 1, 12, apart, &rel, e);
	if (!code)
		code = pass_run_all(m->graph, NULL, e);
	if (!code)
		code = graph_verify(m->graph, e);
	nodes_in(m->graph, found);
	return code;
}

enum { PRIMITIVE = 0, FIRST_OPSET = 11 };

static int check_back(const char *title, const char *text)
{
	struct arena *a = arena_new();
	struct linnet_model *spelled = parsed(text, title);
	int wrong = 0;

	for (int opset = PRIMITIVE; opset <= OPSET_NEWEST; opset = opset ? opset + 1 : FIRST_OPSET) {
		struct linnet_error e = { 0 };
		struct linnet_model *m = parsed(text, title);
		struct str before, after;
		double apart = 0;
		char line[800];

		str_init(&before, a);
		str_init(&after, a);
		if (pass_run_all(m->graph, NULL, &e))
			fail_msg("%s: %s", title, linnet_error_line(&e, line, sizeof line));
		nodes_in(m->graph, &before);
		if (before.n && there_and_back(m, spelled->graph, opset, &after, &apart, &e)) {
			print_error("%s, opset %d: %s\n", title, opset, linnet_error_line(&e, line, sizeof line));
			wrong++;
		} else if (before.n && (before.n != after.n || strcmp(before.p, after.p) != 0)) {
			print_error("%s, opset %d: %s\n  came back as %s\n", title, opset, before.p, after.n ? after.p : "nothing");
			wrong++;
		} else if (!(apart < (opset < 27 ? 1e-7 : 1e-5))) { /* constants are rounded; the nodes themselves are computed in float */
			print_error("%s, opset %d: differs by %g\n", title, opset, apart);
			wrong++;
		}
		model_free(m);
	}
	model_free(spelled);
	arena_free(a);
	return wrong;
}

static int check_spelling(const struct spelling *s)
{
	struct linnet_error e = { 0 };
	struct linnet_model *before = parsed(s->text, s->title), *after = parsed(s->text, s->title);
	char line[800], found[80] = "";
	int wrong;

	if (pass_run_all(after->graph, NULL, &e) || graph_verify(after->graph, &e))
		fail_msg("%s: %s", s->title, linnet_error_line(&e, line, sizeof line));
	rules_in(after->graph, found, sizeof found);
	wrong = strcmp(*found ? found + 1 : "-", s->rules) != 0;
	if (wrong)
		print_error("%s: found %s, expected %s\n", s->title, *found ? found + 1 : "-", s->rules);
	compare(s->title, before->graph, after->graph, 12);
	if (!strstr(s->title, "chunk"))
		compare(s->title, before->graph, after->graph, 0);
	model_free(before);
	model_free(after);
	return wrong;
}

static bool next_spelling(FILE *file, struct spelling *s)
{
	char line[4000];
	long at = ftell(file);

	*s->title = *s->rules = *s->text = '\0';
	while (fgets(line, sizeof line, file)) {
		if (!strncmp(line, "## ", 3) && *s->title) {
			fseek(file, at, SEEK_SET);
			return true;
		}
		at = ftell(file);
		if (!strncmp(line, "## ", 3))
			snprintf(s->title, sizeof s->title, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
		else if (!strncmp(line, "=> ", 3))
			snprintf(s->rules, sizeof s->rules, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
		else if (*s->title)
			strncat(s->text, line, sizeof s->text - strlen(s->text) - 1);
	}
	return *s->title;
}

static void other_words(void **state)
{
	static struct spelling s;
	FILE *file = fopen("tests/recurrences.txt", "r");
	int wrong = 0;

	(void)state;
	assert_non_null(file);
	while (next_spelling(file, &s))
		wrong += check_spelling(&s);
	fclose(file);
	assert_int_equal(wrong, 0);
}

static void and_back(void **state)
{
	static struct spelling s;
	FILE *file = fopen("tests/recurrences.txt", "r");
	int wrong = 0;

	(void)state;
	assert_non_null(file);
	while (next_spelling(file, &s))
		wrong += check_back(s.title, s.text);
	fclose(file);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		wrong += check_back(cases[i].name, cases[i].text);
	assert_int_equal(wrong, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(spellings),
		cmocka_unit_test(other_words),
		cmocka_unit_test(and_back),
	};

	return cmocka_run_group_tests_name("recur", tests, NULL, NULL);
}
