"""How well the reply voice is understood: held-out sentences, spoken again from their codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.content import Pcm
from models.recipe.codec import Codec
from models.recipe.judge import SAMPLE_RATE_HZ as JUDGE_RATE_HZ
from models.recipe.judge import Judge
from models.recipe.reply_voice import reply_codes, reply_speech, sentences_to_speak
from models.recipe.sound import resampled, write_wav
from models.recipe.spectra import SAMPLE_RATE_HZ
from models.recipe.stages import vocoder_config
from models.recipe.vocoder import averaged, new_run, speak


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceScore:
    """Sentences picked rightly out of `num_choices`: of the synthesizer's own, and of ours."""

    step: int
    num_sentences: int
    num_choices: int
    original: int
    spoken: int


def score_voice(work: Path, *, seed: int, num_sentences: int) -> VoiceScore:
    """Measure vocoder.pt of `work`; leaves what was spoken in `work`/heard."""
    codec = Codec.load(work / "codec.pt")
    run = new_run(vocoder_config(), codec, seed)
    run.load(work / "vocoder.pt")
    vocoder = averaged(run)
    judge = Judge(sentences_to_speak(work, seed).held_out)
    (work / "heard").mkdir(exist_ok=True)
    original = spoken = 0
    tested = judge.texts[:num_sentences]
    for index, text in enumerate(tested):
        pcm = reply_speech(text, work)
        again = speak(vocoder, reply_codes(text, codec, work)).numpy()
        write_wav(work / "heard" / f"{index:02}.wav", again, SAMPLE_RATE_HZ)
        original += judge.heard(_for_judge(pcm.numpy())) == text
        spoken += judge.heard(_for_judge(again)) == text
    return VoiceScore(
        step=run.step,
        num_sentences=len(tested),
        num_choices=len(judge.texts),
        original=original,
        spoken=spoken,
    )


def _for_judge(pcm: Pcm) -> Pcm:
    louder = pcm * min(5.0, 0.7 / (float(np.abs(pcm).max()) + 1e-6))
    return resampled(louder.astype(np.float32), SAMPLE_RATE_HZ, JUDGE_RATE_HZ)
