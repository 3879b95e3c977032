/*
 * The gradient of LinearAttention, linnet's own operator: what the gradient of that row is, so that it has a kernel. Written to a file it is
 * its body.
 *
 * Of one head, a token with a = exp(decay), forward:
 *	S' = diag(a) S;  off = v - k S';  n = beta off;  S = S' + k^T n;  o = scale q S         (off = v, n = v for rules that do not correct)
 * and from the last token to the first, with dO and with dS, at first the gradient of present_state:
 *	dq = scale dO S^T;  dS += scale q^T dO;  dn = k dS;  dk = n dS^T
 *	dbeta = <dn, off>;  dv = beta dn;  dk -= dv S'^T;  dS -= k^T dv                           (dv = dn)
 *	ddecay = a rowsum(dS * S before);  dS = diag(a) dS
 */
#include <math.h>
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/linear.h"

enum { IN_DY = IN_BETA + 1, IN_DLAST, NINPUT };
enum { NOUTPUT = IN_BETA + 1 }; /* the gradient of input i is output i */

static bool call_has(const struct shape_call *c, int i) { return i < c->nin && c->in[i]; }

/* Inputs as LinearAttention has them, then the gradients of its outputs. */
static enum linnet_code shape_linear_grad(struct shape_call *c)
{
	int64_t h = c->attr[Q_NUM_HEADS].i, hkv = c->attr[KV_NUM_HEADS].i;
	struct type forward[2] = { 0 };
	struct shape_call f = *c;

	if (h % hkv)
		return fail(c->e, LINNET_EATTR, "%lld query heads do not share %lld key heads evenly", (long long)h, (long long)hkv);
	f.nin = c->nin < IN_DY ? c->nin : IN_DY;
	f.out = forward;
	f.nout = 2;
	TRY(shape_linear_attention(&f));
	TRY(shape_check(c, IN_DY, &forward[0].shape));
	TRY(shape_check(c, IN_DLAST, &forward[1].shape));
	for (int i = 0; i < c->nout; i++) {
		if (call_has(c, i))
			c->out[i] = (struct type){ .dt = c->in[i]->dt, .shape = c->in[i]->shape };
		else if (i == IN_PAST)
			c->out[i] = (struct type){ .dt = c->in[call_has(c, IN_DLAST) ? IN_DLAST : IN_QUERY]->dt, .shape = forward[1].shape };
		else if (c->wanted[i])
			return fail(c->e, LINNET_EMODEL, "output \"%s\" is the gradient of an input that is not there", op_out(c->op, i)->name);
	}
	return LINNET_OK;
}

/* ---- The kernel ---- */

struct grads {
	const double *q, *k, *v, *past, *decay, *beta, *dy, *dlast;
	double *dbeta; /* summed over heads that share one */
	struct tensor *const *out;
	int64_t batch, steps, h, hkv, dk, dv, ndecay, nbeta;
	double scale;
	double *state;     /* of one head: before each token, and the last: [T + 1, dk, dv] */
	double *off, *fix; /* [T, dv] */
	double *ds, *dkey, *dfix;
};

static void put(const struct grads *g, int out, int64_t i, double x)
{
	if (g->out[out])
		tensor_put(g->out[out], i, x);
}

/* The factor that row i of the state is kept by at a token (of all heads) `at`. */
static double kept(const struct grads *g, int64_t at, int64_t i)
{
	return g->decay ? exp(g->decay[at * g->ndecay + i % g->ndecay]) : 1;
}

static double beta_at(const struct grads *g, int64_t b, int64_t t, int64_t head)
{
	return g->beta ? g->beta[(b * g->steps + t) * g->nbeta + head % g->nbeta] : 1;
}

static void head_forward(const struct grads *g, int64_t b, int64_t head)
{
	for (int64_t t = 0; t < g->steps; t++) {
		int64_t at = (b * g->steps + t) * g->hkv + head;
		const double *k = g->k + at * g->dk, *v = g->v + at * g->dv, *old = g->state + t * g->dk * g->dv;
		double *s = g->state + (t + 1) * g->dk * g->dv, *off = g->off + t * g->dv, *fix = g->fix + t * g->dv;

		for (int64_t j = 0; j < g->dv; j++) {
			off[j] = v[j];
			for (int64_t i = 0; i < g->dk && g->beta; i++)
				off[j] -= k[i] * kept(g, at, i) * old[i * g->dv + j];
			fix[j] = beta_at(g, b, t, head) * off[j];
		}
		for (int64_t i = 0; i < g->dk; i++)
			for (int64_t j = 0; j < g->dv; j++)
				s[i * g->dv + j] = kept(g, at, i) * old[i * g->dv + j] + k[i] * fix[j];
	}
}

