/* Arenas: blocks in a list, a bump pointer in the newest. */
#define _DEFAULT_SOURCE /* madvise() */
#include "ops/base/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Blocks double from the first up to a huge page: so many small pages take longer to get from the system than to fill. */
enum { FIRST_BLOCK = 4 * 1024, BLOCK = 2 * 1024 * 1024, PAGE = 64 * 1024 /* none is larger, but for huge ones */, BIG_ALIGN = 64, SMALL_ALIGN = 16 };

#if defined(__SANITIZE_ADDRESS__)
#define CHECKED 1
#elif defined(__has_feature)
#define CHECKED __has_feature(address_sanitizer)
#else
#define CHECKED 0
#endif

struct block {
	struct block *next;
	size_t size, used; /* of the bytes behind this header */
	bool mapped;       /* from the system, not from malloc() */
	bool zero;         /* what is not used yet reads as zeros */
};

struct done {
	struct done *next;
	void (*fn)(void *);
	void *arg;
};

struct arena {
	struct block *head;
	struct done *done;
	size_t used, next; /* bytes given out; of the next block, with its header */
};

static uint64_t requests, fail_from;

void mem_fail_at(uint64_t n)
{
	requests = 0;
	fail_from = n;
}

uint64_t mem_requests(void)
{
	return requests;
}

static bool may_allocate(void)
{
	if (!fail_from)
		return true;
	return ++requests < fail_from;
}

/* Where that does not work there are small ones. */
static void want_huge_pages(void *p, size_t n)
{
#ifdef MADV_HUGEPAGE
	uintptr_t from = ((uintptr_t)p + BLOCK - 1) / BLOCK * BLOCK, to = ((uintptr_t)p + n) / BLOCK * BLOCK;

	if (from < to)
		madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
	(void)p;
	(void)n;
#endif
}

void *mem_get(size_t n)
{
	size_t align = n < BLOCK ? BIG_ALIGN : BLOCK;
	void *p;

	if (!may_allocate() || n > SIZE_MAX - BLOCK)
		return NULL;
	n = (n + BIG_ALIGN - 1) / BIG_ALIGN * BIG_ALIGN;
	if (posix_memalign(&p, align, n ? n : BIG_ALIGN))
		return NULL;
	if (n >= BLOCK)
		want_huge_pages(p, n);
	return p;
}

void mem_put(void *p)
{
	free(p);
}

