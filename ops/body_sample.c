/*
 * What looks at places between elements, in other operators: GridSample, DeformConv, RoiAlign, MaxRoiPool, STFT. Gradients come of these
 * bodies.
 */
#include "ops/body.h"

#include <stdio.h>
#include <string.h>

#define SAY(...) str_addf(&b->s, __VA_ARGS__)

static bool says(const struct shape_call *c, const char *name, const char *word)
{
	struct text s = attr_get(c->op, c->attr, name)->s;

	return s.n == strlen(word) && !memcmp(s.p, word, s.n);
}

static void integer(struct body *b, const char *name, int64_t x)
{
	SAY("%s = Constant <value = int64 {%lld}> ()\n", name, (long long)x);
}

static bool is_empty(const struct shape *s)
{
	for (int i = 0; i < s->rank; i++)
		if (s->d[i] == 0)
			return true;
	return false;
}

/* Floats of known rank, none of them empty unless that is no matter. */
static enum linnet_code usual(const struct shape_call *c, bool empty)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && (c->in[i]->shape.rank < 0 || (!empty && is_empty(&c->in[i]->shape))))
			return fail(c->e, LINNET_EUNSUPPORTED, "%s of unknown rank, or of nothing, cannot be written in other operators", c->op->name);
	if (!dtype_in(c->in[0]->dt, FLOATS))
		return fail(c->e, LINNET_EUNSUPPORTED, "%s of elements of %s cannot be written in other operators", c->op->name, dtype_name(c->in[0]->dt));
	return LINNET_OK;
}

/*
 * sum over the taps of all axes of the product of their weights times the element they meet in. rows: [..., S, C], S the places of r axes of
 * lengths n0, n1 ...; p<axis>_<tap>: integers, w<axis>_<tap>: weights, both of one shape, which `column` is with an axis of length 1 in place of the
 * places' axes; `batch` axes of rows and of column go together. To: [..., places, C]
 */
static void combine(struct body *b, int r, int taps, int batch, bool weighed)
{
	const char *zero = batch == 1 ? " <allowzero = 1>" : "";
	int all = 1;

	for (int a = 0; a < r; a++) {
		all *= taps;
		for (int k = 0; k < taps; k++)
			SAY("q%d_%d = Mul (p%d_%d, s%d)\n", a, k, a, k, a);
	}
	for (int i = 0; i < all; i++) {
		for (int a = 0, left = i; a < r; a++, left /= taps) {
			int k = left % taps;

			if (!a) {
				SAY("at%d_0 = Identity (q0_%d)\nby%d_0 = Identity (w0_%d)\n", i, k, i, k);
				continue;
			}
			SAY("at%d_%d = Add (at%d_%d, q%d_%d)\nby%d_%d = Mul (by%d_%d, w%d_%d)\n", i, a, i, a - 1, a, k, i, a, i, a - 1, a, k);
		}
		SAY("at%d = Reshape%s (at%d_%d, column)\nfound%d = GatherND <batch_dims = %d> (rows, at%d)\n", i, zero, i, r - 1, i, batch, i);
		if (weighed)
			SAY("by%d = Reshape%s (by%d_%d, column)\nshare%d = Mul (found%d, by%d)\n", i, zero, i, r - 1, i, i, i);
		else
			SAY("share%d = Identity (found%d)\n", i, i);
		if (i)
			SAY("sum%d = Add (sum%d, share%d)\n", i, i - 1, i);
		else
			SAY("sum0 = Identity (share0)\n");
	}
	SAY("sums = Identity (sum%d)\n", all - 1);
}

/* How far apart neighbours along each axis are, and s: how many places there are. */
static void distances(struct body *b, int r)
{
	SAY("s%d = Identity (unit)\n", r - 1);
	for (int a = r - 2; a >= 0; a--)
		SAY("s%d = Mul (s%d, n%d)\n", a, a + 1, a + 1);
	SAY("s = Mul (s0, n0)\n");
}

/* ---- GridSample ---- */

/* A weight of Keys' cubic with a = -3/4 at distance t (1 - t, 2 - t, 1 + t) behind it. */
static void cubic(struct body *b, int a, int k)
{
	static const char *const far[4] = { "Add (f%d, one)", "Identity (f%d)", "Sub (one, f%d)", "Sub (two, f%d)" };
	bool outer = k == 0 || k == 3;

	SAY("t%d_%d = ", a, k);
	str_addf(&b->s, far[k], a);
	SAY("\n"
	    "h%d_%d = Mul (t%d_%d, %s)\ni%d_%d = Add (h%d_%d, %s)\nj%d_%d = Mul (i%d_%d, t%d_%d)\n", a, k, a, k, outer ? "c3" : "d3", a, k, a, k,
	    outer ? "c2" : "d2", a, k, a, k, a, k);
	if (outer)
		SAY("k%d_%d = Add (j%d_%d, c1)\nl%d_%d = Mul (k%d_%d, t%d_%d)\nv%d_%d = Add (l%d_%d, c0)\n", a, k, a, k, a, k, a, k, a, k, a, k, a, k);
	else
		SAY("l%d_%d = Mul (j%d_%d, t%d_%d)\nv%d_%d = Add (l%d_%d, one)\n", a, k, a, k, a, k, a, k, a, k);
}

