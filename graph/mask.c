/* Reading off what masks are. */
#include "graph/mask.h"

#include <math.h>
#include <string.h>

double mask_entry(const struct tensor *t, int64_t i)
{
	double x = tensor_get(t, i);

	if (t->dt == DT_BOOL)
		return x != 0 ? 0 : -INFINITY;
	return x <= MASK_HIDDEN ? -INFINITY : x;
}

/* The rows and columns of a sample, matrices of which follow each other. */
static int64_t nrow(const struct sample *s) { return s->t->d[s->t->rank - 2]; }
static int64_t ncol(const struct sample *s) { return s->t->d[s->t->rank - 1]; }

/* How many keys before the query's own, with the queries the last ones, the first visible key is, where it hides one before; -1: it hides none, or it is not known. */
static int64_t first_visible(const struct sample *s, int64_t row, int64_t own)
{
	int64_t cols = ncol(s), j = 0;

	while (j < cols && mask_entry(s->t, row * cols + j) == -INFINITY)
		j++;
	return j > 0 && j < cols && places_join(s->col, j) ? own - s->col[j] : -1;
}

/* Narrow m by one sample. */
static void observe(struct mask *m, const struct sample *s)
{
	const struct tensor *t = s->t;
	int64_t rows = nrow(s), cols = ncol(s), per = rows * cols;

	for (int64_t r = 0; per && r < t->n / cols; r++) {
		int64_t i = s->row[r % rows], past = s->S - s->L, last = (r / rows + 1) * rows - 1;
		bool some = false, blind = true;

		for (int64_t c = 0; c < cols; c++) {
			int64_t j = s->col[c];
			double x = mask_entry(t, r * cols + c);
			bool seen = x != -INFINITY, low = j <= i, low_past = j <= i + past, shut;

			some = some || (seen && (low || low_past));
			shut = !seen && (t->dt == DT_BOOL || tensor_get(t, r * cols + c) == -INFINITY);
			m->shut = m->shut || shut;
			blind = blind && shut;
			m->zero = m->zero && x == 0;
			m->plain = m->plain && (!seen || x == 0);
			m->within = m->within && (low || !seen);
			m->within_past = m->within_past && (low_past || !seen);
			m->told = m->told || (seen && j > 0);
			m->told_past = m->told_past || (seen && j > past);
			m->causal = m->causal && seen == low;
			m->causal_past = m->causal_past && seen == low_past;
			m->by_key = m->by_key && (x == mask_entry(t, last * cols + c) || (!seen && !low_past));
		}
		m->shown = m->shown && some;
		m->blind = m->blind || blind;
		if (m->left < 0) /* the first row that hides its beginning tells the window */
			m->left = first_visible(s, r, i + (m->within_past ? past : 0));
	}
}

/* Whether every row shows exactly the keys from `left` before its own up to its own. */
static bool is_window(const struct sample *s, int64_t left)
{
	int64_t rows = nrow(s), cols = ncol(s);

	for (int64_t k = 0; k < s->t->n; k++) {
		int64_t i = s->row[k / cols % rows] + s->S - s->L, j = s->col[k % cols];

		if ((mask_entry(s->t, k) != -INFINITY) != (j <= i && j >= i - left))
			return false;
	}
	return true;
}

/* Whether all keys outside the window are hidden, and every row that has a key in its window says the same of it. */
static enum linnet_code window_of_keys(const struct sample *s, int64_t left, struct arena *a, bool *is, struct linnet_error *e)
{
	int64_t rows = nrow(s), cols = ncol(s);
	double *said; /* of each key, by the last row that had it in its window */

	TRY_NEW(said, a, (size_t)cols + 1);
	for (int64_t k = 0; k < s->t->n && *is; k++) {
		int64_t i = s->row[k / cols % rows] + s->S - s->L, c = k % cols, j = s->col[c];
		double x = mask_entry(s->t, k);

		if (k / cols % rows == 0)
			said[c] = NAN;
		if (j > i || j < i - left) {
			*is = x == -INFINITY;
			continue;
		}
		*is = isnan(said[c]) || x == said[c];
		said[c] = x;
	}
	return LINNET_OK;
}

/* The window that a sample shows in which inputs hide nothing; -1: none. */
static int64_t window_shown(const struct sample *s)
{
	struct mask m = { .within_past = true, .left = -1 };

	observe(&m, s);
	return m.left >= 0 && is_window(s, m.left) ? m.left : -1;
}

/* What the samples say together; m->known is false where one is no mask. */
static enum linnet_code read_samples(const struct samples *all, struct arena *a, struct mask *m, struct linnet_error *e)
{
	bool window = true, keys = true;

	*m = (struct mask){ .known = all->n > 0, .data = all->data, .zero = true, .shown = true, .plain = true, .within = true, .within_past = true,
		            .causal = true, .causal_past = true, .by_key = true, .left = -1, .reach = -1 };
	for (int i = 0; i < all->n && m->known; i++) {
		m->known = all->at[i].t->rank >= 2 && dtype_in(all->at[i].t->dt, FLOATS | SET(BOOL));
		if (m->known)
			observe(m, &all->at[i]);
	}
	for (int i = 0; i < all->n && m->known && m->reach < 0; i++)
		if (all->at[i].ones)
			m->reach = window_shown(&all->at[i]);
	for (int i = 0; i < all->n && m->known; i++) {
		window = window && m->left >= 0 && is_window(&all->at[i], m->left);
		if (m->reach >= 0 && keys)
			TRY(window_of_keys(&all->at[i], m->reach, a, &keys, e));
	}
	m->left = window ? m->left : -1;
	m->reach = keys ? m->reach : -1;
	m->within = m->within && m->told; /* else drawn data may have hidden what would have told otherwise, as a length drawn as 1 */
	m->within_past = m->within_past && m->told_past;
	return LINNET_OK;
}

