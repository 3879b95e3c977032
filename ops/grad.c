/* Writing the gradient of one call (`write_grad` of op.h). */
#include "ops/grad.h"

#include <stdio.h>
#include <string.h>

#include "ops/body.h"

#define SAY(...) str_addf(&b.s, __VA_ARGS__)

static const char *out_name(const struct shape_call *c) { return c->op->out[0].name; }

static bool is_int(dim d) { return dim_is_int(d); }

/* Attribute by name. */
static const struct attr *get(const struct shape_call *c, const char *name) { return attr_get(c->op, c->attr, name); }

/* A constant in the type of the gradients. */
static void number(struct body *b, const char *name, double x)
{
	str_addf(&b->s, "%s = Constant <value = double {%#.17g}> ()\n", name, x);
}

/* ---- binary.c ---- */

/* Z = X^Y. */
enum linnet_code grad_power(struct shape_call *c, const char **text)
{
	const struct tensor *y = c->in[1]->value;
	struct body b;

	body_begin(&b, c);
	if (y && y->n == 1 && tensor_get(y, 0) == 2) {
		number(&b, "two", 2);
		SAY("x2 = Mul (X, two)\nd_X = Mul (d_Z, x2)\n");
	} else {
		number(&b, "none", 0);
		number(&b, "one", 1);
		SAY("y = CastLike (Y, X)\n"
		    "less = Sub (y, one)\n"
		    "p = Pow (X, less)\n"
		    "yp = Mul (y, p)\n"
		    "constant = Equal (y, none)\n"
		    "slope = Where (constant, none, yp)\n"
		    "d_X = Mul (d_Z, slope)\n");
	}
	if (!y && dtype_in(c->in[1]->dt, FLOATS)) {
		SAY("positive = Less (none, X)\n"
		    "base = Where (positive, X, one)\n"
		    "l = Log (base)\n"
		    "zl = Mul (Z, l)\n"
		    "d_Y = Mul (d_Z, zl)\n");
	}
	return body_end(&b, text);
}

/* Max and Min: those that are equal share it. */
enum linnet_code grad_extreme(struct shape_call *c, const char **text)
{
	const char *y = out_name(c);
	struct body b;

	body_begin(&b, c);
	if (c->nin == 1) {
		SAY("d_data_0_0 = Identity (d_%s)\n", y);
		return body_end(&b, text);
	}
	for (int i = 0; i < c->nin; i++) {
		SAY("is_%d = Equal (data_0_%d, %s)\n", i, i, y);
		SAY("one_%d = CastLike (is_%d, d_%s)\n", i, i, y);
	}
	SAY("count_1 = Add (one_0, one_1)\n");
	for (int i = 2; i < c->nin; i++)
		SAY("count_%d = Add (count_%d, one_%d)\n", i, i - 1, i);
	SAY("share = Div (d_%s, count_%d)\n", y, c->nin - 1);
	for (int i = 0; i < c->nin; i++)
		SAY("d_data_0_%d = Mul (share, one_%d)\n", i, i);
	return body_end(&b, text);
}

enum linnet_code grad_sum(struct shape_call *c, const char **text)
{
	struct body b;

	body_begin(&b, c);
	for (int i = 0; i < c->nin; i++)
		SAY("d_data_0_%d = Identity (d_%s)\n", i, out_name(c));
	return body_end(&b, text);
}

enum linnet_code grad_mean(struct shape_call *c, const char **text)
{
	struct body b;

	body_begin(&b, c);
	number(&b, "n", c->nin);
	SAY("share = Div (d_%s, n)\n", out_name(c));
	for (int i = 0; i < c->nin; i++)
		SAY("d_data_0_%d = Identity (share)\n", i);
	return body_end(&b, text);
}

/* ---- reduce.c ---- */

/* d and y: the gradient and the output with all axes kept; axes as the row has them. */
enum linnet_code grad_reduce(struct shape_call *c, const char **text)
{
	const char *op = c->op->name + strlen("Reduce");
	bool some = c->nin > 1 && c->in[1], keep = get(c, "keepdims")->i, noop = get(c, "noop_with_empty_axes")->i;
	const char *axes = some ? ", axes" : "";
	struct body b;

