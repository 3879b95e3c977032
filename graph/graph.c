/* The graph: values, nodes, and what is derived from them on request. */
#include "graph/graph.h"

#include <string.h>

static const char *const no_name = "";

struct graph *graph_new(struct arena *a, struct dims *d, struct linnet_error *e)
{
	struct graph *g = NEW(a, 1, struct graph);

	if (!g) {
		fail_mem(e);
		return NULL;
	}
	g->arena = a;
	g->dims = d;
	g->name = no_name;
	g->nvalue = g->nnode = 1;
	map_init(&g->names, a);
	return g;
}

/* Room for one more element in a growing array in the arena. */
static void *grown(struct arena *a, void *p, uint32_t n, uint32_t *cap, size_t size)
{
	uint32_t more = *cap ? *cap * 2 : 16;
	void *q;

	if (n < *cap)
		return p;
	q = arena_get(a, more, size);
	if (!q)
		return NULL;
	if (p)
		memcpy(q, p, n * size);
	*cap = more;
	return q;
}

static bool name_used(const struct graph *g, const char *name)
{
	for (; g; g = g->outer)
		if (map_get(&g->names, name, NULL))
			return true;
	return false;
}

const char *graph_fresh_name(struct graph *g, const char *hint)
{
	const char *name = hint && *hint ? hint : "v";

	while (name && name_used(g, name))
		name = arena_fmt(g->arena, "%s_%u", hint && *hint ? hint : "v", ++g->fresh);
	return name;
}

value_id graph_add_value(struct graph *g, enum value_kind kind, const char *name, const char *hint)
{
	struct value *v = grown(g->arena, g->value, g->nvalue, &g->cap_value, sizeof *v);

	if (!v)
		return 0;
	g->value = v;
	if (!name)
		name = graph_fresh_name(g, hint);
	if (!name || map_put(&g->names, name, g->nvalue))
		return 0;
	v = &g->value[g->nvalue];
	*v = (struct value){ .name = name, .kind = kind, .type.shape.rank = -1 };
	return g->nvalue++;
}

value_id graph_add_const(struct graph *g, const struct tensor *t, const char *hint)
{
	value_id id = graph_add_value(g, VALUE_CONST, NULL, hint);

	if (id)
		g->value[id].type = (struct type){ .dt = t->dt, .shape = shape_of(t), .value = t };
	return id;
}

static int append(struct arena *a, value_id **list, uint32_t *n, value_id v)
{
	value_id *p = NEW(a, *n + 1, value_id);

	if (!p)
		return -1;
	if (*n)
		memcpy(p, *list, *n * sizeof *p);
	p[(*n)++] = v;
	*list = p;
	return 0;
}

value_id graph_add_input(struct graph *g, const char *name, const struct type *t)
{
	value_id id = graph_add_value(g, VALUE_INPUT, name, "input");

	if (!id)
		return 0;
	g->value[id].index = g->nin;
	if (t)
		g->value[id].type = *t;
	return append(g->arena, &g->in, &g->nin, id) ? 0 : id;
}

int graph_add_output(struct graph *g, value_id v)
{
	return append(g->arena, &g->out, &g->nout, v);
}

enum linnet_code graph_add_node(struct graph *g, const struct op *op, const char *name, const value_id *in, uint32_t nin,
                                const value_id *out, uint32_t nout, const struct attr *attr, uint32_t nattr, node_id *id,
                                struct linnet_error *e)
{
	struct node *n = grown(g->arena, g->node, g->nnode, &g->cap_node, sizeof *n), node = { 0 };

