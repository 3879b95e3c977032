/* Pools of 1 to 3 spatial axes, and MaxUnpool. Reference kernels, then rows. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/kernel.h"
#include "ops/window.h"

static enum linnet_code shape_pool(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	struct window w;

	TRY(rank_check(c, 0, 3, SPACE + 2));
	if (x->rank < 0)
		return LINNET_OK;
	TRY(window_read(c->op, c->attr, x, NULL, &w, c->e));
	TRY(window_slide(c->dims, c->op, c->attr, &w, c->e));
	window_output(c, x->d[1], &w);
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
				in[i] = window_inside(&w, i, pos[i], w.in[i]);
				first[i] = pos[i] * w.stride[i] - w.begin[i];
				count *= include ? window_inside(&w, i, pos[i], w.in[i] + w.end[i]).to : in[i].to - in[i].from;
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
				in[i] = window_inside(&w, i, pos[i], w.in[i]);
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
		window_output(c, x->d[1], &w);
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

static const enum pool pool_max = POOL_MAX, pool_average = POOL_AVERAGE, pool_lp = POOL_LP;

#define POWER { .name = "p", .kind = ATTR_INT, .i = 2, .lo = 1, .hi = INT32_MAX }
#define FROM(opset, title, ...) { .name = title, .since = (opset), __VA_ARGS__ }

static const struct op rows[] = {
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
		.write_grad = grad_max_pool,
		.shape = shape_pool,
		.kernel = pool, .fast = FAST(&fast_pool),
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
		.write_grad = grad_sum_pool,
		.shape = shape_pool,
		.kernel = pool, .fast = FAST(&fast_pool),
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
		.write_grad = grad_sum_pool,
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
		.write_grad = grad_global_pool,
		.shape = shape_global_pool,
		.kernel = global_pool, .fast = FAST(&fast_global_pool),
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
		.write_grad = grad_global_pool,
		.shape = shape_global_pool,
		.kernel = global_pool, .fast = FAST(&fast_global_pool),
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
		.write_grad = grad_global_pool,
		.shape = shape_global_pool,
		.kernel = global_pool,
		.param = &pool_lp,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.domain = "com.microsoft", .name = "MaxpoolWithMask", .since = 1,
		.doc = "The largest element of every window, each line of it read up to where the mask is 0. onnxruntime reads masks of several channels "
		       "from wrong places, which is not followed.",
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
		.name = "MaxUnpool", .since = 9,
		.doc = "Zeros, and the elements of MaxPool's output where they came from.",
		.in = IN({ "X", T1, FLOW_LINEAR }, { "I", T2 }, { "output_shape", T2, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "output", T1 }),
		.attr = ATTRS(KERNEL_SHAPE, LIST("pads", 0), LIST("strides", 1)),
		.types = { [T1] = FLOATS, [T2] = SET(INT64) },
		.agree = AGREE_BITS,
		.grad = "{" REAL("zero", "0.0") "  flat = Constant <value = int64[1] {-1}> ()\n"
		        "  lengths = Shape (X)\n"
		        "  count = Size (X)\n"
		        "  step = Constant <value = int64 {1}> ()\n"
		        "  room = Add (count, step)\n"
		        "  line = Range (step, room, step)\n"
		        "  real = Cast <to = 11> (line)\n"
		        "  numbers = Reshape <allowzero = 1> (real, lengths)\n"
		        "  who = MaxUnpool <kernel_shape: ints = @kernel_shape, pads: ints = @pads, strides: ints = @strides> (numbers, I, output_shape)\n"
		        "  whose = Cast <to = 7> (who)\n"
		        "  where = Reshape (whose, flat)\n"
		        "  what = Reshape (d_output, flat)\n"
		        "  length = Reshape (room, flat)\n"
		        "  zeros = Expand (zero, length)\n"
		        "  sums = ScatterElements <reduction = \"add\"> (zeros, where, what)\n"
		        "  from = Reshape (step, flat)\n"
		        "  mine = Slice (sums, from, length)\n"
		        "  d_X = Reshape <allowzero = 1> (mine, lengths) }",
		.shape = shape_unpool,
		.kernel = unpool,
	},
};

const struct op_family pool_ops = FAMILY("pool", rows);
