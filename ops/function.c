/*
 * Which operators of ai.onnx are functions: ONNX defines them by other operators, in their newest version. All others are
 * primitive. Source: the schemas of onnx 1.23. onnxruntime's are functions wherever they stand.
 */
#include "ops/op.h"

#include <string.h>

static const char *const functions[] = {
	"AffineGrid", "Attention", "Bernoulli", "BlackmanWindow", "CastLike", "CausalConvWithState", "Celu", "CenterCropPad", "Clip",
	"DepthToSpace", "DynamicQuantizeLinear", "Elu", "FlexAttention", "Gelu", "GreaterOrEqual", "GroupNormalization", "HammingWindow",
	"HannWindow", "HardSigmoid", "HardSwish", "LayerNormalization", "LeakyRelu", "LessOrEqual", "LinearAttention", "LogSoftmax",
	"MeanVarianceNormalization", "Mish", "NegativeLogLikelihoodLoss", "PRelu", "RMSNormalization", "Range", "ReduceL1", "ReduceL2",
	"ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "Relu", "RotaryEmbedding", "Selu", "SequenceMap", "Shrink", "Softmax",
	"SoftmaxCrossEntropyLoss", "Softplus", "Softsign", "SpaceToDepth", "SwiGLU", "Swish", "ThresholdedRelu",
};

bool op_is_function(const struct op *op)
{
	if ((op->domain && !strcmp(op->domain, "com.microsoft")) || !strcmp(op->name, "SimplifiedLayerNormalization"))
		return true;
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
		if (!strcmp(op->name, functions[i]))
			return true;
	return false;
}
