"""The same answers from two worker processes, from a trajectory that no worker holds whole."""

import warnings

import numpy as np
import pytest

from analysis import simulate
from analysis.cloud import cloud, principal_axes
from analysis.compare import compare
from analysis.drift import drift
from analysis.occupancy import bounding_box, exponents, identical_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from distributed import Client, LocalCluster
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_two_processes_give_the_same_bits(client):
    ds = simulate.with_phases([(2, 4, 30), (1, 2, 25), (3, 8, 9)], total_steps=40, chunks={"step": 7, "token": 2})
    other = simulate.with_phases([(2, 4, 30), (1, 2, 20), (3, 8, 9)], total_steps=40)
    asked = [ask(ds) for ask in (cloud, principal_axes, drift, identical_rows, exponents, bounding_box)]
    here = [answer.compute(scheduler="synchronous") for answer in asked]
    there = [answer.compute() for answer in asked]
    assert client.scheduler_info()["workers"]
    for one, two in zip(here, there, strict=True):
        for name in one.data_vars:
            assert np.array_equal(one[name].values, two[name].values, equal_nan=one[name].dtype.kind == "f"), name
    assert int(compare(ds, other).step) == 21
