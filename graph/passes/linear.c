/*
 * Recognising linear recurrences in any spelling: loops, unrolled chains, sums along tokens, masked products of all pairs, chunks.
 *
 *   S <- a S + k^T v       or, with a correction,   S <- a S + beta k^T (v - k (a S))       o = c q S
 *
 * Nothing is matched. A part of the graph that mixes tokens (graph/region.h) makes polynomials of what enters it, and exponentials of sums of
 * it. So does the recurrence, and two of those that agree on drawn numbers are the same, for the lengths that were drawn. What enters is told
 * apart by what one number of it changes: a query its own token, keys and values the later ones too; axes are found the same way. Then the part and the
 * recurrence are computed in double precision for several lengths. Needs types.
 * Source: operator LinearAttention, opset 27.
 */
#include <math.h>
#include <string.h>

#include "graph/probe.h"
#include "graph/region.h"
#include "ops/base/rng.h"

enum { NONE = -1, PLACES = 3, MAX_STATE_RANK = 6 };

/* What enters the part. */
struct member {
	value_id v;
	const struct tensor *t; /* in this trial */
	int rank, token, free[MAX_RANK], nfree; /* free: axes that are none of o's */
	int axis[MAX_RANK];     /* by o's axis: the member's, or NONE */
	bool own;               /* changes its own token only */
	bool below, above;      /* never above 0; always above 0 */
};

struct list {
	int axis[MAX_RANK], n; /* of o */
};

struct hypothesis {
	const struct member *q, *k, *v, *g, *beta, *past;
	bool raw;              /* the decay is g itself, not exp(g) */
	double scale, *gamma;  /* gamma: by index of the shared axes, where the decay is no member; NULL: 1 */
	int64_t faded[MAX_RANK]; /* o's lengths then; along what is longer now gamma is the same */
	struct list shared, columns, group; /* axes of o: those all have, those of the values alone, of the queries alone */
};

struct search {
	const struct view *w;
	const struct graph *g;
	struct terrain *t;
	struct region r;
	struct narrowing *narrow; /* of the part, in trials of that length */
	int64_t length;
	struct member m[MAX_MEMBERS];
	int n, otoken;            /* the axis of o that counts tokens */
	int64_t od[MAX_RANK];     /* o's lengths in trials */
	int64_t whole[MAX_RANK];  /* and where nothing is cut short */
	int orank;
	const char *symbol;       /* of tokens; NULL: a number */
	int64_t first;            /* the length of the first trial */
	const node_id *node;
	uint32_t nnode;
	double size;              /* of the numbers drawn */
	struct arena *trial;      /* reset before each */
	unsigned way;             /* how the last part that was recognised was read; the next one is likely to be alike */
	double *spent, most;      /* operations of trials since something was last recognised; that many are enough */
	struct rng rng;
};

/* Operations of trials without success until a graph, or one inside another, is left alone: about 0.7 and 0.1 seconds. */
static const double FRUITLESS = 6e8, FRUITLESS_INSIDE = 1e8;

/* ---- Trials ---- */

static double unit(struct search *x) { return 2 * rng_unit(&x->rng) - 1; }

static enum linnet_code new_member(struct search *x, int i, int64_t length, struct arena *a, struct tensor **out, bool *can, struct linnet_error *e)
{
	struct probe p = { .g = x->g, .tokens = x->symbol, .length = length, .narrow = x->narrow };
	int64_t d[MAX_RANK];

	*out = NULL;
	*can = probe_shape(&p, x->m[i].v, d);
	return *can ? tensor_new(a, DT_DOUBLE, x->g->value[x->m[i].v].type.shape.rank, d, out, e) : LINNET_OK;
}

/* sums: features that are summed over are few as well, which is enough to find roles, not to verify them. */
static void set_width(struct search *x, bool sums)
{
	x->narrow->labels->sums = sums;
	for (int j = 0; j < x->orank; j++)
		x->od[j] = narrow_cut(x->narrow, x->r.o, j) ? narrow_cut(x->narrow, x->r.o, j) : x->whole[j];
}

/* Which axes can be cut short for such a length: what depends on lengths alone is computed first. */
static enum linnet_code read_widths(struct search *x, int64_t length, struct linnet_error *e)
{
	struct probe p = { .g = x->g, .a = x->t->a, .tokens = x->symbol, .length = length };
	node_id *order;
	bool can;

	TRY_NEW(order, x->t->a, x->nnode);
	TRY_NEW(p.value, x->t->a, x->g->nvalue);
	for (uint32_t i = 0; i < x->nnode; i++) {
		const struct node *n = &x->g->node[x->node[i]];
		bool fixed = true;

		for (uint32_t k = 0; k < n->nout; k++)
			fixed = fixed && x->t->fixed[n->out[k]];
		if (fixed)
			order[p.norder++] = x->node[i];
	}
	p.order = order;
	TRY(probe_run(&p, &can, e));
	x->length = length;
	return narrow_read(x->g, x->node, x->nnode, x->r.member, x->n, x->t->fixed, p.value, x->t->a, &x->narrow, e);
}

static enum linnet_code read_part(struct search *x, const value_id *want, int nwant, int64_t length, struct linnet_error *e)
{
	TRY(region_nodes(x->t, want, nwant, x->r.member, x->n, (node_id **)(uintptr_t)&x->node, &x->nnode, e));
	return read_widths(x, length, e);
}

/* Compute o from the members' tensors; NULL when that is not possible. more, with values of its own: also those. */
static enum linnet_code compute(struct search *x, int64_t length, struct probe *p, const struct tensor **o, struct linnet_error *e)
{
	bool can;

	*o = NULL;
	if (*x->spent > x->most)
		return LINNET_OK;
	*p = (struct probe){ .g = x->g, .order = x->node, .norder = x->nnode, .a = x->trial, .tokens = x->symbol, .length = length, .narrow = x->narrow };
	TRY_NEW(p->value, x->trial, x->g->nvalue);
	for (int i = 0; i < x->n; i++)
		p->value[x->m[i].v] = x->m[i].t;
	TRY(probe_run(p, &can, e));
	*x->spent += p->work;
	if (can)
		*o = p->value[x->r.o];
	if (*o && (*o)->dt != DT_DOUBLE)
		*o = NULL;
	return LINNET_OK;
}

/* Numbers for all members, of any kind. */
static enum linnet_code draw_plain(struct search *x, int64_t length, bool *can, struct linnet_error *e)
{
	*can = true;
	for (int i = 0; i < x->n && *can; i++) {
		struct tensor *t;

		TRY(new_member(x, i, length, x->t->a, &t, can, e));
		for (int64_t k = 0; t && k < t->n; k++) {
			double u = unit(x);

			tensor_put(t, k, x->m[i].above ? 0.1 + 0.9 * fabs(u) : x->size * (x->m[i].below ? -fabs(u) : u));
		}
		x->m[i].t = t;
		if (t)
			x->m[i].rank = t->rank;
	}
	return LINNET_OK;
}

/* ---- What a number changes ---- */

static void strides_of(const struct tensor *t, int64_t *stride)
{
	int64_t n = 1;

	for (int i = t->rank - 1; i >= 0; n *= t->d[i--])
		stride[i] = n;
}

/* The place on each axis in trial p: axes are told apart by their places. */
static void places(const struct tensor *t, int p, int64_t length, int64_t *at)
{
	int code = 0;

	for (int i = 0; i < t->rank; i++) {
		if (t->d[i] > 1)
			code++;
		at[i] = t->d[i] == 1 ? 0 : (code >> p & 1) + (t->d[i] == length && length > 2);
	}
}

