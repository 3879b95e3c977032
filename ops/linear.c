/* Linear attention as a recurrence, and the short convolution before it. Reference kernels, then rows. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/body.h"
#include "ops/fast/fast.h"
#include "ops/linear.h"

static bool call_has(const struct shape_call *c, int i) { return i < c->nin && c->in[i]; }

/* ---- LinearAttention ---- */

/* X: [B, T, heads width]; the lengths are joined, and the width of one head is the result. */
static enum linnet_code packed(struct shape_call *c, int i, int64_t heads, dim *batch, dim *steps, dim *width)
{
	const struct shape *s = &c->in[i]->shape;
	dim left;

	TRY(rank_check(c, i, 3, 3));
	if (s->rank != 3)
		return LINNET_OK;
	TRY(length_join(c, "batch lengths", *batch, s->d[0], batch));
	TRY(length_join(c, "sequence lengths", *steps, s->d[1], steps));
	left = dim_mod(c->dims, s->d[2], heads);
	if (dim_is_int(left) && left != 0)
		return fail(c->e, LINNET_ESHAPE, "input \"%s\" of width %lld does not make %lld heads", op_in(c->op, i)->name,
		            (long long)s->d[2], (long long)heads);
	return length_join(c, "head widths", *width, dim_div(c->dims, s->d[2], heads), width);
}

/* An input the update rule needs, or must not have. */
static enum linnet_code match_rule(struct shape_call *c, int i, bool needed)
{
	const struct text rule = c->attr[UPDATE_RULE].s;

	if (call_has(c, i) == needed)
		return LINNET_OK;
	return fail(c->e, LINNET_EMODEL, "update rule \"%.*s\" %s input \"%s\"", (int)rule.n, rule.p,
	            needed ? "needs" : "does not take", op_in(c->op, i)->name);
}

/* The state window of the row that has one; 0: the state has no window axis. */
static int64_t window_of(const struct op *op, const struct attr *attr)
{
	return op_nattr(op) > STATE_WINDOW ? attr[STATE_WINDOW].i : 0;
}

/*
 * query: [B, T, H dk]  key: [B, T, Hkv dk]  value: [B, T, Hkv dv]  past_state, present_state: [B, Hkv, dk, dv]
 * decay: [B, T, Hkv] or [B, T, Hkv dk]  beta: [B, T, Hkv] or [B, T, 1]  output: [B, T, H dv]
 * H is a multiple of Hkv; in com.microsoft Hkv may also be one of H, and a window W puts an axis before the states.
 */
enum linnet_code shape_linear_attention(struct shape_call *c)
{
	const struct attr *rule = &c->attr[UPDATE_RULE];
	int64_t h = c->attr[Q_NUM_HEADS].i, hkv = c->attr[KV_NUM_HEADS].i, w = window_of(c->op, c->attr);
	dim batch = DIM_NONE, steps = DIM_NONE, dk = DIM_NONE, dv = DIM_NONE, *d;
	struct shape state = { .rank = w ? 5 : 4 };

	if (h % hkv && (!c->op->domain || hkv % h))
		return fail(c->e, LINNET_EATTR, "%lld query heads do not share %lld key heads evenly", (long long)h, (long long)hkv);
	TRY(match_rule(c, IN_DECAY, rule_decays(rule)));
	TRY(match_rule(c, IN_BETA, rule_corrects(rule)));
	TRY(packed(c, IN_QUERY, h, &batch, &steps, &dk));
	TRY(packed(c, IN_KEY, hkv, &batch, &steps, &dk));
	TRY(packed(c, IN_VALUE, hkv, &batch, &steps, &dv));
	if (call_has(c, IN_DECAY)) {
		dim each = DIM_NONE;

		TRY(packed(c, IN_DECAY, hkv, &batch, &steps, &each));
		if (dim_is_int(each) && each != 1 && dim_is_int(dk) && each != dk)
			return fail(c->e, LINNET_ESHAPE, "a head has %lld decays; expected 1 or %lld", (long long)each, (long long)dk);
	}
	if (call_has(c, IN_BETA)) {
		dim last = DIM_NONE;

		TRY(packed(c, IN_BETA, 1, &batch, &steps, &last));
		if (dim_is_int(last) && last != 1 && last != hkv)
			return fail(c->e, LINNET_ESHAPE, "input \"beta\" has width %lld; expected 1 or %lld", (long long)last,
			            (long long)hkv);
	}
	if (w)
		state.d[0] = w;
	d = state.d + (w != 0);
	d[0] = batch;
	d[1] = hkv;
	d[2] = dk;
	d[3] = dv;
	if (call_has(c, IN_PAST)) {
		TRY(rank_check(c, IN_PAST, state.rank, state.rank));
		for (int i = 0; i < c->in[IN_PAST]->shape.rank; i++)
			TRY(length_join(c, "lengths of the states", state.d[i], c->in[IN_PAST]->shape.d[i], &state.d[i]));
	}
	c->out[0].shape = (struct shape){ .rank = 3, .d = { d[0], steps, dim_mul(c->dims, d[3], h > hkv ? h : hkv) } };
	if (c->nout > 1) {
		c->out[1].shape = state;
		if (!call_has(c, IN_PAST))
			c->out[1].dt = c->in[IN_QUERY]->dt;
	}
	return LINNET_OK;
}

/* All states of one step into slot `slot` of the window. */
static void put_states(struct tensor *t, int64_t slot, const double *s, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		tensor_put(t, slot * n + i, s[i]);
}

/*
 * One token into the state S of a head, s: [dk, dv]. With a = exp(decay), ndecay numbers, 1 or dk, of rows of S, and what a rule does not
 * have (NULL) left out:
 *	S <- diag(a) S          v' = beta (v - k S)          S <- S + k^T v'
 * fix: [dv] receives v'.
 */
static void step(double *s, const double *k, const double *v, const double *decay, int64_t ndecay, const double *beta, int64_t dk,
                 int64_t dv, double *fix)
{
	for (int64_t i = 0; i < dk && decay; i++)
		for (int64_t j = 0; j < dv; j++)
			s[i * dv + j] *= exp(decay[i % ndecay]);
	for (int64_t j = 0; j < dv; j++) {
		fix[j] = v[j];
		for (int64_t i = 0; i < dk && beta; i++)
			fix[j] -= k[i] * s[i * dv + j];
		if (beta)
			fix[j] *= *beta;
	}
	for (int64_t i = 0; i < dk; i++)
		for (int64_t j = 0; j < dv; j++)
			s[i * dv + j] += k[i] * fix[j];
}

