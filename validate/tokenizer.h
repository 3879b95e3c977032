/* Byte-level BPE: text to tokens and back. */
#ifndef LINNET_TOKENIZER_H
#define LINNET_TOKENIZER_H

#include "ops/base/arena.h"
#include "ops/base/dtype.h"
#include "ops/base/err.h"

struct merge; /* of two tokens to a third */

struct tokenizer {
	int64_t n;
	struct text *token; /* the bytes of each */
	struct merge *slot; /* a hash table of nslot, a power of two */
	uint64_t nslot;
	int32_t byte[256]; /* token of each single byte, -1: none */
};

/*
 * A vocabulary file: lines `hex left right` in the order of ids, a token's bytes and the ids it merges (-1 -1: no merge); '#' starts a
 * comment. Lives in the arena. LINNET_EFORMAT names the token that is wrong.
 */
enum linnet_code tokenizer_load(const char *path, struct arena *a, struct tokenizer **out, struct linnet_error *e);

/*
 * Tokens of a text: it is cut by ` ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9\n ]|[\n ]` from left to right, and in each piece neighbours are merged,
 * the pair with the lowest id first, the leftmost of equals. LINNET_EVALUE for a byte that has no token.
 */
enum linnet_code tokenizer_encode(const struct tokenizer *t, struct text s, struct arena *a, int64_t **ids, int64_t *n, struct linnet_error *e);

#endif
