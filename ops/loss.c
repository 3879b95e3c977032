/* Losses of classifiers: reference kernels, then rows. */
#include <math.h>

#include "ops/body.h"
#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/kernel.h"

enum { SCORES, TARGET, WEIGHT };
enum { IGNORE_INDEX, REDUCTION };

/* input: [N, C, d...]  target: [N, d...]  weight: [C]  loss: [N, d...] or, reduced, []  log_prob: as input */
static enum linnet_code shape_loss(struct shape_call *c)
{
	const struct shape *x = &c->in[SCORES]->shape, *target = &c->in[TARGET]->shape;
	bool reduced = c->attr[REDUCTION].s.p[0] != 'n'; /* none, sum, mean */
	struct shape *y = &c->out[0].shape;

	TRY(rank_check(c, SCORES, 2, MAX_RANK));
	TRY(rank_check(c, TARGET, x->rank < 0 ? 1 : x->rank - 1, x->rank < 0 ? MAX_RANK - 1 : x->rank - 1));
	*y = *target;
	if (x->rank >= 0) {
		*y = (struct shape){ .rank = x->rank - 1 };
		for (int i = 0; i < y->rank; i++) {
			y->d[i] = x->d[i ? i + 1 : 0];
			if (target->rank >= 0)
				TRY(length_join(c, "lengths of the scores and the classes", y->d[i], target->d[i], &y->d[i]));
		}
	}
	if (c->nin > WEIGHT && c->in[WEIGHT]) {
		TRY(rank_check(c, WEIGHT, 1, 1));
		if (x->rank >= 0 && c->in[WEIGHT]->shape.rank == 1)
			TRY(length_join(c, "numbers of classes of the scores and the weights", x->d[1], c->in[WEIGHT]->shape.d[0], NULL));
	}
	if (reduced)
		*y = (struct shape){ .rank = 0 };
	if (c->nout > 1)
		c->out[1].shape = *x;
	return LINNET_OK;
}

/*
 * loss[n, k] = -p[n, t, k] w[t] with t = target[n, k], where that is not ignore_index, else 0; w is 1 when left out. The mean
 * is sum of loss / sum of w[t] over what is not ignored.
 */
static enum linnet_code put_loss(struct kernel_call *c, const double *p)
{
	const struct attr *ignore = &c->attr[IGNORE_INDEX];
	const struct tensor *x = c->in[SCORES], *target = c->in[TARGET];
	int64_t classes = x->d[1], inner = x->d[0] && target->n ? target->n / x->d[0] : 0;
	char kind = c->attr[REDUCTION].s.p[0];
	double sum = 0, weights = 0;
	const double *w;

	TRY(kernel_doubles(c, WEIGHT, &w));
	for (int64_t i = 0; i < target->n; i++) {
		int64_t t = tensor_get_int(target, i);
		double loss = 0;

		if (!attr_given(ignore) || t != ignore->i) {
			if (t < 0 || t >= classes)
				return fail(c->e, LINNET_EVALUE, "class %lld is not in [0, %lld)", (long long)t, (long long)classes);
			loss = -p[(i / inner * classes + t) * inner + i % inner] * (w ? w[t] : 1);
			weights += w ? w[t] : 1;
		}
		sum += loss;
		if (kind == 'n' && c->out[0])
			tensor_put(c->out[0], i, loss);
	}
	if (kind != 'n' && c->out[0])
		tensor_put(c->out[0], 0, kind == 's' ? sum : sum / weights);
	return LINNET_OK;
}

static enum linnet_code nll(struct kernel_call *c)
{
	const double *p;

	TRY(kernel_doubles(c, SCORES, &p));
	return put_loss(c, p);
}

/* p[n, t, k] = x[n, t, k] - log(sum over classes s of e^x[n, s, k]) */
static enum linnet_code cross_entropy(struct kernel_call *c)
{
	const struct tensor *x = c->in[SCORES];
	int64_t classes = x->d[1], lines = c->in[TARGET]->n, inner = x->d[0] && lines ? lines / x->d[0] : 0;
	struct linnet_error *e = c->e;
	double *p;

	TRY_NEW(p, c->scratch, x->n);
	for (int64_t i = 0; i < lines; i++) {
		int64_t at = i / inner * classes * inner + i % inner;
		double most = -INFINITY, sum = 0;

		for (int64_t s = 0; s < classes; s++)
			most = larger(most, tensor_get(x, at + s * inner));
		for (int64_t s = 0; s < classes; s++)
			sum += exp(tensor_get(x, at + s * inner) - most);
		for (int64_t s = 0; s < classes; s++)
			p[at + s * inner] = tensor_get(x, at + s * inner) - most - log(sum);
	}
	for (int64_t i = 0; i < x->n && c->nout > 1 && c->out[1]; i++)
		tensor_put(c->out[1], i, p[i]);
	return put_loss(c, p);
}

