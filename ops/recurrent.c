/* Recurrent cells over sequences: RNN, GRU, LSTM. Reference kernels, then rows. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/body.h"
#include "ops/fast/fast.h"
#include "ops/op.h"

/* ---- Activation functions ---- */

typedef double activation_fn(double x, double alpha, double beta);

#define ACTIVATION(name, formula)                                                                  \
	static double name(double x, double alpha, double beta)                                    \
	{                                                                                          \
		(void)alpha, (void)beta;                                                           \
		return formula;                                                                    \
	}

ACTIVATION(relu, x > 0 ? x : 0)
ACTIVATION(hyperbolic, tanh(x))
ACTIVATION(sigmoid, 1 / (1 + exp(-x)))
ACTIVATION(affine, alpha *x + beta)
ACTIVATION(leaky_relu, x >= 0 ? x : alpha * x)
ACTIVATION(thresholded_relu, x >= alpha ? x : 0)
ACTIVATION(scaled_tanh, alpha *tanh(beta *x))
ACTIVATION(hard_sigmoid, alpha *x + beta > 1 ? 1 : alpha *x + beta < 0 ? 0 : alpha *x + beta)
ACTIVATION(elu, x >= 0 ? x : alpha *expm1(x))
ACTIVATION(softsign, x / (1 + fabs(x)))
ACTIVATION(softplus, x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)))

/* A function with its parameters; in the table below, with their defaults. */
struct activation {
	const char *name;
	activation_fn *f;
	bool takes_alpha, takes_beta;
	double alpha, beta;
};

static const struct activation activations[] = {
	{ "Relu", relu },
	{ "Tanh", hyperbolic },
	{ "Sigmoid", sigmoid },
	{ "Affine", affine, true, true, 1, 0 },
	{ "LeakyRelu", leaky_relu, true, false, 0.01, 0 },
	{ "ThresholdedRelu", thresholded_relu, true, false, 1, 0 },
	{ "ScaledTanh", scaled_tanh, true, true, 1, 1 },
	{ "HardSigmoid", hard_sigmoid, true, true, 0.2, 0.5 },
	{ "Elu", elu, true, false, 1, 0 },
	{ "Softsign", softsign },
	{ "Softplus", softplus },
};

static enum linnet_code find_activation(struct text name, struct activation *out, struct linnet_error *e)
{
	for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
		if (strlen(activations[i].name) == name.n && !memcmp(activations[i].name, name.p, name.n)) {
			*out = activations[i];
			return LINNET_OK;
		}
	return fail(e, LINNET_EATTR, "\"%.*s\" is not an activation function", (int)name.n, name.p);
}

/* ---- Cells ---- */

/* What tells the three operators apart: gates, activation functions of one direction with their defaults, the number of
 * states carried along (H, and for LSTM C). */
struct cell {
	int gates, functions, states;
	const char *defaults[3];
};

static const struct cell rnn_cell = { 1, 1, 1, { "Tanh" } };
static const struct cell gru_cell = { 3, 2, 1, { "Sigmoid", "Tanh" } };
static const struct cell lstm_cell = { 4, 3, 2, { "Sigmoid", "Tanh", "Tanh" } };

/* The functions of both directions; activation_alpha and _beta go to those that take one, in order. */
static enum linnet_code read_activations(const struct op *op, const struct attr *attr, int directions,
                                         struct activation out[6], struct linnet_error *e)
{
	const struct cell *cell = op->param;
	const struct attr *names = attr_get(op, attr, "activations");
	const struct attr *alpha = attr_get(op, attr, "activation_alpha"), *beta = attr_get(op, attr, "activation_beta");
	size_t nalpha = 0, nbeta = 0, n = (size_t)(cell->functions * directions);

	if (attr_given(names) && names->n != n)
		return fail(e, LINNET_EATTR, "%zu activations given; expected %zu", names->n, n);
	for (size_t i = 0; i < n; i++) {
		const char *usual = cell->defaults[i % (size_t)cell->functions];
		struct text name = { usual, strlen(usual) };

		TRY(find_activation(attr_given(names) ? names->strings[i] : name, &out[i], e));
		if (out[i].takes_alpha && nalpha < alpha->n)
			out[i].alpha = alpha->floats[nalpha++];
		if (out[i].takes_beta && nbeta < beta->n)
			out[i].beta = beta->floats[nbeta++];
	}
	return LINNET_OK;
}

