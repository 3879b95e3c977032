/*
 * Recognising recurrences: a Scan over tokens whose body is, in whatever spelling,
 *
 *   S' = a S + k^T v                  or, with a correction,   S' = a S + beta k^T (v - k (a S))
 *   o  = c q S'                       a = exp(g), a number a head or a row of S, or 1
 *
 * becomes one LinearAttention node. The body is not matched: each of its values is multiplied out into terms, products of the body's inputs with a
 * label an axis and sums over the labels that are no axes any more (Einstein's notation). The terms of S' and o tell the rule. Needs types.
 * Source: operator LinearAttention, opset 27.
 */
#include <math.h>
#include <string.h>

#include "graph/pass.h"
#include "graph/why.h"

enum { MAX_LEAVES = 8, MAX_TERMS = 4, MAX_LABELS = 64, MAX_BODY = 64 };

/* An input of the body (or exp of it), with the labels of its axes; 0: an axis of length 1. */
struct leaf {
	value_id v;
	bool exp;
	int8_t label[MAX_RANK];
};

struct term {
	double c;
	struct leaf leaf[MAX_LEAVES];
	int n;
};

struct form {
	bool known;
	int rank;
	int8_t label[MAX_RANK];
	struct term term[MAX_TERMS];
	int n;
};

struct reader {
	const struct graph *g;        /* the body */
	struct form *form;            /* by value */
	int8_t same[MAX_LABELS];      /* the label it is the same as, or itself */
	dim length[MAX_LABELS];
	int nlabel, nstate;           /* the first nstate (from 1) are the state's */
};

static int8_t find(const struct reader *r, int8_t x)
{
	while (r->same[x] != x)
		x = r->same[x];
	return x;
}

static int8_t label_new(struct reader *r, dim d)
{
	if (r->nlabel == MAX_LABELS)
		return -1;
	r->same[r->nlabel] = (int8_t)r->nlabel;
	r->length[r->nlabel] = d;
	return (int8_t)r->nlabel++;
}

/* The state keeps its shape, so what meets it has its lengths, whatever they are called. */
static bool same_length(const struct reader *r, int8_t a, int8_t b)
{
	dim x = r->length[a], y = r->length[b];

	return (x == y && x != DIM_NONE) || ((a <= r->nstate || b <= r->nstate) && !(dim_is_int(x) && dim_is_int(y)));
}

/* What two axes that meet are: one of them where the other has length 1. */
static bool meet(struct reader *r, int8_t a, int8_t b, int8_t *out)
{
	a = find(r, a);
	b = find(r, b);
	*out = a ? a : b;
	if (!a || !b || a == b)
		return true;
	if (a > b) {
		int8_t t = a;

		a = b;
		b = t;
	}
	if (!same_length(r, a, b))
		return false;
	if (dim_is_int(r->length[b]))
		r->length[a] = r->length[b];
	r->same[b] = *out = a;
	return true;
}

/* The form of an input of the body. */
static bool leaf_form(struct reader *r, value_id v, struct form *f)
{
	const struct shape *s = &r->g->value[v].type.shape;

	if (s->rank < 0)
		return false;
	*f = (struct form){ .known = true, .rank = s->rank, .n = 1, .term[0] = { .c = 1, .n = 1, .leaf[0].v = v } };
	for (int i = 0; i < s->rank; i++) {
		f->label[i] = s->d[i] == 1 ? 0 : label_new(r, s->d[i]);
		if (f->label[i] < 0)
			return false;
		f->term[0].leaf[0].label[i] = f->label[i];
	}
	return true;
}

static bool multiply(const struct term *a, const struct term *b, struct term *out)
{
	if (a->n + b->n > MAX_LEAVES)
		return false;
	*out = *a;
	out->c *= b->c;
	memcpy(out->leaf + a->n, b->leaf, (size_t)b->n * sizeof *b->leaf);
	out->n = a->n + b->n;
	return true;
}

/* All products of terms; axes are set by the caller. */
static bool products(const struct form *a, const struct form *b, struct form *out)
{
	if (a->n * b->n > MAX_TERMS)
		return false;
	out->n = 0;
	for (int i = 0; i < a->n; i++)
		for (int j = 0; j < b->n; j++)
			if (!multiply(&a->term[i], &b->term[j], &out->term[out->n++]))
				return false;
	return true;
}

/* Axes of two forms that are broadcast, but for the last `but`. */
static bool spread_axes(struct reader *r, const struct form *a, const struct form *b, int but, struct form *out)
{
	out->rank = a->rank > b->rank ? a->rank : b->rank;
	for (int i = but; i < out->rank; i++)
		if (!meet(r, i < a->rank ? a->label[a->rank - 1 - i] : 0, i < b->rank ? b->label[b->rank - 1 - i] : 0, &out->label[out->rank - 1 - i]))
			return false;
	return true;
}

