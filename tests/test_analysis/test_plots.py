"""Pictures hold what the answers say, on any answer, and touch nothing global."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import analysis
from analysis import lattice, panels, plots, simulate
from analysis.questions.cooling import cooling

PICTURES = {
    "cooling": cooling,
    "survival": analysis.freeze_times,
    "stillness": analysis.stillness,
    "lifecycle": analysis.lifecycle,
    "census": analysis.census,
    "drift": analysis.drift,
    "cloud": analysis.cloud,
}


@pytest.fixture(scope="module")
def told_life():
    return simulate.with_phases([(3, 5, 20), (2, 8, 45), (4, 4, 11)], total_steps=60)


@pytest.mark.parametrize(("name", "kind"), [*((name, "png") for name in PICTURES), ("cooling", "svg")])
def test_every_answer_has_a_picture(name, kind, told_life, tmp_path):
    figure = getattr(plots, name)(PICTURES[name](told_life))
    plots.save(figure, tmp_path / f"picture.{kind}", dpi=40)
    assert (tmp_path / f"picture.{kind}").stat().st_size > 2000


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("last", [[-1, -1], [1, 1]])
def test_pictures_of_next_to_nothing(name, last):
    ds = simulate.with_last_motion(last, total_steps=1)
    getattr(plots, name)(PICTURES[name](ds))._repr_png_()


WRONG = {
    **PICTURES,
    "a trajectory": lambda ds: ds,
    "the loss": lambda ds: ds[["loss"]],
    "an array": analysis.moved,
    "nothing": lambda _: None,
}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (name, wrong)
        for name in PICTURES
        for wrong in WRONG
        if wrong not in (name, name == "cooling" and "a trajectory")
    ],
)
def test_a_picture_of_anything_else_says_whose_answer_it_takes(name, wrong, told_life):
    takes = "freeze_times" if name == "survival" else name
    with pytest.raises(ValueError, match=rf"^plots\.{name} takes the answer of {takes}\(ds\).*; this \w+ has no \w+$"):
        getattr(plots, name)(WRONG[wrong](told_life))


def test_the_error_names_what_is_not_there(told_life):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        plots.survival(told_life)
    assert str(raised.value) == "plots.survival takes the answer of freeze_times(ds); this Dataset has no survival"
    with pytest.raises(ValueError, match=r"or a trajectory; this DataArray has no displacement"):
        plots.cooling(analysis.moved(told_life))
    with pytest.raises(ValueError, match="at least one quantile"):
        plots.cooling(cooling(told_life, quantiles=[]))


def test_a_census_without_moves_names_no_fractions(told_life):
    axes = plots.census(analysis.census(told_life.isel(step=[4]))).axes[0]
    assert axes.get_legend().get_texts()[0].get_text() == "none"


def test_a_token_that_never_was_in_a_phase_is_through_with_it_from_the_start():
    ds = simulate.with_last_motion([3, -1], total_steps=6)
    curves = {line.get_label(): line for line in plots.lifecycle(analysis.lifecycle(ds)).axes[0].lines}
    at, left = curves["stumbling"].get_data()
    assert left[at <= 0].tolist()[-1] == 0.5


@pytest.mark.parametrize("shape", [(3, 0), (2, 3, 0), (0, 0), (0,)])
def test_norms_without_hidden_dimensions_are_0(shape):
    for norm in lattice.norms(np.zeros(shape, np.float32)):
        assert norm.shape == shape[:-1]
        assert norm.dtype == np.float32
        assert not norm.any()


def test_infinite_and_missing_displacements_are_drawn_around():
    ds = simulate.with_last_motion([4, 6], total_steps=8).load()
    ds.displacement_l2[2, 0], ds.displacement_l2[3, 1] = np.inf, np.nan
    plots.cooling(cooling(ds.drop_vars("W")))._repr_png_()


def drawn_by(figure, gid):
    """The steps of the marks of a kind in a figure."""
    return [step for axes in figure.axes for line in axes.lines if line.get_gid() == gid for step in line.get_xdata()]


def corners(area):
    """The corners of a filled area, as a set."""
    return {(float(x), float(y)) for path in area.get_paths() for x, y in path.vertices}


@pytest.fixture(scope="module", params=[(60, 58), (2000, 1998), (2001, 1999), (5003, 5000)], ids=str)
def rare_events(request):
    """Tokens that hardly ever move, one or few at a time, and a large late event between evenly spaced steps."""
    steps, late = request.param
    rng = np.random.default_rng(steps)
    moved = (rng.random((steps, 30)) < 0.02) & (rng.random((steps, 1)) < 0.2)
    size = np.where(moved, rng.integers(1, 9, moved.shape), 0)[..., None]
    size[late, :25] = 60
    return simulate.trajectory(size)


def test_every_event_is_in_the_cooling_curve(rare_events):
    answer = cooling(rare_events, quantiles=[0.1, 0.5, 0.97]).load()
    figure = plots.cooling(answer)
    above, below = figure.axes
    steps, largest, moving = (answer[name].values[1:] for name in ("step", "largest", "moving"))
    assert drawn_by(figure, "rug") == steps[moving > 0].tolist()
    dots = {line.get_label(): line for line in above.lines}["largest"].get_data()
    assert dict(zip(*dots, strict=True)) == dict(zip(steps[largest > 0], largest[largest > 0], strict=True))
    band, area = corners(above.collections[0]), corners(below.collections[0])
    drawn = np.maximum(answer.displacement.values[1:], panels.STILL)
    assert (float(steps[moving.argmax()]), float(moving.max())) in area
    assert max(y for _, y in band) == drawn[:, -1].max()
    assert min(y for _, y in band) == drawn[:, 0].min()


def test_every_pixel_shows_its_extremes(rare_events):
    answer = cooling(rare_events).load()
    steps, moving = answer["step"].values[1:], answer["moving"].values[1:]
    area = dict(sorted(corners(plots.cooling(answer).axes[1].collections[0]), key=lambda corner: corner[1]))
    width = -(-len(steps) // 2000)
    for start in range(0, len(steps), width):
        pixel = slice(start, start + width)
        shown = [area[step] for step in steps[pixel] if step in area]
        assert (min(shown), max(shown)) == (moving[pixel].min(), moving[pixel].max())


def test_every_event_is_in_the_census(rare_events):
    answer = analysis.census(rare_events).load()
    figure = plots.census(answer)
    counts = answer.tokens.values[1:]
    moving = np.flatnonzero(counts[:, :-1].any(axis=1)) + 1
    assert drawn_by(figure, "rug") == moving.tolist()
    tops = np.cumsum(counts / counts.sum(axis=1, keepdims=True), axis=1)
    for kind, area in enumerate(figure.axes[0].collections):
        assert max(y for _, y in corners(area)) == pytest.approx(tops[:, kind].max(), abs=1e-12)


@pytest.mark.parametrize("name", ["drift", "cloud"])
def test_lines_hold_every_step(name, rare_events):
    answer = PICTURES[name](rare_events).load()
    for axes in getattr(plots, name)(answer).axes:
        for line in axes.lines:
            if len(line.get_xdata()) > 2:
                assert len(line.get_xdata()) == answer.sizes["step"]


def test_infinite_displacements_are_marked():
    ds = simulate.with_last_motion([4, 6], total_steps=8).load()
    ds.displacement_l2[2, 0] = np.inf
    assert drawn_by(plots.cooling(cooling(ds[["displacement_l2", "displacement_l1"]])), "infinite") == [2]


@pytest.mark.parametrize("name", PICTURES)
def test_a_run_that_diverged_says_so_in_every_picture(name):
    ds = simulate.with_last_motion([9, 9], total_steps=50).load()
    fine = getattr(plots, name)(PICTURES[name](ds[["W"]]))
    assert not fine.get_suptitle()
    ds.W[3:, 1] = 0x7FC0
    figure = getattr(plots, name)(PICTURES[name](ds[["W"]]))
    assert figure.get_suptitle() == "Diverged at step 3: weights are NaN or infinite, which counts as still"
    figure._repr_png_()


def test_the_title_says_why_there_is_no_verdict():
    ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=400)
    titles = [
        plots.cooling(cooling(ds.sel(step=slice(first, None)), threshold=threshold)).axes[0].get_title(loc="left")
        for first, threshold in ((0, 0.75), (90, None), (300, None))
    ]
    assert [title.split(": ")[1] for title in titles] == [
        "a threshold of 0.75 cells misses moves", "too few episodes of motion", "nothing moved",
    ]  # fmt: skip


def test_the_cooling_curve_is_what_the_answer_says(told_life):
    answer = cooling(told_life).load()
    above, below = plots.cooling(answer).axes
    middle = above.lines[0].get_ydata()
    expected = answer.displacement.sel(q=0.5).values[1:]
    assert middle.tolist() == np.maximum(expected, 0.25).tolist()
    assert above.get_yscale() == "log"
    assert above.get_title(loc="left").startswith("No verdict at step 60")
    assert below.get_xlabel() == "step"
    assert plots.cooling(told_life).axes[0].lines[0].get_ydata().tolist() == middle.tolist()  # a trajectory is asked


def test_cooling_equals_a_loop(told_life):
    answer = cooling(told_life.chunk({"step": 7, "token": 1})).load()
    norms = told_life.displacement_l2.values
    assert np.isnan(answer.displacement.values[0]).all()
    for t in range(1, 61):
        ordered = sorted(norms[t].tolist())
        found = answer.displacement.sel(step=t).values.tolist()
        assert found == [ordered[0], ordered[1], ordered[1]]  # floor(q (n - 1)) of 3 tokens
        assert float(answer.largest.sel(step=t)) == ordered[-1]
        assert float(answer.moving.sel(step=t)) == pytest.approx(sum(x >= 0.1 for x in ordered) / 3)
    with pytest.raises(ValueError, match="quantiles"):
        cooling(told_life, quantiles=[1.5])


def test_the_title_tells_the_verdict():
    moving = [20, 40, 60, 80, 100, 120]
    titles = [
        plots.cooling(cooling(simulate.with_moving_steps(moving, total_steps=last))).axes[0].get_title(loc="left")
        for last in (400, 16_000)
    ]
    assert titles[0] == "Not frozen at step 400 (p = 0.53); at 15,332 if nothing moves"
    assert titles[1].startswith("Frozen at step 16,000: p = 0.0097")


def test_a_run_that_diverged_gets_no_step_at_which_it_would_be_frozen():
    ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=400).load()[["W"]]
    ds.W[200:, 2] = 0x7F80
    assert plots.cooling(cooling(ds)).axes[0].get_title(loc="left") == "Not frozen at step 400 (p = 1)"


def test_the_norm_and_the_threshold_stand_beside_the_axes(told_life):
    above, below = plots.cooling(cooling(told_life, norm="linf", threshold=0.3)).axes
    assert above.get_ylabel() == "Linf of ΔW′ in lattice cells"
    assert below.get_ylabel() == "moving, ≥ 0.3"


def test_a_thread_without_a_screen_can_draw(told_life):
    made = []
    thread = threading.Thread(target=lambda: made.append(plots.cooling(told_life)._repr_png_()))
    thread.start()
    thread.join()
    assert made[0][:4] == b"\x89PNG"


@pytest.mark.slow
def test_pyplot_is_never_loaded():
    code = (
        "import sys; from analysis import plots, simulate;"
        "assert 'matplotlib' not in sys.modules;"
        "plots.cooling(simulate.with_last_motion([2], total_steps=5));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
