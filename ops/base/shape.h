/* Shapes, tensors and types of values. */
#ifndef LINNET_SHAPE_H
#define LINNET_SHAPE_H

#include "ops/base/arena.h"
#include "ops/base/dim.h"
#include "ops/base/dtype.h"
#include "ops/base/err.h"

enum { MAX_RANK = 8 };

struct shape {
	int rank; /* -1 when not even the rank is known */
	dim d[MAX_RANK];
};

/*
 * Contiguous, row-major. The data is owned by an arena or an executor, or borrowed from a mapped
 * file; whoever made the tensor knows. Data is aligned for its element type, but for constants of a graph, whose data may
 * lie anywhere in the file: tensor_get reads it there, tensor_align makes it fit for kernels.
 */
struct tensor {
	enum dtype dt;
	int rank;
	int64_t d[MAX_RANK];
	int64_t n;    /* elements */
	size_t bytes; /* as dtype_bytes() counts */
	void *data;
};

enum type_kind { KIND_TENSOR, KIND_SEQUENCE, KIND_OPTIONAL, KIND_MAP, KIND_SPARSE };

/* What is known about a value before running. */
struct type {
	enum type_kind kind;
	enum dtype dt; /* DT_UNDEFINED when not known; of the elements when kind is not KIND_TENSOR */
	struct shape shape;
	const struct tensor *value; /* when it is constant, else NULL */
	const dim *sym;             /* when its elements are known integers or expressions: one a element (DIM_NONE for
	                             * single unknown ones), rank 0 or 1, at most MAX_SYM; else NULL */
	int64_t den;                /* of floats the elements are sym[i] / den; 0 means 1 */
};

enum { MAX_SYM = 256 };

static inline struct shape shape_unknown(void) { return (struct shape){ .rank = -1 }; }
struct shape shape_of(const struct tensor *t);
bool shape_equal(const struct shape *a, const struct shape *b); /* unknown is equal to nothing */
bool shape_known(const struct shape *s);                         /* every length is a number */
dim shape_count(struct dims *t, const struct shape *s, int from, int to); /* product of d[from..to) */
const char *shape_str(struct dims *t, const struct shape *s, struct arena *a); /* "[batch,seq,64]"; "[?]" without rank */

/* Elements and bytes of concrete dims; LINNET_ELIMIT beyond max_elements (0: 2^40), negative or overflowing. */
enum linnet_code tensor_size(enum dtype dt, int rank, const int64_t *d, int64_t max_elements, int64_t *n, size_t *bytes,
                             struct linnet_error *e);

/* A zeroed tensor in the arena. */
enum linnet_code tensor_new(struct arena *a, enum dtype dt, int rank, const int64_t *d, struct tensor **out,
                            struct linnet_error *e);

/* When the data is not aligned for its element type, t gets a copy in the arena. */
enum linnet_code tensor_align(struct tensor *t, struct arena *a, struct linnet_error *e);

/* A header in the arena over the caller's data. */
enum linnet_code tensor_wrap(struct arena *a, enum dtype dt, int rank, const int64_t *d, const void *data,
                             struct tensor **out, struct linnet_error *e);

static inline double tensor_get(const struct tensor *t, int64_t i) { return dtype_get(t->dt, t->data, (size_t)i); }
static inline int64_t tensor_get_int(const struct tensor *t, int64_t i)
{
	return dtype_get_int(t->dt, t->data, (size_t)i);
}
static inline void tensor_put(struct tensor *t, int64_t i, double v) { dtype_put(t->dt, t->data, (size_t)i, v); }
static inline void tensor_put_int(struct tensor *t, int64_t i, int64_t v)
{
	dtype_put_int(t->dt, t->data, (size_t)i, v);
}

/* Same type, lengths and bits (strings by content). */
bool tensor_same(const struct tensor *a, const struct tensor *b);

#endif
