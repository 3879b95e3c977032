/*
 * Recognising rotary embedding by where its numbers come from. Every number of the last axis is followed through slices, splits, negations,
 * concatenations, stacks and reshapes to what it is made of; y is x turned when
 *
 *   y[a] = x[a] cos[i] - x[b] sin[i]     y[b] = x[b] cos[i] + x[a] sin[i]     for i < R / 2; y[j] = x[j] from R on
 *
 * with b = a + R / 2 (halves: a = i) or b = a + 1 (interleaved: a = 2 i), whatever computes the tables. Leaves RotaryEmbedding, whose tables have R / 2
 * columns. Needs types.
 *
 * Source: Su et al., RoFormer, 2021, section 3.4.2; the half-split pairing of GPT-NeoX and Llama.
 */
#include <math.h>
#include <string.h>

#include "graph/pass.h"

enum { WIDEST = 1024, DEEPEST = 20, MAX_CANDIDATE = 12, MAX_VISIT = 48, MAX_STEP = 64 };

/* ---- What numbers are made of ---- */

/* sign * of[at], times by[by_at] when `by` is given: places on their last axes. Of a table: what `path` makes of that, without mixing columns. */
struct term {
	value_id of, by;
	int at, by_at, sign, path;
};

/* A number: one or two terms. */
struct lane {
	struct term t[2];
	int n;
};

/* A node that changes all columns of its input `data` alike, or its rows, behind others. */
struct step {
	const struct node *n;
	uint32_t data;
	int before; /* 0: none */
};

struct tracing {
	const struct view *w;
	value_id x;        /* numbers are followed to it; 0: as far as they can be, those of a table */
	struct step step[MAX_STEP]; /* of a table: paths, from 1 on */
	int nstep;
	enum linnet_code code;
};

static int64_t axis_of(const struct graph *g, const struct node *n)
{
	int64_t axis = node_attr(n, "axis")->i;

	return axis < 0 ? axis + g->value[n->in[0]].type.shape.rank : axis;
}

/* The same value, or small constants alike. */
static bool same_value(const struct graph *g, value_id a, value_id b)
{
	const struct tensor *x = value_const(g, a), *y = value_const(g, b);

	if (a == b || !x || !y)
		return a == b;
	if (x->dt != y->dt || x->rank != y->rank || x->n != y->n || x->n > 2 * MAX_RANK)
		return false;
	for (int64_t i = 0; i < x->n; i++)
		if (tensor_get(x, i) != tensor_get(y, i))
			return false;
	return true;
}

/* Both do the same to what is in their input. */
static bool same_step(const struct graph *g, const struct step *a, const struct step *b)
{
	if (a->before != b->before || a->data != b->data || a->n->op != b->n->op || a->n->nin != b->n->nin)
		return false;
	for (uint32_t i = 0; i < a->n->nin; i++)
		if (i != a->data && !same_value(g, a->n->in[i], b->n->in[i]))
			return false;
	for (uint32_t i = 0; i < a->n->nattr && a->n != b->n; i++)
		if (a->n->attr[i].kind == ATTR_INT ? a->n->attr[i].i != b->n->attr[i].i : a->n->attr[i].given || b->n->attr[i].given)
			return false;
	return true;
}

/* Numbers of a table that n makes of those of its input: NULL where paths are too many. */
static struct lane *behind(struct tracing *t, const struct node *n, uint32_t data, struct lane *l, int count)
{
	for (int i = 0; l && i < count; i++) {
		struct step s = { n, data, l[i].t[0].path };
		int at = 0;

		while (at < t->nstep && !same_step(t->w->g, &t->step[at], &s))
			at++;
		if (at == MAX_STEP)
			return NULL;
		if (at == t->nstep)
			t->step[t->nstep++] = s;
		l[i].t[0].path = at + 1;
	}
	return l;
}

/* Numbers in the last k axes; 0: too many, or not known. */
static int count_last(const struct shape *s, int k)
{
	int64_t n = 1;

	if (s->rank < k || k < 0)
		return 0;
	for (int i = s->rank - k; i < s->rank; i++) {
		if (!dim_is_int(s->d[i]) || s->d[i] < 1 || s->d[i] > WIDEST || n * s->d[i] > WIDEST)
			return 0;
		n *= s->d[i];
	}
	return (int)n;
}

static struct lane *trace(struct tracing *t, value_id v, int k, int depth);

static struct lane *lanes(struct tracing *t, int n)
{
	struct lane *l = NEW(t->w->scratch, (size_t)n, struct lane);

	if (!l)
		t->code = LINNET_EMEM;
	return l;
}

/* A value itself. */
static struct lane *leaf(struct tracing *t, value_id v, int k)
{
	int n = count_last(&t->w->g->value[v].type.shape, k);
	struct lane *l = n && k == 1 ? lanes(t, n) : NULL;

	for (int i = 0; l && i < n; i++)
		l[i] = (struct lane){ .n = 1, .t = { { .of = v, .at = i, .sign = 1 } } };
	return l;
}

/* Numbers of `to`'s last k axes picked from those of `from`'s: at[i] for the i-th. */
static struct lane *picked(struct tracing *t, value_id from, int kin, const int *at, int n, int depth)
{
	struct lane *in = trace(t, from, kin, depth), *l = in ? lanes(t, n) : NULL;

