"""How a session listens, between the wire and the pipeline: turn detection, noise reduction,
transcription.
"""

from __future__ import annotations

from dataclasses import replace

from daemon.protocol import ServerVad, TurnDetectionView
from daemon.protocol_session import (
    NoiseReductionPatch,
    NoiseReductionView,
    SemanticDetectionView,
    SemanticVad,
    TranscriptionView,
)
from daemon.settings import TurnDetectionSettings
from pipeline.session_config import NoiseReduction, Transcription, TurnDetection


def transcription_of(view: TranscriptionView | None) -> Transcription | None:
    """As the conversation wants it."""
    if view is None:
        return None
    languages = (view.language,) if view.language else tuple(view.languages or ())
    return Transcription(
        languages=languages, prompt=view.prompt, keywords=tuple(view.keywords or ())
    )


def shown_detection(
    detection: TurnDetection | None, eagerness: str | None
) -> TurnDetectionView | SemanticDetectionView | None:
    """As a server echoes it; `eagerness`: None where it is not by meaning."""
    if detection is None:
        return None
    if eagerness is not None:
        return SemanticDetectionView(
            eagerness=eagerness,
            create_response=detection.create_response,
            interrupt_response=detection.interrupt_response,
        )
    return TurnDetectionView(
        threshold=detection.threshold,
        prefix_padding_ms=detection.prefix_padding_ms,
        silence_duration_ms=detection.silence_duration_ms,
        idle_timeout_ms=detection.idle_timeout_ms,
        create_response=detection.create_response,
        interrupt_response=detection.interrupt_response,
    )


def reduction_of_patch(
    patch: NoiseReductionPatch | None, before: NoiseReduction | None
) -> NoiseReduction | None:
    """What a patch leads to; it is off, or a strength that it does not name stays."""
    if patch is None:
        return None
    wanted = before or NoiseReduction(place=patch.type)
    strength = wanted.strength if patch.strength is None else patch.strength
    return NoiseReduction(place=patch.type, strength=strength)


def shown_reduction(reduction: NoiseReduction | None) -> NoiseReductionView | None:
    """As a server echoes it."""
    if reduction is None:
        return None
    return NoiseReductionView(type=reduction.place, strength=reduction.strength)


def detection_of_settings(settings: TurnDetectionSettings) -> TurnDetection:
    """What a session begins with."""
    return TurnDetection(
        threshold=settings.threshold,
        prefix_padding_ms=settings.prefix_padding_ms,
        silence_duration_ms=settings.silence_duration_ms,
        idle_timeout_ms=settings.idle_timeout_ms or None,
        create_response=settings.create_response,
        interrupt_response=settings.interrupt_response,
        eagerness=None if settings.eagerness == "off" else settings.eagerness,
        tentative_ms=settings.tentative_silence_ms,
        speculates=settings.speculate,
        judges_interruptions=settings.judge_interruptions,
    )


def detection_of_patch(patch: ServerVad | SemanticVad, default: TurnDetection) -> TurnDetection:
    """Turn detection is replaced as a unit: what is not named takes the server's default."""
    named = patch.model_dump(exclude={"type", "eagerness"}, exclude_none=True)
    named["eagerness"] = None
    if isinstance(patch, SemanticVad):
        eagerness = patch.eagerness or default.eagerness or "auto"
        named |= {"eagerness": eagerness, "idle_timeout_ms": None}
    return replace(default, **named)
