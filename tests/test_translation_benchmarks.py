"""Translation in benchmarks/: the same losses, weights and translations on all sides, and the page's tables."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mmha.models.seq2seq import Beams, Config, Seq2Seq, translate
from seq2seq_twins import SIZES, trained

FOLDER = Path(__file__).parent.parent / "benchmarks"
SOURCES = [[3, 1, 4, 1, 5], [7, 9], [9], [2, 6, 5, 3, 5, 8, 9], [], [8, 0, 1, 7]]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(request.param)


@pytest.fixture(params=[False, True], ids=["post-LN", "pre-LN"])
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return trained(request.param)


@pytest.mark.parametrize("script", ["translation_training"], indirect=True)
@pytest.mark.parametrize("similar", [False, True])
def test_batches_have_the_tokens_that_were_asked_for(script: ModuleType, similar: bool) -> None:
    made = script.batches(97, 5, 211, similar)
    assert [list(map(len, batch.targets)) for batch in script.batches(97, 5, 211, similar)] == [
        list(map(len, batch.targets)) for batch in made
    ]
    spread = 0
    for batch in made:
        sizes = [len(target) for target in batch.targets]
        assert batch.tokens == sum(sizes) + len(sizes)
        assert 211 <= batch.tokens < 211 + 145
        assert len(batch.sources) == len(sizes)
        assert all(0 <= token < 96 for text in (*batch.sources, *batch.targets) for token in text)
        spread += max(sizes) - min(sizes)
    assert (spread < 100) == similar


@pytest.mark.parametrize("script", ["translation"], indirect=True)
@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_transformer_takes_the_steps_that_ours_takes(script: ModuleType, norm_first: bool) -> None:
    training = script.training
    torch.manual_seed(1)
    ours = Seq2Seq(Config(97, **SIZES, norm_first=norm_first))  # type: ignore[arg-type]
    batches = training.batches(97, 3, 53, True)
    sides = [training.Torch(ours), training.Ours(ours)]
    facts = script.compared_losses(sides, batches[0])
    assert facts[0] == pytest.approx(facts[1], rel=1e-5)
    assert facts[0]["loss"] == pytest.approx(4.6, abs=1)  # ln 97
    before = ours.embedding.weight.detach().clone()
    for side in sides:
        training.steps(side, batches)()
    learned = sides[0].model.embedding.weight
    assert (learned - before).abs().max() > 1e-4
    torch.testing.assert_close(ours.embedding.weight, learned, atol=2e-5, rtol=0)


@pytest.mark.parametrize("script", ["translation"], indirect=True)
def test_a_side_with_another_loss_ends_the_run(script: ModuleType) -> None:
    training = script.training
    model = Seq2Seq(Config(97, **SIZES))  # type: ignore[arg-type]
    sides = [training.Torch(model), training.Ours(model)]
    with torch.no_grad():
        sides[0].model.embedding.weight[5] += 1
    with pytest.raises(SystemExit, match=r"^(loss|gradient): \S+ beside \S+$"):
        script.compared_losses(sides, training.batches(97, 1, 53, True)[0])


@pytest.mark.parametrize("script", ["translation_plain"], indirect=True)
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_plain_torch_translates_as_we_do(script: ModuleType, model: Seq2Seq, alpha: float) -> None:
    beams = Beams(4, alpha, extra=11)
    wanted = [list(best[0].tokens) for best in translate(model, SOURCES, beams)]
    assert len({tuple(text) for text in wanted}) > 3
    assert script.Plain(model)(SOURCES, 4, 11, beams.score) == wanted


@pytest.mark.parametrize("script", ["translation_ctranslate2"], indirect=True)
def test_ctranslate2_has_our_weights(script: ModuleType, model: Seq2Seq) -> None:
    if importlib.util.find_spec("ctranslate2") is None:
        pytest.skip('needs CTranslate2: pip install "mmha[peers]"')
    beams = Beams(1, 0.0, extra=11)
    wanted = [list(best[0].tokens) for best in translate(model, SOURCES, beams)]
    converted = script.Converted(model, 1)
    assert [converted([source], beams)[0] for source in SOURCES] == wanted  # it has one longest length a batch


@pytest.mark.parametrize("script", ["translation"], indirect=True)
def test_a_row_is_measured_in_turns_and_printed(
    script: ModuleType, model: Seq2Seq, capsys: pytest.CaptureFixture[str]
) -> None:
    row = script.decoding_row("r", "a row", model, SOURCES, 4, 11, 1)
    assert (row.unit, row.amount, [side.name for side in row.sides[:2]]) == ("sentences", 6, ["torch", "mmha"])
    assert [side.facts["same"] for side in row.sides[:2]] == [1.0, 1.0]
    assert ("CTranslate2" in row.without) == (importlib.util.find_spec("ctranslate2") is None)
    turns: list[str] = []
    for at, side in enumerate(row.sides):
        row.sides[at] = script.Side(side.name, lambda name=side.name: turns.append(name), side.facts)
    found = script.measure(row, 0.0) | {"threads": 1}
    names = [side.name for side in row.sides]
    assert turns == [*names, *reversed(names), *names]
    assert all(len(side["samples_s"]) == script.FEWEST for side in found["sides"])
    script.print_row(found)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["torch", "mmha"]


@pytest.mark.parametrize("script", ["translation"], indirect=True)
def test_another_translation_ends_the_run(script: ModuleType, model: Seq2Seq, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"torch": lambda sources: [[1]] * len(sources), "mmha": lambda sources: [[2]] * len(sources)}
    monkeypatch.setattr(script, "decoders", lambda *_: (made, {}))
    with pytest.raises(SystemExit, match=r"^r: 0% of the translations of mmha are those of torch$"):
        script.decoding_row("r", "a row", model, SOURCES, 4, 11, 1)


@pytest.mark.parametrize("script", ["translation_section"], indirect=True)
def test_the_tables_are_written_from_a_run(script: ModuleType) -> None:
    def row(title: str, unit: str, without: dict[str, str], threads: int = 2, **sides: float) -> dict[str, Any]:
        made = [{"side": side.replace("_", " "), "per_second": rate} for side, rate in sides.items()]
        return {"title": title, "unit": unit, "sides": made, "without": without, "threads": threads}

    run = {
        "measured": "2026-11-24T",
        "machine": {"cpu": "X", "torch": {"version": "2"}},
        "threads": 2,
        "rows": [
            row("A", "tokens", {}, **{"torch.nn": 1000.0, "mmha": 2500.0}),
            row("B", "sentences", {}, torch=2.0, mmha=3.0, CTranslate2_float32=4.0, CTranslate2_int8=6.0),
            row("C", "sentences", {"CTranslate2": "not installed"}, 1, torch=2.0, mmha=300.0),
        ],
    }
    text = script.section(run)
    assert "| A, 2 threads | 1,000 | 2,500 | 2.50 |" in text
    assert "| B, 2 threads | 2 | 4 | 6 | 3 | 1.50 | 0.75 | 0.50 |" in text
    assert "| C, 1 thread | 2 | – | – | 300 | 150.00 | – | – |" in text
    assert text.splitlines()[-1] == "Without CTranslate2: not installed."
    assert "Without" not in script.section(run | {"rows": run["rows"][:2]})
    for table in text.split("\n\n")[1:3]:
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize("script", ["translation"], indirect=True)
def test_what_was_measured_is_written(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    side = script.Side("mmha", lambda: None, {"same": 1.0})
    names = ["--rows", "training-small", "small-1"]
    monkeypatch.setattr(script, "rows", lambda threads: dict.fromkeys(
        names[1:], lambda: script.Row("r", "R", "u", threads, [side], {})
    ))  # fmt: skip
    script.main([*names, "--seconds", "0", "--threads", "2", "--json", str(tmp_path / "run.json")])
    run = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert (run["threads"], [row["threads"] for row in run["rows"]]) == (2, [2, 1, 2])
    assert "wrote" in capsys.readouterr().out