	if (some && c->in[1]->shape.rank == 1 && c->in[1]->shape.d[0] == 0)
		some = false;
	body_begin(&b, c);
	if (!some && noop) {
		SAY("d = Identity (d_reduced)\ny = Identity (reduced)\n");
	} else if (!keep && some) {
		SAY("d = Unsqueeze (d_reduced, axes)\ny = Unsqueeze (reduced, axes)\n");
	} else {
		SAY("d = Identity (d_reduced)\ny = Identity (reduced)\n");
	}
	number(&b, "none", 0);
	number(&b, "one", 1);
	SAY("shape = Shape (data)\n");
	if (!strcmp(op, "Sum")) {
		SAY("d_data = Expand (d, shape)\n");
	} else if (!strcmp(op, "Mean")) {
		SAY("many = Size (data)\nfew = Size (y)\neach = Div (many, few)\nn = CastLike (each, d)\n"
		    "share = Div (d, n)\nd_data = Expand (share, shape)\n");
	} else if (!strcmp(op, "Max") || !strcmp(op, "Min")) {
		SAY("is = Equal (data, y)\nones = CastLike (is, d)\n"
		    "count = ReduceSum <noop_with_empty_axes = %d> (ones%s)\n"
		    "share = Div (d, count)\nd_data = Mul (share, ones)\n", noop, axes);
	} else if (!strcmp(op, "Prod")) { /* the product of the others */
		SAY("is = Equal (data, none)\nzeros = CastLike (is, d)\n"
		    "count = ReduceSum <noop_with_empty_axes = %d> (zeros%s)\n"
		    "others = Sub (count, zeros)\n"
		    "x = Where (is, one, data)\n"
		    "p = ReduceProd <noop_with_empty_axes = %d> (x%s)\n"
		    "q = Div (p, x)\n"
		    "alone = Equal (others, none)\n"
		    "slope = Where (alone, q, none)\n"
		    "d_data = Mul (d, slope)\n", noop, axes, noop, axes);
	} else if (!strcmp(op, "SumSquare")) {
		number(&b, "two", 2);
		SAY("x2 = Mul (data, two)\nd_data = Mul (d, x2)\n");
	} else if (!strcmp(op, "L1")) {
		SAY("s = Sign (data)\nd_data = Mul (d, s)\n");
	} else if (!strcmp(op, "L2")) {
		SAY("is = Equal (y, none)\nlength = Where (is, one, y)\nu = Div (data, length)\nd_data = Mul (d, u)\n");
	} else if (!strcmp(op, "LogSum")) {
		SAY("s = Exp (y)\nq = Div (d, s)\nd_data = Expand (q, shape)\n");
	} else { /* LogSumExp */
		SAY("l = Sub (data, y)\ne = Exp (l)\nd_data = Mul (d, e)\n");
	}
	return body_end(&b, text);
}

/* CumSum; of CumProd, for elements that are not zero: sums of d y over all that follow, divided by x. */
enum linnet_code grad_running(struct shape_call *c, const char **text)
{
	int exclusive = get(c, "exclusive")->i != 0, reverse = get(c, "reverse")->i != 0;
	struct body b;

	body_begin(&b, c);
	if (!strcmp(c->op->name, "CumSum"))
		SAY("d_x = CumSum <exclusive = %d, reverse = %d> (d_y, axis)\n", exclusive, !reverse);
	else
		SAY("dy = Mul (d_y, y)\ns = CumSum <exclusive = %d, reverse = %d> (dy, axis)\nd_x = Div (s, x)\n", exclusive, !reverse);
	return body_end(&b, text);
}

/* ---- matmul.c ---- */

static void swap_last(struct body *b, const char *name, const char *x, int rank)
{
	str_addf(&b->s, "%s = Transpose <perm = [", name);
	for (int i = 0; i < rank; i++)
		str_addf(&b->s, "%s%d", i ? ", " : "", i < rank - 2 ? i : 2 * rank - 3 - i);
	str_addf(&b->s, "]> (%s)\n", x);
}

/* Y = A B. Vectors become matrices on the way. */
enum linnet_code grad_matmul(struct shape_call *c, const char **text)
{
	int ra = c->in[0]->shape.rank, rb = c->in[1]->shape.rank;
	bool row = ra == 1, column = rb == 1;
	struct body b;

	if (ra < 1 || rb < 1)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a product of unknown rank");
	body_begin(&b, c);
	SAY("first = Constant <value = int64[1] {0}> ()\nlast = Constant <value = int64[1] {-1}> ()\n"
	    "before = Constant <value = int64[1] {-2}> ()\n");
	SAY(row ? "a = Unsqueeze (A, first)\n" : "a = Identity (A)\n");
	SAY(column ? "b = Unsqueeze (B, last)\n" : "b = Identity (B)\n");
	SAY(row ? "d0 = Unsqueeze (d_Y, %s)\n" : "d0 = Identity (d_Y)\n", column ? "last" : "before");
	SAY(column ? "d = Unsqueeze (d0, last)\n" : "d = Identity (d0)\n");
	ra += row;
	rb += column;
	if (rb == 2 && ra > 2) { /* all rows of A in one product */
		SAY("b_shape = Shape (b)\na_shape = Shape (a)\n"
		    "columns = Gather (b_shape, last)\nrows = Gather (b_shape, first)\n"
		    "d_to = Concat <axis = 0> (last, columns)\na_to = Concat <axis = 0> (last, rows)\n"
		    "d2 = Reshape (d, d_to)\na2 = Reshape (a, a_to)\n"
		    "da2 = Gemm <transB = 1> (d2, b)\n"
		    "da = Reshape <allowzero = 1> (da2, a_shape)\n"
		    "db = Gemm <transA = 1> (a2, d2)\n");
	} else {
		swap_last(&b, "bt", "b", rb);
		swap_last(&b, "at", "a", ra);
		SAY("da = MatMul (d, bt)\ndb = MatMul (at, d)\n");
	}
	/* What a vector was broadcast over is summed here, while its axis is in its place. */
	if (row && rb > 2) {
		SAY("da_shape = Shape (da)\nlong = Gather (da_shape, last)\nda_to = Concat <axis = 0> (last, long)\n"
		    "da_rows = Reshape (da, da_to)\nd_A = ReduceSum <keepdims = 0> (da_rows, first)\n");
	} else {
		SAY(row ? "d_A = Squeeze (da, first)\n" : "d_A = Identity (da)\n");
	}
	SAY(column ? "d_B = Squeeze (db, last)\n" : "d_B = Identity (db)\n");
	return body_end(&b, text);
}

