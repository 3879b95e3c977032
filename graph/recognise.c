/* Reading properties of recognised attention, gated units and norms off a graph. */
#include "graph/recognise.h"

#include <math.h>
#include <string.h>

#include "graph/mask.h"
#include "graph/pass.h"

const char *const norm_names[NORM_KINDS] = { "layernorm", "rmsnorm", "groupnorm", "batchnorm", "l2norm" };

static bool op_among(const struct node *n, const char *const *names)
{
	for (; *names; names++)
		if (!strcmp(n->op->name, *names))
			return true;
	return false;
}

/* The input the row calls `name`; 0 when left out or not one of the operator's. */
static value_id input_named(const struct node *n, const char *name)
{
	for (uint32_t i = 0; i < n->nin; i++) {
		const struct op_io *io = op_in(n->op, (int)i);

		if (io && !strcmp(io->name, name))
			return n->in[i];
	}
	return 0;
}

/* Length `at` of v (negative: from the end) when it is a number; -1 otherwise. */
static int64_t length(const struct graph *g, value_id v, int at)
{
	const struct shape *s = &g->value[v].type.shape;

	at = at < 0 ? at + s->rank : at;
	return v && at >= 0 && at < s->rank && dim_is_int(s->d[at]) ? s->d[at] : -1;
}

/* ---- Where queries and keys come from ---- */

enum { MAX_SEEN = 400 };

/* Values on the way from a value back to the projection it comes from. */
struct origin {
	value_id seen[MAX_SEEN];
	bool told[MAX_SEEN]; /* made of what tokens say */
	int n;
	int projections; /* those met: the values in front of them stand at the end of `seen` too */
};

static bool seen(const struct origin *o, value_id v)
{
	for (int i = 0; i < o->n; i++)
		if (o->seen[i] == v)
			return true;
	return false;
}

static const char *const projections[] = { "MatMul", "Gemm", "Conv", "Einsum", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "FusedMatMul", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv",
	                                   "Linear", "FusedConv", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "FusedGemm", "GemmFloat8", "Attention", NULL };

static bool is_weight(const struct graph *g, value_id v, int depth)
{
	const struct node *n = value_node(g, v);

	if (!v || g->value[v].kind == VALUE_CONST || value_const(g, v))
		return true;
	if (!n || !depth)
		return false;
	if ((node_is(n, "Gather") || node_is(n, "GatherND")) && g->value[n->in[0]].type.shape.rank > 2)
		return is_weight(g, n->in[0], depth - 1);
	for (uint32_t i = 0; i < n->nin; i++)
		if (!is_weight(g, n->in[i], depth - 1))
			return false;
	return true;
}

bool value_is_weight(const struct graph *g, value_id v)
{
	return is_weight(g, v, 6);
}

/* An Einsum that sums over nothing. */
static bool sums_nothing(const struct node *n)
{
	struct text t = node_attr(n, "equation")->s;
	const char *to = t.n ? memchr(t.p, '>', t.n) : NULL;

	for (size_t i = 0; to && t.p + i < to; i++)
		if (((t.p[i] >= 'a' && t.p[i] <= 'z') || (t.p[i] >= 'A' && t.p[i] <= 'Z')) && !memchr(to, t.p[i], (size_t)(t.p + t.n - to)))
			return false;
	return to != NULL;
}

bool is_projection(const struct graph *g, const struct node *n)
{
	if (node_is(n, "Einsum") && sums_nothing(n))
		return false;
	return op_among(n, projections) && n->nin > 1 && (is_weight(g, n->in[n->nin > 3 && !strncmp(n->op->name, "QLinear", 7) ? 3 : 1], 6) ||
	                                                  (node_is(n, "MatMul") && is_weight(g, n->in[0], 6)));
}

bool is_depthwise(const struct graph *g, const struct node *n)
{
	const struct shape *w = node_is(n, "Conv") ? &g->value[n->in[1]].type.shape : NULL;

	return w && w->rank > 2 && w->d[1] == 1 && node_attr(n, "group")->i > 1;
}

/* What v pools or filters, channel by channel. */
static value_id pooled(const struct graph *g, value_id v)
{
	static const char *const pools[] = { "AveragePool", "MaxPool", "BatchNormalization", NULL };
	const struct node *n;

	for (int steps = 0; steps < 4 && (n = value_node(g, v)) != NULL && (is_depthwise(g, n) || op_among(n, pools)); steps++)
		v = n->in[0];
	return v;
}

/* The value that all parts of sum n are made of, place by place; 0: there is none. */
static value_id summed(const struct graph *g, const struct node *n)
{
	value_id x = node_is(n, "Add") ? pooled(g, n->in[0]) : 0;

	return x && x == pooled(g, n->in[1]) ? x : 0;
}

/* A matrix for each place that turns pairs of numbers, and one for another by another angle. */
static bool is_rotation(const struct tensor *t)
{
	enum { MOST = 8, WIDEST = 256 };
	int64_t width = t->rank > 2 ? t->d[t->rank - 1] : 0, per = width * width;
	bool turning = false;

	if (width < 2 || width > WIDEST || width % 2 || t->d[t->rank - 2] != width || t->n < 2 * per || dtype_class(t->dt) != CLASS_FLOAT)
		return false;
	for (int64_t m = 0; m < t->n / per && m < MOST; m++)
		for (int64_t i = 0; i < width; i++)
			for (int64_t j = 0; j <= i; j++) {
				double sum = 0;

				for (int64_t k = 0; k < width; k++)
					sum += tensor_get(t, m * per + i * width + k) * tensor_get(t, m * per + j * width + k);
				if (!(fabs(sum - (i == j)) < 1e-2))
					return false;
				turning = turning || (m && fabs(tensor_get(t, m * per + i * width + j) - tensor_get(t, i * width + j)) > 1e-2);
			}
	return turning;
}

static bool turns_by_matrices(const struct graph *g, const struct node *n)
{
	for (uint32_t i = 0; i < n->nin; i++) {
		const struct tensor *t = value_const(g, n->in[i]);

		if (t && is_rotation(t))
			return true;
	}
	return false;
}

static bool trace(const struct graph *g, value_id v, bool beyond, struct origin *o);

/* What is added to what tokens say without being made of it, as biases and sines of positions are, is no part of its origin. */
static bool trace_sum(const struct graph *g, const struct node *n, bool beyond, struct origin *o)
{
	bool first, second;
	int from = o->n, middle;

	first = trace(g, n->in[0], beyond, o);
	middle = o->n;
	second = trace(g, n->in[1], beyond, o);
	if (first && !second)
		o->n = middle;
	if (!first && second) {
		memmove(o->seen + from, o->seen + middle, (size_t)(o->n - middle) * sizeof *o->seen);
		memmove(o->told + from, o->told + middle, (size_t)(o->n - middle) * sizeof *o->told);
		o->n -= middle - from;
	}
	return first || second;
}

static bool trace_on(const struct graph *g, value_id v, bool beyond, struct origin *o);

/* All that v is computed from, up to projections, and, with `beyond`, on to where the projections' inputs were last a sum. Returns whether that is what tokens say. */
static bool trace(const struct graph *g, value_id v, bool beyond, struct origin *o)
{
	int at = 0;

	while (at < o->n && o->seen[at] != v)
		at++;
	if (v && at == o->n && at < MAX_SEEN) {
		o->seen[o->n++] = v;
		o->told[at] = false;
		o->told[at] = trace_on(g, v, beyond, o);
	}
	return v && at < MAX_SEEN && o->told[at];
}

static bool trace_on(const struct graph *g, value_id v, bool beyond, struct origin *o)
{
	const struct node *n = value_node(g, v);
	bool data = false;

	if (!n || node_is(n, "Shape") || node_is(n, "DynamicQuantizeLinear"))
		return (!n && g->value[v].kind == VALUE_INPUT && dtype_in(g->value[v].type.dt, FLOATS)) || (n && node_is(n, "DynamicQuantizeLinear"));
	if (is_projection(g, n) && !turns_by_matrices(g, n)) {
		o->projections++;
		if (!beyond)
			return true;
		for (uint32_t i = 0; i < n->nin; i++) {
			value_id x = n->in[i];

			/* through norms and layouts */
			while (x && o->n < MAX_SEEN && !is_weight(g, x, 6)) {
				const struct node *m = value_node(g, x);
				int parts = 0;

				o->told[o->n] = true;
				o->seen[o->n++] = x;
				for (uint32_t k = 0; m && k < m->nin; k++)
					parts += m->in[k] && !is_weight(g, m->in[k], 6);
				x = !m ? 0 : parts == 1 || node_is(m, "Reshape") || node_is(m, "Expand") ? m->in[0] : summed(g, m);
			}
		}
		return true;
	}
	if (node_is(n, "RotaryEmbedding") || node_is_ms(n, "RotaryEmbedding") || node_is(n, "Reshape") || node_is(n, "Expand") || node_is(n, "Slice"))
		return trace(g, n->in[0], beyond, o);
	if (node_is(n, "Add"))
		return trace_sum(g, n, beyond, o);
	for (uint32_t i = 0; i < n->nin; i++)
		data |= trace(g, n->in[i], beyond, o);
	return data;
}

static bool same_source(const struct graph *g, value_id q, value_id k, struct arena *a, bool *same)
{
	struct origin *o = NEW(a, 2, struct origin);

	if (!o)
		return false;
	trace(g, q, true, &o[0]);
	trace(g, k, true, &o[1]);
	*same = false;
	for (int i = 0; i < o[0].n && !*same; i++)
		*same = !is_weight(g, o[0].seen[i], 6) && dtype_in(g->value[o[0].seen[i]].type.dt, FLOATS) && seen(&o[1], o[0].seen[i]);
	return true;
}

/* c^2 + s^2 is 1 everywhere: tables of cosines and sines. */
static bool are_circle(const struct tensor *c, const struct tensor *s)
{
	bool turning = false; /* ones and zeros are the scale and bias of a norm */

	if (c->n != s->n || c->n < 2 || dtype_class(c->dt) != CLASS_FLOAT || dtype_class(s->dt) != CLASS_FLOAT)
		return false;
	for (int64_t i = 0; i < c->n && i < 4096; i++) {
		double x = tensor_get(c, i), y = tensor_get(s, i);

		if (!(fabs(x * x + y * y - 1) < 1e-2))
			return false;
		turning = turning || (x != 0 && fabs(x) != 1);
	}
	return turning;
}

