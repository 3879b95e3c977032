"""What the onnx package and onnxruntime say of the files linnet writes.

check.py LINNET RESAVE CORPUS WORK: the program, the one that loads and saves (resave.c), the folder corpus, a folder to write in.
"""

import glob
import os
import subprocess
import sys
import time

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.parser
import onnx.reference
import onnxruntime

LINNET, RESAVE, CORPUS, WORK = sys.argv[1:5]
failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("FAILED:", what, flush=True)


def convert(source, name, *options):
    """Returns the path of the converted model."""
    path = os.path.join(WORK, name + ".onnx")
    r = subprocess.run([LINNET, "convert", "--quiet", source, "-o", path, *options], capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"linnet convert {' '.join(options)}: status {r.returncode}\n{r.stdout}{r.stderr}")
    try:
        onnx.checker.check_model(onnx.load(path), full_check=True)
    except Exception as e:  # the checker's exceptions have no common base
        check(False, f"{name}: onnx.checker: {e}")
    return path


# ---- Converted models compute the same wherever they run ----


class Ort:
    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: i.shape for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, feeds):
        return dict(zip(self.outputs, self.session.run(None, feeds)))


class Reference:
    def __init__(self, path):
        self.session = onnx.reference.ReferenceEvaluator(path)
        types = zip(self.session.input_names, self.session.input_types)
        self.inputs = {n: [d.dim_param or d.dim_value for d in t.tensor_type.shape.dim] for n, t in types}
        self.outputs = self.session.output_names

    def run(self, feeds):
        return dict(zip(self.outputs, self.session.run(None, feeds)))


def whole_run(model, ids):
    return model.run({"input_ids": ids})


def whole(model, ids):
    return whole_run(model, ids)["logits"]


def by_steps(model, ids, pieces):
    """The step model over `ids`, so many tokens at a time as the pieces say, over and over."""
    past = {n: np.zeros([ids.shape[0]] + s[1:], np.float32) for n, s in model.inputs.items() if n.startswith("past_state.")}
    position, logits, at, turn = np.zeros(1, np.int64), [], 0, 0
    check(len(past) > 0, "a step model has states")
    while at < ids.shape[1] or not logits:
        width = pieces[turn % len(pieces)] if ids.shape[1] else 0
        out = model.run({"input_ids": ids[:, at : at + width], "position": position, **past})
        logits.append(out["logits"])
        position = out["present_position"]
        past = {n: out["present_" + n[len("past_") :]] for n in past}
        at += width
        turn += 1
    check(position[0] == ids.shape[1], "present_position counts tokens")
    return np.concatenate(logits, 1)


def agree(name, a, b):
    """To float rounding: logits are of the order of 10."""
    if a.shape != b.shape:
        return check(False, f"{name}: {a.shape} and {b.shape}")
    far = float(np.abs(a - b).max()) if a.size else 0.0
    top = float(np.abs(b).max()) if b.size else 1.0
    check(np.isfinite(a).all() and far <= 1e-4 * top, f"{name}: {far:.3g} apart, the largest is {top:.3g}")


def language_model():
    source = os.path.join(CORPUS, "lm", "softmax.onnx")
    tokens = np.load(os.path.join(CORPUS, "lm", "valid.npy")).astype(np.int64)
    for mechanism in ("elu", "relu", "exp"):
        paths = {
            t: convert(source, f"{t}-{mechanism}", "--target", t, "--mechanism", mechanism)
            for t in ("onnx", "ort", "portable", "step")
        }
        portable, ort, step = (Ort(paths[t]) for t in ("portable", "ort", "step"))
        for length in (0, 1, 63, 64, 65, 100):
            ids = np.stack([tokens[:length], tokens[1000 : 1000 + length]])
            what = f"{mechanism}, {length} tokens: "
            y = whole(portable, ids)
            check(y.shape == (2, length, 2048), what + f"portable gives {y.shape}")
            if length:  # onnxruntime's LinearAttention refuses sequences without tokens
                agree(what + "ort and portable", whole(ort, ids), y)
            agree(what + "step by pieces and portable", by_steps(step, ids, (1, 3, 1, 17)), y)
            if length == 65:
                agree(what + "step by tokens and portable", by_steps(step, ids, (1,)), y)
        ids = tokens[None, :7]
        y = whole(portable, ids)
        for target in ("onnx", "portable"):
            agree(f"{mechanism}, reference evaluator: {target}", whole(Reference(paths[target]), ids), y)
        agree(f"{mechanism}, reference evaluator: step", by_steps(Reference(paths["step"]), ids, (1, 2)), y)


