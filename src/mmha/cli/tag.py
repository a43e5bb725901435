"""`mmha tag`: the part of speech of every word of a sentence, a file or standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmha.cli.printing import examples

if TYPE_CHECKING:
    from mmha.data.conllu import Block
    from mmha.models.bert.tagging import Tagger as BertTagger
    from mmha.models.tagger import Tagger
    from mmha.models.tagger.quick import QuickTagger

    AnyTagger = Tagger | BertTagger | QuickTagger

EXAMPLES = examples(
    'mmha tag "I saw a saw"',
    'mmha tag "I saw a saw" --attention',
    "mmha tag novel.txt > novel.tagged",
    "mmha tag treebank.conllu > retagged.conllu",
    'echo "Time flies." | mmha tag --json',
)
AT_ONCE = 256  # sentences between two steps of the progress bar
FEW_WORDS = 1000  # up to here, importing torch would take longer than doing without
COLOURS = {
    "NOUN": "cyan", "PROPN": "bright_cyan", "VERB": "green", "AUX": "bright_green", "ADJ": "yellow", "ADV": "magenta",
    "PRON": "blue", "DET": "bright_blue",
}  # fmt: skip
_WORD_LINE = re.compile(r"\d+([-.]\d+)?\t")
_PATH_LIKE = re.compile(r"\S*[^\s/]\.[A-Za-z]\w{0,6}|\S*/\S*")


def tag(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT|FILE|-]...", help="A sentence or a file; else standard input."),
    ] = None,
    format: Annotated[str, typer.Option(help="Output: text, conllu, or auto (as the input).")] = "auto",
    input: Annotated[str, typer.Option(help="Input: text, conllu, or auto (by name and content).")] = "auto",
    text: Annotated[bool, typer.Option("--text", help="A sentence, even if it looks like a file.")] = False,
    attention: Annotated[bool, typer.Option("--attention", help="Draw which words each word looked at.")] = False,
    score: Annotated[bool, typer.Option("--score", help="CoNLL-U with tags: print only how many are right.")] = False,
    model: Annotated[Path | None, typer.Option(help="A tagger.json from `mmha train tagger`, or its folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Tag each word with its part of speech (one of the 17 universal tags)."""
    from mmha import checks

    checks.one_of("format", format, ("auto", "text", "conllu"))
    checks.one_of("input", input, ("auto", "text", "conllu"))
    _check_together(score=score, attention=attention, json=json, format=format != "auto")
    content, name = _content(words or [], text)
    blocks = _blocks(content, name, input)
    conllu = input == "conllu" or (input == "auto" and _is_conllu(content, name))
    output = ("conllu" if conllu else "text") if format == "auto" else format
    if attention:
        _draw(_load(model), blocks, json)
        return
    few = sum(len(block.at) for block in blocks) <= FEW_WORDS
    tagger = _load_quick(model) if few else _load(model)
    if score:
        _print_score(tagger, blocks, json)
    elif json:
        _print_json(tagger, blocks)
    else:
        _print(tagger, blocks, output)


def _check_together(**given: bool) -> None:
    """Options that decide the same thing may not be given together: one of them would be ignored."""
    for one, other in (("score", "attention"), ("score", "format"), ("json", "format"), ("attention", "format")):
        if given[one] and given[other]:
            raise ValueError(f"--{one}: expected it without --{other}, got both")


def _content(words: Sequence[str], is_text: bool) -> tuple[str, str]:
    """The text to tag and the name that messages call it by."""
    from mmha.data import text

    given = " ".join(words)
    if not words or (given == "-" and not is_text):
        if not words and sys.stdin.isatty():
            raise ValueError(
                'text: expected a sentence, a file or standard input, got none: try mmha tag "I saw a saw"'
            )
        content, name = text.decode(sys.stdin.buffer.read(), "standard input"), "standard input"
    elif not is_text and len(words) == 1 and given.strip() and _is_file(given):
        content, name = text.read(Path(given)), given
    else:
        files = [word for word in words if _PATH_LIKE.fullmatch(word) and Path(word).is_file()]
        if len(words) > 1 and files and not is_text:
            raise ValueError(f"text: expected a sentence or one file, got {len(words)} words, and {files[0]} is a file")
        content, name = given, "text"
    if not content.strip():
        raise ValueError(f"{name}: expected words to tag, got {'an empty text' if not content else 'only white space'}")
    return content, name


def _is_file(given: str) -> bool:
    """A file that is there, or a word that can only have been meant as one."""
    try:
        if Path(given).exists():
            return True
    except OSError:  # longer than any file name
        return False
    if _PATH_LIKE.fullmatch(given) and not re.fullmatch(r"(\w\.)+\w?|\w+/\w+", given):
        raise FileNotFoundError(2, "no such file (a sentence that looks like one: add --text)", given)
    return False


