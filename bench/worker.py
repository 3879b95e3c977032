"""One engine in a process of its own, driven by lines of JSON: {"do": ...} in, one answer a line out.

	worker.py linnet LIBRARY | worker.py onnxruntime

load {path, threads, states, optimize}: drop the model before it, prepare to run; answers seconds and the growth of the process's largest resident size in bytes.
feed {files: {name: .npy}}: inputs of the runs to come.
settle {}: the largest resident size counts from here.
time {runs, processor}: answers the seconds of each run (processor: of the processor, not of the clock), the session's peak of activations (linnet
alone) and the growth of the resident size.
save {path}: the outputs of the last run as .npz.
"""

import ctypes
import gc
import json
import os
import sys
import time

import numpy as np


def resident():
    """Largest resident size so far, in bytes. (getrusage() also knows what the parent had.)"""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))


def forget_peak():
    """What was freed goes back to the system, and the largest resident size is the present one."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
          11: np.float64, 12: np.uint32, 13: np.uint64}
NUMBERS = {np.dtype(t): n for n, t in DTYPES.items()}


class Tensor(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_int), ("rank", ctypes.c_int), ("d", ctypes.c_int64 * 8), ("data", ctypes.c_void_p)]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("file", ctypes.c_char * 256), ("node", ctypes.c_char * 128), ("op", ctypes.c_char * 64),
                ("message", ctypes.c_char * 512)]


class SessionOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("reference", ctypes.c_bool), ("states", ctypes.c_bool), ("threads", ctypes.c_int),
                ("max_memory", ctypes.c_int64), ("seed", ctypes.c_uint64)]


class Linnet:
    """The public header through ctypes."""

    def __init__(self, library):
        self.lib = ctypes.CDLL(library)
        self.lib.linnet_session_peak.restype = ctypes.c_int64
        self.lib.linnet_model_name.restype = ctypes.c_char_p

        self.model = self.session = None

    def drop(self):
        if self.model:
            self.lib.linnet_session_free(self.session)
            self.lib.linnet_model_free(self.model)
        self.model = self.session = self.arrays = self.tensors = None

    def call(self, name, *args):
        e = Error()
        if getattr(self.lib, name)(*args, ctypes.byref(e)):
            line = ctypes.create_string_buffer(1200)
            self.lib.linnet_error_line(ctypes.byref(e), line, ctypes.c_size_t(1200))
            raise RuntimeError(line.value.decode())

    def load(self, path, threads, states=False, optimize=True):
        self.model, self.session = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("linnet_model_load", path.encode(), None, ctypes.byref(self.model))
        opt = SessionOptions(size=ctypes.sizeof(SessionOptions), threads=threads, states=states, reference=not optimize)
        self.call("linnet_session_new", self.model, ctypes.byref(opt), ctypes.byref(self.session))
        self.outputs = [self.lib.linnet_model_name(self.model, 1, i) for i in range(self.lib.linnet_model_count(self.model, 1))]

    def feed(self, arrays):
        self.arrays = {k: np.require(v, requirements="C") for k, v in arrays.items()}
        self.names = (ctypes.c_char_p * len(arrays))(*[k.encode() for k in arrays])
        self.tensors = (Tensor * len(arrays))()
        for t, a in zip(self.tensors, self.arrays.values()):
            t.dtype, t.rank, t.data = NUMBERS[a.dtype], a.ndim, a.ctypes.data
            t.d[: a.ndim] = a.shape

    def run(self):
        self.call("linnet_session_run", self.session, self.names, self.tensors, len(self.arrays))

    def peak(self):
        return self.lib.linnet_session_peak(self.session)

    def results(self):
        out = {}
        for name in self.outputs:
            t = Tensor()
            self.call("linnet_session_output", self.session, name, ctypes.byref(t))
            shape, dtype = tuple(t.d[: t.rank]), np.dtype(DTYPES[t.dtype])
            raw = ctypes.string_at(t.data, int(np.prod(shape)) * dtype.itemsize) if np.prod(shape) else b""
            out[name.decode()] = np.frombuffer(raw, dtype).reshape(shape)
        return out


class OnnxRuntime:
    def __init__(self, _):
        import onnxruntime

        self.ort = onnxruntime
        onnxruntime.set_default_logger_severity(3)

    def drop(self):
        self.session = self.arrays = self.last = None

    def load(self, path, threads, states=False, optimize=True):
        opt = self.ort.SessionOptions()
        opt.intra_op_num_threads, opt.inter_op_num_threads = threads, 1
        if not optimize:
            opt.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = self.ort.InferenceSession(path, opt, providers=["CPUExecutionProvider"])
        self.outputs = [o.name for o in self.session.get_outputs()]

    def feed(self, arrays):
        self.arrays = arrays

    def run(self):
        self.last = self.session.run(None, self.arrays)

    def peak(self):
        return None

    def results(self):
        return dict(zip(self.outputs, self.last))


def main():
    engine = {"linnet": Linnet, "onnxruntime": OnnxRuntime}[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else None)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not mix with the answers
    before = resident()
    for line in sys.stdin:
        q = json.loads(line)
        do, answer = q.pop("do"), {}
        try:
            if do == "load":
                engine.drop()
                start = time.perf_counter()
                engine.load(**q)
                answer["seconds"] = time.perf_counter() - start
            elif do == "feed":
                engine.feed({k: np.load(v) for k, v in q["files"].items()})
            elif do == "settle":
                forget_peak()
            elif do == "time":
                answer["seconds"], clock = [], time.process_time if q.get("processor") else time.perf_counter
                for _ in range(q["runs"]):
                    start = clock()
                    engine.run()
                    answer["seconds"].append(clock() - start)
                answer["peak"] = engine.peak()
            elif do == "save":
                np.savez(q["path"], **engine.results())
            answer["resident"] = resident() - before
        except Exception as e:  # whatever an engine says of a model goes into the table
            answer["error"] = f"{type(e).__name__}: {e}".splitlines()[0][:300]
        print(json.dumps(answer), file=answers, flush=True)


main()
