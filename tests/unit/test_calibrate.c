/* Calibration: what it makes of small models, to the same bits when it was killed; and its measures, by hand. */
#include "tests/unit/folder.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "calibrate/calibrate.h"
#include "calibrate/graphs.h"
#include "calibrate/measure.h"
#include "ops/base/rng.h"
#include "ops/base/str.h"
#include "validate/validate.h"

static struct folder folder;

static int make_folder(void **state)
{
	(void)state;
	folder = folder_new();
	return 0;
}

static int drop_folder(void **state)
{
	(void)state;
	folder_remove(&folder);
	return 0;
}

/* A decoder of attentions of 2 heads of 8, over 16 tokens, and an encoder of the same on 12 vectors; weights are drawn, the same in all layers. */
#define ATTENTION "q%d = MatMul (%s, wq)\n k%d = MatMul (%s, wk)\n v%d = MatMul (%s, wv)\n" \
	"y%d = Attention <is_causal = %d, q_num_heads = 2, kv_num_heads = 2> (q%d, k%d, v%d)\n o%d = MatMul (y%d, wo)\n h%d = Add (%s, o%d)\n"

static void add_weight(struct str *s, struct rng *r, const char *name, double size)
{
	str_addf(s, "%sfloat[16,16] %s = {", strcmp(name, "wq") ? ", " : "", name);
	for (int i = 0; i < 256; i++)
		str_addf(s, "%s%.6f", i ? "," : "", (2 * rng_unit(r) - 1) * size);
	str_addf(s, "}");
}

static struct linnet_model *model_with(bool decoder, int layers)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	struct arena *a = arena_new();
	struct rng r = { 5 };
	struct str s;
	const char *text;

	assert_non_null(m);
	str_init(&s, a);
	str_addf(&s, "<ir_version: 10, opset_import: [\"\" : 23]>\n%s <", decoder ? "decoder (int64[B,T] ids) => (float[B,T,16] logits)" :
	         "encoder (float[B,12,16] x) => (float[B,12,16] z)");
	for (const char *const *w = (const char *const[]){ "wq", "wk", "wv", "wo", "head", NULL }; *w; w++)
		add_weight(&s, &r, *w, 0.6);
	if (decoder)
		add_weight(&s, &r, "words", 1.5);
	str_addf(&s, ">\n{ %s", decoder ? "x = Gather (words, ids)\n" : "");
	for (int i = 0; i < layers; i++) {
		char x[8] = "x";

		if (i)
			snprintf(x, sizeof x, "h%d", i - 1);
		str_addf(&s, ATTENTION, i, x, i, x, i, x, i, decoder, i, i, i, i, i, i, x, i);
	}
	str_addf(&s, "%s = MatMul (h%d, head) }", decoder ? "logits" : "z", layers - 1);
	text = str_done(&s);
	assert_non_null(text);
	if (text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s", e.message);
	arena_free(a);
	return m;
}

/* A decoder as exporters write them: with a cache, a mask and learned positions, of which there are 16. */
static struct linnet_model *exported_model(void)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	struct arena *a = arena_new();
	struct rng r = { 5 };
	struct str s;
	const char *text;

	assert_non_null(m);
	str_init(&s, a);
	str_add(&s, "<ir_version: 10, opset_import: [\"\" : 24]>\n"
	            "decoder (int64[B,T] input_ids, int64[B,A] attention_mask, float[B,2,P,8] past_key, float[B,2,P,8] past_value)\n"
	            " => (float[B,T,16] logits, float[B,2,A,8] present_key, float[B,2,A,8] present_value) <");
	for (const char *const *w = (const char *const[]){ "wq", "wk", "wv", "wo", "head", "words", "places", NULL }; *w; w++)
		add_weight(&s, &r, *w, 0.6);
	str_add(&s, ", int64 one = {1}, int64[2] axes = {1, 2}> {\n"
	            " p1 = Shape <start = 2, end = 3> (past_key)  a1 = Shape <start = 1, end = 2> (attention_mask)\n"
	            " p = Squeeze (p1)  a = Squeeze (a1)  place = Range (p, a, one)\n"
	            " word = Gather (words, input_ids)  here = Gather (places, place)  x = Add (word, here)\n"
	            " q = MatMul (x, wq)  k = MatMul (x, wk)  v = MatMul (x, wv)  b = Cast <to = 9> (attention_mask)  mask = Unsqueeze (b, axes)\n"
	            " y, present_key, present_value = Attention <is_causal = 1, q_num_heads = 2, kv_num_heads = 2>\n"
	            "  (q, k, v, mask, past_key, past_value)\n"
	            " o = MatMul (y, wo)  h = Add (x, o)  logits = MatMul (h, head) }");
	text = str_done(&s);
	if (text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s", e.message);
	arena_free(a);
	return m;
}

