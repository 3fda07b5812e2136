"""How replies are drawn, between the wire and the pipeline: the extension `x_sampling`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from daemon.protocol import ProtocolError
from daemon.protocol_session import SamplingPatch
from pipeline.session_config import Sampling

_NAME = "session.x_sampling"


def sampling_of_patch(
    patch: SamplingPatch | None, before: Sampling, *, is_allowed: bool
) -> Sampling:
    """What a patch leads to; what it does not name stays.

    Raises:
        ProtocolError: the client did not opt in to extensions.
    """
    if not is_allowed:
        raise ProtocolError(
            f"'{_NAME}' is an extension: connect with ?x-ext=1.",
            code="unknown_parameter",
            param=_NAME,
        )
    return Sampling() if patch is None else replace(before, **patch.model_dump(exclude_unset=True))


def shown_sampling(sampling: Sampling) -> dict[str, Any] | None:
    """As a server echoes it; None: all is as the checkpoint wants it."""
    return None if sampling == Sampling() else asdict(sampling)