/* What the queries of one token say: dq, and dS += scale q^T dO. */
static void queries_back(const struct grads *g, int64_t b, int64_t t, int64_t head)
{
	const double *s = g->state + (t + 1) * g->dk * g->dv;
	int64_t group = g->h / g->hkv;

	for (int64_t r = head * group; r < (head + 1) * group; r++) {
		int64_t at = (b * g->steps + t) * g->h + r;
		const double *q = g->q + at * g->dk, *dy = g->dy ? g->dy + at * g->dv : NULL;

		for (int64_t i = 0; i < g->dk; i++) {
			double sum = 0;

			for (int64_t j = 0; j < g->dv && dy; j++) {
				sum += dy[j] * s[i * g->dv + j];
				g->ds[i * g->dv + j] += g->scale * q[i] * dy[j];
			}
			put(g, IN_QUERY, at * g->dk + i, g->scale * sum);
		}
	}
}

static void head_back(const struct grads *g, int64_t b, int64_t head)
{
	double *ds = g->ds;

	for (int64_t t = g->steps; t-- > 0;) {
		int64_t at = (b * g->steps + t) * g->hkv + head;
		const double *k = g->k + at * g->dk, *old = g->state + t * g->dk * g->dv, *fix = g->fix + t * g->dv, *off = g->off + t * g->dv;
		double beta = beta_at(g, b, t, head), whole = 0;

		queries_back(g, b, t, head);
		memset(g->dkey, 0, (size_t)g->dk * sizeof *g->dkey);
		for (int64_t j = 0; j < g->dv; j++) {
			double dn = 0;

			for (int64_t i = 0; i < g->dk; i++) {
				dn += k[i] * ds[i * g->dv + j];
				g->dkey[i] += ds[i * g->dv + j] * fix[j];
			}
			if (g->beta)
				g->dbeta[(b * g->steps + t) * g->nbeta + head % g->nbeta] += dn * off[j];
			g->dfix[j] = beta * dn;
			put(g, IN_VALUE, at * g->dv + j, g->dfix[j]);
		}
		for (int64_t i = 0; i < g->dk; i++) {
			double a = kept(g, at, i), sum = 0;

			for (int64_t j = 0; j < g->dv; j++) {
				if (g->beta) {
					g->dkey[i] -= a * old[i * g->dv + j] * g->dfix[j];
					ds[i * g->dv + j] -= k[i] * g->dfix[j];
				}
				ds[i * g->dv + j] *= a;
				sum += ds[i * g->dv + j] * old[i * g->dv + j];
			}
			put(g, IN_KEY, at * g->dk + i, g->dkey[i]);
			whole += sum;
			if (g->decay && g->ndecay > 1)
				put(g, IN_DECAY, at * g->ndecay + i, sum);
		}
		if (g->decay && g->ndecay == 1)
			put(g, IN_DECAY, at, whole);
	}
}

static enum linnet_code linear_grad(struct kernel_call *c)
{
	int64_t h = c->attr[Q_NUM_HEADS].i, hkv = c->attr[KV_NUM_HEADS].i, size;
	struct grads g = { .h = h, .hkv = hkv, .batch = c->in[IN_QUERY]->d[0], .steps = c->in[IN_QUERY]->d[1], .dk = c->in[IN_KEY]->d[2] / hkv,
	                   .dv = c->in[IN_VALUE]->d[2] / hkv, .ndecay = 1, .nbeta = 1 };
	struct tensor *out[NOUTPUT] = { NULL };
	struct linnet_error *e = c->e;

