/* Values at chosen lengths and places. */
#include "graph/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/recognise.h"
#include "ops/base/idmap.h"
#include "ops/base/rng.h"
#include "ops/kernel.h"

enum {
	TRIALS = 5,          /* small lengths, and draws */
	SHORTEST = 3,        /* of those, the one where lengths are 1 */
	MAX_NODES = 4096, MAX_SYMBOLS = 6, MAX_BOUNDS = 12,
	MAX_DRAWN = 256,     /* nodes behind data of inputs that are run at long lengths */
	MAX_PLACES = 1 << 14,
	FEW = 48,            /* rows up to this are all computed */
	MANY = 512,          /* columns up to this */
	FIRM = 4,            /* constants below this show at small lengths */
};
static const int64_t max_eval = 1 << 22;  /* elements of one value */
static const int64_t max_work = 1 << 22;  /* of all values of a trial that are computed */
static const double max_bound = 1 << 24;  /* lengths beyond are no one's */

/* Places along an axis; NULL stands for all. */
struct pick {
	int64_t n;
	const int64_t *at;
	const struct pick *next; /* of all there are */
};

/* A value at those places of its axes; t is NULL where it could not be computed. */
struct part {
	const struct pick *axis[MAX_RANK];
	const struct tensor *t;
	struct part *next;
};

struct eval {
	const struct graph *g;
	struct arena *a;
	struct idmap done; /* by value: the list of its parts */
	const struct pick *picks;
	struct places *places; /* of rows and columns, while they are chosen */
	int trial;
	int64_t length;     /* of long symbols; 0: small ones */
	int64_t work, nodes;
	bool draw, drew, costly;
	bool equal;         /* lengths under names of their own are the same: sums of them broadcast */
	dim only;           /* then, when not 0: that one, for something is as long whatever the inputs are */
	bool some;          /* lengths at which v cannot be computed are left out */
	dim scale;          /* of small long lengths: models with strided convolutions in front take no short ones */
	bool projects;      /* what is projected is drawn too */
	bool channels;      /* and differs along its channels alone, as inputs do */
	const char *symbol[MAX_SYMBOLS]; /* met so far */
	int nsymbol;
	const char *sum, *of[2];         /* symbol `sum` is the sum of those two; NULL: none is */
	const char *longs[MAX_SYMBOLS], *shorts[MAX_SYMBOLS], *given[4 * MAX_SYMBOLS]; /* of v's last two axes; of those before; of graph inputs */
	int nlong, nshort, ngiven;
	bool all_long;      /* every symbol is long that is not short */
	dim last;           /* v's last length */
	struct given known;  
	int64_t first;      /* place of v's first row among its columns */
	struct linnet_error *e;
};

