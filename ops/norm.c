/* Operators of the norm family: reference kernels, then rows. */
#include "ops/op.h"

static const struct op rows[1];

const struct op_family norm_ops = { .name = "norm", .op = rows, .n = 0 };
