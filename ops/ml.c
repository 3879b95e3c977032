/*
 * ai.onnx.ml without support vectors and trees: features made ready, labels, linear models. Reference kernels, then rows.
 *
 * Where the operators' text leaves something open, it is as onnxruntime and ONNX's reference evaluator agree; where these do not
 * agree, the comment says so. Letters: N samples, F features, E classes or targets.
 */
#include "ops/ml.h"

#include <string.h>

/* ---- Samples, labels, scores ---- */

enum linnet_code samples_shape(struct shape_call *c, dim *n, dim *f)
{
	const struct shape *s = &c->in[0]->shape;

	*n = *f = DIM_NONE;
	TRY(rank_check(c, 0, 1, 2));
	if (s->rank < 0)
		return LINNET_OK;
	*n = s->rank == 1 ? 1 : s->d[0];
	*f = s->d[s->rank - 1];
	return LINNET_OK;
}

enum linnet_code matrix_check(const struct shape_call *c, const char *name, int64_t rows, dim columns)
{
	int64_t n = list_length(attr_get(c->op, c->attr, name));

	if (dim_is_int(columns) && (n % rows || n / rows != columns))
		return fail(c->e, LINNET_EATTR, "attribute \"%s\" has %lld elements; expected %lld times %lld", name, (long long)n,
		            (long long)rows, (long long)columns);
	if (n % rows)
		return fail(c->e, LINNET_EATTR, "attribute \"%s\" has %lld elements, no multiple of %lld", name, (long long)n, (long long)rows);
	return LINNET_OK;
}

enum linnet_code labels_read(const struct op *op, const struct attr *attr, const char *ints, const char *strings,
                             struct labels *out, struct linnet_error *e)
{
	const struct attr *i = attr_get(op, attr, ints), *s = attr_get(op, attr, strings);

	if (!list_length(i) == !list_length(s))
		return fail(e, LINNET_EATTR, "one of the attributes \"%s\" and \"%s\" must list the classes", ints, strings);
	*out = list_length(i) ? (struct labels){ DT_INT64, list_length(i), i } : (struct labels){ DT_STRING, list_length(s), s };
	return LINNET_OK;
}

void classes_shape(struct shape_call *c, const struct labels *l, dim n, int64_t scores)
{
	c->out[0].dt = l->dt;
	c->out[0].shape = (struct shape){ .rank = 1, .d = { n } };
	c->out[1].shape = (struct shape){ .rank = 2, .d = { n, scores } };
}

void label_put(struct tensor *y, int64_t i, const struct labels *l, int64_t class)
{
	if (l->dt == DT_STRING)
		((struct text *)y->data)[i] = l->list->strings[class];
	else
		tensor_put_int(y, i, l->list->ints[class]);
}

int64_t largest(const double *s, int64_t n)
{
	int64_t best = 0;

	for (int64_t i = 1; i < n; i++)
		best = s[i] > s[best] ? i : best;
	return best;
}

