/* Sums of products: MatMul, Gemm, Einsum; Det. Reference kernels, then rows. */
#include <math.h>
#include <string.h>

#include "ops/body.h"
#include "ops/einsum.h"
#include "ops/fast/fast.h"
#include "ops/grad.h"
#include "ops/op.h"

/* The matrices of a MatMul operand: a vector counts as one row (first operand) or one column (second). */
struct matrices {
	struct shape batch;
	dim rows, columns;
};

static struct matrices matrices(const struct shape *s, bool second)
{
	struct matrices m = { .batch = *s };

	m.batch.rank = s->rank == 1 ? 0 : s->rank - 2;
	m.rows = s->rank > 1 ? s->d[s->rank - 2] : second ? s->d[0] : 1;
	m.columns = s->rank > 1 ? s->d[s->rank - 1] : second ? 1 : s->d[0];
	return m;
}

/* a: [..., n, k]  b: [..., k, m]  gives [..., n, m], without n where a is a vector, without m where b is. */
static enum linnet_code shape_matmul(struct shape_call *c)
{
	const struct shape *sa = &c->in[0]->shape, *sb = &c->in[1]->shape;
	struct matrices a, b;
	struct shape s;

	TRY(rank_check(c, 0, 1, MAX_RANK));
	TRY(rank_check(c, 1, 1, MAX_RANK));
	if (sa->rank < 0 || sb->rank < 0)
		return LINNET_OK;
	a = matrices(sa, false);
	b = matrices(sb, true);
	TRY(length_join(c, "inner lengths", a.columns, b.rows, NULL));
	TRY(broadcast(c->dims, &a.batch, &b.batch, &s, c->e));
	if (sa->rank > 1)
		s.d[s.rank++] = a.rows;
	if (sb->rank > 1)
		s.d[s.rank++] = b.columns;
	c->out[0].shape = s;
	return LINNET_OK;
}

/* The batch axes of a tensor as a tensor of its own, for walking them under broadcasting. */
static struct tensor batch_of(const struct tensor *t, const struct matrices *m)
{
	struct tensor b = { .rank = m->batch.rank };

	memcpy(b.d, t->d, sizeof b.d);
	return b;
}

/* y[.., i, j] = sum over k of a[.., i, k] b[.., k, j] */
static enum linnet_code matmul(struct kernel_call *c)
{
	const struct tensor *a = c->in[0], *b = c->in[1];
	struct shape sa = shape_of(a), sb = shape_of(b);
	struct matrices ma = matrices(&sa, false), mb = matrices(&sb, true);
	struct tensor ba = batch_of(a, &ma), bb = batch_of(b, &mb), *y = c->out[0];
	int64_t n = ma.rows, k = ma.columns, m = mb.columns;
	int64_t stride_a[MAX_RANK], stride_b[MAX_RANK], index[MAX_RANK] = { 0 };
	int r = ba.rank > bb.rank ? ba.rank : bb.rank;
	bool exact = dtype_class(y->dt) != CLASS_FLOAT;
	const double *da = NULL, *db = NULL;

	broadcast_strides(&ba, r, stride_a);
	broadcast_strides(&bb, r, stride_b);
	if (!exact) {
		TRY(kernel_doubles(c, 0, &da));
		TRY(kernel_doubles(c, 1, &db));
	}
	for (int64_t at = 0; at < y->n; at += n * m) {
		int64_t oa = 0, ob = 0;

		for (int i = 0; i < r; i++) {
			oa += index[i] * stride_a[i] * n * k;
			ob += index[i] * stride_b[i] * k * m;
		}
		for (int64_t i = 0; i < n; i++)
			for (int64_t j = 0; j < m; j++) {
				uint64_t whole = 0;
				double sum = 0;

				for (int64_t l = 0; l < k; l++) {
					int64_t pa = oa + i * k + l, pb = ob + l * m + j;

					if (exact)
						whole += (uint64_t)tensor_get_int(a, pa) * (uint64_t)tensor_get_int(b, pb);
					else
						sum += da[pa] * db[pb];
				}
				if (exact)
					tensor_put_int(y, at + i * m + j, (int64_t)whole);
				else
					tensor_put(y, at + i * m + j, sum);
			}
		for (int i = r - 1; i >= 0 && ++index[i] == y->d[i]; i--)
			index[i] = 0;
	}
	return LINNET_OK;
}

