/*
 * Operators that draw random numbers: reference kernels, then rows.
 *
 * The generator is splitmix64 (ops/base/rng.h). It starts anew in each call, at the 64 bits of attribute `seed` as a double when
 * that is given, else at the seed the run gives the node (docs/design.md, Random operators). Elements are drawn in row-major order,
 * each from one number of [0, 1), normal ones from two. ONNX prescribes no generator: other implementations draw other numbers
 * from the same seed.
 */
#include <string.h>

#include "ops/base/rng.h"
#include "ops/kernel.h"

static struct rng generator(const struct kernel_call *c)
{
	const struct attr *seed = attr_get(c->op, c->attr, "seed");
	struct rng r = { c->seed };

	if (attr_given(seed))
		memcpy(&r.state, &seed->f, sizeof r.state);
	return r;
}

/* The element type that `dtype` names, without it the input's. */
static enum linnet_code like_shape(struct shape_call *c)
{
	enum dtype dt = c->in[0]->dt;

	TRY(shape_same(c));
	c->out[0].dt = dtype_in(dt, c->op->types[T2]) ? dt : DT_UNDEFINED;
	TRY(attr_dtype(c, "dtype"));
	if (dt != DT_UNDEFINED && c->out[0].dt == DT_UNDEFINED)
		return fail(c->e, LINNET_EATTR, "attribute \"dtype\" is left out and %s does not make the input's type, %s", c->op->name,
		            dtype_name(dt));
	return LINNET_OK;
}

static enum linnet_code given_shape(struct shape_call *c)
{
	const struct attr *shape = attr_get(c->op, c->attr, "shape");

	TRY(attr_dtype(c, "dtype"));
	TRY(rank_limit((int64_t)shape->n, c->e));
	c->out[0].shape.rank = (int)shape->n;
	for (size_t i = 0; i < shape->n; i++) {
		if (shape->ints[i] < 0)
			return fail(c->e, LINNET_ESHAPE, "length %zu of the shape is %lld; it must not be negative", i,
			            (long long)shape->ints[i]);
		c->out[0].shape.d[i] = shape->ints[i];
	}
	return LINNET_OK;
}

/* low + (high - low) u, which the element type may round to high. */
static enum linnet_code uniform(struct kernel_call *c)
{
	double low = attr_get(c->op, c->attr, "low")->f, high = attr_get(c->op, c->attr, "high")->f;
	struct rng r = generator(c);

	for (int64_t i = 0; i < c->out[0]->n; i++)
		tensor_put(c->out[0], i, low + (high - low) * rng_unit(&r));
	return LINNET_OK;
}

/* mean + scale sqrt(-2 log(1 - u)) cos(2 pi v). Source: Box and Muller, Annals of Mathematical Statistics 29, 1958. */
static enum linnet_code normal(struct kernel_call *c)
{
	double mean = attr_get(c->op, c->attr, "mean")->f, scale = attr_get(c->op, c->attr, "scale")->f;
	struct rng r = generator(c);

	for (int64_t i = 0; i < c->out[0]->n; i++) {
		double radius = sqrt(-2 * log1p(-rng_unit(&r))), turn = rng_unit(&r);

		tensor_put(c->out[0], i, mean + scale * radius * cos(6.283185307179586477 * turn));
	}
	return LINNET_OK;
}

/* 1 where u is below the probability. */
static enum linnet_code bernoulli(struct kernel_call *c)
{
	struct rng r = generator(c);

	for (int64_t i = 0; i < c->out[0]->n; i++) {
		double p = tensor_get(c->in[0], i);

		if (!(p >= 0 && p <= 1))
			return fail(c->e, LINNET_EVALUE, "element %lld is %g; expected a probability", (long long)i, p);
		tensor_put(c->out[0], i, rng_unit(&r) < p);
	}
	return LINNET_OK;
}

static enum linnet_code multinomial_shape(struct shape_call *c)
{
	const struct shape *in = &c->in[0]->shape;

	TRY(attr_dtype(c, "dtype"));
	TRY(rank_check(c, 0, 2, 2));
	c->out[0].shape = (struct shape){ .rank = 2, .d = { in->rank < 0 ? DIM_NONE : in->d[0], attr_get(c->op, c->attr, "sample_size")->i } };
	return LINNET_OK;
}

/* The first class up to which the probabilities exp(x) / sum exp(x) add to more than u. */
static enum linnet_code multinomial(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0];
	struct linnet_error *e = c->e;
	struct rng r = generator(c);
	int64_t classes = x->d[1];
	double *sum; /* of exp up to and with the class */

	TRY_NEW(sum, c->scratch, classes);
	for (int64_t b = 0; b < y->d[0]; b++) {
		double max = -INFINITY, total = 0;

		for (int64_t k = 0; k < classes; k++)
			max = larger(tensor_get(x, b * classes + k), max);
		if (!isfinite(max))
			return fail(e, LINNET_EVALUE, "row %lld gives no class a probability", (long long)b);
		for (int64_t k = 0; k < classes; k++)
			sum[k] = total += exp(tensor_get(x, b * classes + k) - max);
		for (int64_t i = 0; i < y->d[1]; i++) {
			double u = rng_unit(&r) * total;
			int64_t k = 0;

			while (sum[k] <= u)
				k++;
			tensor_put_int(y, b * y->d[1] + i, k);
		}
	}
	return LINNET_OK;
}