# ---- Gradients are models as others are ----


def gradients():
    source = os.path.join(CORPUS, "lm", "softmax.onnx")
    ids = np.load(os.path.join(CORPUS, "lm", "valid.npy")).astype(np.int64)[None, :70]
    tokens, folder = os.path.join(WORK, "ids.npy"), os.path.join(WORK, "gradients")
    np.save(tokens, ids)
    os.makedirs(folder, exist_ok=True)
    for name, path in (("softmax", source), ("elu", convert(source, "grad-elu", "--target", "portable", "--mechanism", "elu"))):
        out = os.path.join(WORK, f"grad-of-{name}.onnx")
        subprocess.run([LINNET, "grad", "-q", path, "--of", "logits", "--wrt", "*weight*", "--opset", "20", "-o", out], check=True)
        onnx.checker.check_model(onnx.load(out), full_check=True)
        subprocess.run([LINNET, "run", "-q", out, "-i", "input_ids=" + tokens, "-o", folder], check=True, stdout=subprocess.DEVNULL)
        got = whole_run(Ort(out), ids)
        for value in got:
            agree(f"gradient of {name}, {value}", got[value], np.load(os.path.join(folder, value + ".npy")))


# ---- Words of fused models ----


def masks_in_full():
    """Attention that --fuse writes runs in onnxruntime, whatever axes its mask has in tests/passes/fuse.txt."""
    n = 0
    for title, graph, becomes in passes_cases("fuse.txt"):
        if "Expand (m," not in becomes:
            continue
        same_in_onnxruntime(title, graph, "--fuse", "24", {"B": 2, "T": 3, "P": 2, "S": 5})
        n += 1
    check(n > 3, f"{n} masks in full")


def microsoft_words():
    """What --fuse=ort writes of each case of tests/passes/ort.txt runs in onnxruntime and gives what the official evaluator makes of the case."""
    written = set()
    for title, graph, becomes in passes_cases("ort.txt"):
        words = [w.split(" ")[0] for w in becomes.split("com.microsoft.")[1:]]
        opset = "28" if any(w in ("LinearAttention", "CausalConvWithState") for w in words) else "26"
        # onnxruntime rotates no more positions at a time than its tables have
        model = same_in_onnxruntime(title, graph, "--fuse=ort", opset, {"B": 2, "T": 3, "P": 2, "S": 3})
        found = [x.op_type for x in model.graph.node if x.domain == "com.microsoft"]
        check(found == words, f"--fuse=ort of {title}: {found}, not {words}")
        written.update(words)
    print(f"onnxruntime runs {len(written)} operators that --fuse=ort writes: {', '.join(sorted(written))}")


def passes_cases(name):
    """Title, graph and what becomes of it, of the cases of a file in tests/passes in which something does."""
    with open(os.path.join(CORPUS, "..", "tests", "passes", name)) as f:
        for case in f.read().split("\n## ")[1:]:
            title, _, rest = case.partition("\n")
            graph, _, becomes = rest.partition("\n=>")
            if not becomes.startswith(" unchanged"):
                yield title, graph, becomes