/* All axes of o and m, but for the one of tokens, are told by where their indices go (graph/narrow.h). */
static bool told(const struct search *x, const struct member *m)
{
	int others = 0;

	for (int j = 0; j < x->orank; j++)
		if (j != x->otoken && x->od[j] > 1 && !narrow_axis(x->narrow, x->r.o, j))
			return false;
	for (int k = 0; k < m->t->rank; k++) {
		bool tokens = m->t->d[k] == x->od[x->otoken] && !narrow_axis(x->narrow, m->v, k);

		others += tokens;
		if (!tokens && m->t->d[k] > 1 && !narrow_axis(x->narrow, m->v, k))
			return false;
	}
	return others < 2 && x->first > 2;
}

/* The axes of member i, by changing one number of it at PLACES places, or at one where that tells enough. base: o without a change. */
static enum linnet_code read_axes(struct search *x, int i, const struct tensor *base, bool *read, struct linnet_error *e)
{
	struct member *m = &x->m[i];
	int64_t at[PLACES][MAX_RANK], lo[PLACES][MAX_RANK], hi[PLACES][MAX_RANK], stride[MAX_RANK];
	struct tensor *t = (struct tensor *)(uintptr_t)m->t; /* made by draw_plain() */
	double most = 0;
	bool taken[MAX_RANK] = { false }, sure = told(x, m);
	int count = sure ? 1 : PLACES;

	*read = false;
	if (!t->n || !base->n)
		return LINNET_OK;
	strides_of(t, stride);
	for (int64_t k = 0; k < base->n; k++)
		most = fmax(most, fabs(tensor_get(base, k)));
	for (int p = 0; p < count; p++) {
		const struct tensor *o;
		struct probe probe;
		int64_t index = 0;
		double was;
		bool changed = false;

		places(t, p, x->first, at[p]);
		for (int k = 0; k < t->rank && sure; k++) /* neither the first token, whose decay may meet no state, nor the last one */
			at[p][k] = t->d[k] == x->first ? 1 : at[p][k];
		for (int k = 0; k < t->rank; k++)
			index += at[p][k] * stride[k];
		was = tensor_get(t, index);
		tensor_put(t, index, m->below ? was - 0.4 : was + 0.4);
		arena_reset(x->trial);
		TRY(compute(x, x->first, &probe, &o, e));
		tensor_put(t, index, was);
		if (!o || o->n != base->n)
			return LINNET_OK;
		for (int j = 0; j < o->rank; j++) {
			lo[p][j] = INT64_MAX;
			hi[p][j] = -1;
		}
		for (int64_t k = 0; k < o->n; k++) {
			int64_t rest = k;

			if (!(fabs(tensor_get(o, k) - tensor_get(base, k)) > 1e-11 * most))
				continue;
			changed = true;
			for (int j = o->rank - 1; j >= 0; j--) {
				int64_t c = rest % o->d[j];

				rest /= o->d[j];
				lo[p][j] = c < lo[p][j] ? c : lo[p][j];
				hi[p][j] = c > hi[p][j] ? c : hi[p][j];
			}
		}
		if (!changed)
			return LINNET_OK;
	}
	m->own = true;
	m->token = NONE;
	for (int j = 0; j < x->orank; j++) {
		bool pinned = true;

		m->axis[j] = NONE;
		for (int p = 0; p < count; p++) {
			pinned = pinned && lo[p][j] == hi[p][j];
			m->own = m->own && (j != x->otoken || lo[p][j] == hi[p][j]);
		}
		for (int k = 0; k < t->rank && x->od[j] > 1; k++) {
			dim mine = x->g->value[m->v].type.shape.d[k], its = x->g->value[x->r.o].type.shape.d[j];
			bool here = !taken[k] && t->d[k] == x->od[j] && dim_is_int(mine) == dim_is_int(its) && (pinned || j == x->otoken);

			here = here && (!sure || narrow_axis(x->narrow, m->v, k) == narrow_axis(x->narrow, x->r.o, j));
			for (int p = 0; p < count; p++)
				here = here && at[p][k] == lo[p][j];
			if (!here)
				continue;
			taken[k] = true;
			if (j == x->otoken)
				m->token = k;
			else
				m->axis[j] = k;
			break;
		}
	}
	m->nfree = 0;
	for (int k = 0; k < t->rank; k++)
		if (!taken[k] && t->d[k] > 1)
			m->free[m->nfree++] = k;
	*read = true;
	return LINNET_OK;
}

/* ---- The recurrence ---- */

static int64_t size_of(const struct list *l, const int64_t *d)
{
	int64_t n = 1;

	for (int i = 0; i < l->n; i++)
		n *= d[l->axis[i]];
	return n;
}

/* Where index i of the axes l is in a tensor with its axes there. axis: by o's axis. */
static int64_t place_of(const struct list *l, const int64_t *od, int64_t i, const int *axis, const int64_t *stride)
{
	int64_t at = 0;

	for (int k = l->n - 1; k >= 0; k--) {
		int64_t n = od[l->axis[k]];

		if (axis[l->axis[k]] != NONE)
			at += i % n * stride[axis[l->axis[k]]];
		i /= n;
	}
	return at;
}

struct reader {
	const struct member *m;
	int64_t stride[MAX_RANK], token, free;
};

static struct reader reader_of(const struct member *m)
{
	struct reader r = { .m = m };

	if (!m)
		return r;
	strides_of(m->t, r.stride);
	r.token = m->token == NONE ? 0 : r.stride[m->token];
	r.free = m->nfree ? r.stride[m->free[0]] : 0;
	return r;
}

static int64_t length_of(const struct member *m) { return m->nfree ? m->t->d[m->free[0]] : 1; }

/* What is left of the state of that index of the shared axes after a token, where o's lengths are od. */
static double fade_of(const struct hypothesis *h, const int64_t *od, int64_t s)
{
	int64_t at = 0, stride = 1;

	for (int k = h->shared.n - 1; k >= 0; k--) {
		int axis = h->shared.axis[k];
		int64_t i = s % od[axis], last = h->faded[axis] - 1;

		at += (i < last ? i : last) * stride;
		stride *= h->faded[axis];
		s /= od[axis];
	}
	return h->gamma[at];
}

/* o and the last states of the hypothesis, o with scale 1; od: o's lengths. states: [shared, rows, columns] */
static enum linnet_code recurrence(struct search *x, const struct hypothesis *h, const int64_t *od, struct tensor **o, struct tensor **states,
                                   struct linnet_error *e)
{
	int64_t n = size_of(&h->shared, od), E = size_of(&h->columns, od), R = size_of(&h->group, od), F = length_of(h->k), steps = od[x->otoken], ostride[MAX_RANK];
	struct reader q = reader_of(h->q), k = reader_of(h->k), v = reader_of(h->v), g = reader_of(h->g), beta = reader_of(h->beta), past = reader_of(h->past);
	int self[MAX_RANK];

