"""The report in a real browser: wide and narrow, light and dark, and on paper."""

import base64
import functools
import http.server
import re
import threading

import browsing
import pytest
import viewer_runs

import crucible

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder with the report of a run, of one that diverged, of a run of one step, and of three runs."""
    folder = tmp_path_factory.mktemp("pages")
    rows = viewer_runs.states(300, tokens=60)
    whole = viewer_runs.record(folder / "run", rows, attributes={"config": {"experiment": "Calm"}})
    broken = rows.copy()
    broken[100:, 3] = 0x7FC0
    crucible.report(whole, folder / "whole.html")
    crucible.report(viewer_runs.record(folder / "broken", broken), folder / "broken.html")
    crucible.report(viewer_runs.record(folder / "short", rows[:2]), folder / "short.html")
    others = [viewer_runs.record(folder / name, viewer_runs.states(200, seed=seed)) for seed, name in enumerate("ab")]
    crucible.report([whole, *others], folder / "several.html")
    return folder


@pytest.fixture(scope="module")
def address(pages):
    """Where the folder is served."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(pages))
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = browsing.start(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


SHOWN = """
    [...document.querySelectorAll('figure')].map(figure => {
        const seen = [...figure.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width > 0);
        const box = seen[0].getBoundingClientRect();
        const marks = [...seen[0].querySelectorAll('path, image, use')].filter(mark => {
            const at = mark.getBoundingClientRect(); return at.width + at.height > 0; });
        return {count: seen.length, left: box.left, right: box.right, height: box.height, marks: marks.length};
    })
"""


@pytest.mark.parametrize("page", ["whole", "broken", "short", "several"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_the_page_fits_and_asks_for_nothing(page, width, dark, chromium, address):
    chromium.screen(width, 900, dark=dark)
    chromium.complaints()
    chromium.requests()
    chromium.open(f"{address}/{page}.html", whole=False)
    assert chromium.complaints() == []
    assert {url for url in chromium.requests() if not url.startswith(("data:", "about:"))} == {f"{address}/{page}.html"}
    assert chromium.js("document.documentElement.scrollWidth") <= width
    found = chromium.js(SHOWN.strip())
    assert len(found) >= 5
    for picture in found:
        assert picture["count"] == 1
        assert picture["left"] >= -1
        assert picture["right"] <= width + 1
        assert picture["height"] > 60
        assert picture["marks"] > 3


def test_the_ground_and_the_lines_follow_the_light(chromium, address):
    seen = []
    for dark in (False, True):
        chromium.screen(1280, 900, dark=dark)
        chromium.open(f"{address}/whole.html", whole=False)
        ground = chromium.js("getComputedStyle(document.documentElement).backgroundColor")
        ink = chromium.js("getComputedStyle(document.querySelector('figure .wide svg text')).fill")
        seen.append([sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink)])
    (light_ground, light_ink), (dark_ground, dark_ink) = seen
    assert light_ground > 700 > light_ink
    assert dark_ground < 60 < dark_ink


def test_words_in_a_picture_of_a_phone_can_be_read(chromium, address):
    chromium.screen(390, 844)
    chromium.open(f"{address}/whole.html", whole=False)
    heights = chromium.js(
        "[...document.querySelectorAll('figure .narrow svg text')].map(t => t.getBoundingClientRect())"
        ".filter(b => b.width > b.height).map(b => b.height)"
    )
    assert min(heights) > 8


def test_on_paper_it_is_light_and_no_picture_is_cut(chromium, address):
    chromium.screen(1280, 900, dark=True)
    chromium.open(f"{address}/whole.html", whole=False)
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert chromium.js("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        assert set(chromium.js(
            "[...document.querySelectorAll('section')].map(s => getComputedStyle(s).breakInside)"
        )) == {"avoid"}  # fmt: skip
        assert chromium.js("getComputedStyle(document.querySelector('h2')).breakAfter") == "avoid"
        assert chromium.js("getComputedStyle(document.querySelector('figure .narrow')).display") == "none"
        how = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
        pdf = base64.b64decode(chromium.driver.execute_cdp_cmd("Page.printToPDF", how)["data"])
    finally:
        chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert pdf[:5] == b"%PDF-"
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) in range(4, 16)
