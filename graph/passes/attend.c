/*
 * Recognising softmax attention: softmax(scale q k^T + mask) v becomes one Attention node.
 *
 * Anchored on the softmax and the two matrix products around it; what lies between them is read as arithmetic on scores, what
 * lies outside (projections, layouts) is not looked at. Needs types. Leaves Attention with 4-D inputs
 * [B, H, L, D], [B, Hkv, S, D], [B, Hkv, S, E].
 *
 * Rows whose every key is hidden by -inf are outside the agreement: exporters spell them as NaN or as zeros, Attention says zeros.
 */
#include <math.h>
#include <string.h>

#include "graph/mask.h"
#include "graph/why.h"

enum { MAX_BIAS = 6, MAX_STEPS = 24 };

/* A term added to the scores: times * value, or the hiding of entries by a condition. */
struct term {
	value_id value;
	double times;   /* of an additive term */
	int level;      /* Reshapes of the scores behind it */
	bool condition; /* value is boolean: entries are hidden where it is `hides` */
	bool hides;
	double fill;
};

/* Scores as read back from the softmax: softcap * tanh(scale factor q k^T / softcap) + terms. */
struct scores {
	value_id q, kt;    /* of the product: [..., L, D], [..., D, S] */
	value_id product;  /* its result */
	double scale, softcap;
	const struct node *factor; /* Mul or Div by something that is the same for all entries of a head, or NULL */
	value_id by;               /* that */
	const struct node *sink;   /* joins one more logit to each row, or NULL: Concat, or Pad with zero */
	value_id logit;            /* that, [..., L or 1, 1]; 0: zero */
	struct term term[MAX_BIAS];
	int nterm;
	bool capped;
	int level;         /* Reshapes met so far */
	value_id at[3];    /* from 1 on: the scores in front of each */
	bool turned;       /* the product is k q^T: terms are [..., S, L] */
	bool grouped;      /* they are [B, Hkv, G, L, S] where the softmax is */
	double floor;      /* scores are kept from this number, as low as what hides, on */
	value_id blind;    /* which rows have -inf only, and are scored 0 before the softmax and weighted 0 behind it; 0: not said */
	int steps;
	const struct node *reader; /* through which they were reached */
};

static bool is_float(const struct graph *g, value_id v)
{
	return dtype_in(g->value[v].type.dt, FLOATS);
}

static bool add_term(const struct view *w, struct scores *s, struct term t)
{
	if (s->capped) /* inside a soft cap nothing may be added */
		return why_not(w, WHY_ATTENTION_SOFT_CAP, s->reader, t.value, s->steps);
	if (s->factor) /* nor before the factor */
		return why_not(w, WHY_ATTENTION_SCORES_MULTIPLIED, s->factor, t.value, s->steps);
	if (s->nterm == MAX_BIAS)
		return why_not(w, WHY_ATTENTION_MANY_TERMS, s->reader, t.value, s->steps);
	t.level = s->level;
	s->term[s->nterm++] = t;
	return true;
}

static bool read_scores(const struct view *w, value_id v, double mul, struct scores *s);

/* A Reshape that leaves the last two axes as they are. */
static bool keeps_last_two(const struct graph *g, const struct node *n)
{
	const struct shape *x = &g->value[n->in[0]].type.shape, *y = &g->value[n->out[0]].type.shape;

	return x->rank >= 2 && y->rank >= 2 && x->d[x->rank - 1] == y->d[y->rank - 1] && x->d[x->rank - 2] == y->d[y->rank - 2];
}

/* x is the scores, y a term: try that reading, leaving s as it was when it fails. */
static bool read_sum(const struct view *w, value_id x, struct term y, double mul, struct scores *s)
{
	struct scores keep = *s;

	if (add_term(w, s, y) && read_scores(w, x, mul, s))
		return true;
	*s = keep;
	return false;
}

/* Rows of which all is -inf become numbers, as Attention's own definition has it: Where(max(x) = -inf, c, x). */
static bool is_blind(const struct graph *g, const struct node *n)
{
	const struct node *equal = value_from(g, n->in[0], "Equal"), *most = equal ? value_from(g, equal->in[0], "ReduceMax") : NULL;
	int rank = g->value[n->in[2]].type.shape.rank, count;
	int64_t axis;
	double x;

	return most && most->in[0] == n->in[2] && value_scalar(g, equal->in[1], &x) && x == -INFINITY && value_scalar(g, n->in[1], &x) && isfinite(x) &&
	       node_attr(most, "keepdims")->i && most->nin > 1 && value_ints(g, most->in[1], &axis, 1, &count) && count == 1 && (axis == -1 || axis == rank - 1);
}

static bool read_where(const struct view *w, const struct node *n, double mul, struct scores *s)
{
	bool hides = false;

	if (!s->blind && !s->turned && is_blind(w->g, n)) {
		s->blind = n->in[0];
		return read_scores(w, n->in[2], mul, s);
	}
	for (int i = 1; i <= 2; i++) {
		struct term t = { .value = n->in[0], .condition = true, .hides = i == 1 };

		if (!value_filled(w->g, n->in[i], &t.fill) || !((mul < 0 ? -t.fill : t.fill) <= MASK_HIDDEN))
			continue;
		hides = true;
		t.fill = fmax(t.fill * mul, s->floor);
		if (read_sum(w, n->in[3 - i], t, mul, s))
			return true;
	}
	return hides ? false : why_not(w, WHY_ATTENTION_MASK_FILL, n, n->out[0], s->steps);
}

/* What an operator on the way that cannot be read is. */
static enum why_code unread(const struct node *n)
{
	static const struct {
		const char *op;
		enum why_code code;
	} known[] = { { "Concat", WHY_ATTENTION_SINK }, { "QuantizeLinear", WHY_ATTENTION_QUANTISED }, { "DequantizeLinear", WHY_ATTENTION_QUANTISED },
		      { "QLinearMatMul", WHY_ATTENTION_QUANTISED }, { "Transpose", WHY_ATTENTION_SCORES_LAYOUT }, { "Reshape", WHY_ATTENTION_SCORES_LAYOUT },
		      { "Slice", WHY_ATTENTION_SCORES_LAYOUT }, { "Gather", WHY_ATTENTION_SCORES_LAYOUT }, { "Mul", WHY_ATTENTION_SCORES_MULTIPLIED },
		      { "Div", WHY_ATTENTION_SCORES_MULTIPLIED }, { "Tanh", WHY_ATTENTION_SOFT_CAP } };

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(n->op->name, known[i].op))
			return known[i].code;
	return WHY_ATTENTION_OPERATOR;
}

/* n multiplies or divides the scores by v, which has no rows and columns of its own: a learned scale for each head, a temperature. */
static bool is_factor(const struct graph *g, const struct node *n, value_id v)
{
	const struct shape *x = &g->value[n->out[0]].type.shape, *c = &g->value[v].type.shape;

	if (c->rank < 0 || c->rank > x->rank)
		return false;
	for (int i = 1; i <= 2 && i <= c->rank; i++)
		if (c->d[c->rank - i] != 1)
			return false;
	return true;
}

/* n joins a logit to every row of the scores, its first input. */
static bool joins_sink(const struct graph *g, const struct node *n, value_id *logit)
{
	const struct shape *x = &g->value[n->in[0]].type.shape, *sink = n->nin > 1 && n->in[1] ? &g->value[n->in[1]].type.shape : NULL;
	int64_t axis = node_attr(n, "axis")->i;

	*logit = 0;
	if (!node_is(n, "Concat"))
		return pads_one(g, n, 1);
	*logit = n->in[1];
	return n->nin == 2 && x->rank >= 2 && (axis == -1 || axis == x->rank - 1) && sink->rank == x->rank && sink->d[x->rank - 1] == 1;
}

