/*
 * Resize and its forerunner Upsample: reference kernel, then rows.
 *
 * The output is a product of one-dimensional resamplings. Along one axis of input length n and output length m,
 * output position i looks at the coordinate x(i) of the input and is a weighted sum of the elements around it; positions
 * before the first and after the last element see that element.
 */
#include <math.h>
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/kernel.h"
#include "ops/resize.h"

enum method { NEAREST, LINEAR, CUBIC };
enum coordinates { HALF_PIXEL, SYMMETRIC, PYTORCH, ALIGN_CORNERS, ASYMMETRIC, CROP, HALF_FOR_NEAREST };
enum nearest { ROUND_DOWN, ROUND_UP, FLOOR, CEIL };

#define METHODS "nearest|linear|cubic"
#define COORDINATES                                                                                \
	"half_pixel|half_pixel_symmetric|pytorch_half_pixel|align_corners|asymmetric|tf_crop_and_resize|tf_half_pixel_for_nn"
#define NEARESTS "round_prefer_floor|round_prefer_ceil|floor|ceil"
#define POLICIES "stretch|not_larger|not_smaller"

/* An input that is left out, or empty, as opset 11 had it. */
static const struct type *present(const struct type *const *in, int nin, int i)
{
	return i < nin && in[i] && !(in[i]->shape.rank == 1 && in[i]->shape.d[0] == 0) ? in[i] : NULL;
}

static bool has_length(const struct type *t) { return t->shape.rank == 1 && dim_is_int(t->shape.d[0]); }

/* One axis: the output's length m, the factor, and the part of the input that is looked at. */
struct axis {
	dim m;
	double scale; /* NAN when not known */
	double from, to;
};

static enum linnet_code check_count(const struct type *t, const char *name, int n, struct linnet_error *e)
{
	if (t && t->shape.rank >= 0 && (t->shape.rank != 1 || (dim_is_int(t->shape.d[0]) && t->shape.d[0] != n)))
		return fail(e, LINNET_ESHAPE, "%s has not the %d elements that the resized axes take", name, n);
	return LINNET_OK;
}

/* floor(d * scale) for a length that may be symbolic: where scale or 1 / scale is a ratio of small numbers. */
static dim scaled(struct dims *t, dim d, double scale)
{
	double inverse = 1 / scale;
	struct ratio r;

	/* the product is one of floats, as ONNX's own shape inference has it: 3 times float(7 / 3) is 7 */
	if (dim_is_int(d)) {
		float m = floorf((float)d * (float)scale);

		return m < 0x1p40f ? (dim)m : DIM_NONE;
	}
	if (inverse == floor(inverse) && inverse < 0x1p31)
		return dim_div(t, d, (dim)inverse);
	r = ratio_of(scale);
	return dim_div(t, dim_mul(t, d, r.num), r.den);
}

/* Lengths and factors of all axes. in: X, roi, scales, sizes. */
static enum linnet_code measure(const struct op *op, const struct attr *attr, struct dims *t, const struct type *const *in, int nin,
                                struct axis *out, struct linnet_error *e)
{
	const struct type *roi = present(in, nin, 1), *scales = present(in, nin, 2), *sizes = present(in, nin, 3);
	const struct shape *x = &in[0]->shape;
	int policy = attr_choice(op, attr, "keep_aspect_ratio_policy"), list[MAX_RANK], n;
	double common = NAN;