	TRY(tensor_new(x->trial, DT_DOUBLE, x->orank, od, o, e));
	TRY(tensor_new(x->trial, DT_DOUBLE, 3, (int64_t[]){ n, F, E }, states, e));
	strides_of(*o, ostride);
	for (int j = 0; j < x->orank; j++)
		self[j] = j;
#define AT(r, list, i) ((r).m ? place_of(&h->list, od, (i), (r).m->axis, (r).stride) : 0)
#define GET(r, place) tensor_get((r).m->t, (place))
	for (int64_t s = 0; s < n; s++) {
		int64_t qs = AT(q, shared, s), ks = AT(k, shared, s), vs = AT(v, shared, s), gs = AT(g, shared, s), bs = AT(beta, shared, s), ps = AT(past, shared, s);
		double *S = (double *)(*states)->data + s * F * E, fade = h->gamma ? fade_of(h, od, s) : 1;

		for (int64_t i = 0; i < F * E && h->past; i++)
			S[i] = GET(past, ps + i / E * past.free + AT(past, columns, i % E));
		for (int64_t t = 0; t < steps; t++) {
			for (int64_t i = 0; i < F; i++) {
				double a = h->g ? GET(g, gs + t * g.token + i * g.free) : h->gamma ? fade : 1;

				a = h->g && !h->raw ? exp(a) : a;
				for (int64_t j = 0; j < E; j++)
					S[i * E + j] *= a;
			}
			for (int64_t j = 0; j < E; j++) {
				double put = h->v ? GET(v, vs + t * v.token + AT(v, columns, j)) : 1;

				for (int64_t i = 0; i < F && h->beta; i++)
					put -= GET(k, ks + t * k.token + i * k.free) * S[i * E + j];
				put *= h->beta ? GET(beta, bs + t * beta.token) : 1;
				for (int64_t i = 0; i < F; i++)
					S[i * E + j] += GET(k, ks + t * k.token + i * k.free) * put;
			}
			for (int64_t r = 0; r < R; r++)
				for (int64_t j = 0; j < E; j++) {
					int64_t at = place_of(&h->shared, od, s, self, ostride) + place_of(&h->group, od, r, self, ostride) +
					             place_of(&h->columns, od, j, self, ostride) + t * ostride[x->otoken];
					double sum = 0;

					for (int64_t i = 0; i < F; i++)
						sum += GET(q, qs + t * q.token + AT(q, group, r) + i * q.free) * S[i * E + j];
					tensor_put(*o, at, sum);
				}
		}
	}
#undef AT
#undef GET
	return LINNET_OK;
}

static double factor(const struct tensor *o, const struct tensor *r)
{
	double both = 0, square = 0;

	for (int64_t i = 0; i < o->n; i++) {
		both += tensor_get(o, i) * tensor_get(r, i);
		square += tensor_get(r, i) * tensor_get(r, i);
	}
	return square > 0 ? both / square : 0;
}

/* Constants are rounded to their type, everything else is computed in double. */
static const double tolerance = 3e-6;

static bool agree(const struct tensor *o, const struct tensor *r, double scale)
{
	double most = 0, apart = 0;

	for (int64_t i = 0; i < o->n; i++) {
		double x = tensor_get(o, i), y = scale * tensor_get(r, i);

		if (!isfinite(x) || !isfinite(y))
			return false;
		most = fmax(most, fmax(fabs(x), fabs(y)));
		apart = fmax(apart, fabs(x - y));
	}
	return apart <= tolerance * most;
}

/* ---- Hypotheses ---- */

static bool pins(const struct member *m, int j) { return m && m->axis[j] != NONE; }

/* The axes of o by who has them; false: an axis nobody can give. */
static bool sort_axes(const struct search *x, struct hypothesis *h)
{
	bool each = false; /* an axis that values share with gates only */

	h->shared.n = h->columns.n = h->group.n = 0;
	for (int j = 0; j < x->orank; j++) {
		bool gates = pins(h->k, j) || pins(h->g, j) || pins(h->beta, j);
		struct list *l = gates || (pins(h->q, j) && pins(h->v, j)) ? &h->shared : pins(h->v, j) ? &h->columns : pins(h->q, j) ? &h->group : NULL;

		if (j == x->otoken || x->od[j] == 1)
			continue;
		if (!l || (l == &h->group && pins(h->past, j)))
			return false;
		l->axis[l->n++] = j;
		each = each || (l == &h->shared && !pins(h->k, j) && !pins(h->q, j));
	}
	/* a gate of each column would make every column a head, with queries and keys repeated */
	return !(each && !h->columns.n && !(h->g && h->g->nfree));
}

/* The decay of each index of the shared axes: queries alike, one key at the first token. */
static enum linnet_code fit_decay(struct search *x, struct hypothesis *h, struct linnet_error *e)
{
	int64_t n = size_of(&h->shared, x->od), ostride[MAX_RANK], steps = x->first;
	struct tensor *kept[MAX_MEMBERS];
	const struct tensor *o;
	struct probe probe;
	int self[MAX_RANK];

	TRY_NEW(h->gamma, x->t->a, n);
	memcpy(h->faded, x->od, sizeof h->faded);
	for (int i = 0; i < x->n; i++) {
		struct member *m = &x->m[i];
		int64_t stride[MAX_RANK];

		kept[i] = (struct tensor *)(uintptr_t)m->t;
		if (m != h->q && m != h->k && m != h->past)
			continue;
		TRY(tensor_dup(x->t->a, m->t, &kept[i], e));
		strides_of(m->t, stride);
		for (int64_t k = 0; k < m->t->n; k++) {
			int64_t t = m->token == NONE ? 0 : k / stride[m->token] % steps;

			if (m == h->q && t)
				tensor_put(kept[i], k, tensor_get(kept[i], k - t * stride[m->token]));
			if (m == h->past || (m == h->k && t))
				tensor_put(kept[i], k, 0);
		}
	}
	for (int i = 0; i < x->n; i++) {
		const struct tensor *t = x->m[i].t;

		x->m[i].t = kept[i];
		kept[i] = (struct tensor *)(uintptr_t)t;
	}
	TRY(compute(x, steps, &probe, &o, e));
	for (int i = 0; i < x->n; i++)
		x->m[i].t = kept[i];
	if (!o) {
		h->gamma = NULL;
		return LINNET_OK;
	}
	strides_of(o, ostride);
	for (int j = 0; j < x->orank; j++)
		self[j] = j;
	for (int64_t s = 0; s < n; s++) {
		int64_t at = place_of(&h->shared, x->od, s, self, ostride), best = at;
		double now, later;
		int64_t t = steps - 1;

		for (int64_t c = 0; c < size_of(&h->columns, x->od); c++) {
			int64_t here = at + place_of(&h->columns, x->od, c, self, ostride);

			best = fabs(tensor_get(o, here)) > fabs(tensor_get(o, best)) ? here : best;
		}
		now = tensor_get(o, best);
		later = tensor_get(o, best + t * ostride[x->otoken]);
		for (; t > 1 && !(fabs(later) > 1e-30 * fabs(now)); later = tensor_get(o, best + t * ostride[x->otoken])) /* it has faded away by then */
			t /= 2;
		h->gamma[s] = now != 0 && later / now > 1e-30 && steps > 1 ? pow(later / now, 1.0 / (double)t) : 1;
		if (h->gamma[s] > 1 + 1e-9) { /* it grows */
			h->gamma = NULL;
			break;
		}
	}
	return LINNET_OK;
}

static enum linnet_code test(struct search *x, struct hypothesis *h, const struct tensor *o, bool *holds, struct linnet_error *e)
{
	struct tensor *r, *states;

	*holds = false;
	if (!sort_axes(x, h))
		return LINNET_OK;
	for (int round = 0; round < 2 && !*holds; round++) {
		if (round && (h->g || x->first < 2))
			return LINNET_OK;
		if (round)
			TRY(fit_decay(x, h, e));
		if (round && !h->gamma)
			return LINNET_OK;
		TRY(recurrence(x, h, x->od, &r, &states, e));
		h->scale = factor(o, r);
		*holds = h->scale > 0 && agree(o, r, h->scale);
	}
	return LINNET_OK;
}

/* Who is who: what changes its own token only is the query, what has no tokens the state, and the others are tried. */
static enum linnet_code find_roles(struct search *x, const struct tensor *o, struct hypothesis *found, bool *holds, struct linnet_error *e)
{
	const struct member *rest[MAX_MEMBERS], *q = NULL, *past = NULL;
	int n = 0;

