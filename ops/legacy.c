/*
 * Operators as they were before opset 7 (and BatchNormalization before 14): inputs that broadcast only on request, from a given
 * axis on, and attributes that said which inputs an operator may overwrite.
 */
#include <ctype.h>
#include <string.h>

#include "ops/body.h"
#include "ops/kernel.h"

#define HALF_AND_UP (SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16))
#define WIDE_INTS (SET(INT32) | SET(INT64) | SET(UINT32) | SET(UINT64))

static const struct attr *attr_of(const struct shape_call *c, const char *name) { return attr_get(c->op, c->attr, name); }

/* ---- Broadcasting ---- */

/*
 * C = op (A, B1), where B1 is B with `ones` axes of length 1 behind its own, so that B's axes are those of A from `axis` on:
 * ones = rank A - axis - rank B, which goes by the ranks when it is run where they are not known.
 */
static void put_aligned(struct body *b, int64_t axis, bool clamp, int ones)
{
	const struct op *op = b->c->op;
	const char *x = op->in[0].name, *y = op->in[1].name;
	int rank = b->c->in[1]->shape.rank;
	int64_t axes[MAX_RANK];

	if (ones > 0) {
		for (int i = 0; i < ones; i++)
			axes[i] = rank + i;
		body_ints(b, "axes", ones, axes);
		str_addf(&b->s, "aligned = Unsqueeze (%s, axes)\n", y);
	} else if (ones < 0) {
		body_ints(b, "axis", 1, &axis);
		body_ints(b, "zero", 1, (int64_t[]){ 0 });
		body_ints(b, "one", 1, (int64_t[]){ 1 });
		str_addf(&b->s, "shape = Shape (%s)\nrank = Shape (shape)\n", x);
		str_addf(&b->s, "shape2 = Shape (%s)\nrank2 = Shape (shape2)\n", y);
		str_addf(&b->s, "%s", axis < 0 ? "from = Add (rank, axis)\n" : "from = Identity (axis)\n");
		str_add(&b->s, "behind = Sub (rank, from)\nmissing = Sub (behind, rank2)\n");
		str_add(&b->s, clamp ? "count = Max (missing, zero)\n" : "count = Identity (missing)\n");
		str_add(&b->s, "ones = Expand (one, count)\nlengths = Concat <axis = 0> (shape2, ones)\n");
		str_addf(&b->s, "aligned = Reshape (%s, lengths)\n", y);
	}
	str_addf(&b->s, "%s = %s (%s, %s)\n", op->out[0].name, op->name, x, ones ? "aligned" : y);
}

/*
 * Without `broadcast` the shapes are equal. With it B's are lengths of A, from `axis` on or, without `axis`, the last ones.
 * Source: the operators' descriptions of opsets 1 and 6.
 */
static enum linnet_code write_broadcast(struct shape_call *c, const char **text)
{
	const struct shape *x = &c->in[0]->shape, *y = &c->in[1]->shape;
	const struct attr *axis = attr_of(c, "axis");
	bool known = x->rank >= 0 && y->rank >= 0;
	int64_t from = axis->i;
	struct body b;
	int ones = 0;

	if (!attr_of(c, "broadcast")->i) {
		if (known && x->rank != y->rank)
			return fail(c->e, LINNET_ESHAPE, "ranks %d and %d differ, and broadcast is not asked for", x->rank, y->rank);
		for (int i = 0; known && i < x->rank; i++)
			TRY(length_join(c, "lengths", x->d[i], y->d[i], NULL));
	} else if (!attr_given(axis)) {
		if (known && y->rank > x->rank)
			return fail(c->e, LINNET_ESHAPE, "input \"%s\" has rank %d, more than %d", c->op->in[1].name, y->rank, x->rank);
	} else if (known) {
		from += from < 0 ? x->rank : 0;
		if (from < 0 || from + y->rank > x->rank)
			return fail(c->e, LINNET_ESHAPE, "axis is %lld; %d axes from there on are not among %d", (long long)axis->i,
			            y->rank, x->rank);
		ones = x->rank - (int)from - y->rank;
	} else {
		ones = -1;
	}
	body_begin(&b, c);
	put_aligned(&b, from, false, ones);
	return body_end(&b, text);
}