static bool named(const char *const *list, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

/* ---- Lengths ---- */

static dim own_length(const struct eval *ev, const char *name)
{
	static const dim base[TRIALS] = { 5, 7, 4, 1, 9 };
	bool isshort = named(ev->shorts, ev->nshort, name), islong = named(ev->longs, ev->nlong, name) || (ev->all_long && !isshort);
	unsigned h = 0;

	for (const char *s = name; *s; s++)
		h = ev->equal ? 0 : h * 31 + (unsigned char)*s;
	if (ev->only)
		return ev->only;
	if (ev->length)
		return islong ? ev->length + (ev->nlong > 1 ? (dim)(h % 3) : 0) : 2;
	return base[ev->trial] * (islong && ev->scale ? ev->scale : 1) + (ev->trial == SHORTEST ? 0 : (dim)(h % 3));
}

/* The length a symbol stands for: different between symbols where chance has it so. */
static dim symbol_length(void *ctx, const char *name)
{
	struct eval *ev = ctx;

	if (!named(ev->symbol, ev->nsymbol, name) && ev->nsymbol < MAX_SYMBOLS)
		ev->symbol[ev->nsymbol++] = name;
	if (ev->sum && !strcmp(name, ev->sum))
		return own_length(ev, ev->of[0]) + own_length(ev, ev->of[1]);
	return own_length(ev, name);
}

static bool concrete(struct eval *ev, const struct shape *s, int64_t *d)
{
	if (s->rank < 0)
		return false;
	for (int i = 0; i < s->rank; i++) {
		d[i] = dim_eval(ev->g->dims, s->d[i], symbol_length, ev);
		if (!dim_is_int(d[i]) || d[i] < 0)
			return false;
	}
	return true;
}

struct names {
	const char **list;
	int n, max;
	bool full;
};

static void add_name(void *ctx, const char *name)
{
	struct names *s = ctx;

	if (named(s->list, s->n, name))
		return;
	if (s->n == s->max)
		s->full = true;
	else
		s->list[s->n++] = name;
}

static void add_names(const struct graph *g, const struct shape *s, int from, int to, struct names *out)
{
	for (int i = from < 0 ? 0 : from; i < to; i++)
		if (dim_is_expr(s->d[i]))
			dim_symbols(g->dims, s->d[i], add_name, out);
}

/* The true lengths of v: all its symbols are lengths of graph inputs. */
static bool lengths(struct eval *ev, value_id v, int64_t *d)
{
	const struct shape *s = &ev->g->value[v].type.shape;
	const char *list[MAX_SYMBOLS];
	struct names used = { list, 0, MAX_SYMBOLS, false };

	if (!concrete(ev, s, d))
		return false;
	add_names(ev->g, s, 0, s->rank, &used);
	for (int i = 0; i < used.n; i++)
		if (!named(ev->given, ev->ngiven, list[i]))
			return false;
	return !used.full;
}

/* ---- Places ---- */

static enum linnet_code pick_of(struct eval *ev, const int64_t *at, int64_t n, const struct pick **out)
{
	struct linnet_error *e = ev->e;
	struct pick *p;
	int64_t *copy;

	for (*out = ev->picks; *out; *out = (*out)->next)
		if ((*out)->n == n && !memcmp((*out)->at, at, (size_t)n * sizeof *at))
			return LINNET_OK;
	TRY_NEW(p, ev->a, 1);
	TRY_NEW(copy, ev->a, (size_t)n + 1);
	memcpy(copy, at, (size_t)n * sizeof *at);
	*p = (struct pick){ n, copy, ev->picks };
	ev->picks = *out = p;
	return LINNET_OK;
}

static bool picked(const struct pick *const *axis, int rank)
{
	for (int i = 0; i < rank; i++)
		if (axis[i])
			return true;
	return false;
}

/* Lengths with some axes picked. */
static void picked_lengths(const struct pick *const *axis, int rank, const int64_t *d, int64_t *out)
{
	for (int i = 0; i < rank; i++)
		out[i] = axis[i] ? axis[i]->n : d[i];
}

/* t at places; NULL where it has no such places. */
static enum linnet_code gather(struct eval *ev, const struct tensor *t, const struct pick *const *axis, const struct tensor **out)
{
	int64_t d[MAX_RANK], at[MAX_RANK] = { 0 }, stride[MAX_RANK];
	struct linnet_error *e = ev->e;
	struct tensor *x;

	*out = NULL;
	if (!picked(axis, t->rank)) {
		*out = t;
		return LINNET_OK;
	}
	for (int i = 0; i < t->rank; i++)
		for (int64_t k = 0; axis[i] && k < axis[i]->n; k++)
			if (axis[i]->at[k] >= t->d[i])
				return LINNET_OK;
	picked_lengths(axis, t->rank, t->d, d);
	strides(t->rank, t->d, stride);
	TRY(tensor_new(ev->a, t->dt, t->rank, d, &x, e));
	for (int64_t to = 0; to < x->n; to++) {
		int64_t from = 0;

		for (int i = 0; i < t->rank; i++)
			from += stride[i] * (axis[i] ? axis[i]->at[at[i]] : at[i]);
		element_copy(x, to, t, from);
		next_position(t->rank, d, at);
	}
	*out = x;
	return LINNET_OK;
}

/* ---- Values ---- */

static const struct pick *const everywhere[MAX_RANK] = { NULL };

static enum linnet_code eval_at(struct eval *ev, value_id v, const struct pick *const *axis, const struct tensor **out);

static enum linnet_code eval_whole(struct eval *ev, value_id v, const struct tensor **out)
{
	return eval_at(ev, v, everywhere, out);
}

static enum linnet_code keep(struct eval *ev, value_id v, const struct pick *const *axis, const struct tensor *t)
{
	struct linnet_error *e = ev->e;
	struct part *p;

	TRY_NEW(p, ev->a, 1);
	memcpy(p->axis, axis, sizeof p->axis);
	p->t = t;
	p->next = idmap_get(&ev->done, v);
	return idmap_put(&ev->done, v, p) ? fail_mem(e) : LINNET_OK;
}

/*
 * How many numbers from 0 on integers are drawn from. One, or a list of them that has none for each key, are lengths rather than marks; those of a list
 * reach as far as the keys.
 */
static uint64_t variety(struct eval *ev, const struct type *t)
{
	enum { MARKS = 2, COUNTS = 6 };
	dim keys;

	if (!dtype_in(t->dt, INTS) || t->shape.rank > 1 || (t->shape.rank == 1 && t->shape.d[0] == ev->last))
		return MARKS;
	keys = t->shape.rank && ev->last != DIM_NONE ? dim_eval(ev->g->dims, ev->last, symbol_length, ev) : 0;
	return dim_is_int(keys) && keys + 1 > COUNTS ? (uint64_t)keys + 1 : COUNTS;
}

static bool is_among(const value_id *list, int n, value_id v)
{
	for (int i = 0; i < n; i++)
		if (list[i] == v)
			return true;
	return false;
}

static bool affordable(struct eval *ev, int64_t elements)
{
	ev->work += elements;
	ev->costly = ev->costly || elements > max_eval || ev->work > max_work;
	return !ev->costly;
}

static int64_t count_of(int rank, const int64_t *d)
{
	int64_t n = 1;

	for (int i = 0; i < rank; i++)
		n = d[i] && n > max_eval / d[i] ? max_eval + 1 : n * d[i];
	return n;
}

/* Labels of a projection's Einsum that its weight has, as axes of the result counted from the end of its term, bits of a result of that rank. */
static unsigned einsum_channels(const struct graph *g, const struct node *n, int rank)
{
	struct text t = node_attr(n, "equation")->s;
	const char *comma = t.n ? memchr(t.p, ',', t.n) : NULL, *end = t.p + t.n, *arrow = comma, *from, *to;
	unsigned along = 0;

	while (arrow && arrow < end && *arrow != '-')
		arrow++;
	if (!arrow || arrow == end)
		return 0;
	from = value_is_weight(g, n->in[1]) ? comma : t.p;
	to = from == comma ? arrow : comma;
	for (const char *s = end - 1; s > arrow + 1 && *s != '.' && rank > 0; s--)
		if (*s != ' ')
			along |= memchr(from, *s, (size_t)(to - from)) ? 1u << --rank : (--rank, 0u);
	return along;
}

/* The axes along which the channels of a projection lie; of an input that heads may have been laid out in, those of known length, or all but the first. Bits. */
static unsigned channel_axes(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);
	int rank = g->value[v].type.shape.rank;
	const struct shape *w = n && n->nin > 1 ? &g->value[n->in[1]].type.shape : NULL;
	unsigned along = rank > 0 ? 1u << (rank - 1) : 0;

	if (!n && rank > 3) {
		bool all = true;

		for (int i = rank - 2; i >= 0; i--) {
			all = all && dim_is_int(g->value[v].type.shape.d[i]);
			along |= dim_is_int(g->value[v].type.shape.d[i]) ? 1u << i : 0;
		}
		if (along & (along - 1) & ~1u) /* the first is the batch's where another may be that of heads */
			along &= ~1u;
		return all || !(along & (along - 1)) ? ~1u : along;
	}
	if (!n)
		return along;
	if (strstr(n->op->name, "Conv"))
		return 2;
	if (node_is(n, "Einsum"))
		return einsum_channels(g, n, rank);
	if (!node_is(n, "MatMul"))
		return along;
	if (!value_is_weight(g, n->in[1])) {
		w = &g->value[n->in[0]].type.shape;
		along = rank > 1 ? 1u << (rank - 2) : along;
	}
	for (int i = 3; i <= w->rank && i <= rank; i++)
		along |= w->d[w->rank - i] != 1 ? 1u << (rank - i) : 0;
	return along;
}

/* A graph input's data: places, ones, or seeded 0 and 1 (integers, bool; counts go further) or [0, 1) (floats), the same at a place whichever are picked. */
static enum linnet_code draw_input(struct eval *ev, value_id v, const struct pick *const *axis, const struct tensor **out)
{
	const struct type *t = &ev->g->value[v].type;
	int64_t d[MAX_RANK], some[MAX_RANK], at[MAX_RANK] = { 0 }, stride[MAX_RANK];
	uint64_t some_of = variety(ev, t);
	bool positions = is_among(ev->known.position, ev->known.nposition, v), real = dtype_class(t->dt) == CLASS_FLOAT;
	bool ones = !ev->trial || ev->known.nposition || is_among(ev->known.content, ev->known.ncontent, v) || (ev->channels && !real && ev->g->value[v].kind == VALUE_INPUT);
	unsigned along = ev->channels ? channel_axes(ev->g, v) : ~0u;
	struct tensor *x;

