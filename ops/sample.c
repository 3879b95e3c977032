/*
 * Images read at positions between their elements: AffineGrid, GridSample, and what looks at regions: RoiAlign, MaxRoiPool,
 * CropAndResize. Reference kernels, then rows.
 */
#include <string.h>

#include "ops/body.h"
#include "ops/kernel.h"

static bool attr_says(const struct op *op, const struct attr *attr, const char *name, const char *word)
{
	struct text s = attr_get(op, attr, name)->s;

	return s.n == strlen(word) && !memcmp(s.p, word, s.n);
}

/* ---- AffineGrid ---- */

/* theta: [N, k, k + 1]  size: [k + 2] = N, C, d...  grid: [N, d..., k], k = 2 or 3 */
static enum linnet_code affine_grid_shape(struct shape_call *c)
{
	const struct shape *theta = &c->in[0]->shape;
	struct shape size, *y = &c->out[0].shape;
	dim k = theta->rank == 3 ? theta->d[1] : DIM_NONE;

	TRY(rank_check(c, 0, 3, 3));
	TRY(rank_check(c, 1, 1, 1));
	TRY(type_shape(c->in[1], &size, c->e));
	if (size.rank >= 0 && size.rank != 4 && size.rank != 5)
		return fail(c->e, LINNET_ESHAPE, "size has %d elements; expected 4 or 5", size.rank);
	if (theta->rank == 3) {
		if (dim_is_int(k) && k != 2 && k != 3)
			return fail(c->e, LINNET_ESHAPE, "theta has %lld rows; expected 2 or 3", (long long)k);
		TRY(length_join(c, "number of columns of theta and that of rows and 1", theta->d[2], dim_add(c->dims, k, 1), NULL));
		if (size.rank >= 0)
			TRY(length_join(c, "numbers of axes of theta and size", k, size.rank - 2, &k));
	} else if (size.rank >= 0) {
		k = size.rank - 2;
	}
	if (!dim_is_int(k))
		return LINNET_OK;
	*y = (struct shape){ .rank = (int)k + 2 };
	for (int i = 0; i <= k; i++) {
		y->d[i] = size.rank < 0 ? DIM_NONE : size.d[i ? i + 1 : 0];
		if (dim_is_int(y->d[i]) && y->d[i] < 0)
			return fail(c->e, LINNET_ESHAPE, "size holds the length %lld", (long long)y->d[i]);
	}
	if (theta->rank == 3)
		TRY(length_join(c, "batch lengths of theta and size", theta->d[0], y->d[0], &y->d[0]));
	y->d[k + 1] = k;
	return LINNET_OK;
}

/*
 * grid[n, ..., r] = sum over axes j of theta[n, r, j] x[j] + theta[n, r, k], where x[j] runs over (-1, 1) along axis k - 1 - j:
 * from the middle of the first element to that of the last with align_corners, else from edge to edge. A single element with
 * align_corners is at -1.
 */
static enum linnet_code affine_grid(struct kernel_call *c)
{
	bool corners = attr_get(c->op, c->attr, "align_corners")->i;
	struct tensor *y = c->out[0];
	int k = y->rank - 2;
	int64_t at[MAX_RANK] = { 0 };

	for (int64_t i = 0; i < y->n; i++, next_position(y->rank, y->d, at)) {
		int64_t row = (at[0] * k + at[k + 1]) * (k + 1);
		double sum = tensor_get(c->in[0], row + k);

		for (int j = 0; j < k; j++) {
			double n = (double)y->d[k - j], p = (double)at[k - j];
			double x = corners ? (n > 1 ? 2 * p / (n - 1) : 0) - 1 : (2 * p + 1) / n - 1;

			sum += tensor_get(c->in[0], row + j) * x;
		}
		tensor_put(y, i, sum);
	}
	return LINNET_OK;
}

/*
 * points: [d..., k + 1] are the places, innermost axis first, and 1; grid = points theta^T. Coordinates are made in theta's type.
 */