/* x%d, the position along axis a, moved to or folded at the border where it is outside. */
static void inside(struct body *b, int a, bool border)
{
	SAY("b%d = GreaterOrEqual (x%d, edge)\na%d = LessOrEqual (x%d, high%d)\nin%d = And (b%d, a%d)\n", a, a, a, a, a, a, a, a);
	if (border) {
		SAY("low%d = Max (x%d, zero)\nto%d = Min (low%d, last%d)\n", a, a, a, a, a);
	} else {
		SAY("span%d = Sub (high%d, edge)\nsome%d = Less (zero, span%d)\ndouble%d = Add (span%d, span%d)\nround%d = Where (some%d, double%d, one)\n",
		    a, a, a, a, a, a, a, a, a, a);
		SAY("way%d = Sub (x%d, edge)\npast%d = Abs (way%d)\nrest%d = Mod <fmod = 1> (past%d, round%d)\nback%d = Sub (double%d, rest%d)\n", a, a, a, a,
		    a, a, a, a, a, a);
		SAY("far%d = Less (span%d, rest%d)\nfold%d = Where (far%d, back%d, rest%d)\nkept%d = Where (some%d, fold%d, zero)\nto%d = Add (kept%d, edge)\n",
		    a, a, a, a, a, a, a, a, a, a, a, a);
	}
	SAY("y%d = Where (in%d, x%d, to%d)\n", a, a, a, a);
}

/* The element that tap k of axis a sees, and whether it counts. */
static void settle(struct body *b, int a, int k, const char *padding, bool corners)
{
	SAY("i%d_%d_off = Constant <value = int64 {%d}> ()\ne%d_%d = Add (first%d, i%d_%d_off)\n", a, k, k, a, k, a, a, k);
	if (*padding == 'z') {
		SAY("ge%d_%d = GreaterOrEqual (e%d_%d, none)\nlt%d_%d = Less (e%d_%d, n%d)\nok%d_%d = And (ge%d_%d, lt%d_%d)\n"
		    "p%d_%d = Where (ok%d_%d, e%d_%d, none)\n", a, k, a, k, a, k, a, k, a, a, k, a, k, a, k, a, k, a, k, a, k);
		return;
	}
	SAY("end%d_%d = Sub (n%d, unit)\n", a, k, a);
	if (*padding == 'b') {
		SAY("le%d_%d = Max (e%d_%d, none)\np%d_%d = Min (le%d_%d, end%d_%d)\n", a, k, a, k, a, k, a, k, a, k);
	} else if (corners) { /* folded at the middles of the outer elements, */
		SAY("ab%d_%d = Abs (e%d_%d)\ndo%d_%d = Add (end%d_%d, end%d_%d)\nro%d_%d = Max (do%d_%d, unit)\nre%d_%d = Mod (ab%d_%d, ro%d_%d)\n", a, k, a,
		    k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k);
		SAY("ba%d_%d = Sub (do%d_%d, re%d_%d)\nfa%d_%d = Less (end%d_%d, re%d_%d)\nfo%d_%d = Where (fa%d_%d, ba%d_%d, re%d_%d)\np%d_%d = Min (fo%d_%d, end%d_%d)\n",
		    a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k);
	} else { /* or at their edges: twice the way from the first edge, modulo four lengths */
		SAY("tw%d_%d = Add (e%d_%d, e%d_%d)\nod%d_%d = Add (tw%d_%d, unit)\nab%d_%d = Abs (od%d_%d)\ndo%d_%d = Add (n%d, n%d)\nro%d_%d = Add (do%d_%d, do%d_%d)\n",
		    a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, a, a, k, a, k, a, k);
		SAY("re%d_%d = Mod (ab%d_%d, ro%d_%d)\nba%d_%d = Sub (ro%d_%d, re%d_%d)\nfa%d_%d = Less (do%d_%d, re%d_%d)\nfo%d_%d = Where (fa%d_%d, ba%d_%d, re%d_%d)\n",
		    a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k, a, k);
		SAY("ev%d_%d = Sub (fo%d_%d, unit)\ntwo%d_%d = Add (unit, unit)\np%d_%d = Div (ev%d_%d, two%d_%d)\n", a, k, a, k, a, k, a, k, a, k, a, k);
	}
}

