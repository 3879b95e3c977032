/* Training: steps against formulas by hand, data, checkpoints to the same bits, and what is refused. */
#include "tests/unit/folder.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/data.h"
#include "train/data.h"
#include "train/step.h"
#include "train/train.h"

static struct folder folder;

static const char *path(const char *name)
{
	static char all[8][256];
	static int next;

	return folder_path(&folder, name, all[next++ % 8]);
}

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

static struct linnet_model *model_of(const char *text)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_new(NULL, &e);

	assert_non_null(m);
	if (text_parse(m, text, strlen(text), &e) || graph_import(m, &e))
		fail_msg("%s", e.message);
	return m;
}

#define HEAD "<ir_version: 10, opset_import: [\"\" : 21]>\n"

/* y = 2 x0 - x1 + 0.5, to be found. */
static const char line[] = HEAD "line (float[N,2] x, float[N,1] y) => (float loss) <float[2,1] weight = {0, 0}, float[1] bias = {0}>\n"
	"{ p = MatMul (x, weight)\n q = Add (p, bias)\n d = Sub (q, y)\n s = Mul (d, d)\n loss = ReduceMean <keepdims = 0> (s) }";

/* Counts, modulo 8. */
static const char counter[] = HEAD "lm (int64[B,T] ids) => (float[B,T,8] logits) <float[8,8] weight = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,"
	"0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}>\n{ logits = Gather (weight, ids) }";

static void write_line_data(void)
{
	struct arena *a = arena_new();
	struct tensor *x, *y;
	struct rng r = { 7 };

	assert_false(tensor_new(a, DT_FLOAT, 2, (int64_t[]){ 32, 2 }, &x, NULL));
	assert_false(tensor_new(a, DT_DOUBLE, 2, (int64_t[]){ 32, 1 }, &y, NULL));
	for (int64_t i = 0; i < 32; i++) {
		double p = 2 * rng_unit(&r) - 1, q = 2 * rng_unit(&r) - 1;

		tensor_put(x, 2 * i, p);
		tensor_put(x, 2 * i + 1, q);
		tensor_put(y, i, 2 * p - q + 0.5);
	}
	assert_false(npz_save(path("line.npz"), (struct named_tensor[]){ { "x", x }, { "y", y } }, 2, NULL));
	arena_free(a);
}

static void write_tokens(const char *name, int64_t n, int64_t odd)
{
	FILE *f = fopen(path(name), "wb");

	assert_non_null(f);
	for (int64_t i = 0; i < n; i++) {
		int x = (int)(i == 20 && odd ? odd : i % 8);

		fputc(x & 255, f);
		fputc(x >> 8, f);
	}
	fclose(f);
}

static const char *const usual[] = { "*weight*", "*bias*" };

static struct train_opt options(void)
{
	return (struct train_opt){ .weight = usual, .nweight = 2, .rate = 0.1, .rate_end = 0.1, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8,
	                           .schedule = SCHEDULE_COSINE, .steps = 200, .batch = 8, .accumulate = 1, .length = 4, .seed = 3, .threads = 1 };
}

/* What run() calls after each step. */
static int (*each_step)(void *ctx, const struct train_event *ev);

static enum linnet_code run(struct linnet_model *m, const struct train_opt *o, const char *file, const char *held, struct train_result *r,
                            struct linnet_error *e)
{
	struct train_data *d = NULL, *h = NULL;
	enum linnet_code code = data_new(&d, e);

	if (!code)
		code = data_add(d, NULL, path(file), e);
	if (!code && held)
		code = data_new(&h, e);
	if (!code && held)
		code = data_add(h, NULL, path(held), e);
	if (!code)
		code = train(m, o, d, h, each_step, NULL, r, e);
	data_free(d);
	data_free(h);
	return code;
}

static const struct tensor *weight_of(const struct linnet_model *m, const char *name)
{
	for (value_id v = 1; v < m->graph->nvalue; v++)
		if (!strcmp(m->graph->value[v].name, name))
			return m->graph->value[v].type.value;
	return NULL;
}

static void a_line_is_found(void **state)
{
	struct linnet_error e = { 0 };
	struct train_result r;

	(void)state;
	write_line_data();
	for (int k = 0; k < 3; k++) {
		struct linnet_model *m = model_of(line);
		struct train_opt o = options();

		o.optimizer = (enum optimizer)k;
		o.momentum = 0.5;
		o.clip = 10;
		o.accumulate = k == 1 ? 2 : 1;
		o.steps = 400;
		if (run(m, &o, "line.npz", "line.npz", &r, &e))
			fail_msg("%s", e.message);
		assert_int_equal(r.weights, 2);
		assert_int_equal(r.parameters, 3);
		assert_true(r.held_out < 1e-5);
		assert_true(fabs(tensor_get(weight_of(m, "weight"), 0) - 2) < 0.01);
		assert_true(fabs(tensor_get(weight_of(m, "weight"), 1) + 1) < 0.01);
		assert_true(fabs(tensor_get(weight_of(m, "bias"), 0) - 0.5) < 0.01);
		model_free(m);
	}
}

/* sgd's first step moves each weight by its own rate times its gradient; a rate of 0 by nothing. */
static void weights_have_rates_of_their_own(void **state)
{
	struct linnet_error e = { 0 };
	struct train_opt o = options();
	struct train_result r;
	double moved[2][2];

	(void)state;
	write_line_data();
	o.optimizer = OPTIMIZER_SGD;
	o.schedule = SCHEDULE_CONSTANT;
	o.steps = 1;
	for (int k = 0; k < 2; k++) {
		struct linnet_model *m = model_of(line);

		o.rates = (struct train_rate[]){ { "wei*", 0.02 }, { "*", 0 }, { "*", 7 } };
		o.nrates = k ? 3 : 0;
		if (run(m, &o, "line.npz", NULL, &r, &e))
			fail_msg("%s", e.message);
		moved[k][0] = tensor_get(weight_of(m, "weight"), 0);
		moved[k][1] = tensor_get(weight_of(m, "bias"), 0);
		model_free(m);
	}
	assert_true(moved[0][0] != 0 && moved[0][1] != 0);
	assert_true(fabs(moved[1][0] - moved[0][0] * 0.2) < 1e-6);
	assert_true(moved[1][1] == 0);
}

static void a_stream_is_learned(void **state)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_of(counter);
	struct train_opt o = options();
	struct train_result r;

	(void)state;
	write_tokens("tokens.bin", 400, 0);
	o.average = 0.5;
	if (run(m, &o, "tokens.bin", "tokens.bin", &r, &e))
		fail_msg("%s", e.message);
	assert_true(r.held_out < 0.05); /* from log 8 */
	assert_true(tensor_get(weight_of(m, "weight"), 3 * 8 + 4) > 2);
	assert_int_equal(m->graph->nout, 1); /* the model is what it was but for its weights */
	model_free(m);
}

/* Stopped after any step and begun again, or on more threads, it ends in the same bits. */
static void runs_end_in_the_same_bits(void **state)
{
	struct linnet_error e = { 0 };
	struct linnet_model *whole = model_of(counter);
	struct train_opt o = options();
	struct train_result r;

	(void)state;
	write_tokens("tokens.bin", 400, 0);
	o.steps = 12;
	o.average = 0.9;
	assert_false(run(whole, &o, "tokens.bin", "tokens.bin", &r, &e));
	for (int stop = 2; stop < 12; stop += 4) {
		struct linnet_model *m = model_of(counter);
		char checkpoint[200];

		snprintf(checkpoint, sizeof checkpoint, "%s", path("run.npz"));
		o.checkpoint = checkpoint;
		unlink(checkpoint);
		o.keep = 1;
		o.stop_at = stop;
		o.threads = 2;
		assert_false(run(m, &o, "tokens.bin", "tokens.bin", &r, &e));
		assert_int_equal(r.step, stop);
		assert_false(r.resumed);
		model_free(m);
		m = model_of(counter);
		o.stop_at = 0;
		assert_false(run(m, &o, "tokens.bin", "tokens.bin", &r, &e));
		assert_true(r.resumed);
		assert_int_equal(r.step, 12);
		assert_true(tensor_same(weight_of(m, "weight"), weight_of(whole, "weight")));
		model_free(m);
	}
	struct linnet_model *m = model_of(counter);

	o.checkpoint = path("run.npz");
	o.batch = 4;
	assert_int_equal(run(m, &o, "tokens.bin", NULL, &r, &e), LINNET_EUSAGE);
	assert_string_equal(e.message, "the checkpoint was made with batch 8; this run has 4");
	model_free(m);
	model_free(whole);
}