/* "forward", "reverse" or "bidirectional" */
static int direction_count(const struct op *op, const struct attr *attr)
{
	return attr_get(op, attr, "direction")->s.p[0] == 'b' ? 2 : 1;
}

/* An input of the rank of `expected`, whose known lengths it has; where those are not known they are taken from it. */
static enum linnet_code input_shape(struct shape_call *c, int i, struct shape *expected)
{
	char what[80];

	if (i >= c->nin || !c->in[i] || c->in[i]->shape.rank < 0)
		return LINNET_OK;
	TRY(rank_check(c, i, expected->rank, expected->rank));
	for (int k = 0; k < expected->rank; k++) {
		snprintf(what, sizeof what, "lengths of \"%s\", axis %d, expected and found,", op_in(c->op, i)->name, k);
		TRY(length_join(c, what, expected->d[k], c->in[i]->shape.d[k], &expected->d[k]));
	}
	return LINNET_OK;
}

/*
 * T steps, B samples, I inputs, H hidden, D directions, G gates.
 * X: [T, B, I]  W: [D, G H, I]  R: [D, G H, H]  B: [D, 2 G H]  sequence_lens: [B]  initial states: [D, B, H]  P: [D, 3 H]
 * Y: [T, D, B, H]  last states: [D, B, H]; with layout 1 the samples come first: X: [B, T, I], Y: [B, T, D, H], [B, D, H].
 */
static enum linnet_code shape_recurrent(struct shape_call *c)
{
	const struct cell *cell = c->op->param;
	const struct attr *hidden = attr_get(c->op, c->attr, "hidden_size");
	bool samples_first = attr_get(c->op, c->attr, "layout")->i != 0;
	dim d = direction_count(c->op, c->attr), h = attr_given(hidden) ? hidden->i : DIM_NONE, gh;
	struct shape x = { .rank = 3, .d = { DIM_NONE, DIM_NONE, DIM_NONE } }, r, state;
	struct activation functions[6];
	dim steps, samples;

	TRY(read_activations(c->op, c->attr, (int)d, functions, c->e));
	TRY(input_shape(c, 0, &x));
	steps = x.d[samples_first];
	samples = x.d[!samples_first];
	r = (struct shape){ .rank = 3, .d = { d, DIM_NONE, h } };
	TRY(input_shape(c, 2, &r));
	h = r.d[2];
	gh = dim_mul(c->dims, h, cell->gates);
	TRY(length_join(c, "rows of R, expected and found,", gh, r.d[1], NULL));
	TRY(input_shape(c, 1, &(struct shape){ .rank = 3, .d = { d, gh, x.d[2] } }));
	TRY(input_shape(c, 3, &(struct shape){ .rank = 2, .d = { d, dim_mul(c->dims, gh, 2) } }));
	TRY(input_shape(c, 4, &(struct shape){ .rank = 1, .d = { samples } }));
	state = (struct shape){ .rank = 3, .d = { samples_first ? samples : d, samples_first ? d : samples, h } };
	TRY(input_shape(c, 5, &state));
	if (cell->states > 1) {
		TRY(input_shape(c, 6, &state));
		TRY(input_shape(c, 7, &(struct shape){ .rank = 2, .d = { d, dim_mul(c->dims, h, 3) } }));
	}
	c->out[0].shape = samples_first ? (struct shape){ .rank = 4, .d = { samples, steps, d, h } }
	                                : (struct shape){ .rank = 4, .d = { steps, d, samples, h } };
	for (int i = 1; i < c->nout; i++)
		c->out[i].shape = state;
	return LINNET_OK;
}

/* One direction's weights, and one sample's state and workspace. Absent inputs are NULL. */
struct run {
	int64_t inputs, n; /* n: hidden */
	const double *w, *r, *wb, *rb, *p;
	const struct activation *f;
	double clip;
	bool linear_before_reset, input_forget;
	double *h, *c;  /* states, updated in place */
	double *xw, *hr; /* X W^T + Wb and H R^T + Rb, gates * n each */
	double *rh;     /* r (.) H, n */
};

