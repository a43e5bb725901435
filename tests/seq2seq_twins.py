"""Small encoder–decoders, and torch.nn's own transformer with the same weights, to judge them by."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmha.models.seq2seq import Config, Seq2Seq
from mmha.nn import sinusoidal

SIZES = {"width": 28, "encoder_layers": 3, "decoder_layers": 2, "heads": 7, "hidden": 37, "dropout": 0.0}
NAMES = {
    r"^decoder\.(\d+)\.cross": r"decoder.layers.\1.multihead_attn",
    r"^(encoder|decoder)\.(\d+)\.own": r"\1.layers.\2.self_attn",
    r"^(encoder|decoder)\.(\d+)\.feed_forward\.0": r"\1.layers.\2.linear1",
    r"^(encoder|decoder)\.(\d+)\.feed_forward\.2": r"\1.layers.\2.linear2",
    r"^(encoder|decoder)_norm": r"\1.norm",
}


def build(vocabulary: int, norm_first: bool = False, seed: int = 3) -> Seq2Seq:
    """A model with random weights, large enough that some next tokens are far more probable than others."""
    torch.manual_seed(seed)
    model = Seq2Seq(Config(vocabulary, **SIZES, norm_first=norm_first))  # type: ignore[arg-type]
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.3)
        else:
            nn.init.normal_(weight, 1.0 if "norm.weight" in name else 0.0, 0.2)
    return model.eval()


class Twin:
    """What torch.nn.Transformer makes of the same weights, in float64; called with one padded batch."""

    def __init__(self, model: Seq2Seq) -> None:
        config = model.config
        self.config, self.table = config, model.embedding.weight.double()
        sizes = (config.width, config.heads, config.hidden, 0.0)
        how = {"batch_first": True, "norm_first": config.norm_first}
        norms = [nn.LayerNorm(config.width) if config.norm_first else None for _ in range(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's encoder tells why it does not make nested tensors
            encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(*sizes, **how), config.encoder_layers, norms[0])  # type: ignore[arg-type]
            decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*sizes, **how), config.decoder_layers, norms[1])  # type: ignore[arg-type]
        self.body = nn.Transformer(config.width, config.heads, custom_encoder=encoder, custom_decoder=decoder, **how)
        state = {_name(name): weight for name, weight in model.state_dict().items() if not name.startswith("embedding")}
        self.body.load_state_dict(state)
        self.body.double().train()  # where torch has only one way to compute

    def embed(self, tokens: Tensor) -> Tensor:
        places = sinusoidal(torch.arange(tokens.shape[1]), self.config.width)
        return self.table[tokens] * math.sqrt(self.config.width) + places

    def __call__(self, source: Tensor, source_lengths: Sequence[int], target: Tensor) -> Tensor:
        """Logits float64 (B, T, vocabulary) of a padded batch."""
        hidden = torch.arange(source.shape[1]) >= torch.tensor(source_lengths)[:, None]
        later = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=torch.float64)
        padding = torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, -torch.inf)
        made = self.body(
            self.embed(source), self.embed(target), tgt_mask=later,
            src_key_padding_mask=padding, memory_key_padding_mask=padding,
        )  # fmt: skip
        return made @ self.table.T  # type: ignore[no-any-return]


def _name(ours: str) -> str:
    """The name in torch.nn.Transformer of one of our weights."""
    name = re.sub(r"\.residuals\.(\d)\.norm", lambda found: f".norm{int(found[1]) + 1}", ours)
    for pattern, theirs in NAMES.items():
        name = re.sub(pattern, theirs, name)
    return re.sub(r"^(encoder|decoder)\.(\d+)", r"\1.layers.\2", name)


@functools.cache
def trained(norm_first: bool) -> Seq2Seq:
    """A model on its way to writing sources backwards: its opinions depend on all it sees, and it has doubts."""
    model = build(11, norm_first)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator, end = torch.Generator().manual_seed(5), torch.tensor([10])
    for _ in range(120):
        lengths = torch.randint(0, 8, (16,), generator=generator).tolist()
        rows = [torch.randint(0, 10, (n,), generator=generator) for n in lengths]
        source = torch.cat([part for row in rows for part in (row, end)])
        target = torch.cat([part for row in rows for part in (end, row.flip(0))])
        wanted = torch.cat([part for row in rows for part in (row.flip(0), end)])
        sizes = [n + 1 for n in lengths]
        nn.functional.cross_entropy(model(source, sizes, target, sizes), wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.requires_grad_(False)
