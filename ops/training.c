/* Optimizers' steps (ai.onnx.preview.training): reference kernels, then rows. */
#include <math.h>
#include <string.h>

#include "ops/kernel.h"

/*
 * Inputs are R, T and then groups of n tensors each: the optimized ones X1 .. Xn, their gradients G1 .. Gn, and what is kept between
 * steps; outputs are the new X1 .. Xn and the new kept ones. `kept` groups of them: the row's param.
 */
static int kept_of(const struct op *op) { return *(const int *)op->param; }

static enum linnet_code step_shape(struct shape_call *c)
{
	int kept = kept_of(c->op), n = (c->nin - 2) / (kept + 2);

	TRY(scalar_check(c, 0));
	TRY(scalar_check(c, 1));
	if (c->nin != 2 + n * (kept + 2))
		return fail(c->e, LINNET_EMODEL, "%d inputs given; expected R, T and a multiple of %d", c->nin, kept + 2);
	if (c->nout != n * (kept + 1))
		return fail(c->e, LINNET_EMODEL, "%d outputs taken; expected %d for %d inputs", c->nout, n * (kept + 1), c->nin);
	for (int i = 0; i < n; i++) {
		const struct type *x = c->in[2 + i];

		for (int g = 1; g < kept + 2; g++) {
			const struct type *other = c->in[2 + g * n + i];

			if (x->shape.rank >= 0 && other->shape.rank >= 0 && x->shape.rank != other->shape.rank)
				return fail(c->e, LINNET_ESHAPE, "ranks of input %d and input %d differ: %d and %d", 2 + i, 2 + g * n + i,
				            x->shape.rank, other->shape.rank);
			for (int k = 0; k < x->shape.rank && other->shape.rank >= 0; k++)
				TRY(length_join(c, "lengths of a tensor and what belongs to it", x->shape.d[k], other->shape.d[k], NULL));
			if (x->dt != DT_UNDEFINED && other->dt != DT_UNDEFINED && x->dt != other->dt)
				return fail(c->e, LINNET_ETYPE, "input %d has element type %s; expected %s as input %d has", 2 + g * n + i,
				            dtype_name(other->dt), dtype_name(x->dt), 2 + i);
		}
		for (int g = 0; g <= kept; g++) {
			c->out[g * n + i].dt = x->dt;
			c->out[g * n + i].shape = x->shape;
		}
	}
	return LINNET_OK;
}

/* The step of one number: x its value and gradient g, kept[0..) what is kept, all updated. */
typedef void step_fn(const struct kernel_call *c, double rate, double count, double *x, double g, double *kept);

static double number(const struct kernel_call *c, const char *name) { return attr_get(c->op, c->attr, name)->f; }

static enum linnet_code step(struct kernel_call *c, step_fn *f)
{
	int kept = kept_of(c->op), n = (c->nin - 2) / (kept + 2);
	double rate = tensor_get(c->in[0], 0), count = tensor_get(c->in[1], 0), v[3];

	for (int i = 0; i < n; i++)
		for (int64_t j = 0; j < c->in[2 + i]->n; j++) {
			v[0] = tensor_get(c->in[2 + i], j);
			for (int g = 0; g < kept; g++)
				v[1 + g] = tensor_get(c->in[2 + (2 + g) * n + i], j);
			f(c, rate, count, &v[0], tensor_get(c->in[2 + n + i], j) + number(c, "norm_coefficient") * v[0], &v[1]);
			for (int g = 0; g <= kept; g++)
				if (c->out[g * n + i])
					tensor_put(c->out[g * n + i], j, v[g]);
		}
	return LINNET_OK;
}

/* h += g^2; x -= R / (1 + T decay) g / (sqrt(h) + epsilon) */
static void adagrad_step(const struct kernel_call *c, double rate, double count, double *x, double g, double *h)
{
	*h += g * g;
	*x -= rate / (1 + count * number(c, "decay_factor")) * g / (sqrt(*h) + number(c, "epsilon"));
}

/* v, h: running means of g and g^2. x -= R' v / (sqrt(h) + epsilon), R' = R sqrt(1 - beta^T) / (1 - alpha^T) from T = 1 on, R before;
 * then x is scaled by 1 - norm_coefficient_post. */
static void adam_step(const struct kernel_call *c, double rate, double count, double *x, double g, double *kept)
{
	double alpha = number(c, "alpha"), beta = number(c, "beta");
	double v = alpha * kept[0] + (1 - alpha) * g, h = beta * kept[1] + (1 - beta) * g * g;

	if (count > 0)
		rate *= sqrt(1 - pow(beta, count)) / (1 - pow(alpha, count));
	*x = (1 - number(c, "norm_coefficient_post")) * (*x - rate * v / (sqrt(h) + number(c, "epsilon")));
	kept[0] = v;
	kept[1] = h;
}

