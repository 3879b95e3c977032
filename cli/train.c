/* linnet train: move a model's weights along the gradient of its loss. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/curve.h"
#include "cli/model.h"
#include "cli/mpi.h"
#include "ops/base/thread.h"
#include "train/train.h"

struct train_cli {
	struct opt_list data, held_out, weights, no_decay, rates;
	const char *loss, *output, *optimizer, *schedule, *checkpoint, *log, *curve, *shard;
	double explode, rate_end, beta1, beta2, epsilon, momentum, decay, clip, average, minutes;
	int64_t steps, warmup, batch, accumulate, length, evaluate, keep, patience, seed, threads, stop_at, memory;
	bool external, mpi, mixed;
};

/* What is shown and logged while it runs. */
struct watch {
	const struct train_cli *o;
	FILE *log;
	struct curve *curve;
	double seconds;
	int64_t tokens;      /* when the last line was printed */
	int64_t from, first; /* steps and tokens before this run's first */
	bool begun;
	int status;
};

static json_t *event_json(const struct train_event *ev)
{
	json_t *j = json_pack("{s:I, s:I, s:f, s:f, s:f, s:f}", "step", (json_int_t)ev->step, "tokens", (json_int_t)ev->tokens, "loss", ev->loss,
	                      "rate", ev->rate, "norm", ev->norm, "seconds", ev->seconds);

	if (ev->evaluated)
		json_object_set_new(j, "held_out", json_real(ev->held_out));
	return j;
}

/* The steps before the run's first stand in the log it is appended to. */
static enum linnet_code begin(struct watch *w, const struct train_event *ev, struct linnet_error *e)
{
	w->begun = true;
	w->from = ev->step - 1;
	w->first = w->tokens = ev->tokens / ev->step * w->from;
	return w->curve && w->log && w->from ? curve_read(w->curve, w->o->log, ev->step, e) : LINNET_OK;
}

static enum linnet_code keep_event(struct watch *w, const struct train_event *ev, struct linnet_error *e)
{
	if (!w->begun)
		TRY(begin(w, ev, e));
	if (w->log) {
		json_t *j = event_json(ev);

		json_dumpf(j, w->log, JSON_COMPACT | JSON_REAL_PRECISION(9));
		fputc('\n', w->log);
		json_decref(j);
		if (fflush(w->log))
			return err_file(e, fail(e, LINNET_EIO, "the log cannot be written"), w->o->log);
	}
	return w->curve ? curve_add(w->curve, (struct curve_point){ ev->step, ev->loss, ev->evaluated ? ev->held_out : NAN }, e) : LINNET_OK;
}

static int show_event(void *ctx, const struct train_event *ev)
{
	struct watch *w = ctx;
	double span = ev->seconds - w->seconds;
	int64_t left = ev->steps - ev->step;
	struct linnet_error e = { 0 };
	char time[40], line[160];

	if (keep_event(w, ev, &e)) {
		w->status = report_error(&e);
		return 1;
	}
	if (globals.json) {
		json_line(event_json(ev), "step");
		return 0;
	}
	snprintf(line, sizeof line, "loss %.4f, %.0f a second, %s left", ev->loss, (double)(ev->tokens - w->first) / ev->seconds,
	         human_seconds(ev->seconds / (double)(ev->step - w->from) * (double)left, time, sizeof time));
	progress(line, ev->step, ev->steps);
	if (globals.quiet || (!ev->evaluated && left && span < 10))
		return 0;
	progress_end();
	printf("step %lld  loss %.4f", (long long)ev->step, ev->loss);
	if (ev->evaluated)
		printf("  held out %.4f (e^x %.2f)", ev->held_out, exp(ev->held_out));
	printf("  rate %.2e  norm %.3f  %.0f a second\n", ev->rate, ev->norm, (double)(ev->tokens - w->tokens) / (span > 0 ? span : 1));
	fflush(stdout);
	w->seconds = ev->seconds;
	w->tokens = ev->tokens;
	return 0;
}

static int usage(const char *what)
{
	fprintf(stderr, "linnet: %s; see linnet train --help\n", what);
	return EXIT_USAGE;
}

/* X, the peak of all weights, or PATTERN=X, of those of that name. */
static bool fill_rates(const struct opt_list *list, struct arena *a, struct train_opt *t)
{
	struct train_rate *r = NEW(a, (size_t)list->n + 1, struct train_rate);

	t->rates = r;
	for (int i = 0; r && i < list->n; i++) {
		const char *at = strrchr(list->v[i], '='), *number = at ? at + 1 : list->v[i];
		char *end;
		double x = strtod(number, &end);

		if (end == number || *end || !(x >= 0) || !isfinite(x) || (!at && x == 0))
			return false;
		if (!at)
			t->rate = x;
		else if (!(r[t->nrates].pattern = arena_strn(a, list->v[i], (size_t)(at - list->v[i]))))
			return false;
		else
			r[t->nrates++].rate = x;
	}
	return r;
}

