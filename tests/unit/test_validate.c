/* validate/: drawing, comparing, locating and language models against numbers worked out by hand. */
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

#include "runtime/data.h"
#include "validate/agree.h"
#include "validate/validate.h"

static struct tensor wrap(enum dtype dt, int64_t n, void *data)
{
	return (struct tensor){ .dt = dt, .rank = 1, .d = { n }, .n = n, .bytes = dtype_bytes(dt, (uint64_t)n), .data = data };
}

static struct diff compare(const struct tensor *a, const struct tensor *b, const struct tolerance *t)
{
	struct diff d;

	diff_init(&d, "y");
	diff_add(&d, a, b, t);
	return d;
}

static const struct tolerance usual;

static void compares_floats(void **state)
{
	float x[] = { 1, -2, 0, 4 }, y[] = { 1, -2.5f, 0, 4.001f };
	struct tensor a = wrap(DT_FLOAT, 4, x), b = wrap(DT_FLOAT, 4, y);
	struct diff d = compare(&a, &b, &usual);

	(void)state;
	assert_int_equal(d.n, 4);
	assert_int_equal(d.wrong, 1); /* 0.001 is within 1e-3 of 4 */
	assert_int_equal(d.worst, 1);
	assert_true(d.max_abs == 0.5);
	assert_true(d.max_rel == 0.2);
	assert_true(fabs(diff_nmse(&d) - (0.25 + 1e-6) / 21) < 1e-9);
	assert_int_equal(d.max_ulp, 1 << 21); /* a quarter of the 2^23 floats between 2 and 4 */
	assert_false(diff_agrees(&d, &usual));
	assert_true(diff_agrees(&d, &(struct tolerance){ .budget = 0.02 }));
	assert_false(diff_agrees(&d, &(struct tolerance){ .budget = 0.01 }));
}

static void counts_ulps(void **state)
{
	float x[] = { 1, 0.0f, 0x1p-149f }, y[] = { 1 + 0x1p-23f, -0.0f, -0x1p-149f };
	double u[] = { 1 }, v[] = { 1 - 0x1p-53 };
	uint16_t h[] = { 0x3c00 }, k[] = { 0x3c05 };
	struct tensor a, b;

	(void)state;
	a = wrap(DT_FLOAT, 1, x), b = wrap(DT_FLOAT, 1, y);
	assert_int_equal(compare(&a, &b, &usual).max_ulp, 1);
	a = wrap(DT_FLOAT, 3, x), b = wrap(DT_FLOAT, 3, y);
	assert_int_equal(compare(&a, &b, &usual).max_ulp, 2); /* from one side of zero to the other */
	a = wrap(DT_DOUBLE, 1, u), b = wrap(DT_DOUBLE, 1, v);
	assert_int_equal(compare(&a, &b, &usual).max_ulp, 1);
	a = wrap(DT_FLOAT16, 1, h), b = wrap(DT_FLOAT16, 1, k);
	assert_int_equal(compare(&a, &b, &usual).max_ulp, 5);
}

static void finds_nan_and_infinity(void **state)
{
	float x[] = { NAN, INFINITY, 1, -INFINITY }, y[] = { NAN, INFINITY, NAN, INFINITY };
	struct tensor a = wrap(DT_FLOAT, 4, x), b = wrap(DT_FLOAT, 4, y), same = wrap(DT_FLOAT, 2, x);
	struct diff d = compare(&a, &b, &usual);

	(void)state;
	assert_int_equal(d.nan_at, 2);
	assert_int_equal(d.inf_at, 3);
	assert_int_equal(d.wrong, 2);
	assert_false(diff_agrees(&d, &(struct tolerance){ .budget = 1e9 }));
	d = compare(&same, &same, &usual);
	assert_true(diff_agrees(&d, &usual));
	assert_true(diff_nmse(&d) == 0);
}

static void compares_exactly_what_is_exact(void **state)
{
	int64_t x[] = { (int64_t)1 << 53, 7 }, y[] = { ((int64_t)1 << 53) + 1, 7 };
	struct text s[] = { { "ab", 2 }, { "c", 1 } }, t[] = { { "ab", 2 }, { "d", 1 } };
	struct tensor a = wrap(DT_INT64, 2, x), b = wrap(DT_INT64, 2, y), c = wrap(DT_STRING, 2, s), d = wrap(DT_STRING, 2, t);
	struct diff ints = compare(&a, &b, &usual), strings = compare(&c, &d, &usual);

	(void)state;
	assert_int_equal(ints.wrong, 1);
	assert_int_equal(ints.worst, 0);
	assert_false(diff_agrees(&ints, &(struct tolerance){ .budget = 1 }));
	assert_int_equal(strings.wrong, 1);
	assert_int_equal(strings.worst, 1);
}

