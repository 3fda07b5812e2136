"""The conversation's log, held twice and kept the same.

As items here, as tokens in an engine's context.

Every change of what the model knows goes through this class: it orders what may not overlap in the
engine's log (open speech is taken back and repeated behind an item or a reply), rebuilds the
context after an edit (at the end of a running reply, which a rebuild would kill), and starts a new
context when the engine died. While there is no living context nothing is lost: items and open
speech are told to the next one.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable

from pipeline.engine_port import Context, Engine, Response
from pipeline.errors import EngineLostError
from pipeline.history import History, to_message
from pipeline.items import Item
from pipeline.messages import Message, Pcm, Reading, ResponseOptions, Rgb, Usage
from pipeline.overflow import ContextRoom
from pipeline.session_config import SessionConfig
from pipeline.speculation import OnRetracted, Speculation
from pipeline.speech import OpenSpeech


class ConversationLog:
    """See the module's docstring.

    Args:
        on_lost: called when a context turns out to be dead, and when a reply finds none; shall
            lead to a call of `open`.
        on_retracted: is given each speculative reply that was taken back.
        on_kept: called when one became a reply.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        config: SessionConfig,
        on_lost: Callable[[], None],
        on_retracted: OnRetracted = lambda _: None,
        on_kept: Callable[[], None] = lambda: None,
    ) -> None:
        self.history = History()
        self.speech: OpenSpeech | None = None
        self.was_refused = False  # the last context, because the engine has too much to do
        self.generation = (
            0  # grows when the engine's log starts anew: older responses are unknown to it
        )
        self._engine = engine
        self._config = config
        self._prepared = config  # what the engine was told last
        self._room = ContextRoom()
        self._on_lost = on_lost
        self._on_retracted = on_retracted
        self._on_kept = on_kept
        self._speculation: Speculation | None = None
        self._context: Context | None = None
        self._is_replying = False
        self._needs_rebuild = False

    # ------------------------------------------------------------------ the context
    async def open(self) -> None:
        """Wait for the engine and tell it everything. Safe to cancel.

        Raises:
            EngineLostError: there is no engine, or it died again at once.
        """
        self._room.max_tokens = (await self._engine.ready()).max_context_tokens
        context = self._engine.open(
            instructions=self._config.instructions,
            voice=self._config.voice,
            tools=self._config.tools,
        )
        if not context.is_alive:
            raise EngineLostError("the engine died while a conversation was being opened")
        self._context = context
        self.was_refused = False
        self._prepared = self._config
        self.generation += 1
        self._needs_rebuild = False
        self._room.make(self.history, self._config)
        if messages := self.history.messages():
            context.rebuild(messages)
        self._resume_speech()

    def close(self) -> None:
        """Free the context; the log takes no more."""
        self.retract()
        context, self._context = self._context, None
        if self.speech is not None:
            self.speech.detach()
        if context is not None:
            context.close()

    @property
    def config(self) -> SessionConfig:
        """What the session wants (one reply may have terms of its own)."""
        return self._config

    def configure(self, config: SessionConfig) -> None:
        """Take other instructions, another voice, other tools."""
        self.retract()
        is_borrowed, self._config = self._prepared is not self._config, config
        if not (is_borrowed and self._is_replying) and (context := self._living()) is not None:
            self._prepare(context, config)

    def _prepare(self, context: Context, config: SessionConfig) -> None:
        """Let the engine know what precedes the log, unless it does."""
        old, self._prepared = self._prepared, config
        if (old.instructions, old.voice, old.tools) != (
            config.instructions,
            config.voice,
            config.tools,
        ):
            context.configure(
                instructions=config.instructions, voice=config.voice, tools=config.tools
            )

    @property
    def is_open(self) -> bool:
        """Whether there is a living context (notices a dead one)."""
        return self._living() is not None

    def _living(self) -> Context | None:
        context = self._context
        if context is not None and not context.is_alive:
            self._context = None
            self.was_refused = context.refusal == "overloaded"
            self._speculation = None
            self._is_replying = False
            if self.speech is not None:
                self.speech.detach()
            self._on_lost()
        return self._context

    # ------------------------------------------------------------------ items
    def insert(
        self, item: Item, *, after_id: str | None = None, still: Rgb | None = None
    ) -> str | None:
        """Insert an item that was made by hand; returns its predecessor's id.

        Raises:
            BadInputError: see `History.insert` and `History.check_room`.
        """
        self.history.check_room(item, max_chars=self._config.max_text_chars)
        previous_id = self.history.insert(item, after_id=after_id, still=still)
        if self._room.make(self.history, self._config) or self.history.tail_id != item.id:
            self.rebuild()
        elif (message := to_message(item, still=still)) is not None:
            self._append_message(message)
        return previous_id

    def delete(self, item_id: str) -> None:
        """Take an item out (see `History.delete`)."""
        self.history.delete(item_id)
        self.rebuild()

    def place_reply(self, item: Item, *, after_id: str | None) -> str | None:
        """A reply's item enters the list behind the item that it answers.

        The engine has it already.
        """
        if after_id is not None and self.history.get(after_id) is None:
            after_id = None
        elif after_id is None and len(self.history):
            after_id = "root"
        return self.history.insert(item, after_id=after_id)

    def rebuild(self) -> None:
        """Tell the engine the whole conversation anew.

        At the end of a running reply, where there is one.
        """
        if self._is_replying:
            self._needs_rebuild = True
            return
        self._needs_rebuild = False
        if (context := self._living()) is None:
            return
        self.retract()
        self.generation += 1
        if self.speech is not None:
            self.speech.detach()
        context.rebuild(self.history.messages())
        self._resume_speech()

    def _append_message(self, message: Message) -> None:
        if (context := self._living()) is None:
            return
        self._suspend_speech()
        context.append_message(message)
        self._resume_speech()

    # ------------------------------------------------------------------ speech
    def begin_speech(self, speech: OpenSpeech) -> None:
        """The user begins to speak; it streams from the first `append_speech` on, unless held."""
        assert self.speech is None, self.speech
        self.speech = speech

    def release_speech(self) -> None:
        """Speech that was held back may stream now."""
        if self.speech is not None and self.speech.is_held:
            self.speech.is_held = False
            self._stream_speech()

    def _stream_speech(self) -> None:
        if self._living() is not None and self.speech is not None and not self.speech.is_streaming:
            self._resume_speech()

    def append_speech(self, pcm: Pcm) -> None:
        """The user goes on speaking."""
        assert self.speech is not None
        self._stream_speech()
        self.speech.append(pcm)

    def overhear(self, pcm: Pcm) -> Future[Reading] | None:
        """See `engine_port.Context.overhear`."""
        context = self._living()
        return None if context is None else context.overhear(pcm)

    def drop_speech(self) -> None:
        """The open speech shall never have been."""
        if self.speech is not None:
            self._suspend_speech()
            self.speech = None

    def commit_speech(self) -> tuple[Item, str | None]:
        """The open speech is over and becomes the last item.

        Returns it with its predecessor's id.
        """
        speech, self.speech = self.speech, None
        assert speech is not None
        self._living()
        item = Item(id=speech.item_id, role="user", content=[speech.content()])
        if self._speculation is not None:
            self._speculation.is_turn_over = True
            return item, self.history.append(item)
        if speech.end():
            return item, self.history.append(item)
        return item, self.insert(item)

    def _suspend_speech(self) -> None:
        self.retract()
        if self.speech is not None:
            self.speech.withdraw()

    def _resume_speech(self) -> None:
        if self.speech is None or self._context is None:
            return
        if not self.speech.is_held and not self.speech.num_forgotten:
            self.speech.stream(self._context)

    def roll_speech(self, max_samples: int) -> None:
        """Keep only the newest of the open speech; the engine hears of it when it is committed."""
        if self.speech is not None and self.speech.num_samples > max_samples:
            self._suspend_speech()
            self.speech.keep_newest(max_samples)

    # ------------------------------------------------------------------ replies
    def speculate(self, options: ResponseOptions) -> None:
        """Begin a reply that nobody hears, as if the open speech were over.

        Where that can not be done without waiting nothing happens.
        """
        context, speech = self._living(), self.speech
        if context is None or speech is None or not speech.is_streaming:
            return
        if not self._is_replying and self._speculation is None:
            self._speculation = Speculation(context, speech, options)

    def retract(self) -> None:
        """Take a speculative reply back, if there is one: the speech is open again."""
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            speculation.take_back()
            self._on_retracted(speculation.response)

    def _confirmed(self, options: ResponseOptions, config: SessionConfig | None) -> Response | None:
        """The reply that was begun already, where it is the one that is wanted."""
        speculation = self._speculation
        if speculation is None or not speculation.is_turn_over:
            return None
        if config is not None or speculation.options != options:
            return None
        self._speculation = None
        self._on_kept()
        return speculation.confirm()

    def respond(
        self,
        options: ResponseOptions,
        config: SessionConfig | None = None,
        messages: tuple[Message, ...] | None = None,
    ) -> Response | None:
        """Start a reply to all that is finished; None while there is no living context.

        `config`: instructions, voice and tools for this reply alone; `messages`: what it answers
        instead. The engine has to read the whole log anew for either, and once more behind the
        reply.
        """
        if (context := self._living()) is None:
            self._on_lost()
            return None
        if messages is None and (begun := self._confirmed(options, config)) is not None:
            self._is_replying = True
            return begun
        self._suspend_speech()
        self._prepare(context, config or self._config)
        if messages is not None:
            context.rebuild(messages)
            self.generation += 1
            self._needs_rebuild = True
        response = context.respond(options)
        self._is_replying = True
        self._resume_speech()
        return response

    def reply_settled(self, usage: Usage | None = None) -> None:
        """The reply is over, its item says what shall be remembered; `usage`: what the engine
        counted for it and the conversation.
        """
        self._is_replying = False
        self.history.trim()
        if usage is not None:
            self._room.learn(usage, self.history)
        if self._room.make(self.history, self._config):
            self._needs_rebuild = True
        if (context := self._living()) is not None:
            self._prepare(context, self._config)
        if self._needs_rebuild:
            self.rebuild()
