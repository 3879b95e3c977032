/* Fourier transforms, windows and mel filters: reference kernels, then rows. */
#include <math.h>

#include "ops/body.h"
#include "ops/grad.h"
#include "ops/op.h"

/* ---- The discrete Fourier transform of one sequence ---- */

struct complex {
	double re, im;
};

struct transform {
	int64_t n;
	bool inverse;
	struct complex *in, *out; /* n each */
	struct complex *root;     /* root[j] = exp(+- 2 pi i j / n) */
	struct complex *part;     /* n, for combining */
};

static struct complex product(struct complex a, struct complex b)
{
	return (struct complex){ a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re };
}

/* exp(2 pi i j / n) for 0 <= j < n, exact at quarter turns. */
static struct complex root_of_unity(int64_t j, int64_t n)
{
	int64_t quarter = 4 * j / n, rest = 4 * j % n;
	double angle = 1.5707963267948966192 * (double)rest / (double)n, c = cos(angle), s = sin(angle);

	switch (quarter) {
	case 0: return (struct complex){ c, s };
	case 1: return (struct complex){ -s, c };
	case 2: return (struct complex){ -c, -s };
	default: return (struct complex){ s, -c };
	}
}

static enum linnet_code transform_init(struct transform *t, int64_t n, bool inverse, struct arena *a, struct linnet_error *e)
{
	*t = (struct transform){ .n = n, .inverse = inverse };
	TRY_NEW(t->in, a, n);
	TRY_NEW(t->out, a, n);
	TRY_NEW(t->root, a, n);
	TRY_NEW(t->part, a, n);
	for (int64_t j = 0; j < n; j++) {
		t->root[j] = root_of_unity(j, n);
		if (!inverse)
			t->root[j].im = -t->root[j].im;
	}
	return LINNET_OK;
}

static int64_t smallest_factor(int64_t n)
{
	for (int64_t p = 2; p * p <= n; p++)
		if (n % p == 0)
			return p;
	return n;
}

/*
 * out[k] = sum over j < n of in[j step] exp(+- 2 pi i j k / n), n step = t->n: p transforms of every p-th element for the smallest
 * prime p in n, joined by sums of p terms (Cooley and Tukey). A prime n is summed as it is written.
 */
static void transform_part(struct transform *t, const struct complex *in, struct complex *out, int64_t n, int64_t step)
{
	int64_t p = smallest_factor(n), m = n / p;

	if (n == 1) {
		out[0] = in[0];
		return;
	}
	for (int64_t r = 0; r < p; r++)
		transform_part(t, in + r * step, out + r * m, m, step * p);
	for (int64_t k = 0; k < m; k++) {
		for (int64_t r = 0; r < p; r++)
			t->part[r] = out[r * m + k];
		for (int64_t to = k; to < n; to += m) {
			struct complex sum = { 0, 0 };

			for (int64_t r = 0, at = 0; r < p; r++) {
				struct complex x = product(t->part[r], t->root[at * step]);

				sum.re += x.re;
				sum.im += x.im;
				at += to;
				at -= at < n ? 0 : n;
			}
			out[to] = sum;
		}
	}
}

static void transform_run(struct transform *t)
{
	transform_part(t, t->in, t->out, t->n, 1);
	for (int64_t k = 0; k < t->n && t->inverse; k++) {
		t->out[k].re /= (double)t->n;
		t->out[k].im /= (double)t->n;
	}
}

/* Element i of numbers that are real (parts = 1) or pairs (2). */
static struct complex get_complex(const struct tensor *x, int64_t i, int64_t parts)
{
	return (struct complex){ tensor_get(x, i * parts), parts > 1 ? tensor_get(x, i * parts + 1) : 0 };
}

static void put_complex(struct tensor *y, int64_t i, int64_t parts, struct complex v)
{
	tensor_put(y, i * parts, v.re);
	if (parts > 1)
		tensor_put(y, i * parts + 1, v.im);
}

/* The last axis holds real numbers or pairs; one-sided spectra are of real signals. real, pairs: which are admitted. */
static enum linnet_code parts_check(const struct shape_call *c, dim parts, bool real, bool pairs)
{
	if (!dim_is_int(parts) || (parts == 1 && real) || (parts == 2 && pairs))
		return LINNET_OK;
	return fail(c->e, LINNET_ESHAPE, "last axis of \"%s\" has length %lld; expected %s", op_in(c->op, 0)->name, (long long)parts,
	            real && pairs ? "1 (real) or 2 (complex)" : real ? "1: one-sided spectra are of real signals"
	                                                             : "2: a one-sided spectrum is complex");
}

