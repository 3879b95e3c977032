/* Windows sliding over space: convolutions and pools, what undoes them, Col2Im. Reference kernels, then rows. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/kernel.h"

enum { SPACE = 3 };

/*
 * A window over the spatial axes of X: [N, C, in...]. Fewer than three axes are preceded by axes of length 1. Output
 * position o reads input positions o stride - begin + k dilation for k in [0, taps) (transposed: writes them).
 */
struct window {
	int n;
	dim in[SPACE], taps[SPACE], out[SPACE];
	int64_t stride[SPACE], dilation[SPACE], begin[SPACE], end[SPACE];
};

/* Element i of a list attribute that may be left out. */
static int64_t item(const struct attr *a, int i, int64_t absent)
{
	return a->n ? a->ints[i] : absent;
}

static enum linnet_code check_list(const struct attr *a, int n, struct linnet_error *e)
{
	if (a->n == 0 || a->n == (size_t)n)
		return LINNET_OK;
	return fail(e, LINNET_EATTR, "attribute \"%s\" has %zu elements; expected %d", a->name, a->n, n);
}

/*
 * Everything but `out` and, where padding is automatic, begin and end. kernel: the shape of W, or NULL when only the
 * attribute kernel_shape says it. The rank of x is known.
 */
static enum linnet_code window_read(const struct op *op, const struct attr *attr, const struct shape *x,
                                    const struct shape *kernel, struct window *w, struct linnet_error *e)
{
	const struct attr *taps = attr_get(op, attr, "kernel_shape"), *stride = attr_get(op, attr, "strides");
	const struct attr *dilation = attr_get(op, attr, "dilations"), *pads = attr_get(op, attr, "pads");
	int n = x->rank - 2, skip = SPACE - n;

	if (n < 1 || n > SPACE)
		return fail(e, LINNET_EUNSUPPORTED, "input \"X\" has rank %d; expected 3 to %d", x->rank, SPACE + 2);
	TRY(check_list(taps, n, e));
	TRY(check_list(stride, n, e));
	TRY(check_list(dilation, n, e));
	TRY(check_list(pads, 2 * n, e));
	w->n = n;
	for (int i = 0; i < skip; i++) {
		w->in[i] = w->taps[i] = w->out[i] = 1;
		w->stride[i] = w->dilation[i] = 1;
		w->begin[i] = w->end[i] = 0;
	}
	for (int i = 0; i < n; i++) {
		w->in[skip + i] = x->d[2 + i];
		w->taps[skip + i] = item(taps, i, kernel ? kernel->d[2 + i] : 1);
		w->stride[skip + i] = item(stride, i, 1);
		w->dilation[skip + i] = item(dilation, i, 1);
		w->begin[skip + i] = item(pads, i, 0);
		w->end[skip + i] = item(pads, n + i, 0);
		if (w->taps[skip + i] == 0)
			return fail(e, LINNET_ESHAPE, "the window has length 0 along axis %d", 2 + i);
		if (kernel && dim_is_int(kernel->d[2 + i]) && kernel->d[2 + i] != w->taps[skip + i])
			return fail(e, LINNET_ESHAPE, "kernel_shape has %lld where W has %lld", (long long)w->taps[skip + i],
			            (long long)kernel->d[2 + i]);
	}
	return LINNET_OK;
}

enum padding { GIVEN, NO_PADDING, SAME_UPPER, SAME_LOWER };

static enum padding padding_of(const struct op *op, const struct attr *attr)
{
	const struct text s = attr_get(op, attr, "auto_pad")->s;

	if (!s.n) /* an operator without it */
		return GIVEN;
	if (s.n == 5) /* VALID */
		return NO_PADDING;
	return s.n == 6 ? GIVEN : s.p[5] == 'U' ? SAME_UPPER : SAME_LOWER; /* NOTSET, SAME_UPPER, SAME_LOWER */
}

/* Distance from a window's first tap to just past its last. */
static dim extent(struct dims *t, const struct window *w, int i)
{
	return dim_add(t, dim_mul(t, dim_sub(t, w->taps[i], 1), w->dilation[i]), 1);
}

/* Output lengths of a sliding window, and its padding as far as it is known. */
static enum linnet_code window_slide(struct dims *t, const struct op *op, const struct attr *attr, struct window *w,
                                     struct linnet_error *e)
{
	enum padding pad = padding_of(op, attr);
	bool ceil = attr_get(op, attr, "ceil_mode")->i != 0;

	for (int i = SPACE - w->n; i < SPACE; i++) {
		dim in = w->in[i], reach = extent(t, w, i), free;

		if (pad != GIVEN)
			w->begin[i] = w->end[i] = 0;
		if (pad == SAME_UPPER || pad == SAME_LOWER) {
			dim total;

			w->out[i] = dim_ceil_div(t, in, w->stride[i]);
			total = dim_sub(t, dim_add(t, dim_mul(t, dim_sub(t, w->out[i], 1), w->stride[i]), reach), in);
			if (dim_is_int(total) && total > 0) {
				w->begin[i] = pad == SAME_UPPER ? total / 2 : total - total / 2;
				w->end[i] = total - w->begin[i];
			}
			continue;
		}
		free = dim_sub(t, dim_add(t, in, w->begin[i] + w->end[i]), reach);
		if (dim_is_int(free) && free < 0 && in != 0)
			return fail(e, LINNET_ESHAPE, "the window reaches over %lld; the padded length is %lld", (long long)reach,
			            (long long)(free + reach));
		if (dim_is_int(free) && free < 0)
			w->out[i] = 0;
		else if (ceil) /* but no window starts behind the input and its first padding */
			w->out[i] = dim_min(t, dim_add(t, dim_ceil_div(t, free, w->stride[i]), 1),
			                    dim_ceil_div(t, dim_add(t, in, w->begin[i]), w->stride[i]));
		else
			w->out[i] = dim_add(t, dim_div(t, free, w->stride[i]), 1);
	}
	return LINNET_OK;
}

