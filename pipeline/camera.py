"""The newest camera frame, and which frames accompany speech: one at its start, then two a second.

Rule when full: there is one place, the newest frame wins. Times are media time of the speech, so
that frames lie beside the sound that was heard with them; a camera slower than the rate repeats its
last frame.

A frame costs its owner work before it gets here (it is shrunk). `SceneWatch` says which ones are
worth it: while the scene is still and nobody speaks, one in two seconds; where something moves or
speech wants frames, every one up to the camera's rate. A frame that was looked at and showed
nothing new makes the newest one as fresh as itself (`CameraSlot.confirm`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.clock import Clock
from pipeline.messages import ENGINE_INPUT_HZ, Frame, Rgb

FRAME_INTERVAL_SAMPLES = ENGINE_INPUT_HZ // 2
STILL_PERIOD_S = 2.0
THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT = 32, 24

_BLOCK = 4  # thumbnail pixels: what moves may be small
_MIN_CHANGE = 10.0  # of 255, the mean of a block; noise of a dark camera stays below

Thumbnail = npt.NDArray[np.uint8]  # [THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH], grey


@dataclass(slots=True)
class CameraSlot:
    """Holds what the camera saw last; None while it is off.

    `on_taken` is called with the age in seconds of each frame that speech takes: how long ago the
    camera was last known to see this.
    """

    clock: Clock
    newest: Rgb | None = None
    on_taken: Callable[[float], None] = field(default=lambda _: None)
    _seen_s: float = 0.0
    _is_wanted: bool = False

    @property
    def is_on(self) -> bool:
        """Whether there is a frame to look at."""
        return self.newest is not None

    def put(self, rgb: Rgb) -> None:
        """The camera sees this now."""
        self.newest = rgb
        self.confirm()

    def confirm(self) -> None:
        """The camera still sees what it saw last."""
        self._seen_s = self.clock.now_s()

    def take(self) -> Rgb | None:
        """The newest frame, for speech."""
        self._is_wanted = True
        if self.newest is not None:
            self.on_taken(self.clock.now_s() - self._seen_s)
        return self.newest

    def was_wanted(self) -> bool:
        """Whether speech took a frame since the last call of this."""
        was_wanted, self._is_wanted = self._is_wanted, False
        return was_wanted


@dataclass(slots=True)
class FramePacer:
    """When the frames of one speech are due."""

    _num_taken: int = 0

    def take_due(self, slot: CameraSlot, num_samples: int) -> list[Frame]:
        """The frames that are due once the speech is `num_samples` (16 kHz) long.

        None where the camera is off.
        """
        due: list[Frame] = []
        while self._num_taken * FRAME_INTERVAL_SAMPLES <= num_samples:
            newest = slot.take()
            if newest is not None:
                time_s = self._num_taken * FRAME_INTERVAL_SAMPLES / ENGINE_INPUT_HZ
                due.append(Frame(rgb=newest, time_s=time_s))
            self._num_taken += 1
        return due


class SceneWatch:
    """Which camera frames are worth taking, sans-I/O.

    Args:
        period_s: between frames, where something moves or somebody speaks.
    """

    def __init__(self, *, period_s: float) -> None:
        self._period_s = period_s
        self._taken: Thumbnail | None = None
        self._taken_s = 0.0
        self._wanted_until_s = 0.0

    def is_new(self, thumbnail: Thumbnail) -> bool:
        """Whether this shows something else than the frame taken last."""
        if self._taken is None:
            return True
        change = np.abs(thumbnail.astype(np.int16) - self._taken)
        shape = (THUMBNAIL_HEIGHT // _BLOCK, _BLOCK, THUMBNAIL_WIDTH // _BLOCK, _BLOCK)
        return bool(change.reshape(shape).mean(axis=(1, 3)).max() >= _MIN_CHANGE)

    def is_due(self, now_s: float, *, is_new: bool, is_wanted: bool) -> bool:
        """Whether to take a frame now. `is_wanted`: speech took one since the last call."""
        if is_wanted:  # and will take the next one half a second later
            self._wanted_until_s = now_s + 2 * FRAME_INTERVAL_SAMPLES / ENGINE_INPUT_HZ
        if self._taken is None:
            return True
        is_quick = is_new or now_s < self._wanted_until_s
        return now_s - self._taken_s >= (self._period_s if is_quick else STILL_PERIOD_S)

    def take(self, thumbnail: Thumbnail, now_s: float) -> None:
        """This frame is taken."""
        self._taken, self._taken_s = thumbnail, now_s
