/* Writing the gradients of convolutions, pools and normalisations by channel. */
#include "ops/grad.h"

#include <stdio.h>
#include <string.h>

#include "ops/body.h"
#include "ops/window.h"

#define SAY(...) str_addf(&b->s, __VA_ARGS__)

static const struct attr *get(const struct shape_call *c, const char *name) { return attr_get(c->op, c->attr, name); }

static void number(struct body *b, const char *name, double x)
{
	SAY("%s = Constant <value = double {%#.17g}> ()\n", name, x);
}

static void list(struct body *b, const struct window *w, const char *name, const int64_t *x, int repeat)
{
	SAY("%s = [", name);
	for (int i = SPACE - w->n; i < SPACE; i++)
		SAY("%s%lld", i > SPACE - w->n ? ", " : "", (long long)x[i]);
	(void)repeat;
	SAY("]");
}

static void pads(struct body *b, const struct window *w)
{
	SAY("pads = [");
	for (int i = SPACE - w->n; i < SPACE; i++)
		SAY("%lld, ", (long long)w->begin[i]);
	for (int i = SPACE - w->n; i < SPACE; i++)
		SAY("%s%lld", i > SPACE - w->n ? ", " : "", (long long)w->end[i]);
	SAY("]");
}

static enum linnet_code known(const struct shape_call *c, const struct window *w, bool lengths)
{
	for (int i = SPACE - w->n; i < SPACE; i++) {
		bool fixed = dim_is_int(w->taps[i]) && (!lengths || (dim_is_int(w->in[i]) && dim_is_int(w->out[i])));

		if (!fixed)
			return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a window needs known lengths");
	}
	return LINNET_OK;
}

/* Whether padding is worked out from lengths. */
static bool automatic(const struct shape_call *c) { return op_attr_index(c->op, "auto_pad") >= 0 && get(c, "auto_pad")->s.p[0] == 'S'; }

/*
 * to: what the window of each output position reads, summed: `from` [N, M, out...] spread by `weight` [M, C / group, taps...] to [N, C, in...],
 * whose lengths are those of `like`.
 */
static void spread(struct body *b, const struct window *w, const char *to, const char *from, const char *weight, const char *like, int64_t group)
{
	SAY("%s_full = ConvTranspose <group = %lld, ", to, (long long)group);
	list(b, w, "strides", w->stride, 1);
	SAY(", ");
	list(b, w, "dilations", w->dilation, 1);
	SAY("> (%s, %s)\n%s_in = Shape <start = 2> (%s)\n%s_has = Shape <start = 2> (%s_full)\n", from, weight, to, like, to, to);
	SAY("%s_two = Constant <value = int64[2] {0, 0}> ()\n%s_begin = Constant <value = int64[%d] {", to, to, w->n);
	for (int i = SPACE - w->n; i < SPACE; i++)
		SAY("%s%lld", i > SPACE - w->n ? ", " : "", (long long)w->begin[i]);
	SAY("}> ()\n%s_cut = Neg (%s_begin)\n%s_need = Add (%s_in, %s_begin)\n%s_more = Sub (%s_need, %s_has)\n", to, to, to, to, to, to, to, to);
	SAY("%s_pads = Concat <axis = 0> (%s_two, %s_cut, %s_two, %s_more)\n%s = Pad (%s_full, %s_pads)\n", to, to, to, to, to, to, to, to);
}

/* to: [M, C / group, taps...], the gradient of a convolution's weight. big: [N, C, in...], what the window reads; small: [N, M, out...]. */
static enum linnet_code weight(struct body *b, const struct window *w, const char *to, const char *big, const char *small, dim channels, int64_t group)
{
	int rank = w->n + 2;