/* Positions, their taps and weights are in the type of the grid. */
enum linnet_code body_grid_sample(struct shape_call *c, const char **text)
{
	bool corners = attr_get(c->op, c->attr, "align_corners")->i, nearest = says(c, "mode", "nearest"), cube = says(c, "mode", "cubic");
	bool known = !is_empty(&c->in[0]->shape);
	const char *padding = says(c, "padding_mode", "zeros") ? "z" : says(c, "padding_mode", "border") ? "b" : "r";
	int r = c->in[0]->shape.rank - 2, taps = nearest ? 1 : cube ? 4 : 2;
	enum dtype dt = c->in[1]->dt;
	struct body body, *b = &body;

	TRY(usual(c, true));
	for (int a = 0; a < r; a++)
		known &= dim_is_int(c->in[0]->shape.d[2 + a]);
	if (r > 3)
		return fail(c->e, LINNET_EUNSUPPORTED, "GridSample along %d axes cannot be written in other operators", r);
	body_begin(b, c);
	body_float(b, "zero", dt, 0);
	body_float(b, "one", dt, 1);
	body_float(b, "two", dt, 2);
	body_float(b, "half", dt, 0.5);
	body_float(b, "edge", dt, corners ? 0 : -0.5);
	body_float(b, "four", dt, 4);
	body_float(b, "before", dt, -4);
	if (cube) {
		body_float(b, "c3", dt, -0.75);
		body_float(b, "c2", dt, 3.75);
		body_float(b, "c1", dt, -6);
		body_float(b, "c0", dt, 3);
		body_float(b, "d3", dt, 1.25);
		body_float(b, "d2", dt, -2.25);
	}
	integer(b, "none", 0);
	integer(b, "unit", 1);
	SAY("lengths = Shape (X)\n");
	for (int a = 0; a < r; a++) {
		SAY("axis%d = Constant <value = int64 {%d}> ()\nn%d = Gather (lengths, axis%d)\nlength%d = Cast <to = %d> (n%d)\nlast%d = Sub (length%d, one)\n"
		    "high%d = Sub (last%d, edge)\n", a, 2 + a, a, a, a, (int)dt, a, a, a, a, a);
		SAY("part%d = Constant <value = int64 {%d}> ()\ng%d = Gather <axis = -1> (grid, part%d)\nfrom%d = Add (g%d, one)\nhalf%d = Mul (from%d, half)\n", a,
		    r - 1 - a, a, a, a, a, a, a);
		SAY("full%d = Mul (half%d, %s%d)\nexact%d = Add (full%d, edge)\n", a, a, corners ? "last" : "length", a, a, a);
		SAY("x%d = %s (exact%d)\n", a, nearest ? "Round" : "Identity", a);
		if (*padding == 'z')
			SAY("y%d = Identity (x%d)\n", a, a);
		else
			inside(b, a, *padding == 'b');
		SAY("is%d = GreaterOrEqual (y%d, before)\nmost%d = Add (last%d, four)\nleast%d = Where (is%d, y%d, before)\nz%d = Min (least%d, most%d)\n", a, a, a,
		    a, a, a, a, a, a, a);
		SAY("floor%d = Floor (z%d)\nf%d = Sub (z%d, floor%d)\nwhole%d = Cast <to = 7> (floor%d)\n", a, a, a, a, a, a, a);
		SAY("first%d = %s (whole%d%s)\n", a, cube ? "Sub" : "Identity", a, cube ? ", unit" : "");
		for (int k = 0; k < taps; k++) {
			settle(b, a, k, padding, corners);
			if (nearest)
				SAY("v%d_0 = CastLike (one, z%d)\n", a, a);
			else if (cube)
				cubic(b, a, k);
			else
				SAY("v%d_%d = %s (%sf%d)\n", a, k, k ? "Identity" : "Sub", k ? "" : "one, ", a);
			if (*padding == 'z')
				SAY("u%d_%d = Where (ok%d_%d, v%d_%d, zero)\n", a, k, a, k, a, k);
			else
				SAY("u%d_%d = Identity (v%d_%d)\n", a, k, a, k);
			SAY("w%d_%d = CastLike (u%d_%d, X)\n", a, k, a, k);
		}
	}
	distances(b, r);
	SAY("space = Shape <start = 1, end = %d> (grid)\nplaces = ReduceProd (space)\nbatch = Shape <end = 1> (X)\nchannels = Shape <start = 1, end = 2> (X)\n"
	    "single = Constant <value = int64[1] {1}> ()\ncolumn = Concat <axis = 0> (batch, places, single)\nrest = Reshape (s, single)\n"
	    "planes_shape = Concat <axis = 0> (batch, channels, rest)\nplanes = Reshape <allowzero = 1> (X, planes_shape)\nturned_planes = Transpose <perm = [0, 2, 1]> (planes)\n",
	    r + 1);
	/* a row of zeros, so that there is one to read of an image of nothing */
	SAY("ends = Constant <value = int64[6] {0, 0, 0, 0, %d, 0}> ()\nrows = %s (turned_planes%s)\n", !known, known ? "Identity" : "Pad", known ? "" : ", ends");
	combine(b, r, taps, 1, !nearest || *padding == 'z');
	SAY("turned = Transpose <perm = [0, 2, 1]> (sums)\nto = Concat <axis = 0> (batch, channels, space)\nY = Reshape <allowzero = 1> (turned, to)\n");
	return body_end(b, text);
}

