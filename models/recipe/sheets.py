"""Lessons laid out as the engine's log, with the sounds and pictures that are still to be encoded.

The engine's own `MessageEncoder` places every piece; in place of encoder output it gets the numbers
of the rows that the encoders will make, so that a step can encode the media of many lessons
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.chat import ChatFormat
from models.encoding import MessageEncoder, WindowPolicy
from models.entries import MessageEntry
from models.layout import Layout
from models.pieces import Piece, TokenLog
from models.qwen3_omni.images import Patches, PixelLimits
from models.recipe.dialogues import Answered, Returned
from models.recipe.learner import Learner
from models.recipe.lessons import Heard, Lesson, View, view_at

CAMERA_LIMITS = PixelLimits(min_pixels=3136, max_pixels=49152)  # 256 x 192: 48 tokens a grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A clip's features [bins, frames], its number of tokens, and the ids of its words."""

    mel: Tensor
    num_tokens: int
    words: tuple[int, ...]
    has_camera: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A camera grid and what it shows."""

    patches: Tensor
    size: tuple[int, int]
    view: View

    @property
    def num_tokens(self) -> int:
        """Tokens after merging."""
        return self.size[0] * self.size[1] // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One lesson.

    Attributes:
        ids: [n]. positions: [3, n].
        sound_at: [a], the index of each token of all `sounds`, in order. sight_at: of all `grids`.
        replies: where each reply's tokens begin, and the tokens, the end token last.
        talker_rows: [m], tokens that the talker sees; talker_positions: [3, m]; talker_next: what
            follows them.
    """

    ids: Tensor
    positions: Tensor
    sound_at: Tensor
    sight_at: Tensor
    sounds: tuple[Sound, ...]
    grids: tuple[Grid, ...]
    replies: tuple[tuple[int, tuple[int, ...]], ...]
    talker_rows: Tensor
    talker_positions: Tensor
    talker_next: float


def lay_out(learner: Learner, lesson: Lesson) -> Sheet:
    """A lesson's sheet. Needs no weights: may run in a process of its own."""
    return _Writer(learner).write(lesson)


class _Planner(MessageEncoder):
    """Gives out numbers of rows, [n, 1], and keeps what belongs to them."""

    def __init__(self, learner: Learner) -> None:
        super().__init__(
            thinker=learner.thinker,
            config=learner.config,
            chat=learner.chat,
            image_limits=CAMERA_LIMITS,
            frame_limits=CAMERA_LIMITS,
            windows=WindowPolicy(),
        )
        self._tower = learner.thinker.audio_tower
        self.mels: list[tuple[Tensor, int]] = []
        self.grids: list[Patches] = []
        self._num_audio = self._num_visual = 0

    def listen(self, mel: Tensor, num_samples: int, window_frames: int) -> Tensor:
        count = self._tower.num_tokens(mel.shape[1])
        self.mels.append((mel, count))
        self._num_audio += count
        return torch.arange(self._num_audio - count, self._num_audio).float()[:, None]

    def see(self, grids: list[Patches]) -> tuple[Tensor, Tensor, tuple[int, int]]:
        (grid,) = grids
        rows, columns = grid.size[0] // 2, grid.size[1] // 2
        self.grids.append(grid)
        self._num_visual += rows * columns
        numbers = torch.arange(self._num_visual - rows * columns, self._num_visual)
        return numbers.float()[:, None], torch.zeros(0, rows * columns, 1), (rows, columns)


@dataclass(slots=True)
class _Writer:
    learner: Learner
    log: TokenLog = field(default_factory=TokenLog)
    replies: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    next: float = 0.0
    talker_next: float = 0.0

    def write(self, lesson: Lesson) -> Sheet:
        chat = self.learner.chat
        planner = _Planner(self.learner)
        self._text(chat.system_ids(lesson.instructions, lesson.tools), in_talker=False)
        for turn in lesson.turns:
            match turn:
                case Heard():
                    self._hear(turn, planner)
                case Returned():
                    ids = chat.encode_rendered(chat.tool_result_text(turn.text))
                    whole = [*chat.open_ids("user"), *ids, *chat.close_ids()]
                    self._text(whole, in_talker=True)
                case Answered():
                    self._answer(turn)
        return self._sheet(planner)

    def _hear(self, heard: Heard, planner: _Planner) -> None:
        num_mels, num_grids = len(planner.mels), len(planner.grids)
        entry = MessageEntry(layout=Layout(in_talker=True), message=heard.message)
        planner.encode_message(entry)
        self._place(entry.pieces, entry.layout)
        words = tuple(self.learner.word_ids(heard.words or ""))
        for mel, count in planner.mels[num_mels:]:
            has_camera = bool(heard.views)
            self.sounds.append(Sound(mel=mel, num_tokens=count, words=words, has_camera=has_camera))
        seconds = range(len(planner.grids) - num_grids)
        self.views += [view_at(heard.views, float(second)) for second in seconds]

    def _answer(self, answered: Answered) -> None:
        chat = self.learner.chat
        header, closing = chat.assistant_header_ids(), chat.close_ids()
        ids = call_ids(chat, answered.text) if answered.is_call else chat.encode(answered.text)
        self.replies.append((len(self.log) + len(header), (*ids, closing[0])))
        self._text([*header, *ids, *closing], in_talker=False)

    def _text(self, ids: list[int], *, in_talker: bool) -> None:
        layout = Layout(in_talker=in_talker)
        self._place([layout.text(ids)], layout)

    def _place(self, pieces: Sequence[Piece], layout: Layout) -> None:
        for piece in pieces:
            self.log.append(piece, base=self.next, talker_base=self.talker_next)
        self.next += layout.next
        self.talker_next += layout.talker_next

    def _sheet(self, planner: _Planner) -> Sheet:
        batch = self.log.batch(0, max(1, len(self.log)), torch.device("cpu"))
        at: dict[bool, Tensor] = {
            True: torch.zeros(sum(s.num_tokens for s in self.sounds), dtype=torch.long),
            False: torch.zeros(sum(g.size[0] * g.size[1] // 4 for g in planner.grids)).long(),
        }
        for first, piece in batch.media:
            assert piece.embeds is not None
            rows = piece.embeds[:, 0].long()
            at[piece.kind == "audio"][rows] = torch.arange(first, first + len(piece))
        return Sheet(
            ids=batch.ids,
            positions=batch.positions,
            sound_at=at[True],
            sight_at=at[False],
            sounds=tuple(self.sounds),
            grids=tuple(
                Grid(patches=torch.from_numpy(grid.patches).half(), size=grid.size, view=view)
                for grid, view in zip(planner.grids, self.views, strict=True)
            ),
            replies=tuple(self.replies),
            talker_rows=batch.talker_rows,
            talker_positions=batch.talker_positions,
            talker_next=self.talker_next,
        )


def call_ids(chat: ChatFormat, text: str) -> list[int]:
    """Ids of `<tool_call>...</tool_call>` as the model is to write it: both tags special tokens."""
    opening, closing = "<tool_call>", "</tool_call>"
    inner = chat.encode(text.removeprefix(opening).removesuffix(closing))
    assert chat.tool_call_id is not None
    assert chat.tool_call_end_id is not None
    return [chat.tool_call_id, *inner, chat.tool_call_end_id]
