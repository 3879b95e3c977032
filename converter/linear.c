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
#include <stdio.h>
#include <string.h>

#include "converter/build.h"
#include "graph/template.h"
#include "ops/base/str.h"

/* ---- Mechanisms ---- */

struct binding {
	const struct graph *g;                        /* of the map */
	struct tensor *const *parameter;
	int64_t width;
};

/* The length a symbol of the map stands for: D, or one of the parameters'. */
static dim bound(void *ctx, const char *name)
{
	const struct binding *b = ctx;

	if (!strcmp(name, "D"))
		return b->width;
	for (uint32_t i = 1; i < b->g->nin; i++) {
		const struct shape *s = &b->g->value[b->g->in[i]].type.shape;

		for (int k = 0; k < s->rank; k++)
			if (dim_is_expr(s->d[k]) && s->d[k] == dim_symbol(b->g->dims, name))
				return b->parameter[i - 1]->d[k];
	}
	return DIM_NONE;
}

static enum linnet_code make_parameters(const struct mechanism *m, const struct map_use *u, struct tensor **out, int *n, struct linnet_error *e)
{
	*n = 0;
	return m->parameters ? m->parameters(u, out, n, e) : LINNET_OK;
}

enum linnet_code mechanism_features(const struct mechanism *m, const struct map_use *u, int64_t *features, struct linnet_error *e)
{
	struct tensor *parameter[MAX_PARAMETERS];
	struct graph *g;
	int n;
	dim F;

	TRY(make_parameters(m, u, parameter, &n, e));
	TRY(template_parse(m->map, u->arena, &g, e));
	if (g->nin != 1 + (uint32_t)n || g->nout != 1 || g->value[g->out[0]].type.shape.rank != 4)
		return fail(e, LINNET_EUSAGE, "the map of mechanism %s takes %u inputs and gives %u values; expected x [B, H, T, D] and y [B, H, T, F]", m->name,
		            g->nin, g->nout);
	F = dim_eval(g->dims, g->value[g->out[0]].type.shape.d[3], bound, &(struct binding){ g, parameter, u->width });
	if (F == DIM_NONE || F <= 0)
		return fail(e, LINNET_EUSAGE, "the number of features of mechanism %s is not known from the width of a head", m->name);
	if (F > 1 << 20)
		return fail(e, LINNET_ELIMIT, "mechanism %s makes %lld features of heads of width %lld; at most %d are made", m->name, (long long)F,
		            (long long)u->width, 1 << 20);
	*features = F;
	return LINNET_OK;
}

static struct map_use use_of(const struct convert_opt *opt, struct arena *a, enum dtype dt, int64_t heads, int64_t width, uint32_t layer)
{
	return (struct map_use){ .arena = a, .dt = dt, .heads = heads, .width = width, .features = opt->features, .degree = opt->degree,
		                 .horizon = opt->horizon ? opt->horizon : 2048, .seed = (opt->seed ? opt->seed : 1) * 1000003 + layer };
}

const struct fade *fade_of(const struct convert_opt *opt)
{
	const char *name = opt->fade ? opt->fade : opt->mechanism->fade;

	return !name || !strcmp(name, "none") ? NULL : opt->decay > 0 ? &fixed_fade : fade_find(name);
}

enum normaliser normaliser_of(const struct convert_opt *opt)
{
	for (int i = 0; opt->norm && i <= NORM_NONE; i++)
		if (!strcmp(opt->norm, normaliser_names[i]))
			return (enum normaliser)i;
	return (enum normaliser)opt->mechanism->normaliser;
}

/* Denominators of maps that can vanish stay above this. */
#define DENOMINATOR_FLOOR "1e-6"
/* And others where a mask may hide all keys. */
#define MASKED_FLOOR "1e-30"

/* ---- The forms: o [B, H, T, E1] from fq [B, H, T, F], fk [B, G, S, F], v [B, G, S, E1], G key heads, R = H / G ---- */

