"""Models of transformers with attn_implementation="mmha" against the same weights with "eager"."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from mmha.huggingface.attention import attention_forward
from mmha.huggingface.carrier import MaskTensor
from mmha.huggingface.masks import attention_mask

SIZES = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 211,
}  # fmt: skip
IDS = torch.randint(3, 97, (3, 23), generator=torch.Generator().manual_seed(5))
LEFT = torch.ones(3, 23, dtype=torch.long)
LEFT[1, :5] = LEFT[2, :11] = 0
RIGHT = LEFT.flip(1)


def pair(model_class: Any, config: Any) -> tuple[Any, Any]:
    """The model twice, eager and mmha, with the same weights."""
    torch.manual_seed(1)
    eager = model_class._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    ours = model_class._from_config(copy.deepcopy(config), attn_implementation="mmha").eval()
    ours.load_state_dict(eager.state_dict())
    return eager, ours


def llama(**given: Any) -> tuple[Any, Any]:
    return pair(hf.LlamaForCausalLM, hf.LlamaConfig(**SIZES, **given))


def mistral(**given: Any) -> tuple[Any, Any]:
    return pair(hf.MistralForCausalLM, hf.MistralConfig(**SIZES, sliding_window=7, **given))


def gemma3() -> tuple[Any, Any]:
    kinds = ["sliding_attention", "full_attention"]
    return pair(hf.Gemma3ForCausalLM, hf.Gemma3TextConfig(**SIZES, sliding_window=7, layer_types=kinds))


def gemma2() -> tuple[Any, Any]:
    config = hf.Gemma2Config(**SIZES, sliding_window=7, attn_logit_softcapping=0.1)  # small: it must be felt
    return pair(hf.Gemma2ForCausalLM, config)


def gpt_oss() -> tuple[Any, Any]:
    config = hf.GptOssConfig(**{**SIZES, "intermediate_size": 32}, num_local_experts=2, num_experts_per_tok=1)
    made = pair(hf.GptOssForCausalLM, config)
    for model in made:
        for layer in model.model.layers:
            torch.nn.init.constant_(layer.self_attn.sinks, 2.0)
    return made


def llama4() -> tuple[Any, Any]:
    kinds = {"attention_chunk_size": 7, "layer_types": ["chunked_attention", "full_attention"]}
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 37}
    return pair(hf.Llama4ForCausalLM, hf.Llama4TextConfig(**SIZES, **kinds, **experts))


def t5() -> tuple[Any, Any]:
    sizes = {"vocab_size": 97, "d_model": 48, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 6}
    config = hf.T5Config(**sizes, decoder_start_token_id=0, dropout_rate=0.0)
    return pair(hf.T5ForConditionalGeneration, config)


def bert() -> tuple[Any, Any]:
    sizes = {name: SIZES[name] for name in SIZES if name not in ("num_key_value_heads", "head_dim")}
    return pair(hf.BertModel, hf.BertConfig(**sizes, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0))


def near(want: Tensor, have: Tensor, real: Tensor | None = None, bound: float = 1e-5) -> None:
    away = (want - have).abs()
    assert (away if real is None else away[real.bool()]).max() < bound


@pytest.mark.parametrize("make", [llama, mistral, gemma2, gemma3, gpt_oss, llama4])
def test_decoders(make: Any) -> None:
    eager, ours = make()
    with torch.no_grad():
        near(eager(IDS).logits, ours(IDS).logits)
        for real in (LEFT, RIGHT):
            near(eager(IDS, attention_mask=real).logits, ours(IDS, attention_mask=real).logits, real)


def test_packed() -> None:
    positions = torch.cat([torch.arange(9), torch.arange(14)])[None]
    for make in (llama, mistral):
        eager, ours = make()
        with torch.no_grad():
            whole = ours(IDS[:1], position_ids=positions, use_cache=False).logits
            near(eager(IDS[:1], position_ids=positions, use_cache=False).logits, whole)
            near(ours(IDS[:1, 9:]).logits, whole[:, 9:])


def test_encoder() -> None:
    eager, ours = bert()
    with torch.no_grad():
        near(eager(IDS)[0], ours(IDS)[0])
        near(eager(IDS, attention_mask=RIGHT)[0], ours(IDS, attention_mask=RIGHT)[0], RIGHT)


def test_encoder_decoder() -> None:
    eager, ours = t5()
    labels = IDS[:, :11].contiguous()
    wants = [model(IDS, attention_mask=RIGHT, labels=labels, output_attentions=True) for model in (eager, ours)]
    near(wants[0].logits, wants[1].logits)
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        assert len(wants[1][name]) == 2
        near(wants[0][name][1][0], wants[1][name][1][0])
    wants[0].loss.backward()
    wants[1].loss.backward()
    for name, weight in eager.named_parameters():  # the table of the position bias among them
        near(weight.grad, ours.get_parameter(name).grad)


def test_bfloat16() -> None:
    eager, ours = (model.bfloat16() for model in llama())
    with torch.no_grad():
        near(eager(IDS, attention_mask=RIGHT).logits, ours(IDS, attention_mask=RIGHT).logits, RIGHT, bound=0.02)


class Watch:
    """Registers a name of its own that computes as mmha does and keeps the masks that came."""

    def __init__(self) -> None:
        self.masks: list[Any] = []
        hf.AttentionInterface.register("watched", self)
        hf.AttentionMaskInterface.register("watched", attention_mask)

    def __call__(self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        self.masks.append(mask)
        return attention_forward(module, query, key, value, mask, **options)

    def of(self, model: Any, *args: Any, **given: Any) -> list[str]:
        self.masks = []
        model.set_attn_implementation("watched")
        with torch.no_grad():
            model(*args, **given)
        assert all(isinstance(mask, MaskTensor) and mask._dense is None for mask in self.masks)
        return [mask.value.flatten()[0] for mask in self.masks]


def test_masks_arrive_as_values() -> None:
    watch = Watch()
    try:
        assert watch.of(llama()[1], IDS) == ["Causal()"] * 2
        assert watch.of(llama()[1], IDS, attention_mask=LEFT) == ["Causal() & Keys($0)"] * 2
        assert watch.of(gemma3()[1], IDS) == ["Window(6, None) & Causal()", "Causal()"]
        assert watch.of(llama4()[1], IDS) == ["Chunked(7) & Causal()", "Causal()"]
        assert watch.of(bert()[1], IDS, attention_mask=RIGHT) == ["Keys($0)"] * 2
        crossed = watch.of(t5()[1], IDS, attention_mask=RIGHT, decoder_input_ids=IDS[:, :5])
        assert crossed == ["Keys($0)"] * 2 + ["Causal()", "Keys($0)"] * 2
    finally:
        for interface in (hf.AttentionInterface, hf.AttentionMaskInterface):
            del interface._global_mapping["watched"]


def gradients(model: Any, seed: int = 3) -> dict[str, Tensor]:
    model.train()
    model.zero_grad()
    torch.manual_seed(seed)
    labels = IDS.masked_fill(RIGHT == 0, -100)
    model(IDS, attention_mask=RIGHT, labels=labels, use_cache=False).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


def test_gradients_and_checkpointing() -> None:
    eager, ours = mistral()
    wants, plain = gradients(eager), gradients(ours)
    for name, want in wants.items():
        near(want, plain[name])
    for reentrant in (False, True):
        again = checkpointed(ours, reentrant)
        assert all(torch.equal(again[name], plain[name]) for name in plain)


def test_dropout_is_replayed() -> None:
    _, ours = llama(attention_dropout=0.4)
    dropped = gradients(ours)
    again = checkpointed(ours, False)
    assert all(torch.equal(again[name], dropped[name]) for name in dropped)
    other = gradients(ours, seed=4)
    assert not torch.equal(other["lm_head.weight"], dropped["lm_head.weight"])
    with torch.no_grad():
        assert torch.equal(ours.eval()(IDS).logits, ours(IDS).logits)


def checkpointed(model: Any, reentrant: bool) -> dict[str, Tensor]:
    """The gradients with every layer computed again in the backward pass."""
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    try:
        return gradients(model)
    finally:
        model.activation_checkpointing_disable()


@pytest.mark.parametrize("make", [llama, gemma3])
def test_weights(make: Any) -> None:
    eager, ours = make()
    with torch.no_grad():
        wants, haves = (model(IDS, attention_mask=LEFT, output_attentions=True).attentions for model in (eager, ours))
    for want, have in zip(wants, haves, strict=True):
        assert have.shape == (3, 6, 23, 23)
        near(want[1, :, 5:], have[1, :, 5:])
        assert not have[1, :, :5].any()  # padding before the first token sees nothing
    again = ours(IDS, output_attentions=False)
    assert again.attentions is None
    step = ours.generate(IDS, max_new_tokens=2, min_new_tokens=2, output_attentions=True, return_dict_in_generate=True)
    assert step.attentions[1][0].shape[:3] == (3, 6, 1)


def test_every_door(tmp_path: Path) -> None:
    eager, ours = llama()
    eager.save_pretrained(tmp_path)
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="mmha").eval()
    built = hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**SIZES), attn_implementation="mmha").eval()
    built.load_state_dict(eager.state_dict())
    want = ours(IDS).logits
    eager.set_attn_implementation("mmha")
    for model in (loaded, built, eager):
        assert torch.equal(model(IDS).logits, want)


def test_a_model_with_attention_of_its_own() -> None:
    """BLOOM adds the mask to its scores itself: it gets the tensor that it expects."""
    eager, ours = pair(hf.BloomForCausalLM, hf.BloomConfig(vocab_size=97, hidden_size=48, n_layer=2, n_head=6))
    with torch.no_grad():
        have = ours(IDS, attention_mask=LEFT).logits
        assert torch.equal(eager(IDS, attention_mask=LEFT).logits, have)


def test_masks_of_ones_own() -> None:
    eager, ours = llama()
    shown = (torch.rand(3, 1, 23, 23) < 0.4) | torch.eye(23, dtype=torch.bool)
    added = torch.where(shown, 0.0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        want = eager(IDS, attention_mask=added).logits
        near(want, ours(IDS, attention_mask=added).logits)
        near(want, ours(IDS, attention_mask=shown).logits)


def test_compiled() -> None:
    eager, ours = pair(hf.LlamaForCausalLM, hf.LlamaConfig(**{**SIZES, "num_hidden_layers": 1}))
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        want = eager(IDS, attention_mask=RIGHT).logits
        near(want, compiled(IDS, attention_mask=RIGHT).logits, RIGHT)
