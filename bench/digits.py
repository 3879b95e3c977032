"""A small vision transformer on handwritten digits: trained by linnet, made linear by the LiT recipe. What it reads right, into docs/calibration.md.

digits.py LINNET CORPUS WORK [--docs DOCS] [--threads N] [--seed N] [--epochs N] [--least PERCENT]

Training images are there nine times, moved by a pixel. Exit status 1 when the linear model reads more than half a point less than softmax does, or softmax reads less than --least (95). Every third image is held out. Standard library only.
"""

import argparse
import array
import gzip
import itertools
import json
import math
import os
import random
import subprocess
import sys

from page import section

WIDTH, HEADS, LAYERS, INNER, TOKENS, PATCH = 64, 4, 2, 128, 16, 4
EPOCHS, BATCH = 16, 64  # of images and moved ones


# ---- The model, in ONNX's textual syntax ----


def model(seed):
    rng = random.Random(seed)
    weights = []

    def weight(name, shape, size):
        n = math.prod(shape)
        values = (f"{rng.gauss(0, size):.6g}" if size else "0" for _ in range(n)) if size is not None else ("1" for _ in range(n))
        weights.append(f"float[{','.join(map(str, shape))}] {name} = {{{','.join(values)}}}")
        return name

    def norm(y, x, name):
        return f"{y} = LayerNormalization <axis = -1> ({x}, {weight(name + '_scale', [WIDTH], None)}, {weight(name + '_bias', [WIDTH], 0)})"

    def heads(y, x, perm):
        return f"{y}4 = Reshape ({x}, split)\n {y} = Transpose <perm = {perm}> ({y}4)"

    s, lines = WIDTH ** -0.5, []
    lines += ["x5 = Reshape (x, squares)", "x6 = Transpose <perm = [0, 1, 3, 2, 4]> (x5)", "patches = Reshape (x6, tokens)",
              f"e = MatMul (patches, {weight('embed', [PATCH, WIDTH], 0.5)})", f"h0 = Add (e, {weight('position', [TOKENS, WIDTH], 0.1)})"]
    for i in range(LAYERS):
        lines.append(norm(f"a{i}", f"h{i}", f"attention_norm{i}"))
        for p, perm in (("q", "[0, 2, 1, 3]"), ("k", "[0, 2, 3, 1]"), ("v", "[0, 2, 1, 3]")):
            lines.append(f"{p}m{i} = MatMul (a{i}, {weight(f'{p}{i}_weight', [WIDTH, WIDTH], s)})")
            lines.append(heads(f"{p}h{i}", f"{p}m{i}", perm))
        lines += [f"s{i} = MatMul (qh{i}, kh{i})", f"t{i} = Mul (s{i}, scale)", f"p{i} = Softmax <axis = -1> (t{i})", f"y{i} = MatMul (p{i}, vh{i})",
                  f"z{i} = Transpose <perm = [0, 2, 1, 3]> (y{i})", f"c{i} = Reshape (z{i}, joined)",
                  f"o{i} = MatMul (c{i}, {weight(f'o{i}_weight', [WIDTH, WIDTH], s)})", f"m{i} = Add (h{i}, o{i})", norm(f"b{i}", f"m{i}", f"inner_norm{i}"),
                  f"f{i} = MatMul (b{i}, {weight(f'up{i}', [WIDTH, INNER], s)})", f"g{i} = Relu (f{i})",
                  f"d{i} = MatMul (g{i}, {weight(f'down{i}', [INNER, WIDTH], INNER ** -0.5)})", f"h{i + 1} = Add (m{i}, d{i})"]
    lines += [norm("last", f"h{LAYERS}", "last_norm"), "mean = ReduceMean <keepdims = 0> (last, axis)", f"l = MatMul (mean, {weight('head', [WIDTH, 10], s)})",
              f"logits = Add (l, {weight('head_bias', [10], 0)})", "loss = SoftmaxCrossEntropyLoss (logits, label)"]
    weights += [f"int64[5] squares = {{-1, 4, 2, 4, 2}}", f"int64[3] tokens = {{-1, {TOKENS}, {PATCH}}}", f"int64[4] split = {{0, 0, {HEADS}, {WIDTH // HEADS}}}",
                f"int64[3] joined = {{0, 0, {WIDTH}}}", "int64[1] axis = {1}", f"float scale = {{{(WIDTH // HEADS) ** -0.5}}}"]
    body = "\n ".join(lines)
    return ('<ir_version: 8, opset_import: ["" : 18]>\ndigits (float[N,64] x, int64[N] label) => (float[N,10] logits, float loss)\n<'
            + ",\n ".join(weights) + ">\n{ " + body + " }\n")