static void rename_label(const struct reader *r, struct form *f, int8_t from, int8_t to)
{
	for (int i = 0; i < f->rank; i++)
		if (find(r, f->label[i]) == from)
			f->label[i] = to;
	for (int i = 0; i < f->n; i++)
		for (int k = 0; k < f->term[i].n; k++)
			for (int j = 0; j < MAX_RANK; j++)
				if (find(r, f->term[i].leaf[k].label[j]) == from)
					f->term[i].leaf[k].label[j] = to;
}

/* A value that meets itself turned (k^T k): its axes in b get names of their own. Ranks are aligned at the end. */
static bool tell_apart(struct reader *r, const struct form *a, struct form *b)
{
	for (int i = 0; i < b->rank; i++) {
		int8_t own = find(r, b->label[b->rank - 1 - i]), fresh;

		for (int j = 0; j < a->rank && own; j++) {
			if (j == i || find(r, a->label[a->rank - 1 - j]) != own)
				continue;
			fresh = label_new(r, r->length[own]);
			if (fresh < 0)
				return false;
			rename_label(r, b, own, fresh);
			break;
		}
	}
	return true;
}

static bool times(struct reader *r, const struct form *a, const struct form *b, struct form *out)
{
	struct form c = *b;

	return tell_apart(r, a, &c) && spread_axes(r, a, &c, 0, out) && products(a, &c, out);
}

/* What is summed over gets a name of its own, as the factors may be used again. */
static bool matmul(struct reader *r, const struct form *a, const struct form *b, struct form *out)
{
	struct form c = *a, d = *b;
	int8_t x, y, own;

	if (a->rank < 2 || b->rank < 2)
		return false;
	x = find(r, a->label[a->rank - 1]);
	y = find(r, b->label[b->rank - 2]);
	if (!x != !y || (x && x != y && !same_length(r, x, y)))
		return false;
	if (x) {
		own = label_new(r, dim_is_int(r->length[x]) ? r->length[x] : r->length[y]);
		if (own < 0)
			return false;
		rename_label(r, &c, x, own);
		rename_label(r, &d, y, own);
		c.label[c.rank - 1] = d.label[d.rank - 2] = 0;
	}
	if (!tell_apart(r, &c, &d) || !spread_axes(r, &c, &d, 2, out))
		return false;
	out->label[out->rank - 2] = c.label[c.rank - 2];
	out->label[out->rank - 1] = d.label[d.rank - 1];
	return products(&c, &d, out);
}

static bool add_forms(struct reader *r, const struct form *a, const struct form *b, double sign, struct form *out)
{
	if (a->n + b->n > MAX_TERMS || !spread_axes(r, a, b, 0, out))
		return false;
	memcpy(out->term, a->term, sizeof out->term);
	memcpy(out->term + a->n, b->term, (size_t)b->n * sizeof *b->term);
	for (int i = a->n; i < a->n + b->n; i++)
		out->term[i].c *= sign;
	out->n = a->n + b->n;
	return true;
}

/* Axes of length 1 put in or taken out. */
static bool respaced(const struct reader *r, const struct node *n, const struct form *a, struct form *out)
{
	int64_t axes[MAX_RANK];
	int count, from = 0;
	bool in = node_is(n, "Unsqueeze");
	int rank;
	bool at[MAX_RANK] = { false };

	if (n->nin < 2 || !value_ints(r->g, n->in[1], axes, MAX_RANK, &count))
		return false;
	rank = in ? a->rank + count : a->rank;
	if (rank > MAX_RANK)
		return false;
	for (int i = 0; i < count; i++) {
		int64_t x = axes[i] < 0 ? axes[i] + rank : axes[i];

		if (x < 0 || x >= rank || at[x])
			return false;
		at[x] = true;
	}
	*out = *a;
	out->rank = 0;
	for (int i = 0; i < rank; i++) {
		if (in)
			out->label[out->rank++] = at[i] ? 0 : a->label[from++];
		else if (!at[i])
			out->label[out->rank++] = a->label[i];
		else if (a->label[i])
			return false;
	}
	return true;
}

