"""What calibration gains, recipe by recipe, on the language model of corpus/lm: the table of docs/calibration.md.

calibrate.py LINNET CORPUS WORK DOCS [--recipes gated-delta,lolcats] [--tokens 600000 | --minutes X] [--rate X] [--threads N] [--again]

A recipe that has a row of the same budget in DOCS/calibration.json is not run again, so the table can be made in parts and goes on when it was stopped;
--again runs it. With --minutes, which want an idle machine, rows stand beside those of tokens. Rows of softmax and of windows of it alone are made once. The text in DOCS/calibration.md between the marks is what the rows say.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import time


from page import section

WINDOWS = (64, 32, 16, 8)
LONG = 16384
TEXTS = ("train.npy", "test.npy")


def note(text):
    print(text, file=sys.stderr, flush=True)


def tool(linnet, *args):
    return subprocess.run([linnet, *args], check=True, stdout=subprocess.PIPE, text=True).stdout


class Bench:
    def __init__(self, o):
        self.o = o
        self.lm = os.path.join(o.corpus, "lm")
        self.model = os.path.join(self.lm, "softmax.onnx")
        self.json = os.path.join(o.docs, "calibration.json")
        self.rows = {}
        if os.path.exists(self.json):
            with open(self.json) as f:
                self.rows = json.load(f)
        os.makedirs(o.work, exist_ok=True)

    def keep(self, name, row):
        self.rows[name] = row
        with open(self.json + ".new", "w") as f:
            json.dump(self.rows, f, indent=1)
            f.write("\n")
        os.replace(self.json + ".new", self.json)
        self.write()

    def path(self, name):
        return os.path.join(self.o.work, name + ".onnx")

    def speed(self, path):
        """Tokens a second of one long sequence."""
        said = tool(self.o.linnet, "run", path, "--dim", "batch=1", "--dim", f"sequence={LONG}", "--repeat", "2", "--threads", str(self.o.threads), "--json")
        return next(LONG / x["median_seconds"] for x in map(json.loads, said.splitlines()) if "median_seconds" in x)

    def state(self, card):
        """Bytes of the states of the step form that the card's conversion has."""
        options, path = card["options"], self.path("state")
        given = [x for k in ("layers", "fade", "norm", "conv", "window", "features") if k in options for x in ("--" + k, str(options[k]))]
        try:
            tool(self.o.linnet, "convert", "-q", self.model, "-o", path, "--target", "step", "--mechanism", card["mechanism"], *given)
        except subprocess.CalledProcessError:
            return None
        with open(path + ".json") as f:
            return 4 * sum(layer["state_numbers"] for layer in json.load(f)["layers"])

    def convert(self, name, *args):
        path = self.path(name)
        data = [x for flag, text in zip(("--calibrate", "--held-out"), TEXTS) for x in (flag, os.path.join(self.lm, text))]
        tool(self.o.linnet, "convert", "-q", self.model, "-o", path, "--target", "onnx", *data, "--threads", str(self.o.threads), *args)
        with open(path + ".json") as f:
            return json.load(f)

    def budget(self):
        return {"minutes": self.o.minutes} if self.o.minutes else {"tokens": self.o.tokens}

    def windows(self):
        for w in WINDOWS:
            name = f"window {w} alone"
            if name in self.rows:
                continue
            note(name)
            card = self.convert(f"window-{w}", "--mechanism", "window", "--window", str(w), "--tokens", "1")
            cal = card["calibration"]
            if "softmax" not in self.rows:
                self.keep("softmax", {"quality": cal["softmax"], "speed": self.speed(self.model)})
            tool(self.o.linnet, "convert", "-q", self.model, "-o", self.path("plain"), "--target", "onnx", "--mechanism", "window", "--window", str(w))
            self.keep(name, {"quality": cal["not_calibrated"], "state": self.state(card), "speed": self.speed(self.path("plain"))})

    def recipe(self, name):
        budget = self.budget()
        key = f"{name}, {self.o.minutes:g} minutes" if self.o.minutes else name
        row = self.rows.get(key)
        if row and row.get("budget") == budget and not self.o.again:
            return
        note(f"{name}: {budget}")
        checkpoint = os.path.join(self.o.work, f"{name}-{self.o.minutes or self.o.tokens}")
        for path in glob.glob(checkpoint + ".*") if self.o.again else ():
            os.remove(path)
        begin = time.time()
        args = ["--minutes", str(self.o.minutes)] if self.o.minutes else ["--tokens", str(self.o.tokens)]
        if self.o.rate:
            args += ["--rate", str(self.o.rate)]
        try:
            card = self.convert(name, "--recipe", name, "--checkpoint", checkpoint, *args)
        except subprocess.CalledProcessError as e:
            note(f"{name}: exit status {e.returncode}; no row")
            return
        cal = card["calibration"]
        self.keep(key, {"budget": budget, "mechanism": card["mechanism"], "before": cal["not_calibrated"], "stages": cal["stages"],
                         "window": cal.get("window_alone"), "state": self.state(card), "speed": self.speed(self.path(name)), "wall": time.time() - begin,
                         "threads": self.o.threads})

    def write(self):
        head = ["", "before", "first stage", "last stage", "of recall", "window alone", "tokens", "minutes", "state KiB", "tokens/s at 16K"]
        lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]

        def number(x, form="{:.2f}"):
            return form.format(x) if x is not None else "-"

        def kib(row):
            return number(row["state"] and row["state"] / 1024, "{:.0f}") if row.get("state") else "grows"

        for name, row in self.rows.items():
            if "quality" in row:
                q = row["quality"]
                cells = [name, "-", "-", number(q["perplexity"]), number(q["perplexity_recall"]), "-", "-", "-", kib(row), number(row["speed"], "{:.0f}")]
                lines.append("| " + " | ".join(cells) + " |")
        done = {name: row for name, row in self.rows.items() if "stages" in row and row["stages"]}
        for name, row in sorted(done.items(), key=lambda x: x[1]["stages"][-1]["held_out"].get("perplexity") or 1e9):
            stages = row["stages"]
            each = [f"{number(s['held_out'].get('perplexity'))} {s['name']}" for s in stages]
            last = stages[-1]["held_out"]
            cells = [name, number(row["before"]["perplexity"]), each[0] if len(each) > 1 else "-", each[-1], number(last.get("perplexity_recall")),
                     number(row["window"]["perplexity"]) if row["window"] else "-", str(sum(s["tokens"] for s in stages)),
                     number(sum(s["seconds"] for s in stages) / 60, "{:.1f}"), kib(row), number(row["speed"], "{:.0f}")]
            lines.append("| " + " | ".join(cells) + " |")
        section(os.path.join(self.o.docs, "calibration.md"), "bench-calibrate", "\n".join(lines))


def main():
    p = argparse.ArgumentParser()
    for a in ("linnet", "corpus", "work", "docs"):
        p.add_argument(a)
    p.add_argument("--recipes", help="comma-separated; all that linnet knows, without lit, which is for images")
    p.add_argument("--tokens", type=int, default=600000)
    p.add_argument("--minutes", type=float)
    p.add_argument("--rate", type=float)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--again", action="store_true")
    o = p.parse_args()
    bench = Bench(o)
    said = json.loads("[" + ",".join(tool(o.linnet, "convert", "--list", "--json").strip().splitlines()) + "]")
    recipes = o.recipes.split(",") if o.recipes else [x["name"] for x in said if x["kind"] == "recipe" and x["name"] != "lit"]
    bench.windows()
    for name in recipes:
        bench.recipe(name)
    bench.write()
    with open(os.path.join(o.docs, "calibration.md")) as f:
        print(f.read())


if __name__ == "__main__":
    main()
