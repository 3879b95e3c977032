/* Whether models compute what they should. */
#ifndef LINNET_VALIDATE_H
#define LINNET_VALIDATE_H

#include "ops/base/rng.h"
#include "runtime/runtime.h"
#include "validate/tokenizer.h"

/* ---- Recorded cases (runner.c) ---- */

enum verdict { VERDICT_PASS, VERDICT_FAIL, VERDICT_SKIP };

struct case_opt {
	struct run_opt run;
	double rtol, atol; /* |found - expected| <= atol + rtol |expected|; both 0: 1e-3 and 1e-7, the official
	                    * ones; rtol is at least 2^-6 for bfloat16 */
	const struct linnet_limits *limits;
	bool passes;       /* run the graph after the exact passes instead of as it is written */
	uint32_t changes;  /* at most so many changes by passes; 0: all. For finding a wrong one by bisection */
	bool written_again; /* export the model, at its own opset or, where that cannot say it any more, the newest, and run what was written */
};

/* One data set of one folder, or the folder as a whole when it did not come so far. */
struct case_result {
	const char *folder;
	const char *set;         /* "test_data_set_0"; "" for the folder */
	enum verdict verdict;
	struct linnet_error why; /* unless passed */
	uint64_t max_ulp;        /* of float outputs: most representable numbers between one found and the one expected */
};

/*
 * Run a folder in the layout of ONNX's backend tests: model.onnx and test_data_set_<k>/input_<i>.pb, output_<i>.pb. A tensor is
 * for the input or output of its name, or when it has none of those names, for number i. `report` is called for each data
 * set. A model that needs what linnet lacks is skipped, and so is a folder without data sets.
 *
 * Returns LINNET_OK whatever the verdicts. Errors: LINNET_EIO there is no such folder; LINNET_EMEM.
 */
enum linnet_code case_run(const char *folder, const struct case_opt *opt,
                          void (*report)(void *ctx, const struct case_result *r), void *ctx, struct linnet_error *e);

/* Representable numbers between elements i of two tensors of one float type that are numbers (0 for others). (compare.c) */
uint64_t ulps_between(const struct tensor *a, const struct tensor *b, int64_t i);

/* ---- Drawn inputs (gen.c) ---- */

/* A length given to a symbolic dim by name. */
struct dim_given {
	const char *name;
	int64_t n;
};

struct gen_opt {
	const struct dim_given *dim;
	int ndim;
	int64_t length, batch; /* of symbols not given: those called like a batch (`batch...`, N, B) and all others; 0: 8 and 2 */
};

/*
 * Fill in[i] for every graph input that is NULL and has no default. Symbols have one length everywhere: as given, else as in the
 * tensors already there, else as in opt. Floats are uniform in [-1, 1); integers are indices where they select from an
 * axis of known length (through Cast, Reshape and their like), mostly 1 where the name has "mask" in it, all values of 8-bit
 * types, else in [0, 8); strings are one letter.
 *
 * Errors: LINNET_EUNSUPPORTED sequences, maps, unknown ranks; LINNET_ESHAPE a length came out negative; LINNET_ELIMIT; LINNET_EMEM.
 */
enum linnet_code gen_inputs(const struct graph *g, const struct gen_opt *opt, struct rng *r, struct arena *a,
                            const struct tensor **in, struct linnet_error *e);

/* How many rows the integer input selects from, by all its uses; 0 when it is no index. */
int64_t gen_rows(const struct graph *g, value_id v, struct arena *scratch);

/* ---- Comparing (compare.c) ---- */

/*
 * Two elements agree when |a - b| <= atol s + rtol max(|a|, |b|), s the root mean square of a's tensor, at least 1; NaN agrees with
 * NaN, an infinity with itself. The numbers are meant for float and are scaled for others: double takes 1e-4 of them, narrower floats
 * at least 16 (rtol) and 8 (atol) of their unit roundoffs. Integers, bools and strings agree when equal.
 */
struct tolerance {
	double rtol, atol; /* both 0: 1e-3 and 1e-5 */
	double budget;     /* > 0: floats agree instead when the normalised mean square error is at most this */
};

/* What two tensors, or two rows of tensors, differ by. */
struct diff {
	const char *name;
	enum dtype adt, bdt;
	enum type_kind akind, bkind; /* when one is no tensor: */
	int64_t amembers, bmembers;
	struct shape ashape, bshape; /* of the first pair that differs in type, else of the last one */
	bool typed_apart;            /* element types or shapes differ: nothing below counts that pair */
	int64_t n, wrong;            /* elements compared; beyond tolerance */
	int64_t worst;               /* element of the largest difference beyond tolerance, -1: none */
	double a_worst, b_worst;
	double max_abs;              /* |a - b| */
	double max_rel;              /* |a - b| / max(|a|, |b|, 1e-6) */
	double se, sa;               /* sums of (a - b)^2 and of a^2 */
	uint64_t max_ulp;            /* representable numbers between a and b; floats of one type only */
	int64_t nan_at, inf_at;      /* first element where only one is NaN; where only one is that infinity; -1: none */
};

/* Element i as a double; a complex number is two elements. */
double tensor_part(const struct tensor *t, int64_t i);

void diff_init(struct diff *d, const char *name);

/* Compare one more pair. */
void diff_add(struct diff *d, const struct tensor *a, const struct tensor *b, const struct tolerance *t);

/* sum (a - b)^2 / sum a^2, over what was compared; 0 when both are 0. */
double diff_nmse(const struct diff *d);