	for (int i = 0; l && i < n; i++)
		l[i] = in[at[i]];
	return l;
}

/* Along one of the last axes, its j-th place is place[j] of the input's. */
static struct lane *along(struct tracing *t, value_id from, int kin, int axis, const int64_t *place, int places, int depth)
{
	const struct shape *s = &t->w->g->value[from].type.shape;
	int inner = count_last(s, s->rank - 1 - axis), whole = count_last(s, kin), length = (int)s->d[axis], outer, *at, n = 0;

	if (!whole || axis < s->rank - kin || (!inner && axis < s->rank - 1))
		return NULL;
	inner = axis == s->rank - 1 ? 1 : inner;
	outer = whole / (inner * length);
	at = NEW(t->w->scratch, (size_t)(outer * places * inner) + 1, int);
	if (!at) {
		t->code = LINNET_EMEM;
		return NULL;
	}
	for (int o = 0; o < outer; o++)
		for (int j = 0; j < places; j++)
			for (int i = 0; i < inner; i++)
				at[n++] = (o * length + (int)place[j]) * inner + i;
	return picked(t, from, kin, at, n, depth);
}

/* Slice over one axis (axis: MAX_RANK when it is not known): which places it takes; false when they are not known. */
static bool slice_places(const struct graph *g, const struct node *n, int *axis, int64_t *place, int *places)
{
	const struct shape *s = &g->value[n->in[0]].type.shape;
	int64_t from, to, at, step = 1;
	int count;

	*axis = MAX_RANK;
	if (n->nin < 4 || !n->in[3] || !value_ints(g, n->in[3], &at, 1, &count) || count != 1)
		return false;
	*axis = (int)(at < 0 ? at + s->rank : at);
	if (!dim_is_int(s->d[*axis]) || s->d[*axis] > WIDEST || !value_ints(g, n->in[1], &from, 1, &count) || !value_ints(g, n->in[2], &to, 1, &count) ||
	    (n->nin > 4 && n->in[4] && !value_ints(g, n->in[4], &step, 1, &count)) || step < 1 || step > WIDEST)
		return false;
	from = from < 0 ? from + s->d[*axis] : from;
	to = to < 0 ? to + s->d[*axis] : to > s->d[*axis] ? s->d[*axis] : to;
	*places = 0;
	for (int64_t i = from < 0 ? 0 : from; i < to; i += step)
		place[(*places)++] = i;
	return true;
}

static struct lane *trace_slice(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct graph *g = t->w->g;
	int64_t place[WIDEST];
	int axis, places, rank = g->value[n->in[0]].type.shape.rank;

	if (slice_places(g, n, &axis, place, &places) && axis >= rank - k)
		return along(t, n->in[0], k, axis, place, places, depth);
	return axis < rank - k && !t->x ? behind(t, n, 0, trace(t, n->in[0], k, depth), count_last(&g->value[n->out[0]].type.shape, k)) : NULL; /* a table of fewer rows */
}

static struct lane *trace_split(struct tracing *t, const struct node *n, value_id v, int k, int depth)
{
	const struct graph *g = t->w->g;
	int axis = (int)axis_of(g, n), rank = g->value[v].type.shape.rank, places;
	int64_t from = 0, place[WIDEST];

	if (axis < rank - k)
		return NULL;
	for (uint32_t i = 0; n->out[i] != v; i++) {
		if (!n->out[i] || !dim_is_int(g->value[n->out[i]].type.shape.d[axis]))
			return NULL;
		from += g->value[n->out[i]].type.shape.d[axis];
	}
	places = (int)g->value[v].type.shape.d[axis];
	for (int i = 0; i < places; i++)
		place[i] = from + i;
	return along(t, n->in[0], k, axis, place, places, depth);
}

static struct lane *trace_concat(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct graph *g = t->w->g;
	const struct shape *s = &g->value[n->out[0]].type.shape;
	int axis = (int)axis_of(g, n), whole = count_last(s, k), inner = axis == s->rank - 1 ? 1 : count_last(s, s->rank - 1 - axis), from = 0;
	struct lane *l;

	if (axis < s->rank - k || !whole || !(l = lanes(t, whole)))
		return NULL;
	for (uint32_t i = 0; i < n->nin; i++) {
		int length = (int)g->value[n->in[i]].type.shape.d[axis], part = length * inner, all = (int)s->d[axis] * inner;
		struct lane *in = count_last(&g->value[n->in[i]].type.shape, k) ? trace(t, n->in[i], k, depth) : NULL;

		if (!in)
			return NULL;
		for (int o = 0; o < whole / all; o++)
			memcpy(l + o * all + from, in + o * part, (size_t)part * sizeof *l);
		from += part;
	}
	return l;
}

/* The last axes of the input that hold the same numbers in the same order; 0: there are none. */
static int same_numbers(const struct shape *in, int n)
{
	for (int k = 1; k <= in->rank; k++)
		if (count_last(in, k) == n)
			return k;
	return 0;
}