	if (group != 1) {
		if (!dim_is_int(channels))
			return fail(b->c->e, LINNET_EUNSUPPORTED, "the gradient of a grouped convolution needs a known number of channels");
		SAY("%s_n = Shape <end = 1> (%s)\n%s_sp = Shape <start = 2> (%s)\n", to, big, to, big);
		SAY("%s_gc = Constant <value = int64[2] {%lld, %lld}> ()\n", to, (long long)group, (long long)(channels / group));
		SAY("%s_c = Constant <value = int64[2] {%lld, -1}> ()\n", to, (long long)(channels / group));
		SAY("%s_s5 = Concat <axis = 0> (%s_n, %s_gc, %s_sp)\n%s_x5 = Reshape (%s, %s_s5)\n", to, to, to, to, to, big, to);
		SAY("%s_t5 = Transpose <perm = [2, 1, 0", to);
		for (int i = 3; i <= rank; i++)
			SAY(", %d", i);
		SAY("]> (%s_x5)\n%s_s4 = Concat <axis = 0> (%s_c, %s_sp)\n%s_x = Reshape (%s_t5, %s_s4)\n", to, to, to, to, to, to, to);
	} else {
		SAY("%s_x = Transpose <perm = [1, 0", to);
		for (int i = 2; i < rank; i++)
			SAY(", %d", i);
		SAY("]> (%s)\n", big);
	}
	SAY("%s_k = Transpose <perm = [1, 0", to);
	for (int i = 2; i < rank; i++)
		SAY(", %d", i);
	SAY("]> (%s)\n%s_y = Conv <group = %lld, ", small, to, (long long)group);
	list(b, w, "dilations", w->stride, 1);
	SAY(", ");
	list(b, w, "strides", w->dilation, 1);
	SAY(", ");
	pads(b, w);
	SAY("> (%s_x, %s_k)\n%s_from = Constant <value = int64[%d] {", to, to, to, w->n);
	for (int i = 0; i < w->n; i++)
		SAY("%s0", i ? ", " : "");
	SAY("}> ()\n%s_to = Constant <value = int64[%d] {", to, w->n);
	for (int i = SPACE - w->n; i < SPACE; i++)
		SAY("%s%lld", i > SPACE - w->n ? ", " : "", (long long)w->taps[i]);
	SAY("}> ()\n%s_axes = Constant <value = int64[%d] {", to, w->n);
	for (int i = 0; i < w->n; i++)
		SAY("%s%d", i ? ", " : "", i + 2);
	SAY("}> ()\n%s_w = Slice (%s_y, %s_from, %s_to, %s_axes)\n%s = Transpose <perm = [1, 0", to, to, to, to, to, to);
	for (int i = 2; i < rank; i++)
		SAY(", %d", i);
	SAY("]> (%s_w)\n", to);
	return LINNET_OK;
}

/* to: x summed over all axes but the channels'. */
static void by_channel(struct body *b, const char *to, const char *x, int rank)
{
	SAY("%s_axes = Constant <value = int64[%d] {0", to, rank - 1);
	for (int i = 2; i < rank; i++)
		SAY(", %d", i);
	SAY("}> ()\n%s = ReduceSum <keepdims = 0> (%s, %s_axes)\n", to, x, to);
}

enum linnet_code grad_conv(struct shape_call *c, const char **text)
{
	const struct shape *x = &c->in[0]->shape, *k = &c->in[1]->shape;
	int64_t group = get(c, "group")->i;
	struct body body, *b = &body;
	struct window w;

	if (x->rank < 3 || k->rank < 3)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a convolution of unknown rank");
	TRY(window_read(c->op, c->attr, x, k, &w, c->e));
	TRY(window_slide(c->dims, c->op, c->attr, &w, c->e));
	TRY(known(c, &w, automatic(c)));
	body_begin(b, c);
	spread(b, &w, "d_X", "d_Y", "W", "X", group);
	TRY(weight(b, &w, "d_W", "X", "d_Y", x->d[1], group));
	by_channel(b, "d_B", "d_Y", w.n + 2);
	return body_end(b, text);
}

enum linnet_code grad_conv_transpose(struct shape_call *c, const char **text)
{
	const struct shape *x = &c->in[0]->shape, *k = &c->in[1]->shape;
	int64_t group = get(c, "group")->i;
	struct body body, *b = &body;
	struct window w;