	*holds = false;
	for (int i = 0; i < x->n; i++) {
		const struct member *m = &x->m[i];

		if (m->token == NONE && past)
			return LINNET_OK;
		if (m->token == NONE)
			past = m;
		else if (m->own && q)
			return LINNET_OK;
		else if (m->own)
			q = m;
		else
			rest[n++] = m;
	}
	if (!q || q->nfree > 1 || n < 1 || n > 4 || (past && past->nfree > 1))
		return LINNET_OK;
	for (int k = 0; k < n && !*holds; k++)
		for (int v = -1; v < n && !*holds; v++)
			for (int g = -1; g < n && !*holds; g++)
				for (int b = -1; b < n && !*holds; b++) {
					struct hypothesis h = { .q = q, .k = rest[k], .past = past, .v = v < 0 ? NULL : rest[v], .g = g < 0 ? NULL : rest[g], .beta = b < 0 ? NULL : rest[b] };
					bool distinct = v != k && g != k && b != k && (v < 0 || (v != g && v != b)) && (g < 0 || g != b);

					if (!distinct || 1 + (v >= 0) + (g >= 0) + (b >= 0) != n || h.k->nfree != q->nfree || (h.v && h.v->nfree) || (h.beta && h.beta->nfree) ||
					    (h.g && h.g->nfree > 1) || length_of(h.k) != length_of(q) || (h.g && h.g->nfree && length_of(h.g) != length_of(q)) ||
					    (past && length_of(past) != length_of(q)))
						continue;
					for (int raw = 0; raw < (h.g ? 2 : 1) && !*holds; raw++) {
						h.raw = raw != 0;
						TRY(test(x, &h, o, holds, e));
					}
					if (*holds)
						*found = h;
				}
	return LINNET_OK;
}

/* ---- More lengths ---- */

/* Numbers as they occur: keys of length one, decays of `size`. */
static enum linnet_code draw_roles(struct search *x, const struct hypothesis *h, int64_t length, double size, bool *can, struct linnet_error *e)
{
	*can = true;
	for (int i = 0; i < x->n && *can; i++) {
		struct member *m = &x->m[i];
		struct tensor *t;

		TRY(new_member(x, i, length, x->trial, &t, can, e));
		m->t = t;
		for (int64_t k = 0; t && k < t->n; k++) {
			double u = unit(x);

			if (m == h->k)
				u *= sqrt(3 / (double)length_of(m));
			if (m == h->beta)
				u = 0.1 + 0.8 * fabs(u);
			if (m == h->g)
				u = h->raw ? (m->above ? exp(-size * fabs(u)) : u) : (m->below ? -fabs(u) : u) * size;
			tensor_put(t, k, u);
		}
	}
	return LINNET_OK;
}

/* The part and the recurrence once more; *seen: the part takes such a length. */
static enum linnet_code try_length(struct search *x, const struct hypothesis *h, int64_t length, double size, bool *seen, bool *holds, struct linnet_error *e)
{
	int64_t od[MAX_RANK] = { 0 };
	struct tensor *r, *states;
	const struct tensor *o;
	struct probe probe;

	if (length != x->length) {
		TRY(read_widths(x, length, e));
		set_width(x, false);
	}
	TRY(draw_roles(x, h, length, size, seen, e));
	*holds = true;
	if (!*seen)
		return LINNET_OK;
	TRY(compute(x, length, &probe, &o, e));
	*seen = o != NULL;
	if (!o)
		return LINNET_OK;
	*holds = false;
	if (o->rank != x->orank || o->d[x->otoken] != length)
		return LINNET_OK;
	for (int j = 0; j < x->orank; j++) {
		od[j] = o->d[j];
		if (j != x->otoken && od[j] != x->od[j])
			return LINNET_OK;
	}
	TRY(recurrence(x, h, od, &r, &states, e));
	*holds = agree(o, r, h->scale);
	return LINNET_OK;
}

/* The longest axis within the part that its members and o do not have: perhaps a chunk. */
static int64_t longest_inside(const struct search *x)
{
	int64_t longest = 8;

	for (uint32_t i = 0; i < x->r.nmixed; i++) {
		const struct shape *s = &x->g->value[x->r.mixed[i]].type.shape;

		for (int k = 0; k < s->rank; k++) {
			bool outside = !dim_is_int(s->d[k]) || s->d[k] > 256;

			for (int j = 0; j < x->n && !outside; j++)
				for (int l = 0; l < x->g->value[x->m[j].v].type.shape.rank; l++)
					outside = outside || x->g->value[x->m[j].v].type.shape.d[l] == s->d[k];
			if (!outside && s->d[k] > longest)
				longest = s->d[k];
		}
	}
	return longest;
}

static enum linnet_code verify_lengths(struct search *x, const struct hypothesis *h, bool *holds, struct linnet_error *e)
{
	int64_t chunk = longest_inside(x), length[] = { x->first, x->first, 2 * chunk + 3, 3 * chunk, 1 };
	double size[] = { 0.7, 5, 0.3, 0.3, 0.7 };
	bool seen, many = false;

	*holds = true;
	for (size_t i = 0; i < sizeof length / sizeof *length && *holds; i++) {
		if (!x->symbol && i > 1)
			break;
		if (i == 3 && many)
			continue;
		arena_reset(x->trial);
		TRY(try_length(x, h, length[i], size[i] * (x->symbol || x->first < 16 ? 1 : 8.0 / (double)x->first), &seen, holds, e));
		many = many || (i >= 2 && seen);
	}
	*holds = *holds && (many || !x->symbol);
	return LINNET_OK;
}

/* ---- States that are read elsewhere ---- */

struct leak {
	value_id v;
	const struct tensor *t;
	int axis[MAX_RANK]; /* by the state's axis, [shared.., rows, columns..]: v's */
};

enum { MAX_LEAKS = 8 };

/* Lengths of the state's axes other than 1, and which list and axis of o they are. */
struct state_axes {
	int64_t d[MAX_STATE_RANK];
	int n;
};

static bool state_axes(const struct search *x, const struct hypothesis *h, struct state_axes *s)
{
	s->n = 0;
	if (h->shared.n + 1 + h->columns.n > MAX_STATE_RANK)
		return false;
	for (int i = 0; i < h->shared.n; i++)
		s->d[s->n++] = x->od[h->shared.axis[i]];
	s->d[s->n++] = length_of(h->k);
	for (int i = 0; i < h->columns.n; i++)
		s->d[s->n++] = x->od[h->columns.axis[i]];
	return true;
}

static bool equals_turned(const struct leak *l, const struct state_axes *s, const struct tensor *states)
{
	int64_t stride[MAX_RANK];
	double most = 0, apart = 0;

	strides_of(l->t, stride);
	for (int64_t i = 0; i < states->n; i++) {
		int64_t rest = i, at = 0;

		for (int k = s->n - 1; k >= 0; k--) {
			at += l->axis[k] < 0 ? 0 : rest % s->d[k] * stride[l->axis[k]];
			rest /= s->d[k];
		}
		most = fmax(most, fabs(tensor_get(states, i)));
		apart = fmax(apart, fabs(tensor_get(states, i) - tensor_get(l->t, at)));
	}
	return apart <= tolerance * most;
}

/* Try all orders of v's axes, from the k-th of the state on. */
static bool turns_into(struct leak *l, const struct state_axes *s, const struct tensor *states, int k, bool *used)
{
	if (k == s->n)
		return equals_turned(l, s, states);
	if (s->d[k] == 1) {
		l->axis[k] = NONE;
		return turns_into(l, s, states, k + 1, used);
	}
	for (int i = 0; i < l->t->rank; i++) {
		if (used[i] || l->t->d[i] != s->d[k])
			continue;
		used[i] = true;
		l->axis[k] = i;
		if (turns_into(l, s, states, k + 1, used))
			return true;
		used[i] = false;
	}
	return false;
}

