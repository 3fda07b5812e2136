"""Order and bounds of calls on their way to an engine."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pipeline.call_queue import CallQueue, Parcel
from pipeline.messages import (
    AppendAudio,
    AppendFrame,
    AppendMessage,
    Call,
    Cancel,
    Close,
    Configure,
    EndSpeech,
    Frame,
    Message,
    Rebuild,
    Respond,
    ResponseOptions,
    Rollback,
    TextPart,
)


def audio(context: int, num_samples: int = 320) -> AppendAudio:
    return AppendAudio(context=context, pcm=np.zeros(num_samples, np.float32))


def frame(context: int, time_s: float, num_bytes: int = 300) -> AppendFrame:
    rgb = np.zeros((num_bytes // 3, 1, 3), np.uint8)
    return AppendFrame(context=context, frame=Frame(rgb=rgb, time_s=time_s))


def put_all(queue: CallQueue, calls: list[Call]) -> None:
    assert all(queue.put(Parcel(call)) for call in calls)


def taken(queue: CallQueue) -> list[Call]:
    calls = queue.take_all(wait=False)
    assert calls is not None
    return calls


def test_audio_and_other_contexts_pass_frames() -> None:
    queue = CallQueue()
    first, second = frame(1, 0.0), frame(1, 0.5)
    sound, other = audio(1), EndSpeech(context=2)
    put_all(queue, [first, second, sound, other])
    assert taken(queue) == [sound, other, first, second]


def test_calls_of_one_context_stay_behind_its_frames() -> None:
    queue = CallQueue()
    calls: list[Call] = [
        frame(1, 0.0),
        EndSpeech(context=1),
        audio(1),
        Respond(context=1, response=7, options=ResponseOptions()),
        Cancel(response=7),
        Rollback(context=1, mark=3),
    ]
    put_all(queue, calls)
    assert taken(queue) == calls


def settings(context: int, instructions: str) -> Configure:
    return Configure(context=context, instructions=instructions, voice=None)


def test_of_settings_in_a_row_only_the_last_counts() -> None:
    queue = CallQueue()
    end, last, other = EndSpeech(context=1), settings(1, "c"), settings(2, "d")
    put_all(queue, [settings(1, "a"), end, settings(1, "b"), last, other])
    assert taken(queue) == [settings(1, "a"), end, last, other]


def test_a_hundred_frames_do_not_delay_pcm_and_only_the_newest_stay() -> None:
    queue = CallQueue(max_frame_bytes=1200)
    frames = [frame(1, float(number)) for number in range(100)]
    put_all(queue, [*frames[:50], frame(2, 0.25), audio(2), *frames[50:], audio(1)])
    kinds = [(type(call).__name__, getattr(call, "context", None)) for call in taken(queue)]
    assert kinds[:2] == [("AppendAudio", 2), ("AppendAudio", 1)]
    assert kinds[2:] == [("AppendFrame", 1)] * 3 + [("AppendFrame", 2)]
    assert queue.num_dropped_frames == 97


def test_the_newest_frame_stays_however_large() -> None:
    queue = CallQueue(max_frame_bytes=10)
    put_all(queue, [frame(1, 0.0), frame(1, 1.0)])
    assert [call.frame.time_s for call in taken(queue) if isinstance(call, AppendFrame)] == [1.0]


def test_dropped_frames_free_what_waited_behind_them() -> None:
    queue = CallQueue(max_frame_bytes=400)
    end, late = EndSpeech(context=1), frame(1, 1.0)
    put_all(queue, [frame(1, 0.0), end, late])
    parcel = queue.take()
    assert parcel is not None
    assert parcel.call == end
    assert taken(queue) == [late]


def test_only_audio_and_messages_are_refused_when_full() -> None:
    queue = CallQueue(max_bytes=2000)
    typed = Message(role="user", parts=(TextPart(text="x" * 3000),))
    assert queue.put(Parcel(audio(1, 480)))
    assert not queue.put(Parcel(audio(1, 480)))
    assert not queue.put(Parcel(AppendMessage(context=1, message=typed)))
    put_all(queue, [Rebuild(context=1, messages=(typed,)), Close(context=2), Cancel(response=1)])
    assert len(taken(queue)) == 4
    assert queue.put(Parcel(AppendMessage(context=1, message=typed))), "alone it may be too large"
    taken(queue)
    for _ in range(10):  # what has been taken counts no more
        assert queue.put(Parcel(audio(1, 400)))
        taken(queue)


def test_a_waiting_put_goes_on_when_there_is_room() -> None:
    queue = CallQueue(max_bytes=2000)
    queue.put(Parcel(audio(1, 480)))
    waiting = threading.Thread(
        target=queue.put, args=(Parcel(audio(2, 480)),), kwargs={"wait": True}
    )
    waiting.start()
    waiting.join(0.02)
    assert waiting.is_alive()
    assert len(taken(queue)) == 1
    waiting.join(5)
    assert not waiting.is_alive()
    assert len(taken(queue)) == 1


@pytest.mark.parametrize("method", ["take", "take_all", "put"])
def test_close_wakes_whoever_waits(method: str) -> None:
    queue = CallQueue(max_bytes=100)
    if method == "put":
        queue.put(Parcel(audio(1)))
    waits = {
        "take": lambda: queue.take(),
        "take_all": lambda: queue.take_all(wait=True),
        "put": lambda: queue.put(Parcel(audio(1)), wait=True),
    }
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(waits[method]()))
    waiting.start()
    waiting.join(0.02)
    assert waiting.is_alive()
    queue.close()
    waiting.join(5)
    assert found == [True if method == "put" else None]
    assert queue.put(Parcel(audio(1)))
    assert queue.take() is None


def test_a_closed_context_takes_nothing_in_any_more() -> None:
    queue = CallQueue(max_bytes=10_000)
    words = Message(role="user", parts=(TextPart(text="x" * 6_000),))
    other, reply = EndSpeech(context=2), Respond(context=1, response=7, options=ResponseOptions())
    put_all(queue, [AppendMessage(context=1, message=words), other, frame(1, 0.0), reply])
    put_all(queue, [Rebuild(context=1, messages=(words,)), Close(context=1)])
    assert queue.put(Parcel(AppendMessage(context=2, message=words))), "there is room again"
    calls = taken(queue)
    assert calls[:1] + calls[-1:] == [other, AppendMessage(context=2, message=words)]
    assert calls[1:-1] == [reply, Close(context=1)], "each reply is still answered"


def test_of_rebuilds_in_a_row_only_the_last_counts() -> None:
    queue = CallQueue()
    first, second = (Rebuild(context=1, messages=()) for _ in range(2))
    other = Rebuild(context=2, messages=())
    put_all(queue, [first, second, other])
    assert taken(queue) == [second, other]
