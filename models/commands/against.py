"""The reference beside our engine: Hugging Face `transformers` on the same weights and the same
question.

Only `omnid bench engine --against transformers` imports this, and this alone imports the reference,
which is no dependency at run time. The reference gives its audio when the whole reply is made, so
its first audio is its last.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.commands.figures import ratios, reference_figures
from models.errors import ResourceError

if TYPE_CHECKING:
    from models.commands.bench import Bench


def measure_reference(bench: Bench, folder: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of the reference, of one reply (it takes long); ratios (theirs / ours), and whether
    the replies are equal.

    Raises:
        ResourceError: the reference is not installed.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        missing = "transformers is missing: pip install 'transformers>=5.20,<6'"
        raise ResourceError(missing) from None
    transformers.logging.set_verbosity_error()
    model = transformers.Qwen3OmniMoeForConditionalGeneration.from_pretrained(
        folder, dtype=bench.model.thinker.lm_head.weight.dtype
    ).to(bench.engine.device)
    prompt = _prompt(bench)
    _generate(model, bench, prompt, num_tokens=3)
    started, cpu_started = time.perf_counter(), time.process_time()
    ids, codes = _generate(model, bench, prompt, num_tokens=bench.num_tokens)
    total_ms = 1000 * (time.perf_counter() - started)
    cpu_ms = 1000 * (time.process_time() - cpu_started)
    ours = bench.one_reply(bench.num_tokens)
    theirs = reference_figures(
        total_ms=total_ms, cpu_ms=cpu_ms, num_frames=len(codes), audio_s=report["reply_s"]
    )
    return {
        "num_replies": {**report["num_replies"], "transformers": 1},
        "transformers": theirs,
        "ratio": ratios(theirs, report["ours"]),
        "equal": {
            "text": list(ours.text_ids) == ids,
            "codes": [list(frame) for frame in ours.codes] == codes,
        },
    }


def _prompt(bench: Bench) -> list[int]:
    """Ids of the question as our engine lays them out, up to the reply."""
    engine, context = bench.engine, 1_000_000
    engine.open(context, instructions=bench.instructions, voice=None)
    engine.begin_speech(context, has_camera=False)
    engine.append_audio(context, bench.question)
    engine.end_speech(context)
    while engine.has_work:
        engine.step()
    ids = engine.log_ids(context) + bench.chat.assistant_header_ids()
    engine.close(context)
    return ids


def _generate(
    model: Any, bench: Bench, prompt: list[int], *, num_tokens: int
) -> tuple[list[int], list[list[int]]]:
    """The reference's greedy reply: text ids, and its codes overheard at the vocoder."""
    transformers: Any = importlib.import_module("transformers")
    extract = transformers.WhisperFeatureExtractor(
        feature_size=bench.config.thinker.audio.num_mel_bins,
        sampling_rate=16_000,
        hop_length=160,
        n_fft=400,
        chunk_length=300,
    )
    sound = extract(
        [bench.question],
        sampling_rate=16_000,
        return_attention_mask=True,
        return_tensors="pt",
        padding=True,
        truncation=False,
    )
    overheard: list[list[int]] = []

    def overhear(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        overheard.extend(args[0][0].T.tolist())

    hook = model.code2wav.register_forward_pre_hook(overhear)
    device = bench.engine.device
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ids, _ = model.generate(
                input_ids=torch.tensor([prompt], device=device),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=device),
                input_features=sound["input_features"].to(device),
                feature_attention_mask=sound["attention_mask"].to(device),
                thinker_max_new_tokens=num_tokens,
                talker_max_new_tokens=bench.num_frames + 1,
                thinker_do_sample=False,
                talker_do_sample=False,
                thinker_eos_token_id=bench.config.thinker.decoder.vocab_size - 1,
                speaker=bench.engine.voices[0],
                return_audio=True,
            )
    finally:
        hook.remove()
    return ids[0, len(prompt) :].tolist(), overheard
