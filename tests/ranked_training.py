"""Trainings of two processes, each started by torchrun as ``ranked_training.py FOLDER NAME...``.

Each keeps, in FOLDER/NAME, the run, what each rank saw (seen-<rank>.npz), and what it was told (told-<rank>.txt).
"""

import os
import subprocess
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

VOCABULARY, HIDDEN, PICKED = 11, 6, [1, 4, 9, 10]


def launch(folder, *names, seconds=600):
    """Run these trainings one after the other in two processes; answers their output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(
        [*command, __file__, str(folder), *names], capture_output=True, text=True, timeout=seconds, env=environment,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return done.stdout


class Seen:
    """What one rank sees of its training."""

    def __init__(self, folder, rank):
        self.folder, self.rank = folder, rank
        self.states, self.losses, self.told = [], [], []
        folder.mkdir(exist_ok=True)

    def look(self, embedding, loss=None):
        weight = embedding.weight.detach()
        weight = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        self.states.append(weight.clone().numpy())
        if loss is not None:
            self.losses.append(loss.item())

    def keep(self):
        import numpy as np

        np.savez(self.folder / f"seen-{self.rank}.npz", states=np.stack(self.states), losses=np.array(self.losses))
        (self.folder / f"told-{self.rank}.txt").write_text("\n".join(self.told))


def model_of(seed=0):
    import torch

    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, HIDDEN), torch.nn.Linear(HIDDEN, VOCABULARY))


def steps(model, optimizer, embedding, recorder, seen, *, count=4):
    import torch

    generator = torch.Generator().manual_seed(seen.rank)
    seen.look(embedding)
    for _ in range(count):
        ids = torch.randint(0, VOCABULARY, (8,), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(ids), ids)
        if recorder is not None:
            recorder.log(loss=loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.look(embedding, loss)


def ddp(seen, make=None, where="run", **options):
    """The one line on every rank, in plain data-parallel training."""
    import torch

    import crucible

    model = model_of()
    embedding = model[0]
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = (make or (lambda p: torch.optim.AdamW(p, lr=1e-2)))(model.parameters())
    options = {"rows": PICKED, "say": seen.told.append, **options}
    with crucible.attach(embedding, optimizer, seen.folder / where, **options) as recorder:
        steps(wrapped, optimizer, embedding, recorder, seen)
        assert recorder.step == 4


def only_rank_0(seen):
    """An old loop that attaches on rank 0 alone."""
    import torch

    import crucible

    model = model_of()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    recorder = crucible.attach(model[0], optimizer, seen.folder / "run", rows=PICKED) if seen.rank == 0 else None
    steps(wrapped, optimizer, model[0], recorder, seen)
    if recorder is not None:
        recorder.complete()


def on_rank_1(seen):
    """Another rank than the first records."""
    ddp(seen, on_rank=1)


def each_rank(seen):
    """A run for each rank."""
    ddp(seen, where=f"run-{seen.rank}", on_rank=None)


def resumed(seen):
    """A run that goes on, on every rank."""
    import torch

    import crucible

    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    how = {"rows": PICKED, "say": seen.told.append}
    with crucible.attach(model[0], optimizer, seen.folder / "run", **how) as recorder:
        steps(model, optimizer, model[0], recorder, seen)
    torch.distributed.barrier()
    with crucible.attach(model[0], optimizer, seen.folder / "run", resume=4, **how) as recorder:
        seen.states.pop()
        steps(model, optimizer, model[0], recorder, seen, count=3)
        assert recorder.step == 7


def zero(seen):
    """The optimizer's state is cut up over the ranks."""
    import torch
    from torch.distributed.optim import ZeroRedundancyOptimizer

    ddp(seen, lambda p: ZeroRedundancyOptimizer(p, torch.optim.AdamW, lr=1e-2))


def accelerated(seen):
    """Prepared by accelerate."""
    import accelerate
    import torch

    import crucible

    accelerator = accelerate.Accelerator()
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    with crucible.attach(model[0], optimizer, seen.folder / "run", rows=PICKED, say=seen.told.append) as recorder:
        steps(wrapped, optimizer, model[0], recorder, seen)


