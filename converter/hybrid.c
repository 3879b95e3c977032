/*
 * Softmax over a window of the last W tokens, alone or beside the linear memory of all that left it. The first S tokens (sinks) may stay too.
 *
 *	c_i = max s_ij over the window      e_ij = exp(s_ij - c_i)      f: a feature map
 *	window    y_i = sum_win e_ij v_j / sum_win e_ij
 *	joint     y_i = (sum_win e_ij v_j + exp(b - c_i) sum_far f(q_i).f(k_j) v_j) / the same with 1 for v: far weights on the scale of exp(s)
 *	lolcats   y_i = (gamma sum_win e_ij v_j + sum_far f(q_i).f(k_j) v_j) / the same with 1 for v: c_i is part of the definition
 *	mixed     y_i = a r_i + (1 - a) window_i, r any recurrence over all tokens
 *
 * The window of token i begins at i - W + 1; at the beginning of its block of W tokens (diagonal); or at that of the block before (terraced), so that
 * it is W + 1 to 2 W tokens wide and what has left it changes once a block.
 *
 * log gamma, b and a are parameters, one a head. Sources: Zhang et al., LoLCATs, 2025, section 3.1; Lan et al., Liger, 2025, section 3; Xiao et al. 2024
 * (sinks).
 */
#include <math.h>

#include "converter/build.h"
#include "ops/base/str.h"

/* What looks through a window: scores s [B, G, R, N, Q, K] of N blocks of Q queries and what each sees, hidden ones -inf, and values. */
struct seen {
	value_id s, v;
	value_id left_k, left_v; /* step models: what leaves the window as each token comes, [B, G, T, D] and [B, G, T, E]; terraced: all keys and
	                          * values at hand, [B, G, P + T, D] */
	value_id left_m;         /* and whether it counts, [B, G, T, 1] or as many; 0: all do */
	int64_t P;               /* step models: tokens before these at hand */
	int64_t W, S;
	bool diagonal, terraced; /* the window begins with a block of W tokens: the query's own, or the one before */
};

static double in_band(int64_t i, int64_t j, int64_t W) { return j > i && j <= i + W; }
static double in_block(int64_t i, int64_t j, int64_t W) { return j >= W && j <= i + W; }
static double in_terrace(int64_t i, int64_t j, int64_t W) { return j <= i + W; }
static double own(int64_t i, int64_t j, int64_t W) { (void)i; return j >= W; }
static double itself(int64_t i, int64_t j, int64_t W) { return j == i + W; }
static double apart(int64_t i, int64_t j, int64_t W) { return (double)(j - i - W); }

/* Slopes of ALiBi, one a query head, as [G, R, 1, 1, 1]. */
static value_id slopes(struct build *b)
{
	struct tensor *t = build_tensor(b, 5, (int64_t[]){ b->G, b->R, 1, 1, 1 });

	for (int64_t h = 0; t && h < b->H; h++)
		tensor_put(t, h, b->slope[h]);
	return build_param(b, "slopes", t);
}

/* to: `from` scaled, capped as the attention has it, and with the bias slopes * apart. */
static void scored(struct str *t, const struct build *b, const char *from, const char *to, const char *apart)
{
	const char *bias = b->slope ? "u" : "";

	str_addf(t, "  %sm = Mul (%s, scale)\n", to, from);
	if (b->softcap > 0)
		str_addf(t, "  %scap = Constant <value_float = %#.9g> ()\n"
		            "  %sd = Div (%sm, %scap)\n"
		            "  %st = Tanh (%sd)\n"
		            "  %s%s = Mul (%st, %scap)\n", to, b->softcap, to, to, to, to, to, to, bias, to, to);
	else
		str_addf(t, "  %s%s = Identity (%sm)\n", to, bias, to);
	if (b->slope)
		str_addf(t, "  %sb = Mul (slopes, %s)\n"
		            "  %s = Add (%su, %sb)\n", to, apart, to, to, to);
}

/* Scores and values of the sinks beside those of the window; position: int64, of each query, and ks, vs [B, G, 1, 1, S, width]. */
static void add_sinks(struct str *t, const struct build *b, bool masked)
{
	str_add(t, "  kst = Transpose <perm = [0, 1, 2, 3, 5, 4]> (ks6)\n"
	           "  ss0 = MatMul (q6, kst)\n");
	if (b->slope)
		str_add(t, "  sinkapart = Sub (sink, position)\n"
		           "  sinkaway = CastLike (sinkapart, scale)\n");
	scored(t, b, "ss0", "ss", "sinkaway");
	str_addf(t, "  until = Add (sink, w1)\n"
	            "  %s = Greater (position, until)\n%s"
	            "  sm = Where (out, ss, low)\n"
	            "  s = Concat <axis = 5> (near, sm)\n"
	            "  onehead = Constant <value_ints = [1, 1, 1]> ()\n"
	            "  oneone = Constant <value_ints = [1, 1]> ()\n"
	            "  times = Concat <axis = 0> (onehead, n, oneone)\n"
	            "  vse = Expand (vs6, times)\n"
	            "  vals = Concat <axis = 4> (v2, vse) }",
	         masked ? "away" : "out", masked ? "  out = And (away, kept)\n" : "");
}