/* A: [n, k] or [k, n] as transA says, B: [k, m] or [m, k] as transB says, C broadcast to Y: [n, m] */
static enum linnet_code shape_gemm(struct shape_call *c)
{
	bool ta = c->attr[0].i != 0, tb = c->attr[1].i != 0;
	const struct shape *a = &c->in[0]->shape, *b = &c->in[1]->shape;
	struct shape s = { .rank = 2, .d = { DIM_NONE, DIM_NONE } }, with_c;

	TRY(rank_check(c, 0, 2, 2));
	TRY(rank_check(c, 1, 2, 2));
	if (a->rank == 2 && b->rank == 2)
		TRY(length_join(c, "inner lengths", a->d[!ta], b->d[tb], NULL));
	if (a->rank == 2)
		s.d[0] = a->d[ta];
	if (b->rank == 2)
		s.d[1] = b->d[!tb];
	if (c->nin > 2 && c->in[2]) {
		TRY(rank_check(c, 2, 0, 2));
		TRY(broadcast(c->dims, &s, &c->in[2]->shape, &with_c, c->e));
		for (int i = 0; i < 2 && with_c.rank == 2; i++)
			if (s.d[i] == 1 && with_c.d[i] != 1 && dim_is_int(with_c.d[i]))
				return fail(c->e, LINNET_ESHAPE, "C has %lld %s; the product has 1", (long long)with_c.d[i],
				            i ? "columns" : "rows");
	}
	c->out[0].shape = s;
	return LINNET_OK;
}

/* Y[i, j] = alpha sum over k of A[i, k] B[k, j] + beta C[i, j] */
static enum linnet_code gemm(struct kernel_call *c)
{
	const struct tensor *a = c->in[0], *b = c->in[1], *plus = c->nin > 2 ? c->in[2] : NULL;
	struct tensor *y = c->out[0];
	bool ta = c->attr[0].i != 0, tb = c->attr[1].i != 0, exact = dtype_class(y->dt) != CLASS_FLOAT;
	double alpha = c->attr[2].f, beta = c->attr[3].f;
	int64_t n = y->d[0], m = y->d[1], k = a->d[!ta], stride[2] = { 0, 0 };
	const double *da = NULL, *db = NULL;

	if (plus)
		broadcast_strides(plus, 2, stride);
	if (!exact) {
		TRY(kernel_doubles(c, 0, &da));
		TRY(kernel_doubles(c, 1, &db));
	}
	for (int64_t i = 0; i < n; i++)
		for (int64_t j = 0; j < m; j++) {
			int64_t pc = i * stride[0] + j * stride[1];
			uint64_t whole = 0;
			double sum = 0;

			for (int64_t l = 0; l < k; l++) {
				int64_t pa = ta ? l * n + i : i * k + l, pb = tb ? j * k + l : l * m + j;

				if (exact)
					whole += (uint64_t)tensor_get_int(a, pa) * (uint64_t)tensor_get_int(b, pb);
				else
					sum += da[pa] * db[pb];
			}
			if (exact && alpha == 1 && (beta == 1 || !plus)) {
				whole += plus ? (uint64_t)tensor_get_int(plus, pc) : 0;
				tensor_put_int(y, i * m + j, (int64_t)whole);
				continue;
			}
			sum = alpha * (exact ? (double)(int64_t)whole : sum);
			if (plus && beta != 0)
				sum += beta * tensor_get(plus, pc);
			tensor_put(y, i * m + j, sum);
		}
	return LINNET_OK;
}

static int letter(char ch)
{
	if (ch >= 'A' && ch <= 'Z')
		return ch - 'A';
	return ch >= 'a' && ch <= 'z' ? 26 + ch - 'a' : -1;
}

/* The labels of one term of the equation; its ellipsis, if any, stands for as many axes as make up the rank, or when
 * rank < 0 for `ellipsis` of them. */
static enum linnet_code read_term(struct text term, int rank, int ellipsis, struct labels *out, struct linnet_error *e)
{
	int letters = 0;

