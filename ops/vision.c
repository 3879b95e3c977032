/* What images and boxes in them are prepared with: CenterCropPad, NonMaxSuppression. Reference kernels, then rows. */
#include "ops/kernel.h"

/* ---- CenterCropPad ---- */

static enum linnet_code center_crop_pad_shape(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	int axes[MAX_RANK], n, count;
	dim d[MAX_RANK];

	TRY(rank_check(c, 1, 1, 1));
	TRY(type_dims(c->in[1], d, MAX_RANK, &count, c->e));
	if (x->rank < 0)
		return LINNET_OK;
	TRY(axes_check(attr_get(c->op, c->attr, "axes"), x->rank, axes, &n, c->e));
	if (count >= 0 && count != n)
		return fail(c->e, LINNET_ESHAPE, "shape has %d elements for %d axes", count, n);
	c->out[0].shape = *x;
	for (int i = 0; i < n; i++) {
		if (count >= 0 && dim_is_int(d[i]) && d[i] < 0)
			return fail(c->e, LINNET_ESHAPE, "length of axis %d is %lld", axes[i], (long long)d[i]);
		c->out[0].shape.d[axes[i]] = count < 0 ? DIM_NONE : d[i];
	}
	return LINNET_OK;
}

/* Along an axis of length n that becomes m, the first of min(n, m) elements is at |n - m| / 2, rounded down, of the longer one. */
static enum linnet_code center_crop_pad(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	int64_t sx[MAX_RANK], sy[MAX_RANK], common[MAX_RANK], from = 0, to = 0;

	strides(x->rank, x->d, sx);
	strides(y->rank, y->d, sy);
	for (int64_t i = 0; i < y->n; i++)
		element_zero(y, i);
	for (int k = 0; k < x->rank; k++) {
		int64_t cut = x->d[k] - y->d[k];

		common[k] = cut > 0 ? y->d[k] : x->d[k];
		if (cut > 0)
			from += cut / 2 * sx[k];
		else
			to += -cut / 2 * sy[k];
	}
	if (x->n && y->n)
		copy_box(y, to, sy, x, from, sx, x->rank, common);
	return LINNET_OK;
}

/* n and m: lengths before and after; the axes are first padded to the longer of both. */
#define CROP_STEPS                                                                                 \
	"  n = Gather (lengths, axes)\n"                                                           \
	"  m = Cast <to = 7> (shape)\n"                                                            \
	"  two = Constant <value_ints = [2]> ()\n"                                                 \
	"  wide = Max (n, m)\n"                                                                    \
	"  more = Sub (wide, n)\n"                                                                 \
	"  before = Div (more, two)\n"                                                             \
	"  after = Sub (more, before)\n"                                                           \
	"  pads = Concat <axis = 0> (before, after)\n"                                             \
	"  padded = Pad (input_data, pads, , axes)\n"                                              \
	"  less = Sub (wide, m)\n"                                                                 \
	"  from = Div (less, two)\n"                                                               \
	"  to = Add (from, m)\n"                                                                   \
	"  output_data = Slice (padded, from, to, axes) }\n"

/* ---- NonMaxSuppression ---- */

enum { BOXES, SCORES, MAX_OUTPUT, IOU_THRESHOLD, SCORE_THRESHOLD };

/* A box along its two axes. */
struct box {
	double lo[2], hi[2];
};

static struct box box_at(const struct tensor *boxes, int64_t i, bool centered)
{
	struct box b;

	for (int k = 0; k < 2; k++) {
		double p = tensor_get(boxes, 4 * i + k), q = tensor_get(boxes, 4 * i + 2 + k);

		b.lo[k] = centered ? p - q / 2 : fmin(p, q);
		b.hi[k] = centered ? p + q / 2 : fmax(p, q);
	}
	return b;
}

static double area(const struct box *b) { return (b->hi[0] - b->lo[0]) * (b->hi[1] - b->lo[1]); }

/* Intersection over union, as a float: thresholds are floats, and what is equal to one is not above it. */
static float overlap(const struct box *a, const struct box *b)
{
	struct box both;
	double shared;

	for (int k = 0; k < 2; k++) {
		both.lo[k] = fmax(a->lo[k], b->lo[k]);
		both.hi[k] = fmin(a->hi[k], b->hi[k]);
		if (!(both.hi[k] > both.lo[k]))
			return 0;
	}
	shared = area(&both);
	return (float)(shared / (area(a) + area(b) - shared));
}

/* Scalar input i, or what is used when it is left out. */
static double scalar(const struct tensor *const *in, int nin, int i, double absent)
{
	return i < nin && in[i] && in[i]->n ? tensor_get(in[i], 0) : absent;
}

/*
 * For each batch and class: the box with the highest score (the first of equal ones) is selected and those that overlap it by more
 * than iou_threshold are gone; and so on among the rest. Boxes whose score is not above score_threshold never take part: the
 * operator's text removes those below it, all implementations also those at it. Rows [batch, class, box] go to out unless NULL.
 */
static enum linnet_code suppress(const struct op *op, const struct attr *attr, const struct tensor *const *in, int nin,
                                 struct tensor *out, struct arena *a, int64_t *count, struct linnet_error *e)
{
	bool centered = attr_get(op, attr, "center_point_box")->i;
	const struct tensor *boxes = in[BOXES], *scores = in[SCORES];
	double iou = scalar(in, nin, IOU_THRESHOLD, 0), least = scalar(in, nin, SCORE_THRESHOLD, NAN);
	int64_t most = nin > MAX_OUTPUT && in[MAX_OUTPUT] && in[MAX_OUTPUT]->n ? tensor_get_int(in[MAX_OUTPUT], 0) : 0;
	int64_t n = boxes->d[1], classes = scores->d[1];
	bool *out_of_it;