	*out = NULL;
	if (!ev->draw || t->kind != KIND_TENSOR || !dtype_in(t->dt, NUMBERS | SET(BOOL)) || !concrete(ev, &t->shape, d))
		return LINNET_OK;
	ev->drew = true;
	picked_lengths(axis, t->shape.rank, d, some);
	if (!affordable(ev, count_of(t->shape.rank, some)))
		return LINNET_OK;
	strides(t->shape.rank, d, stride);
	TRY(tensor_new(ev->a, t->dt, t->shape.rank, some, &x, ev->e));
	for (int64_t i = 0; i < x->n; i++) {
		int64_t from = 0;
		struct rng r;

		for (int k = 0; k < x->rank; k++)
			from += along >> k & 1 ? stride[k] * (axis[k] ? axis[k]->at[at[k]] : at[k]) : 0;
		r = (struct rng){ ((uint64_t)v * 977 + (uint64_t)ev->trial) << 24 ^ (uint64_t)from };
		if (positions)
			tensor_put_int(x, i, from % d[x->rank - 1] + (t->shape.d[x->rank - 1] == ev->last ? 0 : ev->first));
		else
			tensor_put(x, i, ones ? 1 : real ? rng_unit(&r) : (double)rng_below(&r, ev->channels ? 64 : some_of));
		next_position(x->rank, some, at);
	}
	*out = x;
	return LINNET_OK;
}

/* A value's lengths without data, for what reads only those. */
static enum linnet_code header(struct eval *ev, value_id v, const struct tensor **out)
{
	const struct type *t = &ev->g->value[v].type;
	struct linnet_error *e = ev->e;
	int64_t d[MAX_RANK];
	struct tensor *x;

	*out = NULL;
	if (t->dt == DT_UNDEFINED || !concrete(ev, &t->shape, d))
		return LINNET_OK;
	TRY_NEW(x, ev->a, 1);
	x->dt = t->dt;
	x->rank = t->shape.rank;
	memcpy(x->d, d, sizeof d);
	if (!tensor_size(x->dt, x->rank, x->d, 0, &x->n, &x->bytes, NULL))
		*out = x;
	return LINNET_OK;
}

/* How many products an element of n's output may take. */
static int64_t depth_of(const struct node *n, const struct tensor *x)
{
	bool sums = node_is(n, "MatMul") || node_is(n, "Gemm") || node_is(n, "Einsum") || node_is(n, "Conv");

	return sums && x && x->rank ? x->d[x->rank - 1] : 1;
}

/* Run n for these inputs. result: n->nout of them, all NULL where that fails. */
static enum linnet_code run(struct eval *ev, const struct node *n, const struct tensor *const *in, uint32_t nin, struct tensor **result)
{
	struct linnet_error *e = ev->e, quiet = { 0 };
	enum linnet_code code;
	bool *wanted;

	TRY_NEW(wanted, ev->a, n->nout);
	for (uint32_t i = 0; i < n->nout; i++)
		wanted[i] = n->out[i] != 0;
	code = op_eval(n->op, n->attr, (int)nin, in, (int)n->nout, wanted, ev->a, result, &quiet);
	if (code)
		memset(result, 0, n->nout * sizeof(struct tensor *));
	return code == LINNET_EMEM ? fail_mem(e) : LINNET_OK;
}

static bool computes(const struct node *n)
{
	return n->known && n->op->kernel && !(n->op->flags & OP_CONTROL) && n->op->agree != AGREE_RANDOM;
}

/* All outputs of a node, whole. */
static enum linnet_code eval_node(struct eval *ev, const struct node *n)
{
	struct linnet_error *e = ev->e;
	const struct tensor **in;
	struct tensor **result;

	TRY_NEW(in, ev->a, n->nin);
	TRY_NEW(result, ev->a, n->nout);
	if (!computes(n) || ++ev->nodes > MAX_NODES)
		return LINNET_OK;
	for (uint32_t i = 0; i < n->nin; i++) {
		if (!n->in[i])
			continue;
		TRY(n->op->flags & OP_SHAPE_ONLY ? header(ev, n->in[i], &in[i]) : eval_whole(ev, n->in[i], &in[i]));
		if (!in[i])
			return LINNET_OK;
	}
	for (uint32_t i = 0; i < n->nout; i++) {
		const struct shape *s = &ev->g->value[n->out[i]].type.shape;
		int64_t d[MAX_RANK];

		if (n->out[i] && concrete(ev, s, d) && !affordable(ev, count_of(s->rank, d) * depth_of(n, in[0])))
			return LINNET_OK;
	}
	TRY(run(ev, n, in, n->nin, result));
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i])
			TRY(keep(ev, n->out[i], everywhere, result[i]));
	return LINNET_OK;
}

/* ---- Nodes at some places: each of these sets *t, or leaves it NULL, to compute the node whole ---- */

struct spot {
	const struct node *n;
	const struct pick *const *axis; /* of the output */
	int rank;
	int64_t d[MAX_RANK], some[MAX_RANK]; /* the output's lengths; those of its places */
};

static int64_t place(const struct spot *s, int axis, int64_t i) { return s->axis[axis] ? s->axis[axis]->at[i] : i; }

/* The picks of an operand that broadcasts to the output. */
static bool broadcast_picks(struct eval *ev, const struct spot *s, value_id v, const struct pick **axis)
{
	int rank = ev->g->value[v].type.shape.rank;
	int64_t d[MAX_RANK];

	if (rank > s->rank || !lengths(ev, v, d))
		return false;
	for (int i = 0; i < rank; i++) {
		int to = i + s->rank - rank;

		axis[i] = d[i] == 1 && s->d[to] != 1 ? NULL : s->axis[to];
		if (axis[i] && d[i] != s->d[to])
			return false;
	}
	return true;
}

static enum linnet_code run_one(struct eval *ev, const struct spot *s, const struct tensor *const *in, uint32_t nin, const struct tensor **t)
{
	struct tensor *result = NULL;

	if (!affordable(ev, count_of(s->rank, s->some)))
		return LINNET_OK;
	TRY(run(ev, s->n, in, nin, &result));
	*t = result;
	return LINNET_OK;
}

static enum linnet_code at_each(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	struct linnet_error *e = ev->e;
	const struct node *n = s->n;
	const struct tensor **in;

	TRY_NEW(in, ev->a, n->nin);
	for (uint32_t i = 0; i < n->nin; i++) {
		const struct pick *axis[MAX_RANK] = { NULL };

		if (!n->in[i])
			continue;
		if (!broadcast_picks(ev, s, n->in[i], axis))
			return LINNET_OK;
		TRY(eval_at(ev, n->in[i], axis, &in[i]));
		if (!in[i])
			return LINNET_OK;
	}
	return run_one(ev, s, in, n->nin, t);
}