static struct linnet_model *model_of(bool decoder) { return model_with(decoder, 1); }

/* A stream of drawn tokens; vectors for the encoder. */
static struct train_data *data_of(bool decoder, uint64_t seed)
{
	struct linnet_error e = { 0 };
	struct arena *a = arena_new();
	struct train_data *d;
	struct tensor *t;
	struct rng r = { seed };
	char path[256];

	folder_path(&folder, decoder ? "tokens.npy" : "vectors.npy", path);
	if (decoder)
		assert_false(tensor_new(a, DT_INT64, 1, (int64_t[]){ 4000 }, &t, &e));
	else
		assert_false(tensor_new(a, DT_FLOAT, 3, (int64_t[]){ 64, 12, 16 }, &t, &e));
	for (int64_t i = 0; i < t->n; i++)
		if (decoder)
			tensor_put_int(t, i, (int64_t)(rng_unit(&r) * 16));
		else
			tensor_put(t, i, 2 * rng_unit(&r) - 1);
	assert_false(npy_save(path, t, &e));
	assert_false(data_new(&d, &e));
	assert_false(data_add(d, decoder ? NULL : "x", path, &e));
	arena_free(a);
	return d;
}

static struct calibrate_opt options(const char *mechanism, const struct recipe *r)
{
	return (struct calibrate_opt){ .convert.mechanism = mechanism_find(mechanism), .recipe = r, .tokens = 16000, .batch = 4, .length = 24,
	                               .threads = 1 };
}

static void calibrated(const struct linnet_model *m, const struct calibrate_opt *o, bool decoder, struct calibrate_result *r)
{
	struct train_data *d = data_of(decoder, 1), *h = data_of(decoder, 2);
	struct linnet_error e = { 0 };

	if (calibrate(m, o, d, h, r, &e))
		fail_msg("%s", e.message);
	data_free(d);
	data_free(h);
}

