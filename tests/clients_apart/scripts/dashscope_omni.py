"""`dashscope`, the SDK of the hosted Qwen-Omni-Realtime service, in its own dialect.

Arguments: the address, a JPEG as base64, and "spoken" or "by_hand".
"""

from __future__ import annotations

import base64
import queue
import sys
import time
from typing import Any

from dashscope.audio.qwen_omni import (
    MultiModality,
    OmniRealtimeCallback,
    OmniRealtimeConversation,
)
from voice import REPLY_S, pieces, report, silence, speech

RATE_HZ = 16_000
BOTH = [MultiModality.TEXT, MultiModality.AUDIO]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}},
}
asked: list[str] = []
errors: list[str] = []


class Ear(OmniRealtimeCallback):
    """Hands all events over."""

    def __init__(self) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.num_bytes = 0

    def on_event(self, message: Any) -> None:
        """See `OmniRealtimeCallback`."""
        self.events.put(message)

    def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next event of a type, with such fields; what comes before it is noted."""
        while True:
            event = self.events.get(timeout=20)
            if event["type"] == "error":
                errors.append(event["error"]["message"])
            if event["type"] == "response.audio.delta":
                self.num_bytes += len(base64.b64decode(event["delta"]))
            if event["type"] == kind and all(event[key] == fields[key] for key in fields):
                return event


def say(conversation: OmniRealtimeConversation, pcm: bytes) -> None:
    """Sound of the user."""
    for piece in pieces(pcm, RATE_HZ):
        conversation.append_audio(base64.b64encode(piece).decode())


def spoken(conversation: OmniRealtimeConversation, ear: Ear, picture: str) -> dict[str, Any]:
    """The play, with a camera in its first turn."""
    sound, rest = speech(0.5, RATE_HZ), silence(0.8, RATE_HZ)
    conversation.append_video(picture)  # refused: there was no sound
    say(conversation, silence(0.1, RATE_HZ))
    conversation.append_video(picture)
    say(conversation, sound)
    conversation.append_video(picture)
    say(conversation, rest)
    ear.until("response.done")
    time.sleep(REPLY_S)
    say(conversation, sound + rest)
    call = ear.until("response.function_call_arguments.done")
    asked.append(call["arguments"])
    conversation.create_item(
        {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    )
    ear.until("response.audio_transcript.done", transcript="It is sunny there")
    ear.until("response.done")
    time.sleep(REPLY_S)
    heard = ear.num_bytes
    say(conversation, sound + rest)
    ear.until("response.audio_transcript.delta", delta=" word9")
    time.sleep(0.3)  # so much of it was played
    say(conversation, sound + rest)
    ear.until("response.audio_transcript.done", transcript="Then go on please")
    ear.until("response.done")
    return {"heard_s": heard / 48_000}


def by_hand(conversation: OmniRealtimeConversation, ear: Ear) -> dict[str, Any]:
    """Turns that the client ends; the reply is cancelled."""
    conversation.append_audio(base64.b64encode(speech(0.5, RATE_HZ)).decode())
    conversation.commit()
    ear.until("conversation.item.created")
    conversation.create_response()
    ear.until("response.audio.delta")
    conversation.cancel_response()
    done = ear.until("response.done")["response"]
    return {"status": done["status"], "content": done["output"][0]["content"][0]["type"]}


def main(url: str, picture: str, how: str) -> None:
    """Hold a conversation and finish it."""
    ear = Ear()
    conversation = OmniRealtimeConversation("qwen3-omni", ear, url=url, api_key="k")
    conversation.connect()
    conversation.update_session(
        output_modalities=BOTH, enable_turn_detection=how == "spoken", tools=[WEATHER]
    )
    session = ear.until("session.updated")["session"]
    seen = spoken(conversation, ear, picture) if how == "spoken" else by_hand(conversation, ear)
    conversation.end_session()
    report(asked=asked, errors=errors, session=session, **seen)


main(*sys.argv[1:])
