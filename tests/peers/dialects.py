"""Make small models with exporters other than PyTorch's, each with a truth.json of what was written.

    dialects.py keras|export|tf|jax|script FOLDER [WORD]

FOLDER/NAME/{model.onnx,truth.json} is written for each model of that way (whose name has WORD in it). Packages: keras, export and tf need
tensorflow-cpu and tf2onnx; jax needs jax, flax and jax2onnx; script needs onnxscript. tests/recognition.py counts what linnet recognises of them
(docs/recognition.md).
"""

import json
import os
import sys
import tempfile
import traceback

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
H, D, W, T = 4, 8, 32, 12  # heads, width of a head, of the model, tokens
ALL = []  # (way, name, build, truth)


def attention(kind="mha", heads=H, kv=None, dim=D, **more):
    if kv is None:
        kv = heads
    group = {"kind": kind, "heads": heads, "kv_heads": kv, "head_dim": dim, "causal": False, "mask": "none", "scale": dim**-0.5,
             "softcap": None, "rope": False, "qk_norm": False, "kv_cache": False, "count": 1}
    return {**group, **more}


def glu(variant, fused=False, count=1):
    return {"variant": variant, "fused_weight": fused, "count": count}


def model(ways, attn=(), units=(), **norms):
    """Register a builder under each way; the name is the function's."""
    def add(build):
        truth = {"attention": [attn] if isinstance(attn, dict) else list(attn), "glu": [units] if isinstance(units, dict) else list(units), "norms": norms}
        for way in ways.split():
            ALL.append((way, build.__name__, build, truth))
        return build
    return add


# -- Keras: a builder returns a keras.Model


def k():
    import keras
    keras.utils.set_random_seed(1)
    return keras


def seq(n=T, w=W):
    return k().Input((n, w))


def gelu_erf(a):  # Keras's own is by Erfc, which tf2onnx has no word for
    return 0.5 * a * (1 + k().ops.erf(a * 0.7071067811865476))


def keras_mha(inputs, call, **options):
    layer = k().layers.MultiHeadAttention(**{"num_heads": H, "key_dim": D, **options})
    return k().Model(inputs, call(layer))


@model("keras export", attention())
def mha_self():
    x = seq()
    return keras_mha(x, lambda f: f(x, x))


@model("keras export", attention())
def mha_any_length():
    x = seq(None)
    return keras_mha(x, lambda f: f(x, x))


@model("keras", attention())
def mha_no_bias():
    x = seq()
    return keras_mha(x, lambda f: f(x, x), use_bias=False)


@model("keras export", attention(v_head_dim=16))
def mha_value_dim():
    x = seq()
    return keras_mha(x, lambda f: f(x, x), value_dim=16)


@model("keras", attention(v_head_dim=16, causal=True))
def mha_value_dim_causal_any_length():
    x = seq(None)
    return keras_mha(x, lambda f: f(x, x, use_causal_mask=True), value_dim=16, output_shape=20)


@model("keras export", attention("cross"))
def mha_cross():
    x, y = seq(), seq(None, 24)
    return keras_mha([x, y], lambda f: f(x, y))


@model("keras", attention("cross"))
def mha_cross_key_apart():
    x, y, z = seq(), seq(None, 24), seq(None, 20)
    return keras_mha([x, y, z], lambda f: f(x, z, key=y))


@model("keras export", attention(causal=True))
def mha_causal():
    x = seq()
    return keras_mha(x, lambda f: f(x, x, use_causal_mask=True))


@model("keras export", attention(causal=True))
def mha_causal_any_length():
    x = seq(None)
    return keras_mha(x, lambda f: f(x, x, use_causal_mask=True))


@model("keras export", attention(mask="boolean"))
def mha_mask():
    x, m = seq(), k().Input((T, T), dtype="bool")
    return keras_mha([x, m], lambda f: f(x, x, attention_mask=m))


@model("keras", attention(mask="boolean"))
def mha_mask_int_any_length():
    x, m = seq(None), k().Input((None, None), dtype="int32")
    return keras_mha([x, m], lambda f: f(x, x, attention_mask=m))


@model("keras export", attention(mask="padding"))
def mha_padding():
    ids = k().Input((T,), dtype="int32")
    x = k().layers.Embedding(50, W, mask_zero=True)(ids)
    return keras_mha(ids, lambda f: f(x, x))


@model("keras export", attention(mask="padding", causal=True))
def mha_padding_causal():
    ids = k().Input((None,), dtype="int32")
    x = k().layers.Embedding(50, W, mask_zero=True)(ids)
    return keras_mha(ids, lambda f: f(x, x, use_causal_mask=True))


@model("keras export", attention())
def mha_axis_of_two():
    x = k().Input((5, 6, W))
    return keras_mha(x, lambda f: f(x, x), attention_axes=2)


@model("keras", attention())
def mha_first_axis_of_two():
    x = k().Input((5, 6, W))
    return keras_mha(x, lambda f: f(x, x), attention_axes=1)


@model("keras export", attention())
def mha_both_axes():
    x = k().Input((5, 6, W))
    return keras_mha(x, lambda f: f(x, x), attention_axes=(1, 2))


@model("keras export", attention(rewritable=False))
def mha_scores_out():
    x = seq()
    layer = k().layers.MultiHeadAttention(H, D)
    return k().Model(x, layer(x, x, return_attention_scores=True))


@model("keras", attention("mha", 1, 1, 32))
def mha_one_head():
    x = seq()
    return keras_mha(x, lambda f: f(x, x), num_heads=1, key_dim=32)


