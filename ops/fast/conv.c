/*
 * Convolution in float32 of 1 to 3 spatial axes, and its transpose.
 *
 * In general: for a tile of output positions the elements under the window are laid out as rows, one a position, and multiplied by the weights,
 * through BLAS, or by dot products when there are few positions. Windows of one tap without stride need no rows. Groups of one channel are done
 * tap by tap along the last axis, which memory bounds; the rest is bound by arithmetic. The transpose multiplies first and adds what each position
 * makes to where its window lies.
 */
#include <string.h>

#include "ops/base/thread.h"
#include "ops/blas.h"
#include "ops/fast/dot.h"
#include "ops/fast/fast.h"
#include "ops/window.h"

/* Floats of rows a tile; positions done by dots; output channels a piece when there are few tiles; and a group, of one input channel, done by taps; floats
 * of such channels together, in and out. */
enum { ROOM = 1 << 16, FEW = 6, BLOCK = 64, DEPTH = 4, CACHED = 1 << 12 };

struct conv_job {
	const float *x, *w, *bias;
	float *y, *room;
	struct window win;            /* of the transpose: that of the convolution which it transposes, from y to x */
	bool back;                    /* the transpose */
	int64_t batch, groups, C, M;  /* channels a group, in and out */
	int64_t plane, taps, K, P;    /* elements under all windows, of one channel; taps; C taps; positions of the window */
	int64_t tile, tiles, blocks, block; /* positions a tile (the transpose's pieces go through tiles of so many lines); tiles; blocks of
	                                     * output channels, of so many */
	int64_t pieces, slots, space; /* each slot does every slots-th piece in its own part of the room, of so many floats */
	struct tap *tap;              /* [taps]; where taps go one by one */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Row p - from: the elements under the window at position p, by channel and tap; zeros where it reaches beyond the input. */
static void lay_out(const struct conv_job *j, const float *x, int64_t from, int64_t to, float *restrict row)
{
	const struct window *w = &j->win;

	for (int64_t p = from; p < to; p++, row += j->K) {
		int64_t o[3] = { p / w->out[2] / w->out[1], p / w->out[2] % w->out[1], p % w->out[2] }, at[3];
		struct span s[3];
		bool whole = true;

		for (int k = 0; k < 3; k++) {
			s[k] = window_inside(w, k, o[k], w->in[k]);
			at[k] = o[k] * w->stride[k] - w->begin[k];
			whole = whole && s[k].from == 0 && s[k].to == w->taps[k];
		}
		if (!whole)
			memset(row, 0, (size_t)j->K * sizeof *row);
		for (int64_t c = 0; c < j->C; c++) {
			const float *px = x + c * j->plane;
			float *to_row = row + c * j->taps;

			for (int64_t k0 = s[0].from; k0 < s[0].to; k0++)
				for (int64_t k1 = s[1].from; k1 < s[1].to; k1++) {
					const float *line = px + at3(w->in, at[0] + k0 * w->dilation[0], at[1] + k1 * w->dilation[1], 0);
					float *taps = to_row + at3(w->taps, k0, k1, 0);

					for (int64_t k2 = s[2].from; k2 < s[2].to; k2++)
						taps[k2] = line[at[2] + k2 * w->dilation[2]];
				}
		}
	}
}

/* Output channels [m0, m1) of group g of sample n, at the positions of a tile. */
static void general_piece(const struct conv_job *j, int64_t n, int64_t g, int64_t m0, int64_t m1, int64_t tile, float *room)
{
	int64_t from = tile * j->tile, to = least(from + j->tile, j->P), count = to - from;
	const float *x = j->x + (n * j->groups + g) * j->C * j->plane, *w = j->w + (g * j->M + m0) * j->K;
	float *y = j->y + ((n * j->groups + g) * j->M + m0) * j->P + from;
	const struct window *win = &j->win;
	bool plain = j->taps == 1 && j->P == j->plane;

	for (int k = 0; k < 3; k++)
		plain = plain && win->stride[k] == 1 && !win->begin[k];
	if (plain && count > FEW) {
		blas_sgemm(false, false, m1 - m0, count, j->C, 1, w, j->K, x + from, j->plane, 0, y, j->P);
	} else {
		lay_out(j, x, from, to, room);
		if (count > FEW)
			blas_sgemm(false, true, m1 - m0, count, j->K, 1, w, j->K, room, j->K, 0, y, j->P);
		else
			for (int64_t m = 0; m < m1 - m0; m++)
				for (int64_t p = 0; p < count; p++)
					y[m * j->P + p] = dot(w + m * j->K, room + p * j->K, j->K);
	}
	for (int64_t m = 0; j->bias && m < m1 - m0; m++)
		for (int64_t p = 0; p < count; p++)
			y[m * j->P + p] += j->bias[g * j->M + m0 + m];
}

static void fill(float *restrict y, int64_t n, float x)
{
	for (int64_t i = 0; i < n; i++)
		y[i] = x;
}

/* Of one tap: the positions of the window at which it reads something, and what it reads at the first position of all, there or not. */
struct tap {
	struct span s[3];
	int64_t at;
};

static enum linnet_code read_taps(struct conv_job *j, struct kernel_call *c)
{
	const struct window *w = &j->win;
	struct linnet_error *e = c->e;