/* Output lengths of a transposed window, and the padding cut off it: (in - 1) stride + reach + output_padding - pads. */
static enum linnet_code window_spread(struct dims *t, const struct op *op, const struct attr *attr, struct window *w,
                                      struct linnet_error *e)
{
	const struct attr *more = attr_get(op, attr, "output_padding"), *shape = attr_get(op, attr, "output_shape");
	enum padding pad = padding_of(op, attr);

	TRY(check_list(more, w->n, e));
	TRY(check_list(shape, w->n, e));
	for (int i = SPACE - w->n, k = 0; i < SPACE; i++, k++) {
		dim full = dim_add(t, dim_mul(t, dim_sub(t, w->in[i], 1), w->stride[i]),
		                   dim_add(t, extent(t, w, i), item(more, k, 0)));
		dim total;

		if (shape->n || pad == SAME_UPPER || pad == SAME_LOWER) {
			w->out[i] = shape->n ? shape->ints[k] : dim_mul(t, w->in[i], w->stride[i]);
			total = dim_sub(t, full, w->out[i]);
			w->begin[i] = w->end[i] = 0;
			if (dim_is_int(total) && total > 0) {
				w->begin[i] = pad == SAME_UPPER ? total / 2 : total - total / 2;
				w->end[i] = total - w->begin[i];
			}
			continue;
		}
		if (pad == NO_PADDING)
			w->begin[i] = w->end[i] = 0;
		w->out[i] = dim_sub(t, full, w->begin[i] + w->end[i]);
		if (dim_is_int(w->out[i]) && w->out[i] < 0) {
			if (w->in[i] != 0)
				return fail(e, LINNET_ESHAPE, "pads of %lld are longer than the %lld they cut from",
				            (long long)(w->begin[i] + w->end[i]), (long long)full);
			w->out[i] = 0;
		}
	}
	return LINNET_OK;
}

/* Y: [N, channels, out...] */
static void set_output(struct shape_call *c, dim channels, const struct window *w)
{
	for (int i = 0; i < c->nout; i++) {
		struct shape *s = &c->out[i].shape;

		s->rank = 2 + w->n;
		s->d[0] = c->in[0]->shape.d[0];
		s->d[1] = channels;
		memcpy(s->d + 2, w->out + SPACE - w->n, (size_t)w->n * sizeof *s->d);
	}
}

/* X: [N, C, ...]  W: [M, C / group, ...] or, transposed, [C, M / group, ...]  B: [M]  Y: [N, M, ...]. B is input b. */
static enum linnet_code shape_convolution(struct shape_call *c, bool transposed, int b)
{
	const struct shape *x = &c->in[0]->shape, *k = &c->in[1]->shape;
	int64_t group = attr_get(c->op, c->attr, "group")->i;
	dim channels, left;
	struct window w;

	TRY(rank_check(c, 0, 3, SPACE + 2));
	TRY(rank_check(c, 1, 3, SPACE + 2));
	if (x->rank < 0 || k->rank < 0)
		return LINNET_OK;
	if (x->rank != k->rank)
		return fail(c->e, LINNET_ESHAPE, "input \"W\" has rank %d; expected %d as X", k->rank, x->rank);
	TRY(length_join(c, "numbers of channels of X and W", x->d[1], transposed ? k->d[0] : dim_mul(c->dims, k->d[1], group),
	                NULL));
	channels = transposed ? dim_mul(c->dims, k->d[1], group) : k->d[0];
	left = dim_mod(c->dims, k->d[0], group);
	if (dim_is_int(left) && left != 0)
		return fail(c->e, LINNET_ESHAPE, "%lld channels do not make %lld groups", (long long)k->d[0], (long long)group);
	if (c->nin > b && c->in[b]) {
		TRY(rank_check(c, b, 1, 1));
		if (c->in[b]->shape.rank == 1)
			TRY(length_join(c, "numbers of channels of the output and B", channels, c->in[b]->shape.d[0], NULL));
	}
	TRY(window_read(c->op, c->attr, x, k, &w, c->e));
	if (transposed)
		TRY(window_spread(c->dims, c->op, c->attr, &w, c->e));
	else
		TRY(window_slide(c->dims, c->op, c->attr, &w, c->e));
	set_output(c, channels, &w);
	return LINNET_OK;
}

static enum linnet_code shape_conv(struct shape_call *c) { return shape_convolution(c, false, 2); }
static enum linnet_code shape_conv_transpose(struct shape_call *c) { return shape_convolution(c, true, 2); }

static enum linnet_code shape_pool(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	struct window w;

	TRY(rank_check(c, 0, 3, SPACE + 2));
	if (x->rank < 0)
		return LINNET_OK;
	TRY(window_read(c->op, c->attr, x, NULL, &w, c->e));
	TRY(window_slide(c->dims, c->op, c->attr, &w, c->e));
	set_output(c, x->d[1], &w);
	return LINNET_OK;
}

/* [N, C, ...] to [N, C, 1...] */
static enum linnet_code shape_global_pool(struct shape_call *c)
{
	struct shape *s = &c->out[0].shape;

	TRY(rank_check(c, 0, 2, MAX_RANK));
	*s = c->in[0]->shape;
	for (int i = 2; i < s->rank; i++)
		s->d[i] = 1;
	return LINNET_OK;
}

/* The taps [from, to) of the window at output position o that read inside the input. */
struct span {
	int64_t from, to;
};

static struct span inside(const struct window *w, int axis, int64_t o, int64_t length)
{
	int64_t start = o * w->stride[axis] - w->begin[axis], step = w->dilation[axis];
	struct span s = { start < 0 ? (-start + step - 1) / step : 0, length > start ? (length - start + step - 1) / step : 0 };

	s.to = s.to < w->taps[axis] ? s.to : w->taps[axis];
	return s;
}

static int64_t at3(const int64_t *d, int64_t i, int64_t j, int64_t k)
{
	return (i * d[1] + j) * d[2] + k;
}

