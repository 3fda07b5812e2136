"""The step for many replies makes what the plain voice makes, without a word to the host."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import pytest
import torch
from oracle import Oracle
from recorded import HostReadError, Recorder, Watch
from torch import Tensor

from models.cache import DecoderCache, KvCache
from models.graphs import Capture, pick_capture, plain
from models.kernels import language, sampling
from models.qwen3_omni.model import Qwen3Omni
from models.qwen3_omni.talker import SpecialText
from models.sampling import Sampler, SamplingSettings
from models.speaking import Voice
from models.stepping.decoder_step import angles, step_decoder
from models.stepping.operations import FUSED, PLAIN, Operations
from models.stepping.pages import PagedCache, PagePool, PageTable
from models.stepping.predictor_step import PredictorStep
from models.stepping.speech_slots import SpeechSlots
from models.stepping.speech_step import SpeechStep
from models.stepping.vocoder_step import VocoderSlots, VocoderStep
from models.weights import load_model

CPU = torch.device("cpu")
TEXTS = ([1000, 1001, 1002, 1003], [2000, 2001, 2002, 2003], [77, 78, 79, 80])
GREEDY = SamplingSettings(do_sample=False, repetition_penalty=1.05)


class Rig:
    """Replies over a short user turn, by the plain voice and by steps."""

    def __init__(self, model: Qwen3Omni) -> None:
        assert model.talker is not None
        assert model.code2wav is not None
        self.model, self.talker = model, model.talker
        self.device = model.thinker.lm_head.weight.device
        self.special: SpecialText = model.talker.special_text(model.thinker.embed, [1, 2, 3])
        self.speaker = next(iter(model.talker.config.speaker_ids.values()))
        config, dtype = model.talker.config.decoder, model.thinker.lm_head.weight.dtype
        pool = PagePool(config, num_pages=16, device=self.device, dtype=dtype)
        table = PageTable(pool, num_rows=4, max_pages=4)
        self.slots = SpeechSlots(model.talker, model.code2wav, table, num_slots=4)

    def read(self, token: int) -> Tensor:
        ids = torch.tensor([token], device=self.device)
        return self.talker.project_text(self.model.thinker.embed(ids))[0]

    def listen(self, cache: DecoderCache, seed: int) -> Tensor:
        """A user's turn of 60 positions: the reply crosses the border of a page."""
        size = self.talker.config.decoder.hidden_size
        turn = torch.randn(60, size, generator=torch.Generator().manual_seed(seed))
        return self.talker(turn.to(self.device), torch.arange(60.0, device=self.device), cache)

    def voice(self, seed: int) -> Voice:
        config = self.talker.config.decoder
        cache = KvCache(config, device=CPU, dtype=torch.float32)
        self.listen(cache, seed)
        return Voice(
            model=self.model,
            cache=cache,
            position=60.0,
            speaker=self.speaker,
            special=self.special,
            code_sampler=Sampler(GREEDY),
            residual_sampler=Sampler(GREEDY),
            max_codes=100,
        )

    def begin(self, seed: int, token: int, settings: SamplingSettings) -> tuple[int, PagedCache]:
        slot = self.slots.take()
        assert slot is not None
        cache = PagedCache(self.slots.table)
        self.listen(cache, seed)
        prefix = self.talker.reply_prefix(self.special, self.speaker, self.read(token))
        where = 60.0 + torch.arange(float(len(prefix)), device=self.device)
        hidden = self.talker(prefix, where, cache)[-1]
        self.slots.begin(
            slot,
            row=cache.row,
            settings=(settings, settings),
            seed=seed,
            length=cache.length,
            position=float(where[-1]) + 1,
            hidden=hidden,
        )
        return slot, cache

    def speak(
        self,
        step: SpeechStep,
        seeds: Sequence[int],
        settings: SamplingSettings,
    ) -> list[tuple[list[list[int]], Tensor]]:
        """Four frames of the replies of `seeds`, together: each one's codes and samples."""
        begun = [self.begin(seed, TEXTS[seed][0], settings) for seed in seeds]
        slots = [slot for slot, _ in begun]
        made = [step.first(slots).read()]
        for place in range(1, 4):
            for _, cache in begun:
                cache.reserve(1)
                cache.advance(1)
            texts = [self.read(TEXTS[seed][place]) for seed in seeds]
            made.append(step.next(slots, texts).read())
        for slot, cache in begun:
            cache.truncate(0)
            self.slots.give_back(slot)
        return [
            ([codes[row] for codes, _ in made], torch.cat([pcm[row] for _, pcm in made]))
            for row in range(len(seeds))
        ]


