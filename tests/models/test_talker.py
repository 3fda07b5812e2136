"""The talker and code predictor against the oracle: inputs, positions apart, and greedy frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracle import ASSISTANT, AUDIO, IM_START, IMAGE, NEWLINE, SCENARIOS, USER, VIDEO, Oracle
from torch import Tensor

from models.cache import KvCache
from models.errors import RequestError
from models.generation import CODES
from models.qwen3_omni.code_predictor import RESIDUAL_SAMPLING
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import SpecialText, Talker
from models.sampling import Sampler, SamplingSettings

CPU = torch.device("cpu")
HEADER = (IM_START, ASSISTANT, NEWLINE)
NUM_FRAMES = 6
GREEDY_CODES = SamplingSettings(do_sample=False, repetition_penalty=1.05)
GREEDY = SamplingSettings(do_sample=False)


@dataclass
class Reply:
    """What the oracle did in one greedy reply."""

    prompt: Tensor  # [P]
    text: list[int]
    captured: Tensor  # [P, thinker H]
    embeds: Tensor  # [P', H], the talker's first input
    positions: Tensor  # [3, P']
    frames: list[list[int]]


def record(oracle: Oracle, name: str) -> Reply:
    """Let the oracle answer, and look into its parts while it does."""
    model, seen = oracle.model, {}

    def keep(key: str) -> Any:
        return lambda _module, args, kwargs: seen.setdefault(key, (args, kwargs)) and None

    parts = {
        "talker": model.talker.model,
        "vocoder": model.code2wav,
        "layer": model.thinker.model.language_model.layers[
            oracle.config.talker.accept_hidden_layer
        ],
    }
    hooks = [
        part.register_forward_pre_hook(keep(key), with_kwargs=True) for key, part in parts.items()
    ]
    ids, _ = oracle.generate(name, frames=NUM_FRAMES + 1)
    for hook in hooks:
        hook.remove()
    prompt = oracle.scenario(name)["input_ids"][0]
    talker_call = seen["talker"][1]
    return Reply(
        prompt=prompt,
        text=ids[len(prompt) :].tolist(),
        captured=seen["layer"][0][0][0],
        embeds=talker_call["inputs_embeds"][0],
        positions=talker_call["position_ids"][-3:, 0].float(),
        frames=seen["vocoder"][0][0][0].t().tolist(),
    )


def special_text(ours: Qwen3Omni) -> tuple[Talker, SpecialText]:
    assert ours.talker is not None
    return ours.talker, ours.talker.special_text(ours.thinker.embed, HEADER)


def user_part(ours: Qwen3Omni, reply: Reply) -> Tensor:
    """What the talker gets of the prompt: [m, H]."""
    talker, _ = special_text(ours)
    rows, role = [], None
    ids = reply.prompt.tolist()
    for index, token in enumerate(ids):
        role = ids[index + 1] if token == IM_START else role
        if role == USER:
            rows.append(index)
    media = torch.isin(reply.prompt[rows], torch.tensor([AUDIO, IMAGE, VIDEO]))
    text = talker.project_text(ours.thinker.embed(reply.prompt[rows]))
    return torch.where(media[:, None], talker.project_hidden(reply.captured[rows]), text)


def speak(ours: Qwen3Omni, reply: Reply) -> tuple[Tensor, list[list[int]]]:
    """Our greedy frames: the talker's first input, and the codes."""
    talker, special = special_text(ours)
    text = talker.project_text(ours.thinker.embed(torch.tensor(reply.text[:-1])))
    prefix = talker.reply_prefix(special, talker.speaker_id("Ethan"), text[0])
    embeds = torch.cat((user_part(ours, reply), prefix))
    tail = [*text[1:], special.end]
    cache = KvCache(talker.config.decoder, device=CPU, dtype=torch.float32)
    first_codes, residuals = Sampler(GREEDY_CODES), Sampler(GREEDY)
    hidden = talker(embeds, reply.positions, cache)[-1]
    position, frames = reply.positions.max() + 1, []
    while len(frames) < NUM_FRAMES:
        seen = [frame[0] for frame in frames]
        code = first_codes(talker.code_logits(hidden), seen)
        if int(code) == talker.codec_eos_id:
            break
        frame = talker.code_predictor.predict(hidden, code, talker.embed_code(code), residuals)
        read = tail[len(frames)] if len(frames) < len(tail) else special.pad
        frames.append(frame.codes.tolist())
        hidden = talker(
            talker.embed_frames(frame.codes[:1], frame.residual_embedding, read),
            position.view(1),
            cache,
        )[-1]
        position = position + 1
    return embeds, frames


