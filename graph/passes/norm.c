/*
 * Recognising normalisations, however their arithmetic is spelled. z is x, or x - mean(x):
 *
 *   RMSNormalization       x / sqrt(mean(x^2) + epsilon) * scale
 *   LayerNormalization     z / sqrt(mean(z^2) + epsilon) * scale + bias           over the last axes
 *   InstanceNormalization  the same over all axes behind channels, scale and bias by channel
 *   GroupNormalization     the same over channels in groups
 *   LpNormalization        x / sqrt(sum(x^2)), x / sum(|x|)
 *   linnet.L2Normalization x / max(sqrt(sum(x^2)), epsilon), x / (sqrt(sum(x^2)) + epsilon)
 *
 * Anchored on the product or quotient that divides by the root. Without scale first; scales and biases are taken in one by one. Needs types.
 */
#include <math.h>
#include <string.h>

#include "graph/pass.h"

/* ---- Means, sums and powers ---- */

static bool near(double a, double b) { return fabs(a - b) <= 1e-6 * fabs(b); }

/* The axes of a reduction as bits; 0: unknown or none. */
static unsigned axes_of(const struct graph *g, const struct node *n)
{
	int rank = g->value[n->in[0]].type.shape.rank, count;
	int64_t axis[MAX_RANK];
	unsigned bits = 0;

	if (rank < 1)
		return 0;
	if (n->nin < 2 || !n->in[1])
		return node_attr(n, "noop_with_empty_axes")->i ? 0 : (1U << rank) - 1;
	if (!value_ints(g, n->in[1], axis, MAX_RANK, &count))
		return 0;
	for (int i = 0; i < count; i++)
		bits |= 1U << (axis[i] < 0 ? axis[i] + rank : axis[i]);
	return bits;
}

/* v without what only puts in and takes out axes of length 1. */
static value_id shaped(const struct graph *g, value_id v)
{
	for (const struct node *n; (n = value_node(g, v)); v = n->in[0]) {
		const struct shape *in = &g->value[n->in[0]].type.shape, *out = &g->value[v].type.shape;
		int i = 0, k = 0;

		if (!(node_is(n, "Reshape") || node_is(n, "Unsqueeze") || node_is(n, "Squeeze") || node_is(n, "Flatten") || node_is(n, "Expand")))
			return v;
		for (;; i++, k++) {
			while (i < in->rank && in->d[i] == 1)
				i++;
			while (k < out->rank && out->d[k] == 1)
				k++;
			if (i >= in->rank || k >= out->rank || in->d[i] != out->d[k])
				break;
		}
		if (in->rank < 0 || out->rank < 0 || i < in->rank || k < out->rank)
			return v;
	}
	return v;
}

/* v is op(x) over axes, wherever they went. */
static bool reduced(const struct graph *g, value_id v, const char *op, value_id *x, unsigned *axes)
{
	const struct node *n = value_node(g, shaped(g, v));
	int rank;

	*axes = 0;
	if (n && node_is(n, "GlobalAveragePool") && !strcmp(op, "ReduceMean")) { /* over what is behind the second axis */
		rank = g->value[n->out[0]].type.shape.rank;
		*axes = rank > 2 ? ((1U << rank) - 1) & ~3U : 0;
	} else if (n && node_is(n, op)) {
		*axes = axes_of(g, n);
	}
	*x = *axes ? n->in[0] : 0;
	return *axes != 0;
}

/* Broadcast over x, v is what belongs to the rest of these axes. */
static bool beside(const struct graph *g, value_id v, value_id x, unsigned axes)
{
	const struct shape *s = &g->value[v].type.shape, *t = &g->value[x].type.shape;
	int lead = t->rank - s->rank;

	for (int i = 0; i < t->rank && lead >= 0; i++)
		if ((i < lead ? 1 : s->d[i - lead]) != (axes & 1U << i ? 1 : t->d[i]))
			return false;
	return s->rank >= 0 && lead >= 0;
}

/* How many elements the axes of v have; 0: not known. */
static double count_of(const struct graph *g, value_id v, unsigned axes)
{
	const struct shape *s = &g->value[v].type.shape;
	double n = 1;

	for (int i = 0; i < s->rank; i++)
		if (axes & 1U << i)
			n *= dim_is_int(s->d[i]) ? (double)s->d[i] : 0;
	return n;
}

