/* What the trainer asks of its data. */
#ifndef LINNET_TRAIN_DATA_H
#define LINNET_TRAIN_DATA_H

#include "ops/base/rng.h"
#include "runtime/data.h"
#include "train/train.h"

struct train_data {
	struct arena *arena;
	const struct tensor *stream; /* of tokens, or NULL */
	const char *path;            /* of the stream */
	struct named_tensor *array;
	int narray, cap;
	int64_t *order;              /* of the samples, in one epoch */
	int64_t epoch, norder;       /* which one, -1: none yet; how many */
};

/* Samples there are: windows of `length` tokens with one more, or the arrays' common first length. */
enum linnet_code data_samples(const struct train_data *d, int64_t length, int64_t *n, struct linnet_error *e);

/*
 * Where sample number i of all epochs lies, each epoch in an order of its own that follows from the seed: a row, or the first token of a
 * window. Windows of different epochs begin at different tokens. shuffled false: in their order.
 */
enum linnet_code data_sample(struct train_data *d, int64_t length, uint64_t seed, bool shuffled, int64_t i, int64_t *at,
                             struct linnet_error *e);

const struct tensor *data_array(const struct train_data *d, const char *name);

#endif
