/* Element types: names, sizes, conversions. */
#include "ops/base/dtype.h"

#include <math.h>
#include <string.h>

static const struct {
	const char *name;
	uint8_t bits, class;
} info[DT_COUNT] = {
	[DT_UNDEFINED] = { "undefined", 0, CLASS_NONE },
#define X(NAME, name, number, bits, class) [DT_##NAME] = { #name, bits, CLASS_##class },
	DTYPES(X)
#undef X
};

const char *dtype_name(enum dtype t)
{
	return (unsigned)t < DT_COUNT ? info[t].name : "undefined";
}

enum dtype dtype_parse(const char *s, size_t n)
{
	for (int t = 1; t < DT_COUNT; t++)
		if (strlen(info[t].name) == n && !memcmp(info[t].name, s, n))
			return (enum dtype)t;
	return DT_UNDEFINED;
}

enum dtype_class dtype_class(enum dtype t)
{
	return (unsigned)t < DT_COUNT ? (enum dtype_class)info[t].class : CLASS_NONE;
}

unsigned dtype_bits(enum dtype t)
{
	return (unsigned)t < DT_COUNT ? info[t].bits : 0;
}

size_t dtype_align(enum dtype t)
{
	size_t bytes = dtype_bits(t) / 8;

	if (dtype_class(t) == CLASS_COMPLEX)
		return bytes / 2;
	return bytes ? bytes : 1;
}

size_t dtype_bytes(enum dtype t, uint64_t n)
{
	uint64_t bits = dtype_bits(t);

	if (bits == 6)
		bits = 8;
	if (!bits || n > (SIZE_MAX - 7) / bits)
		return bits ? SIZE_MAX : 0;
	return (size_t)((n * bits + 7) / 8);
}

/* Exponent bits, mantissa bits, bias, and what the top codes mean. */
struct narrow {
	int exp, man, bias;
	bool has_inf, fnuz, nan_is_all_ones, no_nan;
};

static struct narrow narrow_info(enum dtype t)
{
	switch (t) {
	case DT_FLOAT8E4M3FN: return (struct narrow){ 4, 3, 7, .nan_is_all_ones = true };
	case DT_FLOAT8E4M3FNUZ: return (struct narrow){ 4, 3, 8, .fnuz = true };
	case DT_FLOAT8E5M2: return (struct narrow){ 5, 2, 15, .has_inf = true };
	case DT_FLOAT8E5M2FNUZ: return (struct narrow){ 5, 2, 16, .fnuz = true };
	case DT_FLOAT6E2M3: return (struct narrow){ 2, 3, 1, .no_nan = true };
	case DT_FLOAT6E3M2: return (struct narrow){ 3, 2, 3, .no_nan = true };
	default: return (struct narrow){ 2, 1, 1, .no_nan = true }; /* FLOAT4E2M1 */
	}
}

double narrow_to_double(enum dtype t, uint8_t b)
{
	struct narrow f = narrow_info(t);
	int width = 1 + f.exp + f.man, top = (1 << f.exp) - 1;
	int sign, e, m;
	double v;

	if (t == DT_FLOAT8E8M0)
		return b == 0xff ? NAN : ldexp(1, (int)b - 127);
	b &= (uint8_t)((1u << width) - 1);
	sign = b >> (width - 1);
	e = (b >> f.man) & top;
	m = b & ((1 << f.man) - 1);
	if (f.fnuz && b == 1u << (width - 1))
		return NAN;
	if (f.nan_is_all_ones && e == top && m == (1 << f.man) - 1)
		return NAN;
	if (f.has_inf && e == top)
		return m ? NAN : sign ? -INFINITY : INFINITY;
	v = e ? ldexp((1 << f.man) + m, e - f.bias - f.man) : ldexp(m, 1 - f.bias - f.man);
	return sign ? -v : v;
}