/* What it has learned holds in every target, and the source model is what it was. */
static void test_decoder(void **state)
{
	static const char *const mechanisms[] = { "gated-delta", "hedgehog", "lolcats", "elu" };

	(void)state;
	for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++) {
		struct linnet_model *m = model_of(true), *again = model_of(true);
		struct recipe recipe = recipe_for(mechanism_find(mechanisms[i]));
		struct calibrate_opt o = options(mechanisms[i], &recipe);
		struct calibrate_result r;
		const struct quality *last;

		o.convert.window = i == 2 ? 4 : 0;
		calibrated(m, &o, true, &r);
		assert_true(r.language && r.nstage >= 1 && r.nerror == 1);
		last = &r.stage[r.nstage - 1].quality;
		assert_true(r.stage[0].tokens + r.stage[1].tokens >= o.tokens); /* all of the budget, where only one stage has something to train too */
		assert_true(!r.stage[0].tokens == !strcmp(mechanisms[i], "elu"));
		if (!(last->loss < 0.7 * r.before.loss))
			fail_msg("%s: %.4f before, %.4f after", mechanisms[i], r.before.loss, last->loss);
		assert_true(i == 2 ? r.window.loss > last->loss : isnan(r.window.loss));
		assert_true(r.error[0].after < r.error[0].before || !strcmp(mechanisms[i], "elu"));
		for (value_id v = 1; v < m->graph->nvalue; v++)
			if (m->graph->value[v].kind == VALUE_CONST)
				assert_memory_equal(m->graph->value[v].type.value->data, again->graph->value[v].type.value->data,
				                    m->graph->value[v].type.value->bytes);
		for (int target = TARGET_ONNX; target <= TARGET_QUADRATIC; target++) {
			struct linnet_model *c = model_of(true);
			struct convert_opt convert = o.convert;
			struct convert_report report;
			struct linnet_error e = { 0 };
			struct quality q;
			struct arena *a;
			static const uint8_t need[4000];
			struct named_tensor *list;
			char path[256];
			int n;

			convert.target = (enum target)target;
			convert.given = r.weight;
			convert.ngiven = r.nweight;
			assert_false(convert_model(c, &convert, &report, &e));
			assert_true(report.nconverted || (o.convert.mechanism->corrects && target == TARGET_QUADRATIC));
			if (!report.nconverted) { /* no sum over pairs says it */
				model_free(c);
				continue;
			}
			a = arena_new();
			assert_false(data_load(folder_path(&folder, "tokens.npy", path), DT_UNDEFINED, NULL, a, &list, &n, &e));
			assert_false(measure_lm(c->graph, list[0].t, need, 24, 4, 1, &q, &e));
			if (!(fabs(q.nll - last->nll) < 1e-4))
				fail_msg("%s, %s: %.6f, not %.6f", mechanisms[i], target_names[target], q.nll, last->nll);
			arena_free(a);
			model_free(c);
		}
		model_free(m);
		model_free(again);
	}
}

/* Caches are empty, masks full, and windows as long as the model's positions reach; positions further on are not known. */
static void test_exported(void **state)
{
	struct linnet_model *m = exported_model();
	struct recipe recipe = recipe_for(mechanism_find("gated-delta"));
	struct calibrate_opt o = options("gated-delta", &recipe);
	struct calibrate_result r;

	(void)state;
	o.length = 0;
	calibrated(m, &o, true, &r);
	assert_int_equal(r.length, 16);
	assert_true(isnan(r.teacher.span[0]) && !isnan(r.teacher.nll));
	if (!(r.stage[r.nstage - 1].quality.loss < 0.7 * r.before.loss))
		fail_msg("%.4f before, %.4f after", r.before.loss, r.stage[r.nstage - 1].quality.loss);
	assert_int_equal(m->graph->nin, 4);
	model_free(m);
}

/* No language model: outputs come closer. */
static void test_encoder(void **state)
{
	struct linnet_model *m = model_of(false);
	struct recipe recipe = recipe_for(mechanism_find("elu"));
	struct calibrate_opt o = options("elu", &recipe);
	struct calibrate_result r;

	(void)state;
	o.tokens = 4000;
	o.rate = 10;
	calibrated(m, &o, false, &r);
	assert_false(r.language);
	if (!(r.stage[r.nstage - 1].quality.loss < 0.5 * r.before.loss))
		fail_msg("%.4f, was %.4f", r.stage[r.nstage - 1].quality.loss, r.before.loss);
	model_free(m);
}

/* Adapters: merged into the matrices, the model is as good as it was with them beside. */
static void test_adapters(void **state)
{
	static const struct recipe low = { .name = "low", .mechanism = "elu", .stage = { { "adapt", LOSS_DISTIL, WEIGHTS_LOW, 2e-2, 1 } } };
	struct linnet_model *m = model_of(true);
	struct calibrate_opt o = options("elu", &low);
	struct calibrate_result r;

	(void)state;
	o.rank = 4;
	o.tokens = 30000;
	calibrated(m, &o, true, &r);
	assert_int_equal(r.stage[0].parameters, 5 * 2 * 16 * 4); /* q, k, v, o and the head */
	if (!(r.stage[0].quality.loss < 0.7 * r.before.loss))
		fail_msg("%.4f, was %.4f", r.stage[0].quality.loss, r.before.loss);
	for (int i = 0; i < r.nweight; i++)
		assert_true(strncmp(r.weight[i].name, "a.", 2) && strncmp(r.weight[i].name, "b.", 2));
	model_free(m);
}

