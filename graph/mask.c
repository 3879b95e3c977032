/* Evaluating masks for small lengths, and reading off what they are. */
#include "graph/mask.h"

#include <math.h>
#include <string.h>

#include "ops/base/rng.h"

enum { TRIALS = 5, MAX_NODES = 4096, MAX_SYMBOLS = 6 };
static const int64_t max_eval = 1 << 22; /* elements of one value */

struct eval {
	const struct graph *g;
	struct arena *a;
	const struct tensor **done; /* by value */
	int trial, nodes;
	bool draw, drew;
	const char *symbol[MAX_SYMBOLS]; /* met so far */
	int nsymbol;
	int sum, part[2]; /* symbol `sum` is the sum of those two; part[0] < 0: none is */
	struct linnet_error *e;
};

static dim own_length(const struct eval *ev, const char *name)
{
	static const dim base[TRIALS] = { 5, 7, 4, 1, 9 };
	unsigned h = 0;

	for (const char *s = name; *s; s++)
		h = h * 31 + (unsigned char)*s;
	return base[ev->trial] + (ev->trial == 3 ? 0 : (dim)(h % 3));
}

/* The length a symbol stands for in a trial: small, different between symbols where chance has it so. */
static dim symbol_length(void *ctx, const char *name)
{
	struct eval *ev = ctx;
	int i = 0;

	while (i < ev->nsymbol && strcmp(ev->symbol[i], name) != 0)
		i++;
	if (i == ev->nsymbol && i < MAX_SYMBOLS)
		ev->symbol[ev->nsymbol++] = name;
	if (ev->part[0] >= 0 && i == ev->sum)
		return own_length(ev, ev->symbol[ev->part[0]]) + own_length(ev, ev->symbol[ev->part[1]]);
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

static enum linnet_code eval_value(struct eval *ev, value_id v, const struct tensor **out);

/* A graph input's data: ones, or seeded 0 and 1 (integers, bool) or [0, 1) (floats). */
static enum linnet_code draw_input(struct eval *ev, value_id v, const struct tensor **out)
{
	const struct type *t = &ev->g->value[v].type;
	struct rng r = { (uint64_t)v * 977 + (uint64_t)ev->trial };
	int64_t d[MAX_RANK];
	struct tensor *x;

	*out = NULL;
	if (!ev->draw || t->kind != KIND_TENSOR || !dtype_in(t->dt, NUMBERS | SET(BOOL)) || !concrete(ev, &t->shape, d))
		return LINNET_OK;
	ev->drew = true;
	TRY(tensor_new(ev->a, t->dt, t->shape.rank, d, &x, ev->e));
	for (int64_t i = 0; i < x->n; i++)
		tensor_put(x, i, !ev->trial ? 1 : dtype_class(t->dt) == CLASS_FLOAT ? rng_unit(&r) : (double)rng_below(&r, 2));
	*out = x;
	return LINNET_OK;
}

/* Inputs of a node: evaluated, or headers without data where only the shape is read. false: cannot. */
static enum linnet_code eval_inputs(struct eval *ev, const struct node *n, const struct tensor **in, bool *can)
{
	struct linnet_error *e = ev->e;

	*can = true;
	for (uint32_t i = 0; i < n->nin && *can; i++) {
		const struct type *t = &ev->g->value[n->in[i]].type;
		int64_t d[MAX_RANK];
		struct tensor *x;

		if (!n->in[i])
			continue;
		if (!(n->op->flags & OP_SHAPE_ONLY)) {
			TRY(eval_value(ev, n->in[i], &in[i]));
			*can = in[i] != NULL;
			continue;
		}
		*can = t->dt != DT_UNDEFINED && concrete(ev, &t->shape, d);
		if (*can) {
			TRY_NEW(x, ev->a, 1);
			x->dt = t->dt;
			x->rank = t->shape.rank;
			memcpy(x->d, d, sizeof d);
			*can = !tensor_size(x->dt, x->rank, x->d, 0, &x->n, &x->bytes, NULL);
			in[i] = x;
		}
	}
	return LINNET_OK;
}

static enum linnet_code eval_node(struct eval *ev, const struct node *n)
{
	struct linnet_error *e = ev->e, quiet = { 0 };
	const struct tensor **in;
	struct tensor **result;
	bool *wanted, can;
	enum linnet_code code;

	if (!n->known || !n->op->kernel || n->op->flags & OP_CONTROL || n->op->agree == AGREE_RANDOM || ++ev->nodes > MAX_NODES)
		return LINNET_OK;
	TRY_NEW(in, ev->a, n->nin);
	TRY_NEW(result, ev->a, n->nout);
	TRY_NEW(wanted, ev->a, n->nout);
	TRY(eval_inputs(ev, n, in, &can));
	if (!can)
		return LINNET_OK;
	for (uint32_t i = 0; i < n->nout; i++) {
		int64_t d[MAX_RANK], count = 1;
		const struct shape *s = &ev->g->value[n->out[i]].type.shape;

		wanted[i] = n->out[i] != 0;
		if (!wanted[i] || !concrete(ev, s, d))
			continue;
		for (int k = 0; k < s->rank; k++)
			count = d[k] && count > max_eval / d[k] ? max_eval + 1 : count * d[k];
		if (count > max_eval)
			return LINNET_OK;
	}
	code = op_eval(n->op, n->attr, (int)n->nin, in, (int)n->nout, wanted, ev->a, result, &quiet);
	if (code == LINNET_EMEM)
		return fail_mem(e);
	for (uint32_t i = 0; i < n->nout && !code; i++)
		if (wanted[i])
			ev->done[n->out[i]] = result[i];
	return LINNET_OK;
}

static enum linnet_code eval_value(struct eval *ev, value_id v, const struct tensor **out)
{
	const struct value *val = &ev->g->value[v];

	*out = val->type.value;
	if (!*out)
		*out = ev->done[v];
	if (*out)
		return LINNET_OK;
	if (val->kind == VALUE_INPUT) {
		TRY(draw_input(ev, v, &ev->done[v]));
	} else if (val->kind == VALUE_NODE && val->producer) {
		TRY(eval_node(ev, &ev->g->node[val->producer]));
	}
	*out = ev->done[v];
	return LINNET_OK;
}

static enum linnet_code eval_trial(struct eval *ev, const struct graph *g, value_id v, int trial, bool draw, struct arena *a,
                                   const struct tensor **out, struct linnet_error *e)
{
	*ev = (struct eval){ .g = g, .a = a, .trial = trial, .draw = draw, .part = { -1, -1 }, .e = e };
	TRY_NEW(ev->done, a, g->nvalue);
	TRY(eval_value(ev, v, out));
	/* lengths that do not go together: exporters name that of a whole sequence apart from those of the past and the new */
	for (int all = ev->nsymbol, sum = 0; draw && !*out && sum < all; sum++)
		for (int i = 0; i < all && !*out; i++)
			for (int j = i + 1; j < all && !*out; j++) {
				if (i == sum || j == sum)
					continue;
				ev->sum = sum;
				ev->part[0] = i;
				ev->part[1] = j;
				ev->nodes = 0;
				TRY_NEW(ev->done, a, g->nvalue);
				TRY(eval_value(ev, v, out));
			}
	return LINNET_OK;
}

enum linnet_code value_eval(const struct graph *g, value_id v, int trial, bool draw, struct arena *a, const struct tensor **out,
                            struct linnet_error *e)
{
	struct eval ev;

	return eval_trial(&ev, g, v, trial, draw, a, out, e);
}

/* ---- Reading off ---- */

/* Bias of an entry; -INFINITY when hidden. */
static double entry(const struct tensor *t, int64_t i)
{
	double x = tensor_get(t, i);

	if (t->dt == DT_BOOL)
		return x != 0 ? 0 : -INFINITY;
	return x <= MASK_HIDDEN ? -INFINITY : x;
}

/* Narrow m by one evaluated mask of rank >= 2. */
static void observe(struct mask *m, const struct tensor *t, bool *window_seen)
{
	int64_t L = t->d[t->rank - 2], S = t->d[t->rank - 1], per = L * S;

	for (int64_t b = 0; per && b < t->n / per; b++)
		for (int64_t i = 0; i < L; i++) {
			int64_t first = -1;

			for (int64_t j = 0; j < S; j++) {
				double x = entry(t, b * per + i * S + j), last = entry(t, b * per + (L - 1) * S + j);
				bool seen = x != -INFINITY, low = j <= i, low_past = j <= i + S - L;

				if (seen && first < 0)
					first = j;
				m->zero = m->zero && x == 0;
				m->plain = m->plain && (!seen || x == 0);
				m->within = m->within && (low || !seen);
				m->within_past = m->within_past && (low_past || !seen);
				m->causal = m->causal && seen == low;
				m->causal_past = m->causal_past && seen == low_past;
				m->by_key = m->by_key && (x == last || (!seen && !low_past));
			}
			m->shown = m->shown && first >= 0;
			if (first > 0 && !*window_seen) { /* the first row that hides its beginning tells the window */
				m->left = i + (m->within_past ? S - L : 0) - first;
				*window_seen = true;
			}
		}
}

/* Whether every row shows exactly the keys from `left` before its own up to its own. */
static bool is_window(const struct tensor *t, int64_t left)
{
	int64_t L = t->d[t->rank - 2], S = t->d[t->rank - 1], per = L * S;

	for (int64_t k = 0; k < t->n; k++) {
		int64_t i = k % per / S + (S - L), j = k % S;

		if ((entry(t, k) != -INFINITY) != (j <= i && j >= i - left))
			return false;
	}
	return true;
}

/* Whether all keys outside the window are hidden, and every row that has a key in its window says the same of it. */
static bool window_of_keys(const struct tensor *t, int64_t left)
{
	int64_t L = t->d[t->rank - 2], S = t->d[t->rank - 1], per = L * S;

	for (int64_t k = 0; k < t->n; k++) {
		int64_t i = k % per / S + (S - L), j = k % S, own = k - k % per + (j - (S - L)) * S + j; /* the key's own row */
		bool inside = j <= i && j >= i - left;

		if (inside ? j >= S - L && entry(t, k) != entry(t, own) : entry(t, k) != -INFINITY)
			return false;
	}
	return true;
}

/* The window that the first trial shows, where inputs hide nothing; -1: none. */
static int64_t window_shown(const struct tensor *t)
{
	struct mask m = { .within_past = true, .left = -1 };
	bool seen = false;

	observe(&m, t, &seen);
	return m.left >= 0 && is_window(t, m.left) ? m.left : -1;
}

enum linnet_code mask_classify(const struct graph *g, value_id v, struct mask *out, struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct mask m = { .known = true, .zero = true, .shown = true, .plain = true, .within = true, .within_past = true, .causal = true,
	                  .causal_past = true, .by_key = true, .left = -1 };
	const struct tensor *seen[TRIALS] = { NULL };
	bool window_seen = false, fixed = g->value[v].type.value != NULL;
	enum linnet_code code = a ? LINNET_OK : fail_mem(e);

	for (int trial = 0; trial < (fixed ? 1 : TRIALS) && !code && m.known; trial++) {
		struct eval ev;
		const struct tensor *t;

		code = eval_trial(&ev, g, v, trial, false, a, &t, e);
		if (!code && !t) {
			code = eval_trial(&ev, g, v, trial, true, a, &t, e);
			m.data = m.data || ev.drew;
		}
		if (code)
			break;
		m.known = t && t->rank >= 2 && dtype_in(t->dt, FLOATS | SET(BOOL));
		seen[trial] = t;
		if (m.known)
			observe(&m, t, &window_seen);
	}
	for (int trial = 0; trial < TRIALS && m.left >= 0; trial++)
		if (seen[trial] && !is_window(seen[trial], m.left))
			m.left = -1;
	m.reach = m.known && !code && seen[0] ? window_shown(seen[0]) : -1;
	for (int trial = 0; trial < TRIALS && m.reach >= 0; trial++)
		if (seen[trial] && !window_of_keys(seen[trial], m.reach))
			m.reach = -1;
	if (a)
		arena_free(a);
	*out = m.known && !code ? m : (struct mask){ .left = -1, .reach = -1 };
	return code;
}

/* Narrow slopes, 0 where none was seen yet, by one evaluated mask; false: it is no ALiBi. */
static bool observe_slopes(const struct tensor *t, int64_t heads, double *slope)
{
	int64_t L = t->rank < 3 ? 0 : t->d[t->rank - 2], S = t->rank < 3 ? 0 : t->d[t->rank - 1];

	if (t->rank < 3 || (t->d[t->rank - 3] != heads && t->d[t->rank - 3] != 1) || !dtype_in(t->dt, FLOATS))
		return false;
	for (int64_t row = 0; S && row < t->n / S; row++) {
		int64_t h = row / L % t->d[t->rank - 3];

		for (int64_t j = 1; j < S && j <= row % L + S - L; j++) {
			double d = entry(t, row * S + j) - entry(t, row * S + j - 1);

			if (!(d > 0) || !isfinite(d) || (slope[h] != 0 && fabs(d - slope[h]) > 1e-4 * slope[h]))
				return false;
			slope[h] = d;
		}
	}
	for (int64_t h = t->d[t->rank - 3]; h < heads; h++)
		slope[h] = slope[0];
	return true;
}

enum linnet_code mask_slopes(const struct graph *g, value_id v, int64_t heads, struct arena *a, double **slope, struct linnet_error *e)
{
	struct arena *s = arena_new();
	bool fixed = g->value[v].type.value != NULL, is = true;
	enum linnet_code code = s ? LINNET_OK : fail_mem(e);

	*slope = code ? NULL : NEW(a, (size_t)heads, double);
	if (!code && !*slope)
		code = fail_mem(e);
	for (int trial = 0; trial < (fixed ? 1 : TRIALS) && !code && is; trial++) {
		const struct tensor *t;

		code = value_eval(g, v, trial, false, s, &t, e);
		is = !code && t && observe_slopes(t, heads, *slope);
	}
	for (int64_t h = 0; is && !code && h < heads; h++)
		is = (*slope)[h] > 0;
	if (!is || code)
		*slope = NULL;
	if (s)
		arena_free(s);
	return code;
}