@model("keras", attention(qk_norm=True), (), rmsnorm=2)
def mha_qk_norm_by_hand():
    kr = k()
    x = seq()
    q, kk, v = (kr.layers.Reshape((T, H, D))(kr.layers.Dense(W)(x)) for _ in range(3))
    q, kk = kr.layers.RMSNormalization()(q), kr.layers.RMSNormalization()(kk)
    s = kr.ops.softmax(kr.ops.einsum("bqhd,bkhd->bhqk", q, kk) * D**-0.5)
    o = kr.ops.einsum("bhqk,bkhd->bqhd", s, v)
    return kr.Model(x, kr.layers.Dense(W)(kr.layers.Reshape((T, W))(o)))


@model("keras export", attention("gqa", 4, 2))
def gqa_self():
    x = seq()
    return k().Model(x, k().layers.GroupQueryAttention(D, H, 2)(x, x))


@model("keras export", attention("gqa", 4, 2, causal=True))
def gqa_causal_any_length():
    x = seq(None)
    return k().Model(x, k().layers.GroupQueryAttention(D, H, 2)(x, x, use_causal_mask=True))


@model("keras", attention("mqa", 4, 1))
def gqa_one_key_head():
    x = seq()
    return k().Model(x, k().layers.GroupQueryAttention(D, H, 1, use_bias=False)(x, x))


@model("keras export", attention("gqa", 4, 2, mask="boolean"))
def gqa_mask():
    x, m = seq(), k().Input((T, T), dtype="bool")
    return k().Model([x, m], k().layers.GroupQueryAttention(D, H, 2)(x, x, attention_mask=m))


@model("keras export", attention("self", 1, 1, 32, scale=1.0))
def attention_layer():
    x = seq()
    q, v, kk = (k().layers.Dense(W)(x) for _ in range(3))
    return k().Model(x, k().layers.Attention()([q, v, kk]))


@model("keras", attention("self", 1, 1, 32, scale=1.0, causal=True))
def attention_layer_causal():
    x = seq()
    q, v = (k().layers.Dense(W)(x) for _ in range(2))
    return k().Model(x, k().layers.Attention()([q, v], use_causal_mask=True))


@model("keras")
def neg_additive_attention():
    x = seq()
    q, v = (k().layers.Dense(W)(x) for _ in range(2))
    return k().Model(x, k().layers.AdditiveAttention()([q, v]))


@model("keras export", attention(causal=True))
def ops_dot_product_attention():
    kr = k()
    x = seq()
    q, kk, v = (kr.layers.Reshape((T, H, D))(kr.layers.Dense(W)(x)) for _ in range(3))
    o = kr.ops.dot_product_attention(q, kk, v, is_causal=True)
    return kr.Model(x, kr.layers.Reshape((T, W))(o))


def keras_block(x, act=None, units=None, norm="LayerNormalization", **call):
    kr = k()
    h = getattr(kr.layers, norm)()(x)
    x = x + kr.layers.MultiHeadAttention(H, D)(h, h, **call)
    h = getattr(kr.layers, norm)()(x)
    if units is None:
        h = kr.layers.Activation(act)(kr.layers.Dense(2 * W)(h))
    else:
        h = units(h)
    return x + kr.layers.Dense(W)(h)


@model("keras export", attention(count=2), layernorm=4)
def encoder_gelu():
    x = seq()
    return k().Model(x, keras_block(keras_block(x, gelu_erf), gelu_erf))


@model("keras", attention(causal=True), layernorm=2)
def decoder_gelu_tanh():
    x = seq(None)
    return k().Model(x, keras_block(x, lambda v: k().ops.gelu(v, approximate=True), use_causal_mask=True))


@model("keras export", attention(causal=True), glu("swiglu"), rmsnorm=2)
def decoder_swiglu_rms():
    kr = k()
    x = seq(None)
    units = lambda h: kr.ops.silu(kr.layers.Dense(48)(h)) * kr.layers.Dense(48)(h)
    return kr.Model(x, keras_block(x, units=units, norm="RMSNormalization", use_causal_mask=True))


def keras_units(gate, fused=False):
    kr = k()
    x = seq()
    if fused:
        a, b = kr.ops.split(kr.layers.Dense(96)(x), 2, axis=-1)
    else:
        a, b = kr.layers.Dense(48)(x), kr.layers.Dense(48)(x)
    return kr.Model(x, kr.layers.Dense(W)(gate(a) * b))


@model("keras", (), glu("geglu_erf"))
def units_gelu():
    return keras_units(gelu_erf)


@model("keras export", (), glu("geglu_tanh", True))
def units_gelu_tanh_split():
    return keras_units(lambda a: k().ops.gelu(a, approximate=True), True)


@model("keras", (), glu("swiglu", True))
def units_silu_split():
    return keras_units(lambda a: k().ops.silu(a), True)


@model("keras", (), glu("reglu"))
def units_relu():
    return keras_units(lambda a: k().ops.relu(a))


@model("keras", (), glu("bilinear"))
def units_linear():
    return keras_units(lambda a: a)


@model("keras export", (), glu("glu", True))
def units_ops_glu():
    kr = k()
    x = seq()
    return kr.Model(x, kr.layers.Dense(W)(kr.ops.glu(kr.layers.Dense(96)(x), axis=-1)))


@model("keras", (), glu("glu", True))
def units_conv1d_glu():
    kr = k()
    x = seq()
    a, b = kr.ops.split(kr.layers.Conv1D(96, 3, padding="same")(x), 2, axis=-1)
    return kr.Model(x, kr.layers.Dense(W)(a * kr.ops.sigmoid(b)))