/* Expand and ConstantOfShape, whose last input is the output's shape. */
static enum linnet_code at_shaped(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	const struct pick *axis[MAX_RANK] = { NULL };
	const struct tensor *in[2] = { NULL };
	int64_t rank = s->rank;
	uint32_t last = s->n->nin - 1;
	struct tensor *shape;

	if (last && (!broadcast_picks(ev, s, s->n->in[0], axis)))
		return LINNET_OK;
	if (last)
		TRY(eval_at(ev, s->n->in[0], axis, &in[0]));
	if (last && !in[0])
		return LINNET_OK;
	TRY(tensor_new(ev->a, DT_INT64, 1, &rank, &shape, ev->e));
	for (int i = 0; i < s->rank; i++)
		tensor_put_int(shape, i, s->some[i]);
	in[last] = shape;
	return run_one(ev, s, in, last + 1, t);
}

/* The input's data under other lengths: picked axes must be axes of the input. */
static enum linnet_code at_view(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	const struct pick *axis[MAX_RANK] = { NULL };
	struct linnet_error *e = ev->e;
	const struct tensor *x;
	int64_t d[MAX_RANK], before = 1;
	int rank = ev->g->value[s->n->in[0]].type.shape.rank;
	struct tensor *y;

	if (!lengths(ev, s->n->in[0], d))
		return LINNET_OK;
	for (int i = 0; i < s->rank; before *= s->d[i++]) {
		int64_t same = 1;
		int k = 0;

		if (!s->axis[i])
			continue;
		while (k < rank && !(same == before && d[k] == s->d[i]))
			same *= d[k++];
		if (k == rank)
			return LINNET_OK;
		axis[k] = s->axis[i];
	}
	TRY(eval_at(ev, s->n->in[0], axis, &x));
	if (!x || x->n != count_of(s->rank, s->some))
		return LINNET_OK;
	TRY_NEW(y, ev->a, 1);
	*y = *x;
	y->rank = s->rank;
	memcpy(y->d, s->some, sizeof y->d);
	*t = y;
	return LINNET_OK;
}

static enum linnet_code at_transpose(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	const struct attr *perm = node_attr(s->n, "perm");
	const struct pick *axis[MAX_RANK] = { NULL };
	const struct tensor *x;

	if (ev->g->value[s->n->in[0]].type.shape.rank != s->rank)
		return LINNET_OK;
	for (int i = 0; i < s->rank; i++)
		axis[perm->kind == ATTR_INTS && perm->n == (size_t)s->rank ? perm->ints[i] : s->rank - 1 - i] = s->axis[i];
	TRY(eval_at(ev, s->n->in[0], axis, &x));
	return x ? run_one(ev, s, &x, 1, t) : LINNET_OK;
}

/* start, start + step, ... as Slice counts: how many. */
static int64_t slice_count(int64_t d, int64_t *start, int64_t end, int64_t step)
{
	int64_t lo = step > 0 ? 0 : -1, hi = step > 0 ? d : d - 1;

	*start = *start < 0 ? (*start < -d ? -1 : *start + d) : *start;
	*start = *start < 0 ? 0 : *start > hi ? hi : *start;
	end = end < 0 ? (end < -d ? lo : end + d) : end;
	end = end < lo ? lo : end > hi ? hi : end;
	if (step > 0 ? end <= *start : end >= *start)
		return 0;
	return step > 0 ? (end - *start - 1) / step + 1 : (*start - end - 1) / -step + 1;
}

static enum linnet_code at_slice(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	const struct tensor *arg[5] = { NULL };
	const struct pick *axis[MAX_RANK] = { NULL };
	struct linnet_error *e = ev->e;
	int64_t d[MAX_RANK];

	if (s->n->nin < 3 || !lengths(ev, s->n->in[0], d))
		return LINNET_OK;
	for (uint32_t i = 1; i < s->n->nin && i < 5; i++)
		if (s->n->in[i]) {
			TRY(eval_whole(ev, s->n->in[i], &arg[i]));
			if (!arg[i])
				return LINNET_OK;
		}
	memcpy(axis, s->axis, sizeof axis);
	for (int64_t k = 0; k < arg[1]->n; k++) {
		int64_t a = arg[3] ? tensor_get_int(arg[3], k) : k, step = arg[4] ? tensor_get_int(arg[4], k) : 1, start = tensor_get_int(arg[1], k), count;
		int64_t *at;

		a = a < 0 ? a + s->rank : a;
		if (a < 0 || a >= s->rank || !step || step == INT64_MIN)
			return LINNET_OK;
		count = slice_count(d[a], &start, tensor_get_int(arg[2], k), step);
		if (count != s->d[a])
			return LINNET_OK;
		if (!s->axis[a] && !start && step == 1 && count == d[a])
			continue;
		TRY_NEW(at, ev->a, (size_t)s->some[a] + 1);
		for (int64_t i = 0; i < s->some[a]; i++)
			at[i] = start + place(s, (int)a, i) * step;
		TRY(pick_of(ev, at, s->some[a], &axis[a]));
	}
	return eval_at(ev, s->n->in[0], axis, t);
}

/* By one list of places, or by an array of them where the data is whole along that axis. */
static enum linnet_code at_gather(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	const struct pick *axis[MAX_RANK] = { NULL }, *of[MAX_RANK] = { NULL };
	struct linnet_error *e = ev->e;
	const struct tensor *in[2];
	int rank = ev->g->value[s->n->in[0]].type.shape.rank, q = ev->g->value[s->n->in[1]].type.shape.rank, a = (int)node_attr(s->n, "axis")->i;
	int64_t d[MAX_RANK];
	struct tensor *y;

	a = a < 0 ? a + rank : a;
	if (q < 0 || a < 0 || a >= rank || rank - 1 + q != s->rank || !lengths(ev, s->n->in[0], d))
		return LINNET_OK;
	for (int i = 0; i < s->rank; i++)
		*(i < a ? &axis[i] : i < a + q ? &of[i - a] : &axis[i - q + 1]) = s->axis[i];
	TRY(eval_at(ev, s->n->in[1], of, &in[1]));
	if (!in[1])
		return LINNET_OK;
	if (q <= 1) {
		int64_t *at;

		TRY_NEW(at, ev->a, (size_t)in[1]->n + 1);
		for (int64_t i = 0; i < in[1]->n; i++) {
			at[i] = tensor_get_int(in[1], i);
			at[i] += at[i] < 0 ? d[a] : 0;
			if (at[i] < 0 || at[i] >= d[a])
				return LINNET_OK;
		}
		TRY(pick_of(ev, at, in[1]->n, &axis[a]));
	}
	TRY(eval_at(ev, s->n->in[0], axis, &in[0]));
	if (!in[0])
		return LINNET_OK;
	if (q > 1)
		return run_one(ev, s, in, 2, t);
	TRY_NEW(y, ev->a, 1);
	*y = *in[0];
	y->rank = s->rank;
	memcpy(y->d, s->some, sizeof y->d);
	*t = y;
	return LINNET_OK;
}

