"""Before any measurement: bytes and floor of each kernel of a step, from the published config.

    python -m benchmarks.predictions > benchmarks/predictions.md

A kernel's floor is the bytes that it must move divided by the memory's bandwidth; beside it stands
what its launches cost inside a graph, at an assumed price each. The prediction is the sum of both:
kernels of a decode step are short, so neither hides the other. Bytes count weights, caches and the
activations of the vocoder; expected numbers of distinct experts assume that tokens choose freely.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from models.cache_budget import GIVEN_UP_TOKENS
from models.config import DecoderConfig, OmniConfig, VocoderConfig, parse_config
from models.engine_options import DEFAULT_OPTIONS
from models.joining import MAX_FIRST_TOGETHER
from models.stepping.pages import PAGE_SIZE
from models.work import SHARED_PREFILL_UNITS

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "tests" / "models" / "data" / "qwen3_omni_30b_config.json"
H200_BYTES_PER_S = 4.8e12  # the data sheet's; a copy reaches about nine tenths of it
LAUNCH_S = 1.5e-6  # assumed: a small kernel in a graph, end to end
EAGER_LAUNCH_S = 5e-6  # assumed: one that the host launches by itself
EAGER_LAUNCHES = 42  # counted: of a layer outside graphs, experts in two products
AUDIO_LAUNCHES = 15  # of a layer of the audio encoder
SHARED_EXPERT_LAUNCHES = 7  # more, where there is one
SPANS_LAUNCHES = 40  # counted: of what a prefill makes once for all layers
VOICE_LAUNCHES = 50  # counted: of a voice's beginning beside its prefix; and once for all 160
VOICES_LAUNCHES = 160
CONTEXT_TOKENS = 4096
UNIT_TOKENS = DEFAULT_OPTIONS.prefill_tokens
SHARED_TOKENS = UNIT_TOKENS * SHARED_PREFILL_UNITS
BATCHES = (1, 8, 32)
TOKENS_LEFT = (33, 110)  # of a question of two seconds, and of a whole window of eight
TALKER_PREFIX = 9  # tokens before the first frame
BF16 = 2
FLOAT32 = 4

Parts = list[tuple[str, float, int]]  # of one layer: name, numbers read or written, launches


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What one kernel does in one step of its stage, all layers and passes together."""

    stage: str
    name: str
    num_bytes: float
    num_launches: int

    @property
    def floor_s(self) -> float:
        """At the memory's bandwidth."""
        return self.num_bytes / H200_BYTES_PER_S

    @property
    def predicted_s(self) -> float:
        """With its launches."""
        return self.floor_s + self.num_launches * LAUNCH_S


def read_published() -> OmniConfig:
    """The published model's sizes."""
    return parse_config(json.loads(CONFIG.read_text(encoding="utf-8")))