/* z when v is z^2. */
static value_id square_root_of(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);
	double two;

	if (n && node_is(n, "Pow") && value_scalar(g, n->in[1], &two) && two == 2)
		return n->in[0];
	return n && node_is(n, "Mul") && n->in[0] == n->in[1] ? n->in[0] : 0;
}

/* x when v is x - mean(x) over these axes. */
static value_id uncentred(const struct graph *g, value_id v, unsigned axes)
{
	const struct node *sub = value_from(g, v, "Sub");
	unsigned over;
	value_id x;

	return sub && reduced(g, sub->in[1], "ReduceMean", &x, &over) && x == sub->in[0] && over == axes && beside(g, sub->in[1], x, axes) ? x : 0;
}

/* The sum over some axes of |x|^p. */
struct moment {
	value_id x;
	unsigned axes;
	int p;
	bool mean;     /* over their count */
	bool centred;  /* of (x - mean(x))^2, spelled mean(x^2) - mean(x)^2 */
	double epsilon;
	double least, more; /* above 0: what the root is at least, what is added to it */
};

/* v = mean(x^2) - mean(x)^2. */
static bool is_difference(const struct graph *g, value_id v, struct moment *m)
{
	const struct node *sub = value_from(g, v, "Sub");
	value_id squares, mean, x;
	unsigned axes;

	if (!sub || !reduced(g, sub->in[0], "ReduceMean", &squares, &m->axes) ||
	    !shape_equal(&g->value[sub->in[0]].type.shape, &g->value[sub->in[1]].type.shape))
		return false;
	m->x = square_root_of(g, squares);
	mean = square_root_of(g, sub->in[1]);
	m->centred = m->mean = true;
	return m->x && mean && reduced(g, mean, "ReduceMean", &x, &axes) && x == m->x && axes == m->axes;
}

/* Past a bound of 0, which no variance passes but by rounding. */
static value_id unbounded(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);
	double c;

	if (n && node_is(n, "Relu"))
		return n->in[0];
	for (uint32_t i = 0; n && node_is(n, "Max") && n->nin == 2 && i < 2; i++)
		if (value_scalar(g, n->in[i], &c) && c == 0)
			return n->in[1 - i];
	return n && node_is(n, "Clip") && (n->nin < 3 || !n->in[2]) && n->nin > 1 && n->in[1] && value_scalar(g, n->in[1], &c) && c == 0 ? n->in[0] : v;
}

static bool read_sum(const struct graph *g, value_id v, struct moment *m)
{
	value_id of;

	m->p = 2;
	m->mean = false;
	if (reduced(g, v, "ReduceSumSquare", &m->x, &m->axes))
		return true;
	if (reduced(g, v, "ReduceMean", &of, &m->axes))
		m->mean = true;
	else if (!reduced(g, v, "ReduceSum", &of, &m->axes))
		return false;
	m->x = square_root_of(g, of);
	return m->x != 0;
}

/* v = the mean or sum of squares, and epsilon. */
static bool read_moment(const struct graph *g, value_id v, struct moment *m)
{
	const struct node *n = value_from(g, v, "Add");
	double c;

	*m = (struct moment){ .p = 2 };
	for (int i = 0; n && i < 2; i++)
		if (value_scalar(g, n->in[i], &c)) {
			if (!(c >= 0))
				return false;
			m->epsilon = c;
			v = n->in[1 - i];
			break;
		}
	v = shaped(g, unbounded(g, shaped(g, v)));
	if (read_sum(g, v, m) || is_difference(g, v, m))
		return true;
	n = value_node(g, v);
	for (int i = 0; n && (node_is(n, "Mul") || (node_is(n, "Div") && i)) && i < 2; i++) /* a sum over its count */
		if (value_scalar(g, n->in[i], &c) && read_sum(g, n->in[1 - i], m) && !m->mean) {
			double count = count_of(g, m->x, m->axes);

			m->mean = count > 0 && near(node_is(n, "Div") ? c : 1 / c, count);
			return m->mean;
		}
	return false;
}

