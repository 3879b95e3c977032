/*
 * The part of a graph that mixes tokens to make a value, and where it begins.
 *
 * A part consists of operators that make polynomials of what enters it, and exponentials. It begins with the values that lie in front of what
 * mixes tokens: sums along them, products that sum over them, loops over them, parts of them cut out and joined.
 */
#ifndef LINNET_REGION_H
#define LINNET_REGION_H

#include "graph/pass.h"

enum { MAX_MEMBERS = 7 };

enum region_kind { REGION_UNSEEN, REGION_FIXED, REGION_SOURCE, REGION_TOKEN, REGION_MIXED };

/* What is known of all of a graph. */
struct terrain {
	const struct graph *g;
	node_id *order;
	uint32_t norder;
	uint32_t *at;    /* by node: its place in the order */
	bool *fixed;     /* by value: a function of lengths */
	bool *loose;     /* by value: something may mix tokens in what made it */
	uint8_t *kind;   /* by value: enum region_kind, for one part at a time */
	struct arena *a; /* for one part at a time */
	struct count {
		dim tokens, d;
		bool same;
	} count[256];    /* what region_counts() said of them; tokens 0: nothing */
};

struct region {
	value_id o;
	dim tokens;               /* the length that counts tokens: a symbol, or a number */
	value_id member[MAX_MEMBERS];
	int nmember;              /* more than MAX_MEMBERS: too many */
	node_id *node;            /* of the part, producers first, with what computes constants of lengths in it */
	uint32_t nnode;
	value_id *mixed;          /* values that mix */
	uint32_t nmixed;
	unsigned how;             /* what of REGION_SPLIT and REGION_ROWS made a difference */
	bool ordered;             /* something in it tells tokens apart by their places */
};

/* The operators that parts consist of. */
bool region_makes_polynomial(const struct node *n);

enum linnet_code terrain_survey(const struct graph *g, struct arena *a, struct terrain *t, struct linnet_error *e);

/* How to read a part. REGION_SPLIT: a product with something that enters elsewhere too is part of it, as keys times beta are in the delta rule.
 * REGION_ROWS: where two axes are as long as there are tokens, a Reshape that keeps the first one cuts features of tokens into heads. */
enum { REGION_SPLIT = 1, REGION_ROWS = 2, REGION_WAYS = 4 };

/* The part that makes o; *found: there is one, of a size worth looking at. */
enum linnet_code region_read(struct terrain *t, value_id o, dim tokens, unsigned how, struct region *r, bool *found, struct linnet_error *e);

/* Whether d is the number of tokens, or that in whole chunks. */
bool region_counts(const struct graph *g, dim tokens, dim d);

/* Nodes that are needed to compute v from the members, in order; nodes of length computations included. */
enum linnet_code region_nodes(struct terrain *t, const value_id *want, int nwant, const value_id *given, int ngiven, node_id **out, uint32_t *n,
                              struct linnet_error *e);

#endif
