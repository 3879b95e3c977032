/*
 * QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear of float32, and Cast. Memory bounds them all; results are the reference's bit
 * for bit, a quotient or product of floats rounded to float being the same when it is first rounded to double.
 */
#include <math.h>
#include <string.h>

#include "ops/base/thread.h"
#include "ops/fast/fast.h"
#include "ops/fast/halves.h"

enum { PIECE = 1 << 14, BUFFER = 256 };

/* ---- Conversions of up to BUFFER elements to and from float ---- */

/* Types whose elements are exact in float. */
#define EXACT                                                                                      \
	(SET(FLOAT) | SET(FLOAT16) | SET(BFLOAT16) | SET(INT8) | SET(UINT8) | SET(INT16) | SET(UINT16) | SET(INT4) | SET(UINT4) | SET(BOOL))

#define LOAD(type)                                                                                 \
	for (int64_t l = 0; l < n; l++)                                                            \
		to[l] = (float)((const type *)x)[i + l];                                           \
	return;

static void load(enum dtype t, const void *x, int64_t i, int64_t n, float *restrict to)
{
	switch (t) {
	case DT_INT8: LOAD(int8_t)
	case DT_BOOL:
	case DT_UINT8: LOAD(uint8_t)
	case DT_INT16: LOAD(int16_t)
	case DT_UINT16: LOAD(uint16_t)
	case DT_INT4:
	case DT_UINT4:
		for (int64_t l = 0; l < n; l++) {
			int v = (((const uint8_t *)x)[(i + l) / 2] >> (i + l) % 2 * 4) & 15;

			to[l] = (float)(t == DT_INT4 ? (v ^ 8) - 8 : v);
		}
		return;
	default: load_floats(t, x, i, n, to); return;
	}
}

static void store(enum dtype t, void *y, int64_t i, int64_t n, const float *restrict from)
{
	if (t != DT_BOOL) {
		store_floats(t, y, i, n, from);
		return;
	}
	for (int64_t l = 0; l < n; l++)
		((uint8_t *)y)[i + l] = from[l] != 0;
}

/* ---- Lines of elements whose scale is one, or one each ---- */

struct lines_job {
	const void *x;
	void *y;
	enum dtype from, to;
	const float *scale;
	const void *zero;
	int64_t n, length, group; /* elements; of a line; lines a piece */
	/* Scales of line i start at i / per outer + i % per / along inner, and advance by step, 0 or 1. */
	int64_t per, along, outer, inner, step;
};

/* Cut x: [..., axis, after] by its scales; false when the last block is not whole. */
static bool lines_of(const struct kernel_call *c, struct lines_job *j)
{
	const struct tensor *x = c->in[0], *scale = c->in[1];
	int64_t axis = attr_get(c->op, c->attr, "axis")->i, after = 1, along, block = 0;

	if (op_attr_index(c->op, "block_size") >= 0)
		block = attr_get(c->op, c->attr, "block_size")->i;
	j->n = x->n;
	j->per = j->along = INT64_MAX;
	j->length = PIECE;
	j->group = 1;
	if (scale->n == 1 || !x->n)
		return true;
	axis += axis < 0 ? x->rank : 0;
	along = x->d[axis];
	for (int i = (int)axis + 1; i < x->rank; i++)
		after *= x->d[i];
	j->length = after;
	j->per = along;
	j->along = j->inner = 1;
	if (!block && after == 1) {
		j->length = along;
		j->per = 1;
		j->step = 1;
	} else if (block && after == 1) {
		j->length = block;
		j->per = j->outer = along / block;
	} else if (block) {
		j->along = block;
		j->inner = after;
		j->outer = scale->d[axis] * after;
		j->step = 1;
	}
	j->group = (PIECE + j->length - 1) / j->length;
	return after > 1 || !block || along % block == 0;
}

/* Elements [i, i + n), whose scales and zero points start at `scale`. */
struct line {
	int64_t i, n, scale;
};

