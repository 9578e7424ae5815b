"""What recording costs a training run: memory, wall time beside `--no-record` and beside the notebook's own loop."""

import json
import re
import sys
from pathlib import Path

import pytest
from measuring import crucible_command, folder_bytes, measure, measure_steps, table

pytestmark = pytest.mark.benchmark

DEAD = 3_699
STEPS = 1_000
LOOP = Path(__file__).parents[1] / "notebook_loop.py"
TURNS = Path(__file__).parent / "recording_in_turns.py"
COMMIT_S = 50
"""As many commits a step as with the 30 s of the default, since the other trainings take time in between."""
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 31)}
"""glibc gives the memory of a step back to the system and takes it anew at the next, or does not, as it happens to lie:
2,276 page faults a step without recording and 1,092 with it, more milliseconds than what is measured here."""


def command(inputs, out, steps, batch, seq_len, *extra):
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in inputs.items()]
    return crucible_command(
        "train", *flags, f"--out={out}", f"--total-steps={steps}", f"--batch-size={batch}", f"--seq-len={seq_len}",
        "--device=cpu", *extra,
    )  # fmt: skip


def train(inputs, out, steps, batch, seq_len, *extra):
    done = measure(*command(inputs, out, steps, batch, seq_len, *extra))
    elapsed_s = float(re.search(r"training complete:.* ([\d.]+) s", done.out).group(1))
    return done, elapsed_s / steps * 1e3


def notebook_command(inputs, out, steps, batch, seq_len):
    settings = {name: str(path) for name, path in inputs.items()}
    settings |= {"total_steps": steps, "batch_size": batch, "seq_len": seq_len}
    return sys.executable, LOOP, json.dumps(settings), out


def test_memory_of_recording_does_not_grow(inputs, tmp_path):
    rows = []
    for steps in (300, 2000):
        bare, _ = train(inputs, tmp_path / f"bare-{steps}", steps, 2, 16, "--no-record")
        recorded, _ = train(inputs, tmp_path / f"run-{steps}", steps, 2, 16)
        kept = (steps + 1) * DEAD * 64 * 2 + steps * DEAD * 64 * 4
        rows.append([steps, f"{bare.peak_mb:.0f}", f"{recorded.peak_mb:.0f}", f"{recorded.peak_mb - bare.peak_mb:.0f}",
                     f"{kept / 1e6:.0f}"])  # fmt: skip
    table(
        "Peak resident memory of `crucible train` at 3,699 rows x 64, MB",
        ["steps", "--no-record", "recording", "difference", "W and delta_W_prime alone, raw"],
        rows,
    )


def batch_for(inputs, tmp_path, target_ms):
    """A batch size whose step takes about so long."""
    for batch in (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64):
        _, took = train(inputs, tmp_path / f"try-{target_ms}-{batch}", 20, batch, 128, "--no-record")
        if took > 0.9 * target_ms:
            return batch
    return batch


@pytest.mark.parametrize("target_ms", [50, 100])
def test_wall_time_with_recording_and_without(inputs, tmp_path, target_ms):
    batch = batch_for(inputs, tmp_path, target_ms)

    def commands(steps):
        runs = tmp_path / f"bare-{steps}", tmp_path / f"run-{steps}"
        bare, recorded = (command(inputs, out, steps, batch, 128) for out in runs)
        return [(*bare, "--no-record"), recorded]

    (bare, bare_cpu), (recorded, cpu) = measure_steps(commands, STEPS)
    table(
        f"{STEPS} steps of about {target_ms} ms (batch {batch} x 128), in turns of 2 s",
        ["ms a step without", "with", "with / without", "processor ms a step without", "with"],
        [[f"{bare:.1f}", f"{recorded:.1f}", f"{recorded / bare:.3f}", f"{bare_cpu:.1f}", f"{cpu:.1f}"]],
    )


def test_beside_the_notebooks_loop(inputs, tmp_path):
    steps, batch = 500, 8
    ours, _ = train(inputs, tmp_path / "run", steps, batch, 128)
    theirs = measure(*notebook_command(inputs, tmp_path / "file.safetensors", steps, batch, 128))
    rows = []
    for name, done, size in [
        ("crucible train", ours, folder_bytes(tmp_path / "run")),
        ("the notebook's way", theirs, (tmp_path / "file.safetensors").stat().st_size),
    ]:
        rows.append([name, *(f"{x:.1f}" for x in (done.wall_s, done.cpu_s, done.peak_mb, size / 1e6))])
    table(
        f"The whole process, {steps} steps of batch {batch} x 128, 3,699 rows x 64",
        ["", "wall s", "processor s", "peak MB", "on disk MB"],
        rows,
    )


def processor_time_of_recording(inputs, tmp_path, steps, batch, seq_len, *pushes):
    """What recording takes of the processor, beside the notebook's lines in the same training; memory is kept."""
    rows = []
    for push in pushes:
        settings = {name: str(path) for name, path in inputs.items()} | {
            "out": str(tmp_path / f"run-{push}"), "total_steps": steps, "batch_size": batch, "seq_len": seq_len,
            "device": "cpu", "compute_dtype": "auto", "commit_interval": COMMIT_S,
        }  # fmt: skip
        done = measure(sys.executable, TURNS, json.dumps(settings), json.dumps(push), **KEEP_MEMORY)
        ms = json.loads(done.out.splitlines()[-1])
        ours = ms["recorded"] - ms["bare"], ms["thread"], ms["end"]
        theirs = ms["notebook"] - ms["bare"], 0.0, ms["notebook's end"]
        for name, parts in (f"Crucible, {'with' if push else 'without'} push", ours), ("the notebook's lines", theirs):
            taken = [*parts, sum(parts)]
            rows.append([name, *(f"{each:.2f}" for each in taken), f"{sum(parts) / ms['update']:.1f}"])
        least, most = ms["update in rounds"]
        unit = f"AdamW's update of as many rows, hot, {ms['update']:.2f} ({least:.2f} to {most:.2f} in the rounds)"
        about = f"`optimizer.step()` alone {ms['bare']:.2f}, {unit}"
        model = (
            f"the model's own work {ms['model']:.1f}, of the recorded training {ms['above']:+.2f} +- {ms['error']:.2f}"
        )
        print(f"\n{about}; {model}")
    table(
        f"{steps:,} steps of {batch} x {seq_len}, in turns in one process, processor ms a step",
        ["", "in the loop", "a thread of its own", "at the end", "all", "all / the update"],
        rows,
    )


def test_processor_time_of_recording_while_all_moves(inputs, tmp_path):
    processor_time_of_recording(inputs, tmp_path, STEPS, 2, 16, False, True)


def test_processor_time_of_recording_the_whole_experiment(experiment, tmp_path):
    """Some ten minutes, and 5 GB of memory for the notebook."""
    processor_time_of_recording(experiment, tmp_path, 5_000, 4, 128, True)