static enum linnet_code at_range(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	const struct tensor *start, *step;
	struct tensor *y;

	TRY(eval_whole(ev, s->n->in[0], &start));
	TRY(eval_whole(ev, s->n->in[2], &step));
	if (!start || !step || !affordable(ev, s->some[0]))
		return LINNET_OK;
	TRY(tensor_new(ev->a, start->dt, 1, s->some, &y, ev->e));
	for (int64_t i = 0; i < y->n; i++)
		if (dtype_in(y->dt, INTS))
			tensor_put_int(y, i, tensor_get_int(start, 0) + place(s, 0, i) * tensor_get_int(step, 0));
		else
			tensor_put(y, i, tensor_get(start, 0) + (double)place(s, 0, i) * tensor_get(step, 0));
	*t = y;
	return LINNET_OK;
}

/* Trilu, and EyeLike: what a place has depends on how far it is from the diagonal. */
static enum linnet_code at_diagonal(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	bool eye = node_is(s->n, "EyeLike");
	const struct tensor *x = NULL, *k = NULL;
	int64_t from = eye ? node_attr(s->n, "k")->i : 0, per, cols;
	struct tensor *y;

	if (!eye && s->n->nin > 1 && s->n->in[1]) {
		TRY(eval_whole(ev, s->n->in[1], &k));
		if (!k)
			return LINNET_OK;
		from = tensor_get_int(k, 0);
	}
	if (!eye)
		TRY(eval_at(ev, s->n->in[0], s->axis, &x));
	if ((!eye && !x) || s->rank < 2 || !affordable(ev, count_of(s->rank, s->some)))
		return LINNET_OK;
	TRY(tensor_new(ev->a, ev->g->value[s->n->out[0]].type.dt, s->rank, s->some, &y, ev->e));
	cols = s->some[s->rank - 1];
	per = s->some[s->rank - 2] * cols;
	for (int64_t i = 0; i < y->n; i++) {
		int64_t off = place(s, s->rank - 1, i % cols) - place(s, s->rank - 2, i % per / cols);

		if (eye && off == from)
			tensor_put(y, i, 1);
		else if (!eye && (node_attr(s->n, "upper")->i ? off >= from : off <= from))
			element_copy(y, i, x, i);
	}
	*t = y;
	return LINNET_OK;
}

static enum linnet_code at_concat(struct eval *ev, const struct spot *s, const struct tensor **t)
{
	const struct pick *axis[MAX_RANK] = { NULL };
	struct linnet_error *e = ev->e;
	const struct tensor **in;
	int64_t a = node_attr(s->n, "axis")->i, from = 0, *at;

	a = a < 0 ? a + s->rank : a;
	if (a < 0 || a >= s->rank)
		return LINNET_OK;
	memcpy(axis, s->axis, sizeof axis);
	TRY_NEW(in, ev->a, s->n->nin);
	TRY_NEW(at, ev->a, (size_t)s->some[a] + 1);
	for (uint32_t i = 0; i < s->n->nin; i++) {
		int64_t d[MAX_RANK], n = 0;

		if (!lengths(ev, s->n->in[i], d))
			return LINNET_OK;
		for (int64_t k = 0; s->axis[a] && k < s->some[a]; k++)
			if (place(s, (int)a, k) >= from && place(s, (int)a, k) < from + d[a])
				at[n++] = place(s, (int)a, k) - from;
		if (s->axis[a])
			TRY(pick_of(ev, at, n, &axis[a]));
		TRY(eval_at(ev, s->n->in[i], axis, &in[i]));
		if (!in[i])
			return LINNET_OK;
		from += d[a];
	}
	return run_one(ev, s, in, s->n->nin, t);
}

static enum linnet_code eval_spot(struct eval *ev, const struct node *n, const struct pick *const *axis, const struct tensor **t)
{
	static const struct {
		const char *name;
		enum linnet_code (*at)(struct eval *ev, const struct spot *s, const struct tensor **t);
	} known[] = { { "Expand", at_shaped }, { "ConstantOfShape", at_shaped }, { "Transpose", at_transpose }, { "Slice", at_slice }, { "Gather", at_gather },
		      { "Range", at_range }, { "Trilu", at_diagonal }, { "EyeLike", at_diagonal }, { "Concat", at_concat } };
	struct spot s = { .n = n, .axis = axis, .rank = ev->g->value[n->out[0]].type.shape.rank };

	*t = NULL;
	if (!computes(n) || n->nout != 1 || !lengths(ev, n->out[0], s.d))
		return LINNET_OK;
	if (++ev->nodes > MAX_NODES) {
		ev->costly = true;
		return LINNET_OK;
	}
	picked_lengths(axis, s.rank, s.d, s.some);
	if (n->op->flags & OP_EACH)
		return at_each(ev, &s, t);
	if (n->op->flags & OP_VIEW)
		return at_view(ev, &s, t);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (node_is(n, known[i].name))
			return known[i].at(ev, &s, t);
	return LINNET_OK;
}

static bool moves(const struct node *n)
{
	static const char *const names[] = { "Transpose", "Gather", "Concat", "Expand", "Tile", "Slice", "Split", "RotaryEmbedding", NULL };

	return node_among(n, names);
}

/* v is projected, and from there on laid out and changed number by number. */
static bool is_projected(const struct graph *g, value_id v)
{
	for (int steps = 0; steps < 16; steps++) {
		const struct node *n = value_node(g, v);

		if (n && is_projection(g, n))
			return true;
		if (!n || !(n->op->flags & (OP_EACH | OP_VIEW) || moves(n)))
			return false;
		v = n->in[n->nin > 1 && value_is_weight(g, n->in[0])];
	}
	return false;
}

/* A product of heads, laid out already, with one square matrix: it mixes what lies within a head (a rotation). */
static bool turns_heads(const struct graph *g, const struct node *n)
{
	const struct shape *w = node_is(n, "MatMul") ? &g->value[n->in[1]].type.shape : NULL;

	return w && w->rank == 2 && w->d[0] == w->d[1] && g->value[n->out[0]].type.shape.rank >= 4 && is_projected(g, n->in[0]);
}

/* v is projected: for what becomes of it, it is as good as data. */
static bool is_source(const struct eval *ev, value_id v)
{
	const struct node *n = value_node(ev->g, v);

	return n && ev->projects && (node_is(n, "DynamicQuantizeLinear") || (is_projection(ev->g, n) && !turns_heads(ev->g, n) && !is_depthwise(ev->g, n)));
}

static enum linnet_code eval_at(struct eval *ev, value_id v, const struct pick *const *axis, const struct tensor **out)
{
	const struct value *val = &ev->g->value[v];
	bool some = picked(axis, val->type.shape.rank < 0 ? 0 : val->type.shape.rank);