/* ---- DFT ---- */

static bool is_set(const struct op *op, const struct attr *attr, const char *name) { return attr_get(op, attr, name)->i != 0; }

/* The axis to [0, rank - 1): the last one holds real and imaginary part. */
static enum linnet_code signal_axis(int64_t axis, int rank, int *out, struct linnet_error *e)
{
	if (axis < -rank || axis > rank - 2 || axis == -1)
		return fail(e, LINNET_ESHAPE, "axis %lld is not in [%d, -2] or [0, %d]", (long long)axis, -rank, rank - 2);
	*out = (int)(axis < 0 ? axis + rank : axis);
	return LINNET_OK;
}

/* Numbers transformed when dft_length is left out, of n along the axis. */
static dim default_length(struct dims *t, dim n, bool from_onesided)
{
	return from_onesided ? dim_mul(t, 2, dim_sub(t, n, 1)) : n;
}

static enum linnet_code dft_shape(struct shape_call *c)
{
	bool inverse = is_set(c->op, c->attr, "inverse"), onesided = is_set(c->op, c->attr, "onesided");
	const struct type *length = c->nin > 1 ? c->in[1] : NULL, *axis = c->nin > 2 ? c->in[2] : NULL;
	const struct shape *in = &c->in[0]->shape;
	struct shape *out = &c->out[0].shape;
	dim at = axis ? type_element(axis, 0) : -2, n;
	int k;

	TRY(rank_check(c, 0, 2, MAX_RANK));
	TRY(scalar_check(c, 1));
	TRY(scalar_check(c, 2));
	if (in->rank < 0)
		return LINNET_OK;
	TRY(parts_check(c, in->d[in->rank - 1], !(onesided && inverse), !(onesided && !inverse)));
	*out = *in;
	out->d[in->rank - 1] = onesided && inverse ? 1 : 2;
	if (!dim_is_int(at) && in->rank > 2) {
		for (int i = 0; i < in->rank - 1; i++)
			out->d[i] = DIM_NONE;
		return LINNET_OK;
	}
	TRY(signal_axis(dim_is_int(at) ? at : 0, in->rank, &k, c->e));
	n = length ? type_element(length, 0) : default_length(c->dims, in->d[k], onesided && inverse);
	if (dim_is_int(n) && n < 1)
		return fail(c->e, LINNET_ESHAPE, "length of the transform is %lld; expected at least 1", (long long)n);
	out->d[k] = onesided && !inverse ? dim_add(c->dims, dim_div(c->dims, n, 2), 1) : n;
	return LINNET_OK;
}

/*
 * y[.., k, ..] = sum over j < n of x[.., j, ..] exp(-2 pi i j k / n), inverse with + and divided by n; along one axis, cut or
 * filled with zeros to n. One-sided: forward gives k <= n / 2; inverse reads those and takes the others as their conjugates.
 */
static enum linnet_code dft(struct kernel_call *c)
{
	bool inverse = is_set(c->op, c->attr, "inverse"), onesided = is_set(c->op, c->attr, "onesided");
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t from = x->d[x->rank - 1], to = y->d[y->rank - 1], outer = 1, inner = 1, have, n;
	struct transform t;
	int axis;

	TRY(signal_axis(c->nin > 2 && c->in[2] ? tensor_get_int(c->in[2], 0) : -2, x->rank, &axis, c->e));
	have = x->d[axis];
	n = c->nin > 1 && c->in[1] ? tensor_get_int(c->in[1], 0) : default_length(NULL, have, onesided && inverse);
	if (onesided && inverse && have > n / 2 + 1)
		have = n / 2 + 1;
	for (int i = 0; i < axis; i++)
		outer *= x->d[i];
	for (int i = axis + 1; i < x->rank - 1; i++)
		inner *= x->d[i];
	TRY(transform_init(&t, n, inverse, c->scratch, c->e));
	for (int64_t line = 0; line < outer * inner; line++) {
		int64_t o = line / inner, i = line % inner;

		for (int64_t j = 0; j < n; j++)
			t.in[j] = j < have ? get_complex(x, (o * x->d[axis] + j) * inner + i, from) : (struct complex){ 0, 0 };
		for (int64_t j = n / 2 + 1; j < n && onesided && inverse; j++)
			t.in[j] = (struct complex){ t.in[n - j].re, -t.in[n - j].im };
		transform_run(&t);
		for (int64_t k = 0; k < y->d[axis]; k++)
			put_complex(y, (o * y->d[axis] + k) * inner + i, to, t.out[k]);
	}
	return LINNET_OK;
}

