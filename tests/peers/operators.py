"""A dozen ONNX operators in PyTorch: what the model of corpus/lm is made of."""

import onnx.helper
import onnx.numpy_helper
import torch


def ints(t):
    return [int(i) for i in t.reshape(-1)]


def slice_(x, starts, ends, axes=None, steps=None):
    axes = ints(axes) if axes is not None else range(len(starts))
    for k, axis in enumerate(axes):
        step = int(steps[k]) if steps is not None else 1
        n = x.shape[axis]
        first, last = (min(max(i + n if i < 0 else i, 0), n) for i in (int(starts[k]), int(ends[k])))
        x = x.index_select(axis, torch.arange(first, last, step))
    return x


def reshape(x, shape):
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(ints(shape))])


def unsqueeze(x, axes):
    for axis in sorted(a + (x.dim() + len(axes) if a < 0 else 0) for a in ints(axes)):
        x = x.unsqueeze(axis)
    return x


def gather(x, i, axis=0):
    return x.index_select(axis, i.reshape(-1)).reshape(*x.shape[:axis], *i.shape, *x.shape[axis + 1:])


TYPES = {1: torch.float32, 7: torch.int64, 9: torch.bool}
OPERATORS = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div, "Pow": torch.pow, "Neg": torch.neg, "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal, "Cos": torch.cos, "Sin": torch.sin, "Sigmoid": torch.sigmoid, "MatMul": torch.matmul,
    "Greater": torch.gt, "Where": torch.where, "Identity": lambda x: x, "Shape": lambda x, start=0, end=None: torch.tensor(x.shape[start:end]),
    "Squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(tuple(ints(axes))), "Unsqueeze": unsqueeze, "Reshape": reshape, "Slice": slice_, "Gather": gather,
    "Range": lambda a, b, s: torch.arange(int(a), int(b), int(s)), "Cast": lambda x, to: x.to(TYPES[to]),
    "Concat": lambda *x, axis: torch.cat(x, axis), "Transpose": lambda x, perm: x.permute(perm),
    "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, ints(shape))), "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "ReduceMean": lambda x, axes, keepdims=1, noop_with_empty_axes=0: x.mean(ints(axes), keepdim=bool(keepdims)),
}


def run(model, values):
    for n in model.graph.node:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
        attrs.pop("allowzero", None)
        if n.op_type == "Constant":
            values[n.output[0]] = torch.from_numpy(onnx.numpy_helper.to_array(attrs["value"]).copy())
            continue
        values[n.output[0]] = OPERATORS[n.op_type](*(values[i] for i in n.input), **attrs)
