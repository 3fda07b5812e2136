"""Which camera frames are taken, and how old they are when speech takes them."""

from __future__ import annotations

import numpy as np

from pipeline.camera import (
    FRAME_INTERVAL_SAMPLES,
    STILL_PERIOD_S,
    THUMBNAIL_HEIGHT,
    THUMBNAIL_WIDTH,
    CameraSlot,
    FramePacer,
    SceneWatch,
    Thumbnail,
)

LOOKS_PER_S = 10
PICTURE = np.zeros((4, 4, 3), np.uint8)


class HandClock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def now_s(self) -> float:
        return self.at_s

    async def sleep_until(self, deadline_s: float) -> None:
        raise AssertionError(deadline_s)


def scene(seed: int = 0, *, noise: float = 0.0) -> Thumbnail:
    base = np.random.default_rng(0).uniform(20, 230, (THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH))
    grain = np.random.default_rng(seed).normal(0, noise, base.shape)
    return np.clip(base + grain, 0, 255).astype(np.uint8)


def taken(watch: SceneWatch, pictures: list[Thumbnail], *, wanted: frozenset[int]) -> list[int]:
    """Which of the pictures, ten a second, are taken."""
    out = []
    for number, picture in enumerate(pictures):
        now_s = number / LOOKS_PER_S + 1e-6
        is_new = watch.is_new(picture)
        if watch.is_due(now_s, is_new=is_new, is_wanted=number in wanted):
            watch.take(picture, now_s)
            out.append(number)
    return out


def test_a_still_scene_is_taken_rarely_noise_or_not() -> None:
    for noise in (0.0, 3.0):
        pictures = [scene(number, noise=noise) for number in range(61)]
        step = round(STILL_PERIOD_S * LOOKS_PER_S)
        assert taken(SceneWatch(period_s=0.25), pictures, wanted=frozenset()) == [
            *range(0, 61, step)
        ]


def test_a_small_change_is_taken_at_once() -> None:
    moved = scene()
    moved[8:12, 4:8] ^= 0x40
    pictures = [scene()] * 8 + [moved] * 5
    assert taken(SceneWatch(period_s=0.25), pictures, wanted=frozenset()) == [0, 8]


def test_what_keeps_moving_is_taken_at_the_rate_of_the_camera() -> None:
    pictures = [np.roll(scene(), 3 * number, axis=1) for number in range(13)]
    assert taken(SceneWatch(period_s=0.25), pictures, wanted=frozenset()) == [0, 3, 6, 9, 12]


def test_speech_gets_fresh_frames_of_a_still_scene() -> None:
    wanted = frozenset({5, 10, 15})
    got = taken(SceneWatch(period_s=0.25), [scene()] * 40, wanted=wanted)
    assert got == [0, 5, 8, 11, 14, 17, 20, 23]


def test_the_age_of_a_frame_is_when_the_camera_last_saw_it() -> None:
    clock, ages = HandClock(), []
    slot = CameraSlot(clock, on_taken=ages.append)
    pacer = FramePacer()
    assert pacer.take_due(slot, 0) == []
    assert ages == [], "no frame, no age"
    slot.put(PICTURE)
    clock.at_s += 0.25
    (frame,) = pacer.take_due(slot, FRAME_INTERVAL_SAMPLES)
    assert (frame.rgb is PICTURE, frame.time_s) == (True, 0.5)
    clock.at_s += 1
    slot.confirm()
    clock.at_s += 0.5
    pacer.take_due(slot, 2 * FRAME_INTERVAL_SAMPLES)
    assert ages == [0.25, 0.5]


def test_speech_tells_that_it_wants_frames() -> None:
    slot = CameraSlot(HandClock())
    assert not slot.was_wanted()
    FramePacer().take_due(slot, 0)
    assert slot.was_wanted()
    assert not slot.was_wanted()