	if (x->rank < 3 || k->rank < 3)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a convolution of unknown rank");
	TRY(window_read(c->op, c->attr, x, k, &w, c->e));
	TRY(window_spread(c->dims, c->op, c->attr, &w, c->e));
	TRY(known(c, &w, automatic(c) || get(c, "output_shape")->n));
	/* As a convolution of the output: its padding is such that it has the input's lengths. */
	for (int i = SPACE - w.n; i < SPACE; i++)
		if (dim_is_int(w.in[i]) && dim_is_int(w.out[i]))
			w.end[i] = (w.in[i] - 1) * w.stride[i] + (w.taps[i] - 1) * w.dilation[i] + 1 - w.out[i] - w.begin[i];
	for (int i = SPACE - w.n; i < SPACE; i++)
		if (w.end[i] < 0) /* what the padding of the output added is not read */
			w.end[i] = 0;
	body_begin(b, c);
	SAY("d_X_all = Conv <group = %lld, ", (long long)group);
	list(b, &w, "strides", w.stride, 1);
	SAY(", ");
	list(b, &w, "dilations", w.dilation, 1);
	SAY(", ");
	pads(b, &w);
	SAY("> (d_Y, W)\nx_in = Shape <start = 2> (X)\nx_axes = Constant <value = int64[%d] {2", w.n);
	for (int i = 1; i < w.n; i++)
		SAY(", %d", i + 2);
	SAY("}> ()\nx_from = Constant <value = int64[%d] {0", w.n);
	for (int i = 1; i < w.n; i++)
		SAY(", 0");
	SAY("}> ()\nd_X = Slice (d_X_all, x_from, x_in, x_axes)\n");
	TRY(weight(b, &w, "d_W", "d_Y", "X", c->out[0].shape.d[1], group));
	by_channel(b, "d_B", "d_Y", w.n + 2);
	return body_end(b, text);
}

/* The attributes of a pool, passed on. */
static void same_window(struct body *b, const struct shape_call *c)
{
	bool first = true;

	SAY(" <");
	for (const struct op_attr *a = c->op->attr; a->name; a++) {
		static const char *const kinds[] = { [ATTR_INT] = "int", [ATTR_STRING] = "string", [ATTR_INTS] = "ints" };

		if (!strcmp(a->name, "p") || !strcmp(a->name, "storage_order"))
			continue;
		SAY("%s%s: %s = @%s", first ? "" : ", ", a->name, kinds[a->kind], a->name);
		first = false;
	}
	SAY(">");
}

/* d_X of max: to where the index points. */
enum linnet_code grad_max_pool(struct shape_call *c, const char **text)
{
	struct body body, *b = &body;

	body_begin(b, c);
	number(b, "zero", 0);
	SAY("values, at = MaxPool");
	same_window(b, c);
	SAY(" (X)\nflat = Constant <value = int64[1] {-1}> ()\nlengths = Shape (X)\nsize = Size (X)\nlength = Reshape (size, flat)\n"
	    "zeros = Expand (zero, length)\nwhere = Reshape (at, flat)\nwhat = Reshape (d_Y, flat)\n"
	    "sums = ScatterElements <reduction = \"add\"> (zeros, where, what)\nd_X = Reshape <allowzero = 1> (sums, lengths)\n");
	return body_end(b, text);
}

/* Of the mean and the p-norm: spread over the window by ones; for the mean after division by the number of elements, which is that of ones that
 * the window meets over their mean. */
enum linnet_code grad_sum_pool(struct shape_call *c, const char **text)
{
	const struct shape *x = &c->in[0]->shape;
	bool mean = !strcmp(c->op->name, "AveragePool");
	struct body body, *b = &body;
	struct window w;

