/*
 * Words for what recognition found: SwiGLU of ONNX (pass fuse), and for ONNX Runtime operators of com.microsoft (pass ort). These run
 * after the recognisers, and only when a model is written for them.
 */
#include <math.h>
#include <string.h>

#include "graph/pass.h"

static const struct op *microsoft(const char *name) { return op_newest("com.microsoft", name); }

static const struct type *known(const struct view *w, value_id v) { return &w->g->value[v].type; }

static bool unused(const struct view *w, const struct node *n, uint32_t first)
{
	for (uint32_t i = first; i < n->nout; i++)
		if (n->out[i] && value_uses(w, n->out[i]))
			return false;
	return true;
}

static bool given(const struct node *n, uint32_t i) { return i < n->nin && n->in[i]; }

/* ---- SwiGLU ---- */

/* Swish(a) b */
static enum linnet_code fuse_swiglu(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	struct attr attr[] = { attr_float("alpha", 1), { .name = NULL } };

	(void)e;
	for (int i = 0; i < 2; i++) {
		const struct node *gate = value_from(w->g, n->in[i], "Swish");
		value_id up = n->in[1 - i];

		if (!gate || value_uses(w, n->in[i]) != 1 || !shape_equal(&known(w, n->in[i])->shape, &known(w, up)->shape))
			continue;
		attr[0].f = node_attr(gate, "alpha")->f;
		patch_replace(p, n->out[0], patch_node(p, "SwiGLU", n->name, PATCH_IN(gate->in[0], up), 1, attr));
		return LINNET_OK;
	}
	return LINNET_OK;
}

/* ---- Attention ---- */

static bool is_swap(const struct node *n)
{
	static const int64_t swap[] = { 0, 2, 1, 3 };
	const struct attr *a = n ? node_attr(n, "perm") : NULL;

	return a && a->kind == ATTR_INTS && a->n == 4 && !memcmp(a->ints, swap, sizeof swap);
}

/* [B, H, L, D] as rows [B, L, H D]: where it came from, or turned. */
static value_id rows_of(const struct view *w, struct patch *p, value_id v, int64_t width)
{
	const struct node *turn = value_from(w->g, v, "Transpose"), *split;
	static const int64_t swap[] = { 0, 2, 1, 3 };
	struct attr perm[] = { attr_ints("perm", swap, 4), { .name = NULL } };
	const struct shape *s = &known(w, v)->shape, *r;
	value_id x;

	if (turn && is_swap(turn)) {
		x = turn->in[0];
		split = value_from(w->g, x, "Reshape");
		r = split ? &known(w, split->in[0])->shape : NULL;
		if (r && r->rank == 3 && r->d[0] == s->d[0] && r->d[1] == s->d[2] && r->d[2] == width)
			return split->in[0];
	} else {
		x = patch_node(p, "Transpose", "turned", PATCH_IN(v), 1, perm);
	}
	return patch_node(p, "Reshape", "rows", PATCH_IN(x, patch_ints(p, (int64_t[]){ 0, 0, width }, 3, "shape")), 1, NULL);
}

/* The result, rows y [B, L, H E], takes the place of attention's output, or of the rows that are made of that. */
static void put_rows(const struct view *w, const struct node *n, struct patch *p, value_id y, int64_t heads, int64_t width)
{
	static const int64_t swap[] = { 0, 2, 1, 3 };
	struct attr perm[] = { attr_ints("perm", swap, 4), { .name = NULL } };
	const struct node *turn = value_user(w, n->out[0], NULL), *join;
	const struct shape *s = &known(w, n->out[0])->shape, *r;
	value_id v;

	if (turn && node_is(turn, "Transpose") && is_swap(turn)) {
		uint32_t index;

		join = value_user(w, turn->out[0], &index);
		r = join && node_is(join, "Reshape") && !index ? &known(w, join->out[0])->shape : NULL;
		if (r && r->rank == 3 && r->d[0] == s->d[0] && r->d[1] == s->d[2] && r->d[2] == heads * width) {
			patch_replace(p, join->out[0], y);
			return;
		}
	}
	v = patch_node(p, "Reshape", "heads", PATCH_IN(y, patch_ints(p, (int64_t[]){ 0, 0, heads, width }, 4, "shape")), 1, NULL);
	patch_replace(p, n->out[0], patch_node(p, "Transpose", n->name, PATCH_IN(v), 1, perm));
}

