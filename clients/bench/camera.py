"""Pictures and videos as camera frames: RGB, at most 640 x 480, over and over again."""

from __future__ import annotations

import base64
import fractions
import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from clients.bench.errors import BenchError

FRAMES_PER_S = 5
MAX_WIDTH, MAX_HEIGHT = 640, 480
MAX_FRAMES = 60 * FRAMES_PER_S


def read_frames(path: Path) -> list[VideoFrame]:
    """The file's frames, five a second of a video, one of a picture, as yuv420p.

    Raises:
        BenchError: not a picture or video.
    """
    frames: list[VideoFrame] = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if (frame.time or 0.0) * FRAMES_PER_S >= len(frames):
                    frames.append(_shrink(frame))
                if len(frames) == MAX_FRAMES:
                    break
    except (OSError, IndexError, av.FFmpegError) as error:
        raise BenchError(f"{path}: not a picture or video that can be read ({error})") from error
    if not frames:
        raise BenchError(f"{path}: holds no picture")
    return frames


def _shrink(frame: VideoFrame) -> VideoFrame:
    scale = min(1.0, MAX_WIDTH / frame.width, MAX_HEIGHT / frame.height)
    # Encoders want even sides.
    width, height = (max(2, int(side * scale) // 2 * 2) for side in (frame.width, frame.height))
    small = frame.reformat(width=width, height=height, format="yuv420p")
    return VideoFrame.from_ndarray(small.to_ndarray().astype(np.uint8), format="yuv420p")


def endless(frames: list[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames from the beginning, again and again."""
    return itertools.cycle(frames)


def to_jpeg_base64(frame: VideoFrame) -> str:
    """The frame as a base64 JPEG, for servers that are shown pictures over a WebSocket."""
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height = frame.width, frame.height
    codec.pix_fmt = "yuvj420p"
    codec.time_base = fractions.Fraction(1, FRAMES_PER_S)
    picture = frame.reformat(format="yuvj420p")
    picture.pts = 0
    data = b"".join(bytes(packet) for packet in [*codec.encode(picture), *codec.encode(None)])
    return base64.b64encode(data).decode()
