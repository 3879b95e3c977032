/* Softmax attention into linear attention: which layers, by which mechanism, in which target's words. */
#ifndef LINNET_CONVERT_H
#define LINNET_CONVERT_H

#include "graph/pass.h"
#include "runtime/data.h"

/* The words the linear form is said in. */
enum target {
	TARGET_ONNX,     /* the LinearAttention operator of opset 27 */
	TARGET_ORT,      /* com.microsoft LinearAttention */
	TARGET_PORTABLE, /* standard operators of opset 17: matrix products within a chunk, Scan across */
	TARGET_QUADRATIC, /* standard operators of opset 17: every query with every key, for short sequences and training */
	TARGET_STEP,     /* standard operators of opset 17, with named states in and out: any number of tokens, best few at a time */
	TARGET_CHUNK,    /* the same in chunks as the portable form: best for many tokens at a time */
	NTARGET
};

/* Whether the model has states in and out. */
static inline bool target_has_states(enum target t) { return t == TARGET_STEP || t == TARGET_CHUNK; }

extern const char *const target_names[NTARGET];
extern const char *const target_docs[NTARGET];

/* What keeps the output to scale. */
enum normaliser {
	NORM_RATIO, /* it is divided by the sum of the weights */
	NORM_RMS,   /* each head's row is divided by its root mean square: no sum of weights is kept */
	NORM_GROUP, /* the same about its mean */
	NORM_NONE   /* it is to scale by itself */
};

extern const char *const normaliser_names[NORM_NONE + 1]; /* as asked for */
extern const char *const normaliser_docs[NORM_NONE + 1];

/* For whom parameters are made: one layer's queries, or its keys. */
struct map_use {
	struct arena *arena;
	enum dtype dt;
	int64_t heads, width; /* H, D */
	int64_t features;     /* asked for; 0: the map's own choice */
	int degree;           /* of polynomials; 0: the map's own choice */
	int64_t horizon;      /* longest sequence that matters, for maps of positions */
	uint64_t seed;        /* the same for queries and keys */
};

enum { MAX_PARAMETERS = 3 };

struct build; /* build.h */
struct convert_opt;

/* How the past fades: the log of the factor a token, never above 0. */
struct fade {
	const char *name, *doc;
	double (*log_factor)(const struct convert_opt *opt, int64_t h, int64_t H); /* of key head h of H, the same for all tokens; or NULL and: */
	uint32_t (*gate)(struct build *b, int64_t width);        /* a value [B, G, T, 1], or [B, G, T, width] by channel, from the keys */
	bool by_channel;
};

extern const struct fade *const fades[]; /* ended by NULL */
const struct fade *fade_find(const char *name);

/* A mechanism: how the weight of a (query, key) pair factors. The map's text computes y [B, H, T, F] from x [B, H, T, D] and parameters. */
struct mechanism {
	const char *name, *doc, *source;
	const char *map;    /* template */
	enum linnet_code (*parameters)(const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e); /* NULL: none */
	bool scaled;        /* x is multiplied by sqrt(scale) first; else the scale cancels or is dropped as in the source */
	bool may_vanish;    /* a denominator can be 0: it is kept above a floor */
	uint8_t normaliser; /* enum normaliser */
	const char *fade;   /* of `fades`; NULL: nothing fades */
	/* What a map cannot say: y [B, H, T, E] of one attention, causal and without a mask. In place of a map. */
	void (*build)(struct build *b, value_id *y);
	bool plain;         /* works on queries and keys before their rotation */
	bool per_query;     /* keys and values are repeated to the query heads, unless asked otherwise */
	int conv;           /* taps of a short convolution before all else; 0: none */
	int window;         /* tokens of softmax beside it; 0: none. `build` then sees to it */
	bool shifted;       /* beside a window, weights are those of exp(s - max s), not exp(s) */
	bool terraced;      /* windows begin with a block of tokens, hybrid.c */
	bool image;         /* tokens are pixels: a convolution over the values' image is added, and nothing is causal */
	bool even;          /* weights of an odd degree may be negative */
	bool positions;     /* the map depends on the number of the token */
	bool corrects;      /* what is put depends on the state: no sum over pairs of tokens says it */
};

/* Mechanisms alike, in a file of their own. */
struct mechanism_family {
	const struct mechanism *row;
	int n;
};

extern const struct mechanism_family map_family, gate_family, delta_family, hybrid_family;

const struct mechanism *mechanism_at(int i); /* NULL behind the last */
const struct mechanism *mechanism_find(const char *name);

/* The width F of what the map makes of heads of width D. */
enum linnet_code mechanism_features(const struct mechanism *m, const struct map_use *u, int64_t *features, struct linnet_error *e);

/* What stands beside an attention that stays, as outputs "soft.<layer>" and "linear.<layer>": its own and the new form's. */
enum beside {
	BESIDE_NOTHING, /* it does not stay */
	BESIDE_RESULTS, /* [B, H, T, E] */
	BESIDE_WEIGHTS  /* of each query and key, [B, H, T, S], rows that sum up to 1, where there are such; else results */
};

