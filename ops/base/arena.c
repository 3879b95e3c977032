/* Arenas: blocks in a list, a bump pointer in the newest. */
#include "ops/base/arena.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 * 1024, BIG_ALIGN = 64, SMALL_ALIGN = 16 };

struct block {
	struct block *next;
	size_t size, used; /* of the bytes behind this header */
};

struct done {
	struct done *next;
	void (*fn)(void *);
	void *arg;
};

struct arena {
	struct block *head;
	struct done *done;
	size_t used;
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

void *mem_get(size_t n)
{
	if (!may_allocate() || n > SIZE_MAX - BIG_ALIGN)
		return NULL;
	n = (n + BIG_ALIGN - 1) / BIG_ALIGN * BIG_ALIGN;
	return aligned_alloc(BIG_ALIGN, n ? n : BIG_ALIGN);
}

void mem_put(void *p)
{
	free(p);
}

struct arena *arena_new(void)
{
	struct arena *a = mem_get(sizeof *a);

	if (a)
		memset(a, 0, sizeof *a);
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

		mem_put(b);
		b = next;
	}
	mem_put(a);
}

void arena_reset(struct arena *a)
{
	struct block *keep = NULL;

	run_done(a);
	for (struct block *b = a->head; b;) {
		struct block *next = b->next;

		if (!keep || b->size > keep->size) {
			mem_put(keep);
			keep = b;
		} else {
			mem_put(b);
		}
		b = next;
	}
	if (keep) {
		keep->next = NULL;
		keep->used = 0;
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
	size_t size = need > BLOCK ? need : BLOCK;
	struct block *b;

	if (size > SIZE_MAX - BIG_ALIGN)
		return NULL;
	b = mem_get(size + BIG_ALIGN);
	if (!b)
		return NULL;
	b->size = size;
	b->used = 0;
	if (need > BLOCK / 2 && a->head) { /* a big one goes behind, so the bump block stays in use */
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
	return memset(p, 0, bytes);
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