static enum linnet_code write_affine_grid(struct shape_call *c, const char **text)
{
	bool corners = attr_get(c->op, c->attr, "align_corners")->i;
	int k = c->out[0].shape.rank - 2;
	enum dtype dt = c->in[0]->dt;
	int64_t axes[MAX_RANK];
	struct body b;

	if (k < 1 || dt == DT_UNDEFINED)
		return fail(c->e, LINNET_EUNSUPPORTED, "the type of input \"theta\" must be known to write it in other operators");
	body_begin(&b, c);
	body_float(&b, "one", dt, 1);
	body_float(&b, "two", dt, 2);
	body_ints(&b, "last", 1, &(int64_t){ 1 });
	str_add(&b.s, "step = Constant <value = int64 {1}> ()\n"
	        "start = Constant <value = int64 {0}> ()\n");
	for (int a = 0; a < k; a++)
		axes[a] = 2 + a;
	body_ints(&b, "space", k, axes);
	str_add(&b.s, "lengths = Gather (size, space)\n"
	        "full = Concat <axis = 0> (lengths, last)\n");
	for (int a = 0; a < k; a++) {
		for (int i = 0, n = 0; i <= k; i++)
			if (i != a)
				axes[n++] = i;
		str_addf(&b.s,
		         "i%d = Constant <value = int64 {%d}> ()\n"
		         "n%d = Gather (lengths, i%d)\n"
		         "r%d = Range (start, n%d, step)\n"
		         "p%d = Cast <to = %d> (r%d)\n"
		         "f%d = Cast <to = %d> (n%d)\n"
		         "t%d = Mul (p%d, two)\n", a, a, a, a, a, a, a, (int)dt, a, a, (int)dt, a, a, a);
		if (corners)
			str_addf(&b.s, "l%d = Sub (f%d, one)\nd%d = Max (l%d, one)\nq%d = Div (t%d, d%d)\n", a, a, a, a, a, a, a);
		else
			str_addf(&b.s, "m%d = Add (t%d, one)\nq%d = Div (m%d, f%d)\n", a, a, a, a, a);
		str_addf(&b.s, "x%d = Sub (q%d, one)\n", a, a);
		body_ints(&b, a == 0 ? "a0" : a == 1 ? "a1" : "a2", k, axes);
		str_addf(&b.s, "u%d = Unsqueeze (x%d, a%d)\ne%d = Expand (u%d, full)\n", a, a, a, a, a);
	}
	str_add(&b.s, "ones = Expand (one, full)\n");
	str_add(&b.s, k == 2 ? "points = Concat <axis = -1> (e1, e0, ones)\n" : "points = Concat <axis = -1> (e2, e1, e0, ones)\n");
	for (int a = 1; a < k; a++)
		axes[a - 1] = a;
	body_ints(&b, "batch", k - 1, axes);
	str_add(&b.s, "columns = Transpose <perm = [0, 2, 1]> (theta)\n"
	        "maps = Unsqueeze (columns, batch)\n"
	        "grid = MatMul (points, maps)\n");
	return body_end(&b, text);
}

/* ---- GridSample ---- */

enum mode { NEAREST, LINEAR, CUBIC };
enum padding { ZEROS, BORDER, REFLECTION };

struct sampler {
	enum mode mode;
	enum padding padding;
	bool corners;
};

static struct sampler sampler_of(const struct op *op, const struct attr *attr)
{
	return (struct sampler){
		.mode = attr_says(op, attr, "mode", "nearest") ? NEAREST : attr_says(op, attr, "mode", "cubic") ? CUBIC : LINEAR,
		.padding = attr_says(op, attr, "padding_mode", "zeros") ? ZEROS
			: attr_says(op, attr, "padding_mode", "border") ? BORDER : REFLECTION,
		.corners = attr_get(op, attr, "align_corners")->i,
	};
}

