/* Lengths: interned polynomials over symbols, floor quotients and positive parts. */
#include "ops/base/dim.h"

#include <string.h>

#include "ops/base/map.h"
#include "ops/base/str.h"

/* Bounds on an expression and on the table. Weight counts everything printed, nested atoms included, so that walking an
 * expression is bounded however its parts are shared. */
enum { MAX_TERMS = 32, MAX_DEGREE = 8, MAX_WEIGHT = 300, MAX_TABLE = 1 << 22 };

/* What nothing is known to be above. */
#define NO_BOUND INT64_MIN

struct term {
	int64_t c; /* never 0 in a poly */
	uint32_t degree;
	uint32_t atom[MAX_DEGREE]; /* ascending, repeated for powers, 0 beyond the degree */
};

/* Working copy: terms by falling degree, then by atoms; the constant is last. */
struct poly {
	int n;
	struct term t[MAX_TERMS];
};

struct expr {
	const struct term *t;
	int n;
	uint32_t hash, weight;
};

enum atom_kind { SYMBOL, QUOTIENT, POSITIVE };

struct atom {
	enum atom_kind kind;
	const char *name; /* SYMBOL */
	dim p, q;         /* QUOTIENT: floor(p / q); POSITIVE: max(p, 0) */
	int64_t lo;       /* it is at least this, or NO_BOUND */
	uint32_t weight;
	dim self;         /* the expression that is this atom alone */
};

/* Indices by hash, open addressing; 0 is empty. */
struct index {
	uint32_t *slot, n, cap;
};

struct dims {
	struct arena *a;
	struct expr *expr; /* expr[0] is unused */
	struct atom *atom; /* atom[0] is unused */
	uint32_t nexpr, cap_expr, natom, cap_atom;
	struct index by_expr, by_atom;
	struct map symbols, unknowns; /* atoms by name, by dim_unknown()'s key */
	uint32_t fresh;
	uint64_t learned; /* bounds that grew */
};

struct dims *dims_new(struct arena *a)
{
	struct dims *t = NEW(a, 1, struct dims);

	if (!t)
		return NULL;
	t->a = a;
	t->nexpr = t->natom = 1;
	map_init(&t->symbols, a);
	map_init(&t->unknowns, a);
	return t;
}

/* ---- Tables ---- */

static uint32_t mix(uint32_t h, uint64_t v)
{
	v = (v ^ h) * 0x9e3779b97f4a7c15u;
	return (uint32_t)(v ^ v >> 32);
}

static uint32_t hash_terms(const struct term *t, int n)
{
	uint32_t h = (uint32_t)n;

	for (int i = 0; i < n; i++) {
		h = mix(h, (uint64_t)t[i].c);
		for (uint32_t j = 0; j < t[i].degree; j++)
			h = mix(h, t[i].atom[j]);
	}
	return h;
}

static uint32_t hash_atom(const struct atom *a) { return mix(mix((uint32_t)a->kind, (uint64_t)a->p), (uint64_t)a->q); }

/* Room for one more element; the arrays live in the arena. */
static void *grown(struct arena *a, void *p, uint32_t n, uint32_t *cap, size_t size)
{
	uint32_t more = *cap ? *cap * 2 : 64;
	void *q;

	if (n < *cap)
		return p;
	if (n >= MAX_TABLE || !(q = arena_get(a, more, size)))
		return NULL;
	if (p)
		memcpy(q, p, n * size);
	*cap = more;
	return q;
}

/* Room for one more index; hashes of those there come from `hash`. */
static bool index_room(struct dims *t, struct index *x, uint32_t (*hash)(const struct dims *, uint32_t))
{
	uint32_t cap = x->cap ? x->cap * 2 : 64, *slot;

	if (x->n * 2 < x->cap)
		return true;
	slot = NEW(t->a, cap, uint32_t);
	if (!slot)
		return false;
	for (uint32_t i = 0; i < x->cap; i++) {
		uint32_t k = x->slot[i] ? hash(t, x->slot[i]) : 0;

		while (x->slot[i] && slot[k & (cap - 1)])
			k++;
		if (x->slot[i])
			slot[k & (cap - 1)] = x->slot[i];
	}
	x->slot = slot;
	x->cap = cap;
	return true;
}

static uint32_t expr_hash(const struct dims *t, uint32_t i) { return t->expr[i].hash; }
static uint32_t atom_hash(const struct dims *t, uint32_t i) { return hash_atom(&t->atom[i]); }

static bool terms_equal(const struct term *a, const struct term *b, int n)
{
	for (int i = 0; i < n; i++)
		if (a[i].c != b[i].c || a[i].degree != b[i].degree || memcmp(a[i].atom, b[i].atom, sizeof a[i].atom))
			return false;
	return true;
}

static dim expr_dim(uint32_t i) { return DIM_EXPR_MAX - (int64_t)i; }
static const struct expr *expr_of(const struct dims *t, dim d) { return &t->expr[DIM_EXPR_MAX - d]; }

static dim int_dim(int64_t v) { return v > DIM_EXPR_MAX ? v : DIM_NONE; }

