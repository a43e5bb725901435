"""The picture of `mmha enhance --plot`: the sound before and after, the gain between, and where attention looked."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmha import checkpoint
from mmha.data import sound
from mmha.models import mhanet
from mmha.models.mhanet.frames import RATE, SHIFT, spectra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mmha.models.mhanet import Enhancer

LONGEST = 15  # seconds that are drawn: beyond, words can no longer be told apart
RANGE = 70.0  # dB below the loudest bin that are drawn


def draw(enhancer: Enhancer, noisy: Path, clean: Path, path: Path) -> None:
    """Draw the beginning of the first channel of both files, without a display."""
    from matplotlib.figure import Figure

    before, after = beginning(noisy), beginning(clean)
    seen = mhanet.look(enhancer, before)
    seconds = max(len(before), SHIFT) / RATE
    loudest = _decibel(seen.magnitudes).max(initial=-RANGE)
    figure = Figure(figsize=(11, 11), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True, height_ratios=(1, 1, 1, 1.2))
    levels = {"cmap": "magma", "vmin": loudest - RANGE, "vmax": loudest, "top": 8.0}
    _show(axes[0], _decibel(seen.magnitudes), seconds, "noisy", "kHz", "dB", levels)
    gains = {"cmap": "viridis", "vmin": -40.0, "vmax": 0.0, "top": 8.0}
    _show(axes[1], _decibel(seen.gain), seconds, f"gain ({enhancer.gain})", "kHz", "dB", gains)
    _show(axes[2], _decibel(spectra(after).abs()), seconds, "cleaned", "kHz", "dB", levels)
    reach = enhancer.window * SHIFT / RATE
    even = seen.back * torch.arange(1, len(seen.back[0]) + 1).clamp_max(enhancer.window)[:, None]
    shares = {"cmap": "magma", "vmin": 0.0, "vmax": 6.0, "top": reach}
    title = "how far back each frame looked (mean of heads and blocks); a streak begins at what later frames look at"
    _show(axes[3], even.mean(0).numpy(), seconds, title, "s back", "times an even share", shares)
    axes[3].set_xlabel("seconds")
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=130)
    checkpoint.write(path, picture.getvalue())


def beginning(path: Path) -> Tensor:
    """The first seconds of a file's first channel at 16 kHz, float32 (N,)."""
    held: list[NDArray[np.float32]] = []
    with sound.Reader(path) as reader:
        rate = reader.info.rate
        for block in reader.blocks():
            held.append(block[:, :1])
            if sum(map(len, held)) >= LONGEST * rate:
                break
    whole = np.concatenate(held)[: LONGEST * rate] if held else np.zeros((0, 1), np.float32)
    return torch.from_numpy(sound.resample(whole, rate, RATE)[:, 0].copy())


def _decibel(amplitude: Tensor) -> NDArray[np.float32]:
    made: NDArray[np.float32] = (20 * torch.log10(amplitude.clamp_min(1e-6))).numpy()
    return made


def _show(
    axes: Axes, values: NDArray[np.float32], seconds: float, title: str, side: str, unit: str, how: dict[str, Any]
) -> None:
    """Frames from left to right, what each holds upwards, to `top`."""
    how = dict(how)
    extent = (0.0, seconds, 0.0, how.pop("top"))
    image = axes.imshow(values.T, origin="lower", aspect="auto", extent=extent, interpolation="nearest", **how)
    axes.set_title(title, loc="left")
    axes.set_ylabel(side)
    axes.figure.colorbar(image, ax=axes, label=unit)
