"""`openai`, its client without asyncio: it calls the tool and truncates by hand."""

from __future__ import annotations

import base64
import sys
import time
from typing import Any

from openai import OpenAI
from voice import REPLY_S, report, silence, speech

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
asked: list[str] = []
errors: list[str] = []
num_bytes = 0


def until(connection: Any, kind: str, **fields: str) -> Any:
    """The next event of a type, with such fields; what comes before it is noted."""
    global num_bytes
    for event in connection:
        if event.type == "error":
            errors.append(event.error.message)
        if event.type == "response.output_audio.delta":
            num_bytes += len(base64.b64decode(event.delta))
        if event.type == kind and all(getattr(event, key) == fields[key] for key in fields):
            return event
    raise AssertionError(f"the connection ended before {kind}")


def say(connection: Any, pcm: bytes) -> None:
    """Sound of the user."""
    connection.input_audio_buffer.append(audio=base64.b64encode(pcm).decode())


def main(url: str) -> None:
    """The play."""
    base_url = url.replace("ws://", "http://").partition("/realtime")[0]
    client = OpenAI(api_key="k", base_url=base_url, max_retries=0)
    with client.realtime.connect(model="qwen3-omni") as connection:
        connection.session.update(session={"type": "realtime", "tools": [WEATHER]})
        say(connection, speech() + silence())
        until(connection, "response.done")
        time.sleep(REPLY_S)
        say(connection, speech() + silence())
        call = until(connection, "response.function_call_arguments.done")
        until(connection, "response.done")
        asked.append(call.arguments)
        connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        )
        connection.response.create()
        until(connection, "response.done")
        time.sleep(REPLY_S)
        heard = num_bytes
        say(connection, speech() + silence())
        word = until(connection, "response.output_audio_transcript.delta", delta=" word9")
        time.sleep(0.2)  # so much of it was played
        say(connection, speech())
        until(connection, "input_audio_buffer.speech_started")
        connection.conversation.item.truncate(
            item_id=word.item_id, content_index=0, audio_end_ms=200
        )
        truncated = until(connection, "conversation.item.truncated")
        assert truncated.audio_end_ms == 200, truncated
        say(connection, silence())
        until(connection, "response.output_audio_transcript.done", transcript="Then go on please")
        until(connection, "response.done")
    report(asked=asked, errors=errors, heard_s=heard / 48_000)


main(sys.argv[1])
