"""Long texts are read a stretch at a time, to the ids of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models import stretches
from models.chat import ChatFormat
from models.config import read_config
from models.content import Message, Part, Text, ToolCall, ToolResult
from models.engine import Engine
from models.tiny import write_tiny_checkpoint

WORDS = [
    *("hello", "don't", "we'll", "wörld", "e\u0301", "é", "你好", "日本", "x1", "42", "A.B", "ﬁ"),
    *(" ", "  ", "\n", "\n\n", " \n ", ", ", ". ", "...", '"', "{", "}", ":", "，", "。", "！\n"),
    *("<|im_end|>", "<tool_call>", "'s", "'S", "_", "\u0301", "\t"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatFormat:
    return ChatFormat.load(folder, read_config(folder))


@pytest.fixture(scope="module")
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stretches, "MAX_CHARS", 40)
        yield


def in_stretches(text: str) -> list[str]:
    found = []
    while text:
        stop = stretches.stretch_of(text)
        found.append(text[:stop])
        text = text[stop:]
    return found


TEXTS = st.lists(st.sampled_from(WORDS), max_size=20).map("".join)


@given(
    before=TEXTS,
    letter=st.sampled_from("aÄß你"),
    sign=st.sampled_from(sorted(stretches.WORD_ENDS)),
    behind=TEXTS,
)
@example(before="do", letter="n", sign="'", behind="t 's")
def test_ends_of_words_divide_no_token(
    chat: ChatFormat, before: str, letter: str, sign: str, behind: str
) -> None:
    first, second = before + letter, sign + behind
    assert chat.encode(first) + chat.encode(second) == chat.encode(first + second)


@pytest.mark.usefixtures("_short")
@given(words=TEXTS)
def test_stretches_are_short_and_whole(words: str) -> None:
    found = in_stretches(words)
    assert "".join(found) == words
    assert all(0 < len(part) <= 40 for part in found)


@pytest.mark.usefixtures("_short")
def test_a_stretch_ends_with_a_word() -> None:
    assert in_stretches("one two three four " * 4) == [
        "one two three four one two three four",
        " one two three four one two three four ",
    ]


@pytest.mark.usefixtures("_short")
def test_a_text_without_words_is_read_all_the_same() -> None:
    assert list(map(len, in_stretches("x" * 100))) == [40, 40, 20]
    assert in_stretches("") == []


LONG = "The cat sleeps under the chair, and the dog runs. " * 12


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(
    ("role", "parts"),
    [
        ("user", (Text(text=LONG),)),
        ("user", (Text(text="Now: "), Text(text=LONG))),
        ("user", (ToolResult(output=LONG), ToolResult(output="yes"))),
        ("assistant", (Text(text=LONG), ToolCall(name="f", arguments=f'{{"a": "{LONG}"}}'))),
    ],
)
def test_others_get_their_turn_while_a_long_text_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, role: str, parts: tuple[Part]
) -> None:
    lengths: list[int] = []
    encode = ChatFormat.encode

    def noted(chat: ChatFormat, text: str) -> list[int]:
        lengths.append(len(text))
        return encode(chat, text)

    engine = Engine.load(folder)
    monkeypatch.setattr(ChatFormat, "encode", noted)
    ids, num_units = read(engine, role, parts)
    assert max(lengths) <= 40
    assert num_units > 2 * len(LONG) // 40
    monkeypatch.setattr(stretches, "MAX_CHARS", 10**6)
    whole, _ = read(engine, role, parts)
    assert ids == whole
    assert len(ids) > 200


def read(engine: Engine, role: str, parts: tuple[Part]) -> tuple[list[int], int]:
    """Ids of a new context with long instructions and this message, and units of work for them."""
    engine.open(1, instructions=LONG, voice=None)
    engine.append_message(1, Message(role=role, parts=parts))  # type: ignore[arg-type]
    context, num_units = engine._contexts[1], 0
    while engine._encoder.has_work(context):
        engine._encoder.encode_next(context)
        num_units += 1
    context.place()
    ids = engine.log_ids(1)
    engine.close(1)
    return ids, num_units
