/* Linear attention as a recurrence, and the short convolution before it. Reference kernels, then rows. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/body.h"
#include "ops/fast/fast.h"
#include "ops/op.h"

static bool call_has(const struct shape_call *c, int i) { return i < c->nin && c->in[i]; }

/* ---- LinearAttention ---- */

/* Positions of inputs and attributes. */
enum { IN_QUERY, IN_KEY, IN_VALUE, IN_PAST, IN_DECAY, IN_BETA };
enum { CHUNK_SIZE, KV_NUM_HEADS, Q_NUM_HEADS, SCALE, UPDATE_RULE, STATE_WINDOW };

/* "gated" and "gated_delta" decay, "delta" and "gated_delta" correct. */
static bool rule_decays(const struct attr *rule) { return rule->s.p[0] == 'g'; }
static bool rule_corrects(const struct attr *rule) { return rule->s.p[rule->s.n - 1] == 'a'; }

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
static enum linnet_code shape_linear_attention(struct shape_call *c)
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
 * For each head, with a = exp(decay) by head or by key dimension (row of S), and the steps a rule does not have left out:
 *	S <- diag(a) S          v' = beta (v - k S)          S <- S + k^T v'          output = scale q S
 * Query head h reads the state of head h / (H / Hkv); where Hkv > H, state h is read by query head h / (Hkv / H).
 */
static enum linnet_code linear_attention(struct kernel_call *c)
{
	const struct attr *rule = &c->attr[UPDATE_RULE];
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
			double *sg = s + bg * size;

			for (int64_t i = 0; i < dk && rule_decays(rule); i++)
				for (int64_t j = 0; j < dv; j++)
					sg[i * dv + j] *= exp(decay[(at * hkv + g) * ndecay + i % ndecay]);
			for (int64_t j = 0; j < dv; j++) {
				fix[j] = vt[j];
				for (int64_t i = 0; i < dk && rule_corrects(rule); i++)
					fix[j] -= kt[i] * sg[i * dv + j];
				if (rule_corrects(rule))
					fix[j] *= beta[at * nbeta + g % nbeta];
			}
			for (int64_t i = 0; i < dk; i++)
				for (int64_t j = 0; j < dv; j++)
					sg[i * dv + j] += kt[i] * fix[j];
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

/* name: input `in`: [B, T, x y z] as [B, T, x, y, z] in float. One of the three may not be a number: it is computed, not left to
 * Reshape, which could not find it when there are no tokens. */
static void write_five(struct body *b, const char *name, const char *in, enum dtype dt, dim x, dim y, dim z)
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
	str_addf(&b->s, dt == DT_FLOAT ? "%s = Identity (%s_five)\n" : "%s = Cast <to = 1> (%s_five)\n", name, name);
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
	body_begin(&b, c);
	body_length(&b, "batch", batch, "query", 0);
	if (h >= hkv) {
		write_five(&b, "q", "query", dt, hkv, h / hkv, dk);
	} else {
		write_five(&b, "q_few", "query", dt, h, 1, dk);
		str_addf(&b.s, "which = Constant <value = int64[%lld] {0", (long long)hkv);
		for (int64_t i = 1; i < hkv; i++)
			str_addf(&b.s, ", %lld", (long long)(i * h / hkv));
		str_add(&b.s, "}> ()\nq = Gather <axis = 2> (q_few, which)\n");
	}
	write_five(&b, "k", "key", dt, hkv, dk, 1);
	write_five(&b, "v", "value", dt, hkv, 1, dv);
	if (decays)
		write_five(&b, "g", "decay", dt, hkv, ndecay, 1);
	if (corrects)
		write_five(&b, "b", "beta", dt, DIM_NONE, 1, 1);
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

/* ---- CausalConvWithState ---- */

enum { CONV_INPUT, CONV_WEIGHT, CONV_BIAS, CONV_PAST };

/* The layout and spacing of the row that has them. */
struct causal {
	bool last; /* channels */
	int64_t dilation;
};

static struct causal causal_of(const struct op *op, const struct attr *attr)
{
	const struct attr *dilation = attr_get(op, attr, "dilation");

