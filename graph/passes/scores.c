/*
 * Spellings of what attention is made of: contractions by Einsum, softmax in pieces or over rows flattened, masks blended in by
 * products, layouts turned there and back. Each becomes the MatMul, Softmax, Where or Transpose it is, for pass attend to read. Needs types.
 */
#include <math.h>
#include <string.h>

#include "graph/mask.h"
#include "graph/why.h"

/* ---- Einsum ---- */

enum { LABELS = 26 * 2 };

/* Labels of one term of an equation, the axes of an ellipsis called 0, 1, ...; false with a label twice or too many. */
static bool read_labels(const char **s, const char *end, int ellipsis, char *out, int *n)
{
	*n = 0;
	for (; *s < end && **s != ',' && **s != '-'; ++*s) {
		char c = **s;

		if (c == ' ')
			continue;
		if (c == '.') {
			if (end - *s < 3 || (*s)[1] != '.' || (*s)[2] != '.' || ellipsis < 0 || *n + ellipsis > MAX_RANK || memchr(out, '0', (size_t)*n))
				return false;
			for (int i = 0; i < ellipsis; i++)
				out[(*n)++] = (char)('0' + i);
			*s += 2;
			continue;
		}
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) || *n == MAX_RANK || memchr(out, c, (size_t)*n))
			return false;
		out[(*n)++] = c;
	}
	return true;
}

struct contraction {
	char in[2][MAX_RANK], out[MAX_RANK];
	int nin[2], nout;
	char batch[MAX_RANK], row, column, sum; /* of the product [batch..., row, column], over sum */
	char extra[MAX_RANK];                   /* behind the batch: axes of the operand with the rows alone */
	int nbatch, nextra, first;              /* which operand has the rows */
};

static int position(const char *labels, int n, char c)
{
	const char *p = memchr(labels, c, (size_t)n);

	return p ? (int)(p - labels) : -1;
}

/* The batch axes are the first of a term. */
static bool batch_leads(const struct contraction *c, const char *term)
{
	for (int i = 0; i < c->nbatch; i++)
		if (position(c->batch, c->nbatch, term[i]) < 0)
			return false;
	return true;
}

/* v is probabilities, perhaps masked and turned: its last axis is contracted with values, and the one before it has the rows. */
static bool is_weights(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);

	for (int i = 0; i < 6 && n && (node_is(n, "Cast") || node_is(n, "Transpose") || node_is(n, "Identity") || node_is(n, "Where")); i++)
		n = value_node(g, n->in[node_is(n, "Where") ? 2 : 0]);
	return n && node_is(n, "Softmax");
}

/* A batched product of matrices, whose operands may be weights: at least one batch axis, axes of each operand alone, of one of them several, and one contracted. */
static bool read_contraction(struct text equation, int ellipsis, const bool *weights, struct contraction *c)
{
	const char *s = equation.p, *end = s + equation.n;
	char alone[2][MAX_RANK], beside = 0;
	int sums = 0, n[2] = { 0, 0 };

	memset(c, 0, sizeof *c);
	if (!read_labels(&s, end, ellipsis, c->in[0], &c->nin[0]) || s == end || *s++ != ',' || !read_labels(&s, end, ellipsis, c->in[1], &c->nin[1]) ||
	    end - s < 2 || s[0] != '-' || s[1] != '>')
		return false;
	s += 2;
	if (!read_labels(&s, end, ellipsis, c->out, &c->nout) || s != end)
		return false;
	for (int i = 0; i < c->nout; i++) {
		bool a = position(c->in[0], c->nin[0], c->out[i]) >= 0, b = position(c->in[1], c->nin[1], c->out[i]) >= 0;

		if (!a && !b)
			return false;
		if (a && b) {
			c->batch[c->nbatch++] = c->out[i];
			continue;
		}
		alone[b][n[b]++] = c->out[i];
	}
	if (n[0] == 0 || n[1] == 0 || (n[0] > 1 && n[1] > 1))
		return false;
	c->first = n[1] > 1 || (n[0] == 1 && position(c->out, c->nout, alone[1][0]) < position(c->out, c->nout, alone[0][0]));
	c->column = alone[!c->first][0];
	/* of several, the rows are the axis beside the columns in the result, or beside the contracted one in the operand; the others go with the batch */
	c->row = alone[c->first][n[c->first] - 1];
	for (int i = 0; i < n[c->first]; i++) {
		char x = alone[c->first][i];
		int of = c->nin[c->first];

		if (weights[c->first]) {
			if (of > 1 && c->in[c->first][of - 2] == x)
				beside = x;
			continue;
		}
		if (c->out[c->nout - 1] == c->column && c->out[c->nout - 2] == x && batch_leads(c, c->out))
			beside = x;
		else if (!beside && of > 1 && c->in[c->first][of - 2] == x && batch_leads(c, c->in[c->first]))
			beside = x;
	}
	c->row = beside ? beside : c->row;
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < c->nin[k]; i++) {
			if (position(c->out, c->nout, c->in[k][i]) >= 0)
				continue;
			if (position(c->in[1 - k], c->nin[1 - k], c->in[k][i]) < 0)
				return false;
			c->sum = c->in[k][i];
			sums += k == 0;
		}
	if (sums != 1 || c->nbatch == 0)
		return false;
	/* the order of the batch axes that turns least: that of a term where they come first */
	for (int i = 0; i < 3; i++) {
		const char *term = i ? c->in[i - 1] : c->out;

		if (batch_leads(c, term)) {
			memcpy(c->batch, term, (size_t)c->nbatch);
			break;
		}
	}
	for (int i = 0; i < n[c->first]; i++)
		if (alone[c->first][i] != c->row)
			c->extra[c->nextra++] = alone[c->first][i];
	return true;
}

/* v with axes `from` put in the order `to`. */
static value_id ordered(struct patch *p, value_id v, const char *from, const char *to, int n, const char *hint)
{
	int64_t perm[MAX_RANK] = { 0 };
	struct attr attr[] = { attr_ints("perm", perm, (size_t)n), { .name = NULL } };
	bool still = true;

	for (int i = 0; i < n; i++) {
		perm[i] = position(from, n, to[i]);
		still = still && perm[i] == i;
	}
	return still ? v : patch_node(p, "Transpose", hint, PATCH_IN(v), 1, attr);
}

/* Axes that "..." stands for in the first term, which is as many as in the others where they do not broadcast; -1 without one. */
static int ellipsis_rank(const struct graph *g, const struct node *n)
{
	struct text t = node_attr(n, "equation")->s;
	int letters = 0, rank = g->value[n->in[0]].type.shape.rank;
	bool dots = false;

	for (size_t i = 0; i < t.n && t.p[i] != ','; i++) {
		letters += t.p[i] != ' ' && t.p[i] != '.';
		dots = dots || t.p[i] == '.';
	}
	return dots && rank >= letters ? rank - letters : -1;
}

static enum linnet_code scores_einsum(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	struct contraction c;
	char left[MAX_RANK], right[MAX_RANK], result[MAX_RANK];
	value_id a, b, y;
	bool weights[2];
	dim summed[2];
	int r;

	(void)e;
	for (int k = 0; k < 2; k++)
		weights[k] = n->nin == 2 && is_weights(g, n->in[k]);
	if (n->nin != 2 || !read_contraction(node_attr(n, "equation")->s, ellipsis_rank(g, n), weights, &c) || !dtype_in(g->value[n->in[0]].type.dt, FLOATS))
		return LINNET_OK;
	r = c.nbatch + c.nextra + 2;
	for (int k = 0; k < 2; k++) {
		int have = k == c.first ? r : r - c.nextra;

		if (r > MAX_RANK || c.nin[k] != have || g->value[n->in[k]].type.shape.rank != have)
			return LINNET_OK;
	}
	for (int k = 0; k < 2; k++)
		summed[k] = g->value[n->in[k]].type.shape.d[position(c.in[k], c.nin[k], c.sum)];
	/* a length of 1 may stand for the other operand's, as MatMul's does along batch axes only; one that is not known is none of a graph that is only read */
	if (summed[0] != summed[1] && (summed[0] == 1 || summed[1] == 1 || !graph_main(g)->reads))
		return LINNET_OK;
	memcpy(left, c.batch, sizeof left);
	memcpy(right, c.batch, sizeof right);
	memcpy(left + c.nbatch, c.extra, (size_t)c.nextra);
	memcpy(result, left, sizeof result);
	left[r - 2] = c.row, left[r - 1] = c.sum;
	right[c.nbatch] = c.sum, right[c.nbatch + 1] = c.column;
	result[r - 2] = c.row, result[r - 1] = c.column;
	a = ordered(p, n->in[c.first], c.in[c.first], left, r, "left");
	b = ordered(p, n->in[!c.first], c.in[!c.first], right, r - c.nextra, "right");
	if (c.nextra) {
		int64_t axes[MAX_RANK];

		for (int i = 0; i < c.nextra; i++)
			axes[i] = c.nbatch + i;
		b = patch_node(p, "Unsqueeze", "right", PATCH_IN(b, patch_ints(p, axes, c.nextra, "axes")), 1, NULL);
	}
	y = patch_node(p, "MatMul", *n->name ? n->name : "product", PATCH_IN(a, b), 1, NULL);
	patch_replace(p, n->out[0], ordered(p, y, result, c.out, r, "product"));
	return LINNET_OK;
}

/* Terms of an equation for x y, summed over an axis, and the axes along which one of them is repeated. */
struct outer {
	char equation[4 * MAX_RANK + 8];
	int64_t dropped[2][MAX_RANK];
	int ndropped[2];
};

/* Operands of one rank that are repeated along each other's axes and summed over one that both have: their product is never needed whole. */
static bool read_outer(const struct shape *x, const struct shape *y, int sum, struct outer *o)
{
	const struct shape *s[2] = { x, y };
	int at = 0;

	*o = (struct outer){ 0 };
	if (x->rank != y->rank || x->rank > LABELS || x->d[sum] != y->d[sum] || x->d[sum] == DIM_NONE || x->d[sum] == 1)
		return false;
	for (int k = 0; k < 2; k++) {
		for (int i = 0; i < x->rank; i++) {
			if (s[k]->d[i] == 1 && s[1 - k]->d[i] != 1)
				o->dropped[k][o->ndropped[k]++] = i;
			else if (s[k]->d[i] != s[1 - k]->d[i] && s[1 - k]->d[i] != 1)
				return false;
			else
				o->equation[at++] = (char)('a' + i);
		}
		o->equation[at++] = k ? '-' : ',';
	}
	o->equation[at++] = '>';
	for (int i = 0; i < x->rank; i++)
		if (i != sum)
			o->equation[at++] = (char)('a' + i);
	return o->ndropped[0] && o->ndropped[1];
}

