"""The BERT that a command works with: the shipped one, a checkpoint, a Hugging Face folder, or a set of data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmha.cli.training import fetch

if TYPE_CHECKING:
    from mmha.models.bert import Bert, Tokenizer

SHIPPED = "shipped"
FETCHED = ("albert-rxn", "minilm")  # the sets of data that are a BERT


def place(name: str, option: str) -> Path:
    """Where the model lies; a set of data is fetched first when it is not here.

    Raises: ValueError naming the option for what is neither a known name nor a file or folder.
    """
    from mmha.checks import listed
    from mmha.models import bert

    if name == SHIPPED:
        return bert.SHIPPED
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name in FETCHED:
        _announce(name)
        return fetch(name)
    raise ValueError(f"{option}: expected a file, a folder, {listed([SHIPPED, *FETCHED])}, got {name!r}")


def load(name: str, option: str) -> tuple[Bert, Tokenizer]:
    """The model and its tokenizer.

    Raises: as `place`; FileNotFoundError or ValueError for a file or folder without a BERT in it.
    """
    from mmha.models import bert

    return bert.load(place(name, option))


def _announce(name: str) -> None:
    """Say on stderr that a set of data will be fetched, when it will."""
    from mmha.cli.printing import console
    from mmha.data import registry

    if not (registry.root() / name).exists():
        entry = registry.entry(name)
        said = f"{name} is not here yet: fetching {entry.size / 1e6:.0f} MB with {entry.client}, this once"
        console(stderr=True).print(said, markup=False)
