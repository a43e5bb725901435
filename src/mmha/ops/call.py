"""What goes along with q, k and v: the arguments of a call in the one order in which everything here passes them on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from mmha.masks import Plan
from mmha.ops.plans import PLAIN, PLANS, MaskCall

#: The notation of a float mask: `Call.mask_tensors` are its visible pairs and flags, as `additive.split` makes them,
#: and the mask itself is the first of `Call.additives`.
FLOAT = "float $0"
FULL = "Full()"


class Call(NamedTuple):
    """Everything but q, k and v, as torch's operators take it (their schema, in library.py, has this order).

    mask_tensors, mask: what `Mask.flatten` returned; or PLAIN and a bool tensor; or FLOAT. q_start: None = Tk - Tq, or
    an int tensor, () or (B,). scale: None = 1 / sqrt(D). slopes (H,), table (1 or H, 2R + 1), additives broadcastable
    to (B, H, Tq, Tk): the parts of a bias. sinks: (H,). softcap: None = none. seed: int64 (1,), None = no dropout.
    """

    mask_tensors: list[Tensor]
    mask: str
    q_start: Tensor | None = None
    scale: float | None = None
    slopes: Tensor | None = None
    table: Tensor | None = None
    additives: list[Tensor] = []  # noqa: RUF012 -- nobody writes into it
    sinks: Tensor | None = None
    softcap: float | None = None
    dropout_p: float = 0.0
    seed: Tensor | None = None

    def mask_call(self, q: Tensor, k: Tensor) -> MaskCall:
        """The mask alone, at the sizes of these."""
        batch, heads, q_len, _ = q.shape
        return MaskCall(self.mask, self.mask_tensors, (batch, heads, q_len, k.shape[2]), self.q_start)

    def plan(self, q: Tensor, k: Tensor, *, backward: bool = False) -> Plan:
        """The plan of the mask at these sizes, remembered or made."""
        if not self.mask_tensors and self.q_start is None:
            batch, heads, q_len, _ = q.shape
            plan = PLANS.recall(self.mask, (batch, heads, q_len, k.shape[2]))
            if plan is not None:
                return plan
        return PLANS.get(self.mask_call(q, k), backward=backward)

    def settled(self, *, keep: bool = False) -> Call:
        """The same call without FLOAT: a mask of 0 and -inf alone is a bool mask, unless it is to be kept.

        Adding 0 to a score changes no bit of it, so whether such a mask is kept does not show in the results.
        """
        if self.mask != FLOAT:
            return self
        visible, flags = self.mask_tensors
        full, plain = flags.tolist()
        additives = self.additives[1:] if plain and not keep else self.additives
        if full:
            return self._replace(mask_tensors=[], mask=FULL, additives=additives)
        return self._replace(mask_tensors=[visible], mask=PLAIN, additives=additives)

    def differentiable(self) -> tuple[Tensor | None, ...]:
        """What may want a gradient besides q, k and v, in the order in which those gradients are passed."""
        return self.slopes, self.table, self.sinks, *self.additives

    def parts(self) -> tuple[Tensor | None, ...]:
        """`differentiable`, or nothing when there is none of it."""
        if self.slopes is None and self.table is None and self.sinks is None and not self.additives:
            return ()
        return self.differentiable()

    def with_parts(self, parts: Sequence[Any]) -> Call:
        """The call with other tensors in the places of `parts`."""
        if not parts:
            return self
        slopes, table, sinks, *additives = parts
        return self._replace(slopes=slopes, table=table, sinks=sinks, additives=additives)

    def taken_apart(self) -> tuple[Call, tuple[Any, ...]]:
        """The call with None for each tensor, and the tensors; `put_together` reverses it."""
        if not (self.mask_tensors or self.parts()) and self.q_start is None and self.seed is None:
            return self, ()
        tensors = self.q_start, self.seed, self.slopes, self.table, self.sinks, *self.additives, *self.mask_tensors
        lists: Any = [None] * len(self.additives), [None] * len(self.mask_tensors)
        return Call(lists[1], self.mask, None, self.scale, None, None, lists[0], None, *self[8:10]), tensors

    def put_together(self, tensors: Sequence[Any]) -> Call:
        """The call that was taken apart."""
        if not tensors:
            return self
        q_start, seed, slopes, table, sinks, *lists = tensors
        count = len(self.additives)
        return Call(
            lists[count:], self.mask, q_start, self.scale, slopes, table, lists[:count], sinks, *self[8:10], seed
        )
