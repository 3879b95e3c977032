#!/usr/bin/env python3
"""The share of spellings that are recognised, by family, exporter and opset, of models that come with a truth.json.

    recognition.py LINNET MODELS [PAGE]

MODELS holds a folder a model (model.onnx, truth.json); PAGE is rewritten between its two marks, else the tables go to stdout.
"""
import collections
import json
import os
import subprocess
import sys

MARKS = "<!-- from make recognition -->", "<!-- to here -->"
FAMILIES = {
    "attn": "attention, written by hand", "glu": "gated units, written by hand", "nn": "torch.nn layers", "hf": "transformers classes",
    "op": "standard operators", "ms": "ONNX Runtime's operators", "var": "rewritten by other tools", "pkg": "models from packages",
    "tf": "idioms of Keras and tf2onnx", "neg": "nothing to find", "": "whole blocks, functions, control flow"}
EXPORTERS = (("onnxruntime", "then ONNX Runtime's tools"), ("onnxsim", "then onnxsim"), ("onnxscript", "then onnxscript"), ("onnx.version_converter", "then the version converter"))

OTHERS = "tf2onnx of Keras", "Keras's export", "tf2onnx of TensorFlow", "jax2onnx", "onnxscript functions"  # of tests/peers/dialects.py


def family(name):
    head = name.split("_")[0].rstrip("0123456789")
    return FAMILIES[head if head in FAMILIES else ""]


def exporter(text):
    first, *rest = text.split(";")
    if first in OTHERS:
        return first
    base = ("TorchScript exporter" if "TorchScript" in first else "dynamo exporter" if "dynamo" in first else
            "tf2onnx" if "tf2onnx" in first else "onnx.helper" if "onnx.helper" in first else "other PyTorch")
    for word, then in EXPORTERS:
        if any(word in r for r in rest):
            return base + ", " + then
    return base + (", then other changes" if rest else "")


def last_object(*command):
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode > 1:
        sys.exit(f"{' '.join(command)}: {out.stderr}")
    return json.loads(out.stdout.splitlines()[-1])


def recognised(linnet, path):
    found = last_object(linnet, "show", "--attention", "--json", path)
    found["nodes"] = last_object(linnet, "why", "--json", path)["attention"]
    return found


def facts(group):
    """What must agree of a group of attentions, the scale to three digits (weights may be float16)."""
    scale = group.get("scale")
    window = group.get("window")
    return (group["kind"], group["heads"], group["kv_heads"], group["head_dim"], group.get("v_head_dim", group["head_dim"]), group["causal"],
            group["mask"], bool(group.get("padding")), max(window) if isinstance(window, list) else window,
            None if scale is None else float(f"{scale:.3g}"), group.get("softcap") or 0, group["rope"], group["qk_norm"], group["kv_cache"],
            bool(group.get("sink")), group.get("rewritable", True))


def alike(a, b):
    near = a[9] == b[9] or (a[9] and b[9] and abs(a[9] - b[9]) <= 2e-3 * abs(b[9]))
    return near and a[:9] == b[:9] and a[10:] == b[10:]


def match(found, recorded):
    """How many of the recorded attentions were found with all their properties."""
    left = [[facts(g), g["count"]] for g in found]
    n = 0
    for g in recorded:
        for other in left:
            if alike(other[0], facts(g)):
                k = min(other[1], g["count"])
                n += k
                other[1] -= k
                break
    return n


def units(groups):
    n = collections.Counter()
    for g in groups: # those of one variant may differ in alpha
        n[g["variant"], bool(g["fused_weight"])] += g["count"]
    return n


class Row:
    def __init__(self):
        self.n = collections.Counter()

    def add(self, found, truth):
        recorded = sum(g["count"] for g in truth["attention"])
        seen = sum(g["count"] for g in found["attention"])
        a, b = units(found["glu"]), units(truth["glu"])
        self.n["models"] += 1
        self.n["attention"] += recorded
        self.n["found"] += min(seen, recorded)
        self.n["exact"] += match(found["attention"], truth["attention"])
        self.n["may"] += sum(g["count"] for g in truth["attention"] if g.get("rewritable", True))
        self.n["nodes"] += found["nodes"]
        self.n["glu"] += b.total()
        self.n["glu_found"] += min(a.total(), b.total())
        self.n["glu_exact"] += (a & b).total()
        self.n["false"] += max(0, seen - recorded) + max(0, a.total() - b.total())

    def line(self, name):
        n = self.n
        share = lambda k, of: f"{n[k]} ({100 * n[k] // n[of]} %)" if n[of] else "–"
        return (f"| {name} | {n['models']} | {n['attention']} | {share('found', 'attention')} | {share('exact', 'attention')} | {n['nodes']} of {n['may']} | "
                f"{n['glu']} | {share('glu_found', 'glu')} | {share('glu_exact', 'glu')} | {n['false']} |")


def main():
    linnet, folder = sys.argv[1:3]
    tables = {"family": collections.defaultdict(Row), "exporter": collections.defaultdict(Row), "opset": collections.defaultdict(Row)}
    total = Row()
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.exists(path + "/truth.json"):
            continue
        with open(path + "/truth.json") as f:
            truth = json.load(f)
        found = recognised(linnet, path + "/model.onnx")
        for key, of in (("family", family(name)), ("exporter", exporter(truth["exporter"])), ("opset", truth["opset"])):
            tables[key][of].add(found, truth)
        total.add(found, truth)
    text = []
    for key, rows in tables.items():
        text += [f"| {key} | models | attentions | recognised | all properties | one node | gated units | recognised | all properties | false |",
                 "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |"]
        text += [rows[k].line(k) for k in sorted(rows)] + [total.line("all"), ""]
    text = "\n".join(text)
    if len(sys.argv) < 4:
        print(text)
        return
    with open(sys.argv[3]) as f:
        page = f.read()
    begin, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    with open(sys.argv[3], "w") as f:
        f.write(page[:begin] + "\n" + text + page[end:])


if __name__ == "__main__":
    main()
