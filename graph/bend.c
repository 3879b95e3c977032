/* Telling activations from what they compute. */
#include "graph/bend.h"

#include <math.h>

#include "graph/probe.h"

enum { MAX_CONE = 40, MAX_ROOTS = 12 };

/* ---- What a value is made of, place by place ---- */

/* Values that others are computed from, producers first. */
struct cone {
	const struct graph *g;
	value_id y, v[MAX_CONE];
	int n, nseen;
	bool whole; /* all of them are there */
};

static bool alike(const struct cone *k, value_id v)
{
	return shape_equal(&k->g->value[v].type.shape, &k->g->value[k->y].type.shape);
}

/* The node that makes v of values of its own shape, and numbers; NULL: none does. */
static const struct node *each(const struct cone *k, value_id v)
{
	const struct node *n = value_node(k->g, v);
	enum dtype dt = k->g->value[v].type.dt;
	double c;

	if (!n || n->nout != 1 || !(n->op->flags & OP_EACH || node_is(n, "Cast")))
		return NULL;
	if (dtype_in(dt, FLOATS) && dtype_bits(dt) < dtype_bits(k->g->value[k->y].type.dt)) /* it rounds */
		return NULL;
	for (uint32_t i = 0; i < n->nin; i++)
		if (n->in[i] && !value_filled(k->g, n->in[i], &c) && !alike(k, n->in[i]))
			return NULL;
	return n;
}

static int place(const struct cone *k, value_id v)
{
	for (int i = k->n - 1; i >= 0; i--)
		if (k->v[i] == v)
			return i;
	return -1;
}

static void visit(struct cone *k, value_id v)
{
	const struct node *n;
	double c;

	if (!k->whole || place(k, v) >= 0 || value_filled(k->g, v, &c))
		return;
	k->whole = k->nseen++ < MAX_CONE;
	n = each(k, v);
	for (uint32_t i = 0; n && i < n->nin; i++)
		if (n->in[i])
			visit(k, n->in[i]);
	if (k->whole)
		k->v[k->n++] = v;
}

/* The values that v is a function of, each of one alone: v, and those further and further back. */
static int roots_of(const struct cone *k, value_id v, value_id *root)
{
	bool front[MAX_CONE] = { false };
	int n = 0, wide = 1, at = place(k, v);

	if (at < 0)
		return 0;
	front[at] = true;
	for (int i = at; n < MAX_ROOTS && i >= 0; i--) {
		const struct node *by;
		double c;

		if (!front[i])
			continue;
		if (wide == 1)
			root[n++] = k->v[i];
		by = each(k, k->v[i]);
		if (!by)
			continue; /* it stays in front of all others */
		wide--;
		for (uint32_t j = 0; j < by->nin; j++) {
			int before = by->in[j] && !value_filled(k->g, by->in[j], &c) ? place(k, by->in[j]) : -1;

			if (before >= 0 && !front[before]) {
				front[before] = true;
				wide++;
			}
		}
	}
	return n;
}

/* ---- Numbers ---- */

/* Near ones, the first four to fit by; beyond them, far ones, where the words of a function may overflow. */
static const double point[] = { 12,   1,   -1,    -12,  0,    0.01, -0.01, 0.1,  -0.1, 0.25, -0.25, 0.5,  -0.5, 0.75, -0.75, 1.25, -1.25, 1.5,  -1.5, 1.8,  -1.8,   2,
	                        -2,   2.3, -2.3,  2.7,  -2.7, 3,    -3,    3.01, -3.01, 3.5, -3.5, 4,    -4,   4.6,  -4.6,  5.5,  -5.5, 6.9,  -6.9, 8.3,  -8.3,  20,
	                        -20,  50,  -50,   87,   -87,  300,  -300,  1e3,  -1e3, 3e4,  -3e4 };
enum { POINTS = sizeof point / sizeof *point, NEAR = 43 };

struct trial {
	const struct view *w;
	const struct cone *k;
	double y[POINTS];
	int nodes;   /* between x and the factors */
	bool curved; /* one of them bends */
};

/* Nodes that make v of x, producers first. */
static bool between(const struct cone *k, value_id v, value_id x, node_id *order, uint32_t *n)
{
	const struct node *by = v == x ? NULL : each(k, v);
	double c;

	if (v == x || value_filled(k->g, v, &c))
		return true;
	if (!by)
		return false;
	for (uint32_t i = 0; i < *n; i++)
		if (&k->g->node[order[i]] == by)
			return true;
	for (uint32_t i = 0; i < by->nin; i++)
		if (by->in[i] && !between(k, by->in[i], x, order, n))
			return false;
	order[(*n)++] = (node_id)(by - k->g->node);
	return true;
}