def fsdp(seen, mesh_shape=None, **options):
    """fully_shard: each rank holds a part of every parameter."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    import crucible
    from crucible.channels.selection import DEFAULT
    from crucible.channels.table import ADAM_M, GRADIENT

    kept = [channel for channel in DEFAULT if channel.name not in ("push", "optimizer_step")]  # of bfloat16 weights
    model = model_of()
    mesh = init_device_mesh(
        "cpu", mesh_shape or (2,), mesh_dim_names=("replicate", "shard")[-len(mesh_shape or (2,)) :]
    )
    for each in (model[0], model[1], model):
        fully_shard(each, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    options = {"rows": PICKED, "say": seen.told.append, "channels": (*kept, GRADIENT, ADAM_M), **options}
    with crucible.attach(model[0], optimizer, seen.folder / "run", **options) as recorder:
        steps(model, optimizer, model[0], recorder, seen)
        recorder.writer.commit()
        reached = recorder.step
    torch.distributed.barrier()
    with crucible.attach(model[0], optimizer, seen.folder / "run", resume=reached, **options) as recorder:
        seen.states.pop()
        steps(model, optimizer, model[0], recorder, seen, count=2)


def fsdp_replicated(seen):
    """A mesh of two dimensions: whole tensors are brought together."""
    fsdp(seen, (1, 2))


def fsdp_of_all_rows(seen):
    """No choice of rows, and another rank writes."""
    fsdp(seen, rows="all", on_rank=1)


def fsdp_none_of_a_rank(seen):
    """All recorded rows lie on one rank."""
    fsdp(seen, rows=[0, 2])


def fsdp_that_one_rank_leaves(seen):
    """A rank that closes early does not leave the others waiting for ever."""
    import torch
    from torch.distributed.distributed_c10d import _set_pg_timeout as set_timeout
    from torch.distributed.fsdp import fully_shard

    import crucible
    from crucible.ranks import gather

    model = model_of()
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    groups, new_group = [], torch.distributed.new_group
    torch.distributed.new_group = lambda *args, **options: groups.append(new_group(*args, **options)) or groups[-1]
    recorder = crucible.attach(model[0], optimizer, seen.folder / "run", rows=PICKED, say=seen.told.append)
    steps(model, optimizer, model[0], recorder, seen, count=2)
    gather.LONGEST_WAIT = timedelta(seconds=2)  # a slow machine may take longer to all that came before
    set_timeout(gather.LONGEST_WAIT, groups[0])
    if seen.rank == 1:
        recorder.close()
    model(torch.arange(4)).sum().backward()
    began = time.monotonic()
    try:
        optimizer.step()
    except RuntimeError as error:
        seen.told.append(f"{time.monotonic() - began:.0f} s: {error}")
        recorder.close()


def fsdp1(seen):
    """The older FullyShardedDataParallel, which flattens parameters."""
    import torch
    from torch.distributed.fsdp import FullyShardedDataParallel

    import crucible

    for keeps in (True, False):
        model = model_of()
        embedding = model[0]
        seen.look(embedding)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated
            wrapped = FullyShardedDataParallel(model, use_orig_params=keeps, device_id=torch.device("cpu"))
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=1e-2)
        try:
            crucible.attach(embedding, optimizer, seen.folder / "run")
        except ValueError as error:
            seen.told.append(str(error))


def trainer_fsdp(seen):
    """On the CPU the Trainer makes plain data-parallel training of it."""
    trainer(seen, fsdp=True)


def trainer(seen, *, of_trainer=False, everywhere=True, **options):
    """The Trainer of transformers, with the callback."""
    import torch
    import transformers

    import crucible

    transformers.set_seed(1)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=8, n_embd=HIDDEN, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    # rows of different lengths: each process has another number of tokens in a batch
    rows = [torch.randint(0, VOCABULARY, (8,)) for _ in range(32)]
    data = [{"input_ids": row, "labels": row.where(torch.arange(8) < 3 + i % 6, -100)} for i, row in enumerate(rows)]
    settings = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_strategy": "no"}
    settings |= {"logging_steps": 1, "report_to": [], "disable_tqdm": True, "use_cpu": True, "ddp_backend": "gloo"}
    arguments = transformers.TrainingArguments(str(seen.folder / "trainer"), **{**settings, **options})
    model = transformers.GPT2LMHeadModel(config)
    made = transformers.Trainer(model=model, args=arguments, train_dataset=data)
    if everywhere or seen.rank == 0:
        own = made if of_trainer else None
        made.add_callback(
            crucible.CrucibleCallback(seen.folder / "run", rows=PICKED, trainer=own, say=seen.told.append)
        )
    made.add_callback(_look(seen))
    made.train()
    seen.losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry] or [0.0]


def _look(seen):
    from transformers import TrainerCallback

    def look(*_, model, **__):
        seen.look(model.get_input_embeddings())

    return type("Look", (TrainerCallback,), {"on_train_begin": look, "on_step_end": look})()


def trainer_accumulating(seen):
    """Two micro-batches make an update."""
    trainer(seen, gradient_accumulation_steps=2)


def trainer_smoothing(seen):
    """The Trainer computes the loss."""
    trainer(seen, of_trainer=True, label_smoothing_factor=0.1)


def trainer_of_trainer(seen):
    """Its own loss, where that is the model's."""
    trainer(seen, of_trainer=True)


def trainer_of_own_tokens(seen):
    """Each process divides by its own number of tokens."""
    trainer(seen, average_tokens_across_devices=False, gradient_accumulation_steps=2)


def trainer_in_bfloat16(seen):
    """Autocast to bfloat16."""
    trainer(seen, bf16=True)


def trainer_on_rank_0(seen):
    """Only one process has the callback, in the old style."""
    trainer(seen, everywhere=False)


def lightning(seen):
    """The Trainer of Lightning, data-parallel."""
    import lightning.pytorch as pl
    import torch

    import crucible

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = model_of()

        def training_step(self, batch, _):
            loss = torch.nn.functional.cross_entropy(self.inner(batch), batch)
            whole = loss.detach().clone()
            torch.distributed.all_reduce(whole)
            self.whole = whole / 2
            return loss

        def on_train_start(self):
            seen.look(self.inner[0])

        def on_train_batch_end(self, *_):
            seen.look(self.inner[0], self.whole)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    ids = torch.randint(0, VOCABULARY, (80,), generator=torch.Generator().manual_seed(0))
    callback = crucible.LightningCallback(seen.folder / "run", rows=PICKED, say=seen.told.append)
    made = pl.Trainer(
        callbacks=[callback], max_steps=4, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
        default_root_dir=seen.folder,
    )  # fmt: skip
    made.fit(Module(), torch.utils.data.DataLoader(ids, batch_size=8))


def main(folder, *names):
    """In each of the processes."""
    import torch

    warnings.simplefilter("error", UserWarning)
    warnings.filterwarnings("ignore", module="torch")
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=600))
    rank = torch.distributed.get_rank()
    for name in names:
        seen = Seen(Path(folder) / name, rank)
        globals()[name](seen)
        seen.keep()
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is kept; a thread of torch that outlives the interpreter aborts it, once in some ten starts
