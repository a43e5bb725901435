"""The rows of end_to_end.py: whole models, each on every attention it can have, with the same weights and inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)
from turns import Side

import mmha
from mmha.data import brown, registry

ATTENTIONS = {"eager": "eager", "sdpa": "sdpa", "flex": "flex_attention", "mmha": "mmha"}
SENTENCES, BATCH = 2000, 32
NEW_TOKENS = 16
TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 97,
}
HUNDRED_MILLION = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "intermediate_size": 2048,
    "vocab_size": 32000,
}


@dataclass(frozen=True)
class Row:
    """One model at one size: what it says in the table, its sides, the first of which all others are compared with.

    Differences are norm over norm: `allowed` bounds them.
    """

    name: str
    title: str
    sides: Callable[[bool], list[Side]]
    allowed: float = 1e-4


Run = Callable[[PreTrainedModel], Tensor]


def on_each_attention(model: PreTrainedModel, run: Run, compared: Run | None = None) -> list[Side]:
    """A side for each attention: twins of the model that share its weights; `compared` unless it is all of `run`."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    sides = []
    for name, implementation in ATTENTIONS.items():
        twin = copy.deepcopy(model, dict(shared)).eval()
        twin.set_attn_implementation(implementation)
        work, result = (torch.inference_mode()(partial(way, twin)) for way in (run, compared or run))
        sides.append(Side(name, work, result))
    return sides


