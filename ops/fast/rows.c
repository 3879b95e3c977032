/*
 * What is done row by row in float32: softmax and its logarithm, cross-entropy, RMS and layer normalisation, rotary embedding, sums, means and
 * extremes over a run of axes. Memory bounds them: each row is read once or twice while it is in the first cache. Sums run in sixteen lanes,
 * or in columns, and are added in a fixed order.
 */
#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/fast/vmath.h"

VARRAY(exp)

enum { LANES = 16, PIECE = 8192 };

static float sum_of(const float *restrict x, int64_t n)
{
	float s[LANES] = { 0 }, sum = 0;
	int64_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (int l = 0; l < LANES; l++)
			s[l] += x[i + l];
	for (int w = LANES / 2; w; w /= 2)
		for (int l = 0; l < w; l++)
			s[l] += s[l + w];
	for (; i < n; i++)
		sum += x[i];
	return s[0] + sum;
}

/* Sum of (x - mean)^2. */
static float square_sum(const float *restrict x, int64_t n, float mean)
{
	float s[LANES] = { 0 }, sum = 0;
	int64_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (int l = 0; l < LANES; l++)
			s[l] += (x[i + l] - mean) * (x[i + l] - mean);
	for (int w = LANES / 2; w; w /= 2)
		for (int l = 0; l < w; l++)
			s[l] += s[l + w];
	for (; i < n; i++)
		sum += (x[i] - mean) * (x[i] - mean);
	return s[0] + sum;
}

/* Largest element; NaN when there is one. */
static float max_of(const float *x, int64_t n)
{
	float m[LANES], top = -INFINITY;
	bool nan = false;
	int64_t i = 0;

	for (int l = 0; l < LANES; l++)
		m[l] = -INFINITY;
	for (; i + LANES <= n; i += LANES)
		for (int l = 0; l < LANES; l++)
			m[l] = x[i + l] > m[l] ? x[i + l] : m[l];
	for (int l = 0; l < LANES; l++)
		top = m[l] > top ? m[l] : top;
	for (; i < n; i++)
		top = x[i] > top ? x[i] : top;
	for (i = 0; i < n; i++)
		nan |= x[i] != x[i];
	return nan ? NAN : top;
}

struct rows {
	const float *x, *scale, *bias;
	float *y;
	int64_t n, width; /* rows, elements a row */
	float epsilon;
	int what;
	void (*row)(const struct rows *r, const float *x, float *y);
	int64_t out; /* elements of y a row */
	int64_t group;
};

static void rows_piece(void *ctx, int64_t i)
{
	const struct rows *r = ctx;

	for (int64_t k = i * r->group; k < (i + 1) * r->group && k < r->n; k++)
		r->row(r, r->x + k * r->width, r->y + k * r->out);
}

static void run_rows(struct rows *r, int threads)
{
	r->group = r->width ? PIECE / r->width : 1;
	r->group = r->group ? r->group : 1;
	parallel_for(r->n * r->width < 4 * PIECE ? 1 : threads, (r->n + r->group - 1) / r->group, rows_piece, r);
}

static int64_t product(const struct tensor *t, int from, int to)
{
	int64_t n = 1;

	for (int i = from; i < to; i++)
		n *= t->d[i];
	return n;
}

/* ---- Softmax over the last axis ---- */

static void softmax_row(const struct rows *r, const float *x, float *y)
{
	float top = max_of(x, r->width), scale;

	for (int64_t i = 0; i < r->width; i++)
		y[i] = x[i] - top;
	v_exp(y, y, r->width);
	scale = 1 / sum_of(y, r->width);
	for (int64_t i = 0; i < r->width; i++)
		y[i] *= scale;
}

static bool softmax_ok(const struct kernel_call *c)
{
	int64_t axis = attr_get(c->op, c->attr, "axis")->i;

	return c->in[0]->dt == DT_FLOAT && c->in[0]->rank > 0 && (axis == -1 || axis == c->in[0]->rank - 1);
}

static enum linnet_code softmax_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct rows r = { .x = x->data, .y = c->out[0]->data, .width = x->d[x->rank - 1], .row = softmax_row };

	r.n = r.width ? x->n / r.width : 0;
	r.out = r.width;
	run_rows(&r, c->threads);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(softmax) = { .name = "softmax/float", .ok = softmax_ok, .run = softmax_run, .inplace = true };

/* ---- Logarithms of softmax over the last axis ---- */

