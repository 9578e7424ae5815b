"""Pictures hold what the answers say, on any answer, and touch nothing global."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import analysis
from analysis import plots, simulate
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


def test_infinite_and_missing_displacements_are_drawn_around():
    ds = simulate.with_last_motion([4, 6], total_steps=8).load()
    ds.displacement_l2[2, 0], ds.displacement_l2[3, 1] = np.inf, np.nan
    plots.cooling(cooling(ds))._repr_png_()


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


def test_pyplot_is_never_loaded():
    code = (
        "import sys; from analysis import plots, simulate;"
        "assert 'matplotlib' not in sys.modules;"
        "plots.cooling(simulate.with_last_motion([2], total_steps=5));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
