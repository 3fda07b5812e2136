"""One conversation of a made user with a scripted engine, on the media clock.

Faster than real time and the same each time: the clock moves when 20 ms of microphone have been
taken in and 20 ms of loudspeaker have been read. There is no network in between.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass

import numpy as np

from pipeline import events
from pipeline.bench.ear import Ear
from pipeline.bench.recording import Recording
from pipeline.bench.scripted_engine import ScriptedEngine, ScriptedResponse, Spoken
from pipeline.bench.user import STEP_S, Said, User
from pipeline.conversation import Conversation
from pipeline.listening.judges import Judges
from pipeline.messages import ENGINE_INPUT_HZ, ENGINE_OUTPUT_HZ, Pcm, Pcm16, Rgb
from pipeline.playout import Playout
from pipeline.session_config import SessionConfig, TurnDetection
from pipeline.vad import SileroVad

OUT_SAMPLES = round(STEP_S * ENGINE_OUTPUT_HZ)
CAMERA_STEPS = 10  # a picture each 200 ms
AUDIBLE = 10 ** (-45 / 20) * 32768  # root mean square
SETTLE_ROUNDS = 12  # of the event loop: the longest chain of tasks behind one step


class MediaClock:
    """Stands still until `advance`."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._count = itertools.count()

    def now_s(self) -> float:
        """Seconds of media since the beginning."""
        return self._now_s

    async def sleep_until(self, deadline_s: float) -> None:
        """Wait until the media have come so far."""
        if deadline_s > self._now_s + 1e-9:
            event = asyncio.Event()
            heapq.heappush(self._sleepers, (deadline_s, next(self._count), event))
            await event.wait()

    def advance(self, seconds: float) -> None:
        """Move on."""
        self._now_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now_s + 1e-9:
            heapq.heappop(self._sleepers)[2].set()


