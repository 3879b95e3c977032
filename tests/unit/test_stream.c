/*
 * Long sequences, through the public interface: a thousand single steps give what the whole sequence gives, and ten million tokens go through a chunk
 * model in memory that does not grow. Slow.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#include "linnet.h"

static linnet_model *model_as(const char *path, const char *text, const struct linnet_convert_opt *opt)
{
	struct linnet_error e = { 0 };
	linnet_model *m;

	if (path ? linnet_model_load(path, NULL, &m, &e) : linnet_model_load_memory(text, strlen(text), NULL, &m, &e))
		fail_msg("%s", e.message);
	if (linnet_convert(m, opt, NULL, &e))
		fail_msg("%s, %s: %s", opt->mechanism, opt->target, e.message);
	return m;
}

static linnet_session *session_of(const linnet_model *m, bool states)
{
	struct linnet_session_opt opt = { .size = sizeof opt, .states = states, .threads = 1 };
	struct linnet_error e = { 0 };
	linnet_session *s;

	if (linnet_session_new(m, &opt, &s, &e))
		fail_msg("%s", e.message);
	return s;
}

static struct linnet_tensor run(linnet_session *s, const char *in, struct linnet_tensor x, const char *out)
{
	struct linnet_error e = { 0 };
	struct linnet_tensor y;

	if (linnet_session_run(s, &in, &x, 1, &e) || linnet_session_output(s, out, &y, &e))
		fail_msg("%s", e.message);
	return y;
}

/* ---- A thousand steps of the language model ---- */

static void steps_give_the_whole(void **state)
{
	enum { L = 1000, VOCABULARY = 2048 };
	static const struct linnet_convert_opt cases[] = {
		{ .mechanism = "elu" }, { .mechanism = "taylor" }, { .mechanism = "cosformer" }, { .mechanism = "retnet" }, { .mechanism = "gated-delta" },
		{ .mechanism = "gsa" }, { .mechanism = "liger-gla", .window = 64 }, { .mechanism = "lolcats", .sinks = 2 }, { .mechanism = "hedgehog", .window = 16 },
	};
	int64_t ids[L];

	(void)state;
	for (int t = 0; t < L; t++)
		ids[t] = (t * 7919 + t / 3 * 31) % VOCABULARY;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_convert_opt opt = cases[i];
		linnet_model *whole, *step;
		linnet_session *a, *b;
		struct linnet_tensor x = { .dtype = 7, .rank = 2, .d = { 1, L }, .data = ids }, y;
		double apart = 0, all = 0;

		opt.size = sizeof opt;
		opt.target = "portable";
		whole = model_as("corpus/lm/softmax.onnx", NULL, &opt);
		opt.target = "step";
		step = model_as("corpus/lm/softmax.onnx", NULL, &opt);
		a = session_of(whole, false);
		b = session_of(step, true);
		y = run(a, "input_ids", x, "logits");
		assert_int_equal(linnet_tensor_count(&y), L * VOCABULARY);
		x.d[1] = 1;
		for (int t = 0; t < L; t++) {
			const float *want = (const float *)y.data + (size_t)t * VOCABULARY, *have;

			x.data = &ids[t];
			have = run(b, "input_ids", x, "logits").data;
			for (int c = 0; c < VOCABULARY; c++) {
				apart += pow((double)have[c] - want[c], 2);
				all += pow(want[c], 2);
			}
		}
		printf("%-12s %d steps, NMSE %.2g\n", opt.mechanism, L, apart / all);
		assert_true(apart / all < 1e-10);
		linnet_session_free(a);
		linnet_session_free(b);
		linnet_model_free(whole);
		linnet_model_free(step);
	}
}

/* ---- Ten million tokens ---- */

/* Bytes that were resident at most. */
static int64_t peak_rss(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (int64_t)u.ru_maxrss * 1024;
}

static void ten_million_tokens_stream(void **state)
{
	enum { PIECE = 8192, WIDTH = 16, PIECES = 1221, WARM = 20 };
	static const char text[] = "<ir_version: 10, opset_import: [\"\": 23]>\n"
	                           "g (float[1,T,16] x) => (float[1,T,16] y) {\n"
	                           "  s = Constant <value_ints = [0, 0, 2, 8]> ()  r = Constant <value_ints = [0, 0, 16]> ()\n"
	                           "  x4 = Reshape (x, s)  h = Transpose <perm = [0, 2, 1, 3]> (x4)  o = Attention <is_causal = 1> (h, h, h)\n"
	                           "  ot = Transpose <perm = [0, 2, 1, 3]> (o)  y = Reshape (ot, r) }";
	static const struct linnet_convert_opt cases[] = { { .mechanism = "elu", .fade = "0.99" }, { .mechanism = "gated-delta" },
		                                           { .mechanism = "hedgehog", .fade = "0.99", .window = 32 } };
	float *x = malloc(PIECE * WIDTH * sizeof *x);

	(void)state;
	assert_non_null(x);
	for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
		struct linnet_convert_opt opt = cases[k];
		struct linnet_tensor in = { .dtype = 1, .rank = 3, .d = { 1, PIECE, WIDTH }, .data = x }, y;
		linnet_model *m;
		linnet_session *s, *fresh;
		int64_t warm = 0, end;
		uint32_t seed = 1;
		double apart = 0;
		float *last = malloc(PIECE * WIDTH * sizeof *last);
		struct timespec from, to;

		assert_non_null(last);
		opt.size = sizeof opt;
		opt.target = "chunk";
		m = model_as(NULL, text, &opt);
		s = session_of(m, true);
		clock_gettime(CLOCK_MONOTONIC, &from);
		for (int i = 0; i < PIECES; i++) {
			for (int c = 0; c < PIECE * WIDTH; c++) {
				seed = seed * 1664525u + 1013904223u;
				x[c] = (float)(seed >> 8) / (1 << 23) - 1;
			}
			y = run(s, "x", in, "y");
			if (i + 1 == WARM)
				warm = peak_rss();
		}
		clock_gettime(CLOCK_MONOTONIC, &to);
		end = peak_rss();
		printf("%-12s %d tokens in %.1f s, peak %.1f MB resident, %.1f MB after the first %d\n", opt.mechanism, PIECES * PIECE,
		       (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec), (double)end / 1e6, (double)warm / 1e6, WARM * PIECE);
		assert_true((double)(end - warm) < 4e6);
		/* .99^4096 is 1e-18 and gated-delta's slowest gate leaves less: the second half of a piece does not know what came before */
		memcpy(last, y.data, PIECE * WIDTH * sizeof *last);
		fresh = session_of(m, true);
		y = run(fresh, "x", in, "y");
		for (int c = PIECE / 2 * WIDTH; c < PIECE * WIDTH; c++)
			apart = fmax(apart, fabs((double)last[c] - ((const float *)y.data)[c]));
		assert_true(apart < 1e-4);
		linnet_session_free(fresh);
		linnet_session_free(s);
		linnet_model_free(m);
		free(last);
	}
	free(x);
}

int main(void)
{
	static const struct CMUnitTest tests[] = { cmocka_unit_test(steps_give_the_whole), cmocka_unit_test(ten_million_tokens_stream) };

	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