/* Read v as scores that are multiplied by mul before the softmax sees them. */
static bool read_scores(const struct view *w, value_id v, double mul, struct scores *s)
{
	const struct graph *g = w->g;
	const struct node *n = value_node(g, v), *reader = s->reader;
	double c;

	s->reader = n;
	if (!n)
		return why_not(w, WHY_ATTENTION_NO_SCORES, NULL, v, s->steps);
	if (value_uses(w, v) != (reader && s->blind && reader->in[0] == s->blind ? 2 : 1))
		return why_not(w, WHY_ATTENTION_SCORES_USED, other_user(w, v, reader), v, s->steps);
	if (++s->steps > MAX_STEPS)
		return why_not(w, WHY_ATTENTION_MANY_TERMS, n, v, s->steps);
	if (!n->known || n->op->domain)
		return why_not(w, unread(n), n, v, s->steps);
	if (node_is(n, "MatMul")) {
		s->q = n->in[0];
		s->kt = n->in[1];
		s->product = v;
		s->scale = mul;
		return true;
	}
	if (node_is(n, "Reshape") && s->level < 2 && !s->factor && keeps_last_two(g, n)) {
		s->at[++s->level] = n->in[0];
		return read_scores(w, n->in[0], mul, s);
	}
	if ((node_is(n, "Cast") && is_float(g, n->in[0])) || node_is(n, "Identity"))
		return read_scores(w, n->in[0], mul, s);
	if (node_is(n, "Mul"))
		for (int i = 0; i < 2; i++)
			if (value_scalar(g, n->in[i], &c))
				return read_scores(w, n->in[1 - i], mul * c, s);
	if (node_is(n, "Div") && value_scalar(g, n->in[1], &c) && c != 0)
		return read_scores(w, n->in[0], mul / c, s);
	if (node_is(n, "Neg"))
		return read_scores(w, n->in[0], -mul, s);
	for (int i = 0; n->nin == 2 && i < (node_is(n, "Max") ? 2 : node_is(n, "Clip") ? 1 : 0); i++)
		if (mul > 0 && value_scalar(g, n->in[1 - i], &c) && c <= MASK_HIDDEN) {
			s->floor = fmax(s->floor, c * mul);
			return read_scores(w, n->in[i], mul, s);
		}
	if (node_is(n, "Add"))
		return read_sum(w, n->in[0], (struct term){ .value = n->in[1], .times = mul }, mul, s) ||
		       read_sum(w, n->in[1], (struct term){ .value = n->in[0], .times = mul }, mul, s);
	if (node_is(n, "Sub"))
		return read_sum(w, n->in[0], (struct term){ .value = n->in[1], .times = -mul }, mul, s);
	if (node_is(n, "Where"))
		return read_where(w, n, mul, s);
	for (int i = 0; i < (node_is(n, "Mul") ? 2 : node_is(n, "Div") ? 1 : 0) && !s->factor; i++) {
		struct scores keep = *s;

		if (!is_factor(g, n, n->in[1 - i]))
			continue;
		s->factor = n;
		s->by = n->in[1 - i];
		if (read_scores(w, n->in[i], mul, s))
			return true;
		*s = keep;
	}
	if (!s->sink && !s->nterm && !s->level && !s->factor && !s->capped && !s->turned && mul == 1 && joins_sink(g, n, &s->logit)) {
		s->sink = n;
		return read_scores(w, n->in[0], 1, s);
	}
	if (node_is(n, "Tanh") && !s->capped && !s->factor && mul > 0) {
		s->capped = true;
		if (!read_scores(w, n->in[0], 1, s))
			return false;
		s->softcap = mul;
		s->scale *= mul;
		return true;
	}
	return why_not(w, unread(n), n, v, s->steps);
}

/* ---- After the softmax ---- */

struct weighted {
	value_id v;      /* [..., S, E] */
	value_id y;      /* the product's result */
	value_id p;      /* what it multiplies v by */
	bool transposed; /* y is v^T p^T */
};

/* Where(IsNaN(p), 0, p): rows that are all hidden give zeros. */
static const struct node *guarded(const struct view *w, value_id p)
{
	const struct node *where = NULL;

	for (uint32_t i = w->uses.begin[p]; i < w->uses.end[p]; i++) {
		const struct use *u = &w->uses.use[i];
		const struct node *n = u->node ? &w->g->node[u->node] : NULL, *isnan;
		double zero;

		if (!n)
			return NULL;
		if (node_is(n, "IsNaN"))
			continue;
		if (!node_is(n, "Where") || u->index != 2 || where || !value_scalar(w->g, n->in[1], &zero) || zero != 0)
			return NULL;
		isnan = value_from(w->g, n->in[0], "IsNaN");
		if (!isnan || isnan->in[0] != p || value_uses(w, n->in[0]) != 1)
			return NULL;
		where = n;
	}
	return where && value_uses(w, p) == 2 ? where : NULL;
}

/* Where(c, 0, p), or with p first, writes zeros where the scores were hidden by the same condition. */
static bool hides_again(const struct graph *g, const struct node *n, uint32_t index, const struct scores *s)
{
	double zero;

	if (!index || !value_scalar(g, n->in[3 - index], &zero) || zero != 0)
		return false;
	if (s->blind && n->in[0] == s->blind)
		return index == 2;
	for (int i = 0; i < s->nterm; i++)
		if (s->term[i].condition && s->term[i].value == n->in[0] && s->term[i].hides == (index == 2))
			return true;
	return false;
}

/* What is missed when n, the only user of the probabilities, is no step on the way to a product with values. */
static enum why_code unweighted(const struct view *w, const struct node *n)
{
	const char *op = n->op->name;
	const struct node *softmax = value_from(w->g, n->in[0], "Softmax");

	if (!strcmp(op, "QuantizeLinear") || !strcmp(op, "DequantizeLinear"))
		return WHY_ATTENTION_QUANTISED;
	if (!strcmp(op, "Slice"))
		return softmax && value_from(w->g, softmax->in[0], "Concat") ? WHY_ATTENTION_SINK : WHY_ATTENTION_PROBABILITIES_LAYOUT;
	if (!strcmp(op, "Transpose") || !strcmp(op, "Reshape"))
		return WHY_ATTENTION_PROBABILITIES_LAYOUT;
	return WHY_ATTENTION_PROBABILITIES_CHANGED;
}

/* Slice n leaves the probabilities of the keys, without that of the sink. */
static bool cuts_sink(const struct graph *g, const struct node *n, const struct scores *s)
{
	const struct shape *x = &g->value[n->in[0]].type.shape, *y = &g->value[n->out[0]].type.shape, *keys = &g->value[s->sink->in[0]].type.shape;
	double one;
	int64_t start;
	int count;

	if (!node_is(n, "Slice") || x->rank != y->rank || x->rank < 2 || keys->rank < 2 || y->d[y->rank - 1] != keys->d[keys->rank - 1] ||
	    !value_ints(g, n->in[1], &start, 1, &count) || count != 1 || start != 0 ||
	    (n->nin > 4 && n->in[4] && (!value_scalar(g, n->in[4], &one) || one != 1)))
		return false;
	for (int i = 0; i < x->rank - 1; i++)
		if (x->d[i] != y->d[i])
			return false;
	return true;
}

/* turned: p is stored transposed, [..., S, L]. */
static bool read_weighted(const struct view *w, value_id p, const struct scores *s, bool turned, struct weighted *out)
{
	const struct graph *g = w->g;
	const struct node *guard = NULL;
	bool moved = false, cut = !s->sink, zeroed = !s->blind;

	for (int step = 0; step < MAX_STEPS; step++) {
		uint32_t index;
		const struct node *n = value_user(w, p, &index);
		double one;

		if (!n)
			n = guard = guarded(w, p);
		if (!n && value_uses(w, p) > 1)
			return why_not(w, WHY_ATTENTION_PROBABILITIES_USED, NULL, p, step);
		if (!n)
			return why_not(w, WHY_ATTENTION_NO_VALUES, NULL, p, step);
		if (node_is(n, "MatMul") && index == (turned ? 1 : 0)) {
			*out = (struct weighted){ .v = n->in[turned ? 0 : 1], .y = n->out[0], .p = p, .transposed = turned };
			return cut ? zeroed || why_not(w, WHY_ATTENTION_MASK_FILL, n, p, step) : why_not(w, WHY_ATTENTION_SINK, s->sink, p, step);
		}
		if (node_is(n, "MatMul"))
			return why_not(w, WHY_ATTENTION_SOFTMAX_AXIS, n, p, step);
		if (node_is(n, "Transpose") && !moved && swaps_last_two(n, g->value[p].type.shape.rank)) {
			turned = !turned;
			moved = true;
		} else if (node_is(n, "Mul") && value_scalar(g, n->in[1 - index], &one) && one == 1) {
			;
		} else if (node_is(n, "Where") && (n == guard || hides_again(g, n, index, s))) {
			zeroed = zeroed || n->in[0] == s->blind;
		} else if (!cut && !index && cuts_sink(g, n, s)) {
			cut = true;
		} else if (!(node_is(n, "Reshape") && !index && keeps_last_two(g, n)) && !node_is(n, "Identity") &&
		           !(node_is(n, "Cast") && is_float(g, n->out[0]))) {
			return why_not(w, unweighted(w, n), n, p, step);
		}
		p = n->out[0];
	}
	return why_not(w, WHY_ATTENTION_MANY_TERMS, NULL, p, MAX_STEPS);
}

