"""What a page shows of models at work, as JSON values: words, and how much they look at each other.

Weights are whole thousandths, [layer][head][query][key], without the zeros at the end of a row.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmha import checks

if TYPE_CHECKING:
    from mmha.models.bert import Bert
    from mmha.models.bert import Tokenizer as WordPieces
    from mmha.models.causal_lm import CausalLM
    from mmha.models.causal_lm.explanation import Candidate
    from mmha.models.mhanet import Enhancer
    from mmha.models.seq2seq import Seq2Seq
    from mmha.models.tagger import Tagger
    from mmha.subwords import Tokenizer

LONGEST = 64  # words or tokens of a text; more than that is no picture
MOST = 400_000  # weights of a look, of which the largest pages are 2 MB
SECONDS = 5  # of a recording
RANGE, DEPTH = 70.0, 40.0  # dB below the loudest bin, and of attenuation, that are told apart
Json = dict[str, Any]


def thousandths(weights: Tensor) -> list[Any]:
    """Nested lists of whole numbers, 1000 for a weight of 1; zeros at the end of a row are left out.

    >>> thousandths(torch.tensor([[0.25, 0.75, 0.0], [0.0004, 0.0, 1.0]]))
    [[250, 750], [0, 0, 1000]]
    """
    if weights.ndim > 1:
        return [thousandths(part) for part in weights]
    row: list[int] = (1000 * weights.double()).round().int().tolist()
    while row and row[-1] == 0:
        row.pop()
    return row


def tagged(tagger: Tagger, words: Sequence[str], name: str = "sentence") -> Json:
    """Words through a tagger, each with its tag.

    Raises: ValueError when there are none, or more than a page shows; `name` is what it calls them.
    """
    _fits(name, "words", len(words), len(words), tagger.config.layers * tagger.config.heads)
    tags = tagger.tag([words])[0]
    about = (
        f"{tagger.config.layers} layers of {tagger.config.heads} heads; the first {len(tagger.config.taps)} heads of a "
        "layer see one neighbour each, by a mask, and the others the whole sentence."
    )
    look = _look(
        "tagger", "Tagger", "A sentence through the tagger", about, list(words), list(words), tagger.attention(words)
    )
    return look | {"labels": list(tags)}


def encoded(bert: Bert, tokenizer: WordPieces, text: str, name: str = "sentence") -> Json:
    """A text through a BERT; below a [MASK] stands the most probable word, where the model has a head for it.

    Raises: ValueError when there are more tokens than a page shows or the model has positions for.
    """
    from mmha.models.bert.looks import attention

    tokens = [tokenizer.cls, *tokenizer.encode(text, markers=True), tokenizer.sep]
    heads = bert.config.layers * bert.config.heads
    _fits(name, "tokens", len(tokens), len(tokens), heads, min(LONGEST, bert.config.positions))
    words = [tokenizer.pieces[token] for token in tokens]
    about = f"{bert.config.layers} layers of {bert.config.heads} heads. Every token sees all tokens, on both sides."
    weights = attention(bert.eval(), torch.tensor(tokens), [len(tokens)])
    look = _look("bert", "BERT", "A sentence through BERT", about, words, words, weights)
    return look | {"labels": _fillings(bert, tokenizer, text, len(tokens))}


def _fillings(bert: Bert, tokenizer: WordPieces, text: str, count: int) -> list[str] | None:
    from mmha.models.bert.filling import MASK, fill

    if MASK not in text or "words" not in bert.config.parts:
        return None
    labels = [""] * count
    for blank in fill(bert, tokenizer, [text], 1)[0].blanks:
        best = blank.candidates[0]
        labels[blank.position] = f"{best.token} {100 * best.probability:.0f} %"
    return labels


def generated(model: CausalLM, tokenizer: Tokenizer, prompt: str, new: int, name: str = "prompt") -> Json:
    """A prompt and the `new` most probable tokens one after the other, as the model reads them step by step.

    Raises: ValueError when there is no prompt, or more tokens than a page shows.
    """
    from mmha.models.causal_lm import Limits, Sampling, generate
    from mmha.models.causal_lm.explanation import look

    ids = tokenizer.encode(prompt)
    most = LONGEST - new
    _fits(name, "tokens", len(ids), len(ids), model.config.layers * model.config.heads, most)
    written = generate(model, tokenizer, [prompt], Sampling(temperature=0), Limits(new))[0].tokens if new else ()
    tokens, weights, steps = look(model, tokenizer, [*ids, *written])
    about = (
        f"{model.config.layers} layers of {model.config.heads} heads, a causal mask: token n sees the first n tokens. "
        f"After the prompt of {len(ids)} tokens the most probable token is written each time."
    )

    def candidate(found: Candidate) -> list[Any]:
        return [found.token, round(1000 * found.probability, 1), found.rank]

    return {
        "about": about,
        "prompt": len(ids),
        "tokens": list(tokens),
        "weights": thousandths(weights),
        "steps": [
            {"may": [candidate(c)[:2] for c in step.candidates], "next": step.following and candidate(step.following)}
            for step in steps
        ],
    }


def translated(model: Seq2Seq, tokenizer: Tokenizer, text: str, name: str = "source") -> Json:
    """A text and its translation: the words of the one look at those of the other.

    Raises: ValueError when there is nothing to translate, or more tokens than a page shows.
    """
    from mmha.models.seq2seq.alignment import alignments
    from mmha.models.seq2seq.text import translate_texts

    text = text.strip()
    count = len(tokenizer.encode(text))
    _fits(name, "tokens", count, count, model.config.decoder_layers * model.config.heads)
    best = next(translate_texts(model, tokenizer, [text])).wordings[0]
    found = alignments(model, tokenizer, text, best.tokens)
    _fits(
        "translation", "words", len(found.target), len(found.source), model.config.decoder_layers * model.config.heads
    )
    about = (
        f"Cross-attention: {model.config.decoder_layers} layers of {model.config.heads} heads of the decoder. Each "
        "word of the translation looks at the words of the source, all of which it sees."
    )
    title = "A translation and its source"
    return _look("translation", "Translation", title, about, list(found.target), list(found.source), found.weights)


def recorded(enhancer: Enhancer, sound: Tensor, name: str = "recording") -> Json:
    """A sound at 16 kHz, float32 (N,), before and after it was enhanced, of which a page shows the first 5 seconds.

    Levels and gains are bytes, 255 for the loudest bin and for a gain of 1; weights are bytes, too, of their roots. The
    two sounds are WAV files of 16 bits; where one exceeds full scale, both are made quieter.
    Raises: ValueError for less than a frame of sound.
    """
    from mmha.models.mhanet import look
    from mmha.models.mhanet.frames import BINS, RATE, SHIFT

    sound = sound[: SECONDS * RATE]
    checks.require(len(sound) >= SHIFT, name, f"at least {SHIFT} samples at {RATE} Hz", f"{len(sound)}")
    seen = look(enhancer, sound)
    frames = len(seen.gain)
    reach = min(enhancer.window, frames)
    heard = {"before": sound, "after": enhancer.enhance(sound, RATE)}
    loudest = max(1.0, *(float(one.abs().max()) for one in heard.values()))
    level, factor = (20 * part.clamp_min(1e-9).log10() for part in (seen.magnitudes, seen.gain))
    about = (
        f"{len(seen.back)} blocks of {enhancer.model.config.heads} heads. The mask shows each frame of 32 ms itself "
        f"and the {enhancer.window - 1} frames before it, and none after it: a stream can be enhanced as it comes in."
    )
    return {
        "about": about, "name": enhancer.gain, "frames": frames, "bins": BINS, "seconds": frames * SHIFT / RATE,
        "range": RANGE, "depth": DEPTH, "reach": reach, "level": _bytes((level - level.max()) / RANGE + 1),
        "gain": _bytes(factor / DEPTH + 1), "back": [_bytes(block[:, :reach].sqrt()) for block in seen.back],
        "sounds": {name: _wav(one / loudest, RATE) for name, one in heard.items()},
    }  # fmt: skip


def _bytes(values: Tensor) -> str:
    """Numbers from 0 to 1, row after row, a byte each, in base 64.

    >>> _bytes(torch.tensor([[0.0, 1.0], [2.0, -1.0]]))
    'AP//AA=='
    """
    return base64.b64encode((255 * values).round().clamp(0, 255).to(torch.uint8).numpy().tobytes()).decode()


def _wav(sound: Tensor, rate: int) -> str:
    """A sound of full scale 1 as a WAV file of 16 bits, in base 64."""
    with io.BytesIO() as file:
        with wave.open(file, "wb") as made:
            made.setparams((1, 2, rate, 0, "NONE", ""))
            made.writeframes((32767 * sound).round().numpy().astype("<i2").tobytes())
        return base64.b64encode(file.getvalue()).decode()


def _look(name: str, short: str, title: str, about: str, rows: list[str], columns: list[str], weights: Tensor) -> Json:
    return {
        "id": name, "short": short, "title": title, "about": about, "rows": rows, "columns": columns,
        "same": rows == columns, "weights": thousandths(weights),
    }  # fmt: skip


def _fits(name: str, unit: str, rows: int, columns: int, heads: int, most: int = LONGEST) -> None:
    """Raise ValueError unless a page has room for so many weights."""
    most = min(most, int((MOST / heads) ** 0.5))
    checks.require(1 <= rows <= most and columns <= most, name, f"1 to {most} {unit}", f"{max(rows, columns)} {unit}")
