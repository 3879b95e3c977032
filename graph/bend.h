/*
 * Functions of one number, at each place of a value, told by what they compute: activations however they are spelled.
 *
 * Nothing is matched. Operators that work place by place are computed in double precision for some numbers, and what comes out is compared
 * with what ONNX's activations make of them.
 */
#ifndef LINNET_BEND_H
#define LINNET_BEND_H

#include "graph/pass.h"

enum { MAX_FACTORS = 8 };

/* c times powers, 1 and -1, of factors. */
struct factors {
	double c;
	value_id v[MAX_FACTORS];
	int power[MAX_FACTORS];
	int n;
};

/* scale * op(x) */
struct bend {
	const char *op;
	value_id x;
	struct attr attr[2]; /* terminated by a NULL name */
	double scale;
	unsigned of;         /* bits: the factors that it is the product of */
};

/* Factors of f that are together an activation of one value; *found: there are such, and fewer nodes say it than do now. y: the product. */
enum linnet_code bend_read(const struct view *w, const struct factors *f, value_id y, struct bend *out, bool *found, struct linnet_error *e);

#endif
