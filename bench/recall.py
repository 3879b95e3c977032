"""What linear forms keep of associative recall: accuracy by mechanism, state and number of pairs, before and after calibration, into docs/calibration.md.

recall.py LINNET CORPUS WORK DOCS [--mechanisms elu,hedgehog] [--tokens 4000000] [--rate X] [--threads N]

The model is corpus/recall's; rows are drawn here. Calibration is the mechanism's recipe on rows of 8 to 64 pairs. A mechanism that has a row of the same budget in
DOCS/recall.json is not run again.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np

from page import section

PAIRS = (8, 16, 32, 48, 64)
LENGTH, KEYS, ROWS = 256, 127, 64


def draw(rng, rows, pairs):
    """Tokens and targets [rows, LENGTH]; -1 where nothing is asked."""
    tokens, targets = np.zeros((rows, LENGTH), np.int64), np.full((rows, LENGTH), -1, np.int64)
    half = LENGTH // 2
    for t, y in zip(tokens, targets):
        keys = rng.permutation(KEYS)[:pairs] + 1
        values = rng.integers(KEYS + 1, 256, pairs)
        at = 2 * np.sort(rng.permutation(half // 2)[:pairs])
        t[at], t[at + 1] = keys, values
        again = half + rng.permutation(half)[:pairs]
        t[again], y[again] = keys, values
    return tokens, targets


def tool(*args):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL)


class Bench:
    def __init__(self, o):
        self.o = o
        self.model = os.path.join(o.corpus, "recall", "softmax.onnx")
        os.makedirs(o.work, exist_ok=True)
        rng = np.random.default_rng(1)
        self.train = os.path.join(o.work, "train.npy")
        np.save(self.train, np.concatenate([draw(rng, 1024, n)[0] for n in PAIRS])[rng.permutation(1024 * len(PAIRS))])
        self.test = {n: draw(rng, ROWS, n) for n in PAIRS}
        self.held = os.path.join(o.work, "held.npy")
        np.save(self.held, np.concatenate([t for t, _ in self.test.values()]))

    def accuracy(self, path):
        """By number of pairs, percent."""
        out = os.path.join(self.o.work, "out")
        found = []
        for tokens, targets in self.test.values():
            np.save(os.path.join(self.o.work, "ids.npy"), tokens)
            tool(self.o.linnet, "run", path, "--input", "input_ids=" + os.path.join(self.o.work, "ids.npy"), "--output", out, "--threads", str(self.o.threads))
            said = np.load(os.path.join(out, "logits.npy")).argmax(-1)
            asked = targets >= 0
            found.append(round(100 * float(np.mean(said[asked] == targets[asked])), 1))
        return found

    def row(self, name, options):
        path = os.path.join(self.o.work, "model.onnx")
        base = [self.o.linnet, "convert", "-q", self.model, "-o", path, "--mechanism", name, *options]
        tool(*base, "--target", "step")
        with open(path + ".json") as f:
            state = 4 * sum(x["state_numbers"] for x in json.load(f)["layers"])
        tool(*base, "--target", "onnx")
        before = self.accuracy(path)
        rate = ["--rate", str(self.o.rate or PLAIN.get(name, 1))]
        tool(*base, "--target", "onnx", "--calibrate", "input_ids=" + self.train, "--held-out", "input_ids=" + self.held, "--tokens",
             str(self.o.tokens // LENGTH), "--batch", "16", "--threads", str(self.o.threads), *rate)
        with open(path + ".json") as f:
            card = json.load(f)
        return {"state": state, "before": before, "after": self.accuracy(path), "tokens": self.o.tokens, "rate": self.o.rate,
                "seconds": sum(s["seconds"] for s in card["calibration"]["stages"])}


FORMS = {  # the row's name: mechanism, options
    "identity, no normaliser": ("identity", ["--norm", "none"]),
    "elu": ("elu", []), "relu": ("relu", []), "relu2": ("relu2", []), "exp": ("exp", []), "hedgehog": ("hedgehog", []), "t2r": ("t2r", []), "favor": ("favor", []),
    "taylor": ("taylor", []), "square": ("square", []), "cosformer": ("cosformer", []), "transnormer": ("transnormer", []), "retnet": ("retnet", []),
    "supra": ("supra", []), "gla": ("gla", []), "mamba2": ("mamba2", []), "hgrn2": ("hgrn2", []), "gsa": ("gsa", []), "liger-gla": ("liger-gla", []), "delta": ("delta", []),
    "gated-delta": ("gated-delta", []), "lolcats, window 16": ("lolcats", ["--window", "16"]), "window 64 alone": ("window", []),
}


PLAIN = {n: 20 for n in ("elu", "relu", "relu2", "exp", "favor", "cosformer", "transnormer")}  # factors of rates: only the model's own weights can learn what these maps need


def main():
    p = argparse.ArgumentParser()
    for a in ("linnet", "corpus", "work", "docs"):
        p.add_argument(a)
    p.add_argument("--mechanisms", help="comma-separated; all by default")
    p.add_argument("--tokens", type=int, default=4000000)
    p.add_argument("--rate", type=float)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    o = p.parse_args()
    bench, rows, store = Bench(o), {}, os.path.join(o.docs, "recall.json")
    if os.path.exists(store):
        with open(store) as f:
            rows = json.load(f)
    for name in [n for n in FORMS if not o.mechanisms or FORMS[n][0] in o.mechanisms.split(",")]:
        if rows.get(name, {}).get("tokens") != o.tokens or rows[name]["rate"] != o.rate:
            print(name, file=sys.stderr, flush=True)
            rows[name] = bench.row(*FORMS[name])
            print(json.dumps(rows[name]), file=sys.stderr, flush=True)
        with open(store, "w") as f:
            json.dump(rows, f, indent=1)
            f.write("\n")
        head = ["", "state KiB"] + [f"{n} pairs" for n in PAIRS] + [f"calibrated, {n}" for n in PAIRS] + ["tokens", "seconds"]
        lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
        for n, r in rows.items():
            cells = [n, f"{r['state'] / 1024:.0f}", *map(str, r["before"]), *map(str, r["after"]), str(r["tokens"]), f"{r['seconds']:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        section(os.path.join(o.docs, "calibration.md"), "bench-recall", "\n".join(lines))


if __name__ == "__main__":
    main()