/* ---- What layers are trained by ---- */

/* Outputs "soft.0" and "linear.0" of one attention of 4 heads on 2, of tokens that see those before them or all. */
static void stand_beside(struct arena *a, const char *mechanism, bool causal, enum beside beside, const struct tensor *const *in, struct tensor **out)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);
	struct convert_opt opt = { .mechanism = mechanism_find(mechanism) };
	struct lesson l;
	struct plan *p;
	struct run_opt run = { .kernels = KERNELS_REFERENCE, .threads = 1 };
	char text[400];

	snprintf(text, sizeof text, "<ir_version: 10, opset_import: [\"\": 23]>\n"
	         "g (float[1,4,T,6] q, float[1,2,T,6] k, float[1,2,T,3] v) => (float[1,4,T,3] y)\n"
	         "{ y = Attention <is_causal = %d, scale = 0.7> (q, k, v) }", causal);
	assert_false(text_parse(m, text, strlen(text), &e) || graph_import(m, &e));
	if (lesson_student(m, &opt, NULL, 0, beside, a, &l, &e))
		fail_msg("%s", e.message);
	assert_int_equal(l.report.item[0].weights, beside == BESIDE_WEIGHTS);
	l.model.graph->out[0] = lesson_output(&l, "soft", 0);
	l.model.graph->out[1] = lesson_output(&l, "linear", 0);
	l.model.graph->nout = 2;
	if (plan_new(l.model.graph, &run, &p, &e) || plan_run(p, in, out, &e))
		fail_msg("%s", e.message);
	plan_free(p);
	model_free(m);
}

/* Rows of weights sum up to 1, and weights times values are the results. */
static void test_weights(void **state)
{
	static const char *const mechanisms[] = { "hedgehog", "prf", "elu" };
	enum { L = 7, D = 6, E = 3, H = 4, G = 2 };

	(void)state;
	for (int i = 0; i < 6; i++) {
		struct arena *a = arena_new();
		struct rng r = { 3 };
		struct tensor *in[3], *result[2], *weight[2];

		for (int k = 0; k < 3; k++) {
			assert_false(tensor_new(a, DT_FLOAT, 4, (int64_t[]){ 1, k ? G : H, L, k < 2 ? D : E }, &in[k], NULL));
			for (int64_t j = 0; j < in[k]->n; j++)
				tensor_put(in[k], j, 3 * rng_unit(&r) - 1.5);
		}
		stand_beside(a, mechanisms[i / 2], i % 2, BESIDE_RESULTS, (const struct tensor *const *)in, result);
		stand_beside(a, mechanisms[i / 2], i % 2, BESIDE_WEIGHTS, (const struct tensor *const *)in, weight);
		for (int side = 0; side < 2; side++) {
			assert_int_equal(weight[side]->n, H * L * L);
			for (int row = 0; row < H * L; row++) {
				double sum = 0, y[E] = { 0 };

				for (int j = 0; j < L; j++) {
					double w = tensor_get(weight[side], row * L + j);

					assert_true(w >= 0 && !(i % 2 && j > row % L && w > 0));
					sum += w;
					for (int c = 0; c < E; c++)
						y[c] += w * tensor_get(in[2], (row / L / (H / G) * L + j) * E + c);
				}
				assert_true(fabs(sum - 1) < 1e-5);
				for (int c = 0; c < E; c++)
					if (!(fabs(y[c] - tensor_get(result[side], row * E + c)) < 1e-5))
						fail_msg("%s, %s, row %d: %g, not %g", mechanisms[i / 2], side ? "linear" : "soft", row, y[c],
						         tensor_get(result[side], row * E + c));
			}
			tensor_release(weight[side]);
			tensor_release(result[side]);
		}
		arena_free(a);
	}
}