	if (!n)
		return fail_mem(e);
	g->node = n;
	node.op = op;
	node.known = true;
	node.name = name ? name : no_name;
	node.nin = nin;
	node.nout = nout;
	TRY_NEW(node.in, g->arena, nin);
	TRY_NEW(node.out, g->arena, nout);
	if (nin)
		memcpy(node.in, in, nin * sizeof *in);
	for (uint32_t i = 0; i < nout; i++) {
		value_id v = out ? out[i] : 0;

		if (!out) {
			const struct op_io *io = op_out(op, (int)i);

			v = graph_add_value(g, VALUE_NODE, NULL, nout == 1 || !io ? node.name : io->name);
			if (!v)
				return fail_mem(e);
		}
		node.out[i] = v;
	}
	node.nattr = (uint32_t)op_nattr(op);
	TRY(err_node(e, op_attrs(op, attr, nattr, g->arena, &node.attr, e), node.name, op->name));
	for (uint32_t i = 0; i < nout; i++) {
		if (!node.out[i])
			continue;
		g->value[node.out[i]].producer = g->nnode;
		g->value[node.out[i]].index = i;
	}
	g->node[g->nnode] = node;
	if (id)
		*id = g->nnode;
	g->nnode++;
	return LINNET_OK;
}

void graph_replace(struct graph *g, value_id old, value_id by)
{
	for (uint32_t i = 1; i < g->nnode; i++)
		for (uint32_t j = 0; !g->node[i].dead && j < g->node[i].nin; j++)
			if (g->node[i].in[j] == old)
				g->node[i].in[j] = by;
	for (uint32_t i = 0; i < g->nout; i++)
		if (g->out[i] == old)
			g->out[i] = by;
}

bool node_is(const struct node *n, const char *name)
{
	return !n->dead && n->known && !n->op->domain && !strcmp(n->op->name, name);
}

enum linnet_code graph_uses(const struct graph *g, struct arena *scratch, struct uses *u, struct linnet_error *e)
{
	uint32_t total = g->nout, *at;

	TRY_NEW(u->first, scratch, g->nvalue + 1);
	TRY_NEW(at, scratch, g->nvalue + 1);
	for (uint32_t i = 1; i < g->nnode; i++)
		if (!g->node[i].dead)
			for (uint32_t j = 0; j < g->node[i].nin; j++) {
				u->first[g->node[i].in[j]]++;
				total++;
			}
	for (uint32_t i = 0; i < g->nout; i++)
		u->first[g->out[i]]++;
	TRY_NEW(u->use, scratch, total);
	for (uint32_t v = 0, n = 0; v <= g->nvalue; v++) {
		uint32_t c = u->first[v];

		u->first[v] = at[v] = n;
		n += v < g->nvalue ? c : 0;
	}
	for (uint32_t i = 1; i < g->nnode; i++)
		if (!g->node[i].dead)
			for (uint32_t j = 0; j < g->node[i].nin; j++)
				u->use[at[g->node[i].in[j]]++] = (struct use){ i, j };
	for (uint32_t i = 0; i < g->nout; i++)
		u->use[at[g->out[i]]++] = (struct use){ 0, i };
	return LINNET_OK;
}

enum linnet_code graph_order(const struct graph *g, struct arena *scratch, node_id **order, uint32_t *n,
                             struct linnet_error *e)
{
	enum { NEW_NODE, OPEN, DONE };
	uint8_t *state;
	struct frame { node_id node; uint32_t next; } *stack;
	uint32_t top = 0;

	*n = 0;
	TRY_NEW(state, scratch, g->nnode);
	TRY_NEW(stack, scratch, g->nnode + 1);
	TRY_NEW(*order, scratch, g->nnode + 1);
	for (node_id root = 1; root < g->nnode; root++) {
		if (g->node[root].dead || state[root])
			continue;
		stack[top++] = (struct frame){ root, 0 };
		state[root] = OPEN;
		while (top) {
			struct frame *f = &stack[top - 1];
			const struct node *node = &g->node[f->node];
			node_id p = 0;

			while (f->next < node->nin && !p) {
				value_id v = node->in[f->next++];

				p = v && g->value[v].kind == VALUE_NODE ? g->value[v].producer : 0;
				if (p && (state[p] == DONE || g->node[p].dead))
					p = 0;
			}
			if (!p) {
				state[f->node] = DONE;
				(*order)[(*n)++] = f->node;
				top--;
			} else if (state[p] == OPEN) {
				return err_node(e, fail(e, LINNET_EMODEL, "the graph has a cycle through this node"), g->node[p].name,
				                g->node[p].op->name);
			} else {
				state[p] = OPEN;
				stack[top++] = (struct frame){ p, 0 };
			}
		}
	}
	return LINNET_OK;
}
