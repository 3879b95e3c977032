/*
 * Scales and shifts by channel taken into the product before them: BatchNormalization, and constants that multiply or are added, behind Conv,
 * ConvTranspose, Gemm and MatMul of constant weights. Computed in double and rounded once. Needs types.
 *
 *   f (W x + b) + h = (f W) x + (f b + h)     BatchNormalization: f = scale / sqrt(var + epsilon), h = B - f mean
 *
 * Only where nothing else uses the weights, so that a model never grows by it.
 */
#include <math.h>
#include <string.h>

#include "graph/pass.h"

/* By channel, n of them; NULL in place of ones or zeros. */
struct channels {
	double *f, *h;
	int64_t n;
};

static const struct tensor *constant(const struct graph *g, value_id v)
{
	return v && g->value[v].kind == VALUE_CONST && dtype_in(g->value[v].type.dt, FLOATS) ? value_const(g, v) : NULL;
}

/* What BatchNormalization of given statistics does; false: it is none, or a number would not be finite. */
static bool read_batch_norm(const struct graph *g, const struct node *n, struct channels *c)
{
	const struct tensor *t[4];
	double eps = node_attr(n, "epsilon")->f;

	if (node_attr(n, "training_mode")->i)
		return false;
	for (int i = 0; i < 4; i++)
		if (!(t[i] = constant(g, n->in[1 + i])) || t[i]->n != c->n)
			return false;
	for (int64_t i = 0; i < c->n; i++) {
		double f = tensor_get(t[0], i) / sqrt(tensor_get(t[3], i) + eps);

		c->f[i] = f;
		c->h[i] = tensor_get(t[1], i) - f * tensor_get(t[2], i);
		if (!isfinite(f) || !isfinite(c->h[i]))
			return false;
	}
	return true;
}

/* A constant with one number a channel of y [N, C, ...], channels being no last axis that rows are added to. */
static const struct tensor *by_channel(const struct graph *g, value_id v, const struct shape *y)
{
	const struct tensor *t = constant(g, v);

	if (!t || t->rank > y->rank || t->n != y->d[1] || t->n < 2 || y->rank < 3 || t->rank < y->rank - 1)
		return NULL;
	return t->d[t->rank - (y->rank - 1)] == t->n ? t : NULL;
}

/* v = f v0 + h by channel, as node n computes it: v0, 0 when it does not. */
static value_id read_channels(const struct view *w, const struct node *n, struct channels *c)
{
	const struct graph *g = w->g;
	const struct shape *y = &g->value[n->out[0]].type.shape;

	if (node_is(n, "BatchNormalization"))
		return read_batch_norm(g, n, c) ? n->in[0] : 0;
	for (int i = 0; i < 2; i++) {
		const struct tensor *t = by_channel(g, n->in[i], y);

		if (!t || !shape_equal(&g->value[n->in[1 - i]].type.shape, y))
			continue;
		for (int64_t k = 0; k < c->n; k++) {
			c->f[k] = node_is(n, "Mul") ? tensor_get(t, k) : 1;
			c->h[k] = node_is(n, "Mul") ? 0 : tensor_get(t, k);
		}
		return n->in[1 - i];
	}
	return 0;
}

/* The output channel that the k-th weight of node n leads to. */
static int64_t channel_of(const struct node *n, const struct tensor *t, int64_t k)
{
	if (node_is(n, "Conv") || (node_is(n, "Gemm") && node_attr(n, "transB")->i))
		return k / (t->n / t->d[0]);
	if (node_is(n, "ConvTranspose")) { /* [C, M / groups, ...] */
		int64_t each = t->n / (t->d[0] * t->d[1]), in = k / (each * t->d[1]), group = in / (t->d[0] / node_attr(n, "group")->i);

		return group * t->d[1] + k / each % t->d[1];
	}
	return k % t->d[1];
}

static int64_t channels_of(const struct node *n, const struct tensor *t)
{
	if (node_is(n, "ConvTranspose"))
		return t->d[1] * node_attr(n, "group")->i;
	return node_is(n, "Conv") || (node_is(n, "Gemm") && node_attr(n, "transB")->i) ? t->d[0] : t->d[1];
}

/* The weights, scaled. */
static value_id scaled(struct patch *p, const struct node *n, const struct tensor *t, const struct channels *c, struct linnet_error *e)
{
	struct tensor *x;

	p->code = p->code ? p->code : tensor_new(p->arena, t->dt, t->rank, t->d, &x, e);
	for (int64_t i = 0; !p->code && i < t->n; i++)
		tensor_put(x, i, tensor_get(t, i) * c->f[channel_of(n, t, i)]);
	return p->code ? 0 : patch_const(p, x, p->g->value[n->in[1]].name);
}