	*out = NULL;
	for (const struct part *p = idmap_get(&ev->done, v); p; p = p->next)
		if (!memcmp(p->axis, axis, sizeof p->axis)) {
			*out = p->t;
			return LINNET_OK;
		}
	if (val->type.value) {
		TRY(gather(ev, val->type.value, axis, out));
	} else if (val->kind == VALUE_INPUT || is_source(ev, v) || is_among(ev->known.content, ev->known.ncontent, v)) {
		TRY(draw_input(ev, v, axis, out));
	} else if (val->kind == VALUE_NODE && val->producer && !some) {
		TRY(eval_node(ev, &ev->g->node[val->producer]));
		for (const struct part *p = idmap_get(&ev->done, v); p; p = p->next)
			if (!memcmp(p->axis, axis, sizeof p->axis))
				*out = p->t;
	} else if (val->kind == VALUE_NODE && val->producer) {
		TRY(eval_spot(ev, &ev->g->node[val->producer], axis, out));
		if (!*out && !ev->costly) {
			TRY(eval_whole(ev, v, out));
			if (*out)
				TRY(gather(ev, *out, axis, out));
		}
	}
	return keep(ev, v, axis, *out);
}

/* ---- Which lengths ---- */

/* What v is computed from: numbers that may bound something, and arrays. */
struct bounds {
	int64_t c[MAX_BOUNDS]; /* ascending */
	int n;
	int64_t size[4]; /* lengths of arrays: they are as long as the axis may be */
	int nsize;
	bool many;       /* more than fit */
	bool columns;    /* an array tells columns apart: all count */
	bool rows;       /* and one tells rows apart by more than their distance from the diagonal */
};

static void add_bound(struct bounds *b, double x)
{
	int64_t c;
	int i = b->n;

	if (!(fabs(x) >= FIRM && fabs(x) <= max_bound))
		return;
	c = (int64_t)fabs(x);
	for (int k = 0; k < b->n; k++)
		if (b->c[k] == c)
			return;
	if (b->n == MAX_BOUNDS) {
		b->many = true;
		return;
	}
	for (b->n++; i > 0 && b->c[i - 1] > c; i--)
		b->c[i] = b->c[i - 1];
	b->c[i] = c;
}

/* Every row is the one before, or that moved by one column; of a list, every element is as far from the one before. */
static bool is_regular(const struct tensor *t)
{
	int64_t cols = t->rank ? t->d[t->rank - 1] : 1, rows = t->rank > 1 ? t->d[t->rank - 2] : 1;
	size_t size = dtype_bits(t->dt) / 8;
	bool still = true, moved = true;
	const char *p = t->data;

	if (rows == 1 || cols == 1) {
		double step = t->n > 1 ? tensor_get(t, 1) - tensor_get(t, 0) : 0;

		for (int64_t i = 2; i < t->n && still; i++)
			still = tensor_get(t, i) - tensor_get(t, i - 1) == step;
		return still && t->n == rows * cols;
	}
	if (!size)
		return false;
	for (int64_t r = 1; r < t->n / cols && (still || moved); r++) {
		const char *row = p + (size_t)(r * cols) * size, *last = row - (size_t)cols * size;

		if (r % rows == 0)
			continue;
		still = still && !memcmp(row, last, (size_t)cols * size);
		moved = moved && !memcmp(row + size, last, (size_t)(cols - 1) * size);
	}
	return still || moved;
}

static void look_at_const(const struct tensor *t, struct bounds *b)
{
	bool real = dtype_class(t->dt) == CLASS_FLOAT;
	int64_t longest = 0;

	if (!dtype_in(t->dt, NUMBERS | SET(BOOL)))
		return;
	for (int64_t i = 0; t->n <= 2 * MAX_RANK && i < t->n; i++) {
		double x = tensor_get(t, i);

		if (!real || fabs(x) < 1e4) /* larger ones hide */
			add_bound(b, x);
	}
	for (int i = t->rank < 2 ? 0 : t->rank - 2; i < t->rank; i++)
		longest = t->d[i] > longest ? t->d[i] : longest;
	if (longest <= FIRM)
		return;
	for (int i = 0; i < b->nsize; i++)
		if (b->size[i] == longest)
			longest = 0;
	if (longest && b->nsize == 4)
		b->many = true;
	else if (longest)
		b->size[b->nsize++] = longest;
	b->columns = true;
	b->rows = b->rows || !is_regular(t);
}

static void look_at_node(const struct graph *g, const struct node *n, struct bounds *b)
{
	for (uint32_t i = 0; i < n->nattr; i++)
		if (n->attr[i].kind == ATTR_INT && strcmp(n->attr[i].name, "to") != 0 && strcmp(n->attr[i].name, "dtype") != 0)
			add_bound(b, (double)n->attr[i].i);
	if (node_is(n, "BitShift") && value_const(g, n->in[1]) && value_const(g, n->in[1])->n == 1)
		add_bound(b, ldexp(1, (int)(tensor_get_int(value_const(g, n->in[1]), 0) & 31)));
}

/* Put v on the list when it was not there before. */
static enum linnet_code first_met(struct idmap *seen, value_id **list, uint32_t *n, uint32_t *cap, value_id v, struct linnet_error *e)
{
	if (idmap_get(seen, v))
		return LINNET_OK;
	*list = arena_grow(seen->a, *list, *n, 1, cap, sizeof **list);
	if (!*list || idmap_put(seen, v, seen))
		return fail_mem(e);
	(*list)[(*n)++] = v;
	return LINNET_OK;
}

static enum linnet_code find_bounds(const struct graph *g, value_id v, struct arena *a, struct bounds *b, struct linnet_error *e)
{
	struct idmap seen = { .a = a };
	value_id *todo = NULL;
	uint32_t n = 0, have = 0, cap = 0;

	TRY(first_met(&seen, &todo, &have, &cap, v, e));
	while (n < have) {
		const struct value *val = &g->value[todo[n++]];
		const struct node *from = val->kind == VALUE_NODE && val->producer ? &g->node[val->producer] : NULL;

		if (val->type.value)
			look_at_const(val->type.value, b);
		if (val->type.value || !from)
			continue;
		look_at_node(g, from, b);
		for (uint32_t i = 0; i < from->nin && !(from->op->flags & OP_SHAPE_ONLY); i++)
			if (from->in[i])
				TRY(first_met(&seen, &todo, &have, &cap, from->in[i], e));
	}
	return LINNET_OK;
}

/* ---- Which places ---- */