/* v = alpha v + beta g, without beta at T = 0; x -= R v, or with Nesterov's x -= R (g + alpha v). */
static void momentum_step(const struct kernel_call *c, double rate, double count, double *x, double g, double *v)
{
	double alpha = number(c, "alpha");
	bool nesterov = attr_get(c->op, c->attr, "mode")->s.p[0] == 'n';

	*v = alpha * *v + (count > 0 ? number(c, "beta") : 1) * g;
	*x -= rate * (nesterov ? g + alpha * *v : *v);
}

static enum linnet_code adagrad(struct kernel_call *c) { return step(c, adagrad_step); }
static enum linnet_code adam(struct kernel_call *c) { return step(c, adam_step); }
static enum linnet_code momentum(struct kernel_call *c) { return step(c, momentum_step); }

/* A gradient is like the value it goes with. */
static enum linnet_code gradient_shape(struct shape_call *c)
{
	for (int i = 0; i < c->nout && i < c->nin; i++) {
		c->out[i].dt = c->in[i]->dt;
		c->out[i].shape = c->in[i]->shape;
	}
	return LINNET_OK;
}

#define STEP(groups)                                                                               \
	.domain = "ai.onnx.preview.training", .since = 1, .agree = AGREE_ROUND,                    \
	.in = IN({ "R", T1 }, { "T", T2 }, { "inputs", T3, FLOW_NONE, VARIADIC | HETERO }),        \
	.out = OUT({ "outputs", T3, FLOW_NONE, VARIADIC | HETERO }),                               \
	.types = { [T1] = SET(FLOAT) | SET(DOUBLE), [T2] = SET(INT64), [T3] = SET(FLOAT) | SET(DOUBLE) }, \
	.shape = step_shape, .param = &(const int){ groups }
#define NUMBER(title, value) { .name = title, .kind = ATTR_FLOAT, .f = value }

static const struct op rows[] = {
	{
		.domain = "ai.onnx.preview.training", .name = "Gradient", .since = 1,
		.doc = "The gradient of the value named y with respect to those named xs, at the inputs; those named zs are constant. The importer "
		       "puts the nodes that compute it in its place.",
		.in = IN({ "Inputs", T1, FLOW_NONE, VARIADIC | HETERO }),
		.out = OUT({ "Outputs", T2, FLOW_NONE, VARIADIC | HETERO }),
		.attr = ATTRS({ .name = "xs", .kind = ATTR_STRINGS, .flags = REQUIRED }, { .name = "y", .kind = ATTR_STRING, .flags = REQUIRED },
		              { .name = "zs", .kind = ATTR_STRINGS, .flags = OPTIONAL }),
		.types = { [T1] = COMMON & ~SET(BFLOAT16), [T2] = SET(FLOAT16) | SET(FLOAT) | SET(DOUBLE) }, .agree = AGREE_ROUND,
		.shape = gradient_shape,
	},
	{
		.name = "Adagrad", STEP(1), .kernel = adagrad,
		.doc = "A step of AdaGrad: each number's rate is divided by the root of its squared gradients' sum.",
		.attr = ATTRS(NUMBER("decay_factor", 0), NUMBER("epsilon", 1e-6f), NUMBER("norm_coefficient", 0)),
	},
	{
		.name = "Adam", STEP(2), .kernel = adam,
		.doc = "A step of Adam: along the gradient's running mean, divided by the root of its square's running mean.",
		.attr = ATTRS(NUMBER("alpha", 0.9f), NUMBER("beta", 0.999f), NUMBER("epsilon", 1e-6f), NUMBER("norm_coefficient", 0),
		              NUMBER("norm_coefficient_post", 0)),
	},
	{
		.name = "Momentum", STEP(1), .kernel = momentum,
		.doc = "A step of gradient descent with momentum, the standard one or Nesterov's.",
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .flags = REQUIRED }, { .name = "beta", .kind = ATTR_FLOAT, .flags = REQUIRED },
		              { .name = "mode", .kind = ATTR_STRING, .flags = REQUIRED, .oneof = "nesterov|standard" },
		              { .name = "norm_coefficient", .kind = ATTR_FLOAT, .flags = REQUIRED }),
	},
};

const struct op_family training_ops = FAMILY("training", rows);