/* y = x / scale, rounded to float, to the nearest, plus the zero point, within the type. */
static void quantize_line(const struct lines_job *j, const struct line *at)
{
	float lo = j->to == DT_INT8 ? -128 : j->to == DT_INT16 ? -32768 : 0;
	float hi = j->to == DT_INT8 ? 127 : j->to == DT_UINT8 ? 255 : j->to == DT_INT16 ? 32767 : 65535;
	const float *scale = j->scale + at->scale;
	float v[BUFFER], zero[BUFFER] = { 0 };

	if (j->zero && !j->step) {
		load(j->to, j->zero, at->scale, 1, zero);
		for (int64_t l = 1; l < BUFFER && l < at->n; l++)
			zero[l] = *zero;
	}
	for (int64_t from = 0; from < at->n; from += BUFFER) {
		int64_t n = at->n - from < BUFFER ? at->n - from : BUFFER, i = at->i + from;
		const float *restrict x = (const float *)j->x + i;

		if (j->zero && j->step)
			load(j->to, j->zero, at->scale + from, n, zero);
		if (j->step)
			for (int64_t l = 0; l < n; l++)
				v[l] = x[l] / scale[from + l];
		else
			for (int64_t l = 0; l < n; l++)
				v[l] = x[l] / *scale;
		for (int64_t l = 0; l < n; l++) {
			float r = v[l] == v[l] ? nearbyintf(v[l]) + zero[l] : 0;

			v[l] = r < lo ? lo : r > hi ? hi : r;
		}
		if (dtype_bits(j->to) == 8)
			for (int64_t l = 0; l < n; l++)
				((uint8_t *)j->y)[i + l] = (uint8_t)(int)v[l];
		else
			for (int64_t l = 0; l < n; l++)
				((uint16_t *)j->y)[i + l] = (uint16_t)(int)v[l];
	}
}

static void dequantize_line(const struct lines_job *j, const struct line *at)
{
	const float *scale = j->scale + at->scale;
	float v[BUFFER], zero[BUFFER] = { 0 };

	if (j->zero && !j->step) {
		load(j->from, j->zero, at->scale, 1, zero);
		for (int64_t l = 1; l < BUFFER && l < at->n; l++)
			zero[l] = *zero;
	}
	for (int64_t from = 0; from < at->n; from += BUFFER) {
		int64_t n = at->n - from < BUFFER ? at->n - from : BUFFER, i = at->i + from;
		float *restrict y = (float *)j->y + i;

		load(j->from, j->x, i, n, v);
		if (j->zero && j->step)
			load(j->from, j->zero, at->scale + from, n, zero);
		if (j->step)
			for (int64_t l = 0; l < n; l++)
				y[l] = (v[l] - zero[l]) * scale[from + l];
		else
			for (int64_t l = 0; l < n; l++)
				y[l] = (v[l] - zero[l]) * *scale;
	}
}

/* int32: the difference needs more than float holds. */
static void dequantize_wide(const struct lines_job *j, const struct line *at)
{
	const int32_t *x = (const int32_t *)j->x + at->i, *zero = j->zero ? (const int32_t *)j->zero + at->scale : NULL;
	float *y = (float *)j->y + at->i;

	for (int64_t l = 0; l < at->n; l++)
		y[l] = (float)(((double)x[l] - (zero ? zero[l * j->step] : 0)) * (double)j->scale[at->scale + l * j->step]);
}

static void lines_piece(void *ctx, int64_t piece)
{
	const struct lines_job *j = ctx;
	int64_t all = (j->n + j->length - 1) / j->length, to = (piece + 1) * j->group < all ? (piece + 1) * j->group : all;

	for (int64_t i = piece * j->group; i < to; i++) {
		int64_t scale = i / j->per * j->outer + i % j->per / j->along * j->inner, start = i * j->length;
		struct line at = { start, j->n - start < j->length ? j->n - start : j->length, scale };

		if (j->to != DT_FLOAT)
			quantize_line(j, &at);
		else if (j->from == DT_INT32)
			dequantize_wide(j, &at);
		else
			dequantize_line(j, &at);
	}
}

static enum linnet_code run_lines(struct kernel_call *c)
{
	const struct tensor *zero = c->nin > 2 ? c->in[2] : NULL;
	struct lines_job j = { .x = c->in[0]->data, .y = c->out[0]->data, .from = c->in[0]->dt, .to = c->out[0]->dt,
	                       .scale = c->in[1]->data, .zero = zero ? zero->data : NULL };
	int64_t lines;

