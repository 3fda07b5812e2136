"""Which words an audio encoder has written, and whether what was said so far is a whole sentence.

Only for checkpoints whose encoder writes rows of the embedding table, with the placeholder of an
audio token between words (`models.recipe.hearing`). `spoken_words.json` in the folder says so, and
how often which word follows which in what is said to the model; without that file nothing is read.
Changes no context.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from models.content import Reading
from models.errors import CheckpointError

FILE = "spoken_words.json"
BEGIN, END = -1, -2  # in place of a word before the first and behind the last
MAX_PAST = 3  # words that the next one is guessed from
UNSEEN = -3.0  # log chance of an end behind words that are new
LEAST = 1e-6
TAIL_TOKENS = 4
LONG_TOKENS = 30  # more silence says no more

Counts = Mapping[tuple[int, ...], Mapping[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenWords:
    """What `spoken_words.json` says.

    Attributes:
        scale: of the products of rows and embeddings, as in training. unknown: stands for a word
            that is not the model's.
        follows: up to MAX_PAST words -> how often each word (or END) came behind them.
    """

    scale: float
    unknown: int
    follows: Counts

    def chance(self, word: int, past: Sequence[int]) -> float:
        """Of a word behind others: counts of longer pasts, smoothed by those of shorter ones."""
        before = (BEGIN, *past)
        found = 0.1 / (len(self.follows[()]) + 1)
        for length in range(min(MAX_PAST, len(before)) + 1):
            counts = self.follows.get(before[len(before) - length :])
            if counts is None:
                break
            total = sum(counts.values())
            found = (counts.get(word, 0) + len(counts) * found) / (total + len(counts))
        return found

    def end_after(self, past: Sequence[int], length: int) -> tuple[float, float]:
        """Log chance that a sentence ends behind its last `length` words, and of how many (log)."""
        counts = self.follows.get((BEGIN, *past)[-length:])
        if counts is None:
            return UNSEEN, 0.0
        total = sum(counts.values())
        return math.log((counts.get(END, 0) + 0.3) / (total + 1)), math.log(total + 1)


def read_spoken_words(folder: Path) -> SpokenWords | None:
    """None where the checkpoint's encoder writes no words.

    Raises:
        CheckpointError: the file can not be read.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        follows = {
            tuple(map(int, past.split())): {int(word): int(count) for word, count in next_.items()}
            for past, next_ in raw["follows"].items()
        }
        found = SpokenWords(scale=float(raw["scale"]), unknown=int(raw["unknown"]), follows=follows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"can not read {path}: {error!r}") from error
    if () not in follows:
        raise CheckpointError(f"{path} counts no words")
    return found


def count_words(sentences: Sequence[Sequence[int]]) -> dict[tuple[int, ...], dict[int, int]]:
    """How often each word follows which; see `SpokenWords.follows`."""
    follows: dict[tuple[int, ...], dict[int, int]] = {}
    for words in sentences:
        said = (BEGIN, *words, END)
        for place in range(1, len(said)):
            for length in range(min(MAX_PAST, place) + 1):
                counts = follows.setdefault(said[place - length : place], {})
                counts[said[place]] = counts.get(said[place], 0) + 1
    return follows


def write_spoken_words(folder: Path, words: SpokenWords) -> None:
    """Write the file into a checkpoint folder."""
    follows = {" ".join(map(str, past)): counts for past, counts in words.follows.items()}
    raw = {"scale": words.scale, "unknown": words.unknown, "follows": follows}
    (folder / FILE).write_text(json.dumps(raw, separators=(",", ":")) + "\n", encoding="utf-8")


@dataclass(slots=True)
class _Heard:
    """A word: where it is written, and how sure it is at best."""

    id: int
    first: int
    last: int
    chance: float


class WordReader:
    """Reads what the encoder has written.

    Args:
        table: [vocabulary, hidden] embeddings. blank: the placeholder of an audio token.
    """

    def __init__(self, words: SpokenWords, table: Tensor, blank: int) -> None:
        self._words = words
        self._classes = words.scale * table.float().T
        self._blank = blank

    def read(self, rows: Tensor) -> Reading:
        """rows: [tokens, hidden] of one clip."""
        logits = rows.float() @ self._classes
        chances = logits.softmax(dim=1)
        best = chances.max(dim=1)
        written = self._written(best.indices.tolist(), best.values.tolist())
        sounds = (1 - chances[:, self._blank]).tolist()
        return self._reading(written, sounds)

    def _written(self, ids: list[int], chances: list[float]) -> list[_Heard]:
        """Repetitions and blanks left out."""
        found: list[_Heard] = []
        before = self._blank
        for place, (word, chance) in enumerate(zip(ids, chances, strict=True)):
            if word != self._blank and word == before:
                found[-1].last, found[-1].chance = place, max(found[-1].chance, chance)
            elif word != self._blank:
                found.append(_Heard(word, place, place, chance))
            before = word
        return found

    def _reading(self, written: list[_Heard], sounds: list[float]) -> Reading:
        words = self._words
        ids = [word.id for word in written]
        likely = [_log(words.chance(ids[i], ids[:i])) for i in range(len(ids))] or [_log(0) - 1]
        sure = [word.chance for word in written] or [0.0]
        last = written[-1] if written else _Heard(self._blank, 0, -LONG_TOKENS, 0.0)
        ends = [words.end_after(ids, length) for length in range(1, MAX_PAST + 1)]
        num_unknown = ids.count(words.unknown)
        return Reading(
            num_words=float(len(ids)),
            unknown_share=num_unknown / max(1, len(ids)),
            ends_unknown=float(ids[-1:] == [words.unknown]),
            end_after_1=ends[0][0],
            end_after_2=ends[1][0],
            end_after_3=ends[2][0],
            seen_1=ends[0][1],
            seen_2=ends[1][1],
            seen_3=ends[2][1],
            ended_before_1=words.end_after(ids[:-1], 1)[0],
            ended_before_2=words.end_after(ids[:-1], 2)[0],
            end=_log(words.chance(END, ids)),
            likely_last=likely[-1],
            likely_mean=sum(likely) / len(likely),
            likely_least=min(likely),
            sure_last=sure[-1],
            sure_mean=sum(sure) / len(sure),
            sure_most=max(sure),
            tokens_since=float(min(len(sounds) - 1 - last.last, LONG_TOKENS)),
            tokens_of_last=float(last.last - last.first if written else 0),
            tail_sound=sum(sounds[-TAIL_TOKENS:]) / max(1, len(sounds[-TAIL_TOKENS:])),
            sound=sum(sounds),
            sound_most=max(sounds, default=0.0),
        )


def _log(chance: float) -> float:
    return math.log(max(chance, LEAST))


def reader_of(folder: Path, table: Tensor, *, blank: int) -> WordReader | None:
    """That of a checkpoint, where its encoder writes words.

    Raises:
        CheckpointError: `spoken_words.json` can not be read, or speaks of other tokens.
    """
    words = read_spoken_words(folder)
    if words is None:
        return None
    known = {word for counts in words.follows.values() for word in counts if word != END}
    if not all(0 <= word < len(table) for word in (words.unknown, *known)):
        raise CheckpointError(f"{folder / FILE} speaks of tokens that the checkpoint has not")
    return WordReader(words, table, blank)
