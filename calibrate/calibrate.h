/*
 * Calibration: a converted model's weights moved until it says what the softmax model says.
 *
 * In stages, as recipes have them. The teacher is the model as it was read, the student what the conversion makes of it; both lie in one graph
 * with a loss between them, which the trainer (train/train.h) moves weights along.
 */
#ifndef LINNET_CALIBRATE_H
#define LINNET_CALIBRATE_H

#include "converter/convert.h"
#include "train/train.h"

/* ---- Recipes, as data (recipes.c) ---- */

/* What is made small. */
enum stage_loss {
	LOSS_NONE,     /* no further stage */
	LOSS_TRANSFER, /* for each layer, on what the teacher's layers see: mean |y - y_soft|^2 / mean |y_soft|^2 of attention outputs */
	LOSS_WEIGHTS,  /* the same by the weights of pairs of tokens, where the mechanism has such: mean over rows of KL(teacher || student) */
	LOSS_FIT,      /* no steps: the output projections behind attention in closed form, to the teacher's projected outputs (fit.c); moves nothing else */
	LOSS_DISTIL,   /* for each logits output, KL(teacher || student); for others mean |y - y_soft|^2 / mean |y_soft|^2 */
	LOSS_TASK,     /* the next token's cross-entropy, or the loss that is an output of the model; where there is neither, LOSS_DISTIL's */
	LOSS_HYBRID    /* the loss that is an output of the model, where it has one, and half of LOSS_DISTIL's */
};

/* What is moved. */
enum stage_weights {
	WEIGHTS_NEW, /* the mechanism's parameters */
	WEIGHTS_LOW, /* and of every matrix of the model a product of low rank, merged at the end (LoRA) */
	WEIGHTS_ALL  /* and all matrices, norms, biases and embeddings of the model */
};

struct stage {
	const char *name;
	enum stage_loss loss;
	enum stage_weights weights;
	double rate;  /* peak, by AdamW */
	double share; /* of the budget */
};

/* Whether each layer is trained alone, on what the teacher's layers see. */
static inline bool stage_by_layer(const struct stage *s) { return s->loss >= LOSS_TRANSFER && s->loss <= LOSS_FIT; }

enum { MAX_STAGES = 3 };

struct recipe {
	const char *name, *doc, *source;
	const char *mechanism;  /* that it converts with */
	const char *norm, *fade; /* as convert_opt's; NULL: the mechanism's */
	int conv, window;
	int64_t features;
	struct stage stage[MAX_STAGES + 1]; /* ended by LOSS_NONE */
};

const struct recipe *recipe_at(int i); /* NULL behind the last */
const struct recipe *recipe_find(const char *name);

/* The recipe for a mechanism: the first that uses it, else one for any, which has that mechanism's name. */
struct recipe recipe_for(const struct mechanism *m);

/* Where c leaves the choice, it is the recipe's. */
void recipe_apply(const struct recipe *r, struct convert_opt *c);

/*
 * The recipe of that name, applied to c; without a name that of c's mechanism, if the user has chosen it, or the one that serves most models best.
 * searched: it is "auto", and neither out nor c is set. LINNET_EUSAGE: there is none of that name.
 */
enum linnet_code calibrate_recipe(const char *name, bool chosen, struct convert_opt *c, struct recipe *out, bool *searched, struct linnet_error *e);

/* ---- Calibrating ---- */

struct calibrate_event {
	const char *trial; /* of a search; else NULL */
	const char *stage;
	int index, of;     /* which stage, of how many */
	const struct train_event *train;
};

/* How much is measured. */
enum measured {
	MEASURE_ALL,
	MEASURE_LOSS, /* briefly, of what is in the end, nats or distance */
	MEASURE_SPEED /* long windows of what is in the end */
};

struct calibrate_opt {
	struct convert_opt convert; /* what is made, from the weights given on, if any; target, beside and open are calibration's own */
	const struct recipe *recipe;
	double minutes;    /* the budget; 0: by tokens */
	int64_t tokens;    /* the budget when minutes is 0: tokens (samples, where data is no stream) in all; 0: CALIBRATE_TOKENS */
	int64_t batch, length; /* 0: what the model's tokens have to have, else 2 windows, 8 samples of other data; 512, or as many tokens as it takes */
	int64_t rank;      /* of WEIGHTS_LOW; 0: 8 */
	double rate;       /* factor on all rates of the recipe; 0: 1 */
	uint64_t seed;     /* 0: 1 */
	int threads;
	bool exact;        /* steps in float32; else in mixed precision where the processor has it (train.h) */
	const char *checkpoint; /* prefix of files to go on from, or NULL */
	enum measured measured;
	void (*report)(void *ctx, const struct calibrate_event *ev);
	void *ctx;
};

enum { QUALITY_SPANS = 5 };