def predict(config: OmniConfig, batch: int, context: int = CONTEXT_TOKENS) -> list[Kernel]:
    """All kernels of one thinker token and one speech frame of `batch` sessions."""
    assert config.talker is not None
    assert config.vocoder is not None
    thinker, talker = config.thinker.decoder, config.talker.decoder
    predictor, passes = config.talker.predictor, config.talker.num_code_groups - 1
    # Each code is drawn and embedded; the first inputs are joined, at the end the ids are counted,
    # the codes stacked, and the embeddings stacked and summed.
    drawing = 2 * passes + 5
    return [
        *_layers("thinker token", thinker, batch, _paged(thinker, batch, context)),
        # What is banned, the best ids and their draw; inputs are split, ids copied.
        *_head("thinker token", thinker, batch, 1, 14),
        *_layers("talker step", talker, batch, _paged(talker, batch, context)),
        *_head("talker step", talker, batch, 1, 4),
        *_layers(
            "predictor frame",
            predictor,
            batch,
            _ring(predictor, batch, (passes + 1) // 2),
            passes=passes,
        ),
        *_head("predictor frame", predictor, batch, passes, drawing),
        *_vocoder(config.vocoder, batch),
    ]


def _layers(
    stage: str,
    config: DecoderConfig,
    batch: int,
    attention: Parts,
    *,
    passes: int = 1,
    width: int = BF16,
) -> list[Kernel]:
    size, layers = config.hidden_size, config.num_layers * passes
    query, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    kernels = [
        ("norm + q/k/v projection", size * (query + 2 * kv), 1),
        *attention,
        ("output projection", query * size, 1),
        *_feed_forward(config, batch),
    ]
    return [
        Kernel(
            stage=stage,
            name=name,
            num_bytes=width * numbers * layers,
            num_launches=launches * layers,
        )
        for name, numbers, launches in kernels
    ]


def _paged(config: DecoderConfig, batch: int, context: int) -> Parts:
    """Attention over pages, split and joined."""
    query, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return [
        ("q/k norm, rotary, cache write", batch * (2 * query + 4 * kv), 1),
        ("attention", batch * context * 2 * kv, 2),
    ]


def _ring(config: DecoderConfig, batch: int, seen: int) -> Parts:
    """The same in one launch, q/k norm included, over rings of which `seen` positions are read."""
    query, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    numbers = batch * (2 * query + 4 * kv + seen * 2 * kv)
    return [("rotary, ring write, attention", numbers, 1)]


def _feed_forward(config: DecoderConfig, batch: int) -> Parts:
    size, moe = config.hidden_size, config.moe
    if moe is None:
        inner = config.intermediate_size
        return [
            ("norm + gated projection", 2 * size * inner, 1),
            ("down projection", inner * size, 1),
        ]
    unread = (1 - moe.num_experts_per_token / moe.num_experts) ** batch
    distinct = moe.num_experts * (1 - unread)
    # Norm, router product, choice; a sort of the pairs takes some launches of its own.
    kernels = [
        ("norm, router, choice", float(size * moe.num_experts), 3),
        ("experts", distinct * 3 * size * moe.expert_size, 6),
    ]
    if moe.shared_expert_size is not None:
        kernels.append(("shared expert", float(3 * size * moe.shared_expert_size), 5))
    return kernels


def _head(stage: str, config: DecoderConfig, batch: int, passes: int, drawing: int) -> list[Kernel]:
    """The output head and what draws from it, in `drawing` launches."""
    head = BF16 * config.vocab_size * config.hidden_size
    logits = FLOAT32 * batch * config.vocab_size
    return [
        Kernel(
            stage=stage,
            name="norm + output head",
            num_bytes=passes * (head + logits),
            num_launches=passes,
        ),
        Kernel(stage=stage, name="sampling", num_bytes=passes * logits, num_launches=drawing),
    ]


def _vocoder(config: VocoderConfig, batch: int) -> list[Kernel]:
    stage, front = "vocoder frame", config.transformer
    size, window = front.hidden_size, front.sliding_window or 0
    layers = _layers(stage, front, batch, _ring(front, batch, window), width=FLOAT32)
    # Embedding and its mean, 3; place and angles, 10; final norm; samples and counted frames, 3.
    codes = batch * config.num_quantizers * size
    made: Parts = [("embedding, angles, final norm, count", codes, 17)]
    length = math.prod(config.upsampling_ratios)
    ratios = sum(ratio * size * size + 8 * size * size for ratio in config.upsampling_ratios)
    made.append(("upsampling", ratios, 14 * len(config.upsampling_ratios)))
    channels = config.decoder_size
    for rate in config.upsample_rates:
        half, length = channels // 2, length * rate
        up = 2 * rate * channels * half
        units = 3 * (7 + 1) * half * half
        activations = 3 * batch * 5 * half * length
        made.append((f"block of {half} channels", up + units + activations, 3 + 3 * 7))
        channels = half
    others = [
        Kernel(stage=stage, name=name, num_bytes=FLOAT32 * numbers, num_launches=launches)
        for name, numbers, launches in made
    ]
    return [*layers, *others]


def table(config: OmniConfig) -> str:
    """The predictions of all batches as Markdown."""
    lines = [
        "# Predicted floors of the published model on one H200",
        "",
        "Made by `python -m benchmarks.predictions`; what is assumed stands in that file:"
        f" {H200_BYTES_PER_S / 1e12:.1f} TB/s, {1e6 * LAUNCH_S:.1f} µs a launch in a graph,"
        f" {CONTEXT_TOKENS} tokens of context, bfloat16 (vocoder float32).",
    ]
    for batch in BATCHES:
        kernels = predict(config, batch)
        lines += ["", f"## {batch} session{'s' if batch > 1 else ''}", ""]
        lines += ["| stage | kernel | MB | floor µs | launches | predicted µs |"]
        lines += ["|---|---|---:|---:|---:|---:|"]
        for stage in dict.fromkeys(kernel.stage for kernel in kernels):
            own = [kernel for kernel in kernels if kernel.stage == stage]
            lines += [_line(stage, kernel.name, [kernel]) for kernel in own]
            lines += [_line(f"**{stage}**", "all", own)]
        frame = [kernel for kernel in kernels if kernel.stage != "thinker token"]
        lines += [_line("**speech frame**", "talker, predictor, vocoder", frame)]
    parts = ([""], first_sound_table(config), [""], cache_table(config))
    return "\n".join([*lines, *(line for part in parts for line in part)]) + "\n"


def first_sound_table(config: OmniConfig) -> list[str]:
    """What lies between the end of a question and its first sound: the last window encoded, the
    tokens left prefilled, the talker's and its prefix, one frame. Only the last is a graph.
    """
    assert config.talker is not None
    audio, thinker, talker = config.thinker.audio, config.thinker.decoder, config.talker.decoder
    layer = 4 * audio.hidden_size**2 + 2 * audio.hidden_size * audio.intermediate_size
    encoding = Kernel(
        stage="first sound",
        name="encoder",
        num_bytes=BF16 * layer * audio.num_layers,
        num_launches=AUDIO_LAUNCHES * audio.num_layers,
    )
    encoder_s = _eager_s([encoding])

    def begin_s(tokens: int, count: int) -> float:
        """From encoded questions to the first frames of so many."""
        frame_s = sum(k.predicted_s for k in predict(config, count) if k.stage != "thinker token")
        starting_s = EAGER_LAUNCH_S * (VOICES_LAUNCHES + count * VOICE_LAUNCHES)
        parts = ((thinker, tokens), (talker, tokens), (talker, TALKER_PREFIX))
        prefills_s = sum(_eager_s(_prefill(decoder, count * n)) for decoder, n in parts)
        return prefills_s + starting_s + frame_s

    lines = [
        "## First sound of those who ask at once",
        "",
        f"Outside graphs a layer has {EAGER_LAUNCHES} launches"
        f" ({EAGER_LAUNCHES + SHARED_EXPERT_LAUNCHES} with a shared expert) of"
        f" {1e6 * EAGER_LAUNCH_S:.0f} µs, which hide behind the bytes or the bytes behind them;"
        f" a voice takes {VOICE_LAUNCHES} to begin."
        f" Each question is encoded alone, {1e3 * encoder_s:.1f} ms; the rest is done for up to"
        f" {MAX_FIRST_TOGETHER} at once, of no more than {SHARED_TOKENS} tokens.",
        "",
        "| tokens left | sessions | begin of a group ms | the last one's first sound ms |"
        " one after the other ms |",
        "|---:|---:|---:|---:|---:|",
    ]
    for tokens, count in itertools.product(TOKENS_LEFT, BATCHES):
        size = min(count, MAX_FIRST_TOGETHER, SHARED_TOKENS // tokens)
        group_s, alone_s = begin_s(tokens, size), begin_s(tokens, 1)
        last_s, apart_s = count * (encoder_s + group_s / size), count * (encoder_s + alone_s)
        figures = f"{1e3 * group_s:.1f} | {1e3 * last_s:.0f} | {1e3 * apart_s:.0f}"
        lines.append(f"| {tokens} | {count} | {figures} |")
    return lines


def _prefill(config: DecoderConfig, tokens: int) -> list[Kernel]:
    layers = _layers("first sound", config, tokens, _paged(config, 1, CONTEXT_TOKENS))
    has_shared = config.moe is not None and config.moe.shared_expert_size is not None
    each = EAGER_LAUNCHES + has_shared * SHARED_EXPERT_LAUNCHES
    num_launches = SPANS_LAUNCHES + each * config.num_layers
    quiet = [replace(kernel, num_launches=0) for kernel in layers[:-1]]
    return [*quiet, replace(layers[-1], num_launches=num_launches)]


def _eager_s(kernels: list[Kernel]) -> float:
    """What the host launches one by one: its pace, or the memory's where that is slower."""
    launches_s = EAGER_LAUNCH_S * sum(kernel.num_launches for kernel in kernels)
    return max(launches_s, sum(kernel.floor_s for kernel in kernels))


def cache_table(config: OmniConfig) -> list[str]:
    """What pages hold, and what they cost where a plain cache costs nothing: a prefill unit gathers
    all earlier positions of its sequence into a copy, which is read and written once a layer.
    """
    assert config.talker is not None
    lines = [
        f"## Pages of {PAGE_SIZE} tokens",
        "",
        "| decoder | kB a token | MB a page | MB of 8192 tokens | most MB unused |"
        f" gathered by a unit of {UNIT_TOKENS} behind {CONTEXT_TOKENS}, MB | floor µs |"
        " launches | predicted µs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, decoder in (("thinker", config.thinker.decoder), ("talker", config.talker.decoder)):
        token = BF16 * 2 * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim
        gather = Kernel(
            stage=name,
            name="gather",
            num_bytes=2 * (CONTEXT_TOKENS + UNIT_TOKENS) * token,
            num_launches=10 * decoder.num_layers,
        )
        held = f"{token / 1e3:.1f} | {PAGE_SIZE * token / 1e6:.2f} | {8192 * token / 1e6:.1f}"
        unused = (PAGE_SIZE - 1) * token / 1e6
        lines.append(
            f"| {name} | {held} | {unused:.2f} | {gather.num_bytes / 1e6:.1f}"
            f" | {1e6 * gather.floor_s:.0f} | {gather.num_launches}"
            f" | {1e6 * gather.predicted_s:.0f} |"
        )
    thinker = config.thinker.decoder
    written, _ = _paged(thinker, GIVEN_UP_TOKENS, 1)
    again = sum(kernel.predicted_s for kernel in _layers("", thinker, GIVEN_UP_TOKENS, [written]))
    lines += [
        "",
        f"{GIVEN_UP_TOKENS} tokens that were given up and are prefilled again read all weights"
        f" once: {1e3 * again:.1f} ms. A step of the engine by pages is the tables above; by the"
        " plain path it reads the same bytes, a session after the other.",
    ]
    return lines


def _line(stage: str, name: str, kernels: list[Kernel]) -> str:
    num_bytes = sum(kernel.num_bytes for kernel in kernels)
    floor = sum(kernel.floor_s for kernel in kernels)
    launches = sum(kernel.num_launches for kernel in kernels)
    predicted = sum(kernel.predicted_s for kernel in kernels)
    figures = f"{num_bytes / 1e6:.2f} | {1e6 * floor:.1f} | {launches} | {1e6 * predicted:.0f}"
    return f"| {stage} | {name} | {figures} |"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    print(table(read_published()), end="")
