/* Operators of com.microsoft, as onnxruntime writes them when it fuses: shape functions, reference kernels, then rows. */
#include "ops/contrib.h"

/* ---- Matrix products ---- */

/* Axes of a FusedMatMul operand in the order of MatMul's: batch: the first axis goes behind the batch, then the last two change places. */
static void matmul_order(int rank, bool batch, bool transpose, int p[MAX_RANK])
{
	for (int i = 0; i < rank; i++)
		p[i] = batch && rank > 2 && i < rank - 1 ? (i + 1) % (rank - 1) : i;
	if (transpose && rank > 1) {
		int last = p[rank - 1];

		p[rank - 1] = p[rank - 2];
		p[rank - 2] = last;
	}
}

static const char *const fused_attr[2][2] = { { "transBatchA", "transA" }, { "transBatchB", "transB" } };

static enum linnet_code shape_fused_matmul(struct shape_call *c)
{
	struct type operand[2];
	struct shape_call inner = *c;

	for (int i = 0; i < 2; i++) {
		int p[MAX_RANK];

		operand[i] = *c->in[i];
		if (operand[i].shape.rank < 0)
			continue;
		matmul_order(operand[i].shape.rank, int_attr(c, fused_attr[i][0]), int_attr(c, fused_attr[i][1]), p);
		for (int k = 0; k < operand[i].shape.rank; k++)
			operand[i].shape.d[k] = c->in[i]->shape.d[p[k]];
	}
	inner.op = op_newest(NULL, "MatMul");
	inner.in = (const struct type *[]){ &operand[0], &operand[1] };
	return inner.op->shape(&inner);
}

/* Y = alpha op(A) op(B) */
static enum linnet_code fused_matmul(struct kernel_call *c)
{
	double alpha = attr_get(c->op, c->attr, "alpha")->f;
	struct kernel_call inner = *c;
	struct tensor *operand[2], *y;

	for (int i = 0; i < 2; i++) {
		const struct tensor *t = c->in[i];
		int64_t d[MAX_RANK], from[MAX_RANK], to[MAX_RANK], s[MAX_RANK];
		int p[MAX_RANK];

		matmul_order(t->rank, attr_get(c->op, c->attr, fused_attr[i][0])->i, attr_get(c->op, c->attr, fused_attr[i][1])->i, p);
		strides(t->rank, t->d, s);
		for (int k = 0; k < t->rank; k++) {
			d[k] = t->d[p[k]];
			from[k] = s[p[k]];
		}
		TRY(tensor_new(c->scratch, t->dt, t->rank, d, &operand[i], c->e));
		strides(t->rank, d, to);
		copy_box(operand[i], 0, to, t, 0, from, t->rank, d);
	}
	TRY(tensor_new(c->scratch, DT_DOUBLE, c->out[0]->rank, c->out[0]->d, &y, c->e));
	inner.op = op_newest(NULL, "MatMul");
	inner.in = (const struct tensor *[]){ operand[0], operand[1] };
	inner.out = &y;
	TRY(inner.op->kernel(&inner));
	for (int64_t i = 0; i < y->n; i++)
		tensor_put(c->out[0], i, alpha * tensor_get(y, i));
	return LINNET_OK;
}

/* ---- Rows ---- */

static const struct op rows[] = {
	{
		MS, .name = "FusedMatMul",
		.doc = "MatMul of operands whose axes change places first, times alpha.",
		.in = IN({ "A", T, FLOW_LINEAR }, { "B", T, FLOW_LINEAR }),
		.out = OUT({ "Y", T }),
		.attr = ATTRS({ .name = "alpha", .kind = ATTR_FLOAT, .f = 1 }, FLAG("transA"), FLAG("transB"), FLAG("transBatchA"),
		              FLAG("transBatchB")),
		.types = { [T] = FLOATS },
		.agree = AGREE_ROUND,
		.shape = shape_fused_matmul,
		.kernel = fused_matmul,
		.fuzz = { .shapes = FUZZ_CUSTOM },
	},
};

const struct op_family contrib_ops = FAMILY("contrib", rows);
