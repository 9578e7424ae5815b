"""Pictures hold what the answers say, on any answer, and touch nothing global."""

import functools
import io
import subprocess
import sys
import threading

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import analysis
from analysis import lattice, plots, simulate
from analysis.plots import told

QUESTIONS = {
    "cooling": analysis.cooling,
    "moving": analysis.cooling,
    "stratigraphy": analysis.stratigraphy,
    "lifecycle": analysis.lifecycle,
    "survival": analysis.freeze_times,
    "freeze_histogram": analysis.last_motion,
    "stillness": analysis.stillness,
    "p_over_time": analysis.stillness,
    "census": analysis.census,
    "distinct_rows": analysis.identical_rows,
    "exponents": analysis.exponents,
    "drift": analysis.drift,
    "speed": analysis.drift,
    "autocorrelation": analysis.drift,
    "cloud": analysis.cloud,
    "motion_of_cloud": analysis.cloud,
    "coherence": analysis.cloud,
    "loss": lambda ds: ds[["loss"]],
    "apart": lambda ds: analysis.apart(ds, ds.assign(W=ds.W ^ 1)),
    "hops_apart": lambda ds: analysis.apart(ds, ds.assign(W=ds.W ^ 1)),
    "positions": lambda ds: analysis.snapshots(ds, steps=[int(ds.step[0]), int(ds.step[-1])]),
    "sky": lambda ds: analysis.snapshots(ds, steps=[int(ds.step[0])]),
}
"""Of each picture the question whose answer it takes."""
OVER_STEPS = [name for name in QUESTIONS if name not in ("positions", "sky")]
NOT_OF_ONE_RUN = ("loss", "apart", "hops_apart")
"""Pictures that do not look at the weights of one run, and so do not say that it diverged."""
ASKS_ITSELF = ("cooling", "moving", "stratigraphy")


@pytest.fixture(scope="module")
def told_life():
    return simulate.with_phases([(3, 5, 20), (2, 8, 45), (4, 4, 11)], total_steps=60)


def whole(axes):
    """Draw everything once."""
    axes.figure.savefig(io.BytesIO(), format="png", dpi=20)


def test_there_is_a_question_for_every_picture():
    of_push = {"push", "learning_rate", "headroom", "verdicts"}
    assert {*QUESTIONS, *of_push, "overlay", "save", "stack"} == set(plots.__all__)


@pytest.mark.default_cases(6)
@pytest.mark.parametrize(("name", "kind"), [*((name, "png") for name in QUESTIONS), ("cooling", "svg")])
def test_every_answer_has_a_picture(name, kind, told_life, tmp_path):
    axes = getattr(plots, name)(QUESTIONS[name](told_life))
    assert isinstance(axes, Axes)
    plots.save(axes, tmp_path / f"picture.{kind}", dpi=40)
    assert (tmp_path / f"picture.{kind}").stat().st_size > 1000


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(("last", "steps"), [([-1, 1], 1), ([0], 0)], ids=str)
def test_pictures_of_next_to_nothing(name, last, steps):
    ds = simulate.with_last_motion(last, total_steps=steps)
    whole(getattr(plots, name)(QUESTIONS[name](ds)))
    if name in OVER_STEPS:
        whole(getattr(plots, name)(QUESTIONS[name](ds), log_steps=True))


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_picture_draws_on_the_axes_that_it_is_given(name, told_life):
    axes = Figure().subplots()
    assert getattr(plots, name)(QUESTIONS[name](told_life), ax=axes) is axes
    assert axes.has_data()


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("log_steps", [False, True])
def test_all_pictures_over_steps_share_one_axis(log_steps, told_life):
    made = [getattr(plots, name)(QUESTIONS[name](told_life), log_steps=log_steps) for name in OVER_STEPS]
    assert len({axes.get_xlim() for axes in made}) == 1
    low, high = made[0].get_xlim()
    assert (low < 0, 60 < high < 65) == (True, True)
    assert {axes.get_xscale() for axes in made} == {"symlog" if log_steps else "linear"}
    edges = {(axes.get_position().x0, axes.get_position().x1) for axes in made}
    assert len(edges) == 1


def test_a_notebook_shows_what_a_cell_ends_with(told_life):
    data, size = plots.survival(analysis.freeze_times(told_life))._repr_png_()
    assert data[:4] == b"\x89PNG"
    assert size == {"width": 760, "height": 290}


WRONG = {
    **QUESTIONS,
    "a trajectory": lambda ds: ds,
    "the loss alone": lambda ds: ds[["loss"]],
    "an array": analysis.moved,
    "nothing": lambda _: None,
}


@functools.cache
def given(question):
    return WRONG[question](simulate.with_last_motion([1], total_steps=2))