uint8_t narrow_from_double(enum dtype t, double v, bool saturate)
{
	struct narrow f = narrow_info(t);
	int width = 1 + f.exp + f.man, top = (1 << f.exp) - 1, e;
	unsigned sign = signbit(v) ? 1u << (width - 1) : 0;
	unsigned max_code, nan_code, code;
	double a = fabs(v), q;

	if (t == DT_FLOAT8E8M0) { /* powers of two only; nearest in the exponent's mantissa sense */
		if (isnan(v) || v < 0)
			return 0xff;
		if (isinf(v))
			return saturate ? 0xfe : 0xff;
		if (v == 0)
			return 0;
		q = frexp(v, &e); /* v = q 2^e, q in [0.5, 1) */
		e += 126 + (q > 0.75 || (q == 0.75 && (e & 1)));
		return (uint8_t)(e < 0 ? 0 : e > 0xfe ? (saturate ? 0xfe : 0xff) : e);
	}
	if (f.fnuz) {
		max_code = (1u << (width - 1)) - 1;
		nan_code = 1u << (width - 1);
	} else if (f.nan_is_all_ones) {
		max_code = (1u << (width - 1)) - 2;
		nan_code = sign | ((1u << (width - 1)) - 1);
	} else if (f.has_inf) {
		max_code = ((unsigned)top << f.man) - 1;
		nan_code = sign | ((1u << (width - 1)) - 1);
	} else { /* types without NaN: -0 for it, as ONNX's tests expect */
		max_code = (1u << (width - 1)) - 1;
		nan_code = 1u << (width - 1);
	}
	if (isnan(v))
		return (uint8_t)nan_code;
	if (isinf(v)) {
		if (f.no_nan || saturate)
			return (uint8_t)(sign | max_code);
		return (uint8_t)(f.has_inf ? sign | ((unsigned)top << f.man) : nan_code);
	}
	if (a == 0)
		return (uint8_t)(f.fnuz ? 0 : sign);
	frexp(a, &e);
	e -= 1; /* a in [2^e, 2^(e+1)) */
	if (e < 1 - f.bias)
		e = 1 - f.bias;
	q = nearbyint(ldexp(a, f.man - e)); /* units of the last place; ties to even */
	code = (unsigned)(q < (1 << f.man) ? q : q + ldexp(e + f.bias - 1, f.man));
	if (code > max_code) {
		if (f.no_nan || saturate)
			return (uint8_t)(sign | max_code);
		return (uint8_t)(f.has_inf ? sign | ((unsigned)top << f.man) : nan_code);
	}
	if (code == 0 && f.fnuz)
		return 0;
	return (uint8_t)(sign | code);
}

/* Round a double to a 16-bit float with the given mantissa and exponent widths. */
static uint16_t short_from_double(double v, int man, int exp)
{
	int bias = (1 << (exp - 1)) - 1, top = (1 << exp) - 1, e;
	uint16_t sign = signbit(v) ? 0x8000 : 0;
	double a = fabs(v), q;
	unsigned code;

	if (isnan(v))
		return (uint16_t)(sign | (unsigned)top << man | 1u << (man - 1));
	if (isinf(v))
		return (uint16_t)(sign | (unsigned)top << man);
	if (a == 0)
		return sign;
	frexp(a, &e);
	e -= 1;
	if (e < 1 - bias)
		e = 1 - bias;
	if (e > bias + 1)
		return (uint16_t)(sign | (unsigned)top << man);
	q = nearbyint(ldexp(a, man - e));
	code = q < (1 << man) ? (unsigned)q : (unsigned)(q + ldexp(e + bias - 1, man));
	if (code > (unsigned)top << man)
		code = (unsigned)top << man;
	return (uint16_t)(sign | code);
}

static double short_to_double(uint16_t h, int man, int exp)
{
	int bias = (1 << (exp - 1)) - 1, top = (1 << exp) - 1;
	int e = (h >> man) & top, m = h & ((1 << man) - 1);
	double v;

	if (e == top)
		v = m ? NAN : INFINITY;
	else
		v = e ? ldexp((1 << man) + m, e - bias - man) : ldexp(m, 1 - bias - man);
	return h & 0x8000 ? -v : v;
}

uint16_t half_from_double(double v) { return short_from_double(v, 10, 5); }
double half_to_double(uint16_t h) { return short_to_double(h, 10, 5); }
uint16_t bfloat_from_double(double v) { return short_from_double(v, 7, 8); }