/* ---- STFT ---- */

/* [B, T, 1] or [B, T, 2], or [B, T] as exporters write real signals, to [B, frames, bins, 2]. */
static enum linnet_code stft_shape(struct shape_call *c)
{
	const struct type *window = c->nin > 2 ? c->in[2] : NULL, *length = c->nin > 3 ? c->in[3] : NULL;
	const struct shape *in = &c->in[0]->shape;
	bool onesided = is_set(c->op, c->attr, "onesided");
	dim step = type_element(c->in[1], 0), total = in->rank < 0 ? DIM_NONE : in->d[1], n;

	TRY(rank_check(c, 0, 2, 3));
	TRY(scalar_check(c, 1));
	TRY(rank_check(c, 2, 1, 1));
	TRY(scalar_check(c, 3));
	if (in->rank == 3)
		TRY(parts_check(c, in->d[2], true, !onesided));
	n = length ? type_element(length, 0) : DIM_NONE;
	if (window && window->shape.rank == 1)
		TRY(length_join(c, "length of the window and frame_length", window->shape.d[0], length ? n : window->shape.d[0], &n));
	else if (!length && !window)
		n = total;
	if (dim_is_int(n) && n < 1)
		return fail(c->e, LINNET_ESHAPE, "length of a frame is %lld; expected at least 1", (long long)n);
	if (dim_is_int(step) && step < 1)
		return fail(c->e, LINNET_ESHAPE, "step between frames is %lld; expected at least 1", (long long)step);
	if (dim_is_int(n) && dim_is_int(total) && total < n)
		return fail(c->e, LINNET_ESHAPE, "signal of length %lld is shorter than a frame of %lld", (long long)total, (long long)n);
	c->out[0].shape = (struct shape){ .rank = 4, .d = { in->rank < 0 ? DIM_NONE : in->d[0], DIM_NONE, n, 2 } };
	c->out[0].shape.d[1] = dim_add(c->dims, dim_div(c->dims, dim_sub(c->dims, total, n), step), 1);
	if (onesided)
		c->out[0].shape.d[2] = dim_add(c->dims, dim_div(c->dims, n, 2), 1);
	return LINNET_OK;
}

/* y[b, f, k] = sum over j < n of x[b, f step + j] window[j] exp(-2 pi i j k / n) */
static enum linnet_code stft(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *window = c->nin > 2 ? c->in[2] : NULL, *length = c->nin > 3 ? c->in[3] : NULL;
	struct tensor *y = c->out[0];
	int64_t n = window ? window->n : length ? tensor_get_int(length, 0) : x->d[1];
	int64_t step = tensor_get_int(c->in[1], 0), from = x->rank == 3 ? x->d[2] : 1;
	struct transform t;

	TRY(transform_init(&t, n, false, c->scratch, c->e));
	for (int64_t b = 0; b < y->d[0]; b++)
		for (int64_t f = 0; f < y->d[1]; f++) {
			for (int64_t j = 0; j < n; j++) {
				struct complex v = get_complex(x, b * x->d[1] + f * step + j, from);
				double w = window ? tensor_get(window, j) : 1;

				t.in[j] = (struct complex){ v.re * w, v.im * w };
			}
			transform_run(&t);
			for (int64_t k = 0; k < y->d[2]; k++)
				put_complex(y, (b * y->d[1] + f) * y->d[2] + k, 2, t.out[k]);
		}
	return LINNET_OK;
}

/* ---- Windows ---- */

/* The number in input i, which counts something. */
static enum linnet_code count_of(const struct shape_call *c, int i, dim least, dim *out)
{
	TRY(scalar_check(c, i));
	*out = type_element(c->in[i], 0);
	if (dim_is_int(*out) && *out < least)
		return fail(c->e, LINNET_EVALUE, "%s is %lld; expected at least %lld", op_in(c->op, i)->name, (long long)*out,
		            (long long)least);
	return LINNET_OK;
}

static enum linnet_code window_shape(struct shape_call *c)
{
	dim n;

	TRY(attr_dtype(c, "output_datatype"));
	TRY(count_of(c, 0, 0, &n));
	c->out[0].shape = (struct shape){ .rank = 1, .d = { n } };
	return LINNET_OK;
}

