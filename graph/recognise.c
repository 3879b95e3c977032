/* Reading properties of recognised attention, gated units and norms off a graph. */
#include "graph/recognise.h"

#include <math.h>
#include <string.h>

#include "graph/mask.h"
#include "graph/pass.h"

const char *const norm_names[NORM_KINDS] = { "layernorm", "rmsnorm", "groupnorm", "batchnorm" };

static bool is_ms(const struct node *n, const char *name)
{
	return n->op->domain && !strcmp(n->op->domain, "com.microsoft") && !strcmp(n->op->name, name);
}

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

static const char *const projections[] = { "MatMul", "Gemm", "Conv", "MatMulNBits", "FusedMatMul", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv",
	                                   "Linear", "FusedConv", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "FusedGemm", "GemmFloat8", "Attention", NULL };

static const char *const norms[] = { "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization",
	                             "SkipSimplifiedLayerNormalization", "GroupNormalization", "BatchNormalization", NULL };

/* A value computed from constants only, as weights that are dequantised or cast where they are used. */
static bool is_weight(const struct graph *g, value_id v, int depth)
{
	const struct node *n = value_node(g, v);

	if (!v || g->value[v].kind == VALUE_CONST || value_const(g, v))
		return true;
	if (!n || !depth)
		return false;
	for (uint32_t i = 0; i < n->nin; i++)
		if (!is_weight(g, n->in[i], depth - 1))
			return false;
	return true;
}

static bool is_projection(const struct graph *g, const struct node *n)
{
	return op_among(n, projections) && n->nin > 1 && (is_weight(g, n->in[n->nin > 3 && !strncmp(n->op->name, "QLinear", 7) ? 3 : 1], 6) ||
	                                                  (node_is(n, "MatMul") && is_weight(g, n->in[0], 6)));
}

/* All that v is computed from, up to projections, and, with `beyond`, on to where the projections' inputs were last a sum. */
static void trace(const struct graph *g, value_id v, bool beyond, struct origin *o)
{
	const struct node *n = value_node(g, v);

	if (!v || o->n == MAX_SEEN || seen(o, v))
		return;
	o->seen[o->n++] = v;
	if (!n || node_is(n, "Shape"))
		return;
	if (is_projection(g, n)) {
		o->projections++;
		if (!beyond)
			return;
		for (uint32_t i = 0; i < n->nin; i++) {
			value_id x = n->in[i];

			/* through norms and layouts */
			while (x && o->n < MAX_SEEN && !is_weight(g, x, 6)) {
				const struct node *m = value_node(g, x);
				int data = 0;

				o->seen[o->n++] = x;
				for (uint32_t k = 0; m && k < m->nin; k++)
					data += m->in[k] && !is_weight(g, m->in[k], 6);
				x = m && (data == 1 || node_is(m, "Reshape") || node_is(m, "Expand")) ? m->in[0] : 0;
			}
		}
		return;
	}
	if (node_is(n, "RotaryEmbedding") || is_ms(n, "RotaryEmbedding") || node_is(n, "Reshape") || node_is(n, "Expand") || node_is(n, "Slice")) {
		trace(g, n->in[0], beyond, o);
		return;
	}
	for (uint32_t i = 0; i < n->nin; i++)
		trace(g, n->in[i], beyond, o);
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
	if (c->n != s->n || c->n < 2 || dtype_class(c->dt) != CLASS_FLOAT || dtype_class(s->dt) != CLASS_FLOAT)
		return false;
	for (int64_t i = 0; i < c->n && i < 4096; i++) {
		double x = tensor_get(c, i), y = tensor_get(s, i);

		if (!(fabs(x * x + y * y - 1) < 1e-2))
			return false;
	}
	return true;
}

/* Cosines and sines among what q is made of. */
static bool is_turned(const struct graph *g, const struct origin *o)
{
	static const char *const turning[] = { "RotaryEmbedding", "Cos", "Sin", NULL };

	for (int i = 0; i < o->n; i++) {
		const struct node *n = value_node(g, o->seen[i]);
		const struct tensor *t = value_const(g, o->seen[i]);

		if (n && op_among(n, turning))
			return true;
		for (int k = 0; t && t->n > 1 && k < i; k++)
			if (value_const(g, o->seen[k]) && are_circle(t, value_const(g, o->seen[k])))
				return true;
	}
	return false;
}

