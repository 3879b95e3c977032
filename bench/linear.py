"""LinearAttention beside ONNX Runtime's, and both beside softmax attention, over lengths from one token to 65,536.

Every rule is one model of com.microsoft's operator, which both engines run; they take turns. Short lengths go through several layers, each
with a state of its own in and out, so that what a run costs besides is spread over them.
"""

import math
import os
import statistics

import numpy as np
import onnx
from onnx import TensorProto, helper

from common import PATIENCE, Failed, duel, note, same_results, save_feed, seconds, size, spread

HEADS = 8
WIDTHS = (64, 128)
LENGTHS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
RULES = {  # update rule, decays a head (None: none), products of the recurrence in floating-point operations, over dk dv and token
    "linear": ("linear", None, 4),
    "gated, by head": ("gated", "head", 4),
    "gated, by channel": ("gated", "channel", 4),
    "delta": ("delta", None, 6),
    "gated delta, by head": ("gated_delta", "head", 6),
    "gated delta, by channel": ("gated_delta", "channel", 6),
}
COPY = 1 << 24  # numbers of the sum that tells the memory's bandwidth
SQUARE = 1024   # side of the product that tells the processor's peak


def layers_at(T):
    return 64 if T == 1 else 8 if T <= 64 else 1


def model(path, nodes, inputs, outputs):
    def value(x):
        return helper.make_tensor_value_info(x[0], TensorProto.FLOAT, list(x[1]))

    graph = helper.make_graph(nodes, "g", [value(x) for x in inputs], [value(x) for x in outputs])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def rule_case(work, name, width, T):
    """The model of a rule and its inputs: unit keys, decays of 0.8 to 1 a token, states of the size of the values."""
    rule, decays, _ = RULES[name]
    layers, all_ = layers_at(T), HEADS * width
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((1, T, HEADS, width), dtype=np.float32) for _ in range(3))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    feed = {"q": q, "k": k, "v": v}
    feed = {s: a.reshape(1, T, all_) for s, a in feed.items()}
    if decays:
        feed["g"] = -0.2 * rng.random((1, T, HEADS if decays == "head" else all_), dtype=np.float32)
    if "delta" in rule:
        feed["b"] = rng.random((1, T, HEADS), dtype=np.float32)
    nodes, states = [], []
    for i in range(layers):
        feed[f"past_{i}"] = rng.standard_normal((1, HEADS, width, width), dtype=np.float32)
        states.append((f"present_{i}", feed[f"past_{i}"].shape))
        inputs = ["q" if i == 0 else f"y{i - 1}", "k", "v", f"past_{i}", "g" if decays else "", "b" if "delta" in rule else ""]
        while not inputs[-1]:
            inputs.pop()
        nodes.append(helper.make_node("LinearAttention", inputs, [f"y{i}", f"present_{i}"], domain="com.microsoft", q_num_heads=HEADS,
                                      kv_num_heads=HEADS, update_rule=rule))
    path = os.path.join(work, "rule.onnx")
    model(path, nodes, [(s, a.shape) for s, a in feed.items()], [(f"y{layers - 1}", q.reshape(1, T, all_).shape)] + states)
    return path, save_feed(os.path.join(work, "rule"), feed)


def softmax_models(work, width):
    """Causal softmax attention in each engine's fastest words."""
    shape = ["B", "T", HEADS * width]
    paths = {}
    for engine in ("linnet", "onnxruntime"):
        node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=HEADS, unidirectional=1)
        paths[engine] = model(os.path.join(work, f"softmax-{engine}.onnx"), [node], [(s, shape) for s in "qkv"], [("y", shape)])
    return paths


def machine(b, threads):
    """Floating-point operations and bytes a second: the best of both engines on one product and on one sum."""
    square, long = [SQUARE, SQUARE], [COPY]
    rng = np.random.default_rng(1)
    best = []
    for op, shape, work in (("MatMul", square, 2 * SQUARE**3), ("Add", long, 3 * 4 * COPY)):
        path = model(os.path.join(b.work, "machine.onnx"), [helper.make_node(op, ["a", "b"], ["y"])], [("a", shape), ("b", shape)], [("y", shape)])
        files = save_feed(os.path.join(b.work, "machine"), {s: rng.standard_normal(shape, dtype=np.float32) for s in "ab"})
        fastest = math.inf
        for engine in ("linnet", "onnxruntime"):
            with b.worker(engine) as w:
                w.ask("load", path=path, threads=threads)
                w.ask("feed", files=files)
                fastest = min([fastest] + w.ask("time", runs=10)["seconds"])
        best.append(work / fastest)
    return best


