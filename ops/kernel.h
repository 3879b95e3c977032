/* What reference kernels share: copying elements of any type, walking over positions. */
#ifndef LINNET_KERNEL_H
#define LINNET_KERNEL_H

#include <math.h>

#include "ops/op.h"

/* What operators admit that take any element: COMMON those that did not grow with the narrow types, STORED those that did,
 * though not by the 6-bit floats, which no operator admits yet. */
#define COMMON (NUMBERS | COMPLEXES | SET(BOOL) | SET(STRING))
#define STORED (ANY_DTYPE & ~(SET(FLOAT6E2M3) | SET(FLOAT6E3M2)))

/* Boxes may have more axes than tensors: an axis cut in two, as in Tile and DepthToSpace. */
enum { BOX_RANK = 2 * MAX_RANK };

/*
 * Element i of src to element j of dst, bit for bit; both of the same element type. Elements of 2 and 4 bits share
 * bytes: the last one clears what is left of its byte, so that equal tensors have equal bytes.
 */
void element_copy(struct tensor *dst, int64_t j, const struct tensor *src, int64_t i);

/* Element j becomes all zero bits: 0, false or the empty string. */
void element_zero(struct tensor *dst, int64_t j);

/* All of src to dst, which has as many elements of the same type. */
void tensor_copy(struct tensor *dst, const struct tensor *src);

/* Output `out`, which is no tensor, gets room for n members in scratch memory. */
enum linnet_code give_members(struct kernel_call *c, int out, int64_t n, struct tensor ***member);

/* A tensor of the caller's as a member: nothing is written to it. */
static inline struct tensor *as_member(const struct tensor *t) { return (struct tensor *)(uintptr_t)t; }

/* Row-major strides in elements. */
void strides(int rank, const int64_t *d, int64_t *stride);

/* The next position in row-major order; false after the last, when `at` is all zeros again. */
bool next_position(int rank, const int64_t *d, int64_t *at);

/*
 * dst[to + sum at[k] * to_stride[k]] = src[from + sum at[k] * from_stride[k]] for every position `at` in the box
 * d[0..rank), rank <= BOX_RANK. Strides may be zero or negative.
 */
void copy_box(struct tensor *dst, int64_t to, const int64_t *to_stride, const struct tensor *src, int64_t from,
              const int64_t *from_stride, int rank, const int64_t *d);

/*
 * A walk over an output and up to WALK_MAX inputs that broadcast to it, one line at a time: a stretch of the output, in
 * row-major order, along which every input advances by a constant step (0 or more).
 *
 *	for (walk_init(&w, y, 2, c->in); walk_next(&w);)
 *		for (int64_t i = 0; i < w.n; i++)
 *			put(y, w.out + i, f(get(a, w.at[0] + i * w.step[0]), get(b, w.at[1] + i * w.step[1])));
 */
enum { WALK_MAX = 3 };

struct walk {
	int64_t n;   /* length of every line */
	int64_t out; /* where the line starts in the output */
	int64_t at[WALK_MAX], step[WALK_MAX]; /* and in the inputs */
	int nin, rank; /* axes over which lines repeat */
	int64_t lines; /* to come */
	int64_t d[MAX_RANK], index[MAX_RANK], stride[WALK_MAX][MAX_RANK];
};

void walk_init(struct walk *w, const struct tensor *out, int nin, const struct tensor *const *in);
bool walk_next(struct walk *w);

/* out[0][i] = f(in[0][i]), in double, rounded once. */
enum linnet_code map_unary(struct kernel_call *c, double (*f)(double));

/* out[0] = f(in[0], in[1]), broadcast; in double, rounded once, or on integers, wrapping to the type. */
enum linnet_code map_binary(struct kernel_call *c, double (*f)(double, double));
enum linnet_code map_binary_int(struct kernel_call *c, int64_t (*f)(int64_t, int64_t));

/*
 * Integers are 64 bits, sign- or zero-extended; what is stored wraps to the type. Where the sign matters, the functions
 * called natural are for the bits of unsigned types.
 */
static inline int64_t add_int(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static inline int64_t sub_int(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
static inline int64_t mul_int(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static inline int64_t larger_int(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t smaller_int(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger_natural(int64_t a, int64_t b) { return (uint64_t)a > (uint64_t)b ? a : b; }
static inline int64_t smaller_natural(int64_t a, int64_t b) { return (uint64_t)a < (uint64_t)b ? a : b; }

/* The larger and the smaller; NaN when either is. */
static inline double larger(double a, double b) { return a > b || isnan(a) ? a : b; }
static inline double smaller(double a, double b) { return a < b || isnan(a) ? a : b; }

/* The kernel of cubic convolution, on (-2, 2), with its free parameter a. Source: Keys, 1981, equation 4. */
static inline double cubic_filter(double x, double a)
{
	x = fabs(x);
	if (x <= 1)
		return ((a + 2) * x - (a + 3)) * x * x + 1;
	return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* A number whose order as int64 is the order of t's integers, which uint64 beyond 2^63 read as negative. Its own inverse. */
static inline int64_t int_order(enum dtype t, int64_t v)
{
	return t == DT_UINT64 ? (int64_t)((uint64_t)v ^ (uint64_t)1 << 63) : v;
}

#endif