/* The halves of each row are cosines and sines of the same angles. */
static bool is_circle(const struct tensor *t)
{
	int64_t width = t->rank ? t->d[t->rank - 1] : 0;
	bool turning = false;

	if (t->rank < 2 || width < 2 || width % 2 || dtype_class(t->dt) != CLASS_FLOAT || t->n == width)
		return false;
	for (int64_t i = 0; i < t->n && i < 4096; i++) {
		double x = tensor_get(t, i), y = i % width < width / 2 ? tensor_get(t, i + width / 2) : 0;

		if (i % width < width / 2 && !(fabs(x * x + y * y - 1) < 1e-2))
			return false;
		turning = turning || (x != 0 && fabs(x) != 1);
	}
	return turning;
}

/* [-x2, x1], times tables that may be learned, or what it is rewritten to. */
static bool is_rotated(const struct graph *g, const struct origin *o)
{
	bool turned = false, joined = false;

	for (int i = 0; i < o->n; i++) {
		const struct node *n = value_node(g, o->seen[i]);

		if (n && !strcmp(n->op->name, "RotaryEmbedding"))
			return true;
		if (!dtype_in(g->value[o->seen[i]].type.dt, FLOATS)) /* lengths are turned and joined too */
			continue;
		turned = turned || (n && node_is(n, "Neg"));
		joined = joined || (n && node_is(n, "Concat"));
	}
	return turned && joined;
}

/* Cosines and sines, or halves turned, among what q is made of. */
static bool is_turned(const struct graph *g, const struct origin *o)
{
	for (int i = 0; i < o->n; i++) {
		const struct node *n = value_node(g, o->seen[i]);
		const struct tensor *t = value_const(g, o->seen[i]);

		if ((n && (node_is(n, "Cos") || node_is(n, "Sin"))) || (t && (is_circle(t) || is_rotation(t))))
			return true;
		for (int k = 0; t && t->n > 1 && k < i; k++)
			if (value_const(g, o->seen[k]) && are_circle(t, value_const(g, o->seen[k])))
				return true;
	}
	return is_rotated(g, o);
}

/* What the projection that made v projects; 0: none did. */
static value_id projected(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);

	for (uint32_t i = 0; n && is_projection(g, n) && i < n->nin; i++)
		if (n->in[i] && !is_weight(g, n->in[i], 6))
			return n->in[i];
	return 0;
}

/* Queries are projected from what is turned in front of that, and values from something else. */
static enum linnet_code turned_before(const struct graph *g, const struct origin *q, value_id v, struct arena *a, bool *turned, struct linnet_error *e)
{
	struct origin *values, *before;

	TRY_NEW(values, a, 1);
	TRY_NEW(before, a, 1);
	trace(g, v, false, values);
	for (int i = 0; i < q->n; i++) {
		value_id x = projected(g, q->seen[i]);
		bool shared = false;

		for (int k = 0; x && k < values->n; k++)
			shared = shared || projected(g, values->seen[k]) == x;
		if (x && !shared)
			trace(g, x, false, before);
	}
	*turned = is_rotated(g, before);
	return LINNET_OK;
}

/* The sum of x x, or the sum of squares by name. */
static bool sums_squares(const struct graph *g, const struct node *n)
{
	const struct node *square = node_is(n, "ReduceSum") ? value_from(g, n->in[0], "Mul") : NULL;

	return node_is(n, "ReduceSumSquare") || (square && square->in[0] == square->in[1]);
}

static bool is_normed(const struct graph *g, const struct origin *o)
{
	static const char *const lengths[] = { "LpNormalization", "L2Normalization", "ReduceL2", "RMSNormalization", "LayerNormalization", "SimplifiedLayerNormalization", NULL };

	for (int i = 0; o->projections && i < o->n; i++) {
		const struct node *n = value_node(g, o->seen[i]);

		if (n && (op_among(n, lengths) || sums_squares(g, n)))
			return true;
	}
	return false;
}

enum { MAX_LAID = 24 };

/* The graph input that v is, laid out, cut, written into, dequantised or with some of it taken away: numbers of rank 3 or more; else 0. */
static value_id input_of(const struct graph *g, value_id v)
{
	static const char *const laid[] = { "Transpose", "Slice", "Gather", "Split", "Expand", "Tile", "Concat", "Cast", "DequantizeLinear", "ScatterElements", "ScatterND",
		                            "TensorScatter", NULL };
	const struct type *t;
	const struct node *n;

	for (int steps = 0; steps < MAX_LAID && (n = value_node(g, v)) != NULL && !is_projection(g, n); steps++) {
		bool second = node_is(n, "Mul") && !shape_equal(&g->value[n->in[0]].type.shape, &g->value[v].type.shape);

		if (!(n->op->flags & OP_VIEW) && !op_among(n, laid) && !node_is(n, "Mul") && !node_is(n, "Div") && !node_is(n, "Sub"))
			return 0;
		v = n->in[second];
	}
	t = &g->value[v].type;
	return g->value[v].kind == VALUE_INPUT && t->kind == KIND_TENSOR && t->shape.rank >= 3 && t->dt != DT_BOOL && (dtype_in(t->dt, FLOATS) || dtype_bits(t->dt) <= 8) ? v : 0;
}

/* A product of v with what says by zeros and ones where it goes: cast from a condition, or OneHot. */
static bool is_placed(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);

	for (uint32_t i = 0; n && (node_is(n, "Mul") || node_is(n, "MatMul")) && i < 2; i++) {
		value_id m = n->in[i];
		const struct node *at = value_node(g, m);

		for (int steps = 0; at && steps < 6 && ((at->op->flags & OP_VIEW) || node_is(at, "Transpose") || (node_is(at, "Cast") && g->value[at->in[0]].type.dt != DT_BOOL)); steps++)
			at = value_node(g, at->in[0]);
		if (at && (node_is(at, "OneHot") || node_is(at, "Cast")))
			return true;
	}
	return false;
}

/* n appends to what a graph input holds, or writes into it: joins it with what is neither constant nor made of the same input. */
static bool writes_cache(const struct graph *g, const struct node *n)
{
	static const char *const writing[] = { "Concat", "ScatterElements", "ScatterND", "TensorScatter", "Where", "Add", NULL };
	bool scatters = strstr(n->op->name, "Scatter") != NULL;
	uint32_t first = node_is(n, "Where"), end = scatters ? 1 : n->nin, step = node_is(n, "TensorScatter") ? 1 : 2;

	if (!op_among(n, writing))
		return false;
	for (uint32_t i = first; i < end; i++) {
		value_id of = n->in[i] ? input_of(g, n->in[i]) : 0;

		for (uint32_t k = scatters ? step : first; of && k < (scatters ? step + 1 : n->nin); k++)
			if (n->in[k] && k != i && input_of(g, n->in[k]) != of && !is_weight(g, n->in[k], 6) && (!node_is(n, "Add") || is_placed(g, n->in[k])))
				return true;
	}
	return false;
}

/* What appends to a graph input, or writes into it, among what k is made of; NULL: nothing. */
static const struct node *cache_of(const struct graph *g, const struct origin *o)
{
	for (int i = 0; i < o->n; i++) {
		const struct node *n = value_node(g, o->seen[i]);

		if (n && writes_cache(g, n))
			return n;
	}
	return NULL;
}

/* Unless new keys are joined to it a cache may have room behind them. */
static bool has_room(const struct graph *g, const struct origin *k)
{
	const struct node *n = cache_of(g, k);

	return !n || !node_is(n, "Concat");
}

/* Keys of a memory that were projected once: k is a graph input that heads are laid out in. */
static bool is_kept(const struct graph *g, value_id k)
{
	value_id v = input_of(g, k);

	return v && g->value[v].type.shape.rank >= 4;
}

/* ---- Masks ---- */

enum { MAX_WHOLE = 3, MAX_CONTENT = 12 };

/* The graph inputs whose data v depends on: of the widest rank, floats and booleans told apart. */
struct sources {
	bool each_pair, each_key; /* inputs [..., L, S]; inputs with a number for each key */
	bool boolean, real, each_head; /* of the former */
	bool single;              /* an integer: how many keys there are, of a single batch, or where the queries are */
	bool learned;             /* a table of numbers, whatever data picks from it */
	dim batch, rows, keys;    /* of the scores, as the mask has them */
	dim added;                /* how many keys the scores have by themselves; DIM_NONE: not known */
	int64_t heads;
	value_id whole[MAX_WHOLE]; /* integer inputs with a number for each key or each query: they may be positions */
	int nwhole;
	value_id position[MAX_WHOLE];  /* those that are, which tell nothing of keys */
	int nposition;
	const struct origin *q, *k;    /* what queries and keys are made of; NULL: not looked at */
	value_id content[MAX_CONTENT]; /* of that: what terms are computed from, as products with relative positions are */
	int ncontent;
};

static bool is_position_input(const struct sources *s, value_id v)
{
	for (int i = 0; i < s->nposition; i++)
		if (s->position[i] == v)
			return true;
	return false;
}

/* v is what tokens say, in queries or keys, or in front of their projections. */
static bool is_content(const struct graph *g, const struct sources *s, value_id v)
{
	return s->q && dtype_in(g->value[v].type.dt, FLOATS) && g->value[v].type.shape.rank >= 3 && (seen(s->q, v) || seen(s->k, v)) && !is_weight(g, v, 6);
}

/* n picks rows of a table of learned numbers: of no mask's. */
static bool is_learned(const struct graph *g, const struct node *n)
{
	const struct tensor *table = n && node_is(n, "Gather") ? value_const(g, n->in[0]) : NULL;
	bool binary = true;

	if (!table || table->rank != 2 || !dtype_in(table->dt, FLOATS))
		return false;
	for (int64_t i = 0; i < table->n; i++) {
		double x = mask_entry(table, i);

		if (x == -INFINITY)
			return false;
		binary = binary && (x == 0 || x == 1);
	}
	return !binary;
}

