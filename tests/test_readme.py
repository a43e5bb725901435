"""The code in the README runs as it stands, links lead somewhere, and kernels are used by the rooms that may."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from mmha.bench.measure import Limits, Row
from mmha.bench.record import record
from mmha.bench.table import CASES

ROOT = Path(__file__).parent.parent


def test_code_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    english, chinese = ((ROOT / f"README{name}.md").read_text(encoding="utf-8") for name in ("", ".zh-CN"))
    fence = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    assert fence.findall(english) == fence.findall(chinese)
    blocks = re.findall(r"```python\n(.*?)```", english, re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], "README.md", "exec"), {})
    assert "visible" in capsys.readouterr().out


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return runpy.run_path(str(ROOT / "benchmarks" / "fill_readme.py"))


@pytest.mark.parametrize("language", ["ENGLISH", "CHINESE"])
def test_figures_in_the_pages_are_those_of_the_runs_beside_them(script: dict[str, Any], language: str) -> None:
    # `make bench` and `make bench-decode` write the files, fill_readme.py the sections: none is changed alone.
    made = script["sections"](ROOT / "benchmarks" / "results", language)
    for name, section in made.items():
        page = script["PAGES"][name] if language == "ENGLISH" else script["twin"](script["PAGES"][name])
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"<!-- {name} -->\n{section}\n<!-- /{name} -->" in text, name
    assert {"headline", "bench"} <= set(made)


def test_every_section_has_its_place(script: dict[str, Any]) -> None:
    # Else a benchmark of some minutes would end at the page that it cannot fill.
    assert set(script["PAGES"]) == set(script["WRITERS"])
    for name, page in script["PAGES"].items():
        for place in (page, script["twin"](page)):
            text = (ROOT / place).read_text(encoding="utf-8")
            assert f"<!-- {name} -->\n" in text, (place, name)
            assert f"\n<!-- /{name} -->" in text, (place, name)


def test_a_section_in_chinese_has_the_figures_of_the_english_one_and_no_english_sentence(
    script: dict[str, Any],
) -> None:
    def figures(section: str) -> list[list[str]]:
        cells = [line.split("|")[2:] for line in section.splitlines() if line.startswith("| ")]
        return [sorted(re.findall(r"\d+(?:[.,]\d+)*%?", "|".join(row))) for row in cells]

    english, chinese = (script["sections"](ROOT / "benchmarks" / "results", name) for name in ("ENGLISH", "CHINESE"))
    for name, section in chinese.items():
        assert figures(section) == figures(english[name]), name
        # Names of systems may be left, and in brackets why one is missing, as the run said it.
        said = re.sub(r"`[^`]*`|（[^（）]*）|：[A-Z]\w*Error.*", "", section)
        assert re.findall(r"[a-z]{2,} [a-z]{2,}\b", said) == [], name


def test_both_languages_have_the_same_sentences(script: dict[str, Any]) -> None:
    for room in {room for room, *_ in script["WRITERS"].values()} - {script["headline_section"]}:
        assert set(room.ENGLISH) <= set(room.CHINESE), room.__name__
        for name, sentence in room.ENGLISH.items():
            ours, theirs = (set(re.findall(r"{.*?}", said)) for said in (sentence, room.CHINESE[name]))
            assert ours == theirs, (room.__name__, name)


def test_figures_on_the_page_of_speed_are_rows_of_the_table(script: dict[str, Any]) -> None:
    cases = {case.name: case for case in CASES}
    attention = script["attention_section"]
    assert len(attention.SHOWN) == len(set(attention.SHOWN)) <= 22
    shown = [cases[name] for name in attention.SHOWN]
    assert {case.family for case in shown} == {case.family for case in CASES} - {"decode"}  # has a section of its own
    assert {case.kind for case in shown} <= set(attention.KINDS)
    assert [case.name for case in shown if case.threads] == [shown[-1].name]  # the sentence above the table says so


def test_the_table_of_attention_is_written_from_a_run(script: dict[str, Any]) -> None:
    rows = [Row(case, 2, 10**8, 200.0, [1470.7], [0.0264], 0.0) for case in CASES]
    run = record(Limits(threads=2, best={("GFLOP/s", 2): 200.0, ("GB/s", 2): 20.0}), rows)
    sentence, _, *table = script["attention_section"].section(run).splitlines()
    assert sentence.endswith(f" of the {len(CASES)} rows of that run:")
    assert len({line.count("|") for line in table}) == 1
    # 4 x 64 operations a pair, 10**8 pairs, 0.0264 ms.
    figures = "| 1471 | 0.0264 | 55708.33 | 969697 | 484848% |"
    assert f"| forward, 8 documents | float32 | 1 × 8 | 4096 {figures}" in table
    assert f"| forward, causal | float32 | 1 × 8/2 | 1 × 8192 {figures}" in table


def test_the_headline_sets_both_sides_of_a_row_beside_each_other(script: dict[str, Any]) -> None:
    headline = script["headline_section"]
    rows = [Row(case, 2, 10**8, 200.0, [1470.7], [0.0264], 0.0) for case in CASES]
    run = record(Limits(threads=2, best={("GFLOP/s", 2): 200.0, ("GB/s", 2): 20.0}), rows)
    times = {"torch": 6.6, "mmha": 2.2}
    sides = [{"side": f"{who} {dtype}", "ms": ms} for who, ms in times.items() for dtype in headline.DECODE]
    shape = dict(zip(("batch", "heads", "kv_heads", "dim", "k_len"), headline.DECODED, strict=True), sides=sides)
    run["limits"]["threads"] = 3
    assert ", 3 threads, " in headline.section(run, {"measured": run["measured"], "shapes": [shape]})
    *_, first, _, last = headline.section(run, {"measured": run["measured"], "shapes": [shape]}).splitlines()
    assert first == "| a call on 16 tokens, one thread | 1471 | 0.0264 | 5.6e+04 |"
    assert last == "| one new token, 16,384 cached in bfloat16 | 6.6 | 2.2 | 3 |"


def test_the_chinese_readme_has_the_tables_and_headings_of_the_other() -> None:
    def told(name: str) -> tuple[list[list[str]], int]:
        text = (ROOT / name).read_text(encoding="utf-8")
        tables = [line for line in text.splitlines() if line.startswith("|")]
        return [sorted(re.findall(r"\d+(?:[.,]\d+)*", line)) for line in tables], len(re.findall(r"(?m)^#+ ", text))

    assert told("README.md") == told("README.zh-CN.md")


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


# import-linter does not see compiled modules, so this rule of the house is checked here. `quick` tags a few words
# from a cold start with numpy alone, before torch could have been imported.
MAY_USE_KERNELS = ("ops/", "masks/", "bench/", "models/tagger/quick.py")


def test_kernels_are_used_by_few_rooms() -> None:
    source = ROOT / "src" / "mmha"
    users = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            if any(name.split(".")[-1] == "_kernels" for name in names):
                users.add(path.relative_to(source).as_posix())
    assert users
    assert [user for user in users if not user.startswith(MAY_USE_KERNELS)] == []
