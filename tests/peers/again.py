"""Say every model of a folder again, in every way, and hold the result to the official checker, the official and linnet's own shape inference,
onnxruntime and linnet's reference kernels; exact ways also to being idempotent and to not growing.

again.py LINNET MODELS RESULTS [--every N] [--from K] [--ways simplify,fuse,...] [--models a,b]: a line of JSON a job goes to RESULTS (jobs
already there are kept). again.py --page RESULTS: docs/conversion.md on standard output.

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
EXACT = {"simplify": ["--simplify"], "fuse": ["--fuse"], "fuse=ort": ["--fuse=ort"], "expand": ["--expand"]}
WAYS = {
    **EXACT,
    "float16": ["--float16", "--keep-io"],
    "bfloat16": ["--bfloat16", "--keep-io"],
    "float32": ["--float32", "--keep-io"],
    **{f"opset {n}": ["--opset", str(n)] for n in OPSETS},
}
LIMIT = 180  # seconds of one command
HALF = {10: 2.0**-10, 16: 2.0**-7}  # steps of float16 and bfloat16


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
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def graphs(graph):
    yield graph
    for n in graph.node:
        for a in n.attribute:
            if a.HasField("g"):
                yield from graphs(a.g)
            for g in a.graphs:
                yield from graphs(g)


class Original:
    """A model as it is, what is known of it, and how exactly others are held to it."""

    def __init__(self, linnet, folder):
        import onnx

        self.folder, self.path = folder, os.path.join(folder, "model.onnx")
        self.name = os.path.basename(folder)
        self.model = onnx.load(self.path)
        self.initial = {i.name for i in self.model.graph.initializer}
        self.inputs = [i for i in self.model.graph.input if i.name not in self.initial]
        self.sets = list(self.data_sets())
        self.checker = checked(self.path)
        types = {t.data_type for g in graphs(self.model.graph) for t in g.initializer}
        types |= {v.type.tensor_type.elem_type for v in [*self.model.graph.input, *self.model.graph.output]}
        self.unit = max([HALF.get(t, 0) for t in types])
        self.ops = collections.Counter(n.op_type for g in graphs(self.model.graph) for n in g.node)
        self.official = official_types(self.model)
        self.types = own_types(linnet, self.path)
        self.size = weigh(linnet, self.path)
        self.onnxruntime = in_onnxruntime(self.path, self, *self.tolerance(""))

    def data_sets(self):
        for name in sorted(os.listdir(self.folder)):
            if name.startswith("test_data_set_"):
                path = os.path.join(self.folder, name)
                yield ({v.name: load_value(os.path.join(path, f"input_{k}.pb"), v) for k, v in enumerate(self.inputs)},
                       [load_value(os.path.join(path, f"output_{k}.pb"), v) for k, v in enumerate(self.model.graph.output)])

    def tolerance(self, way):
        """Relative and absolute. Models and ways in half precision are held to a few of its steps."""
        unit = max(self.unit, {"float16": HALF[10], "bfloat16": HALF[16]}.get(way, 0))
        return max(1e-3, 16 * unit), max(1e-5, 8 * unit)


# ---- What becomes of values ----

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


def in_onnxruntime(path, original, rtol, atol):
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
    names = [o.name for o in original.model.graph.output]
    try:
        for feed, expected in original.sets:
            for o, f, x in zip(names, session.run(names, feed), expected):
                if not agree(f, x, rtol, atol):
                    return f"differs at {o}"
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


# ---- Types: what inference finds when nothing but the inputs is declared ----

def bare(model):
    m = type(model)()
    m.CopyFrom(model)
    del m.graph.value_info[:]
    for v in m.graph.output:
        if v.type.HasField("tensor_type"):
            v.type.tensor_type.ClearField("shape")
    return m


def official_types(model):
    """Lengths of outputs as onnx.shape_inference finds them; None what it does not find."""
    import onnx

    m = bare(model)
    for t in m.graph.initializer:  # its lengths matter, and small ones' contents
        if len(t.raw_data) > 4096:
            t.ClearField("raw_data")
    try:
        found = onnx.shape_inference.infer_shapes(m)
    except Exception:
        return {}
    return {v.name: [d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim]
            for v in found.graph.output if v.type.tensor_type.HasField("shape")}


def own_types(linnet, path):
    """Types of all values of the main graph as linnet infers them, lengths as expressions in the inputs' symbols."""
    p = subprocess.run([linnet, "show", "--json", path], capture_output=True, text=True, timeout=LIMIT)
    types = {}
    for line in p.stdout.splitlines():
        r = json.loads(line)
        if r["kind"] == "model" or (r["kind"] == "node" and not r["depth"]):
            types.update((v["name"], v["type"]) for v in [*r["inputs"], *r["outputs"]] if v)
    return types


