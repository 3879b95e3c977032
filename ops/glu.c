/*
 * linnet's own operator for gated linear units: y = act(gate) * value, what every variant becomes. Written to a file it is its body.
 *
 * Source: Shazeer, GLU Variants Improve Transformer, 2020, section 2.
 */
#include <math.h>
#include <string.h>

#include "ops/fast/fast.h"
#include "ops/op.h"

static double sigmoid(double x)
{
	return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

static double identity(double x, double alpha) { (void)alpha; return x; }
static double logistic(double x, double alpha) { (void)alpha; return sigmoid(x); }
static double relu(double x, double alpha) { (void)alpha; return x > 0 ? x : 0; }
static double swish(double x, double alpha) { return x * sigmoid(alpha * x); }
static double gelu(double x, double alpha) { (void)alpha; return 0.5 * x * (1 + erf(x * sqrt(0.5))); }

static double gelu_tanh(double x, double alpha)
{
	(void)alpha;
	return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static const struct {
	const char *name;
	double (*f)(double x, double alpha);
} activation[] = { { "identity", identity }, { "sigmoid", logistic }, { "relu", relu },
	           { "swish", swish },       { "gelu", gelu },        { "gelu_tanh", gelu_tanh } };

static enum linnet_code glu(struct kernel_call *c)
{
	const struct text name = attr_get(c->op, c->attr, "activation")->s;
	double alpha = attr_get(c->op, c->attr, "alpha")->f;
	double (*f)(double, double) = identity;

	for (size_t i = 0; i < sizeof activation / sizeof *activation; i++)
		if (strlen(activation[i].name) == name.n && !memcmp(activation[i].name, name.p, name.n))
			f = activation[i].f;
	for (int64_t i = 0; i < c->out[0]->n; i++)
		tensor_put(c->out[0], i, f(tensor_get(c->in[0], i), alpha) * tensor_get(c->in[1], i));
	return LINNET_OK;
}

static enum linnet_code glu_shape(struct shape_call *c)
{
	const struct shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
	struct shape s;

	TRY(broadcast(c->dims, a, b, &s, c->e));
	if (shape_known(a) && shape_known(b) && !shape_equal(a, b))
		return fail(c->e, LINNET_ESHAPE, "gate and value differ in shape");
	c->out[0].shape = s;
	return LINNET_OK;
}

static const struct op rows[] = {
	{
		.domain = "linnet",
		.name = "GLU",
		.since = 1,
		.doc = "A gated linear unit: the activation of one projection times another.",
		.in = IN({ "gate", T, FLOW_SMOOTH }, { "value", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "activation", .kind = ATTR_STRING, .flags = REQUIRED, .oneof = "identity|sigmoid|relu|swish|gelu|gelu_tanh" },
		              { .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = glu_shape,
		.kernel = glu,
		.fast = FAST(&fast_glu),
		.body = "?activation=sigmoid { a = Sigmoid (gate)\n Y = Mul (a, value) }\n"
		        "?activation=relu { a = Relu (gate)\n Y = Mul (a, value) }\n"
		        "?activation=swish { a = Swish <alpha: float = @alpha> (gate)\n Y = Mul (a, value) }\n"
		        "?activation=gelu { a = Gelu (gate)\n Y = Mul (a, value) }\n"
		        "?activation=gelu_tanh { a = Gelu <approximate = \"tanh\"> (gate)\n Y = Mul (a, value) }\n"
		        "{ Y = Mul (gate, value) }",
		.fuzz = { .shapes = FUZZ_SAME, .lo = -4, .hi = 4 },
	},
};

const struct op_family glu_ops = FAMILY("glu", rows);
