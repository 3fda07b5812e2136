"""One session, wired: read this first.

    append_audio ─► UserTurns (resample, noise, VAD, turns) ─► ConversationLog ─► engine context
    append_frame ─► CameraSlot ─────────────────────────────┘   (history)           │ respond
    emit ◄── Replies (one being made, one being played) ◄───────────────────────────┘
                └─► Playout, or the owner plays by itself

This file decides what follows from what: speech interrupts, the end of a turn asks for a reply, a
dead engine is replaced. Bounds: sound is processed while `append_audio` is awaited, so a sender
that is too fast waits and nothing is queued; one camera frame; one reply made and at most one
waiting; speech and media as `speech` and `history` say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from pipeline import events
from pipeline.camera import CameraSlot
from pipeline.clock import Clock
from pipeline.engine_port import Engine
from pipeline.errors import EngineLostError
from pipeline.events import Emit
from pipeline.floor import Floor
from pipeline.history import to_messages
from pipeline.items import Item, TextContent
from pipeline.listening.judges import Judges
from pipeline.log import ConversationLog
from pipeline.messages import Pcm, ResponseOptions, Rgb
from pipeline.opening import Opening
from pipeline.playout import Playout
from pipeline.quiet import IdleWatch, SenderWatch
from pipeline.replies import Replies
from pipeline.reply import TurnEnd
from pipeline.session_config import SessionConfig
from pipeline.side_replies import SideReplies
from pipeline.speculation_count import SpeculationCount
from pipeline.transcripts import Transcripts
from pipeline.turns import EchoGuard
from pipeline.user_turns import UserTurns
from pipeline.vad import Vad

State = Literal["listening", "hearing", "thinking", "speaking"]

SLICES_PER_S = 10  # sound is taken in by tenths of a second, so that other sessions get their turn


class Conversation:
    """One conversation with an engine. All methods are called on one event loop.

    `emit` is called on it, too.

    Args:
        engine: where contexts are opened; may restart, the conversation then rebuilds its context
            by itself.
        emit: receives every session event at once, in order; must not block or raise, nor call
            back.
        vad: speech probability of 16 kHz windows, this session's own instance.
        playout: a paced output that this conversation writes to, cuts and asks what was heard
            (WebRTC); its callbacks become this conversation's. None where the owner plays by itself
            (WebSocket): then what was heard after an interruption is estimated from the wall clock
            until the owner calls `truncate_item`.
        echo_guard: see `pipeline.turns`.
        judges: of turns and interruptions; None: those that come with the package.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        config: SessionConfig,
        emit: Emit,
        vad: Vad,
        clock: Clock,
        playout: Playout | None = None,
        echo_guard: EchoGuard | None = None,
        judges: Judges | None = None,
    ) -> None:
        self._config = config
        self._emit = emit
        self._clock = clock
        self.camera = CameraSlot(clock)
        speculations = SpeculationCount(emit=emit, spawn=self._spawn)
        self._log = ConversationLog(
            engine,
            config=config,
            on_lost=self._reopen,
            on_retracted=speculations.retracted,
            on_kept=speculations.kept,
        )
        self._replies = Replies(
            self._log,
            emit=emit,
            clock=clock,
            playout=playout,
            spawn=self._spawn,
            on_settled=lambda: self._floor.reply_settled(),
            on_change=self._note_state,
        )
        self._floor = Floor(
            self._log,
            self._replies,
            playout,
            config=lambda: self._config,
            start=self._answer,
            emit=emit,
        )
        self._aside = SideReplies(engine, emit=emit, spawn=self._spawn)
        self._transcripts = Transcripts(engine, emit=emit, spawn=self._spawn)
        self._turns = UserTurns(
            self._log,
            config=config,
            vad=vad,
            clock=clock,
            camera=self.camera,
            emit=self._emit_turn,
            listener=self._floor,
            echo_guard=echo_guard,
            judges=judges,
        )
        self._state: State = "listening"
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = Opening(
            self._log,
            clock=clock,
            spawn=self._spawn,
            on_open=self._replies.launch,
            on_failed=self._engine_lost,
        )
        self._sender = SenderWatch(clock)
        self._idle = IdleWatch(clock)
        self._closing = asyncio.Event()
        self._closed = asyncio.Event()

    # ------------------------------------------------------------------ life
    async def run(self) -> None:
        """Live until cancelled or `aclose`d.

        Owns the session's TaskGroup; leaves no task, context or thread behind.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._reopen()
                self._spawn(
                    self._sender.run(lambda: self._act_unasked(self._turns.end_turn)),
                    "watch sender",
                )
                self._spawn(
                    self._idle.run(lambda: self._act_unasked(self._turns.time_out)), "watch user"
                )
                try:
                    await self._closing.wait()
                finally:  # no task is started and no sound is taken in from here on
                    self._closing.set()
                for task in self._tasks:
                    task.cancel()
        finally:
            self._group = None
            self._end()

    async def aclose(self) -> None:
        """End `run` in order: stop input, cancel the reply, free the context. Idempotent."""
        self._closing.set()
        if self._group is not None:
            await self._closed.wait()
        else:
            self._end()

    def _end(self) -> None:
        self._replies.close()
        self._aside.close()
        self._log.close()
        self._closed.set()

    @property
    def config(self) -> SessionConfig:
        """The configuration in force."""
        return self._config

    @property
    def has_spoken(self) -> bool:
        """Whether the session has produced any reply audio (its voice is then fixed)."""
        return self._replies.has_spoken

    @property
    def has_open_input(self) -> bool:
        """Whether there is sound that waits to become an item."""
        return self._log.speech is not None

    @property
    def is_replying(self) -> bool:
        """Whether a reply of the conversation is being made."""
        return self._replies.active is not None

    @property
    def input_ms(self) -> int:
        """The input clock: milliseconds of audio appended since the session began."""
        return self._turns.input_ms

    def configure(self, config: SessionConfig) -> None:
        """Take a new configuration; turn detection at once, the rest from the next response on."""
        self._config = config
        self._log.configure(config)
        self._turns.configure(config)
        self._note_state()

    # ------------------------------------------------------------------ input
    async def append_audio(self, pcm: Pcm, *, rate_hz: int) -> None:
        """Microphone samples, mono float32, in order, at any speed. Waits while they are taken in.

        Cancelling loses the samples of this call that were not taken in yet. After the end of the
        session nothing happens.

        Raises:
            BadInputError: a rate that is not supported.
        """
        async with self._sender.lock:
            self._turns.count(len(pcm), rate_hz)
            slice_samples = max(1, rate_hz // SLICES_PER_S)
            for start in range(0, len(pcm), slice_samples):
                if self._closing.is_set():
                    return
                self._sender.note_sound()
                self._turns.hear(pcm[start : start + slice_samples], rate_hz)
                self._note_state()
                # others get their turn; so does what an interruption has to tell the engine
                await asyncio.sleep(0)
                if not self._turns.is_doubting:
                    self._log.release_speech()

    def append_frame(self, rgb: Rgb) -> None:
        """A camera frame captured now.

        The newest wins, frames are taken at the engine's rate while speech lasts.
        """
        self.camera.put(rgb)

    def stop_camera(self) -> None:
        """No frames will come any more; the newest frame is forgotten."""
        self.camera.newest = None

    def commit(self) -> None:
        """End the turn by hand: the input buffer becomes a user item.

        Raises BadInputError under 100 ms of audio.
        """
        self._floor.manual_turn = self._turns.commit()
        self._note_state()

    def clear_input(self) -> None:
        """Drop the input buffer (emits Cleared)."""
        self._turns.clear()
        self._note_state()

    # ------------------------------------------------------------------ conversation
    def create_item(self, item: Item, *, previous_item_id: str | None = None) -> None:
        """Insert an item (emits ItemAdded, ItemDone).

        `previous_item_id`: None appends, "root" puts first.

        Raises:
            BadInputError: an unknown predecessor, a duplicate id (item_create_duplicate_item_id),
                an answer to a call that nobody made, or no room (conversation_full).
        """
        if item.output is not None:
            self._log.history.check_call(item.output.call_id)
        is_typed = item.role == "user" and all(isinstance(c, TextContent) for c in item.content)
        still = self.camera.newest if is_typed else None
        previous_id = self._log.insert(item, after_id=previous_item_id, still=still)
        self._floor.manual_turn = None
        self._emit(events.ItemAdded(item=item, previous_item_id=previous_id))
        self._emit(events.ItemDone(item=item, previous_item_id=previous_id))

    def get_item(self, item_id: str) -> Item | None:
        """The item, or None."""
        return self._log.history.get(item_id)

    def delete_item(self, item_id: str) -> None:
        """Take an item out (emits ItemDeleted).

        Raises BadInputError, code item_delete_invalid_item_id.
        """
        self._replies.forget(item_id)
        self._log.delete(item_id)
        self._emit(events.ItemDeleted(item_id=item_id))
        self._note_state()

    def truncate_item(self, item_id: str, *, audio_end_ms: int) -> None:
        """Cut a reply to what was heard (emits ItemTruncated); one that is still being made stops.

        Raises:
            BadInputError: unknown id (item_truncate_invalid_item_id), not a voice reply
                (unsupported_content_type), or beyond its end (invalid_value; the item then counts
                as heard to its end).
        """
        self._replies.truncate(item_id, audio_end_ms)
        self._note_state()

    # ------------------------------------------------------------------ replies
    def respond(
        self,
        options: ResponseOptions | None = None,
        *,
        config: SessionConfig | None = None,
        items: Sequence[Item] | None = None,
    ) -> str:
        """Start a reply by hand; returns its id. None: as the session is configured.

        `config`, `items`: instructions, voice and tools for this reply alone, and what it answers
        instead of the conversation, of which it becomes a part all the same. Raises BadInputError,
        code conversation_already_has_active_response.
        """
        messages = None if items is None else to_messages(items)
        reply = self._replies.start(options, self._floor.manual_turn, config, messages)
        self._floor.manual_turn = None
        self._note_state()
        return reply.id

    def respond_aside(
        self,
        options: ResponseOptions,
        *,
        config: SessionConfig,
        items: Sequence[Item] | None = None,
    ) -> str:
        """Start a reply to `items` (None: the conversation as it is now) that the conversation will
        not know of; returns its id. Raises BadInputError: too many are being made already.
        """
        return self._aside.start(options, config, self._log.history if items is None else items)

    def note_outage(self, seconds: float) -> None:
        """The listener was cut off for so long until now, and heard nothing meanwhile."""
        self._replies.note_outage(seconds)

    def cancel_response(self, response_id: str | None = None) -> None:
        """Stop the active reply, or one beside the conversation.

        Raises BadInputError, code response_cancel_not_active."""
        if self._aside.cancel(response_id):
            return
        self._floor.forget_waiting()
        self._replies.cancel(response_id)
        self._note_state()

    def clear_output(self) -> None:
        """Cut the paced output and truncate the reply to what was heard; else nothing happens."""
        self._replies.clear_output()
        self._note_state()

    def _answer(self, turn_end: TurnEnd) -> None:
        if not self._closing.is_set():
            self._replies.start(None, turn_end)
            self._note_state()

    def _emit_turn(self, event: events.SessionEvent) -> None:
        self._emit(event)
        if isinstance(event, events.ItemDone) and self._config.transcription is not None:
            self._transcripts.start(event.item, self._config.transcription)

    # ------------------------------------------------------------------ tasks
    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task of this session; none is started once it ends."""
        if self._group is None or self._closing.is_set():
            coroutine.close()
            return
        task = self._group.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reopen(self) -> None:
        """Find a living context, unless nobody shall reply."""
        is_running = self._group is not None and not self._closing.is_set()
        if is_running and not self._config.is_transcription:
            self._opening.start()

    def _engine_lost(self, error: EngineLostError) -> None:
        self._emit(events.Failed(message=str(error), code="engine_lost"))
        self._replies.fail_waiting(str(error))
        self._note_state()

    def _act_unasked(self, act: Callable[[], None]) -> None:
        act()
        self._note_state()

    # ------------------------------------------------------------------ state
    def _note_state(self) -> None:
        """Tell what the session does now, where that has changed."""
        self._sender.note_hearing(self._turns.is_hearing or self._turns.is_doubting)
        state = self._present_state()
        if state != self._state and not self._closing.is_set():
            is_user_next = state == "listening" and self._state != "hearing"
            unheard_s = self._replies.unheard_s if is_user_next else None
            self._idle.note(self._config.turn_detection, unheard_s=unheard_s)
            self._state = state
            self._emit(events.StateChanged(state=state))

    def _present_state(self) -> State:
        return "hearing" if self._turns.is_hearing else self._replies.state
