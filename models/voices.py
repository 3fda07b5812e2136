"""The voices of a checkpoint: their names, and the codec id of one."""

from __future__ import annotations

from models.config import OmniConfig
from models.errors import RequestError

DEFAULT_VOICE = "ethan"  # the reference's; no file of the checkpoint names one


def voice_names(config: OmniConfig) -> tuple[str, ...]:
    """The default first; () where the checkpoint has no speech."""
    if config.talker is None:
        return ()
    return tuple(sorted(config.talker.speaker_ids, key=lambda name: name != DEFAULT_VOICE))


def voice_id(config: OmniConfig, voice: str | None) -> int | None:
    """Codec id of a voice in any case, None being the default; None without speech.

    Raises:
        RequestError: the checkpoint has no such voice; the message lists its voices.
    """
    if config.talker is None:
        return None
    names = voice_names(config)
    name = names[0] if voice is None else voice.lower()
    if name not in config.talker.speaker_ids:
        known = ", ".join(names)
        raise RequestError(f"voice {voice!r} is unknown; this checkpoint has {known}")
    return config.talker.speaker_ids[name]
