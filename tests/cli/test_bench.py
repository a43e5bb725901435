"""`mmha bench`: the table, the files it writes, and what it refuses before it measures."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path

import pytest

from mmha import _kernels
from mmha.bench import measure
from mmha.cli import app

SHORT = ["--filter", "masks causal 512 f32", "--seconds", "0", "--threads", "1"]


def test_table_json_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    assert app.run(["bench", *SHORT, "--json", str(results), "--plot", str(picture)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err == ""
    assert max(map(len, lines[:8])) <= 80
    assert [lines[4], lines[6]] == ["masks: forward", "masks: backward"]
    assert [line.split()[:5] for line in (lines[5], lines[7])] == [["causal", "1x8", "512", "64", "f32"]] * 2
    assert lines[8:] == [f"wrote {results}", f"wrote {picture}"]
    assert picture.read_bytes().startswith(b"\x89PNG")

    run = json.loads(results.read_text(encoding="utf-8"))
    assert run["limits"]["threads"] == 1
    assert run["machine"]["kernels"]["isa"]
    assert [row["limit_gflops"] for row in run["rows"]] == [round(run["limits"]["fma_gflops"], 2)] * 2
    forward, backward = run["rows"]
    pairs = 8 * 512 * 513 // 2
    assert (forward["useful_flop"], backward["useful_flop"]) == (4 * 64 * pairs, 10 * 64 * pairs)
    assert forward["name"] == "masks forward causal 512 f32 1x8 d64"
    shape = {"batch": 1, "heads": 8, "kv_heads": 8, "q_len": 512, "k_len": 512, "dim": 64}
    assert (forward["sizes"], forward["dtype"], forward["threads"]) == (shape, "float32", 1)
    for row in run["rows"]:
        assert row["torch_ms"] == pytest.approx(statistics.median(row["torch_samples_ms"]), abs=1e-3)
        assert row["mmha_ms"] == pytest.approx(statistics.median(row["mmha_samples_ms"]), abs=1e-3)
        assert row["ratio"] == pytest.approx(row["torch_ms"] / row["mmha_ms"], rel=1e-2)
        assert row["gflops"] == pytest.approx(row["useful_flop"] / row["mmha_ms"] / 1e6, rel=1e-2)
        assert row["share_of_limit"] == pytest.approx(row["gflops"] / row["limit_gflops"], rel=1e-2)
        assert row["rounds"] == len(row["mmha_samples_ms"]) == len(row["torch_samples_ms"]) == 3
        assert row["calls_a_round"] == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--filter", "forwrad"], "`filter`: expected words out of: "),
        (["--filter", "forwrad"], "got 'forwrad'; did you mean 'forward'?"),
        (["--quick", "--filter", "4096"], "got '4096'"),
        (["--json", "no-such-folder/a.json"], "no-such-folder: no such folder, for --json a.json"),
        (["--plot", "no-such-folder/a.png"], "no-such-folder: no such folder, for --plot a.png"),
        (["--json", "."], ".: expected a file for --json, got a folder"),
        (["--filter", "documents 8192"], "`filter`: expected words that stand together in a row of mmha bench"),
        (["--plot", "a.xyz"], "`--plot`: expected a file ending in "),
        (["--threads", "-1"], "--threads"),
        (["--isa", "avx3"], "`--isa`: expected "),
    ],
)
def test_refused_before_measuring(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["bench", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert line in said.err


def test_the_best_probe_of_the_run_counts_for_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rising = itertools.count(100.0)
    monkeypatch.setattr(measure, "probe_fma", lambda threads: next(rising))
    assert app.run(["bench", *SHORT, "--json", str(tmp_path / "bench.json")]) == 0
    run = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    # One probe at the start, then one before and one after each of two rows.
    assert [run["limits"]["fma_gflops"], *(row["limit_gflops"] for row in run["rows"])] == [104.0] * 3


def test_another_instruction_set_for_a_run(tmp_path: Path) -> None:
    before, results = _kernels.isa(), tmp_path / "bench.json"
    assert app.run(["bench", *SHORT, "--isa", "scalar", "--json", str(results)]) == 0
    assert json.loads(results.read_text(encoding="utf-8"))["machine"]["kernels"]["isa"] == "scalar"
    assert _kernels.isa() == before