static void sink_numbers(struct str *t, const struct seen *x)
{
	str_addf(t, "  w1 = Constant <value_int = %lld> ()\n"
	            "  sink = Constant <value_ints = [0",
	         (long long)x->W - 1);
	for (int64_t i = 1; i < x->S; i++)
		str_addf(t, ", %lld", (long long)i);
	str_add(t, "]> ()\n");
}

/* [B, G, T, 1]: 1 where a key is not hidden. */
static value_id shown(struct build *b)
{
	return build_hide(b, build_value(b, "(float[B,G,T,D] k) => (float[B,G,T,1] m) {\n"
	                                    "  lead = Shape <start = 0, end = 3> (k)\n"
	                                    "  single = Constant <value_ints = [1]> ()\n"
	                                    "  shape = Concat <axis = 0> (lead, single)\n"
	                                    "  one = Constant <value_float = 1.0> ()\n"
	                                    "  m = Expand (one, shape) }", &b->k));
}

/* A query whose keys are hidden all together sees its own, which is what so low a score comes to: rows nobody looks at are numbers. */
#define SEES_ITSELF \
	"  lowest = Constant <value_float = -30000.0> ()\n" \
	"  own1 = Where (its, lowest, low)\n" \
	"  near = Where (visible, s1, own1)\n"

/*
 * Blocks of W tokens, each looking at itself and the one before: q [B, H, T, D] as q6 [B, G, R, N, W, D]; k, v and the mask m as k2, v2, m2
 * [B, G, 1, N, 2 W, width]. P > 0: these are [B, G, P + T, width], P tokens before the first, and called ka, va, ma. block: the blocks' numbers [N, 1, 1].
 */
static void cut(struct str *t, const struct build *b, int64_t W, int64_t P)
{
	str_addf(t, "  t = Shape <start = 2, end = 3> (k)\n"
	            "  b = Shape <start = 0, end = 1> (k)\n"
	            "  c = Constant <value_ints = [%lld]> ()\n"
	            "  less = Constant <value_ints = [%lld]> ()\n"
	            "  single = Constant <value_ints = [1]> ()\n"
	            "  up = Add (t, less)\n"
	            "  whole = Div (up, c)\n"
	            "  n = Max (whole, single)\n"
	            "  n1 = Add (n, single)\n"
	            "  all = Mul (n, c)\n"
	            "  rest = Sub (all, t)\n"
	            "  last = Constant <value_ints = [0]> ()\n"
	            "  front = Constant <value_ints = [0, 0, 0, 0, 0, 0]> ()\n"
	            "  pads = Concat <axis = 0> (front, rest, last)\n"
	            "  earlier = Constant <value_ints = [0, 0, %lld, 0, 0, 0]> ()\n"
	            "  around = Concat <axis = 0> (earlier, rest, last)\n"
	            "  third = Constant <value_ints = [3]> ()\n",
	         (long long)W, (long long)(W - 1), (long long)(W - P));
	for (const char *v = b->mask ? "qkvm" : "qkv"; *v; v++) {
		bool q = *v == 'q';

		str_addf(t, "  %cp = Pad (%c%s, %s)\n"
		            "  %cg = Constant <value_ints = [%lld, %lld]> ()\n"
		            "  %cw = Constant <value_ints = [%lld, %lld]> ()\n"
		            "  %cz = Concat <axis = 0> (b, %cg, %s, %cw)\n"
		            "  %c6 = Reshape (%cp, %cz)\n",
		         *v, *v, P && !q ? "a" : "", q ? "pads" : "around", *v, (long long)b->G, (long long)(q ? b->R : 1), *v, (long long)W,
		         (long long)(*v == 'm' ? 1 : *v == 'v' ? b->E : b->D), *v, *v, q ? "n" : "n1", *v, *v, *v, *v);
		if (!q)
			str_addf(t, "  %cb = Slice (%c6, last, n, third)\n"
			            "  %cc = Slice (%c6, single, n1, third)\n"
			            "  %c2 = Concat <axis = 4> (%cb, %cc)\n", *v, *v, *v, *v, *v, *v, *v);
	}
	str_add(t, "  zero = Constant <value_int = 0> ()\n"
	           "  one = Constant <value_int = 1> ()\n"
	           "  ns = Squeeze (n)\n"
	           "  number = Range (zero, ns, one)\n"
	           "  inner = Constant <value_ints = [1, 2]> ()\n"
	           "  block = Unsqueeze (number, inner)\n");
}

