"""Pages that several programs write parts of.

page.py PAGE NAME: standard input becomes the part of that name.
"""

import os
import sys


def section(path, name, text):
    """The part of a page between the marks of that name is replaced."""
    begin, end = f"<!-- from {name} -->\n", f"<!-- end of {name} -->\n"
    with open(path) as f:
        page = f.read()
    i, k = page.index(begin) + len(begin), page.index(end)
    with open(path + ".new", "w") as f:
        f.write(page[:i] + text.rstrip("\n") + "\n" + page[k:])
    os.replace(path + ".new", path)


if __name__ == "__main__":
    section(*sys.argv[1:], sys.stdin.read())
