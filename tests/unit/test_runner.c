/* validate/runner.c: recorded cases pass, fail and are skipped as they should. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "validate/validate.h"

struct tally {
	int n[3];
	char line[900]; /* of the last one not passed */
};

static void count(void *ctx, const struct case_result *r)
{
	struct tally *t = ctx;
	const char *folder = strrchr(r->folder, '/') + 1;
	char buf[800];

	t->n[r->verdict]++;
	if (r->verdict != VERDICT_PASS)
		snprintf(t->line, sizeof t->line, "%s/%s: %s", folder, r->set, linnet_error_line(&r->why, buf, sizeof buf));
}

static const struct {
	const char *name;
	int sets;
} models[] = {
	{ "attn_gqa_sdpa_dy23", 2 },
	{ "attn_kvcache_concat_ts13", 2 },
	{ "attn_padding_bert_ts11", 2 },
	{ "attn_window_2d_ts14", 2 },
	{ "ctl_if_attention_op16", 2 },
	{ "ctl_loop_path", 3 },
	{ "ctl_scan_rnn", 2 },
	{ "ext_llama_block_external_data", 2 },
	{ "fn_local_functions_op17", 2 },
	{ "glu_swiglu_two_dy24", 2 },
	{ "neg_gru_ts13", 2 },
	{ "neg_lstm_ts14", 2 },
	{ "neg_mamba_scan_ts13", 2 },
	{ "op27_linear_attention_gated_delta_state", 2 },
	{ "pkg_arabic_romanizer_decoder", 2 },
	{ "pkg_arabic_romanizer_encoder", 2 },
	{ "pkg_silero_vad_16k_sequence", 1 },
	{ "pkg_silero_vad_op18_ifless", 1 },
};

static void recorded_models(enum kernels kernels)
{
	for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
		struct case_opt opt = { .run = { .kernels = kernels }, .rtol = 1e-3, .atol = 1e-5 };
		struct tally t = { .line = "" };
		char folder[200];

		snprintf(folder, sizeof folder, "corpus/models/%s", models[i].name);
		assert_int_equal(case_run(folder, &opt, count, &t, NULL), LINNET_OK);
		assert_string_equal(t.line, "");
		if (t.n[VERDICT_PASS] != models[i].sets)
			print_error("%s: %d sets passed\n", models[i].name, t.n[VERDICT_PASS]);
		assert_int_equal(t.n[VERDICT_PASS], models[i].sets);
	}
}

static void by_reference(void **state)
{
	(void)state;
	recorded_models(KERNELS_REFERENCE);
}

static void by_fast_kernels(void **state)
{
	(void)state;
	recorded_models(KERNELS_FAST);
}

/* ---- Cases made here: a model as text, recorded tensors as they are wanted ---- */

struct folder {
	char path[64];
};

static int make_folder(void **state)
{
	struct folder *f = calloc(1, sizeof *f);

	snprintf(f->path, sizeof f->path, "/tmp/linnet-runner-XXXXXX");
	*state = f;
	return mkdtemp(f->path) ? 0 : -1;
}

static int drop_folder(void **state)
{
	static const char *const files[] = { "model.onnx", "test_data_set_0/input_0.pb", "test_data_set_0/input_1.pb",
	                                     "test_data_set_0/output_0.pb", "test_data_set_0", "" };
	struct folder *f = *state;
	char path[200];

	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "%s/%s", f->path, files[i]);
		remove(path);
	}
	free(f);
	return 0;
}

static void write_model(const struct folder *f, const char *text)
{
	char path[200];
	FILE *file;

	snprintf(path, sizeof path, "%s/model.onnx", f->path);
	file = fopen(path, "w");
	fputs(text, file);
	fclose(file);
}

static void write_tensor(const struct folder *f, const char *file, const char *name, enum dtype dt, int64_t n, const double *v)
{
	struct arena *a = arena_new();
	struct tensor *t;
	char path[200];

	snprintf(path, sizeof path, "%s/test_data_set_0", f->path);
	mkdir(path, 0700);
	assert_int_equal(tensor_new(a, dt, 1, &n, &t, NULL), LINNET_OK);
	for (int64_t i = 0; i < n; i++)
		tensor_put(t, i, v[i]);
	snprintf(path, sizeof path, "%s/test_data_set_0/%s", f->path, file);
	assert_int_equal(proto_save_value(path, t, name, NULL), LINNET_OK);
	arena_free(a);
}

#define SUB                                                                                        \
	"<ir_version: 8, opset_import: [\"\": 17]>\n"                                              \
	"g (float[n] a, float[n] b) => (float[n] y) { y = Sub (a, b) }\n"

static void expect_line(const struct folder *f, const struct case_opt *opt, enum verdict v, const char *end)
{
	struct tally t = { .line = "" };

	assert_int_equal(case_run(f->path, opt, count, &t, NULL), LINNET_OK);
	assert_int_equal(t.n[v], 1);
	assert_int_equal(t.n[0] + t.n[1] + t.n[2], 1);
	if (strlen(t.line) < strlen(end) || strcmp(t.line + strlen(t.line) - strlen(end), end))
		assert_string_equal(t.line, end);
}

