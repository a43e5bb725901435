"""benchmarks/attention_peers.py: all sides compute the same, who cannot is named, and a run becomes the tables."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mmha import reference
from mmha.bench.patterns import mask_of

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("attention_peers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of tiny problems, in a process of its own: jax's threads would forbid others here to fork."""
    made = tmp_path_factory.mktemp("peers") / "run.json"
    command = [sys.executable, str(FOLDER / "attention_peers.py"), "--quick", "--threads", "1", "--json", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("name", ["torch SDPA", "ONNX Runtime", "JAX", "OpenVINO", "mmha"])
def test_a_side_computes_what_float64_does_in_every_row_that_it_can(run: dict[str, Any], name: str) -> None:
    if name in run["without"]:
        pytest.skip(run["without"][name])
    able = {"ONNX Runtime": ("forward", ["float32"]), "OpenVINO": ("forward", ["float32", "bfloat16"])}
    direction, dtypes = able.get(name, ("", ["float32", "bfloat16"]))
    for row in run["rows"]:
        errors = {side["side"]: side["error"] for side in row["sides"]}  # compared by the script, or the run ends
        assert (name in errors) == (row["direction"].startswith(direction) and row["dtype"] in dtypes), row["name"]
        assert (name in errors) != (name in row["without"])
        if name in errors:
            assert 0 < errors[name] < (2e-6 if row["dtype"] == "float32" else 2e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses what torch advises against
def test_flex_attention_computes_what_float64_does(script: ModuleType, one_thread: None) -> None:
    makers = {name: script.MAKERS[name] for name in ("FlexAttention", "mmha")}
    for case in script.quick_cases():
        if case.dtype == "f32":
            row = script.measure(case, makers, 1, 0.0)  # compares, or raises
            there = [side["side"] for side in row["sides"]]
            assert there == (["FlexAttention", "mmha"] if case.direction == "forward" else ["mmha"]), row["without"]


@pytest.mark.parametrize("kind", ["causal", "documents"])
def test_what_sides_are_compared_with_is_the_reference(script: ModuleType, kind: str) -> None:
    case = next(
        c for c in reversed(script.quick_cases()) if (c.direction, c.kind, c.dtype) == ("training", kind, "f32")
    )
    case = replace(case, sizes=replace(case.sizes, q_len=67, k_len=67))
    problem = script.Problem(case, 1)
    q, k, v, grad = problem.tensors
    rule = reference.Rule(visible=mask_of(kind, case.sizes).dense(1, 1, 67, 67))
    wanted = [reference.attention(q, k, v, rule)[0], *reference.gradients(q, k, v, reference.Gradients(grad), rule)[:3]]
    for made, right in zip(script.exact(problem), wanted, strict=True):
        torch.testing.assert_close(made, right, rtol=1e-9, atol=1e-11)


def test_a_peer_that_cannot_is_named_and_one_that_computes_otherwise_ends_the_run(
    script: ModuleType, one_thread: None
) -> None:
    def cannot(problem: object) -> object:
        raise NotImplementedError("not here\nand more")

    def wrong(problem: Any) -> Any:
        right = script.MAKERS["mmha"](problem)
        return script.Attempt(right.work, lambda results: tuple(x * 1.001 for x in right.view(results)))

    case, ours = script.quick_cases()[0], script.MAKERS["mmha"]
    row = script.measure(case, {"JAX": cannot, "mmha": ours}, 1, 0.0)
    assert row["without"] == {"JAX": "NotImplementedError: not here"}
    assert [side["side"] for side in row["sides"]] == ["mmha"]
    with pytest.raises(NotImplementedError, match="not here"):
        script.measure(case, {"mmha": cannot}, 1, 0.0)
    with pytest.raises(SystemExit, match=r"OpenVINO differs from float64 by 1\.0e-03 relative, allowed 2e-05"):
        script.measure(case, {"OpenVINO": wrong, "mmha": ours}, 1, 0.0)


def test_a_side_with_more_cpus_than_threads_is_refused(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "warmed", lambda work: (1, 0.1, 2.3))
    script.prepared("JAX", script.Attempt(list, tuple), 3)
    with pytest.raises(RuntimeError, match=r"JAX uses 2\.30 CPUs where it was given 2 threads"):
        script.prepared("JAX", script.Attempt(list, tuple), 2)


def made_run() -> dict[str, Any]:
    """A run as the script writes it, of three rows."""

    def row(direction: str, kind: str, dtype: str, without: dict[str, str], **ms: float) -> dict[str, Any]:
        sides = [{"side": name.replace("_", " "), "ms": x, "error": 3e-7, "cpus": 1.9} for name, x in ms.items()]
        return {"direction": direction, "kind": kind, "dtype": dtype, "sides": sides, "without": without,
                "sizes": {"heads": 8, "kv_heads": 2, "k_len": 2048}}  # fmt: skip

    machine = {"cpu": "X", "cpus": 2, "mmha": "0.1.0", "kernels": {"isa": "scalar"}}
    gone = {"JAX": "jax is not installed"}
    versions = {"torch SDPA": "2.13", "OpenVINO": "2026.4"}
    rows = [
        row("forward", "dense", "float32", {}, torch_SDPA=40.0, OpenVINO=9.0, mmha=10.0),
        row("forward", "window", "bfloat16", {}, torch_SDPA=1234.0, OpenVINO=10.5, mmha=10.0),
        row("training", "documents", "float32", {"OpenVINO": "E: none."}, torch_SDPA=30.0, mmha=10.0),
    ]
    return {"measured": "2026-11-28T", "machine": machine, "threads": 2, "load": 0.5, "versions": versions,
            "without": gone, "rows": rows}  # fmt: skip


def test_the_tables_of_peers_are_written_from_a_run(script: ModuleType, tmp_path: Path) -> None:
    section, run = importlib.import_module("peers_section"), made_run()
    lines = section.section(run).splitlines()
    assert lines[2] == "| work | dtype | H | T | torch SDPA | OpenVINO | mmha | × |"
    assert lines[4] == "| forward, no mask | float32 | 8/2 | 2048 | 40 | **9** | 10 | 0.90 |"
    assert lines[5] == "| forward, window 256 | bfloat16 | 8/2 | 2048 | 1234 | 10.5 | **10** | 1.05 |"
    assert lines[6] == "| forward and backward, 8 documents | float32 | 8/2 | 2048 | 30 | – | **10** | 3.00 |"
    assert lines[8] == (
        "**Faster than mmha:** OpenVINO at forward, no mask, float32, 2048 (0.90 of mmha's time). "
        "About as fast: OpenVINO at forward, window 256, bfloat16, 2048 (1.05 of mmha's time)."
    )
    assert lines[12] == "| torch SDPA | 2.13 | 3 | 3.00 | 4.00 | 123.40 | 1.90 | 3.0e-07 |"
    assert lines[-2:] == [
        "- JAX (jax is not installed)",
        "- OpenVINO, forward and backward, float32 (E: none)",
    ]
    assert "busy" not in lines[0]
    assert "load 9 on 2 CPUs" in section.section(run | {"load": 9})
    run["rows"] = run["rows"][2:]
    assert "**No peer was faster than mmha in any row.**" in section.section(run).splitlines()
    importlib.import_module("peers_chart").draw(made_run(), tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_the_lines_below_other_tables_say_who_is_ahead(script: ModuleType) -> None:
    section = importlib.import_module("peers_section")
    sides = {"mmha float32": 2.0, "mmha float16": 1.0, "mmha int8": 1.0, "torch float32": 3.0,
             "torch enable_gqa float32": 9.0, "llama.cpp f16": 0.5, "llama.cpp q8_0": 2.0}  # fmt: skip
    shape = {"batch": 1, "heads": 8, "kv_heads": 2, "dim": 64, "k_len": 512, "read_gbs": 40.0,
             "sides": [{"side": name, "ms": ms, "gbs": 9.0} for name, ms in sides.items()]}  # fmt: skip
    run = made_run() | {"shapes": [shape]}
    ahead = "**Faster than mmha:** llama.cpp f16 at 1 × 8/2, 64, 512 (0.50 of mmha's time). Each stands beside mmha "
    assert any(line.startswith(ahead) for line in section.decoding(run).splitlines())
    assert section.decoding(run).splitlines()[-1] == "- JAX (jax is not installed)"
    rates = {"torch": 1.0, "CTranslate2 int8": 6.0, "mmha": 2.0}
    row = {"title": "decoding, small, one sentence at a time", "threads": 1, "unit": "sentences", "without": {},
           "sides": [{"side": name, "per_second": rate} for name, rate in rates.items()]}  # fmt: skip
    found = section.translating(made_run() | {"rows": [row]}).splitlines()[-1]
    assert found == "**Ahead of mmha:** CTranslate2 int8 in 1 of 1 rows, 3.00 to 3.00 times as fast."
