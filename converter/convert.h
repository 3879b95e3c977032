/* Softmax attention into linear attention: which layers, by which mechanism, in which target's words. */
#ifndef LINNET_CONVERT_H
#define LINNET_CONVERT_H

#include "graph/pass.h"

/* The words the linear form is said in. */
enum target {
	TARGET_ONNX,     /* the LinearAttention operator of opset 27 */
	TARGET_ORT,      /* com.microsoft LinearAttention */
	TARGET_PORTABLE, /* standard operators of opset 17: matrix products within a chunk, Scan across */
	TARGET_STEP,     /* the same block once, with named states in and out: any number of tokens, one at a time too */
	NTARGET
};

extern const char *const target_names[NTARGET];
extern const char *const target_docs[NTARGET];

/*
 * A mechanism: how the weight of a (query, key) pair factors. The map's text computes y [B, H, T, F] from x [B, H, T, D]; F = D for
 * those of this file.
 */
struct mechanism {
	const char *name, *doc, *source;
	const char *map;    /* template */
	bool scaled;        /* x is multiplied by sqrt(scale) first; else the scale cancels or is dropped as in the source */
	bool may_vanish;    /* a denominator can be 0: it is kept above a floor */
};

extern const struct mechanism *const mechanisms[]; /* ended by NULL */
const struct mechanism *mechanism_find(const char *name);

struct convert_opt {
	const struct mechanism *mechanism;
	enum target target;
	const char *layers; /* "all", "0,2-4", "all,-0,-7"; NULL: all */
	bool strict;        /* attention that stays softmax is an error */
	int chunk;          /* tokens a chunk of the portable form; 0: 64 */
	int opset;          /* of the result; 0: the target's choice */
};

/* What became of one attention. */
struct convert_item {
	const char *node;      /* name */
	int64_t heads, kv_heads, width, value_width;
	bool causal, selected, converted;
	const char *reason;    /* why it stayed softmax, else NULL */
	const char *state;     /* name of its state without prefix, TARGET_STEP only, else NULL */
	int64_t state_numbers; /* elements of its state per batch entry: Hkv F (E + 1) */
};

struct convert_report {
	struct convert_item *item;
	uint32_t nitem, nconverted;
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

/* linear.c: why attention node n cannot be carried over for that target; NULL when it can. Sets the item's facts. */
enum linnet_code linear_check(const struct view *w, const struct node *n, enum target target, struct convert_item *item,
                              struct linnet_error *e);

/* linear.c: attention node n in linear form. Step: `past` is the state's value and *present receives the new one. */
enum linnet_code linear_apply(const struct view *w, const struct node *n, const struct convert_opt *opt, value_id past,
                              value_id *present, struct patch *p, struct linnet_error *e);

/* step.c: positions counted from `position` (int64 [1]) in a graph whose token axis has length `tokens`. */
enum linnet_code step_positions(struct graph *g, dim tokens, value_id position, struct linnet_error *e);

#endif
