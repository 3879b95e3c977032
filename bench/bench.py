"""linnet beside ONNX Runtime, measured in the same run: prints tables of ratios and writes them with the raw numbers.

bench.py LINNET LIBRARY WORK CORPUS [--models FOLDER] [--only load,latency,attention,linear] [--threads 1,2] [--lengths 1,1024]
	[--full] [--page PAGE]

Each engine runs in a process of its own; they take turns, several rounds each, and a ratio is ONNX Runtime's time over linnet's in the same
round: above 1 linnet is faster. What is given is the median over the rounds and, behind it, the least and the largest. Everything
is measured here; nothing is kept from another run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
from onnx import TensorProto, helper

from common import GIB, PATIENCE, Failed, Worker, duel, note, same_results, save_feed, seconds, size, spread, table
from linear import bench_linear
from page import section

# ---- Models and inputs ----


def recorded(folder, data):
    """Inputs of a model's recorded data set."""
    model = onnx.load(os.path.join(folder, "model.onnx"), load_external_data=False)
    have = {i.name for i in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in have]
    arrays = {}
    for i, name in enumerate(names):
        t = TensorProto()
        with open(os.path.join(folder, data, f"input_{i}.pb"), "rb") as f:
            t.ParseFromString(f.read())
        arrays[name] = onnx.numpy_helper.to_array(t)
    return arrays


def big_model(path):
    """64 products with weights of 16 MiB: 1 GiB."""
    n, layers = 2048, 64
    rng = np.random.default_rng(1)
    nodes, weights = [], []
    for i in range(layers):
        w = (rng.standard_normal((n, n), dtype=np.float32) / n**0.5).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(w, f"w{i}"))
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]))
    x, y = (helper.make_tensor_value_info(s, TensorProto.FLOAT, ["rows", n]) for s in ("x0", f"x{layers}"))
    graph = helper.make_graph(nodes, "big", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return {"x0": np.ones((1, n), np.float32)}


HEADS, WIDTH = 4, 64


def attention_model(path):
    """Causal softmax attention over [1, H, T, D] as exporters spell it."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    attention (float[B,{HEADS},T,{WIDTH}] q, float[B,{HEADS},T,{WIDTH}] k, float[B,{HEADS},T,{WIDTH}] v) => (float[B,{HEADS},T,{WIDTH}] y) {{
        kt = Transpose <perm = [0, 1, 3, 2]> (k)
        raw = MatMul (q, kt)
        scale = Constant <value_float = {WIDTH ** -0.5}> ()
        scores = Mul (raw, scale)
        t = Shape <start = 2, end = 3> (q)
        tt = Concat <axis = 0> (t, t)
        one = Constant <value = bool[1] {{1}}> ()
        square = Expand (one, tt)
        numbers = Cast <to = 1> (square)
        lower = Trilu <upper = 0> (numbers)
        seen = Cast <to = 9> (lower)
        low = Constant <value_float = -inf> ()
        masked = Where (seen, scores, low)
        p = Softmax <axis = -1> (masked)
        y = MatMul (p, v)
    }}"""
    text = text.replace("-inf", "-3.4028234e38")
    onnx.save(onnx.parser.parse_model(text), path)


def fused_model(path):
    """The same in ONNX Runtime's own words, its fastest: MultiHeadAttention over [1, T, H D]."""
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=HEADS, unidirectional=1)
    ios = [helper.make_tensor_value_info(s, TensorProto.FLOAT, ["B", "T", HEADS * WIDTH]) for s in "qkvy"]
    graph = helper.make_graph([node], "attention", ios[:3], ios[3:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


# ---- Measurements ----


def bench_load(b):
    path = os.path.join(b.work, "big.onnx")
    note("making a model of 1 GiB")
    files = save_feed(os.path.join(b.work, "big"), big_model(path))
    rows = []
    got = {"linnet": [], "onnxruntime": []}
    for _ in range(3):
        for engine, list_ in got.items():
            with b.worker(engine) as w:
                load = w.ask("load", path=path, threads=1)
                w.ask("feed", files=files)
                start = time.perf_counter()
                run = w.ask("time", runs=1)
                list_.append({"load": load["seconds"], "first": load["seconds"] + time.perf_counter() - start, "load memory": load["resident"],
                              "first memory": run["resident"]})
    for what, key, show in (("load", "load", seconds), ("load and first run, 1 row", "first", seconds), ("memory after loading", "load memory", size),
                            ("memory after the first run", "first memory", size)):
        l, o = ([g[key] for g in got[e]] for e in ("linnet", "onnxruntime"))
        rows.append([what, show(statistics.median(l)), show(statistics.median(o)), spread([y / max(x, 1e-9) for x, y in zip(l, o)])])
        b.raw(f"load: {what}", l, o)
    os.remove(path)
    b.table("Loading a model of 1 GiB (64 MatMul with 16 MiB of float weights), one thread", ["what", "linnet", "ONNX Runtime", "ratio"], rows)


def latency_cases(b):
    lm = os.path.join(b.corpus, "lm")
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 2048, (1, 512))
    cases = [("language model, prefill of 512", os.path.join(lm, "softmax.onnx"), {"input_ids": ids})]
    past = {f"past_{s}_{i}": rng.standard_normal((1, 4, 512, 32), dtype=np.float32) for i in range(5) for s in ("key", "value")}
    cases.append(("language model, one step, past 512", os.path.join(lm, "softmax_kv.onnx"), {"input_ids": ids[:, :1], **past}))
    folders = [os.path.join(b.models, d) for d in os.listdir(b.models) if os.path.exists(os.path.join(b.models, d, "model.onnx"))]
    for d in sorted(folders, key=lambda d: -os.path.getsize(os.path.join(d, "model.onnx")))[:5]:
        data = sorted(s for s in os.listdir(d) if s.startswith("test_data_set_"))[-1]
        cases.append((os.path.basename(d), os.path.join(d, "model.onnx"), recorded(d, data)))
    return cases


def bench_latency(b):
    rows = []
    for name, path, feed in latency_cases(b):
        files = save_feed(os.path.join(b.work, "feed"), feed)
        for threads in b.threads:
            note(f"{name}, {threads} threads")
            try:
                with b.worker("linnet") as l, b.worker("onnxruntime") as o:
                    for w in (l, o):
                        w.ask("load", path=path, threads=threads)
                        w.ask("feed", files=files)
                    rounds = duel(l, o)
                    differ = same_results(l, o, b.work)
            except Failed as e:
                rows.append([name, threads, str(e), "", "", ""])
                continue
            x, y = ([r[i] for r in rounds] for i in (0, 1))
            rows.append([name, threads, seconds(statistics.median(x)), seconds(statistics.median(y)), spread([j / i for i, j in rounds]), f"{differ:.0e}"])
            b.raw(f"latency: {name}, {threads} threads", x, y)
    b.table("Latency", ["model", "threads", "linnet", "ONNX Runtime", "ratio", "results differ by"], rows)


def available():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))


