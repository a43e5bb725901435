"""The runner of torch's own tests: on a source tree of three tests it tells apart what differs, and ends as it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = """
import unittest
import torch
class TestMultiheadAttentionNN(unittest.TestCase):
    def test_output(self):
        x = torch.randn(3, 2, 6)
        self.assertEqual(torch.nn.MultiheadAttention(6, 2)(x, x, x)[0].shape, x.shape)
    def test_multihead_attn_invalid_shape(self):
        self.assertTrue({passes} or torch.nn.MultiheadAttention.__module__.startswith("torch"))
    def test_crash(self):
        if {crashes} and torch.nn.MultiheadAttention.__module__.startswith("mmha"):
            import os
            os._exit(3)
"""


def run(folder: Path, passes: bool = False, crashes: bool = False) -> subprocess.CompletedProcess[str]:
    (folder / "test" / "nn").mkdir(parents=True)
    (folder / "test" / "nn" / "test_multihead_attention.py").write_text(TESTS.format(passes=passes, crashes=crashes))
    command = [sys.executable, str(ROOT / "tests" / "torch_suite" / "run.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


@pytest.mark.slow
def test_an_expected_difference_is_listed(tmp_path: Path) -> None:
    made = run(tmp_path)
    assert made.returncode == 0, made.stdout + made.stderr
    assert (
        "passes   fails    test_multihead_attention.TestMultiheadAttentionNN.test_multihead_attn_invalid" in made.stdout
    )
    assert "passes   passes   test_multihead_attention.TestMultiheadAttentionNN.test_output" in made.stdout
    assert "3 tests, 1 differences, 0 not expected" in made.stdout


@pytest.mark.slow
def test_an_unexpected_pass_and_a_crash_are_failures(tmp_path: Path) -> None:
    made = run(tmp_path, passes=True, crashes=True)
    assert made.returncode == 1
    assert "UNEXPECTED failure: test_multihead_attention.TestMultiheadAttentionNN.test_crash" in made.stdout
    assert (
        "UNEXPECTED pass: test_multihead_attention.TestMultiheadAttentionNN.test_multihead_attn_invalid" in made.stdout
    )
    assert "3 tests, 1 differences, 2 not expected" in made.stdout


def test_without_tests_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "torch_suite" / "run.py"), str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert "no tests of torch found" in made.stderr