static enum linnet_code scores_outer(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *product = value_from(g, n->in[0], "Mul");
	struct contraction c;
	struct outer o;
	value_id in[2], y;
	int64_t axis;
	int count, rank = g->value[n->in[0]].type.shape.rank;
	dim summed;

	(void)e;
	if (!product || value_uses(w, n->in[0]) != 1 || n->nin < 2 || !value_ints(g, n->in[1], &axis, 1, &count) || count != 1)
		return LINNET_OK;
	axis += axis < 0 ? rank : 0;
	if (axis < 0 || axis >= rank || !dtype_in(g->value[n->in[0]].type.dt, FLOATS))
		return LINNET_OK;
	summed = g->value[n->in[0]].type.shape.d[axis];
	if ((node_is(n, "ReduceMean") && !dim_is_int(summed)) ||
	    !read_outer(&g->value[product->in[0]].type.shape, &g->value[product->in[1]].type.shape, (int)axis, &o) ||
	    !read_contraction((struct text){ o.equation, strlen(o.equation) }, -1, (bool[2]){ false, false }, &c))
		return LINNET_OK;
	for (int k = 0; k < 2; k++)
		in[k] = patch_node(p, "Squeeze", k ? "right" : "left", PATCH_IN(product->in[k], patch_ints(p, o.dropped[k], o.ndropped[k], "axes")), 1, NULL);
	y = patch_node(p, "Einsum", *n->name ? n->name : "product", in, 2, 1, (struct attr[]){ attr_string("equation", arena_str(p->arena, o.equation)), { .name = NULL } });
	if (node_is(n, "ReduceMean"))
		y = patch_node(p, "Div", "mean", PATCH_IN(y, patch_float(p, g->value[n->out[0]].type.dt, (double)summed, "count")), 1, NULL);
	if (node_attr(n, "keepdims")->i)
		y = patch_node(p, "Unsqueeze", "kept", PATCH_IN(y, patch_ints(p, &axis, 1, "axes")), 1, NULL);
	patch_replace(p, n->out[0], y);
	return LINNET_OK;
}

/* com.microsoft.FusedMatMul: alpha a b, each turned or not. */
static enum linnet_code scores_fused(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	value_id in[2], y;

	(void)e;
	if (strcmp(n->op->name, "FusedMatMul") != 0 || !n->op->domain || strcmp(n->op->domain, "com.microsoft") != 0 ||
	    node_attr(n, "transBatchA")->i || node_attr(n, "transBatchB")->i)
		return LINNET_OK;
	for (int k = 0; k < 2; k++) {
		int r = g->value[n->in[k]].type.shape.rank;
		int64_t perm[MAX_RANK] = { 0 };

		in[k] = n->in[k];
		if (!node_attr(n, k ? "transB" : "transA")->i)
			continue;
		if (r < 2)
			return LINNET_OK;
		for (int i = 0; i < r; i++)
			perm[i] = i < r - 2 ? i : 2 * r - 3 - i;
		in[k] = patch_node(p, "Transpose", k ? "right" : "left", PATCH_IN(in[k]), 1,
		                   (struct attr[]){ attr_ints("perm", perm, (size_t)r), { .name = NULL } });
	}
	y = patch_node(p, "MatMul", *n->name ? n->name : "product", in, 2, 1, NULL);
	if (node_attr(n, "alpha")->f != 1)
		y = patch_node(p, "Mul", "scaled", PATCH_IN(y, patch_float(p, g->value[n->out[0]].type.dt, node_attr(n, "alpha")->f, "alpha")), 1, NULL);
	patch_replace(p, n->out[0], y);
	return LINNET_OK;
}

/* ---- Softmax ---- */

/* The node reduces its input over one axis, which stays with length 1: that axis. */
static bool reduces_one(const struct graph *g, const struct node *n, int64_t *axis)
{
	int rank = g->value[n->in[0]].type.shape.rank, count;

	if (rank < 1 || !node_attr(n, "keepdims")->i || n->nin < 2 || !n->in[1] || !value_ints(g, n->in[1], axis, 1, &count) || count != 1)
		return false;
	*axis = *axis < 0 ? *axis + rank : *axis;
	return true;
}

/* A softmax over the last of several axes; NULL is none. */
static bool along_last(const struct graph *g, const struct node *softmax)
{
	int rank = softmax ? g->value[softmax->in[0]].type.shape.rank : 0;
	int64_t axis = softmax ? node_attr(softmax, "axis")->i : 0;

	return rank >= 2 && (axis == -1 || axis == rank - 1);
}

/* Every element is 0 or 1, as seen in all samples. */
static enum linnet_code is_binary(const struct view *w, value_id v, bool *yes, struct linnet_error *e)
{
	const struct node *n = value_node(w->g, v);
	struct samples *s;
	struct arena *a;
	enum linnet_code code;

	*yes = n && node_is(n, "Cast") && w->g->value[n->in[0]].type.dt == DT_BOOL;
	if (*yes)
		return LINNET_OK;
	a = arena_new();
	s = a ? NEW(a, 1, struct samples) : NULL;
	code = s ? samples_take(w->g, v, false, true, a, s, e) : fail_mem(e);
	*yes = !code && s->n && !s->unsure;
	for (int i = 0; *yes && i < s->n; i++)
		for (int64_t k = 0; *yes && k < s->at[i].t->n; k++)
			*yes = tensor_get(s->at[i].t, k) == 0 || tensor_get(s->at[i].t, k) == 1;
	if (a)
		arena_free(a);
	return code;
}

/* The number that all of v's elements are, of constants and of what is filled. */
bool value_filled(const struct graph *g, value_id v, double *x)
{
	const struct node *n = value_node(g, v);
	const struct attr *a;

	if (value_scalar(g, v, x))
		return true;
	if (n && (node_is(n, "Expand") || node_is(n, "Tile") || node_is(n, "Reshape") || node_is(n, "Identity")))
		return value_filled(g, n->in[0], x);
	if (n && node_is(n, "Cast") && dtype_in(g->value[v].type.dt, FLOATS))
		return value_filled(g, n->in[0], x);
	if (!n || !node_is(n, "ConstantOfShape"))
		return false;
	a = node_attr(n, "value");
	*x = a->given && a->t ? tensor_get(a->t, 0) : 0;
	return true;
}

static bool is_row_constant(const struct graph *g, value_id c, value_id x, int64_t axis)
{
	const struct shape *a = &g->value[c].type.shape, *b = &g->value[x].type.shape;
	int64_t at = axis - (b->rank - a->rank);

	return a->rank >= 0 && a->rank <= b->rank && (at < 0 || a->d[at] == 1);
}

/* Weights e of a row before they are divided by their sum: exp(logits - shift), or probabilities, and of those some by a mask. */
struct weights {
	value_id logits, shift; /* shift: the same for all of a row, or 0 */
	value_id mask;          /* entries are 0 where this is false, or, with `hides`, where it is true; 0: none */
	bool hides, numbers;    /* the mask is of zeros and ones */
	bool again;             /* made of probabilities */
};

static bool read_weights(const struct view *w, value_id v, int64_t axis, struct weights *e)
{
	const struct graph *g = w->g;
	const struct node *n = value_node(g, v), *sub;
	double zero;

	if (!n)
		return false;
	if (node_is(n, "Exp")) {
		sub = value_from(g, n->in[0], "Sub");
		e->logits = n->in[0];
		if (sub && is_row_constant(g, sub->in[1], sub->in[0], axis) && shape_equal(&g->value[sub->in[0]].type.shape, &g->value[n->in[0]].type.shape)) {
			e->logits = sub->in[0];
			e->shift = sub->in[1];
		}
		return true;
	}
	if (node_is(n, "Softmax")) {
		int64_t along = node_attr(n, "axis")->i, rank = g->value[v].type.shape.rank;

		e->logits = n->in[0];
		e->again = true;
		return (along < 0 ? along + rank : along) == axis && e->mask;
	}
	if (e->mask)
		return false;
	if (node_is(n, "Where"))
		for (int i = 1; i <= 2; i++)
			if (value_filled(g, n->in[i], &zero) && zero == 0) {
				e->mask = n->in[0];
				e->hides = i == 1;
				return shape_equal(&g->value[n->in[3 - i]].type.shape, &g->value[v].type.shape) && read_weights(w, n->in[3 - i], axis, e);
			}
	for (int i = 0; node_is(n, "Mul") && i < 2; i++) {
		const struct node *of = value_node(g, n->in[i]);

		if (!of || !(node_is(of, "Exp") || node_is(of, "Softmax")) || !shape_equal(&g->value[n->in[i]].type.shape, &g->value[v].type.shape))
			continue;
		e->mask = n->in[1 - i];
		e->numbers = true;
		return read_weights(w, n->in[i], axis, e);
	}
	return false;
}

/* v is the sum of something over one axis, which stays: that; by a product with ones too. */
static value_id read_sum(const struct graph *g, value_id v, int64_t *axis)
{
	const struct node *n = value_node(g, v);
	const struct shape *ones;
	double one;

	if (n && node_is(n, "ReduceSum"))
		return reduces_one(g, n, axis) ? n->in[0] : 0;
	if (!n || !node_is(n, "MatMul") || !value_filled(g, n->in[1], &one) || one != 1)
		return 0;
	ones = &g->value[n->in[1]].type.shape;
	*axis = g->value[n->in[0]].type.shape.rank - 1;
	return ones->rank >= 2 && ones->d[ones->rank - 1] == 1 && g->value[v].type.shape.rank == *axis + 1 ? n->in[0] : 0;
}

/* What weights are divided by: their sum, and perhaps one more, a number or an exponential. */
struct total {
	value_id of;
	int64_t axis;
	value_id more; /* or 0 */
};

