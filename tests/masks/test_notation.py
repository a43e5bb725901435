"""The notation: what the command line reads, what repr writes, and what graphs carry."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from mmha import masks
from mmha.masks import (
    Blocks,
    Causal,
    Chunked,
    Dense,
    Dilated,
    Documents,
    Full,
    Global,
    KeyPadding,
    Keys,
    Mask,
    PerHead,
    Predicate,
    Prefix,
    Queries,
    QueryPadding,
    Spans,
    StrictCausal,
    Tree,
    Window,
    parse,
    unflatten,
)
from mmha.masks.predicate import KEPT

READ: list[tuple[str, Mask]] = [
    ("causal", Causal()),
    ("Causal()", Causal()),
    ("  causal ( ) ", Causal()),
    ("STRICT_CAUSAL", StrictCausal()),
    ("strictcausal", StrictCausal()),
    ("causal & window(4)", Causal() & Window(4)),
    ("window(4, 2)", Window(4, 2)),
    ("window(none, right=2)", Window(None, 2)),
    ("window(left=4, right=None)", Window(4, None)),
    ("causal & window(4) | prefix(2)", (Causal() & Window(4)) | Prefix(2)),
    ("prefix(2) | causal & window(4)", Prefix(2) | (Causal() & Window(4))),
    ("causal & (window(4) | prefix(2))", Causal() & (Window(4) | Prefix(2))),
    ("~causal & full", ~Causal() & Full()),
    ("~(causal & full)", ~(Causal() & Full())),
    ("~~causal", Causal()),
    ("~" * 5001 + "causal", ~Causal()),
    ("dilated(2)&chunked(8)", Dilated(2) & Chunked(8)),
    ("key_padding(3)", KeyPadding(3)),
    ("key_padding(3, 5)", KeyPadding([3, 5])),
    ("KeyPadding([3, 5])", KeyPadding([3, 5])),
    ("key_padding.left(3, 5)", KeyPadding.left([3, 5])),
    ("KeyPadding.left(2)", KeyPadding.left(2)),
    ("query_padding(4)", QueryPadding(4)),
    ("keys(1, 0, 1)", Keys([1, 0, 1])),
    ("keys([[true, false]])", Keys([[True, False]])),
    ("queries([1, 0])", Queries([1, 0])),
    ("documents(2, 3)", Documents([0, 0, 1, 1, 1])),
    ("documents([7, 7, 8])", Documents([7, 7, 8])),
    ("documents.from_lengths([2, 1])", Documents([0, 0, 1])),
    ("global(0, 5)", Global([0, 5])),
    ("global([0, 5])", Global([0, 5])),
    ("global(0)", Global([0])),
    ("tree(-1, 0, 0)", Tree([-1, 0, 0])),
    ("blocks([[1, 0], [1, 1]], size=4)", Blocks([[1, 0], [1, 1]], 4)),
    ("per_head(causal, window(2) & causal)", PerHead([Causal(), Window(2) & Causal()])),
    ("per_head([causal, full])", PerHead([Causal(), Full()])),
    ("dense([[1, 0], [1, 1]])", Dense([[1, 0], [1, 1]])),
    ("spans([1, 1, 1, 4], [0, 1], [[1, 3]])", Spans([1, 1, 1, 4], [0, 1], [[1, 3]])),
]


@pytest.mark.parametrize(("text", "mask"), READ, ids=[text for text, _ in READ])
def test_notation_reads_and_round_trips(text: str, mask: Mask) -> None:
    assert parse(text) == mask
    assert parse(repr(mask)) == mask
    assert eval(repr(mask), vars(masks).copy()) == mask
    assert unflatten(*mask.flatten()) == mask
    assert pickle.loads(pickle.dumps(mask)) == mask
    assert copy.deepcopy(mask) == mask
    assert hash(copy.copy(mask)) == hash(mask)


def test_masks_that_differ_have_hashes_that_differ() -> None:
    """One hash for all of a kind would be right as well, but a dict of plans would be searched one by one."""
    assert len({hash(mask) for _, mask in READ}) == len({repr(mask) for _, mask in READ})


UNREAD = [
    ("", "`mask`: expected the name of a mask at column 1, got the end"),
    ("casual", "`mask`: expected the name of a mask at column 1, got 'casual'; did you mean 'causal'?"),
    ("causal & windw(4)", "`mask`: expected the name of a mask at column 10, got 'windw'; did you mean 'window'?"),
    ("keypading(3)", "`mask`: expected the name of a mask at column 1, got 'keypading'; did you mean 'key_padding'?"),
    ("xyzzy", "`mask`: expected the name of a mask at column 1, got 'xyzzy'"),
    ("causal &", "`mask`: expected the name of a mask at column 9, got the end"),
    ("causal window(4)", "`mask`: expected '&', '|' or the end at column 8, got 'window'"),
    ("causal)", "`mask`: expected '&', '|' or the end at column 7, got ')'"),
    ("(causal", "`mask`: expected ')' at column 8, got the end"),
    ("window(4", "`mask`: expected ',' or ')' at column 9, got the end"),
    ("window(4 2)", "`mask`: expected ',' or ')' at column 10, got '2'"),
    ("keys([1 0])", "`mask`: expected ',' or ']' at column 9, got '0'"),
    ("window()", "`mask`: expected window(left, right=0) at column 1, got 0 arguments"),
    ("causal & window(1, 2, 3)", "`mask`: expected window(left, right=0) at column 10, got 3 arguments"),
    ("window(size=3)", "`mask`: expected window(left, right=0) at column 1, got 1 argument"),
    ("window(left=1, 2)", "`mask`: expected a named argument at column 16, got '2'"),
    ("causal(1)", "`mask`: expected causal() at column 1, got 1 argument"),
    ("window(-1)", "`left`: expected an integer >= 0, or None for no bound, got -1"),
    ("causal && window(4)", "`mask`: expected the name of a mask at column 9, got '&'"),
    ("causal and window(4)", "`mask`: expected '&', '|' or the end at column 8, got 'and'"),
    ("causal + window(4)", "`mask`: expected a mask such as 'causal & window(4)' at column 8, got '+'"),
    ("window(1.5)", "`mask`: expected a mask such as 'causal & window(4)' at column 9, got '.'"),
    ("__import__('os')", "`mask`: expected a mask such as 'causal & window(4)' at column 12, got \"'\""),
    ("keys($0)", "`mask`: expected a value at column 6, got '$0'"),
    ("predicate(@1)", "`mask`: expected a value at column 11, got '@1'"),
    ("(" * 500, "`mask`: expected at most 100 levels of brackets at column 101, got '('"),
    ("full(" + "[" * 500, "`mask`: expected at most 100 levels of brackets at column 105, got '['"),
]


@pytest.mark.parametrize(("text", "message"), UNREAD, ids=[text[:30] for text, _ in UNREAD])
def test_what_does_not_read_is_named(text: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        parse(text)
    assert str(caught.value) == message


def test_only_text_is_parsed() -> None:
    with pytest.raises(TypeError, match=r"^`mask`: expected the notation of a mask such as .*, got 3$"):
        parse(3)  # type: ignore[arg-type]


def test_large_tensors_are_not_written_out() -> None:
    assert repr(Documents(torch.zeros(2, 50, dtype=torch.int64))) == "Documents(<int64 (2, 50)>)"
    assert repr(KeyPadding([3] * 32)) == f"KeyPadding({[3] * 32})"
    assert repr(KeyPadding([3] * 33)) == "KeyPadding(<int64 (33,)>)"
    assert repr(~(Causal() | Dense(torch.ones(9, 9, dtype=torch.bool)))) == "~(Causal() | Dense(<bool (9, 9)>))"


def named(b: torch.Tensor, h: torch.Tensor, p: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    return p > j


def test_flatten_names_tensors_in_order_and_is_remembered() -> None:
    mask = Causal() & KeyPadding([3, 5]) & (Documents([[0, 1]] * 2) | ~Keys([[1, 0]] * 2)) & KeyPadding(2)
    spec, tensors = mask.flatten()
    assert spec == "Causal() & KeyPadding($0) & (Documents($1) | ~Keys($2)) & KeyPadding(2)"
    assert [tuple(tensor.shape) for tensor in tensors] == [(2,), (2, 2), (2, 2)]
    assert mask.flatten()[1][0] is tensors[0]
    tensors.clear()
    assert len(mask.flatten()[1]) == 3  # what is handed out is the caller's
    assert unflatten(*mask.flatten()) == mask


def test_unflatten_holds_the_tensors_it_is_given() -> None:
    lengths = torch.tensor([3, 5])
    assert unflatten("KeyPadding($0)", [lengths]).lengths is lengths  # type: ignore[attr-defined]


def test_predicates_travel_by_number() -> None:
    spec, tensors = (Predicate(named) & Causal()).flatten()
    assert spec.startswith("Predicate(@")
    assert Predicate(named).flatten()[0] == spec.split(" ")[0]
    assert unflatten(spec, tensors) == Predicate(named) & Causal()
    assert repr(Predicate(named)) == "Predicate(<named>)"
    for step in range(KEPT + 3):  # a loop that makes a new function every time does not grow for ever
        Predicate(lambda b, h, p, j, step=step: p > step).flatten()
        Predicate(named).flatten()
    assert unflatten(spec, tensors) == Predicate(named) & Causal()  # in use, so still known


def test_structure_is_compared() -> None:
    assert Causal() != StrictCausal()
    assert Window(4) == Window(4, 0) != Window(4, 1)
    assert Causal() & Window(4) != Window(4) & Causal()
    assert (Causal() & Window(4)) & Full() == Causal() & (Window(4) & Full())
    assert KeyPadding([3, 5]) != KeyPadding([3, 6])
    assert KeyPadding([3]) != KeyPadding.left([3])
    assert KeyPadding([3]) != KeyPadding(3)
    assert Keys([1, 0]) != Keys([[1, 0]])
    assert Prefix(3) != 3
    assert {Causal(): 1, Window(4): 2}[Window(4)] == 2
    assert len({KeyPadding([3, 5]), KeyPadding(torch.tensor([3, 5])), KeyPadding([5, 3])}) == 2
