/*
 * Mixtures of experts: a router, which is a projection whose result chooses or weighs, and experts beside each other, whichever way they are spelled. A pure
 * function of a graph that the exact passes have gone over.
 */
#ifndef LINNET_EXPERTS_H
#define LINNET_EXPERTS_H

#include "graph/recognise.h"

struct experts {
	int64_t experts, top_k;  /* top_k: chosen of them; as many as there are where all are weighed */
	const char *router;      /* what makes weights of its scores: softmax, sigmoid, none; "softmax of chosen": the choice comes first */
	const char *spelling;    /* node (MoE, QMoE), units (one beside the other), stacked (one product for all), gathered (weights of the chosen), loop, branches */
	const char *variant;     /* of experts that are gated units: as in glu_group; "mlp" of others */
	node_id chooser;         /* the projection of the router, or the node MoE */
	node_id first;           /* a node of an expert, or that holds one */
	value_id out;            /* where the experts are one value again; 0: not found */
};

struct mixtures {
	struct experts *list;
	int n;
};

enum linnet_code graph_experts(const struct view *w, struct arena *a, struct mixtures *out, struct linnet_error *e);

/* The mixture of which n is the softmax or sigmoid of the router; NULL. */
const struct experts *experts_routed(const struct view *w, const struct mixtures *m, const struct node *n);

bool experts_alike(const struct experts *a, const struct experts *b);

/* "8 experts, top 2 by softmax, swiglu, gathered" */
const char *experts_text(const struct experts *x, struct arena *a);

#endif