@model("keras", (), glu("glu"))
def units_conv2d_gated():
    kr = k()
    x = kr.Input((8, 8, 6))
    a, b = (kr.layers.Conv2D(12, 3, padding="same")(x) for _ in range(2))
    return kr.Model(x, kr.layers.Conv2D(6, 1)(a * kr.ops.sigmoid(b)))


@model("keras export", (), (), groupnorm=1, layernorm=1)
def group_norm():
    kr = k()
    x = kr.layers.Conv2D(12, 3)(i := kr.Input((8, 8, 6)))
    x = kr.layers.GroupNormalization(4)(x)
    return kr.Model(i, kr.layers.LayerNormalization()(kr.layers.Dense(W)(x)))


@model("keras", (), (), batchnorm=1)
def batch_norm_between_relus():
    kr = k()
    x = kr.layers.ReLU()(kr.layers.Conv2D(12, 3)(i := kr.Input((8, 8, 6))))
    return kr.Model(i, kr.layers.Conv2D(6, 1)(kr.layers.ReLU()(kr.layers.BatchNormalization()(x))))


@model("keras", (), ())
def neg_squeeze_excite():
    kr = k()
    x = kr.layers.Conv2D(16, 3)(i := kr.Input((8, 8, 6)))
    s = kr.layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = kr.layers.Dense(16, activation="sigmoid")(kr.layers.Dense(4, activation="relu")(s))
    return kr.Model(i, kr.layers.BatchNormalization()(x * s))


@model("keras", (), ())
def neg_highway():
    kr = k()
    x = seq()
    t = kr.layers.Dense(W, activation="sigmoid")(x)
    return kr.Model(x, t * kr.layers.Dense(W, activation="relu")(x) + (1 - t) * x)


@model("keras", (), ())
def neg_lstm():
    kr = k()
    x = seq()
    return kr.Model(x, kr.layers.Dense(5)(kr.layers.LSTM(16, return_sequences=True)(kr.layers.GRU(16, return_sequences=True)(x))))


# -- TensorFlow by hand: a builder returns a function and the specs of its inputs


def tfm():
    import tensorflow as tf
    return tf


RNG = np.random.default_rng(7)


def weight(*shape):
    return tfm().constant(RNG.normal(0, shape[0]**-0.5, shape).astype("float32"))


def spec(*shape, dtype="float32"):
    return tfm().TensorSpec(shape, dtype)


def dense(x, n, m=W, bias=True):
    if not bias:  # tf2onnx joins the Reshapes around a tensordot alone into one that does not run
        return tfm().matmul(x, weight(m, n))
    y = tfm().tensordot(x, weight(m, n), 1)
    return y + weight(n) * 0.1


def layer_norm(x):
    tf = tfm()
    mean, var = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(var + 1e-5) * (weight(W) * 0.1 + 1) + weight(W) * 0.1


def rms_norm(x):
    tf = tfm()
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * (weight(W) * 0.1 + 1)


def heads(x, n=H):
    tf = tfm()
    s = tf.shape(x)
    return tf.transpose(tf.reshape(x, [s[0], s[1], n, D]), [0, 2, 1, 3])


def joined(x):
    tf = tfm()
    x = tf.transpose(x, [0, 2, 1, 3])
    s = tf.shape(x)
    return tf.reshape(x, [s[0], s[1], H * D])


def attend(q, kk, v, bias=None, scale=D**-0.5, cap=None):
    tf = tfm()
    s = tf.matmul(q, kk, transpose_b=True) * scale
    if cap:
        s = cap * tf.tanh(s / cap)
    return tf.matmul(tf.nn.softmax(s if bias is None else s + bias), v)


def triangle(nd, ns):
    tf = tfm()
    i, j = tf.range(nd)[:, None], tf.range(ns)
    return tf.cast(i >= j - ns + nd, "float32")


def tf_layer(bias=None, **more):
    """Function of x in which bias(x) is added to the scores."""
    def f(x):
        q, kk, v = (heads(dense(x, W)) for _ in range(3))
        return dense(joined(attend(q, kk, v, bias(x) if bias else None, **more)), W)
    return f, [spec(None, None, W)]


@model("tf", attention())
def plain():
    return tf_layer()


@model("tf", attention(mask="padding"), (), layernorm=2)
def bert():
    tf = tfm()
    def f(x, mask):
        b, t = tf.shape(x)[0], tf.shape(x)[1]
        flat = tf.reshape(x, [-1, W])
        q, kk, v = (tf.transpose(tf.reshape(tf.matmul(flat, weight(W, W)) + weight(W), [b, t, H, D]), [0, 2, 1, 3]) for _ in range(3))
        s = tf.matmul(q, kk, transpose_b=True)
        s = tf.multiply(s, 1.0 / float(D)**0.5)
        both = tf.ones([b, t, 1]) * tf.cast(tf.reshape(mask, [b, 1, t]), "float32")
        s += (1.0 - tf.expand_dims(both, 1)) * -10000.0
        o = tf.reshape(tf.transpose(tf.matmul(tf.nn.softmax(s), v), [0, 2, 1, 3]), [b * t, W])
        h = layer_norm(tf.matmul(o, weight(W, W)) + flat)
        u = tf.matmul(h, weight(W, 64))
        u = u * 0.5 * (1.0 + tf.math.erf(u / 2.0**0.5))
        return tf.reshape(layer_norm(tf.matmul(u, weight(64, W)) + h), [b, t, W])
    return f, [spec(None, None, W), spec(None, None, dtype="int32")]