static double apply(const struct activation *a, double x) { return a->f(x, a->alpha, a->beta); }

/* The function of a gate, after clipping. */
static double activate(const struct run *s, int which, double x)
{
	return apply(&s->f[which], x > s->clip ? s->clip : x < -s->clip ? -s->clip : x);
}

/* y[i] = sum over k of m[i, k] x[k] + b[i] */
static void affine_map(const double *m, const double *x, const double *b, int64_t rows_count, int64_t columns, double *y)
{
	for (int64_t i = 0; i < rows_count; i++) {
		y[i] = b ? b[i] : 0;
		for (int64_t k = 0; k < columns; k++)
			y[i] += m[i * columns + k] * x[k];
	}
}

/* H' = f(X W^T + H R^T + Wb + Rb) */
static void rnn_step(struct run *s)
{
	for (int64_t i = 0; i < s->n; i++)
		s->h[i] = activate(s, 0, s->xw[i] + s->hr[i]);
}

/*
 * z = f(X Wz^T + H Rz^T + Wbz + Rbz), r likewise, H' = (1 - z) (.) h + z (.) H with
 * h = g(X Wh^T + (r (.) H) Rh^T + Rbh + Wbh), or when linear_before_reset g(X Wh^T + r (.) (H Rh^T + Rbh) + Wbh)
 */
static void gru_step(struct run *s)
{
	const double *xz = s->xw, *xr = s->xw + s->n, *xh = s->xw + 2 * s->n;
	double *hz = s->hr, *hr = s->hr + s->n, *hh = s->hr + 2 * s->n;

	for (int64_t i = 0; i < s->n; i++) {
		double r = activate(s, 0, xr[i] + hr[i]);

		s->rh[i] = r * s->h[i];
		hh[i] *= r;
	}
	if (!s->linear_before_reset)
		affine_map(s->r + 2 * s->n * s->n, s->rh, s->rb ? s->rb + 2 * s->n : NULL, s->n, s->n, hh);
	for (int64_t i = 0; i < s->n; i++) {
		double z = activate(s, 0, xz[i] + hz[i]), h = activate(s, 1, xh[i] + hh[i]);

		s->h[i] = (1 - z) * h + z * s->h[i];
	}
}

/*
 * i = f(X Wi^T + H Ri^T + Pi (.) C + Wbi + Rbi), f likewise (1 - i when input_forget), c = g(X Wc^T + H Rc^T + Wbc + Rbc)
 * C' = f (.) C + i (.) c, o = f(X Wo^T + H Ro^T + Po (.) C' + Wbo + Rbo), H' = o (.) h(C'). Gates are stored i, o, f, c.
 * clip bounds what the gates and the candidate are made of; C' goes into h as it is, as runtimes do it.
 */
static void lstm_step(struct run *s)
{
	for (int64_t k = 0; k < s->n; k++) {
		double gate[4], p[3], i, f;

		for (int64_t g = 0; g < 4; g++)
			gate[g] = s->xw[g * s->n + k] + s->hr[g * s->n + k];
		for (int64_t g = 0; g < 3; g++)
			p[g] = s->p ? s->p[g * s->n + k] : 0;
		i = activate(s, 0, gate[0] + p[0] * s->c[k]);
		f = s->input_forget ? 1 - i : activate(s, 0, gate[2] + p[2] * s->c[k]);
		s->c[k] = f * s->c[k] + i * activate(s, 1, gate[3]);
		s->h[k] = activate(s, 0, gate[1] + p[1] * s->c[k]) * apply(&s->f[2], s->c[k]);
	}
}

/* Steps of sample b: sequence_lens[b], or all. Elements of Y beyond are 0. */
static enum linnet_code step_count(struct kernel_call *c, int64_t b, int64_t all, int64_t *out)
{
	*out = c->nin > 4 && c->in[4] ? tensor_get_int(c->in[4], b) : all;
	if (*out < 0 || *out > all)
		return fail(c->e, LINNET_EVALUE, "sequence_lens has %lld; expected 0 to %lld", (long long)*out, (long long)all);
	return LINNET_OK;
}