/* X: [N, C, d...]  grid: [N, o..., r]  Y: [N, C, o...], r = number of d = number of o */
static enum linnet_code grid_sample_shape(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape, *grid = &c->in[1]->shape;
	struct shape *y = &c->out[0].shape;

	if (c->in[0]->dt == DT_STRING && sampler_of(c->op, c->attr).mode != NEAREST)
		return fail(c->e, LINNET_ETYPE, "string elements can only be sampled in mode nearest");
	TRY(rank_check(c, 0, 3, MAX_RANK));
	TRY(rank_check(c, 1, x->rank < 0 ? 3 : x->rank, x->rank < 0 ? MAX_RANK : x->rank));
	y->rank = x->rank < 0 ? grid->rank : x->rank;
	for (int i = 0; i < y->rank; i++)
		y->d[i] = i == 1 ? (x->rank < 0 ? DIM_NONE : x->d[1]) : grid->rank < 0 ? DIM_NONE : grid->d[i ? i - 1 : 0];
	if (x->rank >= 0)
		TRY(length_join(c, "batch lengths of X and grid", x->d[0], y->d[0], &y->d[0]));
	if (grid->rank >= 0)
		TRY(length_join(c, "length of grid's last axis and number of spatial axes", grid->d[grid->rank - 1], grid->rank - 2, NULL));
	return LINNET_OK;
}

/* x folded at the borders until it lies between them. */
static double reflect(double x, double lo, double hi)
{
	double span = hi - lo, past = x < lo ? lo - x : x - lo;

	if (!(span > 0))
		return lo;
	past = fmod(past, 2 * span);
	return lo + (past > span ? 2 * span - past : past);
}

/* The elements along one axis that a position sees, -1 for what is zero, and their weights. */
struct taps {
	int n;
	int64_t at[4];
	double w[4];
};

/* The tap for element i of n, which may lie outside. */
static int64_t settle(const struct sampler *s, int64_t i, int64_t n)
{
	double edge = s->corners ? 0 : 0.5;

	if (i < 0 || i >= n) {
		if (s->padding == ZEROS || n == 0)
			return -1;
		i = s->padding == BORDER ? (i < 0 ? 0 : n - 1) : (int64_t)reflect((double)i, -edge, (double)(n - 1) + edge);
	}
	return i;
}

/* Position g, -1 to 1 along an axis of n elements; what lies outside is moved to or folded at the border before its taps are. */
static struct taps taps_at(const struct sampler *s, double g, int64_t n)
{
	double last = (double)(n - 1), edge = s->corners ? 0 : 0.5, x = (g + 1) / 2 * (last + 2 * edge) - edge, f;
	struct taps t = { .n = s->mode == NEAREST ? 1 : s->mode == LINEAR ? 2 : 4 };
	int64_t first;

	if (s->mode == NEAREST)
		x = nearbyint(x);
	if (!(x >= -edge && x <= last + edge) && s->padding == BORDER)
		x = fmin(fmax(x, 0), last);
	else if (!(x >= -edge && x <= last + edge) && s->padding == REFLECTION)
		x = reflect(x, -edge, last + edge);
	x = fmin(fmax(x, -4), last + 4); /* further away is as far; so is NaN */
	first = (int64_t)floor(x);
	f = x - (double)first;
	first -= s->mode == CUBIC;
	for (int k = 0; k < t.n; k++) {
		t.at[k] = settle(s, first + k, n);
		t.w[k] = s->mode == NEAREST ? 1 : s->mode == LINEAR ? (k ? f : 1 - f) : cubic_filter(f - (k - 1), -0.75);
	}
	return t;
}

/* Part k, real or imaginary, of element i. */
static double part(const struct tensor *t, int64_t i, int k)
{
	if (t->dt == DT_COMPLEX64)
		return (double)((const float *)t->data)[2 * i + k];
	return t->dt == DT_COMPLEX128 ? ((const double *)t->data)[2 * i + k] : tensor_get(t, i);
}

static void put_parts(struct tensor *t, int64_t i, double real, double imaginary)
{
	tensor_put(t, i, real);
	if (t->dt == DT_COMPLEX64)
		((float *)t->data)[2 * i + 1] = (float)imaginary;
	else if (t->dt == DT_COMPLEX128)
		((double *)t->data)[2 * i + 1] = imaginary;
}

