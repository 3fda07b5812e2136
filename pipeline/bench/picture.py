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
USERS = {
    "speech started": ("tab:blue", ":"),
    "turn over": ("tab:blue", "-"),
    "reply begun in vain": ("tab:orange", "--"),
}
AGENTS = {
    "reply heard": ("black", "-"),
    "ducked": ("tab:gray", ":"),
    "held": ("tab:purple", ":"),
    "goes on": ("tab:green", "-"),
    "reply cut": ("tab:red", "-"),
}
TOLD = {
    events.SpeechStarted: "speech started",
    events.SpeechStopped: "turn over",
    events.OutputStarted: "reply heard",
    events.OutputCleared: "reply cut",
}
DOUBTS = {"duck": "ducked", "hold": "held", "resume": "goes on"}


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
    found = decisions(recording)
    for axes, marks in ((user, USERS), (agent, AGENTS)):
        for label, (colour, style) in marks.items():
            times = [time_s for time_s, what in found if what == label]
            axes.vlines(times, -1, 1, color=colour, linestyle=style, lw=1, label=label)
    user.set_ylabel("user")
    agent.set_ylabel("agent")
    agent.set_xlabel("seconds")
    agent.set_xlim(0, min(SHOWN_S, len(recording.user) / ENGINE_INPUT_HZ))
    user.set_ylim(-1.05, 1.05)
    for axes in (user, agent):
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=9, fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def decisions(recording: Recording) -> list[tuple[float, str]]:
    """What was decided when, in the words of the legend, in order."""
    found = [(time_s, TOLD[type(event)]) for time_s, event in recording.told if type(event) in TOLD]
    found += [(time_s, DOUBTS[what]) for time_s, what in recording.doubts]
    found += [
        (time_s, "reply begun in vain")
        for time_s, event in recording.told
        if isinstance(event, events.Speculated) and not event.is_kept
    ]
    return sorted(found)


def _wave(axes: Any, pcm: Any, rate_hz: int, full: float) -> None:
    """The envelope, 10 ms at a time, scaled to its own loudest."""
    size = rate_hz // 100
    peaks = np.abs(pcm[: len(pcm) // size * size].reshape(-1, size)).max(axis=1) / full
    peaks = peaks / max(1e-6, float(peaks.max()))
    axes.fill_between(np.arange(len(peaks)) / 100, -peaks, peaks, color="0.5", lw=0)