def gpt2_layer(past):
    tf = tfm()
    def f(x, *cache):
        h = layer_norm(x)
        q, kk, v = (heads(c) for c in tf.split(dense(h, 3 * W), 3, axis=2))
        if past:
            pk, pv = tf.unstack(cache[0], axis=1)
            kk, v = tf.concat([pk, kk], -2), tf.concat([pv, v], -2)
        w = tf.matmul(q, kk, transpose_b=True) * tf.math.rsqrt(tf.cast(tf.shape(v)[-1], "float32"))
        nd, ns = tf.shape(w)[2], tf.shape(w)[3]
        b = tf.reshape(triangle(nd, ns), [1, 1, nd, ns])
        w = w * b - 1e10 * (1 - b)
        w = w - tf.reduce_max(w, axis=-1, keepdims=True)
        w = tf.exp(w)
        w = w / tf.reduce_sum(w, axis=-1, keepdims=True)
        x = x + dense(joined(tf.matmul(w, v)), W)
        u = dense(layer_norm(x), 64)
        u = 0.5 * u * (1 + tf.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * tf.pow(u, 3))))
        x = x + dense(u, W, 64)
        return (x, tf.stack([kk, v], axis=1)) if past else x
    return f, [spec(None, None, W)] + ([spec(None, 2, H, None, D)] if past else [])


@model("tf", attention(causal=True), (), layernorm=2)
def gpt2():
    return gpt2_layer(False)


@model("tf", attention(causal=True, kv_cache=True), (), layernorm=2)
def gpt2_past():
    return gpt2_layer(True)


@model("tf", attention(), (), layernorm=2)
def vit():
    tf = tfm()
    def f(image):
        p = tf.nn.conv2d(image, weight(4, 4, 3, W), 4, "VALID")
        b = tf.shape(image)[0]
        x = tf.reshape(p, [b, 16, W])
        x = tf.concat([tf.broadcast_to(weight(1, 1, W), [b, 1, W]), x], 1) + weight(1, 17, W)
        h = layer_norm(x)
        qkv = tf.transpose(tf.reshape(dense(h, 3 * W), [-1, 17, 3, H, D]), [2, 0, 3, 1, 4])
        o = attend(qkv[0], qkv[1], qkv[2])
        x = x + dense(tf.reshape(tf.transpose(o, [0, 2, 1, 3]), [-1, 17, W]), W)
        u = dense(layer_norm(x), 64)
        x = x + dense(0.5 * u * (1 + tf.math.erf(u * 0.7071067811865476)), W, 64)
        return tf.matmul(x[:, 0], weight(W, 5))
    return f, [spec(None, 16, 16, 3)]


@model("tf", attention(mask="relative_bias", scale=1.0), glu("geglu_tanh"), rmsnorm=2)
def t5():
    tf = tfm()
    table = RNG.normal(size=(32, H)).astype("float32")
    def buckets(d):
        n = tf.cast(d > 0, "int32") * 16
        a = tf.abs(d)
        far = 8 + tf.cast(tf.math.log(tf.cast(a, "float32") / 8) / np.log(16.0) * 8, "int32")
        return n + tf.where(a < 8, a, tf.minimum(far, 15))
    def f(x):
        h = rms_norm(x)
        q, kk, v = (heads(dense(h, W, bias=False)) for _ in range(3))
        t = tf.shape(x)[1]
        d = tf.range(t)[None, :] - tf.range(t)[:, None]
        bias = tf.transpose(tf.gather(tf.constant(table), buckets(d)), [2, 0, 1])[None]
        x = x + dense(joined(attend(q, kk, v, bias, 1.0)), W, bias=False)
        h = rms_norm(x)
        return x + dense(tf.nn.gelu(dense(h, 64, bias=False), approximate=True) * dense(h, 64, bias=False), W, 64, bias=False)
    return f, [spec(None, None, W)]


def tf_einsum(equations, shapes, softmax_axis=-1):
    tf = tfm()
    project, score, mix, out = equations
    def f(x):
        q, kk, v = (tf.einsum(project, x, weight(*shapes[0])) for _ in range(3))
        p = tf.nn.softmax(tf.einsum(score, q, kk) * D**-0.5, axis=softmax_axis)
        return tf.einsum(out, tf.einsum(mix, p, v), weight(*shapes[1]))
    return f, [spec(None, None, W)]


@model("tf", attention())
def einsum_btnh():
    return tf_einsum(("btm,mnh->btnh", "btnh,bsnh->bnts", "bnts,bsnh->btnh", "btnh,nhm->btm"), ((W, H, D), (H, D, W)))


@model("tf", attention())
def einsum_keys_first():
    return tf_einsum(("btm,mnh->bnth", "bnth,bnsh->bnst", "bnst,bnsh->bnth", "bnth,nhm->btm"), ((W, H, D), (H, D, W)), 2)


@model("tf", attention())
def einsum_heads_last():
    return tf_einsum(("btm,mhn->bthn", "bthn,bshn->btsn", "btsn,bshn->bthn", "bthn,hnm->btm"), ((W, D, H), (D, H, W)), 2)


@model("tf", attention())
def einsum_heads_of_weights_first():
    return tf_einsum(("btm,nmh->nbth", "nbth,nbsh->nbts", "nbts,nbsh->nbth", "nbth,nhm->btm"), ((H, W, D), (H, D, W)))


