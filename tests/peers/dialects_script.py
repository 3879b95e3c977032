"""The onnxscript models of dialects.py, apart since onnxscript reads the source of its functions. Functions are left in."""

from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

lib = Opset("linnet.dialects", 1)
H, D, W, T = 4, 8, 32, 12


@script(lib, default_opset=op)
def split_heads(x, n, d):
    b = op.Shape(x, start=0, end=2)
    return op.Transpose(op.Reshape(x, op.Concat(b, n, d, axis=0)), perm=[0, 2, 1, 3])


@script(lib, default_opset=op)
def join_heads(x):
    y = op.Transpose(x, perm=[0, 2, 1, 3])
    return op.Reshape(y, op.Constant(value_ints=[0, 0, -1]))


@script(lib, default_opset=op)
def scale_of(q):
    d = op.CastLike(op.Shape(q, start=-1), q)
    return op.Reciprocal(op.Sqrt(d))


@script(lib, default_opset=op)
def dot_product(q, k, v, bias):
    s = op.Sqrt(scale_of(q))
    scores = op.MatMul(q * s, op.Transpose(k, perm=[0, 1, 3, 2]) * s)
    return op.MatMul(op.Softmax(scores + bias, axis=-1), v)


@script(lib, default_opset=op)
def plain_product(q, k, v):
    scores = op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])) * scale_of(q)
    return op.MatMul(op.Softmax(scores, axis=-1), v)


@script(lib, default_opset=op)
def causal_bias(q, k):
    t = op.Shape(q, start=-2, end=-1)
    s = op.Shape(k, start=-2, end=-1)
    ones = op.Expand(op.Constant(value_float=1.0), op.Concat(t, s, axis=0))
    keep = op.Cast(op.Trilu(ones, upper=0), to=9)
    return op.Where(keep, op.Constant(value_float=0.0), op.Constant(value_float=float("-inf")))


@script(lib, default_opset=op)
def causal_bias_ranges(q, k):
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    t = op.Range(zero, op.Squeeze(op.Shape(q, start=-2, end=-1)), one)
    s = op.Range(zero, op.Squeeze(op.Shape(k, start=-2, end=-1)), one)
    keep = op.GreaterOrEqual(op.Unsqueeze(t, op.Constant(value_ints=[1])), op.Unsqueeze(s, op.Constant(value_ints=[0])))
    return op.Where(keep, op.Constant(value_float=0.0), op.Constant(value_float=-1e30))


@script(lib, default_opset=op)
def rms_norm(x, w):
    mean = op.ReduceMean(x * x, op.Constant(value_ints=[-1]))
    return x / op.Sqrt(mean + 1e-6) * w


@script(lib, default_opset=op)
def layer_norm(x, w, b):
    mean = op.ReduceMean(x, op.Constant(value_ints=[-1]))
    c = x - mean
    var = op.ReduceMean(c * c, op.Constant(value_ints=[-1]))
    return c / op.Sqrt(var + 1e-5) * w + b


@script(lib, default_opset=op)
def turn(x, cos, sin):
    a, b = op.Split(x, num_outputs=2, axis=-1)
    return x * cos + op.Concat(op.Neg(b), a, axis=-1) * sin


@script(lib, default_opset=op)
def spread(x, n):
    s = op.Shape(x)
    y = op.Unsqueeze(x, op.Constant(value_ints=[2]))
    wide = op.Concat(op.Shape(x, start=0, end=2), n, op.Shape(x, start=2), axis=0)
    y = op.Expand(y, wide)
    heads = op.Shape(x, start=1, end=2) * n
    return op.Reshape(y, op.Concat(op.Shape(x, start=0, end=1), heads, op.Shape(x, start=2), axis=0))


@script(lib, default_opset=op)
def silu(x):
    return x * op.Sigmoid(x)


@script(lib, default_opset=op)
def gelu_erf(x):
    return 0.5 * x * (1.0 + op.Erf(x * 0.7071067811865476))


@script(lib, default_opset=op)
def gelu_tanh(x):
    return 0.5 * x * (1.0 + op.Tanh(0.7978845608028654 * (x + 0.044715 * op.Pow(x, 3.0))))


@script(lib, default_opset=op)
def quick_gelu(x):
    return x * op.Sigmoid(1.702 * x)


@script(lib, default_opset=op)
def swiglu(x, gate, up, down):
    return op.MatMul(silu(op.MatMul(x, gate)) * op.MatMul(x, up), down)


@script(lib, default_opset=op)
def geglu_fused(x, both, down):
    a, b = op.Split(op.MatMul(x, both), num_outputs=2, axis=-1)
    return op.MatMul(gelu_erf(a) * b, down)


@script(lib, default_opset=op)
def geglu_tanh(x, gate, up, down):
    return op.MatMul(gelu_tanh(op.MatMul(x, gate)) * op.MatMul(x, up), down)


@script(lib, default_opset=op)
def quick_geglu(x, gate, up, down):
    return op.MatMul(quick_gelu(op.MatMul(x, gate)) * op.MatMul(x, up), down)


@script(lib, default_opset=op)
def self_attention(x, wq, wk, wv, wo):
    n = op.Constant(value_ints=[4])
    d = op.Constant(value_ints=[8])
    q = split_heads(op.MatMul(x, wq), n, d)
    k = split_heads(op.MatMul(x, wk), n, d)
    v = split_heads(op.MatMul(x, wv), n, d)
    return op.MatMul(join_heads(plain_product(q, k, v)), wo)


