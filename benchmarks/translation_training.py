"""A training step of the Transformer: ours, whose sentences lie end to end, beside torch.nn.Transformer, padded.

Both have the same weights, batches, loss (label smoothing 0.1), places of dropout and optimiser. torch gets what it is
fastest with: sentences of a batch have similar lengths, its causal mask is `is_causal`, the padding of targets is not
masked beyond that, and logits are computed for real tokens only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmha.models.seq2seq import Seq2Seq
from mmha.models.seq2seq.model import DecoderLayer, EncoderLayer
from mmha.nn import MultiheadAttention, sinusoidal

SMOOTHING, POSITIONS = 0.1, 512


@dataclass(frozen=True)
class Batch:
    """Sentences by their tokens; each side lays them out as it wants them, ahead of the clock."""

    sources: list[list[int]]
    targets: list[list[int]]

    @property
    def tokens(self) -> int:
        """How many target tokens are predicted, ends included."""
        return sum(len(target) + 1 for target in self.targets)


def batches(vocabulary: int, count: int, size: int, similar: bool, seed: int = 0) -> list[Batch]:
    """`count` batches of about `size` target tokens, of random tokens in sentences as long as those of help pages.

    Lengths are log-normal about 16 (a tenth below 6, a tenth above 43), at most 120; targets differ from their sources
    by up to a fifth. similar: sentences of a batch have similar lengths, as a bucketing sampler makes them.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths: list[tuple[int, int]] = []
    while sum(target + 1 for _, target in lengths) < count * size:
        source = min(120, max(1, round(math.exp(2.77 + 0.77 * float(torch.randn((), generator=generator))))))
        lengths.append((source, max(1, round(source * (0.8 + 0.4 * float(torch.rand((), generator=generator)))))))
    if similar:
        lengths.sort(key=lambda pair: pair[1])
    made, now, room = [], [], 0
    for pair in lengths:
        now.append(pair)
        room += pair[1] + 1
        if room >= size:
            made.append(now)
            now, room = [], 0
    order = torch.randperm(len(made), generator=generator).tolist()

    def words(length: int) -> list[int]:
        return torch.randint(vocabulary - 1, (length,), generator=generator).tolist()

    return [Batch([words(s) for s, _ in made[i]], [words(t) for _, t in made[i]]) for i in order]


class Ours:
    """`Seq2Seq` on packed sentences."""

    def __init__(self, model: Seq2Seq) -> None:
        self.model = model

    def prepare(self, batch: Batch) -> tuple[object, ...]:
        """The arguments of `loss`."""
        end = [self.model.end]
        sources, lengths = [[*s, *end] for s in batch.sources], [len(t) + 1 for t in batch.targets]
        source, target, wanted = map(
            in_a_row, (sources, [[*end, *t] for t in batch.targets], [[*t, *end] for t in batch.targets])
        )
        return source, [len(s) for s in sources], target, lengths, wanted

    def loss(self, source: Tensor, read: list[int], target: Tensor, written: list[int], wanted: Tensor) -> Tensor:
        """Mean smoothed cross-entropy of the target tokens."""
        return F.cross_entropy(self.model(source, read, target, written), wanted, label_smoothing=SMOOTHING)


class Torch:
    """The same on torch.nn.Transformer's layers, padded."""

    def __init__(self, ours: Seq2Seq) -> None:
        self.model, self.end = Twin(ours), ours.end

    def prepare(self, batch: Batch) -> tuple[object, ...]:
        """The arguments of `loss`."""
        end = [self.end]
        source, padding = padded([[*s, *end] for s in batch.sources])
        target, beyond = padded([[*end, *t] for t in batch.targets])
        return source, padding, target, ~beyond, in_a_row([[*t, *end] for t in batch.targets])

    def loss(self, source: Tensor, padding: Tensor, target: Tensor, real: Tensor, wanted: Tensor) -> Tensor:
        """Mean smoothed cross-entropy of the target tokens."""
        return F.cross_entropy(self.model(source, padding, target, real), wanted, label_smoothing=SMOOTHING)