# ---- Arrays ----


def save(path, kind, shape, values):
    descr = {"f": "<f4", "q": "<i8"}[kind]
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)}, }}".ljust(117) + "\n"
    data = array.array(kind, values)
    if sys.byteorder == "big":
        data.byteswap()
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + data.tobytes())


def moved(image, rows, columns):
    """An 8 x 8 image moved down and right, zeros behind it."""
    return [image[8 * (r - rows) + c - columns] if 0 <= r - rows < 8 and 0 <= c - columns < 8 else 0 for r in range(8) for c in range(8)]


def load(path):
    with open(path, "rb") as f:
        f.seek(8)
        f.seek(10 + int.from_bytes(f.read(2), "little"))
        data = array.array("f", f.read())
    if sys.byteorder == "big":
        data.byteswap()
    return data


class Bench:
    def __init__(self, o):
        self.o = o
        os.makedirs(o.work, exist_ok=True)
        with gzip.open(os.path.join(o.corpus, "digits", "digits.csv.gz"), "rt") as f:
            rows = [[int(float(x)) for x in line.split(",")] for line in f]
        self.part = {}
        for name, keep in (("train", lambda i: i % 3 != 2), ("test", lambda i: i % 3 == 2)):
            part = [r for i, r in enumerate(rows) if keep(i)]
            if name == "train":
                part = [moved(r[:64], *by) + r[64:] for r in part for by in itertools.product((0, 1, -1), repeat=2)]
            save(self.path(name + "-x.npy"), "f", (len(part), 64), [p / 16 for r in part for p in r[:64]])
            save(self.path(name + "-label.npy"), "q", (len(part),), [r[64] for r in part])
            self.part[name] = [r[64] for r in part]

    def path(self, name):
        return os.path.join(self.o.work, name)

    def data(self, flag, part):
        return [x for name in ("x", "label") for x in (flag, f"{name}={self.path(f'{part}-{name}.npy')}")]

    def tool(self, *args):
        subprocess.run([self.o.linnet, *args], check=True, stdout=subprocess.DEVNULL)

    def accuracy(self, path):
        self.tool("run", path, *self.data("--input", "test"), "--output", self.path("out"), "--threads", str(self.o.threads))
        logits, labels = load(os.path.join(self.path("out"), "logits.npy")), self.part["test"]
        said = [max(range(10), key=lambda c: logits[10 * i + c]) for i in range(len(labels))]
        return 100 * sum(a == b for a, b in zip(said, labels)) / len(labels)

    def run(self):
        source, softmax, plain, linear = (self.path(n) for n in ("digits.onnxtxt", "softmax.onnx", "plain.onnx", "linear.onnx"))
        threads = ["--threads", str(self.o.threads)]
        steps = str(self.o.epochs * len(self.part["train"]) // BATCH)
        with open(source, "w") as f:
            f.write(model(self.o.seed))
        self.tool("train", source, *self.data("--data", "train"), "-o", softmax, "--loss", "loss", "--weights", "*", "--steps", steps, "--batch", str(BATCH), "--rate", "1e-3", "--decay", "0.05", "--average", "0.99",
                  "--seed", str(self.o.seed), "-q", *threads)
        self.tool("convert", softmax, "-o", plain, "--mechanism", "lit", "-q")
        self.tool("convert", softmax, "-o", linear, "--recipe", "lit", *self.data("--calibrate", "train"), *self.data("--held-out", "test"), "--batch", str(BATCH),
                  "--tokens", str(max(1, 3 * self.o.epochs // 16) * len(self.part["train"])), "-q", *threads)
        with open(linear + ".json") as f:
            seconds = sum(s["seconds"] for s in json.load(f)["calibration"]["stages"])
        return [self.accuracy(m) for m in (softmax, plain, linear)] + [seconds]


def main():
    p = argparse.ArgumentParser()
    for a in ("linnet", "corpus", "work"):
        p.add_argument(a)
    p.add_argument("--docs")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--epochs", type=int, default=EPOCHS)
    p.add_argument("--least", type=float, default=95)
    o = p.parse_args()
    softmax, plain, linear, seconds = Bench(o).run()
    text = ("| held out | read right |\n| --- | ---: |\n"
            f"| softmax, trained by `linnet train` | {softmax:.2f}% |\n| lit, not calibrated | {plain:.2f}% |\n| lit, calibrated for {seconds:.0f} s | {linear:.2f}% |")
    print(text)
    if o.docs:
        section(os.path.join(o.docs, "calibration.md"), "bench-digits", text)
    return 0 if linear >= softmax - 0.5 and softmax >= o.least else 1


if __name__ == "__main__":
    sys.exit(main())
