"""Every example in a docstring is run and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import mmha

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(mmha.__path__, "mmha.")
    if not module.name.endswith(("._kernels", ".__main__"))
)


@pytest.mark.parametrize("name", ["mmha", *MODULES])
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    counts = [len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))]
    assert sum(counts) > 100
