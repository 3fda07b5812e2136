"""`omnid ask`: one question, one answer, without a server, through the same engine.

Reads a spoken question (WAV), a picture and text, in this order in one user message; prints the
answer as it comes, and writes its speech and a JSON record on request.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image as PilImage
from PIL import UnidentifiedImageError

from models.commands.flags import output_file, written_file
from models.commands.placement import add_placement, placement_of
from models.content import (
    Audio,
    AudioEvent,
    EndEvent,
    FaultEvent,
    Image,
    Message,
    Part,
    ReplyOptions,
    Rgb,
    Text,
    TextEvent,
)
from models.engine import Engine
from models.errors import ModelError, RequestError
from models.hub import EMBEDDED, resolve_checkpoint
from models.wav import read_wav, write_wav

CONTEXT, RESPONSE = 1, 1
OUTPUT_HZ = 24_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags."""
    parser.add_argument(
        "--model", default=EMBEDDED, help="checkpoint folder or hub id (default: %(default)s)"
    )
    parser.add_argument("--audio", type=Path, help="WAV file with the spoken question")
    parser.add_argument("--image", type=Path, help="picture to look at")
    parser.add_argument("--text", type=_utf8, help="typed question")
    parser.add_argument(
        "--instructions", type=_utf8, default="", help="system message (default: none)"
    )
    parser.add_argument("--voice", help="voice of the answer (default: the checkpoint's first)")
    parser.add_argument("--greedy", action="store_true", help="take the best token, never draw")
    parser.add_argument("--seed", type=int, help="seed of the draws (default: a new one)")
    parser.add_argument("--max-tokens", type=int, help="longest answer in text tokens")
    parser.add_argument("--text-only", action="store_true", help="do not speak the answer")
    parser.add_argument(
        "--out", type=written_file, metavar="REPLY.wav", help="write the speech here"
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE|-", help="write a record of the answer"
    )
    add_placement(parser)


def _utf8(text: str) -> str:
    """Bytes of the command line that are no UTF-8 arrive as half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not UTF-8") from None
    return text


def run(args: argparse.Namespace) -> int:
    """Answer; returns the exit code.

    Raises:
        ModelError: a wrong file, checkpoint or option; the message says which.
    """
    message = _question(args)
    if args.text_only and args.out is not None:
        raise RequestError("--out has nothing to write: --text-only leaves the answer unspoken")
    options = ReplyOptions(
        audio=not args.text_only,
        max_tokens=args.max_tokens,
        greedy=args.greedy,
        seed=args.seed,
    )
    engine = Engine.load(resolve_checkpoint(args.model), placement_of(args))
    engine.open(CONTEXT, instructions=args.instructions, voice=args.voice)
    engine.append_message(CONTEXT, message)
    engine.respond(CONTEXT, RESPONSE, options)
    echo = sys.stderr if args.json == "-" else sys.stdout
    answer = Answer.collect(engine, echo)
    if args.out is not None:
        write_wav(args.out, answer.pcm, OUTPUT_HZ)
    if args.json is not None:
        _write_json(args.json, answer.record(engine.log_ids(CONTEXT)))
    return 0


def _question(args: argparse.Namespace) -> Message:
    parts: list[Part] = []
    if args.image is not None:
        parts.append(Image(rgb=read_picture(args.image)))
    if args.audio is not None:
        parts.append(Audio(pcm=read_wav(args.audio)))
    if args.text is not None and args.text.strip():
        parts.append(Text(text=args.text))
    if not parts:
        raise RequestError("nothing to ask: give --audio, --image or --text")
    return Message(role="user", parts=tuple(parts))


def read_picture(path: Path) -> Rgb:
    """[height, width, 3] uint8 of an image file.

    Raises:
        RequestError: no such file, not a picture, or too large a one.
    """
    try:
        with PilImage.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except (OSError, UnidentifiedImageError, PilImage.DecompressionBombError) as error:
        raise RequestError(f"can not read the picture {path}: {error}") from None


class Answer:
    """What a reply brought."""

    def __init__(self) -> None:
        self.text = ""
        self.text_ids: list[int] = []
        self.codes: list[tuple[int, ...]] = []
        self.chunks = [np.zeros(0, np.int16)]
        self.end: EndEvent | None = None

    @property
    def pcm(self) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        """The whole speech, 24 kHz."""
        return np.concatenate(self.chunks)

    @classmethod
    def collect(cls, engine: Engine, echo: TextIO) -> Answer:
        """Run the engine until the reply ends; its text goes to `echo` as it comes.

        Raises:
            ModelError: the reply failed.
        """
        answer = cls()
        while answer.end is None:
            for event in engine.step():
                answer._take(event, echo)
        print(file=echo)
        if answer.end.error is not None:
            raise ModelError(answer.end.error)
        return answer

    def _take(self, event: object, echo: TextIO) -> None:
        match event:
            case TextEvent():
                self.text += event.text
                self.text_ids.extend(event.ids)
                print(event.text, end="", flush=True, file=echo)
            case AudioEvent():
                self.codes.append(event.codes)
                self.chunks.append(event.pcm)
            case EndEvent():
                self.end = event
            case FaultEvent():
                raise ModelError(event.error)

    def record(self, log_ids: list[int]) -> dict[str, object]:
        """The JSON record; `log_ids` is the whole log after the reply."""
        assert self.end is not None
        num_reply = len(self.text_ids)
        return {
            "prompt_ids": log_ids[: len(log_ids) - num_reply],
            "text": self.text,
            "text_ids": self.text_ids,
            "codes": [list(frame) for frame in self.codes],
            "audio_s": len(self.pcm) / OUTPUT_HZ,
            "status": self.end.status,
            "stages_ms": asdict(self.end.stages),
            "usage": asdict(self.end.usage),
        }


def _write_json(target: str, record: dict[str, object]) -> None:
    text = json.dumps(record, ensure_ascii=False)
    if target == "-":
        print(text)
        return
    try:
        Path(target).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"can not write {target}: {error}") from None