static bool is_normed(const struct graph *g, const struct origin *o)
{
	static const char *const lengths[] = { "LpNormalization", "ReduceL2", "RMSNormalization", "LayerNormalization", "SimplifiedLayerNormalization", NULL };

	for (int i = 0; o->projections && i < o->n; i++) {
		const struct node *n = value_node(g, o->seen[i]);

		if (n && op_among(n, lengths))
			return true;
	}
	return false;
}

/* A graph input, appended to or written into, among what k is made of. */
static bool is_cached(const struct graph *g, const struct origin *o)
{
	static const char *const writing[] = { "Concat", "ScatterElements", "ScatterND", "TensorScatter", "Where", NULL };

	for (int i = 0; i < o->n; i++) {
		const struct node *n = value_node(g, o->seen[i]);

		for (uint32_t k = 0; n && op_among(n, writing) && k < n->nin; k++)
			if (n->in[k] && g->value[n->in[k]].kind == VALUE_INPUT && dtype_in(g->value[n->in[k]].type.dt, FLOATS) &&
			    g->value[n->in[k]].type.shape.rank >= 3)
				return true;
	}
	return false;
}

/* ---- Masks ---- */

/* The graph inputs whose data v depends on: of the widest rank, floats and booleans told apart. */
struct sources {
	bool each_pair, each_key; /* inputs [..., L, S]; inputs with a number for each key */
	bool boolean;             /* of the former */
	int steps;
};

static void mask_sources(const struct graph *g, value_id v, struct origin *o, struct sources *s)
{
	const struct node *n = value_node(g, v);
	const struct type *t = &g->value[v].type;

	if (!v || o->n == MAX_SEEN || seen(o, v))
		return;
	o->seen[o->n++] = v;
	if (g->value[v].kind == VALUE_INPUT) {
		bool pair = t->shape.rank > 2 || (t->shape.rank == 2 && t->shape.d[0] == t->shape.d[1]);

		if (pair) {
			s->each_pair = true;
			s->boolean = t->dt == DT_BOOL;
		} else {
			s->each_key = true;
		}
	}
	for (uint32_t i = 0; n && !(n->op->flags & OP_SHAPE_ONLY) && i < n->nin; i++)
		mask_sources(g, n->in[i], o, s);
}

static double entry(const struct tensor *t, int64_t i)
{
	double x = tensor_get(t, i);

	if (t->dt == DT_BOOL)
		return x != 0 ? 0 : -INFINITY;
	return x <= MASK_HIDDEN ? -INFINITY : x;
}

/* Visible biases are a slope times the distance (or, which the softmax cannot tell from it, times the key's place), a slope a head. */
static bool is_alibi(const struct tensor *t)
{
	int64_t L = t->d[t->rank - 2], S = t->d[t->rank - 1];
	bool sloped = false;

	for (int64_t row = 0; S && row < t->n / S; row++) {
		int64_t own = row % L + S - L;
		double slope = 0;

		for (int64_t j = 1; j < S; j++) {
			double a = entry(t, row * S + j - 1), b = entry(t, row * S + j), d = b - a;

			if (!isfinite(a) || !isfinite(b))
				continue;
			if (j > own && d < 0 && slope > 0) /* to the right of the own key distances grow again */
				d = -d;
			if (d == 0 || (slope != 0 && fabs(d - slope) > 1e-3 * fabs(slope)))
				return false;
			slope = d;
			sloped = true;
		}
	}
	return sloped;
}

