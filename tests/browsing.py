"""A headless Chromium for the tests of the live page: started once, watched for errors and for requests elsewhere."""

import json
import shutil
import time

import pytest
from waiting import PATIENCE_S

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def start(folder):
    """A browser with an empty profile; skips the test where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra 'test': selenium drives the browser")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Browser(webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)))


class Browser:
    """What the tests do with a page."""

    def __init__(self, driver):
        self.driver = driver
        self.forgiven = []
        driver.set_script_timeout(PATIENCE_S)
        driver.execute_cdp_cmd("Network.enable", {})

    def screen(self, width, height, *, dark=False, calm=False, ratio=1):
        """The size of the window, and what the system says about colours and motion."""
        size = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url, *, whole=True):
        """Load a page; wait until all of it is there: what is drawn, what is said, and the state of the run."""
        self.driver.get("about:blank")
        self.driver.get(url)
        if whole:
            self.wait("document.getElementById('raster').dataset.state === 'whole'")
            self.wait("performance.getEntriesByName('whole').length > 0")
            for what in (
                "document.getElementById('verdict-short').textContent",
                "document.getElementById('bits').dataset.bits",
            ):
                self.wait(f"{what} || !document.getElementById('problem').hidden")
            self.wait("document.getElementById('state-word').textContent")
            self.asynchronous("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def js(self, expression, *arguments):
        return self.driver.execute_script(f"return {expression}", *arguments)

    def asynchronous(self, code, *arguments):
        return self.driver.execute_async_script(code, *arguments)

    def wait(self, expression, patience_s=PATIENCE_S):
        """Until an expression is true in the page."""
        until = time.monotonic() + patience_s
        while not self.js(expression):
            assert time.monotonic() < until, f"not true within {patience_s} s: {expression}; {self.state()}"
            time.sleep(0.03)

    def state(self):
        return self.js(
            "({text: document.body.innerText.slice(0, 400), cloud: {...document.getElementById('cloud').dataset},"
            " bits: document.getElementById('bits').dataset.step})"
        )

    def go(self, step):
        """Move the slider, as a hand does; wait for the cloud and for the bits of the chosen token."""
        self.js(
            "(step => { const s = document.getElementById('step'); s.value = step;"
            " s.dispatchEvent(new Event('input', {bubbles: true})); })(arguments[0])",
            step,
        )
        self.wait(f"document.getElementById('bits').dataset.step === '{step}'")
        self.wait(f"document.getElementById('cloud').dataset.step === '{step}'")

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def text(self, element):
        return self.js("document.getElementById(arguments[0]).textContent", element)

    def data(self, element):
        return self.js("({...document.getElementById(arguments[0]).dataset})", element)

    def pixels(self, canvas):
        """RGBA values of a canvas, (height, width, 4)."""
        import base64

        import numpy as np

        found = self.js(
            "(c => { const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', {willReadFrequently: true});"
            " copy.drawImage(c, 0, 0); const d = copy.getImageData(0, 0, c.width, c.height).data; let s = '';"
            " for (let i = 0; i < d.length; i += 8192) s += String.fromCharCode(...d.subarray(i, i + 8192));"
            " return [c.width, c.height, btoa(s)]; })(document.getElementById(arguments[0]))",
            canvas,
        )
        width, height, data = found
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)

    def complaints(self):
        """Console messages since last asked; warnings and errors, without those that are forgiven."""
        entries = [entry for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        return [entry for entry in entries if not any(words in entry["message"] for words in self.forgiven)]

    def forgive(self, *words):
        """Take console messages with these words for no complaint; they may come late."""
        self.forgiven += words

    def requests(self):
        """Addresses that the page asked for since last asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
