"""Take the noise out of speech while it is spoken: python examples/enhance_a_live_stream.py [noisy.wav]

A file, or a made-up sound, plays the microphone: pieces of 10 ms. What is ready of the clean sound goes on at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from mmha.data import sound
from mmha.models import mhanet

RATE, PIECE = 16000, 160  # samples a second, and in 10 ms


def noisy() -> torch.Tensor:
    """The first channel of the file, or 3 s of a tone that comes and goes in noise, float32 (N,)."""
    if sys.argv[1:]:
        return torch.from_numpy(sound.read(Path(sys.argv[1]), RATE)[0])
    seconds = torch.arange(3 * RATE) / RATE
    tone = torch.sin(2 * torch.pi * 220 * seconds) * (torch.sin(2 * torch.pi * seconds) > 0)
    return 0.2 * tone + 0.02 * torch.randn(len(seconds))


def microphone(whole: torch.Tensor) -> Iterator[torch.Tensor]:
    yield from whole.split(PIECE)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    enhancer = mhanet.Enhancer(mhanet.load())
    stream = enhancer.stream()
    whole, clean, costs = noisy(), [], []
    for piece in microphone(whole):
        start = time.perf_counter()
        ready = stream.push(piece)  # nothing, or 256 samples: a frame is worked on when it is complete
        costs.append(1000 * (time.perf_counter() - start))
        clean.append(ready)  # a program that plays it would do so here
    clean.append(stream.finish())
    late = mhanet.LATENCY - 256
    heard = torch.cat(clean)[late:][: len(whole)]
    off = (heard - enhancer.enhance(whole)).abs().max()
    print(f"{len(costs)} pieces of 10 ms in; latency {1000 * mhanet.LATENCY / RATE:.0f} ms")
    print(f"of a piece's 10 ms it takes {median(sorted(costs)[len(costs) // 3 :]):.1f} ms where a frame is complete")
    print(f"the stream differs from the whole sound at once by {off:.0e} at most")
    print(f"{10 * torch.log10(whole.square().mean() / heard.square().mean()):.1f} dB of power were taken out")


if __name__ == "__main__":
    main()
