"""A conversation as a picture: both channels, what the user did, what was decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline import events
from pipeline.bench.recording import Recording
from pipeline.messages import ENGINE_INPUT_HZ, ENGINE_OUTPUT_HZ

SHOWN_S = 45.0
COLOURS = {
    "turn": "tab:blue",
    "interruption": "tab:red",
    "backchannel": "tab:green",
    "tic": "tab:orange",
    "noise": "tab:olive",
    "side_speech": "tab:purple",
}
MARKS = {
    events.SpeechStarted: ("speech started", "tab:blue", ":"),
    events.SpeechStopped: ("turn over", "tab:blue", "-"),
    events.OutputStarted: ("reply heard", "black", "-"),
    events.OutputCleared: ("reply cut", "tab:red", "-"),
}


def draw(recording: Recording, path: Path) -> None:
    """Write a picture of the beginning of a conversation; the suffix says the format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (user, agent) = pyplot.subplots(2, 1, figsize=(16, 5), sharex=True, sharey=True)
    _wave(user, recording.user, ENGINE_INPUT_HZ, 1.0)
    _wave(agent, recording.agent, ENGINE_OUTPUT_HZ, 32768.0)
    for sort, colour in COLOURS.items():
        for index, said in enumerate(s for s in recording.said if s.sort == sort):
            label = sort.replace("_", " ") if index == 0 else None
            user.axvspan(said.on_s, said.off_s, color=colour, alpha=0.2, lw=0, label=label)
    for kind, (label, colour, style) in MARKS.items():
        times = [t for t, event in recording.told if isinstance(event, kind)]
        axes = user if kind in (events.SpeechStarted, events.SpeechStopped) else agent
        axes.vlines(times, -1, 1, color=colour, linestyle=style, lw=1, label=label)
    user.set_ylabel("user")
    agent.set_ylabel("agent")
    agent.set_xlabel("seconds")
    agent.set_xlim(0, min(SHOWN_S, len(recording.user) / ENGINE_INPUT_HZ))
    user.set_ylim(-1.05, 1.05)
    for axes in (user, agent):
        axes.legend(loc="upper right", ncols=8, fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _wave(axes: Any, pcm: Any, rate_hz: int, full: float) -> None:
    """The envelope, 10 ms at a time, scaled to its own loudest."""
    size = rate_hz // 100
    peaks = np.abs(pcm[: len(pcm) // size * size].reshape(-1, size)).max(axis=1) / full
    peaks = peaks / max(1e-6, float(peaks.max()))
    axes.fill_between(np.arange(len(peaks)) / 100, -peaks, peaks, color="0.5", lw=0)