static void put_state(struct tensor *t, int64_t at, const double *x, int64_t n)
{
	for (int64_t i = 0; t && i < n; i++)
		tensor_put(t, at + i, x[i]);
}

static enum linnet_code recurrent(struct kernel_call *c)
{
	const struct cell *cell = c->op->param;
	const struct attr *clip = attr_get(c->op, c->attr, "clip");
	bool samples_first = attr_get(c->op, c->attr, "layout")->i != 0;
	bool reverse = attr_get(c->op, c->attr, "direction")->s.p[0] == 'r';
	int64_t nd = direction_count(c->op, c->attr), steps = c->in[0]->d[samples_first], samples = c->in[0]->d[!samples_first];
	struct run s = { .inputs = c->in[0]->d[2], .n = c->in[2]->d[2], .clip = attr_given(clip) ? clip->f : INFINITY };
	int64_t n = s.n, gates = cell->gates * n;
	const double *x, *w, *r, *bias, *h0, *c0 = NULL, *p = NULL;
	struct tensor *y = c->out[0], *last_h = c->nout > 1 ? c->out[1] : NULL, *last_c = c->nout > 2 ? c->out[2] : NULL;
	struct linnet_error *e = c->e;
	struct activation f[6];

	s.linear_before_reset = attr_get(c->op, c->attr, "linear_before_reset")->i != 0;
	s.input_forget = attr_get(c->op, c->attr, "input_forget")->i != 0;
	TRY(read_activations(c->op, c->attr, (int)nd, f, e));
	TRY(kernel_doubles(c, 0, &x));
	TRY(kernel_doubles(c, 1, &w));
	TRY(kernel_doubles(c, 2, &r));
	TRY(kernel_doubles(c, 3, &bias));
	TRY(kernel_doubles(c, 5, &h0));
	if (cell->states > 1) {
		TRY(kernel_doubles(c, 6, &c0));
		TRY(kernel_doubles(c, 7, &p));
	}
	TRY_NEW(s.h, c->scratch, n);
	TRY_NEW(s.c, c->scratch, n);
	TRY_NEW(s.xw, c->scratch, gates);
	TRY_NEW(s.hr, c->scratch, gates);
	TRY_NEW(s.rh, c->scratch, n);
	for (int64_t i = 0; y && i < y->n; i++)
		tensor_put(y, i, 0);
	for (int64_t d = 0; d < nd; d++) {
		s.w = w + d * gates * s.inputs;
		s.r = r + d * gates * n;
		s.wb = bias ? bias + d * 2 * gates : NULL;
		s.rb = bias ? s.wb + gates : NULL;
		s.p = p ? p + d * 3 * n : NULL;
		s.f = f + d * cell->functions;
		for (int64_t b = 0; b < samples; b++) {
			int64_t state = (samples_first ? b * nd + d : d * samples + b) * n, count;

			TRY(step_count(c, b, steps, &count));
			for (int64_t i = 0; i < n; i++) {
				s.h[i] = h0 ? h0[state + i] : 0;
				s.c[i] = c0 ? c0[state + i] : 0;
			}
			for (int64_t k = 0; k < count; k++) {
				int64_t t = reverse || d ? count - 1 - k : k;

				affine_map(s.w, x + (samples_first ? b * steps + t : t * samples + b) * s.inputs, s.wb, gates,
				           s.inputs, s.xw);
				affine_map(s.r, s.h, s.rb, gates, n, s.hr);
				if (cell->states > 1)
					lstm_step(&s);
				else if (cell->gates > 1)
					gru_step(&s);
				else
					rnn_step(&s);
				put_state(y, (samples_first ? (b * steps + t) * nd + d : (t * nd + d) * samples + b) * n, s.h, n);
			}
			put_state(last_h, state, s.h, n);
			put_state(last_c, state, s.c, n);
		}
	}
	return LINNET_OK;
}

/* ---- Bodies ---- */

#define SAY(...) str_addf(&b->s, __VA_ARGS__)