double logistic_of(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

/*
 * The quantile function of the normal distribution, by the approximation of erf^-1 that onnxruntime and the reference evaluator
 * both use (0.2 % off at most): erf^-1(x) = sign(x) sqrt(sqrt(v^2 - log(1 - x^2) / a) - v), v = 2 / (pi a) + log(1 - x^2) / 2,
 * a = 0.147. NaN outside [0, 1].
 * Source: Winitzki, A handy approximation for the error function and its inverse, 2008.
 */
static double probit_of(double p)
{
	double x = 2 * p - 1, l = log((1 - x) * (1 + x)), v = 2 / (3.14159265358979323846 * 0.147) + 0.5 * l;

	return copysign(1.41421356237309504880 * sqrt(sqrt(v * v - l / 0.147) - v), x);
}

/* s = exp(s - max) / sum. zero: a score of 0 (within 1e-7) has no part in it and stays 0; all 0 become one half. */
static void softmax_scores(double *s, int64_t n, bool zero)
{
	double m = n ? s[largest(s, n)] : 0, sum = 0;

	for (int64_t i = 0; i < n; i++) {
		s[i] = zero && fabs(s[i]) <= 1e-7 ? 0 : exp(s[i] - m);
		sum += s[i];
	}
	for (int64_t i = 0; i < n; i++)
		s[i] = sum == 0 ? 0.5 : s[i] / sum;
}

void scores_put(struct tensor *z, int64_t at, double *s, int64_t n, enum transform t)
{
	if (t == TRANSFORM_SOFTMAX || t == TRANSFORM_SOFTMAX_ZERO)
		softmax_scores(s, n, t == TRANSFORM_SOFTMAX_ZERO);
	for (int64_t i = 0; i < n; i++)
		tensor_put(z, at + i, t == TRANSFORM_LOGISTIC ? logistic_of(s[i]) : t == TRANSFORM_PROBIT ? probit_of(s[i]) : s[i]);
}

/* ---- Features ---- */

/* X: [..., F], or [F] for [1, F]; Y: indices, n in all; Z: [..., n] */
static enum linnet_code shape_extract(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;
	struct shape *z = &c->out[0].shape;

	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (x->rank < 0)
		return LINNET_OK;
	*z = *x;
	if (x->rank == 1)
		*z = (struct shape){ .rank = 2, .d = { 1 } };
	z->d[z->rank - 1] = shape_count(c->dims, &c->in[1]->shape, 0, MAX_RANK);
	return LINNET_OK;
}

static enum linnet_code extract(struct kernel_call *c)
{
	const struct tensor *x = c->in[0], *y = c->in[1];
	int64_t width = feature_count(x);

	for (int64_t i = 0; i < y->n; i++) {
		int64_t k = tensor_get_int(y, i);

		if (k < 0 || k >= width)
			return fail(c->e, LINNET_ESHAPE, "index %lld is not in [0, %lld]", (long long)k, (long long)(width - 1));
	}
	for (int64_t i = 0; i < c->out[0]->n; i++)
		element_copy(c->out[0], i, x, i / y->n * width + tensor_get_int(y, i % y->n));
	return LINNET_OK;
}

/* x > t of integers and reals alike, without rounding x */
static bool above(const struct tensor *x, int64_t i, double t)
{
	int64_t v;

	if (dtype_class(x->dt) == CLASS_FLOAT)
		return tensor_get(x, i) > t;
	v = tensor_get_int(x, i);
	if (!(t < 0x1p63))
		return false;
	return t < -0x1p63 || v > (int64_t)floor(t);
}

/* Y = 1 where X > threshold, else 0; also for NaN, which onnxruntime refuses. */
static enum linnet_code binarize(struct kernel_call *c)
{
	for (int64_t i = 0; i < c->out[0]->n; i++)
		tensor_put_int(c->out[0], i, above(c->in[0], i, attr_of(c, "threshold")->f));
	return LINNET_OK;
}

/* The width of part i in Y: as `inputdimensions` says, else all features. */
static dim part_width(const struct attr *a, int i, dim features)
{
	return attr_given(a) && a->n ? a->ints[i] : features;
}

/* X: [N, F_i] or [F_i] for [1, F_i]; Y: [N, sum of widths] */
static enum linnet_code shape_vectorize(struct shape_call *c)
{
	const struct attr *a = attr_get(c->op, c->attr, "inputdimensions");
	dim n = DIM_NONE, sum = 0;

	if (attr_given(a) && a->n && a->n != (size_t)c->nin)
		return fail(c->e, LINNET_EATTR, "attribute \"inputdimensions\" has %zu elements for %d inputs", a->n, c->nin);
	for (int i = 0; i < c->nin; i++) {
		const struct shape *s = &c->in[i]->shape;

		TRY(rank_check(c, i, 1, 2));
		if (s->rank > 0)
			TRY(length_join(c, "numbers of samples", n, s->rank == 1 ? 1 : s->d[0], &n));
		sum = dim_add(c->dims, sum, part_width(a, i, s->rank > 0 ? s->d[s->rank - 1] : DIM_NONE));
	}
	c->out[0].shape = (struct shape){ .rank = 2, .d = { n, sum } };
	return LINNET_OK;
}

/* The parts side by side; where `inputdimensions` says another width, cut or followed by zeros, as onnxruntime and the reference
 * evaluator do. */
static enum linnet_code vectorize(struct kernel_call *c)
{
	const struct attr *a = attr_of(c, "inputdimensions");
	struct tensor *y = c->out[0];
	int64_t at = 0;

	for (int i = 0; i < c->nin; i++) {
		const struct tensor *x = c->in[i];
		int64_t features = feature_count(x), width = part_width(a, i, features);

		for (int64_t row = 0; row < y->d[0]; row++)
			for (int64_t k = 0; k < width; k++)
				tensor_put(y, row * y->d[1] + at + k, k < features ? tensor_get(x, row * features + k) : 0);
		at += width;
	}
	return LINNET_OK;
}

/* A list of one element for all features, or of one for each. */
static enum linnet_code per_feature(const struct shape_call *c, const char *name, size_t n, dim features)
{
	if (n == 1 || !dim_is_int(features) || (int64_t)n == features)
		return LINNET_OK;
	return fail(c->e, LINNET_EATTR, "attribute \"%s\" has %zu elements; expected 1 or %lld", name, n, (long long)features);
}

static dim last_length(const struct shape *s) { return s->rank > 0 ? s->d[s->rank - 1] : DIM_NONE; }

static const char *imputed_name(enum dtype t)
{
	return dtype_class(t) == CLASS_FLOAT ? "imputed_value_floats" : "imputed_value_int64s";
}

static enum linnet_code shape_impute(struct shape_call *c)
{
	const struct type *x = c->in[0];
	const char *name = imputed_name(x->dt);
	const struct attr *a = attr_get(c->op, c->attr, name);

	TRY(rank_check(c, 0, 1, MAX_RANK));
	TRY(shape_same(c));
	if (x->dt == DT_UNDEFINED)
		return LINNET_OK;
	if (!attr_given(a) || !a->n)
		return fail(c->e, LINNET_EATTR, "attribute \"%s\" is needed for elements of type %s", name, dtype_name(x->dt));
	for (size_t i = 0; i < a->n && x->dt == DT_INT32; i++)
		if (a->ints[i] != (int32_t)a->ints[i])
			return fail(c->e, LINNET_EATTR, "imputed value %lld is beyond int32", (long long)a->ints[i]);
	return per_feature(c, name, a->n, last_length(&x->shape));
}

/* Y = the feature's imputed value where X is the replaced value (NaN is NaN), else X. X: [..., F] */
static enum linnet_code impute(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	const struct attr *a = attr_of(c, imputed_name(x->dt));
	double real = attr_of(c, "replaced_value_float")->f;
	int64_t integer = attr_of(c, "replaced_value_int64")->i;

	tensor_copy(c->out[0], x);
	for (int64_t i = 0; i < x->n; i++) {
		size_t k = a->n == 1 ? 0 : (size_t)(i % feature_count(x));

		if (dtype_class(x->dt) == CLASS_INT) {
			if (tensor_get_int(x, i) == integer)
				tensor_put_int(c->out[0], i, a->ints[k]);
		} else if (tensor_get(x, i) == real || (isnan(tensor_get(x, i)) && isnan(real))) {
			tensor_put(c->out[0], i, (double)a->floats[k]);
		}
	}
	return LINNET_OK;
}

static enum linnet_code shape_normalize(struct shape_call *c)
{
	dim n, f;

	TRY(samples_shape(c, &n, &f));
	return shape_same(c);
}

/*
 * Each sample divided by MAX its largest element, L1 the sum of |x|, L2 the root of the sum of x^2; as it is when that is 0. The
 * text has sum(X) for L1 and an unsigned root for L2; onnxruntime and the reference evaluator agree on these. For MAX
 * onnxruntime follows the text, the reference evaluator divides by the largest |x|.
 */
static enum linnet_code normalize(struct kernel_call *c)
{
	enum { MAX, L1, L2 };
	int norm = attr_choice(c->op, c->attr, "norm");
	const struct tensor *x = c->in[0];
	int64_t f = feature_count(x);

	for (int64_t from = 0; from < x->n; from += f) {
		double by = norm == MAX ? -INFINITY : 0;

		for (int64_t i = from; i < from + f; i++) {
			double v = tensor_get(x, i);

			by = norm == MAX ? larger(by, v) : by + (norm == L1 ? fabs(v) : v * v);
		}
		by = norm == L2 ? sqrt(by) : by;
		for (int64_t i = from; i < from + f; i++)
			tensor_put(c->out[0], i, by == 0 ? tensor_get(x, i) : tensor_get(x, i) / by);
	}
	return LINNET_OK;
}

static enum linnet_code shape_scale(struct shape_call *c)
{
	const struct attr *offset = attr_get(c->op, c->attr, "offset"), *scale = attr_get(c->op, c->attr, "scale");

	TRY(rank_check(c, 0, 1, MAX_RANK));
	if (attr_given(offset))
		TRY(per_feature(c, "offset", offset->n, last_length(&c->in[0]->shape)));
	if (attr_given(scale))
		TRY(per_feature(c, "scale", scale->n, last_length(&c->in[0]->shape)));
	return shape_same(c);
}

static double for_feature(const struct attr *a, int64_t feature, double absent)
{
	return attr_given(a) ? (double)a->floats[a->n == 1 ? 0 : feature] : absent;
}

/* Y = (X - offset) scale; X: [..., F] */
static enum linnet_code scale_features(struct kernel_call *c)
{
	const struct attr *offset = attr_of(c, "offset"), *scale = attr_of(c, "scale");
	const struct tensor *x = c->in[0];

	for (int64_t i = 0; i < x->n; i++) {
		int64_t k = i % feature_count(x);

		tensor_put(c->out[0], i, (tensor_get(x, i) - for_feature(offset, k, 0)) * for_feature(scale, k, 1));
	}
	return LINNET_OK;
}

/* ---- Tables ---- */

/* A list attribute as a tensor. */
static struct tensor list_of(const struct attr *a)
{
	int64_t n = (int64_t)a->n;

	switch (a->kind) {
	case ATTR_TENSOR: return *a->t;
	case ATTR_STRINGS: return (struct tensor){ .dt = DT_STRING, .n = n, .data = (void *)a->strings };
	case ATTR_INTS: return (struct tensor){ .dt = DT_INT64, .n = n, .data = (void *)a->ints };
	default: return (struct tensor){ .dt = DT_FLOAT, .n = n, .data = (void *)a->floats };
	}
}

/* Whether two elements of one type are the same. bits: floats by their bits; else zeros are equal, and so are NaNs. */
static bool same_element(const struct tensor *a, int64_t i, const struct tensor *b, int64_t j, bool bits)
{
	size_t size = dtype_bytes(a->dt, 1);

	if (a->dt == DT_STRING) {
		const struct text *x = (const struct text *)a->data + i, *y = (const struct text *)b->data + j;

		return x->n == y->n && (!x->n || !memcmp(x->p, y->p, x->n));
	}
	if (bits || dtype_class(a->dt) != CLASS_FLOAT)
		return !memcmp((const char *)a->data + (size_t)i * size, (const char *)b->data + (size_t)j * size, size);
	return tensor_get(a, i) == tensor_get(b, j) || (isnan(tensor_get(a, i)) && isnan(tensor_get(b, j)));
}

/* Where the keys have element i of x; of several places the last. -1 when nowhere. */
static int64_t find_key(const struct tensor *keys, const struct tensor *x, int64_t i, bool bits)
{
	for (int64_t k = keys->n - 1; k >= 0; k--)
		if (same_element(keys, k, x, i, bits))
			return k;
	return -1;
}

/* Element i of y by the class of its type: an integer, a real or a string. */
static void put_default(const struct kernel_call *c, struct tensor *y, int64_t i)
{
	switch (dtype_class(y->dt)) {
	case CLASS_STRING: ((struct text *)y->data)[i] = attr_of(c, "default_string")->s; break;
	case CLASS_FLOAT: tensor_put(y, i, attr_of(c, "default_float")->f); break;
	default: tensor_put_int(y, i, attr_of(c, "default_int64")->i);
	}
}

/* Integers become strings and strings integers. */
static enum linnet_code shape_exchange(struct shape_call *c)
{
	if (c->in[0]->dt != DT_UNDEFINED)
		c->out[0].dt = c->in[0]->dt == DT_STRING ? DT_INT64 : DT_STRING;
	return shape_same(c);
}

static enum linnet_code shape_categories(struct shape_call *c)
{
	const struct attr *ints = attr_get(c->op, c->attr, "cats_int64s"), *strings = attr_get(c->op, c->attr, "cats_strings");

	if (ints->n != strings->n)
		return fail(c->e, LINNET_EATTR, "attributes \"cats_int64s\" and \"cats_strings\" have %zu and %zu elements; expected as many",
		            ints->n, strings->n);
	return shape_exchange(c);
}

/* Y[i] is beside X[i] in the table; what is there twice counts the last time, as in onnxruntime. */
static enum linnet_code map_category(struct kernel_call *c)
{
	struct tensor ints = list_of(attr_of(c, "cats_int64s"));
	struct tensor strings = list_of(attr_of(c, "cats_strings"));
	const struct tensor *x = c->in[0];
	struct tensor *keys = x->dt == DT_STRING ? &strings : &ints, *values = x->dt == DT_STRING ? &ints : &strings;

	keys->dt = x->dt; /* an absent list has no type */
	for (int64_t i = 0; i < x->n; i++) {
		int64_t k = find_key(keys, x, i, true);

		if (k < 0)
			put_default(c, c->out[0], i);
		else
			element_copy(c->out[0], i, values, k);
	}
	return LINNET_OK;
}

/* LabelEncoder's first version: a string becomes its place in the list (the last one, as in onnxruntime), a place its string. */
static enum linnet_code encode_place(struct kernel_call *c)
{
	struct tensor classes = list_of(attr_of(c, "classes_strings"));
	const struct tensor *x = c->in[0];

	for (int64_t i = 0; i < x->n; i++) {
		int64_t k = x->dt == DT_STRING ? find_key(&classes, x, i, true) : tensor_get_int(x, i);

		if (k < 0 || k >= classes.n)
			put_default(c, c->out[0], i);
		else if (x->dt == DT_STRING)
			tensor_put_int(c->out[0], i, k);
		else
			element_copy(c->out[0], i, &classes, k);
	}
	return LINNET_OK;
}

static const char *const key_lists[] = { "keys_tensor", "keys_strings", "keys_int64s", "keys_floats", NULL };
static const char *const value_lists[] = { "values_tensor", "values_strings", "values_int64s", "values_floats", NULL };

/* The one of these lists that is given. */
static enum linnet_code given_list(const struct op *op, const struct attr *attr, const char *const *names, struct tensor *out,
                                   struct linnet_error *e)
{
	const struct attr *found = NULL;

	for (; *names; names++) {
		const struct attr *a = attr_get(op, attr, *names);

		if (attr_given(a) && found)
			return fail(e, LINNET_EATTR, "attributes \"%s\" and \"%s\" are both given; expected one", found->name, a->name);
		found = attr_given(a) ? a : found;
	}
	if (!found)
		return fail(e, LINNET_EATTR, "no attribute \"%s\" is given", names[-1]);
	*out = list_of(found);
	return LINNET_OK;
}

static enum linnet_code shape_encode(struct shape_call *c)
{
	const struct attr *other = attr_get(c->op, c->attr, "default_tensor");
	const struct type *x = c->in[0];
	struct tensor keys, values;

	TRY(given_list(c->op, c->attr, key_lists, &keys, c->e));
	TRY(given_list(c->op, c->attr, value_lists, &values, c->e));
	if (keys.n != values.n)
		return fail(c->e, LINNET_EATTR, "there are %lld keys and %lld values; expected as many", (long long)keys.n,
		            (long long)values.n);
	if (x->dt != DT_UNDEFINED && x->dt != keys.dt)
		return fail(c->e, LINNET_ETYPE, "the keys have element type %s, the input %s", dtype_name(keys.dt), dtype_name(x->dt));
	if (!dtype_in(values.dt, c->op->types[T2]))
		return fail(c->e, LINNET_ETYPE, "the values have element type %s, which %s does not admit", dtype_name(values.dt), c->op->name);
	if (attr_given(other) && (other->t->dt != values.dt || other->t->n != 1))
		return fail(c->e, LINNET_EATTR, "attribute \"default_tensor\" has %lld elements of type %s; expected 1 of type %s",
		            (long long)other->t->n, dtype_name(other->t->dt), dtype_name(values.dt));
	c->out[0].dt = values.dt;
	return shape_same(c);
}

/* Whether all versions that have these attributes say the same: where no key is a float whose equals have other bits. */
static bool same_encoding(const struct op *op, const struct attr *attr, int nin, const struct type *const *in)
{
	const struct attr *keys = attr_get(op, attr, "keys_floats");

	(void)nin;
	(void)in;
	for (int64_t i = 0; i < list_length(keys); i++)
		if (keys->floats[i] == 0 || isnan(keys->floats[i]))
			return false;
	return op->since > 1;
}

/* Y[i] is the value of key X[i]. The second version compares floats by their bits. Of equal keys the last counts: so says
 * the fourth version; onnxruntime takes the first. */
static enum linnet_code encode(struct kernel_call *c)
{
	const struct attr *other = attr_of(c, "default_tensor");
	const struct tensor *x = c->in[0];
	struct tensor keys, values;

	TRY(given_list(c->op, c->attr, key_lists, &keys, c->e));
	TRY(given_list(c->op, c->attr, value_lists, &values, c->e));
	for (int64_t i = 0; i < x->n; i++) {
		int64_t k = find_key(&keys, x, i, c->op->since < 4);

		if (k >= 0)
			element_copy(c->out[0], i, &values, k);
		else if (attr_given(other))
			element_copy(c->out[0], i, other->t, 0);
		else
			put_default(c, c->out[0], i);
	}
	return LINNET_OK;
}

/* X: any shape, Y: one axis more, the categories */
static enum linnet_code shape_one_hot(struct shape_call *c)
{
	const struct type *x = c->in[0];
	struct labels cats;

	TRY(labels_read(c->op, c->attr, "cats_int64s", "cats_strings", &cats, c->e));
	if (x->dt != DT_UNDEFINED && (x->dt == DT_STRING) != (cats.dt == DT_STRING))
		return fail(c->e, LINNET_ETYPE, "the categories are of element type %s, the input of %s", dtype_name(cats.dt), dtype_name(x->dt));
	if (x->shape.rank < 0)
		return LINNET_OK;
	TRY(rank_limit(x->shape.rank + 1, c->e));
	c->out[0].shape = x->shape;
	c->out[0].shape.d[c->out[0].shape.rank++] = cats.n;
	return LINNET_OK;
}

/* 1 at the category of X, which as a number is cast to an integer; of equal categories the last, as in onnxruntime. */
static enum linnet_code one_hot(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	struct tensor *y = c->out[0], key = { .dt = DT_INT64, .n = 1 }, cats;
	struct labels list;

	TRY(labels_read(c->op, c->attr, "cats_int64s", "cats_strings", &list, c->e));
	cats = list_of(list.list);
	for (int64_t i = 0; i < x->n; i++) {
		int64_t v = x->dt == DT_STRING ? 0 : tensor_get_int(x, i), k;

		key.data = &v;
		k = x->dt == DT_STRING ? find_key(&cats, x, i, true) : find_key(&cats, &key, 0, true);
		if (k < 0 && !attr_of(c, "zeros")->i)
			return fail(c->e, LINNET_EMODEL, "element %lld is of no category", (long long)i);
		for (int64_t j = 0; j < cats.n; j++)
			tensor_put(y, i * cats.n + j, j == k);
	}
	return LINNET_OK;
}

/* ---- Linear models ---- */

/* coefficients: [E, F], intercepts: [E] or none. Nothing is said where F is not known. */
static enum linnet_code check_weights(const struct shape_call *c, int64_t rows, dim features)
{
	int64_t n = list_length(attr_get(c->op, c->attr, "intercepts"));

	if (!dim_is_int(features))
		return LINNET_OK;
	TRY(matrix_check(c, "coefficients", rows, features));
	if (n && n != rows)
		return fail(c->e, LINNET_EATTR, "attribute \"intercepts\" has %lld elements; expected %lld", (long long)n, (long long)rows);
	return LINNET_OK;
}

/* s[k] = X[sample] . coefficients[k] + intercepts[k] */
static void linear_scores(const struct kernel_call *c, int64_t sample, int64_t n, double *s)
{
	const struct attr *w = attr_of(c, "coefficients"), *b = attr_of(c, "intercepts");
	const struct tensor *x = c->in[0];
	int64_t f = feature_count(x);

	for (int64_t k = 0; k < n; k++) {
		s[k] = list_length(b) ? (double)b->floats[k] : 0;
		for (int64_t i = 0; i < f; i++)
			s[k] += tensor_get(x, sample * f + i) * (double)w->floats[k * f + i];
	}
}

/* Two classes may have one row of coefficients: the score of the second, its negative is that of the first. */
static bool one_row(const struct attr *w, const struct labels *l, dim features)
{
	return l->n == 2 && dim_is_int(features) && list_length(w) == features && features > 0;
}

static enum linnet_code shape_classify(struct shape_call *c)
{
	struct labels l;
	dim n, f;

	TRY(samples_shape(c, &n, &f));
	TRY(labels_read(c->op, c->attr, "classlabels_ints", "classlabels_strings", &l, c->e));
	TRY(check_weights(c, one_row(attr_get(c->op, c->attr, "coefficients"), &l, f) ? 1 : l.n, f));
	classes_shape(c, &l, n, l.n);
	return LINNET_OK;
}

/*
 * The class of the largest score. With one row of coefficients the scores are -s, s, to which the transform is applied, as the
 * reference evaluator has it; onnxruntime has 1 - s, s and applies only LOGISTIC, for which it is the same.
 */
static enum linnet_code classify_linearly(struct kernel_call *c)
{
	enum transform t = (enum transform)attr_choice(c->op, c->attr, "post_transform");
	struct linnet_error *e = c->e;
	struct labels l;
	int64_t n, rows;
	double *s;

	TRY(labels_read(c->op, c->attr, "classlabels_ints", "classlabels_strings", &l, e));
	n = l.n;
	rows = one_row(attr_of(c, "coefficients"), &l, feature_count(c->in[0])) ? 1 : n;
	TRY_NEW(s, c->scratch, n);
	for (int64_t i = 0; i < sample_count(c->in[0]); i++) {
		linear_scores(c, i, rows, s);
		if (rows < n) {
			s[1] = s[0];
			s[0] = -s[1];
		}
		if (c->out[0])
			label_put(c->out[0], i, &l, largest(s, n));
		if (c->out[1])
			scores_put(c->out[1], i * n, s, n, t);
	}
	return LINNET_OK;
}

static enum linnet_code shape_regress(struct shape_call *c)
{
	int64_t targets = attr_get(c->op, c->attr, "targets")->i;
	dim n, f;

	TRY(samples_shape(c, &n, &f));
	TRY(check_weights(c, targets, f));
	c->out[0].shape = (struct shape){ .rank = 2, .d = { n, targets } };
	return LINNET_OK;
}

/* The transform is applied to one target too, where onnxruntime ignores all but PROBIT. */
static enum linnet_code regress_linearly(struct kernel_call *c)
{
	enum transform t = (enum transform)attr_choice(c->op, c->attr, "post_transform");
	int64_t targets = attr_of(c, "targets")->i;
	struct linnet_error *e = c->e;
	double *s;

	TRY_NEW(s, c->scratch, targets);
	for (int64_t i = 0; i < sample_count(c->in[0]); i++) {
		linear_scores(c, i, targets, s);
		scores_put(c->out[0], i * targets, s, targets, t);
	}
	return LINNET_OK;
}

/* ---- Rows ---- */

#define DEFAULT_INT { .name = "default_int64", .kind = ATTR_INT, .i = -1 }
#define DEFAULT_STRING { .name = "default_string", .kind = ATTR_STRING, .s = "_Unused" }
#define DEFAULT_FLOAT { .name = "default_float", .kind = ATTR_FLOAT, .f = -0.0 }
#define KEYS_AND_VALUES                                                                            \
	DEFAULT_FLOAT, DEFAULT_INT, DEFAULT_STRING, FLOAT_LIST("keys_floats"), INT_LIST("keys_int64s"), STRING_LIST("keys_strings"), \
		FLOAT_LIST("values_floats"), INT_LIST("values_int64s"), STRING_LIST("values_strings")
#define ENCODED_2 (SET(FLOAT) | SET(INT64) | SET(STRING))
#define ENCODED_4 (ENCODED_2 | SET(DOUBLE) | SET(INT16) | SET(INT32))

static const struct op rows[] = {
	{
		ML, .name = "ArrayFeatureExtractor", .since = 1,
		.doc = "The elements along the last axis that Y names.",
		.in = IN({ "X", T, FLOW_LINEAR }, { "Y", T1, FLOW_NONE }),
		.out = OUT({ "Z", T }),
		.types = { [T] = ML_NUMBERS | SET(STRING), [T1] = SET(INT64) },
		.agree = AGREE_BITS,
		.shape = shape_extract, .kernel = extract,
	},
	{
		ML, .name = "Binarizer", .since = 1,
		.doc = "1 where the input is above the threshold, else 0.",
		.in = IN({ "X", T, FLOW_NONE }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "threshold", .kind = ATTR_FLOAT }),
		.types = { [T] = ML_NUMBERS },
		.agree = AGREE_BITS,
		.shape = shape_same, .kernel = binarize,
		.fuzz = { .shapes = FUZZ_SAME },
	},
	{
		ML, .name = "CategoryMapper", .since = 1,
		.doc = "Integers to strings or strings to integers, by a table.",
		.in = IN({ "X", T1, FLOW_NONE }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS(INT_LIST("cats_int64s"), STRING_LIST("cats_strings"), DEFAULT_INT, DEFAULT_STRING),
		.types = { [T1] = SET(INT64) | SET(STRING), [T2] = SET(INT64) | SET(STRING) },
		.agree = AGREE_BITS,
		.shape = shape_categories, .kernel = map_category,
	},
	{
		ML, .name = "FeatureVectorizer", .since = 1,
		.doc = "The inputs' features side by side.",
		.in = IN({ "X", T1, FLOW_LINEAR, VARIADIC }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS({ .name = "inputdimensions", .kind = ATTR_INTS, .flags = OPTIONAL, .lo = 0, .hi = INT32_MAX }),
		.types = { [T1] = ML_NUMBERS, [T2] = SET(FLOAT) },
		.agree = AGREE_BITS,
		.shape = shape_vectorize, .kernel = vectorize,
	},
	{
		ML, .name = "Imputer", .since = 1,
		.doc = "Elements of one value become the feature's imputed value.",
		.in = IN({ "X", T, FLOW_KINKED }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS(FLOAT_LIST("imputed_value_floats"), INT_LIST("imputed_value_int64s"),
		              { .name = "replaced_value_float", .kind = ATTR_FLOAT }, { .name = "replaced_value_int64", .kind = ATTR_INT }),
		.types = { [T] = ML_NUMBERS },
		.agree = AGREE_BITS,
		.shape = shape_impute, .kernel = impute,
	},
	{
		ML, .name = "LabelEncoder", .since = 4,
		.doc = "Values by keys. NaN is a key like others; of equal keys the last counts.",
		.in = IN({ "X", T1, FLOW_NONE }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS(KEYS_AND_VALUES, LIST("default_tensor", ATTR_TENSOR), LIST("keys_tensor", ATTR_TENSOR),
		              LIST("values_tensor", ATTR_TENSOR)),
		.types = { [T1] = ENCODED_4, [T2] = ENCODED_4 },
		.agree = AGREE_BITS,
		.shape = shape_encode, .kernel = encode, .same = same_encoding,
	},
	{
		ML, .name = "LabelEncoder", .since = 2,
		.doc = "Values by keys, floats by their bits.",
		.in = IN({ "X", T1, FLOW_NONE }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS(KEYS_AND_VALUES),
		.types = { [T1] = ENCODED_2, [T2] = ENCODED_2 },
		.agree = AGREE_BITS,
		.shape = shape_encode, .kernel = encode, .same = same_encoding,
	},
	{
		ML, .name = "LabelEncoder", .since = 1,
		.doc = "Strings to their places in a list, or places to strings.",
		.in = IN({ "X", T1, FLOW_NONE }),
		.out = OUT({ "Y", T2 }),
		.attr = ATTRS(STRING_LIST("classes_strings"), DEFAULT_INT, DEFAULT_STRING),
		.types = { [T1] = SET(INT64) | SET(STRING), [T2] = SET(INT64) | SET(STRING) },
		.agree = AGREE_BITS,
		.shape = shape_exchange, .kernel = encode_place, .same = same_encoding,
	},
	{
		ML, .name = "LinearClassifier", .since = 1,
		.doc = "The class with the largest of linear scores, and the scores, transformed.",
		.in = IN({ "X", T1, FLOW_SMOOTH }),
		.out = OUT({ "Y", T2 }, { "Z", T3 }),
		.attr = ATTRS(INT_LIST("classlabels_ints"), STRING_LIST("classlabels_strings"),
		              { .name = "coefficients", .kind = ATTR_FLOATS, .flags = REQUIRED }, FLOAT_LIST("intercepts"),
		              { .name = "multi_class", .kind = ATTR_INT }, POST_TRANSFORM),
		.types = { [T1] = ML_NUMBERS, [T2] = SET(INT64) | SET(STRING), [T3] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_classify, .kernel = classify_linearly,
	},
	{
		ML, .name = "LinearRegressor", .since = 1,
		.doc = "Linear scores, transformed.",
		.in = IN({ "X", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(FLOAT_LIST("coefficients"), FLOAT_LIST("intercepts"), POST_TRANSFORM,
		              { .name = "targets", .kind = ATTR_INT, .i = 1, .lo = 1, .hi = INT32_MAX }),
		.types = { [T] = ML_NUMBERS, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_regress, .kernel = regress_linearly,
	},
	{
		ML, .name = "Normalizer", .since = 1,
		.doc = "Each sample divided by its largest element, the sum of magnitudes or the root of the sum of squares, unless that is 0.",
		.in = IN({ "X", T, FLOW_KINKED }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS({ .name = "norm", .kind = ATTR_STRING, .s = "MAX", .oneof = "MAX|L1|L2" }),
		.types = { [T] = ML_NUMBERS, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_normalize, .kernel = normalize,
	},
	{
		ML, .name = "OneHotEncoder", .since = 1,
		.doc = "1 at the element's category along a new last axis, else 0.",
		.in = IN({ "X", T, FLOW_NONE }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(INT_LIST("cats_int64s"), STRING_LIST("cats_strings"), { .name = "zeros", .kind = ATTR_INT, .i = 1 }),
		.types = { [T] = ML_NUMBERS | SET(STRING), [T1] = SET(FLOAT) },
		.agree = AGREE_BITS,
		.shape = shape_one_hot, .kernel = one_hot,
	},
	{
		ML, .name = "Scaler", .since = 1,
		.doc = "Less the feature's offset, times its scale.",
		.in = IN({ "X", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T1 }),
		.attr = ATTRS(FLOAT_LIST("offset"), FLOAT_LIST("scale")),
		.types = { [T] = ML_NUMBERS, [T1] = SET(FLOAT) },
		.agree = AGREE_ROUND,
		.shape = shape_scale, .kernel = scale_features,
	},
};
const struct op_family ml_ops = FAMILY("ml", rows);