	lines_of(c, &j);
	lines = (j.n + j.length - 1) / j.length;
	parallel_for(j.n < 4 * PIECE ? 1 : c->threads, (lines + j.group - 1) / j.group, lines_piece, &j);
	return LINNET_OK;
}

static bool quantize_ok(const struct kernel_call *c)
{
	int64_t precision = op_attr_index(c->op, "precision") >= 0 ? attr_get(c->op, c->attr, "precision")->i : 0;
	struct lines_job j = { .n = 0 };

	return c->in[0]->dt == DT_FLOAT && c->in[1]->dt == DT_FLOAT && (!precision || precision == DT_FLOAT) &&
	       dtype_in(c->out[0]->dt, SET(INT8) | SET(UINT8) | SET(INT16) | SET(UINT16)) && lines_of(c, &j);
}

static bool dequantize_ok(const struct kernel_call *c)
{
	struct lines_job j = { .n = 0 };

	return c->in[1]->dt == DT_FLOAT && c->out[0]->dt == DT_FLOAT && lines_of(c, &j) &&
	       dtype_in(c->in[0]->dt, SET(INT8) | SET(UINT8) | SET(INT16) | SET(UINT16) | SET(INT4) | SET(UINT4) | SET(INT32));
}

const struct fast FAST_KERNEL(quantize) = { .name = "quantize", .ok = quantize_ok, .run = run_lines };
const struct fast FAST_KERNEL(dequantize) = { .name = "dequantize", .ok = dequantize_ok, .run = run_lines };

/* ---- DynamicQuantizeLinear ---- */

struct range_job {
	const float *x;
	int64_t n;
	float (*range)[2]; /* of each piece, and 0 */
};

static void range_piece(void *ctx, int64_t piece)
{
	const struct range_job *j = ctx;
	const float *restrict x = j->x + piece * PIECE;
	int64_t n = j->n - piece * PIECE < PIECE ? j->n - piece * PIECE : PIECE, i = 0;
	float lo[16] = { 0 }, hi[16] = { 0 };

	for (; i + 16 <= n; i += 16)
		for (int l = 0; l < 16; l++) {
			lo[l] = x[i + l] < lo[l] ? x[i + l] : lo[l];
			hi[l] = x[i + l] > hi[l] ? x[i + l] : hi[l];
		}
	for (; i < n; i++) {
		lo[0] = x[i] < lo[0] ? x[i] : lo[0];
		hi[0] = x[i] > hi[0] ? x[i] : hi[0];
	}
	for (int l = 1; l < 16; l++) {
		lo[0] = lo[l] < lo[0] ? lo[l] : lo[0];
		hi[0] = hi[l] > hi[0] ? hi[l] : hi[0];
	}
	j->range[piece][0] = lo[0];
	j->range[piece][1] = hi[0];
}

