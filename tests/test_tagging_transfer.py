"""benchmarks/tagging_transfer.py: both starts learn the same, dev alone chooses, the table says what the rows say."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mmha.data.sentence import Sentence
from mmha.models import bert
from mmha.models.bert import Bert, Config, Tokenizer
from mmha.models.bert import tagging as models
from mmha.train.tagging import accuracy

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "cat", "run", "##s", "!"]
TAGS = ("DET", "NOUN", "VERB", "PUNCT")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = Path(__file__).parent.parent / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("tagging_transfer")


def sentences(count: int) -> list[Sentence]:
    return [Sentence(("the", ("dogs", "cats")[i % 2], "runs", "!"), TAGS) for i in range(count)]


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    model = Bert(Config(len(PIECES), width=12, layers=2, heads=3, hidden=17, positions=13))
    bert.save(model, Tokenizer.of(PIECES), tmp_path / "encoder.json", {})
    return str(tmp_path / "encoder.json")


def test_rates_are_chosen_on_dev_and_the_chosen_tagger_is_tested(
    script: ModuleType, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tags of the test set are turned round: what is best there is the worst on dev.
    test = [Sentence(s.words, tuple(reversed(TAGS))) for s in sentences(7)]
    parts = [sentences(41), sentences(11), test]
    plan = script.Plan(0.5, 16, 9, rates=(1e-9, 0.02), seeds=(1, 2))
    rows = script.learned(script.PRETRAINED, plan, None, parts, tmp_path, encoder)
    assert [(row["seed"], row["rate"], row["words"]) for row in rows] == [(1, 0.02, 80), (2, 0.02, 80)]
    assert rows[0]["tried"]["0.02"] == rows[0]["dev"] > rows[0]["tried"]["1e-09"]
    assert "tried" not in rows[1]
    for row in rows:
        tagger = models.load(tmp_path / f"pretrained-0.5-{row['seed']}-0.02" / "tagger.json")
        assert row["test"] == pytest.approx(accuracy(tagger, test).value, rel=1e-4)
        assert row["test_words"] == 28
    (scratch,) = script.learned(script.SCRATCH, script.Plan(0.5, 16, 9, ()), 0.01, parts, tmp_path, encoder)
    assert (scratch["steps"], scratch["words"], scratch["rate"]) == (rows[0]["steps"], 80, 0.01)
    document = json.loads((tmp_path / "from scratch-0.5-1-0.01" / "tagger.json").read_text("utf-8"))
    assert document["about"]["from_scratch"] is True
    assert "test_accuracy" not in document["about"]


def rows() -> list[dict[str, Any]]:
    def row(side: str, share: float, test: float, seed: int = 1) -> dict[str, Any]:
        found = {"side": side, "share": share, "seed": seed, "words": int(97100 * share), "test": test}
        return found | {"test_words": 1009} | ({} if side == "CRF" else {"steps": 340})

    return [
        row("from scratch", 0.01, 0.80), row("from scratch", 0.01, 0.84, seed=2),
        row("pretrained", 0.01, 0.94), row("pretrained", 0.01, 0.92, seed=2),
        row("CRF", 0.01, 0.85), row("CRF", 0.01, 0.87, seed=2),
        row("from scratch", 1.0, 0.96), row("pretrained", 1.0, 0.97), row("CRF", 1.0, 0.975),
    ]  # fmt: skip


def test_the_table_is_written_from_the_rows(script: ModuleType, tmp_path: Path) -> None:
    section = importlib.import_module("bert_section")
    run = {"measured": "2026-11-28T", "machine": {"cpu": "X"}, "threads": 1, "rows": rows()}
    text, _, *table = section.transfer(run).splitlines()
    assert text.startswith("Of 1,009 test words; `make bench-tagging-transfer` on 2026-11-28, X, 1 thread.")
    assert table[2:] == [
        "| 1%, 2 draws | 971 | 340 | 86.00% ± 1.41% | 82.00% ± 2.83% | 93.00% ± 1.41% | 61% |",
        "| 100% | 97,100 | 340 | 97.50% | 96.00% | 97.00% | 25% |",
    ]
    assert len({line.count("|") for line in table}) == 1
    assert script.by_share(rows(), "CRF") == {0.01: [0.85, 0.87], 1.0: [0.975]}
    script.plot(rows(), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_an_encoder_that_has_seen_other_files_is_refused(script: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "brown"
    folder.mkdir()
    for number in range(11):
        (folder / f"ca{number:02}").write_text(f"The/at saw/nn {number}/cd ./.\n")
    train, dev = [(f"The saw {n} .",) for n in range(2, 10)], [("The saw 1 .",)]  # files 0 and 10 are to test on
    own = hashlib.sha256(repr((train, dev)).encode()).hexdigest()[:16]
    (tmp_path / "bert.json").write_text(json.dumps({"about": {"digest": own}}))
    script.check_unseen(tmp_path / "bert.json", folder)
    (folder / "ca05").write_text("Another/at sentence/nn ./.\n")
    with pytest.raises(SystemExit, match="expected a BERT of the files to train and choose on"):
        script.check_unseen(tmp_path / "bert.json", folder)


@pytest.mark.network
def test_the_encoder_that_ships_has_not_seen_the_test_files(script: ModuleType, fetched: Callable[[str], Path]) -> None:
    script.check_unseen(bert.SHIPPED, fetched("brown"))