/* Y[n, m, o] = B[m] + sum over channels c of m's group and taps k of X[n, c, o stride - begin + k dilation] W[m, c, k] */
static enum linnet_code conv(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *k = c->in[1];
	struct tensor *y = c->out[0];
	struct shape sx = shape_of(x), sk = shape_of(k);
	int64_t group = attr_get(c->op, c->attr, "group")->i, m_count = k->d[0], c_count = k->d[1], at = 0;
	const double *dx, *dw, *bias;
	int64_t plane, taps;
	struct window w;

	TRY(window_read(c->op, c->attr, &sx, &sk, &w, c->e));
	TRY(window_slide(NULL, c->op, c->attr, &w, c->e));
	TRY(kernel_doubles(c, 0, &dx));
	TRY(kernel_doubles(c, 1, &dw));
	TRY(kernel_doubles(c, 2, &bias));
	if (y->n == 0)
		return LINNET_OK;
	plane = c->in[0]->n ? w.in[0] * w.in[1] * w.in[2] : 0;
	taps = w.taps[0] * w.taps[1] * w.taps[2];
	for (int64_t n = 0; n < x->d[0]; n++)
		for (int64_t m = 0; m < m_count; m++)
			for (int64_t o = 0; o < w.out[0] * w.out[1] * w.out[2]; o++) {
				int64_t o0 = o / w.out[2] / w.out[1], o1 = o / w.out[2] % w.out[1], o2 = o % w.out[2];
				struct span s0 = inside(&w, 0, o0, w.in[0]), s1 = inside(&w, 1, o1, w.in[1]);
				struct span s2 = inside(&w, 2, o2, w.in[2]);
				double sum = bias ? bias[m] : 0;

				for (int64_t ch = 0; ch < c_count; ch++) {
					const double *px = dx + (n * x->d[1] + m / (m_count / group) * c_count + ch) * plane;
					const double *pw = dw + (m * c_count + ch) * taps;

					for (int64_t k0 = s0.from; k0 < s0.to; k0++)
						for (int64_t k1 = s1.from; k1 < s1.to; k1++)
							for (int64_t k2 = s2.from; k2 < s2.to; k2++)
								sum += px[at3(w.in, o0 * w.stride[0] - w.begin[0] + k0 * w.dilation[0],
								              o1 * w.stride[1] - w.begin[1] + k1 * w.dilation[1],
								              o2 * w.stride[2] - w.begin[2] + k2 * w.dilation[2])] *
								       pw[at3(w.taps, k0, k1, k2)];
				}
				tensor_put(y, at++, sum);
			}
	return LINNET_OK;
}

/* The input position whose tap k writes output position o, or -1. */
static int64_t source(const struct window *w, int axis, int64_t o, int64_t k)
{
	int64_t i = o + w->begin[axis] - k * w->dilation[axis];

	return i < 0 || i % w->stride[axis] || i / w->stride[axis] >= w->in[axis] ? -1 : i / w->stride[axis];
}

/* Y[n, m, i stride - begin + k dilation] = B[m] + sum over channels c of m's group, and i, k, of X[n, c, i] W[c, m, k] */
static enum linnet_code conv_transpose(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *k = c->in[1];
	struct tensor *y = c->out[0];
	struct shape sx = shape_of(x), sk = shape_of(k);
	int64_t group = attr_get(c->op, c->attr, "group")->i, m_count = k->d[1], c_count = k->d[0] / group, at = 0;
	const double *dx, *dw, *bias;
	int64_t plane, taps;
	struct window w;

	TRY(window_read(c->op, c->attr, &sx, &sk, &w, c->e));
	TRY(window_spread(NULL, c->op, c->attr, &w, c->e));
	TRY(kernel_doubles(c, 0, &dx));
	TRY(kernel_doubles(c, 1, &dw));
	TRY(kernel_doubles(c, 2, &bias));
	if (y->n == 0)
		return LINNET_OK;
	plane = c->in[0]->n ? w.in[0] * w.in[1] * w.in[2] : 0;
	taps = w.taps[0] * w.taps[1] * w.taps[2];
	for (int64_t n = 0; n < x->d[0]; n++)
		for (int64_t m = 0; m < m_count * group; m++)
			for (int64_t o = 0; o < w.out[0] * w.out[1] * w.out[2]; o++) {
				int64_t o0 = o / w.out[2] / w.out[1], o1 = o / w.out[2] % w.out[1], o2 = o % w.out[2];
				double sum = bias ? bias[m] : 0;

				for (int64_t t = 0; t < taps; t++) {
					int64_t i0 = source(&w, 0, o0, t / w.taps[2] / w.taps[1]);
					int64_t i1 = source(&w, 1, o1, t / w.taps[2] % w.taps[1]);
					int64_t i2 = source(&w, 2, o2, t % w.taps[2]);

					for (int64_t ch = 0; ch < c_count && i0 >= 0 && i1 >= 0 && i2 >= 0; ch++) {
						int64_t from = m / m_count * c_count + ch;

						sum += dx[(n * x->d[1] + from) * plane + at3(w.in, i0, i1, i2)] *
						       dw[(from * m_count + m % m_count) * taps + t];
					}
				}
				tensor_put(y, at++, sum);
			}
	return LINNET_OK;
}

/* What a pool makes of the values in its window. */
enum pool { POOL_MAX, POOL_AVERAGE, POOL_LP };

static int64_t first_max(const double *x, int64_t n)
{
	int64_t best = 0;

	for (int64_t i = 1; i < n; i++)
		if (x[i] > x[best] || (isnan(x[i]) && !isnan(x[best])))
			best = i;
	return best;
}

/* max: the largest, minus infinity of none. average: the sum over `count`. lp: (sum of |x|^p)^(1/p). */
static double pooled(enum pool kind, const double *x, int64_t n, int64_t count, int64_t p)
{
	double sum = 0;

	switch (kind) {
	case POOL_MAX:
		return n ? x[first_max(x, n)] : -INFINITY;
	case POOL_AVERAGE:
		for (int64_t i = 0; i < n; i++)
			sum += x[i];
		return sum / (double)count;
	case POOL_LP:
		for (int64_t i = 0; i < n; i++)
			sum += pow(fabs(x[i]), (double)p);
		return pow(sum, 1 / (double)p);
	}
	return 0;
}