static void mask_sources(const struct graph *g, value_id v, struct origin *o, struct sources *s)
{
	const struct node *n = value_node(g, v);
	const struct type *t = &g->value[v].type;

	if (!v || o->n == MAX_SEEN || seen(o, v))
		return;
	o->seen[o->n++] = v;
	if (is_learned(g, n)) {
		s->learned = true;
		return;
	}
	if (s->ncontent < MAX_CONTENT && is_content(g, s, v)) {
		s->content[s->ncontent++] = v;
		return;
	}
	if (g->value[v].kind == VALUE_INPUT) {
		const dim *d = t->shape.d;
		int r = t->shape.rank;
		bool single = true;

		for (int i = 0; i < r; i++)
			single = single && d[i] == 1;
		if (s->nwhole < MAX_WHOLE && dtype_in(t->dt, INTS) && (r == 1 || r == 2) && !single && (d[r - 1] == s->rows || d[r - 1] == s->keys))
			s->whole[s->nwhole++] = v;
		s->single = s->single || (single && dtype_in(t->dt, INTS));
		if (is_position_input(s, v))
			;
		else if (r > 2 || (r == 2 && (d[0] == d[1] || (d[0] == s->rows && d[0] != s->batch)))) {
			s->each_pair = true;
			s->boolean = t->dt == DT_BOOL || dtype_in(t->dt, INTS);
			s->real = dtype_in(t->dt, FLOATS);
			s->each_head = r > 2 && s->heads > 1 && d[r - 3] == s->heads && !s->boolean;
		} else if (!single && !(r && d[r - 1] == s->rows && d[r - 1] != s->keys && (r == 1 || dtype_in(t->dt, INTS)))) { /* positions of queries are not for keys */
			s->each_key = true;
		}
	}
	for (uint32_t i = 0; n && !(n->op->flags & OP_SHAPE_ONLY) && i < n->nin; i++)
		mask_sources(g, n->in[i], o, s);
}

/* Visible biases are a slope times the distance (or, which the softmax cannot tell from it, times the key's place), a slope a head. */
static bool is_alibi(const struct sample *s)
{
	const struct tensor *t = s->t;
	int64_t rows = t->d[t->rank - 2], cols = t->d[t->rank - 1];
	bool sloped = false;

	for (int64_t r = 0; cols && r < t->n / cols; r++) {
		int64_t own = s->row[r % rows] + s->S - s->L;
		double slope = 0;

		for (int64_t c = 1; c < cols; c++) {
			double x = mask_entry(t, r * cols + c - 1), y = mask_entry(t, r * cols + c);
			int64_t places = s->col[c] - s->col[c - 1];

			if (!isfinite(x) || !isfinite(y) || (s->col[c - 1] < own && own < s->col[c]))
				continue;
			if (s->col[c] > own && y < x && slope > 0) /* to the right of the own key distances grow again */
				y = 2 * x - y;
			if (!mask_goes_on(x, y, places, &slope))
				return false;
			sloped = true;
		}
	}
	return sloped;
}

/* What is visible, as seen in all samples. */
struct visible {
	int64_t left, right; /* the farthest keys before and after the query's own */
	bool within, own, told, plain, hidden; /* own: some query sees its own key; told: and a key that the first does not */
	bool band, cut_left, cut_right; /* all of those up to left and right; and there were others */
	bool alibi;
};

static int64_t distance(const struct sample *s, int64_t k)
{
	int64_t rows = s->t->d[s->t->rank - 2], cols = s->t->d[s->t->rank - 1];

	return s->row[k / cols % rows] + s->S - s->L - s->col[k % cols];
}

/* The key lies behind what the first query may see. */
static bool is_later(const struct sample *s, int64_t k) { return s->col[k % s->t->d[s->t->rank - 1]] > s->S - s->L; }

/* Where the data of inputs hides nothing. near: they are no matter of keys, but places, which drawn ones are not. */
static bool tells(const struct sample *s, bool near) { return s->ones && s->t->rank >= 2 && !(s->far && near); }

/* heads: what is the same for all entries of a head, which the softmax does not see, is no bias. draws: where ones tell nothing, what was drawn does. */
static void look(const struct samples *all, bool near, bool heads, bool draws, struct visible *m)
{
	double first = NAN;
	bool drawn = false, own = false, within = true;

	*m = (struct visible){ .within = true, .plain = true, .band = true, .alibi = true };
	for (int i = 0; i < all->n; i++) {
		const struct sample *s = &all->at[i];
		int64_t matrix = s->t->rank < 2 ? 1 : s->t->d[s->t->rank - 2] * s->t->d[s->t->rank - 1], at = -1;

		for (int64_t k = 0; tells(s, near) && k < s->t->n; k++) {
			double x = mask_entry(s->t, k);
			int64_t d = distance(s, k);

			if (x == -INFINITY)
				continue;
			first = isnan(first) || (heads && k / matrix != at) ? x : first;
			at = k / matrix;
			m->plain = m->plain && x == first;
			m->within = m->within && d >= 0;
			m->own = m->own || d == 0;
			m->told = m->told || is_later(s, k);
			m->left = d > m->left ? d : m->left;
			m->right = -d > m->right ? -d : m->right;
		}
	}
	m->told = m->told || near;
	for (int i = 0; i < all->n && !(m->told && m->own) && draws && all->data; i++) /* ones may be lengths */
		for (int64_t k = 0; all->at[i].t->rank >= 2 && k < all->at[i].t->n; k++) {
			bool seen = mask_entry(all->at[i].t, k) != -INFINITY;

			within = within && (!seen || distance(&all->at[i], k) >= 0);
			own = own || (seen && distance(&all->at[i], k) == 0);
			drawn = drawn || (seen && is_later(&all->at[i], k));
		}
	m->own = m->own || (own && within);
	m->within = m->within && (m->told || within);
	m->told = m->told || drawn;
	for (int i = 0; i < all->n; i++) {
		const struct sample *s = &all->at[i];

		for (int64_t k = 0; tells(s, near) && k < s->t->n; k++) {
			bool seen = mask_entry(s->t, k) != -INFINITY;
			int64_t d = distance(s, k);

			m->band = m->band && seen == (d <= m->left && -d <= m->right);
			m->hidden = m->hidden || !seen;
			m->cut_left = m->cut_left || d > m->left;
			m->cut_right = m->cut_right || -d > m->right;
		}
		m->alibi = m->alibi && (!tells(s, near) || is_alibi(s));
	}
}

/* One query sees the keys up to a place that data tells: its own, in a cache that is not full. */
static bool is_prefix(const struct samples *all)
{
	bool hidden = false;

	for (int i = 0; i < all->n; i++) {
		const struct tensor *t = all->at[i].t;
		int64_t cols = t->rank ? t->d[t->rank - 1] : 0;

		for (int64_t k = 0; k < t->n; k++) {
			bool seen = mask_entry(t, k) != -INFINITY;

			if (seen && k % cols && mask_entry(t, k - 1) == -INFINITY)
				return false;
			hidden = hidden || !seen;
		}
	}
	return all->data && hidden;
}

/*
 * The last of several queries, which sees what causality hides from others, sees the keys up to a place that data tells: behind it is padding. With a cache that may
 * have room behind the last query's key, all queries must see the same.
 */
static bool ends_early(const struct samples *all, bool room)
{
	bool hidden = false;

	for (int i = 0; i < all->n && all->data; i++) {
		const struct tensor *t = all->at[i].t;
		int64_t cols = t->rank >= 2 ? t->d[t->rank - 1] : 0;

		for (int64_t k = t->n - cols; k < t->n; k++) {
			bool seen = mask_entry(t, k) != -INFINITY;

			if ((room && t->d[t->rank - 2] != 1) || (seen && k % cols && mask_entry(t, k - 1) == -INFINITY))
				return false;
			hidden = hidden || (!seen && mask_entry(t, t->n - cols) != -INFINITY); /* a length may be drawn as none */
		}
	}
	return hidden;
}

/* Biases are a matter of how far a key lies from the query. */
static bool by_distance(const struct sample *s)
{
	int64_t rows = s->t->d[s->t->rank - 2], cols = s->t->d[s->t->rank - 1];
	bool differs = false;

	for (int64_t k = 0; k < s->t->n; k++) {
		double x = mask_entry(s->t, k), y;

		if (k / cols % rows == 0)
			continue;
		differs = differs || x != mask_entry(s->t, k - cols);
		y = k % cols ? mask_entry(s->t, k - cols - 1) : x;
		if (x != y && !(fabs(x - y) <= 1e-6 * fabs(x)))
			return false;
	}
	return differs;
}

/* As samples of a mask show where inputs are places, it compares those: what is visible, or what is added, is a matter of their distance. */
static bool compares_places(const struct samples *all)
{
	struct visible m;

	if (!all->n || all->at[0].t->rank < 2)
		return false;
	look(all, false, false, false, &m);
	if (m.within ? m.told && m.left > 0 : m.band && m.left > 0 && m.right > 0 && m.cut_left && m.cut_right)
		return true;
	return !m.plain && by_distance(&all->at[0]);
}

/* What a mask says without regard to padding. given: it depends on inputs; heads: as in look. */
static void structure(const struct samples *all, bool given, bool heads, struct attention_group *f)
{
	struct visible m;

	look(all, all->data && !given, heads, true, &m);
	/* of more keys than queries the last are not always the queries' own: blocks have neighbours on both sides */
	f->causal = f->causal || (m.within && m.told && all->at[0].L > 1 && (m.own || all->at[0].S == all->at[0].L));
	if (!m.plain)
		f->mask = m.alibi && !heads ? "alibi" : "relative_bias"; /* of queries or keys, slopes are none of the head alone */
	else if (m.band && m.cut_left && (m.within || (m.cut_right && m.left == m.right))) {
		f->mask = "sliding_window";
		f->window = m.within || f->causal ? m.left + 1 : m.left;
	} else if (m.hidden && !given && !f->causal) {
		f->mask = all->at[0].t->dt == DT_BOOL ? "boolean" : "additive";
	}
}

/* The keys are those of attention and one of zeros behind them, whose score is what the mask adds: a sink. */
static bool has_sink(const struct graph *g, value_id k)
{
	const struct node *n = value_node(g, k);

	return n && pads_one(g, n, 2);
}

