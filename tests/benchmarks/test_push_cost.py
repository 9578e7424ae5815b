"""What the push costs while training: 3,644 rows x 64 of bfloat16, where nothing moves and where all do."""

import json

import pytest
from measuring import measure_python, table

pytestmark = pytest.mark.benchmark

ROWS, HIDDEN, TABLE_ROWS = 3_644, 64, 10_000
CASES, ALLOWED_MB = ("still", "all move"), 10

TIME = f"""
    import json, sys, time, numpy, torch
    from crucible.channels.push import arithmetic_of
    from crucible.channels.push_rows import Pushes
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    name, gathered = sys.argv[2], sys.argv[3] == "gathered"
    count = {TABLE_ROWS} if gathered else {ROWS}
    weights = torch.nn.Parameter((torch.randn(count, {HIDDEN}) * 0.02).bfloat16())
    options = {{"AdamW": {{"lr": 1e-3}}, "SGD": {{"lr": 1e-3, "momentum": 0.9}}}}[name]
    optimizer = getattr(torch.optim, name)([weights], **options)
    for _ in range(3):
        weights.grad = (torch.randn_like(weights) * 1e-4)
        optimizer.step()
    rows = torch.randperm(count)[:{ROWS}].sort().values
    take = (lambda tensor: tensor.detach().index_select(0, rows)) if gathered else torch.Tensor.detach
    found, now = arithmetic_of(optimizer, weights), take(weights)
    beside = (now.view(torch.int16) + 1).view(torch.bfloat16)
    pushes = Pushes(now)
    def step(rows_after):
        pushes.of(found.step_taken(optimizer, weights, take))
        pushes.keep(rows_after)
    def milliseconds(turns):
        spent = []
        for k in range(1000):
            since = time.process_time()
            step(turns[k % 2])
            spent.append(time.process_time() - since)
        return [1e3 * float(numpy.percentile(spent, part)) for part in (5, 50)]
    print(json.dumps({{"still": milliseconds([now, now]), "all move": milliseconds([beside, now]),
        "MB": sum(each.nbytes for each in vars(pushes).values() if isinstance(each, torch.Tensor)) / 1e6}}))
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_push(threads):
    lines = []
    for name in ("AdamW", "SGD"):
        for taken in ("as it is", "gathered"):
            told = json.loads(measure_python(TIME, threads, name, taken).out)
            lines.append([name, taken, *(f"{ms:.2f}" for case in CASES for ms in told[case]), f"{told['MB']:.1f}"])
            assert told["MB"] < ALLOWED_MB
    table(
        f"push of {ROWS:,} rows x {HIDDEN} in bfloat16, {threads} thread(s), processor ms a step",
        ["optimizer", "rows", "still, quietest 5 %", "median", "all move, quietest 5 %", "median", "MB kept"],
        lines,
    )
