/*
 * Storage of the executor's tensors: counted blocks with a number of holders each, cached by a pool between uses.
 * Blocks handed to a caller stay counted by the pool of their plan until they are released, also after the plan is gone.
 */
#ifndef LINNET_MEMORY_H
#define LINNET_MEMORY_H

#include "ops/base/shape.h"

enum { POOL_BINS = 512 };

#define MEMORY_MAX ((int64_t)1 << 40) /* default bound of a pool, and of one tensor outside pools */

struct pool;

/*
 * The tensor comes first: what a caller gets is &block->t. The data follows the header, but of a member that shares another's: it
 * has `base`, or its data outlives the run. t is filled in blocks that are handed out, hold members or are one.
 * Members are blocks, of which the block that has them is one holder.
 */
struct block {
	struct tensor t;
	struct block *base; /* whose data t has; NULL: its own, or the caller's */
	struct pool *pool; /* NULL: made by tensor_make() */
	struct block *next; /* in a bin */
	size_t capacity;    /* bytes of data there is room for */
	int64_t counted;    /* bytes of data asked for */
	uint32_t holders;
};

/* A tensor as the executor holds it. block NULL: the data lives longer than the run (a constant, a caller's input). */
struct held {
	struct tensor t;
	struct block *block;
};

struct pool *pool_new(int64_t max_bytes); /* 0: MEMORY_MAX; NULL when out of memory */

/* Forget the pool: cached blocks go now, it goes with the last block outside. */
void pool_free(struct pool *p);

/* A block of at least n bytes with one holder. Its contents are whatever was there. LINNET_ELIMIT beyond the bound. */
enum linnet_code pool_get(struct pool *p, size_t n, struct block **out, struct linnet_error *e);
void block_drop(struct block *b); /* one holder fewer; the last one frees it; NULL is allowed */
void *block_data(struct block *b);

int64_t pool_live(const struct pool *p);   /* bytes asked for and not yet given back */
int64_t pool_peak(const struct pool *p);   /* the largest that ever was */
int64_t pool_cached(const struct pool *p); /* bytes kept for reuse */

/* dst holds what src holds, besides src; what dst held before is dropped. */
void held_share(struct held *dst, const struct held *src);
void held_drop(struct held *h);

/* Storage for h->t as its header says (dt, rank, d, n, bytes). */
enum linnet_code held_make(struct held *h, struct pool *p, struct linnet_error *e);

/* A copy of t in a block of its own, ready to be handed out; the bytes of strings follow their records. Members are copied too. */
enum linnet_code block_copy(struct pool *pool, const struct tensor *t, struct block **out, struct linnet_error *e);

/* The same without copying what tensors hold, which must outlive the run. */
enum linnet_code block_borrow(struct pool *pool, const struct tensor *t, struct block **out, struct linnet_error *e);

/* A block for a value like t, which is no tensor, with room for its n members and none of them yet. */
enum linnet_code block_members(struct pool *pool, const struct tensor *t, struct block **out, struct linnet_error *e);
void block_append(struct block *b, struct block *member); /* which has one holder more now: b, instead of the caller */

/* What is held as a member: a block that shares it. */
enum linnet_code block_of_held(struct pool *pool, const struct held *h, struct block **out, struct linnet_error *e);

/* dst holds a member, as it would any value; what it held before is dropped. */
void held_member(struct held *dst, struct block *member);
static inline struct block *member_block(const struct tensor *t, int64_t i) { return ((struct block *const *)t->data)[i]; }

/* Set a header to a type and concrete lengths; data NULL. */
enum linnet_code held_header(struct tensor *t, enum dtype dt, int rank, const int64_t *d, struct linnet_error *e);

#endif