	memcpy(out, c->out, (size_t)c->nout * sizeof *out);
	g.out = out;
	TRY(kernel_doubles(c, IN_QUERY, &g.q));
	TRY(kernel_doubles(c, IN_KEY, &g.k));
	TRY(kernel_doubles(c, IN_VALUE, &g.v));
	TRY(kernel_doubles(c, IN_PAST, &g.past));
	TRY(kernel_doubles(c, IN_DECAY, &g.decay));
	TRY(kernel_doubles(c, IN_BETA, &g.beta));
	TRY(kernel_doubles(c, IN_DY, &g.dy));
	TRY(kernel_doubles(c, IN_DLAST, &g.dlast));
	if (g.decay)
		g.ndecay = c->in[IN_DECAY]->d[2] / hkv;
	if (g.beta)
		g.nbeta = c->in[IN_BETA]->d[2];
	g.scale = c->attr[SCALE].f != 0 ? c->attr[SCALE].f : 1 / sqrt((double)g.dk);
	size = g.dk * g.dv;
	TRY_NEW(g.state, c->scratch, (g.steps + 1) * size);
	TRY_NEW(g.off, c->scratch, g.steps * g.dv);
	TRY_NEW(g.fix, c->scratch, g.steps * g.dv);
	TRY_NEW(g.ds, c->scratch, size);
	TRY_NEW(g.dkey, c->scratch, g.dk);
	TRY_NEW(g.dfix, c->scratch, g.dv);
	TRY_NEW(g.dbeta, c->scratch, g.batch * g.steps * g.nbeta);
	for (int64_t bh = 0; bh < g.batch * hkv; bh++) {
		if (g.past)
			memcpy(g.state, g.past + bh * size, (size_t)size * sizeof *g.state);
		else
			memset(g.state, 0, (size_t)size * sizeof *g.state);
		if (g.dlast)
			memcpy(g.ds, g.dlast + bh * size, (size_t)size * sizeof *g.ds);
		else
			memset(g.ds, 0, (size_t)size * sizeof *g.ds);
		head_forward(&g, bh / hkv, bh % hkv);
		head_back(&g, bh / hkv, bh % hkv);
		for (int64_t i = 0; i < size; i++)
			put(&g, IN_PAST, bh * size + i, g.ds[i]);
	}
	for (int64_t i = 0; g.beta && i < g.batch * g.steps * g.nbeta; i++)
		put(&g, IN_BETA, i, g.dbeta[i]);
	return LINNET_OK;
}

/* ---- The body ---- */

#define SAY(...) str_addf(&b->s, __VA_ARGS__)

/* One token back, with s the state before it; of heads: k: [.., dk, 1]  v: [.., 1, dv]  q: [.., R, dk]  y: [.., R, dv]  g: [.., 1 or dk, 1] */
static void write_step_back(struct body *b, bool decays, bool corrects, bool one_decay)
{
	SAY("body = back (ds, q_t, k_t, v_t, y_t%s%s, s) => (ds_next, dq_t, dk_t, dv_t%s%s) {\n", decays ? ", g_t" : "", corrects ? ", b_t" : "",
	    decays ? ", dg_t" : "", corrects ? ", db_t" : "");
	SAY(decays ? "a = Exp (g_t)\ns_old = Mul (s, a)\n" : "s_old = Identity (s)\n");
	SAY("k_row = Transpose <perm = [0, 1, 3, 2]> (k_t)\n");
	SAY(corrects ? "held = MatMul (k_row, s_old)\noff = Sub (v_t, held)\nn = Mul (off, b_t)\n" : "n = Identity (v_t)\n");
	SAY("add = MatMul (k_t, n)\ns_new = Add (s_old, add)\n"
	    "s_across = Transpose <perm = [0, 1, 3, 2]> (s_new)\ndq_t = MatMul (y_t, s_across)\n"
	    "q_across = Transpose <perm = [0, 1, 3, 2]> (q_t)\nread = MatMul (q_across, y_t)\nds_read = Add (ds, read)\n"
	    "n_column = Transpose <perm = [0, 1, 3, 2]> (n)\ndn = MatMul (k_row, ds_read)\ndk_add = MatMul (ds_read, n_column)\n");
	if (corrects)
		SAY("last = Constant <value = int64[1] {-1}> ()\nslope = Mul (dn, off)\ndb_t = ReduceSum (slope, last)\n"
		    "dv_t = Mul (dn, b_t)\ndv_column = Transpose <perm = [0, 1, 3, 2]> (dv_t)\ndk_held = MatMul (s_old, dv_column)\n"
		    "dk_t = Sub (dk_add, dk_held)\nfixed = MatMul (k_t, dv_t)\nds_old = Sub (ds_read, fixed)\n");
	else
		SAY("dv_t = Identity (dn)\ndk_t = Identity (dk_add)\nds_old = Identity (ds_read)\n");
	if (decays)
		SAY("ds_next = Mul (ds_old, a)\nlapse = Mul (ds_next, s)\naxes = Constant <value = int64[%d] {%s-1}> ()\n"
		    "dg_t = ReduceSum (lapse, axes)\n}", one_decay ? 2 : 1, one_decay ? "-2, " : "");
	else
		SAY("ds_next = Identity (ds_old)\n}");
}

