/* Whether a conversion says the same in every target's words. */
#ifndef LINNET_AGREE_H
#define LINNET_AGREE_H

#include "converter/convert.h"
#include "validate/validate.h"

enum {
	AGREE_TOKENS = 12, /* of the drawn sequence */
	AGREE_LEAST = 3,
	AGREE_MOST = 4096, /* where the model does not run on fewer */
	AGREE_CHUNK = 5,   /* of the forms compared */
	AGREE_WINDOW = 3,  /* in place of one that would see all tokens */
	AGREE_SLACK = 16   /* root mean square errors may be as many units of rounding, times the condition number */
};
#define AGREE_WORK 2e8 /* numbers of the model times tokens that are worth a certificate */

/* A target beside the portable form. */
struct agreement_pair {
	enum target target;
	bool narrow;        /* compared in float: an operator knows no double */
	double nmse, bound; /* the largest of an output; what rounding explains */
	bool agrees;
	const char *failed; /* why it could not be run; NULL otherwise */
};

struct agreement {
	uint64_t seed;
	int64_t tokens;
	int window;       /* in place of the one asked for; 0: that */
	double condition; /* how much larger than a unit of rounding the forms' errors in float are, at least 1 */
	struct agreement_pair pair[NTARGET];
	int npair;
	bool agree;
	const char *skipped; /* why nothing was compared; NULL otherwise */
};

/*
 * m, as imported, converted once more for each target (in chunks of AGREE_CHUNK tokens, from constants in double) and run by reference kernels in double precision on one
 * drawn sequence; step and chunk forms get it in pieces. `converted`: how many attentions are to become linear; a target that cannot say all
 * of them is left out. Errors in double have to be as much smaller than those in float as its units are: what is no rounding is not.
 */
enum linnet_code targets_agree(const struct linnet_model *m, const struct convert_opt *opt, uint32_t converted, struct arena *keep,
                               struct agreement *out, struct linnet_error *e);

#endif
