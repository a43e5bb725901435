"""docs/scale.md: its tables are what the script computes, and the script counts what the model has."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from mmha.models import bert
from mmha.train.lightning_fit import recomputed
from mmha.train.weights import blocks

ROOT = Path(__file__).parent.parent
SMALL = bert.Config(vocabulary=101, width=38, layers=3, heads=2, hidden=53, positions=61)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("scale_model")


@pytest.mark.parametrize("page", ["docs/scale.md", "docs/zh/scale.md"])
def test_the_page_says_what_the_script_computes(script: ModuleType, page: str) -> None:
    words = script.scale_words.CHINESE if "zh" in page else None
    page = (ROOT / page).read_text("utf-8")
    assert script.filled(page, words) == page
    assert re.findall(r"<!-- table: (\w+) -->\n\|", page) == list(script.tables(script.measured()))


@pytest.mark.parametrize("config", [bert.base(), SMALL])
def test_parameters_are_those_of_the_model(script: ModuleType, config: bert.Config) -> None:
    with torch.device("meta"):
        model = bert.Bert(config)
    assert script.parameters(config) == sum(p.numel() for p in model.parameters())
    assert script.layer(config) == sum(p.numel() for p in model.layers[0].parameters())


def kept(model: nn.Module, tokens: Tensor, lengths: list[int]) -> int:
    """Bytes of the floating-point memory that autograd holds for backward, without the weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        hidden = model(tokens, lengths)
    del hidden
    return sum(sizes.values())


def test_activations_are_those_that_autograd_keeps(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the words' head, which is left out here, and statistics of the embedding's norm."""
    monkeypatch.setattr(script, "MASKED", 0.0)
    model, lengths = bert.Bert(SMALL).train(), [47, 13, 37]
    tokens = torch.randint(101, (97,))
    assert kept(model, tokens, lengths) == pytest.approx(script.activations(SMALL, 97, False), rel=0.01)
    with recomputed(blocks(model)):
        again = kept(model, tokens, lengths)
    two, one = (script.activations(replace(SMALL, layers=n), 97, False) for n in (2, 1))
    assert again + two - one == pytest.approx(script.activations(SMALL, 97, True), rel=0.01)


def test_a_step_by_hand(script: ModuleType) -> None:
    """8 machines of 1000 tokens a second and 1 GB/s, no latency: forward, then backward beside the ring."""
    machine = script.Machine(core=1000.0, cores=1, shared=1.0, network=1e9, line=1.0, latency=0.0)
    job = script.Job(sequences=64, machines=8, steps=1)
    found = script.step(bert.base(), job, machine, False)
    assert found.compute == pytest.approx(8 * 512 / 1000)
    assert found.network == pytest.approx(2 * 7 / 8 * 4 * 110_106_428 / 1e9)
    exposed = 2 * 7 / 8 * 4 * 25_051_964 / 1e9
    assert found.total == pytest.approx(4.096 + exposed + 40 * 110_106_428 / 100e9)
    starved = script.step(bert.base(), job, replace(machine, network=1e8), False)
    assert starved.total == pytest.approx(4.096 / 3 + starved.network + starved.optimizer)
    shared = script.traffic(bert.base(), replace(job, machines=2, part=16), True)
    gathered = 2 * 110_106_428 - 25_051_964  # all for forward, the layers again for backward
    assert shared == pytest.approx(2 * 0.5 * 4 * (gathered + 110_106_428))