static enum linnet_code pool(struct kernel_call *c)
{
	const enum pool kind = *(const enum pool *)c->op->param;
	bool include = attr_get(c->op, c->attr, "count_include_pad")->i != 0;
	bool columns = attr_get(c->op, c->attr, "storage_order")->i != 0;
	int64_t p = attr_get(c->op, c->attr, "p")->i, plane, *place, at = 0;
	struct tensor *y = c->out[0], *indices = c->nout > 1 ? c->out[1] : NULL;
	struct shape s = shape_of(c->in[0]);
	struct linnet_error *e = c->e;
	const double *x;
	struct window w;
	double *v;

	TRY(window_read(c->op, c->attr, &s, NULL, &w, e));
	TRY(window_slide(NULL, c->op, c->attr, &w, e));
	TRY(kernel_doubles(c, 0, &x));
	if ((y ? y : indices)->n == 0)
		return LINNET_OK;
	plane = c->in[0]->n ? w.in[0] * w.in[1] * w.in[2] : 0;
	TRY_NEW(v, c->scratch, plane);
	TRY_NEW(place, c->scratch, plane);
	for (int64_t nc = 0; nc < s.d[0] * s.d[1]; nc++)
		for (int64_t o = 0; o < w.out[0] * w.out[1] * w.out[2]; o++, at++) {
			int64_t pos[SPACE] = { o / w.out[2] / w.out[1], o / w.out[2] % w.out[1], o % w.out[2] }, n = 0, count = 1;
			int64_t first[SPACE];
			struct span in[SPACE];

			for (int i = 0; i < SPACE; i++) {
				in[i] = inside(&w, i, pos[i], w.in[i]);
				first[i] = pos[i] * w.stride[i] - w.begin[i];
				count *= include ? inside(&w, i, pos[i], w.in[i] + w.end[i]).to : in[i].to - in[i].from;
			}
			for (int64_t i = in[0].from; i < in[0].to; i++)
				for (int64_t j = in[1].from; j < in[1].to; j++)
					for (int64_t k = in[2].from; k < in[2].to; k++) {
						int64_t i0 = first[0] + i * w.dilation[0], i1 = first[1] + j * w.dilation[1];
						int64_t i2 = first[2] + k * w.dilation[2];

						place[n] = columns ? (i2 * w.in[1] + i1) * w.in[0] + i0 : at3(w.in, i0, i1, i2);
						v[n++] = x[nc * plane + at3(w.in, i0, i1, i2)];
					}
			if (y)
				tensor_put(y, at, pooled(kind, v, n, count, p));
			if (indices)
				tensor_put_int(indices, at, n ? nc * plane + place[first_max(v, n)] : -1);
		}
	return LINNET_OK;
}

static enum linnet_code global_pool(struct kernel_call *c)
{
	const enum pool kind = *(const enum pool *)c->op->param;
	int64_t p = attr_get(c->op, c->attr, "p")->i, n = c->out[0]->n ? c->in[0]->n / c->out[0]->n : 0;
	const double *x;

	TRY(kernel_doubles(c, 0, &x));
	for (int64_t i = 0; i < c->out[0]->n; i++)
		tensor_put(c->out[0], i, pooled(kind, x + i * n, n, n, p));
	return LINNET_OK;
}

/* As MaxPool, and M: [n, c, in...] */
static enum linnet_code shape_masked_pool(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape, *m = &c->in[1]->shape;

	if (!attr_get(c->op, c->attr, "kernel_shape")->n)
		return fail(c->e, LINNET_EATTR, "attribute \"kernel_shape\" is required");
	TRY(shape_pool(c));
	TRY(rank_check(c, 1, x->rank < 0 ? 3 : x->rank, x->rank < 0 ? SPACE + 2 : x->rank));
	for (int i = 2; i < x->rank && m->rank >= 0; i++)
		TRY(length_join(c, "lengths of X and M", x->d[i], m->d[i], NULL));
	for (int i = 0; i < 2 && m->rank >= 0; i++)
		if (m->d[i] == 0 && x->rank >= 0 && x->d[0] != 0 && x->d[1] != 0)
			return fail(c->e, LINNET_ESHAPE, "input \"M\" is empty");
	return LINNET_OK;
}

/*
 * MaxPool whose windows are read, along the last axis, up to where the mask is 0. Channels of the mask repeat. Two habits of
 * onnxruntime: a window of nothing gives the lowest float; of images and volumes the first element is read in any case. Not
 * its reading of masks of several channels, which begins at element c * plane modulo the number of channels.
 */
static enum linnet_code masked_pool(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *m = c->in[1];
	int64_t plane, masks = m->d[0] * m->d[1], at = 0;
	struct shape s = shape_of(x);
	struct window w;

	TRY(window_read(c->op, c->attr, &s, NULL, &w, c->e));
	TRY(window_slide(NULL, c->op, c->attr, &w, c->e));
	plane = w.in[0] * w.in[1] * w.in[2];
	for (int64_t nc = 0; c->out[0]->n && nc < s.d[0] * s.d[1]; nc++)
		for (int64_t o = 0; o < w.out[0] * w.out[1] * w.out[2]; o++) {
			int64_t pos[SPACE] = { o / w.out[2] / w.out[1], o / w.out[2] % w.out[1], o % w.out[2] }, first[SPACE];
			double most = -FLT_MAX;
			struct span in[SPACE];

			for (int i = 0; i < SPACE; i++) {
				in[i] = inside(&w, i, pos[i], w.in[i]);
				first[i] = pos[i] * w.stride[i] - w.begin[i];
			}
			for (int64_t i = in[0].from; i < in[0].to; i++)
				for (int64_t j = in[1].from; j < in[1].to; j++)
					for (int64_t k = in[2].from; k < in[2].to; k++) {
						int64_t p = at3(w.in, first[0] + i, first[1] + j, first[2] + k);

						if ((p > 0 || w.n == 1) && tensor_get_int(m, nc % masks * plane + p) == 0)
							break;
						most = larger(most, tensor_get(x, nc * plane + p));
					}
			tensor_put(c->out[0], at++, most);
		}
	return LINNET_OK;
}