/* n bytes at a huge page's beginning; NULL without memory. */
static void *map(size_t n)
{
	uintptr_t at, from;
	void *p;

	if (n > SIZE_MAX - 2 * BLOCK)
		return NULL;
	n = (n + PAGE - 1) / PAGE * PAGE;
	p = mmap(NULL, n + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	at = (uintptr_t)p;
	from = (at + BLOCK - 1) / BLOCK * BLOCK;
	if (from > at)
		munmap(p, from - at);
	if (at + BLOCK > from)
		munmap((void *)(from + n), at + BLOCK - from);
	want_huge_pages((void *)from, n);
	return (void *)from;
}

/* Large ones come from the system, filled with zeros, and take up memory as they are used. The leak checker cannot see into them. */
static struct block *block_get(size_t n)
{
	bool mapped = !CHECKED && n >= 2 * BLOCK;
	struct block *b = !mapped ? mem_get(n) : may_allocate() ? map(n) : NULL;

	if (!b)
		return NULL;
	b->size = n - BIG_ALIGN;
	b->used = 0;
	b->mapped = b->zero = mapped;
	return b;
}

static void block_put(struct block *b)
{
	if (b && b->mapped)
		munmap(b, b->size + BIG_ALIGN);
	else
		mem_put(b);
}

struct arena *arena_new(void)
{
	struct arena *a = mem_get(sizeof *a);

	if (a)
		*a = (struct arena){ .next = FIRST_BLOCK };
	return a;
}

static void run_done(struct arena *a)
{
	struct done *d = a->done;

	a->done = NULL;
	for (; d; d = d->next)
		d->fn(d->arg);
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	run_done(a);
	for (struct block *b = a->head; b;) {
		struct block *next = b->next;

		block_put(b);
		b = next;
	}
	mem_put(a);
}

void arena_reset(struct arena *a)
{
	struct block *keep = NULL;

	if (!a->used && !a->done) /* nothing was given out */
		return;
	run_done(a);
	for (struct block *b = a->head; b;) {
		struct block *next = b->next;

		if (!keep || b->size > keep->size) {
			block_put(keep);
			keep = b;
		} else {
			block_put(b);
		}
		b = next;
	}
	if (keep) {
		keep->next = NULL;
		keep->used = 0;
		keep->zero = false;
	}
	a->head = keep;
	a->used = 0;
}

static unsigned char *block_data(struct block *b)
{
	return (unsigned char *)b + BIG_ALIGN;
}

static struct block *block_new(struct arena *a, size_t need)
{
	bool apart = need > a->next - BIG_ALIGN;
	struct block *b = need > SIZE_MAX - BIG_ALIGN ? NULL : block_get(apart ? need + BIG_ALIGN : a->next);

	if (!b)
		return NULL;
	if (!apart && a->next < BLOCK)
		a->next *= 2;
	if (apart && a->head) { /* a big one goes behind, so the bump block stays in use */
		b->next = a->head->next;
		a->head->next = b;
	} else {
		b->next = a->head;
		a->head = b;
	}
	return b;
}

void *arena_get(struct arena *a, size_t n, size_t size)
{
	size_t bytes, align, at;
	struct block *b = a->head;
	void *p;

	if (size && n > SIZE_MAX / 2 / size)
		return NULL;
	bytes = n * size;
	if (!bytes)
		bytes = 1;
	align = bytes >= BIG_ALIGN ? BIG_ALIGN : SMALL_ALIGN;
	at = b ? (b->used + align - 1) / align * align : 0;
	if (fail_from && !may_allocate())
		return NULL;
	if (!b || at > b->size || b->size - at < bytes) {
		b = block_new(a, bytes);
		if (!b)
			return NULL;
		at = 0;
	}
	p = block_data(b) + at;
	b->used = at + bytes;
	a->used += bytes;
	return b->zero ? p : memset(p, 0, bytes);
}

void *arena_grow(struct arena *a, void *p, uint32_t n, size_t more, uint32_t *cap, size_t size)
{
	size_t want = *cap ? (size_t)*cap * 2 : 16;
	void *q;

	if (n + more <= *cap)
		return p;
	if (want < n + more)
		want = n + more;
	q = want < UINT32_MAX ? arena_get(a, want, size) : NULL;
	if (!q)
		return NULL;
	if (p)
		memcpy(q, p, n * size);
	*cap = (uint32_t)want;
	return q;
}

void *arena_dup(struct arena *a, const void *p, size_t n)
{
	void *q = arena_get(a, n, 1);

	if (q && n)
		memcpy(q, p, n);
	return q;
}

char *arena_strn(struct arena *a, const char *s, size_t n)
{
	char *t = arena_get(a, n + 1, 1);

	if (t && n)
		memcpy(t, s, n);
	return t;
}

char *arena_str(struct arena *a, const char *s)
{
	return arena_strn(a, s, strlen(s));
}

char *arena_fmt(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	int n;
	char *s;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return NULL;
	s = arena_get(a, (size_t)n + 1, 1);
	if (!s)
		return NULL;
	va_start(ap, fmt);
	vsnprintf(s, (size_t)n + 1, fmt, ap);
	va_end(ap);
	return s;
}

int arena_on_free(struct arena *a, void (*done)(void *), void *arg)
{
	struct done *d = NEW(a, 1, struct done);

	if (!d)
		return -1;
	d->next = a->done;
	d->fn = done;
	d->arg = arg;
	a->done = d;
	return 0;
}

void arena_walk(const struct arena *a, void (*done)(void *), bool (*f)(void *arg, void *ctx), void *ctx)
{
	for (const struct done *d = a->done; d; d = d->next)
		if (d->fn == done && f(d->arg, ctx))
			return;
}

size_t arena_used(const struct arena *a)
{
	return a->used;
}