static bool read_total(const struct graph *g, value_id v, struct total *t)
{
	const struct node *n = value_node(g, v);

	*t = (struct total){ .of = 0 };
	t->of = read_sum(g, v, &t->axis);
	for (int i = 0; !t->of && n && node_is(n, "Add") && i < 2; i++)
		if ((t->of = read_sum(g, n->in[i], &t->axis)) != 0)
			t->more = n->in[1 - i];
	return t->of != 0;
}

/* A sum that is at least 1, as that of exp(x - max x) is, kept from some number up to 1 on. */
static value_id unlimited(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);
	struct total t;
	const struct node *ex, *sub, *most;
	int64_t axis;
	double c;

	for (int i = 0; n && (node_is(n, "Max") || node_is(n, "Clip")) && i < (node_is(n, "Max") ? 2 : 1); i++) {
		if (n->nin != 2 || !value_scalar(g, n->in[1 - i], &c) || !(c <= 1) || !read_total(g, n->in[i], &t))
			continue;
		ex = value_from(g, t.of, "Exp");
		sub = ex ? value_from(g, ex->in[0], "Sub") : NULL;
		most = sub ? value_from(g, sub->in[1], "ReduceMax") : NULL;
		if (most && most->in[0] == sub->in[0] && reduces_one(g, most, &axis) && axis == t.axis)
			return n->in[i];
	}
	return v;
}

/* The logit that stands for what is more in the sum, 0: zero; *shifted: it goes with logits that are shifted. false: none does. */
static bool read_more(const struct graph *g, const struct weights *e, value_id more, value_id *logit, bool *shifted)
{
	const struct node *ex = value_from(g, more, "Exp"), *n = ex ? value_node(g, ex->in[0]) : NULL;
	double c;

	*logit = 0;
	*shifted = true;
	if (value_scalar(g, more, &c))
		return c == 1;
	if (!ex)
		return false;
	*logit = ex->in[0];
	if (n && e->shift && ((node_is(n, "Neg") && n->in[0] == e->shift) || (node_is(n, "Sub") && n->in[1] == e->shift))) {
		*shifted = false;
		*logit = node_is(n, "Neg") || (value_scalar(g, n->in[0], &c) && c == 0) ? 0 : n->in[0];
	}
	return true;
}

static value_id softmax_of(struct patch *p, value_id x, int64_t axis)
{
	return patch_node(p, "Softmax", "softmax", PATCH_IN(x), 1, (struct attr[]){ attr_int("axis", axis), { .name = NULL } });
}

/* Softmax over the last axis, whose last probability is dropped. */
static value_id cut_softmax(struct patch *p, value_id x)
{
	return patch_node(p, "Slice", "probabilities",
	                  PATCH_IN(softmax_of(p, x, -1), patch_ints(p, (int64_t[]){ 0 }, 1, "start"), patch_ints(p, (int64_t[]){ -1 }, 1, "end"),
	                           patch_ints(p, (int64_t[]){ -1 }, 1, "axis")), 1, NULL);
}

/* A mask of zeros and ones as bool. */
static value_id visible(struct patch *p, value_id m)
{
	return patch_node(p, "Cast", "visible", PATCH_IN(m), 1, (struct attr[]){ attr_int("to", DT_BOOL), { .name = NULL } });
}

/* Softmax with one more logit in each row, whose probability is dropped. */
static value_id sink_softmax(struct patch *p, value_id x, value_id like, value_id logit)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	int rank = p->g->value[like].type.shape.rank;
	int64_t pads[2 * MAX_RANK] = { 0 };
	value_id v;

	pads[2 * rank - 1] = 1;
	if (logit) {
		v = patch_node(p, "Concat", "shape", PATCH_IN(patch_lengths(p, like, 0, rank - 1, "shape"), patch_ints(p, (int64_t[]){ 1 }, 1, "one")), 1, axis0);
		v = patch_node(p, "Expand", "sink", PATCH_IN(logit, v), 1, NULL);
		v = patch_node(p, "Concat", "scores", PATCH_IN(x, v), 1, (struct attr[]){ attr_int("axis", -1), { .name = NULL } });
	} else {
		v = patch_node(p, "Pad", "scores", PATCH_IN(x, patch_ints(p, pads, 2 * rank, "pads")), 1, NULL);
	}
	return cut_softmax(p, v);
}

/* What num / den is for the row's softmax; also with the division behind the product with values: (e v) / sum(e). */
static enum linnet_code shares(const struct view *w, const struct node *n, value_id num, value_id den, struct patch *p, struct linnet_error *err)
{
	const struct graph *g = w->g;
	const struct node *product = NULL, *user;
	struct weights e = { .logits = 0 };
	struct total t;
	value_id x, logit = 0;
	bool shifted = false, binary = true;
	int rank;

	den = unlimited(g, den);
	if (!read_total(g, den, &t)) {
		const struct node *sum = value_from(g, den, "ReduceSum");

		if (sum && value_from(g, sum->in[0], "Exp"))
			why_not(w, WHY_SOFTMAX_SUM_ELSEWHERE, sum, n->out[0], 0);
		return LINNET_OK;
	}
	if (!read_weights(w, t.of, t.axis, &e))
		return LINNET_OK;
	rank = g->value[e.logits].type.shape.rank;
	if (t.more && (t.axis != rank - 1 || rank < 2 || g->value[t.more].type.shape.rank > rank || !is_row_constant(g, t.more, e.logits, t.axis) ||
	               !read_more(g, &e, t.more, &logit, &shifted) || e.again)) {
		why_not(w, WHY_SOFTMAX_PLUS, value_node(g, den), n->out[0], 2);
		return LINNET_OK;
	}
	if (num != t.of) {
		product = value_from(g, num, "MatMul");
		if (!product || product->in[0] != t.of || t.axis != rank - 1 || value_uses(w, num) != 1 || value_uses(w, t.of) != 2 ||
		    g->value[num].type.shape.rank != t.axis + 1) {
			why_not(w, WHY_SOFTMAX_SUM_ELSEWHERE, value_node(g, den), n->out[0], 2);
			return LINNET_OK;
		}
	}
	user = value_user(w, n->out[0], NULL);
	if (e.again && !product && (!user || !node_is(user, "MatMul"))) /* the shares of experts are theirs to read */
		return LINNET_OK;
	if (e.numbers)
		TRY(is_binary(w, e.mask, &binary, err));
	if (!binary)
		return LINNET_OK;
	shifted = shifted && e.shift;
	if (e.mask && shifted)
		return LINNET_OK;
	x = shifted ? value_node(g, t.of)->in[0] : e.logits;
	if (e.mask) {
		value_id low = patch_float(p, g->value[x].type.dt, -INFINITY, "hidden"), m = e.mask;

		if (e.numbers)
			m = visible(p, m);
		x = patch_node(p, "Where", "masked", PATCH_IN(m, e.hides ? low : x, e.hides ? x : low), 1, NULL);
	}
	x = t.more ? sink_softmax(p, x, e.logits, logit) : softmax_of(p, x, t.axis);
	if (product)
		x = patch_node(p, "MatMul", *product->name ? product->name : "product", PATCH_IN(x, product->in[1]), 1, NULL);
	patch_replace(p, n->out[0], x);
	return LINNET_OK;
}

static enum linnet_code scores_softmax(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	return shares(w, n, n->in[0], n->in[1], p, e);
}

/* The bias of com.microsoft.BiasSoftmax is broadcast as Add does it: lengths of 1 behind its own (inner), or before them. */
static bool adds_plainly(const struct match *m, bool inner)
{
	const struct shape *x = &match_type(m, "x")->shape, *bias = &match_type(m, "b")->shape;
	int r = x->rank - 1, i = 0;

	if (r < 1 || (int)match_param(m, "axis") != r || bias->rank != x->rank || x->d[r] != bias->d[r])
		return false;
	while (i < r && (inner ? x->d[i] == bias->d[i] : bias->d[i] == 1))
		i++;
	while (i < r && (inner ? bias->d[i] == 1 : x->d[i] == bias->d[i]))
		i++;
	return i == r;
}

static bool adds_inner(const struct match *m) { return adds_plainly(m, true); }
static bool adds_outer(const struct match *m) { return adds_plainly(m, false); }

/* e times the reciprocal of its sum. */
static enum linnet_code scores_reciprocal(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	for (int i = 0; i < 2; i++) {
		const struct node *r = value_node(w->g, n->in[i]);
		double one;

		if (r && node_is(r, "Reciprocal"))
			TRY(shares(w, n, n->in[1 - i], r->in[0], p, e));
		else if (r && node_is(r, "Div") && value_scalar(w->g, r->in[0], &one) && one == 1)
			TRY(shares(w, n, n->in[1 - i], r->in[1], p, e));
		if (!patch_empty(p))
			break;
	}
	return LINNET_OK;
}

/* v is the logarithm of the sum of exponentials of x along the last axis. */
static bool is_log_sum(const struct graph *g, value_id v, value_id x)
{
	const struct node *n = value_node(g, v), *log, *ex;
	int64_t axis, last = g->value[x].type.shape.rank - 1;
	value_id of;

	if (!n)
		return false;
	if (node_is(n, "ReduceLogSumExp"))
		return n->in[0] == x && reduces_one(g, n, &axis) && axis == last;
	for (int i = 0; i < 2; i++) {
		const struct node *sub;

		log = node_is(n, "Log") ? n : node_is(n, "Add") ? value_from(g, n->in[i], "Log") : NULL;
		of = log ? read_sum(g, log->in[0], &axis) : 0;
		ex = of ? value_from(g, of, "Exp") : NULL;
		if (!ex || axis != last)
			continue;
		if (log == n)
			return ex->in[0] == x;
		sub = value_from(g, ex->in[0], "Sub");
		if (sub && sub->in[0] == x && sub->in[1] == n->in[1 - i])
			return true;
	}
	return false;
}