	if (x->rank < 3)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a pool of unknown rank");
	TRY(window_read(c->op, c->attr, x, NULL, &w, c->e));
	TRY(window_slide(c->dims, c->op, c->attr, &w, c->e));
	TRY(known(c, &w, true));
	for (int i = SPACE - w.n; i < SPACE; i++) /* so that each output position has its window */
		w.end[i] = (w.out[i] - 1) * w.stride[i] + (w.taps[i] - 1) * w.dilation[i] + 1 - w.in[i] - w.begin[i];
	body_begin(b, c);
	number(b, "one", 1);
	SAY("k_shape = Constant <value = int64[%d] {1, 1", w.n + 2);
	for (int i = SPACE - w.n; i < SPACE; i++)
		SAY(", %lld", (long long)w.taps[i]);
	SAY("}> ()\nkernel = Expand (one, k_shape)\nplane = Constant <value = int64[2] {-1, 1}> ()\nspace = Shape <start = 2> (X)\n"
	    "planes = Concat <axis = 0> (plane, space)\nlengths = Shape (X)\nx = Reshape (X, planes)\n"
	    "d_space = Shape <start = 2> (d_Y)\nd_planes = Concat <axis = 0> (plane, d_space)\nd = Reshape (d_Y, d_planes)\n");
	if (mean) {
		SAY("single = Constant <value = int64[2] {1, 1}> ()\ns_planes = Concat <axis = 0> (single, space)\nones = Expand (one, s_planes)\n"
		    "share = AveragePool");
		same_window(b, c);
		SAY(" (ones)\n");
		/* how many: spread the other way */
		SAY("pads = Constant <value = int64[%d] {0, 0", 2 * w.n + 4);
		for (int i = SPACE - w.n; i < SPACE; i++)
			SAY(", %lld", (long long)w.begin[i]);
		SAY(", 0, 0");
		for (int i = SPACE - w.n; i < SPACE; i++)
			SAY(", %lld", (long long)w.end[i]);
		SAY("}> ()\npadded = Pad (ones, pads)\nmet = Conv <");
		list(b, &w, "strides", w.stride, 1);
		SAY(", ");
		list(b, &w, "dilations", w.dilation, 1);
		SAY("> (padded, kernel)\nsome = Max (met, one)\npart = Div (share, some)\nsent = Mul (d, part)\n");
		spread(b, &w, "got", "sent", "kernel", "x", 1);
		SAY("d_X = Reshape <allowzero = 1> (got, lengths)\n");
	} else {
		int64_t p = get(c, "p")->i;

		number(b, "rest", (double)(1 - p));
		number(b, "less", (double)(p - 1));
		number(b, "zero", 0);
		SAY("y = Reshape (Y, d_planes)\nempty = Equal (y, zero)\nlong = Where (empty, one, y)\npower = Pow (long, rest)\nsent = Mul (d, power)\n");
		spread(b, &w, "got", "sent", "kernel", "x", 1);
		SAY("size = Abs (x)\nsteep = Pow (size, less)\nsign = Sign (x)\nslope = Mul (steep, sign)\nall = Mul (got, slope)\n"
		    "d_X = Reshape <allowzero = 1> (all, lengths)\n");
	}
	return body_end(b, text);
}

/* Of whole channels. */
enum linnet_code grad_global_pool(struct shape_call *c, const char **text)
{
	const char *what = c->op->name + strlen("Global");
	struct body body, *b = &body;

	body_begin(b, c);
	number(b, "zero", 0);
	number(b, "one", 1);
	SAY("lengths = Shape (X)\n");
	if (*what == 'A') {
		SAY("many = Size (X)\nfew = Size (Y)\neach = Div (many, few)\nn = CastLike (each, d_Y)\nshare = Div (d_Y, n)\n"
		    "d_X = Expand (share, lengths)\n");
	} else if (*what == 'M') {
		int rank = c->in[0]->shape.rank;

		if (rank < 0)
			return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a pool of unknown rank");
		SAY("is = Equal (X, Y)\nones = CastLike (is, d_Y)\naxes = Constant <value = int64[%d] {", rank - 2);
		for (int i = 2; i < rank; i++)
			SAY("%s%d", i > 2 ? ", " : "", i);
		SAY("}> ()\ncount = ReduceSum <noop_with_empty_axes = 1> (ones, axes)\nshare = Div (d_Y, count)\nd_X = Mul (share, ones)\n");
	} else {
		int64_t p = get(c, "p")->i;

		number(b, "rest", (double)(1 - p));
		number(b, "less", (double)(p - 1));
		SAY("empty = Equal (Y, zero)\nlong = Where (empty, one, Y)\npower = Pow (long, rest)\nsent = Mul (d_Y, power)\n"
		    "size = Abs (X)\nsteep = Pow (size, less)\nsign = Sign (X)\nslope = Mul (steep, sign)\nd_X = Mul (sent, slope)\n");
	}
	return body_end(b, text);
}

/* ---- norm.c ---- */

/* x: a vector over channels, beside the axes behind them. */
static void column(struct body *b, const char *to, const char *x, int rank)
{
	SAY("%s_s = Constant <value = int64[%d] {-1", to, rank - 1);
	for (int i = 2; i < rank; i++)
		SAY(", 1");
	SAY("}> ()\n%s = Reshape (%s, %s_s)\n", to, x, to);
}

/* InstanceNormalization and GroupNormalization: groups of channels, each normalised by itself. */
enum linnet_code grad_group_norm(struct shape_call *c, const char **text)
{
	bool instance = *c->op->name == 'I';
	int rank = c->in[0]->shape.rank;
	const char *x = c->op->in[0].name, *y = c->op->out[0].name, *bias = c->op->in[2].name;
	struct body body, *b = &body;

