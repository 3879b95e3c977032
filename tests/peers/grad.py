"""The gradient of a whole language model against PyTorch's autograd.

grad.py LINNET MODEL WORK: the program, the model of corpus/lm, a folder to write in. The model is run in PyTorch by its own nodes, a dozen
operators, so nothing is assumed of how it was exported; gradients of all its weights must agree to 1e-4 of the largest element. Exit
status 77, after saying why, where PyTorch or the model is missing.
"""

import os
import subprocess
import sys
import time

LINNET, MODEL, WORK = sys.argv[1:4]
try:
    import numpy as np
    import onnx
    import onnx.helper
    import onnx.numpy_helper
    import torch
    import torch.nn.functional as F
    from operators import run
except ImportError as e:
    print("skipped:", e)
    sys.exit(77)
if not os.path.exists(MODEL):
    print("skipped: there is no", MODEL)
    sys.exit(77)
BATCH, LENGTH, NEAR = 2, 64, 1e-4


def main():
    model = onnx.load(MODEL)
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 2048, (BATCH, LENGTH + 1))
    values = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    weights = [name for name in values if "weight" in name]
    for name in weights:
        values[name].requires_grad_(True)
    values["input_ids"] = torch.from_numpy(tokens[:, :-1].copy())
    start = time.perf_counter()
    run(model, values)
    loss = F.cross_entropy(values["logits"].reshape(-1, 2048), torch.from_numpy(tokens[:, 1:].copy()).reshape(-1))
    loss.backward()
    print(f"torch: loss {loss.item():.6f}, {time.perf_counter() - start:.2f} s")

    model.graph.input.append(onnx.helper.make_tensor_value_info("labels", 7, ["batch", "sequence"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 2048]), "rows"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1]), "flat"))
    for op, inputs, output in (("Reshape", ["logits", "rows"], "l2"), ("Reshape", ["labels", "flat"], "l1"),
                               ("SoftmaxCrossEntropyLoss", ["l2", "l1"], "loss")):
        model.graph.node.append(onnx.helper.make_node(op, inputs, [output]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("loss", 1, []))
    with_loss, gradient = os.path.join(WORK, "loss.onnx"), os.path.join(WORK, "grad.onnx")
    onnx.save(model, with_loss)
    subprocess.run([LINNET, "grad", with_loss, "--of", "loss", "--wrt", "*weight*", "-o", gradient, "-q"], check=True)
    np.save(os.path.join(WORK, "input_ids.npy"), tokens[:, :-1])
    np.save(os.path.join(WORK, "labels.npy"), tokens[:, 1:])
    outputs = os.path.join(WORK, "out")
    os.makedirs(outputs, exist_ok=True)
    subprocess.run([LINNET, "run", gradient, "-i", "input_ids=" + os.path.join(WORK, "input_ids.npy"), "-i",
                    "labels=" + os.path.join(WORK, "labels.npy"), "-o", outputs, "-q"], check=True, stdout=subprocess.DEVNULL)
    worst, failures = 0, 0
    for name in weights:
        mine = np.load(os.path.join(outputs, f"grad:{name}.npy"))
        want = values[name].grad.numpy()
        error = np.abs(mine - want).max() / np.abs(want).max()
        worst = max(worst, error)
        if not error <= NEAR:
            failures += 1
            print(f"FAILED: {name}: {error:.2e} of the largest element")
    print(f"{len(weights)} gradients, largest difference {worst:.2e}")
    sys.exit(bool(failures))


main()
