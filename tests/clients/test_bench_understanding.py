"""`omnid bench understanding` against a server that answers as it is told, over real sockets."""

from __future__ import annotations

import argparse
import base64
import json
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from clients.bench import latency, understanding
from clients.bench.errors import BenchError
from clients.bench.exam import plain, read_exam
from clients.bench.speech import read_speech, resampled
from clients.bench.understanding import add_arguments, run

pytestmark = pytest.mark.timeout(60)
pytest.importorskip("pocketsphinx")

HELLO, COLOUR = "Hello, how are you?", "What colour is this?"
TOOL = {"type": "function", "function": {"name": "set_light", "parameters": {"type": "object"}}}
CALL = {"name": "set_light", "arguments": {"state": "on"}}
Json = dict[str, Any]
Answer = tuple[str, str | None, Json | None]  # text, recording, call


def bench(*flags: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(flags))


@pytest.fixture
def exam(tmp_path: Path, fixtures: Path) -> Path:
    """Two conversations: words, and a call behind a picture that is not looked at."""
    for name in ("hello_how_are_you.wav", "what_colour_is_this.wav"):
        (tmp_path / name).write_bytes((fixtures / name).read_bytes())
    (tmp_path / "seen.png").write_bytes(b"a picture")

    def item(name: str, category: str, **turn: Any) -> Json:
        asked = {"wav": "what_colour_is_this.wav", "pictures": [], "reply": HELLO, **turn}
        return {
            "name": name,
            "category": category,
            "voices": "unseen",
            "noise": "clean",
            "turns": [asked],
        }

    raw = {
        "seed": 0,
        "tools": [TOOL],
        "originals": {HELLO: "hello_how_are_you.wav", COLOUR: "what_colour_is_this.wav"},
        "items": [
            item("text-000", "text"),
            item("tool-000", "tool", call=CALL, result="{}", pictures=["seen.png"]),
        ],
    }
    (tmp_path / "exam.json").write_text(json.dumps(raw))
    return tmp_path


def changed_exam(folder: Path, name: str, value: object) -> None:
    raw = json.loads((folder / "exam.json").read_text())
    raw[name] = value
    (folder / "exam.json").write_text(json.dumps(raw))


def changed_item(folder: Path, name: str, value: object) -> None:
    items = json.loads((folder / "exam.json").read_text())["items"]
    items[0][name] = value
    changed_exam(folder, "items", items)


def changed(folder: Path, name: str, value: object) -> None:
    turns = json.loads((folder / "exam.json").read_text())["items"][0]["turns"]
    turns[0][name] = value
    changed_item(folder, "turns", turns)


