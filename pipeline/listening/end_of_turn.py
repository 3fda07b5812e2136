"""Has the user finished, or only paused? Judged from how the last words were said.

`ProsodyJudge` hears final lengthening, the fall of pitch, the decay of loudness, filled pauses and
rate; of words it knows what an engine has read, where one has. `SmartTurnJudge` runs a Smart-Turn
network (ONNX) that the user has.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.errors import PipelineError
from pipeline.listening import network
from pipeline.listening.prosody import FRAMES_PER_S, Floats, Frames, analyse
from pipeline.messages import ENGINE_INPUT_HZ, Pcm, Reading

if TYPE_CHECKING:
    import onnxruntime  # type: ignore[import-untyped]

HEARD_S = 3.2  # how far back prosody is listened to
MIN_RUN_FRAMES = 4
EAGER = 2.1  # log odds: ends are commoner than pauses, and 19 of 20 shall be answered at once


class EndOfTurnJudge(Protocol):
    """Stateless; may be shared by sessions."""

    def probability(self, pcm: Pcm, reading: Reading | None = None) -> float:
        """How likely the turn is complete, 0..1.

        pcm: [num_samples] float32 at 16 kHz, the turn so far with the silence that has passed.
        reading: the words that an engine has read in it.
        """


class ProsodyJudge:
    """See the module's docstring. About ten milliseconds of one core for each pause."""

    def __init__(self) -> None:
        self._network = network.load("end_of_turn")

    def probability(self, pcm: Pcm, reading: Reading | None = None) -> float:
        """See `EndOfTurnJudge.probability`."""
        heard = features(pcm)
        alone = float(self._network(heard)[1])
        if reading is None or not reading.is_of_the_model:
            return alone
        with_words = network.load("end_of_turn", network.WORD_JUDGES)
        complete = float(with_words(features_with_words(heard, alone, reading))[1])
        return float(1 / (1 + np.exp(-network.log_odds(complete) - EAGER)))


class JudgeUnavailableError(PipelineError):
    """A judge can not be loaded; the message says why."""

    exit_code = 2


class SmartTurnJudge:
    """A Smart-Turn network of version 3: log-mel of the last eight seconds in, one number out.

    Raises:
        JudgeUnavailableError: the file is missing, no ONNX network, or of another shape.
    """

    HEARD_SAMPLES = 8 * ENGINE_INPUT_HZ
    NUM_MELS, NUM_FRAMES = 80, 800

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise JudgeUnavailableError(f"{path}: there is no such file")
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self._session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except ImportError as error:
            raise JudgeUnavailableError(f"{error}: pip install onnxruntime") from error
        except Exception as error:  # onnxruntime's errors share no class of their own
            reason = str(error).splitlines()[0]
            raise JudgeUnavailableError(f"{path}: not an ONNX network ({reason})") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or list(inputs[0].shape[1:]) != [self.NUM_MELS, self.NUM_FRAMES]:
            raise JudgeUnavailableError(
                f"{path}: a network of one input [batch, {self.NUM_MELS}, {self.NUM_FRAMES}] is "
                f"needed, this one has {[(each.name, each.shape) for each in inputs]}"
            )
        self._input = inputs[0].name

    def probability(self, pcm: Pcm, reading: Reading | None = None) -> float:
        """See `EndOfTurnJudge.probability`. Makes nothing of words."""
        heard = pcm[-self.HEARD_SAMPLES :]
        heard = np.pad(heard, (self.HEARD_SAMPLES - len(heard), 0))
        heard = (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7)
        output: Any = self._session.run(None, {self._input: _whisper_mel(heard)[None]})[0]
        return float(np.clip(np.ravel(output)[0], 0, 1))


def features(pcm: Pcm) -> Floats:
    """What the network is given of a turn. pcm as for `EndOfTurnJudge.probability`."""
    frames = analyse(pcm[-round(HEARD_S * ENGINE_INPUT_HZ) :])
    loud = np.flatnonzero(frames.loud)
    end = int(loud[-1]) + 1 if len(loud) else len(frames)
    start = _phrase_start(frames.loud, end)
    parts = [
        _rhythm(frames, start, end, len(pcm) / ENGINE_INPUT_HZ),
        _melody(frames, end),
        _loudness(frames, end),
        _colour(frames, end),
    ]
    return np.concatenate(parts).astype(np.float32)


def features_with_words(heard: Floats, alone: float, reading: Reading) -> Floats:
    """What the network that knows words is given: `features`, what was made of them, the words."""
    return np.concatenate([heard, [network.log_odds(alone)], network.of_words(reading)])