/* ---- DeformConv ---- */

/* Positions of DeformConv's inputs. */
enum { DEFORM_X, DEFORM_W, DEFORM_OFFSET, DEFORM_B, DEFORM_MASK };

/* Input i: [N, channels, out...] */
static enum linnet_code check_field(struct shape_call *c, int i, const struct window *w, dim channels)
{
	const struct shape *s = i < c->nin && c->in[i] ? &c->in[i]->shape : NULL, *x = &c->in[0]->shape;
	const char *what = i == DEFORM_OFFSET ? "lengths of the output and offset" : "lengths of the output and mask";

	TRY(rank_check(c, i, x->rank, x->rank));
	if (!s || s->rank < 0)
		return LINNET_OK;
	TRY(length_join(c, i == DEFORM_OFFSET ? "numbers of coordinates and channels of offset" : "numbers of taps and channels of mask",
	                channels, s->d[1], NULL));
	TRY(length_join(c, what, x->d[0], s->d[0], NULL));
	for (int k = 0; k < w->n; k++)
		TRY(length_join(c, what, w->out[SPACE - w->n + k], s->d[2 + k], NULL));
	return LINNET_OK;
}

/* As Conv, and offset: [N, offset_group taps axes, out...]  mask: [N, offset_group taps, out...] */
static enum linnet_code shape_deform_conv(struct shape_call *c)
{
	const struct shape *x = &c->in[DEFORM_X]->shape, *k = &c->in[DEFORM_W]->shape;
	int64_t groups = attr_get(c->op, c->attr, "offset_group")->i;
	struct window w;
	dim left, taps;

	TRY(shape_convolution(c, false, DEFORM_B));
	if (x->rank < 0 || k->rank < 0)
		return LINNET_OK;
	left = dim_mod(c->dims, x->d[1], groups);
	if (dim_is_int(left) && left != 0)
		return fail(c->e, LINNET_ESHAPE, "%lld channels do not make %lld offset groups", (long long)x->d[1], (long long)groups);
	TRY(window_read(c->op, c->attr, x, k, &w, c->e));
	TRY(window_slide(c->dims, c->op, c->attr, &w, c->e));
	taps = dim_mul(c->dims, dim_mul(c->dims, w.taps[0], w.taps[1]), dim_mul(c->dims, w.taps[2], groups));
	TRY(check_field(c, DEFORM_OFFSET, &w, dim_mul(c->dims, taps, w.n)));
	return check_field(c, DEFORM_MASK, &w, taps);
}

/* A plane between its elements, by linear interpolation; zero outside. x: [in...], at: a position along each axis */
static double interpolate(const double *x, const int64_t *in, const double *at)
{
	double sum = 0;

	for (int corner = 0; corner < 1 << SPACE; corner++) {
		int64_t p[SPACE];
		double weight = 1;

		for (int i = 0; i < SPACE && weight != 0; i++) {
			double low = floor(at[i]), f = at[i] - low, q = corner >> i & 1 ? low + 1 : low;

			weight *= q >= 0 && q < (double)in[i] ? (corner >> i & 1 ? f : 1 - f) : 0;
			p[i] = weight != 0 ? (int64_t)q : 0;
		}
		if (weight != 0)
			sum += weight * x[at3(in, p[0], p[1], p[2])];
	}
	return sum;
}

/*
 * Y[n, m, o] = B[m] + sum over channels c of m's group and taps k of W[m, c, k] mask[n, g, k, o] X[n, c] at
 * o stride - begin + k dilation + offset[n, g, k, :, o], g the offset group of c. Source: Zhu et al., Deformable ConvNets v2, 2018.
 */
static enum linnet_code deform_conv(struct kernel_call *c)
{
	const struct tensor *x = c->in[DEFORM_X], *k = c->in[DEFORM_W];
	int64_t groups = attr_get(c->op, c->attr, "offset_group")->i, plane, taps, places, c_count = k->d[1];
	int64_t m_count = k->d[0] / attr_get(c->op, c->attr, "group")->i, at = 0;
	const double *dx, *dw, *offset, *bias, *mask;
	struct shape sx = shape_of(x), sk = shape_of(k);
	struct tensor *y = c->out[0];
	struct window w;

	TRY(window_read(c->op, c->attr, &sx, &sk, &w, c->e));
	TRY(window_slide(NULL, c->op, c->attr, &w, c->e));
	TRY(kernel_doubles(c, DEFORM_X, &dx));
	TRY(kernel_doubles(c, DEFORM_W, &dw));
	TRY(kernel_doubles(c, DEFORM_OFFSET, &offset));
	TRY(kernel_doubles(c, DEFORM_B, &bias));
	TRY(kernel_doubles(c, DEFORM_MASK, &mask));
	if (y->n == 0)
		return LINNET_OK;
	plane = w.in[0] * w.in[1] * w.in[2];
	taps = w.taps[0] * w.taps[1] * w.taps[2];
	places = w.out[0] * w.out[1] * w.out[2];
	for (int64_t n = 0; n < y->d[0]; n++)
		for (int64_t m = 0; m < y->d[1]; m++)
			for (int64_t o = 0; o < places; o++) {
				int64_t pos[SPACE] = { o / w.out[2] / w.out[1], o / w.out[2] % w.out[1], o % w.out[2] };
				double sum = bias ? bias[m] : 0;

				for (int64_t t = 0; t < c_count * taps; t++) {
					int64_t from = m / m_count * c_count + t / taps, g = from / (x->d[1] / groups);
					int64_t tap[SPACE] = { t % taps / w.taps[2] / w.taps[1], t / w.taps[2] % w.taps[1], t % w.taps[2] };
					int64_t field = (n * groups + g) * taps + t % taps;
					double where[SPACE];

					for (int i = 0; i < SPACE; i++) {
						int axis = i - (SPACE - w.n); /* the first ones are not X's */

						where[i] = (double)(pos[i] * w.stride[i] - w.begin[i] + tap[i] * w.dilation[i]) +
						           (axis < 0 ? 0 : offset[(field * w.n + axis) * places + o]);
					}
					sum += dw[m * c_count * taps + t] * (mask ? mask[field * places + o] : 1) *
					       interpolate(dx + (n * x->d[1] + from) * plane, w.in, where);
				}
				tensor_put(y, at++, sum);
			}
	return LINNET_OK;
}

