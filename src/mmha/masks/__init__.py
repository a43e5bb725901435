"""Masks are values: which keys a query may see, written with `&`, `|` and `~`, lowered once to spans or bits.

>>> from mmha.masks import *
>>> print((Causal() & (Window(2) | Global([0]))).show(5))
0 ██· · · ·
1 ████· · ·
2 ██████· ·
3 ████████·
4 ██· ██████
"""

from mmha.masks.base import And, Mask, Not, Or
from mmha.masks.general import Dense, PerHead, Spans, as_mask, from_dense
from mmha.masks.notation import parse, unflatten
from mmha.masks.plan import Plan
from mmha.masks.positions import Causal, Chunked, Dilated, Full, Prefix, StrictCausal, Window
from mmha.masks.predicate import Predicate
from mmha.masks.tables import Blocks, Global, Tree
from mmha.masks.tokens import Documents, KeyPadding, Keys, LeftPadding, Queries, QueryPadding

__all__ = [
    "And", "Blocks", "Causal", "Chunked", "Dense", "Dilated", "Documents", "Full", "Global", "KeyPadding", "Keys",
    "LeftPadding", "Mask", "Not", "Or", "PerHead", "Plan", "Predicate", "Prefix", "Queries", "QueryPadding", "Spans",
    "StrictCausal", "Tree", "Window", "as_mask", "from_dense", "parse", "unflatten",
]  # fmt: skip
