"""The page of a report: one file that asks nothing of any network, light or dark, on a screen, a phone or paper."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.plots.style import PALETTE

STYLE = Path(__file__).with_name("style.css")
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(title: str, parts: Iterable[str]) -> bytes:
    """The whole file."""
    colours = (
        " ".join(f"--{name}: {pair[at]};" for name, pair in PALETTE.items()) for at in (0, 1)
    )  # fmt: skip
    light, dark = colours
    style = STYLE.read_text().replace("LIGHT", light, 1).replace("DARK", dark, 1)
    return PAGE.format(title=text(title), style=style, body="\n".join(parts)).encode()


def text(value: object) -> str:
    """Anything as text of the page; what a terminal would obey, and what turns the line around, is shown as text."""
    shown = (
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in str(value)
    )
    return html.escape("".join(shown))


def marked(words: str) -> str:
    """A caption: words between asterisks stand out.

    Examples
    --------
    >>> marked("its *freeze step* < 3")
    'its <b>freeze step</b> &lt; 3'
    """
    return re.sub(r"\*([^*]+)\*", r"<b>\1</b>", text(words))


def picture(heading: str, wide: str, narrow: str, caption: str, alt: str) -> str:
    """A picture in both widths, of which one is shown, with its words."""
    return (
        f'<section><h2>{text(heading)}</h2>\n<figure><div role="img" aria-label="{text(alt)}">'
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div></div>\n'
        f"<figcaption>{marked(caption)}</figcaption></figure></section>"
    )


def figures(found: Sequence[tuple[str, str, str]]) -> str:
    """Key figures: what each is, the figure, a few words about it."""
    cells = (
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd><dd>{text(note)}</dd></div>" for name, value, note in found
    )
    return f'<dl class="figures">{"".join(cells)}</dl>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[int] = ()) -> str:
    """A table; the columns in `numbers` stand to the right, the first one names the rows."""
    kind = [' class="number"' if column in numbers else "" for column in range(len(header))]
    head = "".join(f"<th{kind[at]}>{text(name)}</th>" for at, name in enumerate(header))
    lines = ("".join(_cell(cell, at, kind[at]) for at, cell in enumerate(row)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    thead = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return f'<div class="wide-table"><table>{thead}<tbody>{body}</tbody></table></div>'


def _cell(value: object, at: int, kind: str) -> str:
    tag = "td" if at else "th"
    return f"<{tag}{kind}>{value if isinstance(value, Markup) else text(value)}</{tag}>"


class Markup(str):
    """HTML that is not escaped again."""

    __slots__ = ()


def code(value: object) -> Markup:
    """Text in a fixed width, with its spaces seen."""
    return Markup(f"<code>{text(value)}</code>")