struct sizes {
	long long H, G, R, F, E1, C;
	bool fade;
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

/* The operator, which takes packed heads [B, T, H F]; g: [1, 1, G], logs of what is left after each token. */
static void form_operator(struct str *t, const struct sizes *z, bool microsoft)
{
	str_addf(t, "(float[B,H,T,F] q, float[B,G,T,F] k, float[B,G,T,E] v%s) => (float[B,H,T,E] o) {\n"
	            "  qt = Transpose <perm = [0, 2, 1, 3]> (q)\n"
	            "  kt = Transpose <perm = [0, 2, 1, 3]> (k)\n"
	            "  vt = Transpose <perm = [0, 2, 1, 3]> (v)\n"
	            "  qs = Constant <value_ints = [0, 0, %lld]> ()\n"
	            "  ks = Constant <value_ints = [0, 0, %lld]> ()\n"
	            "  vs = Constant <value_ints = [0, 0, %lld]> ()\n"
	            "  q3 = Reshape (qt, qs)\n"
	            "  k3 = Reshape (kt, ks)\n"
	            "  v3 = Reshape (vt, vs)\n",
	         z->fade ? ", float[a,b,G] g" : "", z->H * z->F, z->G * z->F, z->G * z->E1);
	if (z->fade)
		str_addf(t, "  lead = Shape <start = 0, end = 2> (k3)\n"
		            "  heads = Constant <value_ints = [%lld]> ()\n"
		            "  gshape = Concat <axis = 0> (lead, heads)\n"
		            "  decay = Expand (g, gshape)\n",
		         z->G);
	str_addf(t, "  o3, state = %sLinearAttention <update_rule = \"%s\", scale = 1.0, q_num_heads = %lld, kv_num_heads = %lld> "
	            "(q3, k3, v3%s)\n"
	            "  os = Constant <value_ints = [0, 0, %lld, %lld]> ()\n"
	            "  ot = Reshape (o3, os)\n"
	            "  o = Transpose <perm = [0, 2, 1, 3]> (ot) }",
	         microsoft ? "com.microsoft." : "", z->fade ? "gated" : "linear", z->H, z->G, z->fade ? ", \"\", decay" : "", z->H, z->E1);
}

/*
 * Chunks of C tokens, zeros behind the last: o = q S + tril(q k^T) v, S <- S + k^T v. The padding adds nothing to S and its rows are cut
 * off. There is always at least one chunk, so a length of 0 needs no case of its own.
 * What fades: o = (w q) S + (D * q k^T) v, S <- z S + (u k)^T v, with D_ij what is left of token j at i, w_i of what came before the chunk,
 * u_j of token j and z of S at its end. Scan carries them along unchanged, since its body may not see outside. Source: linear attention in chunks,
 * Sun et al. 2023, section 2.3.
 */
static void form_chunks(struct str *t, const struct sizes *z)
{
	str_addf(t,
	         "(float[B,H,T,F] q, float[B,G,T,F] k, float[B,G,T,E] v%s) => (float[B,H,T,E] o) {\n"
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
	         z->fade ? ", float[1,G,1,C,C] D, float[1,G,1,C,1] w, float[1,G,1,C,1] u, float[1,G,1,1,1] z" : "", z->C, z->C - 1);
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
	         "  s0 = Expand (zero, sshape)\n",
	         z->F, z->E1);
	if (z->fade)
		str_add(t, "  s1, D1, w1, u1, z1, oc = Scan <num_scan_inputs = 3, body = chunk (float[B,G,U,F,E] s, float[X,G,X,C,C] D, "
		           "float[X,G,X,C,X] w, float[X,G,X,C,X] u, float[X,G,X,X,X] z, float[B,G,R,C,F] qi, float[B,G,U,C,F] ki, "
		           "float[B,G,U,C,E] vi) => (float[B,G,U,F,E] snext, float[X,G,X,C,C] Dn, float[X,G,X,C,X] wn, float[X,G,X,C,X] un, "
		           "float[X,G,X,X,X] zn, float[B,G,R,C,E] oi) {\n"
		           "    kt = Transpose <perm = [0, 1, 2, 4, 3]> (ki)\n"
		           "    a = MatMul (qi, kt)\n"
		           "    seen = Mul (a, D)\n"
		           "    near = MatMul (seen, vi)\n"
		           "    qw = Mul (qi, w)\n"
		           "    far = MatMul (qw, s)\n"
		           "    oi = Add (near, far)\n"
		           "    ku = Mul (ki, u)\n"
		           "    kut = Transpose <perm = [0, 1, 2, 4, 3]> (ku)\n"
		           "    ds = MatMul (kut, vi)\n"
		           "    sz = Mul (s, z)\n"
		           "    snext = Add (sz, ds)\n"
		           "    Dn = Identity (D)\n"
		           "    wn = Identity (w)\n"
		           "    un = Identity (u)\n"
		           "    zn = Identity (z) }> (s0, D, w, u, z, qc, kc, vc)\n");
	else
		str_add(t, "  s1, oc = Scan <num_scan_inputs = 3, body = chunk (float[B,G,U,F,E] s, float[B,G,R,C,F] qi, float[B,G,U,C,F] ki, "
		           "float[B,G,U,C,E] vi) => (float[B,G,U,F,E] snext, float[B,G,R,C,E] oi) {\n"
		           "    kt = Transpose <perm = [0, 1, 2, 4, 3]> (ki)\n"
		           "    a = MatMul (qi, kt)\n"
		           "    seen = Trilu <upper = 0> (a)\n"
		           "    near = MatMul (seen, vi)\n"
		           "    far = MatMul (qi, s)\n"
		           "    oi = Add (near, far)\n"
		           "    ds = MatMul (kt, vi)\n"
		           "    snext = Add (s, ds) }> (s0, qc, kc, vc)\n");
	str_addf(t,
	         "  o6 = Transpose <perm = [1, 2, 3, 0, 4, 5]> (oc)\n"
	         "  h = Constant <value_ints = [%lld]> ()\n"
	         "  e = Constant <value_ints = [%lld]> ()\n"
	         "  oshape = Concat <axis = 0> (b, h, all, e)\n"
	         "  op = Reshape (o6, oshape)\n"
	         "  axis = Constant <value_ints = [2]> ()\n"
	         "  o = Slice (op, last, t, axis) }",
	         z->H, z->E1);
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

/* The same when the past fades; g: [1, G, 1, 1]. Tokens count from 1, so D_ij = exp(g (i - j)), w_i = exp(g i), u_j = exp(g (T - j)). */
static void form_fading_step(struct str *t, const struct sizes *z)
{
	str_addf(t,
	         "(float[B,H,T,F] q, float[B,G,T,F] k, float[B,G,T,E] v, float[B,G,F,E] past, float[x,G,y,z] g) => (float[B,H,T,E] o, "
	         "float[B,G,F,E] present) {\n"
	         "  t = Shape <start = 2, end = 3> (k)\n"
	         "  b = Shape <start = 0, end = 1> (k)\n"
	         "  ts = Squeeze (t)\n"
	         "  one = Constant <value_int = 1> ()\n"
	         "  end = Add (ts, one)\n"
	         "  index = Range (one, end, one)\n"
	         "  i = CastLike (index, q)\n"
	         "  n = CastLike (ts, q)\n"
	         "  first = Constant <value_ints = [0]> ()\n"
	         "  second = Constant <value_ints = [1]> ()\n"
	         "  axis = Constant <value_ints = [2]> ()\n"
	         "  column = Unsqueeze (i, second)\n"
	         "  row = Unsqueeze (i, first)\n"
	         "  apart = Sub (column, row)\n"
	         "  none = Constant <value_float = 0.0> ()\n"
	         "  later = Max (apart, none)\n"
	         "  gl = Mul (g, later)\n"
	         "  el = Exp (gl)\n"
	         "  D4 = Trilu <upper = 0> (el)\n"
	         "  D = Unsqueeze (D4, axis)\n"
	         "  gi = Mul (g, column)\n"
	         "  w4 = Exp (gi)\n"
	         "  w = Unsqueeze (w4, axis)\n"
	         "  left = Sub (n, column)\n"
	         "  gu = Mul (g, left)\n"
	         "  u = Exp (gu)\n"
	         "  gn = Mul (g, n)\n"
	         "  z = Exp (gn)\n"
	         "  ku = Mul (k, u)\n"
	         "  kut = Transpose <perm = [0, 1, 3, 2]> (ku)\n"
	         "  ds = MatMul (kut, v)\n"
	         "  sz = Mul (past, z)\n"
	         "  present = Add (sz, ds)\n");
	str_addf(t,
	         "  gr = Constant <value_ints = [%lld, %lld]> ()\n"
	         "  f = Constant <value_ints = [%lld]> ()\n"
	         "  qshape = Concat <axis = 0> (b, gr, t, f)\n"
	         "  q5 = Reshape <allowzero = 1> (q, qshape)\n"
	         "  kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
	         "  kt5 = Unsqueeze (kt, axis)\n"
	         "  v5 = Unsqueeze (v, axis)\n"
	         "  s5 = Unsqueeze (past, axis)\n"
	         "  a = MatMul (q5, kt5)\n"
	         "  seen = Mul (a, D)\n"
	         "  near = MatMul (seen, v5)\n"
	         "  qw = Mul (q5, w)\n"
	         "  far = MatMul (qw, s5)\n"
	         "  o5 = Add (near, far)\n"
	         "  h = Constant <value_ints = [%lld]> ()\n"
	         "  e = Constant <value_ints = [%lld]> ()\n"
	         "  oshape = Concat <axis = 0> (b, h, t, e)\n"
	         "  o = Reshape <allowzero = 1> (o5, oshape) }",
	         z->G, z->R, z->F, z->H, z->E1);
}

/* The constants of a fading form, as its template takes them behind q, k, v (and past). */
static enum linnet_code fading(struct patch *p, const struct convert_opt *opt, const struct fade *f, enum target target, const struct sizes *z, enum dtype dt, value_id *out,
                               struct linnet_error *e)
{
	int64_t G = z->G, C = z->C;
	struct tensor *D, *w, *u, *end;