static struct lane *trace_gather(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct graph *g = t->w->g;
	const struct shape *s = &g->value[n->in[0]].type.shape;
	const struct tensor *i = value_const(g, n->in[1]);
	int axis = (int)axis_of(g, n), places = 0, kin;
	int64_t place[WIDEST];

	if (!t->x && axis < s->rank - k)
		return behind(t, n, 0, trace(t, n->in[0], k, depth), count_last(s, k));
	if (!i || i->rank > 1 || i->n > WIDEST)
		return NULL;
	kin = k + (i->rank == 0);
	for (; places < i->n; places++) {
		int64_t at = tensor_get_int(i, places);

		place[places] = at < 0 ? at + s->d[axis] : at;
	}
	return axis >= s->rank - kin ? along(t, n->in[0], kin, axis, place, places, depth) : NULL;
}

/* Numbers repeated: Expand, Tile. */
static struct lane *trace_repeat(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct graph *g = t->w->g;
	const struct shape *s = &g->value[n->in[0]].type.shape, *o = &g->value[n->out[0]].type.shape;
	int kin = k < s->rank ? k : s->rank, whole = count_last(o, k), *at;

	if (!whole || !count_last(s, kin) || (kin < k && t->x))
		return NULL;
	for (int i = 0; t->x && i < o->rank - k; i++)
		if (s->d[i] != o->d[i])
			return NULL;
	at = NEW(t->w->scratch, (size_t)whole, int);
	if (!at) {
		t->code = LINNET_EMEM;
		return NULL;
	}
	for (int i = 0; i < whole; i++) {
		int left = i, step = 1;

		for (int a = 0; a < kin; a++) { /* from the last axis on */
			int out = (int)o->d[o->rank - 1 - a], in = (int)s->d[s->rank - 1 - a];

			at[i] += left % out % in * step;
			left /= out;
			step *= in;
		}
	}
	return t->x ? picked(t, n->in[0], kin, at, whole, depth) : behind(t, n, 0, picked(t, n->in[0], kin, at, whole, depth), whole);
}

/* The last k axes exchanged among themselves; those before may be too in a table. */
static struct lane *trace_transpose(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct shape *s = &t->w->g->value[n->in[0]].type.shape, *o = &t->w->g->value[n->out[0]].type.shape;
	const struct attr *perm = node_attr(n, "perm");
	int whole = count_last(s, k), lead = s->rank - k, *at;

	if (!whole || perm->kind != ATTR_INTS || (int)perm->n != s->rank)
		return NULL;
	for (int i = 0; i < lead; i++)
		if (perm->ints[i] >= lead || (t->x && perm->ints[i] != i))
			return NULL;
	at = NEW(t->w->scratch, (size_t)whole, int);
	if (!at) {
		t->code = LINNET_EMEM;
		return NULL;
	}
	for (int i = 0; i < whole; i++) {
		int left = i;

		for (int a = o->rank - 1; a >= lead; a--) {
			int place = left % (int)o->d[a], step = 1;

			left /= (int)o->d[a];
			for (int b = s->rank - 1; b > perm->ints[a]; b--)
				step *= (int)s->d[b];
			at[i] += place * step;
		}
	}
	return t->x ? picked(t, n->in[0], k, at, whole, depth) : behind(t, n, 0, picked(t, n->in[0], k, at, whole, depth), whole);
}

/* v times a matrix that gives each number to one place, with its sign or the other. */
static struct lane *trace_matmul(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct tensor *m = value_const(t->w->g, n->in[1]);
	int64_t width = m && m->rank == 2 && m->n <= WIDEST * WIDEST ? m->d[1] : 0;
	struct lane *in, *l;

	if (k != 1 || !width || width > WIDEST || !(in = trace(t, n->in[0], 1, depth)) || !(l = lanes(t, (int)width)))
		return NULL;
	for (int64_t j = 0; j < width; j++) {
		double sign = 0;

		for (int64_t i = 0; i < m->d[0]; i++) {
			double x = tensor_get(m, i * width + j);

			if (x == 0)
				continue;
			if (sign != 0 || fabs(x) != 1)
				return NULL;
			sign = x;
			l[j] = in[i];
		}
		if (sign == 0)
			return NULL;
		for (int a = 0; a < l[j].n; a++)
			l[j].t[a].sign *= (int)sign;
	}
	return l;
}

/* Numbers times those of a list, each 1 or -1; false: it has others. */
static bool take_signs(const struct tensor *c, struct lane *l, int n)
{
	if (!c || c->n != n || !c->rank || c->d[c->rank - 1] != n)
		return false;
	for (int j = 0; j < n; j++)
		if (fabs(tensor_get(c, j)) != 1)
			return false;
	for (int j = 0; j < n; j++)
		for (int a = 0; a < l[j].n; a++)
			l[j].t[a].sign *= (int)tensor_get(c, j);
	return true;
}

