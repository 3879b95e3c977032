"""Training a language model from random weights beside PyTorch: the same weights, windows and AdamW; the loss of each step.

train.py LINNET MODEL TOKENS WORK: the program, the model of corpus/lm, a stream of tokens (.npy), a folder to write in. Losses must agree to 1e-3 for the
first steps, where rounding has not grown yet, and to 2 % at the end. Exit status 77, after saying why, where PyTorch or the model is missing.
"""

import json
import math
import os
import subprocess
import sys

LINNET, MODEL, TOKENS, WORK = sys.argv[1:5]
if not os.path.exists(MODEL):
    print("skipped: there is no", MODEL)
    sys.exit(77)
try:
    import numpy as np
    import onnx
    import onnx.numpy_helper
    import torch
    import torch.nn.functional as F
    from operators import run
    from windows import windows
except ImportError as e:
    print("skipped:", e)
    sys.exit(77)

BATCH, LENGTH, STEPS, WARMUP, RATE, SEED = 4, 64, 24, 4, 2e-3, 5
EARLY, NEAR, NEAR_END = 8, 1e-3, 0.02


def rate(step):
    if step <= WARMUP:
        return RATE * step / WARMUP
    done = (step - WARMUP) / (STEPS - WARMUP)
    return RATE * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def main():
    model = onnx.load(MODEL)
    rng = np.random.default_rng(3)
    values, weights = {}, []
    for t in model.graph.initializer:
        x = onnx.numpy_helper.to_array(t).copy()
        if "weight" in t.name:
            x = np.ones_like(x) if x.ndim == 1 else rng.normal(0, 0.02, x.shape).astype(np.float32)
            t.CopyFrom(onnx.numpy_helper.from_array(x, t.name))
            weights.append(t.name)
        values[t.name] = torch.from_numpy(x)
    start = os.path.join(WORK, "start.onnx")
    onnx.save(model, start)
    log = os.path.join(WORK, "log.jsonl")
    if os.path.exists(log):
        os.remove(log)
    subprocess.run([LINNET, "train", start, "--data", TOKENS, "-o", os.path.join(WORK, "end.onnx"), "--batch", str(BATCH), "--length", str(LENGTH),
                    "--steps", str(STEPS), "--warmup", str(WARMUP), "--rate", str(RATE), "--decay", "0.1", "--beta2", "0.98", "--seed", str(SEED),
                    "--log", log, "-q"], check=True)
    with open(log) as f:
        mine = [json.loads(line)["loss"] for line in f]

    tokens = np.load(TOKENS).astype(np.int64)
    places = windows(STEPS * BATCH, len(tokens), LENGTH, SEED)
    for name in weights:
        values[name].requires_grad_(True)
    matrices = [values[n] for n in weights if values[n].dim() > 1]
    vectors = [values[n] for n in weights if values[n].dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}], lr=RATE, betas=(0.9, 0.98), eps=1e-8)
    failures = 0
    for step in range(1, STEPS + 1):
        batch = np.stack([tokens[at:at + LENGTH + 1] for at in places[(step - 1) * BATCH:step * BATCH]])
        these = dict(values, input_ids=torch.from_numpy(batch[:, :-1].copy()))
        run(model, these)
        loss = F.cross_entropy(these["logits"].reshape(-1, 2048), torch.from_numpy(batch[:, 1:].copy()).reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(matrices + vectors, 1)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        near = NEAR if step <= EARLY else NEAR_END
        wrong = not abs(mine[step - 1] - loss.item()) <= near * loss.item()
        failures += wrong
        print(f"{'FAILED: ' if wrong else ''}step {step}: linnet {mine[step - 1]:.5f}, torch {loss.item():.5f}", flush=True)
    sys.exit(bool(failures))


main()
