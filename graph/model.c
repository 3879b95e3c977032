/* A model's storage: one arena that everything else lives in. */
#include "graph/graph.h"

#include <string.h>

enum { DEPTH_DEFAULT = 64, DEPTH_MAX = 500 };

void limits_fill(struct linnet_limits *out, const struct linnet_limits *l)
{
	*out = (struct linnet_limits){ 0 };
	if (l)
		memcpy(out, l, l->size && l->size < sizeof *l ? l->size : sizeof *l);
	out->size = sizeof *out;
	if (out->max_bytes <= 0)
		out->max_bytes = (int64_t)1 << 46;
	if (out->max_nodes <= 0)
		out->max_nodes = (int64_t)1 << 20;
	if (out->max_elements <= 0)
		out->max_elements = (int64_t)1 << 40;
	if (out->max_memory <= 0)
		out->max_memory = (int64_t)1 << 40;
	if (out->max_depth <= 0)
		out->max_depth = DEPTH_DEFAULT;
	if (out->max_depth > DEPTH_MAX)
		out->max_depth = DEPTH_MAX; /* the C stack */
}

struct linnet_model *model_new(const struct linnet_limits *l, struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct linnet_model *m = a ? NEW(a, 1, struct linnet_model) : NULL;

	if (m) {
		m->arena = a;
		m->dims = dims_new(a);
		limits_fill(&m->limits, l);
	}
	if (!m || !m->dims) {
		arena_free(a);
		fail_mem(e);
		return NULL;
	}
	return m;
}

void model_free(struct linnet_model *m)
{
	if (m)
		arena_free(m->arena);
}
