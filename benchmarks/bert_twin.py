"""BERT trained twice, same weights, same batches: as mmha's model and as transformers' BertForPreTraining.

    python benchmarks/bert_twin.py [--steps N] [--rows N] [--threads N] [--json FILE] [--plot FILE]

The recipe is that of `mmha train bert` (masked words and next sentences of the Brown corpus, AdamW, warm-up, clipping),
the model its smallest. Both take every step in turns, so that their times can be compared. Without dropout the losses
differ by rounding alone, which steps then magnify. With dropout the two draw different numbers, as two seeds of one
model do; runs with several seeds say how far apart these are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from bert_sides import from_transformers, padded, transformers_bert
from torch import Tensor, nn

from mmha import checkpoint
from mmha.bench.machine import machine
from mmha.bench.measure import thread_count
from mmha.bench.record import rounded
from mmha.data import brown, documents, registry
from mmha.models.bert import Bert, Config, nano
from mmha.models.bert.tokenizer import Tokenizer, train
from mmha.train import beginning, pretraining
from mmha.train.masking import Masking
from mmha.train.pairs import Pairs
from mmha.train.pretraining import Batch, Batches, Frame
from mmha.train.settings import Settings, rate_at

LENGTH, WORDS, LAST = 128, 4500, 50  # tokens of a pair; word pieces; steps whose mean is the loss at the end
DROPOUTS = {0.0: (1,), 0.1: (1, 2, 3)}  # and the seeds of each


class Learner:
    """A model in training: loss(batch) is the mean over masked words plus the mean over pairs."""

    def __init__(self, model: nn.Module, loss: Callable[[Batch], Tensor], settings: Settings) -> None:
        self.model, self.loss, self.settings = model.train(), loss, settings
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            settings.rate, settings.betas, settings.eps, settings.weight_decay, fused=True,
        )  # fmt: skip
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self, batch: Batch) -> None:
        """Take the next step on this batch; note its loss and its time."""
        start, number = time.perf_counter(), len(self.losses)
        torch.manual_seed(self.settings.seed * 1_000_003 + number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(number, self.settings)
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - start)


def twins(model: Bert, settings: Settings) -> dict[str, Learner]:
    """Both from the weights of this model."""
    theirs = transformers_bert(model)

    def own(batch: Batch) -> Tensor:
        return (pretraining.sums(model, batch) / torch.tensor(pretraining.counts(batch))).sum()

    def transformers(batch: Batch) -> Tensor:
        rows = padded(batch)
        loss: Tensor = theirs(
            rows.tokens, rows.real.long(), rows.segments, labels=rows.labels, next_sentence_label=batch.next
        ).loss
        return loss

    return {"mmha": Learner(model, own, settings), "transformers": Learner(theirs, transformers, settings)}


def trained(model: Bert, batches: Callable[[int], Batch], settings: Settings) -> dict[str, Learner]:
    """Both after all steps, taken in turns."""
    sides = twins(model, settings)
    for number in range(settings.steps):
        batch, order = batches(number), list(sides.values())
        for side in order if number % 2 == 0 else reversed(order):
            side.step(batch)
    return sides


@dataclasses.dataclass(frozen=True)
class Data:
    """The Brown corpus as word pieces: `batches` to train on, `held` to score on, every word in it hidden."""

    config: Config
    batches: Batches
    held: list[Batch]

    @classmethod
    def of(cls, rows: int, seed: int = 1) -> Data:
        train_on, dev, _ = map(documents.brown, brown.split(brown.files(registry.get("brown"))))
        words = train([sentence for document in train_on for sentence in document], WORDS)
        markers, frame = (words.pad, words.unknown, words.cls, words.sep, words.mask), Frame(words.cls, words.sep)
        masking = Masking(words.mask, markers, words.vocabulary)
        hidden = dataclasses.replace(masking, hidden=1.0, random=0.0)
        held = Batches(Pairs(encoded(words, dev), LENGTH), frame, hidden, rows=32, seed=0).once()
        batches = Batches(Pairs(encoded(words, train_on), LENGTH), frame, masking, rows, seed)
        return cls(nano(words.vocabulary), batches, held)

    def model(self, dropout: float, seed: int) -> Bert:
        """Untrained, as `mmha train bert` begins."""
        torch.manual_seed(seed)
        model = Bert(dataclasses.replace(self.config, dropout=dropout))
        beginning.share_words(model, self.batches.pairs.documents)
        beginning.look_beside(model)
        return model


def encoded(words: Tokenizer, texts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Documents as the tokens of their sentences."""
    return [[ids for ids in words.encode_all(document) if ids] for document in texts]


