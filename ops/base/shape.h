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

/* The kinds of values: those that operators take, and those that models may declare but nothing computes. */
enum type_kind {
	KIND_TENSOR,
	KIND_SEQUENCE,          /* of tensors */
	KIND_OPTIONAL,          /* a tensor or nothing */
	KIND_OPTIONAL_SEQUENCE, /* a sequence of tensors or nothing */
	KIND_MAP,               /* from int64 or string to scalars */
	KIND_SEQUENCE_MAP,
	KIND_SPARSE,
	KIND_OTHER, /* nested in another way */
};

/* Sets of kinds. */
typedef uint8_t kind_set;
#define KIND(name) ((kind_set)(1 << KIND_##name))
#define SEQUENCES KIND(SEQUENCE)
#define TENSORS KIND(TENSOR)
#define OPTIONALS (KIND(OPTIONAL) | KIND(OPTIONAL_SEQUENCE))
static inline bool kind_in(enum type_kind k, kind_set s) { return (s >> k) & 1; }

enum type_kind kind_member(enum type_kind k); /* of the members; KIND_OTHER when it has none */
enum type_kind kind_sequence(enum type_kind k); /* of a sequence of such values */
enum type_kind kind_optional(enum type_kind k);

/*
 * Contiguous, row-major. The data is owned by an arena or an executor, or borrowed from a mapped
 * file; whoever made the tensor knows. Data is aligned for its element type, but for constants of a graph, whose data may
 * lie anywhere in the file: tensor_get reads it there, tensor_align makes it fit for kernels.
 *
 * Values of other kinds are told by the same structure: `data` is an array of n pointers to the members. An optional has one
 * member or none, a map two: its keys and its values, both of one dimension. dt is that of the tensors inside, of a map of its
 * values; rank is 0.
 */
struct tensor {
	enum type_kind kind;
	enum dtype dt;
	enum dtype key; /* of maps */
	int rank;
	int64_t d[MAX_RANK];
	int64_t n;    /* elements; members */
	size_t bytes; /* as dtype_bytes() counts */
	void *data;
};

/* What is known about a value before running. */
struct type {
	enum type_kind kind;
	enum dtype dt; /* DT_UNDEFINED when not known; of the tensors inside when kind is not KIND_TENSOR */
	enum dtype key; /* of maps */
	struct shape shape; /* of the tensors inside: what they share, DIM_NONE for lengths that they do not */
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
void shape_share(struct shape *s, const struct shape *other); /* s keeps what both say */
dim shape_count(struct dims *t, const struct shape *s, int from, int to); /* product of d[from..to) */
const char *shape_str(struct dims *t, const struct shape *s, struct arena *a); /* "[batch,seq,64]"; "[?]" without rank */

bool shape_has(const struct dims *t, const struct shape *s, dim symbol); /* the symbol is in some length */

/* How many elements t->sym has; -1 when there are none or too many. */
int type_nsym(const struct type *t);
/* Length `axis` of those of that rank that s broadcasts to. */
static inline dim shape_as_rank(const struct shape *s, int rank, int axis)
{
	return axis >= rank - s->rank ? s->d[axis - (rank - s->rank)] : 1;
}

/* Whether the same is known of both. */
bool type_equal(const struct type *a, const struct type *b);

/* "float[batch,?]", "seq(float[3])", "map(int64, float)"; NULL without memory. */
const char *type_str(struct dims *t, const struct type *type, struct arena *a);

/* The same without lengths: "float", "seq(float)". Returns buf. */
const char *kind_str(const struct type *type, char *buf, size_t n);

/* Elements and bytes of concrete dims; LINNET_ELIMIT beyond max_elements (0: 2^40), negative or overflowing. */
enum linnet_code tensor_size(enum dtype dt, int rank, const int64_t *d, int64_t max_elements, int64_t *n, size_t *bytes,
                             struct linnet_error *e);

/* A zeroed tensor in the arena. */
enum linnet_code tensor_new(struct arena *a, enum dtype dt, int rank, const int64_t *d, struct tensor **out,
                            struct linnet_error *e);

/* A value of n members, to be filled. */
enum linnet_code members_new(struct arena *a, enum type_kind kind, enum dtype dt, int64_t n, struct tensor **out,
                             struct linnet_error *e);

static inline const struct tensor *tensor_member(const struct tensor *t, int64_t i)
{
	return ((struct tensor *const *)t->data)[i];
}

/* A copy that shares nothing, members and strings included. */
enum linnet_code tensor_dup(struct arena *a, const struct tensor *t, struct tensor **out, struct linnet_error *e);

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

/* What is known of a value: everything, and what its tensors' shapes share. */
struct type type_of(const struct tensor *t);

/* Same type, lengths and bits (strings by content); same members. */
bool tensor_same(const struct tensor *a, const struct tensor *b);

#endif
