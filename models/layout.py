"""Where the tokens of one message lie in time and space: TMRoPE positions, counted from the
message's start.

A layout is a cursor: each call places the next piece of the message and returns it. Positions in
the thinker and in the talker differ: the talker sees only the user's messages, and sound with
camera frames lies there like plain text. Rules and test vectors: Qwen3-Omni's `get_rope_index`,
restated in `models.positions`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models.pieces import Piece
from models.positions import audio_positions, grid_positions, image_positions, text_positions


@dataclass(slots=True, kw_only=True)
class Layout:
    """Cursor over one message; copied to remember a place in it (`dataclasses.replace`).

    Attributes:
        in_talker: whether the talker sees this message.
        next: position of the next piece. talker_next: the same in the talker's context.
    """

    in_talker: bool
    next: float = 0.0
    talker_next: float = 0.0
    body_start: float = 0.0
    num_body_audio: int = 0

    def text(self, ids: list[int]) -> Piece:
        """Text, role tokens, and the tokens that open and close media."""
        positions, self.next = text_positions(len(ids), self.next)
        return Piece(
            kind="text",
            ids=tuple(ids),
            positions=positions,
            talker_positions=self._plain(len(ids)),
        )

    def audio(self, placeholder: int, embeds: Tensor) -> Piece:
        """Encoded sound without pictures, [n, hidden]."""
        num_tokens = embeds.shape[0]
        positions, self.next = audio_positions(num_tokens, self.next)
        return Piece(
            kind="audio",
            ids=(placeholder,) * num_tokens,
            positions=positions,
            talker_positions=self._plain(num_tokens),
            embeds=embeds,
        )

    def image(
        self, placeholder: int, embeds: Tensor, deepstack: Tensor, size: tuple[int, int]
    ) -> Piece:
        """A still picture of `size` = (rows, columns) tokens."""
        positions, self.next = image_positions(size, self.next)
        talker = None
        if self.in_talker:
            talker, self.talker_next = image_positions(size, self.talker_next)
        return Piece(
            kind="image",
            ids=(placeholder,) * embeds.shape[0],
            positions=positions,
            talker_positions=talker,
            embeds=embeds,
            deepstack=deepstack,
        )

    # ------------------------------------------------------------------ sound with camera frames
    def begin_body(self) -> None:
        """Start the interleaved body of an audio-in-video item, behind its two opening tokens."""
        self.body_start = self.next
        self.num_body_audio = 0

    def body_audio(self, placeholder: int, embeds: Tensor) -> Piece:
        """The body's next audio tokens: token i lies at the body's start + i, whatever lies
        between.
        """
        self.next = self.body_start + self.num_body_audio
        piece = self.audio(placeholder, embeds)
        self.num_body_audio += embeds.shape[0]
        return piece

    def body_grid(
        self,
        placeholder: int,
        embeds: Tensor,
        deepstack: Tensor,
        size: tuple[int, int],
        *,
        time: float,
    ) -> Piece:
        """One camera grid, `time` positions after the body's start."""
        start = self.body_start
        positions = grid_positions(size, time=start + time, start=start)
        self.next = float(positions.max()) + 1
        return Piece(
            kind="video",
            ids=(placeholder,) * embeds.shape[0],
            positions=positions,
            talker_positions=self._plain(embeds.shape[0]),
            embeds=embeds,
            deepstack=deepstack,
        )

    def _plain(self, num_tokens: int) -> Tensor | None:
        if not self.in_talker:
            return None
        positions, self.talker_next = text_positions(num_tokens, self.talker_next)
        return positions
