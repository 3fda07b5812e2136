"""What happens to a full context, between the wire and the pipeline."""

from __future__ import annotations

from typing import Any

from daemon.protocol_session import RetentionRatio
from pipeline.session_config import Truncation


def truncation_of(wanted: str | RetentionRatio) -> Truncation | None:
    """As the conversation wants it."""
    if isinstance(wanted, str):
        return Truncation() if wanted == "auto" else None
    limits = wanted.token_limits
    return Truncation(
        retention_ratio=wanted.retention_ratio,
        post_instructions_tokens=limits.post_instructions if limits is not None else None,
    )


def shown_truncation(wanted: str | RetentionRatio) -> Any:
    """As a server echoes it."""
    return wanted if isinstance(wanted, str) else wanted.model_dump(exclude_none=True)