/* The number of steps follows the seconds, whatever was guessed, and a run that goes on keeps what it had found. */
static void seconds_bound_the_steps(void **state)
{
	static const struct { double seconds; int64_t guess, stop, steps, again; } cases[] = {
		{ 1e-9, 500, 0, 2, 2 }, /* the first step's time is all there is to go by */
		{ 1e9, 2, 7, 7, 8 }, /* goes on from the checkpoint of step 6 */
		{ 0, 3, 0, 3, 3 },
	};
	struct linnet_error e = { 0 };
	struct train_result r;

	(void)state;
	write_tokens("tokens.bin", 400, 0);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct linnet_model *m = model_of(counter);
		struct train_opt o = options();
		char checkpoint[200];

		snprintf(checkpoint, sizeof checkpoint, "%s", path("seconds.npz"));
		unlink(checkpoint);
		o.checkpoint = checkpoint;
		o.keep = 1;
		o.seconds = cases[i].seconds;
		o.steps = cases[i].guess;
		o.stop_at = cases[i].stop;
		assert_false(run(m, &o, "tokens.bin", NULL, &r, &e));
		assert_int_equal(r.step, cases[i].steps);
		assert_true(o.steps == cases[i].guess); /* the caller's */
		o.stop_at = 0;
		o.seconds = cases[i].seconds > 0 ? 1e-9 : 0; /* which the steps before took already */
		o.steps = cases[i].steps;
		assert_false(run(m, &o, "tokens.bin", NULL, &r, &e));
		assert_int_equal(r.step, cases[i].again);
		model_free(m);
	}
}

/* What is computed again for less memory is the same. */
static void less_memory_gives_the_same_bits(void **state)
{
	enum { LAYERS = 24 };
	struct linnet_error e = { 0 };
	struct train_opt o = options();
	struct train_result r;
	struct linnet_model *m[2];
	char text[8000];
	size_t n;

	(void)state;
	write_line_data();
	n = (size_t)snprintf(text, sizeof text, "%s", HEAD "deep (float[N,2] x, float[N,1] y) => (float loss) <");
	for (int i = 0; i < LAYERS; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, "%sfloat[1,8] weight%d = {1, 0.5, 2, 0.25, 1, 3, 0.75, 1}", i ? ", " : "", i);
	n += (size_t)snprintf(text + n, sizeof text - n, "> {\n a = ReduceSum (x)\n s = Constant <value = int64[2] {512, 8}> ()\n h0 = Expand (a, s)\n");
	for (int i = 0; i < LAYERS; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, " p%d = Mul (h%d, weight%d)\n q%d = Sin (p%d)\n h%d = Add (q%d, h%d)\n", i, i, i, i, i, i + 1, i, i);
	snprintf(text + n, sizeof text - n, " d = Sub (h%d, y)\n t = Mul (d, d)\n loss = ReduceMean <keepdims = 0> (t) }", LAYERS);
	o.steps = 5;
	o.rate = 0.01;
	o.batch = 1;
	for (int i = 0; i < 2; i++) {
		m[i] = model_of(text);
		o.memory = i ? r.peak / 2 : 0;
		if (run(m[i], &o, "line.npz", NULL, &r, &e))
			fail_msg("%s", e.message);
		assert_true(i ? r.segments > 0 && r.peak <= o.memory : r.segments == 0);
	}
	for (int i = 0; i < LAYERS; i++) {
		char name[20];

		snprintf(name, sizeof name, "weight%d", i);
		assert_true(tensor_same(weight_of(m[0], name), weight_of(m[1], name)));
	}
	model_free(m[0]);
	model_free(m[1]);
	m[0] = model_of(text);
	o.memory = 1000;
	assert_int_equal(run(m[0], &o, "line.npz", NULL, &r, &e), LINNET_ELIMIT);
	model_free(m[0]);
}

