"""The sizes of MHANet, and the named ones."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmha import checks
from mmha.models.mhanet.frames import BINS

SHIPPED = Path(__file__).parents[2] / "weights" / "mhanet.json"


@dataclass(frozen=True)
class Config:
    """Sizes of MHANet.

    `hidden` is the width inside the feed-forward half; a frame sees the last `window` frames, itself among them, None =
    all before it; `causal` = False lets it see the frames after it, too (for comparison: it cannot be streamed then).

    Raises: ValueError or TypeError for sizes that do not fit together.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    window: int | None = None
    causal: bool = True

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "hidden"):
            checks.integer(name, getattr(self, name), minimum=1)
        checks.require(self.width % self.heads == 0, "heads", f"a divisor of width = {self.width}", self.heads)
        if self.window is not None:
            checks.integer("window", self.window, minimum=1)
        checks.require(isinstance(self.causal, bool), "causal", "True or False", self.causal)
        checks.require(self.causal or self.window is None, "window", "None without causal", self.window)

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """How many weights a network of these sizes has."""
        first = BINS * self.width + 2 * self.width
        block = 4 * self.width**2 + 2 * self.width * self.hidden + self.hidden + self.width + 4 * self.width
        return first + self.layers * block + self.width * BINS + BINS


def published(window: int | None = None) -> Config:
    """The network of Nicolson and Paliwal (2020): 4,076,033 weights.

    >>> published().parameters
    4076033
    """
    return Config(width=256, layers=5, heads=8, hidden=1024, window=window)


def small(window: int | None = 256) -> Config:
    """For training and running on a CPU; 256 frames are 4.1 s.

    >>> small().parameters
    1317377
    """
    return Config(width=160, layers=4, heads=8, hidden=640, window=window)


BUILDERS = {"published": published, "small": small}


def read_config(document: dict[str, Any], path: Path) -> Config:
    """The sizes in a checkpoint's document.

    Raises: ValueError when they are not those of MHANet.
    """
    if document.get("model") != "mhanet":
        raise ValueError(f"{path}: expected a speech enhancer, got {document.get('model')!r}")
    sizes = document.get("config")
    if not isinstance(sizes, dict) or not set(sizes) <= {field.name for field in fields(Config)}:
        raise ValueError(f"{path}: expected sizes of a speech enhancer, got {checks.describe(sizes)}")
    try:
        return Config(**sizes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected sizes that fit together, got others ({error})") from None
