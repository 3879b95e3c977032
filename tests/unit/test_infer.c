/* Inference: types of values as texts, from models as texts. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "graph/text.h"
#include "ops/base/str.h"

static struct linnet_model *imported(const char *text)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[800];

	assert_non_null(m);
	if (text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s\nin\n%s", linnet_error_line(&e, line, sizeof line), text);
	return m;
}

static struct linnet_model *inferred(const char *text)
{
	struct linnet_model *m = imported(text);
	struct linnet_error e = { 0 };
	char line[800];

	if (graph_infer(m->graph, &e) || graph_verify(m->graph, &e))
		fail_msg("%s\nin\n%s", linnet_error_line(&e, line, sizeof line), text);
	return m;
}

/* "float[batch,seq]", and what is known of the elements: "int64[2] {batch, 4}". */
static const char *described(struct linnet_model *m, const struct type *t)
{
	const char *shape = shape_str(m->dims, &t->shape, m->arena);
	int64_t n = t->value ? t->value->n : t->sym ? (t->shape.rank ? t->shape.d[0] : 1) : 0;
	struct str s;

	str_init(&s, m->arena);
	str_addf(&s, "%s%s", dtype_name(t->dt), shape ? shape : "");
	for (int64_t i = 0; i < n && n <= 8; i++) {
		str_add(&s, i ? ", " : " {");
		if (t->value && dtype_class(t->dt) == CLASS_FLOAT)
			str_addf(&s, "%g", tensor_get(t->value, i));
		else
			str_add(&s, dim_str(m->dims, t->value ? tensor_get_int(t->value, i) : t->sym[i], m->arena));
	}
	str_add(&s, n && n <= 8 ? "}" : "");
	if (t->den)
		str_addf(&s, " / %lld", (long long)t->den);
	return str_done(&s);
}

static value_id find(const struct graph *g, const char *name)
{
	for (value_id v = 1; v < g->nvalue; v++)
		if (!strcmp(g->value[v].name, name))
			return v;
	fail_msg("no value is named %s", name);
	return 0;
}

enum { MAX_EXPECT = 10 };

