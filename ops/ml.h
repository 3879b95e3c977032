/* What the families of ai.onnx.ml share: samples, labels of classes, scores. */
#ifndef LINNET_ML_H
#define LINNET_ML_H

#include "ops/kernel.h"

#define ML .domain = "ai.onnx.ml"
#define ML_NUMBERS (SET(FLOAT) | SET(DOUBLE) | SET(INT32) | SET(INT64))

/* Input 0 is X: [N, F], or [F] for one sample. DIM_NONE where a length is not known. */
enum linnet_code samples_shape(struct shape_call *c, dim *n, dim *f);
static inline int64_t sample_count(const struct tensor *x) { return x->rank == 1 ? 1 : x->d[0]; }
static inline int64_t feature_count(const struct tensor *x) { return x->d[x->rank - 1]; }

/* The attribute of a call. */
static inline const struct attr *attr_of(const struct kernel_call *c, const char *name) { return attr_get(c->op, c->attr, name); }

/* Elements of a list or tensor attribute; 0 when it is left out. */
static inline int64_t list_length(const struct attr *a)
{
	return !attr_given(a) ? 0 : a->kind == ATTR_TENSOR ? a->t->n : (int64_t)a->n;
}

/* A list attribute holds a matrix; nothing is said of columns when they are not known. */
enum linnet_code matrix_check(const struct shape_call *c, const char *name, int64_t rows, dim columns);

/* Labels of classes: integers or strings. */
struct labels {
	enum dtype dt;
	int64_t n;
	const struct attr *list;
};

/* One of the two attributes must be given, with at least one label. */
enum linnet_code labels_read(const struct op *op, const struct attr *attr, const char *ints, const char *strings,
                             struct labels *out, struct linnet_error *e);
/* Y: [N] of labels, Z: [N, scores] */
void classes_shape(struct shape_call *c, const struct labels *l, dim n, int64_t scores);
void label_put(struct tensor *y, int64_t i, const struct labels *l, int64_t class);

/* The first largest. */
int64_t largest(const double *s, int64_t n);

/* Transforms of the scores of one sample, numbered as TreeEnsemble does. */
enum transform { TRANSFORM_NONE, TRANSFORM_SOFTMAX, TRANSFORM_LOGISTIC, TRANSFORM_SOFTMAX_ZERO, TRANSFORM_PROBIT };
#define POST_TRANSFORM                                                                             \
	{ .name = "post_transform", .kind = ATTR_STRING, .s = "NONE", .oneof = "NONE|SOFTMAX|LOGISTIC|SOFTMAX_ZERO|PROBIT" }

double logistic_of(double x);
/* z[at..at+n) = transformed s, which is overwritten. */
void scores_put(struct tensor *z, int64_t at, double *s, int64_t n, enum transform t);

/* Entries of rows. */
#define LIST(title, what) { .name = title, .kind = what, .flags = OPTIONAL }
#define INT_LIST(title) LIST(title, ATTR_INTS)
#define FLOAT_LIST(title) LIST(title, ATTR_FLOATS)
#define STRING_LIST(title) LIST(title, ATTR_STRINGS)

#endif
