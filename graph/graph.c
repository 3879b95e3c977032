/* The graph: values, nodes, and what is derived from them on request. */
#include "graph/graph.h"

#include <stdio.h>
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
	g->files = a;
	g->dims = d;
	g->name = no_name;
	g->nvalue = g->nnode = 1;
	map_init(&g->names, a);
	map_init(&g->inner, a);
	return g;
}

enum linnet_code graph_reserve(struct graph *g, size_t nvalue, size_t nnode, struct linnet_error *e)
{
	struct value *v = arena_grow(g->arena, g->value, g->nvalue, nvalue, &g->cap_value, sizeof *v);
	struct node *n;

	if (!v)
		return fail_mem(e);
	g->value = v;
	n = arena_grow(g->arena, g->node, g->nnode, nnode, &g->cap_node, sizeof *n);
	if (!n)
		return fail_mem(e);
	g->node = n;
	return LINNET_OK;
}

bool graph_name_used(const struct graph *g, const char *name)
{
	for (; g; g = g->outer)
		if (map_get(&g->names, name, NULL))
			return true;
	return false;
}

const char *graph_fresh_name(struct graph *g, const char *hint)
{
	enum { SUFFIX = 12 };
	const char *stem = hint && *hint ? hint : "v";
	size_t n = strlen(stem);
	char *name = arena_get(g->arena, n + SUFFIX, 1);

	if (name)
		memcpy(name, stem, n);
	while (name && (graph_name_used(g, name) || map_get(&g->inner, name, NULL)))
		snprintf(name + n, SUFFIX, "_%u", ++g->fresh);
	return name;
}

int values_find(const struct graph *g, const value_id *v, uint32_t n, const char *name)
{
	for (uint32_t i = 0; i < n; i++)
		if (!strcmp(g->value[v[i]].name, name))
			return (int)i;
	return -1;
}