/* I/N */
static bool read_shard(const char *text, int64_t *shard, int64_t *shards)
{
	char *end;

	*shard = strtoll(text, &end, 10);
	*shards = end != text && *end == '/' ? strtoll(end + 1, &end, 10) : 0;
	return !*end && *shard >= 0 && *shard < *shards;
}

static bool fill_options(const struct train_cli *o, struct train_opt *t)
{
	static const char *const usual[] = { "*weight*", "*bias*" };

	*t = (struct train_opt){ .loss = o->loss, .weight = o->weights.n ? o->weights.v : usual, .nweight = o->weights.n ? o->weights.n : 2,
	                         .no_decay = o->no_decay.v, .nno_decay = o->no_decay.n, .rate = 1e-3, .rate_end = o->rate_end,
	                         .beta1 = o->beta1, .beta2 = o->beta2, .epsilon = o->epsilon, .momentum = o->momentum, .decay = o->decay,
	                         .clip = o->clip, .average = o->average, .steps = o->steps, .seconds = 60 * o->minutes, .warmup = o->warmup, .batch = o->batch,
	                         .accumulate = o->accumulate, .length = o->length, .evaluate = o->evaluate, .keep = o->keep,
	                         .patience = o->patience, .explode = o->explode, .stop_at = o->stop_at,
	                         .memory = o->memory << 20, .seed = (uint64_t)o->seed, .threads = (int)o->threads,
	                         .mixed = o->mixed, .checkpoint = o->checkpoint };
	t->optimizer = !strcmp(o->optimizer, "adam") ? OPTIMIZER_ADAM : !strcmp(o->optimizer, "sgd") ? OPTIMIZER_SGD : OPTIMIZER_ADAMW;
	t->schedule = !strcmp(o->schedule, "linear") ? SCHEDULE_LINEAR : !strcmp(o->schedule, "constant") ? SCHEDULE_CONSTANT : SCHEDULE_COSINE;
	return o->steps > 0 && o->minutes >= 0 && o->batch > 0 && o->batch < 1 << 20 && o->accumulate > 0 && o->length > 0 && o->length < 1 << 24 && o->warmup >= 0 &&
	       o->memory >= 0 && o->memory < 1 << 30 && o->evaluate >= 0 && o->keep >= 0 && o->patience >= 0 && o->threads >= 0 && o->threads < 4096 && o->rate_end >= 0 &&
	       o->explode >= 0 && o->average >= 0 && o->average < 1 && o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1 && o->clip >= 0;
}

/* The processors of a machine are shared by the processes on it, and the first process alone tells of the run. */
static enum linnet_code join(struct train_opt *t, struct reduce *r, struct arena *a, struct linnet_error *e)
{
	int local;

	TRY(mpi_begin(a, r, &local, e));
	t->reduce = r;
	if (!t->threads)
		t->threads = thread_default() / local > 1 ? thread_default() / local : 1;
	globals.quiet = globals.quiet || r->rank;
	globals.json = globals.json && !r->rank;
	return LINNET_OK;
}

