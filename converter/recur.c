/*
 * Recurrences in every target's words: the operator, chunks, or token by token.
 *
 *	S <- diag(exp g) S      v' = beta (v - k S)      S <- S + k^T v'      o = q S
 *
 * Sources: Yang et al., Gated Linear Attention, 2024, section 4; Yang et al., Parallelizing Linear Transformers with the Delta Rule, 2024,
 * section 3 (the WY form); Yang et al., Gated Delta Networks, 2024.
 */
#include "converter/build.h"
#include "ops/base/str.h"

/* Inputs of a template in the order q, k, v, then those of g and beta that exist. */
static int inputs_of(const struct recurrence *r, value_id *in)
{
	int n = 3;

	in[0] = r->q;
	in[1] = r->k;
	in[2] = r->v;
	if (r->g)
		in[n++] = r->g;
	if (r->beta)
		in[n++] = r->beta;
	return n;
}

static void declare_inputs(struct str *t, const struct recurrence *r)
{
	str_addf(t, "(float[B,H,T,F] q, float[B,G,T,F] k, float[B,G,T,E] v%s%s", r->g ? ", float[B,G,T,X] g" : "",
	         r->beta ? ", float[B,G,T,1] beta" : "");
}

/* ---- The operator ---- */

/* name: x [B, heads, T, width] as x3 [B, T, heads width]. */
static void pack(struct str *t, const char *x, int64_t numbers)
{
	str_addf(t, "  %st = Transpose <perm = [0, 2, 1, 3]> (%s)\n"
	            "  %ss = Constant <value_ints = [0, 0, %lld]> ()\n"
	            "  %s3 = Reshape (%st, %ss)\n",
	         x, x, x, (long long)numbers, x, x, x);
}

static value_id by_operator(struct build *b, const struct recurrence *r)
{
	value_id in[5];
	struct str t;

	inputs_of(r, in);
	str_init(&t, b->scratch);
	declare_inputs(&t, r);
	str_add(&t, ") => (float[B,H,T,E] o) {\n");
	pack(&t, "q", r->H * r->F);
	pack(&t, "k", r->G * r->F);
	pack(&t, "v", r->G * r->E);
	if (r->g)
		pack(&t, "g", r->G * (r->by_channel ? r->F : 1));
	if (r->beta)
		pack(&t, "beta", r->G);
	str_addf(&t, "  o3, state = %sLinearAttention <update_rule = \"%s\", scale = 1.0, q_num_heads = %lld, kv_num_heads = %lld> "
	             "(q3, k3, v3, \"\", %s, %s)\n"
	             "  os = Constant <value_ints = [0, 0, %lld, %lld]> ()\n"
	             "  ot = Reshape (o3, os)\n"
	             "  o = Transpose <perm = [0, 2, 1, 3]> (ot) }",
	         b->target == TARGET_ORT ? "com.microsoft." : "",
	         r->beta ? r->g ? "gated_delta" : "delta" : r->g ? "gated" : "linear", (long long)r->H, (long long)r->G, r->g ? "g3" : "\"\"",
	         r->beta ? "beta3" : "\"\"", (long long)r->H, (long long)r->E);
	return build_value(b, str_done(&t), in);
}

/* ---- Token by token, with the state in and out ---- */

