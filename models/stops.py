"""Where a reply's text has to end by the caller's wish: at the first of some texts.

Pure text: characters go in as they are written, those that can be shown come out. What may be the
beginning of a stop is held back until it is known.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopSearch:
    """Looks for the first of `stops` in a text that comes piece by piece; none of it is shown."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.is_hit = False

    @property
    def is_holding(self) -> bool:
        """Whether text waits that may be the beginning of a stop."""
        return bool(self._held)

    def push(self, text: str) -> str:
        """More text; returns what can be shown, nothing behind a stop."""
        if self.is_hit:
            return ""
        text = self._held + text
        ends = [index for stop in self._stops if (index := text.find(stop)) >= 0]
        if ends:
            self.is_hit, self._held = True, ""
            return text[: min(ends)]
        shown = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """There will be no more text; returns what was held back."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
