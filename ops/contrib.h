/* What the families of com.microsoft share: reading calls, entries of rows, shape functions of operators in two forms. */
#ifndef LINNET_CONTRIB_H
#define LINNET_CONTRIB_H

#include "ops/kernel.h"

#define HALF_FLOATS (SET(FLOAT) | HALVES)
#define SINGLE_HALF (SET(FLOAT) | SET(FLOAT16))

static inline int64_t int_attr(const struct shape_call *c, const char *name) { return attr_get(c->op, c->attr, name)->i; }

/* The shape of input i; of rank -1 where it is left out. */
static inline struct shape in_shape(const struct shape_call *c, int i)
{
	return i < c->nin && c->in[i] ? c->in[i]->shape : shape_unknown();
}

static inline bool in_given(const struct shape_call *c, int i) { return i < c->nin && c->in[i]; }

static inline struct shape shape3(dim a, dim b, dim c) { return (struct shape){ .rank = 3, .d = { a, b, c } }; }
static inline struct shape shape4(dim a, dim b, dim c, dim d) { return (struct shape){ .rank = 4, .d = { a, b, c, d } }; }

static inline void set_shape(struct shape_call *c, int i, struct shape s)
{
	if (i < c->nout)
		c->out[i].shape = s;
}

/* d / n, which must be whole where it is a number. */
static inline enum linnet_code parts(struct shape_call *c, const char *what, dim d, int64_t n, dim *out)
{
	if (dim_is_int(d) && d % n)
		return fail(c->e, LINNET_ESHAPE, "%s is %lld, not a multiple of %lld", what, (long long)d, (long long)n);
	*out = dim_div(c->dims, d, n);
	return LINNET_OK;
}

static inline const struct tensor *in_tensor(const struct kernel_call *c, int i) { return i < c->nin ? c->in[i] : NULL; }
static inline struct tensor *out_tensor(const struct kernel_call *c, int i) { return i < c->nout ? c->out[i] : NULL; }

static inline double gelu_tanh_of(double x) { return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))); }

/*
 * An operator that is, or contains, one of ai.onnx (contrib.c). attrs_by_name: attributes for a call of `to`, those of the call of
 * `op` that have the same names, else defaults (lists: empty). shape_standard, kernel_standard: the call is one of the operator of
 * ai.onnx that the row's `param` names.
 */
enum { MAX_ATTRS = 16 };

void attrs_by_name(const struct op *op, const struct attr *attr, const struct op *to, struct attr out[MAX_ATTRS]);
shape_fn shape_standard;
kernel_fn kernel_standard;

/*
 * EmbedLayerNormalization and its quantised form (contrib_norm.c): outputs from inputs 2 to 6, the tables, gamma and beta, in doubles at
 * the same places of `table`. places: position_ids, or NULL.
 */
shape_fn shape_embed;
enum linnet_code embed(struct kernel_call *c, const double *const *table, const struct tensor *places);

/*
 * input: [B, S, D_in]  weights: [D_in, D + D + D_v]  output: [B, S, D_v]
 * past, present: [2, B, N, P or T, H]; of one size when they share a buffer. `past_at` is the index of that input, sizes
 * (may be NULL) the widths of queries, keys and values (contrib_attention.c).
 */
enum linnet_code packed_attention(struct shape_call *c, int past_at, const struct attr *sizes);

/*
 * Their outputs, of rows that are projected: qkv: [B, S, D + D + D_v], D_v wide values. used: null, or how much of the past is in use.
 */
enum linnet_code attend_packed(struct kernel_call *c, const double *qkv, int64_t value_width, const struct tensor *mask,
                               int past_at, const struct tensor *bias, const struct tensor *used);

/* Entries of rows. */
#define MS .domain = "com.microsoft", .since = 1
#define HEADS(title) { .name = title, .kind = ATTR_INT, .flags = REQUIRED, .lo = 1, .hi = INT32_MAX }
#define FLAG(title) { .name = title, .kind = ATTR_INT, .lo = 0, .hi = 1 }
#define COUNT(title) { .name = title, .kind = ATTR_INT, .lo = 0, .hi = INT32_MAX }
#define EPSILON(value) { .name = "epsilon", .kind = ATTR_FLOAT, .f = (value) }
#define SCALE { .name = "scale", .kind = ATTR_FLOAT, .flags = OPTIONAL }
#define MASK_VALUE { .name = "mask_filter_value", .kind = ATTR_FLOAT, .f = -10000 }

#endif