/* to: the activation of x; names made on the way start with `to`. */
static void say_activation(struct body *b, const struct activation *f, enum dtype dt, const char *to, const char *x)
{
	if (!strcmp(f->name, "Affine")) {
		SAY("%s_a = Constant <value = %s {%#.17g}> ()\n%s_b = Constant <value = %s {%#.17g}> ()\n", to, dtype_name(dt), f->alpha, to,
		    dtype_name(dt), f->beta);
		SAY("%s_m = Mul (%s, %s_a)\n%s = Add (%s_m, %s_b)\n", to, x, to, to, to, to);
	} else if (!strcmp(f->name, "ScaledTanh")) {
		SAY("%s_a = Constant <value = %s {%#.17g}> ()\n%s_b = Constant <value = %s {%#.17g}> ()\n", to, dtype_name(dt), f->alpha, to,
		    dtype_name(dt), f->beta);
		SAY("%s_m = Mul (%s, %s_b)\n%s_t = Tanh (%s_m)\n%s = Mul (%s_t, %s_a)\n", to, x, to, to, to, to, to, to);
	} else if (f->takes_beta) {
		SAY("%s = %s <alpha = %#.9g, beta = %#.9g> (%s)\n", to, f->name, f->alpha, f->beta, x);
	} else if (f->takes_alpha) {
		SAY("%s = %s <alpha = %#.9g> (%s)\n", to, f->name, f->alpha, x);
	} else {
		SAY("%s = %s (%s)\n", to, f->name, x);
	}
}

/* to: gate function `which` of the sum of x and y, clipped. */
static void say_gate(struct body *b, const struct shape_call *c, const struct activation *f, const char *to, const char *x, const char *y)
{
	const struct attr *clip = attr_get(c->op, c->attr, "clip");
	char sum[40];

	snprintf(sum, sizeof sum, "%s_sum", to);
	SAY("%s = Add (%s, %s)\n", sum, x, y);
	if (attr_given(clip)) {
		SAY("%s_lo = Constant <value = %s {%#.17g}> ()\n%s_hi = Constant <value = %s {%#.17g}> ()\n%s_cut = Clip (%s, %s_lo, %s_hi)\n", to,
		    dtype_name(c->in[0]->dt), -clip->f, to, dtype_name(c->in[0]->dt), clip->f, to, sum, to, to);
		snprintf(sum, sizeof sum, "%s_cut", to);
	}
	say_activation(b, f, c->in[0]->dt, to, sum);
}

/* One step on h, c and `xw`: h2, c2. d: the direction, in names that stand outside. */
static void say_step(struct body *b, const struct shape_call *c, const struct activation *f, int d)
{
	const struct cell *cell = c->op->param;
	bool bias = c->nin > 3 && c->in[3], peep = cell->states > 1 && c->nin > 7 && c->in[7];

	SAY("hr%s = MatMul (h, rt%d)\n", bias ? "_bare" : "", d);
	if (bias)
		SAY("hr = Add (hr_bare, rb%d)\n", d);
	if (cell->gates == 1) {
		say_gate(b, c, &f[0], "h2", "xw", "hr");
	} else if (cell->gates == 3) {
		SAY("xz, xr, xh = Split <axis = -1, num_outputs = 3> (xw)\nhz, hrr, hh = Split <axis = -1, num_outputs = 3> (hr)\n");
		say_gate(b, c, &f[0], "r", "xr", "hrr");
		if (attr_get(c->op, c->attr, "linear_before_reset")->i) {
			SAY("hg = Mul (hh, r)\n");
		} else {
			SAY("rh = Mul (r, h)\nhg%s = MatMul (rh, rht%d)\n", bias ? "_bare" : "", d);
			if (bias)
				SAY("hg = Add (hg_bare, rbh%d)\n", d);
		}
		say_gate(b, c, &f[0], "z", "xz", "hz");
		say_gate(b, c, &f[1], "n", "xh", "hg");
		SAY("apart = Sub (h, n)\nkept = Mul (z, apart)\nh2 = Add (n, kept)\n");
	} else {
		SAY("xi, xo, xf, xc = Split <axis = -1, num_outputs = 4> (xw)\nhi, ho, hf, hc = Split <axis = -1, num_outputs = 4> (hr)\n");
		SAY(peep ? "pic = Mul (pi%d, c)\nhi_p = Add (hi, pic)\npfc = Mul (pf%d, c)\nhf_p = Add (hf, pfc)\n"
		         : "hi_p = Identity (hi)\nhf_p = Identity (hf)\n", d, d);
		say_gate(b, c, &f[0], "i", "xi", "hi_p");
		if (attr_get(c->op, c->attr, "input_forget")->i)
			SAY("unit = Constant <value = %s {1.0}> ()\nf = Sub (unit, i)\n", dtype_name(c->in[0]->dt));
		else
			say_gate(b, c, &f[0], "f", "xf", "hf_p");
		say_gate(b, c, &f[1], "g", "xc", "hc");
		SAY("fc = Mul (f, c)\nig = Mul (i, g)\nc2 = Add (fc, ig)\n");
		SAY(peep ? "poc = Mul (po%d, c2)\nho_p = Add (ho, poc)\n" : "ho_p = Identity (ho)\n", d);
		say_gate(b, c, &f[0], "o", "xo", "ho_p");
		say_activation(b, &f[2], c->in[0]->dt, "hc2", "c2");
		SAY("h2 = Mul (o, hc2)\n");
	}
}

