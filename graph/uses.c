/* Who uses a value: made in one go, and kept while patches change the graph, so that a change costs what it touches. */
#include <string.h>

#include "graph/graph.h"

/* Room for n entries in an array of *cap, which moves; its contents up to `used` stay. */
static enum linnet_code room(struct arena *a, uint32_t **list, uint32_t used, uint32_t n, uint32_t *cap, struct linnet_error *e)
{
	uint32_t want = *cap < UINT32_MAX / 2 ? *cap * 2 : UINT32_MAX;
	uint32_t *more;

	if (n <= *cap)
		return LINNET_OK;
	want = want < n ? n : want;
	TRY_NEW(more, a, want);
	if (used)
		memcpy(more, *list, used * sizeof *more);
	*list = more;
	*cap = want;
	return LINNET_OK;
}

static enum linnet_code room_values(struct uses *u, uint32_t n, struct linnet_error *e)
{
	uint32_t **list[] = { &u->begin, &u->end, &u->room }, cap = u->cap_value;

	for (int k = 0; k < 3; k++) {
		cap = u->cap_value;
		TRY(room(u->a, list[k], u->nvalue, n, &cap, e));
	}
	u->cap_value = cap;
	for (; u->nvalue < n; u->nvalue++)
		u->begin[u->nvalue] = u->end[u->nvalue] = u->room[u->nvalue] = 0;
	return LINNET_OK;
}

static enum linnet_code room_uses(struct uses *u, uint32_t n, struct linnet_error *e)
{
	struct use *more;
	size_t want = (size_t)u->cap_use * 2;

	if (n <= u->cap_use)
		return LINNET_OK;
	want = want < n ? n : want;
	if (want > UINT32_MAX)
		return fail(e, LINNET_ELIMIT, "more than 2^32 uses of values");
	TRY_NEW(more, u->a, want);
	if (u->nuse)
		memcpy(more, u->use, u->nuse * sizeof *more);
	u->use = more;
	u->cap_use = (uint32_t)want;
	return LINNET_OK;
}

/* Its list's end is free, or the list moves to the end of all. */
enum linnet_code uses_add(struct uses *u, value_id v, struct use use, struct linnet_error *e)
{
	uint32_t n;

	if (v >= u->nvalue)
		TRY(room_values(u, v + 1, e));
	n = u->end[v] - u->begin[v];
	if (n == u->room[v]) {
		uint32_t more = n < 4 ? 4 : 2 * n;

		TRY(room_uses(u, u->nuse + more, e));
		if (n)
			memcpy(&u->use[u->nuse], &u->use[u->begin[v]], n * sizeof *u->use);
		u->begin[v] = u->nuse;
		u->end[v] = u->nuse + n;
		u->room[v] = more;
		u->nuse += more;
	}
	u->use[u->end[v]++] = use;
	if (use.node)
		u->place[u->input[use.node] + use.index] = n;
	return LINNET_OK;
}

static void drop(struct uses *u, value_id v, uint32_t place)
{
	struct use *at = &u->use[u->begin[v] + place], *last = &u->use[--u->end[v]];

	*at = *last;
	if (at->node)
		u->place[u->input[at->node] + at->index] = place;
}

void uses_drop_node(struct uses *u, const struct graph *g, node_id n)
{
	for (uint32_t i = 0; i < g->node[n].nin; i++)
		if (g->node[n].in[i])
			drop(u, g->node[n].in[i], u->place[u->input[n] + i]);
}

enum linnet_code uses_add_nodes(struct uses *u, const struct graph *g, node_id first, struct linnet_error *e)
{
	TRY(room_values(u, g->nvalue, e));
	TRY(room(u->a, &u->input, u->nnode, g->nnode, &u->cap_node, e));
	for (node_id n = first; n < g->nnode; n++) {
		const struct node *node = &g->node[n];

		TRY(room(u->a, &u->place, u->ninput, u->ninput + node->nin, &u->cap_input, e));
		u->input[n] = u->ninput;
		u->ninput += node->nin;
		u->nnode = n + 1;
		for (uint32_t i = 0; !node->dead && i < node->nin; i++)
			if (node->in[i])
				TRY(uses_add(u, node->in[i], (struct use){ n, i }, e));
	}
	return LINNET_OK;
}

enum linnet_code graph_uses(const struct graph *g, struct arena *scratch, struct uses *u, struct linnet_error *e)
{
	uint32_t total = 0, inputs = 0;

	*u = (struct uses){ .a = scratch };
	TRY(room_values(u, g->nvalue, e));
	for (uint32_t i = 1; i < g->nnode; i++) {
		inputs += g->node[i].nin;
		for (uint32_t j = 0; !g->node[i].dead && j < g->node[i].nin; j++)
			u->room[g->node[i].in[j]]++;
	}
	for (uint32_t i = 0; i < g->nout; i++)
		u->room[g->out[i]]++;
	u->room[0] = 0;
	for (uint32_t v = 1; v < g->nvalue; v++) {
		u->begin[v] = u->end[v] = total;
		total += u->room[v];
	}
	TRY(room_uses(u, total, e));
	TRY(room(u->a, &u->input, 0, g->nnode, &u->cap_node, e));
	TRY(room(u->a, &u->place, 0, inputs, &u->cap_input, e));
	u->nuse = total;
	u->nnode = g->nnode;
	for (node_id n = 1; n < g->nnode; n++) {
		const struct node *node = &g->node[n];

		u->input[n] = u->ninput;
		u->ninput += node->nin;
		for (uint32_t i = 0; !node->dead && i < node->nin; i++) {
			value_id v = node->in[i];

			if (!v)
				continue;
			u->place[u->input[n] + i] = u->end[v] - u->begin[v];
			u->use[u->end[v]++] = (struct use){ n, i };
		}
	}
	for (uint32_t i = 0; i < g->nout; i++)
		u->use[u->end[g->out[i]]++] = (struct use){ 0, i };
	return LINNET_OK;
}