/* w[i] = a[0] - a[1] cos(2 pi i / N) + a[2] cos(4 pi i / N), N = size, or size - 1 when not periodic: a symmetric window of
 * size 1 is 0 / 0, NaN, as in ONNX's function body. */
static enum linnet_code window(struct kernel_call *c)
{
	const double *a = c->op->param;
	struct tensor *y = c->out[0];
	int64_t n = y->n - !is_set(c->op, c->attr, "periodic");

	for (int64_t i = 0; i < y->n; i++)
		tensor_put(y, i, n ? a[2] * root_of_unity(2 * i % n, n).re - a[1] * root_of_unity(i % n, n).re + a[0] : NAN);
	return LINNET_OK;
}

/* ---- MelWeightMatrix ---- */

static enum linnet_code mel_shape(struct shape_call *c)
{
	dim bands, length, rate;

	TRY(attr_dtype(c, "output_datatype"));
	TRY(count_of(c, 0, 0, &bands));
	TRY(count_of(c, 1, 0, &length));
	TRY(count_of(c, 2, 1, &rate));
	TRY(scalar_check(c, 3));
	TRY(scalar_check(c, 4));
	c->out[0].shape = (struct shape){ .rank = 2, .d = { dim_add(c->dims, dim_div(c->dims, length, 2), 1), bands } };
	return LINNET_OK;
}

static double mel_of(double hertz) { return 2595 * log1p(hertz / 700) / log(10); }

/*
 * Column i is a triangle over bins of the spectrum, 0 at bin[i] and bin[i + 2] and 1 at bin[i + 1]. Bins are the frequencies spaced
 * evenly in mel from the lower to the upper edge, the last step left out: bin[i] = floor((dft_length + 1) hertz[i] / sample_rate).
 * What lies beyond the spectrum is left out. Source: ONNX's reference evaluator, the operator's text gives no formula.
 */
static enum linnet_code mel(struct kernel_call *c)
{
	double length = (double)tensor_get_int(c->in[1], 0), rate = (double)tensor_get_int(c->in[2], 0);
	double low = mel_of(tensor_get(c->in[3], 0)), high = mel_of(tensor_get(c->in[4], 0));
	struct tensor *y = c->out[0];
	int64_t bands = y->d[1];
	double step = (high - low) / (double)(bands + 2);

