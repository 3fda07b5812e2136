"""`omnid bench engine`: how soon and how fast the engine speaks, beside its floor and the
reference.

Prints the floor first (bytes that a step must read, divided by the memory bandwidth measured here),
then the table, and last one JSON object. The question is spoken noise fed as it would arrive, so
what is measured is the time after its end. Replies are greedy and of a fixed length: no end token
is accepted. Ratios compare within this run on this machine; absolute times mean something on an
idle one only.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.chat import ChatFormat
from models.commands.floor import Floor, measure_floor
from models.commands.questions import (
    CAMERA_SAMPLES,
    CHUNK_SAMPLES,
    QUESTION_S,
    noise,
    picture,
)
from models.config import OmniConfig, read_config
from models.content import AudioEvent, EndEvent, FaultEvent, ReplyOptions, TextEvent
from models.devices import pick_device, pick_dtype
from models.encoding import WindowPolicy
from models.engine import Engine, EngineOptions
from models.errors import ModelError, RequestError
from models.generation import GenerationSettings, read_generation
from models.hub import resolve_checkpoint
from models.qwen3_omni.model import Qwen3Omni
from models.sizes import SIZES
from models.tiny import write_tiny_checkpoint
from models.weights import load_model

OUTPUT_HZ = 24_000
FRAME_S = 0.08
INSTRUCTIONS = "You are a voice assistant. Answer briefly."
SHORT_TOKENS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One measured reply: times from the end of the question. `cpu_ms` is this process's work for
    all of it, which other programs on the machine do not lengthen as they do the time.
    """

    first_audio_ms: float
    total_ms: float
    cpu_ms: float
    audio_s: float
    tokens_left: int
    text_ids: tuple[int, ...]
    codes: tuple[tuple[int, ...], ...]

    @property
    def frame_ms(self) -> float:
        """Each frame after the first."""
        return (self.total_ms - self.first_audio_ms) / max(1, len(self.codes) - 1)

    @property
    def rtf(self) -> float:
        """Time to make the reply, over its length."""
        return self.total_ms / 1000 / self.audio_s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument(
        "--model", default="tiny", help="checkpoint folder, hub id, or random: tiny, small"
    )
    parser.add_argument(
        "--against", choices=["transformers"], help="measure the reference, too (slow)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a reply (5)")
    parser.add_argument("--turns", type=int, default=50, help="turns of the long conversation (50)")
    parser.add_argument("--sessions", default="1", help="sessions at once, such as 1,4,8 (1)")
    parser.add_argument(
        "--window", type=int, help="attention window of open speech, seconds (the checkpoint's)"
    )
    parser.add_argument("--video", action="store_true", help="the questions come with a camera")
    parser.add_argument("--threads", type=int, default=1, help="torch threads on a CPU (1)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--work", type=Path, help="where random checkpoints are kept")
    parser.add_argument("--json", metavar="FILE|-", help="write the figures")


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit code.

    Raises:
        ModelError: a wrong flag, checkpoint or device; the message says which.
    """
    counts = _counts(args.sessions)
    if args.seconds < 2 * FRAME_S or args.turns < 1 or args.threads < 1:
        raise RequestError("--seconds must be at least 0.16, --turns and --threads at least 1")
    torch.set_num_threads(args.threads)
    folder = _folder(args.model, args.work)
    if args.video and args.against is not None:
        raise RequestError("--video has no reference to be measured --against")
    bench = Bench.load(
        folder,
        device=args.device,
        dtype=args.dtype,
        seconds=args.seconds,
        window_s=args.window,
        has_camera=args.video,
    )
    floor = measure_floor(bench.model)
    print(floor.describe(), file=sys.stderr)
    report = bench.report(floor, turns=args.turns, counts=counts)
    if args.against is not None:
        from models.commands.against import measure_reference

        report |= measure_reference(bench, folder, report)
    _print_table(report)
    _write(args.json, report)
    return 0


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise RequestError(f"--sessions {text!r}: give numbers such as 1,4,8")
    return counts


def _folder(model: str, work: Path | None) -> Path:
    """A checkpoint folder; a random one of a named size is made where it is missing."""
    if model not in SIZES:
        return resolve_checkpoint(model)
    folder = (work or Path("bench-checkpoints")) / model
    if not (folder / "config.json").exists():
        print(f"writing a random checkpoint to {folder}", file=sys.stderr)
        write_tiny_checkpoint(folder, overrides=SIZES[model])
    return folder


class Bench:
    """An engine whose replies have a fixed length."""

    def __init__(
        self,
        *,
        model: Qwen3Omni,
        config: OmniConfig,
        chat: ChatFormat,
        generation: GenerationSettings,
        folder: Path,
        seconds: float,
        window_s: int | None = None,
        has_camera: bool = False,
        speaks_by_steps: bool = False,
    ) -> None:
        self.model = model
        self.config = config
        self.chat = chat
        self.num_frames = round(seconds / FRAME_S)
        self.num_tokens = self.num_frames + 1
        endless = replace(generation.thinker, eos_ids=frozenset())
        talker = replace(generation.talker, max_new_tokens=self.num_frames + 1)
        self.engine = Engine(
            model=model,
            config=config,
            chat=chat,
            generation=replace(generation, thinker=endless, talker=talker),
            folder=folder,
            options=EngineOptions(windows=_windows(window_s), speaks_by_steps=speaks_by_steps),
        )
        self.has_camera = has_camera
        self.question = noise(QUESTION_S)
        self.instructions = INSTRUCTIONS
        self._ids = 0

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str,
        dtype: str,
        seconds: float,
        window_s: int | None = None,
        has_camera: bool = False,
    ) -> Bench:
        """Load a checkpoint folder. Raises as `Engine.load` does."""
        config = read_config(folder)
        if config.talker is None:
            raise RequestError("this checkpoint has no speech to measure")
        place = pick_device(device)
        return cls(
            model=load_model(folder, config, device=place, dtype=pick_dtype(place, dtype)),
            config=config,
            chat=ChatFormat.load(folder, config),
            generation=read_generation(folder, config),
            folder=folder,
            seconds=seconds,
            window_s=window_s,
            has_camera=has_camera,
        )

    # ------------------------------------------------------------------ measuring
    def report(self, floor: Floor, *, turns: int, counts: list[int]) -> dict[str, Any]:
        """All figures of our engine, with one warm-up apart."""
        self.one_reply(self.num_tokens)
        reply = min((self.one_reply(self.num_tokens) for _ in range(3)), key=_total)
        first, last = self.long_conversation(turns)
        ratio = last.first_audio_ms / first.first_audio_ms
        ours: dict[str, Any] = {
            "first_audio_ms": round(reply.first_audio_ms, 2),
            "frame_ms": round(reply.frame_ms, 3),
            "rtf": round(reply.rtf, 4),
            "audio_s_per_s": round(1 / reply.rtf, 2),
            "tokens_left_at_turn_end": reply.tokens_left,
            f"turn{turns}_over_turn1": round(ratio, 3),
            f"turn{turns}_over_turn1_cpu": round(last.cpu_ms / first.cpu_ms, 3),
            f"turn{turns}_over_turn1_tokens": round(last.tokens_left / first.tokens_left, 3),
            "reply_ms": round(reply.total_ms, 1),
            "reply_cpu_ms": round(reply.cpu_ms, 1),
            "floor_reached": round(floor.frame_ms / reply.frame_ms, 4),
        }
        return {
            "machine": f"{platform.system()} {platform.machine()}, {self.engine.device}",
            "dtype": self.engine.dtype,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "reply_s": round(reply.audio_s, 3),
            "floor": floor.record(),
            "ours": ours,
            "sessions": {str(count): self.together(count) for count in counts},
        }

    def one_reply(self, num_tokens: int) -> Reply:
        """A new conversation of one turn."""
        context = self._open()
        self._speak(context)
        reply = self._reply(context, num_tokens)
        self.engine.close(context)
        return reply

    def long_conversation(self, turns: int) -> tuple[Reply, Reply]:
        """The median replies, by time to first audio, of the first and of the last turns of one
        conversation.
        """
        context = self._open()
        replies = []
        for _ in range(turns):
            self._speak(context)
            replies.append(self._reply(context, SHORT_TOKENS))
        self.engine.close(context)
        few = min(5, turns)
        return _median(replies[:few]), _median(replies[-few:])

    def together(self, count: int) -> dict[str, float]:
        """Several sessions asked at once: their first audio, and speech made per second."""
        contexts = [self._open() for _ in range(count)]
        for context in contexts:
            self._speak(context)
        started = time.perf_counter()
        for context in contexts:
            self._respond(context, self.num_tokens)
        firsts: dict[int, float] = {}
        samples, ended = 0, 0
        while ended < count:
            for event in self.engine.step():
                now = time.perf_counter() - started
                if isinstance(event, AudioEvent):
                    firsts.setdefault(event.response, now)
                    samples += len(event.pcm)
                ended += isinstance(event, EndEvent)
        took = time.perf_counter() - started
        for context in contexts:
            self.engine.close(context)
        times = sorted(firsts.values())
        return {
            "first_audio_ms_p50": round(1000 * statistics.median(times), 2),
            "first_audio_ms_max": round(1000 * times[-1], 2),
            "audio_s_per_s": round(samples / OUTPUT_HZ / took, 2),
        }

    # ------------------------------------------------------------------ steps
    def _open(self) -> int:
        self._ids += 1
        self.engine.open(self._ids, instructions=self.instructions, voice=None)
        return self._ids

    def _speak(self, context: int) -> None:
        """The question, in pieces, with the engine at work between them."""
        self.engine.begin_speech(context, has_camera=self.has_camera)
        for start in range(0, len(self.question), CHUNK_SAMPLES):
            if self.has_camera and start % CAMERA_SAMPLES < CHUNK_SAMPLES:
                self.engine.append_frame(context, picture(start), time_s=start / 16_000)
            self.engine.append_audio(context, self.question[start : start + CHUNK_SAMPLES])
            self._rest()
        self.engine.end_speech(context)

    def _rest(self) -> None:
        while self.engine.has_work:
            for event in self.engine.step():
                if isinstance(event, FaultEvent):
                    raise ModelError(event.error)

    def _respond(self, context: int, num_tokens: int) -> None:
        self._ids += 1
        options = ReplyOptions(greedy=True, max_tokens=num_tokens)
        self.engine.respond(context, self._ids, options)

    def _reply(self, context: int, num_tokens: int) -> Reply:
        started, cpu_started = time.perf_counter(), time.process_time()
        self._respond(context, num_tokens)
        first, samples, left = None, 0, 0
        codes: list[tuple[int, ...]] = []
        ids: list[int] = []
        is_over = False
        while not is_over:
            for event in self.engine.step():
                match event:
                    case AudioEvent():
                        first = first or time.perf_counter()
                        samples += len(event.pcm)
                        codes.append(event.codes)
                    case TextEvent():
                        ids.extend(event.ids)
                    case EndEvent():
                        is_over, left = True, event.stages.tokens_left
                        if event.error is not None:
                            raise ModelError(event.error)
        total, cpu_total = time.perf_counter(), time.process_time()
        assert first is not None, "a reply without sound"
        return Reply(
            first_audio_ms=1000 * (first - started),
            total_ms=1000 * (total - started),
            cpu_ms=1000 * (cpu_total - cpu_started),
            audio_s=samples / OUTPUT_HZ,
            tokens_left=left,
            text_ids=tuple(ids),
            codes=tuple(codes),
        )


def _total(reply: Reply) -> float:
    return reply.total_ms


def _median(replies: list[Reply]) -> Reply:
    return sorted(replies, key=_first_audio)[len(replies) // 2]


def _first_audio(reply: Reply) -> float:
    return reply.first_audio_ms


def _windows(window_s: int | None) -> WindowPolicy:
    """The engine's own, or one for speech with and without a camera."""
    if window_s is None:
        return WindowPolicy()
    return WindowPolicy(audio_window_s=window_s, camera_window_s=window_s)


def _print_table(report: Mapping[str, Any]) -> None:
    columns = [name for name in ("ours", "transformers", "ratio") if name in report]
    print(f"{'':28}" + "".join(f"{name:>14}" for name in columns), file=sys.stderr)
    for key in report["ours"]:
        cells = (report[name].get(key, "") for name in columns)
        print(f"{key:28}" + "".join(f"{cell:>14}" for cell in cells), file=sys.stderr)
    for count, figures in report["sessions"].items():
        shown = "  ".join(f"{key} {value}" for key, value in figures.items())
        print(f"{count} at once: {shown}", file=sys.stderr)


def _write(target: str | None, report: Mapping[str, Any]) -> None:
    text = json.dumps(report)
    if target is None or target == "-":
        print(text)
        return
    try:
        Path(target).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"can not write {target}: {error}") from None
