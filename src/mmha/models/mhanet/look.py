"""What happens inside: the gain of each bin, and how far back each frame looked."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmha.models.mhanet.frames import spectra
from mmha.models.mhanet.gains import gain
from mmha.models.mhanet.stream import Enhancer, check


class Look(NamedTuple):
    """Of T frames of a sound: |X| and its factor, float32 (T, 257); and `back`, float32 (blocks, T, window).

    back[l, t, d] is the weight that frame t gives in block l to the frame d frames before it, the mean of the heads;
    0 where there was none yet.
    """

    magnitudes: Tensor
    gain: Tensor
    back: Tensor


@torch.inference_mode()
def look(enhancer: Enhancer, sound: Tensor) -> Look:
    """How a sound at 16 kHz, float32 (N,), is enhanced. It takes memory for T · T weights a head, T = N / 256.

    Raises: as `Stream.push`.

    >>> from mmha.models.mhanet import MHANet, small
    >>> look(Enhancer(MHANet(small(window=7))), torch.zeros(1000)).back.shape
    torch.Size([4, 5, 7])
    """
    check(sound, None, alone=True)
    model, window = enhancer.model, enhancer.window
    seen = spectra(sound).abs()
    logits, weights = model.look(seen[None], window)
    before = torch.arange(len(seen))[:, None] - torch.arange(window)
    # Zeros ahead of the first frame are what a frame looked at before there was any.
    back = [torch.nn.functional.pad(rows[0], (1, 0)).gather(1, (before + 1).clamp_min(0)) for rows in weights]
    ratio = model.statistics.ratio(torch.sigmoid(logits[0]))
    gains = torch.from_numpy(gain(enhancer.gain, ratio.numpy())).float()
    factor = enhancer.shape(gains, torch.zeros(gains.shape[-1]))
    return Look(seen, factor, torch.stack(back))