static bool node_form(struct reader *r, const struct node *n, struct form *out)
{
	const struct form *a = n->nin > 0 && n->in[0] ? &r->form[n->in[0]] : NULL, *b = n->nin > 1 && n->in[1] ? &r->form[n->in[1]] : NULL;

	if (!a || !a->known || n->nout != 1)
		return false;
	if (node_is(n, "Identity") || node_is(n, "Neg") || node_is(n, "Exp")) {
		*out = *a;
		if (node_is(n, "Neg"))
			for (int i = 0; i < out->n; i++)
				out->term[i].c *= -1;
		if (!node_is(n, "Exp"))
			return true;
		if (a->n != 1 || a->term[0].n != 1 || a->term[0].c != 1 || a->term[0].leaf[0].exp)
			return false;
		out->term[0].leaf[0].exp = true;
		return true;
	}
	if (node_is(n, "Unsqueeze") || node_is(n, "Squeeze"))
		return respaced(r, n, a, out);
	if (node_is(n, "Transpose")) {
		const struct attr *perm = node_attr(n, "perm");

		*out = *a;
		for (int i = 0; i < a->rank; i++)
			out->label[i] = a->label[perm->n ? perm->ints[i] : a->rank - 1 - i];
		return true;
	}
	if (!b || !b->known)
		return false;
	if (node_is(n, "Mul"))
		return times(r, a, b, out);
	if (node_is(n, "MatMul"))
		return matmul(r, a, b, out);
	return (node_is(n, "Add") && add_forms(r, a, b, 1, out)) || (node_is(n, "Sub") && add_forms(r, a, b, -1, out));
}

/* Forms of all values of the body; the state's new value counts as an input for what comes behind it. */
static enum linnet_code read_body(struct reader *r, value_id next, struct form *state, struct arena *a, bool *read, struct linnet_error *e)
{
	const struct graph *g = r->g;
	node_id *order;
	uint32_t n;

	*read = false;
	r->nlabel = 1; /* 0: length 1 */
	TRY_NEW(r->form, a, g->nvalue);
	TRY(graph_order(g, a, &order, &n, e));
	if (n > MAX_BODY)
		return LINNET_OK;
	for (uint32_t i = 0; i < g->nin; i++) {
		if (!leaf_form(r, g->in[i], &r->form[g->in[i]]))
			return LINNET_OK;
		if (!i)
			r->nstate = r->nlabel - 1;
	}
	for (value_id v = 1; v < g->nvalue; v++) {
		const struct tensor *t = g->value[v].kind == VALUE_CONST ? value_const(g, v) : NULL;

		if (!t || !dtype_in(t->dt, FLOATS))
			continue;
		if (!leaf_form(r, v, &r->form[v]))
			return LINNET_OK;
		if (t->n == 1) /* a number */
			r->form[v].term[0] = (struct term){ .c = tensor_get(t, 0) };
	}
	for (uint32_t i = 0; i < n; i++) {
		const struct node *node = &g->node[order[i]];
		struct form f = { .known = false };

		f.known = node_form(r, node, &f);
		for (uint32_t k = 0; k < node->nout; k++) {
			value_id v = node->out[k];

			if (!v)
				continue;
			if (v != next) {
				r->form[v] = f;
				continue;
			}
			*state = f;
			if (!f.known)
				return LINNET_OK;
			r->form[v] = (struct form){ .known = true, .rank = f.rank, .n = 1, .term[0] = { .c = 1, .n = 1, .leaf[0].v = v } };
			memcpy(r->form[v].label, f.label, sizeof f.label);
			memcpy(r->form[v].term[0].leaf[0].label, f.label, sizeof f.label);
		}
	}
	*read = state->known;
	return LINNET_OK;
}

/* ---- The rule ---- */

struct recurrence {
	const struct node *scan;
	value_id s, next;              /* the state in the body, old and new */
	const struct leaf *q, *k, *v, *g, *beta;
	int8_t batch, head, row, column, group; /* labels: of the state [batch, head, row, column], of the queries' further axis; 0: none */
	double scale, fade;            /* fade: what is left of the state after each token, 1 or what no leaf says */
	struct form out;
};

static bool has(const struct reader *r, const struct leaf *l, int8_t label)
{
	for (int i = 0; i < MAX_RANK && label; i++)
		if (l->label[i] && find(r, l->label[i]) == label)
			return true;
	return false;
}

static const struct leaf *leaf_of(const struct term *t, value_id v)
{
	const struct leaf *found = NULL;

	for (int i = 0; i < t->n; i++)
		if (t->leaf[i].v == v) {
			if (found)
				return NULL;
			found = &t->leaf[i];
		}
	return found;
}

/* All labels of l are among these. */
static bool within(const struct reader *r, const struct leaf *l, int8_t a, int8_t b, int8_t c, int8_t d)
{
	for (int i = 0; i < MAX_RANK; i++) {
		int8_t x = find(r, l->label[i]);

		if (x && x != a && x != b && x != c && x != d)
			return false;
	}
	return true;
}

static bool same_leaf(const struct reader *r, const struct leaf *a, const struct leaf *b, int8_t from, int8_t to)
{
	if (a->v != b->v || a->exp != b->exp)
		return false;
	for (int i = 0; i < MAX_RANK; i++) {
		int8_t x = find(r, a->label[i]);

		if ((x == from ? to : x) != find(r, b->label[i]))
			return false;
	}
	return true;
}

