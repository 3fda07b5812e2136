"""How far a stage is: said of what its file holds, and refused where there is none."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from models.errors import CheckpointError
from models.recipe.learner import new_learner, work_vocabulary
from models.recipe.measures import MEASURES, measure
from models.recipe.run import Run
from models.recipe.thinker import LANGUAGE_PACE, decoder_of


@pytest.mark.parametrize("stage", MEASURES)
def test_a_stage_that_has_not_run_is_named(stage: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"no {stage}\.pt"):
        list(measure(tmp_path, stage, 1))


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_decoder_that_has_learnt_nothing_answers_nothing_right(tmp_path: Path) -> None:
    decoder = decoder_of(new_learner(work_vocabulary(tmp_path), 0))
    Run.new(decoder, LANGUAGE_PACE, 0).save(tmp_path / "language.pt")
    (line,) = measure(tmp_path, "language", 3)
    counted = re.fullmatch(r"from imagined rows: (\d+) of (\d+) replies exactly right", line)
    assert counted is not None
    assert int(counted[1]) == 0
    assert int(counted[2]) >= 3