def fits(name, question):
    """Whether an answer of another question holds all that a picture needs."""
    names = set(getattr(given(question), "variables", ()))
    return set(told.TAKES[name][1]) <= names or (name in ASKS_ITSELF and question == "a trajectory")


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_picture_of_anything_else_says_whose_answer_it_takes(name):
    for wrong in WRONG:
        if not fits(name, wrong):
            with pytest.raises(ValueError, match=rf"^plots\.{name} takes .+; this \w+ has no \w+$"):
                getattr(plots, name)(given(wrong))


def test_the_error_names_what_is_not_there(told_life):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        plots.survival(told_life)
    assert str(raised.value) == "plots.survival takes the answer of freeze_times(ds); this Dataset has no survival"
    with pytest.raises(ValueError, match=r"or a trajectory; this DataArray has no displacement"):
        plots.cooling(analysis.moved(told_life))
    with pytest.raises(ValueError, match="at least one quantile"):
        plots.cooling(analysis.cooling(told_life, quantiles=[]))


def test_a_census_without_moves_names_no_fractions(told_life):
    axes = plots.census(analysis.census(told_life.isel(step=[4])))
    assert axes.get_legend().get_texts()[0].get_text() == "none"


def test_a_token_that_never_was_in_a_phase_is_through_with_it_from_the_start():
    ds = simulate.with_last_motion([3, -1], total_steps=6)
    curves = {line.get_label(): line for line in plots.lifecycle(analysis.lifecycle(ds)).lines}
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
    whole(plots.cooling(analysis.cooling(ds.drop_vars("W"))))


def test_infinite_displacements_are_marked():
    ds = simulate.with_last_motion([4, 6], total_steps=8).load()
    ds.displacement_l2[2, 0] = np.inf
    axes = plots.cooling(analysis.cooling(ds[["displacement_l2", "displacement_l1"]]))
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_gid() == "infinite"] == [[2]]


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", [name for name in OVER_STEPS if name not in NOT_OF_ONE_RUN])
def test_a_run_that_diverged_says_so_in_every_picture(name):
    ds = simulate.with_last_motion([9, 9], total_steps=50).load()
    fine = getattr(plots, name)(QUESTIONS[name](ds[["W"]]))
    assert "Diverged" not in fine.get_title(loc="left")
    ds.W[3:, 1] = 0x7FC0
    axes = getattr(plots, name)(QUESTIONS[name](ds[["W"]]))
    assert axes.get_title(loc="left") == "Diverged at step 3: weights are NaN or infinite, which counts as still"
    whole(axes)


def test_the_title_says_why_there_is_no_verdict():
    ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=400)
    titles = [
        plots.cooling(analysis.cooling(ds.sel(step=slice(first, None)), threshold=threshold)).get_title(loc="left")
        for first, threshold in ((0, 0.75), (90, None), (300, None))
    ]
    assert [title.split(": ")[1] for title in titles] == [
        "a threshold of 0.75 cells misses moves", "too few episodes of motion", "nothing moved",
    ]  # fmt: skip


def test_the_cooling_curve_is_what_the_answer_says(told_life):
    answer = analysis.cooling(told_life).load()
    axes = plots.cooling(answer)
    middle = next(line for line in axes.lines if line.get_gid() == "middle-l2").get_data()
    expected = answer.displacement.sel(q=0.5).values[1:]
    assert np.interp(answer.step.values[1:], *middle).tolist() == np.maximum(expected, 0.25).tolist()
    assert axes.get_yscale() == "log"
    assert axes.get_title(loc="left").startswith("No verdict at step 60")
    asked = next(line for line in plots.cooling(told_life).lines if line.get_gid() == "middle-l2")
    assert asked.get_ydata().tolist() == middle[1].tolist()


def test_the_cooling_curve_takes_other_norms_beside_its_own(told_life):
    answers = [analysis.cooling(told_life, norm=norm) for norm in ("l2", "l1", "linf")]
    axes = plots.cooling(*answers)
    lines = {line.get_gid(): line for line in axes.lines}
    assert len({str(lines[f"middle-{norm}"]._dash_pattern) for norm in ("l1", "l2", "linf")}) == 3
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["5-95 % of tokens", "median L2", "median L1", "median L∞", "the largest (L2)"]


def test_cooling_equals_a_loop(told_life):
    answer = analysis.cooling(told_life.chunk({"step": 7, "token": 1})).load()
    norms = told_life.displacement_l2.values
    assert np.isnan(answer.displacement.values[0]).all()
    for t in range(1, 61):
        ordered = sorted(norms[t].tolist())
        found = answer.displacement.sel(step=t).values.tolist()
        assert found == [ordered[0], ordered[1], ordered[1]]  # floor(q (n - 1)) of 3 tokens
        assert float(answer.largest.sel(step=t)) == ordered[-1]
        assert float(answer.moving.sel(step=t)) == pytest.approx(sum(x >= 0.1 for x in ordered) / 3)
    with pytest.raises(ValueError, match="quantiles"):
        analysis.cooling(told_life, quantiles=[1.5])


