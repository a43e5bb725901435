"""`mmha train bert`: pretrain BERT on documents of sentences, from masked words and next sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mmha.cli import scale
from mmha.cli.printing import examples
from mmha.cli.training import check_run, command, fetch

EXAMPLES = examples(
    "mmha train bert --out runs/bert --minutes 45 --precision bf16-mixed",
    "mmha train bert my-articles.txt --lines --whole-word --steps 20000",
    "torchrun --nproc-per-node 2 -m mmha train bert --devices 2 --steps 8000",
)

Documents = list[tuple[str, ...]]
STEPS = 10_000


@dataclass(frozen=True)
class Parts:
    """What is trained on, what the best round is chosen on, and what is reported on, once."""

    train: Documents
    dev: Documents
    test: Documents


def bert(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(help="UTF-8 texts to train on instead of --data.")] = None,
    data: Annotated[str, typer.Option(help="brown, every 10th file test and the next dev; or shakespeare.")] = "brown",
    lines: Annotated[
        bool,
        typer.Option("--lines", help="FILES hold a sentence a line, and an empty line after each document."),
    ] = False,
    out: Annotated[Path, typer.Option("--out", "--output", help="Folder of the run and the model.")] = Path(
        "runs/bert"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    size: Annotated[str, typer.Option(help="nano (ships with mmha), tiny, mini, small, base or large.")] = "nano",
    vocabulary: Annotated[int, typer.Option(min=6, help="Word pieces at most, found in the training text.")] = 4500,
    length: Annotated[int, typer.Option(min=8, help="Tokens of a pair of texts, and the model's positions.")] = 128,
    rows: Annotated[int, typer.Option(min=1, help="Pairs a step, over all processes.")] = 32,
    steps: Annotated[int | None, typer.Option(min=1, help="How long to train.  [default: 10000]")] = None,
    minutes: Annotated[float | None, typer.Option(help="As many steps as fit, by the first ones' time.")] = None,
    rate: Annotated[float, typer.Option(help="Highest learning rate, reached after a tenth of the steps.")] = 1e-3,
    whole_word: Annotated[bool, typer.Option("--whole-word", help="Mask all pieces of a word or none.")] = False,
    static_masking: Annotated[bool, typer.Option("--static-masking", help="Same masks in each pass.")] = False,
    plain_start: Annotated[
        bool, typer.Option("--plain-start", help="Begin as published: nothing known of words or places.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides the start, pairs, masks and dropout.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="0 is torch's choice; fix it to repeat a run bit for bit.")] = 0,
    precision: scale.Precision = "32-true",
    accumulate: scale.Accumulate = 1,
    checkpoint_activations: scale.Checkpointing = False,
    devices: scale.Devices = 1,
    nodes: scale.Nodes = 1,
    strategy: scale.Strategy = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Pretrain BERT on your texts, on the Brown corpus or on Shakespeare."""
    from mmha.cli.bert_job import Job, print_result
    from mmha.cli.printing import print_json

    options = dict(context.params)
    _check(options)
    if threads:
        import torch

        torch.set_num_threads(threads)
    parts = documents(files or (), data, lines)
    result = Job(parts, options, command(context)).run()
    if result is None:  # the first process alone has one
        return
    if json:
        print_json(result)
    else:
        print_result(result)


def _check(options: dict[str, Any]) -> None:
    """Raise ValueError for options that do not go together."""
    from mmha import checks

    checks.one_of("size", options["size"], ("nano", "tiny", "mini", "small", "base", "large"))
    checks.one_of("data", options["data"], ("brown", "shakespeare"))
    if options["lines"] and not options["files"]:
        raise ValueError("--lines: expected FILES beside it, got none")
    several = check_run(options)
    turns = options["accumulate"] * several
    checks.require(turns <= options["rows"], "accumulate", f"at most {options['rows']} parts, as there are rows", turns)


def documents(files: Sequence[Path], data: str, lines: bool) -> Parts:
    """The documents of the files, or of what is fetched.

    Raises: ValueError when a file is empty, binary or not UTF-8, or all hold too few documents.
    """
    from mmha.data import brown, shakespeare, text
    from mmha.data import documents as read

    if not files and data == "brown":
        return Parts(*map(read.brown, brown.split(brown.files(fetch(data)))))
    if not files:
        return Parts(*map(read.shakespeare, shakespeare.split(shakespeare.files(fetch(data)))))
    found: Documents = []
    for path in files:
        own = (read.lines if lines else read.plain)(text.read(path))
        if not own:
            raise ValueError(f"{path}: expected a text, got an empty file")
        found += own
    return Parts(*read.split(found))
