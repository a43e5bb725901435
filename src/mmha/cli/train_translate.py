"""`mmha train translate`: train a translator on LibreOffice's help, or on sentences of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli import scale
from mmha.cli.printing import examples
from mmha.cli.training import check_run, command, fetch

if TYPE_CHECKING:
    from mmha.data.parallel import Split

EXAMPLES = examples(
    "mmha train translate --data help-de --out runs/de --minutes 60",
    "mmha train translate my-pairs.tsv --vocabulary 8000 --out runs/mine",
)
STEPS = 8000


def translate(
    context: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="UTF-8 lines of `source TAB target` to train on instead of --data.")
    ] = None,
    data: Annotated[str, typer.Option(help="help-de, help-fr or help-zh: from English.")] = "help-de",
    reverse: Annotated[bool, typer.Option("--reverse", help="Into the first language instead.")] = False,
    out: Annotated[Path, typer.Option("--out", "--output", help="Folder of the run and the model.")] = Path(
        "runs/translate"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    size: Annotated[str, typer.Option(help="small (some ten thousand sentences), tiny, base or big.")] = "small",
    dropout: Annotated[float | None, typer.Option(help="Share that is dropped; 0.3 where pairs are few.")] = None,
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens of both languages at most.")] = 5000,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of a batch, of both languages.")] = 2048,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches to train on.  [default: 8000]")] = None,
    minutes: Annotated[float | None, typer.Option(help="As many steps as fit, by the first ones' time.")] = None,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    warmup: Annotated[int, typer.Option(min=1, help="Steps until the rate is highest (Noam schedule).")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Decides the start, the order and the dropout.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="0 is torch's choice; fix it to repeat a run bit for bit.")] = 0,
    bits: Annotated[int, typer.Option(help="Of a stored weight: 16, or 8 for half the size.")] = 16,
    precision: scale.Precision = "32-true",
    accumulate: scale.Accumulate = 1,
    checkpoint_activations: scale.Checkpointing = False,
    devices: scale.Devices = 1,
    nodes: scale.Nodes = 1,
    strategy: scale.Strategy = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a translator on pairs of sentences: LibreOffice's help, or yours."""
    from mmha.cli.printing import print_json
    from mmha.cli.translate_job import Job, print_result

    options = dict(context.params)
    _check(options)
    if threads:
        import torch

        torch.set_num_threads(threads)
    result = Job(pairs(files or (), data, reverse), options, command(context)).run()
    if result is None:  # the first process alone has one
        return
    if json:
        print_json(result)
    else:
        print_result(result)


def _check(options: dict[str, Any]) -> None:
    """Raise ValueError for options that do not go together."""
    from mmha import checks
    from mmha.models.seq2seq import BUILDERS

    checks.one_of("size", options["size"], tuple(BUILDERS))
    checks.one_of("data", options["data"], ("help-de", "help-fr", "help-zh"))
    dropout = options["dropout"]
    if dropout is not None:
        checks.require(0 <= checks.number("--dropout", dropout) < 1, "--dropout", "a number in [0, 1)", str(dropout))
    checks.require(options["bits"] in (8, 16), "bits", "8 or 16", options["bits"])
    check_run(options)


def pairs(files: Sequence[Path], data: str, reverse: bool) -> Split:
    """The pairs of the files, or of what is fetched, split by page (a file's lines are pages).

    Raises: ValueError when a file has other lines than `source TAB target`, or all have too few.
    """
    from mmha.data import parallel

    if files:
        found = parallel.split([pair for path in files for pair in parallel.two_columns(path)])
    else:
        found = parallel.split(parallel.help_pages(fetch(data), data))
    if not found.train or not found.dev:
        count = sum(map(len, found[:3]))
        raise ValueError(f"FILES: expected some tens of pairs, to train on and to choose on, got {count}")
    if not reverse:
        return found
    train, dev, test = ([parallel.Pair(p.target, p.source, p.page) for p in part] for part in found[:3])
    return parallel.Split(train, dev, test, found.repeated)