class Server:
    """Answers every `response.create` with the next of `answers`."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.events: list[Json] = []

    def hold(self, socket: ServerConnection) -> None:
        for message in socket:
            event = json.loads(message)
            self.events.append(event)
            if event["type"] == "response.create":
                for out in self._response(*self.answers.pop(0)):
                    socket.send(json.dumps(out))

    def _response(self, text: str, recording: str | None, call: Json | None) -> Iterator[Json]:
        output = []
        if call is not None:
            arguments = json.dumps(call["arguments"])
            output = [{"type": "function_call", "call_id": "c1", **call, "arguments": arguments}]
        if recording is not None:
            pcm = read_speech(Path(recording), 24_000).pcm
            audio = base64.b64encode(pcm.astype("<i2").tobytes()).decode()
            yield {"type": "response.output_audio.delta", "delta": audio}
            yield {"type": "response.output_audio_transcript.delta", "delta": text}
        elif text:
            yield {"type": "response.output_text.delta", "delta": text}
        yield {"type": "response.done", "response": {"status": "completed", "output": output}}


@contextmanager
def serving(answers: list[Answer]) -> Iterator[tuple[Server, str]]:
    server = Server(answers)
    with serve(server.hold, "127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield server, f"http://127.0.0.1:{running.socket.getsockname()[1]}"
        running.shutdown()
        thread.join()


def test_marks_words_calls_and_sound(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hello = str(exam / "hello_how_are_you.wav")
    with serving([(HELLO, hello, None), ("", None, CALL), (HELLO, hello, None)]) as (server, url):
        assert bench("--url", url, "--exam", str(exam), "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    shares = report["summary"]["unseen"]["clean"]
    assert (shares["text_accuracy"], shares["text_count"]) == (1.0, 1)
    assert (shares["tool_accuracy"], shares["tool_count"]) == (1.0, 1)
    assert (shares["speech_accuracy"], shares["speech_count"]) == (1.0, 2)
    assert (shares["memory_accuracy"], shares["memory_count"]) == (None, 0)
    assert report["recogniser"] == {"choices": 2, "accuracy": 1.0}
    updates = [e["session"] for e in server.events if e["type"] == "session.update"]
    assert [update.get("tools") for update in updates] == [
        None,
        [{"type": "function", **TOOL["function"]}],
    ]
    items = [e["item"] for e in server.events if e["type"] == "conversation.item.create"]
    assert [item["type"] for item in items] == ["message", "function_call_output"]
    picture = items[0]["content"][0]["image_url"]
    assert base64.b64decode(picture.split(",")[1]) == b"a picture"


def test_words_alone_are_asked_for_without_sound(
    exam: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving([(HELLO, None, None), ("", None, CALL), (HELLO, None, None)]) as (server, url):
        assert bench("--url", url, "--exam", str(exam), "--words-only", "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["recogniser"] is None
    shares = report["summary"]["unseen"]["clean"]
    assert (shares["text_accuracy"], shares["tool_accuracy"]) == (1.0, 1.0)
    assert (shares["speech_accuracy"], shares["speech_count"]) == (None, 0)
    updates = [e["session"] for e in server.events if e["type"] == "session.update"]
    assert {tuple(update["output_modalities"]) for update in updates} == {("text",)}


def test_another_reply_may_be_as_right(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = json.loads((exam / "exam.json").read_text())
    raw["items"] = raw["items"][:1]
    raw["items"][0]["turns"][0]["others"] = [COLOUR]
    (exam / "exam.json").write_text(json.dumps(raw))
    for said, accuracy in ((COLOUR, 1.0), (HELLO, 1.0), ("Something else.", 0.0)):
        with serving([(said, None, None)]) as (_, url):
            assert bench("--url", url, "--exam", str(exam), "--words-only", "--json", "-") == 0
        report = json.loads(capsys.readouterr().out)
        assert report["summary"]["unseen"]["clean"]["text_accuracy"] == accuracy


def test_what_was_marked_before_ctrl_c_is_told(
    exam: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hello = str(exam / "hello_how_are_you.wav")

    def counted(items: list[Any]) -> Iterator[Any]:
        yield items[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(understanding, "_counted", counted)
    with serving([(HELLO, hello, None)]) as (_, url):
        assert bench("--url", url, "--exam", str(exam), "--json", "-") == 130
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert (report["was_ended"], [mark["is_right"] for mark in report["marks"]]) == (True, [True])
    assert "ended after 1 conversations" in printed.err


def test_marks_are_kept_when_the_server_goes_away(
    exam: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(items: list[Any]) -> Iterator[Any]:
        yield items[0]
        raise BenchError("no WebSocket any more")

    monkeypatch.setattr(understanding, "_counted", counted)
    with serving([(HELLO, None, None)]) as (_, url):
        assert bench("--url", url, "--exam", str(exam), "--words-only", "--json", "-") == 1
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert (report["was_ended"], [mark["is_right"] for mark in report["marks"]]) == (True, [True])
    assert "ended after 1 conversations: no WebSocket any more" in printed.err


def test_no_exam_is_written_where_no_server_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(understanding, "_write_exam", lambda *_: pytest.fail("written"))
    assert bench("--url", "http://127.0.0.1:9") == 1
    assert "no WebSocket at 127.0.0.1:9" in capsys.readouterr().err


def test_an_exam_that_is_there_has_its_seed(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--exam", str(exam), "--seed", "3") == 1
    assert "--seed is of an exam that is written now" in capsys.readouterr().err


def test_what_is_wrong_counts_as_wrong(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colour, other = str(exam / "what_colour_is_this.wav"), {"name": "set_light", "arguments": {}}
    # Other words; the right words with another sound behind a call without its argument.
    answers = [(COLOUR, colour, None), ("", None, other), (HELLO, colour, None)]
    with serving(answers) as (_, url):
        assert bench("--url", url, "--exam", str(exam), "--json", "-") == 0
    report = json.loads(capsys.readouterr().out)
    shares = report["summary"]["unseen"]["clean"]
    assert (shares["text_accuracy"], shares["tool_accuracy"]) == (0.0, 0.0)
    assert shares["speech_accuracy"] == 0.5
    assert report["marks"][1]["heard"] == plain(COLOUR)


def test_a_failed_conversation_fails_the_command(exam: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    with serving([(HELLO, str(exam / "hello_how_are_you.wav"), None)]) as (server, url):
        answer: Callable[..., Iterator[Json]] = lambda *_: iter(  # noqa: E731
            [{"type": "error", "error": {"message": "no more memory"}}]
        )
        server._response = answer  # type: ignore[method-assign]
        flags = ("--exam", str(exam), "--only", "text", "--json", str(out))
        assert bench("--url", url, *flags) == 1
    (mark,) = json.loads(out.read_text())["marks"]
    assert (mark["failure"], mark["is_right"]) == ("no more memory", False)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "exam.json").unlink(), "No such file"),
        (lambda folder: (folder / "exam.json").write_text("{"), "is not an exam"),
        (lambda folder: (folder / "exam.json").write_text('{"items": [{}]}'), "is not an exam"),
        (lambda folder: (folder / "what_colour_is_this.wav").unlink(), "which is not there"),
        (lambda folder: (folder / "seen.png").unlink(), "seen.png, which is not there"),
        (lambda folder: (folder / "what_colour_is_this.wav").write_text("x"), "not a WAV file"),
        (lambda folder: changed(folder, "reply", 7), "not a text: 7"),
        (lambda folder: changed(folder, "others", "abc"), "others: not a list"),
        (lambda folder: changed(folder, "others", [5]), "not a text: 5"),
        (lambda folder: changed_item(folder, "turns", []), "it has no turns"),
        (lambda folder: changed_item(folder, "name", 3), "not a text: 3"),
        (lambda folder: changed_item(folder, "category", "taste"), "no category taste"),
        (lambda folder: changed_exam(folder, "originals", []), "is not an exam"),
        (lambda folder: changed_exam(folder, "originals", {}), "no recording of a right reply"),
    ],
)
def test_a_damaged_exam_is_told_on_one_line(
    exam: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    says: str,
) -> None:
    damage(exam)
    with serving([]) as (_, url):
        assert bench("--url", url, "--exam", str(exam)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("omnid bench understanding: ")
    assert says in error


def test_no_server_and_no_such_conversation(exam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--url", "http://127.0.0.1:9", "--exam", str(exam)) == 1
    assert bench("--exam", str(exam), "--only", "nothing") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert "no WebSocket at 127.0.0.1:9" in lines[0]
    assert "is called nothing" in lines[1]


def test_what_can_not_be_written_is_told_before_the_exam(
    exam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--url", "http://127.0.0.1:1", "--exam", str(exam), "--json")
    assert bench(*flags, str(tmp_path / "nowhere" / "marks.json")) == 1
    assert "marks.json: No such file" in capsys.readouterr().err
    kept = tmp_path / "kept.json"
    kept.write_text("marks of another day")
    assert bench(*flags, str(kept)) == 1  # no server
    assert kept.read_text() == "marks of another day"


@pytest.mark.parametrize("command", [understanding, latency])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_reply_is_waited_for(
    command: Any, seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--timeout-s", seconds])
    assert "must be a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_sample_is_a_sound_too(length: int) -> None:
    assert len(resampled(np.ones(length, np.int16), 44_100, 16_000)) <= length


def test_the_exam_is_read_whole(exam: Path) -> None:
    found = read_exam(exam)
    assert [item.name for item in found.items] == ["text-000", "tool-000"]
    call = found.items[1].questions[0].call
    assert call is not None
    assert call.arguments == {"state": "on"}


def silent(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.zeros(16_000, "<i2").tobytes())


def test_noise_below_hearing_is_spoken_too(exam: Path) -> None:
    """A clip with hardly any sound is an exam's right: it asks whether the model says so."""
    silent(exam / "what_colour_is_this.wav")
    hello = str(exam / "hello_how_are_you.wav")
    with serving([(HELLO, hello, None)]) as (_, url):
        assert bench("--url", url, "--exam", str(exam), "--only", "text") == 0
