"""BERTs of transformers with random weights, and their outputs on padded batches beside ours on packed ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from mmha.models.bert import Bert

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##n", "sat", "cat", "!"]
SIZES: dict[str, Any] = {
    "vocab_size": 101, "hidden_size": 42, "num_hidden_layers": 3, "num_attention_heads": 7, "intermediate_size": 23,
    "max_position_embeddings": 17,
}  # fmt: skip
ALBERT_SIZES: dict[str, Any] = {**SIZES, "num_hidden_layers": 6, "embedding_size": 13}
LENGTHS = (5, 1, 17, 2)


def made(architecture: str, **sizes: Any) -> Any:
    """A model of transformers with weights large enough that everything in it matters."""
    base = ALBERT_SIZES if architecture.startswith("Albert") else SIZES
    config = getattr(transformers, architecture[: architecture.index("ert") + 3] + "Config")(**base | sizes)
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            torch.nn.init.normal_(weight, 1.0 if "orm.weight" in name else 0.0, 0.3)
    return model


def saved(model: Any, folder: Path, bin: bool = False) -> Path:
    """The folder, as a user of transformers has it: in today's format, or with the weights as torch pickles them."""
    folder.mkdir(exist_ok=True)
    model.config.save_pretrained(folder)
    if bin:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", "utf-8")
    return folder


def batch(lengths: Sequence[int], vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, segments and which are real, (B, T) each, padding on the right."""
    wide = torch.randint(0, vocabulary, (len(lengths), max(lengths)))
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    segments = torch.randint(0, 2, wide.shape)
    return wide * real, segments * real, real


@torch.no_grad()
def theirs(model: Any, inputs: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    """What transformers computes of a padded batch, the padding taken out."""
    tokens, segments, real = inputs
    found = model(input_ids=tokens, token_type_ids=segments, attention_mask=real.long(), output_hidden_states=True)
    outputs = {"hidden": found.hidden_states[-1][real]}
    words = found.get("logits") if "MaskedLM" in type(model).__name__ else found.get("prediction_logits")
    if words is not None:
        outputs["words"] = words[real]
    for name in ("seq_relationship_logits", "sop_logits"):
        if found.get(name) is not None:
            outputs["next"] = found[name]
    if found.get("pooler_output") is not None:
        outputs["pooled"] = found.pooler_output
    return outputs


@torch.no_grad()
def ours(model: Bert, inputs: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    """The same of the same sequences, packed."""
    tokens, segments, real = inputs
    lengths = real.sum(1).tolist()
    hidden = model(tokens[real], lengths, segments[real])
    outputs = {"hidden": hidden}
    if "words" in model.heads:
        outputs["words"] = model.words(hidden)
    if "pooler" in model.heads:
        outputs["pooled"] = model.pool(hidden, lengths)
    if "next" in model.heads:
        outputs["next"] = model.next(outputs["pooled"])
    return outputs


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Raise unless every output of transformers is there to the tolerance."""
    assert set(expected) <= set(found)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )
