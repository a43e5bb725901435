"""`mmha view`: the file it writes, the server, and what it says about bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mmha.cli import app


def data(built: str) -> Any:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', built, re.DOTALL)[1])  # type: ignore[index]


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["view", "--no-open", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_a_page_about_what_was_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    texts = [
        "--mask",
        "causal | prefix(3)",
        "--size",
        "7",
        "--sentence",
        "I saw a </script> saw.",
        "--prompt",
        "ROMEO.",
    ]
    assert app.run(["view", *texts, "--out", str(out), "--no-open"]) == 0
    assert re.fullmatch(rf"wrote {out}: \d+ kB, opens in any browser\n", capsys.readouterr().out)
    found = data(out.read_text("utf-8"))
    assert found["mask"] == {"text": "causal | prefix(3)", "size": 7}
    assert "".join(found["looks"][0]["rows"]) == "Isawa</script>saw."
    assert [look["id"] for look in found["looks"]] == ["tagger", "bert", "translation"]
    assert found["generation"]["tokens"][0].startswith("R")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_what_is_wrong_is_one_line_and_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "page.html")]
    assert "did you mean 'causal'" in failure(capsys, "--mask", "casual", *out)
    assert "`--size`: expected an integer >= 1 and <= 1024, got 0" in failure(capsys, "--size", "0", *out)
    assert "`--port`: expected it with --serve, got it alone" in failure(capsys, "--port", "80", *out)
    assert "got 70000" in failure(capsys, "--serve", "--port", "70000")
    assert "no such folder, for --out page.html" in failure(capsys, "--out", str(tmp_path / "none" / "page.html"))
    assert "none.wav: No such file" in failure(capsys, "--recording", str(tmp_path / "none.wav"), *out)
    assert "expected one of tagger.json" in failure(capsys, "--model", str(tmp_path), *out)
    (tmp_path / "other.json").write_text("{}")
    assert "expected a checkpoint" in failure(capsys, "--model", str(tmp_path / "other.json"), *out)
    (tmp_path / "other.json").unlink()
    assert list(tmp_path.iterdir()) == []


def test_the_server_takes_texts_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    # As a background job of a shell: there SIGINT is ignored until the program asks for it.
    command = [sys.executable, "-m", "mmha", "view", "--serve", "--no-open", "--prompt", "I have a dream"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    job = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    with subprocess.Popen(job, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            address = re.match(r"serving (http://127\.0\.0\.1:\d+/) on this machine alone", running.stdout.readline())
            assert address

            def page(query: str = "") -> Any:
                with urllib.request.urlopen(address[1] + query, timeout=120) as answer:
                    return data(answer.read().decode())

            assert page()["form"] == {"texts": page()["form"]["texts"], "wrong": ""}
            assert page("?prompt=ROMEO.")["generation"]["tokens"][0].startswith("R")
            refused = page("?prompt=" + "+word" * 99)
            assert "`--prompt`: expected 1 to 52 tokens" in refused["form"]["wrong"]
            assert refused["generation"] == page()["generation"]
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=120)[0] == "ended\n"
            assert running.returncode == 0
        finally:
            running.kill()
    assert list(tmp_path.iterdir()) == []
