"""Export small models of packages that write attention themselves, each with a truth.json of what their code says they are: vit-pytorch and
x-transformers, with the attention of many papers, litgpt, open_clip, whisper, torchvision, torchaudio.

    papers.py FOLDER [WORD]

As classes.py: FOLDER/NAME/{model.onnx,truth.json,inputs.npz}. Packages: torch, onnx, onnxscript, and those.
"""

import importlib

import classes
from classes import BOTH, D, H, KV, L, VOCAB, W, add, attention, floats, glu, ids, stirred

classes.ALL.clear()


def Positional(model):
    import torch

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, **given):
            y = self.model(*given.values())
            return y[0] if isinstance(y, tuple) else y
    return Model()


def other(name, make, inputs, attn, units=(), ways=("ts14", "dy"), axes=None):
    def build(impl):
        import torch
        torch.manual_seed(1)
        return Positional(stirred(make(impl))), {k: v() for k, v in inputs.items()}, {}, axes if axes is not None else {k: {0: "batch"} for k in inputs}, None
    add(name, build, attn, units, ways)


# -- vit-pytorch

IMAGE = {"img": lambda: floats(2, 3, 32, 32)}


def vit(module, attn, cls="ViT", name=None, units=(), inputs=IMAGE, ways=BOTH, **cfg):
    def make(impl):
        return getattr(importlib.import_module("vit_pytorch." + module), cls)(**cfg)
    other("vit_" + (name or module.removeprefix("simple_vit_with_")), make, inputs, attn, units, ways)


VIT = {"image_size": 32, "patch_size": 8, "num_classes": 10, "dim": W, "depth": L, "heads": H, "dim_head": D, "mlp_dim": 64}
PLAIN = attention()
MIXED = attention(rewritable=False)  # heads are mixed before or behind the softmax
vit("vit", PLAIN, **VIT)
vit("simple_vit", PLAIN, "SimpleViT", **VIT)
vit("simple_vit_with_qk_norm", attention(scale=1.0, qk_norm=True), "SimpleViT", **VIT)
vit("simple_vit_with_register_tokens", PLAIN, "SimpleViT", **VIT)
vit("simple_vit_with_value_residual", PLAIN, "SimpleViT", **VIT)
vit("parallel_vit", attention(count=2 * L), **VIT)
vit("deepvit", MIXED, "DeepViT", **VIT)
vit("cait", [attention(count=L, rewritable=False), attention(kind="cross", count=1, rewritable=False)], "CaiT", **{**VIT, "cls_depth": 1})
vit("pit", [attention(heads=H, count=1), attention(heads=8, count=1)], "PiT", **{**VIT, "depth": (1, 1), "heads": (H, 8)})
vit("rvt", attention(rope=True, dim=16), "RvT", units=glu("geglu_erf", True), **{**VIT, "dim_head": 16})
vit("vit_with_patch_merger", [PLAIN, attention(kind="cross", heads=1, dim=W, count=1)], **{**VIT, "patch_merge_layer": 1, "patch_merge_num_tokens": 4})
vit("nest", [attention(heads=2, dim=16, count=1), attention(heads=H, dim=16, count=1)], "NesT", image_size=32, patch_size=4, dim=W, heads=2, num_hierarchies=2, block_repeats=(1, 1), num_classes=10)
vit("cct", attention(), "CCT", img_size=32, embedding_dim=W, n_conv_layers=1, kernel_size=7, stride=2, padding=3, pooling_kernel_size=3, pooling_stride=2, pooling_padding=1,
    num_layers=L, num_heads=H, mlp_ratio=2., num_classes=10, positional_embedding="learnable")
vit("levit", [attention(heads=2, dim=32, v_head_dim=64, count=1, mask="relative_bias"), attention(heads=4, dim=32, v_head_dim=64, count=1, mask="relative_bias"),
              attention(heads=4, dim=32, v_head_dim=64, count=1, mask="relative_bias")], "LeViT", inputs={"img": lambda: floats(2, 3, 64, 64)}, image_size=64, num_classes=10, stages=2, dim=(W, 2 * W), depth=(1, 1), heads=(2, 4), mlp_mult=2)
