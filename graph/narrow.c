/* Axes of a part of a graph that can be cut short. */
#include "graph/narrow.h"

#include <string.h>

#include "graph/pass.h"

enum { SHORT = 2, MAX_OPERANDS = 64, MAX_PADS = 2 * MAX_RANK };

struct reading {
	struct narrowing *w;
	const struct graph *g;
	const bool *fixed;
	const struct tensor *const *known; /* NULL: nothing is but constants */
	struct arena *a;
	uint8_t (*mine)[MAX_RANK]; /* labels of the node's fixed inputs */
};

/* ---- Labels ---- */

static uint8_t find(const struct narrowing *w, uint8_t l)
{
	while (w->labels->of[l].same != l)
		l = w->labels->of[l].same;
	return l;
}

static int64_t whole(const struct narrowing *w, uint8_t l) { return w->labels->of[find(w, l)].whole; }

static int64_t cut(const struct narrowing *w, uint8_t l)
{
	const struct narrow_label *x = &w->labels->of[find(w, l)];

	if (x->part[0])
		return cut(w, x->part[0]) * cut(w, x->part[1]);
	return x->mixed || (x->summed && !w->labels->sums) ? x->whole : x->cut;
}

/* Indices of l meet, or are told apart. */
static void mix(struct narrowing *w, uint8_t l)
{
	struct narrow_label *x = &w->labels->of[find(w, l)];

	if (x->part[0]) {
		mix(w, x->part[0]);
		mix(w, x->part[1]);
	}
	x->mixed = l != 0;
}

static void sum(struct narrowing *w, uint8_t l)
{
	struct narrow_label *x = &w->labels->of[find(w, l)];

	if (x->part[0]) {
		sum(w, x->part[0]);
		sum(w, x->part[1]);
	}
	x->summed = l != 0;
}

static bool is_mixed(const struct narrowing *w, uint8_t l)
{
	const struct narrow_label *x = &w->labels->of[find(w, l)];

	return !l || (x->part[0] ? is_mixed(w, x->part[0]) && is_mixed(w, x->part[1]) : x->mixed);
}

static uint8_t fresh(struct narrowing *w, dim d)
{
	if (d == DIM_NONE || (dim_is_int(d) && d < 2) || w->labels->n == NARROW_LABELS)
		return 0;
	w->labels->of[w->labels->n] = (struct narrow_label){ .same = (uint8_t)w->labels->n, .whole = d, .cut = d };
	return (uint8_t)w->labels->n++;
}

/* l, which is one axis so far, is an outer axis of that length and an inner one; 0 where it cannot be. */
static uint8_t split(struct narrowing *w, uint8_t l, int64_t outer)
{
	struct narrow_label *x;
	uint8_t part[2];

	l = find(w, l);
	x = &w->labels->of[l];
	if (!l || x->part[0] || !dim_is_int(x->whole))
		return l && x->part[0] && whole(w, x->part[0]) == outer ? l : 0;
	part[0] = x->whole % outer ? 0 : fresh(w, outer);
	part[1] = part[0] ? fresh(w, x->whole / outer) : 0;
	if (!part[1])
		return 0;
	for (int i = 0; i < 2; i++) {
		w->labels->of[part[i]].mixed = x->mixed;
		w->labels->of[part[i]].summed = x->summed;
		x->part[i] = part[i];
	}
	return l;
}

/* The same axis: what is known of one is known of both. 0: an axis that has no label. */
static uint8_t unify(struct narrowing *w, uint8_t a, uint8_t b)
{
	a = find(w, a);
	b = find(w, b);
	if (a == b)
		return a;
	if (!a || !b || w->labels->of[a].whole != w->labels->of[b].whole) {
		mix(w, a);
		mix(w, b);
		return 0;
	}
	if (!w->labels->of[a].part[0]) {
		uint8_t t = a;

		a = b;
		b = t;
	}
	if (w->labels->of[b].part[0] && whole(w, w->labels->of[a].part[0]) != whole(w, w->labels->of[b].part[0])) {
		mix(w, a);
		mix(w, b);
		return 0;
	}
	if (w->labels->of[b].part[0]) {
		unify(w, w->labels->of[a].part[0], w->labels->of[b].part[0]);
		unify(w, w->labels->of[a].part[1], w->labels->of[b].part[1]);
	} else {
		if (w->labels->of[b].mixed)
			mix(w, a);
		if (w->labels->of[b].summed)
			sum(w, a);
	}
	w->labels->of[b].same = a;
	return a;
}

