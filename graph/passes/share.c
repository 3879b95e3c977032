/* Nodes that compute the same are computed once. Needs nothing; every change gives the same bits. */
#include <string.h>

#include "graph/pass.h"

static uint64_t mix(uint64_t h, uint64_t x)
{
	h ^= x + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
	return h * 0xff51afd7ed558ccdu;
}

static uint64_t hash_node(const struct node *n)
{
	uint64_t h = (uint64_t)(uintptr_t)n->op;

	for (uint32_t i = 0; i < n->nin; i++)
		h = mix(h, n->in[i]);
	for (uint32_t i = 0; i < n->nattr; i++)
		h = mix(h, (uint64_t)n->attr[i].i + n->attr[i].n);
	return h;
}

static bool same_attr(const struct attr *a, const struct attr *b)
{
	if (a->kind != b->kind)
		return false;
	switch (a->kind) {
	case ATTR_NONE: return true;
	case ATTR_INT: return a->i == b->i;
	case ATTR_FLOAT: return !memcmp(&a->f, &b->f, sizeof a->f);
	case ATTR_STRING: return a->s.n == b->s.n && !memcmp(a->s.p, b->s.p, a->s.n);
	case ATTR_INTS: return a->n == b->n && !memcmp(a->ints, b->ints, a->n * sizeof *a->ints);
	case ATTR_FLOATS: return a->n == b->n && !memcmp(a->floats, b->floats, a->n * sizeof *a->floats);
	case ATTR_TENSOR: return tensor_same(a->t, b->t);
	default: return false;
	}
}

static bool same_node(const struct node *a, const struct node *b)
{
	if (a->op != b->op || a->nin != b->nin || a->nout != b->nout || a->nattr != b->nattr || memcmp(a->in, b->in, a->nin * sizeof *a->in))
		return false;
	for (uint32_t i = 0; i < a->nout; i++)
		if (!a->out[i] != !b->out[i])
			return false;
	for (uint32_t i = 0; i < a->nattr; i++)
		if (!same_attr(&a->attr[i], &b->attr[i]))
			return false;
	return true;
}

/* Constants with the same contents become one: small ones, or all, of which the ends are looked at first. */
static enum linnet_code share_constants(struct graph *g, bool all, struct arena *s, value_id *to, uint32_t *count, struct linnet_error *e)
{
	enum { SMALL = 64 };
	uint32_t cap = 64, *slot;

	while (cap < g->nvalue * 2)
		cap *= 2;
	TRY_NEW(slot, s, cap);
	for (value_id v = 1; v < g->nvalue; v++) {
		const struct tensor *t = g->value[v].kind == VALUE_CONST ? g->value[v].type.value : NULL;
		uint64_t h;

		to[v] = v;
		if (!t || (t->bytes > SMALL && !all) || t->dt == DT_STRING || graph_is_output(g, v))
			continue;
		h = mix((uint64_t)t->dt, (uint64_t)t->n * 31 + (uint64_t)t->rank);
		for (size_t i = 0; i < t->bytes; i++) {
			if (i == SMALL && t->bytes > 2 * SMALL)
				i = t->bytes - SMALL;
			h = mix(h, ((const uint8_t *)t->data)[i]);
		}
		for (uint32_t i = (uint32_t)(h >> 20);; i++) {
			uint32_t *at = &slot[i & (cap - 1)];

			if (!*at)
				*at = v;
			if (tensor_same(g->value[*at].type.value, t)) {
				to[v] = *at;
				*count += all && *at != v;
				break;
			}
		}
	}
	return LINNET_OK;
}

static enum linnet_code share_graph(struct graph *g, bool all, uint32_t *count, struct linnet_error *e)
{
	struct arena *s = arena_new();
	node_id *order;
	uint32_t n = 0, cap = 64, *slot = NULL;
	value_id *to = NULL;
	enum linnet_code code = s ? graph_order(g, s, &order, &n, e) : fail_mem(e);

	while (cap < n * 2)
		cap *= 2;
	if (!code && (!(slot = NEW(s, cap, uint32_t)) || !(to = NEW(s, g->nvalue, value_id))))
		code = fail_mem(e);
	if (!code)
		code = share_constants(g, all, s, to, count, e);
	for (uint32_t k = 0; !code && k < n; k++) {
		struct node *node = &g->node[order[k]];
		uint64_t h;

		for (uint32_t i = 0; i < node->nin; i++)
			node->in[i] = to[node->in[i]];
		if (!node->known || node->op->flags & OP_CONTROL || node->op->agree == AGREE_RANDOM)
			continue;
		h = hash_node(node);
		for (uint32_t i = (uint32_t)(h >> 20);; i++) {
			uint32_t *at = &slot[i & (cap - 1)];
			bool keep = false;

			if (!*at) {
				*at = order[k];
				break;
			}
			if (!same_node(&g->node[*at], node))
				continue;
			for (uint32_t j = 0; j < node->nout; j++)
				keep = keep || graph_is_output(g, node->out[j]);
			if (keep)
				break; /* what gives an output its name stays */
			for (uint32_t j = 0; j < node->nout; j++) {
				value_id v = node->out[j], by = g->node[*at].out[j];

				if (v && !type_equal(&g->value[v].type, &g->value[by].type))
					graph_types_change(g);
				to[v] = by;
			}
			node->dead = true;
			++*count;
			break;
		}
	}
	arena_free(s);
	return code;
}

static enum linnet_code share_run(struct graph *g, uint32_t *count, struct linnet_error *e) { return share_graph(g, false, count, e); }
static enum linnet_code share_all_run(struct graph *g, uint32_t *count, struct linnet_error *e) { return share_graph(g, true, count, e); }

const struct pass share_all_pass = { .name = "share", .doc = "Keep one of several equal constants or nodes", .kind = PASS_EXACT, .run = share_all_run,
	                               .settles = true };
const struct pass share_pass = { .name = "share", .doc = "Compute once what several nodes compute", .kind = PASS_EXACT, .run = share_run, .settles = true };