/* ---- MaxUnpool ---- */

/* X, I: [N, C, in...]  output: [N, C, out...], out told by output_shape or the least that MaxPool makes `in` of */
static enum linnet_code shape_unpool(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape, *at = &c->in[1]->shape;
	struct shape told = shape_unknown();
	struct window w;

	TRY(rank_check(c, 0, 3, SPACE + 2));
	TRY(rank_check(c, 1, x->rank < 0 ? 3 : x->rank, x->rank < 0 ? SPACE + 2 : x->rank));
	for (int i = 0; i < x->rank && at->rank >= 0; i++)
		TRY(length_join(c, "lengths of X and I", x->d[i], at->d[i], NULL));
	if (c->nin > 2 && c->in[2]) {
		TRY(rank_check(c, 2, 1, 1));
		TRY(type_shape(c->in[2], &told, c->e));
		if (told.rank >= 0 && x->rank >= 0 && told.rank != x->rank)
			return fail(c->e, LINNET_ESHAPE, "output_shape has %d elements; expected %d", told.rank, x->rank);
		for (int i = 0; i < told.rank; i++)
			if (dim_is_int(told.d[i]) && told.d[i] < 0)
				return fail(c->e, LINNET_ESHAPE, "output_shape holds the length %lld", (long long)told.d[i]);
		for (int i = 0; i < 2 && told.rank >= 0 && x->rank >= 0; i++)
			TRY(length_join(c, "lengths of X and output_shape", x->d[i], told.d[i], &told.d[i]));
	}
	c->out[0].shape = told;
	if (x->rank < 0)
		return LINNET_OK;
	TRY(window_read(c->op, c->attr, x, NULL, &w, c->e));
	TRY(window_spread(c->dims, c->op, c->attr, &w, c->e));
	if (c->nin > 2 && c->in[2] && told.rank < 0)
		c->out[0].shape = (struct shape){ .rank = x->rank, .d = { x->d[0], x->d[1], DIM_NONE, DIM_NONE, DIM_NONE } };
	else if (told.rank < 0)
		set_output(c, x->d[1], &w);
	return LINNET_OK;
}

/*
 * Zeros, and X[i] at I[i], an index into the flattened tensor that MaxPool is taken to have read: its lengths are the least that
 * give X's. Where output_shape says others, that tensor lies at the beginning of every axis of the output.
 */
static enum linnet_code unpool(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct shape s = shape_of(x);
	struct tensor *y = c->out[0];
	int64_t d[SPACE + 2] = { s.d[0], s.d[1] };
	struct window w;

	TRY(window_read(c->op, c->attr, &s, NULL, &w, c->e));
	TRY(window_spread(NULL, c->op, c->attr, &w, c->e));
	memcpy(d + 2, w.out + SPACE - w.n, (size_t)w.n * sizeof *d);
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(y, i, 0);
	for (int64_t i = 0; i < x->n; i++) {
		int64_t index = tensor_get_int(c->in[1], i), rest = index, to = 0, stride = 1;
		bool inside = index >= 0;

		for (int k = x->rank - 1; k >= 0; k--) {
			int64_t p = d[k] ? rest % d[k] : 0;

			inside &= d[k] > 0 && p < y->d[k];
			rest = d[k] ? rest / d[k] : 0;
			to += p * stride;
			stride *= y->d[k];
		}
		if (!inside || rest)
			return fail(c->e, LINNET_EVALUE, "index %lld is not within the output", (long long)index);
		tensor_put(y, to, tensor_get(x, i));
	}
	return LINNET_OK;
}

/* ---- Col2Im ---- */

/* Lengths, spatial axes alone; a block's tap k of block o is at o stride - begin + k dilation. */
struct blocks {
	int n;
	struct shape image, block, count;
	int64_t stride[MAX_RANK], dilation[MAX_RANK], begin[MAX_RANK];
};

static enum linnet_code blocks_read(const struct op *op, const struct attr *attr, struct dims *t, const struct type *const *in,
                                    struct blocks *b, struct linnet_error *e)
{
	const struct attr *stride = attr_get(op, attr, "strides"), *dilation = attr_get(op, attr, "dilations");
	const struct attr *pads = attr_get(op, attr, "pads");