/* Something that long lengths could take back. */
static bool says(const struct mask *m)
{
	return m->known && (m->zero || m->within || m->within_past || m->causal || m->causal_past || m->by_key || m->left >= 0 || m->reach >= 0);
}

enum linnet_code mask_classify(const struct graph *g, value_id v, struct mask *out, struct linnet_error *e)
{
	struct arena *a = arena_new();
	struct samples *s = a ? NEW(a, 1, struct samples) : NULL;
	enum linnet_code code = s ? LINNET_OK : fail_mem(e);

	memset(out, 0, sizeof *out);
	for (int far = 0; far < 2 && !code && (!far || says(out)); far++) {
		code = samples_take(g, v, true, far, a, s, e);
		if (!code)
			code = read_samples(s, a, out, e);
	}
	if (code || !out->known || s->unsure)
		*out = (struct mask){ .left = -1, .reach = -1 };
	if (a)
		arena_free(a);
	return code;
}

bool mask_goes_on(double x, double y, int64_t places, double *slope)
{
	const double rounding = 0x1p-7; /* of places and biases in bfloat16, as some models have them */
	double d = (y - x) / (double)places, off = fabs(y - x - *slope * (double)places), most = fabs(x) > fabs(y) ? fabs(x) : fabs(y);

	if (*slope == 0)
		*slope = d;
	else if (!(off <= 1e-3 * fabs(*slope) * (double)places + rounding * most))
		return false;
	return isfinite(d) && *slope != 0;
}

/* Whether, with keys hidden between, biases x and y lie on a known slope that counts keys, or only those that are seen. */
static bool goes_on_behind(double x, double y, int64_t places, double slope)
{
	return mask_goes_on(x, y, places, &slope) || mask_goes_on(x, y, 1, &slope);
}

/* Narrow slopes, 0 where none was seen yet, by one row of a sample, of a head; the matrix's last row says which keys are hidden. False: it is no ALiBi. */
static bool observe_slope(const struct sample *s, int64_t r, const double *last, double *slope, bool *hides)
{
	int64_t rows = nrow(s), cols = ncol(s), own = s->row[r % rows] + s->S - s->L, before = -1;

	for (int64_t c = 0; c < cols && s->col[c] <= own; c++) {
		double x = mask_entry(s->t, r * cols + c);
		int64_t places = before < 0 ? 0 : s->col[c] - s->col[before];

		if ((x == -INFINITY) != (last[c] == -INFINITY))
			return false;
		*hides |= x == -INFINITY;
		if (x == -INFINITY)
			continue;
		if (before >= 0 && before == c - 1 && (s->ones || places == 1)) {
			if (!mask_goes_on(mask_entry(s->t, r * cols + before), x, places, slope))
				return false;
		} else if (before >= 0 && places == c - before) { /* else who knows what was hidden between */
			if (*slope == 0 || !goes_on_behind(mask_entry(s->t, r * cols + before), x, places, *slope))
				return false;
		}
		before = c;
	}
	return true;
}

static bool observe_slopes(const struct sample *s, int64_t heads, double *slope, double *last, bool *hides)
{
	const struct tensor *t = s->t;
	int64_t rows = t->rank < 3 ? 0 : nrow(s), cols = t->rank < 3 ? 0 : ncol(s), n = t->rank < 3 ? 0 : t->d[t->rank - 3];

	if (t->rank < 3 || (!s->head && n != heads && n != 1) || !dtype_in(t->dt, FLOATS))
		return false;
	for (int64_t r = 0; cols && r < t->n / cols; r++) {
		int64_t h = r / rows % n;

		for (int64_t c = 0; r % rows == 0 && c < cols; c++)
			last[c] = mask_entry(t, (r + rows - 1) * cols + c);
		if (!observe_slope(s, r, last, &slope[s->head ? s->head[h] : h], hides))
			return false;
	}
	for (int64_t h = n; h < heads && !s->head; h++)
		slope[h] = slope[0];
	return true;
}

enum linnet_code mask_slopes(const struct graph *g, value_id v, int64_t heads, struct arena *a, double **slope, bool *hides, struct linnet_error *e)
{
	struct arena *own = arena_new();
	struct samples *s = own ? NEW(own, 1, struct samples) : NULL;
	enum linnet_code code = s ? LINNET_OK : fail_mem(e);
	bool is = !code, draw = false;

	*hides = false;
	*slope = code ? NULL : NEW(a, (size_t)heads, double);
	if (!code && !*slope)
		code = fail_mem(e);
	for (int far = 0; far < 2 && !code && is; far++) {
		code = samples_take(g, v, draw, far, own, s, e);
		if (!code && !s->n && !draw) {
			draw = true;
			code = samples_take(g, v, draw, far, own, s, e);
		}
		is = !code && s->n && !s->unsure;
		for (int i = 0; i < s->n && is; i++) {
			double *last = NEW(own, (size_t)s->at[i].S + 1, double);

			if (!last)
				code = fail_mem(e);
			is = last && observe_slopes(&s->at[i], heads, *slope, last, hides);
		}
	}
	for (int64_t h = 0; is && !code && h < heads; h++)
		is = (*slope)[h] > 0;
	is = is && *hides == draw; /* what inputs say should be which keys are hidden, and nothing else hides any */
	if (!is || code)
		*slope = NULL;
	if (own)
		arena_free(own);
	return code;
}