/* How good a model is, held out. NaN: not known. */
struct quality {
	double nll;                 /* of language models, nats a token */
	double recall;              /* those of tokens that only recall predicts (measure.h) */
	int64_t recall_tokens;
	double span[QUALITY_SPANS]; /* of positions 0, 1, 2-3, 4-7, 8-15 times the length in windows of 16 times the length */
	double loss;                /* of LOSS_DISTIL: how far it is from the softmax model */
	double speed;               /* tokens a second in those windows */
};

struct stage_result {
	const char *name;
	int64_t steps, tokens, parameters;
	double seconds, loss;  /* of the last batch */
	struct quality quality; /* after it */
};

struct layer_error {
	uint32_t layer;
	double before, after;  /* mean |y - y_soft|^2 / mean |y_soft|^2, held out, on what the teacher's layers see */
};

struct calibrate_result {
	struct named_tensor *weight; /* in the model's arena: for convert_opt.given */
	int nweight;
	struct stage_result stage[MAX_STAGES];
	int nstage;
	struct layer_error *error;
	uint32_t nerror;             /* attentions that were converted */
	uint32_t nattention;         /* all; the others stay softmax */
	struct quality teacher, before, window; /* the softmax model; the converted one before calibration; softmax over the window alone, where
	                                         * the conversion has one */
	bool language;               /* perplexities are known */
	int64_t length;              /* tokens a window */
};

/*
 * Settle what opt leaves open, and give m a graph to calibrate against: without caches, in the form that is converted. calibrate() does this itself.
 * Who calibrates often does it once.
 */
enum linnet_code calibrate_prepare(struct linnet_model *m, struct calibrate_opt *opt, struct train_data *data, struct train_data *held_out,
                                   struct linnet_error *e);

/*
 * m (imported) stays as it is. held_out may be NULL: figures are then of `data`.
 *
 * Errors: those of convert_model() and train(); LINNET_EUNSUPPORTED nothing is converted, or weights are not float.
 */
enum linnet_code calibrate(const struct linnet_model *m, const struct calibrate_opt *opt, struct train_data *data, struct train_data *held_out,
                           struct calibrate_result *out, struct linnet_error *e);

/* How good m itself is, briefly: what trials are held against. */
enum linnet_code calibrate_softmax(const struct linnet_model *m, const struct calibrate_opt *opt, struct train_data *data, struct train_data *held_out,
                                   struct quality *out, struct linnet_error *e);

/* ---- Searching (auto.c) ---- */

/* One conversion that was tried. */
struct trial {
	const char *name;
	struct recipe recipe;
	struct convert_opt convert;
	double loss;                 /* nats a token above the softmax model's, held out; no language model: the distance from its outputs */
	double expected;             /* that with the rest of the budget, as far as is known */
	double earlier;              /* that after the round before; of as many tokens */
	int64_t earlier_tokens;
	struct quality quality;      /* that it came of, briefly measured; speed: of the front, in the end */
	int64_t state_bytes;         /* of one sequence; a layer that stays softmax counts with the keys and values of CACHED tokens */
	int64_t tokens;              /* trained on so far */
	double seconds;              /* spent on it */
	uint32_t softmax;            /* layers that stay so */
	int rounds;                  /* it took part in; 0: it was probed only */
	const char *reason;          /* why it was given up, or NULL */
	bool fixed, front, best;     /* it is there to compare; none has as small a state and as small a loss; chosen */
	struct named_tensor *weight;
	int nweight;
};

enum { CACHED = 16384, CALIBRATE_TOKENS = 4000000 };

struct search_opt {
	struct calibrate_opt calibrate; /* of all; recipe and convert of what is tried are the search's, what convert asks for besides holds for all */
	const struct mechanism *mechanism; /* the only one that is tried; NULL: those of all recipes */
	double most_loss;            /* share of perplexity (or distance) that may be lost; INFINITY: any */
	int64_t most_state;          /* bytes; 0: any */
	void (*tried)(void *ctx, const struct trial *t, int round, int rounds); /* or NULL; round 0: the probe. ctx: calibrate's */
};

struct search_result {
	struct quality softmax;      /* briefly measured, as the trials */
	struct trial *trial;         /* in the model's arena */
	int ntrial, best;
	struct calibrate_result result; /* of the best, with what was left of the budget */
};

/*
 * Find a conversion, as auto.c tells. In order, and to the same end for a budget in tokens.
 *
 * Errors: those of calibrate(); LINNET_EUNSUPPORTED nothing fits the model and the limits; LINNET_EVALUE the best one's training diverged.
 */
enum linnet_code calibrate_search(const struct linnet_model *m, const struct search_opt *opt, struct train_data *data, struct train_data *held_out,
                                  struct search_result *out, struct linnet_error *e);

#endif