/* y[i] = sum over the box of taps of the product of their weights times the element of the image that begins at `from`. */
static void combine(struct tensor *y, int64_t i, const struct tensor *x, int64_t from, int r, const struct taps *taps,
                    const int64_t *stride, bool copy)
{
	int64_t at[MAX_RANK] = { 0 }, n[MAX_RANK];
	double sum[2] = { 0, 0 };

	for (int k = 0; k < r; k++)
		n[k] = taps[k].n;
	do {
		int64_t p = from;
		bool inside = true;
		double w = 1;

		for (int k = 0; k < r; k++) {
			inside &= taps[k].at[at[k]] >= 0;
			p += taps[k].at[at[k]] * stride[k];
			w *= taps[k].w[at[k]];
		}
		if (copy && inside)
			element_copy(y, i, x, p);
		else if (copy)
			element_zero(y, i);
		for (int k = 0; k < 2 && !copy && inside && w != 0; k++)
			sum[k] += w * part(x, p, k);
	} while (next_position(r, n, at));
	if (!copy)
		put_parts(y, i, sum[0], sum[1]);
}

/* Coordinates come innermost axis first. Integers are truncated, as by Cast. */
static enum linnet_code grid_sample(struct kernel_call *c)
{
	const struct sampler s = sampler_of(c->op, c->attr);
	const struct tensor *x = c->in[0], *grid = c->in[1];
	int64_t stride[MAX_RANK], places = 1, channels = x->d[1];
	struct tensor *y = c->out[0];
	struct taps taps[MAX_RANK];
	int r = x->rank - 2;

	strides(x->rank, x->d, stride);
	for (int k = 0; k < r; k++)
		places *= grid->d[1 + k];
	for (int64_t p = 0; y->n && p < x->d[0] * places; p++) {
		for (int k = 0; k < r; k++)
			taps[k] = taps_at(&s, tensor_get(grid, p * r + r - 1 - k), x->d[2 + k]);
		for (int64_t ch = 0; ch < channels; ch++) {
			int64_t plane = p / places * channels + ch;

			combine(y, plane * places + p % places, x, plane * stride[1], r, taps, stride + 2, s.mode == NEAREST);
		}
	}
	return LINNET_OK;
}

/* ---- Regions ---- */

/* X: [N, C, H, W]  rois: [R, columns]  Y: [R, C, height, width]. R is also batch_indices' length where there are such. */
static enum linnet_code regions_shape(struct shape_call *c, int columns, dim height, dim width)
{
	const struct shape *x = &c->in[0]->shape, *rois = &c->in[1]->shape;
	dim n = rois->rank == 2 ? rois->d[0] : DIM_NONE;

	TRY(rank_check(c, 0, 4, 4));
	TRY(rank_check(c, 1, 2, 2));
	if (rois->rank == 2)
		TRY(length_join(c, "number of columns of rois and that expected", rois->d[1], columns, NULL));
	if (c->nin > 2) {
		TRY(rank_check(c, 2, 1, 1));
		if (c->in[2]->shape.rank == 1)
			TRY(length_join(c, "lengths of rois and batch_indices", n, c->in[2]->shape.d[0], &n));
	}
	c->out[0].shape = (struct shape){ .rank = 4, .d = { n, x->rank < 0 ? DIM_NONE : x->d[1], height, width } };
	return LINNET_OK;
}

static enum linnet_code check_batch(int64_t batch, const struct tensor *x, struct linnet_error *e)
{
	if (batch < 0 || batch >= x->d[0])
		return fail(e, LINNET_EVALUE, "batch index %lld is not in [0, %lld)", (long long)batch, (long long)x->d[0]);
	return LINNET_OK;
}

/* The two elements around x in [0, last], and how near the second is. */
struct between {
	int64_t low, high;
	double f;
};

static struct between between(double x, int64_t last)
{
	struct between b = { .low = (int64_t)x };

	b.high = b.low < last ? b.low + 1 : last;
	b.f = x - (double)b.low;
	return b;
}

static enum linnet_code roi_align_shape(struct shape_call *c)
{
	return regions_shape(c, 4, attr_get(c->op, c->attr, "output_height")->i, attr_get(c->op, c->attr, "output_width")->i);
}

