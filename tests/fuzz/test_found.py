"""What damaged files have found, each as the smallest file that did: all raised something else, or took the memory."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fuzz import seeds
from mmha.data import conllu
from mmha.data.extract import extract


def signed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A checkpoint whose tensors are others, and whose document says so."""
    (tensors,) = path.parent.glob("*.safetensors")
    state = load_file(tensors)
    change(state)
    save_file(state, tensors)
    document = json.loads(path.read_text("utf-8"))
    document["sha256"] = hashlib.sha256(tensors.read_bytes()).hexdigest()
    path.write_text(json.dumps(document))


def test_a_number_of_thousands_of_digits_in_conllu() -> None:
    line = "9" * 5000 + "\tI" + 8 * "\t_"
    with pytest.raises(ValueError, match=r"^a\.conllu, line 1: expected word number 1, got 999"):
        list(conllu.parse([line], "a.conllu"))


@pytest.mark.parametrize("content", ["x,y\n1\r2,3\n", f"x,y\n1,{'2' * 200_000}\n"], ids=["return", "long"])
def test_cells_that_the_csv_module_refuses(tmp_path: Path, content: str) -> None:
    from mmha.data.bold import tables

    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    with pytest.raises(ValueError, match=r"a\.csv: line [12]: expected cells of a table, got others \(.*\)$"):
        tables.numbers(path)


@pytest.mark.parametrize("broken", ["stream", "encrypted", "nameless", "no text"])
def test_archives_that_break_on_the_way(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("in/a", b"hello " * 500)
    data = bytearray(path.read_bytes())
    if broken == "stream":
        at = data.index(b"in/a") + 4
        data[at : at + 2] = b"\xff\xff"
    elif broken == "encrypted":
        for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(mark) + flags] |= 1
    elif broken == "nameless":
        at = data.index(b"PK\x01\x02")
        data[at + 28 : at + 32] = b"\0\0\x04\0"  # the name becomes an extra field
    else:
        at = data.index(b"PK\x01\x02")
        data[at + 9] |= 8  # UTF-8
        data[at + 46] = 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"expected a whole archive, got a damaged one: a\.zip \("):
        extract(path, tmp_path / "out", "in", ["*"], 10_000)


def test_an_archive_of_a_file_without_a_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(".", b"hello")
    extract(tmp_path / "a.zip", tmp_path / "out", "in", ["*"], 10_000)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["a\0.safetensors", "a\ud800.safetensors", ""])
def test_names_of_tensors_that_no_file_has(tmp_path: Path, name: str) -> None:
    from mmha import checkpoint

    path = seeds.mhanet(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "tensors": name}))
    with pytest.raises(ValueError, match=r"mhanet\.json: expected a checkpoint, got a damaged document"):
        checkpoint.read(path)


def test_scales_that_would_make_a_table_of_any_size(tmp_path: Path) -> None:
    from mmha.models import seq2seq

    path = seeds.seq2seq(tmp_path)

    def change(state: dict[str, Any]) -> None:
        name = next(name for name in state if name.endswith(".scale"))
        state[name] = torch.ones(100_000, 1, 1, dtype=torch.float16)

    signed(path, change)
    with pytest.raises(ValueError, match=r"seq2seq\.json: expected a scale for each row of .*, got shapes \(100000, 1"):
        seq2seq.load(path)


@pytest.mark.parametrize("kind", ["mhanet", "bert_tagger"])
def test_weights_of_other_shapes_are_one_line(tmp_path: Path, kind: str) -> None:
    from mmha.models import mhanet
    from mmha.models.bert import tagging

    path = getattr(seeds, kind)(tmp_path)
    name = "head.weight" if kind == "bert_tagger" else "project_in.weight"

    def change(state: dict[str, Any]) -> None:
        chosen = name if name in state else max(state, key=lambda one: state[one].ndim)
        state[chosen] = state[chosen].flatten().clone()

    signed(path, change)
    with pytest.raises(ValueError, match=r"^[^\n]*: expected the weights of [^\n]*$"):
        (tagging if kind == "bert_tagger" else mhanet).load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", "6"), ("heads", 3), ("layers", 10**9), ("embedding", None), ("taps", 5), ("taps", [0]), ("more", 1)],
)
def test_sizes_of_a_tagger(tmp_path: Path, name: str, value: object) -> None:
    from mmha.models.tagger.model import load
    from mmha.models.tagger.quick import QuickTagger

    path = seeds.tagger(tmp_path)
    document = json.loads(path.read_text())
    document["config"][name] = value
    path.write_text(json.dumps(document))
    for read in (load, QuickTagger):
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: expected .*"):
            read(path)


