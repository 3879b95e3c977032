"""Say every model of a folder again, in every way, and hold the result to the official checker, onnxruntime and linnet's reference kernels.

again.py LINNET MODELS RESULTS [--every N] [--from K] [--jobs simplify,fuse,...]: a line of JSON a job goes to RESULTS (jobs already there are kept).
again.py --page RESULTS: docs/conversion.md on standard output.

MODELS holds folders in the layout of ONNX's backend tests. Each opset is asked of onnx.version_converter as well.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile

OPSETS = range(11, 29)
WAYS = {
    "simplify": ["--simplify"],
    "fuse": ["--fuse"],
    "fuse=ort": ["--fuse=ort"],
    "expand": ["--expand"],
    "float16": ["--float16", "--keep-io"],
    "bfloat16": ["--bfloat16", "--keep-io"],
    **{f"opset {n}": ["--opset", str(n)] for n in OPSETS},
}
EXACT = [w for w in WAYS if "float" not in w]
LIMIT = 120  # seconds of one command


def run(*args):
    try:
        p = subprocess.run(args, capture_output=True, text=True, timeout=LIMIT)
        return p.returncode, (p.stderr.strip() or p.stdout.strip()).split("\n")[-1]
    except subprocess.TimeoutExpired:
        return 124, f"no end within {LIMIT} s"


def short(e):
    return re.sub(r"\s+", " ", str(e))[:300]


def load_value(path, value):
    import onnx
    from onnx import numpy_helper

    with open(path, "rb") as f:
        data = f.read()
    kind = value.type.WhichOneof("value")
    if kind == "sequence_type":
        p = onnx.SequenceProto.FromString(data)
        return numpy_helper.to_list(p)
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def data_sets(folder, model):
    initial = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initial]
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not name.startswith("test_data_set_"):
            continue
        feed = {v.name: load_value(os.path.join(path, f"input_{k}.pb"), v) for k, v in enumerate(inputs)}
        yield feed, [load_value(os.path.join(path, f"output_{k}.pb"), v) for k, v in enumerate(model.graph.output)]


def agree(found, expected, rtol, atol):
    import numpy as np

    if isinstance(expected, list):
        return len(found) == len(expected) and all(agree(f, x, rtol, atol) for f, x in zip(found, expected))
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind in "fc" or expected.dtype.name == "bfloat16":
        found, expected = found.astype(np.float64), expected.astype(np.float64)
        return bool(np.allclose(found, expected, rtol=rtol, atol=atol * max(1, float(np.abs(expected[np.isfinite(expected)]).max(initial=0))), equal_nan=True))
    return bool((found == expected).all())


def in_onnxruntime(path, folder, original, rtol, atol):
    """"agrees", or what is the matter."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        return "refuses: " + short(e)
    try:
        for feed, expected in data_sets(folder, original):
            found = session.run([o.name for o in original.graph.output], feed)
            for o, f, x in zip(original.graph.output, found, expected):
                if not agree(f, x, rtol, atol):
                    return f"differs at {o.name}"
    except Exception as e:
        return "fails: " + short(e)
    return "agrees"


def checked(path):
    import onnx

    try:
        onnx.checker.check_model(path, full_check=True)
        return "valid"
    except Exception as e:
        return short(e)


def interface(model):
    return [(v.name, v.type.SerializeToString()) for v in list(model.graph.input) + list(model.graph.output)]


def shapes(model):
    return {v.name: [d.dim_value if d.HasField("dim_value") else d.dim_param for d in v.type.tensor_type.shape.dim] for v in model.graph.output}


def size(folder):
    return sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder) if f == "model.onnx" or f.endswith((".data", ".bin")))


def one(linnet, folder, way, tmp):
    import onnx

    source, out = os.path.join(folder, "model.onnx"), os.path.join(tmp, "model.onnx")
    for f in os.listdir(tmp):
        os.remove(os.path.join(tmp, f))
    original = onnx.load(source)
    exact = way in EXACT
    rtol, atol = (1e-3, 1e-5) if exact else (0.2, 0.1) if way == "bfloat16" else (5e-2, 2e-2)
    result = {"model": os.path.basename(folder), "way": way}
    status, said = run(linnet, "convert", source, "-o", out, "--quiet", *WAYS[way])
    if status:
        return {**result, "converted": False, "said": said.replace(source + ": ", "").replace("linnet: ", "")}
    again = onnx.load(out)
    result.update(converted=True, checker=checked(out), names=[v.name for v in again.graph.input] == [v.name for v in original.graph.input]
                  or sorted(v.name for v in again.graph.input) == sorted(v.name for v in original.graph.input if v.name not in {i.name for i in original.graph.initializer}))
    result["outputs"] = [v.name for v in again.graph.output] == [v.name for v in original.graph.output]
    result["nodes"] = [len(original.graph.node), len(again.graph.node)]
    result["bytes"] = [size(folder), size(tmp)]
    result["onnxruntime"] = in_onnxruntime(out, folder, original, rtol, atol)
    for s in os.listdir(folder):
        if s.startswith("test_data_set_"):
            os.symlink(os.path.join(folder, s), os.path.join(tmp, s))
    status, said = run(linnet, "test", tmp, "--as-written", "--kernels", "reference", "--rtol", str(rtol), "--atol", str(atol if exact else atol * 10))
    result["reference"] = "agrees" if not status else said.replace(tmp, "")[-200:]
    if way in ("simplify", "fuse", "fuse=ort", "expand"):
        twice = os.path.join(tmp, "twice.onnx")
        status, said = run(linnet, "convert", out, "-o", twice, "--quiet", *WAYS[way])
        result["idempotent"] = not status and open(out, "rb").read() == open(twice, "rb").read()
    if way.startswith("opset"):
        result["peer"] = official(folder, original, int(way.split()[1]), os.path.join(tmp, "peer.onnx"))
    return result