/* The sample without its last column, the sink's; *learned: there was something but zeros in it. */
static enum linnet_code without_sink(struct sample *s, struct arena *a, bool *learned, struct linnet_error *e)
{
	const struct tensor *t = s->t;
	int64_t d[MAX_RANK], cols = t->d[t->rank - 1];
	struct tensor *keys;

	memcpy(d, t->d, (size_t)t->rank * sizeof *d);
	d[t->rank - 1] = cols - 1;
	TRY(tensor_new(a, t->dt, t->rank, d, &keys, e));
	for (int64_t i = 0; i < t->n; i++) {
		if (i % cols < cols - 1)
			tensor_put(keys, i / cols * (cols - 1) + i % cols, tensor_get(t, i));
		else
			*learned = *learned || tensor_get(t, i) != 0;
	}
	s->t = keys;
	s->S--;
	return LINNET_OK;
}

/* A boolean mask that says what is hidden, turned. */
static enum linnet_code inverse(struct sample *s, struct arena *a, struct linnet_error *e)
{
	struct tensor *visible;

	TRY(tensor_new(a, DT_BOOL, s->t->rank, s->t->d, &visible, e));
	for (int64_t i = 0; i < s->t->n; i++)
		tensor_put(visible, i, tensor_get(s->t, i) == 0);
	s->t = visible;
	return LINNET_OK;
}

/* How a mask is to be read: a boolean one says what is hidden; its last column is a sink. */
struct reading {
	value_id mask;
	bool inverted, sink;
	bool *learned; /* that of the sink */
};

/* Samples of the mask of what the scores have by themselves, as true: visible. far: at long lengths too. */
static enum linnet_code samples_of(const struct graph *g, const struct reading *r, const struct sources *s, bool far, struct arena *a, struct samples *all,
                                   struct linnet_error *e)
{
	struct given given = { .position = s->position, .nposition = s->nposition, .content = s->content, .ncontent = s->ncontent, .keys = s->added, .beyond = r->sink };

	TRY(samples_given(g, r->mask, &given, far, a, all, e));
	for (int i = 0; i < all->n; i++) {
		const struct tensor *t = all->at[i].t;

		if (r->inverted && t->dt == DT_BOOL)
			TRY(inverse(&all->at[i], a, e));
		if (r->sink && t->rank >= 2 && t->d[t->rank - 1] > 1)
			TRY(without_sink(&all->at[i], a, r->learned, e));
	}
	return LINNET_OK;
}

/* Which of s->whole are positions: with places as their data the mask compares those, and with ones it does not. *all becomes what the former says. */
static enum linnet_code find_positions(const struct graph *g, const struct reading *mask, struct samples *all, struct sources *s, struct arena *a, struct linnet_error *e)
{
	for (unsigned set = compares_places(all) ? 0 : 1; set && set < 1u << s->nwhole; set++) {
		struct samples *some;

		TRY_NEW(some, a, 1);
		s->nposition = 0;
		for (int i = 0; i < s->nwhole; i++)
			if (set >> i & 1)
				s->position[s->nposition++] = s->whole[i];
		TRY(samples_of(g, mask, s, false, a, some, e));
		if (compares_places(some))
			return samples_of(g, mask, s, true, a, all, e);
	}
	s->nposition = 0;
	return LINNET_OK;
}

/* keys: how many the scores have by themselves. inverted: a boolean mask says what is hidden. sink: its last column is one. */
static enum linnet_code describe_mask(const struct graph *g, value_id q, value_id k, value_id mask, dim keys, bool inverted, bool sink, struct attention_group *f,
                                      struct arena *a, struct linnet_error *e)
{
	const struct shape *queries = &g->value[q].type.shape, *width = &g->value[mask].type.shape;
	struct sources s = { .batch = queries->rank > 2 ? queries->d[0] : DIM_NONE, .rows = queries->rank > 2 ? queries->d[queries->rank - 2] : DIM_NONE,
		             .keys = width->rank > 0 ? width->d[width->rank - 1] : DIM_NONE, .added = keys, .heads = f->heads };
	struct origin *o = NEW(a, 3, struct origin);
	struct samples *all = NEW(a, 1, struct samples);
	const struct reading reading = { mask, inverted, sink, &f->sink };

	if (!o || !all)
		return fail_mem(e);
	if (!strcmp(f->mask, "padding")) { /* another term's */
		f->padding = true;
		f->mask = "none";
	}
	if (sink && s.keys != DIM_NONE)
		s.keys = dim_sub(g->dims, s.keys, 1);
	trace(g, q, true, &o[1]);
	trace(g, k, true, &o[2]);
	s.q = &o[1];
	s.k = &o[2];
	mask_sources(g, mask, o, &s);
	TRY(samples_of(g, &reading, &s, true, a, all, e));
	TRY(find_positions(g, &reading, all, &s, a, e));
	if (s.nposition) {
		s.each_key = s.each_pair = false;
		o->n = s.ncontent = s.nwhole = 0;
		mask_sources(g, mask, o, &s);
	}
	if (f->kv_cache && s.rows == 1 && !s.each_key && !s.each_pair && is_prefix(all))
		f->causal = true;
	if (s.single && !s.each_key && !s.each_pair && s.rows != 1 && ends_early(all, f->kv_cache && has_room(g, &o[2])))
		s.each_key = true;
	if (all->n && all->at[0].t->rank >= 2)
		structure(all, s.each_key || s.each_pair || s.nposition, s.ncontent > 0, f);
	if (s.each_pair && s.real && !s.each_head && !strcmp(f->mask, "relative_bias"))
		f->mask = "additive";
	if (s.learned && !strcmp(f->mask, "none"))
		f->mask = "relative_bias";
	if ((s.each_pair || s.ncontent) && !strcmp(f->mask, "none")) /* what content that is too large to be tried meets may be places */
		f->mask = s.each_head || (!s.each_pair && !all->n) ? "relative_bias" : s.boolean ? "boolean" : "additive";
	f->padding = f->padding || s.each_key;
	if (f->padding && !strcmp(f->mask, "none")) {
		f->padding = false;
		f->mask = "padding";
	}
	return LINNET_OK;
}

/* ---- Attention ---- */

static const char *kind_of(const struct attention_group *f, bool crossing, bool axis)
{
	if (crossing)
		return "cross";
	if (f->heads == 1 && !axis)
		return "self";
	return f->kv_heads == f->heads ? "mha" : f->kv_heads == 1 ? "mqa" : "gqa";
}

static int64_t quotient(int64_t a, int64_t b)
{
	return a > 0 && b > 0 ? a / b : -1;
}

/* Concat n has all parts of one Split of the last axis, in order. */
static bool are_parts(const struct graph *g, const struct node *n)
{
	const struct node *split = value_from(g, n->in[0], "Split");
	int64_t axis = split ? node_attr(split, "axis")->i : 0;

	if (!split || split->nout != n->nin || (axis != -1 && axis != g->value[n->in[0]].type.shape.rank - 1))
		return false;
	for (uint32_t i = 0; i < n->nin; i++)
		if (n->in[i] != split->out[i])
			return false;
	return true;
}

/* [B, heads..., rows..., D] has B and heads merged: how many they are, 1 when it cannot be told. */
static int64_t heads_of(struct dims *t, const struct shape *x, dim merged)
{
	dim heads = 1;

	for (int i = 1; i < x->rank - 2; i++) {
		heads = dim_mul(t, heads, x->d[i]);
		if (dim_mul(t, heads, x->d[0]) == merged)
			return dim_is_int(heads) ? heads : 1;
	}
	return 1;
}

/* Heads among those axes of x that Reshape n joins to one in front of the last two: [..., B, H, L, D] to [..., B H, L, D]. 1 when there are none. */
static int64_t joined_heads(const struct graph *g, const struct node *n)
{
	const struct shape *x = &g->value[n->in[0]].type.shape, *y = &g->value[n->out[0]].type.shape;
	int at = 0;

	if (x->rank != y->rank + 1 || y->rank < 3)
		return 1;
	while (at < y->rank - 2 && x->d[at] == y->d[at])
		at++;
	return at < y->rank - 2 ? length(g, n->in[0], at + 1) : 1;
}

/* Heads that a Reshape put into the batch: [B, H, L, D] to [B H, L, D], or [L, B, H D] to [L, B H, D]. 1 when there are none. */
static int64_t merged_heads(const struct graph *g, value_id q, int64_t width)
{
	static const char *const through[] = { "Unsqueeze", "Transpose", "Mul", "Identity", "Cast", "Div", "Gather", "Split", "Squeeze", "Slice", NULL };

	for (int steps = 0; steps < 8; steps++) {
		const struct node *n = value_node(g, q);

		if (!n)
			return 1;
		if (node_is(n, "Concat")) /* of the parts of a Split, one a head, in front of the batch */
			return are_parts(g, n) && node_attr(n, "axis")->i == 0 ? n->nin : 1;
		if (node_is(n, "Reshape")) {
			const struct shape *x = &g->value[n->in[0]].type.shape, *y = &g->value[q].type.shape;
			int64_t last = length(g, n->in[0], -1), heads = 1;

			if (last == width)
				heads = x->rank > 4 && y->rank == 3 ? heads_of(g->dims, x, y->d[0]) : joined_heads(g, n);
			else if (width > 0 && last > width && y->rank == 3)
				heads = last / width;
			return heads > 1 ? heads : 1;
		}
		if (!op_among(n, through))
			return 1;
		q = n->in[0];
	}
	return 1;
}

static int64_t lead_of(const struct tensor *t)
{
	int64_t rows = 1;

	for (int i = 0; i < t->rank - 2; i++)
		rows *= t->d[i];
	return rows;
}

/* Rows a and b of t [.., S, D] have the same at the first, or the last, place of S. */
static bool same_row(const struct tensor *t, int64_t a, int64_t b, bool last)
{
	int64_t width = t->d[t->rank - 1], per = t->d[t->rank - 2] * width, at = last ? per - width : 0;

	for (int64_t i = at; i < at + width; i++)
		if (tensor_get(t, a * per + i) != tensor_get(t, b * per + i))
			return false;
	return true;
}

/* Rows of t, or with u rows of t and u together, that differ from all before them. */
static int64_t different_rows(const struct tensor *t, const struct tensor *u, bool last)
{
	int64_t n = 0;

	for (int64_t r = 0; r < lead_of(t); r++) {
		bool again = false;

		for (int64_t o = 0; o < r && !again; o++)
			again = same_row(t, r, o, last) && (!u || same_row(u, r, o, last));
		n += !again;
	}
	return n;
}