	*text = NULL;
	if (rank < 2 || !dtype_in(c->in[0]->dt, SET(FLOAT) | SET(DOUBLE)))
		return instance ? fail(c->e, LINNET_EUNSUPPORTED, "the gradient in this type or of unknown rank") : LINNET_OK;
	body_begin(b, c);
	number(b, "eps", get(c, "epsilon")->f);
	SAY("lengths = Shape (%s)\n", x);
	if (instance)
		SAY("three = Constant <value = int64[3] {0, 0, -1}> ()\n");
	else
		SAY("three = Constant <value = int64[3] {0, %lld, -1}> ()\n", (long long)get(c, "num_groups")->i);
	column(b, "factor", "scale", rank);
	SAY("axes = Constant <value = int64[1] {2}> ()\nx3 = Reshape (%s, three)\nm = ReduceMean (x3, axes)\nx0 = Sub (x3, m)\nxx = Mul (x0, x0)\n"
	    "v = ReduceMean (xx, axes)\nve = Add (v, eps)\nsd = Sqrt (ve)\ni = Reciprocal (sd)\nn3 = Mul (x0, i)\n"
	    "n = Reshape <allowzero = 1> (n3, lengths)\ng = Mul (d_%s, factor)\ng3 = Reshape (g, three)\n"
	    "g1 = ReduceMean (g3, axes)\ngn = Mul (g3, n3)\ng2 = ReduceMean (gn, axes)\nalong = Mul (n3, g2)\nflat = Sub (g3, g1)\n"
	    "rest = Sub (flat, along)\nd3 = Mul (rest, i)\nd_%s = Reshape <allowzero = 1> (d3, lengths)\nns = Mul (d_%s, n)\n", x, y, x, y);
	by_channel(b, "d_scale", "ns", rank);
	char from[80], to[80];
	snprintf(from, sizeof from, "d_%s", y);
	snprintf(to, sizeof to, "d_%s", bias);
	by_channel(b, to, from, rank);
	return body_end(b, text);
}

enum linnet_code grad_batch_norm(struct shape_call *c, const char **text)
{
	int rank = c->in[0]->shape.rank;
	struct body body, *b = &body;

	if (rank < 2)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a normalisation of unknown rank");
	for (int i = 1; i < c->nout; i++)
		if (c->wanted[i])
			return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of running statistics");
	body_begin(b, c);
	number(b, "eps", get(c, "epsilon")->f);
	number(b, "zero", 0);
	column(b, "factor", "scale", rank);
	if (get(c, "training_mode")->i) {
		SAY("axes = Constant <value = int64[%d] {0", rank - 1);
		for (int i = 2; i < rank; i++)
			SAY(", %d", i);
		SAY("}> ()\nm = ReduceMean (X, axes)\nx0 = Sub (X, m)\nxx = Mul (x0, x0)\nv = ReduceMean (xx, axes)\n");
	} else {
		column(b, "m", "input_mean", rank);
		column(b, "v", "input_var", rank);
		SAY("x0 = Sub (X, m)\n");
	}
	SAY("ve = Add (v, eps)\nsd = Sqrt (ve)\ni = Reciprocal (sd)\nn = Mul (x0, i)\ng = Mul (d_Y, factor)\nns = Mul (d_Y, n)\n");
	if (get(c, "training_mode")->i) {
		SAY("g1 = ReduceMean (g, axes)\ngn = Mul (g, n)\ng2 = ReduceMean (gn, axes)\nalong = Mul (n, g2)\nflat = Sub (g, g1)\n"
		    "rest = Sub (flat, along)\nd_X = Mul (rest, i)\nchannels = Shape (scale)\n"
		    "d_input_mean = Expand (zero, channels)\nd_input_var = Expand (zero, channels)\n");
	} else {
		number(b, "half", -0.5);
		SAY("d_X = Mul (g, i)\nback = Neg (d_X)\nii = Mul (i, i)\nhi = Mul (ii, half)\ngn = Mul (g, n)\nspan = Mul (gn, hi)\n");
		by_channel(b, "d_input_mean", "back", rank);
		by_channel(b, "d_input_var", "span", rank);
	}
	by_channel(b, "d_scale", "ns", rank);
	by_channel(b, "d_B", "d_Y", rank);
	return body_end(b, text);
}

