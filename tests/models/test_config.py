"""config.json: the published layout, what transformers 5 saves, and absent fields."""

from __future__ import annotations

import copy
import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from models import config_defaults as defaults
from models.config import parse_config, read_config
from models.errors import CheckpointError

DATA = Path(__file__).parent / "data"


@pytest.fixture
def published() -> dict:
    return json.loads((DATA / "qwen3_omni_30b_config.json").read_text())


def test_published_config(published: dict) -> None:
    config = parse_config(published)
    assert config.talker is not None
    assert config.vocoder is not None
    assert config.thinker.decoder.rope.theta == 1e6
    assert config.thinker.decoder.rope.mrope_section == (24, 20, 20)
    assert config.talker.decoder.rope.theta == 1e6
    assert config.talker.predictor.rope.theta == 1e6
    assert config.talker.predictor.rope.mrope_section is None
    assert config.vocoder.transformer.rope.theta == 1e4
    assert config.vocoder.transformer.head_dim == 64
    assert config.thinker.decoder.moe is not None
    assert config.thinker.decoder.moe.shared_expert_size is None
    assert config.talker.decoder.moe is not None
    assert config.talker.decoder.moe.shared_expert_size == 768
    assert not config.is_babbling
    assert parse_config({**published, "omnid_babbles": True}).is_babbling


@pytest.mark.filterwarnings("ignore")
def test_as_transformers_saves_it(published: dict, tmp_path: Path) -> None:
    from transformers import Qwen3OmniMoeConfig

    Qwen3OmniMoeConfig(**deepcopy(published)).save_pretrained(tmp_path)
    assert read_config(tmp_path) == parse_config(published)


SECTIONS = {
    "audio_config": ("thinker_config", "Qwen3OmniMoeAudioEncoderConfig", defaults.AUDIO),
    "vision_config": ("thinker_config", "Qwen3OmniMoeVisionEncoderConfig", defaults.VISION),
    "text_config": ("thinker_config", "Qwen3OmniMoeTextConfig", defaults.TEXT),
    "talker_text": ("talker_config", "Qwen3OmniMoeTalkerTextConfig", defaults.TALKER_TEXT),
    "predictor": (
        "talker_config",
        "Qwen3OmniMoeTalkerCodePredictorConfig",
        defaults.CODE_PREDICTOR,
    ),
    "code2wav": ("", "Qwen3OmniMoeCode2WavConfig", defaults.CODE2WAV),
    "thinker": ("", "Qwen3OmniMoeThinkerConfig", defaults.THINKER),
    "talker": ("", "Qwen3OmniMoeTalkerConfig", defaults.TALKER),
    "top": ("", "Qwen3OmniMoeConfig", defaults.TOP),
}


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_are_those_of_transformers(section: str) -> None:
    from transformers.models.qwen3_omni_moe import configuration_qwen3_omni_moe as upstream

    _, class_name, ours = SECTIONS[section]
    theirs = getattr(upstream, class_name)()
    for key, value in ours.items():
        if key == "rope_theta":
            assert theirs.rope_parameters["rope_theta"] == value
        elif key != "mrope_section":  # a default of the network, not of its config
            found = getattr(theirs, key)
            assert (tuple(found) if isinstance(found, list) else found) == value, key


def test_absent_and_null_fields_mean_the_defaults(published: dict) -> None:
    whole = parse_config(published)
    text = published["thinker_config"]["text_config"]
    del text["norm_topk_prob"], text["num_experts"]
    text["rms_norm_eps"] = None
    del published["tts_pad_token_id"], published["code2wav_config"]["sliding_window"]
    assert parse_config(published) == whole
    del text["num_hidden_layers"]
    decoder = replace(whole.thinker.decoder, num_layers=28)
    assert parse_config(published) == replace(
        whole, thinker=replace(whole.thinker, decoder=decoder)
    )


def test_experts_under_the_name_of_transformers_5(published: dict) -> None:
    text = published["talker_config"]["text_config"]
    text["num_local_experts"] = text.pop("num_experts") // 2
    talker = parse_config(published).talker
    assert talker is not None
    assert talker.decoder.moe is not None
    assert talker.decoder.moe.num_experts == 64


@pytest.mark.parametrize("is_named", [True, False])
def test_without_speech(published: dict, is_named: bool) -> None:
    if is_named:
        published["enable_audio_output"] = False
    else:
        del published["talker_config"]
    config = parse_config(published)
    assert config.talker is None
    assert config.vocoder is None


def test_faults(published: dict, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="can not read"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        read_config(tmp_path)
    with pytest.raises(CheckpointError, match="model_type 'llama'"):
        parse_config({"model_type": "llama"})
    for section, field, value, why in (
        ("thinker_config", None, [], "not an object"),
        ("talker_config", "speaker_id", [1], "another kind"),
        ("code2wav_config", "upsample_rates", 3, "another kind"),
        ("code2wav_config", "hidden_size", "64", "another kind"),
        ("code2wav_config", "decoder_dim", 2.5, "decoder_size is 2.5"),
        ("code2wav_config", "decoder_dim", -4, "decoder_size is -4"),
        ("talker_config", "codec_bos_id", -1, "codec_bos_id is -1"),
    ):
        spoilt = copy.deepcopy(published)
        if field is None:
            spoilt[section] = value
        else:
            spoilt[section][field] = value
        with pytest.raises(CheckpointError, match=why):
            parse_config(spoilt)
    del published["thinker_config"]["audio_end_token_id"]
    with pytest.raises(CheckpointError, match="audio_end_token_id"):
        parse_config(published)


def test_dense_layers_are_refused(published: dict) -> None:
    published["thinker_config"]["text_config"]["mlp_only_layers"] = [0]
    with pytest.raises(CheckpointError, match="mlp_only_layers"):
        parse_config(published)
