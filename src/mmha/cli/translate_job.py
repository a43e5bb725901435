"""A run of `mmha train translate`: from pairs to the model as written, and its scores on the test pages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmha import metrics, subwords
from mmha.cli.train_translate import STEPS
from mmha.cli.training import bar, steps_in, steps_of
from mmha.data.parallel import Pair, Split
from mmha.models import seq2seq as models
from mmha.models.seq2seq.text import translate_texts
from mmha.train import settings, translation
from mmha.train.run import Run

FILE = "seq2seq.json"
ANY = 1 << 30  # tokens of a sentence: whatever the test pages hold is translated
LAST = 5  # rounds whose weights are averaged (Vaswani et al. 2017, section 6.1)

Coded = list[list[int]]


class Job:
    """One run. Args: options, those of the command by name; command, the line that repeats it."""

    def __init__(self, parts: Split, options: dict[str, Any], command: str) -> None:
        self.parts, self.options, self.command = parts, options, command
        self.out: Path = options["out"]

    def run(self) -> dict[str, Any] | None:
        """Train to the end and test the best weights, once; `seq2seq.json` holds the best ones from the first round.

        Returns: the result in the first process, None in others.
        """
        run = Run(self.new(), self.settings(self._steps()), self.out, self.about)
        if self.options["resume"]:
            run.resume()

        def evaluate(averaged: Any) -> float:
            found = self.score(averaged)
            if found > run.progress.best:
                self.save(averaged, self.result(run) | {"dev_nats_per_token": -found})
            return found

        with bar(run, "round", "validation nats per token", lambda nats, digits: f"{-nats:.{digits}f}") as show:
            run.fit(self.batches, translation.loss, counts=translation.counts, evaluate=evaluate, show=show)
        return None if run.rank else self.finish(run) | {"model": str(self.out / FILE)}

    def score(self, model: models.Seq2Seq) -> float:
        """Minus the mean loss of a token of the pages to choose on, in nats."""
        return translation.score(model, *self.dev, self.tokenizer.end)

    @cached_property
    def dev(self) -> tuple[Coded, Coded]:
        """The tokens of the pages to choose on."""
        return self.encoded(self.parts.dev)

    @cached_property
    def tokenizer(self) -> subwords.Tokenizer:
        """The subwords of both languages, found in the training pairs."""
        return subwords.train([text for pair in self.parts.train for text in pair[:2]], self.options["vocabulary"])

    def encoded(self, pairs: Sequence[Pair]) -> tuple[Coded, Coded]:
        """The tokens of the sources, and of the targets."""
        encode = self.tokenizer.encode
        return [encode(pair.source) for pair in pairs], [encode(pair.target) for pair in pairs]

    @cached_property
    def batches(self) -> translation.Batches:
        sources, targets = self.encoded(self.parts.train)
        return translation.Batches(sources, targets, self.tokenizer.end, self.options["tokens"], self.options["seed"])

    def new(self) -> models.Seq2Seq:
        """The untrained model."""
        config = models.BUILDERS[self.options["size"]](self.tokenizer.vocab_size)
        if self.options["dropout"] is not None:
            config = replace(config, dropout=self.options["dropout"])
        torch.manual_seed(self.options["seed"])
        return models.Seq2Seq(config)

    def settings(self, steps: int) -> settings.Settings:
        """How to train: as published, where warm-up and rate are not given."""
        names = ("rate", "warmup", "seed", "accumulate", "precision", "checkpoint_activations", "devices", "nodes",
                 "strategy")  # fmt: skip
        given = {name: self.options[name] for name in names}
        return settings.Settings(
            steps=steps, schedule="noam", betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, last=LAST, **given
        )

    @cached_property
    def about(self) -> dict[str, Any]:
        """What is trained, beside the settings: a stopped run goes on with the same or not at all."""
        names = ("reverse", "size", "dropout", "vocabulary", "tokens")
        data = ", ".join(map(str, self.options["files"] or ())) or self.options["data"]
        digest = hashlib.sha256(repr((self.parts.train, self.parts.dev)).encode()).hexdigest()[:16]
        return {"data": data, "digest": digest} | {name: self.options[name] for name in names}

    def _steps(self) -> int:
        """As given; of the run that is resumed; or as many as fit, by a few on a model that is thrown away."""
        steps, minutes = self.options["steps"], self.options["minutes"]
        if steps or (minutes is None and not self.options["resume"]):
            return int(steps or STEPS)
        if self.options["resume"]:
            return steps_of(self.out, "translate")

        def start(steps: int, folder: str) -> Run:
            return Run(self.new(), replace(self.settings(steps), rounds=1), folder)

        return steps_in(minutes, start, self.score, self.batches, translation.loss, counts=translation.counts)

    def result(self, run: Run) -> dict[str, Any]:
        """What is written beside the weights of the round that has just ended."""
        done = run.progress
        return {
            "command": f"{self.command} --steps {done.steps}",
            **self.about,
            **run.settings.identity(),
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "pairs": {name: len(getattr(self.parts, name)) for name in ("train", "dev", "test")},
            "repeated_pairs": self.parts.repeated,
            "step": done.step,
            "seconds": round(done.seconds),
        }

    def finish(self, run: Run) -> dict[str, Any]:
        """Translate the test pages, once, with the best weights as they were written."""
        result = self.result(run) | {"best_round": run.progress.best_epoch, "dev_nats_per_token": -run.progress.best}
        model, _ = models.load(self.out)
        if self.parts.test:
            result["test"] = self.scores(model)
        self.save(model, result)
        return result

    def scores(self, model: models.Seq2Seq) -> dict[str, tuple[float, str]]:
        """chrF and BLEU on the test pages, as `mmha translate` has it, and how sacrebleu names what it did."""
        sources = [pair.source for pair in self.parts.test]
        found = [one.text for one in translate_texts(model, self.tokenizer, sources, longest=ANY)]
        return metrics.translation(found, [pair.target for pair in self.parts.test])

    def save(self, model: models.Seq2Seq, result: dict[str, Any]) -> None:
        """Write the model, the same file each time."""
        models.save(model, self.tokenizer, self.out / FILE, result, "seq2seq.safetensors", bits=self.options["bits"])


def print_result(result: dict[str, Any]) -> None:
    """For people: what came out."""
    print(f"{result['model']}: {result['parameters']:,} parameters, {result['seconds']} s of training")
    train, dev, test = (result["pairs"][name] for name in ("train", "dev", "test"))
    print(f"pairs      {train:,} to train on, {dev:,} to choose on, {test:,} to report on, whole pages each;")
    print(f"           {result['repeated_pairs']:,} more were left out, nearly the same as some that are trained on")
    print(f"validation {result['dev_nats_per_token']:.3f} nats per token (round {result['best_round']})")
    for name, (score, signature) in result.get("test", {}).items():
        print(f"test       {name} {score:.1f}  {signature}")
