"""Sessions that outlive a dropped socket (extension): the client comes back and nothing is missing.

A session that opted in says a token in its `session.created`. When its socket drops, it goes on for
a while: a reply is made to its end, and every event is kept. Who connects with `?resume=TOKEN` in
that time takes the session over and gets what was not sent yet; with `&after=EVENT_ID` all that
came behind that event, so that words that were on their way are not lost either. The protocol
itself has nothing like it. Bound: the newest `max_bytes` of events.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable

from daemon.auth import Refusal
from daemon.places import Place
from daemon.protocol import ServerEvent
from daemon.protocol import server_events as ev
from daemon.realtime import RealtimeSession
from daemon.sessions import NORMAL, OVERLOADED, SessionEnded, Sessions

Put = Callable[[str], None]


class Journal:
    """The newest events of a session, and how many of all a socket has taken."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._events: deque[tuple[str, str]] = deque()
        self._num_forgotten = 0  # before `_events`
        self._num_sent = 0  # of all: what is on its way may be forgotten before it is sent

    def append(self, event_id: str, text: str) -> None:
        """One more event; the oldest ones are forgotten where there is no room."""
        self._events.append((event_id, text))
        self._num_bytes += len(text)
        while self._num_bytes > self._max_bytes and len(self._events) > 1:
            self._num_bytes -= len(self._events.popleft()[1])
            self._num_forgotten += 1

    def note_sent(self) -> None:
        """A socket has taken the next event."""
        self._num_sent += 1

    def seek(self, after: str | None) -> list[str]:
        """What has to be sent again: all behind an event, or (None, or one that is not known any
        more) what no socket has taken. The next that is sent is the first of these.
        """
        self._num_sent = max(self._num_sent, self._num_forgotten)
        for index, (event_id, _) in enumerate(self._events):
            if event_id == after:
                self._num_sent = self._num_forgotten + index + 1
        return [text for _, text in list(self._events)[self._num_sent - self._num_forgotten :]]


class KeptSession:
    """A session, its journal, and the socket that it has or waits for."""

    def __init__(self, journal: Journal, owner: str) -> None:
        self.token = secrets.token_urlsafe(24)
        self.owner = owner
        self.journal = journal
        self.is_over: asyncio.Future[SessionEnded] = asyncio.get_running_loop().create_future()
        self._goodbye: asyncio.Future[SessionEnded] = asyncio.get_running_loop().create_future()
        self._put: Put | None = None
        self._taken_over: asyncio.Event | None = None
        self._changed = asyncio.Event()
        self._left_s: float | None = None

    def send(self, event: ServerEvent) -> None:
        """Keep an event, and give it to the socket, if there is one."""
        text = event.to_json()
        self.journal.append(event.event_id, text)
        if self._put is not None:
            self._put(text)

    def attach(self, put: Put) -> asyncio.Event:
        """A socket takes the session over; what is returned is set when another one does."""
        if self._taken_over is not None:
            self._taken_over.set()
        self._put, self._taken_over = put, asyncio.Event()
        self._changed.set()
        return self._taken_over

    def detach(self, taken_over: asyncio.Event) -> None:
        """A socket is gone; nothing happens where another one has the session by now."""
        if self._taken_over is taken_over:
            self._put = self._taken_over = None
            self._left_s = asyncio.get_running_loop().time()
            self._changed.set()

    def note_sent(self, taken_over: asyncio.Event) -> None:
        """A socket has sent the next event, which counts only while it has the session: what one
        that has lost it still gets rid of is another one's to send.
        """
        if self._taken_over is taken_over:
            self.journal.note_sent()

    @property
    def waits_since_s(self) -> float | None:
        """Since when, on the loop's clock, nobody is attached; None: somebody is, or it ends."""
        is_waiting = self._put is None and not self._goodbye.done()
        return self._left_s if is_waiting else None

    def take_outage_s(self) -> float:
        """How long nobody listened before the socket that is attached now."""
        left_s, self._left_s = self._left_s, None
        return 0.0 if left_s is None else asyncio.get_running_loop().time() - left_s

    def end(self, why: SessionEnded) -> None:
        """The client wants the session to end."""
        if not self._goodbye.done():
            self._goodbye.set_result(why)

    async def until_said_goodbye(self) -> None:
        """Wait for `end`, then raise its reason."""
        raise await self._goodbye

    async def until_given_up(self, grace_s: float) -> None:
        """Wait until nobody has been attached for `grace_s`, then raise SessionEnded."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(None if self._put is not None else grace_s):
                    await self._changed.wait()
            except TimeoutError:
                raise SessionEnded(NORMAL, "The client did not come back.") from None


class KeptSessions:
    """All sessions of a server that can be resumed.

    One whose client is away gives way where a newcomer would have to be refused.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._kept: dict[str, tuple[KeptSession, RealtimeSession]] = {}
        self._places: dict[str, Place] = {}
        sessions.places.make_room = self._make_room

    def new(self, owner: str) -> KeptSession:
        """For a session that is about to be opened, of a key's owner."""
        return KeptSession(Journal(self._sessions.settings.limits.max_outbox_bytes), owner)

    def start(self, kept: KeptSession, session: RealtimeSession, place: Place) -> None:
        """Run a session apart from its sockets; its place is freed at its end."""
        self._kept[kept.token] = (kept, session)
        self._places[kept.token] = place
        self._sessions.spawn(self._run(kept, session, place), f"kept {session.session.id}")

    def find(self, token: str, owner: str) -> tuple[KeptSession, RealtimeSession]:
        """The session of a token, for its owner.

        Raises:
            Refusal: 404, it is over, never was, or is somebody else's.
        """
        found = self._kept.get(token)
        if found is None or found[0].owner != owner:
            raise Refusal(404, "No session found for the token.", "resume_token_not_found")
        return found

    def _make_room(self, owner: str | None) -> None:
        """End the session that has waited longest for its client, of an owner or of anybody."""
        waiting = [
            (since_s, kept)
            for kept, _ in self._kept.values()
            if (since_s := kept.waits_since_s) is not None and owner in (None, kept.owner)
        ]
        if waiting:
            _, kept = min(waiting, key=lambda entry: entry[0])
            kept.end(SessionEnded(NORMAL, "Its place was needed."))
            self._places[kept.token].release()

    async def _run(self, kept: KeptSession, session: RealtimeSession, place: Place) -> None:
        grace_s = self._sessions.settings.websocket.resume_grace_s
        try:
            parts = {
                "grace": kept.until_given_up(grace_s),
                "goodbye": kept.until_said_goodbye(),
            }
            ended = await self._sessions.run(session, parts)
            kept.is_over.set_result(ended)
        finally:
            del self._kept[kept.token], self._places[kept.token]
            kept.is_over.cancel()
            place.release()


def is_dropped(ended: SessionEnded) -> bool:
    """Whether a socket's end was none that its client meant."""
    return ended.code == OVERLOADED or not ended.is_meant


def resumed_event(session: RealtimeSession, kept: KeptSession) -> str:
    """`session.created` for a socket that takes over."""
    return ev.SessionCreated(session=session.session.view(), x_resume_token=kept.token).to_json()