/* One number x = 1, gradients 0.5 and then -0.25; what PyTorch's optimizers make of it, by their formulas. */
static void steps_are_the_formulas(void **state)
{
	float x, g, m, v;
	struct arena *a = arena_new();
	struct tensor *t;
	struct train_opt o = options();

	(void)state;
	assert_false(tensor_new(a, DT_FLOAT, 1, (int64_t[]){ 1 }, &t, NULL));
	o.schedule = SCHEDULE_CONSTANT;
	o.decay = 0.1;
	for (int k = 0; k < 3; k++) {
		struct weight w = { .t = t, .grad = &g, .first = &m, .second = &v, .rate = o.rate, .decays = true };
		double y = 1, mm = 0, vv = 0;

		o.optimizer = (enum optimizer)k;
		o.momentum = 0.9;
		tensor_put(t, 0, 1);
		m = v = 0;
		for (int step = 1; step <= 2; step++) {
			double d = step == 1 ? 0.5 : -0.25;

			g = (float)d * 2;
			weights_step(&o, &w, 1, step, 0.5);
			if (k == OPTIMIZER_SGD) {
				mm = 0.9 * mm + d + 0.1 * y;
				y -= 0.1 * mm;
				continue;
			}
			d += k == OPTIMIZER_ADAM ? 0.1 * y : 0;
			y *= k == OPTIMIZER_ADAMW ? 1 - 0.1 * 0.1 : 1;
			mm = 0.9 * mm + 0.1 * d;
			vv = 0.99 * vv + 0.01 * d * d;
			y -= 0.1 * (mm / (1 - pow(0.9, step))) / (sqrt(vv / (1 - pow(0.99, step))) + 1e-8);
		}
		x = (float)tensor_get(t, 0);
		assert_true(fabs((double)x - y) < 1e-6);
	}
	arena_free(a);
}

static void rates_follow_their_schedule(void **state)
{
	struct train_opt o = options();

	(void)state;
	o.warmup = 10;
	o.steps = 110;
	o.rate = 1;
	assert_true(fabs(rate_at(&o, o.rate, 5) - 0.5) < 1e-12);
	assert_true(fabs(rate_at(&o, o.rate, 10) - 1) < 1e-12);
	assert_true(fabs(rate_at(&o, o.rate, 60) - 0.55) < 1e-12); /* cosine: half-way between 1 and 0.1 */
	assert_true(fabs(rate_at(&o, o.rate, 110) - 0.1) < 1e-12);
	o.schedule = SCHEDULE_LINEAR;
	assert_true(fabs(rate_at(&o, o.rate, 35) - 0.775) < 1e-12);
}

/* Each epoch holds every window once, in an order of its own. */
static void samples_come_once_an_epoch(void **state)
{
	struct linnet_error e = { 0 };
	struct train_data *d;
	int64_t n, first[2] = { 0 };

	(void)state;
	write_tokens("tokens.bin", 43, 0);
	assert_false(data_new(&d, &e));
	assert_false(data_add(d, NULL, path("tokens.bin"), &e));
	assert_false(data_samples(d, 4, &n, &e));
	assert_int_equal(n, 10);
	for (int epoch = 0; epoch < 2; epoch++) {
		bool seen[10] = { false };

		for (int i = 0; i < 10; i++) {
			int64_t at;

			assert_false(data_sample(d, 4, 5, true, epoch * 10 + i, &at, &e));
			assert_true(at >= 0 && at + 4 < 43);
			assert_false(seen[at / 4]);
			seen[at / 4] = true;
			first[epoch] = first[epoch] * 10 + at / 4;
		}
	}
	assert_int_not_equal(first[0], first[1]);
	data_free(d);
}