	return (struct causal){ attr_get(op, attr, "channels_last")->i != 0, attr_given(dilation) ? dilation->i : 1 };
}

/* Attributes of com.microsoft's operator beyond what is computed here. */
static enum linnet_code plain_causal(const struct shape_call *c)
{
	static const struct {
		const char *name;
		int64_t plain;
	} fixed[] = {
		{ "ndim", 1 }, { "state_window", 0 }, { "state_length", 0 }, { "state_channels_last", -1 }, { "input_channels", 0 },
		{ "input_channel_offset", 0 }, { "state_update_capacity", 0 },
	};

	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		const struct attr *a = attr_get(c->op, c->attr, fixed[i].name);

		if (attr_given(a) && a->i != fixed[i].plain)
			return fail(c->e, LINNET_EUNSUPPORTED, "attribute \"%s\" is %lld; only %lld is supported", fixed[i].name,
			            (long long)a->i, (long long)fixed[i].plain);
	}
	if (c->nout > 2 && c->wanted[2])
		return fail(c->e, LINNET_EUNSUPPORTED, "output \"state_update\" is not supported");
	return LINNET_OK;
}

/* input, output: [B, C, L]  weight: [C, 1, K]  bias: [C]  states: [B, C, (K - 1) dilation]; channels last: [B, L, C], [B, .., C] */
static enum linnet_code shape_causal_conv(struct shape_call *c)
{
	struct causal l = causal_of(c->op, c->attr);
	const struct shape *x = &c->in[CONV_INPUT]->shape, *k = &c->in[CONV_WEIGHT]->shape;
	dim batch = DIM_NONE, channels = DIM_NONE, length = DIM_NONE, history = DIM_NONE;

	TRY(plain_causal(c));
	TRY(rank_check(c, CONV_INPUT, 3, 3));
	TRY(rank_check(c, CONV_WEIGHT, 3, 3));
	if (x->rank == 3) {
		batch = x->d[0];
		channels = x->d[l.last ? 2 : 1];
		length = x->d[l.last ? 1 : 2];
	}
	if (k->rank == 3) {
		TRY(length_join(c, "numbers of channels of the input and the weight", channels, k->d[0], &channels));
		TRY(length_join(c, "channels a filter reads, expected and found,", 1, k->d[1], NULL));
		history = dim_mul(c->dims, dim_sub(c->dims, k->d[2], 1), l.dilation);
		if (k->d[2] == 0)
			return fail(c->e, LINNET_ESHAPE, "input \"weight\" has no taps");
	}
	if (call_has(c, CONV_BIAS)) {
		TRY(rank_check(c, CONV_BIAS, 1, 1));
		if (c->in[CONV_BIAS]->shape.rank == 1)
			TRY(length_join(c, "numbers of channels of the input and the bias", channels, c->in[CONV_BIAS]->shape.d[0],
			                &channels));
	}
	if (call_has(c, CONV_PAST)) {
		const struct shape *s = &c->in[CONV_PAST]->shape;

		TRY(rank_check(c, CONV_PAST, 3, 3));
		if (s->rank == 3) {
			TRY(length_join(c, "batch lengths of the input and the state", batch, s->d[0], &batch));
			TRY(length_join(c, "numbers of channels of the input and the state", channels, s->d[l.last ? 2 : 1], &channels));
			TRY(length_join(c, "lengths of the state, expected and found,", history, s->d[l.last ? 1 : 2], &history));
		}
	}
	c->out[0].shape = l.last ? (struct shape){ .rank = 3, .d = { batch, length, channels } }
	                         : (struct shape){ .rank = 3, .d = { batch, channels, length } };
	if (c->nout > 1)
		c->out[1].shape = l.last ? (struct shape){ .rank = 3, .d = { batch, history, channels } }
		                         : (struct shape){ .rank = 3, .d = { batch, channels, history } };
	return LINNET_OK;
}

/*
 * With x the state, or zeros, followed by the input, by channel: output[t] = f(bias + sum over j of weight[j] x[t + j dilation]),
 * f(y) = y / (1 + exp(-y)) or none; the new state is the end of x.
 */