/* Zeros and what was learned may stand at either end. */
static int64_t different(const struct tensor *t, const struct tensor *u)
{
	int64_t first = different_rows(t, u, false), last = different_rows(t, u, true);

	return last > first ? last : first;
}

/* v [.., S, D] where places of S say nothing; NULL where it cannot be told. */
static enum linnet_code channels_of(const struct graph *g, value_id v, struct arena *a, const struct tensor **t, struct linnet_error *e)
{
	*t = NULL;
	if (g->value[v].type.shape.rank < 2 || !dtype_in(g->value[v].type.dt, FLOATS))
		return LINNET_OK;
	TRY(sample_channels(g, v, a, t, e));
	if (*t && ((*t)->rank < 2 || !(*t)->n))
		*t = NULL;
	return LINNET_OK;
}

/* t [.., C, S] is the same along S. */
static bool is_flat(const struct tensor *t)
{
	int64_t rows = t->d[t->rank - 2], width = t->d[t->rank - 1];

	for (int64_t i = 0; i < rows * width; i++)
		if (tensor_get(t, i) != tensor_get(t, i - i % width))
			return false;
	return width > 1;
}

/* Channels attend to channels, [.., C, S], and tokens are contracted. Norms along tokens hide that of queries, but not of values. */
static bool channels_attend(const struct tensor *queries, const struct tensor *values)
{
	return is_flat(queries) && is_flat(values) && values->d[values->rank - 2] > 1 && tensor_get(values, 0) != tensor_get(values, values->d[values->rank - 1]);
}

/* Heads by what they are made of, wherever they lie among the leading places: those of queries, and pairs of keys and values as they were before they were repeated. */
static enum linnet_code count_heads(const struct graph *g, value_id q, value_id k, value_id v, struct arena *a, struct attention_group *f, struct linnet_error *e)
{
	const struct tensor *queries, *keys, *values;
	int64_t nq, nk, nv, pairs;

	TRY(channels_of(g, q, a, &queries, e));
	TRY(channels_of(g, k, a, &keys, e));
	TRY(channels_of(g, v, a, &values, e));
	if (!queries || !keys || !values)
		return LINNET_OK;
	if (channels_attend(queries, values))
		f->head_dim = f->value_dim = length(g, q, -2);
	nq = different(queries, NULL);
	nk = different(keys, NULL);
	nv = different(values, NULL);
	if (nq < nk || nq < nv)
		return LINNET_OK;
	pairs = lead_of(keys) == lead_of(values) ? different(keys, values) : nk == nv ? nk : nq;
	f->heads = nq;
	f->kv_heads = nq % pairs == 0 ? pairs : nq;
	return LINNET_OK;
}

/* The sizes of ai.onnx Attention, 4-D or with heads packed. */
static void standard_sizes(const struct graph *g, const struct node *n, struct attention_group *f)
{
	value_id q = n->in[0], k = n->in[1], v = n->in[2];

	if (g->value[q].type.shape.rank == 3) {
		f->heads = node_attr(n, "q_num_heads")->i;
		f->kv_heads = node_attr(n, "kv_num_heads")->i;
		f->head_dim = quotient(length(g, q, 2), f->heads);
		f->value_dim = quotient(length(g, v, 2), f->kv_heads);
	} else {
		f->heads = length(g, q, 1);
		f->kv_heads = length(g, k, 1);
		f->head_dim = length(g, q, 3);
		f->value_dim = length(g, v, 3);
		if (f->head_dim < 0 && length(g, q, 2) > 0) /* channels attend to channels, tokens are contracted */
			f->head_dim = f->value_dim = length(g, q, 2);
		if (f->heads < 0 && f->kv_heads < 0 && length(g, q, 0) > 0) /* heads lie first, the batch second */
			f->heads = length(g, q, 0), f->kv_heads = length(g, k, 0);
		if (f->heads == 1 && f->kv_heads == 1)
			f->heads = f->kv_heads = merged_heads(g, q, f->head_dim);
	}
}

/* Those of com.microsoft's operators. */
static void contrib_sizes(const struct graph *g, const struct node *n, struct attention_group *f)
{
	value_id weights = input_named(n, "weights"), q = n->in[0], v = input_named(n, "value");
	int64_t kv = node_attr(n, "kv_num_heads")->i;
	const struct attr *sizes = node_attr(n, "qkv_hidden_sizes");

	f->heads = node_attr(n, "num_heads")->i;
	f->kv_heads = kv ? kv : f->heads;
	if (weights) {
		int64_t width = length(g, weights, -1);

		f->head_dim = quotient(sizes->n == 3 ? sizes->ints[0] : width / 3, f->heads);
		f->value_dim = sizes->n == 3 ? quotient(sizes->ints[2], f->heads) : f->head_dim;
	} else if (g->value[q].type.shape.rank == 5) {
		f->head_dim = f->value_dim = length(g, q, -1);
	} else {
		int64_t packed = kv && !input_named(n, "key") ? f->heads + 2 * kv : f->heads;

		f->head_dim = f->value_dim = quotient(length(g, q, -1), packed);
		if (v && g->value[v].type.shape.rank == 3)
			f->value_dim = quotient(length(g, v, -1), f->kv_heads);
	}
}

/* v is numbers of few bits as floats: what they are multiplied by makes them what they are. */
static bool is_quantised(const struct graph *g, value_id v)
{
	const struct node *n = value_from(g, v, "Cast");

	return n && !dtype_in(g->value[n->in[0]].type.dt, FLOATS);
}

/* The constants that v is multiplied by, before layout steps and between them. */
static double factor(const struct graph *g, value_id v)
{
	const struct node *n;
	double all = 1, c;

	while ((n = value_node(g, v)) != NULL) {
		if (keeps_factor(g, n) || node_is(n, "Split")) {
			v = n->in[0];
			continue;
		}
		bool mul = node_is(n, "Mul"), first = mul && value_scalar(g, n->in[0], &c);

		if ((!first && !((mul || node_is(n, "Div")) && value_scalar(g, n->in[1], &c))) || c == 0 || is_quantised(g, n->in[first]))
			break;
		all *= mul ? c : 1 / c;
		v = n->in[first];
	}
	return all;
}

static enum linnet_code describe(const struct graph *g, const struct node *n, struct arena *a, struct attention_group *f, struct linnet_error *e)
{
	bool contrib = n->op->domain != NULL, same = true;
	value_id q = n->in[0], k = contrib ? input_named(n, "key") : n->in[1], v = contrib ? input_named(n, "value") : n->in[2], mask;
	struct origin *from = NEW(a, 2, struct origin);
	int64_t window = node_is_ms(n, "GroupQueryAttention") ? node_attr(n, "local_window_size")->i - 1
	                 : attr_given(node_attr(n, "left_window_size")) ? node_attr(n, "left_window_size")->i : -1;
	const struct node *made;

	if (!from)
		return fail_mem(e);
	*f = (struct attention_group){ .mask = "none", .window = -1, .count = 1, .heads = -1, .rewritable = true };
	if (contrib)
		contrib_sizes(g, n, f);
	else
		standard_sizes(g, n, f);
	if (!contrib && g->value[q].type.shape.rank == 4)
		TRY(count_heads(g, q, k, v, a, f, e));
	trace(g, q, false, &from[0]);
	trace(g, k ? k : q, false, &from[1]);
	if (k && !same_source(g, q, k, a, &same))
		return fail_mem(e);
	f->causal = node_attr(n, "is_causal")->i || node_attr(n, "unidirectional")->i || (node_is_ms(n, "GroupQueryAttention") && node_attr(n, "causal")->i);
	f->scale = node_attr(n, "scale")->given && node_attr(n, "scale")->f != 0 ? node_attr(n, "scale")->f
	           : f->head_dim > 0                                             ? 1 / sqrt((double)f->head_dim)
	                                                                         : 0;
	if (k)
		f->scale *= factor(g, q) * factor(g, k);
	f->softcap = node_attr(n, "softcap")->f;
	f->rope = node_attr(n, "do_rotary")->i || is_turned(g, &from[0]);
	if (!f->rope && k && v)
		TRY(turned_before(g, &from[0], v, a, &f->rope, e));
	f->qk_norm = is_normed(g, &from[0]) || input_named(n, "q_norm_weight");
	f->kv_cache = input_named(n, "past_key") || input_named(n, "past") || cache_of(g, &from[1]);
	f->kv_cache = f->kv_cache || (k && from[0].projections && is_kept(g, k));
	f->sink = input_named(n, "head_sink") || node_attr(n, "smooth_softmax")->i > 0;
	mask = input_named(n, contrib ? "attention_bias" : "attn_mask");
	if (mask)
		TRY(describe_mask(g, q, k ? k : q, mask, DIM_NONE, false, !contrib && has_sink(g, k), f, a, e));
	if (window >= 0) {
		f->padding = f->padding || !strcmp(f->mask, "padding");
		f->mask = "sliding_window";
		f->window = f->causal ? window + 1 : window;
	}
	if (input_named(n, "mask_index") || input_named(n, "key_padding_mask") || input_named(n, "nonpad_kv_seqlen")) {
		if (strcmp(f->mask, "none"))
			f->padding = true;
		else
			f->mask = "padding";
	}
	if ((input_named(n, "past_key") || cache_of(g, &from[1])) && !mask && !contrib && length(g, q, 2) == 1)
		f->causal = true; /* one query behind all it may see */
	if (n->nout > 3 && n->out[3])
		f->rewritable = false;
	made = value_node(g, q);
	f->kind = kind_of(f, !same && !(f->kv_cache && input_named(n, "past_key")) && !cache_of(g, &from[1]), !(made && node_is(made, "Unsqueeze")));
	return LINNET_OK;
}

/* ---- Attention that stays as it is ---- */

enum { MAX_TERM = 8, MAX_WALK = 24, MAX_TRIED = 400 };