/* y = x D^-beta, D = bias + alpha / size S x^2, S the sum over channels near: dx = dy D^-beta - 2 alpha beta / size x S' (dy y / D). */
enum linnet_code grad_lrn(struct shape_call *c, const char **text)
{
	const struct shape *x = &c->in[0]->shape;
	double beta = get(c, "beta")->f, share = get(c, "alpha")->f / (double)get(c, "size")->i;
	int64_t size = get(c, "size")->i, n;
	struct body body, *b = &body;

	if (x->rank < 2 || !dim_is_int(x->d[1]) || x->d[1] > 4096)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient needs a known number of channels, at most 4096");
	n = x->d[1];
	body_begin(b, c);
	number(b, "bias_", get(c, "bias")->f);
	number(b, "share", share);
	number(b, "minus", -beta);
	number(b, "factor", -2 * beta * share);
	SAY("near = Constant <value = double[%lld,%lld] {", (long long)n, (long long)n);
	for (int64_t i = 0; i < n; i++)
		for (int64_t k = 0; k < n; k++)
			SAY("%s%s", i || k ? ", " : "", k >= i - (size - 1) / 2 && k <= i + size / 2 ? "1.0" : "0.0");
	SAY("}> ()\nlengths = Shape (X)\nthree = Constant <value = int64[3] {0, 0, -1}> ()\nx = Reshape (X, three)\nd = Reshape (d_Y, three)\n"
	    "y = Reshape (Y, three)\nxx = Mul (x, x)\nsum = MatMul (near, xx)\npart = Mul (sum, share)\nD = Add (part, bias_)\n"
	    "power = Pow (D, minus)\nfirst = Mul (d, power)\ndy = Mul (d, y)\nq = Div (dy, D)\nback = Transpose (near)\nr = MatMul (back, q)\n"
	    "rx = Mul (r, x)\nsecond = Mul (rx, factor)\nall = Add (first, second)\nd_X = Reshape <allowzero = 1> (all, lengths)\n");
	return body_end(b, text);
}

/* y = x / |x|, by either norm; where that is 0 the output is 0. */
enum linnet_code grad_lp_norm(struct shape_call *c, const char **text)
{
	struct body body, *b = &body;
	bool one = get(c, "p")->i == 1;

	body_begin(b, c);
	number(b, "zero", 0);
	number(b, "unit", 1);
	SAY("axes = Constant <value = int64[1] {%lld}> ()\ndy = Mul (d_output, output)\ns = ReduceSum (dy, axes)\n"
	    "norm = %s (input, axes)\nempty = Equal (norm, zero)\nlong = Where (empty, unit, norm)\n", (long long)get(c, "axis")->i,
	    one ? "ReduceL1" : "ReduceL2");
	SAY(one ? "u = Sign (input)\n" : "u = Identity (output)\n");
	SAY("us = Mul (u, s)\nrest = Sub (d_output, us)\nslope = Div (rest, long)\nd_input = Where (empty, zero, slope)\n");
	return body_end(b, text);
}

/* ---- conv.c: Col2Im ---- */

/* The blocks of the gradient: a convolution of each channel with every place of the block by itself. */
enum linnet_code grad_col2im(struct shape_call *c, const char **text)
{
	const struct tensor *block = c->in[2]->value;
	const struct shape *y = &c->out[0].shape;
	struct body body, *b = &body;
	int64_t taps = 1, channels;
	struct window w = { .n = 0 };

	if (!block || block->n > SPACE || y->rank < 3 || !dim_is_int(y->d[1]) || !dtype_in(c->in[0]->dt, FLOATS))
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient needs a known block and number of channels");
	w.n = (int)block->n;
	channels = y->d[1];
	for (int i = 0; i < w.n; i++) {
		int at = SPACE - w.n + i;

		w.taps[at] = tensor_get_int(block, i);
		w.stride[at] = list_item(get(c, "strides"), i, 1);
		w.dilation[at] = list_item(get(c, "dilations"), i, 1);
		w.begin[at] = list_item(get(c, "pads"), i, 0);
		w.end[at] = list_item(get(c, "pads"), i + w.n, 0);
		taps *= w.taps[at];
	}
	if (taps < 1 || taps > 4096)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of blocks of %lld elements", (long long)taps);
	body_begin(b, c);
	SAY("line_from = Constant <value = int64 {0}> ()\nline_by = Constant <value = int64 {1}> ()\nline_to = Constant <value = int64 {%lld}> ()\n"
	    "line = Range (line_from, line_to, line_by)\noff_on = Constant <value = double[2] {0.0, 1.0}> ()\neye = OneHot (line, line_to, off_on)\n"
	    "one_shape = Constant <value = int64[%d] {%lld, 1", (long long)taps, w.n + 2, (long long)taps);
	for (int i = SPACE - w.n; i < SPACE; i++)
		SAY(", %lld", (long long)w.taps[i]);
	SAY("}> ()\none = Reshape (eye, one_shape)\nmany = Constant <value = int64[%d] {%lld, 1", w.n + 2, (long long)channels);
	for (int i = 0; i < w.n; i++)
		SAY(", 1");
	SAY("}> ()\nkernel = Tile (one, many)\nblocks = Conv <group = %lld, ", (long long)channels);
	list(b, &w, "strides", w.stride, 1);
	SAY(", ");
	list(b, &w, "dilations", w.dilation, 1);
	SAY(", ");
	pads(b, &w);
	SAY("> (d_output, kernel)\nlengths = Shape (input)\nd_input = Reshape <allowzero = 1> (blocks, lengths)\n");
	return body_end(b, text);
}