/* The dim of a polynomial: an integer, or interned. */
static dim intern(struct dims *t, const struct poly *p)
{
	uint32_t hash, k, weight = 0;
	struct term *copy;
	struct expr *x;

	if (!p->n)
		return 0;
	if (p->n == 1 && !p->t[0].degree)
		return int_dim(p->t[0].c);
	hash = hash_terms(p->t, p->n);
	if (!index_room(t, &t->by_expr, expr_hash))
		return DIM_NONE;
	for (k = hash; t->by_expr.slot[k & (t->by_expr.cap - 1)]; k++) {
		uint32_t i = t->by_expr.slot[k & (t->by_expr.cap - 1)];

		if (t->expr[i].hash == hash && t->expr[i].n == p->n && terms_equal(t->expr[i].t, p->t, p->n))
			return expr_dim(i);
	}
	for (int i = 0; i < p->n; i++) {
		weight++;
		for (uint32_t j = 0; j < p->t[i].degree; j++)
			weight += t->atom[p->t[i].atom[j]].weight;
	}
	x = weight > MAX_WEIGHT ? NULL : grown(t->a, t->expr, t->nexpr, &t->cap_expr, sizeof *x);
	if (!x)
		return DIM_NONE;
	t->expr = x;
	copy = arena_dup(t->a, p->t, (size_t)p->n * sizeof *p->t);
	if (!copy)
		return DIM_NONE;
	t->expr[t->nexpr] = (struct expr){ copy, p->n, hash, weight };
	t->by_expr.slot[k & (t->by_expr.cap - 1)] = t->nexpr;
	t->by_expr.n++;
	return expr_dim(t->nexpr++);
}

/* Add an atom; gives the expression that is it alone. */
static dim add_atom(struct dims *t, struct atom a)
{
	struct atom *p = grown(t->a, t->atom, t->natom, &t->cap_atom, sizeof *p);
	struct poly one = { .n = 1, .t[0] = { .c = 1, .degree = 1, .atom[0] = t->natom } };

	if (!p)
		return DIM_NONE;
	t->atom = p;
	t->atom[t->natom] = a;
	a.self = intern(t, &one);
	if (a.self == DIM_NONE)
		return DIM_NONE;
	t->atom[t->natom++].self = a.self;
	return a.self;
}

/* A quotient or positive part in normal form. */
static dim atom_dim(struct dims *t, struct atom a)
{
	uint32_t k = hash_atom(&a);
	dim d;

	if (a.p == DIM_NONE || a.q == DIM_NONE || !index_room(t, &t->by_atom, atom_hash))
		return DIM_NONE;
	for (; t->by_atom.slot[k & (t->by_atom.cap - 1)]; k++) {
		const struct atom *b = &t->atom[t->by_atom.slot[k & (t->by_atom.cap - 1)]];

		if (b->kind == a.kind && b->p == a.p && b->q == a.q)
			return b->self;
	}
	a.weight = 1 + (dim_is_expr(a.p) ? expr_of(t, a.p)->weight : 1) + (dim_is_expr(a.q) ? expr_of(t, a.q)->weight : 1);
	d = a.weight > MAX_WEIGHT ? DIM_NONE : add_atom(t, a);
	if (d != DIM_NONE) {
		t->by_atom.slot[k & (t->by_atom.cap - 1)] = t->natom - 1;
		t->by_atom.n++;
	}
	return d;
}

/* ---- Symbols ---- */

dim dim_symbol(struct dims *t, const char *name)
{
	uint32_t i;
	char *copy;
	dim d;

	if (!t)
		return DIM_NONE;
	if (map_get(&t->symbols, name, &i))
		return t->atom[i].self;
	copy = arena_str(t->a, name);
	i = t->natom;
	d = copy ? add_atom(t, (struct atom){ .kind = SYMBOL, .name = copy, .weight = 1 }) : DIM_NONE;
	return d == DIM_NONE || map_put(&t->symbols, copy, i) ? DIM_NONE : d;
}

static bool letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool digit(char c) { return c >= '0' && c <= '9'; }

dim dim_fresh(struct dims *t, const char *hint)
{
	const char *name;
	char *clean;

	if (!t)
		return DIM_NONE;
	clean = arena_fmt(t->a, "%s%s", hint && letter(*hint) ? "" : "d", hint ? hint : "");
	if (!clean)
		return DIM_NONE;
	for (char *p = clean; *p; p++)
		if (!letter(*p) && !digit(*p) && *p != '.')
			*p = '_';
	name = clean;
	while (name && map_get(&t->symbols, name, NULL))
		name = arena_fmt(t->a, "%s_%u", clean, ++t->fresh);
	return name ? dim_symbol(t, name) : DIM_NONE;
}

dim dim_unknown(struct dims *t, const char *key, const char *hint)
{
	uint32_t i;
	char *copy;
	dim d;

	if (!t)
		return DIM_NONE;
	if (map_get(&t->unknowns, key, &i))
		return t->atom[i].self;
	copy = arena_str(t->a, key);
	d = copy ? dim_fresh(t, hint) : DIM_NONE;
	return d == DIM_NONE || map_put(&t->unknowns, copy, t->natom - 1) ? DIM_NONE : d;
}

/* The atom that d is alone, or NULL. */
static struct atom *lone_atom(const struct dims *t, dim d)
{
	const struct expr *x;

	if (!t || !dim_is_expr(d))
		return NULL;
	x = expr_of(t, d);
	return x->n == 1 && x->t->c == 1 && x->t->degree == 1 ? &t->atom[x->t->atom[0]] : NULL;
}

/* ---- Polynomials ---- */

static void load(const struct dims *t, dim d, struct poly *p)
{
	p->n = 0;
	if (dim_is_expr(d)) {
		p->n = expr_of(t, d)->n;
		memcpy(p->t, expr_of(t, d)->t, (size_t)p->n * sizeof *p->t);
	} else if (d) {
		p->n = 1;
		p->t[0] = (struct term){ .c = d };
	}
}

/* Order of monomials: < 0 when a comes first. */
static int compare(const struct term *a, const struct term *b)
{
	if (a->degree != b->degree)
		return a->degree > b->degree ? -1 : 1;
	for (uint32_t i = 0; i < a->degree; i++)
		if (a->atom[i] != b->atom[i])
			return a->atom[i] < b->atom[i] ? -1 : 1;
	return 0;
}