/* Y = alpha A' B' + beta C. */
enum linnet_code grad_gemm(struct shape_call *c, const char **text)
{
	int ta = get(c, "transA")->i != 0, tb = get(c, "transB")->i != 0;
	double alpha = get(c, "alpha")->f, beta = get(c, "beta")->f;
	struct body b;

	body_begin(&b, c);
	if (ta)
		SAY("d_A = Gemm <alpha = %#.9g, transA = %d, transB = 1> (B, d_Y)\n", alpha, tb);
	else
		SAY("d_A = Gemm <alpha = %#.9g, transB = %d> (d_Y, B)\n", alpha, !tb);
	if (tb)
		SAY("d_B = Gemm <alpha = %#.9g, transA = 1, transB = %d> (d_Y, A)\n", alpha, ta);
	else
		SAY("d_B = Gemm <alpha = %#.9g, transA = %d> (A, d_Y)\n", alpha, !ta);
	if (beta == 1) {
		SAY("d_C = Identity (d_Y)\n");
	} else {
		number(&b, "beta", beta);
		SAY("d_C = Mul (d_Y, beta)\n");
	}
	return body_end(&b, text);
}

/* One operand of an equation, or its output, without blanks. */
struct term {
	char s[160];
};

static enum linnet_code read_terms(const struct shape_call *c, struct term *in, struct term *out)
{
	const struct attr *q = get(c, "equation");
	int n = 0, at = 0;
	bool dots = false;
	int seen[128] = { 0 };

	for (size_t i = 0; i < q->s.n; i++) {
		char x = q->s.p[i];

		if (x == ' ')
			continue;
		if (x == ',' || x == '-') {
			in[n++].s[at] = '\0';
			at = 0;
			if (x == '-') {
				for (i += 2, at = 0; i < q->s.n && at < 150; i++)
					if (q->s.p[i] != ' ')
						out->s[at++] = q->s.p[i];
				out->s[at] = '\0';
				return LINNET_OK;
			}
			if (n == c->nin)
				break;
			continue;
		}
		if (at >= 150 || n >= c->nin)
			return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of so long an equation");
		in[n].s[at++] = x;
		dots |= x == '.';
		if (x != '.' && (unsigned char)x < 128)
			seen[(unsigned char)x]++;
	}
	in[n].s[at] = '\0';
	at = 0;
	if (dots) {
		memcpy(out->s, "...", 3);
		at = 3;
	}
	for (int x = 0; x < 128; x++)
		if (seen[x] == 1)
			out->s[at++] = (char)x;
	out->s[at] = '\0';
	return LINNET_OK;
}

/* The gradient of an operand is an equation as well: of the output's gradient and the other operands, and ones along axes that were only
 * summed over. Diagonals and sums over unnamed axes have the gradient of the body. */
enum linnet_code grad_einsum(struct shape_call *c, const char **text)
{
	struct term *in, out = { .s = "" };
	struct linnet_error *e = c->e;
	struct body b;

	TRY_NEW(in, c->arena, c->nin);
	TRY(read_terms(c, in, &out));
	body_begin(&b, c);
	number(&b, "one", 1);
	for (int i = 0; i < c->nin; i++) {
		char lonely[64];
		int n = 0;

		for (const char *x = in[i].s; *x; x++) {
			bool found = *x == '.' ? strchr(out.s, '.') != NULL : strchr(out.s, *x) != NULL;

			if (*x != '.' && strchr(x + 1, *x))
				return LINNET_OK;
			for (int k = 0; k < c->nin && !found; k++)
				found = k != i && strchr(in[k].s, *x);
			if (found)
				continue;
			if (*x == '.' || n == 60)
				return LINNET_OK;
			SAY("shape_%d_%d = Shape (Inputs_%d)\n", i, n, i);
			SAY("at_%d_%d = Constant <value = int64[1] {%d}> ()\n", i, n,
			    strchr(in[i].s, '.') && strchr(in[i].s, '.') < x ? (int)(x - in[i].s) - (int)strlen(in[i].s) : (int)(x - in[i].s));
			SAY("length_%d_%d = Gather (shape_%d_%d, at_%d_%d)\n", i, n, i, n, i, n);
			SAY("ones_%d_%d = Expand (one, length_%d_%d)\n", i, n, i, n);
			lonely[n++] = *x;
		}
		SAY("d_Inputs_%d = Einsum <equation = \"%s", i, out.s);
		for (int k = 0; k < c->nin; k++)
			if (k != i)
				SAY(",%s", in[k].s);
		for (int k = 0; k < n; k++)
			SAY(",%c", lonely[k]);
		SAY("->%s\"> (d_Output", in[i].s);
		for (int k = 0; k < c->nin; k++)
			if (k != i)
				SAY(", Inputs_%d", k);
		for (int k = 0; k < n; k++)
			SAY(", ones_%d_%d", i, k);
		SAY(")\n");
	}
	return body_end(&b, text);
}