/*
 * For each head and token the step above, then output = scale q S.
 * Query head h reads the state of head h / (H / Hkv); where Hkv > H, state h is read by query head h / (Hkv / H).
 */
static enum linnet_code linear_attention(struct kernel_call *c)
{
	int64_t h = c->attr[Q_NUM_HEADS].i, hkv = c->attr[KV_NUM_HEADS].i, w = window_of(c->op, c->attr);
	int64_t readers = h > hkv ? h : hkv, batch = c->in[IN_QUERY]->d[0], steps = c->in[IN_QUERY]->d[1];
	int64_t dk = c->in[IN_KEY]->d[2] / hkv, dv = c->in[IN_VALUE]->d[2] / hkv, size = dk * dv, all = batch * hkv * size;
	const double *q, *k, *v, *past, *decay, *beta;
	struct tensor *y = c->out[0], *present = c->nout > 1 ? c->out[1] : NULL;
	int64_t ndecay, nbeta;
	struct linnet_error *e = c->e;
	double scale = c->attr[SCALE].f != 0 ? c->attr[SCALE].f : 1 / sqrt((double)dk), *s, *fix;

	TRY(kernel_doubles(c, IN_QUERY, &q));
	TRY(kernel_doubles(c, IN_KEY, &k));
	TRY(kernel_doubles(c, IN_VALUE, &v));
	TRY(kernel_doubles(c, IN_PAST, &past));
	TRY(kernel_doubles(c, IN_DECAY, &decay));
	TRY(kernel_doubles(c, IN_BETA, &beta));
	ndecay = decay ? c->in[IN_DECAY]->d[2] / hkv : 1;
	nbeta = beta ? c->in[IN_BETA]->d[2] : 1;
	TRY_NEW(s, c->scratch, all);
	TRY_NEW(fix, c->scratch, dv);
	if (past)
		memcpy(s, past + (w ? (w - 1) * all : 0), (size_t)all * sizeof *s);
	for (int64_t i = 0; present && i < present->n; i++)
		tensor_put(present, i, 0);
	for (int64_t t = 0; t < steps; t++) {
		for (int64_t bg = 0; bg < batch * hkv; bg++) {
			int64_t at = bg / hkv * steps + t, g = bg % hkv;
			const double *kt = k + (at * hkv + g) * dk, *vt = v + (at * hkv + g) * dv;

			step(s + bg * size, kt, vt, decay ? decay + (at * hkv + g) * ndecay : NULL, ndecay,
			     beta ? beta + at * nbeta + g % nbeta : NULL, dk, dv, fix);
		}
		for (int64_t br = 0; y && br < batch * readers; br++) {
			int64_t b = br / readers, r = br % readers, at = b * steps + t;
			const double *sg = s + (b * hkv + r * hkv / readers) * size, *qt = q + (at * h + r * h / readers) * dk;

			for (int64_t j = 0; j < dv; j++) {
				double sum = 0;

				for (int64_t i = 0; i < dk; i++)
					sum += qt[i] * sg[i * dv + j];
				tensor_put(y, (at * readers + r) * dv + j, scale * sum);
			}
		}
		if (present && w && t >= steps - w)
			put_states(present, w - steps + t, s, all);
	}
	if (present && (!w || !steps))
		put_states(present, w ? w - 1 : 0, s, all);
	return LINNET_OK;
}

void linear_five(struct body *b, const char *name, const char *in, enum dtype from, enum dtype to, dim x, dim y, dim z)
{
	const dim d[5] = { 0, 0, x, y, z };
	int64_t others = 1;

	for (int i = 2; i < 5; i++)
		others *= dim_is_int(d[i]) ? d[i] : 1;
	str_addf(&b->s, "%s_all = Shape (%s)\n%s_last = Constant <value = int64[1] {2}> ()\n", name, in, name);
	str_addf(&b->s, "%s_width = Gather (%s_all, %s_last)\n%s_others = Constant <value = int64[1] {%lld}> ()\n", name, name, name,
	         name, (long long)others);
	str_addf(&b->s, "%s_other = Div (%s_width, %s_others)\n", name, name, name);
	for (int i = 0; i < 5; i++)
		if (dim_is_int(d[i]))
			str_addf(&b->s, "%s_%d = Constant <value = int64[1] {%lld}> ()\n", name, i, (long long)d[i]);
		else
			str_addf(&b->s, "%s_%d = Identity (%s_other)\n", name, i, name);
	str_addf(&b->s, "%s_shape = Concat <axis = 0> (%s_0, %s_1, %s_2, %s_3, %s_4)\n%s_five = Reshape (%s, %s_shape)\n", name, name,
	         name, name, name, name, name, in, name);
	if (from == to)
		str_addf(&b->s, "%s = Identity (%s_five)\n", name, name);
	else
		str_addf(&b->s, "%s = Cast <to = %d> (%s_five)\n", name, (int)to, name);
}

/* The step of the recurrence on one token: s: [B, Hkv, dk, dv]  k: [.., dk, 1]  v: [.., 1, dv]  q: [.., G, dk]  o: [.., G, dv] */
static void write_step(struct body *b, const struct attr *rule)
{
	bool decays = rule_decays(rule), corrects = rule_corrects(rule);

	str_addf(&b->s, "body = step (s, q_t, k_t, v_t%s%s) => (s_next, o_t) {\n", decays ? ", g_t" : "", corrects ? ", b_t" : "");
	str_add(&b->s, decays ? "a = Exp (g_t)\ns_old = Mul (s, a)\n" : "s_old = Identity (s)\n");
	str_add(&b->s, corrects ? "row = Transpose <perm = [0, 1, 3, 2]> (k_t)\n"
	                          "held = MatMul (row, s_old)\n"
	                          "off = Sub (v_t, held)\n"
	                          "w = Mul (off, b_t)\n"
	                        : "w = Identity (v_t)\n");
	str_add(&b->s, "add = Mul (k_t, w)\ns_next = Add (s_old, add)\no_t = MatMul (q_t, s_next)\n}");
}

/* A Scan over the tokens, in float, as ONNX defines it. */
static enum linnet_code write_linear_attention(struct shape_call *c, const char **text)
{
	const struct attr *rule = &c->attr[UPDATE_RULE];
	int64_t h = c->attr[Q_NUM_HEADS].i, hkv = c->attr[KV_NUM_HEADS].i;
	dim batch = DIM_NONE, steps = DIM_NONE, dk = DIM_NONE, dv = DIM_NONE, ndecay = DIM_NONE;
	enum dtype dt = c->in[IN_QUERY]->dt, state = call_has(c, IN_PAST) ? c->in[IN_PAST]->dt : dt;
	bool decays = rule_decays(rule), corrects = rule_corrects(rule);
	double scale = c->attr[SCALE].f;
	struct body b;

