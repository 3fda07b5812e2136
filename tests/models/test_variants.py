"""Whole replies against the reference over many shapes of checkpoint: heads, experts, layers.

One of them runs always, the others on demand (`-m slow`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_rig import load_for_engine
from oracle import Oracle, build_oracle
from test_engine_parity import CONVERSATIONS, ask, reference

from models.config import read_config

THINKER, TALKER = "thinker_config.text_config.", "talker_config.text_config."
VARIANTS: dict[str, dict[str, Any]] = {
    "as many kv heads as heads": {
        THINKER + "num_key_value_heads": 4,
        TALKER + "num_key_value_heads": 4,
    },
    "one kv head, heads wider than the model": {
        THINKER + "num_key_value_heads": 1,
        TALKER + "num_key_value_heads": 1,
        TALKER + "num_attention_heads": 6,
    },
    "one expert a token": {THINKER + "num_experts_per_tok": 1, TALKER + "num_experts_per_tok": 1},
    "many experts, weights as they are": {
        THINKER + "num_experts": 16,
        THINKER + "num_experts_per_tok": 4,
        THINKER + "norm_topk_prob": False,
    },
    "other depths": {
        THINKER + "num_hidden_layers": 5,
        TALKER + "num_hidden_layers": 3,
        "talker_config.code_predictor_config.num_hidden_layers": 1,
        "code2wav_config.num_hidden_layers": 3,
    },
    "captured at another layer": {"talker_config.accept_hidden_layer": 5},
    "windows of one second": {"thinker_config.audio_config.n_window_infer": 100},
    "windows of eight seconds": {"thinker_config.audio_config.n_window_infer": 800},
    "deepstack from other blocks": {
        "thinker_config.vision_config.deepstack_visual_indexes": [1, 3],
    },
    "long vocoder window": {"code2wav_config.sliding_window": 72},
}
ALWAYS = "many experts, weights as they are"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == ALWAYS else pytest.mark.slow) for name in VARIANTS],
)
def test_replies_equal_the_reference(name: str, tmp_path: Path) -> None:
    reference_model = build_oracle(seed=len(name), changes=VARIANTS[name])
    reference_model.save_pretrained(tmp_path)
    oracle = Oracle(model=reference_model, folder=tmp_path, config=read_config(tmp_path))
    model = load_for_engine(oracle)
    asked = ["audio of several windows"] if name == ALWAYS else list(CONVERSATIONS)
    for conversation in asked:
        messages = CONVERSATIONS[conversation]
        ours, prompt = ask(model, oracle, messages)
        expected = reference(oracle, prompt, messages)
        assert ours.ids == expected.ids, conversation
        assert ours.codes == expected.codes, conversation
        np.testing.assert_allclose(ours.pcm / 32767, expected.wav, atol=1e-4, err_msg=conversation)
