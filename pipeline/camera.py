"""The newest camera frame, and which frames accompany speech: one at its start, then two a second.

Rule when full: there is one place, the newest frame wins. Times are media time of the speech, so
that frames lie beside the sound that was heard with them; a camera slower than the rate repeats its
last frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.messages import ENGINE_INPUT_HZ, Frame, Rgb

FRAME_INTERVAL_SAMPLES = ENGINE_INPUT_HZ // 2


@dataclass(slots=True)
class CameraSlot:
    """Holds what the camera saw last; None while it is off."""

    newest: Rgb | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is a frame to look at."""
        return self.newest is not None


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
            if slot.newest is not None:
                time_s = self._num_taken * FRAME_INTERVAL_SAMPLES / ENGINE_INPUT_HZ
                due.append(Frame(rgb=slot.newest, time_s=time_s))
            self._num_taken += 1
        return due