	if (target != TARGET_PORTABLE) {
		TRY(target == TARGET_STEP ? tensor_new(p->arena, dt, 4, (int64_t[]){ 1, G, 1, 1 }, &D, e)
		                          : tensor_new(p->arena, dt, 3, (int64_t[]){ 1, 1, G }, &D, e));
		for (int64_t h = 0; h < G; h++)
			tensor_put(D, h, f->log_factor(opt, h, G));
		out[0] = patch_const(p, D, "fade");
		return LINNET_OK;
	}
	TRY(tensor_new(p->arena, dt, 5, (int64_t[]){ 1, G, 1, C, C }, &D, e));
	TRY(tensor_new(p->arena, dt, 5, (int64_t[]){ 1, G, 1, C, 1 }, &w, e));
	TRY(tensor_new(p->arena, dt, 5, (int64_t[]){ 1, G, 1, C, 1 }, &u, e));
	TRY(tensor_new(p->arena, dt, 5, (int64_t[]){ 1, G, 1, 1, 1 }, &end, e));
	for (int64_t h = 0; h < G; h++) {
		double g = f->log_factor(opt, h, G);

		for (int64_t i = 0; i < C; i++) {
			for (int64_t j = 0; j <= i; j++)
				tensor_put(D, (h * C + i) * C + j, exp(g * (double)(i - j)));
			tensor_put(w, h * C + i, exp(g * (double)(i + 1)));
			tensor_put(u, h * C + i, exp(g * (double)(C - 1 - i)));
		}
		tensor_put(end, h, exp(g * (double)C));
	}
	out[0] = patch_const(p, D, "fade");
	out[1] = patch_const(p, w, "fade");
	out[2] = patch_const(p, u, "fade");
	out[3] = patch_const(p, end, "fade");
	return LINNET_OK;
}

/* ---- Around the form ---- */

/* Its parameters are called <layer>.<side>_<as in the map>. */
static enum linnet_code map_of(struct build *b, value_id x, char side, int64_t heads, value_id *out, struct linnet_error *e)
{
	const struct mechanism *m = b->m;
	const struct map_use u = use_of(b->opt, b->p->arena, b->dt, heads, b->D, b->layer);
	struct tensor *parameter[MAX_PARAMETERS];
	value_id in[1 + MAX_PARAMETERS];
	struct graph *g;
	char name[40];
	int n;