/* A whole sequence. */
static void by_blocks(struct build *b, struct seen *x)
{
	long long W = x->W, S = x->S;
	value_id in[9] = { b->q, b->k, b->v,
		           build_mask(b, x->diagonal ? "block" : x->terraced ? "terrace" : "band", W, 2 * W,
		                      x->diagonal ? in_block : x->terraced ? in_terrace : in_band, W),
		           build_mask(b, "own", 1, 2 * W, own, W) }, out[2] = { 0, 0 };
	struct str t;

	str_init(&t, b->scratch);
	if (b->mask) {
		in[5] = shown(b);
		in[6] = build_mask(b, "itself", W, 2 * W, itself, W);
	}
	if (b->slope) {
		in[b->mask ? 7 : 5] = slopes(b);
		in[b->mask ? 8 : 6] = build_mask(b, "apart", W, 2 * W, apart, W);
	}
	str_addf(&t, "(float[B,H,T,D] q, float[B,G,T,D] k, float[B,G,T,E] v, float[W,K] band, float[a,K] own%s%s) => (float[B,G,R,N,W,L] %s, "
	             "float[B,G,I,N,L,E] %s) {\n",
	         b->mask ? ", float[B,G,T,1] m, float[W,K] itself" : "", b->slope ? ", float[G,R,c,d,e] slopes, float[W,K] apart" : "", S ? "s" : "near",
	         S ? "vals" : "v2");
	cut(&t, b, W, 0);
	str_addf(&t, "  scale = Constant <value_float = %#.9g> ()\n"
	             "  low = Constant <value_float = -inf> ()\n"
	             "  kt = Transpose <perm = [0, 1, 2, 3, 5, 4]> (k2)\n"
	             "  s0 = MatMul (q6, kt)\n"
	             "  full = Min (block, one)\n"
	             "  has = CastLike (full, band)\n"
	             "  valid = Max (has, own)\n"
	             "  bv = Mul (band, valid)\n",
	         b->scale);
	scored(&t, b, "s0", "s1", "apart");
	str_add(&t, b->mask ? "  mt = Transpose <perm = [0, 1, 2, 3, 5, 4]> (m2)\n"
	                      "  bvm = Mul (bv, mt)\n"
	                      "  visible = Cast <to = 9> (bvm)\n"
	                      "  its = Cast <to = 9> (itself)\n" SEES_ITSELF
	                    : "  visible = Cast <to = 9> (bv)\n"
	                      "  near = Where (visible, s1, low)\n");
	if (S) {
		sink_numbers(&t, x);
		str_addf(&t, "  behind = Constant <value_ints = [0, 0, 0, 0, 0, 0, %lld, 0]> ()\n"
		             "  count = Constant <value_ints = [%lld]> ()\n"
		             "  second = Constant <value_ints = [2]> ()\n"
		             "  between = Constant <value_ints = [2, 3]> ()\n"
		             "  kl = Pad (k, behind)\n"
		             "  vl = Pad (v, behind)\n"
		             "  ks = Slice (kl, last, count, second)\n"
		             "  vs = Slice (vl, last, count, second)\n"
		             "  ks6 = Unsqueeze (ks, between)\n"
		             "  vs6 = Unsqueeze (vs, between)\n"
		             "  wide = Constant <value_int = %lld> ()\n"
		             "  rows = Range (zero, wide, one)\n"
		             "  rowc = Unsqueeze (rows, single)\n"
		             "  start = Mul (block, wide)\n"
		             "  position = Add (start, rowc)\n",
		         S, S, W);
		if (b->mask)
			str_add(&t, "  ml = Pad (m, behind)\n"
			            "  ms = Slice (ml, last, count, second)\n"
			            "  ms6 = Unsqueeze (ms, between)\n"
			            "  mst = Transpose <perm = [0, 1, 2, 3, 5, 4]> (ms6)\n"
			            "  kept = Cast <to = 9> (mst)\n");
		add_sinks(&t, b, b->mask);
	} else {
		str_add(&t, "}");
	}
	build_text(b, str_done(&t), in, out);
	x->s = out[0];
	x->v = out[1];
}

/*
 * All tokens look at themselves and at the last P before, which are a state; so are the sinks. far: P = W, else W - 1 will do. A step model takes few
 * tokens, all in one block; a chunk model cuts them, but for terraced windows, whose blocks are those of the whole text.
 */
