/* Inputs of models from the command line, and the options about running that commands share. */
#ifndef LINNET_CLI_INPUTS_H
#define LINNET_CLI_INPUTS_H

#include "cli/cli.h"
#include "validate/validate.h"

/*
 * Fill in[] of the graph's inputs from options --input (NAME=FILE; an .npz may go without a name and gives all its members that are
 * inputs) and --data (a folder with input_<i>.pb). Returns an exit status; what is wrong has been printed.
 */
int read_inputs(const struct graph *g, const struct opt_list *input, const char *folder, struct arena *a,
                const struct tensor **in);

/* --dim NAME=N, of lengths that the graph's inputs have; a list in the arena. Returns an exit status; what is wrong has been printed. */
int read_dims(const struct graph *g, const char *path, const struct opt_list *dims, struct arena *a, struct gen_opt *gen);

/* --kernels */
enum kernels kernels_named(const char *name);


/* Numbers of a tensor, as a person wants them. */
struct summary {
	double min, max, mean;
	int64_t nan, inf;
};

struct summary summarise(const struct tensor *t);

#endif
