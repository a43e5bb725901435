"""MHANet: a causal network of masked multi-head attention that hears which parts of a sound are speech.

x = max(0, LN(|X|·W)); then for each block x ← LN(x + attend(x)), x ← LN(x + feed_forward(x)); ξ̄ = σ(x·U + c), one
number between 0 and 1 for each bin of each frame: where its a-priori SNR stands among those met in training (`snr.py`).
The mask is what makes it causal: frame t sees frames t − window + 1 … t and no other, so that a stream can be enhanced
as it comes in. Nothing says where a frame stands, and there is no dropout.

Source: Nicolson and Paliwal, *Masked multi-head self-attention for causal speech enhancement*, Speech Communication 125
(2020). As in the published code |X|·W has no bias, which with it makes 4,076,033 weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmha import checkpoint, checks, masks
from mmha.cache import KVCache
from mmha.models.mhanet.config import SHIPPED, Config, read_config
from mmha.models.mhanet.frames import BINS
from mmha.models.mhanet.snr import Statistics
from mmha.ops import attention

EPS = 1e-6


class Attention(nn.Module):
    """Multi-head attention without biases, over the frames themselves or over a cache that takes them up.

    Shapes: x float32 (B, T, width) → (B, T, width).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.project_in = nn.Linear(config.width, 3 * config.width, bias=False)
        self.project_out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, mask: masks.Mask, cache: KVCache | None = None) -> Tensor:
        q, k, v = self.split(x)
        if cache is None:
            seen = attention(q, k, v, mask)
        else:
            cache.append(k, v)
            seen = attention(q, cache, mask=mask)
        out: Tensor = self.project_out(seen.transpose(1, 2).flatten(2))
        return out

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of the frames, each (B, H, T, D)."""
        q, k, v = self.project_in(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v


class Block(nn.Module):
    """x ← LN(x + attend(x)), then x ← LN(x + W₂·max(0, W₁·x + b₁) + b₂): the norm stands after each half (post-LN)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm_attention = nn.LayerNorm(config.width, eps=EPS)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.norm_feed_forward = nn.LayerNorm(config.width, eps=EPS)

    def forward(self, x: Tensor, mask: masks.Mask, cache: KVCache | None = None) -> Tensor:
        x = self.norm_attention(x + self.attention(x, mask, cache))
        out: Tensor = self.norm_feed_forward(x + self.down(nn.functional.relu(self.up(x))))
        return out


class MHANet(nn.Module):
    """The mapped a-priori SNR of each bin of each frame.

    Args: magnitudes float32 (B, T, 257): |X| of frames of a sound whose full scale is 1; caches from `new_caches`: the
        frames follow those that the caches hold; lengths int (B,): row b has so many frames, the rest is padding.
    Returns: logits float32 (B, T, 257); ξ̄ is their sigmoid.
    Raises: ValueError or TypeError naming the argument, what was expected and what came.

    >>> from mmha.models.mhanet import small
    >>> MHANet(small())(torch.zeros(2, 5, 257)).shape
    torch.Size([2, 5, 257])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.project_in = nn.Linear(BINS, config.width, bias=False)
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.project_out = nn.Linear(config.width, BINS)
        # The statistics belong to the weights: without them the output has no meaning.
        self.register_buffer("mean", torch.zeros(BINS))
        self.register_buffer("deviation", torch.ones(BINS))

    def forward(
        self, magnitudes: Tensor, caches: Sequence[KVCache] | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        self._check(magnitudes, caches)
        mask = self.sight if lengths is None else self.sight & masks.KeyPadding(lengths)
        x = torch.relu(self.norm(self.project_in(magnitudes)))
        for number, block in enumerate(self.blocks):
            x = block(x, mask, None if caches is None else caches[number])
        out: Tensor = self.project_out(x)
        return out

    @property
    def sight(self) -> masks.Mask:
        """Which frames a frame may see."""
        if not self.config.causal:
            return masks.Full()
        return masks.Causal() if self.config.window is None else masks.Window(self.config.window - 1)

    @property
    def statistics(self) -> Statistics:
        """What ξ̄ is measured by."""
        return Statistics(self.mean, self.deviation)

    def new_caches(self, window: int, frames: int, batch: int = 1, dtype: torch.dtype = torch.float32) -> list[KVCache]:
        """Empty caches, one a block: they keep `window` frames, and take up to `frames` at a time."""
        checks.require(self.config.causal, "model", "a causal one, for a stream", "one that looks ahead")
        sizes = (batch, self.config.heads, window + frames, self.config.head_dim)
        return [KVCache(*sizes, window=window, dtype=dtype) for _ in self.blocks]

    def look(self, magnitudes: Tensor, window: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """The logits, and how much each frame looked at each other in each block: float32 (B, T, T).

        The weights are the mean of the heads. window: the frames that a frame sees; None = the model's.
        """
        mask = self.sight if window is None else masks.Window(window - 1)
        x = torch.relu(self.norm(self.project_in(magnitudes)))
        seen = []
        for block in self.blocks:
            assert isinstance(block, Block)
            seen.append(attention(*block.attention.split(x), mask, return_weights=True)[1].mean(1))
            x = block(x, mask)
        out: Tensor = self.project_out(x)
        return out, seen

    def _check(self, magnitudes: Tensor, caches: Sequence[KVCache] | None) -> None:
        checks.dtype_in("magnitudes", magnitudes, ("float32", "bfloat16"))
        fits = magnitudes.ndim == 3 and magnitudes.shape[-1] == BINS
        checks.require(fits, "magnitudes", f"shape (B, T, {BINS})", checks.shape_text(magnitudes.shape))
        if caches is not None:
            checks.require(len(caches) == len(self.blocks), "caches", f"one a block = {len(self.blocks)}", len(caches))


def loss(logits: Tensor, target: Tensor, lengths: Tensor, reduction: str = "mean") -> Tensor:
    """−mean over real frames and all bins of ξ̄·log p + (1 − ξ̄)·log(1 − p), p = σ(logits): binary cross-entropy.

    Args: logits, target float32 (B, T, 257); lengths int (B,): what lies beyond a row's length weighs nothing, whatever
        stands there. A silent frame is no padding: it weighs as much as any. reduction, "mean", or "sum" without the
        division.
    """
    real = torch.arange(logits.shape[1]) < lengths[:, None]
    return nn.functional.binary_cross_entropy_with_logits(logits[real], target[real], reduction=reduction)


def save(model: MHANet, path: Path, about: dict[str, Any], name: str | None = None) -> None:
    """Write the network to `path` (.json), and its weights beside it in 16 bits, the statistics among them in 32."""
    kept = ("mean", "deviation")
    state = {k: v if k in kept else v.half() for k, v in model.state_dict().items()}
    checkpoint.save(path, state, {"model": "mhanet", "about": about, "config": asdict(model.config)}, name)


def load(path: Path = SHIPPED) -> MHANet:
    """The network of a checkpoint, of the shipped one without a path.

    Raises: FileNotFoundError when it is not there, ValueError when it is damaged or of another model.
    """
    document, data = checkpoint.read(path)
    config = read_config(document, path)
    weights = {k: v.float() for k, v in checkpoint.tensors(data, path).items()}
    return checkpoint.fill(lambda: MHANet(config), weights, config.parameters + 2 * BINS, path)
