/*
 * What a mask is, decided by evaluating it: causality is a property of values, not of a pattern, so spellings nobody
 * listed are met too.
 */
#ifndef LINNET_MASK_H
#define LINNET_MASK_H

#include "graph/graph.h"

/*
 * An additive (float) or boolean (true: visible) mask [..., L, S] as seen over several assignments of the symbolic lengths
 * and, when it depends on data, over several draws of the graph's inputs. A property holds when it held every time.
 */
struct mask {
	bool known;       /* it could be evaluated */
	bool data;        /* it depends on the data of graph inputs, not only on lengths */
	bool zero;        /* every entry is visible with bias 0 */
	bool shown;       /* every query sees some key */
	bool plain;       /* visible entries have bias 0 */
	bool within;      /* nothing beyond the causal diagonal is visible, with keys counted from the start */
	bool within_past; /* the same when the queries are the last L of the S keys */
	bool causal;      /* visible exactly up to the diagonal (top left) */
	bool causal_past; /* visible exactly up to the diagonal (bottom right) */
	bool by_key;      /* with `within` (or without any masked entry beyond the keys'): visible entries and biases depend on the key only */
	int64_t left;     /* sliding window: keys before the query's own that are visible; -1 unbounded or no window */
	int64_t reach;    /* no query sees more keys than these before its own, and of those in the window by_key holds; -1: not so */
};

/* masked: entries at or below this count as hidden. */
#define MASK_HIDDEN (-1e4)

enum linnet_code mask_classify(const struct graph *g, value_id v, struct mask *out, struct linnet_error *e);

/*
 * Slopes of ALiBi: what a key up to the query's own gains over the one before it, the same for all queries, above 0, [heads]; keys are counted
 * up to the last query's. NULL when v is something else, hides such keys, or depends on the data of graph inputs.
 */
enum linnet_code mask_slopes(const struct graph *g, value_id v, int64_t heads, struct arena *a, double **slope, struct linnet_error *e);

/*
 * Evaluate v by reference kernels, with the small lengths of that trial (0 to 4) for the symbols. draw: data of graph inputs, all ones at
 * trial 0 and seeded small numbers after; without draw, needing their data makes it fail.
 * *out is NULL when it cannot be evaluated (depends on data and !draw, an operator without kernel, too large).
 */
enum linnet_code value_eval(const struct graph *g, value_id v, int trial, bool draw, struct arena *a, const struct tensor **out,
                            struct linnet_error *e);

#endif