/* x when v is the larger of x and a number above 0. */
static value_id at_least(const struct graph *g, value_id v, double *least)
{
	const struct node *n = value_node(g, v);

	for (uint32_t i = 0; n && node_is(n, "Max") && n->nin == 2 && i < 2; i++)
		if (value_scalar(g, n->in[i], least) && *least > 0)
			return n->in[1 - i];
	return n && node_is(n, "Clip") && n->nin > 1 && n->in[1] && (n->nin < 3 || !n->in[2]) && value_scalar(g, n->in[1], least) && *least > 0 ? n->in[0] : 0;
}

/* x when v is x plus a number above 0. */
static value_id with_more(const struct graph *g, value_id v, double *more)
{
	const struct node *n = value_from(g, v, "Add");

	for (int i = 0; n && i < 2; i++)
		if (value_scalar(g, n->in[i], more) && *more > 0)
			return n->in[1 - i];
	return 0;
}

static bool no_narrower(enum dtype a, enum dtype than)
{
	return a == than || (dtype_in(a, FLOATS) && dtype_bits(a) > dtype_bits(than));
}

/* v = m^power, without what bounds the root. */
static bool read_bare(const struct graph *g, value_id v, double power, struct moment *m)
{
	value_id abs;

	*m = (struct moment){ .p = 2 };
	if (power == -0.5 && read_moment(g, v, m))
		return true;
	if (power == -1 && reduced(g, v, "ReduceL2", &m->x, &m->axes))
		return true;
	m->p = 1;
	if (power == -1 && reduced(g, v, "ReduceL1", &m->x, &m->axes))
		return true;
	if (power == -1 && reduced(g, v, "ReduceSum", &abs, &m->axes) && value_from(g, abs, "Abs")) {
		m->x = value_from(g, abs, "Abs")->in[0];
		return true;
	}
	return false;
}

/*
 * v = m^power: squares, or absolute values, whose root it is once more, in wider types on the way; the root may be at least a number, or have
 * one added, and all may be repeated along what it is of.
 */
static bool read_root(const struct graph *g, value_id v, double power, struct moment *m)
{
	double c, least = 0, more = 0;
	enum dtype dt = g->value[v].type.dt;
	value_id inner, whole = 0, edge = v;

	for (int steps = 0; steps < 8; steps++) {
		const struct node *n;

		v = shaped(g, v);
		n = value_node(g, v);
		if (read_bare(g, v, power, m)) {
			m->least = least;
			m->more = more;
			return g->value[m->x].type.dt == dt && beside(g, edge, m->x, m->axes) && (!whole || shape_equal(&g->value[whole].type.shape, &g->value[m->x].type.shape)) &&
			       (!(least > 0 || more > 0) || (m->p == 2 && !m->mean && m->epsilon == 0));
		}
		if (!n)
			return false;
		if (power < 0 && !least && !more && (inner = at_least(g, v, &c))) {
			least = pow(c, -power);
			v = inner;
			continue;
		}
		if (power == -1 && !least && !more && (inner = with_more(g, v, &c))) {
			more = c;
			v = inner;
			continue;
		}
		if (node_is(n, "Cast")) {
			if (!no_narrower(g->value[n->in[0]].type.dt, dt))
				return false;
		} else if (node_is(n, "Expand") && !whole) {
			whole = edge;
			edge = n->in[0];
		} else if (node_is(n, "Sqrt"))
			power *= 0.5;
		else if (node_is(n, "Reciprocal"))
			power = -power;
		else if (node_is(n, "Pow") && value_scalar(g, n->in[1], &c))
			power *= c;
		else if (node_is(n, "Div") && value_scalar(g, n->in[0], &c) && c == 1)
			power = -power;
		else
			return false;
		v = n->in[node_is(n, "Div") ? 1 : 0];
	}
	return false;
}

/* ---- The quotient ---- */

enum { MAX_FACTOR = 6 };

/* A product of powers 1 and -1, and a number. */
struct product {
	double c;
	value_id factor[MAX_FACTOR];
	double power[MAX_FACTOR];
	int n;
};

