"""What pretraining brings: the BERT that ships, fine-tuned to tag, and the same network from scratch.

    python benchmarks/tagging_transfer.py [--threads N] [--folder FOLDER] [--json FILE] [--plot FILE]

Both are `mmha train tagger --encoder shipped`, the second one with `--from-scratch`: the same sentences of the Brown
corpus, the same order, the same number of steps, the same word pieces. Rate and best epoch of each are chosen on the
same share of the dev files; the test files are read once for each row of the result, and the shipped BERT was
pretrained without them (`check_unseen`). Beside them the CRF of tagger_baselines.py (`pip install ".[baselines]"`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import tagger_baselines
import torch

from mmha import checkpoint
from mmha.bench.machine import machine
from mmha.bench.measure import thread_count
from mmha.bench.record import rounded
from mmha.cli.bert_job import digest
from mmha.cli.train_bert import Parts as BertParts
from mmha.cli.train_tagger import Job
from mmha.data import brown, documents, registry
from mmha.data.sentence import Sentence
from mmha.models.bert import SHIPPED
from mmha.models.bert import tagging as models
from mmha.train import tagging

Parts = Sequence[list[Sentence]]
Row = dict[str, Any]

SCRATCH, PRETRAINED, BASELINE = "from scratch", "pretrained", "CRF"
RATES = (5e-4, 2e-3)


@dataclass(frozen=True)
class Plan:
    """How a share of the data is learned: words a step, epochs, the rates to choose from, and the seeds of the share.

    Without rates each start takes the one that it chose on the share before.
    """

    share: float
    tokens: int
    epochs: int
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = (1,)


# A smaller share takes smaller steps and more epochs: 340 to 453 steps each.
PLANS = (Plan(0.01, 512, 20), Plan(0.1, 1024, 4, rates=()), Plan(1.0, 2048, 1, rates=()))


def check_unseen(encoder: Path, folder: Path) -> None:
    """Raise SystemExit unless the encoder was pretrained, and its round chosen, on other files than those of the test.

    Its document names the digest of what it was trained and chosen on.
    """
    expected = digest(BertParts(*map(documents.brown, brown.split(brown.files(folder)))))
    got = json.loads(encoder.read_text("utf-8"))["about"]["digest"]
    if got != expected:
        raise SystemExit(f"{encoder}: expected a BERT of the files to train and choose on ({expected}), got {got}")


def trained(side: str, plan: Plan, seed: int, rate: float, parts: Parts, folder: Path, encoder: str) -> Row:
    """One tagger, trained and chosen on a share of the first two parts; the third is not looked at."""
    job = Job(
        encoder, side == SCRATCH, None, plan.share, rate, None, plan.epochs, plan.tokens, seed,
        folder / f"{side}-{plan.share}-{seed}-{rate}",
    )  # fmt: skip
    return job.run([*parts[:2], []], "brown", resume=(job.out / "state.json").exists())


def learned(side: str, plan: Plan, known: float | None, parts: Parts, folder: Path, encoder: str) -> list[Row]:
    """A row for each seed of the plan: the rate with the first seed's highest dev score, tested once.

    Args: known, the rate to take where the plan has none to choose from.
    """
    tried = {rate: trained(side, plan, plan.seeds[0], rate, parts, folder, encoder) for rate in plan.rates or (known,)}
    best = max(tried, key=lambda rate: tried[rate]["dev_accuracy"])
    rows = []
    for seed in plan.seeds:
        one = tried[best] if seed == plan.seeds[0] else trained(side, plan, seed, best, parts, folder, encoder)
        found = tagging.accuracy(models.load(Path(one["model"])), parts[2])
        rows.append(
            {
                "side": side, "share": plan.share, "seed": seed, "words": one["train_words"], "steps": one["steps"],
                "rate": best, "dev": rounded(one["dev_accuracy"]), "test": rounded(found.value),
                "test_words": found.total,
            }
        )  # fmt: skip
    rows[0]["tried"] = {str(rate): rounded(one["dev_accuracy"]) for rate, one in tried.items()}
    return rows


def counted(plan: Plan, parts: Parts) -> Iterator[Row]:
    """The baseline on the same sentences."""
    for seed in plan.seeds:
        train, dev = (tagging.share(part, plan.share, seed) for part in parts[:2])
        tag = tagger_baselines.crf(train)
        scores = [tagger_baselines.score(tag, part) for part in (dev, parts[2])]
        yield {
            "side": BASELINE, "share": plan.share, "seed": seed, "words": sum(map(len, train)),
            "dev": rounded(scores[0].value), "test": rounded(scores[1].value), "test_words": scores[1].total,
        }  # fmt: skip


def measure(plans: Sequence[Plan], parts: Parts, folder: Path, encoder: str) -> Iterator[Row]:
    """All rows, share by share; the folder keeps the taggers, and a run that was stopped goes on from there."""
    rates: dict[str, float | None] = {SCRATCH: None, PRETRAINED: None}
    for plan in plans:
        for side in rates:
            rows = learned(side, plan, rates[side], parts, folder, encoder)
            rates[side] = rows[0]["rate"]
            yield from rows
        yield from counted(plan, parts)


def by_share(rows: Sequence[Mapping[str, Any]], side: str) -> dict[float, list[float]]:
    """The test scores of a side, over the seeds of each share."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row["side"] == side:
            found.setdefault(row["share"], []).append(row["test"])
    return found


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Errors by the words that are learned from, both on scales of factors; bars from the best seed to the worst."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    figure, axis = pyplot.subplots(figsize=(6.5, 4.2), layout="constrained")
    words = {row["share"]: row["words"] for row in rows}
    for side, style in ((SCRATCH, "s--"), (BASELINE, "^:"), (PRETRAINED, "o-")):
        scores = by_share(rows, side)
        errors = [[100 * (1 - score) for score in found] for found in scores.values()]
        means = [statistics.mean(found) for found in errors]
        ends = [[m - min(e) for m, e in zip(means, errors, strict=True)],
                [max(e) - m for m, e in zip(means, errors, strict=True)]]  # fmt: skip
        axis.errorbar([words[share] for share in scores], means, ends, fmt=style, capsize=3, label=side)
    axis.set(xscale="log", yscale="log", xlabel="words learned from", ylabel="test words tagged wrong, %")
    axis.set_xticks(list(words.values()), [f"{count:,}\n{share:.0%}" for share, count in words.items()])
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    for side in (axis.xaxis, axis.yaxis):
        side.set_minor_locator(ticker.NullLocator())
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all, print each row as it comes, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--folder", type=Path, help="keep the taggers here; the same command goes on after a stop")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args(arguments)
    corpus = registry.get("brown")
    check_unseen(SHIPPED, corpus)
    parts = [brown.read(part) for part in brown.split(brown.files(corpus))]
    rows: list[Row] = []
    with thread_count(options.threads), tempfile.TemporaryDirectory() as temporary:
        for row in measure(PLANS, parts, options.folder or Path(temporary), "shipped"):
            rows.append(row)
            print(
                f"{row['share']:>5.0%} {row['words']:>8,} words  {row['side']:<13} seed {row['seed']}"
                f"  dev {row['dev']:.2%}  test {row['test']:.2%}",
                flush=True,
            )
            if options.json:
                record(options.json, rows, options.threads)
    if options.plot:
        plot(rows, options.plot)


def record(path: Path, rows: Sequence[Row], threads: int) -> None:
    """Write what has been measured so far."""
    made = {
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(), "threads": threads, "rows": rows,
    }  # fmt: skip
    checkpoint.write(path, (json.dumps(made, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