	TRY_NEW(j->tap, c->scratch, j->taps);
	for (int64_t t = 0; t < j->taps; t++) {
		int64_t k[3] = { t / w->taps[2] / w->taps[1], t / w->taps[2] % w->taps[1], t % w->taps[2] }, at[3];

		for (int i = 0; i < 3; i++) {
			j->tap[t].s[i] = window_readers(w, i, k[i]);
			at[i] = k[i] * w->dilation[i] - w->begin[i];
		}
		j->tap[t].at = at3(w->in, at[0], at[1], at[2]);
	}
	return LINNET_OK;
}

/* The lines of a tap: at the window's positions, and, `stride` apart, what it reads there. */
struct line {
	int64_t narrow, wide, n, stride;
};

/* The tap's next pair of lines, of rows from `row` on, for lengths [rows] = out[0] out[1]; -1 behind the last. */
static int64_t next_line(const struct window *w, const struct tap *t, int64_t row, struct line *l)
{
	const struct span *s = t->s;

	for (; s[2].from < s[2].to && row < w->out[0] * w->out[1]; row++) {
		int64_t o0 = row / w->out[1], o1 = row % w->out[1];

		if (o0 < s[0].from || o0 >= s[0].to || o1 < s[1].from || o1 >= s[1].to)
			continue;
		l->narrow = row * w->out[2] + s[2].from;
		l->wide = t->at + at3(w->in, o0 * w->stride[0], o1 * w->stride[1], s[2].from * w->stride[2]);
		l->n = s[2].to - s[2].from;
		l->stride = w->stride[2];
		return row;
	}
	return -1;
}

/* narrow += f wide */
static void gather_line(float *restrict narrow, const float *restrict wide, const struct line *l, float f)
{
	if (l->stride == 1)
		for (int64_t o = 0; o < l->n; o++)
			narrow[o] += f * wide[o];
	else
		for (int64_t o = 0; o < l->n; o++)
			narrow[o] += f * wide[o * l->stride];
}

/* wide += f narrow */
static void scatter_line(const float *restrict narrow, float *restrict wide, const struct line *l, float f)
{
	if (l->stride == 1)
		for (int64_t o = 0; o < l->n; o++)
			wide[o] += f * narrow[o];
	else
		for (int64_t o = 0; o < l->n; o++)
			wide[o * l->stride] += f * narrow[o];
}

/* Output channels [m0, m1) of all, a sample's behind another's, of one input channel each, tap by tap. */
static void depth_channels(const struct conv_job *j, int64_t m0, int64_t m1)
{
	const struct window *w = &j->win;
	int64_t nx = j->back ? j->P : j->plane, ny = j->back ? j->plane : j->P, row;
	struct line l;

	for (int64_t m = m0; m < m1; m++)
		fill(j->y + m * ny, ny, j->bias ? j->bias[m % (j->groups * j->M)] : 0);
	for (int64_t t = 0; t < j->taps; t++)
		for (row = 0; (row = next_line(w, &j->tap[t], row, &l)) >= 0; row++)
			for (int64_t m = m0; m < m1; m++) {
				const float *x = j->x + m / j->M * nx;
				float *y = j->y + m * ny, f = j->w[m % (j->groups * j->M) * j->taps + t];

				if (j->back)
					scatter_line(x + l.narrow, y + l.wide, &l, f);
				else
					gather_line(y + l.narrow, x + l.wide, &l, f);
			}
}

/* Output channels [m0, m1) of group g of sample n of the transpose. */
static void back_piece(const struct conv_job *j, int64_t n, int64_t g, int64_t m0, int64_t m1, float *room)
{
	const struct window *w = &j->win;
	const float *x = j->x + (n * j->groups + g) * j->C * j->P, *weight = j->w + (g * j->C * j->M + m0) * j->taps;
	int64_t rows = (m1 - m0) * j->taps;
	float *y = j->y + ((n * j->groups + g) * j->M + m0) * j->plane;

	for (int64_t m = 0; m < m1 - m0; m++)
		fill(y + m * j->plane, j->plane, j->bias ? j->bias[g * j->M + m0 + m] : 0);
	for (int64_t line0 = 0; line0 < w->out[0] * w->out[1]; line0 += j->tile) {
		int64_t line1 = least(line0 + j->tile, w->out[0] * w->out[1]), from = line0 * w->out[2], count = (line1 - line0) * w->out[2];

		blas_sgemm(true, false, rows, count, j->C, 1, weight, j->M * j->taps, x + from, j->P, 0, room, count);
		for (int64_t i = 0; i < rows; i++) {
			struct line l;

			for (int64_t row = line0; (row = next_line(w, &j->tap[i % j->taps], row, &l)) >= 0 && row < line1; row++)
				scatter_line(room + i * count + l.narrow - from, y + i / j->taps * j->plane + l.wide, &l, 1);
		}
	}
}

static void conv_slot(void *ctx, int64_t slot)
{
	const struct conv_job *j = ctx;

	for (int64_t i = slot; i < j->pieces; i += j->slots) {
		int64_t tile = i % j->tiles, block = i / j->tiles % j->blocks, g = i / j->tiles / j->blocks % j->groups;
		int64_t n = i / j->tiles / j->blocks / j->groups, m0 = block * j->block, m1 = least(m0 + j->block, j->M);
		float *room = j->room + slot * j->space;

		if (j->back)
			back_piece(j, n, g, m0, m1, room);
		else
			general_piece(j, n, g, m0, m1, tile, room);
	}
}

static void depth_piece(void *ctx, int64_t i)
{
	const struct conv_job *j = ctx;

	depth_channels(j, i * j->block, least((i + 1) * j->block, j->batch * j->groups * j->M));
}

static bool conv_ok(const struct kernel_call *c)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && c->in[i]->dt != DT_FLOAT)
			return false;
	return true;
}

