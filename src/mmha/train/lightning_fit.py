"""What Lightning does for `mmha.train.run`: the loop, precision, accumulation, the strategy that joins processes."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from mmha import checks
from mmha.train import processes, weights
from mmha.train.interrupt import Interrupt
from mmha.train.run import OPTIMIZER, Batches, Counts, Loss, Run
from mmha.train.settings import rate_at


@dataclass(frozen=True)
class Part:
    """What this process computes at a time. `counts` are those of all its parts of the step."""

    step: int
    number: int
    batch: Any
    counts: list[float]
    first: bool
    last: bool


class Parts:
    """This process' parts of all steps that are left, in order."""

    def __init__(self, run: Run, batches: Batches, counts: Counts | None) -> None:
        self.run, self.batches = run, batches
        self.counts: Counts = counts or (lambda batch: [1.0])

    def __iter__(self) -> Iterator[Part]:
        turns, world, rank = self.run.settings.accumulate, processes.world(), processes.rank()
        for step in range(self.run.progress.step, self.run.settings.steps):
            numbers = range(rank, turns * world, world)
            batches = [self.batches(step, number, turns * world) for number in numbers]
            counts = [sum(column) for column in zip(*map(self.counts, batches), strict=True)]
            for turn, (number, batch) in enumerate(zip(numbers, batches, strict=True)):
                yield Part(step, number, batch, counts, turn == 0, turn == turns - 1)