/* v as an element of type t. */
static double rounded(enum dtype t, double v)
{
	double store;

	dtype_put(t, &store, 0, v);
	return dtype_get(t, &store, 0);
}

/* A region along one axis: where it begins, how long each of its bins is and how many samples that takes. */
struct side {
	double start, bin;
	int64_t samples;
};

/*
 * The number of samples jumps with the region's length, so that is rounded at each step to the element type, as implementations
 * that compute in that type have it.
 */
static enum linnet_code side_of(struct kernel_call *c, int64_t from, int64_t to, int64_t bins, struct side *s)
{
	bool half = attr_says(c->op, c->attr, "coordinate_transformation_mode", "half_pixel");
	double scale = attr_get(c->op, c->attr, "spatial_scale")->f, end, length, n;
	int64_t given = attr_get(c->op, c->attr, "sampling_ratio")->i;
	enum dtype dt = c->in[1]->dt;

	s->start = rounded(dt, rounded(dt, tensor_get(c->in[1], from) * scale) - (half ? 0.5 : 0));
	end = rounded(dt, rounded(dt, tensor_get(c->in[1], to) * scale) - (half ? 0.5 : 0));
	length = rounded(dt, end - s->start);
	if (!half && !(length > 1))
		length = 1;
	s->bin = rounded(dt, length / (double)bins);
	n = given > 0 ? (double)given : ceil(s->bin);
	if (n > 1 << 16)
		return fail(c->e, LINNET_ELIMIT, "a bin takes %g samples along an axis; at most %d are supported", n, 1 << 16);
	s->samples = n > 0 ? (int64_t)n : 0;
	return LINNET_OK;
}

/*
 * Every bin of a region is the mean of samples spread evenly over it, interpolated linearly, 0 where they are more than 1 outside.
 * Mode max takes the largest of all their weighted corners, not of the samples: so do ONNX's own evaluator, its test and others.
 */
static enum linnet_code roi_align(struct kernel_call *c)
{
	bool max = attr_says(c->op, c->attr, "mode", "max");
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t h = x->d[2], w = x->d[3], i = 0;

	for (int64_t r = 0; y->n && r < y->d[0]; r++) {
		int64_t batch = tensor_get_int(c->in[2], r);
		struct side sy, sx;

		TRY(check_batch(batch, x, c->e));
		TRY(side_of(c, 4 * r, 4 * r + 2, y->d[3], &sx));
		TRY(side_of(c, 4 * r + 1, 4 * r + 3, y->d[2], &sy));
		for (int64_t bin = 0; bin < y->d[1] * y->d[2] * y->d[3]; bin++, i++) {
			int64_t py = bin / y->d[3] % y->d[2], px = bin % y->d[3], count = sy.samples * sx.samples;
			int64_t plane = (batch * y->d[1] + bin / y->d[3] / y->d[2]) * h * w;
			double sum = 0, most = count ? -INFINITY : 0;

			for (int64_t k = 0; k < count; k++) {
				double at_y = sy.start + sy.bin * ((double)py + ((double)(k / sx.samples) + 0.5) / (double)sy.samples);
				double at_x = sx.start + sx.bin * ((double)px + ((double)(k % sx.samples) + 0.5) / (double)sx.samples);
				struct between by, bx;

				if (!(at_y >= -1 && at_y <= (double)h && at_x >= -1 && at_x <= (double)w) || h == 0 || w == 0) {
					most = larger(most, 0);
					continue;
				}
				by = between(fmin(fmax(at_y, 0), (double)(h - 1)), h - 1);
				bx = between(fmin(fmax(at_x, 0), (double)(w - 1)), w - 1);
				for (int corner = 0; corner < 4; corner++) {
					double weight = (corner & 2 ? by.f : 1 - by.f) * (corner & 1 ? bx.f : 1 - bx.f);
					int64_t p = plane + (corner & 2 ? by.high : by.low) * w + (corner & 1 ? bx.high : bx.low);
					double v = weight * tensor_get(x, p);

					most = larger(most, v);
					sum += v;
				}
			}
			tensor_put(y, i, max ? most : count ? sum / (double)count : 0);
		}
	}
	return LINNET_OK;
}