/* The loss named `loss` of log-probabilities named p. */
static void body_loss(struct body *b, const char *p, const char *loss)
{
	struct shape_call *c = b->c;
	const char *target = c->op->in[TARGET].name, *weight = c->nin > WEIGHT && c->in[WEIGHT] ? c->op->in[WEIGHT].name : NULL;
	bool ignore = attr_given(&c->attr[IGNORE_INDEX]), wide = c->in[TARGET]->dt == DT_INT64;
	const char *index = wide ? "int64" : "int32", *t;
	int64_t ignored = c->attr[IGNORE_INDEX].i;
	char kind = c->attr[REDUCTION].s.p[0];

	if (!wide && ignored != (int32_t)ignored)
		ignore = false; /* no class is that */
	t = ignore ? "kept" : target;
	body_ints(b, "one", 1, &(int64_t){ 1 });
	body_float(b, "zero", c->in[SCORES]->dt, 0);
	if (ignore)
		str_addf(&b->s,
		         "ignored = Constant <value = %s {%lld}> ()\n"
		         "first = Constant <value = %s {0}> ()\n"
		         "hit = Equal (%s, ignored)\n"
		         "kept = Where (hit, first, %s)\n", index, (long long)ignored, index, target, target);
	str_addf(&b->s,
	         "place = Unsqueeze (%s, one)\n"
	         "picked = GatherElements <axis = 1> (%s, place)\n"
	         "flat = Squeeze (picked, one)\n"
	         "l0 = Neg (flat)\n", t, p);
	if (weight)
		str_addf(&b->s, "w0 = Gather (%s, %s)\n"
		         "l1 = Mul (l0, w0)\n", weight, t);
	else
		str_add(&b->s, "l1 = Identity (l0)\n");
	if (ignore && !weight)
		body_float(b, "w0", c->in[SCORES]->dt, 1);
	if (ignore)
		str_add(&b->s, "l = Where (hit, zero, l1)\n"
		        "w = Where (hit, zero, w0)\n");
	else
		str_addf(&b->s, "l = Identity (l1)\n%s", weight ? "w = Identity (w0)\n" : "");
	if (kind == 'n')
		str_addf(&b->s, "%s = Identity (l)\n", loss);
	else if (kind == 's')
		str_addf(&b->s, "%s = ReduceSum <keepdims = 0> (l)\n", loss);
	else if (!ignore && !weight)
		str_addf(&b->s, "%s = ReduceMean <keepdims = 0> (l)\n", loss);
	else
		str_addf(&b->s,
		         "total = ReduceSum <keepdims = 0> (l)\n"
		         "count = ReduceSum <keepdims = 0> (w)\n"
		         "%s = Div (total, count)\n", loss);
}

static enum linnet_code write_nll(struct shape_call *c, const char **text)
{
	struct body b;

	body_begin(&b, c);
	body_loss(&b, "input", "loss");
	return body_end(&b, text);
}

static enum linnet_code write_cross_entropy(struct shape_call *c, const char **text)
{
	struct body b;

	body_begin(&b, c);
	str_add(&b.s, "log_prob = LogSoftmax <axis = 1> (scores)\n");
	body_loss(&b, "log_prob", "output");
	return body_end(&b, text);
}

#define LOSS_ATTRS                                                                                 \
	ATTRS([IGNORE_INDEX] = { .name = "ignore_index", .kind = ATTR_INT, .flags = OPTIONAL },    \
	      [REDUCTION] = { .name = "reduction", .kind = ATTR_STRING, .s = "mean", .oneof = "none|sum|mean" })

static const struct op rows[] = {
	{
		.name = "NegativeLogLikelihoodLoss", .since = 12,
		.doc = "The negated log-probabilities of the right classes, weighted by class; or their sum or mean.",
		.in = IN({ "input", T, FLOW_LINEAR }, { "target", T1 }, { "weight", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "loss", T }),
		.attr = LOSS_ATTRS,
		.types = { [T] = FLOATS, [T1] = INDICES },
		.agree = AGREE_ROUND,
		.write_grad = grad_nll,
		.shape = shape_loss, .kernel = nll, .write_body = write_nll,
	},
	{
		.name = "SoftmaxCrossEntropyLoss", .since = 12,
		.doc = "NegativeLogLikelihoodLoss of the logarithm of the softmax over classes.",
		.in = IN({ "scores", T, FLOW_SMOOTH }, { "labels", T1 }, { "weights", T, FLOW_SMOOTH, OPTIONAL }),
		.out = OUT({ "output", T }, { "log_prob", T, .flags = OPTIONAL }),
		.attr = LOSS_ATTRS,
		.types = { [T] = FLOATS, [T1] = INDICES },
		.agree = AGREE_ROUND,
		.write_grad = grad_cross_entropy,
		.shape = shape_loss, .kernel = cross_entropy, .fast = FAST(&fast_cross_entropy), .write_body = write_cross_entropy,
	},
};

const struct op_family loss_ops = FAMILY("loss", rows);
