"""Attention and gated units spelled as chance has it: every choice that an exporter or an author makes is drawn, and what was drawn is what linnet must find.

spellings.py LINNET WORK [--count 300] [--seed 1] [--only N] [--keep]: draws models with onnx.helper, asks linnet what it recognises, and runs each in onnxruntime as
it is and after --simplify, --fuse=ort and --fuse --opset 23. Prints what differs, and one line at the end; exit status 1 when anything does. --keep: leaves those models in WORK.
"""

import argparse
import collections
import os
import random
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from recognition import alike, facts, last_object, units

F, I, BOOL = np.float32, np.int64, np.bool_
TYPES = {F: TensorProto.FLOAT, I: TensorProto.INT64, BOOL: TensorProto.BOOL}


class Spelling:
    def __init__(self, seed):
        self.r, self.rng = random.Random(seed), np.random.default_rng(seed)
        self.nodes, self.weights, self.inputs, self.outputs, self.feeds, self.drawn = [], {}, [], [], {}, {}
        self.opset = self.r.choice([11, 12, 13, 14, 15, 16, 17, 18, 20, 21])
        self.n = 0

    # ---- words ----

    def choose(self, what, *options):
        self.drawn[what] = self.r.choice(options)
        return self.drawn[what]

    def maybe(self, what, share=0.5):
        self.drawn[what] = self.r.random() < share
        return self.drawn[what]

    def name(self, hint):
        self.n += 1
        return f"{hint}_{self.n}"

    def const(self, value, dtype=None):
        a = np.asarray(value, dtype)
        name = self.name("c")
        if self.r.random() < 0.3 and a.size < 64:
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(a)))
        else:
            self.weights[name] = numpy_helper.from_array(a, name)
        return name

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [self.name(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        x = names[0] if outputs == 1 else names
        if outputs == 1 and self.r.random() < 0.03:
            return self.op("Identity", x)
        return x

    def input(self, name, dtype, shape, value):
        self.inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], shape))
        self.feeds[name] = np.asarray(value, dtype)
        return name

    def output(self, x, name, dtype=F):
        self.nodes.append(helper.make_node("Identity", [x], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[dtype], None))

    def weight(self, *shape, scale=None):
        return self.const(self.rng.normal(0, scale or shape[0] ** -0.5, shape), F)

    def unsqueeze(self, x, *axes):
        return self.op("Unsqueeze", x, axes=list(axes)) if self.opset < 13 else self.op("Unsqueeze", x, self.const(axes, I))

    def squeeze(self, x, *axes):
        return self.op("Squeeze", x, axes=list(axes)) if self.opset < 13 else self.op("Squeeze", x, self.const(axes, I))

    def reduce_sum(self, x, axis, keep=0):
        return self.op("ReduceSum", x, axes=[axis], keepdims=keep) if self.opset < 13 else self.op("ReduceSum", x, self.const([axis], I), keepdims=keep)

    def reduce(self, kind, x, axis, keep=1):
        return self.op(kind, x, axes=[axis], keepdims=keep) if self.opset < 18 else self.op(kind, x, self.const([axis], I), keepdims=keep)

    def split(self, x, parts, axis):
        if self.opset < 13:
            return self.op("Split", x, outputs=len(parts), split=parts, axis=axis)
        return self.op("Split", x, self.const(parts, I), outputs=len(parts), axis=axis)

    def slice(self, x, start, end, axis, step=1):
        more = [self.const([step], I)] if step != 1 or self.r.random() < 0.3 else []
        end = end if isinstance(end, str) else self.const([end], I)
        return self.op("Slice", x, self.const([start], I), end, self.const([axis], I), *more)

    def parts(self, x, sizes, axis):
        if self.r.random() < 0.5:
            return self.split(x, sizes, axis)
        ends = np.cumsum(sizes)
        return [self.slice(x, int(e - s), int(e) if e < ends[-1] or self.r.random() < 0.5 else 2**63 - 1, axis) for s, e in zip(sizes, ends)]

    def length(self, x, axis, scalar=False):
        """A length of x, a list of one or a scalar."""
        how = self.r.randrange(3 if self.opset >= 15 else 2)
        shape = self.op("Shape", x)
        if how == 0 or scalar:
            n = self.op("Gather", shape, self.const(axis, I), axis=0)
            return n if scalar else self.unsqueeze(n, 0)
        return self.slice(shape, axis, axis + 1, 0) if how == 1 else self.op("Shape", x, start=axis, end=axis + 1)

    def reshape(self, x, *shape):
        """Lengths: numbers, 0 for one that stays, -1, or names of lists of one."""
        if any(isinstance(s, str) for s in shape):
            return self.op("Reshape", x, self.op("Concat", *(s if isinstance(s, str) else self.const([s], I) for s in shape), axis=0))
        return self.op("Reshape", x, self.const(shape, I))

    def cast(self, x, dtype):
        return self.op("Cast", x, to=TYPES[dtype])

    def either(self, kind, a, b):
        """A commutative operator."""
        return self.op(kind, *self.r.sample([a, b], 2))

    # ---- lengths of the model ----

    def lengths(self, x):
        """How batch and tokens of x [B, T, D] are said in a reshape."""
        how = self.r.choice(["zero", "minus", "computed"] + ["fixed"] * self.fixed)
        if how == "fixed":
            return [self.B, self.T]
        if how == "computed":
            return [self.length(x, 0), self.length(x, 1)]
        return [0, 0] if how == "zero" else [0, -1]

    # ---- projections ----

    def linear(self, x, rows, columns, bias):
        how = self.r.choice(["matmul", "matmul", "gemm"])
        w = self.rng.normal(0, rows**-0.5, (rows, columns)).astype(F)
        few = self.opset >= 13 and self.r.random() < 0.06
        b = self.rng.normal(0, 0.1, columns).astype(F)
        if how == "gemm":
            turned = self.r.random() < 0.5
            y = self.op("Gemm", self.reshape(x, -1, rows), self.const(w.T if turned else w), *([self.const(b)] if bias else []), transB=int(turned))
            return y, True
        if few: # numbers of eight bits
            w = self.op("DequantizeLinear", self.const(np.round(w * 40).clip(-127, 127), np.int8), self.const(1 / 40, F))
        else:
            w = self.const(w) if self.r.random() < 0.7 else self.op("Transpose", self.const(w.T), perm=[1, 0])
        y = self.op("MatMul", x, w)
        return (self.either("Add", y, self.const(b)) if bias else y), False

    def heads_of(self, x, source, H, flat=False):
        """[B, T, H d], or [B T, H d] when flat, to [B, T, H, d]."""
        if flat:
            B, T = self.length(source, 0), self.length(source, 1)
            if self.r.random() < 0.5:
                return self.reshape(x, B, T, H, self.d)
            x = self.reshape(x, B, T, H * self.d)
        lengths = self.lengths(source if self.r.random() < 0.5 else x)
        return self.reshape(x, *lengths, H, -1 if -1 not in lengths and self.r.random() < 0.3 else self.d)

    def project(self, x, H, bias):
        """[B, T, H, d]"""
        if self.r.random() < 0.15 and self.opset >= 12:
            y = self.op("Einsum", x, self.weight(self.D, H, self.d), equation=self.r.choice(["btc,chd->bthd", "abc,cde->abde"]))
            return self.either("Add", y, self.weight(H, self.d, scale=0.1)) if bias else y
        y, flat = self.linear(x, self.D, H * self.d, bias)
        return self.heads_of(y, x, H, flat)

    def fused(self, x, H, K, bias):
        """q [B, T, H, d], k and v [B, T, K, d] of one product."""
        how = self.choose("fused", *(["parts"] + ["stacked", "interleaved"] * (H == K)))
        y, flat = self.linear(x, self.D, (H + 2 * K) * self.d, bias)
        if flat:
            y = self.reshape(y, self.length(x, 0), self.length(x, 1), (H + 2 * K) * self.d)
        if how == "parts":
            return [self.heads_of(p, x, n) for p, n in zip(self.parts(y, [H * self.d, K * self.d, K * self.d], self.r.choice([2, -1])), (H, K, K))]
        axis = 2 if how == "stacked" else 3
        y = self.reshape(y, *self.lengths(x), *((3, H, self.d) if how == "stacked" else (H, 3, self.d)))
        if self.r.random() < 0.5: # the three in front
            rest = [i for i in range(5) if i != axis]
            y, axis = self.op("Transpose", y, perm=[axis, *rest]), 0
        if self.r.random() < 0.5:
            return [self.op("Gather", y, self.const(i, I), axis=axis) for i in range(3)]
        return [self.squeeze(p, axis) for p in self.parts(y, [1, 1, 1], axis)]

    # ---- on queries and keys ----

    def norm(self, x):
        """Along the last axis."""
        how = self.choose("norm", "rms", "l2", "layer")
        if how == "l2":
            if self.r.random() < 0.5:
                n = self.reduce("ReduceL2", x, -1)
                return self.op("Div", x, self.op("Clip", n, self.const(1e-6, F)) if self.r.random() < 0.5 else self.op("Max", n, self.const(1e-6, F)))
            return self.op("Div", x, self.op("Sqrt", self.reduce_sum(self.op("Mul", x, x), -1, 1)))
        if how == "layer":
            if self.opset >= 17 and self.r.random() < 0.5:
                return self.op("LayerNormalization", x, self.weight(self.d), self.weight(self.d), axis=-1)
            c = self.op("Sub", x, self.reduce("ReduceMean", x, -1))
        else:
            c = x
        square = self.op("Mul", c, c) if self.r.random() < 0.5 else self.op("Pow", c, self.const(2, F))
        root = self.op("Sqrt", self.op("Add", self.reduce("ReduceMean", square, -1), self.const(1e-6, F)))
        y = self.op("Div", c, root) if self.r.random() < 0.5 else self.either("Mul", c, self.op("Reciprocal", root))
        y = self.either("Mul", y, self.weight(self.d, scale=1))
        return self.op("Add", y, self.weight(self.d)) if how == "layer" else y

    def tables(self, width, T, past):
        """cos and sin [T, width] or [B, T, width], of half the width when not doubled; T and past: lists of one with how many tokens are there, and were."""
        inverse = (10000.0 ** (-np.arange(0, width, 2) / width)).astype(F)
        how = self.choose("tables", *(["cached"] if self.drawn["cache"] != "static" else []), "computed", "picked", "computed_of_input")
        doubled = self.drawn["rope"] == "half"
        angle = np.outer(np.arange(64), inverse).astype(F)
        angle = np.concatenate([angle, angle], 1) if doubled else angle
        if how == "cached":
            return [self.op("Slice", self.const(f(angle)), past, self.op("Add", past, T), self.const([0], I)) if past else self.slice(self.const(f(angle)), 0, T, 0)
                    for f in (np.cos, np.sin)]
        if how in ("picked", "computed_of_input"):
            start = self.feeds["past_k"].shape[2] if past else 0
            shape = [self.B, self.T] if self.fixed else ["batch", "tokens"]
            places = self.input("position_ids", I, shape, np.broadcast_to(np.arange(start, start + self.T), (self.B, self.T)))
        else:
            places = self.numbers(T, past)
        if how == "picked":
            return [self.op("Gather", self.const(f(angle)), places, axis=0) for f in (np.cos, np.sin)]
        places = self.unsqueeze(self.cast(places, F), 1 if how == "computed" else 2)
        if self.r.random() < 0.5:
            a = self.op("MatMul", places, self.const(inverse[None]))
        else:
            a = self.either("Mul", places, self.const(inverse))
        if doubled:
            a = self.op("Concat", a, a, axis=-1)
        return self.op("Cos", a), self.op("Sin", a)

    def rotate(self, x, cos, sin, width):
        """x [.., d], cos and sin that broadcast to it; the first `width` columns are turned."""
        rest = None
        if width < self.d:
            x, rest = self.parts(x, [width, self.d - width], -1)
        if self.drawn["rope"] == "half":
            a, b = self.parts(x, [width // 2, width // 2], self.r.choice([-1, 3]))
            turned = self.op("Concat", self.op("Neg", b), a, axis=-1)
            y = self.either("Add", self.either("Mul", x, cos), self.either("Mul", turned, sin))
        else:
            if self.r.random() < 0.5:
                a, b = (self.slice(x, i, 2**63 - 1, 3, 2) for i in range(2))
            else:
                pairs = self.reshape(x, 0, 0, 0, width // 2, 2)
                a, b = (self.op("Gather", pairs, self.const(i, I), axis=4) for i in range(2))
            one = self.op("Sub", self.either("Mul", a, cos), self.either("Mul", b, sin))
            two = self.either("Add", self.either("Mul", a, sin), self.either("Mul", b, cos))
            pairs = self.op("Concat", self.unsqueeze(one, 4), self.unsqueeze(two, 4), axis=4)
            y = self.reshape(pairs, 0, 0, 0, width)
        return self.op("Concat", y, rest, axis=-1) if rest else y

    # ---- scale ----

    def scale_number(self):
        return self.r.choice([self.d**-0.5, self.d**-0.5, self.d**-0.5, 1 / 8, 0.3])

    def times(self, x, number):
        how = self.r.randrange(4)
        if how == 0:
            return self.op("Div", x, self.const(1 / number, F))
        if how == 1:
            return self.op("Div", x, self.op("Sqrt", self.const(number**-2, F)))
        return self.either("Mul", x, self.const(number if self.r.random() < 0.5 else [number], F))

    def times_computed(self, x, source):
        """d^-1/2 of a width read off source."""
        n = self.cast(self.length(source, 3, scalar=True), F)
        if self.r.random() < 0.5:
            return self.op("Div", x, self.op("Sqrt", n))
        return self.either("Mul", x, self.op("Pow", n, self.const(-0.5, F)) if self.r.random() < 0.5 else self.op("Reciprocal", self.op("Sqrt", n)))

    # ---- masks ----

    def numbers(self, n, start=None):
        """[0, 1, ...) of n, a list of one; from start, a list of one, on."""
        start = self.squeeze(start, 0) if start else None
        n = self.squeeze(n, 0)
        end = self.op("Add", start, n) if start else n
        return self.op("Range", start or self.const(0, I), end, self.const(1, I))

    def causal(self, T, S, past):
        """bool [T, S]: shown. T, S, past: lists of one; past may be None."""
        ways = ["compare", "cumsum"] + ["buffer"] * (self.drawn.get("cache") != "static") + ["trilu"] * (self.opset >= 14)
        how = self.choose("causal_by", *ways)
        if how == "compare":
            rows, columns = self.unsqueeze(self.numbers(T, past), 1), self.unsqueeze(self.numbers(S), 0)
            kind = self.r.randrange(3)
            if kind == 0:
                return self.op("Not", self.op("Greater", columns, rows)) if self.r.random() < 0.5 else self.op("Not", self.op("Less", rows, columns))
            if kind == 1 and self.opset >= 12:
                return self.op("LessOrEqual", columns, rows) if self.r.random() < 0.5 else self.op("GreaterOrEqual", rows, columns)
            return self.op("Less", columns, self.op("Add", rows, self.const(1, I)))
        if how == "buffer":
            kind = self.r.choice([BOOL, F])
            buffer = self.const(np.tril(np.ones((64, 64))), kind)
            if past:
                y = self.op("Slice", buffer, past, self.op("Add", past, T), self.const([0], I))
            else:
                y = self.slice(buffer, 0, T, 0)
            y = self.slice(y, 0, S, 1)
            return y if kind is BOOL else self.op("Equal", y, self.const(1, F)) if self.r.random() < 0.5 else self.cast(y, BOOL)
        square = self.op("Concat", T, S, axis=0)
        if how == "cumsum":
            ones = self.op("Expand", self.const(1, I), square)
            columns, rows = (self.op("CumSum", ones, self.const(axis, np.int32)) for axis in (1, 0))
            if past:
                rows = self.op("Add", rows, past)
            return self.op("Not", self.op("Greater", columns, rows))
        kind = self.r.randrange(3)
        ones = self.op("ConstantOfShape", square, value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])) if kind else self.op("Expand", self.const(1, F), square)
        if kind == 1:
            k = self.squeeze(self.op("Add", past, self.const([1], I)), 0) if past else self.const(1, I)
            return self.op("Not", self.cast(self.op("Trilu", ones, k, upper=1), BOOL))
        k = [self.squeeze(past, 0)] if past else []
        return self.cast(self.op("Trilu", ones, *k, upper=0), BOOL)

    def window(self, T, S, past, w):
        """bool [T, S]: fewer than w places back, and not ahead."""
        rows, columns = self.unsqueeze(self.numbers(T, past), 1), self.unsqueeze(self.numbers(S), 0)
        back = self.op("Sub", rows, columns)
        ahead = self.op("Less", back, self.const(0, I))
        far = self.op("Greater", back, self.const(w - 1, I)) if self.r.random() < 0.5 else self.op("Not", self.op("Less", back, self.const(w, I)))
        return self.op("Not", self.op("Or", ahead, far)) if self.r.random() < 0.5 else self.op("And", self.op("Not", ahead), self.op("Not", far))

    def padding(self, S, shape):
        """The input that says which keys there are, and bool [B, 1, 1, S]."""
        kind = self.choose("padding_input", "int", "bool", "float", "lengths")
        B = self.B
        n = self.rng.integers(max(1, S // 2), S + 1, B)
        shown = np.arange(S)[None] < n[:, None]
        if kind == "lengths":
            x = self.input("lengths", I, [shape[0]], n)
            y = self.op("Less", self.unsqueeze(self.numbers(self.S), 0), self.unsqueeze(x, 1))
        else:
            x = self.input("padding_mask", {"int": I, "bool": BOOL, "float": F}[kind], shape, shown)
            y = x if kind == "bool" else self.cast(x, BOOL) if self.r.random() < 0.5 else self.op("Not", self.op("Equal", x, self.const(0, I if kind == "int" else F)))
        how = self.r.randrange(3)
        if how == 0:
            return self.unsqueeze(y, 1, 2)
        if how == 1:
            return self.unsqueeze(self.unsqueeze(y, 1), 2)
        return self.reshape(y, 0, 1, 1, -1) if self.opset >= 14 else self.unsqueeze(self.unsqueeze(y, 1), 1)

    def low(self):
        return self.r.choice([-1e4, -1e9, float(np.finfo(F).min), -np.inf])

    def additive(self, shown, low):
        """0 where shown, low elsewhere."""
        how = self.r.randrange(3) if np.isfinite(low) else 0
        if how == 0:
            return self.op("Where", shown, self.const(0, F), self.const(low, F)) if self.r.random() < 0.5 else self.op("Where", self.op("Not", shown), self.const(low, F), self.const(0, F))
        if how == 1:
            return self.either("Mul", self.op("Sub", self.const(1, F), self.cast(shown, F)), self.const(low, F))
        return self.either("Mul", self.cast(self.op("Not", shown), F), self.const(low, F))

    def hide(self, scores, shown, again=False):
        low = self.low()
        if self.drawn["mask"] == "alibi" and low > -1e9: # the bias would lift it
            low = -1e9
        how = self.choose("hide", "where", "add", *(["weigh"] if low == -1e4 and not again else []))
        if how == "where":
            return self.op("Where", shown, scores, self.const(low, F)) if self.r.random() < 0.5 else self.op("Where", self.op("Not", shown), self.const(low, F), scores)
        if how == "weigh":
            m = self.cast(shown, F)
            return self.op("Sub", self.either("Mul", scores, m), self.either("Mul", self.op("Sub", self.const(1, F), m), self.const(1e4, F)))
        return self.either("Add", scores, self.additive(shown, low))

    # ---- softmax ----

    def softmax(self, s):
        how = self.choose("softmax", "plain", "plain", "plain", "double", "manual", "log")
        if how == "double":
            return self.cast(self.op("Softmax", self.op("Cast", s, to=TensorProto.DOUBLE), axis=-1 if self.opset >= 13 else 3), F)
        if how == "log":
            return self.op("Exp", self.op("LogSoftmax", s, axis=-1 if self.opset >= 13 else 3))
        if how == "manual":
            e = self.op("Exp", self.op("Sub", s, self.reduce("ReduceMax", s, -1)))
            return self.op("Div", e, self.reduce_sum(e, -1, 1))
        return self.op("Softmax", s, axis=self.r.choice([-1, 3]) if self.opset >= 13 else 3)

    # ---- the whole ----

    def make(self):
        self.truth, self.wanted_units = None, collections.Counter()
        self.choose("family", *["heads"] * 6, "merged", "merged", "single", "one_by_one", "units", "units", "near")
        getattr(self, self.drawn["family"])()
        return self.model()

    def record(self, kind, H, K, causal, mask, scale, **more):
        self.truth = {"kind": kind, "heads": H, "kv_heads": K, "head_dim": self.d, "causal": causal, "mask": mask, "scale": scale, "softcap": None, "rope": False,
                      "qk_norm": False, "kv_cache": False, "count": 1, **more}

    def finish(self, o):
        """[B, T, D] projected to the output."""
        y, flat = self.linear(o, self.D, self.D, self.drawn.get("bias"))
        if flat:
            y = self.reshape(y, self.length(o, 0), self.length(o, 1), self.D)
        self.output(y, "y")

    def merged(self):
        """As torch.nn.MultiheadAttention has it: tokens first, heads in the batch [B H, T, d]."""
        r = self.r
        self.d, self.B, self.T, self.fixed = r.choice([4, 8]), r.choice([1, 2]), r.choice([5, 6]), False
        H = self.choose("heads", 2, 4)
        self.D = H * self.d
        cross, first, bias = self.maybe("cross", 0.3), self.maybe("tokens_first"), self.maybe("bias")
        mask = self.choose("mask", "none", "padding", *(["causal", "both", "additive"] if not cross else []))
        S = 9 if cross else self.T

        def stream(name, tokens, n):
            v = self.rng.normal(size=(self.B, n, self.D))
            if first:
                return self.input(name, F, [tokens, "batch", self.D], v.swapaxes(0, 1))
            return self.op("Transpose", self.input(name, F, ["batch", tokens, self.D], v), perm=[1, 0, 2])

        x = stream("x", "tokens", self.T)
        m = stream("memory", "memory_tokens", S) if cross else x
        B, T_name, self.S = self.length(x, 1), self.length(x, 0), self.length(m, 0)
        BH = self.op("Mul", B, self.const([H], I))
        scale, where = self.scale_number(), self.choose("scale_at", "q", "k", "scores", "baddbmm", "none")
        scale = 1.0 if where == "none" else scale

        def project(source):
            y, flat = self.linear(source, self.D, self.D, bias)
            n = self.S if source == m else T_name
            if flat and r.random() < 0.5:
                y = self.reshape(y, n, B, self.D)
            return self.op("Transpose", self.reshape(y, n if r.random() < 0.5 else -1, BH, self.d), perm=[1, 0, 2])

        q, k, v = project(x), project(m), project(m)
        q = self.times(q, scale) if where == "q" else q
        k = self.times(k, scale) if where == "k" else k
        if self.maybe("by_einsum", 0.2) and self.opset >= 12:
            s = self.op("Einsum", q, k, equation="bqd,bkd->bqk")
        else:
            s = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 2, 1]))
        if where == "scores":
            s = self.times(s, scale)
        shown = self.causal(T_name, self.S, None) if mask in ("causal", "both") else None
        extra = self.additive(shown, r.choice([-1e9, -np.inf])) if shown and (where == "baddbmm" or r.random() < 0.5) else None
        if where == "baddbmm": # beta input + alpha product
            s = self.either("Mul", s, self.const(scale, F))
            if r.random() < 0.5:
                none = self.op("ConstantOfShape", self.op("Shape", s), value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.0]))
                s = self.op("Add", self.op("Mul", none, self.const(0, F)), s)
        if extra:
            s = self.either("Add", s, extra)
        elif shown:
            s = self.hide(s, shown)
        if mask == "additive":
            s = self.either("Add", s, self.input("mask", F, ["tokens", "tokens"], self.rng.normal(size=(self.T, self.T))))
        if mask in ("padding", "both"):
            p = self.padding(S, ["batch", "memory_tokens" if cross else "tokens"])
            if r.random() < 0.5:
                s = self.reshape(s, B, H, T_name, self.S)
                s = self.reshape(self.hide(s, p, True), BH, T_name, self.S)
            else: # the mask is repeated for heads
                p = self.op("Expand", p, self.op("Concat", B, self.const([H, 1], I), self.S, axis=0))
                s = self.hide(s, self.reshape(p, BH, 1, self.S), True)
        p = self.op("Softmax", s, axis=r.choice([-1, 2]) if self.opset >= 13 else 2)
        o = self.op("Transpose", self.op("MatMul", p, v), perm=[1, 0, 2])
        self.finish(self.reshape(o, T_name, B, self.D))
        self.record("cross" if cross else "mha", H, H, mask in ("causal", "both"), {"causal": "none", "both": "padding"}.get(mask, mask), scale)

    def single(self):
        """Without a batch: [T, D], heads [H, T, d]."""
        r = self.r
        self.d, self.T, self.B, self.fixed = r.choice([4, 8]), r.choice([5, 6]), 1, False
        H = self.choose("heads", 2, 4)
        self.D = H * self.d
        tokens = r.choice(["tokens", self.T])
        x = self.input("x", F, [tokens, self.D], self.rng.normal(size=(self.T, self.D)))
        bias = self.maybe("bias")

        def project():
            w, b = self.weight(self.D, self.D), self.weight(self.D, scale=0.1)
            y = self.op("Gemm", x, w, b) if bias else self.op("MatMul", x, w)
            return self.op("Transpose", self.reshape(y, r.choice([0, -1]), H, self.d), perm=[1, 0, 2])

        q, k, v = project(), project(), project()
        scale, mask = self.scale_number(), self.choose("mask", "none", "causal")
        early = r.random() < 0.5
        s = self.op("MatMul", self.times(q, scale) if early else q, self.op("Transpose", k, perm=[0, 2, 1]))
        s = s if early else self.times(s, scale)
        if mask == "causal":
            n = self.length(x, 0)
            s = self.hide(s, self.causal(n, n, None))
        p = self.op("Softmax", s, axis=-1 if self.opset >= 13 else 2)
        o = self.op("Transpose", self.op("MatMul", p, v), perm=[1, 0, 2])
        y = self.op("MatMul", self.reshape(o, r.choice([0, -1]), self.D), self.weight(self.D, self.D))
        self.output(y, "y")
        self.record("mha", H, H, mask == "causal", "none", scale)

    def one_by_one(self):
        """A loop over heads, unrolled: each has its own products, and their results are joined."""
        r = self.r
        self.d, self.T, self.B, self.fixed = r.choice([4, 8]), r.choice([5, 6]), 2, False
        H = self.choose("heads", 2, 4)
        self.D = H * self.d
        x = self.input("x", F, ["batch", "tokens", self.D], self.rng.normal(size=(2, self.T, self.D)))
        scale, causal, whole = self.scale_number(), self.maybe("causal"), self.maybe("projected_whole")
        shown = self.causal(*[self.length(x, 1)] * 2, None) if causal else None
        if whole:
            parts = [self.parts(self.op("MatMul", x, self.weight(self.D, self.D)), [self.d] * H, 2) for _ in "qkv"]
        heads = []
        for h in range(H):
            q, k, v = (p[h] for p in parts) if whole else (self.op("MatMul", x, self.weight(self.D, self.d)) for _ in "qkv")
            s = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 2, 1]))
            s = self.op("Mul", s, self.const(scale, F))
            if causal:
                s = self.op("Where", shown, s, self.const(-1e9, F))
            heads.append(self.op("MatMul", self.op("Softmax", s, axis=-1 if self.opset >= 13 else 2), v))
        self.finish(self.op("Concat", *heads, axis=self.r.choice([-1, 2])))
        self.record("self", 1, 1, causal, "none", scale, count=H) # each is seen by itself

    ACTIVATIONS = {"glu": "sigmoid", "bilinear": "none", "reglu": "relu", "geglu_erf": "erf", "geglu_tanh": "tanh", "swiglu": "silu"}

    def activation(self, x, kind):
        r = self.r
        if kind == "sigmoid":
            if r.random() < 0.6:
                return self.op("Sigmoid", x)
            below = self.either("Add", self.op("Exp", self.op("Neg", x)), self.const(1, F))
            return self.op("Reciprocal", below) if r.random() < 0.5 else self.op("Div", self.const(1, F), below)
        if kind == "relu":
            return self.op("Relu", x) if r.random() < 0.6 else self.op("Max", x, self.const(0, F)) if r.random() < 0.5 else self.op("Clip", x, self.const(0, F))
        if kind == "silu":
            beta = r.choice([1, 1, 1.702, 1.5])
            return self.either("Mul", x, self.activation(x if beta == 1 else self.either("Mul", x, self.const(beta, F)), "sigmoid"))
        if kind == "erf":
            if self.opset >= 20 and r.random() < 0.5:
                return self.op("Gelu", x)
            a = self.op("Erf", self.op("Div", x, self.const(2**0.5, F)) if r.random() < 0.5 else self.op("Mul", x, self.const(0.5**0.5, F)))
            a = self.either("Add", a, self.const(1, F))
            return self.either("Mul", self.either("Mul", x, a), self.const(0.5, F)) if r.random() < 0.5 else self.either("Mul", self.either("Mul", x, self.const(0.5, F)), a)
        if kind == "tanh":
            if self.opset >= 20 and r.random() < 0.5:
                return self.op("Gelu", x, approximate="tanh")
            cube = self.op("Pow", x, self.const(3, F)) if r.random() < 0.5 else self.op("Mul", self.op("Mul", x, x), x)
            a = self.op("Tanh", self.either("Mul", self.either("Add", x, self.either("Mul", cube, self.const(0.044715, F))), self.const((2 / np.pi) ** 0.5, F)))
            a = self.either("Add", a, self.const(1, F))
            return self.either("Mul", self.either("Mul", x, self.const(0.5, F)), a)
        return x

    def units(self):
        """Gated linear units, one or two in a row."""
        r = self.r
        self.D = r.choice([8, 16])
        x = self.input("x", F, ["batch", "tokens", self.D], self.rng.normal(size=(2, 5, self.D)))
        y = x
        for _ in range(r.choice([1, 2])):
            kind, fused, bias = self.choose("unit", *self.ACTIVATIONS), self.maybe("one_product"), self.maybe("bias")
            hidden = r.choice([12, 24])
            self.drawn["convolved"] = r.random() < 0.15
            if self.drawn["convolved"]:
                y = self.either("Add", y, self.convolved(y, kind, fused, bias, hidden)) if r.random() < 0.7 else self.convolved(y, kind, fused, bias, hidden)
                self.wanted_units[kind, fused] += not self.drawn["clipped"]
                continue
            if fused:
                both, flat = self.linear(y, self.D, 2 * hidden, bias)
                if r.random() < 0.7:
                    halves = self.parts(both, [hidden, hidden], -1)
                elif flat:
                    pair = self.reshape(both, -1, 2, hidden)
                    halves = [self.op("Gather", pair, self.const(i, I), axis=1) for i in range(2)]
                else:
                    pair = self.reshape(both, 0, 0, 2, hidden)
                    halves = [self.squeeze(t, 2) for t in self.parts(pair, [1, 1], 2)]
                gate, up = halves if r.random() < 0.5 else halves[::-1]
            else:
                flat = False
                (gate, a), (up, b) = self.linear(y, self.D, hidden, bias), self.linear(y, self.D, hidden, bias)
                if a != b:
                    gate, up = (self.reshape(t, self.length(y, 0), self.length(y, 1), hidden) if f else t for t, f in ((gate, a), (up, b)))
                flat = a and b
            h = self.gated(gate, up, kind)
            if flat:
                h = self.reshape(h, self.length(y, 0), self.length(y, 1), hidden)
            z, flat = self.linear(h, hidden, self.D, bias)
            z = self.reshape(z, self.length(y, 0), self.length(y, 1), self.D) if flat else z
            y = self.either("Add", y, z) if r.random() < 0.7 else z
            self.wanted_units[kind, fused] += not self.drawn["clipped"]
        self.output(y, "y")

    def gated(self, gate, up, kind):
        self.drawn["clipped"] = kind == "swiglu" and self.r.random() < 0.2
        if self.drawn["clipped"]: # with limits and an added one, as gpt-oss has it: it stays, and is told by `why`
            gate = self.op("Min", gate, self.const(7, F)) if self.r.random() < 0.5 else self.op("Clip", gate, "", self.const(7, F))
            up = self.either("Add", self.op("Clip", up, self.const(-7, F), self.const(7, F)), self.const(1, F))
        return self.either("Mul", self.activation(gate, self.ACTIVATIONS[kind]), up)

    def convolved(self, x, kind, fused, bias, hidden):
        """Channels in front of tokens, projected by convolutions of width one or three."""
        def conv(x, rows, columns, k=1):
            b = [self.weight(columns, scale=0.1)] if bias else []
            return self.op("Conv", x, self.weight(columns, rows, k, scale=rows**-0.5), *b, kernel_shape=[k], pads=[k // 2] * 2)

        k = self.r.choice([1, 1, 3])
        x = self.op("Transpose", x, perm=[0, 2, 1])
        if fused:
            halves = self.parts(conv(x, self.D, 2 * hidden, k), [hidden, hidden], 1)
            gate, up = halves if self.r.random() < 0.5 else halves[::-1]
        else:
            gate, up = conv(x, self.D, hidden, k), conv(x, self.D, hidden, k)
        return self.op("Transpose", conv(self.gated(gate, up, kind), hidden, self.D), perm=[0, 2, 1])

    def near(self):
        """What is no softmax attention though it looks like it."""
        r = self.r
        self.d, self.T, self.B, self.fixed = 8, 5, 2, False
        H = 2
        self.D = H * self.d
        x = self.input("x", F, ["batch", "tokens", self.D], self.rng.normal(size=(2, 5, self.D)))
        q, k, v = (self.op("Transpose", self.project(x, H, False), perm=[0, 2, 1, 3]) for _ in "qkv")
        s = self.times(self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2])), 0.3)
        how = self.choose("near", "sigmoid", "queries", "squared", "relu", "distance", "sum_only")
        if how == "sigmoid":
            p = self.op("Sigmoid", s)
        elif how == "queries":
            p = self.op("Transpose", self.op("Softmax", self.op("Transpose", s, perm=[0, 1, 3, 2]), axis=3), perm=[0, 1, 3, 2])
        elif how == "squared":
            p = self.op("Softmax", self.op("Mul", s, s), axis=3)
        elif how == "relu":
            p = self.op("Relu", s)
            p = self.op("Div", p, self.op("Add", self.reduce_sum(p, -1, 1), self.const(1e-6, F)))
        elif how == "distance":
            a, b = (self.reduce_sum(self.op("Mul", t, t), -1, 1) for t in (q, k))
            p = self.op("Softmax", self.op("Neg", self.op("Sqrt", self.op("Abs", self.op("Sub", self.op("Add", a, self.op("Transpose", b, perm=[0, 1, 3, 2])), s)))), axis=3)
        else:
            p = self.op("Div", s, self.op("Add", self.op("Abs", self.reduce_sum(s, -1, 1)), self.const(1, F)))
        o = self.op("Transpose", self.op("MatMul", p, v), perm=[0, 2, 1, 3])
        self.finish(self.reshape(o, 0, 0, self.D))

    def heads(self):
        r = self.r
        self.d, self.B = r.choice([4, 8, 16]), r.choice([1, 2])
        self.fixed = self.maybe("fixed", 0.25)
        H = self.choose("heads", 2, 4)
        K = self.choose("kv_heads", *[k for k in (1, 2, 4) if H % k == 0] + [H, H])
        self.D, self.T = H * self.d, r.choice([5, 6, 7])
        cross = self.maybe("cross", 0.12)
        cache = not cross and self.choose("cache", *[None] * 8, "joined", "joined", "static")
        mask = self.choose("mask", "none", "causal", "causal", "padding", "both", "window", "alibi", "relative", "additive", "boolean")
        if (cross and mask not in ("none", "padding", "additive", "boolean")) or (cache == "static" and mask != "causal"):
            mask = self.drawn["mask"] = "none" if cross else "causal"
        batch, tokens = (self.B, self.T) if self.fixed else ("batch", "tokens")
        x = self.input("x", F, [batch, tokens, self.D], self.rng.normal(size=(self.B, self.T, self.D)))
        source, S = x, self.T
        if cross:
            S = r.choice([3, 9])
            source = self.input("memory", F, [batch, S if self.fixed else "memory_tokens", self.D], self.rng.normal(size=(self.B, S, self.D)))
        bias = self.maybe("bias")
        if not cross and self.maybe("one_product", 0.4):
            q, k, v = self.fused(x, H, K, bias)
        else:
            q = self.project(x, H, bias)
            T0, self.T = self.T, S
            k, v = self.project(source, K, bias), self.project(source, K, bias)
            self.T = T0
        scale, where = self.scale_number(), self.choose("scale_at", "q", "scores", "computed", "none", *([] if cache else ["k", "both"])) # else keys would be kept scaled
        if where == "computed":
            scale = self.d**-0.5
        if where == "none":
            scale = 1.0
        if self.maybe("norm_qk", 0.12):
            q, k = self.norm(q), self.norm(k)
        if where == "q":
            q = self.times(q, scale)
        if where == "k":
            k = self.times(k, scale)
        if where == "both":
            q, k = self.times(q, scale**0.5), self.times(k, scale**0.5)
        rope = not cross and self.maybe("rotary", 0.25)
        past = None
        if cache:
            P, M = r.choice([0, 3, 4]), "past" if cache == "joined" else 16
            ks, vs = (self.input(n, F, [batch, K, M, self.d], self.rng.normal(size=(self.B, K, P if cache == "joined" else M, self.d))) for n in ("past_k", "past_v"))
            if cache == "joined":
                past = self.length(ks, 2)
            else:
                places = self.input("cache_position", I, [tokens], np.arange(P, P + self.T))
                past = self.slice(places, 0, 1, 0)
        if rope:
            self.choose("rope", "half", "pairs")
            width = self.d if r.random() < 0.7 or self.d < 8 else self.d // 2
            cos, sin = self.tables(width, self.length(x, 1), past)
            batched = self.drawn["tables"] in ("picked", "computed_of_input")
            late = r.random() < 0.5 # behind the transpose
            if not late:
                c, s = (self.unsqueeze(t, 2) if batched else self.unsqueeze(self.unsqueeze(t, 1), 0) for t in (cos, sin))
                q, k = self.rotate(q, c, s, width), self.rotate(k, c, s, width)
        # Products by einsum take them as they are.
        self.drawn["as_they_are"] = K == H and not cache and not (rope and late) and self.opset >= 12 and r.random() < 0.1
        if not self.drawn["as_they_are"]:
            q, v = (self.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
            # For the product at once, where nothing comes between.
            self.drawn["turned"] = K == H and not cache and not (rope and late) and r.random() < 0.2
            k = self.op("Transpose", k, perm=[0, 2, 3, 1] if self.drawn["turned"] else [0, 2, 1, 3])
        if rope and late:
            c, s = (self.unsqueeze(t, 1) if batched else self.unsqueeze(t, 0, 1) for t in (cos, sin))
            q, k = self.rotate(q, c, s, width), self.rotate(k, c, s, width)
        if cache == "static":
            k, v = self.put(ks, k, places), self.put(vs, v, places)
            S = M
        elif cache:
            k, v = self.op("Concat", ks, k, axis=r.choice([2, -2])), self.op("Concat", vs, v, axis=r.choice([2, -2]))
            S += P
        if cache:
            self.output(k, "present_k")
            self.output(v, "present_v")
        T_name, self.S = self.length(x, 1), self.length(k, 3 if self.drawn.get("turned") else 1 if self.drawn["as_they_are"] else 2)
        five = False
        if K < H:
            how = self.choose("repeat", "expand", "tile", "concat", "gather", "five", *(["broadcast"] if K == 1 else []))
            five, G = how == "five", H // K
            if how == "five":
                q = self.reshape(q, 0, K, G, -1, self.d)
                k, v = self.unsqueeze(k, 2), self.unsqueeze(v, 2)
            elif how != "broadcast":
                k, v = self.repeat(k, K, G, how), self.repeat(v, K, G, how)
        if self.drawn["as_they_are"]:
            scores = self.op("Einsum", q, k, equation=r.choice(["bthd,bshd->bhts", "aecd,abcd->aceb"]))
        elif self.drawn["turned"]:
            scores = self.op("MatMul", q, k)
        else:
            scores = self.product(q, k, five)
        if where == "scores":
            scores = self.times(scores, scale)
        if where == "computed":
            scores = self.times_computed(scores, self.op("Reshape", q, self.const([0, H, -1, self.d], I)) if five else q)
        if five:
            scores = self.reshape(scores, 0, H, T_name if r.random() < 0.5 else -1, self.S)
        softcap = None
        if self.maybe("capped", 0.1):
            softcap = r.choice([5.0, 30.0])
            scores = self.either("Mul", self.op("Tanh", self.op("Div", scores, self.const(softcap, F))), self.const(softcap, F))
        window, total = None, S if cache == "static" else f"past + {tokens}" if cache else S if self.fixed else "memory_tokens" if cross else tokens
        if mask == "causal":
            if cache == "static" and r.random() < 0.7:
                columns = self.numbers(self.S) if r.random() < 0.5 else self.const(np.arange(S), I)
                shown = self.op("Not", self.op("Greater", self.unsqueeze(columns, 0), self.unsqueeze(places, 1)))
            else:
                shown = self.causal(T_name, self.S, past)
            scores = self.hide(scores, shown)
        elif mask == "padding":
            scores = self.hide(scores, self.padding(S, [batch, total]))
        elif mask == "both":
            a, b = self.causal(T_name, self.S, past), self.padding(S, [batch, total])
            if r.random() < 0.5:
                scores = self.hide(scores, self.either("And", self.unsqueeze(a, 0, 1) if r.random() < 0.5 else a, b))
            else:
                scores = self.hide(self.hide(scores, a), b, True)
        elif mask == "window":
            window = r.choice([2, 3, 4])
            scores = self.hide(scores, self.window(T_name, self.S, past, window))
        elif mask == "alibi":
            slopes = self.const(2.0 ** (-8 * np.arange(1, H + 1) / H).reshape(H, 1, 1), F)
            columns, rows = self.unsqueeze(self.numbers(self.S), 0), self.unsqueeze(self.numbers(T_name, past), 1)
            distance = self.op("Sub", columns, rows) if r.random() < 0.5 else columns
            scores = self.either("Add", scores, self.either("Mul", slopes, self.cast(distance, F)))
            scores = self.hide(scores, self.causal(T_name, self.S, past))
        elif mask == "relative":
            columns, rows = self.unsqueeze(self.numbers(self.S), 0), self.unsqueeze(self.numbers(T_name, past), 1)
            place = self.op("Add", self.op("Sub", columns, rows), self.const(40, I))
            if r.random() < 0.5:
                place = self.op("Min", self.op("Max", place, self.const(36, I)), self.const(44, I)) if self.opset >= 12 else place
            table = self.op("Gather", self.weight(80, H, scale=1), place, axis=0)
            table = self.op("Transpose", table, perm=[2, 0, 1])
            scores = self.either("Add", scores, self.unsqueeze(table, 0) if r.random() < 0.5 else table)
        elif mask == "additive":
            m = self.input("mask", F, [batch, 1, tokens, total], self.rng.normal(size=(self.B, 1, self.T, S)))
            scores = self.either("Add", scores, m)
        elif mask == "boolean":
            shown = self.rng.random((self.B, 1, self.T, S)) < 0.7
            shown[..., 0] = True
            m = self.input("mask", BOOL, [batch, 1, tokens, total], shown)
            scores = self.hide(scores, m)
        sink = self.choose("rest", *[None] * 12, "sink", "plus_one")
        if sink == "plus_one": # one more logit, 0
            top = self.op("Max", self.reduce("ReduceMax", scores, -1), self.const(0, F))
            e = self.op("Exp", self.op("Sub", scores, top))
            p = self.op("Div", e, self.either("Add", self.reduce_sum(e, -1, 1), self.op("Exp", self.op("Neg", top))))
        elif sink: # one more logit a head
            logit = self.op("Expand", self.const(self.rng.normal(size=(1, H, 1, 1)), F), self.op("Concat", self.length(scores, 0), self.const([H], I), T_name, self.const([1], I), axis=0))
            p = self.slice(self.softmax(self.op("Concat", scores, logit, axis=r.choice([3, -1]))), 0, -1, 3)
        else:
            p = self.softmax(scores)
        if self.maybe("probabilities_out", 0.06):
            self.output(p, "p")
        if self.maybe("dropout", 0.1):
            p = self.op("Dropout", p, *([self.const(0.1, F)] if self.opset >= 12 else []))
        if five:
            p = self.reshape(p, 0, K, H // K, T_name if r.random() < 0.5 else -1, self.S)
        if self.drawn["as_they_are"]:
            o = self.op("Einsum", p, v, equation=r.choice(["bhts,bshd->bthd", "abcd,adbe->acbe"]))
        else:
            o = self.weighted(p, v, five)
            if five:
                o = self.reshape(o, 0, H, -1, self.d)
            o = self.op("Transpose", o, perm=[0, 2, 1, 3])
        o = self.reshape(o, *r.choice([(0, 0, self.D), (0, -1, self.D), (0, 0, -1)])) if r.random() < 0.7 else self.reshape(o, self.length(x, 0), T_name, self.D)
        self.finish(o)
        self.record("cross" if cross else "mha" if K == H else "mqa" if K == 1 else "gqa", H, K, mask in ("causal", "both", "window", "alibi"),
                    {"causal": "none", "both": "padding", "window": "sliding_window", "relative": "relative_bias"}.get(mask, mask), scale,
                    softcap=softcap, rope=rope, qk_norm=self.drawn["norm_qk"], kv_cache=bool(cache), sink=sink == "sink", rewritable=not self.drawn["probabilities_out"],
                    **({"window": window} if window else {}))

    def put(self, cache, x, places):
        """cache [B, K, M, d] with x [B, K, T, d] written at places [T]."""
        how = self.choose("put", "elements", *(["nd", "nd_turned"] if self.opset >= 13 else []))
        if how == "elements":
            at = self.op("Expand", self.reshape(places, 1, 1, -1, 1), self.op("Shape", x))
            return self.op("ScatterElements", cache, at, x, axis=2)
        if how == "nd": # tokens in front
            c, y = (self.op("Transpose", t, perm=[2, 0, 1, 3]) for t in (cache, x))
            return self.op("Transpose", self.op("ScatterND", c, self.unsqueeze(places, 1), y), perm=[1, 2, 0, 3])
        c, y = (self.op("Transpose", t, perm=[2, 1, 0, 3]) for t in (cache, x))
        return self.op("Transpose", self.op("ScatterND", c, self.unsqueeze(places, -1), y), perm=[2, 1, 0, 3])

    def repeat(self, x, K, G, how):
        if how == "gather":
            return self.op("Gather", x, self.const(np.repeat(np.arange(K), G), I), axis=1)
        y = self.unsqueeze(x, 2)
        if how == "expand":
            y = self.op("Expand", y, self.const([1, 1, G, 1, 1], I)) if self.r.random() < 0.5 else \
                self.op("Expand", y, self.op("Concat", self.length(x, 0), self.const([K, G], I), self.length(x, 2), self.const([self.d], I), axis=0))
        elif how == "tile":
            y = self.op("Tile", y, self.const([1, 1, G, 1, 1], I))
        else:
            y = self.op("Concat", *[y] * G, axis=2)
        return self.reshape(y, 0, K * G, -1, self.d)

    def product(self, q, k, five):
        """[B, H, T, S]; five: [B, K, G, T, S]."""
        how = self.choose("product", "matmul", "matmul", "einsum" if self.opset >= 12 else "matmul", "flat", "sum")
        alike = not five and self.drawn.get("repeat") != "broadcast" # as many heads on both sides
        if how == "einsum" and alike:
            return self.op("Einsum", q, k, equation=self.r.choice(["bhqd,bhkd->bhqk", "abcd,abed->abce"]))
        if how == "sum" and not five:
            return self.reduce_sum(self.op("Mul", self.unsqueeze(q, 3), self.unsqueeze(k, 2)), -1)
        turned = self.op("Transpose", k, perm=[0, 1, 2, 4, 3] if five else [0, 1, 3, 2])
        if how == "flat" and alike: # [B H, T, S]
            H = self.drawn["heads"]
            a, b = self.reshape(q, -1, self.T if self.fixed else self.length(q, 2), self.d), self.reshape(turned, -1, self.d, self.length(k, 2))
            return self.reshape(self.op("MatMul", a, b), -1, H, self.length(q, 2), self.length(k, 2))
        return self.op("MatMul", q, turned)

    def weighted(self, p, v, five):
        how = self.choose("weighted", "matmul", "matmul", "einsum" if self.opset >= 12 else "matmul", "flat")
        alike = not five and self.drawn.get("repeat") != "broadcast"
        if how == "einsum" and alike:
            return self.op("Einsum", p, v, equation="bhqk,bhkd->bhqd")
        if how == "flat" and alike:
            H = self.drawn["heads"]
            a, b = self.reshape(p, -1, self.length(p, 2), self.length(p, 3)), self.reshape(v, -1, self.length(v, 2), self.d)
            return self.reshape(self.op("MatMul", a, b), -1, H, self.length(p, 2), self.d)
        return self.op("MatMul", p, v)

    def model(self):
        graph = helper.make_graph(self.nodes, "drawn", self.inputs, self.outputs, list(self.weights.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def run(path, feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def near(a, b):
    return len(a) == len(b) and all(x.shape == y.shape and np.abs(x - y).max(initial=0) <= 1e-4 * max(1, np.abs(x).max(initial=0)) for x, y in zip(a, b))


def misses(o, s, path):
    """What linnet finds in a file and was not drawn, or does not find."""
    found = last_object(o.linnet, "show", "--attention", "--json", path)
    told, wrong = found["attention"], []
    if sum(g["count"] for g in told) != (s.truth["count"] if s.truth else 0) or not all(alike(facts(g), facts(s.truth)) for g in told):
        wrong.append(f"found {[{k: g.get(k) for k in s.truth or g} for g in told]}, drawn {s.truth}")
    if units(found["glu"]) != +s.wanted_units:
        wrong.append(f"found {dict(units(found['glu']))}, drawn {dict(+s.wanted_units)}")
    return wrong


def examine(o, seed):
    """What is wrong with this seed's model: a list of lines."""
    s = Spelling(seed)
    path, again = (os.path.join(o.work, f"{n}.onnx") for n in (f"drawn{seed}", "again"))
    onnx.save(s.make(), path)
    try:
        wanted = run(path, s.feeds)
    except Exception as e:
        return s, [f"not a model: {str(e)[:200]}"]
    count = s.truth["count"] if s.truth else 0
    wrong = misses(o, s, path)
    nodes, may = last_object(o.linnet, "why", "--json", path)["attention"], count if not s.truth or s.truth.get("rewritable", True) else 0
    if nodes != may:
        wrong.append(f"{nodes} nodes of {may}")
    for way in ("--simplify", "--fuse=ort", "--fuse --opset 23"):
        p = subprocess.run([o.linnet, "convert", path, "-o", again, *way.split(), "--quiet"], capture_output=True, text=True)
        if p.returncode:
            wrong.append(f"{way}: {p.stderr.strip()}")
            continue
        if way != "--fuse=ort": # whose operators have no heads of fewer keys, nor heads among the batches
            wrong += [f"after {way}: {line}" for line in misses(o, s, again)]
        try:
            if not near(wanted, run(again, s.feeds)):
                wrong.append(f"{way}: computes something else")
        except Exception as e:
            wrong.append(f"{way}: {str(e)[:200]}")
    if not o.keep or not wrong:
        os.remove(path)
    return s, wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument("linnet")
    p.add_argument("work")
    p.add_argument("--count", type=int, default=300)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", type=int)
    p.add_argument("--keep", action="store_true")
    o = p.parse_args()
    os.makedirs(o.work, exist_ok=True)
    bad = 0
    for seed in [o.only] if o.only is not None else range(o.seed, o.seed + o.count):
        s, wrong = examine(o, seed)
        bad += bool(wrong)
        for line in wrong:
            print(f"{seed}: opset {s.opset}: {line}\n    {s.drawn}", flush=True)
    n = 1 if o.only is not None else o.count
    print(f"{n} drawn, {n - bad} recognised with all properties and exact")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