@model("tf", attention(causal=True))
def causal_band_part():
    tf = tfm()
    def bias(x):
        t = tf.shape(x)[1]
        return (1.0 - tf.linalg.band_part(tf.ones([t, t]), -1, 0)) * -1e9
    return tf_layer(bias)


@model("tf", attention(causal=True))
def causal_band_part_where():
    tf = tfm()
    def f(x):
        q, kk, v = (heads(dense(x, W)) for _ in range(3))
        s = tf.matmul(q, kk, transpose_b=True) / tf.math.sqrt(float(D))
        t = tf.shape(x)[1]
        keep = tf.cast(tf.linalg.band_part(tf.ones([t, t]), -1, 0), "bool")
        s = tf.where(keep, s, tf.fill(tf.shape(s), -1e9))
        return dense(joined(tf.matmul(tf.nn.softmax(s), v)), W)
    return f, [spec(None, None, W)]


@model("tf", attention(mask="sliding_window", window=3))
def window_band_part():
    tf = tfm()
    def bias(x):
        t = tf.shape(x)[1]
        return (1.0 - tf.linalg.band_part(tf.ones([t, t]), 3, 3)) * -1e9
    return tf_layer(bias)


@model("tf", attention(causal=True, mask="sliding_window", window=4))
def window_causal_band_part():
    tf = tfm()
    def bias(x):
        t = tf.shape(x)[1]
        return (1.0 - tf.linalg.band_part(tf.ones([t, t]), 3, 0)) * -1e9
    return tf_layer(bias)


@model("tf", attention(causal=True))
def causal_sequence_mask():
    tf = tfm()
    def bias(x):
        t = tf.shape(x)[1]
        return (1.0 - tf.sequence_mask(tf.range(1, t + 1), t, "float32")) * -1e9
    return tf_layer(bias)


@model("tf", attention(causal=True))
def causal_cumsum():
    tf = tfm()
    def bias(x):
        t = tf.shape(x)[1]
        return tf.where(tf.cumsum(tf.eye(t), 0) > 0, 0.0, -1e9)
    return tf_layer(bias)


@model("tf", attention(causal=True, mask="alibi"))
def alibi():
    tf = tfm()
    def bias(x):
        t = tf.shape(x)[1]
        i = tf.range(t)
        d = tf.cast(i[None, :] - i[:, None], "float32")
        slopes = tf.constant([[[0.25]], [[0.0625]], [[0.015625]], [[0.00390625]]])
        return (slopes * d)[None] + (1.0 - tf.linalg.band_part(tf.ones([t, t]), -1, 0)) * -1e9
    return tf_layer(bias)


@model("tf", attention(mask="padding"))
def padding_lengths():
    tf = tfm()
    def f(x, lengths):
        q, kk, v = (heads(dense(x, W)) for _ in range(3))
        m = tf.sequence_mask(lengths, tf.shape(x)[1])
        bias = tf.where(m, 0.0, -1e9)[:, None, None, :]
        return dense(joined(attend(q, kk, v, bias)), W)
    return f, [spec(None, None, W), spec(None, dtype="int32")]


@model("tf", attention(mask="padding", causal=True))
def padding_and_causal_minimum():
    tf = tfm()
    def f(x, ids):
        q, kk, v = (heads(dense(x, W)) for _ in range(3))
        pad = tf.cast(tf.equal(ids, 0), "float32")[:, None, None, :]
        t = tf.shape(ids)[1]
        ahead = 1 - tf.linalg.band_part(tf.ones((t, t)), -1, 0)
        return dense(joined(attend(q, kk, v, tf.maximum(pad, ahead) * -1e9)), W)
    return f, [spec(None, None, W), spec(None, None, dtype="int32")]


@model("tf", attention(causal=True, softcap=20.0))
def softcap():
    tf = tfm()
    def bias(x):
        t = tf.shape(x)[1]
        return (1.0 - tf.linalg.band_part(tf.ones([t, t]), -1, 0)) * -1e9
    return tf_layer(bias, cap=20.0)


def rope(x):
    tf = tfm()
    t = tf.cast(tf.range(tf.shape(x)[-2]), "float32")
    f = t[:, None] * tf.constant((10000.0 ** (-np.arange(0, D, 2) / D)).astype("float32"))[None, :]
    f = tf.concat([f, f], -1)
    a, b = tf.split(x, 2, axis=-1)
    return x * tf.cos(f) + tf.concat([-b, a], -1) * tf.sin(f)


def rope_pairs(x):
    tf = tfm()
    s = tf.shape(x)
    t = tf.cast(tf.range(s[-2]), "float32")
    f = t[:, None] * tf.constant((10000.0 ** (-np.arange(0, D, 2) / D)).astype("float32"))[None, :]
    a, b = x[..., ::2], x[..., 1::2]
    y = tf.stack([a * tf.cos(f) - b * tf.sin(f), a * tf.sin(f) + b * tf.cos(f)], -1)
    return tf.reshape(y, s)


def llama_layer(turn, kv, spread):
    tf = tfm()
    def f(x):
        h = rms_norm(x)
        q = turn(heads(dense(h, W, bias=False)))
        kk = spread(turn(heads(dense(h, kv * D, bias=False), kv)))
        v = spread(heads(dense(h, kv * D, bias=False), kv))
        t = tf.shape(x)[1]
        bias = tf.where(tf.linalg.band_part(tf.ones([t, t], "bool"), -1, 0), 0.0, float("-inf"))
        x = x + dense(joined(attend(q, kk, v, bias)), W, bias=False)
        h = rms_norm(x)
        return x + dense(tf.nn.silu(dense(h, 64, bias=False)) * dense(h, 64, bias=False), W, 64, bias=False)
    return f, [spec(None, None, W)]


