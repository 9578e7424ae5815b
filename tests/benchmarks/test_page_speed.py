"""What the live page costs in a real browser, on the real run at its full size."""

import os
import time
from pathlib import Path

import browsing
import pytest
from measuring import table

from crucible.viewer.show import view

pytestmark = pytest.mark.benchmark

JUMP = """
const [to, done] = arguments;
const slider = document.getElementById('step');
const start = performance.now();
slider.value = to;
slider.dispatchEvent(new Event('input'));
const look = () => {
  if (document.getElementById('cloud').dataset.step === String(to)) done(performance.now() - start);
  else requestAnimationFrame(look);
};
look();
"""
PLAY = """
const done = arguments[0];
const cloud = document.getElementById('cloud');
document.getElementById('play').click();
let [drawn, last] = [0, cloud.dataset.step];
const first = Number(last);
const start = performance.now();
const look = () => {
  if (cloud.dataset.step !== last) { drawn++; last = cloud.dataset.step; }
  if (performance.now() - start < 5000) { requestAnimationFrame(look); return; }
  document.getElementById('play').click();
  done([drawn / 5, (Number(last) - first) / 5]);
};
look();
"""


def renderer_mb(since):
    """Resident memory of the largest renderer that is not in `since`, in MB."""
    return max(size for pid, size in renderers().items() if pid not in since) / 1e6


def renderers():
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (folder / "cmdline").read_bytes():
                found[folder.name] = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return found


@pytest.fixture
def browser(tmp_path):
    others = set(renderers())
    browser = browsing.start(tmp_path / "profile")
    browser.others = others
    yield browser
    browser.driver.quit()


def marks(browser):
    return browser.js("Object.fromEntries(performance.getEntriesByType('mark').map(m => [m.name, m.startTime / 1000]))")


@pytest.mark.parametrize("kind", ["recorded", "compacted"])
def test_speed_of_the_page(kind, request, browser):
    run = request.getfixturevalue(kind)
    browser.screen(1280, 900)
    with view(run) as page:
        browser.open(f"{page.url}#step=300&token=133")
        seen = marks(browser)
        jumps = []
        for step in (4000, 1500, 40, 2777, 600, 3333):
            jumps.append(browser.asynchronous(JUMP, step))
            time.sleep(1)
        browser.go(100)
        time.sleep(2)
        frames, steps = browser.asynchronous(PLAY)
        memory = renderer_mb(browser.others)
    table(
        f"The live page, 5,000 steps x 3,644 x 64, {kind}, headless without a graphics card",
        ["", "measured", "goal"],
        [
            ["first picture, s", f"{seen['first-picture']:.2f}", "1.5"],
            ["whole raster and timeline, s", f"{seen['whole-raster']:.2f}", "2.5"],
            ["jump anywhere, median, ms", f"{sorted(jumps)[len(jumps) // 2]:.0f}", "500"],
            ["jump anywhere, slowest, ms", f"{max(jumps):.0f}", "500"],
            ["steps a second, playing at 1x", f"{steps:.0f}", "30"],
            ["pictures a second", f"{frames:.0f}", "30"],
            ["renderer, MB", f"{memory:.0f}", "300"],
        ],
    )