/* v times a table, or a number. */
static struct lane *trace_mul(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct graph *g = t->w->g;

	for (int i = 0; i < 2; i++) {
		value_id by = n->in[1 - i];
		const struct shape *s = &g->value[n->in[i]].type.shape, *o = &g->value[n->out[0]].type.shape, *b = &g->value[by].type.shape;
		struct lane *l;
		int whole = count_last(o, k);
		double c;

		if (!t->x) { /* of a table: the factor is the same for all its columns */
			bool one = value_scalar(g, by, &c) || (b->rank > 0 && b->rank <= o->rank && b->d[b->rank - 1] == 1 && k == 1);

			if (s->rank > 0 && s->d[s->rank - 1] == o->d[o->rank - 1] && (l = trace(t, n->in[i], k, depth)) != NULL) {
				if (k == 1 && take_signs(value_const(g, by), l, whole))
					return l;
				if (one)
					return behind(t, n, (uint32_t)i, l, whole);
			}
			continue;
		}
		if (!shape_equal(s, o) || !(l = trace(t, n->in[i], k, depth)))
			continue;
		if (value_scalar(g, by, &c)) {
			for (int j = 0; j < whole; j++)
				for (int a = 0; a < l[j].n && (c == 1 || c == -1); a++)
					l[j].t[a].sign *= (int)c;
			return c == 1 || c == -1 ? l : NULL;
		}
		if (k == 1 && take_signs(value_const(g, by), l, whole))
			return l;
		if (k != 1 || b->rank < 1 || b->d[b->rank - 1] != whole)
			return NULL;
		for (int j = 0; j < whole; j++) {
			if (l[j].n != 1 || l[j].t[0].by)
				return NULL;
			l[j].t[0].by = by;
			l[j].t[0].by_at = j;
		}
		return l;
	}
	return NULL;
}

static struct lane *trace_sum(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct graph *g = t->w->g;
	const struct shape *o = &g->value[n->out[0]].type.shape;
	int whole = count_last(o, k);
	struct lane *a, *b, *l;

	if (!t->x || !whole || !shape_equal(&g->value[n->in[0]].type.shape, o) || !shape_equal(&g->value[n->in[1]].type.shape, o) ||
	    !(a = trace(t, n->in[0], k, depth)) || !(b = trace(t, n->in[1], k, depth)) || !(l = lanes(t, whole)))
		return NULL;
	for (int j = 0; j < whole; j++) {
		if (a[j].n != 1 || b[j].n != 1)
			return NULL;
		l[j] = (struct lane){ .n = 2, .t = { a[j].t[0], b[j].t[0] } };
		if (node_is(n, "Sub"))
			l[j].t[1].sign = -l[j].t[1].sign;
	}
	return l;
}

/* Squeezed or unsqueezed, reshaped: the same numbers in the same order. */
static struct lane *trace_shape(struct tracing *t, const struct node *n, int k, int depth)
{
	const struct graph *g = t->w->g;
	int whole = count_last(&g->value[n->out[0]].type.shape, k), kin = whole ? same_numbers(&g->value[n->in[0]].type.shape, whole) : 0;

	if (!kin)
		return NULL;
	return t->x ? trace(t, n->in[0], kin, depth) : behind(t, n, 0, trace(t, n->in[0], kin, depth), whole);
}

/* Of a table, a function of each number: behind, it is no longer known of which sign. */
static struct lane *trace_function(struct tracing *t, const struct node *n, int k, int depth)
{
	int whole = count_last(&t->w->g->value[n->out[0]].type.shape, k);
	struct lane *l = trace(t, n->in[0], k, depth);

	for (int i = 0; l && i < whole; i++)
		if (l[i].t[0].sign != 1)
			return NULL;
	return behind(t, n, 0, l, whole);
}

static struct lane *trace_node(struct tracing *t, const struct node *n, value_id v, int k, int depth)
{
	static const char *const layouts[] = { "Reshape", "Unsqueeze", "Squeeze", "Flatten", NULL }, *const functions[] = { "Cos", "Sin", "Cast", "Identity", NULL };

	if (n->op->domain || n->ncapture)
		return NULL;
	if (node_among(n, layouts))
		return trace_shape(t, n, k, depth);
	if (node_among(n, functions))
		return t->x ? NULL : trace_function(t, n, k, depth);
	if (node_is(n, "Slice"))
		return trace_slice(t, n, k, depth);
	if (node_is(n, "Split"))
		return trace_split(t, n, v, k, depth);
	if (node_is(n, "Concat"))
		return trace_concat(t, n, k, depth);
	if (node_is(n, "Gather"))
		return trace_gather(t, n, k, depth);
	if (node_is(n, "Expand") || node_is(n, "Tile"))
		return trace_repeat(t, n, k, depth);
	if (node_is(n, "Transpose"))
		return trace_transpose(t, n, k, depth);
	if (node_is(n, "MatMul"))
		return trace_matmul(t, n, k, depth);
	if (node_is(n, "Mul"))
		return trace_mul(t, n, k, depth);
	if (node_is(n, "Add") || node_is(n, "Sub"))
		return trace_sum(t, n, k, depth);
	if (node_is(n, "Neg")) {
		struct lane *l = trace(t, n->in[0], k, depth);

		for (int i = 0, m = count_last(&t->w->g->value[v].type.shape, k); l && i < m; i++)
			for (int a = 0; a < l[i].n; a++)
				l[i].t[a].sign = -l[i].t[a].sign;
		return l;
	}
	return NULL;
}

/* The numbers in the last k axes of v, which the caller may change; NULL: they are not made of x. */
static struct lane *trace(struct tracing *t, value_id v, int k, int depth)
{
	const struct node *n = value_node(t->w->g, v);
	struct lane *l = NULL;

	if (v == t->x || t->code)
		return t->code ? NULL : leaf(t, v, k);
	if (n && depth < DEEPEST)
		l = trace_node(t, n, v, k, depth + 1);
	return l || t->x ? l : leaf(t, v, k);
}

/* ---- Tables ---- */