/* ---- Building the node ---- */

static value_id transpose_last(struct patch *p, value_id v, int rank, const char *hint)
{
	int64_t perm[MAX_RANK] = { 0 };
	struct attr attr[] = { attr_ints("perm", perm, (size_t)rank), { .name = NULL } };

	for (int i = 0; i < rank; i++)
		perm[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
	return patch_node(p, "Transpose", hint, PATCH_IN(v), 1, attr);
}

/* Shape(v)[from..to) as an int64 vector. */
static value_id dims_of(struct patch *p, value_id v, int64_t from, int64_t to, bool to_end)
{
	return patch_lengths(p, v, from, to_end ? INT64_MAX : to, "shape");
}

/* Where the leading lengths of scores v are read: off the queries when they have them, so that nothing keeps the scores alive. */
static value_id lead_of(const struct graph *g, value_id v, value_id q)
{
	const struct shape *a = &g->value[v].type.shape, *b = &g->value[q].type.shape;

	for (int i = 0; i < a->rank - 2; i++)
		if (a->rank != b->rank || a->d[i] != b->d[i])
			return v;
	return q;
}

/* They and a tail, as a shape; off the scores one by one, as numbers or for tidy/length to read off the graph's inputs. */
static value_id leads_of(struct patch *p, value_id v, value_id q, value_id tail)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	value_id from = lead_of(p->g, v, q), part[MAX_RANK];
	const struct shape *s = &p->g->value[from].type.shape;
	int n = s->rank - 2;
	bool known = false;

	for (int i = 0; i < n; i++)
		known = known || length_is_said(p->g, s->d[i]);
	if (from == q || !known) {
		part[0] = dims_of(p, from, 0, -2, false);
		n = 1;
	} else {
		for (int i = 0; i < n; i++)
			part[i] = length_is_said(p->g, s->d[i]) ? patch_said(p, s->d[i]) : dims_of(p, from, i, i + 1, false);
	}
	part[n] = tail;
	return patch_node(p, "Concat", "shape", part, (uint32_t)n + 1, 1, axis0);
}

/*
 * v [lead(v)..., a, b] with the leading lengths of scores `ref` instead, made 4-D: rank 3 gets one head, rank 5 and more merge their first.
 * full: v may be smaller than ref by broadcasting and is expanded first.
 */
static value_id as_heads(struct patch *p, value_id v, const struct shape *have, value_id ref, value_id q, const struct shape *want,
                         const char *hint)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	bool same = have->rank == want->rank;

	for (int i = 0; same && i < want->rank - 2; i++)
		same = have->d[i] == want->d[i] || (want->rank == 4 && i == 1); /* fewer key heads may broadcast */
	if (!same || want->rank > 4) {
		value_id lead, tail = dims_of(p, v, -2, 0, true), shape;

		if (want->rank == 3 || want->rank == 4) {
			shape = leads_of(p, ref, q, tail);
		} else {
			lead = want->rank == 2 ? patch_ints(p, (int64_t[]){ 1, 1 }, 2, "lead")
			                       : patch_node(p, "Concat", "shape",
			                                    PATCH_IN(patch_ints(p, (int64_t[]){ -1 }, 1, "rest"), dims_of(p, lead_of(p->g, ref, q), -3, -2, false)), 1, axis0);
			shape = patch_node(p, "Concat", "shape", PATCH_IN(lead, tail), 1, axis0);
		}
		v = patch_node(p, "Reshape", hint, PATCH_IN(v, shape), 1, NULL);
		if (want->rank != 3)
			return v;
	} else if (want->rank == 2) {
		return patch_node(p, "Unsqueeze", hint, PATCH_IN(v, patch_ints(p, (int64_t[]){ 0, 1 }, 2, "axes")), 1, NULL);
	}
	if (want->rank == 3)
		v = patch_node(p, "Unsqueeze", hint, PATCH_IN(v, patch_ints(p, (int64_t[]){ 1 }, 1, "axes")), 1, NULL);
	return v;
}

/* v broadcast to the leading lengths of `like`, where it is smaller. */
static value_id with_leads(struct patch *p, value_id v, value_id like)
{
	const struct shape *a = &p->g->value[v].type.shape, *b = &p->g->value[like].type.shape;
	bool same = a->rank == b->rank;
	value_id one;

	for (int i = 0; i < b->rank - 2; i++)
		same = same && a->d[i] == b->d[i];
	if (same)
		return v;
	one = patch_ints(p, (int64_t[]){ 1, 1 }, 2, "one");
	return patch_node(p, "Expand", "mask", PATCH_IN(v, leads_of(p, like, v, one)), 1, NULL);
}

/* Key heads and groups of s, which broadcasts to scores [B, Hkv, G, L, S], are those of the scores or both 1. */
static bool groups_fit(const struct shape *s, const struct shape *scores)
{
	dim heads = shape_as_rank(s, 5, 1), groups = shape_as_rank(s, 5, 2);

	return s->rank <= 5 && ((heads == 1 && groups == 1) || (heads == scores->d[1] && groups == scores->d[2]));
}

/* v, of which that is so, broadcasts to [B, Hkv G, L, S]. */
static value_id without_groups(struct patch *p, value_id v, const struct shape *s, const char *hint)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	value_id first;

	if (s->rank < 5 && shape_as_rank(s, 5, 1) == 1)
		return v;
	first = s->rank < 5 ? patch_ints(p, (int64_t[]){ 1 }, 1, "one") : dims_of(p, v, 0, 1, false);
	return patch_node(p, "Reshape", hint,
	                  PATCH_IN(v, patch_node(p, "Concat", "shape", PATCH_IN(first, patch_ints(p, (int64_t[]){ -1 }, 1, "heads"), dims_of(p, v, -2, 0, true)), 1, axis0)), 1, NULL);
}

/* One term as an additive mask of type dt, or a boolean one (true: visible) when `boolean`. */
static value_id make_term(struct patch *p, const struct scores *s, const struct term *t, value_id softmax_in, enum dtype dt, bool boolean)
{
	static const int64_t axes[MAX_RANK] = { 0, 1, 2, 3, 4, 5, 6, 7 };
	value_id v = t->value;
	int rank = p->g->value[t->level ? softmax_in : v].type.shape.rank;

	if (s->grouped && !t->level) {
		v = without_groups(p, v, &p->g->value[v].type.shape, "mask");
		rank = rank > 4 ? 4 : rank;
	}
	if (rank > 4 && !t->level) {
		v = patch_node(p, "Squeeze", "mask", PATCH_IN(v, patch_ints(p, axes, rank - 4, "axes")), 1, NULL);
		rank = 4;
	}
	if (t->level) {
		value_id tail = dims_of(p, v, -2, 0, true);

		v = patch_node(p, "Reshape", "mask",
		               PATCH_IN(with_leads(p, v, s->at[t->level]), leads_of(p, softmax_in, s->turned ? s->kt : s->q, tail)),
		               1, NULL);
	}
	if (s->turned)
		v = transpose_last(p, v, rank, "mask");
	if (t->condition && boolean)
		return t->hides ? patch_node(p, "Not", "visible", PATCH_IN(v), 1, NULL) : v;
	if (t->condition) {
		/* Where replaces the score, a bias is added to it: one so low that the sum is the same number for every score, be it computed in
		 * double, and that a few of them do not overflow. float16 has no such number. */
		double low = isinf(t->fill) || dt == DT_FLOAT16 ? t->fill : -0x1p126;
		value_id fill = patch_float(p, dt, low, "hidden"), zero = patch_float(p, dt, 0, "visible");

		return patch_node(p, "Where", "mask", PATCH_IN(v, t->hides ? fill : zero, t->hides ? zero : fill), 1, NULL);
	}
	if (p->g->value[t->value].type.dt != dt) {
		struct attr to[] = { attr_int("to", dt), { .name = NULL } };

		v = patch_node(p, "Cast", "mask", PATCH_IN(v), 1, to);
	}
	return t->times == 1 ? v : patch_node(p, "Mul", "mask", PATCH_IN(v, patch_float(p, dt, t->times, "times")), 1, NULL);
}