static value_id by_token(struct build *b, const struct recurrence *r, const char *name)
{
	value_id in[6], out[2] = { 0, 0 };
	int n = inputs_of(r, in);
	struct str t;

	in[n] = build_past(b, name, 4, (int64_t[]){ 0, r->G, r->F, r->E });
	str_init(&t, b->scratch);
	declare_inputs(&t, r);
	str_addf(&t, ", float[B,G,F,E] past) => (float[B,H,T,E] o, float[B,G,F,E] present) {\n"
	             "  b = Shape <start = 0, end = 1> (k)\n"
	             "  t = Shape <start = 2, end = 3> (k)\n"
	             "  gr = Constant <value_ints = [%lld, %lld]> ()\n"
	             "  f = Constant <value_ints = [%lld]> ()\n"
	             "  qshape = Concat <axis = 0> (b, gr, t, f)\n"
	             "  q5 = Reshape <allowzero = 1> (q, qshape)\n",
	         (long long)r->G, (long long)(r->H / r->G), (long long)r->F);
	str_addf(&t, "  present, oc = Scan <num_scan_inputs = %d, scan_input_axes = [3, 2, 2%s%s], scan_output_axes = [3], body = token "
	             "(float[B,G,F,E] s, float[B,G,R,F] qi, float[B,G,F] ki, float[B,G,E] vi%s%s) => (float[B,G,F,E] sn, float[B,G,R,E] oi) {\n"
	             "    last = Constant <value_ints = [-1]> ()\n"
	             "    second = Constant <value_ints = [-2]> ()\n"
	             "    kc = Unsqueeze (ki, last)\n"
	             "    vr = Unsqueeze (vi, second)\n",
	         n, r->g ? ", 2" : "", r->beta ? ", 2" : "", r->g ? ", float[B,G,X] gi" : "", r->beta ? ", float[B,G,1] bi" : "");
	if (r->g)
		str_addf(&t, "    gc = Unsqueeze (gi, %s)\n"
		             "    a = Exp (gc)\n"
		             "    left = Mul (s, a)\n",
		         r->by_value ? "second" : "last");
	else
		str_add(&t, "    left = Identity (s)\n");
	str_add(&t, r->beta ? "    kr = Unsqueeze (ki, second)\n"
	                      "    held = MatMul (kr, left)\n"
	                      "    off = Sub (vr, held)\n"
	                      "    bc = Unsqueeze (bi, last)\n"
	                      "    put = Mul (off, bc)\n"
	                    : "    put = Identity (vr)\n");
	str_addf(&t, "    ds = Mul (kc, put)\n"
	             "    sn = Add (left, ds)\n"
	             "    oi = MatMul (qi, sn) }> (past, q5, k, v%s%s)\n"
	             "  h = Constant <value_ints = [%lld]> ()\n"
	             "  e = Constant <value_ints = [%lld]> ()\n"
	             "  oshape = Concat <axis = 0> (b, h, t, e)\n"
	             "  o = Reshape <allowzero = 1> (oc, oshape) }",
	         r->g ? ", g" : "", r->beta ? ", beta" : "", (long long)r->H, (long long)r->E);
	build_text(b, str_done(&t), in, out);
	build_present(b, name, out[1]);
	return out[0];
}

/* ---- Chunks ---- */

static double not_after(int64_t i, int64_t j, int64_t x) { (void)x; return j <= i; }
static double before(int64_t i, int64_t j, int64_t x) { (void)x; return j < i; }
/* The lower left m x m block of each 2m x 2m block on the diagonal. */
static double block(int64_t i, int64_t j, int64_t m) { return i / (2 * m) == j / (2 * m) && i % (2 * m) >= m && j % (2 * m) < m; }

/*
 * (I + A)^-1 of strictly lower A: X <- X - X (A . M) X for blocks of 1, 2, 4, ... < C. Powers of A would grow where keys are alike; this does
 * not. The masks are inputs m1, m2, ...
 */
static void invert(struct str *t, int64_t C)
{
	long long m = 1;

	str_add(t, C > 1 ? "  A1 = Mul (A, m1)\n  X1 = Sub (eye, A1)\n" : "  X1 = Identity (eye)\n");
	for (m = 2; m < C; m *= 2)
		str_addf(t, "  A%lld = Mul (A, m%lld)\n"
		            "  XA%lld = MatMul (X%lld, A%lld)\n"
		            "  Y%lld = MatMul (XA%lld, X%lld)\n"
		            "  X%lld = Sub (X%lld, Y%lld)\n",
		         m, m, m, m / 2, m, m, m, m / 2, m, m / 2, m);
	str_addf(t, "  X = Identity (X%lld)\n", m / 2);
}

static double same(int64_t i, int64_t j, int64_t x) { (void)x; return i == j; }

