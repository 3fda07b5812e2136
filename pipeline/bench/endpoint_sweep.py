"""How many pauses a policy of endpointing cuts off when it may wait so long on average.

The judge hears each pause and each end of held-out turns once the silence is long enough to be
noticed. A policy acts after `delay_s` where the judge is surer than a threshold, else after
`timeout_s`; all policies within the budget are tried, the best is reported, beside the best that
looks at silence alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.bench.user import PAUSE_S
from pipeline.listening.end_of_turn import EndOfTurnJudge
from pipeline.messages import Pcm, Reading
from pipeline.synthetic import examples
from pipeline.synthetic.sentences import Pool

NOTICED_S = 0.128
BUDGETS_MS = (300, 600)
NEVER = 2.0  # a probability that no judge is as sure of


def sweep(
    judge: EndOfTurnJudge,
    *,
    num_turns: int,
    seed: int,
    pool: Pool,
    read: Callable[[Pcm], Reading] | None = None,
) -> list[dict[str, Any]]:
    """One row for each budget. read: an ear, for a judge that is told words, too."""
    chance = random.Random(seed)
    drawn = [examples.turn_example(chance, pool=pool) for _ in range(num_turns)]
    scores = {
        "judged": np.array([judge.probability(pcm) for pcm, _ in drawn]),
        "silence_alone": np.zeros(num_turns),
    }
    if read is not None:
        scores["judged_by_words"] = np.array(
            [judge.probability(pcm, read(pcm)) for pcm, _ in drawn]
        )
    is_end = np.array([label == 1 for _, label in drawn])
    pauses_s = np.array([chance.uniform(*PAUSE_S) for _ in range(int((~is_end).sum()))])
    return [
        {
            "budget_ms": budget_ms,
            **{
                name: _best(each, is_end, pauses_s, budget_ms / 1000)
                for name, each in scores.items()
            },
            "pauses": len(pauses_s),
        }
        for budget_ms in BUDGETS_MS
    ]


def _best(scores: Any, is_end: Any, pauses_s: Any, budget_s: float) -> float:
    """Smallest share of pauses that any policy within the budget cuts off."""
    best = 1.0
    for threshold in (*np.unique(np.quantile(scores, np.linspace(0, 1, 21))), NEVER):
        is_sure = scores >= threshold
        for delay_s in np.arange(NOTICED_S, 0.4, 0.064):
            for timeout_s in np.arange(delay_s, 4.0, 0.1):
                waits = np.where(is_sure, delay_s, timeout_s)
                if waits[is_end].mean() <= budget_s:
                    best = min(best, float((waits[~is_end] < pauses_s).mean()))
    return round(best, 3)