/* Additive, [B or 1, H or 1, L, S]. */
static value_id bias_of(const struct view *w, struct patch *p, value_id mask, const struct shape *q, const struct shape *k, enum dtype dt, bool *ok)
{
	const struct type *t = mask ? known(w, mask) : NULL;
	const struct shape *s = t ? &t->shape : NULL;
	static const int64_t lead[] = { 0, 1 };
	value_id v = mask;

	*ok = !mask || (s->rank >= 2 && s->rank <= 4 && s->d[s->rank - 2] == q->d[2] && s->d[s->rank - 1] == k->d[2]);
	if (!mask || !*ok)
		return 0;
	if (t->dt == DT_BOOL)
		v = patch_node(p, "Where", "bias", PATCH_IN(mask, patch_float(p, dt, 0, "visible"), patch_float(p, dt, -INFINITY, "hidden")), 1, NULL);
	if (s->rank < 4)
		v = patch_node(p, "Unsqueeze", "bias", PATCH_IN(v, patch_ints(p, lead, 4 - s->rank, "axes")), 1, NULL);
	return v;
}

struct heads {
	int64_t q, kv, width, value;
	const struct shape *qs, *ks, *vs;
};

/* Of the 4-D form, without what the operators of com.microsoft cannot say. */
static bool plain(const struct view *w, const struct node *n, struct heads *h)
{
	*h = (struct heads){ .qs = &known(w, n->in[0])->shape, .ks = &known(w, n->in[1])->shape, .vs = &known(w, n->in[2])->shape };
	if (h->qs->rank != 4 || h->ks->rank != 4 || h->vs->rank != 4 || given(n, 4) || given(n, 5) || given(n, 6) || !unused(w, n, 1) ||
	    known(w, n->in[0])->dt != DT_FLOAT)
		return false;
	h->q = h->qs->d[1];
	h->kv = h->ks->d[1];
	h->width = h->qs->d[3];
	h->value = h->vs->d[3];
	return dim_is_int(h->q) && dim_is_int(h->kv) && dim_is_int(h->width) && dim_is_int(h->value) && h->vs->d[1] == h->kv && h->q > 0 && h->kv > 0 &&
	       h->qs->d[0] == h->ks->d[0] && h->qs->d[0] == h->vs->d[0] && h->ks->d[2] == h->vs->d[2];
}

static struct attr scale_attr(const struct node *n)
{
	const struct attr *a = node_attr(n, "scale");

	return attr_given(a) ? attr_float("scale", a->f) : (struct attr){ .name = NULL };
}

/* As many heads of keys as of queries. */
static enum linnet_code ort_multihead(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	bool causal = node_attr(n, "is_causal")->i, ok;
	struct attr attr[4] = { { .name = NULL } };
	value_id in[6] = { 0 };
	struct heads h;
	int k = 0;

	(void)e;
	if (!plain(w, n, &h) || h.q != h.kv || node_attr(n, "softcap")->f != 0 || (causal && h.qs->d[2] != h.ks->d[2]))
		return LINNET_OK;
	in[5] = bias_of(w, p, given(n, 3) ? n->in[3] : 0, h.qs, h.ks, DT_FLOAT, &ok);
	if (!ok)
		return LINNET_OK;
	in[0] = rows_of(w, p, n->in[0], h.q * h.width);
	in[1] = rows_of(w, p, n->in[1], h.kv * h.width);
	in[2] = rows_of(w, p, n->in[2], h.kv * h.value);
	attr[k++] = attr_int("num_heads", h.q);
	if (causal)
		attr[k++] = attr_int("unidirectional", 1);
	attr[k] = scale_attr(n);
	put_rows(w, n, p, patch_op(p, microsoft("MultiHeadAttention"), n->name, in, in[5] ? 6 : 3, 1, attr), h.q, h.value);
	return LINNET_OK;
}

