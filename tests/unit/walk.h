/* Running out of memory at every request in turn. */
#ifndef LINNET_TESTS_WALK_H
#define LINNET_TESTS_WALK_H

#include "ops/base/arena.h"
#include "ops/base/err.h"

/*
 * Let the n-th allocation and all after it fail, n = 1, 2, ..., until f succeeds; every failure must be said to be one of
 * memory, and the sanitizer sees that nothing leaks. Returns how many requests f makes. Needs cmocka included.
 */
static inline uint64_t walk_memory(const char *name, enum linnet_code (*f)(const void *ctx, struct linnet_error *e), const void *ctx)
{
	for (uint64_t n = 1;; n++) {
		struct linnet_error e = { 0 };
		enum linnet_code code;

		mem_fail_at(n);
		code = f(ctx, &e);
		mem_fail_at(0);
		if (!code)
			return n - 1;
		if (code != LINNET_EMEM || e.code != LINNET_EMEM)
			fail_msg("%s: request %llu: %s, %s: %s", name, (unsigned long long)n, linnet_code_name(code),
			         linnet_code_name(e.code), e.message);
	}
}

#endif
