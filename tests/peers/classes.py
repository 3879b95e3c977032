"""Export small models of transformers, timm and diffusers classes with random weights, each with a truth.json of what their code says they are.

    classes.py FOLDER [WORD]

FOLDER/NAME/{model.onnx,truth.json,inputs.npz} is written for each model whose name has WORD in it: by both of PyTorch's exporters and, where the
class has them, with its own attention and with scaled_dot_product_attention, at opsets 13 to 23. Packages: torch, onnx, onnxscript, transformers,
timm, diffusers. tests/recognition.py counts what linnet recognises of them (docs/recognition.md).
"""

import json
import os
import signal
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

W, H, D, KV, L, VOCAB = 32, 4, 8, 2, 2, 100  # width, heads, width of a head, key heads, layers, words
SCALE = D**-0.5
ALL = []  # (name, build, truth, ways)
TS, DY = ("ts",), ("dy",)
BOTH = ("ts", "dy")


def attention(kind="mha", heads=H, kv=None, dim=D, count=L, **more):
    group = {"kind": kind, "heads": heads, "kv_heads": kv or heads, "head_dim": dim, "causal": False, "mask": "none", "scale": dim**-0.5,
             "softcap": None, "rope": False, "qk_norm": False, "kv_cache": False, "count": count}
    return {**group, **more}


def padded(**more):
    return attention(**{"mask": "padding", **more})


def causal(**more):
    return attention(**{"mask": "padding", "causal": True, **more})


def grouped(**more):
    return causal(**{"kind": "gqa", "kv": KV, "rope": True, **more})


def glu(variant="swiglu", fused=False, count=L):
    return {"variant": variant, "fused_weight": fused, "count": count}


def add(name, build, attn=(), units=(), ways=BOTH):
    ALL.append((name, build, {"attention": [attn] if isinstance(attn, dict) else list(attn), "glu": [units] if isinstance(units, dict) else list(units)}, ways))


# -- transformers

def ids(batch=2, length=12, seed=0):
    import torch
    return torch.from_numpy(np.random.default_rng(seed).integers(3, VOCAB - 3, (batch, length)))


def keep(batch=2, length=12):
    import torch
    m = torch.ones(batch, length, dtype=torch.int64)
    m[-1, length - 3:] = 0
    return m


def floats(*shape, seed=0):
    import torch
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


AXES = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}, "decoder_input_ids": {0: "batch", 1: "target"},
        "decoder_attention_mask": {0: "batch", 1: "target"}}


def stirred(model, by=0.02):
    """Ready to be run, with no weights left that are all zeros or ones."""
    import torch
    model = model.eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * by)
    return model


def made(auto, kind, cfg, impl, shift=0):
    """A model of the configuration, its parameters moved a little so that none is 0 or 1 everywhere."""
    import torch
    import transformers
    config = transformers.AutoConfig.for_model(kind, **cfg) if isinstance(kind, str) else kind(**cfg)
    torch.manual_seed(1)
    kind_of = getattr(transformers, auto)
    how = {"attn_implementation": impl} if impl else {}
    if hasattr(config, "num_experts_per_tok") or hasattr(config, "num_local_experts"):
        how["experts_implementation"] = "batched_mm"
    model = kind_of.from_config(config, **how) if auto.startswith("AutoModel") else (kind_of._from_config(config, **how) if hasattr(kind_of, "_from_config") else kind_of(config))
    return stirred(model.float(), 0.05)


