"""Calls on their way to an engine: a queue that never blocks the caller, bounded by bytes.

Order: calls of one context keep their order, except that audio overtakes camera frames waiting for
the same speech (a frame carries its own time). Between contexts no frame is ahead of anything else,
so PCM never waits behind a frame.

When it is full:
- camera frames: at most `max_frame_bytes` wait per context, the newest win, one always stays;
- audio and messages: refused above `max_bytes` (`put` returns False): the engine has taken in
  nothing for minutes, and a context with a gap would be wrong: its owner gives that context up;
- everything else (control, and the rebuilding of a context) is never dropped or refused.
What a context was still to take in when it is closed is forgotten.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pipeline.framing import Buffer, payload_bytes
from pipeline.messages import (
    AppendAudio,
    AppendFrame,
    AppendMessage,
    Call,
    Cancel,
    Close,
    Configure,
    Confirm,
    Heard,
    Rebuild,
    Respond,
)

MAX_BYTES: Final = 64 << 20  # 17 minutes of one session's audio
MAX_FRAME_BYTES: Final = 4 << 20  # four frames of 640 x 480


@dataclass(frozen=True, slots=True)
class Parcel:
    """A call, and the buffers it becomes on a socket (none inside one process)."""

    call: Call
    buffers: tuple[Buffer, ...] = ()


class CallQueue:
    """See the module's docstring. Any thread may put; one thread takes."""

    def __init__(
        self, *, max_bytes: int = MAX_BYTES, max_frame_bytes: int = MAX_FRAME_BYTES
    ) -> None:
        self._max_bytes = max_bytes
        self._max_frame_bytes = max_frame_bytes
        self._changed = threading.Condition()
        self._ready: deque[Parcel] = deque()
        # Per context: waiting frames, and the calls that must stay behind them.
        self._held: dict[int, deque[Parcel]] = {}
        self._num_bytes = 0
        self._num_dropped_frames = 0
        self._is_closed = False

    @property
    def num_dropped_frames(self) -> int:
        """Camera frames dropped for newer ones."""
        return self._num_dropped_frames

    def put(self, parcel: Parcel, *, wait: bool = False) -> bool:
        """Queue a call; False where it was refused. `wait`: rather block until there is room."""
        call = parcel.call
        size = payload_bytes(call)
        with self._changed:
            while self._is_refused(call, size):
                if not wait:
                    return False
                self._changed.wait()
            if self._is_closed:
                return True
            self._num_bytes += size
            self._place(parcel)
            self._changed.notify_all()
        return True

    def take(self) -> Parcel | None:
        """The next call, waiting for it; None once the queue is closed."""
        with self._changed:
            while not (self._ready or self._held or self._is_closed):
                self._changed.wait()
            return None if self._is_closed else self._pop()

    def take_all(self, *, wait: bool) -> list[Call] | None:
        """All calls that wait, in the order of `take`; None once the queue is closed."""
        with self._changed:
            while wait and not (self._ready or self._held or self._is_closed):
                self._changed.wait()
            return None if self._is_closed else [parcel.call for parcel in self._pop_all()]

    def close(self) -> None:
        """Forget what waits and end whoever takes. Idempotent; later calls are ignored."""
        with self._changed:
            self._is_closed = True
            self._ready.clear()
            self._held.clear()
            self._changed.notify_all()

    # ------------------------------------------------------------------ with the lock held
    def _is_refused(self, call: Call, size: int) -> bool:
        is_bulk = isinstance(call, AppendAudio | AppendMessage)
        is_full = self._num_bytes > 0 and self._num_bytes + size > self._max_bytes
        return is_bulk and is_full and not self._is_closed

    def _place(self, parcel: Parcel) -> None:
        call = parcel.call
        context = self._context_of(call)
        held = self._held.get(context)
        if isinstance(call, Close):
            self._forget_bulk(context)
            held = self._held.get(context)
        if isinstance(call, AppendFrame):
            self._held.setdefault(context, deque()).append(parcel)
            self._trim_frames(context)
        elif held and not (isinstance(call, AppendAudio) and all(map(_is_frame, held))):
            held.append(parcel)
        else:
            if self._ready and _is_outdated(self._ready[-1].call, by=call):
                self._num_bytes -= payload_bytes(self._ready.pop().call)
            self._ready.append(parcel)

    def _context_of(self, call: Call) -> int:
        """Calls on a response belong behind its `Respond`, should that still be held back."""
        if not isinstance(call, Confirm | Cancel | Heard):
            return call.context
        for context, held in self._held.items():
            for parcel in held:
                if isinstance(parcel.call, Respond) and parcel.call.response == call.response:
                    return context
        return -1

    def _trim_frames(self, context: int) -> None:
        held = self._held[context]
        sizes = [(parcel, payload_bytes(parcel.call)) for parcel in held if _is_frame(parcel)]
        waiting_bytes = sum(size for _, size in sizes)
        for oldest, size in sizes[:-1]:
            if waiting_bytes <= self._max_frame_bytes:
                break
            waiting_bytes -= size
            self._num_bytes -= size
            self._num_dropped_frames += 1
            _remove(held, oldest)
        self._promote(context)

    def _forget_bulk(self, context: int) -> None:
        """Nobody waits any more for what a closed context was still to take in."""
        for waiting in (self._ready, self._held.get(context, deque())):
            kept = [parcel for parcel in waiting if not _is_bulk_of(parcel.call, context)]
            self._num_bytes -= sum(payload_bytes(parcel.call) for parcel in waiting)
            self._num_bytes += sum(payload_bytes(parcel.call) for parcel in kept)
            waiting.clear()
            waiting.extend(kept)
        if context in self._held:
            self._promote(context)

    def _pop_all(self) -> Iterator[Parcel]:
        while self._ready or self._held:
            yield self._pop()

    def _pop(self) -> Parcel:
        if self._ready:
            parcel = self._ready.popleft()
        else:
            context = next(iter(self._held))
            parcel = self._held[context].popleft()
            self._promote(context)
        self._num_bytes -= payload_bytes(parcel.call)
        self._changed.notify_all()
        return parcel

    def _promote(self, context: int) -> None:
        """Calls with no frame of their context ahead of them any more are ready."""
        held = self._held[context]
        while held and not _is_frame(held[0]):
            self._ready.append(held.popleft())
        if not held:
            del self._held[context]


def _is_frame(parcel: Parcel) -> bool:
    return isinstance(parcel.call, AppendFrame)


def _is_outdated(waiting: Call, *, by: Call) -> bool:
    """Of settings, or whole conversations, that follow each other at once only the last count: each
    costs a prefill.
    """
    for kind in (Configure, Rebuild):
        if isinstance(waiting, kind) and isinstance(by, kind):
            return waiting.context == by.context
    return False


def _is_bulk_of(call: Call, context: int) -> bool:
    if isinstance(call, AppendAudio | AppendFrame | AppendMessage | Rebuild):
        return call.context == context
    return False


def _remove(held: deque[Parcel], parcel: Parcel) -> None:
    """By identity: comparing parcels would compare pictures."""
    for index, other in enumerate(held):
        if other is parcel:
            del held[index]
            return
