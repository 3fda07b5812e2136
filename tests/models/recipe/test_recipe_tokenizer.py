"""Vocabulary, template and config of the embedded model fit together, here and in transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from models.chat import ChatFormat
from models.config import parse_config
from models.qwen3_omni.model import Qwen3Omni
from models.recipe.acting import TOOLS
from models.recipe.dialogues import Answered, all_texts, conversation
from models.recipe.sizes import embedded_config
from models.recipe.tokenizer import Vocabulary, learn_vocabulary, write_tokenizer

MAX_PARAMETERS = 20e6  # 40 MB at 16 bits


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return learn_vocabulary(all_texts(1000))


@pytest.fixture(scope="module")
def folder(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("embedded")
    write_tokenizer(made, vocabulary)
    (made / "config.json").write_text(json.dumps(embedded_config(vocabulary)))
    return made


@pytest.fixture(scope="module")
def chat(folder: Path, vocabulary: Vocabulary) -> ChatFormat:
    return ChatFormat.load(folder, parse_config(embedded_config(vocabulary)))


def test_ids_have_no_gaps_and_each_reply_is_words(chat: ChatFormat, vocabulary: Vocabulary) -> None:
    assert vocabulary.size < 1500
    for seed in range(200):
        for turn in conversation(seed, "train").turns:
            if isinstance(turn, Answered) and not turn.is_call:
                ids = chat.encode(turn.text)
                assert max(ids) < vocabulary.size
                assert len(ids) <= 2 * len(turn.text.split()) + 2, turn.text  # words and commas


@pytest.mark.parametrize("text", ["I see a red circle.", "Grüße, 12 zebras!\n", "<|im_end|>"])
def test_text_comes_back(chat: ChatFormat, text: str) -> None:
    reader = chat.detokenizer()
    assert "".join([*map(reader.push, chat.encode(text)), reader.flush()]) == text


def test_tools_are_listed_in_the_system_part(chat: ChatFormat, vocabulary: Vocabulary) -> None:
    ids = chat.system_ids("Be kind.", TOOLS)
    assert ids[0] == vocabulary.special_id("<|im_start|>")
    assert ids.count(vocabulary.special_id("<|im_end|>")) == 1
    assert ids.count(vocabulary.special_id("<tool_call>")) == 2  # how a call is written
    assert chat.tool_call_id == vocabulary.special_id("<tool_call>")
    assert chat.system_ids("") == []


def test_transformers_reads_the_same_ids(folder: Path, chat: ChatFormat) -> None:
    other = AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "what colour is this"},
        {"role": "assistant", "content": "It is red."},
        {"role": "tool", "content": '{"result": "ok"}'},
    ]
    rendered = other.apply_chat_template(
        messages, tools=list(TOOLS), add_generation_prompt=True, tokenize=False
    )
    ours = [
        *chat.system_ids("Be kind.", TOOLS),
        *chat.open_ids("user"),
        *chat.encode("what colour is this"),
        *chat.close_ids(),
        *chat.open_ids("assistant"),
        *chat.encode("It is red."),
        *chat.close_ids(),
    ]
    theirs = other(rendered)["input_ids"]
    assert theirs[: len(ours)] == ours
    assert theirs[-3:] == chat.assistant_header_ids()


def test_the_model_is_small_enough(vocabulary: Vocabulary) -> None:
    config = parse_config(embedded_config(vocabulary))
    with torch.device("meta"):
        model = Qwen3Omni(config)
    assert sum(parameter.numel() for parameter in model.parameters()) < MAX_PARAMETERS
    assert config.talker is not None
    assert config.vocoder is not None
    assert config.talker.num_code_groups == config.vocoder.num_quantizers
