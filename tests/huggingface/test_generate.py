"""`generate` with attn_implementation="mmha": the tokens that "eager" chooses, with every kind of cache."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as hf

from huggingface.test_models import IDS, LEFT, RIGHT, gemma3, llama, mistral, near, t5

GREEDY = {"max_new_tokens": 13, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


WAYS = [{}, {"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}]


@pytest.mark.parametrize("make", [llama, mistral, gemma3])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_padded_prompts(make: Any, way: dict[str, Any]) -> None:
    want, have = (model.generate(IDS, attention_mask=LEFT, **GREEDY, **way) for model in make())
    assert torch.equal(want, have)


def test_encoder_decoder() -> None:
    want, have = (model.generate(IDS, attention_mask=RIGHT, num_beams=2, **GREEDY) for model in t5())
    assert torch.equal(want, have)


@pytest.mark.parametrize("make", [llama, mistral])
def test_an_assistant(make: Any) -> None:
    eager, ours = make()
    assistant = copy.deepcopy(ours)
    with torch.no_grad():
        for weight in assistant.parameters():
            weight += 0.001 * torch.randn_like(weight)  # near enough that some of its tokens are accepted
    want = eager.generate(IDS[:1], **GREEDY)
    assert torch.equal(want, ours.generate(IDS[:1], assistant_model=assistant, **GREEDY))
    assert torch.equal(want, ours.generate(IDS[:1], prompt_lookup_num_tokens=3, **GREEDY))


@pytest.mark.parametrize("make", [llama, mistral])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_continued(make: Any, kind: str) -> None:
    """A prompt in pieces through a cache, and then a reply: the logits of the whole, step by step."""
    eager, ours = make()
    positions, config = (LEFT.cumsum(dim=1) - 1).clamp(min=0), ours.config
    want = eager(IDS, attention_mask=LEFT, position_ids=positions).logits
    cache = hf.DynamicCache(config=config) if kind == "dynamic" else hf.StaticCache(config=config, max_cache_len=41)
    pieces = []
    with torch.no_grad():
        for start, stop in ((0, 9), (9, 10), (10, 18), (18, 22), (22, 23)):
            given = {"attention_mask": LEFT[:, :stop], "position_ids": positions[:, start:stop]}
            pieces.append(ours(IDS[:, start:stop], cache=cache, **given).logits)
    near(want, torch.cat(pieces, dim=1), LEFT)
    longer = torch.cat([IDS, IDS[:, :1]], dim=1)
    real = torch.nn.functional.pad(LEFT, (0, 1), value=1)
    have = ours.generate(longer, attention_mask=real, cache=cache, **GREEDY)
    assert torch.equal(eager.generate(longer, attention_mask=real, **GREEDY), have)
