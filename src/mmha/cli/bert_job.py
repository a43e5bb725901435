"""A run of `mmha train bert`: from documents to the model as written, its scores, and what they are put beside."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmha.cli.train_bert import STEPS, Documents, Parts
from mmha.cli.training import bar, steps_in, steps_of
from mmha.models import bert
from mmha.models.bert import tokenizer as wordpiece
from mmha.train import beginning, pretraining, settings
from mmha.train.masking import Masking
from mmha.train.neighbours import Neighbours
from mmha.train.pairs import Pairs
from mmha.train.run import Run

FILE = "bert.json"
LOOKED_AT = 32  # pairs that are scored at a time

Encoded = list[list[list[int]]]


class Job:
    """One run. Args: options, those of the command by name; command, the line that repeats it."""

    def __init__(self, parts: Parts, options: dict[str, Any], command: str) -> None:
        self.parts, self.options, self.command = parts, options, command
        self.out: Path = options["out"]

    def run(self) -> dict[str, Any] | None:
        """Train to the end and test the best round, once; `bert.json` holds the best one from the first on.

        Returns: the result in the first process, None in others.
        """
        batches = self.batches
        run = Run(self.new(), self.settings(self._steps()), self.out, self.about)
        if self.options["resume"]:
            run.resume()

        def evaluate(model: Any) -> float:
            scores = pretraining.evaluate(model, self.held(self.parts.dev))
            if scores.words.value > run.progress.best:
                bert.save(model, self.tokenizer, self.out / FILE, self.result(run) | _scores("dev", scores))
            return scores.words.value

        with bar(run, "round", "masked words", lambda score, digits: f"{score:.{digits}%}") as show:
            run.fit(batches, pretraining.sums, counts=pretraining.counts, evaluate=evaluate, show=show)
        return None if run.rank else self.finish(run) | {"model": str(self.out / FILE)}

    @cached_property
    def tokenizer(self) -> bert.Tokenizer:
        """The word pieces of the training documents."""
        sentences = [sentence for document in self.parts.train for sentence in document]
        return wordpiece.train(sentences, self.options["vocabulary"])

    @cached_property
    def batches(self) -> pretraining.Batches:
        options, pieces = self.options, self.tokenizer.pieces
        continues = frozenset(n for n, piece in enumerate(pieces) if piece.startswith("##"))
        masking = self._masking(continues=continues if options["whole_word"] else None)
        pairs = Pairs(self.encoded(self.parts.train), options["length"])
        return pretraining.Batches(
            pairs, self._frame, masking, options["rows"], options["seed"], static=options["static_masking"]
        )

    def held(self, documents: Documents) -> list[pretraining.Batch]:
        """Documents to score on: always the same pairs and places, and all that is asked for is hidden."""
        masking = self._masking(hidden=1.0, random=0.0)
        pairs = Pairs(self.encoded(documents), self.options["length"])
        return pretraining.Batches(pairs, self._frame, masking, LOOKED_AT, seed=0).once()

    def encoded(self, documents: Documents) -> Encoded:
        """The tokens of each sentence; a sentence of white space alone has none and is left out."""
        coded = (self.tokenizer.encode_all(document) for document in documents)
        kept = ([sentence for sentence in document if sentence] for document in coded)
        return [document for document in kept if document]

    @property
    def _frame(self) -> pretraining.Frame:
        return pretraining.Frame(self.tokenizer.cls, self.tokenizer.sep)

    def _masking(self, **more: Any) -> Masking:
        coder = self.tokenizer
        markers = (coder.pad, coder.unknown, coder.cls, coder.sep, coder.mask)
        most = math.ceil(0.15 * self.options["length"])  # 20 of 128, as published
        return Masking(coder.mask, markers, coder.vocabulary, most=most, **more)

    def new(self) -> bert.Bert:
        """The untrained model."""
        config = bert.BUILDERS[self.options["size"]](self.tokenizer.vocabulary)
        torch.manual_seed(self.options["seed"])
        model = bert.Bert(dataclasses.replace(config, positions=self.options["length"]))
        if not self.options["plain_start"]:
            beginning.share_words(model, self.batches.pairs.documents)
            beginning.look_beside(model)
        return model

    def settings(self, steps: int) -> settings.Settings:
        """How to train: as published, where the rate is not given."""
        names = ("rate", "seed", "accumulate", "precision", "checkpoint_activations", "devices", "nodes", "strategy")
        given = {name: self.options[name] for name in names}
        return settings.Settings(steps=steps, warmup=max(1, steps // 10), **given)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What is trained, beside the settings: a stopped run goes on with the same or not at all."""
        files: Sequence[Path] = self.options["files"] or ()
        names = ("size", "vocabulary", "length", "rows", "whole_word", "static_masking", "plain_start")
        data = ", ".join(map(str, files)) or self.options["data"]
        return {"data": data, "digest": digest(self.parts)} | {name: self.options[name] for name in names}

    def _steps(self) -> int:
        """As given; of the run that is resumed; or as many as fit, by a few on a model that is thrown away."""
        steps, minutes = self.options["steps"], self.options["minutes"]
        if steps or (minutes is None and not self.options["resume"]):
            return int(steps or STEPS)
        if self.options["resume"]:
            return steps_of(self.out, "bert")

        def start(steps: int, folder: str) -> Run:
            return Run(self.new(), dataclasses.replace(self.settings(steps), rounds=1), folder)

        def evaluate(model: Any) -> object:
            return pretraining.evaluate(model, self.held(self.parts.dev))

        return steps_in(minutes, start, evaluate, self.batches, pretraining.sums, counts=pretraining.counts)

    def result(self, run: Run) -> dict[str, Any]:
        """What is written beside the weights of the round that has just ended."""
        done = run.progress
        return {
            "command": f"{self.command} --steps {done.steps}",
            **self.about,
            **run.settings.identity(),
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "train_documents": len(self.parts.train),
            "train_tokens": sum(len(s) for document in self.batches.pairs.documents for s in document),
            "step": done.step,
            "seconds": round(done.seconds),
        }

    def finish(self, run: Run) -> dict[str, Any]:
        """Score what is shipped, the best weights as written, and counting on the same masks."""
        model, _ = bert.load(self.out)
        result = self.result(run) | {"best_round": run.progress.best_epoch}
        documents, coder = self.batches.pairs.documents, self.tokenizer
        counted = Neighbours(documents, coder.vocabulary, coder.cls, coder.sep)
        for name, held in (("dev", self.held(self.parts.dev)), ("test", self.held(self.parts.test))):
            result |= _scores(name, pretraining.evaluate(model, held))
            frequent, neighbours = counted.evaluate(held)
            follow = sum(int((batch.next == 0).sum()) for batch in held)
            pairs = sum(len(batch.next) for batch in held)
            result |= {
                f"{name}_words_most_frequent": frequent.value,
                f"{name}_words_neighbours": neighbours.value,
                f"{name}_next_majority": max(follow, pairs - follow) / pairs,
            }
        bert.save(model, self.tokenizer, self.out / FILE, result, "bert.safetensors")
        return result


def _scores(name: str, scores: pretraining.Scores) -> dict[str, Any]:
    return {
        f"{name}_masked": scores.words.total,
        f"{name}_words": scores.words.value,
        f"{name}_pairs": scores.next.total,
        f"{name}_next": scores.next.value,
        f"{name}_loss": scores.loss,
    }


def digest(parts: Parts) -> str:
    """Of what is trained and chosen on."""
    return hashlib.sha256(repr((parts.train, parts.dev)).encode()).hexdigest()[:16]


def print_result(result: dict[str, Any]) -> None:
    """For people: what was found, beside what counting finds."""
    print(f"{result['model']}: {result['parameters']:,} parameters, {result['seconds']} s of training")
    for name, title in (("dev", f"validation (best round: {result['best_round']})"), ("test", "test")):
        words, following = f"{name}_words", f"{name}_next"
        print(
            f"{title}: {result[words]:.2%} of {result[f'{name}_masked']:,} masked words"
            f" (the most frequent one {result[f'{words}_most_frequent']:.2%},"
            f" from both neighbours {result[f'{words}_neighbours']:.2%});"
            f" {result[following]:.2%} of {result[f'{name}_pairs']:,} next sentences"
            f" (always the same answer {result[f'{following}_majority']:.2%})"
        )