vit("max_vit", attention(heads=1, dim=32, count=2, mask="relative_bias"), "MaxViT", num_classes=10, dim_conv_stem=32, dim=32, dim_head=32, depth=(1,), window_size=4, mbconv_expansion_rate=2, mbconv_shrinkage_rate=0.25, dropout=0.)
vit("twins_svt", attention(heads=8, dim=64, count=11), "TwinsSVT", num_classes=10, s1_emb_dim=32, s1_patch_size=4, s1_local_patch_size=4, s1_global_k=4, s1_depth=1, s2_emb_dim=32, s2_patch_size=2, s2_local_patch_size=4, s2_global_k=4, s2_depth=1, s3_emb_dim=32, s3_patch_size=1, s3_local_patch_size=4, s3_global_k=4, s3_depth=0, s4_emb_dim=32, s4_patch_size=1, s4_local_patch_size=4, s4_global_k=4, s4_depth=0, peg_kernel_size=3, dropout=0.)
vit("vit_1d", attention(), name="1d", inputs={"series": lambda: floats(2, 3, 32)}, seq_len=32, patch_size=4, num_classes=10, dim=W, depth=L, heads=H, dim_head=D, mlp_dim=64)
vit("vit_3d", attention(), name="3d", inputs={"video": lambda: floats(2, 3, 4, 16, 16)}, image_size=16, frames=4, image_patch_size=8, frame_patch_size=2, num_classes=10, dim=W, depth=L, heads=H, dim_head=D, mlp_dim=64)
vit("vivit", attention(count=4), "ViViT", inputs={"video": lambda: floats(2, 3, 4, 16, 16)}, image_size=16, frames=4, image_patch_size=8, frame_patch_size=2, num_classes=10, dim=W, spatial_depth=L, temporal_depth=L, heads=H, dim_head=D, mlp_dim=64, variant="factorized_encoder", use_flash_attn=False)


# -- x-transformers

def words(name, attn, units=(), cls="Decoder", ways=("ts14", "dy"), **cfg):
    def make(impl):
        import x_transformers as x
        sizes = {"dim": W, "depth": L, "heads": H, "attn_dim_head": D, "ff_mult": 2}
        try:
            layers = getattr(x, cls)(**{**sizes, "attn_flash": impl == "sdpa", **cfg})
        except AssertionError:  # options that scaled_dot_product_attention does not have
            layers = getattr(x, cls)(**{**sizes, **cfg})
        return x.TransformerWrapper(num_tokens=VOCAB, max_seq_len=64, attn_layers=layers)
    other("xt_" + name, make, {"input_ids": lambda: ids(2, 12)}, attn, units, ways, {"input_ids": {0: "batch", 1: "length"}})


def seen(**more):
    return attention(causal=True, **more)