/* o = c q S': which axis of the state it sums over, and what is left of the axes. */
static bool read_output(const struct reader *r, struct recurrence *x, const struct form *state)
{
	const struct term *t = &x->out.term[0];
	const struct leaf *s = leaf_of(t, x->next);
	int rows = 0, free = 0;
	int8_t label[MAX_RANK], summed = 0;

	if (x->out.n != 1 || t->n != 2 || !s || s->exp || state->rank < 3 || state->rank > 4 || !(t->c > 0))
		return false;
	x->q = s == &t->leaf[0] ? &t->leaf[1] : &t->leaf[0];
	x->scale = t->c;
	for (int i = 0; i < state->rank; i++) {
		int8_t own = find(r, state->label[i]), here = find(r, s->label[i]);

		if (!own)
			return false;
		if (own != here) {
			x->row = own;
			summed = here;
			rows++;
		} else if (has(r, x->q, own)) {
			label[free++] = own;
		} else if (x->column) {
			return false;
		} else {
			x->column = own;
		}
	}
	if (rows != 1 || !x->column || free != state->rank - 2 || x->q->exp || !has(r, x->q, summed))
		return false;
	x->batch = label[0];
	x->head = free > 1 ? label[1] : 0;
	for (int i = 0; i < MAX_RANK; i++) {
		int8_t own = find(r, x->q->label[i]);

		if (!own || own == x->batch || own == x->head || own == summed)
			continue;
		if (x->group && x->group != own)
			return false;
		x->group = own;
	}
	return x->group != x->row && x->group != x->column;
}

/* The terms of S'. */
static bool read_state(const struct reader *r, struct recurrence *x, const struct form *state)
{
	const struct term *kept = NULL, *put = NULL, *off = NULL;
	int8_t summed = 0;
	int n = 0;

	for (int i = 0; i < state->n; i++) {
		const struct term *t = &state->term[i];
		const struct leaf *s = leaf_of(t, x->s);

		if (!s)
			put = put ? NULL : t;
		else if (has(r, s, x->row))
			kept = kept ? NULL : t;
		else
			off = off ? NULL : t;
		n += !s ? 1 : has(r, s, x->row) ? 10 : 100;
	}
	if ((n != 11 && n != 111) || put->c != 1 || !(kept->c > 1e-30) || (off && off->c != -kept->c))
		return false;
	x->fade = kept->c;
	for (int i = 0; i < put->n; i++) {
		const struct leaf *l = &put->leaf[i];

		if (l->exp || l->v == x->s)
			return false;
		if (has(r, l, x->row) && within(r, l, x->row, x->batch, x->head, 0) && !x->k)
			x->k = l;
		else if (has(r, l, x->column) && within(r, l, x->column, x->batch, x->head, 0) && !x->v)
			x->v = l;
		else if (within(r, l, x->batch, x->head, 0, 0) && !x->beta && off)
			x->beta = l;
		else
			return false;
	}
	for (int i = 0; i < kept->n; i++) {
		const struct leaf *l = &kept->leaf[i];

		if (l->v == x->s) {
			if (l->exp)
				return false;
			continue;
		}
		if (x->g || !within(r, l, x->row, x->batch, x->head, 0))
			return false;
		x->g = l;
	}
	if (x->g && x->fade != 1)
		return false;
	if (!x->k || !x->v || !has(r, x->k, x->batch) || !has(r, x->v, x->batch) || (x->head && (!has(r, x->k, x->head) || !has(r, x->v, x->head))))
		return false;
	if (!off)
		return true;
	/* - beta k_row k_i a_i S_i column */
	if (!x->beta || off->n != 4 + (x->g != NULL))
		return false;
	for (int i = 0; i < MAX_RANK; i++) {
		const struct leaf *s = leaf_of(off, x->s);
		int8_t own = find(r, s->label[i]);

		if (own && own != x->batch && own != x->head && own != x->column)
			summed = own;
	}
	n = 0;
	for (int i = 0; i < off->n; i++) {
		const struct leaf *l = &off->leaf[i];

		if (l->v == x->s && !l->exp && has(r, l, summed) && has(r, l, x->column))
			n |= 1;
		else if (!(n & 2) && same_leaf(r, x->k, l, x->row, x->row))
			n |= 2;
		else if (!(n & 4) && same_leaf(r, x->k, l, x->row, summed))
			n |= 4;
		else if (!(n & 8) && same_leaf(r, x->beta, l, x->row, summed))
			n |= 8;
		else if (x->g && !(n & 16) && same_leaf(r, x->g, l, x->row, summed))
			n |= 16;
		else
			return false;
	}
	return summed && n == (x->g ? 31 : 15);
}

