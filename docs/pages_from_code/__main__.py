"""python -m pages_from_code, with docs/ on the path: write the pages that are made from the code."""

import sys

from pages_from_code.pages import write

for name in write():
    sys.stdout.write(f"written: docs/{name}\n")