/* p += t. False beyond MAX_TERMS and for coefficients outside the integers a dim can be. */
static bool add_term(struct poly *p, const struct term *t)
{
	int i = p->n, order = 1;

	while (i > 0 && (order = compare(t, &p->t[i - 1])) < 0)
		i--;
	if (i > 0 && order == 0) {
		if (__builtin_add_overflow(p->t[i - 1].c, t->c, &p->t[i - 1].c) || p->t[i - 1].c <= DIM_EXPR_MAX)
			return false;
		if (!p->t[i - 1].c) {
			p->n--;
			memmove(&p->t[i - 1], &p->t[i], (size_t)(p->n - i + 1) * sizeof *p->t);
		}
		return true;
	}
	if (p->n == MAX_TERMS || t->c <= DIM_EXPR_MAX)
		return false;
	memmove(&p->t[i + 1], &p->t[i], (size_t)(p->n - i) * sizeof *p->t);
	p->t[i] = *t;
	p->n++;
	return true;
}

static bool term_mul(const struct term *a, const struct term *b, struct term *out)
{
	uint32_t i = 0, j = 0;

	*out = (struct term){ .degree = a->degree + b->degree };
	if (out->degree > MAX_DEGREE || __builtin_mul_overflow(a->c, b->c, &out->c))
		return false;
	for (uint32_t k = 0; k < out->degree; k++)
		out->atom[k] = j == b->degree || (i < a->degree && a->atom[i] <= b->atom[j]) ? a->atom[i++] : b->atom[j++];
	return true;
}

/* a / b as monomials; the coefficient of the result is 1. False when b does not divide a. */
static bool term_div(const struct term *a, const struct term *b, struct term *out)
{
	uint32_t j = 0;

	*out = (struct term){ .c = 1 };
	for (uint32_t i = 0; i < a->degree; i++)
		if (j < b->degree && a->atom[i] == b->atom[j])
			j++;
		else
			out->atom[out->degree++] = a->atom[i];
	return j == b->degree;
}

/* p += k * m * q */
static bool add_product(struct poly *p, const struct term *m, const struct poly *q)
{
	struct term x;

	for (int i = 0; i < q->n; i++)
		if (!term_mul(m, &q->t[i], &x) || !add_term(p, &x))
			return false;
	return true;
}

static bool add_scaled(struct poly *p, int64_t k, const struct poly *q)
{
	return !k || add_product(p, &(struct term){ .c = k }, q);
}

static int64_t gcd(int64_t a, int64_t b)
{
	uint64_t x = a < 0 ? -(uint64_t)a : (uint64_t)a, y = b < 0 ? -(uint64_t)b : (uint64_t)b;

	while (y) {
		uint64_t r = x % y;

		x = y;
		y = r;
	}
	return x > INT64_MAX ? 1 : (int64_t)x;
}

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b && (a < 0) != (b < 0));
}

/* The constant of p, which it loses. */
static int64_t take_constant(struct poly *p)
{
	return p->n && !p->t[p->n - 1].degree ? p->t[--p->n].c : 0;
}

/* The largest monomial, with the greatest common divisor as coefficient, that divides every term of p and of q. */
static struct term common_factor(const struct poly *p, const struct poly *q)
{
	struct term m = p->n ? p->t[0] : q->t[0];

	for (int i = 0; i < p->n + q->n; i++) {
		const struct term *x = i < p->n ? &p->t[i] : &q->t[i - p->n];
		struct term both = { .c = gcd(m.c, x->c) };
		uint32_t a = 0, b = 0;

		while (a < m.degree && b < x->degree)
			if (m.atom[a] == x->atom[b]) {
				both.atom[both.degree++] = m.atom[a];
				a++;
				b++;
			} else if (m.atom[a] < x->atom[b]) {
				a++;
			} else {
				b++;
			}
		m = both;
	}
	return m;
}

/* p / m where m divides every term. */
static void divide_out(struct poly *p, const struct term *m)
{
	for (int i = 0; i < p->n; i++) {
		struct term x;

		term_div(&p->t[i], m, &x);
		x.c = p->t[i].c / m->c;
		p->t[i] = x;
	}
}

/* ---- Bounds ---- */

void dim_at_least(struct dims *t, dim d, int64_t lo)
{
	struct atom *a;
	struct poly p;

	if (!t || !dim_is_expr(d))
		return;
	load(t, d, &p);
	if (__builtin_sub_overflow(lo, take_constant(&p), &lo) || p.n != 1 || p.t[0].degree != 1 || p.t[0].c < 1)
		return;
	a = &t->atom[p.t[0].atom[0]];
	lo = -floor_div(-lo, p.t[0].c);
	if (lo > a->lo) {
		a->lo = lo;
		t->learned++;
	}
}

uint64_t dims_learned(const struct dims *t)
{
	return t ? t->learned : 0;
}

/* A lower bound of the term's value, from those of its atoms. */
static int64_t term_low(const struct dims *t, const struct term *x)
{
	int64_t r = x->c;

	if (x->c < 0 && x->degree)
		return NO_BOUND;
	for (uint32_t i = 0; i < x->degree; i++) {
		int64_t lo = t->atom[x->atom[i]].lo;

		if (lo < 0)
			return x->degree == 1 && lo != NO_BOUND && !__builtin_mul_overflow(r, lo, &r) ? r : NO_BOUND;
		if (__builtin_mul_overflow(r, lo, &r))
			r = INT64_MAX;
	}
	return r;
}

static int64_t poly_low(const struct dims *t, const struct poly *p)
{
	int64_t sum = 0;

	for (int i = 0; i < p->n; i++) {
		int64_t lo = term_low(t, &p->t[i]);

		if (lo == NO_BOUND || __builtin_add_overflow(sum, lo, &sum))
			return NO_BOUND;
	}
	return sum;
}