/* A slope for every channel, axis 1, which later had to be shaped so; or one for all. */
static enum linnet_code write_prelu(struct shape_call *c, const char **text)
{
	int x = c->in[0]->shape.rank, slope = c->in[1]->shape.rank, ones = x - 1 - slope;
	struct body b;

	body_begin(&b, c);
	put_aligned(&b, 1, true, x < 0 || slope < 0 ? -1 : ones < 0 ? 0 : ones);
	return body_end(&b, text);
}

/* ---- Normalisation ---- */

/*
 * With more outputs than one, and not is_test, the statistics are the batch's, and the outputs are the running ones updated
 * with them, and theirs. Not spatial: statistics for every element of a sample, which are channels of x3 [N, all of them, 1].
 */
static enum linnet_code write_batch_norm(struct shape_call *c, const char **text)
{
	const struct attr *spatial = attr_of(c, "spatial"), *test = attr_of(c, "is_test");
	static const char *const own[] = { "mean1", "var1", "mean2", "var2" };
	bool train = false, folded;
	struct body b;

	for (int i = 1; i < c->nout; i++)
		train |= c->wanted[i];
	if (train && attr_given(test) && test->i)
		return fail(c->e, LINNET_EATTR, "outputs beyond the first are of training, and is_test is %lld", (long long)test->i);
	folded = train || (attr_given(spatial) && !spatial->i);
	body_begin(&b, c);
	if (!folded) {
		str_add(&b.s, "Y = BatchNormalization <epsilon: float = @epsilon> (X, scale, B, mean, var)\n");
		return body_end(&b, text);
	}
	body_ints(&b, "rest", 1, (int64_t[]){ -1 });
	body_ints(&b, "zero", 1, (int64_t[]){ 0 });
	str_add(&b.s, "shape = Shape (X)\nsize = Size (scale)\nchannels = Reshape (size, rest)\n"
	              "shape3 = Concat <axis = 0> (zero, channels, rest)\nx3 = Reshape (X, shape3)\n"
	              "s = Reshape (scale, rest)\nb = Reshape (B, rest)\nm = Reshape (mean, rest)\nv = Reshape (var, rest)\n");
	if (train)
		str_add(&b.s, "y3, mean1, var1 = BatchNormalization <epsilon: float = @epsilon, momentum: float = @momentum, "
		              "training_mode = 1> (x3, s, b, m, v)\n");
	else
		str_add(&b.s, "y3 = BatchNormalization <epsilon: float = @epsilon> (x3, s, b, m, v)\n");
	str_add(&b.s, "Y = Reshape (y3, shape)\n");
	if (train) {
		body_ints(&b, "axes", 2, (int64_t[]){ 0, 2 });
		str_add(&b.s, "mean2 = ReduceMean (x3, axes)\nd = Sub (x3, mean2)\ndd = Mul (d, d)\nvar2 = ReduceMean (dd, axes)\n"
		              "shape1 = Shape (mean)\n");
		for (int i = 1; i < c->nout; i++)
			str_addf(&b.s, "%s = Reshape (%s, shape1)\n", c->op->out[i].name, own[i - 1]);
	}
	return body_end(&b, text);
}

static enum linnet_code shape_batch_norm(struct shape_call *c)
{
	c->out[0].shape = c->in[0]->shape;
	for (int i = 1; i < c->nout; i++)
		c->out[i].shape = c->in[3]->shape;
	return LINNET_OK;
}

/* Whether a BatchNormalization of now is one of then. */
static bool inference(const struct op *op, const struct attr *attr, int nin, const struct type *const *in)
{
	for (int i = 1; i < nin; i++)
		if (in[i]->dt != in[0]->dt)
			return false;
	return !attr_get(op, attr, "training_mode")->i;
}

