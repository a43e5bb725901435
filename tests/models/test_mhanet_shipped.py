"""The speech enhancer that ships: where it comes from, and that it takes noise out of speech."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmha.data import registry, speech
from mmha.metrics.speech import si_sdr
from mmha.models import mhanet
from mmha.models.mhanet.config import SHIPPED

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_it_says_how_it_was_made_and_is_small() -> None:
    document = json.loads(SHIPPED.read_text("utf-8"))
    about = document["about"]
    assert about["command"].startswith("mmha train speech --")
    assert f"--steps {about['steps']}" in about["command"]
    assert about["dev_nats_per_bin"] == min(-at["score"] for at in about["curve"])
    assert set(about["hours"]) == {"speech", "noise", "dev_speech", "dev_noise", "rooms"}
    assert SHIPPED.with_name(document["tensors"]).stat().st_size < 4_000_000
    model = mhanet.load()
    assert model.config == mhanet.small()
    assert sum(p.numel() for p in model.parameters()) == about["parameters"]
    assert 15 < float(model.deviation.min()) < float(model.deviation.max()) < 35


@pytest.mark.usefixtures("one_thread")
def test_noise_alone_is_taken_out() -> None:
    noise = 0.05 * torch.randn(3 * 16000, generator=torch.Generator().manual_seed(5))
    found = mhanet.Enhancer(mhanet.load()).enhance(noise)[16000:]
    assert 20 * np.log10(float(found.std() / noise.std())) < -15


@pytest.mark.network
@pytest.mark.usefixtures("one_thread")
def test_a_voice_it_has_not_heard_gets_cleaner(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (*speech.VOICES, speech.TEST_VOICE, *speech.NOISES)
    if not all(registry.is_here(name) for name in names):
        pytest.skip("needs the voices and noises: mmha data get prompts-it, city-noise and the others")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("speech")
    folders = {name: registry.path(name) for name in names}
    enhancer = mhanet.Enhancer(mhanet.load())
    for mixture in script.mixtures(speech.voices(folders).test, speech.noises(folders).test, 3):
        found = enhancer.enhance(torch.from_numpy(mixture.noisy)).numpy()
        assert si_sdr(mixture.clean, found) > mixture.ratio + (8 if mixture.ratio < 0 else 1)
