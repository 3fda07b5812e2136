"""The estimated place of the voice of the model that ships, beside what an aligner hears of it."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.commands.ask import Answer
from models.content import Message, ReplyOptions, Text
from models.engine import Engine
from models.hub import EMBEDDED_FOLDER
from models.placement import Placement
from pipeline.resample import resample

TEXTS = (
    "I can talk, count, remember things, look at pictures and set a timer.",
    "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve.",
    "Why is six afraid of seven? Because seven eight nine!",
    "I am sorry to hear that. Shall I tell you a joke?",
    "I can not see anything. Please turn on the camera.",
    "I am sorry, I did not understand that.",
    "Of course. What can I do for you?",
)
SILENCE_S = 0.3
STEP_S = 0.1


def word_ends_s(pcm: np.ndarray, text: str) -> list[float]:
    """When each word is over, by pocketsphinx; right to a tenth of a second on flite's voice."""
    pocketsphinx: Any = pytest.importorskip("pocketsphinx")
    model = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    assert model.is_file()
    words = [re.sub(r"[^a-z']", "", word.lower()) for word in text.split()]
    samples = resample((pcm / 32768).astype(np.float32), in_hz=24_000, out_hz=16_000)
    silence = np.zeros(round(16_000 * SILENCE_S), np.float32)
    padded = np.concatenate([silence, samples * 0.7 / np.abs(samples).max(), silence])
    decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL", bestpath=False)
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    decoder.process_raw((padded * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    ends = [(s.end_frame + 1) / 100 - SILENCE_S for s in decoder.seg() if s.word[0] not in "<["]
    assert len(ends) == len(words)
    return ends


def test_history_holds_what_was_heard_to_a_word() -> None:
    engine = Engine.load(EMBEDDED_FOLDER, Placement(device="cpu", dtype="float32"))
    errors = []
    for number, text in enumerate(TEXTS):
        engine.open(1, instructions="", voice=None)
        engine.append_message(1, Message(role="user", parts=(Text(text="hello"),)))
        engine.respond(1, number, ReplyOptions(seed=number, script=text))
        pcm = Answer.collect(engine, io.StringIO()).pcm
        ends_s = word_ends_s(pcm, text)
        for moment_s in np.arange(STEP_S, len(pcm) / 24_000, STEP_S):
            kept = engine.heard(number, round(moment_s * 24_000))
            errors.append(len(kept.split()) - sum(end <= moment_s for end in ends_s))
        engine.close(1)
    assert np.mean(np.abs(errors) <= 1) > 0.95
    assert abs(np.mean(errors)) < 0.5
