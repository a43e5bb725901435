"""What the mask does for speech: MHANet without it, with windows of 64 and 256 frames and unbounded, beside a TCN.

    python benchmarks/speech_ablation.py [--steps 2000] [--seconds 8] [--count 24] [--json FILE]

Each is trained alike: the same mixtures in the same order, for as many steps. Rows of 8 s are 501 frames, so that the
windows differ. Judged are the validation loss and, on whole recordings of the voices and noises that training chose on,
the measures; the network without a mask hears the future, so it is no stream and what it gains is the price of being
one. The TCN is causal and of equal size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import speech
import torch
from speech_section import ablation_table
from speech_tcn import TCN
from torch import nn

from mmha import checkpoint
from mmha.cli import speech_job
from mmha.data import registry
from mmha.data import speech as recordings
from mmha.metrics.speech import measures
from mmha.models import mhanet
from mmha.models.mhanet import frames
from mmha.train.run import Run
from mmha.train.speech import counts

VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "no mask, hears the future": lambda: mhanet.MHANet(replace(mhanet.small(None), causal=False)),
    "window 64 (1.0 s)": lambda: mhanet.MHANet(mhanet.small(64)),
    "window 256 (4.1 s)": lambda: mhanet.MHANet(mhanet.small(256)),
    "causal, unbounded": lambda: mhanet.MHANet(mhanet.small(None)),
    "causal TCN": lambda: TCN(mhanet.small().parameters),
}


def train(job: speech_job.Job, make: Callable[[], nn.Module], steps: int) -> tuple[nn.Module, float]:
    """The variant after so many steps on the job's mixtures, and its validation loss in nats per bin."""
    torch.manual_seed(job.options["seed"])
    model: Any = make()
    model.mean.copy_(job.statistics.mean)
    model.deviation.copy_(job.statistics.deviation)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(model, replace(job.settings(steps), rounds=1), folder)
        run.fit(
            job.batches, speech_job.loss, counts=counts, evaluate=lambda averaged: speech_job.score(averaged, job.dev)
        )
    return model.eval(), -run.progress.best


@torch.inference_mode()
def enhance(model: Any, sound: np.ndarray) -> np.ndarray:
    """The whole sound at once, as `Enhancer` enhances it piece by piece."""
    seen = frames.spectra(torch.from_numpy(sound))
    ratio = model.statistics.ratio(model(seen.abs()[None]).sigmoid()[0])
    factor = torch.from_numpy(mhanet.gain("mmse-lsa", ratio.numpy()).astype(np.float32))
    return frames.sound(seen * factor, len(sound)).numpy()


def judge(model: nn.Module, mixed: list[speech.Mixture]) -> dict[str, float]:
    """The mean of each measure over the mixtures."""
    found = [measures(mixture.clean, enhance(model, mixture.noisy)) for mixture in mixed]
    return {name: float(np.mean([row[name] for row in found])) for name in found[0]}


def main() -> None:
    """Train and judge each, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a row")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--count", type=int, default=24, help="stretches of speech that are judged")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = {"seed": 1, "batch": given.batch, "seconds": given.seconds, "out": Path(), "rate": 1e-3, "warmup": 400,
               "schedule": "linear", "accumulate": 1, "precision": "bf16-mixed", "checkpoint_activations": False,
               "devices": 1, "nodes": 1, "strategy": "auto"}  # fmt: skip
    job = speech_job.Job(speech_job.load(None, None, None), options, "")
    folders = {name: registry.path(name) for name in (*recordings.VOICES, recordings.TEST_VOICE, *recordings.NOISES)}
    mixed = list(speech.mixtures(recordings.voices(folders).dev, recordings.noises(folders).dev, given.count))
    rows = []
    for name, make in VARIANTS.items():
        model, loss = train(job, make, given.steps)
        weights = sum(parameter.numel() for parameter in model.parameters())
        rows.append({"name": name, "weights": weights, "loss": loss} | judge(model, mixed))
        print(ablation_table(rows[-1:]).splitlines()[-1], flush=True)
    print(ablation_table(rows))
    if given.json:
        run = {"steps": given.steps, "seconds": given.seconds, "batch": given.batch, "count": given.count}
        run |= {"measured": datetime.now(timezone.utc).isoformat(timespec="seconds"), "rows": rows}
        checkpoint.write(given.json, (json.dumps(run, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
