/* The exact side of linnet convert, and its certificates. */
#ifndef LINNET_CLI_AGAIN_H
#define LINNET_CLI_AGAIN_H

#include "cli/cli.h"

struct again_opt {
	const char *extract, *fuse, *certify;
	struct opt_list dim, external_data;
	bool simplify, expand, float16, bfloat16, float32, keep_io, external;
	int64_t opset, seed, cases;
};

/* Whether one of them was given, apart from those that linear attention has too: opset, seed, external. */
bool again_given(const struct again_opt *o);

/* Say a model again; the exit status. */
int again_run(const struct again_opt *o, const char *in, const char *out);

#endif
