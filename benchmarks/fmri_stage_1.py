"""Stage 1 of MAMSM on Haxby's slice: hidden values found in voxels not trained on, beside what needs no model.

    python benchmarks/fmri_stage_1.py
    python benchmarks/fmri_stage_1.py --faithful
    python benchmarks/fmri_stage_1.py --all --json benchmarks/results/fmri_stage_1.json

One line of JSON a run goes to --json, if given; with --all one document of the whole table, in about 7 minutes of one
core. Seconds are of the processor, all threads together: a busy machine does not change them much.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fmri_journal import Journal

from mmha import checkpoint
from mmha.data import bold
from mmha.metrics import Accuracy
from mmha.models import mamsm
from mmha.train.series import REST, Batch, Batches, Hiding
from mmha.train.series_fit import Options, Stage
from mmha.train.series_scores import NEAR, Scores
from mmha.train.settings import Settings

VARIANTS: dict[str, dict[str, Any]] = {  # what differs from the defaults below
    "small": {},
    "longer": {"steps": 4500},
    "plain start": {"plain_start": True},
    "no windows": {"window": 0},
    "faithful": {"faithful": True},
    "blocks": {"blocks": True},
    "whole": {"whole": True, "rows": 1},
}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Train once and score."""
    found, _, labels = bold.haxby()
    scale = mamsm.Scale.of(found.values)
    longest = found.values.shape[1] if given.whole else max(found.lengths)
    torch.manual_seed(given.seed)
    sizes = mamsm.BUILDERS[given.size](
        scale.vocabulary, positions=longest + 2, window=given.window or None, faithful=given.faithful
    )
    model = mamsm.MAMSM(sizes)
    settings = Settings(
        given.steps, given.rate, given.seed, warmup=given.steps // 20, rounds=4, precision=given.precision
    )
    options = Options(given.rows, given.whole, given.faithful, plain_start=given.plain_start)
    # Each block of pictures has its number: runs begin and end with rest, so no two of them touch.
    number = np.cumsum(np.r_[True, labels[1:] != labels[:-1]])
    blocks = np.where(labels == "rest", REST, number) if given.blocks else None
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(model, scale, found.values, found.lengths, settings, folder, options, blocks)
        begun = time.process_time()
        fitted = stage.fit()
        seconds = time.process_time() - begun
    scores = {"model": fitted.scores, **fitted.baselines, "regression": regression(stage)}
    epochs = given.steps * given.rows / stage.batches.size
    return {
        **{name: value for name, value in vars(given).items() if name not in ("json", "all", "work")},
        "parameters": sizes.parameters,
        "processor_seconds": round(seconds),
        "epochs": round(epochs, 2),
        "history": fitted.progress.history,
        "scores": {name: {k: v for k, v in asdict(s).items() if v == v} for name, s in scores.items()},  # no NaN
    }


def regression(stage: Stage, sides: int = 2) -> Scores:
    """Least squares on the nearest values that are seen, two on either side: what a linear model finds.

    Fitted on the sentences trained on, at places hidden as those that are scored; the mean stands for what is missing.
    """
    scale = stage.scale
    hidden = Batches(stage.batches.parts, Hiding(scale, all_hidden=True), 64, 1).once()
    mean = np.concatenate([part[:, 1:-1].ravel() for part in stage.batches.parts]).mean()

    def rows(batches: Sequence[Batch]) -> tuple[Any, Any]:
        found, labels = [], []
        for batch in batches:
            starts = np.cumsum([0, *batch.lengths])
            tokens = batch.tokens.numpy()
            for place in batch.places.tolist():
                row = int(np.searchsorted(starts, place, "right"))
                seen = [tokens[starts[row - 1] : place][::-1], tokens[place + 1 : starts[row]]]
                near = [side[side > scale.mask][:sides] for side in seen]
                found.append(np.concatenate([np.r_[n, np.full(sides - len(n), mean)] for n in near]))
            labels.append(batch.labels.numpy())
        return np.c_[np.array(found), np.ones(len(found))], np.concatenate(labels)

    x, y = rows(hidden[::10])
    held, labels = rows(stage.held)
    guess = held @ np.linalg.lstsq(x, y, rcond=None)[0]
    exact, near = (int((abs(guess.round() - labels) <= k).sum()) for k in (0, NEAR))
    unit = (scale.high - scale.low) / scale.steps
    rms = unit * float(np.sqrt(np.square(guess - labels).mean()))
    return Scores(Accuracy(exact, len(labels)), Accuracy(near, len(labels)), rms)


def every(given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All of `VARIANTS`, each beside what needs no model; those that a stopped run has measured are kept."""
    work.mkdir(parents=True, exist_ok=True)
    plain = {**vars(given), "json": None, "work": None, "all": False}
    journal = Journal(work / "stage_1.jsonl", plain)
    return {
        name: journal(name, lambda other=other: measure(argparse.Namespace(**plain | other)))
        for name, other in VARIANTS.items()
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", choices=sorted(mamsm.BUILDERS), default="small")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--window", type=int, default=8, help="0 = the whole series")
    parser.add_argument("--precision", default="bf16-mixed")
    for name in ("--whole", "--faithful", "--plain-start", "--blocks"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--all", action="store_true", help="every variant of the table in docs/fmri.md")
    parser.add_argument("--work", type=Path, default=Path("build/bench-fmri"), help="with --all: what is found so far")
    return parser.parse_args()


def main() -> None:
    given = parsed()
    torch.set_num_threads(given.threads)
    if given.all:
        found = every(given, given.work)
        if given.json:
            checkpoint.write(given.json, (json.dumps(found, indent=1) + "\n").encode())
        return
    result = measure(given)
    if given.json:
        with given.json.open("a", encoding="utf-8") as out:
            out.write(json.dumps(result) + "\n")
    print(f"{result['epochs']} epochs, {result['processor_seconds']} s of the processor")
    for name, score in result["scores"].items():
        exact, near = (score[kind]["correct"] / max(1, score[kind]["total"]) for kind in ("exact", "near"))
        nats = f"  loss {score['loss']:.4f}" if "loss" in score else ""
        print(f"{name:>10}  exact {exact:7.2%}  near {near:7.2%}  rms {score['rms']:.4f}{nats}")


if __name__ == "__main__":
    main()
