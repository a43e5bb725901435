"""`mmha train speech` from the outside: what it writes, killed and resumed, and bad input."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmha import checkpoint
from mmha.cli import app
from mmha.models import mhanet


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Speech: tones that come and go. Noise: noise."""
    draw = np.random.default_rng(3)
    for name in ("speech", "noise"):
        (tmp_path / name).mkdir()
    for number in range(5):
        at = np.arange(7001 + 97 * number) / 16000
        tone = np.sin(2 * np.pi * (200 + 150 * number) * at) * (np.sin(2 * np.pi * 5 * at) > 0)
        soundfile.write(tmp_path / "speech" / f"{number}.wav", 0.3 * tone, 16000)
        soundfile.write(tmp_path / "noise" / f"{number}.flac", 0.1 * draw.standard_normal(5003), 16000)
    return tmp_path / "speech", tmp_path / "noise"


def command(folders: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    data = ["--speech", str(folders[0]), "--noise", str(folders[1])]
    return ["train", "speech", *data, "--out", str(out), "--batch", "2", "--seconds", "0.13", "--json", *more]


@pytest.mark.usefixtures("one_thread")
def test_the_file_says_how_it_was_made(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(command(folders, tmp_path / "out", "--steps", "2", "--window", "7", "--schedule", "linear")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == str(tmp_path / "out" / "mhanet.json")
    document = json.loads((tmp_path / "out" / "mhanet.json").read_text())
    assert {**document["about"], "model": result["model"]} == result
    speech, noise = folders
    assert document["about"]["command"] == (
        f"mmha train speech --speech {speech} --noise {noise} --window 7 --batch 2 --seconds 0.13 "
        "--schedule linear --steps 2"
    )
    names = ("schedule", "betas", "eps", "clip", "clip_value", "weight_decay")
    assert [result[name] for name in names] == ["linear", [0.9, 0.98], 1e-9, None, 1.0, 0.0]
    model = mhanet.load(tmp_path / "out" / "mhanet.json")
    assert model.config == mhanet.small(window=7)
    assert float(model.deviation.min()) > 1  # the statistics of the mixtures travel with the weights
    assert len(result["curve"]) == 2
    assert result["dev_nats_per_bin"] == min(-at["score"] for at in result["curve"])


@pytest.mark.slow
def test_killed_and_resumed_it_writes_the_same_model(folders: tuple[Path, Path], tmp_path: Path) -> None:
    program = [sys.executable, "-m", "mmha"]
    steps = ["--threads", "1", "--steps", "89"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    subprocess.run([*program, *command(folders, whole, *steps)], check=True, capture_output=True)
    child = subprocess.Popen([*program, *command(folders, stopped, *steps)], stderr=subprocess.DEVNULL)
    while not (stopped / "state.json").exists():
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    assert child.wait() != 0
    assert 0 < json.loads((stopped / "state.json").read_text())["progress"]["step"] < 89
    resume = [*command(folders, stopped, "--threads", "1"), "--resume"]
    subprocess.run([*program, *resume], check=True, capture_output=True)
    wanted, found = (checkpoint.load(out / "mhanet.json")[1] for out in (whole, stopped))
    assert all((wanted[name] == found[name]).all() for name in wanted | found)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert app.run(words) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    return line


def test_bad_input_is_one_line(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "'published' or 'small', got 'smal'" in refused(command(folders, out, "--model", "smal"), capsys)
    assert "`schedule`: expected 'noam' or 'linear', got 'line'" in refused(
        command(folders, out, "--schedule", "line"), capsys
    )
    assert "`seconds`: expected a number > 0, got -1.0" in refused(command(folders, out, "--seconds", "-1"), capsys)
    assert "no --steps beside it" in refused(command(folders, out, "--steps", "2", "--minutes", "1"), capsys)
    assert "expected a stopped run" in refused(command(folders, out, "--resume"), capsys)
    assert "expected a folder with sound files" in refused(command((folders[0], tmp_path / "no"), out), capsys)
    (folders[1] / "bad.wav").write_bytes(b"RIFF no sound")
    assert str(folders[1] / "bad.wav") in refused(command(folders, out), capsys)
    assert not out.exists()


@pytest.mark.parametrize("which", [["train", "speech"], ["train", "translate"], ["fmri", "fit", "--data", "haxby"]])
def test_lightning_is_missed_before_data_is_fetched(
    which: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setenv("MMHA_DATA", str(tmp_path / "none"))
    assert app.run([*which, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == 'mmha: this training needs Lightning: pip install "mmha[train]"\n'
    assert list(tmp_path.iterdir()) == []
