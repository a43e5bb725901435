"""Damage to files: bits, bytes, pieces, numbers that look like lengths, and values in a JSON document."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x", "\0", "../x", "é", "\ud800", "0", "a\nb", [], {}, [[]], [1, 2], ["x"], {"x": 1},
)  # fmt: skip
TEXTS = (
    b"\n", b"\r", b"\r\n", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b"'", b"/", b"-", b"#", b"1-2", b"9" * 5000,
    b"1e999", b"nan", b"\xe2\x80\xa8", b"{", b"[" * 5000, b"}", b"a" * 200_000,
)  # fmt: skip


def damaged(pick: random.Random, data: bytes) -> bytes:
    """The file with one to four kinds of damage, most often one."""
    found = bytearray(data)
    for _ in range(pick.choice((1, 1, 1, 2, 4))):
        pick.choice((_bits, _bytes, _cut, _drop, _repeat, _swap, _length, _length, _insert))(pick, found)
    return bytes(found)


def _place(pick: random.Random, found: bytearray) -> int:
    """Anywhere, and every second time near the beginning, where headers are."""
    return pick.randint(0, min(len(found), 64) if pick.random() < 0.5 else len(found))


def _bits(pick: random.Random, found: bytearray) -> None:
    for _ in range(pick.choice((1, 1, 3, 30))):
        if found:
            found[min(_place(pick, found), len(found) - 1)] ^= 1 << pick.randrange(8)


def _bytes(pick: random.Random, found: bytearray) -> None:
    at = _place(pick, found)
    count = min(pick.choice((1, 2, 4, 16)), len(found) - at)
    found[at : at + count] = bytes(pick.randrange(256) for _ in range(count))


def _cut(pick: random.Random, found: bytearray) -> None:
    del found[_place(pick, found) :]


def _drop(pick: random.Random, found: bytearray) -> None:
    at = _place(pick, found)
    del found[at : at + pick.choice((1, 2, 3, 4, 8, 100))]


def _repeat(pick: random.Random, found: bytearray) -> None:
    at = _place(pick, found)
    found[at:at] = found[at : at + pick.choice((1, 4, 64, 1000))] * pick.choice((1, 2, 20))


def _swap(pick: random.Random, found: bytearray) -> None:
    a, b, size = _place(pick, found), _place(pick, found), pick.choice((1, 2, 4, 8))
    found[a : a + size], found[b : b + size] = found[b : b + size], found[a : a + size]


def _length(pick: random.Random, found: bytearray) -> None:
    """A number at an even place, of 1 to 8 bytes, in either order, becomes an edge or a neighbour of what it was."""
    size, order = pick.choice((1, 2, 4, 8)), pick.choice(("little", "big"))
    at = _place(pick, found) // 2 * 2
    old = int.from_bytes(found[at : at + size], order)  # type: ignore[arg-type]
    new = pick.choice((*EDGES, old + 1, old - 1, old * 2, -old)) % 256**size
    found[at : at + size] = new.to_bytes(size, order)  # type: ignore[arg-type]


def _insert(pick: random.Random, found: bytearray) -> None:
    at = _place(pick, found)
    found[at:at] = pick.choice(TEXTS)


def damaged_json(pick: random.Random, data: bytes) -> bytes:
    """A JSON document in which one to three values or names are others; now and then damaged as bytes are."""
    if pick.random() < 0.15:
        return damaged(pick, data)
    document = json.loads(data)
    for _ in range(pick.choice((1, 1, 1, 2, 3))):
        document = _changed(pick, document)
    return json.dumps(document).encode()


def _changed(pick: random.Random, value: Any) -> Any:
    """One change somewhere inside, most often deep."""
    if isinstance(value, (dict, list)) and value and pick.random() < 0.85:
        key: Any = pick.choice(list(value)) if isinstance(value, dict) else pick.randrange(len(value))
        how = pick.random()
        if how < 0.1:
            del value[key]
        elif how < 0.2 and isinstance(value, dict):
            value[pick.choice(("x", "", "é", key + "x"))] = value.pop(key)
        elif how < 0.25 and isinstance(value, list):
            value[key:key] = value[key : key + 1] * pick.choice((1, 3))
        else:
            value[key] = _changed(pick, value[key])
        return value
    if isinstance(value, str) and value and pick.random() < 0.5:
        at = pick.randrange(len(value))
        return value[:at] + pick.choice(("", "x", "\n", " ", "\0", value)) + value[at + 1 :]
    if isinstance(value, int) and pick.random() < 0.5:
        return value + pick.choice((-1, 1, 2)) if pick.random() < 0.5 else value * pick.choice((2, -1, 1000))
    return copy.deepcopy(pick.choice(SCALARS))