def _rhythm(frames: Frames, start: int, end: int, turn_s: float) -> Floats:
    """How long turn, phrase and last voiced sound are, how fast it went, how steady it ended."""
    runs = _runs(frames.voiced[:end])
    lengths = np.array([b - a for a, b in runs] or [1], np.float32)
    flux = np.abs(np.diff(frames.bands[:end], axis=0)).mean(axis=1) if end > 1 else np.zeros(1)
    speech = frames.loud[:end].sum() + 1
    steadiness = [flux[-count:].mean() / (flux.mean() + 1e-3) for count in (12, 25, 45)]
    return np.array(
        [
            np.log(turn_s + 0.1),
            np.log((end - start) / FRAMES_PER_S + 0.05),
            speech / max(1, end),
            np.log(lengths[-1]),
            np.log(lengths[-1] / lengths.mean()),
            (end - runs[-1][1]) / 20 if runs else 2.0,
            len(runs) / speech * FRAMES_PER_S,
            frames.voiced[max(0, end - 40) : end].mean(),
            *steadiness,
        ],
        np.float32,
    )


def _melody(frames: Frames, end: int) -> Floats:
    """Where the pitch ends within its own range, and whether it falls or rises."""
    where = np.flatnonzero(frames.voiced[:end])
    if len(where) < 6:
        return np.zeros(11, np.float32)
    pitch = frames.f0[where]
    low, middle, high = np.quantile(pitch, (0.1, 0.5, 0.9))
    span = max(float(high - low), 0.05)
    ends = [float(np.median(pitch[where >= where[-1] - count])) for count in (8, 20, 40)]
    slopes = [_slope(where, pitch, where[-1] - count) for count in (15, 30, 60, 120)]
    return np.array(
        [
            *((value - middle) for value in ends),
            (ends[0] - low) / span,
            *slopes,
            span,
            float(pitch[-1] - middle),
            float(pitch[where >= where[-1] - 30].min() - low),
        ],
        np.float32,
    )


def _loudness(frames: Frames, end: int) -> Floats:
    """How loud it ended beside the whole, and how quickly it died away."""
    level = frames.level_db[:end]
    usual = float(level[frames.loud[:end]].mean()) if frames.loud[:end].any() else float(level[-1])
    late = [float(level[-count:].mean()) - usual for count in (5, 10, 20, 40, 80)]
    where = np.arange(len(level))
    slopes = [_slope(where, level, len(level) - count) for count in (10, 20, 40)]
    after = frames.level_db[end : end + 10]
    drop = float(after.mean()) - usual if len(after) else -30.0
    return np.array([value / 10 for value in (*late, *slopes, max(drop, -40.0))], np.float32)


def _colour(frames: Frames, end: int) -> Floats:
    """Which sounds it ended with: a vowel that fills a pause is long and neutral."""
    bands = frames.bands[:end]
    usual = bands[frames.loud[:end]].mean(axis=0) if frames.loud[:end].any() else bands.mean(axis=0)
    return np.concatenate([bands[-10:].mean(axis=0) - usual, bands[-30:].mean(axis=0) - usual])


def _slope(where: Any, values: Any, since: int) -> float:
    """Change a second of the values that lie at frames from `since` on."""
    kept = where >= since
    if kept.sum() < 3:
        return 0.0
    x, y = where[kept] / FRAMES_PER_S, values[kept]
    x = x - x.mean()
    return float(np.clip((x * y).sum() / ((x * x).sum() + 1e-4), -60, 60))


def _runs(flags: Any) -> list[tuple[int, int]]:
    """[start, end) of each run that is not too short."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [(a, b) for a, b in pairs if b - a >= MIN_RUN_FRAMES]


def _phrase_start(loud: Any, end: int) -> int:
    """Where the sound behind the last pause of 100 ms begins."""
    quiet = np.flatnonzero(~loud[:end])
    for index in quiet[::-1]:
        if index >= 9 and not loud[index - 9 : index + 1].any():
            return int(index) + 1
    return 0


def _whisper_mel(pcm: Pcm) -> Floats:
    """[80, 800] log-mel as Whisper's feature extractor makes it (25 ms windows, 10 ms hop)."""
    padded = np.pad(pcm, 200, mode="reflect")
    cut = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][: SmartTurnJudge.NUM_FRAMES]
    power = np.square(np.abs(np.fft.rfft(cut * np.hanning(401)[:-1], 400)))
    mel = np.log10(np.maximum(_slaney_filters().T @ power.T, 1e-10))
    return np.asarray((np.maximum(mel, mel.max() - 8) + 4) / 4, np.float32)


def _slaney_filters() -> Floats:
    """[201, 80] area-normalised triangles on the scale that is linear below 1 kHz."""
    step = np.log(6.4) / 27
    top = 15 + np.log(8000 / 1000) / step
    mels = np.linspace(0, top, SmartTurnJudge.NUM_MELS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    hz = np.fft.rfftfreq(400, 1 / ENGINE_INPUT_HZ)[:, None]
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return np.asarray(triangles, np.float32)