/* An atom of p that prove() may replace: where it stands, and what it is multiplied by there, which is not negative. */
static const struct atom *replaceable(const struct dims *t, const struct poly *p, enum atom_kind kind, int *at,
                                      struct term *rest)
{
	for (int i = 0; i < p->n; i++)
		for (uint32_t j = 0; j < p->t[i].degree; j++) {
			const struct atom *a = &t->atom[p->t[i].atom[j]];

			if (a->kind != kind || (kind == QUOTIENT && !(dim_is_int(a->q) && a->q > 0)))
				continue;
			term_div(&p->t[i], &(struct term){ .degree = 1, .atom[0] = p->t[i].atom[j] }, rest);
			if (term_low(t, rest) < 0)
				continue;
			*at = i;
			return a;
		}
	return NULL;
}

/*
 * p >= 0, each term by its own bound or, where that fails, by replacing an atom: k*floor(x/d) is in [k*(x-d+1)/d, k*x/d] (then
 * everything is multiplied by d), max(x, 0) is x or 0. fuel bounds the replacements.
 */
static bool prove(const struct dims *t, const struct poly *p, int fuel)
{
	struct term rest, c = { .c = 1 };
	struct poly x, r = { .n = 0 };
	const struct atom *a;
	bool up, zero;
	int at;

	if (poly_low(t, p) >= 0)
		return true;
	/* maxima first: what they hold may cancel quotients */
	a = fuel > 0 ? replaceable(t, p, POSITIVE, &at, &rest) : NULL;
	if (!a && fuel > 0)
		a = replaceable(t, p, QUOTIENT, &at, &rest);
	if (!a)
		return false;
	up = p->t[at].c > 0;
	rest.c = p->t[at].c;
	load(t, a->p, &x);
	for (int k = 0; k < p->n; k++) {
		struct term scaled = p->t[k];

		if (a->kind == QUOTIENT && __builtin_mul_overflow(scaled.c, a->q, &scaled.c))
			return false;
		if (k != at && !add_term(&r, &scaled))
			return false;
	}
	if (a->kind == POSITIVE) {
		zero = prove(t, &r, fuel - 1);
		if (zero == up)
			return up;
	} else if (up) {
		c.c = 1 - a->q;
		if (!add_term(&x, &c))
			return false;
	}
	return add_product(&r, &rest, &x) && prove(t, &r, fuel - 1);
}

enum { PROOF_FUEL = 4 };

static bool nonnegative(struct dims *t, dim d)
{
	struct poly p;

	if (!dim_is_expr(d))
		return d >= 0;
	load(t, d, &p);
	return prove(t, &p, PROOF_FUEL);
}

bool dim_ge(struct dims *t, dim a, int64_t b)
{
	struct poly p;

	if (!dim_is_expr(a))
		return a != DIM_NONE && a >= b;
	if (!t || b == INT64_MIN)
		return false;
	load(t, a, &p);
	return (!b || add_term(&p, &(struct term){ .c = -b })) && prove(t, &p, PROOF_FUEL);
}

bool dim_divides(struct dims *t, int64_t d, dim a)
{
	const struct expr *x;

	if (a == DIM_NONE || d == INT64_MIN)
		return false;
	if (!dim_is_expr(a))
		return d ? a % (d < 0 ? -d : d) == 0 : !a;
	if (!t || !d)
		return false;
	x = expr_of(t, a);
	for (int i = 0; i < x->n; i++)
		if (x->t[i].c % (d < 0 ? -d : d))
			return false;
	return true;
}

/* ---- Algebra ---- */

/* a + k*b */
static dim sum(struct dims *t, dim a, int64_t k, dim b)
{
	struct poly p, q;
	int64_t r;

	if (a == DIM_NONE || b == DIM_NONE)
		return DIM_NONE;
	if (dim_is_int(a) && dim_is_int(b))
		return __builtin_mul_overflow(k, b, &r) || __builtin_add_overflow(a, r, &r) ? DIM_NONE : int_dim(r);
	if (!t)
		return DIM_NONE;
	load(t, a, &p);
	load(t, b, &q);
	return add_scaled(&p, k, &q) ? intern(t, &p) : DIM_NONE;
}

dim dim_add(struct dims *t, dim a, dim b) { return sum(t, a, 1, b); }
dim dim_sub(struct dims *t, dim a, dim b) { return sum(t, a, -1, b); }

dim dim_mul(struct dims *t, dim a, dim b)
{
	struct poly p, q, r = { .n = 0 };
	int64_t v;

	if (a == DIM_NONE || b == DIM_NONE)
		return DIM_NONE;
	if (dim_is_int(a) && dim_is_int(b))
		return __builtin_mul_overflow(a, b, &v) ? DIM_NONE : int_dim(v);
	if (!t)
		return DIM_NONE;
	load(t, a, &p);
	load(t, b, &q);
	for (int i = 0; i < p.n; i++)
		if (!add_product(&r, &p.t[i], &q))
			return DIM_NONE;
	return intern(t, &r);
}

