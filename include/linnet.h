/*
 * linnet: import, recognise, convert and validate ONNX models.
 *
 * One header, opaque handles. Every function that can fail returns a code and fills the caller's
 * error record; 0 is success. Nothing here aborts on bad input. A handle may be used by one thread
 * at a time; different handles are independent.
 */
#ifndef LINNET_H
#define LINNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LINNET_API __attribute__((visibility("default")))
#else
#define LINNET_API
#endif

/* Codes: name, meaning. The program's exit status for each is in cli/main.c. */
#define LINNET_CODES(X)                                                                            \
	X(OK, "success")                                                                           \
	X(EIO, "a file cannot be read or written")                                                 \
	X(EFORMAT, "not a well-formed container")                                                  \
	X(ELIMIT, "beyond a configured limit")                                                     \
	X(EMEM, "out of memory")                                                                   \
	X(EMODEL, "the graph breaks a rule of ONNX")                                               \
	X(ETYPE, "element types do not fit")                                                       \
	X(ESHAPE, "lengths or ranks do not fit")                                                   \
	X(EATTR, "an attribute is missing or out of range")                                        \
	X(EVALUE, "a value is out of range")                                                       \
	X(EUNSUPPORTED, "outside what linnet can do")                                              \
	X(EUSAGE, "the call or command line is wrong")                                             \
	X(EINTERNAL, "an invariant of linnet does not hold: a bug")

enum linnet_code {
#define X(name, text) LINNET_##name,
	LINNET_CODES(X)
#undef X
};

/* The one error record. Empty strings where a part does not apply. */
struct linnet_error {
	enum linnet_code code;
	char file[256];    /* path as the caller gave it */
	char node[128];    /* name of the node, or of the value when there is no node */
	char op[64];       /* operator type of that node */
	char message[512]; /* one sentence: what was found and what was expected */
};

/*
 * Bounds on what is read, checked before use. All zero fields mean the default.
 */
struct linnet_limits {
	size_t size;          /* sizeof(struct linnet_limits) */
	int64_t max_bytes;    /* bytes of one file; default 2^46 */
	int64_t max_nodes;    /* nodes over all graphs; default 2^20 */
	int64_t max_elements; /* elements of one tensor; default 2^40 */
	int64_t max_memory;   /* bytes of activations while running; default 2^40 */
	int max_depth;        /* nesting of messages and subgraphs; default 64, at most 500 */
};

/* The code's name without prefix ("ESHAPE") and its meaning. Never NULL. */
LINNET_API const char *linnet_code_name(enum linnet_code code);
LINNET_API const char *linnet_code_text(enum linnet_code code);

/*
 * The error as one line, `file: node "name" (Op): message`, without a newline.
 * Writes at most n bytes including the terminating zero. Returns buf.
 */
LINNET_API char *linnet_error_line(const struct linnet_error *e, char *buf, size_t n);

/* ---- Models ---- */

typedef struct linnet_model linnet_model;

/*
 * Load a model from a file ("-": standard input) or from memory, which must outlive it, and bring it into current operators with
 * inferred types. Opsets 1 to 28.
 *
 *   limits    bounds, NULL for defaults
 *   out       receives the model; free with linnet_model_free()
 *
 * Errors: LINNET_EIO, LINNET_EFORMAT, LINNET_ELIMIT, LINNET_EMODEL, LINNET_ETYPE, LINNET_ESHAPE, LINNET_EATTR, LINNET_EUNSUPPORTED, LINNET_EMEM.
 */
LINNET_API enum linnet_code linnet_model_load(const char *path, const struct linnet_limits *limits, linnet_model **out,
                                              struct linnet_error *e);
LINNET_API enum linnet_code linnet_model_load_memory(const void *data, size_t n, const struct linnet_limits *limits, linnet_model **out,
                                                     struct linnet_error *e);

/*
 * Write the model to a file ("-": standard output), which appears whole or not at all. external: weights go to `<path>.data`, as they do
 * when the file would be over 2 GiB.
 */
LINNET_API enum linnet_code linnet_model_save(const linnet_model *m, const char *path, bool external, struct linnet_error *e);

/* NULL is allowed, here and in all functions that free. */
LINNET_API void linnet_model_free(linnet_model *m);

/* Nodes of the main graph, and the version of ai.onnx that the file asks for (0 when it asks for none). */
LINNET_API int64_t linnet_model_nodes(const linnet_model *m);
LINNET_API int64_t linnet_model_opset(const linnet_model *m);

enum linnet_port { LINNET_INPUT, LINNET_OUTPUT };

