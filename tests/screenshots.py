"""Pictures of the live page for the docs: ``python tests/screenshots.py RUN [--out DIR]`` (`make screenshots`)."""

import argparse
import tempfile
from pathlib import Path

import browsing

from crucible.viewer.show import view

PICTURES = (
    ("view-light", 1280, 900, False, "step={early}"),
    ("view-dark", 1280, 900, True, "step={late}&frame=sky"),
    ("view-fixed", 1280, 900, True, "step={middle}&frame=fixed"),
    ("view-phone", 390, 844, False, "step={middle}"),
)
"""Name, width, height, dark, and what the address says."""


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
        finally:
            browser.driver.quit()


def take(browser, url, folder, picture):
    """One picture; the steps are those at which much happens."""
    name, width, height, dark, place = picture
    browser.screen(width, height, dark=dark)
    browser.open(url)
    exits = browser.asynchronous(
        "const done = arguments[0]; fetch('view.json').then(r => r.json()).then(v => done(v.answers))"
    )
    cooling = sorted(exits["exits"][1])[len(exits["freeze"]) // 2]
    steps = {"early": cooling, "middle": exits["median_freeze"], "late": sorted(exits["freeze"])[-20]}
    browser.open(f"{url}#{place.format(**steps)}")
    browser.wait("document.getElementById('bits').dataset.step !== undefined")
    browser.wait("!document.getElementById('cloud').classList.contains('waiting')")
    browser.asynchronous("setTimeout(arguments[0], 700)")
    path = folder / f"{name}.png"
    browser.driver.save_screenshot(str(path))
    assert browser.complaints() == []
    return path


if __name__ == "__main__":
    main()
