"""What `make wheel-check` decides by itself: which wheel serves which Python, and what it keeps."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tests" / "wheels" / "check.py"))


@pytest.mark.parametrize(
    ("tags", "served"),
    [
        ("cp311-cp311-manylinux_2_34_x86_64", {(3, 11)}),
        ("cp310-cp310-macosx_11_0_arm64", {(3, 10)}),
        ("cp312-abi3-manylinux_2_34_x86_64", {(3, 12), (3, 13), (3, 14)}),
    ],
)
def test_the_pythons_that_a_wheel_serves(script: dict[str, Any], tags: str, served: set[tuple[int, int]]) -> None:
    wheel = Path(f"mmha-0.1.0-{tags}.whl")
    pythons = [(3, minor) for minor in range(9, 15)]
    assert {python for python in pythons if script["fits"](wheel, python)} == served


def test_a_wheel_without_compiled_code_is_none(script: dict[str, Any]) -> None:
    with pytest.raises(
        script["Failed"], match=r"expected a wheel with the tags of a compiled module, got mmha-0.1.0-py3"
    ):
        script["fits"](Path("mmha-0.1.0-py3-none-any.whl"), (3, 11))


def test_a_new_row_takes_the_place_of_its_pair(script: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    pairs = [("3.13.5", "2.13.0"), ("3.11.2", "2.13.0"), ("3.11.2", "2.9.1"), ("3.13.5", "2.13.0")]
    for seconds, (python, torch) in enumerate(pairs):
        script["keep"]({"python": python, "torch": torch, "seconds": seconds}, path)
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert [(row["python"], row["torch"], row["seconds"]) for row in rows] == [
        ("3.11.2", "2.9.1", 2), ("3.11.2", "2.13.0", 1), ("3.13.5", "2.13.0", 3)
    ]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["rows.json"]


def test_the_oldest_torch_that_is_declared_was_seen_to_work() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "wheels.json").read_text(encoding="utf-8"))
    (declared,) = re.findall(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert any(row["torch"].startswith(f"{declared}.") for row in rows)