static enum linnet_code causal_conv(struct kernel_call *c)
{
	struct causal l = causal_of(c->op, c->attr);
	bool silu = attr_get(c->op, c->attr, "activation")->s.p[0] == 's'; /* silu, swish: two names */
	const struct tensor *in = c->in[CONV_INPUT];
	int64_t channels = in->d[l.last ? 2 : 1], length = in->d[l.last ? 1 : 2], taps = c->in[CONV_WEIGHT]->d[2];
	int64_t history = (taps - 1) * l.dilation, step = l.last ? channels : 1;
	struct tensor *y = c->out[0], *present = c->nout > 1 ? c->out[1] : NULL;
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
			int64_t from_input = l.last ? b * length * channels + ch : (b * channels + ch) * length;
			int64_t from_state = l.last ? b * history * channels + ch : (b * channels + ch) * history;

			for (int64_t t = 0; t < history; t++)
				x[t] = past ? past[from_state + t * step] : 0;
			for (int64_t t = 0; t < length; t++)
				x[history + t] = input[from_input + t * step];
			for (int64_t t = 0; y && t < length; t++) {
				double sum = bias ? bias[ch] : 0;

				for (int64_t j = 0; j < taps; j++)
					sum += weight[ch * taps + j] * x[t + j * l.dilation];
				tensor_put(y, from_input + t * step, silu ? sum / (1 + exp(-sum)) : sum);
			}
			for (int64_t t = 0; present && t < history; t++)
				tensor_put(present, from_state + t * step, x[length + t]);
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

#define SINGLES (SET(FLOAT) | HALVES)

#define LINEAR_ATTENTION                                                                           \
	.doc = "Attention whose weights are products: a state of sums of keys times values, read by queries.", \
	.in = IN({ "query", T, FLOW_LINEAR }, { "key", T, FLOW_SMOOTH }, { "value", T, FLOW_LINEAR }, \
	         { "past_state", T1, FLOW_LINEAR, OPTIONAL }, { "decay", T, FLOW_SMOOTH, OPTIONAL }, \
	         { "beta", T, FLOW_SMOOTH, OPTIONAL }),                                            \
	.out = OUT({ "output", T }, { "present_state", T1 }),                                      \
	.types = { [T] = SINGLES, [T1] = SINGLES }, .agree = AGREE_ROUND, .shape = shape_linear_attention, \
	.kernel = linear_attention, .fast = FAST(&fast_linear_attention), .write_body = write_linear_attention, .fuzz = { .shapes = FUZZ_CUSTOM, .lo = -0.5, .hi = 0.5 }

#define LINEAR_ATTRIBUTES                                                                          \
	[CHUNK_SIZE] = { .name = "chunk_size", .kind = ATTR_INT, .i = 64 },                        \
	[KV_NUM_HEADS] = { .name = "kv_num_heads", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }, \
	[Q_NUM_HEADS] = { .name = "q_num_heads", .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }, \
	[SCALE] = { .name = "scale", .kind = ATTR_FLOAT },                                         \
	[UPDATE_RULE] = { .name = "update_rule", .kind = ATTR_STRING, .s = "gated_delta",          \
		          .oneof = "linear|gated|delta|gated_delta" }

#define CAUSAL_CONV                                                                                \
	.doc = "Every channel filtered by its own few taps over present and past, which is carried along.", \
	.in = IN({ "input", T, FLOW_SMOOTH }, { "weight", T, FLOW_SMOOTH }, { "bias", T, FLOW_SMOOTH, OPTIONAL }, \
	         { "past_state", T, FLOW_SMOOTH, OPTIONAL }),                                      \
	.types = { [T] = SINGLES }, .agree = AGREE_ROUND, .shape = shape_causal_conv, .kernel = causal_conv, \
	.write_body = write_causal_conv, .fuzz = { .shapes = FUZZ_CUSTOM }

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
		              { .name = "input_channel_offset", .kind = ATTR_INT }, { .name = "input_channels", .kind = ATTR_INT },
		              { .name = "ndim", .kind = ATTR_INT, .i = 1 }, { .name = "state_channels_last", .kind = ATTR_INT, .i = -1 },
		              { .name = "state_length", .kind = ATTR_INT }, { .name = "state_update_capacity", .kind = ATTR_INT },
		              { .name = "state_window", .kind = ATTR_INT }),
	},
};

const struct op_family linear_ops = FAMILY("linear", rows);
