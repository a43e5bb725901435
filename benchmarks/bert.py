"""BERT on sentences of unequal length: packed by mmha beside transformers and torch.nn, which pad them.

    python benchmarks/bert.py [--rows WORDS] [--quick] [--seconds N] [--threads N] [--json FILE]

Forward passes and whole training steps of BERT-base with random weights over sentences of the Brown corpus, cut by the
original's WordPiece; and MiniLM, embedding sentences. As in end_to_end.py all sides have the same weights and inputs,
and their results are compared (hidden states; loss and gradients with dropout off) before they take turns; here every
side takes every turn. transformers runs on its sdpa attention; torch.nn is `nn.TransformerEncoder`, in evaluation with
its fast path on nested tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from bert_sides import TorchBert, from_torch, from_transformers, padded, transformers_bert
from end_to_end import run
from end_to_end_rows import Row
from tokenizers import Tokenizer as Coder
from torch import Tensor, nn
from transformers import BertModel
from turns import Side

from mmha.data import brown, registry
from mmha.models.bert import BUILDERS, Bert, embedding, load
from mmha.models.bert.tokenizer import Tokenizer
from mmha.train.masking import Masking
from mmha.train.pretraining import Batch, logits

BATCH, PIECES, SHORTEST, LONGEST = 32, 8, 64, 512
EMBEDDED = 1000
Texts = Callable[[Tokenizer, int], list[list[int]]]
Precision = Callable[[], AbstractContextManager[Any]]
HALF = partial(torch.autocast, "cpu", torch.bfloat16)


def sentences(every: int) -> list[str]:
    """Sentences of the Brown corpus, from every so-manieth file."""
    return [" ".join(s.words) for s in brown.read(brown.files(registry.get("brown"))[::every])]


def lines(words: Tokenizer, count: int) -> list[list[int]]:
    """So many sentences, drawn from a tenth of the corpus."""
    found = sentences(10)
    chosen = np.random.default_rng(7).permutation(len(found))[:count]
    return words.encode_all([found[k] for k in chosen])


def pieces(words: Tokenizer, count: int) -> list[list[int]]:
    """Stretches of running text, of 64 to 512 tokens with their markers, evenly spread."""
    text = [token for ids in words.encode_all(sentences(100)) for token in ids]
    sizes = np.linspace(SHORTEST, LONGEST, count).astype(int) - 2
    return [text[end - size : end] for end, size in zip(np.cumsum(sizes), sizes, strict=True)]


def problem(texts: Texts, count: int, quick: bool) -> tuple[Bert, Batch]:
    """A model and a batch, words masked as in pretraining; whether a text follows on another is drawn."""
    words, generator = load(registry.get("minilm"))[1], np.random.default_rng(11)
    markers, vocabulary = (words.pad, words.unknown, words.cls, words.sep, words.mask), words.vocabulary
    if quick:
        count, vocabulary = 5, 997
    masking = Masking(words.mask, markers, vocabulary)
    made = [
        masking([words.cls, *(1 + n % (vocabulary - 1) for n in ids), words.sep], generator)
        for ids in texts(words, count)
    ]
    lengths = [len(masked.tokens) for masked in made]
    starts = np.cumsum([0, *lengths[:-1]])
    tokens = torch.from_numpy(np.concatenate([masked.tokens for masked in made]))
    batch = Batch(
        tokens,
        lengths,
        torch.zeros_like(tokens),
        torch.from_numpy(np.concatenate([masked.places + at for masked, at in zip(made, starts, strict=True)])),
        torch.from_numpy(np.concatenate([masked.labels for masked in made])),
        torch.from_numpy(generator.integers(2, size=len(lengths))),
    )
    torch.manual_seed(0)
    return Bert(BUILDERS["tiny" if quick else "base"](vocabulary)), batch


def forward(texts: Texts, count: int, dtype: torch.dtype, quick: bool) -> list[Side]:
    """The states of all real tokens, in evaluation."""
    model, batch = problem(texts, count, quick)
    model = model.to(dtype).eval()
    theirs, own, rows = transformers_bert(model).bert.to(dtype).eval(), TorchBert(model).to(dtype).eval(), padded(batch)
    real = rows.real.long()

    def side(name: str, work: Callable[[], Tensor], pick: Any = ...) -> Side:
        work = torch.inference_mode()(work)
        return Side(name, work, lambda: work()[pick].float())

    return [
        side("transformers", lambda: theirs(rows.tokens, real, rows.segments).last_hidden_state, rows.real),
        side("torch", lambda: own(rows), rows.real),
        side("mmha", lambda: model(batch.tokens, batch.lengths, batch.segments)),
    ]


def training(precision: Precision, quick: bool) -> list[Side]:
    """A step of pretraining with dropout: both losses, backward, clipping and fused AdamW on float32 weights."""
    model, batch = problem(lines, BATCH, quick)
    theirs, own, rows = transformers_bert(model).train(), TorchBert(model).train(), padded(batch)
    real = rows.real.long()

    def lost(scores: tuple[Tensor, Tensor]) -> Tensor:
        words, following = scores
        return nn.functional.cross_entropy(words, batch.labels) + nn.functional.cross_entropy(following, batch.next)

    def by_transformers() -> Tensor:
        found = theirs(rows.tokens, real, rows.segments, labels=rows.labels, next_sentence_label=batch.next)
        return found.loss  # type: ignore[no-any-return]

    return [
        step("transformers", theirs, by_transformers, precision, partial(from_transformers, model)),
        step("torch", own, lambda: lost(own.logits(rows)), precision, from_torch),
        step("mmha", model, lambda: lost(logits(model, batch)), precision, dict),
    ]


def step(
    name: str, model: nn.Module, loss: Callable[[], Tensor], precision: Precision, renamed: Callable[..., Any]
) -> Side:
    """A side that trains; compared are the loss and the gradients, renamed to our names, without dropout."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)

    def gradients() -> Tensor:
        optimizer.zero_grad()
        with precision():
            value = loss()
        value.backward()
        return value.detach()

    def whole() -> None:
        gradients()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    def compared() -> Tensor:
        with still(model):
            value = gradients()
        found = renamed({name: p.grad for name, p in model.named_parameters()})
        return torch.cat([value[None], *(found[name].flatten() for name in sorted(found))])

    return Side(name, whole, compared)


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Within it nothing is dropped."""
    places = [(m, "p") for m in model.modules() if isinstance(m, nn.Dropout)]
    places += [(m, "dropout") for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    shares = [getattr(*place) for place in places]
    for module, name in places:
        setattr(module, name, 0.0)
    yield
    for (module, name), share in zip(places, shares, strict=True):
        setattr(module, name, share)


def embeddings(quick: bool) -> list[Side]:
    """Sentences to unit vectors, from text; transformers in batches of 32, as the sentences come and by length."""
    folder, texts = registry.get("minilm"), sentences(20)[: 12 if quick else EMBEDDED]
    model, words = load(folder)
    theirs = BertModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    coder = Coder.from_file(str(folder / "tokenizer.json"))
    coder.enable_truncation(256)
    coder.enable_padding()

    def in_batches(order: Sequence[int]) -> Tensor:
        found = torch.empty(len(texts), model.config.width)
        for start in range(0, len(order), BATCH):
            chosen = list(order[start : start + BATCH])
            made = coder.encode_batch([texts[k] for k in chosen])
            real = torch.tensor([x.attention_mask for x in made])
            states = theirs(torch.tensor([x.ids for x in made]), real).last_hidden_state
            found[chosen] = nn.functional.normalize((states * real[:, :, None]).sum(1))
        return found

    def by_length() -> Tensor:
        return in_batches(sorted(range(len(texts)), key=lambda k: -len(texts[k])))

    ways: dict[str, Callable[[], Tensor]] = {
        "transformers": lambda: in_batches(range(len(texts))),
        "transformers, sorted": by_length,
        "mmha": lambda: embedding.embed(model, words, texts, embedding.Pooling(tokens=256)).vectors,
    }
    made = {name: torch.inference_mode()(way) for name, way in ways.items()}
    return [Side(name, way, way) for name, way in made.items()]


PIECE = f"{PIECES} texts of {SHORTEST} to {LONGEST} tokens"
ROWS: Sequence[Row] = (
    Row("forward-f32", "forward, 32 sentences, float32", partial(forward, lines, BATCH, torch.float32)),
    Row("forward-bf16", "forward, 32 sentences, bfloat16", partial(forward, lines, BATCH, torch.bfloat16), 5e-2),
    Row("long-f32", f"forward, {PIECE}, float32", partial(forward, pieces, PIECES, torch.float32)),
    Row("training-f32", "training step, 32 sentences, float32", partial(training, nullcontext)),
    Row("training-bf16", "training step, 32 sentences, bfloat16 autocast", partial(training, HALF), 5e-2),
    Row("embedding", f"MiniLM, {EMBEDDED} sentences to vectors, float32", embeddings),
)

if __name__ == "__main__":
    run(ROWS, __doc__, patience=math.inf)
