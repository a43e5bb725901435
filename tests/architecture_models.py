"""A tiny model of a transformers family, and inputs for it: two rows, one of them padded.

transformers takes seconds to import, which waits for the first model that is built.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IMAGE_TOKEN = 60
VALUES, NOTHING, DENSE, BIAS = "as values", "none to take", "as its own tensor", "as values, beside a bias tensor"
WORKS, PATCH, OWN, REFUSED = "mmha", "mmha inside `mmha.patch()`", "the model itself", "nobody: an error"


@dataclass(frozen=True)
class Family:
    """masks: how they arrive in attention. state: who computes attention. note: what is special about the family."""

    name: str
    model: str
    kind: str
    settings: dict[str, Any]
    note: str = ""
    masks: str = VALUES
    state: str = WORKS

    def build(self, implementation: str | None) -> Any:
        """The model with weights of its own, the same every time, nowhere 0 or 1 and without dropout."""
        import transformers

        made = getattr(transformers, self.model)
        config = made.config_class(**copy.deepcopy(self.settings), attn_implementation=implementation)
        _without_dropout(config)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            model = made(config)
            for weights in model.parameters():
                weights.add_(0.2 * torch.randn_like(weights))
        return model.train()

    @property
    def layers(self) -> int:
        """How often a forward pass computes attention: 2 layers on each side, and across."""
        others = sum(layer in ("conv", "linear_attention") for layer in self.settings.get("layer_types", ()))
        return (6 if "and decoder" in self.kind else 4 if "image" in self.kind else 2) - others

    @property
    def generates(self) -> bool:
        return self.kind in ("decoder", "encoder and decoder", "speech and decoder", "images in text")

    def inputs(self) -> dict[str, Tensor]:
        """Two rows of which the first is padded: on the left where tokens are generated from it, else on the right."""
        draw = torch.Generator().manual_seed(1)
        return INPUTS[self.kind](draw, self.settings)


def _without_dropout(config: Any) -> None:
    for name, value in list(vars(config).items()):
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
        elif hasattr(value, "sub_configs"):
            _without_dropout(value)


def _words(draw: torch.Generator, hidden: slice, length: int = 11) -> dict[str, Tensor]:
    mask = torch.ones(2, length, dtype=torch.int64)
    mask[0, hidden] = 0
    return {"input_ids": torch.randint(3, IMAGE_TOKEN, (2, length), generator=draw) * mask, "attention_mask": mask}


def _decoder(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    return _words(draw, slice(3))


def _encoder(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    return _words(draw, slice(8, None))


def _both(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    return {**_encoder(draw, settings), "decoder_input_ids": _words(draw, slice(0), 7)["input_ids"]}


def _image(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    size = settings.get("vision_config", settings)["image_size"]
    frames = [settings["num_frames"]] if "num_frames" in settings else []
    return {"pixel_values": torch.randn(2, *frames, 3, size, size, generator=draw)}


def _image_and_words(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    return {**_encoder(draw, settings), **_image(draw, settings)}


def _image_in_words(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Left padding, two words, four tokens of an image, two words."""
    inputs = {**_decoder(draw, settings), **_image(draw, settings)}
    inputs["input_ids"][:, 5:9] = IMAGE_TOKEN
    if "mm_tokens_per_image" in settings:  # Gemma 3: type 1 is the image
        inputs["token_type_ids"] = (inputs["input_ids"] == IMAGE_TOKEN).long()
    if "projection_dim" in settings:  # PaliGemma: type 1 is the answer
        inputs["token_type_ids"] = (torch.arange(11) >= 9).long().expand(2, -1)
    return inputs


def _wave(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    mask = torch.ones(2, 170, dtype=torch.int64)
    mask[0, 120:] = 0
    return {"input_values": torch.randn(2, 170, generator=draw) * mask, "attention_mask": mask}


def _spectrum(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, settings["max_length"], settings["num_mel_bins"], generator=draw)}


def _speech(draw: torch.Generator, settings: dict[str, Any]) -> dict[str, Tensor]:
    said = {"decoder_input_ids": _words(draw, slice(0), 7)["input_ids"]}
    if "num_mel_bins" in settings:  # Whisper: always 30 seconds, never a mask
        return {**said, "input_features": torch.randn(2, settings["num_mel_bins"], 20, generator=draw)}
    mask = torch.ones(2, 20, dtype=torch.int64)
    mask[0, 14:] = 0
    features = torch.randn(2, 20, settings["input_feat_per_channel"], generator=draw)
    return {**said, "input_features": features, "attention_mask": mask}


INPUTS = {
    "decoder": _decoder, "encoder": _encoder, "encoder and decoder": _both, "vision": _image,
    "image and text": _image_and_words, "images in text": _image_in_words, "audio": _wave, "spectrogram": _spectrum,
    "speech and decoder": _speech,
}  # fmt: skip
