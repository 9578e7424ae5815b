"""The page in a real browser: what it shows is what the store holds."""

import numpy as np
import pytest
import viewer_runs

import analysis
import store
from analysis.questions.endstate import sentence
from crucible.viewer.show import view

BORDERS = (0, 1, 127, 128, 129, 255, 256, 299, 300)


def words(text):
    return np.array([int(word, 16) for word in text.split()])


def shown_bits(browser, step, token):
    """The bits and flips that the page shows, once they belong to this step and token."""
    browser.go(step)
    browser.wait(f"document.getElementById('bits').dataset.token === '{token}'")
    data = browser.data("bits")
    return words(data["bits"]), words(data["flips"])


def assert_bits(browser, ds, steps, token):
    for step in steps:
        bits, flips = shown_bits(browser, step, token)
        expected = ds.W.sel(step=step, token=token).values
        expected = expected.view(np.uint32) if expected.dtype == np.float32 else expected
        before = ds.W.sel(step=max(0, step - 1), token=token).values.view(expected.dtype)
        np.testing.assert_array_equal(bits, expected, str(step))
        np.testing.assert_array_equal(flips, expected ^ before, str(step))


def ink(pixels):
    """How many colours there are, and the share of pixels of the most common one."""
    flat = pixels.reshape(-1, 4).view(np.uint32).ravel()
    counts = np.unique(flat, return_counts=True)[1]
    return len(counts), counts.max() / len(flat)


def test_bits_are_the_stores_at_block_borders_and_at_both_ends(browser, served, run):
    ds = store.open_trajectory(run)
    browser.open(f"{served}#step=300&token=13")
    assert_bits(browser, ds, BORDERS, 13)
    assert "None of" in browser.text("bits-text") or "flipped" in browser.text("bits-text")


def test_numbers_are_those_of_the_analysis(browser, served, run):
    ds = store.open_trajectory(run)
    moving = analysis.moved(ds).sum("token").values
    browser.open(f"{served}#step=5&token=13")
    for step in (0, 1, 30, 127, 128, 250):
        browser.go(step)
        assert browser.text("now-step") == f"step {step}"
        assert browser.text("now-moving") == f"{moving[step]} moving"
    assert browser.text("now-loss") == f"loss {float(f'{float(ds.loss[250]):.3g}'):g}"
    last = int(analysis.last_motion(ds).last_motion.sel(token=13))
    assert f"moved until {last}" in browser.text("token-life")
    assert (browser.text("verdict-short") + " " + browser.text("verdict-long")).strip() == sentence(
        analysis.end_state(ds)
    )


def test_the_scale_of_the_loss_is_the_least_and_the_largest_there_is(browser, served, run):
    loss = store.open_trajectory(run).loss
    for hash_, steps in (("", slice(None)), ("#step=60&range=42-80", slice(42, 80))):
        browser.open(f"{served}{hash_}")
        low, high = (float(found) for found in (loss.sel(step=steps).min(), loss.sel(step=steps).max()))
        browser.wait(f"document.getElementById('timeline-text').textContent.includes('from {low:.3g} to {high:.3g}')")


def test_every_canvas_is_drawn_and_follows_the_slider(browser, served):
    browser.open(f"{served}#step=40&token=13")
    browser.wait("document.getElementById('bits').dataset.step === '40'")
    before = {name: browser.pixels(name) for name in ("cloud", "raster", "timeline", "bits")}
    for name, pixels in before.items():
        colours, most = ink(pixels)
        assert colours > 5, name
        assert most < 0.995, name
    browser.go(3)
    for name, pixels in before.items():
        assert (browser.pixels(name) != pixels).any(), name


