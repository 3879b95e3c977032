/*
 * When element types came: rows have the newest version's sets, this table says which members are younger than the
 * operator. Source: the operator schemas of ONNX 1.23, opsets 8 to 28; types that came together are together.
 */
#include <string.h>

#include "ops/op.h"

#define IN_AT(i) (1u << (i))
#define OUT_AT(i) (1u << (16 + (i)))
#define FOUR (SET(UINT4) | SET(INT4))
#define TWO (SET(UINT2) | SET(INT2))
#define SIX (SET(FLOAT6E2M3) | SET(FLOAT6E3M2))

static const struct {
	uint8_t since;
	dtype_set types;
	uint32_t at; /* the inputs and outputs that are meant; 0: all */
	const char *ops;
} younger[] = {
	{ 9, INTS, 0, "Greater Less" },
	{ 9, INTS | COMPLEXES | SET(BOOL) | SET(STRING), 0, "Constant Flatten" },
	{ 9, SET(INT32) | SET(INT64) | SET(UINT32) | SET(UINT64), 0, "Gemm MatMul PRelu" },
	{ 9, SET(STRING), 0, "Cast" },
	{ 10, SET(BOOL), 0, "Dropout" },
	{ 11, INTS, IN_AT(0) | OUT_AT(0), "Pad TopK" },
	{ 11, SET(DOUBLE) | SET(FLOAT16), IN_AT(1), "Resize" },
	{ 11, UINTS | SET(FLOAT) | SET(DOUBLE) | SET(FLOAT16) | SET(INT8) | SET(INT16), 0, "Equal" },
	{ 12, INTS, 0, "Clip Max Min" },
	{ 12, INTS, IN_AT(1), "Pow" },
	{ 12, SET(INT32) | SET(INT64), IN_AT(0) | OUT_AT(0), "Pow" },
	{ 12, SET(INT8) | SET(UINT8), 0, "MaxPool ReduceMax ReduceMin" },
	{ 13, COMPLEXES | SET(BFLOAT16) | SET(BOOL) | SET(STRING), 0, "Pad" },
	{ 13, SET(BFLOAT16), 0,
	  "Abs Add ArgMax ArgMin Cast Ceil Clip Concat Constant DepthToSpace Div Dropout Equal Erf Exp Expand "
	  "Flatten Floor Gather GatherElements GatherND Gemm Greater Hardmax Identity IsNaN LRN Less Log "
	  "LogSoftmax MatMul Max Mean MeanVarianceNormalization Min Mod Mul Neg NonZero Pow Reciprocal "
	  "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
	  "ReduceSum ReduceSumSquare Relu Reshape Resize ScatterElements ScatterND Shape Sigmoid Sign Size "
	  "Slice Softmax SoftmaxCrossEntropyLoss SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile "
	  "Transpose Unsqueeze" },
	{ 14, SET(BFLOAT16), 0, "BatchNormalization" },
	{ 14, SET(FLOAT16) | SET(BFLOAT16), 0, "CumSum" },
	{ 14, SET(INT8) | SET(INT16) | SET(UINT8) | SET(UINT16), 0, "Add Div Mul Sub" },
	{ 14, SINTS, 0, "Relu" },
	{ 15, SET(BFLOAT16), IN_AT(1), "Pow" },
	{ 16, SET(BFLOAT16), 0, "GreaterOrEqual If LeakyRelu LessOrEqual Loop PRelu Scan Where" },
	{ 19, FLOAT8S, 0,
	  "Cast CastLike Constant DequantizeLinear Identity If Loop QuantizeLinear Reshape Scan Shape Size" },
	{ 19, SET(FLOAT16) | SET(BFLOAT16), 0, "DequantizeLinear" },
	{ 19, SET(FLOAT16) | SET(BFLOAT16), IN_AT(0), "QuantizeLinear" },
	{ 19, SET(FLOAT16) | SET(BFLOAT16) | SET(INT32), IN_AT(1), "QuantizeLinear" },
	{ 19, SET(STRING), 0, "Equal" },
	{ 20, FLOAT8S, 0, "IsNaN" },
	{ 20, FLOAT8S | SET(BFLOAT16), 0, "ConstantOfShape" },
	{ 20, FLOAT8S | SET(FLOAT16) | SET(BFLOAT16), 0, "IsInf" },
	{ 20, SET(BOOL), 0, "ReduceMax ReduceMin" },
	{ 21, FLOAT8S, 0, "QLinearMatMul" },
	{ 21, FLOAT8S | FOUR, 0, "Flatten Pad Squeeze Transpose Unsqueeze" },
	{ 21, FOUR, 0, "Cast CastLike Constant ConstantOfShape Identity If Loop Reshape Scan Shape Size" },
	{ 21, FOUR | SET(INT16) | SET(UINT16), 0, "DequantizeLinear QuantizeLinear" },
	{ 21, SET(FLOAT16) | SET(BFLOAT16), 0, "QLinearMatMul" },
	{ 22, FLOAT8S, IN_AT(0) | OUT_AT(0), "Dropout" },
	{ 22, FLOAT8S | SET(BFLOAT16), IN_AT(1), "Dropout" },
	{ 22, SET(BFLOAT16), 0,
	  "Acos Acosh Asin Asinh Atan Atanh AveragePool Conv ConvTranspose Cos Cosh DeformConv Det Elu "
	  "EyeLike GRU GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSigmoid HardSwish "
	  "InstanceNormalization LSTM LpNormalization LpPool MaxPool MaxRoiPool MaxUnpool Mish Multinomial "
	  "NegativeLogLikelihoodLoss RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike "
	  "RoiAlign Round Selu Sin Sinh Softplus Softsign Tan ThresholdedRelu" },
	{ 22, SET(BFLOAT16), IN_AT(0), "Bernoulli" },
	{ 23, SET(FLOAT4E2M1), 0,
	  "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear "
	  "Reshape Scan Shape Size Squeeze Transpose Unsqueeze" },
	{ 24, SET(BFLOAT16), 0, "SplitToSequence TopK" },
	{ 24, SET(FLOAT8E8M0), 0,
	  "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear "
	  "Reshape Scan Shape Size Squeeze Transpose Unsqueeze" },
	{ 25, TWO, 0,
	  "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear "
	  "Reshape Scan Shape Size Squeeze Transpose Unsqueeze" },
	{ 27, SET(FLOAT16) | SET(BFLOAT16), 0, "Range" },
	{ 28, FLOAT8S | FOUR | TWO | SIX | SET(BFLOAT16) | SET(FLOAT4E2M1) | SET(FLOAT8E8M0), 0,
	  "Optional OptionalGetElement OptionalHasElement" },
	{ 28, SET(BFLOAT16), 0, "Compress Einsum OneHot ReverseSequence Unique" },
	{ 28, SET(DOUBLE) | SET(FLOAT16) | SET(BFLOAT16), 0, "Celu" },
	{ 28, SINTS, 0, "BitShift" },
	{ 28, SIX, 0, "Cast DequantizeLinear QuantizeLinear" },
};