/* Not is_test: elements are dropped. The mask was in the element type of the data. */
static enum linnet_code write_dropout(struct shape_call *c, const char **text)
{
	bool mask = c->nout > 1 && c->wanted[1];
	struct body b;

	body_begin(&b, c);
	str_add(&b.s, "ratio = Constant <value_float: float = @ratio> ()\n");
	str_addf(&b.s, "training = Constant <value = bool {%d}> ()\n", !attr_of(c, "is_test")->i);
	str_addf(&b.s, "output%s = Dropout (data, ratio, training)\n", mask ? ", kept" : "");
	if (mask)
		str_add(&b.s, "mask = CastLike (kept, data)\n");
	return body_end(&b, text);
}

/* ---- Pooling with p as a float ---- */

static enum linnet_code shape_pool(struct shape_call *c)
{
	c->out[0].shape = c->in[0]->shape;
	for (int i = 2; i < c->out[0].shape.rank; i++)
		c->out[0].shape.d[i] = DIM_NONE; /* known when the node is lowered */
	return LINNET_OK;
}

/* The integer p, or (sum of (|x|^p)^1)^(1/p). */
static enum linnet_code write_pool(struct shape_call *c, const char **text)
{
	bool window = op_attr_index(c->op, "kernel_shape") >= 0;
	double p = attr_of(c, "p")->f;
	bool whole = p == floor(p) && p <= INT32_MAX;
	struct body b;

	if (!(p > 0))
		return fail(c->e, LINNET_EATTR, "attribute \"p\" is %g; it must be positive", p);
	body_begin(&b, c);
	if (!whole) {
		body_float(&b, "p", c->in[0]->dt, p);
		body_float(&b, "q", c->in[0]->dt, 1 / p);
		str_add(&b.s, "size = Abs (X)\npower = Pow (size, p)\n");
	}
	str_addf(&b.s, "%s = %s <p = %d%s> (%s)\n", whole ? "Y" : "sum", c->op->name, whole ? (int)p : 1,
	         window ? ", auto_pad: string = @auto_pad, kernel_shape: ints = @kernel_shape, pads: ints = @pads, strides: ints = @strides"
	                : "",
	         whole ? "X" : "power");
	if (!whole)
		str_add(&b.s, "Y = Pow (sum, q)\n");
	return body_end(&b, text);
}

/* ---- Cast to a type by name ---- */

static enum linnet_code named_type(struct shape_call *c, enum dtype *t)
{
	struct text s = attr_of(c, "to")->s;
	char name[32] = "";

	for (size_t i = 0; i < s.n && i < sizeof name - 1; i++)
		name[i] = (char)tolower((unsigned char)s.p[i]);
	*t = s.n < sizeof name ? dtype_parse(name, s.n) : DT_UNDEFINED;
	if (!dtype_in(*t, c->op->types[T2]))
		return fail(c->e, LINNET_EATTR, "attribute \"to\" is \"%.*s\"; expected the name of an element type, as FLOAT", (int)s.n, s.p);
	return LINNET_OK;
}

static enum linnet_code shape_cast(struct shape_call *c)
{
	TRY(named_type(c, &c->out[0].dt));
	c->out[0].shape = c->in[0]->shape;
	return LINNET_OK;
}

static enum linnet_code write_cast(struct shape_call *c, const char **text)
{
	struct body b;
	enum dtype t;

	TRY(named_type(c, &t));
	body_begin(&b, c);
	str_addf(&b.s, "output = Cast <to = %d> (input)\n", (int)t);
	return body_end(&b, text);
}

/* Max and its like of opsets before 8 did not broadcast. */
static bool same_shapes(const struct op *op, const struct attr *attr, int nin, const struct type *const *in)
{
	(void)op;
	(void)attr;
	for (int i = 0; i < nin; i++)
		if (!in[i] || !shape_equal(&in[i]->shape, &in[0]->shape))
			return false;
	return true;
}

/* ---- Rows ---- */

