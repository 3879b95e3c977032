/* Patches: a described change, and carrying it out. */
#include "graph/pass.h"

#include <stdlib.h>
#include <string.h>

struct patch_node {
	const struct op *op;
	const char *hint;
	const value_id *in;
	uint32_t nin, nout;
	const struct attr *attr;
	uint32_t nattr;
	value_id out; /* first output, as the patch numbers it */
};

struct patch_value {
	const struct tensor *constant; /* NULL: output of a node, or an input */
	const struct type *input;      /* of a graph input, whose name is the hint */
	const char *hint;
	value_id real; /* once applied */
};

struct patch_replace {
	value_id old, by;
};

struct patch_output {
	value_id value;
	const char *name;
};

void patch_init(struct patch *p, const struct graph *g, struct linnet_error *e)
{
	*p = (struct patch){ .g = g, .arena = g->arena, .scratch = g->arena, .base = g->nvalue, .e = e };
}

/* Room for one more; NULL and p->code set without memory. */
static void *grown(struct patch *p, void *list, uint32_t n, uint32_t *cap, size_t size)
{
	void *q = arena_grow(p->scratch, list, n, 1, cap, size);

	if (!q)
		p->code = fail_mem(p->e);
	return q;
}

static value_id add_value(struct patch *p, const struct tensor *constant, const char *hint)
{
	struct patch_value *v = grown(p, p->value, p->nvalue, &p->cap_value, sizeof *v);

	if (!v)
		return 0;
	p->value = v;
	v[p->nvalue] = (struct patch_value){ .constant = constant, .hint = hint };
	return p->base + p->nvalue++;
}

static struct attr *copy_attrs(struct patch *p, const struct attr *attr, uint32_t *n)
{
	struct attr *copy;

	for (*n = 0; attr && attr[*n].name;)
		++*n;
	copy = arena_dup(p->scratch, attr, *n * sizeof *attr);
	if (!copy)
		p->code = fail_mem(p->e);
	for (uint32_t i = 0; copy && i < *n; i++) {
		struct attr *a = &copy[i];

		if (a->kind == ATTR_INTS && !(a->ints = arena_dup(p->arena, a->ints, a->n * sizeof *a->ints)))
			p->code = fail_mem(p->e);
	}
	return copy;
}

value_id patch_op(struct patch *p, const struct op *op, const char *hint, const value_id *in, uint32_t nin, uint32_t nout,
                  const struct attr *attr)
{
	struct patch_node *n;
	value_id first = 0;

	if (p->code)
		return 0;
	n = grown(p, p->node, p->nnode, &p->cap_node, sizeof *n);
	if (!n)
		return 0;
	p->node = n;
	n += p->nnode++;
	*n = (struct patch_node){ .op = op, .hint = hint, .nin = nin, .nout = nout };
	n->in = arena_dup(p->scratch, in, nin * sizeof *in);
	if (!n->in)
		p->code = fail_mem(p->e);
	n->attr = copy_attrs(p, attr, &n->nattr);
	for (uint32_t i = 0; i < nout && !p->code; i++) {
		value_id v = add_value(p, NULL, hint);

		first = i ? first : v;
	}
	n->out = first;
	return first;
}

value_id patch_node(struct patch *p, const char *op, const char *hint, const value_id *in, uint32_t nin, uint32_t nout,
                    const struct attr *attr)
{
	const struct op *row = op_newest(NULL, op);

	if (!row && !p->code)
		p->code = fail(p->e, LINNET_EINTERNAL, "there is no operator %s", op);
	return row ? patch_op(p, row, hint, in, nin, nout, attr) : 0;
}

value_id patch_const(struct patch *p, const struct tensor *t, const char *hint)
{
	return p->code ? 0 : add_value(p, t, hint);
}

value_id patch_input(struct patch *p, const char *name, const struct type *t)
{
	struct type *copy = p->code ? NULL : arena_dup(p->scratch, t, sizeof *t);
	value_id v;

	if (!copy) {
		p->code = p->code ? p->code : fail_mem(p->e);
		return 0;
	}
	v = add_value(p, NULL, name);
	if (v)
		p->value[v - p->base].input = copy;
	return v;
}