	for (int i = 0; i < x->rank; i++)
		out[i] = (struct axis){ .m = DIM_NONE, .scale = NAN };
	if (scales && sizes && (!has_length(scales) || !has_length(sizes)))
		return LINNET_OK; /* one of them may turn out empty */
	if (!scales == !sizes)
		return fail(e, LINNET_EMODEL, "%s of scales and sizes given; expected one", scales ? "both" : "none");
	TRY(axes_check(attr_get(op, attr, "axes"), x->rank, list, &n, e)); /* in the order of scales and sizes */
	TRY(check_count(scales, "scales", n, e));
	TRY(check_count(sizes, "sizes", n, e));
	for (int i = 0; i < x->rank; i++)
		out[i] = (struct axis){ .m = x->d[i], .scale = 1, .from = 0, .to = 1 };
	if (attr_choice(op, attr, "coordinate_transformation_mode") == CROP) {
		TRY(check_count(roi, "roi", 2 * n, e));
		if (!roi)
			return fail(e, LINNET_EMODEL, "tf_crop_and_resize needs roi");
		for (int i = 0; i < n && roi->value; i++) {
			out[list[i]].from = tensor_get(roi->value, i);
			out[list[i]].to = tensor_get(roi->value, n + i);
		}
	}
	for (int i = 0; i < n; i++) {
		struct axis *a = &out[list[i]];
		dim d = x->d[list[i]];

		a->m = DIM_NONE;
		a->scale = NAN;
		if (scales && scales->value) {
			a->scale = tensor_get(scales->value, i);
			if (!(a->scale > 0 && a->scale < INFINITY))
				return fail(e, LINNET_EVALUE, "scale of axis %d is %g; expected a positive number", list[i], a->scale);
			a->m = scaled(t, d, a->scale);
			if (dim_is_int(d) && a->m == DIM_NONE)
				return fail(e, LINNET_ELIMIT, "axis %d grows beyond %lld elements", list[i], 1LL << 40);
		} else if (sizes) {
			a->m = type_element(sizes, i);
			if (dim_is_int(a->m) && a->m < 0)
				return fail(e, LINNET_ESHAPE, "size of axis %d is %lld", list[i], (long long)a->m);
			if (dim_is_int(a->m) && dim_is_int(d) && d > 0)
				a->scale = (double)a->m / (double)d;
		}
		if (d == 0 && dim_is_int(a->m) && a->m > 0)
			return fail(e, LINNET_ESHAPE, "axis %d is empty and cannot become %lld long", list[i], (long long)a->m);
		if (isnan(a->scale) || (i && isnan(common)))
			common = NAN;
		else
			common = i == 0 ? a->scale : policy == 1 ? fmin(common, a->scale) : fmax(common, a->scale);
	}
	for (int i = 0; i < n && sizes && policy; i++) {
		dim d = x->d[list[i]];
		double m = dim_is_int(d) ? floor(common * (double)d + 0.5) : NAN;

		if (d == 0)
			return fail(e, LINNET_ESHAPE, "axis %d is empty and has no aspect ratio to keep", list[i]);
		if (m >= 0x1p40)
			return fail(e, LINNET_ELIMIT, "axis %d grows beyond %lld elements", list[i], 1LL << 40);
		out[list[i]].scale = common;
		out[list[i]].m = isnan(m) ? DIM_NONE : (dim)m;
	}
	return LINNET_OK;
}

static enum linnet_code resize_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;
	struct axis axis[MAX_RANK];

	if (attr_choice(c->op, c->attr, "mode") != NEAREST && c->in[0]->dt == DT_STRING)
		return fail(c->e, LINNET_ETYPE, "%s elements can only be resized in mode nearest", dtype_name(c->in[0]->dt));
	if (attr_choice(c->op, c->attr, "mode") == NEAREST && attr_get(c->op, c->attr, "antialias")->i)
		return fail(c->e, LINNET_EATTR, "antialias is for modes linear and cubic");
	if (in->rank < 0)
		return LINNET_OK;
	TRY(measure(c->op, c->attr, c->dims, c->in, c->nin, axis, c->e));
	c->out[0].shape.rank = in->rank;
	for (int i = 0; i < in->rank; i++)
		c->out[0].shape.d[i] = axis[i].m;
	return LINNET_OK;
}

/*
 * x(i). The spec's length_resized is, where it divides, the length before it is made an integer: scale * n, as in the
 * official tests of align_corners.
 */
static double coordinate(enum coordinates mode, const struct axis *a, int64_t i, int64_t n)
{
	double x = (double)i, length = (double)n, wide = a->scale * length;

	switch (mode) {
	case HALF_PIXEL: return (x + 0.5) / a->scale - 0.5;
	case SYMMETRIC: return length / 2 * (1 - (double)a->m / wide) + (x + 0.5) / a->scale - 0.5;
	case PYTORCH: return a->m > 1 ? (x + 0.5) / a->scale - 0.5 : 0;
	case ALIGN_CORNERS: return a->m > 1 ? x * (length - 1) / (wide - 1) : 0;
	case ASYMMETRIC: return x / a->scale;
	case CROP:
		return a->m > 1 ? a->from * (length - 1) + x * (a->to - a->from) * (length - 1) / (wide - 1)
			: 0.5 * (a->from + a->to) * (length - 1);
	case HALF_FOR_NEAREST: return (x + 0.5) / a->scale;
	}
	return x;
}

static double nearest_to(enum nearest mode, double x)
{
	switch (mode) {
	case ROUND_DOWN: return ceil(x - 0.5);
	case ROUND_UP: return floor(x + 0.5);
	case FLOOR: return floor(x);
	case CEIL: return ceil(x);
	}
	return x;
}

/* The filters, supported on (-1, 1) and (-2, 2). */
static double filter(enum method method, double x, double a)
{
	return method == CUBIC ? cubic_filter(x, a) : fabs(x) < 1 ? 1 - fabs(x) : 0;
}

struct resize {
	enum method method;
	enum coordinates coordinates;
	enum nearest nearest;
	double a;
	bool antialias, exclude;
};

