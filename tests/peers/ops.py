"""Drawn calls of every operator by linnet's reference kernels, onnxruntime, the official reference evaluator, and ONNX's function bodies.

ops.py DRAW COUNT [--write PAGE] [NAME ...]: the program that draws calls (draw.c) and how many of each row. Fails when an operator
disagrees that reasons.py does not explain, or when a reason is no longer needed. --write makes the page of disagreements.
"""

import collections
import concurrent.futures
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import onnx
import onnx.helper
import onnx.inliner
import onnx.numpy_helper
import onnx.reference
import onnxruntime

from reasons import RARE, REASONS, VARIES

DRAW, COUNT = sys.argv[1], sys.argv[2]
NEWEST = onnx.defs.onnx_opset_version()
VERSIONS = collections.defaultdict(set)
for s in onnx.defs.get_all_schemas_with_history():
    if not s.domain:
        VERSIONS[s.name].add(s.since_version)
FLAGS = ("training_mode", "interleaved", "reverse", "inverse", "onesided", "align_corners", "is_causal", "transA", "transB", "keepdims")


def array(t):
    """A tensor of draw.c as ONNX's."""
    kind, dims, data = t
    proto = onnx.TensorProto(data_type=kind, dims=dims)
    if isinstance(data, list):
        proto.string_data.extend(s.encode() for s in data)
    else:
        proto.raw_data = bytes.fromhex(data)
    return proto


def attribute(name, field, values):
    values = [v.encode() if isinstance(v, str) else v for v in values]
    if field == "t":
        values = [array(values[0])]
    a = onnx.AttributeProto(name=name, type={"i": 2, "f": 1, "s": 3, "t": 4, "ints": 7, "floats": 6, "strings": 8}[field])
    if field == "t":
        a.t.CopyFrom(values[0])
    elif field in ("i", "f", "s"):
        setattr(a, field, values[0])
    else:
        getattr(a, field).extend(values)
    return a


def model(call, opset):
    """Inputs are inputs; the outputs' types are left to the peer."""
    domain = call["domain"]
    outs = [f"y{i}" if t else "" for i, t in enumerate(call["out"])]
    node = onnx.NodeProto(op_type=call["op"], domain=domain, name="node")
    node.input.extend(f"x{i}" if t else "" for i, t in enumerate(call["in"]))
    node.output.extend(outs)
    node.attribute.extend(attribute(k, *v) for k, v in call["attrs"].items())
    graph = onnx.GraphProto(name="call", node=[node])
    for i, t in enumerate(call["in"]):
        if t:
            graph.input.append(onnx.helper.make_tensor_value_info(f"x{i}", t[0], t[1]))
    for i, t in enumerate(call["out"]):
        if t:
            graph.output.append(onnx.helper.make_tensor_value_info(f"y{i}", t[0], [None] * len(t[1])))
    imports = [onnx.helper.make_opsetid("", opset if domain == "" else NEWEST_ORT)]
    if domain:
        imports.append(onnx.helper.make_opsetid(domain, opset))
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)


def unfair(call):
    """Whether nothing is to be learned: an operator of ours, a flag that is neither 0 nor 1, results at random or in any order."""
    attrs = {k: v[1][0] if v[1] else None for k, v in call["attrs"].items()}
    if call["domain"] == "linnet" or any(attrs.get(k, 0) not in (0, 1) for k in FLAGS):
        return True
    if call["op"] == "TopK" and attrs.get("sorted") == 0:  # any order
        return True
    return call["op"] == "Dropout" and len(call["in"]) > 2 and call["in"][2] and call["in"][2][2] == "01"


