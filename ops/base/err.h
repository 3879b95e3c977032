/* Making and enriching the error record. The first error stays. */
#ifndef LINNET_ERR_H
#define LINNET_ERR_H

#include "linnet.h"

/* Fill e with code and sentence; returns code. e may be NULL. */
enum linnet_code fail(struct linnet_error *e, enum linnet_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

enum linnet_code fail_mem(struct linnet_error *e);

/* Compilers see which code comes back, hence that what an error leaves unset is not used. */
static inline enum linnet_code err_known(enum linnet_code said, enum linnet_code code)
{
	(void)said;
	return code;
}
#define fail(e, code, ...) err_known((fail)(e, code, __VA_ARGS__), code)
#define fail_mem(e) err_known((fail_mem)(e), LINNET_EMEM)

/* Layers that know add where it happened, if not said yet. They return e->code's argument, so that
 * `return err_node(e, code, ...)` reads well. */
enum linnet_code err_node(struct linnet_error *e, enum linnet_code code, const char *node, const char *op);
enum linnet_code err_file(struct linnet_error *e, enum linnet_code code, const char *file);

void err_clear(struct linnet_error *e);

#define TRY(call)                                                                                  \
	do {                                                                                       \
		enum linnet_code try_code_ = (call);                                               \
		if (try_code_)                                                                     \
			return try_code_;                                                          \
	} while (0)

/* p = n objects from arena a, or return out of memory. */
#define TRY_NEW(p, a, n)                                                                           \
	do {                                                                                       \
		(p) = arena_get(a, (size_t)(n), sizeof *(p));                                      \
		if (!(p))                                                                          \
			return fail_mem(e);                                                        \
	} while (0)

#endif
