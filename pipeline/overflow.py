"""What leaves the model's context when it gets full: the oldest items, in one go.

They stay in the conversation's list, an engine is told of them no more. How many tokens an item has
is estimated from what it holds, and the estimate is corrected by what the engine counted for each
reply. Dropping more than is needed at once lets the caches live for several turns.
"""

from __future__ import annotations

from typing import assert_never

from pipeline.history import Entry, History
from pipeline.items import (
    CallContent,
    Content,
    ImageContent,
    NoteContent,
    OutputContent,
    SpeechContent,
    TextContent,
    VoiceContent,
)
from pipeline.messages import ENGINE_INPUT_HZ, Rgb, Usage
from pipeline.session_config import SessionConfig

FULL = 0.9  # of the context: the rest is for the next turn and its reply
CHARS_PER_TOKEN = 4
SPEECH_TOKENS_PER_S = 12.5
PIXELS_PER_TOKEN = 32 * 32
ITEM_TOKENS = 5  # around what an item holds


class ContextRoom:
    """How full one conversation's context is. `max_tokens` is known once there is an engine."""

    def __init__(self) -> None:
        self.max_tokens: int | None = None
        self._correction = 1.0

    def learn(self, usage: Usage, history: History) -> None:
        """Take what an engine counted for a reply to the whole conversation."""
        counted = usage.input_text_tokens + usage.input_audio_tokens + usage.input_image_tokens
        estimate = _estimate(history)
        if counted and estimate:
            counted += usage.output_text_tokens
            self._correction = min(10.0, max(0.1, counted / estimate))

    def make(self, history: History, config: SessionConfig) -> bool:
        """Forget the oldest items where the context is full; whether there were any.

        The newest item is never forgotten, nor a tool's answer without its call.
        """
        wish = config.truncation
        if wish is None or self.max_tokens is None:
            return False
        limit = self.max_tokens
        if wish.post_instructions_tokens is not None:
            around = (len(config.instructions) + sum(map(len, config.tools))) // CHARS_PER_TOKEN
            limit = min(limit, wish.post_instructions_tokens + around)
        total = _estimate(history) * self._correction
        if total <= FULL * limit:
            return False
        wanted = min(FULL, wish.retention_ratio) * limit
        kept = history.remembered
        num_kept = len(kept)
        while len(kept) > 1 and (total > wanted or kept[0].item.output is not None):
            oldest = kept.pop(0)
            oldest.is_forgotten = True
            total -= _tokens(oldest) * self._correction
        return len(kept) < num_kept


def _estimate(history: History) -> float:
    return sum(map(_tokens, history.remembered))


def _tokens(entry: Entry) -> float:
    still = 0.0 if entry.still is None else _picture_tokens(entry.still)
    return ITEM_TOKENS + still + sum(map(_content_tokens, entry.item.content))


def _content_tokens(content: Content) -> float:
    match content:
        case SpeechContent():
            heard = len(content.pcm) / ENGINE_INPUT_HZ * SPEECH_TOKENS_PER_S
            return heard + sum(_picture_tokens(frame.rgb) for frame in content.frames)
        case ImageContent():
            return _picture_tokens(content.rgb)
        case CallContent():
            return len(content.arguments) / CHARS_PER_TOKEN
        case OutputContent():
            return len(content.output) / CHARS_PER_TOKEN
        case NoteContent():
            return 0.0
        case TextContent():
            return len(content.text) / CHARS_PER_TOKEN
        case VoiceContent():
            return len(content.transcript) / CHARS_PER_TOKEN
        case _:
            assert_never(content)


def _picture_tokens(rgb: Rgb) -> float:
    height, width = rgb.shape[:2]
    return int(height) * int(width) / PIXELS_PER_TOKEN