/* A column of zeros behind the mask's, for the sink. */
static value_id pad_end(struct patch *p, value_id v, int rank, int axis, const char *hint)
{
	int64_t pads[2 * MAX_RANK] = { 0 };

	pads[2 * rank - axis] = 1;
	return patch_node(p, "Pad", hint, PATCH_IN(v, patch_ints(p, pads, 2 * rank, "pads")), 1, NULL);
}

/* Whether v, which broadcasts to the scores, still does when the axes in front of their heads become one. */
static bool leads_merge(const struct scores *s, const struct shape *v, const struct shape *scores)
{
	if (s->grouped)
		return groups_fit(v, scores);
	for (int i = 0; i < v->rank - 3 && scores->rank > 4; i++)
		if (v->d[i] != 1)
			return false;
	return true;
}

/* The sink's logits behind zeros for all keys; *rank is theirs, 4 at most. */
static value_id make_sink(struct patch *p, const struct scores *s, enum dtype dt, int *rank)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	const struct graph *g = p->g;
	const struct node *expand = value_from(g, s->logit, "Expand");
	value_id v = s->logit, before, behind;
	int64_t zeros[MAX_RANK] = { 0 };
	struct attr to[] = { attr_int("to", dt), { .name = NULL } };
	const struct shape *of;

	*rank = g->value[v].type.shape.rank;
	if (expand && g->value[expand->in[0]].type.shape.rank == *rank && leads_merge(s, &g->value[expand->in[0]].type.shape, &g->value[s->sink->in[0]].type.shape))
		v = expand->in[0];
	of = &g->value[v].type.shape;
	if (g->value[v].type.dt != dt)
		v = patch_node(p, "Cast", "sink", PATCH_IN(v), 1, to);
	if (*rank > 4) {
		v = s->grouped ? without_groups(p, v, of, "sink")
		               : patch_node(p, "Reshape", "sink", PATCH_IN(v, patch_node(p, "Concat", "shape", PATCH_IN(patch_ints(p, (int64_t[]){ -1 }, 1, "rest"), dims_of(p, v, -3, 0, true)), 1, axis0)), 1, NULL);
		*rank = 4;
	}
	before = patch_ints(p, zeros, *rank - 1, "none");
	behind = patch_ints(p, zeros, *rank, "none");
	before = patch_node(p, "Concat", "pads", PATCH_IN(before, dims_of(p, s->kt, -1, 0, true), behind), 1, axis0);
	return patch_node(p, "Pad", "sink", PATCH_IN(v, before), 1, NULL);
}

static bool has_width(const struct graph *g, const struct scores *s, value_id v)
{
	const struct shape *t = &g->value[v].type.shape, *k = &g->value[s->kt].type.shape;

	return t->rank > 0 && k->rank > 0 && t->d[t->rank - 1] == k->d[k->rank - 1];
}

/* A term that is the same for all keys: Attention would hide the keys that its mask is too short for. */
static bool is_narrow(const struct graph *g, const struct scores *s, value_id v)
{
	const struct shape *t = &g->value[v].type.shape, *k = &g->value[s->turned ? s->q : s->kt].type.shape;
	int from_end = s->turned ? 2 : 1;

	return t->rank < from_end || (t->d[t->rank - from_end] == 1 && k->rank >= from_end && k->d[k->rank - from_end] != 1);
}

/* All terms as one mask [B or 1, H or 1, L or 1, S] for 4-D scores; 0 when there is none. */
static value_id make_mask(struct patch *p, const struct scores *s, value_id softmax_in, enum dtype dt)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	const struct graph *g = p->g;
	int rank = g->value[softmax_in].type.shape.rank, widest = 0;
	value_id mask = 0;
	bool wide = false, narrow = true; /* as wide as the keys, provably; all of them one wide */
	/* a finite fill keeps its meaning in rows that hide everything: the additive form says the same there */
	bool boolean = s->nterm == 1 && s->term[0].condition && isinf(s->term[0].fill) && !s->sink;

	for (int i = 0; i < s->nterm; i++) {
		value_id t = make_term(p, s, &s->term[i], softmax_in, dt, boolean);
		int r = s->term[i].level ? rank : g->value[s->term[i].value].type.shape.rank;

		r = r > 4 ? 4 : r;
		widest = r > widest ? r : widest;
		wide = wide || has_width(g, s, s->term[i].value);
		narrow = narrow && is_narrow(g, s, s->term[i].value);
		mask = mask ? patch_node(p, "Add", "mask", PATCH_IN(mask, t), 1, NULL) : t;
	}
	if (mask && (narrow || (s->sink && !wide))) {
		mask = patch_node(p, "Expand", "mask",
		                  PATCH_IN(mask, patch_node(p, "Concat", "shape", PATCH_IN(patch_ints(p, (int64_t[]){ 1 }, 1, "one"), s->turned ? dims_of(p, s->q, -2, -1, false) : dims_of(p, s->kt, -1, 0, true)), 1, axis0)),
		                  1, NULL);
		widest = widest > 2 ? widest : 2;
	}
	if (s->sink && mask)
		mask = pad_end(p, mask, widest, 1, "mask");
	if (s->logit) {
		int r;
		value_id sink = make_sink(p, s, dt, &r);

		widest = r > widest ? r : widest;
		mask = mask ? patch_node(p, "Add", "mask", PATCH_IN(mask, sink), 1, NULL) : sink;
	}
	return mask && widest > 2 && rank == 3 ? patch_node(p, "Unsqueeze", "mask", PATCH_IN(mask, patch_ints(p, (int64_t[]){ 1 }, 1, "axes")), 1, NULL) : mask;
}

static bool ranks_known(const struct view *w, const value_id *v, int n)
{
	for (int i = 0; i < n; i++)
		if (w->g->value[v[i]].type.shape.rank < 2 || !is_float(w->g, v[i]))
			return why_not(w, WHY_ATTENTION_RANK, value_node(w->g, v[i]), v[i], 0);
	return true;
}

/* Scores [B, Hkv, G, L, S] of queries in groups, with keys and values [B, Hkv, 1, S, D]. */
static bool are_grouped(const struct graph *g, value_id q, value_id k, value_id v)
{
	const struct shape *a = &g->value[q].type.shape;

	if (a->rank != 5 || a->d[2] == 1)
		return false;
	for (int i = 0; i < 2; i++) {
		const struct shape *b = &g->value[i ? v : k].type.shape;

		if (b->rank != 5 || b->d[0] != a->d[0] || b->d[1] != a->d[1] || b->d[2] != 1)
			return false;
	}
	return true;
}

static bool mask_fits(const struct graph *g, const struct scores *s, const struct term *term, const struct shape *scores)
{
	const struct shape *t = &g->value[term->value].type.shape, *u = &g->value[s->at[term->level]].type.shape;
	int rank = scores->rank;

	if (!term->level)
		return t->rank >= (s->turned ? 2 : 0) && t->rank <= rank && leads_merge(s, t, scores);
	if (rank > 4 || t->rank < 2 || t->rank > u->rank)
		return false;
	for (int k = 1; k <= t->rank - 2; k++)
		if (t->d[t->rank - 2 - k] != u->d[u->rank - 2 - k] && t->d[t->rank - 2 - k] != 1)
			return false;
	return true;
}

