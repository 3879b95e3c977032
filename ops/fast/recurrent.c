/*
 * RNN, GRU and LSTM in float32 with their usual activation functions.
 *
 * A piece of work is one direction of a few samples. Inputs are multiplied for a stretch of steps at a time, by BLAS; then each step
 * multiplies the states by R, whose rows are read once for all samples of the piece. Where R fits the second cache arithmetic bounds a step, else
 * memory does.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/blas.h"
#include "ops/fast/dot.h"
#include "ops/fast/fast.h"
#include "ops/fast/vmath.h"

VARRAY(exp)
VARRAY(tanh)

/* Samples a piece, most steps at a time, floats for them; rows multiplied without BLAS. */
enum { SAMPLES = 8, STRETCH = 64, ROOM = 1 << 16, FEW = 8 };
enum { CELL_RNN = 1, CELL_GRU = 3, CELL_LSTM = 4 };  /* their gates */

struct recurrent_job {
	const struct tensor *lengths;
	const float *x, *w, *r, *bias, *h0, *c0, *p;
	float *y, *last_h, *last_c, *room;
	int64_t steps, samples, inputs, n, directions, groups, stretch; /* groups: of samples */
	int gates;
	bool samples_first, reverse, linear_before_reset;
};

/* Room of a piece: inputs and products of a stretch, products of a step, states. */
static int64_t room_of(const struct recurrent_job *j)
{
	int64_t rows = j->stretch * SAMPLES, G = j->gates * j->n;

	return rows * (j->inputs + G) + SAMPLES * (G + 3 * j->n);
}

static int64_t count_of(const struct recurrent_job *j, int64_t b)
{
	return j->lengths ? tensor_get_int(j->lengths, b) : j->steps;
}

/* The sum of sixteen lanes. */
static float lanes(float *s)
{
	for (int w = 8; w; w /= 2)
		for (int l = 0; l < w; l++)
			s[l] += s[l + w];
	return s[0];
}

/* Four rows n apart at a time: the element of h is loaded once for them. */
static void four_dots(const float *restrict m, const float *restrict h, int64_t n, float *restrict y)
{
	const float *restrict m1 = m + n, *restrict m2 = m1 + n, *restrict m3 = m2 + n;
	float s0[16] = { 0 }, s1[16] = { 0 }, s2[16] = { 0 }, s3[16] = { 0 };
	int64_t i = 0;

	for (; i + 16 <= n; i += 16)
		for (int l = 0; l < 16; l++) {
			s0[l] += m[i + l] * h[i + l];
			s1[l] += m1[i + l] * h[i + l];
			s2[l] += m2[i + l] * h[i + l];
			s3[l] += m3[i + l] * h[i + l];
		}
	for (; i < n; i++) {
		s0[0] += m[i] * h[i];
		s1[0] += m1[i] * h[i];
		s2[0] += m2[i] * h[i];
		s3[0] += m3[i] * h[i];
	}
	y[0] = lanes(s0);
	y[1] = lanes(s1);
	y[2] = lanes(s2);
	y[3] = lanes(s3);
}

/* y[s] [rows] = m [rows, n] h[s] for each sample, y ldy apart; up to `few` of them by dot products, which BLAS is slow at. */
static void multiply(const float *m, const float *h, int64_t rows, int64_t n, int64_t samples, int64_t few, float *y, int64_t ldy)
{
	if (samples > few) {
		blas_sgemm(false, true, samples, rows, n, 1, h, n, m, n, 0, y, ldy);
		return;
	}
	for (int64_t i = 0; i < rows; i += 4)
		for (int64_t s = 0; s < samples; s++)
			if (i + 4 <= rows)
				four_dots(m + i * n, h + s * n, n, y + s * ldy + i);
			else
				for (int64_t k = i; k < rows; k++)
					y[s * ldy + k] = dot(m + k * n, h + s * n, n);
}

static void sigmoid(float *x, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		x[i] = -x[i];
	v_exp(x, x, n);
	for (int64_t i = 0; i < n; i++)
		x[i] = 1 / (1 + x[i]);
}

/* H' = tanh(x + h) */
static void rnn_step(const float *restrict x, const float *restrict hr, float *restrict h, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		h[i] = x[i] + hr[i];
	v_tanh(h, h, n);
}

