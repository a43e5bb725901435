"""Sound files: what comes in is what was written, resampled as by scipy; what is damaged is said in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmha.data import sound

soundfile = pytest.importorskip("soundfile")


def tone(samples: int, rate: int, channels: int = 1) -> NDArray[np.float32]:
    """Sines of 440, 550, ... Hz, float32 (samples, channels)."""
    t = np.arange(samples)[:, None] / rate
    return (0.3 * np.sin(2 * np.pi * (440 + 110 * np.arange(channels)) * t)).astype(np.float32)


@pytest.mark.parametrize(("name", "error"), [("a.wav", 4e-5), ("a.flac", 4e-5), ("a.ogg", 0.02), ("a.aiff", 4e-5)])
def test_a_file_comes_back_channel_by_channel(tmp_path: Path, name: str, error: float) -> None:
    x = tone(50021, 16000, 3)
    soundfile.write(tmp_path / name, x, 16000)
    assert sound.info(tmp_path / name)[:3] == (16000, 3, 50021)
    assert sound.info(tmp_path / name).seconds == 50021 / 16000
    found = sound.read(tmp_path / name)
    assert found.dtype == np.float32
    assert found.shape == (3, 50021)
    assert np.abs(found - x.T).max() < error
    with sound.Reader(tmp_path / name) as reader:
        blocks = list(reader.blocks(977))
    assert {len(block) for block in blocks[:-1]} == {977}
    assert np.array_equal(np.concatenate(blocks), found.T)


@pytest.mark.parametrize("samples", [0, 1, 2])
def test_short_files(tmp_path: Path, samples: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(samples, 8000, 2), 8000)
    assert sound.read(tmp_path / "a.wav", None).shape == (2, samples)
    assert sound.read(tmp_path / "a.wav").shape == (2, 2 * samples)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_a_tone_stays_the_same_tone_at_another_rate(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate, rate), rate, subtype="FLOAT")
    found = sound.read(tmp_path / "a.wav")
    assert found.shape == (1, 16000)
    # The ends, where the filter meets what is not there, are left out.
    assert np.abs(found[0] - tone(16000, 16000)[:, 0])[500:-500].max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 7919, 48000])
def test_resampling_in_pieces_is_that_of_the_whole_and_comes_back(rate: int) -> None:
    x = tone(20011, rate, 2)
    there, back = sound.Resampler(rate, 16000, 2), sound.Resampler(16000, rate, 2)
    pieces = [there.push(x[at : at + 313]) for at in range(0, len(x), 313)] + [there.finish()]
    whole = sound.resample(x, rate, 16000)
    made = np.concatenate(pieces)
    assert abs(len(made) - len(x) * 16000 / rate) < 1
    assert np.abs(made - whole).max() < 1e-6
    again = np.concatenate([*(back.push(piece) for piece in pieces), back.finish()])
    assert abs(len(again) - len(x)) <= 1
    assert np.abs(again[500:19500] - x[500:19500]).max() < 1e-3


def test_g722_is_half_a_byte_a_sample(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    x = tone(16002, 16000)
    path = tmp_path / "a.g722"
    with av.open(str(path), "w", format="g722") as container:
        track = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((x.T * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    assert sound.info(path) == (16000, 1, 16002, "G722", "G722")
    found = sound.read(path)[0]
    # The codec's filters delay by 22 samples.
    assert np.abs(found[1022:] - x[1000:-22, 0]).max() < 0.02
    path.write_bytes(b"")
    assert sound.read(path).shape == (1, 0)


def test_other_containers_are_read_by_libav(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    x = tone(44100, 44100, 2)
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        track = container.add_stream("aac", rate=44100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x.T), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    kind = sound.info(path)
    assert (kind.rate, kind.channels, kind.subtype) == (44100, 2, "AAC")
    found = sound.read(path, None)
    assert found.shape == (2, 44100)
    assert np.abs(found[:, 4000:30000] - x.T[:, 4000:30000]).max() < 0.06


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff", "a.mp3", "a.w64", "a.caf", "a.au"])
@pytest.mark.parametrize("part", [0.0, 0.003, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_one_line(tmp_path: Path, name: str, part: float) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(50021, 16000), 16000)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=f"{name}: expected .* got ") as caught:
        sound.read(path)
    assert "\n" not in str(caught.value)


def test_a_stream_of_unknown_length_is_taken_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(50, 16000), 16000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    for claimed, fits in ((0xFFFFFFFF, True), (0x7FFFF000, True), (102, False)):
        data[at : at + 4] = claimed.to_bytes(4, "little")
        path.write_bytes(data)
        if fits:
            assert sound.read(path).shape == (1, 50)
        else:
            with pytest.raises(ValueError, match="cut off: 2 of 102 bytes are missing"):
                sound.read(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(ValueError, match=r"a.wav: expected a file on a disk, got a pipe or a device$"):
        sound.info(tmp_path / "a.wav")


def test_a_file_may_be_called_what_stands_for_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "-", tone(7, 16000), 16000, format="WAV")
    assert sound.read(Path("-")).shape == (1, 7)


def test_what_is_no_sound_or_no_number_is_one_line(tmp_path: Path) -> None:
    for name in ("a.wav", "a.txt", "a.m4a"):
        (tmp_path / name).write_text("This is not a sound.\n" * 50)
        with pytest.raises(ValueError, match=rf"{name}: expected sound \(WAV, .*\), got another or a damaged file \("):
            sound.read(tmp_path / name)
    x = tone(40000, 16000)
    for wrong in (np.nan, np.inf):
        x[33333] = wrong
        soundfile.write(tmp_path / "a.wav", x, 16000, subtype="FLOAT")
        with pytest.raises(
            ValueError, match=r"expected finite numbers, got NaN or infinity in sample 33333 \(2.083 s\)"
        ):
            sound.read(tmp_path / "a.wav")
    with pytest.raises(FileNotFoundError):
        sound.read(tmp_path / "none.wav")
    with pytest.raises(IsADirectoryError):
        sound.info(tmp_path)