/* ---- DeformConv ---- */

/* Samples at every tap of every place, and a product with the weights. */
enum linnet_code body_deform_conv(struct shape_call *c, const char **text)
{
	enum { X, W, OFFSET, B, MASK };
	const struct shape *x = &c->in[X]->shape, *w = &c->in[W]->shape;
	int64_t groups = attr_get(c->op, c->attr, "offset_group")->i, group = attr_get(c->op, c->attr, "group")->i, taps = 1;
	const struct attr *pads = attr_get(c->op, c->attr, "pads"), *strides = attr_get(c->op, c->attr, "strides");
	const struct attr *dilations = attr_get(c->op, c->attr, "dilations");
	bool bias = c->nin > B && c->in[B], mask = c->nin > MASK && c->in[MASK];
	enum dtype dt = c->in[X]->dt;
	int r = x->rank - 2;
	struct body body, *b = &body;

	TRY(usual(c, false));
	for (int i = 0; i < w->rank; i++)
		if (!dim_is_int(w->d[i]))
			return fail(c->e, LINNET_EUNSUPPORTED, "DeformConv by weights of unknown lengths cannot be written in other operators");
	for (int a = 0; a < r; a++)
		taps *= w->d[2 + a];
	if (taps > 4096)
		return fail(c->e, LINNET_EUNSUPPORTED, "DeformConv of %lld taps cannot be written in other operators", (long long)taps);
	body_begin(b, c);
	body_float(b, "zero", dt, 0);
	body_float(b, "one", dt, 1);
	integer(b, "none", 0);
	integer(b, "unit", 1);
	SAY("lengths = Shape (X)\nspace = Shape <start = 2> (offset)\nflat = Constant <value = int64[1] {-1}> ()\n"
	    "count1 = ReduceProd (space)\nempty = Constant <value = int64[0] {}> ()\ncount = Reshape (count1, empty)\nline = Range (none, count, unit)\n"
	    "field_shape = Constant <value = int64[5] {0, %lld, %lld, %d, -1}> ()\nfields = Reshape (offset, field_shape)\n"
	    "column = Constant <value = int64[4] {0, %lld, -1, 1}> ()\n", (long long)groups, (long long)taps, r, (long long)groups);
	SAY("o%d = Identity (line)\n", r - 1);
	for (int a = r - 1; a >= 0; a--) {
		SAY("axis%d = Constant <value = int64 {%d}> ()\nn%d = Gather (lengths, axis%d)\nlength%d = Cast <to = %d> (n%d)\n"
		    "out_axis%d = Constant <value = int64 {%d}> ()\nout%d = Gather (space, out_axis%d)\npos%d = Mod (o%d, out%d)\n", a, 2 + a, a, a, a, (int)dt, a,
		    a, a, a, a, a, a, a);
		if (a)
			SAY("o%d = Div (o%d, out%d)\n", a - 1, a, a);
		SAY("stride%d = Constant <value = int64 {%lld}> ()\nstart%d = Mul (pos%d, stride%d)\ntap%d = Constant <value = int64[%lld, 1] {", a,
		    (long long)(strides->n ? strides->ints[a] : 1), a, a, a, a, (long long)taps);
		for (int64_t t = 0; t < taps; t++) {
			int64_t behind = 1;

			for (int i = a + 1; i < r; i++)
				behind *= w->d[2 + i];
			SAY("%s%lld", t ? ", " : "", (long long)(t / behind % w->d[2 + a] * (dilations->n ? dilations->ints[a] : 1) - (pads->n ? pads->ints[a] : 0)));
		}
		SAY("}> ()\nbase%d = Add (start%d, tap%d)\nreal%d = Cast <to = %d> (base%d)\noff%d = Gather <axis = 3> (fields, out_axis%d)\n"
		    "x%d = Add (real%d, off%d)\nfloor%d = Floor (x%d)\nf%d = Sub (x%d, floor%d)\n", a, a, a, a, (int)dt, a, a, a, a, a, a, a, a, a, a, a);
		for (int k = 0; k < 2; k++) {
			SAY("e%d_%d = %s (floor%d%s)\nge%d_%d = GreaterOrEqual (e%d_%d, zero)\nlt%d_%d = Less (e%d_%d, length%d)\nok%d_%d = And (ge%d_%d, lt%d_%d)\n",
			    a, k, k ? "Add" : "Identity", a, k ? ", one" : "", a, k, a, k, a, k, a, k, a, a, k, a, k, a, k);
			SAY("here%d_%d = Where (ok%d_%d, e%d_%d, zero)\np%d_%d = Cast <to = 7> (here%d_%d)\nv%d_%d = %s (%sf%d)\nw%d_%d = Where (ok%d_%d, v%d_%d, zero)\n",
			    a, k, a, k, a, k, a, k, a, k, a, k, k ? "Identity" : "Sub", k ? "" : "one, ", a, a, k, a, k, a, k);
		}
	}
	SAY("planes_shape = Constant <value = int64[4] {0, %lld, %lld, -1}> ()\nplanes = Reshape (X, planes_shape)\nrows = Transpose <perm = [0, 1, 3, 2]> (planes)\n",
	    (long long)groups, (long long)(w->d[1] * group / groups));
	distances(b, r);
	combine(b, r, 2, 2, true);
	if (mask)
		SAY("gates = Reshape (mask, column)\nread = Mul (sums, gates)\n");
	else
		SAY("read = Identity (sums)\n");
	SAY("turned = Transpose <perm = [0, 1, 3, 2]> (read)\ninner = Constant <value = int64[3] {0, %lld, -1}> ()\npatches = Reshape (turned, inner)\n"
	    "by = Constant <value = int64[3] {%lld, %lld, 1}> ()\nfilter = Reshape (W, by)\nproduct = Conv <group = %lld> (patches, filter%s)\n"
	    "front = Shape <end = 2> (product)\nto = Concat <axis = 0> (front, space)\nY = Reshape (product, to)\n",
	    (long long)(w->d[1] * group * taps), (long long)w->d[0], (long long)(w->d[1] * taps), (long long)group, bias ? ", B" : "");
	return body_end(b, text);
}