/* ---- resize.c ---- */

/* Nearest: back to the elements picked. Linear and cubic: along each axis by the matrix that resizing makes of the unit matrix. */
enum linnet_code grad_resize(struct shape_call *c, const char **text)
{
#define SAME_WAY                                                                                   \
	"mode: string = @mode, nearest_mode: string = @nearest_mode, "                             \
	"coordinate_transformation_mode: string = @coordinate_transformation_mode"
	static const char nearest[] = GRAD_OF_PICKING("X", "Y", "Resize <axes: ints = @axes, antialias: int = @antialias, "
		"extrapolation_value: float = @extrapolation_value, keep_aspect_ratio_policy: string = @keep_aspect_ratio_policy, " SAME_WAY
		"> (all, roi, scales, sizes)");
	const struct attr *axes = get(c, "axes");
	int rank = c->in[0]->shape.rank, n;
	bool scaled = c->nin > 2 && c->in[2];
	struct body body, *b = &body;
	char d[16] = "d_Y";

	if (*get(c, "coordinate_transformation_mode")->s.p == 't')
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a resized crop");
	if (*get(c, "mode")->s.p == 'n') {
		*text = nearest;
		return LINNET_OK;
	}
	if (rank < 0 || (!scaled && *get(c, "keep_aspect_ratio_policy")->s.p != 's'))
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of unknown rank, or with a kept aspect ratio");
	n = !rank ? 0 : attr_given(axes) && axes->n ? (int)axes->n : rank;
	body_begin(b, c);
	number(b, "zero", 0);
	SAY("x_shape = Shape (X)\n");
	for (int k = 0; k < n; k++) {
		int64_t a = attr_given(axes) && axes->n ? axes->ints[k] : k;

		a += a < 0 ? rank : 0;
		SAY("which_%d = Constant <value = int64[1] {%d}> ()\naxis_%d = Constant <value = int64[1] {%lld}> ()\n"
		    "n_%d = Gather (x_shape, axis_%d)\nnn_%d = Concat <axis = 0> (n_%d, n_%d)\nzeros_%d = Expand (zero, nn_%d)\neye_%d = EyeLike (zeros_%d)\n",
		    k, k, k, (long long)a, k, k, k, k, k, k, k, k, k);
		SAY("by_%d = Gather (%s, which_%d)\n", k, scaled ? "scales" : "sizes", k);
		SAY("m_%d = Resize <axes = [1], antialias: int = @antialias, cubic_coeff_a: float = @cubic_coeff_a, exclude_outside: int = @exclude_outside, "
		    SAME_WAY "> (eye_%d, , %sby_%d)\n", k, k, scaled ? "" : ", ", k);
		SAY("mt_%d = Transpose <perm = [1, 0]> (m_%d)\n", k, k);
		/* the axis and the last one change places */
		SAY("t_%d = Transpose <perm = [", k);
		for (int i = 0; i < rank; i++)
			SAY("%s%lld", i ? ", " : "", i == rank - 1 ? (long long)a : i == a ? (long long)rank - 1 : (long long)i);
		SAY("]> (%s)\np_%d = MatMul (t_%d, mt_%d)\nd_%d = Transpose <perm = [", d, k, k, k, k);
		for (int i = 0; i < rank; i++)
			SAY("%s%lld", i ? ", " : "", i == rank - 1 ? (long long)a : i == a ? (long long)rank - 1 : (long long)i);
		SAY("]> (p_%d)\n", k);
		snprintf(d, sizeof d, "d_%d", k);
	}
	SAY("d_X = Identity (%s)\n", d);
	return body_end(b, text);
#undef SAME_WAY
}

