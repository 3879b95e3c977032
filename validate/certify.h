/* Evidence that a rewriting keeps what a model computes: for every step a proof by structure or a test on drawn inputs. */
#ifndef LINNET_CERTIFY_H
#define LINNET_CERTIFY_H

#include "graph/rewrite.h"
#include "validate/validate.h"

/* A change by a rule: the nodes it replaced. */
struct certified_change {
	const char *rule;
	const char *node;        /* the last one made */
	const char *const *of;   /* names, as the file has them */
	uint32_t nof;
};

struct certified_step {
	const char *name;
	uint32_t changes;
	char before[41], digest[41]; /* of the graph before and behind it */
	bool proved;             /* the digest is the one before; nothing is run then */
	bool approximate;
	const char *untested;    /* why nothing could be run, NULL otherwise */
	double max_abs, max_rel; /* largest differences of outputs, computed in double precision */
	const struct certified_change *change;
	uint32_t nchange;
	const char *const *dropped; /* nodes that are gone and stand for nothing new */
	uint32_t ndropped;
};

/* Zeroed with arena, cases and seed set; rewrite()'s `watch` is certify_watch with this as ctx. Strings live in the arena. */
struct certificate {
	struct arena *arena;
	int cases;
	uint64_t seed;
	char before[41], after[41]; /* digests */
	struct certified_step *step;
	uint32_t nstep, cap;
	struct graph *last;      /* as it was behind the last step */
	struct arena *last_arena;
};

enum linnet_code certify_watch(void *certificate, const struct rewrite_step *step, const struct graph *g, struct linnet_error *e);
void certificate_release(struct certificate *c);

/*
 * Largest differences between two graphs' outputs in double precision, over cases drawn from the seed. Symbolic lengths are 5, or, where the model
 * cannot be run with that, the first of a few others with which it can.
 */
enum linnet_code certify_compare(const struct graph *a, const struct graph *b, int cases, uint64_t seed, double *max_abs, double *max_rel,
                                 struct linnet_error *e);

/* The same for symbolic lengths all of that number; 0: drawn for each case. */
enum linnet_code certify_compare_at(const struct graph *a, const struct graph *b, int cases, uint64_t seed, int64_t length, double *max_abs,
                                    double *max_rel, struct linnet_error *e);

#endif