/* Inputs or outputs, and their names; NULL when i is out of range. Strings live as long as the model. */
LINNET_API int linnet_model_count(const linnet_model *m, enum linnet_port port);
LINNET_API const char *linnet_model_name(const linnet_model *m, enum linnet_port port, int i);
/* Element type as ONNX numbers them (1 float, 7 int64, ...); 0 when not known. */
LINNET_API int linnet_model_dtype(const linnet_model *m, enum linnet_port port, int i);
/* Number of axes; -1 when not known. */
LINNET_API int linnet_model_rank(const linnet_model *m, enum linnet_port port, int i);
/* Length of an axis; -1 when it is symbolic or not known. */
LINNET_API int64_t linnet_model_length(const linnet_model *m, enum linnet_port port, int i, int axis);
/* Length of an axis as text, "8", "batch", "past + seq", "?" when not known. Writes at most n bytes with the final zero; returns buf. */
LINNET_API char *linnet_model_length_text(const linnet_model *m, enum linnet_port port, int i, int axis, char *buf, size_t n);

/* ---- Tensors ---- */

enum { LINNET_MAX_RANK = 8 };

/*
 * A view of numbers: contiguous, row-major, elements of 2 and 4 bits packed from the low bits. The data belongs to whoever made it and
 * is aligned for its element type; strings (8) are not passed this way.
 */
struct linnet_tensor {
	int dtype; /* as ONNX numbers them */
	int rank;
	int64_t d[LINNET_MAX_RANK];
	void *data;
};

/* Elements; -1 when the lengths are negative or their product overflows. Bytes; -1 also for an unknown element type. */
LINNET_API int64_t linnet_tensor_count(const struct linnet_tensor *t);
LINNET_API int64_t linnet_tensor_bytes(const struct linnet_tensor *t);
/* "float", "int64"; "undefined". */
LINNET_API const char *linnet_dtype_name(int dtype);

/* ---- Running ---- */

typedef struct linnet_session linnet_session;

struct linnet_session_opt {
	size_t size;        /* sizeof(struct linnet_session_opt) */
	bool reference;     /* reference kernels and the graph as it is written, instead of fast kernels after the exact passes */
	bool states;        /* feed outputs present_X back as inputs past_X (past_key_values.X from present.X) */
	int threads;        /* 0: all processors */
	int64_t max_memory; /* bytes of activations at a time; 0: 2^40 */
	uint64_t seed;      /* of random operators */
};

/* Prepare to run. The session keeps what it needs of the model's weights: the model must outlive it. opt: NULL for defaults. */
LINNET_API enum linnet_code linnet_session_new(const linnet_model *m, const struct linnet_session_opt *opt, linnet_session **out,
                                               struct linnet_error *e);
LINNET_API void linnet_session_free(linnet_session *s);

/*
 * Run once.
 *
 *   name, in  nin inputs by name; those with a default and states may be left out
 *
 * Results are read with linnet_session_output() until the next run. Errors: LINNET_EUSAGE an input is missing or unknown; LINNET_ETYPE,
 * LINNET_ESHAPE it does not fit; what operators say.
 */
LINNET_API enum linnet_code linnet_session_run(linnet_session *s, const char *const *name, const struct linnet_tensor *in, int nin,
                                               struct linnet_error *e);

/* The output of that name of the last run, states included; the data belongs to the session. LINNET_EUSAGE when there is none. */
LINNET_API enum linnet_code linnet_session_output(const linnet_session *s, const char *name, struct linnet_tensor *out,
                                                  struct linnet_error *e);

/* Forget the states: the next run starts from zeros. */
LINNET_API void linnet_session_reset(linnet_session *s);

/* Largest number of bytes of activations held at once so far. */
LINNET_API int64_t linnet_session_peak(const linnet_session *s);

/* ---- Recognition, and why not ---- */

typedef struct linnet_reasons linnet_reasons;

/* What did not become one node (attention, a gated linear unit, a linear recurrence), and why. */
struct linnet_reason {
	size_t size;                     /* sizeof(struct linnet_reason), set by the caller */
	const char *node, *op;           /* the softmax, product or loop, as the file names it */
	const char *form;                /* what it is near to */
	const char *code;                /* stable, "attention.probabilities-used": docs/why.md lists them */
	const char *text, *help;         /* the condition that does not hold; what can be done */
	const char *witness, *witness_op; /* the node that shows it; a value when witness_op is "" */
	bool described;                  /* attention that `linnet show --attention` lists, but that stays as it is written */
};

/*
 * Look for every softmax, gated product and loop that was not recognised. The model stays as it is; strings live as long as the
 * reasons and the model. Free with linnet_reasons_free(). Errors: LINNET_EMEM.
 */
LINNET_API enum linnet_code linnet_why(const linnet_model *m, linnet_reasons **out, struct linnet_error *e);
LINNET_API void linnet_reasons_free(linnet_reasons *r);

