"""LinearAttention beside ONNX Runtime's, and both beside softmax attention, over lengths from one token to 65,536.

Every rule is one model of com.microsoft's operator, which both engines run; they take turns. Short lengths go through several layers, each
with a state of its own in and out, so that what a run costs besides is spread over them. A time is the least, which other programs disturb least;
a ratio is of two of them in one round, the median over the rounds. With one thread it is the processor's time, so that they hold on a busy machine.
"""

import math
import os
import statistics

import numpy as np
import onnx
from onnx import TensorProto, helper

from common import note, same_results, save_feed, seconds, size

HEADS = 8
WIDTHS = (64, 128)
LENGTHS = (1, 16, 64, 256, 1024, 4096, 16384, 65536)
LONG = 1024  # from here on exponents are fitted
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


def inputs(work, width, T):
    """Files of what all rules read: unit keys, decays of 0.8 to 1 a token, states of the size of the values; and their shapes."""
    rng = np.random.default_rng(1)
    feed = {s: rng.standard_normal((1, T, HEADS, width), dtype=np.float32) for s in "qkv"}
    feed["k"] /= np.linalg.norm(feed["k"], axis=-1, keepdims=True)
    feed = {s: a.reshape(1, T, HEADS * width) for s, a in feed.items()}
    feed["head"] = -0.2 * rng.random((1, T, HEADS), dtype=np.float32)
    feed["channel"] = -0.2 * rng.random((1, T, HEADS * width), dtype=np.float32)
    feed["b"] = rng.random((1, T, HEADS), dtype=np.float32)
    for i in range(layers_at(T)):
        feed[f"past_{i}"] = rng.standard_normal((1, HEADS, width, width), dtype=np.float32)
    return save_feed(os.path.join(work, "inputs"), feed), {s: a.shape for s, a in feed.items()}


def rule_model(work, name, shapes):
    """The model of a rule and the names of its inputs."""
    rule, decays, _ = RULES[name]
    used, nodes, outputs, layers = ["q", "k", "v"], [], [], sum(s.startswith("past_") for s in shapes)
    used += [decays] if decays else []
    used += ["b"] if "delta" in rule else []
    for i in range(layers):
        used.append(f"past_{i}")
        outputs.append((f"present_{i}", shapes["past_0"]))
        names = ["q" if i == 0 else f"y{i - 1}", "k", "v", f"past_{i}", decays or "", "b" if "delta" in rule else ""]
        while not names[-1]:
            names.pop()
        nodes.append(helper.make_node("LinearAttention", names, [f"y{i}", f"present_{i}"], domain="com.microsoft", q_num_heads=HEADS,
                                      kv_num_heads=HEADS, update_rule=rule))
    path = os.path.join(work, "rule.onnx")
    return model(path, nodes, [(s, shapes[s]) for s in used], [(f"y{layers - 1}", shapes["q"])] + outputs), used


def softmax_model(work, width):
    """Causal softmax attention, in words that have a fused kernel in both engines."""
    shape = ["B", "T", HEADS * width]
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=HEADS, unidirectional=1)
    return model(os.path.join(work, "softmax.onnx"), [node], [(s, shape) for s in "qkv"], [("y", shape)])


def run(worker, runs, threads):
    return worker.ask("time", runs=runs, processor=threads == 1)


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
                fastest = min([fastest] + run(w, 10, threads)["seconds"])
        best.append(work / fastest)
    return best


# ---- Measuring ----

ENGINES = ("linnet", "onnxruntime")


def prepare(worker, path, threads, files):
    """The model and its inputs are there; bytes resident then, from where the peak counts."""
    worker.ask("load", path=path, threads=threads)
    worker.ask("feed", files=files)
    return worker.ask("settle")["resident"]


def take_turns(b, workers, before, threads):
    """Rounds of least seconds a run, and by how many bytes each process grew."""
    first = [run(w, 1, threads) for w in workers]
    grown = [a["resident"] - x for a, x in zip(first, before)]
    once = [min(run(w, 1 if a["seconds"][0] > 0.1 else 3, threads)["seconds"]) for w, a in zip(workers, first)]
    turn = 0.2 if b.full else 0.06
    runs = [max(1, min(200, int(turn / max(t, 1e-6)))) for t in once]
    count = 7 if sum(once) < turn else 5 if sum(once) < 10 * turn else 3
    return [[min(run(w, n, threads)["seconds"]) for w, n in zip(workers, runs)] for _ in range(count)], grown


class Cell:
    """One rule, length, width and number of threads; times and bytes are a layer's."""

    def __init__(self, name, width, T, rounds, grown, differ):
        layers = layers_at(T)
        self.seconds = [min(r[i] for r in rounds) / layers for i in range(2)]
        self.memory = [g / layers for g in grown]
        self.ratio = statistics.median(y / x for x, y in rounds)
        self.differ = differ
        self.flops = RULES[name][2] * HEADS * width * width * T
        self.moved = 4 * (2 * HEADS * width * width + 4 * T * HEADS * width)


