/* The public header, as a program outside sees it. */
#include "tests/unit/folder.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "linnet.h"

static const char text[] = "<ir_version: 9, opset_import: [\"\" : 17]>\n"
                           "g (float[n,2] x, float[2] w) => (float[n,2] y)\n<float[2] w = {10, 100}>\n{ y = Mul (x, w) }";

static linnet_model *load(void)
{
	struct linnet_error e = { 0 };
	linnet_model *m = NULL;
	char line[900];

	if (linnet_model_load_memory(text, strlen(text), NULL, &m, &e))
		print_error("%s\n", linnet_error_line(&e, line, sizeof line));
	assert_non_null(m);
	return m;
}

static void describes_models(void **state)
{
	linnet_model *m = load();
	char buf[8];

	(void)state;
	assert_int_equal(linnet_model_opset(m), 17);
	assert_int_equal(linnet_model_nodes(m), 1);
	assert_int_equal(linnet_model_count(m, LINNET_INPUT), 2);
	assert_int_equal(linnet_model_count(m, LINNET_OUTPUT), 1);
	assert_string_equal(linnet_model_name(m, LINNET_INPUT, 1), "w");
	assert_string_equal(linnet_model_name(m, LINNET_OUTPUT, 0), "y");
	assert_null(linnet_model_name(m, LINNET_OUTPUT, 1));
	assert_int_equal(linnet_model_dtype(m, LINNET_OUTPUT, 0), 1);
	assert_int_equal(linnet_model_rank(m, LINNET_INPUT, 0), 2);
	assert_int_equal(linnet_model_rank(m, LINNET_INPUT, 9), -1);
	assert_int_equal(linnet_model_length(m, LINNET_INPUT, 0, 0), -1);
	assert_int_equal(linnet_model_length(m, LINNET_INPUT, 0, 1), 2);
	assert_string_equal(linnet_model_length_text(m, LINNET_INPUT, 0, 0, buf, sizeof buf), "n");
	assert_string_equal(linnet_model_length_text(m, LINNET_INPUT, 0, 5, buf, sizeof buf), "?");
	assert_string_equal(linnet_model_length_text(m, LINNET_INPUT, 0, 0, buf, 1), "");
	linnet_model_free(m);
}

static void tells_why_not(void **state)
{
	static const char scores[] = "<ir_version: 9, opset_import: [\"\" : 17]>\n"
				     "g (float[B,2,L,4] q, float[B,2,4,S] k, float[B,2,S,4] v) => (float[B,2,L,4] y, float[B,2,L,S] p)\n"
				     "{ s = MatMul (q, k) p = Softmax (s) y = MatMul (p, v) }";
	struct linnet_error e = { 0 };
	struct linnet_reason r = { .size = sizeof r };
	linnet_reasons *reasons;
	linnet_model *m;
	const char *into;
	int i;

	(void)state;
	assert_int_equal(linnet_model_load_memory(scores, strlen(scores), NULL, &m, &e), LINNET_OK);
	assert_int_equal(linnet_why(m, &reasons, &e), LINNET_OK);
	assert_int_equal(linnet_reasons_count(reasons), 1);
	assert_int_equal(linnet_reasons_get(reasons, 1, &r, &e), LINNET_EUSAGE);
	assert_int_equal(linnet_reasons_get(reasons, 0, &r, &e), LINNET_OK);
	assert_string_equal(r.node, "p");
	assert_string_equal(r.op, "Softmax");
	assert_string_equal(r.form, "attention");
	assert_string_equal(r.code, "attention.probabilities-used");
	assert_string_equal(r.witness, "p");
	assert_string_equal(r.witness_op, "");
	assert_true(r.described && *r.text && *r.help);
	assert_int_equal(linnet_reasons_find(reasons, "s", &i, &into, &e), LINNET_OK);
	assert_int_equal(i, 0);
	assert_null(into);
	assert_int_equal(linnet_reasons_find(reasons, "z", &i, &into, &e), LINNET_EUSAGE);
	linnet_reasons_free(reasons);
	linnet_model_free(m);
	linnet_reasons_free(NULL);
}