static void tells_types_apart(void **state)
{
	float x[6] = { 0 };
	struct tensor a = wrap(DT_FLOAT, 6, x), b = a, c = wrap(DT_INT32, 6, x);
	struct diff d;

	(void)state;
	b.rank = 2, b.d[0] = 2, b.d[1] = 3;
	d = compare(&a, &b, &usual);
	assert_true(d.typed_apart);
	assert_false(diff_agrees(&d, &usual));
	d = compare(&a, &c, &usual);
	assert_true(d.typed_apart);
}

static void tolerance_follows_the_type(void **state)
{
	(void)state;
	assert_true(tolerance_rtol(&usual, DT_FLOAT) == 1e-3);
	assert_true(tolerance_atol(&usual, DT_FLOAT) == 1e-5);
	assert_true(tolerance_rtol(&usual, DT_FLOAT16) == 16 * 0x1p-11);
	assert_true(tolerance_atol(&usual, DT_BFLOAT16) == 8 * 0x1p-8);
	assert_true(fabs(tolerance_rtol(&usual, DT_DOUBLE) - 1e-7) < 1e-20);
}

/* ---- Graphs from text ---- */

static struct linnet_model *parse(const char *text)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	char line[900];

	if (!m || text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		print_error("%s\n", linnet_error_line(&e, line, sizeof line));
	assert_int_equal(e.code, LINNET_OK);
	return m;
}

#define HEAD "<ir_version: 10, opset_import: [\"\" : 23]>\n"

static void draws_in_range(void **state)
{
	struct linnet_model *m = parse(HEAD "g (int64[batch,seq] ids, int64[batch,seq] mask, float[batch,seq,3] x, uint8[2,total] q, int64[2] plain)"
	                                    " => (y, z, w, v)\n"
	                                    "<float[5,3] table = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}, int64[1] one = {1}>\n"
	                                    "{ i = Unsqueeze (ids, one)\n y = Gather <axis = 0> (table, i)\n z = Identity (mask)\n"
	                                    "  w = Identity (q)\n v = Add (x, x)\n }");
	const struct tensor *in[5] = { 0 };
	struct gen_opt opt = { .dim = (const struct dim_given[]){ { "total", 300 } }, .ndim = 1 };
	struct rng r = { 7 };
	int64_t most[4] = { 0 }, zeros = 0;

	(void)state;
	assert_int_equal(gen_rows(m->graph, m->graph->in[0], m->arena), 5);
	assert_int_equal(gen_rows(m->graph, m->graph->in[4], m->arena), 0);
	assert_int_equal(gen_inputs(m->graph, &opt, &r, m->arena, in, NULL), LINNET_OK);
	assert_int_equal(in[0]->d[0], 2);
	assert_int_equal(in[0]->d[1], 8);
	assert_int_equal(in[2]->d[1], 8);
	assert_int_equal(in[3]->d[1], 300);
	for (int64_t i = 0; i < in[0]->n; i++) {
		int64_t id = tensor_get_int(in[0], i), mask = tensor_get_int(in[1], i);

		assert_in_range(id, 0, 4);
		assert_in_range(mask, 0, 1);
		zeros += !mask;
		most[0] = id > most[0] ? id : most[0];
	}
	assert_true(zeros < 8);
	assert_int_equal(most[0], 4);
	for (int64_t i = 0; i < in[2]->n; i++)
		assert_true(fabs(tensor_get(in[2], i)) <= 1);
	for (int64_t i = 0; i < in[3]->n; i++)
		most[3] = tensor_get_int(in[3], i) > most[3] ? tensor_get_int(in[3], i) : most[3];
	assert_true(most[3] > 200);
	model_free(m);
}

static void lengths_follow_given_inputs(void **state)
{
	struct linnet_model *m = parse(HEAD "g (float[n,k] x, float[k,n] y) => (z) { z = MatMul (x, y) }");
	float data[15] = { 0 };
	struct tensor x = { .dt = DT_FLOAT, .rank = 2, .d = { 3, 5 }, .n = 15, .bytes = sizeof data, .data = data };
	const struct tensor *in[2] = { &x, NULL };
	struct rng r = { 1 };

	(void)state;
	assert_int_equal(gen_inputs(m->graph, NULL, &r, m->arena, in, NULL), LINNET_OK);
	assert_ptr_equal(in[0], &x);
	assert_int_equal(in[1]->d[0], 5);
	assert_int_equal(in[1]->d[1], 3);
	model_free(m);
}

