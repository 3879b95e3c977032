"""linnet convert --simplify beside onnxsim (PyPI), on graphs made on the spot: seconds, memory, nodes left, and the ratio.

simplify.py LINNET WORK [NODES...]: medians over five rounds in turn, from file to file, each in a process of its own (onnxsim's without the time
that Python takes to import it). The graph is a chain of Add, Mul by one, Identity and Reshape whose shape is computed from the length.
"""

import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROUNDS = 5
PEER = """
import sys, time, onnx, onnxsim
start = time.perf_counter()
model, ok = onnxsim.simplify(onnx.load(sys.argv[1]))
onnx.save(model, sys.argv[2])
print(time.perf_counter() - start if ok else "fails")
"""


def chain(n, path):
    nodes, weights = [], [numpy_helper.from_array(np.float32(1), "one"), numpy_helper.from_array(np.int64(0), "zero"),
                          numpy_helper.from_array(np.array([0]), "axis"), numpy_helper.from_array(np.array([4]), "four")]

    def add(op, *inputs, **attributes):
        nodes.append(helper.make_node(op, inputs, [f"v{len(nodes)}"], name=f"n{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    x = "x"
    while len(nodes) < n - 1:
        w = f"w{len(weights)}"
        weights.append(numpy_helper.from_array(np.arange(4, dtype=np.float32) + len(weights), w))
        x = add("Identity", add("Mul", add("Add", x, w), "one"))
        length = add("Unsqueeze", add("Gather", add("Shape", x), "zero"), "axis")
        x = add("Mul", add("Reshape", x, add("Concat", length, "four", axis=0)), w)
    nodes.append(helper.make_node("Neg", [x], ["y"]))
    ends = [helper.make_tensor_value_info(v, TensorProto.FLOAT, ["N", 4]) for v in "xy"]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def main():
    linnet, work = sys.argv[1:3]
    print("| nodes | left by linnet | by onnxsim | linnet | onnxsim | linnet is faster by |\n| ---: | ---: | ---: | ---: | ---: | ---: |")
    for n in map(int, sys.argv[3:] or ["10000", "100000"]):
        source, mine, theirs = (os.path.join(work, f) for f in ("chain.onnx", "linnet.onnx", "onnxsim.onnx"))
        chain(n, source)
        times = {"linnet": [], "onnxsim": []}
        for _ in range(ROUNDS):
            start = time.perf_counter()
            subprocess.run([linnet, "convert", source, "-o", mine, "--simplify", "--quiet"], check=True)
            times["linnet"].append(time.perf_counter() - start)
            said = subprocess.run([sys.executable, "-c", PEER, source, theirs], capture_output=True, text=True)
            if said.returncode:
                sys.exit("onnxsim: " + said.stderr.strip().split("\n")[-1])
            times["onnxsim"].append(float(said.stdout.split()[-1]))
        a, b = (statistics.median(t) for t in times.values())
        left = [len(onnx.load(f).graph.node) for f in (mine, theirs)]
        print(f"| {n} | {left[0]} | {left[1]} | {a:.3f} s | {b:.3f} s | {b / a:.1f} |", flush=True)
    print(f"\nlinnet's largest process took {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024} MiB or less.")


main()
