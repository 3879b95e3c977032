"""Convert every model of folders by every mechanism into every target, and hold the results to the official checker, to each other (the certificate of
agreement in the card), to onnxruntime and to the official reference evaluator.

sweep.py LINNET WORK FOLDER... [--page FILE] [--minutes X] [--every N] [--mechanisms a,b] [--models a,b] [--fresh] [--strict]

A FOLDER holds folders of models in the layout of ONNX's backend tests, or is one. A line of JSON a model and mechanism goes to WORK/sweep.jsonl; what is
there is not done again, unless --fresh. Each model comes with another mechanism first, so that a run that --minutes stops, or one of --every Nth, has seen all of both.
--page: the section of that page. --strict: exit status 1 when anything disagrees.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

from again import HALF, LIMIT, checked, graphs, load_value, short

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
from page import section  # noqa: E402

TARGETS = ("onnx", "ort", "portable", "quadratic", "step", "chunk")
STATES = ("step", "chunk")
# Drawn sequences are short: chunks and windows are shorter, so that there are several.
CHUNK, WINDOW, TOKENS = 5, 4, 12
WINDOWED = ("window", "diag", "lolcats")
# What options make of mechanisms, beside each as it is.
VARIANTS = ("elu --window 4 --sinks 1", "hedgehog --window 4", "gla --window 4", "liger-gsa --window 4", "gated-delta --window 4 --conv 1", "elu --fade retention",
            "exp --fade token --norm rms", "relu --fade channel", "retnet --fade 0.9", "taylor --degree 3 --norm rms", "elu --conv 3", "elu --heads query", "relu2 --norm group")
# Units of rounding, times the condition, by which linnet's targets may be apart; other engines sum in float, which the condition does not know: 1e-3 at least.
SLACK, ENGINES = 64, 1e-3
# Why a check is not kept: the check, models and mechanisms as regular expressions, who is right and how it was found out.
WHY = (
    ("certificate", ".*dynq.*", ".*", "The source: DynamicQuantizeLinear takes one scale of all tokens that it is given, so that pieces of a sequence are rounded differently. In one piece the targets agree."),
    ("onnxruntime|reference", "hf_mixtral_dy18_eager", "square|polynomial", "Rounding: a query is almost orthogonal to the only key that it sees, and the weight by which is divided, 1e-5 where 40 is usual, is a "
     "difference of large products; 2 % apart between two targets in ONNX Runtime alone."),
    ("linnet", "attn_decoder_with_cross_cache_ts14", "square|polynomial", "Rounding: as a product of features a squared score cancels where query and key are almost orthogonal, "
     "which the portable and quadratic forms, squaring the score itself, do not see; ONNX Runtime's runs of the portable and the ort target are as far apart, 3e-5."),
    ("certificate", "ms_genai_gqa_.*", "mamba2|square|polynomial", "Rounding: com.microsoft's operators have no kernel in double, so that these are compared in float, where their condition is not measured; "
     "two and a half units too many at most."),
    ("linnet", "hf_phi3_ts13_eager", "retnet.*", "Rounding: 2.1e-5 where the measured condition allows 1.9e-5."),
    ("reference", "var_vit_fp16", "relu2.*|transnormer", "The evaluator computes in float16 and warns that products and their sum overflow; ONNX Runtime, which computes it in float, agrees on the portable target."),
)
# For linnet's short runs: memory once taken from the system is kept, which saves a quarter of a conversion's processor time.
KEEPS = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TOP_PAD_": str(1 << 25)}


def tool(*args):
    """Exit status, the objects on standard output, the last line of what else was said."""
    try:
        p = subprocess.run(args, capture_output=True, text=True, timeout=LIMIT, env=KEEPS)
    except subprocess.TimeoutExpired:
        return 124, [], f"no end within {LIMIT} s"
    objects = [json.loads(line) for line in p.stdout.splitlines() if line.startswith("{")]
    said = next((o["message"] for o in objects if o["kind"] == "error"), (p.stderr.strip() or "nothing was said").split("\n")[-1])
    return p.returncode, objects, said


def far(found, expected):
    """Root of the normalised mean square error; infinite where lengths, NaNs or infinities differ."""
    worst = 0.0
    for name, x in expected.items():
        if name not in found or found[name].shape != x.shape:
            return np.inf, name
        f, x = found[name].astype(np.float64), x.astype(np.float64)
        ok = np.isfinite(x)
        if not (np.array_equal(np.isnan(f), np.isnan(x)) and np.array_equal(f[~ok & ~np.isnan(x)], x[~ok & ~np.isnan(x)])):
            return np.inf, name
        if ok.any():
            # Values far below one of their type's units around 1 say nothing of the engine.
            worst = max(worst, float(np.sqrt(np.sum((f[ok] - x[ok]) ** 2) / max(np.sum(x[ok] ** 2), 1e-12 * ok.sum()))))
    return worst, ""


# What the engines cannot do yet: types and operators they have no kernel for, Scan along other axes, Choose of more than 64.
CANNOT = re.compile(r"NOT_IMPLEMENTED|Could not find an implementation|Scan is not implemented for other|at most 64 array objects|is unknown, known functions|No Op registered|"
                    r"is till opset|under development")


class Ort:
    def __init__(self, path):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, feed):
        return dict(zip([o.name for o in self.session.get_outputs()], self.session.run(None, feed)))


class Reference:
    def __init__(self, path):
        import onnx.reference

        self.session = onnx.reference.ReferenceEvaluator(path)

    def run(self, feed):
        return dict(zip(self.session.output_names, self.session.run(None, feed)))


class Linnet:
    def __init__(self, linnet, path, tmp):
        self.command, self.tmp = [linnet, "run", "--json", path, "--threads", "1"], tmp

    def run(self, feed):
        files = os.path.join(self.tmp, "in.npz")
        np.savez(files, **feed)
        out = os.path.join(self.tmp, "out")
        os.makedirs(out, exist_ok=True)
        for f in os.listdir(out):
            os.remove(os.path.join(out, f))
        status, objects, said = tool(*self.command, "-i", files, "-o", out)
        if status:
            raise RuntimeError(said if status > 0 else f"signal {-status}")
        return {o["name"]: np.load(os.path.join(out, re.sub("[/:]", "_", o["name"]) + ".npy")) for o in objects if o["kind"] == "output"}


def length(expression, known, other):
    """A symbol's length, or that of an expression of symbols; `other` when it has symbols that nothing tells of."""
    if expression in known:
        return known[expression]
    try:
        return int(eval(expression.replace("/", "//"), {"__builtins__": {}}, known))
    except Exception:
        return other