static struct pair_report run_pair(struct linnet_model *a, struct linnet_model *b, struct arena *arena)
{
	struct side sa = { a->graph, { .kernels = KERNELS_REFERENCE } }, sb = { b->graph, { .kernels = KERNELS_REFERENCE } };
	struct pair_opt opt = { .cases = 4 };
	struct pair_report r;
	struct linnet_error e = { 0 };
	char line[900];

	if (pair_compare(&sa, &sb, &opt, arena, &r, &e))
		print_error("%s\n", linnet_error_line(&e, line, sizeof line));
	assert_int_equal(e.code, LINNET_OK);
	return r;
}

static void finds_where_models_part(void **state)
{
	struct linnet_model *a = parse(HEAD "g (float[n] x) => (y) { s = Sin (x)\n t = Exp (s)\n u = Neg (t)\n y = Abs (u) }");
	struct linnet_model *b = parse(HEAD "g (float[n] x) => (y) { s = Sin (x)\n other = Sqrt (s)\n v = Exp (s)\n"
	                                    " u = Log (v)\n y = Abs (u) }");
	struct pair_report r = run_pair(a, a, a->arena);

	(void)state;
	assert_true(diff_agrees(&r.out[0], &usual));
	assert_false(r.where.found);
	assert_int_equal(r.cases, 4);
	r = run_pair(a, b, a->arena);
	assert_false(diff_agrees(&r.out[0], &usual));
	assert_true(r.where.found);
	assert_string_equal(r.where.value, "u"); /* by name; v is a's t by operator and turn */
	assert_string_equal(r.where.op, "Log");
	assert_int_equal(r.where.same, 2);
	model_free(a);
	model_free(b);
}

/* A running sum, whole and in steps. */
static void feeds_states(void **state)
{
	struct linnet_model *a = parse(HEAD "g (float[batch,seq] x) => (float[batch,seq] y)\n<int64 one = {1}>\n{ y = CumSum (x, one) }");
	static const char step[] = HEAD "g (float[batch,seq] x, float[batch,1] past_sum) => (float[batch,seq] y, float[batch,1] present_sum)\n"
	                                "<int64 one = {1}, int64[1] axis = {1}>\n"
	                                "{ c = CumSum (x, one)\n y = Add (c, past_sum)\n t = ReduceSum (x, axis)\n"
	                                "  present_sum = %s (t, past_sum) }";
	char text[600];

	(void)state;
	for (int wrong = 0; wrong < 2; wrong++) {
		struct linnet_model *b;
		struct pair_report r;

		snprintf(text, sizeof text, step, wrong ? "Sub" : "Add");
		b = parse(text);
		r = run_pair(a, b, a->arena);
		assert_true(r.steps);
		assert_int_equal(r.nout, 1);
		assert_int_equal(diff_agrees(&r.out[0], &usual), !wrong);
		model_free(b);
	}
	model_free(a);
}

/* Tokens are the first axis of one input and the second of another: theirs is the length that no state has. */
static void finds_tokens(void **state)
{
	struct linnet_model *a = parse(HEAD "g (float[seq,batch] x, float[batch,seq] u) => (float[seq,batch] y) <int64 zero = {0}>\n"
	                                    "{ v = Transpose (u)\n z = Add (x, v)\n y = CumSum (z, zero) }"),
	                    *b = parse(HEAD "g (float[seq,batch] x, float[batch,seq] u, float[1,batch] past_sum) => (float[seq,batch] y, float[1,batch] present_sum)\n"
	                                    "<int64 zero = {0}, int64[1] axis = {0}>\n"
	                                    "{ v = Transpose (u)\n z = Add (x, v)\n c = CumSum (z, zero)\n y = Add (c, past_sum)\n t = ReduceSum (z, axis)\n"
	                                    "  present_sum = Add (t, past_sum) }");
	struct pair_report r = run_pair(a, b, a->arena);

	(void)state;
	assert_true(r.steps);
	assert_int_equal(r.nout, 1);
	assert_true(diff_agrees(&r.out[0], &usual));
	assert_true(r.out[0].n > 0);
	model_free(a);
	model_free(b);
}

