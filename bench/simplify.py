"""linnet's exact rewrites of graphs made on the spot, beside onnxsim (PyPI): seconds, memory, nodes left, ratios, and how time and memory grow with nodes.

simplify.py LINNET WORK [--nodes 10000,30000,100000] [--rounds 3] [--page PAGE]: medians over rounds in turn, from file to file, each in a process of its own
(onnxsim's without the time that Python takes to import it; given up, in all larger graphs too, after a minute). Reading is `linnet check`: the file, its
nodes, its types; the others read and write besides. Passes / reading: processor time of the passes alone over that of reading, in one process (bench/rewrite.c). Graphs: decoder blocks with attention, normalisations and gated units, whose weights are shared; a chain with
shapes computed from lengths; nodes beside each other, a seventh of them different; a chain of functions with nothing to simplify; an unrolled recurrence.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from page import section

PATIENCE = 60
WAYS = ("--simplify", "--fuse", "--fuse=ort", "--expand")
PEER = """
import sys, time, onnx, onnxsim
start = time.perf_counter()
model, ok = onnxsim.simplify(onnx.load(sys.argv[1]))
onnx.save(model, sys.argv[2])
print(time.perf_counter() - start if ok else "fails")
"""


class Graph:
    """Nodes and constants; the result of the last node is y."""

    def __init__(self, shape):
        self.nodes, self.weights, self.shape = [], {}, shape

    def const(self, name, value):
        self.weights.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op, *inputs, **attributes):
        n = len(self.nodes)
        self.nodes.append(helper.make_node(op, inputs, [f"v{n}"], name=f"n{n}", **attributes))
        return f"v{n}"

    def save(self, x, path):
        self.nodes.append(helper.make_node("Neg", [x], ["y"]))
        ends = [helper.make_tensor_value_info(v, TensorProto.FLOAT, self.shape) for v in "xy"]
        graph = helper.make_graph(self.nodes, "made", ends[:1], ends[1:], list(self.weights.values()))
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def blocks(n, path):
    g, rng, x = Graph(["N", "T", 64]), np.random.default_rng(0), "x"

    def weight(name, *shape):
        return g.const(name, rng.normal(0, 0.1, shape).astype(np.float32))

    def norm(x):
        d = g.add("Sub", x, g.add("ReduceMean", x, axes=[-1]))
        v = g.add("ReduceMean", g.add("Pow", d, g.const("two", np.float32(2))), axes=[-1])
        d = g.add("Div", d, g.add("Sqrt", g.add("Add", v, g.const("epsilon", np.float32(1e-5)))))
        return g.add("Add", g.add("Mul", d, weight("scale", 64)), weight("shift", 64))

    def linear(x, name, rows, columns):
        return g.add("Add", g.add("MatMul", x, weight(name, rows, columns)), weight("bias_" + name, columns))

    while len(g.nodes) < n - 55:
        h = norm(x)
        q, k, v = (g.add("Transpose", g.add("Reshape", linear(h, m, 64, 64), g.const("heads", [0, 0, 4, 16])), perm=[0, 2, 1, 3]) for m in "qkv")
        length = g.add("Gather", g.add("Shape", h), g.const("axis", np.int64(1)))
        places = g.add("Range", g.const("zero", np.int64(0)), length, g.const("one", np.int64(1)))
        hidden = g.add("Greater", g.add("Unsqueeze", places, g.const("first", [0])), g.add("Unsqueeze", places, g.const("second", [1])))
        mask = g.add("Where", hidden, g.const("never", np.float32(-1e30)), g.const("nothing", np.float32(0)))
        scores = g.add("Mul", g.add("MatMul", q, g.add("Transpose", k, perm=[0, 1, 3, 2])), g.const("quarter", np.float32(0.25)))
        o = g.add("MatMul", g.add("Softmax", g.add("Add", scores, mask), axis=-1), v)
        o = g.add("Reshape", g.add("Transpose", o, perm=[0, 2, 1, 3]), g.const("joined", [0, 0, 64]))
        x = g.add("Add", x, linear(o, "o", 64, 64))
        h = norm(x)
        gate = linear(h, "gate", 64, 96)
        x = g.add("Add", x, linear(g.add("Mul", g.add("Mul", gate, g.add("Sigmoid", gate)), linear(h, "up", 64, 96)), "down", 96, 64))
    g.save(x, path)


def chain(n, path):
    g, x = Graph(["N", 4]), "x"
    while len(g.nodes) < n - 1:
        w = g.const(f"w{len(g.nodes)}", np.arange(4, dtype=np.float32) + len(g.nodes))
        x = g.add("Identity", g.add("Mul", g.add("Add", x, w), g.const("one", np.float32(1))))
        length = g.add("Unsqueeze", g.add("Gather", g.add("Shape", x), g.const("zero", np.int64(0))), g.const("axis", [0]))
        x = g.add("Mul", g.add("Reshape", x, g.add("Concat", length, g.const("four", [4]), axis=0)), w)
    g.save(x, path)


def beside(n, path):
    g, x = Graph(["N", 64]), "x"
    while len(g.nodes) < n - 1:
        x = g.add("Add", x, g.add("Sum", *(g.add("Add", "x", g.const(f"w{i}", np.full(64, i % 7, np.float32))) for i in range(98))))
    g.save(x, path)


def deep(n, path):
    g, x = Graph(["N", 64]), "x"
    while len(g.nodes) < n - 1:
        x = g.add(("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Softplus")[len(g.nodes) % 7], x)
    g.save(x, path)


def recurrence(n, path):
    g, h = Graph(["N", 64]), "x"
    while len(g.nodes) < n - 1:
        w = g.const(f"w{len(g.nodes) % 50}", np.random.default_rng(len(g.nodes) % 50).normal(size=64).astype(np.float32))
        h = g.add("Add", g.add("Mul", h, g.const("keep", np.float32(0.9))), g.add("Mul", "x", w))
    g.save(h, path)


LAUNCH = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print("\\n" + json.dumps([status, time.perf_counter() - start, usage.ru_maxrss / 1024]))
"""