/* x [B, heads, T, width] in chunks: x6 [B, G, heads / G, N, C, width]. */
static void cut(struct str *t, const char *x, const char *heads, int64_t C, int64_t width)
{
	str_addf(t, "  %sp = Pad (%s, pads)\n"
	            "  %sw = Constant <value_ints = [%lld, %lld]> ()\n"
	            "  %sshape = Concat <axis = 0> (b, %s, n, %sw)\n"
	            "  %s6 = Reshape (%sp, %sshape)\n",
	         x, x, x, (long long)C, (long long)width, x, heads, x, x, x, x);
}

/* P, N, qe, kd, and W and z where they exist: what the scan takes along of each chunk. */
static void within_by_key(struct str *t, const struct recurrence *r, int64_t C)
{
	if (r->g)
		str_add(t, "  qe = Mul (q6, eb)\n"
		           "  kd = Mul (k6, eu)\n"
		           "  bct = Transpose <perm = [0, 1, 2, 3, 5, 4]> (bc)\n"
		           "  z = Exp (bct)\n");
	if (r->g && r->by_channel)
		str_add(t, "  bi = Unsqueeze (bs, a5)\n"
		            "  bj = Unsqueeze (bs, a4)\n"
		            "  d = Sub (bi, bj)\n"
		            "  dm = Min (d, zero)\n"
		            "  D = Exp (dm)\n"
		            "  kj = Unsqueeze (k6, a4)\n"
		            "  kD = Mul (D, kj)\n"
		            "  qc = Unsqueeze (q6, a6)\n"
		            "  qk7 = MatMul (kD, qc)\n"
		            "  qk = Squeeze (qk7, a6)\n");
	else if (r->g)
		str_add(t, "  bt = Transpose <perm = [0, 1, 2, 3, 5, 4]> (bs)\n"
		            "  d = Sub (bs, bt)\n"
		            "  dm = Min (d, zero)\n"
		            "  D = Exp (dm)\n"
		            "  qk0 = MatMul (q6, kt)\n"
		            "  qk = Mul (qk0, D)\n");
	else
		str_add(t, "  qk = MatMul (q6, kt)\n"
		            "  qe = Identity (q6)\n"
		            "  kd = Identity (k6)\n");
	str_add(t, "  P = Mul (qk, tril)\n");
	if (r->beta) {
		str_add(t, r->by_channel ? "  kc = Unsqueeze (k6, a6)\n"
		                            "  kk7 = MatMul (kD, kc)\n"
		                            "  kk = Squeeze (kk7, a6)\n"
		                : r->g    ? "  kk0 = MatMul (k6, kt)\n"
		                            "  kk = Mul (kk0, D)\n"
		                          : "  kk = MatMul (k6, kt)\n");
		str_addf(t, "  below = Mul (kk, stril)\n"
		             "  A = Mul (below, beta6)\n"
		             "  vb = Mul (v6, beta6)\n"
		             "  kb0 = Mul (k6, beta6)\n"
		             "  kb = %s\n",
		         r->g ? "Mul (kb0, eb)" : "Identity (kb0)");
		invert(t, C);
		str_add(t, "  N = MatMul (X, vb)\n"
		            "  W = MatMul (X, kb)\n");
	} else {
		str_add(t, "  N = Identity (v6)\n");
	}
}

static void scan_by_key(struct str *t, const struct recurrence *r)
{
	str_addf(t, "  s1, oc = Scan <num_scan_inputs = %d, scan_input_axes = [3, 3, 3, 3%s%s], scan_output_axes = [3], body = chunk "
	             "(float[B,G,U,F,E] s, float[B,G,R,C,F] qi, float[B,G,U,C,F] ki, float[B,G,R,C,C] Pi, float[B,G,U,C,E] ni%s%s) => "
	             "(float[B,G,U,F,E] sn, float[B,G,R,C,E] oi) {\n",
	         4 + (r->beta != 0) + (r->g != 0), r->beta ? ", 3" : "", r->g ? ", 3" : "", r->beta ? ", float[B,G,U,C,F] wi" : "",
	         r->g ? ", float[B,G,U,X,U] zi" : "");
	str_add(t, r->beta ? "    ws = MatMul (wi, s)\n    put = Sub (ni, ws)\n" : "    put = Identity (ni)\n");
	str_addf(t, "    near = MatMul (Pi, put)\n"
	            "    far = MatMul (qi, s)\n"
	            "    oi = Add (near, far)\n"
	            "    kt = Transpose <perm = [0, 1, 2, 4, 3]> (ki)\n"
	            "    ds = MatMul (kt, put)\n"
	            "    left = %s\n"
	            "    sn = Add (left, ds) }> (s0, qe, kd, P, N%s%s)\n",
	         r->g ? "Mul (s, zi)" : "Identity (s)", r->beta ? ", W" : "", r->g ? ", z" : "");
}