	if (window_of(c->op, c->attr))
		return fail(c->e, LINNET_EUNSUPPORTED, "a window of states cannot be written in other operators");
	TRY(packed(c, IN_QUERY, h, &batch, &steps, &dk));
	TRY(packed(c, IN_KEY, hkv, &batch, &steps, &dk));
	TRY(packed(c, IN_VALUE, hkv, &batch, &steps, &dv));
	if (decays)
		TRY(packed(c, IN_DECAY, hkv, &batch, &steps, &ndecay));
	if (dt == DT_UNDEFINED || state == DT_UNDEFINED)
		return fail(c->e, LINNET_EUNSUPPORTED, "element types must be known to write it in other operators");
	if (call_has(c, IN_PAST) && c->in[IN_PAST]->shape.rank == 4)
		TRY(length_join(c, "batch lengths", batch, c->in[IN_PAST]->shape.d[0], &batch));
	body_begin(&b, c);
	body_length(&b, "batch", batch, "query", 0);
	if (h >= hkv) {
		linear_five(&b, "q", "query", dt, DT_FLOAT, hkv, h / hkv, dk);
	} else {
		linear_five(&b, "q_few", "query", dt, DT_FLOAT, h, 1, dk);
		str_addf(&b.s, "which = Constant <value = int64[%lld] {0", (long long)hkv);
		for (int64_t i = 1; i < hkv; i++)
			str_addf(&b.s, ", %lld", (long long)(i * h / hkv));
		str_add(&b.s, "}> ()\nq = Gather <axis = 2> (q_few, which)\n");
	}
	linear_five(&b, "k", "key", dt, DT_FLOAT, hkv, dk, 1);
	linear_five(&b, "v", "value", dt, DT_FLOAT, hkv, 1, dv);
	if (decays)
		linear_five(&b, "g", "decay", dt, DT_FLOAT, hkv, ndecay, 1);
	if (corrects)
		linear_five(&b, "b", "beta", dt, DT_FLOAT, DIM_NONE, 1, 1);
	if (call_has(c, IN_PAST)) {
		body_cast(&b, "s0", "past_state", state, DT_FLOAT);
	} else {
		body_float(&b, "none", DT_FLOAT, 0);
		body_ints(&b, "heads", 1, &hkv);
		body_length(&b, "rows", dk, "k", 3);
		body_length(&b, "s_columns", dv, "v", 4);
		str_add(&b.s, "s_shape = Concat <axis = 0> (batch, heads, rows, s_columns)\ns0 = Expand (none, s_shape)\n");
	}
	str_addf(&b.s, "s_last, o = Scan <num_scan_inputs = %d, scan_input_axes = [1, 1, 1%s%s], scan_output_axes = [1], ",
	         3 + decays + corrects, decays ? ", 1" : "", corrects ? ", 1" : "");
	write_step(&b, rule);
	str_addf(&b.s, "> (s0, q, k, v%s%s)\n", decays ? ", g" : "", corrects ? ", b" : "");
	if (scale != 0 || dim_is_int(dk)) {
		body_float(&b, "scale", DT_FLOAT, scale != 0 ? scale : 1 / sqrt((double)dk));
	} else {
		body_length(&b, "width", dk, "k", 3);
		str_addf(&b.s, "width_float = Cast <to = %d> (width)\nroot = Sqrt (width_float)\nscale = Reciprocal (root)\n", DT_FLOAT);
	}
	body_length(&b, "tokens", steps, "query", 1);
	body_ints(&b, "readers", 1, &(int64_t){ h > hkv ? h : hkv });
	body_length(&b, "columns", dv, "v", 4);
	str_add(&b.s, "y_width = Mul (readers, columns)\n"
	        "y_shape = Concat <axis = 0> (batch, tokens, y_width)\n"
	        "y_five = Mul (o, scale)\n"
	        "y = Reshape (y_five, y_shape)\n");
	body_cast(&b, "output", "y", DT_FLOAT, dt);
	body_cast(&b, "present_state", "s_last", DT_FLOAT, state);
	return body_end(&b, text);
}

/* ---- GatedDeltaNet ---- */

enum { GD_QUERY, GD_KEY, GD_VALUE, GD_STARTS, GD_DECAY, GD_BETA, GD_STATE, GD_LOG, GD_BIAS, GD_COUNT, GD_ACTIVE };

/* Axes of a call: tokens are one axis, or two, [B, S]; heads of queries and keys, and of values. */
struct gated {
	bool spelled, packed;
	dim batch, tokens, steps, h, hv, dk, dv, decays; /* decays: numbers a head has, 1 or dk */
};

/* An input of the tokens' axes and then of `more` of d. */
static enum linnet_code join_tokens(struct shape_call *c, int i, struct gated *g, int more, dim *d)
{
	const struct shape *s = call_has(c, i) ? &c->in[i]->shape : NULL;
	int lead = 1 + g->spelled;

	if (!s)
		return LINNET_OK;
	TRY(rank_check(c, i, lead + more, lead + more));
	if (s->rank < 0)
		return LINNET_OK;
	TRY(length_join(c, g->spelled ? "batch lengths" : "numbers of tokens", g->spelled ? g->batch : g->tokens, s->d[0],
	                g->spelled ? &g->batch : &g->tokens));
	if (g->spelled)
		TRY(length_join(c, "sequence lengths", g->steps, s->d[1], &g->steps));
	for (int k = 0; k < more; k++)
		TRY(length_join(c, "numbers or widths of heads", d[k], s->d[lead + k], &d[k]));
	return LINNET_OK;
}

static enum linnet_code find_gated(struct shape_call *c, struct gated *g)
{
	const struct attr *rule = attr_get(c->op, c->attr, "update_rule");
	const struct shape *q = &c->in[GD_QUERY]->shape, *state = call_has(c, GD_STATE) ? &c->in[GD_STATE]->shape : NULL;