/* Two axes as one. */
static uint8_t product(struct narrowing *w, uint8_t a, int64_t na, uint8_t b, int64_t nb)
{
	uint8_t part[2] = { a ? a : fresh(w, na), b ? b : fresh(w, nb) }, l = part[0] && part[1] ? fresh(w, na * nb) : 0;

	if (!a)
		mix(w, part[0]);
	if (!b)
		mix(w, part[1]);
	if (!l) {
		mix(w, a);
		mix(w, b);
		return 0;
	}
	memcpy(w->labels->of[l].part, part, sizeof part);
	return l;
}

/* ---- Nodes ---- */

static const struct shape *shape_at(const struct reading *x, value_id v) { return &x->g->value[v].type.shape; }

static dim length_at(const struct reading *x, value_id v, int k)
{
	const struct shape *s = shape_at(x, v);

	return k >= 0 && k < s->rank ? s->d[k] : 1;
}

static uint8_t label_at(const struct reading *x, value_id v, int k)
{
	return k >= 0 && k < shape_at(x, v)->rank ? find(x->w, x->w->axis[v][k]) : 0;
}

static void put(struct reading *x, value_id v, int k, uint8_t l)
{
	if (!v || k < 0 || k >= shape_at(x, v)->rank)
		return;
	if (l && length_at(x, v, k) != whole(x->w, l)) {
		mix(x->w, l);
		l = 0;
	}
	x->w->axis[v][k] = l;
}

static bool named(const struct node *n, const char *const *list)
{
	for (; *list; list++)
		if (node_is(n, *list))
			return true;
	return false;
}

static const char *const pointwise[] = { "Identity", "Neg", "Exp", "Cast", "CastLike", "Reciprocal", "Add", "Sub", "Mul", "Div", "Sum", "Min", "Max", "Clip", "Where", NULL };

static const struct tensor *constant(const struct reading *x, value_id v)
{
	const struct tensor *t = value_const(x->g, v);

	return t || !x->known ? t : x->known[v];
}

static bool alike(const struct reading *x, value_id v, int k, int depth);

/* The same of a node's inputs, whose axes are counted from the last one. */
static bool inputs_alike(const struct reading *x, const struct node *n, int back, int depth)
{
	for (uint32_t i = 0; i < n->nin; i++) {
		const struct shape *s = shape_at(x, n->in[i]);

		if (n->in[i] && (s->rank < 0 || (s->rank > back && s->d[s->rank - 1 - back] != 1 && !alike(x, n->in[i], s->rank - 1 - back, depth))))
			return false;
	}
	return true;
}

/* Nothing differs along v's axis k. */
static bool alike(const struct reading *x, value_id v, int k, int depth)
{
	const struct tensor *t = constant(x, v);
	const struct node *n = value_node(x->g, v);
	size_t run;
	int64_t outer = 1, inner = 1;
	double c;

	if (value_filled(x->g, v, &c))
		return true;
	if (!t && n && depth && node_is(n, "Expand"))
		return inputs_alike(x, &(struct node){ .in = n->in, .nin = 1 }, shape_at(x, v)->rank - 1 - k, depth - 1);
	if (!t && n && depth && named(n, pointwise))
		return inputs_alike(x, n, shape_at(x, v)->rank - 1 - k, depth - 1);
	if (!t || k < 0 || k >= t->rank || t->kind != KIND_TENSOR || dtype_bits(t->dt) < 8 || t->dt == DT_STRING)
		return false;
	for (int i = 0; i < t->rank; i++)
		*(i < k ? &outer : &inner) *= i == k ? 1 : t->d[i];
	run = (size_t)inner * dtype_bits(t->dt) / 8;
	for (int64_t i = 0; i < outer; i++)
		for (int64_t j = 1; j < t->d[k]; j++) {
			const char *first = (const char *)t->data + (size_t)(i * t->d[k]) * run;

			if (memcmp(first, first + (size_t)j * run, run) != 0)
				return false;
		}
	return true;
}

/* One axis of several inputs: axis[i] of input in[i], below 0: it has none. The label of the axis where they are combined. */
static uint8_t meet(struct reading *x, const struct node *n, const uint32_t *in, const int *axis, int count)
{
	uint8_t l = 0;
	bool any = false;

	for (int i = 0; i < count; i++)
		if (!x->fixed[n->in[in[i]]] && length_at(x, n->in[in[i]], axis[i]) != 1) {
			uint8_t own = label_at(x, n->in[in[i]], axis[i]);

			l = any ? unify(x->w, l, own) : own;
			any = true;
		}
	for (int i = 0; i < count; i++) {
		value_id v = n->in[in[i]];
		dim d = length_at(x, v, axis[i]);

		if (!v || !x->fixed[v] || d == 1 || (any && is_mixed(x->w, l)))
			continue;
		if ((any && d != whole(x->w, l)) || !alike(x, v, axis[i], 4)) {
			mix(x->w, l);
			l = any ? l : 0;
		} else {
			l = any ? l : fresh(x->w, d);
			x->mine[in[i]][axis[i]] = l;
		}
		any = true;
	}
	return l;
}