#define SEED { .name = "seed", .kind = ATTR_FLOAT, .flags = OPTIONAL }
#define DTYPE { .name = "dtype", .kind = ATTR_INT, .i = DT_FLOAT }
#define DTYPE_OR_INPUT { .name = "dtype", .kind = ATTR_INT, .flags = OPTIONAL }
#define SHAPE { .name = "shape", .kind = ATTR_INTS, .flags = REQUIRED }
#define NORMAL { .name = "mean", .kind = ATTR_FLOAT }, { .name = "scale", .kind = ATTR_FLOAT, .f = 1 }
#define UNIFORM { .name = "high", .kind = ATTR_FLOAT, .f = 1 }, { .name = "low", .kind = ATTR_FLOAT }

#define BERNOULLI(seed, last)                                                                      \
	"{ u = RandomUniformLike <dtype = 11" seed "> (input)\n"                                   \
	"  p = Cast <to = 11> (input)\n"                                                           \
	"  hit = Less (u, p)\n"                                                                    \
	"  output = " last " }\n"
#define BERNOULLI_SEEDED(last) BERNOULLI(", seed: float = @seed", last)

static const struct op rows[] = {
	{
		.name = "RandomUniform", .since = 1,
		.doc = "Numbers drawn uniformly from low to high.",
		.out = OUT({ "output", T }),
		.attr = ATTRS(DTYPE, UNIFORM, SEED, SHAPE),
		.types = { [T] = FLOATS },
		.agree = AGREE_RANDOM,
		.shape = given_shape, .kernel = uniform,
	},
	{
		.name = "RandomUniformLike", .since = 1,
		.doc = "Numbers drawn uniformly from low to high, as many as the input has.",
		.in = IN({ "input", T1 }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS(DTYPE_OR_INPUT, UNIFORM, SEED),
		.types = { [T1] = COMMON, [T2] = FLOATS },
		.agree = AGREE_RANDOM, .flags = OP_SHAPE_ONLY,
		.shape = like_shape, .kernel = uniform,
	},
	{
		.name = "RandomNormal", .since = 1,
		.doc = "Numbers drawn from the normal distribution of a mean and a standard deviation.",
		.out = OUT({ "output", T }),
		.attr = ATTRS(DTYPE, NORMAL, SEED, SHAPE),
		.types = { [T] = FLOATS },
		.agree = AGREE_RANDOM,
		.shape = given_shape, .kernel = normal,
	},
	{
		.name = "RandomNormalLike", .since = 1,
		.doc = "Numbers drawn from the normal distribution of a mean and a standard deviation, as many as the input has.",
		.in = IN({ "input", T1 }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS(DTYPE_OR_INPUT, NORMAL, SEED),
		.types = { [T1] = COMMON, [T2] = FLOATS },
		.agree = AGREE_RANDOM, .flags = OP_SHAPE_ONLY,
		.shape = like_shape, .kernel = normal,
	},
	{
		.name = "Bernoulli", .since = 15,
		.doc = "1 with the probability that the element is, else 0.",
		.in = IN({ "input", T1 }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS(DTYPE_OR_INPUT, SEED),
		.types = { [T1] = FLOATS, [T2] = NUMBERS | SET(BOOL) },
		.agree = AGREE_RANDOM,
		.shape = like_shape, .kernel = bernoulli,
		.body = "?seed\n"
		        "?dtype " BERNOULLI_SEEDED("Cast <to: int = @dtype> (hit)") BERNOULLI_SEEDED("CastLike (hit, input)")
		        "?dtype " BERNOULLI("", "Cast <to: int = @dtype> (hit)") BERNOULLI("", "CastLike (hit, input)"),
	},
	{
		.name = "Multinomial", .since = 7,
		.doc = "Classes drawn at random, for each row of logarithms of their probabilities, which need not sum to 1.",
		.in = IN({ "input", T1 }),
		.out = OUT({ "output", T2 }),
		.attr = ATTRS({ .name = "dtype", .kind = ATTR_INT, .i = DT_INT32 },
		              { .name = "sample_size", .kind = ATTR_INT, .i = 1, .lo = 0, .hi = INT32_MAX }, SEED),
		.types = { [T1] = FLOATS, [T2] = INDICES },
		.agree = AGREE_RANDOM,
		.shape = multinomial_shape, .kernel = multinomial,
	},
};

const struct op_family random_ops = FAMILY("random", rows);
