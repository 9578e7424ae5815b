"""`crucible analyze --scheduler` asks a cluster; a wrong address leaves nothing behind that others wait for."""

import json
import subprocess
import sys
import warnings

import dask
import dask.array as da
import dask.threaded
import pytest

import analysis
from crucible.cli.main import main
from crucible.inspection.analyze import ask
from crucible.inspection.threads import in_threads


@pytest.fixture
def run(small):
    from crucible.experiment.run import train

    train(small, say=lambda _: None)
    return small.out


@pytest.mark.slow
def test_a_cluster_gives_the_same_answers(run, capsys):
    distributed = pytest.importorskip("distributed")
    capsys.readouterr()
    asked = ["analyze", run, "--json", "--threshold", "3", "--norm", "l1"]
    assert main(asked) == 0
    here = json.loads(capsys.readouterr().out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
        ) as all_:
            assert main([*asked, "--scheduler", all_.scheduler_address]) == 0
    assert json.loads(capsys.readouterr().out) == here


def test_a_wrong_address_is_one_line_and_leaves_no_cluster_behind(run, capsys):
    assert main(["analyze", run, "--scheduler", "nonsense://x"]) == 1
    assert "no dask scheduler answers" in capsys.readouterr().err
    assert int(da.ones(3, chunks=1).sum().compute()) == 3
    assert main(["analyze", run]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("address", ["garbage", "tcp://nowhere"])
def test_what_is_no_address_is_said_at_once(run, address, monkeypatch, capsys):
    """Without the client that would look for it for 20 seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "Client", lambda *_, **__: pytest.fail("it was looked for"))
    assert main(["analyze", run, "--scheduler", address]) == 1
    assert "no dask scheduler answers" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("address", ["garbage", "tcp://nowhere"])
def test_what_is_no_address_is_said_quietly(run, address):
    command = [sys.executable, "-m", "crucible", "analyze", run, "--scheduler", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no dask scheduler answers" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("beta1", [0.9, 0.98, 0.0])
def test_the_verdict_is_that_of_the_runs_own_beta1(beta1):
    ds = analysis.simulate.with_moving_steps([20, 40, 60, 80, 100, 120], total_steps=16_000).assign_attrs(beta1=beta1)
    told, known = ask(ds)["end_state"], analysis.plain(analysis.end_state(ds))
    assert {name: told[name] for name in ("episodes", "p", "frozen")} == {
        name: known[name] for name in ("episodes", "p", "frozen")
    }


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["crucible.analyze(run)", "crucible.compare(run, run)"])
def test_without_an_address_nobody_looks_for_a_cluster(run, asked):
    pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    code = f"import sys, crucible; run = sys.argv[1]; {asked}; sys.exit('distributed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, run], check=True)


def test_a_number_of_threads_that_was_chosen_is_kept():
    with dask.config.set(num_workers=7), in_threads():
        assert dask.config.get("num_workers") == 7
        assert dask.config.get("scheduler") is dask.threaded.get
    with dask.config.set(scheduler="synchronous"), in_threads():
        assert dask.config.get("scheduler") == "synchronous"
        assert dask.config.get("num_workers") == 2