/*
 * A memory comes whole, whatever its axis: tokens are what the step model counts, else the length that outputs have too. Of a fixed number there is
 * one piece.
 */
static void leaves_memories_whole(void **state)
{
	static const char whole[] = HEAD "g (float[batch,ctx] m, float[batch,%s] x) => (float[batch,%s] y)\n<int64 one = {1}, int64[1] axis = {1}>\n"
	                                 "{ s = ReduceSum (m, axis)\n z = Add (x, s)\n y = CumSum (z, one) }";
	static const char step[] = HEAD "g (float[batch,ctx] m, float[batch,%s] x, float[batch,1] past_sum%s) => (float[batch,%s] y, float[batch,1] present_sum%s)\n"
	                                "<int64 one = {1}, int64[1] axis = {1}>\n"
	                                "{ s = ReduceSum (m, axis)\n z = Add (x, s)\n c = CumSum (z, one)\n y = Add (c, past_sum)\n t = ReduceSum (z, axis)\n"
	                                "  present_sum = Add (t, past_sum) %s }";
	static const char *const counts[3] = { ", int64[1] position", ", int64[1] present_position",
	                                       "\n n = Shape <start = 1, end = 2> (x)\n present_position = Add (position, n)" };

	(void)state;
	for (int k = 0; k < 3; k++) {
		bool counted = k > 0, fixed = k > 1;
		const char *n = fixed ? "5" : "seq", *of_b = fixed ? "5" : counted ? "n" : "seq"; /* the same length may have another name */
		char text[2][700];
		struct linnet_model *a, *b;
		struct pair_report r;

		snprintf(text[0], sizeof text[0], whole, n, n);
		snprintf(text[1], sizeof text[1], step, of_b, counted ? counts[0] : "", of_b, counted ? counts[1] : "", counted ? counts[2] : "");
		a = parse(text[0]);
		b = parse(text[1]);
		r = run_pair(a, b, a->arena);
		assert_true(r.steps);
		assert_true(diff_agrees(&r.out[0], &usual));
		assert_true(r.out[0].n > 0);
		model_free(a);
		model_free(b);
	}
}

/* Where the number of tokens is fixed there is one piece. */
static void feeds_states_in_one_piece(void **state)
{
	struct linnet_model *a = parse(HEAD "g (float[batch,5] x) => (float[batch,5] y)\n<int64 one = {1}>\n{ y = CumSum (x, one) }");
	static const char step[] = HEAD "g (float[batch,5] x, float[batch,1] past_sum) => (float[batch,5] y, float[batch,1] present_sum)\n"
	                                "<int64 one = {1}, int64[1] axis = {1}>\n"
	                                "{ z = Neg (x)\n c = CumSum (%s, one)\n y = Add (c, past_sum)\n t = ReduceSum (x, axis)\n"
	                                "  present_sum = Add (t, past_sum) }";

	(void)state;
	for (int wrong = 0; wrong < 2; wrong++) {
		char text[600];
		struct linnet_model *b;
		struct pair_report r;

		snprintf(text, sizeof text, step, wrong ? "z" : "x");
		b = parse(text);
		r = run_pair(a, b, a->arena);
		assert_true(r.steps);
		assert_int_equal(r.out[0].n % 5, 0);
		assert_true(r.out[0].n);
		assert_int_equal(diff_agrees(&r.out[0], &usual), !wrong);
		model_free(b);
	}
	model_free(a);
}

/* The certificate of a model with one attention: all targets say the same, those with states only where steps do. */
static void is_certified(const char *text, bool steps)
{
	struct linnet_model *m = parse(text);
	struct convert_opt opt = { .mechanism = mechanism_find("elu") };
	struct linnet_error e = { 0 };
	struct agreement all;

	assert_int_equal(targets_agree(m, &opt, 1, m->arena, &all, &e), LINNET_OK);
	assert_null(all.skipped);
	assert_int_equal(all.npair, NTARGET - 1);
	assert_int_equal(all.agree, steps);
	for (int i = 0; i < all.npair; i++) {
		assert_null(all.pair[i].failed);
		assert_int_equal(all.pair[i].agrees, steps || !target_has_states(all.pair[i].target));
	}
	model_free(m);
}

