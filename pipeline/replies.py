"""The replies of one conversation: at most one is being made; what was made may still be played.

Turns an engine's answers into session events, each reply ending exactly once whatever happens, and
keeps items and the engine's log at what was heard. Where a paced output (`Playout`) plays, it tells
what that is; elsewhere the wall clock estimates it until the owner says better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pipeline import events
from pipeline.clock import Clock
from pipeline.engine_port import Response
from pipeline.errors import BadInputError, PipelineError
from pipeline.heard import Heard, Spawn
from pipeline.history import new_id
from pipeline.log import ConversationLog
from pipeline.messages import (
    AudioDelta,
    Message,
    Pcm16,
    Refusal,
    ResponseEnded,
    ResponseOptions,
    ResponseStatus,
    Stages,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from pipeline.playout import Playout
from pipeline.reply import SAMPLES_PER_MS, Reply, TurnEnd
from pipeline.reply_output import ReplyOutput
from pipeline.session_config import SessionConfig


class Replies:
    """See the module's docstring.

    Args:
        spawn: starts a named task of the session.
        on_settled: called when a reply is over and the next one may begin.
        on_change: called after anything happened that nobody asked for just then.
    """

    def __init__(
        self,
        log: ConversationLog,
        *,
        emit: events.Emit,
        clock: Clock,
        playout: Playout | None,
        spawn: Spawn,
        on_settled: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self.active: Reply | None = None
        self.has_spoken = False
        self._log = log
        self._emit = emit
        self._clock = clock
        self._playout = playout
        self._spawn = spawn
        self._on_settled = on_settled
        self._on_change = on_change
        self._output = ReplyOutput(log, emit=emit)
        self._heard = Heard(log, emit=emit, spawn=spawn)
        self._by_item: dict[str, Reply] = {}
        self._unplayed: dict[str, Reply] = {}  # of a paced output: by response id, in order
        self._newest_voice: Reply | None = None
        if playout is not None:
            playout.on_started = self._output_started
            playout.on_stopped = self._output_stopped

    # ------------------------------------------------------------------ what goes on
    @property
    def is_audible(self) -> bool:
        """Whether a listener hears a reply now."""
        if self._playout is not None:
            return self._playout.is_playing
        voice = self._newest_voice
        return voice is not None and voice.estimate_played(self._clock.now_s()) < voice.num_samples

    @property
    def unheard_s(self) -> float:
        """How long the newest reply will still be heard where the owner plays by itself."""
        voice = self._newest_voice if self._playout is None else None
        if voice is None:
            return 0.0
        num_left = voice.num_samples - voice.estimate_played(self._clock.now_s())
        return num_left / SAMPLES_PER_MS / 1000

    @property
    def state(self) -> Literal["speaking", "thinking", "listening"]:
        """What a listener would say that goes on."""
        if self.is_speaking:
            return "speaking"
        return "listening" if self.active is None else "thinking"

    @property
    def is_speaking(self) -> bool:
        """Whether output has begun and not ended (of a paced output: until it is played or cut)."""
        if self._unplayed:
            return True
        if self.active is None or self.active.item is None:
            return False
        return self._playout is None or not self.active.options.audio

    def note_outage(self, seconds: float) -> None:
        """Where the owner plays by itself: the newest voice was not heard for so long until now."""
        voice = self._newest_voice
        if voice is not None and voice.first_audio_s is not None and self._playout is None:
            now_s = self._clock.now_s()
            if voice.estimate_played(now_s - seconds) < voice.num_samples:
                voice.first_audio_s = min(now_s, voice.first_audio_s + seconds)

    # ------------------------------------------------------------------ one reply's life
    def start(
        self,
        options: ResponseOptions | None,
        turn_end: TurnEnd | None,
        config: SessionConfig | None = None,
        messages: tuple[Message, ...] | None = None,
    ) -> Reply:
        """Begin a reply; without a living engine it waits for `launch`.

        `options` None: as the session is configured; `config`: instructions, voice and tools for
        this reply alone; `messages`: what it answers instead of the conversation.

        Raises:
            BadInputError: one is being made already.
        """
        if self.active is not None:
            raise BadInputError(
                f"Conversation already has an active response in progress: {self.active.id}. "
                "Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        used = config or self._log.config
        options = options or self._log.config.response_options()
        self.active = Reply(
            id=new_id("resp"),
            options=options,
            turn_end=turn_end,
            config=config,
            speed=used.speed,
            messages=messages,
            underruns_before=self._playout.num_underruns if self._playout else 0,
        )
        self._emit(events.ResponseStarted(response_id=self.active.id, has_audio=options.audio))
        reply = self.active
        self.launch()
        return reply

    def launch(self) -> None:
        """Hand a reply that waits to the engine, if there is one of each."""
        reply = self.active
        if reply is None or reply.response is not None:
            return
        response = self._log.respond(reply.options, reply.config, reply.messages)
        if response is None:
            return
        reply.anchor_id = self._log.history.tail_id
        reply.response = response
        if reply.messages is None:
            reply.generation = self._log.generation
        self._spawn(self._follow(reply, response), f"reply {reply.id}")

    def fail_waiting(self, error: str) -> None:
        """There will be no engine: end a reply that waits for one."""
        if self.active is not None and self.active.response is None:
            self._settle(self.active, "failed", error=error)

    async def _follow(self, reply: Reply, response: Response) -> None:
        """Take in what the engine says until it has no more to say.

        A settled reply is listened to for its timings.
        """
        ended: ResponseEnded | None = None
        try:
            async for event in response:
                if isinstance(event, ResponseEnded):
                    ended = event
                elif not reply.is_settled:
                    await self._take(reply, event)
        except PipelineError as error:
            self._settle(reply, "failed", error=str(error))
        if ended is None:
            self._settle(reply, "failed", error="the engine ended the reply without a word")
        else:
            reply.is_complete = ended.status in ("completed", "incomplete")
            if not reply.is_settled:
                self._say(reply, self._output.end_speech(reply))
            self._settle(
                reply, ended.status, usage=ended.usage, error=ended.error, refusal=ended.refusal
            )
        num_underruns = self._playout.num_underruns if self._playout else 0
        stages = Stages() if ended is None else ended.stages
        self._emit(reply.metrics(stages, num_underruns=num_underruns))
        self._on_change()

    async def _take(self, reply: Reply, event: TextDelta | AudioDelta | ToolCallDelta) -> None:
        self._say(reply, self._output.take(reply, event))
        if self._playout is not None:
            await self._playout.wait_for_room()

    def _say(self, reply: Reply, pcm: Pcm16) -> None:
        if reply.item is not None:
            self._by_item[reply.item.id] = reply
        if len(pcm):
            self._note_audio(reply)
            if self._playout is not None:
                self._playout.write(reply.id, pcm)
        self._on_change()

    def _note_audio(self, reply: Reply) -> None:
        self.has_spoken = True
        if reply.first_audio_s is None:
            reply.first_audio_s = self._clock.now_s()
            self._newest_voice = reply
            if self._playout is not None:
                self._unplayed[reply.id] = reply

    def _settle(
        self,
        reply: Reply,
        status: ResponseStatus,
        *,
        reason: events.CancelReason | None = None,
        usage: Usage | None = None,
        error: str | None = None,
        refusal: Refusal | None = None,
        num_heard: int | None = None,
    ) -> None:
        """End a reply, the first time that this is called for it.

        `num_heard`: of a reply that was cut short.
        """
        if reply.is_settled:
            return
        reply.is_settled = True
        if self.active is reply:
            self.active = None
        if self._playout is not None:
            self._playout.finish(reply.id)
        self._output.close_items(reply, status)
        previous_id = self._finish_item(reply, status, num_heard)
        self._output.finished(
            reply,
            status,
            previous_item_id=previous_id,
            reason=reason,
            usage=usage,
            error=error,
            refusal=refusal,
        )
        self._log.reply_settled(usage if reply.messages is None else None)
        self._on_settled()

    def _finish_item(
        self, reply: Reply, status: ResponseStatus, num_heard: int | None
    ) -> str | None:
        """Give the item its final form, announce it; returns its predecessor's id."""
        item = reply.item
        if status in ("cancelled", "failed"):
            self._heard.remember(reply, reply.num_samples if num_heard is None else num_heard)
        if item is None:
            return None
        previous_id = self._log.history.previous_id(item.id)
        self._emit(events.ItemDone(item=item, previous_item_id=previous_id))
        return previous_id

    # ------------------------------------------------------------------ stopping
    def cancel(self, response_id: str | None = None) -> None:
        """Stop the reply that is being made; what a paced output has of it plays on.

        Raises:
            BadInputError: there is none, or another one.
        """
        if self.active is None or response_id not in (None, self.active.id):
            raise BadInputError(
                "Cancellation failed: no active response found",
                code="response_cancel_not_active",
                param="response_id" if response_id else None,
            )
        num_heard = None if self._playout else self.active.estimate_played(self._clock.now_s())
        self._stop(self.active, "client_cancelled", num_heard)
        self._newest_voice = None

    def interrupt(self) -> bool:
        """The user speaks: stop making, stop playing, remember what was heard.

        Returns whether anything changed.
        """
        voice = self._newest_voice if self._playout is None and self.is_audible else None
        was_busy = self.active is not None or bool(self._unplayed) or voice is not None
        num_heard = self._num_heard(voice) if voice is not None else 0
        self._cut("turn_detected")
        if voice is not None:
            # the owner plays by itself: it will stop now, and may tell later where
            self._heard.remember(voice, num_heard)
        return was_busy

    def clear_output(self) -> None:
        """Stop playing (see `Conversation.clear_output`).

        A reply that is still being made stops with it.
        """
        if self._unplayed:
            self._cut("client_cancelled", is_output_only=True)

    def close(self) -> None:
        """End the active reply: the session is over."""
        if self.active is not None:
            self._stop(self.active, "client_cancelled", self._num_heard(self.active))

    def _cut(self, reason: events.CancelReason, *, is_output_only: bool = False) -> None:
        """Silence first, then the events in the order of the protocol."""
        unplayed, self._unplayed = list(self._unplayed.values()), {}
        self._newest_voice = None
        cleared = self._playout.clear() if self._playout is not None else None
        for reply in unplayed:
            reply.max_heard_samples = self._num_heard(reply)
        active = self.active
        if active is not None and not (is_output_only and active not in unplayed):
            self._stop(active, reason, self._num_heard(active))
        if cleared is not None:
            self._emit(events.OutputCleared(response_id=cleared[0]))
        for reply in unplayed:
            self._heard.truncate(reply, self._num_heard(reply))

    def _stop(self, reply: Reply, reason: events.CancelReason, num_heard: int | None) -> None:
        if reply.response is not None:
            reply.response.cancel()
        self._settle(reply, "cancelled", reason=reason, num_heard=num_heard)

    # ------------------------------------------------------------------ what was heard
    def truncate(self, item_id: str, audio_end_ms: int) -> None:
        """Cut a voice reply to what the owner says was heard (see `Conversation.truncate_item`)."""
        if audio_end_ms < 0:
            raise BadInputError("audio_end_ms must not be negative", param="audio_end_ms")
        reply = self._voice_reply(item_id)
        total_ms = reply.num_samples // SAMPLES_PER_MS
        num_heard = min(audio_end_ms * SAMPLES_PER_MS, reply.num_samples)
        if reply.id in self._unplayed:
            self._cut("client_cancelled", is_output_only=True)  # the paced output knows better
            return
        if reply is self.active:
            self._stop(reply, "client_cancelled", num_heard)
        if audio_end_ms > total_ms and reply.num_samples:
            self._heard.remember(reply, reply.num_samples)
            raise BadInputError(
                f"Audio content of {total_ms}ms is already shorter than {audio_end_ms}ms",
                param="audio_end_ms",
            )
        self._heard.truncate(reply, num_heard, audio_end_ms=audio_end_ms)

    def forget(self, item_id: str) -> None:
        """The item is about to leave the conversation; a reply that is still being made stops."""
        reply = self._by_item.pop(item_id, None)
        if reply is not None and reply is self.active:
            self._stop(reply, "client_cancelled", self._num_heard(reply))

    def _voice_reply(self, item_id: str) -> Reply:
        if self._log.history.get(item_id) is None:
            raise BadInputError(
                f"Error truncating item: the item with the id '{item_id}' does not exist.",
                code="item_truncate_invalid_item_id",
                param="item_id",
            )
        reply = self._by_item.get(item_id)
        if reply is None or reply.voice is None:
            raise BadInputError(
                "Only model output audio messages can be truncated",
                code="unsupported_content_type",
                param="item_id",
            )
        return reply

    def _num_heard(self, reply: Reply) -> int:
        if self._playout is not None:
            return self._playout.played_samples(reply.id)
        return reply.estimate_played(self._clock.now_s())

    # ------------------------------------------------------------------ the paced output
    def _output_started(self, response_id: str) -> None:
        self._emit(events.OutputStarted(response_id=response_id))
        self._on_change()

    def _output_stopped(self, response_id: str) -> None:
        self._unplayed.pop(response_id, None)
        self._emit(events.OutputStopped(response_id=response_id))
        self._on_change()