/* Columns a and b of v hold the same numbers, or, where sign is -1, those with the other sign. */
static bool columns_equal(const struct graph *g, value_id v, int a, int b, int sign)
{
	const struct tensor *t = value_const(g, v);
	int64_t width = t && t->rank ? t->d[t->rank - 1] : 0;

	if (a == b)
		return sign == 1;
	for (int64_t i = 0; width && i < t->n; i += width)
		if (!(tensor_get(t, i + a) == sign * tensor_get(t, i + b)))
			return false;
	return width != 0;
}

/* Numbers a and b of a table are the same, or, where sign is -1, the same with the other sign. */
static bool lanes_equal(const struct graph *g, const struct lane *l, int a, int b, int sign)
{
	const struct term *x = l[a].t, *y = l[b].t;

	return l[a].n == 1 && l[b].n == 1 && x->of == y->of && x->path == y->path && columns_equal(g, x->of, x->at, y->at, sign * x->sign * y->sign);
}

/*
 * A table of that many rows has one for each position: as many as x has, or the first ones of a buffer (min(N, L), and where L is more the model could
 * not be run).
 */
static bool is_length(const struct graph *g, value_id v, dim rows, dim length)
{
	const struct node *n = value_node(g, v);

	while (n && (node_is(n, "Unsqueeze") || node_is(n, "Cast")))
		n = value_node(g, n->in[0]);
	for (int i = 0; rows != length && n && node_is(n, "Slice") && i < g->value[n->in[0]].type.shape.rank; i++) {
		dim whole = g->value[n->in[0]].type.shape.d[i];

		if (dim_is_int(whole) && whole > 1 && rows == dim_min(g->dims, whole, length))
			return true;
	}
	return rows == length;
}

/* The table of that many rows is cut to so many from somewhere on: it has fewer where the buffer ends. */
static bool is_cut_to(const struct graph *g, value_id v, dim rows, dim length)
{
	static const char *const lifted[] = { "Unsqueeze", "Cast", "Cos", "Sin", NULL };

	for (const struct node *n = value_node(g, v); n; n = value_node(g, n->in[0])) {
		if (node_is(n, "Slice") && n->nin < 5) {
			const struct shape *s = &g->value[n->out[0]].type.shape;
			dim axis = n->nin > 3 ? value_length(g, n->in[3]) : 0;

			axis += dim_is_int(axis) && axis < 0 ? s->rank : 0;
			if (dim_is_int(axis) && axis >= 0 && axis < s->rank && s->d[axis] == rows &&
			    dim_sub(g->dims, value_length(g, n->in[2]), value_length(g, n->in[1])) == length)
				return true;
		} else if (!node_among(n, lifted) && !joins_one(n)) {
			return false;
		}
	}
	return false;
}

/* How a table lies beside x [B, H, L, D] (heads = 1) or [B, L, H, D] (heads = 2): 0 when it does neither. */
static int heads_axis(const struct graph *g, value_id v, const struct shape *x)
{
	const struct shape *s = &g->value[v].type.shape;
	dim d[4];

	if (s->rank < 2 || s->rank > 4)
		return 0;
	for (int i = 0; i < 4; i++)
		d[i] = shape_as_rank(s, 4, i);
	if (d[0] != 1 && d[0] != x->d[0])
		return 0;
	if (d[1] == 1 && (is_length(g, v, d[2], x->d[2]) || is_cut_to(g, v, d[2], x->d[2])))
		return 1;
	return d[2] == 1 && (is_length(g, v, d[1], x->d[1]) || is_cut_to(g, v, d[1], x->d[1])) ? 2 : 0;
}

struct rotary {
	value_id x, cos, sin;
	int width;           /* numbers that are turned */
	bool interleaved;
	int heads;           /* the axis of heads */
	int first, step, sin_first, sin_step; /* columns of the tables */
};

static bool regular(const int *at, int n, int *first, int *step)
{
	*first = at[0];
	*step = n > 1 ? at[1] - at[0] : 1;
	for (int i = 1; i < n; i++)
		if (at[i] - at[i - 1] != *step)
			return false;
	return *step > 0;
}

/* Pair i of a rotary embedding of that width: its numbers. */
static void pair_of(int i, int width, bool interleaved, int *a, int *b)
{
	*a = interleaved ? 2 * i : i;
	*b = interleaved ? *a + 1 : i + width / 2;
}

/* l[j] = sign x[j] cos + ...: the term of x's own number first. */
static bool sort_terms(struct lane *l, int j)
{
	if (l->n == 2 && l->t[0].at != j) {
		struct term keep = l->t[0];

		l->t[0] = l->t[1];
		l->t[1] = keep;
	}
	return l->n == 2 && l->t[0].at == j && l->t[0].sign == 1 && l->t[0].by && l->t[1].by;
}

