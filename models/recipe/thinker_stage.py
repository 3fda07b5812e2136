"""The stage that trains the thinker over a work folder: vocabulary, lessons, steps, exam."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import torch

from models.chat import ChatFormat
from models.chat_template import ChatTemplate
from models.config import parse_config
from models.errors import CheckpointError
from models.recipe.batches import build_constants
from models.recipe.dialogues import TOOLS, all_texts
from models.recipe.lessons import Classroom, Lesson, lesson, training_room
from models.recipe.run import Run, keep_on, put_average
from models.recipe.sizes import embedded_config
from models.recipe.template import TEMPLATE
from models.recipe.thinker import PACE, Learner, new_learner, study, take_step
from models.recipe.tokenizer import Vocabulary, learn_vocabulary, write_tokenizer

NUM_LESSONS = 12_000  # different ones; then the next epoch begins
LESSONS_PER_STEP = 8
NUM_VOCABULARY_CONVERSATIONS = 3000


def work_vocabulary(work: Path) -> Vocabulary:
    """That of vocabulary.json in `work`: learnt once, the tables follow from it."""
    path = work / "vocabulary.json"
    if not path.exists():
        system = ChatTemplate(TEMPLATE).system("", TOOLS)
        found = learn_vocabulary([*all_texts(NUM_VOCABULARY_CONVERSATIONS), system, system])
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(found.pieces, indent=0), encoding="utf-8")
        unfinished.rename(path)
    return Vocabulary(pieces=tuple(json.loads(path.read_text(encoding="utf-8"))))


def work_learner(vocabulary: Vocabulary, seed: int) -> Learner:
    """An untrained model of the embedded sizes with these words."""
    config = parse_config(embedded_config(vocabulary))
    with tempfile.TemporaryDirectory() as scratch:
        write_tokenizer(Path(scratch), vocabulary)
        chat = ChatFormat.load(Path(scratch), config)
    return new_learner(config, chat, vocabulary, seed)


def train_thinker(work: Path, seed: int, minutes: float) -> None:
    """Go on with the thinker."""
    learner = work_learner(work_vocabulary(work), seed)
    run = Run.new(learner.model, PACE, seed)
    path = work / "thinker.pt"
    if path.exists():
        run.load(path)
    room = training_room(work / "voices")
    keep_on(
        run,
        lambda: take_step(run, learner, _lessons(room, run)),
        path,
        minutes=minutes,
        steps_per_log=10,
        steps_per_save=50,
    )


def trained_learner(work: Path) -> Learner:
    """The averaged weights of thinker.pt, without gradients.

    Raises:
        CheckpointError: there is none.
    """
    if not (work / "thinker.pt").exists():
        raise CheckpointError(f"{work} holds no thinker.pt; the stage thinker makes it")
    learner = work_learner(work_vocabulary(work), 0)
    run = Run.new(learner.model, PACE, 0)
    run.load(work / "thinker.pt")
    put_average(run, learner.model)
    build_constants(learner.model)
    learner.model.requires_grad_(False)
    return learner


@torch.no_grad()
def score_text(work: Path, room: Classroom, *, num_lessons: int) -> tuple[int, int]:
    """Replies that the averaged thinker.pt would give exactly, greedily, of how many."""
    learner = trained_learner(work)
    outcomes = [study(learner, lesson(room, seed, 0)) for seed in range(num_lessons)]
    return sum(o.num_right for o in outcomes), sum(o.num_replies for o in outcomes)


def _lessons(room: Classroom, run: Run) -> list[Lesson]:
    """The next ones: each epoch in an order of its own."""
    first = run.step * LESSONS_PER_STEP
    chosen = []
    for index in range(first, first + LESSONS_PER_STEP):
        epoch, place = divmod(index, NUM_LESSONS)
        order = list(range(NUM_LESSONS))
        random.Random(f"{run.seed} {epoch}").shuffle(order)
        chosen.append(lesson(room, order[place], epoch))
    return chosen
