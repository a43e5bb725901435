"""Real weights: sentence embeddings of all-MiniLM-L6-v2 are the same with "mmha" as with "eager"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

SENTENCES = (
    "The cat sleeps on the warm stones.",
    "A cat is lying asleep on stones that the sun has warmed.",
    "Bread.",
    "She bakes bread every morning before the village wakes.",
    "Before anyone in the village is awake, she has a loaf in the oven.",
    "The train to the coast leaves at ten past nine from platform four.",
    "When does the next train to the sea leave?",
    "Rain is expected in the north, with strong winds and a chance of thunder towards the evening.",
    "Tomorrow will be dry and sunny everywhere.",
    "The committee approved the budget after a debate that went on for two days and changed nobody's mind.",
    "Attention weighs every value by how well its key answers the query.",
    "In a transformer, each token looks at the others and takes a weighted average of what they offer.",
    "Stop!",
    "He tuned the old violin, which had belonged to his grandmother, and played until the candles had burnt down.",
    "The river froze in January, and children skated from one town to the next, past mills that stood still, past "
    "boats held in the ice, and past the frozen gardens of people who watched them from behind their windows.",
    "Two plus two is four.",
    "Seven is a prime number.",
    "The patient has had a fever for three days but no cough.",
    "Doctors found a high temperature without any sign of a cold.",
    "Ships carry nine tenths of everything that is traded between countries.",
)
SAME = ((0, 1), (3, 4), (5, 6), (10, 11), (17, 18))


def embeddings(folder: Path, implementation: str) -> Tensor:
    """Mean of the last states over the tokens of each sentence, of length 1, as the model's own card computes them."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation=implementation).eval()
    batch = tokenizer(list(SENTENCES), padding=True, return_tensors="pt")
    lengths = batch["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) > 10
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    kept = batch["attention_mask"].unsqueeze(2)
    return torch.nn.functional.normalize((states * kept).sum(1) / lengths.unsqueeze(1), dim=1)


@pytest.mark.network
def test_sentence_embeddings_are_those_of_eager(fetched: Callable[[str], Path], registered: None) -> None:
    folder = fetched("minilm")
    ours, eager = embeddings(folder, "mmha"), embeddings(folder, "eager")
    torch.testing.assert_close(ours, eager, rtol=0.0, atol=1e-5)
    alike = ours @ ours.T - 2.0 * torch.eye(len(SENTENCES))
    assert [(i, int(alike[i].argmax())) for i, _ in SAME] == list(SAME)
