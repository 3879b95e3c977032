/* Einsum's equation, as its kernels read it. */
#ifndef LINNET_EINSUM_H
#define LINNET_EINSUM_H

#include "ops/op.h"

/* Labels: letters, then ellipsis axes counted from the right so that they broadcast. */
enum { LETTERS = 52, NLABEL = LETTERS + MAX_RANK };

struct labels {
	int n;
	int at[MAX_RANK];
};

/* An equation being read: a term for each operand, then the output. */
struct equation {
	struct text all, rest;
	int noperand, n;       /* operands; terms read */
	int count[NLABEL];     /* how often the operands have the label */
	int ellipsis;          /* axes that an ellipsis stands for at most */
};

void equation_begin(struct equation *q, struct text equation, int noperand);
enum linnet_code equation_term(struct equation *q, int rank, struct labels *out, struct linnet_error *e);
enum linnet_code equation_end(struct equation *q, struct labels *out, struct linnet_error *e);

struct einsum {
	int64_t length[NLABEL];       /* 1 for labels that do not occur */
	int64_t (*stride)[NLABEL];    /* of each operand, 0 where it is broadcast or has not the label; given as zeros */
	struct labels out;
	int nsum, sum[NLABEL];        /* labels that the output has not */
};

/* out->stride has room for all operands. */
enum linnet_code einsum_read(const struct kernel_call *c, struct einsum *out);

#endif
