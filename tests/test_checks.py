"""The one message format, and the helpers that raise through it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mmha import checks

FAILING: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: checks.require(False, "q", "4 dimensions", 3), ValueError, "`q`: expected 4 dimensions, got 3"),
    (
        lambda: checks.require(False, "q", "4 dimensions", "(2, 3)"),
        ValueError,
        "`q`: expected 4 dimensions, got (2, 3)",
    ),
    (lambda: checks.integer("size", 2.0), TypeError, "`size`: expected an integer, got 2.0"),
    (lambda: checks.integer("size", True, 0), TypeError, "`size`: expected an integer >= 0, got True"),
    (lambda: checks.integer("size", 9, maximum=8), ValueError, "`size`: expected an integer <= 8, got 9"),
    (lambda: checks.integer("size", -1, 0, 8), ValueError, "`size`: expected an integer >= 0 and <= 8, got -1"),
    (
        lambda: checks.integer("size", torch.tensor(3)),
        TypeError,
        "`size`: expected an integer, got an int64 tensor of shape ()",
    ),
    (lambda: checks.number("scale", float("inf")), ValueError, "`scale`: expected a finite number, got inf"),
    (
        lambda: checks.number("scale", 10**5000),
        ValueError,
        "`scale`: expected a finite number, got an integer beyond all floats",
    ),
    (lambda: checks.number("scale", -1, 0.0), ValueError, "`scale`: expected a finite number >= 0.0, got -1.0"),
    (lambda: checks.number("scale", True), TypeError, "`scale`: expected a finite number, got True"),
    (lambda: checks.number("scale", "2"), TypeError, "`scale`: expected a finite number, got str '2'"),
    (lambda: checks.dtype_in("q", 3, ["float32"]), TypeError, "`q`: expected a tensor of float32, got 3"),
    (
        lambda: checks.dtype_in("q", torch.ones(2, dtype=torch.int32), ["float32", "bfloat16"]),
        TypeError,
        "`q`: expected a tensor of float32 or bfloat16, got int32",
    ),
    (
        lambda: checks.shape_is("k", torch.ones(2, 3), (2, 5), "(B, T)"),
        ValueError,
        "`k`: expected shape (B, T) = (2, 5), got (2, 3)",
    ),
    (lambda: checks.shape_is("k", torch.ones(2), (None, 5)), ValueError, "`k`: expected shape (*, 5), got (2,)"),
    (lambda: checks.one_of("style", 3, ["half"]), TypeError, "`style`: expected 'half', got 3"),
    (
        lambda: checks.one_of("style", "zzz", ["half", "interleaved"]),
        ValueError,
        "`style`: expected 'half' or 'interleaved', got 'zzz'",
    ),
]


@pytest.mark.parametrize(("fail", "kind", "message"), FAILING)
def test_message(fail: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        fail()
    assert str(caught.value) == message


def test_what_fits_passes() -> None:
    assert checks.integer("size", np.int32(7), 7, 7) == 7
    assert type(checks.integer("size", np.int32(7))) is int
    assert checks.number("scale", np.float32(0.5)) == 0.5
    checks.require(True, "q", "", "")
    checks.dtype_in("q", torch.ones(2), ["float32"])
    checks.shape_is("k", torch.ones(2, 3), (2, 3))
    checks.shape_is("k", torch.ones(2, 3), (None, "T"))
    assert checks.one_of("style", "half", ["half"]) == "half"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.ones(2, 3), "a float32 tensor of shape (2, 3)"),
        (np.ones(2, dtype=np.int32), "an int32 array of shape (2,)"),
        ("a\nb", r"str 'a\nb'"),
        ([1] * 40, "list [" + "1, " * 18 + "1,..."),
    ],
)
def test_values_are_described_in_one_line(value: object, text: str) -> None:
    assert checks.describe(value) == text


def test_checks_do_not_import_torch() -> None:
    code = "import sys, mmha.checks; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"
