/*
 * Linear attention with a feature map and a normaliser.
 *
 *   y_i = sum_j f(q_i).f(k_j) v_j / sum_j f(q_i).f(k_j)     over the keys j that query i sees
 *   q [B, H, L, D], k [B, Hkv, S, D], v [B, Hkv, S, E]; f is the feature map, positive, F = D wide.
 *
 * The normaliser is one more column of the values, all ones, so one state [B, Hkv, F, E + 1] holds both sums.
 * Source: Katharopoulos et al., Transformers are RNNs, ICML 2020, section 3; the masks: Performer's and later practice of
 * multiplying key features by 0 and 1.
 */
#include <math.h>

#include "converter/convert.h"
#include "graph/mask.h"
#include "graph/template.h"
#include "ops/base/str.h"

/* ---- Mechanisms ---- */

static const struct mechanism elu = {
	.name = "elu",
	.doc = "elu(x) + 1",
	.source = "Katharopoulos et al. 2020, section 3.3",
	.map = "(float[B,H,T,D] x) => (float[B,H,T,D] y) {\n"
	       "  e = Elu (x)\n"
	       "  one = Constant <value_float = 1.0> ()\n"
	       "  y = Add (e, one) }",
};

static const struct mechanism relu = {
	.name = "relu",
	.doc = "max(x, 0)",
	.source = "Kasai et al. 2021, section 3, without the learned projection",
	.map = "(float[B,H,T,D] x) => (float[B,H,T,D] y) { y = Relu (x) }",
	.may_vanish = true,
};

static const struct mechanism exponential = {
	.name = "exp",
	.doc = "exp(x), with x clamped to at most 60",
	.source = "Choromanski et al. 2021, section 2; one-sided, without projection",
	.map = "(float[B,H,T,D] x) => (float[B,H,T,D] y) {\n"
	       "  top = Constant <value_float = 60.0> ()\n"
	       "  c = Min (x, top)\n"
	       "  y = Exp (c) }",
	.scaled = true,
};

const struct mechanism *const mechanisms[] = { &elu, &relu, &exponential, NULL };

/* ---- What can be carried over ---- */

/* Denominators of maps that can vanish stay above this. */
#define DENOMINATOR_FLOOR "1e-6"

enum { Q, K, V, MASK, PAST_K, PAST_V, NONPAD };

static value_id input(const struct node *n, uint32_t i)
{
	return i < n->nin ? n->in[i] : 0;
}

static double scale_of(const struct graph *g, const struct node *n)
{
	const struct attr *a = node_attr(n, "scale");

	return a->given ? a->f : 1 / sqrt((double)g->value[n->in[Q]].type.shape.d[3]);
}

static const char *why_not(const struct view *w, const struct node *n, enum target target, const struct mask *m)
{
	const struct graph *g = w->g;
	const struct shape *q = &g->value[n->in[Q]].type.shape, *k = &g->value[n->in[K]].type.shape,
	                   *v = &g->value[n->in[V]].type.shape;
	bool causal = node_attr(n, "is_causal")->i != 0;

	if (q->rank != 4 || k->rank != 4 || v->rank != 4)
		return "queries, keys and values are not laid out as [batch, heads, length, width]";
	if (!dim_is_int(q->d[1]) || !dim_is_int(k->d[1]) || !dim_is_int(q->d[3]) || !dim_is_int(v->d[3]) || k->d[1] <= 0 ||
	    q->d[1] % k->d[1])
		return "its number of heads or its widths are not known before running";
	if (input(n, PAST_K) || input(n, NONPAD))
		return "it reads a key/value cache; convert the model without the cache, target step makes its own state";
	if (n->nout > 1)
		for (uint32_t i = 1; i < n->nout; i++)
			if (n->out[i] && (value_uses(w, n->out[i]) || value_is_output(w, n->out[i])))
				return "its scores or caches are used outside attention; linear attention has no score matrix";
	if (node_attr(n, "left_window_size")->i >= 0 || node_attr(n, "right_window_size")->i >= 0)
		return "it looks through a sliding window; softmax over a window is already linear in the length";
	if (causal && q->d[2] != k->d[2])
		return "it is causal between sequences of different lengths";
	if (!causal && target == TARGET_STEP)
		return "it is not causal; it can be linear but not recurrent";
	if (input(n, MASK)) {
		const struct shape *s = &g->value[n->in[MASK]].type.shape;
		bool key_only = s->rank < 2 || s->d[s->rank - 2] == 1;

		if (!key_only && !(m->known && m->by_key))
			return m->known ? "its mask or bias is not a function of the key alone" : "its mask is not known until run time";
		if (s->rank == 4 && s->d[1] != 1 && s->d[1] != k->d[1])
			return "its mask differs between the query heads of one key head";
		if (target == TARGET_STEP && !key_only)
			return "its padding mask is over the whole sequence; a step model sees one token";
		if (target == TARGET_STEP)
			return "it has a padding mask; a step model skips padding by not being run on it";
	}
	return NULL;
}