/* What the mask of entries t says without regard to padding. */
static void structure(const struct tensor *t, struct attention_group *f)
{
	int64_t L = t->d[t->rank - 2], S = t->d[t->rank - 1], left = 0, right = 0;
	bool within = true, plain = true, band = true, cut = false;
	double first = NAN;

	for (int64_t i = 0; i < t->n; i++) {
		double x = entry(t, i);

		if (x == -INFINITY)
			continue;
		first = isnan(first) ? x : first;
		plain = plain && x == first;
	}
	for (int64_t i = 0; i < t->n; i++) {
		int64_t own = i / S % L + S - L, j = i % S;

		if (entry(t, i) == -INFINITY)
			continue;
		within = within && j <= own;
		left = own - j > left ? own - j : left;
		right = j - own > right ? j - own : right;
	}
	for (int64_t i = 0; i < t->n; i++) {
		int64_t own = i / S % L + S - L, j = i % S;
		bool visible = entry(t, i) != -INFINITY;

		band = band && visible == (own - j <= left && j - own <= right);
		cut = cut || (!visible && own - j > left);
	}
	f->causal = f->causal || (within && L > 1);
	if (!plain)
		f->mask = is_alibi(t) ? "alibi" : "relative_bias";
	else if (band && cut) {
		f->mask = "sliding_window";
		f->window = within || f->causal ? left + 1 : left;
	}
}

static enum linnet_code describe_mask(const struct graph *g, value_id mask, struct attention_group *f, struct arena *a, struct linnet_error *e)
{
	struct sources s = { .steps = 0 };
	struct origin *o = NEW(a, 1, struct origin);
	const struct tensor *t;