/* -Y^T d Y^T */
enum linnet_code grad_inverse(struct shape_call *c, const char **text)
{
	struct body b;

	if (c->in[0]->shape.rank < 2)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of inverses of unknown rank");
	body_begin(&b, c);
	swap_last(&b, "yt", "Y", c->in[0]->shape.rank);
	SAY("left = MatMul (yt, d_Y)\nboth = MatMul (left, yt)\nd_X = Neg (both)\n");
	return body_end(&b, text);
}

/*
 * The matrix of cofactors, (-1)^(i + j) times the determinant without row i and column j: defined where the matrix is singular too.
 */
enum linnet_code grad_det(struct shape_call *c, const char **text)
{
	const struct shape *x = &c->in[0]->shape;
	int r = x->rank;
	int64_t n = r < 2 ? -1 : x->d[r - 1];
	struct body b;

	if (r < 2 || r + 2 > MAX_RANK || !is_int(n) || n < 1 || n > 32)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of determinants that are not of known length, from 1 to 32, and of rank up to %d", MAX_RANK - 2);
	body_begin(&b, c);
	if (n == 1) {
		SAY("shape = Shape (X)\nd_X = Reshape <allowzero = 1> (d_Y, shape)\n");
		return body_end(&b, text);
	}
	SAY("others = Constant <value = int64[%d, %d] {", (int)n, (int)n - 1);
	for (int i = 0; i < n * (n - 1); i++) {
		int row = i / ((int)n - 1), k = i % ((int)n - 1);

		SAY("%s%d", i ? ", " : "", k < row ? k : k + 1);
	}
	SAY("}> ()\nsigns = Constant <value = double[%d, %d] {", (int)n, (int)n);
	for (int i = 0; i < n * n; i++)
		SAY("%s%d.0", i ? ", " : "", (i / n + i % n) % 2 ? -1 : 1);
	SAY("}> ()\nrows = Gather <axis = -2> (X, others)\nall = Gather <axis = -1> (rows, others)\nminors = Transpose <perm = [");
	for (int i = 0; i < r - 2; i++)
		SAY("%d, ", i);
	SAY("%d, %d, %d, %d]> (all)\nminor = Det (minors)\ncofactor = Mul (minor, signs)\nlast = Constant <value = int64[2] {-2, -1}> ()\n"
	    "d = Unsqueeze (d_Y, last)\nd_X = Mul (d, cofactor)\n", r - 2, r, r - 1, r + 1);
	return body_end(&b, text);
}

/* ---- layout.c ---- */

enum linnet_code grad_transpose(struct shape_call *c, const char **text)
{
	const struct attr *perm = get(c, "perm");
	struct body b;

	body_begin(&b, c);
	SAY("d_data = Transpose");
	for (int64_t i = 0; attr_given(perm) && i < (int64_t)perm->n; i++) {
		int64_t k = 0;

		while (perm->ints[k] != i)
			k++;
		SAY("%s%lld", i ? ", " : " <perm = [", (long long)k);
	}
	SAY(attr_given(perm) && perm->n ? "]> (d_transposed)\n" : " (d_transposed)\n");
	return body_end(&b, text);
}

enum linnet_code grad_concat(struct shape_call *c, const char **text)
{
	int axis = (int)get(c, "axis")->i;
	struct body b;

	body_begin(&b, c);
	for (int i = 0; i < c->nin; i++) {
		const struct shape *s = &c->in[i]->shape;
		char name[32], of[32];

		snprintf(name, sizeof name, "n%d", i);
		snprintf(of, sizeof of, "inputs_%d", i);
		body_length(&b, name, s->rank >= 0 ? s->d[axis < 0 ? axis + s->rank : axis] : DIM_NONE, of, axis);
	}
	SAY("sizes = Concat <axis = 0> (");
	for (int i = 0; i < c->nin; i++)
		SAY("%sn%d", i ? ", " : "", i);
	SAY(")\n");
	for (int i = 0; i < c->nin; i++)
		SAY("%sd_inputs_%d", i ? ", " : "", i);
	SAY(" = Split <axis = %d> (d_concat_result, sizes)\n", axis);
	return body_end(&b, text);
}

enum linnet_code grad_split(struct shape_call *c, const char **text)
{
	struct body b;

	body_begin(&b, c);
	number(&b, "zero", 0);
	for (int i = 0; i < c->nout; i++) {
		if (c->wanted[i])
			continue;
		SAY("shape_%d = Shape (outputs_%d)\nd_%d = Expand (zero, shape_%d)\n", i, i, i, i);
	}
	SAY("d_input = Concat <axis = %d> (", (int)get(c, "axis")->i);
	for (int i = 0; i < c->nout; i++)
		SAY(c->wanted[i] ? "%sd_outputs_%d" : "%sd_%d", i ? ", " : "", i);
	SAY(")\n");
	return body_end(&b, text);
}