struct convert_opt {
	const struct mechanism *mechanism;
	enum target target;
	const char *layers; /* "all", "0,2-4", "all,-0,-7", "0,2-3=elu": of another mechanism, "1=lolcats/16": with a window of its own; NULL: all */
	bool strict;        /* attention that stays softmax is an error */
	int chunk;          /* tokens a chunk of the portable form; 0: 64 */
	const char *fade;   /* of `fades`, "none", or a number, which is `decay`; NULL: the mechanism's */
	double decay;       /* what is left of the past after a token; 0: not given */
	int64_t features;   /* of maps whose number can be chosen; 0: their own choice */
	int degree;         /* of polynomials; 0: their own choice, 2 */
	const char *norm;   /* of normaliser_names, what keeps the output of maps to scale; NULL: the mechanism's */
	int64_t horizon;    /* of maps of positions; 0: 2048 */
	uint64_t seed;      /* of random maps; 0: 1 */
	int conv;           /* taps of short convolutions on queries, keys and values; 0: the mechanism's, 1: none */
	int window;         /* tokens of softmax beside the mechanism; 0: the mechanism's own */
	int sinks;          /* first tokens that stay in the window */
	int rows, columns;  /* of the image that tokens are; 0: it is square */
	enum dtype state;   /* that states are kept in from run to run, FLOAT16 or BFLOAT16 say; 0: the model's */
	const char *heads;  /* whose are maps, gates and states: "key", "query" heads'; NULL: the mechanism's */
	int opset;          /* of the result; 0: the target's choice */
	/* For calibration. Weights by name that take the place of the model's and of parameters' first values. */
	const struct named_tensor *given;
	int ngiven;
	enum beside beside;
	bool open;          /* nothing is computed of parameters, so that they can be trained */
};

/* The weight of that name among those given; NULL: none. */
const struct tensor *given_weight(const struct convert_opt *opt, const char *name);

/* The same in words and numbers as people give them; NULL and 0: not given. */
struct convert_request {
	const char *mechanism, *target, *layers, *fade, *heads, *norm, *grid, *state; /* grid: "14x14" */
	const char *map, *map_name; /* a map's text in place of a mechanism, and where it comes from */
	bool strict;
	int64_t chunk, opset, features, horizon, seed, conv, window, sinks, degree;
};

/* LINNET_EUSAGE says in one line what cannot be. Strings are borrowed; the arena outlives the options. (request.c) */
enum linnet_code convert_read(const struct convert_request *r, struct arena *a, struct convert_opt *out, struct linnet_error *e);

/* What keeps the output to scale in this conversion. */
enum normaliser normaliser_of(const struct convert_opt *opt);

/* What becomes of a source's features. */
enum carry { CARRY_EXACT, CARRY_APPROX, CARRY_NOT };
struct carried {
	const char *source;
	enum carry how;
	const char *what; /* it becomes; or why it does not */
};
bool carried_at(int i, struct carried *out); /* false behind the last */

/* What became of one attention. */
struct convert_item {
	const char *node;      /* name */
	const struct mechanism *mechanism; /* it was selected for */
	int64_t heads, kv_heads, width, value_width;
	bool causal, selected, converted;
	bool crosses;          /* its keys are another sequence's */
	bool by_key;           /* its mask says the same of a key to all queries that see it */
	int64_t window;        /* tokens of the window it looks through, which it keeps: mechanism `window`, exact; else 0 */
	int own_window;        /* asked for beside its mechanism; 0: the mechanism's own */
	const char *reason;    /* why it stayed softmax, else NULL */
	const char *state;     /* name of its (first) state without prefix, where the target has states, else NULL */
	int64_t features;      /* F; 0 when it stays softmax */
	bool weights;          /* what stands beside it are weights */
	int64_t state_numbers; /* elements of its states per batch entry, whatever the target */
};

struct convert_report {
	struct convert_item *item;
	uint32_t nitem, nconverted;
	uint32_t caches; /* inputs that were caches and are no more */
	int opset; /* of ai.onnx, in the result */
};

/*
 * Convert m (imported) in place: passes up to attention run, each selected attention becomes linear or is reported. Afterwards
 * the graph is ready for graph_export(m, report->opset). The report lives in the model's arena.
 *
 * Source: Katharopoulos et al., Transformers are RNNs, ICML 2020, section 3.
 * Errors: LINNET_EUNSUPPORTED with strict, or when a step model is asked for and something cannot be recurrent; LINNET_EUSAGE for bad
 * layer lists.
 */
enum linnet_code convert_model(struct linnet_model *m, const struct convert_opt *opt, struct convert_report *report,
                               struct linnet_error *e);

/* Whether its queries see no key behind their own. */
bool attention_causal(const struct node *n);

/* Tokens of the window it looks through, the query's own included; 0: none. */
int64_t attention_window(const struct node *n);

/* carry.c: why attention node n cannot be carried over for that target; NULL when it can. Sets the item's facts. */
enum linnet_code linear_check(const struct view *w, const struct node *n, const struct convert_opt *opt, struct convert_item *item,
                              struct linnet_error *e);

/* build.c: attention node n in its new form. The item receives features, and, for a step model, the states' name and number of elements. */
enum linnet_code mechanism_apply(const struct graph *g, const struct node *n, const struct convert_opt *opt, uint32_t layer,
                                 struct patch *p, struct convert_item *item, struct linnet_error *e);

/* The source in the form that is converted: attentions found, their heads one by one, no caches; how many inputs went away with them. */
enum linnet_code convert_source(struct graph *g, struct arena *scratch, uint32_t *caches, struct linnet_error *e);

/* microsoft.c: attentions of com.microsoft become Attention where that says the same; inputs that only they read go away. */
enum linnet_code source_standard(struct graph *g, struct arena *scratch, struct linnet_error *e);

/* source.c: heads side by side, [B, T, H D], become [B, H, T, D]. */
enum linnet_code source_spread(struct graph *g, struct linnet_error *e);

/* source.c: key/value caches as inputs and outputs go away, and with them all that was as long; how many inputs that were. */
enum linnet_code cache_drop(struct graph *g, struct arena *scratch, uint32_t *dropped, struct linnet_error *e);

/* step.c: positions counted from `position` (int64 [1]) in a graph whose token axis has length `tokens`. */
enum linnet_code step_positions(struct graph *g, dim tokens, value_id position, struct linnet_error *e);

#endif
