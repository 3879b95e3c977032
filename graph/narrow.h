/*
 * Axes of a part of a graph that can be cut short, so that what the part computes is told from less.
 *
 * Along some axes, as those of heads and of the columns of values, every index is by itself and treated like the others: each node takes the axis along, and no
 * constant differs along it. On a few indices the part then computes what it computes on all of them. An axis that is treated so but
 * for being summed over at last, as the features of keys are, is another matter: a few of its indices give a hint, all of them the answer.
 */
#ifndef LINNET_NARROW_H
#define LINNET_NARROW_H

#include "graph/graph.h"

enum { NARROW_LABELS = 256 };

struct narrow_label {
	uint8_t same;    /* the label it is the same as, or itself */
	uint8_t part[2]; /* two axes as one, the outer one first; 0: one */
	bool mixed, summed;
	dim whole;
	int64_t cut; /* of lengths that are numbers */
};

struct narrow_labels {
	struct narrow_label of[NARROW_LABELS];
	int n;
	bool sums; /* what is summed over is cut short as well */
};

struct narrowing {
	const struct graph *g;
	uint8_t (*axis)[MAX_RANK];    /* by value: labels of its axes, 0: none */
	uint8_t (**fixed)[MAX_RANK];  /* by node: of those of its inputs that depend on nothing but lengths; NULL: none */
	struct narrowing **inner;     /* by node: of its body; NULL: all of it is whole */
	struct narrow_labels *labels; /* of the part and the bodies in it */
};

/*
 * fixed: by value, those that depend on nothing but lengths. They are always computed whole. known: what they are for some lengths, NULL where that
 * is not known; the answer is for those lengths. order: what computes the part from `given`, producers first.
 */
enum linnet_code narrow_read(const struct graph *g, const node_id *order, uint32_t norder, const value_id *given, int ngiven, const bool *fixed,
                             const struct tensor *const *known, struct arena *a, struct narrowing **out, struct linnet_error *e);

/* What v's axis k is cut to, and its whole length; 0: it stays as it is. */
int64_t narrow_cut(const struct narrowing *w, value_id v, int k);
int64_t narrow_whole(const struct narrowing *w, value_id v, int k);

/* Tells v's axis k from others: the same where indices are the same ones, 0 where they meet. */
uint8_t narrow_axis(const struct narrowing *w, value_id v, int k);

/* What input i of a node, one that depends on nothing but lengths, is cut to along its axis k; 0: it stays. */
int64_t narrow_fixed(const struct narrowing *w, node_id id, uint32_t i, int k);

#endif