static void by_steps(struct build *b, struct seen *x, bool far)
{
	int64_t W = x->W, P = x->terraced ? 2 * W - 1 : far ? W : W > 1 ? W - 1 : 1;
	bool cuts = b->target == TARGET_CHUNK && !x->terraced;
	long long S = x->S;
	int64_t k[4] = { 0, b->G, P, b->D }, v[4] = { 0, b->G, P, b->E }, sk[4] = { 0, b->G, S, b->D }, sv[4] = { 0, b->G, S, b->E };
	value_id in[12] = { b->q, b->k, b->v, build_first(b), build_past(b, "window_key", 4, k), build_past(b, "window_value", 4, v) },
	         out[12] = { 0 };
	int n = 6;
	struct str t;

	if (S) {
		in[n++] = build_past(b, "sink_key", 4, sk);
		in[n++] = build_past(b, "sink_value", 4, sv);
	}
	if (b->slope)
		in[n++] = slopes(b);
	if (b->mask) {
		in[n++] = shown(b);
		in[n++] = build_past(b, "window_mask", 4, (int64_t[]){ 0, b->G, P, 1 });
		if (S)
			in[n++] = build_past(b, "sink_mask", 4, (int64_t[]){ 0, b->G, S, 1 });
	}
	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,D] q, float[B,G,T,D] k, float[B,G,T,E] v, int64[i] first, float[B,G,P,D] pk, float[B,G,P,E] pv%s%s%s%s) => "
	             "(float[B,G,R,N,Q,L] %s, float[B,G,I,N,L,E] %s, float[B,G,P,D] nk, float[B,G,P,E] nv, float[B,G,U,D] gk, float[B,G,U,E] gv%s%s%s) {\n",
	         S ? ", float[B,G,S,D] sk, float[B,G,S,E] sv" : "", b->slope ? ", float[G,R,c,d,e] slopes" : "",
	         b->mask ? ", float[B,G,T,1] m, float[B,G,P,1] pm" : "", b->mask && S ? ", float[B,G,S,1] hm" : "", S ? "s" : "near", S ? "vals" : "v2",
	         S ? ", float[B,G,S,D] ks, float[B,G,S,E] vs" : "", b->mask ? ", float[B,G,P,1] nm, float[B,G,U,1] gm" : "",
	         b->mask && S ? ", float[B,G,S,1] ms" : "");
	str_addf(&t, "  ka = Concat <axis = 2> (pk, k)\n"
	             "  va = Concat <axis = 2> (pv, v)\n"
	             "  between = Constant <value_ints = [2, 3]> ()\n%s",
	         b->mask ? "  ma = Concat <axis = 2> (pm, m)\n" : "");
	if (cuts)
		cut(&t, b, W, P);
	else
		str_addf(&t, "  t = Shape <start = 2, end = 3> (k)\n"
		             "  b = Shape <start = 0, end = 1> (k)\n"
		             "  n = Constant <value_ints = [1]> ()\n"
		             "  last = Constant <value_ints = [0]> ()\n"
		             "  one = Constant <value_int = 1> ()\n"
		             "  gr = Constant <value_ints = [%lld, %lld, 1]> ()\n"
		             "  d = Constant <value_ints = [%lld]> ()\n"
		             "  qs = Concat <axis = 0> (b, gr, t, d)\n"
		             "  q6 = Reshape <allowzero = 1> (q, qs)\n"
		             "  k2 = Unsqueeze (ka, between)\n"
		             "  v2 = Unsqueeze (va, between)\n%s",
		         (long long)b->G, (long long)b->R, (long long)b->D, b->mask ? "  m2 = Unsqueeze (ma, between)\n" : "");
	str_addf(&t, "  axis = Constant <value_ints = [2]> ()\n"
	             "  from = Constant <value_ints = [%lld]> ()\n"
	             "  to = Constant <value_ints = [9223372036854775807]> ()\n"
	             "  nk = Slice (ka, from, to, axis)\n"
	             "  nv = Slice (va, from, to, axis)\n"
	             "  held = Constant <value_ints = [%lld]> ()\n"
	             "  gone = %s\n"
	             "  gk = Slice (ka, last, gone, axis)\n"
	             "  gv = Slice (va, last, gone, axis)\n"
	             "  scale = Constant <value_float = %#.9g> ()\n"
	             "  low = Constant <value_float = -inf> ()\n"
	             "  kt = Transpose <perm = [0, 1, 2, 3, 5, 4]> (k2)\n"
	             "  s0 = MatMul (q6, kt)\n"
	             "  minus = Constant <value_int = -1> ()\n"
	             "  wide = Constant <value_int = %lld> ()\n"
	             "  f = Squeeze (first)\n"
	             "  ts = Squeeze (t)\n",
	         (long long)-P, (long long)P, x->terraced ? "Add (held, t)" : "Identity (t)", b->scale, (long long)W);
	x->P = P;
	if (cuts)
		str_addf(&t, "  off = Mul (block, wide)\n"
		             "  start = Add (off, f)\n"
		             "  rows = Range (zero, wide, one)\n"
		             "  rowc = Unsqueeze (rows, single)\n"
		             "  position = Add (start, rowc)\n"
		             "  twice = Constant <value_int = %lld> ()\n"
		             "  columns = Range (zero, twice, one)\n"
		             "  away1 = Sub (columns, wide)\n"
		             "  kj = Add (start, away1)\n",
		         (long long)(2 * W));
	else
		str_add(&t, "  end = Add (f, ts)\n"
		            "  qi = Range (f, end, one)\n"
		            "  before = Squeeze (held)\n"
		            "  oldest = Sub (f, before)\n"
		            "  kj = Range (oldest, end, one)\n"
		            "  position = Unsqueeze (qi, n)\n");
	str_add(&t, "  later = Greater (kj, position)\n"
	            "  seen = Not (later)\n");
	if (b->slope)
		str_add(&t, "  distance = Sub (kj, position)\n"
		            "  apart = CastLike (distance, scale)\n");
	scored(&t, b, "s0", "s1", "apart");
	str_add(&t, x->diagonal ? "  blocks = Div (position, wide)\n"
	                          "  begin = Mul (blocks, wide)\n"
	                          "  edge = Add (begin, minus)\n"
	          : x->terraced ? "  blocks = Div (position, wide)\n"
	                          "  own = Mul (blocks, wide)\n"
	                          "  begin = Sub (own, wide)\n"
	                          "  edge = Add (begin, minus)\n"
	                        : "  edge = Sub (position, wide)\n");
	str_add(&t, "  within = Greater (kj, edge)\n"
	            "  real = Greater (kj, minus)\n"
	            "  both = And (seen, within)\n"
	            "  there = And (both, real)\n");
	str_add(&t, b->mask ? "  nm = Slice (ma, from, to, axis)\n"
	                      "  gm = Slice (ma, last, gone, axis)\n"
	                      "  mt = Transpose <perm = [0, 1, 2, 3, 5, 4]> (m2)\n"
	                      "  kept6 = Cast <to = 9> (mt)\n"
	                      "  its = Equal (kj, position)\n"
	                      "  visible = And (there, kept6)\n" SEES_ITSELF
	                    : "  near = Where (there, s1, low)\n");
	if (S) {
		sink_numbers(&t, x);
		str_addf(&t, "  sinks = Constant <value_int = %lld> ()\n"
		             "  ko = Concat <axis = 2> (sk, k)\n"
		             "  vo = Concat <axis = 2> (sv, v)\n"
		             "  old = Greater (f, sink)\n"
		             "  since = Sub (sink, f)\n"
		             "  new = Add (since, sinks)\n"
		             "  most = Add (sinks, ts)\n"
		             "  top = Add (most, minus)\n"
		             "  fresh = Min (new, top)\n"
		             "  which = Where (old, sink, fresh)\n"
		             "  ks = Gather <axis = 2> (ko, which)\n"
		             "  vs = Gather <axis = 2> (vo, which)\n"
		             "  ks6 = Unsqueeze (ks, between)\n"
		             "  vs6 = Unsqueeze (vs, between)\n",
		         S);
		if (b->mask)
			str_add(&t, "  mo = Concat <axis = 2> (hm, m)\n"
			            "  ms = Gather <axis = 2> (mo, which)\n"
			            "  ms6 = Unsqueeze (ms, between)\n"
			            "  mst = Transpose <perm = [0, 1, 2, 3, 5, 4]> (ms6)\n"
			            "  kept = Cast <to = 9> (mst)\n");
		add_sinks(&t, b, b->mask);
	} else {
		str_add(&t, "}");
	}
	build_text(b, str_done(&t), in, out);
	x->s = out[0];
	x->v = out[1];
	build_present(b, "window_key", out[2]);
	build_present(b, "window_value", out[3]);
	x->left_k = out[4];
	x->left_v = out[5];
	n = 6;
	if (S) {
		build_present(b, "sink_key", out[n++]);
		build_present(b, "sink_value", out[n++]);
	}
	if (b->mask) {
		build_present(b, "window_mask", out[n++]);
		x->left_m = out[n++];
		if (S)
			build_present(b, "sink_mask", out[n++]);
	}
}

static int width_of(const struct build *b) { return b->opt->window ? b->opt->window : b->m->window; }

static struct seen look(struct build *b, bool diagonal, bool far)
{
	struct seen x = { .W = width_of(b), .S = b->opt->sinks, .diagonal = diagonal, .terraced = b->m->terraced };

	if (build_steps(b))
		by_steps(b, &x, far);
	else
		by_blocks(b, &x);
	return x;
}

/* x [B, G, R, N, Q, width] as [B, H, T, width]. */
static value_id joined(struct build *b, value_id x, int64_t width)
{
	struct str t;

	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,G,R,N,Q,E] x, float[B,I,T,F] like) => (float[B,H,T,E] y) {\n"
	             "  b = Shape <start = 0, end = 1> (x)\n"
	             "  n = Shape <start = 3, end = 4> (x)\n"
	             "  q = Shape <start = 4, end = 5> (x)\n"
	             "  nq = Mul (n, q)\n"
	             "  h = Constant <value_ints = [%lld]> ()\n"
	             "  e = Constant <value_ints = [%lld]> ()\n"
	             "  shape = Concat <axis = 0> (b, h, nq, e)\n"
	             "  x4 = Reshape <allowzero = 1> (x, shape)\n"
	             "  t = Shape <start = 2, end = 3> (like)\n"
	             "  zero = Constant <value_ints = [0]> ()\n"
	             "  axis = Constant <value_ints = [2]> ()\n"
	             "  y = Slice (x4, zero, t, axis) }",
	         (long long)b->H, (long long)width);
	return build_value(b, str_done(&t), BUILD_IN(x, b->k));
}

/* Softmax over what is seen. */
static value_id softmax_of(struct build *b, const struct seen *x)
{
	return joined(b, build_value(b, "(float[B,G,R,N,Q,K] s, float[B,G,I,N,K,E] v) => (float[B,G,R,N,Q,E] y) {\n"
	                                "  p = Softmax <axis = -1> (s)\n"
	                                "  y = MatMul (p, v) }", BUILD_IN(x->s, x->v)), b->E);
}

static value_id over_window(struct build *b)
{
	struct seen x;
	struct str t;

	if (b->target != TARGET_ONNX || b->opt->sinks || b->mask || b->slope) {
		x = look(b, false, false);
		return softmax_of(b, &x);
	}
	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,D] q, float[B,G,T,D] k, float[B,G,T,E] v) => (float[B,H,T,E] y) {\n"
	             "  y = Attention <is_causal = 1, left_window_size = %d, scale = %#.9g, softcap = %#.9g> (q, k, v) }", width_of(b) - 1, b->scale,
	         b->softcap);
	return build_value(b, str_done(&t), BUILD_IN(b->q, b->k, b->v));
}

static void window(struct build *b, value_id *y)
{
	*y = over_window(b);
}

static void diagonal(struct build *b, value_id *y)
{
	struct seen x = look(b, true, false);

	*y = softmax_of(b, &x);
}