/* ---- The replacement ---- */

struct whole {
	const struct view *w;
	struct patch *p;
	const struct reader *r;
	const struct recurrence *x;
	uint32_t nstate, nscan;
	int64_t heads, group, rows, columns;
};

static value_id reshape(struct patch *p, value_id v, const int64_t *d, int n, const char *hint)
{
	value_id shape = patch_ints(p, d, n, "shape");

	return patch_node(p, "Reshape", hint, PATCH_IN(v, shape), 1, (const struct attr[]){ attr_int("allowzero", 0), { .name = NULL } });
}

static value_id transpose(struct patch *p, value_id v, const int64_t *perm, int n, const char *hint)
{
	for (int i = 0; i < n; i++)
		if (perm[i] != i)
			return patch_node(p, "Transpose", hint, PATCH_IN(v), 1, (const struct attr[]){ attr_ints("perm", perm, (size_t)n), { .name = NULL } });
	return v;
}

/* Which scan input leaf l is, from 0; -1: none. */
static int scanned(const struct whole *t, const struct leaf *l)
{
	for (uint32_t i = 0; i < t->nscan; i++)
		if (t->r->g->in[t->nstate + i] == l->v)
			return (int)i;
	return -1;
}

static int64_t axis_of(const struct node *scan, const char *name, int i, int rank)
{
	const struct attr *axes = node_attr(scan, name);
	int64_t x = (size_t)i < axes->n ? axes->ints[i] : 0;

	return x < 0 ? x + rank : x;
}

/* A scanned input as [batch, tokens, width], its axes in the order of `label`; 0 when it has not exactly those. */
static value_id sequence(const struct whole *t, const struct leaf *l, const int8_t *label, int n, int64_t width, const char *hint)
{
	int i = scanned(t, l), rank, at, count = 0;
	value_id v;
	int64_t perm[MAX_RANK + 1];
	bool used[MAX_RANK + 1] = { false };

	if (i < 0)
		return 0;
	v = t->x->scan->in[t->nstate + (uint32_t)i];
	rank = t->w->g->value[v].type.shape.rank;
	if (rank < 1 || rank > MAX_RANK)
		return 0;
	at = (int)axis_of(t->x->scan, "scan_input_axes", i, rank);
	if (at < 0 || at >= rank)
		return 0;
	for (int k = 0; k < n; k++) {
		bool found = false;

		if (k == 1) { /* behind the batch */
			perm[count++] = at;
			used[at] = true;
		}
		for (int j = 0; j < rank - 1 && !found && label[k]; j++) {
			int axis = j < at ? j : j + 1;

			if (find(t->r, l->label[j]) != label[k])
				continue;
			found = true;
			perm[count++] = axis;
			used[axis] = true;
		}
		if (label[k] && !found)
			return 0;
	}
	for (int j = 0; j < rank; j++)
		if (!used[j]) {
			if (t->w->g->value[v].type.shape.d[j] != 1)
				return 0;
			perm[count++] = j;
		}
	return reshape(t->p, transpose(t->p, v, perm, rank, hint), (int64_t[]){ 0, 0, width }, 3, hint);
}

bool value_positive(const struct graph *g, value_id v)
{
	static const char *const layouts[] = { "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Expand" };
	const struct node *n;
	bool layout = true;

	while (layout && (n = value_node(g, v)) != NULL) {
		layout = false;
		for (size_t i = 0; i < sizeof layouts / sizeof *layouts && !layout; i++)
			layout = node_is(n, layouts[i]);
		if (!layout)
			return node_is(n, "Exp") || node_is(n, "Sigmoid");
		v = n->in[0];
	}
	return false;
}