	TRY(type_shape(in[1], &b->image, e));
	TRY(type_shape(in[2], &b->block, e));
	b->n = b->image.rank < 0 ? b->block.rank : b->image.rank;
	if (b->n < 0)
		return LINNET_OK;
	if (b->block.rank >= 0 && b->block.rank != b->n)
		return fail(e, LINNET_ESHAPE, "block_shape has %d elements; expected %d as image_shape", b->block.rank, b->n);
	TRY(check_list(stride, b->n, e));
	TRY(check_list(dilation, b->n, e));
	TRY(check_list(pads, 2 * b->n, e));
	if (b->n < 1)
		return fail(e, LINNET_ESHAPE, "image_shape is empty");
	TRY(rank_limit(b->n + 2, e));
	b->count = (struct shape){ .rank = b->n };
	for (int i = 0; i < b->n; i++) {
		dim image = b->image.rank < 0 ? DIM_NONE : b->image.d[i], block = b->block.rank < 0 ? DIM_NONE : b->block.d[i], free;

		b->stride[i] = item(stride, i, 1);
		b->dilation[i] = item(dilation, i, 1);
		b->begin[i] = item(pads, i, 0);
		if ((dim_is_int(image) && image < 0) || (dim_is_int(block) && block < 1))
			return fail(e, LINNET_ESHAPE, "blocks of %lld in an image of %lld", (long long)block, (long long)image);
		free = dim_sub(t, dim_add(t, image, b->begin[i] + item(pads, b->n + i, 0)),
		               dim_add(t, dim_mul(t, dim_sub(t, block, 1), b->dilation[i]), 1));
		if (dim_is_int(free) && free < 0)
			return fail(e, LINNET_ESHAPE, "a block reaches %lld beyond the padded image along axis %d", -(long long)free, i);
		b->count.d[i] = dim_add(t, dim_div(t, free, b->stride[i]), 1);
	}
	return LINNET_OK;
}

/* input: [N, C product of block_shape, number of blocks]  output: [N, C, image_shape...] */
static enum linnet_code shape_col2im(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	struct shape *y = &c->out[0].shape;
	dim block, left;
	struct blocks b;

	if (c->in[0]->dt == DT_STRING)
		return fail(c->e, LINNET_ETYPE, "string elements cannot be added");
	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, 1, 1, 1));
	TRY(rank_check(c, 2, 1, 1));
	TRY(blocks_read(c->op, c->attr, c->dims, c->in, &b, c->e));
	if (b.n < 0)
		return LINNET_OK;
	*y = (struct shape){ .rank = b.n + 2, .d = { DIM_NONE, DIM_NONE } };
	for (int i = 0; i < b.n; i++)
		y->d[2 + i] = b.image.rank < 0 ? DIM_NONE : b.image.d[i];
	if (x->rank < 0)
		return LINNET_OK;
	y->d[0] = x->d[0];
	TRY(length_join(c, "number of blocks and the input's length", shape_count(c->dims, &b.count, 0, b.n), x->d[2], NULL));
	block = b.block.rank < 0 ? DIM_NONE : shape_count(c->dims, &b.block, 0, b.n);
	left = dim_mod(c->dims, x->d[1], block);
	if (dim_is_int(left) && left != 0)
		return fail(c->e, LINNET_ESHAPE, "%lld rows do not make blocks of %lld elements", (long long)x->d[1], (long long)block);
	y->d[1] = dim_div(c->dims, x->d[1], block);
	return LINNET_OK;
}

/* y[i] += x[j] of the same type; bools as by Or. */
static void add_element(struct tensor *y, int64_t i, const struct tensor *x, int64_t j, double *sum)
{
	switch (dtype_class(y->dt)) {
	case CLASS_BOOL: tensor_put_int(y, i, tensor_get_int(y, i) | tensor_get_int(x, j)); return;
	case CLASS_INT:
	case CLASS_UINT: tensor_put_int(y, i, (int64_t)((uint64_t)tensor_get_int(y, i) + (uint64_t)tensor_get_int(x, j))); return;
	case CLASS_COMPLEX:
		for (int k = 0; k < 2; k++)
			sum[2 * i + k] += y->dt == DT_COMPLEX64 ? (double)((const float *)x->data)[2 * j + k] : ((const double *)x->data)[2 * j + k];
		return;
	default: sum[i] += tensor_get(x, j);
	}
}

/* The image is the sum of the blocks, each where it was cut out. */
static enum linnet_code col2im(struct kernel_call *c)
{
	const struct type type[] = { type_of(c->in[0]), type_of(c->in[1]), type_of(c->in[2]) };
	const struct type *in[] = { &type[0], &type[1], &type[2] };
	int64_t taps, count, plane = 1, tap[MAX_RANK] = { 0 }, place[MAX_RANK] = { 0 };
	struct linnet_error *e = c->e;
	struct tensor *y = c->out[0];
	struct blocks b;
	double *sum;

	TRY(blocks_read(c->op, c->attr, NULL, in, &b, e));
	TRY_NEW(sum, c->scratch, 2 * y->n);
	for (int64_t i = 0; i < y->n; i++)
		element_zero(y, i);
	taps = shape_count(NULL, &b.block, 0, b.n);
	count = shape_count(NULL, &b.count, 0, b.n);
	for (int k = 0; k < b.n; k++)
		plane *= b.image.d[k];
	for (int64_t t = 0; t < taps; t++, next_position(b.n, b.block.d, tap))
		for (int64_t p = 0; p < count; p++, next_position(b.n, b.count.d, place)) {
			int64_t to = 0;
			bool inside = true;

			for (int k = 0; k < b.n; k++) {
				int64_t at = place[k] * b.stride[k] - b.begin[k] + tap[k] * b.dilation[k];

				inside &= at >= 0 && at < b.image.d[k];
				to = to * b.image.d[k] + at;
			}
			for (int64_t ch = 0; inside && ch < y->d[0] * y->d[1]; ch++)
				add_element(y, ch * plane + to, c->in[0], (ch * taps + t) * count + p, sum);
		}
	for (int64_t i = 0; i < y->n && dtype_class(y->dt) == CLASS_FLOAT; i++)
		tensor_put(y, i, sum[i]);
	for (int64_t i = 0; i < 2 * y->n && dtype_class(y->dt) == CLASS_COMPLEX; i++)
		dtype_put(y->dt == DT_COMPLEX64 ? DT_FLOAT : DT_DOUBLE, y->data, (size_t)i, sum[i]);
	return LINNET_OK;
}

static const enum pool pool_max = POOL_MAX, pool_average = POOL_AVERAGE, pool_lp = POOL_LP;

#define LIST(title, least) { .name = title, .kind = ATTR_INTS, .s = "", .lo = (least), .hi = INT32_MAX }
#define AUTO_PAD                                                                                   \
	{ .name = "auto_pad", .kind = ATTR_STRING, .s = "NOTSET", .oneof = "NOTSET|SAME_UPPER|SAME_LOWER|VALID" }