/* log of the sum of e^x */
static double log_sum_exp(const float *x, int64_t n)
{
	enum { MANY = 1024 };
	float y[MANY], top = max_of(x, n);
	double sum = 0;

	for (int64_t at = 0; at < n; at += MANY) {
		int64_t some = n - at < MANY ? n - at : MANY;

		for (int64_t i = 0; i < some; i++)
			y[i] = x[at + i] - top;
		v_exp(y, y, some);
		sum += (double)sum_of(y, some);
	}
	return (double)top + log(sum);
}

static void log_softmax_row(const struct rows *r, const float *x, float *y)
{
	double l = log_sum_exp(x, r->width);

	for (int64_t i = 0; i < r->width; i++)
		y[i] = (float)((double)x[i] - l);
}

static enum linnet_code log_softmax_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct rows r = { .x = x->data, .y = c->out[0]->data, .width = x->d[x->rank - 1], .row = log_softmax_row };

	r.n = r.width ? x->n / r.width : 0;
	r.out = r.width;
	run_rows(&r, c->threads);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(log_softmax) = { .name = "log_softmax/float", .ok = softmax_ok, .run = log_softmax_run, .inplace = true };

/* ---- Cross-entropy of rows ---- */

struct entropy {
	const float *x;
	const struct tensor *target;
	double *loss;
	int64_t n, width, group;
};

static void entropy_piece(void *ctx, int64_t i)
{
	const struct entropy *j = ctx;

	for (int64_t k = i * j->group; k < (i + 1) * j->group && k < j->n; k++) {
		int64_t t = tensor_get_int(j->target, k);

		if (t >= 0 && t < j->width)
			j->loss[k] = log_sum_exp(j->x + k * j->width, j->width) - (double)j->x[k * j->width + t];
	}
}

/* Scores of rank 2 without weights, of which only the loss is wanted. */
static bool cross_entropy_ok(const struct kernel_call *c)
{
	return c->in[0]->dt == DT_FLOAT && c->in[0]->rank == 2 && (c->nin < 3 || !c->in[2]) && (c->nout < 2 || !c->out[1]) && c->out[0];
}

static enum linnet_code cross_entropy_run(struct kernel_call *c)
{
	const struct attr *ignore = attr_get(c->op, c->attr, "ignore_index");
	char kind = attr_get(c->op, c->attr, "reduction")->s.p[0];
	struct entropy j = { .x = c->in[0]->data, .target = c->in[1], .n = c->in[0]->d[0], .width = c->in[0]->d[1] };
	struct linnet_error *e = c->e;
	double sum = 0;
	int64_t count = 0;

	TRY_NEW(j.loss, c->scratch, j.n);
	j.group = j.width && j.width < PIECE ? PIECE / j.width : 1;
	parallel_for(j.n * j.width < 4 * PIECE ? 1 : c->threads, (j.n + j.group - 1) / j.group, entropy_piece, &j);
	for (int64_t i = 0; i < j.n; i++) {
		int64_t t = tensor_get_int(j.target, i);
		bool skip = attr_given(ignore) && t == ignore->i;

		if (!skip && (t < 0 || t >= j.width))
			return fail(c->e, LINNET_EVALUE, "class %lld is not in [0, %lld)", (long long)t, (long long)j.width);
		sum += skip ? 0 : j.loss[i];
		count += !skip;
		if (kind == 'n')
			tensor_put(c->out[0], i, skip ? 0 : j.loss[i]);
	}
	if (kind != 'n')
		tensor_put(c->out[0], 0, kind == 's' ? sum : sum / (double)count);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(cross_entropy) = { .name = "cross_entropy/float", .ok = cross_entropy_ok, .run = cross_entropy_run };

/* ---- Normalisation ---- */

static void rms_row(const struct rows *r, const float *x, float *y)
{
	float f = 1 / sqrtf(square_sum(x, r->width, 0) / (float)r->width + r->epsilon);

	for (int64_t i = 0; i < r->width; i++)
		y[i] = x[i] * f * r->scale[i];
}

static void layer_row(const struct rows *r, const float *x, float *y)
{
	float mean = sum_of(x, r->width) / (float)r->width;
	float f = 1 / sqrtf(square_sum(x, r->width, mean) / (float)r->width + r->epsilon);

	if (r->bias)
		for (int64_t i = 0; i < r->width; i++)
			y[i] = (x[i] - mean) * f * r->scale[i] + r->bias[i];
	else
		for (int64_t i = 0; i < r->width; i++)
			y[i] = (x[i] - mean) * f * r->scale[i];
}

static int norm_axis(const struct kernel_call *c)
{
	int64_t axis = attr_get(c->op, c->attr, "axis")->i;

	return (int)(axis < 0 ? axis + c->in[0]->rank : axis);
}

/* Float throughout, scale and bias as long as a row, only Y wanted. */
static bool norm_ok(const struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t width = product(x, norm_axis(c), x->rank);

	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && (c->in[i]->dt != DT_FLOAT || (i && c->in[i]->n != width)))
			return false;
	for (int i = 1; i < c->nout; i++)
		if (c->out[i])
			return false;
	return attr_get(c->op, c->attr, "stash_type")->i == DT_FLOAT;
}