@script(lib, default_opset=op)
def causal_attention(x, wq, wk, wv, wo):
    n = op.Constant(value_ints=[4])
    d = op.Constant(value_ints=[8])
    q = split_heads(op.MatMul(x, wq), n, d)
    k = split_heads(op.MatMul(x, wk), n, d)
    v = split_heads(op.MatMul(x, wv), n, d)
    return op.MatMul(join_heads(dot_product(q, k, v, causal_bias(q, k))), wo)


@script(lib, default_opset=op)
def causal_attention_ranges(x, wq, wk, wv, wo):
    n = op.Constant(value_ints=[4])
    d = op.Constant(value_ints=[8])
    q = split_heads(op.MatMul(x, wq), n, d)
    k = split_heads(op.MatMul(x, wk), n, d)
    v = split_heads(op.MatMul(x, wv), n, d)
    return op.MatMul(join_heads(dot_product(q, k, v, causal_bias_ranges(q, k))), wo)


@script(default_opset=op)
def functions(x: FLOAT["B", "T", 32], wq: FLOAT[32, 32], wk: FLOAT[32, 32], wv: FLOAT[32, 32], wo: FLOAT[32, 32]) -> FLOAT["B", "T", 32]:
    return self_attention(x, wq, wk, wv, wo)


@script(default_opset=op)
def functions_causal(x: FLOAT["B", "T", 32], wq: FLOAT[32, 32], wk: FLOAT[32, 32], wv: FLOAT[32, 32], wo: FLOAT[32, 32]) -> FLOAT["B", "T", 32]:
    return causal_attention(x, wq, wk, wv, wo)


@script(default_opset=op)
def functions_causal_ranges(x: FLOAT["B", "T", 32], wq: FLOAT[32, 32], wk: FLOAT[32, 32], wv: FLOAT[32, 32], wo: FLOAT[32, 32]) -> FLOAT["B", "T", 32]:
    return causal_attention_ranges(x, wq, wk, wv, wo)


@script(default_opset=op)
def functions_cross(x: FLOAT["B", "T", 32], y: FLOAT["B", "S", 32], wq: FLOAT[32, 32], wk: FLOAT[32, 32], wv: FLOAT[32, 32]) -> FLOAT["B", "T", 32]:
    n = op.Constant(value_ints=[4])
    d = op.Constant(value_ints=[8])
    q = split_heads(op.MatMul(x, wq), n, d)
    k = split_heads(op.MatMul(y, wk), n, d)
    v = split_heads(op.MatMul(y, wv), n, d)
    return join_heads(plain_product(q, k, v))


@script(default_opset=op)
def functions_encoder(x: FLOAT["B", "T", 32], wq: FLOAT[32, 32], wk: FLOAT[32, 32], wv: FLOAT[32, 32], wo: FLOAT[32, 32], g: FLOAT[32], b: FLOAT[32],
                      up: FLOAT[32, 64], down: FLOAT[64, 32]) -> FLOAT["B", "T", 32]:
    h = x + self_attention(layer_norm(x, g, b), wq, wk, wv, wo)
    return h + op.MatMul(gelu_erf(op.MatMul(layer_norm(h, g, b), up)), down)


@script(default_opset=op)
def functions_llama(x: FLOAT["B", "T", 32], wq: FLOAT[32, 32], wk: FLOAT[32, 16], wv: FLOAT[32, 16], wo: FLOAT[32, 32], g: FLOAT[32],
                    cos: FLOAT["T", 8], sin: FLOAT["T", 8], gate: FLOAT[32, 64], up: FLOAT[32, 64], down: FLOAT[64, 32]) -> FLOAT["B", "T", 32]:
    h = rms_norm(x, g)
    n = op.Constant(value_ints=[4])
    m = op.Constant(value_ints=[2])
    d = op.Constant(value_ints=[8])
    q = turn(split_heads(op.MatMul(h, wq), n, d), cos, sin)
    k = spread(turn(split_heads(op.MatMul(h, wk), m, d), cos, sin), m)
    v = spread(split_heads(op.MatMul(h, wv), m, d), m)
    y = x + op.MatMul(join_heads(dot_product(q, k, v, causal_bias(q, k))), wo)
    return y + swiglu(rms_norm(y, g), gate, up, down)


@script(default_opset=op)
def functions_geglu(x: FLOAT["B", "T", 32], both: FLOAT[32, 96], down: FLOAT[48, 32]) -> FLOAT["B", "T", 32]:
    return geglu_fused(x, both, down)


@script(default_opset=op)
def functions_geglu_tanh(x: FLOAT["B", "T", 32], gate: FLOAT[32, 48], up: FLOAT[32, 48], down: FLOAT[48, 32]) -> FLOAT["B", "T", 32]:
    return geglu_tanh(x, gate, up, down)


@script(default_opset=op)
def functions_quick_geglu(x: FLOAT["B", "T", 32], gate: FLOAT[32, 48], up: FLOAT[32, 48], down: FLOAT[48, 32]) -> FLOAT["B", "T", 32]:
    return quick_geglu(x, gate, up, down)


def make(model, attention, glu):
    def add(f, attn=(), units=(), **norms):
        def build():
            return f
        build.__name__ = f.name
        model("script", attn, units, **norms)(build)
    add(functions, attention())
    add(functions_causal, attention(causal=True))
    add(functions_causal_ranges, attention(causal=True))
    add(functions_cross, attention("cross"))
    add(functions_encoder, attention(), (), layernorm=2)
    add(functions_llama, attention("gqa", 4, 2, causal=True, rope=True), glu("swiglu"), rmsnorm=2)
    add(functions_geglu, (), glu("geglu_erf", True))
    add(functions_geglu_tanh, (), glu("geglu_tanh"))
    add(functions_quick_geglu, (), glu("swiglu"))
