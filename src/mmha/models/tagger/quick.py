"""The tagger's forward pass without torch, for a few sentences.

Importing torch takes 1 to 2.5 seconds, tagging a page a tenth of that; so `mmha tag "I saw a saw"` does not import it.
The weights are the same, attention runs in the same compiled kernel, and a test holds the scores equal to those
of `model.Tagger`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmha import _kernels, checkpoint
from mmha.models.tagger.config import LONGEST, SHIPPED, TABLES, check_weights, read_document
from mmha.models.tagger.lexicon import parts_of

Array = NDArray[np.float32]


class QuickTagger:
    """Tags as `model.Tagger` does, in numpy and the compiled kernel.

    Raises: FileNotFoundError when the checkpoint is not there, ValueError when it is damaged or of another model.
    """

    def __init__(self, path: Path = SHIPPED) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load as unpack

        document, data = checkpoint.read(path)
        self.config, self.lexicon = read_document(document, path)
        try:
            found = unpack(data)
        except (SafetensorError, KeyError, TypeError) as error:  # KeyError: a dtype that numpy lacks
            raise ValueError(f"{path}: expected safetensors, got a damaged file ({error})") from None
        check_weights(self.config, found, path)
        # The two tables stay in 8 bits: few of their rows are ever read.
        self.weights = {k: v if k in TABLES else v.astype(np.float32) for k, v in found.items()}

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """The best tag of every word of every sentence."""
        result: list[list[str]] = [[] for _ in sentences]
        for i, words in parts_of(sentences, LONGEST):
            result[i] += [self.lexicon.tags[t] for t in self.scores(words).argmax(-1)]
        return result

    def scores(self, words: Sequence[str]) -> Array:
        """The score of every tag for every word of one sentence, float32 (T, tags)."""
        x = self._embed(words)
        plan = _plan(self.config.taps, self.config.heads, len(words))
        for n in range(self.config.layers):
            q, k, v = self._heads(n, x)
            x = x + self._linear(f"blocks.{n}.attention.project_out", _attend(plan, q, k, v))
            hidden = self._linear(f"blocks.{n}.feed_forward.up", self._norm(f"blocks.{n}.norm_feed_forward", x))
            x = x + self._linear(f"blocks.{n}.feed_forward.down", gelu(hidden))
        return self._linear("head", self._norm("norm", x))

    def _embed(self, words: Sequence[str]) -> Array:
        numbers, pieces, _ = self.lexicon.encode([words])
        known = self._rows("word.weight", numbers)
        letters = self._rows("piece.weight", pieces) * (pieces != 0)[..., None]
        x = self._linear("mix", np.concatenate((known, letters.sum(1)), axis=-1, dtype=np.float32))
        return x + self.weights["position_scale"] * _sinusoidal(len(words), self.config.width)

    def _rows(self, table: str, numbers: NDArray[np.int64]) -> Array:
        rows: Array = self.weights[table][numbers] * self.weights[checkpoint.scale_name(table)][numbers]
        return rows

    def _heads(self, n: int, x: Array) -> Array:
        """q, k and v of layer n, (3, H, T, D)."""
        qkv = self._linear(f"blocks.{n}.attention.project_in", self._norm(f"blocks.{n}.norm_attention", x))
        shaped = qkv.reshape(len(x), 3, self.config.heads, -1).transpose(1, 2, 0, 3)
        return np.ascontiguousarray(shaped)

    def _linear(self, name: str, x: Array) -> Array:
        out: Array = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return out

    def _norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        spread = np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(1e-5))
        out: Array = centred / spread * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return out


def _plan(taps: Sequence[int], heads: int, length: int) -> _kernels.Plan:
    """The spans of `model.sight` for one sentence: a neighbour in the first heads, all words in the others."""
    at = np.arange(length)
    start = np.zeros((heads, length), dtype=np.int32)
    stop = np.full((heads, length), length, dtype=np.int32)
    for head, tap in enumerate(taps):
        start[head] = np.clip(at + tap, 0, length)
        stop[head] = np.clip(at + tap + 1, 0, length)
    return _kernels.Plan(1, heads, length, length, None, np.stack((start, stop), axis=-1).reshape(-1, 2))


def _attend(plan: _kernels.Plan, q: Array, k: Array, v: Array) -> Array:
    heads, length, width = q.shape
    out = np.empty_like(q)
    strides = (heads * length * width, length * width, width)
    at_q, at_k, at_v, at_out = ((a.ctypes.data, (1, heads, length, width), strides) for a in (q, k, v, out))
    _kernels.forward(plan, 0, at_q, at_k, at_v, at_out, 0, 0, width**-0.5, None, 1)
    return out.transpose(1, 0, 2).reshape(length, heads * width)


def _sinusoidal(length: int, width: int) -> Array:
    rates = np.exp(np.arange(0, width, 2) * (-np.log(10000.0) / width))
    angles = np.arange(length)[:, None] * rates
    return np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(length, width).astype(np.float32)


def gelu(x: Array) -> Array:
    """x·Φ(x) with erf to 1.5e-7 (Abramowitz and Stegun, *Handbook of Mathematical Functions*, 7.1.26).

    >>> gelu(np.float32([0.0, 1.0])).round(4).tolist()
    [0.0, 0.8413000106811523]
    """
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    erf = np.sign(x) * (1 - t * series * np.exp(-z * z))
    out: Array = (0.5 * x * (1 + erf)).astype(np.float32)
    return out