/* log of what is left of the state after each token: [batch, tokens, width]. key: [batch, tokens, ...] */
static value_id decay(const struct whole *t, value_id key)
{
	const struct recurrence *x = t->x;
	const struct leaf *l = x->g;
	bool each_row = l && has(t->r, l, x->row), each_head = l && has(t->r, l, x->head);
	int64_t width = t->heads * (each_row ? t->rows : 1);
	const struct tensor *c = l ? value_const(t->r->g, l->v) : NULL;
	enum dtype dt = t->r->g->value[x->s].type.dt;
	struct tensor *logs;
	value_id lengths, v;
	int i = l ? scanned(t, l) : -1;

	if (i >= 0) {
		value_id outer = x->scan->in[t->nstate + (uint32_t)i];

		if (!l->exp && !value_positive(t->w->g, outer))
			return 0;
		v = sequence(t, l, (int8_t[]){ x->batch, x->head, each_row ? x->row : 0 }, 3, width, "decay");
		if (l->exp || !v)
			return v;
		/* what has faded to nothing is as good as e^-87 of it */
		return patch_node(t->p, "Max", "decay", PATCH_IN(patch_node(t->p, "Log", "decay", PATCH_IN(v), 1, NULL), patch_float(t->p, dt, -87, "floor")), 1, NULL);
	}
	/* the same for all tokens: a row of heads, or one number */
	if ((l && (!c || each_row || has(t->r, l, x->batch) || c->n != (each_head ? t->heads : 1))) || tensor_new(t->p->arena, dt, 3, (int64_t[]){ 1, 1, t->heads }, &logs, t->p->e))
		return 0;
	for (int64_t k = 0; k < t->heads; k++) {
		double a = c ? tensor_get(c, each_head ? k : 0) : x->fade;

		if (!(l && l->exp) && !(a > 1e-30))
			return 0;
		tensor_put(logs, k, l && l->exp ? a : log(a));
	}
	lengths = patch_lengths(t->p, key, 0, 2, "lengths");
	lengths = patch_node(t->p, "Concat", "lengths", PATCH_IN(lengths, patch_ints(t->p, &t->heads, 1, "heads")), 1, (const struct attr[]){ attr_int("axis", 0), { .name = NULL } });
	return patch_node(t->p, "Expand", "decay", PATCH_IN(patch_const(t->p, logs, "logs"), lengths), 1, NULL);
}

static int64_t length_of(const struct reader *r, int8_t label)
{
	return !label ? 1 : dim_is_int(r->length[label]) ? r->length[label] : -1;
}

/* The state [batch, head, row, column] from the body's order, or back to it. */
static value_id turned(const struct whole *t, value_id v, const struct form *state, bool back, const char *hint)
{
	int8_t want[4] = { t->x->batch, t->x->head, t->x->row, t->x->column };
	int64_t perm[4], inverse[4], one = 1;
	int n = 0;

	if (back && !t->x->head)
		v = patch_node(t->p, "Squeeze", hint, PATCH_IN(v, patch_ints(t->p, &one, 1, "axis")), 1, NULL);
	for (int i = 0; i < 4; i++)
		for (int j = 0; want[i] && j < state->rank; j++)
			if (find(t->r, state->label[j]) == want[i])
				perm[n++] = j;
	for (int i = 0; i < n; i++)
		inverse[perm[i]] = i;
	v = transpose(t->p, v, back ? inverse : perm, n, hint);
	if (!back && !t->x->head)
		v = patch_node(t->p, "Unsqueeze", hint, PATCH_IN(v, patch_ints(t->p, &one, 1, "axis")), 1, NULL);
	return v;
}

/* o: [batch, tokens, heads group columns] in the order of the scanned output. */
static value_id spread(const struct whole *t, value_id o, uint32_t output)
{
	const struct recurrence *x = t->x;
	int8_t have[5] = { x->batch, 0, x->head, x->group, x->column };
	int64_t d[5], perm[MAX_RANK], ones[MAX_RANK];
	int rank = x->out.rank + 1, at = (int)axis_of(x->scan, "scan_output_axes", (int)output, rank), n = 0, none = 0, place[5];
	bool used[5] = { false };

	if (at < 0 || at >= rank || rank > MAX_RANK)
		return 0;
	for (int i = 0; i < 5; i++) { /* axes there are */
		place[i] = n;
		if (i < 2 || have[i])
			d[n++] = i == 0 || i == 1 ? 0 : i == 2 ? t->heads : i == 3 ? t->group : t->columns;
	}
	o = reshape(t->p, o, d, n, "heads");
	for (int j = 0, k = 0; j < rank; j++) {
		int8_t label = j == at ? 0 : find(t->r, x->out.label[j < at ? j : j - 1]);
		bool found = false;

		for (int i = 0; i < 5 && !found; i++) {
			if (j == at ? i != 1 : (!label || i == 1 || have[i] != label || used[i]))
				continue;
			perm[k++] = place[i];
			used[i] = found = true;
		}
		if (!found && label)
			return 0;
		if (!found)
			ones[none++] = j;
		if (j == rank - 1 && k != n)
			return 0;
	}
	o = transpose(t->p, o, perm, n, "tokens");
	return none ? patch_node(t->p, "Unsqueeze", "tokens", PATCH_IN(o, patch_ints(t->p, ones, none, "axes")), 1, NULL) : o;
}

static enum linnet_code replace_scan(struct whole *t, const struct form *state, uint32_t output, struct patch *p)
{
	const struct recurrence *x = t->x;
	value_id final = x->scan->out[0], o = x->scan->out[t->nstate + output], in[6] = { 0 }, made, back;
	bool fades = x->g || x->fade != 1, used = final && value_uses(t->w, final);
	int8_t to_q[4] = { x->batch, x->head, x->group, 0 }, to_k[3] = { x->batch, x->head, x->row }, to_v[3] = { x->batch, x->head, x->column };
	int8_t q_row = 0;
	static const char *const rules[2][2] = { { "linear", "gated" }, { "delta", "gated_delta" } };

