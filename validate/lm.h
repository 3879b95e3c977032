/* What a language model takes and gives, found by types and names; shared by measuring (lm.c) and generating (generate.c). */
#ifndef LINNET_LM_H
#define LINNET_LM_H

#include "validate/validate.h"

struct lm {
	const struct graph *g;
	struct session *session;
	uint32_t *in, nin; /* inputs that are no states */
	int tokens;        /* which of `in` */
	int logits;        /* which output that is no state */
};

/* Lists in the arena; to be closed whatever the result. Errors: LINNET_EUNSUPPORTED no tokens or no logits; what a session gives. */
enum linnet_code lm_open(struct lm *m, const struct graph *g, const struct run_opt *opt, struct arena *a, struct linnet_error *e);
void lm_close(struct lm *m);

/*
 * One run over ids: [rows, length], the tokens at positions from `past` on, states going on from the last run. Masks are ones over past and
 * new tokens, positions count on. *logits: [rows, length, vocabulary], the caller's to release.
 */
enum linnet_code lm_run(struct lm *m, const struct tensor *ids, int64_t past, struct arena *scratch, struct tensor **logits, struct linnet_error *e);

#endif
