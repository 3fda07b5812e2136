"""The sizes of the embedded model: fields of config.json over those of `models.tiny_config`.

Half as many code groups as the published model: sixteen quantizers of 2048 say far more than one
voice needs, and each group is a pass of the code predictor in every 80 ms. Data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NUM_QUANTIZERS = 8
CODEBOOK_SIZE = 512
NUM_COMPONENTS = 96  # of a log-mel patch, for the codec

CODE2WAV: Mapping[str, Any] = {
    "codebook_size": CODEBOOK_SIZE,
    "num_quantizers": NUM_QUANTIZERS,
    "decoder_dim": 96,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "sliding_window": 24,
}