/* floor(p / d) + out for d > 0. */
static dim divide_by_int(struct dims *t, struct poly p, int64_t d, dim out)
{
	struct poly whole = { .n = 0 }, rest = { .n = 0 };
	const struct atom *inner;
	int64_t c, g = d;
	dim q;

	for (int i = 0; i < p.n; i++) {
		struct term x = p.t[i];
		int64_t k = floor_div(x.c, d), r = x.c - k * d;

		/* the constant leaves a remainder in [0, d), coefficients one in [-d/2, d/2], halves with their sign */
		if (x.degree && (r > d - r || (r == d - r && x.c < 0))) {
			r -= d;
			k++;
		}
		x.c = k;
		if (k && !add_term(&whole, &x))
			return DIM_NONE;
		x.c = r;
		if (r && !add_term(&rest, &x))
			return DIM_NONE;
	}
	out = dim_add(t, out, intern(t, &whole));
	c = take_constant(&rest);
	if (!rest.n)
		return out;
	if (rest.t[0].c < 0) { /* floor(-x / d) = -floor((x + d - 1) / d) */
		struct poly minus = { .n = 0 };

		if (!add_scaled(&minus, -1, &rest) || (d - 1 - c && !add_term(&minus, &(struct term){ .c = d - 1 - c })))
			return DIM_NONE;
		return dim_sub(t, out, divide_by_int(t, minus, d, 0));
	}
	for (int i = 0; i < rest.n; i++)
		g = gcd(g, rest.t[i].c);
	for (int i = 0; i < rest.n; i++)
		rest.t[i].c /= g;
	c /= g;
	d /= g;
	q = intern(t, &rest);
	inner = lone_atom(t, q);
	if (inner && inner->kind == QUOTIENT) { /* floor((floor(x / a) + c) / d) = floor((x + a*c) / (a*d)) */
		dim x = sum(t, inner->p, c, inner->q), ad = dim_mul(t, inner->q, d);

		return dim_add(t, out, dim_div(t, x, ad));
	}
	if (c && !add_term(&rest, &(struct term){ .c = c }))
		return DIM_NONE;
	c = poly_low(t, &rest);
	return dim_add(t, out, atom_dim(t, (struct atom){ .kind = QUOTIENT, .p = intern(t, &rest), .q = d,
	                                                  .lo = c == NO_BOUND ? NO_BOUND : floor_div(c, d) }));
}

/* p / q without remainder. False when there is one. */
static bool divide_exactly(struct poly p, const struct poly *q, struct poly *out)
{
	struct term m;

	out->n = 0;
	while (p.n) {
		if (p.t[0].c % q->t[0].c || !term_div(&p.t[0], &q->t[0], &m))
			return false;
		m.c = p.t[0].c / q->t[0].c;
		if (!add_term(out, &m))
			return false;
		m.c = -m.c;
		if (!add_product(&p, &m, q))
			return false;
	}
	return true;
}

/* floor(p / q) for a symbolic q. */
static dim divide(struct dims *t, struct poly p, struct poly q)
{
	struct poly whole = { .n = 0 };
	const struct atom *inner;
	struct term m;
	dim out, a, b;

	if (divide_exactly(p, &q, &whole))
		return intern(t, &whole);
	whole.n = 0;
	if (q.n == 1) { /* terms that q divides leave the quotient */
		for (int i = 0; i < p.n;) {
			if (p.t[i].c % q.t[0].c || !term_div(&p.t[i], &q.t[0], &m)) {
				i++;
				continue;
			}
			m.c = p.t[i].c / q.t[0].c;
			if (!add_term(&whole, &m))
				return DIM_NONE;
			p.n--;
			memmove(&p.t[i], &p.t[i + 1], (size_t)(p.n - i) * sizeof *p.t);
		}
	}
	out = intern(t, &whole);
	if (!p.n)
		return out;
	m = common_factor(&p, &q);
	divide_out(&p, &m);
	divide_out(&q, &m);
	if (q.t[0].c < 0) {
		for (int i = 0; i < p.n; i++)
			p.t[i].c = -p.t[i].c;
		for (int i = 0; i < q.n; i++)
			q.t[i].c = -q.t[i].c;
	}
	a = intern(t, &p);
	b = intern(t, &q);
	if (dim_is_int(b))
		return dim_add(t, out, dim_div(t, a, b));
	if (a == DIM_NONE || b == DIM_NONE)
		return DIM_NONE;
	inner = lone_atom(t, a);
	if (inner && inner->kind == QUOTIENT && nonnegative(t, inner->q) && nonnegative(t, b))
		return dim_add(t, out, dim_div(t, inner->p, dim_mul(t, inner->q, b)));
	return dim_add(t, out, atom_dim(t, (struct atom){ .kind = QUOTIENT, .p = a, .q = b,
	                                                  .lo = nonnegative(t, a) && nonnegative(t, b) ? 0 : NO_BOUND }));
}

dim dim_div(struct dims *t, dim a, dim b)
{
	struct poly p, q;

	if (a == DIM_NONE || b == DIM_NONE || b == 0)
		return DIM_NONE;
	if (dim_is_int(a) && dim_is_int(b))
		return int_dim(floor_div(a, b));
	if (!t)
		return DIM_NONE;
	if (a == 0)
		return 0;
	load(t, a, &p);
	if (dim_is_expr(b)) {
		load(t, b, &q);
		return divide(t, p, q);
	}
	q.n = 0;
	if (b < 0 && !add_scaled(&q, -1, &p))
		return DIM_NONE;
	return divide_by_int(t, b < 0 ? q : p, b < 0 ? -b : b, 0);
}

dim dim_ceil_div(struct dims *t, dim a, dim b)
{
	return dim_sub(t, 0, dim_div(t, dim_sub(t, 0, a), b));
}

dim dim_mod(struct dims *t, dim a, dim b)
{
	return dim_sub(t, a, dim_mul(t, b, dim_div(t, a, b)));
}

