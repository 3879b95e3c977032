/* Operators of the logic family: reference kernels, then rows. */
#include "ops/op.h"

static const struct op rows[1];

const struct op_family logic_ops = { .name = "logic", .op = rows, .n = 0 };