/* Of input `from` [D, ...] the part of direction d. */
static void say_part(struct body *b, const char *to, int d, const char *from)
{
	SAY("%s%d_which = Constant <value = int64 {%d}> ()\n%s%d = Gather <axis = 0> (%s, %s%d_which)\n", to, d, d, to, d, from, to, d);
}

/* The state that direction d begins with: what is given, or zeros. */
static void say_start(struct body *b, const struct shape_call *c, const char *to, int d, int i)
{
	bool samples_first = attr_get(c->op, c->attr, "layout")->i != 0;

	if (c->nin <= i || !c->in[i]) {
		SAY("%s%d = Expand (nothing, state_shape)\n", to, d);
		return;
	}
	SAY(samples_first ? "%s%d_all = Transpose <perm = [1, 0, 2]> (%s)\n" : "%s%d_all = Identity (%s)\n", to, d, op_in(c->op, i)->name);
	SAY("%s%d_which = Constant <value = int64 {%d}> ()\n%s%d = Gather <axis = 0> (%s%d_all, %s%d_which)\n", to, d, d, to, d, to, d, to, d);
}

static void say_direction(struct body *b, const struct shape_call *c, const struct activation *f, int d)
{
	const struct cell *cell = c->op->param;
	bool bias = c->nin > 3 && c->in[3], lens = c->nin > 4 && c->in[4], two = cell->states > 1;
	bool reverse = d || attr_get(c->op, c->attr, "direction")->s.p[0] == 'r';

	say_part(b, "w", d, "W");
	say_part(b, "rr", d, "R");
	SAY("wt%d = Transpose <perm = [1, 0]> (w%d)\nrt%d = Transpose <perm = [1, 0]> (rr%d)\n", d, d, d, d);
	SAY(lens && reverse ? "x%d = ReverseSequence <time_axis = 0, batch_axis = 1> (x, turned)\n" : "x%d = Identity (x)\n", d);
	SAY("xw%d%s = MatMul (x%d, wt%d)\n", d, bias ? "_bare" : "", d, d);
	if (bias) {
		say_part(b, "bias", d, "B");
		SAY("wb%d, rb%d = Split <axis = 0, num_outputs = 2> (bias%d)\nxw%d = Add (xw%d_bare, wb%d)\n", d, d, d, d, d, d);
	}
	if (cell->gates == 3) {
		SAY("rtz%d, rtr%d, rht%d = Split <axis = 1, num_outputs = 3> (rt%d)\n", d, d, d, d);
		if (bias)
			SAY("rbz%d, rbr%d, rbh%d = Split <axis = 0, num_outputs = 3> (rb%d)\n", d, d, d, d);
	}
	if (two && c->nin > 7 && c->in[7]) {
		say_part(b, "p", d, "P");
		SAY("pi%d, po%d, pf%d = Split <axis = 0, num_outputs = 3> (p%d)\n", d, d, d, d);
	}
	say_start(b, c, "h", d, 5);
	if (two)
		say_start(b, c, "c", d, 6);
	SAY("h_last%d, %s%s%d = Scan <num_scan_inputs = %d, ", d, two ? (d ? "c_last1, " : "c_last0, ") : "", "y_as", d, lens ? 2 : 1);
	if (reverse && !lens)
		SAY("scan_input_directions = [1], scan_output_directions = [1], ");
	SAY("body = step (h, %sxw%s) => (h_next, %sy) {\n", two ? "c, " : "", lens ? ", at" : "", two ? "c_next, " : "");
	say_step(b, c, f, d);
	if (lens) {
		SAY("live_flat = Less (at, sequence_lens)\nlast = Constant <value = int64[1] {-1}> ()\nlive = Unsqueeze (live_flat, last)\n"
		    "none = Constant <value = %s {0.0}> ()\nh_next = Where (live, h2, h)\ny = Where (live, h2, none)\n", dtype_name(c->in[0]->dt));
		SAY(two ? "c_next = Where (live, c2, c)\n" : "");
	} else {
		SAY("h_next = Identity (h2)\ny = Identity (h2)\n%s", two ? "c_next = Identity (c2)\n" : "");
	}
	SAY("}> (h%d, ", d);
	if (two)
		SAY("c%d, ", d);
	SAY("xw%d%s)\n", d, lens ? ", times" : "");
	SAY(lens && reverse ? "y%d_t = ReverseSequence <time_axis = 0, batch_axis = 1> (y_as%d, turned)\n" : "y%d_t = Identity (y_as%d)\n", d, d);
	SAY("y%d = Unsqueeze (y%d_t, second)\nh_end%d = Unsqueeze (h_last%d, first)\n", d, d, d, d);
	if (two)
		SAY("c_end%d = Unsqueeze (c_last%d, first)\n", d, d);
}

