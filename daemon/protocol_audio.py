"""Audio formats on the wire: what a client may choose for each direction, and how it is shown.

PCM16 at 24 kHz is the default, and the only rate that stock clients know; the other rates are for
those that ask. G.711 is what telephones speak.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from daemon.protocol_base import ClientModel, ServerModel, wrong_value

PCM_RATE_HZ = 24_000
PCM_RATES_HZ = (8_000, 16_000, 24_000, 48_000)
G711_RATE_HZ = 8_000

FormatType = Literal["audio/pcm", "audio/pcmu", "audio/pcma"]


def _check_rate(value: Any) -> Any:
    if value is None:
        return None
    if type(value) is not int:
        raise wrong_value("should be an integer")
    rates = ", ".join(map(str, PCM_RATES_HZ))
    if value not in PCM_RATES_HZ:  # the protocol itself knows none but its own
        kind = "greater_than_equal" if value < PCM_RATE_HZ else "less_than_equal"
        raise PydanticCustomError(kind, "should be one of {rates}", {"rates": rates})
    return value


class AudioFormat(ClientModel):
    """PCM16, mono, little endian, at a rate; or G.711, which has but one rate."""

    type: FormatType = "audio/pcm"
    rate: Annotated[int | None, BeforeValidator(_check_rate)] = None

    @model_validator(mode="before")
    @classmethod
    def _check_rateless(cls, data: Any) -> Any:
        has_rate = isinstance(data, dict) and data.get("rate") is not None
        if has_rate and data.get("type") in ("audio/pcmu", "audio/pcma"):
            details = InitErrorDetails(type="extra_forbidden", loc=("rate",), input=data["rate"])
            raise ValidationError.from_exception_data("format", [details])
        return data

    def shown(self) -> AudioFormatView:
        """The format in effect."""
        if self.type == "audio/pcm":
            return AudioFormatView(rate=self.rate or PCM_RATE_HZ)
        return AudioFormatView(type=self.type, rate=None)


class AudioFormatView(ServerModel):
    """A format in effect, as shown; `rate` None: G.711."""

    type: FormatType = "audio/pcm"
    rate: int | None = PCM_RATE_HZ

    @property
    def rate_hz(self) -> int:
        """Samples a second."""
        return self.rate or G711_RATE_HZ

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return 2 if self.type == "audio/pcm" else 1
