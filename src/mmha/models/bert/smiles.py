"""SMILES, molecules and reactions written in a line, cut into atoms, bonds and brackets instead of words.

`CC(=O)Cl` is C C ( = O ) Cl: two letters may be one atom, what stands in brackets is one atom, and case matters. A
vocabulary of such symbols has no pieces that go on with a word, and folders of transformers do not say what it is for;
`fits` tells it by its content.

Source: Weininger, *SMILES, a chemical language and information system* (1988); as tokens: Schwaller et al., *Molecular
Transformer* (2019), section 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmha.models.bert.tokenizer import MARKERS, Tokenizer

SYMBOL = r"\[[^\[\]\s]+\]|Br|Cl|>>|%[0-9]{2}|\S"
_MARKERS = [re.escape(name) for names in MARKERS.values() for name in names]


def fits(pieces: Sequence[str]) -> bool:
    """Whether every piece is one symbol of SMILES, chlorine and bromine among them.

    >>> fits(["[PAD]", "C", "Cl", "Br", "[nH]", "("]), fits(["[PAD]", "C", "##l"]), fits(["[PAD]", "a", "b"])
    (True, False, False)
    """
    return {"Cl", "Br"} <= set(pieces) and all(re.fullmatch(SYMBOL, piece) for piece in pieces)


def tokenizer(pieces: Sequence[str]) -> Tokenizer:
    """The tokenizer of a vocabulary of symbols; a symbol that is not in it is the unknown token, and white space none.

    Raises: ImportError naming the extra when `tokenizers` is missing, ValueError for a vocabulary without the markers.

    >>> found = tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "Cl", "(", ")", "=", "O"])
    >>> [found.pieces[n] for n in found.encode("CC(=O)[MASK]Cl[Xe]", markers=True)]
    ['C', 'C', '(', '=', 'O', ')', '[MASK]', 'Cl', '[UNK]']
    """
    # Text that looks like a marker is none: its brackets are symbols of their own, which no vocabulary has.
    pattern = f"(?!{'|'.join(_MARKERS)})(?:{SYMBOL})|\\S"
    model = {"type": "WordLevel", "vocab": {piece: n for n, piece in enumerate(pieces)}, "unk_token": "[UNK]"}
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
    return Tokenizer(
        {
            "version": "1.0",
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": cut,
            "model": model,
            "decoder": {"type": "Fuse"},
        }
    )
