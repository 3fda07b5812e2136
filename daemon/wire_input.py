"""What a client sends of sound and pictures as events: bytes into the conversation.

Sound comes in the session's input format, cut anywhere, faster than it was spoken or not.
"""

from __future__ import annotations

import asyncio

from daemon.audio_formats import samples_of
from daemon.images import decode_base64, decode_image
from daemon.protocol import AudioFormatView, ProtocolError
from daemon.settings import LimitSettings
from pipeline.conversation import Conversation


class WireInput:
    """The input buffers of one session. `has_rtp_microphone`: sound comes over RTP instead."""

    def __init__(self, conversation: Conversation, limits: LimitSettings) -> None:
        self.has_rtp_microphone = False
        self._conversation = conversation
        self._limits = limits
        self._half_sample = b""
        self._has_pushed_frames = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be committed (what is kept of silence does not count)."""
        return not self._half_sample and not self._conversation.has_open_input

    async def append_audio(self, audio: str, audio_format: AudioFormatView) -> None:
        """More sound, base64.

        Raises:
            ProtocolError: it comes over RTP.
            BadInputError: not base64, or too much at once.
        """
        if self.has_rtp_microphone:
            raise ProtocolError("The microphone of this call comes over RTP.", param="type")
        data = decode_base64(audio, max_bytes=self._limits.max_append_bytes, param="audio")
        data = self._half_sample + data
        whole = len(data) - len(data) % audio_format.sample_bytes
        self._half_sample = data[whole:]
        second_bytes = audio_format.rate_hz * audio_format.sample_bytes
        for start in range(0, whole, second_bytes):
            pcm = samples_of(data[start : min(whole, start + second_bytes)], audio_format)
            await self._conversation.append_audio(pcm, rate_hz=audio_format.rate_hz)
            # minutes of audio in one event must not keep the other sessions waiting
            await asyncio.sleep(0)

    async def append_image(self, image: str) -> None:
        """A camera frame of this moment of the sound, base64.

        Raises:
            BadInputError: not a picture, or too large.
        """
        data = decode_base64(image, max_bytes=self._limits.max_image_bytes, param="image")
        rgb = await asyncio.to_thread(
            decode_image, data, max_pixels=self._limits.max_image_pixels, param="image"
        )
        self._has_pushed_frames = True
        self._conversation.append_frame(rgb)

    def commit(self) -> None:
        """End the turn by hand. A stray byte would shift every later sample: say so, forget it, and
        let the client commit again.

        Raises:
            ProtocolError: there was half a sample.
            BadInputError: there is too little sound.
        """
        if self._half_sample:
            self._half_sample = b""
            raise ProtocolError(
                "The input audio buffer ended in half a sample, which was dropped. "
                "Nothing was committed.",
                param="audio",
            )
        self._conversation.commit()

    def clear(self) -> None:
        """Forget sound and pictures."""
        self._half_sample = b""
        if self._has_pushed_frames:
            self._has_pushed_frames = False
            self._conversation.stop_camera()
        self._conversation.clear_input()