	out->n = 0;
	for (size_t i = 0; i < term.n; i++)
		letters += letter(term.p[i]) >= 0;
	for (size_t i = 0; i < term.n; i++) {
		int first = letter(term.p[i]), n = 1;

		if (term.p[i] == ' ')
			continue;
		if (first < 0) {
			if (term.n - i < 3 || memcmp(term.p + i, "...", 3) != 0)
				return fail(e, LINNET_EATTR, "equation has '%c'; expected letters, \"...\", \",\" and \"->\"", term.p[i]);
			n = rank < 0 ? ellipsis : rank - letters;
			if (n < 0)
				break;
			first = NLABEL - n;
			i += 2;
		}
		if (out->n + n > MAX_RANK)
			return fail(e, LINNET_EUNSUPPORTED, "a term of the equation has more than %d axes", MAX_RANK);
		while (n-- > 0)
			out->at[out->n++] = first++;
	}
	if (rank >= 0 && out->n != rank)
		return fail(e, LINNET_ESHAPE, "term \"%.*s\" does not name the %d axes of its operand", (int)term.n, term.p, rank);
	return LINNET_OK;
}

/* Cut the next term of the left side off: up to a comma, "->" or the end. */
static struct text next_term(struct text *rest)
{
	struct text t = { rest->p, 0 };

	while (t.n < rest->n && rest->p[t.n] != ',' && rest->p[t.n] != '-')
		t.n++;
	rest->p += t.n;
	rest->n -= t.n;
	if (rest->n && *rest->p == ',') {
		rest->p++;
		rest->n--;
	}
	return t;
}

/* The right side: what follows "->", or the labels that occur once on the left in order, after the ellipsis. */
static enum linnet_code read_output(struct text rest, const int *count, int ellipsis, struct labels *out, struct linnet_error *e)
{
	bool seen[NLABEL] = { false };

	if (rest.n) {
		if (rest.n < 2 || memcmp(rest.p, "->", 2) != 0)
			return fail(e, LINNET_EATTR, "equation has a '-' that is not \"->\"");
		TRY(read_term((struct text){ rest.p + 2, rest.n - 2 }, -1, ellipsis, out, e));
		for (int i = 0; i < out->n; i++) {
			if (!count[out->at[i]] || seen[out->at[i]])
				return fail(e, LINNET_EATTR, "equation's right side names an axis %s",
				            seen[out->at[i]] ? "twice" : "the left side does not");
			seen[out->at[i]] = true;
		}
		return LINNET_OK;
	}
	out->n = 0;
	for (int i = 0; i < NLABEL; i++) {
		int label = i < MAX_RANK ? LETTERS + i : i - MAX_RANK;

		if (!(label < LETTERS ? count[label] == 1 : label >= NLABEL - ellipsis))
			continue;
		if (out->n == MAX_RANK)
			return fail(e, LINNET_EUNSUPPORTED, "the output would have more than %d axes", MAX_RANK);
		out->at[out->n++] = label;
	}
	return LINNET_OK;
}

void equation_begin(struct equation *q, struct text equation, int noperand)
{
	*q = (struct equation){ .all = equation, .rest = equation, .noperand = noperand };
}

enum linnet_code equation_term(struct equation *q, int rank, struct labels *out, struct linnet_error *e)
{
	if (q->n && (q->rest.p == q->all.p || q->rest.p[-1] != ','))
		return fail(e, LINNET_EATTR, "equation has fewer terms than the %d inputs", q->noperand);
	q->n++;
	TRY(read_term(next_term(&q->rest), rank, 0, out, e));
	for (int i = 0; i < out->n; i++) {
		int label = out->at[i];

		q->count[label]++;
		if (label >= LETTERS && NLABEL - label > q->ellipsis)
			q->ellipsis = NLABEL - label;
	}
	return LINNET_OK;
}

enum linnet_code equation_end(struct equation *q, struct labels *out, struct linnet_error *e)
{
	if (q->rest.n && *q->rest.p != '-')
		return fail(e, LINNET_EATTR, "equation has more terms than the %d inputs", q->noperand);
	return read_output(q->rest, q->count, q->ellipsis, out, e);
}

static enum linnet_code shape_einsum(struct shape_call *c)
{
	struct shape length[NLABEL];
	struct equation q;
	struct labels term;