def measured(*command):
    """Seconds and MiB of a process of its own, and what it printed; None: it was given up. A small process starts it: the peak of who starts one counts as its own."""
    p = subprocess.run([sys.executable, "-S", "-c", LAUNCH, *command], stdout=subprocess.PIPE, text=True)
    *said, last = p.stdout.splitlines() or ["[1]"]
    status, *figures = json.loads(last)
    if command[0] == "timeout" and status == 124 << 8:
        return None
    if status:
        sys.exit(f"{command[0]}: status {status}")
    return *figures, " ".join(said).strip()


def shares(o, source):
    """What the passes of --simplify and of --fuse take over what reading takes."""
    said = subprocess.run([os.path.join(os.path.dirname(o.linnet), "bench", "rewrite"), str(2 * o.rounds + 1), source], stdout=subprocess.PIPE, text=True, check=True)
    parts = json.loads(said.stdout)
    return " | ".join(f"{parts[w] / parts['reading']:.2f}" for w in ("simplify", "fuse"))


def exponent(nodes, values):
    return f"{np.polyfit(np.log(nodes), np.log(values), 1)[0]:.2f}" if len(nodes) > 1 else ""


def bench(o):
    yield "| graph | nodes | reading | " + " | ".join(f"`{w}`" for w in WAYS) + " | passes of `--simplify` / reading | of `--fuse` | MiB | onnxsim | MiB | nodes left | by onnxsim | onnxsim / `--simplify` |"
    yield "| --- |" + " ---: |" * (len(WAYS) + 10)
    for make in (blocks, chain, beside, deep, recurrence):
        medians, memory, patient = {w: [] for w in ("reading", *WAYS)}, [], True
        for n in o.nodes:
            source, mine, theirs = (os.path.join(o.work, f) for f in ("made.onnx", "linnet.onnx", "onnxsim.onnx"))
            make(n, source)
            taken, peer, left = {w: [] for w in medians}, [], []
            measured(o.linnet, "check", source, "--quiet") # the file comes into memory
            for _ in range(o.rounds):
                taken["reading"].append(measured(o.linnet, "check", source, "--quiet")[0])
                for w in reversed(WAYS):
                    seconds, mib, _ = measured(o.linnet, "convert", source, "-o", mine, w, "--quiet")
                    taken[w].append(seconds)
                if patient:
                    made = measured("timeout", str(PATIENCE), sys.executable, "-c", PEER, source, theirs)
                    patient = made is not None
                    peer += [(float(made[2].split()[-1]), made[1])] if made else []
            for w, t in taken.items():
                medians[w].append(statistics.median(t))
            memory.append(mib)
            left = [len(onnx.load(f).graph.node) for f in ([mine, theirs] if peer else [mine])]
            a, b = medians["--simplify"][-1], statistics.median(t for t, _ in peer) if peer else math.nan
            yield (f"| {make.__name__} | {n} | " + " | ".join(f"{m[-1]:.2f} s" for m in medians.values()) + f" | {shares(o, source)} | {mib:.0f} | " +
                   (f"{b:.2f} s | {peer[-1][1]:.0f} | {left[0]} | {left[1]} | {b / a:.1f} |" if peer else f"- | - | {left[0]} | - | - |"))
        yield (f"| {make.__name__} | grows as n to the | " + " | ".join(exponent(o.nodes, m) for m in medians.values()) +
               f" | | | {exponent(o.nodes, memory)} | | | | | |")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("linnet")
    p.add_argument("work")
    p.add_argument("--nodes", default="10000,30000,100000", type=lambda s: [int(x) for x in s.split(",")])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--page")
    o = p.parse_args()
    os.makedirs(o.work, exist_ok=True)
    lines = []
    for line in bench(o):
        print(line, flush=True)
        lines.append(line)
    if o.page:
        section(o.page, "bench-simplify", "\n".join(lines))


if __name__ == "__main__":
    main()