	for (int i = 0; i < MAX_RANK; i++) {
		int8_t own = find(t->r, x->q->label[i]);

		if (own && own != x->batch && own != x->head && own != x->group)
			q_row = own;
	}
	to_q[3] = q_row;
	in[0] = sequence(t, x->q, to_q, 4, t->heads * t->group * t->rows, "query");
	in[1] = sequence(t, x->k, to_k, 3, t->heads * t->rows, "key");
	in[2] = sequence(t, x->v, to_v, 3, t->heads * t->columns, "value");
	in[3] = turned(t, x->scan->in[0], state, false, "past");
	if (fades)
		in[4] = decay(t, in[1]);
	if (x->beta)
		in[5] = sequence(t, x->beta, (int8_t[]){ x->batch, has(t->r, x->beta, x->head) ? x->head : 0 }, 2, has(t->r, x->beta, x->head) ? t->heads : 1, "beta");
	if (!in[0] || !in[1] || !in[2] || !in[3] || (fades && !in[4]) || (x->beta && !in[5])) {
		p->nreplace = 0;
		return LINNET_OK;
	}
	made = patch_node(p, "LinearAttention", "recurrence", in, x->beta ? 6 : fades ? 5 : 4, 2,
	                  (const struct attr[]){ attr_int("q_num_heads", t->heads * t->group), attr_int("kv_num_heads", t->heads), attr_float("scale", x->scale),
	                                         attr_string("update_rule", rules[x->beta != NULL][fades]), { .name = NULL } });
	back = spread(t, made, output);
	if (!back)
		return LINNET_OK;
	patch_replace(p, o, back);
	if (used)
		patch_replace(p, final, turned(t, made + 1, state, true, "state"));
	return LINNET_OK;
}

/* Nothing is made of n, and that is why. */
static enum linnet_code stop(const struct view *w, const struct node *n, enum why_code code, int depth)
{
	why_not(w, code, n, 0, depth);
	return LINNET_OK;
}

static enum linnet_code scan(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *body = node_attr(n, "body")->g;
	struct reader r = { .g = body };
	struct recurrence x = { .scan = n };
	struct whole t = { .w = w, .p = p, .r = &r, .x = &x };
	struct form state = { .known = false };
	const struct attr *directions = node_attr(n, "scan_input_directions"), *out_directions = node_attr(n, "scan_output_directions");
	uint32_t output = 0, outputs = 0;
	bool read;

	t.nscan = (uint32_t)node_attr(n, "num_scan_inputs")->i;
	if (!body || n->nin < t.nscan + n->ncapture + 1)
		return LINNET_OK;
	t.nstate = n->nin - n->ncapture - t.nscan;
	if (t.nstate != 1 || !n->in[0] || body->value[body->out[0]].kind != VALUE_NODE)
		return stop(w, n, WHY_LOOP_STATES, 1);
	for (size_t i = 0; i < directions->n || i < out_directions->n; i++)
		if ((i < directions->n && directions->ints[i]) || (i < out_directions->n && out_directions->ints[i]))
			return stop(w, n, WHY_LOOP_BACKWARDS, 2);
	for (uint32_t i = 1; i < n->nout; i++)
		if (n->out[i] && value_uses(w, n->out[i])) {
			output = i - 1;
			outputs++;
		}
	if (outputs != 1)
		return stop(w, n, WHY_LOOP_OUTPUTS, 3);
	if (!dtype_in(body->value[body->out[0]].type.dt, SET(FLOAT) | HALVES))
		return stop(w, n, WHY_LOOP_TYPE, 3);
	x.s = body->in[0];
	x.next = body->out[0];
	TRY(read_body(&r, x.next, &state, w->scratch, &read, e));
	if (!read)
		return stop(w, n, WHY_LOOP_UPDATE, 4);
	x.out = r.form[body->out[1 + output]];
	if (!x.out.known || !read_output(&r, &x, &state))
		return stop(w, n, WHY_LOOP_READ, 5);
	if (!read_state(&r, &x, &state))
		return stop(w, n, WHY_LOOP_UPDATE, 6);
	t.heads = length_of(&r, x.head);
	t.group = length_of(&r, x.group);
	t.rows = length_of(&r, x.row);
	t.columns = length_of(&r, x.column);
	if (t.heads < 1 || t.group < 1 || t.rows < 1 || t.columns < 1 || t.heads > INT32_MAX / t.group)
		return stop(w, n, WHY_LOOP_LENGTHS, 7);
	return replace_scan(&t, &state, output, p);
}