/* The axes of the output from `from` on, counted from the last one, are those of inputs that are broadcast. */
static void spread(struct reading *x, const struct node *n, uint32_t nin, int from)
{
	uint32_t in[MAX_OPERANDS];
	int axis[MAX_OPERANDS], rank = shape_at(x, n->out[0])->rank;

	for (int k = from; k < rank; k++) {
		for (uint32_t i = 0; i < nin; i++) {
			in[i] = i;
			axis[i] = shape_at(x, n->in[i])->rank - 1 - k;
		}
		put(x, n->out[0], rank - 1 - k, meet(x, n, in, axis, (int)nin));
	}
}

static void together(struct reading *x, const struct node *n) { spread(x, n, node_is(n, "CastLike") ? 1 : n->nin, 0); }

static void mix_inputs(struct reading *x, const struct node *n)
{
	for (uint32_t i = 0; i < n->nin; i++)
		for (int k = 0; k < MAX_RANK; k++)
			mix(x->w, x->w->axis[n->in[i]][k]);
}

static void matmul(struct reading *x, const struct node *n)
{
	int rank = shape_at(x, n->out[0])->rank, ra = shape_at(x, n->in[0])->rank, rb = shape_at(x, n->in[1])->rank;

	if (ra < 2 || rb < 2) {
		mix_inputs(x, n);
		return;
	}
	spread(x, n, 2, 2);
	put(x, n->out[0], rank - 2, meet(x, n, (const uint32_t[]){ 0 }, (const int[]){ ra - 2 }, 1));
	put(x, n->out[0], rank - 1, meet(x, n, (const uint32_t[]){ 1 }, (const int[]){ rb - 1 }, 1));
	sum(x->w, meet(x, n, (const uint32_t[]){ 0, 1 }, (const int[]){ ra - 1, rb - 2 }, 2));
}