static value_id small_const(struct patch *p, enum dtype dt, int rank, int64_t n, const int64_t *v, double x, const char *hint)
{
	struct tensor *t;

	if (p->code)
		return 0;
	p->code = tensor_new(p->arena, dt, rank, &n, &t, p->e);
	if (p->code)
		return 0;
	for (int64_t i = 0; i < t->n; i++)
		if (v)
			tensor_put_int(t, i, v[i]);
		else
			tensor_put(t, i, x);
	return patch_const(p, t, hint);
}

value_id patch_ints(struct patch *p, const int64_t *v, int n, const char *hint)
{
	return small_const(p, DT_INT64, 1, n, v, 0, hint);
}

value_id patch_int(struct patch *p, int64_t v, const char *hint)
{
	return small_const(p, DT_INT64, 0, 1, &v, 0, hint);
}

value_id patch_float(struct patch *p, enum dtype dt, double v, const char *hint)
{
	return small_const(p, dt, 0, 1, NULL, v, hint);
}

value_id patch_lengths(struct patch *p, value_id v, int64_t from, int64_t to, const char *hint)
{
	struct attr part[] = { attr_int("start", from), attr_int("end", to), { .name = NULL } };
	const struct graph *main = graph_main(p->g);
	value_id all;

	if (!main->opset || main->opset >= 15) {
		part[1].name = to == INT64_MAX ? NULL : part[1].name;
		return patch_node(p, "Shape", hint, PATCH_IN(v), 1, part);
	}
	all = patch_node(p, "Shape", hint, PATCH_IN(v), 1, NULL);
	if (from >= 0 && to == from + 1)
		return patch_node(p, "Gather", hint, PATCH_IN(all, patch_ints(p, &from, 1, "axis")), 1, NULL);
	return patch_node(p, "Slice", hint, PATCH_IN(all, patch_ints(p, &from, 1, "from"), patch_ints(p, &to, 1, "to")), 1, NULL);
}

enum { MAX_SAID = 3 };

/* times * the largest of these lengths of inputs. */
struct said {
	value_id input[MAX_SAID];
	int axis[MAX_SAID], n;
	dim times;
};

static bool is_times(struct dims *t, dim d, dim of, dim *times)
{
	*times = dim_div(t, d, of);
	return *times != DIM_NONE && dim_is_int(*times) && *times >= 1 && dim_mul(t, of, *times) == d;
}

/* The input and axis whose symbolic length `of` d is a multiple of. */
static bool said_once(const struct graph *g, dim d, struct said *s)
{
	for (uint32_t i = 0; i < g->nin; i++) {
		const struct type *t = &g->value[g->in[i]].type;

		for (int k = 0; t->kind == KIND_TENSOR && k < t->shape.rank; k++) {
			if (!dim_is_expr(t->shape.d[k]) || !is_times(g->dims, d, t->shape.d[k], &s->times))
				continue;
			s->input[0] = g->in[i];
			s->axis[0] = k;
			s->n = 1;
			return true;
		}
	}
	return false;
}

struct symbols {
	struct dims *dims;
	dim d[MAX_SAID];
	int n; /* one more than fit: too many */
};

static void note_symbol(void *ctx, const char *name)
{
	struct symbols *s = ctx;
	dim d = dim_symbol(s->dims, name);

	for (int i = 0; i < s->n && i < MAX_SAID; i++)
		if (s->d[i] == d)
			return;
	if (s->n < MAX_SAID)
		s->d[s->n] = d;
	s->n += s->n <= MAX_SAID;
}

/* The largest of all symbols of d, taken in some order, is d. */
static bool said_largest(const struct graph *g, dim d, struct said *s)
{
	struct symbols all = { .dims = g->dims };
	struct said one;

	dim_symbols(g->dims, d, note_symbol, &all);
	if (all.n < 2 || all.n > MAX_SAID || (graph_main(g)->opset && graph_main(g)->opset < 12)) /* whose Max has no integers */
		return false;
	for (int first = 0; first < all.n; first++) {
		dim most = all.d[first];

		for (int i = 1; i < all.n; i++)
			most = dim_max(g->dims, most, all.d[(first + i) % all.n]);
		if (!is_times(g->dims, d, most, &s->times))
			continue;
		for (s->n = 0; s->n < all.n; s->n++) {
			if (!said_once(g, all.d[(first + s->n) % all.n], &one) || one.times != 1)
				return false;
			s->input[s->n] = one.input[0];
			s->axis[s->n] = one.axis[0];
		}
		return true;
	}
	return false;
}

