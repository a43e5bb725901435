"""Stage 1 in one piece: the series of voxels and a model → a trained model, and how well it finds hidden values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mmha import checks
from mmha.train.beginning import know_values
from mmha.train.run import Progress, Run, Settings
from mmha.train.series import Batch, Batches, Hiding, counts, sums
from mmha.train.series_scores import Scores, baselines, evaluate

CHUNK = 1 << 20  # values that become tokens at a time


@dataclass(frozen=True)
class Options:
    """How series are shown.

    Args: rows: sentences a step. whole: all runs of a voxel are one sentence; else each run is one. faithful: hidden as
        the released code does (`Hiding`). held: the share of voxels that is not trained on, but scored on. plain_start:
        begin with the weights that the model comes with; else with what `beginning.know_values` gives it.
    """

    rows: int = 64
    whole: bool = False
    faithful: bool = False
    held: float = 0.05
    plain_start: bool = False

    def __post_init__(self) -> None:
        checks.integer("rows", self.rows, minimum=1)
        checks.require(0 < checks.number("held", self.held) < 1, "held", "a share > 0 and < 1", self.held)


class Fitted(NamedTuple):
    """How the trained model, and what needs no model, find hidden values of voxels that were not trained on."""

    scores: Scores
    baselines: dict[str, Scores]
    progress: Progress


class Stage:
    """A run of stage 1 in a folder.

    Args:
        model: a MAMSM, trained in place; scale, of its tokens; values float32 (voxels, T), at least two voxels;
        lengths: of the runs, of sum T; settings, of the training; folder, of `state.json`; options;
        blocks: int (T,), the task's block of each volume, -1 = none: then whole blocks are hidden, not values anywhere.

    `run` is the `Run`, whose progress may be shown; `batches` are what it trains on.

    >>> import tempfile, torch
    >>> from mmha.models.mamsm import MAMSM, Scale, small
    >>> values = np.random.default_rng(1).normal(size=(23, 26)).astype(np.float32)
    >>> scale = Scale.of(values)
    >>> stage = Stage(MAMSM(small()), scale, values, [13, 13], Settings(steps=3, rate=1e-3), tempfile.mkdtemp())
    >>> found = stage.fit()
    >>> found.progress.step, found.scores.exact.total, sorted(found.baselines)
    (3, 4, ['commonest', 'last', 'neighbours'])
    """

    def __init__(
        self,
        model: Any,
        scale: Any,
        values: Any,
        lengths: Sequence[int],
        settings: Settings,
        folder: str | Path,
        options: Options | None = None,
        blocks: Any = None,
    ) -> None:
        self.model, self.scale, self.options = model, scale, options or Options()
        self.values = np.asarray(values, np.float32)
        shape = checks.shape_text(self.values.shape)
        checks.require(self.values.ndim == 2 and len(self.values) > 1, "values", "(voxels, T), voxels > 1", shape)
        total = self.values.shape[1]
        checks.require(sum(lengths) == total, "lengths", f"lengths of sum T = {total}", f"sum {sum(lengths)}")
        self.lengths = [total] if self.options.whole else [checks.integer("lengths", n, minimum=1) for n in lengths]
        longest = model.config.positions - 2
        wanted = f"at most {longest} volumes, what the model has positions for"
        checks.require(max(self.lengths) <= longest, "lengths", wanted, max(self.lengths))
        self.blocks = None if blocks is None else self._cut(np.asarray(blocks)[None])
        about = {
            "sizes": asdict(model.config),
            "scale": asdict(scale),
            **asdict(self.options),
            "blocks": blocks is not None,
            "data": self._digest(),
        }
        self.seed = settings.seed
        if not (self.options.plain_start or self.options.faithful):
            torch.manual_seed(self.seed)
            know_values(model, self.batches.parts, scale.first)
        self.run = Run(model, settings, folder, about)

    def fit(self, resume: bool = False, show: Callable[[Progress], None] = lambda progress: None) -> Fitted:
        """Train to the end, or to Ctrl-C or SIGTERM; then the model holds the weights that scored best.

        Args: resume, go on with the folder's state; show, called after every step.
        Raises: KeyboardInterrupt after the state is saved; as `Run.resume`.
        """
        if resume:
            self.run.resume()

        def score(model: Any) -> float:
            return -evaluate(model, self.scale, self.held).loss

        progress = self.run.fit(self.batches, sums, counts=counts, evaluate=score, show=show)
        mode = self.model.training
        self.model.eval()
        found = evaluate(self.model, self.scale, self.held)
        self.model.train(mode)
        return Fitted(found, baselines(self.scale, self.batches.parts, self.held), progress)

    @cached_property
    def batches(self) -> Batches:
        """What is trained on."""
        return self._batches(~self._is_held, Hiding(self.scale, self.options.faithful), self.seed)

    @cached_property
    def held(self) -> list[Batch]:
        """What is scored on: always the same places of the held voxels, all of them hidden, anywhere in time."""
        return self._batches(self._is_held, Hiding(self.scale, all_hidden=True), 0).once()

    @cached_property
    def _is_held(self) -> Any:
        count = len(self.values)
        held = np.zeros(count, bool)
        held[np.random.default_rng(self.seed).permutation(count)[: max(1, int(self.options.held * count))]] = True
        return held

    def _batches(self, voxels: Any, hiding: Hiding, seed: int) -> Batches:
        narrow = np.int16 if self.scale.vocabulary <= 1 << 15 else np.int32
        chosen = np.flatnonzero(voxels)
        parts = [np.empty((len(chosen), length + 2), narrow) for length in self.lengths]
        for part in parts:
            part[:, 0], part[:, -1] = self.scale.cls, self.scale.sep
        rows = max(1, CHUNK // self.values.shape[1])
        for at in range(0, len(chosen), rows):  # tokens are made in float64, a few voxels at a time
            tokens = self.scale.encode(self.values[chosen[at : at + rows]]).numpy()
            for part, run in zip(parts, self._cut(tokens), strict=True):
                part[at : at + rows, 1:-1] = run
        return Batches(parts, hiding, self.options.rows, seed, None if hiding.all_hidden else self._flat())

    def _digest(self) -> str:
        """Of the data: a run on other data is another run."""
        found = hashlib.sha256()
        for row in self.values:
            found.update(row.tobytes())
        return found.hexdigest()[:16]

    def _flat(self) -> list[Any] | None:
        return None if self.blocks is None else [part[0] for part in self.blocks]

    def _cut(self, rows: Any) -> list[Any]:
        """What stands over all volumes, run by run."""
        return np.split(rows, np.cumsum(self.lengths)[:-1], axis=1)