static enum linnet_code make_taps(const struct resize *r, const struct axis *a, int64_t n, struct arena *arena, struct taps *out,
                                  struct linnet_error *e)
{
	/* downscaling with antialias stretches the filter */
	double stretch = r->antialias && a->scale < 1 ? a->scale : 1, radius = (r->method == CUBIC ? 2 : 1) / stretch;
	bool same = a->scale == 1 && a->m == n && a->from == 0 && a->to == 1;

	for (int64_t i = 0; i < a->m; i++) {
		double x = same ? (double)i : coordinate(r->coordinates, a, i, n), sum = 0;
		struct taps *t = &out[i];

		t->outside = r->coordinates == CROP && (x < 0 || x > (double)(n - 1));
		if (r->method == NEAREST || same) {
			t->first = (int64_t)fmin(fmax(same ? x : nearest_to(r->nearest, x), -1), (double)n);
			t->n = 1;
			TRY_NEW(t->w, arena, 1);
			t->w[0] = 1;
			continue;
		}
		t->first = (int64_t)floor(fmin(fmax(x, -1e9), 1e12) - radius) + 1;
		t->n = (int64_t)ceil(fmin(fmax(x, -1e9), 1e12) + radius) - t->first;
		TRY_NEW(t->w, arena, t->n);
		for (int64_t k = 0; k < t->n; k++) {
			int64_t at = t->first + k;

			t->w[k] = r->exclude && (at < 0 || at >= n) ? 0 : filter(r->method, ((double)at - x) * stretch, r->a);
			sum += t->w[k];
		}
		for (int64_t k = 0; k < t->n && (r->antialias || r->exclude) && sum != 0; k++)
			t->w[k] /= sum;
	}
	return LINNET_OK;
}

/* Store rounded to an integer, ties to even, within the type's range. */
static void put_integer(struct tensor *y, int64_t i, double v)
{
	unsigned bits = dtype_bits(y->dt);
	double lo = dtype_class(y->dt) == CLASS_INT ? -ldexp(1, (int)bits - 1) : 0;
	double hi = dtype_class(y->dt) == CLASS_INT ? ldexp(1, (int)bits - 1) : dtype_class(y->dt) == CLASS_BOOL ? 2 : ldexp(1, (int)bits);

	v = nearbyint(v);
	if (v >= hi)
		tensor_put_int(y, i, dtype_class(y->dt) == CLASS_INT ? (int64_t)((UINT64_C(1) << (bits - 1)) - 1) : -1);
	else
		tensor_put(y, i, v > lo ? v : lo);
}

enum linnet_code resize_taps(const struct kernel_call *c, struct taps *taps[MAX_RANK])
{
	const struct resize r = {
		.method = (enum method)attr_choice(c->op, c->attr, "mode"),
		.coordinates = (enum coordinates)attr_choice(c->op, c->attr, "coordinate_transformation_mode"),
		.nearest = (enum nearest)attr_choice(c->op, c->attr, "nearest_mode"),
		.a = attr_get(c->op, c->attr, "cubic_coeff_a")->f,
		.antialias = attr_get(c->op, c->attr, "antialias")->i,
		.exclude = attr_get(c->op, c->attr, "exclude_outside")->i,
	};
	const struct type *in[4] = { NULL };
	const struct tensor *x = c->in[0];
	struct linnet_error *e = c->e;
	struct axis axis[MAX_RANK];
	struct type type[4];

	for (int i = 0; i < c->nin; i++) {
		if (!c->in[i])
			continue;
		type[i] = type_of(c->in[i]);
		in[i] = &type[i];
	}
	TRY(measure(c->op, c->attr, NULL, in, c->nin, axis, e));
	for (int k = 0; k < x->rank; k++) {
		TRY_NEW(taps[k], c->scratch, axis[k].m);
		TRY(make_taps(&r, &axis[k], x->d[k], c->scratch, taps[k], e));
	}
	return LINNET_OK;
}

static enum linnet_code resize_kernel(struct kernel_call *c)
{
	double extrapolation = attr_get(c->op, c->attr, "extrapolation_value")->f;
	bool nearest = attr_choice(c->op, c->attr, "mode") == NEAREST;
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	struct taps *taps[MAX_RANK];
	int64_t sx[MAX_RANK], at[MAX_RANK] = { 0 }, near[MAX_RANK], wide[MAX_RANK];
	bool floating = dtype_class(y->dt) == CLASS_FLOAT, complex = dtype_class(y->dt) == CLASS_COMPLEX;
	enum dtype part = y->dt == DT_COMPLEX64 ? DT_FLOAT : DT_DOUBLE;