static void inputs_go_by_name_or_place(void **state)
{
	const struct folder *f = *state;
	const struct case_opt opt = { .atol = 0 };

	write_model(f, SUB);
	write_tensor(f, "input_0.pb", "b", DT_FLOAT, 2, (double[]){ 1, 2 });
	write_tensor(f, "input_1.pb", "a", DT_FLOAT, 2, (double[]){ 5, 9 });
	write_tensor(f, "output_0.pb", "y", DT_FLOAT, 2, (double[]){ 4, 7 });
	expect_line(f, &opt, VERDICT_PASS, "");
	write_tensor(f, "input_0.pb", "", DT_FLOAT, 2, (double[]){ 5, 9 });
	write_tensor(f, "input_1.pb", "", DT_FLOAT, 2, (double[]){ 1, 2 });
	expect_line(f, &opt, VERDICT_PASS, "");
}

static void failures_say_what_differs(void **state)
{
	const struct folder *f = *state;
	struct case_opt opt = { .atol = 0 };

	write_model(f, SUB);
	write_tensor(f, "input_0.pb", "a", DT_FLOAT, 2, (double[]){ 5, 9 });
	write_tensor(f, "input_1.pb", "b", DT_FLOAT, 2, (double[]){ 1, 2 });
	write_tensor(f, "output_0.pb", "y", DT_FLOAT, 2, (double[]){ 4, 7.25 });
	expect_line(f, &opt, VERDICT_FAIL, "output \"y\": 1 of 2 elements differ, most of all element 1: 7; expected 7.25");
	opt.atol = 0.25;
	expect_line(f, &opt, VERDICT_PASS, "");
	opt.atol = 0;
	opt.rtol = 0.04;
	expect_line(f, &opt, VERDICT_PASS, "");
	write_tensor(f, "output_0.pb", "y", DT_FLOAT, 1, (double[]){ 4 });
	expect_line(f, &opt, VERDICT_FAIL, "output \"y\" is [2]; expected [1]");
	write_tensor(f, "output_0.pb", "y", DT_DOUBLE, 2, (double[]){ 4, 7 });
	expect_line(f, &opt, VERDICT_FAIL, "output \"y\" is float; expected double");
	write_tensor(f, "input_1.pb", "b", DT_FLOAT, 3, (double[]){ 1, 2, 3 });
	expect_line(f, &opt, VERDICT_FAIL, "input \"b\" has length 3 along axis 0 (n); input \"a\" has 2 along axis 0");
}

static void bfloat16_has_two_units(void **state)
{
	const struct folder *f = *state;
	const struct case_opt opt = { .atol = 1e-9 };

	write_model(f, "<ir_version: 8, opset_import: [\"\": 17]>\n"
	               "g (bfloat16[n] a, bfloat16[n] b) => (bfloat16[n] y) { y = Sub (a, b) }\n");
	write_tensor(f, "input_0.pb", "a", DT_BFLOAT16, 1, (double[]){ 1.0234375 });
	write_tensor(f, "input_1.pb", "b", DT_BFLOAT16, 1, (double[]){ 0 });
	write_tensor(f, "output_0.pb", "y", DT_BFLOAT16, 1, (double[]){ 1.0078125 });
	expect_line(f, &opt, VERDICT_PASS, "");
	write_tensor(f, "output_0.pb", "y", DT_BFLOAT16, 1, (double[]){ 1 });
	expect_line(f, &opt, VERDICT_FAIL, "most of all element 0: 1.0234375; expected 1");
}

static void special_numbers_compare(void **state)
{
	const struct folder *f = *state;
	const struct case_opt opt = { .rtol = 1 };

	write_model(f, SUB);
	write_tensor(f, "input_0.pb", "a", DT_FLOAT, 2, (double[]){ 1.0 / 0.0, 0.0 / 0.0 });
	write_tensor(f, "input_1.pb", "b", DT_FLOAT, 2, (double[]){ 1, 2 });
	write_tensor(f, "output_0.pb", "y", DT_FLOAT, 2, (double[]){ 1.0 / 0.0, 0.0 / 0.0 });
	expect_line(f, &opt, VERDICT_PASS, "");
	write_tensor(f, "output_0.pb", "y", DT_FLOAT, 2, (double[]){ -1.0 / 0.0, 0.0 / 0.0 });
	expect_line(f, &opt, VERDICT_FAIL, "1 of 2 elements differ, most of all element 0: inf; expected -inf");
	write_tensor(f, "output_0.pb", "y", DT_FLOAT, 2, (double[]){ 1.0 / 0.0, 3 });
	expect_line(f, &opt, VERDICT_FAIL, "1 of 2 elements differ, most of all element 1: nan; expected 3");
}

static void what_cannot_run_is_skipped(void **state)
{
	const struct folder *f = *state;
	const struct case_opt opt = { .atol = 0 };
	struct linnet_error e = { 0 };
	struct tally t = { .line = "" };

	write_model(f, SUB);
	expect_line(f, &opt, VERDICT_SKIP, "no test_data_set_0 in the folder");
	write_model(f, "<ir_version: 8, opset_import: [\"\": 17, \"odd\": 1]>\n"
	               "g (float[n] a) => (float[n] y) { y = odd.Thing (a) }\n");
	expect_line(f, &opt, VERDICT_SKIP, "no kernel for operator odd.Thing");
	write_model(f, "nonsense");
	assert_int_equal(case_run(f->path, &opt, count, &t, &e), LINNET_OK);
	assert_int_equal(t.n[VERDICT_FAIL], 1);
	assert_int_equal(case_run("/nowhere/at/all", &opt, count, &t, &e), LINNET_EIO);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_folder, drop_folder)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_reference),
		cmocka_unit_test(by_fast_kernels),
		CASE(inputs_go_by_name_or_place),
		CASE(failures_say_what_differs),
		CASE(bfloat16_has_two_units),
		CASE(special_numbers_compare),
		CASE(what_cannot_run_is_skipped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
