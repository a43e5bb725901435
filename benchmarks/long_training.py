"""A training that is killed again and again, beside one that nobody disturbs: for long_runs.py."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mmha import checkpoint
from mmha.data.conllu import block_of

SENTENCES, EPOCHS = 67, 60  # epochs for each time that the run is killed
LONGEST = 1.0  # seconds, at most, between a state's being written and the kill
SEED = 1


def command(bank: Path, out: Path, epochs: int) -> list[str]:
    """`mmha train tagger`, one thread, a state after each of its short epochs."""
    files = ["--train", str(bank), "--dev", str(bank)]
    sizes = ["--size", "small", "--tokens", "64", "--epochs", str(epochs), "--threads", "1", "--json"]
    return [sys.executable, "-m", "mmha", "train", "tagger", "--out", str(out), *files, *sizes]


def killed(times: int) -> dict[str, Any]:
    """Train in peace; then again, killed so many times at random moments and resumed each time.

    `apart` is 0 when both wrote the same bytes and nothing else is left; `marks` are the steps at which it was killed.
    """
    choose = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        bank, whole, parts = (Path(folder, name) for name in ("bank.conllu", "whole", "parts"))
        rows = [
            block_of(("the", f"n{i}", "runs", ".")).tagged(("DET", "NOUN", "VERB", "PUNCT")) for i in range(SENTENCES)
        ]
        bank.write_text("".join(rows), encoding="utf-8")
        subprocess.run(command(bank, whole, times * EPOCHS), check=True, capture_output=True)
        marks = [kill(command(bank, parts, times * EPOCHS), parts, choose) for _ in range(times)]
        subprocess.run([*command(bank, parts, times * EPOCHS), "--resume"], check=True, capture_output=True)
        names = [sorted(path.name for path in each.iterdir()) for each in (whole, parts)]
        same = names[0] == names[1] and all(
            (whole / name).read_bytes() == (parts / name).read_bytes() for name in names[0] if name.endswith("tensors")
        )
    return {"unit": "kill", "units": times, "marks": marks, "apart": 0.0 if same else float("inf")}


def kill(run: list[str], out: Path, choose: random.Random) -> dict[str, Any]:
    """Start or resume the run, and kill it soon after it has written a state; where it stands, and what was left."""
    state = out / "state.json"
    before = state.stat().st_mtime_ns if state.exists() else 0
    with subprocess.Popen([*run, "--resume"] if before else run, stdout=subprocess.DEVNULL) as process:
        while not state.exists() or state.stat().st_mtime_ns == before:
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself, with {process.returncode}")
            time.sleep(0.01)
        time.sleep(choose.uniform(0.0, LONGEST))
        process.send_signal(signal.SIGKILL)
    if process.returncode != -signal.SIGKILL:
        raise SystemExit("the run ended before it was killed: more epochs are needed")
    document, _ = checkpoint.load(state)  # whole, or this raises
    return {"step": document["progress"]["step"], "parts": len(list(out.glob(".*.part")))}


if __name__ == "__main__":
    print(json.dumps(killed(2)))
