"""A run of `mmha train speech`: from recordings to the model as written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmha.cli.train_speech import STEPS
from mmha.cli.training import bar, fetch, steps_in, steps_of
from mmha.data import speech as recordings
from mmha.models import mhanet
from mmha.models.mhanet import frames
from mmha.train import settings, speech
from mmha.train.run import Run

FILE = "mhanet.json"
STATISTICS = 1000  # mixtures that mean and deviation of the a-priori SNR are taken over
DEV = 160  # mixtures that are scored on
AVERAGE = 0.998  # decay of the mean of the weights, a step


class Data(NamedTuple):
    """What is mixed: recordings to train on and to choose on, and impulse responses."""

    speech: list[recordings.Samples]
    noise: list[recordings.Samples]
    dev_speech: list[recordings.Samples]
    dev_noise: list[recordings.Samples]
    rooms: list[recordings.Samples]

    def hours(self) -> dict[str, float]:
        """How long each is, in hours."""
        return {name: round(sum(map(len, part)) / 3600 / frames.RATE, 4) for name, part in self._asdict().items()}


def load(speech: Sequence[Path] | None, noise: Sequence[Path] | None, rooms: Sequence[Path] | None) -> Data:
    """The recordings of these folders, or of what is fetched in their place.

    Raises: ValueError or OSError naming the folder or the file.
    """
    voices = (
        recordings.own(speech) if speech else recordings.voices(_fetched(*recordings.VOICES, recordings.TEST_VOICE))
    )
    noises = recordings.own(noise) if noise else recordings.noises(_fetched(*recordings.NOISES))
    responses = list(rooms or ())
    if not rooms and not speech:
        responses = [fetch("ambience") / "impulse_responses"]
    halls = [path for folder in responses for path in recordings.files(folder)]
    return Data(*map(recordings.load, (voices.train, noises.train, voices.dev, noises.dev, halls)))


def _fetched(*names: str) -> dict[str, Path]:
    return {name: fetch(name) for name in names}


def mixed(speech: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """|X| and ξ of the frames of speech + noise, float32 (B, N) each → (B, T, 257)."""
    clean, disturbance = frames.spectra(speech), frames.spectra(noise)
    return (clean + disturbance).abs(), mhanet.a_priori(clean, disturbance)


def loss(model: Any, batch: speech.Batch) -> Tensor:
    """The sum of the binary cross-entropy over the bins of real frames, in nats."""
    target = model.statistics.map(batch.ratio)
    return mhanet.loss(model(batch.magnitudes), target, batch.lengths, reduction="sum")


class Job:
    """One run. Args: options, those of the command by name; command, the line that repeats it."""

    def __init__(self, data: Data, options: dict[str, Any], command: str) -> None:
        self.data, self.options, self.command = data, options, command
        self.out: Path = options["out"]
        shared = (options["seconds"], options["seed"])
        mixer = speech.Mixer(data.speech, data.noise, data.rooms, *shared)
        self.batches = speech.Batches(mixer, options["batch"], mixed)
        dev = speech.Mixer(data.dev_speech, data.dev_noise, data.rooms, *shared)
        self.dev = list(speech.Batches(dev, options["batch"], mixed).fixed(speech.DEV, DEV))

    def run(self) -> dict[str, Any] | None:
        """Train to the end; `mhanet.json` holds the best weights from the first round on.

        Returns: the result in the first process, None in others.
        """
        run = Run(self.new(), self.settings(self._steps()), self.out, self.about)
        if self.options["resume"]:
            run.resume()

        def evaluate(averaged: Any) -> float:
            found = score(averaged, self.dev)
            if found > run.progress.best:
                self.save(averaged, self.result(run) | {"dev_nats_per_bin": -found})
            return found

        with bar(run, "round", "validation nats per bin", lambda nats, digits: f"{-nats:.{digits + 2}f}") as show:
            run.fit(self.batches, loss, counts=speech.counts, evaluate=evaluate, show=show)
        return None if run.rank else self.finish(run) | {"model": str(self.out / FILE)}

    def new(self) -> mhanet.MHANet:
        """The untrained model, with the statistics of its mixtures."""
        torch.manual_seed(self.options["seed"])
        model = mhanet.MHANet(mhanet.BUILDERS[self.options["model"]](self.options["window"] or None))
        model.mean.copy_(self.statistics.mean)
        model.deviation.copy_(self.statistics.deviation)
        return model

    @cached_property
    def statistics(self) -> mhanet.Statistics:
        """Mean and deviation of the a-priori SNR in dB, by bin."""
        moments = mhanet.Moments(frames.BINS)
        for batch in self.batches.fixed(speech.STATISTICS, STATISTICS):
            moments.add(batch.ratio.flatten(0, 1))
        return moments.statistics()

    def settings(self, steps: int) -> settings.Settings:
        """How to train: as published, where warm-up, rate and schedule are not given."""
        names = ("rate", "warmup", "schedule", "seed", "accumulate", "precision", "checkpoint_activations", "devices",
                 "nodes", "strategy")  # fmt: skip
        given = {name: self.options[name] for name in names}
        return settings.Settings(
            steps=steps, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, clip=None, clip_value=1.0,
            average=AVERAGE, **given,
        )  # fmt: skip

    @cached_property
    def about(self) -> dict[str, Any]:
        """What is trained, beside the settings: a stopped run goes on with the same or not at all."""
        options = self.options
        names = {
            "speech": options["speech"] or recordings.VOICES,
            "noise": options["noise"] or recordings.NOISES,
        }
        data = {name: ", ".join(map(str, folders)) for name, folders in names.items()}
        digest = recordings.digest(self.data)
        return data | {"digest": digest} | {name: options[name] for name in ("model", "window", "batch", "seconds")}

    def _steps(self) -> int:
        """As given; of the run that is resumed; or as many as fit, by a few on a model that is thrown away."""
        steps, minutes = self.options["steps"], self.options["minutes"]
        if steps or (minutes is None and not self.options["resume"]):
            return int(steps or STEPS)
        if self.options["resume"]:
            return steps_of(self.out, "speech")

        def start(steps: int, folder: str) -> Run:
            return Run(self.new(), replace(self.settings(steps), rounds=1), folder)

        def evaluate(model: Any) -> float:
            return score(model, self.dev)

        return steps_in(minutes, start, evaluate, self.batches, loss, counts=speech.counts)

    def result(self, run: Run) -> dict[str, Any]:
        """What is written beside the weights of the round that has just ended."""
        done = run.progress
        return {
            "command": f"{self.command} --steps {done.steps}",
            **self.about,
            **run.settings.identity(),
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "hours": self.data.hours(),
            "step": done.step,
            "seconds_trained": round(done.seconds),
        }

    def finish(self, run: Run) -> dict[str, Any]:
        """Write the best weights with what the whole run came to."""
        best = {"best_round": run.progress.best_epoch, "dev_nats_per_bin": -run.progress.best}
        curve = [{key: at[key] for key in ("epoch", "loss", "score")} for at in run.progress.history]
        result = self.result(run) | best | {"curve": curve}
        self.save(run.model, result)
        return result

    def save(self, model: Any, result: dict[str, Any]) -> None:
        """Write the model, the same file each time."""
        mhanet.save(model, self.out / FILE, result, "mhanet.safetensors")


def score(model: Any, batches: Sequence[speech.Batch]) -> float:
    """Minus the mean binary cross-entropy of a bin, in nats: higher is better."""
    total = sum(float(loss(model, batch)) for batch in batches)
    return -total / sum(sum(speech.counts(batch)) for batch in batches)


def print_result(result: dict[str, Any]) -> None:
    """For people: what came out."""
    print(f"{result['model']}: {result['parameters']:,} parameters, {result['seconds_trained']} s of training")
    print(f"validation {result['dev_nats_per_bin']:.4f} nats per bin (round {result['best_round']})")