static bool used_outside(const struct search *x, const bool *inside, value_id v)
{
	for (uint32_t i = x->w->uses.begin[v]; i < x->w->uses.end[v]; i++)
		if (!x->w->uses.use[i].node || (!inside[x->w->uses.use[i].node] && !(x->g->node[x->w->uses.use[i].node].op->flags & OP_SHAPE_ONLY)))
			return true;
	return false;
}

/*
 * What is read outside of the part: in l those that are the last state, *closed: nothing else of it is. Nodes that are made of the same members
 * only count as of the part.
 */
static enum linnet_code find_leaks(struct search *x, const struct hypothesis *h, struct leak *l, int *nleak, bool *closed, struct linnet_error *e)
{
	const struct graph *g = x->g;
	struct state_axes axes;
	struct tensor *r, *states;
	const struct tensor *o;
	struct probe probe;
	bool *inside, *of, *core, can;
	value_id want[1 + MAX_LEAKS];
	int n = 0;

	*closed = false;
	*nleak = 0;
	TRY_NEW(inside, x->t->a, g->nnode);
	TRY_NEW(core, x->t->a, g->nvalue);
	TRY_NEW(of, x->t->a, g->nvalue);
	for (int i = 0; i < x->n; i++)
		of[x->m[i].v] = true;
	for (uint32_t i = 0; i < x->nnode; i++) {
		const struct node *node = &g->node[x->node[i]];

		inside[x->node[i]] = true;
		for (uint32_t k = 0; k < node->nout; k++)
			core[node->out[k]] = of[node->out[k]] = node->out[k] && !x->t->fixed[node->out[k]];
	}
	core[x->r.o] = of[x->r.o] = false;
	for (int i = 0; i < x->n; i++)
		core[x->m[i].v] = false;
	for (uint32_t i = 0, near = 0; i < x->t->norder && near < 256; i++) { /* nodes beside the part */
		const struct node *node = &g->node[x->t->order[i]];
		bool all = true, any = false;

		if (node->dead || inside[x->t->order[i]] || !region_makes_polynomial(node))
			continue;
		for (uint32_t k = 0; k < node->nin; k++) {
			all = all && (of[node->in[k]] || x->t->fixed[node->in[k]]);
			any = any || of[node->in[k]];
		}
		if (!all || !any)
			continue;
		near++;
		inside[x->t->order[i]] = true;
		for (uint32_t k = 0; k < node->nout; k++)
			of[node->out[k]] = node->out[k] != 0;
	}
	want[0] = x->r.o;
	for (uint32_t i = 0; i < x->t->norder; i++) {
		const struct node *node = &g->node[x->t->order[i]];

		for (uint32_t k = 0; k < node->nout && !node->dead && inside[x->t->order[i]]; k++) {
			value_id v = node->out[k];
			bool member = false;

			for (int j = 0; j < x->n; j++)
				member = member || x->m[j].v == v;
			if (!v || member || v == x->r.o || !of[v] || !used_outside(x, inside, v))
				continue;
			if (n == MAX_LEAKS)
				return LINNET_OK;
			l[n].v = v;
			want[1 + n++] = v;
		}
	}
	if (!n) {
		*closed = true;
		return LINNET_OK;
	}
	TRY(read_part(x, want, 1 + n, x->first, e));
	set_width(x, false);
	arena_reset(x->trial);
	TRY(draw_roles(x, h, x->first, 0.7, &can, e));
	TRY(compute(x, x->first, &probe, &o, e));
	if (!can || !o || !state_axes(x, h, &axes))
		return LINNET_OK;
	TRY(recurrence(x, h, x->od, &r, &states, e));
	*closed = true;
	for (int i = 0; i < n; i++) {
		bool used[MAX_RANK] = { false };
		int64_t count = 1;

		l[i].t = probe.value[l[i].v];
		for (int k = 0; l[i].t && k < l[i].t->rank; k++)
			count *= l[i].t->d[k];
		if (l[i].t && l[i].t->dt == DT_DOUBLE && count == states->n && turns_into(&l[i], &axes, states, 0, used))
			l[(*nleak)++] = l[i];
		else if (core[l[i].v])
			*closed = false;
	}
	return LINNET_OK;
}

/* ---- The replacement ---- */

struct builder {
	struct search *x;
	const struct hypothesis *h;
	struct patch *p;
	int batch;          /* the axis of o that becomes LinearAttention's batch; NONE: a batch of one */
	struct list heads;  /* the other shared axes */
	int64_t H, R, F, E;
};

static bool is_number(const struct search *x, int j) { return dim_is_int(x->g->value[x->r.o].type.shape.d[j]); }

/* Shared axes are heads, which are numbers, but for one that is the batch. */
static bool choose_batch(struct builder *b)
{
	const struct hypothesis *h = b->h;
	const struct member *all[] = { h->q, h->k, h->v, h->g, h->beta, h->past };
	const struct search *x = b->x;
	int open = 0;

	b->batch = h->shared.n > 1 ? h->shared.axis[0] : NONE;
	for (int i = 0; i < h->shared.n; i++)
		if (!is_number(x, h->shared.axis[i])) {
			b->batch = h->shared.axis[i];
			open++;
		}
	for (size_t i = 0; i < sizeof all / sizeof *all && b->batch != NONE; i++)
		if (all[i] && all[i]->axis[b->batch] == NONE) {
			if (open)
				return false;
			b->batch = NONE;
		}
	for (int64_t s = 0; h->gamma && b->batch != NONE && s < size_of(&h->shared, x->whole); s++) {
		int64_t step = 1, n = x->whole[b->batch];

		for (int i = h->shared.n - 1; h->shared.axis[i] != b->batch; i--)
			step *= x->whole[h->shared.axis[i]];
		if (fabs(fade_of(h, x->whole, s) - fade_of(h, x->whole, s - s / step % n * step)) > 1e-9) {
			if (open)
				return false;
			b->batch = NONE;
		}
	}
	for (int i = 0; i < h->shared.n; i++)
		if (h->shared.axis[i] != b->batch)
			b->heads.axis[b->heads.n++] = h->shared.axis[i];
	for (int i = 0; i < h->columns.n; i++)
		open += !is_number(x, h->columns.axis[i]) * 2;
	for (int i = 0; i < h->group.n; i++)
		open += !is_number(x, h->group.axis[i]) * 2;
	b->H = size_of(&b->heads, x->whole);
	b->R = size_of(&h->group, x->whole);
	b->E = size_of(&h->columns, x->whole);
	b->F = h->k->nfree ? x->g->value[h->k->v].type.shape.d[h->k->free[0]] : 1;
	return open <= 1 && dim_is_int(b->F) && (!h->q->nfree || dim_is_int(x->g->value[h->q->v].type.shape.d[h->q->free[0]]));
}

static value_id reshaped(struct builder *b, value_id v, const int64_t *d, int n, const char *hint)
{
	return patch_node(b->p, "Reshape", hint, PATCH_IN(v, patch_ints(b->p, d, n, "shape")), 1, (const struct attr[]){ attr_int("allowzero", 0), { .name = NULL } });
}

static value_id transposed(struct builder *b, value_id v, const int64_t *perm, int n, const char *hint)
{
	for (int i = 0; i < n; i++)
		if (perm[i] != i)
			return patch_node(b->p, "Transpose", hint, PATCH_IN(v), 1, (const struct attr[]){ attr_ints("perm", perm, (size_t)n), { .name = NULL } });
	return v;
}

