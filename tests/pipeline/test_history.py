"""The list of items: order, errors, memory, and what an engine is told of it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import BadInputError
from pipeline.history import LOST_IMAGE, LOST_SPEECH, History, new_id
from pipeline.items import (
    CallContent,
    Content,
    ImageContent,
    Item,
    NoteContent,
    OutputContent,
    SpeechContent,
    TextContent,
    VoiceContent,
)
from pipeline.messages import AudioPart, Frame, ImagePart, Message, TextPart

PICTURE = np.zeros((100, 100, 3), np.uint8)


def text(item_id: str, role: str = "user", *, status: str = "completed") -> Item:
    return Item(id=item_id, role=role, content=[TextContent(text=item_id)], status=status)


def spoken(item_id: str, seconds: float = 1.0, num_frames: int = 0) -> Item:
    frames = tuple(Frame(rgb=PICTURE.copy(), time_s=i / 2) for i in range(num_frames))
    pcm = np.ones(int(16_000 * seconds), np.float32)
    return Item(id=item_id, role="user", content=[SpeechContent(pcm=pcm, frames=frames)])


def ids(history: History) -> str:
    return " ".join(item.id for item in history)


def test_order_and_predecessors() -> None:
    history = History()
    assert history.append(text("a")) is None
    assert history.append(text("c")) == "a"
    assert history.insert(text("b"), after_id="a") == "a"
    assert history.insert(text("z"), after_id="root") is None
    assert ids(history) == "z a b c"
    assert history.tail_id == "c"
    assert history.previous_id("b") == "a"
    assert history.previous_id("gone") is None
    history.delete("a")
    assert ids(history) == "z b c"


def test_errors_change_nothing() -> None:
    history = History()
    history.append(text("a"))
    for code, call in [
        ("item_create_duplicate_item_id", lambda: history.append(text("a"))),
        ("item_not_found", lambda: history.insert(text("b"), after_id="x")),
        ("item_delete_invalid_item_id", lambda: history.delete("x")),
    ]:
        with pytest.raises(BadInputError) as caught:
            call()
        assert caught.value.code == code
    assert ids(history) == "a"


def test_ids_are_short_and_differ() -> None:
    made = {new_id("item") for _ in range(100)}
    assert len(made) == 100
    assert max(map(len, made)) <= 32


def test_messages() -> None:
    history = History()
    history.append(text("s", "system"))
    history.append(text("u"), still=PICTURE)
    history.append(spoken("v", num_frames=2))
    heard = VoiceContent(transcript="One two", pcm=[np.zeros(10, np.int16)])
    history.append(Item(id="a", role="assistant", content=[heard], status="incomplete"))
    history.append(Item(id="unheard", role="assistant", content=[VoiceContent()]))
    history.append(text("now", "assistant", status="in_progress"))
    system, typed, said, reply = history.messages()
    assert system == Message(role="system", parts=(TextPart(text="s"),))
    assert isinstance(typed.parts[0], ImagePart)
    assert typed.parts[1] == TextPart(text="u")
    assert isinstance(said.parts[0], AudioPart)
    assert [frame.time_s for frame in said.parts[0].frames] == [0, 0.5]
    assert reply == Message(role="assistant", parts=(TextPart(text="One two"),))


def test_memory_is_bounded_frames_go_first_then_sound_and_pictures() -> None:
    history = History(max_media_bytes=200_000)
    picture = ImageContent(rgb=PICTURE, data_uri="data:")
    history.append(Item(id="p", role="user", content=[picture]))  # 30 kB
    history.append(spoken("a", seconds=1, num_frames=2))  # 64 kB + 60 kB
    history.append(spoken("b", seconds=1))  # 218 kB in all: the frames of a go
    assert [len(m.parts[0].frames) for m in history.messages()[1:]] == [0, 0]
    assert isinstance(history.messages()[0].parts[0], ImagePart)
    history.append(spoken("c", seconds=2))  # 286 kB: picture and sound of a go, too
    told = [message.parts[0] for message in history.messages()]
    assert told[0] == TextPart(text=LOST_IMAGE)
    assert told[1] == TextPart(text=LOST_SPEECH)
    assert isinstance(told[2], AudioPart)
    assert isinstance(told[3], AudioPart)


def test_the_newest_item_is_never_touched_and_repeated_frames_count_once() -> None:
    history = History(max_media_bytes=1000)
    history.append(spoken("a", num_frames=1))
    assert isinstance(history.messages()[0].parts[0], AudioPart)
    history = History(max_media_bytes=100_000)
    frames = tuple(Frame(rgb=PICTURE, time_s=i / 2) for i in range(100))
    pcm = np.zeros(16, np.float32)
    history.append(Item(id="b", role="user", content=[SpeechContent(pcm=pcm, frames=frames)]))
    history.append(text("c"))
    assert len(history.messages()[0].parts[0].frames) == 100


def test_what_is_made_by_hand_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.history.MAX_ITEMS", 3)
    history = History()
    for item_id in ("aaaa", "bbbb"):
        history.check_room(text(item_id), max_chars=10)
        history.append(text(item_id))
    with pytest.raises(BadInputError, match="full") as refused:
        history.check_room(text("ccc"), max_chars=10)
    assert refused.value.code == "conversation_full"
    history.append(text("d"))
    with pytest.raises(BadInputError, match="at most 3 items"):
        history.check_room(text("e"), max_chars=10)


@pytest.mark.parametrize(
    "content",
    [
        TextContent(text="12345678"),
        CallContent(name="f", call_id="c", arguments='{"a":1}'),
        OutputContent(call_id="c", output="12345678"),
        SpeechContent(pcm=np.zeros(16, np.float32), transcript="12345678"),
        VoiceContent(transcript="12345678"),
        NoteContent(shown={"a": 1}),
    ],
)
def test_every_text_counts(content: Content) -> None:
    history = History()
    item = Item(id="a", role="user", content=[content])
    history.check_room(item, max_chars=8)
    history.append(item)
    history.check_room(text("b"), max_chars=9)
    with pytest.raises(BadInputError, match="9 characters"):
        history.check_room(text("bb"), max_chars=9)
