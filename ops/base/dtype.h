/* Element types: one list, ONNX's numbers, and conversions to and from double and int64. */
#ifndef LINNET_DTYPE_H
#define LINNET_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Name in the text form, TensorProto.DataType, bits per element, class. */
#define DTYPES(X)                                                                                  \
	X(FLOAT, float, 1, 32, FLOAT)                                                              \
	X(UINT8, uint8, 2, 8, UINT)                                                                \
	X(INT8, int8, 3, 8, INT)                                                                   \
	X(UINT16, uint16, 4, 16, UINT)                                                             \
	X(INT16, int16, 5, 16, INT)                                                                \
	X(INT32, int32, 6, 32, INT)                                                                \
	X(INT64, int64, 7, 64, INT)                                                                \
	X(STRING, string, 8, 128, STRING)                                                          \
	X(BOOL, bool, 9, 8, BOOL)                                                                  \
	X(FLOAT16, float16, 10, 16, FLOAT)                                                         \
	X(DOUBLE, double, 11, 64, FLOAT)                                                           \
	X(UINT32, uint32, 12, 32, UINT)                                                            \
	X(UINT64, uint64, 13, 64, UINT)                                                            \
	X(COMPLEX64, complex64, 14, 64, COMPLEX)                                                   \
	X(COMPLEX128, complex128, 15, 128, COMPLEX)                                                \
	X(BFLOAT16, bfloat16, 16, 16, FLOAT)                                                       \
	X(FLOAT8E4M3FN, float8e4m3fn, 17, 8, FLOAT)                                                \
	X(FLOAT8E4M3FNUZ, float8e4m3fnuz, 18, 8, FLOAT)                                            \
	X(FLOAT8E5M2, float8e5m2, 19, 8, FLOAT)                                                    \
	X(FLOAT8E5M2FNUZ, float8e5m2fnuz, 20, 8, FLOAT)                                            \
	X(UINT4, uint4, 21, 4, UINT)                                                               \
	X(INT4, int4, 22, 4, INT)                                                                  \
	X(FLOAT4E2M1, float4e2m1, 23, 4, FLOAT)                                                    \
	X(FLOAT8E8M0, float8e8m0, 24, 8, FLOAT)                                                    \
	X(UINT2, uint2, 25, 2, UINT)                                                               \
	X(INT2, int2, 26, 2, INT)                                                                  \
	X(FLOAT6E2M3, float6e2m3, 27, 6, FLOAT)                                                    \
	X(FLOAT6E3M2, float6e3m2, 28, 6, FLOAT)

enum dtype {
	DT_UNDEFINED = 0,
#define X(NAME, name, number, bits, class) DT_##NAME = number,
	DTYPES(X)
#undef X
	DT_COUNT
};

enum dtype_class { CLASS_NONE, CLASS_FLOAT, CLASS_INT, CLASS_UINT, CLASS_BOOL, CLASS_STRING, CLASS_COMPLEX };

/* Sets of element types. */
typedef uint32_t dtype_set;
#define SET(name) ((dtype_set)1 << DT_##name)
#define HALVES (SET(FLOAT16) | SET(BFLOAT16))
#define FLOATS (SET(FLOAT) | SET(DOUBLE) | HALVES)
#define FLOAT8S (SET(FLOAT8E4M3FN) | SET(FLOAT8E4M3FNUZ) | SET(FLOAT8E5M2) | SET(FLOAT8E5M2FNUZ))
#define SINTS (SET(INT8) | SET(INT16) | SET(INT32) | SET(INT64))
#define UINTS (SET(UINT8) | SET(UINT16) | SET(UINT32) | SET(UINT64))
#define INTS (SINTS | UINTS)
#define NUMBERS (FLOATS | INTS)
#define SIGNED_NUMBERS (FLOATS | SINTS)
#define COMPLEXES (SET(COMPLEX64) | SET(COMPLEX128))
#define NARROWS                                                                                    \
	(FLOAT8S | SET(FLOAT8E8M0) | SET(FLOAT4E2M1) | SET(FLOAT6E2M3) | SET(FLOAT6E3M2) |         \
	 SET(UINT4) | SET(INT4) | SET(UINT2) | SET(INT2))
#define ANY_DTYPE (NUMBERS | COMPLEXES | NARROWS | SET(BOOL) | SET(STRING))
#define INDICES (SET(INT32) | SET(INT64))

/* The bytes of one string element; not zero-terminated. */
struct text {
	const char *p;
	size_t n;
};

const char *dtype_name(enum dtype t);              /* "float"; "undefined" */
enum dtype dtype_parse(const char *s, size_t n);   /* DT_UNDEFINED when unknown */
enum dtype_class dtype_class(enum dtype t);
size_t dtype_align(enum dtype t);                  /* of one element in memory, in bytes; strings: 1 */
unsigned dtype_bits(enum dtype t);                 /* 0 for DT_UNDEFINED */
static inline bool dtype_in(enum dtype t, dtype_set s) { return (s >> t) & 1; }

/* Bytes of n elements packed as ONNX packs them (2- and 4-bit elements fill bytes from the low bits;
 * 6-bit elements take a byte each); SIZE_MAX on overflow. String elements are struct text. */
size_t dtype_bytes(enum dtype t, uint64_t n);

/*
 * Element i of an array of type t, as a double (floats, integers, bool; exact for all but 64-bit
 * integers beyond 2^53) and as an int64 (integers, bool; floats truncate, uint64 wraps).
 */
double dtype_get(enum dtype t, const void *data, size_t i);
int64_t dtype_get_int(enum dtype t, const void *data, size_t i);

/*
 * Store, rounding once, ties to even. Floats out of range become infinite (float8 without infinity
 * saturate or become NaN as `saturate` says elsewhere; here they saturate). Integers wrap.
 */
void dtype_put(enum dtype t, void *data, size_t i, double v);
void dtype_put_int(enum dtype t, void *data, size_t i, int64_t v);

uint16_t half_from_double(double v);
double half_to_double(uint16_t h);
uint16_t bfloat_from_double(double v);
double bfloat_to_double(uint16_t h);

/*
 * The narrow floats (float8, float6, float4 families, float8e8m0): their bits as a double, and the
 * nearest bits of a double. saturate: out of range becomes the largest finite value, else infinity
 * or, in types that have none, NaN (types without NaN always saturate, and have -0 for NaN).
 */
double narrow_to_double(enum dtype t, uint8_t bits);
uint8_t narrow_from_double(enum dtype t, double v, bool saturate);

#endif
