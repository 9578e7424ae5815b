"""The page of a report: one file that asks nothing of any network, light or dark, on a screen, a phone or paper."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from analysis.plots.style import PALETTE

STYLE = """
:root { color-scheme: light dark; --paper: #faf9f6; --well: #f2f0ea; LIGHT
  --serif: ui-serif, "Iowan Old Style", "Palatino Linotype", Palatino, "Source Serif 4", "Noto Serif", Georgia, serif;
  --sans: ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #0c0f15; --well: #151a23; DARK } }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 74rem; padding: 2.2rem 2rem 4rem; font-variant-numeric: tabular-nums; }
p, h1, h2, figure, dl, dd, figcaption { margin: 0; }
h1 { font: 500 2.1rem/1.25 var(--serif); max-width: 46rem; letter-spacing: -.008em; text-wrap: balance; }
h2 { font: 500 1.4rem/1.3 var(--serif); margin: 3.4rem 0 .9rem; break-after: avoid; }
.over { font-size: .8rem; letter-spacing: .075em; text-transform: uppercase; color: var(--soft); font-weight: 600; margin-bottom: .7rem; overflow-wrap: anywhere; }
.facts { color: var(--soft); margin-top: .7rem; overflow-wrap: anywhere; }
.notice { margin-top: 1.2rem; padding: .7rem 1rem; border-left: 3px solid var(--alarm); background: var(--well); max-width: 52rem; }
.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; margin: 2rem 0 0; background: var(--rule); border-block: 1px solid var(--rule); break-inside: avoid; }
.figures > div { background: var(--paper); padding: .95rem 1rem .95rem 0; display: flex; flex-direction: column; }
.figures > div:not(:first-child) { padding-left: 1.1rem; }
dt { font-size: .84rem; color: var(--soft); }
.figures dd:nth-of-type(1) { font: 500 2rem/1.2 var(--serif); }
.figures dd:nth-of-type(2) { font-size: .84rem; color: var(--soft); }
.sentence { margin-top: 1.4rem; max-width: 52rem; color: var(--soft); font-size: .95rem; }
figure { display: grid; grid-template-columns: minmax(0, 47.5rem) minmax(15rem, 1fr); gap: 0 2.2rem; align-items: start; break-inside: avoid; }
figcaption { font-size: .9rem; line-height: 1.5; color: var(--soft); padding-top: 1.6rem; }
figcaption b { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: var(--sans) !important; }
.narrow { display: none; }
table { border-collapse: collapse; font-size: .92rem; }
.wide-table { overflow-x: auto; }
th, td { text-align: left; padding: .34rem 1.6rem .34rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td, th { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; font-size: .84rem; white-space: nowrap; }
tbody th { font-weight: 500; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr { break-inside: avoid; }
details td { white-space: normal; }
td code, p code { font: .86em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--well); padding: .1em .4em; border-radius: .25em; white-space: pre-wrap; overflow-wrap: anywhere; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(27rem, 100%), 1fr)); gap: 1rem 3rem; align-items: start; }
details { margin-top: 1.2rem; } summary { cursor: pointer; color: var(--soft); }
pre { background: var(--well); padding: 1rem; overflow-x: auto; white-space: pre-wrap; font-size: .85rem; line-height: 1.45; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--rule); color: var(--soft); font-size: .85rem; }
@media (max-width: 62rem) { figure { grid-template-columns: minmax(0, 1fr); } figcaption { padding-top: .5rem; max-width: 42rem; } }
@media screen and (max-width: 36rem) {
  body { padding: 1.2rem 1rem 3rem; } h1 { font-size: 1.55rem; } h2 { margin-top: 2.4rem; font-size: 1.25rem; }
  .figures { grid-template-columns: 1fr 1fr; } .figures > div, .figures > div:not(:first-child) { padding: .7rem .5rem .7rem .1rem; }
  .figures > div:nth-child(even) { padding-left: .9rem; } .figures dd:nth-of-type(1) { font-size: 1.6rem; }
  .wide { display: none; } .narrow { display: block; } th, td { padding-right: .9rem; } figure { margin-inline: -.4rem; } figcaption { padding-inline: .4rem; }
}
@media print {
  @page { margin: 14mm; } html { font-size: 10.5pt; } body { padding: 0; max-width: none; } h2 { margin-top: 2rem; }
  figure { grid-template-columns: 1fr; } figcaption { padding-top: .4rem; } section { break-inside: avoid; } details { display: none; }
}
"""
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
    style = STYLE.replace("LIGHT", light, 1).replace("DARK", dark, 1)
    return PAGE.format(title=text(title), style=style, body="\n".join(parts)).encode()


def text(value: object) -> str:
    """Anything as text of the page; what a terminal would obey, and what turns the line around, is shown as text."""
    shown = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in str(value))
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
    lines = (
        "".join(
            f"<{'td' if at else 'th'}{kind[at]}>{cell if isinstance(cell, Markup) else text(cell)}</{'td' if at else 'th'}>"
            for at, cell in enumerate(row)
        )
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    thead = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return f'<div class="wide-table"><table>{thead}<tbody>{body}</tbody></table></div>'


class Markup(str):
    """HTML that is not escaped again."""

    __slots__ = ()


def code(value: object) -> Markup:
    """Text in a fixed width, with its spaces seen."""
    return Markup(f"<code>{text(value)}</code>")
