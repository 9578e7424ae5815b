import measuring
import pytest

MAKE = """
    import sys, json, time, numpy, torch, zarr
    import crucible, store
    from crucible.channels import NOTEBOOK, derive, finisher
    source = zarr.open_group(sys.argv[1], mode="r")
    W, loss = source["W"], source["loss"][:]
    steps, tokens, hidden = W.shape
    writer = store.TrajectoryWriter.create(
        sys.argv[2], channels=NOTEBOOK, derive=derive, finish=finisher(0.1), tokens=numpy.arange(tokens),
        hidden=hidden, statics={"dead_mask": numpy.arange(10_000) < tokens},
        attributes={"motion_threshold": 0.1, "beta1": 0.9},
    )
    for start in range(0, steps, 1251):
        for step, bits in enumerate(W[start:start + 1251], start):
            centroid = torch.from_numpy(bits).view(torch.bfloat16).float().mean(dim=0).numpy()
            writer.append(W=bits, centroid=centroid, loss=loss[step] if step else None)
    writer.complete()
"""


@pytest.fixture(scope="session")
def real_run():
    return measuring.real_run()


@pytest.fixture(scope="session")
def recorded(real_run, tmp_path_factory):
    """The real run as a run of the store: everything the notebook's table keeps."""
    run = tmp_path_factory.mktemp("recorded") / "real"
    measuring.measure_python(MAKE, real_run, run)
    return run
