"""Pictures hold what the answers say, on any answer, and touch nothing global."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import analysis
from analysis import lattice, plots, simulate
from analysis.cooling import cooling

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


def test_the_cooling_curve_is_what_the_answer_says(told_life):
    answer = cooling(told_life).load()
    above, below = plots.cooling(answer).axes
    middle = above.lines[0].get_ydata()
    expected = answer.displacement.sel(quantile=0.5).values[1:]
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
