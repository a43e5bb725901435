"""Figures that judge a model of text: what was right, of how many; how near a translation is to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `total`, as a fraction in `value` (0 when there was nothing to judge).

    >>> Accuracy(3, 4).value, Accuracy(0, 0).value
    (0.75, 0.0)
    """

    correct: int
    total: int

    @property
    def value(self) -> float:
        return self.correct / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} % ({self.correct:,} of {self.total:,})"


def tag_accuracy(gold: Iterable[Sequence[str]], predicted: Iterable[Sequence[str]]) -> Accuracy:
    """The share of words whose tag is right, over all sentences: Σ [gold = predicted] / Σ 1.

    Raises: ValueError when the two differ in the number of sentences or of words in one.

    >>> str(tag_accuracy([["PRON", "VERB"], ["NOUN"]], [["PRON", "NOUN"], ["NOUN"]]))
    '66.67 % (2 of 3)'
    """
    correct = total = 0
    try:
        for number, (want, have) in enumerate(zip(gold, predicted, strict=True), start=1):
            if len(want) != len(have):
                raise ValueError(
                    f"predicted: expected {len(want)} tags in sentence {number}, as in gold, got {len(have)}"
                )
            correct += sum(a == b for a, b in zip(want, have, strict=True))
            total += len(want)
    except ValueError as error:
        if "zip()" in str(error):
            raise ValueError(
                f"predicted: expected as many sentences as in gold, got another number ({error})"
            ) from None
        raise
    return Accuracy(correct, total)


def translation(found: Sequence[str], references: Sequence[str]) -> dict[str, tuple[float, str]]:
    """chrF and BLEU of translations against one reference each, from 0 to 100, and how sacrebleu names what it did.

    BLEU takes Chinese letter by letter where references hold Chinese letters.
    Raises: ImportError naming the extra when sacrebleu is missing; ValueError for unequal numbers.
    Source: Popović (2015); Papineni et al. (2002); Post (2018).

    >>> same = ["the same five words here"]
    >>> {name: score for name, (score, _) in translation(same, same).items()}
    {'chrF': 100.0, 'BLEU': 100.0}
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise ImportError('chrF and BLEU need sacrebleu: pip install "mmha[translate]"') from None
    if len(found) != len(references):
        raise ValueError(f"`found`: expected {len(references)} translations, one a reference, got {len(found)}")
    chinese = any("一" <= letter <= "鿿" for text in references for letter in text)
    scores = {}
    for name, metric in (("chrF", CHRF()), ("BLEU", BLEU(tokenize="zh" if chinese else "13a"))):
        score = metric.corpus_score(list(found), [list(references)]).score
        scores[name] = (round(float(score), 10), str(metric.get_signature()))
    return scores