	equation_begin(&q, c->attr[0].s, c->nin);
	for (int i = 0; i < NLABEL; i++)
		length[i] = (struct shape){ .rank = 1, .d = { 1 } };
	for (int i = 0; i < c->nin; i++) {
		const struct shape *s = &c->in[i]->shape;

		if (s->rank < 0)
			return LINNET_OK;
		TRY(equation_term(&q, s->rank, &term, c->e));
		for (int k = 0; k < s->rank; k++) {
			struct shape *at = &length[term.at[k]], one = { .rank = 1, .d = { s->d[k] } };

			TRY(broadcast(c->dims, at, &one, at, c->e));
		}
	}
	TRY(equation_end(&q, &term, c->e));
	c->out[0].shape.rank = term.n;
	for (int i = 0; i < term.n; i++)
		c->out[0].shape.d[i] = length[term.at[i]].d[0];
	return LINNET_OK;
}

enum linnet_code einsum_read(const struct kernel_call *c, struct einsum *out)
{
	struct equation q;
	struct labels term;

	equation_begin(&q, c->attr[0].s, c->nin);
	for (int i = 0; i < NLABEL; i++)
		out->length[i] = 1;
	for (int i = 0; i < c->nin; i++) {
		const struct tensor *t = c->in[i];
		int64_t step = 1;

		TRY(equation_term(&q, t->rank, &term, c->e));
		for (int k = t->rank - 1; k >= 0; k--) {
			if (t->d[k] != 1) {
				out->stride[i][term.at[k]] += step;
				out->length[term.at[k]] = t->d[k];
			}
			step *= t->d[k];
		}
	}
	TRY(equation_end(&q, &out->out, c->e));
	for (int i = 0; i < out->out.n; i++)
		q.count[out->out.at[i]] = 0;
	out->nsum = 0;
	for (int i = 0; i < NLABEL; i++)
		if (q.count[i])
			out->sum[out->nsum++] = i;
	return LINNET_OK;
}

/* Output[output labels] = sum over the other labels of the product of the operands, each at its own labels. */
static enum linnet_code einsum(struct kernel_call *c)
{
	struct tensor *y = c->out[0];
	bool exact = dtype_class(y->dt) != CLASS_FLOAT;
	int64_t index[NLABEL] = { 0 }, *at, inner = 1;
	int loop[NLABEL], nloop = 0;
	struct linnet_error *e = c->e;
	const double **x;
	struct einsum s;

	TRY_NEW(s.stride, c->scratch, c->nin);
	TRY(einsum_read(c, &s));
	TRY_NEW(at, c->scratch, c->nin);
	TRY_NEW(x, c->scratch, c->nin);
	for (int i = 0; i < c->nin && !exact; i++)
		TRY(kernel_doubles(c, i, &x[i]));
	for (int i = 0; i < s.out.n; i++)
		loop[nloop++] = s.out.at[i];
	for (int i = 0; i < s.nsum; i++) {
		loop[nloop++] = s.sum[i];
		inner *= s.length[s.sum[i]];
	}
	for (int64_t o = 0; o < y->n; o++) {
		uint64_t whole = 0;
		double sum = 0;

		for (int64_t l = 0; l < inner; l++) {
			uint64_t pi = 1;
			double p = 1;

			for (int i = 0; i < c->nin; i++)
				if (exact)
					pi *= (uint64_t)tensor_get_int(c->in[i], at[i]);
				else
					p *= x[i][at[i]];
			whole += pi;
			sum += p;
			for (int k = nloop - 1; k >= 0; k--) {
				bool wrap = ++index[k] == s.length[loop[k]];

				for (int i = 0; i < c->nin; i++)
					at[i] += s.stride[i][loop[k]] * (wrap ? 1 - s.length[loop[k]] : 1);
				if (!wrap)
					break;
				index[k] = 0;
			}
		}
		if (exact)
			tensor_put_int(y, o, (int64_t)whole);
		else
			tensor_put(y, o, sum);
	}
	return LINNET_OK;
}

/* X: [..., M, M]  Y: [...] */
static enum linnet_code shape_det(struct shape_call *c)
{
	const struct shape *x = &c->in[0]->shape;

