"""transformers writes a mask as a function of (batch, head, query, key); the functions it makes are known here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils as library

from mmha.masks import And, Causal, Chunked, Documents, Full, Keys, Mask, Or, Predicate, Window

Rule = Callable[..., Any]
Maker = Callable[..., Mask | None]


@dataclass(frozen=True)
class Frame:
    """Where a rule is asked: query row i stands at index q_offset + i, key j at k_offset + j.

    A mask value counts from the first key, so indices are moved by k_offset. With `positions` (B, T) a rule is asked
    about positions[b, index] in the place of an index. packed: the document of every index, which the mask keeps apart.
    """

    batch: int
    q_len: int
    k_len: int
    q_offset: int
    k_offset: int
    vmap: bool = False
    positions: Tensor | None = None
    packed: Tensor | None = None

    @property
    def stop(self) -> int:
        """One past the last index of a query or key."""
        return max(self.k_offset + self.k_len, self.q_offset + self.q_len)

    def keys(self, real: Tensor) -> Mask:
        """The mask that hides the keys whose index is False in real (B or 1, indices)."""
        real = real[:, self.k_offset : self.k_offset + self.k_len].to(torch.bool)
        if bool(real.all()):
            return Full()
        return Keys(real.expand(self.batch, -1))

    def documents(self, ids: Tensor) -> Mask | None:
        """The mask that shows what has the same number in ids (B or 1, indices); None where an index has no number."""
        if self.q_offset < self.k_offset or ids.shape[1] < self.stop:
            return None
        ids = ids[:, self.k_offset : self.stop]
        return Documents(ids[0] if len(ids) == 1 else ids)

    @staticmethod
    def join(masks: Sequence[Mask]) -> Mask:
        """What all of them show."""
        told = [mask for mask in masks if not isinstance(mask, Full)]
        return And(*told) if len(told) > 1 else told[0] if told else Full()


def translate(rule: Rule, frame: Frame) -> Mask:
    """The mask value that shows what the rule does.

    What transformers itself makes rules of becomes the mask of that name; any other function becomes a `Predicate`,
    alone or as a part of the whole.
    """
    make = _maker(rule)
    made = None if make is None else make(frame, *_captured(rule))
    return _predicate(rule, frame) if made is None else made


def _maker(rule: Any) -> Maker | None:
    """What makes the mask of a rule, where transformers made the rule."""
    return _makers().get(rule.__code__) if hasattr(rule, "__code__") else None


def _captured(rule: Any) -> list[Any]:
    """What a rule holds of its maker's variables, by their names in alphabetical order."""
    return [cell.cell_contents for cell in rule.__closure__ or ()]


@functools.cache
def _makers() -> dict[CodeType, Maker]:
    """By the code of each function that transformers makes rules of: what makes its mask, or None where it cannot."""
    some = torch.zeros(1, 1, dtype=torch.int64)
    rules: dict[Any, Maker] = {
        library.causal_mask_function: _causal,
        library.bidirectional_mask_function: _full,
        library.sliding_window_overlay(1): _sliding,
        library.sliding_window_bidirectional_overlay(1): _sliding_both_ways,
        library.chunked_overlay(1, some): _chunked,
        library.blockwise_overlay(some): _blockwise,
        library.padding_mask_function(some): _padded,
        library.packed_sequence_mask_function(some): _packed,
        library.remap_positions_for_packed_sequence(library.causal_mask_function, some): _remapped,
        library.and_masks(library.causal_mask_function): _all_of,
        library.or_masks(library.causal_mask_function): _any_of,
    }
    return {rule.__code__: make for rule, make in rules.items()}


def _moves_with_positions(frame: Frame) -> bool:
    """Whether the distance of two positions is that of their indices, for all that the mask does not hide anyway."""
    return frame.positions is None or frame.packed is not None


def _causal(frame: Frame) -> Mask | None:
    return Causal() if _moves_with_positions(frame) else None


def _full(frame: Frame) -> Mask | None:
    return Full()


def _sliding(frame: Frame, sliding_window: int) -> Mask | None:
    return Window(sliding_window - 1, None) if sliding_window > 0 and _moves_with_positions(frame) else None


def _sliding_both_ways(frame: Frame, sliding_window: int) -> Mask | None:
    return Window(sliding_window, sliding_window) if _moves_with_positions(frame) else None


def _chunked(frame: Frame, chunk_size: int, left_padding: Tensor) -> Mask | None:
    if frame.positions is None:
        starts = set(left_padding.tolist())
        if len(starts) == 1 and (frame.k_offset - starts.pop()) % chunk_size == 0:
            return Chunked(chunk_size)
        positions = torch.arange(frame.stop)[None]
    else:
        positions = frame.positions
    return frame.documents(torch.div(positions - left_padding[:, None], chunk_size, rounding_mode="floor"))


def _blockwise(frame: Frame, block_sequence_ids: Tensor) -> Mask | None:
    if frame.positions is not None or (blocks := frame.documents(block_sequence_ids)) is None:
        return None
    return Frame.join([blocks, frame.keys(block_sequence_ids >= 0)])


def _padded(frame: Frame, padding_mask: Tensor) -> Mask | None:
    return frame.keys(padding_mask) if frame.positions is None else None


def _packed(frame: Frame, packed_sequence_mask: Tensor) -> Mask | None:
    return frame.documents(packed_sequence_mask) if frame.positions is None else None


def _remapped(frame: Frame, mask_function: Rule, position_ids: Tensor) -> Mask | None:
    if frame.positions is not None:
        return None
    packed = frame.packed
    if packed is not None:
        steps = packed.diff()
        if not bool(((steps > 0) | ((steps == 0) & (position_ids.diff() == 1))).all()):
            packed = None  # positions that do not rise by one within a document
    return translate(mask_function, replace(frame, positions=position_ids, packed=packed))


def _all_of(frame: Frame, rules: Sequence[Rule]) -> Mask | None:
    return Frame.join([translate(rule, _within(frame, rules)) for rule in rules])


def _any_of(frame: Frame, rules: Sequence[Rule]) -> Mask | None:
    masks = [translate(rule, frame) for rule in rules]
    if any(isinstance(mask, Full) for mask in masks):
        return Full()
    return Or(*masks) if len(masks) > 1 else masks[0]


def _within(frame: Frame, rules: Sequence[Rule]) -> Frame:
    """The frame for rules that all hold: documents among them bound what the others are asked about."""
    for rule in rules:
        if _maker(rule) is _packed:
            return replace(frame, packed=_captured(rule)[0])
    return frame


def _predicate(rule: Rule, frame: Frame) -> Mask:
    """A rule that nothing is known of: asked block by block, as transformers itself asks it."""
    if frame.positions is not None:
        rule = library.remap_positions_for_packed_sequence(rule, frame.positions)

    def seen(b: Tensor, h: Tensor, p: Tensor, j: Tensor) -> Tensor:
        p, j, head = p + frame.k_offset, j + frame.k_offset, h.new_zeros(1)  # one mask for all heads
        if not frame.vmap:
            shown: Tensor = rule(b, head.reshape(1, 1, 1, 1), p, j)
        else:
            with library.TransformGetItemToIndex():
                shown = library._vmap_expansion_sdpa(rule)(b.flatten(), head, p.flatten(), j.flatten())
        return shown.to(torch.bool)

    return Predicate(seen)