def same_in_onnxruntime(title, graph, way, opset, lengths):
    """The model that is made of the graph; onnxruntime computes with it what the official evaluator computes without."""
    rng = np.random.default_rng(3)
    source = os.path.join(WORK, "case.onnxtxt")
    with open(source, "w") as f:
        f.write(f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]>\n' + graph)
    fused = convert(source, "case_fused", way, "--opset", opset)
    plain = convert(source, "case", "--opset", opset)
    feeds = {}
    for v in onnx.load(plain).graph.input:
        shape = [d.dim_value or lengths[d.dim_param] for d in v.type.tensor_type.shape.dim]
        kind = v.type.tensor_type.elem_type
        if kind == onnx.TensorProto.FLOAT:
            feeds[v.name] = rng.standard_normal(shape, np.float32)
        else:
            feeds[v.name] = rng.integers(0, 2, shape).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
            feeds[v.name][..., 0] = 1
    expected = Reference(plain).run(feeds)
    result = Ort(fused).run(feeds)
    for name, value in expected.items():
        agree(f"{way} of {title}, {name}", result[name], value)
    return onnx.load(fused)


# ---- Files come back as they were ----


def saved_files_are_equal():
    n = 0
    for path in sorted(glob.glob(os.path.join(CORPUS, "models", "*", "model.onnx"))):
        out = os.path.join(WORK, "saved.onnx")
        r = subprocess.run([RESAVE, path, out], capture_output=True, text=True)
        check(r.returncode == 0, f"{path}: {r.stderr}")
        a, b = onnx.load(path), onnx.load(out)
        for m in (a, b):  # data that was in another file is inside now
            for t in m.graph.initializer:
                del t.external_data[:]
                t.ClearField("data_location")
        check(a == b, f"{path}: loaded and saved it differs")
        n += 1
    check(n > 40, f"{n} models in corpus/models")


def values(x):
    """A protobuf message without what the text syntax does not say the same way."""
    if isinstance(x, onnx.TensorProto):
        a = onnx.numpy_helper.to_array(x)
        return (x.name, x.data_type, tuple(x.dims), a.tobytes() if a.dtype != object else tuple(a.ravel()))
    if isinstance(x, onnx.NodeProto):
        return (x.op_type, x.domain, tuple(x.input), tuple(x.output), frozenset((a.name, values(onnx.helper.get_attribute_value(a))) for a in x.attribute))
    if isinstance(x, onnx.GraphProto):
        tensors = frozenset(values(t) for t in x.initializer)
        ends = tuple((v.name, v.type.SerializeToString(deterministic=True)) for v in list(x.input) + list(x.output))
        return (ends, tensors, tuple(values(n) for n in x.node))
    return tuple(values(y) for y in x) if isinstance(x, (list, tuple)) or hasattr(x, "append") else x


def printed_texts_are_read():
    n = 0
    for path in sorted(glob.glob(os.path.join(CORPUS, "models", "*", "model.onnx"))):
        model = onnx.load(path, load_external_data=False)
        if any(t.external_data for t in model.graph.initializer):  # the text refers to the other file as well
            continue
        r = subprocess.run([LINNET, "show", "--text", "--plain", "--full", path], capture_output=True, text=True)
        check(r.returncode == 0, f"{path}: {r.stderr}")
        try:
            found = onnx.parser.parse_model(r.stdout)
        except onnx.parser.ParseError as e:
            check(False, f"{path}: onnx.parser: {e}")
            continue
        check(values(found.graph) == values(model.graph), f"{path}: its text says another graph")
        n += 1
    check(n > 40, f"{n} texts read")


os.makedirs(WORK, exist_ok=True)
for f in (saved_files_are_equal, printed_texts_are_read, masks_in_full, microsoft_words, language_model, gradients):
    start = time.time()
    f()
    print(f"{f.__name__}: {time.time() - start:.1f} s", flush=True)
sys.exit(f"{len(failures)} checks failed" if failures else 0)