#define CONSUMED { .name = "consumed_inputs", .kind = ATTR_INTS, .flags = OPTIONAL, .input = IGNORED }
#define NUMBER(title, value) { .name = title, .kind = ATTR_FLOAT, .f = value }
#define FLAG(title, value) { .name = title, .kind = ATTR_INT, .i = value }
#define AXIS { .name = "axis", .kind = ATTR_INT, .flags = OPTIONAL }, FLAG("broadcast", 0)
#define XY .in = IN({ "X", T }), .out = OUT({ "Y", T })
#define INPUT .in = IN({ "input", T }), .out = OUT({ "output", T })

/* As it is now, but for the attribute that says nothing. */
#define FIRST(title, ...) { .name = title, .since = 1, .types = { [T] = HALF_AND_UP }, __VA_ARGS__ }

#define ALIGNED(title, first, set, ...)                                                            \
	{                                                                                          \
		.name = title, .since = first, .in = IN({ "A", T }, { "B", T }), .types = { [T] = set, [T1] = SET(BOOL) }, \
		.shape = shape_same, .write_lower = write_broadcast, __VA_ARGS__                   \
	}
#define ARITHMETIC(title)                                                                          \
	ALIGNED(title, 1, HALF_AND_UP, .out = OUT({ "C", T }), .attr = ATTRS(AXIS, CONSUMED)),     \
	ALIGNED(title, 6, HALF_AND_UP | WIDE_INTS, .out = OUT({ "C", T }), .attr = ATTRS(AXIS))
#define COMPARISON(title, set) ALIGNED(title, 1, set, .out = OUT({ "C", T1 }), .attr = ATTRS(AXIS))

#define FOLD(title, result)                                                                        \
	{                                                                                          \
		.name = title, .since = 1, .in = IN({ "data_0", T, FLOW_NONE, VARIADIC }), .out = OUT({ result, T }), \
		.attr = ATTRS(CONSUMED), .types = { [T] = HALF_AND_UP }, .same = same_shapes       \
	},                                                                                         \
	{                                                                                          \
		.name = title, .since = 6, .in = IN({ "data_0", T, FLOW_NONE, VARIADIC }), .out = OUT({ result, T }), \
		.types = { [T] = HALF_AND_UP }, .flags = OP_OLD, .same = same_shapes               \
	}

#define GEMM(first)                                                                                \
	{                                                                                          \
		.name = "Gemm", .since = first, .in = IN({ "A", T }, { "B", T }, { "C", T }), .out = OUT({ "Y", T }), \
		.attr = ATTRS(NUMBER("alpha", 1), NUMBER("beta", 1),                               \
		              { .name = "broadcast", .kind = ATTR_INT, .input = IGNORED },         \
		              FLAG("transA", 0), FLAG("transB", 0)),                               \
		.types = { [T] = HALF_AND_UP },                                                    \
	}

/* Names of outputs that are also an input's are the newest's. */
#define BATCH_NORM(first, ...)                                                                     \
	{                                                                                          \
		.name = "BatchNormalization", .since = first,                                      \
		.in = IN({ "X", T }, { "scale", T }, { "B", T }, { "mean", T }, { "var", T }),     \
		.out = OUT({ "Y", T }, { "running_mean", T, .flags = OPTIONAL }, { "running_var", T, .flags = OPTIONAL }, \
		           { "saved_mean", T, .flags = OPTIONAL }, { "saved_var", T, .flags = OPTIONAL }), \
		.attr = ATTRS(NUMBER("epsilon", 1e-5f), __VA_ARGS__), .types = { [T] = HALF_AND_UP }, \
		.shape = shape_batch_norm, .write_lower = write_batch_norm, .same = inference,     \
	}
#define MOMENTUM NUMBER("momentum", 0.9f)

#define DROPOUT(first, ...)                                                                        \
	{                                                                                          \
		.name = "Dropout", .since = first, .in = IN({ "data", T }),                        \
		.out = OUT({ "output", T }, { "mask", T, FLOW_NONE, OPTIONAL }),                   \
		.attr = ATTRS(__VA_ARGS__, NUMBER("ratio", 0.5)),                                  \
		.types = { [T] = HALF_AND_UP }, .shape = shape_same, .write_lower = write_dropout, \
	}