static bool is_rotary(const struct view *w, struct lane *y, int n, bool interleaved, struct rotary *r)
{
	int cos[WIDEST / 2] = { 0 }, sin[WIDEST / 2] = { 0 };
	struct tracing t = { .w = w };
	struct lane *of_cos, *of_sin;

	for (r->width = 0; r->width < n && y[r->width].n == 2; r->width++)
		;
	if (!r->width || r->width % 2 || !sort_terms(&y[0], 0))
		return false;
	r->cos = y[0].t[0].by;
	r->sin = y[0].t[1].by;
	for (int j = r->width; j < n; j++)
		if (y[j].n != 1 || y[j].t[0].by || y[j].t[0].at != j || y[j].t[0].sign != 1)
			return false;
	if (r->cos == r->sin || !(of_cos = trace(&t, r->cos, 1, 0)))
		return false;
	t.nstep = 0;
	if (!(of_sin = trace(&t, r->sin, 1, 0)))
		return false;
	for (int i = 0; i < r->width / 2; i++) {
		int a, b, other;

		pair_of(i, r->width, interleaved, &a, &b);
		if (!sort_terms(&y[a], a) || !sort_terms(&y[b], b) || y[a].t[1].at != b || y[b].t[1].at != a)
			return false;
		for (int k = 0; k < 2; k++)
			if (y[k ? b : a].t[0].by != r->cos || y[k ? b : a].t[1].by != r->sin)
				return false;
		/* the sine is that of b's term, where its sign is right, else that of a's, which should be negative */
		other = y[b].t[1].sign == 1 ? b : a;
		if (!lanes_equal(w->g, of_cos, y[a].t[0].by_at, y[b].t[0].by_at, 1) || (other == a && y[a].t[1].sign != -1) ||
		    !lanes_equal(w->g, of_sin, y[a].t[1].by_at, y[b].t[1].by_at, -y[a].t[1].sign * y[b].t[1].sign))
			return false;
		cos[i] = y[a].t[0].by_at;
		sin[i] = y[other].t[1].by_at;
	}
	r->interleaved = interleaved;
	return regular(cos, r->width / 2, &r->first, &r->step) && regular(sin, r->width / 2, &r->sin_first, &r->sin_step);
}

/* ---- Finding x ---- */