static bool find_said(const struct graph *g, dim d, struct said *s)
{
	return dim_is_expr(d) && (said_once(g, d, s) || said_largest(g, d, s));
}

bool length_is_said(const struct graph *g, dim d)
{
	struct said s;

	return dim_is_int(d) || find_said(g, d, &s);
}

value_id patch_said(struct patch *p, dim d)
{
	struct said s;
	value_id part[MAX_SAID], v;

	if (dim_is_int(d))
		return patch_ints(p, &d, 1, "length");
	if (!find_said(p->g, d, &s))
		return 0;
	for (int i = 0; i < s.n; i++)
		part[i] = patch_lengths(p, s.input[i], s.axis[i], s.axis[i] + 1, "length");
	v = s.n == 1 ? part[0] : patch_node(p, "Max", "length", part, (uint32_t)s.n, 1, NULL);
	return s.times == 1 ? v : patch_node(p, "Mul", "length", PATCH_IN(v, patch_ints(p, &s.times, 1, "times")), 1, NULL);
}

struct attr attr_int(const char *name, int64_t i)
{
	return (struct attr){ .name = name, .kind = ATTR_INT, .i = i };
}

struct attr attr_float(const char *name, double f)
{
	return (struct attr){ .name = name, .kind = ATTR_FLOAT, .f = f };
}

struct attr attr_ints(const char *name, const int64_t *v, size_t n)
{
	return (struct attr){ .name = name, .kind = ATTR_INTS, .ints = v, .n = n };
}

struct attr attr_string(const char *name, const char *s)
{
	return (struct attr){ .name = name, .kind = ATTR_STRING, .s = { s, strlen(s) } };
}

void patch_replace(struct patch *p, value_id old, value_id by)
{
	struct patch_replace *r;

	if (p->code || !by)
		return;
	r = grown(p, p->replace, p->nreplace, &p->cap_replace, sizeof *r);
	if (!r)
		return;
	p->replace = r;
	r[p->nreplace++] = (struct patch_replace){ old, by };
}

void patch_output(struct patch *p, value_id v, const char *name)
{
	struct patch_output *o;

	if (p->code)
		return;
	o = grown(p, p->output, p->noutput, &p->cap_output, sizeof *o);
	if (!o)
		return;
	p->output = o;
	o[p->noutput++] = (struct patch_output){ v, name };
}

const char *node_first_written(const struct graph *g, const struct node *n)
{
	const struct trail *t = n->trail;
	const char *name, *op;

	while (t && t->rule && t->n)
		t = t->of[0];
	if (t)
		return t->name ? t->name : "";
	node_written(g, n, &name, &op);
	return name;
}

/* Whether an operator that the opset lacks may be made for a time. */
static bool allowed(const struct patch *p, const struct op *op, const struct graph *main)
{
	value_id old = p->nreplace ? p->replace[0].old : 0;
	const struct node *n = value_node(p->g, old);
	const char *key = n && main->denied ? arena_fmt(p->arena, "%s:%s", op->name, node_first_written(p->g, n)) : NULL;

	return main->denied && key && !map_get(main->denied, key, NULL);
}

/* Whether the operator, as it is now, has a word in the opset: not where an older one of the name means another thing. */
static bool says(const struct op *op, int opset)
{
	const struct op *then = op_find(NULL, op->name, opset);

	return then && (then->same || (!then->lower && !then->write_lower));
}

bool patch_fits(const struct patch *p, const struct graph *main)
{
	for (uint32_t i = 0; main->opset && i < p->nnode; i++) {
		const struct op *op = p->node[i].op;

		if (op->domain && !strcmp(op->domain, "linnet"))
			return false;
		if (op->domain)
			continue;
		if (!says(op, main->opset) && !allowed(p, op, main))
			return false;
		for (uint32_t k = 0; k < p->node[i].nattr; k++) {
			int at = op_attr_index(op, p->node[i].attr[k].name);

			if (at >= 0 && op->attr[at].since > main->opset && op_find(NULL, op->name, main->opset))
				return false;
		}
	}
	return true;
}

