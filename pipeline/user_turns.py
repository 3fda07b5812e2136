"""The user's side: microphone samples become turns, turns become items.

Samples are cut into windows; with turn detection the machine of `pipeline.turns` says where speech
begins and ends, without it everything is collected until the owner commits or clears. Either way
the sound streams into the engine's log while it comes. Works on media time only, so that sound may
come faster than it was spoken. Bound of a turn: `MAX_SPEECH_SAMPLES`; a detected turn ends there
with an error, a plain buffer keeps the newest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline import events
from pipeline.barge_in import BargeIn
from pipeline.camera import CameraSlot
from pipeline.clock import Clock
from pipeline.endpointing import Pause
from pipeline.errors import BadInputError
from pipeline.history import new_id
from pipeline.input_buffer import InputBuffer, Window, num_kept
from pipeline.listener import Listener
from pipeline.listening.interruption import VoiceLevel
from pipeline.listening.judges import Judges, our_judges
from pipeline.log import ConversationLog
from pipeline.messages import ENGINE_INPUT_HZ, Pcm
from pipeline.overhearing import Overhearing
from pipeline.reply import TurnEnd
from pipeline.session_config import SessionConfig, TurnDetection
from pipeline.speech import MAX_SPEECH_SAMPLES, OpenSpeech
from pipeline.turns import (
    SAMPLES_PER_MS,
    EchoGuard,
    SpeechResume,
    SpeechStart,
    SpeechStop,
    TentativeStop,
    TurnMachine,
)
from pipeline.vad import Vad

MIN_COMMIT_MS = 100
JUDGED_SAMPLES = 8 * ENGINE_INPUT_HZ  # as much of a turn as any judge listens to
BEFORE_ONSET_SAMPLES = 150 * SAMPLES_PER_MS
CUT_OFF_SAMPLES = 1_200 * SAMPLES_PER_MS  # who speaks again so soon had not finished


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTurn:
    """The newest of what was said in the turn before, and where its speech ended."""

    pcm: Pcm
    speech_end_sample: int


class UserTurns:
    """See the module's docstring."""

    def __init__(
        self,
        log: ConversationLog,
        *,
        config: SessionConfig,
        vad: Vad,
        clock: Clock,
        camera: CameraSlot,
        emit: events.Emit,
        listener: Listener,
        echo_guard: EchoGuard | None = None,
        judges: Judges | None = None,
    ) -> None:
        self._log = log
        self._settings = settings = config.turn_detection
        self._vad = vad
        self._clock = clock
        self._camera = camera
        self._emit = emit
        self._listener = listener
        self._machine = TurnMachine(settings or TurnDetection(), echo_guard=echo_guard)
        self._buffer = InputBuffer(
            window_samples=vad.window_samples, max_kept_samples=num_kept(settings)
        )
        self._buffer.reduce_noise(config.noise_reduction)
        self._floor_sample = 0
        self._floor_ms = 0.0
        self._judges = judges or our_judges()
        self._level = VoiceLevel()
        self._overhearing = Overhearing(log)
        self._barge_in: BargeIn | None = None
        self._pause: Pause | None = None  # behind a tentative end
        self._past: PastTurn | None = None

    # ------------------------------------------------------------------ state
    @property
    def input_ms(self) -> int:
        """The input clock."""
        return int(self._buffer.clock_ms)

    @property
    def is_hearing(self) -> bool:
        """Whether a detected turn is open."""
        is_open = self._settings is not None and self._log.speech is not None
        return is_open and not self.is_doubting

    @property
    def is_doubting(self) -> bool:
        """Whether there is speech over a reply that may be no turn."""
        return self._barge_in is not None

    def configure(self, config: SessionConfig) -> None:
        """Take other settings, at any time.

        A turn that is open when detection is switched off stays as a buffer.
        """
        self._be_sure()
        self._buffer.reduce_noise(config.noise_reduction)
        before, self._settings = self._settings, (settings := config.turn_detection)
        self._buffer.max_kept_samples = num_kept(settings)
        if settings is not None:
            self._machine.configure(settings)
        if self._machine.is_tentative and settings is not None and self._log.speech is not None:
            self._begin_pause()
        if before is None and settings is not None:
            self._log.drop_speech()
            self._vad.reset()
            self._set_floor()
        elif before is not None and settings is None:
            self._let_open_turn_be_a_buffer()

    def _let_open_turn_be_a_buffer(self) -> None:
        speech = self._log.speech
        self._set_floor()
        if speech is not None:
            self._floor_ms -= speech.num_samples / SAMPLES_PER_MS
            self._emit_stopped(speech.item_id, self._buffer.end_sample)

    # ------------------------------------------------------------------ sound
    def count(self, num_samples: int, rate_hz: int) -> None:
        """Move the input clock on by what has arrived and is about to be heard."""
        self._buffer.count(num_samples, rate_hz)

    def hear(self, pcm: Pcm, rate_hz: int) -> None:
        """Take in samples that were counted.

        A tenth of a second at most, for this does not yield.
        """
        for window in self._buffer.push(pcm, rate_hz):
            if self._settings is None:
                self._collect(window.pcm, window.start_sample)
            else:
                self._detect(window)

    def _collect(self, pcm: Pcm, start_sample: int) -> None:
        if self._log.speech is None:
            self._log.begin_speech(self._open(start_sample))
        self._log.append_speech(pcm)
        self._log.roll_speech(MAX_SPEECH_SAMPLES)

    def _detect(self, window: Window) -> None:
        if self._pause is not None:
            self._pause.withheld.append(window.pcm)
        elif self._log.speech is not None:
            self._log.append_speech(window.pcm)
        if self._pause is not None and self._overhearing.take() is not None:
            self._judge(self._pause)
        edge = self._machine.feed(
            self._vad.probability(window.pcm),
            start_sample=window.start_sample,
            end_sample=window.end_sample,
            is_guarded=self._listener.is_echoing,
        )
        if self._barge_in is not None:
            self._weigh(self._barge_in, edge if isinstance(edge, SpeechStop) else None)
        elif isinstance(edge, SpeechStart):
            self._start(edge)
        elif isinstance(edge, TentativeStop):
            self._begin_pause()
        elif isinstance(edge, SpeechResume):
            self._go_on()
        elif isinstance(edge, SpeechStop):
            self._stop(edge)
        elif self._log.speech is not None and self._log.speech.num_samples >= MAX_SPEECH_SAMPLES:
            message, code = "the turn was too long and has been ended", "turn_too_long"
            self._emit(events.Failed(message=message, code=code))
            self.end_turn()
        if self._pause is not None and self._pause.is_due(window.end_sample):
            self._listener.turn_may_end()

    def _open(self, start_sample: int) -> OpenSpeech:
        return OpenSpeech(item_id=new_id("item"), start_sample=start_sample, camera=self._camera)

    # ------------------------------------------------------------------ turns
    def _start(self, edge: SpeechStart) -> None:
        pre_roll = self._buffer.since(edge.at_sample)
        speech = self._open(self._buffer.end_sample - len(pre_roll))
        self._log.begin_speech(speech)
        settings = self._settings
        is_judged = settings and settings.judges_interruptions and settings.interrupt_response
        if is_judged and self._listener.is_echoing:
            speech.is_held = True
            self._barge_in = BargeIn(
                self._judges.interruption, self._overhearing, self._machine.onset_sample
            )
            self._listener.output_doubted("duck")
        else:
            self._announce(speech)
        self._log.append_speech(pre_roll)
        if self._barge_in is not None:
            self._weigh(self._barge_in, None)

    def _announce(self, speech: OpenSpeech) -> None:
        """This is a turn."""
        self._barge_in = None
        start_ms = speech.start_sample // SAMPLES_PER_MS
        self._emit(events.SpeechStarted(item_id=speech.item_id, audio_start_ms=start_ms))
        # the engine must be told first where the reply was cut, or it has to place the speech twice
        speech.is_held = self._listener.speech_started()

    def _weigh(self, barge_in: BargeIn, stop: SpeechStop | None) -> None:
        """Is it an interruption? stop: it is over."""
        speech = self._log.speech
        assert speech is not None
        end_sample = self._buffer.end_sample
        verdict = barge_in.look(
            speech.newest(end_sample - self._machine.onset_sample + BEFORE_ONSET_SAMPLES),
            end_sample=end_sample,
            speech_end_sample=self._machine.speech_end_sample,
            usual_db=self._level.usual_db,
            is_last=stop is not None,
        )
        is_silent = not self._listener.is_echoing and not barge_in.is_dismissed
        if verdict == "interruption" or (is_silent and stop is None):
            self._be_sure()
            if stop is not None:
                self._stop(stop)
            elif self._machine.is_tentative:  # it was a short one
                self._begin_pause()
        elif verdict == "over" or stop is not None or speech.num_samples >= MAX_SPEECH_SAMPLES:
            self._dismiss()
        elif verdict == "hold":
            self._listener.output_doubted("hold")
        elif verdict == "dismiss":
            self._listener.output_doubted("resume")

    def _be_sure(self) -> None:
        """Whatever is in doubt counts as a turn that goes on."""
        if self._barge_in is not None and self._log.speech is not None:
            self._announce(self._log.speech)
            self._listener.output_doubted("resume")
        self._go_on()

    def _dismiss(self) -> None:
        """The sound over the reply was no turn."""
        self._barge_in = None
        self._log.drop_speech()
        self._set_floor()
        self._listener.output_doubted("resume")

    def _begin_pause(self) -> None:
        """The turn is tentatively over."""
        heard = self._heard()
        self._pause = Pause(
            heard=heard,
            speech_end_sample=self._machine.speech_end_sample,
            is_speculated=not self._machine.settings.speculates,
        )
        is_judged = self._machine.settings.eagerness is not None
        self._overhearing.begin(heard if is_judged else None)
        self._judge(self._pause)

    def _heard(self) -> Pcm:
        """What the end of the open turn is judged by: of somebody who was cut off and goes on, also
        what he had said before.
        """
        assert self._log.speech is not None
        heard, past = self._log.speech.newest(JUDGED_SAMPLES), self._past
        if past is None or self._machine.onset_sample - past.speech_end_sample > CUT_OFF_SAMPLES:
            return heard
        return np.concatenate([past.pcm, heard])[-JUDGED_SAMPLES:]

    def _judge(self, pause: Pause) -> None:
        judge, reading = self._judges.end_of_turn, self._overhearing.newest
        self._machine.expect(pause.needed_ms(self._machine.settings, judge, reading))

    def _go_on(self) -> None:
        """The turn is not over."""
        pause, self._pause = self._pause, None
        if pause is None:
            return
        self._log.retract()
        for pcm in pause.withheld:
            self._log.append_speech(pcm)

    def _stop(self, edge: SpeechStop) -> None:
        speech = self._log.speech
        assert speech is not None
        self._emit_stopped(speech.item_id, edge.at_sample)
        if self._machine.settings.judges_interruptions:
            self._level.learn(speech.newest(JUDGED_SAMPLES))
        self._past = PastTurn(pcm=self._heard(), speech_end_sample=edge.speech_end_sample)
        self._commit()
        silence_s = (self._buffer.clock_ms - edge.speech_end_sample / SAMPLES_PER_MS) / 1000
        self._listener.turn_ended(
            TurnEnd(
                speech_end_s=self._clock.now_s() - silence_s,
                turn_end_ms=(self._buffer.end_sample - edge.speech_end_sample) / SAMPLES_PER_MS,
            )
        )

    def end_turn(self) -> None:
        """End an open detected turn now, as if silence had lasted long enough."""
        if self._barge_in is not None:
            self._dismiss()
        if not self.is_hearing:
            return
        self._go_on()
        self._take_rest()
        speech_end_sample = self._machine.speech_end_sample
        at_sample = self._buffer.end_sample
        self._machine.reset(at_sample)
        self._stop(SpeechStop(at_sample=at_sample, speech_end_sample=speech_end_sample))

    def time_out(self) -> None:
        """The user says nothing: let the newest silence be a turn of its own."""
        if self._settings is None or self._log.speech is not None:
            return
        silence = self._buffer.since(self._pre_roll_sample())
        num_missing = max(0, MIN_COMMIT_MS * SAMPLES_PER_MS - len(silence))
        silence = np.concatenate([np.zeros(num_missing, np.float32), silence])
        end_sample = self._buffer.end_sample
        speech = self._open(max(0, end_sample - len(silence)))
        self._log.begin_speech(speech)
        self._log.append_speech(silence)
        self._emit(
            events.TimeoutTriggered(
                item_id=speech.item_id,
                audio_start_ms=speech.start_sample // SAMPLES_PER_MS,
                audio_end_ms=end_sample // SAMPLES_PER_MS,
            )
        )
        self._commit()
        self._listener.turn_ended(TurnEnd(speech_end_s=self._clock.now_s(), turn_end_ms=None))

    def commit(self) -> TurnEnd:
        """End the turn by hand: what is buffered becomes an item.

        Raises:
            BadInputError: that is less than 100 ms.
        """
        self._be_sure()
        buffered_ms = self._buffered_ms()
        if buffered_ms < MIN_COMMIT_MS:
            raise BadInputError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {buffered_ms:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._take_rest()
        if self._log.speech is None:
            pre_roll = self._buffer.since(self._pre_roll_sample())
            self._collect(pre_roll, self._buffer.end_sample - len(pre_roll))
        elif self._settings is not None:
            self._emit_stopped(self._log.speech.item_id, self._buffer.end_sample)
        self._commit()
        return TurnEnd(speech_end_s=self._clock.now_s(), turn_end_ms=None)

    def clear(self) -> None:
        """Drop the buffer, or the turn that is open."""
        self._pause = None
        if self._barge_in is not None:
            self._dismiss()
        self._log.drop_speech()
        self._buffer.take_rest()
        self._set_floor()
        self._emit(events.Cleared())

    # ------------------------------------------------------------------ parts
    def _commit(self) -> None:
        speech = self._log.speech
        assert speech is not None
        self._pause = None
        forgotten_s = speech.num_forgotten / SAMPLES_PER_MS / 1000
        item, previous_id = self._log.commit_speech()
        self._set_floor()
        self._emit(events.Committed(item_id=item.id, previous_item_id=previous_id))
        self._emit(events.ItemAdded(item=item, previous_item_id=previous_id))
        self._emit(events.ItemDone(item=item, previous_item_id=previous_id))
        if forgotten_s:
            self._emit(
                events.Failed(
                    message=f"the input was too long: its oldest {forgotten_s:.1f} s are lost",
                    code="input_audio_buffer_overflow",
                )
            )

    def _set_floor(self) -> None:
        """Nothing before now belongs to a later turn."""
        self._machine.reset(self._buffer.end_sample)
        self._floor_sample = self._buffer.end_sample
        self._floor_ms = self._buffer.clock_ms

    def _take_rest(self) -> None:
        rest = self._buffer.take_rest()
        if rest is None:
            return
        if self._settings is None:
            self._collect(rest.pcm, rest.start_sample)
        elif self._log.speech is not None:
            self._log.append_speech(rest.pcm)

    def _buffered_ms(self) -> float:
        """Counted on the input clock where all is kept: the resampler holds back a millisecond."""
        speech = self._log.speech
        if self._settings is None:
            return self._buffer.clock_ms - self._floor_ms
        if speech is not None:
            return speech.num_samples / SAMPLES_PER_MS
        held_ms = (self._buffer.end_sample - self._pre_roll_sample()) / SAMPLES_PER_MS
        return min(held_ms, self._buffer.clock_ms - self._floor_ms)

    def _pre_roll_sample(self) -> int:
        """Where the rolling buffer begins while nobody speaks."""
        padding_ms = self._settings.prefix_padding_ms if self._settings else 0
        padded = self._buffer.end_sample - padding_ms * SAMPLES_PER_MS
        return max(self._floor_sample, padded)

    def _emit_stopped(self, item_id: str, at_sample: int) -> None:
        self._emit(events.SpeechStopped(item_id=item_id, audio_end_ms=at_sample // SAMPLES_PER_MS))