class Source:
    """A model and inputs that fit it."""

    def __init__(self, path, data):
        import onnx

        self.failing = {}
        self.path, self.name = path, os.path.basename(os.path.dirname(path))
        model = onnx.load(path)
        initial = {t.name for t in model.graph.initializer}
        self.inputs = [v for v in model.graph.input if v.name not in initial]
        sets = sorted(e for e in os.listdir(data) if e.startswith("test_data_set_"))
        self.data = {v.name: load_value(os.path.join(data, sets[0], f"input_{k}.pb"), v) for k, v in enumerate(self.inputs)}
        self.symbols = {}
        for v in self.inputs:
            for axis, d in enumerate(v.type.tensor_type.shape.dim):
                if d.dim_param:
                    self.symbols.setdefault(d.dim_param, (axis, self.data[v.name].shape[axis]))
        types = {t.data_type for g in graphs(model.graph) for t in g.initializer} | {v.type.tensor_type.elem_type for v in model.graph.input}
        quantised = any("Quantize" in n.op_type or n.op_type.endswith(("Integer", "NBits")) for g in graphs(model.graph) for n in g.node)
        self.unit = max([2.0**-24, *(HALF.get(t, 0) for t in types), 2.0**-8 if quantised else 0])

    def fails(self, engine):
        """Whether the model itself does not run there."""
        if engine not in self.failing:
            try:
                engine(self.path).run(self.data)
                self.failing[engine] = False
            except Exception:
                self.failing[engine] = True
        return self.failing[engine]

    def feed(self, model):
        """Inputs of a conversion: the recorded ones repeated to the lengths that it has; states are zeros. Without caches all sequences are equally long."""
        initial = {t.name for t in model.graph.initializer}
        inputs = [v for v in model.graph.input if v.name not in initial]
        names = {v.name for v in inputs}
        cached = any(v.name not in names for v in self.inputs)
        known = {s: n if not cached or axis == 0 else TOKENS for s, (axis, n) in self.symbols.items()}
        feed = {}
        for v in inputs:
            t = v.type.tensor_type
            lengths = [d.dim_value if d.HasField("dim_value") else length(d.dim_param, known, 2 if axis == 0 else TOKENS) for axis, d in enumerate(t.shape.dim)]
            if v.name in self.data:
                feed[v.name] = np.resize(self.data[v.name], lengths)
            else:
                import onnx

                feed[v.name] = np.zeros(lengths, onnx.helper.tensor_dtype_to_np_dtype(t.elem_type))
        return feed


