/*
 * What a mask is, decided by evaluating it: causality is a property of values, not of a pattern, so spellings nobody
 * listed are met too.
 */
#ifndef LINNET_MASK_H
#define LINNET_MASK_H

#include "graph/sample.h"

/*
 * An additive (float) or boolean (true: visible) mask [..., L, S] as seen in all samples of it: at several assignments of the symbolic lengths, short
 * ones and beyond every number in its expression, and, when it depends on data, over several draws of the graph's inputs. A property holds when
 * it held every time.
 */
struct mask {
	bool known;       /* it could be evaluated */
	bool data;        /* it depends on the data of graph inputs, not only on lengths */
	bool zero;        /* every entry is visible with bias 0 */
	bool shown;       /* every query sees some key up to its own */
	bool shut;        /* some entry hides by false or -inf; large negative numbers that hide all keys alike hide none */
	bool blind;       /* some row hides every key so */
	bool plain;       /* visible entries have bias 0 */
	bool within;      /* nothing beyond the causal diagonal is visible, with keys counted from the start */
	bool within_past; /* the same when the queries are the last L of the S keys */
	bool told, told_past; /* of those: some query sees a key that the first query does not */
	bool causal;      /* visible exactly up to the diagonal (top left) */
	bool causal_past; /* visible exactly up to the diagonal (bottom right) */
	bool by_key;      /* with `within` (or without any masked entry beyond the keys'): visible entries and biases depend on the key only */
	int64_t left;     /* sliding window: keys before the query's own that are visible; -1 unbounded or no window */
	int64_t reach;    /* no query sees more keys than these before its own, and of those in the window by_key holds; -1: not so */
};

/* Entries at or below this count as hidden. */
#define MASK_HIDDEN (-1e4)

/* Bias of an entry of a mask; -INFINITY when hidden. */
double mask_entry(const struct tensor *t, int64_t i);

/* Biases x and, so many places on, y lie on a line of that slope, up to rounding; a slope of 0 is not known yet and set. False also where it is 0. */
bool mask_goes_on(double x, double y, int64_t places, double *slope);

enum linnet_code mask_classify(const struct graph *g, value_id v, struct mask *out, struct linnet_error *e);

/*
 * Slopes of ALiBi: what a key up to the query's own gains over the one before it, the same for all queries, above 0, [heads]; keys are counted
 * up to the last query's. hides: data of graph inputs says besides which keys are hidden, the same ones from all queries and heads; behind hidden keys
 * places are counted with or without them. NULL when v is something else.
 */
enum linnet_code mask_slopes(const struct graph *g, value_id v, int64_t heads, struct arena *a, double **slope, bool *hides, struct linnet_error *e);

#endif