def same_types(linnet, original, again, tmp):
    """"same", or the first value for which inference finds something else than before."""
    import onnx

    path = os.path.join(tmp, "bare.onnx")
    onnx.save(bare(again), path)
    now = own_types(linnet, path)
    os.remove(path)
    for name in [v.name for v in original.model.graph.output] + list(now):
        if name in original.types and now.get(name) != original.types[name]:
            return f"{name} was {original.types[name]}, is {now.get(name)}"
    official = official_types(again)
    for name, lengths in original.official.items():
        found = official.get(name)
        if found and (len(found) != len(lengths) or any(a is not None and b is not None and a != b for a, b in zip(found, lengths))):
            return f"onnx: {name} was {lengths}, is {found}"
    return "same"


# ---- Growth ----

def weigh(linnet, path):
    """Nodes and bytes, of the file and what lies beside it; a file's functions are counted where they are called."""
    import onnx

    p = subprocess.run([linnet, "show", "--json", path], capture_output=True, text=True, timeout=LIMIT)
    beside = {e.value for g in graphs(onnx.load(path, load_external_data=False).graph) for t in g.initializer for e in t.external_data if e.key == "location"}
    return [sum(json.loads(line)["kind"] == "node" for line in p.stdout.splitlines()),
            sum(os.path.getsize(f) for f in [path, *(os.path.join(os.path.dirname(path), b) for b in beside)])]


# ---- One job ----

def one(linnet, original, way, tmp):
    import onnx

    out = os.path.join(tmp, "model.onnx")
    for f in os.listdir(tmp):
        os.remove(os.path.join(tmp, f))
    rtol, atol = original.tolerance(way)
    result = {"model": original.name, "way": way, "original": [original.checker, original.onnxruntime]}
    if way.startswith("opset"):
        result["peer"] = official(original, int(way.split()[1]), os.path.join(tmp, "peer.onnx"))
    status, said = run(linnet, "convert", original.path, "-o", out, "--quiet", *WAYS[way])
    if status:
        return {**result, "converted": False, "said": said.replace(original.path + ": ", "").replace("linnet: ", "")}
    again = onnx.load(out)
    ends = {v.name for v in again.graph.input} == {v.name for v in original.inputs} | ({v.name for v in again.graph.input} & original.initial)
    result.update(converted=True, checker=checked(out), names=ends and [v.name for v in again.graph.output] == [v.name for v in original.model.graph.output])
    result["size"] = [original.size, weigh(linnet, out)]
    result["types"] = same_types(linnet, original, again, tmp) if "float" not in way else "same"
    result["onnxruntime"] = in_onnxruntime(out, original, rtol, atol)
    for s in os.listdir(original.folder):
        if s.startswith("test_data_set_"):
            os.symlink(os.path.join(original.folder, s), os.path.join(tmp, s))
    status, said = run(linnet, "test", tmp, "--as-written", "--kernels", "reference", "--rtol", str(rtol), "--atol", str(atol))
    result["reference"] = "agrees" if not status else said.replace(tmp, "")[-200:]
    if way in EXACT:
        twice = os.path.join(tmp, "twice.onnx")
        status, said = run(linnet, "convert", out, "-o", twice, "--quiet", *WAYS[way])
        with open(out, "rb") as a:
            first = a.read()
        result["idempotent"] = False
        if not status:
            with open(twice, "rb") as b:
                result["idempotent"] = first == b.read()
    return result


