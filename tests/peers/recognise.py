"""How many attentions linnet, onnxruntime's transformer optimizer, onnxscript's rewriter and onnxsim recognise in the same models.

recognise.py LINNET FOLDER [--write PAGE]: folders of FOLDER hold model.onnx and truth.json, what the model's makers wrote. Needs the packages
onnx, onnxruntime, onnxscript, onnxsim, sympy, coloredlogs. Fails where another program has an attention that linnet has not.
"""

import collections
import json
import logging
import multiprocessing
import os
import queue
import subprocess
import sys

import onnx

FUSED = {"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention", "PackedMultiHeadAttention", "QAttention", "FlexAttention",
         "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "SDPA", "LinearAttention", "SparseAttention", "PagedAttention"}
TYPES = ("bert", "gpt2", "t5", "bart", "vit", "clip", "phi", "unet")
PEERS = ("onnxruntime", "onnxscript", "onnxsim")


def attentions(graph):
    n = 0
    for node in graph.node:
        n += node.op_type in FUSED
        for a in node.attribute:
            n += attentions(a.g) if a.type == onnx.AttributeProto.GRAPH else 0
    return n


def by_onnxruntime(path):
    """The most that any model type finds, with the number of heads and the width told: the user would have to know them."""
    from onnxruntime.transformers.optimizer import optimize_model

    best = 0
    with open(os.path.join(os.path.dirname(path), "truth.json")) as f:
        a = (json.load(f)["attention"] or [{"heads": 0, "head_dim": 0}])[0]
    heads, width = a.get("heads") or 0, (a.get("heads") or 0) * (a.get("head_dim") or 0)
    for kind in TYPES:
        try:
            best = max(best, attentions(optimize_model(path, model_type=kind, num_heads=heads, hidden_size=width, opt_level=0).model.graph))
        except Exception:  # one type's patterns may stumble over another's graph
            continue
    return best


def by_onnxscript(path):
    import onnx_ir
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    model = onnx_ir.load(path)
    model = optimize_for_ort(model)
    model = model[0] if isinstance(model, tuple) else model
    return attentions(onnx_ir.to_proto(model).graph)


def by_onnxsim(path):
    import onnxsim

    return attentions(onnxsim.simplify(onnx.load(path))[0].graph)


def worker(todo, done):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    logging.disable(logging.CRITICAL)
    while True:
        peer, path = todo.get()
        try:
            done.put(globals()["by_" + peer](path))
        except BaseException as e:
            done.put(f"{type(e).__name__}: {e}"[:200])


class Worker:
    """One process that is made anew when it dies or takes more than a minute."""

    def __init__(self):
        self.process = None

    def ask(self, peer, path):
        if self.process is None:
            self.todo, self.done = multiprocessing.Queue(), multiprocessing.Queue()
            self.process = multiprocessing.Process(target=worker, args=(self.todo, self.done), daemon=True)
            self.process.start()
        self.todo.put((peer, path))
        for _ in range(240):
            try:
                return self.done.get(timeout=0.25)
            except queue.Empty:
                if not self.process.is_alive():
                    break
        self.process.kill()
        self.process = None
        return "no answer"


def by_linnet(program, path):
    r = subprocess.run([program, "show", "--attention", "--json", path], capture_output=True, text=True)
    if r.returncode not in (0, 1):  # 1: there is none
        return r.stderr.strip()
    return sum(a["count"] for a in json.loads(r.stdout.splitlines()[0])["attention"])


def shown(x):
    return str(x) if isinstance(x, int) else "fails"


def write_page(page, rows):
    total, full, failed = collections.Counter(), collections.Counter(), collections.Counter()
    for _, row in rows:
        for k, v in row.items():
            total[k] += min(v, row["truth"]) if isinstance(v, int) else 0
            full[k] += v == row["truth"] and row["truth"] > 0
            failed[k] += not isinstance(v, int)
    some = sum(row["truth"] > 0 for _, row in rows)
    with open(page, "w") as f:
        f.write("# Attention recognised by other programs\n\nWritten by tests/peers/recognise.py over the development models: attentions that are one node after each program's "
                "fusions, those that were one node before included. onnxruntime: transformers.optimizer, told heads and width, the best of the model types "
                f"{', '.join(TYPES)}; onnxscript: rewriter.ort_fusions.optimize_for_ort; onnxsim: simplify. A program that raises an error has none.\n\n")
        f.write(f"| program | attentions, of {total['truth']} | models whose attentions are all found, of {some} | models it fails on |\n|---|---|---|---|\n")
        for k in ("linnet", *PEERS):
            f.write(f"| {k} | {total[k]} | {full[k]} | {failed[k]} |\n")
        f.write("\n| model | there | linnet | " + " | ".join(PEERS) + " |\n|---|---|---|" + "---|" * len(PEERS) + "\n")
        for name, row in rows:
            f.write(f"| {name} | " + " | ".join(shown(row[k]) for k in ("truth", "linnet", *PEERS)) + " |\n")


def main():
    program, folder = sys.argv[1:3]
    page = sys.argv[4] if sys.argv[3:4] == ["--write"] else None
    rows, missing = [], []
    asked = Worker()
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name, "model.onnx")
        if not os.path.exists(path) or not os.path.exists(os.path.join(folder, name, "truth.json")):
            continue
        with open(os.path.join(folder, name, "truth.json")) as f:
            truth = sum(a["count"] for a in json.load(f)["attention"])
        row = {"truth": truth, "linnet": by_linnet(program, path), **{p: asked.ask(p, path) for p in PEERS}}
        rows.append((name, row))
        for p in PEERS:
            if isinstance(row[p], int) and (not isinstance(row["linnet"], int) or min(row[p], truth) > row["linnet"]):
                missing.append(f"{name}: {p} has {row[p]}, linnet {row['linnet']}")
        print(name, row, flush=True)
    for line in missing:
        print("MISSING:", line)
    if page:
        write_page(page, rows)
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