/* A Scan a direction, over products of X with W that are made at once. */
static enum linnet_code write_recurrent(struct shape_call *c, const char **text)
{
	const struct cell *cell = c->op->param;
	bool samples_first = attr_get(c->op, c->attr, "layout")->i != 0;
	int nd = direction_count(c->op, c->attr);
	struct activation f[6];
	struct body body, *b = &body;

	TRY(read_activations(c->op, c->attr, nd, f, c->e));
	if (c->in[0]->dt == DT_UNDEFINED)
		return fail(c->e, LINNET_EUNSUPPORTED, "element types must be known to write it in other operators");
	body_begin(b, c);
	body_ints(b, "first", 1, &(int64_t){ 0 });
	body_ints(b, "second", 1, &(int64_t){ 1 });
	body_ints(b, "third", 1, &(int64_t){ 2 });
	body_float(b, "nothing", c->in[0]->dt, 0);
	SAY(samples_first ? "x = Transpose <perm = [1, 0, 2]> (X)\n" : "x = Identity (X)\n");
	SAY("x_shape = Shape (x)\nr_shape = Shape (R)\nsamples = Gather (x_shape, second)\nhidden = Gather (r_shape, third)\n"
	    "state_shape = Concat <axis = 0> (samples, hidden)\n");
	if (c->nin > 4 && c->in[4])
		SAY("from = Constant <value = int32 {0}> ()\nby = Constant <value = int32 {1}> ()\nsteps_one = Gather (x_shape, first)\n"
		    "steps_64 = Squeeze (steps_one)\nsteps = Cast <to = 6> (steps_64)\ntimes = Range (from, steps, by)\n"
		    "lens_64 = Cast <to = 7> (sequence_lens)\nturned = Max (lens_64, second)\n");
	for (int d = 0; d < nd; d++)
		say_direction(b, c, f + d * cell->functions, d);
	SAY(nd > 1 ? "y_all = Concat <axis = 1> (y0, y1)\nh_all = Concat <axis = 0> (h_end0, h_end1)\n"
	           : "y_all = Identity (y0)\nh_all = Identity (h_end0)\n");
	SAY(samples_first ? "Y = Transpose <perm = [2, 0, 1, 3]> (y_all)\nY_h = Transpose <perm = [1, 0, 2]> (h_all)\n"
	                  : "Y = Identity (y_all)\nY_h = Identity (h_all)\n");
	if (cell->states > 1) {
		SAY(nd > 1 ? "c_all = Concat <axis = 0> (c_end0, c_end1)\n" : "c_all = Identity (c_end0)\n");
		SAY(samples_first ? "Y_c = Transpose <perm = [1, 0, 2]> (c_all)\n" : "Y_c = Identity (c_all)\n");
	}
	return body_end(b, text);
}