/* ---- signal.c: DFT ---- */

/* The transform the other way, unscaled, of what stays of the spectrum; a real signal takes the real part. */
enum linnet_code grad_dft(struct shape_call *c, const char **text)
{
	const struct shape *x = &c->in[0]->shape, *y = &c->out[0].shape;
	bool inverse = get(c, "inverse")->i, onesided = get(c, "onesided")->i;
	const struct type *where = c->nin > 2 ? c->in[2] : NULL, *length = c->nin > 1 ? c->in[1] : NULL;
	struct body body, *b = &body;
	int64_t axis, n, full;

	if (x->rank < 2 || y->rank < 2 || (where && !where->value) || (length && !length->value) || (inverse && onesided))
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient needs a known axis and length, and no one-sided inverse");
	axis = where ? tensor_get_int(where->value, 0) : -2;
	axis += axis < 0 ? x->rank : 0;
	if (axis < 0 || axis >= x->rank - 1 || !dim_is_int(x->d[axis]) || !dim_is_int(x->d[x->rank - 1]))
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient needs a known axis and length");
	n = x->d[axis];
	full = length ? tensor_get_int(length->value, 0) : n;
	body_begin(b, c);
	SAY("along = Constant <value = int64 {%lld}> ()\nalongs = Constant <value = int64[1] {%lld}> ()\nnone = Constant <value = int64[1] {0}> ()\n"
	    "one = Constant <value = int64[1] {1}> ()\nn = Constant <value = int64[1] {%lld}> ()\nfull = Constant <value = int64[1] {%lld}> ()\n"
	    "last = Constant <value = int64[1] {-1}> ()\n", (long long)axis, (long long)axis, (long long)n, (long long)full);
	SAY("there = Constant <value = int64[2] {0, %lld}> ()\n", (long long)(onesided ? full - (full / 2 + 1) : 0));
	SAY("spectrum = Pad (d_output, there, , alongs)\ntransform = DFT <inverse = %d> (spectrum, , along)\n", !inverse);
	number(b, "factor", inverse ? 1 / (double)full : (double)full);
	SAY("all = Mul (transform, factor)\n");
	SAY("cut = Slice (all, none, n, alongs)\nrest = Constant <value = int64[2] {0, %lld}> ()\nlong = Pad (cut, rest, , alongs)\n",
	    (long long)(n > full ? n - full : 0));
	SAY(x->d[x->rank - 1] == 1 ? "d_input = Slice (long, none, one, last)\n" : "d_input = Identity (long)\n");
	return body_end(b, text);
}

/* ---- quant.c ---- */

/* Of the scale, which each element of its part is multiplied with. */
enum linnet_code grad_dequantize(struct shape_call *c, const char **text)
{
	const struct shape *x = &c->in[0]->shape, *s = &c->in[1]->shape;
	struct body body, *b = &body;
	int64_t axis = get(c, "axis")->i;

	if (s->rank < 0 || x->rank < 0 || (s->rank > 1 && s->rank == x->rank && get(c, "block_size")->i) || !dtype_in(c->in[1]->dt, FLOATS) ||
	    c->in[1]->dt != c->out[0].dt)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of scales of blocks, or in another type");
	body_begin(b, c);
	number(b, "one", 1);
	SAY("s_shape = Shape (x_scale)\nones = Expand (one, s_shape)\nwhole = DequantizeLinear <axis: int = @axis> (x, ones, x_zero_point)\n"
	    "each = Mul (d_y, whole)\n");
	if (s->rank == 1 && s->d[0] != 1 && x->rank > 0) {
		axis += axis < 0 ? x->rank : 0;
		SAY("axes = Constant <value = int64[%d] {", x->rank - 1);
		for (int i = 0, k = 0; i < x->rank; i++)
			if (i != axis)
				SAY("%s%d", k++ ? ", " : "", i);
		SAY("}> ()\nsums = ReduceSum <keepdims = 0, noop_with_empty_axes = 1> (each, axes)\n");
	} else {
		SAY("sums = ReduceSum <keepdims = 0> (each)\n");
	}
	SAY("d_x_scale = Reshape <allowzero = 1> (sums, s_shape)\n");
	return body_end(b, text);
}