static void runs_by_name(void **state)
{
	linnet_model *m = load();
	linnet_session *s;
	float x[] = { 1, 2, 3, 4 }, w[] = { 2, 0.5f };
	struct linnet_tensor in[] = { { .dtype = 1, .rank = 2, .d = { 2, 2 }, .data = x }, { .dtype = 1, .rank = 1, .d = { 2 }, .data = w } }, y;
	static const char *const names[] = { "x", "w" }, *const wrong[] = { "x", "z" };
	struct linnet_error e = { 0 };

	(void)state;
	for (int reference = 0; reference < 2; reference++) {
		struct linnet_session_opt opt = { .size = sizeof opt, .reference = reference };

		assert_int_equal(linnet_session_new(m, &opt, &s, NULL), LINNET_OK);
		assert_int_equal(linnet_session_output(s, "y", &y, NULL), LINNET_EUSAGE);
		assert_int_equal(linnet_session_run(s, names, in, 1, NULL), LINNET_OK);
		assert_int_equal(linnet_session_output(s, "y", &y, NULL), LINNET_OK);
		assert_int_equal(linnet_tensor_count(&y), 4);
		assert_int_equal(linnet_tensor_bytes(&y), 16);
		assert_memory_equal(y.data, ((float[]){ 10, 200, 30, 400 }), 16);
		assert_int_equal(linnet_session_run(s, names, in, 2, NULL), LINNET_OK);
		assert_int_equal(linnet_session_output(s, "y", &y, NULL), LINNET_OK);
		assert_memory_equal(y.data, ((float[]){ 2, 1, 6, 2 }), 16);
		assert_int_equal(linnet_session_run(s, wrong, in, 2, &e), LINNET_EUSAGE);
		assert_int_equal(linnet_session_run(s, names, in, 0, NULL), LINNET_EUSAGE);
		in[0].dtype = 7;
		assert_int_equal(linnet_session_run(s, names, in, 1, NULL), LINNET_ETYPE);
		in[0].dtype = 99;
		assert_int_equal(linnet_session_run(s, names, in, 1, NULL), LINNET_ETYPE);
		in[0].dtype = 1;
		in[0].rank = 9;
		assert_int_equal(linnet_session_run(s, names, in, 1, NULL), LINNET_ESHAPE);
		in[0].rank = 2;
		linnet_session_free(s);
	}
	linnet_model_free(m);
}

static void keeps_states(void **state)
{
	static const char sum[] = "<ir_version: 9, opset_import: [\"\" : 17]>\n"
	                          "g (float[1] x, float[1] past_s) => (float[1] y, float[1] present_s)\n"
	                          "{ present_s = Add (x, past_s)\n y = Neg (present_s) }";
	linnet_model *m;
	linnet_session *s;
	struct linnet_session_opt opt = { .size = sizeof opt, .states = true };
	float x[] = { 3 };
	struct linnet_tensor in = { .dtype = 1, .rank = 1, .d = { 1 }, .data = x }, y;

	(void)state;
	assert_int_equal(linnet_model_load_memory(sum, strlen(sum), NULL, &m, NULL), LINNET_OK);
	assert_int_equal(linnet_session_new(m, &opt, &s, NULL), LINNET_OK);
	for (int i = 1; i <= 3; i++)
		assert_int_equal(linnet_session_run(s, (const char *const[]){ "x" }, &in, 1, NULL), LINNET_OK);
	assert_int_equal(linnet_session_output(s, "y", &y, NULL), LINNET_OK);
	assert_true(*(float *)y.data == -9);
	assert_int_equal(linnet_session_output(s, "present_s", &y, NULL), LINNET_OK);
	assert_true(*(float *)y.data == 9);
	linnet_session_reset(s);
	assert_int_equal(linnet_session_run(s, (const char *const[]){ "x" }, &in, 1, NULL), LINNET_OK);
	assert_int_equal(linnet_session_output(s, "y", &y, NULL), LINNET_OK);
	assert_true(*(float *)y.data == -3);
	assert_true(linnet_session_peak(s) > 0);
	linnet_session_free(s);
	linnet_model_free(m);
}

