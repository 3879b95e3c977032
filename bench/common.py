"""What the parts of the benchmark share: workers, taking turns, tables."""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROUNDS = 5
ROUND_SECONDS = 0.4
PATIENCE = 60.0  # seconds that one run may take
REST = 0.05      # seconds: threads of an engine that has run look for more work before they sleep, in the other's way
GIB = 1 << 30


class Worker:
    def __init__(self, engine, library):
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "worker.py"), engine, library], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, do, **what):
        if do == "time":
            time.sleep(REST)
        print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise Failed("the process ended" if self.process.wait() != -9 else "no memory")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer


class Failed(Exception):
    pass


def seconds(s):
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if s * factor >= 1 or unit == "us":
            return f"{s * factor:.3g} {unit}"


def size(n):
    for unit, factor in (("GiB", GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= factor:
            return f"{n / factor:.3g} {unit}"
    return f"{n} B"


def spread(ratios):
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def table(title, head, rows):
    text = [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    text += ["| " + " | ".join(str(x) for x in r) + " |" for r in rows]
    print("\n".join(text) + "\n", flush=True)
    return "\n".join(text) + "\n"


def note(text):
    print(text, file=sys.stderr, flush=True)


def save_feed(folder, arrays):
    os.makedirs(folder, exist_ok=True)
    files = {}
    for i, (name, a) in enumerate(arrays.items()):
        files[name] = os.path.join(folder, f"{i}.npy")
        np.save(files[name], a)
    return files


def median_run(worker, runs):
    return statistics.median(worker.ask("time", runs=runs)["seconds"])


def duel(linnet, ort, round_seconds=ROUND_SECONDS, rounds=ROUNDS):
    """Both workers have a model and inputs: rounds of (linnet, ONNX Runtime) seconds a run."""
    runs = []
    for w in (linnet, ort):
        w.ask("time", runs=2)  # decides kernels, fills caches
        runs.append(max(1, min(200, int(round_seconds / max(median_run(w, 1), 1e-6)))))
    return [(median_run(linnet, runs[0]), median_run(ort, runs[1])) for _ in range(rounds)]


def same_results(linnet, ort, work):
    """Largest difference over the largest magnitude, over all outputs."""
    worst, files = 0.0, []
    for name, w in (("linnet", linnet), ("ort", ort)):
        files.append(os.path.join(work, name + ".npz"))
        w.ask("save", path=files[-1])
    a, b = (np.load(f) for f in files)
    for name in a.files:
        x, y = a[name].astype(np.float64), b[name].astype(np.float64)
        if x.size:
            worst = max(worst, float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), 1e-6)))
    return worst