static bool masks_fit(const struct view *w, const struct scores *s, const struct shape *scores)
{
	for (int i = 0; i < s->nterm; i++)
		if (!mask_fits(w->g, s, &s->term[i], scores))
			return why_not(w, WHY_ATTENTION_MASK_SHAPE, value_node(w->g, s->term[i].value), s->term[i].value, 0);
	return true;
}

/* Queries, keys or values on the way into the node. */
struct side {
	value_id from; /* of the graph */
	value_id v;    /* turned, multiplied, expanded */
	struct shape s; /* leading lengths of v; the last two axes may be turned */
	bool expand;   /* lengths of 1 among them are to become those of the scores */
};

enum { Q, K, V, MASK, PAST_K, PAST_V, NINPUT };

/*
 * Attention repeats heads, never batches: all sides get the leading lengths of the result, keys and values of one head may keep it. Constants
 * may lack them. Lengths that are not known to be equal broadcast: each is that of the result, or 1.
 */
static bool leads_fit(const struct view *w, struct side *side, const struct shape *want)
{
	bool one_head = want->rank == 4 && side[K].s.rank == 4 && side[V].s.rank == 4 && side[K].s.d[1] == 1 && side[V].s.d[1] == 1;

	for (int i = Q; i <= V; i++) {
		struct shape *s = &side[i].s;
		bool fits;

		/* a matrix for all batches is a weight; but queries may be learned, and then the product is with keys as they are */
		if (i == Q && s->rank == 2 && want->rank > 2 && value_from(w->g, side[K].from, "Transpose")) {
			*s = (struct shape){ want->rank, { 1, 1, 1, 1, 1, 1, s->d[0], s->d[1] } };
			memmove(s->d, s->d + MAX_RANK - want->rank, (size_t)want->rank * sizeof *s->d);
		}
		fits = s->rank == want->rank;

		for (int j = 0; fits && j < want->rank - 2; j++) {
			if (s->d[j] == want->d[j] || (i != Q && j == 1 && one_head))
				continue;
			fits = s->d[j] == 1 || (dim_is_expr(s->d[j]) && length_is_said(w->g, want->d[j]));
			s->d[j] = want->d[j];
			side[i].expand = true;
		}
		if (!fits)
			return why_not(w, WHY_ATTENTION_BATCH, value_node(w->g, side[i].from), side[i].from, 0);
	}
	return true;
}

/* A length that is 1 in no run: a multiple of something more. */
static bool never_one(struct dims *t, dim d)
{
	enum { MAX_FACTOR = 64 };

	if (dim_is_int(d))
		return d != 1;
	for (int64_t k = 2; k <= MAX_FACTOR; k++)
		if (dim_divides(t, k, d))
			return true;
	return dim_ge(t, d, 2);
}

/* The leading lengths of the operands of a product are the same, or in no run 1, so that a run ends if they are not: nothing is repeated. */
static bool leads_meet(const struct view *w, value_id a, value_id b)
{
	const struct graph *g = w->g;
	const struct shape *s = &g->value[a].type.shape, *t = &g->value[b].type.shape;

	for (int i = 0; i < s->rank - 2 && s->rank == t->rank; i++)
		if (s->d[i] != t->d[i] && !(never_one(g->dims, s->d[i]) && never_one(g->dims, t->d[i])) && (s->rank > 4 || (dim_is_expr(s->d[i]) && dim_is_expr(t->d[i]))))
			return why_not(w, WHY_ATTENTION_BATCH, value_node(g, b), b, 0);
	return true;
}

/* The leading length of that axis, read off queries, keys or values when one of them has it. */
static value_id lead_length(struct patch *p, const struct side *side, int axis, dim d, value_id scores)
{
	const struct graph *g = p->g;
	value_id said;

	for (int i = Q; i <= V; i++) {
		const struct shape *s = &g->value[side[i].from].type.shape;

		if (axis < s->rank - 2 && s->rank == g->value[scores].type.shape.rank && s->d[axis] == d)
			return dims_of(p, side[i].from, axis, axis + 1, false);
	}
	said = patch_said(p, d);
	return said ? said : dims_of(p, scores, axis, axis + 1, false);
}

static void expand_side(struct patch *p, const struct side *all, struct side *side, value_id scores, const char *hint)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	value_id part[MAX_RANK], one;
	int r = side->s.rank;

	if (!side->expand)
		return;
	one = patch_ints(p, (int64_t[]){ 1, 1 }, 2, "one");
	for (int j = 0; j < r - 2; j++)
		part[j] = side->s.d[j] == 1 ? patch_ints(p, (int64_t[]){ 1 }, 1, "one")
		                            : lead_length(p, all, j, side->s.d[j], scores);
	part[r - 2] = one;
	side->v = patch_node(p, "Expand", hint, PATCH_IN(side->v, patch_node(p, "Concat", "shape", part, (uint32_t)(r - 1), 1, axis0)), 1, NULL);
}

/* The factor has one number for each head of the product's first operand, of its type. */
static bool factor_fits(const struct view *w, const struct scores *s)
{
	const struct type *c = &w->g->value[s->by].type, *q = &w->g->value[s->q].type;
	int more = q->shape.rank - c->shape.rank;
	bool fits = c->dt == q->dt && more >= 0;

	for (int i = 0; fits && i < c->shape.rank; i++)
		fits = c->shape.d[i] == 1 || c->shape.d[i] == q->shape.d[i + more];
	return fits || why_not(w, WHY_ATTENTION_SCORES_MULTIPLIED, s->factor, s->by, 0);
}

/* Scores before softmax n and a product behind it; with w->why both are looked at in any case. */
static bool read_around(const struct view *w, const struct node *n, struct scores *s, struct weighted *o)
{
	bool before, behind;

	s->reader = n;
	why_part(w, WHY_BEFORE);
	before = read_scores(w, n->in[0], 1, s);
	if (!before && !w->why)
		return false;
	if (before) /* other readings failed */
		why_forget(w, WHY_BEFORE);
	why_part(w, WHY_BEHIND);
	behind = read_weighted(w, n->out[0], s, s->turned, o);
	why_part(w, WHY_WHOLE);
	return before && behind;
}

