/*
 * What is recognised in a graph, in words: attentions, gated linear units and normalisations with their properties, read off the
 * graph as the exact passes leave it. Attention that must not be replaced is listed too.
 */
#ifndef LINNET_RECOGNISE_H
#define LINNET_RECOGNISE_H

#include "graph/pass.h"

/* Attentions alike: `count` of them. */
struct attention_group {
	const char *kind;    /* cross (keys of another sequence), mha, gqa, mqa; self: one head and no head axis */
	int64_t heads, kv_heads, head_dim, value_dim; /* -1: not known */
	bool causal;
	const char *mask;    /* none, additive, boolean, padding, alibi, relative_bias, sliding_window */
	bool padding;        /* a padding mask on top of another */
	int64_t window;      /* of sliding_window: visible keys when causal, else the reach to both sides; -1 */
	double scale, softcap; /* softcap 0: none */
	bool rope, qk_norm, kv_cache;
	bool sink;           /* one more logit in the softmax, whose probability goes nowhere */
	bool rewritable;     /* false: scores or probabilities are used elsewhere, or changed between softmax and product */
	int count;
};

struct glu_group {
	const char *variant; /* glu, geglu_erf, geglu_tanh, swiglu, reglu, bilinear */
	double alpha;        /* of swiglu */
	bool fused_weight;   /* gate and value come out of one projection */
	int count;
};

/* LinearAttention nodes alike, of either domain. */
struct linear_group {
	struct text rule;    /* linear, gated, delta, gated_delta */
	int64_t heads, kv_heads, head_dim; /* head_dim -1: not known */
	double scale;
	const char *decay;   /* NULL: none, or not known; per head, per channel (of keys) */
	bool state;          /* a state of the past is given */
	int count;
};

/* CausalConvWithState nodes alike, of either domain. */
struct causal_group {
	int64_t channels, taps; /* -1: not known */
	bool silu, state;       /* behind it; a state of the past is given */
	int count;
};

enum norm_kind { NORM_LAYER, NORM_RMS, NORM_GROUP, NORM_BATCH, NORM_L2, NORM_KINDS };
extern const char *const norm_names[NORM_KINDS];

struct recognised {
	struct attention_group *attention;
	struct glu_group *glu;
	struct linear_group *linear;
	struct causal_group *causal;
	int nattention, nglu, nlinear, ncausal; /* groups, in the order of their first members */
	int norm[NORM_KINDS];
	int sinusoidal; /* values of sines and cosines of positions that are added to a stream or projected */
};

enum linnet_code graph_recognised(const struct graph *g, struct arena *a, struct recognised *out, struct linnet_error *e);

/* ---- Single nodes ---- */

enum part_kind { PART_NONE, PART_ATTENTION, PART_GLU, PART_RECURRENCE, PART_NORM, PART_POSITION };

/* What the node is recognised as. */
enum part_kind part_kind(const struct graph *g, const struct node *n);

/* n computes with a constant weight: a projection. */
bool is_projection(const struct graph *g, const struct node *n);

/* A convolution of each channel by itself, which projects none to another. */
bool is_depthwise(const struct graph *g, const struct node *n);

/* n is a softmax that is described as attention though it stays as it is. */
enum linnet_code attention_kept(const struct view *w, const struct node *n, struct arena *a, bool *kept, struct linnet_error *e);

/* However scores and probabilities are changed and used on the way: the product of two values that x was before, 0 when there is none; whether
 * p gets to a product with values. */
value_id product_before(const struct view *w, value_id x);
bool product_behind(const struct view *w, value_id p);

/* An attention, or the softmax of one that stays as it is: *found, and what it is. The group's count is 1. */
enum linnet_code node_attention(const struct view *w, const struct node *n, struct arena *a, bool *found, struct attention_group *f,
                                struct linnet_error *e);
bool attention_alike(const struct attention_group *a, const struct attention_group *b);

bool node_is_glu(const struct node *n);
/* false: without memory. */
bool node_glu(const struct graph *g, const struct node *n, struct arena *a, struct glu_group *f);

/* The experts of n, a MoE or QMoE, are gated units of those kinds: what they are, as one unit. */
bool node_experts(const struct node *n, struct glu_group *f);

/* enum norm_kind; -1: none */
int node_norm(const struct graph *g, const struct node *n);

/* A value computed from constants only, as weights that are dequantised or cast where they are used, or that of chosen experts among several matrices. */
bool value_is_weight(const struct graph *g, value_id v);

#endif
