"""How far a stream's weights in bfloat16 and int8 move its gains and PESQ: python benchmarks/speech_weights.py

Each mixture of the validation set, voices and noises that training chose on, goes through `Enhancer.stream()` frame by
frame. A gain moves by |20·log₁₀(g / g')| dB, g' that of float32, over all bins of all frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from speech import RATIOS, mixtures
from torch import Tensor

from mmha.data import registry
from mmha.data import speech as recordings
from mmha.metrics.speech import measures
from mmha.models import mhanet
from mmha.models.mhanet.config import SHIPPED
from mmha.models.mhanet.frames import SHIFT
from mmha.models.mhanet.gains import Shape
from mmha.models.mhanet.stream import WEIGHTS


class Noted(Shape):
    """A shape of gains that keeps those it gave."""

    def __init__(self, release: float, limit: float) -> None:
        super().__init__(release, limit)
        self.given: list[Tensor] = []

    def __call__(self, gains: Tensor, last: Tensor) -> Tensor:
        self.given.append(super().__call__(gains, last))
        return self.given[-1]


def run(enhancer: mhanet.Enhancer, noisy: NDArray[np.float32]) -> tuple[NDArray[np.float32], Tensor]:
    """What comes out, in line with what went in, and the gains, float32 (frames, 257)."""
    enhancer.shape = shape = Noted(enhancer.shape.release, enhancer.shape.limit)
    stream = enhancer.stream()
    pieces = [*map(stream.push, torch.from_numpy(noisy).split(SHIFT)), stream.finish()]
    return torch.cat(pieces)[SHIFT:][: len(noisy)].numpy(), torch.cat(shape.given, 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2, help=f"stretches of speech, each at {len(RATIOS)} ratios")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    given = parser.parse_args()
    torch.set_num_threads(1)
    folders = {name: registry.get(name) for name in (*recordings.VOICES, recordings.TEST_VOICE, *recordings.NOISES)}
    model = mhanet.load(given.model)
    enhancers = {name: mhanet.Enhancer(model, weights=name) for name in WEIGHTS}
    moved: dict[str, list[Tensor]] = {name: [] for name in WEIGHTS}
    pesq: dict[str, list[float]] = {name: [] for name in WEIGHTS}
    for mixed in mixtures(recordings.voices(folders).dev, recordings.noises(folders).dev, given.count):
        found = {name: run(enhancer, mixed.noisy) for name, enhancer in enhancers.items()}
        for name, (sound, gains) in found.items():
            moved[name].append((20 * (gains.double() / found["float32"][1].double()).log10()).abs().flatten())
            pesq[name].append(measures(mixed.clean, sound)["PESQ-WB"])
    print(
        "| weights | dB that gains move, median | 999th of 1,000 | most | PESQ-WB | most that it moves in a mixture |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name in WEIGHTS:
        middle, far, most = np.quantile(torch.cat(moved[name]).numpy(), [0.5, 0.999, 1])
        apart = np.abs(np.subtract(pesq[name], pesq["float32"])).max()
        print(f"| {name} | {middle:.3f} | {far:.2f} | {most:.2f} | {np.mean(pesq[name]):.4f} | {apart:.4f} |")


if __name__ == "__main__":
    main()