/* Inner products have no other use, and their operands the rank of the whole or fewer axes. */
static bool read_product(const struct view *w, value_id v, double power, bool top, struct product *f)
{
	const struct node *n = top || value_uses(w, v) == 1 ? value_node(w->g, v) : NULL;
	double c;

	if (value_scalar(w->g, v, &c) && c > 0) {
		f->c *= power > 0 ? c : 1 / c;
		return true;
	}
	if (n && (node_is(n, "Mul") || node_is(n, "Div")) && n->in[0] != n->in[1])
		return read_product(w, n->in[0], power, false, f) && read_product(w, n->in[1], node_is(n, "Div") ? -power : power, false, f);
	if (f->n == MAX_FACTOR)
		return false;
	f->factor[f->n] = v;
	f->power[f->n++] = power;
	return true;
}

/* What is divided by its own root: the factors' numbers z and root. */
static bool read_quotient(const struct graph *g, const struct product *f, int *z, int *root, struct moment *m)
{
	for (*root = 0; *root < f->n; ++*root) {
		if (!read_root(g, f->factor[*root], f->power[*root], m))
			continue;
		for (*z = 0; *z < f->n; ++*z) {
			if (*z == *root || f->power[*z] < 0)
				continue;
			if (m->centred ? uncentred(g, f->factor[*z], m->axes) == m->x : f->factor[*z] == m->x)
				return true;
		}
	}
	return false;
}

static value_id numbers(struct patch *p, enum dtype dt, int64_t n, double c, const char *hint, struct linnet_error *e)
{
	struct tensor *t;

	p->code = p->code ? p->code : tensor_new(p->arena, dt, 1, &n, &t, e);
	for (int64_t i = 0; !p->code && i < n; i++)
		tensor_put(t, i, c);
	return p->code ? 0 : patch_const(p, t, hint);
}

/* c for each number of a row; once, broadcast, where rows are so long, or unknown, that a row of them would outweigh the nodes. */
static value_id scale_of(struct patch *p, const struct shape *s, int axis, enum dtype dt, double c, struct linnet_error *e)
{
	enum { WEIGHS = 128 }; /* numbers: bytes of four nodes */
	int64_t n = axis == s->rank - 1 && dim_is_int(s->d[axis]) && s->d[axis] <= WEIGHS ? s->d[axis] : 1;

	return numbers(p, dt, n, c, "scale", e);
}

/* The first axis, when these are all from it on; else -1. */
static int last_axes(unsigned axes, int rank)
{
	int first = 0;

	while (first < rank && !(axes & 1U << first))
		first++;
	return first < rank && axes == ((1U << rank) - 1) - ((1U << first) - 1) ? first : -1;
}

static int one_axis(unsigned axes)
{
	int axis = 0;

	while (axis < MAX_RANK && axes != 1U << axis)
		axis++;
	return axis < MAX_RANK ? axis : -1;
}

