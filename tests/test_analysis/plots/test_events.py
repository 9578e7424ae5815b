"""No event is lost in a picture, however rare it is and however many steps there are."""

import numpy as np
import pytest

import analysis
from analysis import plots, simulate
from analysis.plots import scales


def rug_of(axes):
    """The steps of the ticks at the foot of a panel."""
    (rug,) = (line for line in axes.lines if line.get_gid() == "rug")
    return rug.get_xdata()[::3].tolist()


def dots_of(axes, gid):
    """The points of the lines of this kind, and of those that stand alone beside them."""
    lines = [line for line in axes.lines if line.get_gid() in (gid, "alone")]
    points = {(x, y) for line in lines for x, y in zip(*line.get_data(), strict=True) if np.isfinite(y)}
    return dict(points)


def corners(area):
    """The corners of a filled area, as a set."""
    return {(float(x), float(y)) for path in area.get_paths() for x, y in path.vertices}


@pytest.fixture(scope="module", params=[(60, 58), (1600, 1598), (1601, 1599), (5003, 5000)], ids=str)
def rare_events(request):
    """Tokens that hardly ever move, one or few at a time, and a large late event between evenly spaced steps."""
    steps, late = request.param
    rng = np.random.default_rng(steps)
    moved = (rng.random((steps, 30)) < 0.02) & (rng.random((steps, 1)) < 0.2)
    size = np.where(moved, rng.integers(1, 9, moved.shape), 0)[..., None]
    size[late, :25] = 60
    return simulate.trajectory(size)


def pixels(steps):
    """The steps of each group that a picture draws by its extremes."""
    width = -(-steps // scales.PIXELS)
    return [slice(start, start + width) for start in range(0, steps, width)]


def test_the_band_of_the_cooling_curve_reaches_as_far_as_the_answer(rare_events):
    answer = analysis.cooling(rare_events, quantiles=[0.1, 0.5, 0.97]).load()
    drawn = np.maximum(answer.displacement.values[1:], scales.STILL)
    band = corners(plots.cooling(answer).collections[0])
    assert max(y for _, y in band) == drawn[:, -1].max()
    assert min(y for _, y in band) == drawn[:, 0].min()


def test_the_largest_move_of_every_pixel_is_in_the_cooling_curve(rare_events):
    answer = analysis.cooling(rare_events).load()
    shown = dots_of(plots.cooling(answer), "largest")
    steps, largest = answer["step"].values[1:], answer["largest"].values[1:]
    for pixel in pixels(len(steps)):
        here = [shown[step] for step in steps[pixel] if step in shown]
        assert max(here, default=0) == largest[pixel].max()
    alone = np.flatnonzero((largest > 0) & (np.append(largest[1:], 0) == 0) & (np.append(0, largest[:-1]) == 0))
    assert {float(shown[step]) for step in steps[alone]} == set(largest[alone].tolist())


def test_every_moving_step_has_a_tick_and_every_pixel_its_extremes(rare_events):
    answer = analysis.cooling(rare_events).load()
    axes = plots.moving(answer)
    steps, moving = answer["step"].values[1:], np.rint(answer["moving"].values[1:] * 30)
    assert rug_of(axes) == steps[moving > 0].tolist()
    area = dict(sorted(corners(axes.collections[0]), key=lambda corner: corner[1]))
    for pixel in pixels(len(steps)):
        shown = [area[step] for step in steps[pixel] if step in area]
        shown = shown or np.interp(steps[pixel], *axes.lines[0].get_data()).tolist()  # it stays as it is
        assert (min(shown), max(shown)) == (moving[pixel].min(), moving[pixel].max())


@pytest.mark.slow
def test_a_single_token_is_seen_among_thousands():
    size = np.zeros((900, 3000, 1), int)
    size[:300] = 1
    size[799, 1234] = 1
    axes = plots.moving(analysis.cooling(simulate.trajectory(size)))
    low, one, all_of_them = (axes.transData.transform((800, y))[1] for y in (0, 1, 3000))
    assert one - low > 0.08 * (all_of_them - low)


def test_every_event_is_in_the_census(rare_events):
    answer = analysis.census(rare_events).load()
    axes = plots.census(answer)
    counts = answer.tokens.values[1:]
    moving = np.flatnonzero(counts[:, :-1].any(axis=1)) + 1
    assert rug_of(axes) == moving.tolist()
    tops = np.cumsum(counts / counts.sum(axis=1, keepdims=True), axis=1)
    for kind, area in enumerate(axes.collections):
        assert max(y for _, y in corners(area)) == pytest.approx(tops[:, kind].max(), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("log_steps", [False, True])
def test_no_move_is_averaged_away_in_the_raster(log_steps):
    size = np.zeros((4000, 1500, 1), int)
    size[0] = 1
    size[3217, 700] = 1
    axes = plots.stratigraphy(analysis.stratigraphy(simulate.trajectory(size)), log_steps=log_steps)
    full = np.argwhere(axes.images[0].get_array()[..., 3] == 255)
    late = full[full[:, 1] > 600]
    assert len(late) == 1
    assert late[0, 0] == 419  # the last to freeze stands at the bottom


def test_the_phase_of_a_token_ends_at_its_last_exit():
    ds = simulate.with_phases([(1, 3, 4), (2, 2, 6)], total_steps=8)
    dots = plots.stratigraphy(analysis.stratigraphy(ds)).images[0].get_array()
    colours = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)): name for name, (c, _, _) in plots.style.PHASES.items()}
    rows = [[colours.get(tuple(int(v) for v in dot[:3]), "frozen") for dot in row] for row in dots]
    assert rows[0] == ["supernova", "cooling", "cooling", "stumbling", *["frozen"] * 4]
    assert rows[1] == ["supernova", "supernova", *["stumbling"] * 4, *["frozen"] * 2]