def test_the_title_tells_the_verdict():
    moving = [20, 40, 60, 80, 100, 120]
    titles = [
        plots.cooling(analysis.cooling(simulate.with_moving_steps(moving, total_steps=last))).get_title(loc="left")
        for last in (400, 16_000)
    ]
    assert titles[0] == "Not frozen at step 400 (p = 0.53); at 15,332 if nothing moves"
    assert titles[1].startswith("Frozen at step 16,000: p = 0.0097")


def test_a_run_that_diverged_gets_no_step_at_which_it_would_be_frozen():
    ds = simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=400).load()[["W"]]
    ds.W[200:, 2] = 0x7F80
    assert plots.movement.verdict(analysis.cooling(ds).load()) == "Not frozen at step 400 (p = 1)"


def test_the_norm_and_the_threshold_stand_beside_the_axis(told_life):
    axes = plots.moving(analysis.cooling(told_life, norm="linf", threshold=0.3))
    assert axes.get_ylabel() == "tokens, L∞ ≥ 0.3"
    assert axes.get_title(loc="left") == "Tokens that move, of 3"


def test_a_thread_without_a_screen_can_draw(told_life):
    made = []
    thread = threading.Thread(target=lambda: made.append(plots.cooling(told_life)._repr_png_()))
    thread.start()
    thread.join()
    assert made[0][0][:4] == b"\x89PNG"