static enum linnet_code run(struct kernel_call *c, bool back)
{
	const struct tensor *x = c->in[0], *k = c->in[1];
	struct shape sx = shape_of(x), sk = shape_of(k);
	struct conv_job j = { .x = x->data, .w = k->data, .bias = c->nin > 2 && c->in[2] ? c->in[2]->data : NULL, .y = c->out[0]->data,
	                      .back = back, .batch = x->d[0], .groups = attr_get(c->op, c->attr, "group")->i };
	struct window *w = &j.win;
	struct linnet_error *e = c->e;
	int threads = c->threads;

	if (!c->out[0]->n)
		return LINNET_OK;
	TRY(window_read(c->op, c->attr, &sx, &sk, w, e));
	TRY(back ? window_spread(NULL, c->op, c->attr, w, e) : window_slide(NULL, c->op, c->attr, w, e));
	for (int i = 0; i < 3 && back; i++) {
		int64_t in = w->in[i];

		w->in[i] = w->out[i];
		w->out[i] = in;
	}
	j.C = back ? k->d[0] / j.groups : k->d[1];
	j.M = back ? k->d[1] : k->d[0] / j.groups;
	j.plane = w->in[0] * w->in[1] * w->in[2];
	j.taps = w->taps[0] * w->taps[1] * w->taps[2];
	j.K = j.C * j.taps;
	j.P = w->out[0] * w->out[1] * w->out[2];
	if (c->out[0]->n * j.K < 1 << 15)
		threads = 1;
	if (back || (j.C == 1 && j.M <= DEPTH))
		TRY(read_taps(&j, c));
	if (j.C == 1 && j.M <= DEPTH) {
		j.block = 1 + CACHED / (j.plane + j.P + 1);
		parallel_for(threads, (j.batch * j.groups * j.M + j.block - 1) / j.block, depth_piece, &j);
		return LINNET_OK;
	}
	if (back) {
		j.block = j.batch * j.groups < 8 ? (j.M + 7) / 8 : j.M;
		j.tile = ROOM / (j.block * j.taps * w->out[2] + 1);
		j.tile = j.tile < 1 ? 1 : least(j.tile, w->out[0] * w->out[1]);
		j.tiles = 1;
		j.space = j.block * j.taps * j.tile * w->out[2];
	} else {
		j.tile = j.K ? ROOM / j.K : j.P;
		j.tile = j.tile < 16 ? 16 : j.tile > 512 ? 512 : j.tile;
		j.tile = least(j.tile, j.P);
		j.tiles = (j.P + j.tile - 1) / j.tile;
		j.block = j.batch * j.groups * j.tiles < 8 ? BLOCK : j.M;
		j.space = j.tile * j.K;
	}
	j.blocks = (j.M + j.block - 1) / j.block;
	j.pieces = j.batch * j.groups * j.blocks * j.tiles;
	j.slots = least(j.pieces, threads);
	TRY_NEW(j.room, c->scratch, j.slots * j.space);
	parallel_for(threads, j.slots, conv_slot, &j);
	return LINNET_OK;
}

static enum linnet_code conv_run(struct kernel_call *c) { return run(c, false); }
static enum linnet_code conv_transpose_run(struct kernel_call *c) { return run(c, true); }

const struct fast FAST_KERNEL(conv) = { .name = "conv/float", .ok = conv_ok, .run = conv_run };
const struct fast FAST_KERNEL(conv_transpose) = { .name = "conv_transpose/float", .ok = conv_ok, .run = conv_transpose_run };