double bfloat_to_double(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

static unsigned get_packed(const void *data, size_t i, unsigned bits)
{
	unsigned per = 8 / bits;

	return (unsigned)((const uint8_t *)data)[i / per] >> (i % per * bits) & ((1u << bits) - 1);
}

static void put_packed(void *data, size_t i, unsigned bits, unsigned v)
{
	unsigned per = 8 / bits, shift = (unsigned)(i % per) * bits, mask = ((1u << bits) - 1) << shift;
	uint8_t *p = (uint8_t *)data + i / per;

	*p = (uint8_t)((*p & ~mask) | (v << shift & mask));
}

/* Reading works wherever the data lies: weights may be anywhere in their file. */
#define ELEMENT(type, i) (((const struct __attribute__((packed, may_alias)) { type v; } *)data)[i].v)
#define AT(type) ELEMENT(type, i)

int64_t dtype_get_int(enum dtype t, const void *data, size_t i)
{
	unsigned u;
	double v;

	switch (t) {
	case DT_INT64: return AT(int64_t);
	case DT_INT32: return AT(int32_t);
	case DT_INT16: return AT(int16_t);
	case DT_INT8: return AT(int8_t);
	case DT_UINT64: return (int64_t)AT(uint64_t);
	case DT_UINT32: return AT(uint32_t);
	case DT_UINT16: return AT(uint16_t);
	case DT_UINT8: return AT(uint8_t);
	case DT_BOOL: return AT(uint8_t) != 0;
	case DT_UINT4: return get_packed(data, i, 4);
	case DT_UINT2: return get_packed(data, i, 2);
	case DT_INT4: u = get_packed(data, i, 4); return u > 7 ? (int64_t)u - 16 : (int64_t)u;
	case DT_INT2: u = get_packed(data, i, 2); return u > 1 ? (int64_t)u - 4 : (int64_t)u;
	default: break;
	}
	v = dtype_get(t, data, i);
	if (isnan(v))
		return 0;
	if (v >= 9223372036854775808.0)
		return INT64_MAX;
	return v <= -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
}

double dtype_get(enum dtype t, const void *data, size_t i)
{
	switch (t) {
	case DT_FLOAT: return AT(float);
	case DT_DOUBLE: return AT(double);
	case DT_FLOAT16: return half_to_double(AT(uint16_t));
	case DT_BFLOAT16: return bfloat_to_double(AT(uint16_t));
	case DT_COMPLEX64: return ELEMENT(float, 2 * i);
	case DT_COMPLEX128: return ELEMENT(double, 2 * i);
	case DT_UINT64: return (double)AT(uint64_t);
	case DT_FLOAT4E2M1: return narrow_to_double(t, (uint8_t)get_packed(data, i, 4));
	case DT_FLOAT8E4M3FN:
	case DT_FLOAT8E4M3FNUZ:
	case DT_FLOAT8E5M2:
	case DT_FLOAT8E5M2FNUZ:
	case DT_FLOAT8E8M0:
	case DT_FLOAT6E2M3:
	case DT_FLOAT6E3M2: return narrow_to_double(t, AT(uint8_t));
	case DT_STRING:
	case DT_UNDEFINED:
	case DT_COUNT: return 0;
	default: return (double)dtype_get_int(t, data, i);
	}
}
#undef AT
#undef ELEMENT

#define AT(type) (((type *)data)[i])

void dtype_put_int(enum dtype t, void *data, size_t i, int64_t v)
{
	switch (t) {
	case DT_INT64: AT(int64_t) = v; return;
	case DT_INT32: AT(uint32_t) = (uint32_t)v; return;
	case DT_INT16: AT(uint16_t) = (uint16_t)v; return;
	case DT_INT8: AT(uint8_t) = (uint8_t)v; return;
	case DT_UINT64: AT(uint64_t) = (uint64_t)v; return;
	case DT_UINT32: AT(uint32_t) = (uint32_t)v; return;
	case DT_UINT16: AT(uint16_t) = (uint16_t)v; return;
	case DT_UINT8: AT(uint8_t) = (uint8_t)v; return;
	case DT_BOOL: AT(uint8_t) = v != 0; return;
	case DT_UINT4:
	case DT_INT4: put_packed(data, i, 4, (unsigned)v & 15); return;
	case DT_UINT2:
	case DT_INT2: put_packed(data, i, 2, (unsigned)v & 3); return;
	default: dtype_put(t, data, i, (double)v); return;
	}
}

/* A double to int64: toward zero, NaN to 0, out of range to the nearest end. */
static int64_t to_int(double v)
{
	if (isnan(v))
		return 0;
	if (v >= 9223372036854775808.0)
		return INT64_MAX;
	return v <= -9223372036854775808.0 ? INT64_MIN : (int64_t)v;
}

void dtype_put(enum dtype t, void *data, size_t i, double v)
{
	switch (t) {
	case DT_FLOAT: AT(float) = (float)v; return;
	case DT_DOUBLE: AT(double) = v; return;
	case DT_FLOAT16: AT(uint16_t) = half_from_double(v); return;
	case DT_BFLOAT16: AT(uint16_t) = bfloat_from_double(v); return;
	case DT_COMPLEX64:
		((float *)data)[2 * i] = (float)v;
		((float *)data)[2 * i + 1] = 0;
		return;
	case DT_COMPLEX128:
		((double *)data)[2 * i] = v;
		((double *)data)[2 * i + 1] = 0;
		return;
	case DT_FLOAT4E2M1: put_packed(data, i, 4, narrow_from_double(t, v, true)); return;
	case DT_FLOAT8E4M3FN:
	case DT_FLOAT8E4M3FNUZ:
	case DT_FLOAT8E5M2:
	case DT_FLOAT8E5M2FNUZ:
	case DT_FLOAT8E8M0:
	case DT_FLOAT6E2M3:
	case DT_FLOAT6E3M2: AT(uint8_t) = narrow_from_double(t, v, true); return;
	case DT_BOOL: AT(uint8_t) = v != 0; return;
	case DT_UINT64:
		AT(uint64_t) = v >= 18446744073709551616.0 ? UINT64_MAX : v > 0 ? (uint64_t)v : (uint64_t)to_int(v);
		return;
	case DT_STRING:
	case DT_UNDEFINED:
	case DT_COUNT: return;
	default: dtype_put_int(t, data, i, to_int(v)); return;
	}
}
