#!/usr/bin/env python3
"""Write the malformed models of this folder and the manifest of what is wrong with each.

Needs nothing but Python: protobuf is packed by hand, because no library would write most of these.
usage: make.py [--check]    --check: write nothing, fail if a file differs from what would be written
"""
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
files = {}     # name: bytes
manifest = []  # (name, code, part of the message)


def bad(name, code, says, data):
    assert name not in files, name
    files[name + ".onnx"] = bytes(data)
    manifest.append((name + ".onnx", code, says))


# ---- Protobuf ----

def varint(v):
    v &= (1 << 64) - 1
    out = bytearray()
    while v >= 0x80:
        out.append(v & 0x7F | 0x80)
        v >>= 7
    out.append(v)
    return bytes(out)


def tag(field, wire):
    return varint(field << 3 | wire)


def num(field, v):
    return tag(field, 0) + varint(v)


def data(field, b):
    if isinstance(b, str):
        b = b.encode()
    return tag(field, 2) + varint(len(b)) + b


def many(field, items):
    return b"".join(data(field, x) for x in items)


def packed(field, values):
    return data(field, b"".join(varint(v) for v in values))


# ---- ONNX ----

FLOAT, UINT8, INT8, INT32, INT64, STRING, BOOL, DOUBLE, INT4 = 1, 2, 3, 6, 7, 8, 9, 11, 22
A_FLOAT, A_INT, A_STRING, A_TENSOR, A_GRAPH, A_FLOATS, A_INTS = 1, 2, 3, 4, 5, 6, 7


def opset(version, domain=""):
    return (data(1, domain) if domain else b"") + num(2, version)


def model(graph=None, ir=10, opsets=((21, ""),), functions=()):
    return (num(1, ir) + (data(7, graph) if graph is not None else b"") +
            many(8, [opset(*o) for o in opsets]) + many(25, functions))


def dim(d):
    return data(1, data(2, d) if isinstance(d, str) else num(1, d))


def tensor_type(elem, dims):
    return data(1, num(1, elem) + (data(2, b"".join(dim(d) for d in dims)) if dims is not None else b""))


def value(name, elem=FLOAT, dims=(2,)):
    return data(1, name) + data(2, tensor_type(elem, dims))


def node(op, inputs, outputs, *attributes, name="n", domain=""):
    return (many(1, inputs) + many(2, outputs) + data(3, name) + data(4, op) + many(5, attributes) +
            (data(7, domain) if domain else b""))


def graph(nodes=(), inputs=None, outputs=None, initializers=(), sparse=(), name="g"):
    if inputs is None:
        inputs = [value("x")]
    if outputs is None:
        outputs = [value("y")]
    return (many(1, nodes) + data(2, name) + many(5, initializers) + many(11, inputs) +
            many(12, outputs) + many(15, sparse))


def tensor(dims, elem, *content, name="w"):
    return b"".join(num(1, d) for d in dims) + num(2, elem) + b"".join(content) + data(8, name)


def raw(n):
    return data(9, bytes(n))


def external(**entries):
    return b"".join(data(13, data(1, k) + data(2, v)) for k, v in entries.items()) + num(14, 1)


def attr_int(name, v):
    return data(1, name) + num(3, v) + num(20, A_INT)


def attr_ints(name, v):
    return data(1, name) + b"".join(num(8, x) for x in v) + num(20, A_INTS)


def attr_string(name, v):
    return data(1, name) + data(4, v) + num(20, A_STRING)


def attr_graph(name, g):
    return data(1, name) + data(6, g) + num(20, A_GRAPH)


def attr_tensor(name, t):
    return data(1, name) + data(5, t) + num(20, A_TENSOR)


def function(name, inputs, outputs, nodes, domain="local", opsets=((21, ""),), attributes=()):
    return (data(1, name) + many(4, inputs) + many(5, outputs) + many(6, attributes) + many(7, nodes) +
            many(9, [opset(*o) for o in opsets]) + data(10, domain))


