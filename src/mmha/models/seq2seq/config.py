"""The sizes of an encoder–decoder, and the named ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmha import checkpoint, checks

#: The translators that ship, from English, by language.
SHIPPED = {name: Path(__file__).parents[2] / "weights" / f"translate-{name}.json" for name in ("de", "zh")}


@dataclass(frozen=True)
class Config:
    """Sizes of an encoder–decoder.

    `vocabulary` counts the tokens of both languages, the end of a sentence included; a head has width / heads numbers;
    `hidden` is the width inside the feed-forward part. `dropout` is that of residuals and embeddings, as published;
    `attention_dropout` drops attention weights. `norm_first` puts the norms before the sublayers (Xiong et al. 2020).

    Raises: ValueError or TypeError for sizes that do not fit together.
    """

    vocabulary: int
    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    hidden: int
    dropout: float = 0.1
    attention_dropout: float = 0.0
    norm_first: bool = False

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "encoder_layers", "decoder_layers", "heads", "hidden"):
            checks.integer(name, getattr(self, name), minimum=1)
        checks.require(self.width % self.heads == 0, "width", f"a multiple of heads = {self.heads}", self.width)
        checks.require(self.width % 2 == 0, "width", "an even number, for sines and cosines", self.width)
        for name in ("dropout", "attention_dropout"):
            value = getattr(self, name)
            checks.require(0 <= checks.number(name, value) < 1, name, "a number in [0, 1)", value)
        if not isinstance(self.norm_first, bool):
            raise checks.type_error("norm_first", "True or False", self.norm_first)

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """How many weights a model of these sizes has."""
        norm = 2 * self.width
        attention = 4 * self.width * (self.width + 1) + norm
        feed_forward = 2 * self.width * self.hidden + self.hidden + self.width + norm
        layers = self.encoder_layers * (attention + feed_forward) + self.decoder_layers * (2 * attention + feed_forward)
        return self.vocabulary * self.width + layers + (2 * norm if self.norm_first else 0)


def tiny(vocabulary: int) -> Config:
    """For tests and short texts: seconds to train."""
    return Config(vocabulary, width=32, encoder_layers=2, decoder_layers=2, heads=4, hidden=64)


def small(vocabulary: int) -> Config:
    """For some ten thousand sentences: about an hour to train."""
    return Config(vocabulary, width=192, encoder_layers=3, decoder_layers=3, heads=6, hidden=768)


def base(vocabulary: int = 37_000) -> Config:
    """The base model as published, with 37 000 tokens for both languages (Vaswani et al. 2017, table 3)."""
    return Config(vocabulary, width=512, encoder_layers=6, decoder_layers=6, heads=8, hidden=2048)


def big(vocabulary: int = 37_000) -> Config:
    """The big model as published (Vaswani et al. 2017, table 3)."""
    return Config(vocabulary, width=1024, encoder_layers=6, decoder_layers=6, heads=16, hidden=4096, dropout=0.3)


BUILDERS = {"tiny": tiny, "small": small, "base": base, "big": big}


def read_config(document: dict[str, Any], path: Path) -> Config:
    """The sizes in a checkpoint's document.

    Raises: ValueError when they are not those of an encoder–decoder.
    """
    return checkpoint.sizes(document, path, Config, "seq2seq", "an encoder-decoder")