def official(folder, original, opset, out):
    """What onnx.version_converter makes of it: "agrees", or what is the matter."""
    script = "import sys, onnx; from onnx import version_converter as v; onnx.save(v.convert_version(onnx.load(sys.argv[1]), int(sys.argv[2])), sys.argv[3])"
    status, said = run(sys.executable, "-c", script, os.path.join(folder, "model.onnx"), str(opset), out)
    if status:
        return "fails: " + short(said)
    valid = checked(out)
    return "invalid: " + valid if valid != "valid" else in_onnxruntime(out, folder, original, 1e-3, 1e-5)


def sweep(a):
    done = set()
    if os.path.exists(a.results):
        with open(a.results) as f:
            done = {(r["model"], r["way"]) for r in map(json.loads, f)}
    folders = sorted(e.path for e in os.scandir(a.models) if os.path.exists(os.path.join(e.path, "model.onnx")))[a.start::a.every]
    wanted = a.jobs.split(",") if a.jobs else list(WAYS)
    with open(a.results, "a") as f, tempfile.TemporaryDirectory() as tmp:
        for folder in folders:
            for way in wanted:
                if (os.path.basename(folder), way) in done:
                    continue
                try:
                    r = one(a.linnet, folder, way, tmp)
                except Exception as e:
                    r = {"model": os.path.basename(folder), "way": way, "converted": False, "said": "the script: " + short(e)}
                f.write(json.dumps(r) + "\n")
                f.flush()


# ---- The page ----

def newest_only(what):
    """onnxruntime knows opsets to 26 and not every operator at every type: that says nothing of the model."""
    return bool(re.search(r"NOT_IMPLEMENTED|under development|is till opset|Type .tensor.bfloat16|not a registered function|Could not find an implementation|"
                          r"No Op registered|not supported opset|Unsupported model IR|is not supported by", what))


def page(path):
    with open(path) as f:
        rows = [json.loads(line) for line in f]
    last = {(r["model"], r["way"]): r for r in rows}
    by = collections.defaultdict(list)
    for (model, way), r in sorted(last.items()):
        by[way].append(r)
    own = {r["model"] for r in last.values()}
    print("# Conversion\n\nPrinted by tests/peers/again.py. Models said again in every way, and what became of them: said, valid for the official checker")
    print("(`full_check`), in agreement with the recorded outputs in onnxruntime (of those models that it runs) and by linnet's reference kernels.")
    print("Peer: what onnx.version_converter makes of the same model, valid and in agreement.\n")
    print(f"{len(own)} models; a way that was tried on fewer says of how many.\n")
    print("Fusing may cost a few bytes where an operator and its names are longer than what they replace.\n")
    print("Models in half precision are held to the tolerance of float here, and dynamic quantisation flips a step at a tie: both may differ in onnxruntime.")
    print("Not the same bytes when repeated: models of onnxruntime's own with LayerNormalization before opset 17, whose body is written and simplified the next time.\n")
    print("onnxruntime has SimplifiedLayerNormalization in the standard domain, where the official checker does not know it; a model that has it keeps it.\n")
    print("| way | said | valid | onnxruntime agrees | of | reference agrees | same bytes when repeated | no larger | peer |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    bad = []
    for way in WAYS:
        rs = by.get(way, [])
        if not rs:
            continue
        ok = [r for r in rs if r["converted"]]
        runs = [r for r in ok if not newest_only(r["onnxruntime"])]
        cell = [way, f"{len(ok)} of {len(rs)}", sum(r["checker"] == "valid" for r in ok), sum(r["onnxruntime"] == "agrees" for r in runs), len(runs),
                sum(r["reference"] == "agrees" for r in ok)]
        cell.append(sum(r["idempotent"] for r in ok) if "idempotent" in (ok or [{}])[0] else "")
        cell.append(sum(r["bytes"][1] <= r["bytes"][0] for r in ok) if way in ("simplify", "fuse") else "")
        cell.append(sum(r.get("peer") == "agrees" for r in rs) if way.startswith("opset") else "")
        print("| " + " | ".join(str(c) for c in cell) + " |")
        for r in rs:
            if not r["converted"]:
                bad.append((r["said"], r["model"], way))
                continue
            for key, good in (("checker", "valid"), ("onnxruntime", "agrees"), ("reference", "agrees")):
                if r[key] != good and not (key == "onnxruntime" and newest_only(r[key])):
                    bad.append((f"{key}: {r[key]}", r["model"], way))
            for key in ("names", "outputs", "idempotent"):
                if not r.get(key, True):
                    bad.append((f"not {key}", r["model"], way))
            if way in ("simplify", "fuse") and r["bytes"][1] > r["bytes"][0]:
                bad.append((f"larger: {r['bytes'][0]} bytes become {r['bytes'][1]}", r["model"], way))
    print("\n## Exceptions\n\n| model | ways | what |\n| --- | --- | --- |")
    group = collections.defaultdict(list)
    for what, model, way in bad:
        group[(model, re.sub(r"opset \d+ of ai.onnx", "that opset", what).replace("|", "\\|"))].append(way)
    for (model, what), ways in sorted(group.items()):
        print(f"| {model} | {', '.join(ways)} | {what[:240]} |")


def main():
    if sys.argv[1:2] == ["--page"]:
        page(sys.argv[2])
        return
    p = argparse.ArgumentParser()
    p.add_argument("linnet")
    p.add_argument("models")
    p.add_argument("results")
    p.add_argument("--every", type=int, default=1)
    p.add_argument("--from", dest="start", type=int, default=0)
    p.add_argument("--jobs")
    sweep(p.parse_args())


main()
