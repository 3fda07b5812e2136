"""What may be said about where a model lies, and as which numbers: names only, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ExpertWeights = Literal["full", "int8", "fp8", "int4"]
STAGES = ("thinker", "talker", "code2wav")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Names as settings and flags have them.

    `device`, `dtype`: see `models.devices`. `experts`: how the thinker's are kept: in `dtype`, or
    in fewer bits (`models.packed_matrices`). `devices`: of the STAGES that do not lie on `device`.
    """

    device: str = "auto"
    dtype: str = "auto"
    experts: str = "full"
    devices: Mapping[str, str] = field(default_factory=dict)


DEFAULT_PLACEMENT = Placement()