static void converts_and_validates(void **state)
{
	static const char path[] = "corpus/models/attn_gqa_sdpa_dy23/model.onnx";
	char saved[] = "/tmp/linnet-api-XXXXXX";
	linnet_model *a, *b, *c;
	linnet_report *r;
	struct linnet_convert_result done = { .size = sizeof done };
	struct linnet_convert_opt nosuch = { .size = sizeof nosuch, .mechanism = "nothing" };
	struct linnet_validate_opt opt = { .size = sizeof opt, .cases = 2 };
	struct linnet_difference d = { .size = sizeof d };
	int fd = mkstemp(saved);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(linnet_model_load(path, NULL, &a, NULL), LINNET_OK);
	assert_int_equal(linnet_model_load(path, NULL, &b, NULL), LINNET_OK);
	assert_int_equal(linnet_convert(b, &nosuch, NULL, NULL), LINNET_EUSAGE);
	assert_int_equal(linnet_convert(b, NULL, &done, NULL), LINNET_OK);
	assert_int_equal(done.attentions, 1);
	assert_int_equal(done.converted, 1);
	assert_int_equal(linnet_model_save(b, saved, false, NULL), LINNET_OK);
	assert_int_equal(linnet_model_load(saved, NULL, &c, NULL), LINNET_OK);
	assert_int_equal(linnet_validate(a, a, &opt, &r, NULL), LINNET_OK);
	assert_true(linnet_report_agrees(r));
	assert_null(linnet_report_node(r));
	linnet_report_free(r);
	assert_int_equal(linnet_validate(a, c, &opt, &r, NULL), LINNET_OK);
	assert_false(linnet_report_agrees(r));
	assert_int_equal(linnet_report_count(r), 1);
	assert_int_equal(linnet_report_difference(r, 0, &d, NULL), LINNET_OK);
	assert_false(d.agrees);
	assert_true(d.wrong > 0 && d.max_abs > 1e-3 && d.nmse > 0);
	assert_int_equal(linnet_report_difference(r, 1, &d, NULL), LINNET_EUSAGE);
	assert_non_null(linnet_report_node(r));
	linnet_report_free(r);
	linnet_model_free(a);
	linnet_model_free(b);
	linnet_model_free(c);
	unlink(saved);
}

static void count_step(void *ctx, const char *stage, int64_t step, int64_t steps, double loss)
{
	assert_true(stage && step >= 1 && step <= steps && loss > 0);
	++*(int *)ctx;
}

