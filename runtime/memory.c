/* Storage of tensors: see memory.h. */
#include "runtime/memory.h"

#include <string.h>

#include "runtime/runtime.h"

enum { ALIGN = 64, HEADER = (sizeof(struct block) + ALIGN - 1) / ALIGN * ALIGN };

struct pool {
	struct block *bin[POOL_BINS];
	int64_t max, live, peak, cached;
	int64_t outside; /* blocks */
	bool closed;
};

/*
 * Sizes fall into eight classes for each power of two, so a block is at most an eighth larger than asked for. Returns the
 * class; *capacity is its size.
 */
static unsigned size_class(size_t n, size_t *capacity)
{
	size_t units = n ? (n - 1) / ALIGN : 0; /* a class holds up to (units + 1) * ALIGN bytes */
	unsigned shift = 0;

	while (units >> shift > 15)
		shift++;
	*capacity = ((units >> shift) + 1) << shift;
	*capacity *= ALIGN;
	return shift * 8 + (unsigned)(units >> shift);
}

struct pool *pool_new(int64_t max_bytes)
{
	struct pool *p = mem_get(sizeof *p);

	if (!p)
		return NULL;
	memset(p, 0, sizeof *p);
	p->max = max_bytes > 0 ? max_bytes : MEMORY_MAX;
	return p;
}

static void empty_bins(struct pool *p)
{
	for (int i = 0; i < POOL_BINS; i++)
		for (struct block *b; (b = p->bin[i]);) {
			p->bin[i] = b->next;
			mem_put(b);
		}
	p->cached = 0;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	empty_bins(p);
	p->closed = true;
	if (!p->outside)
		mem_put(p);
}

/* A cached block of the class, or of the few next larger ones: at most half as large again. */
static struct block *from_bins(struct pool *p, unsigned class)
{
	for (unsigned i = class; i <= class + 4 && i < POOL_BINS; i++) {
		struct block *b = p->bin[i];

		if (b) {
			p->bin[i] = b->next;
			p->cached -= (int64_t)b->capacity;
			return b;
		}
	}
	return NULL;
}

enum linnet_code pool_get(struct pool *p, size_t n, struct block **out, struct linnet_error *e)
{
	struct block *b;
	size_t capacity;
	unsigned class;

	if (n > (size_t)INT64_MAX || (int64_t)n > p->max - p->live)
		return fail(e, LINNET_ELIMIT, "activations need more than %lld bytes: %lld are in use and %llu are asked for",
		            (long long)p->max, (long long)p->live, (unsigned long long)n);
	class = size_class(n, &capacity);
	b = from_bins(p, class);
	if (!b) {
		/* the cache never outgrows what was once needed at a time, nor the bound */
		if (p->cached > p->peak || (int64_t)capacity > p->max - p->live - p->cached)
			empty_bins(p);
		b = mem_get(HEADER + capacity);
		if (!b) {
			empty_bins(p);
			b = mem_get(HEADER + capacity);
		}
		if (!b)
			return fail_mem(e);
		b->pool = p;
		b->capacity = capacity;
	}
	b->t = (struct tensor){ .dt = DT_UNDEFINED };
	b->base = NULL;
	b->next = NULL;
	b->holders = 1;
	b->counted = (int64_t)n;
	p->outside++;
	p->live += b->counted;
	if (p->live > p->peak)
		p->peak = p->live;
	*out = b;
	return LINNET_OK;
}

/* What a block holds besides its own memory. */
static void drop_inner(struct block *b)
{
	struct tensor *t = &b->t;

	if (b->base)
		block_drop(b->base);
	else if (t->kind != KIND_TENSOR)
		for (int64_t i = 0; i < t->n; i++)
			block_drop(member_block(t, i));
}

void block_drop(struct block *b)
{
	struct pool *p;
	size_t capacity;
	unsigned class;

	if (!b || --b->holders)
		return;
	drop_inner(b);
	p = b->pool;
	if (!p) {
		mem_put(b);
		return;
	}
	p->outside--;
	p->live -= b->counted;
	if (p->closed) {
		mem_put(b);
		if (!p->outside)
			mem_put(p);
		return;
	}
	class = size_class(b->capacity, &capacity);
	b->next = p->bin[class];
	p->bin[class] = b;
	p->cached += (int64_t)b->capacity;
}

void *block_data(struct block *b)
{
	return (unsigned char *)b + HEADER;
}

int64_t pool_live(const struct pool *p) { return p->live; }
int64_t pool_peak(const struct pool *p) { return p->peak; }
int64_t pool_cached(const struct pool *p) { return p->cached; }

void held_share(struct held *dst, const struct held *src)
{
	struct block *old = dst->block;

	if (src->block)
		src->block->holders++;
	*dst = *src;
	block_drop(old);
}

