"""Random expressions in the notation of masks: most fit their sizes, some do not, some do not parse."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Case:
    """An expression and the sizes it is asked about."""

    notation: str
    batch: int
    heads: int
    q_len: int
    k_len: int
    q_start: int | None


def cases(count: int, seed: int = 7) -> list[Case]:
    """Expressions with their sizes; one in eight is spoilt."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        sizes = [draw.choice(options) for options in ((1, 2, 3), (1, 2, 3), (0, 1, 2, 5, 7, 11), (0, 1, 3, 7, 11, 13))]
        case = Case("", *sizes, draw.choice((None, None, 0, 2, -3)))
        text = Writer(draw, case).mask(2)
        found.append(replace(case, notation=spoilt(draw, text) if number % 8 == 7 else text))
    return found


class Writer:
    """Writes masks that fit the sizes of a case, save for what a q_start below 0 forbids."""

    def __init__(self, draw: random.Random, case: Case) -> None:
        self.draw, self.case = draw, case
        start = case.k_len - case.q_len if case.q_start is None else case.q_start
        self.stop = max(case.k_len, start + case.q_len)

    def mask(self, depth: int) -> str:
        if depth == 0 or self.draw.random() < 0.3:
            return self.draw.choice((self.position, self.token, self.token, self.table, lambda: self.heads(depth)))()
        parts = [self.mask(depth - 1) for _ in range(self.draw.choice((1, 2, 2, 3)))]
        text = self.draw.choice((" & ", " | ", "&")).join(parts)
        return self.draw.choice(("{}", "({})", "~({})", "~~{}", " {} ")).format(text)

    def position(self) -> str:
        n = self.draw.randint(0, 5)
        return self.draw.choice(
            (
                "full", "causal", "Causal()", "strict_causal", "StrictCausal", f"window({n})", f"window({n}, {n // 2})",
                f"window({n}, right=None)", f"window(none, {n})", f"dilated({n or 1})", f"chunked({n or 2})",
                f"prefix({n})", f"prefix([{self.numbers(self.case.batch, 9)}])", f"prefix(length={n})",
            )
        )  # fmt: skip

    def token(self) -> str:
        b, q, k, stop = self.case.batch, self.case.q_len, self.case.k_len, self.stop
        cut = self.draw.randint(0, stop)
        return self.draw.choice(
            (
                f"key_padding({self.numbers(1, k)})", f"keypadding([{self.numbers(b, k)}])",
                f"key_padding.left({self.numbers(b, k)})", f"query_padding({self.numbers(1, 9)})",
                f"query_padding({self.numbers(b, 9)})", f"keys([{self.bits(k)}])", f"keys({self.rows(b, k)})",
                f"queries([{self.bits(q)}])", f"queries(real={self.rows(b, q)})", f"documents({cut}, {stop - cut})",
                f"documents([{self.numbers(stop, 2)}])", f"documents.from_lengths([{cut}, {stop - cut}])",
                "documents([" + ", ".join(f"[{self.numbers(stop, 2)}]" for _ in range(b)) + "])",
            )
        )  # fmt: skip

    def table(self) -> str:
        q, k, size = self.case.q_len, self.case.k_len, self.draw.randint(1, 4)
        side = -(-max(self.stop, 1) // size)
        parents = ", ".join(str(self.draw.randint(-1, node - 1)) for node in range(self.draw.randint(0, k)))
        runs = "[0, " + ", ".join(map(str, range(1, q + 1))) + "], [" + ", ".join([f"[0, {k}]"] * q) + "]"
        return self.draw.choice(
            (
                f"global({self.numbers(2, k)})", f"global([{self.numbers(1, k)}])", f"tree([{parents}])",
                f"blocks({self.rows(side, side)}, {size})", f"dense({self.rows(q, k)})", f"dense([{self.bits(k)}])",
                f"dense([[[[{self.bits(1)}]]]])", f"spans([1, 1, {q}, {k}], {runs})",
            )
        )  # fmt: skip

    def heads(self, depth: int) -> str:
        inner = ", ".join(self.mask(depth - 1) if depth else self.position() for _ in range(self.case.heads))
        return f"per_head({inner})" if self.case.heads > 1 else f"per_head([{inner}])"

    def bits(self, count: int) -> str:
        return ", ".join(self.draw.choice(("true", "false", "0", "1")) for _ in range(count))

    def rows(self, count: int, each: int) -> str:
        return "[" + ", ".join(f"[{self.bits(each)}]" for _ in range(count)) + "]"

    def numbers(self, count: int, most: int) -> str:
        return ", ".join(str(self.draw.randint(0, most)) for _ in range(count))


def spoilt(draw: random.Random, text: str) -> str:
    """A letter more, less or other, after which a notation may still read."""
    at = draw.randrange(len(text) + 1)
    other = draw.choice(("", ")", "(", ",", "x", "9", "-", "[", "&", "é", "$1", "'"))
    return text[:at] + other + text[at + draw.choice((0, 1)) :]