@pytest.fixture(scope="module")
def model(oracle: Oracle) -> Qwen3Omni:
    model = load_model(oracle.folder, oracle.config, device=CPU, dtype=torch.float32)
    for parameter in model.parameters():  # on a CPU wide matrices lie turned; kernels want rows
        parameter.data = parameter.data.contiguous()
    return model


@pytest.fixture
def rig(model: Qwen3Omni) -> Rig:
    with torch.inference_mode():
        return Rig(model)


def step_of(rig: Rig, operations: Operations, capture: Capture = plain) -> SpeechStep:
    return SpeechStep(rig.model, rig.slots, operations, capture, sizes=(1, 2, 4))


@torch.inference_mode()
def test_greedy_frames_equal_the_plain_voice(rig: Rig) -> None:
    made = rig.speak(step_of(rig, PLAIN), (0, 1, 2), GREEDY)
    for seed, (codes, pcm) in enumerate(made):
        voice = rig.voice(seed)
        expected = []
        for place, token in enumerate(TEXTS[seed]):
            assert list(Voice.next_frames([voice], [token])[0] or ()) == codes[place]
            expected.extend(Voice.pcms([voice]))
        torch.testing.assert_close(pcm, torch.cat(expected), atol=2e-4, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("operations", [PLAIN, FUSED], ids=lambda made: made.name)
@torch.inference_mode()
def test_graphs_on_a_gpu_say_what_the_cpu_says(
    oracle: Oracle, rig: Rig, operations: Operations
) -> None:
    cuda = torch.device("cuda", 0)
    there = Rig(load_model(oracle.folder, oracle.config, device=cuda, dtype=torch.float32))
    step = step_of(there, operations, pick_capture(cuda, "on"))
    on_gpu = there.speak(step, (0, 1, 2), GREEDY)
    on_cpu = rig.speak(step_of(rig, PLAIN), (0, 1, 2), GREEDY)
    for gpu, cpu in zip(on_gpu, on_cpu, strict=True):
        assert gpu[0] == cpu[0]
        torch.testing.assert_close(gpu[1], cpu[1], atol=2e-3, rtol=1e-2)


@pytest.mark.skipif(not language.can_run(CPU), reason="needs the package triton")
@torch.inference_mode()
def test_a_talker_step_of_fused_kernels(rig: Rig) -> None:
    """Its shared and its routed experts, norms, rotary turn, pages and attention."""
    slots, talker = rig.slots, rig.talker
    (first, _), (second, _) = (rig.begin(seed, TEXTS[seed][0], GREEDY) for seed in (0, 1))
    rows = torch.tensor([first, second])
    lengths, table = slots.lengths[rows], slots.table.rows[slots.table_rows[rows]]
    inputs = torch.stack([rig.read(1001), rig.read(2001)])
    rotary = angles(talker.model, slots.positions[rows], inputs.dtype)
    plain_made, fused_made = (
        step_decoder(talker.model, inputs, rotary, slots.table.pool, table, lengths, operations)
        for operations in (PLAIN, FUSED)
    )
    torch.testing.assert_close(fused_made, plain_made, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not language.can_run(CPU), reason="needs the package triton")
@torch.inference_mode()
def test_a_predictor_frame_of_fused_kernels(rig: Rig) -> None:
    """Whatever was left in its rings; with few codes, and another's sampler, to be interpreted."""
    talker, batch = rig.talker, 2
    predictor = copy.deepcopy(talker.code_predictor)
    for head in predictor.lm_head.parameters():
        head.data = head[:64].clone()
    settings = SamplingSettings(temperature=0.9, top_k=20, top_p=0.9)
    hidden = torch.randn(batch, talker.config.decoder.hidden_size)
    code0 = torch.tensor([70, 7])
    made = []
    for operations in (PLAIN, dataclasses.replace(FUSED, sample=PLAIN.sample)):
        step = PredictorStep(predictor, batch=batch, operations=operations)
        for layer in step._decoder.layers:
            for part in layer.ring:
                part.fill_(float("nan"))
        draws = sampling.Draws.of([settings] * batch, [1, 2], CPU)
        codes, residual = step(hidden, code0, talker.embed_code(code0), draws)
        assert draws.count.tolist() == [predictor.num_residuals] * batch
        made.append((codes.tolist(), residual))
    assert made[0][0] == made[1][0]
    torch.testing.assert_close(made[1][1], made[0][1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("operations", [PLAIN, FUSED], ids=lambda made: made.name)
@torch.inference_mode()
def test_the_vocoders_ring_goes_round(rig: Rig, operations: Operations) -> None:
    """More frames than its window, of two streams that are not at the same place."""
    if operations is FUSED and not language.can_run(CPU):
        pytest.skip("needs the package triton")
    vocoder = rig.model.code2wav
    assert vocoder is not None
    operations = dataclasses.replace(operations, convolve=PLAIN.convolve)
    slots = VocoderSlots(vocoder, 4)
    first, later = (
        VocoderStep(vocoder, slots, operations, is_first=is_first) for is_first in (True, False)
    )
    generator = torch.Generator().manual_seed(0)
    shape = (9, vocoder.config.num_quantizers)
    streams = {
        slot: torch.randint(vocoder.config.codebook_size, shape, generator=generator)
        for slot in (2, 1)
    }
    made = {slot: [first(codes[:1], torch.tensor([slot]))[0]] for slot, codes in streams.items()}
    made[1].append(later(streams[1][1:2], torch.tensor([1]))[0])
    for place in range(1, 8):
        codes = torch.stack([streams[2][place], streams[1][place + 1]])
        for slot, pcm in zip((2, 1), later(codes, torch.tensor([2, 1])), strict=True):
            made[slot].append(pcm)
    for slot, codes in streams.items():
        frames = len(made[slot])
        assert frames > 1 + (vocoder.config.transformer.sliding_window or 0)
        whole = vocoder(codes[:frames], vocoder.new_state())
        torch.testing.assert_close(torch.cat(made[slot]), whole, atol=2e-4, rtol=1e-3)


@torch.inference_mode()
def test_a_reply_is_the_same_in_company_and_when_recorded(rig: Rig) -> None:
    settings = SamplingSettings(temperature=0.9, top_k=20, top_p=0.9)
    recorder = Recorder()
    together = rig.speak(step_of(rig, PLAIN, recorder), (2, 0, 1), settings)
    assert recorder.num_replays == 7
    for seed, (codes, pcm) in zip((2, 0, 1), together, strict=True):
        alone = rig.speak(step_of(rig, PLAIN), (seed,), settings)[0]
        assert alone[0] == codes
        torch.testing.assert_close(alone[1], pcm, atol=2e-4, rtol=1e-3)
    assert together[0][0] != together[1][0]


@torch.inference_mode()
def test_empty_rows_never_leave_the_page_that_is_nobodys(rig: Rig) -> None:
    rig.speak(step_of(rig, PLAIN), (0, 1, 2), GREEDY)  # three in a step for four
    assert rig.slots.lengths[0] == 0


@torch.inference_mode()
def test_the_host_waits_once_a_frame(rig: Rig) -> None:
    step = step_of(rig, PLAIN)
    slot, cache = rig.begin(0, TEXTS[0][0], GREEDY)
    step.first([slot])
    cache.reserve(1)
    text = rig.read(TEXTS[0][1])
    with Watch() as watch:
        frames = step.next([slot], [text])
    assert len(watch.operations) > 100
    assert len(frames.read()[0][0]) == rig.talker.config.num_code_groups
    cache.truncate(0)
    rig.slots.give_back(slot)


def test_the_recorder_sees_what_a_graph_would_freeze() -> None:
    counter = torch.zeros(1)
    numbers = iter(range(9))

    def counts_on_the_host() -> None:
        counter.add_(next(numbers))

    def reads_back() -> None:
        counter.fill_(float(counter))

    replay = Recorder()(counts_on_the_host)
    with pytest.raises(AssertionError):
        replay()
    with pytest.raises(HostReadError):
        Recorder()(reads_back)


def test_nobody_waits_for_a_slot(rig: Rig) -> None:
    taken = [rig.slots.take() for _ in range(4)]
    assert taken[-1] is None
    for slot in taken[:-1]:
        assert slot is not None
        rig.slots.give_back(slot)


def test_draws_of_rows_go_on_where_they_were() -> None:
    draws = sampling.Draws.of([GREEDY] * 3, [1, 2, 3], CPU)
    rows = torch.tensor([2, 0])
    some = draws.rows(rows)
    some.advance()
    draws.put_back(rows, some)
    assert draws.count.tolist() == [1, 0, 1]
    draws.put(2, SamplingSettings(temperature=0.5, top_k=4, top_p=0.7), 9)
    assert [part[2].item() for part in (draws.temperature, draws.top_k, draws.seed)] == [0.5, 4, 9]
    assert draws.count.tolist() == [1, 0, 0]