@model("tf", attention("gqa", 4, 2, causal=True, rope=True), glu("swiglu"), rmsnorm=2)
def llama_repeat():
    return llama_layer(rope, 2, lambda x: tfm().repeat(x, 2, axis=1))


@model("tf", attention("mqa", 4, 1, causal=True, rope=True), glu("swiglu"), rmsnorm=2)
def llama_one_key_head_broadcast():
    return llama_layer(rope, 1, lambda x: x)


@model("tf", attention(causal=True, rope=True), glu("swiglu"), rmsnorm=2)
def llama_pairs():
    return llama_layer(rope_pairs, 4, lambda x: x)


@model("tf", attention("gqa", 4, 2))
def gqa_einsum_groups():
    tf = tfm()
    def f(x):
        q = tf.einsum("btm,mkgh->btkgh", x, weight(W, 2, 2, D))
        kk, v = (tf.einsum("btm,mkh->btkh", x, weight(W, 2, D)) for _ in range(2))
        p = tf.nn.softmax(tf.einsum("btkgh,bskh->bkgts", q, kk) * D**-0.5)
        return tf.einsum("btkgh,kghm->btm", tf.einsum("bkgts,bskh->btkgh", p, v), weight(2, 2, D, W))
    return f, [spec(None, None, W)]


@model("tf", attention("cross"))
def cross():
    tf = tfm()
    def f(x, y):
        q, kk, v = heads(dense(x, W)), heads(dense(y, W, 24)), heads(dense(y, W, 24))
        return dense(joined(attend(q, kk, v)), W)
    return f, [spec(None, None, W), spec(None, None, 24)]


@model("tf", attention())
def heads_in_batch():
    """Heads split off and put in front of the batch, as in the first implementations of the Transformer."""
    tf = tfm()
    def f(x):
        q, kk, v = (tf.concat(tf.split(dense(x, W), H, axis=2), 0) for _ in range(3))
        p = tf.nn.softmax(tf.matmul(q, kk, transpose_b=True) / D**0.5)
        return dense(tf.concat(tf.split(tf.matmul(p, v), H, axis=0), 2), W)
    return f, [spec(None, T, W)]


@model("tf", attention("self", 1, 1, 32))
def non_local_block():
    tf = tfm()
    def f(x):
        flat = [tf.reshape(tf.nn.conv2d(x, weight(1, 1, W, W), 1, "SAME"), [-1, 36, W]) for _ in range(3)]
        p = tf.nn.softmax(tf.matmul(flat[0], flat[1], transpose_b=True) * W**-0.5)
        return x + tf.reshape(tf.matmul(p, flat[2]), [-1, 6, 6, W])
    return f, [spec(None, 6, 6, W)]


def tf_units(gate, fused=False, variant=None):
    tf = tfm()
    def f(x):
        a, b = tf.split(dense(x, 96), 2, axis=-1) if fused else (dense(x, 48), dense(x, 48))
        return dense(gate(a) * b, W, 48)
    return f, [spec(None, None, W)]


@model("tf", (), glu("geglu_erf"))
def units_gelu_erf():
    tf = tfm()
    return tf_units(lambda a: 0.5 * a * (1 + tf.math.erf(a * 0.7071067811865476)))


@model("tf", (), glu("geglu_tanh"))
def units_gelu_tanh_cube():
    tf = tfm()
    return tf_units(lambda a: a * (0.5 * (1 + tf.tanh(0.7978845608 * (a + 0.044715 * a * a * a)))))


@model("tf", (), glu("geglu_tanh"))
def units_gelu_tanh_factored():
    tf = tfm()
    return tf_units(lambda a: 0.5 * a * (1 + tf.tanh(a * 0.7978845608 * (1 + 0.044715 * a * a))))


@model("tf", (), glu("swiglu"))
def units_swish_by_hand():
    tf = tfm()
    return tf_units(lambda a: a * tf.sigmoid(a))


@model("tf", (), glu("swiglu", True))
def units_swish_by_exp_split():
    tf = tfm()
    return tf_units(lambda a: a / (1 + tf.exp(-a)), True)


@model("tf", (), glu("glu", True))
def units_slices():
    tf = tfm()
    def f(x):
        y = dense(x, 96)
        return dense(y[..., :48] * tf.sigmoid(y[..., 48:]), W, 48)
    return f, [spec(None, None, W)]


@model("tf")
def neg_two_matmuls_softmax_of_classes():
    tf = tfm()
    def f(x):
        p = tf.nn.softmax(tf.matmul(x, weight(W, 10)))
        return tf.matmul(p, weight(10, W))
    return f, [spec(None, None, W)]


@model("tf")
def neg_soft_routing():
    tf = tfm()
    def f(x):
        g = tf.nn.softmax(dense(x, 3))
        return sum(g[..., i:i + 1] * dense(x, W) for i in range(3))
    return f, [spec(None, None, W)]


# -- JAX: a builder returns a function and the shapes of its inputs


def jx():
    import jax
    return jax


def jweight(*shape):
    return jx().numpy.asarray(RNG.normal(0, shape[0]**-0.5, shape).astype("float32"))