static const struct {
	const char *text;
	const char *expect[MAX_EXPECT][2];
} cases[] = {
	/* shapes travel through the arithmetic exporters write */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq, 64] x) => (y) <int64 i0 = {0}, int64 i1 = {1}, int64[1] a = {0}, int64[2] hd = {4, 16}>\n"
	  "{ s = Shape (x)\n b = Gather (s, i0)\n t = Gather (s, i1)\n b1 = Unsqueeze (b, a)\n t1 = Unsqueeze (t, a)\n"
	  "  h = Concat <axis = 0> (b1, t1, hd)\n r = Reshape (x, h)\n y = Transpose <perm = [0, 2, 1, 3]> (r) }",
	  { { "s", "int64[3] {batch, seq, 64}" }, { "b", "int64[] {batch}" }, { "h", "int64[4] {batch, seq, 4, 16}" },
	    { "r", "float[batch,seq,4,16]" }, { "y", "float[batch,4,seq,16]" } } },
	/* -1 by exact division; 0 copies */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq, 64] x, float[b2, \"8*h\", \"8*w\", 3] im) => (y) <int64[4] a = {0, -1, 4, 16}, int64[2] f = {-1, 64},\n"
	  "  int64[4] win = {-1, 8, 8, 3}>\n"
	  "{ r = Reshape (x, a)\n y = Reshape (x, f)\n z = Reshape (im, win) }",
	  { { "r", "float[batch,seq,4,16]" }, { "y", "float[batch*seq,64]" }, { "z", "float[b2*h*w,8,8,3]" } } },
	/* arithmetic on lengths, comparisons that hold for every length, and choices by them */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq, 64] x) => (y) <int64 one = {1}, int64[1] two = {2}, int64[3] minus = {-1, -1, -1}>\n"
	  "{ s = Shape (x)\n a = Add (s, one)\n b = Sub (one, s)\n k = Mul (s, two)\n d = Div (s, two)\n m = Mod (k, two)\n"
	  "  p = ReduceProd <keepdims = 0> (s)\n q = Equal (s, minus)\n c = Cast <to = 6> (q)\n y = Where (q, one, s) }",
	  { { "a", "int64[3] {batch + 1, seq + 1, 65}" }, { "b", "int64[3] {1 - batch, 1 - seq, -63}" },
	    { "k", "int64[3] {2*batch, 2*seq, 128}" }, { "d", "int64[3] {batch//2, seq//2, 32}" }, { "m", "int64[3] {0, 0, 0}" },
	    { "p", "int64[] {64*batch*seq}" }, { "q", "bool[3] {0, 0, 0}" }, { "c", "int32[3] {0, 0, 0}" },
	    { "y", "int64[3] {batch, seq, 64}" } } },
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq] x) => (y) <int64 one = {1}, int64 low = {0}, int64 three = {3}>\n"
	  "{ s = Shape (x)\n a = Add (s, one)\n n = Neg (a)\n l = Less (n, low)\n g = Greater (s, three)\n e = GreaterOrEqual (a, s)\n o = Or (l, e)\n"
	  "  b = Not (o)\n h = Mod <fmod = 1> (s, three)\n x2 = Xor (b, e)\n t = Max (s, low)\n d = Div (n, three)\n y = Clip (a, one) }",
	  { { "n", "int64[2] {-batch - 1, -seq - 1}" }, { "l", "bool[2] {1, 1}" }, { "g", "bool[2]" }, { "e", "bool[2] {1, 1}" },
	    { "b", "bool[2] {0, 0}" }, { "t", "int64[2] {batch, seq}" }, { "h", "int64[2] {batch - 3*(batch//3), seq - 3*(seq//3)}" },
	    { "x2", "bool[2] {1, 1}" }, { "y", "int64[2] {batch + 1, seq + 1}" } } },
	/* constants are evaluated */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[2, 3] x) => (y) <int64[2] p = {3, 2}>\n"
	  "{ s = Shape (x)\n c = Concat <axis = 0> (p, s)\n y = ConstantOfShape <value = int64[1] {7}> (p)\n t = Transpose (y) }",
	  { { "s", "int64[2] {2, 3}" }, { "c", "int64[4] {3, 2, 2, 3}" }, { "t", "int64[2,3] {7, 7, 7, 7, 7, 7}" } } },
	/* lengths computed in floats, as for Resize and scales */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[1, 3, h, w] x) => (y) <float two = {2}, float half = {0.5}, float third = {3}, int64[1] z = {0}, int64[2] nc = {1, 3},\n"
	  "    int64 i2 = {2}, int64 i3 = {3}>\n"
	  "{ s = Shape (x)\n hi = Gather (s, i2)\n wi = Gather (s, i3)\n hf = Cast <to = 1> (hi)\n wf = Cast <to = 1> (wi)\n"
	  "  h2 = Mul (hf, two)\n hx = Add (h2, half)\n h3 = Floor (hx)\n w2 = Div (wf, third)\n w3 = Ceil (w2)\n"
	  "  a = Cast <to = 7> (h3)\n b = Cast <to = 7> (w3)\n t = Cast <to = 7> (w2)\n a1 = Unsqueeze (a, z)\n b1 = Unsqueeze (b, z)\n"
	  "  size = Concat <axis = 0> (nc, a1, b1)\n y = Resize (x, , , size)\n q = Div (hx, hf)\n one = Div (h2, hf) }",
	  { { "hx", "float[] {4*h + 1} / 2" }, { "h3", "float[] {2*h}" }, { "w2", "float[] {w} / 3" }, { "b", "int64[] {(w + 2)//3}" },
	    { "t", "int64[] {w//3}" }, { "size", "int64[4] {1, 3, 2*h, (w + 2)//3}" }, { "y", "float[1,3,2*h,(w + 2)//3]" },
	    { "q", "float[]" }, { "one", "float[] {2}" } } },
	/* as vectors; Resize by scales that are ratios */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[1, 3, h, w] x) => (y) <float[2] by = {1.5, 0.25}, int64[1] two = {2}, int64[1] far = {9223372036854775807}, int64[1] z = {0},\n"
	  "    float[4] scales = {1, 1, 1.5, 0.25}>\n"
	  "{ s = Shape (x)\n hw = Slice (s, two, far, z)\n f = Cast <to = 1> (hw)\n m = Mul (f, by)\n o = Floor (m)\n i = Cast <to = 7> (o)\n"
	  "  y = Resize (x, , scales) }",
	  { { "m", "float[2] {6*h, w} / 4" }, { "i", "int64[2] {h + h//2, w//4}" }, { "y", "float[1,3,h + h//2,w//4]" } } },
	/* what exporters write around Expand and Range: is -1 a length, how long is a range */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[batch, seq] x) => (y) <int64[3] want = {-1, 4, -1}, int64[1] three = {3}, int64 minus = {-1}, int64[1] z = {0}, int64 i0 = {0},\n"
	  "    int64 i1 = {1}, float f1 = {1}, float f0 = {0}>\n"
	  "{ s = Shape (x)\n b = Gather (s, i0)\n n = Gather (s, i1)\n b1 = Unsqueeze (b, z)\n n1 = Unsqueeze (n, z)\n one = Constant <value_ints = [1]> ()\n"
	  "  real = Concat <axis = 0> (b1, one, n1)\n ones = ConstantOfShape <value = int64[1] {1}> (three)\n m = Mul (ones, minus)\n"
	  "  is = Equal (want, m)\n dims = Where (is, ones, want)\n u = Unsqueeze (x, one)\n y = Expand (u, dims)\n"
	  "  isr = Equal (real, m)\n dimr = Where (isr, ones, real)\n r = Range (i0, n, i1)\n nf = Cast <to = 1> (n)\n rf = Range (f0, nf, f1)\n"
	  "  all = ReduceProd <keepdims = 0> (real)\n filled = ConstantOfShape (real)\n sq = Squeeze (filled, one) }",
	  { { "dims", "int64[3] {1, 4, 1}" }, { "y", "float[batch,4,seq]" }, { "dimr", "int64[3] {batch, 1, seq}" },
	    { "r", "int64[seq]" }, { "rf", "float[seq]" }, { "all", "int64[] {batch*seq}" }, { "filled", "float[batch,1,seq]" },
	    { "sq", "float[batch,seq]" } } },
	/* ranges from a place that only data tells: as many as lie between it and their ends, but not behind a Cast to another number */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[seq] x, int64[1] place, int64 start) => (a, b, c, d, f) <int64[1] z = {0}, int64 one = {1}, int64 two = {2}, int64 back = {-1}>\n"
	  "{ n = Shape (x)\n end1 = Add (place, n)\n p = Squeeze (place, z)\n end = Squeeze (end1, z)\n a = Range (p, end, one)\n b = Range (p, end, two)\n"
	  "  k = Squeeze (n, z)\n from = Sub (start, k)\n c = Range (from, start, one)\n d = Range (end, p, back)\n"
	  "  few = Cast <to = 3> (start)\n many = Cast <to = 7> (few)\n last = Add (start, k)\n f = Range (many, last, one) }",
	  { { "a", "int64[seq]" }, { "b", "int64[(seq + 1)//2]" }, { "c", "int64[seq]" }, { "d", "int64[d_d0]" }, { "f", "int64[f_d0]" } } },
	/* slices between symbolic ends */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[past, 8] cache, float[seq, 8] x, float[64, 64] table) => (e) <int64 i0 = {0}, int64[1] z = {0}, int64[1] last = {-1},\n"
	  "    int64[1] far = {9223372036854775807}, int64[1] axis1 = {1}>\n"
	  "{ all = Concat <axis = 0> (cache, x)\n sa = Shape (all)\n sx = Shape (x)\n t = Gather (sa, z)\n n = Gather (sx, z)\n"
	  "  from = Sub (t, n)\n a = Slice (table, from, t, z)\n b = Slice (a, z, t, axis1)\n c = Slice (all, from, far, z)\n"
	  "  d = Slice (all, z, last, z)\n e = Slice (all, last, far, z) }",
	  { { "from", "int64[1] {past}" }, { "a", "float[max(min(64 - past, seq), 0),64]" }, { "c", "float[seq,8]" },
	    { "d", "float[max(past + seq - 1, 0),8]" }, { "e", "float[min(1, past + seq),8]" } } },
	/* If: lengths the branches share stay, others are symbols with what is sure of both */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[n, 4] x, bool c) => (y, z) <int64[1] a = {0}, int64[2] r = {1, -1}>\n"
	  "{ w = Constant <value = float[2,4] {0,0,0,0,0,0,0,0}> ()\n  two = Constant <value_ints = [2]> ()\n"
	  "  y, z = If (c) <then_branch = t () => (p, q) { p = Concat <axis = 0> (x, x, w)\n q = Reshape (x, r) },\n"
	  "    else_branch = f () => (s, u) { s = Identity (w)\n u = Transpose (x) }>\n"
	  "  v = Shape (y)\n l = Gather (v, a)\n at = Sub (l, two)\n e = ConstantOfShape (at) }",
	  { { "y", "float[y_d0,4]" }, { "z", "float[z_d0,z_d1]" }, { "e", "float[y_d0 - 2]" } } },
	/* a branch that cannot run says nothing, nor does one that is known not to be taken */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[n, 4] x, bool c) => (y) <int64[1] last = {1}, bool no = {0}>\n"
	  "{ y = If (c) <then_branch = t () => (p) { p = Squeeze (x, last) }, else_branch = f () => (q) { q = Identity (x) }>\n"
	  "  z = If (no) <then_branch = t () => (p2) { p2 = Neg (x) }, else_branch = f () => (q2) { q2 = Transpose (x) }>\n"
	  "  k = If (no) <then_branch = t () => (p3) { p3 = Shape (x) }, else_branch = f () => (q3) { q3 = Constant <value_ints = [7, 8]> () }> }",
	  { { "y", "float[n,4]" }, { "z", "float[4,n]" }, { "k", "int64[2] {7, 8}" } } },
	/* Loop: what stays the same is kept, what grows is a symbol; stacked outputs are as long as the trip count */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[n, 4] x, float[1, 4] acc, float[t, 2] steps) => (rows) <bool yes = {1}, int64 i0 = {0}, int64[1] k = {5}>\n"
	  "{ s = Shape (steps)\n m = Gather (s, i0)\n"
	  "  same, grown, count, rows = Loop (m, yes, x, acc, k) <body = b (i, go, v, w, c) => (on, v2, w2, c2, row) {\n"
	  "    on = Identity (go)\n v2 = Neg (v)\n w2 = Concat <axis = 0> (w, v)\n c2 = Identity (c)\n row = Transpose (w2) }>\n"
	  "  alone, until = Loop (, yes, x) <body = b2 (i2, go2, a) => (on2, a2, r2) { th = Constant <value_float = 1.0> ()\n"
	  "    sum = ReduceSum <keepdims = 0> (a)\n on2 = Less (sum, th)\n a2 = Neg (a)\n r2 = Identity (sum) }> }",
	  { { "same", "float[n,4]" }, { "grown", "float[grown_d0,4]" }, { "count", "int64[1] {5}" }, { "rows", "float[t,4,rows_d2]" },
	    { "alone", "float[n,4]" }, { "until", "float[until_d0]" } } },
	/* a carried value whose rank changes, and one whose contents do */
	{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
	  "g (float[4] x, int64 m) => (y) <bool yes = {1}, int64[1] a = {0}, int64[1] k = {5}>\n"
	  "{ y, z = Loop (m, yes, x, k) <body = b (i, go, v, c) => (on, v2, c2) {\n"
	  "    on = Identity (go)\n v2 = Unsqueeze (v, a)\n c2 = Add (c, c) }> }",
	  { { "y", "float[?]" }, { "z", "int64[1]" } } },
	/* Scan: slices along axes, stacked along axes */
	{ "<ir_version: 9, opset_import: [\"\": 18]>\n"
	  "g (float[batch, 8] h, float[batch, t, 8] x) => (y)\n"
	  "{ last, y = Scan (h, x) <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [-2], body = b (state, slice) => (next, out) {\n"
	  "    next = Add (state, slice)\n out = Identity (next) }> }",
	  { { "last", "float[batch,8]" }, { "y", "float[batch,t,8]" } } },
	/* what inference cannot know comes from the file, else it is a symbol of the value's own */
	{ "<ir_version: 8, opset_import: [\"\": 18, \"x.y\": 1]>\n"
	  "g (float[n] x, int64[2] s) => (y) <float[n, 5] a>\n"
	  "{ a = x.y.Something (x)\n b = x.y.Something (a)\n y = Reshape (x, s)\n z = Reshape (x, s) }",
	  { { "a", "float[n,5]" }, { "b", "undefined[?]" }, { "y", "float[y_d0,y_d1]" }, { "z", "float[z_d0,z_d1]" } } },
};