static enum linnet_code attend_softmax(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	static const char *const names[] = { "q", "k", "v" };
	value_id x = n->in[0], first, y, mask, in[4];
	struct side side[3] = { { .from = 0 } };
	const struct shape *shape = &g->value[x].type.shape, *ys;
	struct shape want = *shape;
	struct scores s = { .floor = -INFINITY };
	struct weighted o = { 0 };
	int64_t axis = node_attr(n, "axis")->i;
	enum dtype dt;
	struct attr attr[4];
	int na = 0;
	bool grouped, plain;

	(void)e;
	if (shape->rank < 2) {
		why_not(w, WHY_ATTENTION_RANK, n, x, 0);
		return LINNET_OK;
	}
	axis = axis < 0 ? axis + shape->rank : axis;
	s.turned = axis == shape->rank - 2;
	if (axis < shape->rank - 2)
		why_not(w, WHY_ATTENTION_SOFTMAX_AXIS, n, x, 0);
	if ((axis < shape->rank - 2 && !w->why) || !read_around(w, n, &s, &o) || !ranks_known(w, (value_id[]){ s.q, s.kt, o.v, o.y }, 4))
		return LINNET_OK;
	ys = &g->value[o.y].type.shape;
	side[Q].from = s.turned ? s.kt : s.q;
	side[K].from = s.turned ? s.q : s.kt;
	side[V].from = o.v;
	grouped = ys->rank == 5 && are_grouped(g, side[Q].from, side[K].from, o.v);
	s.grouped = grouped && shape->rank == 5;
	if (!masks_fit(w, &s, shape))
		return LINNET_OK;
	dt = g->value[s.q].type.dt;
	if (g->value[s.kt].type.dt != dt || g->value[o.v].type.dt != dt) {
		why_not(w, WHY_ATTENTION_TYPES, value_node(g, g->value[s.kt].type.dt != dt ? s.kt : o.v), o.v, 0);
		return LINNET_OK;
	}
	if (s.scale == 0 || !isfinite(s.scale)) {
		why_not(w, WHY_ATTENTION_SCALE, value_node(g, s.product), s.product, 0);
		return LINNET_OK;
	}
	if (s.factor && !factor_fits(w, &s))
		return LINNET_OK;
	for (int i = Q; i <= V; i++)
		side[i].s = g->value[side[i].from].type.shape;
	plain = shape->rank == g->value[s.product].type.shape.rank && ys->rank == shape->rank;
	for (int i = 0; plain && shape->rank == 4 && i < 2; i++) /* values may have more batches than scores */
		want.d[i] = ys->d[i];
	if (!grouped && !(plain ? leads_fit(w, side, &want) : leads_meet(w, s.q, s.kt) && leads_meet(w, o.p, o.v)))
		return LINNET_OK;
	first = s.factor ? patch_node(p, s.factor->op->name, "scaled", PATCH_IN(s.q, s.by), 1, NULL) : s.q;
	if (s.scale < 0) /* some runtimes take a scale above 0 only */
		first = patch_node(p, "Neg", "negated", PATCH_IN(first), 1, NULL);
	side[K].v = s.turned ? first : transpose_last(p, s.kt, g->value[s.kt].type.shape.rank, "k");
	side[Q].v = s.turned ? transpose_last(p, s.kt, g->value[s.kt].type.shape.rank, "q") : first;
	side[V].v = o.transposed ? transpose_last(p, o.v, g->value[o.v].type.shape.rank, "v") : o.v;
	if (grouped) {
		value_id one = patch_ints(p, (int64_t[]){ 2 }, 1, "axis");

		in[Q] = without_groups(p, side[Q].v, &side[Q].s, "q");
		in[K] = patch_node(p, "Squeeze", "k", PATCH_IN(side[K].v, one), 1, NULL);
		in[V] = patch_node(p, "Squeeze", "v", PATCH_IN(side[V].v, one), 1, NULL);
	} else {
		for (int i = Q; i <= V; i++) {
			expand_side(p, side, &side[i], x, names[i]);
			in[i] = as_heads(p, side[i].v, &side[i].s, x, side[Q].from, &want, names[i]);
		}
	}
	mask = make_mask(p, &s, x, dt);
	for (int i = K; i <= V && s.sink; i++) /* a key and a value of zeros: its score is what the mask adds */
		in[i] = pad_end(p, in[i], 4, 2, names[i]);
	attr[na++] = attr_float("scale", fabs(s.scale));
	if (s.softcap > 0)
		attr[na++] = attr_float("softcap", s.softcap);
	if (g->value[x].type.dt != dt)
		attr[na++] = attr_int("softmax_precision", g->value[x].type.dt);
	attr[na] = (struct attr){ .name = NULL };
	in[MASK] = mask;
	y = patch_node(p, "Attention", *n->name ? n->name : "attention", in, mask ? 4 : 3, 1, attr);
	if (ys->rank == 3 && shape->rank == 3)
		y = patch_node(p, "Squeeze", "y", PATCH_IN(y, patch_ints(p, (int64_t[]){ 1 }, 1, "axes")), 1, NULL);
	else if (ys->rank == 2 && shape->rank == 2)
		y = patch_node(p, "Squeeze", "y", PATCH_IN(y, patch_ints(p, (int64_t[]){ 0, 1 }, 2, "axes")), 1, NULL);
	else if (ys->rank != 4 || shape->rank != 4) {
		y = patch_node(p, "Reshape", "y", PATCH_IN(y, leads_of(p, o.p, side[Q].from, dims_of(p, y, -2, 0, true))), 1, NULL);
	}
	if (o.transposed)
		y = transpose_last(p, y, ys->rank, "y");
	patch_replace(p, o.y, y);
	return LINNET_OK;
}

/* ---- Attention already found: its scale, its heads, its mask, its cache ---- */

void attention_again(struct patch *p, const struct node *n, const value_id *in, const struct attr *change)
{
	const struct graph *g = p->g;
	struct attr attr[16];
	uint32_t na = 0, nin = n->nin > NINPUT ? n->nin : NINPUT;
	value_id all[16] = { 0 }, out;

	for (uint32_t i = 0; i < nin && i < 16; i++)
		all[i] = i < NINPUT ? in[i] : n->in[i];
	while (nin && !all[nin - 1])
		nin--;
	for (uint32_t i = 0; i < n->nattr && na < 15; i++) {
		bool changed = false;

		for (const struct attr *c = change; c->name; c++)
			changed = changed || !strcmp(c->name, n->attr[i].name);
		if (n->attr[i].given && !changed)
			attr[na++] = n->attr[i];
	}
	for (; change->name && na < 15; change++)
		attr[na++] = *change;
	attr[na] = (struct attr){ .name = NULL };
	out = patch_op(p, n->op, *n->name ? n->name : "attention", all, nin, n->nout, attr);
	for (uint32_t i = 0; i < n->nout; i++)
		if (n->out[i] && g->value[n->out[i]].kind == VALUE_NODE)
			patch_replace(p, n->out[i], out + i);
}

static void inputs_of(const struct node *n, value_id *in)
{
	for (uint32_t i = 0; i < NINPUT; i++)
		in[i] = i < n->nin ? n->in[i] : 0;
}

/* The scale the node works with: its attribute or 1/sqrt(D). */
static bool scale_of(const struct graph *g, const struct node *n, double *scale)
{
	const struct attr *a = node_attr(n, "scale");
	const struct shape *q = &g->value[n->in[Q]].type.shape;

	if (a->given) {
		*scale = a->f;
		return true;
	}
	if (q->rank != 4 || !dim_is_int(q->d[3]) || q->d[3] <= 0)
		return false;
	*scale = 1 / sqrt((double)q->d[3]);
	return true;
}

enum { MAX_LAYOUT = 10, MAX_JOINED = 16 };

/* q or k = x * c, before layout steps and turning or without: the factor moves into `scale`. */
static enum linnet_code attend_scale(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	value_id in[NINPUT];
	double scale, c;

	(void)e;
	inputs_of(n, in);
	if (in[PAST_K] || !scale_of(g, n, &scale))
		return LINNET_OK;
	for (int i = Q; i <= K; i++) {
		const struct node *m = value_node(g, in[i]), *layout[MAX_LAYOUT];
		int at, steps = 0;

		while (m && steps < MAX_LAYOUT && m->nin <= MAX_JOINED && keeps_factor(g, m)) {
			layout[steps++] = m;
			m = value_node(g, m->in[0]);
		}
		if (!m || !(node_is(m, "Mul") || node_is(m, "Div")))
			continue;
		at = node_is(m, "Mul") && value_scalar(g, m->in[0], &c) ? 1 : 0;
		if (!at && !value_scalar(g, m->in[1], &c))
			continue;
		if (node_is(m, "Div"))
			c = 1 / c;
		if (dtype_in(g->value[m->in[at]].type.dt, FLOATS) && value_from(g, m->in[at], "Cast") &&
		    !dtype_in(g->value[value_node(g, m->in[at])->in[0]].type.dt, FLOATS)) /* that of numbers kept as integers */
			continue;
		if (!(c > 0) || !isfinite(c) || !shape_equal(&g->value[m->in[at]].type.shape, &g->value[m->out[0]].type.shape))
			continue;
		in[i] = m->in[at];
		while (steps--) {
			const struct node *step = layout[steps];
			struct attr attr[8];
			value_id again[MAX_JOINED] = { in[i] };
			uint32_t na = 0;

			for (uint32_t k = 1; k < step->nin && k < MAX_JOINED; k++)
				again[k] = joins_one(step) ? in[i] : step->in[k];
			for (uint32_t k = 0; k < step->nattr && na < 7; k++)
				if (step->attr[k].given)
					attr[na++] = step->attr[k];
			attr[na] = (struct attr){ .name = NULL };
			in[i] = patch_op(p, step->op, i == Q ? "q" : "k", again, step->nin, 1, attr);
		}
		attention_again(p, n, in, (struct attr[]){ attr_float("scale", scale * c), { .name = NULL } });
		return LINNET_OK;
	}
	return LINNET_OK;
}

