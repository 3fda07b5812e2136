"""Makes replies: samples the text, drives the voice, and says what became known.

A token or a frame is made in three parts: what one reply needs for it alone, the device work of
several replies together, and what one reply does with the result. Which reply comes when, and with
whom, is `models.scheduler`'s choice; contexts and their caches belong to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.chat import ChatFormat
from models.content import (
    AudioEvent,
    EndEvent,
    EndStatus,
    EngineEvent,
    Pcm16,
    ReplyOptions,
    TextEvent,
    Usage,
)
from models.context import Context
from models.deadlines import Admission
from models.entries import ReplyEntry
from models.errors import ModelError, ResourceError, ToolCallError
from models.generation import GenerationSettings
from models.layout import Layout
from models.prefill import prefill, step_rows, step_text
from models.qwen3_omni.model import Qwen3Omni
from models.reply import Pace, Reply
from models.reply_parts import ReplyParts
from models.sampling import NEGATIVE_INFINITY
from models.screened_head import ScreenedHead
from models.speaking import Voice
from models.stepping.engine_steps import EngineSteps
from models.stepping.text_step import TextDraw, can_draw
from models.stops import StopSearch
from models.tool_calls import CallSplitter

NEAR_SILENCE = 1e-3


@dataclass(frozen=True, slots=True)
class OwnReply:
    """A reply and the context that it is made in."""

    context: Context
    reply: Reply


@dataclass(frozen=True, slots=True)
class Frame:
    """A codec frame of a voice and its samples."""

    codes: tuple[int, ...]
    samples: Pcm16


class ReplyMaker:
    """See the module's docstring. `emit` takes each event as it becomes known."""

    def __init__(
        self,
        *,
        model: Qwen3Omni,
        chat: ChatFormat,
        generation: GenerationSettings,
        clock: Callable[[], float],
        emit: Callable[[EngineEvent], None],
        admission: Admission,
        steps: EngineSteps | None = None,
    ) -> None:
        self._model = model
        self._chat = chat
        self._generation = generation
        self._clock = clock
        self._emit_now = emit
        self._admission = admission
        self._pace = Pace()
        self._screened_head = ScreenedHead.of(model.thinker.lm_head)
        self._text_step = None if steps is None else steps.text
        self.parts = ReplyParts(model, chat, generation, None if steps is None else steps.voices)

    # ------------------------------------------------------------------ begin and end
    def begin(
        self, context: Context, key: int, response: int, options: ReplyOptions, *, is_held: bool
    ) -> Reply:
        """Place an empty assistant turn behind all appends and start a reply in it.

        Raises:
            RequestError: an option is out of its range; nothing was changed.
        """
        layout = Layout(in_talker=False)
        entry = ReplyEntry(
            layout=layout,
            pieces=[layout.text(self._chat.assistant_header_ids())],
            response=response,
        )
        script_ids = None if options.script is None else self._chat.encode(options.script)
        reply = Reply(
            id=response,
            context=key,
            entry=entry,
            options=options,
            max_tokens=self.parts.most_tokens(options, script_ids),
            text_sampler=self.parts.text_sampler(options),
            detokenizer=self._chat.detokenizer(),
            pace=self._pace,
            wants_voice=options.audio and self._model.talker is not None,
            tools=CallSplitter(
                open_id=self._chat.tool_call_id,
                close_id=self._chat.tool_call_end_id,
                detokenizer=self._chat.detokenizer,
                offered=context.tool_names,
            ),
            stops=StopSearch(options.stop),
            script_ids=script_ids,
            started_s=self._clock(),
            held=[] if is_held else None,
        )
        reply.usage = Usage(cached_tokens=context.thinker_cache.length)
        context.append(entry)
        context.active_reply = entry
        return reply

    def end(
        self,
        context: Context,
        reply: Reply,
        status: EndStatus,
        error: ModelError | None = None,
    ) -> None:
        """Finish a reply in any state: its work is gone, its place in the log stays."""
        if not reply.is_active:
            return
        if not reply.is_text_done:
            reply.end_text(was_cut=False)
        if reply.voice is not None:
            reply.voice.close()
            reply.voice = None  # its vocoder's state is large
            if status == "completed":
                reply.spoken_text.grow(reply.text)
                self._pace.learn(len(reply.frame_ends), reply.spoken_text.effort)
        reply.status = status
        reply.entry.is_complete = True
        context.active_reply = None
        usage = replace(
            reply.usage,
            output_text_tokens=len(reply.text_ids),
            output_audio_tokens=len(reply.frame_ends),
        )
        self._emit(
            reply,
            EndEvent(
                response=reply.id,
                status=status,
                usage=usage,
                stages=reply.stages,
                error=None if error is None else str(error),
                refusal=None if error is None else error.refusal,
            ),
        )

    def fail(self, context: Context, reply: Reply, error: ModelError) -> None:
        """Finish a reply that can not be made."""
        self.end(context, reply, "failed", error)

    def cancel(self, context: Context, reply: Reply) -> None:
        """Stop a reply; what was held back of it is never told."""
        reply.held = None
        if reply.is_active:
            self.end(context, reply, "cancelled")
        else:
            self._emit(reply, EndEvent(response=reply.id, status="cancelled", usage=reply.usage))

    # ------------------------------------------------------------------ units of work
    def note(self, context: Context, reply: Reply) -> None:
        """After a unit of work: note which stage was reached, and end the reply that has no more to
        make.
        """
        if not reply.is_active:
            return
        if reply.stages.encoder_tail is None and context.is_placed(reply.entry):
            self._stamp(reply, "encoder_tail")
            self._count_input(context, reply)
        if reply.stages.prefill is None and context.num_to_prefill == 0:
            self._stamp(reply, "prefill")
        if reply.is_finished:
            self.end(context, reply, "incomplete" if reply.was_cut else "completed")

    def _count_input(self, context: Context, reply: Reply) -> None:
        cached = min(reply.usage.cached_tokens, context.thinker_cache.length)
        reply.stages.tokens_left = len(context.log) - cached
        reply.usage = replace(
            reply.usage,
            cached_tokens=cached,
            cached_audio_tokens=context.log.count(("audio",), stop=cached),
            cached_image_tokens=context.log.count(("image", "video"), stop=cached),
            input_text_tokens=context.log.count(("text",)),
            input_audio_tokens=context.log.count(("audio",)),
            input_image_tokens=context.log.count(("image", "video")),
        )

    def ready_token(self, context: Context, reply: Reply) -> None:
        """Make room for the next token's step.

        Raises:
            ResourceError: the context is full; nothing was changed.
        """
        if reply.script_ids is None:
            context.thinker_cache.reserve(context.num_to_prefill)

    def feed_tokens(self, replies: Sequence[OwnReply]) -> list[int | Tensor | None]:
        """Feed the last tokens, if any, of several replies.

        Returns:
            For each its next token, or the scores [vocab] to sample it from; None where it is not
            sampled.
        """
        fed = [own for own in replies if own.reply.script_ids is None]
        stepping = [own for own in fed if own.context.num_to_prefill == 1]
        made: dict[int, int | Tensor] = {}
        if stepping and self._text_step is not None:
            draws = [self._draw(own.reply) for own in stepping]
            rows = step_text(self._text_step, [own.context for own in stepping], draws)
            made = {own.reply.id: row for own, row in zip(stepping, rows, strict=True)}
        elif len(stepping) > 1:
            step_rows(self._model, [own.context for own in stepping])
        for context in (own.context for own in fed):
            if context.num_to_prefill:
                prefill(self._model, context, max_tokens=context.num_to_prefill)
        sampled = [own for own in replies if self._is_sampled(own.reply)]
        others = [own for own in sampled if own.reply.id not in made]
        made |= zip((own.reply.id for own in others), self._logits(others), strict=True)
        wanted = {own.reply.id for own in sampled}
        return [made[own.reply.id] if own.reply.id in wanted else None for own in replies]

    def take_token(self, context: Context, reply: Reply, made: int | Tensor | None) -> None:
        """Take the next token of what `feed_tokens` made; of a script, the next."""
        if reply.script_ids is not None:
            self._take_scripted(context, reply, reply.script_ids)
            return
        if made is None:
            for forced in self._chat.tool_opening_ids(reply.options.forced_tool):
                self._take_token(context, reply, forced)
            return
        token = made
        if isinstance(token, Tensor):
            token = int(reply.text_sampler(self._allowed(token, reply), reply.text_ids))
        if token not in self._generation.thinker.eos_ids:
            self._take_token(context, reply, token)
        else:
            reply.tools.close()
            if not self._take_back_call(context, reply):
                self._text_event(reply, reply.end_text(was_cut=False), ())
                self._call_events(reply)
        self._stamp(reply, "first_text")

    def _is_sampled(self, reply: Reply) -> bool:
        """Whether the next token is neither a script's nor the beginning of a call asked for."""
        is_forced = reply.options.tool_choice == "required" and not reply.text_ids
        return reply.script_ids is None and not is_forced

    def _take_scripted(self, context: Context, reply: Reply, script_ids: list[int]) -> None:
        """The voice reads nothing but the tokens, so the thinker need not hear them now: it will
        with whatever follows in the context.
        """
        if len(reply.text_ids) < len(script_ids):
            self._take_token(context, reply, script_ids[len(reply.text_ids)])
        else:
            self._text_event(reply, reply.end_text(was_cut=False), ())
        self._stamp(reply, "first_text")

    def _logits(self, replies: Sequence[OwnReply]) -> list[Tensor]:
        """[vocab] float32 each, of which at least those that the sampler can draw are there."""
        if not replies:
            return []
        hidden = [own.context.last_hidden for own in replies]
        rows = torch.stack([row for row in hidden if row is not None])  # [B, H]
        assert len(rows) == len(replies)
        best = [own.reply.text_sampler.num_best(own.reply.text_ids) for own in replies]
        known = [number for number in best if number is not None]
        if self._screened_head is None or len(known) < len(best):
            return list(self._model.thinker.logits(rows))
        # One more of each, as one of them may be forbidden.
        return self._screened_head.logits(rows, [number + 1 for number in known])

    def _draw(self, reply: Reply) -> TextDraw | None:
        """How a step is to draw the next token; None where the host has to."""
        sampler, count = reply.text_sampler, len(reply.text_ids)
        if not can_draw(sampler.settings, count):
            return None
        settings, seed = sampler.settings, sampler.seed
        return TextDraw(settings=settings, seed=seed, count=count, banned=self._banned(reply))

    def _allowed(self, logits: Tensor, reply: Reply) -> Tensor:
        """The logits without what is not allowed."""
        banned = self._banned(reply)
        if banned is None:
            return logits
        return logits.index_fill(0, torch.tensor([banned], device=logits.device), NEGATIVE_INFINITY)

    def _banned(self, reply: Reply) -> int | None:
        """The call of a tool, where that is not allowed."""
        is_free = reply.may_call and reply.options.tool_choice != "none"
        return None if is_free else self._chat.tool_call_id

    def _take_token(self, context: Context, reply: Reply, token: int) -> None:
        pieces = reply.entry.pieces
        pieces.append(reply.entry.layout.text([token]))
        try:
            context.place()
        except ResourceError:
            pieces.pop()  # the reply ends before this token
            raise
        delta = reply.add_token(token)
        if self._take_back_call(context, reply):
            return
        if reply.num_spoken_ids == 0 and reply.tools.is_settled:
            reply.wants_voice = False
        if reply.stops.is_hit:
            delta += reply.end_text(was_cut=False)
        elif len(reply.text_ids) >= reply.max_tokens:
            delta += reply.end_text(was_cut=True)
        self._text_event(reply, delta, (token,))
        self._call_events(reply)

    def _take_back_call(self, context: Context, reply: Reply) -> bool:
        """Where a tool was called that was not offered: undo it, so that the reply goes on in
        words.

        Raises:
            ToolCallError: it was to call a tool.
        """
        name = reply.tools.unoffered
        if name is None:
            return False
        if reply.options.tool_choice == "required":
            raise ToolCallError(f"the model called {name!r}, which is not among the tools")
        context.take_back(reply.take_back_call())
        return True

    def ready_frame(self, context: Context, reply: Reply) -> None:
        """Make the voice, if need be, and room for its next frame.

        Raises:
            ResourceError: the talker's context is full; nothing was changed.
        """
        if reply.voice is None:
            reply.voice = self.parts.voice(context, reply.options)
        reply.voice.reserve()

    def make_frames(self, replies: Sequence[OwnReply]) -> list[Frame | None]:
        """The next codec frame of each of several replies, and its samples; None where the talker
        is done. Voices that have not begun come with others that have not.
        """
        voices = [own.reply.voice for own in replies if own.reply.voice is not None]
        assert len(voices) == len(replies)
        made: dict[int, Frame | None] = {}
        for kind in dict.fromkeys(map(type, voices)):
            places = [place for place, voice in enumerate(voices) if type(voice) is kind]
            frames = self._frames(kind, [replies[place].reply for place in places])
            made |= zip(places, frames, strict=True)
        return [made[place] for place in range(len(replies))]

    def _frames(self, kind: type[Voice], replies: Sequence[Reply]) -> list[Frame | None]:
        """`make_frames` where all voices are of one kind."""
        voices = [reply.voice for reply in replies if reply.voice is not None]
        codes = kind.next_frames(voices, [reply.next_to_speak for reply in replies])
        going = [row for row, made in enumerate(codes) if made is not None]
        for row in going:
            self._stamp(replies[row], "first_codec")
        pcms = iter(kind.pcms([voices[row] for row in going]) if going else ())
        return [None if made is None else Frame(made, _to_int16(next(pcms))) for made in codes]

    def give_frame(self, context: Context, reply: Reply, frame: Frame | None) -> None:
        """Tell a frame that was made."""
        if frame is None:
            reply.is_voice_done = True
            return
        samples = frame.samples
        reply.frame_ends.append(reply.num_samples + len(samples))
        self._give(reply, len(samples))
        self._stamp(reply, "first_pcm")
        self._emit(
            reply,
            AudioEvent(
                response=reply.id,
                codes=frame.codes,
                pcm=samples,
                spoken_chars=reply.spoken_chars(reply.num_samples),
            ),
        )
        is_quiet = bool(np.abs(samples).max() < NEAR_SILENCE * 32767)
        reply.watch(frame.codes[0], is_quiet=is_quiet)
        if reply.is_over_budget:
            reply.is_voice_done = True

    def _give(self, reply: Reply, num_samples: int) -> None:
        """Hand a frame to the listener's clock; note whether it came in time."""
        now_s = self._clock()
        is_late = reply.playout.give(num_samples, now_s)
        if reply.held is None:
            reply.playout.start(now_s)
            self._admission.note(is_late=is_late)
        reply.stages.late_frames += is_late

    # ------------------------------------------------------------------ parts
    def _text_event(self, reply: Reply, text: str, ids: tuple[int, ...]) -> None:
        reply.untold_ids += ids
        is_told = reply.is_text_done or reply.tools.is_settled
        if text or (is_told and reply.untold_ids):
            told = tuple(reply.untold_ids) if is_told else ()
            reply.untold_ids = reply.untold_ids[len(told) :]
            self._emit(reply, TextEvent(response=reply.id, text=text, ids=told))

    def _call_events(self, reply: Reply) -> None:
        for piece in reply.tools.pieces():
            self._emit(reply, replace(piece, response=reply.id))

    def _stamp(self, reply: Reply, stage: str) -> None:
        """Note the time of a stage's first end."""
        if getattr(reply.stages, stage) is None:
            setattr(reply.stages, stage, 1000 * (self._clock() - reply.started_s))

    def _emit(self, reply: Reply, event: EngineEvent) -> None:
        if reply.held is None:
            self._emit_now(event)
        else:
            reply.held.append(event)


def _to_int16(pcm: Tensor) -> Pcm16:
    """To the host, which waits for the device here where the samples are there still."""
    return (pcm * 32767.0).round().to(torch.int16).cpu().numpy()