/* Zeros around it where the places are known and there are no strides, else by number of element. */
enum linnet_code grad_slice(struct shape_call *c, const char **text)
{
	static const char by_number[] = GRAD_OF_PICKING("data", "output", "Slice (all, starts, ends, axes, steps)");
	const struct shape *s = &c->in[0]->shape;
	int64_t pads[2 * MAX_RANK] = { 0 };
	struct body b;

	*text = by_number;
	for (int i = 1; i < c->nin; i++)
		if (c->in[i] && !c->in[i]->value)
			return LINNET_OK;
	if (s->rank < 0)
		return LINNET_OK;
	for (int64_t i = 0; i < c->in[1]->value->n; i++) {
		int64_t from = tensor_get_int(c->in[1]->value, i), to = tensor_get_int(c->in[2]->value, i), axis = i, n;

		if (c->nin > 3 && c->in[3])
			axis = tensor_get_int(c->in[3]->value, i);
		axis += axis < 0 ? s->rank : 0;
		if (c->nin > 4 && c->in[4] && tensor_get_int(c->in[4]->value, i) != 1)
			return LINNET_OK;
		n = s->d[axis];
		if (!is_int(n))
			return LINNET_OK;
		from = from < -n ? 0 : from < 0 ? from + n : from > n ? n : from;
		to = to < -n ? 0 : to < 0 ? to + n : to > n ? n : to;
		pads[axis] = from;
		pads[s->rank + axis] = n - (to > from ? to : from);
	}
	body_begin(&b, c);
	body_ints(&b, "pads", 2 * s->rank, pads);
	SAY("d_data = Pad (d_output, pads)\n");
	return body_end(&b, text);
}

enum linnet_code grad_pad(struct shape_call *c, const char **text)
{
	static const char by_number[] = GRAD_OF_PICKING("data", "output", "Pad <mode: string = @mode> (all, pads, , axes)");
	/* What is filled in is number `count`, behind the last. */
	static const char with_constant[] =
		"{ count = Size (data)\n"
		"  lengths = Shape (data)\n"
		"  first = Constant <value = int64 {0}> ()\n"
		"  step = Constant <value = int64 {1}> ()\n"
		"  flat = Constant <value = int64[1] {-1}> ()\n"
		"  line = Range (first, count, step)\n"
		"  all = Reshape <allowzero = 1> (line, lengths)\n"
		"  picked = Pad (all, pads, count, axes)\n"
		"  where = Reshape (picked, flat)\n"
		"  what = Reshape (d_output, flat)\n"
		"  more = Add (count, step)\n"
		"  length = Reshape (more, flat)\n" REAL("zero", "0.0")
		"  zeros = Expand (zero, length)\n"
		"  sums = ScatterElements <reduction = \"add\"> (zeros, where, what)\n"
		"  one = Constant <value = int64[1] {1}> ()\n"
		"  size = Reshape (count, flat)\n"
		"  cut = Concat <axis = 0> (size, one)\n"
		"  mine, d_constant_value = Split (sums, cut)\n"
		"  d_data = Reshape <allowzero = 1> (mine, lengths) }";
	const struct tensor *pads = c->in[1]->value;
	int rank = c->in[0]->shape.rank;
	struct body b;

	*text = with_constant;
	if (get(c, "mode")->s.n != strlen("constant")) {
		*text = by_number;
		return LINNET_OK;
	}
	if (!pads || rank < 0 || (c->nin > 3 && c->in[3]) || (c->nin > 2 && c->in[2] && !c->in[2]->value))
		return LINNET_OK;
	for (int64_t i = 0; i < pads->n; i++)
		if (tensor_get_int(pads, i) < 0)
			return LINNET_OK;
	body_begin(&b, c);
	int64_t from[MAX_RANK], to[MAX_RANK];
	for (int i = 0; i < rank; i++) {
		from[i] = tensor_get_int(pads, i);
		to[i] = tensor_get_int(pads, rank + i) ? -tensor_get_int(pads, rank + i) : INT64_MAX;
	}
	body_ints(&b, "starts", rank, from);
	body_ints(&b, "ends", rank, to);
	SAY("d_data = Slice (d_output, starts, ends)\n");
	return body_end(&b, text);
}

enum linnet_code grad_dropout(struct shape_call *c, const char **text)
{
	static const char training[] = "?ratio {" REAL("one", "1.0") REAL("zero", "0.0")
		"  r = CastLike (ratio, data)\n"
		"  kept = Sub (one, r)\n"
		"  d = Div (d_output, kept)\n"
		"  trained = Where (mask, d, zero)\n"
		"  d_data = Where (training_mode, trained, d_output) }\n"
		"{" REAL("two", "2.0") REAL("zero", "0.0")
		"  d = Mul (d_output, two)\n"
		"  trained = Where (mask, d, zero)\n"
		"  d_data = Where (training_mode, trained, d_output) }";
	const struct type *mode = c->nin > 2 ? c->in[2] : NULL;

	*text = !mode || (mode->value && !tensor_get_int(mode->value, 0)) ? "{ d_data = Identity (d_output) }" : training;
	return LINNET_OK;
}

/* ---- index.c ---- */

