"""Drawn calls of every operator by linnet's reference kernels, onnxruntime and the official reference evaluator.

ops.py DRAW COUNT [--write PAGE] [NAME ...]: the program that draws calls (draw.c) and how many of each row. Fails when an operator
disagrees that REASONS below does not explain, or when a reason is no longer needed. --write makes the page of disagreements.
"""

import collections
import concurrent.futures
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.reference
import onnxruntime

from reasons import REASONS

DRAW, COUNT = sys.argv[1], sys.argv[2]
PEERS = ("onnxruntime", "evaluator")
NEWEST = onnx.defs.onnx_opset_version()


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


def by_onnxruntime(m, feeds, outs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(outs, feeds)


def by_evaluator(m, feeds, outs):
    with np.errstate(all="ignore"):
        return onnx.reference.ReferenceEvaluator(m).run(outs, feeds)


def extreme(feeds):
    """Whether sums and products of the inputs may leave the range of floats: then what is not finite depends on the order of terms."""
    for x in feeds.values():
        if x.dtype.kind == "f" and x.size and not (np.abs(x.astype(np.float64)).max() < (1e2 if x.dtype == np.float16 else 1e9)):
            return True
    return False


def differ(want, got, loose):
    """(verdict, how) of the peer's output. loose: elements that are not finite in one of both are not compared."""
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
            near |= loose & ~(np.isfinite(a) & np.isfinite(b))
        bad = np.flatnonzero(~(near | (a == b) | (np.isnan(a) & np.isnan(b))))
    return ("agree", "") if not bad.size else ("differ", f"{bad.size} of {want.size} elements, first {got.ravel()[bad[0]]!r}, ours {want.ravel()[bad[0]]!r}")


def opset_of(call, newest):
    """The newest opset with the row's semantics that the peer knows; None when there is none."""
    if call["domain"] == "com.microsoft":
        return 1
    if call["domain"]:
        return call["since"]
    last = min(call["until"] or newest, newest)
    return last if last >= call["since"] else None


def judge(job):
    """(verdict, why): agree; differ; type (of an element type that the schema does not give); refused (the peer does not run it); errors (ours does
    not, the peer does)."""
    peer, line = job
    call = json.loads(line)
    opset = opset_of(call, NEWEST_ORT if peer == "onnxruntime" else NEWEST)
    if opset is None or (peer == "evaluator" and call["domain"] == "com.microsoft"):
        return "refused", "no such operator"
    signal.alarm(20)
    try:
        m = model(call, opset)
        feeds = {f"x{i}": onnx.numpy_helper.to_array(array(t)) for i, t in enumerate(call["in"]) if t}
        outs = [f"y{i}" for i, t in enumerate(call["out"]) if t]
        if not outs and call["error"]:
            m.graph.output.append(onnx.ValueInfoProto(name="y0"))
            m.graph.node[0].output[:] = ["y0"]
            outs = ["y0"]
        got = (by_onnxruntime if peer == "onnxruntime" else by_evaluator)(m, feeds, outs)
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


NEWEST_ORT = 0
NEWEST_ORT = newest_ort()


def title(call):
    return f"{call['domain'] or 'ai.onnx'}.{call['op']}-{call['since']}"


def quiet():
    """Peers' messages on stderr are not ours."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def workers(n):
    return concurrent.futures.ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("fork"), initializer=quiet)


def run_all(lines):
    """Verdicts in the order of jobs; a peer that dies takes its worker along: that job is judged a crash."""
    jobs = [(p, line) for line in lines for p in PEERS]
    result = {}
    for begin in range(0, len(jobs), 200):
        step = range(begin, min(begin + 200, len(jobs)))
        with workers(2) as pool:
            futures = {k: pool.submit(judge, jobs[k]) for k in step}
            for k, f in futures.items():
                try:
                    result[k] = f.result()
                except concurrent.futures.process.BrokenProcessPool:
                    pass
        for k in step:  # one after the other, to find which it was
            if k not in result:
                with workers(1) as pool:
                    try:
                        result[k] = pool.submit(judge, jobs[k]).result()
                    except concurrent.futures.process.BrokenProcessPool:
                        result[k] = ("crash", "the process died")
    return [(jobs[k], result[k]) for k in range(len(jobs))]


def main():
    args = sys.argv[3:]
    page = None
    if args[:1] == ["--write"]:
        page, args = args[1], args[2:]
    lines = subprocess.run([DRAW, COUNT, *args], capture_output=True, text=True, check=True).stdout.splitlines()
    counts = collections.defaultdict(lambda: {p: collections.Counter() for p in PEERS})
    example = {}
    for (peer, line), (verdict, why) in run_all(lines):
        call = json.loads(line)
        counts[title(call)][peer][verdict] += 1
        if verdict in ("differ", "type", "errors", "crash"):
            example.setdefault((title(call), peer, verdict), why)
            if args:
                print(title(call), peer, verdict, why, "\n   ", line[:1500])
    unexplained = sorted(k for k in example if k not in REASONS)
    unneeded = [] if args or page else sorted(k for k in REASONS if k not in example)
    for k in unexplained:
        print("not explained:", *k, "|", example[k])
    for k in unneeded:
        print("explained without need:", *k)
    total = {p: collections.Counter() for p in PEERS}
    for row in counts.values():
        for p in PEERS:
            total[p].update(row[p])
    print(f"{len(lines)} calls of {len(counts)} rows;", "; ".join(f"{p}: " + ", ".join(f"{n} {v}" for v, n in sorted(total[p].items())) for p in PEERS))
    if page:
        with open(page, "w") as f:
            write_page(f, counts, total, example, len(lines))
    return bool(unexplained or unneeded)


def write_page(f, counts, total, example, calls):
    f.write("# Where other programs compute something else\n\n")
    f.write(f"Written by tests/peers/ops.py: {calls} drawn calls of {len(counts)} rows, computed by the reference kernels, by onnxruntime "
            f"{onnxruntime.__version__} (opset {NEWEST_ORT}) and by the reference evaluator of onnx {onnx.__version__} (opset {NEWEST}). "
            "`refused`: the program raises an error or has no such operator.\n\n")
    f.write("| | agree | differ | gives another type | linnet refuses, it computes | refused | crashed |\n|---|---|---|---|---|---|---|\n")
    for p in PEERS:
        t = total[p]
        f.write(f"| {p} | {t['agree']} | {t['differ']} | {t['type']} | {t['errors']} | {t['refused']} | {t['crash']} |\n")
    f.write("\n| operator, since opset | program | what | how many calls | who is right, and why | an example |\n|---|---|---|---|---|---|\n")
    for (name, peer, verdict), why in sorted(example.items()):
        n, all_ = counts[name][peer][verdict], sum(counts[name][peer].values())
        reason = REASONS.get((name, peer, verdict), "not explained yet")
        f.write(f"| {name} | {peer} | {verdict} | {n} of {all_} | {reason} | {why.replace('|', '/')} |\n")


if __name__ == "__main__":
    sys.exit(main())
