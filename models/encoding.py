"""Messages -> pieces: which encoder makes what of a message's parts, one unit of device work at a
time.

Speech that is still open is encoded attention window by attention window, as soon as no later
sample can change one; the rest follows when it is closed. A clip that is known whole is encoded in
one go, as the reference does. Camera frames become one grid a second, interleaved with the sound of
that second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.chat import ChatFormat
from models.config import OmniConfig
from models.content import Audio, Image, Part, Pcm, Rgb, Text, ToolCall, ToolResult
from models.context import Context
from models.entries import Entry, MessageEntry, ReplyEntry, SpeechEntry, WindowMark
from models.errors import RequestError
from models.positions import grid_time
from models.qwen3_omni.images import Patches, PixelLimits, patchify, read_pixel_limits
from models.qwen3_omni.mel import HOP_SAMPLES, LogMel, MelStream, normalize
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.thinker import Thinker
from models.stretches import stretch_of

FRAMES_PER_S = 100
SECONDS_PER_GRID = 1.0
FRAME_SLOT_S = SECONDS_PER_GRID / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPolicy:
    """Attention windows of open speech, in whole seconds; None: the checkpoint's own.

    With a camera every frame waits for the sound before it to be final, so windows are short there.
    """

    audio_window_s: int | None = None
    camera_window_s: int | None = 2


class MessageEncoder:
    """Encodes what contexts wait for."""

    def __init__(
        self,
        *,
        thinker: Thinker,
        config: OmniConfig,
        chat: ChatFormat,
        image_limits: PixelLimits,
        frame_limits: PixelLimits,
        windows: WindowPolicy,
    ) -> None:
        self._thinker = thinker
        self._ids = config.thinker
        self._chat = chat
        self._image_limits = image_limits
        self._frame_limits = frame_limits
        self._windows = windows
        self._log_mel = LogMel(config.thinker.audio.num_mel_bins)
        self._device = thinker.device
        self._dtype = thinker.lm_head.weight.dtype
        for seconds in (windows.audio_window_s, windows.camera_window_s):
            if seconds is not None and seconds < 1:
                raise RequestError(f"an audio window is at least 1 s, not {seconds} s")

    @classmethod
    def load(
        cls,
        model: Qwen3Omni,
        config: OmniConfig,
        chat: ChatFormat,
        folder: Path,
        windows: WindowPolicy,
    ) -> MessageEncoder:
        """Build one with the pixel limits of the checkpoint's preprocessor config."""
        image_limits, frame_limits = read_pixel_limits(folder)
        return cls(
            thinker=model.thinker,
            config=config,
            chat=chat,
            image_limits=image_limits,
            frame_limits=frame_limits,
            windows=windows,
        )

    def window_frames(self, has_camera: bool) -> int:
        """Mel frames of an attention window of open speech."""
        policy = self._windows
        seconds = policy.camera_window_s if has_camera else policy.audio_window_s
        own = self._ids.audio.n_window_infer
        return own if seconds is None else min(own, seconds * FRAMES_PER_S)

    # ------------------------------------------------------------------ work
    def has_work(self, context: Context) -> bool:
        """Whether anything of this context waits to be encoded."""
        return self._next_entry(context) is not None

    def encode_next(self, context: Context) -> None:
        """Encode one unit of the first entry that has any."""
        entry = self._next_entry(context)
        match entry:
            case MessageEntry():
                self._encode_part(entry)
            case SpeechEntry():
                self._encode_speech(context, entry)

    def _next_entry(self, context: Context) -> Entry | None:
        for entry in context.entries:
            if entry.is_complete or isinstance(entry, ReplyEntry):
                continue
            if isinstance(entry, MessageEntry) or self._speech_has_work(entry):
                return entry
        return None

    def _speech_has_work(self, speech: Entry) -> bool:
        assert isinstance(speech, SpeechEntry)
        frames = self.window_frames(speech.has_camera)
        waiting = speech.num_final_windows(frames) > speech.num_windows
        return speech.is_closed or waiting or not speech.pieces

    # ------------------------------------------------------------------ whole messages
    def encode_message(self, entry: MessageEntry) -> None:
        """Encode all parts of a message at once."""
        while not entry.is_complete:
            self._encode_part(entry)

    def _encode_part(self, entry: MessageEntry) -> None:
        """Encode the next part, or a stretch of a long text; short text before and after a part
        comes along for nothing.
        """
        parts, role = entry.message.parts, entry.message.role
        if not entry.pieces and not entry.is_preface:
            entry.pieces.append(entry.layout.text(self._chat.open_ids(role)))
        self._take_text(entry)
        if not entry.waiting_text and entry.num_parts_encoded < len(parts):
            part = parts[entry.num_parts_encoded]
            entry.num_parts_encoded += 1
            self._encode_part_of_its_own(entry, part)
            self._take_text(entry)
        if not entry.waiting_text and entry.num_parts_encoded == len(parts):
            if not entry.is_preface:
                entry.pieces.append(entry.layout.text(self._chat.close_ids()))
            entry.is_complete = True

    def _take_text(self, entry: MessageEntry) -> None:
        """Join neighbouring texts, as the template does, and place them, at most a stretch."""
        parts = entry.message.parts
        if not entry.waiting_text:
            entry.is_rendered = False
            while entry.num_parts_encoded < len(parts):
                part = parts[entry.num_parts_encoded]
                if not isinstance(part, Text):
                    break
                entry.waiting_text += part.text
                entry.num_parts_encoded += 1
        self._encode_stretch(entry)

    def _encode_stretch(self, entry: MessageEntry) -> None:
        text, stop = entry.waiting_text, stretch_of(entry.waiting_text)
        if text:
            encode = self._chat.encode_rendered if entry.is_rendered else self._chat.encode
            entry.pieces.append(entry.layout.text(encode(text[:stop])))
            entry.waiting_text = text[stop:]

    def _begin_rendered(self, entry: MessageEntry, text: str) -> None:
        """Calls and results stand on lines of their own, also behind text and each other."""
        if entry.num_parts_encoded > 1:
            entry.pieces.append(entry.layout.text(self._chat.encode("\n")))
        entry.waiting_text, entry.is_rendered = text, True
        self._encode_stretch(entry)

    def _encode_part_of_its_own(self, entry: MessageEntry, part: Part) -> None:
        match part:
            case ToolCall():
                self._begin_rendered(entry, self._chat.tool_call_text(part.name, part.arguments))
            case ToolResult():
                self._begin_rendered(entry, self._chat.tool_result_text(part.output))
            case Image(rgb=rgb):
                self._encode_image(entry, rgb)
            case Audio(frames=()):
                self._encode_clip(entry, part.pcm)
            case Audio():
                speech = self._whole_speech(entry, part)
                entry.pieces.extend(speech.pieces)
            case Text():
                raise AssertionError("text is taken before")

    def _encode_image(self, entry: MessageEntry, rgb: Rgb) -> None:
        layout, ids = entry.layout, self._ids
        patches = patchify((rgb,), limits=self._image_limits)
        embeds, deepstack, size = self.see([patches])
        entry.pieces += [
            layout.text([ids.vision_start_id]),
            layout.image(ids.image_id, embeds, deepstack, size),
            layout.text([self._vision_end]),
        ]

    def _encode_clip(self, entry: MessageEntry, pcm: Pcm) -> None:
        layout, ids = entry.layout, self._ids
        embeds = self.hear(pcm)
        entry.pieces += [
            layout.text([ids.audio_start_id]),
            layout.audio(ids.audio_id, embeds),
            layout.text([ids.audio_end_id]),
        ]

    def _whole_speech(self, entry: MessageEntry, part: Audio) -> SpeechEntry:
        """A finished clip with camera frames: one window over all, then interleaved like live
        speech.
        """
        speech = SpeechEntry(layout=entry.layout, has_camera=True, frames=list(part.frames))
        speech.append(part.pcm)
        mel = self._log_mel.clip(speech.pcm)
        embeds = self.listen(mel, speech.num_samples, self._ids.audio.n_window_infer)
        self._open_media(speech)
        self._place_sound(speech, embeds, is_last=True)
        self._close_media(speech)
        return speech

    # ------------------------------------------------------------------ open speech
    def _encode_speech(self, context: Context, speech: SpeechEntry) -> None:
        if not speech.pieces:
            speech.pieces.append(speech.layout.text(self._chat.open_ids("user")))
            return
        if speech.mel is None:
            speech.mel = MelStream(self._log_mel, peak_floor=context.speech_floor)
        self._mark(speech)
        if speech.num_windows == 1:
            self._open_media(speech)
        frames = self.window_frames(speech.has_camera)
        if speech.num_final_windows(frames) >= speech.num_windows:
            self._encode_window(speech, frames)
        else:
            self._encode_tail(speech, frames)

    def _mark(self, speech: SpeechEntry) -> None:
        assert speech.mel is not None
        speech.marks.append(
            WindowMark(
                num_pieces=len(speech.pieces),
                num_frames=len(speech.frames),
                layout=replace(speech.layout),
                mel=speech.mel.copy_state(),
                num_grids=speech.num_grids,
            )
        )

    def _encode_window(self, speech: SpeechEntry, frames: int) -> None:
        """The next whole window, normalised by the loudest value so far."""
        mel = speech.mel
        assert mel is not None
        stop = frames * speech.num_windows * HOP_SAMPLES + HOP_SAMPLES // 4
        raw = mel.push(speech.pcm[mel.num_samples : stop])
        embeds = self.listen(normalize(raw, mel.running_peak), stop, frames)
        self._place_sound(speech, embeds, is_last=False)

    def _encode_tail(self, speech: SpeechEntry, frames: int) -> None:
        """What is left when speech ends; a clip of less than a window gets its own true maximum."""
        mel = speech.mel
        assert mel is not None
        is_whole = mel.num_samples == 0
        raw = torch.cat([mel.push(speech.pcm[mel.num_samples :]), mel.finish()], dim=1)
        peak = mel.finished_peak() if is_whole else max(mel.running_peak, mel.finished_peak())
        embeds = self.listen(normalize(raw, peak), speech.num_samples, frames)
        self._place_sound(speech, embeds, is_last=True)
        self._close_media(speech)
        speech.pieces.append(speech.layout.text(self._chat.close_ids()))
        speech.is_complete = True

    def _open_media(self, speech: SpeechEntry) -> None:
        ids = self._ids
        speech.is_interleaved = bool(speech.frames)
        opening = [ids.vision_start_id] if speech.is_interleaved else []
        speech.pieces.append(speech.layout.text([*opening, ids.audio_start_id]))
        speech.layout.begin_body()

    def _close_media(self, speech: SpeechEntry) -> None:
        ending = [self._vision_end] if speech.is_interleaved else []
        speech.pieces.append(speech.layout.text([self._ids.audio_end_id, *ending]))

    def _place_sound(self, speech: SpeechEntry, embeds: Tensor, *, is_last: bool) -> None:
        """Audio tokens with the grid of each second before them; at the end, grids that outlast
        them.
        """
        layout, per_grid = speech.layout, self._positions_per_grid
        grids = self._new_grids(speech, layout.num_body_audio + embeds.shape[0], is_last=is_last)
        while embeds.shape[0]:
            first = layout.num_body_audio
            if first % per_grid == 0 and grids:
                self._place_grid(speech, grids.pop(0))
            count = min(embeds.shape[0], per_grid - first % per_grid)
            speech.pieces.append(layout.body_audio(self._ids.audio_id, embeds[:count]))
            embeds = embeds[count:]
        self._place_rest(speech, grids)

    def _place_grid(self, speech: SpeechEntry, patches: Patches) -> None:
        embeds, deepstack, size = self.see([patches])
        time = grid_time(speech.num_grids, SECONDS_PER_GRID, self._ids.positions_per_second)
        piece = speech.layout.body_grid(self._ids.video_id, embeds, deepstack, size, time=time)
        speech.pieces.append(piece)
        speech.num_grids += 1

    def _place_rest(self, speech: SpeechEntry, grids: list[Patches]) -> None:
        """Grids after the last audio token are one run: what follows starts behind its greatest
        position.
        """
        furthest = 0.0
        for patches in grids:
            self._place_grid(speech, patches)
            furthest = max(furthest, speech.layout.next)
        if grids:
            speech.layout.next = furthest

    def _new_grids(self, speech: SpeechEntry, num_audio: int, *, is_last: bool) -> list[Patches]:
        """Frames of the seconds that `num_audio` tokens have begun (at the end: of all seconds)."""
        if not speech.is_interleaved:
            return []
        total = int(speech.frames[-1][0] / SECONDS_PER_GRID) + 1
        begun = -(-num_audio // self._positions_per_grid)
        stop = total if is_last else min(total, begun)
        return [self._grid(speech, index) for index in range(speech.num_grids, stop)]

    def _grid(self, speech: SpeechEntry, index: int) -> Patches:
        """The two frames of a second: the newest at its start and at its half; all of one size."""
        size = speech.frames[0][1].shape[:2]
        start = index * SECONDS_PER_GRID
        pair = tuple(_frame_at(speech.frames, start + slot) for slot in (0.0, FRAME_SLOT_S))
        return patchify(pair, limits=self._frame_limits, size=size)

    # ------------------------------------------------------------------ encoders
    def hear(self, pcm: Pcm) -> Tensor:
        """Audio tokens [n, hidden] of a clip that is known whole."""
        return self.listen(self._log_mel.clip(pcm), len(pcm), self._ids.audio.n_window_infer)

    def listen(self, mel: Tensor, num_samples: int, window_frames: int) -> Tensor:
        """Mel frames [bins, L] -> audio tokens [n, hidden]; no frames, no tokens."""
        if not mel.shape[1]:
            return self._thinker.lm_head.weight.new_zeros(0, self._ids.audio.output_size)
        tokens: Tensor = self._thinker.audio_tower(
            mel.to(self._device, self._dtype),
            window_frames=window_frames,
            clip_frames=num_samples // HOP_SAMPLES,
        )
        return tokens

    def see(self, grids: list[Patches]) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Patches of equal grids -> tokens [n, hidden], deepstack, (rows, columns) of a grid."""
        pixels = torch.cat([torch.from_numpy(grid.patches) for grid in grids])
        embeds, deepstack = self._thinker.visual(
            pixels.to(self._device, self._dtype), grids[0].size, num_grids=len(grids)
        )
        merge = self._ids.vision.spatial_merge_size
        rows, columns = grids[0].size
        return embeds, deepstack, (rows // merge, columns // merge)

    @property
    def _vision_end(self) -> int:
        return self._chat.vision_end_id

    @property
    def _positions_per_grid(self) -> int:
        return round(self._ids.positions_per_second * SECONDS_PER_GRID)


def checked_pcm(pcm: Pcm) -> Pcm:
    """One-dimensional float32 samples, or RequestError."""
    if pcm.ndim != 1 or pcm.dtype != np.float32:
        raise RequestError(f"audio must be [num_samples] float32, not {pcm.shape} {pcm.dtype}")
    return pcm


def checked_rgb(rgb: Rgb) -> Rgb:
    """A [height, width, 3] uint8 picture, or RequestError."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise RequestError(f"a picture must be [h, w, 3] uint8, not {rgb.shape} {rgb.dtype}")
    return rgb


def _frame_at(frames: list[tuple[float, Rgb]], time_s: float) -> Rgb:
    """The newest frame at a time (half a slot of tolerance); the first if none is so old."""
    chosen = frames[0][1]
    for captured_s, rgb in frames:
        if captured_s > time_s + FRAME_SLOT_S / 2:
            break
        chosen = rgb
    return chosen
