"""The examples as Jupyter notebooks: each page of docs/examples is the source of one.

::

    python -m pages_from_code.notebooks FOLDER      # with docs on the path; writes FOLDER/*.ipynb
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

CODE = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def notebook(text: str) -> dict[str, Any]:
    """A notebook of a page: each block of Python a cell of code, what lies between a cell of text."""
    cells = []
    for number, part in enumerate(CODE.split(text)):
        if source := part.strip():
            cells.append(_cell(source, len(cells), is_code=number % 2 == 1))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cell(source: str, place: int, *, is_code: bool) -> dict[str, Any]:
    cell = {"id": f"cell-{place}", "metadata": {}, "source": source.splitlines(keepends=True)}
    if is_code:
        return {"cell_type": "code", "execution_count": None, "outputs": [], **cell}
    return {"cell_type": "markdown", **cell}


def write(examples: Path, folder: Path) -> list[Path]:
    """Write the notebook of each example and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for page in sorted(examples.glob("*.md")):
        if page.stem != "index":
            path = folder / f"{page.stem}.ipynb"
            path.write_text(json.dumps(notebook(page.read_text(encoding="utf-8")), indent=1) + "\n", encoding="utf-8")
            written.append(path)
    return written


if __name__ == "__main__":
    for made in write(Path(__file__).parents[1] / "examples", Path(sys.argv[1])):
        sys.stdout.write(f"{made}\n")