/*
 * Columns fade: D_ij [E] = exp(b_i - b_j):  o = e^b . (q S) + sum_j (q_i . k_j) D_ij . v_j      S <- S diag(e^(b_C)) + k^T (e^(b_C - b) . v)
 */
static void within_by_value(struct str *t, const struct recurrence *r, int64_t C)
{
	(void)r;
	(void)C;
	str_add(t, "  z = Exp (bc)\n"
	           "  vd = Mul (v6, eu)\n"
	           "  bi = Unsqueeze (bs, a5)\n"
	           "  bj = Unsqueeze (bs, a4)\n"
	           "  d = Sub (bi, bj)\n"
	           "  dm = Min (d, zero)\n"
	           "  D = Exp (dm)\n"
	           "  vj = Unsqueeze (v6, a4)\n"
	           "  vD = Mul (D, vj)\n"
	           "  qk = MatMul (q6, kt)\n"
	           "  P = Mul (qk, tril)\n"
	           "  P7 = Unsqueeze (P, a5)\n"
	           "  near7 = MatMul (P7, vD)\n"
	           "  near = Squeeze (near7, a5)\n");
}

static void scan_by_value(struct str *t, const struct recurrence *r)
{
	(void)r;
	str_add(t, "  s1, oc = Scan <num_scan_inputs = 6, scan_input_axes = [3, 3, 3, 3, 3, 3], scan_output_axes = [3], body = chunk "
	           "(float[B,G,U,F,E] s, float[B,G,R,C,F] qi, float[B,G,U,C,F] ki, float[B,G,R,C,E] near, float[B,G,U,C,E] vi, "
	           "float[B,G,U,C,E] ei, float[B,G,U,U,E] zi) => (float[B,G,U,F,E] sn, float[B,G,R,C,E] oi) {\n"
	           "    qs = MatMul (qi, s)\n"
	           "    far = Mul (qs, ei)\n"
	           "    oi = Add (near, far)\n"
	           "    kt = Transpose <perm = [0, 1, 2, 4, 3]> (ki)\n"
	           "    ds = MatMul (kt, vi)\n"
	           "    left = Mul (s, zi)\n"
	           "    sn = Add (left, ds) }> (s0, q6, k6, near, vd, eb, z)\n");
}

/* What both forms begin with: k6 turned, and the sums of g and what they leave. */
static void begin_within(struct str *t, const struct recurrence *r)
{
	str_add(t, "  kt = Transpose <perm = [0, 1, 2, 3, 5, 4]> (k6)\n");
	if (r->g)
		str_add(t, "  fourth = Constant <value_int = 4> ()\n"
		           "  a4 = Constant <value_ints = [4]> ()\n"
		           "  a5 = Constant <value_ints = [5]> ()\n"
		           "  a6 = Constant <value_ints = [6]> ()\n"
		           "  zero = Constant <value_float = 0.0> ()\n"
		           "  bs = CumSum (g6, fourth)\n"
		           "  bc = ReduceSum (g6, a4)\n"
		           "  eb = Exp (bs)\n"
		           "  until = Sub (bc, bs)\n"
		           "  none = Min (until, zero)\n"
		           "  eu = Exp (none)\n");
}

