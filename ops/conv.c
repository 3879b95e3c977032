/* Operators of the conv family: reference kernels, then rows. */
#include "ops/op.h"

static const struct op rows[1];

const struct op_family conv_ops = { .name = "conv", .op = rows, .n = 0 };
