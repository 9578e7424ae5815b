"""`crucible analyze --scheduler` asks a cluster; a wrong address leaves nothing behind that others wait for."""

import json
import warnings

import dask.array as da
import pytest

from crucible.cli import main


@pytest.fixture
def run(small):
    from crucible.running import train_run

    train_run(small, say=lambda _: None)
    return small.out


@pytest.mark.slow
def test_a_cluster_gives_the_same_answers(run, capsys):
    distributed = pytest.importorskip("distributed")
    capsys.readouterr()
    assert main(["analyze", run, "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
        ) as all_:
            assert main(["analyze", run, "--json", "--scheduler", all_.scheduler_address]) == 0
    assert json.loads(capsys.readouterr().out) == here


def test_a_wrong_address_is_one_line_and_leaves_no_cluster_behind(run, capsys):
    assert main(["analyze", run, "--scheduler", "nonsense://x"]) == 1
    assert "no dask scheduler answers" in capsys.readouterr().err
    assert int(da.ones(3, chunks=1).sum().compute()) == 3
    assert main(["analyze", run]) == 0