	if (!o)
		return fail_mem(e);
	mask_sources(g, mask, o, &s);
	TRY(value_eval(g, mask, 0, true, a, &t, e));
	if (t && t->rank >= 2)
		structure(t, f);
	if (s.each_pair && !strcmp(f->mask, "none"))
		f->mask = s.boolean ? "boolean" : "additive";
	if (s.each_key) {
		if (strcmp(f->mask, "none"))
			f->padding = true;
		else
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

static enum linnet_code describe(const struct graph *g, const struct node *n, struct arena *a, struct attention_group *f, struct linnet_error *e)
{
	bool contrib = n->op->domain != NULL, same = true;
	value_id q = n->in[0], k = contrib ? input_named(n, "key") : n->in[1], mask;
	struct origin *from = NEW(a, 2, struct origin);
	int64_t window = node_attr(n, "left_window_size")->i, local = node_attr(n, "local_window_size")->i;
	const struct node *made;

	if (!from)
		return fail_mem(e);
	*f = (struct attention_group){ .mask = "none", .window = -1, .count = 1, .heads = -1 };
	if (contrib)
		contrib_sizes(g, n, f);
	else
		standard_sizes(g, n, f);
	trace(g, q, false, &from[0]);
	trace(g, k ? k : q, false, &from[1]);
	if (k && !same_source(g, q, k, a, &same))
		return fail_mem(e);
	f->causal = node_attr(n, "is_causal")->i || node_attr(n, "unidirectional")->i || is_ms(n, "GroupQueryAttention");
	f->scale = node_attr(n, "scale")->given && node_attr(n, "scale")->f != 0 ? node_attr(n, "scale")->f
	           : f->head_dim > 0                                             ? 1 / sqrt((double)f->head_dim)
	                                                                         : 0;
	f->softcap = node_attr(n, "softcap")->f;
	f->rope = node_attr(n, "do_rotary")->i || is_turned(g, &from[0]);
	f->qk_norm = is_normed(g, &from[0]) || input_named(n, "q_norm_weight");
	f->kv_cache = input_named(n, "past_key") || input_named(n, "past") || is_cached(g, &from[1]);
	f->sink = input_named(n, "head_sink") || node_attr(n, "smooth_softmax")->i > 0;
	mask = input_named(n, contrib ? "attention_bias" : "attn_mask");
	if (mask)
		TRY(describe_mask(g, mask, f, a, e));
	if (window < 0 && contrib && is_ms(n, "GroupQueryAttention") && local > 0)
		window = local - 1;
	if (node_attr(n, "left_window_size")->given ? window >= 0 : contrib && window > 0) {
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
	made = value_node(g, q);
	f->kind = kind_of(f, !same && !f->kv_cache, !(made && node_is(made, "Unsqueeze")));
	return LINNET_OK;
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

static bool describe_glu(const struct graph *g, const struct node *n, struct arena *a, struct glu_group *f)
{
	static const char *const words[][2] = { { "sigmoid", "glu" }, { "gelu", "geglu_erf" }, { "gelu_tanh", "geglu_tanh" }, { "swish", "swiglu" },
		                                { "relu", "reglu" }, { "identity", "bilinear" }, { NULL, NULL } };
	struct text act = node_attr(n, "activation")->s;

	*f = (struct glu_group){ .variant = "swiglu", .alpha = 1, .fused_weight = true, .count = 1 };
	if (is_ms(n, "BiasSplitGelu")) {
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

static bool is_glu(const struct node *n)
{
	return node_is(n, "SwiGLU") || is_ms(n, "BiasSplitGelu") || (n->op->domain && !strcmp(n->op->domain, "linnet") && !strcmp(n->op->name, "GLU"));
}

/* ---- All of a graph ---- */

static bool is_attention(const struct node *n)
{
	static const char *const names[] = { "Attention", "MultiHeadAttention", "GroupQueryAttention", "DecoderMaskedMultiHeadAttention",
		                             "DecoderMaskedSelfAttention", "QAttention", "PackedAttention", "PackedMultiHeadAttention", NULL };

	return node_is(n, "Attention") || (n->op->domain && !strcmp(n->op->domain, "com.microsoft") && op_among(n, names));
}

static int norm_of(const struct node *n)
{
	static const struct {
		const char *name;
		int kind;
	} kinds[] = { { "LayerNormalization", NORM_LAYER }, { "SkipLayerNormalization", NORM_LAYER }, { "EmbedLayerNormalization", NORM_LAYER },
		      { "RMSNormalization", NORM_RMS }, { "SimplifiedLayerNormalization", NORM_RMS },
		      { "SkipSimplifiedLayerNormalization", NORM_RMS }, { "GroupNormalization", NORM_GROUP }, { "GroupNorm", NORM_GROUP },
		      { "SkipGroupNorm", NORM_GROUP }, { "BatchNormalization", NORM_BATCH } };

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(n->op->name, kinds[i].name))
			return kinds[i].kind;
	return -1;
}

static bool same_words(const char *a, const char *b)
{
	return !strcmp(a, b);
}

static bool attention_alike(const struct attention_group *a, const struct attention_group *b)
{
	return same_words(a->kind, b->kind) && a->heads == b->heads && a->kv_heads == b->kv_heads && a->head_dim == b->head_dim &&
	       a->value_dim == b->value_dim && a->causal == b->causal && same_words(a->mask, b->mask) && a->padding == b->padding &&
	       a->window == b->window && fabs(a->scale - b->scale) <= 1e-6 * fabs(b->scale) && a->softcap == b->softcap && a->rope == b->rope &&
	       a->qk_norm == b->qk_norm && a->kv_cache == b->kv_cache && a->sink == b->sink;
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

static enum linnet_code collect(const struct graph *g, struct arena *a, struct recognised *out, struct linnet_error *e)
{
	for (node_id id = 1; id < g->nnode; id++) {
		const struct node *n = &g->node[id];
		int norm;

		if (n->dead)
			continue;
		for (uint32_t i = 0; i < n->nattr; i++)
			if (n->attr[i].kind == ATTR_GRAPH)
				TRY(collect(n->attr[i].g, a, out, e));
		norm = norm_of(n);
		if (norm >= 0)
			out->norm[norm]++;
		if (is_attention(n)) {
			struct attention_group f;

			TRY(describe(g, n, a, &f, e));
			TRY(add_attention(out, a, &f, e));
		}
		if (is_glu(n)) {
			struct glu_group f;

			if (!describe_glu(g, n, a, &f))
				return fail_mem(e);
			TRY(add_glu(out, a, &f, e));
		}
	}
	return LINNET_OK;
}

enum linnet_code graph_recognised(const struct graph *g, struct arena *a, struct recognised *out, struct linnet_error *e)
{
	memset(out, 0, sizeof *out);
	return collect(g, a, out, e);
}
