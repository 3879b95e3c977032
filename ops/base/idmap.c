/* Numbers to pointers. */
#include "ops/base/idmap.h"

static struct idmap_slot *find(const struct idmap *m, uint32_t id)
{
	for (uint32_t i = id * 2654435769u;; i++) {
		struct idmap_slot *s = &m->slot[i & (m->cap - 1)];

		if (!s->id || s->id == id)
			return s;
	}
}

void *idmap_get(const struct idmap *m, uint32_t id)
{
	return m->cap && id ? find(m, id)->p : NULL;
}

static int grow(struct idmap *m)
{
	struct idmap old = *m;

	m->cap = old.cap ? old.cap * 2 : 32;
	m->slot = NEW(m->a, m->cap, struct idmap_slot);
	if (!m->slot) {
		*m = old;
		return -1;
	}
	for (uint32_t i = 0; i < old.cap; i++)
		if (old.slot[i].id)
			*find(m, old.slot[i].id) = old.slot[i];
	return 0;
}

int idmap_put(struct idmap *m, uint32_t id, void *p)
{
	struct idmap_slot *s;

	if (m->n * 2 >= m->cap && grow(m))
		return -1;
	s = find(m, id);
	m->n += !s->id;
	*s = (struct idmap_slot){ id, p };
	return 0;
}
