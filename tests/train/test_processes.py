"""Several processes: they train as one does, and end together, with a state to resume, when one of them is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import model_runs
import small_run
from mmha import checkpoint
from mmha.train import processes

SCRIPT = [str(Path(small_run.__file__).resolve())]
TORCHRUN = ["-m", "torch.distributed.run"]


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None: ...


def start(folder: Path, settings: dict[str, Any], *more: str, by: Any = (), **variables: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in processes.NAMES} | variables
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, *by, *SCRIPT, str(folder), "--settings", json.dumps(settings), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(run: subprocess.Popen[str]) -> tuple[str, str]:
    said = run.communicate(timeout=300)
    assert run.returncode == 0, said[1]
    return said


def tensors(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load(folder / "state.json")[1]


def alone(folder: Path, resume: bool = False, dtype: torch.dtype = torch.float32, **changes: Any) -> dict[str, Tensor]:
    """What one process ends with that computes the two parts of each step one after the other."""
    run = small_run.new_run(folder, replace(small_run.SETTINGS, accumulate=2, **changes), dtype=dtype)
    if resume:
        run.resume()
    small_run.fit(run)
    return tensors(folder)


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def test_two_processes_train_as_one_on_shares_of_the_weights(tmp_path: Path) -> None:
    """Losses, weights, optimizer and means; the parts hold unequal numbers of tokens, and dropout is on.

    In float64: of float32, how far sums in another order drift apart in eleven steps differs from machine to machine.
    """
    same = {"average": 0.9, "clip": 1e9}  # a gradient that is cut does not show a wrong scale
    settings = same | {"devices": 2, "strategy": "fsdp", "checkpoint_activations": True}
    said, err = finish(start(tmp_path / "two", settings, "--double"))
    assert err == ""
    found, expected = tensors(tmp_path / "two"), alone(tmp_path / "one", dtype=torch.float64, **same)
    assert found["model.embedding.weight"].dtype == torch.float64
    assert largest_difference(found, expected) < 1e-13
    document = [json.loads((tmp_path / name / "state.json").read_text())["progress"] for name in ("one", "two")]
    assert document[0]["history"][-1]["score"] == pytest.approx(document[1]["history"][-1]["score"], rel=1e-12)
    assert document[0]["loss"] == pytest.approx(float(said.split()[-1]), rel=1e-12)
    assert len(said.splitlines()) == 11  # the first process alone shows


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("launcher", ["own", "torchrun", "two machines"])
def test_however_they_are_started(tmp_path: Path, strategy: str, launcher: str) -> None:
    settings: dict[str, Any] = {"strategy": strategy, "average": 0.9, "last": 2}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if launcher == "own":
        finish(start(tmp_path / "0", settings | {"devices": 2}, "--double"))
    elif launcher == "torchrun":
        finish(start(tmp_path / "0", settings, "--double", by=[*TORCHRUN, "--standalone", "--nproc-per-node", "2"]))
    else:
        where = ["--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", port]
        runs = [start(tmp_path / n, settings, "--double", by=[*TORCHRUN, *where, "--node-rank", n]) for n in "01"]
        for run in runs:
            finish(run)
        assert not (tmp_path / "1").exists()  # only the first machine writes
    found, expected = tensors(tmp_path / "0"), alone(tmp_path / "one", dtype=torch.float64, average=0.9, last=2)
    assert largest_difference(found, expected) <= (0.0 if strategy == "ddp" else 1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["albert", "translator"])
def test_models_of_the_house_train_on_shares(tmp_path: Path, name: str) -> None:
    changes = {"devices": 2, "strategy": "fsdp", "checkpoint_activations": True}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, model_runs.__file__, name, str(tmp_path / "two"), json.dumps(changes)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    model_runs.main(name, str(tmp_path / "one"), json.dumps({"accumulate": 2}))
    assert largest_difference(tensors(tmp_path / "two"), tensors(tmp_path / "one")) < 1e-12


LONG: dict[str, Any] = {"steps": 400, "rounds": 5, "save_every": 0.2}


def wait_for_state(folder: Path, run: subprocess.Popen[str]) -> None:
    while not (folder / "state.json").exists():
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 0.5))


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_bits(tmp_path: Path) -> None:
    with start(tmp_path / "parts", LONG) as run:
        wait_for_state(tmp_path / "parts", run)
        run.kill()
    stopped = json.loads((tmp_path / "parts" / "state.json").read_text())["progress"]["step"]
    assert 0 < stopped < 400
    finish(start(tmp_path / "parts", LONG, "--resume"))
    finish(start(tmp_path / "whole", LONG))
    assert largest_difference(tensors(tmp_path / "parts"), tensors(tmp_path / "whole")) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_killed_process_ends_the_run_which_another_number_resumes(tmp_path: Path, strategy: str) -> None:
    settings = LONG | {"devices": 2, "strategy": strategy}
    run = start(tmp_path / "two", settings, "--double")
    wait_for_state(tmp_path / "two", run)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    _, err = run.communicate(timeout=300)
    assert run.returncode not in (0, -signal.SIGKILL)
    assert "another process of this run is gone, so process 0 stops; --resume goes on from the last state in" in err
    stopped = json.loads((tmp_path / "two" / "state.json").read_text())["progress"]["step"]
    assert 0 < stopped < 400
    found = alone(tmp_path / "two", resume=True, dtype=torch.float64, **LONG)
    expected = alone(tmp_path / "one", dtype=torch.float64, **LONG)
    assert largest_difference(found, expected) <= (0.0 if strategy == "ddp" else 1e-12)


@pytest.mark.slow
def test_under_torchrun_a_killed_process_ends_the_run_too(tmp_path: Path) -> None:
    by = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]
    run = start(tmp_path, LONG, by=by)
    wait_for_state(tmp_path, run)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 1
    assert "exitcode  : -9" in err
    finish(start(tmp_path, LONG, "--resume", by=by))


@pytest.mark.slow
def test_ctrl_c_stops_all_at_the_same_step(tmp_path: Path) -> None:
    run = start(tmp_path, LONG | {"devices": 2, "strategy": "fsdp"})
    wait_for_state(tmp_path, run)
    run.send_signal(signal.SIGINT)  # to the first one alone: it tells the other
    said, err = run.communicate(timeout=300)
    assert all(f"[rank{rank}]: KeyboardInterrupt" in err for rank in (0, 1))
    stopped = json.loads((tmp_path / "state.json").read_text())["progress"]["step"]
    assert int(said.split()[-2]) == stopped < 400


@pytest.mark.parametrize(
    ("devices", "nodes", "message"),
    [
        (3, 1, "`devices`: expected 2, as torchrun started, or none given, got 3"),
        (2, 2, "`nodes`: expected 1, as torchrun started, or none given, got 2"),
    ],
)
def test_torchrun_decides(monkeypatch: pytest.MonkeyPatch, devices: int, nodes: int, message: str) -> None:
    for name, value in zip(processes.NAMES, ("1", "2", "1", "2", "localhost", "0"), strict=True):
        monkeypatch.setenv(name, value)
    assert (processes.rank(), processes.world(), processes.local()) == (1, 2, 2)
    processes.start(1, 1)
    processes.start(2, 1)
    with pytest.raises(ValueError, match=message):
        processes.start(devices, nodes)


def test_a_machine_must_know_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", "29500")
    message = "`nodes`: expected torchrun, or NODE_RANK, MASTER_ADDR in the environment, got 2"
    with pytest.raises(ValueError, match=message):
        processes.start(1, 2)


def test_one_process_needs_no_other() -> None:
    assert processes.total([0.1, 3.0]) == [0.1, 3.0]
    source, into = torch.arange(3.0), torch.empty(3)
    processes.spread(source, into)
    assert torch.equal(into, source)