/* Axes of a member in a wanted order. */
struct order {
	int axis[2 * MAX_RANK];
	int64_t length[2 * MAX_RANK]; /* 0: kept as it is */
	int n;
};

static void want(struct order *w, int axis, int64_t length)
{
	w->axis[w->n] = axis;
	w->length[w->n++] = length;
}

static void want_list(struct order *w, const struct builder *b, const struct member *m, const struct list *l)
{
	for (int i = 0; i < l->n; i++)
		want(w, m->axis[l->axis[i]], b->x->whole[l->axis[i]]);
}

/* m with the axes w, repeated where it does not have them, then in shape d. 0 when it has others, or not those that cannot be repeated. */
static value_id arranged(struct builder *b, const struct member *m, const struct order *w, const int64_t *d, int n, const char *hint)
{
	int64_t perm[MAX_RANK] = { 0 }, with[2 * MAX_RANK], times[2 * MAX_RANK];
	int count = 0, missing = 0;
	bool used[MAX_RANK] = { false };
	value_id v = m->v;

	for (int i = 0; i < w->n; i++) {
		with[i] = w->length[i];
		times[i] = w->length[i] ? w->length[i] : 1;
		if (w->axis[i] == NONE) {
			missing += w->length[i] != 1;
			with[i] = 1;
			if (!w->length[i])
				return 0;
			continue;
		}
		perm[count++] = w->axis[i];
		used[w->axis[i]] = true;
	}
	for (int k = 0; k < m->rank; k++)
		if (!used[k]) {
			if (b->x->g->value[v].type.shape.d[k] != 1)
				return 0;
			perm[count++] = k;
		}
	v = transposed(b, v, perm, m->rank, hint);
	if (missing) {
		if (w->n > MAX_RANK)
			return 0;
		v = reshaped(b, v, with, w->n, hint);
		v = patch_node(b->p, "Expand", hint, PATCH_IN(v, patch_ints(b->p, times, w->n, "shape")), 1, NULL);
	}
	return reshaped(b, v, d, n, hint);
}

/* [batch, tokens, width] */
static value_id sequence(struct builder *b, const struct member *m, const struct list *more, bool rows, int64_t width, const char *hint)
{
	struct order w = { .n = 0 };
	bool batch = b->batch != NONE;

	if (batch)
		want(&w, m->axis[b->batch], 0);
	want(&w, m->token, 0);
	want_list(&w, b, m, &b->heads);
	if (more)
		want_list(&w, b, m, more);
	if (rows)
		want(&w, m->nfree ? m->free[0] : NONE, m->nfree ? b->F : 1);
	return arranged(b, m, &w, batch ? (int64_t[]){ 0, 0, width } : (int64_t[]){ 1, -1, width }, 3, hint);
}

static value_id past_state(struct builder *b)
{
	const struct member *m = b->h->past;
	struct order w = { .n = 0 };

	if (b->batch != NONE)
		want(&w, m->axis[b->batch], 0);
	want_list(&w, b, m, &b->heads);
	want(&w, m->nfree ? m->free[0] : NONE, m->nfree ? b->F : 1);
	want_list(&w, b, m, &b->h->columns);
	return arranged(b, m, &w, (int64_t[]){ b->batch != NONE ? 0 : 1, b->H, b->F, b->E }, 4, "past");
}

/* [batch, tokens, n] of constants [1, 1, n], with the lengths of `like`. */
static value_id over_tokens(struct builder *b, const struct tensor *c, value_id like, const char *hint)
{
	value_id lengths = patch_node(b->p, "Shape", "lengths", PATCH_IN(like), 1, (const struct attr[]){ attr_int("start", 0), attr_int("end", 2), { .name = NULL } });

	lengths = patch_node(b->p, "Concat", "lengths", PATCH_IN(lengths, patch_ints(b->p, &c->d[2], 1, "width")), 1, (const struct attr[]){ attr_int("axis", 0), { .name = NULL } });
	return patch_node(b->p, "Expand", hint, PATCH_IN(patch_const(b->p, c, hint), lengths), 1, NULL);
}

static enum linnet_code constant_decay(struct builder *b, enum dtype dt, value_id like, value_id *out, struct linnet_error *e)
{
	struct tensor *logs;
	const struct hypothesis *h = b->h;
	int64_t n = size_of(&h->shared, b->x->whole);

	TRY(tensor_new(b->p->arena, dt, 3, (int64_t[]){ 1, 1, b->H }, &logs, e));
	for (int64_t s = 0; s < n; s++) { /* the place among the heads */
		int64_t head = 0, rest = s, step = 1;

		for (int i = h->shared.n - 1; i >= 0; i--) {
			int64_t d = b->x->whole[h->shared.axis[i]];

			if (h->shared.axis[i] != b->batch) {
				head += rest % d * step;
				step *= d;
			}
			rest /= d;
		}
		tensor_put(logs, head, log(fade_of(h, b->x->whole, s)));
	}
	*out = over_tokens(b, logs, like, "decay");
	return LINNET_OK;
}

/* o [batch, tokens, heads group columns], as the part's o is laid out. */
static value_id spread(struct builder *b, value_id v)
{
	const struct search *x = b->x;
	const struct list *lists[] = { &b->heads, &b->h->group, &b->h->columns };
	int64_t d[2 + MAX_RANK], perm[MAX_RANK], ones[MAX_RANK];
	int place[MAX_RANK], n = 0, count = 0, none = 0;
	bool batch = b->batch != NONE;

	if (batch) {
		place[b->batch] = n;
		d[n++] = 0;
	}
	place[x->otoken] = n;
	d[n++] = batch ? 0 : -1;
	for (size_t i = 0; i < 3; i++)
		for (int k = 0; k < lists[i]->n; k++) {
			place[lists[i]->axis[k]] = n;
			d[n++] = x->whole[lists[i]->axis[k]];
		}
	v = reshaped(b, v, d, n, "heads");
	for (int j = 0; j < x->orank; j++)
		if (j != x->otoken && x->whole[j] == 1)
			ones[none++] = j;
		else
			perm[count++] = place[j];
	v = transposed(b, v, perm, n, "tokens");
	return none ? patch_node(b->p, "Unsqueeze", "tokens", PATCH_IN(v, patch_ints(b->p, ones, none, "axes")), 1, NULL) : v;
}

/* The state [batch, heads, rows, columns] as it is laid out where it is read. */
static value_id spread_state(struct builder *b, value_id v, const struct leak *l)
{
	const struct hypothesis *h = b->h;
	int64_t d[2 + MAX_RANK], perm[MAX_RANK], ones[MAX_RANK];
	int of[MAX_RANK], n = 0, none = 0, count = 0; /* of: the leak's axis of each of ours */
	int rank = l->t->rank;

	for (int pass = 0; pass < 2; pass++) /* the batch, then heads */
		for (int i = 0; i < h->shared.n; i++)
			if ((h->shared.axis[i] == b->batch) == !pass) {
				of[n] = l->axis[i];
				d[n++] = pass ? b->x->whole[h->shared.axis[i]] : 0;
			}
	if (b->F > 1) {
		of[n] = l->axis[h->shared.n];
		d[n++] = b->F;
	}
	for (int i = 0; i < h->columns.n; i++) {
		of[n] = l->axis[h->shared.n + 1 + i];
		d[n++] = b->x->whole[h->columns.axis[i]];
	}
	v = reshaped(b, v, d, n, "state");
	for (int j = 0; j < rank; j++) {
		int from = NONE;

		for (int i = 0; i < n; i++)
			from = of[i] == j ? i : from;
		if (from == NONE)
			ones[none++] = j;
		else
			perm[count++] = from;
	}
	v = transposed(b, v, perm, n, "state");
	return none ? patch_node(b->p, "Unsqueeze", "state", PATCH_IN(v, patch_ints(b->p, ones, none, "axes")), 1, NULL) : v;
}