/* Tokens placed by a sum over those so far, padding left out: a step model carries the sum on. Reversed it is no state, and the certificate says so. */
static void certifies_sums_over_tokens(void **state)
{
	(void)state;
	for (int reversed = 0; reversed < 2; reversed++) {
		char text[700];

		snprintf(text, sizeof text, HEAD "g (float[batch,seq,8] x, int64[batch,seq] mask) => (float[batch,seq,8] y)\n"
		         "<int64 one = {1}, int64[1] at = {1}, int64[1] last = {-1}>\n"
		         "{ c = CumSum <reverse = %d> (mask, one)\n f = Cast <to = 1> (c)\n u = Unsqueeze (f, last)\n s = Sin (u)\n z = Add (x, s)\n h = Unsqueeze (z, at)\n"
		         "  a = Attention <is_causal = 1> (h, h, h)\n y = Squeeze (a, at) }", reversed);
		is_certified(text, !reversed);
	}
}

/*
 * A list of cached and new keys under a length of its own, from which the mask is picked: without the cache it is as long as the tokens, and cut with them.
 * Other inputs behind the mask keep theirs.
 */
static void certifies_lists_of_keys(void **state)
{
	static const struct {
		const char *made, *length;
	} lists[] = { { "b = Cast <to = 9> (list)\n seen = Gather <axis = 1> (b, r)\n", "seq" },
		      { "last = ReduceMax (list, cols)\n seen = LessOrEqual (r, last)\n", "total" } };

	(void)state;
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		struct convert_opt opt = { .mechanism = mechanism_find("elu"), .target = TARGET_STEP };
		struct linnet_model *m;
		struct convert_report r;
		struct linnet_error e = { 0 };
		const struct graph *g;
		char text[900];

		snprintf(text, sizeof text, HEAD "g (float[batch,1,seq,8] x, int64[batch,total] list, float[batch,1,past,8] pk, float[batch,1,past,8] pv) => "
		         "(float[batch,1,seq,8] y, float[batch,1,all,8] nk, float[batch,1,all,8] nv)\n"
		         "<int64 zero = {0}, int64 one = {1}, int64[2] at = {1, 2}, int64[1] cols = {1}>\n"
		         "{ t = Shape <start = 2, end = 3> (x)\n p = Shape <start = 2, end = 3> (pk)\n n = Add (p, t)\n n0 = Squeeze (n)\n"
		         "  r = Range (zero, n0, one)\n %s m = Unsqueeze (seen, at)\n y, nk, nv = Attention <is_causal = 1> (x, x, x, m, pk, pv) }", lists[i].made);
		is_certified(text, true);
		m = parse(text);
		g = m->graph;
		assert_int_equal(convert_model(m, &opt, &r, &e), LINNET_OK);
		assert_string_equal(g->value[g->in[1]].name, "list");
		assert_string_equal(dim_name(g->dims, g->value[g->in[1]].type.shape.d[1]), lists[i].length);
		model_free(m);
	}
}

/* How many keys each sequence has, counted from its start: of a step model's own tokens there are those left that came before. */
static void certifies_lengths(void **state)
{
	(void)state;
	is_certified(HEAD "g (float[batch,1,seq,8] x, int64[batch] lengths) => (float[batch,1,seq,8] y)\n<int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64[2] at = {1, 2}>\n"
	                  "{ t = Shape <start = 2, end = 3> (x)\n n = Squeeze (t)\n r = Range (zero, n, one)\n l = Unsqueeze (lengths, last)\n"
	                  "  seen = Less (r, l)\n m = Unsqueeze (seen, at)\n y = Attention <is_causal = 1> (x, x, x, m) }", true);
}

static void refuses_other_interfaces(void **state)
{
	struct linnet_model *a = parse(HEAD "g (float[n] x) => (y) { y = Abs (x) }");
	struct linnet_model *b = parse(HEAD "g (float[n] z) => (y) { y = Abs (z) }");
	struct linnet_model *c = parse(HEAD "g (float[n] x) => (w) { w = Abs (x) }");
	struct side sa = { .g = a->graph }, sb = { .g = b->graph }, sc = { .g = c->graph };
	struct pair_opt opt = { .cases = 1 };
	struct pair_report r;

	(void)state;
	assert_int_equal(pair_compare(&sa, &sb, &opt, a->arena, &r, NULL), LINNET_ETYPE);
	assert_int_equal(pair_compare(&sa, &sc, &opt, a->arena, &r, NULL), LINNET_ETYPE);
	model_free(a);
	model_free(b);
	model_free(c);
}

/* ---- Language models ---- */

