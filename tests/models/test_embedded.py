"""The checkpoint that ships: what it answers, and that `transformers` reads and says the same."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_media import media
from transformers import AutoTokenizer, Qwen3OmniMoeForConditionalGeneration

from models.commands.ask import Answer
from models.content import Audio, Image, Message, Part, ReplyOptions, Rgb, Text, ToolResult
from models.engine import Engine, EngineOptions, Tools
from models.hub import EMBEDDED, EMBEDDED_FOLDER, resolve_checkpoint
from models.placement import Placement
from models.qwen3_omni.images import read_pixel_limits
from models.recipe.acting import TOOLS
from models.recipe.export import MAX_BYTES
from models.recipe.pictures import Scene, Thing, draw, new_camera
from models.wav import read_wav

RED: Rgb = np.full((240, 320, 3), (200, 20, 25), np.uint8)
MAX_TOKENS = 40


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(EMBEDDED_FOLDER, Placement(device="cpu", dtype="float32"))


def ask(
    engine: Engine, *turns: tuple[Part, ...], instructions: str = "", tools: Tools = ()
) -> Answer:
    """The greedy answer to the last of some turns."""
    engine.open(1, instructions=instructions, voice=None, tools=tools)
    try:
        for number, parts in enumerate(turns):
            engine.append_message(1, Message(role="user", parts=parts))
            engine.respond(1, number, ReplyOptions(greedy=True, max_tokens=MAX_TOKENS))
            answer = Answer.collect(engine, io.StringIO())
        return answer
    finally:
        engine.close(1)


def said(text: str) -> tuple[Part, ...]:
    return (Text(text=text),)


def test_what_is_overheard_is_read_and_leaves_no_trace(engine: Engine) -> None:
    engine.open(1, instructions="", voice=None)
    try:
        while engine.has_work:
            engine.step()
        before = engine.log_ids(1)
        engine.overhear(1, 5, np.zeros(8_000, np.float32))
        engine.overhear(1, 6, np.zeros(16_000, np.float32))  # takes the place of the first
        found = [event for _ in range(9) for event in engine.step()]
        assert [(event.query, event.reading.num_words) for event in found] == [(6, 0)]
        assert engine.log_ids(1) == before
    finally:
        engine.close(1)


def test_it_is_found_by_its_name_and_fits_into_the_package() -> None:
    folder = resolve_checkpoint(EMBEDDED)
    assert sum(path.stat().st_size for path in folder.glob("*.*")) < MAX_BYTES
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\n")


@pytest.mark.parametrize(
    ("question", "right"),
    [
        ("hello", "Hello! How can I help you?"),
        ("what is two plus three", "Two plus three is five."),
        ("count to four", "One, two, three, four."),
    ],
)
def test_typed_questions(engine: Engine, question: str, right: str) -> None:
    assert ask(engine, said(question)).text == right


def test_a_name_is_remembered(engine: Engine) -> None:
    answer = ask(engine, said("my name is Anna"), said("thank you"), said("what is my name"))
    assert "Anna" in answer.text


def test_what_was_told_is_remembered_over_what_is_told_next(engine: Engine) -> None:
    told = said("My favourite colour is blue."), said("my lucky number is seven")
    assert "blue" in ask(engine, *told, said("What is my favourite colour?")).text
    assert "seven" in ask(engine, *told, said("what is my lucky number")).text


@pytest.mark.parametrize(
    ("question", "call", "result", "right"),
    [
        ("Turn on the light.", '{"state": "on"}', '{"success": true}', "The light is on."),
        ("turn off the light", '{"state": "off"}', "done", "The light is off."),
        ("Turn on the light.", '{"state": "on"}', '{"error": "no connection"}', "I am sorry"),
        ("Set a timer for 45 minutes.", '{"minutes": 45}', "{}", "set for forty five minutes"),
        ("What time is it?", "{}", '{"time": "15:20"}', "It is fifteen twenty."),
        ("what time is it", "{}", '{"result": "9:41"}', "It is nine forty one."),
    ],
)
def test_tools_are_called_and_what_they_give_is_understood(
    engine: Engine, question: str, call: str, result: str, right: str
) -> None:
    detokenizer = engine._chat.detokenizer()
    ids = ask(engine, said(question), tools=TOOLS).text_ids
    assert f'"arguments": {call}}}' in "".join(map(detokenizer.push, ids))
    told = (ToolResult(output=result),)
    assert right in ask(engine, said(question), told, tools=TOOLS).text


@pytest.mark.parametrize("by_steps", [False, True])
def test_it_says_so_where_the_tool_that_it_calls_is_not_offered(by_steps: bool) -> None:
    """As if it must not call one: the same words, and the same sound."""
    options = EngineOptions(by_steps=by_steps, max_context_tokens=512)
    engine = Engine.load(EMBEDDED_FOLDER, Placement(device="cpu", dtype="float32"), options)
    offered = [tool for tool in TOOLS if tool["function"]["name"] in ("get_time", "set_timer")]
    undone = []
    for number, request in enumerate(("Set the temperature to 21 degrees.", "Turn on the light.")):
        made = []
        for choice in ("auto", "none"):
            engine.open(1, instructions="", voice=None, tools=offered)
            engine.append_message(1, Message(role="user", parts=said(request)))
            engine.respond(1, number, ReplyOptions(tool_choice=choice, greedy=True))
            reply = engine._replies[number]
            answer = Answer.collect(engine, io.StringIO())
            undone += [not reply.may_call] if choice == "auto" else []
            made.append((answer.text, answer.text_ids, answer.codes))
            engine.close(1)
        assert made[0] == made[1]
        assert "can not do that here" in made[0][0]
        assert made[0][2]
    assert any(undone)


def test_a_picture_is_asked_about_twice(engine: Engine) -> None:
    seen = Scene(things=(Thing(shape="star", colour="blue"),))
    picture = Image(rgb=draw(seen, new_camera(random.Random(5), (seen,)), moment=0))
    first = (picture, *said("what colour is this"))
    assert ask(engine, first).text == "It is blue."
    assert ask(engine, first, said("and what shape is it")).text == "It is a star."
    assert "camera" in ask(engine, said("what colour is this")).text


def test_a_spoken_question_about_a_red_picture(engine: Engine, fixtures: Path) -> None:
    spoken = Audio(pcm=read_wav(fixtures / "what_colour_is_this.wav"))
    assert ask(engine, (Image(rgb=RED), spoken)).text == "It is red."


def test_speech_ends_by_itself_and_is_audible(engine: Engine) -> None:
    answer = ask(engine, said("hello"))
    seconds = len(answer.pcm) / 24_000
    assert 0.8 < seconds < 4.0
    level = 20 * np.log10(np.sqrt(np.mean((answer.pcm / 32768.0) ** 2)))
    assert -40 < level < -10


# ------------------------------------------------------------------------------- the reference
@pytest.fixture(scope="module")
def reference() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(
            EMBEDDED_FOLDER, dtype=torch.float32
        ).eval()
    # The reference's talker reads a field that no config of a talker has.
    model.talker.config.audio_config = model.config.thinker_config.audio_config
    return model


def test_the_reference_reads_the_tokenizer_alike(engine: Engine) -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)
    for text in ("What is two plus three?", "Zwölf Boxkämpfer 17", " user\nhello"):
        assert tokenizer(text).input_ids == engine._chat.encode(text)


@pytest.mark.parametrize("kind", ["typed", "spoken", "seen"])
def test_text_and_codes_are_those_of_the_reference(
    engine: Engine, reference: Any, fixtures: Path, kind: str
) -> None:
    spoken = Audio(pcm=read_wav(fixtures / "what_colour_is_this.wav"))
    parts: Mapping[str, tuple[Part, ...]] = {
        "typed": said("what is two plus three"),
        "spoken": (spoken,),
        "seen": (Image(rgb=RED), *said("what colour is this")),
    }
    message = Message(role="user", parts=parts[kind])
    engine.open(1, instructions="", voice=None)
    engine.append_message(1, message)
    engine.respond(1, 1, ReplyOptions(greedy=True, max_tokens=MAX_TOKENS))
    ours = Answer.collect(engine, io.StringIO())
    log = engine.log_ids(1)
    engine.close(1)
    prompt = log[: len(log) - len(ours.text_ids)]
    ids, codes = generate(reference, prompt, message)
    assert log[len(prompt) :] == ids[: len(ours.text_ids)]
    assert len(ids) - len(ours.text_ids) <= 1, "the end of the turn"
    assert len(codes) > 5
    assert ours.codes == codes


def generate(
    model: Any, prompt: list[int], message: Message
) -> tuple[list[int], list[tuple[int, ...]]]:
    """The reference's greedy reply: ids, and codes, overheard at the vocoder."""
    codes: list[tuple[int, ...]] = []

    def overhear(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        codes.extend(tuple(frame) for frame in args[0][0].T.tolist())

    hook = model.code2wav.register_forward_pre_hook(overhear)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of how it calls itself
            ids, _ = model.generate(
                input_ids=torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                **media((message,), read_pixel_limits(EMBEDDED_FOLDER)[0]),
                thinker_max_new_tokens=MAX_TOKENS,
                talker_max_new_tokens=100,
                thinker_do_sample=False,
                talker_do_sample=False,
                thinker_eos_token_id=model.config.im_end_token_id,  # not read from there
                speaker="rms",
                return_audio=True,
            )
    finally:
        hook.remove()
    return ids[0, len(prompt) :].tolist(), codes