enum { MAX_MOVED = 64 };

/* The operator moves and repeats numbers and changes none; *from: the inputs they come from. */
static bool moves_numbers(const struct graph *g, const struct node *n, uint32_t *from, uint32_t *end, bool *repeats)
{
	static const char *const moving[] = { "Transpose", "Split", "Slice", NULL }, *const repeating[] = { "Expand", "Tile", "Gather", "GatherND", "Concat", NULL };
	double one;

	*from = 0;
	*end = node_is(n, "Concat") ? n->nin : 1;
	for (int i = 0; node_is(n, "Mul") && i < 2; i++)
		if (value_filled(g, n->in[i], &one) && one == 1) {
			*from = 1 - (uint32_t)i;
			*end = *from + 1;
			return *repeats = true;
		}
	if (node_among(n, repeating))
		return *repeats = true;
	return node_among(n, moving) || n->op->flags & OP_VIEW;
}

/* What v is laid out from, itself first, the nearest before the farther; how many, 0 when nothing on the way repeats. */
static int moved_from(const struct graph *g, value_id v, value_id *out)
{
	bool repeats = false;
	int n = 1;

	out[0] = v;
	for (int i = 0; i < n; i++) {
		const struct node *by = value_node(g, out[i]);
		uint32_t k, end;

		if (!by || !moves_numbers(g, by, &k, &end, &repeats))
			continue;
		for (; k < end && n < MAX_MOVED; k++) {
			int j = 0;

			while (j < n && out[j] != by->in[k])
				j++;
			if (j == n)
				out[n++] = by->in[k];
		}
	}
	return repeats ? n : 0;
}

/* How often each head of t [B, H, S, D] is repeated in place (h0 h0 h1 h1). */
static int64_t times_repeated(const struct tensor *t)
{
	int64_t heads = t->d[1], per = t->d[2] * t->d[3], times;

	for (times = heads; times > 1; times--) {
		int64_t i = heads % times ? t->n : 0;

		for (; i < t->n; i++)
			if (tensor_get(t, i) != tensor_get(t, i - i / per % heads % times * per))
				break;
		if (i == t->n && heads % times == 0)
			break;
	}
	return times;
}

/* One of each head, as it was before they were repeated: of `from`, without axis `drop` (-1: all there are), in the order perm. */
struct unrepeated {
	value_id from;
	int drop;
	int64_t perm[4], heads;
};

/* t, without axis u->drop and turned by u->perm, has what v [B, H, S, D] has in every times-th head. */
static bool is_every(const struct tensor *v, const struct tensor *t, const struct unrepeated *u)
{
	int64_t stride[MAX_RANK] = { 0 }, along[4], times = v->d[1] / u->heads, at[4], n = 1;

	for (int i = t->rank - 1; i >= 0; i--) {
		stride[i] = n;
		n *= t->d[i];
	}
	for (int i = 0; i < 4; i++) {
		int axis = (int)u->perm[i] + (u->drop >= 0 && u->perm[i] >= u->drop);

		if (t->d[axis] != (i == 1 ? u->heads : v->d[i]))
			return false;
		along[i] = stride[axis];
	}
	for (int64_t i = 0; i < t->n; i++) {
		int64_t rest = i, from = 0;

		for (int k = 3; k >= 0; k--) {
			int64_t length = k == 1 ? u->heads : v->d[k];

			at[k] = rest % length;
			rest /= length;
			from += at[k] * along[k];
		}
		if (tensor_get(t, from) != tensor_get(v, ((at[0] * v->d[1] + at[1] * times) * v->d[2] + at[2]) * v->d[3] + at[3]))
			return false;
	}
	return true;
}

/* The lengths of u are those of v but for the heads, provably. */
static bool same_lengths(const struct graph *g, value_id v, const struct unrepeated *u)
{
	const struct shape *s = &g->value[v].type.shape, *f = &g->value[u->from].type.shape;

	for (int i = 0; i < 4; i++) {
		int axis = (int)u->perm[i] + (u->drop >= 0 && u->perm[i] >= u->drop);

		if (f->d[axis] != (i == 1 ? u->heads : s->d[i]))
			return false;
	}
	return true;
}

static const int64_t orders[][4] = { { 0, 1, 2, 3 }, { 0, 2, 1, 3 }, { 0, 1, 3, 2 }, { 0, 3, 1, 2 }, { 0, 2, 3, 1 }, { 1, 0, 2, 3 }, { 1, 2, 0, 3 }, { 2, 0, 1, 3 }, { 2, 1, 0, 3 } };

/* u->from [B, Hkv, S, D] in some order, one axis of length 1 more or not, of which v [B, H, S, D] is each head repeated in place: by what they have in a sample. */
static enum linnet_code find_layout(const struct view *w, value_id v, const struct tensor *sample, struct unrepeated *u, bool *found, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *s = &g->value[u->from].type.shape;
	const struct tensor *t = NULL;

	*found = false;
	for (int drop = s->rank == 4 ? -1 : 0; drop < (s->rank == 4 ? 0 : s->rank); drop++)
		for (size_t i = 0; (drop < 0 || s->d[drop] == 1) && i < sizeof orders / sizeof *orders; i++) {
			u->drop = drop;
			memcpy(u->perm, orders[i], sizeof u->perm);
			if (!same_lengths(g, v, u))
				continue;
			if (!t)
				TRY(sample_layout(g, u->from, w->scratch, &t, e));
			*found = t && is_every(sample, t, u);
			if (*found)
				return LINNET_OK;
		}
	return LINNET_OK;
}

/* The heads of v [B, H, S, D] as they were before each was repeated in place, however it was; out->from 0: none was. */
static enum linnet_code before_repeats(const struct view *w, value_id v, struct unrepeated *out, struct linnet_error *e)
{
	const struct graph *g = w->g;
	value_id from[MAX_MOVED];
	const struct tensor *sample;
	int n = g->value[v].type.shape.rank == 4 ? moved_from(g, v, from) : 0;

	*out = (struct unrepeated){ .from = 0 };
	if (!n)
		return LINNET_OK;
	TRY(sample_layout(g, v, w->scratch, &sample, e));
	if (!sample || !sample->n)
		return LINNET_OK;
	for (int i = 1; i < n; i++) {
		struct unrepeated u = { .from = from[i], .heads = sample->d[1] / times_repeated(sample) };
		int rank = g->value[u.from].type.shape.rank;
		bool found;

		if (u.heads == sample->d[1])
			return LINNET_OK;
		if (rank < 4 || rank > 5)
			continue;
		TRY(find_layout(w, v, sample, &u, &found, e));
		if (!found || (out->from && (out->drop < 0 || u.drop >= 0)))
			continue;
		*out = u;
		if (u.drop < 0 && !memcmp(u.perm, orders[0], sizeof u.perm))
			return LINNET_OK;
	}
	return LINNET_OK;
}

static value_id laid_out(struct patch *p, const struct unrepeated *u, const char *hint)
{
	value_id v = u->from;

	if (u->drop >= 0)
		v = patch_node(p, "Squeeze", hint, PATCH_IN(v, patch_ints(p, (int64_t[]){ u->drop }, 1, "axis")), 1, NULL);
	if (!memcmp(u->perm, orders[0], sizeof u->perm))
		return v;
	return patch_node(p, "Transpose", hint, PATCH_IN(v), 1, (struct attr[]){ attr_ints("perm", u->perm, 4), { .name = NULL } });
}

static value_id expanded(struct patch *p, value_id v, value_id lead, const char *hint)
{
	return lead ? patch_node(p, "Expand", hint, PATCH_IN(v, lead), 1, NULL) : v;
}

/* Keys or values with zeros behind them, for a sink. */
static bool is_padded(const struct graph *g, value_id v)
{
	const struct node *n = value_from(g, v, "Pad");

	return n && g->value[v].type.shape.rank == 4 && pads_one(g, n, 2);
}