@pytest.mark.parametrize("name", SCENARIOS)
def test_greedy_frames_equal_the_oracle(oracle: Oracle, ours: Qwen3Omni, name: str) -> None:
    reply = record(oracle, name)
    with torch.inference_mode():
        embeds, frames = speak(ours, reply)
    torch.testing.assert_close(embeds, reply.embeds, rtol=1e-5, atol=1e-5)
    assert len(reply.frames) == NUM_FRAMES
    assert frames == reply.frames


def test_early_end_equals_the_oracle(oracle: Oracle, ours: Qwen3Omni) -> None:
    """Make the end more likely than the code of the third frame: both stop there or before."""
    assert ours.talker is not None
    heads = (oracle.model.talker.codec_head.weight, ours.talker.codec_head.weight)
    usual = record(oracle, "text").frames
    code, end = usual[2][0], ours.talker.codec_eos_id
    assert code != usual[0][0]
    kept = [head[end].clone() for head in heads]
    try:
        for head in heads:
            head.data[end] = 1.1 * head[code]
        reply = record(oracle, "text")
        with torch.inference_mode():
            frames = speak(ours, reply)[1]
    finally:
        for head, row in zip(heads, kept, strict=True):
            head.data[end] = row
    assert frames == reply.frames
    assert 0 < len(frames) < len(usual)


def test_frames_do_not_depend_on_earlier_ones(ours: Qwen3Omni) -> None:
    assert ours.talker is not None
    predictor = ours.talker.code_predictor
    hidden, code = torch.randn(2, 32), torch.tensor(7)
    embed = ours.talker.embed_code(code)
    with torch.inference_mode():
        first = predictor.predict(hidden[0], code, embed, Sampler(GREEDY))
        predictor.predict(hidden[1], code, embed, Sampler(GREEDY))
        again = predictor.predict(hidden[0], code, embed, Sampler(GREEDY))
    assert torch.equal(first.codes, again.codes)
    tables = predictor.model.codec_embedding
    expected = torch.stack([table(c) for table, c in zip(tables, first.codes[1:], strict=True)])
    torch.testing.assert_close(first.residual_embedding, expected.sum(0))


def test_sampled_frames_are_reproducible(ours: Qwen3Omni) -> None:
    assert ours.talker is not None
    code, made = torch.tensor(3), []
    for seed in (1, 1, 2):
        sampler = Sampler(RESIDUAL_SAMPLING, torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            frame = ours.talker.code_predictor.predict(
                torch.ones(32), code, ours.talker.embed_code(code), sampler
            )
        made.append(frame.codes.tolist())
    assert made[0] == made[1] != made[2]
    assert made[0][0] == 3
    assert all(0 <= code < 2048 for code in made[0])


@pytest.mark.parametrize("settings", [GREEDY, RESIDUAL_SAMPLING], ids=["greedy", "sampled"])
@torch.inference_mode()
def test_a_voice_draws_the_same_alone_and_among_others(
    ours: Qwen3Omni, settings: SamplingSettings
) -> None:
    assert ours.talker is not None
    predictor = ours.talker.code_predictor
    hidden, codes = torch.randn(3, 32), torch.tensor([7, 3, 7])
    embeds = ours.talker.embed_code(codes)

    def samplers() -> list[Sampler]:
        return [Sampler(settings, torch.Generator().manual_seed(seed)) for seed in (5, 6, 7)]

    together, residuals = predictor.predict_rows(hidden, codes, embeds, samplers())
    for row, sampler in enumerate(samplers()):
        frame = predictor.predict(hidden[row], codes[row], embeds[row], sampler)
        assert torch.equal(frame.codes, together[row])
        torch.testing.assert_close(frame.residual_embedding, residuals[row])


def test_reserved_codes_are_never_drawn(ours: Qwen3Omni) -> None:
    talker = ours.talker
    assert talker is not None
    logits = talker.code_logits(torch.randn(32))
    allowed = logits.isfinite().nonzero().flatten().tolist()
    assert allowed == [*range(2048), talker.codec_eos_id]
    assert logits.dtype == torch.float32
    sampler = Sampler(CODES, torch.Generator().manual_seed(0))
    assert {int(sampler(logits)) for _ in range(50)} <= set(allowed)


def test_voices_are_found_in_any_case(ours: Qwen3Omni) -> None:
    assert ours.talker is not None
    assert ours.talker.speaker_id("Ethan") == ours.talker.speaker_id("ETHAN") == 2302
    with pytest.raises(RequestError, match=r"'nobody'.*aiden, chelsie, ethan"):
        ours.talker.speaker_id("nobody")
