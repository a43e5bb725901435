"""Stage 2, what goes in: the attention of [CLS] over the values of each voxel's series, smoothed in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmha import checks
from mmha.models.mamsm.model import MAMSM

CHUNK = 1 << 14  # values that pass through the model at a time
SECONDS, PASSES = 7.2, 3  # 10 volumes of the published data, whose TR is 0.72 s; averaged three times


def window(tr: float, seconds: float = SECONDS) -> int:
    """How many volumes the moving average goes over: seconds / TR, rounded, at least 1.

    >>> window(0.72), window(2.5), window(30.0)
    (10, 3, 1)
    """
    return max(1, round(seconds / tr))


def moving_average(x: Tensor, width: int, lengths: Sequence[int], passes: int = PASSES) -> Tensor:
    """The mean of the `width` values around each, x̄_t = Σ x_s / n over t − ⌊width/2⌋ ≤ s ≤ t + ⌊(width − 1)/2⌋.

    Args: x (…, T); width >= 1; lengths of the runs, of sum T: a mean takes nothing from another run, and at the ends it
        goes over what is there; passes >= 0, how often.
    Returns: float32 (…, T).
    Raises: ValueError or TypeError naming the argument.

    >>> moving_average(torch.tensor([3.0, 0.0, 0.0, 9.0, 1.0]), 3, [4, 1], passes=1)
    tensor([1.5000, 1.0000, 3.0000, 4.5000, 1.0000])
    """
    checks.integer("width", width, minimum=1)
    checks.integer("passes", passes, minimum=0)
    checks.require(sum(lengths) == x.shape[-1], "lengths", f"lengths of sum T = {x.shape[-1]}", f"sum {sum(lengths)}")
    parts = []
    for part in torch.split(x.double(), list(lengths), -1):
        at = torch.arange(part.shape[-1])
        first, end = (at - width // 2).clamp(min=0), (at + (width - 1) // 2 + 1).clamp(max=len(at))
        for _ in range(passes):
            sums = torch.nn.functional.pad(part.cumsum(-1), (1, 0))
            part = (sums[..., end] - sums[..., first]) / (end - first)
        parts.append(part.float())
    return torch.cat(parts, -1) if parts else x.float()


def standardise(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean 0 and deviation 1 in each run, of each row of x (…, T); a row that is constant over a run is 0 there."""
    parts = []
    for part in torch.split(x, list(lengths), -1):
        centred = part - part.mean(-1, keepdim=True)
        scale = centred.square().mean(-1, keepdim=True).sqrt()
        parts.append(torch.where(scale > 1e-12, centred / scale, torch.zeros_like(part)))
    return torch.cat(parts, -1)


def features(
    model: MAMSM,
    scale: Any,
    values: Any,
    lengths: Sequence[int],
    width: int,
    show: Callable[[int], None] = lambda voxels: None,
    published: bool | None = None,
) -> Tensor:
    """How much [CLS] looks at each value, in the last layer, of every voxel and head, over time.

    x_t = log w_t, where w is the row of [CLS] over a run of a voxel; as published, x_t = w_t, of which a few large
    weights are nearly all there is once a model is trained. Rows are smoothed (`moving_average`, three passes) and
    standardised, run by run. Voxels pass through the model a few at a time.

    Args: model, in eval mode or not, left as it was; scale, of its tokens; values float32 (voxels, T); lengths of the
        runs, of sum T; width, of the moving average, in volumes; show, called with the number of voxels done;
        published, the weights themselves, None = as the model's config says it is faithful.
    Returns: float32 (voxels, heads, T).
    Raises: as the model's `attention_of_cls`.
    Source: He et al. (2023), section 2.4; the logarithm, and what is done run by run, are added here.
    """
    total = sum(lengths)
    checks.require(values.shape[1] == total, "lengths", f"lengths of sum T = {values.shape[1]}", f"sum {total}")
    made = torch.empty(len(values), model.config.heads, total)
    rows = max(1, CHUNK // max(1, total))
    raw = model.config.faithful if published is None else published
    mode = model.training
    model.eval()
    try:
        for at in range(0, len(values), rows):
            tokens = scale.encode(values[at : at + rows])
            parts = [model.attention_of_cls(part) for part in torch.split(tokens, list(lengths), 1)]
            looks = torch.cat(parts, -1)
            if not raw:
                looks = looks.clamp(min=torch.finfo(looks.dtype).tiny).log()
            made[at : at + rows] = standardise(moving_average(looks, width, lengths), lengths)
            show(min(at + rows, len(values)))
    finally:
        model.train(mode)
    return made
