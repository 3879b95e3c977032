/*
 * The structure of a network as a tree: parts (encoder, decoder), in them the embedding, numbered layers and what ends them, in layers
 * blocks (attention, gated unit, convolution), in blocks the steps that compute with weights. A pure function of a graph that the exact passes
 * have gone over.
 *
 * What holds the tree together is the residual stream: a sum x + f(x), where f holds a projection, an attention or a convolution, is a
 * block; blocks follow each other when the x of one is made of the sum of another. Attention and gated units outside of such sums are
 * blocks too. Every attention and gated unit is in exactly one block.
 */
#ifndef LINNET_BLOCKS_H
#define LINNET_BLOCKS_H

#include "graph/experts.h"

enum block_kind {
	BLOCK_MODEL,
	BLOCK_PART,      /* an encoder, a decoder, or neither; a subgraph */
	BLOCK_LAYER,     /* numbered in its part */
	BLOCK_GROUP,     /* in a folded tree: layers or steps that are repeated together */
	/* blocks */
	BLOCK_ATTENTION, BLOCK_CROSS, BLOCK_GLU, BLOCK_MLP, BLOCK_MIXER, BLOCK_CONV, BLOCK_RECURRENCE,
	BLOCK_PARALLEL,  /* attention and feed-forward side by side */
	BLOCK_EXPERTS,   /* several gated units or MLPs side by side, or behind a router */
	BLOCK_OTHER,     /* x + f(x) with an f that is none of these */
	BLOCK_NESTED,    /* x + f(x) with blocks inside f */
	/* between and around */
	BLOCK_EMBEDDING, /* what makes the first block's input */
	BLOCK_CHANGE,    /* a projection or convolution between two layers */
	BLOCK_NORM,      /* behind the last layer */
	BLOCK_HEAD,      /* what makes the graph's outputs */
	BLOCK_SHARED,    /* masks, positions and lengths that several blocks use */
	BLOCK_STEP,      /* one node */
	BLOCK_KINDS
};

extern const char *const block_words[BLOCK_KINDS];

struct block {
	enum block_kind kind;
	const char *label;   /* of a part its role, of a step what it is for ("query", "up") or its operator; "" otherwise */
	int number;          /* of a layer, from 1; 0 */
	int repeat;          /* in a folded tree: so many alike, one behind the other; 1 */
	node_id node;        /* of a step */
	const char *name;    /* of a step: its node's; of others that of the residual sum's node, or "" */
	value_id in, out;    /* stream in and out, of blocks and steps; 0 */
	const struct graph *g; /* the values' graph */
	bool residual;       /* out is in (normalised or not) plus what the block computes */
	bool post_norm;      /* the sum is normalised behind it */
	const struct attention_group *attention; /* of a step that is one */
	const struct glu_group *glu;
	const struct experts *experts; /* of a block that is a mixture of them, however spelled */
	int64_t parameters;  /* numbers in the constants its nodes use, each counted once */
	uint32_t nnode;      /* nodes of the graph in it */
	const node_id *own;  /* those that are in it and in none of its children but steps, in order */
	uint32_t nown;
	struct block **child;
	int nchild;
};

/*
 * fold: equal neighbours (layers, blocks) become one with `repeat`. Layers are equal when all in them has the same kinds, operators, sizes and
 * properties.
 */
enum linnet_code graph_blocks(const struct graph *g, bool fold, struct arena *a, struct block **out, struct linnet_error *e);

/* Blocks below b (b included) of one kind, each as often as it is repeated. */
int block_count(const struct block *b, enum block_kind kind);
/* The attentions and gated units below it. */
void block_units(const struct block *b, int *attentions, int *glus);

/* What a step or block is, in a few words, for tables and drawings: "grouped attention, 8/4 heads of 32, causal, rotary". */
const char *block_text(const struct block *b, struct arena *a);

#endif
