"""From bytes as they are generated to text that may be shown: whole characters, and nothing that may yet be cut off."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from mmha import checks


class TextStream:
    """Releases text as its bytes come, up to the first stop string.

    What is released is independent of how the bytes are cut up: characters are added one by one, and generation stops
    at the first that completes a stop string (the longest, when several end there). Bytes of an incomplete UTF-8
    character and an end that could still become a stop string are held back; bytes that are no UTF-8 become U+FFFD.

    Raises: TypeError or ValueError when a stop string is not text or empty.

    >>> stream = TextStream(["END"])
    >>> stream.feed(b"caf\\xc3"), stream.feed(b"\\xa9 E"), stream.feed(b"N"), stream.feed(b"D?"), stream.stopped
    ('caf', 'é ', '', '', True)
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(check_stops(stops))
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def feed(self, data: bytes, final: bool = False) -> str:
        """The text that these bytes make certain; with `final` no more can come, and all that is held back is certain.

        >>> TextStream(["END"]).feed(b"THE EN", final=True)
        'THE EN'
        """
        if self.stopped:
            return ""
        known = len(self._held)
        text = self._held + self._decoder.decode(data, final)
        for end in range(known + 1, len(text) + 1):
            found = [stop for stop in self._stops if text.endswith(stop, 0, end)]
            if found:
                self.stopped = True
                return text[: end - max(map(len, found))]
        keep = 0 if final else self._possible(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible(self, text: str) -> int:
        """How many characters at the end of the text could be the beginning of a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[len(text) - size :]) for stop in self._stops):
                return size
        return 0


def check_stops(stops: Sequence[str]) -> Sequence[str]:
    """The stop strings, each a str that is not empty.

    >>> check_stops([""])
    Traceback (most recent call last):
    ...
    ValueError: `stop`: expected text that is not empty, got ''
    """
    if isinstance(stops, str):
        raise checks.type_error("stop", "a list of texts", stops)
    for stop in stops:
        if not isinstance(stop, str):
            raise checks.type_error("stop", "text", stop)
        checks.require(bool(stop), "stop", "text that is not empty", "''")
    return stops
