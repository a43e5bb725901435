"""A few of the random cases of attention; `python tests/fuzz/attention_cases.py` computes any number of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fuzz import attention_cases
from fuzz.attention_cases import Exact, check, new_report, run
from fuzz.attention_problems import draw, exact
from mmha import _kernels


def clean(report: dict[str, Any]) -> bool:
    return not report["failures"] and all(row["worst"] <= 1.0 for row in report["dtypes"].values())


def test_random_cases(one_thread: None) -> None:
    report = new_report(first=0)
    run(report, count=40 * (6 * len(_kernels.available()) + 1), seconds=float("inf"))
    assert report["problems"] == 40
    assert set(report["isas"]) == {*_kernels.available(), "reference"}
    assert {"float32", "bfloat16", "float16", "float64"} <= set(report["dtypes"])
    assert clean(report)


@pytest.mark.slow
def test_many_random_cases(one_thread: None) -> None:
    report = new_report(first=10_000_000)
    run(report, count=50_000, seconds=float("inf"))
    assert clean(report)


def test_equal_terms_are_rounded_alike(one_thread: None) -> None:
    """A scale of 0 and a table of distances: 243 keys of a row score alike, and the sum is 5.6e-6 too small."""
    report = new_report(first=35_500)
    check(35_500, report)
    assert clean(report)


def test_a_number_draws_the_same_problem() -> None:
    first, second = draw(311), draw(311)
    assert str(first) == str(second)
    for a, b in zip((first.q, first.k, first.v), (second.q, second.k, second.v), strict=True):
        assert torch.equal(a, b)
    assert str(draw(312)) != str(first)


def test_a_wrong_number_is_found(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge is judged: what is off by 1 % in one number, or is NaN, fails every case."""
    number = next(n for n in range(100) if exact(draw(n))["out"].numel() > 1)
    for spoilt in (1.01, float("nan")):

        def of(name: str, x: Tensor, pairs: int, distance: int, by: float = spoilt) -> Exact:
            wrong = x.clone()
            if name == "out":
                wrong.view(-1)[x.abs().argmax()] *= by
            return Exact(wrong.numpy(), 1e-3)

        monkeypatch.setattr(attention_cases.Exact, "of", of)
        report = new_report(first=number)
        check(number, report)
        assert len(report["failures"]) == report["cases"] > 0