RELU = node("Relu", ["x"], ["y"])


def with_initializer(t):
    """A model that adds the tensor to its input."""
    return model(graph([node("Add", ["x", "w"], ["y"])], initializers=[t]))


# ---- Not a model ----

bad("empty", "EFORMAT", "the file is empty", b"")
bad("zip", "EFORMAT", "at byte 2: field number 0", b"PK\x03\x04\x14\0\0\0\x08\0")
bad("png", "EFORMAT", "at byte 10: field number 0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
bad("json", "EFORMAT", "at byte 0", b'{"ir_version": 10, "graph": {}}')
bad("html", "EFORMAT", "line 1, column 2", b"<!DOCTYPE html><html><body>404</body></html>")
bad("pickle", "EFORMAT", "at byte 4: field number 0", b"\x80\x04\x95\x0f\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.")
bad("git_lfs_pointer", "EFORMAT", "at byte", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
bad("zeros", "EFORMAT", "at byte 0: field number 0", bytes(64))
bad("ones", "EFORMAT", "at byte 0: a varint has more than 64 bits", b"\xff" * 64)
bad("unknown_fields_only", "EFORMAT", "not an ONNX model", num(100, 1) + data(101, "x"))
bad("tensor_file", "EFORMAT", "producer_name", tensor([2], FLOAT, raw(8)))

# ---- Cut off: the same model ends in every region of it ----

WHOLE = model(graph(
    [node("Gemm", ["x", "w"], ["y"], data(1, "alpha") + tag(2, 5) + struct.pack("<f", 0.5) + num(20, A_FLOAT), name="dense")],
    inputs=[value("x", FLOAT, ["batch", 2])], outputs=[value("y", FLOAT, ["batch", 3])],
    initializers=[tensor([2, 3], FLOAT, data(9, b"raw!" * 6), name="weight")]))


def cut(name, says, mark, keep):
    at = WHOLE.index(mark)
    bad("cut_" + name, "EFORMAT", says, WHOLE[:at + keep])


bad("cut_first_value", "EFORMAT", "ir_version at byte 1: a varint is cut off", WHOLE[:1])
bad("cut_graph_length", "EFORMAT", "graph at byte 3: a varint is cut off", WHOLE[:4])
bad("cut_graph", "EFORMAT", "graph at byte 2: 138 bytes announced, 0 left", WHOLE[:5])
cut("node_name", "graph at byte 2: 138 bytes announced", b"dense", 3)
cut("attribute", "graph at byte 2: 138 bytes announced", struct.pack("<f", 0.5), 2)
cut("raw_data", "graph at byte 2: 138 bytes announced", b"raw!", 10)
cut("dimension", "graph at byte 2: 138 bytes announced", b"batch", 5)
bad("cut_opset", "EFORMAT", "opset_import at byte", WHOLE[:-1])

# ---- Broken inside: lengths of outer messages are right ----

def graph_field(b):
    return num(1, 10) + data(7, b)


bad("varint_of_11_bytes", "EFORMAT", "a varint has more than 64 bits", tag(1, 0) + b"\x80" * 10 + b"\x01")
bad("varint_of_70_bits", "EFORMAT", "a varint has more than 64 bits", tag(1, 0) + b"\xff" * 9 + b"\x7f")
bad("varint_cut_in_node", "EFORMAT", "graph.node[0].attribute[0].i at byte 9: a varint is cut off",
    graph_field(data(1, data(5, tag(3, 0) + b"\xff\xff"))))
bad("field_zero", "EFORMAT", "field number 0", num(1, 10) + b"\x02\x01a")
bad("field_number_too_large", "EFORMAT", "is not in [1, 2^29)", num(1, 10) + varint(1 << 35) + b"\0")
bad("group_start", "EFORMAT", "field 30 at byte 2: wire type 3 is not in use", num(1, 10) + tag(30, 3) + tag(30, 4))
bad("group_end", "EFORMAT", "field 30 at byte 2: wire type 4 is not in use", num(1, 10) + tag(30, 4))
bad("wire_type_6", "EFORMAT", "wire type 6", num(1, 10) + tag(30, 6))
bad("wire_type_7", "EFORMAT", "graph.field 30 at byte 4: wire type 7", graph_field(tag(30, 7) + b"1234"))
bad("string_as_number", "EFORMAT", "graph.node[0].name at byte 6: wire type 0, expected 2", graph_field(data(1, num(3, 5))))
bad("message_as_number", "EFORMAT", "graph at byte 2: wire type 0, expected 2", num(1, 10) + num(7, 5))
bad("number_as_string", "EFORMAT", "ir_version at byte 0: wire type 2, expected 0", data(1, "10"))
bad("float_as_number", "EFORMAT", "attribute[0].f at byte 8: wire type 0, expected 5", graph_field(data(1, data(5, num(2, 1)))))
bad("longer_than_parent", "EFORMAT", "graph.node[0].input at byte 6: 100 bytes announced, 1 left",
    graph_field(data(1, tag(1, 2) + varint(100) + b"x") + data(2, "g" * 100)))
bad("length_of_2_63", "EFORMAT", "graph at byte 2: 9223372036854775808 bytes announced",
    num(1, 10) + tag(7, 2) + varint(1 << 63) + b"x")
bad("length_negative", "EFORMAT", "graph at byte 2: 18446744073709551615 bytes announced", num(1, 10) + tag(7, 2) + varint(-1))
bad("floats_of_7_bytes", "EFORMAT", "initializer[0].float_data at byte 6: an array of 4-byte numbers has 7 bytes",
    graph_field(data(5, data(4, bytes(7)))))
bad("doubles_of_12_bytes", "EFORMAT", "initializer[0].double_data at byte 6: an array of 8-byte numbers has 12 bytes",
    graph_field(data(5, data(10, bytes(12)))))
bad("packed_dims_cut", "EFORMAT", "initializer[0].dims at byte 8: a varint is cut off", graph_field(data(5, data(1, b"\x80"))))
bad("zero_byte_in_name", "EFORMAT", "graph.node[0].name at byte 9: a string holds a zero byte",
    graph_field(data(1, data(3, "a\0b"))))


def nested(n):
    g = graph([node("Relu", ["x"], ["y"])])
    for _ in range(n):
        g = graph([node("If", ["c"], ["y"], attr_graph("then_branch", g))], inputs=[])
    return g


def nested_type(n):
    t = tensor_type(FLOAT, [2])
    for _ in range(n):
        t = data(4, data(1, t))
    return t


bad("deep_subgraphs", "ELIMIT", "messages inside each other", model(nested(40)))
bad("deep_types", "ELIMIT", "messages inside each other",
    model(graph([RELU], inputs=[data(1, "x") + data(2, nested_type(60))])))

# ---- Tensors ----

def bad_tensor(name, code, says, *args, **kw):
    bad("tensor_" + name, code, says, with_initializer(tensor(*args, **kw)))


bad_tensor("negative_length", "ESHAPE", 'value "w": length 0 is -2; it must not be negative', [-2], FLOAT, raw(8))
bad_tensor("huge", "ELIMIT", 'value "w": tensor has more than', [1 << 40, 2], FLOAT, raw(8))
bad_tensor("overflow", "ELIMIT", 'value "w": tensor has more than', [1 << 33, 1 << 33, 1 << 33], FLOAT, raw(8))
bad_tensor("overflow_to_zero", "ELIMIT", 'value "w": tensor has more than', [1 << 32, 1 << 32], FLOAT, raw(0))
bad_tensor("rank_9", "EUNSUPPORTED", 'value "w": rank is 9', [1] * 9, FLOAT, raw(4))
bad_tensor("without_type", "ETYPE", 'value "w": element type 0 is not known', [2], 0, raw(8))
bad_tensor("type_99", "ETYPE", 'value "w": element type 99 is not known', [2], 99, raw(8))
bad_tensor("type_negative", "ETYPE", 'value "w": element type -1 is not known', [2], -1, raw(8))
bad_tensor("raw_too_short", "EFORMAT", 'value "w": raw_data has 7 bytes; float[2] takes 8', [2], FLOAT, raw(7))
bad_tensor("raw_too_long", "EFORMAT", 'value "w": raw_data has 9 bytes; float[2] takes 8', [2], FLOAT, raw(9))
bad_tensor("raw_int4", "EFORMAT", "raw_data has 3 bytes; int4[3] takes 2", [3], INT4, raw(3))
bad_tensor("no_data", "EFORMAT", "no data for float[2]", [2], FLOAT)
bad_tensor("too_few_floats", "EFORMAT", "float_data has 1 entries; float[2] takes 2", [2], FLOAT, data(4, bytes(4)))
bad_tensor("floats_in_int64_data", "EFORMAT", "float elements in int64_data; expected float_data", [2], FLOAT, packed(7, [1, 2]))
bad_tensor("strings_in_raw_data", "EFORMAT", "strings in raw_data", [2], STRING, raw(2))
bad_tensor("data_twice", "EFORMAT", "data in both raw_data and float_data", [2], FLOAT, data(4, bytes(8)), raw(8))
bad_tensor("int8_of_300", "EVALUE", "int32_data[1] is 300; int8 admits [-128, 127]", [2], INT8, packed(5, [1, 300]))
bad_tensor("bool_of_2", "EVALUE", "int32_data[0] is 2; bool admits [0, 1]", [1], BOOL, packed(5, [2]))
bad_tensor("segment", "EUNSUPPORTED", "a tensor in segments", [2], FLOAT, data(3, num(1, 0) + num(2, 1)), raw(8))

bad_tensor("external_without_location", "EFORMAT", "external data without a location", [2], FLOAT, external(offset="0"))
bad_tensor("external_missing", "EIO", '"no-such-file" cannot be opened', [2], FLOAT, external(location="no-such-file"))
bad_tensor("external_absolute", "EIO", "an absolute path is not allowed", [2], FLOAT, external(location="/etc/passwd"))
bad_tensor("external_escape", "EIO", "leaves the model's folder", [2], FLOAT, external(location="../README.md"))
bad_tensor("external_escape_inside", "EIO", "leaves the model's folder", [2], FLOAT, external(location="./../bad/make.py"))
bad_tensor("external_folder", "EIO", "is not a regular file", [2], FLOAT, external(location="."))
bad_tensor("external_beyond_the_end", "EFORMAT", "8 bytes at offset 1000000", [2], FLOAT,
           external(location="make.py", offset="1000000", length="8"))
bad_tensor("external_offset_overflow", "EFORMAT", "8 bytes at offset 18446744073709551600", [2], FLOAT,
           external(location="make.py", offset="18446744073709551600", length="8"))
bad_tensor("external_offset_of_65_bits", "EFORMAT", 'offset "18446744073709551616" is too large', [2], FLOAT,
           external(location="make.py", offset="18446744073709551616"))
bad_tensor("external_negative_offset", "EFORMAT", 'offset "-1" is not a number', [2], FLOAT,
           external(location="make.py", offset="-1"))
bad_tensor("external_wrong_length", "EFORMAT", "external data has 4 bytes; float[2] takes 8", [2], FLOAT,
           external(location="make.py", length="4"))
bad_tensor("external_and_raw", "EFORMAT", "data in both raw_data and a file", [2], FLOAT, raw(8), external(location="make.py"))


def sparse(values, indices, dims):
    return data(1, values) + (data(2, indices) if indices else b"") + b"".join(num(3, d) for d in dims)


def bad_sparse(name, code, says, index, dims=(4,), values=2, elem=INT64):
    indices = tensor([len(index)], elem, data(9, struct.pack("<%d%s" % (len(index), "q" if elem == INT64 else "i"), *index)),
                     name="i") if index else None
    bad("sparse_" + name, code, says,
        model(graph([node("Add", ["x", "w"], ["y"])], inputs=[value("x", FLOAT, [4])], outputs=[value("y", FLOAT, [4])],
                    sparse=[sparse(tensor([values], FLOAT, raw(4 * values)), indices, dims)])))


bad_sparse("without_indices", "EFORMAT", "sparse tensor without indices", [])
bad_sparse("index_too_large", "EVALUE", "index 1 is 4; there are 4 elements", [0, 4])
bad_sparse("index_negative", "EVALUE", "index 0 is -1", [-1, 2])
bad_sparse("unsorted", "EVALUE", "index 1 is not above the one before it", [2, 1])
bad_sparse("too_few_indices", "ESHAPE", "indices must be [2] or [2,1]", [1])
bad_sparse("int32_indices", "ETYPE", "indices are int32, expected int64", [1, 2], elem=INT32)
bad_sparse("huge", "ELIMIT", "dense it takes 1099511627776 bytes", [1, 2], dims=(1 << 38,))

# ---- Models ----

bad("model_without_graph", "EMODEL", "no graph", model())
bad("model_without_opset", "EMODEL", "no opset", model(graph([RELU]), opsets=()))
bad("opset_from_the_future", "EUNSUPPORTED", "opset 1000", model(graph([RELU]), opsets=((1000, ""),)))
bad("opset_zero", "EMODEL", "opset 0", model(graph([RELU]), opsets=((0, ""),)))
bad("opset_negative", "EMODEL", "opset -3", model(graph([RELU]), opsets=((-3, ""),)))
bad("opset_twice", "EMODEL", "both imported", model(graph([RELU]), opsets=((21, ""), (17, "ai.onnx"))))
bad("domain_not_imported", "EMODEL", 'no opset of domain "com.acme"',
    model(graph([node("Relu", ["x"], ["y"], domain="com.acme")])))
bad("node_without_operator", "EMODEL", "names no operator", model(graph([data(1, "x") + data(2, "y")])))
bad("input_undefined", "EMODEL", '"missing", which nothing defines', model(graph([node("Add", ["x", "missing"], ["y"])])))
bad("output_undefined", "EMODEL", '"z", which nothing defines', model(graph([RELU], outputs=[value("z")])))
bad("cycle", "EMODEL", "(Add): the graph has a cycle through this node", model(graph([node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"], name="second"),
                                        node("Relu", ["b"], ["y"], name="third")])))
bad("cycle_of_one", "EMODEL", "(Add): the graph has a cycle through this node", model(graph([node("Add", ["x", "y"], ["y"])])))
bad("input_twice", "EMODEL", '"x" is defined twice', model(graph([RELU], inputs=[value("x"), value("x")])))
bad("node_output_twice", "EMODEL", '"y" is defined twice', model(graph([RELU, node("Neg", ["x"], ["y"], name="m")])))
bad("node_defines_an_input", "EMODEL", '"x" is defined twice', model(graph([node("Relu", ["x"], ["x"])], outputs=[value("x")])))
bad("initializer_twice", "EMODEL", '"w" is defined twice',
    model(graph([node("Add", ["x", "w"], ["y"])], initializers=[tensor([2], FLOAT, raw(8))] * 2)))
bad("graph_output_twice", "EMODEL", "twice", model(graph([RELU], outputs=[value("y"), value("y")])))
bad("input_without_type", "EMODEL", "no type", model(graph([RELU], inputs=[data(1, "x")])))
bad("input_type_77", "ETYPE", "77", model(graph([RELU], inputs=[value("x", 77)])))
bad("input_rank_12", "EUNSUPPORTED", "rank is 12", model(graph([RELU], inputs=[value("x", FLOAT, [1] * 12)])))

# ---- Attributes ----

def bad_attribute(name, says, *attributes, op="Softmax", inputs=("x",), code="EATTR", outputs=("y",)):
    bad("attribute_" + name, code, says, model(graph([node(op, inputs, outputs, *attributes)])))


bad_attribute("unknown", 'unknown attribute "axes"', attr_ints("axes", [1]))
bad_attribute("wrong_kind", '"axis" has the wrong kind', attr_string("axis", "1"))
bad_attribute("says_int_holds_string", '"axis" says', data(1, "axis") + data(4, "1") + num(20, A_INT))
bad_attribute("twice", '"axis" is given twice', attr_int("axis", 0), attr_int("axis", 0))
bad_attribute("required", '"to" is required', op="Cast")
bad_attribute("of_two_values", '"axis" holds 2 values; expected one', data(1, "axis") + num(3, 0) + data(4, "0"))
bad_attribute("reference_outside_function", 'outside a function', data(1, "axis") + data(21, "outer") + num(20, A_INT))
bad_attribute("not_one_of", '"auto_pad" is "BOTH"', attr_string("auto_pad", "BOTH"), op="Conv", inputs=("x", "x"))
bad_attribute("tensor_broken", "raw_data has 4 bytes; float[2] takes 8",
              attr_tensor("value", tensor([2], FLOAT, raw(4), name="")), op="Constant", inputs=(), code="EFORMAT")
bad_attribute("constant_of_two_values", "expected one", attr_int("value_int", 1), attr_ints("value_ints", [1]),
              op="Constant", inputs=())
bad_attribute("constant_of_none", "expected one", op="Constant", inputs=())

# ---- Arity, types, shapes ----

bad("too_many_inputs", "EMODEL", "at most 1", model(graph([node("Relu", ["x", "x"], ["y"])])))
bad("too_few_inputs", "EMODEL", "at least 2 needed", model(graph([node("Add", ["x"], ["y"])])))
bad("too_many_outputs", "EMODEL", "at most 1", model(graph([node("Relu", ["x"], ["y", "z"])])))
bad("input_left_out", "EMODEL", 'input "A" is left out but is not optional', model(graph([node("Add", ["", "x"], ["y"])])))

AB = [value("a", FLOAT, [2, 3]), value("b", FLOAT, [4, 5])]
bad("types_differ", "ETYPE", 'input "B" has element type int32; float was expected',
    model(graph([node("Add", ["x", "i"], ["y"])], inputs=[value("x"), value("i", INT32)])))
bad("type_not_admitted", "ETYPE", 'input "X" has element type string',
    model(graph([node("Relu", ["x"], ["y"])], inputs=[value("x", STRING)])))
bad("matmul_inner_lengths", "ESHAPE", "3 and 4", model(graph([node("MatMul", ["a", "b"], ["y"])], inputs=AB)))
bad("broadcast", "ESHAPE", "lengths 2 and 4 do not broadcast", model(graph([node("Add", ["a", "b"], ["y"])], inputs=AB)))
bad("concat_ranks", "ESHAPE", "input 1 has rank 1", model(graph([node("Concat", ["a", "x"], ["y"], attr_int("axis", 0))], inputs=AB + [value("x")])))
bad("axis_out_of_range", "ESHAPE", "axis 5 is not in [-2, 1]",
    model(graph([node("Softmax", ["a"], ["y"], attr_int("axis", 5))], inputs=AB)))
bad("permutation", "EATTR", "perm is no permutation", model(graph([node("Transpose", ["a"], ["y"], attr_ints("perm", [0, 0]))], inputs=AB)))
bad("reshape_count", "ESHAPE", "6 elements cannot become 16",
    model(graph([node("Reshape", ["a", "w"], ["y"])], inputs=AB, initializers=[tensor([2], INT64, packed(7, [4, 4]))])))

# ---- Subgraphs, functions ----


COND = value("c", BOOL, [])
THEN = graph([node("Relu", ["x"], ["t"])], inputs=[], outputs=[value("t")])
bad("if_without_else", "EATTR", '"else_branch" is required',
    model(graph([node("If", ["c"], ["y"], attr_graph("then_branch", THEN))], inputs=[COND, value("x")])))
bad("subgraph_attribute_is_no_graph", "EATTR", "then_branch",
    model(graph([node("If", ["c"], ["y"], attr_int("then_branch", 1), attr_graph("else_branch", THEN))],
                inputs=[COND, value("x")])))
bad("subgraph_input_undefined", "EMODEL", '"nowhere", which nothing defines',
    model(graph([node("If", ["c"], ["y"], attr_graph("then_branch", THEN),
                      attr_graph("else_branch", graph([node("Relu", ["nowhere"], ["t"])], inputs=[], outputs=[value("t")])))],
                inputs=[COND, value("x")])))

CALL = node("f", ["x"], ["y"], domain="local")


def with_functions(*f):
    return model(graph([CALL]), opsets=((21, ""), (1, "local")), functions=f)


bad("function_calls_itself", "EMODEL", "calls itself",
    with_functions(function("f", ["a"], ["b"], [node("f", ["a"], ["b"], domain="local")], opsets=((21, ""), (1, "local")))))
bad("functions_call_each_other", "EMODEL", "calls itself",
    with_functions(function("f", ["a"], ["b"], [node("g", ["a"], ["b"], domain="local")], opsets=((21, ""), (1, "local"))),
                   function("g", ["a"], ["b"], [node("f", ["a"], ["b"], domain="local")], opsets=((21, ""), (1, "local")))))
bad("function_twice", "EMODEL", 'function "f" is defined twice',
    with_functions(*[function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])])] * 2))