value_id build_mixed(struct build *b, value_id y)
{
	b->q = b->turned_q;
	b->k = b->turned_k;
	b->v = b->turned_v;
	b->G = b->kv_heads;
	b->R = b->H / b->G;
	return build_value(b, "(float[B,H,T,E] r, float[B,H,T,E] w, float[H,1,1] m) => (float[B,H,T,E] y) {\n"
	                      "  d = Sub (r, w)\n"
	                      "  md = Mul (d, m)\n"
	                      "  y = Add (w, md) }",
	                   BUILD_IN(y, over_window(b), build_filled(b, "mix", 3, (int64_t[]){ b->H, 1, 1 }, 0.5)));
}

/* fk [B, G, T, F] and v of the tokens that have left the window when each token comes, but for sinks. */
static void leaving(struct build *b, const struct seen *x, value_id *fk, value_id *v)
{
	struct str t;

	if (build_steps(b)) {
		str_init(&t, b->scratch);
		str_addf(&t, "(float[B,G,T,F] k, int64[i] first) => (float[B,G,T,F] y) {\n"
		             "  t = Shape <start = 2, end = 3> (k)\n"
		             "  f = Squeeze (first)\n"
		             "  ts = Squeeze (t)\n"
		             "  one = Constant <value_int = 1> ()\n"
		             "  end = Add (f, ts)\n"
		             "  i = Range (f, end, one)\n"
		             "  least = Constant <value_int = %lld> ()\n"
		             "  far = Greater (i, least)\n"
		             "  w = CastLike (far, k)\n"
		             "  column = Constant <value_ints = [1]> ()\n"
		             "  wc = Unsqueeze (w, column)\n"
		             "  y = Mul (k, wc) }", (long long)(x->W + x->S) - 1);
		*fk = build_value(b, str_done(&t), BUILD_IN(linear_map(b, x->left_k, 'k', b->G), build_first(b)));
		if (x->left_m)
			*fk = patch_node(b->p, "Mul", b->hint, PATCH_IN(*fk, x->left_m), 1, NULL);
		*v = x->left_v;
		return;
	}
	for (int i = 0; i < 2; i++) {
		str_init(&t, b->scratch);
		str_addf(&t, "(float[B,G,T,F] k) => (float[B,G,T,F] y) {\n"
		             "  t = Shape <start = 2, end = 3> (k)\n"
		             "  axis = Constant <value_ints = [2]> ()\n"
		             "  zero = Constant <value_ints = [0]> ()\n"
		             "  sinks = Constant <value_ints = [%lld]> ()\n"
		             "  to = Constant <value_ints = [9223372036854775807]> ()\n"
		             "  rest = Slice (k, sinks, to, axis)\n"
		             "  pads = Constant <value_ints = [0, 0, %lld, 0, 0, 0, 0, 0]> ()\n"
		             "  late = Pad (rest, pads)\n"
		             "  y = Slice (late, zero, t, axis) }",
		         (long long)x->S, (long long)(x->W + x->S));
		*(i ? v : fk) = build_value(b, str_done(&t), BUILD_IN(i ? b->v : build_hide(b, linear_map(b, b->k, 'k', b->G))));
	}
}

/*
 * What has left the terraced window, o [B, H, T, E + 1]: block n reads S_n, the sum of f(k_j)^T [v_j, 1] over the blocks before the last one.
 */
static value_id terraces(struct build *b, const struct seen *x)
{
	long long W = x->W, G = b->G, R = b->R, F, E = b->E + 1;
	value_id q = linear_map(b, b->q, 'q', b->H), k = build_hide(b, linear_map(b, b->k, 'k', b->G));
	struct str t;

	F = b->features;
	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,F] q, float[B,G,T,F] k, float[B,G,T,E] v) => (float[B,G,R,N,W,E] o) {\n"
	             "  t = Shape <start = 2, end = 3> (k)\n"
	             "  b = Shape <start = 0, end = 1> (k)\n"
	             "  c = Constant <value_ints = [%lld]> ()\n"
	             "  less = Constant <value_ints = [%lld]> ()\n"
	             "  single = Constant <value_ints = [1]> ()\n"
	             "  up = Add (t, less)\n"
	             "  blocks = Div (up, c)\n"
	             "  n = Max (blocks, single)\n"
	             "  all = Mul (n, c)\n"
	             "  rest = Sub (all, t)\n"
	             "  front = Constant <value_ints = [0, 0, 0, 0, 0, 0]> ()\n"
	             "  last = Constant <value_ints = [0]> ()\n"
	             "  pads = Concat <axis = 0> (front, rest, last)\n", W, W - 1);
	for (const char *v = "qkv"; *v; v++)
		str_addf(&t, "  %cp = Pad (%c, pads)\n"
		             "  %cg = Constant <value_ints = [%lld, %lld]> ()\n"
		             "  %cw = Constant <value_ints = [%lld, %lld]> ()\n"
		             "  %cz = Concat <axis = 0> (b, %cg, n, %cw)\n"
		             "  %c6 = Reshape (%cp, %cz)\n",
		         *v, *v, *v, G, *v == 'q' ? R : 1, *v, W, *v == 'v' ? E : F, *v, *v, *v, *v, *v, *v);
	str_add(&t, "  kt = Transpose <perm = [0, 1, 2, 3, 5, 4]> (k6)\n"
	            "  kv = MatMul (kt, v6)\n"
	            "  earlier = Constant <value_ints = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]> ()\n"
	            "  third = Constant <value_ints = [3]> ()\n"
	            "  late = Pad (kv, earlier)\n"
	            "  left = Slice (late, last, n, third)\n"
	            "  axis = Constant <value_int = 3> ()\n"
	            "  s = CumSum <exclusive = 1> (left, axis)\n"
	            "  o = MatMul (q6, s) }");
	return joined(b, build_value(b, str_done(&t), BUILD_IN(q, k, linear_ones(b, b->v))), b->E + 1);
}