enum linnet_code linear_check(const struct view *w, const struct node *n, enum target target, struct convert_item *item,
                              struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *q = &g->value[n->in[Q]].type.shape, *k = &g->value[n->in[K]].type.shape,
	                   *v = &g->value[n->in[V]].type.shape;
	struct mask m = { .known = false };

	if (input(n, MASK))
		TRY(mask_classify(g, n->in[MASK], &m, e));
	item->node = n->name;
	item->causal = node_attr(n, "is_causal")->i != 0;
	item->reason = why_not(w, n, target, &m);
	if (q->rank == 4 && k->rank == 4 && v->rank == 4) {
		item->heads = q->d[1];
		item->kv_heads = k->d[1];
		item->width = q->d[3];
		item->value_width = v->d[3];
		if (!item->reason)
			item->state_numbers = item->kv_heads * item->width * (item->value_width + 1);
	}
	return LINNET_OK;
}

/* ---- The forms: o [B, H, T, E1] from fq [B, H, T, F], fk [B, G, S, F], v [B, G, S, E1], G key heads, R = H / G ---- */

struct sizes {
	long long B, H, G, R, F, E1, C;
};

/* Every query sees every key: S = fk^T v once, o = fq S. */
static void form_all(struct str *t, const struct sizes *z)
{
	str_add(t, "(float[B,H,T,F] q, float[B,G,S,F] k, float[B,G,S,E] v) => (float[B,H,T,E] o) {\n"
	           "  kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
	           "  s = MatMul (kt, v)\n");
	if (z->R > 1)
		str_addf(t, "  axis = Constant <value_ints = [2]> ()\n"
		            "  s5 = Unsqueeze (s, axis)\n"
		            "  times = Constant <value_ints = [1, 1, %lld, 1, 1]> ()\n"
		            "  sr = Expand (s5, times)\n"
		            "  heads = Constant <value_ints = [0, %lld, %lld, %lld]> ()\n"
		            "  sh = Reshape (sr, heads)\n"
		            "  o = MatMul (q, sh) }",
		         z->R, z->H, z->F, z->E1);
	else
		str_add(t, "  o = MatMul (q, s) }");
}

/* The operator, which takes packed heads [B, T, H F]. */
static void form_operator(struct str *t, const struct sizes *z, bool microsoft)
{
	str_addf(t, "(float[B,H,T,F] q, float[B,G,T,F] k, float[B,G,T,E] v) => (float[B,H,T,E] o) {\n"
	            "  qt = Transpose <perm = [0, 2, 1, 3]> (q)\n"
	            "  kt = Transpose <perm = [0, 2, 1, 3]> (k)\n"
	            "  vt = Transpose <perm = [0, 2, 1, 3]> (v)\n"
	            "  qs = Constant <value_ints = [0, 0, %lld]> ()\n"
	            "  ks = Constant <value_ints = [0, 0, %lld]> ()\n"
	            "  vs = Constant <value_ints = [0, 0, %lld]> ()\n"
	            "  q3 = Reshape (qt, qs)\n"
	            "  k3 = Reshape (kt, ks)\n"
	            "  v3 = Reshape (vt, vs)\n"
	            "  o3, state = %sLinearAttention <update_rule = \"linear\", scale = 1.0, q_num_heads = %lld, kv_num_heads = %lld> "
	            "(q3, k3, v3)\n"
	            "  os = Constant <value_ints = [0, 0, %lld, %lld]> ()\n"
	            "  ot = Reshape (o3, os)\n"
	            "  o = Transpose <perm = [0, 2, 1, 3]> (ot) }",
	         z->H * z->F, z->G * z->F, z->G * z->E1, microsoft ? "com.microsoft." : "", z->H, z->G, z->H, z->E1);
}

