"""`mmha embed`: texts as vectors, into a file, onto the screen, or the lines of a file nearest to a question."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmha.cli import encoders, vectors
from mmha.cli.printing import examples

if TYPE_CHECKING:
    from torch import Tensor

    from mmha.models.bert import Bert, Tokenizer
    from mmha.models.bert.embedding import Pooling

EXAMPLES = examples(
    "mmha embed --file notes.txt --out notes.npy",
    'mmha embed --file notes.txt --query "when does the train leave" --top 3',
    'mmha embed "a cat sleeps" "the cat is asleep" --json',
    "cat *.txt | mmha embed --out all.safetensors",
)
MODEL, TOP = "minilm", 5
NAMED = 5  # lines that a notice names


def embed(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts, each in quotes; else --file or standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="A text a line.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "--output", metavar="FILE", help="Write them to a .npy or .safetensors file."),
    ] = None,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="Print the texts that are nearest to this.")] = None,
    top: Annotated[int | None, typer.Option(help=f"With --query: how many. Default {TOP}.")] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="A BERT: a checkpoint, a Hugging Face folder, minilm, shipped.")
    ] = MODEL,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Turn each text into a vector of length 1; texts that mean the same have vectors that are near each other."""
    from mmha import checks

    checks.require(query is None or out is None, "--out", "it without --query", "both")
    checks.require(query is not None or top is None, "--top", "it with --query", "it alone")
    checks.integer("--top", TOP if top is None else top, minimum=1)
    vectors.check("--out", out)
    source = _Source(texts or [], file)
    job = _Job(source, *_loaded(model))
    if query is not None:
        job.search(query, TOP if top is None else top, json)
    elif out is not None:
        job.write(out, json)
    else:
        job.show(json)


def _loaded(name: str) -> tuple[Bert, Tokenizer, Pooling]:
    from mmha.models.bert import load
    from mmha.models.bert.embedding import read_pooling

    place = encoders.place(name, "--model")
    return (*load(place), read_pooling(place))


@dataclass
class _Source:
    """Where the texts come from: the arguments, a file, or standard input; the last two are streamed."""

    texts: Sequence[str]
    file: Path | None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        if self.texts and self.file is not None:
            raise ValueError("--file: expected it without TEXT, got both")
        if len(self.texts) == 1 and len(self.texts[0]) < 200 and Path(self.texts[0]).is_file():
            raise ValueError(f"text: expected a text, got the name of a file: try --file {self.texts[0]}")
        if not self.texts and self.file is None and sys.stdin.isatty():
            raise ValueError('text: expected a text, --file or standard input, got none: try mmha embed "a cat sleeps"')
        self.name = str(self.file) if self.file else "text" if self.texts else "standard input"

    @contextlib.contextmanager
    def chunks(self) -> Iterator[Iterator[list[str]]]:
        """The texts, some thousand at a time; a progress bar on stderr counts the bytes of a file."""
        from mmha.cli.lines import chunks

        if self.texts:
            yield iter([list(self.texts)])
        elif self.file is None:
            yield chunks(sys.stdin.buffer, self.name)
        else:
            with self.file.open("rb") as stream, _bar(self.file.stat().st_size) as advance:
                yield chunks(stream, self.name, advance)


@contextlib.contextmanager
def _bar(size: int) -> Iterator[Callable[[int], object]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mmha.cli.printing import console

    err = console(stderr=True)
    columns = (TextColumn("embedding"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=size)
        yield lambda read: progress.advance(task, read)


@dataclass
class _Job:
    source: _Source
    model: Bert
    tokenizer: Tokenizer
    pooling: Pooling
    cut: list[int] = field(default_factory=list)

    def embedded(self) -> Iterator[tuple[int, list[str], Tensor]]:
        """The number of the first text of each part, from 1, the texts, and their vectors; at the end, a notice."""
        from mmha.models.bert.embedding import embed

        number = 1
        with self.source.chunks() as chunks:
            for texts in chunks:
                found = embed(self.model, self.tokenizer, texts, self.pooling)
                self.cut += [number + i for i in found.cut]
                yield number, texts, found.vectors
                number += len(texts)
        if self.cut:
            self._notice()

    def write(self, out: Path, json: bool) -> None:
        """Write the vectors to a file as they are made, and say what it holds."""
        from mmha.cli.printing import print_json

        width = self.model.config.width
        with vectors.Rows(out, width) as rows:
            for _, _, found in self.embedded():
                rows.append(found)
        if json:
            print_json({"file": str(out), "shape": [rows.count, width], "cut": self.cut})
        else:
            print(f"{out}: {rows.count:,} vectors of {width} numbers")

    def show(self, json: bool) -> None:
        """Print the vectors, a line each."""
        from mmha.cli.printing import print_json

        found = []
        for _, texts, rows in self.embedded():
            for text, row in zip(texts, rows.tolist(), strict=True):
                if json:
                    found.append({"text": text, "vector": row})
                else:
                    print(*(f"{x:.6f}" for x in row))
        if json:
            print_json({"embeddings": found, "cut": self.cut})

    def search(self, query: str, top: int, json: bool) -> None:
        """Print the texts whose vectors have the highest cosine with that of the query, the first ones first."""
        from mmha.cli.printing import harmless, print_json
        from mmha.models.bert.embedding import embed

        asked = embed(self.model, self.tokenizer, [query], self.pooling).vectors[0]
        if not bool(asked.any()):
            raise ValueError("--query: expected words to look for, got none")
        best: list[tuple[float, int, str]] = []
        for number, texts, rows in self.embedded():
            scores, empty = (rows @ asked).tolist(), (rows == 0).all(1).tolist()
            best += [(-score, number + i, texts[i]) for i, score in enumerate(scores) if not empty[i]]
            best = sorted(best)[:top]
        if json:
            found = [{"score": -score, "line": line, "text": text} for score, line, text in best]
            print_json({"query": query, "results": found, "cut": self.cut})
            return
        wide = len(str(max((line for _, line, _ in best), default=0)))
        for score, line, text in best:
            print(f"{-score:6.3f}  {line:>{wide}}  {harmless(text) if sys.stdout.isatty() else text}")

    def _notice(self) -> None:
        """Say on stderr which texts lost their end."""
        from mmha.cli.printing import console

        most = min(self.pooling.tokens or self.model.config.positions, self.model.config.positions)
        unit, named = "text" if self.source.texts else "line", ", ".join(map(str, self.cut[:NAMED]))
        if len(self.cut) == 1:
            said = f"{unit} {named} has more than the {most} tokens that the model takes: its end was cut off"
        else:
            more = f" and {len(self.cut) - NAMED:,} more" if len(self.cut) > NAMED else ""
            said = (
                f"{unit}s {named}{more} have more than the {most} tokens that the model takes: their ends were cut off"
            )
        console(stderr=True).print(f"{self.source.name}: {said}", markup=False)