static enum linnet_code norm_root(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	struct product f = { .c = 1 };
	struct moment m;
	const struct shape *s;
	const struct node *cast;
	struct attr attr[4];
	int z, root, axis, na = 0, opset = graph_main(g)->opset;
	double c, count;
	bool bounded;
	value_id x, y = n->out[0], v;
	enum dtype inner = g->value[y].type.dt, outer = inner;
	const char *hint = *n->name ? n->name : "norm";

	if (!dtype_in(inner, FLOATS) || !read_product(w, y, 1, true, &f) || !read_quotient(g, &f, &z, &root, &m))
		return LINNET_OK;
	v = f.factor[z];
	s = &g->value[v].type.shape;
	if (!shape_equal(s, &g->value[y].type.shape) && f.n == 2)
		return LINNET_OK;
	count = count_of(g, v, m.axes);
	axis = last_axes(m.axes, s->rank);
	x = m.centred ? m.x : m.p == 2 ? uncentred(g, v, m.axes) : 0;
	c = f.c;
	bounded = m.least > 0 || m.more > 0;
	if (!m.mean && m.epsilon == 0 && (c == 1 || bounded)) {
		axis = one_axis(m.axes);
		if (axis < 0)
			return LINNET_OK;
		attr[na++] = attr_int("axis", axis - s->rank);
		if (bounded) {
			attr[na++] = attr_float("epsilon", m.least + m.more);
			if (m.more > 0)
				attr[na++] = attr_string("bound", "add");
		} else if (m.p == 1) {
			attr[na++] = attr_int("p", 1);
		}
		attr[na] = (struct attr){ .name = NULL };
		v = patch_op(p, bounded ? op_newest("linnet", "L2Normalization") : op_newest(NULL, "LpNormalization"), hint, PATCH_IN(v), 1, attr);
		if (c != 1)
			v = patch_node(p, "Mul", "scaled", PATCH_IN(v, patch_float(p, inner, c, "scale")), 1, NULL);
	} else {
		if (axis < 0 || m.p == 1 || (!m.mean && count <= 0))
			return LINNET_OK;
		if (!m.mean) {
			m.epsilon /= count;
			c /= sqrt(count);
		}
		if (near(c, 1))
			c = 1;
		/* half-precision models compute in float between casts; the norms do so themselves */
		cast = f.n == 2 ? value_user(w, y, NULL) : NULL;
		v = x ? x : v;
		if (cast && node_is(cast, "Cast") && value_from(g, v, "Cast") && inner == DT_FLOAT &&
		    g->value[value_from(g, v, "Cast")->in[0]].type.dt == g->value[cast->out[0]].type.dt) {
			y = cast->out[0];
			outer = g->value[y].type.dt;
			v = value_from(g, v, "Cast")->in[0];
		}
		if (x && opset && opset < 17) { /* before LayerNormalization */
			if (axis != 2 || s->rank < 3 || !dim_is_int(s->d[1]))
				return LINNET_OK;
			attr[na++] = attr_float("epsilon", m.epsilon);
			attr[na] = (struct attr){ .name = NULL };
			v = patch_node(p, "InstanceNormalization", hint, PATCH_IN(v, numbers(p, outer, s->d[1], c, "scale", e), numbers(p, outer, s->d[1], 0, "bias", e)), 1, attr);
		} else {
			attr[na++] = attr_int("axis", axis - s->rank);
			attr[na++] = attr_float("epsilon", m.epsilon);
			if (inner != DT_FLOAT)
				attr[na++] = attr_int("stash_type", inner == DT_DOUBLE ? DT_DOUBLE : DT_FLOAT);
			attr[na] = (struct attr){ .name = NULL };
			v = patch_node(p, x ? "LayerNormalization" : "RMSNormalization", hint, PATCH_IN(v, scale_of(p, s, axis, outer, c, e)), 1, attr);
		}
	}
	for (int i = 0; i < f.n; i++)
		if (i != z && i != root)
			v = patch_node(p, f.power[i] < 0 ? "Div" : "Mul", "scaled", PATCH_IN(v, f.factor[i]), 1, NULL);
	patch_replace(p, y, v);
	return LINNET_OK;
}

/* ---- Scales and biases ---- */

/*
 * v as what scales or shifts a norm of x, [d] of its last axes from `axis` on, or by channel [C] where axis is -1: v itself, or a constant without
 * lengths of 1 around it. 0: it is neither.
 */
static value_id affine(const struct view *w, struct patch *p, value_id v, const struct shape *x, int axis, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *s = &g->value[v].type.shape;
	int from = axis < 0 ? 1 : axis, to = axis < 0 ? 2 : x->rank, lead = s->rank - (x->rank - from);
	const struct tensor *t = value_const(g, v);
	int64_t d[MAX_RANK];
	struct tensor *bare;
	bool same = s->rank == to - from;

	if (s->rank < 1 || s->rank > x->rank || (lead < 0))
		return 0;
	for (int i = 0; i < s->rank; i++) {
		int at = x->rank - s->rank + i;
		bool inside = at >= from && at < to;

		if (inside ? s->d[i] != x->d[at] || !dim_is_int(s->d[i]) : s->d[i] != 1)
			return 0;
	}
	if (same && axis >= 0)
		return v;
	if (!t || value_uses(w, v) != 1)
		return 0;
	for (int i = from; i < to; i++)
		d[i - from] = x->d[i];
	p->code = p->code ? p->code : tensor_new(p->arena, t->dt, to - from, d, &bare, e);
	if (p->code)
		return 0;
	memcpy(bare->data, t->data, t->bytes);
	return patch_const(p, bare, g->value[v].name);
}