#define SEQUENCE_INPUTS                                                                            \
	{ "X", T, FLOW_KINKED }, { "W", T, FLOW_KINKED }, { "R", T, FLOW_KINKED }, { "B", T, FLOW_KINKED, OPTIONAL }, \
		{ "sequence_lens", T1, FLOW_NONE, OPTIONAL }, { "initial_h", T, FLOW_KINKED, OPTIONAL }

#define CELL_ATTRIBUTES                                                                            \
	{ .name = "activation_alpha", .kind = ATTR_FLOATS, .flags = OPTIONAL },                    \
		{ .name = "activation_beta", .kind = ATTR_FLOATS, .flags = OPTIONAL },             \
		{ .name = "activations", .kind = ATTR_STRINGS },                                   \
		{ .name = "clip", .kind = ATTR_FLOAT, .flags = OPTIONAL, .lo = 0, .hi = INFINITY }, \
		{ .name = "direction", .kind = ATTR_STRING, .s = "forward", .oneof = "forward|reverse|bidirectional" }, \
		{ .name = "hidden_size", .kind = ATTR_INT, .flags = OPTIONAL, .lo = 1, .hi = INT32_MAX }, \
		{ .name = "layout", .kind = ATTR_INT, .since = 14, .lo = 0, .hi = 1 }

static const struct op rows[] = {
	{
		.name = "RNN", .since = 7,
		.doc = "A sequence through H' = f(X W + H R + bias).",
		.in = IN(SEQUENCE_INPUTS),
		.out = OUT({ "Y", T, .flags = OPTIONAL }, { "Y_h", T, .flags = OPTIONAL }),
		.attr = ATTRS(CELL_ATTRIBUTES),
		.types = { [T] = FLOATS, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_recurrent,
		.kernel = recurrent, .fast = FAST(&fast_recurrent), .write_body = write_recurrent,
		.param = &rnn_cell,
		.fuzz = { .shapes = FUZZ_STEPS },
	},
	{
		.name = "GRU", .since = 7,
		.doc = "A sequence through gated recurrent units: an update gate mixes the state with a candidate.",
		.in = IN(SEQUENCE_INPUTS),
		.out = OUT({ "Y", T, .flags = OPTIONAL }, { "Y_h", T, .flags = OPTIONAL }),
		.attr = ATTRS(CELL_ATTRIBUTES, { .name = "linear_before_reset", .kind = ATTR_INT }),
		.types = { [T] = FLOATS, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_recurrent,
		.kernel = recurrent, .fast = FAST(&fast_recurrent), .write_body = write_recurrent,
		.param = &gru_cell,
		.fuzz = { .shapes = FUZZ_STEPS },
	},
	{
		.name = "LSTM", .since = 7,
		.doc = "A sequence through long short-term memory: gates decide what a cell forgets, adds and shows.",
		.in = IN(SEQUENCE_INPUTS, { "initial_c", T, FLOW_KINKED, OPTIONAL }, { "P", T, FLOW_KINKED, OPTIONAL }),
		.out = OUT({ "Y", T, .flags = OPTIONAL }, { "Y_h", T, .flags = OPTIONAL }, { "Y_c", T, .flags = OPTIONAL }),
		.attr = ATTRS(CELL_ATTRIBUTES, { .name = "input_forget", .kind = ATTR_INT }),
		.types = { [T] = FLOATS, [T1] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = shape_recurrent,
		.kernel = recurrent, .fast = FAST(&fast_recurrent), .write_body = write_recurrent,
		.param = &lstm_cell,
		.fuzz = { .shapes = FUZZ_STEPS },
	},
};

const struct op_family recurrent_ops = FAMILY("recurrent", rows);