COMMON = {"vocab_size": VOCAB, "hidden_size": W, "num_hidden_layers": L, "num_attention_heads": H, "intermediate_size": 64,
          "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def text(kind, cfg, attn=(), units=(), auto="AutoModelForCausalLM", ways=BOTH, inputs=("input_ids", "attention_mask"), name=None, common=COMMON, out="logits"):
    def build(impl):
        model = made(auto, kind, {**common, **cfg}, impl)
        values = {"input_ids": ids(), "attention_mask": keep()}
        more = {"use_cache": False} if out == "logits" else {}
        return model, {k: values[k] for k in inputs}, more, AXES, out
    add(name or kind, build, attn, units, ways)


def encoder(kind, cfg, attn=(), units=(), auto="AutoModel", out="last_hidden_state", **more):
    text(kind, cfg, attn, units, auto, out=out, **more)


LLAMA = {"num_key_value_heads": KV, "head_dim": D}
MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_routed_experts": 4, "shared_expert_intermediate_size": 16,
       "first_k_dense_replace": 0, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
MHA = {"num_key_value_heads": H}

# decoders
text("codegen", {"n_embd": W, "n_layer": L, "n_head": H, "n_positions": 64, "n_ctx": 64, "rotary_dim": 4}, causal(rope=True))
text("ctrl", {"n_embd": W, "n_layer": L, "n_head": H, "n_positions": 64, "dff": 64}, causal())
text("cohere", {**LLAMA, "logit_scale": 0.5}, grouped(), glu())
text("cohere", {**LLAMA, "logit_scale": 0.5, "use_qk_norm": True}, grouped(qk_norm=True), glu(), name="cohere_qknorm")
text("cohere2", {**LLAMA, "logit_scale": 0.5, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
     [grouped(count=1, mask="sliding_window", window=4, padding=True), grouped(count=1, rope=False)], glu())
text("starcoder2", {**LLAMA, "sliding_window": None}, grouped())
text("olmo2", LLAMA, grouped(qk_norm=True), glu())
text("olmo3", {**LLAMA, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
     [grouped(count=1, mask="sliding_window", window=4, padding=True, qk_norm=True), grouped(count=1, qk_norm=True)], glu())
text("phimoe", {**LLAMA, **MOE, "sliding_window": None}, grouped(), glu(fused=True), ways=DY)
text("qwen2_moe", {**LLAMA, **MOE, "use_sliding_window": False}, grouped(), [glu(fused=True), glu()], ways=DY)
text("qwen3_moe", {**LLAMA, **MOE}, grouped(qk_norm=True), glu(fused=True), ways=DY)
text("olmoe", {**LLAMA, **MOE}, grouped(qk_norm=True), glu(fused=True), ways=DY)
text("granitemoe", {**LLAMA, **MOE, "attention_multiplier": 0.25}, grouped(scale=0.25), glu(fused=True), ways=DY)
text("dots1", {**LLAMA, **MOE}, grouped(qk_norm=True), [glu(fused=True), glu()], ways=DY)
text("deepseek_v2", {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": L},
     causal(dim=12, v_head_dim=8, rope=True), glu(), ways=DY)
text("deepseek_v3", {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": L,
                     "num_key_value_heads": H}, causal(dim=12, v_head_dim=8, rope=True), glu())
text("minicpm3", {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "num_key_value_heads": H},
     causal(dim=12, v_head_dim=8, rope=True), glu())
text("glm", {**LLAMA, "partial_rotary_factor": 0.5}, grouped(), glu(fused=True), ways=DY)
text("glm4", {**LLAMA, "partial_rotary_factor": 0.5}, grouped(), glu(fused=True), ways=DY)
text("glm4_moe", {**LLAMA, "partial_rotary_factor": 0.5, "first_k_dense_replace": L, "use_qk_norm": True}, grouped(qk_norm=True), glu(), ways=BOTH)
text("nemotron", {**LLAMA, "partial_rotary_factor": 0.5}, grouped())
text("persimmon", {"partial_rotary_factor": 0.5, "qk_layernorm": True}, causal(rope=True, qk_norm=True))
text("helium", LLAMA, grouped(), glu())
text("arcee", LLAMA, grouped())
text("apertus", LLAMA, grouped(qk_norm=True), ways=DY)
text("bitnet", LLAMA, grouped())
text("exaone4", {**LLAMA, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
     [grouped(count=1, mask="sliding_window", window=4, padding=True, qk_norm=True), grouped(count=1, qk_norm=True, rope=False)], glu())
text("ernie4_5", LLAMA, grouped(), glu())
text("hunyuan_v1_dense", LLAMA, grouped(qk_norm=True), glu())
text("seed_oss", LLAMA, grouped(), glu())
text("ministral", {**LLAMA, "sliding_window": 4}, grouped(mask="sliding_window", window=4, padding=True), glu())
text("nanochat", LLAMA, grouped(qk_norm=True))
text("vaultgemma", {**LLAMA, "query_pre_attn_scalar": 16, "sliding_window": 4, "attn_logit_softcapping": 5.0, "layer_types": ["sliding_attention", "full_attention"]},
     [grouped(count=1, mask="sliding_window", window=4, padding=True, scale=0.25, softcap=5.0), grouped(count=1, scale=0.25, softcap=5.0)], glu("geglu_tanh"))
# with scaled_dot_product_attention each softmax meets two halves of values apart
text("diffllama", {**LLAMA}, grouped(rewritable=False), glu(), ways=DY)
text("gpt_oss", {**LLAMA, **MOE, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
     [grouped(count=1, mask="sliding_window", window=4, padding=True, sink=True), grouped(count=1, sink=True)], ways=DY)
text("xglm", {"d_model": W, "ffn_dim": 64, "num_layers": L, "attention_heads": H}, causal())
text("biogpt", {}, causal())
text("imagegpt", {"n_embd": W, "n_layer": L, "n_head": H, "n_positions": 64}, causal(), auto="ImageGPTForCausalImageModeling", common={"vocab_size": VOCAB})
text("openai-gpt", {"n_embd": W, "n_layer": L, "n_head": H, "n_positions": 64}, causal(), auto="OpenAIGPTLMHeadModel", name="openai")
text("gpt_neox_japanese", {"rotary_pct": 0.5, "intermediate_multiple_size": 2}, causal(rope=True))
text("jamba", {**LLAMA, **MOE, "mamba_d_state": 4, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 4,
               "expert_layer_offset": 3, "use_mamba_kernels": False}, grouped(count=1, rope=False), glu(), ways=TS)
text("mamba", {"state_size": 4, "time_step_rank": 4}, ways=TS, inputs=("input_ids",))
text("mamba2", {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 4}, ways=("ts14",), inputs=("input_ids",))
text("falcon_mamba", {"state_size": 4, "time_step_rank": 4}, ways=TS, inputs=("input_ids",))
text("rwkv", {"attention_hidden_size": W, "context_length": 64}, ways=TS, inputs=("input_ids",))
text("recurrent_gemma", {**LLAMA, "lru_width": W, "attention_window_size": 4, "block_types": ["recurrent", "attention"], "num_key_value_heads": 1},
     grouped(count=1, kind="mqa", kv=1, mask="sliding_window", window=4, padding=True), glu("geglu_tanh"), ways=TS)
text("lfm2", {**LLAMA, "layer_types": ["conv", "full_attention"], "block_ff_dim": 64}, grouped(count=1, qk_norm=True), [glu(), glu("bilinear", True, 1)])
text("smollm3", {**LLAMA, "no_rope_layers": [1, 0]}, [grouped(count=1), grouped(count=1, rope=False)], glu(), name="smollm3_nope")
text("modernbert-decoder", {"local_attention": 8, "global_attn_every_n_layers": 2, "layer_types": ["full_attention", "sliding_attention"]},
     [causal(count=1, rope=True), causal(count=1, rope=True, mask="sliding_window", window=4, padding=True)], glu("geglu_erf", True), name="modernbert_decoder")
text("xlm", {"emb_dim": W, "n_layers": L, "n_heads": H, "n_words": VOCAB}, padded(), auto="XLMModel", out="last_hidden_state")
text("flaubert", {"emb_dim": W, "n_layers": L, "n_heads": H, "n_words": VOCAB}, padded(), auto="FlaubertModel", out="last_hidden_state")
# what is added for a key is made of its value: no matter of places
text("doge", {**LLAMA, "keep_window_size": 64}, grouped(qk_norm=True, mask="additive", padding=True), glu(), ways=TS)
text("gemma3n_text", {**LLAMA, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "vocab_size_per_layer_input": VOCAB,
                      "hidden_size_per_layer_input": 8, "laurel_rank": 8, "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0, 0.0], "altup_num_inputs": 2},
     [grouped(count=1, mask="sliding_window", window=4, padding=True, scale=1.0, qk_norm=True), grouped(count=1, scale=1.0, qk_norm=True)], glu("geglu_tanh"), auto="Gemma3nForCausalLM")
text("llama4_text", {**LLAMA, **MOE, "intermediate_size_mlp": 64, "moe_layers": [], "no_rope_layers": [1, 0], "attention_chunk_size": 64, "interleave_moe_layer_step": 0},
     [grouped(count=1, qk_norm=True), grouped(count=1, rope=False)], glu(), ways=DY, auto="Llama4ForCausalLM")

# encoders
encoder("bert-generation", {}, padded(), auto="BertGenerationEncoder", name="bert_generation")
encoder("big_bird", {"attention_type": "original_full"}, padded())
encoder("convbert", {"head_ratio": 2, "conv_kernel_size": 3, "embedding_size": W}, padded(heads=2))
encoder("data2vec-text", {}, padded(), name="data2vec_text")
encoder("deberta", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}, padded(mask="relative_bias", padding=True, scale=24**-0.5), ways=TS)
encoder("ernie", {}, padded())
encoder("fnet", {}, inputs=("input_ids",), ways=DY)
encoder("funnel", {"d_model": W, "n_head": H, "d_head": D, "d_inner": 64, "block_sizes": [2], "num_decoder_layers": 1, "vocab_size": VOCAB},
        padded(mask="relative_bias", padding=True, count=3), ways=TS, common={})
encoder("layoutlm", {}, padded())
# scores of text and of layout are added to each other: a bias for either, and both are used twice but in the last layer, where nothing needs what becomes of the layout
LILT = {"mask": "relative_bias", "padding": True, "count": 1}
encoder("lilt", {"channel_shrink_ratio": 4, "hidden_size": 48}, [padded(dim=12, **LILT), padded(dim=12, **LILT, rewritable=False), padded(dim=3, **LILT, rewritable=False)])
encoder("luke", {"entity_vocab_size": 20, "use_entity_aware_attention": False}, padded())
encoder("megatron-bert", {}, padded(), name="megatron_bert")
encoder("mobilebert", {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 1}, padded(dim=4))
encoder("nystromformer", {"num_landmarks": 4, "segment_means_seq_len": 12, "conv_kernel_size": 3}, ways=TS, inputs=("input_ids",))
encoder("rembert", {"input_embedding_size": 16, "output_embedding_size": 16}, padded())
encoder("roberta-prelayernorm", {}, padded(), name="roberta_prelayernorm")
encoder("roc_bert", {"enable_pronunciation": False, "enable_shape": False, "concat_input": False}, padded())
encoder("splinter", {}, padded())
encoder("squeezebert", {"embedding_size": W, "q_groups": 2, "k_groups": 2, "v_groups": 2}, padded())
encoder("tapas", {}, padded(), ways=DY)
encoder("xlnet", {"d_model": W, "n_layer": L, "n_head": H, "d_inner": 64, "vocab_size": VOCAB}, padded(mask="relative_bias", padding=True), ways=TS, common={})
encoder("longformer", {"attention_window": [4, 4]}, ways=TS)
encoder("xmod", {"languages": ["en_XX"], "default_language": "en_XX"}, padded())
encoder("xlm-roberta-xl", {}, padded(), name="xlm_roberta_xl")
encoder("camembert", {}, padded())
encoder("nomic_bert", {}, padded(rope=True), glu())
encoder("eurobert", {**MHA, "head_dim": D}, padded(rope=True), glu())
encoder("visual_bert", {"visual_embedding_dim": 16}, padded(), name="visual_bert")
encoder("markuplm", {"max_depth": 4, "tag_pad_id": 2, "subs_pad_id": 2, "max_xpath_tag_unit_embeddings": 20, "max_xpath_subs_unit_embeddings": 20}, padded())
encoder("canine", {"downsampling_rate": 4, "local_transformer_stride": 128, "num_hash_buckets": 32, "upsampling_kernel_size": 4}, padded(), ways=TS)
encoder("ibert", {"quant_mode": False}, padded(), ways=TS)
encoder("esm", {"position_embedding_type": "rotary", "token_dropout": False, "mask_token_id": 3}, padded(rope=True), name="esm_rotary")
encoder("yoso", {}, ways=TS, inputs=("input_ids",))
encoder("electra", {"embedding_size": 16, "is_decoder": True}, causal(), auto="ElectraForCausalLM", out="logits", name="electra_decoder")
encoder("jina_embeddings_v3", {}, padded(rope=True))

# sequence to sequence
SEQ = {"vocab_size": VOCAB, "d_model": W, "encoder_layers": L, "decoder_layers": L, "encoder_attention_heads": H, "decoder_attention_heads": H,
       "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
BART = [padded(), causal(mask="none"), padded(kind="cross")]
T5 = {"vocab_size": VOCAB, "d_model": W, "d_kv": D, "d_ff": 64, "num_layers": L, "num_decoder_layers": L, "num_heads": H, "pad_token_id": 0, "eos_token_id": 2,
      "decoder_start_token_id": 0, "relative_attention_num_buckets": 8}
T5_TRUTH = [padded(mask="relative_bias", padding=True, scale=1.0), causal(mask="relative_bias", scale=1.0), padded(kind="cross", scale=1.0)]


def seq2seq(kind, cfg, attn, units=(), auto="AutoModelForSeq2SeqLM", common=SEQ, ways=BOTH, name=None, length=12):
    def build(impl):
        model = made(auto, kind, {**common, **cfg}, impl)
        return model, {"input_ids": ids(2, length), "attention_mask": keep(2, length), "decoder_input_ids": ids(2, 7)}, {"use_cache": False}, AXES, "logits"
    add(name or kind, build, attn, units, ways)


seq2seq("mbart", {}, BART)
seq2seq("blenderbot", {}, BART)
seq2seq("blenderbot-small", {}, BART, name="blenderbot_small")
seq2seq("m2m_100", {}, BART)
seq2seq("plbart", {}, BART)
seq2seq("mvp", {"use_prompt": False}, BART, ways=TS)
seq2seq("fsmt", {"src_vocab_size": VOCAB, "tgt_vocab_size": VOCAB, "langs": ["en", "de"]}, BART, ways=TS)
seq2seq("led", {"attention_window": 4, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}, BART[1:], ways=TS)
seq2seq("bigbird_pegasus", {"attention_type": "original_full"}, BART)
# tokens attend to global ones and to their block by one softmax, whose parts meet the two kinds of values apart
seq2seq("pegasus_x", {"block_size": 4, "num_global_tokens": 2, "stagger_local_blocks": False}, [padded(count=1), padded(count=2, rewritable=False), *BART[1:]],
        ways=TS)
# its predicted streams, whose queries see keys of two streams, are not told of
seq2seq("prophetnet", {"hidden_size": W, "num_encoder_layers": L, "num_decoder_layers": L, "num_encoder_attention_heads": H, "num_decoder_attention_heads": H,
                       "num_buckets": 8, "relative_max_distance": 16, "ngram": 2, "max_position_embeddings": 64, "vocab_size": VOCAB},
        [padded(), causal(mask="relative_bias"), padded(kind="cross")], ways=TS, common={})
seq2seq("longt5", {"local_radius": 4, "encoder_attention_type": "local"}, T5_TRUTH, common=T5, ways=TS)
seq2seq("switch_transformers", {"num_sparse_encoder_layers": 0, "num_sparse_decoder_layers": 0}, T5_TRUTH, common=T5, ways=TS)
seq2seq("umt5", {"feed_forward_proj": "gated-gelu"}, T5_TRUTH, glu("geglu_tanh", count=4), common=T5)
seq2seq("mt5", {"feed_forward_proj": "gated-silu"}, T5_TRUTH, glu("swiglu", count=4), common=T5)
seq2seq("nllb-moe", {"num_experts": 4, "encoder_sparse_step": 0, "decoder_sparse_step": 0}, BART, name="nllb_moe", ways=TS)


# sound, pictures, series: given by their inputs
def other(name, auto, kind, cfg, inputs, attn, units=(), ways=BOTH, axes=None, out="last_hidden_state", **more):
    def build(impl):
        return made(auto, kind, cfg, impl), {k: v() for k, v in inputs.items()}, more, axes or {}, out
    add(name, build, attn, units, ways)


WAVE = {"input_values": lambda: floats(2, 640)}
WAVE_AXES = {"input_values": {0: "batch", 1: "samples"}}
SPEECH = {"vocab_size": VOCAB, "hidden_size": W, "num_hidden_layers": L, "num_attention_heads": H, "intermediate_size": 64, "conv_dim": [16, 16], "conv_stride": [5, 4],
          "conv_kernel": [10, 4], "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "apply_spec_augment": False,
          "adapter_kernel_size": 3}
for speech in ("hubert", "unispeech", "unispeech-sat", "data2vec-audio"):
    other(speech.replace("-", "_"), "AutoModel", speech, SPEECH, WAVE, attention(), axes=WAVE_AXES)
other("wavlm", "AutoModel", "wavlm", {**SPEECH, "num_buckets": 8, "max_bucket_distance": 16}, WAVE, attention(mask="relative_bias"), axes=WAVE_AXES, ways=TS)
other("sew", "AutoModel", "sew", {**SPEECH, "squeeze_factor": 2}, WAVE, attention(), axes=WAVE_AXES)
other("sew_d", "AutoModel", "sew-d", {**SPEECH, "squeeze_factor": 2, "position_buckets": 8, "max_position_embeddings": 32}, WAVE,
      attention(mask="relative_bias", scale=24**-0.5), axes=WAVE_AXES, ways=TS)
other("wav2vec2_conformer", "AutoModel", "wav2vec2-conformer", {**SPEECH, "position_embeddings_type": "relative", "conv_depthwise_kernel_size": 3}, WAVE,
      attention(mask="relative_bias"), glu("glu", True), axes=WAVE_AXES, ways=TS)
other("wav2vec2_conformer_rotary", "AutoModel", "wav2vec2-conformer", {**SPEECH, "position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 3}, WAVE,
      attention(rope=True), glu("glu", True), axes=WAVE_AXES, ways=TS)
FEATS = {"input_features": lambda: floats(2, 12, 16)}
other("wav2vec2_bert", "AutoModel", "wav2vec2-bert", {**SPEECH, "feature_projection_input_dim": 16, "position_embeddings_type": "relative_key", "conv_depthwise_kernel_size": 3,
                                                      "left_max_position_embeddings": 4, "right_max_position_embeddings": 4}, FEATS,
      attention(mask="relative_bias"), glu("glu", True), axes={"input_features": {0: "batch", 1: "frames"}}, ways=TS)
other("ast", "AutoModel", "audio-spectrogram-transformer", {"hidden_size": W, "num_hidden_layers": L, "num_attention_heads": H, "intermediate_size": 64, "patch_size": 4,
                                                            "frequency_stride": 4, "time_stride": 4, "max_length": 16, "num_mel_bins": 8},
      {"input_values": lambda: floats(2, 16, 8)}, attention(), axes={"input_values": {0: "batch"}})
other("speech_to_text", "AutoModelForSpeechSeq2Seq", "speech_to_text", {**SEQ, "input_feat_per_channel": 8, "max_source_positions": 64, "max_target_positions": 64,
                                                                        "num_conv_layers": 1, "conv_kernel_sizes": [3], "conv_channels": 16},
      {"input_features": lambda: floats(2, 24, 8), "decoder_input_ids": lambda: ids(2, 7)}, [attention(), causal(mask="none"), attention(kind="cross")],
      units=glu("glu", True, 1), axes={"input_features": {0: "batch", 1: "frames"}, **AXES}, out="logits", use_cache=False)
other("moonshine", "AutoModelForSpeechSeq2Seq", "moonshine", {**COMMON, "encoder_num_hidden_layers": L, "decoder_num_hidden_layers": L, "encoder_num_attention_heads": H,
                                                              "decoder_num_attention_heads": H, "encoder_num_key_value_heads": H, "decoder_num_key_value_heads": H,
                                                              "decoder_start_token_id": 1, "partial_rotary_factor": 0.5},
      {"input_values": lambda: floats(2, 4000), "decoder_input_ids": lambda: ids(2, 7)},
      [attention(rope=True), causal(mask="none", rope=True), attention(kind="cross")], glu(fused=True), ways=DY, out="logits", axes={"input_values": {0: "batch"}, **AXES}, use_cache=False)
other("vits", "VitsModel", "vits", {"vocab_size": VOCAB, "hidden_size": W, "num_hidden_layers": L, "num_attention_heads": H, "ffn_dim": 64, "window_size": 4, "flow_size": 16,
                                    "spectrogram_bins": 9, "upsample_initial_channel": 32, "upsample_rates": [2, 2], "upsample_kernel_sizes": [4, 4],
                                    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]], "prior_encoder_num_flows": 1, "posterior_encoder_num_wavenet_layers": 1},
      {"input_ids": ids}, (), ways=(), out="waveform")

SIDE = {"image_size": 16, "patch_size": 4, "num_channels": 3}
VIT = {"hidden_size": W, "num_hidden_layers": L, "num_attention_heads": H, "intermediate_size": 64, **SIDE}
PIXELS = {"pixel_values": lambda: floats(2, 3, 16, 16)}
BIG = {"pixel_values": lambda: floats(2, 3, 32, 32)}
BATCH = {"pixel_values": {0: "batch"}}


def vision(name, auto, kind, cfg, attn, units=(), pixels=PIXELS, ways=BOTH, out="last_hidden_state", axes=BATCH, **more):
    other(name, auto, kind, cfg, pixels, attn, units, ways, axes, out, **more)


for plain in ("vit_msn", "data2vec-vision", "dinov2_with_registers", "yolos", "ijepa", "vivit", "videomae"):
    more = {"data2vec-vision": {"use_relative_position_bias": False}, "yolos": {"image_size": [16, 16], "num_detection_tokens": 4},
            "vivit": {"num_frames": 4, "tubelet_size": [2, 4, 4]}, "videomae": {"num_frames": 4, "tubelet_size": 2}}.get(plain, {})
    pixels = {"pixel_values": lambda: floats(2, 4, 3, 16, 16)} if plain in ("vivit", "videomae") else PIXELS
    vision(plain.replace("-", "_"), "AutoModel", plain, {**VIT, **more}, attention(), pixels=pixels)
vision("data2vec_vision_bias", "AutoModel", "data2vec-vision", {**VIT, "use_relative_position_bias": True}, attention(mask="relative_bias"))
vision("dinov3_vit", "AutoModel", "dinov3_vit", VIT, attention(rope=True))
vision("dinov2_swiglu", "AutoModel", "dinov2", {**VIT, "use_swiglu_ffn": True}, attention(), glu())
vision("aimv2", "Aimv2VisionModel", "aimv2_vision_model", VIT, attention(), glu())
vision("timesformer", "AutoModel", "timesformer", {**VIT, "num_frames": 4}, attention(count=4), pixels={"pixel_values": lambda: floats(2, 4, 3, 16, 16)})
vision("cvt", "AutoModel", "cvt", {"num_channels": 3, "patch_sizes": [7, 3], "patch_stride": [4, 2], "patch_padding": [2, 1], "embed_dim": [16, 32], "num_heads": [1, 2],
                                   "depth": [1, 1], "mlp_ratio": [2.0, 2.0], "attention_drop_rate": [0.0, 0.0], "drop_rate": [0.0, 0.0], "drop_path_rate": [0.0, 0.0],
                                   "qkv_bias": [True, True], "cls_token": [False, True], "qkv_projection_method": ["dw_bn", "dw_bn"], "kernel_qkv": [3, 3],
                                   "padding_kv": [1, 1], "stride_kv": [2, 2], "padding_q": [1, 1], "stride_q": [1, 1]},
       [attention(heads=1, dim=16, count=1, scale=16**-0.5), attention(heads=2, dim=16, count=1, scale=32**-0.5)], pixels=BIG, ways=TS)
PVT = {"num_channels": 3, "num_encoder_blocks": 2, "depths": [1, 1], "sequence_reduction_ratios": [2, 1], "sr_ratios": [2, 1], "hidden_sizes": [16, 32], "patch_sizes": [4, 2], "strides": [4, 2],
       "num_attention_heads": [2, 4], "mlp_ratios": [2, 2]}
PVT_TRUTH = [attention(heads=2, count=1), attention(heads=4, count=1)]
vision("pvt", "AutoModel", "pvt", {**PVT, "image_size": 32}, PVT_TRUTH, pixels=BIG, ways=TS)
vision("pvt_v2", "AutoModel", "pvt_v2", {**PVT, "image_size": 32, "patch_sizes": [7, 3]}, PVT_TRUTH, pixels=BIG, ways=TS)
vision("glpn", "AutoModel", "glpn", PVT, PVT_TRUTH, pixels=BIG, ways=TS)
vision("levit", "AutoModel", "levit", {"image_size": 64, "hidden_sizes": [16, 32], "num_attention_heads": [2, 4], "depths": [1, 1], "key_dim": [8, 8], "mlp_ratio": [2, 2], "attention_ratio": [2, 2],
                                       "down_ops": [["Subsample", 8, 2, 4, 2, 2], [""]]},
       [attention(heads=2, count=1, v_head_dim=16, mask="relative_bias"), attention(heads=2, count=1, v_head_dim=32, mask="relative_bias"),
        attention(heads=4, count=1, v_head_dim=16, mask="relative_bias")],
       pixels={"pixel_values": lambda: floats(2, 3, 64, 64)}, ways=TS)
vision("vit_mae", "ViTMAEModel", "vit_mae", {**VIT, "mask_ratio": 0.0}, attention(), ways=())
vision("swin2sr", "AutoModel", "swin2sr", {"image_size": 16, "patch_size": 1, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4, "upscale": 2},
       attention(heads=2, mask="relative_bias", qk_norm=True, scale=1.0, count=2), pixels={"pixel_values": lambda: floats(1, 3, 16, 16)}, ways=TS)
vision("hiera", "AutoModel", "hiera", {"embed_dim": 16, "image_size": [32, 32], "patch_size": [7, 7], "patch_stride": [4, 4], "patch_padding": [3, 3], "depths": [1, 1], "num_heads": [2, 4],
                                       "masked_unit_size": [4, 4], "masked_unit_attention": [True, False], "query_stride": [2, 2], "num_query_pool": 1, "embed_dim_multiplier": 2.0},
       [attention(heads=2, count=1), attention(heads=4, count=1)], pixels=BIG, ways=TS)
vision("focalnet", "AutoModel", "focalnet", {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3], "hidden_sizes": [16, 32]}, (), pixels=BIG)
vision("poolformer", "AutoModel", "poolformer", {"depths": [1, 1], "hidden_sizes": [16, 32], "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1], "num_encoder_blocks": 2, "mlp_ratio": 2.0}, (), pixels=BIG)
vision("mobilevitv2", "AutoModel", "mobilevitv2", {"image_size": 64, "base_attn_unit_dims": [32, 48, 64], "n_attn_blocks": [1, 1, 1]}, (), pixels={"pixel_values": lambda: floats(2, 3, 64, 64)}, ways=("dy18",))
vision("swiftformer", "AutoModel", "swiftformer", {"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [16, 16, 16, 16], "down_pad": 1}, (), pixels={"pixel_values": lambda: floats(2, 3, 64, 64)}, ways=TS)
vision("vitdet", "AutoModel", "vitdet", {**VIT, "image_size": 32, "pretrain_image_size": 32, "window_block_indices": [0], "window_size": 4, "use_relative_position_embeddings": True},
       attention(mask="relative_bias"), pixels=BIG, ways=TS)
vision("donut_swin", "AutoModel", "donut-swin", {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4},
       attention(heads=2, mask="relative_bias"), ways=TS)
vision("maskformer_swin", "MaskFormerSwinModel", "maskformer-swin", {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4},
       attention(heads=2, mask="relative_bias"), ways=TS)
vision("sam_vision", "SamVisionModel", "sam_vision_model", {**VIT, "image_size": 32, "mlp_dim": 64, "window_size": 4, "global_attn_indexes": [1], "output_channels": 16, "use_rel_pos": True},
       attention(mask="relative_bias"), pixels=BIG, ways=TS)
vision("clip_vision", "CLIPVisionModelWithProjection", "clip_vision_model", VIT, attention(), out="image_embeds")
vision("clipseg_vision", "CLIPSegVisionModel", "clipseg_vision_model", VIT, attention())
vision("chinese_clip_vision", "ChineseCLIPVisionModel", "chinese_clip_vision_model", VIT, attention())
vision("blip_vision", "BlipVisionModel", "blip_vision_model", VIT, attention())
vision("blip_2_vision", "Blip2VisionModel", "blip_2_vision_model", VIT, attention())
vision("flava_image", "FlavaImageModel", "flava_image_model", VIT, attention())
vision("groupvit_vision", "GroupViTVisionModel", "groupvit_vision_model", {**VIT, "depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 0]}, (), ways=())
vision("owlvit_vision", "OwlViTVisionModel", "owlvit_vision_model", VIT, attention())
vision("siglip2_like", "Siglip2VisionModel", "siglip2_vision_model", {**VIT}, (), ways=())
vision("idefics3_vision", "Idefics3VisionTransformer", "idefics3_vision", {**VIT}, attention(), ways=())
DETR = {"d_model": W, "encoder_layers": L, "decoder_layers": L, "encoder_attention_heads": H, "decoder_attention_heads": H, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 5,
        "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}


def detector(name, auto, kind, attn, **more):
    def build(impl):
        import transformers
        back = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"])
        return made(auto, kind, {**DETR, **more, "backbone_config": back}, impl), {"pixel_values": floats(2, 3, 64, 64)}, {}, BATCH, "last_hidden_state"
    add(name, build, attn, (), TS)


detector("detr", "DetrModel", "detr", [attention(count=4), attention(kind="cross")])
detector("conditional_detr", "ConditionalDetrModel", "conditional_detr", [attention(count=4), attention(kind="cross", dim=16, v_head_dim=8)])
detector("table_transformer", "TableTransformerModel", "table-transformer", [attention(count=4), attention(kind="cross")])
vision("dpt", "DPTModel", "dpt", {**VIT, "is_hybrid": False, "backbone_out_indices": [0, 1, 1, 1]}, attention())
SERIES = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 1, "d_model": W, "encoder_layers": L, "decoder_layers": L, "encoder_attention_heads": H,
          "decoder_attention_heads": H, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
SERIES_IN = {"past_values": lambda: floats(2, 10), "past_time_features": lambda: floats(2, 10, 1), "past_observed_mask": lambda: floats(2, 10) * 0 + 1, "future_values": lambda: floats(2, 4),
             "future_time_features": lambda: floats(2, 4, 1)}
other("time_series_transformer", "TimeSeriesTransformerModel", "time_series_transformer", SERIES, SERIES_IN, [attention(), causal(mask="none"), attention(kind="cross")], ways=TS, use_cache=False)
other("autoformer", "AutoformerModel", "autoformer", {**SERIES, "moving_average": 3, "label_length": 4}, SERIES_IN, (), ways=TS, use_cache=False)
other("informer", "InformerModel", "informer", {**SERIES, "attention_type": "full"}, SERIES_IN, [attention(), causal(mask="none"), attention(kind="cross")], ways=TS, use_cache=False)
other("patchtst", "PatchTSTModel", "patchtst", {"num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "d_model": W, "num_hidden_layers": L, "num_attention_heads": H,
                                                "ffn_dim": 64}, {"past_values": lambda: floats(2, 16, 2)}, attention(), axes={"past_values": {0: "batch"}})
other("patchtsmixer", "PatchTSMixerModel", "patchtsmixer", {"num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "d_model": 8, "num_layers": L},
      {"past_values": lambda: floats(2, 16, 2)}, (), axes={"past_values": {0: "batch"}})
other("decision_transformer", "DecisionTransformerModel", "decision_transformer", {"state_dim": 5, "act_dim": 3, "hidden_size": W, "n_layer": L, "n_head": H, "max_ep_len": 20, "n_positions": 64},
      {"states": lambda: floats(2, 4, 5), "actions": lambda: floats(2, 4, 3), "rewards": lambda: floats(2, 4, 1), "returns_to_go": lambda: floats(2, 4, 1),
       "timesteps": lambda: ids(2, 4) % 20, "attention_mask": lambda: keep(2, 4)}, causal(), axes={k: {0: "batch", 1: "steps"} for k in
                                                                                                ("states", "actions", "rewards", "returns_to_go", "timesteps", "attention_mask")})
other("perceiver", "PerceiverModel", "perceiver", {"num_latents": 4, "d_latents": W, "d_model": 16, "num_blocks": 1, "num_self_attends_per_block": L, "num_self_attention_heads": H,
                                                   "num_cross_attention_heads": H, "qk_channels": W, "v_channels": W}, {"inputs": lambda: floats(2, 12, 16), "attention_mask": keep},
      [attention(), padded(kind="cross", count=1)], axes={"inputs": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}}, ways=TS)
TEXT = {"input_ids": ids, "attention_mask": keep}
other("blip_text", "BlipTextModel", "blip_text_model", {**COMMON, "encoder_hidden_size": W}, TEXT, padded(), axes=AXES)
other("x_clip_text", "XCLIPTextModel", "xclip_text_model", COMMON, TEXT, causal(), axes=AXES)
other("owlvit_text", "OwlViTTextModel", "owlvit_text_model", COMMON, TEXT, causal(), axes=AXES)
other("flava_text", "FlavaTextModel", "flava_text_model", COMMON, TEXT, padded(), axes=AXES)
other("altclip_text", "AltCLIPTextModel", "altclip_text_model", {**COMMON, "project_dim": 16}, TEXT, padded(), axes=AXES)
other("clap_text", "ClapTextModel", "clap_text_model", COMMON, TEXT, padded(), axes=AXES)
other("chinese_clip_text", "ChineseCLIPTextModel", "chinese_clip_text_model", COMMON, TEXT, padded(), axes=AXES)
other("musicgen_decoder", "MusicgenForCausalLM", "musicgen_decoder", {**COMMON, "ffn_dim": 64, "num_codebooks": 1}, {"input_ids": ids}, causal(mask="none"), axes=AXES, out="logits", use_cache=False)
other("lxmert", "LxmertModel", "lxmert", {**COMMON, "l_layers": 1, "r_layers": 1, "x_layers": 1, "visual_feat_dim": 8}, {**TEXT, "visual_feats": lambda: floats(2, 5, 8), "visual_pos": lambda: floats(2, 5, 4)},
      [padded(), attention(count=1), attention(kind="cross", count=1)],
      axes={**AXES, "visual_feats": {0: "batch", 1: "boxes"}, "visual_pos": {0: "batch", 1: "boxes"}}, out="language_output", ways=TS)
other("layoutlmv3", "LayoutLMv3Model", "layoutlmv3", {**COMMON, "coordinate_size": 6, "shape_size": 4, "visual_embed": False, "has_relative_attention_bias": True, "has_spatial_attention_bias": True,
                                                      "rel_pos_bins": 8, "max_rel_pos": 16, "rel_2d_pos_bins": 8, "max_rel_2d_pos": 16, "max_2d_position_embeddings": 64},
      {**TEXT, "bbox": lambda: floats(2, 12, 4).abs().mul(10).long().clamp(0, 60).cumsum(-1).clamp(0, 63)}, padded(mask="relative_bias", padding=True), axes=AXES, ways=TS)


# -- timm

def timm_model(name, create, attn=(), units=(), side=32, ways=BOTH, **cfg):
    def build(impl):
        import timm
        import torch
        torch.manual_seed(1)
        timm.layers.set_fused_attn(impl == "sdpa")
        model = stirred(timm.create_model(create, pretrained=False, num_classes=5, **cfg) if isinstance(create, str) else create(**cfg))
        return model, {"x": floats(2, 3, side, side)}, {}, {"x": {0: "batch"}}, None
    add("timm_" + name, build, attn, units, ways)


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": W, "depth": L, "num_heads": H}
timm_model("vit", "vit_tiny_patch16_224", attention(), **SMALL)
timm_model("vit_qknorm", "vit_tiny_patch16_224", attention(qk_norm=True), qk_norm=True, **SMALL)
timm_model("vit_swiglu", "vit_giant_patch14_reg4_dinov2", attention(), glu(fused=True), **{**SMALL, "mlp_ratio": 2})
timm_model("vit_siglip_map", "vit_base_patch16_siglip_224", [attention(), attention(kind="cross", count=1)], **SMALL)
timm_model("deit3", "deit3_small_patch16_224", attention(), **SMALL)
timm_model("beit", "beit_base_patch16_224", attention(mask="relative_bias"), **SMALL)
timm_model("beitv2_shared", "beit_base_patch16_224", attention(mask="relative_bias"), use_rel_pos_bias=False, use_shared_rel_pos_bias=True, **SMALL)
timm_model("eva02", "eva02_tiny_patch14_336", attention(rope=True), glu(fused=True), **SMALL)
timm_model("eva_rope", "vit_small_patch16_rope_224", attention(rope=True), **SMALL)
timm_model("vit_relpos", "vit_relpos_small_patch16_224", attention(mask="relative_bias"), **SMALL)
timm_model("vit_relpos_mlp", "vit_relpos_base_patch32_plus_rpn_256", attention(mask="relative_bias"), **SMALL)
timm_model("vit_sam", "samvit_base_patch16", attention(mask="relative_bias"), ways=TS, **SMALL)
timm_model("cait", "cait_xxs24_224", [attention(rewritable=False), attention(count=2)], ways=TS, **SMALL)
timm_model("xcit", "xcit_nano_12_p16_224", [attention(qk_norm=True, scale=1.0), attention()], ways=TS, **{**SMALL, "patch_size": 16, "img_size": 64}, side=64)
def timm_class(module, kind):
    def create(**cfg):
        import importlib
        return getattr(importlib.import_module("timm.models." + module), kind)(num_classes=5, **cfg)
    return create


timm_model("volo", timm_class("volo", "VOLO"), attention(count=4), ways=TS, img_size=64, layers=(1, 1), embed_dims=(32, 32), num_heads=(4, 4), mlp_ratio=2,
           downsamples=(True, False), outlook_attention=(False, False), side=64)
timm_model("pit", "pit_ti_224", [attention(heads=2, count=1), attention(heads=4, count=1)], img_size=32, patch_size=8, stride=4, base_dims=(8, 8), depth=(1, 1), heads=(2, 4), mlp_ratio=2)
timm_model("twins_pcpvt", "twins_pcpvt_small", [attention(heads=2, count=1), attention(heads=4, count=1)], img_size=32, embed_dims=(16, 32), num_heads=(2, 4), mlp_ratios=(2, 2), depths=(1, 1), sr_ratios=(2, 1))
timm_model("twins_svt", "twins_svt_small", [attention(heads=2, count=2), attention(heads=4, count=2)], img_size=32, embed_dims=(16, 32), num_heads=(2, 4), mlp_ratios=(2, 2), depths=(2, 2), sr_ratios=(2, 1), wss=(4, 4))
timm_model("crossvit", "crossvit_tiny_240", [attention(heads=2, count=2), attention(heads=4, count=2)], ways=TS, img_size=48, img_scale=(1.0, 48 / 48), patch_size=(8, 16), embed_dim=(16, 32), depth=[[1, 1, 1]], num_heads=(2, 4), mlp_ratio=[2, 2, 1], side=48)
timm_model("coat", timm_class("coat", "CoaT"), (), ways=TS, img_size=64, embed_dims=(64, 64, 64, 64), serial_depths=(1, 1, 1, 1), parallel_depth=0, num_heads=8, crpe_window={3: 2, 5: 3, 7: 3}, mlp_ratios=(2, 2, 2, 2), side=64)
timm_model("convit", "convit_tiny", [attention(dim=W, count=1, rewritable=False), attention(dim=W, count=1)], ways=TS, img_size=32, patch_size=8, embed_dim=W, depth=L, num_heads=H, local_up_to_layer=1)
timm_model("visformer", "visformer_tiny", [attention(count=1), attention(dim=16, count=1)], ways=TS, img_size=64, init_channels=8, embed_dim=32, depth=(1, 1, 1), num_heads=4, side=64)
timm_model("tnt", "tnt_s_legacy_patch16_224", [attention(heads=2, dim=4), attention()], ways=TS, img_size=32, patch_size=16, embed_dim=W, inner_dim=8, depth=L, num_heads_inner=2, num_heads_outer=4)
timm_model("swinv2_cr", "swinv2_cr_tiny_224", attention(heads=2, mask="relative_bias", qk_norm=True, scale=1.0), ways=TS, img_size=32, patch_size=4, embed_dim=16, depths=(2,), num_heads=(2,), window_size=4)
timm_model("swin", "swin_tiny_patch4_window7_224", attention(heads=2, mask="relative_bias"), img_size=32, patch_size=4, embed_dim=16, depths=(2,), num_heads=(2,), window_size=4)
timm_model("swinv2", "swinv2_tiny_window8_256", attention(heads=2, mask="relative_bias", qk_norm=True, scale=1.0), img_size=32, patch_size=4, embed_dim=16, depths=(2,), num_heads=(2,), window_size=4)
timm_model("nest", timm_class("nest", "Nest"), [attention(heads=2, count=1), attention(heads=4, count=1)], ways=TS, img_size=32, patch_size=4, num_levels=2, embed_dims=(16, 32), num_heads=(2, 4), depths=(1, 1))
timm_model("davit", "davit_tiny", [attention(heads=2), attention(heads=4)], ways=TS, depths=(1, 1), embed_dims=(16, 32), num_heads=(2, 4), window_size=4)
timm_model("gcvit", timm_class("gcvit", "GlobalContextVit"), (), ways=TS, img_size=64, depths=(2, 2, 2, 2), num_heads=(2, 4, 4, 4), window_ratio=(4, 2, 1, 1), embed_dim=16, side=64)
timm_model("mixer", timm_class("mlp_mixer", "MlpMixer"), (), img_size=32, patch_size=8, embed_dim=W, num_blocks=L)
timm_model("mambaout", "mambaout_femto", (), depths=(1, 1), dims=(16, 32), ways=TS)
timm_model("levit", "levit_128s", [attention(heads=2, v_head_dim=16, mask="relative_bias", count=1), attention(heads=2, v_head_dim=32, mask="relative_bias", count=1),
                                   attention(heads=4, v_head_dim=16, mask="relative_bias", count=1)], ways=TS, img_size=64, embed_dim=(16, 32), key_dim=8, num_heads=(2, 4), depth=(1, 1), attn_ratio=2, mlp_ratio=2, side=64)
timm_model("poolformer", timm_class("metaformer", "MetaFormer"), (), depths=(1, 1), dims=(16, 32))
timm_model("maxvit", "maxvit_rmlp_pico_rw_256", [attention(heads=h, dim=32, mask="relative_bias", count=n) for h, n in ((1, 4), (2, 4), (4, 10), (8, 4))], ways=TS, side=64, img_size=64)
timm_model("mvitv2", "mvitv2_tiny", [attention(heads=h, dim=96, mask="relative_bias", qk_norm=True, count=n, rewritable=False) for h, n in ((1, 1), (2, 2), (4, 5), (8, 2))], ways=TS, img_size=64, side=64)
timm_model("edgenext", "edgenext_xx_small", [attention(dim=d, qk_norm=True, scale=1.0, count=1) for d in (12, 22, 42)], ways=TS, side=64)
timm_model("efficientvit_mit", "efficientvit_b0", (), ways=TS, side=64)
timm_model("efficientvit_msra", "efficientvit_m0", [attention(kind="self", heads=1, dim=16, v_head_dim=v, mask="relative_bias", count=n) for v, n in ((16, 4), (32, 8), (48, 12))], ways=TS, side=224)
timm_model("efficientformerv2", "efficientformerv2_s0", [attention(heads=8, dim=32, v_head_dim=128, mask="relative_bias", count=4, rewritable=False),
                                                              attention(heads=8, dim=16, v_head_dim=64, mask="relative_bias", count=1)], ways=TS, side=224)
timm_model("tiny_vit", "tiny_vit_5m_224", [attention(heads=h, dim=32, mask="relative_bias", count=n) for h, n in ((4, 2), (5, 6), (10, 2))], ways=TS, side=224)
timm_model("mobilevit", "mobilevit_xxs", [attention(dim=d, count=n) for d, n in ((16, 2), (20, 4), (24, 3))], ways=TS, side=64)
timm_model("mobilevitv2", "mobilevitv2_050", (), ways=TS, side=64)
timm_model("botnet", "botnet26t_256", [attention(dim=64, mask="relative_bias", count=1), attention(dim=128, mask="relative_bias", count=2)], ways=TS, side=256)
timm_model("halonet", "halonet26t", (), ways=TS, side=256)
timm_model("lambda", "lambda_resnet26t", (), ways=TS, side=256)
timm_model("caformer", "caformer_s18", [attention(heads=10, dim=32, count=9), attention(heads=16, dim=32, count=3)], ways=TS, side=224)
timm_model("fastvit", "fastvit_t8", (), ways=TS, side=64)
timm_model("mobilenetv4_hybrid", "mobilenetv4_hybrid_medium", attention(kind="mqa", kv=1, dim=64, count=8), ways=TS, side=64)
timm_model("nextvit", "nextvit_small", [attention(heads=h, dim=32, count=n) for h, n in ((6, 1), (12, 2), (24, 1))], ways=TS, side=64)
timm_model("shvit", "shvit_s1", [attention(kind="self", heads=1, dim=16, v_head_dim=v, count=n) for v, n in ((48, 4), (68, 5))], ways=TS, side=224)
timm_model("vitamin", "vitamin_small_224", attention(heads=6, dim=64, count=14), glu("geglu_erf", count=14), ways=TS, side=64, img_size=64)
timm_model("iformer", "iformer_t", [attention(kind="self", heads=1, dim=64, v_head_dim=v, count=n) for v, n in ((128, 3), (256, 2))], ways=TS, side=64)
timm_model("swiftformer", "swiftformer_xs", (), ways=TS, side=64)
timm_model("resnet_attnpool", "resnet50_clip", attention(heads=32, dim=64, count=1), ways=TS, side=224)
timm_model("hiera", "hiera_tiny_224", [attention(heads=2, count=1), attention(heads=4, count=1)], ways=TS, img_size=(32, 32), embed_dim=16, num_heads=2, stages=(1, 1), q_pool=1, mask_unit_size=(4, 4))


# -- diffusers

def diffusion(name, build_model, inputs, attn, units=(), ways=BOTH, axes=None):
    def build(impl):
        import torch
        import diffusers
        torch.manual_seed(1)
        model = stirred(build_model(diffusers))
        if hasattr(model, "set_attn_processor") and impl == "eager":
            from diffusers.models.attention_processor import AttnProcessor
            try:
                model.set_attn_processor(AttnProcessor())
            except Exception:
                pass
        return model, {k: v() for k, v in inputs.items()}, {"return_dict": False}, axes or {}, 0
    add("diffusers_" + name, build, attn, units, ways)


LATENT = {"sample": lambda: floats(2, 4, 8, 8), "timestep": lambda: ids(2, 1)[:, 0], "encoder_hidden_states": lambda: floats(2, 7, 16)}
diffusion("unet", lambda d: d.UNet2DConditionModel(sample_size=8, block_out_channels=(16, 32), layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                                                   up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4), LATENT,
          [attention(heads=4, dim=8, count=4), attention(kind="cross", heads=4, dim=8, count=4)], glu("geglu_erf", True, 4))
diffusion("dit", lambda d: d.DiTTransformer2DModel(num_attention_heads=H, attention_head_dim=D, in_channels=4, num_layers=L, sample_size=8, patch_size=2, norm_num_groups=4, num_embeds_ada_norm=10),
          {"hidden_states": lambda: floats(2, 4, 8, 8), "timestep": lambda: ids(2, 1)[:, 0], "class_labels": lambda: ids(2, 1)[:, 0] % 10}, attention())
diffusion("sd3", lambda d: d.SD3Transformer2DModel(sample_size=8, patch_size=2, in_channels=4, num_layers=L, attention_head_dim=D, num_attention_heads=H, joint_attention_dim=16, caption_projection_dim=W,
                                                   pooled_projection_dim=16, out_channels=4, pos_embed_max_size=8, qk_norm="rms_norm"),
          {"hidden_states": lambda: floats(2, 4, 8, 8), "encoder_hidden_states": lambda: floats(2, 7, 16), "pooled_projections": lambda: floats(2, 16), "timestep": lambda: ids(2, 1)[:, 0]},
          attention(qk_norm=True))
diffusion("flux", lambda d: d.FluxTransformer2DModel(patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
                                                     pooled_projection_dim=16, axes_dims_rope=(4, 4, 8)),
          {"hidden_states": lambda: floats(2, 16, 4), "encoder_hidden_states": lambda: floats(2, 7, 16), "pooled_projections": lambda: floats(2, 16), "timestep": lambda: floats(2).abs(),
           "img_ids": lambda: floats(16, 3).abs(), "txt_ids": lambda: floats(7, 3).abs()}, attention(heads=2, dim=16, rope=True, qk_norm=True))
diffusion("vae", lambda d: d.AutoencoderKL(block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, layers_per_block=1,
                                           latent_channels=4).encoder, {"sample": lambda: floats(2, 3, 16, 16)}, attention(kind="self", heads=1, dim=16, count=1))
diffusion("pixart", lambda d: d.PixArtTransformer2DModel(num_attention_heads=H, attention_head_dim=D, in_channels=4, out_channels=8, num_layers=L, cross_attention_dim=W, sample_size=8, patch_size=2,
                                                         caption_channels=16, norm_num_groups=4, interpolation_scale=1),
          {"hidden_states": lambda: floats(2, 4, 8, 8), "encoder_hidden_states": lambda: floats(2, 7, 16), "timestep": lambda: ids(2, 1)[:, 0], "encoder_attention_mask": lambda: keep(2, 7)},
          [attention(), padded(kind="cross")])


# -- writing

def output(o, key):
    if key is None:
        return o if not isinstance(o, (tuple, list)) else o[0]
    if isinstance(key, str) and hasattr(o, key) and getattr(o, key) is not None:
        return getattr(o, key)
    return o[0] if isinstance(o, tuple) else next(iter(o.values()))


def write(folder, name, build, truth, way, opset, impl):
    import onnx
    import torch
    model, inputs, more, axes, key = build(impl)

    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, *values):
            o = self.inner(**dict(zip(inputs, values)), **more)
            return output(o, key)

    whole = Named().eval()
    with torch.no_grad():
        expected = whole(*inputs.values())
    path = os.path.join(folder, name)
    os.makedirs(path, exist_ok=True)
    named = {k: axes[k] for k in inputs if k in axes}
    if way == "ts":
        torch.onnx.export(whole, tuple(inputs.values()), path + "/model.onnx", dynamo=False, opset_version=opset, input_names=list(inputs), output_names=["y"], dynamic_axes=named)
    else:
        shapes = tuple({i: torch.export.Dim.DYNAMIC for i in axes.get(k, {})} for k in inputs)
        torch.onnx.export(whole, tuple(inputs.values()), path + "/model.onnx", dynamo=True, opset_version=opset, input_names=list(inputs), output_names=["y"], dynamic_shapes=(shapes,), verbose=False, external_data=False)
    proto = onnx.load(path + "/model.onnx")
    del proto.metadata_props[:]
    for g in [proto.graph, *proto.functions]:
        for n in [*(g.node), *getattr(g, "value_info", []), *getattr(g, "input", []), *getattr(g, "output", []), *getattr(g, "initializer", [])]:
            if hasattr(n, "metadata_props"):
                del n.metadata_props[:]
            if hasattr(n, "doc_string"):
                n.doc_string = ""
    onnx.save(proto, path + "/model.onnx")
    np.savez(path + "/inputs.npz", **{k: v.numpy() for k, v in inputs.items()})
    np.save(path + "/expected.npy", expected.numpy())
    kind = "TorchScript exporter" if way == "ts" else "dynamo exporter"
    with open(path + "/truth.json", "w") as f:
        json.dump({"source": f"tests/peers/classes.py, {type(model).__name__} ({impl})", "exporter": f"torch {torch.__version__}, torch.onnx {kind}", "opset": opset, **truth}, f, indent=1)


def main(prefix="hf"):
    folder = sys.argv[1]
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    import onnx, onnxscript, torch, transformers, timm  # noqa: before the forks
    import torch.onnx._internal.exporter._core  # noqa
    torch.set_num_threads(1)
    for k, way in enumerate(BOTH):
        for i, (name, build, truth, ways) in enumerate(ALL):
            mine = next((x for x in ways if x.startswith(way)), None)
            if not mine:
                continue
            opset = int(mine[2:] or ((14, 17, 13, 16)[i % 4] if way == "ts" else (18, 20, 18, 23)[i % 4]))
            impl = "sdpa" if (i // 4 + k) % 2 and opset > 13 else "eager"
            full = f"{prefix}_{name}_{way}{opset}_{impl}"
            if word not in full or os.path.exists(f"{folder}/{full}/truth.json"):
                continue
            pid = os.fork()
            if not pid:
                signal.alarm(150)
                log = os.open(folder + "/log." + full, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(log, 1)
                os.dup2(log, 2)
                status = 1
                try:
                    write(folder, full, build, truth, way, opset, impl)
                    status = 0
                except ValueError as e:
                    if "does not support" in str(e) and impl == "sdpa":
                        try:
                            write(folder, full.replace("sdpa", "eager"), build, truth, way, opset, "eager")
                            status = 0
                        except Exception:
                            import traceback
                            traceback.print_exc()
                    else:
                        import traceback
                        traceback.print_exc()
                except BaseException:
                    import traceback
                    traceback.print_exc()
                os._exit(status)
            _, status = os.waitpid(pid, 0)
            print(full, "made" if not status else "FAILED", flush=True)


if __name__ == "__main__":
    main()