/* output_sequence said whether Y is wanted. */
#define RECURRENT_INPUTS                                                                           \
	{ "X", T }, { "W", T }, { "R", T }, { "B", T, FLOW_NONE, OPTIONAL }, { "sequence_lens", T1, FLOW_NONE, OPTIONAL }, \
	{ "initial_h", T, FLOW_NONE, OPTIONAL }
#define RECURRENT(title, first, ...)                                                               \
	{                                                                                          \
		.name = title, .since = first, .types = { [T] = HALF_AND_UP, [T1] = SET(INT32) }, __VA_ARGS__ \
	}
#define CELL                                                                                       \
	{ .name = "activation_alpha", .kind = ATTR_FLOATS, .flags = OPTIONAL },                    \
	{ .name = "activation_beta", .kind = ATTR_FLOATS, .flags = OPTIONAL },                     \
	{ .name = "activations", .kind = ATTR_STRINGS }, { .name = "clip", .kind = ATTR_FLOAT, .flags = OPTIONAL }, \
	{ .name = "direction", .kind = ATTR_STRING, .s = "forward" },                              \
	{ .name = "hidden_size", .kind = ATTR_INT, .flags = OPTIONAL },                            \
	{ .name = "output_sequence", .kind = ATTR_INT, .input = IGNORED }