def runs(engine, feed):
    """Once; with states once more, on what they are then."""
    out = engine.run(feed)
    past = {n: out["present" + n[4:]] for n in feed if n.startswith("past") and "present" + n[4:] in out}
    if "position" in feed and "present_position" in out:
        past["position"] = out["present_position"]
        out.update({n + " again": v for n, v in engine.run({**feed, **past}).items()})
    return out


def verdict(path, feed, engine, mine, bound, source):
    """Where the engine fails on the source too, or knows less than the result needs, that says nothing of the result: "no: ..."."""
    try:
        apart, where = far(runs(engine(path), feed), mine)
    except Exception as e:
        return ("no: the source neither: " if source.fails(engine) else "no: " if CANNOT.search(str(e)) else "fails: ") + short(e)
    bound = max(bound, ENGINES)
    return "agrees" if apart <= bound else f"differs by {apart:.2g}{' of ' + where if where else ''}, {bound:.2g} is allowed"


def options(mechanism):
    name = mechanism.split()[0]
    return ["--mechanism", *mechanism.split(), *(["--window", str(WINDOW)] if name in WINDOWED and "--window" not in mechanism else []), "--chunk", str(CHUNK)]


def one(linnet, source, mechanism, target, base, tmp):
    """What became of one target; base holds what the portable form computes and the condition of the conversion."""
    import onnx

    out = os.path.join(tmp, "model.onnx")
    first = not base
    status, objects, said = tool(linnet, "convert", "--json", source.path, "-o", out, "--target", target, *options(mechanism), *([] if first else ["--no-card"]))
    if status not in (0, 1):
        return {"refused": said} if status in (3, 4) else {"broken": f"status {status}: {said}"}
    items = [o for o in objects if o["kind"] == "attention"]
    stay = sorted({o["reason"] for o in items if o["reason"]})
    if not any(o["converted"] for o in items):
        return {"refused": "; ".join(stay) or "there is no attention"}
    if first:
        with open(out + ".json") as f:
            base.update(json.load(f)["agreement"])
    r = {"checker": checked(out), "stay": stay, "converted": sum(o["converted"] for o in items)}
    feed = source.feed(onnx.load(out))
    bound = SLACK * base.get("condition", 1) * source.unit
    try:
        mine = runs(Linnet(linnet, out, tmp), feed)
    except Exception as e:
        return {**r, "linnet": "fails: " + short(e)}
    if not base.setdefault("values", mine) is mine and r["converted"] == base["converted"]:
        whole = {n: v for n, v in base["values"].items() if n in mine}
        apart, where = far(mine, whole)
        r["linnet"] = "agrees" if apart <= bound else f"differs from the first target by {apart:.2g}{' of ' + where if where else ''}, {bound:.2g} is allowed"
    base.setdefault("converted", r["converted"])
    pair = next((p for p in base.get("targets", []) if p["target"] == target), None)
    if pair:
        r["certificate"] = "agrees" if pair.get("agrees") else pair.get("not_run") or f"nmse {float(pair['nmse']):.2g}, bound {pair['bound']:.2g}"
    if target == "onnx":
        r["reference"] = verdict(out, feed, Reference, mine, bound, source)
    else:
        r["onnxruntime"] = verdict(out, feed, Ort, mine, bound, source)
    return r