/* n mixes heads of scores or of probabilities by weights: the input that those are. */
static bool mixes(const struct graph *g, const struct node *n, uint32_t *data)
{
	static const char *const mixing[] = { "MatMul", "Gemm", "Einsum", "Conv", NULL };

	const struct shape *s;
	int at;

	if (!op_among(n, mixing) || n->nin < 2)
		return false;
	*data = is_weight(g, n->in[1], 6) ? 0 : 1;
	if (*data && (node_is(n, "Conv") || n->nin > 2 || !is_weight(g, n->in[0], 6)))
		return false;
	s = &g->value[n->in[1 - *data]].type.shape;
	at = node_is(n, "Conv") ? 0 : s->rank - 2;
	return s->rank >= 2 && s->d[at] == s->d[at + 1]; /* as many heads as there were */
}

/* What lies between a softmax and the two products around it. */
struct around {
	const struct view *w;
	value_id softmax, product, q, kt, v;
	value_id beside; /* scores with other keys, joined to those; 0: none are */
	value_id term[MAX_TERM];
	bool hides[MAX_TERM]; /* the term is a condition: entries are hidden where it is true; see `condition` */
	bool condition[MAX_TERM];
	int nterm;
	double scale, softcap;
	bool shared, changed, sink, joined, turned, cut; /* joined: scores have more columns, the sink's or those of other keys; turned: they are [keys, queries]; cut: a
	                                                  * part of them is on the way */
	bool crossed; /* rows and columns of the probabilities are exchanged where the walk is; at the product with values, which sums over columns: over rows */
	int *steps; /* left to take, over all ways tried */
};

static bool is_product(const struct graph *g, const struct node *n)
{
	int second = !strncmp(n->op->name, "QLinear", 7) ? 3 : 1;

	if (!(node_is(n, "MatMul") || node_is_ms(n, "FusedMatMul") || node_is(n, "QLinearMatMul")) || (int)n->nin <= second)
		return false;
	/* a constant for each head may be a memory of keys or values; for all, it is a projection */
	return !is_weight(g, n->in[0], 6) && (!is_weight(g, n->in[second], 6) || g->value[n->in[second]].type.shape.rank > 2);
}

static bool walk_back(struct around *r, value_id v, double mul, int depth)
{
	static const char *const plain[] = { "Cast", "Identity", "Reshape", "QuantizeLinear", "DequantizeLinear", "Transpose", NULL };
	const struct graph *g = r->w->g;
	const struct node *n = value_node(g, v);
	uint32_t data;
	double c;

	if (!n || !depth || --*r->steps < 0)
		return false;
	r->shared = r->shared || value_uses(r->w, v) != 1;
	if (is_product(g, n)) {
		const struct attr *alpha = node_attr(n, "alpha");

		r->product = v;
		r->q = n->in[0];
		r->kt = n->in[!strncmp(n->op->name, "QLinear", 7) ? 3 : 1];
		r->scale = mul * (alpha->kind == ATTR_FLOAT ? alpha->f : 1);
		return true;
	}
	if (op_among(n, plain))
		return walk_back(r, n->in[0], mul, depth - 1);
	if (mixes(g, n, &data)) {
		r->changed = true;
		return walk_back(r, n->in[data], mul, depth - 1);
	}
	if (node_is(n, "ScatterND")) { /* terms of a part of the scores: of those but of tokens of class */
		r->changed = r->cut = true;
		return walk_back(r, n->in[2], mul, depth - 1);
	}
	if (node_is(n, "Slice") && r->cut)
		return walk_back(r, n->in[0], mul, depth - 1);
	if (node_is(n, "Concat") && n->nin == 2) {
		r->joined = true;
		r->sink = length(g, n->in[1], -1) == 1;
		r->beside = r->sink ? 0 : n->in[1];
		return walk_back(r, n->in[0], mul, depth - 1);
	}
	if (pads_one(g, n, 1)) { /* for a softmax with one more in its sum */
		r->joined = true;
		return walk_back(r, n->in[0], mul, depth - 1);
	}
	if (node_is(n, "Tanh")) {
		r->softcap = mul;
		return walk_back(r, n->in[0], mul, depth - 1);
	}
	for (int i = 0; i < 2 && (node_is(n, "Mul") || node_is(n, "Div")); i++)
		if (value_scalar(g, n->in[1 - i], &c) && !(i && node_is(n, "Div")))
			return walk_back(r, n->in[i], node_is(n, "Mul") ? mul * c : mul / c, depth - 1);
	for (int i = 0; i < 2 && node_is(n, "Mul"); i++) { /* a learned scale a head, as in cosine attention */
		struct around keep = *r;

		if (is_weight(g, n->in[1 - i], 6) && walk_back(r, n->in[i], mul, depth - 1))
			return true;
		*r = keep;
	}
	for (int i = 0; i < 2 && (node_is(n, "Add") || (node_is(n, "Sub") && !i)); i++) {
		const struct node *other = value_node(g, n->in[1 - i]);
		struct around keep = *r;

		if (other && mixes(g, other, &data) && other->in[data] == n->in[i])
			r->changed = true;
		else if (r->nterm < MAX_TERM)
			r->term[r->nterm++] = n->in[1 - i];
		if (walk_back(r, n->in[i], mul, depth - 1))
			return true;
		*r = keep;
	}
	for (int i = 1; i <= 2 && node_is(n, "Where"); i++) {
		struct around keep = *r;

		if (!value_scalar(g, n->in[i], &c) || c > MASK_HIDDEN || r->nterm == MAX_TERM)
			continue;
		r->condition[r->nterm] = true;
		r->hides[r->nterm] = i == 1;
		r->term[r->nterm++] = n->in[0];
		if (walk_back(r, n->in[3 - i], mul, depth - 1))
			return true;
		*r = keep;
	}
	return false;
}

/* From the probabilities p to a product with values. */
static bool walk_on(struct around *r, value_id p, int depth)
{
	static const char *const plain[] = { "Cast", "Identity", "Reshape", "QuantizeLinear", "DequantizeLinear", "Transpose", "Where", "Slice", NULL };
	static const char *const changing[] = { "Mul", "Add", "Sub", "Div", "LayerNormalization", "BatchNormalization", NULL };
	const struct graph *g = r->w->g;
	uint32_t data;

	if (!depth || --*r->steps < 0)
		return false;
	r->shared = r->shared || value_uses(r->w, p) != 1;
	for (uint32_t i = r->w->uses.begin[p]; i < r->w->uses.end[p]; i++) {
		const struct use *u = &r->w->uses.use[i];
		const struct node *n = u->node ? &g->node[u->node] : NULL;
		struct around keep = *r;

		if (!n)
			continue;
		if (is_product(g, n)) {
			int second = !strncmp(n->op->name, "QLinear", 7) ? 3 : 1;

			r->v = u->index == 0 ? n->in[second] : n->in[0];
			r->crossed = r->crossed != (u->index != 0);
			return true;
		}
		if (op_among(n, changing) || (mixes(g, n, &data) && u->index == data) || (node_is(n, "MatMul") && u->index == 0))
			r->changed = true;
		else if (!op_among(n, plain) || (node_is(n, "Slice") && !r->joined) || (u->index && !node_is(n, "Where")))
			continue;
		if (node_is(n, "Transpose") && swaps_last_two(n, g->value[p].type.shape.rank))
			r->crossed = !r->crossed;
		if (walk_on(r, n->out[0], depth - 1))
			return true;
		*r = keep;
	}
	return false;
}

/* The lengths of the scores lie where the softmax takes them: nothing between turned rows and columns. */
static bool same_scores(const struct graph *g, const struct around *r)
{
	const struct shape *p = &g->value[r->product].type.shape, *s = &g->value[r->softmax].type.shape, *v = &g->value[r->v].type.shape;

	return p->rank >= 2 && s->rank >= 2 && v->rank >= 2 && p->d[p->rank - 2] == s->d[s->rank - 2] && (!r->turned || r->crossed) &&
	       (r->joined || p->d[p->rank - 1] == s->d[s->rank - 1]) && v->d[v->rank - 2] == p->d[p->rank - (r->turned ? 2 : 1)];
}

/* A term made of the scores themselves, as for the k greatest: no mask. */
static bool masks_apart(const struct around *r, struct arena *a, bool *apart)
{
	for (int i = 0; i < r->nterm; i++) {
		struct origin *o = NEW(a, 1, struct origin);
		struct sources s = { .heads = 0 };

		if (!o)
			return false;
		mask_sources(r->w->g, r->term[i], o, &s);
		if (seen(o, r->product)) {
			*apart = false;
			return true;
		}
	}
	*apart = true;
	return true;
}

/* Queries and the keys beside those of r->product are made of the same. */
static bool same_beside(const struct around *r, struct arena *a, bool *same)
{
	struct around other = { .w = r->w, .steps = r->steps };

	return !r->beside || !walk_back(&other, r->beside, 1, MAX_WALK) || same_source(r->w->g, other.q, other.kt, a, same);
}

static enum linnet_code describe_kept(const struct around *r, struct arena *a, struct attention_group *f, struct linnet_error *e)
{
	const struct graph *g = r->w->g;
	const struct shape *s = &g->value[r->product].type.shape;
	struct origin *from = NEW(a, 2, struct origin);
	bool same;

	if (!from)
		return fail_mem(e);
	*f = (struct attention_group){ .mask = "none", .window = -1, .count = 1, .heads = s->rank >= 4 ? length(g, r->product, length(g, r->product, 1) > 0 ? 1 : -3) : 1,
		                       .head_dim = length(g, r->q, r->turned ? -2 : -1), .value_dim = length(g, r->v, -1), .sink = r->sink,
		                       .scale = r->scale * factor(g, r->q) * factor(g, r->kt), .softcap = r->softcap,
		                       .rewritable = !r->shared && !r->changed };
	f->kv_heads = f->heads;
	if (s->rank < 4)
		f->heads = f->kv_heads = merged_heads(g, r->q, f->head_dim);
	TRY(count_heads(g, r->q, r->kt, r->v, a, f, e));
	trace(g, r->q, false, &from[0]);
	trace(g, r->kt, false, &from[1]);
	if (!same_source(g, r->q, r->kt, a, &same) || (!same && !same_beside(r, a, &same)))
		return fail_mem(e);
	f->rope = is_turned(g, &from[0]);
	if (!f->rope)
		TRY(turned_before(g, &from[0], r->v, a, &f->rope, e));
	f->qk_norm = is_normed(g, &from[0]);
	f->kv_cache = cache_of(g, &from[1]) != NULL;
	for (int i = 0; i < r->nterm; i++)
		TRY(describe_mask(g, r->q, r->kt, r->term[i], s->rank > 0 && !r->cut ? s->d[s->rank - 1] : DIM_NONE, r->condition[i] && r->hides[i], false, f, a, e));
	f->kind = kind_of(f, !same && !f->kv_cache, s->rank >= 4);
	return LINNET_OK;
}

