/* Names to numbers: an open-addressing table in an arena. */
#ifndef LINNET_MAP_H
#define LINNET_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/base/arena.h"

struct map_slot {
	const char *key; /* the caller's string, which must outlive the map */
	uint32_t hash, value;
};

struct map {
	struct arena *a;
	struct map_slot *slot;
	uint32_t n, cap;
};

uint32_t map_hash(const char *s);
void map_init(struct map *m, struct arena *a);
bool map_get(const struct map *m, const char *key, uint32_t *value);
/* Each number x becomes to[x]; names of numbers that become 0 are forgotten. */
void map_renumber(struct map *m, const uint32_t *to);
int map_put(struct map *m, const char *key, uint32_t value); /* adds or replaces; -1 without memory */

#endif
