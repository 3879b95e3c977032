/* Operators that are known and stay out, each with its reason. An operator with a row is not here (tests/unit/test_schemas.c). */
#include <string.h>

#include "ops/op.h"

#define MS "com.microsoft"
#define DEVICE "onnxruntime has it on other devices than the CPU alone, and its documentation does not say enough to compute it"
#define LAYOUT "its tensors are in the memory layouts of one GPU library, which the model does not say"
#define SERVER "it works on the paged or packed caches of an inference server, which are no part of a model"
#define BLOCKS "its weights are in a block format of one GPU's tensor cores"
#define SEARCH "it decodes text with a model inside the model: run the model inside one step at a time"
#define VENDOR "its attribute is a compiled binary for one vendor's device"
#define RECENT "recent in onnxruntime; no model that we have met carries it"

static const struct op_absent absent[] = {
	{ MS, "AttnLSTM", "an LSTM with the attention of before transformers; no exporter writes it, and its variants are undocumented" },
	{ MS, "BeamSearch", SEARCH },
	{ MS, "BranchwiseRMSNorm", RECENT },
	{ MS, "ConvStateReplay", SERVER },
	{ MS, "DecoderAttention", DEVICE },
	{ MS, "DecoderMaskedSelfAttention", DEVICE },
	{ MS, "DequantizeBFP", BLOCKS },
	{ MS, "DequantizeWithOrder", LAYOUT },
	{ MS, "DynamicSparseAttention", SERVER },
	{ MS, "EPContext", VENDOR },
	{ MS, "EngramGate", RECENT },
	{ MS, "GatedAdd", RECENT },
	{ MS, "GatedDeltaNetStateReplay", SERVER },
	{ MS, "GatedRMSNorm", RECENT },
	{ MS, "GatherPacked", RECENT },
	{ MS, "GemmFloat8", DEVICE },
	{ MS, "GreedySearch", SEARCH },
	{ MS, "HyperConnectionLowRankMix", RECENT },
	{ MS, "HyperConnectionPostMix", RECENT },
	{ MS, "HyperConnectionPreMix", RECENT },
	{ MS, "LinearAttentionGate", RECENT },
	{ MS, "LongformerAttention", DEVICE },
	{ MS, "MRotaryEmbedding", RECENT },
	{ MS, "Mamba2Verify", SERVER },
	{ MS, "MatMulBlockQuantizedFp4Weight", BLOCKS },
	{ MS, "MatMulBlockQuantizedFp8Weight", BLOCKS },
	{ MS, "MatMulNBitsMlp", DEVICE },
	{ MS, "MatMulNBitsQLoRA", DEVICE },
	{ MS, "MatMulNBitsQkv", DEVICE },
	{ MS, "MatMulPacked", DEVICE },
	{ MS, "MoEGroupRouter", RECENT },
	{ MS, "MoEPacked", DEVICE },
	{ MS, "NGramHashMapping", RECENT },
	{ MS, "PackedSparseAttentionIndexer", SERVER },
	{ MS, "PackedSparseAttentionIndexerMerge", SERVER },
	{ MS, "PagedAttention", SERVER },
	{ MS, "QOrderedAttention", LAYOUT },
	{ MS, "QOrderedGelu", LAYOUT },
	{ MS, "QOrderedLayerNormalization", LAYOUT },
	{ MS, "QOrderedLongformerAttention", LAYOUT },
	{ MS, "QOrderedMatMul", LAYOUT },
	{ MS, "QuantizeBFP", BLOCKS },
	{ MS, "QuantizeWithOrder", LAYOUT },
	{ MS, "RMSNormRotary", DEVICE },
	{ MS, "RouterGateUpProj", DEVICE },
	{ MS, "Sampling", SEARCH },
	{ MS, "Snpe", VENDOR },
	{ MS, "SparseAttention", "its block mask is one for each layout of heads, and no exporter writes it" },
	{ MS, "SparseAttentionIndexer", SERVER },
	{ MS, "SparsePagedAttention", SERVER },
	{ MS, "SpeculativePrefixCommit", SERVER },
	{ MS, "VarlenCausalConvWithState", SERVER },
	{ MS, "VarlenNGramHashMapping", SERVER },
	{ MS, "WhisperBeamSearch", SEARCH },
};

const struct op_absent *op_absents(int *n)
{
	*n = (int)(sizeof absent / sizeof *absent);
	return absent;
}

const char *op_absent(const char *domain, const char *name)
{
	for (size_t i = 0; domain && i < sizeof absent / sizeof *absent; i++)
		if (!strcmp(absent[i].domain, domain) && !strcmp(absent[i].name, name))
			return absent[i].why;
	return NULL;
}