/* Updates of zeros, along an axis that is brought to the front. */
enum linnet_code grad_gather(struct shape_call *c, const char **text)
{
	int r = c->in[0]->shape.rank, q = c->in[1]->shape.rank, axis = (int)get(c, "axis")->i;
	struct body b;

	if (r < 0 || q < 0)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of a Gather of unknown rank");
	axis += axis < 0 ? r : 0;
	body_begin(&b, c);
	number(&b, "zero", 0);
	SAY("shape = Shape (data)\naxis = Constant <value = int64 {%d}> ()\nlength = Gather (shape, axis)\n"
	    "i64 = Cast <to = 7> (indices)\nnone = Constant <value = int64 {0}> ()\nbehind = Less (i64, none)\n"
	    "other = Add (i64, length)\nplace = Where (behind, other, i64)\n"
	    "last = Constant <value = int64[1] {-1}> ()\nplaces = Unsqueeze (place, last)\n", axis);
	if (!axis) {
		SAY("zeros = Expand (zero, shape)\nd_data = ScatterND <reduction = \"add\"> (zeros, places, d_output)\n");
		return body_end(&b, text);
	}
	SAY("d = Transpose <perm = [");
	for (int i = 0; i < q; i++)
		SAY("%s%d", i ? ", " : "", axis + i);
	for (int i = 0; i < r; i++)
		if (i != axis)
			SAY("%s%d", q || i ? ", " : "", i < axis ? i : i + q - 1);
	SAY("]> (d_output)\norder = Constant <value = int64[%d] {%d", r, axis);
	for (int i = 0; i < r; i++)
		if (i != axis)
			SAY(", %d", i);
	SAY("}> ()\nfront = Gather (shape, order)\nzeros = Expand (zero, front)\n"
	    "sums = ScatterND <reduction = \"add\"> (zeros, places, d)\nd_data = Transpose <perm = [");
	for (int i = 0; i < r; i++)
		SAY("%s%d", i ? ", " : "", i == axis ? 0 : i < axis ? i + 1 : i);
	SAY("]> (sums)\n");
	return body_end(&b, text);
}

/* A product of the others that go to the same place: of all without zeros, where no other is zero. */
static void scattered_product(struct body *b, const char *scatter, const char *gather)
{
	number(b, "zero", 0);
	number(b, "one", 1);
	for (const char *x = "du"; *x; x++)
		str_addf(&b->s, "is_%c = Equal (%s, zero)\nzeros_%c = CastLike (is_%c, d_output)\nx_%c = Where (is_%c, one, %s)\n", *x, *x == 'd' ? "data" : "updates", *x, *x, *x, *x,
		         *x == 'd' ? "data" : "updates");
	str_addf(&b->s, scatter, "count", "add", "zeros_d", "zeros_u");
	str_addf(&b->s, scatter, "all", "mul", "x_d", "x_u");
	str_addf(&b->s, gather, "count_u", "count");
	str_addf(&b->s, gather, "all_u", "all");
	str_addf(&b->s, gather, "there", "d_output");
	str_add(&b->s, "count_d = Identity (count)\nall_d = Identity (all)\n");
	for (const char *x = "du"; *x; x++)
		str_addf(&b->s, "others_%c = Sub (count_%c, zeros_%c)\nnone_%c = Equal (others_%c, zero)\nrest_%c = Div (all_%c, x_%c)\nslope_%c = Where (none_%c, rest_%c, zero)\n"
		         "d_%s = Mul (%s, slope_%c)\n", *x, *x, *x, *x, *x, *x, *x, *x, *x, *x, *x, *x == 'd' ? "data" : "updates", *x == 'd' ? "d_output" : "there", *x);
}

/* Those that are the largest, or smallest, share it. */
static void scattered_extreme(struct body *b, const char *scatter, const char *gather)
{
	str_addf(&b->s, gather, "y_u", "output");
	str_add(&b->s, "is_d = Equal (data, output)\nis_u = Equal (updates, y_u)\nones_d = CastLike (is_d, d_output)\nones_u = CastLike (is_u, d_output)\n");
	str_addf(&b->s, scatter, "count", "add", "ones_d", "ones_u");
	str_add(&b->s, "share = Div (d_output, count)\nd_data = Mul (share, ones_d)\n");
	str_addf(&b->s, gather, "there", "share");
	str_add(&b->s, "d_updates = Mul (there, ones_u)\n");
}

/* ScatterElements and ScatterND. Of updates that replace at the same place the last one counts. */
enum linnet_code grad_scatter(struct shape_call *c, const char **text)
{
	char how = get(c, "reduction")->s.p[1]; /* none, add, mul, max, min */
	bool nd = !strcmp(c->op->name, "ScatterND");
	char axis[40] = "", scatter[100], gather[80];
	struct body b;

