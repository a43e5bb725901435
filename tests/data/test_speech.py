"""Which recordings are trained on, chosen on and reported on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmha.data import registry, speech


def write(path: Path, samples: int = 331, rate: int = 16000, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(len(str(path)) + samples)
    soundfile.write(path, 0.1 * draw.standard_normal((samples, channels)), rate)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Small sets with the names of the fetched ones."""
    for name in (*speech.VOICES, speech.TEST_VOICE):
        for number in range(83):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"word{number}.g722").write_bytes(b"")
        (tmp_path / name / "silence").mkdir()
        (tmp_path / name / "silence" / "1.g722").write_bytes(b"")
    for kind in ("Build", "WindMillHTech", *speech.TEST_KINDS, *speech.DEV_KINDS):
        write(tmp_path / "city-noise" / f"{kind}1.wav")
    write(tmp_path / "ambience" / "sounds" / "pub.wav")
    write(tmp_path / "ambience" / "impulse_responses" / "hall.wav")
    return {path.name: path for path in tmp_path.iterdir()}


def test_no_file_is_in_two_parts(folders: dict[str, Path]) -> None:
    for split in (speech.voices(folders), speech.noises(folders)):
        every = [*split.train, *split.dev, *split.test]
        assert len(set(every)) == len(every)
        assert split.train
        assert split.test
    assert split == speech.noises(folders)


def test_one_man_is_heard_at_last_and_silence_never(folders: dict[str, Path]) -> None:
    train, dev, test = speech.voices(folders)
    assert {path.parent.name for path in test} == {"prompts-it"}
    assert {path.parent.name for path in (*train, *dev)} == set(speech.VOICES)
    assert len(train) + len(dev) == len(speech.VOICES) * 83
    assert 1 <= len(dev) <= 60
    assert len(test) == 83
    # By name, and not by place: the same files whatever else lies there.
    (folders["prompts-en"] / "another.g722").write_bytes(b"")
    assert set(dev) <= set(speech.voices(folders).dev)


def test_noises_are_held_out_by_kind(folders: dict[str, Path]) -> None:
    train, dev, test = speech.noises(folders)
    assert [path.stem for path in train] == ["Build1", "WindMillHTech1", "pub"]
    assert {speech.kind(path) for path in dev} == set(speech.DEV_KINDS)
    assert {speech.kind(path) for path in test} == set(speech.TEST_KINDS)


def test_folders_of_ones_own(tmp_path: Path) -> None:
    for number in range(61):
        write(tmp_path / "mine" / str(number) / "one.wav", samples=7)
    train, dev, test = speech.own([tmp_path / "mine"])
    assert len(train) + len(dev) == 61
    assert 1 <= len(dev) <= 15
    assert test == []
    for number in (2, 1):
        few = tmp_path / f"few{number}"
        for name in range(number):
            write(few / f"{name}.wav")
        if number == 2:
            assert [len(part) for part in speech.own([few])] == [1, 1, 0]
        else:
            with pytest.raises(ValueError, match=rf"^{few}: expected two sound files or more, .* got one$"):
                speech.own([few])
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=rf"^{tmp_path / 'none'}: expected a folder with sound files .* got none$"):
        speech.own([tmp_path / "none"])


def test_loaded_sounds_are_mono_at_16_khz(tmp_path: Path) -> None:
    stereo = write(tmp_path / "a.wav", 4410, 44100, 2)
    quiet = tmp_path / "b.wav"
    soundfile.write(quiet, np.zeros(5), 16000)
    plain = tmp_path / "c.wav"
    soundfile.write(plain, np.array([0.5, -1.0, 0.25]), 16000)
    told: list[int] = []
    found = speech.load([stereo, quiet, plain], lambda: told.append(1))
    assert [len(sound) for sound in found] == [1600, 3]
    assert found[1].tolist() == [16384, -32768, 8192]
    assert len(told) == 3
    assert speech.digest([found]) == speech.digest([list(found)]) != speech.digest([found[::-1]])


@pytest.mark.slow
@pytest.mark.network
def test_no_noise_of_one_part_is_heard_in_another() -> None:
    """Across parts, no two clips are alike: the largest correlation of any shift stays below 0.6."""
    if not all(registry.is_here(name) for name in speech.NOISES):
        pytest.skip("city-noise and ambience are not fetched: mmha data get city-noise ambience")
    folders = {name: registry.path(name) for name in speech.NOISES}
    parts = [speech.load(part) for part in speech.noises(folders)]
    assert [len(part) for part in parts] == [113, 12, 19]
    size = 1 << 18

    def spectra(sounds: list[speech.Samples]) -> np.ndarray:
        rows = [sound[: size // 2] - sound[: size // 2].mean() for sound in sounds]
        return np.array([np.fft.rfft(row / np.linalg.norm(row), size) for row in rows], np.complex64)

    held = [*spectra(parts[1]), *spectra(parts[2])]
    for sound in parts[0]:
        (one,) = spectra([sound])
        for number, other in enumerate(held):
            assert np.abs(np.fft.irfft(one.conj() * other, size)).max() < 0.6, number