static enum linnet_code build(struct search *x, const struct hypothesis *h, const struct leak *leak, int nleak, struct patch *p, struct linnet_error *e)
{
	static const char *const rules[2][2] = { { "linear", "gated" }, { "delta", "gated_delta" } };
	struct builder b = { .x = x, .h = h, .p = p };
	enum dtype dt = x->g->value[x->r.o].type.dt;
	value_id in[6] = { 0 }, made;
	bool fades = h->g || h->gamma;

	if (!choose_batch(&b) || (h->raw && !h->g->above))
		return LINNET_OK;
	in[0] = sequence(&b, h->q, &h->group, true, b.H * b.R * b.F, "query");
	in[1] = sequence(&b, h->k, NULL, true, b.H * b.F, "key");
	if (h->v) {
		in[2] = sequence(&b, h->v, &h->columns, false, b.H * b.E, "value");
	} else {
		struct tensor *ones;

		TRY(tensor_new(p->arena, dt, 3, (int64_t[]){ 1, 1, b.H }, &ones, e));
		for (int64_t i = 0; i < b.H; i++)
			tensor_put(ones, i, 1);
		in[2] = in[1] ? over_tokens(&b, ones, in[1], "ones") : 0;
	}
	if (h->past)
		in[3] = past_state(&b);
	if (h->g)
		in[4] = sequence(&b, h->g, NULL, h->g->nfree > 0, b.H * (h->g->nfree ? b.F : 1), "decay");
	else if (h->gamma && in[1])
		TRY(constant_decay(&b, dt, in[1], &in[4], e));
	if (h->raw && in[4]) /* what has faded to nothing is as good as e^-87 of it */
		in[4] = patch_node(p, "Max", "decay", PATCH_IN(patch_node(p, "Log", "decay", PATCH_IN(in[4]), 1, NULL), patch_float(p, dt, -87, "floor")), 1, NULL);
	if (h->beta)
		in[5] = sequence(&b, h->beta, NULL, false, b.H, "beta");
	if (!in[0] || !in[1] || !in[2] || (h->past && !in[3]) || (fades && !in[4]) || (h->beta && !in[5]))
		return LINNET_OK;
	made = patch_node(p, "LinearAttention", "recurrence", in, h->beta ? 6 : fades ? 5 : h->past ? 4 : 3, 2,
	                  (const struct attr[]){ attr_int("q_num_heads", b.H * b.R), attr_int("kv_num_heads", b.H), attr_float("scale", h->scale),
	                                         attr_string("update_rule", rules[h->beta != NULL][fades]), { .name = NULL } });
	patch_replace(p, x->r.o, spread(&b, made));
	for (int i = 0; i < nleak; i++)
		patch_replace(p, leak[i].v, spread_state(&b, made + 1, &leak[i]));
	return LINNET_OK;
}

/* ---- The pass ---- */

/* Numbers never above 0, by the operators that make them. */
static bool never_above(const struct graph *g, value_id v, int depth);

static bool never_below(const struct graph *g, value_id v, int depth)
{
	static const char *const sure[] = { "Exp", "Sigmoid", "Softplus", "Relu", "Abs", "Sqrt", "HardSigmoid", NULL };
	static const char *const kept[] = { "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Expand", "Cast", "CumSum", "Slice", "Gather", "ReduceSum", "Split", NULL };
	static const char *const joined[] = { "Add", "Mul", "Div", "Min", NULL };
	const struct node *n = value_node(g, v);
	const struct tensor *c = value_const(g, v);

	if (c) {
		for (int64_t i = 0; i < c->n; i++)
			if (!(tensor_get(c, i) >= 0))
				return false;
		return c->n > 0;
	}
	if (!n || !depth)
		return false;
	if (node_among(n, sure))
		return true;
	if (node_among(n, kept))
		return never_below(g, n->in[0], depth - 1);
	if (node_among(n, joined))
		return never_below(g, n->in[0], depth - 1) && never_below(g, n->in[1], depth - 1);
	if (node_is(n, "Max"))
		return never_below(g, n->in[0], depth - 1) || (n->nin > 1 && never_below(g, n->in[1], depth - 1));
	return node_is(n, "Neg") && never_above(g, n->in[0], depth - 1);
}

static bool never_above(const struct graph *g, value_id v, int depth)
{
	static const char *const kept[] = { "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Expand", "Cast", "CumSum", "Slice", "Gather", "ReduceSum", "Split", NULL };
	const struct node *n = value_node(g, v);
	const struct tensor *c = value_const(g, v);

	if (c) {
		for (int64_t i = 0; i < c->n; i++)
			if (!(tensor_get(c, i) <= 0))
				return false;
		return c->n > 0;
	}
	if (!n || !depth)
		return false;
	if (node_among(n, kept))
		return never_above(g, n->in[0], depth - 1);
	if (node_is(n, "Neg"))
		return never_below(g, n->in[0], depth - 1);
	if (node_is(n, "Log")) {
		const struct node *m = value_node(g, n->in[0]);

		return m && node_is(m, "Sigmoid");
	}
	if (node_is(n, "LogSoftmax"))
		return true;
	if (node_is(n, "Min"))
		return never_above(g, n->in[0], depth - 1) || (n->nin > 1 && never_above(g, n->in[1], depth - 1));
	if (node_is(n, "Clip"))
		return n->nin > 2 && n->in[2] && never_above(g, n->in[2], 1);
	if (node_is(n, "Add"))
		return never_above(g, n->in[0], depth - 1) && never_above(g, n->in[1], depth - 1);
	if (node_is(n, "Mul") || node_is(n, "Div"))
		return (never_above(g, n->in[0], depth - 1) && never_below(g, n->in[1], depth - 1)) || (never_below(g, n->in[0], depth - 1) && never_above(g, n->in[1], depth - 1));
	return false;
}

/* Tokens may lie along this axis of o. */
static enum linnet_code try_axis(struct search *x, const struct tensor *o, struct patch *p, bool *done, struct linnet_error *e)
{
	struct hypothesis h;
	struct leak leak[MAX_LEAKS];
	bool holds = true, closed;
	int nleak, own = 0, whole = 0;

	*done = false;
	set_width(x, true);
	for (int i = 0; i < x->n && holds; i++) {
		TRY(read_axes(x, i, o, &holds, e));
		own += holds && x->m[i].token != NONE && x->m[i].own;
		whole += holds && x->m[i].token == NONE;
		holds = holds && own < 2 && whole < 2; /* one query, one state */
	}
	if (holds)
		TRY(find_roles(x, o, &h, &holds, e));
	set_width(x, false);
	if (holds)
		TRY(verify_lengths(x, &h, &holds, e));
	if (!holds)
		return LINNET_OK;
	TRY(find_leaks(x, &h, leak, &nleak, &closed, e));
	if (!closed)
		return LINNET_OK;
	TRY(build(x, &h, leak, nleak, p, e));
	*done = !patch_empty(p);
	return LINNET_OK;
}

/* Keys of many numbers of size 1 make a delta rule grow without bound, and what one number changes is lost beside that. */
static bool runs_wild(const struct tensor *o)
{
	for (int64_t i = 0; i < o->n; i++)
		if (!(fabs(tensor_get(o, i)) < 1e6))
			return true;
	return false;
}