/* Gates i, o, f, c; p: peepholes [3, n] or NULL; g: room for 4 n. */
static void lstm_step(const float *restrict x, float *restrict g, float *restrict h, float *restrict c, const float *p, int64_t n)
{
	for (int64_t i = 0; i < 4 * n; i++)
		g[i] += x[i];
	if (p)
		for (int64_t i = 0; i < n; i++) {
			g[i] += p[i] * c[i];
			g[2 * n + i] += p[2 * n + i] * c[i];
		}
	sigmoid(g, p ? n : 3 * n);
	if (p)
		sigmoid(g + 2 * n, n);
	v_tanh(g + 3 * n, g + 3 * n, n);
	for (int64_t i = 0; i < n; i++)
		c[i] = g[2 * n + i] * c[i] + g[i] * g[3 * n + i];
	if (p) {
		for (int64_t i = 0; i < n; i++)
			g[n + i] += p[n + i] * c[i];
		sigmoid(g + n, n);
	}
	v_tanh(h, c, n);
	for (int64_t i = 0; i < n; i++)
		h[i] *= g[n + i];
}

/* z, r and the candidate; g: products with R, [3 n]; rh: room; bias of R for the candidate, or NULL. */
static void gru_step(const struct recurrent_job *j, const float *restrict x, float *restrict g, float *restrict h, float *restrict rh,
                     const float *r, const float *bias, int64_t n)
{
	for (int64_t i = 0; i < 2 * n; i++)
		g[i] += x[i];
	sigmoid(g, 2 * n);
	if (j->linear_before_reset) {
		for (int64_t i = 0; i < n; i++)
			rh[i] = x[2 * n + i] + g[n + i] * (g[2 * n + i] + (bias ? bias[i] : 0));
	} else {
		for (int64_t i = 0; i < n; i++)
			rh[i] = g[n + i] * h[i];
		multiply(r + 2 * n * n, rh, n, n, 1, 1, g + 2 * n, n);
		for (int64_t i = 0; i < n; i++)
			rh[i] = x[2 * n + i] + g[2 * n + i];
	}
	v_tanh(rh, rh, n);
	for (int64_t i = 0; i < n; i++)
		h[i] = (1 - g[i]) * rh[i] + g[i] * h[i];
}

/* What both biases add to the products with X: all but R's for the candidate of a GRU that resets after the product. */
static float bias_at(const struct recurrent_job *j, const float *bias, int64_t i)
{
	int64_t G = j->gates * j->n;
	bool apart = j->gates == CELL_GRU && j->linear_before_reset && i >= 2 * j->n;

	return bias ? bias[i] + (apart ? 0 : bias[G + i]) : 0;
}

static void recurrent_piece(void *ctx, int64_t piece)
{
	const struct recurrent_job *j = ctx;
	int64_t d = piece / j->groups, b0 = piece % j->groups * SAMPLES, n = j->n, G = j->gates * n, longest = 0;
	int64_t samples = j->samples - b0 < SAMPLES ? j->samples - b0 : SAMPLES;
	const float *w = j->w + d * G * j->inputs, *r = j->r + d * G * n, *bias = j->bias ? j->bias + d * 2 * G : NULL;
	const float *p = j->p ? j->p + d * 3 * n : NULL;
	float *in = j->room + piece * room_of(j), *xw = in + j->stretch * SAMPLES * j->inputs, *g = xw + j->stretch * SAMPLES * G;
	float *h = g + SAMPLES * G, *c = h + SAMPLES * n, *rh = c + SAMPLES * n;

	for (int64_t s = 0; s < samples; s++) {
		int64_t at = (j->samples_first ? (b0 + s) * j->directions + d : d * j->samples + b0 + s) * n, count = count_of(j, b0 + s);

		longest = count > longest ? count : longest;
		for (int64_t i = 0; i < n; i++) {
			h[s * n + i] = j->h0 ? j->h0[at + i] : 0;
			c[s * n + i] = j->c0 ? j->c0[at + i] : 0;
		}
	}
	for (int64_t k0 = 0; k0 < longest; k0 += j->stretch) {
		int64_t m = longest - k0 < j->stretch ? longest - k0 : j->stretch;

		for (int64_t k = 0; k < m; k++)
			for (int64_t s = 0; s < samples; s++) {
				int64_t b = b0 + s, count = count_of(j, b), t = j->reverse || d ? count - 1 - (k0 + k) : k0 + k;
				float *to = in + (k * samples + s) * j->inputs;

				if (k0 + k < count)
					memcpy(to, j->x + (j->samples_first ? b * j->steps + t : t * j->samples + b) * j->inputs, (size_t)j->inputs * sizeof *to);
				else
					memset(to, 0, (size_t)j->inputs * sizeof *to);
			}
		multiply(w, in, G, j->inputs, m * samples, FEW, xw, G);
		for (int64_t i = 0; bias && i < G; i++) {
			float add = bias_at(j, bias, i);

			for (int64_t row = 0; row < m * samples; row++)
				xw[row * G + i] += add;
		}
		for (int64_t k = 0; k < m; k++) {
			/* a GRU that resets before the product takes the candidate's rows of R later */
			multiply(r, h, j->gates == CELL_GRU && !j->linear_before_reset ? 2 * n : G, n, samples, FEW / 2, g, G);
			for (int64_t s = 0; s < samples; s++) {
				int64_t b = b0 + s, count = count_of(j, b), t = j->reverse || d ? count - 1 - (k0 + k) : k0 + k;
				const float *x = xw + (k * samples + s) * G;

				if (k0 + k >= count)
					continue;
				if (j->gates == CELL_LSTM)
					lstm_step(x, g + s * G, h + s * n, c + s * n, p, n);
				else if (j->gates == CELL_GRU)
					gru_step(j, x, g + s * G, h + s * n, rh, r, bias ? bias + G + 2 * n : NULL, n);
				else
					rnn_step(x, g + s * G, h + s * n, n);
				if (j->y)
					memcpy(j->y + (j->samples_first ? (b * j->steps + t) * j->directions + d : (t * j->directions + d) * j->samples + b) * n,
					       h + s * n, (size_t)n * sizeof *h);
			}
		}
	}
	for (int64_t s = 0; s < samples; s++) {
		int64_t at = (j->samples_first ? (b0 + s) * j->directions + d : d * j->samples + b0 + s) * n;

		if (j->last_h)
			memcpy(j->last_h + at, h + s * n, (size_t)n * sizeof *h);
		if (j->last_c)
			memcpy(j->last_c + at, c + s * n, (size_t)n * sizeof *c);
	}
}

