/* A window sliding over space: its lengths, padding and the parts of it that lie inside. */
#include <string.h>

#include "ops/window.h"

int64_t list_item(const struct attr *a, int i, int64_t absent)
{
	return a->n ? a->ints[i] : absent;
}

enum linnet_code list_check(const struct attr *a, int n, struct linnet_error *e)
{
	if (a->n == 0 || a->n == (size_t)n)
		return LINNET_OK;
	return fail(e, LINNET_EATTR, "attribute \"%s\" has %zu elements; expected %d", a->name, a->n, n);
}

enum linnet_code window_read(const struct op *op, const struct attr *attr, const struct shape *x,
                             const struct shape *kernel, struct window *w, struct linnet_error *e)
{
	const struct attr *taps = attr_get(op, attr, "kernel_shape"), *stride = attr_get(op, attr, "strides");
	const struct attr *dilation = attr_get(op, attr, "dilations"), *pads = attr_get(op, attr, "pads");
	int n = x->rank - 2, skip = SPACE - n;

	if (n < 1 || n > SPACE)
		return fail(e, LINNET_EUNSUPPORTED, "input \"X\" has rank %d; expected 3 to %d", x->rank, SPACE + 2);
	TRY(list_check(taps, n, e));
	TRY(list_check(stride, n, e));
	TRY(list_check(dilation, n, e));
	TRY(list_check(pads, 2 * n, e));
	w->n = n;
	for (int i = 0; i < skip; i++) {
		w->in[i] = w->taps[i] = w->out[i] = 1;
		w->stride[i] = w->dilation[i] = 1;
		w->begin[i] = w->end[i] = 0;
	}
	for (int i = 0; i < n; i++) {
		w->in[skip + i] = x->d[2 + i];
		w->taps[skip + i] = list_item(taps, i, kernel ? kernel->d[2 + i] : 1);
		w->stride[skip + i] = list_item(stride, i, 1);
		w->dilation[skip + i] = list_item(dilation, i, 1);
		w->begin[skip + i] = list_item(pads, i, 0);
		w->end[skip + i] = list_item(pads, n + i, 0);
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

enum linnet_code window_slide(struct dims *t, const struct op *op, const struct attr *attr, struct window *w,
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

enum linnet_code window_spread(struct dims *t, const struct op *op, const struct attr *attr, struct window *w,
                               struct linnet_error *e)
{
	const struct attr *more = attr_get(op, attr, "output_padding"), *shape = attr_get(op, attr, "output_shape");
	enum padding pad = padding_of(op, attr);

	TRY(list_check(more, w->n, e));
	TRY(list_check(shape, w->n, e));
	for (int i = SPACE - w->n, k = 0; i < SPACE; i++, k++) {
		dim full = dim_add(t, dim_mul(t, dim_sub(t, w->in[i], 1), w->stride[i]),
		                   dim_add(t, extent(t, w, i), list_item(more, k, 0)));
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

void window_output(struct shape_call *c, dim channels, const struct window *w)
{
	for (int i = 0; i < c->nout; i++) {
		struct shape *s = &c->out[i].shape;

		s->rank = 2 + w->n;
		s->d[0] = c->in[0]->shape.d[0];
		s->d[1] = channels;
		memcpy(s->d + 2, w->out + SPACE - w->n, (size_t)w->n * sizeof *s->d);
	}
}

struct span window_inside(const struct window *w, int axis, int64_t o, int64_t length)
{
	int64_t start = o * w->stride[axis] - w->begin[axis], step = w->dilation[axis];
	struct span s = { start < 0 ? (-start + step - 1) / step : 0, length > start ? (length - start + step - 1) / step : 0 };

	s.to = s.to < w->taps[axis] ? s.to : w->taps[axis];
	return s;
}

struct span window_readers(const struct window *w, int axis, int64_t k)
{
	int64_t shift = w->begin[axis] - k * w->dilation[axis], s = w->stride[axis]; /* o s - shift in [0, in) */
	int64_t from = shift <= 0 ? 0 : (shift + s - 1) / s, last = w->in[axis] - 1 + shift;
	int64_t to = last < 0 ? 0 : last / s + 1, out = w->out[axis];

	return (struct span){ from < out ? from : out, to < out ? to : out };
}