static enum linnet_code norm_rows(struct kernel_call *c, void (*row)(const struct rows *, const float *, float *))
{
	const struct tensor *x = c->in[0];
	struct rows r = { .x = x->data, .y = c->out[0]->data, .scale = c->in[1]->data, .row = row,
	                  .bias = c->nin > 2 && c->in[2] ? c->in[2]->data : NULL,
	                  .epsilon = (float)attr_get(c->op, c->attr, "epsilon")->f };

	r.width = r.out = product(x, norm_axis(c), x->rank);
	r.n = r.width ? x->n / r.width : 0;
	run_rows(&r, c->threads);
	return LINNET_OK;
}

static enum linnet_code rms_run(struct kernel_call *c) { return norm_rows(c, rms_row); }
static enum linnet_code layer_run(struct kernel_call *c) { return norm_rows(c, layer_row); }

const struct fast FAST_KERNEL(rms_norm) = { .name = "rms_norm/float", .ok = norm_ok, .run = rms_run, .inplace = true };
const struct fast FAST_KERNEL(layer_norm) = { .name = "layer_norm/float", .ok = norm_ok, .run = layer_run, .inplace = true };

/* 1 / max(|x|, epsilon), or 1 / (|x| + epsilon) */
static void l2_row(const struct rows *r, const float *x, float *y)
{
	float length = sqrtf(square_sum(x, r->width, 0));
	float f = 1 / (r->what ? length + r->epsilon : length < r->epsilon ? r->epsilon : length);

	for (int64_t i = 0; i < r->width; i++)
		y[i] = x[i] * f;
}

static enum linnet_code l2_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct rows r = { .x = x->data, .y = c->out[0]->data, .width = x->d[x->rank - 1], .row = l2_row,
	                  .epsilon = (float)attr_get(c->op, c->attr, "epsilon")->f, .what = attr_get(c->op, c->attr, "bound")->s.p[0] == 'a' };

	r.n = r.width ? x->n / r.width : 0;
	r.out = r.width;
	run_rows(&r, c->threads);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(l2_norm) = { .name = "l2_norm/float", .ok = softmax_ok, .run = l2_run, .inplace = true };

/* ---- Reductions over the last axes ---- */

enum { SUM, MEAN, MAXIMUM, OTHER };

static void reduce_row(const struct rows *r, const float *x, float *y)
{
	*y = r->what == MAXIMUM ? max_of(x, r->width) : sum_of(x, r->width);
	if (r->what == MEAN)
		*y /= (float)r->width;
}

static int reduction(const struct op *op)
{
	static const char *const name[OTHER] = { "ReduceSum", "ReduceMean", "ReduceMax" };
	int i = 0;

	while (i < OTHER && strcmp(op->name, name[i]))
		i++;
	return i;
}

/* A run of axes that is reduced: x is [outer, n, inner]. */
struct run {
	int64_t outer, n, inner;
};

/* Whether what is reduced is one run, axes of length 1 aside. */
static bool reduced_run(const struct kernel_call *c, struct run *r)
{
	const struct tensor *x = c->in[0], *axes = c->in[1];
	unsigned seen = 0;
	int first = x->rank, last = -1;

	for (int64_t i = 0; i < axes->n; i++) {
		int64_t a = tensor_get_int(axes, i);

		seen |= 1u << (a < 0 ? a + x->rank : a);
	}
	for (int i = 0; i < x->rank; i++)
		if (seen >> i & 1 && x->d[i] != 1) {
			first = last < 0 ? i : first;
			last = i;
		}
	for (int i = first; i <= last; i++)
		if (!(seen >> i & 1) && x->d[i] != 1)
			return false;
	if (last < 0 || !x->n)
		return false;
	*r = (struct run){ product(x, 0, first), product(x, first, last + 1), product(x, last + 1, x->rank) };
	return true;
}

/* Columns a piece; rows whose sum is taken before it is added to the rest. */
enum { STRIP = 256, STRETCH = 64 };

struct columns {
	const float *x;
	float *y;
	struct run run;
	int64_t strips; /* of the inner elements */
	int what;
};

