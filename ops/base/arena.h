/* Arenas: memory with one lifetime. The only allocator below the executor. */
#ifndef LINNET_ARENA_H
#define LINNET_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;

/* NULL when out of memory. */
struct arena *arena_new(void);
void arena_free(struct arena *a);

/* Forget everything allocated, keeping the memory for reuse. */
void arena_reset(struct arena *a);

/*
 * n zeroed objects of the given size, aligned to 64 bytes when the total is 64 bytes or more, else
 * to 16. n == 0 gives a unique non-NULL pointer. NULL on overflow or when out of memory.
 */
void *arena_get(struct arena *a, size_t n, size_t size);

/*
 * Room for `more` elements behind the n of a list with room for *cap: the list itself, or a copy with at least twice the room, so that adding one
 * by one stays linear. NULL without memory.
 */
void *arena_grow(struct arena *a, void *p, uint32_t n, size_t more, uint32_t *cap, size_t size);

void *arena_dup(struct arena *a, const void *p, size_t n);
char *arena_str(struct arena *a, const char *s);
char *arena_strn(struct arena *a, const char *s, size_t n);
char *arena_fmt(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Call done(arg) when the arena is freed (reset included), last added first. 0 on success. */
int arena_on_free(struct arena *a, void (*done)(void *), void *arg);

/* Call f(arg, ctx) for what was registered with `done`, last added first, until it says true. */
void arena_walk(const struct arena *a, void (*done)(void *), bool (*f)(void *arg, void *ctx), void *ctx);

/* Bytes handed out so far. */
size_t arena_used(const struct arena *a);

/*
 * Testing: the n-th allocation from now (1 is the next), over all arenas and all callers of
 * mem_get(), fails, and so does every later one. 0 turns this off. Not for threads.
 */
void mem_fail_at(uint64_t n);
uint64_t mem_requests(void);

/* malloc and free for storage outside arenas (the executor's tensors, arenas' own blocks): 64-byte
 * aligned, not zeroed, counted by mem_fail_at(). */
void *mem_get(size_t n);
void mem_put(void *p);

#define NEW(a, n, type) ((type *)arena_get(a, n, sizeof(type)))

#endif
