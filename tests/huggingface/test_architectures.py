"""The same weights with "eager" and "mmha": outputs, gradients, weights of attention and generated tokens agree."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import architecture_zoo as zoo
import mmha
from mmha.ops.call import FLOAT, FULL, Call
from mmha.ops.plans import PLAIN

Results = tuple[dict[str, Tensor], dict[str, Tensor]]

NAMES = [family.name for family in zoo.FAMILIES]
FAMILY = dict(zip(NAMES, zoo.FAMILIES, strict=True))


def named(state: str) -> list[str]:
    return [name for name in NAMES if FAMILY[name].state == state]


every = pytest.mark.parametrize("name", named(zoo.WORKS))
pytestmark = pytest.mark.usefixtures("registered", "one_thread")


@functools.cache
def models(name: str) -> tuple[Any, Any]:
    return FAMILY[name].build("eager"), FAMILY[name].build("mmha")


def real(inputs: dict[str, Tensor], numbers: Tensor) -> Tensor:
    """Where a decoder's left padding is not: what stands there sees nothing, and eager averages over everything."""
    mask = inputs.get("attention_mask")
    whole = mask is None or "decoder_input_ids" in inputs or mask.shape != numbers.shape[:2]
    return torch.ones(numbers.shape[:2], dtype=torch.bool) if whole else mask.bool()


def outputs(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {n: x for n, x in model(**inputs).items() if isinstance(x, Tensor) and x.is_floating_point()}
    return {n: x[real(inputs, x)] if x.ndim == 3 else x for n, x in found.items()}


def results(model: Any, inputs: dict[str, Tensor]) -> Results:
    """Outputs of the model, and the gradients of a loss that weighs all of them differently."""
    model.train().zero_grad()
    found = outputs(model, inputs)
    draw = torch.Generator().manual_seed(3)
    sum((x * torch.randn(x.shape, generator=draw)).mean() for x in found.values()).backward()
    return found, {n: w.grad for n, w in model.named_parameters() if w.grad is not None}


def close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to float32 rounding, measured by the largest number of all: some gradients are sums that cancel to 0."""
    assert actual.keys() == expected.keys()
    assert expected
    largest = max(x.abs().max().item() for x in expected.values())
    for name, x in expected.items():
        torch.testing.assert_close(
            actual[name], x, rtol=1e-4, atol=1e-5 * largest, msg=lambda said, n=name: f"{n}: {said}"
        )


def agree(actual: Results, expected: Results) -> None:
    close(actual[0], expected[0])
    close(actual[1], expected[1])


class Calls(TorchDispatchMode):
    """What attention of ours is asked for while it is active. It only watches, as a profiler would."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "mmha" and "forward" in func.name():
            self.seen.append(Call(*args[4:]))
        return func(*args, **(kwargs or {}))

    def masks(self) -> str:
        if any(call.mask in (FLOAT, PLAIN) or "Dense" in call.mask for call in self.seen):
            return zoo.DENSE
        if any(call.additives for call in self.seen):
            return zoo.BIAS
        return zoo.VALUES if any(call.mask != FULL for call in self.seen) else zoo.NOTHING


@every
def test_outputs_and_gradients_are_those_of_eager(name: str) -> None:
    eager, ours = models(name)
    inputs = FAMILY[name].inputs()
    agree(results(ours, inputs), results(eager, inputs))


@every
def test_outputs_of_whole_rows_are_those_of_eager(name: str) -> None:
    inputs = {n: x for n, x in FAMILY[name].inputs().items() if n != "attention_mask"}
    with torch.no_grad():
        actual, expected = (outputs(model, inputs) for model in models(name))
    close(actual, expected)


@every
def test_every_layer_comes_to_us_and_masks_as_the_page_says(name: str) -> None:
    with torch.no_grad(), Calls() as calls:
        models(name)[1](**FAMILY[name].inputs())
    assert len(calls.seen) == FAMILY[name].layers
    assert calls.masks() == FAMILY[name].masks


@every
def test_weights_of_attention_are_those_of_eager(name: str) -> None:
    inputs = FAMILY[name].inputs()
    with torch.no_grad():
        expected, actual = (dict(weights(m(**inputs, output_attentions=True), inputs)) for m in models(name))
    close(actual, expected)


def weights(returned: Any, inputs: dict[str, Tensor], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor that is called attentions, at any depth, at the rows that see something."""
    for name, value in returned.items():
        if hasattr(value, "to_tuple"):
            yield from weights(value, inputs, f"{prefix}{name}.")
        elif name.endswith("attentions"):
            for layer, x in enumerate(value):
                rows = x.transpose(1, 2)
                yield f"{prefix}{name}[{layer}]", rows[real(inputs, rows)]


HOW = [
    {},
    pytest.param({"cache_implementation": "static", "disable_compile": True}, marks=pytest.mark.slow),
    pytest.param({"num_beams": 3, "num_return_sequences": 2}, marks=pytest.mark.slow),
    pytest.param({"use_cache": False}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("how", HOW, ids=["greedy", "static cache", "beams", "no cache"])
@pytest.mark.parametrize("name", [n for n in named(zoo.WORKS) if FAMILY[n].generates])
def test_generated_tokens_are_those_of_eager(name: str, how: dict[str, Any]) -> None:
    inputs = {n: x for n, x in FAMILY[name].inputs().items() if not n.startswith("decoder")}
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, **how}
    made = [
        m.eval().generate(**inputs, **settings, return_dict_in_generate=True, output_scores=True) for m in models(name)
    ]
    assert torch.equal(made[1].sequences, made[0].sequences)
    torch.testing.assert_close(made[1].scores, made[0].scores, rtol=1e-4, atol=1e-4)


# torch's own function warns of WavLM, whose padding is bool beside a float bias.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("name", named(zoo.PATCH))
def test_what_calls_torch_itself_comes_to_us_inside_a_patch(name: str) -> None:
    model, inputs = FAMILY[name].build(None), FAMILY[name].inputs()
    expected = results(model, inputs)  # not eager's: transformers itself computes another ALiBi there
    with mmha.patch():
        agree(results(model, inputs), expected)
        with torch.no_grad(), Calls() as calls:
            model(**inputs)
    assert len(calls.seen) == 2
    assert calls.masks() == FAMILY[name].masks


@pytest.mark.parametrize("name", named(zoo.OWN))
def test_attention_of_the_models_own_stays_right(name: str) -> None:
    eager, ours = models(name)
    assert not type(ours)._can_set_attn_implementation()
    inputs = FAMILY[name].inputs()
    agree(results(ours, inputs), results(eager, inputs))
    with mmha.patch(), torch.no_grad(), Calls() as calls:
        ours(**inputs)
    assert calls.seen == []


@pytest.mark.parametrize("name", named(zoo.REFUSED))
def test_what_cannot_be_honoured_is_refused(name: str) -> None:
    with torch.no_grad(), pytest.raises((NotImplementedError, KeyError), match="'mmha'"):
        FAMILY[name].build("mmha")(**FAMILY[name].inputs())


def test_the_page_lists_the_families() -> None:
    for path, words in zoo.PAGES.items():
        page = path.read_text("utf-8")
        assert zoo.filled(page, words) == page, "run: python tests/architecture_zoo.py"
    assert len(named(zoo.WORKS)) >= 40
    assert len(set(NAMES)) == len(NAMES)