static enum linnet_code max_roi_pool_shape(struct shape_call *c)
{
	const struct attr *shape = attr_get(c->op, c->attr, "pooled_shape");

	if (shape->n != 2)
		return fail(c->e, LINNET_EATTR, "attribute \"pooled_shape\" has %zu elements; expected 2", shape->n);
	return regions_shape(c, 5, shape->ints[0], shape->ints[1]);
}

/* A region along one axis in whole elements, at least one. */
struct extent {
	int64_t start, length;
};

static enum linnet_code extent_of(struct kernel_call *c, int64_t from, int64_t to, struct extent *x)
{
	double scale = attr_get(c->op, c->attr, "spatial_scale")->f;
	double a = round(tensor_get(c->in[1], from) * scale), b = round(tensor_get(c->in[1], to) * scale);

	if (!(fabs(a) < 0x1p30 && fabs(b) < 0x1p30))
		return fail(c->e, LINNET_EVALUE, "a region goes from %g to %g", a, b);
	*x = (struct extent){ (int64_t)a, b < a ? 1 : (int64_t)(b - a) + 1 };
	return LINNET_OK;
}

/* Bin k of n: the elements [from, to) it touches, within an axis of `length`. */
static void bin_of(const struct extent *x, int64_t k, int64_t n, int64_t length, int64_t *from, int64_t *to)
{
	int64_t a = x->start + k * x->length / n, b = x->start + ((k + 1) * x->length + n - 1) / n;

	*from = a < 0 ? 0 : a;
	*to = b > length ? length : b;
}

/* The largest element of every bin, 0 where a bin is empty. Source: Girshick, Fast R-CNN, 2015, section 2.1. */
static enum linnet_code max_roi_pool(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *rois = c->in[1];
	int64_t h = x->d[2], w = x->d[3], i = 0;
	struct tensor *y = c->out[0];

	for (int64_t r = 0; y->n && r < y->d[0]; r++) {
		double batch = tensor_get(rois, 5 * r);
		struct extent ey, ex;

		if (!(batch >= 0 && batch < (double)x->d[0]))
			return fail(c->e, LINNET_EVALUE, "batch index %g is not in [0, %lld)", batch, (long long)x->d[0]);
		TRY(extent_of(c, 5 * r + 1, 5 * r + 3, &ex));
		TRY(extent_of(c, 5 * r + 2, 5 * r + 4, &ey));
		for (int64_t bin = 0; bin < y->d[1] * y->d[2] * y->d[3]; bin++, i++) {
			int64_t plane = ((int64_t)batch * y->d[1] + bin / y->d[3] / y->d[2]) * h * w, y0, y1, x0, x1;
			double most = -INFINITY;

			bin_of(&ey, bin / y->d[3] % y->d[2], y->d[2], h, &y0, &y1);
			bin_of(&ex, bin % y->d[3], y->d[3], w, &x0, &x1);
			for (int64_t j = y0; j < y1; j++)
				for (int64_t k = x0; k < x1; k++)
					most = larger(most, tensor_get(x, plane + j * w + k));
			tensor_put(y, i, y0 < y1 && x0 < x1 ? most : 0);
		}
	}
	return LINNET_OK;
}

static enum linnet_code crop_and_resize_shape(struct shape_call *c)
{
	dim size[2] = { DIM_NONE, DIM_NONE };
	int n;

	TRY(rank_check(c, 3, 1, 1));
	TRY(type_dims(c->in[3], size, 2, &n, c->e));
	if (n >= 0 && n != 2)
		return fail(c->e, LINNET_ESHAPE, "crop_size has %d elements; expected 2", n);
	for (int i = 0; i < 2; i++)
		if (dim_is_int(size[i]) && size[i] < 1)
			return fail(c->e, LINNET_EVALUE, "crop_size is %lld; expected a positive length", (long long)size[i]);
	return regions_shape(c, 4, size[0], size[1]);
}