def growth(worker, before):
    return worker.ask("time", runs=1)["resident"] - before


def exponent(points):
    """The slope of log y over log x, by least squares."""
    x, y = (np.log([p[i] for p in points]) for i in (0, 1))
    return f"{np.polyfit(x, y, 1)[0]:.2f}" if len(points) > 1 else "-"


def rule_rows(b, name, width, threads, peak, bandwidth, times):
    rows, memory = [], []
    for T in b.lengths or LENGTHS:
        path, files = rule_case(b.work, name, width, T)
        layers = layers_at(T)
        note(f"{name}, {width} wide, {T} tokens, {threads} threads")
        with b.worker("linnet") as l, b.worker("onnxruntime") as o:
            before = []
            for w in (l, o):
                w.ask("load", path=path, threads=threads)
                before.append(w.ask("feed", files=files)["resident"])
            grown = [growth(w, x) for w, x in zip((l, o), before)]
            rounds = [(x / layers, y / layers) for x, y in duel(l, o, 0.15, 3 if T > 4096 else 5)]
            differ = same_results(l, o, b.work)
        x, y = ([r[i] for r in rounds] for i in (0, 1))
        t = statistics.median(x)
        flops = RULES[name][2] * HEADS * width * width * T / t
        moved = 4 * (2 * HEADS * width * width + 4 * T * HEADS * width) / t
        times.setdefault((name, width, threads), []).append((T, t, statistics.median(y)))
        if T >= 1024:
            memory.append((T, grown[0]))
        rows.append([T, seconds(t), seconds(statistics.median(y)), spread([j / i for i, j in rounds]), f"{100 * flops / peak:.0f} %",
                     f"{100 * moved / bandwidth:.0f} %", *(size(g / layers) for g in grown), f"{differ:.0e}"])
        b.raw(f"{name}, {HEADS} heads of {width}, {T} tokens, {threads} threads", x, y)
    fit = [p for p in times[name, width, threads] if p[0] >= 1024]
    rows.append(["exponent", exponent([p[:2] for p in fit]), exponent([(p[0], p[2]) for p in fit]), "", "", "", exponent(memory), "", ""])
    return rows


def softmax_rows(b, width, threads, times):
    paths, last, rows = softmax_models(b.work, width), {}, []
    shape = [1, 0, HEADS * width]
    for T in (t for t in b.lengths or LENGTHS if t >= 256):
        shape[1] = T
        rng = np.random.default_rng(1)
        files = save_feed(os.path.join(b.work, "softmax"), {s: rng.standard_normal(shape, dtype=np.float32) for s in "qkv"})
        row, got = [T], {}
        note(f"softmax, {width} wide, {T} tokens, {threads} threads")
        for engine, path in paths.items():
            try:
                if engine in last and last[engine][1] * (T / last[engine][0]) ** 2 > PATIENCE / 3:
                    raise Failed("over 20 s")
                with b.worker(engine) as w:
                    w.ask("load", path=path, threads=threads)
                    w.ask("feed", files=files)
                    first = w.ask("time", runs=1)["seconds"][0]
                    got[engine] = statistics.median(w.ask("time", runs=3)["seconds"]) if first < 2 else first
                last[engine] = (T, got[engine])
                row.append(seconds(got[engine]))
            except Failed as e:
                row.append(str(e))
        for name in RULES:
            linear = next(p[1] for p in times[name, width, threads] if p[0] == T)
            row.append(" and ".join(f"{got[e] / linear:.1f}" if e in got else "-" for e in paths))
        rows.append(row)
    return rows


def bench_linear(b):
    times = {}
    for threads in b.threads:
        peak, bandwidth = machine(b, threads)
        for width in WIDTHS:
            for name in RULES:
                b.table(f"{name}: {HEADS} heads of {width}, {threads} threads; the processor's peak {peak / 1e9:.0f} GFlop/s, the memory's "
                        f"{bandwidth / 1e9:.1f} GB/s", ["tokens", "linnet", "ONNX Runtime", "ratio", "of the peak", "of the bandwidth",
                                                        "memory, linnet", "memory, ONNX Runtime", "results differ by"],
                        rule_rows(b, name, width, threads, peak, bandwidth, times))
            b.table(f"Causal softmax attention beside them: {HEADS} heads of {width}, {threads} threads; its time over each rule's in linnet, "
                    "linnet's softmax and ONNX Runtime's", ["tokens", "linnet softmax", "ONNX Runtime softmax"] + list(RULES),
                    softmax_rows(b, width, threads, times))
