/*
 * Values at chosen lengths and places, from which masks are told. The lengths are small ones, and such as the constants in a value's
 * expression suggest: where a window of 64 shows itself, and beyond. Of long axes some rows and columns are computed, so that a length costs
 * little however large.
 */
#ifndef LINNET_SAMPLE_H
#define LINNET_SAMPLE_H

#include "graph/graph.h"

/* v [..., L, S] for one assignment of lengths (and one draw of the data of graph inputs) at some rows and columns. */
struct sample {
	const struct tensor *t;   /* [..., those rows, those columns] */
	int64_t L, S;             /* 1 where v has no such axis */
	const int64_t *row, *col; /* places, ascending, first and last among them */
	const int64_t *head;      /* of the axis before them; NULL: all of it */
	bool ones;                /* no input had data other than ones */
	bool far;                 /* of the long lengths */
};

enum { MAX_SAMPLES = 48 };

struct samples {
	struct sample at[MAX_SAMPLES];
	int n;       /* 0: v cannot be told, as it needs data that is not drawn, or an operator without kernel */
	bool data;   /* it depends on the data of inputs, not only on lengths */
	bool unsure; /* long lengths take too long, or are more than could be tried */
};

/*
 * By reference kernels. draw: data of graph inputs, all ones or seeded small numbers; without draw, needing them means v cannot be told.
 * far: at long lengths too. Then whatever depends on places through constants that occur in v's expression, and arrays as they occur in it, shows in some sample.
 */
enum linnet_code samples_take(const struct graph *g, value_id v, bool draw, bool far, struct arena *a, struct samples *out, struct linnet_error *e);

/* What is taken as known of values that v is computed from. */
struct given {
	const value_id *position; /* integer inputs: the data is the places 0, 1, ... of the last axis, and ones that of all others */
	int nposition;
	const value_id *content;  /* their data is ones, whatever they are computed from */
	int ncontent;
	dim keys;                 /* v's last axis is as long, or 1; DIM_NONE: that is not known */
	int beyond;               /* last columns of v that are no keys */
};

/* The same with that, at those of the lengths at which v can be computed. Where the axis of positions is as long as v has rows, and v has more columns, the rows are the last ones. */
enum linnet_code samples_given(const struct graph *g, value_id v, const struct given *given, bool far, struct arena *a, struct samples *out,
                               struct linnet_error *e);

/*
 * v at small lengths from random numbers in place of inputs and of what is projected, so that equal parts of v are the same
 * part laid out several times. NULL: it cannot be computed.
 */
enum linnet_code sample_layout(const struct graph *g, value_id v, struct arena *a, const struct tensor **out, struct linnet_error *e);

/*
 * v at small lengths from projections and inputs whose numbers differ along their channels alone, and integers that are one: where v differs between places
 * of its leading axes, they hold different channels. NULL: it cannot be computed.
 */
enum linnet_code sample_channels(const struct graph *g, value_id v, struct arena *a, const struct tensor **out, struct linnet_error *e);

/* Whether place j of an axis follows place j - 1 in the sample too. */
static inline bool places_join(const int64_t *place, int64_t j) { return place[j] == place[j - 1] + 1; }

#endif
