"""Voice activity: how likely a short window of 16 kHz sound is speech.

What follows from it is `pipeline.turns`.

`SileroVad` runs the ONNX file that the silero-vad package ships; the package itself is never
imported, because that imports torch and sets its number of threads for the whole process.
`EnergyVad` is the fallback without it.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from pipeline.messages import ENGINE_INPUT_HZ, Pcm

if TYPE_CHECKING:
    import onnxruntime  # type: ignore[import-untyped]

CONTEXT_SAMPLES = 64


class VadUnavailableError(PipelineError):
    """The detector can not run here; the message names the package to install."""


class Vad(Protocol):
    """A detector with state: windows must be given in order, one instance per session."""

    @property
    def window_samples(self) -> int:
        """Length of a window at 16 kHz."""

    def probability(self, window: Pcm) -> float:
        """How likely the next window is speech, 0..1. window: [window_samples] float32."""

    def reset(self) -> None:
        """Forget what was heard."""


class SileroVad:
    """Silero's network: windows of 32 ms, about 0.1 ms of one core each.

    Raises:
        VadUnavailableError: onnxruntime or the silero-vad package is not installed.
    """

    window_samples = 512

    def __init__(self) -> None:
        self._session = _shared_session()
        self._rate = np.array(ENGINE_INPUT_HZ, dtype=np.int64)
        self._state: npt.NDArray[np.float32]
        self._input: npt.NDArray[np.float32]
        self.reset()

    def probability(self, window: Pcm) -> float:
        """See `Vad.probability`."""
        assert len(window) == self.window_samples, len(window)
        # the network sees the last 64 samples of the window before, too
        self._input[0, :CONTEXT_SAMPLES] = self._input[0, -CONTEXT_SAMPLES:]
        self._input[0, CONTEXT_SAMPLES:] = window
        output, self._state = self._session.run(
            None, {"input": self._input, "state": self._state, "sr": self._rate}
        )
        return float(output[0, 0])

    def reset(self) -> None:
        """See `Vad.reset`."""
        self._state = np.zeros((2, 1, 128), np.float32)
        self._input = np.zeros((1, CONTEXT_SAMPLES + self.window_samples), np.float32)


class EnergyVad:
    """Loudness over a slowly following noise floor.

    Good in quiet rooms, blind to what the sound is.
    """

    window_samples = 512
    _ATTACK_DB = 0.06  # per window: how fast the floor follows a room that gets louder

    def __init__(self, *, floor_dbfs: float = -60.0, margin_db: float = 12.0) -> None:
        self._first_floor = floor_dbfs
        self._margin_db = margin_db
        self._floor = floor_dbfs

    def probability(self, window: Pcm) -> float:
        """0.5 where the window is `margin_db` louder than the floor, rising by 0.1 a decibel."""
        level = 10 * np.log10(float(np.mean(np.square(window))) + 1e-10)
        self._floor = max(self._first_floor, min(level, self._floor + self._ATTACK_DB))
        return float(np.clip(0.5 + (level - self._floor - self._margin_db) / 10, 0, 1))

    def reset(self) -> None:
        """See `Vad.reset`."""
        self._floor = self._first_floor


def silero_model_path() -> Path:
    """Where the installed silero-vad package keeps its network.

    Raises:
        VadUnavailableError: it is not installed, or ships no such file.
    """
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise VadUnavailableError("the voice detector is missing: pip install silero-vad")
    path = Path(spec.origin).parent / "data" / "silero_vad.onnx"
    if not path.is_file():
        raise VadUnavailableError(f"{path} is missing: pip install --force-reinstall silero-vad")
    return path


@functools.cache
def _shared_session() -> onnxruntime.InferenceSession:
    """One network for all sessions: it is stateless, the state travels with the call."""
    try:
        import onnxruntime
    except ImportError as error:
        raise VadUnavailableError(
            f"the voice detector can not run ({error}): pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a window is far too small to be shared between cores
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(silero_model_path()), options, providers=["CPUExecutionProvider"]
    )