/* Files of a folder follow each other by name; windows cross from one to the next. */
static void folders_are_one_series(void **state)
{
	struct linnet_error e = { 0 };
	static const int all[] = { 0, 1, 2, 0, 1, 2, 3, 4, 7, 6, 5, 4 };
	static const char *const made[] = { "many", "pieces", "empty" };
	struct train_data *d;
	struct arena *a = arena_new();
	struct tensor *t, *out;
	int64_t n, at;

	(void)state;
	mkdir(path("many"), 0755);
	write_tokens("many/b.bin", 5, 0);
	write_tokens("many/a.bin", 3, 0);
	write_tokens("many/notes.txt", 3, 0);
	assert_false(tensor_new(a, DT_INT64, 1, (int64_t[]){ 4 }, &t, NULL));
	for (int64_t i = 0; i < 4; i++)
		tensor_put_int(t, i, 7 - i);
	assert_false(npy_save(path("many/c.npy"), t, NULL));
	assert_false(data_new(&d, &e));
	assert_false(data_add(d, NULL, path("many"), &e));
	assert_false(data_samples(d, 4, &n, &e));
	assert_int_equal(n, 2);
	assert_false(tensor_new(a, DT_INT32, 1, (int64_t[]){ 12 }, &out, NULL));
	data_tokens(d, 0, 12, out, 0);
	for (int64_t i = 0; i < 12; i++)
		assert_int_equal(tensor_get_int(out, i), all[i]);
	data_free(d);
	mkdir(path("pieces"), 0755);
	for (int k = 0; k < 2; k++) {
		struct tensor *x, *y;

		assert_false(tensor_new(a, DT_FLOAT, 2, (int64_t[]){ 2 + k, 2 }, &x, NULL));
		assert_false(tensor_new(a, DT_FLOAT, 2, (int64_t[]){ 2 + k, 1 }, &y, NULL));
		tensor_put(y, 1 + k, 5 + k);
		assert_false(npz_save(path(k ? "pieces/1.npz" : "pieces/0.npz"), (struct named_tensor[]){ { "x", x }, { "y", y } }, 2, NULL));
	}
	assert_false(data_new(&d, &e));
	assert_false(data_add(d, NULL, path("pieces"), &e));
	assert_false(data_samples(d, 4, &n, &e));
	assert_int_equal(n, 5);
	assert_true(tensor_get(series_part(data_array(d, "y"), 1)->t, 1) == 5);
	assert_true(tensor_get(series_part(data_array(d, "y"), 4)->t, 4 - series_part(data_array(d, "y"), 4)->from) == 6);
	assert_int_equal(data_add(d, NULL, path("many"), &e), LINNET_EUSAGE);
	assert_string_equal(e.message, "a stream of tokens stands alone");
	data_free(d);
	mkdir(path("empty"), 0755);
	e = (struct linnet_error){ 0 };
	assert_false(data_new(&d, &e));
	assert_int_equal(data_add(d, NULL, path("empty"), &e), LINNET_EFORMAT);
	assert_string_equal(e.message, "the folder has no .npy, .npz or .bin file");
	assert_int_equal(data_sample(d, 4, 1, true, 0, &at, NULL), LINNET_EUSAGE);
	data_free(d);
	for (int k = 0; k < 3; k++) {
		struct folder inner;

		snprintf(inner.path, sizeof inner.path, "%s", path(made[k]));
		folder_remove(&inner);
	}
	arena_free(a);
}

/* Shards have no sample in common and all of them together. */
static void shards_share_the_samples(void **state)
{
	struct linnet_error e = { 0 };
	bool seen[10] = { false };

	(void)state;
	write_tokens("tokens.bin", 43, 0);
	for (int k = 0; k < 3; k++) {
		struct train_data *d;
		int64_t n, at;

		assert_false(data_new(&d, &e));
		assert_false(data_add(d, NULL, path("tokens.bin"), &e));
		assert_false(data_shard(d, k, 3, &e));
		assert_false(data_samples(d, 4, &n, &e));
		assert_int_equal(n, k ? 3 : 4);
		for (int i = 0; i < n; i++) {
			assert_false(data_sample(d, 4, 5, true, i, &at, &e));
			assert_int_equal(at / 4 % 3, k);
			assert_false(seen[at / 4]);
			seen[at / 4] = true;
		}
		data_free(d);
	}
	for (int i = 0; i < 10; i++)
		assert_true(seen[i]);
}

/* Once for certain, however fast it is; the other times it dies where it happens to be. */
static int die(void *ctx, const struct train_event *ev)
{
	(void)ctx;
	return ev->step == 40 && raise(SIGKILL);
}

