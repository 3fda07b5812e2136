"""What the ear really writes where a word is said, so that the decoder learns from its mistakes.

Clips are disturbed as they are for the ear itself (`models.recipe.mel_noise`) and heard; the rows
of each word are cut out where an alignment that knows the words finds it. Of a voice that it hardly
understands the ear writes something between two words, or next to nothing: rows that are imagined
from embeddings alone (`models.recipe.imagined`) are mistaken in other words than these.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.recipe.hearing import SCALE, WINDOW_FRAMES, Ears, hear_batch
from models.recipe.mel_noise import disturbed_features
from models.recipe.utterances import Utterance

SPAN = 3  # tokens of a word: where it is found, and one to both sides
CLIPS_PER_BATCH = 32
NEVER = -1e9  # log probability


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardWords:
    """Words as they were written.

    Attributes:
        rows: [n, SPAN, hidden] float16. words: [n] int64, what was said there.
        places: word -> where `words` has it.
        strange: whole clips of speech that is not the model's, [T, hidden] float16 each.
    """

    rows: Tensor
    words: Tensor
    places: Mapping[int, Sequence[int]]
    strange: Sequence[Tensor]

    @classmethod
    def of(cls, rows: Tensor, words: Tensor, strange: Sequence[Tensor] = ()) -> HeardWords:
        """Looks up where each word is."""
        places: dict[int, list[int]] = {}
        for place, word in enumerate(words.tolist()):
            places.setdefault(word, []).append(place)
        return cls(rows=rows, words=words, places=places, strange=strange)

    def draw(self, word: int, chance: random.Random) -> Tensor | None:
        """Rows of one time that a word was said, [SPAN, hidden]; None: it never was."""
        found = self.places.get(word)
        return None if found is None else self.rows[chance.choice(found)].float()

    def draw_strange(self, chance: random.Random) -> Tensor | None:
        """One clip of speech that is not the model's, [T, hidden]; None: there is none."""
        return chance.choice(self.strange).float() if self.strange else None

    def save(self, path: Path, hearing_step: int) -> None:
        """With the step of hearing that heard them."""
        stored = {"rows": self.rows, "words": self.words, "strange": list(self.strange)}
        torch.save({**stored, "step": hearing_step}, path)

    @classmethod
    def load(cls, path: Path, hearing_step: int) -> HeardWords | None:
        """What `save` wrote; None where there is nothing, or of another step."""
        if not path.exists():
            return None
        stored = torch.load(path, weights_only=True)
        if stored["step"] != hearing_step or "strange" not in stored:
            return None
        return cls.of(stored["rows"], stored["words"], stored["strange"])


@torch.no_grad()
def hear_words(
    ears: Ears,
    utterances: Sequence[Utterance],
    chance: random.Random,
    strange: Sequence[Utterance] = (),
) -> HeardWords:
    """Hear every utterance once, disturbed; `strange` are of speech that is not the model's."""
    made: list[tuple[int, Tensor]] = []
    for heard, one in zip(_heard(ears, utterances, chance), utterances, strict=True):
        made += _cut_out(ears, heard, one.ids)
    hidden = ears.table.shape[1]
    rows = torch.stack([rows for _, rows in made]) if made else torch.zeros(0, SPAN, hidden)
    return HeardWords.of(
        rows.half(),
        torch.tensor([word for word, _ in made], dtype=torch.long),
        [heard.half() for heard in _heard(ears, strange, chance)],
    )


def _heard(ears: Ears, utterances: Sequence[Utterance], chance: random.Random) -> Iterator[Tensor]:
    """What the ear writes of each, [T, hidden]."""
    for start in range(0, len(utterances), CLIPS_PER_BATCH):
        batch = utterances[start : start + CLIPS_PER_BATCH]
        mels = [disturbed_features(one.mel, chance) for one in batch]
        windows = [chance.choice(WINDOW_FRAMES) for _ in batch]
        tokens, _ = hear_batch(ears.encoder, mels, windows)
        yield from (rows.float() for rows in tokens)


def _cut_out(ears: Ears, tokens: Tensor, ids: Sequence[int]) -> Iterable[tuple[int, Tensor]]:
    """Each word with its rows [SPAN, hidden]; what lies nearer to another word is blank."""
    chances = (SCALE * tokens @ ears.table.T.float()).log_softmax(dim=1).numpy()
    found = aligned(chances, ids, ears.blank)
    reach = SPAN // 2
    for index, place in enumerate(found):
        rows = ears.table[ears.blank].float().repeat(SPAN, 1)
        first = (found[index - 1] + place) // 2 + 1 if index else 0
        last = (place + found[index + 1]) // 2 if index + 1 < len(found) else len(tokens) - 1
        for token in range(max(first, place - reach), min(last, place + reach) + 1):
            rows[token - place + reach] = tokens[token]
        yield ids[index], rows


def aligned(chances: NDArray[np.float32], ids: Sequence[int], blank: int) -> list[int]:
    """The token of each word on the likeliest path of connectionist temporal classification.

    Args:
        chances: [T, vocabulary], log probabilities.

    Returns:
        One token for each id, in order; nothing where the words do not fit.
    """
    if not ids:
        return []
    states = np.full(2 * len(ids) + 1, blank)
    states[1::2] = ids
    may_skip = np.zeros(len(states), bool)  # the blank between two different words
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    scores = chances[:, states]  # [T, S]
    total = np.full(len(states), NEVER)
    total[:2] = scores[0, :2]
    steps = np.zeros(scores.shape, int)
    for token in range(1, len(scores)):
        came = np.full((3, len(states)), NEVER)
        came[0] = total
        came[1, 1:] = total[:-1]
        came[2, 2:] = np.where(may_skip[2:], total[:-2], NEVER)
        steps[token] = came.argmax(axis=0)
        total = came.max(axis=0) + scores[token]
    state = len(states) - 1 - int(total[-2] > total[-1])
    if total[state] < NEVER / 2:
        return []
    best: dict[int, int] = {}
    for token in range(len(scores) - 1, -1, -1):
        if state % 2 and scores[token, state] >= scores[best.get(state, token), state]:
            best[state] = token
        state -= steps[token, state]
    return [best[2 * index + 1] for index in range(len(ids))]