static const struct op rows[] = {
	FIRST("Abs", XY, .attr = ATTRS(CONSUMED)),
	FIRST("Ceil", XY, .attr = ATTRS(CONSUMED)),
	FIRST("Floor", XY, .attr = ATTRS(CONSUMED)),
	FIRST("Neg", XY, .attr = ATTRS(CONSUMED)),
	FIRST("Reciprocal", XY, .attr = ATTRS(CONSUMED)),
	FIRST("Relu", XY, .attr = ATTRS(CONSUMED)),
	FIRST("Sigmoid", XY, .attr = ATTRS(CONSUMED)),
	FIRST("Sqrt", XY, .attr = ATTRS(CONSUMED)),
	FIRST("Exp", INPUT, .attr = ATTRS(CONSUMED)),
	FIRST("Log", INPUT, .attr = ATTRS(CONSUMED)),
	FIRST("Tanh", INPUT, .attr = ATTRS(CONSUMED)),
	FIRST("Elu", XY, .attr = ATTRS(CONSUMED, NUMBER("alpha", 1))),
	FIRST("LeakyRelu", XY, .attr = ATTRS(CONSUMED, NUMBER("alpha", 0.01f))),
	FIRST("HardSigmoid", XY, .attr = ATTRS(CONSUMED, NUMBER("alpha", 0.2f), NUMBER("beta", 0.5))),
	FIRST("Selu", XY, .attr = ATTRS(CONSUMED, NUMBER("alpha", 1.6732f), NUMBER("gamma", 1.0507f))),
	FIRST("Clip", INPUT, .attr = ATTRS(CONSUMED, { .name = "max", .kind = ATTR_FLOAT, .flags = OPTIONAL, .input = 2 },
	                                   { .name = "min", .kind = ATTR_FLOAT, .flags = OPTIONAL, .input = 1 })),
	FIRST("InstanceNormalization", .in = IN({ "input", T }, { "scale", T }, { "B", T }), .out = OUT({ "output", T }),
	      .attr = ATTRS(CONSUMED, NUMBER("epsilon", 1e-5f))),
	FIRST("Concat", .in = IN({ "inputs", T, FLOW_NONE, VARIADIC }), .out = OUT({ "concat_result", T }),
	      .attr = ATTRS(FLAG("axis", 1)), .flags = OP_OLD),
	FIRST("Split", .in = IN({ "input", T }, { "split", T, FLOW_NONE, OPTIONAL }), .out = OUT({ "outputs...", T, FLOW_NONE, VARIADIC }),
	      .attr = ATTRS(FLAG("axis", 0), { .name = "split", .kind = ATTR_INTS, .flags = OPTIONAL, .input = 1 })),
	FIRST("Reshape", .in = IN({ "data", T }), .out = OUT({ "reshaped", T }),
	      .attr = ATTRS(CONSUMED, { .name = "shape", .kind = ATTR_INTS, .flags = OPTIONAL, .input = 1 })),
	FIRST("Pad", .in = IN({ "data", T }), .out = OUT({ "output", T }),
	      .attr = ATTRS({ .name = "mode", .kind = ATTR_STRING, .s = "constant", .oneof = "constant|reflect|edge" },
	                    { .name = "paddings", .kind = ATTR_INTS, .flags = REQUIRED, .input = 1 },
	                    { .name = "value", .kind = ATTR_FLOAT, .input = 2 })),
	ARITHMETIC("Add"),
	ARITHMETIC("Sub"),
	ARITHMETIC("Mul"),
	ARITHMETIC("Div"),
	COMPARISON("And", SET(BOOL)),
	COMPARISON("Or", SET(BOOL)),
	COMPARISON("Xor", SET(BOOL)),
	COMPARISON("Equal", SET(BOOL) | INDICES),
	COMPARISON("Greater", HALF_AND_UP),
	COMPARISON("Less", HALF_AND_UP),
	{
		.name = "Pow", .since = 1, .in = IN({ "X", T }, { "Y", T }), .out = OUT({ "Z", T }), .attr = ATTRS(AXIS),
		.types = { [T] = HALF_AND_UP }, .shape = shape_same, .write_lower = write_broadcast,
	},
	{
		.name = "PRelu", .since = 1, .in = IN({ "X", T }, { "slope", T }), .out = OUT({ "Y", T }), .attr = ATTRS(CONSUMED),
		.types = { [T] = HALF_AND_UP }, .shape = shape_same, .write_lower = write_prelu,
	},
	{
		.name = "PRelu", .since = 6, .in = IN({ "X", T }, { "slope", T }), .out = OUT({ "Y", T }),
		.types = { [T] = HALF_AND_UP }, .shape = shape_same, .write_lower = write_prelu,
	},
	FOLD("Max", "max"),
	FOLD("Mean", "mean"),
	FOLD("Min", "min"),
	FOLD("Sum", "sum"),
	GEMM(1),
	GEMM(6),
	BATCH_NORM(1, { .name = "consumed_inputs", .kind = ATTR_INTS, .flags = REQUIRED, .input = IGNORED },
	           MOMENTUM, FLAG("is_test", 0), FLAG("spatial", 1)),
	BATCH_NORM(6, MOMENTUM, FLAG("is_test", 0), FLAG("spatial", 1)),
	BATCH_NORM(7, MOMENTUM, FLAG("spatial", 1)),
	BATCH_NORM(9, MOMENTUM),
	DROPOUT(1, CONSUMED, FLAG("is_test", 0)),
	DROPOUT(6, FLAG("is_test", 0)),
	{
		.name = "LpPool", .since = 1, XY,
		.attr = ATTRS({ .name = "auto_pad", .kind = ATTR_STRING, .s = "NOTSET" },
		              { .name = "kernel_shape", .kind = ATTR_INTS, .flags = OPTIONAL }, NUMBER("p", 2),
		              { .name = "pads", .kind = ATTR_INTS, .flags = OPTIONAL },
		              { .name = "strides", .kind = ATTR_INTS, .flags = OPTIONAL }),
		.types = { [T] = HALF_AND_UP }, .shape = shape_pool, .write_lower = write_pool,
	},
	{
		.name = "GlobalLpPool", .since = 1, XY, .attr = ATTRS(NUMBER("p", 2)),
		.types = { [T] = HALF_AND_UP }, .shape = shape_pool, .write_lower = write_pool,
	},
	RECURRENT("RNN", 1, .in = IN(RECURRENT_INPUTS),
	          .out = OUT({ "Y", T, FLOW_NONE, OPTIONAL }, { "Y_h", T, FLOW_NONE, OPTIONAL }), .attr = ATTRS(CELL)),
	RECURRENT("GRU", 1, .in = IN(RECURRENT_INPUTS), .out = OUT({ "Y", T, FLOW_NONE, OPTIONAL }, { "Y_h", T }), .attr = ATTRS(CELL)),
	RECURRENT("GRU", 3, .in = IN(RECURRENT_INPUTS),
	          .out = OUT({ "Y", T, FLOW_NONE, OPTIONAL }, { "Y_h", T, FLOW_NONE, OPTIONAL }),
	          .attr = ATTRS(CELL, FLAG("linear_before_reset", 0))),
	RECURRENT("LSTM", 1,
	          .in = IN(RECURRENT_INPUTS, { "initial_c", T, FLOW_NONE, OPTIONAL }, { "P", T, FLOW_NONE, OPTIONAL }),
	          .out = OUT({ "Y", T, FLOW_NONE, OPTIONAL }, { "Y_h", T, FLOW_NONE, OPTIONAL }, { "Y_c", T, FLOW_NONE, OPTIONAL }),
	          .attr = ATTRS(CELL, FLAG("input_forget", 0))),
	{
		.name = "Cast", .since = 1, .in = IN({ "input", T1 }), .out = OUT({ "output", T2 }),
		.attr = ATTRS({ .name = "to", .kind = ATTR_STRING, .flags = REQUIRED }),
		.types = { [T1] = HALF_AND_UP | INTS | SET(BOOL), [T2] = HALF_AND_UP | INTS | SET(BOOL) },
		.shape = shape_cast, .write_lower = write_cast,
	},
	{
		.name = "Tile", .since = 1, .doc = "The input repeated along one axis.",
		.in = IN({ "input", T }, { "tiles", T }, { "axis", T }), .out = OUT({ "output", T }),
		.types = { [T] = HALF_AND_UP },
		.lower = "{ one = Constant <value_ints = [1]> ()\n"
		         "  shape = Shape (input)\n"
		         "  rank = Shape (shape)\n"
		         "  ones = Expand (one, rank)\n"
		         "  tiles64 = Cast <to = 7> (tiles)\n"
		         "  count = Reshape (tiles64, one)\n"
		         "  axis64 = Cast <to = 7> (axis)\n"
		         "  at = Reshape (axis64, one)\n"
		         "  repeats = ScatterElements (ones, at, count)\n"
		         "  output = Tile (input, repeats) }",
	},
	{
		.name = "Upsample", .since = 1, XY,
		.attr = ATTRS({ .name = "height_scale", .kind = ATTR_FLOAT, .flags = REQUIRED },
		              { .name = "mode", .kind = ATTR_STRING, .s = "nearest", .oneof = "nearest|bilinear" },
		              { .name = "width_scale", .kind = ATTR_FLOAT, .flags = REQUIRED }),
		.types = { [T] = HALF_AND_UP | INDICES | SET(BOOL) },
#define SCALES                                                                                     \
	"{ one = Constant <value_floats = [1.0, 1.0]> ()\n"                                        \
	"  h = Constant <value_float: float = @height_scale> ()\n"                                 \
	"  w = Constant <value_float: float = @width_scale> ()\n"                                  \
	"  n = Constant <value_ints = [1]> ()\n"                                                   \
	"  h1 = Reshape (h, n)\n"                                                                  \
	"  w1 = Reshape (w, n)\n"                                                                  \
	"  scales = Concat <axis = 0> (one, h1, w1)\n"                                             \
	"  Y = Resize <coordinate_transformation_mode = \"asymmetric\", nearest_mode = \"floor\", mode = "
		.lower = "?mode=bilinear\n" SCALES "\"linear\"> (X, , scales) }\n" SCALES "\"nearest\"> (X, , scales) }",
	},
};

const struct op_family legacy_ops = FAMILY("legacy", rows);
