/*
 * Long sequences, through the public interface: single steps give what the whole sequence gives, and a long stream goes through a chunk model in memory
 * that does not grow. `test_stream long`: a thousand steps of every kind of state, ten million tokens; else few of both.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "linnet.h"

static int is_long;

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

/* ---- Steps of the language model ---- */

static void steps_give_the_whole(void **state)
{
	enum { MOST = 1000, VOCABULARY = 2048 };
	const int L = is_long ? MOST : 40;
	static const struct linnet_convert_opt cases[] = {
		{ .mechanism = "elu" }, { .mechanism = "taylor" }, { .mechanism = "cosformer" }, { .mechanism = "retnet" }, { .mechanism = "gated-delta" },
		{ .mechanism = "gsa" }, { .mechanism = "liger-gla", .window = 64 }, { .mechanism = "lolcats", .sinks = 2 }, { .mechanism = "hedgehog", .window = 16 },
	};
	int64_t ids[MOST];

	(void)state;
	for (int t = 0; t < L; t++)
		ids[t] = (t * 7919 + t / 3 * 31) % VOCABULARY;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i += is_long ? 1 : 3) {
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

/* ---- Streams ---- */

/* Bytes that are resident. */
static int64_t resident(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f && fscanf(f, "%*d %ld", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

static void long_streams_keep_their_memory(void **state)
{
	enum { MOST = 8192, WIDTH = 16, WARM = 10 };
	static const char text[] = "<ir_version: 10, opset_import: [\"\": 23]>\n"
	                           "g (float[1,T,16] x) => (float[1,T,16] y) {\n"
	                           "  s = Constant <value_ints = [0, 0, 2, 8]> ()  r = Constant <value_ints = [0, 0, 16]> ()\n"
	                           "  x4 = Reshape (x, s)  h = Transpose <perm = [0, 2, 1, 3]> (x4)  o = Attention <is_causal = 1> (h, h, h)\n"
	                           "  ot = Transpose <perm = [0, 2, 1, 3]> (o)  y = Reshape (ot, r) }";
	static const struct linnet_convert_opt cases[] = { { .mechanism = "elu", .fade = "0.99" }, { .mechanism = "gated-delta" },
		                                           { .mechanism = "hedgehog", .fade = "0.9", .window = 32 } };
	float *x = malloc(MOST * WIDTH * sizeof *x);

	(void)state;
	assert_non_null(x);
	for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
		struct linnet_convert_opt opt = cases[k];
		const int piece = opt.window ? 512 : MOST, pieces = is_long ? 10000000 / piece + 1 : opt.window ? 12 : 30;
		struct linnet_tensor in = { .dtype = 1, .rank = 3, .d = { 1, piece, WIDTH }, .data = x }, y;
		linnet_model *m;
		linnet_session *s, *fresh;
		int64_t warm = 0, most = 0;
		uint32_t seed = 1;
		double apart = 0;
		float *last = malloc((size_t)piece * WIDTH * sizeof *last);
		struct timespec from, to;

		assert_non_null(last);
		opt.size = sizeof opt;
		opt.target = "chunk";
		m = model_as(NULL, text, &opt);
		s = session_of(m, true);
		clock_gettime(CLOCK_MONOTONIC, &from);
		for (int i = 0; i < pieces; i++) {
			for (int c = 0; c < piece * WIDTH; c++) {
				seed = seed * 1664525u + 1013904223u;
				x[c] = (float)(seed >> 8) / (1 << 23) - 1;
			}
			y = run(s, "x", in, "y");
			if (i + 1 == WARM)
				warm = resident();
			else if (i > WARM && i % 10 == 0)
				most = resident() > most ? resident() : most;
		}
		clock_gettime(CLOCK_MONOTONIC, &to);
		printf("%-12s %d tokens in %.1f s, %.1f MB resident after the first %d, at most %.1f MB later\n", opt.mechanism, pieces * piece,
		       (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec), (double)warm / 1e6, WARM * piece, (double)most / 1e6);
		assert_true(!is_long || (double)(most - warm) < 4e6); /* sanitizers keep what was freed */
		/* .99^4096 is 1e-18, .9^256 2e-12, and gated-delta's slowest gate leaves less: the second half of a piece does not know what came before */
		memcpy(last, y.data, (size_t)piece * WIDTH * sizeof *last);
		fresh = session_of(m, true);
		y = run(fresh, "x", in, "y");
		for (int c = piece / 2 * WIDTH; c < piece * WIDTH; c++)
			apart = fmax(apart, fabs((double)last[c] - ((const float *)y.data)[c]));
		assert_true(apart < 1e-4);
		linnet_session_free(fresh);
		linnet_session_free(s);
		linnet_model_free(m);
		free(last);
	}
	free(x);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = { cmocka_unit_test(steps_give_the_whole), cmocka_unit_test(long_streams_keep_their_memory) };

	is_long = argc > 1 && !strcmp(argv[1], "long");
	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