def _is_conllu(content: str, name: str) -> bool:
    if name.endswith((".conllu", ".conll")):
        return True
    first = next((line for line in content.splitlines() if line.strip() and not line.startswith("#")), "")
    return _WORD_LINE.match(first) is not None


def _blocks(content: str, name: str, kind: str) -> list[Block]:
    from mmha.data import conllu, text

    if kind == "conllu" or (kind == "auto" and _is_conllu(content, name)):
        blocks = list(conllu.parse(content.split("\n"), name))
        if not blocks:
            raise ValueError(f"{name}: expected CoNLL-U sentences, got none")
        return blocks
    return [conllu.block_of(words) for words in text.sentences(content)]


def _load(path: Path | None) -> Tagger | BertTagger:
    """The tagger of a checkpoint, whichever of the two kinds it is; by default the one that ships."""
    from mmha.models.bert import tagging
    from mmha.models.tagger import SHIPPED, load

    document = _document(path)
    if document is not None and _kind(document) == tagging.KIND:
        return tagging.load(document)
    return load(document or SHIPPED)


def _load_quick(path: Path | None) -> Tagger | BertTagger | QuickTagger:
    """The tagger that needs no torch, unless the checkpoint is of a kind that does."""
    from mmha.models.tagger.config import SHIPPED
    from mmha.models.tagger.quick import QuickTagger

    document = _document(path)
    if document is not None and _kind(document) != "tagger":
        return _load(document)
    return QuickTagger(document or SHIPPED)


def _document(path: Path | None) -> Path | None:
    return path / "tagger.json" if path is not None and path.is_dir() else path


def _kind(document: Path) -> str:
    """What model a checkpoint says it is; a damaged one is left to the loader, which says what is wrong with it."""
    from mmha import checkpoint

    try:
        return str(checkpoint.read(document)[0].get("model"))
    except ValueError:
        return "tagger"


def _tagged(tagger: AnyTagger, blocks: Sequence[Block]) -> Iterator[tuple[Block, list[str]]]:
    """Each sentence with its tags, in order; a progress bar on stderr when there is a wait and somebody to see it."""
    from mmha.cli.printing import console

    chunks = [blocks[i : i + AT_ONCE] for i in range(0, len(blocks), AT_ONCE)]
    err = console(stderr=True)
    if len(chunks) > 2 and err.is_terminal and not sys.stdout.isatty():
        from rich.progress import track

        chunks = track(chunks, "tagging", console=err, transient=True)  # type: ignore[assignment]
    for chunk in chunks:
        yield from zip(chunk, tagger.tag([block.words for block in chunk]), strict=True)


def _print(tagger: AnyTagger, blocks: Sequence[Block], output: str) -> None:
    if output == "conllu":
        for block, tags in _tagged(tagger, blocks):
            sys.stdout.write(block.tagged(tags))
        return
    colour = sys.stdout.isatty()
    if colour:
        from mmha.cli.printing import console

        out = console()
    for block, tags in _tagged(tagger, blocks):
        if colour:
            out.print(_coloured(block.words, tags))
        else:
            print("  ".join(f"{word}/{tag}" for word, tag in zip(block.words, tags, strict=True)))


def _coloured(words: Sequence[str], tags: Sequence[str]) -> Any:
    from rich.text import Text

    return Text("  ").join(
        Text.assemble(word, ("/" + tag, COLOURS.get(tag, "dim"))) for word, tag in zip(words, tags, strict=True)
    )


def _print_json(tagger: AnyTagger, blocks: Sequence[Block]) -> None:
    from mmha.cli.printing import print_json

    print_json([{"words": list(block.words), "tags": tags} for block, tags in _tagged(tagger, blocks)])


def _print_score(tagger: AnyTagger, blocks: Sequence[Block], as_json: bool) -> None:
    from mmha.cli.printing import print_json
    from mmha.metrics import tag_accuracy

    gold = [block.sentence().tags for block in blocks]
    if None in gold:
        raise ValueError("--score: expected CoNLL-U with a tag for every word, got words without one")
    result = tag_accuracy([tags or () for tags in gold], [tags for _, tags in _tagged(tagger, blocks)])
    if as_json:
        print_json({"correct": result.correct, "total": result.total, "accuracy": result.value})
    else:
        print(result)


def _draw(tagger: Tagger | BertTagger, blocks: Sequence[Block], as_json: bool) -> None:
    from mmha.cli.looks import picture
    from mmha.cli.printing import console, print_json

    seen = [(block.words, tags, tagger.looked_at(block.words).tolist()) for block, tags in _tagged(tagger, blocks)]
    if as_json:
        print_json([{"words": list(words), "tags": tags, "attention": rows} for words, tags, rows in seen])
        return
    out = console()
    for words, tags, rows in seen:
        out.print(picture(words, tags, rows))