static bool bends(const struct node *n)
{
	static const char *const straight[] = { "Add", "Sub", "Mul", "Div", "Neg", "Cast", "Identity", "Sum", "Mean", NULL };

	return !node_among(n, straight);
}

/* What n makes of values by their places in the cone, and of numbers. */
static enum linnet_code compute_node(const struct cone *k, const struct node *n, const struct tensor **value, struct arena *a, bool *can, struct linnet_error *e)
{
	const struct tensor *in[MAX_CONE] = { NULL }, *out = NULL;

	*can = n->nin <= MAX_CONE;
	for (uint32_t j = 0; j < n->nin && *can; j++) {
		value_id v = n->in[j];
		struct tensor *number;
		double c;

		if (!v)
			continue;
		if (!value_filled(k->g, v, &c)) {
			in[j] = value[place(k, v)];
			continue;
		}
		TRY(tensor_new(a, dtype_in(k->g->value[v].type.dt, FLOATS) ? DT_DOUBLE : k->g->value[v].type.dt, 0, NULL, &number, e));
		tensor_put(number, 0, c);
		in[j] = number;
	}
	if (*can)
		TRY(probe_node(k->g, n, in, a, &out, can, e));
	value[place(k, n->out[0])] = out;
	return LINNET_OK;
}

/* The product of the factors that `of` names, as a function of x. */
static enum linnet_code compute(struct trial *t, const struct factors *f, unsigned of, value_id x, bool *can, struct linnet_error *e)
{
	const struct graph *g = t->w->g;
	struct arena *a = t->w->scratch;
	const struct tensor *value[MAX_CONE] = { NULL };
	node_id order[MAX_CONE];
	struct tensor *in;
	uint32_t n = 0;

	*can = true;
	for (int i = 0; i < f->n && *can; i++)
		*can = !(of >> i & 1) || between(t->k, f->v[i], x, order, &n);
	if (!*can)
		return LINNET_OK;
	t->nodes = (int)n;
	t->curved = false;
	for (uint32_t i = 0; i < n; i++)
		t->curved = t->curved || bends(&g->node[order[i]]);
	if (!t->curved)
		return LINNET_OK;
	TRY(tensor_new(a, DT_DOUBLE, 1, (int64_t[]){ POINTS }, &in, e));
	for (int i = 0; i < POINTS; i++)
		tensor_put(in, i, point[i]);
	value[place(t->k, x)] = in;
	for (uint32_t i = 0; i < n && *can; i++)
		TRY(compute_node(t->k, &g->node[order[i]], value, a, can, e));
	for (int k = 0; k < POINTS; k++)
		t->y[k] = f->c;
	for (int i = 0; i < f->n && *can; i++) {
		const struct tensor *r = of >> i & 1 ? value[place(t->k, f->v[i])] : NULL;

		if (!(of >> i & 1))
			continue;
		*can = r && r->n == POINTS && r->dt == DT_DOUBLE;
		for (int k = 0; k < POINTS && *can; k++)
			t->y[k] *= f->power[i] > 0 ? tensor_get(r, k) : 1 / tensor_get(r, k);
	}
	return LINNET_OK;
}

/* ---- Activations ---- */

static double fit_swish(const double *y) { return log(-y[1] / y[2]); }
static double fit_leaky(const double *y) { return -y[3] / y[0]; }
static double fit_elu(const double *y) { return 12 * y[3] / (y[0] * expm1(-12)); }

/* Their words, and the attribute that is told from the values at 12, 1, -1 and -12. */
static const struct kind {
	const char *op, *attr, *word;
	double (*fit)(const double *y);
	double least, most;
} kinds[] = {
	{ "Sigmoid" }, { "Swish", "alpha", .fit = fit_swish, .least = 1e-3, .most = 1e3 }, { "Gelu" }, { "Gelu", "approximate", .word = "tanh" }, { "Relu" }, { "Tanh" }, { "Softplus" },
	{ "Mish" }, { "HardSwish" }, { "Softsign" }, { "LeakyRelu", "alpha", .fit = fit_leaky, .least = 1e-6, .most = 1 - 1e-6 },
	{ "Elu", "alpha", .fit = fit_elu, .least = 1e-6, .most = 1e6 },
};

/* Constants are rounded to float. */
static const double tolerance = 1e-6;

