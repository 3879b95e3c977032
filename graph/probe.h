/*
 * Computing a part of a graph in double precision, with numbers given for the values where it begins: what a part computes is told
 * from what comes out. Loops and scans are run; nothing else is known of operators than their kernels.
 */
#ifndef LINNET_PROBE_H
#define LINNET_PROBE_H

#include "graph/narrow.h"

struct probe {
	const struct graph *g;
	const node_id *order; /* nodes of the part, producers first */
	uint32_t norder;
	struct arena *a;
	const struct tensor **value; /* by value: what is given, then what was computed; numbers with a point are doubles */
	const char *tokens;          /* this symbol has length `length`, all others have length 2 */
	int64_t length;
	const struct narrowing *narrow; /* NULL, or which axes are cut short */
	double work;                 /* so far */
};

/* A dim as a number, DIM_NONE when it has none. */
dim probe_length(const struct probe *p, dim d);

/* v's shape in numbers, where it is cut short the shorter ones. */
bool probe_shape(const struct probe *p, value_id v, int64_t *d);

/* Compute all nodes of the part; *can: whether that was possible (an operator without kernel, lengths that do not go together, too many elements). */
enum linnet_code probe_run(struct probe *p, bool *can, struct linnet_error *e);

/* One node of inputs like that: value[i] is output i, as a double when it is a number with a point, NULL where the node has none. *can: there is a kernel, and it did. */
enum linnet_code probe_node(const struct graph *g, const struct node *n, const struct tensor *const *in, struct arena *a, const struct tensor **value, bool *can,
                            struct linnet_error *e);

#endif
