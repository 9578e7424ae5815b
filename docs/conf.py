"""How the documentation site is built: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

from pages_from_code import changelog, docstrings, notebooks  # noqa: E402 - the folder was just put on the path

from crucible.version import __version__  # noqa: E402

project = "Crucible"
author = "the Crucible contributors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "changes/*", "pages_from_code/*"]
suppress_warnings = ["myst.header"]  # a fragment of the changelog has no title

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"Crucible {release}"
html_show_sourcelink = False
html_copy_source = False

# every link to a name of ours must lead somewhere; those of other projects would need the network
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!(crucible|store|analysis)\.).*")]
default_role = "literal"  # `name` in a docstring

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say the types
napoleon_google_docstring = False
napoleon_use_param = False  # types in words stay words
napoleon_use_rtype = False


def setup(app: Any) -> None:  # noqa: ANN401 - Sphinx's application
    """Fill in what is made from other files while the site is built."""
    app.connect("source-read", _fill_in)
    app.connect("autodoc-process-docstring", _docstring, priority=100)  # before napoleon
    app.connect("build-finished", _notebooks)


def _fill_in(_app: object, name: str, text: list[str]) -> None:
    folder, _, page = name.rpartition("/")
    if name == "changelog":
        text[0] += changelog.page(DOCS / "changes")
    elif folder == "examples" and page != "index":
        text[0] += f'\n<p><a href="{page}.ipynb" download>Download as a notebook</a></p>\n'


def _docstring(_app: object, _what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
    lines[:] = docstrings.as_restructured(lines)


def _notebooks(app: Any, error: Exception | None) -> None:  # noqa: ANN401 - Sphinx's application
    if error is None:
        notebooks.write(DOCS / "examples", Path(app.outdir) / "examples")