/* Killed at moments that nobody chose, and begun again each time, a run ends in the bits of one that was not. */
static void a_killed_run_ends_in_the_same_bits(void **state)
{
	struct linnet_error e = { 0 };
	struct linnet_model *whole = model_of(counter);
	struct train_opt o = options();
	struct train_result r;
	struct rng rng = { 11 };
	char checkpoint[256], end[256];
	struct named_tensor *list;
	struct arena *a = arena_new();
	int status, n, kills = 0;

	(void)state;
	write_tokens("tokens.bin", 400, 0);
	o.steps = 150;
	o.average = 0.9;
	o.evaluate = 7;
	o.patience = 100;
	assert_false(run(whole, &o, "tokens.bin", "tokens.bin", &r, &e));
	snprintf(checkpoint, sizeof checkpoint, "%s", path("killed.npz"));
	snprintf(end, sizeof end, "%s", path("end.npy"));
	o.checkpoint = checkpoint;
	o.keep = 1;
	for (int tries = 0;; tries++) {
		pid_t child = fork();

		if (!child) {
			struct linnet_model *m = model_of(counter);

			each_step = tries ? NULL : die;
			if (run(m, &o, "tokens.bin", "tokens.bin", &r, &e) || npy_save(end, weight_of(m, "weight"), &e))
				_exit(1);
			_exit(0);
		}
		assert_true(child > 0);
		if (tries < 12) {
			uint64_t wait = 20000000 + rng_below(&rng, 80000000);

			nanosleep(&(struct timespec){ .tv_nsec = (long)wait }, NULL);
			kill(child, SIGKILL);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		if (WIFEXITED(status))
			break;
		kills++;
	}
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_true(kills > 0);
	assert_false(data_load(end, DT_UNDEFINED, NULL, a, &list, &n, &e));
	assert_true(tensor_same(list[0].t, weight_of(whole, "weight")));
	arena_free(a);
	model_free(whole);
}

/* The best evaluation's weights are kept when a run stops early: those it had `patience` evaluations before. */
static void the_best_weights_are_kept(void **state)
{
	struct linnet_error e = { 0 };
	struct linnet_model *stopped = model_of(line), *shorter = model_of(line);
	struct train_opt o = options();
	struct train_result r;

	(void)state;
	write_line_data();
	o.optimizer = OPTIMIZER_SGD;
	o.schedule = SCHEDULE_CONSTANT;
	o.rate = 1.2; /* overshoots */
	o.momentum = 0.9;
	o.evaluate = 1;
	o.patience = 3;
	assert_false(run(stopped, &o, "line.npz", "line.npz", &r, &e));
	assert_true(r.stopped && r.step > 3 && r.step < o.steps);
	o.steps = r.step - 3;
	o.patience = 0;
	assert_false(run(shorter, &o, "line.npz", NULL, &r, &e));
	assert_true(tensor_same(weight_of(stopped, "weight"), weight_of(shorter, "weight")));
	model_free(stopped);
	model_free(shorter);
}

/* Nothing of a run that diverges is written over the last good state, which a gentler run goes on from. */
static void divergence_leaves_a_good_checkpoint(void **state)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m;
	struct train_opt o = options();
	struct train_result r;
	char checkpoint[256], message[600];

	(void)state;
	write_line_data();
	snprintf(checkpoint, sizeof checkpoint, "%s", path("diverged.npz"));
	o.checkpoint = checkpoint;
	o.keep = 1;
	o.optimizer = OPTIMIZER_SGD;
	o.schedule = SCHEDULE_CONSTANT;
	o.steps = 5;
	m = model_of(line);
	assert_false(run(m, &o, "line.npz", NULL, &r, &e));
	model_free(m);
	o.steps = 200;
	for (int k = 0; k < 2; k++) {
		o.rate = k ? 1e30 : 1.6; /* at once, or growing */
		o.explode = 4;
		e = (struct linnet_error){ 0 };
		m = model_of(line);
		assert_int_equal(run(m, &o, "line.npz", NULL, &r, &e), LINNET_EVALUE);
		snprintf(message, sizeof message, "%s holds step ", checkpoint);
		if (!strstr(e.message, message) || !strstr(e.message, "the last good one"))
			fail_msg("%s", e.message);
		assert_true(k || strstr(e.message, "for 10 steps"));
		model_free(m);
	}
	o.rate = 0.05;
	m = model_of(line);
	e = (struct linnet_error){ 0 };
	assert_false(run(m, &o, "line.npz", "line.npz", &r, &e));
	assert_true(r.resumed);
	assert_true(r.held_out < 1e-3);
	model_free(m);
}