def job(linnet, source, mechanism, tmp):
    base, result = {}, {}
    for target in ("portable", *(t for t in TARGETS if t != "portable")):
        for f in os.listdir(tmp):
            if f.startswith("model"):
                os.remove(os.path.join(tmp, f))
        try:
            result[target] = one(linnet, source, mechanism, target, base, tmp)
        except Exception as e:
            result[target] = {"broken": "the script: " + short(e)}
    return {"model": source.name, "mechanism": mechanism, "certificate": base.get("skipped") or base.get("agree"), "condition": base.get("condition"), "targets": result}


def find(folders):
    """Models, each with the folder of its data."""
    for folder in folders:
        if os.path.exists(os.path.join(folder, "softmax.onnx")):
            yield os.path.join(folder, "softmax.onnx"), os.path.join(folder, "reference")
            continue
        for e in sorted(os.scandir(folder), key=lambda e: e.name):
            if os.path.exists(os.path.join(e.path, "model.onnx")):
                yield os.path.join(e.path, "model.onnx"), e.path


def has_attention(linnet, path):
    status, objects, _ = tool(linnet, "show", "--attention", "--json", path)
    return status == 0 and bool(objects[-1].get("attention"))


def sweep(a):
    results = os.path.join(a.work, "sweep.jsonl")
    os.makedirs(a.work, exist_ok=True)
    if a.fresh and os.path.exists(results):
        os.remove(results)
    done = {(r["model"], r["mechanism"]) for r in load(results)}
    _, listed, _ = tool(a.linnet, "convert", "--list", "--json")
    mechanisms = [o["name"] for o in listed if o["kind"] == "mechanism"] + list(VARIANTS)
    models = [m for m in find(a.folders) if (not a.models or os.path.basename(os.path.dirname(m[0])) in a.models.split(",")) and has_attention(a.linnet, m[0])]
    jobs = [(m, mechanisms[(i + r) % len(mechanisms)]) for r in range(len(mechanisms)) for i, m in enumerate(models)]
    if a.mechanisms:
        jobs = [(m, x) for m, x in jobs if x in a.mechanisms.split(",")]
    end = os.times().elapsed + 60 * a.minutes if a.minutes else np.inf
    sources = {}
    with open(results, "a") as f, tempfile.TemporaryDirectory() as tmp:
        for (path, data), mechanism in jobs[:: a.every]:
            name = os.path.basename(os.path.dirname(path))
            if (name, mechanism) in done:
                continue
            if os.times().elapsed > end:
                break
            if path not in sources:
                sources[path] = Source(path, data)
            f.write(json.dumps(job(a.linnet, sources[path], mechanism, tmp)) + "\n")
            f.flush()
    return load(results), models, mechanisms


def load(path):
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return [json.loads(line) for line in f]


# ---- The page ----

CHECKS = ("linnet", "checker", "certificate", "onnxruntime", "reference")


def wrong(t):
    """What is the matter with a target."""
    if "broken" in t:
        return [t["broken"]]
    return [f"{c}: {t[c]}" for c in CHECKS if t.get(c, "agrees") not in ("agrees", "valid") and not t[c].startswith("no: ")]


def reason(what, model, mechanism):
    """Of WHY."""
    check = what.split(":")[0]
    fits = (why for c, m, x, why in WHY if re.fullmatch(c, check) and re.fullmatch(m, model) and re.fullmatch(x, mechanism))
    return next(fits, "")


