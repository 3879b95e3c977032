/* How far two tensors are apart, and whether that is more than rounding. */
#include <math.h>
#include <string.h>

#include "validate/validate.h"

/* ---- Tolerance ---- */

/* Half the distance from 1 to the next larger number; 0 for types that are no narrow floats. */
static double roundoff(enum dtype dt)
{
	switch (dt) {
	case DT_FLOAT16: return 0x1p-11;
	case DT_BFLOAT16: return 0x1p-8;
	case DT_FLOAT8E4M3FN:
	case DT_FLOAT8E4M3FNUZ:
	case DT_FLOAT6E2M3: return 0x1p-4;
	case DT_FLOAT8E5M2:
	case DT_FLOAT8E5M2FNUZ:
	case DT_FLOAT6E3M2: return 0x1p-3;
	case DT_FLOAT4E2M1: return 0x1p-2;
	case DT_FLOAT8E8M0: return 0x1p-1;
	default: return 0;
	}
}

static double scaled(double x, enum dtype dt, double units)
{
	if (dt == DT_DOUBLE || dt == DT_COMPLEX128)
		return x * 1e-4;
	return fmax(x, units * roundoff(dt));
}

static bool unset(const struct tolerance *t)
{
	return t->rtol <= 0 && t->atol <= 0;
}

double tolerance_rtol(const struct tolerance *t, enum dtype dt)
{
	return scaled(unset(t) ? 1e-3 : t->rtol, dt, 16);
}

double tolerance_atol(const struct tolerance *t, enum dtype dt)
{
	return scaled(unset(t) ? 1e-5 : t->atol, dt, 8);
}

/* ---- Distances ---- */

/* Sign and magnitude to a line on which neighbours differ by 1 and both zeros are one point. */
static int64_t on_line(uint64_t bits, unsigned width)
{
	uint64_t sign = (uint64_t)1 << (width - 1), magnitude = bits & (sign - 1);

	return bits & sign ? -(int64_t)magnitude : (int64_t)magnitude;
}

uint64_t ulps_between(const struct tensor *a, const struct tensor *b, int64_t i)
{
	unsigned width = dtype_bits(a->dt);
	uint64_t x = 0, y = 0;
	int64_t p, q;

	switch (width) {
	case 64:
		memcpy(&x, (const char *)a->data + 8 * i, 8);
		memcpy(&y, (const char *)b->data + 8 * i, 8);
		break;
	case 32: x = ((const uint32_t *)a->data)[i], y = ((const uint32_t *)b->data)[i]; break;
	case 16: x = ((const uint16_t *)a->data)[i], y = ((const uint16_t *)b->data)[i]; break;
	case 8: x = ((const uint8_t *)a->data)[i], y = ((const uint8_t *)b->data)[i]; break;
	default: return 0;
	}
	p = on_line(x, width);
	q = on_line(y, width);
	return p > q ? (uint64_t)p - (uint64_t)q : (uint64_t)q - (uint64_t)p;
}

double tensor_part(const struct tensor *t, int64_t i)
{
	if (t->dt == DT_COMPLEX64)
		return ((const float *)t->data)[i];
	if (t->dt == DT_COMPLEX128)
		return ((const double *)t->data)[i];
	return tensor_get(t, i);
}

/* ---- Pairs ---- */

void diff_init(struct diff *d, const char *name)
{
	*d = (struct diff){ .name = name, .worst = -1, .nan_at = -1, .inf_at = -1 };
}

static void add_wrong(struct diff *d, int64_t i, double a, double b, bool largest)
{
	d->wrong++;
	if (d->worst < 0 || largest) {
		d->worst = i;
		d->a_worst = a;
		d->b_worst = b;
	}
}

static void add_strings(struct diff *d, const struct tensor *a, const struct tensor *b)
{
	const struct text *x = a->data, *y = b->data;

	for (int64_t i = 0; i < a->n; i++)
		if (x[i].n != y[i].n || (x[i].n && memcmp(x[i].p, y[i].p, x[i].n)))
			add_wrong(d, i, NAN, NAN, false);
	d->n += a->n;
}

/* Integers are equal or not; how far apart they are is told in doubles. */
static void add_integers(struct diff *d, const struct tensor *a, const struct tensor *b)
{
	for (int64_t i = 0; i < a->n; i++) {
		double x = tensor_get(a, i), y = tensor_get(b, i), off = fabs(x - y);

		d->sa += x * x;
		if (tensor_get_int(a, i) == tensor_get_int(b, i))
			continue;
		add_wrong(d, i, x, y, off > d->max_abs);
		d->se += off * off;
		d->max_abs = fmax(d->max_abs, off);
		d->max_rel = fmax(d->max_rel, off / fmax(fmax(fabs(x), fabs(y)), 1e-6));
	}
	d->n += a->n;
}