static void refuses(const char *text, const char *file, const struct train_opt *o, enum linnet_code code, const char *message)
{
	struct linnet_error e = { 0 };
	struct linnet_model *m = model_of(text);
	struct train_result r;

	assert_int_equal(run(m, o, file, NULL, &r, &e), code);
	assert_string_equal(e.message, message);
	model_free(m);
}

static void wrong_data_is_one_clear_line(void **state)
{
	struct train_opt o = options();
	struct arena *a = arena_new();
	struct tensor *t, *y;

	(void)state;
	assert_false(tensor_new(a, DT_FLOAT, 2, (int64_t[]){ 7, 1 }, &y, NULL));
	write_tokens("tokens.bin", 40, 9);
	refuses(counter, "tokens.bin", &o, LINNET_EVALUE, "token 9, number 20, is beyond the vocabulary of 8");
	write_tokens("tokens.bin", 0, 0);
	refuses(counter, "tokens.bin", &o, LINNET_EFORMAT, "the file is empty");
	write_tokens("tokens.bin", 3, 0);
	refuses(counter, "tokens.bin", &o, LINNET_ESHAPE, "3 tokens are fewer than a window of 4 and the one behind it");
	write_tokens("tokens.bin", 40, 0);
	refuses(line, "tokens.bin", &o, LINNET_EMODEL, "the model has no output of logits, [batch, tokens, vocabulary]; data that is a stream of tokens is "
	                                               "for language models");
	assert_false(tensor_new(a, DT_FLOAT, 2, (int64_t[]){ 8, 3 }, &t, NULL));
	memset(t->data, 0, t->bytes);
	assert_false(npz_save(path("wrong.npz"), (struct named_tensor[]){ { "x", t }, { "y", t } }, 2, NULL));
	refuses(line, "wrong.npz", &o, LINNET_ESHAPE, "input \"x\" has length 2 along axis 1; the data has 3");
	assert_false(npz_save(path("wrong.npz"), (struct named_tensor[]){ { "x", t }, { "y", y } }, 2, NULL));
	refuses(line, "wrong.npz", &o, LINNET_ESHAPE, "\"y\" has 7 samples; \"x\" has 8");
	assert_false(npz_save(path("wrong.npz"), (struct named_tensor[]){ { "z", t } }, 1, NULL));
	refuses(line, "wrong.npz", &o, LINNET_EMODEL, "there is no data for input \"x\"");
	write_line_data();
	o.rate = 1e30;
	o.optimizer = OPTIMIZER_SGD;
	refuses(line, "line.npz", &o, LINNET_EVALUE, "the loss is inf at step 2; no checkpoint was kept");
	o = options();
	o.weight = (const char *const[]){ "w[0-9]" };
	o.nweight = 1;
	refuses(line, "line.npz", &o, LINNET_EMODEL, "no constant of floats is named \"w[0-9]\"");
	o = options();
	o.rates = (struct train_rate[]){ { "map*", 1 } };
	o.nrates = 1;
	refuses(line, "line.npz", &o, LINNET_EMODEL, "a rate is given for \"map*\", which no trained weight is named");
	o = options();
	o.loss = "score";
	refuses(line, "line.npz", &o, LINNET_EMODEL, "there is no value \"score\" to be the loss");
	arena_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_found), cmocka_unit_test(weights_have_rates_of_their_own),
		cmocka_unit_test(a_stream_is_learned), cmocka_unit_test(runs_end_in_the_same_bits),
		cmocka_unit_test(less_memory_gives_the_same_bits), cmocka_unit_test(seconds_bound_the_steps), cmocka_unit_test(steps_are_the_formulas),
		 cmocka_unit_test(rates_follow_their_schedule),
		cmocka_unit_test(samples_come_once_an_epoch), cmocka_unit_test(folders_are_one_series), cmocka_unit_test(shards_share_the_samples),
		cmocka_unit_test(a_killed_run_ends_in_the_same_bits), cmocka_unit_test(the_best_weights_are_kept),
		cmocka_unit_test(divergence_leaves_a_good_checkpoint), cmocka_unit_test(wrong_data_is_one_clear_line),
	};

	return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