/* At least two that enter have the axis, and o. */
static bool worth_a_trial(const struct search *x)
{
	const struct graph *g = x->g;
	enum dtype dt = g->value[x->r.o].type.dt;
	int with = 0, tokens = 0;

	for (int k = 0; k < g->value[x->r.o].type.shape.rank; k++)
		tokens += region_counts(g, x->r.tokens, g->value[x->r.o].type.shape.d[k]);
	if (!tokens)
		return false;
	if (tokens > 1 && (x->n < 3 || x->symbol))
		return false;
	for (int i = 0; i < x->n; i++) {
		const struct type *t = &g->value[x->m[i].v].type;
		bool has = false;

		if (t->dt != dt || t->shape.rank < 1)
			return false;
		for (int k = 0; k < t->shape.rank; k++)
			has = has || t->shape.d[k] == x->r.tokens;
		with += has;
	}
	return with >= 2;
}

/* Along an axis that counts tokens, indices meet. */
static bool meet_along(const struct search *x, value_id v, dim tokens)
{
	const struct shape *s = &x->g->value[v].type.shape;

	for (int k = 0; k < s->rank; k++)
		if (region_counts(x->g, tokens, s->d[k]) && !narrow_axis(x->narrow, v, k))
			return true;
	return false;
}

static enum linnet_code try_tokens(struct search *x, value_id v, dim tokens, const char *symbol, unsigned how, struct patch *p, bool *done, struct linnet_error *e)
{
	static const int64_t lengths[] = { 6, 64, 16, 128, 32 };
	const struct tensor *o = NULL;
	struct tensor *base;
	bool found, can;

	*done = false;
	x->symbol = symbol;
	TRY(region_read(x->t, v, tokens, how, &x->r, &found, e));
	x->n = found ? x->r.nmember : 0;
	for (int i = 0; i < x->n; i++)
		x->m[i] = (struct member){ .v = x->r.member[i], .below = never_above(x->g, x->r.member[i], 12), .above = value_positive(x->g, x->r.member[i]) };
	if (!found || how != x->r.how || !worth_a_trial(x))
		return LINNET_OK;
	TRY(read_part(x, &v, 1, symbol ? lengths[0] : tokens, e));
	if (!meet_along(x, v, tokens))
		return LINNET_OK;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths && !o; i++) {
		struct probe probe;

		arena_reset(x->trial);
		x->first = symbol ? lengths[i] : tokens;
		if (x->first != x->length)
			TRY(read_widths(x, x->first, e));
		x->narrow->labels->sums = true;
		for (int k = 0; k < 2 && (!k || (o && runs_wild(o))); k++) {
			x->size = k ? 0.25 : 1;
			TRY(draw_plain(x, x->first, &can, e));
			if (can)
				TRY(compute(x, x->first, &probe, &o, e));
		}
		if (!symbol)
			break;
	}
	if (!o)
		return LINNET_OK;
	TRY(tensor_dup(x->t->a, o, &base, e));
	x->orank = base->rank;
	for (int j = 0; j < x->orank; j++)
		x->whole[j] = narrow_cut(x->narrow, v, j) ? narrow_whole(x->narrow, v, j) : base->d[j];
	for (x->otoken = 0; x->otoken < x->orank && !*done; x->otoken++)
		if (base->d[x->otoken] == x->first && dim_is_int(x->g->value[v].type.shape.d[x->otoken]) == !symbol) {
			struct search again = *x;

			TRY(try_axis(&again, base, p, done, e));
		}
	return LINNET_OK;
}

struct symbols {
	const char *name[4];
	int n;
};

static void note_symbol(void *ctx, const char *name)
{
	struct symbols *s = ctx;

	for (int i = 0; i < s->n; i++)
		if (!strcmp(s->name[i], name))
			return;
	if (s->n < 4)
		s->name[s->n++] = name;
}

static enum linnet_code try_value(struct search *x, value_id o, unsigned how, struct patch *p, bool *done, struct linnet_error *e)
{
	const struct graph *g = x->g;
	const struct shape *s = &g->value[o].type.shape;
	struct symbols symbols = { .n = 0 };

	*done = false;
	for (int i = 0; i < s->rank; i++)
		if (dim_is_expr(s->d[i]))
			dim_symbols(g->dims, s->d[i], note_symbol, &symbols);
	for (int i = symbols.n - 1; i >= 0 && !*done; i--) {
		arena_reset(x->t->a);
		TRY(try_tokens(x, o, dim_symbol(g->dims, symbols.name[i]), symbols.name[i], how, p, done, e));
	}
	for (int i = 0; i < s->rank && !*done && symbols.n < 2; i++) { /* batch and tokens are symbols where two are */
		bool before = !dim_is_int(s->d[i]) || s->d[i] < 2;

		for (int k = 0; k < i; k++)
			before = before || s->d[k] == s->d[i];
		arena_reset(x->t->a);
		if (!before)
			TRY(try_tokens(x, o, s->d[i], NULL, how, p, done, e));
	}
	return LINNET_OK;
}

/* tried: by value, those that were looked at; what patches add is nothing to look at. */
static enum linnet_code run_on(struct graph *g, struct arena *s, struct arena *part, struct arena *trial, bool *tried, uint32_t *count, struct linnet_error *e)
{
	const uint32_t nvalue = g->nvalue;
	struct view w = { .g = g, .scratch = part };
	struct terrain t;
	double spent = 0;
	struct search x = { .w = &w, .g = g, .t = &t, .trial = trial, .way = REGION_SPLIT, .spent = &spent, .most = g->outer ? FRUITLESS_INSIDE : FRUITLESS };
	const struct graph *main = g;

	while (main->outer)
		main = main->outer;
	TRY(terrain_survey(g, s, &t, e));
	t.a = part;
	TRY(graph_uses(g, s, &w.uses, e));
	for (uint32_t i = t.norder; i-- > 0 && spent <= x.most;)
		for (uint32_t k = 0; !g->node[t.order[i]].dead && k < g->node[t.order[i]].nout; k++) {
			value_id o = g->node[t.order[i]].out[k];
			const struct type *type = &g->value[o].type;
			struct patch p;
			bool done;

			if (!o || o >= nvalue || tried[o] || !t.loose[o] || !dtype_in(type->dt, SET(FLOAT) | HALVES) || type->shape.rank < 2)
				continue;
			tried[o] = true;
			patch_init(&p, g, e);
			p.uses = &w.uses;
			x.rng.state = 1;
			done = false;
			for (unsigned nth = 0; nth < REGION_WAYS && !done; nth++) {
				unsigned how = nth ? nth - (nth <= x.way) : x.way;

				TRY(try_value(&x, o, how, &p, &done, e));
				x.way = done ? how : x.way;
			}
			if (p.code)
				return p.code;
			if (!done || !patch_fits(&p, main))
				continue;
			TRY(patch_apply(g, &p, "linear/values", e));
			spent = 0;
			++*count;
			/* what is new is none of the survey's */
			arena_reset(s);
			TRY(terrain_survey(g, s, &t, e));
			t.a = part;
			TRY(graph_uses(g, s, &w.uses, e));
			i = t.norder;
			break;
		}
	return LINNET_OK;
}

static enum linnet_code linear_run(struct graph *g, uint32_t *count, struct linnet_error *e)
{
	struct arena *s = arena_new(), *part = arena_new(), *trial = arena_new();
	struct arena *whole = arena_new();
	bool *tried = whole ? NEW(whole, g->nvalue, bool) : NULL;
	enum linnet_code code = s && part && trial && tried ? run_on(g, s, part, trial, tried, count, e) : fail_mem(e);

	arena_free(whole);
	arena_free(s);
	arena_free(part);
	arena_free(trial);
	return code;
}

const struct pass linear_pass = { .name = "linear", .doc = "Recognise linear recurrences in any spelling, by what they compute", .kind = PASS_EXACT,
	                          .makes = "LinearAttention", .run = linear_run, .differs = 1e-4, .late = true };