/* Members of the sets that went again. */
static const struct {
	uint8_t since;
	dtype_set types;
	const char *ops;
} gone[] = {
	{ 13, INTS, "Erf" },
	{ 28, INTS, "ReduceLogSum ReduceLogSumExp" },
};

/* The same as `younger` for kinds of values. */
static const struct {
	uint8_t since;
	kind_set kinds;
	uint32_t at;
	const char *ops;
} later[] = {
	{ 13, SEQUENCES, 0, "If Loop" },
	{ 14, SEQUENCES, 0, "Identity" },
	{ 16, OPTIONALS, 0, "Identity If Loop" },
	{ 18, TENSORS | SEQUENCES, IN_AT(0), "OptionalGetElement OptionalHasElement" },
};

/* Inputs and outputs that from one opset on, before another, were of the element type of input `like`. */
static const struct {
	uint8_t from, since, like;
	uint32_t at;
	const char *ops;
} alike[] = {
	{ 1, 12, 0, IN_AT(1), "Pow" },
	{ 1, 15, 0, IN_AT(1) | IN_AT(2), "BatchNormalization" },
	{ 19, 23, 0, IN_AT(1), "QuantizeLinear" },
	{ 19, 23, 1, OUT_AT(0), "DequantizeLinear" },
};

static bool listed(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list; (p = strstr(p, name)); p += n)
		if ((p == list || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
			return true;
	return false;
}

/* Whether an entry is about input or output i of the operator, a variadic one's repetitions counting as one. */
static bool is_about(uint32_t at, const char *ops, const struct op *op, bool output, int i)
{
	const struct op_io *io = output ? op->out : op->in;
	int last = 0;

	if (op->domain)
		return false;
	while (io && io[last].name && io[last + 1].name)
		last++;
	i = i < last ? i : last;
	return (!at || at & (output ? OUT_AT(i) : IN_AT(i))) && listed(ops, op->name);
}

int op_type_since(const struct op *op, bool output, int i, enum dtype t, int opset)
{
	int since = 0;

	for (size_t k = 0; k < sizeof younger / sizeof *younger; k++)
		if (younger[k].since > opset && dtype_in(t, younger[k].types) &&
		    is_about(younger[k].at, younger[k].ops, op, output, i))
			since = younger[k].since;
	return since;
}

int op_type_gone(const struct op *op, enum dtype t, int opset)
{
	for (size_t k = 0; k < sizeof gone / sizeof *gone; k++)
		if (!op->domain && gone[k].since <= opset && dtype_in(t, gone[k].types) && listed(gone[k].ops, op->name))
			return gone[k].since;
	return 0;
}

int op_kind_since(const struct op *op, bool output, int i, enum type_kind k, int opset)
{
	int since = 0;

	for (size_t n = 0; n < sizeof later / sizeof *later; n++)
		if (later[n].since > opset && kind_in(k, later[n].kinds) && is_about(later[n].at, later[n].ops, op, output, i))
			since = later[n].since;
	return since;
}

int op_alike_since(const struct op *op, bool output, int i, int opset, int *like)
{
	for (size_t k = 0; k < sizeof alike / sizeof *alike; k++)
		if (alike[k].from <= opset && alike[k].since > opset && is_about(alike[k].at, alike[k].ops, op, output, i)) {
			*like = alike[k].like;
			return alike[k].since;
		}
	return 0;
}