/* The values normalised by n, and its output, when n is a softmax over rows: Softmax, or exponents over their sum and one more. turned: columns, of keys times
 * queries. */
static bool softmax_of(const struct graph *g, const struct node *n, value_id *x, bool *sink, bool *turned)
{
	const struct node *ex, *sum;
	int64_t axis = node_attr(n, "axis")->i;
	double one;
	int count;

	*sink = *turned = false;
	if (node_is(n, "Softmax")) {
		int rank = g->value[n->in[0]].type.shape.rank;

		*x = n->in[0];
		*turned = axis == rank - 2;
		return rank >= 2 && (axis == -1 || axis == rank - 1 || *turned);
	}
	if (node_is_ms(n, "QLinearSoftmax")) {
		*x = n->in[0];
		return true;
	}
	if (!node_is(n, "Div"))
		return false;
	ex = value_from(g, n->in[0], "Exp");
	sum = value_from(g, n->in[1], "ReduceSum");
	if (ex && sum && sum->in[0] == n->in[0] && sum->nin > 1 && value_ints(g, sum->in[1], &axis, 1, &count) && count == 1 &&
	    (axis == -1 || axis == g->value[ex->in[0]].type.shape.rank - 1)) { /* without the maximum: it may overflow where Softmax does not */
		*x = ex->in[0];
		return true;
	}
	sum = value_from(g, n->in[1], "Add");
	for (int i = 0; ex && sum && i < 2; i++) {
		const struct node *total = value_from(g, sum->in[i], "ReduceSum");

		if (!total || total->in[0] != n->in[0] || !value_scalar(g, sum->in[1 - i], &one) || one != 1 || total->nin < 2 ||
		    !value_ints(g, total->in[1], &axis, 1, &count) || count != 1 || (axis != -1 && axis != g->value[ex->in[0]].type.shape.rank - 1))
			continue;
		*x = ex->in[0];
		*sink = true;
		return true;
	}
	return false;
}

static enum linnet_code collect_kept(const struct view *w, const struct node *n, struct arena *a, bool *found, struct attention_group *f,
                                     struct linnet_error *e)
{
	int steps = MAX_TRIED;
	struct around r = { .w = w, .steps = &steps };
	bool plus_one, apart;

	*found = false;
	if (!softmax_of(w->g, n, &r.softmax, &plus_one, &r.turned) || !walk_back(&r, r.softmax, 1, MAX_WALK) || !walk_on(&r, n->out[0], MAX_WALK) ||
	    !same_scores(w->g, &r))
		return LINNET_OK;
	if (!masks_apart(&r, a, &apart))
		return fail_mem(e);
	*found = apart;
	if (!apart)
		return LINNET_OK;
	r.sink = r.sink && !plus_one;
	if (r.turned) {
		value_id queries = r.kt;

		r.kt = r.q;
		r.q = queries;
	}
	return describe_kept(&r, a, f, e);
}

enum linnet_code attention_kept(const struct view *w, const struct node *n, struct arena *a, bool *kept, struct linnet_error *e)
{
	struct attention_group ignored;

	return collect_kept(w, n, a, kept, &ignored, e);
}

value_id product_before(const struct view *w, value_id x)
{
	int steps = MAX_TRIED;
	struct around r = { .w = w, .steps = &steps };

	return walk_back(&r, x, 1, MAX_WALK) ? r.product : 0;
}

bool product_behind(const struct view *w, value_id p)
{
	int steps = MAX_TRIED;
	struct around r = { .w = w, .steps = &steps, .joined = true };

	return walk_on(&r, p, MAX_WALK);
}

/* ---- Gated units ---- */

static bool one_projection(const struct graph *g, value_id gate, value_id value, struct arena *a, bool *fused)
{
	struct origin *o = NEW(a, 2, struct origin);

	if (!o)
		return false;
	trace(g, gate, false, &o[0]);
	trace(g, value, false, &o[1]);
	*fused = false;
	for (int i = 0; i < o[0].n && !*fused; i++) {
		const struct node *n = value_node(g, o[0].seen[i]);

		*fused = n && is_projection(g, n) && seen(&o[1], o[0].seen[i]);
	}
	return true;
}

bool node_glu(const struct graph *g, const struct node *n, struct arena *a, struct glu_group *f)
{
	static const char *const words[][2] = { { "sigmoid", "glu" }, { "gelu", "geglu_erf" }, { "gelu_tanh", "geglu_tanh" }, { "swish", "swiglu" },
		                                { "relu", "reglu" }, { "identity", "bilinear" }, { NULL, NULL } };
	struct text act = node_attr(n, "activation")->s;

	*f = (struct glu_group){ .variant = "swiglu", .alpha = 1, .fused_weight = true, .count = 1 };
	if (node_is_ms(n, "BiasSplitGelu")) {
		f->variant = "geglu_erf";
		return true;
	}
	for (int i = 0; words[i][0]; i++)
		if (act.n == strlen(words[i][0]) && !memcmp(act.p, words[i][0], act.n))
			f->variant = words[i][1];
	if (node_attr(n, "alpha")->kind == ATTR_FLOAT)
		f->alpha = node_attr(n, "alpha")->f;
	return n->nin < 2 || !n->in[1] || one_projection(g, n->in[0], n->in[1], a, &f->fused_weight);
}

bool node_is_glu(const struct node *n)
{
	return node_is(n, "SwiGLU") || node_is_ms(n, "BiasSplitGelu") || (n->op->domain && !strcmp(n->op->domain, "linnet") && !strcmp(n->op->name, "GLU"));
}

bool node_experts(const struct node *n, struct glu_group *f)
{
	/* by activation: its unit where it is gated itself, and with fc3 beside */
	static const char *const words[][3] = { { "swiglu", "swiglu", "swiglu" }, { "geglu", "geglu_tanh", "geglu_tanh" }, { "silu", NULL, "swiglu" },
		                                { "gelu", NULL, "geglu_tanh" }, { "relu", NULL, "reglu" }, { "identity", NULL, "bilinear" } };
	bool beside = input_named(n, "fc3_experts_weights") != 0;
	const struct attr *limit;
	struct text act;

	if (!node_is_ms(n, "MoE") && !node_is_ms(n, "QMoE"))
		return false;
	limit = node_attr(n, "swiglu_limit");
	act = node_attr(n, "activation_type")->s;
	*f = (struct glu_group){ .alpha = 1, .fused_weight = !beside, .count = 1 };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (act.n == strlen(words[i][0]) && !memcmp(act.p, words[i][0], act.n))
			f->variant = words[i][1 + beside];
	if (f->variant && !strcmp(f->variant, "swiglu") && act.n == 6) {
		f->alpha = node_attr(n, "activation_alpha")->f;
		/* within limits, or with a line that is added to, it is another function */
		if (node_attr(n, "activation_beta")->f != 0 || (attr_given(limit) && limit->f > 0 && isfinite(limit->f)))
			f->variant = NULL;
	}
	return f->variant != NULL;
}

/* ---- All of a graph ---- */

static bool is_attention(const struct node *n)
{
	static const char *const names[] = { "Attention", "MultiHeadAttention", "GroupQueryAttention", "DecoderMaskedMultiHeadAttention",
		                             "DecoderMaskedSelfAttention", "QAttention", "PackedAttention", "PackedMultiHeadAttention", NULL };

	return node_is(n, "Attention") || (n->op->domain && !strcmp(n->op->domain, "com.microsoft") && op_among(n, names));
}

/* A row whose mean square is 1, over the root of its width: its length is 1. */
static bool scales_to_length(const struct graph *g, const struct node *n)
{
	const struct shape *s = &g->value[n->in[0]].type.shape;
	int64_t axis = node_attr(n, "axis")->i;
	double c, width = 1;

	for (int64_t i = axis < 0 ? axis + s->rank : axis; i >= 0 && i < s->rank; i++)
		width *= dim_is_int(s->d[i]) ? (double)s->d[i] : 0;
	return width > 1 && value_scalar(g, n->in[1], &c) && fabs(c * sqrt(width) - 1) <= 1e-6;
}

int node_norm(const struct graph *g, const struct node *n)
{
	static const struct {
		const char *name;
		int kind;
	} kinds[] = { { "LayerNormalization", NORM_LAYER }, { "SkipLayerNormalization", NORM_LAYER }, { "EmbedLayerNormalization", NORM_LAYER }, { "QEmbedLayerNormalization", NORM_LAYER },
		      { "RMSNormalization", NORM_RMS }, { "SimplifiedLayerNormalization", NORM_RMS },
		      { "SkipSimplifiedLayerNormalization", NORM_RMS }, { "GroupNormalization", NORM_GROUP }, { "GroupNorm", NORM_GROUP },
		      { "SkipGroupNorm", NORM_GROUP }, { "BatchNormalization", NORM_BATCH },
		      { "L2Normalization", NORM_L2 } };

	if (node_is(n, "InstanceNormalization")) /* of groups of channels as one channel each */
		return value_from(g, n->in[0], "Reshape") && g->value[n->in[0]].type.shape.rank == 3 ? NORM_GROUP : -1;
	if (node_is(n, "LpNormalization"))
		return node_attr(n, "p")->i == 2 ? NORM_L2 : -1;
	if (node_is(n, "RMSNormalization") && scales_to_length(g, n))
		return NORM_L2;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(n->op->name, kinds[i].name))
			return kinds[i].kind;
	return -1;
}

enum part_kind part_kind(const struct graph *g, const struct node *n)
{
	if (is_attention(n))
		return PART_ATTENTION;
	if (node_is_glu(n))
		return PART_GLU;
	if (!strcmp(n->op->name, "LinearAttention") || !strcmp(n->op->name, "CausalConvWithState"))
		return PART_RECURRENCE;
	if (!strcmp(n->op->name, "RotaryEmbedding"))
		return PART_POSITION;
	return node_norm(g, n) >= 0 ? PART_NORM : PART_NONE;
}