/* ---- Regions ---- */

/*
 * Along one axis ("y" or "x"): the weights with which each of the two elements around each sample of each bin counts, E: [R, bins, 2 samples, length], and `bad`: [R,
 * bins, 2 samples], whether there is no such sample in the region.
 */
static void roi_side(struct body *b, const char *s, int from, int64_t bins, int axis, bool half, int64_t given, enum dtype dt)
{
	SAY("from_%s = Constant <value = int64 {%d}> ()\nto_%s = Constant <value = int64 {%d}> ()\na_%s = Gather <axis = 1> (scaled, from_%s)\n"
	    "e_%s = Gather <axis = 1> (scaled, to_%s)\n", s, from, s, from + 2, s, s, s, s);
	SAY("whole_%s = Sub (e_%s, a_%s)\nsize_%s = %s (whole_%s%s)\nbins_%s = Constant <value = %s {%#.17g}> ()\nbin_%s = Div (size_%s, bins_%s)\n", s, s, s, s,
	    half ? "Identity" : "Max", s, half ? "" : ", one", s, dtype_name(dt), (double)bins, s, s, s);
	if (given > 0)
		SAY("n_%s = Constant <value = %s {%#.17g}> ()\nmost_%s = Constant <value = int64 {%lld}> ()\ncount_%s = Expand (n_%s, regions)\n", s, dtype_name(dt),
		    (double)given, s, (long long)given, s, s);
	else
		SAY("ceil_%s = Ceil (bin_%s)\ncount_%s = Max (ceil_%s, zero)\nall_%s = ReduceMax <keepdims = 0> (count_%s)\nleast_%s = Max (all_%s, one)\n"
		    "most_%s = Cast <to = 7> (least_%s)\n", s, s, s, s, s, s, s, s, s, s);
	SAY("per_%s = Max (count_%s, one)\nline_%s = Range (none, most_%s, unit)\nk_%s = Cast <to = %d> (line_%s)\nmid_%s = Add (k_%s, half)\n", s, s, s, s, s,
	    (int)dt, s, s, s);
	SAY("per3_%s = Unsqueeze (per_%s, ax12)\nwithin_%s = Div (mid_%s, per3_%s)\n", s, s, s, s, s); /* [R, 1, S] */
	SAY("bin_count_%s = Constant <value = int64 {%lld}> ()\nbin_line_%s = Range (none, bin_count_%s, unit)\nbin_real_%s = Cast <to = %d> (bin_line_%s)\n"
	    "bin_column_%s = Unsqueeze (bin_real_%s, ax1)\nplace_%s = Add (bin_column_%s, within_%s)\n", s, (long long)bins, s, s, s, (int)dt, s, s, s, s, s, s);
	SAY("bin3_%s = Unsqueeze (bin_%s, ax12)\nway_%s = Mul (place_%s, bin3_%s)\na3_%s = Unsqueeze (a_%s, ax12)\nat_%s = Add (way_%s, a3_%s)\n", s, s, s, s, s, s,
	    s, s, s, s); /* [R, bins, S] */
	SAY("count3_%s = Unsqueeze (count_%s, ax12)\nis_%s = Less (k_%s, count3_%s)\nspread_%s = Shape (at_%s)\nwide_%s = Expand (is_%s, spread_%s)\nno_%s = Not (wide_%s)\n",
	    s, s, s, s, s, s, s, s, s, s, s, s);
	SAY("axis_%s = Constant <value = int64 {%d}> ()\nlength_%s = Gather (lengths, axis_%s)\nreal_%s = Cast <to = %d> (length_%s)\nlast_%s = Sub (real_%s, one)\n", s,
	    axis, s, s, s, (int)dt, s, s, s);
	SAY("ge_%s = GreaterOrEqual (at_%s, minus)\nle_%s = LessOrEqual (at_%s, real_%s)\nnear_%s = And (ge_%s, le_%s)\nok_%s = And (near_%s, wide_%s)\n", s, s, s, s,
	    s, s, s, s, s, s, s);
	SAY("pos_%s = Max (at_%s, zero)\np_%s = Min (pos_%s, last_%s)\nlow_%s = Floor (p_%s)\nf_%s = Sub (p_%s, low_%s)\nnext_%s = Add (low_%s, one)\n"
	    "high_%s = Min (next_%s, last_%s)\ng_%s = Sub (one, f_%s)\n", s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s);
	SAY("ends_%s = Concat <axis = 2> (low_%s, high_%s)\nby_%s = Concat <axis = 2> (g_%s, f_%s)\noks_%s = Concat <axis = 2> (ok_%s, ok_%s)\n"
	    "bad_%s = Concat <axis = 2> (no_%s, no_%s)\nweigh_%s = Where (oks_%s, by_%s, zero)\n", s, s, s, s, s, s, s, s, s, s, s, s, s, s, s);
	SAY("places_%s = Range (none, length_%s, unit)\nreals_%s = Cast <to = %d> (places_%s)\nends4_%s = Unsqueeze (ends_%s, ax3)\nhit_%s = Equal (ends4_%s, reals_%s)\n"
	    "weigh4_%s = Unsqueeze (weigh_%s, ax3)\nE_%s = Where (hit_%s, weigh4_%s, zero)\n", s, s, s, (int)dt, s, s, s, s, s, s, s, s, s, s, s);
}