/* Regions are given as y1, x1, y2, x2 from 0 to 1, from the first to the last element; their corners are crops' corners. */
static double crop_position(const struct tensor *rois, int64_t at, int64_t i, int64_t n, int64_t length)
{
	double a = tensor_get(rois, at), b = tensor_get(rois, at + 2);

	return (n > 1 ? a + (b - a) * (double)i / (double)(n - 1) : (a + b) / 2) * (double)(length - 1);
}

static enum linnet_code crop_and_resize(struct kernel_call *c)
{
	double outside = attr_get(c->op, c->attr, "extrapolation_value")->f;
	bool nearest = attr_says(c->op, c->attr, "mode", "nearest");
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t h = x->d[2], w = x->d[3], at[4] = { 0 };

	for (int64_t i = 0; i < y->n; i++, next_position(4, y->d, at)) {
		int64_t batch = tensor_get_int(c->in[2], at[0]), plane;
		double py = crop_position(c->in[1], 4 * at[0], at[2], y->d[2], h);
		double px = crop_position(c->in[1], 4 * at[0] + 1, at[3], y->d[3], w), sum = 0;
		struct between by, bx;

		TRY(check_batch(batch, x, c->e));
		if (!(py >= 0 && py <= (double)(h - 1) && px >= 0 && px <= (double)(w - 1))) {
			tensor_put(y, i, outside);
			continue;
		}
		by = between(nearest ? round(py) : py, h - 1);
		bx = between(nearest ? round(px) : px, w - 1);
		plane = (batch * y->d[1] + at[1]) * h * w;
		for (int corner = 0; corner < 4; corner++) {
			double weight = (corner & 2 ? by.f : 1 - by.f) * (corner & 1 ? bx.f : 1 - bx.f);

			if (weight != 0)
				sum += weight * tensor_get(x, plane + (corner & 2 ? by.high : by.low) * w + (corner & 1 ? bx.high : bx.low));
		}
		tensor_put(y, i, sum);
	}
	return LINNET_OK;
}

#define ALIGN_CORNERS { .name = "align_corners", .kind = ATTR_INT, .lo = 0, .hi = 1 }
#define MODE(words, usual) { .name = "mode", .kind = ATTR_STRING, .s = (usual), .oneof = (words) }
#define PADDING_MODE { .name = "padding_mode", .kind = ATTR_STRING, .s = "zeros", .oneof = "zeros|border|reflection" }
#define OUTPUT_SIZE(title) { .name = title, .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }
#define SAMPLING_RATIO { .name = "sampling_ratio", .kind = ATTR_INT, .lo = 0, .hi = INT32_MAX }
#define SPATIAL_SCALE { .name = "spatial_scale", .kind = ATTR_FLOAT, .f = 1 }

/* Modes had the names that go with two axes. */
#define SAMPLE(mode, grid)                                                                         \
	"{ Y = GridSample <align_corners: int = @align_corners, mode = \"" mode                    \
	"\", padding_mode: string = @padding_mode> (X, " grid ") }\n"
#define SAMPLE_IMAGE(grid)                                                                         \
	"?mode=nearest " SAMPLE("nearest", grid) "?mode=bicubic " SAMPLE("cubic", grid) SAMPLE("linear", grid)