/* ---- Applying ---- */

/* The graph's value for one of the patch. */
static value_id result(const struct patch *p, value_id v)
{
	return v < p->base ? v : p->value[v - p->base].real;
}

static enum linnet_code make_nodes(struct graph *g, struct patch *p, const char *from, struct linnet_error *e)
{
	for (uint32_t i = 0; i < p->nvalue; i++) {
		struct patch_value *v = &p->value[i];

		if (v->constant && !(v->real = graph_add_const(g, v->constant, v->hint)))
			return fail_mem(e);
		if (v->input && !(v->real = graph_add_input(g, v->hint, v->input)))
			return fail_mem(e);
	}
	for (uint32_t i = 0; i < p->nnode; i++) {
		struct patch_node *n = &p->node[i];
		value_id *in;
		const char *name = graph_fresh_name(g, n->hint);
		node_id id;

		TRY_NEW(in, p->scratch, n->nin);
		if (!name)
			return fail_mem(e);
		for (uint32_t j = 0; j < n->nin; j++)
			in[j] = result(p, n->in[j]);
		TRY(graph_add_node(g, n->op, name, in, n->nin, NULL, n->nout, n->attr, n->nattr, &id, e));
		g->node[id].from = from;
		for (uint32_t j = 0; j < n->nout; j++)
			p->value[n->out - p->base + j].real = g->node[id].out[j];
		TRY(graph_infer_node(g, id, e));
	}
	return LINNET_OK;
}

/* A replacement must say the same of the value as was known. */
static enum linnet_code check_type(struct graph *g, value_id old, value_id by, const char *from, struct linnet_error *e)
{
	const struct type *a = &g->value[old].type, *b = &g->value[by].type;
	struct arena *s;
	enum linnet_code code = LINNET_OK;
	bool same = (a->dt == b->dt && a->kind == b->kind && a->key == b->key) || a->dt == DT_UNDEFINED;

	if (type_equal(a, b))
		return LINNET_OK;
	graph_types_change(g);
	if (a->shape.rank >= 0 && b->shape.rank >= 0) {
		same = same && a->shape.rank == b->shape.rank;
		for (int i = 0; same && i < a->shape.rank; i++)
			same = a->shape.d[i] == b->shape.d[i] || !dim_is_int(a->shape.d[i]) || !dim_is_int(b->shape.d[i]);
	}
	if (same)
		return LINNET_OK;
	s = arena_new();
	if (!s)
		return fail_mem(e);
	code = fail(e, LINNET_EINTERNAL, "rule %s gives %s for value \"%s\", which is %s", from, type_str(g->dims, b, s),
	            g->value[old].name, type_str(g->dims, a, s));
	arena_free(s);
	return code;
}

/* What a rule replaced: nodes that died, the one of the first value it replaced before them. */
struct replaced {
	node_id *node;
	uint32_t n, cap;
};

static enum linnet_code note_dead(struct replaced *r, node_id n, struct arena *s, struct linnet_error *e)
{
	r->node = arena_grow(s, r->node, r->n, 1, &r->cap, sizeof *r->node);
	if (!r->node)
		return fail_mem(e);
	r->node[r->n++] = n;
	return LINNET_OK;
}

static bool unused(const struct uses *u, const struct node *n)
{
	bool used = n->dead;

	for (uint32_t i = 0; i < n->nout && !used; i++)
		used = n->out[i] && uses_of(u, n->out[i]);
	return !used;
}