/* max(d, 0) */
static dim positive(struct dims *t, dim d)
{
	static const struct poly none = { .n = 0 };
	struct poly p, minus = { .n = 0 };
	const struct atom *inner;
	struct term m;
	int64_t c, lo;
	dim out;

	if (!dim_is_expr(d))
		return d == DIM_NONE || d > 0 ? d : 0;
	load(t, d, &p);
	if (!add_scaled(&minus, -1, &p))
		return DIM_NONE;
	if (prove(t, &p, PROOF_FUEL))
		return d;
	if (prove(t, &minus, PROOF_FUEL))
		return 0;
	if (p.t[0].c < 0) /* max(-x, 0) = max(x, 0) - x */
		return dim_add(t, d, positive(t, intern(t, &minus)));
	/* a common factor that is not negative comes out; the others stay */
	m = common_factor(&p, &none);
	for (uint32_t i = m.degree; i-- > 0;)
		if (t->atom[m.atom[i]].lo < 0) {
			m.degree--;
			memmove(&m.atom[i], &m.atom[i + 1], (m.degree - i) * sizeof *m.atom);
			m.atom[m.degree] = 0;
		}
	divide_out(&p, &m);
	d = intern(t, &p);
	c = take_constant(&p);
	inner = lone_atom(t, intern(t, &p));
	if (inner && inner->kind == POSITIVE && c <= 0) { /* max(max(x, 0) + c, 0) = max(x + c, 0) for c <= 0 */
		out = positive(t, dim_add(t, inner->p, c));
	} else {
		load(t, d, &p);
		lo = poly_low(t, &p);
		out = atom_dim(t, (struct atom){ .kind = POSITIVE, .p = d, .lo = lo > 0 ? lo : 0 });
	}
	p.n = 1;
	p.t[0] = m;
	return dim_mul(t, intern(t, &p), out);
}

dim dim_max(struct dims *t, dim a, dim b)
{
	if (dim_is_int(a) && dim_is_int(b))
		return a > b ? a : b;
	if (a == INT64_MAX || b == INT64_MAX)
		return a == DIM_NONE || b == DIM_NONE ? DIM_NONE : INT64_MAX;
	return t ? dim_add(t, b, positive(t, dim_sub(t, a, b))) : DIM_NONE;
}

dim dim_min(struct dims *t, dim a, dim b)
{
	if (dim_is_int(a) && dim_is_int(b))
		return a < b ? a : b;
	if (a == INT64_MAX || b == INT64_MAX)
		return a == INT64_MAX ? b : a;
	return t ? dim_sub(t, a, positive(t, dim_sub(t, a, b))) : DIM_NONE;
}

/* ---- Walking ---- */

/* algebra: t where symbols may stand for expressions, which are then made there; NULL where they are integers. */
static dim evaluate(struct dims *t, struct dims *algebra, dim d, dim (*get)(void *ctx, const char *name), void *ctx)
{
	dim total = 0;

	if (!dim_is_expr(d))
		return d;
	if (!t)
		return DIM_NONE;
	for (int i = 0; i < expr_of(t, d)->n; i++) {
		const struct term x = expr_of(t, d)->t[i];
		dim product = int_dim(x.c);

		for (uint32_t j = 0; j < x.degree; j++) {
			const struct atom a = t->atom[x.atom[j]];
			dim v;

			if (a.kind == SYMBOL)
				v = get(ctx, a.name);
			else if (a.kind == QUOTIENT)
				v = dim_div(algebra, evaluate(t, algebra, a.p, get, ctx), evaluate(t, algebra, a.q, get, ctx));
			else
				v = dim_max(algebra, evaluate(t, algebra, a.p, get, ctx), 0);
			product = dim_mul(algebra, product, v);
		}
		total = dim_add(algebra, total, product);
	}
	return total;
}

dim dim_eval(struct dims *t, dim d, dim (*get)(void *ctx, const char *name), void *ctx)
{
	return evaluate(t, NULL, d, get, ctx);
}

const char *dim_name(const struct dims *t, dim d)
{
	const struct expr *e = t && dim_is_expr(d) ? expr_of(t, d) : NULL;
	const struct atom *a = e && e->n == 1 && e->t[0].degree == 1 && e->t[0].c == 1 ? &t->atom[e->t[0].atom[0]] : NULL;

	return a && a->kind == SYMBOL ? a->name : NULL;
}

bool dim_has(const struct dims *t, dim d, dim symbol)
{
	if (!t || !dim_is_expr(d))
		return false;
	for (int i = 0; i < expr_of(t, d)->n; i++)
		for (uint32_t j = 0; j < expr_of(t, d)->t[i].degree; j++) {
			const struct atom *a = &t->atom[expr_of(t, d)->t[i].atom[j]];

			if (a->self == symbol || dim_has(t, a->p, symbol) || dim_has(t, a->q, symbol))
				return true;
		}
	return false;
}

struct put {
	struct dims *t;
	dim symbol, by;
};

static dim in_place(void *ctx, const char *name)
{
	const struct put *p = ctx;
	dim d = dim_symbol(p->t, name);

	return d == p->symbol ? p->by : d;
}

dim dim_put(struct dims *t, dim d, dim symbol, dim by)
{
	return evaluate(t, t, d, in_place, &(struct put){ t, symbol, by });
}

void dim_symbols(struct dims *t, dim d, void (*f)(void *ctx, const char *name), void *ctx)
{
	if (!t || !dim_is_expr(d))
		return;
	for (int i = 0; i < expr_of(t, d)->n; i++)
		for (uint32_t j = 0; j < expr_of(t, d)->t[i].degree; j++) {
			struct atom a = t->atom[expr_of(t, d)->t[i].atom[j]];

			if (a.kind == SYMBOL)
				f(ctx, a.name);
			dim_symbols(t, a.p, f, ctx);
			dim_symbols(t, a.q, f, ctx);
		}
}

/* ---- Text ---- */

/* The length of the identifier at s: letters, digits, "_", ".", and "-" before a letter. */
static size_t identifier(const char *s)
{
	size_t n = 0;

	if (!letter(*s))
		return 0;
	while (letter(s[n]) || digit(s[n]) || s[n] == '.' || (s[n] == '-' && letter(s[n + 1])))
		n++;
	return n;
}

struct ratio {
	dim num, den;
};

struct parser {
	struct dims *t;
	const char *s;
	int depth;
	bool bad;
};

enum { MAX_DEPTH = 64 };

static void space(struct parser *p)
{
	while (*p->s == ' ')
		p->s++;
}

