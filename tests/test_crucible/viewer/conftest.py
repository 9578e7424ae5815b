import browsing
import pytest
import viewer_runs

from crucible.viewer.show import view


def pytest_collection_modifyitems(items):
    """Tests in a browser are slow: CI installs one in its second stage."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


STEPS, TOKENS, HIDDEN = 300, 40, 8
SERVER_IS_GONE = ("net::ERR_CONNECTION", "net::ERR_EMPTY_RESPONSE", "net::ERR_CONTENT_LENGTH_MISMATCH")
"""A test may end its server before its page, which asks every other second, and may be cut off in an answer."""


@pytest.fixture(scope="session")
def rows():
    """300 steps, so that blocks of 128 steps end at 127 and 255."""
    return viewer_runs.states(STEPS, TOKENS, HIDDEN)


@pytest.fixture(scope="session")
def run(rows, tmp_path_factory):
    return viewer_runs.record(tmp_path_factory.mktemp("viewed") / "calm-run", rows)


@pytest.fixture(scope="session")
def served(run):
    with view(run) as page:
        yield page.url


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    browser = browsing.start(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium):
    """The browser at 1280 x 900, light; at the end the page must have had nothing to complain of."""
    chromium.screen(1280, 900)
    chromium.complaints()
    chromium.requests()
    chromium.forgive(*SERVER_IS_GONE)
    yield chromium
    complaints = chromium.complaints()
    chromium.forgiven.clear()
    chromium.driver.get("about:blank")
    assert not complaints