/*
 * Chunks of C tokens, zeros behind the last: o = q S + tril(q k^T) v, S <- S + k^T v. The padding adds nothing to S and its rows are cut
 * off. There is always at least one chunk, so a length of 0 needs no case of its own.
 */
static void form_chunks(struct str *t, const struct sizes *z)
{
	str_addf(t,
	         "(float[B,H,T,F] q, float[B,G,T,F] k, float[B,G,T,E] v) => (float[B,H,T,E] o) {\n"
	         "  t = Shape <start = 2, end = 3> (k)\n"
	         "  b = Shape <start = 0, end = 1> (k)\n"
	         "  c = Constant <value_ints = [%lld]> ()\n"
	         "  less = Constant <value_ints = [%lld]> ()\n"
	         "  one = Constant <value_ints = [1]> ()\n"
	         "  up = Add (t, less)\n"
	         "  chunks = Div (up, c)\n"
	         "  n = Max (chunks, one)\n"
	         "  all = Mul (n, c)\n"
	         "  rest = Sub (all, t)\n"
	         "  front = Constant <value_ints = [0, 0, 0, 0, 0, 0]> ()\n"
	         "  last = Constant <value_ints = [0]> ()\n"
	         "  pads = Concat <axis = 0> (front, rest, last)\n"
	         "  qp = Pad (q, pads)\n"
	         "  kp = Pad (k, pads)\n"
	         "  vp = Pad (v, pads)\n",
	         z->C, z->C - 1);
	str_addf(t,
	         "  qg = Constant <value_ints = [%lld, %lld]> ()\n"
	         "  kg = Constant <value_ints = [%lld, 1]> ()\n"
	         "  cf = Constant <value_ints = [%lld, %lld]> ()\n"
	         "  ce = Constant <value_ints = [%lld, %lld]> ()\n"
	         "  qshape = Concat <axis = 0> (b, qg, n, cf)\n"
	         "  kshape = Concat <axis = 0> (b, kg, n, cf)\n"
	         "  vshape = Concat <axis = 0> (b, kg, n, ce)\n"
	         "  q6 = Reshape (qp, qshape)\n"
	         "  k6 = Reshape (kp, kshape)\n"
	         "  v6 = Reshape (vp, vshape)\n"
	         "  qc = Transpose <perm = [3, 0, 1, 2, 4, 5]> (q6)\n"
	         "  kc = Transpose <perm = [3, 0, 1, 2, 4, 5]> (k6)\n"
	         "  vc = Transpose <perm = [3, 0, 1, 2, 4, 5]> (v6)\n",
	         z->G, z->R, z->G, z->C, z->F, z->C, z->E1);
	str_addf(t,
	         "  fe = Constant <value_ints = [%lld, %lld]> ()\n"
	         "  sshape = Concat <axis = 0> (b, kg, fe)\n"
	         "  zero = Constant <value_float = 0.0> ()\n"
	         "  s0 = Expand (zero, sshape)\n"
	         "  s1, oc = Scan <num_scan_inputs = 3, body = chunk (float[B,G,U,F,E] s, float[B,G,R,C,F] qi, float[B,G,U,C,F] ki, "
	         "float[B,G,U,C,E] vi) => (float[B,G,U,F,E] snext, float[B,G,R,C,E] oi) {\n"
	         "    kt = Transpose <perm = [0, 1, 2, 4, 3]> (ki)\n"
	         "    a = MatMul (qi, kt)\n"
	         "    seen = Trilu <upper = 0> (a)\n"
	         "    near = MatMul (seen, vi)\n"
	         "    far = MatMul (qi, s)\n"
	         "    oi = Add (near, far)\n"
	         "    ds = MatMul (kt, vi)\n"
	         "    snext = Add (s, ds) }> (s0, qc, kc, vc)\n"
	         "  o6 = Transpose <perm = [1, 2, 3, 0, 4, 5]> (oc)\n"
	         "  h = Constant <value_ints = [%lld]> ()\n"
	         "  e = Constant <value_ints = [%lld]> ()\n"
	         "  oshape = Concat <axis = 0> (b, h, all, e)\n"
	         "  op = Reshape (o6, oshape)\n"
	         "  axis = Constant <value_ints = [2]> ()\n"
	         "  o = Slice (op, last, t, axis) }",
	         z->F, z->E1, z->H, z->E1);
}