/* Values like y that it may be made of, the nearest first. */
static int candidates(const struct graph *g, value_id y, value_id *found)
{
	value_id queue[MAX_VISIT] = { y };
	const struct shape *s = &g->value[y].type.shape;
	int n = 1, count = 0;
	bool turned = false;

	for (int i = 0; i < n; i++) {
		const struct node *from = value_node(g, queue[i]);
		static const char *const through[] = { "Add", "Sub", "Mul", "Neg", "Concat", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Split", "Gather", "Transpose", "MatMul", NULL };
		const char *const *t = through;

		if (i && count < MAX_CANDIDATE && shape_equal(&g->value[queue[i]].type.shape, s))
			found[count++] = queue[i];
		while (from && *t && !node_is(from, *t))
			t++;
		if (!from || !*t)
			continue;
		turned = turned || node_is(from, "Neg") || node_is(from, "Sub") || node_is(from, "Concat") || node_is(from, "Gather") || node_is(from, "MatMul");
		for (uint32_t k = 0; k < from->nin && (k < 1 || node_is(from, "Concat") || t - through < 3); k++) {
			bool seen = false;

			for (int j = 0; j < n; j++)
				seen = seen || queue[j] == from->in[k];
			if (!seen && n < MAX_VISIT)
				queue[n++] = from->in[k];
		}
	}
	return turned ? count : 0;
}

static enum linnet_code find(const struct view *w, value_id v, struct rotary *r, bool *is)
{
	const struct graph *g = w->g;
	const struct shape *s = &g->value[v].type.shape;
	value_id x[MAX_CANDIDATE];
	int n = count_last(s, 1), count;

	*is = false;
	if (s->rank != 4 || n < 2 || !dtype_in(g->value[v].type.dt, SET(FLOAT) | HALVES))
		return LINNET_OK;
	count = candidates(g, v, x);
	for (int i = 0; i < count && !*is; i++) {
		struct tracing t = { .w = w, .x = x[i] };
		struct lane *y = trace(&t, v, 1, 0);

		if (t.code)
			return t.code;
		r->x = x[i];
		*is = y && (is_rotary(w, y, n, false, r) || is_rotary(w, y, n, true, r));
		if (*is) {
			r->heads = heads_axis(g, r->cos, s);
			*is = r->heads && heads_axis(g, r->sin, s) == r->heads && g->value[r->cos].type.dt == g->value[v].type.dt &&
			      g->value[r->sin].type.dt == g->value[v].type.dt;
		}
	}
	return LINNET_OK;
}

/* ---- RotaryEmbedding ---- */

/* Columns first, first + step ... of a table beside x, as [B, L, R / 2]. */
static value_id table(struct patch *p, value_id v, const struct rotary *r, int first, int step)
{
	struct attr axis0[] = { attr_int("axis", 0), { .name = NULL } };
	const struct graph *g = p->g;
	const struct node *lifted = value_from(g, v, "Unsqueeze");
	const struct shape *s, *xs = &g->value[r->x].type.shape;
	int half = r->width / 2, rank;
	value_id batch, shape;
	int64_t heads;
	bool whole;
	dim rows;

	s = &g->value[v].type.shape;
	rows = shape_as_rank(s, 4, 3 - r->heads);
	whole = is_length(g, v, rows, xs->d[3 - r->heads]);
	heads = s->rank - 4 + r->heads;
	if (lifted && heads >= 0 && s->d[heads] == 1) { /* without the axis of heads, where it was put in */
		const struct shape *bare = &g->value[lifted->in[0]].type.shape;

		if ((bare->rank == 2 || (bare->rank == 3 && (bare->d[0] == 1 || bare->d[0] == xs->d[0]))) && bare->d[bare->rank - 1] == s->d[s->rank - 1] &&
		    bare->d[bare->rank - 2] == rows) {
			v = lifted->in[0];
			s = bare;
			heads = -1;
		}
	}
	rank = s->rank - (heads >= 0 && s->d[heads] == 1);
	if (s->d[s->rank - 1] != half)
		v = patch_node(p, "Slice", "half",
		               PATCH_IN(v, patch_ints(p, (int64_t[]){ first }, 1, "from"), patch_ints(p, (int64_t[]){ first + (half - 1) * step + 1 }, 1, "to"),
		                        patch_ints(p, (int64_t[]){ -1 }, 1, "axis"), step > 1 ? patch_ints(p, (int64_t[]){ step }, 1, "step") : 0),
		               1, NULL);
	if (heads >= 0 && rank < s->rank)
		v = patch_node(p, "Squeeze", "table", PATCH_IN(v, patch_ints(p, &heads, 1, "axis")), 1, NULL);
	if (rank == 3 && s->d[0] == xs->d[0] && whole)
		return v;
	batch = patch_lengths(p, r->x, 0, 1, "shape");
	shape = whole ? patch_node(p, "Concat", "shape", PATCH_IN(batch, patch_ints(p, (int64_t[]){ 1, 1 }, 2, "ones")), 1, axis0)
	              : patch_node(p, "Concat", "shape", PATCH_IN(batch, patch_lengths(p, r->x, 3 - r->heads, 4 - r->heads, "shape"), patch_ints(p, (int64_t[]){ 1 }, 1, "one")), 1, axis0);
	return patch_node(p, "Expand", "table", PATCH_IN(v, shape), 1, NULL);
}

static value_id heads_first(struct patch *p, value_id v, const struct rotary *r)
{
	struct attr swap[] = { attr_ints("perm", (const int64_t[]){ 0, 2, 1, 3 }, 4), { .name = NULL } };

	return r->heads == 1 ? v : patch_node(p, "Transpose", "heads", PATCH_IN(v), 1, swap);
}

static enum linnet_code rope_turned(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	struct attr attr[3] = { { .name = NULL } };
	struct rotary r;
	bool is;
	int na = 0;
	value_id y;

	if (find(w, n->out[0], &r, &is))
		return fail_mem(e);
	if (!is)
		return LINNET_OK;
	if (r.interleaved)
		attr[na++] = attr_int("interleaved", 1);
	if (r.width < w->g->value[n->out[0]].type.shape.d[3])
		attr[na++] = attr_int("rotary_embedding_dim", r.width);
	attr[na] = (struct attr){ .name = NULL };
	y = patch_node(p, "RotaryEmbedding", *n->name ? n->name : "rope",
	               PATCH_IN(heads_first(p, r.x, &r), table(p, r.cos, &r, r.first, r.step), table(p, r.sin, &r, r.sin_first, r.sin_step)), 1, attr);
	patch_replace(p, n->out[0], heads_first(p, y, &r));
	return LINNET_OK;
}

/* The first numbers of x turned and the others joined to them again. */
static enum linnet_code rope_part(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *s = &g->value[n->out[0]].type.shape;
	const struct node *turn = n->nin == 2 ? value_from(g, n->in[0], "Transpose") : NULL, *rope, *back;
	struct rotary r = { .heads = 1 };
	struct attr attr[4] = { { .name = NULL } };
	struct tracing t = { .w = w };
	struct lane *first, *rest;
	value_id part, y;
	int width, na = 0, whole = count_last(s, 1);

	(void)e;
	if (n->nin != 2 || s->rank != 4 || !whole || axis_of(g, n) != 3 || value_uses(w, n->in[0]) != 1)
		return LINNET_OK;
	rope = value_from(g, turn ? turn->in[0] : n->in[0], "RotaryEmbedding");
	if (!rope || (turn && value_uses(w, turn->in[0]) != 1) || g->value[rope->out[0]].type.shape.rank != 4 || node_attr(rope, "rotary_embedding_dim")->i)
		return LINNET_OK;
	back = turn ? value_from(g, rope->in[0], "Transpose") : NULL;
	if (turn && !back)
		return LINNET_OK;
	r.heads = turn ? 2 : 1;
	part = back ? back->in[0] : rope->in[0];
	width = count_last(&g->value[part].type.shape, 1);
	for (int i = 0; i < 2; i++) { /* both are cut from one value: Slice or Split */
		const struct node *cut = value_node(g, i ? n->in[1] : part);

		if (!cut || !(node_is(cut, "Slice") || node_is(cut, "Split")) || (i && cut->in[0] != t.x))
			return LINNET_OK;
		t.x = cut->in[0];
	}
	first = trace(&t, part, 1, 0);
	rest = trace(&t, n->in[1], 1, 0);
	if (t.code)
		return fail_mem(e);
	if (!first || !rest || !width || !shape_equal(&g->value[t.x].type.shape, s))
		return LINNET_OK;
	for (int i = 0; i < whole; i++) {
		const struct term *at = i < width ? first[i].t : rest[i - width].t;

		if (at->at != i || at->sign != 1 || at->by)
			return LINNET_OK;
	}
	if (turn)
		for (int i = 0; i < 2; i++) {
			static const int64_t swap[] = { 0, 2, 1, 3 };
			const struct attr *perm = node_attr(i ? back : turn, "perm");

			if (perm->kind != ATTR_INTS || perm->n != 4 || memcmp(perm->ints, swap, sizeof swap) != 0)
				return LINNET_OK;
		}
	for (uint32_t i = 0; i < rope->nattr && na < 2; i++)
		if (rope->attr[i].given && strcmp(rope->attr[i].name, "rotary_embedding_dim") != 0)
			attr[na++] = rope->attr[i];
	attr[na++] = attr_int("rotary_embedding_dim", width);
	attr[na] = (struct attr){ .name = NULL };
	y = patch_node(p, "RotaryEmbedding", *rope->name ? rope->name : "rope",
	               PATCH_IN(heads_first(p, t.x, &r), rope->in[1], rope->in[2], rope->nin > 3 ? rope->in[3] : 0), 1, attr);
	patch_replace(p, n->out[0], heads_first(p, y, &r));
	return LINNET_OK;
}

/* ---- As it is written ---- */

/* v is x[..., from..to) with constant bounds over the last axis: x. */
static value_id sliced(const struct graph *g, value_id v, int64_t from, int64_t to)
{
	const struct node *n = value_from(g, v, "Slice");
	const struct shape *s;
	int64_t a, b, axis, step = 1;
	int count;

	if (!n || n->nin < 4)
		return 0;
	s = &g->value[n->in[0]].type.shape;
	if (s->rank < 1 || !value_ints(g, n->in[1], &a, 1, &count) || !value_ints(g, n->in[2], &b, 1, &count) ||
	    !value_ints(g, n->in[3], &axis, 1, &count) || (n->nin > 4 && n->in[4] && !value_ints(g, n->in[4], &step, 1, &count)))
		return 0;
	if ((axis != -1 && axis != s->rank - 1) || step != 1 || !dim_is_int(s->d[s->rank - 1]))
		return 0;
	a = a < 0 ? a + s->d[s->rank - 1] : a;
	b = b < 0 ? b + s->d[s->rank - 1] : b > s->d[s->rank - 1] ? s->d[s->rank - 1] : b;
	return a == from && b == to ? n->in[0] : 0;
}

/* x when v is [-x2, x1] of it. */
static value_id unrotated(const struct graph *g, value_id v)
{
	const struct node *concat = value_from(g, v, "Concat"), *neg, *split;
	const struct shape *s = &g->value[v].type.shape;
	int64_t width, axis;
	value_id x;

	if (!concat || concat->nin != 2 || s->rank < 1 || !dim_is_int(s->d[s->rank - 1]))
		return 0;
	axis = node_attr(concat, "axis")->i;
	neg = value_from(g, concat->in[0], "Neg");
	width = s->d[s->rank - 1];
	if ((axis != -1 && axis != s->rank - 1) || !neg || width % 2)
		return 0;
	split = value_from(g, neg->in[0], "Split");
	if (split && split->nout == 2 && split->out[1] == neg->in[0] && split->out[0] == concat->in[1] &&
	    (node_attr(split, "axis")->i == -1 || node_attr(split, "axis")->i == s->rank - 1) &&
	    g->value[split->out[0]].type.shape.d[s->rank - 1] == width / 2)
		return split->in[0];
	x = sliced(g, neg->in[0], width / 2, width);
	return x && sliced(g, concat->in[1], 0, width / 2) == x ? x : 0;
}

bool rope_find(const struct graph *g, value_id v, struct rope *r)
{
	const struct node *n = value_node(g, v);

	*r = (struct rope){ .node = n && node_is(n, "RotaryEmbedding") ? n : NULL };
	if (r->node)
		r->x = n->in[0];
	for (int i = 0; n && node_is(n, "Add") && !r->x && i < 2; i++) {
		const struct node *plain = value_from(g, n->in[i], "Mul"), *turned = value_from(g, n->in[1 - i], "Mul");

		for (int j = 0; plain && turned && !r->x && j < 4; j++)
			if (unrotated(g, turned->in[j >> 1]) == plain->in[j & 1])
				*r = (struct rope){ .x = plain->in[j & 1], .cos = plain->in[1 - (j & 1)], .sin = turned->in[1 - (j >> 1)] };
	}
	return r->x != 0;
}

static const struct rule rules[] = {
	{ .name = "rope/halves", .doc = "x cos + [-x2, x1] sin, however it is spelled, becomes RotaryEmbedding", .anchor = "Add", .apply = rope_turned, .differs = 1e-6 },
	{ .name = "rope/part", .doc = "turned numbers beside the others that they were cut from become RotaryEmbedding of a part", .anchor = "Concat", .apply = rope_part, .differs = 1e-6 },
	{ .name = "rope/joined", .doc = "turned halves joined to one value become RotaryEmbedding", .anchor = "Concat", .apply = rope_turned, .differs = 1e-6 },
	{ .name = "rope/stacked", .doc = "turned pairs laid beside each other become RotaryEmbedding", .anchor = "Reshape", .apply = rope_turned, .differs = 1e-6 },
};

const struct pass rope_pass = { .name = "rope", .doc = "Recognise rotary embedding", .kind = PASS_EXACT, .makes = "RotaryEmbedding", PASS_RULES(rules) };
