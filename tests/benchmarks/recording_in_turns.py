"""What recording itself takes of the processor: one process in which the same training goes on three times, in turns.

One training is recorded by Crucible, one by the notebook's own lines, one not at all. Two processes that do the very
same differ by more than what is looked for, and so do the steps of one process. So only what records is compared:
`optimizer.step()` with the hooks in it and the lines beside it, while the model's own work between any two of them
empties the caches as it does in life.

    python tests/benchmarks/recording_in_turns.py SETTINGS PUSH   (both as JSON; prints JSON)
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import notebook_loop

from crucible.experiment.model import loss_of
from crucible.experiment.run import attach_to
from crucible.experiment.session import begin, read_inputs
from crucible.inputs.config import Config
from crucible.recording.seam import NoRecorder

WARM_UPS, UPDATES = 5, 40
"""Of the unit, in each round: AdamW's own step on as many rows."""
ROUND, SHARE = 128, 4
"""Of so many steps that are recorded the other two trainings make one in `SHARE`: these cost the same at every step."""
REST_S = 0.3
"""After that the recorder's thread has nothing to do, and the others have the caches for themselves."""


class Training:
    """One training, and the milliseconds of processor time of its steps.

    Attributes
    ----------
    around, whole : list of float
        Of `optimizer.step()` and what records beside it; of the whole step.
    """

    def __init__(self, session):
        self.session, self.recorder = session, NoRecorder()
        self.around, self.whole = [], []

    def step(self, ids, clock):
        """Train on a batch."""
        since = clock()
        model, optimizer, config = self.session.model, self.session.optimizer, self.session.config
        loss = loss_of(model, ids, config.compute_dtype, config.loss_chunk)
        optimizer.zero_grad()
        loss.backward()
        before = clock()
        self.recorder.log(loss=loss)
        optimizer.step()
        self.keep(loss)
        until = clock()
        self.around.append((until - before) * 1e3)
        self.whole.append((until - since) * 1e3)

    def keep(self, loss):
        """What a loop does by itself to record a step: nothing."""


class ByNotebook(Training):
    """A training that is recorded as the notebook does it, in memory."""

    def __init__(self, session):
        super().__init__(session)
        self._weight, self._dead = session.model.token_embedding.weight, torch.from_numpy(session.inputs.dead.indices)
        self._W = [self._rows()]
        self._deltas, self._centroid, self._losses = [], [], []

    def _rows(self):
        return self._weight.detach()[self._dead].clone()

    def keep(self, loss):
        """The lines of its loop."""
        self._W.append(self._rows())
        self._deltas.append(notebook_loop.displacement(self._W[-2], self._W[-1]))
        self._centroid.append(self._W[-1].float().mean(dim=0))
        self._losses.append(loss.item())

    def end(self, path):
        """Stack, look for the last motion, write the file."""
        delta = torch.stack(self._deltas)
        tensors = {
            "W": torch.stack(self._W).view(torch.uint16),
            "delta_W_prime": delta,
            "centroid": torch.stack(self._centroid),
            "last_motion_step": notebook_loop.last_motion(delta, 0.1),
        }
        notebook_loop.save(notebook_loop.Notebook(tensors, 0), path)


class Unit:
    """AdamW's own step on as many rows, hot, in one thread: how fast this machine is in this hour.

    Attributes
    ----------
    taken : list of float
        Milliseconds, the median of each round.
    """

    def __init__(self, rows, hidden):
        weights = torch.nn.Parameter((torch.randn(rows, hidden) * 0.02).bfloat16())
        weights.grad = torch.randn_like(weights) * 1e-4
        self._optimizer = torch.optim.AdamW([weights])
        self.taken = []

    def take(self):
        """Once more."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        each = [_milliseconds(self._optimizer.step, time.thread_time) for _ in range(WARM_UPS + UPDATES)]
        torch.set_num_threads(threads)
        self.taken.append(statistics.median(each[WARM_UPS:]))


class RecorderThreads:
    """The threads that recording has started, and their own clocks."""

    def __init__(self, before):
        started = set(threading.enumerate()) - before
        self._clocks = [time.pthread_getcpuclockid(thread.ident) for thread in started]

    def seconds(self):
        """Of processor time, until now."""
        return sum(map(time.clock_gettime, self._clocks))

    def seconds_of_others(self):
        """Of all other threads of this process: the loop's own and those of torch."""
        return time.process_time() - self.seconds()


def measured(settings, push):
    """Milliseconds of processor time a step."""
    config = Config(**settings)
    inputs = read_inputs(config)
    unit = Unit(len(inputs.dead.indices), config.hidden_dim)
    recorded, bare, notebook = (kind(begin(config, inputs)) for kind in (Training, Training, ByNotebook))
    before = set(threading.enumerate())
    recorded.recorder = attach_to(recorded.session, say=lambda _: None, push=push)
    with recorded.recorder:
        threads = RecorderThreads(before)
        began = threads.seconds()
        _train(config.total_steps, recorded, (bare, notebook), unit, threads.seconds_of_others)
        by_thread = (threads.seconds() - began) * 1e3
        at_end = _milliseconds(recorded.recorder.complete)
    at_end_of_notebook = _milliseconds(lambda: notebook.end(f"{config.out}.safetensors"))
    rounds = range(0, len(bare.around), ROUND // SHARE)
    apart = [_of_model(recorded, i * SHARE, ROUND) - _of_model(bare, i, ROUND // SHARE) for i in rounds]
    return {
        "bare": statistics.mean(bare.around),
        "recorded": statistics.mean(recorded.around),
        "notebook": statistics.mean(notebook.around),
        "thread": by_thread / config.total_steps,
        "end": at_end / config.total_steps,
        "notebook's end": at_end_of_notebook / len(notebook.around),
        "model": statistics.mean(bare.whole) - statistics.mean(bare.around),
        "above": statistics.mean(apart),
        "error": statistics.stdev(apart) / len(apart) ** 0.5,
        "update": statistics.mean(unit.taken),
        "update in rounds": [min(unit.taken), max(unit.taken)],
    }


def _train(steps, recorded, others, unit, clock):
    batches, chance = recorded.session.batches(), random.Random(0)
    for done in range(0, steps, ROUND):
        ids = list(islice(batches, min(ROUND, steps - done)))
        at = chance.randrange(len(ids))
        for each in ids[:at]:
            recorded.step(each, clock)
        time.sleep(REST_S)
        unit.take()
        for other in chance.sample(others, len(others)):
            for each in ids[: len(ids) // SHARE]:
                other.step(each, clock)
        for each in ids[at:]:
            recorded.step(each, clock)


def _of_model(training, first, count):
    """What the model's own work took in so many steps, the mean."""
    some = slice(first, first + count)
    return statistics.mean(training.whole[some]) - statistics.mean(training.around[some])


def _milliseconds(work, clock=time.process_time):
    since = clock()
    work()
    return (clock() - since) * 1e3


if __name__ == "__main__":
    print(json.dumps(measured(*map(json.loads, sys.argv[1:]))))
