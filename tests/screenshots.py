"""Pictures for the docs of the live page, the report and the watch: ``python tests/screenshots.py RUN [--out DIR]``.

`make screenshots` runs it.
"""

import argparse
import io
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import browsing
from rich.console import Console

from crucible.inspection.published import name_of_run
from crucible.inspection.report import report
from crucible.inspection.watch import looks, screen
from crucible.viewer.show import view

PICTURES = (
    ("view-light", 1280, 900, False, "step={early}"),
    ("view-dark", 1280, 900, True, "step={late}&frame=sky"),
    ("view-fixed", 1280, 900, True, "step={middle}&frame=fixed"),
    ("view-phone", 390, 844, False, "step={middle}"),
)
"""Name, width, height, dark, and what the address says."""
OF_REPORT = (
    ("report-light", 1280, 1240, False, 0),
    ("report-dark", 1280, 1240, True, 2),
    ("report-phone", 390, 1400, False, 0),
)
"""Name, width, height, dark, and from which picture on."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of a run, such as that of `crucible demo`")
    parser.add_argument("--out", default="docs/pictures", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with view(arguments.run) as page, tempfile.TemporaryDirectory() as profile:
        browser = browsing.start(profile)
        try:
            for picture in PICTURES:
                print(take(browser, page.url, arguments.out, picture))
            written = report(arguments.run, Path(profile) / "report.html")
            for picture in OF_REPORT:
                print(take_report(browser, written.as_uri(), arguments.out, picture))
        finally:
            browser.driver.quit()
    print(take_watch(arguments.run, arguments.out))


def take(browser, url, folder, picture):
    """One picture; the steps are those at which much happens."""
    name, width, height, dark, place = picture
    browser.screen(width, height, dark=dark)
    browser.open(url)
    exits = browser.asynchronous(
        "const done = arguments[0]; fetch('view.json').then(r => r.json())"
        ".then(v => done({...v.answers, texts: v.texts, ids: v.ids}))"
    )
    cooling = sorted(exits["exits"][1])[len(exits["freeze"]) // 2]
    steps = {"early": cooling, "middle": exits["median_freeze"], "late": sorted(exits["freeze"])[-20]}
    words = [i for i, text in enumerate(exits["texts"] or []) if text.strip().isalpha() and text.isascii()]
    chosen = exits["ids"][max(words or range(len(exits["ids"])), key=lambda i: exits["freeze"][i])]
    browser.open(f"{url}#{place.format(**steps)}&token={chosen}")
    browser.wait("document.getElementById('bits').dataset.step !== undefined")
    browser.wait("!document.getElementById('cloud').classList.contains('waiting')")
    browser.asynchronous("setTimeout(arguments[0], 700)")
    path = folder / f"{name}.png"
    browser.driver.save_screenshot(str(path))
    assert browser.complaints() == []
    return path


def take_report(browser, url, folder, picture):
    """A part of the report."""
    name, width, height, dark, first = picture
    browser.screen(width, height, dark=dark)
    browser.open(url, whole=False)
    browser.js(f"document.querySelectorAll('figure')[{first}].closest('section').scrollIntoView()" if first else "1")
    path = folder / f"{name}.png"
    browser.driver.save_screenshot(str(path))
    assert browser.complaints() == []
    return path


def take_watch(run, folder):
    """The screen of `crucible watch`, as a drawing that asks for no font from elsewhere."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    look = next(looks(run, 0))
    screen.once(replace(look, run=Path(name_of_run(look.run))), console)
    drawing = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="crucible watch"), flags=re.DOTALL)
    path = folder / "watch.svg"
    path.write_text(drawing)
    return path


if __name__ == "__main__":
    main()
