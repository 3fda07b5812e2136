"""A training run of one module: weights, their average, optimiser, step; stopped and resumed.

What a step does depends on the seed and the step alone, so a resumed run goes on as if it had never
stopped (on a machine that multiplies in the same type, see `models.recipe.quick_types`). The
average of the weights over steps is what a run is for. Losses belong to the owners.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Learning rate over steps: a rise, then a fall with the root of the steps; and averaging."""

    peak_rate: float
    warmup_steps: int
    rate_halves_after: int
    averaging: float
    betas: tuple[float, float] = (0.9, 0.98)

    def rate(self, step: int, begun: int = 0) -> float:
        """The rate of this step, where the optimiser knows nothing from before step `begun`."""
        rise = min(1.0, (step - begun + 1) / self.warmup_steps)
        return self.peak_rate * rise * float((1 + 3 * step / self.rate_halves_after) ** -0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How a stage is gone on with.

    Attributes:
        minutes: how long. rate: share of its pace's learning rate; the last few hundred steps of
            a run learn most at a third.
    """

    minutes: float
    rate: float = 1.0


@dataclass(slots=True, kw_only=True)
class Run:
    """See the module's docstring.

    Attributes:
        average: name -> averaged weight. begun: the optimiser's first step. rate: share of the
            pace's, see `Effort`.
    """

    module: nn.Module
    pace: Pace
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    seed: int
    step: int = 0
    begun: int = 0
    rate: float = 1.0

    @classmethod
    def new(cls, module: nn.Module, pace: Pace, seed: int, *, step: int = 0) -> Run:
        """At `step`, with the weights that `module` has."""
        average = {name: p.detach().clone() for name, p in module.named_parameters()}
        learning = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=pace.peak_rate, betas=pace.betas)
        return cls(
            module=module,
            pace=pace,
            average=average,
            optimizer=optimizer,
            seed=seed,
            step=step,
            begun=step,
        )

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        unfinished = path.with_suffix(".new")
        state: dict[str, Any] = {
            "weights": dict(self.module.named_parameters()),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "seed": self.seed,
            "step": self.step,
            "begun": self.begun,
        }
        torch.save(state, unfinished)
        unfinished.rename(path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Take up what `save` wrote for a module of the same sizes."""
        state = torch.load(path, weights_only=True)
        for name, parameter in self.module.named_parameters():
            parameter.copy_(state["weights"][name])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.seed, self.step, self.begun = state["seed"], state["step"], state["begun"]

    def begin_step(self) -> None:
        """Forget old gradients; set this step's rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * self.pace.rate(self.step, self.begun)
        self.optimizer.zero_grad()

    @torch.no_grad()
    def end_step(self) -> None:
        """Move the weights along their gradients, and the average after them."""
        nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.step += 1
        share = min(self.pace.averaging, (1 + self.step) / (10 + self.step))
        for name, parameter in self.module.named_parameters():
            self.average[name].lerp_(parameter, 1 - share)


def put_average(run: Run, module: nn.Module) -> None:
    """Give another module of the same sizes the averaged weights."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(run.average[name])


@torch.no_grad()
def load_average(path: Path, module: nn.Module, *, prefix: str = "") -> None:
    """Give a module of the same sizes the averaged weights of a saved run, named `prefix` there."""
    average = torch.load(path, weights_only=True)["average"]
    for name, parameter in module.named_parameters():
        parameter.copy_(average[prefix + name])


def saved_step(path: Path) -> int:
    """The step that a saved run is at."""
    return int(torch.load(path, weights_only=True)["step"])


def keep_on(
    run: Run,
    take_step: Callable[[], Mapping[str, float]],
    path: Path,
    *,
    effort: Effort,
    steps_per_log: int = 50,
    steps_per_save: int = 200,
) -> None:
    """Take steps: saves to `path`, appends means of what steps return to its log."""
    stop = time.monotonic() + 60 * effort.minutes
    run.rate = effort.rate
    seen: list[Mapping[str, float]] = []
    began = time.monotonic()
    while time.monotonic() < stop:
        seen.append(take_step())
        if run.step % steps_per_log == 0:
            _log(path.with_suffix(".log"), run, seen, time.monotonic() - began)
            seen, began = [], time.monotonic()
        if run.step % steps_per_save == 0:
            run.save(path)
    run.save(path)


def _log(path: Path, run: Run, seen: list[Mapping[str, float]], seconds: float) -> None:
    names = dict.fromkeys(name for values in seen for name in values)
    means = {
        name: sum(v[name] for v in seen if name in v) / sum(name in v for v in seen)
        for name in names
    }
    line = {"step": run.step, **means, "step_s": seconds / len(seen)}
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