/* f times b + h; b NULL: nothing is added. */
static value_id shifted(struct patch *p, enum dtype dt, const struct tensor *b, double beta, const struct channels *c, const char *hint, struct linnet_error *e)
{
	struct tensor *x;

	p->code = p->code ? p->code : tensor_new(p->arena, dt, 1, &c->n, &x, e);
	for (int64_t i = 0; !p->code && i < c->n; i++)
		tensor_put(x, i, (b ? beta * tensor_get(b, b->n == 1 ? 0 : i) * c->f[i] : 0) + c->h[i]);
	return p->code ? 0 : patch_const(p, x, hint);
}

static bool is_product(const struct node *n)
{
	return node_is(n, "Conv") || node_is(n, "ConvTranspose") || node_is(n, "Gemm") || node_is(n, "MatMul");
}

static enum linnet_code batch_channels(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *y = &g->value[n->out[0]].type.shape;
	bool batch = node_is(n, "BatchNormalization");
	const struct node *product, *add = NULL;
	const struct tensor *t, *b = NULL;
	struct channels c;
	struct attr *attr;
	value_id v, bias = 0, in[3];
	const char *hint;
	uint32_t na = 0;

	if (y->rank < 2 || !dim_is_int(y->d[1]) || y->d[1] < 1)
		return LINNET_OK;
	product = value_node(g, n->in[0]);
	if (!batch && !(product && (node_is(product, "Conv") || node_is(product, "ConvTranspose"))))
		product = value_node(g, n->in[1]);
	if (batch && product && node_is(product, "Add") && y->rank == 2) { /* a row between MatMul and BatchNormalization */
		add = product;
		bias = constant(g, add->in[0]) ? add->in[0] : add->in[1];
		product = value_node(g, bias == add->in[0] ? add->in[1] : add->in[0]);
		if (!product || !node_is(product, "MatMul") || value_uses(w, add->out[0]) != 1)
			return LINNET_OK;
	}
	if (!product || !is_product(product) || (!batch && (node_is(product, "Gemm") || node_is(product, "MatMul"))) || value_uses(w, product->out[0]) != 1 ||
	    !(t = constant(g, product->in[1])) || value_uses(w, product->in[1]) != 1 || t->rank < 2 || (node_is(product, "MatMul") && (t->rank != 2 || y->rank != 2)))
		return LINNET_OK;
	for (uint32_t i = 1; i < n->nout; i++)
		if (n->out[i] && value_uses(w, n->out[i]))
			return LINNET_OK;
	c.n = y->d[1];
	if (channels_of(product, t) != c.n || t->n < 1)
		return LINNET_OK;
	TRY_NEW(c.f, w->scratch, (size_t)c.n);
	TRY_NEW(c.h, w->scratch, (size_t)c.n);
	v = read_channels(w, n, &c);
	if (!v || v != (add ? add->out[0] : product->out[0]))
		return LINNET_OK;
	if (!add)
		bias = product->nin > 2 ? product->in[2] : 0;
	b = constant(g, bias);
	if (bias && (!b || (b->n != c.n && b->n != 1) || (b->n > 1 && b->d[b->rank - 1] != c.n)))
		return LINNET_OK;
	if (!(attr = NEW(w->scratch, product->nattr + 1, struct attr)))
		return fail_mem(e);
	for (uint32_t i = 0; i < product->nattr; i++)
		if (product->attr[i].given && strcmp(product->attr[i].name, "beta") != 0)
			attr[na++] = product->attr[i];
	hint = *product->name ? product->name : "product";
	in[0] = product->in[0];
	in[1] = scaled(p, product, t, &c, e);
	in[2] = shifted(p, t->dt, b, node_is(product, "Gemm") ? node_attr(product, "beta")->f : 1, &c, bias ? g->value[bias].name : "bias", e);
	if (node_is(product, "MatMul"))
		v = patch_node(p, "Add", *n->name ? n->name : "shifted", PATCH_IN(patch_op(p, product->op, hint, in, 2, 1, attr), in[2]), 1, NULL);
	else
		v = patch_op(p, product->op, hint, in, 3, 1, attr);
	patch_replace(p, n->out[0], v);
	return LINNET_OK;
}

static const struct rule rules[] = {
	{ .name = "batch/norm", .doc = "BatchNormalization behind Conv, ConvTranspose, Gemm or MatMul goes into its weights", .anchor = "BatchNormalization",
	  .apply = batch_channels, .differs = 1e-12 },
	{ .name = "batch/scale", .doc = "a constant for each channel that multiplies a convolution goes into its weights", .anchor = "Mul", .apply = batch_channels, .differs = 1e-12 },
	{ .name = "batch/shift", .doc = "one that is added becomes its bias", .anchor = "Add", .apply = batch_channels, .differs = 1e-12 },
};

const struct pass batch_pass = { .name = "batch", .doc = "Take scales and shifts of channels into weights", .kind = PASS_EXACT, PASS_RULES(rules) };