static int by_place(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

struct places {
	int64_t at[MAX_PLACES];
	int64_t n, length;
};

static void add_places(struct places *p, int64_t from, int64_t to)
{
	for (int64_t i = from < 0 ? 0 : from; i <= to && i < p->length && p->n < MAX_PLACES; i++)
		p->at[p->n++] = i;
}

static void sort_places(struct places *p)
{
	int64_t n = 0;

	qsort(p->at, (size_t)p->n, sizeof *p->at, by_place);
	for (int64_t i = 0; i < p->n; i++)
		if (!n || p->at[n - 1] != p->at[i])
			p->at[n++] = p->at[i];
	p->n = n;
}

static enum linnet_code all_places(int64_t n, struct arena *a, const int64_t **out, struct linnet_error *e)
{
	int64_t *at;

	TRY_NEW(at, a, (size_t)n + 1);
	for (int64_t i = 0; i < n; i++)
		at[i] = i;
	*out = at;
	return LINNET_OK;
}

/* All places by name, so that what they are cut from need not be computed whole. */
static enum linnet_code pick_all(struct eval *ev, int64_t n, const struct pick **out)
{
	const int64_t *at;

	TRY(all_places(n, ev->a, &at, ev->e));
	return pick_of(ev, at, n, out);
}

/* Ends, what the bounds tell of, and some at random: row and col are NULL for all. */
static enum linnet_code choose(struct eval *ev, const struct bounds *b, int64_t L, int64_t S, const struct pick **row, const struct pick **col)
{
	struct linnet_error *e = ev->e;
	struct places *r, *c;
	struct rng draw = { (uint64_t)(L * 31 + S) };

	*row = *col = NULL;
	if (L <= FEW && S <= FEW) {
		TRY(pick_all(ev, L, row));
		return pick_all(ev, S, col);
	}
	if (L <= FEW && (S <= MANY || b->columns))
		return LINNET_OK;
	if (!ev->places)
		TRY_NEW(ev->places, ev->a, 2);
	r = ev->places;
	c = r + 1;
	r->n = c->n = 0;
	r->length = L;
	c->length = S;
	add_places(r, 0, L <= FEW ? L : 1);
	add_places(r, L - 2, L);
	add_places(r, L / 2, L / 2);
	for (int k = 0; k < 3 && L > FEW; k++) {
		int64_t x = (int64_t)rng_below(&draw, (uint64_t)L);

		add_places(r, x, x);
	}
	for (int k = 0; k < b->n; k++)
		add_places(r, b->c[k] - 1, b->c[k]);
	sort_places(r);
	if (!b->rows && r->n < L)
		TRY(pick_of(ev, r->at, r->n, row));
	if (S <= MANY || b->columns || b->rows)
		return LINNET_OK;
	add_places(c, 0, 2);
	add_places(c, S - 3, S);
	for (int k = 0; k < 16; k++) {
		int64_t x = (int64_t)rng_below(&draw, (uint64_t)S);

		add_places(c, x, x);
	}
	for (int k = 0; k < b->n; k++)
		add_places(c, b->c[k] - 1, b->c[k]);
	for (int64_t i = 0; i < r->n; i++)
		for (int past = 0; past < (L == S ? 1 : 2); past++) {
			int64_t own = r->at[i] + (past ? S - L : 0);

			add_places(c, own - 1, own + 1);
			for (int k = 0; k < b->n; k++) {
				add_places(c, own - b->c[k] - 1, own - b->c[k] + 1);
				add_places(c, own + b->c[k] - 1, own + b->c[k] + 1);
			}
		}
	sort_places(c);
	return pick_of(ev, c->at, c->n, col);
}

/* ---- Trials ---- */

/* Rows so long are added to scores. */
static bool fits(struct eval *ev, int64_t length)
{
	dim keys = ev->known.keys == DIM_NONE ? DIM_NONE : dim_eval(ev->g->dims, ev->known.keys, symbol_length, ev);

	return length == 1 || !dim_is_int(keys) || keys == length;
}

/* The lengths of one trial: small, or `length` for long symbols. */
static enum linnet_code take(struct eval *ev, value_id v, const struct bounds *b, int trial, int64_t length, struct sample *out)
{
	const struct graph *g = ev->g;
	int rank = g->value[v].type.shape.rank;
	const struct pick *axis[MAX_RANK] = { NULL }, *row = NULL, *col = NULL;
	struct linnet_error *e = ev->e;
	int64_t d[MAX_RANK];
	bool head = false;

	*out = (struct sample){ .ones = !trial || ev->known.nposition };
	ev->trial = trial;
	ev->length = length;
	ev->nodes = ev->work = 0;
	ev->costly = false;
	ev->picks = NULL;
	ev->done = (struct idmap){ .a = ev->a };
	ev->first = rank >= 2 && concrete(ev, &g->value[v].type.shape, d) && d[rank - 1] - ev->known.beyond > d[rank - 2] ? d[rank - 1] - ev->known.beyond - d[rank - 2] : 0;
	if (rank >= 2 && lengths(ev, v, d)) {
		TRY(choose(ev, b, d[rank - 2], d[rank - 1], &row, &col));
		axis[rank - 2] = row;
		axis[rank - 1] = col;
		for (int i = 0; i < rank - 2 && length; i++)
			if (d[i] > 2)
				TRY(pick_of(ev, (int64_t[]){ 0, d[i] - 1 }, 2, &axis[i]));
		head = rank > 2 && axis[rank - 3];
	}
	TRY(eval_at(ev, v, axis, &out->t));
	if (out->t && !out->t->n) /* which says nothing */
		out->t = NULL;
	if (!out->t)
		return LINNET_OK;
	rank = out->t->rank;
	out->L = row ? d[rank - 2] : rank > 1 ? out->t->d[rank - 2] : 1;
	out->S = col ? d[rank - 1] : rank > 0 ? out->t->d[rank - 1] : 1;
	out->row = row ? row->at : NULL;
	out->col = col ? col->at : NULL;
	out->head = head ? axis[rank - 3]->at : NULL;
	out->far = length > 0;
	if (!fits(ev, out->S)) {
		out->t = NULL;
		return LINNET_OK;
	}
	if (!row)
		TRY(all_places(out->L, ev->a, &out->row, e));
	if (!col)
		TRY(all_places(out->S, ev->a, &out->col, e));
	return LINNET_OK;
}

/* Lengths that do not go together: exporters name that of a whole sequence apart from those of the past and the new. */
static enum linnet_code take_sums(struct eval *ev, value_id v, const struct bounds *b, struct sample *out)
{
	int all = ev->nsymbol;

	for (int sum = 0; sum < all; sum++)
		for (int i = 0; i < all; i++)
			for (int j = i + 1; j < all; j++) {
				if (i == sum || j == sum)
					continue;
				ev->sum = ev->symbol[sum];
				ev->of[0] = ev->symbol[i];
				ev->of[1] = ev->symbol[j];
				TRY(take(ev, v, b, 0, 0, out));
				if (out->t)
					return LINNET_OK;
			}
	ev->sum = NULL;
	return LINNET_OK;
}

static enum linnet_code begin(struct eval *ev, value_id v, struct bounds *b)
{
	const struct graph *g = ev->g;
	const struct shape *s = &g->value[v].type.shape;
	struct names longs = { ev->longs, 0, MAX_SYMBOLS, false }, shorts = { ev->shorts, 0, MAX_SYMBOLS, false }, given = { ev->given, 0, 4 * MAX_SYMBOLS, false };

	for (const struct graph *o = g; o; o = o->outer)
		for (uint32_t i = 0; i < o->nin; i++)
			add_names(g, &o->value[o->in[i]].type.shape, 0, o->value[o->in[i]].type.shape.rank, &given);
	ev->last = s->rank > 0 ? dim_sub(g->dims, s->d[s->rank - 1], ev->known.beyond) : DIM_NONE;
	add_names(g, s, s->rank - 2, s->rank, &longs);
	add_names(g, s, 0, s->rank - 2, &shorts);
	ev->ngiven = given.n;
	ev->nlong = longs.n;
	ev->nshort = shorts.n;
	ev->all_long = longs.full;
	for (int i = 0; i < longs.n; i++)
		ev->all_long = ev->all_long || !named(ev->given, ev->ngiven, ev->longs[i]);
	return find_bounds(g, v, ev->a, b, ev->e);
}

/* The last query's place is none of a key: no run has such lengths. */
static bool lacks_keys(const struct eval *ev, const struct sample *s) { return ev->known.nposition && s->L > s->S - ev->known.beyond; }

static enum linnet_code take_equal(struct eval *ev, value_id v, const struct bounds *b, struct sample *out)
{
	const struct shape *s = &ev->g->value[v].type.shape;

	ev->equal = true;
	TRY(take(ev, v, b, 0, 0, out));
	for (int i = s->rank - 1; i >= 0 && i >= s->rank - 2 && !out->t; i--) {
		ev->only = dim_is_int(s->d[i]) && s->d[i] > 1 ? s->d[i] : 0;
		if (ev->only)
			TRY(take(ev, v, b, 0, 0, out));
	}
	ev->equal = out->t != NULL;
	ev->only = out->t ? ev->only : 0;
	return LINNET_OK;
}

/* No sample, or one of a single key where there may be more: that tells nothing. */
static bool is_vain(const struct eval *ev, const struct sample *s) { return !s->t || (s->S < 2 && dim_is_expr(ev->last)); }

/* Longer ones than those that were in vain. */
static enum linnet_code take_scaled(struct eval *ev, value_id v, const struct bounds *b, struct sample *out)
{
	static const dim scale[] = { 16, 128, 1024 };
	struct sample s;

	for (size_t i = 0; i < sizeof scale / sizeof *scale && is_vain(ev, out) && !ev->costly; i++) {
		ev->scale = scale[i];
		TRY(take(ev, v, b, 0, 0, &s));
		*out = s.t ? s : *out;
	}
	return LINNET_OK;
}

/* One more sample for these lengths; *must: it could not be had for the time it takes. */
static enum linnet_code add_long(struct eval *ev, value_id v, const struct bounds *b, int64_t length, struct samples *out, bool *short_of)
{
	struct sample s;

	if (length < 1 || out->n == MAX_SAMPLES) {
		*short_of = *short_of || out->n == MAX_SAMPLES;
		return LINNET_OK;
	}
	TRY(take(ev, v, b, 0, length, &s));
	*short_of = *short_of || (!s.t && ev->costly);
	if (s.t && !lacks_keys(ev, &s)) /* other failures: no run has such lengths */
		out->at[out->n++] = s;
	return LINNET_OK;
}

static enum linnet_code take_long(struct eval *ev, value_id v, const struct bounds *b, struct samples *out)
{
	static const int64_t more[] = { 100, 1000, 10000 };
	bool short_of = b->many || (ev->drew && ev->nodes > MAX_DRAWN), ignored = false;

	for (int i = 0; i < b->n && !short_of; i++)
		TRY(add_long(ev, v, b, b->c[i] + 2, out, &short_of));
	if (b->n && !short_of)
		TRY(add_long(ev, v, b, 2 * b->c[b->n - 1] + 3, out, &short_of));
	for (int i = 0; i < b->nsize && !short_of; i++)
		TRY(add_long(ev, v, b, ev->nlong > 1 ? b->size[i] / ev->nlong - 2 : b->size[i], out, &short_of));
	for (size_t i = 0; i < sizeof more / sizeof *more && !short_of && !b->rows; i++)
		TRY(add_long(ev, v, b, more[i], out, &ignored));
	out->unsure = short_of;
	return LINNET_OK;
}

static enum linnet_code take_all(struct eval *ev, value_id v, bool far, struct samples *out)
{
	struct linnet_error *e = ev->e;
	struct bounds *b;
	int trials = TRIALS;

	memset(out, 0, sizeof *out);
	TRY_NEW(b, ev->a, 1);
	TRY(begin(ev, v, b));
	for (int trial = 0; trial < trials; trial++) {
		struct sample *s = &out->at[out->n];

		TRY(take(ev, v, b, trial, 0, s));
		if (!s->t && ev->draw && !trial && !ev->costly)
			TRY(take_sums(ev, v, b, s));
		if (!s->t && ev->some && !trial && !ev->costly)
			TRY(take_equal(ev, v, b, s));
		if (is_vain(ev, s) && ev->some && !trial && !ev->costly)
			TRY(take_scaled(ev, v, b, s));
		out->data = ev->drew;
		if (!s->t && !(ev->some && trial && !ev->costly)) {
			out->n = 0;
			return LINNET_OK;
		}
		out->n += s->t && !lacks_keys(ev, s);
		if (!ev->drew && !ev->nsymbol) /* nothing will change */
			trials = 1;
	}
	return far && (ev->nlong || ev->all_long) ? take_long(ev, v, b, out) : LINNET_OK;
}

enum linnet_code samples_take(const struct graph *g, value_id v, bool draw, bool far, struct arena *a, struct samples *out, struct linnet_error *e)
{
	return take_all(&(struct eval){ .g = g, .a = a, .draw = draw, .known.keys = DIM_NONE, .e = e }, v, far, out);
}

enum linnet_code samples_given(const struct graph *g, value_id v, const struct given *given, bool far, struct arena *a, struct samples *out,
                               struct linnet_error *e)
{
	return take_all(&(struct eval){ .g = g, .a = a, .draw = true, .some = true, .known = *given, .e = e }, v, far, out);
}

enum linnet_code sample_layout(const struct graph *g, value_id v, struct arena *a, const struct tensor **out, struct linnet_error *e)
{
	struct eval ev = { .g = g, .a = a, .draw = true, .projects = true, .trial = 1, .done.a = a, .e = e };

	return eval_whole(&ev, v, out);
}

enum linnet_code sample_channels(const struct graph *g, value_id v, struct arena *a, const struct tensor **out, struct linnet_error *e)
{
	static const int trials[] = { 1, SHORTEST };

	*out = NULL;
	for (size_t i = 0; i < sizeof trials / sizeof *trials && !*out; i++) {
		struct eval ev = { .g = g, .a = a, .draw = true, .projects = true, .channels = true, .trial = trials[i], .done.a = a, .e = e };

		TRY(eval_whole(&ev, v, out));
	}
	return LINNET_OK;
}
