"""TMRoPE pieces: published vectors, and `transformers` positions over random layouts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.positions import (
    audio_in_video_positions,
    audio_positions,
    image_positions,
    interleave,
    text_positions,
    video_positions,
)

V_START, V_END, IMAGE, VIDEO = 151652, 151653, 151655, 151656
A_START, A_END, AUDIO = 151669, 151670, 151675


class Prompt:
    """Ids for the reference and our positions for the same prompt, built piece by piece."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.rows: list[Tensor] = []
        self.next = 0.0
        self.images: list[list[int]] = []
        self.videos: list[list[int]] = []
        self.seconds: list[float] = []
        self.mel_frames: list[int] = []

    def text(self, ids: list[int]) -> None:
        self._add(ids, text_positions(len(ids), self.next))

    def audio(self, mel_frames: int) -> None:
        n = audio_tokens(mel_frames)
        self.mel_frames.append(mel_frames)
        self.text([A_START])
        self._add([AUDIO] * n, audio_positions(n, self.next))
        self.text([A_END])

    def image(self, h: int, w: int) -> None:
        self.images.append([1, h, w])
        self.text([V_START])
        self._add([IMAGE] * (h * w // 4), image_positions((h // 2, w // 2), self.next))
        self.text([V_END])

    def video(self, t: int, h: int, w: int, seconds: float) -> None:
        self._video(t, h, w, seconds)
        self.text([V_START])
        placed = video_positions(
            (h // 2, w // 2), t, self.next, seconds_per_grid=seconds, positions_per_second=13
        )
        self._add([VIDEO] * (t * h * w // 4), placed)
        self.text([V_END])

    def video_with_sound(self, t: int, h: int, w: int, seconds: float, mel_frames: int) -> None:
        self._video(t, h, w, seconds)
        self.mel_frames.append(mel_frames)
        n = audio_tokens(mel_frames)
        self.text([V_START, A_START])
        placed = audio_in_video_positions(
            (h // 2, w // 2), t, n, self.next, seconds_per_grid=seconds, positions_per_second=13
        )
        ids: list[int] = []
        for run in interleave(t, n, iter([k * seconds * 13 for k in range(t)])):
            count = run.stop - run.first
            ids += [AUDIO] * count if run.kind == "audio" else [VIDEO] * (h * w // 4)
        self._add(ids, placed)
        self.text([A_END, V_END])

    def _video(self, t: int, h: int, w: int, seconds: float) -> None:
        self.videos.append([t, h, w])
        self.seconds.append(seconds)

    def _add(self, ids: list[int], placed: tuple[Tensor, float]) -> None:
        positions, self.next = placed
        assert positions.shape == (3, len(ids))
        assert positions.dtype == torch.float32
        self.ids += ids
        self.rows.append(positions)

    @property
    def positions(self) -> Tensor:
        return torch.cat(self.rows, dim=1)


def audio_tokens(mel_frames: int) -> int:
    rest = mel_frames % 100
    for _ in range(3):
        rest = (rest - 1) // 2 + 1
    return rest + 13 * (mel_frames // 100)


def reference(prompt: Prompt, *, sound: bool) -> Tensor:
    """[3, n] of `transformers` for the whole prompt."""
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
        Qwen3OmniMoePreTrainedModelForConditionalGeneration as Upstream,
    )

    config = SimpleNamespace(
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        audio_token_id=AUDIO,
        vision_start_token_id=V_START,
        audio_start_token_id=A_START,
        position_id_per_seconds=13,
        audio_config=SimpleNamespace(n_window=50),
    )
    host = SimpleNamespace(config=config, spatial_merge_size=2)
    host.get_llm_pos_ids_for_vision = lambda *a: Upstream.get_llm_pos_ids_for_vision(host, *a)
    ids = torch.tensor([prompt.ids])
    positions, _ = Upstream.get_rope_index(
        host,
        ids,
        torch.tensor(prompt.images) if prompt.images else None,
        torch.tensor(prompt.videos) if prompt.videos else None,
        torch.ones_like(ids),
        sound,
        torch.tensor(prompt.mel_frames) if prompt.mel_frames else None,
        torch.tensor(prompt.seconds) if prompt.seconds else None,
    )
    return positions[:, 0]


def rows(prompt: Prompt) -> list[list[float]]:
    return prompt.positions.tolist()


def test_image_vector() -> None:
    prompt = Prompt()
    prompt.text([1, 2])
    prompt.image(4, 6)
    prompt.text([3, 4])
    assert rows(prompt) == [
        [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8],
        [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8],
        [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8],
    ]


@pytest.mark.parametrize(
    ("seconds", "time", "end"),
    [(1.0, [2] * 4 + [15] * 4, [16, 17]), (0.3, [2] * 4 + [5.9] * 4, [6.9, 7.9])],
)
def test_video_vector(seconds: float, time: list[float], end: list[float]) -> None:
    prompt = Prompt()
    prompt.text([1])
    prompt.video(2, 4, 4, seconds)
    prompt.text([2])
    expected = torch.tensor(
        [
            [0, 1, *time, *end],
            [0, 1, 2, 2, 3, 3, 2, 2, 3, 3, *end],
            [0, 1, 2, 3, 2, 3, 2, 3, 2, 3, *end],
        ],
        dtype=torch.float32,
    )
    torch.testing.assert_close(prompt.positions, expected)


def test_video_with_sound_vector() -> None:
    prompt = Prompt()
    prompt.text([1])
    prompt.video_with_sound(3, 4, 4, 1.0, 120)
    prompt.text([2])
    time = [0, 1, 2, *[3] * 4, *range(3, 16), *[16] * 4, 16, 17, 18, *[29] * 4, 30, 31, 32]
    assert prompt.positions[0].tolist() == time


@pytest.mark.parametrize(
    ("seconds", "order"),
    [(1.0, "g aaaaaaaaaaaaa g aaaaaaaaaaaaa"), (0.5, "g aaaaaaa g aaaaaa g aaaaaaa g aaaaaa")],
)
def test_order_of_a_video_with_sound(seconds: float, order: str) -> None:
    times = iter([k * seconds * 13 for k in range(int(2 / seconds))])
    runs = interleave(int(2 / seconds), 26, times)
    text = " ".join("g" if r.kind == "grid" else "a" * (r.stop - r.first) for r in runs)
    assert text == order


def test_sound_only_after_all_grids_and_no_sound_at_all() -> None:
    assert [r.kind for r in interleave(0, 5, iter([]))] == ["audio"]
    assert [r.kind for r in interleave(2, 0, iter([0.0, 13.0]))] == ["grid", "grid"]


sides = st.sampled_from([2, 4, 6, 10, 64])
texts = st.lists(st.integers(1000, 1100), min_size=1, max_size=5)
media = st.one_of(
    st.tuples(st.just("audio"), st.integers(1, 450)),
    st.tuples(st.just("image"), sides, sides),
    st.tuples(
        st.just("video"), st.integers(1, 4), sides, sides, st.sampled_from([1.0, 0.5, 0.3, 2.0])
    ),
)
with_sound = st.one_of(
    st.tuples(st.just("audio"), st.integers(1, 450)),
    st.tuples(
        st.just("video_with_sound"),
        st.integers(1, 4),
        sides,
        sides,
        st.sampled_from([1.0, 0.5, 2.0]),
        st.integers(1, 450),
    ),
)


@settings(max_examples=60, deadline=None)
@given(items=st.lists(st.tuples(texts, media), min_size=1, max_size=5), tail=texts)
def test_equals_transformers(items: list, tail: list[int]) -> None:
    prompt = Prompt()
    prompt.image(4, 4)  # without any picture the reference takes a shortcut that can not tell
    for ids, (kind, *arguments) in items:
        prompt.text(ids)
        getattr(prompt, kind)(*arguments)
    prompt.text(tail)
    # fractional rates add up in another order there: a last bit may differ
    torch.testing.assert_close(
        prompt.positions, reference(prompt, sound=False), rtol=1e-6, atol=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(items=st.lists(st.tuples(texts, with_sound), min_size=1, max_size=4), tail=texts)
def test_equals_transformers_with_sound_in_video(items: list, tail: list[int]) -> None:
    prompt = Prompt()
    prompt.text([1])
    prompt.video_with_sound(2, 4, 4, 1.0, 230)
    for ids, (kind, *arguments) in items:
        prompt.text(ids)
        getattr(prompt, kind)(*arguments)
    prompt.text(tail)
    torch.testing.assert_close(
        prompt.positions, reference(prompt, sound=True), rtol=1e-6, atol=1e-5
    )