/* The language model's first layer learns from few tokens; what it cost is told, and stands in the card. */
static void calibrates(void **state)
{
	static const char *const train[] = { "corpus/lm/train.npy", NULL }, *const missing[] = { "corpus/lm/nothing.npy", NULL };
	char card[] = "/tmp/linnet-card-XXXXXX", few[256], told[65536];
	struct folder folder = folder_new();
	const char *const test[] = { folder_path(&folder, "few.bin", few), NULL };
	struct linnet_convert_opt opt = { .size = sizeof opt, .layers = "0", .card = card };
	struct linnet_calibrate_opt cal = { .size = sizeof cal, .data = train, .held_out = test, .recipe = "hedgehog", .tokens = 4096, .length = 64 };
	struct linnet_convert_result done = { .size = sizeof done };
	struct linnet_calibrate_result r = { .size = sizeof r };
	struct linnet_error e = { 0 };
	linnet_model *m;
	int fd = mkstemp(card), steps = 0;
	FILE *f = fopen("corpus/lm/test.npy", "rb"), *part = fopen(few, "wb");

	(void)state;
	assert_true(fd >= 0 && f && part);
	close(fd);
	assert_int_equal(fread(told, 1, 128 + 3000, f), 128 + 3000); /* a header and 1500 tokens of 16 bits */
	assert_int_equal(fwrite(told + 128, 1, 3000, part), 3000);
	fclose(f);
	fclose(part);
	cal.progress = count_step;
	cal.ctx = &steps;
	assert_int_equal(linnet_model_load("corpus/lm/softmax.onnx", NULL, &m, NULL), LINNET_OK);
	if (linnet_calibrate(m, &opt, &cal, &done, &r, &e))
		fail_msg("%s", e.message);
	assert_int_equal(done.converted, 1);
	assert_string_equal(r.mechanism, "hedgehog");
	assert_int_equal(r.tokens, 4096);
	assert_int_equal(steps, 32);
	assert_true(r.softmax.perplexity > 10 && r.softmax.distance == 0 && isnan(r.window.perplexity));
	if (!(r.after.perplexity < r.before.perplexity && r.before.perplexity > r.softmax.perplexity))
		fail_msg("%g, before %g, softmax %g", r.after.perplexity, r.before.perplexity, r.softmax.perplexity);
	linnet_model_free(m);
	f = fopen(card, "r");
	assert_non_null(f);
	told[fread(told, 1, sizeof told - 1, f)] = 0;
	fclose(f);
	unlink(card);
	assert_non_null(strstr(told, "\"recipe\": \"hedgehog\""));
	assert_non_null(strstr(told, "\"agree\": true"));

	for (int i = 0; i < 4; i++) {
		static const char *const message[] = { "calibration needs data", "there is no recipe \"sums\"; linnet convert --list names them", "No such file", "out of its range" };
		struct linnet_calibrate_opt bad = cal;

		bad.data = i == 0 ? NULL : i == 2 ? missing : train;
		bad.recipe = i == 1 ? "sums" : NULL;
		bad.minutes = i == 3 ? -1 : 0;
		assert_int_equal(linnet_model_load("corpus/lm/softmax.onnx", NULL, &m, NULL), LINNET_OK);
		assert_int_equal(linnet_calibrate(m, NULL, &bad, NULL, NULL, &e), i == 2 ? LINNET_EIO : LINNET_EUSAGE);
		if (!strstr(e.message, message[i]))
			fail_msg("%s", e.message);
		e = (struct linnet_error){ 0 };
		linnet_model_free(m);
	}
	folder_remove(&folder);
}

