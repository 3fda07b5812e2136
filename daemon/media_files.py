"""Recordings and films from outside: any container that FFmpeg reads, to what the engine takes.

A few bytes can hold hours of silence or a picture of gigabytes: length and size are watched while
decoding goes on. Decoding takes time: call it in a thread. Nothing here opens a file or an address
that the bytes name: only containers that hold their own media are read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer

from pipeline.errors import BadInputError
from pipeline.messages import ENGINE_INPUT_HZ, AudioPart, Frame, Pcm, Rgb

FRAMES_PER_S = 2.0  # what the model looks at
# Neither playlists nor lists of other files: those make the reader open what they name.
_CONTAINERS = (
    "wav,mp3,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,aac,aiff,au,caf,amr,asf,avi,mpegts"
)


def decode_audio(data: bytes, *, max_s: float, param: str) -> Pcm:
    """The sound of a recording, [num_samples] float32 mono at 16 kHz.

    Raises:
        BadInputError: no sound that can be read, or longer than `max_s`.
    """
    with _opened(data, param) as container:
        if not container.streams.audio:
            raise BadInputError("There is no sound in it.", param=param)
        pcm = _sound(container, max_s, param)
    if not len(pcm):
        raise BadInputError("The recording is empty.", param=param)
    return pcm


def decode_video(data: bytes, *, max_s: float, max_pixels: int, side: int, param: str) -> AudioPart:
    """A film as sound with pictures; silence where it has no sound.

    Args:
        max_pixels: of a picture of the film. side: pixels of the longer side of what is returned.

    Raises:
        BadInputError: no pictures that can be read, longer than `max_s`, or too large.
    """
    with _opened(data, param) as container:
        if not container.streams.video:
            raise BadInputError("There are no pictures in it.", param=param)
        frames = tuple(_pictures(container, max_s, max_pixels, side, param))
    if not frames:
        raise BadInputError("The film is empty.", param=param)
    with _opened(data, param) as container:
        pcm = _sound(container, max_s, param) if container.streams.audio else _silence(0)
    missing = round((frames[-1].time_s + 1 / FRAMES_PER_S) * ENGINE_INPUT_HZ) - len(pcm)
    return AudioPart(pcm=np.concatenate([pcm, _silence(max(0, missing))]), frames=frames)


def slides(pictures: list[Rgb]) -> AudioPart:
    """Pictures that follow each other like those of a film, without a sound."""
    frames = tuple(Frame(rgb=rgb, time_s=i / FRAMES_PER_S) for i, rgb in enumerate(pictures))
    return AudioPart(
        pcm=_silence(round(len(frames) / FRAMES_PER_S * ENGINE_INPUT_HZ)), frames=frames
    )


def _silence(num_samples: int) -> Pcm:
    return np.zeros(num_samples, np.float32)


def _opened(data: bytes, param: str) -> InputContainer:
    try:
        return av.open(io.BytesIO(data), mode="r", options={"format_whitelist": _CONTAINERS})
    except (av.FFmpegError, ValueError) as error:
        raise BadInputError("Not a recording that can be read.", param=param) from error


def _sound(container: InputContainer, max_s: float, param: str) -> Pcm:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=ENGINE_INPUT_HZ)
    chunks = [_silence(0)]
    length_s = 0.0
    try:
        for decoded in container.decode(audio=0):
            # before it is converted: a rate of 1 Hz makes hours of a few bytes
            length_s += decoded.samples / decoded.sample_rate
            if length_s > max_s:
                raise BadInputError(f"Longer than {max_s:g} seconds.", param=param)
            chunks += [frame.to_ndarray()[0] for frame in resampler.resample(decoded)]
        if length_s:
            chunks += [frame.to_ndarray()[0] for frame in resampler.resample(None)]
    except (av.FFmpegError, ValueError, ZeroDivisionError) as error:
        raise BadInputError("The recording is damaged.", param=param) from error
    pcm = np.concatenate(chunks).astype(np.float32, copy=False)
    return np.nan_to_num(pcm, posinf=0.0, neginf=0.0)


def _pictures(
    container: InputContainer, max_s: float, max_pixels: int, side: int, param: str
) -> Iterator[Frame]:
    """The first frame at or behind each moment at which the model looks."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    next_s = 0.0
    start_s: float | None = None
    try:
        _check_size(stream.codec_context.width, stream.codec_context.height, max_pixels, param)
        for frame in container.decode(stream):
            start_s = (frame.time or 0.0) if start_s is None else start_s
            time_s = max(0.0, (frame.time or 0.0) - start_s)
            if time_s > max_s:
                raise BadInputError(f"Longer than {max_s:g} seconds.", param=param)
            if time_s + 1e-3 < next_s:
                continue
            next_s = time_s + 1 / FRAMES_PER_S
            _check_size(frame.width, frame.height, max_pixels, param)
            yield Frame(rgb=shrunk(frame, side), time_s=time_s)
    except (av.FFmpegError, ValueError) as error:
        raise BadInputError("The film is damaged.", param=param) from error


def _check_size(width: int, height: int, max_pixels: int, param: str) -> None:
    if width * height > max_pixels:
        raise BadInputError(f"{width}x{height} is over {max_pixels} pixels.", param=param)


def shrunk(frame: av.VideoFrame, side: int) -> Rgb:
    """[height, width, 3] uint8, the longer side at most `side`."""
    scale = min(1.0, side / max(frame.width, frame.height))
    small = frame.reformat(
        width=max(2, round(frame.width * scale)),
        height=max(2, round(frame.height * scale)),
        format="rgb24",
    )
    return np.asarray(small.to_ndarray(), np.uint8)