bool diff_agrees(const struct diff *d, const struct tolerance *t);

/* The tolerance of an element type. */
double tolerance_rtol(const struct tolerance *t, enum dtype dt);
double tolerance_atol(const struct tolerance *t, enum dtype dt);

/* ---- Where two graphs part (locate.c) ---- */

struct side {
	const struct graph *g;
	struct run_opt run;
};

struct location {
	bool found;
	const char *value, *node, *op; /* of b */
	const char *a_value;           /* what it was compared with */
	uint32_t same;                 /* values compared before it, all within tolerance */
	struct diff diff;
};

/*
 * Run both on the same inputs and find the first value of b, in order of execution, that is not what a computes there. Values
 * correspond when they have the same name and type; those of b whose name a does not have correspond to the output of the node of
 * the same operator and number in order of execution, when types are the same. Strings live in the arena.
 */
enum linnet_code locate(const struct side *a, const struct tensor *const *ain, const struct side *b,
                        const struct tensor *const *bin, const struct tolerance *t, struct arena *arena, struct location *out,
                        struct linnet_error *e);

/* ---- Two models (pair.c) ---- */

struct pair_opt {
	int cases;          /* 0: 16 */
	uint64_t seed;      /* of the first case; 0: 1 */
	struct gen_opt gen; /* length and batch 0: 8 and 2 in the first case, then drawn in [1, 16] and [1, 3] */
	struct tolerance tolerance;
	const struct tensor *const *given; /* of a's inputs, in order; NULL or members NULL: drawn */
	int axis;           /* of tokens, for a step model; 0: that of what b's position counts, else of the symbol that is in no state's lengths, else 1 */
	void (*progress)(void *ctx, int done, int total);
	void *progress_ctx;
};

struct pair_report {
	struct diff *out;  /* one an output of b that a has too */
	uint32_t nout;
	int cases;
	bool agree, steps; /* steps: b was fed the sequence piece by piece */
	struct location where; /* of the first case that differs; not for step models */
};

/*
 * Compare b with a on the same inputs, matched by name. When b keeps states that a does not have (past_X and present_X), b is a step
 * model: a sees the whole sequence, b gets it cut along the token axis, one token at a time and in random pieces by turns, and
 * the pieces of its outputs are compared with the same pieces of a's; an output without token axis is compared after the last piece.
 * Inputs `position`, `position_ids` and `cache_position` that a does not have get the tokens' numbers.
 *
 * LINNET_OK whatever the verdict. Errors: LINNET_ETYPE an input of b that a lacks, or no output in common; what running gives.
 */
enum linnet_code pair_compare(const struct side *a, const struct side *b, const struct pair_opt *opt, struct arena *arena,
                              struct pair_report *report, struct linnet_error *e);

/* ---- Language models (lm.c) ---- */

struct lm_opt {
	struct run_opt run;
	int64_t context, batch; /* tokens a window; windows a run; 0: 512 and 8 */
	const struct tokenizer *tokenizer; /* for bytes; or NULL */
	void (*progress)(void *ctx, int64_t done, int64_t total);
	void *progress_ctx;
	void (*token)(void *ctx, int64_t at, double nll); /* called with -ln p of each token predicted, number `at` of the stream; or NULL */
	void *token_ctx;
};

struct lm_result {
	int64_t tokens;   /* predicted */
	int64_t bytes;    /* of those; 0 when not known */
	double nll;       /* sum of -ln p, nats */
	double seconds;   /* of running the model */
	int64_t peak, prepared; /* bytes */
};

/*
 * -ln p of every token of a stream but the first, given those before it in its window: inputs stream[0, n-1) are cut into windows of
 * `context` tokens that do not overlap (the last may be shorter), targets are the tokens after. The model takes an integer input
 * [batch, sequence] and its first float output of rank 3 is [batch, sequence, vocabulary]; masks among the inputs are ones, positions count from 0,
 * states start empty. Softmax and sums in double.
 *
 * Perplexity is exp(nll / tokens), bits per byte nll / ln 2 / bytes.
 */
enum linnet_code lm_evaluate(const struct graph *g, const struct tensor *stream, const struct lm_opt *opt, struct lm_result *out,
                             struct linnet_error *e);

/* ---- Generating text (generate.c) ---- */

struct generate_opt {
	struct run_opt run;
	int64_t tokens;     /* to make, at most */
	double temperature; /* 0: the most likely token always */
	int64_t top_k;      /* among the k most likely; 0: all */
	double top_p;       /* among the most likely that together have this probability; 0 or 1: all */
	uint64_t seed;
	int64_t stop;       /* a token that ends the text, which is not given out; -1: none */
	void (*token)(void *ctx, int64_t id); /* called with each as it is made */
	void *ctx;
};

struct generate_result {
	int64_t prompt, tokens; /* read and made */
	double prompt_seconds, seconds; /* of running the model on the prompt, and afterwards */
	int64_t state_bytes;    /* at the end; 0 for a model without states, which reads everything again for each token */
	bool stopped;           /* by the token that ends a text */
};

/*
 * Tokens that a language model goes on with, batch 1. A model with states (a step model of linnet's, or one with key/value caches) reads
 * the prompt in one run and then each token once. The same seed gives the same tokens. Errors: LINNET_EVALUE an empty prompt, a token the
 * model does not have, logits that are not numbers; what lm_evaluate() gives.
 */
enum linnet_code lm_generate(const struct graph *g, const int64_t *prompt, int64_t n, const struct generate_opt *opt, struct generate_result *out,
                             struct linnet_error *e);

#endif