	TRY(mechanism_features(m, &u, &b->features, e));
	if (m->scaled && b->scale != 1)
		x = patch_node(b->p, "Mul", b->hint, PATCH_IN(x, patch_float(b->p, u.dt, sqrt(b->scale), "scale")), 1, NULL);
	in[0] = x;
	TRY(make_parameters(m, &u, parameter, &n, e));
	TRY(template_parse(m->map, b->scratch, &g, e));
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof name, "%c_%s", side, g->value[g->in[1 + i]].name);
		in[1 + i] = build_param(b, name, parameter[i]);
	}
	return template_add(b->p, g, in, out, u.dt, b->hint, e);
}

value_id linear_map(struct build *b, value_id x, char side, int64_t heads)
{
	value_id y = 0;

	if (!b->p->code)
		b->p->code = map_of(b, x, side, heads, &y, b->e);
	return y;
}

/* The mask says it per key: 0 or 1, or exp(bias). */
value_id build_hide(struct build *b, value_id x)
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
	value_id m = b->own_mask;
	const struct type *t = &b->g->value[b->mask].type;

	if (!m || !x)
		return x;
	if (t->shape.rank < 4) {
		int64_t axes[4] = { 0, 1, 2, 3 };

		m = patch_node(b->p, "Unsqueeze", b->hint, PATCH_IN(m, patch_ints(b->p, axes, 4 - t->shape.rank, "axes")), 1, NULL);
	}
	return build_value(b, t->dt == DT_BOOL || b->sloped_mask ? boolean : additive, BUILD_IN(x, m));
}

