"""A training step of linnet beside PyTorch's, measured in the same run: the model of corpus/lm, forward, backward, clipping and AdamW.

train.py LINNET MODEL TOKENS WORK [--threads 1,2] [--batch 8] [--length 512] [--steps 4] [--rounds 3]

Each engine runs in processes of its own; they take turns, and a ratio is PyTorch's time over linnet's in the same round: above 1 linnet is faster. PyTorch
has the architecture written for it (fused attention, fused normalisation, fused AdamW), float, eager. Memory is the largest resident size of the process, and
behind it what it grew by since the model was loaded. The losses of the steps must agree. Exit status 77, after saying why, without PyTorch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "peers"))
try:
    import numpy as np
    import onnx
    import onnx.numpy_helper
    import torch
    import torch.nn.functional as F
except ImportError as e:
    print("skipped:", e)
    sys.exit(77)
from windows import windows

RATE, DECAY, BETAS, SEED, NEAR = 1e-4, 0.1, (0.9, 0.98), 5, 2e-3
HEADS, KV_HEADS, WIDTH, THETA, EPS = 8, 4, 32, 10000.0, 1e-5


def resident(what):
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(what))


# ---- PyTorch ----


def logits(w, layers, ids):
    n = ids.shape[1]
    angle = torch.outer(torch.arange(n), THETA ** (-torch.arange(0, WIDTH, 2) / WIDTH))
    cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)

    def rope(x):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    x = F.embedding(ids, w["embed.weight"])
    for i in range(layers):
        def of(name):
            return w[f"blocks.{i}.{name}"]

        h = F.rms_norm(x, x.shape[-1:], of("norm1.weight"), EPS)
        q, k, v = ((h @ of(f"attn.{p}_proj.weight_t")).unflatten(-1, (-1, WIDTH)).transpose(1, 2) for p in "qkv")
        y = F.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True, enable_gqa=True)
        x = x + y.transpose(1, 2).flatten(-2) @ of("attn.o_proj.weight_t")
        h = F.rms_norm(x, x.shape[-1:], of("norm2.weight"), EPS)
        x = x + (F.silu(h @ of("mlp.gate_proj.weight_t")) * (h @ of("mlp.up_proj.weight_t"))) @ of("mlp.down_proj.weight_t")
    return F.rms_norm(x, x.shape[-1:], w["norm.weight"], EPS) @ w["embed.weight"].T


def worker(o):
    torch.set_num_threads(o.threads)
    model = onnx.load(o.model)
    w = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()).requires_grad_() for t in model.graph.initializer if "weight" in t.name}
    layers = sum(".norm1." in n for n in w)
    del model
    tokens = np.load(o.tokens).astype(np.int64)
    places = windows(o.steps * o.batch, len(tokens), o.length, SEED)
    optimizer = torch.optim.AdamW([{"params": [p for p in w.values() if p.dim() > 1], "weight_decay": DECAY},
                                   {"params": [p for p in w.values() if p.dim() == 1], "weight_decay": 0}], lr=RATE, betas=BETAS, eps=1e-8, fused=True)
    start, times, losses = resident("VmRSS"), [], []
    for step in range(o.steps):
        began = time.perf_counter()
        batch = torch.from_numpy(np.stack([tokens[at:at + o.length + 1] for at in places[step * o.batch:(step + 1) * o.batch]]))
        out = logits(w, layers, batch[:, :-1])
        loss = F.cross_entropy(out.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(w.values()), 1)
        optimizer.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - began)
    peak = resident("VmHWM")
    print(json.dumps({"seconds": times, "losses": losses, "peak": peak, "growth": peak - start}))


def torch_run(o, threads):
    done = subprocess.run([sys.executable, __file__, o.linnet, o.model, o.tokens, o.work, "--worker", "--threads", str(threads), "--batch", str(o.batch),
                           "--length", str(o.length), "--steps", str(o.steps)], check=True, stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads)))
    return json.loads(done.stdout)


# ---- linnet ----


def linnet_run(o, threads, steps):
    log, out = os.path.join(o.work, "log.jsonl"), os.path.join(o.work, "trained.onnx")
    if os.path.exists(log):
        os.remove(log)
    child = subprocess.Popen([o.linnet, "train", o.model, "--data", o.tokens, "-o", out, "--batch", str(o.batch), "--length", str(o.length), "--steps", str(steps),
                              "--schedule", "constant", "--rate", str(RATE), "--decay", str(DECAY), "--beta1", str(BETAS[0]), "--beta2", str(BETAS[1]), "--seed",
                              str(SEED), "--threads", str(threads), "--log", log, "-q"])
    peak = 0
    while child.poll() is None:  # what wait4() gives has this process's own in it
        try:
            with open(f"/proc/{child.pid}/status") as f:
                peak = max([peak] + [int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM")])
        except OSError:
            pass
        time.sleep(0.02)
    if child.returncode:
        sys.exit("linnet train failed")
    with open(log) as f:
        lines = [json.loads(line) for line in f]
    ends = [0.0] + [x["seconds"] for x in lines]
    return {"seconds": [b - a for a, b in zip(ends, ends[1:])], "losses": [x["loss"] for x in lines], "peak": peak}


def mib(n):
    return f"{n / (1 << 20):.0f} MiB"


def main(o):
    failures = 0
    os.makedirs(o.work, exist_ok=True)
    print(f"\n## Training step, batch {o.batch} x {o.length} tokens, float, beside PyTorch {torch.__version__}\n")
    print("| threads | linnet | PyTorch | ratio (least-largest) | tokens a second | memory: linnet | PyTorch |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for threads in (int(t) for t in o.threads.split(",")):
        mine, theirs, ratios = [], [], []
        for _ in range(o.rounds):
            a, b = linnet_run(o, threads, o.steps), torch_run(o, threads)
            for i, (x, y) in enumerate(zip(a["losses"], b["losses"])):
                if not abs(x - y) <= NEAR * y:
                    print(f"FAILED: loss of step {i + 1}: linnet {x:.5f}, PyTorch {y:.5f}", file=sys.stderr)
                    failures += 1
            # the first step plans and allocates
            mine.append(statistics.median(a["seconds"][1:]))
            theirs.append(statistics.median(b["seconds"][1:]))
            ratios.append(theirs[-1] / mine[-1])
        small = linnet_run(argparse.Namespace(**{**vars(o), "batch": 1, "length": 8}), threads, 1)
        t = statistics.median(mine)
        print(f"| {threads} | {t:.3f} s | {statistics.median(theirs):.3f} s | {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | "
              f"{o.batch * o.length / t:.0f} | {mib(a['peak'])} ({mib(a['peak'] - small['peak'])}) | {mib(b['peak'])} ({mib(b['growth'])}) |", flush=True)
    sys.exit(bool(failures))


p = argparse.ArgumentParser()
for name in ("linnet", "model", "tokens", "work"):
    p.add_argument(name)
p.add_argument("--worker", action="store_true")
p.add_argument("--threads", default="1,2")
for name, usual in (("batch", 8), ("length", 512), ("steps", 4), ("rounds", 3)):
    p.add_argument("--" + name, type=int, default=usual)
options = p.parse_args()
if options.worker:
    options.threads = int(options.threads)
    worker(options)
else:
    main(options)
