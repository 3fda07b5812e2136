"""The whole Qwen3-Omni network: what a checkpoint fills with weights.

Built on the meta device and filled by `models.weights`; parameter names are those of the published
checkpoint, but for the packed and stacked ones that their modules declare. Constants that no
checkpoint holds are made by each module's `build_constants` once the weights are in place.
"""

from __future__ import annotations

from torch import nn

from models.config import OmniConfig
from models.qwen3_omni.talker import Talker
from models.qwen3_omni.thinker import Thinker
from models.qwen3_omni.vocoder import Code2Wav


class Qwen3Omni(nn.Module):
    """Thinker, talker and vocoder; the last two are None where the checkpoint has no speech."""

    talker: Talker | None
    code2wav: Code2Wav | None

    def __init__(self, config: OmniConfig) -> None:
        super().__init__()
        self.config = config
        capture_layer = None if config.talker is None else config.talker.accept_hidden_layer
        self.thinker = Thinker(config.thinker, capture_layer=capture_layer)
        self.talker = None if config.talker is None else Talker(config)
        self.code2wav = None if config.vocoder is None else Code2Wav(config.vocoder)