/* The normaliser's column. */
value_id linear_ones(struct build *b, value_id v)
{
	return build_value(b, "(float[B,G,S,E] v) => (float[B,G,S,F] o) {\n"
	                      "  lead = Shape <start = 0, end = 3> (v)\n"
	                      "  width = Constant <value_ints = [1]> ()\n"
	                      "  shape = Concat <axis = 0> (lead, width)\n"
	                      "  one = Constant <value_float = 1.0> ()\n"
	                      "  ones = Expand (one, shape)\n"
	                      "  o = Concat <axis = 3> (v, ones) }", &v);
}

value_id linear_divided(struct build *b, value_id o)
{
	struct str t;

	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,F] o) => (float[B,H,T,E] y) {\n"
	             "  parts = Constant <value_ints = [%lld, 1]> ()\n"
	             "  num, den = Split <axis = 3> (o, parts)\n",
	         (long long)b->E);
	str_add(&t, b->m->may_vanish ? "  low = Constant <value_float = " DENOMINATOR_FLOOR "> ()\n"
	                               "  safe = Max (den, low)\n"
	                               "  y = Div (num, safe) }"
	               : b->mask      ? "  low = Constant <value_float = " MASKED_FLOOR "> ()\n"
	                                "  safe = Max (den, low)\n"
	                                "  y = Div (num, safe) }"
	                             : "  y = Div (num, den) }");
	return build_value(b, str_done(&t), &o);
}

/* What keeps o to scale. */
static enum linnet_code to_scale(struct build *b, value_id o, value_id *y)
{
	switch (normaliser_of(b->opt)) {
	case NORM_RATIO: *y = linear_divided(b, o); break;
	case NORM_NONE: *y = o; break;
	default: *y = build_norm(b, o, normaliser_of(b->opt) == NORM_GROUP);
	}
	return b->p->code;
}

enum linnet_code linear_build(struct build *b, value_id *y, struct linnet_error *e)
{
	const struct fade *fade = fade_of(b->opt);
	bool ones = normaliser_of(b->opt) == NORM_RATIO;
	struct sizes z = { .H = b->H, .G = b->G, .R = b->R, .E1 = b->E + ones,
	                   .C = b->opt->chunk ? b->opt->chunk : 64, .fade = fade != NULL };
	value_id in[8] = { 0, 0, b->v }, out[2] = { 0, 0 };
	struct str t;

	in[0] = linear_map(b, b->q, 'q', b->H);
	in[1] = linear_map(b, b->k, 'k', b->G);
	z.F = b->features;
	in[1] = build_hide(b, in[1]);
	if (ones)
		in[2] = linear_ones(b, b->v);
	/* chunks that go on from a state, and all pairs, are the recurrence's words */
	if (b->causal && (b->slope || (fade && fade->gate) || b->target == TARGET_CHUNK || b->target == TARGET_QUADRATIC)) {
		*y = build_recurrence(b, &(struct recurrence){ .q = in[0], .k = in[1], .v = in[2], .g = build_fade(b, fade, z.F), .H = b->H, .G = b->G,
		                                               .F = z.F, .E = z.E1, .by_channel = fade && fade->by_channel }, "state");
		return to_scale(b, *y, y);
	}
	if (!b->causal)
		b->state_numbers = b->G * b->features * z.E1;
	else if (build_steps(b))
		in[3] = build_past(b, "state", 4, (int64_t[]){ 0, b->G, b->features, z.E1 });
	if (fade)
		TRY(fading(b->p, b->opt, fade, b->target, &z, b->dt, &in[build_steps(b) ? 4 : 3], e));
	str_init(&t, b->scratch);
	if (!b->causal)
		form_all(&t, &z);
	else if (b->target == TARGET_PORTABLE)
		form_chunks(&t, &z);
	else if (build_steps(b))
		(fade ? form_fading_step : form_step)(&t, &z);
	else
		form_operator(&t, &z, b->target == TARGET_ORT);
	build_text(b, str_done(&t), in, out);
	if (build_steps(b) && b->causal)
		build_present(b, "state", out[1]);
	return to_scale(b, out[0], y);
}
