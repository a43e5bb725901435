"""One BERT three times, with the same weights: ours on packed rows, transformers' and torch.nn's on padded ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForPreTraining

from mmha.models.bert import Bert, names
from mmha.train.pretraining import Batch

IGNORED = -100  # transformers' label of a token that nobody asks for


class Rows(NamedTuple):
    """A batch padded on the right, (B, T): tokens, segments, which are real, labels of masked words, else IGNORED."""

    tokens: Tensor
    segments: Tensor
    real: Tensor
    labels: Tensor


def padded(batch: Batch) -> Rows:
    """The same sequences, side by side.

    >>> batch = Batch(torch.tensor([2, 5, 3, 2, 3]), [3, 2], torch.zeros(5, dtype=torch.int64), torch.tensor([1]),
    ...               torch.tensor([7]), torch.tensor([0, 1]))
    >>> padded(batch).tokens.tolist(), padded(batch).labels.tolist()
    ([[2, 5, 3], [2, 3, 0]], [[-100, 7, -100], [-100, -100, -100]])
    """
    lengths = torch.tensor(batch.lengths)
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    labels = torch.full_like(batch.tokens, IGNORED)
    labels[batch.places] = batch.labels

    def spread(packed: Tensor, filling: int) -> Tensor:
        return torch.full(real.shape, filling).masked_scatter(real, packed)

    return Rows(spread(batch.tokens, 0), spread(batch.segments, 0), real, spread(labels, IGNORED))


class TorchBert(nn.Module):
    """Our embeddings and heads around `torch.nn.TransformerEncoder`, on padded rows.

    In evaluation torch packs a padded batch to a nested tensor itself (its fast path); in training it does not.
    """

    def __init__(self, model: Bert) -> None:
        super().__init__()
        config = model.config
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.hidden, config.dropout, config.activation, config.norm_eps, True
        )
        layer.dropout.p = 0.0  # as in ours
        self.encoder = nn.TransformerEncoder(layer, config.layers)
        self.encoder.layers.load_state_dict(model.layers.state_dict())
        self.embedding, self.heads = copy.deepcopy(model.embedding), copy.deepcopy(model.heads)

    def forward(self, rows: Rows) -> Tensor:
        """The states of all tokens, (B, T, width)."""
        x = self.embedding(rows.tokens, torch.arange(rows.tokens.shape[1]), rows.segments)
        out: Tensor = self.encoder(x, src_key_padding_mask=~rows.real)
        return out

    def logits(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Of words at the masked places, and of "follows" and "does not"."""
        hidden = self(rows)
        words = self.heads["words"](hidden[rows.labels != IGNORED], self.embedding.tokens.weight)
        return words, self.heads["next"](torch.tanh(self.heads["pooler"](hidden[:, 0])))


def transformers_bert(model: Bert) -> BertForPreTraining:
    """transformers' model of the same sizes and weights, on its sdpa attention."""
    config = BertConfig(**names.document_of(model.config))
    made = BertForPreTraining._from_config(config, attn_implementation="sdpa")
    state, weights = {}, model.state_dict()
    for ours, theirs in names.weights("bert", model.config).items():
        state |= zip(theirs, weights[ours].chunk(len(theirs)), strict=True)
    missing, unknown = made.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith("cls.predictions.decoder")]  # tied
    if missing or unknown:
        raise SystemExit(f"transformers: expected the same weights, lacks {missing}, does not know {unknown}")
    return made


def from_transformers(model: Bert, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to transformers' weights (gradients, say) under the names of ours, q, k and v in one."""
    found = names.weights("bert", model.config).items()
    return {ours: torch.cat([tensors[name] for name in theirs]) for ours, theirs in found}


def from_torch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to the weights of a `TorchBert` under the names of ours."""
    return {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}