/* Output of input i, whose elements are those of `name`, [B, T, heads, .., ..], in the type `real`. */
static void write_output(struct body *b, int i, const char *name, enum dtype real)
{
	const char *in = op_in(b->c->op, i)->name, *out = op_out(b->c->op, i)->name;

	SAY("%s_lengths = Shape (%s)\n%s_flat = Reshape <allowzero = 1> (%s, %s_lengths)\n", name, in, name, name, name);
	if (real == b->c->in[i]->dt)
		SAY("%s = Identity (%s_flat)\n", out, name);
	else
		SAY("%s = Cast <to = %d> (%s_flat)\n", out, (int)b->c->in[i]->dt, name);
}

/* Two Scans: one to the end for the states before each token, one back. */
static enum linnet_code write_linear_grad(struct shape_call *c, const char **text)
{
	bool decays = rule_decays(&c->attr[UPDATE_RULE]), corrects = rule_corrects(&c->attr[UPDATE_RULE]);
	int64_t h = c->attr[Q_NUM_HEADS].i, hkv = c->attr[KV_NUM_HEADS].i;
	enum dtype dt = c->in[IN_QUERY]->dt, real = dt == DT_DOUBLE ? DT_DOUBLE : DT_FLOAT;
	enum dtype state = c->in[call_has(c, IN_PAST) ? IN_PAST : call_has(c, IN_DLAST) ? IN_DLAST : IN_QUERY]->dt;
	struct type forward[2] = { 0 };
	struct shape_call f = *c;
	dim dk, dv, ndecay = 1, nbeta = 1;
	double scale = c->attr[SCALE].f;
	struct body body, *b = &body;

	f.nin = c->nin < IN_DY ? c->nin : IN_DY;
	f.out = forward;
	f.nout = 2;
	TRY(shape_linear_attention(&f));
	dk = forward[1].shape.d[2];
	dv = forward[1].shape.d[3];
	if (decays && c->in[IN_DECAY]->shape.rank == 3)
		ndecay = dim_div(c->dims, c->in[IN_DECAY]->shape.d[2], hkv);
	if (corrects && c->in[IN_BETA]->shape.rank == 3)
		nbeta = c->in[IN_BETA]->shape.d[2];
	if (!dim_is_int(dk) || !dim_is_int(dv) || !dim_is_int(ndecay) || !dim_is_int(nbeta) || dt == DT_UNDEFINED || state == DT_UNDEFINED)
		return fail(c->e, LINNET_EUNSUPPORTED, "widths of heads and element types must be known to write it in other operators");
	body_begin(b, c);
	linear_five(b, "q", "query", dt, real, hkv, h / hkv, dk);
	linear_five(b, "k", "key", dt, real, hkv, dk, 1);
	linear_five(b, "v", "value", dt, real, hkv, 1, dv);
	body_float(b, "none", real, 0);
	body_float(b, "scale", real, scale != 0 ? scale : 1 / sqrt((double)dk));
	if (call_has(c, IN_DY)) {
		linear_five(b, "y_given", "d_output", dt, real, hkv, h / hkv, dv);
	} else {
		body_ints(b, "y_some", 1, &dv);
		SAY("y_first = Constant <value = int64[4] {0, 1, 2, 3}> ()\nq_lengths = Shape (q)\ny_lead = Gather (q_lengths, y_first)\n"
		    "y_lengths = Concat <axis = 0> (y_lead, y_some)\ny_given = Expand (none, y_lengths)\n");
	}
	SAY("y = Mul (y_given, scale)\n");
	if (decays)
		linear_five(b, "g", "decay", dt, real, hkv, ndecay, 1);
	if (corrects)
		linear_five(b, "b", "beta", dt, real, nbeta, 1, 1);
	body_length(b, "batch", DIM_NONE, "query", 0);
	body_ints(b, "heads", 3, (int64_t[]){ hkv, dk, dv });
	SAY("s_lengths = Concat <axis = 0> (batch, heads)\nzeros = Expand (none, s_lengths)\n");
	body_cast(b, "s0", call_has(c, IN_PAST) ? "past_state" : "zeros", call_has(c, IN_PAST) ? state : real, real);
	body_cast(b, "ds_last", call_has(c, IN_DLAST) ? "d_present_state" : "zeros", call_has(c, IN_DLAST) ? state : real, real);
	SAY("s_end, before = Scan <num_scan_inputs = %d, scan_input_axes = [1, 1%s%s], ", 2 + decays + corrects, decays ? ", 1" : "", corrects ? ", 1" : "");
	SAY("body = step (s, k_t, v_t%s%s) => (s_next, s_before) {\ns_before = Identity (s)\n", decays ? ", g_t" : "", corrects ? ", b_t" : "");
	SAY(decays ? "a = Exp (g_t)\ns_old = Mul (s, a)\n" : "s_old = Identity (s)\n");
	SAY(corrects ? "row = Transpose <perm = [0, 1, 3, 2]> (k_t)\nheld = MatMul (row, s_old)\noff = Sub (v_t, held)\nn = Mul (off, b_t)\n"
	             : "n = Identity (v_t)\n");
	SAY("add = MatMul (k_t, n)\ns_next = Add (s_old, add)\n}> (s0, k, v%s%s)\n", decays ? ", g" : "", corrects ? ", b" : "");
	SAY("ds_first, dq, dk, dv%s%s = Scan <num_scan_inputs = %d, scan_input_axes = [1, 1, 1, 1%s%s, 0], scan_input_directions = [1, 1, 1, 1, 1%s%s], "
	    "scan_output_axes = [1, 1, 1%s%s], scan_output_directions = [1, 1, 1%s%s], ",
	    decays ? ", dg" : "", corrects ? ", db" : "", 5 + decays + corrects, decays ? ", 1" : "", corrects ? ", 1" : "", decays ? ", 1" : "",
	    corrects ? ", 1" : "", decays ? ", 1" : "", corrects ? ", 1" : "", decays ? ", 1" : "", corrects ? ", 1" : "");
	write_step_back(b, decays, corrects, ndecay == 1);
	SAY("> (ds_last, q, k, v, y%s%s, before)\n", decays ? ", g" : "", corrects ? ", b" : "");
	write_output(b, IN_QUERY, "dq", real);
	write_output(b, IN_KEY, "dk", real);
	write_output(b, IN_VALUE, "dv", real);
	body_cast(b, "d_past_state", "ds_first", real, state);
	if (decays)
		write_output(b, IN_DECAY, "dg", real);
	if (corrects && nbeta == 1 && hkv > 1) {
		SAY("across = Constant <value = int64[1] {2}> ()\ndb_all = ReduceSum (db, across)\n");
		write_output(b, IN_BETA, "db_all", real);
	} else if (corrects) {
		write_output(b, IN_BETA, "db", real);
	}
	return body_end(b, text);
}