value_id graph_add_value(struct graph *g, enum value_kind kind, const char *name, const char *hint)
{
	struct value *v = arena_grow(g->arena, g->value, g->nvalue, 1, &g->cap_value, sizeof *v);

	if (!v)
		return 0;
	g->value = v;
	if (!name)
		name = graph_fresh_name(g, hint);
	if (!name || map_put(&g->names, name, g->nvalue))
		return 0;
	for (struct graph *o = g->outer; o; o = o->outer)
		if (map_put(&o->inner, name, 0))
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

/* Lists grow to the next power of two, so adding one by one stays linear. */
static int append(struct arena *a, value_id **list, uint32_t *n, value_id v)
{
	value_id *p = *list;

	if (!(*n & (*n - 1))) {
		p = NEW(a, *n ? (size_t)*n * 2 : 1, value_id);
		if (!p)
			return -1;
		if (*n)
			memcpy(p, *list, *n * sizeof *p);
	}
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

int graph_free_const(struct graph *g, value_id v)
{
	struct value *x = &g->value[v];

	x->kind = VALUE_INPUT;
	x->has_default = true;
	x->dflt = x->type.value;
	x->type.value = NULL;
	x->origin = NULL;
	x->index = g->nin;
	return append(g->arena, &g->in, &g->nin, v);
}

int graph_add_output(struct graph *g, value_id v)
{
	return append(g->arena, &g->out, &g->nout, v);
}

enum linnet_code graph_add_node(struct graph *g, const struct op *op, const char *name, const value_id *in, uint32_t nin,
                                const value_id *out, uint32_t nout, const struct attr *attr, uint32_t nattr, node_id *id,
                                struct linnet_error *e)
{
	struct node *n = arena_grow(g->arena, g->node, g->nnode, 1, &g->cap_node, sizeof *n), node = { 0 };

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
	TRY(err_node(e, op_attrs(op, attr, nattr, g->arena, &node.attr, e), node_label(g, &node), op->name));
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

static int exchange_names(struct graph *g, value_id a, value_id b)
{
	struct value *x = &g->value[a], *y = &g->value[b];
	const char *name = x->name;
	const void *origin = x->origin;

	x->name = y->name;
	y->name = name;
	if (x->kind == y->kind) {
		x->origin = y->origin;
		y->origin = origin;
	}
	return map_put(&g->names, x->name, a) || map_put(&g->names, y->name, b) ? -1 : 0;
}

bool graph_is_output(const struct graph *g, value_id v)
{
	for (uint32_t i = 0; i < g->nout; i++)
		if (g->out[i] == v)
			return true;
	return false;
}

/* The value that carries `by` out of the main graph under the name of its output `old`. */
static enum linnet_code output_carrier(struct graph *g, struct uses *u, value_id old, value_id by, value_id *carry, struct linnet_error *e)
{
	node_id id;

	*carry = by;
	if (g->value[old].kind == VALUE_INPUT)
		*carry = old; /* the output is the input of that name */
	if (*carry == old)
		return LINNET_OK;
	if (g->value[by].kind == VALUE_INPUT || graph_is_output(g, by)) {
		*carry = graph_add_value(g, VALUE_NODE, NULL, g->value[old].name);
		if (!*carry)
			return fail_mem(e);
		g->value[*carry].type = g->value[by].type;
		TRY(graph_add_node(g, op_newest(NULL, "Identity"), NULL, &by, 1, carry, 1, NULL, 0, &id, e));
		TRY(uses_add_nodes(u, g, id, e));
	}
	return exchange_names(g, old, *carry) ? fail_mem(e) : LINNET_OK;
}

enum linnet_code graph_replace(struct graph *g, struct uses *u, value_id old, value_id by, struct linnet_error *e)
{
	uint32_t n = uses_of(u, old), kept = 0;
	value_id carry = by;

	if (!g->outer && graph_is_output(g, old))
		TRY(output_carrier(g, u, old, by, &carry, e));
	for (uint32_t i = 0; i < n && by != old; i++) {
		struct use use = u->use[u->begin[old] + i];
		value_id to = use.node ? by : carry;

		if (to == old) {
			u->use[u->begin[old] + kept++] = use;
			continue;
		}
		*(use.node ? &g->node[use.node].in[use.index] : &g->out[use.index]) = to;
		TRY(uses_add(u, to, use, e));
	}
	if (by != old)
		u->end[old] = u->begin[old] + kept;
	return LINNET_OK;
}

static enum linnet_code map_copy(struct map *m, struct arena *a, struct linnet_error *e)
{
	m->a = a;
	if (!m->cap)
		return LINNET_OK;
	m->slot = arena_dup(a, m->slot, m->cap * sizeof *m->slot);
	return m->slot ? LINNET_OK : fail_mem(e);
}

/* With the room that append() counts on. */
static enum linnet_code ids_copy(value_id **list, size_t n, struct arena *a, struct linnet_error *e)
{
	size_t room = 1;
	value_id *p;

	while (room < n)
		room *= 2;
	TRY_NEW(p, a, room);
	if (n)
		memcpy(p, *list, n * sizeof *p);
	*list = p;
	return LINNET_OK;
}

static enum linnet_code node_copy(struct node *n, struct graph *g, struct linnet_error *e)
{
	TRY(ids_copy(&n->in, n->nin, g->arena, e));
	TRY(ids_copy(&n->out, n->nout, g->arena, e));
	n->attr = arena_dup(g->arena, n->attr, n->nattr * sizeof *n->attr);
	if (!n->attr)
		return fail_mem(e);
	for (uint32_t i = 0; i < n->nattr; i++)
		if (n->attr[i].kind == ATTR_GRAPH) {
			TRY(graph_copy(n->attr[i].g, g->arena, &n->attr[i].g, e));
			n->attr[i].g->outer = g;
		}
	return LINNET_OK;
}

enum linnet_code graph_copy(const struct graph *g, struct arena *a, struct graph **out, struct linnet_error *e)
{
	struct graph *c = arena_dup(a, g, sizeof *g);

	if (!c)
		return fail_mem(e);
	*out = c;
	c->arena = a;
	c->value = arena_dup(a, g->value, g->value ? g->nvalue * sizeof *g->value : 0);
	c->node = arena_dup(a, g->node, g->node ? g->nnode * sizeof *g->node : 0);
	if (!c->value || !c->node)
		return fail_mem(e);
	c->cap_value = g->value ? g->nvalue : 0;
	c->cap_node = g->node ? g->nnode : 0;
	TRY(ids_copy(&c->in, g->nin, a, e));
	TRY(ids_copy(&c->out, g->nout, a, e));
	TRY(map_copy(&c->names, a, e));
	TRY(map_copy(&c->inner, a, e));
	for (uint32_t i = 1; i < c->nnode; i++)
		TRY(node_copy(&c->node[i], c, e));
	return LINNET_OK;
}

static enum linnet_code join_value(struct graph *g, const struct value *x, value_id *to, struct linnet_error *e)
{
	uint32_t same;

	if (x->kind == VALUE_INPUT && map_get(&g->names, x->name, &same) && g->value[same].kind == VALUE_INPUT) {
		*to = same;
		return LINNET_OK;
	}
	*to = x->kind == VALUE_INPUT ? graph_add_input(g, graph_fresh_name(g, x->name), &x->type) : graph_add_value(g, x->kind, NULL, x->name);
	if (!*to)
		return fail_mem(e);
	g->value[*to].type = x->type;
	g->value[*to].has_default = x->has_default;
	g->value[*to].dflt = x->dflt;
	return LINNET_OK;
}

enum linnet_code graph_join(struct graph *g, const struct graph *b, value_id *to, struct linnet_error *e)
{
	to[0] = 0;
	for (value_id v = 1; v < b->nvalue; v++)
		TRY(join_value(g, &b->value[v], &to[v], e));
	for (node_id i = 1; i < b->nnode; i++) {
		struct node n = b->node[i], *more = arena_grow(g->arena, g->node, g->nnode, 1, &g->cap_node, sizeof *more);

		if (!more)
			return fail_mem(e);
		g->node = more;
		if (n.dead)
			continue;
		TRY(node_copy(&n, g, e));
		for (uint32_t k = 0; k < n.nin; k++)
			n.in[k] = to[n.in[k]];
		for (uint32_t k = 0; k < n.nout; k++) {
			n.out[k] = to[n.out[k]];
			if (n.out[k]) {
				g->value[n.out[k]].producer = g->nnode;
				g->value[n.out[k]].index = k;
			}
		}
		g->node[g->nnode++] = n;
	}
	return LINNET_OK;
}

const char *node_label(const struct graph *g, const struct node *n)
{
	for (uint32_t i = 0; !*n->name && i < n->nout; i++)
		if (n->out[i])
			return g->value[n->out[i]].name;
	return n->name;
}

bool graph_is_ordered(const struct graph *g)
{
	for (node_id id = 1; id < g->nnode; id++)
		for (uint32_t i = 0; !g->node[id].dead && i < g->node[id].nin; i++) {
			value_id v = g->node[id].in[i];

			if (v && g->value[v].kind == VALUE_NODE && g->value[v].producer >= id && !g->node[g->value[v].producer].dead)
				return false;
		}
	return true;
}

enum linnet_code graph_order(const struct graph *g, struct arena *scratch, node_id **order, uint32_t *n,
                             struct linnet_error *e)
{
	enum { NEW_NODE, OPEN, DONE };
	uint8_t *state;
	struct frame { node_id node; uint32_t next; } *stack;
	uint32_t top = 0;

	*n = 0;
	TRY_NEW(*order, scratch, g->nnode + 1);
	if (graph_is_ordered(g)) {
		for (node_id id = 1; id < g->nnode; id++)
			if (!g->node[id].dead)
				(*order)[(*n)++] = id;
		return LINNET_OK;
	}
	TRY_NEW(state, scratch, g->nnode);
	TRY_NEW(stack, scratch, g->nnode + 1);
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

/* ---- graph_compact ---- */

struct compaction {
	struct graph *g;
	struct arena *scratch;
	node_id *order; /* of the live nodes */
	uint32_t n;
	bool *live;     /* by value: a graph output or an input of a live node; then: what stays */
	value_id *to;   /* by value: its new number */
	node_id *node;  /* by node: the same; NULL: as it is */
};

static enum linnet_code compact(struct graph *g, struct arena *scratch, bool **kept, struct linnet_error *e);

/* Compact the subgraphs of a node; captures they do not read are no inputs of it any more. */
static enum linnet_code compact_subgraphs(struct node *n, struct arena *scratch, struct linnet_error *e)
{
	uint32_t from = n->nin - n->ncapture, to = from;

	for (uint32_t i = 0; i < n->nattr; i++) {
		struct graph *sub = n->attr[i].kind == ATTR_GRAPH ? n->attr[i].g : NULL;
		uint32_t ncapture = sub ? sub->ncapture : 0;
		bool *kept;

		if (!sub)
			continue;
		TRY(compact(sub, scratch, &kept, e));
		for (uint32_t j = 0; j < ncapture; j++, from++)
			if (kept[j])
				n->in[to++] = n->in[from];
	}
	n->ncapture -= from - to;
	n->nin = to;
	return LINNET_OK;
}

static bool is_needed(const struct compaction *c, const struct node *n)
{
	for (uint32_t i = 0; i < n->nout; i++)
		if (c->live[n->out[i]])
			return true;
	return false;
}

/* Optional outputs that nobody reads are not wanted. */
static void drop_outputs(const struct compaction *c, struct node *n)
{
	for (uint32_t i = 0; i < n->nout && n->known; i++) {
		const struct op_io *io = n->out[i] && !c->live[n->out[i]] ? op_out(n->op, (int)i) : NULL;

		if (io && io->flags & OPTIONAL)
			n->out[i] = 0;
	}
	while (n->known && n->nout > 1 && !n->out[n->nout - 1])
		n->nout--;
}

/* What the outputs need, from the last node to the first; the rest dies. */
static enum linnet_code keep_live(struct compaction *c, struct linnet_error *e)
{
	struct graph *g = c->g;
	uint32_t kept = c->n;

	TRY_NEW(c->live, c->scratch, g->nvalue);
	for (uint32_t i = 0; i < g->nout; i++)
		c->live[g->out[i]] = true;
	for (uint32_t k = c->n; k-- > 0;) {
		struct node *n = &g->node[c->order[k]];

		n->dead = !is_needed(c, n);
		if (n->dead)
			continue;
		TRY(compact_subgraphs(n, c->scratch, e));
		for (uint32_t i = 0; i < n->nin; i++)
			c->live[n->in[i]] = n->in[i] != 0;
		drop_outputs(c, n);
		for (uint32_t i = 0; i < n->nout; i++) /* an output that is not optional stays */
			c->live[n->out[i]] = n->out[i] != 0;
		c->order[--kept] = c->order[k];
	}
	c->order += kept;
	c->n -= kept;
	return LINNET_OK;
}

/* Into their order, and without the dead. */
static enum linnet_code move_nodes(struct compaction *c, struct linnet_error *e)
{
	struct graph *g = c->g;
	struct node *to = g->node;
	uint32_t from = 0;
	bool forward = true; /* so none is written over that is still to be moved */

	while (from < c->n && c->order[from] == from + 1)
		from++;
	for (uint32_t k = from; k < c->n && forward; k++)
		forward = c->order[k] > k;
	if (!forward)
		TRY_NEW(to, c->scratch, c->n + 1);
	if (from < c->n)
		TRY_NEW(c->node, c->scratch, g->nnode);
	for (node_id id = 1; id <= from && from < c->n; id++)
		c->node[id] = id;
	for (uint32_t k = from; k < c->n; k++) {
		to[k + 1] = g->node[c->order[k]];
		c->node[c->order[k]] = k + 1;
	}
	if (!forward)
		memcpy(&g->node[from + 1], &to[from + 1], (c->n - from) * sizeof *to);
	g->nnode = c->n + 1;
	return LINNET_OK;
}

/* The values that stay, in the order they were made. */
static enum linnet_code move_values(struct compaction *c, bool *kept, struct linnet_error *e)
{
	struct graph *g = c->g;
	uint32_t nformal = g->nin - g->ncapture, nin = 0, n = 1;

	for (uint32_t i = 0; i < g->nin; i++) {
		if (i < nformal)
			c->live[g->in[i]] = true;
		else
			kept[i - nformal] = c->live[g->in[i]];
		if (!c->live[g->in[i]])
			continue;
		g->value[g->in[i]].index = nin;
		g->in[nin++] = g->in[i];
	}
	g->ncapture = nin - nformal;
	g->nin = nin;
	while (n < g->nvalue && c->live[n])
		n++;
	if (n == g->nvalue && !c->node)
		return LINNET_OK;
	TRY_NEW(c->to, c->scratch, g->nvalue);
	n = 1;
	for (value_id v = 1; v < g->nvalue; v++) {
		if (!c->live[v])
			continue;
		c->to[v] = n++;
		if (c->to[v] != v)
			g->value[c->to[v]] = g->value[v];
		if (c->node && g->value[c->to[v]].kind == VALUE_NODE)
			g->value[c->to[v]].producer = c->node[g->value[c->to[v]].producer];
	}
	g->nvalue = n;
	return LINNET_OK;
}

static void renumber(const struct compaction *c, value_id *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		v[i] = c->to[v[i]];
}

static enum linnet_code compact(struct graph *g, struct arena *scratch, bool **kept, struct linnet_error *e)
{
	struct compaction c = { .g = g, .scratch = scratch };

	TRY(graph_order(g, scratch, &c.order, &c.n, e));
	TRY(keep_live(&c, e));
	TRY_NEW(*kept, scratch, g->ncapture);
	TRY(move_nodes(&c, e));
	TRY(move_values(&c, *kept, e));
	if (!c.to)
		return LINNET_OK;
	for (node_id id = 1; id < g->nnode; id++) {
		renumber(&c, g->node[id].in, g->node[id].nin);
		renumber(&c, g->node[id].out, g->node[id].nout);
	}
	renumber(&c, g->in, g->nin);
	renumber(&c, g->out, g->nout);
	map_renumber(&g->names, c.to);
	return LINNET_OK;
}

enum linnet_code graph_compact(struct graph *g, struct arena *scratch, struct linnet_error *e)
{
	bool *kept;

	return compact(g, scratch, &kept, e);
}