static void einsum(struct reading *x, const struct node *n)
{
	const char *equation = node_attr(n, "equation")->s.p, *end = equation + node_attr(n, "equation")->s.n;
	const char *arrow = memchr(equation, '>', (size_t)(end - equation));

	if (!arrow || memchr(equation, '.', (size_t)(end - equation))) {
		mix_inputs(x, n);
		return;
	}
	for (int letter = 'A'; letter <= 'z'; letter++) {
		uint32_t in[MAX_OPERANDS];
		int axis[MAX_OPERANDS], count = 0, at = 0, to = -1;
		uint32_t operand = 0;
		bool twice = false;
		uint8_t l;

		for (const char *c = equation; c < end; c++) {
			if (*c == ',')
				operand++;
			at = *c == ',' || *c == '>' ? 0 : at;
			if (*c == letter && c > arrow) {
				to = at;
			} else if (*c == letter && count < MAX_OPERANDS && operand < n->nin) {
				twice = twice || (count && in[count - 1] == operand);
				in[count] = operand;
				axis[count++] = at;
			}
			at += (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z');
		}
		if (!count)
			continue;
		l = meet(x, n, in, axis, count);
		if (twice)
			for (int i = 0; i < count; i++)
				mix(x->w, label_at(x, n->in[in[i]], axis[i]));
		else if (to < 0)
			sum(x->w, l);
		else
			put(x, n->out[0], to, l);
	}
}

static bool same_length(dim a, dim b) { return a == b && a != DIM_NONE; }

/* Axes [i, i2) of a become [j, j2) of b, which have as many elements. */
static void regroup(struct reading *x, value_id a, int i, int i2, value_id b, int j, int j2)
{
	uint8_t l = label_at(x, a, i);
	int64_t n = length_at(x, a, i);
	bool known = true;

	for (int k = i; k < i2; k++)
		known = known && dim_is_int(length_at(x, a, k)) && length_at(x, a, k) > 0;
	for (int k = j; k < j2; k++)
		known = known && dim_is_int(length_at(x, b, k)) && length_at(x, b, k) > 0;
	if (!known || (i2 - i > 1 && j2 - j > 1)) {
		for (int k = i; k < i2; k++)
			mix(x->w, label_at(x, a, k));
		return;
	}
	for (int k = i + 1; k < i2; k++) {
		l = length_at(x, a, k) == 1 ? l : n == 1 ? label_at(x, a, k) : product(x->w, l, n, label_at(x, a, k), length_at(x, a, k));
		n *= length_at(x, a, k);
	}
	for (int k = j; k < j2; k++) {
		int64_t outer = length_at(x, b, k);

		if (outer == 1)
			continue;
		if (outer == n) {
			put(x, b, k, l);
			return;
		}
		if (!split(x->w, l, outer)) {
			mix(x->w, l);
			return;
		}
		put(x, b, k, x->w->labels->of[find(x->w, l)].part[0]);
		l = x->w->labels->of[find(x->w, l)].part[1];
		n /= outer;
	}
}

static void reshape(struct reading *x, const struct node *n)
{
	value_id a = n->in[0], b = n->out[0];
	int i = 0, j = 0, ei = shape_at(x, a)->rank, ej = shape_at(x, b)->rank;

	while (ei && ej > 0 && same_length(length_at(x, a, ei - 1), length_at(x, b, ej - 1))) {
		ei--;
		ej--;
		put(x, b, ej, label_at(x, a, ei));
	}
	while (i < ei && j < ej) {
		dim da = length_at(x, a, i), db = length_at(x, b, j);
		int i2 = i + 1, j2 = j + 1;

		if (same_length(da, db)) {
			put(x, b, j++, label_at(x, a, i++));
			continue;
		}
		if (da == 1 || db == 1) {
			i += da == 1;
			j += da != 1;
			continue;
		}
		while (da != db && (i2 < ei || j2 < ej)) {
			bool more = dim_is_int(da) && dim_is_int(db) ? da < db : i2 < ei;

			if ((more && i2 == ei) || (!more && j2 == ej))
				break;
			if (more)
				da = dim_mul(x->g->dims, da, length_at(x, a, i2++));
			else
				db = dim_mul(x->g->dims, db, length_at(x, b, j2++));
		}
		if (!same_length(da, db)) {
			i2 = ei;
			j2 = ej;
		}
		regroup(x, a, i, i2, b, j, j2);
		i = i2;
		j = j2;
	}
	for (; i < ei; i++)
		if (length_at(x, a, i) != 1)
			mix(x->w, label_at(x, a, i));
}

static void transpose(struct reading *x, const struct node *n)
{
	const struct attr *perm = node_attr(n, "perm");
	int rank = shape_at(x, n->in[0])->rank;

	for (int k = 0; k < rank; k++)
		put(x, n->out[0], k, label_at(x, n->in[0], perm->n ? (int)perm->ints[k] : rank - 1 - k));
}

/* Copies along axes of length 1, which are alike. */
static void copies(struct reading *x, const struct node *n)
{
	int rank = shape_at(x, n->out[0])->rank, shift = rank - shape_at(x, n->in[0])->rank;

	for (int k = 0; k < rank; k++) {
		dim from = length_at(x, n->in[0], k - shift), to = length_at(x, n->out[0], k);

		if (same_length(from, to))
			put(x, n->out[0], k, label_at(x, n->in[0], k - shift));
		else if (from == 1)
			put(x, n->out[0], k, fresh(x->w, to));
		else
			mix(x->w, label_at(x, n->in[0], k - shift));
	}
}

/* Axes keep their places; those that are not whole any more, or of `touched`, are mixed. */
static void keep_places(struct reading *x, const struct node *n, const bool *touched)
{
	for (uint32_t o = 0; o < n->nout; o++)
		for (int k = 0; k < shape_at(x, n->in[0])->rank && n->out[o]; k++)
			if (!touched[k] && same_length(length_at(x, n->in[0], k), length_at(x, n->out[o], k)))
				put(x, n->out[o], k, label_at(x, n->in[0], k));
			else
				mix(x->w, label_at(x, n->in[0], k));
}

/* Axes that an input lists. false: not known, then all. */
static bool listed(const struct reading *x, const struct node *n, uint32_t input, bool *at)
{
	int64_t axes[MAX_RANK];
	int count, rank = shape_at(x, n->in[0])->rank;
	bool known = n->nin > input && n->in[input] && value_ints(x->g, n->in[input], axes, MAX_RANK, &count);

	for (int k = 0; k < MAX_RANK; k++)
		at[k] = !known;
	for (int i = 0; known && i < count; i++)
		if (axes[i] + (axes[i] < 0 ? rank : 0) >= 0 && axes[i] < rank)
			at[axes[i] + (axes[i] < 0 ? rank : 0)] = true;
	return known;
}

static void slice(struct reading *x, const struct node *n)
{
	bool touched[MAX_RANK] = { false };
	int64_t step[MAX_RANK];
	int count = 0;

	if (n->nin > 4 && n->in[4]) {
		bool plain = value_ints(x->g, n->in[4], step, MAX_RANK, &count);

		for (int i = 0; i < count; i++)
			plain = plain && step[i] == 1;
		if (!plain)
			listed(x, n, 3, touched);
	}
	keep_places(x, n, touched);
}

static void pad(struct reading *x, const struct node *n)
{
	const dim *sym = x->g->value[n->in[1]].type.sym;
	const struct tensor *t = constant(x, n->in[1]);
	int rank = shape_at(x, n->in[0])->rank;
	bool touched[MAX_RANK];

	if (n->nin > 3 && n->in[3]) {
		listed(x, n, 3, touched);
	} else {
		for (int k = 0; k < MAX_RANK; k++) {
			touched[k] = true;
			if (k < rank && t && t->n == 2 * rank)
				touched[k] = tensor_get_int(t, k) || tensor_get_int(t, k + rank);
			else if (k < rank && sym && length_at(x, n->in[1], 0) == 2 * rank)
				touched[k] = sym[k] != 0 || sym[k + rank] != 0;
		}
	}
	keep_places(x, n, touched);
}

static void along(struct reading *x, const struct node *n, int64_t axis)
{
	bool touched[MAX_RANK] = { false };

	axis += axis < 0 ? shape_at(x, n->in[0])->rank : 0;
	if (axis >= 0 && axis < MAX_RANK)
		touched[axis] = true;
	keep_places(x, n, touched);
}

static void gather(struct reading *x, const struct node *n)
{
	int64_t axis = node_attr(n, "axis")->i;
	int rank = shape_at(x, n->in[0])->rank, more = shape_at(x, n->in[1])->rank;

	axis += axis < 0 ? rank : 0;
	for (int k = 0; k < rank; k++)
		if (k == axis || !x->fixed[n->in[1]] || more < 0)
			mix(x->w, label_at(x, n->in[0], k));
		else
			put(x, n->out[0], k < axis ? k : k - 1 + more, label_at(x, n->in[0], k));
}

static void concat(struct reading *x, const struct node *n)
{
	int rank = shape_at(x, n->out[0])->rank, axis = (int)node_attr(n, "axis")->i;

	axis += axis < 0 ? rank : 0;
	spread(x, n, n->nin, 0);
	for (uint32_t i = 0; i < n->nin && n->nin > 1; i++)
		mix(x->w, label_at(x, n->in[i], axis));
	for (uint32_t i = 0; i < n->nin && n->nin > 1; i++)
		x->mine[i][axis] = 0;
	if (n->nin > 1)
		put(x, n->out[0], axis, 0);
}

static void reduce(struct reading *x, const struct node *n)
{
	bool at[MAX_RANK], known = listed(x, n, 1, at), keep = node_attr(n, "keepdims")->i != 0;
	int rank = shape_at(x, n->in[0])->rank, to = 0;

	for (int k = 0; k < rank; k++)
		if (!known) {
			mix(x->w, label_at(x, n->in[0], k));
		} else if (at[k]) {
			sum(x->w, label_at(x, n->in[0], k));
			to += keep;
		} else {
			put(x, n->out[0], to++, label_at(x, n->in[0], k));
		}
}

/* Element c of the last axis of these indices counts along axis j, and no other element depends on j. */
static bool counts_along(const struct tensor *t, int64_t c, int j)
{
	int64_t inner = 1, last = t->d[t->rank - 1];

	for (int i = j + 1; i < t->rank; i++)
		inner *= t->d[i];
	for (int64_t i = 0; i < t->n; i++) {
		int64_t at = i / inner % t->d[j];

		if (tensor_get_int(t, i) != (i % last == c ? at : tensor_get_int(t, i - at * inner)))
			return false;
	}
	return t->n > 0;
}

static void scatter_places(struct reading *x, const struct node *n)
{
	const struct tensor *t = constant(x, n->in[1]);
	int rank = shape_at(x, n->in[0])->rank, lead = shape_at(x, n->in[1])->rank - 1, last = lead >= 0 ? (int)length_at(x, n->in[1], lead) : -1, shift = lead - last;
	bool met[MAX_RANK] = { false };

	for (int k = 0; k < rank; k++) {
		int of = last >= 0 && k >= last ? k + shift : -1; /* the axis of the updates */

		for (int j = 0; j < lead && of < 0 && t && k < last; j++)
			if (t->d[j] == length_at(x, n->in[0], k) && counts_along(t, k, j))
				of = j;
		if (of < 0) {
			mix(x->w, label_at(x, n->in[0], k));
			continue;
		}
		met[of] = true;
		put(x, n->out[0], k, meet(x, n, (const uint32_t[]){ 0, 2 }, (const int[]){ k, of }, 2));
		if (k < last)
			x->mine[1][of] = label_at(x, n->out[0], k);
	}
	for (int k = 0; k < shape_at(x, n->in[2])->rank; k++)
		if (!met[k])
			mix(x->w, label_at(x, n->in[2], k));
}

static void scatter_along(struct reading *x, const struct node *n)
{
	int rank = shape_at(x, n->in[0])->rank, axis = (int)node_attr(n, "axis")->i;

	axis += axis < 0 ? rank : 0;
	for (int k = 0; k < rank; k++) {
		bool whole_axis = same_length(length_at(x, n->in[0], k), length_at(x, n->in[2], k)) && same_length(length_at(x, n->in[0], k), length_at(x, n->in[1], k));

		if (k == axis || !whole_axis) {
			mix(x->w, label_at(x, n->in[0], k));
			mix(x->w, label_at(x, n->in[2], k));
		} else {
			put(x, n->out[0], k, meet(x, n, (const uint32_t[]){ 0, 1, 2 }, (const int[]){ k, k, k }, 3));
		}
	}
}

static void judge(struct reading *x, const struct node *n)
{
	static const char *const regroups[] = { "Reshape", "Unsqueeze", "Squeeze", "Flatten", NULL };
	const struct tensor *c = n->nin > 1 && n->in[1] ? value_const(x->g, n->in[1]) : NULL;
	bool known = n->nin <= MAX_OPERANDS;

	for (uint32_t i = 0; i < n->nin; i++) /* what tells axes, lengths and places depends on lengths alone */
		known = known && (!n->in[i] || (shape_at(x, n->in[i])->rank >= 0 && (x->fixed[n->in[i]] || named(n, pointwise) || dtype_in(x->g->value[n->in[i]].type.dt, FLOATS))));
	for (uint32_t i = 0; i < n->nout; i++)
		known = known && (!n->out[i] || shape_at(x, n->out[i])->rank >= 0);
	if (known && named(n, pointwise))
		together(x, n);
	else if (known && named(n, regroups))
		reshape(x, n);
	else if (known && node_is(n, "MatMul"))
		matmul(x, n);
	else if (known && node_is(n, "Einsum"))
		einsum(x, n);
	else if (known && node_is(n, "Transpose"))
		transpose(x, n);
	else if (known && (node_is(n, "Expand") || node_is(n, "Tile")))
		copies(x, n);
	else if (known && node_is(n, "Slice"))
		slice(x, n);
	else if (known && node_is(n, "Split"))
		along(x, n, node_attr(n, "axis")->i);
	else if (known && node_is(n, "CumSum") && c && c->n == 1)
		along(x, n, tensor_get_int(c, 0));
	else if (known && node_is(n, "Trilu"))
		keep_places(x, n, (const bool[MAX_RANK]){ [0] = false });
	else if (known && node_is(n, "Gather"))
		gather(x, n);
	else if (known && node_is(n, "Concat"))
		concat(x, n);
	else if (known && node_is(n, "Pad"))
		pad(x, n);
	else if (known && node_is(n, "ReduceSum"))
		reduce(x, n);
	else if (known && node_is(n, "ScatterND"))
		scatter_places(x, n);
	else if (known && node_is(n, "ScatterElements"))
		scatter_along(x, n);
	else
		mix_inputs(x, n);
	for (int k = 1; node_is(n, "Trilu") && k <= 2; k++)
		mix(x->w, label_at(x, n->in[0], shape_at(x, n->in[0])->rank - k));
}

/* ---- The part ---- */

/* An axis that meets itself in another place of one value. */
static void leaves(const struct narrowing *w, uint8_t l, uint8_t *count)
{
	const struct narrow_label *x = &w->labels->of[find(w, l)];

	if (!l)
		return;
	if (!x->part[0]) {
		count[find(w, l)]++;
		return;
	}
	leaves(w, x->part[0], count);
	leaves(w, x->part[1], count);
}

static void tell_twins(struct narrowing *w, const uint8_t *axis)
{
	uint8_t count[NARROW_LABELS] = { 0 };

	for (int k = 0; k < MAX_RANK; k++)
		leaves(w, axis[k], count);
	for (int l = 1; l < w->labels->n; l++)
		if (count[l] > 1)
			mix(w, (uint8_t)l);
}

static void tell_all_twins(struct narrowing *w)
{
	static const uint8_t none[MAX_RANK] = { 0 };

	for (value_id v = 1; v < w->g->nvalue; v++)
		if (memcmp(w->axis[v], none, sizeof none) != 0)
			tell_twins(w, w->axis[v]);
	for (node_id id = 1; id < w->g->nnode; id++)
		if (w->inner[id])
			tell_all_twins(w->inner[id]);
}

static enum linnet_code narrowing_new(const struct graph *g, struct narrow_labels *labels, struct arena *a, struct narrowing **out, struct linnet_error *e)
{
	struct narrowing *w;

	TRY_NEW(w, a, 1);
	w->g = g;
	w->labels = labels;
	TRY_NEW(w->axis, a, g->nvalue);
	TRY_NEW(w->fixed, a, g->nnode);
	TRY_NEW(w->inner, a, g->nnode);
	*out = w;
	return LINNET_OK;
}

static enum linnet_code read_node(struct reading *x, const struct node *n, struct linnet_error *e);

/* What depends on nothing but lengths and the count of steps in a body; what enters it with a point does not. */
static void fixed_inside(const struct reading *x, const struct node *n, const struct graph *body, const node_id *order, uint32_t norder, bool *fixed)
{
	uint32_t formal = body->nin - n->ncapture;

	fixed[0] = true;
	for (value_id v = 1; v < body->nvalue; v++)
		fixed[v] = body->value[v].kind == VALUE_CONST || body->value[v].type.value;
	for (uint32_t i = 0; i < body->nin; i++)
		fixed[body->in[i]] = i < formal ? node_is(n, "Loop") && i < 2 : x->fixed[n->in[n->nin - body->nin + i]] && !dtype_in(body->value[body->in[i]].type.dt, FLOATS);
	for (uint32_t i = 0; i < norder; i++) {
		const struct node *m = &body->node[order[i]];
		bool all = m->op->agree != AGREE_RANDOM;

		for (uint32_t k = 0; k < m->nin; k++)
			all = all && fixed[m->in[k]];
		for (uint32_t k = 0; k < m->nout; k++)
			fixed[m->out[k]] = fixed[m->out[k]] || all || m->op->flags & OP_SHAPE_ONLY || !m->out[k];
	}
}

/* The axis that a Scan's input or output i is cut along; below 0: none. */
static int step_axis(const struct node *n, const char *name, uint32_t i, int rank)
{
	const struct attr *axes = node_attr(n, name);
	int64_t at = axes && i < axes->n ? axes->ints[i] : 0;

	return (int)(at < 0 ? at + rank : at);
}

/* A body's input of the node's input i, whose axis `step` it does not have. */
static void enter(struct reading *x, struct reading *in, const struct node *n, uint32_t i, value_id v, int step)
{
	if (!dtype_in(in->g->value[v].type.dt, FLOATS) || shape_at(in, v)->rank != shape_at(x, n->in[i])->rank - (step >= 0)) {
		for (int k = 0; k < shape_at(x, n->in[i])->rank; k++)
			mix(x->w, label_at(x, n->in[i], k));
		return;
	}
	for (int k = 0; k < shape_at(x, n->in[i])->rank; k++)
		if (k == step)
			mix(x->w, label_at(x, n->in[i], k));
		else
			put(in, v, step >= 0 && k > step ? k - 1 : k, meet(x, n, &i, &k, 1));
}

static enum linnet_code body_of(struct reading *x, const struct node *n, struct linnet_error *e)
{
	const struct graph *body = node_attr(n, "body")->g;
	bool loop = node_is(n, "Loop"), *fixed;
	uint32_t lead = loop ? 2 : 0, held = loop ? 1 : 0, nscan = loop ? 0 : (uint32_t)node_attr(n, "num_scan_inputs")->i, formal = body->nin - n->ncapture, norder;
	uint32_t nstate = formal - lead - nscan;
	struct narrowing *w;
	struct reading in = { .g = body, .a = x->a };
	node_id *order;

	TRY(narrowing_new(body, x->w->labels, x->a, &w, e));
	TRY(graph_order(body, x->a, &order, &norder, e));
	TRY_NEW(fixed, x->a, body->nvalue);
	fixed_inside(x, n, body, order, norder, fixed);
	in.w = x->w->inner[n - x->g->node] = w;
	in.fixed = fixed;
	for (uint32_t i = lead; i < body->nin; i++) {
		bool scanned = i >= lead + nstate && i < formal;

		if (n->in[i] && !fixed[body->in[i]])
			enter(x, &in, n, i, body->in[i], scanned ? step_axis(n, "scan_input_axes", i - lead - nstate, shape_at(x, n->in[i])->rank) : -1);
	}
	for (uint32_t i = 0; i < norder; i++)
		TRY(read_node(&in, &body->node[order[i]], e));
	for (uint32_t i = 0; i + held < body->nout; i++) {
		value_id v = body->out[held + i], to = i < n->nout ? n->out[i] : 0;
		int step = i < nstate ? -1 : loop ? 0 : step_axis(n, "scan_output_axes", i - nstate, shape_at(&in, v)->rank + 1);

		for (int k = 0; k < shape_at(&in, v)->rank; k++) {
			uint8_t l = fixed[v] ? 0 : label_at(&in, v, k);

			if (i < nstate && (length_at(&in, v, k) != 1 || length_at(&in, body->in[lead + i], k) != 1))
				l = unify(x->w, l, label_at(&in, body->in[lead + i], k));
			if (to)
				put(x, to, step >= 0 && k >= step ? k + 1 : k, l);
		}
	}
	return LINNET_OK;
}

/* A Scan or Loop all of whose shapes have a rank. */
static bool has_body(const struct reading *x, const struct node *n)
{
	const struct graph *body = node_is(n, "Loop") || node_is(n, "Scan") ? node_attr(n, "body")->g : NULL;
	bool loop = node_is(n, "Loop");
	uint32_t lead = loop ? 2 : 0, nscan;

	if (!body || body->nin != n->nin || body->nin < n->ncapture + lead)
		return false;
	nscan = loop ? 0 : (uint32_t)node_attr(n, "num_scan_inputs")->i;
	if (body->nin - n->ncapture < lead + nscan || body->nout < (loop ? 1 : 0) + body->nin - n->ncapture - lead - nscan)
		return false;
	for (uint32_t i = lead; i < n->nin; i++)
		if (!n->in[i] || shape_at(x, n->in[i])->rank < 0 || body->value[body->in[i]].type.shape.rank < 0)
			return false;
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i] && shape_at(x, n->out[i])->rank < 0)
			return false;
	for (uint32_t i = 0; i < body->nout; i++)
		if (body->value[body->out[i]].type.shape.rank < 0)
			return false;
	return true;
}

