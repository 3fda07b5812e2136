"""Whole replies of the engine against the reference's `generate`: text, codes and waveform, for all
kinds of media.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from engine_rig import Collected, Rig, load_for_engine
from oracle import IM_END, Oracle
from reference_media import media

from models.content import Audio, Image, Message, Part, ReplyOptions, Text
from models.encoding import WindowPolicy
from models.qwen3_omni.model import Qwen3Omni

FRAMES = 9
TEXT = Text(text="1000 1001 1002 1003 1004")


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    return load_for_engine(oracle)


def noise(seconds: float, *, silence_s: float = 0.0) -> np.ndarray:
    sound = 0.3 * np.random.default_rng(2).standard_normal(round(16_000 * seconds))
    return np.concatenate([np.zeros(round(16_000 * silence_s)), sound]).astype(np.float32)


def picture(seed: int, height: int = 70, width: int = 100) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def frames(count: int) -> tuple[tuple[float, np.ndarray], ...]:
    return tuple((0.5 * index, picture(index, 64, 96)) for index in range(count))


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


def said(text: str) -> Message:
    return Message(role="assistant", parts=(Text(text=text),))


IMAGE = Image(rgb=picture(1))
CONVERSATIONS: dict[str, tuple[Message, ...]] = {
    "text": (user(TEXT),),
    "audio of several windows": (user(Audio(pcm=noise(5.05)), TEXT),),
    "audio after digital silence": (user(Audio(pcm=noise(0.8, silence_s=0.3)), TEXT),),
    "short audio": (user(Audio(pcm=noise(0.4))),),
    "image": (user(IMAGE, TEXT),),
    "two images and audio": (user(IMAGE, Image(rgb=picture(2, 40, 200)), Audio(pcm=noise(1.2))),),
    "camera": (user(Audio(pcm=noise(2.3), frames=frames(5)), TEXT),),
    "camera outlasts the sound": (user(Audio(pcm=noise(0.7), frames=frames(6)), TEXT),),
    "image before camera": (user(IMAGE, Audio(pcm=noise(1.2), frames=frames(3)), TEXT),),
    "many turns": (
        user(Audio(pcm=noise(1.0))),
        said("5 6 7 8"),
        user(IMAGE, TEXT),
        said("9 10"),
        user(Audio(pcm=noise(1.35))),  # under 1 s the reference, which batches, pads it otherwise
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_reply_equals_the_reference(name: str, model: Qwen3Omni, oracle: Oracle) -> None:
    messages = CONVERSATIONS[name]
    ours, prompt = ask(model, oracle, messages)
    expected = reference(oracle, prompt, messages)
    assert ours.ids == expected.ids
    assert ours.codes == expected.codes
    np.testing.assert_allclose(ours.pcm / 32767, expected.wav, atol=1e-4)


def test_reply_that_ends_early_equals_the_reference(model: Qwen3Omni, oracle: Oracle) -> None:
    """Text ends by its end token, speech by the codec's own, before either limit."""
    messages = CONVERSATIONS["image"]
    long, prompt = ask(model, oracle, messages)
    num_tokens = first_new(long.ids)
    end = long.ids[num_tokens]
    codes = [frame[0] for frame in long.codes]
    with codec_end_like(codes[first_new(codes)], oracle.model, model):
        ours, _ = ask(model, oracle, messages, eos=end)
        expected = reference(oracle, prompt, messages, eos=end)
    assert ours.ids == expected.ids[:num_tokens]
    assert 0 < len(ours.codes) < FRAMES - 1
    assert ours.codes == expected.codes
    assert ours.end is not None
    assert ours.end.status == "completed"


def first_new(values: list[int]) -> int:
    """Index of the first value after the start that was not there before."""
    return next(i for i in range(1, len(values)) if values[i] not in values[:i])


def ask(
    model: Qwen3Omni, oracle: Oracle, messages: tuple[Message, ...], *, eos: int = IM_END
) -> tuple[Collected, list[int]]:
    """Our greedy reply, and the ids of the prompt that it answered."""
    windows = WindowPolicy(camera_window_s=None)
    rig = Rig(model, oracle, frames=FRAMES, windows=windows)
    generation = rig.engine._maker._generation
    thinker = replace(generation.thinker, eos_ids=frozenset([eos]))
    rig.engine._maker._generation = replace(generation, thinker=thinker)
    rig.engine.open(1, instructions="2610 525 264", voice="ethan")
    for message in messages:
        rig.engine.append_message(1, message)
    reply = rig.ask(1, 1, ReplyOptions(greedy=True, max_tokens=8))
    ids = rig.engine.log_ids(1)
    return reply, ids[: len(ids) - len(reply.ids)]


class Expected:
    """What the reference made."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.codes: list[tuple[int, ...]] = []
        self.wav = np.zeros(0)


def reference(
    oracle: Oracle, prompt: list[int], messages: tuple[Message, ...], *, eos: int = IM_END
) -> Expected:
    """The reference's greedy reply to the same prompt, its codes overheard at the vocoder."""
    expected = Expected()

    def overhear(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        expected.codes = [tuple(frame) for frame in args[0][0].T.tolist()]

    hook = oracle.model.code2wav.register_forward_pre_hook(overhear)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids, wav = oracle.model.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                **media(messages),
                thinker_max_new_tokens=8,
                talker_max_new_tokens=FRAMES,
                thinker_do_sample=False,
                talker_do_sample=False,
                thinker_eos_token_id=eos,
                speaker="Ethan",
                return_audio=True,
            )
    finally:
        hook.remove()
    expected.ids = ids[0, len(prompt) :].tolist()
    expected.wav = wav.reshape(-1).numpy()
    return expected


@contextmanager
def codec_end_like(code: int, *models: Any) -> Iterator[None]:
    """Make the talkers prefer their end to `code`: they end where they would have said it."""
    end = 2150
    heads = [each.talker.codec_head.weight for each in models]
    with torch.no_grad():
        before = [head[end].clone() for head in heads]
        for head in heads:
            head[end] = 1.2 * head[code]
    yield
    with torch.no_grad():
        for head, row in zip(heads, before, strict=True):
            head[end] = row