/* Interpolation is a product with a matrix for each axis. */
enum linnet_code body_roi_align(struct shape_call *c, const char **text)
{
	bool half = says(c, "coordinate_transformation_mode", "half_pixel"), max = says(c, "mode", "max");
	int64_t h = attr_get(c->op, c->attr, "output_height")->i, w = attr_get(c->op, c->attr, "output_width")->i;
	int64_t given = attr_get(c->op, c->attr, "sampling_ratio")->i;
	enum dtype dt = c->in[0]->dt;
	struct body body, *b = &body;

	TRY(usual(c, false));
	body_begin(b, c);
	body_float(b, "zero", dt, 0);
	body_float(b, "one", dt, 1);
	body_float(b, "half", dt, 0.5);
	body_float(b, "minus", dt, -1);
	body_float(b, "scale", dt, attr_get(c->op, c->attr, "spatial_scale")->f);
	integer(b, "none", 0);
	integer(b, "unit", 1);
	body_ints(b, "ax1", 1, (int64_t[]){ 1 });
	body_ints(b, "ax3", 1, (int64_t[]){ 3 });
	body_ints(b, "ax12", 2, (int64_t[]){ 1, 2 });
	SAY("lengths = Shape (X)\nregions = Shape <end = 1> (rois)\nlarge = Mul (rois, scale)\nscaled = %s (large%s)\n", half ? "Sub" : "Identity", half ? ", half" : "");
	roi_side(b, "x", 0, w, 3, half, given, dt);
	roi_side(b, "y", 1, h, 2, half, given, dt);
	SAY("planes = Gather (X, batch_indices)\n");
	if (max) {
		SAY("flat_y = Constant <value = int64[4] {0, 1, -1, 0}> ()\nlast_y_axis = Shape <start = 2, end = 3> (X)\nlast_x_axis = Shape <start = 3, end = 4> (X)\n"
		    "rest = Constant <value = int64[1] {-1}> ()\nsingle = Constant <value = int64[1] {1}> ()\n"
		    "to_y_shape = Concat <axis = 0> (regions, single, rest, last_y_axis)\nMy = Reshape (E_y, to_y_shape)\n"
		    "to_x_shape = Concat <axis = 0> (regions, single, rest, last_x_axis)\nMx = Reshape (E_x, to_x_shape)\nMt = Transpose <perm = [0, 1, 3, 2]> (Mx)\n"
		    "half_way = MatMul (My, planes)\ncorner = MatMul (half_way, Mt)\n"
		    "channels = Shape <start = 1, end = 2> (X)\nshape_y = Shape <start = 1, end = 3> (E_y)\nshape_x = Shape <start = 1, end = 3> (E_x)\n"
		    "six = Concat <axis = 0> (regions, channels, shape_y, shape_x)\ncorners = Reshape (corner, six)\n"
		    "axes_y = Constant <value = int64[3] {1, 4, 5}> ()\naxes_x = Constant <value = int64[3] {1, 2, 3}> ()\n"
		    "bad6_y = Unsqueeze (bad_y, axes_y)\nbad6_x = Unsqueeze (bad_x, axes_x)\nbad = Or (bad6_y, bad6_x)\n"
		    "lowest = Constant <value = %s {-inf}> ()\nthese = Where (bad, lowest, corners)\nof = Constant <value = int64[2] {3, 5}> ()\n"
		    "largest = ReduceMax <keepdims = 0> (these, of)\nnothing = Equal (largest, lowest)\nY = Where (nothing, zero, largest)\n", dtype_name(dt));
		return body_end(b, text);
	}
	SAY("ax2 = Constant <value = int64[1] {2}> ()\n");
	for (const char *s = "yx"; *s; s++)
		SAY("sum_%c = ReduceSum <keepdims = 0> (E_%c, ax2)\nmean_%c = Div (sum_%c, per3_%c)\nM_%c = Unsqueeze (mean_%c, ax1)\n", *s, *s, *s, *s, *s, *s, *s);
	SAY("Mt = Transpose <perm = [0, 1, 3, 2]> (M_x)\nhalf_way = MatMul (M_y, planes)\nY = MatMul (half_way, Mt)\n");
	return body_end(b, text);
}

