/* Whether two graphs are the same, of whatever models: what differs first, in words, or NULL. */
#ifndef LINNET_TESTS_SAME_H
#define LINNET_TESTS_SAME_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph/graph.h"

static const char *graph_difference(const struct graph *a, const struct graph *b, struct arena *s);

static inline const char *same_text(const char *a, const char *b, const char *what, struct arena *s)
{
	a = a ? a : "";
	b = b ? b : "";
	return strcmp(a, b) ? arena_fmt(s, "%s: \"%s\" and \"%s\"", what, a, b) : NULL;
}

static inline const char *same_type(const struct graph *a, value_id v, const struct graph *b, value_id w, struct arena *s)
{
	const struct type *t = &a->value[v].type, *u = &b->value[w].type;

	if (t->kind != u->kind || t->dt != u->dt)
		return arena_fmt(s, "types of %s: %s and %s", a->value[v].name, dtype_name(t->dt), dtype_name(u->dt));
	return same_text(shape_str(a->dims, &t->shape, s), shape_str(b->dims, &u->shape, s), a->value[v].name, s);
}

/* Values are the same by name (which captures need not keep), kind, type and contents. */
static inline const char *same_value(const struct graph *a, value_id v, const struct graph *b, value_id w, struct arena *s)
{
	const struct value *x = &a->value[v], *y = &b->value[w];
	const char *d;

	if (!v != !w)
		return arena_fmt(s, "\"%s\" is left out of one", v ? x->name : y->name);
	if (!v)
		return NULL;
	if ((d = same_text(x->name, y->name, "names", s)) || (d = same_type(a, v, b, w, s)))
		return d;
	if (x->kind != y->kind || x->has_default != y->has_default)
		return arena_fmt(s, "%s is of two kinds", x->name);
	if (x->kind == VALUE_CONST && !tensor_same(x->type.value, y->type.value))
		return arena_fmt(s, "contents of %s", x->name);
	if (x->has_default && !tensor_same(x->dflt, y->dflt))
		return arena_fmt(s, "default of %s", x->name);
	return NULL;
}

static inline const char *same_attr(const struct attr *x, const struct attr *y, struct arena *s)
{
	bool same = x->kind == y->kind && x->n == y->n;

	if (same && x->kind == ATTR_GRAPH)
		return graph_difference(x->g, y->g, s);
	same = same && x->i == y->i && x->f == y->f && x->s.n == y->s.n;
	same = same && (!x->s.n || !memcmp(x->s.p, y->s.p, x->s.n));
	same = same && (x->kind != ATTR_TENSOR || tensor_same(x->t, y->t));
	for (size_t i = 0; same && i < x->n; i++)
		same = x->kind == ATTR_INTS     ? x->ints[i] == y->ints[i]
		       : x->kind == ATTR_FLOATS ? x->floats[i] == y->floats[i]
		                                : x->strings[i].n == y->strings[i].n &&
		                                          !memcmp(x->strings[i].p, y->strings[i].p, x->strings[i].n);
	return same ? same_text(x->name, y->name, "attributes", s) : arena_fmt(s, "attribute %s", x->name);
}

static inline const char *same_node(const struct graph *a, const struct node *m, const struct graph *b, const struct node *n,
                                    struct arena *s)
{
	bool other = m->op->since != n->op->since; /* another version that says the same: it may have more attributes */
	const char *d;

	if ((d = same_text(m->op->name, n->op->name, "operators", s)) || (d = same_text(m->op->domain, n->op->domain, "domains", s)) ||
	    (d = same_text(m->name, n->name, "nodes", s)))
		return d;
	if ((other && !m->op->same) || m->known != n->known || m->nin != n->nin || m->nout != n->nout ||
	    m->ncapture != n->ncapture || (!other && m->nattr != n->nattr))
		return arena_fmt(s, "node %s (%s)", m->name, m->op->name);
	for (uint32_t i = 0; i < m->nin; i++)
		if ((d = same_value(a, m->in[i], b, n->in[i], s)))
			return d;
	for (uint32_t i = 0; i < m->nout; i++)
		if ((d = same_value(a, m->out[i], b, n->out[i], s)))
			return d;
	for (uint32_t i = 0; !other && i < m->nattr; i++)
		if ((d = same_attr(&m->attr[i], &n->attr[i], s)))
			return d;
	return NULL;
}

static const char *graph_difference(const struct graph *a, const struct graph *b, struct arena *s)
{
	struct linnet_error e = { 0 };
	node_id *p, *q;
	uint32_t n, k;
	const char *d;

	if (graph_order(a, s, &p, &n, &e) || graph_order(b, s, &q, &k, &e))
		return "a graph has no order";
	if (a->nin != b->nin || a->nout != b->nout || a->ncapture != b->ncapture || n != k)
		return arena_fmt(s, "%u, %u inputs, %u, %u outputs, %u, %u nodes", a->nin, b->nin, a->nout, b->nout, n, k);
	for (uint32_t i = 0; i < a->nin; i++)
		if ((d = same_value(a, a->in[i], b, b->in[i], s)))
			return d;
	for (uint32_t i = 0; i < n; i++)
		if ((d = same_node(a, &a->node[p[i]], b, &b->node[q[i]], s)))
			return d;
	for (uint32_t i = 0; i < a->nout; i++)
		if ((d = same_value(a, a->out[i], b, b->out[i], s)))
			return d;
	return NULL;
}

#endif
