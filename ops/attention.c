/* Operators of the attention family: reference kernels, then rows. */
#include "ops/op.h"

static const struct op rows[1];

const struct op_family attention_ops = { .name = "attention", .op = rows, .n = 0 };