	*count = 0;
	if (!(iou >= 0 && iou <= 1))
		return fail(e, LINNET_EVALUE, "iou_threshold is %g; expected 0 to 1", iou);
	TRY_NEW(out_of_it, a, n);
	for (int64_t line = 0; n && line < boxes->d[0] * classes; line++) {
		int64_t first = line / classes * n;

		for (int64_t i = 0; i < n; i++)
			out_of_it[i] = !isnan(least) && !(tensor_get(scores, line * n + i) > least);
		for (int64_t picked = 0; picked < most; picked++) {
			int64_t best = -1;
			struct box b;

			for (int64_t i = 0; i < n; i++) {
				double s = tensor_get(scores, line * n + i), high = best < 0 ? NAN : tensor_get(scores, line * n + best);

				if (!out_of_it[i] && (best < 0 || s > high || (isnan(high) && !isnan(s))))
					best = i;
			}
			if (best < 0)
				break;
			if (out) {
				tensor_put_int(out, 3 * *count, line / classes);
				tensor_put_int(out, 3 * *count + 1, line % classes);
				tensor_put_int(out, 3 * *count + 2, best);
			}
			++*count;
			out_of_it[best] = true;
			b = box_at(boxes, first + best, centered);
			for (int64_t i = 0; i < n; i++) {
				struct box other = box_at(boxes, first + i, centered);

				out_of_it[i] |= (double)overlap(&b, &other) > iou;
			}
		}
	}
	return LINNET_OK;
}

/* boxes: [B, N, 4]  scores: [B, classes, N]  selected_indices: [as many as there are, 3] */
static enum linnet_code suppression_shape(struct shape_call *c)
{
	const struct shape *boxes = &c->in[BOXES]->shape, *scores = &c->in[SCORES]->shape;
	const struct tensor *in[5] = { NULL };
	bool known = true;
	int64_t n = 0;

	TRY(rank_check(c, BOXES, 3, 3));
	TRY(rank_check(c, SCORES, 3, 3));
	if (boxes->rank == 3)
		TRY(length_join(c, "number of coordinates of a box and that expected", boxes->d[2], 4, NULL));
	if (boxes->rank == 3 && scores->rank == 3) {
		TRY(length_join(c, "batch lengths of boxes and scores", boxes->d[0], scores->d[0], NULL));
		TRY(length_join(c, "numbers of boxes and scores", boxes->d[1], scores->d[2], NULL));
	}
	for (int i = 0; i < c->nin; i++) {
		if (i >= MAX_OUTPUT)
			TRY(scalar_check(c, i));
		known &= !c->in[i] || c->in[i]->value;
		in[i] = c->in[i] ? c->in[i]->value : NULL;
	}
	c->out[0].shape = (struct shape){ .rank = 2, .d = { DIM_NONE, 3 } };
	if (c->nin <= MAX_OUTPUT || !c->in[MAX_OUTPUT] || (in[MAX_OUTPUT] && in[MAX_OUTPUT]->n && tensor_get_int(in[MAX_OUTPUT], 0) <= 0)) {
		c->out[0].shape.d[0] = 0;
	} else if (known) {
		struct arena *a = arena_new();
		enum linnet_code code = a ? suppress(c->op, c->attr, in, c->nin, NULL, a, &n, c->e) : fail_mem(c->e);

		arena_free(a);
		TRY(code);
		c->out[0].shape.d[0] = n;
	}
	return LINNET_OK;
}

static enum linnet_code suppression(struct kernel_call *c)
{
	int64_t n;

	return suppress(c->op, c->attr, c->in, c->nin, c->out[0], c->scratch, &n, c->e);
}

static const struct op rows[] = {
	{
		.name = "CenterCropPad", .since = 18,
		.doc = "The middle of the input, or the input in the middle of zeros, so that its axes have given lengths.",
		.in = IN({ "input_data", T, FLOW_LINEAR }, { "shape", T1 }),
		.out = OUT({ "output_data", T }),
		.attr = ATTRS({ .name = "axes", .kind = ATTR_INTS, .flags = OPTIONAL }),
		.types = { [T] = COMMON, [T1] = INDICES },
		.agree = AGREE_BITS,
		.shape = center_crop_pad_shape, .kernel = center_crop_pad,
		.body = "?axes\n"
		        "{ lengths = Shape (input_data)\n"
		        "  axes = Constant <value_ints: ints = @axes> ()\n" CROP_STEPS
		        "{ lengths = Shape (input_data)\n"
		        "  rank = Size (lengths)\n"
		        "  zero = Constant <value_int = 0> ()\n"
		        "  one = Constant <value_int = 1> ()\n"
		        "  axes = Range (zero, rank, one)\n" CROP_STEPS,
	},
	{
		.name = "NonMaxSuppression", .since = 10,
		.doc = "Of boxes that overlap, those with the highest scores, class by class.",
		.in = IN({ "boxes", T, FLOW_NONE }, { "scores", T, FLOW_NONE }, { "max_output_boxes_per_class", T1, FLOW_NONE, OPTIONAL },
		         { "iou_threshold", T, FLOW_NONE, OPTIONAL }, { "score_threshold", T, FLOW_NONE, OPTIONAL }),
		.out = OUT({ "selected_indices", T1 }),
		.attr = ATTRS({ .name = "center_point_box", .kind = ATTR_INT, .lo = 0, .hi = 1 }),
		.types = { [T] = SET(FLOAT), [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = suppression_shape, .kernel = suppression,
	},
};

const struct op_family vision_ops = FAMILY("vision", rows);
