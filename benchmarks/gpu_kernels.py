"""Times each kernel beside its plain reference and its floor, at the model's shapes.

The floor is the bytes that a kernel must move, counted as in `benchmarks.predictions`, at the
bandwidth that was measured.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from models.cache import KvCache
from models.config import DecoderConfig, OmniConfig
from models.kernels import (
    decode_attention,
    experts,
    gated_mlp,
    language,
    norm_projection,
    packed_experts,
    ring_attention,
    rotary_cache,
    sampling,
    snake_convolution,
)
from models.packed_matrices import Float8Matrices, Int4Matrices, Int8Matrices, ScaledRows
from models.sampling import SamplingSettings
from models.stepping.pages import PAGE_SIZE, PagedCache, PagePool, PageTable

BATCHES = (1, 8, 32)
CONTEXT_TOKENS = 2048
UNIT_TOKENS = 512
REPEATS = 50
COLD_BYTES = 256 * 2**20  # written between two runs: weights come from memory, not from a cache
TOLERANCE = 3e-2
TIMES = ("plain_us", "fused_us", "floor_us")

Case = tuple[str, Callable[..., Any], Callable[..., Any], tuple[Any, ...], int]


def time_kernels(
    config: OmniConfig, device: torch.device, bytes_per_s: float, *, is_short: bool
) -> dict[str, dict[str, Any]]:
    """Microseconds of both paths and of the floor, bytes moved, bytes per second of the fused path,
    and its error; `failure` where that is too great or nothing came of it.
    """
    made: dict[str, dict[str, Any]] = {}
    cold = torch.empty((1 if is_short else COLD_BYTES) // 4 + 1, device=device)
    for batch in BATCHES[: 1 if is_short else None]:
        for case in _cases(config, device, batch):
            name = f"{case[0]}, {batch}"
            num_bytes = case[-1]
            figures: dict[str, Any] = {
                "bytes": num_bytes,
                "floor_us": round(1e6 * num_bytes / bytes_per_s, 2),
            }
            made[name] = figures
            try:
                _measure(figures, case, cold, is_short=is_short)
            except Exception as error:  # the others' figures are worth having all the same
                traceback.print_exc()
                figures["failure"] = f"{type(error).__name__}: {error}"
            times = (f"{key} {figures[key]}" for key in TIMES if key in figures)
            print(f"  {name}: {', '.join(times)} {figures.get('failure', '')}".rstrip(), flush=True)
    return made


def _measure(figures: dict[str, Any], case: Case, cold: Tensor, *, is_short: bool) -> None:
    """Put one by one into `figures` what is measured, up to where it fails."""
    _, fused, plain, arguments, num_bytes = case
    figures["plain_us"] = _timed(lambda: plain(*arguments), cold, is_short)
    if is_short or not language.can_run(cold.device):
        return
    figures["fused_us"] = _timed(lambda: fused(*arguments), cold, is_short)
    figures["fused_gb_per_s"] = round(num_bytes / figures["fused_us"] / 1e3, 1)
    figures["error"] = _error(fused(*arguments), plain(*arguments))
    if not figures["error"] < TOLERANCE:
        figures["failure"] = f"an error of {figures['error']:.2g}, {TOLERANCE} is allowed"


def _cases(config: OmniConfig, device: torch.device, batch: int) -> list[Case]:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int, as_dtype: torch.dtype = dtype) -> Tensor:
        made = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        return (made / shape[-1] ** 0.5).to(as_dtype)

    decoder = config.thinker.decoder
    size, heads, kv_heads = decoder.hidden_size, decoder.num_heads, decoder.num_kv_heads
    moe = decoder.moe
    assert moe is not None
    assert config.talker is not None
    dense = config.talker.predictor
    rows, gain = drawn(batch, size), torch.ones(size, dtype=dtype, device=device)
    packed = drawn((heads + 2 * kv_heads) * decoder.head_dim, size)
    inner = drawn(batch, dense.hidden_size)
    gate_up = drawn(2 * dense.intermediate_size, dense.hidden_size)
    max_pages = CONTEXT_TOKENS // PAGE_SIZE
    page_shape = (1 + batch * max_pages, kv_heads, PAGE_SIZE, decoder.head_dim)
    pages = (drawn(*page_shape), drawn(*page_shape))
    table = torch.arange(1, 1 + batch * max_pages, dtype=torch.int32, device=device)
    lengths = torch.full((batch,), CONTEXT_TOKENS, dtype=torch.int32, device=device)
    stacked = drawn(moe.num_experts, 2 * moe.expert_size, size)
    down = drawn(moe.num_experts, size, moe.expert_size)
    logits = drawn(batch, moe.num_experts, as_dtype=torch.float32) * moe.num_experts**0.5
    ids, weights = experts.route_reference(logits, moe.num_experts_per_token, is_normalized=True)
    distinct = int(ids.unique().numel())
    expert_bytes = (stacked[0].nbytes + down[0].nbytes) * distinct
    queries = drawn(batch, heads, decoder.head_dim)
    attention = (queries, pages, table.view(batch, max_pages), lengths)
    project = (rows, packed, gain, 1e-6, None)
    mlp = (inner, gate_up, torch.ones_like(inner[0]), 1e-6)
    mix = (rows, ids, weights, stacked, down)
    kv_bytes = 2 * batch * CONTEXT_TOKENS * kv_heads * decoder.head_dim * dtype.itemsize
    made: list[Case] = []
    for name, module, arguments, num_bytes in (
        ("norm projection", norm_projection, project, packed.nbytes),
        ("gated mlp", gated_mlp, mlp, gate_up.nbytes),
        ("attention", decode_attention, attention, kv_bytes),
    ):
        made.append((name, module.fused, module.reference, arguments, num_bytes))
    made.append(("rotary cache", *_turn_case(decoder, drawn, attention)))
    route, route_plain = (
        partial(run, is_normalized=True) for run in (experts.route_fused, experts.route_reference)
    )
    routed_bytes = logits.nbytes + ids.nbytes + weights.nbytes
    choose = (logits, moe.num_experts_per_token)
    made.append(("routing", route, route_plain, choose, routed_bytes))
    made.append(("experts", experts.mix_fused, experts.mix_reference, mix, expert_bytes))
    mix_packed = packed_experts.mix_fused, packed_experts.mix_reference
    for name, kind in (
        ("experts int8", Int8Matrices),
        ("experts fp8", Float8Matrices),
        ("experts int4", Int4Matrices),
    ):
        stacks = [_packed(kind, matrices, generator) for matrices in (stacked, down)]
        all_bytes = sum(part.nbytes for stack in stacks for part in stack.parameters())
        num_bytes = all_bytes * distinct // moe.num_experts
        made.append((name, *mix_packed, (rows, ids, weights, *stacks), num_bytes))
    made.append(_paged_case(config, device, dtype))
    assert config.vocoder is not None
    front = config.vocoder.transformer
    groups, window = config.talker.num_code_groups, front.sliding_window or 0
    made.append(("predictor ring", *_ring_case(dense, drawn, batch, groups, dtype)))
    made.append(("vocoder ring", *_ring_case(front, drawn, batch, window, torch.float32)))
    return [*made, _sampling_case(config, device, batch), _vocoder_case(config, device, batch)]


def _turn_case(
    decoder: DecoderConfig,
    drawn: Callable[..., Tensor],
    attention: tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor],
) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...], int]:
    """The last position that `attention` reads, turned and written into pages that each path has
    for itself; a case but for its name.
    """
    queries, pages, table, lengths = attention
    batch, num_queries, size = queries.shape
    heads = drawn(batch, num_queries + 2 * decoder.num_kv_heads, size)
    gains = torch.ones_like(heads[0, : num_queries + decoder.num_kv_heads])
    rotary = (drawn(batch, size), drawn(batch, size))

    def into_pages(turn: Callable[..., Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        keys, values = (torch.zeros_like(part) for part in pages)
        where = ((keys, values), table, lengths - 1)
        return lambda: (turn(heads, gains, 1e-6, rotary, *where), keys, values)

    fused, plain = into_pages(rotary_cache.fused), into_pages(rotary_cache.reference)
    return fused, plain, (), 2 * heads.nbytes


def _paged_case(config: OmniConfig, device: torch.device, dtype: torch.dtype) -> Case:
    """A prefill unit's keys and values of one layer behind a long context: into pages and gathered
    in the place of the fused kernel, into a plain cache as its reference.
    """
    decoder = config.thinker.decoder
    most = CONTEXT_TOKENS + UNIT_TOKENS
    num_pages = most // PAGE_SIZE
    pool = PagePool(decoder, num_pages=1 + num_pages, device=device, dtype=dtype)
    paged = PagedCache(PageTable(pool, num_rows=2, max_pages=num_pages))
    whole = KvCache(decoder, device=device, dtype=dtype, max_length=most)
    shape = (CONTEXT_TOKENS, decoder.num_kv_heads, decoder.head_dim)
    earlier = torch.ones(shape, device=device, dtype=dtype)
    new = torch.randn(UNIT_TOKENS, *shape[1:], device=device).to(dtype)
    for cache in (paged, whole):
        cache.reserve(most)
        cache.append(0, earlier, earlier)
        cache.advance(CONTEXT_TOKENS)

    def into_pages() -> Tensor:
        return paged.append(0, new, new)[0]

    def into_whole() -> Tensor:
        return whole.append(0, new, new)[0]

    num_bytes = 2 * 2 * most * earlier[0].nbytes
    return "paged prefill", into_pages, into_whole, (), num_bytes


def _ring_case(
    decoder: DecoderConfig,
    drawn: Callable[..., Tensor],
    batch: int,
    window: int,
    dtype: torch.dtype,
) -> tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Any, ...], int]:
    """The last position of a ring that is full with it; a case but for its name."""
    turned, size = decoder.num_heads + decoder.num_kv_heads, decoder.head_dim
    heads = drawn(batch, turned + decoder.num_kv_heads, size, as_dtype=dtype)
    gains = torch.ones_like(heads[0, :turned]) if decoder.qk_norm else None
    rotary = tuple(drawn(batch, size, as_dtype=dtype) for _ in range(2))
    shape = (batch, decoder.num_kv_heads, window, size)
    ring = tuple(drawn(*shape, as_dtype=dtype) for _ in range(2))
    slots = torch.arange(batch, device=heads.device)
    positions = torch.full_like(slots, window - 1)
    arguments = (heads, gains, 1e-6, rotary, ring, slots, positions)
    num_bytes = sum(part.nbytes for part in ring) + heads.nbytes
    return ring_attention.fused, ring_attention.reference, arguments, num_bytes


def _packed(
    kind: Callable[..., ScaledRows | Int4Matrices], like: Tensor, generator: torch.Generator
) -> ScaledRows | Int4Matrices:
    with like.device:
        matrices = kind(*like.shape)
    matrices.randomize(like.shape[-1] ** -0.5, generator)
    return matrices


def _sampling_case(config: OmniConfig, device: torch.device, batch: int) -> Case:
    assert config.talker is not None
    settings = [SamplingSettings(temperature=0.9, top_k=50, top_p=0.8)] * batch
    draws = sampling.Draws.of(settings, list(range(batch)), device)
    vocab = config.talker.predictor.vocab_size
    logits = 3.0 * torch.randn(batch, vocab, device=device)
    return "sampling", sampling.fused, sampling.reference, (logits, draws, None), logits.nbytes


def _vocoder_case(config: OmniConfig, device: torch.device, batch: int) -> Case:
    """A dilated unit in the middle of the vocoder, one frame."""
    assert config.vocoder is not None
    channels = config.vocoder.decoder_size // 4
    x = torch.randn(batch, channels, 160, device=device)
    ones = torch.ones(channels, device=device)
    tail = torch.zeros(batch, channels, 18, device=device)
    weight = torch.randn(channels, channels, 7, device=device) / (7 * channels) ** 0.5
    arguments = (x, (ones, ones), tail, weight, 0 * ones, 3, None)
    num_bytes = weight.nbytes + 2 * x.nbytes
    return "snake", snake_convolution.fused, snake_convolution.reference, arguments, num_bytes


def _timed(run: Callable[[], object], cold: Tensor, is_short: bool) -> float:
    """Median microseconds of one run after others' data have passed through the caches."""
    run()
    times = []
    for _ in range(2 if is_short else REPEATS):
        cold.fill_(1.0)
        if cold.is_cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(1e3 * begin.elapsed_time(end))
        else:
            started = time.perf_counter()
            run()
            times.append(1e6 * (time.perf_counter() - started))
    return round(sorted(times)[len(times) // 2], 2)


def _error(fused: Tensor | tuple[Tensor, ...], plain: Tensor | tuple[Tensor, ...]) -> float:
    """Greatest difference, over the greatest value; ids that differ count whole. Of several
    results, of the worst one.
    """
    if isinstance(fused, tuple):
        errors = [_error(*pair) for pair in zip(fused, plain, strict=True)]
        return float(torch.tensor(errors).max())  # where one is no number, it is that one
    assert isinstance(plain, Tensor)
    if not fused.is_floating_point():
        return float((fused != plain).float().max())
    scale = plain.float().abs().max().clamp_min(1e-9)
    return float(((fused.float() - plain.float()).abs().max() / scale).cpu())
