/* Operators of the reduce family: reference kernels, then rows. */
#include "ops/op.h"

static const struct op rows[1];

const struct op_family reduce_ops = { .name = "reduce", .op = rows, .n = 0 };
