/* Few of many numbers to pointers: an open-addressing table in an arena. */
#ifndef LINNET_IDMAP_H
#define LINNET_IDMAP_H

#include <stdint.h>

#include "ops/base/arena.h"

struct idmap_slot {
	uint32_t id; /* 0: free */
	void *p;
};

/* Begin with the arena and zeros. */
struct idmap {
	struct arena *a;
	struct idmap_slot *slot;
	uint32_t n, cap;
};

/* What was put under id, or NULL. */
void *idmap_get(const struct idmap *m, uint32_t id);
/* id is not 0; p replaces what was there. -1 without memory. */
int idmap_put(struct idmap *m, uint32_t id, void *p);

#endif