def by_onnxruntime(m, feeds, outs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(outs, feeds)


def by_evaluator(m, feeds, outs):
    with np.errstate(all="ignore"):
        return onnx.reference.ReferenceEvaluator(m).run(outs, feeds)


def by_function(m, feeds, outs):
    """The node replaced by its schema's function body, which onnxruntime runs, or the evaluator where that cannot."""
    node = m.graph.node[0]
    opset = next(o.version for o in m.opset_import if o.domain == node.domain)
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    types = [next((i.type for i in m.graph.input if i.name == name), onnx.TypeProto()) for name in node.input]
    for name, a in schema.attributes.items():  # an inlined body knows no defaults
        if a.default_value.name and all(g.name != name for g in node.attribute):
            node.attribute.append(a.default_value)
    if schema.has_function:
        text = schema.get_function_with_opset_version(max(v for v in schema.function_opset_versions if v <= max(opset, 18)))
    else:
        versions = schema.context_dependent_function_opset_versions
        text = schema.get_context_dependent_function_with_opset_version(
            max(v for v in versions if v <= opset), node.SerializeToString(), [t.SerializeToString() for t in types])
    function = onnx.FunctionProto.FromString(text)
    if not function.node:
        raise NotImplementedError("the schema makes no body of this call")
    function.domain = node.domain = "body"
    function.name = node.op_type
    del m.opset_import[:]
    m.opset_import.extend(function.opset_import)
    m.opset_import.append(onnx.helper.make_opsetid("body", 1))
    m.functions.append(function)
    inlined = onnx.inliner.inline_local_functions(m)
    try:
        return by_onnxruntime(inlined, feeds, outs)
    except Exception:
        return by_evaluator(inlined, feeds, outs)


def known(peer, call):
    """Whether the peer may have the operator."""
    if peer == "onnxruntime":
        return True
    if call["domain"] == "com.microsoft":
        return False
    if peer == "evaluator":
        return True
    try:
        schema = onnx.defs.get_schema(call["op"], opsets(call, NEWEST)[0], call["domain"])
    except onnx.defs.SchemaError:
        return False
    return schema.has_function or schema.has_context_dependent_function


RUN = {"onnxruntime": by_onnxruntime, "evaluator": by_evaluator, "function": by_function}
PEERS = tuple(RUN)


def extreme(feeds):
    """Whether sums and products of the inputs may leave the range of floats: then what is not finite depends on the order of terms."""
    for x in feeds.values():
        if x.dtype.kind == "f" and x.size and not (np.abs(x.astype(np.float64)).max() < (1e2 if x.dtype == np.float16 else 1e9)):
            return True
    return False


def differ(want, got, loose):
    """(verdict, how) of the peer's output. loose: elements that are not finite, or 0, in one of both are not compared."""
    if isinstance(got, (list, dict)) or got is None:
        return "type", "no tensor"
    got = np.asarray(got)
    if tuple(want.shape) != tuple(got.shape):
        return "differ", f"shape {list(got.shape)}, ours {list(want.shape)}"
    if want.dtype == object or got.dtype.kind in "OUST":
        a, b = ([x.decode() if isinstance(x, bytes) else str(x) for x in v.ravel()] for v in (want, got))
        return ("agree", "") if a == b else ("differ", "other strings")
    if want.dtype != got.dtype:
        return "type", f"type {got.dtype}, ours {want.dtype}"
    if want.dtype.kind in "biu":
        bad = np.flatnonzero(want.ravel() != got.ravel())
    else:
        a, b = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        rel = 4e-3 if want.dtype == np.float16 else 1e-4
        finite = np.abs(a[np.isfinite(a)])
        with np.errstate(all="ignore"):
            near = np.abs(a - b) <= rel * np.abs(a) + rel * (finite.max() if finite.size else 0) + 1e-6
            near |= loose & ~(np.isfinite(a) & np.isfinite(b) & (a != 0) & (b != 0))
        bad = np.flatnonzero(~(near | (a == b) | (np.isnan(a) & np.isnan(b))))
    return ("agree", "") if not bad.size else ("differ", f"{bad.size} of {want.size} elements, first {got.ravel()[bad[0]]!r}, ours {want.ravel()[bad[0]]!r}")


def opsets(call, newest):
    """Those with the row's semantics that the peer may know, the newest first."""
    if call["domain"] == "com.microsoft":
        return [1]
    if call["domain"]:
        return [call["since"]]
    last = min(call["until"] or newest, newest)
    return sorted({v for v in VERSIONS[call["op"]] | {last} if call["since"] <= v <= last}, reverse=True)


def with_hidden_size(call):
    """onnxruntime wants the attribute, which may be left out."""
    if call["op"] in ("RNN", "GRU", "LSTM") and "hidden_size" not in call["attrs"]:
        return call | {"attrs": call["attrs"] | {"hidden_size": ["i", [call["in"][2][1][-1]]]}}
    return call


def run(peer, call, feeds):
    """The peer's outputs; raises what it raises. onnxruntime has not every version of an operator that it has."""
    call = with_hidden_size(call)
    error = NotImplementedError("no such operator")
    for opset in opsets(call, NEWEST_ORT if peer == "onnxruntime" else NEWEST):
        m = model(call, opset)
        outs = [o for o in m.graph.node[0].output if o]
        if not outs:
            m.graph.output.append(onnx.ValueInfoProto(name="y0"))
            m.graph.node[0].output[:] = outs = ["y0"]
        try:
            return RUN[peer](m, feeds, outs)
        except Exception as e:
            error = e
            if peer != "onnxruntime" or "NOT_IMPLEMENTED" not in str(e):
                break
    raise error


def judge(peer, call):
    """(verdict, why): agree; differ; type (of an element type that the schema does not give); refused (the peer does not run it); errors (ours does
    not, the peer does)."""
    feeds = {f"x{i}": onnx.numpy_helper.to_array(array(t)) for i, t in enumerate(call["in"]) if t}
    signal.alarm(60)
    try:
        got = run(peer, call, feeds)
    except Exception as e:  # whatever the peer raises: it does not run this
        return "refused", str(e).replace("\n", " ")[:300]
    finally:
        signal.alarm(0)
    if call["error"]:
        return "errors", f"ours refuses: {call['error']}"
    for i, t in enumerate(x for x in call["out"] if x):
        verdict, why = differ(onnx.numpy_helper.to_array(array(t)), got[i], extreme(feeds))
        if verdict != "agree":
            return verdict, f"output {i}: {why}"
    return "agree", ""


def newest_ort():
    for opset in range(NEWEST, 15, -1):
        call = {"domain": "", "op": "Neg", "attrs": {}, "in": [[1, [1], "0000803f"]], "out": [[1, [1], "000080bf"]]}
        try:
            by_onnxruntime(model(call, opset), {"x0": np.ones(1, np.float32)}, ["y0"])
            return opset
        except Exception:
            continue
    sys.exit("onnxruntime runs no opset")


FORK = multiprocessing.get_context("fork")
NEWEST_ORT = 0
NEWEST_ORT = newest_ort()


def title(call):
    return f"{call['domain'] or 'ai.onnx'}.{call['op']}-{call['since']}"


def work(jobs, results):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # peers' messages on stderr are not ours
    for job in jobs:
        results.send(judge(*job))


def drive(jobs, lock=threading.Lock()):
    """Verdicts in the order of jobs, by processes of their own: one that dies was at the first job without a verdict."""
    done = []
    while len(done) < len(jobs):
        with lock:  # or a process made meanwhile would hold this one's end of the pipe
            here, there = FORK.Pipe(False)
            process = FORK.Process(target=work, args=(jobs[len(done):len(done) + 500], there))
            process.start()
            there.close()
        try:
            for _ in range(min(500, len(jobs) - len(done))):
                done.append(here.recv())
        except EOFError:
            done.append(("crash", "the process died"))
        process.join()
    return done


def run_all(calls):
    """[(peer, call, verdict, why)]"""
    jobs = [(p, c) for p in PEERS for c in calls if known(p, c)]
    half = len(jobs) // 2
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        verdicts = sum(pool.map(drive, (jobs[:half], jobs[half:])), [])
    return [(*job, *verdict) for job, verdict in zip(jobs, verdicts)]


def main():
    args = sys.argv[3:]
    page = None
    if args[:1] == ["--write"]:
        page, args = args[1], args[2:]
    lines = subprocess.run([DRAW, COUNT, *args], capture_output=True, text=True, check=True).stdout.splitlines()
    calls = [c for c in map(json.loads, lines) if not unfair(c)]
    counts = collections.defaultdict(lambda: {p: collections.Counter() for p in PEERS})
    example = {}
    for peer, call, verdict, why in run_all(calls):
        counts[title(call)][peer][verdict] += 1
        if verdict in ("differ", "type", "errors", "crash"):
            example.setdefault((title(call), peer, verdict), why)
            if args:
                print(title(call), peer, verdict, why, "\n   ", json.dumps(call)[:1500])
    unexplained = sorted(k for k in example if k not in REASONS and k not in RARE)
    unneeded = [] if args or page else sorted(k for k in REASONS if k not in example and k not in VARIES)
    for k in unexplained:
        print("not explained:", *k, "|", example[k])
    for k in unneeded:
        print("explained without need:", *k)
    total = {p: collections.Counter() for p in PEERS}
    for row in counts.values():
        for p in PEERS:
            total[p].update(row[p])
    print(f"{len(calls)} calls of {len(counts)} rows;", "; ".join(f"{p}: " + ", ".join(f"{n} {v}" for v, n in sorted(total[p].items())) for p in PEERS))
    if page:
        with open(page, "w") as f:
            write_page(f, counts, total, example, len(calls))
    return bool(unexplained or unneeded)


def write_page(f, counts, total, example, calls):
    f.write("# Where other programs compute something else\n\n")
    f.write(f"Written by tests/peers/ops.py: {calls} drawn calls of {len(counts)} rows, computed by the reference kernels, by onnxruntime "
            f"{onnxruntime.__version__} (opset {NEWEST_ORT}), by the reference evaluator of onnx {onnx.__version__} (opset {NEWEST}) and, where the operator has one, by its "
            "function body, which onnxruntime runs or else the evaluator. `refused`: the program raises an error or does not know the operator. Not compared: elements that "
            "are infinite, NaN or 0 in one of both when the inputs are so large that sums or products may overflow.\n\n")
    f.write("| | agree | differ | gives another type | linnet refuses, it computes | refused | crashed |\n|---|---|---|---|---|---|---|\n")
    for p in PEERS:
        t = total[p]
        f.write(f"| {p} | {t['agree']} | {t['differ']} | {t['type']} | {t['errors']} | {t['refused']} | {t['crash']} |\n")
    f.write("\n| operator, since opset | program | what | how many calls | who is right, and why | an example |\n|---|---|---|---|---|---|\n")
    for (name, peer, verdict), why in sorted(example.items()):
        n, all_ = counts[name][peer][verdict], sum(counts[name][peer].values())
        reason = (REASONS | RARE).get((name, peer, verdict), "not explained yet")
        f.write(f"| {name} | {peer} | {verdict} | {n} of {all_} | {reason} | {why.replace('|', '/')} |\n")
    f.write("\nIn more calls of each row also these were seen:\n\n| operator, since opset | program | what | who is right, and why |\n|---|---|---|---|\n")
    for (name, peer, verdict), reason in sorted(RARE.items()):
        f.write(f"| {name} | {peer} | {verdict} | {reason} |\n")


if __name__ == "__main__":
    sys.exit(main())
