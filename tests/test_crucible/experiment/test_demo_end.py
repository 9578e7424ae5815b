"""When the demo ends: its verdict is that of the analysis on what was recorded until then."""

import numpy as np
import pytest
import torch
import viewer_runs

import analysis
import store
from crucible.channels.push_rows import Pushes
from crucible.experiment.demo import UntilFrozen, show
from crucible.experiment.run import train


def test_the_demo_sees_the_motions_and_pushes_that_are_recorded_and_judges_by_both(small, monkeypatch):
    asked, frozen = [], []
    judge = UntilFrozen._is_frozen
    monkeypatch.setattr(UntilFrozen, "_is_frozen", lambda self, step: frozen.append((step, judge(self, step))))
    monkeypatch.setattr("crucible.experiment.demo.ASK_EVERY", 1)

    def until(session):
        rows = torch.from_numpy(session.inputs.dead.indices).to(session.device)
        asked.append(UntilFrozen(session.model.token_embedding.weight, rows, session.optimizer, session.push))
        return asked[0]

    counted = []
    of = Pushes.of
    monkeypatch.setattr(Pushes, "of", lambda self, step: counted.append(1) or of(self, step))
    train(small, until=until, say=lambda _: None)
    assert len(counted) == small.total_steps  # once a step, by the recorder
    ds = store.open_trajectory(small.out)
    np.testing.assert_array_equal(np.float32(asked[0].strongest), analysis.push(ds).max("token").values[1:])
    assert asked[0].moving == (np.flatnonzero(analysis.stillness(ds).any_motion.values)).tolist()
    assert all(not said for _, said in frozen)


def test_the_demo_is_frozen_where_the_analysis_says_so():
    moving, total = [20, 40, 60, 80, 100, 120], 3_000
    pushes = np.exp(np.random.default_rng(1).normal(-2, 0.05, (total, 1)))
    pushes[[step - 1 for step in moving]] = 1.5
    ds = analysis.simulate.with_pushes(pushes)
    weight = torch.nn.Parameter(torch.ones(1, 64, dtype=torch.bfloat16))
    asked = UntilFrozen(weight, torch.tensor([0]), torch.optim.AdamW([weight], lr=1e-3))
    asked.moving, asked.strongest = moving, analysis.push(ds).values[1:, 0].tolist()
    assert asked._is_frozen(total) is bool(analysis.end_state(ds).frozen) is True
    asked.strongest = asked.strongest[:1_000]
    assert asked._is_frozen(1_000) is False


@pytest.mark.slow
def test_it_ends_with_the_report_its_picture_and_the_command_that_opens_the_page(tmp_path):
    folder, said = tmp_path / "a demo", []
    viewer_runs.record(folder / "run", viewer_runs.states(60))
    show(folder, said.append)
    assert said == [
        f"report: {folder / 'report.html'}",
        f"picture: {folder / 'cooling.png'}",
        f"page: crucible view '{folder / 'run'}'",
    ]
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert (folder / "cooling.png").read_bytes()[:4] == b"\x89PNG"
