/*
 * Saying a model again: the same computation in other words, on other inputs and outputs, or in another precision.
 *
 * Each of these changes a model's graph and leaves it with types; rewrite() does what its options ask for in a fixed order.
 */
#ifndef LINNET_REWRITE_H
#define LINNET_REWRITE_H

#include "graph/graph.h"

/* ---- extract.c ---- */

/*
 * Keep what computes values TO from values FROM: "a,b..c,d", names of values. Left out, FROM is the graph's inputs and TO its
 * outputs. FROM become inputs, TO outputs; inputs of the graph that are still needed stay. LINNET_EUSAGE: no such value, or
 * one that nothing in TO depends on. Or a block of the network (blocks.h): "layer 2", or its name.
 */
enum linnet_code graph_extract(struct graph *g, const char *from_to, struct linnet_error *e);

/* "batch=1": that symbol in the lengths of inputs becomes the number; types are found anew. LINNET_EUSAGE: no input has the symbol. */
enum linnet_code graph_fix_dim(struct graph *g, const char *setting, struct linnet_error *e);
/* LINNET_EUSAGE: the lengths of inputs have no such symbol; names those that they have. */
enum linnet_code graph_has_dim(const struct graph *g, const char *symbol, struct linnet_error *e);
/* As graph_fix_dim() by the symbol's name, and the length may be an expression. */
enum linnet_code graph_set_dim(struct graph *g, const char *symbol, dim by, struct linnet_error *e);

/* ---- precision.c ---- */

/* A node left as it was, or a constant that had to be changed, and why. */
typedef void precision_note(void *ctx, const char *name, const char *op, const char *why);

struct precision {
	dtype_set from;
	enum dtype to;
	int opset;           /* element types must be admitted there; 0: the newest */
	bool keep_io;        /* inputs and outputs stay as they are, with Cast nodes behind and before them */
	bool faithful;       /* leave no node as it was for the sake of its accuracy */
	precision_note *note; /* or NULL */
	void *ctx;
};

/*
 * Constants and values of element types `from` become `to`. Nodes that do not take it, and (unless faithful) those whose results would be lost in it,
 * keep theirs between Cast nodes.
 */
enum linnet_code graph_precision(struct graph *g, const struct precision *p, struct linnet_error *e);

/* ---- canon.c ---- */

/*
 * The sha1 of what the graph computes, as far as structure says it: names, the order of nodes and of a sum's operands, identities and unused nodes do
 * not count, and constants count by their contents, however computed. Equal digests: the same function of inputs of the same names.
 */
enum linnet_code graph_digest(const struct graph *g, char hex[41], struct linnet_error *e);

/* ---- rewrite.c ---- */

enum fuse { FUSE_NONE, FUSE_ONNX, FUSE_ORT };

struct rewrite_step {
	const char *name;   /* "extract", "fix-dim", a pass's name, ... */
	uint32_t changes;
	bool approximate;   /* another precision */
};

struct rewrite_opt {
	int opset;          /* wanted; 0: the model's own */
	const char *extract; /* or NULL */
	const char *const *dim; /* "name=number" */
	int ndim;
	bool simplify, expand;
	enum fuse fuse;
	enum dtype to;      /* DT_UNDEFINED: no other precision */
	bool keep_io;
	precision_note *note;
	/* Called with the graph as it is before the first step (step NULL) and after each that changed something. */
	enum linnet_code (*watch)(void *ctx, const struct rewrite_step *step, const struct graph *g, struct linnet_error *e);
	void *ctx; /* of note and watch */
};

/* Of ai.onnx. */
int own_opset(const struct linnet_model *m);

/*
 * m->changed afterwards: whether there is anything new to export. Carry the options out: extract, fix dims, simplify, fuse or expand, precision. The model is not exported: graph_export() with the same opset does that.
 */
enum linnet_code rewrite(struct linnet_model *m, const struct rewrite_opt *o, struct linnet_error *e);

#endif
