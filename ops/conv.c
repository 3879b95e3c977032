/* Convolutions of 1 to 3 spatial axes, and Col2Im. Reference kernels, then rows. */
#include <math.h>

#include "ops/body.h"
#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/kernel.h"
#include "ops/window.h"

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
	window_output(c, channels, &w);
	return LINNET_OK;
}

static enum linnet_code shape_conv(struct shape_call *c) { return shape_convolution(c, false, 2); }
static enum linnet_code shape_conv_transpose(struct shape_call *c) { return shape_convolution(c, true, 2); }

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
				struct span s0 = window_inside(&w, 0, o0, w.in[0]), s1 = window_inside(&w, 1, o1, w.in[1]);
				struct span s2 = window_inside(&w, 2, o2, w.in[2]);
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
	TRY(list_check(stride, b->n, e));
	TRY(list_check(dilation, b->n, e));
	TRY(list_check(pads, 2 * b->n, e));
	if (b->n < 1)
		return fail(e, LINNET_ESHAPE, "image_shape is empty");
	TRY(rank_limit(b->n + 2, e));
	b->count = (struct shape){ .rank = b->n };
	for (int i = 0; i < b->n; i++) {
		dim image = b->image.rank < 0 ? DIM_NONE : b->image.d[i], block = b->block.rank < 0 ? DIM_NONE : b->block.d[i], free;

		b->stride[i] = list_item(stride, i, 1);
		b->dilation[i] = list_item(dilation, i, 1);
		b->begin[i] = list_item(pads, i, 0);
		if ((dim_is_int(image) && image < 0) || (dim_is_int(block) && block < 1))
			return fail(e, LINNET_ESHAPE, "blocks of %lld in an image of %lld", (long long)block, (long long)image);
		free = dim_sub(t, dim_add(t, image, b->begin[i] + list_item(pads, b->n + i, 0)),
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
	taps = c->in[0]->n ? shape_count(NULL, &b.block, 0, b.n) : 0; /* an empty input may be of any blocks */
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

#define GROUP { .name = "group", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }

static const struct op rows[] = {
	{
		.name = "Conv", .since = 1,
		.doc = "Convolution of 1 to 3 spatial axes, in groups of channels.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "W", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(AUTO_PAD, LIST("dilations", 1), GROUP, LIST("kernel_shape", 1), LIST("pads", 0), LIST("strides", 1)),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.write_grad = grad_conv,
		.shape = shape_conv,
		.kernel = conv,
		.fast = FAST(&fast_conv),
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
		.write_grad = grad_conv_transpose,
		.shape = shape_conv_transpose,
		.kernel = conv_transpose,
		.fast = FAST(&fast_conv_transpose),
		.fuzz = { .shapes = FUZZ_CUSTOM },
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
		.kernel = deform_conv, .write_body = body_deform_conv,
	},
	{
		.name = "Col2Im", .since = 18,
		.doc = "The image that overlapping blocks, one a column, add up to.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "image_shape", T1 }, { "block_shape", T1 }),
		.out = OUT({ "output", T }),
		.attr = ATTRS(LIST("dilations", 1), LIST("pads", 0), LIST("strides", 1)),
		.types = { [T] = COMMON, [T1] = SET(INT64) },
		.agree = AGREE_ROUND,
		.write_grad = grad_col2im,
		.shape = shape_col2im,
		.kernel = col2im,
	},
};

const struct op_family conv_ops = FAMILY("conv", rows);