enum linnet_code grad_linear_attention(struct shape_call *c, const char **text)
{
	int64_t h = c->attr[Q_NUM_HEADS].i, hkv = c->attr[KV_NUM_HEADS].i;
	struct body body, *b = &body;

	if (h % hkv || (op_nattr(c->op) > STATE_WINDOW && c->attr[STATE_WINDOW].i))
		return LINNET_OK;
	body_begin(b, c);
	SAY("d_query, d_key, d_value");
	for (int i = IN_PAST; i < c->nin; i++) /* the gradients of inputs that are there */
		SAY(", %s%s", c->in[i] ? "d_" : "", c->in[i] ? op_in(c->op, i)->name : "");
	SAY(" = linnet.LinearAttentionGrad <chunk_size = %lld, q_num_heads = %lld, kv_num_heads = %lld, "
	    "scale = %#.9g, update_rule = \"%.*s\"> (query, key, value, past_state, decay, beta, d_output, d_present_state)\n",
	    (long long)c->attr[CHUNK_SIZE].i, (long long)h, (long long)hkv, c->attr[SCALE].f, (int)c->attr[UPDATE_RULE].s.n, c->attr[UPDATE_RULE].s.p);
	return body_end(b, text);
}

static const struct op rows[] = {
	{
		.domain = "linnet", .name = "LinearAttentionGrad", .since = 1,
		.doc = "The gradients of LinearAttention's inputs, from its inputs and the gradients of its outputs.",
		.in = IN({ "query", T, FLOW_LINEAR }, { "key", T, FLOW_SMOOTH }, { "value", T, FLOW_SMOOTH },
		         { "past_state", T1, FLOW_SMOOTH, OPTIONAL }, { "decay", T, FLOW_SMOOTH, OPTIONAL }, { "beta", T, FLOW_SMOOTH, OPTIONAL },
		         { "d_output", T, FLOW_LINEAR, OPTIONAL }, { "d_present_state", T1, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "d_query", T }, { "d_key", T }, { "d_value", T }, { "d_past_state", T1, .flags = OPTIONAL },
		           { "d_decay", T, .flags = OPTIONAL }, { "d_beta", T, .flags = OPTIONAL }),
		.attr = ATTRS(LINEAR_ATTRIBUTES),
		.types = { [T] = FLOATS, [T1] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_linear_grad,
		.kernel = linear_grad,
		.fast = FAST(&fast_linear_grad),
		.write_body = write_linear_grad,
		.fuzz = { .shapes = FUZZ_CUSTOM, .lo = -0.5, .hi = 0.5 },
	},
};

const struct op_family linear_grad_ops = FAMILY("linear_grad", rows);