static int newest_first(const void *a, const void *b)
{
	node_id x = *(const node_id *)a, y = *(const node_id *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/*
 * Nodes none of whose outputs is used any more: those that computed what was replaced, new ones, and what only they needed. Those of the
 * graph before the patch, below `first`, are put into r.
 */
static enum linnet_code sweep(struct graph *g, struct uses *u, const struct patch *p, uint32_t first, struct replaced *r, struct arena *s,
                              struct linnet_error *e)
{
	struct replaced todo = { NULL, 0, 0 };

	TRY(note_dead(r, 0, s, e));
	for (node_id i = first; i < g->nnode; i++)
		TRY(note_dead(&todo, i, s, e));
	for (uint32_t i = 0; i < p->nreplace; i++)
		if (g->value[p->replace[i].old].kind == VALUE_NODE)
			TRY(note_dead(&todo, g->value[p->replace[i].old].producer, s, e));
	while (todo.n) {
		node_id id = todo.node[--todo.n];
		struct node *n = &g->node[id];

		if (!unused(u, n))
			continue;
		n->dead = true;
		uses_drop_node(u, g, id);
		if (id < first)
			TRY(note_dead(r, id, s, e));
		for (uint32_t i = 0; i < n->nin; i++)
			if (n->in[i] && g->value[n->in[i]].kind == VALUE_NODE)
				TRY(note_dead(&todo, g->value[n->in[i]].producer, s, e));
	}
	qsort(r->node + 1, r->n - 1, sizeof *r->node, newest_first);
	return LINNET_OK;
}

/* The new nodes, from `first` on, stand for those replaced. */
static enum linnet_code leave_trail(struct graph *g, uint32_t first, const struct replaced *r, const char *rule, struct linnet_error *e)
{
	const struct trail **of;
	struct trail *t;

	TRY_NEW(t, g->arena, 1);
	TRY_NEW(of, g->arena, r->n);
	*t = (struct trail){ .rule = rule, .of = of };
	for (uint32_t i = 0; i < r->n; i++) {
		const struct node *n = &g->node[r->node[i]];
		struct trail *leaf;

		if (!r->node[i] || (i && r->node[i] == r->node[0]))
			continue;
		if (n->trail) {
			if (!t->n || of[t->n - 1] != n->trail)
				of[t->n++] = n->trail;
			continue;
		}
		TRY_NEW(leaf, g->arena, 1);
		node_written(g, n, &leaf->name, &leaf->op);
		of[t->n++] = leaf;
	}
	for (uint32_t i = first; i < g->nnode; i++)
		g->node[i].trail = t;
	return LINNET_OK;
}

static enum linnet_code finish(struct graph *g, struct uses *u, const struct patch *p, uint32_t first, node_id main, const char *from,
                               struct arena *s, struct linnet_error *e)
{
	struct replaced r = { NULL, 0, 0 };

	TRY(sweep(g, u, p, first, &r, s, e));
	if (!p->nnode)
		return LINNET_OK;
	r.node[0] = main;
	return leave_trail(g, first, &r, from, e);
}

static enum linnet_code apply(struct graph *g, struct patch *p, const char *from, struct arena *s, struct linnet_error *e)
{
	uint32_t first = g->nnode;
	node_id main = p->nreplace && g->value[p->replace[0].old].kind == VALUE_NODE ? g->value[p->replace[0].old].producer : 0;
	struct uses own, *u = p->uses ? p->uses : &own;
	enum linnet_code code = p->code;

	if (!code && !p->uses)
		code = graph_uses(g, s, &own, e);
	if (!code)
		code = make_nodes(g, p, from, e);
	for (uint32_t i = 0; !code && i < p->nreplace; i++)
		code = check_type(g, p->replace[i].old, result(p, p->replace[i].by), from, e);
	if (code) { /* as before: the new nodes go again */
		for (uint32_t i = first; i < g->nnode; i++)
			g->node[i].dead = true;
		return code;
	}
	TRY(uses_add_nodes(u, g, first, e));
	for (uint32_t i = 0; i < p->nreplace; i++)
		TRY(graph_replace(g, u, p->replace[i].old, result(p, p->replace[i].by), e));
	for (uint32_t i = 0; i < p->noutput; i++) {
		value_id v = result(p, p->output[i].value);

		if (map_put(&g->names, g->value[v].name, 0) || map_put(&g->names, p->output[i].name, v))
			return fail_mem(e);
		g->value[v].name = p->output[i].name;
		if (graph_add_output(g, v))
			return fail_mem(e);
		TRY(uses_add(u, v, (struct use){ 0, g->nout - 1 }, e));
	}
	return finish(g, u, p, first, main, from, s, e);
}

enum linnet_code patch_apply(struct graph *g, struct patch *p, const char *from, struct linnet_error *e)
{
	struct arena *s = p->scratch == g->arena ? arena_new() : p->scratch;
	enum linnet_code code = s ? apply(g, p, from, s, e) : fail_mem(e);

	if (s != p->scratch)
		arena_free(s);
	return code;
}