def uneven(batch: int, longest: int) -> Tensor:
    """Lengths (B,) from an eighth of the longest up to it, evenly spread."""
    return torch.linspace(longest // 8, longest, batch).long()


def drawn(vocabulary: int, *shape: int) -> Tensor:
    """Tokens, the same at every run."""
    return torch.randint(3, vocabulary, shape, generator=torch.Generator().manual_seed(7))


def minilm(quick: bool) -> list[Side]:
    """Sentence embeddings, as sentence-transformers makes them: sorted by length, padded batch by batch, pooled.

    Every fifth sentence is compared.
    """
    folder = registry.get("minilm")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    sentences = [" ".join(sentence.words) for sentence in brown.read(brown.files(registry.get("brown"))[::10])]
    sentences, at_once = sentences[: 12 if quick else SENTENCES], 5 if quick else BATCH

    def embed(sentences: Sequence[str], model: PreTrainedModel) -> Tensor:
        order = sorted(range(len(sentences)), key=lambda k: -len(sentences[k]))
        found = torch.empty(len(sentences), model.config.hidden_size)
        for start in range(0, len(order), at_once):
            chosen = order[start : start + at_once]
            batch = tokenizer.encode_batch([sentences[k] for k in chosen])
            real = torch.tensor([x.attention_mask for x in batch])
            states = model(torch.tensor([x.ids for x in batch]), attention_mask=real).last_hidden_state
            summed = (states * real[:, :, None]).sum(1)
            found[chosen] = nn.functional.normalize(summed)
        return found

    whole, part = partial(embed, sentences), partial(embed, sentences[::5])
    return on_each_attention(BertModel.from_pretrained(folder), whole, part)


def bert(quick: bool) -> list[Side]:
    """BERT-base over a padded batch; the states of real tokens are what counts."""
    batch, length = (3, 53) if quick else (4, 512)
    torch.manual_seed(0)
    model = BertModel(BertConfig(**(TINY if quick else {})), add_pooling_layer=False)
    ids = drawn(model.config.vocab_size, batch, length)
    real = torch.arange(length) < uneven(batch, length)[:, None]
    padding = real.long()
    return on_each_attention(model, lambda twin: twin(ids, attention_mask=padding).last_hidden_state[real])


def prefill(quick: bool) -> list[Side]:
    """A prompt of 4096 tokens, read as generate() reads it: keys and values kept, logits of the last token."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(TINY if quick else HUNDRED_MILLION)))
    ids = drawn(model.config.vocab_size, 1, 67 if quick else 4096)
    return on_each_attention(model, lambda twin: twin(ids, use_cache=True, logits_to_keep=1).logits[:, -1])


def sliding(quick: bool) -> list[Side]:
    """A prompt of 8192 tokens through layers with a window of 1024."""
    torch.manual_seed(0)
    sizes = TINY if quick else HUNDRED_MILLION | {"num_hidden_layers": 2}
    config = MistralConfig(**sizes, sliding_window=16 if quick else 1024, max_position_embeddings=8192)
    model = MistralForCausalLM(config)
    ids = drawn(config.vocab_size, 1, 71 if quick else 8192)
    return on_each_attention(model, lambda twin: twin(ids, use_cache=True, logits_to_keep=1).logits[:, -1])


def generation(quick: bool) -> list[Side]:
    """16 tokens by generate() after a context of 8191 in a DynamicCache; the logits of all steps are compared.

    Keys and values of the context are drawn at random, the same on every side: what a step takes does not depend on
    them.
    """
    context = 61 if quick else 8191
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(TINY if quick else HUNDRED_MILLION), max_position_embeddings=8448))
    config = model.config
    ids = drawn(config.vocab_size, 1, context + 1)
    shape = (1, config.num_key_value_heads, context, config.head_dim)
    held = [(torch.randn(shape), torch.randn(shape)) for _ in range(config.num_hidden_layers)]
    cache = DynamicCache()

    def refill() -> None:
        nonlocal cache
        cache = DynamicCache()
        for layer, (k, v) in enumerate(held):
            cache.update(k, v, layer)

    def write(twin: PreTrainedModel) -> Tensor:
        made: Any = twin.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            cache=cache,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return torch.cat(made.logits)

    return [Side(side.name, side.work, side.result, refill) for side in on_each_attention(model, write)]


def training(quick: bool) -> list[Side]:
    """A step of a 6-layer encoder with padding and dropout: forward, backward and AdamW.

    Two patterns of dropout cannot be compared: loss and gradients are, with dropout off and before any step.
    """
    width, heads, layers, batch, length = (32, 4, 2, 3, 23) if quick else (512, 8, 6, 16, 256)
    generator = torch.Generator().manual_seed(7)
    x, target = (torch.randn(batch, length, width, generator=generator) for _ in range(2))
    padding = torch.arange(length) >= uneven(batch, length)[:, None]
    torch.manual_seed(0)
    encoders: dict[str, tuple[Any, Callable[[], AbstractContextManager[Any]]]] = {
        "torch": (nn, nullcontext),
        "mmha.patch()": (nn, mmha.patch),
        "mmha.nn": (mmha.nn, nullcontext),
    }
    weights: dict[str, Tensor] = {}

    def side(name: str, source: Any, context: Callable[[], AbstractContextManager[Any]]) -> Side:
        layer = source.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.1, batch_first=True)
        encoder = source.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        encoder.load_state_dict(weights or encoder.state_dict())
        weights.update({name: tensor.clone() for name, tensor in encoder.state_dict().items()})
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5)

        def gradients() -> Tensor:
            optimizer.zero_grad()
            with context():
                out = encoder(x, src_key_padding_mask=padding)
                loss = (out - target)[~padding].square().mean()
                loss.backward()
            return torch.cat([loss.detach()[None], *(p.grad.flatten() for p in encoder.parameters())])

        def step() -> None:
            gradients()
            optimizer.step()

        def compared() -> Tensor:
            set_dropout(encoder, 0.0)
            found = gradients()
            set_dropout(encoder, 0.1)
            return found

        return Side(name, step, compared)

    return [side(name, *made) for name, made in encoders.items()]


def set_dropout(model: nn.Module, p: float) -> None:
    """Give every dropout of the model this share."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = p


ROWS: Sequence[Row] = (
    Row("minilm", "MiniLM, embedding 2,000 sentences of the Brown corpus in batches of 32", minilm),
    Row("bert", "BERT-base, 4 × 512 tokens, 44 % of them padding", bert),
    Row("prefill", "Llama-like, 0.1B weights, a prompt of 4096 tokens", prefill),
    Row("generation", "the same, 16 tokens after a context of 8192", generation),
    Row("sliding", "Mistral-like, 2 layers, window of 1024, a prompt of 8192 tokens", sliding),
    Row(
        "training",
        "training step, `nn.TransformerEncoder` of 6 layers of 512, 16 × 256 tokens, 44 % padding, dropout",
        training,
    ),
)