/* Probabilities, or what is made of values by them, times sigmoid(logsumexp - l): l is one more logit. */
static enum linnet_code scores_gate(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;

	(void)e;
	for (int i = 0; i < 2; i++) {
		const struct node *gate = value_from(g, n->in[i], "Sigmoid"), *sub = gate ? value_from(g, gate->in[0], "Sub") : NULL,
		                  *product = value_from(g, n->in[1 - i], "MatMul"), *softmax = value_from(g, product ? product->in[0] : n->in[1 - i], "Softmax");
		value_id x = softmax ? softmax->in[0] : 0, v;
		int rank = g->value[x].type.shape.rank;

		if (!sub || !along_last(g, softmax) || !is_log_sum(g, sub->in[0], x) || value_uses(w, n->in[1 - i]) != 1 ||
		    value_uses(w, softmax->out[0]) != 1 || g->value[sub->in[1]].type.shape.rank > rank || !is_row_constant(g, sub->in[1], x, rank - 1))
			continue;
		v = sink_softmax(p, x, x, sub->in[1]);
		if (product)
			v = patch_node(p, "MatMul", *product->name ? product->name : "product", PATCH_IN(v, product->in[1]), 1, NULL);
		patch_replace(p, n->out[0], v);
		return LINNET_OK;
	}
	return LINNET_OK;
}

enum { MAX_STEPS_UP = 8 };

/* The only user of v but those that read its lengths. */
static const struct node *reader_of(const struct view *w, value_id v)
{
	const struct node *only = NULL;

	for (uint32_t i = w->uses.begin[v]; i < w->uses.end[v]; i++) {
		const struct node *n = w->uses.use[i].node ? &w->g->node[w->uses.use[i].node] : NULL;

		if (n && node_is(n, "Shape"))
			continue;
		if (!n || only)
			return NULL;
		only = n;
	}
	return only;
}

/* v becomes the input of a Softmax by operations on each element, or beside a logit more. */
static bool is_score(const struct view *w, value_id v)
{
	for (int i = 0; i < MAX_STEPS_UP; i++) {
		const struct node *n = reader_of(w, v);

		if (!n || node_is(n, "Softmax"))
			return n != NULL;
		if (!(node_is(n, "Mul") || node_is(n, "Div") || node_is(n, "Add") || node_is(n, "Sub") || node_is(n, "Where") || node_is(n, "Cast") ||
		      node_is(n, "Concat") || node_is(n, "Neg") || node_is(n, "Tanh") || node_is(n, "Max") || node_is(n, "Clip")))
			return false;
		v = n->out[0];
	}
	return false;
}

/* The Shape of scores, which would keep them alive: of queries and keys. */
static enum linnet_code scores_shape(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	static const struct attr axis0[] = { { .name = "axis", .kind = ATTR_INT }, { .name = NULL } };
	const struct graph *g = w->g;
	const struct shape *s = &g->value[n->in[0]].type.shape, *a, *b;
	const struct node *m = value_node(g, n->in[0]);
	int64_t start = node_attr(n, "start")->i, end = node_attr(n, "end")->given ? node_attr(n, "end")->i : s->rank;
	value_id lead;

	(void)e;
	for (int i = 0; i < MAX_STEPS_UP && m && !node_is(m, "MatMul"); i++) {
		uint32_t k;

		if (!(node_is(m, "Mul") || node_is(m, "Div") || node_is(m, "Add") || node_is(m, "Sub") || node_is(m, "Where")))
			return LINNET_OK;
		for (k = node_is(m, "Where"); k < m->nin && !(value_node(g, m->in[k]) && shape_equal(&g->value[m->in[k]].type.shape, s)); k++)
			;
		m = k < m->nin ? value_node(g, m->in[k]) : NULL;
	}
	if (s->rank < 3 || !m || !node_is(m, "MatMul") || !is_score(w, n->in[0]))
		return LINNET_OK;
	start += start < 0 ? s->rank : 0;
	end = end < 0 ? end + s->rank : end > s->rank ? s->rank : end;
	a = &g->value[m->in[0]].type.shape;
	b = &g->value[m->in[1]].type.shape;
	if (a->rank != s->rank || b->rank != s->rank || start < 0 || start >= end || value_const(g, m->in[1]))
		return LINNET_OK;
	for (int i = 0; i < s->rank - 1; i++)
		if (a->d[i] != s->d[i])
			return LINNET_OK;
	if (start == s->rank - 1) {
		patch_replace(p, n->out[0], patch_lengths(p, m->in[1], start, INT64_MAX, "shape"));
		return LINNET_OK;
	}
	lead = patch_lengths(p, m->in[0], start, end < s->rank ? end : s->rank - 1, "shape");
	if (end == s->rank)
		lead = patch_node(p, "Concat", "shape", PATCH_IN(lead, patch_lengths(p, m->in[1], s->rank - 1, INT64_MAX, "keys")), 1, axis0);
	patch_replace(p, n->out[0], lead);
	return LINNET_OK;
}

/* Of a Concat's two inputs along the last axis the first is one logit wide. */
static bool leads_with_one(const struct graph *g, const struct node *n)
{
	const struct shape *a, *b;
	int64_t axis = node_attr(n, "axis")->i;

	if (n->nin != 2)
		return false;
	a = &g->value[n->in[0]].type.shape;
	b = &g->value[n->in[1]].type.shape;
	return a->rank >= 2 && (axis == -1 || axis == a->rank - 1) && a->d[a->rank - 1] == 1 && b->d[a->rank - 1] != 1;
}

/* A logit in front of the scores whose probability is cut off: it goes behind them. */
static enum linnet_code scores_front(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *softmax = value_from(g, n->in[0], "Softmax"), *joined = softmax ? value_from(g, softmax->in[0], "Concat") : NULL;
	int rank = g->value[n->in[0]].type.shape.rank, count;
	int64_t start, axis, step = 1;
	const struct shape *x, *y = &g->value[n->out[0]].type.shape;
	value_id v;

	(void)e;
	if (!joined || !along_last(g, softmax) || !leads_with_one(g, joined) || value_uses(w, n->in[0]) != 1 || value_uses(w, softmax->in[0]) != 1 || n->nin < 4 || !n->in[3])
		return LINNET_OK;
	x = &g->value[joined->in[1]].type.shape;
	if (!value_ints(g, n->in[1], &start, 1, &count) || count != 1 || start != 1 ||
	    !value_ints(g, n->in[3], &axis, 1, &count) || count != 1 || (axis != -1 && axis != rank - 1) ||
	    (n->nin > 4 && n->in[4] && (!value_ints(g, n->in[4], &step, 1, &count) || step != 1)) || x->rank != y->rank || x->d[rank - 1] != y->d[rank - 1])
		return LINNET_OK;
	v = patch_node(p, "Concat", "scores", PATCH_IN(joined->in[1], joined->in[0]), 1, (struct attr[]){ attr_int("axis", -1), { .name = NULL } });
	patch_replace(p, n->out[0], cut_softmax(p, v));
	return LINNET_OK;
}

/* v is true for infinite elements of x alone. */
static bool finds_infinite(const struct graph *g, value_id v, value_id x)
{
	const struct node *n = value_node(g, v);

	if (n && node_is(n, "And"))
		return finds_infinite(g, n->in[0], x) || finds_infinite(g, n->in[1], x);
	return n && node_is(n, "IsInf") && n->in[0] == x;
}

/* v is probabilities, and numbers where they are not: no element is infinite. */
static bool is_probability(const struct graph *g, value_id v)
{
	const struct node *n = value_node(g, v);
	double c;

	if (n && node_is(n, "Where") && value_scalar(g, n->in[1], &c) && isfinite(c))
		return is_probability(g, n->in[2]);
	return n && node_is(n, "Softmax");
}

/* What replaces infinite numbers replaces none among probabilities (nan_to_num). */
static enum linnet_code scores_finite(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	(void)e;
	if (finds_infinite(w->g, n->in[0], n->in[2]) && is_probability(w->g, n->in[2]) &&
	    shape_equal(&w->g->value[n->in[2]].type.shape, &w->g->value[n->out[0]].type.shape))
		patch_replace(p, n->out[0], n->in[2]);
	return LINNET_OK;
}

/* Softmax over the last axis between two Reshapes that keep it and cancel: opset 12's Softmax, which flattened to rows. */
static enum linnet_code scores_rows(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *before = value_node(g, n->in[0]), *after = value_user(w, n->out[0], NULL);
	const struct shape *flat = &g->value[n->in[0]].type.shape, *s;
	struct attr last[] = { attr_int("axis", -1), { .name = NULL } };
	int64_t axis = node_attr(n, "axis")->i;

	(void)e;
	if (!before || !(node_is(before, "Reshape") || node_is(before, "Flatten")) || !after || !node_is(after, "Reshape") || flat->rank < 1 || (axis != -1 && axis != flat->rank - 1))
		return LINNET_OK;
	s = &g->value[before->in[0]].type.shape;
	if (s->rank < 1 || s->d[s->rank - 1] != flat->d[flat->rank - 1] || !shape_equal(s, &g->value[after->out[0]].type.shape))
		return LINNET_OK;
	patch_replace(p, after->out[0], patch_node(p, "Softmax", *n->name ? n->name : "softmax", PATCH_IN(before->in[0]), 1, last));
	return LINNET_OK;
}

/* ---- Masks by products ---- */

/* h = c (1 - m), or the constants are such: c. */
static bool fills_rest(const struct graph *g, value_id h, value_id m, double *c)
{
	const struct node *n = value_from(g, h, "Mul"), *rest;
	const struct tensor *x = value_const(g, h), *mask = value_const(g, m);
	double one;

	for (int i = 0; n && i < 2; i++) {
		rest = value_from(g, n->in[i], "Sub");
		if (rest && rest->in[1] == m && value_scalar(g, rest->in[0], &one) && one == 1 && value_scalar(g, n->in[1 - i], c))
			return true;
	}
	if (!x || !mask || x->n != mask->n || !shape_equal(&g->value[h].type.shape, &g->value[m].type.shape))
		return false;
	*c = 0;
	for (int64_t i = 0; i < x->n; i++) {
		double v = tensor_get(x, i);

		if (tensor_get(mask, i) != 0 ? v != 0 : *c != 0 && v != *c)
			return false;
		*c = v != 0 ? v : *c;
	}
	return true;
}