/* Nothing but zeros. */
static bool is_zeros(const struct graph *g, value_id v, int depth)
{
	static const char *const kept[] = { "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Expand", "Cast", "Slice", "Tile", NULL };
	const struct node *n = value_node(g, v);
	double x;

	if (value_scalar(g, v, &x))
		return x == 0;
	if (n && node_is(n, "ConstantOfShape")) {
		const struct tensor *t = node_attr(n, "value")->kind == ATTR_TENSOR ? node_attr(n, "value")->t : NULL;

		return !t || (t->n == 1 && tensor_get(t, 0) == 0);
	}
	for (const char *const *s = kept; n && depth && *s; s++)
		if (node_is(n, *s))
			return is_zeros(g, n->in[0], depth - 1);
	return false;
}

/* n once more with these inputs and, unless it is 0, another scale: its output, the first of two, in place of n's. */
static value_id again(const struct node *n, const value_id *in, uint32_t nin, double scale, struct patch *p)
{
	struct attr attr[8];
	int count = 0;
	value_id made;

	for (uint32_t i = 0; i < n->nattr; i++)
		if (n->attr[i].given && (scale == 0 || strcmp(n->attr[i].name, "scale") != 0))
			attr[count++] = n->attr[i];
	if (scale != 0)
		attr[count++] = attr_float("scale", scale);
	attr[count] = (struct attr){ .name = NULL };
	made = patch_op(p, n->op, n->name, in, nin, 2, attr);
	for (uint32_t i = 0; i < n->nout && i < 2; i++)
		if (n->out[i])
			patch_replace(p, n->out[i], made + i);
	return made;
}

/* Without a past state it is zeros, of the queries' type. */
static enum linnet_code drop_zeros(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	enum { PAST = 3 };
	value_id in[6] = { 0 };

	(void)e;
	if ((!node_is(n, "LinearAttention") && !node_is(n, "CausalConvWithState")) || n->nin <= PAST || n->nin > 6 || n->nattr > 7 || !n->in[PAST] ||
	    w->g->value[n->in[PAST]].type.dt != w->g->value[n->in[0]].type.dt || !is_zeros(w->g, n->in[PAST], 8))
		return LINNET_OK;
	memcpy(in, n->in, n->nin * sizeof *in);
	in[PAST] = 0;
	again(n, in, n->nin > PAST + 1 ? n->nin : PAST, 0, p);
	return LINNET_OK;
}

/* o is read once, as c o, perhaps laid out in another way before: c goes into the node's scale. */
static enum linnet_code take_scale(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	static const char *const kept[] = { "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", NULL };
	const struct graph *g = w->g;
	double scale = node_attr(n, "scale")->f, c = 0;
	int64_t heads = node_attr(n, "q_num_heads")->i;
	const struct shape *q = &g->value[n->in[0]].type.shape;
	value_id v = n->out[0], made;

	(void)e;
	if (n->nattr > 7 || heads < 1 || (scale == 0 && (q->rank != 3 || !dim_is_int(q->d[2]))))
		return LINNET_OK;
	scale = scale != 0 ? scale : 1 / sqrt((double)(q->d[2] / heads));
	for (int depth = 0; depth < 8; depth++) {
		uint32_t index;
		const struct node *user = value_user(w, v, &index);
		bool same = false;

		if (user && node_is(user, "Mul") && value_scalar(g, user->in[!index], &c) && c > 0 && scale * c < 1e30 && scale * c > 1e-30 &&
		    shape_equal(&g->value[v].type.shape, &g->value[user->out[0]].type.shape)) {
			made = again(n, n->in, n->nin, scale * c, p);
			patch_replace(p, user->out[0], v == n->out[0] ? made : v);
			return LINNET_OK;
		}
		for (const char *const *s = kept; user && !index && *s; s++)
			same = same || node_is(user, *s);
		if (!same)
			return LINNET_OK;
		v = user->out[0];
	}
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "recur/scale", .doc = "a number that LinearAttention's output is multiplied by becomes part of its scale", .anchor = "LinearAttention",
	  .apply = take_scale, .differs = 1e-5 },
	{ .name = "recur/zeros", .doc = "a past state of LinearAttention or CausalConvWithState that is zeros is left out", .apply = drop_zeros, .differs = 1e-5 },
	{ .name = "recur/scan", .doc = "a Scan over tokens that updates a matrix by outer products and reads it becomes one LinearAttention node", .anchor = "Scan",
	  .apply = scan, .differs = 1e-4 },
};

const struct pass recur_pass = { .name = "recur", .doc = "Recognise linear recurrences", .kind = PASS_EXACT, PASS_RULES(rules) };