void held_drop(struct held *h)
{
	block_drop(h->block);
	h->block = NULL;
	h->t.data = NULL;
}

enum linnet_code held_make(struct held *h, struct pool *p, struct linnet_error *e)
{
	TRY(pool_get(p, h->t.bytes, &h->block, e));
	h->t.data = block_data(h->block);
	return LINNET_OK;
}

enum linnet_code held_header(struct tensor *t, enum dtype dt, int rank, const int64_t *d, struct linnet_error *e)
{
	int64_t n;
	size_t bytes;

	TRY(tensor_size(dt, rank, d, 0, &n, &bytes, e));
	*t = (struct tensor){ .dt = dt, .rank = rank, .n = n, .bytes = bytes };
	if (rank)
		memcpy(t->d, d, (size_t)rank * sizeof *d);
	return LINNET_OK;
}

enum linnet_code block_members(struct pool *pool, const struct tensor *t, struct block **out, struct linnet_error *e)
{
	TRY(pool_get(pool, (size_t)t->n * sizeof(struct block *), out, e));
	(*out)->t = (struct tensor){ .kind = t->kind, .dt = t->dt, .key = t->key, .data = block_data(*out) };
	return LINNET_OK;
}

void block_append(struct block *b, struct block *member)
{
	((struct block **)b->t.data)[b->t.n++] = member;
	b->t.bytes = (size_t)b->t.n * sizeof member;
}

enum linnet_code block_of_held(struct pool *pool, const struct held *h, struct block **out, struct linnet_error *e)
{
	TRY(pool_get(pool, 0, out, e));
	(*out)->t = h->t;
	(*out)->base = h->block;
	if (h->block)
		h->block->holders++;
	return LINNET_OK;
}

void held_member(struct held *dst, struct block *member)
{
	struct held h = { .t = member->t, .block = member->base };

	if (!member->base && member->t.data == block_data(member))
		h.block = member;
	held_share(dst, &h);
}

static enum linnet_code tensor_copy_block(struct pool *pool, const struct tensor *t, struct block **out, struct linnet_error *e)
{
	const struct text *s = t->data;
	size_t bytes = t->bytes;
	char *to;

	for (int64_t i = 0; t->dt == DT_STRING && i < t->n; i++)
		bytes += s[i].n;
	TRY(pool_get(pool, bytes, out, e));
	(*out)->t = *t;
	(*out)->t.data = block_data(*out);
	if (t->bytes)
		memcpy((*out)->t.data, t->data, t->bytes);
	if (t->dt != DT_STRING)
		return LINNET_OK;
	to = (char *)(*out)->t.data + t->bytes;
	for (int64_t i = 0; i < t->n; i++) {
		if (s[i].n)
			memcpy(to, s[i].p, s[i].n);
		((struct text *)(*out)->t.data)[i].p = to;
		to += s[i].n;
	}
	return LINNET_OK;
}

static enum linnet_code copy(struct pool *pool, const struct tensor *t, bool borrow, struct block **out, struct linnet_error *e)
{
	enum linnet_code code = LINNET_OK;

	if (t->kind == KIND_TENSOR && borrow)
		return block_of_held(pool, &(struct held){ .t = *t }, out, e);
	if (t->kind == KIND_TENSOR)
		return tensor_copy_block(pool, t, out, e);
	TRY(block_members(pool, t, out, e));
	for (int64_t i = 0; !code && i < t->n; i++) {
		struct block *member;

		code = copy(pool, tensor_member(t, i), borrow, &member, e);
		if (!code)
			block_append(*out, member);
	}
	if (code)
		block_drop(*out);
	return code;
}

enum linnet_code block_copy(struct pool *pool, const struct tensor *t, struct block **out, struct linnet_error *e)
{
	return copy(pool, t, false, out, e);
}

enum linnet_code block_borrow(struct pool *pool, const struct tensor *t, struct block **out, struct linnet_error *e)
{
	return copy(pool, t, true, out, e);
}

enum linnet_code tensor_make(enum dtype dt, int rank, const int64_t *d, struct tensor **out, struct linnet_error *e)
{
	struct tensor t;
	struct block *b;

	TRY(held_header(&t, dt, rank, d, e));
	if (t.bytes > (size_t)MEMORY_MAX)
		return fail(e, LINNET_ELIMIT, "tensor has %llu bytes; at most %lld are allowed", (unsigned long long)t.bytes,
		            (long long)MEMORY_MAX);
	b = mem_get(HEADER + t.bytes);
	if (!b)
		return fail_mem(e);
	memset(b, 0, HEADER + t.bytes);
	b->capacity = t.bytes;
	b->holders = 1;
	b->t = t;
	b->t.data = block_data(b);
	*out = &b->t;
	return LINNET_OK;
}

void tensor_release(struct tensor *t)
{
	block_drop((struct block *)t);
}