def test_p_over_time_is_what_the_run_would_have_said_at_each_step():
    ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120, 200], total_steps=400)
    steps, p = plots.silence.p_by_step(analysis.stillness(ds).load())
    for last in (19, 100, 101, 119, 150, 199, 200, 230, 400):
        expected = float(analysis.end_state(ds.sel(step=slice(0, last))).p)
        np.testing.assert_allclose(p[steps == last], expected, rtol=1e-12)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", ["path", "speed"])
def test_lines_hold_the_extremes_of_every_pixel(name, rare_events):
    answer = analysis.drift(rare_events).load()
    axes = {"path": plots.drift, "speed": plots.speed}[name](answer)
    values = answer[name].values
    shown = [y for line in axes.lines for y in line.get_ydata() if np.isfinite(y)]
    assert max(shown) == np.nanmax(values)


def test_there_is_no_p_by_a_threshold_that_misses_moves():
    ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=4000)
    told = analysis.stillness(ds, threshold=0.8).load()
    assert np.isnan(plots.silence.p_by_step(told)[1]).all()
    assert plots.p_over_time(told).get_title(loc="left").endswith("no p, since a threshold of 0.8 cells misses moves")


@pytest.mark.parametrize(("moving", "decay"), [([20, 23, 26, 29, 32, 35], 0.5), ([20, 40, 60, 80, 100, 120], 0.99)])
def test_p_over_time_is_that_of_the_end_state_whatever_the_memory_of_the_optimizer(moving, decay):
    ds = simulate.with_moving_steps(moving, total_steps=400).assign_attrs(beta1=decay)
    expected = float(analysis.end_state(ds).p)
    shown = dots_of(plots.p_over_time(analysis.stillness(ds)), "p")
    np.testing.assert_allclose(shown.get(400, np.nan), expected, rtol=1e-12)


def test_p_is_drawn_from_the_step_on_at_which_there_is_one():
    told = analysis.stillness(simulate.with_moving_steps([20, 40, 60, 80, 100], total_steps=110)).load()
    _steps, p = plots.silence.p_by_step(told)
    assert np.isnan(p[:99]).all()
    assert (p[99:] == 1).all()
    shown = dots_of(plots.p_over_time(told), "p")
    assert (min(shown), max(shown), set(shown.values())) == (100, 110, {1})


def test_an_E_of_a_single_moment_is_seen():
    pushes = np.full((500, 3), 0.3)
    pushes[:300:20] = 1.5
    told = analysis.verdicts(simulate.with_pushes(pushes), every=390).load()
    assert np.isfinite(told.E.values).tolist() == [False, True]
    axes = plots.verdicts(told)
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_gid() == "alone"] == [[500]]


def test_a_push_that_is_known_at_every_second_step_is_seen():
    pushes = np.where(np.arange(40) % 2, np.nan, 0.5)[:, None]
    axes = plots.push(analysis.headroom(simulate.with_pushes(pushes)).load())
    alone = [line.get_xdata().tolist() for line in axes.lines if line.get_gid() == "alone"]
    assert alone == [list(range(1, 41, 2))] * 2