bad("function_output_undefined", "EMODEL", 'does not define output "b"',
    with_functions(function("f", ["a"], ["b"], [node("Relu", ["a"], ["c"])])))
bad("function_of_unknown_attribute", "EATTR", 'unknown attribute "k"',
    model(graph([node("f", ["x"], ["y"], attr_int("k", 1), domain="local")]), opsets=((21, ""), (1, "local")),
          functions=[function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])])]))
bad("function_given_too_much", "EMODEL", "at most 1",
    model(graph([node("f", ["x", "x"], ["y"], domain="local")]), opsets=((21, ""), (1, "local")),
          functions=[function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])])]))


def bomb(levels):
    """Functions that each call the next ten times."""
    f = []
    for i in range(levels):
        calls, last = [], "a"
        for k in range(10):
            out = "b" if k == 9 else "t%d" % k
            if i == levels - 1:
                calls.append(node("Relu", [last], [out]))
            else:
                calls.append(node("f%d" % (i + 1), [last], [out], domain="local"))
            last = out
        f.append(function("f%s" % (i or ""), ["a"], ["b"], calls, opsets=((21, ""), (1, "local"))))
    return f


bad("function_bomb", "ELIMIT", "more than 10000 nodes", with_functions(*bomb(9)))

files["manifest.txt"] = "".join("%s %s %s\n" % (n, c, s) for n, c, s in manifest).encode()


def main():
    if sys.argv[1:] == ["--check"]:
        wrong = []
        for name, content in files.items():
            path = os.path.join(HERE, name)
            if not os.path.exists(path) or open(path, "rb").read() != content:
                wrong.append(name)
        wrong += [n for n in os.listdir(HERE) if n.endswith(".onnx") and n not in files]
        if wrong:
            sys.exit("differs from what make.py writes: " + " ".join(sorted(wrong)))
        return
    for name, content in files.items():
        with open(os.path.join(HERE, name), "wb") as f:
            f.write(content)


main()