	*g = (struct gated){ .packed = !call_has(c, GD_KEY), .batch = DIM_NONE, .tokens = DIM_NONE, .steps = DIM_NONE, .h = DIM_NONE,
		.hv = DIM_NONE, .dk = DIM_NONE, .dv = DIM_NONE, .decays = 1 };
	if (call_has(c, GD_KEY) != call_has(c, GD_VALUE))
		return fail(c->e, LINNET_EMODEL, "key and value come together");
	if (g->packed && !state)
		return fail(c->e, LINNET_EMODEL, "a packed query comes with initial_state, which tells its parts");
	if (call_has(c, GD_DECAY) != rule_decays(rule) || call_has(c, GD_BETA) != rule_corrects(rule))
		return fail(c->e, LINNET_EMODEL, "update rule \"%.*s\" takes %s decay and %s beta", (int)rule->s.n, rule->s.p,
		            rule_decays(rule) ? "a" : "no", rule_corrects(rule) ? "a" : "no");
	TRY(rank_check(c, GD_QUERY, g->packed ? 2 : 3, g->packed ? 3 : 4));
	TRY(rank_check(c, GD_STATE, 4, 4));
	TRY(rank_check(c, GD_STARTS, 1, 1));
	if (state && state->rank == 4) {
		g->batch = state->d[0];
		g->hv = state->d[1];
		g->dv = state->d[2];
		g->dk = state->d[3];
	}
	if (q->rank < 0)
		return LINNET_OK;
	g->spelled = q->rank == (g->packed ? 3 : 4);
	if (call_has(c, GD_STARTS)) {
		const struct shape *s = &c->in[GD_STARTS]->shape;

		if (g->spelled)
			return fail(c->e, LINNET_EMODEL, "cu_seqlens comes with tokens on one axis");
		if (s->rank == 1)
			TRY(length_join(c, "batch lengths", g->batch, dim_sub(c->dims, s->d[0], 1), &g->batch));
	} else if (!g->spelled && !state) {
		return fail(c->e, LINNET_EMODEL, "tokens on one axis come with cu_seqlens or initial_state, which tell the batch");
	}
	if (g->packed) {
		dim width = DIM_NONE, left;

		TRY(join_tokens(c, GD_QUERY, g, 1, &width));
		left = dim_sub(c->dims, width, dim_mul(c->dims, g->hv, g->dv));
		g->h = dim_div(c->dims, left, dim_mul(c->dims, 2, g->dk));
		if (dim_is_int(left) && dim_is_int(g->dk) && (left <= 0 || !g->dk || left % (2 * g->dk)))
			return fail(c->e, LINNET_ESHAPE, "a query of width %lld does not hold queries and keys of width %lld", (long long)width,
			            (long long)g->dk);
	} else {
		dim key[] = { g->h, g->dk }, value[] = { g->hv, g->dv };

		TRY(join_tokens(c, GD_QUERY, g, 2, key));
		TRY(join_tokens(c, GD_KEY, g, 2, key));
		TRY(join_tokens(c, GD_VALUE, g, 2, value));
		g->h = key[0];
		g->dk = key[1];
		g->hv = value[0];
		g->dv = value[1];
	}
	if (dim_is_int(g->h) && dim_is_int(g->hv) && (g->h <= 0 || g->hv % g->h))
		return fail(c->e, LINNET_ESHAPE, "%lld value heads do not share %lld key heads evenly", (long long)g->hv, (long long)g->h);
	if (call_has(c, GD_DECAY) && c->in[GD_DECAY]->shape.rank == 3 + g->spelled) {
		dim d[] = { g->hv, g->dk };

		g->decays = g->dk;
		TRY(join_tokens(c, GD_DECAY, g, 2, d));
	} else {
		TRY(join_tokens(c, GD_DECAY, g, 1, &g->hv));
	}
	return join_tokens(c, GD_BETA, g, 1, &g->hv);
}

/*
 * query: [.., h, dk]  key: [.., h, dk]  value: [.., hv, dv], or all in the query: [.., 2 h dk + hv dv], with .. tokens or [B, S]
 * decay: [.., hv] or [.., hv, dk]  beta: [.., hv]  a_log: [hv]  dt_bias: [hv] or [hv, dk] or [hv dk]  states: [B, hv, dv, dk]
 * output: [.., hv, dv]  state_update: [B, capacity (decays + h dk + hv dv)]
 */
static enum linnet_code shape_gated_delta(struct shape_call *c)
{
	int64_t capacity = attr_get(c->op, c->attr, "state_update_capacity")->i;
	bool gate = attr_get(c->op, c->attr, "gate_activation")->s.p[0] != 'n';
	struct gated g;
	dim row;

	TRY(find_gated(c, &g));
	if (gate && (!call_has(c, GD_LOG) || !call_has(c, GD_BIAS)))
		return fail(c->e, LINNET_EMODEL, "gate_activation comes with a_log and dt_bias");
	if ((capacity > 0) != call_has(c, GD_COUNT) && capacity)
		return fail(c->e, LINNET_EMODEL, "state_update_capacity comes with capture_count");
	if (call_has(c, GD_COUNT) && !capacity)
		return fail(c->e, LINNET_EMODEL, "capture_count comes with state_update_capacity");
	TRY(rank_check(c, GD_LOG, 1, 1));
	TRY(rank_check(c, GD_BIAS, 1, 2));
	TRY(rank_check(c, GD_COUNT, 1, 1));
	TRY(scalar_check(c, GD_ACTIVE));
	if (call_has(c, GD_LOG) && c->in[GD_LOG]->shape.rank == 1)
		TRY(length_join(c, "numbers of heads of the value and a_log", g.hv, c->in[GD_LOG]->shape.d[0], NULL));
	if (call_has(c, GD_COUNT) && c->in[GD_COUNT]->shape.rank == 1)
		TRY(length_join(c, "batch lengths", g.batch, c->in[GD_COUNT]->shape.d[0], &g.batch));
	if (call_has(c, GD_BIAS) && c->in[GD_BIAS]->shape.rank >= 0) {
		dim n = shape_count(c->dims, &c->in[GD_BIAS]->shape, 0, c->in[GD_BIAS]->shape.rank);

		if (n != g.hv)
			TRY(length_join(c, "numbers of decays and of dt_bias", dim_mul(c->dims, g.hv, g.decays), n, NULL));
	}
	row = dim_add(c->dims, dim_mul(c->dims, g.hv, dim_add(c->dims, g.decays, g.dv)), dim_mul(c->dims, g.h, g.dk));
	c->out[0].shape = g.spelled ? (struct shape){ .rank = 4, .d = { g.batch, g.steps, g.hv, g.dv } }
	                            : (struct shape){ .rank = 3, .d = { g.tokens, g.hv, g.dv } };
	if (c->in[GD_QUERY]->shape.rank < 0)
		c->out[0].shape = shape_unknown();
	if (c->nout > 1)
		c->out[1].shape = (struct shape){ .rank = 4, .d = { g.batch, g.hv, g.dv, g.dk } };
	if (c->nout > 2)
		c->out[2].shape = (struct shape){ .rank = 2, .d = { g.batch, dim_mul(c->dims, capacity, row) } };
	return LINNET_OK;
}

