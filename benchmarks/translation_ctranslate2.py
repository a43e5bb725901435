"""CTranslate2 with the weights of an encoder-decoder of ours: `Converted(model)` translates as it does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmha.models.seq2seq import Beams, Seq2Seq
from mmha.models.seq2seq.model import DecoderLayer, EncoderLayer
from mmha.nn import sinusoidal

POSITIONS = 1024  # for which the converted model holds codes


class Converted:
    """The model in CTranslate2: tokens in, tokens out. compute_type: "float32" or "int8"."""

    def __init__(self, model: Seq2Seq, threads: int, compute_type: str = "float32") -> None:
        import ctranslate2

        with tempfile.TemporaryDirectory() as folder:
            made = spec(model)
            made.validate()
            made.optimize()
            made.save(folder)
            self.translator = ctranslate2.Translator(
                folder, device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
            )
        self.end = model.end

    def __call__(self, sources: Sequence[Sequence[int]], beams: Beams) -> list[list[int]]:
        """The best translation of each source, without its end.

        CTranslate2 divides by length^alpha, where we divide by (5 + length)^alpha, and takes the best of the first
        `width` translations that are done.
        """
        found = self.translator.translate_batch(
            [[str(token) for token in source] for source in sources],
            beam_size=beams.width,
            length_penalty=beams.alpha,
            min_decoding_length=0,
            max_decoding_length=max(map(len, sources)) + 1 + beams.extra,
        )
        return [[int(token) for token in result.hypotheses[0]] for result in found]


def spec(model: Seq2Seq) -> Any:
    """The model as CTranslate2 describes one."""
    from ctranslate2.specs import TransformerSpec

    config = model.config
    made = TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers), config.heads, pre_norm=config.norm_first
    )
    codes = sinusoidal(torch.arange(POSITIONS), config.width)
    for half, embeddings in ((made.encoder, made.encoder.embeddings[0]), (made.decoder, made.decoder.embeddings)):
        embeddings.weight = array(model.embedding.weight)
        half.position_encodings.encodings = array(codes)
    made.decoder.projection.weight = array(model.embedding.weight)
    for layer, ours in zip(made.encoder.layer, model.encoder, strict=True):
        encoder_layer(layer, ours)
    for layer, ours in zip(made.decoder.layer, model.decoder, strict=True):
        decoder_layer(layer, ours)
    if config.norm_first:
        norm(made.encoder.layer_norm, model.encoder_norm)
        norm(made.decoder.layer_norm, model.decoder_norm)
    words = [str(token) for token in range(config.vocabulary)]
    made.register_source_vocabulary(words)
    made.register_target_vocabulary(words)
    end = words[model.end]
    made.config.bos_token = made.config.eos_token = made.config.decoder_start_token = end
    made.config.unk_token, made.config.add_source_eos = end, True
    return made


def encoder_layer(made: Any, ours: EncoderLayer) -> None:
    """Attention within the sentence, then the feed-forward part."""
    own_attention(made.self_attention, ours.own, ours.residuals[0].norm)
    feed_forward(made.ffn, ours.feed_forward, ours.residuals[1].norm)


def decoder_layer(made: Any, ours: DecoderLayer) -> None:
    """The same with the attention to the source between the two."""
    own_attention(made.self_attention, ours.own, ours.residuals[0].norm)
    width = ours.cross.embed_dim
    weight, bias = ours.cross.in_proj_weight, ours.cross.in_proj_bias
    linear(made.attention.linear[0], weight[:width], bias[:width])
    linear(made.attention.linear[1], weight[width:], bias[width:])
    linear(made.attention.linear[2], ours.cross.out_proj.weight, ours.cross.out_proj.bias)
    norm(made.attention.layer_norm, ours.residuals[1].norm)
    feed_forward(made.ffn, ours.feed_forward, ours.residuals[2].norm)


def own_attention(made: Any, ours: nn.MultiheadAttention, following: nn.LayerNorm) -> None:
    """Self-attention and its norm."""
    linear(made.linear[0], ours.in_proj_weight, ours.in_proj_bias)
    linear(made.linear[1], ours.out_proj.weight, ours.out_proj.bias)
    norm(made.layer_norm, following)


def feed_forward(made: Any, ours: nn.Sequential, following: nn.LayerNorm) -> None:
    """Both linear layers and the norm."""
    linear(made.linear_0, ours[0].weight, ours[0].bias)
    linear(made.linear_1, ours[2].weight, ours[2].bias)
    norm(made.layer_norm, following)


def linear(made: Any, weight: Tensor, bias: Tensor) -> None:
    """A linear layer."""
    made.weight, made.bias = array(weight), array(bias)


def norm(made: Any, ours: nn.LayerNorm) -> None:
    """A layer norm; both sides take 1e-5 as its epsilon."""
    made.gamma, made.beta = array(ours.weight), array(ours.bias)


def array(x: Tensor) -> Any:
    """Numbers as numpy has them."""
    return x.detach().contiguous().numpy()