static double snapped(double x) { return fabs(x - 1) <= tolerance ? 1 : x; }

/* y = scale * kind(point) */
static enum linnet_code agrees(const struct kind *kind, const double *y, struct arena *a, struct bend *out, bool *holds, struct linnet_error *e)
{
	const struct op *op = op_newest(NULL, kind->op);
	double fitted = kind->fit ? snapped(kind->fit(y)) : 0;
	bool wanted = true;
	struct attr *full;
	struct tensor *in, *r;
	const struct tensor *at;

	*holds = !kind->fit || (fitted >= kind->least && fitted <= kind->most);
	if (!*holds)
		return LINNET_OK;
	out->op = kind->op;
	out->attr[0] = kind->word ? attr_string(kind->attr, kind->word) : kind->fit && fitted != 1 ? attr_float(kind->attr, fitted) : (struct attr){ .name = NULL };
	out->attr[1] = (struct attr){ .name = NULL };
	TRY(op_attrs(op, kind->fit ? (struct attr[]){ attr_float(kind->attr, fitted) } : out->attr, kind->attr ? 1 : 0, a, &full, e));
	TRY(tensor_new(a, DT_DOUBLE, 1, (int64_t[]){ POINTS }, &in, e));
	for (int i = 0; i < POINTS; i++)
		tensor_put(in, i, point[i]);
	at = in;
	TRY(op_eval(op, full, 1, &at, 1, &wanted, a, &r, e));
	out->scale = snapped(y[0] / tensor_get(r, 0));
	*holds = isfinite(out->scale) && out->scale != 0;
	for (int i = 0; i < POINTS && *holds; i++) {
		double want = out->scale * tensor_get(r, i);

		*holds = fabs(y[i] - want) <= tolerance * fmax(fabs(out->scale), fabs(want)) || (i >= NEAR && !isfinite(y[i]));
	}
	return LINNET_OK;
}

/* ---- Factors ---- */

/* These factors are an activation of x. */
static enum linnet_code try_root(struct trial *t, const struct factors *f, unsigned of, value_id x, struct bend *out, bool *found, struct linnet_error *e)
{
	const struct graph *g = t->w->g;
	int before = f->c != 1;

	*found = false;
	if (g->value[x].type.dt != g->value[t->k->y].type.dt)
		return LINNET_OK;
	TRY(compute(t, f, of, x, found, e));
	if (!*found || !t->curved) {
		*found = false;
		return LINNET_OK;
	}
	*found = false;
	for (int i = 0; i < f->n; i++)
		before += (of >> i & 1) != 0;
	before += t->nodes - 1;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !*found; i++) {
		TRY(agrees(&kinds[i], t->y, t->w->scratch, out, found, e));
		*found = *found && before > 1 + (out->scale != 1);
	}
	out->x = x;
	out->of = of;
	return LINNET_OK;
}

/* Nothing but its name says what bends. */
static bool plain(const struct bend *b) { return !b->attr[0].name; }

enum linnet_code bend_read(const struct view *w, const struct factors *f, value_id y, struct bend *out, bool *found, struct linnet_error *e)
{
	struct cone k = { .g = w->g, .y = y, .whole = true };
	struct trial t = { .w = w, .k = &k };
	value_id root[MAX_FACTORS][MAX_ROOTS];
	int nroot[MAX_FACTORS];

	*found = false;
	if (!dtype_in(w->g->value[y].type.dt, FLOATS) || w->g->value[y].type.shape.rank < 0)
		return LINNET_OK;
	for (int i = 0; i < f->n; i++)
		if (alike(&k, f->v[i]))
			visit(&k, f->v[i]);
	for (int i = 0; i < f->n; i++)
		nroot[i] = k.whole ? roots_of(&k, f->v[i], root[i]) : 0;
	for (int i = 0; i < f->n; i++)
		for (int r = nroot[i]; r-- > 0 && !(*found && plain(out));) { /* the furthest first, but rather a plain one */
			unsigned of = 0;
			bool tried = false, holds;
			struct bend b;

			for (int j = 0; j < f->n; j++)
				for (int s = 0; s < nroot[j]; s++)
					if (root[j][s] == root[i][r]) {
						of |= 1U << j;
						tried = tried || j < i;
					}
			if (tried)
				continue;
			TRY(try_root(&t, f, of, root[i][r], &b, &holds, e));
			if (holds && (!*found || plain(&b)))
				*out = b;
			*found = *found || holds;
		}
	return LINNET_OK;
}