static bool same_words(const char *a, const char *b)
{
	return !strcmp(a, b);
}

bool attention_alike(const struct attention_group *a, const struct attention_group *b)
{
	return same_words(a->kind, b->kind) && a->heads == b->heads && a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
	       a->value_dim == b->value_dim && a->causal == b->causal && same_words(a->mask, b->mask) && a->padding == b->padding &&
	       a->window == b->window && fabs(a->scale - b->scale) <= 1e-6 * fabs(b->scale) && a->softcap == b->softcap && a->rope == b->rope &&
	       a->qk_norm == b->qk_norm && a->kv_cache == b->kv_cache && a->sink == b->sink && a->rewritable == b->rewritable;
}

/* Groups are few: a copy with room for another. */
static void *with_one_more(struct arena *a, const void *p, size_t n, size_t size)
{
	void *to = arena_get(a, n + 1, size);

	if (to && n)
		memcpy(to, p, n * size);
	return to;
}

static enum linnet_code add_attention(struct recognised *r, struct arena *a, const struct attention_group *f, struct linnet_error *e)
{
	for (int i = 0; i < r->nattention; i++)
		if (attention_alike(&r->attention[i], f)) {
			r->attention[i].count++;
			return LINNET_OK;
		}
	r->attention = with_one_more(a, r->attention, (size_t)r->nattention, sizeof *f);
	if (!r->attention)
		return fail_mem(e);
	r->attention[r->nattention++] = *f;
	return LINNET_OK;
}

static enum linnet_code add_glu(struct recognised *r, struct arena *a, const struct glu_group *f, struct linnet_error *e)
{
	for (int i = 0; i < r->nglu; i++)
		if (same_words(r->glu[i].variant, f->variant) && r->glu[i].alpha == f->alpha && r->glu[i].fused_weight == f->fused_weight) {
			r->glu[i].count++;
			return LINNET_OK;
		}
	r->glu = with_one_more(a, r->glu, (size_t)r->nglu, sizeof *f);
	if (!r->glu)
		return fail_mem(e);
	r->glu[r->nglu++] = *f;
	return LINNET_OK;
}

static enum linnet_code add_linear(const struct graph *g, const struct node *n, struct recognised *r, struct arena *a, struct linnet_error *e)
{
	struct linear_group f = { .rule = node_attr(n, "update_rule")->s, .heads = node_attr(n, "q_num_heads")->i, .kv_heads = node_attr(n, "kv_num_heads")->i,
		                  .head_dim = length(g, n->in[0], 2), .scale = node_attr(n, "scale")->f, .state = n->nin > 3 && n->in[3], .count = 1 };

	if (f.head_dim >= 0 && f.heads > 0)
		f.head_dim /= f.heads;
	if (f.scale == 0 && f.head_dim > 0)
		f.scale = 1 / sqrt((double)f.head_dim);
	if (n->nin > 4 && length(g, n->in[4], 2) > 0)
		f.decay = length(g, n->in[4], 2) == f.kv_heads ? "per head" : "per channel";
	for (int i = 0; i < r->nlinear; i++) {
		struct linear_group *l = &r->linear[i];

		if (l->rule.n == f.rule.n && !memcmp(l->rule.p, f.rule.p, f.rule.n) && l->heads == f.heads && l->kv_heads == f.kv_heads && l->head_dim == f.head_dim &&
		    fabs(l->scale - f.scale) <= 1e-6 * fabs(f.scale) && l->decay == f.decay && l->state == f.state) {
			l->count++;
			return LINNET_OK;
		}
	}
	r->linear = with_one_more(a, r->linear, (size_t)r->nlinear, sizeof f);
	if (!r->linear)
		return fail_mem(e);
	r->linear[r->nlinear++] = f;
	return LINNET_OK;
}

static enum linnet_code add_causal(const struct graph *g, const struct node *n, struct recognised *r, struct arena *a, struct linnet_error *e)
{
	struct causal_group f = { .channels = length(g, n->in[1], 0), .taps = length(g, n->in[1], 2), .silu = node_attr(n, "activation")->s.p[0] == 's',
		                  .state = n->nin > 3 && n->in[3], .count = 1 };

	for (int i = 0; i < r->ncausal; i++) {
		struct causal_group *c = &r->causal[i];

		if (c->channels == f.channels && c->taps == f.taps && c->silu == f.silu && c->state == f.state) {
			c->count++;
			return LINNET_OK;
		}
	}
	r->causal = with_one_more(a, r->causal, (size_t)r->ncausal, sizeof f);
	if (!r->causal)
		return fail_mem(e);
	r->causal[r->ncausal++] = f;
	return LINNET_OK;
}

enum linnet_code node_attention(const struct view *w, const struct node *n, struct arena *a, bool *found, struct attention_group *f,
                                struct linnet_error *e)
{
	*found = is_attention(n);
	return *found ? describe(w->g, n, a, f, e) : collect_kept(w, n, a, found, f, e);
}

/* ---- Sinusoidal positions ---- */

enum { MAX_LAYOUT = 6 };

/* v, picked, cut, laid out or scaled, is added to a value that is not constant, or projected. */
static bool is_position(const struct view *w, value_id v, int depth)
{
	static const char *const layout[] = { "Gather", "Slice", "Unsqueeze", "Squeeze", "Expand", "Cast", "Reshape", "Transpose", "Identity", NULL };
	const struct graph *g = w->g;
	double c;

	for (uint32_t i = w->uses.begin[v]; i < w->uses.end[v]; i++) {
		const struct use *u = &w->uses.use[i];
		const struct node *n = u->node ? &g->node[u->node] : NULL;

		if (!n || u->index >= 2)
			continue;
		if (node_is(n, "Add") && !value_const(g, n->in[1 - u->index]))
			return true;
		if (!value_const(g, v) && !u->index && is_projection(g, n))
			return true;
		if (depth && n->nout && ((op_among(n, layout) && !u->index) || (node_is(n, "Mul") && value_scalar(g, n->in[1 - u->index], &c))) &&
		    is_position(w, n->out[0], depth - 1))
			return true;
	}
	return false;
}

/* Each pair of columns, `apart` from one another, is the sine and cosine, in either order, of an angle that grows evenly from row to row. */
static bool turns_evenly(const struct tensor *t, int64_t rows, int64_t width, int64_t apart, int64_t step)
{
	int64_t first = rows / 2 < rows - 4 ? rows / 2 : rows - 4, moving = 0;

	for (int64_t i = 0; i < width / 2; i++) {
		double at = 0, by = 0;

		for (int64_t r = 0; r < 4; r++) {
			double a = tensor_get(t, (first + r) * width + i * step), b = tensor_get(t, (first + r) * width + i * step + apart), angle = atan2(a, b);

			if (!(fabs(a * a + b * b - 1) < 0.01) || (r > 1 && !(fabs(sin(at + (double)r * by) - a) < 0.01 && fabs(cos(at + (double)r * by) - b) < 0.01)))
				return false;
			at = r ? at : angle;
			by = r == 1 ? angle - at : by;
		}
		moving += fabs(remainder(by, 2 * acos(-1))) > 1e-3;
	}
	return moving > 1;
}

static bool is_sine_table(const struct tensor *t)
{
	int64_t width = t->rank > 1 ? t->d[t->rank - 1] : 0, rows = t->rank > 1 ? t->d[t->rank - 2] : 0;

	return dtype_in(t->dt, FLOATS) && rows >= 4 && width >= 4 && !(width & 1) && t->n == rows * width &&
	       (turns_evenly(t, rows, width, width / 2, 1) || turns_evenly(t, rows, width, 1, 2));
}

/* Concat n joins the sine and the cosine of one value. */
static bool joins_sine(const struct graph *g, const struct node *n)
{
	value_id of[2] = { 0 };
	int sines = 0;

	for (uint32_t i = 0; i < 2 && n->nin == 2; i++) {
		const struct node *m = value_node(g, n->in[i]);

		m = m && node_is(m, "Unsqueeze") ? value_node(g, m->in[0]) : m;
		if (!m || !(node_is(m, "Sin") || node_is(m, "Cos")))
			return false;
		sines += node_is(m, "Sin");
		of[i] = m->in[0];
	}
	return n->nin == 2 && of[0] == of[1] && sines == 1;
}

static int count_positions(const struct view *w)
{
	const struct graph *g = w->g;
	int n = 0;

	for (value_id v = 1; v < g->nvalue; v++) {
		const struct node *by = value_from(g, v, "Concat");

		if (g->value[v].kind == VALUE_CONST && g->value[v].type.value ? is_sine_table(g->value[v].type.value) : by && !by->dead && joins_sine(g, by))
			n += is_position(w, v, MAX_LAYOUT);
	}
	return n;
}

static enum linnet_code collect(const struct graph *g, struct arena *a, struct recognised *out, struct linnet_error *e)
{
	struct view w = { .g = g, .scratch = a };

	TRY(graph_uses(g, a, &w.uses, e));
	out->sinusoidal += count_positions(&w);
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];
		struct attention_group f;
		struct glu_group unit;
		bool found;
		int norm;

		if (n->dead)
			continue;
		for (uint32_t i = 0; i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				TRY(collect(n->attr[i].g, a, out, e));
		norm = node_norm(g, n);
		if (norm >= 0)
			out->norm[norm]++;
		TRY(node_attention(&w, n, a, &found, &f, e));
		if (found)
			TRY(add_attention(out, a, &f, e));
		if (node_is_glu(n) && !node_glu(g, n, a, &unit))
			return fail_mem(e);
		if (node_is_glu(n) || node_experts(n, &unit))
			TRY(add_glu(out, a, &unit, e));
		if (!strcmp(n->op->name, "LinearAttention"))
			TRY(add_linear(g, n, out, a, e));
		if (!strcmp(n->op->name, "CausalConvWithState"))
			TRY(add_causal(g, n, out, a, e));
	}
	return LINNET_OK;
}

enum linnet_code graph_recognised(const struct graph *g, struct arena *a, struct recognised *out, struct linnet_error *e)
{
	memset(out, 0, sizeof *out);
	return collect(g, a, out, e);
}
