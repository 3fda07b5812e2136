"""The engine port over a channel: gives out ids, hands answers to whoever waits for them.

Everything here runs on one event loop; only `_Link.on_answer` is called on the channel's thread.
An engine that dies ends its responses as "failed" and its contexts for good; after `attach` with a
new channel, new contexts can be opened. Starting engines again is `daemon.supervisor`'s affair.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np

from pipeline import messages as port
from pipeline.channels import Channel
from pipeline.engine_port import Mark
from pipeline.errors import EngineLostError
from pipeline.messages import (
    Answer,
    AudioDelta,
    Call,
    ContextFault,
    EngineFailed,
    EngineReady,
    Frame,
    HeardText,
    Message,
    Overheard,
    Pcm,
    Reading,
    ResponseEnded,
    ResponseEvent,
    ResponseOptions,
    TextDelta,
    ToolCallDelta,
)
from pipeline.questions import Questions

logger = logging.getLogger(__name__)

HEARD_TIMEOUT_S: Final = 10.0
_NOT_RUNNING: Final = "the engine is not running"
_OVERLOADED: Final = "the engine is too far behind to take more of this conversation"


class Link:
    """One life of an engine: its channel, what it said when it was ready, and how it ended."""

    def __init__(self, client: EngineClient, channel: Channel) -> None:
        self.channel = channel
        self.info: EngineReady | None = None
        self.ready_at_s: float | None = None  # time of the event loop
        self.lost: asyncio.Future[EngineFailed] = asyncio.get_running_loop().create_future()
        self._client = client
        self._loop = asyncio.get_running_loop()

    def on_answer(self, answer: Answer) -> None:
        """Called on the channel's thread."""
        try:
            self._loop.call_soon_threadsafe(self._client.receive, self, answer)
        except RuntimeError:  # the loop was closed while the engine was still speaking
            if not self._loop.is_closed():
                raise