#define GROUP { .name = "group", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }
#define KERNEL_SHAPE { .name = "kernel_shape", .kind = ATTR_INTS, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }
#define POWER { .name = "p", .kind = ATTR_INT, .i = 2, .lo = 1, .hi = INT32_MAX }
#define FROM(opset, title, ...) { .name = title, .since = (opset), __VA_ARGS__ }

static const struct op rows[] = {
	{
		.name = "Conv", .since = 1,
		.doc = "Convolution of 1 to 3 spatial axes, in groups of channels.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "W", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(AUTO_PAD, LIST("dilations", 1), GROUP, LIST("kernel_shape", 1), LIST("pads", 0), LIST("strides", 1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_conv,
		.kernel = conv,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "ConvTranspose", .since = 1,
		.doc = "The transpose of Conv: every input element adds its multiple of the window to the output.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "W", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(AUTO_PAD, LIST("dilations", 1), GROUP, LIST("kernel_shape", 1), LIST("output_padding", 0),
		              LIST("output_shape", 0), LIST("pads", 0), LIST("strides", 1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_conv_transpose,
		.kernel = conv_transpose,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "MaxPool", .since = 1,
		.doc = "The largest element of every window, and where it is.",
		.in = IN({ "X", T, FLOW_KINKED }),
		.out = OUT({ "Y", T }, { "Indices", T1, .flags = OPTIONAL, .since = 8 }),
		.attr = ATTRS(AUTO_PAD, FROM(10, "ceil_mode", .kind = ATTR_INT),
		              FROM(10, "dilations", .kind = ATTR_INTS, .s = "", .lo = 1, .hi = INT32_MAX), KERNEL_SHAPE,
		              LIST("pads", 0), FROM(8, "storage_order", .kind = ATTR_INT), LIST("strides", 1)),
		.types = { [T] = FLOATS | SET(INT8) | SET(UINT8), [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_pool,
		.kernel = pool,
		.param = &pool_max,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "AveragePool", .since = 1,
		.doc = "The mean of every window, without or with its padding.",
		.in = IN({ "X", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(AUTO_PAD, FROM(10, "ceil_mode", .kind = ATTR_INT), FROM(7, "count_include_pad", .kind = ATTR_INT),
		              FROM(19, "dilations", .kind = ATTR_INTS, .s = "", .lo = 1, .hi = INT32_MAX), KERNEL_SHAPE,
		              LIST("pads", 0), LIST("strides", 1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_pool,
		.kernel = pool,
		.param = &pool_average,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "LpPool", .since = 2,
		.doc = "The p-norm of every window.",
		.in = IN({ "X", T, FLOW_KINKED }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(AUTO_PAD, FROM(18, "ceil_mode", .kind = ATTR_INT),
		              FROM(18, "dilations", .kind = ATTR_INTS, .s = "", .lo = 1, .hi = INT32_MAX), KERNEL_SHAPE, POWER,
		              LIST("pads", 0), LIST("strides", 1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_pool,
		.kernel = pool,
		.param = &pool_lp,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "GlobalMaxPool", .since = 1,
		.doc = "The largest element of every channel.",
		.in = IN({ "X", T, FLOW_KINKED }),
		.out = OUT({ "Y", T }),
		.types = { [T] = FLOATS },
		.agree = AGREE_BITS,
		.shape = shape_global_pool,
		.kernel = global_pool,
		.param = &pool_max,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "GlobalAveragePool", .since = 1,
		.doc = "The mean of every channel.",
		.in = IN({ "X", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_global_pool,
		.kernel = global_pool,
		.param = &pool_average,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "GlobalLpPool", .since = 2,
		.doc = "The p-norm of every channel.",
		.in = IN({ "X", T, FLOW_KINKED }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(POWER),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_global_pool,
		.kernel = global_pool,
		.param = &pool_lp,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.domain = "com.microsoft", .name = "MaxpoolWithMask", .since = 1,
		.doc = "The largest element of every window, each line of it read up to where the mask is 0.",
		.in = IN({ "X", T, FLOW_KINKED }, { "M", T1 }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(AUTO_PAD, LIST("kernel_shape", 1), LIST("pads", 0), { .name = "storage_order", .kind = ATTR_INT },
		              LIST("strides", 1)),
		.types = { [T] = SET(FLOAT), [T1] = SET(INT32) },
		.agree = AGREE_BITS,
		.shape = shape_masked_pool,
		.kernel = masked_pool,
	},
	{
		.name = "DeformConv", .since = 19,
		.doc = "Conv whose every tap reads a place of its own, moved by an offset that goes with the output position, and weighted.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "W", T, FLOW_LINEAR }, { "offset", T, FLOW_KINKED }, { "B", T, FLOW_LINEAR, OPTIONAL },
		         { "mask", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(LIST("dilations", 1), GROUP, LIST("kernel_shape", 1),
		              { .name = "offset_group", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }, LIST("pads", 0),
		              LIST("strides", 1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_deform_conv,
		.kernel = deform_conv,
	},
	{
		.name = "MaxUnpool", .since = 9,
		.doc = "Zeros, and the elements of MaxPool's output where they came from.",
		.in = IN({ "X", T1, FLOW_LINEAR }, { "I", T2 }, { "output_shape", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T1 }),
		.attr = ATTRS(KERNEL_SHAPE, LIST("pads", 0), LIST("strides", 1)),
		.types = { [T1] = FLOATS, [T2] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_unpool,
		.kernel = unpool,
	},
	{
		.name = "Col2Im", .since = 18,
		.doc = "The image that overlapping blocks, one a column, add up to.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "image_shape", T1 }, { "block_shape", T1 }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(LIST("dilations", 1), LIST("pads", 0), LIST("strides", 1)),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = shape_col2im,
		.kernel = col2im,
	},
};

const struct op_family conv_ops = FAMILY("conv", rows);