@pytest.mark.slow
def test_pyplot_is_never_loaded():
    code = (
        "import sys; from analysis import plots, simulate;"
        "assert 'matplotlib' not in sys.modules;"
        "plots.cooling(simulate.with_last_motion([2], total_steps=5));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_runs_apart_are_drawn_as_a_loop_finds_them(told_life):
    one = told_life.W.values
    other = one.copy()
    for t in range(8, 61):
        other[t].flat[: 1 + t % 5] += t
    told = analysis.apart(told_life, told_life.assign(W=(told_life.W.dims, other, told_life.W.attrs))).load()
    hops = {t: np.sort(lattice.hops(one[t], other[t])[one[t] != other[t]]) for t in range(8, 61)}
    expected = [
        {t: len(each) / one[t].size for t, each in hops.items()},
        {t: each[(len(each) - 1) // 2] for t, each in hops.items()},
        {t: each[-1] for t, each in hops.items()},
    ]
    share = plots.apart(told)
    for line, known in zip([*share.lines, *plots.hops_apart(told).lines], expected, strict=True):
        assert {int(t): value for t, value in zip(*line.get_data(), strict=True) if np.isfinite(value)} == known
    assert share.get_yscale() == "log"
    most = max(expected[0].values())
    assert share.get_title(loc="left") == f"Apart from step 8 on, in up to {most:.2%} of the weights"


def test_equal_runs_are_said_to_be_equal(told_life):
    answer = analysis.apart(told_life, told_life)
    assert plots.apart(answer).get_title(loc="left") == "Equal at 61 compared steps, 0 to 60"
    whole(plots.hops_apart(answer))


def test_an_axis_of_shares_ends_at_all_of_them(told_life):
    other = told_life.assign(W=(told_life.W.dims, told_life.W.values ^ 1, told_life.W.attrs))
    axes = plots.apart(analysis.apart(told_life, other))
    low, high = axes.get_ylim()
    assert low < 1 < high < 2


def test_of_two_runs_some_of_whose_steps_are_looked_at_no_more_is_said(told_life):
    bits = told_life.W.values.copy()
    bits[8] ^= 1  # and the same again at step 9
    other = told_life.assign(W=(told_life.W.dims, bits, told_life.W.attrs))
    thin = [ds.isel(step=slice(None, None, 10)) for ds in (told_life, other)]
    titles = [plots.apart(analysis.apart(*pair)).get_title(loc="left") for pair in ((told_life, other), thin)]
    assert titles[0] == "Apart at 1 of 61 compared steps, first at 8, in up to 100% of the weights"
    assert titles[1] == "Equal at 7 compared steps, 0 to 60"


def test_what_is_no_axes_no_answer_of_one_run_or_has_lost_its_words_is_refused():
    ds = simulate.with_last_motion([3, 5], total_steps=6)
    answer = analysis.cooling(ds)
    from matplotlib.figure import Figure

    snapshot = analysis.snapshots(ds, steps=[1])
    for picture, drawn in ((plots.cooling, answer), (plots.positions, snapshot)):
        with pytest.raises(TypeError, match="ax= takes one Axes of matplotlib, not Figure"):
            picture(drawn, ax=Figure())
    with pytest.raises(ValueError, match=r"about one run, and this one has a dimension 'run': .*answer.isel\(run=0\)"):
        plots.cooling(analysis.over({"a": ds, "b": ds}, analysis.cooling))
    with pytest.raises(ValueError, match=r"has lost 'norm': draw the answer of cooling\(ds\)"):
        plots.cooling(answer.load().drop_attrs())
    with pytest.raises(TypeError, match=r"takes no path; open the run first: store.open_trajectory\('runs/A'\)"):
        plots.cooling("runs/A")


def exponents_of(weights):
    W = np.asarray(weights, np.float32)[None, :, None]
    return plots.exponents(analysis.exponents(xr.Dataset({"W": (("step", "token", "hidden"), W)})))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([0, 0, 1], "66.67% of the weights are 0 or nearer to it than 2⁻¹²⁶"),
        ([np.nan, np.inf, 1], "Diverged"),
        ([1.5, 1, 0], "66.67% of the weights lie in 2⁰ to 2¹"),
    ],
)
def test_zeros_and_weights_that_are_not_finite_have_no_power_of_two(weights, words):
    axes = exponents_of(weights)
    assert words in axes.get_title(loc="left")
    names = {round(at): text.get_text() for at, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    assert names.get(-127, "0") == "0"
    assert names.get(129, "NaN") == "NaN"


@pytest.mark.parametrize("last", [0, 1, 2, 3, 7, 15, 20, 25, 30])
def test_each_tick_of_a_short_run_stands_at_the_step_that_it_names(last):
    """Between 0 and 20 matplotlib would take 2.5, 7.5, ..., which were named 2, 8, ..."""
    ds = simulate.with_last_motion([last, 0], total_steps=last)
    axes = plots.survival(analysis.freeze_times(ds))
    axes.figure.draw_without_rendering()
    ticks = {label.get_text(): at for label, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
    assert len(ticks) == len(axes.get_xticks()) > 1
    assert all(float(text.replace(",", "").replace("\N{MINUS SIGN}", "-")) == at for text, at in ticks.items())


@pytest.mark.filterwarnings("error")
def test_an_answer_that_was_read_back_is_drawn_and_told_as_before(tmp_path):
    """xarray reads whole numbers that may be missing as floats, with NaN for none."""
    ds = simulate.with_phases([(1, 3, 4), (-1, -1, 6), (-1, 2, 5), (-1, -1, -1)], total_steps=8)
    for picture in ("lifecycle", "survival", "freeze_histogram", "stratigraphy", "cooling", "stillness", "drift"):
        question = {"survival": "freeze_times", "freeze_histogram": "last_motion"}.get(picture, picture)
        answer = getattr(analysis, question)(ds)
        answer.to_zarr(tmp_path / f"{picture}.zarr")
        read = xr.open_zarr(tmp_path / f"{picture}.zarr")
        drawn, again = (getattr(plots, picture)(each) for each in (answer, read))
        for line, other in zip(drawn.lines, again.lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), other.get_xydata())
        for image, other in zip(drawn.images, again.images, strict=True):
            np.testing.assert_array_equal(image.get_array(), other.get_array())
        assert drawn.get_title(loc="left") == again.get_title(loc="left")
        assert analysis.plain(read) == analysis.plain(answer)
    ended = analysis.end_state(simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=200))
    ended.to_zarr(tmp_path / "end.zarr")
    assert analysis.sentence(xr.open_zarr(tmp_path / "end.zarr")) == analysis.sentence(ended)


@pytest.mark.parametrize("steps", [50, 5_000])
def test_the_mean_of_runs_is_seen_where_it_is_known_and_no_line_leads_over_what_is_not(steps):
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=(3, steps))) * (rng.random((3, steps)) > 0.3)
    axes = plots.overlay({name: xr.DataArray(v, {"step": range(steps)}) for name, v in zip("abc", values, strict=True)},
                         words="moves", log=True)  # fmt: skip
    known = (values > 0).all(axis=0)
    (line,) = (line for line in axes.lines if line.get_label() == "geometric mean of 3 runs")
    x, y = line.get_data()
    spans = zip(x[:-1], x[1:], y[:-1] + y[1:], strict=True)
    assert all(known[first : last + 1].all() for first, last, both in spans if np.isfinite(both))
    lone = known & ~np.append(False, known[:-1]) & ~np.append(known[1:], False)
    assert axes.lines[-1].get_gid() == "alone"
    assert axes.lines[-1].get_xdata().tolist() == np.flatnonzero(lone).tolist()