def test_flipped_bits_are_lit_and_others_are_not(browser, served, run):
    ds = store.open_trajectory(run)
    browser.open(f"{served}#step=1&token=13")
    flip = browser.js("getComputedStyle(document.documentElement).getPropertyValue('--flip').trim()")
    colour = [int(flip[i : i + 2], 16) for i in (1, 3, 5)]
    changes = (ds.W.sel(token=13).values[1:] != ds.W.sel(token=13).values[:-1]).any(axis=1)
    moves, rests = int(np.flatnonzero(changes)[0]) + 1, int(np.flatnonzero(~changes)[-1]) + 1
    for step, is_lit in ((moves, True), (rests, False)):
        shown_bits(browser, step, 13)
        lit = (np.abs(browser.pixels("bits")[..., :3].astype(int) - colour).max(axis=-1) < 12).sum()
        assert (lit > 10) == is_lit, step


def places(browser, ds, step):
    """Where each token stands on the canvas at a step, (token, x and y)."""
    axes, reach = browser.asynchronous(
        "const done = arguments[0];"
        " fetch('view.json').then(r => r.json()).then(v => done([v.cloud.axes, v.cloud.reach]));"
    )
    points = analysis.weights(ds.sel(step=[step])).values[0].astype(float) @ np.array(axes).T
    points = (points - points.mean(axis=0))[:, :2]
    box = browser.js("(b => [b.width, b.height])(document.getElementById('cloud').getBoundingClientRect())")
    return np.array(box) / 2 + points * np.array([1, -1]) * (min(box) / 2 - 14) / reach


def lonely(browser, ds, step):
    """Position of the token that stands farthest from the others, and its place on the canvas."""
    points = places(browser, ds, step)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 9_999 * np.eye(len(points))
    alone = int(distance.min(axis=1).argmax())
    return alone, *points[alone].tolist()