/* The cross-entropy of weights is trained down, and with it outputs come closer. */
static void test_weights_trained(void **state)
{
	static const struct recipe recipe = { .name = "weights", .mechanism = "hedgehog", .stage = { { "transfer", LOSS_WEIGHTS, WEIGHTS_NEW, 2e-2, 1 } } };
	struct linnet_model *m = model_of(true);
	struct calibrate_opt o = options("hedgehog", &recipe);
	struct calibrate_result few, r;

	(void)state;
	o.tokens = 1;
	calibrated(m, &o, true, &few);
	o.tokens = 20000;
	calibrated(m, &o, true, &r);
	if (!(r.stage[0].loss < 0.9 * few.stage[0].loss && r.error[0].after < r.error[0].before))
		fail_msg("%.4f, was %.4f; outputs %.4f, were %.4f", r.stage[0].loss, few.stage[0].loss, r.error[0].after, r.error[0].before);
	model_free(m);
}

/* By hand, of sums that are diagonal: w = (yx + lambda) w0 / (yy + lambda) in each row, lambda = 1e-4 (2 + 4) / 2. */
static void test_fit_by_hand(void **state)
{
	static const double sum[] = { 2, 0, 0, 4, 1, 0, 0, 3, 1, 0, 0, 5 }, w0[] = { 1, 2 };
	struct arena *a = arena_new();
	struct fit f = { .weight = "w" };
	struct tensor *t, *w;
	struct linnet_error e = { 0 };
	double before, after, lambda = 3e-4, w1 = (1 + lambda) / (2 + lambda), w2 = 2 * (3 + lambda) / (4 + lambda);

	(void)state;
	assert_false(tensor_new(a, DT_FLOAT, 2, (int64_t[]){ 2, 1 }, &t, &e));
	for (int i = 0; i < 2; i++)
		tensor_put(t, i, w0[i]);
	f.w = t;
	assert_false(fit_solve(&f, sum, a, &w, &before, &after, &e));
	assert_true(fabs(tensor_get(w, 0) - w1) < 1e-6 && fabs(tensor_get(w, 1) - w2) < 1e-6);
	/* |Y W - X W0|^2 = yy W^2 - 2 yx W W0 + xx W0^2 in each row; |X W0|^2 = 1 + 20 */
	assert_true(fabs(before - (2 - 2 + 1 + 4 * 4 - 2 * 3 * 4 + 20) / 21.0) < 1e-12);
	assert_true(fabs(after - (2 * w1 * w1 - 2 * w1 + 1 + 4 * w2 * w2 - 2 * 3 * w2 * 2 + 20) / 21.0) < 1e-12);
	assert_int_equal(fit_solve(&f, (const double[12]){ NAN }, a, &w, &before, &after, &e), LINNET_EVALUE);
	arena_free(a);
}

static const struct tensor *weight_named(const struct calibrate_result *r, const char *name)
{
	for (int i = 0; i < r->nweight; i++)
		if (!strcmp(r->weight[i].name, name))
			return r->weight[i].t;
	return NULL;
}

/* Projections alone move, and the model comes closer; a new form that is the old one leaves them where they are. */
static void test_fit(void **state)
{
	static const struct recipe recipe = { .name = "fit", .mechanism = "elu", .stage = { { "fit", LOSS_FIT, WEIGHTS_NEW, 0, 0 } } };
	struct linnet_model *m = model_of(true);
	struct calibrate_opt o = options("elu", &recipe);
	struct calibrate_result r;
	uint32_t v;
	const struct tensor *wo, *w0;

	(void)state;
	calibrated(m, &o, true, &r);
	assert_int_equal(r.nweight, 1);
	assert_int_equal(r.stage[0].parameters, 256);
	assert_true((wo = weight_named(&r, "wo")) != NULL);
	if (!(r.stage[0].quality.loss < 0.9 * r.before.loss))
		fail_msg("%.4f, was %.4f", r.stage[0].quality.loss, r.before.loss);
	o = options("window", &recipe);
	o.convert.window = 24;
	o.length = 24;
	calibrated(m, &o, true, &r);
	assert_true(map_get(&m->graph->names, "wo", &v) && (wo = weight_named(&r, "wo")) != NULL);
	w0 = m->graph->value[v].type.value;
	assert_true(r.stage[0].loss < 1e-9);
	for (int64_t i = 0; i < 256; i++)
		if (!(fabs(tensor_get(wo, i) - tensor_get(w0, i)) < 1e-3))
			fail_msg("%lld: %g, not %g", (long long)i, tensor_get(wo, i), tensor_get(w0, i));
	model_free(m);
}

