"""Holds one conversation of an exam with a server: sound and pictures in, words and sound out.

Over WebSocket, each turn sent at once and closed by hand: what is examined is understanding, not
turn-taking.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from clients.bench.address import Address
from clients.bench.errors import BenchError
from clients.bench.exam import Item, Question
from clients.bench.measure import Pcm16
from clients.bench.speech import read_sound
from clients.bench.websocket_peer import RATE_HZ, open_socket

BLOCK_SAMPLES = RATE_HZ // 2


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came back to one question: words, sound at RATE_HZ, and the calls before them."""

    text: str = ""
    blocks: list[Pcm16] = field(default_factory=list)
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    failure: str | None = None

    @property
    def pcm(self) -> Pcm16:
        """All of the sound."""
        return np.concatenate([np.zeros(0, np.int16), *self.blocks])


class Examinee:
    """One session with the server."""

    def __init__(self, socket: ClientConnection, timeout_s: float, *, has_sound: bool) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._has_sound = has_sound

    async def prepare(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """Settings of the session; the tools as the protocol has them."""
        session: dict[str, Any] = {
            "type": "realtime",
            "output_modalities": ["audio" if self._has_sound else "text"],
            "audio": {"input": {"turn_detection": None}},
        }
        if tools:
            session["tools"] = [{"type": "function", **tool["function"]} for tool in tools]
        await self._send({"type": "session.update", "session": session})

    async def ask(self, question: Question) -> Answer:
        """Ask one question; a call is given its result, and the answer to that is the answer."""
        for picture in question.pictures:
            await self._show(picture)
        await self._say(question.wav)
        answer = Answer()
        await self._reply(answer)
        if answer.calls and answer.failure is None:
            for call in answer.calls:
                await self._give(call, question.result)
            await self._reply(answer)
        return answer

    async def _show(self, picture: Path) -> None:
        data = base64.b64encode(await asyncio.to_thread(picture.read_bytes)).decode()
        content = [{"type": "input_image", "image_url": f"data:image/png;base64,{data}"}]
        await self._add({"type": "message", "role": "user", "content": content})

    async def _say(self, wav: Path) -> None:
        pcm = read_sound(wav, RATE_HZ)
        for start in range(0, len(pcm), BLOCK_SAMPLES):
            block = pcm[start : start + BLOCK_SAMPLES].astype("<i2").tobytes()
            audio = base64.b64encode(block).decode()
            await self._send({"type": "input_audio_buffer.append", "audio": audio})
        await self._send({"type": "input_audio_buffer.commit"})

    async def _give(self, call: Mapping[str, Any], result: str) -> None:
        await self._add(
            {"type": "function_call_output", "call_id": call["call_id"], "output": result}
        )

    async def _reply(self, answer: Answer) -> None:
        """Ask for a response and take it."""
        await self._send({"type": "response.create"})
        answer.text = ""
        answer.blocks.clear()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._take(answer)
        except TimeoutError:
            answer.failure = f"no reply in {self._timeout_s:g} s"

    async def _take(self, answer: Answer) -> None:
        async for message in self._socket:
            event = json.loads(message)
            match event["type"]:
                case "response.output_audio.delta":
                    pcm = np.frombuffer(base64.b64decode(event["delta"]), "<i2")
                    answer.blocks.append(pcm.astype(np.int16))
                case "response.output_audio_transcript.delta" | "response.output_text.delta":
                    answer.text += event["delta"]
                case "error":
                    answer.failure = str(event["error"]["message"])
                    return
                case "response.done":
                    self._finish(event["response"], answer)
                    return
        answer.failure = "the server closed the connection"

    def _finish(self, response: Mapping[str, Any], answer: Answer) -> None:
        if response["status"] != "completed":
            answer.failure = f"the response is {response['status']}"
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        answer.calls.extend(calls)

    async def _add(self, item: Mapping[str, Any]) -> None:
        await self._send({"type": "conversation.item.create", "item": item})

    async def _send(self, event: Mapping[str, Any]) -> None:
        try:
            await self._socket.send(json.dumps(event))
        except ConnectionClosed as closed:
            raise BenchError(f"the server closed the connection ({closed})") from closed


async def examine(
    address: Address,
    item: Item,
    tools: Sequence[Mapping[str, Any]],
    timeout_s: float,
    *,
    has_sound: bool = True,
) -> list[Answer]:
    """The answers to all questions of one conversation, up to the first that fails.

    has_sound: replies are asked for as sound; as text only otherwise.

    Raises:
        BenchError: no server there, or it went away.
    """
    socket = await open_socket(address)
    async with socket:
        examinee = Examinee(socket, timeout_s, has_sound=has_sound)
        await examinee.prepare(tools if item.category == "tool" else ())
        answers: list[Answer] = []
        for question in item.questions:
            answers.append(await examinee.ask(question))
            if answers[-1].failure is not None:
                break
        return answers