/*
 * With b the sums of g within a chunk, D_ij = exp(b_i - b_j) where j <= i and P = D . q k^T:
 *	o = (e^b q) S + P N      S <- e^(b_C) S + (e^(b_C - b) k)^T N
 *	N = v, or with beta, A = beta D . k k^T below the diagonal, X = (I + A)^-1:  N = X (beta v) - X (beta e^b k) S
 * Every exponent is a later sum less an earlier one, so none is above 0. Zeros behind the last token change nothing. There is always at least
 * one chunk, so a length of 0 needs no case of its own. All but the last step of the three lines is done for all chunks at once; Scan takes
 * the state along.
 */
static value_id by_chunk(struct build *b, const struct recurrence *r, const char *name)
{
	int64_t C = b->opt->chunk ? b->opt->chunk : r->by_channel || r->by_value ? 16 : r->beta ? 32 : 64, F = r->F, E = r->E;
	value_id in[24], out[2] = { 0, 0 };
	int n = inputs_of(r, in);
	struct str t;

	str_init(&t, b->scratch);
	declare_inputs(&t, r);
	str_add(&t, ", float[C,C] tril");
	in[n++] = build_mask(b, "tril", C, C, not_after, 0);
	if (r->beta) {
		str_add(&t, ", float[C,C] stril, float[C,C] eye");
		in[n++] = build_mask(b, "stril", C, C, before, 0);
		in[n++] = build_mask(b, "eye", C, C, same, 0);
		for (int64_t m = 1; m < C; m *= 2) {
			str_addf(&t, ", float[C,C] m%lld", (long long)m);
			in[n++] = build_mask(b, "blocks", C, C, block, m);
		}
	}
	if (build_steps(b)) {
		str_add(&t, ", float[B,G,F,E] past");
		in[n++] = build_past(b, name, 4, (int64_t[]){ 0, r->G, F, E });
	}
	str_addf(&t,
	         ") => (float[B,H,T,E] o%s) {\n"
	         "  t = Shape <start = 2, end = 3> (k)\n"
	         "  b = Shape <start = 0, end = 1> (k)\n"
	         "  c = Constant <value_ints = [%lld]> ()\n"
	         "  less = Constant <value_ints = [%lld]> ()\n"
	         "  single = Constant <value_ints = [1]> ()\n"
	         "  up = Add (t, less)\n"
	         "  chunks = Div (up, c)\n"
	         "  n = Max (chunks, single)\n"
	         "  all = Mul (n, c)\n"
	         "  rest = Sub (all, t)\n"
	         "  front = Constant <value_ints = [0, 0, 0, 0, 0, 0]> ()\n"
	         "  last = Constant <value_ints = [0]> ()\n"
	         "  pads = Concat <axis = 0> (front, rest, last)\n"
	         "  qg = Constant <value_ints = [%lld, %lld]> ()\n"
	         "  kg = Constant <value_ints = [%lld, 1]> ()\n",
	         build_steps(b) ? ", float[B,G,F,E] present" : "", (long long)C, (long long)C - 1, (long long)r->G, (long long)(r->H / r->G),
	         (long long)r->G);
	cut(&t, "q", "qg", C, F);
	cut(&t, "k", "kg", C, F);
	cut(&t, "v", "kg", C, E);
	if (r->g)
		cut(&t, "g", "kg", C, r->by_value ? E : r->by_channel ? F : 1);
	if (r->beta)
		cut(&t, "beta", "kg", C, 1);
	begin_within(&t, r);
	(r->by_value ? within_by_value : within_by_key)(&t, r, C);
	if (build_steps(b))
		str_add(&t, "  a2 = Constant <value_ints = [2]> ()\n"
		            "  s0 = Unsqueeze (past, a2)\n");
	else
		str_addf(&t, "  fe = Constant <value_ints = [%lld, %lld]> ()\n"
		             "  sshape = Concat <axis = 0> (b, kg, fe)\n"
		             "  s00 = Constant <value_float = 0.0> ()\n"
		             "  s0 = Expand (s00, sshape)\n",
		         (long long)F, (long long)E);
	(r->by_value ? scan_by_value : scan_by_key)(&t, r);
	if (build_steps(b))
		str_add(&t, "  present = Squeeze (s1, a2)\n");
	str_addf(&t, "  h = Constant <value_ints = [%lld]> ()\n"
	             "  e = Constant <value_ints = [%lld]> ()\n"
	             "  oshape = Concat <axis = 0> (b, h, all, e)\n"
	             "  op = Reshape (oc, oshape)\n"
	             "  axis = Constant <value_ints = [2]> ()\n"
	             "  o = Slice (op, last, t, axis) }",
	         (long long)r->H, (long long)E);
	build_text(b, str_done(&t), in, out);
	if (build_steps(b))
		build_present(b, name, out[1]);
	return out[0];
}

/* ---- All pairs: one chunk as long as the sequence, without a state: o = P N ---- */

static value_id by_pairs(struct build *b, const struct recurrence *r)
{
	const struct {
		const char *x, *heads;
		int64_t width;
	} side[] = { { "q", "qg", r->F }, { "k", "kg", r->F }, { "v", "kg", r->E }, { "g", "kg", r->by_value ? r->E : r->by_channel ? r->F : 1 } };
	value_id in[5];
	struct str t;

	inputs_of(r, in);
	str_init(&t, b->scratch);
	declare_inputs(&t, r);
	str_addf(&t, ") => (float[B,H,T,E] o) {\n"
	             "  t = Shape <start = 2, end = 3> (k)\n"
	             "  b = Shape <start = 0, end = 1> (k)\n"
	             "  n = Constant <value_ints = [1]> ()\n"
	             "  qg = Constant <value_ints = [%lld, %lld]> ()\n"
	             "  kg = Constant <value_ints = [%lld, 1]> ()\n"
	             "  tt = Concat <axis = 0> (t, t)\n"
	             "  one = Constant <value_float = 1.0> ()\n"
	             "  ones = Expand (one, tt)\n"
	             "  tril = Trilu <upper = 0> (ones)\n",
	         (long long)r->G, (long long)(r->H / r->G), (long long)r->G);
	for (int i = 0; i < 3 + (r->g != 0); i++)
		str_addf(&t, "  %sw = Constant <value_ints = [%lld]> ()\n"
		             "  %sshape = Concat <axis = 0> (b, %s, n, t, %sw)\n"
		             "  %s6 = Reshape <allowzero = 1> (%s, %sshape)\n",
		         side[i].x, (long long)side[i].width, side[i].x, side[i].heads, side[i].x, side[i].x, side[i].x, side[i].x);
	begin_within(&t, r);
	(r->by_value ? within_by_value : within_by_key)(&t, r, 0);
	str_add(&t, r->by_value ? "  o6 = Identity (near)\n" : "  o6 = MatMul (P, N)\n");
	str_addf(&t, "  h = Constant <value_ints = [%lld]> ()\n"
	             "  e = Constant <value_ints = [%lld]> ()\n"
	             "  oshape = Concat <axis = 0> (b, h, t, e)\n"
	             "  o = Reshape <allowzero = 1> (o6, oshape) }",
	         (long long)r->H, (long long)r->E);
	return build_value(b, str_done(&t), in);
}

value_id build_recurrence(struct build *b, const struct recurrence *r, const char *name)
{
	const struct fade *fade = fade_of(b->opt);
	struct recurrence seen = *r; /* a hidden token puts nothing, and lets nothing fade but by its place */

	seen.k = b->m->build ? build_hide(b, r->k) : r->k; /* features of maps were hidden already */
	if (b->m->build || !fade || fade->gate)
		seen.g = build_hide(b, r->g);
	if ((b->target == TARGET_ONNX || b->target == TARGET_ORT) && !r->by_value)
		return by_operator(b, &seen);
	if (b->target == TARGET_QUADRATIC && !r->beta) /* linear_check() has refused what has beta */
		return by_pairs(b, &seen);
	return b->target == TARGET_STEP ? by_token(b, &seen, name) : by_chunk(b, &seen, name);
}
