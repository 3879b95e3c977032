"""Run a script in a virtual environment with the pinned packages of requirements.txt, the script's folder's or else this one's, made once in the folder given.

run.py FOLDER SCRIPT arguments of the script...: exit status 77, after saying why, when the package index cannot be reached.
"""

import os
import re
import shutil
import subprocess
import sys
import venv

SKIP = 77
UNREACHABLE = re.compile(r"connection broken by|Failed to establish a new connection|Temporary failure in name resolution|timed out", re.I)


def prepare(folder, requirements):
    """The environment's interpreter; the packages it holds are written down, so that others are installed when the list changes."""
    python = os.path.join(folder, "bin", "python")
    mark = os.path.join(folder, "installed.txt")
    with open(requirements) as f:
        wanted = f.read()
    if os.path.exists(mark):
        with open(mark) as f:
            if f.read() == wanted:
                return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = subprocess.run([python, "-m", "pip", "install", "--quiet", "--retries", "2", "-r", requirements], capture_output=True, text=True)
    if pip.returncode:
        said = pip.stdout + pip.stderr
        if UNREACHABLE.search(said):
            print("skipped: the packages onnx and onnxruntime are not installed and the package index cannot be reached:")
            print(said)
            sys.exit(SKIP)
        sys.exit("pip cannot install what requirements.txt lists:\n" + said)
    with open(mark, "w") as f:
        f.write(wanted)
    return python


lists = [os.path.join(os.path.dirname(os.path.abspath(f)), "requirements.txt") for f in (sys.argv[2], __file__)]
python = prepare(sys.argv[1], next(f for f in lists if os.path.exists(f)))
sys.exit(subprocess.run([python] + sys.argv[2:]).returncode)
