"""A pytest plugin: which tests run which lines of the package, and how long each test takes.

One JSON line a test goes to the file that MMHA_COVERAGE_TO names, so that an interrupted collection is still of use.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

_SPEC = importlib.util.find_spec("mmha")
assert _SPEC is not None
assert _SPEC.submodule_search_locations is not None
PACKAGE = Path(_SPEC.submodule_search_locations[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Notes the lines that the test runs, its fixtures included; what runs at import belongs to no test."""
    measured = coverage.Coverage(data_file=None, include=[f"{PACKAGE}/*"], config_file=False)
    measured.set_option("run:disable_warnings", ["no-data-collected"])
    started = time.process_time()
    with measured.collect():
        result = yield
    spent = time.process_time() - started
    data = measured.get_data()
    lines = {str(Path(name).relative_to(PACKAGE)): sorted(data.lines(name) or []) for name in data.measured_files()}
    record = {"test": item.nodeid, "seconds": round(spent, 4), "lines": lines}
    with Path(os.environ["MMHA_COVERAGE_TO"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    return result