def test_weights_of_a_tagger_that_are_not_those_of_its_sizes(tmp_path: Path) -> None:
    from mmha.models.tagger.model import load
    from mmha.models.tagger.quick import QuickTagger

    path = seeds.tagger(tmp_path)
    signed(path, lambda state: state.update({"mix.weight": torch.zeros(2, 2)}))
    for read in (load, QuickTagger):
        with pytest.raises(ValueError, match=r"mix\.weight: expected \(4, 4\), got \(2, 2\)"):
            read(path)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_rates_beyond_what_can_be_resampled(tmp_path: Path, rate: int) -> None:
    pytest.importorskip("soundfile")
    from mmha.data import sound

    path = seeds.sound(".wav")(tmp_path)
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"sound\.wav: expected a sound of 1000 to 768000 Hz, got {rate} Hz"):
        sound.info(path)


def test_a_name_in_a_container_that_is_no_text(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from mmha.data import sound

    path = seeds.sound(".m4a")(tmp_path)
    data = path.read_bytes()
    assert b"SoundHandler" in data
    path.write_bytes(data.replace(b"SoundHandler", b"\xff\xfeundHandler"))
    assert sound.info(path).rate == 16000


def test_a_track_whose_codec_has_no_name(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from mmha.data import sound

    path = seeds.sound(".m4a")(tmp_path)
    data = path.read_bytes()
    assert data.count(b"stsd") == 1
    path.write_bytes(data.replace(b"stsd", b"st?d"))  # what names the codec
    with pytest.raises(ValueError, match=r"sound\.m4a: expected sound of a kind that libav decodes, got one"):
        sound.info(path)


def test_a_chunk_that_ends_beyond_all_files(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    from mmha.data import sound

    path = seeds.sound(".caf")(tmp_path)
    data = bytearray(path.read_bytes())
    data[12:20] = struct.pack(">q", 2**63 - 1)  # the length of the first chunk
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"sound\.caf: expected a whole file, got one that is cut off: it ends before"):
        sound.info(path)


@pytest.mark.parametrize(
    ("at", "layout", "values", "message"),
    [
        (70, "<h", (9999,), "expected a NIfTI image"),  # a code of numbers that nobody knows
        (40, "<8h", (4, 3, -2, 5, 7, 1, 1, 1), "expected a 4-D image .*, got shape"),
        (40, "<8h", (4, -3, -2, 5, 7, 1, 1, 1), "expected a 4-D image .*, got shape"),
        (40, "<8h", (9, 3, 2, 5, 7, 1, 1, 1), "expected a NIfTI image"),
        (123, "B", (7,), "expected a TR in the header"),
        (108, "<f", (-5.0,), "expected a NIfTI image"),
        (280, "<4f", (float("nan"),) * 4, "expected an affine of finite numbers"),
        (280, "<4f", (0.0,) * 4, "expected an affine with voxels of some extent"),
    ],
)
def test_headers_of_images(tmp_path: Path, at: int, layout: str, values: tuple[Any, ...], message: str) -> None:
    pytest.importorskip("nilearn")
    from mmha.data import bold

    path = seeds.nifti(".nii")(tmp_path)
    data = bytearray(path.read_bytes())
    data[at : at + struct.calcsize(layout)] = struct.pack(layout, *values)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"run\.nii: {message}"):
        bold.load(path, drop=True)