/* s m + c (1 - m), with m of zeros and ones and c hiding: s where m, else c (GPT); or less -c times that. */
static enum linnet_code scores_blend(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	double c, sign = node_is(n, "Sub") ? -1 : 1;

	for (int i = 0; i < (node_is(n, "Sub") ? 2 : 4); i++) {
		const struct node *kept = value_from(g, n->in[i >> 1], "Mul");
		value_id m = kept ? kept->in[i & 1] : 0, s = kept ? kept->in[1 - (i & 1)] : 0;
		bool binary;

		if (!kept || !fills_rest(g, n->in[1 - (i >> 1)], m, &c) || !(sign * c <= MASK_HIDDEN))
			continue;
		TRY(is_binary(w, m, &binary, e));
		if (!binary)
			continue;
		m = visible(p, m);
		patch_replace(p, n->out[0],
		              patch_node(p, "Where", *n->name ? n->name : "masked",
		                         PATCH_IN(m, s, patch_float(p, g->value[s].type.dt, sign * c, "hidden")), 1, NULL));
		return LINNET_OK;
	}
	return LINNET_OK;
}

/* v is 1 where a condition holds and 0 elsewhere: its condition as bool; 0 when it is not known to be. */
static enum linnet_code condition_of(const struct view *w, struct patch *p, value_id v, value_id *c, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *cast = value_from(g, v, "Cast");
	bool binary;

	*c = 0;
	if (cast && g->value[cast->in[0]].type.dt == DT_BOOL) {
		*c = cast->in[0];
		return LINNET_OK;
	}
	if (!value_const(g, v))
		return LINNET_OK;
	TRY(is_binary(w, v, &binary, e));
	if (binary)
		*c = visible(p, v);
	return LINNET_OK;
}

/* b is 1 where a is 0, and 0 where it is 1: the casts of a condition and its opposite, or constants. */
static bool are_opposite(const struct graph *g, value_id a, value_id b)
{
	const struct node *is = value_from(g, a, "Cast"), *isnt = value_from(g, b, "Cast"), *not = isnt ? value_from(g, isnt->in[0], "Not") : NULL;
	const struct tensor *x = value_const(g, a), *y = value_const(g, b);

	if (is && not && not->in[0] == is->in[0])
		return true;
	if (!x || !y || !shape_equal(&g->value[a].type.shape, &g->value[b].type.shape))
		return false;
	for (int64_t i = 0; i < x->n; i++)
		if (tensor_get(x, i) + tensor_get(y, i) != 1)
			return false;
	return x->n > 0;
}

/* a where c, b elsewhere, as a sum of products with c and not c: how tf2onnx writes a choice for opsets whose Where it does not use. */
static enum linnet_code scores_select(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *x[2] = { value_from(g, n->in[0], "Mul"), value_from(g, n->in[1], "Mul") };

	if (!x[0] || !x[1])
		return LINNET_OK;
	for (int i = 0; i < 8; i++) {
		const struct node *kept = x[i & 1], *rest = x[1 - (i & 1)];
		int at = i >> 1 & 1, other = i >> 2;
		value_id c;

		if (!are_opposite(g, kept->in[at], rest->in[other]))
			continue;
		TRY(condition_of(w, p, kept->in[at], &c, e));
		if (!c)
			continue;
		patch_replace(p, n->out[0], patch_node(p, "Where", *n->name ? n->name : "chosen", PATCH_IN(c, kept->in[1 - at], rest->in[1 - other]), 1, NULL));
		return LINNET_OK;
	}
	return LINNET_OK;
}

/* Scores less a number where they are hidden: Where(c, s, s - k) is s + Where(c, 0, -k). */
static enum linnet_code scores_lowered(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	double k;

	(void)e;
	for (int i = 1; i <= 2; i++) {
		const struct node *low = value_node(g, n->in[i]);
		value_id s = n->in[3 - i], zero, hidden, t;
		enum dtype dt = g->value[s].type.dt;

		if (!low || !(node_is(low, "Sub") || node_is(low, "Add")) || low->in[0] != s || !value_scalar(g, low->in[1], &k) || !dtype_in(dt, FLOATS))
			continue;
		zero = patch_float(p, dt, 0, "shown");
		hidden = patch_float(p, dt, node_is(low, "Sub") ? -k : k, "hidden");
		t = patch_node(p, "Where", "mask", PATCH_IN(n->in[0], i == 2 ? zero : hidden, i == 2 ? hidden : zero), 1, NULL);
		patch_replace(p, n->out[0], patch_node(p, "Add", *n->name ? n->name : "masked", PATCH_IN(s, t), 1, NULL));
		return LINNET_OK;
	}
	return LINNET_OK;
}

/*
 * Probabilities of which some are taken away by a mask, over the sum of those that are left: a softmax with the others hidden. Rows of which none is
 * left are zeros: w / sum(w) as Where(sum(w) > 0, w / Where(sum(w) > 0, sum(w), 1), 0).
 */
static enum linnet_code scores_renormalised(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *left = value_from(g, n->in[0], "Mul"), *guard = value_from(g, n->in[1], "Where"), *sum, *some, *softmax, *outer;
	int64_t axis;
	uint32_t index;
	value_id s, q, nan, c;
	double k;

	outer = value_user(w, n->out[0], &index);
	if (!left || !guard || !outer || !node_is(outer, "Where") || index != 1 || outer->in[0] != guard->in[0] || !value_scalar(g, outer->in[2], &k) || k != 0 ||
	    !value_scalar(g, guard->in[2], &k) || k != 1)
		return LINNET_OK;
	sum = value_from(g, guard->in[1], "ReduceSum");
	some = value_from(g, guard->in[0], "Greater");
	if (!sum || !some || some->in[0] != sum->out[0] || !value_scalar(g, some->in[1], &k) || k != 0 || sum->in[0] != left->out[0] ||
	    !reduces_one(g, sum, &axis) || axis != g->value[left->out[0]].type.shape.rank - 1)
		return LINNET_OK;
	for (int i = 0; i < 2; i++) {
		softmax = value_from(g, left->in[i], "Softmax");
		if (!along_last(g, softmax) || !shape_equal(&g->value[softmax->out[0]].type.shape, &g->value[left->out[0]].type.shape))
			continue;
		TRY(condition_of(w, p, left->in[1 - i], &c, e));
		if (!c)
			continue;
		s = patch_node(p, "Where", "masked", PATCH_IN(c, softmax->in[0], patch_float(p, g->value[n->out[0]].type.dt, -INFINITY, "hidden")), 1, NULL);
		q = patch_node(p, "Softmax", *softmax->name ? softmax->name : "softmax", PATCH_IN(s), 1, (struct attr[]){ attr_int("axis", -1), { .name = NULL } });
		nan = patch_node(p, "IsNaN", "none", PATCH_IN(q), 1, NULL);
		patch_replace(p, outer->out[0], patch_node(p, "Where", "guarded", PATCH_IN(nan, outer->in[2], q), 1, NULL));
		return LINNET_OK;
	}
	return LINNET_OK;
}

/* ---- Lengths ---- */

/* v is scores or probabilities: made by a softmax, or by a product of two values that are computed, through what keeps elements apart. */
static bool is_scores(const struct graph *g, value_id v)
{
	static const char *const through[] = { "Unsqueeze", "Squeeze", "Transpose", "Reshape", "Cast", "Div", "Sub", "Tanh", "Identity", NULL };

	for (int steps = 0; steps < 12; steps++) {
		const struct node *n = value_node(g, v);

		if (!n || n->op->domain)
			return false;
		if (node_is(n, "Softmax") || node_is(n, "Exp"))
			return true;
		if (node_is(n, "MatMul") || node_is(n, "Einsum"))
			return n->nin == 2 && !value_const(g, n->in[0]) && !value_const(g, n->in[1]);
		if (node_among(n, through))
			v = n->in[0];
		else if (node_is(n, "Where"))
			v = n->in[value_const(g, n->in[1]) ? 2 : 1];
		else if (node_is(n, "Mul") || node_is(n, "Add"))
			v = n->in[shape_equal(&g->value[n->in[0]].type.shape, &g->value[n->out[0]].type.shape) ? 0 : 1];
		else
			return false;
	}
	return false;
}

/* Lengths read off scores or probabilities, which would keep them alive, are read off the graph's inputs. */
static enum linnet_code scores_lengths(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct type *t = &g->value[n->out[0]].type;
	value_id part[MAX_RANK];
	int count = t->shape.rank == 1 && dim_is_int(t->shape.d[0]) ? (int)t->shape.d[0] : 0;

	(void)e;
	if (g->outer || !count || count > MAX_RANK || !t->sym || t->value || !is_scores(g, n->in[0]))
		return LINNET_OK;
	for (int i = 0; i < count; i++)
		if (!(part[i] = patch_said(p, t->sym[i])))
			return LINNET_OK;
	patch_replace(p, n->out[0], patch_node(p, "Concat", *n->name ? n->name : "lengths", part, (uint32_t)count, 1, (struct attr[]){ attr_int("axis", 0), { .name = NULL } }));
	return LINNET_OK;
}

/* v without Not and Cast; *odd: whether Nots were odd in number. */
static value_id denied(const struct graph *g, value_id v, bool *odd)
{
	const struct node *n;

	for (*odd = false; (n = value_node(g, v)) && (node_is(n, "Not") || node_is(n, "Cast")); v = n->in[0])
		*odd ^= node_is(n, "Not");
	return v;
}

/* v says of each row of s whether all of it is -inf (*hidden), or whether it is not, however Not, Cast, the greatest and the least say it. */
static bool tells_hidden_rows(const struct graph *g, value_id v, value_id s, bool *hidden)
{
	bool outer, inner, any;
	const struct node *reduce = value_node(g, denied(g, v, &outer)), *test;
	int64_t axis;
	double c;

	if (!reduce || !(node_is(reduce, "ReduceMax") || node_is(reduce, "ReduceMin")) || !reduces_one(g, reduce, &axis) ||
	    axis != g->value[s].type.shape.rank - 1)
		return false;
	any = node_is(reduce, "ReduceMax");
	*hidden = outer == any;
	test = value_node(g, denied(g, reduce->in[0], &inner));
	if (!test || inner != any || test->in[0] != s)
		return false;
	if (node_is(test, "IsInf"))
		return !node_attr(test, "detect_positive")->i;
	return node_is(test, "Equal") && value_scalar(g, test->in[1], &c) && c == -INFINITY;
}