/* Causal, without a mask: each batch entry is as long as the others. */
static enum linnet_code ort_grouped(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	struct attr to[] = { attr_int("to", DT_INT32), { .name = NULL } };
	struct attr attr[5] = { { .name = NULL } };
	value_id in[7] = { 0 }, shape, total, last;
	struct heads h;
	int k = 0;

	(void)e;
	if (!plain(w, n, &h) || h.q % h.kv || h.value != h.width || h.width % 8 || given(n, 3) || !node_attr(n, "is_causal")->i ||
	    h.qs->d[2] != h.ks->d[2] || (h.q == h.kv && node_attr(n, "softcap")->f == 0))
		return LINNET_OK;
	in[0] = rows_of(w, p, n->in[0], h.q * h.width);
	in[1] = rows_of(w, p, n->in[1], h.kv * h.width);
	in[2] = rows_of(w, p, n->in[2], h.kv * h.value);
	shape = patch_node(p, "Shape", "shape", PATCH_IN(n->in[0]), 1, NULL);
	total = patch_node(p, "Cast", "total", PATCH_IN(patch_node(p, "Gather", "tokens", PATCH_IN(shape, patch_int(p, 2, "axis")), 1, NULL)), 1, to);
	last = patch_node(p, "Sub", "last", PATCH_IN(total, patch_node(p, "Cast", "one", PATCH_IN(patch_int(p, 1, "one")), 1, to)), 1, NULL);
	in[5] = patch_node(p, "Expand", "lengths",
	                   PATCH_IN(last, patch_node(p, "Gather", "batch", PATCH_IN(shape, patch_ints(p, (int64_t[]){ 0 }, 1, "axis")), 1, NULL)), 1, NULL);
	in[6] = total;
	attr[k++] = attr_int("num_heads", h.q);
	attr[k++] = attr_int("kv_num_heads", h.kv);
	if (node_attr(n, "softcap")->f > 0)
		attr[k++] = attr_float("softcap", node_attr(n, "softcap")->f);
	attr[k] = scale_attr(n);
	put_rows(w, n, p, patch_op(p, microsoft("GroupQueryAttention"), n->name, in, 7, 3, attr), h.q, h.width);
	return LINNET_OK;
}

static enum linnet_code ort_rotary(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct attr *names[] = { node_attr(n, "interleaved"), node_attr(n, "num_heads"), node_attr(n, "rotary_embedding_dim") };
	struct attr attr[4] = { { .name = NULL } };
	int k = 0;

	(void)e;
	if (!given(n, 3) || known(w, n->in[1])->shape.rank != 2 || known(w, n->in[3])->dt != DT_INT64 || known(w, n->in[0])->dt == DT_BFLOAT16)
		return LINNET_OK;
	for (int i = 0; i < 3; i++)
		if (names[i]->kind == ATTR_INT && names[i]->i)
			attr[k++] = attr_int(names[i]->name, names[i]->i);
	patch_replace(p, n->out[0], patch_op(p, microsoft("RotaryEmbedding"), n->name, PATCH_IN(n->in[0], n->in[3], n->in[1], n->in[2]), 1, attr));
	return LINNET_OK;
}

/* ---- Norms ---- */

static bool is_vector(const struct view *w, value_id v, dim n)
{
	return known(w, v)->shape.rank == 1 && known(w, v)->shape.d[0] == n && dim_is_int(n);
}

/* A norm of a sum, which is a further output when others use it. */
static enum linnet_code skip_norm(const struct view *w, const struct node *n, const char *name, struct patch *p)
{
	const struct node *sum = value_from(w->g, n->in[0], "Add");
	struct attr attr[] = { attr_float("epsilon", node_attr(n, "epsilon")->f), { .name = NULL } };
	bool layer = node_is(n, "LayerNormalization");
	const struct type *t = known(w, n->in[0]);
	value_id in[4], y;
	int64_t axis = node_attr(n, "axis")->i;

	if (!sum || t->shape.rank != 3 || t->dt != DT_FLOAT || (axis != -1 && axis != 2) || !unused(w, n, 1) || node_attr(n, "stash_type")->i != 1 ||
	    !shape_equal(&known(w, sum->in[0])->shape, &t->shape) || !shape_equal(&known(w, sum->in[1])->shape, &t->shape) ||
	    !is_vector(w, n->in[1], t->shape.d[2]) || (layer && given(n, 2) && !is_vector(w, n->in[2], t->shape.d[2])))
		return LINNET_OK;
	in[0] = sum->in[0];
	in[1] = sum->in[1];
	in[2] = n->in[1];
	in[3] = layer && given(n, 2) ? n->in[2] : 0;
	y = patch_op(p, microsoft(name), n->name, in, in[3] ? 4 : 3, 4, attr);
	patch_replace(p, n->out[0], y);
	if (value_uses(w, sum->out[0]) > 1)
		patch_replace(p, sum->out[0], y + 3);
	return LINNET_OK;
}