def measure_rules(b, workers, width, T, threads, files, shapes, cells):
    for name in RULES:
        note(f"{name}, {width} wide, {T} tokens, {threads} threads")
        path, used = rule_model(b.work, name, shapes)
        before = [prepare(w, path, threads, {s: files[s] for s in used}) for w in workers]
        rounds, grown = take_turns(b, workers, before, threads)
        cells[name, width, T, threads] = Cell(name, width, T, rounds, grown, same_results(*workers, b.work))
        b.raw(f"{name}, {HEADS} heads of {width}, {T} tokens, {threads} threads", *([r[i] for r in rounds] for i in range(2)))


def measure_softmax(b, workers, width, T, threads, files, softmax):
    """Seconds of each engine; none where the length before says that a run takes too long."""
    path = softmax_model(b.work, width)
    for engine, w in zip(ENGINES, workers):
        last = softmax.get((engine, width, T // 4, threads))
        if T < 256 or (T > 256 and b.lengths is None and (not last or 16 * last > (20 if b.full else 2))):
            continue
        note(f"softmax, {engine}, {width} wide, {T} tokens, {threads} threads")
        prepare(w, path, threads, {s: files[s] for s in "qkv"})
        first = run(w, 1, threads)["seconds"]
        softmax[engine, width, T, threads] = min(first + (run(w, 4, threads)["seconds"] if first[0] < 1 else []))


# ---- Tables ----


def exponent(points):
    """The slope of log y over log x, by least squares."""
    points = [p for p in points if p[0] >= LONG and p[1] > 0]
    x, y = (np.log([p[i] for p in points]) for i in (0, 1))
    return f"{np.polyfit(x, y, 1)[0]:.2f}" if len(points) > 1 else "-"


def percent(part):
    return f"{100 * part:.0f} %"


def tables(b, width, threads, lengths, cells, softmax, peak, bandwidth):
    where, head = f"{HEADS} heads of {width}, {threads} thread{'s'[:threads > 1]}", ["rule"] + [f"{T:,}" for T in lengths]

    def rows(text, ends=lambda row: []):
        table = []
        for name in RULES:
            row = [cells[name, width, T, threads] for T in lengths]
            table.append([name] + [text(c) for c in row] + ends(row))
        return table

    def summary(row):
        return [f"{max(c.differ for c in row):.0e}"] + [exponent([(T, what(c)) for T, c in zip(lengths, row)])
                for what in (lambda c: c.seconds[0], lambda c: c.seconds[1], lambda c: c.memory[0])]

    b.table(f"ONNX Runtime's time over linnet's, by tokens: {where}", head + ["results differ by", "time as T^", "ONNX Runtime's", "memory as T^"],
            rows(lambda c: f"{c.ratio:.1f}", summary))
    b.table(f"linnet's time; of {peak / 1e9:.0f} GFlop/s of a product; of {bandwidth / 1e9:.1f} GB/s of memory: {where}", head,
            rows(lambda c: f"{seconds(c.seconds[0])}; {percent(c.flops / c.seconds[0] / peak)}; {percent(c.moved / c.seconds[0] / bandwidth)}"))
    b.table(f"Memory that a run takes at its peak, linnet's and ONNX Runtime's: {where}", head,
            rows(lambda c: " and ".join(size(max(0, int(m))) for m in c.memory)))
    got = [T for T in lengths if any((e, width, T, threads) in softmax for e in ENGINES)]
    table = []
    for engine, name in zip(ENGINES, ("linnet softmax", "ONNX Runtime softmax")):
        times = [softmax.get((engine, width, T, threads)) for T in got]
        table.append([name] + [seconds(t) if t else "-" for t in times])
        for rule in RULES:
            table.append([f"... over linnet's {rule}"] + [f"{t / cells[rule, width, T, threads].seconds[0]:.1f}" if t else "-" for T, t in zip(got, times)])
    if got:
        b.table(f"Causal softmax attention: {where}", ["tokens"] + [f"{T:,}" for T in got], table)


def bench_linear(b):
    cells, softmax, machines = {}, {}, {t: [machine(b, t)] for t in b.threads}
    lengths = {w: [T for T in b.lengths or LENGTHS if b.full or b.lengths or T not in (64, 65536) or (T, w) == (65536, 64)] for w in WIDTHS}
    for width in WIDTHS:
        for T in lengths[width]:
            files, shapes = inputs(b.work, width, T)
            for threads in b.threads:
                with b.worker(ENGINES[0]) as l, b.worker(ENGINES[1]) as o:
                    measure_rules(b, (l, o), width, T, threads, files, shapes, cells)
                    measure_softmax(b, (l, o), width, T, threads, files, softmax)
        for threads in b.threads:
            machines[threads].append(machine(b, threads))
    for threads in b.threads:
        peak, bandwidth = (max(m[i] for m in machines[threads]) for i in (0, 1))
        for width in WIDTHS:
            tables(b, width, threads, lengths[width], cells, softmax, peak, bandwidth)
