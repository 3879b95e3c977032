/* Names to numbers. */
#include "ops/base/map.h"

#include <string.h>

uint32_t map_hash(const char *s)
{
	uint32_t h = 2166136261u; /* FNV-1a, folded */

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h ^ h >> 15;
}

void map_init(struct map *m, struct arena *a)
{
	*m = (struct map){ .a = a };
}

static struct map_slot *find(const struct map *m, const char *key, uint32_t hash)
{
	for (uint32_t i = hash;; i++) {
		struct map_slot *s = &m->slot[i & (m->cap - 1)];

		if (!s->key || (s->hash == hash && !strcmp(s->key, key)))
			return s;
	}
}

bool map_get(const struct map *m, const char *key, uint32_t *value)
{
	const struct map_slot *s;

	if (!m->cap)
		return false;
	s = find(m, key, map_hash(key));
	if (!s->key)
		return false;
	if (value)
		*value = s->value;
	return true;
}

static int grow(struct map *m)
{
	struct map old = *m;

	m->cap = old.cap ? old.cap * 2 : 32;
	m->slot = NEW(m->a, m->cap, struct map_slot);
	if (!m->slot) {
		*m = old;
		return -1;
	}
	for (uint32_t i = 0; i < old.cap; i++)
		if (old.slot[i].key)
			*find(m, old.slot[i].key, old.slot[i].hash) = old.slot[i];
	return 0;
}

int map_put(struct map *m, const char *key, uint32_t value)
{
	uint32_t hash = map_hash(key);
	struct map_slot *s;

	if (m->n * 2 >= m->cap && grow(m))
		return -1;
	s = find(m, key, hash);
	if (!s->key) {
		s->key = key;
		s->hash = hash;
		m->n++;
	}
	s->value = value;
	return 0;
}

void map_renumber(struct map *m, const uint32_t *to)
{
	uint32_t start = 0;

	while (start < m->cap && m->slot[start].key)
		start++;
	for (uint32_t i = 1; i <= m->cap; i++) { /* from behind a free slot on, so that each finds its place among those put back */
		struct map_slot *s = &m->slot[(start + i) & (m->cap - 1)], taken = *s;
		uint32_t at = taken.hash;

		if (!taken.key)
			continue;
		s->key = NULL;
		taken.value = to[taken.value];
		m->n -= !taken.value;
		if (!taken.value)
			continue;
		while (m->slot[at & (m->cap - 1)].key)
			at++;
		m->slot[at & (m->cap - 1)] = taken;
	}
}