words("plain", seen())
words("encoder", attention(), cls="Encoder")
words("rotary", seen(rope=True), rotary_pos_emb=True)
words("rotary_part", seen(rope=True, dim=16, scale=16**-0.5), rotary_pos_emb=True, rotary_emb_dim=8, attn_dim_head=16)
words("xpos", seen(rope=True), rotary_xpos=True)
words("alibi", seen(mask="alibi"), alibi_pos_bias=True, alibi_num_heads=H)
words("t5_bias", seen(mask="relative_bias"), rel_pos_bias=True)
words("dynamic_bias", seen(mask="relative_bias"), dynamic_pos_bias=True, dynamic_pos_bias_log_distance=False)
words("qk_norm", seen(qk_norm=True, scale=10.0), attn_qk_norm=True)
words("qk_norm_dims", seen(qk_norm=True), attn_qk_norm=True, attn_qk_norm_dim_scale=True)
words("qk_rmsnorm", seen(qk_norm=True), attn_qk_rmsnorm=True)
words("one_kv", seen(kind="mqa", kv=1), attn_one_kv_head=True)
words("two_kv", seen(kind="gqa", kv=KV), attn_kv_heads=KV)
words("two_kv_rotary", seen(kind="gqa", kv=KV, rope=True), attn_kv_heads=KV, rotary_pos_emb=True)
words("clamp", seen(softcap=50.0), attn_softclamp_logits=True)
words("clamp_small", seen(softcap=5.0), attn_softclamp_logits=True, attn_logit_softclamp_value=5.0)
words("talking", seen(rewritable=False), attn_pre_talking_heads=True, attn_post_talking_heads=True)
words("head_scale", seen(), attn_head_scale=True)
words("gate_values", seen(), attn_gate_values=True)
words("swiglu", seen(), glu("swiglu", True), ff_glu=True, ff_swish=True)
words("geglu", seen(), glu("geglu_erf", True), ff_glu=True)
words("memory", seen(), attn_num_mem_kv=4)
words("sandwich", seen(), sandwich_norm=True)
words("rmsnorm", seen(), use_rmsnorm=True)
words("simple_rmsnorm", seen(), use_simple_rmsnorm=True)
words("window", seen(mask="sliding_window", window=4), attn_max_attend_past=3)
words("residual", [seen(count=1, rewritable=False), seen(count=1, mask="additive")], residual_attn=True)
words("sink", seen(sink=True), attn_head_learned_sink=True)
words("zero_kv", seen(), attn_add_zero_kv=True)
words("value_residual", seen(), add_value_residual=True, learned_value_residual_mix=True)
words("laser", seen(), attn_laser=True)
words("sigmoid", (), attn_sigmoid=True)
words("one_kv_window", seen(kind="mqa", kv=1, rope=True, mask="sliding_window", window=4), attn_one_kv_head=True, rotary_pos_emb=True, attn_max_attend_past=3)
words("latent_kv", seen(), attn_use_latent_kv=True, attn_dim_latent_kv=16)
words("value_rmsnorm", seen(), attn_value_rmsnorm=True)
words("output_gate", seen(), attn_output_gate=True)
words("gate_heads", seen(), attn_gate_value_heads=True)
words("macaron", seen(), macaron=True)
words("shift", seen(), shift_tokens=1)
words("reglu_squared", seen(), ff_relu_squared=True)
words("no_bias_glu", seen(), glu("swiglu", True), ff_glu=True, ff_swish=True, ff_no_bias=True)

# -- others

TOKENS = {"input_ids": lambda: ids(2, 12)}


def gpt(name, attn, units=(), ways=("ts14", "dy"), **cfg):
    def make(impl):
        from litgpt.config import Config
        from litgpt.model import GPT
        return GPT(Config(**{"block_size": 64, "n_layer": L, "n_embd": W, "n_head": H, "padded_vocab_size": VOCAB, "vocab_size": VOCAB, "intermediate_size": 64, "rotary_percentage": 1.0, **cfg}))
    other("litgpt_" + name, make, TOKENS, attn, units, ways, {"input_ids": {0: "batch"}})


LLAMA = {"norm_class_name": "RMSNorm", "bias": False, "parallel_residual": False, "mlp_class_name": "LLaMAMLP"}
gpt("pythia", seen(rope=True), rotary_percentage=0.5)
gpt("llama", seen(rope=True), glu(), **LLAMA)
gpt("llama_groups", seen(kind="gqa", kv=KV, rope=True), glu(), n_query_groups=KV, **LLAMA)
gpt("falcon", seen(kind="mqa", kv=1, rope=True), n_query_groups=1, shared_attention_norm=True, bias=False)
gpt("gemma", seen(kind="mqa", kv=1, rope=True), glu("geglu_tanh"), n_query_groups=1, **{**LLAMA, "mlp_class_name": "GemmaMLP", "gelu_approximate": "tanh", "scale_embeddings": True})
gpt("gemma2", [seen(kind="gqa", kv=KV, rope=True, softcap=50.0, count=1, mask="sliding_window", window=4), seen(kind="gqa", kv=KV, rope=True, softcap=50.0, count=1)], glu("geglu_tanh"),
    n_query_groups=KV, ways=("dy",), **{**LLAMA, "mlp_class_name": "GemmaMLP", "gelu_approximate": "tanh", "attention_logit_softcapping": 50.0, "sliding_window_size": 4, "sliding_window_indices": [1, 0],
                          "post_attention_norm": True, "post_mlp_norm": True, "attention_scores_scalar": D})
gpt("olmo2", seen(rope=True, qk_norm=True), glu(), norm_qk=True, norm_qk_type="olmo2", **LLAMA)
gpt("qwen3", seen(kind="gqa", kv=KV, rope=True, qk_norm=True), glu(), norm_qk=True, n_query_groups=KV, **LLAMA)