def jax_sdpa(kv=H, inputs=(), make=lambda *a: {}, **more):
    jnp = jx().numpy
    def f(x, *rest):
        q = (x @ jweight(W, W)).reshape(*x.shape[:-1], H, D)
        kk, v = ((x @ jweight(W, kv * D)).reshape(*x.shape[:-1], kv, D) for _ in range(2))
        o = jx().nn.dot_product_attention(q, kk, v, **more, **make(*rest))
        return o.reshape(x.shape) @ jweight(W, W)
    return f, [("B", T, W), *inputs]


@model("jax", attention())
def sdpa():
    return jax_sdpa()


@model("jax", attention(causal=True))
def sdpa_causal():
    return jax_sdpa(is_causal=True)


@model("jax", attention("gqa", 4, 2))
def sdpa_gqa():
    return jax_sdpa(2)


@model("jax", attention("gqa", 4, 2, causal=True, scale=0.25))
def sdpa_gqa_causal_scale():
    return jax_sdpa(2, is_causal=True, scale=0.25)


@model("jax", attention("mqa", 4, 1))
def sdpa_one_key_head():
    return jax_sdpa(1)


@model("jax", attention(mask="additive"))
def sdpa_bias():
    return jax_sdpa(H, [("B", 1, T, T)], lambda b: {"bias": b})


@model("jax", attention(mask="boolean"))
def sdpa_mask():
    return jax_sdpa(H, [("B", 1, T, T, bool)], lambda m: {"mask": m})


@model("jax", attention(mask="sliding_window", window=3))
def sdpa_window():
    return jax_sdpa(local_window_size=3)


@model("jax", attention(causal=True, mask="sliding_window", window=4))
def sdpa_window_causal():
    return jax_sdpa(is_causal=True, local_window_size=(3, 0))


@model("jax", attention(mask="padding"))
def sdpa_lengths():
    return jax_sdpa(H, [("B",)], lambda n: {"key_value_seq_lengths": n.astype("int32")})


def flax_mha(call, shapes, **more):
    from flax import nnx
    layer = nnx.MultiHeadAttention(H, W, rngs=nnx.Rngs(1), decode=False, **more)
    return (lambda *a: call(layer, nnx, *a)), shapes


@model("jax", attention())
def flax_self():
    return flax_mha(lambda f, nnx, x: f(x), [("B", T, W)])


@model("jax", attention(causal=True))
def flax_causal():
    return flax_mha(lambda f, nnx, x: f(x, mask=nnx.make_causal_mask(x[..., 0])), [("B", T, W)])


@model("jax", attention(mask="padding"))
def flax_padding():
    return flax_mha(lambda f, nnx, x, m: f(x, mask=nnx.make_attention_mask(m > 0, m > 0)), [("B", T, W), ("B", T)])


@model("jax", attention(mask="padding", causal=True))
def flax_padding_causal():
    def call(f, nnx, x, m):
        return f(x, mask=nnx.combine_masks(nnx.make_attention_mask(m > 0, m > 0), nnx.make_causal_mask(m)))
    return flax_mha(call, [("B", T, W), ("B", T)])


@model("jax", attention("cross"))
def flax_cross():
    return flax_mha(lambda f, nnx, x, y: f(x, y, y), [("B", T, W), ("B", 7, W)])


@model("jax", attention(qk_norm=True), (), layernorm=2)
def flax_qk_norm():
    return flax_mha(lambda f, nnx, x: f(x), [("B", T, W)], normalize_qk=True)


@model("jax", attention(), (), layernorm=2)
def flax_encoder():
    from flax import nnx
    r = nnx.Rngs(1)
    n1, n2, mha = nnx.LayerNorm(W, rngs=r), nnx.LayerNorm(W, rngs=r), nnx.MultiHeadAttention(H, W, rngs=r, decode=False)
    up, down = nnx.Linear(W, 64, rngs=r), nnx.Linear(64, W, rngs=r)
    def f(x):
        x = x + mha(n1(x))
        return x + down(nnx.gelu(up(n2(x))))
    return f, [("B", T, W)]


@model("jax", attention("gqa", 4, 2, causal=True, rope=True), glu("swiglu"), rmsnorm=2)
def jax_llama():
    from flax import nnx
    jnp = jx().numpy
    r = nnx.Rngs(1)
    n1, n2 = nnx.RMSNorm(W, rngs=r), nnx.RMSNorm(W, rngs=r)
    def turn(x):
        f = jnp.arange(T)[:, None] * 10000.0 ** (-jnp.arange(0, D, 2) / D)
        c, s = jnp.cos(f)[:, None, :], jnp.sin(f)[:, None, :]
        a, b = jnp.split(x, 2, -1)
        return jnp.concatenate([a * c - b * s, b * c + a * s], -1)
    def f(x):
        h = n1(x)
        q, kk, v = ((h @ jweight(W, n * D)).reshape(*x.shape[:-1], n, D) for n in (4, 2, 2))
        q, kk = turn(q), turn(kk)
        kk, v = jnp.repeat(kk, 2, 2), jnp.repeat(v, 2, 2)
        s = jnp.einsum("bqhd,bkhd->bhqk", q, kk) / jnp.sqrt(D)
        s = jnp.where(jnp.tril(jnp.ones((T, T), bool)), s, -1e30)
        x = x + jnp.einsum("bhqk,bkhd->bqhd", jx().nn.softmax(s), v).reshape(x.shape) @ jweight(W, W)
        h = n2(x)
        return x + (jx().nn.silu(h @ jweight(W, 64)) * (h @ jweight(W, 64))) @ jweight(64, W)
    return f, [("B", T, W)]


