"""Remote MCP servers of one session: their tools are listed for the model, and its calls of them
are made here. What they answer enters the conversation, and the reply goes on by itself.

The model calls functions and knows nothing of servers: this class gives their tools names that no
other tool has. How a call looks within its response is `daemon.replies`; the servers themselves are
asked by `daemon.mcp_client`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.protocol import ItemIn, ProtocolError, ResponseParams, ServerEvent
from daemon.protocol_mcp import (
    ListToolsCompleted,
    ListToolsFailed,
    ListToolsInProgress,
    McpCallCompleted,
    McpCallFailed,
    McpCallInProgress,
    McpReference,
    McpTool,
)
from daemon.protocol_tools import FunctionTool
from daemon.remote_catalogue import RemoteCatalogue, RemoteFunction, RemoteServer, RemoteTool
from daemon.remote_items import RemoteItems
from daemon.replies import ReplyWriter, is_request
from daemon.settings import McpSettings
from pipeline.conversation import Conversation
from pipeline.errors import BadInputError
from pipeline.history import new_id
from pipeline.items import Item, NoteContent, OutputContent

log = logging.getLogger(__name__)

MAX_ROUNDS = 16  # replies that go on by themselves, until somebody else asks for one
CANCELLED = "The call was cancelled."
TOO_LATE = "The MCP server did not answer in time."


@dataclass(slots=True)
class _Call:
    """One call, and what the model is told of it."""

    item: Item
    tool: RemoteTool
    answer: str | None = None
    deadline: asyncio.Timeout | None = None
    is_cancelled: bool = False


@dataclass(slots=True)
class _Round:
    """The remote calls of one response, answered together: the model tells them by their order."""

    writer: ReplyWriter
    calls: list[_Call] = field(default_factory=list)
    goes_on: bool | None = None  # None: the response is not over

    @property
    def is_settled(self) -> bool:
        return self.goes_on is not None and all(call.answer is not None for call in self.calls)


class RemoteTools:
    """See the module's docstring. All on one event loop.

    Args:
        send: takes server events.
        refuse: tells the client of a failure: message, code.
        on_listed: called when `functions` has changed.
        go_on: starts the response that follows the answers, with the same tools.
    """

    def __init__(
        self,
        settings: McpSettings,
        conversation: Conversation,
        *,
        send: Callable[[ServerEvent], None],
        refuse: Callable[[str, str], None],
        on_listed: Callable[[], None],
        go_on: Callable[[ResponseParams, RemoteCatalogue], Awaitable[None]],
    ) -> None:
        self.catalogue = RemoteCatalogue()  # of the session
        self._settings = settings
        self._send = send
        self._refuse = refuse
        self._on_listed = on_listed
        self._go_on = go_on
        self._claimed: dict[str, RemoteTool] = {}
        self._rounds: dict[str, _Round] = {}
        self._requests: dict[str, tuple[_Round, _Call]] = {}
        self._num_rounds = 0
        self.items = RemoteItems(conversation, send)
        self._jobs: asyncio.Queue[Coroutine[Any, Any, None]] = asyncio.Queue()

    async def run(self) -> None:
        """Do what is asked for until cancelled; nothing is left running."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    group.create_task(self._do(await self._jobs.get()), name="remote tools")
        finally:
            while not self._jobs.empty():
                self._jobs.get_nowait().close()

    async def _do(self, job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except BadInputError as error:  # the conversation is full
            self._refuse(str(error), error.code)

    # ------------------------------------------------------------------ which tools there are
    @property
    def functions(self) -> tuple[RemoteFunction, ...]:
        """The tools that the session's servers have listed."""
        return self.catalogue.functions

    def declare(self, tools: Sequence[FunctionTool | McpTool]) -> None:
        """The session's tools from now on; servers that were not among them wait for `ask`."""
        self.catalogue.declare(tools)

    def ask(self) -> None:
        """Ask the servers that were not asked yet for their tools."""
        for server in self.catalogue.unasked():
            self._jobs.put_nowait(self._list(server, self.catalogue))

    def of_response(
        self, tools: Sequence[FunctionTool | McpTool | McpReference]
    ) -> RemoteCatalogue:
        """The servers of a response that names these tools.

        Raises:
            ProtocolError: one that is not to be asked, or a label that the session has not.
        """
        return self.catalogue.of_response(tools, hosts=self._settings.hosts)

    def list_first(
        self,
        servers: Sequence[RemoteServer],
        catalogue: RemoteCatalogue,
        then: Callable[[], Awaitable[None]],
    ) -> None:
        """Ask servers of one response for their tools; `then`, even if one does not answer."""
        self._jobs.put_nowait(self._list_first(servers, catalogue, then))

    async def _list_first(
        self,
        servers: Sequence[RemoteServer],
        catalogue: RemoteCatalogue,
        then: Callable[[], Awaitable[None]],
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(self._do(self._list(server, catalogue)), name="list tools")
        await then()

    async def _list(self, server: RemoteServer, catalogue: RemoteCatalogue) -> None:
        from daemon.mcp_client import McpFailure, list_tools

        label = server.tool.server_label
        content = NoteContent(shown={"type": "mcp_list_tools", "server_label": label, "tools": []})
        item = self.items.add(content)
        self._send(ListToolsInProgress(item_id=item.id))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                listed = await list_tools(server.tool, self._settings)
        except (McpFailure, TimeoutError) as error:
            content.shown["error"] = failed = _shown(error, str(error) or TOO_LATE)
            log.info("mcp list failed label=%s: %s", label, failed["message"])
            self._send(ListToolsFailed(item_id=item.id))
        else:
            catalogue.take(server, listed)
            content.shown["tools"] = [tool.shown() for tool in server.listed]
            if catalogue is self.catalogue:
                self._on_listed()
            self._send(ListToolsCompleted(item_id=item.id))
        self.items.close(item)

    # ------------------------------------------------------------------ calls of a response
    def begin_response(self) -> None:
        """A response begins: those that wait for answers of tools can wait no longer."""
        for held in self._rounds.values():
            if held.writer.is_held:
                held.writer.release([call.item for call in held.calls])
                held.goes_on = False

    def claim(self, item: Item, catalogue: RemoteCatalogue) -> None:
        """A response begins a call; if a tool of its servers is meant, it is shown as that."""
        assert item.call is not None
        tool = catalogue.find(item.call.name)
        if tool is not None:
            self._claimed[item.id] = tool
            item.call.shown = {
                "type": "mcp_approval_request" if tool.needs_approval else "mcp_call",
                "server_label": tool.server.server_label,
                "name": tool.name,
            }

    def call_finished(self, item: Item, writer: ReplyWriter) -> None:
        """The call is whole: make it, or wait for the client's approval."""
        tool = self._claimed.pop(item.id, None)
        if tool is None or item.status != "completed":
            return
        found = self._rounds.setdefault(writer.response_id, _Round(writer))
        call = _Call(item, tool)
        found.calls.append(call)
        if is_request(item):
            self._requests[item.id] = (found, call)
        else:
            self._jobs.put_nowait(self._make(found, call))

    def response_finished(self, writer: ReplyWriter, *, goes_on: bool) -> None:
        """No more calls will come of it. `goes_on`: the answers lead to another response, unless
        the client has calls to answer, too.
        """
        found = self._rounds.get(writer.response_id)
        if found is not None:
            found.goes_on = goes_on and not writer.has_client_calls
            if not goes_on and writer.is_held:  # an end that was asked for comes at once
                writer.release([call.item for call in found.calls])
            self._jobs.put_nowait(self._settle(found))
        elif goes_on:
            self._num_rounds = 0

    def cancel(self, response_id: str | None) -> bool:
        """Stop waiting for the tools of a response; False if none is waited for."""
        found = [
            each
            for each in self._rounds.values()
            if each.writer.is_held and response_id in (None, each.writer.response_id)
        ]
        for held in found:
            held.goes_on = False
            for call in held.calls:
                call.is_cancelled = True
                if call.deadline is not None and call.answer is None:
                    call.deadline.reschedule(asyncio.get_running_loop().time())
        return bool(found)

    async def _make(self, found: _Round, call: _Call) -> None:
        is_ok = await self._fetch(call, call.item)
        if not found.writer.call_answered(call.item, is_ok=is_ok) and not found.writer.is_aside:
            self.items.close(call.item)
        await self._settle(found)

    async def _fetch(self, call: _Call, shown_in: Item) -> bool:
        """Call the tool; puts its answer into `call` and into the item that shows it."""
        from daemon.mcp_client import McpFailure, call_tool

        assert call.item.call is not None
        content = shown_in.call or shown_in.note
        assert content is not None
        shown = content.shown
        assert shown is not None
        try:
            arguments = json.loads(call.item.call.arguments or "{}")
            if not isinstance(arguments, dict):
                raise ValueError("The arguments are not a JSON object.")
            async with asyncio.timeout(self._settings.timeout_s) as call.deadline:
                if call.is_cancelled:
                    raise TimeoutError
                call.answer = await call_tool(
                    call.tool.server, call.tool.name, arguments, self._settings
                )
            shown["output"] = call.answer
        except (McpFailure, TimeoutError, ValueError) as error:
            late = CANCELLED if call.is_cancelled else TOO_LATE
            message = late if isinstance(error, TimeoutError) else str(error)
            shown["error"] = _shown(error, message)
            call.answer = f"Error: {message}"
            log.info("mcp call failed label=%s", shown["server_label"])
        return "output" in shown

    async def _settle(self, found: _Round) -> None:
        """Once all calls are answered, tell the model, and let it go on."""
        if not found.is_settled or self._rounds.pop(found.writer.response_id, None) is None:
            return
        for call in found.calls if not found.writer.is_aside else ():
            assert call.item.call is not None
            assert call.answer is not None
            output = OutputContent(
                call_id=call.item.call.call_id, output=call.answer, is_hidden=True
            )
            item = Item(id=new_id("item"), role="user", content=[output])
            try:
                self.items.hide(item, answers=call.item)
            except BadInputError as error:  # the call was deleted, or the conversation is full
                log.info("mcp answer dropped code=%s", error.code)
        if not found.goes_on or found.writer.is_aside:
            return
        self._num_rounds += 1
        if self._num_rounds > MAX_ROUNDS:
            self._num_rounds = 0
            self._refuse("The model calls tools without an end.", "too_many_tool_calls")
            return
        asked = found.writer.asked or ResponseParams()
        again = asked.model_copy(update={"input": None, "tool_choice": "auto"})
        await self._go_on(again, found.writer.catalogue)

    # ------------------------------------------------------------------ approval
    def answer(self, given: ItemIn) -> None:
        """The client says whether a call may be made.

        Raises:
            ProtocolError: nobody asked.
            BadInputError: the item can not enter the conversation.
        """
        request_id = given.approval_request_id or ""
        if request_id not in self._requests:
            raise ProtocolError(
                f"No approval request '{request_id[:32]}' waits for an answer.",
                param="item.approval_request_id",
            )
        shown = {
            "type": "mcp_approval_response",
            "approval_request_id": request_id,
            "approve": given.approve,
            "reason": given.reason,
        }
        self.items.add(NoteContent(shown=shown), item_id=given.id, is_whole=True)
        found, call = self._requests.pop(request_id)
        if given.approve:
            self._jobs.put_nowait(self._make_approved(found, call))
        else:
            call.answer = f"The user did not allow this call. {given.reason or ''}".strip()
            self._jobs.put_nowait(self._settle(found))

    async def _make_approved(self, found: _Round, call: _Call) -> None:
        """Outside of its response, which is over: as an item of its own."""
        assert call.item.call is not None
        shown = {
            "type": "mcp_call",
            "server_label": call.tool.server.server_label,
            "name": call.tool.name,
            "arguments": call.item.call.arguments,
            "approval_request_id": call.item.id,
        }
        item = self.items.add(NoteContent(shown=shown))
        self._send(McpCallInProgress(item_id=item.id, output_index=0))
        is_ok = await self._fetch(call, item)
        kind = McpCallCompleted if is_ok else McpCallFailed
        self._send(kind(item_id=item.id, output_index=0))
        self.items.close(item)
        await self._settle(found)


def _shown(error: Exception, message: str) -> dict[str, Any]:
    """What went wrong with a server, as its item shows it."""
    from daemon.mcp_client import McpFailure

    if isinstance(error, McpFailure):
        return error.shown
    return {"type": "tool_execution_error", "message": message}