/* 0: everything was recognised. */
LINNET_API int linnet_reasons_count(const linnet_reasons *r);
/* LINNET_EUSAGE when i is out of range. */
LINNET_API enum linnet_code linnet_reasons_get(const linnet_reasons *r, int i, struct linnet_reason *out, struct linnet_error *e);

/*
 * What a node belongs to, by its name or that of a value it computes: the index of the reason why that was not recognised, or -1 when it
 * belongs to nothing that was not; *into then says what took its place, "Attention", or is NULL. LINNET_EUSAGE when there is no such node.
 */
LINNET_API enum linnet_code linnet_reasons_find(const linnet_reasons *r, const char *node, int *i, const char **into, struct linnet_error *e);

/* ---- Converting ---- */

struct linnet_convert_opt {
	size_t size;           /* sizeof(struct linnet_convert_opt) */
	const char *mechanism; /* "elu" (default), or another that `linnet convert --list` names */
	const char *target;    /* "portable" (default), "onnx", "ort", "quadratic", "step", "chunk" */
	const char *layers;    /* which attentions: "all" (default), "0,2-4", "all,-0", "0,2-3=hedgehog" of another mechanism */
	bool strict;           /* attention that stays softmax is an error */
	int chunk;             /* tokens a chunk of the portable form; 0: 64 */
	int opset;             /* of the result; 0: the target's choice */
	const char *fade;      /* how the past fades: "none", "retention", "slopes", "token", "channel", "0.98"; NULL: the mechanism's own */
	int64_t features;      /* of maps whose number can be chosen; 0: their own choice */
	int64_t horizon;       /* longest sequence, for maps of positions; 0: 2048 */
	uint64_t seed;         /* of random maps; 0: 1 */
	int window;            /* tokens of softmax beside the mechanism; 0: the mechanism's own */
	int sinks;             /* first tokens that stay in the window */
	int conv;              /* taps of short convolutions, 1: none; 0: the mechanism's own */
	int degree;            /* of taylor and polynomial; 0: 2 */
	const char *heads;     /* whose are maps, gates and states: "key" or "query" heads'; NULL: the mechanism's own */
	const char *norm;      /* what keeps the output of maps to scale: "sum", "rms", "group", "none"; NULL: the mechanism's own */
	const char *grid;      /* rows and columns of the image that tokens are, "14x14"; NULL: it is square */
	const char *state;     /* states are kept in "float16" or "bfloat16" from run to run; NULL: in the model's type */
	const char *map;       /* a map of your own in ONNX's textual syntax, in place of a mechanism */
	const char *card;      /* a file for the card: how the model was made, and how far all targets' forms of it agree; NULL: none */
};

struct linnet_convert_result {
	size_t size; /* sizeof(struct linnet_convert_result), set by the caller */
	int attentions, converted;
	int opset;
};

/*
 * Turn softmax attention of the model into linear attention, in place; linnet_model_save() then writes the result, which is approximate and
 * not calibrated. After an error the model is good for nothing but linnet_model_free().
 *
 *   opt       NULL for defaults
 *   result    NULL, or receives what was done
 *
 * Source: Katharopoulos et al., Transformers are RNNs, ICML 2020, section 3.
 * Errors: LINNET_EUSAGE an unknown name or a number out of range; LINNET_EIO the card; LINNET_EUNSUPPORTED with strict, or when attention of a step model cannot be recurrent; LINNET_EMEM.
 */
LINNET_API enum linnet_code linnet_convert(linnet_model *m, const struct linnet_convert_opt *opt, struct linnet_convert_result *result,
                                           struct linnet_error *e);

/* ---- Calibrating ---- */

struct linnet_calibrate_opt {
	size_t size;                   /* sizeof(struct linnet_calibrate_opt) */
	const char *const *data;       /* files, ended by NULL: a stream of tokens (.npy, .npz, 16-bit integers), or samples of inputs, "name=FILE"; or folders */
	const char *const *held_out;   /* the same, to measure on; NULL: the data itself */
	const char *recipe;            /* one that `linnet convert --list` names, or "auto", a search; NULL: the mechanism's, or the usual one */
	double minutes;                /* the budget; 0: tokens */
	int64_t tokens;                /* the budget when minutes is 0; 0: 4,000,000 */
	int64_t batch, length;         /* windows (or samples) a step, tokens a window; 0: 2 (8), 512 or as many as the model takes */
	int64_t rank;                  /* of adapters; 0: 8 */
	double rate;                   /* factor on the recipe's learning rates; 0: 1 */
	int threads;                   /* 0: all processors */
	bool exact;                    /* in float32 alone */
	const char *checkpoint;        /* prefix of files to go on from when it was stopped; NULL: none */
	double max_loss;               /* of a search: share of perplexity (or distance) that may be lost; 0: any */
	int64_t max_state;             /* of a search: bytes of state of one sequence; 0: any */
	void (*progress)(void *ctx, const char *stage, int64_t step, int64_t steps, double loss); /* after each step; NULL: none */
	void *ctx;
};