/* What the program has options for, the library has fields for. */
static void converts_as_asked(void **state)
{
	static const char map[] = "(float[B,H,T,D] x) => (float[B,H,T,F] y) { y = Exp (x) }";
	static const struct {
		struct linnet_convert_opt opt;
		const char *found, *message; /* in the card; or of the error */
	} cases[] = {
		{ { .mechanism = "hedgehog", .target = "step", .window = 3, .sinks = 1, .state = "float16" }, "\"past_sink_key.0\"", NULL },
		{ { .mechanism = "gated-delta", .target = "chunk", .conv = 2, .heads = "key" }, "\"past_conv_q.0\"", NULL },
		{ { .mechanism = "taylor", .target = "quadratic", .degree = 4 }, "\"features\": 495", NULL },
		{ { .mechanism = "identity", .target = "onnx", .norm = "group", .fade = "0.9" }, "\"fade\": \"0.9\"", NULL },
		{ { .target = "ort", .map = map }, "\"mechanism\": \"map\"", NULL },
		{ { .layers = "0=relu" }, "\"mechanism\": \"relu\"", NULL },
		{ { .mechanism = "nothing" }, NULL, "there is no mechanism \"nothing\"; linnet convert --list names them" },
		{ { .target = "gpu" }, NULL, "there is no target \"gpu\"; there are onnx, ort, portable, quadratic, step, chunk" },
		{ { .heads = "all" }, NULL, "there is no kind of heads \"all\"; there are key, query" },
		{ { .norm = "max" }, NULL, "there is no norm \"max\"; there are sum, rms, group, none" },
		{ { .state = "int8" }, NULL, "there is no type of states \"int8\"; there are float16, bfloat16" },
		{ { .grid = "3x" }, NULL, "\"3x\" is no grid; it is ROWSxCOLUMNS, 14x14" },
		{ { .fade = "1.01" }, NULL, "a decay of 1.01 a token grows without bound; it is above 0 and at most 1" },
		{ { .fade = "-1" }, NULL, "a decay of -1 a token leaves nothing; it is above 0 and at most 1" },
		{ { .fade = "nan" }, NULL, "a decay of nan a token leaves nothing; it is above 0 and at most 1" },
		{ { .fade = "slowly" }, NULL, "there is no fade \"slowly\"; linnet convert --list names them, or it is a number" },
		{ { .window = -1 }, NULL, "window is -1; it is 1 to 65536" },
		{ { .features = 70000 }, NULL, "features is 70000; it is 1 to 65536" },
		{ { .conv = 65 }, NULL, "conv is 65; it is 1 to 64" },
		{ { .degree = 17 }, NULL, "degree is 17; it is 1 to 16" },
		{ { .chunk = 5000 }, NULL, "chunk is 5000; it is 1 to 4096" },
		{ { .opset = 10 }, NULL, "opset is 10; it is 11 to 28" },
		{ { .sinks = 2 }, NULL, "sinks stay in a window, and none was asked for" },
		{ { .layers = "7" }, NULL, "there is no layer 7; the model has 1 attentions, counted from 0" },
		{ { .card = "/nowhere/card.json" }, NULL, "" },
	};
	char card[] = "/tmp/linnet-card-XXXXXX", told[16384];
	int fd = mkstemp(card);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_convert_opt opt = cases[i].opt;
		struct linnet_error e = { 0 };
		enum linnet_code code;
		linnet_model *m;
		FILE *f;

		opt.size = sizeof opt;
		opt.card = opt.card ? opt.card : card;
		assert_int_equal(linnet_model_load("corpus/models/attn_gqa_sdpa_dy23/model.onnx", NULL, &m, NULL), LINNET_OK);
		code = linnet_convert(m, &opt, NULL, &e);
		linnet_model_free(m);
		if (cases[i].message) {
			assert_int_equal(code, *cases[i].message ? LINNET_EUSAGE : LINNET_EIO);
			if (*cases[i].message)
				assert_string_equal(e.message, cases[i].message);
			continue;
		}
		if (code)
			fail_msg("case %d: %s", (int)i, e.message);
		f = fopen(card, "r");
		assert_non_null(f);
		told[fread(told, 1, sizeof told - 1, f)] = 0;
		fclose(f);
		if (!strstr(told, cases[i].found) || !strstr(told, "\"agree\": true"))
			fail_msg("case %d: the card is\n%s", (int)i, told);
	}
	unlink(card);
}

static void fails_without_a_model(void **state)
{
	linnet_model *m;
	struct linnet_error e = { 0 };

	(void)state;
	assert_int_equal(linnet_model_load("none.onnx", NULL, &m, &e), LINNET_EIO);
	assert_null(m);
	assert_string_equal(e.file, "none.onnx");
	linnet_model_free(NULL);
	linnet_session_free(NULL);
	linnet_report_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(describes_models), cmocka_unit_test(tells_why_not), cmocka_unit_test(runs_by_name),         cmocka_unit_test(keeps_states),
		cmocka_unit_test(converts_and_validates), cmocka_unit_test(converts_as_asked), cmocka_unit_test(calibrates), cmocka_unit_test(fails_without_a_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