	TRY(resize_taps(c, taps));
	strides(x->rank, x->d, sx);
	for (int64_t i = 0; i < y->n; i++, next_position(y->rank, y->d, at)) {
		bool outside = false;
		double sum = 0, imaginary = 0;

		for (int k = 0; k < x->rank; k++) {
			outside |= taps[k][at[k]].outside;
			wide[k] = taps[k][at[k]].n;
			near[k] = 0;
		}
		if (outside && (floating || complex)) {
			tensor_put(y, i, extrapolation);
			continue;
		}
		if (outside && dtype_class(y->dt) != CLASS_STRING) {
			put_integer(y, i, extrapolation);
			continue;
		}
		do {
			int64_t from = 0;
			double w = 1;

			for (int k = 0; k < x->rank; k++) {
				const struct taps *t = &taps[k][at[k]];
				int64_t p = t->first + near[k];

				from += (p < 0 ? 0 : p >= x->d[k] ? x->d[k] - 1 : p) * sx[k];
				w *= t->w[near[k]];
			}
			if (nearest) {
				element_copy(y, i, x, from);
			} else if (w != 0 && !complex) {
				sum += w * tensor_get(x, from);
			} else if (w != 0) {
				sum += w * dtype_get(part, x->data, (size_t)(2 * from));
				imaginary += w * dtype_get(part, x->data, (size_t)(2 * from + 1));
			}
		} while (next_position(x->rank, wide, near));
		if (nearest)
			continue;
		if (floating) {
			tensor_put(y, i, sum);
		} else if (complex) {
			dtype_put(part, y->data, (size_t)(2 * i), sum);
			dtype_put(part, y->data, (size_t)(2 * i + 1), imaginary);
		} else {
			put_integer(y, i, sum);
		}
	}
	return LINNET_OK;
}

static const struct op rows[] = {
	{
		.name = "Resize", .since = 11,
		.doc = "The input resampled along its axes, to given sizes or by given factors: the nearest element, or a linear or cubic "
		       "combination of those around.",
		.in = IN({ "X", T1, FLOW_LINEAR }, { "roi", T2, FLOW_NONE, OPTIONAL }, { "scales", T3, FLOW_NONE, OPTIONAL },
		         { "sizes", T4, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS({ .name = "antialias", .kind = ATTR_INT, .since = 18, .lo = 0, .hi = 1 },
		              { .name = "axes", .kind = ATTR_INTS, .flags = OPTIONAL, .since = 18 },
		              { .name = "coordinate_transformation_mode", .kind = ATTR_STRING, .s = "half_pixel", .oneof = COORDINATES },
		              { .name = "cubic_coeff_a", .kind = ATTR_FLOAT, .f = -0.75 },
		              { .name = "exclude_outside", .kind = ATTR_INT, .lo = 0, .hi = 1 },
		              { .name = "extrapolation_value", .kind = ATTR_FLOAT },
		              { .name = "keep_aspect_ratio_policy", .kind = ATTR_STRING, .s = "stretch", .oneof = POLICIES, .since = 18 },
		              { .name = "mode", .kind = ATTR_STRING, .s = "nearest", .oneof = METHODS },
		              { .name = "nearest_mode", .kind = ATTR_STRING, .s = "round_prefer_floor", .oneof = NEARESTS }),
		.types = { [T1] = COMMON, [T2] = SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16), [T3] = SET(FLOAT), [T4] = SET(INT64) },
		.agree = AGREE_ROUND,
		.write_grad = grad_resize,
		.shape = resize_shape, .kernel = resize_kernel, .fast = FAST(&fast_resize),
	},
	{
		.name = "Resize", .since = 10,
		.in = IN({ "X", T }, { "scales", T1 }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "mode", .kind = ATTR_STRING, .s = "nearest", .oneof = "nearest|linear" }),
		.types = { [T] = COMMON, [T1] = SET(FLOAT) },
		.lower = "{ Y = Resize <mode: string = @mode, coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\"> "
		         "(X, , scales) }",
	},
	{
		.name = "Upsample", .since = 9,
		.doc = "What Resize was called before opset 10.",
		.in = IN({ "X", T }, { "scales", T1 }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "mode", .kind = ATTR_STRING, .s = "nearest", .oneof = "nearest|linear" }),
		.types = { [T] = COMMON & ~SET(BFLOAT16), [T1] = SET(FLOAT) },
		.lower = "{ Y = Resize <mode: string = @mode, coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\"> "
		         "(X, , scales) }",
	},
	{
		.name = "Upsample", .since = 7,
		.in = IN({ "X", T }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "mode", .kind = ATTR_STRING, .s = "nearest", .oneof = "nearest|linear" },
		              { .name = "scales", .kind = ATTR_FLOATS, .flags = REQUIRED }),
		.types = { [T] = COMMON & ~SET(BFLOAT16) },
		.lower = "{ scales = Constant <value_floats: floats = @scales> ()\n"
		         "  Y = Resize <mode: string = @mode, coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\"> "
		         "(X, , scales) }",
	},
};

const struct op_family resize_ops = FAMILY("resize", rows);
