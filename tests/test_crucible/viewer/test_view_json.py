"""view.json: what analysis reckoned, in JSON without NaN; of the newest commit."""

import json
import threading

import numpy as np
import pytest
import viewer_runs
from tokenizers import Tokenizer, models
from waiting import wait_until

import analysis
import store
from crucible.inputs.data import sha256
from crucible.inspection.selection import Selection
from crucible.viewer import answers
from crucible.viewer.source import dataset, stand_of, without_paths
from crucible.viewer.views import Views


def made(run, **how):
    return json.loads(Views(run, **how).newest(whole=True))


def test_phases_and_freeze_steps_are_those_of_the_analysis(run):
    ds, view = store.open_trajectory(run), made(run)
    told = view["answers"]
    life = analysis.lifecycle(ds).load()
    assert told["phases"] == ["supernova", "cooling", "stumbling"]
    np.testing.assert_array_equal(np.array(told["exits"]).T, life.exit.values)
    assert told["freeze"] == analysis.last_motion(ds).last_motion.values.tolist()
    assert told["so_far"] is False
    assert view["ids"] == ds.token.values.tolist()
    assert (view["steps"], view["tokens"], view["hidden"]) == (300, 40, 8)
    assert view["title"] == "calm-run"


def test_threshold_and_norm_are_taken(run):
    ds, view = store.open_trajectory(run), made(run, threshold=3.0, norm="linf")
    expected = analysis.last_motion(ds, threshold=3.0, norm="linf").last_motion.values.tolist()
    assert (view["threshold"], view["norm"], view["answers"]["freeze"]) == (3.0, "linf", expected)


def test_axes_are_principal_axes_of_the_last_state_and_reach_holds_the_cloud(run):
    ds, view = store.open_trajectory(run), made(run)
    axes = np.array(view["cloud"]["axes"])
    expected = analysis.principal_axes(ds.isel(step=[-1])).load()
    np.testing.assert_allclose(axes, expected["axes"].values[:3], atol=1e-6)
    np.testing.assert_allclose(view["cloud"]["share"], expected["share"].values[:3], atol=1e-6)
    points = analysis.weights(ds).values[[0, -1]].astype(float) @ axes.T
    radius = np.hypot(*(points - points.mean(axis=1, keepdims=True))[..., :2].T)
    assert radius.max() <= view["cloud"]["reach"] <= 2 * radius.max()
    low, high = np.array(view["cloud"]["box"])
    assert (points >= low - 1e-9).all()
    assert (points <= high + 1e-9).all()


@pytest.mark.parametrize(("steps", "tokens", "hidden"), [(0, 1, 1), (1, 1, 2), (5, 2, 1), (3, 5, 3)])
def test_small_runs_have_axes_too(tmp_path, steps, tokens, hidden):
    view = made(viewer_runs.record(tmp_path / "run", viewer_runs.states(steps, tokens, hidden)))
    assert np.shape(view["cloud"]["axes"]) == (3, hidden)
    assert view["cloud"]["reach"] > 0


def test_nan_is_never_written(tmp_path):
    rows = viewer_runs.states(12, tokens=5)
    rows[3:, 1] = 0x7FC0
    view = made(viewer_runs.record(tmp_path / "run", rows))
    assert view["answers"]["verdict"].startswith("Diverged at step 3")
    assert np.isfinite(view["cloud"]["axes"]).all()
    rows[:] = 0x7FC0
    view = made(viewer_runs.record(tmp_path / "all", rows))
    assert view["cloud"]["share"] is None


def test_the_first_view_comes_before_the_answers(run):
    first = answers.first_answers(dataset(run), stand_of(run))
    assert first["answers"] is None
    assert first["cloud"]["axes"]
    answers.to_json(first)


def test_a_later_commit_has_another_view(tmp_path, rows):
    run = tmp_path / "run"
    with viewer_runs.create(run, rows) as writer:
        viewer_runs.append(writer, rows, 0, 10)
        writer.commit()
        views = Views(run)
        early = json.loads(views.newest(whole=True))
        assert early["answers"]["so_far"] is True
        viewer_runs.append(writer, rows, 10, 20)
        writer.commit()
        views.newest()  # the older one, at once; a newer one is begun
        late = json.loads(views.newest(whole=True))
    assert (early["steps"], late["steps"]) == (9, 19)
    assert early["commit"]["key"] != late["commit"]["key"]


def test_texts_come_from_the_tokenizer_that_the_run_was_made_with(tmp_path, rows):
    words = Tokenizer(models.WordLevel({f"word{i}": i for i in range(200)}, unk_token="word0"))
    path = tmp_path / "tokenizer.json"
    path.write_text(words.to_str())
    config = {"tokenizer": str(path), "sha256": {"tokenizer": sha256(path)}}
    run = viewer_runs.record(tmp_path / "run", rows[:4], attributes={"config": config})
    assert made(run)["texts"][:2] == ["word3", "word5"]
    path.write_text(words.to_str() + " ")
    assert made(run)["texts"] is None


def test_what_is_personal_is_left_out():
    told = {
        "corpus": "/home/ada/a.txt", "out": "C:\\Users\\ada\\run", "home": "~/x/y", "share": "\\\\server\\a\\b",
        "deep": [{"path": "/a/b/c.json", "host": "lovelace"}], "plain": "a/b", "number": 3,
    }  # fmt: skip
    assert without_paths(told) == {
        "corpus": "a.txt", "out": "run", "home": "y", "share": "b", "deep": [{"path": "c.json"}], "plain": "a/b",
        "number": 3,
    }  # fmt: skip


def test_a_run_with_missing_steps_has_labels_and_freeze_steps_but_no_verdict(run):
    ds = dataset(run).isel(step=slice(5, None, 3))
    first = answers.first_answers(ds, stand_of(run))
    told = answers.all_answers(ds)
    assert first["labels"] == {"first": 5, "list": list(range(5, 301, 3))}
    assert told["exits"] == [told["freeze"]] == [analysis.last_motion(ds).last_motion.values.tolist()]
    assert told["verdict"].startswith("No verdict: steps are missing")
    later = dataset(run).isel(step=slice(5, None))
    assert answers.first_answers(later, stand_of(run))["labels"] == {"first": 5, "list": None}


def test_the_part_that_is_shown_is_told_by_position(run):
    assert made(run)["selection"] is None
    both = made(run, selection=Selection(tokens=[17, 13], steps=(100, 200)))["selection"]
    assert both == {"tokens": [5, 7], "rows": [100, 199]}
    assert made(run, selection=Selection(steps=(100, None)))["selection"] == {"tokens": None, "rows": [100, None]}
    assert made(run, selection=Selection(population="dead"))["selection"]["rows"] == [0, None]


def test_everyone_who_waits_is_told_that_no_view_could_be_made(run, monkeypatch):
    views, told = Views(run), []

    def fail(*_, **__):
        wait_until(lambda: len(views._changed._waiters) == 2)
        raise OSError("the disk is gone")

    def ask():
        with pytest.raises(OSError, match="the disk is gone"):
            views.newest()
        told.append(True)

    monkeypatch.setattr(answers, "first_answers", fail)
    for _ in range(2):
        threading.Thread(target=ask, daemon=True).start()
    wait_until(lambda: len(told) == 2, most_s=20)