/* The bins along one axis: `out_<s>`: [R, bins, length], whether an element is outside a bin. */
static void pool_side(struct body *b, const char *s, int from, int64_t bins, int axis)
{
	SAY("from_%s = Constant <value = int64 {%d}> ()\nto_%s = Constant <value = int64 {%d}> ()\na_%s = Gather <axis = 1> (whole, from_%s)\n"
	    "e_%s = Gather <axis = 1> (whole, to_%s)\nd_%s = Sub (e_%s, a_%s)\nl_%s = Add (d_%s, unit)\nn_%s = Max (l_%s, unit)\n", s, from, s, from + 2, s, s, s, s, s, s, s,
	    s, s, s, s);
	SAY("bins_%s = Constant <value = int64 {%lld}> ()\nless_%s = Constant <value = int64 {%lld}> ()\nk_%s = Range (none, bins_%s, unit)\nn2_%s = Unsqueeze (n_%s, ax1)\n"
	    "kn_%s = Mul (k_%s, n2_%s)\nlow_%s = Div (kn_%s, bins_%s)\nnext_%s = Add (kn_%s, n2_%s)\nup_%s = Add (next_%s, less_%s)\nhigh_%s = Div (up_%s, bins_%s)\n", s,
	    (long long)bins, s, (long long)bins - 1, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s);
	SAY("a2_%s = Unsqueeze (a_%s, ax1)\nfirst_%s = Add (a2_%s, low_%s)\nend_%s = Add (a2_%s, high_%s)\nfirst3_%s = Unsqueeze (first_%s, ax2)\nend3_%s = Unsqueeze (end_%s, ax2)\n",
	    s, s, s, s, s, s, s, s, s, s, s, s);
	SAY("axis_%s = Constant <value = int64 {%d}> ()\nlength_%s = Gather (lengths, axis_%s)\nline_%s = Range (none, length_%s, unit)\nbefore_%s = Less (line_%s, first3_%s)\n"
	    "behind_%s = GreaterOrEqual (line_%s, end3_%s)\nout_%s = Or (before_%s, behind_%s)\n", s, axis, s, s, s, s, s, s, s, s, s, s, s, s, s);
}