class Twin(nn.Module):
    """torch.nn.Transformer with the weights of a model of ours."""

    def __init__(self, ours: Seq2Seq) -> None:
        super().__init__()
        config = self.config = ours.config
        sizes = (config.width, config.heads, config.hidden, config.dropout)
        kind = {"batch_first": True, "norm_first": config.norm_first}
        norms = [nn.LayerNorm(config.width) if config.norm_first else None for _ in range(2)]
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*sizes, **kind), config.encoder_layers, norms[0], enable_nested_tensor=False
        )
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*sizes, **kind), config.decoder_layers, norms[1])
        self.transformer = nn.Transformer(
            config.width, config.heads, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
        )
        self.embedding, self.dropout = nn.Embedding(config.vocabulary, config.width), nn.Dropout(config.dropout)
        self.embedding.load_state_dict(ours.embedding.state_dict())
        self.codes = sinusoidal(torch.arange(POSITIONS), config.width)
        for made, layer in zip(encoder.layers, ours.encoder, strict=True):
            copy(made, layer, config.attention_dropout)
        for made, layer in zip(decoder.layers, ours.decoder, strict=True):
            copy(made, layer, config.attention_dropout)
        if config.norm_first:
            encoder.norm.load_state_dict(ours.encoder_norm.state_dict())
            decoder.norm.load_state_dict(ours.decoder_norm.state_dict())

    def forward(self, source: Tensor, padding: Tensor, target: Tensor, real: Tensor) -> Tensor:
        """Logits of the real target tokens (M, V)."""
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.transformer(
            self.embed(source), self.embed(target), tgt_mask=causal, tgt_is_causal=True,
            src_key_padding_mask=padding, memory_key_padding_mask=padding,
        )  # fmt: skip
        return F.linear(hidden[real], self.embedding.weight)

    def embed(self, tokens: Tensor) -> Tensor:
        """Scaled embeddings and the codes of the positions."""
        x = self.embedding(tokens) * math.sqrt(self.config.width) + self.codes[: tokens.shape[1]]
        return self.dropout(x)


def copy(made: nn.Module, ours: EncoderLayer | DecoderLayer, attention_dropout: float) -> None:
    """Give torch's layer our weights, and dropout where we have it."""
    pairs: list[tuple[nn.Module, nn.Module]] = [(made.self_attn, ours.own)]
    if isinstance(ours, DecoderLayer):
        pairs.append((made.multihead_attn, ours.cross))
    pairs += [(made.linear1, ours.feed_forward[0]), (made.linear2, ours.feed_forward[2])]
    pairs += [(getattr(made, f"norm{n}"), residual.norm) for n, residual in enumerate(ours.residuals, 1)]
    for theirs, own in pairs:
        theirs.load_state_dict(own.state_dict())
        if isinstance(own, MultiheadAttention):
            theirs.dropout = attention_dropout
    made.dropout.p = 0.0  # inside the feed-forward part, where we have none


def in_a_row(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows laid end to end: (N,)."""
    return torch.tensor(list(itertools.chain(*rows)))


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows padded with 0, and where that is: (B, T) each."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    return tokens, torch.arange(longest) >= torch.tensor([len(row) for row in rows])[:, None]


def steps(side: Ours | Torch, many: Sequence[Batch]) -> Callable[[], None]:
    """Training steps on all batches, one after the other."""
    prepared = [side.prepare(batch) for batch in many]
    optimiser = torch.optim.Adam(side.model.parameters(), 1e-4, (0.9, 0.98), 1e-9, fused=True)

    def work() -> None:
        side.model.train()
        for arguments in prepared:
            optimiser.zero_grad(set_to_none=True)
            side.loss(*arguments).backward()
            optimiser.step()

    return work