/* The root mean square of the first n finite numbers, at least 1: elements near 0 are rounded as the terms that made them. */
static double size_of(const struct tensor *t, int64_t n)
{
	double sum = 0, count = 0;

	for (int64_t i = 0; i < n; i++) {
		double x = tensor_part(t, i);

		if (!isfinite(x))
			continue;
		sum += x * x;
		count++;
	}
	return count > 0 ? fmax(1, sqrt(sum / count)) : 1;
}

static void add_floats(struct diff *d, const struct tensor *a, const struct tensor *b, const struct tolerance *t)
{
	bool complex = dtype_class(a->dt) == CLASS_COMPLEX;
	int64_t n = complex ? 2 * a->n : a->n;
	double rtol = tolerance_rtol(t, a->dt), atol = tolerance_atol(t, a->dt) * size_of(a, n);

	for (int64_t i = 0; i < n; i++) {
		double x = tensor_part(a, i), y = tensor_part(b, i), off = fabs(x - y), larger = fmax(fabs(x), fabs(y));

		if (isnan(x) != isnan(y)) {
			d->nan_at = d->nan_at < 0 ? i : d->nan_at;
			add_wrong(d, i, x, y, false);
		} else if ((isinf(x) || isinf(y)) && x != y) {
			d->inf_at = d->inf_at < 0 ? i : d->inf_at;
			add_wrong(d, i, x, y, false);
		} else if (!isnan(x) && !isinf(x)) {
			if (off > atol + rtol * larger)
				add_wrong(d, i, x, y, off > d->max_abs);
			d->sa += x * x;
			d->se += off * off;
			d->max_abs = fmax(d->max_abs, off);
			d->max_rel = fmax(d->max_rel, off / fmax(larger, 1e-6));
			if (!complex && off > 0) {
				uint64_t u = ulps_between(a, b, i);

				d->max_ulp = u > d->max_ulp ? u : d->max_ulp;
			}
		}
	}
	d->n += n;
}

/* Members one by one; what is told of types is that of the whole, or of the first pair of members that are apart. */
static void add_members(struct diff *d, const struct tensor *a, const struct tensor *b, const struct tolerance *t)
{
	d->typed_apart = a->kind != b->kind || a->key != b->key || a->n != b->n;
	for (int64_t i = 0; i < a->n && !d->typed_apart; i++)
		diff_add(d, tensor_member(a, i), tensor_member(b, i), t);
	if (d->typed_apart && d->akind == KIND_TENSOR && a->kind == b->kind && a->n == b->n)
		return;
	d->akind = a->kind;
	d->bkind = b->kind;
	d->amembers = a->n;
	d->bmembers = b->n;
	d->adt = a->dt;
	d->bdt = b->dt;
	d->ashape = d->bshape = shape_unknown();
}

void diff_add(struct diff *d, const struct tensor *a, const struct tensor *b, const struct tolerance *t)
{
	struct shape sa = shape_of(a), sb = shape_of(b);

	if (d->typed_apart)
		return;
	d->akind = a->kind;
	d->bkind = b->kind;
	if (a->kind != KIND_TENSOR || b->kind != KIND_TENSOR) {
		add_members(d, a, b, t);
		return;
	}
	d->adt = a->dt;
	d->bdt = b->dt;
	d->ashape = sa;
	d->bshape = sb;
	if (a->dt != b->dt || !shape_equal(&sa, &sb)) {
		d->typed_apart = true;
		return;
	}
	switch (dtype_class(a->dt)) {
	case CLASS_STRING: add_strings(d, a, b); break;
	case CLASS_INT:
	case CLASS_UINT:
	case CLASS_BOOL: add_integers(d, a, b); break;
	case CLASS_FLOAT:
	case CLASS_COMPLEX:
	case CLASS_NONE: add_floats(d, a, b, t); break;
	}
}

double diff_nmse(const struct diff *d)
{
	return d->se > 0 ? d->se / d->sa : 0;
}

bool diff_agrees(const struct diff *d, const struct tolerance *t)
{
	bool floats = dtype_class(d->adt) == CLASS_FLOAT || dtype_class(d->adt) == CLASS_COMPLEX;

	if (d->typed_apart || d->nan_at >= 0 || d->inf_at >= 0)
		return false;
	return t->budget > 0 && floats ? diff_nmse(d) <= t->budget : !d->wrong;
}
