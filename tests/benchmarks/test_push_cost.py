"""What the push costs while training: 3,644 rows x 64 of bfloat16 as they end, where nothing moves and where all do."""

import json

import pytest
from measuring import measure_python, table

pytestmark = pytest.mark.benchmark

ROWS, HIDDEN, TABLE_ROWS = 3_644, 64, 10_000
AT_POWERS = 0.53
"""So many of the weights of the large real run end at powers of two, between cells of two widths."""
CASES, ALLOWED_MB = ("still", "all move"), 10

TIME = f"""
    import json, sys, time, numpy, torch
    from crucible.channels.push import arithmetic_of
    from crucible.channels.push_source import PushOf
    from crucible.channels.sources import Moment
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    name, gathered = sys.argv[2], sys.argv[3] == "gathered"
    count = {TABLE_ROWS} if gathered else {ROWS}
    start = (torch.randn(count, {HIDDEN}) * 0.02).bfloat16()
    at_rest = torch.rand(start.shape) < {AT_POWERS}
    start[at_rest] = torch.exp2(torch.floor(torch.log2(start[at_rest].abs()))).copysign(start[at_rest])
    weights = torch.nn.Parameter(start)
    options = {{"AdamW": {{"lr": 1e-3}}, "SGD": {{"lr": 1e-3, "momentum": 0.9}}}}[name]
    optimizer = getattr(torch.optim, name)([weights], **options)
    def milliseconds(work, before=lambda k: None, parts=(5, 50)):
        spent = []
        for k in range(1000):
            before(k)
            since = time.process_time()
            work()
            spent.append(time.process_time() - since)
        return [1e3 * float(numpy.percentile(spent, part)) for part in parts]
    weights.grad = torch.randn_like(weights) * 1e-4
    beginning = weights.detach().clone()
    (update,) = milliseconds(optimizer.step, parts=(5,))
    weights.data.copy_(beginning)
    rows = torch.randperm(count)[:{ROWS}].sort().values if gathered else None
    here = weights.detach().clone()
    beside = (here.view(torch.int16) + 1).view(torch.bfloat16)
    source = PushOf(arithmetic_of(optimizer, weights), optimizer, weights, rows)
    def step():  # what a hook before the step and one after it do
        source.keep()
        source(Moment(1, weights, rows, optimizer, {{}}))
    def moving(k):
        weights.data.copy_((here, beside)[k % 2])
    print(json.dumps({{"still": milliseconds(step), "all move": milliseconds(step, moving), "update": update,
        "MB": sum(each.nbytes for each in vars(source._pushes).values() if isinstance(each, torch.Tensor)) / 1e6}}))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_push(threads):
    lines = []
    for name in ("AdamW", "SGD"):
        for taken in ("as it is", "gathered"):
            told = json.loads(measure_python(TIME, threads, name, taken).out)
            times = [f"{ms:.2f}" for case in CASES for ms in told[case]]
            ratios = [f"{told[case][0] / told['update']:.2f}" for case in CASES]
            lines.append([name, taken, *times, *ratios, f"{told['MB']:.1f}"])
            assert told["MB"] < ALLOWED_MB
    table(
        f"push of {ROWS:,} rows x {HIDDEN} in bfloat16, {threads} thread(s), processor ms a step",
        [
            "optimizer",
            "rows",
            "still, quietest 5 %",
            "median",
            "all move, quietest 5 %",
            "median",
            "still / the update itself",
            "all move / the update",
            "MB kept",
        ],
        lines,
    )