def jax_units(gate, fused=False):
    jnp = jx().numpy
    def f(x):
        a, b = jnp.split(x @ jweight(W, 96), 2, -1) if fused else (x @ jweight(W, 48), x @ jweight(W, 48))
        return (gate(a) * b) @ jweight(48, W)
    return f, [("B", T, W)]


@model("jax", (), glu("geglu_erf"))
def units_jax_gelu_erf():
    return jax_units(lambda a: jx().nn.gelu(a, approximate=False))


@model("jax", (), glu("geglu_tanh", True))
def units_jax_gelu_split():
    return jax_units(jx().nn.gelu, True)


@model("jax", (), glu("glu", True))
def units_jax_glu():
    return (lambda x: jx().nn.glu(x @ jweight(W, 96)) @ jweight(48, W)), [("B", T, W)]


@model("jax", (), glu("reglu"))
def units_jax_relu():
    return jax_units(jx().nn.relu)


@model("jax", (), (), groupnorm=1, batchnorm=1)
def jax_norms():
    from flax import nnx
    r = nnx.Rngs(1)
    gn, bn = nnx.GroupNorm(12, 4, rngs=r), nnx.BatchNorm(12, rngs=r, use_running_average=True)
    c = nnx.Conv(6, 12, (3, 3), rngs=r)
    return (lambda x: bn(nnx.relu(gn(c(x))))), [("B", 8, 8, 6)]


@model("jax", attention(causal=True, softcap=30.0))
def jax_softcap_vmap():
    """Written for one sequence and one head, and mapped."""
    jax = jx()
    jnp = jax.numpy
    def one(q, kk, v):
        s = 30.0 * jnp.tanh(q @ kk.T * D**-0.5 / 30.0)
        i = jnp.arange(q.shape[0])
        return jax.nn.softmax(jnp.where(i[:, None] >= i[None, :], s, -jnp.inf)) @ v
    def f(x):
        q, kk, v = ((x @ jweight(W, W)).reshape(*x.shape[:-1], H, D) for _ in range(3))
        return jax.vmap(jax.vmap(one, 1, 1))(q, kk, v).reshape(x.shape)
    return f, [("B", T, W)]


# -- onnxscript: a builder returns an OnnxFunction whose annotated arguments are the inputs; functions stay functions


def script_models():
    import dialects_script
    return dialects_script.make(model, attention, glu)


# -- writing


def to_onnx_tf(f, signature):
    import tensorflow as tf
    import tf2onnx
    return tf2onnx.convert.from_function(tf.function(f, autograph=False), input_signature=signature, opset=OPSET)[0]


def write_keras(m):
    import tensorflow as tf
    specs = [tf.TensorSpec(i.shape, i.dtype, name=f"in_{n}") for n, i in enumerate(m.inputs)]
    return to_onnx_tf(lambda *a: m(list(a) if len(a) > 1 else a[0], training=False), specs)


def write_export(m):
    import onnx
    ones = [np.ones([2, *(n or T for n in i.shape[1:])], i.dtype) for i in m.inputs]
    m(ones if len(ones) > 1 else ones[0])
    with tempfile.TemporaryDirectory() as d:
        m.export(d + "/m.onnx", format="onnx", verbose=False)
        return onnx.load(d + "/m.onnx")


def write_jax(pair):
    import jax2onnx
    f, shapes = pair
    for i, s in enumerate(shapes):
        if bool in s:
            shapes[i] = jx().ShapeDtypeStruct(jx().export.symbolic_shape(",".join(map(str, s[:-1]))), bool)
    return jax2onnx.to_onnx(f, shapes)


def write_script(f):
    """Inputs but x, y and tables of the rotation are weights."""
    from onnx import numpy_helper
    m = f.to_model_proto()
    keep = [i for i in m.graph.input if i.name in ("x", "y", "cos", "sin")]
    for i in m.graph.input:
        if i not in keep:
            shape = [d.dim_value for d in i.type.tensor_type.shape.dim]
            m.graph.initializer.append(numpy_helper.from_array(RNG.normal(0, 0.2, shape).astype("float32"), i.name))
    del m.graph.input[:]
    m.graph.input.extend(keep)
    return m


OPSET = 18
WRITERS = {"keras": (write_keras, "tf2onnx of Keras"), "export": (write_export, "Keras's export"), "tf": (lambda p: to_onnx_tf(*p), "tf2onnx of TensorFlow"),
           "jax": (write_jax, "jax2onnx"), "script": (write_script, "onnxscript functions")}


def main():
    way, folder = sys.argv[1:3]
    word = sys.argv[3] if len(sys.argv) > 3 else ""
    global RNG, OPSET
    import onnx
    if way == "script":
        script_models()
    for i, (w, name, build, truth) in enumerate(ALL):
        if w != way or word not in name:
            continue
        RNG = np.random.default_rng(i)
        OPSET = (13, 15, 17, 18)[i % 4]
        try:
            proto = WRITERS[way][0](build())
            onnx.checker.check_model(proto)
        except Exception:
            print(f"{way}_{name}: {traceback.format_exc(limit=-2)}", file=sys.stderr)
            continue
        path = os.path.join(folder, f"{way}_{name}")
        os.makedirs(path, exist_ok=True)
        onnx.save(proto, path + "/model.onnx")
        opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
        with open(path + "/truth.json", "w") as f:
            json.dump({"source": "tests/peers/dialects.py", "exporter": WRITERS[way][1], "opset": opset, **truth}, f, indent=1)
        print(path)


if __name__ == "__main__":
    main()