/*
 * The same by steps. The state is the sum over what has left the window of the first of these tokens; what leaves it before query i comes, among
 * the keys at hand, is added for that query.
 */
static value_id terraces_by_steps(struct build *b, const struct seen *x)
{
	long long W = x->W, E = b->E + 1;
	value_id q = linear_map(b, b->q, 'q', b->H), k = linear_map(b, x->left_k, 'k', b->G), out[2] = { 0, 0 };
	struct str t;

	if (x->left_m)
		k = patch_node(b->p, "Mul", b->hint, PATCH_IN(k, x->left_m), 1, NULL);
	str_init(&t, b->scratch);
	str_addf(&t, "(float[B,H,T,F] q, float[B,G,U,F] k, float[B,G,U,E] v, int64[i] first, float[B,G,F,E] past) => (float[B,H,T,E] o, "
	             "float[B,G,F,E] present) {\n"
	             "  b = Shape <start = 0, end = 1> (q)\n"
	             "  t = Shape <start = 2, end = 3> (q)\n"
	             "  w = Constant <value_int = %lld> ()\n"
	             "  held = Constant <value_int = %lld> ()\n"
	             "  zero = Constant <value_int = 0> ()\n"
	             "  one = Constant <value_int = 1> ()\n"
	             "  column = Constant <value_ints = [1]> ()\n"
	             "  f = Squeeze (first)\n"
	             "  ts = Squeeze (t)\n"
	             "  end = Add (f, ts)\n"
	             "  oldest = Sub (f, held)\n"
	             "  j = Range (oldest, end, one)\n"
	             "  i = Range (f, end, one)\n"
	             "  ic = Unsqueeze (i, column)\n"
	             "  jc = Unsqueeze (j, column)\n", W, (long long)x->P);
	for (const char *s = "fie"; *s; s++) /* where windows begin: that of the first token, of each, and of the next behind all */
		str_addf(&t, "  %cn = Div (%s, w)\n"
		             "  %cm = Sub (%cn, one)\n"
		             "  %cb = Mul (%cm, w)\n"
		             "  %cs = Max (%cb, zero)\n",
		         *s, *s == 'f' ? "f" : *s == 'i' ? "ic" : "end", *s, *s, *s, *s, *s, *s);
	str_addf(&t, "  young = Less (j, fs)\n"
	             "  since = Not (young)\n"
	             "  old = Less (j, is)\n"
	             "  both = And (since, old)\n"
	             "  m = CastLike (both, q)\n"
	             "  sc = Unsqueeze (since, column)\n"
	             "  go = Less (jc, es)\n"
	             "  goes = And (sc, go)\n"
	             "  g = CastLike (goes, q)\n"
	             "  kg = Mul (k, g)\n"
	             "  kgt = Transpose <perm = [0, 1, 3, 2]> (kg)\n"
	             "  ds = MatMul (kgt, v)\n"
	             "  present = Add (past, ds)\n"
	             "  gr = Constant <value_ints = [%lld, %lld]> ()\n"
	             "  width = Constant <value_ints = [%lld]> ()\n"
	             "  qs = Concat <axis = 0> (b, gr, t, width)\n"
	             "  q5 = Reshape <allowzero = 1> (q, qs)\n"
	             "  axis = Constant <value_ints = [2]> ()\n"
	             "  kt = Transpose <perm = [0, 1, 3, 2]> (k)\n"
	             "  kt5 = Unsqueeze (kt, axis)\n"
	             "  v5 = Unsqueeze (v, axis)\n"
	             "  s5 = Unsqueeze (past, axis)\n"
	             "  a = MatMul (q5, kt5)\n"
	             "  am = Mul (a, m)\n"
	             "  here = MatMul (am, v5)\n"
	             "  gone = MatMul (q5, s5)\n"
	             "  o5 = Add (here, gone)\n"
	             "  h = Constant <value_ints = [%lld]> ()\n"
	             "  e = Constant <value_ints = [%lld]> ()\n"
	             "  oshape = Concat <axis = 0> (b, h, t, e)\n"
	             "  o = Reshape <allowzero = 1> (o5, oshape) }",
	         (long long)b->G, (long long)b->R, (long long)b->features, (long long)b->H, E);
	build_text(b, str_done(&t), BUILD_IN(q, k, linear_ones(b, x->left_v), build_first(b),
	                                     build_past(b, "state", 4, (int64_t[]){ 0, b->G, b->features, E })), out);
	build_present(b, "state", out[1]);
	return out[0];
}

/* exp(-slope tokens), [H, 1, 1]. */
static value_id faded(struct build *b, int64_t tokens)
{
	struct tensor *t = build_tensor(b, 3, (int64_t[]){ b->H, 1, 1 });

	for (int64_t h = 0; t && h < b->H; h++)
		tensor_put(t, h, exp(-b->slope[h] * (double)tokens));
	return build_param(b, "faded", t);
}