static double logistic(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/* The logarithm of a decay from what the model gives: as it is, -exp(a_log) softplus(x + bias), or bound logistic(exp(a_log) (x + bias)). */
static double gated_decay(char kind, double x, double a_log, double bias, double bound)
{
	if (kind == 's' || kind == 'q')
		return -exp(a_log) * softplus(x + bias);
	return kind == 'k' ? bound * logistic(exp(a_log) * (x + bias)) : x;
}

/* Rows of n numbers divided by their length. */
static void unit_rows(double *x, int64_t rows, int64_t n)
{
	for (int64_t r = 0; r < rows; r++) {
		double sum = 1e-12;

		for (int64_t i = 0; i < n; i++)
			sum += x[r * n + i] * x[r * n + i];
		for (int64_t i = 0; i < n; i++)
			x[r * n + i] /= sqrt(sum);
	}
}

/* `width` numbers of every row of `step`, from `at` on, to be changed. */
static enum linnet_code columns(struct kernel_call *c, const double *x, int64_t rows, int64_t step, int64_t at, int64_t width, double **out)
{
	struct linnet_error *e = c->e;
	double *y;

	TRY_NEW(y, c->scratch, rows * width);
	for (int64_t r = 0; r < rows && width; r++)
		memcpy(y + r * width, x + r * step + at, (size_t)width * sizeof *y);
	*out = y;
	return LINNET_OK;
}

/* The first token of each sequence, and the end. */
static enum linnet_code sequence_starts(struct kernel_call *c, int64_t batch, int64_t tokens, int64_t *start)
{
	const struct tensor *t = c->nin > GD_STARTS ? c->in[GD_STARTS] : NULL;

	if (!t && (batch ? tokens % batch : tokens))
		return fail(c->e, LINNET_ESHAPE, "%lld tokens do not make %lld sequences of one length", (long long)tokens, (long long)batch);
	for (int64_t b = 0; b <= batch; b++) {
		start[b] = t ? tensor_get_int(t, b) : batch ? b * (tokens / batch) : 0;
		if (b ? start[b] < start[b - 1] : start[b] != 0)
			return fail(c->e, LINNET_EVALUE, "cu_seqlens does not rise from 0");
	}
	if (start[batch] != tokens)
		return fail(c->e, LINNET_EVALUE, "cu_seqlens ends at %lld; there are %lld tokens", (long long)start[batch], (long long)tokens);
	return LINNET_OK;
}

static enum linnet_code gated_delta(struct kernel_call *c)
{
	const struct text gate = attr_get(c->op, c->attr, "gate_activation")->s;
	char kind = gate.n == 7 ? 'k' : gate.p[0]; /* sigmoid is kda, qwen is softplus */
	const struct tensor *qt = c->in[GD_QUERY], *vt = c->in[GD_VALUE], *bias_t = c->nin > GD_BIAS ? c->in[GD_BIAS] : NULL;
	const struct tensor *count = c->nin > GD_COUNT ? c->in[GD_COUNT] : NULL, *active = c->nin > GD_ACTIVE ? c->in[GD_ACTIVE] : NULL;
	struct tensor *y = c->out[0], *final = c->nout > 1 ? c->out[1] : NULL, *update = c->nout > 2 ? c->out[2] : NULL;
	int64_t hv = y->d[y->rank - 2], dv = y->d[y->rank - 1], width = qt->d[qt->rank - 1], batch, dk, h, tokens = 1, row, size;
	int64_t capacity = attr_get(c->op, c->attr, "state_update_capacity")->i, decays, *start;
	const double *q0, *k0, *v0, *decay0, *beta0, *past, *a_log, *bias;
	double *q, *k, *v, *s, *fix, *decay = NULL, *beta = NULL, scale = attr_get(c->op, c->attr, "scale")->f;
	struct linnet_error *e = c->e;

	TRY(kernel_doubles(c, GD_QUERY, &q0));
	TRY(kernel_doubles(c, GD_KEY, &k0));
	TRY(kernel_doubles(c, GD_VALUE, &v0));
	TRY(kernel_doubles(c, GD_DECAY, &decay0));
	TRY(kernel_doubles(c, GD_BETA, &beta0));
	TRY(kernel_doubles(c, GD_STATE, &past));
	TRY(kernel_doubles(c, GD_LOG, &a_log));
	TRY(kernel_doubles(c, GD_BIAS, &bias));
	for (int i = 0; i < y->rank - 2; i++)
		tokens *= y->d[i];
	dk = vt ? width : c->in[GD_STATE]->d[3];
	h = vt ? qt->d[qt->rank - 2] : (width - hv * dv) / (2 * dk);
	if (past)
		batch = c->in[GD_STATE]->d[0];
	else
		batch = c->nin > GD_STARTS && c->in[GD_STARTS] ? c->in[GD_STARTS]->n - 1 : y->d[0];
	decays = decay0 && c->in[GD_DECAY]->rank > y->rank - 1 ? dk : 1;
	TRY(columns(c, q0, tokens, vt ? h * dk : width, 0, h * dk, &q));
	TRY(columns(c, vt ? k0 : q0, tokens, vt ? h * dk : width, vt ? 0 : h * dk, h * dk, &k));
	TRY(columns(c, vt ? v0 : q0, tokens, vt ? hv * dv : width, vt ? 0 : 2 * h * dk, hv * dv, &v));
	if (attr_get(c->op, c->attr, "qk_l2_norm")->i) {
		unit_rows(q, tokens * h, dk);
		unit_rows(k, tokens * h, dk);
	}
	if (decay0)
		TRY(columns(c, decay0, tokens, hv * decays, 0, hv * decays, &decay));
	for (int64_t i = 0; decay && i < tokens * hv * decays; i++) {
		int64_t head = i / decays % hv, at = bias_t && bias_t->n != hv ? i % (hv * decays) : head;

		decay[i] = gated_decay(kind, decay[i], a_log ? a_log[head] : 0, bias ? bias[at] : 0, attr_get(c->op, c->attr, "gate_lower_bound")->f);
	}
	if (beta0)
		TRY(columns(c, beta0, tokens, hv, 0, hv, &beta));
	for (int64_t i = 0; beta && attr_get(c->op, c->attr, "beta_activation")->s.p[0] == 's' && i < tokens * hv; i++)
		beta[i] = logistic(beta[i]);
	TRY_NEW(start, c->scratch, batch + 1);
	TRY(sequence_starts(c, batch, tokens, start));
	size = dk * dv;
	row = hv * decays + h * dk + hv * dv;
	scale = scale != 0 ? scale : 1 / sqrt((double)dk);
	TRY_NEW(s, c->scratch, size);
	TRY_NEW(fix, c->scratch, dv);
	for (int64_t i = 0; update && i < update->n; i++)
		tensor_put(update, i, 0);
	for (int64_t bh = 0; bh < batch * hv; bh++) {
		int64_t b = bh / hv, head = bh % hv, group = head / (hv / h);
		int64_t kept = !count || (active && !tensor_get_int(active, 0)) ? 0 : tensor_get_int(count, b);

		for (int64_t i = 0; i < size; i++) /* states are [dv, dk] */
			s[i] = past ? past[bh * size + i % dv * dk + i / dv] : 0;
		for (int64_t t = start[b]; t < start[b + 1]; t++) {
			const double *kt = k + (t * h + group) * dk, *qt_ = q + (t * h + group) * dk, *a = decay ? decay + (t * hv + head) * decays : NULL;
			int64_t n = t - start[b], at = b * capacity * row;

			step(s, kt, v + (t * hv + head) * dv, a, decays, beta ? beta + t * hv + head : NULL, dk, dv, fix);
			for (int64_t j = 0; j < dv; j++) {
				double sum = 0;

				for (int64_t i = 0; i < dk; i++)
					sum += qt_[i] * s[i * dv + j];
				tensor_put(y, (t * hv + head) * dv + j, scale * sum);
			}
			if (!update || n >= kept || n >= capacity)
				continue;
			for (int64_t i = 0; i < decays; i++)
				tensor_put(update, at + (n * hv + head) * decays + i, a ? exp(a[i]) : 1);
			at += capacity * hv * decays;
			for (int64_t i = 0; i < dk; i++)
				tensor_put(update, at + (n * h + group) * dk + i, kt[i]);
			at += capacity * h * dk;
			for (int64_t j = 0; j < dv; j++)
				tensor_put(update, at + (n * hv + head) * dv + j, fix[j]);
		}
		for (int64_t i = 0; final && i < size; i++)
			tensor_put(final, bh * size + i % dv * dk + i / dv, s[i]);
	}
	return LINNET_OK;
}

/* ---- CausalConvWithState ---- */

static int64_t causal_attr(const struct op *op, const struct attr *attr, const char *name, int64_t absent)
{
	const struct attr *a = attr_get(op, attr, name);

	return attr_given(a) ? a->i : absent;
}

struct causal causal_of(const struct op *op, const struct attr *attr)
{
	struct causal l = { .last = causal_attr(op, attr, "channels_last", 0) != 0, .dilation = causal_attr(op, attr, "dilation", 1),
		.window = causal_attr(op, attr, "state_window", 0), .length = causal_attr(op, attr, "state_length", 0),
		.channels = causal_attr(op, attr, "input_channels", 0), .offset = causal_attr(op, attr, "input_channel_offset", 0),
		.capacity = causal_attr(op, attr, "state_update_capacity", 0) };
	int64_t layout = causal_attr(op, attr, "state_channels_last", -1);

	l.state_last = layout < 0 ? l.last : layout != 0;
	l.extended = layout >= 0 || l.length || l.channels || l.offset || l.capacity;
	return l;
}

/* [batch, length, channels] or [batch, channels, length]; channels may be several axes, those of `x` from the third on. */
static struct shape causal_shape(bool last, dim batch, dim length, dim channels, const struct shape *x)
{
	struct shape s = { .rank = 3, .d = { batch, channels, length } };

	if (last) {
		s.rank = x->rank;
		s.d[1] = length;
		s.d[2] = channels;
		for (int i = 2; i < x->rank && x->rank > 3; i++)
			s.d[i] = x->d[i];
	}
	return s;
}

/*
 * input, output: [B, C, L]  weight: [C, 1, K]  bias: [C]  states: [B, C, (K - 1) dilation]; channels last: [B, L, C..], [B, .., C..],
 * of an output only those of its channels that are filtered. With a window states have an axis more before. state_update: [B, capacity, C]
 */
static enum linnet_code shape_causal_conv(struct shape_call *c)
{
	struct causal l = causal_of(c->op, c->attr);
	const struct shape *x = &c->in[CONV_INPUT]->shape, *k = &c->in[CONV_WEIGHT]->shape;
	dim batch = DIM_NONE, channels = DIM_NONE, length = DIM_NONE, history = DIM_NONE;
	struct shape state;

	if (causal_attr(c->op, c->attr, "ndim", 1) != 1)
		return fail(c->e, LINNET_EUNSUPPORTED, "ndim is %lld; only 1 is supported", (long long)attr_get(c->op, c->attr, "ndim")->i);
	if (l.extended && (!l.last || l.window))
		return fail(c->e, LINNET_EATTR, "input channels, lengths and layouts of states and updates need channels_last and no state_window");
	if (c->nout > 2 && c->wanted[2] && !l.capacity)
		return fail(c->e, LINNET_EMODEL, "output \"state_update\" comes with state_update_capacity");
	TRY(rank_check(c, CONV_INPUT, 3, l.last && !l.extended && c->op->domain ? MAX_RANK - 1 : 3));
	TRY(rank_check(c, CONV_WEIGHT, 3, 3));
	if (x->rank < 0)
		return LINNET_OK;
	batch = x->d[0];
	channels = l.last ? shape_count(c->dims, x, 2, x->rank) : x->d[1];
	length = x->d[l.last ? 1 : 2];
	if (l.channels || l.offset) {
		if (dim_is_int(channels) && l.offset + l.channels > channels)
			return fail(c->e, LINNET_ESHAPE, "channels %lld to %lld of %lld", (long long)l.offset, (long long)(l.offset + l.channels),
			            (long long)channels);
		channels = l.channels ? l.channels : dim_sub(c->dims, channels, l.offset);
	}
	if (k->rank == 3) {
		TRY(length_join(c, "numbers of channels of the input and the weight", channels, k->d[0], &channels));
		TRY(length_join(c, "channels a filter reads, expected and found,", 1, k->d[1], NULL));
		history = dim_mul(c->dims, dim_sub(c->dims, k->d[2], 1), l.dilation);
		if (k->d[2] == 0)
			return fail(c->e, LINNET_ESHAPE, "input \"weight\" has no taps");
	}
	if (l.length && dim_is_int(history) && l.length < history)
		return fail(c->e, LINNET_EATTR, "state_length is %lld; the taps need %lld", (long long)l.length, (long long)history);
	if (l.length)
		history = l.length;
	if (call_has(c, CONV_BIAS)) {
		TRY(rank_check(c, CONV_BIAS, 1, 1));
		if (c->in[CONV_BIAS]->shape.rank == 1)
			TRY(length_join(c, "numbers of channels of the input and the bias", channels, c->in[CONV_BIAS]->shape.d[0],
			                &channels));
	}
	state = causal_shape(l.state_last, batch, history, channels, x);
	if (l.window) {
		memmove(state.d + 1, state.d, (size_t)state.rank++ * sizeof *state.d);
		state.d[0] = l.window;
	}
	if (call_has(c, CONV_PAST)) {
		TRY(rank_check(c, CONV_PAST, state.rank, state.rank));
		for (int i = 0; i < c->in[CONV_PAST]->shape.rank; i++)
			TRY(length_join(c, "lengths of the state, expected and found,", state.d[i], c->in[CONV_PAST]->shape.d[i], &state.d[i]));
		batch = state.d[l.window != 0];
	}
	c->out[0].shape = causal_shape(l.last, batch, length, channels, x);
	if (c->nout > 1)
		c->out[1].shape = state;
	if (c->nout > 2)
		c->out[2].shape = (struct shape){ .rank = 3, .d = { batch, l.capacity, channels } };
	return LINNET_OK;
}

/* Where element t of channel ch of sample b is. */
static int64_t causal_at(bool last, int64_t b, int64_t t, int64_t ch, int64_t length, int64_t channels)
{
	return last ? (b * length + t) * channels + ch : (b * channels + ch) * length + t;
}

/*
 * With x the state, or zeros, followed by the input, by channel: output[t] = f(bias + sum over j of weight[j] x[t + j dilation]) from the
 * last (K - 1) dilation numbers of the state on, f(y) = y / (1 + exp(-y)) or none; the new state is the end of x. The last state of a
 * window is that one, the others are those after tokens before, zeros where there are none. state_update: the first tokens of the input.
 */
static enum linnet_code causal_conv(struct kernel_call *c)
{
	struct causal l = causal_of(c->op, c->attr);
	bool silu = attr_get(c->op, c->attr, "activation")->s.p[0] == 's'; /* silu, swish: two names */
	const struct tensor *in = c->in[CONV_INPUT];
	int64_t channels = c->in[CONV_WEIGHT]->d[0], taps = c->in[CONV_WEIGHT]->d[2], length = in->d[l.last ? 1 : 2];
	int64_t all = in->d[0] && length ? in->n / (in->d[0] * length) : channels; /* channels of the input */
	int64_t need = (taps - 1) * l.dilation, history = l.length ? l.length : need, slots = l.window ? l.window : 1;
	int64_t one = in->d[0] * channels * history; /* numbers of a state */
	struct tensor *y = c->out[0], *present = c->nout > 1 ? c->out[1] : NULL, *update = c->nout > 2 ? c->out[2] : NULL;
	const double *input, *weight, *bias, *past;
	struct linnet_error *e = c->e;
	double *x;

	TRY(kernel_doubles(c, CONV_INPUT, &input));
	TRY(kernel_doubles(c, CONV_WEIGHT, &weight));
	TRY(kernel_doubles(c, CONV_BIAS, &bias));
	TRY(kernel_doubles(c, CONV_PAST, &past));
	TRY_NEW(x, c->scratch, history + length);
	for (int64_t b = 0; b < in->d[0]; b++)
		for (int64_t ch = 0; ch < channels; ch++) {
			for (int64_t t = 0; t < history; t++)
				x[t] = past ? past[(slots - 1) * one + causal_at(l.state_last, b, t, ch, history, channels)] : 0;
			for (int64_t t = 0; t < length; t++)
				x[history + t] = input[causal_at(l.last, b, t, l.offset + ch, length, all)];
			for (int64_t t = 0; y && t < length; t++) {
				double sum = bias ? bias[ch] : 0;

				for (int64_t j = 0; j < taps; j++)
					sum += weight[ch * taps + j] * x[history - need + t + j * l.dilation];
				tensor_put(y, causal_at(l.last, b, t, ch, length, channels), silu ? sum / (1 + exp(-sum)) : sum);
			}
			for (int64_t w = 0; present && w < slots; w++) {
				int64_t from = length - (slots - 1 - w); /* tokens that this state has seen */

				for (int64_t t = 0; t < history; t++)
					tensor_put(present, w * one + causal_at(l.state_last, b, t, ch, history, channels),
					           from > 0 || w == slots - 1 ? x[from + t] : 0);
			}
			for (int64_t t = 0; update && t < l.capacity; t++)
				tensor_put(update, (b * l.capacity + t) * channels + ch, t < length ? x[history + t] : 0);
		}
	return LINNET_OK;
}

/* A convolution in as many groups as there are channels. */
static enum linnet_code write_causal_conv(struct shape_call *c, const char **text)
{
	struct causal l = causal_of(c->op, c->attr);
	const struct shape *k = &c->in[CONV_WEIGHT]->shape;
	enum dtype dt = c->in[CONV_INPUT]->dt;
	int64_t history;
	struct body b;

	if (l.extended || l.window || c->in[CONV_INPUT]->shape.rank > 3)
		return fail(c->e, LINNET_EUNSUPPORTED, "windows, parts and several axes of channels cannot be written in other operators");
	if (k->rank != 3 || !dim_is_int(k->d[0]) || !dim_is_int(k->d[2]) || dt == DT_UNDEFINED)
		return fail(c->e, LINNET_EUNSUPPORTED, "the lengths of input \"weight\" must be known to write it in other operators");
	history = (k->d[2] - 1) * l.dilation;
	body_begin(&b, c);
	str_add(&b.s, l.last ? "x = Transpose <perm = [0, 2, 1]> (input)\n" : "x = Identity (input)\n");
	if (call_has(c, CONV_PAST)) {
		str_add(&b.s, l.last ? "past = Transpose <perm = [0, 2, 1]> (past_state)\n" : "past = Identity (past_state)\n");
		str_add(&b.s, "padded = Concat <axis = 2> (past, x)\n");
	} else {
		body_ints(&b, "pads", 6, (int64_t[]){ 0, 0, history, 0, 0, 0 });
		body_float(&b, "none", dt, 0);
		str_add(&b.s, "padded = Pad (x, pads, none)\n");
	}
	str_addf(&b.s, "y0 = Conv <group = %lld, dilations = [%lld]> (padded, weight%s)\n", (long long)k->d[0], (long long)l.dilation,
	         call_has(c, CONV_BIAS) ? ", bias" : "");
	if (attr_get(c->op, c->attr, "activation")->s.p[0] == 's')
		str_add(&b.s, "gate = Sigmoid (y0)\ny = Mul (y0, gate)\n");
	else
		str_add(&b.s, "y = Identity (y0)\n");
	body_ints(&b, "from", 1, &(int64_t){ history ? -history : INT64_MAX });
	body_ints(&b, "to", 1, &(int64_t){ INT64_MAX });
	body_ints(&b, "axis", 1, &(int64_t){ 2 });
	str_add(&b.s, "end = Slice (padded, from, to, axis)\n");
	str_add(&b.s, l.last ? "output = Transpose <perm = [0, 2, 1]> (y)\npresent_state = Transpose <perm = [0, 2, 1]> (end)\n"
	                     : "output = Identity (y)\npresent_state = Identity (end)\n");
	return body_end(&b, text);
}

#define LINEAR_ATTENTION                                                                           \
	.doc = "Attention whose weights are products: a state of sums of keys times values, read by queries.", \
	.in = IN({ "query", T, FLOW_LINEAR }, { "key", T, FLOW_SMOOTH }, { "value", T, FLOW_LINEAR }, \
	         { "past_state", T1, FLOW_LINEAR, OPTIONAL }, { "decay", T, FLOW_SMOOTH, OPTIONAL }, \
	         { "beta", T, FLOW_SMOOTH, OPTIONAL }),                                            \
	.out = OUT({ "output", T }, { "present_state", T1 }),                                      \
	.types = { [T] = SINGLES, [T1] = SINGLES }, .agree = AGREE_ROUND, .shape = shape_linear_attention, \
	.kernel = linear_attention, .fast = FAST(&fast_linear_attention), .write_body = write_linear_attention, \
	.write_grad = grad_linear_attention, .fuzz = { .shapes = FUZZ_CUSTOM, .lo = -0.5, .hi = 0.5 }

#define CAUSAL_CONV                                                                                \
	.doc = "Every channel filtered by its own few taps over present and past, which is carried along.", \
	.in = IN({ "input", T, FLOW_SMOOTH }, { "weight", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH, OPTIONAL }, \
	         { "past_state", T, FLOW_SMOOTH, OPTIONAL }),                                      \
	.types = { [T] = SINGLES }, .agree = AGREE_ROUND, .shape = shape_causal_conv, .kernel = causal_conv, \
	.fast = FAST(&fast_causal_conv), .write_body = write_causal_conv, .fuzz = { .shapes = FUZZ_CUSTOM }

#define COUNT(title, most) { .name = title, .kind = ATTR_INT, .lo = 0, .hi = (most) }
#define ACTIVATION { .name = "activation", .kind = ATTR_STRING, .s = "none", .oneof = "none|silu|swish" }

static const struct op rows[] = {
	{
		.name = "LinearAttention", .since = 27,
		LINEAR_ATTENTION,
		.attr = ATTRS(LINEAR_ATTRIBUTES),
	},
	{
		.domain = "com.microsoft", .name = "LinearAttention", .since = 1,
		LINEAR_ATTENTION,
		.attr = ATTRS(LINEAR_ATTRIBUTES, [STATE_WINDOW] = { .name = "state_window", .kind = ATTR_INT, .lo = 0, .hi = 8 }),
	},
	{
		.name = "CausalConvWithState", .since = 27,
		CAUSAL_CONV,
		.out = OUT({ "output", T }, { "present_state", T }),
		.attr = ATTRS(ACTIVATION),
	},
	{
		.domain = "com.microsoft", .name = "CausalConvWithState", .since = 1,
		CAUSAL_CONV,
		.out = OUT({ "output", T }, { "present_state", T }, { "state_update", T, .flags = OPTIONAL }),
		.attr = ATTRS(ACTIVATION, { .name = "channels_last", .kind = ATTR_INT },
		              { .name = "dilation", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX },
		              COUNT("input_channel_offset", INT32_MAX), COUNT("input_channels", INT32_MAX),
		              { .name = "ndim", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = 3 },
		              { .name = "state_channels_last", .kind = ATTR_INT, .i = -1, .lo = -1, .hi = 1 },
		              COUNT("state_length", INT32_MAX), COUNT("state_update_capacity", 8), COUNT("state_window", 8)),
	},
	{
		.domain = "com.microsoft", .name = "GatedDeltaNet", .since = 1,
		.doc = "The recurrence of LinearAttention on tokens one behind the other, with gates, norms and the states of several sequences.",
		.in = IN({ "query", T, FLOW_SMOOTH }, { "key", T, FLOW_SMOOTH, OPTIONAL }, { "value", T, FLOW_LINEAR, OPTIONAL },
		         { "cu_seqlens", T3, FLOW_NONE, OPTIONAL }, { "decay", T2, FLOW_SMOOTH, OPTIONAL },
		         { "beta", T2, FLOW_SMOOTH, OPTIONAL }, { "initial_state", T1, FLOW_LINEAR, OPTIONAL },
		         { "a_log", T1, FLOW_SMOOTH, OPTIONAL }, { "dt_bias", T1, FLOW_SMOOTH, OPTIONAL },
		         { "capture_count", T3, FLOW_NONE, OPTIONAL }, { "state_update_active", T3, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T }, { "final_state", T1, .flags = OPTIONAL }, { "state_update", T1, .flags = OPTIONAL }),
		.attr = ATTRS({ .name = "beta_activation", .kind = ATTR_STRING, .s = "none", .oneof = "none|sigmoid" },
		              { .name = "chunk_size", .kind = ATTR_INT, .i = 64 },
		              { .name = "gate_activation", .kind = ATTR_STRING, .s = "none", .oneof = "none|softplus|qwen|sigmoid|kda" },
		              { .name = "gate_lower_bound", .kind = ATTR_FLOAT, .f = -5 },
		              { .name = "qk_l2_norm", .kind = ATTR_INT, .lo = 0, .hi = 1 }, { .name = "scale", .kind = ATTR_FLOAT },
		              COUNT("state_update_capacity", 8),
		              { .name = "update_rule", .kind = ATTR_STRING, .s = "gated_delta", .oneof = "linear|gated|delta|gated_delta" }),
		.types = { [T] = SINGLES, [T1] = SET(FLOAT), [T2] = SINGLES, [T3] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_gated_delta,
		.kernel = gated_delta,
		.fuzz = { .shapes = FUZZ_CUSTOM, .lo = -0.5, .hi = 0.5 },
	},
};

const struct op_family linear_ops = FAMILY("linear", rows);