static const struct op rows[] = {
	{
		.name = "AffineGrid", .since = 20,
		.doc = "For every place of an image of the given size, where an affine map takes it: a grid for GridSample.",
		.in = IN({ "theta", T1, FLOW_LINEAR }, { "size", T2 }),
		.out = OUT({ "grid", T1 }),
		.attr = ATTRS(ALIGN_CORNERS),
		.types = { [T1] = FLOATS, [T2] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = affine_grid_shape, .kernel = affine_grid, .write_body = write_affine_grid,
	},
	{
		.name = "GridSample", .since = 20,
		.doc = "The image at the places a grid tells, -1 to 1 along each axis: the nearest element, or a linear or cubic combination "
		       "of those around.",
		.in = IN({ "X", T1, FLOW_LINEAR }, { "grid", T2, FLOW_KINKED }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(ALIGN_CORNERS, MODE("linear|nearest|cubic", "linear"), PADDING_MODE),
		.types = { [T1] = COMMON, [T2] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = grid_sample_shape, .kernel = grid_sample, .write_body = body_grid_sample,
	},
	{
		.name = "GridSample", .since = 16,
		.in = IN({ "X", T1, FLOW_LINEAR }, { "grid", T2, FLOW_KINKED }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(ALIGN_CORNERS, MODE("bilinear|nearest|bicubic", "bilinear"), PADDING_MODE),
		.types = { [T1] = COMMON, [T2] = FLOATS },
		.lower = SAMPLE_IMAGE("grid"),
	},
	{
		.name = "RoiAlign", .since = 16,
		.doc = "Regions of an image cut into bins, each the mean, or in a way the largest, of samples between the elements.",
		.in = IN({ "X", T1, FLOW_KINKED }, { "rois", T1, FLOW_NONE }, { "batch_indices", T2 }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS({ .name = "coordinate_transformation_mode", .kind = ATTR_STRING, .s = "half_pixel",
		                .oneof = "half_pixel|output_half_pixel" },
		              MODE("avg|max", "avg"), OUTPUT_SIZE("output_height"), OUTPUT_SIZE("output_width"), SAMPLING_RATIO,
		              SPATIAL_SCALE),
		.types = { [T1] = FLOATS, [T2] = SET(INT64) },
		.agree = AGREE_ROUND,
		.shape = roi_align_shape, .kernel = roi_align, .write_body = body_roi_align,
	},
	{
		.name = "RoiAlign", .since = 10,
		.in = IN({ "X", T1, FLOW_KINKED }, { "rois", T1, FLOW_NONE }, { "batch_indices", T2 }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(MODE("avg|max", "avg"), OUTPUT_SIZE("output_height"), OUTPUT_SIZE("output_width"), SAMPLING_RATIO,
		              SPATIAL_SCALE),
		.types = { [T1] = FLOATS, [T2] = SET(INT64) },
		.lower = "{ Y = RoiAlign <coordinate_transformation_mode = \"output_half_pixel\", mode: string = @mode, "
		         "output_height: int = @output_height, output_width: int = @output_width, "
		         "sampling_ratio: int = @sampling_ratio, spatial_scale: float = @spatial_scale> (X, rois, batch_indices) }",
	},
	{
		.name = "MaxRoiPool", .since = 1,
		.doc = "Regions of an image cut into bins, each the largest of its elements.",
		.in = IN({ "X", T, FLOW_KINKED }, { "rois", T, FLOW_NONE }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "pooled_shape", .kind = ATTR_INTS, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }, SPATIAL_SCALE),
		.types = { [T] = FLOATS },
		.agree = AGREE_BITS,
		.shape = max_roi_pool_shape, .kernel = max_roi_pool, .write_body = body_max_roi_pool,
	},
	{
		.domain = "com.microsoft", .name = "GridSample", .since = 1,
		.doc = "What ONNX has as GridSample since opset 16.",
		.in = IN({ "X", T1, FLOW_LINEAR }, { "Grid", T1, FLOW_KINKED }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS(ALIGN_CORNERS, MODE("bilinear|nearest|bicubic", "bilinear"), PADDING_MODE),
		.types = { [T1] = COMMON & ~SET(BFLOAT16), [T2] = FLOATS & ~SET(BFLOAT16) },
		.lower = SAMPLE_IMAGE("Grid"),
	},
	{
		.domain = "com.microsoft", .name = "CropAndResize", .since = 1,
		.doc = "Regions of an image, each resampled to one size; corners on corners.",
		.in = IN({ "X", T1, FLOW_LINEAR }, { "rois", T1, FLOW_NONE }, { "batch_indices", T2 }, { "crop_size", T2 }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS({ .name = "extrapolation_value", .kind = ATTR_FLOAT }, MODE("bilinear|nearest", "bilinear")),
		.types = { [T1] = FLOATS & ~SET(BFLOAT16), [T2] = SET(INT32) },
		.agree = AGREE_ROUND,
		.shape = crop_and_resize_shape, .kernel = crop_and_resize,
	},
};

const struct op_family sample_ops = FAMILY("sample", rows);
