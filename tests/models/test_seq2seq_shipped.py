"""The translators that ship: what they have learned, how they were made, and their scores on pages they never saw."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from mmha import metrics
from mmha.cli import app
from mmha.data import parallel, registry
from mmha.models.seq2seq import SHIPPED, load, small
from mmha.models.seq2seq.text import translate_texts

KNOWN = {
    "de": (
        "Please enter your password and press Enter.",
        "Geben Sie Ihr Kennwort ein und drücken Sie die Eingabetaste.",
    ),
    "zh": ("Open the file in a new window.", "打开新窗口中的文件。"),
}


@pytest.mark.parametrize("language", list(SHIPPED))
def test_it_says_how_it_was_made(language: str) -> None:
    document = json.loads(SHIPPED[language].read_text("utf-8"))
    about, config = document["about"], load(SHIPPED[language])[0].config
    assert replace(config, dropout=0.1) == small(5000)
    assert about["parameters"] == config.parameters
    assert about["command"].startswith("mmha train translate ")
    assert f"--steps {about['step']}" in about["command"]
    assert (about["data"], about["reverse"]) == (f"help-{language}", False)
    assert {"seed", "digest", "pairs", "repeated_pairs", "dev_nats_per_token", "seconds"} <= set(about)
    assert (SHIPPED[language].parent / document["tensors"]).stat().st_size < 4_300_000


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("language", list(SHIPPED))
def test_the_command_line_finds_it(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = KNOWN[language]
    for _ in range(2):
        assert app.run(["translate", source, "", source, "--to", language]) == 0
        assert capsys.readouterr().out == f"{target}\n\n{target}\n"
    assert app.run(["translate", f"{source} {source}", "--to", language, "--n-best", "2"]) == 0
    best, second = (line.split(" ||| ") for line in capsys.readouterr().out.splitlines())
    assert best[1].count(target) == 2
    assert re.sub(r"\s", "", best[1]) == re.sub(r"\s", "", 2 * target)
    assert float(best[2]) >= float(second[2])


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("language", list(SHIPPED))
def test_its_scores_on_the_test_pages_are_those_it_names(language: str) -> None:
    name = f"help-{language}"
    test = parallel.split(parallel.help_pages(registry.get(name), name)).test
    about = json.loads(SHIPPED[language].read_text("utf-8"))["about"]
    found = [one.text for one in translate_texts(*load(SHIPPED[language]), [pair.source for pair in test])]
    scores = metrics.translation(found, [pair.target for pair in test])
    assert about["pairs"]["test"] == len(test)
    for metric, (score, signature) in about["test"].items():
        assert scores[metric] == (pytest.approx(score, abs=0.3), signature)  # a tie may fall otherwise elsewhere