def official(original, opset, out):
    """What onnx.version_converter makes of it: "agrees", or what is the matter. In a process of its own: it may abort."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        import onnx
        from onnx import version_converter

        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            onnx.save(version_converter.convert_version(original.model, opset), out)
        except BaseException as e:
            os.write(write, short(e).encode())
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        said = f.read()
    _, status = os.waitpid(child, 0)
    if status:
        return "fails: " + (said or f"signal {status & 127}")
    valid = checked(out)
    return "invalid: " + valid if valid != "valid" else in_onnxruntime(out, original, *original.tolerance(""))


def sweep(a):
    done = set()
    if os.path.exists(a.results):
        with open(a.results) as f:
            done = {(r["model"], r["way"]) for r in map(json.loads, f)}
    folders = sorted(e.path for e in os.scandir(a.models) if os.path.exists(os.path.join(e.path, "model.onnx")))[a.start :: a.every]
    wanted = a.ways.split(",") if a.ways else list(WAYS)
    with open(a.results, "a") as f, tempfile.TemporaryDirectory() as tmp:
        for folder in folders:
            name = os.path.basename(folder)
            ways = [w for w in wanted if (name, w) not in done]
            if not ways or (a.only and name not in a.only.split(",")):
                continue
            original = Original(a.linnet, folder)
            for way in ways:
                try:
                    r = one(a.linnet, original, way, tmp)
                except Exception as e:
                    r = {"model": name, "way": way, "converted": False, "said": "the script: " + short(e)}
                f.write(json.dumps(r) + "\n")
                f.flush()


# ---- The page ----

def newest_only(what):
    """onnxruntime knows opsets to 26 and not every operator at every type: that says nothing of the model."""
    return bool(re.search(r"NOT_IMPLEMENTED|under development|is till opset|Type .tensor.bfloat16|not a registered function|Could not find an implementation|"
                          r"No Op registered|not supported opset|Unsupported model IR|is not supported by", what))


def larger(r):
    return any(now > was for was, now in zip(*r["size"]))


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
    print("No larger: neither in nodes nor in bytes of files. Where --simplify or --fuse alone would make a file larger, it stays as it was.\n")
    print("Held to: 1e-3 relative and 1e-5 absolute (times the largest value); in float16 and bfloat16 to 16 and 8 steps of the type. Six models do not keep that in")
    print("float16. Five are quantised: up to their first 8-bit values nothing is far off, and of these 3 to 13 in about 1000 are the neighbouring step, from which on")
    print("the difference grows layer by layer (first ones, of 448 to 1152: var_bert_dynq_int8_perchannel 7, var_bert_fused_dynq 3, var_deit_qoperator_int8 13,")
    print("var_llama_dynq_int8 10, var_vit_qdq_int8 4). pkg_basic_pitch_nmp takes the logarithm of a spectrum: samples of 0.3 in float16 leave 6e-6 in bands of 3e-4,")
    print("which the logarithm makes 1.8 of 8.6.\n")
    print("Twelve models are not valid to begin with: onnxruntime has SimplifiedLayerNormalization, and LayerNormalization before opset 17, in the standard domain, where")
    print("the official checker does not know them. A model that has the latter is said in opset 17, expanded or at an opset that is asked for. Four have the former: they keep")
    print("it with their opset, for onnxruntime has a kernel for it; expanded, or at an opset that is asked for, they are valid.\n")
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
        cell.append(sum(not larger(r) for r in ok) if way in ("simplify", "fuse") else "")
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
            if r["types"] != "same":
                bad.append((f"types: {r['types']}", r["model"], way))
            if way in ("simplify", "fuse") and larger(r):
                (n, size), (n2, size2) = r["size"]
                bad.append((f"larger: {n} nodes in {size} bytes become {n2} in {size2}", r["model"], way))
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
    p.add_argument("--ways")
    p.add_argument("--models", dest="only")
    sweep(p.parse_args())


if __name__ == "__main__":
    main()