static bool is_unit(const struct graph *g, value_id v, double c)
{
	double k;

	return value_scalar(g, v, &k) && k == c;
}

/* The node's attributes that are given, and room for another. */
static struct attr *given_attrs(const struct view *w, const struct node *n)
{
	struct attr *attr = NEW(w->scratch, n->nattr + 1, struct attr);
	uint32_t na = 0;

	for (uint32_t i = 0; attr && i < n->nattr; i++)
		if (n->attr[i].given)
			attr[na++] = n->attr[i];
	return attr;
}

/* A norm without scale whose users are products with rows: each is a norm of its own. Bias: one user that adds a row. */
static enum linnet_code norm_affine(const struct view *w, const struct node *n, struct patch *p, const char *op, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *s = &g->value[n->out[0]].type.shape;
	bool layer = node_is(n, "LayerNormalization"), rms = node_is(n, "RMSNormalization"), scale = *op == 'M';
	uint32_t first = w->uses.begin[n->out[0]], last = w->uses.end[n->out[0]], nuse = last - first;
	bool bias = n->nin > 2 && n->in[2] && !is_unit(g, n->in[2], 0);
	int64_t axis = layer || rms ? node_attr(n, "axis")->i : -1;
	struct attr *attr;
	value_id *row;
	int from = layer || rms ? (int)(axis < 0 ? axis + s->rank : axis) : -1;

	if (s->rank < 1 || !nuse || bias || (scale && !is_unit(g, n->in[1], 1)) || (!scale && (rms || nuse > 1)) || (n->nout > 1 && n->out[1]))
		return LINNET_OK;
	TRY_NEW(row, w->scratch, nuse);
	for (uint32_t i = 0; i < nuse; i++) {
		const struct use *u = &w->uses.use[first + i];
		const struct node *by = u->node ? &g->node[u->node] : NULL;

		if (!by || !node_is(by, op) || by->in[0] == by->in[1])
			return LINNET_OK;
		row[i] = affine(w, p, by->in[1 - u->index], s, from, e);
		if (!row[i])
			return LINNET_OK;
	}
	if (!(attr = given_attrs(w, n)))
		return fail_mem(e);
	for (uint32_t i = 0; i < nuse; i++) {
		const struct node *by = &g->node[w->uses.use[first + i].node];
		value_id in[3] = { n->in[0], scale ? row[i] : n->in[1], scale ? n->nin > 2 ? n->in[2] : 0 : row[i] };

		patch_replace(p, by->out[0], patch_op(p, n->op, *n->name ? n->name : "norm", in, in[2] ? 3 : 2, 1, attr));
	}
	return LINNET_OK;
}

static enum linnet_code norm_scale(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	return norm_affine(w, n, p, "Mul", e);
}

static enum linnet_code norm_bias(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	return norm_affine(w, n, p, "Add", e);
}

/* Over all axes behind channels, scaled by channel. */
static enum linnet_code norm_channels(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *s = &g->value[n->out[0]].type.shape;
	int64_t axis = node_attr(n, "axis")->i;
	uint32_t i;
	const struct node *by = value_user(w, n->out[0], &i);
	value_id scale;

	if (s->rank < 3 || (axis != 2 && axis != 2 - s->rank) || !is_unit(g, n->in[1], 1) || (n->nin > 2 && n->in[2]) || !by || !node_is(by, "Mul") ||
	    (n->nout > 1 && n->out[1]) || !(scale = affine(w, p, by->in[1 - i], s, -1, e)))
		return LINNET_OK;
	patch_replace(p, by->out[0],
	              patch_node(p, "InstanceNormalization", n->name, PATCH_IN(n->in[0], scale, numbers(p, g->value[n->out[0]].type.dt, s->d[1], 0, "bias", e)), 1,
	                         (struct attr[]){ attr_float("epsilon", node_attr(n, "epsilon")->f), { .name = NULL } }));
	return LINNET_OK;
}