static bool take(struct parser *p, const char *word)
{
	space(p);
	if (strncmp(p->s, word, strlen(word)))
		return false;
	p->s += strlen(word);
	return true;
}

static struct ratio made(struct parser *p, dim num, dim den)
{
	p->bad |= num == DIM_NONE || den == DIM_NONE;
	return (struct ratio){ num, den };
}

static dim floored(struct parser *p, struct ratio r) { return r.den == 1 ? r.num : dim_div(p->t, r.num, r.den); }

static struct ratio parse_sum(struct parser *p);

/* f(a, b, ...) after the name and "(". */
static struct ratio parse_call(struct parser *p, const char *name, size_t n)
{
	static const struct { const char *name; int nmin, nmax; } known[] = {
		{ "floor", 1, 1 }, { "ceil", 1, 1 }, { "ceiling", 1, 1 }, { "max", 1, 16 }, { "min", 1, 16 }, { "mod", 2, 2 },
		{ "floordiv", 2, 2 }, { "ceildiv", 2, 2 },
	};
	enum { FLOOR, CEIL, CEILING, MAX, MIN, MOD, FLOOR_DIV, CEIL_DIV, NKNOWN };
	struct ratio r = { 0, 1 };
	int which, nargs = 0;
	dim v = DIM_NONE;

	for (which = 0; which < NKNOWN; which++) {
		size_t i = 0;

		while (i < n && (name[i] | 0x20) == known[which].name[i])
			i++;
		if (i == n && !known[which].name[n])
			break;
	}
	if (which == NKNOWN) {
		p->bad = true;
		return r;
	}
	do {
		struct ratio arg = parse_sum(p);
		dim w = which == CEIL || which == CEILING ? dim_ceil_div(p->t, arg.num, arg.den) : floored(p, arg);

		if (!nargs++)
			v = w;
		else if (which == MAX)
			v = dim_max(p->t, v, w);
		else if (which == MIN)
			v = dim_min(p->t, v, w);
		else if (which == MOD)
			v = dim_mod(p->t, v, w);
		else if (which == FLOOR_DIV)
			v = dim_div(p->t, v, w);
		else
			v = dim_ceil_div(p->t, v, w);
	} while (!p->bad && take(p, ","));
	p->bad |= nargs < known[which].nmin || nargs > known[which].nmax || !take(p, ")");
	return made(p, v, 1);
}

/* 'name' after the opening quote; a quote in the name is doubled. */
static struct ratio parse_quoted(struct parser *p)
{
	struct str name;
	const char *s;

	str_init(&name, p->t->a);
	while (*p->s && (*p->s != '\'' || p->s[1] == '\'')) {
		p->s += *p->s == '\'';
		str_addn(&name, p->s++, 1);
	}
	s = str_done(&name);
	p->bad |= !s || !take(p, "'");
	return made(p, p->bad ? DIM_NONE : dim_symbol(p->t, s), 1);
}

static struct ratio parse_primary(struct parser *p)
{
	struct ratio r;
	size_t n;

	space(p);
	if (digit(*p->s)) {
		int64_t v = 0;

		for (; digit(*p->s); p->s++)
			p->bad |= __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *p->s - '0', &v);
		p->bad |= letter(*p->s) || *p->s == '.';
		return made(p, v, 1);
	}
	if (take(p, "(")) {
		r = parse_sum(p);
		p->bad |= !take(p, ")");
		return r;
	}
	if (take(p, "'"))
		return parse_quoted(p);
	n = identifier(p->s);
	if (n) {
		const char *name = p->s;
		char *copy;

		p->s += n;
		if (*p->s == '(') {
			p->s++;
			return parse_call(p, name, n);
		}
		copy = arena_strn(p->t->a, name, n);
		return made(p, copy ? dim_symbol(p->t, copy) : DIM_NONE, 1);
	}
	p->bad = true;
	return (struct ratio){ 0, 1 };
}

static struct ratio parse_power(struct parser *p)
{
	struct ratio r = parse_primary(p), out = { 1, 1 };

	if (p->bad || !take(p, "**"))
		return r;
	space(p);
	if (!digit(*p->s) || digit(p->s[1]) || letter(p->s[1]) || p->s[1] == '.') {
		p->bad = true;
		return r;
	}
	for (int n = *p->s++ - '0'; n > 0; n--)
		out = made(p, dim_mul(p->t, out.num, r.num), dim_mul(p->t, out.den, r.den));
	return out;
}

static struct ratio parse_unary(struct parser *p)
{
	bool minus = false;
	struct ratio r;

	for (;;) {
		if (take(p, "-"))
			minus = !minus;
		else if (!take(p, "+"))
			break;
	}
	r = parse_power(p);
	return minus ? made(p, dim_sub(p->t, 0, r.num), r.den) : r;
}

static struct ratio parse_product(struct parser *p)
{
	struct ratio r = parse_unary(p), f;

	while (!p->bad) {
		if (take(p, "*")) {
			f = parse_unary(p);
			r = made(p, dim_mul(p->t, r.num, f.num), dim_mul(p->t, r.den, f.den));
		} else if (take(p, "//")) {
			f = parse_unary(p);
			r = made(p, dim_div(p->t, dim_mul(p->t, r.num, f.den), dim_mul(p->t, r.den, f.num)), 1);
		} else if (take(p, "/")) {
			f = parse_unary(p);
			r = made(p, dim_mul(p->t, r.num, f.den), dim_mul(p->t, r.den, f.num));
			p->bad |= r.den == 0;
		} else if (take(p, "%")) {
			f = parse_unary(p);
			p->bad |= r.den != 1 || f.den != 1;
			r = made(p, dim_mod(p->t, r.num, f.num), 1);
		} else {
			break;
		}
	}
	return r;
}

static struct ratio parse_sum(struct parser *p)
{
	struct ratio r = { 0, 1 }, x;