def hearing(part):
    def make(impl):
        import whisper.model as whisper
        whisper.MultiHeadAttention.use_sdpa = impl == "sdpa"
        return whisper.AudioEncoder(8, 12, W, H, L) if part == "encoder" else whisper.TextDecoder(VOCAB, 16, W, H, L)
    return make


other("whisper_encoder", hearing("encoder"), {"mel": lambda: floats(2, 8, 24)}, attention())
other("whisper_decoder", hearing("decoder"), {"tokens": lambda: ids(2, 12), "audio": lambda: floats(2, 12, W)}, [seen(), attention(kind="cross")],
      ways=("dy",), axes={"tokens": {0: "batch", 1: "length"}, "audio": {0: "batch"}})


def clip(kind, **cfg):
    def make(impl):
        import open_clip.transformer as clip
        return getattr(clip, kind)(**{"width": W, "heads": H, "layers": L, "output_dim": 16, "mlp_ratio": 2, **cfg})
    return make


other("openclip_image", clip("VisionTransformer", image_size=32, patch_size=8), IMAGE, attention())
other("openclip_pool", clip("VisionTransformer", image_size=32, patch_size=8, attentional_pool=True, attn_pooler_queries=6, attn_pooler_heads=4), IMAGE,
      [attention(), attention(kind="cross", dim=4, count=1)])
other("openclip_text", clip("TextTransformer", context_length=12, vocab_size=VOCAB), TOKENS, seen())


def seeing(make_it):
    def make(impl):
        import torchvision.models as models
        import torchvision.models.swin_transformer as swin
        return make_it(models, swin)
    return make


other("torchvision_vit", seeing(lambda m, s: m.VisionTransformer(32, 8, L, H, W, 64)), IMAGE, attention())
other("torchvision_swin", seeing(lambda m, s: m.SwinTransformer([2, 2], 16, [2, 1], [2, 4], [4, 4])), IMAGE,
      [attention(heads=2, mask="relative_bias", count=2), attention(heads=4, mask="relative_bias", count=1)])
other("torchvision_swin2", seeing(lambda m, s: m.SwinTransformer([2, 2], 16, [2], [2], [4, 4], block=s.SwinTransformerBlockV2, downsample_layer=s.PatchMergingV2)), IMAGE,
      attention(heads=2, mask="relative_bias", qk_norm=True, scale=1.0))
other("torchvision_maxvit", seeing(lambda m, s: m.MaxVit((32, 32), 16, 4, [16], [2], 16, 0.0)), IMAGE, attention(heads=1, dim=16, mask="relative_bias", count=4))


def sound(make_it):
    def make(impl):
        import torchaudio.models as models
        return make_it(models)
    return make


CONVS = [(16, 10, 5), (16, 3, 2)]
ENCODER = {"extractor_mode": "layer_norm", "extractor_conv_layer_config": CONVS, "extractor_conv_bias": True, "encoder_embed_dim": W, "encoder_projection_dropout": 0.0, "encoder_pos_conv_kernel": 8,
           "encoder_pos_conv_groups": 4, "encoder_num_layers": L, "encoder_num_heads": H, "encoder_attention_dropout": 0.0, "encoder_ff_interm_features": 64, "encoder_ff_interm_dropout": 0.0,
           "encoder_dropout": 0.0, "encoder_layer_norm_first": True, "encoder_layer_drop": 0.0, "aux_num_out": None}
WAVE = {"wave": lambda: floats(2, 400)}
other("torchaudio_wav2vec2", sound(lambda m: m.wav2vec2_model(**ENCODER)), WAVE, attention())
other("torchaudio_wavlm", sound(lambda m: m.wavlm_model(**ENCODER, encoder_num_buckets=8, encoder_max_distance=16)), WAVE, attention(mask="relative_bias"), ways=("ts14",))
other("torchaudio_conformer", sound(lambda m: m.Conformer(W, H, 64, L, 7)), {"x": lambda: floats(2, 12, W), "lengths": lambda: ids(2, 1)[:, 0] * 0 + 12}, attention(mask="padding"), glu("glu", True), ways=("ts14",))

if __name__ == "__main__":
    classes.main("pap")