/* Channels put into groups, which are normalised as channels, and taken apart again. */
static enum linnet_code norm_groups(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *norm = value_node(g, n->in[0]), *join;
	const struct shape *s, *x;
	bool layer;
	struct attr attr[4] = { { .name = NULL } };
	enum dtype dt = g->value[n->out[0]].type.dt;

	if (!norm || value_uses(w, n->in[0]) != 1 || !(node_is(norm, "InstanceNormalization") || node_is(norm, "LayerNormalization")))
		return LINNET_OK;
	layer = node_is(norm, "LayerNormalization");
	join = value_from(g, norm->in[0], "Reshape");
	if (!join || !is_unit(g, norm->in[1], 1) || (norm->nin > 2 && norm->in[2] && !is_unit(g, norm->in[2], 0)) || (norm->nout > 1 && norm->out[1]))
		return LINNET_OK;
	s = &g->value[join->out[0]].type.shape;
	x = &g->value[join->in[0]].type.shape;
	if (s->rank < 3 || x->rank < 3 || !shape_equal(x, &g->value[n->out[0]].type.shape) || s->d[0] != x->d[0] || !dim_is_int(s->d[1]) ||
	    !dim_is_int(x->d[1]) || s->d[1] <= 0 || x->d[1] % s->d[1] || (layer && node_attr(norm, "axis")->i != 2 && node_attr(norm, "axis")->i != 2 - s->rank))
		return LINNET_OK;
	attr[0] = attr_int("num_groups", s->d[1]);
	attr[1] = attr_float("epsilon", node_attr(norm, "epsilon")->f);
	attr[2] = attr_int("stash_type", layer ? node_attr(norm, "stash_type")->i : dt == DT_DOUBLE ? DT_DOUBLE : DT_FLOAT);
	attr[3] = (struct attr){ .name = NULL };
	patch_replace(p, n->out[0],
	              patch_node(p, "GroupNormalization", norm->name,
	                         PATCH_IN(join->in[0], numbers(p, dt, x->d[1], 1, "scale", e), numbers(p, dt, x->d[1], 0, "bias", e)), 1, attr));
	return LINNET_OK;
}

/* v is -m, m being a mean of x: m; else 0. */
static value_id opposed_mean(const struct graph *g, value_id v, value_id x)
{
	const struct node *neg = value_from(g, v, "Neg");
	value_id of;
	unsigned axes;

	return neg && reduced(g, neg->in[0], "ReduceMean", &of, &axes) && of == x && beside(g, neg->in[0], x, axes) ? neg->in[0] : 0;
}

/* x s + (b + (-mean(x)) s), with b or without, becomes (x - mean(x)) s + b. */
static enum linnet_code norm_opposed(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;

	(void)e;
	for (int i = 0; i < 2; i++) {
		const struct node *k = value_from(g, n->in[i], "Mul"), *add = value_from(g, n->in[1 - i], "Add");

		for (int j = 0; k && j < (add ? 2 : 1); j++) {
			value_id l = add ? add->in[j] : n->in[1 - i], v, m;
			const struct node *shift = value_from(g, l, "Mul");

			for (int t = 0; shift && t < 4; t++) {
				if (k->in[1 - (t & 1)] != shift->in[1 - (t >> 1)] || !(m = opposed_mean(g, shift->in[t >> 1], k->in[t & 1])))
					continue;
				v = patch_node(p, "Sub", "centred", PATCH_IN(k->in[t & 1], m), 1, NULL);
				v = patch_node(p, "Mul", "scaled", PATCH_IN(v, k->in[1 - (t & 1)]), 1, NULL);
				patch_replace(p, n->out[0], add ? patch_node(p, "Add", n->name, PATCH_IN(v, add->in[1 - j]), 1, NULL) : v);
				return LINNET_OK;
			}
		}
	}
	return LINNET_OK;
}