/* Expand n has one length for the batch and ones for the other axes. */
static bool expands_batch(const struct graph *g, const struct node *n)
{
	const struct node *to = node_is(n, "Expand") ? value_from(g, n->in[1], "Concat") : NULL;
	int rank = g->value[n->in[0]].type.shape.rank, count, total = 1;
	int64_t ones[MAX_RANK];

	if (!to || g->value[n->out[0]].type.shape.rank != rank)
		return false;
	for (uint32_t i = 1; i < to->nin; i++) {
		if (!value_ints(g, to->in[i], ones, MAX_RANK, &count))
			return false;
		total += count;
		while (count--)
			if (ones[count] != 1)
				return false;
	}
	return total == rank && g->value[to->in[0]].type.shape.d[0] == 1;
}

static enum linnet_code attend_group(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	static const struct attr none[] = { { .name = NULL } };
	static const char *const names[] = { "k", "v" };
	struct unrepeated u[2];
	value_id in[NINPUT], lead[2] = { 0 }; /* lead: to what keys and values are expanded behind their repetition */
	bool sink;

	inputs_of(n, in);
	if (in[PAST_K])
		return LINNET_OK;
	sink = is_padded(w->g, in[K]) && is_padded(w->g, in[V]);
	for (int i = 0; i < 2; i++) {
		const struct node *made = value_node(w->g, in[K + i]);
		value_id x = in[K + i];

		if (sink || (made && expands_batch(w->g, made))) {
			x = made->in[0];
			lead[i] = sink ? 0 : made->in[1];
		}
		TRY(before_repeats(w, x, &u[i], e));
		if (!u[i].from || u[i].heads != u[0].heads)
			return LINNET_OK;
	}
	for (int i = 0; i < 2; i++) {
		in[K + i] = laid_out(p, &u[i], names[i]);
		in[K + i] = sink ? pad_end(p, in[K + i], 4, 2, names[i]) : expanded(p, in[K + i], lead[i], names[i]);
	}
	attention_again(p, n, in, none);
	return LINNET_OK;
}

/* Queries and keys of one length, provably. */
static bool square(const struct graph *g, const value_id *in)
{
	const struct shape *q = &g->value[in[Q]].type.shape, *k = &g->value[in[K]].type.shape;

	return !in[PAST_K] && q->rank == 4 && k->rank == 4 && q->d[2] == k->d[2];
}

/* The mask's one row is for several queries. */
static bool has_one_row(const struct graph *g, const value_id *in)
{
	const struct shape *q = &g->value[in[Q]].type.shape, *m = &g->value[in[MASK]].type.shape;

	return (m->rank < 2 || m->d[m->rank - 2] == 1) && q->rank >= 2 && q->d[q->rank - 2] != 1;
}

/* The mask turned into what it says: nothing, causality, a window; what is left stays a mask. */
static enum linnet_code attend_mask(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	value_id in[NINPUT];
	struct mask m;
	struct attr change[4];
	int nc = 0;
	bool causal, within;

	inputs_of(n, in);
	if (!in[MASK] || node_attr(n, "is_causal")->i)
		return LINNET_OK;
	TRY(mask_classify(w->g, in[MASK], &m, e));
	if (!m.known)
		return LINNET_OK;
	if (has_one_row(w->g, in)) { /* the same for all queries: that of the first says nothing of the others */
		m.causal = m.causal_past = m.within = m.within_past = false;
		m.left = m.reach = -1;
	}
	/* counted from the last key where the node knows of a past, from the first where it does not */
	causal = in[PAST_K] ? m.causal_past : m.causal;
	within = in[PAST_K] ? m.within_past : m.within && square(w->g, in);
	if (m.zero && !m.data) {
		in[MASK] = 0;
	} else if (causal && m.plain && !m.data) {
		in[MASK] = 0;
		change[nc++] = attr_int("is_causal", 1);
	} else if (m.left >= 0 && m.plain && !m.data && (in[PAST_K] || square(w->g, in))) {
		in[MASK] = 0;
		change[nc++] = attr_int("is_causal", 1);
		change[nc++] = attr_int("left_window_size", m.left);
	} else if (within && (m.shown || graph_main(w->g)->reads)) {
		change[nc++] = attr_int("is_causal", 1); /* the mask hides more: it stays */
		if (m.reach >= 0 && node_attr(n, "left_window_size")->i < 0)
			change[nc++] = attr_int("left_window_size", m.reach);
	} else {
		return LINNET_OK;
	}
	change[nc] = (struct attr){ .name = NULL };
	attention_again(p, n, in, change);
	return LINNET_OK;
}

/*
 * Whether v, which is to become an output of n, is needed for one of its inputs by another way than as keys or values. Looked for from v's other
 * users on, over so many nodes; true when they do not suffice.
 */
static bool is_needed(const struct view *w, const struct node *n, value_id v)
{
	enum { MAX_LOOKED = 64 };
	const struct graph *g = w->g;
	value_id todo[MAX_LOOKED] = { v };
	int have = 1;

	for (int i = 0; i < have; i++)
		for (uint32_t k = w->uses.begin[todo[i]]; k < w->uses.end[todo[i]]; k++) {
			const struct use *u = &w->uses.use[k];
			const struct node *user = u->node ? &g->node[u->node] : NULL;

			if (!user || (user == n && !i && (u->index == K || u->index == V)))
				continue;
			if (user == n || have + (int)user->nout > MAX_LOOKED)
				return true;
			for (uint32_t o = 0; o < user->nout; o++)
				if (user->out[o])
					todo[have++] = user->out[o];
		}
	return false;
}

/* k and v = Concat(past, new) over the length: past_key and past_value, so that causality counts from the last key. */
static enum linnet_code attend_cache(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	value_id in[NINPUT];
	const struct node *c[2];
	struct attr attr[16];
	uint32_t na = 0;
	value_id out;

	(void)e;
	inputs_of(n, in);
	if (in[PAST_K] || n->nout != 1 || node_attr(n, "is_causal")->i)
		return LINNET_OK;
	for (int i = 0; i < 2; i++) {
		c[i] = value_from(g, in[K + i], "Concat");
		if (!c[i] || c[i]->nin != 2 || g->value[c[i]->out[0]].type.shape.rank != 4 ||
		    (node_attr(c[i], "axis")->i != 2 && node_attr(c[i], "axis")->i != -2) ||
		    g->value[c[i]->in[0]].kind != VALUE_INPUT || is_needed(w, n, in[K + i]))
			return LINNET_OK;
	}
	for (uint32_t i = 0; i < n->nattr && na < 15; i++)
		if (n->attr[i].given)
			attr[na++] = n->attr[i];
	attr[na] = (struct attr){ .name = NULL };
	out = patch_op(p, n->op, *n->name ? n->name : "attention",
	               PATCH_IN(in[Q], c[0]->in[1], c[1]->in[1], in[MASK], c[0]->in[0], c[1]->in[0]), 3, attr);
	patch_replace(p, n->out[0], out);
	patch_replace(p, c[0]->out[0], out + 1);
	patch_replace(p, c[1]->out[0], out + 2);
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "attend/softmax", .doc = "softmax(scale q k^T + mask) v becomes Attention", .anchor = "Softmax", .apply = attend_softmax, .differs = 1e-6 },
	{ .name = "attend/scale", .doc = "a constant factor of q or k moves into scale", .anchor = "Attention", .apply = attend_scale, .differs = 1e-6 },
	{ .name = "attend/group", .doc = "keys and values repeated in place, by whatever moves numbers, become grouped heads", .anchor = "Attention", .apply = attend_group, .differs = 1e-6 },
	{ .name = "attend/cache", .doc = "keys and values appended to an input become past_key and past_value", .anchor = "Attention", .apply = attend_cache, .differs = 1e-6 },
	{ .name = "attend/mask", .doc = "a mask whose values are causal, a window or nothing becomes an attribute", .anchor = "Attention", .apply = attend_mask, .differs = 1e-6 },
};

const struct pass attend_pass = { .name = "attend", .doc = "Recognise softmax attention", .kind = PASS_EXACT, .makes = "Attention", PASS_RULES(rules) };