def page(rows, models, mechanisms):
    last = {(r["model"], r["mechanism"]): r for r in rows}
    by = collections.defaultdict(list)
    for r in last.values():
        by[r["mechanism"]].append(r)
    lines = [f"{len(last)} of {len(models) * len(mechanisms)} pairs of {len(models)} models and {len(mechanisms)} mechanisms. A cell says how many models the target was made of, and of these how",
             "many kept every check, where that is not all; a dash: it was refused each time.", "", "| mechanism | models | " + " | ".join(TARGETS) + " |", "| --- |" + " ---: |" * (1 + len(TARGETS))]
    for m in mechanisms:
        cells = []
        for t in TARGETS:
            made = [r["targets"][t] for r in by[m] if "refused" not in r["targets"][t]]
            good = sum(not wrong(x) for x in made)
            cells.append("-" if not made else str(good) if good == len(made) else f"{good} of {len(made)}")
        lines.append(f"| {m} | {len(by[m])} | " + " | ".join(cells) + " |")
    lines += ["", "| target | made | refused | checker | certificate | linnet's targets agree | ONNX Runtime | reference evaluator |", "| --- |" + " ---: |" * 7]
    for t in TARGETS:
        all_ = [r["targets"][t] for r in last.values()]
        made = [x for x in all_ if "refused" not in x]
        cell = [t, len(made), len(all_) - len(made)]
        for check in ("checker", "certificate", "linnet", "onnxruntime", "reference"):
            of = [x[check] for x in made if check in x and not x[check].startswith("no: ")]
            good = sum(x in ("agrees", "valid") for x in of)
            cell.append("" if not of else good if good == len(of) == len(made) else f"{good} of {len(of)}")
        lines.append("| " + " | ".join(map(str, cell)) + " |")
    reasons = collections.defaultdict(lambda: collections.defaultdict(set))
    for r in last.values():
        for t in TARGETS:
            if "refused" in r["targets"][t]:
                why = re.sub(r"attention \d+ stays softmax: ", "", r["targets"][t]["refused"])
                reasons[why][t].add((r["model"], r["mechanism"]))
    lines += ["", "Refused:", "", "| reason | targets | pairs | models |", "| --- | --- | ---: | ---: |"]
    for why, where in sorted(reasons.items(), key=lambda w: -len(set().union(*w[1].values()))):
        pairs = set().union(*where.values())
        ts = [t for t in TARGETS if t in where]
        lines.append(f"| {why} | {'all' if len(ts) == len(TARGETS) else ', '.join(ts)} | {len(pairs)} | {len({m for m, _ in pairs})} |")
    bad = collections.defaultdict(lambda: (set(), set(), set()))
    for r in last.values():
        for t in TARGETS:
            for what in wrong(r["targets"][t]):
                key = re.sub(r"\d[\d.]*(e-\d+)?", "...", what).replace("|", "\\|")[:200], reason(what, r["model"], r["mechanism"])
                for s, x in zip(bad[key], (r["model"], r["mechanism"], t)):
                    s.add(x)
    lines += ["", "Exceptions:" if bad else "No exceptions.", ""]
    if bad:
        lines += ["| what | models | mechanisms | targets | why |", "| --- | --- | --- | --- | --- |"]
        for (what, why), sets in sorted(bad.items()):
            lines.append(f"| {what} | " + " | ".join(", ".join(sorted(s)[:6]) + (f" and {len(s) - 6} more" if len(s) > 6 else "") for s in sets) + f" | {why} |")
    return "\n".join(lines), bad


def main():
    p = argparse.ArgumentParser()
    p.add_argument("linnet")
    p.add_argument("work")
    p.add_argument("folders", nargs="+")
    p.add_argument("--page")
    p.add_argument("--minutes", type=float)
    p.add_argument("--every", type=int, default=1)
    p.add_argument("--mechanisms")
    p.add_argument("--models")
    p.add_argument("--fresh", action="store_true")
    p.add_argument("--strict", action="store_true")
    a = p.parse_args()
    text, bad = page(*sweep(a))
    if a.page:
        section(a.page, "sweep", text)
    else:
        print(text)
    sys.exit(bool(bad) if a.strict else 0)


if __name__ == "__main__":
    main()
