"""What `crucible report` costs on the real run: one process, its pictures share their passes."""

import pushed_run
import pytest
from measuring import measure_crucible, measure_python, table

pytestmark = pytest.mark.benchmark

LARGEST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def pushed(real_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("pushed") / "real"
    measure_python(pushed_run.MAKE, real_run, run)
    return run


@pytest.mark.parametrize("which", ["recorded", "pushed"])
def test_the_report_of_the_real_run(which, request, tmp_path):
    run, out = request.getfixturevalue(which), tmp_path / "report.html"
    runs = [measure_crucible("report", run, "--out", out, "--force") for _ in range(3)]
    best = min(runs, key=lambda done: done.cpu_s)
    table(
        f"`crucible report`, {which}, 5,000 steps x 3,644 x 64; goals: 8 s of processor time, 400 MB, 3 MB",
        ["", "wall s", "processor s", "peak MB", "file MB"],
        [
            ["best of 3", *(f"{x:.1f}" for x in (best.wall_s, best.cpu_s, best.peak_mb, out.stat().st_size / 1e6))],
            ["worst of 3", "", f"{max(done.cpu_s for done in runs):.1f}", f"{max(d.peak_mb for d in runs):.1f}", ""],
        ],
    )
    assert out.stat().st_size < LARGEST_BYTES