void build_joint(struct build *b, value_id *y)
{
	struct seen x = look(b, false, true);
	struct recurrence far = { .H = b->H, .G = b->G, .E = b->E + 1 };
	bool shifted = b->m->shifted;
	int64_t d[] = { b->G, b->R, 1, 1, 1 };
	value_id near[2] = { 0, 0 };

	/* log gamma, which the paper starts at log .1; or b: what far weights are multiplied by, as its log */
	value_id gate = shifted ? build_filled(b, "window_gate", 5, d, 0) : build_filled(b, "far_gate", 3, (int64_t[]){ b->H, 1, 1 }, 0);

	build_text(b, shifted ?
	           "(float[B,G,R,N,Q,K] s, float[B,G,I,N,K,E] v, float[G,R,X,Y,Z] g) => (float[B,G,R,N,Q,F] near) {\n"
	           "  last = Constant <value_ints = [-1]> ()\n"
	           "  c = ReduceMax (s, last)\n"
	           "  d0 = Sub (s, c)\n"
	           "  d = Add (d0, g)\n"
	           "  e = Exp (d)\n"
	           "  num = MatMul (e, v)\n"
	           "  den = ReduceSum (e, last)\n"
	           "  near = Concat <axis = -1> (num, den) }" :
	           "(float[B,G,R,N,Q,K] s, float[B,G,I,N,K,E] v) => (float[B,G,R,N,Q,F] near, float[B,G,R,N,Q,X] c) {\n"
	           "  last = Constant <value_ints = [-1]> ()\n"
	           "  c = ReduceMax (s, last)\n"
	           "  d = Sub (s, c)\n"
	           "  e = Exp (d)\n"
	           "  num = MatMul (e, v)\n"
	           "  den = ReduceSum (e, last)\n"
	           "  near = Concat <axis = -1> (num, den) }", BUILD_IN(x.s, x.v, gate), near);
	near[0] = joined(b, near[0], b->E + 1);
	if (x.terraced) {
		*y = (build_steps(b) ? terraces_by_steps : terraces)(b, &x);
	} else {
		far.q = linear_map(b, b->q, 'q', b->H);
		leaving(b, &x, &far.k, &far.v);
		far.v = linear_ones(b, far.v);
		far.F = b->features;
		far.g = build_sloped(b, 0);
		*y = build_recurrence(b, &far, "state");
	}
	if (b->slope) /* by which it has faded when it leaves the window */
		*y = patch_node(b->p, "Mul", b->hint, PATCH_IN(*y, faded(b, x.W)), 1, NULL);
	*y = linear_divided(b, shifted ? patch_node(b->p, "Add", b->hint, PATCH_IN(near[0], *y), 1, NULL) :
	                    build_value(b, "(float[B,H,T,E] near, float[B,H,T,X] c, float[B,H,T,E] far, float[H,1,1] g) => (float[B,H,T,E] y) {\n"
	                                   "  d = Sub (g, c)\n"
	                                   "  top = Constant <value_float = 60.0> ()\n"
	                                   "  dm = Min (d, top)\n"
	                                   "  e = Exp (dm)\n"
	                                   "  some = Mul (far, e)\n"
	                                   "  y = Add (near, some) }", BUILD_IN(near[0], joined(b, near[1], 1), *y, gate)));
}

/* ---- Rows ---- */

static const struct mechanism rows[] = {
	{
		.name = "window",
		.doc = "softmax over the last tokens and nothing else: what every hybrid should be compared with",
		.source = "Beltagy et al., Longformer, 2020, section 3.1",
		.build = window,
		.window = 64,
		.normaliser = NORM_NONE,
	},
	{
		.name = "diag",
		.doc = "softmax within blocks of tokens and nothing else",
		.source = "Qin et al., The Devil in Linear Transformer, 2022, section 3.3 (DiagAttention)",
		.build = diagonal,
		.window = 64,
		.normaliser = NORM_NONE,
	},
	{
		.name = "lolcats",
		.doc = "hedgehog's map of what left the window, beside exp(s - max s) in it, divided by one sum",
		.source = "Zhang et al., LoLCATs, 2025, section 3.1",
		.map = hedgehog_map,
		.parameters = identity_weights,
		.window = 64,
		.shifted = true,
	},
	{
		.name = "lolcats-terraced",
		.doc = "the same with windows that begin with the block of W tokens before the query's own, so that what has left them changes once a block",
		.source = "Zhang et al., LoLCATs, 2025, section 3.1, with the terraced windows of its code",
		.map = hedgehog_map,
		.parameters = identity_weights,
		.window = 64,
		.shifted = true,
		.terraced = true,
	},
	{
		.name = "lit",
		.doc = "max(x, 0), and a convolution of 5 x 5 over the values' image, for tokens that are pixels and see each other",
		.source = "Wang et al., LiT, 2025, section 3.1",
		.map = "(float[B,H,T,D] x) => (float[B,H,T,F] y) { y = Relu (x) }",
		.may_vanish = true,
		.image = true,
	},
	{
		.name = "lit-focused",
		.doc = "the same with focused's map",
		.source = "Wang et al., LiT, 2025, section 3.1; Han et al., FLatten Transformer, 2023, section 4",
		.map = focused_map,
		.may_vanish = true,
		.image = true,
	},
};

const struct mechanism_family hybrid_family = { rows, sizeof rows / sizeof *rows };