def measure(data: Data, dropout: float, settings: Settings) -> dict[str, Any]:
    """One pair of runs, and what the models score on the held-out files."""
    model = data.model(dropout, seed=1)  # all runs from the same weights, on the same batches
    sides, found = trained(model, data.batches, settings), {}
    for name, side in sides.items():
        if name != "mmha":
            state = from_transformers(model, {key: x.detach() for key, x in side.model.named_parameters()})
            model.load_state_dict(state)
        scores = pretraining.evaluate(model.eval(), data.held)
        found[name] = {
            "loss": rounded(statistics.mean(side.losses[-LAST:])),
            "held_out_loss": rounded(scores.loss),
            "words": rounded(scores.words.value),
            "next": rounded(scores.next.value),
            "seconds": rounded(sum(side.seconds)),
            "losses": [round(x, 7) for x in side.losses],
            "step_s": [rounded(x) for x in side.seconds],
        }
    return {"dropout": dropout, "seed": settings.seed, "sides": found}


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Losses by step, with and without dropout, and by time."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), sharey=True, layout="constrained")
    for axis, dropout in zip(axes, DROPOUTS, strict=False):
        for run in (run for run in runs if run["dropout"] == dropout):
            draw(axis, run, lambda side: range(len(side["losses"])), label=run["seed"] == 1)
        axis.set(title=f"dropout {dropout:g}" + (", 3 seeds each" if dropout else ""), xlabel="step")
    draw(axes[2], runs[0], lambda side: torch.tensor(side["step_s"]).cumsum(0).tolist(), label=True)
    axes[2].set(title="dropout 0, by time", xlabel="seconds of training")
    axes[0].set(ylabel="loss in nats, mean over 20 steps")
    for axis in axes:
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def draw(axis: Any, run: dict[str, Any], times: Callable[[dict[str, Any]], Sequence[float]], label: bool) -> None:
    """Both curves of a run; transformers' is dashed and lies on ours where they are equal."""
    for name, style, colour in (("mmha", "-", "tab:blue"), ("transformers", "--", "tab:orange")):
        side = run["sides"][name]
        losses = torch.tensor(side["losses"]).unfold(0, 20, 1).mean(1).tolist()
        axis.plot(list(times(side))[19:], losses, style, color=colour, linewidth=1.3, label=name if label else None)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all pairs, print as they end, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=8, help="pairs of up to 128 tokens a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    data, runs = Data.of(options.rows), []
    with thread_count(options.threads):
        for dropout, seeds in DROPOUTS.items():
            for seed in seeds:
                settings = Settings(options.steps, 1e-3, seed, warmup=max(1, options.steps // 10))
                runs.append(measure(data, dropout, settings))
                print_run(runs[-1])
    if options.json:
        made = {
            "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(), "threads": options.threads, "steps": options.steps, "rows": options.rows,
            "config": dataclasses.asdict(data.config), "runs": runs,
        }  # fmt: skip
        checkpoint.write(options.json, (json.dumps(made) + "\n").encode())
    if options.plot:
        plot(runs, options.plot)


def print_run(run: dict[str, Any]) -> None:
    """A line a side."""
    print(f"dropout {run['dropout']:g}, seed {run['seed']}")
    for name, side in run["sides"].items():
        print(
            f"  {name:<14}loss {side['loss']:.3f}, held out {side['held_out_loss']:.3f}, {side['words']:.1%} of masked"
            f" words, {side['next']:.1%} of next sentences, {side['seconds']:.1f} s"
        )


if __name__ == "__main__":
    main()