static enum linnet_code read_node(struct reading *x, const struct node *n, struct linnet_error *e)
{
	bool varies = false, any = false;

	for (uint32_t k = 0; k < n->nout; k++)
		varies = varies || (n->out[k] && !x->fixed[n->out[k]]);
	if (!varies)
		return LINNET_OK;
	TRY_NEW(x->mine, x->a, n->nin);
	if (has_body(x, n))
		TRY(body_of(x, n, e));
	else
		judge(x, n);
	for (uint32_t i = 0; i < n->nin; i++)
		for (int k = 0; k < MAX_RANK; k++)
			any = any || x->mine[i][k];
	if (any)
		x->w->fixed[n - x->g->node] = x->mine;
	x->mine = NULL;
	return LINNET_OK;
}

enum linnet_code narrow_read(const struct graph *g, const node_id *order, uint32_t norder, const value_id *given, int ngiven, const bool *fixed,
                             const struct tensor *const *known, struct arena *a, struct narrowing **out, struct linnet_error *e)
{
	struct reading x = { .g = g, .fixed = fixed, .known = known, .a = a };
	struct narrow_labels *labels;
	int nth = 0;

	TRY_NEW(labels, a, 1);
	labels->n = 1; /* 0: none */
	TRY(narrowing_new(g, labels, a, &x.w, e));
	*out = x.w;
	for (int i = 0; i < ngiven; i++)
		for (int k = 0; k < shape_at(&x, given[i])->rank; k++)
			put(&x, given[i], k, fresh(x.w, length_at(&x, given[i], k)));
	for (uint32_t i = 0; i < norder; i++)
		TRY(read_node(&x, &g->node[order[i]], e));
	tell_all_twins(x.w);
	for (int l = 1; l < labels->n; l++) {
		struct narrow_label *own = &labels->of[l];

		if (find(x.w, (uint8_t)l) == l && !own->part[0] && !own->mixed && own->whole > SHORT + 1)
			own->cut = SHORT + nth++ % 2;
	}
	return LINNET_OK;
}

int64_t narrow_whole(const struct narrowing *w, value_id v, int k)
{
	return narrow_cut(w, v, k) ? whole(w, w->axis[v][k]) : 0;
}

static int64_t cut_of(const struct narrowing *w, uint8_t l) { return l && cut(w, l) != whole(w, l) ? cut(w, l) : 0; }

int64_t narrow_cut(const struct narrowing *w, value_id v, int k) { return w ? cut_of(w, w->axis[v][k]) : 0; }

int64_t narrow_fixed(const struct narrowing *w, node_id id, uint32_t i, int k) { return w && w->fixed[id] ? cut_of(w, w->fixed[id][i][k]) : 0; }

static bool apart(const struct narrowing *w, uint8_t l)
{
	const struct narrow_label *x = &w->labels->of[find(w, l)];

	return x->part[0] ? apart(w, x->part[0]) && apart(w, x->part[1]) : l && !x->mixed;
}

uint8_t narrow_axis(const struct narrowing *w, value_id v, int k) { return apart(w, w->axis[v][k]) ? find(w, w->axis[v][k]) : 0; }