	if (++p->depth > MAX_DEPTH) {
		p->bad = true;
		return r;
	}
	r = parse_product(p);
	while (!p->bad) {
		int64_t sign = take(p, "+") ? 1 : take(p, "-") ? -1 : 0;

		if (!sign)
			break;
		x = parse_product(p);
		r = made(p, sum(p->t, dim_mul(p->t, r.num, x.den), sign, dim_mul(p->t, x.num, r.den)),
		         dim_mul(p->t, r.den, x.den));
	}
	p->depth--;
	return r;
}

/* The dim a text reads as; DIM_NONE when it is no expression. */
static dim parse_expression(struct dims *t, const char *s)
{
	struct parser p = { .t = t, .s = s };
	struct ratio r = parse_sum(&p);

	space(&p);
	return p.bad || *p.s ? DIM_NONE : floored(&p, r);
}

dim dim_parse(struct dims *t, const char *s)
{
	dim d;

	if (!t)
		return DIM_NONE;
	if (!*s || !strcmp(s, "?"))
		return dim_fresh(t, "dim");
	d = parse_expression(t, s);
	return d == DIM_NONE ? dim_symbol(t, s) : d;
}

static void print_name(struct str *s, const char *name, bool alone)
{
	size_t n = identifier(name);

	/* a name that reads as something else is quoted; alone, one that reads as nothing stands for itself */
	if ((n && !name[n]) || (alone && *name && strcmp(name, "?") && !strpbrk(name, "'") &&
	                        parse_expression(dims_new(s->a), name) == DIM_NONE)) {
		str_add(s, name);
		return;
	}
	str_add(s, "'");
	for (; *name; name++) {
		str_addn(s, name, 1);
		if (*name == '\'')
			str_addn(s, name, 1);
	}
	str_add(s, "'");
}

static void print(struct str *s, struct dims *t, dim d, bool alone);

/* In parentheses unless it is one word. */
static void print_operand(struct str *s, struct dims *t, dim d)
{
	const struct atom *a = lone_atom(t, d);
	bool bare = (dim_is_int(d) && d >= 0) || (a && a->kind != QUOTIENT);

	str_add(s, bare ? "" : "(");
	print(s, t, d, false);
	str_add(s, bare ? "" : ")");
}

static void print_call(struct str *s, struct dims *t, const char *name, dim a, dim b)
{
	str_add(s, name);
	str_add(s, "(");
	print(s, t, a, false);
	str_add(s, ", ");
	print(s, t, b, false);
	str_add(s, ")");
}

static void print_term(struct str *s, struct dims *t, const struct term *x, bool alone)
{
	bool lone = x->degree == 1 && (x->c == 1 || x->c == -1);
	int64_t c = x->c;

	if (!x->degree || (c != 1 && c != -1))
		str_addf(s, "%llu", c < 0 ? -(unsigned long long)c : (unsigned long long)c);
	for (uint32_t i = 0; i < x->degree; i++) {
		const struct atom *a = &t->atom[x->atom[i]];

		if (i || (c != 1 && c != -1))
			str_add(s, "*");
		if (a->kind == SYMBOL) {
			print_name(s, a->name, alone && lone);
		} else if (a->kind == POSITIVE) {
			print_call(s, t, "max", a->p, 0);
		} else {
			str_add(s, lone && c == 1 ? "" : "(");
			print_operand(s, t, a->p);
			str_add(s, "//");
			print_operand(s, t, a->q);
			str_add(s, lone && c == 1 ? "" : ")");
		}
	}
}

/* rest + max(p, 0) as max(p + rest, rest), rest - max(p, 0) as min(rest, rest - p), where rest is short. */
static bool print_max(struct str *s, struct dims *t, const struct expr *x)
{
	for (int i = 0; i < x->n; i++) {
		const struct atom *a = &t->atom[x->t[i].atom[0]];
		bool up = x->t[i].c == 1;
		struct poly rest;
		dim r, p;

		if (x->t[i].degree != 1 || a->kind != POSITIVE || (!up && x->t[i].c != -1))
			continue;
		memcpy(rest.t, x->t, (size_t)x->n * sizeof *x->t);
		rest.n = x->n - 1;
		memmove(&rest.t[i], &rest.t[i + 1], (size_t)(rest.n - i) * sizeof *rest.t);
		r = intern(t, &rest);
		p = up ? dim_add(t, a->p, r) : dim_sub(t, r, a->p);
		if (p == DIM_NONE || (dim_is_expr(r) && expr_of(t, r)->weight > 4))
			return false;
		print_call(s, t, up ? "max" : "min", p, r);
		return true;
	}
	return false;
}

static void print(struct str *s, struct dims *t, dim d, bool alone)
{
	const struct expr *x;
	int first = 0;

	if (d == DIM_NONE || (dim_is_expr(d) && !t)) {
		str_add(s, "?");
		return;
	}
	if (dim_is_int(d)) {
		str_addf(s, "%lld", (long long)d);
		return;
	}
	if (print_max(s, t, expr_of(t, d)))
		return;
	x = expr_of(t, d);
	while (first < x->n && x->t[first].c < 0)
		first++;
	if (first == x->n)
		first = 0;
	if (x->t[first].c < 0)
		str_add(s, "-");
	print_term(s, t, &x->t[first], alone && x->n == 1 && x->t[0].c == 1);
	for (int i = 0; i < x->n; i++) {
		x = expr_of(t, d);
		if (i == first)
			continue;
		str_add(s, x->t[i].c < 0 ? " - " : " + ");
		print_term(s, t, &x->t[i], false);
	}
}

const char *dim_str(struct dims *t, dim d, struct arena *a)
{
	struct str s;

	str_init(&s, a);
	print(&s, t, d, true);
	return str_done(&s);
}
