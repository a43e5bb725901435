"""`mmha enhance`: files, folders and pipes; what comes out is the network's, and bad input is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mmha.cli import app, enhance_pipe
from mmha.data import sound
from mmha.models import mhanet

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.usefixtures("one_thread")
TINY = mhanet.Config(width=22, layers=2, heads=2, hidden=13, window=5)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    net = mhanet.MHANet(TINY)
    net.deviation.fill_(25.0)
    path = tmp_path_factory.mktemp("enhancer") / "mhanet.json"
    mhanet.save(net, path, {})
    return path


@pytest.fixture
def enhancer(place: Path) -> mhanet.Enhancer:
    return mhanet.Enhancer(mhanet.load(place))


def noise(samples: int, channels: int = 1, loud: float = 0.1) -> NDArray[np.float32]:
    return (loud * np.random.default_rng(7).standard_normal((samples, channels))).astype(np.float32)


def run(capsys: pytest.CaptureFixture[str], place: Path, *arguments: object, code: int = 0) -> tuple[str, str]:
    assert app.run(["enhance", "--model", str(place), *map(str, arguments)]) == code
    said = capsys.readouterr()
    return said.out, said.err


def wanted(enhancer: mhanet.Enhancer, path: Path) -> NDArray[np.float32]:
    own = torch.from_numpy(sound.read(path, None))
    return enhancer.enhance(own, sound.info(path).rate).numpy()


@pytest.mark.parametrize(
    ("name", "rate", "channels", "coding", "error"),
    [
        ("a.wav", 16000, 1, "PCM_16", 4e-5),
        ("a.wav", 44100, 2, "FLOAT", 1e-6),
        ("a.flac", 48000, 3, "PCM_24", 1e-6),
        ("a.ogg", 22050, 2, "VORBIS", 0.15),
    ],
)
def test_a_file_keeps_rate_channels_length_and_coding(
    tmp_path: Path, place: Path, enhancer: mhanet.Enhancer, capsys: pytest.CaptureFixture[str], name: str, rate: int,
    channels: int, coding: str, error: float,
) -> None:  # fmt: skip
    noisy, clean = tmp_path / name, tmp_path / f"clean-{name}"
    soundfile.write(noisy, noise(20011, channels), rate, subtype=coding)
    out, err = run(capsys, place, noisy, clean)
    assert (out.count("\n"), err) == (1, "")
    assert sound.info(clean) == sound.info(noisy)
    assert np.abs(sound.read(clean, None) - wanted(enhancer, noisy)).max() < error
    assert list(tmp_path.glob(".*")) == []


def test_g722_and_other_endings(tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    soundfile.write(tmp_path / "a.wav", noise(4002), 16000)
    run(capsys, place, tmp_path / "a.wav", tmp_path / "b.g722")
    run(capsys, place, tmp_path / "b.g722", tmp_path / "c.flac")
    assert sound.info(tmp_path / "c.flac") == (16000, 1, 4002, "FLAC", "PCM_16")
    soundfile.write(tmp_path / "a.wav", noise(4002), 8000)
    _, err = run(capsys, place, tmp_path / "a.wav", tmp_path / "b.g722", code=2)
    assert err == "mmha: `CLEAN`: expected 16000 Hz and one channel for G.722, got 8000 Hz, 1\n"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize("samples", [0, 1])
def test_the_shortest_files(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str], name: str, samples: int
) -> None:
    soundfile.write(tmp_path / "in.wav", noise(samples, 2), 44100)
    run(capsys, place, tmp_path / "in.wav", tmp_path / name)
    run(capsys, place, tmp_path / name, tmp_path / f"again-{name}")
    assert sound.info(tmp_path / f"again-{name}")[:3] == (44100, 2, samples)


def test_silence_stays_silent_and_a_constant_finite(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for level in (0.0, 0.7):
        soundfile.write(tmp_path / "a.wav", np.full(5003, level), 16000)
        run(capsys, place, tmp_path / "a.wav", tmp_path / "b.wav")
        found = sound.read(tmp_path / "b.wav")
        assert np.abs(found).max() <= level


def test_what_would_clip_is_made_quieter_as_a_whole_and_said(
    tmp_path: Path, place: Path, enhancer: mhanet.Enhancer, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "loud.wav", noise(5003, loud=4.0), 16000, subtype="FLOAT")
    run(capsys, place, tmp_path / "loud.wav", tmp_path / "kept.wav")
    true = wanted(enhancer, tmp_path / "loud.wav")
    assert np.abs(true).max() > 1.5
    assert np.abs(sound.read(tmp_path / "kept.wav") - true).max() < 1e-5  # float holds it as it is
    out, _ = run(capsys, place, tmp_path / "loud.wav", tmp_path / "low.flac", "--json")
    row = json.loads(out)["files"][0]
    assert row["lowered_db"] == pytest.approx(20 * np.log10(np.abs(true).max()), abs=0.01)
    found = sound.read(tmp_path / "low.flac")
    assert np.abs(found).max() == pytest.approx(1.0, abs=1e-4)
    assert np.abs(found * np.abs(true).max() - true).max() < 1e-3
    out, _ = run(capsys, place, tmp_path / "loud.wav", tmp_path / "low.flac")
    assert f"made {row['lowered_db']:.1f} dB quieter so that nothing clips" in out


def test_a_folder_is_mirrored_and_a_bad_file_stops_no_other(
    tmp_path: Path, place: Path, enhancer: mhanet.Enhancer, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy, clean = tmp_path / "noisy", tmp_path / "noisy" / "clean"
    (noisy / "deep" / "er").mkdir(parents=True)
    for name in ("b.wav", "deep/er/c.FLAC"):
        soundfile.write(noisy / name, noise(1009), 16000)
    (noisy / "a.wav").write_bytes(b"no sound at all")
    (noisy / "notes.txt").write_text("left out")
    for _ in range(2):  # what was made the first time is not cleaned again
        out, err = run(capsys, place, noisy, clean, "--json", code=2)
        assert err.startswith(f"mmha: {noisy / 'a.wav'}: expected sound (WAV")
        assert err.count("\n") == 1
        rows = json.loads(out)["files"]
        assert [Path(row["noisy"]).name for row in rows] == ["a.wav", "b.wav", "c.FLAC"]
        assert ["error" in row for row in rows] == [True, False, False]
        made = sorted(str(path.relative_to(clean)) for path in clean.rglob("*") if path.is_file())
        assert made == ["b.wav", "deep/er/c.FLAC"]
    assert np.abs(sound.read(clean / "b.wav") - wanted(enhancer, noisy / "b.wav")).max() < 4e-5
    out, _ = run(capsys, place, noisy, clean, code=2)
    assert out.endswith("2 of 3 files cleaned\n")
    (noisy / "a.wav").unlink()
    run(capsys, place, noisy, clean)
    (noisy / "deep").rename(noisy / "odd")
    (clean / "odd").write_text("in the way of a folder")
    _, err = run(capsys, place, noisy, clean, code=2)
    assert err == f"mmha: {clean / 'odd' / 'er'}: Not a directory\n"


def test_the_options_are_those_asked_for(
    tmp_path: Path, place: Path, enhancer: mhanet.Enhancer, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", noise(5003), 16000, subtype="FLOAT")
    x = torch.from_numpy(sound.read(tmp_path / "a.wav")[0])
    for options, other in (
        (("--gain", "ibm"), mhanet.Enhancer(enhancer.model, "ibm")),
        (("--release", "inf"), mhanet.Enhancer(enhancer.model, release=np.inf)),
        (("--limit", "7"), mhanet.Enhancer(enhancer.model, limit=7.0)),
        (("--window", "2"), mhanet.Enhancer(enhancer.model, window=2)),
        (("--weights", "bfloat16"), mhanet.Enhancer(enhancer.model, weights="bfloat16")),
        (("--weights", "int8"), mhanet.Enhancer(enhancer.model, weights="int8")),
    ):
        run(capsys, place, tmp_path / "a.wav", tmp_path / "b.wav", *options)
        found = sound.read(tmp_path / "b.wav")[0]
        assert np.abs(found - other.enhance(x).numpy()).max() < 1e-5
        assert np.abs(found - enhancer.enhance(x).numpy()).max() > 1e-4


def test_a_pipe_gives_what_a_file_gives(tmp_path: Path, place: Path, enhancer: mhanet.Enhancer) -> None:
    x = noise(7001, 2)
    command = [sys.executable, "-m", "mmha", "enhance", "-", "-", "--model", str(place)]
    options = ["--rate", "22050", "--channels", "2", "--format", "f32le"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], input=x.tobytes(), capture_output=True, check=True, env=env)
    assert done.stderr == b""
    found = np.frombuffer(done.stdout, "<f4").reshape(-1, 2)
    assert np.abs(found.T - enhancer.enhance(torch.from_numpy(x.T.copy()), 22050).numpy()).max() < 1e-5


def test_a_piece_goes_on_as_soon_as_it_is_ready(enhancer: mhanet.Enhancer) -> None:
    raw = enhance_pipe.Raw("s16le", 16000, 1)
    into, out = os.pipe(), os.pipe()
    with os.fdopen(into[0], "rb") as stream, os.fdopen(out[1], "wb") as sink, os.fdopen(out[0], "rb") as heard:
        source = enhance_pipe._Input(stream, raw)
        output = enhance_pipe._Output(sink, "s16le", source.info)
        blocks = source.blocks()
        recording = mhanet.Recording(enhancer, 16000, 1)
        for _ in range(3):
            os.write(into[1], raw.encode(noise(511)) + b"\1")  # half a sample more than 511
            output.write(recording.push(torch.from_numpy(next(blocks).T)).T.numpy())
            os.write(into[1], b"\0")
            output.write(recording.push(torch.from_numpy(next(blocks).T)).T.numpy())
        # 1536 samples are in, and out what two whole frames lie on.
        assert len(heard.read1(9999)) == 2 * (1536 - 256)
        os.write(into[1], b"\0")
        os.close(into[1])
        with pytest.raises(ValueError, match=r"whole samples of 2 bytes \(s16le, 1 channels\), got 1 bytes at its end"):
            next(blocks)


@pytest.mark.parametrize("format", enhance_pipe.FORMATS)
def test_raw_samples_come_back(format: str) -> None:
    raw = enhance_pipe.Raw(format, 8000, 3)
    x = np.array([[0.5, -1.0, 0.25], [0.0, 0.75, -0.125]], np.float32)
    assert raw.frame == 3 * (2 if format == "s16le" else 4)
    assert np.array_equal(raw.decode(raw.encode(x)), x)
    assert np.array_equal(raw.decode(raw.encode(np.ones((1, 3), np.float32))), np.ones((1, 3))) == (format != "s16le")


def test_the_limiter_is_its_formula_in_any_pieces() -> None:
    x = noise(4001, 2, loud=0.7)
    limiter = enhance_pipe.Limiter(8000)
    found = np.concatenate([limiter.limit(x[at : at + 77]) for at in range(0, len(x), 77)])
    down, gain = 0.0, []
    for sample in x:
        down = max(down * np.exp(-1 / 1600), 1 - 1 / max(1.0, float(np.abs(sample).max())))
        gain.append(1 - down)
    assert np.abs(found - x * np.array(gain)[:, None]).max() < 3e-5
    assert np.abs(found).max() <= 1.0 + 1e-6
    quiet = x / 10
    assert np.array_equal(enhance_pipe.Limiter(8000).limit(quiet), quiet)


def test_a_picture(tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    for samples in (0, 20011):
        soundfile.write(tmp_path / "a.wav", noise(samples, 2), 44100)
        out, _ = run(capsys, place, tmp_path / "a.wav", tmp_path / "b.wav", "--plot", tmp_path / "p.svg")
        assert f"wrote {tmp_path / 'p.svg'}" in out
        drawn = (tmp_path / "p.svg").read_text()
        assert "<svg" in drawn
        (tmp_path / "p.svg").unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.wav", "b.wav"), "none.wav: No such file or directory"),
        (("a.wav", "b.txt"), "`CLEAN`: expected a file ending in .wav, .* or .g722, got b.txt"),
        (("a.wav", "none/b.wav"), "none: no such folder, for CLEAN b.wav"),
        (("a.wav", "b.opus"), "`CLEAN`: expected a format that holds 11025 Hz, 1 channels, OPUS, got b.opus"),
        (("a.wav", "b.wav", "--gain", "best"), "`--gain`: expected 'mmse-lsa', .*, got 'best'"),
        (("a.wav", "b.wav", "--release", "-3"), "`--release`: expected dB a second > 0, got -3.0"),
        (("a.wav", "b.wav", "--limit", "nan"), "`--limit`: expected a finite number, got nan"),
        (("a.wav", "b.wav", "--weights", "int4"), "`--weights`: expected 'float32', 'bfloat16' or 'int8', got 'int4'"),
        (("a.wav", "b.wav", "--window", "6"), "`--window`: expected an integer >= 1 and <= 5, got 6"),
        (("a.wav", "b.wav", "--rate", "8000"), "`--rate`: expected it with - for NOISY, got it with a file"),
        (("a.wav", "b.wav", "--format", "s16le"), "`--format`: expected it with -, got it with files"),
        (("-", "-", "--format", "mp3"), "`--format`: expected 's16le', 's32le' or 'f32le', got 'mp3'"),
        (("-", "-", "--channels", "0"), "`--channels`: expected an integer >= 1, got 0"),
        (("a.wav", "-", "--json"), "`--json`: expected it with a file for CLEAN, got it with -"),
        (("-", "b.wav", "--plot", "p.png"), "`--plot`: expected it with files, got it with -"),
        ((".", "."), "`CLEAN`: expected another folder than NOISY, got ."),
        (("empty", "b"), "`NOISY`: expected a folder with sound files .*, got empty"),
        (
            ("cut.wav", "b.wav"),
            "cut.wav: expected a whole file, got one that is cut off: 100 of 2000 bytes are missing",
        ),
        (("nan.wav", "b.wav"), r"nan.wav: expected finite numbers, got NaN or infinity in sample 7 \(0.000 s\)"),
        (("huge.wav", "b.wav"), r"`huge.wav: sound`: expected finite numbers up to 1e9 .*, got 1e\+20"),
        (("slow.wav", "b.wav"), "slow.wav: expected a sound of 1000 to 768000 Hz, got 10 Hz"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    import re

    monkeypatch.chdir(tmp_path)
    x = noise(1000)
    soundfile.write("a.wav", x, 11025)
    soundfile.write("cut.wav", x, 16000)
    Path("cut.wav").write_bytes(Path("cut.wav").read_bytes()[:-100])
    for name, number in (("nan.wav", np.nan), ("huge.wav", 1e20)):
        x[7] = number
        soundfile.write(name, x, 16000, subtype="FLOAT")
    soundfile.write("slow.wav", noise(9), 10)
    Path("empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    out, err = run(capsys, place, *arguments, code=2)
    assert out == ""
    assert re.match(f"mmha: {message}", err), err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_signalling_nan_is_decoded_without_a_warning() -> None:
    bits = np.array([0x7FA00000, 0x7FC00000], "<u4").tobytes()
    assert np.isnan(enhance_pipe.Raw("f32le", 16000, 1).decode(bits)).all()


def test_the_shipped_network_takes_noise_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", noise(16000), 16000)
    assert app.run(["enhance", str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]) == 0
    before, after = (sound.read(tmp_path / name)[0, 8000:] for name in ("a.wav", "b.wav"))
    assert np.square(after).mean() < 0.03 * np.square(before).mean()
