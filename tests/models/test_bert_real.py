"""Real weights: MiniLM's embeddings and the masked predictions of RXNMapper's ALBERT are those of transformers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bert_twins import assert_same, batch, ours, theirs
from mmha.models.bert import load

#: Lengths of padded batches: one and many tokens side by side, a batch of one, the longest sequence there may be.
BATCHES = [(7, 1, 23, 61, 2), (13,), (1,), (512, 3)]
REACTIONS = (
    "CC(=O)O.OCC>>CCOC(C)=O",
    "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1",
    "CC(C)(C)OC(=O)N1CCC(N)CC1.O=C(Cl)c1ccccc1>>CC(C)(C)OC(=O)N1CCC(NC(=O)c2ccccc2)CC1",
    "C[C@H](N)C(=O)O>>C[C@H](N)C(=O)OC",
    "O",
)


@pytest.mark.network
@pytest.mark.parametrize("lengths", BATCHES)
def test_minilm_is_that_of_transformers(lengths: tuple[int, ...], fetched: Callable[[str], Path]) -> None:
    folder = fetched("minilm")
    model, _ = load(folder)
    twin = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = batch(lengths, 30522)
    found = ours(model, inputs)
    assert_same(found, theirs(twin, inputs))
    assert model.config.parts == ("pooler",)
    with pytest.raises(
        ValueError, match=r"^`words`: expected a model with a head for masked words, got one with only a"
    ):
        model.words(found["hidden"])


def masked_reactions(pieces: tuple[str, ...], lengths: Sequence[int] | None) -> tuple[Tensor, Tensor, Tensor]:
    """The reactions, or parts of these lengths of all of them one after the other, every seventh token masked."""
    numbers = {piece: number for number, piece in enumerate(pieces)}
    rows = []
    for reaction in REACTIONS:
        ids = [numbers[piece] for piece in re.findall(r"\[[^]]+\]|Br|Cl|>>|.", reaction)]
        ids[::7] = [numbers["[MASK]"]] * len(ids[::7])
        rows.append(torch.tensor([numbers["[CLS]"], *ids, numbers["[SEP]"]]))
    if lengths is not None:
        rows = list(torch.cat(rows * 4)[: sum(lengths)].split(list(lengths)))
    real = pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True).bool()
    tokens = pad_sequence(rows, batch_first=True)
    return tokens, (torch.arange(tokens.shape[1]) > 9).long() * real, real


@pytest.mark.network
@pytest.mark.parametrize("lengths", [None, *BATCHES])
def test_albert_predicts_masked_tokens_as_that_of_transformers(
    lengths: tuple[int, ...] | None, fetched: Callable[[str], Path]
) -> None:
    """In float32, where either side is 1e-4 from the exact logits of this model, probabilities are compared."""
    folder = fetched("albert-rxn")
    model, tokenizer = load(folder)
    assert model.config.parts == ("pooler", "words")
    twin = transformers.AlbertForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = masked_reactions(tokenizer.pieces, lengths)
    probabilities, expected = (found["words"].softmax(1) for found in (ours(model, inputs), theirs(twin, inputs)))
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-5)
    if lengths is None:
        masked = inputs[0][inputs[2]] == tokenizer.mask
        assert int(masked.sum()) > 15
        assert float(probabilities[masked].max(1).values.median()) > 0.9  # it knows chemistry: the weights are in place
        assert_same(ours(model.double(), inputs), theirs(twin.double(), inputs), 1e-10)