/* One chunk of whatever length with the state [B, G, F, E1] in and out; of length 1 it is the recurrence. */
static void form_step(struct str *t, const struct sizes *z)
{
	str_addf(t,
	         "(float[B,H,T,F] q, float[B,G,T,F] k, float[B,G,T,E] v, float[B,G,F,E] past) => (float[B,H,T,E] o, float[B,G,F,E] present) {\n"
	         "  kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
	         "  ds = MatMul (kt, v)\n"
	         "  present = Add (past, ds)\n");
	if (z->R == 1) {
		str_add(t, "  a = MatMul (q, kt)\n"
		           "  seen = Trilu <upper = 0> (a)\n"
		           "  near = MatMul (seen, v)\n"
		           "  far = MatMul (q, past)\n"
		           "  o = Add (near, far) }");
		return;
	}
	str_addf(t,
	         "  t = Shape <start = 2, end = 3> (k)\n"
	         "  b = Shape <start = 0, end = 1> (k)\n"
	         "  gr = Constant <value_ints = [%lld, %lld]> ()\n"
	         "  f = Constant <value_ints = [%lld]> ()\n"
	         "  qshape = Concat <axis = 0> (b, gr, t, f)\n"
	         "  q5 = Reshape <allowzero = 1> (q, qshape)\n"
	         "  axis = Constant <value_ints = [2]> ()\n"
	         "  kt5 = Unsqueeze (kt, axis)\n"
	         "  v5 = Unsqueeze (v, axis)\n"
	         "  s5 = Unsqueeze (past, axis)\n"
	         "  a = MatMul (q5, kt5)\n"
	         "  seen = Trilu <upper = 0> (a)\n"
	         "  near = MatMul (seen, v5)\n"
	         "  far = MatMul (q5, s5)\n"
	         "  o5 = Add (near, far)\n"
	         "  h = Constant <value_ints = [%lld]> ()\n"
	         "  e = Constant <value_ints = [%lld]> ()\n"
	         "  oshape = Concat <axis = 0> (b, h, t, e)\n"
	         "  o = Reshape <allowzero = 1> (o5, oshape) }",
	         z->G, z->R, z->F, z->H, z->E1);
}

/* ---- Around the form ---- */

static enum linnet_code features(struct patch *p, const struct mechanism *m, value_id x, double scale, enum dtype dt,
                                 const char *hint, value_id *out, struct linnet_error *e)
{
	if (m->scaled && scale != 1)
		x = patch_node(p, "Mul", hint, PATCH_IN(x, patch_float(p, dt, sqrt(scale), "scale")), 1, NULL);
	return template_apply(p, m->map, &x, out, dt, hint, e);
}

/* Key features times what the mask leaves of their weight: 0 or 1, or exp(bias). The mask says it per key. */
static enum linnet_code mask_keys(struct patch *p, const struct node *n, enum dtype dt, const char *hint, value_id *fk,
                                  struct linnet_error *e)
{
	static const char boolean[] = "(float[B,G,S,F] k, bool[a,b,c,d] m) => (float[B,G,S,F] o) {\n"
	                              "  w = CastLike (m, k)\n"
	                              "  axis = Constant <value_ints = [2]> ()\n"
	                              "  last = ReduceMax (w, axis)\n"
	                              "  t = Transpose <perm = [0, 1, 3, 2]> (last)\n"
	                              "  o = Mul (k, t) }";
	static const char additive[] = "(float[B,G,S,F] k, float[a,b,c,d] m) => (float[B,G,S,F] o) {\n"
	                               "  axis = Constant <value_ints = [2]> ()\n"
	                               "  last = ReduceMax (m, axis)\n"
	                               "  w = Exp (last)\n"
	                               "  t = Transpose <perm = [0, 1, 3, 2]> (w)\n"
	                               "  o = Mul (k, t) }";
	const struct type *t = &p->g->value[n->in[MASK]].type;
	value_id in[2] = { *fk, n->in[MASK] };