static void columns_piece(void *ctx, int64_t i)
{
	const struct columns *c = ctx;
	int64_t from = i % c->strips * STRIP, n = c->run.inner - from < STRIP ? c->run.inner - from : STRIP;
	const float *x = c->x + i / c->strips * c->run.n * c->run.inner + from;
	float *restrict y = c->y + i / c->strips * c->run.inner + from, part[STRIP];

	for (int64_t j = 0; j < n; j++)
		y[j] = c->what == MAXIMUM ? -INFINITY : 0;
	for (int64_t k0 = 0; k0 < c->run.n; k0 += STRETCH) {
		for (int64_t j = 0; j < n; j++)
			part[j] = c->what == MAXIMUM ? -INFINITY : 0;
		for (int64_t k = k0; k < k0 + STRETCH && k < c->run.n; k++) {
			const float *restrict row = x + k * c->run.inner;

			if (c->what == MAXIMUM)
				for (int64_t j = 0; j < n; j++)
					part[j] = row[j] > part[j] || row[j] != row[j] ? row[j] : part[j];
			else
				for (int64_t j = 0; j < n; j++)
					part[j] += row[j];
		}
		for (int64_t j = 0; j < n; j++)
			y[j] = c->what != MAXIMUM ? y[j] + part[j] : part[j] > y[j] || part[j] != part[j] ? part[j] : y[j];
	}
	for (int64_t j = 0; c->what == MEAN && j < n; j++)
		y[j] /= (float)c->run.n;
}

static bool reduce_ok(const struct kernel_call *c)
{
	return c->in[0]->dt == DT_FLOAT && c->nin > 1 && c->in[1] && reduction(c->op) != OTHER;
}

static enum linnet_code reduce_run(struct kernel_call *c)
{
	struct rows r = { .x = c->in[0]->data, .y = c->out[0]->data, .row = reduce_row, .out = 1, .what = reduction(c->op) };
	struct columns k = { .x = r.x, .y = r.y, .what = r.what };

	if (!reduced_run(c, &k.run))
		return c->op->kernel(c);
	if (k.run.inner == 1) {
		r.width = k.run.n;
		r.n = k.run.outer;
		run_rows(&r, c->threads);
	} else {
		k.strips = (k.run.inner + STRIP - 1) / STRIP;
		parallel_for(c->in[0]->n < 4 * PIECE ? 1 : c->threads, k.run.outer * k.strips, columns_piece, &k);
	}
	return LINNET_OK;
}

const struct fast FAST_KERNEL(reduce) = { .name = "reduce/float", .ok = reduce_ok, .run = reduce_run };

/* ---- Rotary embedding: halves, tables per position ---- */

struct rotary {
	const float *x, *cos, *sin;
	float *y;
	int64_t H, L, D, half, group, by_cos, by_sin; /* positions from one batch's angles to the next's; 0: one table serves all */
	int64_t rows;
};

static void rotary_piece(void *ctx, int64_t i)
{
	const struct rotary *r = ctx;

	for (int64_t k = i * r->group; k < (i + 1) * r->group && k < r->rows; k++) { /* row k = (b H + h) L + l */
		int64_t b = k / (r->H * r->L), l = k % r->L;
		const float *restrict x = r->x + k * r->D, *restrict cos = r->cos + (b * r->by_cos + l) * r->half;
		const float *restrict sin = r->sin + (b * r->by_sin + l) * r->half;
		float *restrict y = r->y + k * r->D;

		for (int64_t j = 0; j < r->half; j++) {
			y[j] = x[j] * cos[j] - x[j + r->half] * sin[j];
			y[j + r->half] = x[j] * sin[j] + x[j + r->half] * cos[j];
		}
		for (int64_t j = 2 * r->half; j < r->D; j++)
			y[j] = x[j];
	}
}

static bool rotary_ok(const struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *t = c->in[1];

	return x->dt == DT_FLOAT && t->dt == DT_FLOAT && x->rank == 4 && t->rank == 3 && !(c->nin > 3 && c->in[3]) &&
	       !attr_get(c->op, c->attr, "interleaved")->i;
}

static enum linnet_code rotary_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *t = c->in[1];
	struct rotary r = { .x = x->data, .cos = t->data, .sin = c->in[2]->data, .y = c->out[0]->data, .H = x->d[1], .L = x->d[2], .D = x->d[3],
	                    .half = t->d[2], .by_cos = t->d[0] == 1 ? 0 : x->d[2], .by_sin = c->in[2]->d[0] == 1 ? 0 : x->d[2] };

	r.rows = r.D ? x->n / r.D : 0;
	r.group = r.D ? PIECE / r.D : 1;
	r.group = r.group ? r.group : 1;
	parallel_for(x->n < 4 * PIECE ? 1 : c->threads, (r.rows + r.group - 1) / r.group, rotary_piece, &r);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(rotary) = { .name = "rotary/float", .ok = rotary_ok, .run = rotary_run };