enum linnet_code body_max_roi_pool(struct shape_call *c, const char **text)
{
	const struct attr *shape = attr_get(c->op, c->attr, "pooled_shape");
	enum dtype dt = c->in[0]->dt;
	struct body body, *b = &body;

	TRY(usual(c, false));
	body_begin(b, c);
	body_float(b, "zero", dt, 0);
	body_float(b, "half", dt, 0.5);
	body_float(b, "scale", dt, attr_get(c->op, c->attr, "spatial_scale")->f);
	integer(b, "none", 0);
	integer(b, "unit", 1);
	body_ints(b, "ax1", 1, (int64_t[]){ 1 });
	body_ints(b, "ax2", 1, (int64_t[]){ 2 });
	SAY("lengths = Shape (X)\nlarge = Mul (rois, scale)\nsize = Abs (large)\nup = Add (size, half)\nrounded = Floor (up)\nsign = Sign (large)\nto = Mul (rounded, sign)\n"
	    "whole = Cast <to = 7> (to)\nbatch = Gather <axis = 1> (rois, none)\nimage = Cast <to = 7> (batch)\nplanes = Gather (X, image)\n"
	    "lowest = Constant <value = %s {-inf}> ()\n", dtype_name(dt));
	pool_side(b, "x", 1, shape->ints[1], 3);
	pool_side(b, "y", 2, shape->ints[0], 2);
	SAY("axes_y = Constant <value = int64[2] {1, 4}> ()\nat_y = Unsqueeze (out_y, axes_y)\nplanes5 = Unsqueeze (planes, ax2)\nthese_y = Where (at_y, lowest, planes5)\n"
	    "of = Constant <value = int64[1] {3}> ()\nrows = ReduceMax <keepdims = 0> (these_y, of)\naxes_x = Constant <value = int64[2] {1, 2}> ()\n"
	    "at_x = Unsqueeze (out_x, axes_x)\nrows5 = Unsqueeze (rows, of)\nthese_x = Where (at_x, lowest, rows5)\nlast = Constant <value = int64[1] {4}> ()\n"
	    "largest = ReduceMax <keepdims = 0> (these_x, last)\nnothing = Equal (largest, lowest)\nY = Where (nothing, zero, largest)\n");
	return body_end(b, text);
}

/* ---- STFT ---- */

/* Frames side by side, times the window, transformed. */
enum linnet_code body_stft(struct shape_call *c, const char **text)
{
	bool window = c->nin > 2 && c->in[2], length = c->nin > 3 && c->in[3];
	struct body body, *b = &body;

	TRY(usual(c, false));
	body_begin(b, c);
	integer(b, "none", 0);
	integer(b, "unit", 1);
	body_ints(b, "flat", 1, (int64_t[]){ -1 });
	body_ints(b, "ax1", 1, (int64_t[]){ 1 });
	SAY("empty = Constant <value = int64[0] {}> ()\nstep0 = Cast <to = 7> (frame_step)\nstep = Reshape (step0, empty)\n"
	    "part = Constant <value = int64[1] {2}> ()\nx = %s\n", c->in[0]->shape.rank == 2 ? "Unsqueeze (signal, part)" : "Identity (signal)");
	SAY("total1 = Shape <start = 1, end = 2> (x)\ntotal = Reshape (total1, empty)\n");
	if (window)
		SAY("n1 = Shape (window)\n");
	else if (length)
		SAY("n0 = Cast <to = 7> (frame_length)\nn1 = Reshape (n0, flat)\n");
	else
		SAY("n1 = Identity (total1)\n");
	SAY("n = Reshape (n1, empty)\nspare = Sub (total, n)\nsteps = Div (spare, step)\ncount = Add (steps, unit)\nframe = Range (none, count, unit)\n"
	    "start = Mul (frame, step)\nstarts = Unsqueeze (start, ax1)\nwithin = Range (none, n, unit)\nat = Add (starts, within)\nframes = Gather <axis = 1> (x, at)\n");
	if (window)
		SAY("shape = Unsqueeze (window, ax1)\nshaped = Mul (frames, shape)\n");
	else
		SAY("shaped = Identity (frames)\n");
	SAY("two = Constant <value = int64 {2}> ()\noutput = DFT <onesided = %d> (shaped, , two)\n", (int)attr_get(c->op, c->attr, "onesided")->i);
	return body_end(b, text);
}