class Call(nn.Module):
    """A model as a module that runs a function on it: strategies put their hooks around `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        return function(self.model, *arguments)


class Training(pl.LightningModule):
    """One run as Lightning sees it."""

    def __init__(self, run: Run, loss: Loss, show: Callable[[Any], None]) -> None:
        super().__init__()
        self.run, self.loss, self.show = run, loss, show
        self.call: Any = None
        self.ends = set(run.settings.ends())
        self.value = 0.0
        self.totals = torch.ones(1)
        self.stop = Interrupt()
        self.undo = contextlib.ExitStack()

    def configure_model(self) -> None:
        """Begin with what the first process has; then each process keeps all of it, or its share."""
        if self.call is not None:
            return
        run, model = self.run, self.run.model
        at = torch.tensor([run.progress.step, run.progress.epoch])
        for tensor in (at, *weights.named(model).values()):
            processes.spread(tensor, tensor)
        run.progress.step, run.progress.epoch = at.tolist()
        sharded = isinstance(self.trainer.strategy, ModelParallelStrategy)
        if sharded and run.rank == 0:
            model = copy.deepcopy(model)  # the whole one scores
        if run.settings.checkpoint_activations:
            self.undo.enter_context(recomputed(weights.blocks(model)))
        self.call = Call(model)
        if sharded:
            mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
            for module in (*weights.blocks(model), self.call):
                fully_shard(module, mesh=mesh)

    def on_fit_start(self) -> None:
        run = self.run
        self.weights = weights.named(self.call.model)
        self.means = weights.Means(self.weights, run.settings.average, run.settings.last)
        if run.progress.step:
            self._take_over()
        run.stored = {}

    def _take_over(self) -> None:
        """Fill optimizer and means from the stored state."""
        self.means.expect(self.run.progress.epoch)
        wanted = self.means.tensors()
        for name, parameter in self.call.model.named_parameters():
            state = {k: torch.zeros(()) if k == "step" else torch.zeros_like(parameter) for k in OPTIMIZER}
            self.optimizer.state[parameter] = state
            wanted |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
        for name, tensor in wanted.items():
            processes.spread(self.run.stored.get(name), tensor)

    def on_train_start(self) -> None:
        # Lightning's own handler of SIGTERM, installed by now, would talk to other processes in the middle of a step.
        self.stop.take()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        settings = self.run.settings
        decayed = [p for p in self.call.parameters() if p.ndim > 1]
        plain = [p for p in self.call.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=settings.rate,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        return self.optimizer

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # it is in memory already, and of any type

    def training_step(self, part: Part, index: int) -> Tensor:
        settings = self.run.settings
        if part.first:
            self.value = 0.0
            self.totals = torch.tensor([count or 1.0 for count in processes.total(part.counts)])
            for group in self.optimizer.param_groups:
                group["lr"] = rate_at(part.step, settings)
        torch.manual_seed(((settings.seed * 1_000_003 + part.step) * 65_537 + part.number) % 2**63)
        sums = self.call(self.loss, part.batch).reshape(-1)
        sums = sums.to(torch.promote_types(sums.dtype, torch.float32))  # of bfloat16 the mean would keep 8 bits
        checks.require(len(sums) == len(self.totals), "loss", f"{len(self.totals)} sums, as counts", len(sums))
        value: Tensor = (sums / self.totals).sum()
        self.value += value.item()
        # Lightning is going to divide by the turns of accumulation and the strategy by the processes.
        return value * (settings.accumulate * processes.world())

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        settings = self.run.settings
        if settings.clip_value is not None:
            nn.utils.clip_grad_value_(self.call.parameters(), settings.clip_value)
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(self.call.parameters(), settings.clip)

    def on_train_batch_end(self, outputs: Any, part: Part, index: int) -> None:
        if not part.last:
            return
        run = self.run
        due = run.rank == 0 and run.due()
        value, asked, late = processes.total([self.value, float(self.stop.asked), float(due)])
        run.finish_step(value)
        self.means.update(run.progress.step)
        ended = run.progress.step in self.ends
        if ended:
            self.means.end_round()
            run.finish_round({name: processes.whole(tensor) for name, tensor in self.means.now().items()})
        if asked or late or ended:
            run.save(self.weights, self.optimizer, self.means)
        if run.rank == 0:
            self.show(run.progress)
        if asked and run.progress.step < run.settings.steps:
            raise Stopped


class Stopped(Exception):
    """The user asked for it, all processes know, and the state is saved."""


def fit(run: Run, batches: Batches, loss: Loss, counts: Counts | None, show: Callable[[Any], None]) -> None:
    """Train what is left of the run; see `Run.fit`."""
    module = Training(run, loss, show)
    try:
        with quiet(), module.undo, module.stop:
            trainer(run).fit(module, Parts(run, batches, counts))
    except (Stopped, SystemExit):  # the latter is Lightning's answer to a second Ctrl-C
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if not processes.lost(error):
            raise
        last = f"--resume goes on from the last state in {run.folder}"
        raise ConnectionError(f"another process of this run is gone, so process {run.rank} stops; {last}") from None
    finally:
        processes.over.set()


def strategy(run: Run) -> str | Strategy:
    """How the processes share the work.

    Lightning's "fsdp" stands on the first FSDP of torch and is refused without a GPU. The second one (`fully_shard`)
    works on gloo too; in Lightning it goes by ModelParallelStrategy, here with one share a process and no tensor
    parallelism.
    """
    if processes.world() == 1:
        return "auto"
    # Without this variable Lightning takes all cores, whatever the caller chose.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    if run.settings.strategy == "fsdp":
        return ModelParallelStrategy(processes.world(), 1, False, process_group_backend="gloo")
    return DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True)


def trainer(run: Run) -> pl.Trainer:
    """Lightning's trainer without its own files, bars and tables."""
    settings = run.settings
    options: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler"),
        False,
    )
    return pl.Trainer(
        accelerator="cpu",
        devices=processes.local(),
        num_nodes=processes.world() // processes.local(),
        strategy=strategy(run),
        plugins=[TorchElasticEnvironment()] if processes.world() > 1 else None,
        precision=settings.precision,  # type: ignore[arg-type]
        accumulate_grad_batches=settings.accumulate,
        max_epochs=1,
        num_sanity_val_steps=0,
        **options,
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it Lightning says nothing about devices that are not used, loggers that are not wanted, and the like."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def recomputed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Within it the layers keep their inputs only and are computed again in backward, with the same dropout."""
    changed = list(layers)
    for layer in changed:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward
