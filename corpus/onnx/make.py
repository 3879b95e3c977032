#!/usr/bin/env python3
"""Write schemas.json from the installed packages onnx and onnxruntime, whose schema classes differ in small ways."""
import json
import pathlib

import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as ort

sets = {}


def type_set(types):
    """The number of a set of types; "tensor(float)" is written float, "seq(tensor(float))" seq(float)."""
    words = [t.replace(", ", ",") for t in types]
    for i, t in enumerate(words):
        start = t.rfind("tensor(")
        if start >= 0 and "," not in t:
            words[i] = t[:start] + t[start + 7 :].replace(")", "", 1)
    return sets.setdefault(" ".join(sorted(words)), len(sets))


def type_name(io):
    return io.type_str if hasattr(io, "type_str") else io.typeStr


def ios(formal, least):
    """[name, type, flags...]; the last one of those that may be absent from the end."""
    out = []
    for i, io in enumerate(formal):
        entry = [io.name, type_name(io)]
        option = str(io.option).rpartition(".")[2].lower()
        if option != "single":
            entry.append(option)
        if option == "variadic":
            same = io.is_homogeneous if hasattr(io, "is_homogeneous") else io.isHomogeneous
            entry += [] if same else ["hetero"]
            entry += ["optional"] if least <= i else []
        out.append(entry)
    return out


def attribute(a):
    d = {"kind": str(a.type).rpartition(".")[2].lower()}
    if a.required:
        return d | {"required": True}
    value = a.default_value.SerializeToString() if hasattr(a, "default_value") else a._default_value
    if value:
        p = onnx.AttributeProto()
        p.ParseFromString(value)
        if p.type:
            v = onnx.helper.get_attribute_value(p)
            text = lambda x: x.decode() if isinstance(x, bytes) else x
            d["default"] = [text(x) for x in v] if isinstance(v, list) else text(v)
    return d


def schema(s):
    types = {c.type_param_str: type_set(c.allowed_type_strs) for c in s.type_constraints}
    used = [type_name(io) for io in [*s.inputs, *s.outputs]]
    types = {t: types[t] if t in types else type_set([t]) for t in dict.fromkeys(used)}
    d = {"domain": s.domain or "ai.onnx", "name": s.name, "since": s.since_version}
    if s.deprecated:
        d["deprecated"] = True
    d |= {"in": ios(s.inputs, s.min_input), "out": ios(s.outputs, s.min_output)}
    return d | {"attr": {k: attribute(a) for k, a in sorted(s.attributes.items())}, "types": types}


def main():
    schemas = [schema(s) for s in onnx.defs.get_all_schemas_with_history()]
    schemas += [schema(s) for s in ort.get_all_operator_schema() if s.domain == "com.microsoft"]
    schemas.sort(key=lambda d: (d["domain"], d["name"], d["since"]))
    lines = ",\n".join(json.dumps(d, separators=(",", ":")) for d in schemas)
    names = json.dumps(sorted(sets, key=sets.get), indent=0)
    pathlib.Path(__file__).with_name("schemas.json").write_text(f'{{"sets":{names},\n"schemas":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
