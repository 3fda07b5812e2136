"""Pictures of a camera as events (extension), over every transport that carries events."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
import websockets
from daemon_rig import Rig, serving, silence, tone, until
from PIL import Image
from rtc_client import RTP_HZ, calling
from wire_client import wire


def jpeg(side: int) -> str:
    """A grey square, base64."""
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (128, 128, 128)).save(stream, "JPEG")
    return base64.b64encode(stream.getvalue()).decode()


def frames_of(rig: Rig) -> list[tuple[float, int]]:
    """Time and size of each frame of the first turn."""
    return [(frame.time_s, frame.rgb.shape[0]) for frame in rig.engine.context.entries[0].frames]


async def test_frames_lie_where_they_came_in_the_sound() -> None:
    """Sent faster than real time, between pieces of sound: each belongs to its moment."""
    async with serving() as rig, wire(rig, "&x-ext=1") as client:
        for side, seconds in ((32, 1.0), (64, 1.0), (96, 0.5)):
            await client.send("input_image_buffer.append", image=jpeg(side), ts_ms=0)
            await client.append(tone(seconds))
        await client.append(silence(0.9))
        await client.until("response.done")
        sizes = dict(frames_of(rig))
        assert sizes[0.0] == 32
        assert sizes[0.5] == 32
        assert sizes[1.5] == 64
        assert sizes[2.0] in (64, 96), "at the very edge"


async def test_clearing_the_input_forgets_the_picture() -> None:
    async with serving() as rig, wire(rig, "&x-ext=1") as client:
        await client.send("input_image_buffer.append", image=jpeg(32))
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.append(tone(0.6) + silence(0.9))
        await client.until("response.done")
        assert frames_of(rig) == []


@pytest.mark.parametrize("has_sideband", [False, True])
async def test_over_a_data_channel_and_beside_it(has_sideband: bool) -> None:
    async with serving() as rig, calling(rig, query="?x-ext=1") as client:
        picture: dict[str, Any] = {"type": "input_image_buffer.append", "image": jpeg(48)}
        if has_sideband:
            call_id = client.location.rsplit("/", 1)[1]
            address = f"ws://127.0.0.1:{rig.port}/v1/realtime?call_id={call_id}"
            async with websockets.connect(address) as socket:
                await socket.send(json.dumps(picture))
                await until(lambda: _newest(rig) is not None)
        else:
            client.send(**picture)
            await until(lambda: _newest(rig) is not None)
        client.microphone.say(tone(0.6, RTP_HZ))
        await client.wait_for("response.done")
        assert frames_of(rig)[0] == (0.0, 48)
        assert "error" not in client.kinds()


def _newest(rig: Rig) -> Any:
    (live,) = rig.app.state.sessions._live.values()
    return live.session.conversation.camera.newest


async def test_a_picture_as_an_item_needs_no_extension() -> None:
    async with serving() as rig, wire(rig) as client:
        uri = f"data:image/jpeg;base64,{jpeg(40)}"
        content = [
            {"type": "input_image", "image_url": uri, "detail": "low"},
            {"type": "input_text", "text": "what is this?"},
        ]
        item = {"type": "message", "role": "user", "content": content}
        await client.send("conversation.item.create", item=item)
        shown = (await client.until("conversation.item.done"))[-1]["item"]
        assert "image_url" not in shown["content"][0], "as sound, it comes back only if asked for"
        await client.send("conversation.item.retrieve", item_id=shown["id"])
        (retrieved,) = await client.until("conversation.item.retrieved")
        assert retrieved["item"]["content"][0]["image_url"] == uri
        await client.reply()
        assert "what is this?" in rig.engine.context.story[0]
