"""The readers of files: what makes a valid file for each, what is damaged, and how it is read."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fuzz import seeds


class Reader(NamedTuple):
    """What makes valid files, which of them are damaged, and what reads them."""

    make: Callable[[Path], Path]
    damage: tuple[str, ...]
    read: Callable[[Path], Any]


def _tagged(path: Path) -> None:
    from mmha.models.tagger.model import load
    from mmha.models.tagger.quick import QuickTagger

    load(path).tag([["a", "log"]])
    QuickTagger(path).tag([["a", "log"]])


def _bert(path: Path) -> None:
    from mmha.models import bert
    from mmha.models.bert.embedding import embed, read_pooling

    model, tokenizer = bert.load(path)
    if path.name == "config.json":
        read_pooling(path.parent)
    embed(model, tokenizer, ["the cats saw"])


def _bert_tagger(path: Path) -> None:
    from mmha.models.bert import tagging

    tagging.load(path).tag([["the", "cats"]])


def _of(kind: str) -> Callable[[Path], Any]:
    def read(path: Path) -> None:
        importlib.import_module(f"mmha.models.{kind}").load(path)

    return read


def _checkpoint(path: Path) -> None:
    from mmha import checkpoint

    checkpoint.load(path)


def _conllu(path: Path) -> None:
    from mmha.data import conllu, text

    for block in conllu.parse(text.read(path).split("\n"), str(path)):
        block.tagged(block.sentence().tags or ["X"] * len(block.words))


def _text(path: Path) -> None:
    from mmha.data import documents, shakespeare, text

    content = text.read(path)
    list(text.sentences(content))
    documents.plain(content)
    documents.lines(content)
    documents.shakespeare([path])
    shakespeare.scenes(content)


def _columns(path: Path) -> None:
    from mmha.data import parallel

    parallel.split(parallel.two_columns(path))


def _html(path: Path) -> None:
    from mmha.data import parallel

    parallel.paragraphs(path.read_text("utf-8", "replace"))


def _brown(path: Path) -> None:
    from mmha.data import brown

    brown.read([path])


def _events(path: Path) -> None:
    from mmha.data import bold

    bold.design(path, 2.0, 9)


def _numbers(path: Path) -> None:
    from mmha.data.bold import tables

    tables.numbers(path)


def _bold(path: Path) -> None:
    from mmha.data import bold

    if path.stem == "mask":
        bold.load(path.with_name("run.nii"), mask=path, drop=True)
    else:
        bold.load(path, drop=True)


def _sound(path: Path) -> None:
    from mmha.data import sound

    sound.info(path)
    sound.read(path)


def _raw(path: Path) -> None:
    from mmha.cli.enhance_pipe import FORMATS, Raw, _Input

    with path.open("rb") as stream:
        head = stream.read(2)
        name = sorted(FORMATS)[head[0] % 3 if head else 0]
        for block in _Input(stream, Raw(name, 16000, 1 + (head[1] % 3 if len(head) > 1 else 0))).blocks():
            assert block.ndim == 2


def _archive(path: Path) -> None:
    from mmha.data.extract import extract

    with tempfile.TemporaryDirectory() as target:
        extract(path, Path(target) / "out", "in", ["*"], 10_000)


def _notation(path: Path) -> None:
    from mmha import masks

    masks.parse(path.read_text("utf-8", "replace")).dense(1, 2, 5, 7)


WITH_TENSORS = ("*.json", "*.json", "*.safetensors")
FOLDER = ("config.json", "tokenizer*.json", "vocab.txt", "modules.json", "*.safetensors", "*.bin", "1_P/config.json")
EVENTS = "onset\tduration\ttrial_type\n1.5\t2\tface\n4\t2\thouse\n7.25\t0.5\tface\n"
CONFOUNDS = "x,y\n1,2\n3.5,-4e-2\n"
HTML = '<html><p id="par_id7">Save <b>as</b>\n PDF</p><p>no id</p><h2 id="hd_id1">A &amp; B<br>c</h2></html>'
MASK = "(window(9, 9) | global(0, 3)) & ~dilated(4) | per_head(causal, key_padding([5]))"
READERS = {
    "checkpoint": Reader(seeds.causal_lm, WITH_TENSORS, _checkpoint),
    "tagger": Reader(seeds.tagger, WITH_TENSORS, _tagged),
    "bert": Reader(seeds.bert, WITH_TENSORS, _bert),
    "bert folder": Reader(seeds.bert_folder, FOLDER, _bert),
    "bert pickled": Reader(seeds.bert_pickled, FOLDER, _bert),
    "bert tagger": Reader(seeds.bert_tagger, WITH_TENSORS, _bert_tagger),
    "causal_lm": Reader(seeds.causal_lm, WITH_TENSORS, _of("causal_lm")),
    "seq2seq": Reader(seeds.seq2seq, WITH_TENSORS, _of("seq2seq")),
    "mhanet": Reader(seeds.mhanet, WITH_TENSORS, _of("mhanet")),
    "mamsm": Reader(seeds.mamsm, WITH_TENSORS, _of("mamsm")),
    "conllu": Reader(lambda folder: seeds.text(folder, "a.conllu", seeds.CONLLU), ("*",), _conllu),
    "text": Reader(seeds.text, ("*",), _text),
    "columns": Reader(lambda folder: seeds.text(folder, "a.tsv", "a b\tc d\ne\tf\n"), ("*",), _columns),
    "html": Reader(lambda folder: seeds.text(folder, "a.html", HTML), ("*",), _html),
    "brown": Reader(lambda folder: seeds.text(folder, "ca01", "He/pps saw/vbd 1/2/cd ./.\n\n"), ("*",), _brown),
    "events": Reader(lambda folder: seeds.text(folder, "events.tsv", EVENTS), ("*",), _events),
    "confounds": Reader(lambda folder: seeds.text(folder, "confounds.csv", CONFOUNDS), ("*",), _numbers),
    "nifti": Reader(seeds.nifti(".nii"), ("*",), _bold),
    "nifti packed": Reader(seeds.nifti(".nii.gz"), ("*",), _bold),
    "nifti mask": Reader(seeds.masked_run, ("mask.nii",), _bold),
    **{
        f"sound {ending}": Reader(seeds.sound(ending), ("*",), _sound)
        for ending in (
            ".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".w64", ".caf", ".au", ".g722", ".m4a", ".mka",
        )
    },
    "raw": Reader(lambda folder: seeds.text(folder, "a.raw", seeds.TEXT), ("*",), _raw),
    "zip": Reader(seeds.archive(".zip"), ("*",), _archive),
    "tgz": Reader(seeds.archive(".tar.gz"), ("*",), _archive),
    "notation": Reader(lambda folder: seeds.text(folder, "mask.txt", MASK), ("*",), _notation),
}  # fmt: skip
HEAVY = ("torch", "nibabel", "nilearn.masking", "nilearn.glm.first_level", "soundfile", "av", "tokenizers", "mmha.nn")
# Of functions that take several files, and of an archive's members, which are named.
ARGUMENTS = ("`bold`", "`mask`", "`events`", "`volumes`", "expected paths inside", "expected at most 10,000 bytes")
NAMELESS = ("html", "raw", "notation")  # what they read has no name: a pipe, a text