/* 0 for rows of scores that are all -inf, else softmax: 0 where softmax is no number (PyTorch's _safe_softmax). */
static enum linnet_code scores_guard(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;

	(void)e;
	for (int i = 1; i <= 2; i++) {
		const struct node *softmax = value_from(g, n->in[i], "Softmax");
		double zero;
		bool hidden;
		value_id test;

		if (!along_last(g, softmax) || !value_scalar(g, n->in[3 - i], &zero) || zero != 0 || !shape_equal(&g->value[n->out[0]].type.shape, &g->value[n->in[i]].type.shape) ||
		    !tells_hidden_rows(g, n->in[0], softmax->in[0], &hidden) || hidden != (i == 2))
			continue;
		test = patch_node(p, "IsNaN", "hidden", PATCH_IN(softmax->out[0]), 1, NULL);
		patch_replace(p, n->out[0], patch_node(p, "Where", *n->name ? n->name : "probabilities", PATCH_IN(test, n->in[3 - i], softmax->out[0]), 1, NULL));
		return LINNET_OK;
	}
	return LINNET_OK;
}

/* The permutation of a Transpose of rank r, reversal filled in; false when it is of another rank. */
static bool permutation(const struct node *n, int r, int64_t *perm)
{
	const struct attr *a = node_attr(n, "perm");

	if (a->kind == ATTR_INTS && a->n != (size_t)r)
		return false;
	for (int i = 0; i < r; i++)
		perm[i] = a->kind == ATTR_INTS ? a->ints[i] : r - 1 - i;
	return true;
}

static value_id transposed(struct patch *p, value_id v, const int64_t *perm, int r, const char *hint)
{
	return patch_node(p, "Transpose", hint, PATCH_IN(v), 1, (struct attr[]){ attr_ints("perm", perm, (size_t)r), { .name = NULL } });
}

/* ---- Products taken apart ---- */

/* int64 [n]: lengths d, as numbers or lengths of inputs, else read off v, whose axes from `from` on they are. */
static value_id lengths_of(struct patch *p, const dim *d, int n, value_id v, int from)
{
	value_id part[MAX_RANK];

	for (int i = 0; i < n; i++)
		part[i] = length_is_said(p->g, d[i]) ? patch_said(p, d[i]) : patch_lengths(p, v, from + i, from + i + 1, "length");
	return n == 1 ? part[0] : patch_node(p, "Concat", "lengths", part, (uint32_t)n, 1, (struct attr[]){ attr_int("axis", 0), { .name = NULL } });
}

/* The product of n lengths. */
static dim whole(struct dims *t, const dim *d, int n)
{
	dim all = 1;

	for (int i = 0; i < n; i++)
		all = dim_mul(t, all, d[i]);
	return all;
}

/*
 * x [lead..., rows..., K] merged to [lead, rows, K], times b [lead, K, N], and all axes split again, where there are several of rows, as of heads in
 * groups: x times b [lead..., 1..., K, N].
 */
static enum linnet_code scores_rows_apart(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	static const int64_t ones[MAX_RANK] = { 1, 1, 1, 1, 1, 1, 1, 1 };
	const struct graph *g = w->g;
	const struct node *product = value_from(g, n->in[0], "MatMul"), *merge = product ? value_from(g, product->in[0], "Reshape") : NULL;
	const struct shape *x, *a, *b, *y = &g->value[n->out[0]].type.shape;
	value_id right;
	int r, lead = 1;

	(void)e;
	if (!merge || value_uses(w, n->in[0]) != 1)
		return LINNET_OK;
	x = &g->value[merge->in[0]].type.shape;
	a = &g->value[product->in[0]].type.shape;
	b = &g->value[product->in[1]].type.shape;
	r = x->rank;
	if (r < 5 || y->rank != r || a->rank != 3 || b->rank != 3 || a->d[0] != b->d[0] || a->d[2] != x->d[r - 1] || y->d[r - 1] != b->d[2])
		return LINNET_OK;
	for (int i = 0; i < r - 1; i++)
		if (x->d[i] != y->d[i])
			return LINNET_OK;
	while (lead < r - 2 && whole(g->dims, x->d, lead) != a->d[0])
		lead++;
	if (lead >= r - 2 || whole(g->dims, x->d + lead, r - 1 - lead) != a->d[1])
		return LINNET_OK;
	right = patch_node(p, "Concat", "shape",
	                   PATCH_IN(lengths_of(p, x->d, lead, merge->in[0], 0), patch_ints(p, ones, r - 2 - lead, "ones"), lengths_of(p, b->d + 1, 2, product->in[1], 1)), 1,
	                   (struct attr[]){ attr_int("axis", 0), { .name = NULL } });
	right = patch_node(p, "Reshape", "right", PATCH_IN(product->in[1], right), 1, NULL);
	patch_replace(p, n->out[0], patch_node(p, "MatMul", *product->name ? product->name : "product", PATCH_IN(merge->in[0], right), 1, NULL));
	return LINNET_OK;
}

/* Scores [N, rows, columns] whose rows and columns are split, exchanged as blocks, and merged again: the product of the operands turned, in other order. */
static enum linnet_code scores_blocks(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *turn = value_from(g, n->in[0], "Transpose"), *split = turn ? value_from(g, turn->in[0], "Reshape") : NULL,
	                  *product = split ? value_from(g, split->in[0], "MatMul") : NULL;
	const struct shape *m, *x, *y = &g->value[n->out[0]].type.shape;
	static const int64_t swap[] = { 0, 2, 1 };
	int64_t perm[MAX_RANK];
	int lead = 0, rows, r;
	value_id v;

	(void)e;
	if (!product || value_uses(w, turn->in[0]) != 1 || value_uses(w, split->in[0]) != 1)
		return LINNET_OK;
	m = &g->value[split->in[0]].type.shape;
	x = &g->value[turn->in[0]].type.shape;
	r = x->rank;
	if (m->rank != 3 || r < 4 || y->rank < 3 || g->value[product->in[0]].type.shape.rank != 3 || g->value[product->in[1]].type.shape.rank != 3 || !permutation(turn, r, perm))
		return LINNET_OK;
	while (lead < r && perm[lead] == lead)
		lead++;
	rows = lead < r ? (int)(perm[lead] - lead) : 0; /* how many axes the rows are split into */
	for (int i = lead; i < r; i++)
		if (perm[i] != (i - lead + rows) % (r - lead) + lead)
			return LINNET_OK;
	if (rows < 1 || whole(g->dims, x->d + lead, rows) != m->d[1] || whole(g->dims, x->d + lead + rows, r - lead - rows) != m->d[2] || y->d[y->rank - 2] != m->d[2] ||
	    y->d[y->rank - 1] != m->d[1])
		return LINNET_OK;
	for (int i = 0; i < y->rank; i++)
		if (!length_is_said(g, y->d[i]))
			return LINNET_OK;
	v = patch_node(p, "MatMul", *product->name ? product->name : "product",
	               PATCH_IN(transposed(p, product->in[1], swap, 3, "left"), transposed(p, product->in[0], swap, 3, "right")), 1, NULL);
	patch_replace(p, n->out[0], patch_node(p, "Reshape", n->name, PATCH_IN(v, lengths_of(p, y->d, y->rank, n->out[0], 0)), 1, NULL));
	return LINNET_OK;
}

/* v is log(sum(exp x)), or with c of exp(x - c), over so many of the last axes: how many; 0 when it is not. */
static int log_sum_of(const struct graph *g, value_id v, value_id x, value_id c)
{
	const struct node *log = value_from(g, v, "Log"), *sum = log ? value_from(g, log->in[0], "ReduceSum") : NULL,
	                  *ex = sum ? value_from(g, sum->in[0], "Exp") : NULL, *sub = ex && c ? value_from(g, ex->in[0], "Sub") : NULL;
	const struct shape *shift = &g->value[c].type.shape;
	int rank = g->value[x].type.shape.rank, count;
	int64_t axes[MAX_RANK];
	bool on[MAX_RANK] = { false };

	if (!ex || (c ? !sub || sub->in[0] != x || sub->in[1] != c || shift->rank < rank : ex->in[0] != x) || !node_attr(sum, "keepdims")->i || sum->nin < 2 ||
	    !sum->in[1] || !value_ints(g, sum->in[1], axes, MAX_RANK, &count) || count < 1)
		return 0;
	for (int k = 0; k < count; k++)
		on[axes[k] < 0 ? axes[k] + rank : axes[k]] = true;
	for (int k = 0; k < count; k++)
		if (!on[rank - 1 - k] || (c && shift->d[shift->rank - 1 - k] != 1))
			return 0;
	return count;
}

/* v is log(sum(exp(x - c))) + c, or without c, over so many of the last axes. */
static int log_sum_axes(const struct graph *g, value_id v, value_id x)
{
	const struct node *add = value_from(g, v, "Add");
	int count = log_sum_of(g, v, x, 0);

	for (int i = 0; add && i < 2 && !count; i++)
		count = log_sum_of(g, add->in[i], x, add->in[1 - i]);
	return count;
}

/* exp(x - logsumexp x) over several axes, the last, in pieces: Softmax over them as one. Rows of as many axes become one as well. */
static enum linnet_code scores_log_sums(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *sub = value_from(g, n->in[0], "Sub");
	const struct shape *x;
	int axes, r, lead;
	value_id v, to, all;
	dim merged[MAX_RANK];

	(void)e;
	axes = sub ? log_sum_axes(g, sub->in[1], sub->in[0]) : 0;
	if (!axes)
		return LINNET_OK;
	x = &g->value[sub->in[0]].type.shape;
	r = x->rank;
	if (axes == 1) {
		patch_replace(p, n->out[0], softmax_of(p, sub->in[0], -1));
		return LINNET_OK;
	}
	lead = r > 2 * axes ? r - 2 * axes : r - axes;
	for (int i = 0; i < r; i++)
		if (!length_is_said(g, x->d[i]))
			return LINNET_OK;
	memcpy(merged, x->d, (size_t)lead * sizeof *merged);
	for (int i = lead; i < r; i += axes)
		merged[lead + (i - lead) / axes] = whole(g->dims, x->d + i, axes);
	for (int i = 0; i < lead + (r - lead) / axes; i++)
		if (!length_is_said(g, merged[i]))
			return LINNET_OK;
	to = lengths_of(p, merged, lead + (r - lead) / axes, sub->in[0], 0);
	all = lengths_of(p, x->d, r, sub->in[0], 0);
	v = softmax_of(p, patch_node(p, "Reshape", "rows", PATCH_IN(sub->in[0], to), 1, NULL), -1);
	patch_replace(p, n->out[0], patch_node(p, "Reshape", *n->name ? n->name : "probabilities", PATCH_IN(v, all), 1, NULL));
	return LINNET_OK;
}

