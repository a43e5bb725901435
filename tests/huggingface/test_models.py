"""Models of transformers with attn_implementation="mmha" against the same weights with "eager"."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as hf

import mmha.huggingface

SIZES = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 211,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _registered() -> None:
    mmha.huggingface.register()


def pair(model_class: Any, config: Any) -> tuple[Any, Any]:
    """The model twice, eager and mmha, with the same weights."""
    torch.manual_seed(1)
    eager = model_class._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    ours = model_class._from_config(copy.deepcopy(config), attn_implementation="mmha").eval()
    ours.load_state_dict(eager.state_dict())
    return eager, ours


def test_llama_padded() -> None:
    eager, ours = pair(hf.LlamaForCausalLM, hf.LlamaConfig(**SIZES))
    ids = torch.randint(3, 97, (3, 23))
    real = torch.ones(3, 23, dtype=torch.long)
    real[1, :5] = 0
    real[2, :11] = 0
    with torch.no_grad():
        want, have = eager(ids, attention_mask=real).logits, ours(ids, attention_mask=real).logits
    assert (want - have)[real.bool()].abs().max() < 1e-5