/* Floats, the usual functions, no clipping, no gate taken from another. */
static bool recurrent_ok(const struct kernel_call *c)
{
	int coupled = op_attr_index(c->op, "input_forget");

	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && i != 4 && c->in[i]->dt != DT_FLOAT)
			return false;
	return !attr_given(attr_get(c->op, c->attr, "activations")) && !attr_given(attr_get(c->op, c->attr, "clip")) &&
	       (coupled < 0 || !c->attr[coupled].i);
}

static const float *numbers(const struct kernel_call *c, int i)
{
	return i < c->nin && c->in[i] ? c->in[i]->data : NULL;
}

static float *result(const struct kernel_call *c, int i)
{
	return i < c->nout && c->out[i] ? c->out[i]->data : NULL;
}

static enum linnet_code recurrent_run(struct kernel_call *c)
{
	struct linnet_error *e = c->e;
	const struct text direction = attr_get(c->op, c->attr, "direction")->s;
	int reset = op_attr_index(c->op, "linear_before_reset");
	struct recurrent_job j = { .x = numbers(c, 0), .w = numbers(c, 1), .r = numbers(c, 2), .bias = numbers(c, 3), .h0 = numbers(c, 5),
	                           .lengths = c->nin > 4 ? c->in[4] : NULL, .y = result(c, 0), .last_h = result(c, 1),
	                           .samples_first = attr_get(c->op, c->attr, "layout")->i != 0, .reverse = direction.p[0] == 'r',
	                           .directions = direction.p[0] == 'b' ? 2 : 1, .linear_before_reset = reset >= 0 && c->attr[reset].i,
	                           .n = c->in[2]->d[2], .inputs = c->in[0]->d[2] };
	int64_t width;

	j.gates = j.n ? (int)(c->in[2]->d[1] / j.n) : 0;
	j.steps = c->in[0]->d[j.samples_first];
	j.samples = c->in[0]->d[!j.samples_first];
	if (j.gates == CELL_LSTM) {
		j.c0 = numbers(c, 6);
		j.p = numbers(c, 7);
		j.last_c = result(c, 2);
	}
	for (int64_t b = 0; j.lengths && b < j.samples; b++)
		if (count_of(&j, b) < 0 || count_of(&j, b) > j.steps)
			return c->op->kernel(c); /* which says so */
	if (j.y && c->out[0]->bytes)
		memset(j.y, 0, c->out[0]->bytes);
	if (!j.samples || !j.n)
		return LINNET_OK;
	width = SAMPLES * (j.inputs + j.gates * j.n);
	j.stretch = ROOM / width < 1 ? 1 : ROOM / width > STRETCH ? STRETCH : ROOM / width;
	j.groups = (j.samples + SAMPLES - 1) / SAMPLES;
	TRY_NEW(j.room, c->scratch, j.directions * j.groups * room_of(&j));
	parallel_for(c->threads, j.directions * j.groups, recurrent_piece, &j);
	return LINNET_OK;
}

const struct fast FAST_KERNEL(recurrent) = { .name = "recurrent/float", .ok = recurrent_ok, .run = recurrent_run };