/* Probabilities reshaped twice are reshaped once. */
static enum linnet_code scores_reshaped(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *before = value_from(g, n->in[0], "Reshape");
	const struct shape *y = &g->value[n->out[0]].type.shape;

	(void)e;
	if (!before || !value_from(g, before->in[0], "Softmax") || value_uses(w, before->in[0]) != 1 || y->rank < 1)
		return LINNET_OK;
	for (int i = 0; i < y->rank; i++)
		if (!length_is_said(g, y->d[i]))
			return LINNET_OK;
	patch_replace(p, n->out[0], patch_node(p, "Reshape", n->name, PATCH_IN(before->in[0], lengths_of(p, y->d, y->rank, n->out[0], 0)), 1, NULL));
	return LINNET_OK;
}

/* ---- Factors of rows and columns ---- */

/* v differs along that axis of the last two alone: 1 the columns, 2 the rows. */
static bool is_along(const struct graph *g, value_id v, int axis)
{
	const struct shape *s = &g->value[v].type.shape;

	return s->rank >= 2 && s->d[s->rank - (3 - axis)] == 1 && s->d[s->rank - axis] != 1;
}

/*
 * Scores divided by the product of a column and a row are divided by each (cosine attention: by the lengths of queries and keys); a factor of
 * each row goes to the queries, a divisor of each column to the keys.
 */
static enum linnet_code scores_factor(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	bool div = node_is(n, "Div");

	(void)e;
	if (!is_score(w, n->out[0]))
		return LINNET_OK;
	for (int i = 0; i < (div ? 1 : 2); i++) {
		const struct node *m = value_node(g, n->in[i]), *by = value_node(g, n->in[1 - i]);
		value_id f = n->in[1 - i], a, b;
		double c;

		if (!m || value_uses(w, n->in[i]) != 1 || g->value[f].type.shape.rank > g->value[n->in[i]].type.shape.rank)
			continue;
		for (int k = 0; div && by && (node_is(by, "Mul") || node_is(by, "MatMul")) && k < 2; k++) {
			a = by->in[k];
			b = by->in[1 - k];
			if (!is_along(g, a, 2) || !is_along(g, b, 1) || (k && node_is(by, "MatMul")))
				continue;
			a = patch_node(p, "Div", "divided", PATCH_IN(n->in[0], a), 1, NULL);
			patch_replace(p, n->out[0], patch_node(p, "Div", *n->name ? n->name : "divided", PATCH_IN(a, b), 1, NULL));
			return LINNET_OK;
		}
		if ((is_along(g, f, 2) || (div && is_along(g, f, 1))) && (node_is(m, "Mul") || node_is(m, "Div")) && value_scalar(g, m->in[1], &c)) {
			a = patch_node(p, n->op->name, "scores", PATCH_IN(m->in[0], f), 1, NULL);
			patch_replace(p, n->out[0], patch_node(p, m->op->name, *m->name ? m->name : "scaled", PATCH_IN(a, m->in[1]), 1, NULL));
			return LINNET_OK;
		}
		for (int k = 0; node_is(m, "MatMul") && k < 2; k++) {
			value_id in[2] = { m->in[0], m->in[1] };

			if (!is_along(g, f, k ? 1 : 2) || (k && !div) || g->value[f].type.shape.rank > g->value[in[k]].type.shape.rank)
				continue;
			in[k] = patch_node(p, n->op->name, k ? "keys" : "queries", PATCH_IN(in[k], f), 1, NULL);
			patch_replace(p, n->out[0], patch_node(p, "MatMul", *m->name ? m->name : "product", in, 2, 1, NULL));
			return LINNET_OK;
		}
	}
	return LINNET_OK;
}

/* ---- Layouts ---- */

/* x [..., a, b] merged to [-1, a, b], its last axes swapped, and split again: one Transpose. */
static enum linnet_code scores_swap(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *turn = value_from(g, n->in[0], "Transpose"), *merge = turn ? value_from(g, turn->in[0], "Reshape") : NULL;
	const struct shape *x, *m, *y = &g->value[n->out[0]].type.shape;
	const struct attr *perm;
	int64_t swap[MAX_RANK] = { 0 };
	int r;

	(void)e;
	if (!merge)
		return LINNET_OK;
	x = &g->value[merge->in[0]].type.shape;
	m = &g->value[turn->in[0]].type.shape;
	perm = node_attr(turn, "perm");
	r = x->rank;
	if (r < 4 || y->rank != r || m->rank != 3 || perm->kind != ATTR_INTS || perm->n != 3 || perm->ints[0] != 0 || perm->ints[1] != 2)
		return LINNET_OK;
	for (int i = 0; i < r - 2; i++)
		if (x->d[i] != y->d[i])
			return LINNET_OK;
	for (int i = 1; i <= 2; i++)
		if (x->d[r - i] != m->d[3 - i] || y->d[r - i] != m->d[i])
			return LINNET_OK;
	for (int i = 0; i < r; i++)
		swap[i] = i < r - 2 ? i : 2 * r - 3 - i;
	patch_replace(p, n->out[0],
	              patch_node(p, "Transpose", *turn->name ? turn->name : "turned", PATCH_IN(merge->in[0]), 1,
	                         (struct attr[]){ attr_ints("perm", swap, (size_t)r), { .name = NULL } }));
	return LINNET_OK;
}

enum { MAX_CHAIN = 6 };

/* Steps from turned scores to a softmax, the last first: which input of each are the scores; the others are broadcast to them. */
struct chain {
	const struct node *step[MAX_CHAIN];
	uint32_t at[MAX_CHAIN];
	int n;
	const struct node *turn; /* the Transpose they begin with */
};

static bool find_turn(const struct view *w, value_id v, struct chain *c)
{
	const struct graph *g = w->g;
	const struct node *n = value_node(g, v);

	if (!n || value_uses(w, v) != 1)
		return false;
	if (node_is(n, "Transpose")) {
		c->turn = n;
		return true;
	}
	if (c->n == MAX_CHAIN || !(node_is(n, "Mul") || node_is(n, "Div") || node_is(n, "Add") || node_is(n, "Sub") || node_is(n, "Where")))
		return false;
	for (uint32_t i = node_is(n, "Where"); i < n->nin; i++) {
		int keep = c->n;

		if (!shape_equal(&g->value[n->in[i]].type.shape, &g->value[v].type.shape) || (i && node_is(n, "Div")))
			continue;
		c->step[c->n] = n;
		c->at[c->n++] = i;
		if (find_turn(w, n->in[i], c))
			return true;
		c->n = keep;
	}
	return false;
}

/* What is broadcast to turned scores, as it is to those of rank r before they were turned. */
static value_id turned_back(struct patch *p, value_id v, const int64_t *back, int r)
{
	static const int64_t axes[MAX_RANK] = { 0, 1, 2, 3, 4, 5, 6, 7 };
	int rank = p->g->value[v].type.shape.rank;

	if (!rank)
		return v;
	if (rank < r)
		v = patch_node(p, "Unsqueeze", "term", PATCH_IN(v, patch_ints(p, axes, r - rank, "axes")), 1, NULL);
	return transposed(p, v, back, r, "term");
}

/* Scores turned before the softmax, or before their scale and mask: the softmax comes first, over the axis where it lay, when that is one of the last two. */
static enum linnet_code scores_turn(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	int r = g->value[n->in[0]].type.shape.rank;
	int64_t axis = node_attr(n, "axis")->i, perm[MAX_RANK], back[MAX_RANK];
	struct chain c = { .n = 0 };
	value_id v;

	(void)e;
	axis = axis < 0 ? axis + r : axis;
	if (r < 2 || axis >= r || !find_turn(w, n->in[0], &c) || !permutation(c.turn, r, perm) || perm[axis] < r - 2)
		return LINNET_OK;
	if (perm[axis] == r - 2 && !is_scores(g, c.turn->in[0])) /* keys times queries, and not what mixes heads */
		return LINNET_OK;
	for (int i = 0; i < r; i++)
		back[perm[i]] = i;
	v = c.turn->in[0];
	while (c.n--) {
		value_id in[3] = { 0 };

		for (uint32_t i = 0; i < c.step[c.n]->nin; i++)
			if (i != c.at[c.n] && (g->value[c.step[c.n]->in[i]].type.shape.rank < 0 || is_scores(g, c.step[c.n]->in[i]))) /* which would be turned in their place */
				return LINNET_OK;
		for (uint32_t i = 0; i < c.step[c.n]->nin; i++)
			in[i] = i == c.at[c.n] ? v : turned_back(p, c.step[c.n]->in[i], back, r);
		v = patch_node(p, c.step[c.n]->op->name, "scores", in, c.step[c.n]->nin, 1, NULL);
	}
	v = patch_node(p, "Softmax", *n->name ? n->name : "softmax", PATCH_IN(v), 1, (struct attr[]){ attr_int("axis", perm[axis] - r), { .name = NULL } });
	patch_replace(p, n->out[0], transposed(p, v, perm, r, "turned"));
	return LINNET_OK;
}

/* Probabilities whose leading axes are turned in front of the product with values: the values are turned, and the result. */
static enum linnet_code scores_lead(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct node *turn = value_from(g, n->in[0], "Transpose");
	int r = g->value[n->in[0]].type.shape.rank;
	int64_t perm[MAX_RANK], back[MAX_RANK];
	value_id v;

	(void)e;
	if (!turn || r < 4 || !value_from(g, turn->in[0], "Softmax") || value_uses(w, n->in[0]) != 1 || value_uses(w, turn->in[0]) != 1 ||
	    g->value[n->in[1]].type.shape.rank != r || !permutation(turn, r, perm) || perm[r - 1] != r - 1 || perm[r - 2] != r - 2)
		return LINNET_OK;
	for (int i = 0; i < r; i++)
		back[perm[i]] = i;
	v = transposed(p, n->in[1], back, r, "values");
	v = patch_node(p, "MatMul", *n->name ? n->name : "product", PATCH_IN(turn->in[0], v), 1, NULL);
	patch_replace(p, n->out[0], transposed(p, v, perm, r, "turned"));
	return LINNET_OK;
}