static void types_of_values(void **state)
{
	int wrong = 0;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_model *m = inferred(cases[i].text);

		/* a second run finds the same */
		for (int run = 0; run < 2; run++) {
			struct linnet_error e = { 0 };

			for (int k = 0; k < MAX_EXPECT && cases[i].expect[k][0]; k++) {
				const char *name = cases[i].expect[k][0], *want = cases[i].expect[k][1];
				const char *found = described(m, &m->graph->value[find(m->graph, name)].type);

				if (found && !strcmp(found, want))
					continue;
				print_error("%s is %s, not %s, in\n%s\n", name, found ? found : "nothing", want, cases[i].text);
				wrong++;
			}
			assert_int_equal(graph_infer(m->graph, &e), LINNET_OK);
		}
		model_free(m);
	}
	assert_int_equal(wrong, 0);
}

static void errors_name_the_node(void **state)
{
	static const struct { const char *text, *line; } wrong[] = {
		{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
		  "g (float[n, 5] x, float[4, n] w) => (y) { [first] h = MatMul (x, w)\n y = Relu (h) }",
		  "node \"first\" (MatMul): inner lengths differ: 5 and 4" },
		{ "<ir_version: 8, opset_import: [\"\": 18]>\n"
		  "g (float[n] x) => (y) { y = Concat <axis = 1> (x, x) }",
		  "node \"y\" (Concat): axis 1 is not in [-1, 0]" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct linnet_error e = { 0 };
		struct linnet_model *m = model_new(NULL, &e);
		char line[800];

		assert_int_equal(text_parse(m, wrong[i].text, strlen(wrong[i].text), &e), LINNET_OK);
		assert_true(graph_import(m, &e) != LINNET_OK); /* infers */
		assert_string_equal(linnet_error_line(&e, line, sizeof line), wrong[i].line);
		model_free(m);
	}
}

/* Each of many nested loops makes its value grow: finding that out takes two ways round at every level. */
static void nested_loops_end(void **state)
{
	enum { DEPTH = 40 };
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	struct str s;

	(void)state;
	assert_non_null(m);
	str_init(&s, m->arena);
	str_add(&s, "<ir_version: 8, opset_import: [\"\": 18]>\ng (int64 m, float[1] \"v-1\") => (y)\n{ ");
	for (int i = 0; i < DEPTH; i++)
		str_addf(&s, "u%d = Loop (m, , \"v%d\") <body = b%d (i%d, go%d, v%d) => (on%d, w%d) { on%d = Identity (go%d)\n", i, i - 1, i,
		         i, i, i, i, i, i, i);
	str_addf(&s, "w%d = Concat <axis = 0> (v%d, v%d)", DEPTH - 1, DEPTH - 1, DEPTH - 1);
	for (int i = DEPTH - 1; i > 0; i--)
		str_addf(&s, " }>\n w%d = Concat <axis = 0> (u%d, v%d)", i - 1, i, i - 1);
	str_add(&s, " }>\n y = Identity (u0) }");
	assert_false(s.failed);
	assert_int_equal(text_parse(m, s.p, s.n, &e), LINNET_OK);
	assert_int_equal(graph_import(m, &e), LINNET_OK);
	assert_int_equal(m->graph->value[find(m->graph, "y")].type.dt, DT_FLOAT);
	model_free(m);
}

/* ---- Verifying ---- */

static struct node *named(struct graph *g, const char *name)
{
	for (node_id n = 1; n < g->nnode; n++)
		if (!strcmp(g->node[n].name, name))
			return &g->node[n];
	fail_msg("no node is named %s", name);
	return NULL;
}

static void input_out_of_range(struct graph *g) { named(g, "sum")->in[0] = g->nvalue; }
static void output_out_of_range(struct graph *g) { named(g, "sum")->out[0] = g->nvalue; }
static void producer_dead(struct graph *g) { named(g, "soft")->dead = true; }
static void two_producers(struct graph *g) { named(g, "sum")->out[0] = named(g, "soft")->out[0]; }
static void input_left_out(struct graph *g) { named(g, "sum")->in[1] = 0; }
static void cycle(struct graph *g) { named(g, "soft")->in[0] = named(g, "sum")->out[0]; }
static void attribute_kind(struct graph *g) { named(g, "soft")->attr[0].kind = ATTR_FLOAT; }
static void attribute_missing(struct graph *g) { named(g, "cat")->attr[0].kind = ATTR_NONE; }
static void output_type(struct graph *g) { g->value[find(g, "h")].type.dt = DT_INT64; }
static void constant_type(struct graph *g) { g->value[find(g, "w")].type.dt = DT_DOUBLE; }
static void constant_shape(struct graph *g) { g->value[find(g, "w")].type.shape.d[0] = 3; }
static void constant_gone(struct graph *g) { g->value[find(g, "w")].type.value = NULL; }
static void same_names(struct graph *g) { g->value[find(g, "h")].name = "s"; }
static void captures(struct graph *g)
{
	struct node *n = named(g, "choice");

	n->nin--;
	n->ncapture--;
}
static void capture_type(struct graph *g)
{
	struct graph *sub = node_attr(named(g, "choice"), "then_branch")->g;

	sub->value[sub->in[0]].type.dt = DT_INT64;
}
static void not_an_input(struct graph *g) { g->in[0] = find(g, "h"); }
static void no_such_output(struct graph *g) { g->out[0] = 0; }
static void old_row(struct graph *g)
{
	struct node *n = named(g, "soft");

	n->op = op_find(NULL, "Softmax", 7);
}
static void nothing_wrong(struct graph *g) { (void)g; }

static void verifying(void **state)
{
	static const struct {
		void (*damage)(struct graph *g);
		enum linnet_code code;
		const char *message;
	} cases_of[] = {
		{ nothing_wrong, LINNET_OK, "" },
		{ input_out_of_range, LINNET_EINTERNAL, "input 0 is value" },
		{ output_out_of_range, LINNET_EINTERNAL, "output 0 is value" },
		{ producer_dead, LINNET_EINTERNAL, "input \"s\" has no producer" },
		{ two_producers, LINNET_EINTERNAL, "output \"s\" does not know its producer" },
		{ input_left_out, LINNET_EMODEL, "input \"B\" is left out but is not optional" },
		{ cycle, LINNET_EMODEL, "cycle" },
		{ attribute_kind, LINNET_EATTR, "attribute \"axis\" has the wrong kind" },
		{ attribute_missing, LINNET_EATTR, "attribute \"axis\" is required" },
		{ output_type, LINNET_ETYPE, "output \"C\" has element type int64; float was expected" },
		{ constant_type, LINNET_EINTERNAL, "contents of \"w\" are of another type" },
		{ constant_shape, LINNET_EINTERNAL, "contents of \"w\" are of another shape" },
		{ constant_gone, LINNET_EINTERNAL, "constant \"w\" has no contents" },
		{ same_names, LINNET_EINTERNAL, "two values are named \"s\"" },
		{ captures, LINNET_EINTERNAL, "does not belong here" },
		{ capture_type, LINNET_ETYPE, "is captured as int64; it is float" },
		{ not_an_input, LINNET_EINTERNAL, "graph input 0 is no input" },
		{ no_such_output, LINNET_EINTERNAL, "graph output 0 has no producer" },
		{ old_row, LINNET_EINTERNAL, "the row since opset 1 is not current" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases_of / sizeof *cases_of; i++) {
		struct linnet_model *m = imported(
			"<ir_version: 8, opset_import: [\"\": 18]>\n"
			"g (float[2] x, bool c) => (y) <float[2] w = {1, 2}>\n"
			"{ [soft] s = Softmax (x)\n [sum] h = Add (s, w)\n [cat] k = Concat <axis = 0> (h, h)\n"
			"  [choice] y = If (c) <then_branch = t () => (p) { p = Neg (h) }, else_branch = e () => (q) { q = Abs (k) }> }");
		struct linnet_error e = { 0 };

		cases_of[i].damage(m->graph);
		if (graph_verify(m->graph, &e) != cases_of[i].code || !strstr(e.message, cases_of[i].message))
			fail_msg("case %zu: %s instead of %s", i, e.message, cases_of[i].message);
		model_free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(types_of_values),
		cmocka_unit_test(errors_name_the_node),
		cmocka_unit_test(nested_loops_end),
		cmocka_unit_test(verifying),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
