/* Building protobuf bytes by hand, for tests: independent of the code under test. */
#ifndef LINNET_TESTS_WIRE_H
#define LINNET_TESTS_WIRE_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

struct wire {
	size_t n;
	uint8_t p[8192];
};

static inline void w_bytes(struct wire *w, const void *p, size_t n)
{
	assert(n <= sizeof w->p - w->n);
	if (n)
		memcpy(w->p + w->n, p, n);
	w->n += n;
}

static inline void w_varint(struct wire *w, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		w_bytes(w, &(uint8_t){ (uint8_t)(v | 0x80) }, 1);
	w_bytes(w, &(uint8_t){ (uint8_t)v }, 1);
}

static inline void w_tag(struct wire *w, uint32_t id, unsigned type)
{
	w_varint(w, (uint64_t)id << 3 | type);
}

static inline void w_int(struct wire *w, uint32_t id, int64_t v)
{
	w_tag(w, id, 0);
	w_varint(w, (uint64_t)v);
}

static inline void w_len(struct wire *w, uint32_t id, const void *p, size_t n)
{
	w_tag(w, id, 2);
	w_varint(w, n);
	w_bytes(w, p, n);
}

static inline void w_str(struct wire *w, uint32_t id, const char *s)
{
	w_len(w, id, s, strlen(s));
}

static inline void w_msg(struct wire *w, uint32_t id, const struct wire *m)
{
	w_len(w, id, m->p, m->n);
}

#endif