/* Logits of token t are row t of a table: the next token's chances depend on this one's alone. */
static void predicts_by_a_table(void **state)
{
	struct linnet_model *m = parse(HEAD "g (int32[batch,seq] ids, int64[batch,seq] attention_mask) => (float[batch,seq,3] logits)\n"
	                                    "<float[3,3] table = {0, 0, 0, 0, 0.6931472, 0, 0, 1.0986123, 0}>\n"
	                                    "{ logits = Gather <axis = 0> (table, ids)\n unused = Cast <to = 1> (attention_mask) }");
	/* Row 0 is uniform; row 1 gives 1/4 1/2 1/4; row 2 gives 1/5 3/5 1/5. */
	uint16_t text[] = { 0, 1, 1, 2, 1, 0, 0, 2 };
	struct tensor stream = wrap(DT_UINT16, 8, text);
	double want = log(3) + log(2) + log(4) + log(5. / 3) + log(4) + log(3) + log(3);
	struct text token[] = { { "a", 1 }, { "bc", 2 }, { "defgh", 5 } };
	struct tokenizer tokenizer = { .n = 3, .token = token };

	(void)state;
	for (int64_t context = 1; context <= 9; context++) {
		struct lm_opt opt = { .context = context, .batch = 2, .tokenizer = &tokenizer };
		struct lm_result r;

		assert_int_equal(lm_evaluate(m->graph, &stream, &opt, &r, NULL), LINNET_OK);
		assert_int_equal(r.tokens, 7);
		assert_int_equal(r.bytes, 2 + 2 + 5 + 2 + 1 + 1 + 5);
		if (fabs(r.nll - want) > 1e-6)
			print_error("context %d: %.9g\n", (int)context, r.nll);
		assert_true(fabs(r.nll - want) < 1e-6);
	}
	text[3] = 3;
	assert_int_equal(lm_evaluate(m->graph, &stream, &(struct lm_opt){ .context = 4 }, &(struct lm_result){ 0 }, NULL), LINNET_EVALUE);
	model_free(m);
}

/* The first 1099 predictions of the validation text, by onnxruntime 1.32.0 with sums in double. */
static void predicts_as_onnxruntime(void **state)
{
	struct linnet_model *m = model_new(NULL, NULL);
	struct lm_opt opt = { .context = 128, .batch = 4 };
	struct named_tensor *list;
	struct tensor stream;
	struct lm_result r;
	struct tokenizer *t;
	int n;

	(void)state;
	assert_int_equal(proto_load(m, "corpus/lm/softmax.onnx", NULL), LINNET_OK);
	assert_int_equal(graph_import(m, NULL), LINNET_OK);
	assert_int_equal(data_load("corpus/lm/valid.npy", DT_UNDEFINED, NULL, m->arena, &list, &n, NULL), LINNET_OK);
	assert_int_equal(tokenizer_load("corpus/lm/tokenizer.txt", m->arena, &t, NULL), LINNET_OK);
	assert_int_equal(t->n, 2048);
	opt.tokenizer = t;
	stream = *list->t;
	stream.n = stream.d[0] = 1100;
	assert_int_equal(lm_evaluate(m->graph, &stream, &opt, &r, NULL), LINNET_OK);
	assert_int_equal(r.tokens, 1099);
	assert_int_equal(r.bytes, 3805);
	assert_true(fabs(r.nll - 2902.18054325) < 1e-2);
	model_free(m);
}

/* Elements near 0 of an output near 100 are rounded as those: 1e-5 becomes 1e-3, and no more. */
static void tolerance_follows_the_size(void **state)
{
	float a[] = { 100, -100, 100, 0 }, b[] = { 100, -100, 100, 8e-4f }, c[] = { 100, -100, 100, 9e-4f }, small[] = { 0.1f, 0, 0, 0 }, near0[] = { 0.1f, 0, 0, 2e-5f };
	struct tensor ta = wrap(DT_FLOAT, 4, a), tb = wrap(DT_FLOAT, 4, b), tc = wrap(DT_FLOAT, 4, c), ts = wrap(DT_FLOAT, 4, small), tn = wrap(DT_FLOAT, 4, near0);
	const struct tolerance t = { .atol = 1e-5, .rtol = 1e-7 };
	const struct {
		const struct tensor *a, *b;
		bool agree;
	} k[] = { { &ta, &tb, true }, { &ta, &tc, false }, { &ts, &tn, false } };

	(void)state;
	for (size_t i = 0; i < sizeof k / sizeof *k; i++) {
		struct diff d;

		diff_init(&d, "y");
		diff_add(&d, k[i].a, k[i].b, &t);
		assert_int_equal(diff_agrees(&d, &t), k[i].agree);
	}
}

