"""The Transformer in training and in decoding, beside torch's own and CTranslate2.

    python benchmarks/translation.py [--rows WORDS] [--seconds N] [--threads N] [--json FILE]

Training: tokens per second of whole steps (forward, backward, Adam), ours on packed sentences beside
torch.nn.Transformer with the same weights and batches. Decoding: sentences per second with 4 beams, ours beside a
decoder in plain torch with growing caches (translation_plain.py) and, where it is installed, CTranslate2 with the same
weights in float32 and in int8, on the same threads. Losses, gradients and translations are compared first. All sides
of a row then take turns within one run, every other round in reversed order.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import translation_training as training
from translation_plain import Plain

from mmha import checkpoint
from mmha.bench.machine import machine
from mmha.bench.measure import thread_count
from mmha.bench.record import rounded
from mmha.models.seq2seq import SHIPPED, Beams, Config, Seq2Seq, base, load, small, translate
from mmha.models.seq2seq.decoding import Steps

BEAM, ALPHA = 4, 0.6
SENTENCES = 64  # of the test pages
LENGTH = 24  # tokens of every source and translation of a model that was not trained
FEWEST, MOST = 3, 15
LOSS, SAME = 1e-4, 0.95  # how far losses may differ, and how many translations must be the same
SMALL = small(5000)  # what ships
Work = Callable[[], object]


@dataclass(frozen=True)
class Side:
    """One way to do the work of a row; `facts` are what was found when it was compared."""

    name: str
    work: Work
    facts: dict[str, float]


@dataclass(frozen=True)
class Row:
    """What is measured: `unit`s of work done by each side."""

    name: str
    title: str
    unit: str
    amount: int
    sides: list[Side]
    without: dict[str, str]


def training_row(name: str, title: str, config: Config, size: int, count: int, similar: bool) -> Row:
    """Training steps on `count` batches of `size` target tokens."""
    torch.manual_seed(0)
    model = Seq2Seq(config)
    batches = training.batches(config.vocabulary, count, size, similar)
    sides = [training.Torch(model), training.Ours(model)]
    facts = compared_losses(sides, batches[0])
    made = [
        Side(name, training.steps(side, batches), found)
        for name, side, found in zip(("torch.nn", "mmha"), sides, facts, strict=True)
    ]
    return Row(name, title, "tokens", sum(batch.tokens for batch in batches), made, {})


def compared_losses(sides: Sequence[Any], batch: training.Batch) -> list[dict[str, float]]:
    """Loss and norm of its gradient, without dropout; it ends the run where a side's differ from the first's."""
    facts: list[dict[str, float]] = []
    for side in sides:
        side.model.eval().zero_grad()
        loss = side.loss(*side.prepare(batch))
        loss.backward()
        squares = [float(p.grad.double().square().sum()) for p in side.model.parameters()]
        facts.append({"loss": float(loss.detach()), "gradient": sum(squares) ** 0.5})
    for found in facts:
        for key, value in found.items():
            if not abs(value - facts[0][key]) <= LOSS * abs(facts[0][key]):
                raise SystemExit(f"{key}: {value:.6g} beside {facts[0][key]:.6g}")
    return facts


def decoding_row(
    name: str, title: str, model: Seq2Seq, sources: list[list[int]], batch: int, extra: int, threads: int
) -> Row:
    """Translations of the sources, those of similar length together, `batch` at a time.

    They have at most as many tokens as the source, the end included, and `extra` more.
    """
    sources = sorted(sources, key=len, reverse=True)
    groups = [sources[i : i + batch] for i in range(0, len(sources), batch)]
    makers, without = decoders(model, Beams(BEAM, ALPHA, extra=extra), threads, batch)
    made: list[Side] = []
    first: list[list[int]] = []
    for side, decode in makers.items():

        def work(decode: Callable[[list[list[int]]], list[list[int]]] = decode) -> list[list[int]]:
            return [text for group in groups for text in decode(group)]

        found = work()
        first = first or found
        same = statistics.mean(a == b for a, b in zip(found, first, strict=True))
        if same < SAME and side == "mmha":  # CTranslate2 ranks by another penalty, and may round to int8
            raise SystemExit(f"{name}: {same:.0%} of the translations of {side} are those of torch")
        made.append(Side(side, work, {"same": round(same, 3), "tokens": sum(map(len, found))}))
    return Row(name, title, "sentences", len(sources), made, without)


def decoders(
    model: Seq2Seq, beams: Beams, threads: int, batch: int
) -> tuple[dict[str, Callable[[list[list[int]]], list[list[int]]]], dict[str, str]]:
    """Each side as a function of a batch, and what is missing, with the reason."""
    plain, steps = Plain(model), Steps(model, batch * beams.width)  # once, as CTranslate2 converts once

    def ours(sources: list[list[int]]) -> list[list[int]]:
        return [list(best[0].tokens) for best in translate(model, sources, beams, batch, steps)]

    made = {"torch": lambda sources: plain(sources, BEAM, beams.extra, beams.score), "mmha": ours}
    if importlib.util.find_spec("ctranslate2") is None:
        return made, {"CTranslate2": 'not installed: pip install "mmha[peers]"'}
    from translation_ctranslate2 import Converted

    for dtype in ("float32", "int8"):
        peer = Converted(model, threads, dtype)
        made[f"CTranslate2 {dtype}"] = lambda sources, peer=peer: peer(sources, beams)
    return made, {}


def measure(row: Row, seconds: float) -> dict[str, Any]:
    """All sides in turns, and what they do in a second."""
    times: list[list[float]] = [[] for _ in row.sides]
    start = time.perf_counter()
    while len(times[0]) < FEWEST or (time.perf_counter() - start < seconds and len(times[0]) < MOST):
        turns = list(zip(row.sides, times, strict=True))
        for side, taken in turns if len(times[0]) % 2 == 0 else reversed(turns):
            begin = time.perf_counter()
            side.work()
            taken.append(time.perf_counter() - begin)
    return {
        "row": row.name,
        "title": row.title,
        "unit": row.unit,
        "sides": [
            {"side": side.name, "per_second": rounded(row.amount / statistics.median(taken)), **side.facts,
             "samples_s": [rounded(x) for x in taken]}
            for side, taken in zip(row.sides, times, strict=True)
        ],
        "without": row.without,
    }  # fmt: skip


def print_row(found: dict[str, Any]) -> None:
    """One line a side; the last column is what mmha does in the time."""
    print(f"\n{found['title']}, threads: {found['threads']}")
    ours = next(side["per_second"] for side in found["sides"] if side["side"] == "mmha")
    for side in found["sides"]:
        same = f"   {side['same']:.0%} as torch" if "same" in side else f"   loss {side['loss']:.6f}"
        rate = side["per_second"]
        print(f"  {side['side']:<20}{rate:>10.4g} {found['unit']}/s   mmha {ours / rate:>6.2f} ×{same}")
    for name, reason in found["without"].items():
        print(f"  without {name}: {reason}")


def random_model(config: Config) -> Seq2Seq:
    """A model that nobody has trained: what a step takes does not depend on the weights, and no translation ends."""
    torch.manual_seed(0)
    model = Seq2Seq(config).eval()
    torch.nn.init.zeros_(model.embedding.weight.data[model.end])  # never among the most probable
    return model


def random_sources(config: Config, count: int) -> list[list[int]]:
    """Sentences of LENGTH tokens, the end included."""
    return torch.randint(config.vocabulary - 1, (count, LENGTH - 1)).tolist()


def shipped_row(threads: int) -> Row:
    """The translator that ships, on sentences of its test pages, 32 at a time."""
    from mmha.data import parallel, registry

    model, tokenizer = load(SHIPPED["de"])
    test = parallel.split(parallel.help_pages(registry.get("help-de"), "help-de")).test[:SENTENCES]
    sources = [tokenizer.encode(pair.source) for pair in test]
    title = "decoding, the German one, 32 help sentences at a time"
    return decoding_row("shipped-32", title, model, sources, 32, 50, threads)


def rows(threads: int) -> dict[str, Callable[[], Row]]:
    """All rows by name."""
    small, big = SMALL, base()

    def decode(name: str, config: Config, count: int, batch: int, title: str) -> Callable[[], Row]:
        return lambda: decoding_row(name, title, random_model(config), random_sources(config, count), batch, 0, threads)

    return {
        "training-small": lambda: training_row("training-small", "training, small", small, 2000, 3, True),
        "training-drawn": lambda: training_row(
            "training-drawn", "training, small, lengths as they come", small, 2000, 3, False
        ),
        "training-base": lambda: training_row("training-base", "training, base", big, 1000, 1, True),
        "small-1": decode("small-1", small, 4, 1, "decoding, small, one sentence at a time"),
        "small-32": decode("small-32", small, 32, 32, "decoding, small, 32 sentences at a time"),
        "shipped-32": lambda: shipped_row(threads),
        "base-16": decode("base-16", big, 16, 16, "decoding, base, 16 sentences at a time"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every row, print as they come, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(rows(1)), default=list(rows(1)))
    parser.add_argument("--seconds", type=float, default=12.0, help="time for a row, 3 rounds or more")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    found = []
    for name in options.rows:
        # A step of decoding is short, and threads may cost more than they bring: both are shown.
        alone = set() if name.startswith("training") else {1}
        for count in sorted({options.threads} | alone):
            with thread_count(count):
                found.append(measure(rows(count)[name](), options.seconds) | {"threads": count})
            print_row(found[-1])
    if options.json:
        run = {
            "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "threads": options.threads,
            "rows": found,
        }
        checkpoint.write(options.json, (json.dumps(run, indent=1) + "\n").encode())
        print(f"wrote {options.json}")


if __name__ == "__main__":
    main()
