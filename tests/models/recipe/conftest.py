"""A learner of the embedded model's kind, with fewer layers."""

from __future__ import annotations

from typing import Any

import pytest

from models.recipe.dialogues import all_texts
from models.recipe.learner import Learner, build_learner
from models.recipe.sizes import embedded_config
from models.recipe.tokenizer import learn_vocabulary

VOCABULARY = learn_vocabulary(all_texts(300))


def small_config() -> dict[str, Any]:
    raw = embedded_config(VOCABULARY)
    raw["thinker_config"]["text_config"]["num_hidden_layers"] = 2
    raw["thinker_config"]["audio_config"]["encoder_layers"] = 2
    raw["thinker_config"]["vision_config"]["depth"] = 2
    raw["talker_config"]["accept_hidden_layer"] = 2
    raw["talker_config"]["text_config"]["num_hidden_layers"] = 2
    return raw


@pytest.fixture
def learner() -> Learner:
    return build_learner(small_config(), VOCABULARY, seed=0)
