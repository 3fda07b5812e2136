"""What an engine has read in a piece of sound: words, and what they say about its end."""

from __future__ import annotations

from dataclasses import dataclass

FOREIGN = -7.5  # mean log chance of the words: so unlikely are words that were misheard


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The words that are heard in a piece of sound.

    Attributes:
        num_words, unknown_share, ends_unknown: how many; how many of them are no words of the
            model's; whether the last one is none.
        end_after_N: log chance that a sentence ends behind its last N words; seen_N: log of how
            often those are said; ended_before_N: the same without the last word; end: all in one.
        likely_...: log chances of the last word, of all, of the least likely one, behind those
            before. sure_...: how sure the ear is of the last word, of all, of the surest.
        tokens_since: tokens behind the last word; tokens_of_last: how long that one is written.
        tail_sound, sound, sound_most: chance of words: mean of the last tokens, sum, greatest.
    """

    num_words: float
    unknown_share: float
    ends_unknown: float
    end_after_1: float
    end_after_2: float
    end_after_3: float
    seen_1: float
    seen_2: float
    seen_3: float
    ended_before_1: float
    ended_before_2: float
    end: float
    likely_last: float
    likely_mean: float
    likely_least: float
    sure_last: float
    sure_mean: float
    sure_most: float
    tokens_since: float
    tokens_of_last: float
    tail_sound: float
    sound: float
    sound_most: float

    @property
    def is_of_the_model(self) -> bool:
        """Whether these are sentences of the kind that the model knows; what it makes of the end of
        any others says little.
        """
        return self.unknown_share == 0 and self.likely_mean >= FOREIGN


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheard:
    """Answer to `messages.Overhear`; one that another follows at once may stay without."""

    context: int
    query: int
    reading: Reading