/* ---- Text ---- */

static struct linnet_model *corpus_model(const char *path)
{
	struct linnet_model *m = model_new(NULL, NULL);

	assert_int_equal(proto_load(m, path, NULL), LINNET_OK);
	assert_int_equal(graph_import(m, NULL), LINNET_OK);
	return m;
}

/* A text encoded by the rule as corpus/lm/README.md states it, in Python. */
static void encodes_text(void **state)
{
	static const int64_t want[] = { 73, 116, 39, 115, 32, 32, 597, 195, 169, 32, 51, 10, 10, 32, 120 };
	static const char text[] = "It's  12\xc3\xa9 3\n\n x";
	struct arena *a = arena_new();
	struct tokenizer *t;
	int64_t *ids, n;

	(void)state;
	assert_int_equal(tokenizer_load("corpus/lm/tokenizer.txt", a, &t, NULL), LINNET_OK);
	assert_int_equal(tokenizer_encode(t, (struct text){ text, sizeof text - 1 }, a, &ids, &n, NULL), LINNET_OK);
	assert_int_equal(n, sizeof want / sizeof *want);
	assert_memory_equal(ids, want, sizeof want);
	assert_int_equal(tokenizer_encode(t, (struct text){ "", 0 }, a, &ids, &n, NULL), LINNET_OK);
	assert_int_equal(n, 0);
	arena_free(a);
}

/* The validation split's tokens, whose encoder was another, become text and the same tokens again. */
static void encodes_what_it_decodes(void **state)
{
	struct arena *a = arena_new();
	struct named_tensor *list;
	struct tokenizer *t;
	size_t bytes = 0, at = 0;
	int64_t *ids, n;
	char *text;
	int count;

	(void)state;
	assert_int_equal(tokenizer_load("corpus/lm/tokenizer.txt", a, &t, NULL), LINNET_OK);
	assert_int_equal(data_load("corpus/lm/valid.npy", DT_UNDEFINED, NULL, a, &list, &count, NULL), LINNET_OK);
	for (int64_t i = 0; i < list->t->n; i++)
		bytes += t->token[tensor_get_int(list->t, i)].n;
	text = arena_get(a, bytes, 1);
	for (int64_t i = 0; i < list->t->n; i++) {
		struct text s = t->token[tensor_get_int(list->t, i)];

		memcpy(text + at, s.p, s.n);
		at += s.n;
	}
	assert_int_equal(tokenizer_encode(t, (struct text){ text, bytes }, a, &ids, &n, NULL), LINNET_OK);
	assert_int_equal(n, list->t->n);
	for (int64_t i = 0; i < n; i++)
		assert_int_equal(ids[i], tensor_get_int(list->t, i));
	arena_free(a);
}

struct said {
	int64_t id[200];
	int n;
};

static void say(void *ctx, int64_t id)
{
	struct said *s = ctx;

	s->id[s->n++] = id;
}

static const int64_t genesis[] = { 0, 71, 277, 280, 276, 32, 49, 10, 49, 1065, 258, 1817, 1278 };

static struct said generated(const struct linnet_model *m, struct generate_opt opt)
{
	struct generate_result r;
	struct said s = { .n = 0 };

	opt.token = say;
	opt.ctx = &s;
	assert_int_equal(lm_generate(m->graph, genesis, sizeof genesis / sizeof *genesis, &opt, &r, NULL), LINNET_OK);
	assert_int_equal(r.tokens, s.n);
	return s;
}