def one_length(b, engine, path, shape, last, threads, bytes_needed=0):
    """Seconds a run at a length; last: (length, seconds) measured before, to foresee how long it takes."""
    T = shape[-2] if len(shape) == 4 else shape[1]
    if last and last[1] * (T / last[0]) ** 2 > PATIENCE:
        raise Failed("over a minute")
    if bytes_needed > 0.8 * available():
        raise Failed("no memory")
    rng = np.random.default_rng(1)
    files = save_feed(os.path.join(b.work, "qkv"), {s: rng.standard_normal(shape, dtype=np.float32) for s in "qkv"})
    with b.worker(engine) as w:
        w.ask("load", path=path, threads=threads)
        w.ask("feed", files=files)
        first = w.ask("time", runs=1)
        runs = 3 if first["seconds"][0] < 5 else 1
        answer = w.ask("time", runs=runs)
        return statistics.median(answer["seconds"]), answer["peak"]


CHUNK = 512


def chunked(b, path, T, threads):
    """Seconds for T tokens in chunks with the state kept between them, and the peak of activations."""
    rng = np.random.default_rng(1)
    files = save_feed(os.path.join(b.work, "qkv"), {s: rng.standard_normal((1, HEADS, CHUNK, WIDTH), dtype=np.float32) for s in "qkv"})
    with b.worker("linnet") as w:
        w.ask("load", path=path, threads=threads, states=True)
        w.ask("feed", files=files)
        w.ask("time", runs=1)
        answer = w.ask("time", runs=T // CHUNK)
        return sum(answer["seconds"]), answer["peak"]


def bench_attention(b):
    softmax, fused = (os.path.join(b.work, f"{s}.onnx") for s in ("softmax", "fused"))
    attention_model(softmax)
    fused_model(fused)
    forms = {}
    for target in ("onnx", "portable", "step"):
        forms[target] = os.path.join(b.work, f"linear-{target}.onnx")
        subprocess.run([b.linnet, "convert", "--quiet", softmax, "-o", forms[target], "--mechanism", "elu", "--target", target], check=True,
                       stdout=subprocess.DEVNULL)
    columns = [("ONNX Runtime softmax", "onnxruntime", softmax, 4), ("ONNX Runtime fused softmax", "onnxruntime", fused, 3),
               ("linnet softmax", "linnet", softmax, 4), ("linnet linear", "linnet", forms["onnx"], 4),
               ("linnet portable", "linnet", forms["portable"], 4), ("ONNX Runtime portable", "onnxruntime", forms["portable"], 4)]
    threads, rows, last = max(b.threads), [], {}
    for T in (1024, 2048, 4096, 8192, 16384, 32768, 65536):
        note(f"attention at {T} tokens")
        row, got = [T], {}
        for name, engine, path, rank in columns:
            shape = (1, HEADS, T, WIDTH) if rank == 4 else (1, T, HEADS * WIDTH)
            needed = 12 * HEADS * T * T if path == softmax and engine == "onnxruntime" else 0
            try:
                t, _ = one_length(b, engine, path, shape, last.get(name), threads, needed)
                last[name] = (T, t)
                got[name] = t
                row.append(seconds(t))
            except Failed as e:
                row.append(str(e))
        t, peak = chunked(b, forms["step"], T, threads)
        row += [seconds(t), size(peak)]
        for peer in ("ONNX Runtime softmax", "ONNX Runtime fused softmax"):
            row.append(f"{got[peer] / got['linnet linear']:.1f}" if peer in got else "-")
        b.raw(f"attention at {T}", {**got, "chunks": t, "chunks peak": peak}, None)
        rows.append(row)
    b.table(f"One causal attention, {HEADS} heads of {WIDTH}, float, {threads} threads; linear: elu + 1; chunks of {CHUNK} with a state",
            ["tokens"] + [c[0] for c in columns] + ["linnet in chunks", "their peak memory", "ratio softmax / linear", "ratio fused / linear"], rows)


PARTS = {"load": bench_load, "latency": bench_latency, "attention": bench_attention, "linear": bench_linear}


class Bench:
    def __init__(self):
        p = argparse.ArgumentParser()
        for a in ("linnet", "library", "work", "corpus"):
            p.add_argument(a)
        p.add_argument("--models", help="folder of models with recorded data; the five largest are run")
        p.add_argument("--only", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
        p.add_argument("--threads", default="1,2")
        p.add_argument("--lengths", help="of the part linear, instead of all")
        p.add_argument("--full", action="store_true", help="the part linear at all lengths and widths, longer and oftener: half an hour instead of minutes")
        p.add_argument("--page", help="takes the tables of the part linear")
        o = p.parse_args()
        for part in o.only.split(","):
            if part not in PARTS:
                p.error(f"there is no part {part}; there are {', '.join(PARTS)}")
        self.linnet, self.library, self.work, self.corpus = o.linnet, o.library, o.work, o.corpus
        self.models = o.models or os.path.join(o.corpus, "models")
        self.only, self.threads = o.only.split(","), [int(t) for t in o.threads.split(",")]
        self.lengths = [int(t) for t in o.lengths.split(",")] if o.lengths else None
        self.full, self.page, self.text, self.numbers = o.full, o.page, [], {}
        os.makedirs(self.work, exist_ok=True)

    def worker(self, engine):
        return Worker(engine, self.library)

    def table(self, *args):
        self.text.append(table(*args))

    def raw(self, name, linnet, ort):
        self.numbers[name] = {"linnet": linnet, "onnxruntime": ort}

    def main(self):
        with open("/proc/cpuinfo") as f:
            cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())
        version = subprocess.run([self.linnet, "--version"], capture_output=True, text=True).stdout.strip()
        head = f"{version}, ONNX Runtime {onnxruntime.__version__}; {cpu}, {os.cpu_count()} processors; load average {os.getloadavg()[0]:.1f} at the start.\n"
        head += "Ratios are ONNX Runtime's over linnet's: above 1 linnet is faster or smaller.\n"
        print(head)
        self.text.append(head)
        for part in self.only:
            begin = len(self.text)
            PARTS[part](self)
            if part == "linear" and self.page:
                section(self.page, "bench-linear", "\n".join([head] + self.text[begin:]).replace("## ", "### "))
        with open(os.path.join(self.work, "bench.md"), "w") as f:
            f.write("\n".join(self.text))
        with open(os.path.join(self.work, "bench.json"), "w") as f:
            json.dump(self.numbers, f, indent=1)
        note(f"written: {self.work}/bench.md, {self.work}/bench.json")


Bench().main()