/* Killed at some moment, run again: the same bits as without. */
static void test_killed(void **state)
{
	struct recipe recipe = recipe_for(mechanism_find("hedgehog"));
	struct calibrate_opt o = options("hedgehog", &recipe);
	struct linnet_model *m = model_of(true), *other = model_of(true);
	struct calibrate_result whole, r;
	char prefix[256];
	pid_t child;
	int status;

	(void)state;
	o.tokens = 60000;
	calibrated(m, &o, true, &whole);
	o.checkpoint = folder_path(&folder, "run", prefix);
	for (int i = 0; i < 3; i++) {
		child = fork();
		assert_true(child >= 0);
		if (!child) {
			calibrated(other, &o, true, &r);
			_exit(0);
		}
		nanosleep(&(struct timespec){ .tv_nsec = 60000000L * (i + 1) }, NULL);
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
	}
	calibrated(other, &o, true, &r);
	assert_int_equal(r.nweight, whole.nweight);
	for (int i = 0; i < r.nweight; i++) {
		assert_string_equal(r.weight[i].name, whole.weight[i].name);
		assert_memory_equal(r.weight[i].t->data, whole.weight[i].t->data, r.weight[i].t->bytes);
	}
	model_free(m);
	model_free(other);
}

/* By hand: pairs 1 2, far enough back and rare; 3 4, too near; 5 6, too common; a pair of another window does not count. */
static void test_recall(void **state)
{
	static const int stream[] = { 1, 2, 3, 4, 9, 3, 4, 5, 6, 1, 2, 5, 6, 8, 8, 8, 8, 1, 2 }, train[] = { 5, 6, 5, 6, 1, 2 };
	static const uint8_t expected[] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0 };
	struct arena *a = arena_new();
	struct tensor *s, *t;
	uint8_t need[19];
	struct linnet_error e = { 0 };

	(void)state;
	assert_false(tensor_new(a, DT_INT32, 1, (int64_t[]){ 19 }, &s, &e));
	assert_false(tensor_new(a, DT_INT32, 1, (int64_t[]){ 6 }, &t, &e));
	memcpy(s->data, stream, sizeof stream);
	memcpy(t->data, train, sizeof train);
	assert_false(recall_tokens(s, t, 16, 4, 1, need, &e));
	assert_memory_equal(need, expected, sizeof expected);
	arena_free(a);
}

static void test_refused(void **state)
{
	struct recipe recipe = recipe_for(mechanism_find("elu"));
	struct calibrate_opt o = options("elu", &recipe);
	struct linnet_model *m = model_new(NULL, NULL);
	struct train_data *d = data_of(true, 1);
	struct calibrate_result r;
	struct linnet_error e = { 0 };
	static const char none[] = "<ir_version: 10, opset_import: [\"\" : 23]>\n"
		"none (int64[B,T] ids) => (float[B,T,16] logits) <int64[2] s = {16, 16}>\n{ w = ConstantOfShape (s)\n logits = Gather (w, ids) }";

	(void)state;
	assert_false(text_parse(m, none, strlen(none), &e) || graph_import(m, &e));
	if (calibrate(m, &o, d, NULL, &r, &e) != LINNET_EUNSUPPORTED)
		fail_msg("%s", e.message);
	assert_non_null(strstr(e.message, "no attention"));
	model_free(m);
	m = model_of(true);
	o.length = 100000;
	assert_int_equal(calibrate(m, &o, d, NULL, &r, &e), LINNET_ESHAPE);
	model_free(m);
	data_free(d);
}

