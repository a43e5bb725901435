"""The code on the pages of docs/ runs and prints what stands beside it; both languages and the navigation keep step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CODE = re.compile(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PAGES = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
ENGLISH = sorted(page for page in PAGES if not page.startswith("zh/"))
CHINESE = sorted(page.removeprefix("zh/") for page in PAGES if page.startswith("zh/"))


def blocks(page: str) -> list[tuple[str, str]]:
    """The blocks of Python on a page, with the block of output that follows each; doctests have a test of their own."""
    found = CODE.findall((DOCS / page).read_text(encoding="utf-8"))
    return [(code, output) for code, output in found if not code.startswith(">>>")]


# What an example's page shows are parts of its script, which tests/test_examples.py runs and compares.
@pytest.mark.parametrize("page", [page for page in ENGLISH if blocks(page) and not page.startswith("examples/")])
def test_code_prints_what_stands_beside_it(
    page: str, capsys: pytest.CaptureFixture[str], one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code, output in blocks(page):
        exec(compile(code, page, "exec"), names)
        said = output.splitlines() or re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
        assert capsys.readouterr().out.rstrip().splitlines() == said, code


def test_every_page_is_there_in_chinese() -> None:
    assert [page for page in ENGLISH if not page.startswith("api/")] == CHINESE  # the reference is docstrings


@pytest.mark.parametrize("page", CHINESE)
def test_a_translated_page_has_the_code_of_its_twin(page: str) -> None:
    fence = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    ours, theirs = ((DOCS / folder / page).read_text(encoding="utf-8") for folder in ("zh", "."))
    assert fence.findall(ours) == fence.findall(theirs)
    marks = re.compile(r"^<!-- .* -->$", re.MULTILINE)  # what scripts fill, in either language: tests/test_readme.py
    assert marks.findall(ours) == marks.findall(theirs)
    if page != "README.md":  # the index may name a new page first in one language
        assert ours.count("\n#") == theirs.count("\n#")


@pytest.mark.parametrize("site", ["mkdocs.yml", "mkdocs.zh.yml"])
def test_the_navigation_names_pages_that_are_there_once(site: str) -> None:
    _, navigation = (ROOT / site).read_text(encoding="utf-8").split("\nnav:\n")
    listed = re.findall(r"- (?:.+: )?(\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(page for page in listed if page not in ENGLISH) == [
        f"project/{name}.md" for name in ("architecture", "changelog", "contributing", "readme")
    ]
    assert len(set(listed)) == len(listed)


def test_the_reference_has_every_public_name() -> None:
    import mmha

    reference = {page: (DOCS / page).read_text(encoding="utf-8") for page in ENGLISH if page.startswith("api/")}
    named = set(re.findall(r"^::: (\S+)$", "\n".join(reference.values()), re.MULTILINE))
    public = {f"mmha.{room}.{name}" for room in ("masks", "bias", "nn") for name in getattr(mmha, room).__all__}
    public |= {f"mmha.{name}" for name in mmha.__all__ if name[0] != "_" and name != "patch"}
    modules = {"mmha.bias", "mmha.cache", "mmha.huggingface", "mmha.masks", "mmha.nn", "mmha.reference"}
    twice = {"mmha.nn.Rotary", "mmha.nn.pack", "mmha.nn.unpack"}  # stand under mmha
    assert public - named == modules | twice | {"mmha.nn.functional"}


def test_the_tests_that_the_page_of_correctness_names_are_there() -> None:
    names = re.findall(r"`(tests/\S+?\.py)(?:::(\w+))?`", (DOCS / "correctness.md").read_text(encoding="utf-8"))
    assert len(names) > 30
    for path, name in names:
        assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8"), (path, name)