static int train_run(void *opt, int argc, char **argv)
{
	const struct train_cli *o = opt;
	struct watch w = { .o = o };
	struct train_opt t;
	struct train_result r = { 0 };
	struct train_data *data = NULL, *held = NULL;
	struct linnet_error e = { 0 };
	struct linnet_model *m;
	struct curve curve;
	struct reduce reduce = { .size = 1 };
	enum linnet_code code;
	int64_t shard = 0, shards = 1;
	int status;

	(void)argc;
	if (!o->output || !o->data.n)
		return usage("train needs one MODEL, --data and -o FILE");
	if (!fill_options(o, &t))
		return usage("a number is out of its range");
	if (o->shard && !read_shard(o->shard, &shard, &shards))
		return usage("a shard is I/N, I from 0 to N - 1");
	status = open_model(argv[0], &m);
	if (status)
		return status;
	curve = (struct curve){ .name = o->output, .a = m->arena };
	w.curve = o->curve ? &curve : NULL;
	if (!fill_rates(&o->rates, m->arena, &t)) {
		model_free(m);
		return usage("a rate is X or PATTERN=X");
	}
	code = o->mpi ? join(&t, &reduce, m->arena, &e) : LINNET_OK;
	if (!code)
		code = data_open(o->data.v, o->data.n, &data, &e);
	if (!code)
		code = data_shard(data, shard, shards, &e);
	if (!code)
		code = data_open(o->held_out.v, o->held_out.n, &held, &e);
	if (!code && o->log && !reduce.rank && !(w.log = fopen(o->log, "a")))
		code = err_file(&e, fail(&e, LINNET_EIO, "the log cannot be written"), o->log);
	if (!code)
		code = train(m, &t, data, held, show_event, &w, &r, &e);
	progress_end();
	if (w.log)
		fclose(w.log);
	if (curve.n && !reduce.rank && curve_draw(&curve, 1, o->curve, code ? NULL : &e) && !code)
		code = e.code;
	if (w.status) {
		status = w.status;
	} else if (code) {
		err_file(&e, code, argv[0]);
		status = report_error(&e);
	} else if (!reduce.rank) {
		status = save_model(m, 0, o->external, argv[0], o->output);
	}
	if (o->mpi && !status)
		mpi_end();
	if (status || reduce.rank) {
		/* it was told */
	} else if (globals.json) {
		json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:i, s:f, s:b, s:b}", "file", o->output, "steps", (json_int_t)r.step, "weights",
		                      (json_int_t)r.weights, "parameters", (json_int_t)r.parameters, "peak_bytes", (json_int_t)r.peak, "segments",
		                      r.segments, "loss", r.loss, "stopped", r.stopped,
		                      "resumed", r.resumed);

		if (!isnan(r.held_out))
			json_object_set_new(j, "held_out", json_real(r.held_out));
		json_line(j, "train");
	} else if (!globals.quiet) {
		char bytes[40];

		printf("%s  %lld weights, %lld numbers, %lld steps%s; %s of activations", o->output, (long long)r.weights, (long long)r.parameters,
		       (long long)r.step, r.stopped ? ", stopped early" : "", human_bytes(r.peak, bytes, sizeof bytes));
		printf(r.segments ? ", computed again in %d segments\n" : "\n", r.segments);
	}
	data_free(data);
	data_free(held);
	model_free(m);
	return status;
}

static const struct train_cli defaults = { .optimizer = "adamw", .schedule = "cosine", .rate_end = 0.1, .beta1 = 0.9,
	                                   .beta2 = 0.999, .epsilon = 1e-8, .momentum = 0.9, .decay = 0.01, .clip = 1, .steps = 1000,
	                                   .explode = 4, .batch = 8, .accumulate = 1, .length = 256, .seed = 1 };