static enum linnet_code dynamic_quantize_run(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct range_job r = { .x = x->data, .n = x->n };
	struct lines_job j = { .x = x->data, .from = DT_FLOAT, .to = DT_UINT8, .n = x->n, .length = PIECE, .group = 1, .per = INT64_MAX,
	                       .along = INT64_MAX };
	int64_t pieces = (x->n + PIECE - 1) / PIECE;
	int threads = x->n < 4 * PIECE ? 1 : c->threads;
	struct linnet_error *e = c->e;
	float lo = 0, hi = 0, scale, from;
	uint8_t zero;

	TRY_NEW(r.range, c->scratch, pieces);
	parallel_for(threads, pieces, range_piece, &r);
	for (int64_t i = 0; i < pieces; i++) {
		lo = r.range[i][0] < lo ? r.range[i][0] : lo;
		hi = r.range[i][1] > hi ? r.range[i][1] : hi;
	}
	scale = (hi - lo) / 255;
	scale = scale == 0 ? 1 : scale;
	from = nearbyintf(-lo / scale);
	if (!(from <= 255))
		from = from > 255 ? 255 : 0; /* of infinite inputs */
	zero = (uint8_t)(int)from;
	if (c->out[1])
		*(float *)c->out[1]->data = scale;
	if (c->out[2])
		*(uint8_t *)c->out[2]->data = zero;
	if (!c->out[0])
		return LINNET_OK;
	j.y = c->out[0]->data;
	j.scale = &scale;
	j.zero = &zero;
	parallel_for(threads, pieces, lines_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(dynamic_quantize) = { .name = "quantize/dynamic", .run = dynamic_quantize_run };

/* ---- Cast ---- */

#define WHOLES (SET(INT8) | SET(UINT8) | SET(INT16) | SET(UINT16) | SET(INT32) | SET(UINT32) | SET(INT64) | SET(BOOL))

#define LOAD_INT(type)                                                                             \
	for (int64_t l = 0; l < n; l++)                                                            \
		to[l] = ((const type *)x)[i + l];                                                  \
	return;

static void load_int(enum dtype t, const void *x, int64_t i, int64_t n, int64_t *restrict to)
{
	switch (t) {
	case DT_INT8: LOAD_INT(int8_t)
	case DT_BOOL:
	case DT_UINT8: LOAD_INT(uint8_t)
	case DT_INT16: LOAD_INT(int16_t)
	case DT_UINT16: LOAD_INT(uint16_t)
	case DT_INT32: LOAD_INT(int32_t)
	case DT_UINT32: LOAD_INT(uint32_t)
	default: LOAD_INT(int64_t)
	}
}

#define STORE_INT(type)                                                                            \
	for (int64_t l = 0; l < n; l++)                                                            \
		((type *)y)[i + l] = (type)from[l];                                                \
	return;

static void store_int(enum dtype t, void *y, int64_t i, int64_t n, const int64_t *restrict from)
{
	switch (t) {
	case DT_BOOL:
		for (int64_t l = 0; l < n; l++)
			((uint8_t *)y)[i + l] = from[l] != 0;
		return;
	case DT_INT8:
	case DT_UINT8: STORE_INT(uint8_t)
	case DT_INT16:
	case DT_UINT16: STORE_INT(uint16_t)
	case DT_INT32:
	case DT_UINT32: STORE_INT(uint32_t)
	default: STORE_INT(int64_t)
	}
}

struct cast_job {
	const struct tensor *x;
	struct tensor *y;
};

static void cast_piece(void *ctx, int64_t piece)
{
	const struct cast_job *j = ctx;
	enum dtype from = j->x->dt, to = j->y->dt;
	int64_t end = (piece + 1) * PIECE < j->x->n ? (piece + 1) * PIECE : j->x->n, whole[BUFFER];
	bool from_real = dtype_class(from) == CLASS_FLOAT, to_real = dtype_class(to) == CLASS_FLOAT;
	float v[BUFFER];

	for (int64_t i = piece * PIECE; i < end; i += BUFFER) {
		int64_t n = end - i < BUFFER ? end - i : BUFFER;

		if (dtype_in(from, EXACT))
			load(from, j->x->data, i, n, v);
		else
			load_int(from, j->x->data, i, n, whole);
		if (to_real && !dtype_in(from, EXACT))
			for (int64_t l = 0; l < n; l++)
				v[l] = (float)whole[l];
		if (to_real || (from_real && to == DT_BOOL)) {
			store(to, j->y->data, i, n, v);
			continue;
		}
		if (dtype_in(from, EXACT))
			for (int64_t l = 0; l < n; l++) /* toward zero, NaN to 0, what is too large to the nearest end, as dtype_put() */
				whole[l] = v[l] >= 9223372036854775808.0F    ? INT64_MAX
				           : v[l] <= -9223372036854775808.0F ? INT64_MIN
				           : v[l] == v[l]                    ? (int64_t)v[l]
				                                             : 0;
		store_int(to, j->y->data, i, n, whole);
	}
}

static bool cast_ok(const struct kernel_call *c)
{
	enum dtype from = c->in[0]->dt, to = c->out[0]->dt;
	bool exact = dtype_in(from, EXACT);

	return from != to && ((exact && dtype_in(to, SET(FLOAT) | HALVES)) || (dtype_in(from, WHOLES) && to == DT_FLOAT) ||
	                      (exact && dtype_in(to, WHOLES)) || (dtype_in(from, WHOLES) && dtype_in(to, WHOLES)));
}

static enum linnet_code cast_run(struct kernel_call *c)
{
	struct cast_job j = { c->in[0], c->out[0] };

	parallel_for(j.x->n < 4 * PIECE ? 1 : c->threads, (j.x->n + PIECE - 1) / PIECE, cast_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(cast) = { .name = "cast", .ok = cast_ok, .run = cast_run };