/* How good a model is on the held-out data. What is not known is NaN. */
struct linnet_quality {
	double distance;          /* from the softmax model's outputs: the mean KL divergence of logits, else squared error over the square of those */
	double perplexity;        /* of language models */
	double perplexity_recall; /* the same of tokens that only recall predicts (docs/calibration.md) */
};

struct linnet_calibrate_result {
	size_t size;              /* sizeof(struct linnet_calibrate_result), set by the caller */
	const char *mechanism;    /* what was converted to, chosen by the search or recipe */
	int64_t tokens;           /* trained on; samples where data is no stream */
	double seconds;
	struct linnet_quality softmax, before, after; /* the model as it came; converted; calibrated */
	struct linnet_quality window;                 /* softmax over the conversion's window alone, where it has one */
};

/*
 * Convert, as linnet_convert() does, and train what was converted until it says what the softmax model says. All numbers go into the card.
 *
 *   opt       NULL for defaults; without a mechanism the recipe's
 *   cal       the data is required
 *   result, calibrated  NULL, or receive what was done
 *
 * Source: docs/calibration.md names each recipe's.
 * Errors: those of linnet_convert(); LINNET_EUSAGE no data, a number out of range; LINNET_EIO data that cannot be read; LINNET_EMODEL, LINNET_ESHAPE data that does not
 * fit the model; LINNET_EVALUE a token beyond the vocabulary, or a loss that diverges; LINNET_EUNSUPPORTED nothing is converted, weights are not float.
 */
LINNET_API enum linnet_code linnet_calibrate(linnet_model *m, const struct linnet_convert_opt *opt, const struct linnet_calibrate_opt *cal,
                                             struct linnet_convert_result *result, struct linnet_calibrate_result *calibrated, struct linnet_error *e);

/* ---- Validating ---- */

typedef struct linnet_report linnet_report;

struct linnet_validate_opt {
	size_t size;       /* sizeof(struct linnet_validate_opt) */
	int cases;         /* 0: 16 */
	uint64_t seed;     /* of the first case; 0: 1 */
	double rtol, atol; /* for float; both 0: 1e-3 and 1e-5 */
	double budget;     /* > 0: accept floats up to this normalised mean square error */
	int threads;       /* 0: all processors */
	bool reference;    /* reference kernels and the graphs as written, on both sides */
};

/*
 * Compare two models on the same inputs.
 *
 *   a, b      models with the same input and output names and compatible types; b may keep states (past_X in, present_X out) that a has
 *             not, and gets the sequence piece by piece then
 *   opt       NULL for defaults
 *   out       receives the report; free with linnet_report_free()
 *
 * Inputs are drawn uniformly from [-1, 1) for floats, from their range for indices. Two floats agree when
 * |a - b| <= atol s + rtol max(|a|, |b|), s the root mean square of a's output, at least 1, with wider tolerances for narrower floats; all else must be equal.
 *
 * Returns LINNET_OK when the comparison was made, whatever its verdict: see linnet_report_agrees().
 * Errors: LINNET_ETYPE interfaces differ; LINNET_EUNSUPPORTED an operator has no kernel; LINNET_EMEM.
 */
LINNET_API enum linnet_code linnet_validate(const linnet_model *a, const linnet_model *b, const struct linnet_validate_opt *opt,
                                            linnet_report **out, struct linnet_error *e);
LINNET_API void linnet_report_free(linnet_report *r);

/* Whether all outputs agree in all cases. */
LINNET_API bool linnet_report_agrees(const linnet_report *r);

/* How far one output is apart, over all cases. */
struct linnet_difference {
	size_t size; /* sizeof(struct linnet_difference), set by the caller */
	const char *name;
	bool agrees;
	int64_t elements, wrong; /* compared; beyond tolerance */
	double max_abs;          /* |a - b| */
	double max_rel;          /* |a - b| / max(|a|, |b|, 1e-6) */
	double nmse;             /* sum (a - b)^2 / sum a^2 */
	uint64_t max_ulp;        /* representable numbers between a and b */
};

LINNET_API int linnet_report_count(const linnet_report *r);
/* LINNET_EUSAGE when i is out of range. */
LINNET_API enum linnet_code linnet_report_difference(const linnet_report *r, int i, struct linnet_difference *out, struct linnet_error *e);

/* The node of b, and its operator, whose value is the first to differ; NULL when there is none or it was not looked for. */
LINNET_API const char *linnet_report_node(const linnet_report *r);
LINNET_API const char *linnet_report_operator(const linnet_report *r);

/* The library's version, "0.1.0". */
LINNET_API const char *linnet_version(void);

#ifdef __cplusplus
}
#endif
#endif
