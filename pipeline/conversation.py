"""One session, wired: read this first.

(skeleton: the signatures below are the contract between pipeline and daemon)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.items import Item
from pipeline.messages import Pcm, ResponseOptions, Rgb
from pipeline.session_config import SessionConfig

if TYPE_CHECKING:
    from pipeline.clock import Clock
    from pipeline.engine_port import Engine
    from pipeline.events import Emit
    from pipeline.playout import Playout
    from pipeline.vad import Vad


class Conversation:
    """One conversation with an engine. All methods are called on one event loop; `emit` is called on it, too.

    Args:
        engine: where contexts are opened; may restart, the conversation then rebuilds its context by itself.
        emit: receives every session event at once, in order; must not block or raise.
        vad: speech probability of 16 kHz windows, this session's own instance.
        playout: a paced output that this conversation writes to, cuts and asks what was heard (WebRTC);
            None where the owner plays by itself (WebSocket): then what was heard after an interruption is
            estimated from the wall clock until the owner calls `truncate_item`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        config: SessionConfig,
        emit: Emit,
        vad: Vad,
        clock: Clock,
        playout: Playout | None = None,
    ) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        """Live until cancelled or `aclose`d. Owns the session's TaskGroup; leaves no task, context or thread behind."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """End `run` in order: stop input, cancel the reply, free the context. Idempotent."""
        raise NotImplementedError

    @property
    def config(self) -> SessionConfig: ...

    @property
    def has_spoken(self) -> bool:
        """Whether the session has produced any reply audio (its voice is then fixed)."""
        raise NotImplementedError

    @property
    def input_ms(self) -> int:
        """The input clock: milliseconds of audio appended since the session began."""
        raise NotImplementedError

    def configure(self, config: SessionConfig) -> None:
        """Take a new configuration; turn detection at once, the rest from the next response on."""
        raise NotImplementedError

    # ------------------------------------------------------------------ input
    async def append_audio(self, pcm: Pcm, *, rate_hz: int) -> None:
        """Microphone samples, mono float32, in order, at any speed. Waits while the session is behind (bounded)."""
        raise NotImplementedError

    def append_frame(self, rgb: Rgb) -> None:
        """A camera frame captured now; the newest wins, frames are taken at the engine's rate while speech lasts."""
        raise NotImplementedError

    def stop_camera(self) -> None:
        """No frames will come any more; the newest frame is forgotten."""
        raise NotImplementedError

    def commit(self) -> None:
        """End the turn by hand: the input buffer becomes a user item. Raises BadInputError under 100 ms of audio."""
        raise NotImplementedError

    def clear_input(self) -> None:
        """Drop the input buffer (emits Cleared)."""
        raise NotImplementedError

    # ------------------------------------------------------------------ conversation
    def create_item(self, item: Item, *, previous_item_id: str | None = None) -> None:
        """Insert an item (emits ItemAdded, ItemDone). `previous_item_id`: None appends, "root" puts first.

        Raises BadInputError for an unknown predecessor or a duplicate id (code item_create_duplicate_item_id).
        """
        raise NotImplementedError

    def get_item(self, item_id: str) -> Item | None:
        """The item, or None."""
        raise NotImplementedError

    def delete_item(self, item_id: str) -> None:
        """Take an item out (emits ItemDeleted). Raises BadInputError, code item_delete_invalid_item_id."""
        raise NotImplementedError

    def truncate_item(self, item_id: str, *, audio_end_ms: int) -> None:
        """Cut a reply to what was heard (emits ItemTruncated), also while it is being made.

        Raises BadInputError: unknown id (item_truncate_invalid_item_id), not a voice reply
        (unsupported_content_type), or beyond its end (invalid_value; the item then counts as heard to its end).
        """
        raise NotImplementedError

    # ------------------------------------------------------------------ replies
    def respond(self, options: ResponseOptions | None = None) -> str:
        """Start a reply by hand; returns its id. None: as the session is configured.

        Raises BadInputError, code conversation_already_has_active_response.
        """
        raise NotImplementedError

    def cancel_response(self, response_id: str | None = None) -> None:
        """Stop the active reply. Raises BadInputError, code response_cancel_not_active."""
        raise NotImplementedError

    def clear_output(self) -> None:
        """Cut the paced output and truncate the reply to what was heard; nothing playing: nothing happens."""
        raise NotImplementedError
