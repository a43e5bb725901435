"""`mmha info`: what a bug report needs, even where something is broken."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import mmha
from mmha import _kernels
from mmha.cli import app


def test_json_says_what_is_installed(isa: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["mmha"] == mmha.__version__
    kernels = facts["kernels"]
    assert (kernels["isa"], kernels["pool"]) == (isa, _kernels.pool())
    assert (kernels["compiled"], kernels["available"]) == (_kernels.compiled(), _kernels.available())
    assert facts["torch"] == {"version": torch.__version__, "threads": torch.get_num_threads()}
    assert facts["cpus"] >= 1
    assert facts["cpu"]


def test_text_has_a_line_for_each_fact(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MMHA_DATA", "/somewhere/of mine")
    assert app.run(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == ["mmha", "kernels", "torch", "cpu", "python", "platform", "data", "environment"]
    assert lines["kernels"].startswith(f"{_kernels.isa()} in use")
    assert lines["data"] == "/somewhere/of mine"
    assert "MMHA_DATA=/somewhere/of mine" in lines["environment"]


@pytest.mark.parametrize("missing", ["mmha._kernels", "torch"])
def test_a_broken_installation_is_a_fact_like_others(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from mmha.cli.app import main; main(['info'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not usable: " in done.stdout
    assert "platform" in done.stdout
