/* Operators of the recurrent family: reference kernels, then rows. */
#include "ops/op.h"

static const struct op rows[1];

const struct op_family recurrent_ops = { .name = "recurrent", .op = rows, .n = 0 };