	TRY(rank_check(c, 0, 2, MAX_RANK));
	if (x->rank < 0)
		return LINNET_OK;
	TRY(length_join(c, "numbers of rows and columns", x->d[x->rank - 2], x->d[x->rank - 1], NULL));
	c->out[0].shape = *x;
	c->out[0].shape.rank = x->rank - 2;
	return LINNET_OK;
}

/* The determinant of a: [m, m], which is overwritten: the product of the pivots of elimination with row exchanges. */
static double determinant(double *a, int64_t m)
{
	double det = 1;

	for (int64_t k = 0; k < m; k++) {
		int64_t pivot = k;

		for (int64_t i = k + 1; i < m; i++)
			if (fabs(a[i * m + k]) > fabs(a[pivot * m + k]))
				pivot = i;
		if (a[pivot * m + k] == 0)
			return 0;
		for (int64_t j = k; j < m && pivot != k; j++) {
			double t = a[k * m + j];

			a[k * m + j] = a[pivot * m + j];
			a[pivot * m + j] = t;
		}
		det *= pivot == k ? a[k * m + k] : -a[k * m + k];
		for (int64_t i = k + 1; i < m; i++) {
			double f = a[i * m + k] / a[k * m + k];

			for (int64_t j = k + 1; j < m; j++)
				a[i * m + j] -= f * a[k * m + j];
		}
	}
	return det;
}

static enum linnet_code det(struct kernel_call *c)
{
	const struct tensor *x = c->in[0];
	int64_t m = x->d[x->rank - 1];
	struct linnet_error *e = c->e;
	double *a;

	TRY_NEW(a, c->scratch, m * m);
	for (int64_t i = 0; i < c->out[0]->n; i++) {
		for (int64_t k = 0; k < m * m; k++)
			a[k] = tensor_get(x, i * m * m + k);
		tensor_put(c->out[0], i, determinant(a, m));
	}
	return LINNET_OK;
}

#define PRODUCTS (FLOATS | INDICES | SET(UINT32) | SET(UINT64))

static const struct op rows[] = {
	{
		.name = "MatMul", .since = 1,
		.doc = "Matrix product over the last two axes, the others broadcast; a vector is one row or one column.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.types = { [T] = PRODUCTS },
		.agree = AGREE_ROUND,
		.write_grad = grad_matmul,
		.shape = shape_matmul,
		.kernel = matmul,
		.fast = FAST(&fast_matmul),
		.fuzz = { .shapes = FUZZ_MATMUL },
	},
	{
		.name = "Gemm", .since = 7,
		.doc = "alpha A B + beta C, with A and B transposed on request and C broadcast to the product.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }, { "C", T, FLOW_LINEAR, OPTIONAL }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "transA", .kind = ATTR_INT }, { .name = "transB", .kind = ATTR_INT },
		              { .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }, { .name = "beta", .kind = ATTR_FLOAT, .f = 1 }),
		.types = { [T] = PRODUCTS },
		.agree = AGREE_ROUND,
		.write_grad = grad_gemm,
		.shape = shape_gemm,
		.kernel = gemm,
		.fast = FAST(&fast_gemm),
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
	{
		.name = "Einsum", .since = 12,
		.doc = "Sum of products over labelled axes, as the equation says.",
		.in = IN({ "Inputs", T, FLOW_LINEAR, VARIADIC }),
		.out = OUT({ "Output", T }),
		.attr = ATTRS({ .name = "equation", .kind = ATTR_STRING, .flags = REQUIRED }),
		.types = { [T] = NUMBERS },
		.agree = AGREE_ROUND,
		.write_grad = grad_einsum,
		.shape = shape_einsum,
		.kernel = einsum, .fast = FAST(&fast_einsum), .write_body = body_einsum,
		.fuzz = { .words = "ij,jk|ij,jk->ik|bhid,bhjd->bhij|bij,bjd->bid|...ij,...jk->...ik|bic,bjc->ij|ab,cb->ca|bhij,bjhd->bihd|ii->i|ij->ji|i,i->|ij,j|aab,bc->ca" },
	},
	{
		.name = "Det", .since = 11,
		.doc = "Determinants of square matrices.",
		.in = IN({ "X", T, FLOW_SMOOTH }),
		.out = OUT({ "Y", T }),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_det,
		.kernel = det,
		.write_grad = grad_det,
	},
};

const struct op_family matmul_ops = FAMILY("matmul", rows);
