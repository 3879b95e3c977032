/* Opening models for commands. */
#ifndef LINNET_CLI_MODEL_H
#define LINNET_CLI_MODEL_H

#include "cli/cli.h"
#include "graph/graph.h"
#include "train/train.h"

/* Load and import; prints the error and gives its exit status when that fails. "-" is standard input. */
int open_model(const char *path, struct linnet_model **m);

/* The same with the exact passes made, unless it is to be as written. */
int open_for_running(const char *path, bool as_written, struct linnet_model **m);

/* Export at that opset (0: the model's own) and write; the exit status, with the error printed. source: of the model, for errors. */
int save_model(struct linnet_model *m, int opset, bool external, const char *source, const char *path);

/* Load only the container. */
int open_container(const char *path, struct linnet_model **m);

/* "float[batch,seq,64]" of a value; in the arena. */
const char *type_words(const struct graph *g, const struct type *t, struct arena *a);

#endif
