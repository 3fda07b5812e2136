"""(skeleton: contract between pipeline.conversation, pipeline.playout and daemon.webrtc)

Paced output of one session at 24 kHz: what is written is played in order, can be cut at once, and is known to the
sample. Holds no timer: whoever plays (an RTP track) calls `read` for each packet, and that is the clock.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.messages import Pcm16


class Playout:
    """A clearable queue of speech.

    Args:
        on_started / on_stopped: called with the response id when its first sample is read, and when its last one
            has been read after `finish`.
    """

    def __init__(
        self,
        *,
        on_started: Callable[[str], None] = lambda _: None,
        on_stopped: Callable[[str], None] = lambda _: None,
    ) -> None:
        raise NotImplementedError

    def write(self, response_id: str, pcm: Pcm16) -> None:
        """Queue more speech of a reply."""

    def finish(self, response_id: str) -> None:
        """No more speech of this reply will come."""

    def clear(self) -> tuple[str, int] | None:
        """Cut at once; returns the reply that was being played and how many of its samples were read, or None."""
        raise NotImplementedError

    def played_samples(self, response_id: str) -> int:
        """How many samples of this reply have been read."""
        raise NotImplementedError

    def read(self, num_samples: int) -> Pcm16:
        """The next samples to play; silence where there is nothing (counted as underrun inside a reply)."""
        raise NotImplementedError

    @property
    def num_underruns(self) -> int:
        """Reads inside an unfinished reply that had to be filled with silence."""
        raise NotImplementedError
