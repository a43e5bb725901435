"""Speech enhancers on a voice and noises that mmha's was not trained on: noisereduce, RNNoise, DeepFilterNet3, mmha.

    python benchmarks/speech.py [--count 38] [--model runs/speech/mhanet.json] [--dev] [--voices FOLDER] [--json FILE]

The voice is the Italian man of `prompts-it`, the noises are traffic, markets, trains, windmills and crowds of
`city-noise` (`mmha.data.speech` says which); each stretch of speech meets one section of noise at every ratio of speech
to noise. With --dev they are those that training chose on, to compare gains or models without reading the test set;
with --voices the voices are those of a folder of your own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from speech_section import tables
from speech_sides import Side, noisy, ours, present

from mmha import checkpoint
from mmha.bench.machine import machine
from mmha.data import registry
from mmha.data import speech as recordings
from mmha.metrics.speech import measures
from mmha.models import mhanet
from mmha.models.mhanet.config import SHIPPED
from mmha.models.mhanet.stream import GAIN, LIMIT, RELEASE

RATIOS = (-5, 0, 5, 10, 15)  # dB
SHORTEST, LONGEST = 40_000, 128_000  # samples of speech: 2.5 to 8 s
LEVEL = 10 ** (-26 / 20)  # root mean square of the speech; full scale = 1
SEED = 1


class Mixture(NamedTuple):
    """Clean speech and noisy speech float32 (N,), and dB between speech and noise."""

    clean: NDArray[np.float32]
    noisy: NDArray[np.float32]
    ratio: int


def mixtures(voices: list[Path], noises: list[Path], count: int) -> Iterator[Mixture]:
    """`count` stretches of speech, drawn by a digest of their names, at every ratio; noises in turns."""
    order = sorted(voices, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())
    clips = recordings.load(noises)
    made = 0
    for path in order:
        sounds = recordings.load([path])
        if made == count:
            return
        if not sounds or len(sounds[0]) < SHORTEST:
            continue
        clean = sounds[0][:LONGEST] / 32768
        clean *= LEVEL / np.sqrt(np.square(clean).mean())
        clip = clips[made % len(clips)] / 32768
        start = int(np.random.default_rng([SEED, made]).integers(len(clip)))
        noise = np.resize(np.roll(clip, -start), len(clean))
        noise *= LEVEL / np.sqrt(np.square(noise).mean())
        for ratio in RATIOS:
            mixed = clean + noise * 10 ** (-ratio / 20)
            scale = max(1.0, float(np.abs(mixed).max()))
            yield Mixture((clean / scale).astype(np.float32), (mixed / scale).astype(np.float32), ratio)
        made += 1
    if made < count:
        raise SystemExit(f"--count: expected at most {made} stretches of {SHORTEST / 16000} s or more, got {count}")


def judge(sides: Mapping[str, Side], mixed: Iterator[Mixture]) -> list[dict[str, Any]]:
    """The measures of each side on each mixture, and the CPU time that a second of sound took."""
    rows = []
    for number, mixture in enumerate(mixed):
        for name, run in sides.items():
            begun = time.process_time()
            found = run(mixture.noisy)
            seconds = (time.process_time() - begun) / (len(mixture.clean) / recordings.RATE)
            row = {"mixture": number // len(RATIOS), "ratio": mixture.ratio, "side": name, "seconds": round(seconds, 4)}
            judged = measures(mixture.clean, found)
            rows.append(row | {key: round(value, 4) for key, value in judged.items()})
    return rows


def main() -> None:
    """Judge, print the tables and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=38, help="stretches of speech")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--gain", nargs="+", default=[GAIN], choices=list(mhanet.GAINS))
    parser.add_argument("--release", type=float, default=RELEASE)
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--dev", action="store_true", help="the voices and noises that training chose on; ours alone")
    parser.add_argument("--voices", type=Path, help="with --dev: sound files of other voices")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.voices and not options.dev:
        parser.error("--voices: expected it with --dev")
    torch.set_num_threads(1)
    names = (*recordings.VOICES, recordings.TEST_VOICE, *recordings.NOISES)
    folders = {name: registry.get(name) for name in names}
    voices, noises = recordings.voices(folders), recordings.noises(folders)
    part = "dev" if options.dev else "test"
    spoken = recordings.files(options.voices) if options.voices else getattr(voices, part)
    sides, missing = ({"noisy": noisy()}, {}) if options.dev else present()
    model = mhanet.load(options.model)
    for gain in options.gain:
        sides[f"mmha {gain}" if len(options.gain) > 1 else "mmha"] = ours(model, gain, options.release, options.limit)
    rows = judge(sides, mixtures(spoken, getattr(noises, part), options.count))
    run = {
        "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "count": options.count,
        "part": part,
        "gain": options.gain,
        "window": model.config.window,
        "missing": missing,
        "rows": rows,
    }
    print(tables(run))
    if options.json:
        checkpoint.write(options.json, (json.dumps(run, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
