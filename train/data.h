/* What the trainer asks of its data. */
#ifndef LINNET_TRAIN_DATA_H
#define LINNET_TRAIN_DATA_H

#include "ops/base/rng.h"
#include "runtime/data.h"
#include "train/train.h"

/* One file's piece of a series. */
struct part {
	const struct tensor *t;
	int64_t from;        /* the number of its first sample or token in the series */
	const char *path;
};

/* Samples of an input, or tokens, one file after the other. */
struct series {
	const char *name;    /* of the input */
	struct part *part;
	int npart;
	uint32_t cap;
	int64_t n;           /* samples or tokens in all */
};

struct train_data {
	struct arena *arena;
	struct series stream; /* of tokens; none: it has no parts */
	struct series *array;
	int narray;
	uint32_t cap;
	int64_t shard, shards; /* of the samples, every shards-th from number shard on */
	int64_t *order;        /* of the samples, in one epoch */
	int64_t epoch, norder; /* which one, -1: none yet; how many */
};

static inline bool data_is_stream(const struct train_data *d) { return d->stream.npart > 0; }

/* Samples there are in the shard: windows of `length` tokens with one more, or the arrays' common first length. */
enum linnet_code data_samples(const struct train_data *d, int64_t length, int64_t *n, struct linnet_error *e);

/*
 * Where sample number i of all epochs lies, each epoch in an order of its own that follows from the seed: a row, or the first token of a
 * window. Windows of different epochs begin at different tokens. shuffled false: in their order.
 */
enum linnet_code data_sample(struct train_data *d, int64_t length, uint64_t seed, bool shuffled, int64_t i, int64_t *at,
                             struct linnet_error *e);

/* The samples of the input `name`, or NULL. */
const struct series *data_array(const struct train_data *d, const char *name);

/* The piece that holds element i of the series. */
const struct part *series_part(const struct series *s, int64_t i);

/* to[0 .. n) = tokens from number `at` on; to: of any integer type. */
void data_tokens(const struct train_data *d, int64_t at, int64_t n, struct tensor *to, int64_t to_at);

/* LINNET_EVALUE where a token is not in [0, vocabulary). The file's pages are given back on the way. */
enum linnet_code data_check_tokens(const struct train_data *d, int64_t vocabulary, struct linnet_error *e);

#endif