/* What onnxruntime 1.32.0 finds most likely, token by token, from corpus/lm/softmax.onnx. */
static void goes_on_as_onnxruntime(void **state)
{
	static const int64_t want[24] = { 268, 258, 348, 336, 258, 626, 44, 267, 258, 626, 336, 258, 626, 46, 10, 50, 297, 258, 348, 388, 321, 696, 44, 295 };
	struct linnet_model *whole = corpus_model("corpus/lm/softmax.onnx"), *cached = corpus_model("corpus/lm/softmax_kv.onnx");
	struct generate_opt greedy = { .tokens = 24, .stop = -1 }, first = { .tokens = 24, .stop = -1, .temperature = 2, .top_k = 1 };
	struct generate_opt drawn = { .tokens = 24, .stop = -1, .temperature = 1, .top_p = 0.9, .seed = 5 };
	struct said a, b;

	(void)state;
	a = generated(cached, greedy);
	assert_int_equal(a.n, 24);
	assert_memory_equal(a.id, want, sizeof want);
	greedy.tokens = 8;
	a = generated(whole, greedy);
	assert_memory_equal(a.id, want, 8 * sizeof *want);
	a = generated(cached, first);
	assert_memory_equal(a.id, want, sizeof want);
	a = generated(cached, drawn);
	b = generated(cached, drawn);
	assert_memory_equal(a.id, b.id, sizeof want);
	assert_memory_not_equal(a.id, want, sizeof want);
	drawn.seed = 6;
	b = generated(cached, drawn);
	assert_memory_not_equal(a.id, b.id, sizeof want);
	greedy.stop = 44;
	greedy.tokens = 24;
	a = generated(cached, greedy);
	assert_int_equal(a.n, 6);
	assert_int_equal(lm_generate(cached->graph, genesis, 0, &greedy, &(struct generate_result){ 0 }, NULL), LINNET_EVALUE);
	model_free(whole);
	model_free(cached);
}

/* Tokens are drawn with their probabilities: 1/4, 1/2, 1/4 after token 1, of which top_k and top_p leave out the rare. */
static void draws_with_probabilities(void **state)
{
	struct linnet_model *m = parse(HEAD "g (int64[batch,seq] ids) => (float[batch,seq,4] logits)\n"
	                                    "<float[4,4] table = {0, 0.6931472, 0, -99, 0, 0.6931472, 0, -99, 0, 0.6931472, 0, -99, 0, 0, 0, 0}>\n"
	                                    "{ logits = Gather <axis = 0> (table, ids) }");
	static const struct {
		int64_t k;
		double p, want[3];
	} c[] = { { 0, 0, { 0.25, 0.5, 0.25 } }, { 2, 0, { 1 / 3., 2 / 3., 0 } }, { 0, 0.6, { 1 / 3., 2 / 3., 0 } }, { 0, 0.5, { 0, 1, 0 } } };

	(void)state;
	for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
		int count[4] = { 0 };

		for (uint64_t seed = 1; seed <= 30; seed++) {
			struct said s = { .n = 0 };
			struct generate_opt opt = { .tokens = 100, .stop = -1, .temperature = 1, .top_k = c[i].k, .top_p = c[i].p, .seed = seed * 1000, .token = say, .ctx = &s };

			assert_int_equal(lm_generate(m->graph, (const int64_t[]){ 1 }, 1, &opt, &(struct generate_result){ 0 }, NULL), LINNET_OK);
			for (int k = 0; k < s.n; k++)
				count[s.id[k]]++;
		}
		for (int k = 0; k < 3; k++) /* five standard deviations of 3000 draws */
			assert_true(fabs(count[k] / 3000. - c[i].want[k]) <= 5 * sqrt(c[i].want[k] * (1 - c[i].want[k]) / 3000));
		assert_int_equal(count[3], 0);
	}
	model_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tolerance_follows_the_size),
		cmocka_unit_test(finds_tokens),
		cmocka_unit_test(leaves_memories_whole),
		cmocka_unit_test(encodes_text),
		cmocka_unit_test(encodes_what_it_decodes),
		cmocka_unit_test(goes_on_as_onnxruntime),
		cmocka_unit_test(draws_with_probabilities),
		cmocka_unit_test(compares_floats),
		cmocka_unit_test(counts_ulps),
		cmocka_unit_test(finds_nan_and_infinity),
		cmocka_unit_test(compares_exactly_what_is_exact),
		cmocka_unit_test(tells_types_apart),
		cmocka_unit_test(tolerance_follows_the_type),
		cmocka_unit_test(draws_in_range),
		cmocka_unit_test(lengths_follow_given_inputs),
		cmocka_unit_test(finds_where_models_part),
		cmocka_unit_test(feeds_states),
		cmocka_unit_test(feeds_states_in_one_piece),
		cmocka_unit_test(certifies_sums_over_tokens),
		cmocka_unit_test(certifies_lists_of_keys),
		cmocka_unit_test(certifies_lengths),
		cmocka_unit_test(refuses_other_interfaces),
		cmocka_unit_test(predicts_by_a_table),
		cmocka_unit_test(predicts_as_onnxruntime),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