class WatchedPlayout(Playout):
    """Remembers when it was told to be less loud, or silent, or that all is well again."""

    def __init__(self, clock: MediaClock) -> None:
        super().__init__()
        self._clock = clock
        self.doubts: list[tuple[float, str]] = []

    def duck(self) -> None:
        """See `Playout.duck`."""
        self.doubts.append((self._clock.now_s(), "duck"))
        super().duck()

    def hold(self) -> None:
        """See `Playout.hold`."""
        self.doubts.append((self._clock.now_s(), "hold"))
        super().hold()

    def resume(self) -> None:
        """See `Playout.resume`."""
        self.doubts.append((self._clock.now_s(), "resume"))
        super().resume()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the agent is set up. `delay_s`: of the engine's first frame; `frame_s`: of each after.

    `ear`: reads words for the judges; `reading_s`: how long it takes.
    """

    detection: TurnDetection
    judges: Judges
    replies: tuple[Spoken, ...]
    delay_s: float
    frame_s: float
    ear: Ear | None = None
    reading_s: float = 0.03


async def talk(setup: Setup, user: User) -> Recording:
    """Let them talk until the user has said all that it wanted."""
    clock = MediaClock()
    playout = WatchedPlayout(clock)
    engine = ScriptedEngine(
        clock=clock,
        replies=setup.replies,
        first_audio_s=setup.delay_s,
        frame_s=setup.frame_s,
        ear=setup.ear,
        reading_s=setup.reading_s,
    )
    told: list[tuple[float, events.SessionEvent]] = []
    conversation = Conversation(
        engine,
        config=SessionConfig(instructions="", turn_detection=setup.detection),
        emit=lambda event: told.append((clock.now_s(), event)),
        vad=SileroVad(),
        clock=clock,
        playout=playout,
        judges=setup.judges,
    )
    running = asyncio.create_task(conversation.run())
    await _settle()
    spoken: list[Pcm] = []
    heard: list[Pcm16] = [np.zeros(OUT_SAMPLES, np.int16)]  # what is read is heard in the next step
    frame_times: list[float] = []
    life = user.live()
    microphone: Pcm | None = next(life)
    while microphone is not None:
        if len(spoken) % CAMERA_STEPS == 0:
            conversation.append_frame(numbered_picture(len(frame_times)))
            frame_times.append(clock.now_s())
        clock.advance(STEP_S)  # the sound has been recorded by now
        await conversation.append_audio(microphone, rate_hz=ENGINE_INPUT_HZ)
        await _settle()
        heard.append(playout.read(OUT_SAMPLES))
        spoken.append(microphone)
        try:
            microphone = life.send(_is_audible(heard[-1]))
        except StopIteration:
            microphone = None
    await conversation.aclose()
    await running
    agent = np.concatenate(heard)
    return Recording(
        seed=user.seed,
        said=user.said,
        told=told,
        user=np.concatenate(spoken),
        agent=agent,
        cuts=_cuts(told, engine.responses, agent),
        picture_ages_s=_picture_ages_s(user.said, engine.responses, frame_times),
        num_underruns=playout.num_underruns,
        doubts=playout.doubts,
    )


def numbered_picture(number: int) -> Rgb:
    """A small picture that says its number."""
    return np.full((4, 4, 3), (number % 256, number // 256 % 256, 0), np.uint8)


def picture_number(rgb: Rgb) -> int:
    """The number of a picture."""
    return int(rgb[0, 0, 0]) + 256 * int(rgb[0, 0, 1])


def _cuts(
    told: list[tuple[float, events.SessionEvent]],
    responses: list[ScriptedResponse],
    agent: Pcm16,
) -> list[tuple[int, int]]:
    """Words of each cut reply that sounded, beside those that its item holds."""
    played = {
        event.item.id: event.item
        for _, event in told
        if isinstance(event, events.ResponseItemStarted)
    }
    by_item = dict(zip(played, filter(_has_sounded, responses), strict=False))
    cuts = []
    for time_s, event in told:
        if isinstance(event, events.ItemTruncated):
            spoken = by_item[event.item_id].spoken
            heard = agent[: round(time_s * ENGINE_OUTPUT_HZ)]
            words = spoken.text_at(num_heard(heard, spoken.pcm))
            kept = getattr(played[event.item_id].content[0], "transcript", "")
            cuts.append((len(words.split()), len(kept.split())))
    return cuts


def num_heard(heard: Pcm16, said: Pcm16) -> int:
    """How many samples of what was said had sounded at the end of what was heard: where in it
    the last tenth of a second that is no silence lies.
    """
    size = ENGINE_OUTPUT_HZ // 10
    loud = np.flatnonzero(np.abs(heard.astype(np.int32)) > AUDIBLE)
    if not len(loud):
        return 0
    end = int(loud[-1]) + 1
    piece = heard[max(0, end - size) : end].astype(np.float64)
    whole = np.concatenate([np.zeros(size), said.astype(np.float64)])  # it may have begun just now
    length = 2 ** int(len(whole) + len(piece)).bit_length()
    products = np.fft.irfft(np.fft.rfft(whole, length) * np.conj(np.fft.rfft(piece, length)))
    sums = np.concatenate([[0.0], np.cumsum(np.square(whole))])
    energies = sums[len(piece) :] - sums[: len(sums) - len(piece)]
    likeness = products[: len(energies)] / np.sqrt(energies + 1)
    return max(0, int(np.argmax(likeness)) + len(piece) - size)


def _picture_ages_s(
    said: list[Said], responses: list[ScriptedResponse], frame_times: list[float]
) -> list[float]:
    """Age, at the end of the user's speech, of the newest picture that each reply knew."""
    ends = [s.off_s for s in said if s.sort in ("turn", "interruption")]
    ages_s = []
    for response in filter(_has_sounded, responses):
        before = [end for end in ends if end <= response.started_s]
        if response.frame is not None and before:
            ages_s.append(max(before) - frame_times[picture_number(response.frame.rgb)])
    return ages_s


def _has_sounded(response: ScriptedResponse) -> bool:
    """The engine's replies that became items are those that were confirmed and made sound."""
    return response.has_sounded


def _is_audible(pcm: Pcm16) -> bool:
    return bool(np.sqrt(np.mean(np.square(pcm.astype(np.float64)))) > AUDIBLE)


async def _settle() -> None:
    for _ in range(SETTLE_ROUNDS):
        await asyncio.sleep(0)