	for (int64_t i = 0; i < bands; i++) {
		double at[3];

		for (int k = 0; k < 3; k++)
			at[k] = floor((length + 1) * (700 * expm1(((double)(i + k) * step + low) / 2595 * log(10))) / rate);
		if (!isfinite(at[0]) || !isfinite(at[1]) || !isfinite(at[2]))
			return fail(c->e, LINNET_EVALUE, "edges %g and %g Hz give no bands", tensor_get(c->in[3], 0),
			            tensor_get(c->in[4], 0));
		for (int64_t j = 0; j < y->d[0]; j++) {
			double v = (double)j, w = 0;

			if (v == at[1])
				w = at[0] <= at[1] || at[1] < at[2] ? 1 : 0;
			else if (v >= at[0] && v < at[1])
				w = (v - at[0]) / (at[1] - at[0]);
			else if (v > at[1] && v < at[2])
				w = (at[2] - v) / (at[2] - at[1]);
			tensor_put(y, j * bands + i, w);
		}
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define OUTPUT_TYPE { .name = "output_datatype", .kind = ATTR_INT, .i = DT_FLOAT }

/* As the kernel, in double. */
#define WINDOW(title, a0, a1, a2, text)                                                            \
	{                                                                                          \
		.name = title, .since = 17, .doc = text,                                           \
		.in = IN({ "size", T1 }), .out = OUT({ "output", T2 }),                            \
		.attr = ATTRS(OUTPUT_TYPE, { .name = "periodic", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = 1 }), \
		.types = { [T1] = INDICES, [T2] = NUMBERS },                                       \
		.agree = AGREE_ROUND,                                                              \
		.shape = window_shape, .kernel = window, .param = (const double[]){ a0, a1, a2 },  \
		.body = "{ each = Cast <to = 11> (size)\n"                                         \
		        "  count = Squeeze (each)\n"                                               \
		        "  zero = Constant <value = double {0}> ()\n"                              \
		        "  one = Constant <value = double {1}> ()\n"                               \
		        "  i = Range (zero, count, one)\n"                                         \
		        "  whole = Constant <value_int: int = @periodic> ()\n"                     \
		        "  open = Cast <to = 11> (whole)\n"                                        \
		        "  less = Sub (one, open)\n"                                               \
		        "  n = Sub (count, less)\n"                                                \
		        "  turn = Constant <value = double {6.283185307179586}> ()\n"              \
		        "  angle = Mul (i, turn)\n"                                                \
		        "  at = Div (angle, n)\n"                                                  \
		        "  first = Cos (at)\n"                                                     \
		        "  twice = Add (at, at)\n"                                                 \
		        "  second = Cos (twice)\n"                                                 \
		        "  a0 = Constant <value = double {" #a0 "}> ()\n"                          \
		        "  a1 = Constant <value = double {" #a1 "}> ()\n"                          \
		        "  a2 = Constant <value = double {" #a2 "}> ()\n"                          \
		        "  x1 = Mul (a1, first)\n"                                                 \
		        "  x2 = Mul (a2, second)\n"                                                \
		        "  x = Sub (x2, x1)\n"                                                     \
		        "  w = Add (x, a0)\n"                                                      \
		        "  output = Cast <to: int = @output_datatype> (w) }",                      \
	}

static const struct op rows[] = {
	{
		.name = "DFT", .since = 20,
		.doc = "The discrete Fourier transform along one axis. The last axis holds real numbers or pairs of real and imaginary "
		       "part; a one-sided spectrum is the half that determines a real signal's.",
		.in = IN({ "input", T1, FLOW_LINEAR }, { "dft_length", T2, FLOW_NONE, OPTIONAL }, { "axis", T3, FLOW_NONE, OPTIONAL | SCALAR }),
		.out = OUT({ "output", T1 }),
		.attr = ATTRS({ .name = "inverse", .kind = ATTR_INT, .lo = 0, .hi = 1 },
		              { .name = "onesided", .kind = ATTR_INT, .lo = 0, .hi = 1 }),
		.types = { [T1] = FLOATS, [T2] = INDICES, [T3] = SET(INT64) },
		.agree = AGREE_ROUND,
		.write_grad = grad_dft,
		.shape = dft_shape, .kernel = dft,
	},
	{
		.name = "DFT", .since = 17,
		.in = IN({ "input", T1 }, { "dft_length", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T1 }),
		.attr = ATTRS({ .name = "axis", .kind = ATTR_INT, .i = 1, .input = 2 },
		              { .name = "inverse", .kind = ATTR_INT, .lo = 0, .hi = 1 },
		              { .name = "onesided", .kind = ATTR_INT, .lo = 0, .hi = 1 }),
		.types = { [T1] = FLOATS, [T2] = INDICES },
	},
	{
		.name = "STFT", .since = 17,
		.doc = "Fourier transforms of frames of a signal, a step apart, each multiplied by the window.",
		.in = IN({ "signal", T1, FLOW_LINEAR }, { "frame_step", T2 }, { "window", T1, FLOW_LINEAR, OPTIONAL },
		         { "frame_length", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T1 }),
		.attr = ATTRS({ .name = "onesided", .kind = ATTR_INT, .flags = SAID, .i = 1, .lo = 0, .hi = 1 }), /* onnx.shape_inference takes 0 */
		.types = { [T1] = FLOATS, [T2] = INDICES },
		.agree = AGREE_ROUND, .flags = OP_VALUES,
		.shape = stft_shape, .kernel = stft, .write_body = body_stft,
	},
	WINDOW("HannWindow", 0.5, 0.5, 0, "The Hann window: a cosine's wave from 0 to 1 and back."),
	WINDOW("HammingWindow", 0.543478260869565217, 0.456521739130434783, 0,
	       "The Hamming window with the weights 25/46 and 21/46."),
	WINDOW("BlackmanWindow", 0.42, 0.5, 0.08, "The Blackman window of three terms."),
	{
		.name = "MelWeightMatrix", .since = 17,
		.doc = "Weights by which a spectrum [frames, dft_length / 2 + 1] becomes bands evenly spaced on the mel scale.",
		.in = IN({ "num_mel_bins", T1 }, { "dft_length", T1 }, { "sample_rate", T1 }, { "lower_edge_hertz", T2 },
		         { "upper_edge_hertz", T2 }),
		.out = OUT({ "output", T3 }),
		.attr = ATTRS(OUTPUT_TYPE),
		.types = { [T1] = INDICES, [T2] = FLOATS, [T3] = NUMBERS },
		.agree = AGREE_ROUND, .flags = OP_VALUES,
		.shape = mel_shape, .kernel = mel,
	},
};

const struct op_family signal_ops = FAMILY("signal", rows);
