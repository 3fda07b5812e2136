"""The engine: the only class of `models` that others use.

Holds many contexts (token logs with their caches) and makes replies, one small unit of work at a
time, so that the owner's thread can take in calls between two units. Calls return at once; device
work happens in `step`: `models.scheduler` chooses what is next, `models.work` does it. Knows no
asyncio, no sockets and no sessions' transport. Not thread safe: one thread owns it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import scheduler
from models.cache import KvCache, SequenceCache
from models.cache_budget import CacheBudget
from models.chat import ChatFormat
from models.config import OmniConfig, read_config
from models.content import (
    Audio,
    EngineEvent,
    Message,
    Pcm,
    ReplyOptions,
    Rgb,
)
from models.context import Context
from models.deadlines import Admission
from models.encoding import MessageEncoder, checked_pcm, checked_rgb
from models.engine_options import DEFAULT_OPTIONS
from models.engine_options import EngineOptions as EngineOptions
from models.entries import SpeechEntry, message_entry, system_entry
from models.errors import OverloadedError, RequestError
from models.generation import GenerationSettings, read_generation
from models.joining import MAX_FIRST_TOGETHER
from models.layout import Layout
from models.loading import load_placed
from models.placement import DEFAULT_PLACEMENT
from models.placement import Placement as Placement
from models.qwen3_omni.mel import SAMPLE_RATE_HZ
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import Talker
from models.qwen3_omni.thinker import Thinker
from models.reply import Reply
from models.replying import ReplyMaker
from models.stepping.engine_steps import EngineSteps, prepared
from models.tool_calls import offered_names
from models.voices import voice_id, voice_names
from models.word_reading import reader_of
from models.work import Work

Clock = Callable[[], float]
Tools = Sequence[Mapping[str, Any]]
MIN_READ_SAMPLES = 800  # 50 ms
WARM_UP_TOKENS = 4
WARM_UP_UNITS = 24
WARM_UP_PIXELS = 224


class Engine:
    """See the module's docstring. Calls raise `RequestError` for values that can not be served."""

    def __init__(
        self,
        *,
        model: Qwen3Omni,
        config: OmniConfig,
        chat: ChatFormat,
        generation: GenerationSettings,
        folder: Path,
        options: EngineOptions = DEFAULT_OPTIONS,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._model = model
        self._config = config
        self._options = options
        self._device = model.thinker.device
        self._dtype = model.thinker.lm_head.weight.dtype
        self._encoder = MessageEncoder.load(model, config, chat, folder, options.windows)
        self._chat = chat
        self._clock = clock
        self._budget = CacheBudget(_cache_devices(model), options.max_cache_bytes)
        self._admission = Admission()
        self._contexts: dict[int, Context] = {}
        build = partial(
            EngineSteps,
            model,
            max_bytes=self._budget.max_bytes,
            max_tokens=self.max_context_tokens,
            max_frames=generation.talker.max_new_tokens,
            max_batch=options.batch_on(self._device),
            max_first=MAX_FIRST_TOGETHER,
        )
        self._steps = prepared(build, self._device, by_steps=options.by_steps)
        if self._steps is not None:
            self._steps.when_short(partial(self._budget.free_pages, self._contexts))
        self._maker = ReplyMaker(
            model=model,
            chat=chat,
            generation=generation,
            clock=clock,
            emit=self._emit,
            admission=self._admission,
            steps=self._steps,
        )
        self._replies: dict[int, Reply] = {}
        self._outbox: list[EngineEvent] = []
        table = model.thinker.model.embed_tokens.weight
        self._reader = reader_of(folder, table, blank=config.thinker.audio_id)
        self._work = Work(
            model=model,
            encoder=self._encoder,
            reader=self._reader,
            maker=self._maker,
            budget=self._budget,
            contexts=self._contexts,
            replies=self._replies,
            clock=clock,
            emit=self._emit,
            prefill_tokens=options.prefill_tokens,
            max_batch=options.batch_on(self._device),
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        placement: Placement = DEFAULT_PLACEMENT,
        options: EngineOptions = DEFAULT_OPTIONS,
    ) -> Engine:
        """Load a checkpoint folder.

        Raises:
            CheckpointError, ResourceError: it can not be loaded; the message says why on one line.
        """
        config = read_config(folder)
        chat = ChatFormat.load(folder, config)
        model = load_placed(folder, config, placement)
        generation = read_generation(folder, config)
        return cls(
            model=model,
            config=config,
            chat=chat,
            generation=generation,
            folder=folder,
            options=options,
        )

    # ------------------------------------------------------------------ what it is
    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the voices, the default first; () where the checkpoint has no speech."""
        return voice_names(self._config)

    @property
    def device(self) -> str:
        """Where the thinker lies, as torch names it."""
        return str(self._device)

    @property
    def dtype(self) -> str:
        """What weights and caches are, as torch names it: bfloat16, float32."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def is_babbling(self) -> bool:
        """Whether the checkpoint is a random one (made by `omnid checkpoint tiny`)."""
        return self._config.is_babbling

    @property
    def reads_words(self) -> bool:
        """Whether `overhear` may be called: the checkpoint's audio encoder writes words."""
        return self._reader is not None

    @property
    def max_context_tokens(self) -> int:
        """Tokens of one conversation: the checkpoint's limit, or a lower one that was set."""
        limit = self._config.thinker.decoder.max_positions
        wanted = self._options.max_context_tokens
        return limit if wanted is None else min(limit, wanted)

    @property
    def works_by_steps(self) -> bool:
        """Whether tokens and frames are made by `models.stepping`."""
        return self._steps is not None

    def warm_up(self) -> None:
        """Make a few words of a reply to nothing, and forget them: what a device or a library makes
        at its first use is not to be waited for by somebody who speaks.
        """
        assert not self._contexts, "warm up before anybody comes"
        pcm = np.zeros(SAMPLE_RATE_HZ, np.float32)
        picture = np.zeros((WARM_UP_PIXELS, WARM_UP_PIXELS, 3), np.uint8)
        parts = (Audio(pcm=pcm, frames=((0.0, picture),)),)
        self.open(0, instructions="", voice=None)
        self.append_message(0, Message(role="user", parts=parts))
        self.respond(0, 0, ReplyOptions(max_tokens=WARM_UP_TOKENS))
        for _ in range(WARM_UP_UNITS):
            if self.has_work:
                self.step()
        self.close(0)
        self._outbox.clear()
        self._work.forget_paces()

    # ------------------------------------------------------------------ contexts
    def open(
        self, context: int, *, instructions: str, voice: str | None, tools: Tools = ()
    ) -> None:
        """Start a token log; `tools` are shown to the model as its template has them. Raises
        `OverloadedError` where those who speak are served late already.
        """
        if context in self._contexts:
            raise RequestError(f"context {context} exists")
        refusal = self._admission.refusal(scheduler.num_speaking(self._replies.values()))
        if refusal is not None:
            raise OverloadedError(refusal)
        thinker_cache, talker_cache = self._caches()
        opened = Context(
            chat=self._chat,
            voice=voice_id(self._config, voice),
            thinker_cache=thinker_cache,
            talker_cache=talker_cache,
            max_tokens=self.max_context_tokens,
        )
        opened.replace_system(system_entry(self._chat, instructions, tools))
        opened.tool_names = offered_names(tools)
        self._contexts[context] = opened
        self._budget.use(context, opened)

    def configure(
        self, context: int, *, instructions: str, voice: str | None, tools: Tools = ()
    ) -> None:
        """Replace what precedes the log; it is placed and prefilled again in the background."""
        found = self._context(context)
        found.voice = voice_id(self._config, voice)
        found.replace_system(system_entry(self._chat, instructions, tools))
        found.tool_names = offered_names(tools)

    def close(self, context: int) -> None:
        """Free a context and its replies. Idempotent."""
        found = self._contexts.pop(context, None)
        if found is None:
            return
        for reply in self._replies_of(context):
            self._maker.end(found, reply, "cancelled")
            del self._replies[reply.id]
        found.rest()

    # ------------------------------------------------------------------ appends
    def append_message(self, context: int, message: Message) -> None:
        """Append a whole message."""
        self._context(context).append(message_entry(message))

    def begin_speech(self, context: int, *, has_camera: bool) -> None:
        """Open a spoken user message."""
        self._context(context).append(
            SpeechEntry(layout=Layout(in_talker=True), has_camera=has_camera)
        )

    def append_audio(self, context: int, pcm: Pcm) -> None:
        """More samples of the open speech."""
        self._speech(context).append(checked_pcm(pcm))

    def append_frame(self, context: int, rgb: Rgb, *, time_s: float) -> None:
        """A camera frame of the open speech; ignored where it was opened without a camera."""
        speech = self._speech(context)
        if not math.isfinite(time_s):
            raise RequestError(f"a frame's time must be a number of seconds, not {time_s}")
        if speech.has_camera:
            speech.frames.append((max(0.0, time_s), checked_rgb(rgb)))

    def end_speech(self, context: int) -> None:
        """Close the open speech."""
        self._speech(context).is_closed = True

    def overhear(self, context: int, query: int, pcm: Pcm) -> None:
        """Ask for the words of a clip, which becomes no part of the log: a `ReadingEvent` follows,
        unless another question comes first.
        """
        if self._reader is None:
            raise RequestError("this checkpoint's audio encoder writes no words")
        if len(checked_pcm(pcm)) < MIN_READ_SAMPLES:
            raise RequestError(f"there are no words in {len(pcm)} samples")
        self._context(context).question = query, pcm

    def set_mark(self, context: int, mark: int) -> None:
        """Name the present end of the log of appends."""
        self._context(context).set_mark(mark)

    def rollback(self, context: int, mark: int) -> None:
        """Cut the log back to a mark."""
        self._context(context).rollback(mark, window_frames=self._encoder.window_frames)

    def rebuild(self, context: int, messages: tuple[Message, ...]) -> None:
        """Replace the log, what precedes it apart, by these messages."""
        entries = [message_entry(message) for message in messages]
        found = self._context(context)
        for reply in self._replies_of(context):
            self._maker.end(found, reply, "cancelled")
        found.clear()
        for entry in entries:
            found.append(entry)

    # ------------------------------------------------------------------ replies
    def respond(
        self, context: int, response: int, options: ReplyOptions, *, speculative: bool = False
    ) -> None:
        """Start a reply to what has been appended; its events come out of `step`."""
        found = self._context(context)
        if response in self._replies:
            raise RequestError(f"response {response} exists")
        if found.active_reply is not None:
            raise RequestError("a reply is already being made in this context")
        if found.open_speech is not None:
            raise RequestError("speech is still open: end it before a reply")
        if options.max_tokens is not None and options.max_tokens < 1:
            raise RequestError(f"max_tokens must be at least 1, not {options.max_tokens}")
        if options.seed is not None and not 0 <= options.seed < 2**63:
            raise RequestError(f"a seed lies between 0 and 2**63 - 1; {options.seed} does not")
        reply = self._maker.begin(found, context, response, options, is_held=speculative)
        self._replies[response] = reply
        self._take_fault(found, reply)

    def confirm(self, response: int) -> None:
        """Release a speculative reply. Idempotent."""
        reply = self._replies.get(response)
        if reply is not None and reply.held is not None:
            self._outbox.extend(reply.held)
            reply.held = None
            if reply.frame_ends:
                reply.playout.start(self._clock())

    def cancel(self, response: int) -> None:
        """Stop a reply; none of its speech stays in the log unless `heard` says so. Idempotent."""
        reply = self._replies.get(response)
        if reply is None or not (reply.is_active or reply.held is not None):
            return
        context = self._contexts[reply.context]
        is_unheard = reply.wants_voice or reply.held is not None or not reply.text_ids
        self._maker.cancel(context, reply)
        if is_unheard:
            context.keep_reply(reply.entry, 0)

    def heard(self, response: int, num_samples: int) -> str:
        """Cut the log to what was spoken by then; returns the reply's text that stays."""
        reply = self._replies.get(response)
        if reply is None:
            raise RequestError(f"response {response} is unknown")
        context = self._contexts[reply.context]
        self._maker.end(context, reply, "cancelled")
        kept = reply.tokens_heard(num_samples)
        is_whole = 0 < kept == len(reply.text_ids)
        context.keep_reply(reply.entry, None if is_whole else kept)
        return reply.text_of(kept)

    # ------------------------------------------------------------------ work
    @property
    def has_work(self) -> bool:
        """Whether `step` would do something now."""
        return bool(self._outbox) or self._work.next_unit() is not None

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Do the most urgent work (a few ms); returns what became known, in order."""
        unit = self._work.next_unit()
        if unit is not None:
            self._work.do(unit)
        events, self._outbox = self._outbox, []
        return events

    def _take_fault(self, context: Context, reply: Reply) -> None:
        """Fail a reply to a message that had to be left out."""
        error, context.fault = context.fault, None
        if error is not None:
            self._work.fail_reply(context, reply, error)

    def log_ids(self, context: int) -> list[int]:
        """Token ids of a context's log, placeholders included."""
        return self._context(context).log.ids()

    # ------------------------------------------------------------------ parts
    def _emit(self, event: EngineEvent) -> None:
        self._outbox.append(event)

    def _context(self, context: int) -> Context:
        found = self._contexts.get(context)
        if found is None:
            raise RequestError(f"context {context} is unknown")
        self._budget.use(context, found)
        return found

    def _speech(self, context: int) -> SpeechEntry:
        speech = self._context(context).open_speech
        if speech is None:
            raise RequestError("no speech is open")
        return speech

    def _replies_of(self, context: int) -> list[Reply]:
        return [reply for reply in self._replies.values() if reply.context == context]

    def _caches(self) -> tuple[SequenceCache, SequenceCache | None]:
        """A new context's: the thinker's and the talker's."""
        if self._steps is not None:
            return self._steps.caches()
        talker = self._model.talker
        return self._cache(self._model.thinker), None if talker is None else self._cache(talker)

    def _cache(self, stage: Thinker | Talker) -> KvCache:
        return KvCache(
            stage.model.config,
            device=stage.device,
            dtype=self._dtype,
        )


def _cache_devices(model: Qwen3Omni) -> set[torch.device]:
    stages = (model.thinker, model.talker)
    return {stage.device for stage in stages if stage is not None}