def test_a_frozen_token_is_a_ring_as_in_the_legend_and_one_that_moves_is_full(browser, served, run):
    ds = store.open_trajectory(run)
    for step, is_full in ((1, True), (300, False)):
        browser.open(f"{served}#step={step}&token=13")
        _, x, y = lonely(browser, ds, step)
        pixels = browser.pixels("cloud")[..., :3].astype(int)
        row, column = round(y), round(x)
        ground = pixels[2, pixels.shape[1] // 4]
        assert (np.abs(pixels[row, column] - ground).max() > 60) == is_full, step
        assert np.abs(pixels[row - 3 : row + 4, column - 3 : column + 4] - ground).max() > 25, step


def test_the_cloud_shows_each_token_where_its_weights_put_it(browser, served, run):
    """A click on the place that the axes give chooses the token that stands alone there."""
    ds = store.open_trajectory(run)
    browser.open(f"{served}#step=200&token=13")
    alone, x, y = lonely(browser, ds, 200)
    browser.js(
        "(([x, y]) => { const c = document.getElementById('cloud'), b = c.getBoundingClientRect();"
        " c.dispatchEvent(new MouseEvent('click', {clientX: b.left + x, clientY: b.top + y})); })(arguments[0])",
        [x, y],
    )
    browser.wait(f"document.getElementById('bits').dataset.token === '{int(ds.token[alone])}'")
    browser.wait(f"location.hash.includes('token={int(ds.token[alone])}')")


def test_frames_of_the_cloud_differ(browser, served):
    browser.open(f"{served}#step=120&token=13")
    browser.wait("document.getElementById('cloud').dataset.step === '120'")
    seen = []
    for frame in ("centred", "fixed", "sky"):
        browser.js("document.querySelector(`input[value='${arguments[0]}']`).click()", frame)
        browser.wait(f"document.getElementById('cloud').dataset.frame === '{frame}'")
        seen.append(browser.pixels("cloud"))
    assert (seen[0] != seen[1]).any()
    assert (seen[1] != seen[2]).any()


def test_the_address_is_read_before_the_first_drawing_and_written_after(browser, served):
    browser.open(f"{served}#step=77&token=25&frame=sky&range=50-150")
    browser.wait("document.getElementById('bits').dataset.step === '77'")
    assert browser.data("bits")["token"] == "25"
    assert browser.data("cloud") == {"step": "77", "frame": "sky"}
    assert browser.js("[step.min, step.max]") == ["50", "150"]
    browser.go(99)
    browser.wait("location.hash === '#step=99&token=25&frame=sky&range=50-150'")


def test_keys_alone_do_everything(browser, served, run):
    from selenium.webdriver import Keys

    moving = np.flatnonzero(analysis.moved(store.open_trajectory(run)).sum("token").values)
    browser.open(f"{served}#step=250&token=13")

    def at(step):
        browser.wait(f"document.getElementById('now-step').textContent === 'step {step}'")

    browser.press(Keys.ARROW_RIGHT)
    at(251)
    browser.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    at(249)
    browser.press(Keys.HOME)
    at(0)
    browser.press(Keys.END)
    at(300)
    browser.press(Keys.PAGE_UP)
    last = int(moving[moving < 300][-1])
    at(last)
    browser.press(Keys.PAGE_DOWN)
    at(int(moving[moving > last][0]) if (moving > last).any() else last)
    browser.press("s")
    browser.wait("document.getElementById('cloud').dataset.frame === 'sky'")
    browser.press("c")
    browser.wait("document.getElementById('cloud').dataset.frame === 'centred'")
    browser.press("+")
    browser.wait("document.getElementById('step').max - document.getElementById('step').min === 150")
    browser.press("0")
    browser.wait("document.getElementById('step').max - document.getElementById('step').min === 300")
    token = browser.data("bits")["token"]
    browser.press("]")
    browser.wait(f"document.getElementById('bits').dataset.token !== '{token}'")
    browser.press("[")
    browser.wait(f"document.getElementById('bits').dataset.token === '{token}'")
    browser.press(Keys.HOME, Keys.SPACE)
    browser.wait("document.getElementById('play').classList.contains('playing')")
    browser.wait("Number(document.getElementById('cloud').dataset.step) > 3")
    browser.press(Keys.SPACE)
    browser.wait("!document.getElementById('play').classList.contains('playing')")


def test_every_control_can_be_reached_by_tab_and_has_a_name(browser, served):
    browser.open(served)
    nameless = browser.js(
        "[...document.querySelectorAll('button, input, select, canvas')].filter(e => !(e.ariaLabel"
        " || e.getAttribute('aria-describedby') || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert nameless == []
    assert (
        browser.js("[...document.querySelectorAll('[tabindex]')].length") == 0
    )  # the order of the page is that of Tab


def test_each_canvas_has_a_text_that_tells_the_same(browser, served):
    browser.open(f"{served}#step=20&token=13")
    for canvas in ("cloud", "raster", "timeline", "bits"):
        text = browser.js(
            "document.getElementById(document.getElementById(arguments[0]).getAttribute('aria-describedby')).textContent",
            canvas,
        )
        assert len(text) > 15, canvas


def test_a_token_is_found_by_its_id_and_an_unknown_one_is_said(browser, served):
    from selenium.webdriver import Keys

    browser.open(f"{served}#step=20")
    field = browser.driver.find_element("id", "token")
    field.send_keys("21", Keys.ENTER)
    browser.wait("document.getElementById('bits').dataset.token === '21'")
    field.clear()
    field.send_keys("4", Keys.ENTER)  # only odd ids are recorded
    browser.wait("document.getElementById('token-life').textContent.includes('No token has')")
    browser.go(30)  # what is drawn anew does not take the words away
    assert browser.text("token-life") == "No token has the id or text \u201c4\u201d."
    field.clear()
    field.send_keys("23", Keys.ENTER)
    browser.wait("document.getElementById('bits').dataset.token === '23'")
    assert "No token has" not in browser.text("token-life")


def test_playing_goes_to_the_end_and_stops(browser, served):
    browser.open(f"{served}#step=250&token=13")
    browser.js("(s => { s.value = '16'; s.dispatchEvent(new Event('change')); })(document.getElementById('speed'))")
    browser.js("document.getElementById('play').click()")
    browser.wait("document.getElementById('cloud').dataset.step === '300'")
    browser.wait("!document.getElementById('play').classList.contains('playing')")


def test_a_range_is_drawn_by_hand_and_taken_back(browser, served):
    browser.open(f"{served}#step=150&token=13")
    browser.js(
        "(c => { const b = c.getBoundingClientRect();"
        " const send = (kind, x) => c.dispatchEvent(new PointerEvent(kind, {clientX: b.left + x, clientY: b.top + 30,"
        " pointerId: 1, bubbles: true})); c.setPointerCapture = () => {};"
        " send('pointerdown', b.width * .3); send('pointermove', b.width * .6); send('pointerup', b.width * .6); }"
        ")(document.getElementById('timeline'))"
    )
    browser.wait("!document.getElementById('whole').hidden")
    low, high = (int(value) for value in browser.js("[step.min, step.max]"))
    assert 60 < low < 110
    assert 160 < high < 210
    browser.js("document.getElementById('whole').click()")
    browser.wait("document.getElementById('step').max === '300'")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
@pytest.mark.parametrize("dark", [False, True])
def test_both_widths_in_both_lights(browser, served, width, height, dark):
    browser.screen(width, height, dark=dark)
    browser.open(f"{served}#step=60&token=13")
    browser.wait("document.getElementById('bits').dataset.step === '60'")
    assert browser.js("document.documentElement.scrollWidth") <= width
    ground = browser.js("getComputedStyle(document.documentElement).backgroundColor")
    level = sum(int(part) for part in ground[4:-1].split(",")) / 3
    assert (level < 60) if dark else (level > 200)
    for canvas in ("cloud", "raster", "timeline", "bits"):
        assert ink(browser.pixels(canvas))[0] > 5, canvas
    small = browser.js(
        "[...document.querySelectorAll('button')]"
        ".filter(b => b.offsetParent && b.getBoundingClientRect().height < 24).length"
    )
    assert small == 0


def test_it_can_be_printed(browser, served):
    browser.open(f"{served}#step=60&token=13")
    assert len(browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]) > 20_000


def test_nothing_is_asked_of_any_other_host(browser, served):
    browser.open(f"{served}#step=60&token=13")
    asked = [url for url in browser.requests() if url.startswith("http")]
    assert len(asked) > 5
    assert [url for url in asked if not url.startswith(served)] == []


def test_motion_that_is_not_wanted_is_left_out(browser, served):
    browser.screen(1280, 900, calm=True)
    browser.open(served)
    moves = browser.js(
        "[...document.querySelectorAll('*')].map(e => getComputedStyle(e)).filter(s => s.animationName !== 'none'"
        " || parseFloat(s.transitionDuration) > 0).length"
    )
    assert moves == 0


@pytest.fixture
def shown(browser, tmp_path):
    """Record these rows, serve them, open the page."""
    pages = []

    def show(rows, hash_="", *, asked=None, **options):
        run = viewer_runs.record(tmp_path / "run", rows, **options)
        pages.append(view(run, **(asked or {})))
        browser.open(pages[-1].url + hash_)
        return store.open_trajectory(run)

    yield show
    for page in pages:
        page.close()


def test_one_token_and_one_step(browser, shown):
    ds = shown(viewer_runs.states(1, tokens=1), "#step=1&token=3")
    assert_bits(browser, ds, (1, 0), 3)
    assert ink(browser.pixels("cloud"))[0] > 2


def test_the_way_of_the_centroid_lies_over_no_chosen_token(browser, shown):
    """Four tokens stand in the corners of the cloud, so that one is where the way stands on a phone."""
    corners = np.float32([[1, 0.75], [1, -0.75], [-1, 0.75], [-1, -0.75]])
    walk = np.stack([corners + np.float32([step / 64, 0]) for step in range(4)])
    browser.screen(390, 844)
    ds = shown((walk.view(np.uint32) >> 16).astype(np.uint16), "#step=3&token=3")
    browser.js(
        "(() => { const p = CanvasRenderingContext2D.prototype, old = p.strokeRect; window.boxes = [];"
        " p.strokeRect = function (...box) { if (this.canvas.id === 'cloud') window.boxes.push(box);"
        " return old.apply(this, box); }; })()"
    )
    lefts = set()
    for x, y in places(browser, ds, 3)[[1, 2, 3, 0]].tolist():
        browser.js("(window.boxes.length = 0)")
        browser.js(
            "(([x, y]) => { const c = document.getElementById('cloud'), b = c.getBoundingClientRect();"
            " c.dispatchEvent(new MouseEvent('click', {clientX: b.left + x, clientY: b.top + y})); })(arguments[0])",
            [x, y],
        )
        browser.wait("window.boxes.length > 0")
        left, top, wide, high = browser.js("window.boxes.at(-1)")
        assert not (left - 8 < x < left + wide + 8 and top - 28 < y < top + high + 8), (left, top, wide, high, x, y)
        lefts.add(left)
    assert len(lefts) == 2


def test_a_run_of_a_single_state(browser, shown):
    ds = shown(viewer_runs.states(0, tokens=4), "#step=0&token=5")
    browser.wait("document.getElementById('bits').dataset.step === '0'")
    np.testing.assert_array_equal(words(browser.data("bits")["bits"]), ds.W.sel(step=0, token=5).values)


def test_a_run_with_nan_and_infinity_shows_the_rest(browser, shown):
    rows = viewer_runs.states(30, tokens=12)
    rows[10:, 4, 2] = 0x7FC0
    rows[20:, 7, 1] = 0x7F80
    rows[25:, 7, 1] = rows[19, 7, 1]  # finite again
    ds = shown(rows, "#step=5&token=11")
    assert_bits(browser, ds, (5, 10, 20, 25), 11)
    for step, lost in ((5, None), (10, "1 token not drawn"), (22, "2 tokens not drawn"), (27, "1 token not drawn")):
        browser.go(step)
        browser.wait(f"document.getElementById('now-step').textContent === 'step {step}'")
        said = browser.text("cloud-text")
        assert (lost in said) if lost else ("not drawn" not in said)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_other_weights_than_bfloat16(browser, shown, dtype):
    rows = viewer_runs.states(140, tokens=6, dtype=dtype)
    ds = shown(rows, "#step=5&token=7")
    for step in (5, 127, 128, 140):
        bits, _ = shown_bits(browser, step, 7)
        kind = np.uint32 if dtype == np.float32 else np.uint16
        np.testing.assert_array_equal(bits, ds.W.sel(step=step, token=7).values.view(kind))


def test_without_norms_motion_is_read_from_the_weights(browser, shown):
    rows = viewer_runs.states(200, tokens=9)
    rows[150, 0, 0], rows[151:, 0, 0] = 0x8000, 0x0000  # -0 and 0 are one value
    ds = shown(rows, "#step=5&token=7", norms=False)
    moving = analysis.moved(ds).sum("token").values
    for step in (1, 127, 128, 129, 151, 200):
        browser.go(step)
        assert browser.text("now-moving") == f"{moving[step]} moving", step


def test_a_loss_with_steps_of_its_own_is_not_told_as_that_of_another_step(browser, shown):
    """The loss of step 30 stands in row 3 of its array: the page shows what is recorded at every step."""
    shown(viewer_runs.states(60, tokens=5), "#step=3", every={"loss": 10})
    browser.wait("document.getElementById('now-moving').textContent !== ''")
    browser.wait("document.getElementById('timeline-text').textContent.includes('The last motion')")
    assert browser.text("now-loss") == ""
    assert "loss" not in browser.text("timeline-text")


def test_what_is_not_recorded_is_not_said_to_be_shown(browser, shown, served):
    fixed = "document.querySelector('#frames input[value=fixed]').click()"
    shown(viewer_runs.states(60, tokens=5), "#step=3", norms=False)
    browser.driver.execute_script(fixed)
    browser.wait("document.getElementById('cloud-text').textContent.startsWith('As they lie, at one scale. ')")
    browser.open(f"{served}#step=3")
    browser.driver.execute_script(fixed)
    browser.wait("document.getElementById('cloud-text').textContent.includes('scale, with the way of the centroid. ')")


def test_axes_that_hold_nearly_all_are_not_said_to_hold_all(browser, shown):
    rows = np.zeros((3, 9, 3), np.uint16)
    rows[:, :, 0] = np.linspace(0x3F80, 0x4100, 9).astype(np.uint16)
    rows[1:, 3, 1], rows[1:, 4, 2] = 0x3D80, 0x3000
    shown(rows, "#step=2")
    assert "Axes: > 99 % and < 0.1 % of the variance" in browser.text("cloud-text")


def strange(rows):
    """Weights that become NaN, infinite, finite again; and of another token that stay infinite."""
    wide = viewer_runs.as_float(rows)
    wide[60:, 0, 0], wide[90:, 1, 1], wide[100:, 1, 1], wide[:, 2, 3] = np.nan, np.inf, 0.25, -np.inf
    return (wide.view(np.uint32) >> 16).astype(np.uint16) if rows.dtype == np.uint16 else wide.astype(rows.dtype)


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("threshold", [0.1, 2.0])
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float32", "float32 on bfloat16"])
def test_without_norms_motion_is_what_the_analysis_calls_motion(browser, shown, kind, norm, threshold):
    """By the norm and the threshold that were asked for, on the run's own lattice, also of what is not finite."""
    asked = {"norm": norm, "threshold": threshold}
    dtype = {"bfloat16": np.uint16, "float16": np.float16}.get(kind, np.float32)
    on = {"lattice": "bfloat16"} if " on " in kind else None
    ds = shown(strange(viewer_runs.states(140, tokens=9, dtype=dtype)), "#step=5", asked=asked, norms=False, of_W=on)
    with np.errstate(invalid="ignore"):
        moving = analysis.moved(ds, **asked).sum("token").values
    assert len(set(moving.tolist())) > 2
    browser.wait("document.getElementById('now-moving').textContent !== ''")
    for step in (1, 5, 59, 60, 61, 90, 91, 100, 101, 127, 128, 129, 140):
        browser.go(step)
        assert browser.text("now-moving") == f"{moving[step]} moving", step


LABELS = {"from 1,000 on": 1000 + np.arange(201), "each seventh": 7 * np.arange(201), "uneven": np.arange(201) ** 2}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_steps_are_named_by_their_labels(browser, shown, labels):
    """Runs that begin at another step than 0, or keep some of their steps: the page shows labels, never positions."""
    place = f"#step={labels[130]}&token=13&range={labels[100]}-{labels[180]}"
    ds = shown(viewer_runs.states(200, tokens=9), place, labels=labels)
    browser.wait(f"document.getElementById('bits').dataset.step === '{labels[130]}'")
    bits = words(browser.data("bits")["bits"])
    np.testing.assert_array_equal(bits, ds.W.sel(step=labels[130], token=13).values)
    assert browser.text("now-step") == f"step {labels[130]:,}"
    assert browser.text("facts").startswith(f"201 states of steps {labels[0]:,} to {labels[-1]:,} · ")
    assert browser.text("range-text") == f"steps {labels[100]:,} to {labels[180]:,}"
    last = int(analysis.last_motion(ds).last_motion.sel(token=13))
    assert f"moved until {last:,}" in browser.text("token-life")
    browser.press("]")
    browser.wait(f"location.hash.startsWith('#step={labels[130]}&token=')")


def test_more_tokens_than_a_chunk_of_norms_holds(browser, shown):
    rows = viewer_runs.states(20, tokens=8193, hidden=4)
    ds = shown(rows, f"#step=5&token={3 + 2 * 8192}")
    assert_bits(browser, ds, (5, 20), 3 + 2 * 8192)
    moving = analysis.moved(ds).sum("token").values
    assert browser.text("now-moving").replace(",", "") == f"{moving[20]} moving"