static enum linnet_code ort_skip_layer(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	(void)e;
	return skip_norm(w, n, "SkipLayerNormalization", p);
}

static enum linnet_code ort_skip_rms(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	(void)e;
	return skip_norm(w, n, "SkipSimplifiedLayerNormalization", p);
}

/* ---- Activations ---- */

static enum linnet_code ort_gelu(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	const struct node *sum = value_from(w->g, n->in[0], "Add");
	const struct type *t = known(w, n->in[0]);
	const struct text form = node_attr(n, "approximate")->s;
	bool fast = form.n == strlen("tanh") && !memcmp(form.p, "tanh", form.n);
	value_id in[2] = { n->in[0], 0 };

	(void)e;
	if (t->dt != DT_FLOAT)
		return LINNET_OK;
	for (int i = 0; sum && value_uses(w, n->in[0]) == 1 && i < 2 && !in[1]; i++)
		if (t->shape.rank > 1 && is_vector(w, sum->in[i], t->shape.d[t->shape.rank - 1]) &&
		    shape_equal(&known(w, sum->in[1 - i])->shape, &t->shape)) {
			in[0] = sum->in[1 - i];
			in[1] = sum->in[i];
		}
	patch_replace(p, n->out[0], patch_op(p, microsoft(fast ? "FastGelu" : in[1] ? "BiasGelu" : "Gelu"), n->name, in, in[1] ? 2 : 1, 1, NULL));
	return LINNET_OK;
}

static enum linnet_code ort_quick_gelu(const struct view *w, const struct node *n, struct patch *p, struct linnet_error *e)
{
	struct attr attr[] = { attr_float("alpha", node_attr(n, "alpha")->f), { .name = NULL } };

	(void)e;
	if (known(w, n->in[0])->dt == DT_FLOAT)
		patch_replace(p, n->out[0], patch_op(p, microsoft("QuickGelu"), n->name, PATCH_IN(n->in[0]), 1, attr));
	return LINNET_OK;
}

static const struct rule fuse_rules[] = {
	{ .name = "fuse/swiglu", .doc = "Swish(a) b becomes SwiGLU", .anchor = "Mul", .apply = fuse_swiglu },
};

static const struct rule ort_rules[] = {
	{ .name = "ort/grouped", .doc = "causal Attention with fewer heads of keys becomes GroupQueryAttention", .anchor = "Attention", .apply = ort_grouped },
	{ .name = "ort/multihead", .doc = "Attention becomes MultiHeadAttention", .anchor = "Attention", .apply = ort_multihead },
	{ .name = "ort/rotary", .doc = "RotaryEmbedding by positions becomes that of com.microsoft", .anchor = "RotaryEmbedding", .apply = ort_rotary },
	{ .name = "ort/skip-layer", .doc = "LayerNormalization of a sum becomes SkipLayerNormalization", .anchor = "LayerNormalization", .apply = ort_skip_layer },
	{ .name = "ort/skip-rms", .doc = "RMSNormalization of a sum becomes SkipSimplifiedLayerNormalization", .anchor = "RMSNormalization",
	  .apply = ort_skip_rms },
	{ .name = "ort/gelu", .doc = "Gelu becomes Gelu, BiasGelu or FastGelu of com.microsoft", .anchor = "Gelu", .apply = ort_gelu },
	{ .name = "ort/quick-gelu", .doc = "Swish becomes QuickGelu", .anchor = "Swish", .apply = ort_quick_gelu },
};

const struct pass fuse_pass = { .name = "fuse", .doc = "Write gated units in one operator", .kind = PASS_EXACT, .makes = "SwiGLU", PASS_RULES(fuse_rules) };
const struct pass ort_pass = { .name = "ort", .doc = "Write com.microsoft's operators", .kind = PASS_EXACT, PASS_RULES(ort_rules) };
