"""How many tokens a response took, as server events tell it."""

from __future__ import annotations

from daemon.protocol_base import ServerModel


class CachedTokenDetails(ServerModel):
    """Cached tokens by kind."""

    text_tokens: int
    audio_tokens: int
    image_tokens: int


class TokenDetails(ServerModel):
    """Input tokens by kind."""

    text_tokens: int
    audio_tokens: int
    image_tokens: int
    cached_tokens: int
    cached_tokens_details: CachedTokenDetails


class OutputTokenDetails(ServerModel):
    """Output tokens by kind."""

    text_tokens: int
    audio_tokens: int


class UsageView(ServerModel):
    """Tokens of one response."""

    total_tokens: int
    input_tokens: int
    output_tokens: int
    input_token_details: TokenDetails
    output_token_details: OutputTokenDetails