/* A sum divided by how many it is of, or times the reciprocal as float has it. */
static enum linnet_code norm_sum(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	bool times = node_is(n, "Mul");
	double c, count;

	(void)e;
	for (int i = times ? 0 : 1; i < 2; i++) {
		const struct node *sum = value_from(g, n->in[1 - i], "ReduceSum");
		struct attr attr[2] = { { .name = NULL } };

		if (!sum || !value_scalar(g, n->in[i], &c) || !shape_equal(&g->value[n->out[0]].type.shape, &g->value[sum->out[0]].type.shape))
			continue;
		count = count_of(g, sum->in[0], axes_of(g, sum));
		if (count <= 0 || (times ? (float)c != (float)(1 / count) : c != count))
			continue;
		attr[0] = *node_attr(sum, "keepdims");
		patch_replace(p, n->out[0], patch_node(p, "ReduceMean", n->name, PATCH_IN(sum->in[0], sum->nin > 1 ? sum->in[1] : 0), 1, attr));
		return LINNET_OK;
	}
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "norm/sum", .doc = "a sum divided by how many it is of becomes ReduceMean", .anchor = "Div", .apply = norm_sum, .differs = 1e-14 },
	{ .name = "norm/sum-times", .doc = "the same with the reciprocal", .anchor = "Mul", .apply = norm_sum, .differs = 1e-6 },
	{ .name = "norm/shift", .doc = "x s + (b - mean(x) s) becomes (x - mean(x)) s + b", .anchor = "Add",
	  .from = "(float[] x, float[] s, float[] b) => (y, m) <int64[1] axes = {@axis}>\n"
	          "{ m = ReduceMean (x, axes)  k = Mul (x, s)  l = Mul (m, s)  d = Sub (b, l)  y = Add (k, d) }",
	  .to = "<int64[1] axes = {@axis}> { m = ReduceMean (x, axes)  z = Sub (x, m)  k = Mul (z, s)  y = Add (k, b) }", .differs = 1e-12 },
	{ .name = "norm/opposed", .doc = "x s + (-mean(x)) s + b becomes (x - mean(x)) s + b", .anchor = "Add", .apply = norm_opposed, .differs = 1e-12 },
	{ .name = "norm/divided", .doc = "values divided by the root of the mean or sum of their squares become one norm without scale", .anchor = "Div",
	  .apply = norm_root, .differs = 1e-6 },
	{ .name = "norm/multiplied", .doc = "the same with the root's reciprocal", .anchor = "Mul", .apply = norm_root, .differs = 1e-6 },
	{ .name = "norm/flat", .doc = "a norm of rows that were flattened, put back into their shape, is one of the rows", .anchor = "Reshape",
	  .from = "(float[] x, float[D] w) => (y) { s = Shape (x)  f = Flatten <axis = -1> (x)\n"
	          "n = RMSNormalization <axis = -1, epsilon: float = @e> (f, w)  y = Reshape <allowzero = 1> (n, s) }",
	  .to = "{ y = RMSNormalization <axis = -1, epsilon: float = @e> (x, w) }", .differs = 1e-12 },
	{ .name = "norm/scale", .doc = "a norm without scale that rows scale becomes a norm for each", .anchor = "LayerNormalization", .apply = norm_scale, .differs = 1e-12 },
	{ .name = "norm/scale-rms", .doc = "the same for RMSNormalization", .anchor = "RMSNormalization", .apply = norm_scale, .differs = 1e-12 },
	{ .name = "norm/scale-instance", .doc = "the same by channel", .anchor = "InstanceNormalization", .apply = norm_scale, .differs = 1e-12 },
	{ .name = "norm/scale-group", .doc = "the same of groups", .anchor = "GroupNormalization", .apply = norm_scale, .differs = 1e-12 },
	{ .name = "norm/bias", .doc = "a row that is added becomes the norm's bias", .anchor = "LayerNormalization", .apply = norm_bias, .differs = 1e-12 },
	{ .name = "norm/bias-instance", .doc = "the same by channel", .anchor = "InstanceNormalization", .apply = norm_bias, .differs = 1e-12 },
	{ .name = "norm/bias-group", .doc = "the same of groups", .anchor = "GroupNormalization", .apply = norm_bias, .differs = 1e-12 },
	{ .name = "norm/channels", .doc = "LayerNormalization of all behind channels, scaled by channel, becomes InstanceNormalization", .anchor = "LayerNormalization",
	  .apply = norm_channels, .differs = 1e-12 },
	{ .name = "norm/groups", .doc = "channels normalised in groups become GroupNormalization", .anchor = "Reshape", .apply = norm_groups, .differs = 1e-12 },
};

const struct pass norm_pass = { .name = "norm", .doc = "Recognise normalisations", .kind = PASS_EXACT, PASS_RULES(rules) };