/* ---- Searching ---- */

static struct search_opt searching(int64_t tokens)
{
	struct search_opt s = { .calibrate = options("elu", NULL), .most_loss = INFINITY };

	s.calibrate.convert.mechanism = NULL;
	s.calibrate.tokens = tokens;
	return s;
}

static void searched(const struct linnet_model *m, const struct search_opt *o, bool decoder, struct search_result *r)
{
	struct train_data *d = data_of(decoder, 1), *h = data_of(decoder, 2);
	struct linnet_error e = { 0 };

	if (calibrate_search(m, o, d, h, r, &e))
		fail_msg("%s", e.message);
	data_free(d);
	data_free(h);
}

/* No trial of the front is beaten, all others are; the chosen one is within the limit of state and better than it was without training. */
static void check_search(const struct search_result *r, int64_t most_state)
{
	const struct trial *best = &r->trial[r->best];

	assert_true(best->best && !best->fixed && !best->reason && best->rounds == 3);
	assert_true(!most_state || best->state_bytes <= most_state);
	assert_true(r->result.nstage >= 1);
	for (int i = 0; i < r->ntrial; i++) {
		const struct trial *t = &r->trial[i];
		bool beaten = t->reason || t->fixed;

		for (int k = 0; k < r->ntrial && !beaten; k++) {
			const struct trial *x = &r->trial[k];

			beaten = !x->reason && !x->fixed && x->state_bytes <= t->state_bytes && x->loss <= t->loss &&
			         (x->state_bytes < t->state_bytes || x->loss < t->loss);
		}
		if (t->front == beaten)
			fail_msg("%s: %s", t->name, t->front ? "is beaten" : "is of the front");
		if (most_state && !t->fixed && !t->reason)
			assert_true(t->state_bytes <= most_state);
	}
}

/* A limit of state that windows of 64 are over; the same twice, and the same again from checkpoints. */
static void test_search(void **state)
{
	struct search_result r[3];
	struct linnet_model *m[3];
	struct search_opt o = searching(24000);
	char prefix[256];

	(void)state;
	o.most_state = 8000;
	for (int i = 0; i < 3; i++) {
		m[i] = model_with(true, 2);
		o.calibrate.checkpoint = i ? folder_path(&folder, "search", prefix) : NULL;
		searched(m[i], &o, true, &r[i]);
		check_search(&r[i], o.most_state);
		assert_int_equal(r[i].ntrial, r[0].ntrial);
		assert_int_equal(r[i].best, r[0].best);
		for (int k = 0; k < r[0].ntrial; k++)
			if (r[i].trial[k].loss != r[0].trial[k].loss || r[i].trial[k].tokens != r[0].trial[k].tokens)
				fail_msg("run %d: %s: %.9g, not %.9g", i, r[0].trial[k].name, r[i].trial[k].loss, r[0].trial[k].loss);
	}
	assert_true(r[0].result.stage[r[0].result.nstage - 1].quality.loss < 0.7 * r[0].result.before.loss);
	for (int i = 0; i < 3; i++)
		model_free(m[i]);
}

/* With a limit of loss that leaving softmax in keeps: the smallest state within it. One mechanism only. */
static void test_search_loss(void **state)
{
	struct linnet_model *m = model_with(true, 3);
	struct search_opt o = searching(20000);
	struct search_result r;
	bool hybrid = false, wide = false;

	(void)state;
	o.mechanism = mechanism_find("hedgehog");
	o.most_loss = 0.05;
	searched(m, &o, true, &r);
	check_search(&r, 0);
	for (int i = 0; i < r.ntrial; i++) {
		const struct trial *t = &r.trial[i];

		hybrid = hybrid || (t->softmax && !t->fixed);
		wide = wide || (t->convert.layers && strstr(t->convert.layers, "/64"));
		if (t->fixed)
			continue;
		assert_true(t->convert.mechanism == o.mechanism);
		assert_int_equal(t->softmax > 0, strstr(t->name, "softmax") != NULL);
		if (!t->reason && t->rounds && exp(t->loss) - 1 <= o.most_loss)
			assert_true(r.trial[r.best].state_bytes <= t->state_bytes);
	}
	assert_true(hybrid && wide);
	model_free(m);
}