const struct command train_command = {
	.name = "train",
	.summary = "Train a model's weights",
	.operands = "MODEL --data FILE -o FILE",
	.details =
		"Moves the weights along the gradient of a loss. Data is a stream of tokens, in an .npy file or as 16-bit integers in a .bin file: the\n"
		"loss is then the cross-entropy of the next token by the model's logits, over windows of --length tokens; or arrays of samples for\n"
		"the inputs by name, NAME=FILE or an .npz, for a model with a loss among its outputs. Same data, options and seed give the same bits on\n"
		"any number of threads. With --mpi each of n processes takes every n-th batch, and a step is of all of them, as --accumulate n is of one\n"
		"process. A folder stands for its .npy, .npz and .bin files in the order of their names. With --checkpoint a run that was killed goes on where the last checkpoint was, to the same bits.",
	.examples = "linnet train model.onnx --data train.npy --held-out valid.npy --steps 2000 -o trained.onnx\n"
	            "linnet train net.onnx --loss loss --data x=x.npy --data labels=y.npy -o trained.onnx --checkpoint run.npz --keep 100",
	.opt = (const struct opt[]){
		{ "data", 'd', OPT_LIST, OPT(struct train_cli, data), "FILE", "a stream of tokens, an .npz, a folder of them, or NAME=FILE for one input", NULL },
		{ "shard", 0, OPT_STRING, OPT(struct train_cli, shard), "I/N", "only every N-th sample of the data, from the I-th on, counted from 0", NULL },
		{ "held-out", 0, OPT_LIST, OPT(struct train_cli, held_out), "FILE", "the same, to evaluate on", NULL },
		{ "output", 'o', OPT_STRING, OPT(struct train_cli, output), "FILE", "where to write the trained model", NULL },
		{ "loss", 0, OPT_STRING, OPT(struct train_cli, loss), "NAME", "the output that is the loss", NULL },
		{ "weights", 'w', OPT_LIST, OPT(struct train_cli, weights), "PATTERN", "what is trained, *weight* and *bias* by default", NULL },
		{ "no-decay", 0, OPT_LIST, OPT(struct train_cli, no_decay), "PATTERN", "weights that do not decay, besides vectors", NULL },
		{ "optimizer", 0, OPT_STRING, OPT(struct train_cli, optimizer), "NAME", "adamw by default", "adamw|adam|sgd" },
		{ "schedule", 0, OPT_STRING, OPT(struct train_cli, schedule), "NAME", "of the rate, cosine by default", "constant|cosine|linear" },
		{ "rate", 0, OPT_LIST, OPT(struct train_cli, rates), "X", "the learning rate's peak, 0.001 by default; PATTERN=X: of those weights", NULL },
		{ "rate-end", 0, OPT_REAL, OPT(struct train_cli, rate_end), "X", "share of it that is left at the end, 0.1 by default", NULL },
		{ "warmup", 0, OPT_INT, OPT(struct train_cli, warmup), "N", "steps until the peak", NULL },
		{ "steps", 0, OPT_INT, OPT(struct train_cli, steps), "N", "steps in all, 1000 by default", NULL },
		{ "minutes", 0, OPT_REAL, OPT(struct train_cli, minutes), "X", "instead of steps: as many as fit, set anew on the way by the time they take", NULL },
		{ "batch", 0, OPT_INT, OPT(struct train_cli, batch), "N", "samples a batch, 8 by default", NULL },
		{ "accumulate", 0, OPT_INT, OPT(struct train_cli, accumulate), "N", "batches a step, 1 by default", NULL },
		{ "length", 0, OPT_INT, OPT(struct train_cli, length), "N", "tokens a window, 256 by default", NULL },
		{ "decay", 0, OPT_REAL, OPT(struct train_cli, decay), "X", "weight decay, 0.01 by default", NULL },
		{ "beta1", 0, OPT_REAL, OPT(struct train_cli, beta1), "X", "of adam, 0.9 by default", NULL },
		{ "beta2", 0, OPT_REAL, OPT(struct train_cli, beta2), "X", "of adam, 0.999 by default", NULL },
		{ "epsilon", 0, OPT_REAL, OPT(struct train_cli, epsilon), "X", "of adam, 1e-8 by default", NULL },
		{ "momentum", 0, OPT_REAL, OPT(struct train_cli, momentum), "X", "of sgd, 0.9 by default", NULL },
		{ "clip", 0, OPT_REAL, OPT(struct train_cli, clip), "X", "largest norm of the gradients, 1 by default; 0: any", NULL },
		{ "average", 0, OPT_REAL, OPT(struct train_cli, average), "X", "keep an exponential moving average of the weights, 0.999 say", NULL },
		{ "evaluate", 0, OPT_INT, OPT(struct train_cli, evaluate), "N", "evaluate every N steps, else at the end", NULL },
		{ "patience", 0, OPT_INT, OPT(struct train_cli, patience), "N", "stop after N evaluations without a new best, whose weights are then kept", NULL },
		{ "explode", 0, OPT_REAL, OPT(struct train_cli, explode), "X", "stop when the loss is X times its lowest mean for 10 steps, 4 by default; 0: never", NULL },
		{ "checkpoint", 0, OPT_STRING, OPT(struct train_cli, checkpoint), "FILE", "an .npz to go on from, written at the end", NULL },
		{ "keep", 0, OPT_INT, OPT(struct train_cli, keep), "N", "and every N steps", NULL },
		{ "log", 0, OPT_STRING, OPT(struct train_cli, log), "FILE", "append one JSON object a step", NULL },
		{ "curve", 0, OPT_STRING, OPT(struct train_cli, curve), "FILE", "draw losses by step, .svg or .html; of earlier runs too, by the log", NULL },
		{ "seed", 0, OPT_INT, OPT(struct train_cli, seed), "N", "of the order of samples, 1 by default", NULL },
		{ "memory", 0, OPT_INT, OPT(struct train_cli, memory), "MIB", "for activations; beyond it, parts are computed again", NULL },
		{ "threads", 0, OPT_INT, OPT(struct train_cli, threads), "N", "threads, all processors by default", NULL },
		{ "mixed", 0, OPT_FLAG, OPT(struct train_cli, mixed), NULL, "factors of large matrix products as bfloat16, where the processor multiplies that; weights and sums stay in float32", NULL },
		{ "mpi", 0, OPT_FLAG, OPT(struct train_cli, mpi), NULL, "train together with the other processes that mpirun started", NULL },
		{ "external", 0, OPT_FLAG, OPT(struct train_cli, external), NULL, "weights in a file of their own", NULL },
		{ .name = NULL },
	},
	.min = 1,
	.max = 1,
	.size = sizeof(struct train_cli),
	.defaults = &defaults,
	.run = train_run,
};
