"""Stages over a work folder: what is refused, what is kept, and the whole way at a small size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.errors import CheckpointError
from models.recipe import reply_voice, stages, voices
from models.recipe.judge import Judge, plain
from models.recipe.reply_voice import reply_speech, sentences_to_speak
from models.recipe.sound import resampled
from models.recipe.stages import run_stages

needs_synthesizers = pytest.mark.skipif(
    bool(voices.missing_programs()), reason="flite or espeak-ng is not installed"
)


def test_sentences_are_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_voice, "NUM_CONVERSATIONS", 200)
    first = sentences_to_speak(tmp_path, 0)
    assert not set(first.train) & set(first.held_out)
    assert sentences_to_speak(tmp_path, 1) == first


def test_a_missing_synthesizer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CheckpointError, match="flite, espeak-ng"):
        run_stages(tmp_path, ["data"], seed=0, minutes=1, is_resumed=False)


@needs_synthesizers
def test_what_was_trained_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "codec.pt").touch()
    with pytest.raises(CheckpointError, match="--resume"):
        run_stages(tmp_path, ["codec"], seed=0, minutes=1, is_resumed=False)


@needs_synthesizers
@pytest.mark.parametrize("stage", ["vocoder", "talker"])
def test_a_stage_names_what_it_lacks(stage: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="codec"):
        run_stages(tmp_path, [stage], seed=0, minutes=1, is_resumed=False)


@needs_synthesizers
def test_from_sentences_to_a_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_voice, "NUM_CONVERSATIONS", 12)
    monkeypatch.setattr(reply_voice, "NUM_EXTRA_SENTENCES", 10)
    monkeypatch.setattr(stages, "CODEBOOK_SIZE", 16)
    monkeypatch.setattr(stages, "CODE2WAV", {**stages.CODE2WAV, "codebook_size": 16})
    run_stages(tmp_path, ["data", "codec", "vocoder"], seed=0, minutes=0.001, is_resumed=False)
    assert (tmp_path / "vocoder.pt").exists()


@needs_synthesizers
def test_the_judge_understands_the_reply_voice(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    texts = ["I see a red circle.", "Three plus four is seven.", "Goodbye! See you soon."]
    judge = Judge(texts)
    for text in texts:
        pcm = reply_speech(text, tmp_path).numpy()
        assert judge.heard(resampled(pcm, 24_000, 16_000)) == text
    assert judge.heard(np.zeros(8000, dtype=np.float32)) is None


def test_words_as_a_grammar_has_them() -> None:
    assert plain("It is five o'clock, Anna!") == "it is five o'clock anna"
