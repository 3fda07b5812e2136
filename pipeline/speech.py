"""The user's speech that is still open.

Kept here, and mirrored into the engine's log while it grows.

What is kept serves to say it again: to an engine that was restarted, or behind something that had
to go before it (a typed item, a reply). Bounds: `MAX_SPEECH_SAMPLES` of sound, the owner ends the
turn there; where the input is a plain buffer instead of a turn, `keep_newest` forgets the oldest
sound and the engine gets the rest at the end only. Frames kept for a repetition are thinned beyond
`MAX_FRAME_BYTES` (the engine had them all).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.camera import CameraSlot, FramePacer
from pipeline.engine_port import Context, Mark
from pipeline.items import SpeechContent
from pipeline.messages import ENGINE_INPUT_HZ, Frame, Pcm

MAX_SPEECH_SAMPLES = 300 * ENGINE_INPUT_HZ
MAX_FRAME_BYTES = 64 * 2**20
REPEAT_SAMPLES = 2 * ENGINE_INPUT_HZ


class OpenSpeech:
    """See the module's docstring.

    Args:
        item_id: id of the user item that it will become.
        start_sample: position of its first sample on the input.
        camera: where its frames come from; whether it is on at the start decides for the whole
            speech.
    """

    def __init__(self, *, item_id: str, start_sample: int, camera: CameraSlot) -> None:
        self.item_id = item_id
        self.start_sample = start_sample
        self.num_samples = 0
        self.num_forgotten = 0
        self.is_held = False  # shall not stream for the moment
        self._camera = camera
        self._has_camera = camera.is_on
        self._pacer = FramePacer()
        self._chunks: list[Pcm] = []
        self._frames: list[Frame] = []
        self._context: Context | None = None
        self._mark: Mark | None = None

    @property
    def is_streaming(self) -> bool:
        """Whether an engine's log has it, as far as it goes."""
        return self._context is not None

    # ------------------------------------------------------------------ growing
    def append(self, pcm: Pcm) -> None:
        """More sound, and the frames that have come due."""
        self._chunks.append(pcm)
        self.num_samples += len(pcm)
        if self._context is not None:
            self._context.append_audio(pcm)
        if not self._has_camera:
            return
        for due in self._pacer.take_due(self._camera, self.num_samples + self.num_forgotten):
            frame = _earlier(due, self.num_forgotten)
            self._frames.append(frame)
            if self._context is not None:
                self._context.append_frame(frame)
        self._thin_frames()

    def keep_newest(self, max_samples: int) -> None:
        """Forget sound until at most so much is left. Only while it is not streaming."""
        assert not self.is_streaming
        while self._chunks and self.num_samples - len(self._chunks[0]) >= max_samples:
            self._forget(self._chunks.pop(0))

    def content(self) -> SpeechContent:
        """What it is as a finished message."""
        return SpeechContent(pcm=_join(self._chunks), frames=tuple(self._frames))

    def newest(self, max_samples: int) -> Pcm:
        """The last samples of it."""
        count, kept = 0, 0
        while count < max_samples and kept < len(self._chunks):
            kept += 1
            count += len(self._chunks[-kept])
        return _join(self._chunks[len(self._chunks) - kept :])[-max_samples:]

    # ------------------------------------------------------------------ the engine's side
    def stream(self, context: Context) -> None:
        """Say all of it to an engine (again), and go on with what is appended from now on."""
        self._mark = context.mark()
        context.begin_speech(has_camera=self._has_camera)
        for part in self._in_order():
            if isinstance(part, Frame):
                context.append_frame(part)
            else:
                context.append_audio(part)
        self._context = context

    def detach(self) -> None:
        """Its engine is gone, or has been told to forget the whole log."""
        self._context = None
        self._mark = None

    def withdraw(self) -> None:
        """Take it back out of the engine's log, as if it had never been there."""
        if self._context is not None and self._mark is not None:
            self._context.rollback(self._mark)
        self.detach()

    def end(self) -> bool:
        """Close it; returns whether the engine has it."""
        if self._context is None or not self._context.is_alive:
            return False
        self._context.end_speech()
        return True

    # ------------------------------------------------------------------ parts
    def _in_order(self) -> Iterator[Pcm | Frame]:
        """Sound in large pieces, each frame behind the sound up to its time."""
        pcm = _join(self._chunks)
        done = 0
        for frame in self._frames:
            end = min(round(frame.time_s * ENGINE_INPUT_HZ), len(pcm))
            yield from _pieces(pcm[done:end])
            done = max(done, end)
            yield frame
        yield from _pieces(pcm[done:])

    def _thin_frames(self) -> None:
        """Every second frame goes; the last one stays, for it may still be one half of a grid."""
        if sum(frame.rgb.nbytes for frame in self._frames) > MAX_FRAME_BYTES:
            self._frames = self._frames[:-1:2] + self._frames[-1:]

    def _forget(self, pcm: Pcm) -> None:
        self.num_samples -= len(pcm)
        self.num_forgotten += len(pcm)
        self.start_sample += len(pcm)
        moved = [_earlier(frame, len(pcm)) for frame in self._frames]
        self._frames = [frame for frame in moved if frame.time_s >= 0]


def _earlier(frame: Frame, num_samples: int) -> Frame:
    return Frame(rgb=frame.rgb, time_s=frame.time_s - num_samples / ENGINE_INPUT_HZ)


def _pieces(pcm: Pcm) -> Iterator[Pcm]:
    for start in range(0, len(pcm), REPEAT_SAMPLES):
        yield pcm[start : start + REPEAT_SAMPLES]


def _join(chunks: list[Pcm]) -> Pcm:
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
