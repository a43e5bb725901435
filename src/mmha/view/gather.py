"""The data of a page: which models it asks, and about which texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmha import checkpoint, checks

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED = Path(__file__).parents[1] / "weights"
KINDS = {  # what a checkpoint calls its model: the files that its folder may hold
    "tagger": "tagger.json",
    "bert": "bert.json",
    "causal_lm": "causal_lm.json",
    "seq2seq": "seq2seq.json",
    "mhanet": "mhanet.json",
}
DEFAULTS = {
    "tagger": SHIPPED / "tagger.json",
    "bert": SHIPPED / "bert.json",
    "causal_lm": SHIPPED / "causal_lm.json",
    "seq2seq": SHIPPED / "translate-de.json",
    "mhanet": SHIPPED / "mhanet.json",
}
NEW = 12  # tokens that are written after a prompt


@dataclass(frozen=True)
class Texts:
    """What a page is about."""

    mask: str = "causal & window(20)"
    size: int = 48
    sentence: str = "The old man the boat, and I saw her duck."
    prompt: str = "I have a dream"
    source: str = "Click the icon to open the file in a new window."


@dataclass
class Models:
    """Where the models are, by kind; each is loaded once, when it is first asked."""

    places: dict[str, Path] = field(default_factory=lambda: dict(DEFAULTS))
    loaded: dict[str, Any] = field(default_factory=dict)

    def get(self, kind: str) -> Any:
        """The tagger alone, or a model and its tokenizer. Raises: as the model's own `load`."""
        if kind not in self.loaded:
            self.loaded[kind] = _load(kind, self.places[kind])
        return self.loaded[kind]


def placed(paths: list[Path]) -> dict[str, Path]:
    """The shipped models, and instead of each the one of its kind that is named.

    Raises: FileNotFoundError for a path without a model; ValueError for a model of another kind, or two of one.
    """
    places, given = dict(DEFAULTS), set()
    for path in paths:
        kind, place = _kind(path)
        checks.require(kind not in given, "--model", "one model of a kind", f"two of kind {kind!r}")
        given.add(kind)
        places[kind] = place
    return places


def _kind(path: Path) -> tuple[str, Path]:
    if path.is_dir():
        if (path / "config.json").exists():
            return "bert", path
        found = [kind for kind, name in KINDS.items() if (path / name).exists()]
        if len(found) != 1:
            expected = f"expected one of {checks.listed(list(KINDS.values()))} or a Hugging Face folder in it"
            raise FileNotFoundError(2, expected, str(path))
        return found[0], path / KINDS[found[0]]
    kind = checkpoint.read(path)[0].get("model")
    if kind not in KINDS:
        raise ValueError(f"{path}: expected a model of kind {checks.listed(list(KINDS))}, got {checks.describe(kind)}")
    return str(kind), path


def _load(kind: str, place: Path) -> Any:
    from mmha.models import bert, causal_lm, mhanet, seq2seq, tagger

    loaders: dict[str, Callable[[Path], Any]] = {
        "tagger": tagger.load, "bert": bert.load, "causal_lm": causal_lm.load, "seq2seq": seq2seq.load,
        "mhanet": mhanet.load,
    }  # fmt: skip
    return loaders[kind](place)


def gather(models: Models, texts: Texts, sound: Tensor | None = None) -> dict[str, Any]:
    """The data of a page, for `page.build`; sound: of a recording, at 16 kHz, float32 (N,).

    Raises: ValueError or TypeError for a text that does not fit, or a damaged model; FileNotFoundError without one.
    """
    from mmha.data import text
    from mmha.masks import parse
    from mmha.view import looks

    parse(texts.mask)
    words = [word for sentence in text.sentences(texts.sentence) for word in sentence]
    bert, pieces = models.get("bert")
    translator, source_pieces = models.get("seq2seq")
    lm, lm_pieces = models.get("causal_lm")
    shown = [
        looks.tagged(models.get("tagger"), words, "--sentence"),
        looks.encoded(bert, pieces, texts.sentence, "--sentence"),
        looks.translated(translator, source_pieces, texts.source, "--source"),
    ]
    generation = looks.generated(lm, lm_pieces, texts.prompt, NEW, "--prompt")
    found = {"mask": {"text": texts.mask, "size": texts.size}, "looks": shown, "generation": generation}
    if sound is not None:
        from mmha.models.mhanet import Enhancer

        found["recording"] = looks.recorded(Enhancer(models.get("mhanet")), sound, "--recording")
    return found