	if (!nd)
		snprintf(axis, sizeof axis, " axis = %d", (int)get(c, "axis")->i);
	snprintf(scatter, sizeof scatter, "%%s = %s <%s%s reduction = \"%%s\"> (%%s, indices, %%s)\n", c->op->name, axis, nd ? "" : ",");
	if (nd)
		snprintf(gather, sizeof gather, "%%s = GatherND (%%s, indices)\n");
	else
		snprintf(gather, sizeof gather, "%%s = GatherElements <%s> (%%s, indices)\n", axis);
	body_begin(&b, c);
	if (how == 'u') {
		scattered_product(&b, scatter, gather);
		return body_end(&b, text);
	}
	if (how == 'a' || how == 'i') {
		scattered_extreme(&b, scatter, gather);
		return body_end(&b, text);
	}
	SAY(gather, "there", "d_output");
	if (how == 'd') {
		SAY("d_data = Identity (d_output)\nd_updates = Identity (there)\n");
		return body_end(&b, text);
	}
	number(&b, "zero", 0);
	SAY("shape = Shape (updates)\nzeros = Expand (zero, shape)\n");
	SAY(scatter, "d_data", "none", "d_output", "zeros");
	SAY("n = Size (updates)\nfrom = Constant <value = int64 {0}> ()\nstep = Constant <value = int64 {1}> ()\n"
	    "line = Range (from, n, step)\nnumbers = Reshape <allowzero = 1> (line, shape)\n"
	    "data_shape = Shape (data)\nbase = Expand (from, data_shape)\n");
	SAY(scatter, "last", "none", "base", "numbers");
	SAY(gather, "who", "last");
	SAY("counts = Equal (who, numbers)\nd_updates = Where (counts, there, zero)\n");
	return body_end(&b, text);
}

/* Equal elements or slices share what their one gets. */
enum linnet_code grad_unique(struct shape_call *c, const char **text)
{
	const struct attr *axis = get(c, "axis");
	bool along = attr_given(axis);
	int r = c->in[0]->shape.rank, at;
	struct body b;

	if (along && r < 0)
		return fail(c->e, LINNET_EUNSUPPORTED, "the gradient of Unique slices of unknown rank");
	at = along ? (int)axis->i + (axis->i < 0 ? r : 0) : 0;
	body_begin(&b, c);
	if (along)
		SAY("u, first, which, many = Unique <axis = %d, sorted = %d> (X)\n", at, (int)get(c, "sorted")->i);
	else
		SAY("u, first, which, many = Unique <sorted = %d> (X)\n", (int)get(c, "sorted")->i);
	SAY("n0 = CastLike (many, d_Y)\n");
	if (along && at < r - 1) {
		SAY("behind = Constant <value = int64[%d] {", r - 1 - at);
		for (int i = 1; i < r - at; i++)
			SAY("%s%d", i > 1 ? ", " : "", i);
		SAY("}> ()\nn = Unsqueeze (n0, behind)\n");
	} else {
		SAY("n = Identity (n0)\n");
	}
	SAY("share = Div (d_Y, n)\neach = Gather <axis = %d> (share, which)\nshape = Shape (X)\nd_X = Reshape <allowzero = 1> (each, shape)\n", at);
	return body_end(&b, text);
}

enum linnet_code grad_topk(struct shape_call *c, const char **text)
{
	struct body b;

	body_begin(&b, c);
	number(&b, "zero", 0);
	SAY("shape = Shape (X)\nzeros = Expand (zero, shape)\n");
	SAY("d_X = ScatterElements <axis = %d, reduction = \"add\"> (zeros, %s, d_Values)\n", (int)get(c, "axis")->i,
	    c->nout > 1 ? "Indices" : "places");
	return body_end(&b, text);
}

/* ---- norm.c ---- */

/* The normalised axes as `axes`; false where the rank is not known. */
static bool norm_axes(struct body *b, const struct shape_call *c)
{
	int rank = c->in[0]->shape.rank;
	int64_t axis = get(c, "axis")->i, axes[MAX_RANK];
	int n = 0;

	if (rank < 0)
		return false;
	for (axis += axis < 0 ? rank : 0; axis < rank; axis++)
		axes[n++] = axis;
	body_ints(b, "axes", n, axes);
	return true;
}

/* Computed in the type of the input, when that is not narrow. */
static bool wide(const struct shape_call *c)
{
	for (int i = 0; i < c->nin; i++)
		if (c->in[i] && c->in[i]->dt != c->in[0]->dt)
			return false;
	return dtype_in(c->in[0]->dt, SET(FLOAT) | SET(DOUBLE));
}

/*
 * With n normalised, i the inverse deviation, g = dY scale, N elements: dX = i (g - mean g - n mean (g n)) + dMean / N - dInvStdDev i^2 n / N.
 * Differences are taken before i, which is large where rows hardly vary, multiplies them.
 */
enum linnet_code grad_layer_norm(struct shape_call *c, const char **text)
{
	bool mean = c->nout > 1 && c->wanted[1], inverse = c->nout > 2 && c->wanted[2];
	struct body b;

