"""Folders of Hugging Face: BERT and ALBERT as transformers saves and loads them.

Read are config.json, model.safetensors (or pytorch_model.bin) and tokenizer.json (or vocab.txt), of BertModel,
BertForMaskedLM, BertForPreTraining, AlbertModel, AlbertForMaskedLM, AlbertForPreTraining and what was fine-tuned from
them. A head that the file lacks is missing from the model, too, and not drawn at random: `model.config.parts`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mmha import checkpoint
from mmha.models.bert import names, smiles, untrusted
from mmha.models.bert.config import Config
from mmha.models.bert.files import assembled
from mmha.models.bert.model import Bert
from mmha.models.bert.tokenizer import Tokenizer


def load_huggingface(folder: Path | str) -> tuple[Bert, Tokenizer]:
    """The model, in float32 and for evaluation, and its tokenizer.

    Raises: OSError when a file is missing, ValueError when one is damaged, of another model, or claims sizes that its
        weights do not have.
    """
    folder = Path(folder)
    settings = folder / "config.json"
    document = untrusted.document(settings)
    kind, config = names.sizes(document, settings)
    tokenizer = _tokenizer(folder)
    if tokenizer.vocabulary > config.vocabulary:
        raise ValueError(f"{folder}: expected at most {config.vocabulary} tokens, got {tokenizer.vocabulary}")
    path, raw = untrusted.weights(folder)
    held = {names.canonical(kind, name): tensor for name, tensor in raw.items()}
    if (bias := held.get(f"{names.DECODER[kind]}.bias")) is not None:  # the same under its other name
        held.setdefault(f"{names.DECODER[kind].removesuffix('.decoder')}.bias", bias)
    config = replace(config, parts=names.there(kind, set(held), path))
    if not document.get("tie_word_embeddings", True) and "words" in config.parts:
        _check_tied(kind, held, path)
    return assembled(config, _ours(kind, config, held, path), path), tokenizer


def _ours(kind: str, config: Config, held: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights under our names; ValueError for one that is missing, or left over in the encoder."""
    found = {}
    for ours, theirs in names.weights(kind, config).items():
        for name in theirs:
            if name not in held:
                raise ValueError(f"{path}: expected a weight {name}, got none")
        parts = [untrusted.floating(held[name], name, path) for name in theirs]
        found[ours] = parts[0] if len(parts) == 1 else _stacked(parts, theirs[0], path)
    used = {name for theirs in names.weights(kind, config).values() for name in theirs}
    for name in held:
        if name.startswith(f"{kind}.encoder.") and name not in used:
            raise ValueError(f"{path}: expected only weights that config.json asks for, got {name}")
    return found


def _stacked(parts: list[Tensor], name: str, path: Path) -> Tensor:
    shapes = {tuple(part.shape) for part in parts}
    if len(shapes) > 1 or not parts[0].ndim:
        raise ValueError(f"{path}: expected {name} and its like of one shape, got {sorted(shapes)}")
    return torch.cat(parts)


def _check_tied(kind: str, held: dict[str, Tensor], path: Path) -> None:
    name = f"{names.DECODER[kind]}.weight"
    decoder, tokens = held.get(name), held.get(f"{kind}.embeddings.word_embeddings.weight")
    if decoder is not None and (tokens is None or not torch.equal(decoder, tokens)):
        raise ValueError(f"{path}: expected {name} tied to the embedding, got one of its own")


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            return Tokenizer(untrusted.document(path))
        path = folder / "vocab.txt"
        if not path.exists():
            raise FileNotFoundError(2, "expected tokenizer.json or vocab.txt in it, got neither", str(folder))
        settings = folder / "tokenizer_config.json"
        chosen = untrusted.document(settings) if settings.exists() else {}
        pieces = untrusted.text(path).removesuffix("\n").split("\n")
        if smiles.fits(pieces):  # no file says so
            return smiles.tokenizer(pieces)
        return Tokenizer.of(pieces, chosen.get("do_lower_case", True), strip_accents=chosen.get("strip_accents"))
    except (TypeError, ValueError) as error:
        if str(error).startswith(str(folder)):
            raise
        raise ValueError(f"{path}: expected a tokenizer, got another thing ({error})") from None


def save_huggingface(model: Bert, tokenizer: Tokenizer, folder: Path | str) -> None:
    """Write the model, in the precision it has, and its tokenizer as transformers' `from_pretrained` reads them.

    Raises: OSError when the folder cannot be written, ValueError for sizes that transformers has no model for.
    """
    from safetensors.torch import save as pack

    folder, config = Path(folder), model.config
    document, kind = names.document_of(config), names.kind_of(config)
    state, found = model.state_dict(), {}
    for ours, theirs in names.weights(kind, config).items():
        for name, part in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
            found[name] = part.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write(folder / "model.safetensors", pack(found, metadata={"format": "pt"}))
    settings = {"model_max_length": config.positions, **tokenizer.settings()}
    texts = {"tokenizer.json": tokenizer.complete(), "tokenizer_config.json": settings, "config.json": document}
    for name, content in texts.items():
        checkpoint.write(folder / name, json.dumps(content, indent=2, ensure_ascii=False).encode())