	if (t->shape.rank < 4) {
		int64_t axes[4] = { 0, 1, 2, 3 };

		in[1] = patch_node(p, "Unsqueeze", hint, PATCH_IN(in[1], patch_ints(p, axes, 4 - t->shape.rank, "axes")), 1, NULL);
	}
	return template_apply(p, t->dt == DT_BOOL ? boolean : additive, in, fk, dt, hint, e);
}

/* [v, 1]: the normaliser's column. */
static const char with_ones[] = "(float[B,G,S,E] v) => (float[B,G,S,F] o) {\n"
                                "  lead = Shape <start = 0, end = 3> (v)\n"
                                "  width = Constant <value_ints = [1]> ()\n"
                                "  shape = Concat <axis = 0> (lead, width)\n"
                                "  one = Constant <value_float = 1.0> ()\n"
                                "  ones = Expand (one, shape)\n"
                                "  o = Concat <axis = 3> (v, ones) }";

static void division(struct str *t, long long width, bool floor)
{
	str_addf(t, "(float[B,H,T,F] o) => (float[B,H,T,E] y) {\n"
	            "  parts = Constant <value_ints = [%lld, 1]> ()\n"
	            "  num, den = Split <axis = 3> (o, parts)\n",
	         width);
	if (floor)
		str_add(t, "  low = Constant <value_float = " DENOMINATOR_FLOOR "> ()\n"
		           "  safe = Max (den, low)\n"
		           "  y = Div (num, safe) }");
	else
		str_add(t, "  y = Div (num, den) }");
}

enum linnet_code linear_apply(const struct view *w, const struct node *n, const struct convert_opt *opt, value_id past,
                              value_id *present, struct patch *p, struct linnet_error *e)
{
	const struct graph *g = w->g;
	const struct shape *q = &g->value[n->in[Q]].type.shape, *k = &g->value[n->in[K]].type.shape,
	                   *v = &g->value[n->in[V]].type.shape;
	enum dtype dt = g->value[n->in[Q]].type.dt;
	const char *hint = *n->name ? n->name : "attention";
	struct sizes z = { .H = q->d[1], .G = k->d[1], .R = q->d[1] / k->d[1], .F = q->d[3], .E1 = v->d[3] + 1,
	                   .C = opt->chunk ? opt->chunk : 64 };
	value_id in[4] = { 0, 0, 0, past }, out[2] = { 0, 0 }, y;
	struct str t;

	TRY(features(p, opt->mechanism, n->in[Q], scale_of(g, n), dt, hint, &in[0], e));
	TRY(features(p, opt->mechanism, n->in[K], scale_of(g, n), dt, hint, &in[1], e));
	if (input(n, MASK))
		TRY(mask_keys(p, n, dt, hint, &in[1], e));
	TRY(template_apply(p, with_ones, &n->in[V], &in[2], dt, hint, e));
	str_init(&t, w->scratch);
	if (!node_attr(n, "is_causal")->i)
		form_all(&t, &z);
	else if (opt->target == TARGET_PORTABLE)
		form_chunks(&t, &z);
	else if (opt->target == TARGET_STEP)
		form_step(&t, &z);
	else
		form_operator(&t, &z, opt->target == TARGET_ORT);
	if (!str_done(&t))
		return fail_mem(e);
	TRY(template_apply(p, t.p, in, out, dt, hint, e));
	str_init(&t, w->scratch);
	division(&t, z.E1 - 1, opt->mechanism->may_vanish);
	if (!str_done(&t))
		return fail_mem(e);
	TRY(template_apply(p, t.p, out, &y, dt, hint, e));
	patch_replace(p, n->out[0], y);
	if (present)
		*present = out[1];
	return p->code;
}
