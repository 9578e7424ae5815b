"""Every question on two worker processes that read the run from its path, none of which holds the trajectory."""

import warnings

import dask
import numpy as np
import pytest
from analysis_loops import LOOPS
from dask.callbacks import Callback

import analysis
import crucible  # noqa: F401 - its guard
import store
from crucible.channels.table import NOTEBOOK, derive, finisher

STEPS, TOKENS, HIDDEN = 1500, 60, 8
QUESTIONS = sorted(LOOPS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster") / "run"
    rng = np.random.default_rng(0)
    moves = rng.random((STEPS + 1, TOKENS, 1)) < 3 / np.arange(1, STEPS + 2)[:, None, None]
    bits = (0x3F80 + np.cumsum(rng.integers(0, 2, (STEPS + 1, TOKENS, HIDDEN)) * moves, axis=0)).astype(np.uint16)
    writer = store.TrajectoryWriter.create(
        folder, channels=NOTEBOOK, derive=derive, finish=finisher(0.1), tokens=np.arange(TOKENS), hidden=HIDDEN,
        statics={"dead_mask": np.ones(TOKENS, bool)}, attributes={"motion_threshold": 0.1, "beta1": 0.9},
    )  # fmt: skip
    for step, state in enumerate(bits):
        writer.append(W=state, centroid=np.zeros(HIDDEN, np.float32), loss=1.0 if step else None)
    writer.complete(lambda _: {})
    return folder


def ask_all(run):
    ds = store.open_trajectory(run)
    found = {name: getattr(analysis, name)(ds) for name in QUESTIONS}
    return found | {"compare": analysis.compare(ds, store.open_trajectory(run))}


class Largest(Callback):
    """The largest result of any task, bytes."""

    def __init__(self):
        super().__init__(posttask=self.take)
        self.bytes = 0

    def take(self, key, result, *_):  # noqa: ARG002 - as dask calls it
        self.bytes = max(self.bytes, sum(np.asarray(part).nbytes for part in flat(result)))


def flat(result):
    if isinstance(result, dict):
        result = list(result.values())
    return [part for each in result for part in flat(each)] if isinstance(result, list | tuple) else [result]


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", QUESTIONS)
def test_no_task_holds_more_than_two_chunks_or_the_answer(run, name):
    ds = store.open_trajectory(run)
    assert (chunk := 128 * TOKENS * HIDDEN * 4) < ds.W.nbytes / 4
    with Largest() as largest, dask.config.set(scheduler="synchronous"):
        answer = getattr(analysis, name)(ds).compute()
    assert 0 < largest.bytes <= max(2 * chunk, answer.nbytes)


@pytest.mark.slow
def test_two_processes_give_the_same_answers(run):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed = pytest.importorskip("distributed")
    here = dask.compute(ask_all(run), scheduler="synchronous")[0]
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = dask.compute(ask_all(run))[0]
        assert len(client.scheduler_info()["workers"]) == 2
    for name, answer in here.items():
        assert answer.identical(there[name]), name