/* ---- Terms that scores meet with their axes taken apart ---- */

enum { MAX_TERMS = 4 };

/* What makes b, which broadcasts to s, that large: its lengths of 1 as numbers, ones elsewhere; 0 where one of them is no number. */
static value_id full_shape(struct patch *p, const struct shape *b, const struct shape *s)
{
	int64_t d[MAX_RANK];

	for (int i = 0; i < s->rank; i++) {
		int at = i - (s->rank - b->rank);

		d[i] = at >= 0 && b->d[at] == s->d[i] ? 1 : s->d[i];
		if (!dim_is_int(d[i]))
			return 0;
	}
	return patch_ints(p, d, s->rank, "full");
}

/* Reshape(Reshape(x, apart) + b ...), of the lengths of x again: the terms take x's axes instead, each of them made as large as the scores before. */
static enum linnet_code scores_apart(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *whole = &g->value[n->out[0]].type.shape, *apart = &g->value[n->in[0]].type.shape;
	const struct attr *as_is = node_attr(n, "allowzero");
	value_id term[MAX_TERMS], y = n->in[0];
	int count = 0;

	(void)e;
	if (whole->rank < 3 || apart->rank <= whole->rank)
		return LINNET_OK;
	for (;;) {
		const struct node *m = value_node(g, y);
		int of = m && node_is(m, "Add") && (value_from(g, m->in[1], "Reshape") || value_from(g, m->in[1], "Add")) &&
		         shape_equal(&g->value[m->in[1]].type.shape, apart) && !shape_equal(&g->value[m->in[0]].type.shape, apart);

		if (!m || value_uses(w, y) != 1)
			return LINNET_OK;
		if (node_is(m, "Reshape")) {
			y = m->in[0];
			break;
		}
		if (!node_is(m, "Add") || count == MAX_TERMS || !shape_equal(&g->value[m->in[of]].type.shape, apart))
			return LINNET_OK;
		term[count++] = m->in[1 - of];
		y = m->in[of];
	}
	if (!count || !shape_equal(&g->value[y].type.shape, whole) || !is_scores(g, y))
		return LINNET_OK;
	while (count--) {
		value_id full = full_shape(p, &g->value[term[count]].type.shape, apart), b;

		if (!full)
			return LINNET_OK;
		b = patch_node(p, "Expand", "term", PATCH_IN(term[count], full), 1, NULL);
		b = patch_node(p, "Reshape", "term", PATCH_IN(b, n->in[1]), 1, as_is->i ? (struct attr[]){ *as_is, { .name = NULL } } : NULL);
		y = patch_node(p, "Add", "scores", PATCH_IN(y, b), 1, NULL);
	}
	patch_replace(p, n->out[0], y);
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "scores/einsum", .doc = "Einsum of two operands with batch axes that is a product of matrices becomes MatMul", .anchor = "Einsum", .apply = scores_einsum, .differs = 1e-12 },
	{ .name = "scores/outer", .doc = "operands repeated along each other's axes, multiplied and summed over one that both have become Einsum", .anchor = "ReduceSum",
	  .apply = scores_outer, .differs = 1e-12 },
	{ .name = "scores/outer-mean", .doc = "the same of their mean", .anchor = "ReduceMean", .apply = scores_outer, .differs = 1e-12 },
	{ .name = "scores/fused", .doc = "com.microsoft.FusedMatMul becomes Transpose, MatMul and Mul", .apply = scores_fused, .differs = 1e-12 },
	{ .name = "scores/softmax", .doc = "exp x over its sum, before or behind the product with values, becomes Softmax; masked by a product, and with one more logit in the sum, too", .anchor = "Div", .apply = scores_softmax, .differs = 1e-12 },
	{ .name = "scores/bias", .doc = "com.microsoft.BiasSoftmax over the last axis becomes Add and Softmax", .anchor = "BiasSoftmax",
	  .from = "(float[] x, float[] b) => (y) { y = com.microsoft.BiasSoftmax <axis = @axis, is_inner_broadcast = 1> (x, b) }",
	  .to = "{ s = Add (x, b)  y = Softmax <axis = -1> (s) }", .guard = adds_inner, .differs = 1e-12 },
	{ .name = "scores/bias-outer", .doc = "the same with a bias for all batches", .anchor = "BiasSoftmax",
	  .from = "(float[] x, float[] b) => (y) { y = com.microsoft.BiasSoftmax <axis = @axis, is_inner_broadcast = 0> (x, b) }",
	  .to = "{ s = Add (x, b)  y = Softmax <axis = -1> (s) }", .guard = adds_outer, .differs = 1e-12 },
	{ .name = "scores/shift", .doc = "the maximum is not subtracted in front of Softmax, which does so itself", .anchor = "Softmax",
	  .from = "(float[] x) => (y) <int64[1] axes = {@axis}>\n"
	          "{ m = ReduceMax (x, axes)  d = Sub (x, m)  y = Softmax <axis = @axis> (d) }",
	  .to = "{ y = Softmax <axis = @axis> (x) }", .differs = 1e-12 },
	{ .name = "scores/reciprocal", .doc = "exp x times the reciprocal of its sum becomes Softmax", .anchor = "Mul", .apply = scores_reciprocal, .differs = 1e-12 },
	{ .name = "scores/front", .doc = "a logit in front of the scores, cut off behind Softmax, goes behind them", .anchor = "Slice", .apply = scores_front, .differs = 1e-12 },
	{ .name = "scores/finite", .doc = "infinite numbers are not looked for among probabilities", .anchor = "Where", .apply = scores_finite },
	{ .name = "scores/exp", .doc = "the exponential of LogSoftmax becomes Softmax", .anchor = "Exp",
	  .from = "(float[] x) => (y) { l = LogSoftmax <axis = @axis> (x)  y = Exp (l) }",
	  .to = "{ y = Softmax <axis = @axis> (x) }", .differs = 1e-12 },
	{ .name = "scores/log-sum", .doc = "exp(x - logsumexp x) becomes Softmax", .anchor = "Exp",
	  .from = "(float[] x) => (y) <int64[1] axes = {@axis}>\n"
	          "{ l = ReduceLogSumExp (x, axes)  d = Sub (x, l)  y = Exp (d) }",
	  .to = "{ y = Softmax <axis = @axis> (x) }", .differs = 1e-12 },
	{ .name = "scores/log-sums", .doc = "the same in pieces, over one or several of the last axes", .anchor = "Exp", .apply = scores_log_sums, .differs = 1e-12 },
	{ .name = "scores/rows-apart", .doc = "rows of several axes that are merged for a product alone are multiplied as they are", .anchor = "Reshape", .apply = scores_rows_apart, .differs = 1e-12 },
	{ .name = "scores/blocks", .doc = "rows and columns of a product that are exchanged: the product of its operands, turned, in other order", .anchor = "Reshape", .apply = scores_blocks, .differs = 1e-12 },
	{ .name = "scores/reshaped", .doc = "probabilities that are reshaped twice are reshaped once", .anchor = "Reshape", .apply = scores_reshaped },
	{ .name = "scores/rows", .doc = "Softmax between Reshapes that keep its axis and cancel leaves them out", .anchor = "Softmax", .apply = scores_rows, .differs = 1e-12 },
	{ .name = "scores/guard", .doc = "0 for rows that are all -inf, else softmax, is 0 where softmax is no number", .anchor = "Where", .apply = scores_guard },
	{ .name = "scores/blend", .doc = "s m - c (1 - m) with m of zeros and ones becomes Where", .anchor = "Sub", .apply = scores_blend, .differs = 1e-12 },
	{ .name = "scores/select", .doc = "a sum of products with a condition and its opposite becomes Where", .anchor = "Add", .apply = scores_select, .differs = 1e-12 },
	{ .name = "scores/lowered", .doc = "scores less a number where they are hidden become a term that is added", .anchor = "Where", .apply = scores_lowered, .differs = 1e-12 },
	{ .name = "scores/renormalised", .doc = "probabilities that a mask leaves, over their sum, become a masked Softmax", .anchor = "Div", .apply = scores_renormalised, .differs = 1e-12 },
	{ .name = "scores/lengths", .doc = "lengths of scores are read off the graph's inputs", .anchor = "Shape", .apply = scores_lengths },
	{ .name = "scores/blend-add", .doc = "the same with c below 0 added", .anchor = "Add", .apply = scores_blend, .differs = 1e-12 },
	{ .name = "scores/gate", .doc = "Softmax times sigmoid(logsumexp - l) becomes Softmax with one more logit, l", .anchor = "Mul", .apply = scores_gate, .differs = 1e-12 },
	{ .name = "scores/divided", .doc = "scores divided by lengths of rows and of columns: queries and keys are", .anchor = "Div", .apply = scores_factor, .differs = 1e-12 },
	{ .name = "scores/multiplied", .doc = "scores times a factor of each row: queries are", .anchor = "Mul", .apply = scores_factor, .differs = 1e-12 },
	{ .name = "scores/shape", .doc = "lengths of scores are read off queries and keys", .anchor = "Shape", .apply = scores_shape },
	{ .name = "scores/turn", .doc = "scores turned in front of a softmax are turned behind it", .anchor = "Softmax", .apply = scores_turn, .differs = 1e-12 },
	{ .name = "scores/lead", .doc = "leading axes turned between softmax and product are turned behind the product", .anchor = "MatMul", .apply = scores_lead, .differs = 1e-12 },
	{ .name = "scores/apart", .doc = "terms that scores meet with axes taken apart by Reshape take the scores' own", .anchor = "Reshape", .apply = scores_apart },
	{ .name = "scores/swap", .doc = "the last two axes swapped between Reshapes of the others become one Transpose", .anchor = "Reshape", .apply = scores_swap },
};

const struct pass scores_pass = { .name = "scores", .doc = "Read the spellings of scores and softmax", .kind = PASS_EXACT, .makes = "Attention", PASS_RULES(rules) };
