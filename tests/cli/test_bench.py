"""`mmha bench`: the table, the files it writes, and what it refuses before it measures."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from mmha.cli import app

SHORT = ["--filter", "causal 512", "--seconds", "0", "--threads", "1"]


def test_table_json_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    assert app.run(["bench", *SHORT, "--json", str(results), "--plot", str(picture)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err == ""
    assert max(map(len, lines[:6])) <= 80
    assert [line.split()[:4] for line in lines[4:6]] == [[d, "causal", "512", "64"] for d in ("forward", "backward")]
    assert lines[6:] == [f"wrote {results}", f"wrote {picture}"]
    assert picture.read_bytes().startswith(b"\x89PNG")

    run = json.loads(results.read_text(encoding="utf-8"))
    assert run["limits"]["threads"] == 1
    assert run["machine"]["kernels"]["isa"]
    forward, backward = run["rows"]
    pairs = 8 * 512 * 513 // 2
    assert (forward["useful_flop"], backward["useful_flop"]) == (4 * 64 * pairs, 10 * 64 * pairs)
    for row in run["rows"]:
        assert row["torch_ms"] == pytest.approx(statistics.median(row["torch_samples_ms"]), abs=1e-3)
        assert row["mmha_ms"] == pytest.approx(statistics.median(row["mmha_samples_ms"]), abs=1e-3)
        assert row["ratio"] == pytest.approx(row["torch_ms"] / row["mmha_ms"], rel=1e-2)
        assert row["gflops"] == pytest.approx(row["useful_flop"] / row["mmha_ms"] / 1e6, rel=1e-2)
        assert row["share_of_limit"] == pytest.approx(row["gflops"] / row["limit_gflops"], rel=1e-2)
        assert row["rounds"] == len(row["mmha_samples_ms"]) == len(row["torch_samples_ms"]) == 5


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--filter", "forwrad"], "`filter`: expected words out of: "),
        (["--filter", "forwrad"], "got 'forwrad'; did you mean 'forward'?"),
        (["--quick", "--filter", "8192"], "got '8192'"),
        (["--json", "no-such-folder/a.json"], "no-such-folder: no such folder, for --json a.json"),
        (["--plot", "no-such-folder/a.png"], "no-such-folder: no such folder, for --plot a.png"),
        (["--json", "."], ".: expected a file for --json, got a folder"),
        (["--filter", "forward 8192 causal"], "`filter`: expected words that stand together in a row of mmha bench"),
        (["--plot", "a.xyz"], "`--plot`: expected a file ending in "),
        (["--threads", "-1"], "--threads"),
    ],
)
def test_refused_before_measuring(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["bench", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert line in said.err