/* What sees both sides has no state; what cannot be is given up with a reason. Nothing fits: an error. */
static void test_search_encoder(void **state)
{
	struct linnet_model *m = model_of(false);
	struct search_opt o = searching(3000);
	struct search_result r;
	struct train_data *d = data_of(true, 1);
	struct linnet_error e = { 0 };
	int refused = 0;

	(void)state;
	searched(m, &o, false, &r);
	check_search(&r, 0);
	for (int i = 0; i < r.ntrial; i++)
		refused += r.trial[i].reason != NULL;
	assert_true(refused > 0);
	model_free(m);
	m = model_of(true);
	o.most_state = 16;
	assert_int_equal(calibrate_search(m, &o, d, NULL, &r, &e), LINNET_EUNSUPPORTED);
	assert_non_null(strstr(e.message, "its state is too large"));
	model_free(m);
	data_free(d);
}

/* The model's own loss and half the distance; and labels that only the loss reads. */
static void test_hybrid(void **state)
{
	static const struct recipe recipes[] = {
		{ .name = "hybrid", .mechanism = "elu", .stage = { { "distil", LOSS_HYBRID, WEIGHTS_ALL, 1e-2, 1 } } },
		{ .name = "task", .mechanism = "elu", .stage = { { "tune", LOSS_TASK, WEIGHTS_ALL, 1e-2, 1 } } },
		{ .name = "distil", .mechanism = "elu", .stage = { { "distil", LOSS_DISTIL, WEIGHTS_ALL, 1e-2, 1 } } },
	};
	static const char text[] = "<ir_version: 10, opset_import: [\"\" : 23]>\n"
		"m (float[B,12,16] x) => (float[B,12,16] z, float loss) <float[16,16] w = {%s}>\n"
		"{ q = MatMul (x, w)\n a = Attention <q_num_heads = 2, kv_num_heads = 2> (q, q, x)\n z = MatMul (a, w)\n"
		"  d = Sub (z, x)\n s = Mul (d, d)\n loss = ReduceMean <keepdims = 0> (s) }";
	double loss[3];

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct linnet_error e = { 0 };
		struct linnet_model *m = model_new(NULL, &e);
		struct calibrate_opt o = options("elu", &recipes[i]);
		struct calibrate_result r;
		struct arena *a = arena_new();
		struct rng rng = { 7 };
		struct str s, full;
		const char *whole;

		str_init(&s, a);
		for (int k = 0; k < 256; k++)
			str_addf(&s, "%s%.5f", k ? "," : "", rng_unit(&rng) - 0.5);
		str_init(&full, a);
		str_addf(&full, text, str_done(&s));
		whole = str_done(&full);
		assert_false(text_parse(m, whole, strlen(whole), &e) || graph_import(m, &e));
		o.tokens = 2000;
		calibrated(m, &o, false, &r);
		loss[i] = r.stage[0].loss;
		assert_true(isfinite(r.stage[0].quality.loss));
		arena_free(a);
		model_free(m);
	}
	/* half the distance is there: more than the task's loss at its best alone, and than half the distance alone */
	assert_true(loss[0] > loss[1] && loss[0] > 0.5 * loss[2]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decoder), cmocka_unit_test(test_exported), cmocka_unit_test(test_encoder), cmocka_unit_test(test_adapters), cmocka_unit_test(test_killed),
		cmocka_unit_test(test_weights), cmocka_unit_test(test_weights_trained), cmocka_unit_test(test_fit_by_hand), cmocka_unit_test(test_fit),
		cmocka_unit_test(test_recall),  cmocka_unit_test(test_refused),
		cmocka_unit_test(test_search),  cmocka_unit_test(test_search_loss), cmocka_unit_test(test_search_encoder), cmocka_unit_test(test_hybrid),
	};

	return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
