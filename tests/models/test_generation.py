"""generation_config.json -> settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.config import OmniConfig, parse_config
from models.errors import CheckpointError
from models.generation import parse_generation, read_generation
from models.sampling import SamplingSettings

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def config() -> OmniConfig:
    return parse_config(json.loads((DATA / "qwen3_omni_30b_config.json").read_text()))


def test_without_a_file(tmp_path: Path, config: OmniConfig) -> None:
    settings = read_generation(tmp_path, config)
    assert settings.thinker.sampling.is_greedy
    assert settings.thinker.eos_ids == {config.im_end_id}
    assert settings.thinker.max_new_tokens == 1024
    assert settings.talker.max_new_tokens == 4096
    assert settings.talker.sampling == SamplingSettings(
        temperature=0.9, top_k=50, top_p=1.0, repetition_penalty=1.05
    )
    assert settings.predictor == SamplingSettings(temperature=1.0, top_k=50, top_p=0.8)


def test_all_fields(tmp_path: Path, config: OmniConfig) -> None:
    raw = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
        "max_new_tokens": 96,
        "min_new_tokens": 16,
        "eos_token_id": [151645, 151643],
        "transformers_version": "5.0",
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(raw))
    thinker = read_generation(tmp_path, config).thinker
    assert thinker.sampling == SamplingSettings(
        temperature=0.6, top_k=20, top_p=0.95, repetition_penalty=1.1, min_new_tokens=16
    )
    assert thinker.max_new_tokens == 96
    assert thinker.eos_ids == {151643, 151645}


def test_the_talkers_arguments(config: OmniConfig) -> None:
    raw = {"temperature": 0.5, "talker_temperature": 0.4, "talker_top_k": 8, "talker_top_p": 0.9}
    settings = parse_generation(raw | {"talker_repetition_penalty": 1.0}, config)
    assert settings.talker.sampling == SamplingSettings(
        temperature=0.4, top_k=8, top_p=0.9, repetition_penalty=1.0
    )
    assert settings.predictor == parse_generation({}, config).predictor
    greedy = parse_generation({"talker_do_sample": False}, config)
    assert not greedy.talker.sampling.do_sample
    assert not greedy.predictor.do_sample


def test_null_is_absent(config: OmniConfig) -> None:
    settings = parse_generation({"temperature": None, "eos_token_id": None, "top_k": None}, config)
    assert settings == parse_generation({}, config)


@pytest.mark.parametrize(
    "raw",
    [
        {"temperature": -1.0},
        {"temperature": "hot"},
        {"top_p": 0.0},
        {"top_k": -1},
        {"repetition_penalty": 0},
        {"max_new_tokens": 0},
        {"min_new_tokens": 5, "max_new_tokens": 4},
        {"eos_token_id": ["x"]},
        {"eos_token_id": 10**6},
        {"talker_temperature": -1.0},
        {"talker_top_k": "many"},
    ],
)
def test_values_out_of_range(raw: dict, config: OmniConfig) -> None:
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        parse_generation(raw, config)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_bad_files(content: str, tmp_path: Path, config: OmniConfig) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        read_generation(tmp_path, config)
