/*
 * Output projections in closed form: what best makes the softmax attention's projected output of the new form's.
 *
 *	min over W of |Y W - X W0|^2 + lambda |W - W0|^2      (Y^T Y + lambda I) W = (Y^T X + lambda I) W0
 *	X, Y [n, K]: rows of softmax attention and of the new form, heads side by side, over n tokens; W0 [K, N]: the projection as it is
 *	lambda = 1e-4 tr(Y^T Y) / K
 *
 * Rows are what the teacher's layers see, so all layers are fitted in one pass; sums over tokens are in double, of products in float of a batch.
 */
#include <string.h>

#include "calibrate/graphs.h"
#include "ops/blas.h"

static const struct op_io pair_in[] = { { "x" }, { "y" }, { NULL } }, sums_out[] = { { "yy" }, { "yx" }, { "xx" }, { NULL } };
static const struct op sums = { .name = "Sums", .in = pair_in, .out = sums_out };

/* The node that alone reads v as its first input; NULL: there is none. */
static const struct node *reader(const struct graph *g, const struct uses *u, value_id v)
{
	const struct node *found = NULL;

	for (uint32_t i = u->begin[v]; i < u->end[v]; i++) {
		if (!u->use[i].node) /* it is an output too */
			continue;
		if (found || u->use[i].index)
			return NULL;
		found = &g->node[u->use[i].node];
	}
	return found;
}

static bool is_projection(const struct graph *g, const struct uses *u, const struct node *n)
{
	value_id w = n->nin > 1 ? n->in[1] : 0;

	if (!node_is(n, "MatMul") && !(node_is(n, "Gemm") && !node_attr(n, "transA")->i && !node_attr(n, "transB")->i && node_attr(n, "alpha")->f == 1))
		return false;
	return w && g->value[w].kind == VALUE_CONST && g->value[w].type.dt == DT_FLOAT && g->value[w].type.shape.rank == 2 && u->end[w] - u->begin[w] == 1;
}

/* y laid out as x, attention's own result, is before its projection; *x and *y become those, the answer is the projection. NULL: there is none. */
static const struct node *project(struct graph *g, const struct uses *u, value_id *x, value_id *y, struct linnet_error *e)
{
	const struct node *n;

	while ((n = reader(g, u, *x)) && (node_is(n, "Transpose") || node_is(n, "Reshape"))) {
		value_id in[2] = { *y, n->nin > 1 ? n->in[1] : 0 }, from = n->out[0];
		struct attr attr[8];
		uint32_t na = 0;
		node_id id;

		for (uint32_t k = 0; k < n->nattr && na < 8; k++)
			if (attr_given(&n->attr[k]))
				attr[na++] = n->attr[k];
		if (graph_add_node(g, n->op, "fit", in, n->nin, NULL, 1, attr, na, &id, e) || graph_infer_node(g, id, e))
			return NULL;
		*x = from;
		*y = g->node[id].out[0];
	}
	return n && is_projection(g, u, n) ? n : NULL;
}

static enum linnet_code add_sums(struct lesson *l, const struct uses *u, uint32_t layer, struct linnet_error *e)
{
	struct graph *g = l->model.graph;
	value_id x = lesson_output(l, "soft", layer), y = lesson_output(l, "linear", layer), in[2], out[3];
	const bool wanted[3] = { true, true, true };
	struct fit *f = &l->fit[l->nfit];
	const struct node *n = project(g, u, &x, &y, e);
	struct block_call c = { .op = &sums, .name = "fit", .in = in, .wanted = wanted, .out = out, .nin = 2, .nout = 3, .real = DT_FLOAT };
	const char *text;

	if (!n)
		return e->code;
	f->weight = g->value[n->in[1]].name;
	f->w = g->value[n->in[1]].type.value;
	text = arena_fmt(g->arena, "{ s = Constant <value = int64[2] {-1, %lld}> ()\n"
	                           "  x2 = Reshape (x, s)\n"
	                           "  y2 = Reshape (y, s)\n"
	                           "  xt = Transpose <perm = [1, 0]> (x2)\n"
	                           "  yt = Transpose <perm = [1, 0]> (y2)\n"
	                           "  yy = MatMul (yt, y2)\n"
	                           "  yx = MatMul (yt, x2)\n"
	                           "  xx = MatMul (xt, x2) }", (long long)f->w->d[0]);
	if (!text)
		return fail_mem(e);
	in[0] = x;
	in[1] = y;
	TRY(graph_add_block(g, text, &c, e));
	for (int i = 0; i < 3; i++)
		f->sum[i] = g->value[out[i]].name;
	l->nfit++;
	return LINNET_OK;
}

enum linnet_code lesson_fit(struct lesson *l, struct linnet_error *e)
{
	struct arena *s = arena_new();
	struct uses u;
	enum linnet_code code = s ? graph_uses(l->model.graph, s, &u, e) : fail_mem(e);

	l->nfit = 0;
	l->fit = NEW(l->model.arena, l->report.nitem, struct fit);
	if (!code && !l->fit)
		code = fail_mem(e);
	for (uint32_t i = 0; i < l->report.nitem && !code; i++)
		if (l->report.item[i].converted)
			code = add_sums(l, &u, i, e);
	arena_free(s);
	return code;
}

/* tr(W^T S V), S [K, K], W and V [K, N]; SV: room for as much. */
static double trace(const double *S, const double *W, const double *V, int64_t K, int64_t N, double *SV)
{
	double sum = 0;

	blas_dgemm(K, N, K, S, V, SV);
	for (int64_t i = 0; i < K * N; i++)
		sum += W[i] * SV[i];
	return sum;
}

enum linnet_code fit_solve(const struct fit *f, const double *sum, struct arena *a, struct tensor **w, double *before, double *after, struct linnet_error *e)
{
	int64_t K = f->w->d[0], N = f->w->d[1];
	const double *yy = sum, *yx = sum + K * K, *xx = sum + 2 * K * K;
	double *A, *W, *W0, *room, lambda = 0, whole;

	TRY_NEW(A, a, K * K);
	TRY_NEW(W, a, K * N);
	TRY_NEW(W0, a, K * N);
	TRY_NEW(room, a, K * N);
	TRY(tensor_new(a, DT_FLOAT, 2, f->w->d, w, e));
	memcpy(A, yy, (size_t)(K * K) * sizeof *A);
	for (int64_t i = 0; i < K; i++)
		lambda += 1e-4 * yy[i * K + i] / (double)K;
	for (int64_t i = 0; i < K; i++)
		A[i * K + i] += lambda;
	for (int64_t i = 0; i < K * N; i++)
		W0[i] = tensor_get(f->w, i);
	blas_dgemm(K, N, K, yx, W0, W);
	for (int64_t i = 0; i < K * N; i++)
		W[i] += lambda * W0[i];
	if (!blas_solve_positive(K, N, A, W))
		return fail(e, LINNET_EVALUE, "the outputs that projection \"%s\" is fitted to are no numbers or all 0", f->weight);
	for (int64_t i = 0; i < K * N; i++)
		tensor_put(*w, i, W[i]);
	whole = trace(xx, W0, W0, K, N, room);
	*before = (trace(yy, W0, W0, K, N, room) - 2 * trace(yx, W0, W0, K, N, room) + whole) / whole;
	*after = (trace(yy, W, W, K, N, room) - 2 * trace(yx, W, W0, K, N, room) + whole) / whole;
	return LINNET_OK;
}
