/* Drawn calls of single operators: what the row, its shape function and its `fuzz` column admit. For tests. */
#ifndef LINNET_GEN_OP_H
#define LINNET_GEN_OP_H

#include "ops/base/rng.h"
#include "ops/op.h"

enum { CALL_MAX = 40 }; /* inputs or outputs of a drawn call */

/* A call of one operator with concrete inputs. */
struct call {
	const struct op *op;
	struct attr *given; /* those written, ngiven of them */
	size_t ngiven;
	struct attr *attr;  /* all, in row order */
	int nin, nout;
	const struct tensor *in[CALL_MAX]; /* NULL: left out */
	bool wanted[CALL_MAX];
	struct type out[CALL_MAX];
};

struct call_opt {
	dtype_set types;  /* bind type variables within these where the row allows; 0: any */
	bool extreme;     /* values: NaN, infinities, denormals and the ends of integers too */
	int64_t elements; /* at most, a tensor; 0: 3000 */
};

/*
 * A call that the row's shape function accepts: type variables bound within their sets, attributes within their ranges, inputs one
 * after the other, each redrawn until the shape function, which serves calls known in part, has nothing against it. Lengths are
 * mostly those already there, and 0, 1, small, odd and up to 100. Calls whose kernel refuses the values (an index out of range)
 * may be among them.
 *
 * Errors: the shape function's last one when no call was found; LINNET_EUNSUPPORTED subgraphs and the like; LINNET_EMEM.
 */
enum linnet_code gen_call(const struct op *op, const struct call_opt *opt, struct rng *r, struct arena *a, struct call *out,
                          struct linnet_error *e);

/* The types of the call's outputs into c->out. */
enum linnet_code call_infer(struct call *c, struct arena *a, struct linnet_error *e);

/* Attributes as they stand in a node's text, " <axis = 1>" or "". */
const char *call_attr_text(const struct call *c, struct arena *a);

/* The call as a case of tests/ops: node and inputs. NULL without memory. */
const char *call_text(const struct call *c, struct arena *a);

#endif
