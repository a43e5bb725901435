"""Texts as vectors that are near each other when the texts mean the same.

e(text) = mean / ‖mean‖ of the last layer's numbers over the text's tokens, [CLS] and [SEP] among them; models that say
so take the first token's instead. The cosine of two texts is the product of their vectors. A text without tokens, such
as an empty line, is the zero vector, whose cosine with every other is 0.

Source: Reimers and Gurevych, *Sentence-BERT* (2019), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mmha import checks
from mmha.models.bert import untrusted
from mmha.models.bert.model import Bert
from mmha.models.bert.tokenizer import Tokenizer
from mmha.nn import groups

TOKENS = 2048  # that go through the model at a time


@dataclass(frozen=True)
class Pooling:
    """How a model makes one vector of a text: over which tokens, and of how many of them, [CLS] and [SEP] included.

    `tokens` None = as many as the model has positions.
    """

    over: Literal["mean", "first"] = "mean"
    tokens: int | None = None

    def __post_init__(self) -> None:
        checks.one_of("over", self.over, ("mean", "first"))
        if self.tokens is not None:
            checks.integer("tokens", self.tokens, minimum=3)


class Embedded(NamedTuple):
    """Vectors float32 (B, width), of length 1 or 0, and which texts were longer than the model takes."""

    vectors: Tensor
    cut: list[int]


@torch.no_grad()
def embed(model: Bert, tokenizer: Tokenizer, texts: Sequence[str], pooling: Pooling | None = None) -> Embedded:
    """One vector a text, in their order.

    Texts of like length are packed end to end, some thousand tokens at a time; those that are too long lose their end.

    Raises: TypeError for what is no text, ValueError for text that is not Unicode (a lone surrogate) and for a model
        without room for a token between [CLS] and [SEP].

    >>> from mmha.models.bert import tiny
    >>> tokenizer = Tokenizer.of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat"])
    >>> vectors, cut = embed(Bert(tiny(7)), tokenizer, ["the cat", "", "cat"])
    >>> vectors.shape, [round(float(v.norm()), 4) for v in vectors], cut
    (torch.Size([3, 128]), [1.0, 0.0, 1.0], [])
    """
    pooling = pooling or Pooling()
    most = min(pooling.tokens or model.config.positions, model.config.positions) - 2
    checks.require(most >= 1, "model", "one with at least 3 positions", model.config.positions)
    ids = tokenizer.encode_all(texts)
    cut = [i for i, found in enumerate(ids) if len(found) > most]
    rows = [[tokenizer.cls, *found[:most], tokenizer.sep] for found in ids]
    lengths = [len(row) for row in rows]
    order = sorted((i for i, found in enumerate(ids) if found), key=lambda i: (-lengths[i], i))
    vectors = torch.zeros(len(rows), model.config.width)
    model.eval()
    for group in groups(lengths, order, TOKENS):
        hidden = model(torch.tensor([token for i in group for token in rows[i]]), [lengths[i] for i in group])
        wide = hidden if hidden.dtype == torch.float64 else hidden.float()
        parts = wide.split([lengths[i] for i in group])
        made = torch.stack([part[0] if pooling.over == "first" else part.mean(0) for part in parts])
        vectors[group] = torch.nn.functional.normalize(made, dim=1).float()
    return Embedded(vectors, cut)


def read_pooling(place: Path | str) -> Pooling:
    """How the model in a folder of sentence-transformers pools, as its files say; elsewhere the mean of all tokens.

    Raises: ValueError for a way of pooling, or a module after it, that is not computed here.
    """
    folder = Path(place)
    modules = folder / "modules.json"
    if not modules.exists():
        return Pooling()
    where = _places(untrusted.content(modules), modules)
    settings, length = folder / where.get("Pooling", "1_Pooling") / "config.json", folder / "sentence_bert_config.json"
    flags = untrusted.document(settings) if settings.exists() else {"pooling_mode_mean_tokens": True}
    chosen = sorted(name.removeprefix("pooling_mode_") for name, on in flags.items() if on is True and "_mode_" in name)
    if chosen not in (["mean_tokens"], ["cls_token"]):
        got = " and ".join(map(repr, chosen)) or "none"  # repr: a name in a file may hold line breaks
        raise ValueError(f"{settings}: expected pooling by mean_tokens or cls_token, got {got}")
    tokens = untrusted.document(length).get("max_seq_length") if length.exists() else None
    try:
        return Pooling("mean" if chosen == ["mean_tokens"] else "first", tokens)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{length}: expected a max_seq_length that fits, got another ({error})") from None


def _places(content: Any, path: Path) -> dict[str, str]:
    """The folder of each module of a sentence-transformers model, by its kind."""
    try:
        found = {str(module["type"]).rsplit(".", 1)[-1]: Path(module["path"]).name for module in content}
    except (TypeError, KeyError):
        raise ValueError(f"{path}: expected a list of modules, got {checks.describe(content)}") from None
    for kind in found:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ValueError(f"{path}: expected modules Transformer, Pooling and Normalize, got {kind!r}")
    return found