class EngineClient:
    """`pipeline.engine_port.Engine`; see there. Made and used on one running event loop."""

    def __init__(self, *, heard_timeout_s: float = HEARD_TIMEOUT_S) -> None:
        self._heard_timeout_s = heard_timeout_s
        self._ids = itertools.count(1)
        self._link: Link | None = None
        self._contexts: dict[int, EngineContext] = {}
        self._responses: dict[int, EngineResponse] = {}  # those not ended
        self._heard: dict[int, deque[asyncio.Future[str]]] = {}
        self._failure: str | None = None
        self._changed = asyncio.Event()
        self._num_faults = 0

    # ------------------------------------------------------------------ for the owner of the engine
    def attach(self, channel: Channel) -> Link:
        """Use this channel, not yet started, from now on. The one before has to be gone."""
        assert self._link is None or self._link.lost.done()
        self._link = Link(self, channel)
        channel.start(self._link.on_answer)
        return self._link

    def give_up(self, error: str) -> None:
        """There will be no other channel."""
        self._failure = error
        self._announce()

    @property
    def info(self) -> EngineReady | None:
        """What the engine serves, while there is one that is ready."""
        return self._link.info if self._link and not self._link.lost.done() else None

    @property
    def num_responses(self) -> int:
        """Responses that have not ended."""
        return len(self._responses)

    @property
    def num_faults(self) -> int:
        """Calls that the engine could not carry out."""
        return self._num_faults

    # ------------------------------------------------------------------ the port
    async def ready(self) -> EngineReady:
        """See the port. Waits through restarts. Cancelling is safe."""
        while True:
            if self._failure is not None:
                raise EngineLostError(self._failure)
            if self.info is not None:
                return self.info
            await self._changed.wait()

    def open(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> EngineContext:
        """See the port. While no engine runs the context is dead from its beginning."""
        context = EngineContext(self, next(self._ids))
        if self._failure is None and self._link is not None and not self._link.lost.done():
            self._contexts[context.id] = context
            call = port.Open(
                context=context.id, instructions=instructions, voice=voice, tools=tools
            )
            self.send(call)
        return context

    # ------------------------------------------------------------------ for contexts and responses
    def is_alive(self, context: int) -> bool:
        return context in self._contexts

    def new_id(self) -> int:
        return next(self._ids)

    def send(self, call: Call) -> bool:
        """Whether the engine will get the call."""
        return self._link is not None and self._link.channel.send(call)

    def send_for(self, context: int, call: Call) -> None:
        """A call of a context, ignored when that is dead; one that is refused is the end of it."""
        if self.is_alive(context) and not self.send(call):
            logger.error("context %d is given up: %s", context, _OVERLOADED)
            self._num_faults += 1
            self.retire(context, _OVERLOADED, "overloaded")

    def start_response(self, response: EngineResponse, call: port.Respond) -> None:
        if not self.is_alive(call.context):
            response.deliver(_failed(response.id, _NOT_RUNNING))
            return
        self._responses[response.id] = response
        self.send(call)

    def close_context(self, context: int) -> None:
        if self._contexts.pop(context, None):
            self.send(port.Close(context=context))

    def retire(self, context: int, error: str, refusal: port.Refusal | None) -> None:
        """A context can not go on: free it, fail what waits for it."""
        if found := self._contexts.get(context):
            found.refusal = refusal
        self.close_context(context)
        for response in [r for r in self._responses.values() if r.context == context]:
            self._end(_failed(response.id, error, refusal))
            self._fail_heard(response.id, error)

    async def heard(self, context: int, response: int, num_samples: int) -> str:
        if not self.is_alive(context):
            raise EngineLostError(_NOT_RUNNING)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._heard.setdefault(response, deque()).append(answer)
        self.send(port.Heard(response=response, num_samples=int(num_samples)))
        try:
            async with asyncio.timeout(self._heard_timeout_s):
                return await answer
        except TimeoutError:
            raise EngineLostError("the engine does not answer") from None

    # ------------------------------------------------------------------ answers
    def receive(self, link: Link, answer: Answer) -> None:
        """One answer of an engine, in order."""
        match answer:
            case TextDelta() | AudioDelta() | ToolCallDelta():
                if response := self._responses.get(answer.response):
                    response.deliver(answer)
            case ResponseEnded():
                self._end(answer)
            case HeardText():
                self._answer_heard(answer)
            case Overheard():
                if context := self._contexts.get(answer.context):
                    context.questions.answer(answer)
            case ContextFault():
                self._take_fault(answer)
            case EngineReady():
                link.info = answer
                link.ready_at_s = asyncio.get_running_loop().time()
                self._announce()
            case EngineFailed():
                self._lose(link, answer)
            case _:
                assert_never(answer)

    def _end(self, ended: ResponseEnded) -> None:
        if response := self._responses.pop(ended.response, None):
            response.deliver(ended)

    def _answer_heard(self, answer: HeardText) -> None:
        """Answers come in the order of the calls, also to callers that wait no longer."""
        waiting = self._heard.get(answer.response)
        if not waiting:
            return
        future = waiting.popleft()
        if not future.done():
            future.set_result(answer.text)
        if not waiting:
            del self._heard[answer.response]

    def _fail_heard(self, response: int, error: str) -> None:
        for future in self._heard.pop(response, ()):
            if not future.done():
                future.set_exception(EngineLostError(error))

    def _take_fault(self, fault: ContextFault) -> None:
        if context := self._contexts.get(fault.context):
            logger.warning("context %d: %s", fault.context, fault.error)
            self._num_faults += 1
            context.fault = fault.error
            if fault.is_lost:
                self.retire(fault.context, fault.error, fault.refusal)

    def _lose(self, link: Link, failed: EngineFailed) -> None:
        link.lost.set_result(failed)
        self._contexts.clear()
        for response in list(self._responses):
            self._end(_failed(response, failed.error))
        for response in list(self._heard):
            self._fail_heard(response, failed.error)
        self._announce()

    def _announce(self) -> None:
        """Wake whoever waits for a change, once."""
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(frozen=True, slots=True)
class _Mark:
    context: int
    id: int


class EngineContext:
    """`pipeline.engine_port.Context`; see there. Calls on a dead one are ignored."""

    def __init__(self, client: EngineClient, context: int) -> None:
        self._client = client
        self.id = context
        self.questions = Questions()
        self.fault: str | None = None  # the last one
        self.refusal: port.Refusal | None = None

    @property
    def is_alive(self) -> bool:
        return self._client.is_alive(self.id)

    def configure(
        self, *, instructions: str, voice: str | None, tools: tuple[str, ...] = ()
    ) -> None:
        self._send(
            port.Configure(context=self.id, instructions=instructions, voice=voice, tools=tools)
        )

    def append_message(self, message: Message) -> None:
        self._send(port.AppendMessage(context=self.id, message=message))

    def begin_speech(self, *, has_camera: bool) -> None:
        self._send(port.BeginSpeech(context=self.id, has_camera=has_camera))

    def append_audio(self, pcm: Pcm) -> None:
        self._send(port.AppendAudio(context=self.id, pcm=np.asarray(pcm, dtype=np.float32)))

    def append_frame(self, frame: Frame) -> None:
        self._send(port.AppendFrame(context=self.id, frame=frame))

    def overhear(self, pcm: Pcm) -> asyncio.Future[Reading] | None:
        """See the port."""
        info = self._client.info
        if info is None or not info.reads_words or not self.is_alive:
            return None
        query, answer = self.questions.ask()
        self._client.send(port.Overhear(context=self.id, query=query, pcm=pcm))
        return answer

    def end_speech(self) -> None:
        self._send(port.EndSpeech(context=self.id))

    def mark(self) -> Mark:
        mark = _Mark(self.id, self._client.new_id())
        self._send(port.SetMark(context=self.id, mark=mark.id))
        return mark

    def rollback(self, mark: Mark) -> None:
        assert isinstance(mark, _Mark), mark
        assert mark.context == self.id, (mark, self.id)
        self._send(port.Rollback(context=self.id, mark=mark.id))

    def rebuild(self, messages: tuple[Message, ...]) -> None:
        self._send(port.Rebuild(context=self.id, messages=messages))

    def respond(self, options: ResponseOptions, *, speculative: bool = False) -> EngineResponse:
        response = EngineResponse(self._client, self.id, self._client.new_id())
        call = port.Respond(
            context=self.id, response=response.id, options=options, speculative=speculative
        )
        self._client.start_response(response, call)
        return response

    def close(self) -> None:
        self._client.close_context(self.id)

    def _send(self, call: Call) -> None:
        self._client.send_for(self.id, call)


class EngineResponse:
    """`pipeline.engine_port.Response`; see there. Holds what is not read yet: one reply at most."""

    def __init__(self, client: EngineClient, context: int, response: int) -> None:
        self._client = client
        self.context = context
        self.id = response
        self._events: deque[ResponseEvent] = deque()
        self._arrived = asyncio.Event()
        self._is_cancelled = False
        self._is_ended = False  # the end has arrived
        self._is_read = False  # the end has been read

    def __aiter__(self) -> AsyncIterator[ResponseEvent]:
        return self

    async def __anext__(self) -> ResponseEvent:
        """Cancelling is safe: no event is lost."""
        if self._is_read:
            raise StopAsyncIteration
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        self._is_read = isinstance(event, ResponseEnded)
        return event

    def confirm(self) -> None:
        if not self._is_ended:
            self._client.send_for(self.context, port.Confirm(response=self.id))

    def cancel(self) -> None:
        """See the port. From here on no text or audio comes out, whatever is under way."""
        if self._is_cancelled:
            return
        self._is_cancelled = True
        self._events = deque(e for e in self._events if isinstance(e, ResponseEnded))
        self._client.send_for(self.context, port.Cancel(response=self.id))

    async def heard(self, num_samples: int) -> str:
        """See the port. Cancelling is safe: the log is cut all the same.

        Raises:
            EngineLostError: the engine is gone or does not answer in time.
        """
        return await self._client.heard(self.context, self.id, num_samples)

    def deliver(self, event: ResponseEvent) -> None:
        """For the client: one more event."""
        self._is_ended = isinstance(event, ResponseEnded)
        if self._is_ended or not self._is_cancelled:
            self._events.append(event)
            self._arrived.set()


def _failed(response: int, error: str, refusal: port.Refusal | None = None) -> ResponseEnded:
    return ResponseEnded(
        response=response,
        status="failed",
        usage=port.Usage(),
        stages=port.Stages(),
        error=error,
        refusal=refusal,
    )