	*text = NULL;
	if (!wide(c))
		return LINNET_OK;
	body_begin(&b, c);
	if (!norm_axes(&b, c))
		return LINNET_OK;
	number(&b, "eps", get(c, "epsilon")->f);
	SAY("m = ReduceMean (X, axes)\nx = Sub (X, m)\nxx = Mul (x, x)\nv = ReduceMean (xx, axes)\nve = Add (v, eps)\ns = Sqrt (ve)\n"
	    "i = Reciprocal (s)\nn = Mul (x, i)\n");
	if (c->wanted[0])
		SAY("g = Mul (d_Y, Scale)\ng1 = ReduceMean (g, axes)\ngn = Mul (g, n)\ng2 = ReduceMean (gn, axes)\n"
		    "along = Mul (n, g2)\nflat = Sub (g, g1)\nrest = Sub (flat, along)\nby_Y = Mul (rest, i)\n"
		    "d_Scale = Mul (d_Y, n)\nd_B = Identity (d_Y)\n");
	if (mean || inverse)
		SAY("all = Size (X)\nrows = Size (m)\neach = Div (all, rows)\nN = CastLike (each, X)\n");
	if (mean)
		SAY("dm = CastLike (d_Mean, X)\nm_share = Div (dm, N)\nto = Shape (X)\nby_Mean = Expand (m_share, to)\n");
	if (inverse)
		SAY("di = CastLike (d_InvStdDev, X)\ni_share = Div (di, N)\nii = Mul (i, i)\ni_by = Mul (i_share, ii)\ni_minus = Neg (i_by)\nby_InvStdDev = Mul (i_minus, n)\n");
	SAY("d_X = Sum (%s%s%s%s%s)\n", c->wanted[0] ? "by_Y" : "", c->wanted[0] && (mean || inverse) ? ", " : "", mean ? "by_Mean" : "", mean && inverse ? ", " : "",
	    inverse ? "by_InvStdDev" : "");
	return body_end(&b, text);
}

enum linnet_code grad_rms_norm(struct shape_call *c, const char **text)
{
	struct body b;

	*text = NULL;
	if (!wide(c))
		return LINNET_OK;
	body_begin(&b, c);
	if (!norm_axes(&b, c))
		return LINNET_OK;
	number(&b, "eps", get(c, "epsilon")->f);
	SAY("xx = Mul (X, X)\nv = ReduceMean (xx, axes)\nve = Add (v, eps)\ns = Sqrt (ve)\ni = Reciprocal (s)\nn = Mul (X, i)\n"
	    "g = Mul (d_Y, scale)\ngn = Mul (g, n)\ng2 = ReduceMean (gn, axes)\n"
	    "along = Mul (n, g2)\nrest = Sub (g, along)\nd_X = Mul (rest, i)\nd_scale = Mul (d_Y, n)\n");
	return body_end(&b, text);
}

/* ---- loss.c ---- */

/* `weighed`: what each sample's loss is multiplied with, as a class axis of length 1 beside it; `places`: its class. */
static void loss_weights(struct body *b, const struct shape_call *c, const char *labels, const char *out)
{
	const struct attr *ignore = get(c, "ignore_index");
	const char *how = attr_given(get(c, "reduction")) ? get(c, "reduction")->s.p : "mean";

	str_addf(&b->s, "one = Constant <value = int64[1] {1}> ()\nl64 = Cast <to = 7> (%s)\n", labels);
	if (attr_given(ignore)) {
		str_addf(&b->s, "ignored = Constant <value = int64 {%lld}> ()\nfirst = Constant <value = int64 {0}> ()\n", (long long)ignore->i);
		str_addf(&b->s, "skip = Equal (l64, ignored)\nclass = Where (skip, first, l64)\ncounts = Not (skip)\nweight0 = CastLike (counts, d_%s)\n",
		         out);
	} else {
		number(b, "unit", 1);
		str_addf(&b->s, "class = Identity (l64)\nl_shape = Shape (l64)\nweight0 = Expand (unit, l_shape)\n");
	}
	if (*how == 'm')
		str_addf(&b->s, "total = ReduceSum <keepdims = 0> (weight0)\nshare = Div (d_%s, total)\nweight1 = Mul (weight0, share)\n", out);
	else
		str_addf(&b->s, "weight1 = Mul (weight0, d_%s)\n", out);
	str_addf(&b->s, "weighed = Unsqueeze (weight1, one)\nplaces = Unsqueeze (class, one)\n");
}

/* (softmax - one at the class) times the weight. */
enum linnet_code grad_cross_entropy(struct shape_call *c, const char **text)
{
	struct body b;

	*text = NULL;
	if ((c->nin > 2 && c->in[2]) || (c->nout > 1 && c->wanted[1]))
		return LINNET_OK;
	body_begin(&b, c);
	loss_weights(&b, c, "labels", "output");
	number(&b, "minus", -1);
	SAY("p = Softmax <axis = 1> (scores)\nw = Mul (p, weighed)\nopposite = Neg (weighed)\n"
	    "d_scores = ScatterElements <axis = 1, reduction = \"add\"> (w, places, opposite)\n");
	return body_end(&b, text);
}

enum linnet_code grad_nll(struct shape_call *c, const char **text)
{
	struct body b;

	*text = NULL;
	if (c->nin > 2 && c->in[2])
		return LINNET_OK;
	body_begin(&b, c);
	loss_weights(&b, c, "target", "loss");
	number(&b, "zero", 0);
	SAY("shape = Shape (input)\nzeros = Expand (zero, shape)\nopposite = Neg (weighed)\n"
	    "d_input = ScatterElements <axis = 1> (zeros, places, opposite)\n");
	return body_end(&b, text);
}
