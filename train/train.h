/*
 * Training: a model's weights moved along the gradient of its loss, by steps whose bits depend on the data, the options and the seed alone.
 */
#ifndef LINNET_TRAIN_H
#define LINNET_TRAIN_H

#include "graph/graph.h"
#include "train/reduce.h"

/* ---- Data ---- */

/*
 * What batches are drawn of: arrays by the names of inputs, with the samples along the first axis; or one stream of tokens, of which samples are
 * windows of length + 1: the model's integer input gets all but the last, `labels` all but the first.
 */
struct train_data;

/*
 * file: .npy, .npz, or (tokens) integers of 16 bits, little-endian, without header; or a folder, whose files of these kinds are taken in the order of
 * their names. name: of the input, or NULL for a stream or the members of an .npz. What belongs to the same input, or to the stream, is
 * appended to what is there. Files are mapped and read where samples are drawn from; compressed members of an .npz are kept in memory.
 */
enum linnet_code data_new(struct train_data **out, struct linnet_error *e);
enum linnet_code data_add(struct train_data *d, const char *name, const char *file, struct linnet_error *e);
void data_free(struct train_data *d);

/* Of n files, each FILE or NAME=FILE; none: *d is NULL. After an error what *d has become is to be freed too. */
enum linnet_code data_open(const char *const *file, int n, struct train_data **d, struct linnet_error *e);

/* Only the samples number shard, shard + shards, ... of the data: for runs that share it. */
enum linnet_code data_shard(struct train_data *d, int64_t shard, int64_t shards, struct linnet_error *e);

/* ---- Options ---- */

enum optimizer { OPTIMIZER_ADAMW, OPTIMIZER_ADAM, OPTIMIZER_SGD };
enum schedule { SCHEDULE_CONSTANT, SCHEDULE_COSINE, SCHEDULE_LINEAR };

/* Steps with too large a loss until a run has diverged. */
enum { EXPLODED = 10 };

/* The peak of the rate of weights by a pattern of their names. */
struct train_rate {
	const char *pattern;
	double rate;
};

struct train_opt {
	const char *loss;          /* an output of one element; NULL: the model's only output, or, for a stream of tokens, the cross-entropy of
	                            * the next one by the model's logits */
	const char *const *weight; /* names, or patterns with * and ?, of the constants that are trained */
	int nweight;
	const char *const *no_decay; /* of those whose weights do not decay; besides, those of fewer than two axes do not */
	int nno_decay;
	enum optimizer optimizer;
	enum schedule schedule;
	double rate, rate_end;     /* of the peak and, as its share, of the end */
	const struct train_rate *rates; /* peaks of their own, by the same schedule: the first pattern that fits a weight counts; 0: it stays */
	int nrates;
	double beta1, beta2, epsilon, momentum, decay;
	double clip;               /* largest norm of all gradients; 0: any */
	double average;            /* of an exponential moving average of the weights, which is what is kept; 0: none */
	int64_t steps, warmup, batch, accumulate, length; /* length: tokens a window */
	double seconds;            /* that the run may take: `steps` is then a first guess, set anew at each sixteenth of them by the time they took; 0: any */
	int64_t evaluate, keep;    /* every so many steps; 0: at the end only, never */
	int64_t patience;          /* stop after so many evaluations without a new best, whose weights are then what is kept; 0: never */
	double explode;            /* stop when the loss is so many times its lowest mean for EXPLODED steps on end; 0: never */
	int64_t stop_at;           /* stop after that step, as if killed; 0: not. For tests */
	int64_t memory;            /* bytes of activations that a step may take: beyond, parts are computed again; 0: any */
	uint64_t seed;
	int threads;
	bool mixed;                /* steps round factors of large matrix products to bfloat16, where the processor multiplies that; weights, sums and
	                            * held-out losses stay in float32 */
	const char *checkpoint;    /* written every `keep` steps, when the next loss shows that they were good, and at the end; read when it is there; or NULL */
	const struct reduce *reduce; /* with other processes that train the same; NULL: alone */
};

/* One step, or one evaluation, that is done. */
struct train_event {
	int64_t step, tokens;     /* so far; tokens are samples where there is no stream */
	int64_t steps;            /* in all, as far as is known */
	double loss, rate, norm;  /* of the step's batch; of all gradients before clipping */
	bool evaluated;
	double held_out, best;    /* mean loss; NaN: none yet */
	double seconds;           /* since the run began */
};

struct train_result {
	int64_t step, weights, parameters;
	double loss, held_out;
	int64_t peak;             /* bytes of activations */
	int segments;             /* that the model was cut into for less memory; 0: not */
	bool stopped;             /* early, as `patience` has it */
	bool resumed;
};

/*
 * Train m's weights in place: the constants of m->graph get new contents, nothing else changes. held_out may be NULL. report may be NULL; a
 * nonzero answer stops the run after that step.
 *
 * Errors: LINNET_EMODEL there is no such loss, weight or input; LINNET_EVALUE a token beyond the vocabulary, or a loss that is
 * no number or explodes: the checkpoint is then the last good one; LINNET_ESHAPE data that does not fit an input;
 * LINNET_EUNSUPPORTED an operator without gradient.
 */
enum linnet_code train(struct linnet_model *m, const struct train_opt *opt, struct train_data *data, struct train_data *held_out,
                       int (*report)(void *ctx, const struct train_event *), void *ctx, struct train_result *out, struct linnet_error *e);

/*
 * What float outputs of the model are, without training: means over whole batches of the data in order, at most `most` of them (0: all). The
 * first is a scalar; of others all elements, one output behind the other.
 * Of opt: batch, length, threads, seed. Errors as above.
 */
enum linnet_code train_means(const struct linnet_model *m, const struct train_opt *opt, struct train_data *data, const char *const *output, int n,
                             int64_t most, double *mean, struct linnet_error *e);

#endif
