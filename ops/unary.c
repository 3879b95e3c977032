/* Operators of the unary family: reference kernels, then rows. */
#include "ops/op.h"

static const struct op rows[1];

const struct op_family unary_ops = { .name = "unary", .op = rows, .n = 0 };
